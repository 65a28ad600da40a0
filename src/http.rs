//! HTTP/1.1 without I/O: bytes in, decisions out (RFC 9110, RFC 9112).
//!
//! Decided here: whether bytes are a message, where it ends, what of it may pass this hop, and what is
//! answered to a peer that gets it wrong. Not decided here: when to read, from where, how long to wait.
//! Nothing in this module does I/O, awaits, reads a clock, or grows without a limit, so a fuzzer calls
//! the very functions that the program runs.
//!
//! A message passes in this order:
//!
//! 1. [`head::request`] or [`head::response`] turns bytes into a borrowed head,
//! 2. [`framing`] decides, once, how its body ends,
//! 3. [`target`] and [`guard`] say whether the request may be served here at all,
//! 4. [`rewrite`] writes the head for the next hop,
//! 5. [`body::Body`] follows the body's bytes to their end,
//! 6. [`connection`] says what becomes of the connection.
//!
//! [`forward`] asks them in this order.

pub mod body;
pub mod chunked;
pub mod connection;
pub mod forward;
pub mod framing;
pub mod guard;
pub mod head;
pub mod reply;
pub mod rewrite;
pub mod target;
pub mod trailer;

/// The longest head taken, in bytes, its end included. Apache stops at 8 KiB a line, nginx at 32 KiB,
/// node at 16 KiB; model clients carry long cookies and beta lists, and tokens of several KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most fields in a head or a trailer section. Apache and haproxy stop at about 100.
pub const FIELDS_MAX: usize = 128;

/// The result of looking at a prefix of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// It is all there.
    Complete(T),
    /// It is right as far as it goes; more bytes are needed.
    Partial,
}

/// What is wrong with bytes that claim to be HTTP/1.1.
///
/// The same mistake is a client's (answered with [`Error::status`]) or an origin's (a 502, or a cut
/// connection once its head is out): who made it is the caller's knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are a TLS handshake.
    Tls,
    /// The head has no end within [`HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// The request line has no end within [`HEAD_BYTES_MAX`].
    RequestLineTooLong,
    /// More than [`FIELDS_MAX`] fields.
    TooManyFields,
    /// `Connection` names more than [`connection::OPTIONS_MAX`] fields.
    TooManyOptions,
    /// A line feed without its carriage return, or the reverse (RFC 9112 §2.2).
    LineEnding,
    /// The request line is not `method SP target SP version` (RFC 9112 §3).
    RequestLine,
    /// The status line is not `version SP 3DIGIT SP reason` (RFC 9112 §4).
    StatusLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A field line does not start with a token and its colon: white space stands before the colon
    /// (RFC 9112 §5.1), or before the name, which folds the line (§5.2).
    FieldName,
    /// A field value holds a control character, a bare CR among them (RFC 9110 §5.5).
    FieldValue,
    /// The target has none of the four forms, or one that the method cannot have (RFC 9112 §3.2).
    Target,
    /// An HTTP/1.1 request without `Host` (RFC 9112 §3.2).
    HostMissing,
    /// Several `Host` fields (RFC 9112 §3.2).
    HostRepeated,
    /// `Host` is not `uri-host [ ":" port ]` (RFC 9110 §7.2).
    HostMalformed,
    /// `Content-Length` is not one run of digits below 2^63 (RFC 9110 §8.6).
    LengthMalformed,
    /// Several `Content-Length` fields (RFC 9112 §6.3 (5)).
    LengthRepeated,
    /// `Content-Length` and `Transfer-Encoding` together (RFC 9112 §6.1, §6.3 (3)).
    LengthAndCoding,
    /// `Transfer-Encoding` in a message of HTTP/1.0 (RFC 9112 §6.1).
    CodingInHttp10,
    /// `Transfer-Encoding` is no list of codings, or names `chunked` twice or not last (RFC 9112 §6.1).
    CodingMalformed,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1).
    CodingUnknown,
    /// `CONNECT`: this is no forward proxy.
    Connect,
    /// `CONNECT` with a body, which has no meaning (RFC 9110 §9.3.6).
    ConnectBody,
    /// A chunk size is not 1 to 16 hexadecimal digits (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk extension breaks the grammar (RFC 9112 §7.1.1).
    ChunkExtension,
    /// Chunk data is not followed by CRLF (RFC 9112 §7.1).
    ChunkEnd,
    /// Chunk sizes and extensions outweigh the data by too much (RFC 9112 §7.1.1).
    ChunkOverhead,
    /// A trailer section that is too large or malformed (RFC 9112 §7.1.2).
    Trailer,
    /// `Host` names another machine: see [`guard`].
    HostForeign,
    /// `Origin` is a web page from elsewhere: see [`guard`].
    OriginForeign,
    /// The request has passed here too often: see [`guard::VIA_MAX`].
    Loop,
}

impl Error {
    /// The status that answers a request with this mistake.
    pub fn status(self) -> u16 {
        match self {
            Error::RequestLineTooLong => 414,
            Error::HeadTooLarge | Error::TooManyFields => 431,
            Error::CodingUnknown | Error::Connect => 501,
            Error::HostForeign => 421,
            Error::OriginForeign => 403,
            Error::Loop => 508,
            _ => 400,
        }
    }

    /// A short name for programs: the `code` of the answer, and its `x-ic-error` field.
    pub fn code(self) -> &'static str {
        match self {
            Error::Tls => "tls_on_plain_port",
            Error::HeadTooLarge => "head_too_large",
            Error::RequestLineTooLong => "request_line_too_long",
            Error::TooManyFields => "too_many_fields",
            Error::TooManyOptions => "too_many_connection_options",
            Error::LineEnding => "bad_line_ending",
            Error::RequestLine => "bad_request_line",
            Error::StatusLine => "bad_status_line",
            Error::Version => "bad_version",
            Error::FieldName => "bad_field_name",
            Error::FieldValue => "bad_field_value",
            Error::Target => "bad_target",
            Error::HostMissing => "host_missing",
            Error::HostRepeated => "host_repeated",
            Error::HostMalformed => "bad_host",
            Error::LengthMalformed => "bad_content_length",
            Error::LengthRepeated => "content_length_repeated",
            Error::LengthAndCoding => "content_length_and_transfer_encoding",
            Error::CodingInHttp10 => "transfer_encoding_in_http_1_0",
            Error::CodingMalformed => "bad_transfer_encoding",
            Error::CodingUnknown => "unknown_transfer_encoding",
            Error::Connect => "connect_not_supported",
            Error::ConnectBody => "connect_with_body",
            Error::ChunkSize => "bad_chunk_size",
            Error::ChunkExtension => "bad_chunk_extension",
            Error::ChunkEnd => "bad_chunk_end",
            Error::ChunkOverhead => "chunk_overhead",
            Error::Trailer => "bad_trailer",
            Error::HostForeign => "host_not_allowed",
            Error::OriginForeign => "origin_not_allowed",
            Error::Loop => "loop",
        }
    }

    /// One line for people: what is wrong, and what to do where that is known.
    pub fn explain(self) -> &'static str {
        match self {
            Error::Tls => {
                "this port speaks plain HTTP, not TLS; use http:// in the client's base URL"
            }
            Error::HeadTooLarge => "the head is over 64 KiB; send fewer or shorter fields",
            Error::RequestLineTooLong => "the request line is over 64 KiB; shorten the URL",
            Error::TooManyFields => "the head has over 128 fields; send fewer",
            Error::TooManyOptions => "the Connection field names over 16 fields; send fewer",
            Error::LineEnding => "a line does not end in CRLF",
            Error::RequestLine => {
                "the request line is not `METHOD target HTTP/1.1`; a space in a URL is sent as %20"
            }
            Error::StatusLine => "the status line is malformed",
            Error::Version => {
                "the version is not HTTP/1.1 or HTTP/1.0; switch the client to HTTP/1.1"
            }
            Error::FieldName => {
                "a field line is folded, or is not a name directly followed by a colon"
            }
            Error::FieldValue => "a field value holds a control character",
            Error::Target => {
                "the request target is malformed; percent-encode what a URL cannot hold"
            }
            Error::HostMissing => "the Host field is missing",
            Error::HostRepeated => "there are several Host fields",
            Error::HostMalformed => "the Host field is malformed",
            Error::LengthMalformed => "the Content-Length is not a single number",
            Error::LengthRepeated => "there are several Content-Length fields",
            Error::LengthAndCoding => "Content-Length and Transfer-Encoding stand together",
            Error::CodingInHttp10 => "Transfer-Encoding stands in an HTTP/1.0 message",
            Error::CodingMalformed => "the Transfer-Encoding is malformed",
            Error::CodingUnknown => "the only transfer coding supported is chunked",
            Error::Connect => {
                "CONNECT is not supported; set ic's port as the base URL, not as a proxy"
            }
            Error::ConnectBody => "a CONNECT request cannot have a body",
            Error::ChunkSize => "a chunk size is malformed",
            Error::ChunkExtension => "a chunk extension is malformed",
            Error::ChunkEnd => "a chunk does not end in CRLF",
            Error::ChunkOverhead => "the chunk framing outweighs its data; send larger chunks",
            Error::Trailer => "the trailer section is malformed or too large",
            Error::HostForeign => {
                "the Host field names another machine; use localhost, or start ic with --allow-host"
            }
            Error::OriginForeign => {
                "web pages from elsewhere are not served; start ic with --allow-origin to let one in"
            }
            Error::Loop => "the request has passed here 5 times: the target leads back to ic",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.explain())
    }
}

impl std::error::Error for Error {}

/// The elements of a comma-separated list that may span several field lines, trimmed, the empty ones
/// left out (RFC 9110 §5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
pub(crate) fn is_tchar(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// Whether `bytes` is a token (RFC 9110 §5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_tchar)
}

/// Whether `bytes` may stand as a field value: no control characters but tabs (RFC 9110 §5.5).
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fmt::Debug;

    /// The rule for every parser here: a verdict, once given, stands. All of `bytes` give `expected`; each
    /// shorter prefix gives [`Parsed::Partial`], or already the same error; bytes behind change nothing.
    #[track_caller]
    pub(crate) fn check_in_pieces<T: PartialEq + Debug>(
        why: &str,
        bytes: &[u8],
        expected: Result<T, Error>,
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, Error>,
    ) {
        let expected = expected.map(Parsed::Complete);
        let shown = bytes.escape_ascii();
        assert_eq!(parse(bytes), expected, "{why}: {shown}");

        let prefixes = || (0..bytes.len()).map(|len| parse(&bytes[..len]));
        let undecided = prefixes()
            .take_while(|verdict| *verdict == Ok(Parsed::Partial))
            .count();
        for verdict in prefixes().skip(undecided) {
            assert!(verdict.is_err(), "{why}: complete too early: {shown}");
            assert_eq!(verdict, expected, "{why}: another verdict early: {shown}");
        }
        for behind in BEHIND {
            assert_eq!(
                parse(&[bytes, behind].concat()),
                expected,
                "{why}: {shown} and behind it {}",
                behind.escape_ascii()
            );
        }
    }

    /// Reads the request head that `text` is, and asks `question` of it.
    #[track_caller]
    pub(crate) fn with_request<T>(
        text: &str,
        question: impl FnOnce(&head::RequestHead<'_, '_>) -> T,
    ) -> T {
        match head::request(text.as_bytes(), &mut head::Slots::new()) {
            Ok(Parsed::Complete(head)) => question(&head),
            verdict => panic!("no head: {text:?}: {verdict:?}"),
        }
    }

    /// Reads the response head that `text` is, and asks `question` of it.
    #[track_caller]
    pub(crate) fn with_response<T>(
        text: &str,
        question: impl FnOnce(&head::ResponseHead<'_, '_>) -> T,
    ) -> T {
        match head::response(text.as_bytes(), &mut head::Slots::new()) {
            Ok(Parsed::Complete(head)) => question(&head),
            verdict => panic!("no head: {text:?}: {verdict:?}"),
        }
    }

    /// What may follow a message on its connection, or be smuggled in behind it.
    const BEHIND: [&[u8]; 8] = [
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff",
        b" folded\r\n\r\n",
        b"a: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ];

    /// Every mistake there is.
    const ALL: [Error; 31] = [
        Error::Tls,
        Error::HeadTooLarge,
        Error::RequestLineTooLong,
        Error::TooManyFields,
        Error::TooManyOptions,
        Error::LineEnding,
        Error::RequestLine,
        Error::StatusLine,
        Error::Version,
        Error::FieldName,
        Error::FieldValue,
        Error::Target,
        Error::HostMissing,
        Error::HostRepeated,
        Error::HostMalformed,
        Error::LengthMalformed,
        Error::LengthRepeated,
        Error::LengthAndCoding,
        Error::CodingInHttp10,
        Error::CodingMalformed,
        Error::CodingUnknown,
        Error::Connect,
        Error::ConnectBody,
        Error::ChunkSize,
        Error::ChunkExtension,
        Error::ChunkEnd,
        Error::ChunkOverhead,
        Error::Trailer,
        Error::HostForeign,
        Error::OriginForeign,
        Error::Loop,
    ];

    #[test]
    fn every_mistake_has_a_code_of_its_own_and_a_line_that_fits_a_chat_window() {
        for (index, error) in ALL.iter().enumerate() {
            assert!(is_token(error.code().as_bytes()), "{error:?}");
            assert!(
                ALL[..index]
                    .iter()
                    .all(|other| other.code() != error.code()),
                "{error:?} shares its code"
            );
            let line = error.explain();
            assert!(line.len() <= reply::MESSAGE_CHARS_MAX, "{error:?}");
            assert!(
                is_field_value(line.as_bytes()) && !line.ends_with('.'),
                "{error:?}"
            );
            assert!(
                [400, 403, 414, 421, 431, 501, 508].contains(&error.status()),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_token_is_what_rfc_9110_lists_and_nothing_else() {
        let listed =
            b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for byte in 0..=u8::MAX {
            assert_eq!(is_token(&[byte]), listed.contains(&byte), "{byte:#04x}");
        }
        assert!(!is_token(b""), "a token has at least one character");
        assert!(!is_token(b"a b"));
    }

    #[test]
    fn a_field_value_holds_no_control_character_but_tab() {
        for byte in 0..=u8::MAX {
            let is_control = byte < 0x20 || byte == 0x7f;
            let expected = !is_control || byte == b'\t';
            assert_eq!(is_field_value(&[b'a', byte]), expected, "{byte:#04x}");
        }
        assert!(is_field_value(b""), "empty values exist");
    }

    #[test]
    fn a_list_is_split_at_commas_and_its_empty_elements_do_not_count() {
        #[track_caller]
        fn check(value: &str, expected: &[&str]) {
            let elements: Vec<_> = list(value.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(elements, expected, "{value:?}");
        }
        check("", &[]);
        check(" ,\t, ", &[]);
        check("close", &["close"]);
        check("close,TE", &["close", "TE"]);
        check(" ,close ,\tTE,, ", &["close", "TE"]);
        check("a b", &["a b"]);
    }
}
