"""End-to-end checks with real programs: openai-python → `ic serve` → the LiteLLM proxy → a recording upstream.

Two projects run at once, each with its interceptor on its port of the shared registry. Checked: every response is correct,
requests that reach the model have the identification of their project and no other, errors arrive unchanged, events arrive
one by one, and idle connections that LiteLLM has closed cause no failed request. The added latency is measured and printed.

No request leaves this machine: one model is LiteLLM's `mock_response`, the others are upstream.py.
"""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time

import httpx
import openai
from measure import Timing, table, timed_stream
from support import (
    Checks,
    Interceptor,
    Process,
    Upstream,
    can_bind,
    clean_environment,
    free_port,
    free_range,
    get_json,
    ic_from_arguments,
    until,
    workplace,
)

KEY = "sk-end-to-end"
MOCK_ANSWER = "The mock answers, without a model."
SECONDS_MAX = 300
# Fields that differ between two responses to the same request; all others must be equal.
CHANGING_FIELDS = ("date", "x-litellm-call-id", "x-litellm-response-duration-ms", "x-litellm-callback-duration-ms")
CHANGING_FIELDS += ("x-litellm-overhead-duration-ms", "llm_provider-date")
# Hop-by-hop fields (RFC 9110 §7.6.1), which are not compared.
HOP_FIELDS = ("connection", "keep-alive", "transfer-encoding")


class LiteLLM:
    """The proxy from PyPI with its own configuration, started as a user does."""

    def __init__(self, folder, upstream, processes):
        self.port = free_port()
        config = folder / "litellm.json"
        # JSON is valid YAML.
        config.write_text(json.dumps(self.configuration(upstream)))
        self.process = Process(
            "litellm",
            [os.path.join(os.path.dirname(sys.executable), "litellm")]
            + ["--config", config, "--host", "127.0.0.1", "--port", self.port],
            folder / "litellm.log",
            env=clean_environment(
                HOME=str(folder),
                # Prices and other data come from the package, not from the network.
                LITELLM_LOCAL_MODEL_COST_MAP="True",
                LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True",
                LITELLM_LOCAL_POLICY_TEMPLATES="True",
                LITELLM_MODE="PRODUCTION",
                HF_HUB_OFFLINE="1",
                NO_DOCS="True",
                DISABLE_ADMIN_UI="True",
            ),
            cwd=folder,
        )
        processes.append(self.process)

    def configuration(self, upstream):
        def model(name, **parameters):
            return {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "none", **parameters}}

        recorded = {"api_base": f"http://127.0.0.1:{upstream.port}/v1", "max_retries": 0}
        return {
            "model_list": [
                model("mock", mock_response=MOCK_ANSWER),
                model("recorded", **recorded),
                model("embedded", **recorded),
                model("failing", **recorded),
            ],
            # Without it LiteLLM does not forward the identification fields.
            "general_settings": {"master_key": KEY, "forward_client_headers_to_llm_api": True},
            "litellm_settings": {"telemetry": False, "num_retries": 0},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        }

    def ready(self):
        def models():
            if not self.process.is_running():
                raise RuntimeError(f"LiteLLM ended at its start:\n{self.process.output()}")
            answer = httpx.get(f"{self.url}/models", headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)
            return "failing" in answer.text

        # Measured: 10 s on an idle machine, 47 s on a busy one.
        until("LiteLLM is up", lambda: attempt(models), seconds=150, pause=0.2)
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"


def attempt(ask):
    """`ask`, with `False` if the connection fails."""
    try:
        return ask()
    except httpx.TransportError:
        return False


def client(base_url, key=KEY):
    """openai-python as in an application, but without retries, which would hide lost requests."""
    http = httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=64, max_keepalive_connections=64))
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60, http_client=http)


class Scene:
    """All processes: two interceptors, LiteLLM and the upstream."""

    def __init__(self, ic, folder, processes):
        self.folder = folder
        self.upstream = Upstream(folder, processes)
        self.litellm = LiteLLM(folder, self.upstream, processes)
        self.ports = free_range(16)
        home = folder / "home"
        home.mkdir()
        self.registry = home / ".config/litellm/port_registry.json"
        self.environment = clean_environment(
            HOME=str(home),
            INTERCEPTOR_PORT_MIN=str(self.ports.start),
            INTERCEPTOR_PORT_MAX=str(self.ports.stop - 1),
        )
        # `localhost`, while LiteLLM listens on 127.0.0.1 only: the fallback from ::1 is checked as well.
        target = f"http://localhost:{self.litellm.port}"
        named = {**self.environment, "SUPERMEMORY_USERNAME": "team-{project}"}
        self.alpha = Interceptor(ic, folder / "alpha", target, self.environment, processes)
        self.beta = Interceptor(ic, folder / "beta", target, named, processes)
        self.projects = (self.alpha.ready(), self.beta.ready())
        self.instance_ids = {self.alpha: "pycharm-alpha", self.beta: "team-beta"}
        self.litellm.ready()
        self.direct = client(self.litellm.url)
        self.clients = {project: client(project.url) for project in self.projects}


def main():
    ic = ic_from_arguments()
    checks = Checks("LiteLLM behind two interceptors, openai-python in front")
    with workplace(SECONDS_MAX) as (folder, processes):
        scene = checks.run(
            "two interceptors and LiteLLM start",
            Scene,
            ic,
            folder,
            processes,
        )
        if scene:
            for sentence, check in CHECKS:
                checks.run(sentence, check, scene)
            if checks.failed:
                for process in processes:
                    print(f"---- the last lines of {process.name}\n" + "\n".join(process.output().splitlines()[-20:]))
    sys.exit(checks.finish())


def registry_holds_both(scene):
    document = json.loads(scene.registry.read_text())
    expected = {str(project.project): project.port for project in scene.projects}
    assert document["mappings"] == expected, document
    assert all(port in scene.ports for port in expected.values()), (expected, scene.ports)
    listed = json.loads(scene.alpha.command("list", "--json"))
    assert {row["path"]: (row["port"], row["available"]) for row in listed["mappings"]} == {
        path: (port, False) for path, port in expected.items()
    }, listed


def health_names_the_project(scene):
    for project in scene.projects:
        health = get_json(f"http://127.0.0.1:{project.port}/_ic/health")
        assert health["status"] == "healthy", health
        assert health["instance_id"] == scene.instance_ids[project], health
        assert health["project"] == str(project.project), health


def models_are_listed(scene):
    expected = [model.id for model in scene.direct.models.list()]
    assert sorted(expected) == ["embedded", "failing", "mock", "recorded"], expected
    for project in scene.projects:
        assert [model.id for model in scene.clients[project].models.list()] == expected


def mock_chats(scene):
    for project in scene.projects:
        answer = scene.clients[project].chat.completions.create(model="mock", messages=user("hello"))
        assert answer.choices[0].message.content == MOCK_ANSWER, answer
        stream = scene.clients[project].chat.completions.create(model="mock", messages=user("hello"), stream=True)
        pieces = [event.choices[0].delta.content or "" for event in stream if event.choices]
        assert "".join(pieces) == MOCK_ANSWER, pieces
        assert len(pieces) > 3, f"one event is not a stream: {pieces}"


def concurrent_chats_keep_apart(scene):
    """48 chats at once, plain and streaming through both projects; each with forged identification fields."""

    def chat(number):
        project = scene.projects[number % 2]
        streams = number % 4 < 2
        request_id = f"chat-{number}"
        prompt = f"id={request_id} events={3 + number % 5} gap_ms={number % 3 * 10}"
        answer = scene.clients[project].chat.completions.create(
            model="recorded",
            messages=user(prompt),
            stream=streams,
            extra_headers={"x-memory-user-id": "somebody-else", "X-Source": "elsewhere", "x-of-the-client": request_id},
        )
        said = joined(answer) if streams else answer.choices[0].message.content
        expect_pieces(said, request_id, 3 + number % 5)
        return request_id, project

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        chats = list(pool.map(chat, range(48)))
    recorded = scene.upstream.recorded_all()
    for request_id, project in chats:
        expect_identification(recorded[request_id], scene.instance_ids[project])
        assert field(recorded[request_id], "x-of-the-client") == [request_id]


def embeddings_come_back(scene):
    for project in scene.projects:
        request_id = f"embedding-{project.project.name}"
        texts = [f"id={request_id}", "two words"]
        answer = scene.clients[project].embeddings.create(model="embedded", input=texts)
        expected = [[float(len(text)), float(index), 0.5] for index, text in enumerate(texts)]
        assert [row.embedding for row in answer.data] == expected, answer
        expect_identification(scene.upstream.recorded(request_id), scene.instance_ids[project])


def errors_are_the_same_as_direct(scene):
    bad_json = b'{"model": "mock", "messages": ['
    requests = (
        # (fault, key, body, exception of openai-python, or None if it cannot send such a request)
        ("unknown model", KEY, chat_body("no-such-model"), openai.BadRequestError),
        ("wrong key", "sk-not-the-key", chat_body("mock"), openai.APIStatusError),
        ("no key", None, chat_body("mock"), None),
        ("not JSON", KEY, bad_json, None),
        ("429 from the model", KEY, chat_body("failing", "id=busy status=429"), openai.RateLimitError),
        ("500 from the model", KEY, chat_body("failing", "id=broken status=500"), openai.InternalServerError),
    )
    for what, key, body, _ in requests:
        direct = raw_post(scene.litellm.url, key, body)
        assert direct.status_code >= 400, (what, direct.status_code)
        for project in scene.projects:
            through = raw_post(project.url, key, body)
            assert comparable(through) == comparable(direct), (what, comparable(through), comparable(direct))
    for what, key, body, exception in requests:
        if exception:
            texts = [error_text(client(url, key), body, exception) for url in (scene.litellm.url, scene.alpha.url)]
            assert texts[0] == texts[1], (what, texts)


def unknown_paths_are_the_targets(scene):
    for path in ("/no/such/path?a=b", "/v1/chat/completions"):
        direct = httpx.get(f"http://127.0.0.1:{scene.litellm.port}{path}", trust_env=False, timeout=60)
        through = httpx.get(f"http://localhost:{scene.alpha.port}{path}", trust_env=False, timeout=60)
        assert comparable(through) == comparable(direct), (comparable(through), comparable(direct))
        assert through.status_code in (404, 405), through


def events_are_not_held_back(scene):
    """20 events 50 ms apart take almost a second, so a buffered stream delivers the first event late."""
    for project in scene.projects:
        timing = timed_stream(scene.clients[project], "recorded", f"spread-{project.project.name}", 20, 50)
        timing.expect_spread(50)


def idle_connections_lose_no_request(scene):
    """LiteLLM closes connections that are idle for 5 s: bursts around that time, and around the idle limit of the pool."""
    for idle in (1.45, 4.9, 5.0, 5.1):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            # The check needs this pause: no event ends it earlier.
            for moment in ("before", "after"):

                def chat(number, moment=moment, idle=idle):
                    request_id = f"idle-{idle}-{moment}-{number}"
                    answer = scene.clients[scene.projects[number % 2]].chat.completions.create(
                        model="recorded", messages=user(f"id={request_id} events=1")
                    )
                    expect_pieces(answer.choices[0].message.content, request_id, 1)

                list(pool.map(chat, range(8)))
                if moment == "before":
                    time.sleep(idle)


def measured_through_litellm(scene):
    """Printed, not checked: the latency of LiteLLM hides most of what an interceptor could add."""
    rounds, events, gap_ms = 12, 12, 15
    ways = {"direct": scene.direct, "through ic": scene.clients[scene.alpha]}
    timings = {way: [] for way in ways}
    for number in range(rounds + 1):
        # Interleaved, so that a slow period of the machine affects both equally; the first round is a warm-up.
        for way, through in ways.items():
            name = way.replace(" ", "-")
            timing = timed_stream(through, "recorded", f"timed-{name}-{number}", events, gap_ms)
            if number:
                timings[way].append(timing)
    print(table(f"openai-python → LiteLLM, {rounds} streams of {events} events {gap_ms} ms apart, ms", timings))


def dead_target_is_a_502(scene):
    scene.litellm.process.stop(signal.SIGKILL)
    until("LiteLLM's port is free", lambda: can_bind(scene.litellm.port))
    for project in scene.projects:
        answer = raw_post(project.url, KEY, chat_body("mock"))
        assert answer.status_code == 502, answer
        document = answer.json()
        assert document["type"] == "error" and document["error"]["message"], document
        assert answer.headers["x-ic-error"] == document["error"]["code"], (answer.headers, document)
        assert get_json(f"http://127.0.0.1:{project.port}/_ic/health")["status"] == "healthy"
        message = error_text(scene.clients[project], chat_body("mock"), openai.InternalServerError)
        assert str(scene.litellm.port) in message, message


def interceptors_stop_cleanly(scene):
    before = without_uses(json.loads(scene.registry.read_text()))
    for project, signal_number in zip(scene.projects, (signal.SIGINT, signal.SIGTERM)):
        assert project.process.stop(signal_number) == 0, project.process.output()
        assert "panicked" not in project.process.output(), project.process.output()
        assert KEY not in project.process.output(), "the key of a client is in the log"
    after = without_uses(json.loads(scene.registry.read_text()))
    assert after == before, f"stopping has changed the registry: {before} became {after}"


def without_uses(registry):
    """The registry without the times of the last use: a stop over a minute after the start is recorded."""
    for notes in registry.get("ic", {}).get("projects", {}).values():
        notes.pop("last_used", None)
    return registry


CHECKS = (
    ("the registry holds both projects, each with a port of the range", registry_holds_both),
    ("each interceptor's health names its project", health_names_the_project),
    ("the list of models is that of the target", models_are_listed),
    ("plain and streaming chats with LiteLLM's mock model are answered", mock_chats),
    ("48 chats at once get their own answers and carry their own project's identification", concurrent_chats_keep_apart),
    ("embeddings are returned", embeddings_come_back),
    ("errors are identical to direct ones", errors_are_the_same_as_direct),
    ("unknown paths are answered by the target", unknown_paths_are_the_targets),
    ("events are not buffered", events_are_not_held_back),
    ("connections that LiteLLM closed while idle cause no failed request", idle_connections_lose_no_request),
    ("the added latency is measured", measured_through_litellm),
    ("a dead target is a 502 that says so", dead_target_is_a_502),
    ("SIGINT and SIGTERM end the interceptors with 0 and leave the registry alone", interceptors_stop_cleanly),
)


def user(text):
    return [{"role": "user", "content": text}]


def chat_body(model, text="hello"):
    return json.dumps({"model": model, "messages": user(text)}).encode()


def raw_post(base_url, key, body):
    fields = {"Content-Type": "application/json"}
    if key:
        fields["Authorization"] = f"Bearer {key}"
    return httpx.post(f"{base_url}/chat/completions", headers=fields, content=body, trust_env=False, timeout=60)


def comparable(answer):
    """The part of a response that is equal for equal requests, with the order and the case of field names."""
    fields = [(name.decode(), value.decode()) for name, value in answer.headers.raw]
    fields = [
        (name, "(changes)" if name.lower() in CHANGING_FIELDS else value)
        for name, value in fields
        if name.lower() not in HOP_FIELDS
    ]
    return answer.status_code, answer.reason_phrase, fields, answer.content


def error_text(through, body, exception):
    try:
        through.chat.completions.create(**json.loads(body))
    except exception as error:
        return str(error)
    raise AssertionError(f"no {exception.__name__}")


def joined(stream):
    return "".join(event.choices[0].delta.content or "" for event in stream if event.choices)


def expect_pieces(said, request_id, count):
    """Every piece of the response, in order, and no piece of another response."""
    pieces = [word.split("@")[0] for word in said.split()]
    assert pieces == [f"{request_id}:{index}" for index in range(count)], pieces


def field(recorded, name):
    return [value for given, value in recorded["headers"] if given.lower() == name]


def expect_identification(recorded, instance_id):
    identification = {
        "x-memory-user-id": [instance_id],
        "x-pycharm-instance": [instance_id],
        "x-source": ["pycharm-ai-chat"],
    }
    assert {name: field(recorded, name) for name in identification} == identification, recorded


if __name__ == "__main__":
    main()
