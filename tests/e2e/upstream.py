"""A recording OpenAI-compatible upstream, from the Python standard library alone.

The end of the line in these checks: what arrives here is what a model behind the interceptor would have seen. The
prompt of each request says how it wants to be answered (`Prompt`), so requests of any number can run at once without
knowing of one another; `GET /recorded` tells everything that was seen so far.

Decided here: how events are paced, what is recorded, and when a client counts as gone. Not decided here: what any of
it should be; that is up to the checks.

Every piece of an answer is `<id>:<index>@<monotonic ns>`, so a reader can tell whose answer it holds, whether a piece
is missing, and (on the same machine) how long the piece was on its way.
"""

import base64
import hashlib
import json
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# An abandoned request must not keep a thread forever.
WAIT_SECONDS_MAX = 60.0


@dataclass
class Prompt:
    """The response that a request asks for: `id=a7 events=5 gap_ms=20 wait_ms=0 status=200` in the last message."""

    id: str = "-"
    events: int = 3
    gap_ms: float = 0.0
    wait_ms: float = 0.0
    status: int = 200

    @classmethod
    def parse(cls, text):
        prompt = cls()
        for word in text.split():
            name, equals, value = word.partition("=")
            if equals and name in cls.__annotations__:
                setattr(prompt, name, cls.__annotations__[name](value))
        return prompt


class Recorder:
    """The requests and how they ended, by the id of the prompt."""

    def __init__(self):
        self._lock = threading.Lock()
        self._requests = {}

    def begin(self, prompt, handler, body):
        with self._lock:
            self._requests[prompt.id] = {
                "path": handler.path,
                "headers": list(handler.headers.items()),
                "sha256_of_first_message": hashlib.sha256(first_message(body).encode()).hexdigest(),
                "events_sent": 0,
                "ended": None,
                "ended_ns": None,
            }

    def event(self, prompt):
        with self._lock:
            self._requests[prompt.id]["events_sent"] += 1

    def end(self, prompt, how):
        with self._lock:
            request = self._requests[prompt.id]
            request["ended"] = how
            request["ended_ns"] = time.monotonic_ns()

    def as_json(self):
        with self._lock:
            return json.dumps(self._requests)


class ClientGone(Exception):
    """The client closed its connection before its response was complete."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An event must not wait in the kernel for the acknowledgement of the previous one.
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/recorded":
            self._reply(200, self.server.recorder.as_json())
        elif self.path == "/v1/models":
            self._reply(200, json.dumps({"object": "list", "data": [{"id": "recorded", "object": "model"}]}))
        else:
            self._reply(404, error("no such path", 404))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/chat/completions":
            prompt = Prompt.parse(body["messages"][-1]["content"])
            answer = self._stream if body.get("stream") else self._chat
        elif self.path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            prompt = Prompt.parse(texts[0])
            answer = self._embeddings
        else:
            self._reply(404, error("no such path", 404))
            return
        recorder = self.server.recorder
        recorder.begin(prompt, self, body)
        try:
            self._pause(prompt.wait_ms / 1000)
            if prompt.status != 200:
                self._reply(prompt.status, error(f"as asked by {prompt.id}", prompt.status))
            else:
                answer(prompt, body)
            recorder.end(prompt, "done")
        except (ClientGone, ConnectionError):
            recorder.end(prompt, "client gone")
            self.close_connection = True

    def _chat(self, prompt, body):
        said = " ".join(piece(prompt, index) for index in range(prompt.events))
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 1, "completion_tokens": prompt.events, "total_tokens": 1 + prompt.events}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._reply(200, json.dumps(envelope(body, "chat.completion", choices=[choice], usage=usage)))

    def _stream(self, prompt, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index in range(prompt.events):
            if index:
                self._pause(prompt.gap_ms / 1000)
            delta = {"role": "assistant", "content": piece(prompt, index) + " "}
            self._event(chunk(body, delta, None))
            self.server.recorder.event(prompt)
        self._event(chunk(body, {}, "stop"))
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _embeddings(self, prompt, body):
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = []
        for index, text in enumerate(texts):
            vector = [float(len(text)), float(index), 0.5]
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        self._reply(200, json.dumps({"object": "list", "model": body["model"], "data": data, "usage": usage}))

    def _pause(self, seconds):
        """Waits, or ends when the client disconnects, as a model would stop generating."""
        deadline = time.monotonic() + min(seconds, WAIT_SECONDS_MAX)
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], left)
            if readable:
                if self.connection.recv(1, socket.MSG_PEEK) == b"":
                    raise ClientGone
                # A pipelined request does not end this response.
                time.sleep(max(0.0, deadline - time.monotonic()))

    def _event(self, document):
        self._chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _chunk(self, data):
        # One write for each event: two packets would distort the measurement.
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _reply(self, status, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Silent: the record contains the requests."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.recorder = Recorder()


def first_message(body):
    return body["messages"][0]["content"] if "messages" in body else ""


def piece(prompt, index):
    return f"{prompt.id}:{index}@{time.monotonic_ns()}"


def envelope(body, kind, **rest):
    return {"id": "chatcmpl-recorded", "object": kind, "created": 0, "model": body["model"], **rest}


def chunk(body, delta, finish_reason):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return envelope(body, "chat.completion.chunk", choices=[choice])


def error(message, status):
    return json.dumps({"error": {"message": message, "type": "as_asked", "param": None, "code": str(status)}})


if __name__ == "__main__":
    server = Server()
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
