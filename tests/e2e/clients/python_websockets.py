"""`websockets`, the WebSocket library of most Python programs.

Usage: python_websockets.py SCENE (JSON; ../table.py says what is in it)
"""

from socket import SHUT_RDWR

from cases import FORGED, expect_identity, noise, run
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

FRAME_BYTES = 8 << 20
SECONDS_MAX = 60


class Messages:
    def __init__(self, scene):
        self.url = scene.through.replace("http", "ws", 1) + "/v1/realtime?model=m"

    def connect(self, case, **options):
        fields = {"x-case": case, **FORGED}
        return connect(
            self.url, additional_headers=fields, proxy=None, max_size=None, open_timeout=SECONDS_MAX, **options
        )


def websocket(scene, client, case):
    with client.connect(case, compression=None, subprotocols=["chat.v1", "chat.v2"]) as socket:
        assert socket.subprotocol == "chat.v2", socket.subprotocol
        for message in ("text, and äöü", b"\x00binary\xff", "", noise(FRAME_BYTES)):
            socket.send(message)
            assert socket.recv(SECONDS_MAX) == message
        # The target closes, with its own code and reason.
        socket.send("close 4001")
        closed = closing(socket)
        assert (closed.code, closed.reason) == (4001, "as asked"), closed


def deflate(scene, client, case):
    with client.connect(case) as socket:
        agreed = socket.response.headers.get("Sec-WebSocket-Extensions", "")
        assert agreed.startswith("permessage-deflate"), agreed
        for message in ("much of the same " * 5000, noise(FRAME_BYTES), b"short"):
            socket.send(message)
            assert socket.recv(SECONDS_MAX) == message


def identity(scene, client, case):
    with client.connect(case) as socket:
        socket.send("here")
        assert socket.recv(SECONDS_MAX) == "here"
    expect_identity(scene, case)


def leaves_midway(scene, client, case):
    """Without a close frame, like a killed program."""
    socket = client.connect(case)
    socket.send("here")
    assert socket.recv(SECONDS_MAX) == "here"
    socket.socket.shutdown(SHUT_RDWR)
    scene.ended(case, "gone")


def closing(socket):
    try:
        socket.recv(SECONDS_MAX)
    except ConnectionClosed as closed:
        return closed.rcvd
    raise AssertionError("a message arrived instead of the close")


OTHERWISE = "the client supports only WebSocket"

if __name__ == "__main__":
    rows = {"websocket": websocket, "deflate": deflate, "identity": identity, "leaves midway": leaves_midway}
    run("websockets", Messages, rows, OTHERWISE)
