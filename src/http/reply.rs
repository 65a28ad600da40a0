//! Responses of the interceptor itself.
//!
//! One JSON document serves both kinds of clients: OpenAI's read `error.message` and `error.code`, Anthropic's `type`,
//! `error.type` and `request_id`.

use std::borrow::Cow;

use super::grammar::is_token;

/// The longest message, in characters: clients show it in one line of a chat window.
pub const MESSAGE_CHARS_MAX: usize = 200;

/// Whether the same request can succeed if it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It can, in a second: `Retry-After: 1`.
    Soon,
    /// It cannot: `x-should-retry: false`, which the SDKs obey.
    Never,
}

/// An error response of the interceptor itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The status code.
    pub status: u16,
    /// The error's name for programs: a token.
    pub code: &'static str,
    /// Whether to retry.
    pub retry: Retry,
    /// One line: what failed, why, and what to do next.
    pub message: Cow<'a, str>,
}

impl Reply<'static> {
    /// A row of a table of errors. Its message may hold placeholders, which [`Reply::with`] replaces.
    pub const fn new(status: u16, code: &'static str, retry: Retry, message: &'static str) -> Self {
        Reply {
            status,
            code,
            retry,
            message: Cow::Borrowed(message),
        }
    }

    /// The same with `placeholder`, such as `{target}`, replaced by `value`.
    pub fn with(self, placeholder: &str, value: &str) -> Self {
        Reply {
            message: Cow::Owned(self.message.replace(placeholder, value)),
            ..self
        }
    }
}

/// How a reply is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyOptions {
    /// The request was a `HEAD`: the body is left out.
    pub head_only: bool,
    /// What it says of the connection.
    pub connection: ConnectionField,
}

/// The `Connection` field of a response to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionField {
    /// None: an HTTP/1.1 connection persists by default.
    Absent,
    /// The connection persists, which is not the default of HTTP/1.0.
    KeepAlive,
    /// The connection is closed after this response.
    Close,
    /// The connection changes to the protocol in `Upgrade`.
    Upgrade,
}

impl ConnectionField {
    /// Its line. `has_upgrade`: the response has an `Upgrade`, which its sender must name in `Connection` (RFC 9110 §7.8).
    pub fn line(self, has_upgrade: bool) -> &'static str {
        match (self, has_upgrade) {
            (ConnectionField::Absent, false) => "",
            (ConnectionField::KeepAlive, false) => "Connection: keep-alive\r\n",
            (ConnectionField::Close, false) => "Connection: close\r\n",
            (ConnectionField::KeepAlive, true) => "Connection: keep-alive, Upgrade\r\n",
            (ConnectionField::Close, true) => "Connection: close, Upgrade\r\n",
            (ConnectionField::Absent, true) | (ConnectionField::Upgrade, _) => {
                "Connection: Upgrade\r\n"
            }
        }
    }
}

impl Reply<'_> {
    /// Writes the whole response. `request_id` is a token.
    pub fn write(&self, request_id: &str, options: ReplyOptions, out: &mut Vec<u8>) {
        debug_assert!(is_token(self.code.as_bytes()), "a code is a field value");
        let message = self.message.chars().take(MESSAGE_CHARS_MAX);
        let message: String = message.map(printable).collect();
        // Without control characters these two are all that JSON requires to be escaped (RFC 8259 §7).
        let message = message.replace('\\', r"\\").replace('"', r#"\""#);
        let (kind, code) = (self.kind(), self.code);
        let body = format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}","code":"{code}","param":null}},"request_id":"{request_id}"}}"#
        ) + "\n";
        let retry = match self.retry {
            Retry::Soon => "Retry-After: 1\r\n",
            Retry::Never => "x-should-retry: false\r\n",
        };
        let extra = format!("x-ic-error: {}\r\n{retry}", self.code);
        document(
            self.status,
            "application/json",
            &extra,
            body.as_bytes(),
            options,
            out,
        );
    }

    /// The error's type, with the names that both APIs share.
    fn kind(&self) -> &'static str {
        match self.status {
            403 => "permission_error",
            408 | 504 => "timeout_error",
            413 | 414 | 431 => "request_too_large",
            400..=499 | 501 | 505 => "invalid_request_error",
            503 => "overloaded_error",
            _ => "api_error",
        }
    }
}

/// Writes a complete response; `extra` is additional field lines.
pub fn document(
    status: u16,
    content_type: &str,
    extra: &str,
    body: &[u8],
    options: ReplyOptions,
    out: &mut Vec<u8>,
) {
    let connection = options.connection.line(false);
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{extra}{connection}\r\n",
        reason(status),
        body.len(),
    );
    out.extend_from_slice(head.as_bytes());
    if !options.head_only {
        out.extend_from_slice(body);
    }
}

/// Writes the head of a response with status 200 whose body follows piece by piece: in chunks, or until the connection closes.
pub fn stream_head(
    content_type: &str,
    extra: &str,
    is_chunked: bool,
    options: ReplyOptions,
    out: &mut Vec<u8>,
) {
    let framing = if is_chunked {
        "Transfer-Encoding: chunked\r\n"
    } else {
        ""
    };
    let connection = match is_chunked {
        true => options.connection,
        false => ConnectionField::Close,
    };
    let connection = connection.line(false);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{extra}{framing}{connection}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
}

/// The reason phrase of the statuses that this program sends (RFC 9110 §15).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "",
    }
}

/// Replaces what could end a line or control a terminal by a space, since a message may quote a peer.
fn printable(character: char) -> char {
    if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
        ' '
    } else {
        character
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{Error, Parsed};
    use super::super::framing::{self, Framing, ResponseTo};
    use super::super::head::{self, Slots};
    use super::*;

    const STAYS: ReplyOptions = ReplyOptions {
        head_only: false,
        connection: ConnectionField::Absent,
    };

    fn reply<'a>(status: u16, message: &'a str) -> Reply<'a> {
        Reply {
            status,
            code: "some_code",
            message: message.into(),
            retry: Retry::Never,
        }
    }

    /// The head and the body of what is sent, after a check that they are a whole response.
    #[track_caller]
    fn sent(reply: &Reply<'_>, options: ReplyOptions) -> (String, String) {
        let mut out = b"before".to_vec();
        reply.write("request-1", options, &mut out);
        let bytes = out.strip_prefix(b"before").expect("a reply is appended");
        let mut slots = Slots::default();
        let Ok(Parsed::Complete(head)) = head::response(bytes, &mut slots) else {
            panic!("no response: {}", bytes.escape_ascii());
        };
        let (head_bytes, body) = bytes.split_at(head.len);
        let announced = framing::of_response(&head, ResponseTo::Other).expect("it is framed");
        if !options.head_only {
            assert_eq!(announced, Framing::Length(body.len() as u64));
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("replies are UTF-8");
        (text(head_bytes), text(body))
    }

    #[test]
    fn a_failure_is_one_document_for_both_families_of_clients() {
        let (head, body) = sent(&reply(502, "no answer"), STAYS);
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 x-ic-error: some_code\r\nx-should-retry: false\r\n\r\n",
                body.len()
            )
        );
        let document: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
        let expected = serde_json::json!({
            "type": "error",
            "error": {"type": "api_error", "message": "no answer", "code": "some_code", "param": null},
            "request_id": "request-1",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn a_failure_says_whether_to_try_again_and_whether_the_connection_stays() {
        let soon = Reply {
            retry: Retry::Soon,
            ..reply(502, "")
        };
        let (head, _) = sent(&soon, STAYS);
        assert!(head.contains("\r\nRetry-After: 1\r\n") && !head.contains("x-should-retry"));
        assert!(!head.contains("Connection"));
        let (head, _) = sent(
            &soon,
            ReplyOptions {
                connection: ConnectionField::Close,
                ..STAYS
            },
        );
        assert!(head.contains("\r\nConnection: close\r\n"));
        let (head, _) = sent(
            &soon,
            ReplyOptions {
                connection: ConnectionField::KeepAlive,
                ..STAYS
            },
        );
        assert!(head.contains("\r\nConnection: keep-alive\r\n"));
    }

    #[test]
    fn a_reply_to_head_has_the_length_of_its_body_and_no_body() {
        let (whole, body) = sent(&reply(404, "x"), STAYS);
        let (head, nothing) = sent(
            &reply(404, "x"),
            ReplyOptions {
                head_only: true,
                ..STAYS
            },
        );
        assert_eq!((head, nothing.as_str()), (whole, ""));
        assert!(!body.is_empty());
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn any_message_is_one_line_of_json() {
        #[track_caller]
        fn check(why: &str, message: &str, expected: &str) {
            let (_, body) = sent(&reply(400, message), STAYS);
            assert_eq!(body.matches('\n').count(), 1, "{why}: one line");
            let document: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
            assert_eq!(document["error"]["message"], expected, "{why}");
        }
        check("quotes and backslashes", r#"a "b" c\d\"#, r#"a "b" c\d\"#);
        check("no control characters, which terminals would obey", "a\r\nb\tc\0\x1b[31m\x7f\u{85}d", "a  b c  [31m  d");
        check("other alphabets", "größer, 你好, 🦀", "größer, 你好, 🦀");
        check("what ends a line in JavaScript", "a\u{2028}b", "a b");
        check("nothing", "", "");
        check("as long as allowed", &"é".repeat(200), &"é".repeat(200));
        check("longer", &"é".repeat(201), &"é".repeat(200));
    }

    #[test]
    fn every_refusal_can_be_sent() {
        for error in [
            Error::Tls,
            Error::HeadTooLarge,
            Error::RequestLineTooLong,
            Error::Connect,
            Error::Loop,
        ] {
            let (head, body) = sent(
                &error.reply(),
                ReplyOptions {
                    connection: ConnectionField::Close,
                    ..STAYS
                },
            );
            assert!(
                head.starts_with(&format!("HTTP/1.1 {} ", error.reply().status)),
                "{head}"
            );
            assert!(
                head.contains(&format!("\r\nx-ic-error: {}\r\n", error.reply().code)),
                "{head}"
            );
            assert!(head.contains("\r\nx-should-retry: false\r\n"), "{head}");
            assert!(
                body.contains(&format!("\"code\":\"{}\"", error.reply().code)),
                "{body}"
            );
        }
    }

    #[test]
    fn the_type_of_an_error_is_one_that_clients_know() {
        for (status, expected) in [
            (400, "invalid_request_error"),
            (403, "permission_error"),
            (408, "timeout_error"),
            (414, "request_too_large"),
            (421, "invalid_request_error"),
            (431, "request_too_large"),
            (501, "invalid_request_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
            (505, "invalid_request_error"),
            (508, "api_error"),
        ] {
            assert_eq!(reply(status, "").kind(), expected, "{status}");
        }
    }

    #[test]
    fn every_status_that_is_sent_has_its_reason() {
        for status in [
            200, 400, 403, 404, 408, 414, 421, 431, 501, 502, 503, 504, 505, 508,
        ] {
            assert_ne!(reason(status), "", "{status}");
        }
    }
}
