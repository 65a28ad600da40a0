"""The cases for clients in Python: the request of each, and the expected result.

A client is a class with `send` (a complete response), `open` (a response that is read line by line) and `leave` (sends a
request, and disconnects when `arrived` returns); the cases are written once for all of them. Each prints one line of JSON,
which ../table.py collects. cases.js has the same for node.

There are no pauses except where a time limit of a server is the case.
"""

import concurrent.futures
import hashlib
import json
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import get_json, until  # noqa: E402

EVENTS = 5
TOGETHER = 50
IDENTIFICATION = ("x-memory-user-id", "x-pycharm-instance", "x-source")
# Forged identification fields of a client; its other fields must arrive unchanged.
FORGED = {"x-memory-user-id": "somebody-else", "X-Source": "elsewhere", "x-of-the-client": "kept, as it is"}
JSON = {"Content-Type": "application/json"}


@dataclass
class Scene:
    """The parameters of a client on its command line."""

    through: str
    target: str
    instance: str
    cases: list
    bytes: int
    slow_seconds: float
    idle_seconds: float
    # The CA of the target's certificate, if it has one.
    ca: str

    def control(self, what, case):
        """Sends a request directly to the target."""
        return get_json(f"{self.target}/{what}?case={case}", self.ca, "POST" if what == "next" else "GET")

    def seen(self, case):
        return until(f"the target has seen {case}", lambda: self.control("seen", case))

    def ended(self, case, how):
        def so():
            return self.control("seen", case).get("ended") == how

        until(f"the target sees that {case} is {how}", so, seconds=15)


@dataclass
class Answer:
    status: int
    fields: dict = field(default_factory=dict)
    body: bytes = b""

    def told(self):
        """The request as the target received it."""
        assert self.status == 200, (self.status, self.body[:300])
        return json.loads(self.body)


class NotApplicable(Exception):
    """The reason why a client does not support a case."""


def run(client, make, rows, otherwise="the client does not support it"):
    """`make` creates the argument of each case from the scene. A row that is a text, and `otherwise` for missing rows, is
    the reason why there is no such case."""
    scene = Scene(**json.loads(sys.argv[1]))
    subject = make(scene)
    for case in scene.cases:
        started = time.monotonic()
        row = rows.get(case, otherwise)
        try:
            if isinstance(row, str):
                raise NotApplicable(row)
            row(scene, subject, f"{client}-{case}".replace(" ", "-"))
            cell, why = "ok", ""
        except NotApplicable as reason:
            cell, why = "n.a.", str(reason)
        except Exception:
            cell, why = "FAILED", traceback.format_exc(limit=-3)
        said = {"case": case, "cell": cell, "why": why, "seconds": time.monotonic() - started}
        print(json.dumps(said), flush=True)


def send(client, case, want="", method="GET", fields=(), body=None, path="/v1/any?x=1&y=two&empty="):
    return client.send(method, path, {"x-case": case, "x-want": want, **dict(fields)}, body)


def plain(scene, client, case):
    body = b'{"model": "m", "messages": []}'
    told = send(client, case, method="POST", fields=JSON, body=body).told()
    assert told == {
        "method": "POST",
        "target": "/v1/any?x=1&y=two&empty=",
        "bytes": len(body),
        "sha256": sha256(body),
    }, told


def events(scene, client, case):
    with client.open("/v1/any", {"x-case": case, "x-want": f"events={EVENTS}"}) as stream:
        for index in range(EVENTS):
            assert next_event(stream) == {"index": index}
            # The target sends the next event only now, so a buffered event would never arrive.
            if index < EVENTS - 1:
                scene.control("next", case)
        assert next_event(stream) is None
    scene.ended(case, "done")


def next_event(stream):
    for line in stream:
        if line.startswith(b"data: [DONE]"):
            return None
        if line.startswith(b"data: "):
            return json.loads(line[6:])
    raise AssertionError("the stream ended too early")


def upload(scene, client, case):
    body = noise(scene.bytes)
    told = send(client, case, method="POST", body=body).told()
    assert (told["bytes"], told["sha256"]) == (len(body), sha256(body)), told


def chunked(scene, client, case):
    """A body without a length."""
    body = noise(1 << 20)
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    told = send(client, case, method="POST", body=pieces).told()
    assert (told["bytes"], told["sha256"]) == (len(body), sha256(body)), told
    fields = fields_of(scene.seen(case))
    assert fields["transfer-encoding"] == ["chunked"] and "content-length" not in fields, fields


def download(scene, client, case):
    answer = send(client, case, f"download={scene.bytes}")
    assert len(answer.body) == scene.bytes, len(answer.body)
    scene.ended(case, "done")
    assert sha256(answer.body) == scene.seen(case)["sent_sha256"]


def refused(scene, client, case):
    """The target responds with 413 before it reads the body, which is still being sent."""
    answer = send(client, case, "refuse", method="POST", body=noise(scene.bytes))
    assert answer.status == 413, answer.status
    assert json.loads(answer.body)["error"]["message"] == "too large", answer.body


def leaves_early(scene, client, case):
    """Disconnects before the first byte, which only the connection shows."""
    client.leave("/v1/any", {"x-case": case, "x-want": "hold"}, lambda: scene.seen(case))
    scene.ended(case, "gone")


def leaves_midway(scene, client, case):
    with client.open("/v1/any", {"x-case": case, "x-want": f"events={EVENTS}"}) as stream:
        assert next_event(stream) == {"index": 0}
    scene.ended(case, "gone")


def idle(scene, client, case):
    """Servers close connections that are idle for some seconds: a request right after that must not fail."""
    for number in range(2):
        # The case needs this pause: no event ends it earlier.
        if number:
            time.sleep(scene.idle_seconds)
        send(client, f"{case}-{number}", method="POST", body=b"{}").told()


def slow(scene, client, case):
    started = time.monotonic()
    send(client, case, f"slow={scene.slow_seconds}").told()
    assert time.monotonic() - started >= scene.slow_seconds


def errors(scene, client, case):
    for status in (401, 429, 500):
        answer = send(client, f"{case}-{status}", f"status={status}")
        assert answer.status == status, answer
        assert sha256(answer.body) == scene.seen(f"{case}-{status}")["sent_sha256"], answer
        assert answer.fields["retry-after"] == "7" and "x-ic-error" not in answer.fields, answer
        assert ("www-authenticate" in answer.fields) == (status == 401), answer


def packed(scene, client, case):
    answer = send(client, case, "gzip", fields={"Accept-Encoding": "gzip"})
    assert answer.told()["method"] == "GET", answer
    assert fields_of(scene.seen(case))["accept-encoding"] == ["gzip"]


def head(scene, client, case):
    answer = send(client, case, method="HEAD")
    assert answer.status == 200 and answer.body == b"", answer
    assert int(answer.fields["content-length"]) > 50, answer.fields
    # The next request on the same connection shows that all sides agree that there was no body.
    send(client, f"{case}-after").told()


def together(scene, client, case):
    """The target responds when all of them are waiting."""
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        body = b'{"number": "%d"}'
        asked = [
            pool.submit(send, client, f"{case}-{n}", f"together={TOGETHER}", "POST", JSON, body % n)
            for n in range(TOGETHER)
        ]
        for number, answer in enumerate(asked):
            assert answer.result().told()["sha256"] == sha256(body % number)


def identity(scene, client, case):
    send(client, case, fields=FORGED).told()
    expect_identity(scene, case)


def expect_identity(scene, case):
    fields = fields_of(scene.seen(case))
    expected = ([scene.instance], [scene.instance], ["pycharm-ai-chat"])
    assert tuple(fields.get(name) for name in IDENTIFICATION) == expected, fields
    assert fields["x-of-the-client"] == [FORGED["x-of-the-client"]], fields
    assert fields["host"] == [scene.target.split("//")[1]], fields


def fields_of(record):
    fields = {}
    for name, value in record["fields"]:
        fields.setdefault(name.lower(), []).append(value)
    return fields


def noise(length):
    """Bytes without repetition, so that lost or reordered pieces are detected."""
    block = hashlib.sha512(b"noise").digest() * 1024
    return b"".join(index.to_bytes(8, "big") + block[8:] for index in range(length // len(block) + 1))[:length]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# The cases of every HTTP client.
HTTP = {
    "plain": plain,
    "events": events,
    "upload": upload,
    "chunked": chunked,
    "download": download,
    "refused": refused,
    "leaves early": leaves_early,
    "leaves midway": leaves_midway,
    "idle": idle,
    "slow": slow,
    "errors": errors,
    "gzip": packed,
    "head": head,
    "together": together,
    "identity": identity,
}
