//! What systems do differently with sockets: facts that only the system knows, and an option that not every one has.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Whether the other end of a Unix socket was connected by a process of the same user. True where the system does not say.
pub fn is_same_user(stream: impl AsFd) -> bool {
    system::user(stream).is_none_or(|user| user == rustix::process::geteuid())
}

/// Whether a socket listens, as far as the system tells.
pub fn listens(socket: impl AsFd) -> io::Result<bool> {
    system::listens(socket)
}

/// Fails the connections of a TCP socket when the peer has acknowledged nothing, or taken nothing, for `limit`. Without effect
/// where the system has no such option: there, its own limit on retransmissions holds.
pub fn limit_unacknowledged(socket: impl AsFd, limit: Duration) {
    system::limit_unacknowledged(socket, limit);
}

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod system {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::net::sockopt;
    use rustix::process::Uid;

    pub fn user(stream: impl AsFd) -> Option<Uid> {
        // Also of a peer that has disconnected.
        let credentials = sockopt::socket_peercred(stream).ok()?;
        Some(credentials.uid)
    }

    pub fn listens(socket: impl AsFd) -> io::Result<bool> {
        Ok(sockopt::socket_acceptconn(socket)?)
    }

    pub fn limit_unacknowledged(socket: impl AsFd, limit: Duration) {
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        // A sandbox may refuse options.
        let _ = sockopt::set_tcp_user_timeout(socket, millis);
    }
}

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
mod system {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::process::Uid;

    pub fn user(_stream: impl AsFd) -> Option<Uid> {
        None
    }

    pub fn listens(socket: impl AsFd) -> io::Result<bool> {
        // macOS has no SO_ACCEPTCONN: a socket that is not connected is taken for one that listens.
        Ok(rustix::net::getpeername(socket).is_err())
    }

    pub fn limit_unacknowledged(_socket: impl AsFd, _limit: Duration) {}
}
