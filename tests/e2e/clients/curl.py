"""curl: the cases of every HTTP client, and those that only curl supports.

Usage: curl.py SCENE (JSON; ../table.py says what is in it)
"""

import contextlib
import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from cases import HTTP, Answer, fields_of, next_event, noise, run, send, sha256


class Curl:
    """One process for each request, as in a shell."""

    def __init__(self, scene, *options):
        self.scene = scene
        self.options = options

    def command(self, method, path, fields, *options):
        url = f"{self.scene.through}{path}"
        chosen = ["--head"] if method == "HEAD" else ["--request", method]
        given = [word for name, value in fields.items() for word in ("--header", f"{name}: {value}")]
        # `--disable` comes first, so that ~/.curlrc is ignored.
        quiet = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*"]
        return [*quiet, *chosen, *given, *self.options, *options, url]

    def send(self, method, path, fields, body=None):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            options = ["--max-time", "90", "--dump-header", folder / "head", "--output", folder / "body"]
            if "accept-encoding" in (name.lower() for name in fields):
                options.append("--compressed")
            if isinstance(body, bytes):
                (folder / "sent").write_bytes(body)
                options += ["--data-binary", f"@{folder / 'sent'}"]
            elif body:
                # A body from a pipe has no length.
                options += ["--upload-file", "-"]
                body = b"".join(body)
            command = self.command(method, path, fields, *options)
            done = subprocess.run(command, input=body, capture_output=True)
            assert done.returncode == 0, (done.returncode, done.stderr)
            heads = (folder / "head").read_bytes().decode("latin-1").strip().split("\r\n\r\n")
            answer = folder / "body"
            body = answer.read_bytes() if answer.exists() and method != "HEAD" else b""
            # From the last status line on it is the final response with its trailers; interim responses precede it.
            final = max(index for index, head in enumerate(heads) if head.startswith("HTTP/"))
            status, *lines = [line for head in heads[final:] for line in head.split("\r\n")]
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.interim = [head.split()[1] for head in heads[:final]]
            return Answer(int(status.split()[1]), fields, body)

    @contextlib.contextmanager
    def open(self, path, fields):
        child = subprocess.Popen(self.command("GET", path, fields, "--no-buffer"), stdout=subprocess.PIPE)
        try:
            yield child.stdout
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

    def leave(self, path, fields, arrived):
        child = subprocess.Popen(self.command("GET", path, fields), stdout=subprocess.DEVNULL)
        try:
            arrived()
        finally:
            child.kill()
            child.wait()


def addresses(scene, client, case):
    """Both loopback addresses, and the name for both."""
    port = scene.through.rpartition(":")[2]
    for number, host in enumerate(("localhost", "127.0.0.1", "[::1]")):
        send(Curl(replace(scene, through=f"http://{host}:{port}")), f"{case}-{number}").told()


def awaits_100(scene, client, case):
    """Above 1 MiB curl sends `Expect`; after a timeout it would be a second later, and show no 100."""
    body = noise(2 << 20)
    curl = Curl(scene, "--expect100-timeout", "60")
    told = send(curl, case, method="POST", body=body).told()
    assert told["sha256"] == sha256(body), told
    assert curl.interim == ["100"], curl.interim
    assert fields_of(scene.seen(case))["expect"] == ["100-continue"]


def refused_at_once(scene, client, case):
    """A refusal of `Expect`: the body need not be sent."""
    answer = send(Curl(scene, "--expect100-timeout", "60"), case, "refuse", "POST", body=noise(scene.bytes))
    assert answer.status == 413, answer
    # The same without `Expect`.
    answer = send(client, f"{case}-unasked", "refuse", "POST", {"Expect": ""}, noise(scene.bytes))
    assert answer.status == 413, answer
    assert json.loads(answer.body)["error"]["message"] == "too large", answer.body


def http_1_0(scene, client, case):
    old = Curl(scene, "--http1.0")
    body = b'{"old": true}'
    assert send(old, case, method="POST", body=body).told()["sha256"] == sha256(body)
    # Such a client gets no chunks: its stream ends with the connection.
    with old.open("/v1/any", {"x-case": f"{case}-events", "x-want": "events=1"}) as stream:
        assert next_event(stream) == {"index": 0}
        assert stream.read() == b"\ndata: [DONE]\n\n"


def h2c(scene, client, case):
    """`--http2` offers an upgrade; the target must receive the body without the offer."""
    body = b'{"upgrade": false}'
    assert send(Curl(scene, "--http2"), case, method="POST", body=body).told()["sha256"] == sha256(body)
    fields = fields_of(scene.seen(case))
    assert not {"upgrade", "http2-settings"} & fields.keys(), fields


def transfer_codings(scene, client, case):
    """`TE: gzip` is for the next hop only."""
    send(Curl(scene, "--tr-encoding"), case).told()
    fields = fields_of(scene.seen(case))
    assert "te" not in fields and "TE" not in str(fields.get("connection")), fields


def trailers(scene, client, case):
    answer = send(client, case, "trailers", "POST", body=b"sum of this")
    assert answer.fields["x-sum"] == answer.told()["sha256"] == sha256(b"sum of this"), answer


def hints(scene, client, case):
    answer = send(client, case, "hints")
    assert answer.told() and client.interim == ["103"], client.interim


if __name__ == "__main__":
    rows = {
        "refused": refused_at_once,
        "addresses": addresses,
        "100-continue": awaits_100,
        "HTTP/1.0": http_1_0,
        "h2c": h2c,
        "TE": transfer_codings,
        "trailers": trailers,
        "hints": hints,
        "idle": "every request has a new connection",
    }
    run("curl", Curl, {**HTTP, **rows})
