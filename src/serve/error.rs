//! What an exchange can fail with, and the reply to its client.
//!
//! Whose error it was is part of the type, so that a target's error never becomes a 400. The tables have one row for each
//! error: status, code, whether a retry can help, message.

use std::io;

use super::upstream::error::{ConnectError, shortened_address};
use super::upstream::tls;
use crate::http::Error;
use crate::http::reply::{Reply, Retry::Never, Retry::Soon};
use crate::text::io_message;

/// Why an exchange failed.
#[derive(Debug)]
pub enum ForwardError {
    /// The client caused it.
    Client(ClientError),
    /// The target caused it.
    Upstream(UpstreamError),
}

/// An error that the client caused.
#[derive(Debug)]
pub enum ClientError {
    /// It has disconnected.
    Gone,
    /// Its request is not HTTP, or is not served.
    Refused(Error),
    /// Its request head took longer than `--head-timeout`.
    HeadTimeout,
    /// It paused within the request body for longer than `--body-timeout`.
    BodyTimeout,
    /// It read nothing of the response for longer than `--body-timeout`.
    Stalled,
    /// There are as many connections as `--max-connections` allows.
    TooMany,
}

/// An error that the target caused.
#[derive(Debug)]
pub enum UpstreamError {
    /// There is no connection to it.
    Connect(ConnectError),
    /// It closed the connection without a response.
    Closed,
    /// The connection failed before a response.
    Failed(io::Error),
    /// Its response is not HTTP, or contradicts itself.
    Malformed(Error),
    /// It changed protocols without a request to do so.
    UnaskedUpgrade,
    /// It sent more interim responses than are accepted.
    TooManyInterim,
    /// The connection ended within the response head.
    TruncatedHead,
    /// The connection ended within the response body.
    Truncated,
    /// It sent no response within `--first-byte-timeout`.
    FirstByteTimeout,
    /// It paused within the response body for longer than `--body-timeout`.
    BodyTimeout,
    /// It read nothing of the request for longer than `--body-timeout`.
    Stalled,
}

impl ForwardError {
    /// The status of the [`reply`](ForwardError::reply).
    pub fn status(&self) -> Option<u16> {
        self.reply("").map(|reply| reply.status)
    }

    /// The reply to the client; `None` if the client does not read. `target` is the target as the user wrote it.
    pub fn reply(&self, target: &str) -> Option<Reply<'static>> {
        match self {
            ForwardError::Client(fault) => fault.reply(),
            ForwardError::Upstream(fault) => Some(fault.reply(target)),
        }
    }
}

impl ClientError {
    #[rustfmt::skip] // A table.
    fn reply(&self) -> Option<Reply<'static>> {
        match self {
            // The client does not read, so that no reply can be delivered.
            ClientError::Gone | ClientError::Stalled => None,
            ClientError::Refused(error) => Some(error.reply()),
            ClientError::HeadTimeout => Some(Reply::new(408, "head_timeout", Soon, "the request head took longer than --head-timeout allows; send it at once")),
            ClientError::BodyTimeout => Some(Reply::new(408, "body_timeout", Soon, "the request body paused longer than --body-timeout allows; raise --body-timeout")),
            ClientError::TooMany => Some(Reply::new(503, "too_many_connections", Soon, "ic has as many connections as --max-connections allows; close some, or raise it")),
        }
    }
}

impl UpstreamError {
    fn reply(&self, target: &str) -> Reply<'static> {
        let why = match self {
            UpstreamError::Connect(error) => return error.reply(target),
            UpstreamError::Failed(error) => match tls::diagnose(error) {
                Some(error) => return error.reply(target),
                None => io_message(error),
            },
            // The advice behind the semicolon is for the sender of the message, and that is not the client.
            UpstreamError::Malformed(error) => {
                let message = error.to_string();
                message.split(';').next().unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        self.row()
            .with("{target}", &shortened_address(target))
            .with("{why}", &why)
    }

    #[rustfmt::skip] // A table.
    const fn row(&self) -> Reply<'static> {
        match self {
            UpstreamError::Closed => Reply::new(502, "target_closed", Soon, "the target {target} closed the connection without a response; see its log"),
            // A connection that could not be made has rows of its own.
            UpstreamError::Failed(_) | UpstreamError::Connect(_) => Reply::new(502, "target_failed", Soon, "the connection to the target {target} failed ({why}); see its log"),
            UpstreamError::Malformed(Error::Tls) => Reply::new(502, "bad_response", Never, "the target {target} sent a response that is not HTTP/1.1: it speaks TLS; give its address as https://"),
            UpstreamError::Malformed(_) => Reply::new(502, "bad_response", Never, "the target {target} sent a response that is not HTTP/1.1: {why}; see its log"),
            UpstreamError::UnaskedUpgrade => Reply::new(502, "bad_response", Never, "the target {target} changed protocols without a request to do so; see its log"),
            UpstreamError::TooManyInterim => Reply::new(502, "bad_response", Never, "the target {target} sent too many interim responses; see its log"),
            UpstreamError::TruncatedHead => Reply::new(502, "bad_response", Soon, "the target {target} broke off within its response head; see its log"),
            // Only logged: the client has part of the response.
            UpstreamError::Truncated => Reply::new(502, "bad_response", Soon, "the target {target} broke off within its response body; see its log"),
            UpstreamError::FirstByteTimeout => Reply::new(504, "first_byte_timeout", Soon, "the target {target} did not answer within --first-byte-timeout; raise it, or see the target's log"),
            UpstreamError::BodyTimeout => Reply::new(504, "body_timeout", Soon, "the target {target} paused longer than --body-timeout allows; raise it, or see the target's log"),
            UpstreamError::Stalled => Reply::new(504, "body_timeout", Soon, "the target {target} read nothing of the request for longer than --body-timeout allows; see its log"),
        }
    }
}

impl From<ClientError> for ForwardError {
    fn from(fault: ClientError) -> Self {
        ForwardError::Client(fault)
    }
}

impl From<UpstreamError> for ForwardError {
    fn from(fault: UpstreamError) -> Self {
        ForwardError::Upstream(fault)
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
            UpstreamError::Connect(ConnectError::Unresolved(unresolved)),
            UpstreamError::Connect(ConnectError::Refused),
            UpstreamError::Connect(ConnectError::Timeout),
            UpstreamError::Connect(ConnectError::HandshakeTimeout),
            UpstreamError::Closed,
            UpstreamError::Failed(reset),
            UpstreamError::Malformed(Error::FieldName),
            UpstreamError::Malformed(Error::ChunkOverhead),
            UpstreamError::TruncatedHead,
            UpstreamError::Truncated,
            UpstreamError::FirstByteTimeout,
            UpstreamError::Stalled,
        ];
        let long = format!("http://localhost:8764/{}", "é/".repeat(200));
        for fault in faults.map(ForwardError::Upstream) {
            let message = |target: &str| fault.reply(target).map(|reply| reply.message);
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
