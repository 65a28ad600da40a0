//! What every parser of this layer returns: a value, "more bytes are needed", or an error; and the reply to each error.

use super::reply::{Reply, Retry};

/// The result of parsing a prefix of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The message is complete.
    Complete(T),
    /// The prefix is valid; more bytes are needed.
    Partial,
}

/// What is wrong with a message, or why a request is not served.
///
/// Client and target can both make most of these errors. A client gets [`Error::reply`]; for an error of the target the
/// caller sends a 502, or cuts the connection if part of the response is already sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are a TLS handshake.
    Tls,
    /// The head has no end within [`HEAD_BYTES_MAX`](super::head::HEAD_BYTES_MAX).
    HeadTooLarge,
    /// The request line has no end within [`HEAD_BYTES_MAX`](super::head::HEAD_BYTES_MAX).
    RequestLineTooLong,
    /// More than [`FIELDS_MAX`](super::head::FIELDS_MAX) fields.
    TooManyFields,
    /// `Connection` names more than [`OPTIONS_MAX`](super::connection::OPTIONS_MAX) fields.
    TooManyOptions,
    /// A line feed without its carriage return, or the reverse (RFC 9112 §2.2).
    LineEnding,
    /// The request line is not `method SP target SP version` (RFC 9112 §3).
    RequestLine,
    /// The status line is not `version SP 3DIGIT SP reason` (RFC 9112 §4).
    StatusLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// The major version of a request is not 1 (RFC 9110 §15.6.6).
    VersionMajor,
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
    /// `Transfer-Encoding` in a request of HTTP/1.0 (RFC 9112 §6.1).
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
    /// A chunk extension breaks the grammar, or has white space in a request (RFC 9112 §7.1.1).
    ChunkExtension,
    /// Chunk data is not followed by CRLF (RFC 9112 §7.1).
    ChunkEnd,
    /// Chunk sizes and extensions outweigh the data by too much (RFC 9112 §7.1.1).
    ChunkOverhead,
    /// A trailer section that is too large or malformed (RFC 9112 §7.1.2).
    Trailer,
    /// The request target is a URL of another server (RFC 9112 §3.2.2): the client takes this for a forward proxy.
    ForwardProxy,
    /// `Host` names another machine: see [`guard`](super::guard).
    HostForeign,
    /// `Origin` or `Sec-Fetch-Site` is a web page of another site: see [`guard`](super::guard).
    OriginForeign,
    /// The request has passed through `ic` too often: see [`VIA_MAX`](super::guard::VIA_MAX).
    Loop,
}

impl Error {
    /// The reply to a request with this error.
    #[rustfmt::skip] // A table.
    pub const fn reply(self) -> Reply<'static> {
        match self {
            Error::Tls => row(400, "tls_on_plain_port", "this port speaks plain HTTP, not TLS; use http:// instead of https:// in the client's base URL"),
            Error::HeadTooLarge => row(431, "head_too_large", "the head is over 64 KiB; send fewer or shorter fields"),
            Error::RequestLineTooLong => row(414, "request_line_too_long", "the request line is over 64 KiB; shorten the URL"),
            Error::TooManyFields => row(431, "too_many_fields", "the head has over 128 fields; send fewer"),
            Error::TooManyOptions => row(400, "too_many_connection_options", "the Connection field names over 16 fields; send fewer"),
            Error::LineEnding => row(400, "bad_line_ending", "a line does not end in CRLF"),
            Error::RequestLine => row(400, "bad_request_line", "the request line is not `METHOD target HTTP/1.1`; a space in a URL is sent as %20"),
            Error::StatusLine => row(400, "bad_status_line", "the status line is malformed"),
            Error::Version => row(400, "bad_version", "the version is neither HTTP/1.1 nor HTTP/1.0; switch the client to HTTP/1.1"),
            Error::VersionMajor => row(505, "version_not_supported", "the version is neither HTTP/1.1 nor HTTP/1.0; switch the client to HTTP/1.1"),
            Error::FieldName => row(400, "bad_field_name", "a field line is folded, or does not start with a name and a colon"),
            Error::FieldValue => row(400, "bad_field_value", "a field value holds a control character"),
            Error::Target => row(400, "bad_target", "the request target is malformed; percent-encode what a URL cannot hold"),
            Error::HostMissing => row(400, "host_missing", "the Host field is missing"),
            Error::HostRepeated => row(400, "host_repeated", "there are several Host fields"),
            Error::HostMalformed => row(400, "bad_host", "the Host field is malformed"),
            Error::LengthMalformed => row(400, "bad_content_length", "the Content-Length is not a single number"),
            Error::LengthRepeated => row(400, "content_length_repeated", "there are several Content-Length fields"),
            Error::LengthAndCoding => row(400, "content_length_and_transfer_encoding", "both Content-Length and Transfer-Encoding are present"),
            Error::CodingInHttp10 => row(400, "transfer_encoding_in_http_1_0", "an HTTP/1.0 message cannot have a Transfer-Encoding"),
            Error::CodingMalformed => row(400, "bad_transfer_encoding", "the Transfer-Encoding is malformed"),
            Error::CodingUnknown => row(501, "unknown_transfer_encoding", "the only transfer coding supported is chunked"),
            Error::Connect => row(501, "connect_not_supported", "CONNECT is not supported: ic is not a forward proxy; unset the client's proxy, and set ic as its base URL"),
            Error::ConnectBody => row(400, "connect_with_body", "a CONNECT request cannot have a body"),
            Error::ChunkSize => row(400, "bad_chunk_size", "a chunk size is malformed"),
            Error::ChunkExtension => row(400, "bad_chunk_extension", "a chunk extension is malformed, or holds white space"),
            Error::ChunkEnd => row(400, "bad_chunk_end", "a chunk does not end in CRLF"),
            Error::ChunkOverhead => row(400, "chunk_overhead", "the chunk framing outweighs its data; send larger chunks"),
            Error::Trailer => row(400, "bad_trailer", "the trailer section is malformed or too large"),
            Error::ForwardProxy => row(421, "not_a_forward_proxy", "ic is not a forward proxy; unset the client's proxy, and set ic as its base URL"),
            Error::HostForeign => row(421, "host_not_allowed", "the Host field names another machine; use localhost, or start ic with --allow-host"),
            Error::OriginForeign => row(403, "origin_not_allowed", "requests of web pages from other sites are refused; start ic with --allow-origin ORIGIN to allow a site, or null for an Origin of null"),
            Error::Loop => row(508, "loop", "the request has passed through ic 5 times; set TARGET_LLM_URL to a target that does not lead back to ic"),
        }
    }

    /// Whether the client has to be set up with another URL. The [`reply`](Error::reply) then ends where that URL can follow.
    pub const fn is_of_url(self) -> bool {
        matches!(self, Error::Tls | Error::Connect | Error::ForwardProxy)
    }
}

/// A row of the table: the same request fails again, so that none of these is to be retried.
const fn row(status: u16, code: &'static str, message: &'static str) -> Reply<'static> {
    Reply::new(status, code, Retry::Never, message)
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reply().message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::super::grammar::{is_field_value, is_token};
    use super::super::reply::MESSAGE_CHARS_MAX;
    use super::*;

    /// Every error.
    const ALL: [Error; 33] = [
        Error::Tls,
        Error::HeadTooLarge,
        Error::RequestLineTooLong,
        Error::TooManyFields,
        Error::TooManyOptions,
        Error::LineEnding,
        Error::RequestLine,
        Error::StatusLine,
        Error::Version,
        Error::VersionMajor,
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
        Error::ForwardProxy,
        Error::HostForeign,
        Error::OriginForeign,
        Error::Loop,
    ];

    #[test]
    fn every_error_has_its_own_code_and_a_message_of_one_line() {
        for (index, error) in ALL.iter().enumerate() {
            assert!(is_token(error.reply().code.as_bytes()), "{error:?}");
            assert!(
                ALL[..index]
                    .iter()
                    .all(|other| other.reply().code != error.reply().code),
                "{error:?} shares its code"
            );
            let line = error.to_string();
            assert!(line.len() <= MESSAGE_CHARS_MAX, "{error:?}");
            assert!(
                is_field_value(line.as_bytes()) && !line.ends_with('.'),
                "{error:?}"
            );
            assert!(
                [400, 403, 414, 421, 431, 501, 505, 508].contains(&error.reply().status),
                "{error:?}"
            );
        }
    }
}
