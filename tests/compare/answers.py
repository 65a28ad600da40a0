"""The responses of the comparison: invalid responses of an origin, and why `ic` handles them as it does."""

from dataclasses import dataclass


@dataclass
class Answer:
    name: str
    bytes: bytes
    why: str


def head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return start + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


TE = b"Transfer-Encoding: chunked"
CL = b"Content-Length: 5"
LAST = b"0\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"

ANSWERS = [
    Answer("length and coding", head(CL, TE) + CHUNK + LAST, "RFC 9112 §6.3 (3): ought to be handled as an error; the client never gets both"),
    Answer("two different lengths", head(CL, b"Content-Length: 6") + b"hello", "§6.3 (5): discard it, and 502"),
    Answer("a list of different lengths", head(b"Content-Length: 5, 6") + b"hello", "§6.3 (5)"),
    Answer("a length with a plus", head(b"Content-Length: +5") + b"hello", "1*DIGIT"),
    Answer("a length of 2^64 + 5", head(b"Content-Length: 18446744073709551621") + b"hello", "wraps to 5"),
    Answer("chunked in HTTP/1.0", head(TE, start=b"HTTP/1.0 200 OK") + CHUNK + LAST, "§6.1: the framing is faulty"),
    Answer("an unknown coding", head(b"Transfer-Encoding: gzip, chunked") + CHUNK + LAST, "a client that requested no coding (TE) must not get one"),
    Answer("chunked twice", head(TE, TE) + CHUNK + LAST, "§6.1: not more than once"),
    Answer("white space before a colon", head(b"A : b", CL) + b"hello", "§5.1: a proxy must remove it or refuse"),
    Answer("a folded line", head(b"A: b\r\n c", CL) + b"hello", "§5.2: a proxy must repair it or refuse"),
    Answer("a bare CR in a value", head(b"A: b\rSet-Cookie: c", CL) + b"hello", "RFC 9110 §5.5: another field to some clients"),
    Answer("a bare LF in a value", head(b"A: b\nSet-Cookie: c", CL) + b"hello", "another field to most clients"),
    Answer("NUL in a value", head(b"A: b\0c", CL) + b"hello", "RFC 9110 §5.5"),
    Answer("a name that is not a token", head(b"A(b): c", CL) + b"hello", "RFC 9112 §5.1"),
    Answer("a status of four digits", head(CL, start=b"HTTP/1.1 2000 OK") + b"hello", "§4: 3DIGIT"),
    Answer("a status below 100", head(CL, start=b"HTTP/1.1 099 OK") + b"hello", "RFC 9110 §15"),
    Answer("HTTP/2 in the status line", head(CL, start=b"HTTP/2 200 OK") + b"hello", "another protocol"),
    Answer("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/0.9"),
    Answer("101 without a request for it", head(b"Upgrade: x", b"Connection: Upgrade", start=b"HTTP/1.1 101 Switching Protocols") + b"hello", "RFC 9110 §15.2.2: only if requested"),
    Answer("a body cut short of its length", head(b"Content-Length: 50") + b"hello", "§8: incomplete, and the client must be able to detect it"),
    Answer("a body cut between chunks", head(TE) + CHUNK, "§8: incomplete, and the client must be able to detect it"),
    Answer("a body cut before the empty line", head(TE) + CHUNK + b"0\r\n", "§8: incomplete, and the client must be able to detect it"),
    Answer("a head cut short", b"HTTP/1.1 200 OK\r\nContent-Le", "an incomplete response"),
    Answer("a chunk size with a sign", head(TE) + b"+5\r\nhello\r\n" + LAST, "§7.1: 1*HEXDIG"),
    Answer("a chunk size that ends in LF", head(TE) + b"5\nhello\r\n" + LAST, "CRLF"),
    Answer("chunk data longer than its size", head(TE) + b"4\r\nhello\r\n" + LAST, "§7.1: CRLF follows the data"),
    Answer("chunk data that ends in LF", head(TE) + b"5\r\nhello\n" + LAST, "CRLF"),
    Answer("a trailer with white space before its colon", head(TE) + CHUNK + b"0\r\na : b\r\n\r\n", "§5.1 applies to trailers"),
    Answer("framing in a trailer", head(TE) + CHUNK + b"0\r\nContent-Length: 9\r\nb: c\r\n\r\n", "RFC 9110 §6.5.1: it must not be sent; what is dropped cannot be merged"),
    Answer("a head of 70,000 bytes", head(b"A: " + b"b" * 70_000, CL) + b"hello", "a limit of 64 KiB"),
    Answer("a second response after the first", head(CL) + b"hello" + head(CL) + b"wrong", "it has no request: dropped with its connection"),
]
