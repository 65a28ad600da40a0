//! A process, and a listening socket together with the process that holds it.

use std::fmt;
use std::net::SocketAddr;

/// A process that listens on a port or a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its process id, as seen from this process; of several that share a socket, the lowest: most often the parent.
    pub pid: u32,
    /// The name of its program. The program chooses it: it can be any text.
    pub program: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.program, self.pid)
    }
}

/// A socket that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// The process that holds it; `None` where this user may not see that.
    pub process: Option<Process>,
}

/// The program name of an interceptor.
pub const IC: &str = "ic";
