//! Facts about a socket that only the system knows.

use std::io;
use std::os::fd::AsFd;

/// Whether the other end of a Unix socket was connected by a process of the same user. True where the system does not say.
pub fn is_same_user(stream: impl AsFd) -> bool {
    system::user(stream).is_none_or(|user| user == rustix::process::geteuid())
}

/// Whether a socket listens, as far as the system tells.
pub fn listens(socket: impl AsFd) -> io::Result<bool> {
    system::listens(socket)
}

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod system {
    use std::io;
    use std::os::fd::AsFd;

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
}

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
mod system {
    use std::io;
    use std::os::fd::AsFd;

    use rustix::process::Uid;

    pub fn user(_stream: impl AsFd) -> Option<Uid> {
        None
    }

    pub fn listens(socket: impl AsFd) -> io::Result<bool> {
        // macOS has no SO_ACCEPTCONN: a socket that is not connected is taken for one that listens.
        Ok(rustix::net::getpeername(socket).is_err())
    }
}
