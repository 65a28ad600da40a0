//! What can go wrong in an exchange, and what the client is told.
//!
//! Whose mistake it was is part of the type, so that an origin's never becomes a 400.

use std::io;

use super::upstream::error::ConnectError;
use super::upstream::tls;
use crate::http::Error;
use crate::http::reply::{Reply, Retry};

/// Why an exchange did not end well.
#[derive(Debug)]
pub enum Fault {
    /// The client's doing.
    Client(ClientFault),
    /// The origin's doing.
    Origin(OriginFault),
}

/// What a client did.
#[derive(Debug)]
pub enum ClientFault {
    /// It has gone: there is nobody to tell.
    Gone,
    /// It sent something that is not HTTP, or that is not served.
    Refused(Error),
    /// Its head took longer than `--head-timeout`.
    HeadTimeout,
    /// It was silent within its body for longer than `--body-timeout`.
    BodyTimeout,
    /// It took nothing of its answer for longer than that.
    Stalled,
    /// There are as many connections as `--max-connections` allows.
    TooMany,
}

/// What an origin did.
#[derive(Debug)]
pub enum OriginFault {
    /// There is no connection to it.
    Connect(ConnectError),
    /// It closed the connection without an answer.
    Closed,
    /// The connection failed before an answer.
    Failed(io::Error),
    /// Its answer is not HTTP, or contradicts itself.
    Malformed(Error),
    /// It changed to a protocol that nobody asked for.
    UnaskedUpgrade,
    /// It sent one interim response after the other.
    TooManyInterim,
    /// It closed or failed within the head of its answer.
    TruncatedHead,
    /// It closed or failed within its answer's body.
    Truncated,
    /// No answer came within `--first-byte-timeout`.
    FirstByteTimeout,
    /// It was silent within its answer for longer than `--body-timeout`.
    BodyTimeout,
    /// It took nothing of the request for longer than that.
    Stalled,
}

/// An answer in words of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    code: &'static str,
    message: String,
    retry: Retry,
}

impl Answer {
    /// The answer as it is written.
    pub fn reply(&self) -> Reply<'_> {
        Reply {
            status: self.status,
            code: self.code,
            message: &self.message,
            retry: self.retry,
        }
    }
}

impl Fault {
    /// The status of the [`answer`](Fault::answer).
    pub fn status(&self) -> Option<u16> {
        self.answer("").map(|answer| answer.status)
    }

    /// What the client is told, unless it has gone. `target` is the origin as the user wrote it.
    pub fn answer(&self, target: &str) -> Option<Answer> {
        let target = &brief(target);
        let answer = |status, code, retry, message: String| {
            Some(Answer {
                status,
                code,
                message,
                retry,
            })
        };
        match self {
            Fault::Client(fault) => match fault {
                // Whoever does not read is not told.
                ClientFault::Gone | ClientFault::Stalled => None,
                ClientFault::Refused(error) => {
                    let reply = Reply::refusal(*error);
                    answer(reply.status, reply.code, reply.retry, reply.message.to_owned())
                }
                ClientFault::HeadTimeout => answer(
                    408,
                    "head_timeout",
                    Retry::Soon,
                    "the request head took longer than --head-timeout allows; send it at once".to_owned(),
                ),
                ClientFault::BodyTimeout => answer(
                    408,
                    "body_timeout",
                    Retry::Soon,
                    "the request body paused longer than --body-timeout allows".to_owned(),
                ),
                ClientFault::TooMany => answer(
                    503,
                    "too_many_connections",
                    Retry::Soon,
                    "ic has as many connections as --max-connections allows; close some, or raise it".to_owned(),
                ),
            },
            Fault::Origin(fault) => match fault {
                OriginFault::Connect(error) => {
                    let (status, retry) = match error {
                        ConnectError::Timeout | ConnectError::HandshakeTimeout => {
                            (504, Retry::Soon)
                        }
                        ConnectError::NoDescriptors => (503, Retry::Soon),
                        ConnectError::Proxy(fault) if fault.is_timeout() => (504, Retry::Soon),
                        ConnectError::Tls(_) => (502, Retry::Never),
                        ConnectError::Proxy(fault) if !fault.may_pass() => (502, Retry::Never),
                        _ => (502, Retry::Soon),
                    };
                    answer(status, error.code(), retry, error.explain(target))
                }
                OriginFault::Closed => answer(
                    502,
                    "target_closed",
                    Retry::Soon,
                    format!("the target {target} closed the connection without an answer; see its log"),
                ),
                OriginFault::Failed(error) => match tls::wrong_in(error) {
                    Some(wrong) => answer(502, wrong.code(), Retry::Never, wrong.explain(target)),
                    None => answer(
                        502,
                        "target_failed",
                        Retry::Soon,
                        format!("the connection to the target {target} failed ({error}); see its log"),
                    ),
                },
                OriginFault::Malformed(error) => answer(
                    502,
                    "bad_response",
                    Retry::Never,
                    format!(
                        "the target {target} sent a response that is not HTTP/1.1: {}",
                        of_response(*error)
                    ),
                ),
                OriginFault::UnaskedUpgrade => answer(
                    502,
                    "bad_response",
                    Retry::Never,
                    format!("the target {target} changed protocols without being asked to"),
                ),
                OriginFault::TooManyInterim => answer(
                    502,
                    "bad_response",
                    Retry::Never,
                    format!("the target {target} sent too many interim responses"),
                ),
                OriginFault::TruncatedHead => answer(
                    502,
                    "bad_response",
                    Retry::Soon,
                    format!("the target {target} broke off within its response head; see its log"),
                ),
                // Logged only: the client has part of it.
                OriginFault::Truncated => answer(
                    502,
                    "bad_response",
                    Retry::Soon,
                    format!("the target {target} broke off within its response body; see its log"),
                ),
                OriginFault::FirstByteTimeout => answer(
                    504,
                    "first_byte_timeout",
                    Retry::Soon,
                    format!("the target {target} did not answer within --first-byte-timeout"),
                ),
                OriginFault::BodyTimeout => answer(
                    504,
                    "body_timeout",
                    Retry::Soon,
                    format!("the target {target} paused longer than --body-timeout allows"),
                ),
                OriginFault::Stalled => answer(
                    504,
                    "body_timeout",
                    Retry::Soon,
                    format!(
                        "the target {target} took nothing of the request for longer than --body-timeout allows"
                    ),
                ),
            },
        }
    }
}

/// What is wrong with a response, for whoever is not its sender.
fn of_response(error: Error) -> &'static str {
    match error {
        Error::Tls => "it speaks TLS; give its address as https://",
        Error::Version => "its version is neither HTTP/1.1 nor HTTP/1.0",
        Error::HeadTooLarge => "its head is over 64 KiB",
        Error::TooManyFields => "its head has over 128 fields",
        Error::TooManyOptions => "its Connection field names over 16 fields",
        Error::ChunkOverhead => "its chunk framing outweighs its data",
        other => other.explain(),
    }
}

/// An address that leaves room in a message for what to do about it.
pub fn brief(target: &str) -> String {
    match target.char_indices().nth(TARGET_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &target[..end]),
        None => target.to_owned(),
    }
}

/// The longest message has 150 characters beside it, with what the system says of a name that it cannot resolve, of the
/// 200 that a message may have.
const TARGET_CHARS_MAX: usize = 48;

impl From<ClientFault> for Fault {
    fn from(fault: ClientFault) -> Self {
        Fault::Client(fault)
    }
}

impl From<OriginFault> for Fault {
    fn from(fault: OriginFault) -> Self {
        Fault::Origin(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reply::MESSAGE_CHARS_MAX;

    #[test]
    fn a_message_says_what_to_do_however_long_the_target_is() {
        let unresolved = io::Error::other(
            "failed to lookup address information: Temporary failure in name resolution",
        );
        let reset = io::Error::from_raw_os_error(104);
        let faults = [
            OriginFault::Connect(ConnectError::Unresolved(unresolved)),
            OriginFault::Connect(ConnectError::Refused),
            OriginFault::Connect(ConnectError::Timeout),
            OriginFault::Connect(ConnectError::HandshakeTimeout),
            OriginFault::Closed,
            OriginFault::Failed(reset),
            OriginFault::Malformed(Error::FieldName),
            OriginFault::Malformed(Error::ChunkOverhead),
            OriginFault::TruncatedHead,
            OriginFault::Truncated,
            OriginFault::FirstByteTimeout,
            OriginFault::Stalled,
        ];
        let long = format!("http://localhost:8764/{}", "é/".repeat(200));
        for fault in faults.map(Fault::Origin) {
            let message = |target: &str| fault.answer(target).map(|answer| answer.message);
            let (short, long) = (message("http://localhost:8764"), message(&long));
            let (short, long) = (short.unwrap_or_default(), long.unwrap_or_default());
            assert!(long.chars().count() <= MESSAGE_CHARS_MAX, "{long}");
            let behind_target = short.split_once("8764").map_or("", |(_, rest)| rest);
            assert!(
                !behind_target.is_empty() && long.ends_with(behind_target),
                "{long}"
            );
        }
    }
}
