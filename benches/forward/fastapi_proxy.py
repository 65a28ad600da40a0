"""A forwarder as one writes it with FastAPI and httpx, to compare with: PORT ORIGIN."""

import sys
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

FIELDS = {"x-memory-user-id": "bench", "x-pycharm-instance": "bench", "x-source": "pycharm-ai-chat", "via": "1.1 bench"}
HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding"}


@asynccontextmanager
async def client(app):
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{sys.argv[2]}", limits=limits, timeout=None) as app.state.client:
        yield


app = FastAPI(lifespan=client)


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def forward(request: Request, path: str):
    fields = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
    origin = request.app.state.client
    body = await request.body()
    asked = origin.build_request(request.method, request.url.path, headers=fields | FIELDS, content=body or None)
    answer = await origin.send(asked, stream=True)

    async def pieces():
        try:
            async for piece in answer.aiter_raw():
                yield piece
        finally:
            await answer.aclose()

    kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
    return StreamingResponse(pieces(), answer.status_code, kept)


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="error", timeout_keep_alive=600)
