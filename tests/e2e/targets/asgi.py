"""A target under uvicorn, the server of proxies such as LiteLLM.

It answers as each request wants it, `x-want: events=3` (see `answer`), and in the shape that the path asks for,
OpenAI's, Anthropic's or a plain one. What arrived is told under `/seen?case=ID`, by the name that the request gave
itself in `x-case`. server.js is the same for node.

Nothing here goes by the clock: a stream sends its next event when `POST /next?case=ID` says that the one before has
arrived, and `together=N` answers when N requests are waiting. Whoever holds something back waits for ever.
"""

import asyncio
import gzip
import hashlib
import json
from urllib.parse import parse_qs

BLOCK_BYTES = 64 << 10
RETRY_AFTER = (b"retry-after", b"7")

seen = {}
releases = {}
waiting = {}


class ClientGone(Exception):
    """The client closed its connection before its response was complete."""


class Exchange:
    """One request and its response."""

    def __init__(self, scope, receive, send):
        self.scope = scope
        self.receive = receive
        self.send = send
        self.fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        self.case = self.field("x-case")
        self.want, _, self.argument = self.field("x-want").partition("=")
        target = scope["raw_path"].decode()
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode()
        self.record = {"target": target, "fields": self.fields, "ended": None}
        if self.case:
            seen[self.case] = self.record
        self.digest = hashlib.sha256()
        self.length = 0

    def field(self, name):
        return next((value for given, value in self.fields if given == name), "")

    async def read(self):
        """Reads the complete body; keeps only its checksum."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self.digest.update(message["body"])
            self.length += len(message["body"])
            more = message.get("more_body", False)

    async def unless_gone(self, waited_for):
        """Waits, or ends when the client disconnects, as a model would stop generating."""
        gone = asyncio.ensure_future(self.receive())
        wait = asyncio.ensure_future(waited_for)
        await asyncio.wait((gone, wait), return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not wait.done():
            wait.cancel()
            raise ClientGone
        gone.cancel()

    async def begin(self, status, fields):
        await self.send({"type": "http.response.start", "status": status, "headers": fields})

    async def piece(self, data, more=True):
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def reply(self, document, status=200, fields=(), packed=False):
        data = json.dumps(document).encode()
        fields = [(b"content-type", b"application/json"), *fields]
        if packed:
            data = gzip.compress(data)
            fields.append((b"content-encoding", b"gzip"))
        self.record["sent_sha256"] = hashlib.sha256(data).hexdigest()
        await self.begin(status, [*fields, (b"content-length", str(len(data)).encode())])
        await self.piece(b"" if self.scope["method"] == "HEAD" else data, more=False)


async def app(scope, receive, send):
    case = parse_qs(scope["query_string"].decode()).get("case", [""])[0]
    if scope["type"] == "websocket":
        await echo_messages(scope, receive, send)
    elif scope["path"] == "/seen":
        await Exchange(scope, receive, send).reply(seen.get(case, {}))
    elif scope["path"] == "/next":
        release(case).release()
        await Exchange(scope, receive, send).reply({})
    else:
        exchange = Exchange(scope, receive, send)
        try:
            await answer(exchange)
            exchange.record["ended"] = "done"
        except (ClientGone, OSError):
            exchange.record["ended"] = "gone"


async def answer(exchange):
    want, argument = exchange.want, exchange.argument
    if want == "refuse":
        # Sent before the body is read, as by servers with a size limit.
        await exchange.reply(problem(413, "too large"), 413)
        return
    await exchange.read()
    if want == "hold":
        await exchange.unless_gone(asyncio.Event().wait())
    elif want == "slow":
        await exchange.unless_gone(asyncio.sleep(float(argument)))
        await exchange.reply(shape(exchange))
    elif want == "together":
        await exchange.unless_gone(all_of(exchange.case.rpartition("-")[0], int(argument)))
        await exchange.reply(shape(exchange))
    elif want == "status":
        challenge = [(b"www-authenticate", b'Bearer realm="models"')] if argument == "401" else []
        await exchange.reply(problem(int(argument), "as asked"), int(argument), [RETRY_AFTER, *challenge])
    elif want == "download":
        await download(exchange, int(argument))
    elif want == "events":
        await events(exchange, int(argument))
    else:
        await exchange.reply(shape(exchange), packed=want == "gzip")


async def download(exchange, length):
    await exchange.begin(200, [(b"content-length", str(length).encode())])
    digest = hashlib.sha256()
    sent = 0
    while sent < length:
        # Every block differs, so that lost or reordered blocks are detected.
        block = (sent.to_bytes(8, "big") * (BLOCK_BYTES // 8))[: length - sent]
        digest.update(block)
        sent += len(block)
        await exchange.piece(block, more=sent < length)
    exchange.record["sent_sha256"] = digest.hexdigest()


async def events(exchange, count):
    before, event, after = stream_shape(exchange)
    await exchange.begin(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
    if before:
        await exchange.piece(before)
    for index in range(count):
        if index:
            await exchange.unless_gone(release(exchange.case).acquire())
        await exchange.piece(event(index))
    await exchange.piece(after, more=False)


def release(case):
    return releases.setdefault(case, asyncio.Semaphore(0))


async def all_of(group, count):
    arrived, everybody = waiting.setdefault(group, [0, asyncio.Event()])
    waiting[group][0] = arrived + 1
    if arrived + 1 == count:
        everybody.set()
    await everybody.wait()


def shape(exchange):
    """The received request, as a plain response or within one of OpenAI's or Anthropic's format."""
    told = {
        "method": exchange.scope["method"],
        "target": exchange.record["target"],
        "bytes": exchange.length,
        "sha256": exchange.digest.hexdigest(),
    }
    exchange.record["told"] = told
    path = exchange.scope["path"]
    if path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": json.dumps(told)}
        return openai("chat.completion", message=message, finish_reason="stop")
    if path.endswith("/messages"):
        return anthropic([{"type": "text", "text": json.dumps(told)}])
    return told


def stream_shape(exchange):
    """The text before the events, the format of an event, and the text after them."""
    path = exchange.scope["path"]
    if path.endswith("/chat/completions"):
        return (
            b"",
            lambda index: server_sent(openai("chat.completion.chunk", delta={"content": f"{index} "})),
            server_sent(openai("chat.completion.chunk", delta={}, finish_reason="stop")) + b"data: [DONE]\n\n",
        )
    if path.endswith("/messages"):
        start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
        return (
            named({"type": "message_start", "message": anthropic([])}) + named(start),
            lambda index: named(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{index} "}}
            ),
            named({"type": "content_block_stop", "index": 0}) + named(stop) + named({"type": "message_stop"}),
        )
    return b"", lambda index: server_sent({"index": index}), b"data: [DONE]\n\n"


def openai(kind, **choice):
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choice = {"index": 0, "finish_reason": None, **choice}
    return {"id": "c", "object": kind, "created": 0, "model": "m", "choices": [choice], "usage": usage}


def anthropic(content):
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": usage}
    return {**message, "stop_reason": "end_turn" if content else None, "stop_sequence": None}


def problem(status, message):
    return {"type": "error", "error": {"type": f"status_{status}", "message": message, "code": None, "param": None}}


def server_sent(document):
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def named(document):
    return b"event: " + document["type"].encode() + b"\n" + server_sent(document)


async def echo_messages(scope, receive, send):
    """Returns every message unchanged; the text `close 4001` closes with that code."""
    exchange = Exchange(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat.v2" if "chat.v2" in scope["subprotocols"] else None})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text and text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text.split()[1]), "reason": "as asked"})
            return
        await send({"type": "websocket.send", "text": text, "bytes": message.get("bytes")})
    exchange.record["ended"] = "gone"
