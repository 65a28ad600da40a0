//! What an interceptor tells its caller: events, and why it cannot start or go on.

use std::fmt;
use std::io;
use std::time::Duration;

use super::listen::Address;
use super::reactor;
use super::target::Target;

/// What happens to an interceptor, for its caller.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// It listens on these addresses.
    Listening(&'a [Address]),
    /// It stops when the requests in flight are finished.
    Stopping(Stop),
}

/// Why an interceptor stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A signal arrived.
    Signal,
    /// No client was connected for this time.
    Idle(Duration),
}

/// What happens in a process that serves many ports, for its caller.
#[derive(Debug, Clone, Copy)]
pub enum AllEvent<'a> {
    /// The port is served on these addresses, for the first time or after it could not be.
    Serving {
        /// The port.
        port: u16,
        /// Where clients connect to.
        addresses: &'a [Address],
    },
    /// The port cannot be served for now; it is tried again.
    Held {
        /// The port.
        port: u16,
        /// Why.
        error: &'a io::Error,
    },
    /// No descriptors are left for the port; it is tried again.
    NoDescriptors {
        /// The port.
        port: u16,
    },
    /// Another process has asked for the port. It is served again when that has ended.
    GivenUp {
        /// The port.
        port: u16,
    },
    /// All changes of a batch have been made.
    Applied,
    /// The port had requests. Reported at most once an hour for each port, and when the port closes.
    Used {
        /// The port.
        port: u16,
    },
    /// The process stops when the requests in flight are finished.
    Stopping,
}

/// Why an interceptor could not start or go on.
#[derive(Debug)]
pub enum ServeError {
    /// It cannot listen on this address.
    Bind(Address, io::Error),
    /// The target is the interceptor itself.
    TargetIsSelf(Target),
    /// Signals cannot be received.
    Signals(io::Error),
    /// A listening socket failed.
    Accept(io::Error),
    /// The system refuses what the event loop needs.
    Reactor(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            ServeError::TargetIsSelf(target) => {
                write!(
                    f,
                    "the target {target} is this interceptor itself; set TARGET_LLM_URL to the LLM proxy"
                )
            }
            ServeError::Signals(error) => {
                write!(
                    f,
                    "cannot receive signals: {error}; socketpair(2) and sigaction(2) are needed"
                )
            }
            ServeError::Accept(error) => write!(f, "cannot accept connections any more: {error}"),
            ServeError::Reactor(error) => {
                write!(
                    f,
                    "cannot wait for connections: {error}; {} are needed",
                    reactor::NEEDS
                )
            }
        }
    }
}

impl std::error::Error for ServeError {}
