"""OpenAI's and Anthropic's libraries for Python, without their retries, which would hide lost requests.

Usage: python_sdks.py SCENE CLIENT (JSON; ../table.py says what is in it)
"""

import concurrent.futures
import contextlib
import hashlib
import json
import sys
import time

import anthropic
import openai
from cases import EVENTS, FORGED, TOGETHER, expect_identity, fields_of, run

SECONDS_MAX = 90
# The time limit of clients that disconnect only after one: the request must have arrived by then.
PATIENCE_SECONDS = 2


class OpenAI:
    errors = (openai.AuthenticationError, openai.RateLimitError, openai.InternalServerError)
    too_large, timeout = openai.APIStatusError, openai.APITimeoutError

    def __init__(self, scene):
        self.client = openai.OpenAI(base_url=f"{scene.through}/v1", api_key="none", max_retries=0)

    def create(self, fields, text, stream=False, timeout=SECONDS_MAX):
        return self.client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": text}],
            stream=stream,
            extra_headers=fields,
            timeout=timeout,
        )

    def text(self, answer):
        return answer.choices[0].message.content

    def piece(self, event):
        return event.choices[0].delta.content


class Anthropic:
    errors = (anthropic.AuthenticationError, anthropic.RateLimitError, anthropic.InternalServerError)
    too_large, timeout = anthropic.APIStatusError, anthropic.APITimeoutError

    def __init__(self, scene):
        self.client = anthropic.Anthropic(base_url=scene.through, api_key="none", max_retries=0)

    def create(self, fields, text, stream=False, timeout=SECONDS_MAX):
        return self.client.messages.create(
            model="m",
            max_tokens=16,
            messages=[{"role": "user", "content": text}],
            stream=stream,
            extra_headers=fields,
            timeout=timeout,
        )

    def text(self, answer):
        return answer.content[0].text

    def piece(self, event):
        return event.delta.text if event.type == "content_block_delta" else None


def ask(client, case, want="", fields=(), text="hello", **options):
    return client.create({"x-case": case, "x-want": want, **dict(fields)}, text, **options)


def told(client, answer):
    """The request as the target received it, from the text of its response."""
    return json.loads(client.text(answer))


def plain(scene, client, case):
    assert told(client, ask(client, case))["method"] == "POST"
    fields = fields_of(scene.seen(case))
    assert fields["user-agent"][0].startswith(("OpenAI/Python", "Anthropic/Python")), fields


def events(scene, client, case):
    said = []
    for event in ask(client, case, f"events={EVENTS}", stream=True):
        if piece := client.piece(event):
            said.append(piece)
            # The target sends the next event only now, so a buffered event would never arrive.
            if len(said) < EVENTS:
                scene.control("next", case)
    assert said == [f"{index} " for index in range(EVENTS)], said
    scene.ended(case, "done")


def upload(scene, client, case):
    """A very long message: the checksum is that of the body that the library sends."""
    text = hashlib.shake_256(b"text").hexdigest(scene.bytes // 2)
    answer = told(client, ask(client, case, text=text))
    assert answer["bytes"] > len(text), answer
    # Twice the same text, so that a loss in only one of them is detected.
    assert told(client, ask(client, f"{case}-again", text=text)) == answer


def refused(scene, client, case):
    with expect(client.too_large) as refusal:
        ask(client, case, "refuse", text="x" * scene.bytes)
    assert refusal.error.status_code == 413 and "too large" in str(refusal.error), refusal.error


def leaves_early(scene, client, case):
    with expect(client.timeout):
        ask(client, case, "hold", timeout=PATIENCE_SECONDS)
    scene.ended(case, "gone")


def leaves_midway(scene, client, case):
    stream = ask(client, case, f"events={EVENTS}", stream=True)
    assert next(piece for event in stream if (piece := client.piece(event))) == "0 "
    stream.close()
    scene.ended(case, "gone")


def idle(scene, client, case):
    told(client, ask(client, f"{case}-0"))
    # The case needs this pause: no event ends it earlier.
    time.sleep(scene.idle_seconds)
    told(client, ask(client, f"{case}-1"))


def slow(scene, client, case):
    told(client, ask(client, case, f"slow={scene.slow_seconds}"))


def errors(scene, client, case):
    for status, error in zip((401, 429, 500), client.errors):
        with expect(error) as refusal:
            ask(client, f"{case}-{status}", f"status={status}")
        assert "as asked" in str(refusal.error), refusal.error
        fields = refusal.error.response.headers
        assert fields["retry-after"] == "7" and "x-ic-error" not in fields, fields


class expect(contextlib.AbstractContextManager):
    """The expected error."""

    def __init__(self, kind):
        self.kind = kind

    def __exit__(self, _, error, traceback):
        assert isinstance(error, self.kind), f"{self.kind.__name__} should have come, not {error!r}"
        self.error = error
        return True


def packed(scene, client, case):
    assert told(client, ask(client, case, "gzip"))["method"] == "POST"


def together(scene, client, case):
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        want = f"together={TOGETHER}"
        asked = [pool.submit(ask, client, f"{case}-{n}", want, text=f"n={n}") for n in range(TOGETHER)]
        for number, answer in enumerate(asked):
            said = told(client, answer.result())
            assert said == scene.seen(f"{case}-{number}")["told"], said


def identity(scene, client, case):
    told(client, ask(client, case, fields=FORGED))
    expect_identity(scene, case)


OTHERWISE = "the library supports only JSON and events"
ROWS = {
    "plain": plain,
    "events": events,
    "upload": upload,
    "refused": refused,
    "leaves early": leaves_early,
    "leaves midway": leaves_midway,
    "idle": idle,
    "slow": slow,
    "errors": errors,
    "gzip": packed,
    "together": together,
    "identity": identity,
}

if __name__ == "__main__":
    run(sys.argv[2], {"openai-py": OpenAI, "anthr-py": Anthropic}[sys.argv[2]], ROWS, OTHERWISE)
