"""httpx, requests and aiohttp, each with its pool of connections and without retries.

Usage: python_http.py SCENE CLIENT (JSON; ../table.py says what is in it)
"""

import asyncio
import contextlib
import sys
import threading

import aiohttp
import httpx
import requests
from cases import HTTP, TOGETHER, Answer, fields_of, run, sha256

SECONDS_MAX = 90
# The time limit of clients that disconnect only after one: the request must have arrived by then.
PATIENCE_SECONDS = 2


class Httpx:
    def __init__(self, scene):
        self.client = httpx.Client(base_url=scene.through, trust_env=False, timeout=SECONDS_MAX)

    def send(self, method, path, fields, body=None):
        answer = self.client.request(method, path, headers=fields, content=body)
        return Answer(answer.status_code, dict(answer.headers), answer.content)

    @contextlib.contextmanager
    def open(self, path, fields):
        with self.client.stream("GET", path, headers=fields) as answer:
            yield (line.encode() for line in answer.iter_lines())

    def leave(self, path, fields, arrived):
        with contextlib.suppress(httpx.ReadTimeout):
            self.client.get(path, headers=fields, timeout=PATIENCE_SECONDS)
        arrived()


class Requests:
    def __init__(self, scene):
        self.base = scene.through
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=TOGETHER))

    def send(self, method, path, fields, body=None):
        answer = self.session.request(method, self.base + path, headers=fields, data=body, timeout=SECONDS_MAX)
        fields = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status_code, fields, answer.content)

    @contextlib.contextmanager
    def open(self, path, fields):
        with self.session.get(self.base + path, headers=fields, stream=True, timeout=SECONDS_MAX) as answer:
            # Byte by byte, because requests would wait for a full buffer.
            yield answer.iter_lines(chunk_size=1)

    def leave(self, path, fields, arrived):
        with contextlib.suppress(requests.ReadTimeout):
            self.session.get(self.base + path, headers=fields, timeout=PATIENCE_SECONDS)
        arrived()


class Aiohttp:
    """Runs on an event loop in a thread, so that the cases can be synchronous."""

    def __init__(self, scene):
        self.base = scene.through
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.session = self.wait(self.begin())

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS_MAX)

    async def begin(self):
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS_MAX), auto_decompress=True)

    def send(self, method, path, fields, body=None, **options):
        return self.wait(self.exchange(method, path, fields, body, options))

    async def exchange(self, method, path, fields, body, options):
        body = body if body is None or isinstance(body, bytes) else pieces(body)
        async with self.session.request(method, self.base + path, headers=fields, data=body, **options) as answer:
            fields = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, fields, await answer.read())

    @contextlib.contextmanager
    def open(self, path, fields):
        answer = self.wait(self.get(path, fields))
        try:
            yield iter(lambda: self.wait(answer.content.readline()), b"")
        finally:
            self.loop.call_soon_threadsafe(answer.close)

    async def get(self, path, fields):
        return await self.session.get(self.base + path, headers=fields)

    def leave(self, path, fields, arrived):
        request = asyncio.run_coroutine_threadsafe(self.get(path, fields), self.loop)
        arrived()
        request.cancel()


async def pieces(body):
    for piece in body:
        yield piece


def awaits_100(scene, client, case):
    """aiohttp sends its body only after the 100."""
    body = b"asked first"
    answer = client.send("POST", "/v1/any", {"x-case": case, "x-want": ""}, body, expect100=True)
    assert answer.told()["sha256"] == sha256(body), answer
    assert fields_of(scene.seen(case))["expect"] == ["100-continue"]


# The clients, with their additional cases.
CLIENTS = {
    "httpx": (Httpx, {}),
    "requests": (Requests, {}),
    "aiohttp": (Aiohttp, {"100-continue": awaits_100}),
}

if __name__ == "__main__":
    name = sys.argv[2]
    make, rows = CLIENTS[name]
    run(name, make, {**HTTP, **rows})
