"""The requests of the comparison: name, bytes, and why `ic` responds as it does.

A row whose request `ic` forwards although nginx or haproxy refuses it needs `lax=`: the reason why that is right.
"""

from dataclasses import dataclass

HOST = b"Host: localhost\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Row:
    group: str
    name: str
    request: bytes
    why: str
    lax: str = ""


def head(*lines: bytes, start: bytes = b"POST / HTTP/1.1") -> bytes:
    """A request head with a Host and these field lines."""
    return start + b"\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def framed(group: str, name: str, lines: list[bytes], body: bytes, why: str, lax: str = "") -> Row:
    return Row(group, name, head(*lines) + body, why, lax)


def line(name: str, start: bytes, why: str, lax: str = "") -> Row:
    return Row("request line", name, head(start=start), why, lax)


def field(name: str, lines: bytes, why: str, lax: str = "") -> Row:
    return Row("fields", name, b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n", why, lax)


def host(name: str, lines: bytes, why: str, lax: str = "") -> Row:
    return Row("host", name, b"GET / HTTP/1.1\r\n" + lines + b"\r\n", why, lax)


def chunks(name: str, body: bytes, why: str, lax: str = "") -> Row:
    return framed("chunks", name, [b"Transfer-Encoding: chunked"], body, why, lax)


TE = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"

ROWS = [
    # Ambiguous ends of the body.
    framed("framing", "length and coding", [b"Content-Length: 5", TE], LAST + SMUGGLED, "RFC 9112 §6.3 (3): ought to be handled as an error; the classic CL.TE"),
    framed("framing", "coding and length", [TE, b"Content-Length: 5"], LAST + SMUGGLED, "the same in the other order: TE.CL"),
    framed("framing", "length 0 and coding", [b"Content-Length: 0", TE], LAST + SMUGGLED, "0 is a length"),
    framed("framing", "two different lengths", [b"Content-Length: 5", b"Content-Length: 0"], b"hello" + SMUGGLED, "§6.3 (5): unrecoverable"),
    framed("framing", "two equal lengths", [b"Content-Length: 5", b"Content-Length: 5"], b"hello", "§6.3 (5) allows merging; refusing does not depend on the next hop"),
    framed("framing", "a list of equal lengths", [b"Content-Length: 5, 5"], b"hello", "the same on one line"),
    framed("framing", "a list of different lengths", [b"Content-Length: 5, 6"], b"hello", "§6.3 (5)"),
    framed("framing", "a length with a plus", [b"Content-Length: +5"], b"hello", "RFC 9110 §8.6: 1*DIGIT"),
    framed("framing", "a negative length", [b"Content-Length: -5"], b"hello", "1*DIGIT"),
    framed("framing", "a hexadecimal length", [b"Content-Length: 0x5"], b"hello", "1*DIGIT"),
    framed("framing", "a length with a space within", [b"Content-Length: 5 0"], b"hello", "1*DIGIT"),
    framed("framing", "an empty length", [b"Content-Length:"], b"", "1*DIGIT"),
    framed("framing", "a length of 2^64 + 5", [b"Content-Length: 18446744073709551621"], b"hello" + SMUGGLED, "wraps to 5 in 64 bits: a parser that wraps sees a second request"),
    framed("framing", "a length of 2^63", [b"Content-Length: 9223372036854775808"], b"hello", "negative in signed 64 bits"),
    framed("framing", "Content_Length", [b"Content_Length: 5"], b"hello", "CGI and WSGI do not distinguish _ and -: such an origin would read five bytes of the next request"),
    framed("framing", "Transfer_Encoding beside a length", [b"Transfer_Encoding: chunked", b"Content-Length: 5"], b"0\r\n\r\n" + SMUGGLED, "the same disguise"),
    framed("framing", "white space before the length's colon", [b"Content-Length : 5"], b"hello", "RFC 9112 §5.1: 400"),
    framed("framing", "white space before the coding's colon", [b"Transfer-Encoding : chunked"], LAST, "§5.1: 400"),
    framed("framing", "a tab before the coding's colon", [b"Transfer-Encoding\t: chunked"], LAST, "§5.1: 400"),
    framed("framing", "a vertical tab before the coding", [b"Transfer-Encoding: \x0bchunked"], LAST, "RFC 9110 §5.5: no control characters"),
    framed("framing", "a coding folded onto a second line", [b"Transfer-Encoding:\r\n chunked"], LAST, "RFC 9112 §5.2: 400"),
    framed("framing", "xchunked", [b"Transfer-Encoding: xchunked"], LAST, "§6.1: an unknown coding is a 501"),
    framed("framing", "identity", [b"Transfer-Encoding: identity"], b"", "no longer a coding (RFC 7230): 501"),
    framed("framing", "gzip, chunked", [b"Transfer-Encoding: gzip, chunked"], LAST, "an unsupported coding: 501"),
    framed("framing", "chunked, gzip", [b"Transfer-Encoding: chunked, gzip"], LAST, "§6.3 (4): chunked must be last"),
    framed("framing", "chunked twice", [b"Transfer-Encoding: chunked, chunked"], LAST, "§6.1: not more than once"),
    framed("framing", "chunked on two lines", [TE, TE], LAST, "two lines are one list (RFC 9110 §5.3)"),
    framed("framing", "chunked, then identity on a second line", [TE, b"Transfer-Encoding: identity"], LAST, "a parser of only one line is misled"),
    framed("framing", "chunked with a comma", [b"Transfer-Encoding: chunked,"], LAST, "an empty element may be ignored (RFC 9110 §5.6.1), but not all parsers do"),
    framed("framing", "chunked in quotes", [b'Transfer-Encoding: "chunked"'], LAST, "a coding is a token"),
    framed("framing", "chunked with a parameter", [b"Transfer-Encoding: chunked;q=1"], LAST, "chunked has none (RFC 9112 §7.1)"),
    framed("framing", "an empty coding", [b"Transfer-Encoding:"], LAST, "no coding: the meaning is undefined"),
    Row("framing", "chunked in HTTP/1.0", head(TE, start=b"POST / HTTP/1.0") + LAST, "RFC 9112 §6.1: the framing is faulty"),
    Row("framing", "a body on CONNECT", head(b"Content-Length: 5", start=b"CONNECT localhost:1 HTTP/1.1") + b"hello", "RFC 9110 §9.3.6: it has none"),
    # Chunks.
    chunks("a size with a sign", b"+5\r\nhello\r\n" + LAST, "§7.1: 1*HEXDIG"),
    chunks("a size with 0x", b"0x5\r\nhello\r\n" + LAST, "1*HEXDIG"),
    chunks("a size with white space before it", b" 5\r\nhello\r\n" + LAST, "1*HEXDIG"),
    chunks("a size with white space after it", b"5 \r\nhello\r\n" + LAST, "white space is allowed only before an extension"),
    chunks("an empty size", b"\r\nhello\r\n" + LAST, "1*HEXDIG"),
    chunks("a size of 2^64 + 5", b"10000000000000005\r\nhello\r\n" + LAST, "wraps to 5"),
    chunks("a size of 2^64 - 1", b"ffffffffffffffff\r\nhello\r\n" + LAST, "-1 in signed 64 bits"),
    chunks("a size that ends in LF", b"5\nhello\r\n" + LAST, "CRLF; used by the TERM.EXT family of desynchronisations"),
    chunks("a size that ends in CR", b"5\rhello\r\n" + LAST, "CRLF"),
    chunks("an extension that ends in LF", b"5;a\nhello\r\n" + LAST, "CRLF: the EXT.TERM family"),
    chunks("LF within an extension's quotes", b'5;a="\n"\r\nhello\r\n' + LAST, "no control characters in quotes"),
    chunks("an extension without a name", b"5;\r\nhello\r\n" + LAST, "§7.1.1: a name is a token"),
    chunks("NUL in an extension", b"5;a\0\r\nhello\r\n" + LAST, "no control characters"),
    chunks("data longer than its size", b"4\r\nhello\r\n" + LAST, "§7.1: CRLF follows the data"),
    chunks("data that ends in LF", b"5\r\nhello\n" + LAST, "CRLF: the SPILL.TERM family"),
    chunks("data that ends in any two bytes", b"5\r\nhelloXX" + LAST, "CRLF, not any two bytes"),
    chunks("a last chunk that ends in LF", b"0\n\n", "CRLF"),
    chunks("an empty line that is LF", b"0\r\n\n", "CRLF"),
    chunks("a trailer with white space before its colon", b"0\r\na : b\r\n\r\n", "§5.1 applies to trailers"),
    chunks("a trailer that is folded", b"0\r\na: b\r\n c\r\n\r\n", "§5.2"),
    chunks("a trailer with a bare CR", b"0\r\na: b\rc: d\r\n\r\n", "RFC 9110 §5.5"),
    chunks("an extension of 20 KB", b"5;" + b"a" * 20_000 + b"\r\nhello\r\n" + LAST, "§7.1.1: limit the total length of extensions"),
    # The request line.
    line("two spaces", b"GET  / HTTP/1.1", "§3: single spaces; leniency is allowed, but only helps attackers"),
    line("a tab", b"GET\t/ HTTP/1.1", "SP"),
    line("white space at the end", b"GET / HTTP/1.1 ", "the version ends the line"),
    line("a space within the target", b"GET /a b HTTP/1.1", "§3.2: 400"),
    line("no version", b"GET /", "HTTP/0.9 has no fields"),
    line("HTTP/2.0", b"GET / HTTP/2.0", "another protocol"),
    line("HTTP/1.2", b"GET / HTTP/1.2", "RFC 9110 §2.5 allows reading it as 1.1; the version does not exist, so such a request is suspicious"),
    line("HTTP/1.10", b"GET / HTTP/1.10", "one digit"),
    line("http/1.1", b"GET / http/1.1", "RFC 9112 §2.3: case-sensitive"),
    line("a method that is not a token", b"G@T / HTTP/1.1", "RFC 9110 §9.1: a token"),
    line("head in lower case", b"head / HTTP/1.1", "an origin that reads it as HEAD sends no body, and the proxy would wait for one"),
    line("NUL in the target", b"GET /\0 HTTP/1.1", "not in a URI"),
    line("DEL in the target", b"GET /\x7f HTTP/1.1", "not in a URI"),
    line("UTF-8 in the target", "GET /\u00e9 HTTP/1.1".encode(), "must be percent-encoded (RFC 3986)"),
    line("a fragment", b"GET /a#b HTTP/1.1", "a fragment never leaves a client (RFC 9110 §4.2.5)"),
    line("a target without slash", b"GET a HTTP/1.1", "none of the four forms (§3.2)"),
    line("a backslash for the slash", b"GET \\a HTTP/1.1", "none of the four forms"),
    line("a user in absolute-form", b"GET http://a@localhost/ HTTP/1.1", "RFC 9110 §4.2.4: treat as an error"),
    line("an asterisk with GET", b"GET * HTTP/1.1", "§3.2.4: for OPTIONS only"),
    line("absolute-form without host", b"GET http:///a HTTP/1.1", "RFC 9110 §4.2.1: invalid"),
    line("a request line of 70,000 bytes", b"GET /" + b"a" * 70_000 + b" HTTP/1.1", "414"),
    Row("request line", "a line of CR before the request", b"\r\r\n" + head(start=b"GET / HTTP/1.1"), "only one CRLF is allowed there (§2.2)"),
    Row("request line", "TLS", bytes.fromhex("16030100c8010000c40303") + bytes(40), "a handshake is not a request; the error says so"),
    # Fields.
    field("a bare CR in a value", b"A: b\rContent-Length: 5\r\n", "RFC 9110 §5.5: some parsers read it as the end of a line"),
    field("a bare LF after a value", b"A: b\nB: c\r\n", "RFC 9112 §2.2 allows leniency; with a strict origin, the two would disagree on the fields"),
    field("NUL in a value", b"A: b\0c\r\n", "RFC 9110 §5.5: 400"),
    field("ESC in a value", b"A: \x1b[31m\r\n", "RFC 9110 §5.5; a terminal that shows a log would execute it"),
    field("a folded line", b"A: b\r\n c\r\n", "RFC 9112 §5.2: 400"),
    field("a name with a space within", b"A b: c\r\n", "§5.1: a token"),
    field("a name with NUL", b"A\0: b\r\n", "§5.1: a token"),
    field("a name in UTF-8", "\u00e9: b\r\n".encode(), "§5.1: a token"),
    field("no name", b": b\r\n", "§5.1: a token"),
    field("no colon", b"A\r\n", "§5"),
    field("129 fields", b"a: b\r\n" * 129, "431: a limit of 128"),
    field("a field of 70,000 bytes", b"a: " + b"b" * 70_000 + b"\r\n", "431: a limit of 64 KiB"),
    Row("fields", "white space before the first field", b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", "§2.2: 400"),
    Row("fields", "bare LFs only", b"GET / HTTP/1.1\nHost: localhost\n\n", "§2.2 allows leniency; no existing client needs it"),
    Row("fields", "an empty line that is LF", b"GET / HTTP/1.1\r\n" + HOST + b"\n" + SMUGGLED, "CRLF"),
    # Host.
    host("none", b"A: b\r\n", "§3.2: 400"),
    host("two", HOST + b"Host: evil.example\r\n", "§3.2: 400"),
    host("two that are equal", HOST + HOST, "§3.2: 400"),
    host("an empty one", b"Host:\r\n", "a URI with http has a host (RFC 9110 §4.2.1)"),
    host("a list", b"Host: localhost, evil.example\r\n", "not uri-host [ \":\" port ]"),
    host("a user", b"Host: localhost@evil.example\r\n", "not uri-host"),
    host("a path", b"Host: localhost/evil\r\n", "not uri-host"),
    host("a port that is not a number", b"Host: localhost:abc\r\n", "port = *DIGIT"),
    host("a port of 65536", b"Host: localhost:65536\r\n", "not a valid port"),
    host("an address without bracket", b"Host: [::1\r\n", "RFC 3986 §3.2.2"),
    host("a space within", b"Host: local host\r\n", "not uri-host"),
    host("a backslash", b"Host: localhost\\evil\r\n", "not uri-host"),
    host("another machine", b"Host: evil.example\r\n", "421: DNS rebinding; the others have no such rule by default"),
    Row("host", "another machine, in absolute-form", b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", "421: the authority takes precedence (RFC 9112 §3.2.2)"),
]
