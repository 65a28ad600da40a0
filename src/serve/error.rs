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
pub enum Fault {
    /// The client caused it.
    Client(ClientFault),
    /// The target caused it.
    Origin(OriginFault),
}

/// An error that the client caused.
#[derive(Debug)]
pub enum ClientFault {
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
pub enum OriginFault {
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

impl Fault {
    /// The status of the [`reply`](Fault::reply).
    pub fn status(&self) -> Option<u16> {
        self.reply("").map(|reply| reply.status)
    }

    /// The reply to the client; `None` if the client does not read. `target` is the target as the user wrote it.
    pub fn reply(&self, target: &str) -> Option<Reply<'static>> {
        match self {
            Fault::Client(fault) => fault.reply(),
            Fault::Origin(fault) => Some(fault.reply(target)),
        }
    }
}

impl ClientFault {
    #[rustfmt::skip] // A table.
    fn reply(&self) -> Option<Reply<'static>> {
        match self {
            // The client does not read, so that no reply can be delivered.
            ClientFault::Gone | ClientFault::Stalled => None,
            ClientFault::Refused(error) => Some(error.reply()),
            ClientFault::HeadTimeout => Some(Reply::new(408, "head_timeout", Soon, "the request head took longer than --head-timeout allows; send it at once")),
            ClientFault::BodyTimeout => Some(Reply::new(408, "body_timeout", Soon, "the request body paused longer than --body-timeout allows; raise --body-timeout")),
            ClientFault::TooMany => Some(Reply::new(503, "too_many_connections", Soon, "ic has as many connections as --max-connections allows; close some, or raise it")),
        }
    }
}

impl OriginFault {
    fn reply(&self, target: &str) -> Reply<'static> {
        let why = match self {
            OriginFault::Connect(error) => return error.reply(target),
            OriginFault::Failed(error) => match tls::diagnose(error) {
                Some(error) => return error.reply(target),
                None => io_message(error),
            },
            // The advice behind the semicolon is for the sender of the message, and that is not the client.
            OriginFault::Malformed(error) => {
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
            OriginFault::Closed => Reply::new(502, "target_closed", Soon, "the target {target} closed the connection without a response; see its log"),
            // A connection that could not be made has rows of its own.
            OriginFault::Failed(_) | OriginFault::Connect(_) => Reply::new(502, "target_failed", Soon, "the connection to the target {target} failed ({why}); see its log"),
            OriginFault::Malformed(Error::Tls) => Reply::new(502, "bad_response", Never, "the target {target} sent a response that is not HTTP/1.1: it speaks TLS; give its address as https://"),
            OriginFault::Malformed(_) => Reply::new(502, "bad_response", Never, "the target {target} sent a response that is not HTTP/1.1: {why}; see its log"),
            OriginFault::UnaskedUpgrade => Reply::new(502, "bad_response", Never, "the target {target} changed protocols without a request to do so; see its log"),
            OriginFault::TooManyInterim => Reply::new(502, "bad_response", Never, "the target {target} sent too many interim responses; see its log"),
            OriginFault::TruncatedHead => Reply::new(502, "bad_response", Soon, "the target {target} broke off within its response head; see its log"),
            // Only logged: the client has part of the response.
            OriginFault::Truncated => Reply::new(502, "bad_response", Soon, "the target {target} broke off within its response body; see its log"),
            OriginFault::FirstByteTimeout => Reply::new(504, "first_byte_timeout", Soon, "the target {target} did not answer within --first-byte-timeout; raise it, or see the target's log"),
            OriginFault::BodyTimeout => Reply::new(504, "body_timeout", Soon, "the target {target} paused longer than --body-timeout allows; raise it, or see the target's log"),
            OriginFault::Stalled => Reply::new(504, "body_timeout", Soon, "the target {target} read nothing of the request for longer than --body-timeout allows; see its log"),
        }
    }
}

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
