"""openai-python → `ic serve` → a recording upstream, without other servers in between.

Checked: the request of a client that disconnects ends at the upstream immediately, in every phase, so that a model can
stop; events are forwarded one by one; large bodies arrive unchanged. The added latency is measured.
"""

import hashlib
import random
import signal
import sys
import time

import httpx
import openai
from measure import table, timed_stream
from support import (
    Checks,
    Interceptor,
    Upstream,
    clean_environment,
    free_range,
    ic_from_arguments,
    until,
    workplace,
)

SECONDS_MAX = 180
# Time within which the upstream must see that its client has disconnected: usually about 1 ms, a second on a busy machine.
GONE_WITHIN_MS = 1000
# Far longer than the checks take, so that such a response never ends by itself.
LONG_MS = 45000
# More than all buffers in between, so that it must be streamed.
UPLOAD_BYTES = 64 << 20


class Scene:
    """The interceptor of one project, directly in front of the upstream."""

    def __init__(self, ic, folder, processes):
        self.upstream = Upstream(folder, processes)
        ports = free_range(8)
        home = folder / "home"
        home.mkdir()
        environment = clean_environment(
            HOME=str(home),
            INTERCEPTOR_PORT_MIN=str(ports.start),
            INTERCEPTOR_PORT_MAX=str(ports.stop - 1),
        )
        target = f"http://localhost:{self.upstream.port}"
        self.ic = Interceptor(ic, folder / "gamma", target, environment, processes).ready()
        self.direct = client(f"http://127.0.0.1:{self.upstream.port}/v1")
        self.through = client(self.ic.url)


def client(base_url):
    return openai.OpenAI(
        base_url=base_url, api_key="none", max_retries=0, timeout=60, http_client=httpx.Client(trust_env=False)
    )


def main():
    ic = ic_from_arguments()
    checks = Checks("a recording upstream, one interceptor, openai-python")
    with workplace(SECONDS_MAX) as (folder, processes):
        scene = checks.run("the interceptor starts", Scene, ic, folder, processes)
        if scene:
            for when, prompt, leave in PHASES:
                checks.run(f"a client that disconnects {when} ends its upstream request", client_gone, scene, prompt, leave)
            for sentence, check in CHECKS:
                checks.run(sentence, check, scene)
            if checks.failed:
                print(f"---- {scene.ic.process.name}\n{scene.ic.process.output()}")
    sys.exit(checks.finish())


def client_gone(scene, prompt, leave):
    """`leave` returns the moment at which the client closed; the upstream has recorded when it saw that."""
    for way, through in (("direct", scene.direct), ("through ic", scene.through)):
        request_id = f"{leave.__name__}-{way.replace(' ', '-')}"
        closed_ns = leave(through, f"id={request_id} {prompt}")

        def ended(request_id=request_id):
            recorded = scene.upstream.recorded(request_id)
            return recorded and recorded["ended"] and recorded

        recorded = until(f"the upstream sees the end of {request_id}", ended, seconds=15)
        noticed_ms = (recorded["ended_ns"] - closed_ns) / 1e6
        assert recorded["ended"] == "client gone", recorded
        assert noticed_ms < GONE_WITHIN_MS, f"{noticed_ms:.0f} ms {way}"
        print(f"        {way}: noticed after {noticed_ms:.1f} ms")


def close_between_events(through, prompt):
    stream = through.chat.completions.create(model="recorded", messages=user(prompt), stream=True)
    assert next(iter(stream)).choices[0].delta.content
    closed_ns = time.monotonic_ns()
    stream.close()
    return closed_ns


def leave_before_the_stream(through, prompt):
    return run_into_timeout(through, prompt, stream=True)


def leave_before_the_answer(through, prompt):
    return run_into_timeout(through, prompt, stream=False)


def run_into_timeout(through, prompt, stream):
    """openai-python closes its connection at its time limit."""
    seconds = 0.3
    asked_ns = time.monotonic_ns()
    try:
        through.with_options(timeout=seconds).chat.completions.create(
            model="recorded", messages=user(prompt), stream=stream
        )
    except openai.APITimeoutError:
        # It closed between these two moments; counting from the first can only make the check stricter.
        return asked_ns + int(seconds * 1e9)
    raise AssertionError("a response arrived that was not sent")


PHASES = (
    # (when the client disconnects, the request, how the client disconnects)
    ("between two events", f"events=4 gap_ms={LONG_MS}", close_between_events),
    ("before a stream's first byte", f"wait_ms={LONG_MS}", leave_before_the_stream),
    ("before a plain response", f"wait_ms={LONG_MS}", leave_before_the_answer),
)


def events_are_not_held_back(scene):
    """20 events 50 ms apart take almost a second, so a buffered stream delivers the first event late."""
    timed_stream(scene.through, "recorded", "spread", 20, 50).expect_spread(50)


def uploads_arrive_whole(scene):
    """One message of 64 MiB; the upstream responds with its checksum."""
    noise = random.Random(7).randbytes(UPLOAD_BYTES // 2).hex()
    answer = scene.through.chat.completions.create(
        model="recorded", messages=[{"role": "system", "content": noise}, *user("id=upload events=1")]
    )
    assert answer.choices[0].message.content.startswith("upload:0@"), answer
    digest = hashlib.sha256(noise.encode()).hexdigest()
    assert scene.upstream.recorded("upload")["sha256_of_first_message"] == digest


def measured(scene):
    rounds, events, gap_ms = 25, 20, 10
    ways = {"direct": scene.direct, "through ic": scene.through}
    timings = {way: [] for way in ways}
    for number in range(rounds + 1):
        # Interleaved, so that a slow period of the machine affects both equally; the first round is a warm-up.
        for way, through in ways.items():
            timing = timed_stream(through, "recorded", f"timed-{way.replace(' ', '-')}-{number}", events, gap_ms)
            if number:
                timings[way].append(timing)
    print(table(f"openai-python → upstream, {rounds} streams of {events} events {gap_ms} ms apart, ms", timings))


def stops_cleanly(scene):
    assert scene.ic.process.stop(signal.SIGTERM) == 0, scene.ic.process.output()
    assert "panicked" not in scene.ic.process.output(), scene.ic.process.output()


CHECKS = (
    ("events are not buffered", events_are_not_held_back),
    ("a message of 64 MiB arrives unchanged", uploads_arrive_whole),
    ("the added latency is measured", measured),
    ("SIGTERM ends it with 0", stops_cleanly),
)


def user(text):
    return [{"role": "user", "content": text}]


if __name__ == "__main__":
    main()
