//! New sockets for listening and for connecting without waiting.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType};

/// A blocking stream socket that child processes do not inherit. The flag takes a call of its own: not every system has
/// SOCK_CLOEXEC.
pub fn new_stream(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// Connections that wait to be accepted; the system may allow fewer.
pub const BACKLOG: i32 = 1024;
