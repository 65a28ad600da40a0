//! Why there is no connection to the target, and what is said of it.

use std::io;

use super::proxy;
use super::tls::Wrong;

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The host has no address.
    Unresolved(io::Error),
    /// Nobody listens there.
    Refused,
    /// No answer within `--connect-timeout`.
    Timeout,
    /// There is a connection, and the handshake of TLS was not over within `--connect-timeout`.
    HandshakeTimeout,
    /// There is a connection, and TLS does not come about on it.
    Tls(Wrong),
    /// The proxy on the way does not lead to it.
    Proxy(Box<proxy::Fault>),
    /// This process, or the machine, may have no more descriptors: the target has no part in it.
    NoDescriptors,
    /// Anything else.
    Failed(io::Error),
}

impl ConnectError {
    /// The failure's name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::Unresolved(_) => "target_unresolved",
            ConnectError::Refused => "target_refused",
            ConnectError::Timeout | ConnectError::HandshakeTimeout => "connect_timeout",
            ConnectError::Tls(wrong) => wrong.code(),
            ConnectError::Proxy(fault) => fault.code(),
            ConnectError::NoDescriptors => "no_descriptors",
            ConnectError::Failed(_) => "target_unreachable",
        }
    }

    /// The failure in one line.
    pub fn explain(&self, target: &str) -> String {
        match self {
            ConnectError::Unresolved(error) => {
                format!(
                    "the target {target} has a host name without an address ({error}); check TARGET_LLM_URL"
                )
            }
            ConnectError::Refused => {
                format!("the target {target} refuses connections; start it, or set TARGET_LLM_URL")
            }
            ConnectError::Timeout => {
                format!("the target {target} did not accept a connection within --connect-timeout")
            }
            ConnectError::HandshakeTimeout => {
                format!(
                    "the target {target} did not finish the TLS handshake within --connect-timeout; see its log"
                )
            }
            ConnectError::Tls(wrong) => wrong.explain(target),
            ConnectError::Proxy(fault) => fault.explain(target),
            ConnectError::NoDescriptors => {
                "ic may open no more connections; raise `ulimit -n`, or lower --max-connections"
                    .to_owned()
            }
            ConnectError::Failed(error) => {
                format!("the target {target} cannot be reached ({error})")
            }
        }
    }
}
