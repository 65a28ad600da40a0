//! Why there is no connection to the target, and the reply to a request that needed one.
//!
//! Each table has one row for each error: status, code, whether a retry can help, message; that of TLS is in `tls::diagnosis`.
//! In a message `{target}` is the target as the user wrote it, `{why}` the detail that the error holds. The parts are shortened
//! so that no message exceeds [`MESSAGE_CHARS_MAX`](crate::http::reply::MESSAGE_CHARS_MAX).

use std::io;

use crate::http::reply::{Reply, Retry::Never, Retry::Soon};
use crate::text::io_message;

/// Why there is no connection to the target.
#[derive(Debug)]
pub enum ConnectError {
    /// The host name does not resolve.
    Unresolved(io::Error),
    /// The target refuses connections, or its Unix socket does not exist.
    Refused,
    /// The time limit passed before the connection was made.
    Timeout,
    /// The time limit passed during the TLS handshake.
    HandshakeTimeout,
    /// This process or the machine has no file descriptor left.
    NoDescriptors,
    /// Any other error of the system.
    Failed(io::Error),
    /// The TLS handshake failed.
    Tls(TlsError),
    /// The proxy on the way did not make the connection.
    Proxy(Box<ProxyError>),
}

impl ConnectError {
    /// The reply to a request that needed this connection.
    pub fn reply(&self, target: &str) -> Reply<'static> {
        let why = match self {
            ConnectError::Tls(error) => return error.reply(target),
            ConnectError::Proxy(error) => return error.reply(target),
            ConnectError::Unresolved(error) | ConnectError::Failed(error) => io_message(error),
            _ => String::new(),
        };
        self.row()
            .with("{target}", &shortened_address(target))
            .with("{why}", &why)
    }

    #[rustfmt::skip] // A table.
    const fn row(&self) -> Reply<'static> {
        match self {
            ConnectError::Unresolved(_) => Reply::new(502, "target_unresolved", Soon, "the host name of the target {target} does not resolve ({why}); check TARGET_LLM_URL"),
            ConnectError::Refused => Reply::new(502, "target_refused", Soon, "the target {target} refuses connections; start it, or set TARGET_LLM_URL"),
            ConnectError::Timeout => Reply::new(504, "connect_timeout", Soon, "the target {target} did not accept a connection within --connect-timeout; check TARGET_LLM_URL"),
            ConnectError::HandshakeTimeout => Reply::new(504, "connect_timeout", Soon, "the target {target} did not finish the TLS handshake within --connect-timeout; see its log"),
            ConnectError::NoDescriptors => Reply::new(503, "no_descriptors", Soon, "ic has no file descriptor left for a connection; raise `ulimit -n`, or lower --max-connections"),
            // Of the last two, the reply is their own.
            ConnectError::Failed(_) | ConnectError::Tls(_) | ConnectError::Proxy(_) => Reply::new(502, "target_unreachable", Soon, "the target {target} cannot be reached ({why}); check TARGET_LLM_URL"),
        }
    }
}

/// Why a proxy did not connect to the target.
#[derive(Debug)]
pub struct ProxyError {
    /// The proxy's address, without user name and password.
    pub proxy: String,
    /// The environment variable that names it.
    pub variable: &'static str,
    /// What failed.
    pub cause: ProxyFailure,
}

/// What failed at a proxy.
#[derive(Debug)]
pub enum ProxyFailure {
    /// There is no connection to it.
    Connect(ConnectError),
    /// It did not answer CONNECT within the time limit.
    ReplyTimeout,
    /// It requires a user name and password, and there are none.
    PasswordRequired,
    /// It refuses the user name and password of the variable, or the `Proxy-Authorization` that the user set instead.
    PasswordRefused,
    /// It answered CONNECT with this status.
    Status(u16),
    /// Its answer is not a proxy's.
    Protocol(io::Error),
}

impl ProxyError {
    /// The reply to a request that needed this proxy.
    pub fn reply(&self, target: &str) -> Reply<'static> {
        let why = match &self.cause {
            ProxyFailure::Connect(
                ConnectError::Unresolved(error) | ConnectError::Failed(error),
            )
            | ProxyFailure::Protocol(error) => io_message(error),
            ProxyFailure::Status(status) => status.to_string(),
            _ => String::new(),
        };
        self.row()
            .with("{proxy}", &shortened_address(&self.proxy))
            .with("{variable}", self.variable)
            .with("{target}", &shortened_address(target))
            .with("{why}", &why)
    }

    #[rustfmt::skip] // A table.
    const fn row(&self) -> Reply<'static> {
        match &self.cause {
            ProxyFailure::Connect(ConnectError::Unresolved(_)) => Reply::new(502, "proxy_unresolved", Soon, "the host name of the proxy {proxy} does not resolve ({why}); correct {variable}"),
            ProxyFailure::Connect(ConnectError::Refused) => Reply::new(502, "proxy_refused", Soon, "the proxy {proxy} refuses connections; start it, or correct {variable}"),
            ProxyFailure::Connect(ConnectError::Timeout) => Reply::new(504, "proxy_timeout", Soon, "the proxy {proxy} did not accept a connection within --connect-timeout; correct {variable}"),
            ProxyFailure::Connect(_) => Reply::new(502, "proxy_unreachable", Soon, "the proxy {proxy} cannot be reached ({why}); correct {variable}"),
            ProxyFailure::ReplyTimeout => Reply::new(504, "proxy_timeout", Soon, "the proxy {proxy} did not answer CONNECT within --connect-timeout; see its log, or correct {variable}"),
            ProxyFailure::PasswordRequired => Reply::new(502, "proxy_password", Never, "the proxy {proxy} requires a user name and password; set {variable} to http://user:password@host:port"),
            ProxyFailure::PasswordRefused => Reply::new(502, "proxy_password", Never, "the proxy {proxy} does not accept the user name and password in {variable} or in --header; correct them"),
            ProxyFailure::Status(500..) => Reply::new(502, "proxy_failed", Soon, STATUS),
            ProxyFailure::Status(_) => Reply::new(502, "proxy_failed", Never, STATUS),
            ProxyFailure::Protocol(_) => Reply::new(502, "proxy_failed", Soon, "the proxy {proxy} does not answer as one ({why}); correct {variable}"),
        }
    }
}

const STATUS: &str = "the proxy {proxy} does not connect to {target}: status {why}; see its log, or add the host to NO_PROXY";

/// Why the TLS handshake with the target failed: a row of the table in `tls::diagnosis`. A retry does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// The error's code.
    pub code: &'static str,
    /// The message; `{target}` and `{why}` are replaced.
    pub message: &'static str,
    /// The detail, of any length; empty if the message has no place for it.
    pub why: String,
}

impl TlsError {
    /// The reply to a request that needed this connection.
    pub fn reply(&self, target: &str) -> Reply<'static> {
        Reply::new(502, self.code, Never, self.message)
            .with("{target}", &shortened_address(target))
            .with("{why}", &shortened(&self.why, WHY_CHARS_MAX))
    }
}

/// The address of a target or proxy, shortened to leave room in a message for the rest of it.
pub fn shortened_address(address: &str) -> String {
    shortened(address, ADDRESS_CHARS_MAX)
}

fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The longest message has 150 characters beside an address, the system's text for a name that does not resolve included.
const ADDRESS_CHARS_MAX: usize = 48;

/// Room for a detail of TLS beside an address and the longest message with one.
const WHY_CHARS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reply::MESSAGE_CHARS_MAX;

    /// As long as an address in a message can be.
    fn long_target() -> String {
        "é".repeat(ADDRESS_CHARS_MAX + 1)
    }

    #[test]
    fn a_proxy_error_fits_into_a_message_and_names_the_variable() {
        let unresolved = io::Error::other(
            "failed to lookup address information: Temporary failure in name resolution",
        );
        let reset = || io::Error::from_raw_os_error(104);
        for cause in [
            ProxyFailure::Connect(ConnectError::Unresolved(unresolved)),
            ProxyFailure::Connect(ConnectError::Refused),
            ProxyFailure::Connect(ConnectError::Failed(reset())),
            ProxyFailure::Connect(ConnectError::Timeout),
            ProxyFailure::ReplyTimeout,
            ProxyFailure::PasswordRequired,
            ProxyFailure::PasswordRefused,
            ProxyFailure::Status(503),
            ProxyFailure::Protocol(reset()),
        ] {
            let error = ProxyError {
                proxy: format!("http://{}:65535", "x".repeat(200)),
                variable: "HTTPS_PROXY",
                cause,
            };
            let message = error.reply(&long_target()).message;
            check_message(&message);
            assert!(message.contains("PROXY"), "the way out: {message}");
        }
    }

    #[track_caller]
    fn check_message(message: &str) {
        assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
        assert!(!message.contains(['{', '}']), "{message}");
    }
}
