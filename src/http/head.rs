//! Message heads: a borrowed view of what httparse parsed, and the checks that it does not make.
//!
//! Decided here: whether the bytes are a complete, well-formed head. Not decided here: what its fields mean.
//!
//! httparse accepts a bare LF as a line ending and skips empty lines before a message. Both allow request smuggling and are
//! refused here without a second pass over the bytes: the two bytes before each field name must be CRLF.

use std::mem::MaybeUninit;

use super::error::{Error, Parsed};
use super::grammar::list;

/// One field line: its name as sent, and its value without the white space around it.
pub type Field<'b> = httparse::Header<'b>;

/// The longest head accepted, in bytes, its end included. Apache allows 8 KiB a line, nginx 32 KiB, node 16 KiB; clients of
/// models send long cookies and beta lists, and tokens of several KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most fields in a head or a trailer section. Apache and haproxy allow about 100.
pub const FIELDS_MAX: usize = 128;

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
        [b'\r'] => return Ok(Parsed::Partial),
        _ => 0,
    };
    let text = &bytes[skipped..];
    match text {
        // TLS record type 22, a handshake: the client uses https:// for a plain port.
        [0x16, ..] => return Err(Error::Tls),
        // httparse would skip these.
        [b'\r' | b'\n', ..] => return Err(Error::LineEnding),
        _ => {}
    }
    let mut head = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_request_with_uninit_headers(&mut head, text, &mut slots.0) {
        Ok(httparse::Status::Complete(len)) => {
            let fields: &'h [Field<'b>] = head.headers;
            check_line_endings(text, len, fields)?;
            let (Some(method), Some(target), Some(version)) =
                (head.method, head.path, head.version)
            else {
                return Err(Error::RequestLine);
            };
            if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Error::Target);
            }
            Ok(Parsed::Complete(RequestHead {
                method,
                target,
                version: Version::of_minor(version),
                fields,
                len: skipped + len,
            }))
        }
        Ok(httparse::Status::Partial) if bytes.len() == HEAD_BYTES_MAX => Err(too_large(text)),
        Ok(httparse::Status::Partial) => Ok(Parsed::Partial),
        Err(httparse::Error::Version) if !names_http(text) => Err(Error::RequestLine),
        Err(error) => Err(from_httparse(error, Error::RequestLine)),
    }
}

/// Parses the response head at the start of `bytes`.
pub fn response<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
) -> Result<Parsed<ResponseHead<'h, 'b>>, Error> {
    let bytes = within_limit(bytes);
    // TLS record types 21 and 22, mostly an alert: the target expects TLS and got plain text.
    if let [0x15 | 0x16, ..] = bytes {
        return Err(Error::Tls);
    }
    if let [b'\r' | b'\n', ..] = bytes {
        return Err(Error::StatusLine);
    }
    let mut head = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // RFC 9112 §5.1: a proxy removes it from a response.
    config.allow_spaces_after_header_name_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut head, bytes, &mut slots.0) {
        Ok(httparse::Status::Complete(len)) => {
            let fields: &'h [Field<'b>] = head.headers;
            check_line_endings(bytes, len, fields)?;
            let (Some(version), Some(status)) = (head.version, head.code) else {
                return Err(Error::StatusLine);
            };
            if status < 100 {
                return Err(Error::StatusLine);
            }
            let behind_version = bytes.get("HTTP/1.1 ".len()..).unwrap_or_default();
            let line_end = behind_version.iter().position(|&byte| byte == b'\r');
            let Some(status_and_reason) = line_end.map(|end| &behind_version[..end]) else {
                return Err(Error::StatusLine);
            };
            Ok(Parsed::Complete(ResponseHead {
                version: Version::of_minor(version),
                status,
                status_and_reason,
                fields,
                len,
            }))
        }
        Ok(httparse::Status::Partial) if bytes.len() == HEAD_BYTES_MAX => Err(Error::HeadTooLarge),
        Ok(httparse::Status::Partial) => Ok(Parsed::Partial),
        Err(error) => Err(from_httparse(error, Error::StatusLine)),
    }
}

/// Parses a trailer section: field lines and the empty line that ends them (RFC 9112 §7.1.2). Returns its length and fields.
pub fn fields<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut [Field<'b>],
) -> Result<Parsed<(usize, &'h [Field<'b>])>, Error> {
    match httparse::parse_headers(bytes, slots) {
        Ok(httparse::Status::Complete((len, fields))) => {
            check_line_endings(bytes, len, fields)?;
            Ok(Parsed::Complete((len, fields)))
        }
        Ok(httparse::Status::Partial) => Ok(Parsed::Partial),
        Err(error) => Err(from_httparse(error, Error::FieldName)),
    }
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

/// Whether a head that was [`Parsed::Partial`] at its first `seen` bytes may be complete now, or has reached [`HEAD_BYTES_MAX`].
/// Only then is it parsed again: a head that arrives byte by byte must not be parsed once for each byte.
pub fn may_end(bytes: &[u8], seen: usize) -> bool {
    let news = &bytes[seen.saturating_sub(b"\n\r".len()).min(bytes.len())..];
    // A head that ends in bare line feeds is complete, too: malformed, and refused at once.
    news.windows(2).any(|pair| pair == b"\n\n")
        || news.windows(3).any(|triple| triple == b"\n\r\n")
        || bytes.len() >= HEAD_BYTES_MAX
}

/// The part of `bytes` that can belong to a head.
fn within_limit(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(HEAD_BYTES_MAX)]
}

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// Checks that every line ends in CRLF: the one before each field name, and the last two of the head.
///
/// httparse refuses a CR without LF and control characters within lines, so that only an LF without CR is left to find. Each
/// line after the first starts with a field name, since folded lines are refused.
fn check_line_endings(bytes: &[u8], len: usize, fields: &[Field<'_>]) -> Result<(), Error> {
    for field in fields {
        let start = offset(bytes, field.name);
        // The first line of a trailer section has no line before it.
        if start != 0 && !bytes[..start].ends_with(b"\r\n") {
            return Err(Error::LineEnding);
        }
    }
    let head = &bytes[..len];
    let well_ended = head.ends_with(END) || (fields.is_empty() && head == b"\r\n");
    if well_ended {
        Ok(())
    } else {
        Err(Error::LineEnding)
    }
}

/// The offset of `part`, a slice of `bytes`.
fn offset(bytes: &[u8], part: &str) -> usize {
    part.as_ptr().addr() - bytes.as_ptr().addr()
}

/// Whether the text after the request target looks like an HTTP version. If not, the error is probably a space in the URL.
fn names_http(text: &[u8]) -> bool {
    text.splitn(3, |&byte| byte == b' ')
        .nth(2)
        .is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// The error for a head that starts with `text` and exceeds the limit.
fn too_large(text: &[u8]) -> Error {
    if text.contains(&b'\n') {
        Error::HeadTooLarge
    } else {
        Error::RequestLineTooLong
    }
}

/// Converts an error of httparse; `line` is the error for the message's first line.
fn from_httparse(error: httparse::Error, line: Error) -> Error {
    match error {
        httparse::Error::HeaderName => Error::FieldName,
        httparse::Error::HeaderValue => Error::FieldValue,
        httparse::Error::NewLine => Error::LineEnding,
        httparse::Error::Status | httparse::Error::Token => line,
        httparse::Error::TooManyHeaders => Error::TooManyFields,
        httparse::Error::Version => Error::Version,
    }
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
        let mut slots = [httparse::EMPTY_HEADER; 4];
        Ok(match fields(bytes, &mut slots)? {
            Parsed::Complete((len, fields)) => Parsed::Complete((len, fields_text(fields))),
            Parsed::Partial => Parsed::Partial,
        })
    }

    #[track_caller]
    fn check(why: &str, bytes: &[u8], expected: Result<&str, Error>) {
        let expected = expected.map(|text| (bytes.len(), text.to_owned()));
        check_in_pieces(why, bytes, expected, parse_request);
    }

    #[track_caller]
    fn check_response(why: &str, bytes: &[u8], expected: Result<&str, Error>) {
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
        use Error::{LineEnding, RequestLine, Target, Tls, Version};
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
        check("Latin-1 in the target", b"GET /\xe9 HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a target without version that ends in CRLF", b"GET / \r\n\r\n", Err(RequestLine));
        check("two spaces before the version", b"GET /  HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a space that is not percent-encoded", b"GET /a b HTTP/1.1\r\n\r\n", Err(RequestLine));
        check("a lower-case version (§2.3)", b"GET / http/1.1\r\n\r\n", Err(RequestLine));
        check("another protocol", b"INVITE sip:a@b SIP/2.0\r\n\r\n", Err(RequestLine));
        check("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(Version));
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
        use Error::{FieldName, FieldValue, LineEnding, TooManyFields};
        check_fields("none", b"\r\n", Ok(""));
        check_fields("one", b"a: 1\r\n\r\n", Ok(" | a=1"));
        check_fields("two", b"a: 1\r\nb:\r\n\r\n", Ok(" | a=1 | b="));
        check_fields("as many as there are slots", b"a:\r\nb:\r\nc:\r\nd:\r\n\r\n", Ok(" | a= | b= | c= | d="));
        check_fields("more than there are slots", b"a:\r\nb:\r\nc:\r\nd:\r\ne:\r\n", Err(TooManyFields));
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
    fn a_slow_head_is_parsed_again_only_when_it_may_be_complete() {
        #[track_caller]
        fn check(why: &str, bytes: &[u8], expected: &[usize]) {
            let parsed_at: Vec<usize> = (1..=bytes.len())
                .filter(|&len| may_end(&bytes[..len], len - 1))
                .collect();
            assert_eq!(parsed_at, expected, "{why}: {}", bytes.escape_ascii());
        }
        check("at its end", b"GET / HTTP/1.1\r\nA: b\r\n\r\n", &[24]);
        check("at an end in bare LFs", b"GET / HTTP/1.1\nA: b\n\n", &[21]);
        check(
            "at an end in LF CR LF",
            b"GET / HTTP/1.1\nA: b\n\r\n",
            &[22],
        );
        check(
            "not at the end of a line",
            b"GET / HTTP/1.1\r\nA: b\r\n",
            &[],
        );
        let long = head_of(HEAD_BYTES_MAX, "GET /", "");
        assert!(!may_end(&long[..HEAD_BYTES_MAX - 1], 1));
        assert!(
            may_end(&long, HEAD_BYTES_MAX - 1),
            "the limit is an end as well"
        );
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_arrives() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\n";
        for seen in 0..bytes.len() {
            assert!(may_end(bytes, seen), "after {seen} bytes");
        }
        assert!(
            may_end(b"GET / HTTP/1.1\r\n\r\nbody", 0),
            "with a body after it"
        );
        assert!(
            !may_end(b"GET / HTTP/1.1\r\n\r\nbody", 21),
            "not a second time"
        );
    }
}
