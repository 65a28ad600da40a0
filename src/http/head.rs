//! Message heads: a borrowed view of what httparse parsed, and the checks that it does not make.
//!
//! Decided here: whether the bytes are a complete, well-formed head. Not decided here: what its fields mean.
//!
//! httparse accepts a bare LF as a line ending and skips empty lines before a message. Both allow request smuggling and are
//! detected here without a second pass over the bytes: the two bytes before each field name must be CRLF. A head that is not
//! whole and well-formed is judged by [`Scan`].

use std::mem::MaybeUninit;

use super::error::{Error, Parsed};
use super::grammar::{Sender, list};
use super::scan::Scan;

/// One field line: its name as sent, and its value without the white space around it.
pub type Field<'b> = httparse::Header<'b>;

pub use super::scan::{FIELDS_MAX, HEAD_BYTES_MAX};

/// Space for the fields of one head on the caller's stack: 4 KiB, not initialised.
pub struct Slots<'b>([MaybeUninit<Field<'b>>; FIELDS_MAX]);

impl Default for Slots<'_> {
    fn default() -> Self {
        Slots([const { MaybeUninit::uninit() }; FIELDS_MAX])
    }
}

/// The protocol version of a message; all others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    fn of_minor(minor: u8) -> Version {
        match minor {
            0 => Version::Http10,
            _ => Version::Http11,
        }
    }
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method, case-sensitive (RFC 9110 §9.1).
    pub method: &'b str,
    /// The request target as sent: visible ASCII, never empty.
    pub target: &'b str,
    /// The client's version.
    pub version: Version,
    /// The field lines, in order.
    pub fields: &'h [Field<'b>],
    /// The length of the head in bytes, the empty line and a leading one included.
    pub len: usize,
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// The target's version.
    pub version: Version,
    /// The status code, 100 to 999.
    pub status: u16,
    /// Everything after the version in the status line: code, space, reason, as sent.
    pub status_and_reason: &'b [u8],
    /// The field lines, in order.
    pub fields: &'h [Field<'b>],
    /// The length of the head in bytes, the empty line included.
    pub len: usize,
}

/// Parses the request head at the start of `bytes`.
///
/// One empty line before it is skipped, since some clients send one after a body (RFC 9112 §2.2). A result other than
/// [`Parsed::Partial`] is the same for every longer prefix of the same message.
pub fn request<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
) -> Result<Parsed<RequestHead<'h, 'b>>, Error> {
    let bytes = within_limit(bytes);
    let skipped = match bytes {
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let text = &bytes[skipped..];
    let mut head = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_request_with_uninit_headers(&mut head, text, &mut slots.0);
    if let Ok(httparse::Status::Complete(len)) = parsed {
        let fields: &'h [Field<'b>] = head.headers;
        if let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version)
            && target.bytes().all(|byte| byte.is_ascii_graphic())
            && has_line_endings(text, len, fields)
        {
            return Ok(Parsed::Complete(RequestHead {
                method,
                target,
                version: Version::of_minor(version),
                fields,
                len: skipped + len,
            }));
        }
    }
    undecided(Scan::head(Sender::Client), bytes, Error::RequestLine)
}

/// Parses the response head at the start of `bytes`.
pub fn response<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
) -> Result<Parsed<ResponseHead<'h, 'b>>, Error> {
    let bytes = within_limit(bytes);
    let mut head = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // RFC 9112 §5.1: a proxy removes it from a response.
    config.allow_spaces_after_header_name_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(&mut head, bytes, &mut slots.0);
    if let Ok(httparse::Status::Complete(len)) = parsed {
        let fields: &'h [Field<'b>] = head.headers;
        let behind_version = bytes.get("HTTP/1.1 ".len()..).unwrap_or_default();
        let line_end = behind_version.iter().position(|&byte| byte == b'\r');
        if let (Some(version), Some(status @ 100..), Some(line_end)) =
            (head.version, head.code, line_end)
            && has_line_endings(bytes, len, fields)
        {
            return Ok(Parsed::Complete(ResponseHead {
                version: Version::of_minor(version),
                status,
                status_and_reason: &behind_version[..line_end],
                fields,
                len,
            }));
        }
    }
    undecided(Scan::head(Sender::Target), bytes, Error::StatusLine)
}

/// The verdict on a head that httparse has not read, or that it reads too leniently.
fn undecided<T>(mut scan: Scan, bytes: &[u8], line: Error) -> Result<Parsed<T>, Error> {
    match scan.follow(bytes)? {
        Parsed::Partial => Ok(Parsed::Partial),
        // Refused by httparse alone, which no known head is.
        Parsed::Complete(_) => Err(line),
    }
}

/// Parses a trailer section of `sender`: field lines and the empty line that ends them (RFC 9112 §7.1.2). Returns its length and
/// fields.
pub fn fields(
    bytes: &[u8],
    sender: Sender,
) -> Result<Parsed<(usize, impl Iterator<Item = Field<'_>>)>, Error> {
    let Parsed::Complete(len) = Scan::trailers(sender).follow(bytes)? else {
        return Ok(Parsed::Partial);
    };
    // Well-formed lines hold no other CR or LF.
    let lines = bytes[..len].split(|&byte| byte == b'\n');
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (
            line[..colon].trim_ascii_end(),
            line[colon + 1..].trim_ascii(),
        );
        let name = std::str::from_utf8(name).ok()?;
        Some(Field { name, value })
    });
    Ok(Parsed::Complete((len, fields)))
}

/// The values of all fields `name`, in order.
pub fn values<'h, 'b>(
    fields: &'h [Field<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

/// The elements of all fields `name`, each a list.
pub fn elements<'h, 'b>(
    fields: &'h [Field<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b> {
    values(fields, name).flat_map(list)
}

/// The part of `bytes` that can belong to a head.
fn within_limit(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(HEAD_BYTES_MAX)]
}

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// Whether every line ends in CRLF: the one before each field name, and the last two of the head; and no line stands before it.
///
/// httparse refuses a CR without LF and control characters within lines, so that only an LF without CR is left to find. Each
/// line after the first starts with a field name, since folded lines are refused.
fn has_line_endings(bytes: &[u8], len: usize, fields: &[Field<'_>]) -> bool {
    !matches!(bytes, [b'\r' | b'\n', ..])
        && bytes[..len].ends_with(END)
        && fields
            .iter()
            .all(|field| bytes[..offset(bytes, field.name)].ends_with(b"\r\n"))
}

/// The offset of `part`, a slice of `bytes`.
fn offset(bytes: &[u8], part: &str) -> usize {
    part.as_ptr().addr() - bytes.as_ptr().addr()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_in_pieces;
    use super::*;

    /// A head in one line: `GET /x Http11 | Host=a | Accept=`.
    fn request_text(head: &RequestHead<'_, '_>) -> String {
        let line = format!("{} {} {:?}", head.method, head.target, head.version);
        line + &fields_text(head.fields)
    }

    fn response_text(head: &ResponseHead<'_, '_>) -> String {
        let reason = head.status_and_reason.escape_ascii();
        let line = format!("{} {:?} [{reason}]", head.status, head.version);
        line + &fields_text(head.fields)
    }

    fn fields_text(fields: &[Field<'_>]) -> String {
        let text = |field: &Field<'_>| format!(" | {}={}", field.name, field.value.escape_ascii());
        fields.iter().map(text).collect()
    }

    fn parse_request(bytes: &[u8]) -> Result<Parsed<(usize, String)>, Error> {
        let mut slots = Slots::default();
        Ok(match request(bytes, &mut slots)? {
            Parsed::Complete(head) => Parsed::Complete((head.len, request_text(&head))),
            Parsed::Partial => Parsed::Partial,
        })
    }

    fn parse_response(bytes: &[u8]) -> Result<Parsed<(usize, String)>, Error> {
        let mut slots = Slots::default();
        Ok(match response(bytes, &mut slots)? {
            Parsed::Complete(head) => Parsed::Complete((head.len, response_text(&head))),
            Parsed::Partial => Parsed::Partial,
        })
    }

    fn parse_fields(bytes: &[u8]) -> Result<Parsed<(usize, String)>, Error> {
        Ok(match fields(bytes, Sender::Client)? {
            Parsed::Complete((len, fields)) => {
                Parsed::Complete((len, fields_text(&fields.collect::<Vec<_>>())))
            }
            Parsed::Partial => Parsed::Partial,
        })
    }

    /// Follows `bytes` in pieces of `step` bytes: the verdict, and how many bytes had arrived then.
    fn scan_slowly(
        sender: Sender,
        bytes: &[u8],
        step: usize,
    ) -> (Result<Parsed<usize>, Error>, usize) {
        let mut scan = Scan::head(sender);
        let mut arrived = 0;
        loop {
            arrived = bytes.len().min(arrived + step);
            let verdict = scan.follow(&bytes[..arrived]);
            if verdict != Ok(Parsed::Partial) || arrived == bytes.len() {
                return (verdict, arrived);
            }
        }
    }

    /// However a head arrives, the scan has the verdict with the byte that decides, and it is that of the parser.
    #[track_caller]
    fn check_scan(why: &str, sender: Sender, bytes: &[u8], expected: Result<&str, Error>) {
        let expected = expected.map(|_| Parsed::Complete(bytes.len()));
        for step in [1, 2, 3, 7, bytes.len().max(1)] {
            let (verdict, _) = scan_slowly(sender, bytes, step);
            assert_eq!(verdict, expected, "{why}: in pieces of {step}");
        }
    }

    #[track_caller]
    fn check(why: &str, bytes: &[u8], expected: Result<&str, Error>) {
        check_scan(why, Sender::Client, bytes, expected);
        let expected = expected.map(|text| (bytes.len(), text.to_owned()));
        check_in_pieces(why, bytes, expected, parse_request);
    }

    #[track_caller]
    fn check_response(why: &str, bytes: &[u8], expected: Result<&str, Error>) {
        check_scan(why, Sender::Target, bytes, expected);
        let expected = expected.map(|text| (bytes.len(), text.to_owned()));
        check_in_pieces(why, bytes, expected, parse_response);
    }

    #[track_caller]
    fn check_fields(why: &str, bytes: &[u8], expected: Result<&str, Error>) {
        let expected = expected.map(|text| (bytes.len(), text.to_owned()));
        check_in_pieces(why, bytes, expected, parse_fields);
    }

    /// A request with these bytes as its field lines.
    #[track_caller]
    fn check_lines(why: &str, lines: &[u8], expected: Result<&str, Error>) {
        let bytes = [b"GET / HTTP/1.1\r\n", lines, b"\r\n"].concat();
        let expected = expected.map(|fields| format!("GET / Http11{fields}"));
        check(why, &bytes, expected.as_deref().map_err(|&error| error));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_request_line_is_a_method_a_target_and_a_version() {
        use Error::{LineEnding, RequestLine, Target, Tls, Version, VersionMajor};
        check("the usual", b"GET / HTTP/1.1\r\n\r\n", Ok("GET / Http11"));
        check("the older version", b"GET / HTTP/1.0\r\n\r\n", Ok("GET / Http10"));
        check("any token is a method", b"M-SEARCH!#$%&'*+.^_`|~ /x HTTP/1.1\r\n\r\n", Ok("M-SEARCH!#$%&'*+.^_`|~ /x Http11"));
        check("methods are case-sensitive and kept", b"Patch / HTTP/1.1\r\n\r\n", Ok("Patch / Http11"));
        check("a method that starts like another", b"POSTS / HTTP/1.1\r\n\r\n", Ok("POSTS / Http11"));
        check("a target of one character", b"OPTIONS * HTTP/1.1\r\n\r\n", Ok("OPTIONS * Http11"));
        check("all visible characters pass as they are", b"GET /!\"$&'()*+,-./:;<=>?@[\\]^_`{|}~%00 HTTP/1.1\r\n\r\n", Ok("GET /!\"$&'()*+,-./:;<=>?@[\\]^_`{|}~%00 Http11"));
        check("one empty line before it (§2.2)", b"\r\nGET / HTTP/1.1\r\n\r\n", Ok("GET / Http11"));

        check("two empty lines before it", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Err(LineEnding));
        check("a bare LF before it", b"\nGET / HTTP/1.1\r\n\r\n", Err(LineEnding));
        check("a bare CR before it", b"\rGET / HTTP/1.1\r\n\r\n", Err(LineEnding));
        check("an empty line, then a bare LF", b"\r\n\nGET / HTTP/1.1\r\n\r\n", Err(LineEnding));
        check("it ends in a bare LF", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(LineEnding));
        check("it ends in a bare LF and no field follows", b"GET / HTTP/1.1\n\r\n", Err(LineEnding));
        check("bare LFs only", b"GET / HTTP/1.1\n\n", Err(LineEnding));
        check("it ends in CR CR LF", b"GET / HTTP/1.1\r\r\n\r\n", Err(LineEnding));
        check("it ends in a bare CR", b"GET / HTTP/1.1\rHost: a\r\n\r\n", Err(LineEnding));
        check("white space before it", b" GET / HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("white space after it", b"GET / HTTP/1.1 \r\n\r\n", Err(LineEnding));
        check("two spaces before the target", b"GET  / HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a tab instead of the first space", b"GET\t/ HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a tab instead of the second space", b"GET /\tHTTP/1.1\r\n\r\n", Err(RequestLine));
        check("no method", b"/ HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a method that is not a token", b"GE(T / HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a method with a byte over 0x7f", b"GET\xe9 / HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("no target", b"GET HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("HTTP/0.9", b"GET /\r\n", Err(RequestLine));
        check("NUL in the target", b"GET /\0 HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("DEL in the target", b"GET /\x7f HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("UTF-8 in the target", "GET /é HTTP/1.1\r\n\r\n".as_bytes(), Err(Target));
        check("Latin-1 in the target", b"GET /\xe9 HTTP/1.1\r\n\r\n", Err(Target));
        check("a target without version that ends in CRLF", b"GET / \r\n\r\n", Err(RequestLine));
        check("two spaces before the version", b"GET /  HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a space that is not percent-encoded", b"GET /a b HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a lower-case version (§2.3)", b"GET / http/1.1\r\n\r\n", Err(RequestLine));
        check("another protocol", b"INVITE sip:a@b SIP/2.0\r\n\r\n", Err(RequestLine));
        check("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(VersionMajor));
        check("HTTP/2 as some write it", b"GET / HTTP/2\r\n\r\n", Err(VersionMajor));
        check("HTTP/3", b"GET / HTTP/3.0\r\n\r\n", Err(VersionMajor));
        check("HTTP/0.9 by name", b"GET / HTTP/0.9\r\n\r\n", Err(VersionMajor));
        check("a version that is not a number", b"GET / HTTP/x.1\r\n\r\n", Err(Version));
        check("a version of two digits", b"GET / HTTP/20.0\r\n\r\n", Err(Version));
        check("a later minor version", b"GET / HTTP/1.2\r\n\r\n", Err(Version));
        check("a version with more digits", b"GET / HTTP/1.10\r\n\r\n", Err(LineEnding));
        check("a version with leading zeros", b"GET / HTTP/01.1\r\n\r\n", Err(Version));
        check("a version without minor", b"GET / HTTP/1\r\n\r\n", Err(Version));
        check("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Err(Tls));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_field_line_is_a_token_a_colon_and_a_value_without_control_characters() {
        use Error::{FieldName, FieldValue, LineEnding};
        check_lines("none", b"", Ok(""));
        check_lines("the usual", b"Host: a\r\n", Ok(" | Host=a"));
        check_lines("names keep their case and order", b"b: 1\r\nA: 2\r\nB: 3\r\n", Ok(" | b=1 | A=2 | B=3"));
        check_lines("white space around a value is not part of it", b"a:\t 1 \t\r\n", Ok(" | a=1"));
        check_lines("white space within a value is part of it", b"a: 1 \t 2\r\n", Ok(" | a=1 \\t 2"));
        check_lines("no white space after the colon", b"a:1\r\n", Ok(" | a=1"));
        check_lines("an empty value", b"a:\r\n", Ok(" | a="));
        check_lines("a value of white space", b"a: \t \r\n", Ok(" | a="));
        check_lines("colons in the value", b"a::b:c\r\n", Ok(" | a=:b:c"));
        check_lines("UTF-8 in the value (obs-text)", b"a: \xc3\xa9\r\n", Ok(" | a=\\xc3\\xa9"));
        check_lines("a value that is not UTF-8", b"a: \xff\x80\r\n", Ok(" | a=\\xff\\x80"));
        check_lines("every character of a token", b"!#$%&'*+-.^_`|~aZ09: 1\r\n", Ok(" | !#$%&'*+-.^_`|~aZ09=1"));

        check_lines("no name", b": 1\r\n", Err(FieldName));
        check_lines("no colon", b"Host\r\n", Err(FieldName));
        check_lines("white space before the colon (§5.1)", b"Content-Length : 5\r\n", Err(FieldName));
        check_lines("a tab before the colon", b"Transfer-Encoding\t: chunked\r\n", Err(FieldName));
        check_lines("white space before the first name (§2.2)", b" Host: a\r\n", Err(FieldName));
        check_lines("a folded line (§5.2)", b"Host: a\r\n b\r\n", Err(FieldName));
        check_lines("a line folded with a tab", b"Transfer-Encoding:\r\n\tchunked\r\n", Err(FieldName));
        check_lines("a folded line that is empty", b"Host: a\r\n \r\n", Err(FieldName));
        check_lines("NUL in a name", b"Ho\0st: a\r\n", Err(FieldName));
        check_lines("a byte over 0x7f in a name", b"Ho\xe9st: a\r\n", Err(FieldName));
        check_lines("a quote in a name", b"\"Host\": a\r\n", Err(FieldName));
        check_lines("CR in a name", b"Ho\rst: a\r\n", Err(FieldName));
        check_lines("NUL in a value", b"a: 1\x002\r\n", Err(FieldValue));
        check_lines("NUL as a value", b"a:\0\r\n", Err(FieldValue));
        check_lines("a vertical tab before a value", b"Transfer-Encoding: \x0bchunked\r\n", Err(FieldValue));
        check_lines("a form feed after a value", b"Transfer-Encoding: chunked\x0c\r\n", Err(FieldValue));
        check_lines("DEL in a value", b"a: 1\x7f\r\n", Err(FieldValue));
        check_lines("ESC in a value", b"a: \x1b[31m\r\n", Err(FieldValue));
        check_lines("a bare CR in a value", b"a: 1\r2\r\n", Err(FieldValue));
        check_lines("a bare CR before another field", b"a: 1\rContent-Length: 5\r\n", Err(FieldValue));
        check_lines("CR CR LF", b"a: 1\r\r\n", Err(FieldValue));
        check_lines("a bare CR as a value", b"a:\r \r\n", Err(FieldValue));
        check_lines("a bare LF after a value", b"a: 1\nb: 2\r\n", Err(LineEnding));
        check_lines("a bare LF after the last value", b"a: 1\n", Err(LineEnding));
        check_lines("a bare LF after an empty value", b"a:\nb: 2\r\n", Err(LineEnding));
        check_lines("a bare LF after an empty last value", b"a:\n", Err(LineEnding));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_head_ends_in_one_empty_line() {
        use Error::LineEnding;
        check("a bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(LineEnding));
        check("a bare LF as the empty line after an empty value", b"GET / HTTP/1.1\r\nHost:\r\n\n", Err(LineEnding));
        check("a bare LF as the empty line, without fields", b"GET / HTTP/1.1\r\n\n", Err(LineEnding));
        check("a CR without its LF", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", Err(LineEnding));
        for end in ["", "\r", "\r\n", "\r\n\r"] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: a{end}");
            assert_eq!(parse_request(bytes.as_bytes()), Ok(Parsed::Partial), "{bytes:?}");
        }
        assert_eq!(parse_request(b""), Ok(Parsed::Partial), "nothing yet");
    }

    /// httparse looks at 8, 16 or 32 bytes at once, by what the processor offers: each lane must be right.
    #[test]
    fn a_byte_has_the_same_verdict_at_every_position() {
        const FILLER: [u8; 67] = [b'a'; 67];
        for byte in 0..=u8::MAX {
            let in_name = super::super::grammar::is_tchar(byte);
            let in_value = super::super::is_field_value(&[byte]);
            let in_target = byte.is_ascii_graphic();
            for at in 0..FILLER.len() {
                let mut part = FILLER;
                part[at] = byte;
                let taken = |before: &[u8], behind: &[u8]| {
                    let bytes = [before, &part, behind].concat();
                    matches!(parse_request(&bytes), Ok(Parsed::Complete((len, _))) if len == bytes.len())
                };
                // A colon in a name, or a space in a target, only ends it sooner.
                if byte != b':' {
                    let is_taken = taken(b"GET / HTTP/1.1\r\n", b": 1\r\n\r\n");
                    assert_eq!(is_taken, in_name, "{byte:#04x} at {at} of a name");
                }
                let is_taken = taken(b"GET / HTTP/1.1\r\nx: ", b"\r\n\r\n");
                assert_eq!(is_taken, in_value, "{byte:#04x} at {at} of a value");
                let is_taken = taken(b"GET /", b" HTTP/1.1\r\n\r\n");
                assert_eq!(is_taken, in_target, "{byte:#04x} at {at} of a target");
            }
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_status_line_is_a_version_a_status_and_a_reason() {
        use Error::{FieldName, FieldValue, LineEnding, StatusLine, Version};
        check_response("the usual", b"HTTP/1.1 200 OK\r\n\r\n", Ok("200 Http11 [200 OK]"));
        check_response("the older version", b"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\n", Ok("404 Http10 [404 Not Found] | Server=x"));
        check_response("an empty reason (§4)", b"HTTP/1.1 200 \r\n\r\n", Ok("200 Http11 [200 ]"));
        check_response("no reason and no space, as some servers send", b"HTTP/1.1 200\r\nA: b\r\n\r\n", Ok("200 Http11 [200] | A=b"));
        check_response("a reason's bytes are kept", b"HTTP/1.1 200  \tO\xe9 K \r\n\r\n", Ok("200 Http11 [200  \\tO\\xe9 K ]"));
        check_response("the smallest status", b"HTTP/1.1 100 Continue\r\n\r\n", Ok("100 Http11 [100 Continue]"));
        check_response("the largest status", b"HTTP/1.1 999 x\r\n\r\n", Ok("999 Http11 [999 x]"));

        check_response("a TLS handshake", b"\x16\x03", Err(Error::Tls));
        check_response("a status below 100", b"HTTP/1.1 099 x\r\n\r\n", Err(StatusLine));
        check_response("two digits", b"HTTP/1.1 20 OK\r\n\r\n", Err(StatusLine));
        check_response("four digits", b"HTTP/1.1 2000 OK\r\n\r\n", Err(StatusLine));
        check_response("a sign", b"HTTP/1.1 +20 OK\r\n\r\n", Err(StatusLine));
        check_response("two spaces before the status", b"HTTP/1.1  200 OK\r\n\r\n", Err(StatusLine));
        check_response("a tab before the status", b"HTTP/1.1\t200 OK\r\n\r\n", Err(Version));
        check_response("a tab after the status", b"HTTP/1.1 200\tOK\r\n\r\n", Err(StatusLine));
        check_response("NUL in the reason", b"HTTP/1.1 200 O\0K\r\n\r\n", Err(StatusLine));
        check_response("a bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n", Err(StatusLine));
        check_response("ESC in the reason", b"HTTP/1.1 200 \x1b[31m\r\n\r\n", Err(StatusLine));
        check_response("a bare LF after the reason", b"HTTP/1.1 200 OK\nA: b\r\n\r\n", Err(LineEnding));
        check_response("a bare LF after the status", b"HTTP/1.1 200\nA: b\r\n\r\n", Err(LineEnding));
        check_response("a bare LF, and no fields", b"HTTP/1.1 200 OK\n\r\n", Err(LineEnding));
        check_response("bare LFs only", b"HTTP/1.1 200 OK\n\n", Err(LineEnding));
        check_response("an empty line before it, which no server sends", b"\r\nHTTP/1.1 200 OK\r\n\r\n", Err(StatusLine));
        check_response("HTTP/0.9", b"hello", Err(Version));
        check_response("HTTP/2", b"HTTP/2 200\r\n\r\n", Err(Version));
        check_response("a later minor version", b"HTTP/1.2 200 OK\r\n\r\n", Err(Version));
        check_response("SHOUTcast", b"ICY 200 OK\r\n\r\n", Err(Version));
        check_response("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x50", Err(Error::Tls));
        check_response("white space before a colon (§5.1)", b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", Ok("200 Http11 [200 OK] | Content-Length=5"));
        check_response("much of it", b"HTTP/1.1 200 OK\r\nA \t  : b\r\nC\t:\r\n\r\n", Ok("200 Http11 [200 OK] | A=b | C="));
        check_response("white space within a name", b"HTTP/1.1 200 OK\r\nA B: c\r\n\r\n", Err(FieldName));
        check_response("white space instead of a colon", b"HTTP/1.1 200 OK\r\nA \r\n\r\n", Err(FieldName));
        check_response("white space instead of a name", b"HTTP/1.1 200 OK\r\nA: b\r\n : c\r\n\r\n", Err(FieldName));
        check_response("a folded line", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Err(FieldName));
        check_response("a bare CR in a value", b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Err(FieldValue));
        check_response("a bare LF after a value", b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", Err(LineEnding));
        check_response("a bare LF as the empty line", b"HTTP/1.1 200 OK\r\nA: b\r\n\n", Err(LineEnding));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_trailer_section_ends_in_an_empty_line() {
        use Error::{FieldName, FieldValue, LineEnding};
        check_fields("none", b"\r\n", Ok(""));
        check_fields("one", b"a: 1\r\n\r\n", Ok(" | a=1"));
        check_fields("two", b"a: 1\r\nb:\r\n\r\n", Ok(" | a=1 | b="));
        check_fields("white space around a value", b"a:\t 1 b \t\r\n\r\n", Ok(" | a=1 b"));
        check_fields("colons in a value", b"a::b:\r\n\r\n", Ok(" | a=:b:"));
        check_fields("a bare LF", b"\n", Err(LineEnding));
        check_fields("a bare LF between fields", b"a: 1\nb: 2\r\n\r\n", Err(LineEnding));
        check_fields("a bare LF after the last field", b"a: 1\n\r\n", Err(LineEnding));
        check_fields("a bare LF as the empty line", b"a: 1\r\n\n", Err(LineEnding));
        check_fields("a bare CR", b"\ra: 1\r\n\r\n", Err(LineEnding));
        check_fields("a folded line", b" a: 1\r\n\r\n", Err(FieldName));
        check_fields("NUL", b"a: \0\r\n\r\n", Err(FieldValue));
    }

    /// A head of exactly `len` bytes padded between `before` and `behind`.
    fn head_of(len: usize, before: &str, behind: &str) -> Vec<u8> {
        let filler = "a".repeat(len - before.len() - behind.len());
        [before, &filler, behind].concat().into_bytes()
    }

    #[test]
    fn a_request_head_has_at_most_64_kib() {
        #[track_caller]
        fn check(why: &str, before: &str, behind: &str, too_long: Error) {
            let fits = head_of(HEAD_BYTES_MAX, before, behind);
            let is_taken = |bytes: &[u8]| match parse_request(bytes) {
                Ok(Parsed::Complete((len, _))) => Ok(len),
                Ok(Parsed::Partial) => Ok(0),
                Err(error) => Err(error),
            };
            assert_eq!(is_taken(&fits), Ok(HEAD_BYTES_MAX), "{why}");
            assert_eq!(
                is_taken(&[&fits[..], b"more"].concat()),
                Ok(HEAD_BYTES_MAX),
                "{why}"
            );
            let one_short = &fits[..HEAD_BYTES_MAX - 1];
            assert_eq!(
                is_taken(one_short),
                Ok(0),
                "{why}: may still end within the limit"
            );

            let over = head_of(HEAD_BYTES_MAX + 1, before, behind);
            assert_eq!(is_taken(&over), Err(too_long), "{why}");
            let unended = &over[..HEAD_BYTES_MAX];
            assert_eq!(
                is_taken(unended),
                Err(too_long),
                "{why}: refused without waiting for more"
            );
        }
        use Error::{HeadTooLarge, RequestLineTooLong};
        check(
            "a long field",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: ",
            "\r\n\r\n",
            HeadTooLarge,
        );
        check(
            "a long name",
            "GET / HTTP/1.1\r\n",
            ": 1\r\n\r\n",
            HeadTooLarge,
        );
        check(
            "after an empty line",
            "\r\nGET / HTTP/1.1\r\nCookie: ",
            "\r\n\r\n",
            HeadTooLarge,
        );
        check(
            "a long target and a complete request line",
            "GET /",
            " HTTP/1.1\r\nA: b\r\n\r\n",
            HeadTooLarge,
        );
        // A longer one is refused before the end of its line.
        let unended_line = |before: &str| parse_request(&head_of(HEAD_BYTES_MAX, before, ""));
        assert_eq!(unended_line("GET /"), Err(RequestLineTooLong));
        assert_eq!(
            unended_line("\r\nGET /"),
            Err(RequestLineTooLong),
            "after an empty line"
        );
        assert_eq!(unended_line("GE"), Err(RequestLineTooLong), "only a method");
    }

    #[test]
    fn bytes_after_64_kib_do_not_change_the_error() {
        let mut bytes = head_of(HEAD_BYTES_MAX, "GET / HTTP/1.1\r\nCookie: ", "");
        bytes.extend_from_slice(b"\0");
        assert_eq!(parse_request(&bytes), Err(Error::HeadTooLarge));
        let mut bytes = head_of(HEAD_BYTES_MAX, "HTTP/1.1 200 OK\r\nCookie: ", "");
        bytes.extend_from_slice(b"\0");
        assert_eq!(parse_response(&bytes), Err(Error::HeadTooLarge));
    }

    #[test]
    fn a_response_head_has_at_most_64_kib() {
        let fits = head_of(HEAD_BYTES_MAX, "HTTP/1.1 200 OK\r\nA: ", "\r\n\r\n");
        assert!(matches!(
            parse_response(&fits),
            Ok(Parsed::Complete((HEAD_BYTES_MAX, _)))
        ));
        assert_eq!(
            parse_response(&fits[..HEAD_BYTES_MAX - 1]),
            Ok(Parsed::Partial)
        );
        let over = head_of(HEAD_BYTES_MAX + 1, "HTTP/1.1 200 OK\r\nA: ", "\r\n\r\n");
        assert_eq!(parse_response(&over), Err(Error::HeadTooLarge));
        assert_eq!(
            parse_response(&over[..HEAD_BYTES_MAX]),
            Err(Error::HeadTooLarge)
        );
    }

    #[test]
    fn a_head_has_at_most_128_fields() {
        let with = |count: usize| format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(count));
        let fits = with(FIELDS_MAX) + "\r\n";
        let text = format!("GET / Http11{}", " | a=b".repeat(FIELDS_MAX));
        check("128 fields", fits.as_bytes(), Ok(&text));
        check(
            "the 129th",
            with(FIELDS_MAX + 1).as_bytes(),
            Err(Error::TooManyFields),
        );
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_malformed_head_is_refused_with_the_byte_that_makes_it_so() {
        use Error::{FieldName, FieldValue, LineEnding, RequestLine, StatusLine, Version, VersionMajor};
        /// `decided` ends with that byte; what follows never arrives.
        #[track_caller]
        fn check(why: &str, sender: Sender, decided: &[u8], expected: Error) {
            let before = &decided[..decided.len() - 1];
            for step in [1, 2, 5, decided.len()] {
                let (verdict, _) = scan_slowly(sender, before, step);
                assert_eq!(verdict, Ok(Parsed::Partial), "{why}: too early");
                let (verdict, _) = scan_slowly(sender, decided, step);
                assert_eq!(verdict, Err(expected), "{why}: in pieces of {step}");
            }
            let parsed = match sender {
                Sender::Client => parse_request(decided),
                Sender::Target => parse_response(decided),
            };
            assert_eq!(parsed, Err(expected), "{why}");
        }
        use Sender::{Client, Target};
        check("two spaces", Client, b"GET  ", RequestLine);
        check("a method that is no token", Client, b"GE(", RequestLine);
        check("not ASCII", Client, "GET /\u{e9}".as_bytes().split_last().expect("two bytes").1, Error::Target);
        check("no version", Client, b"GET /\r", RequestLine);
        check("a space in the target", Client, b"GET /a b", RequestLine);
        check("another version", Client, b"GET / HTTP/1.2", Version);
        check("another major version", Client, b"GET / HTTP/2.", VersionMajor);
        check("a bare LF", Client, b"GET / HTTP/1.1\n", LineEnding);
        check("a bare CR", Client, b"GET / HTTP/1.1\rH", LineEnding);
        check("a bare LF after a value", Client, b"GET / HTTP/1.1\r\nA: b\n", LineEnding);
        check("a bare CR in a value", Client, b"GET / HTTP/1.1\r\nA: b\rc", FieldValue);
        check("NUL in a value", Client, b"GET / HTTP/1.1\r\nA: b\0", FieldValue);
        check("a fold", Client, b"GET / HTTP/1.1\r\nA: b\r\n ", FieldName);
        check("white space before a colon", Client, b"GET / HTTP/1.1\r\nA ", FieldName);
        check("no colon", Client, b"GET / HTTP/1.1\r\nA\r", FieldName);
        check("another protocol", Target, b"HTTQ", Version);
        check("no status", Target, b"HTTP/1.1 a", StatusLine);
        check("four digits", Target, b"HTTP/1.1 2000", StatusLine);
        check("a bare LF after the reason", Target, b"HTTP/1.1 200 OK\n", LineEnding);
        check("a fold in a response", Target, b"HTTP/1.1 200 OK\r\nA: b\r\n\t", FieldName);
        check("a space in a name", Target, b"HTTP/1.1 200 OK\r\nA B", FieldName);
        check("a bare CR in a response", Target, b"HTTP/1.1 200 OK\r\nA: b\rc", FieldValue);
    }

    #[test]
    fn a_head_is_decided_with_its_last_byte_and_at_the_limit() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody";
        for step in 1..bytes.len() {
            let (verdict, arrived) = scan_slowly(Sender::Client, bytes, step);
            assert_eq!(verdict, Ok(Parsed::Complete(24)));
            assert!(
                (24..24 + step).contains(&arrived),
                "{arrived} in pieces of {step}"
            );
        }
        for (before, expected) in [
            ("GET /", Error::RequestLineTooLong),
            ("GET / HTTP/1.1\r\nA: ", Error::HeadTooLarge),
        ] {
            let long = head_of(HEAD_BYTES_MAX + 1, before, "");
            let (verdict, arrived) = scan_slowly(Sender::Client, &long, 1);
            assert_eq!((verdict, arrived), (Err(expected), HEAD_BYTES_MAX));
        }
    }

    /// Each byte is looked at once: 64 KiB byte by byte would else take 2 GiB of steps.
    #[test]
    fn what_has_been_scanned_is_not_read_again() {
        let mut bytes = b"GET / HTTP/1.1\r\nA: b\r\n".to_vec();
        let mut scan = Scan::head(Sender::Client);
        assert_eq!(scan.follow(&bytes), Ok(Parsed::Partial));
        bytes.fill(0);
        bytes.extend_from_slice(b"\r\n");
        assert_eq!(scan.follow(&bytes), Ok(Parsed::Complete(24)));
    }
}
