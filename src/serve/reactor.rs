//! Readiness: which sockets can be read or written now, and which task waits for that.
//!
//! Decided here: when the thread sleeps, and which tasks it wakes. Not decided here: what is read and written, and how long
//! anything may take ([`deadline`](super::deadline) sets one timer for all limits).
//!
//! A [`Source`] is a registered socket. It remembers what each read and write found: that the call would have blocked, or that
//! a read has emptied the socket. A socket that is known to be empty is not read again before the kernel reports something, so
//! that a request costs no call without a result.
//!
//! Two implementations, one interface: `epoll` on Linux, and `portable` on `async-io` elsewhere. `--cfg ic_portable` compiles
//! the second on Linux. Sockets, timers, name look-ups and the clocks of limits are used through this interface only, so that unit
//! tests can run on a third, a simulated network (`serve::simulation`).

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{Shutdown, getpeername, getsockname, shutdown, sockopt};

#[cfg(all(target_os = "linux", not(ic_portable)))]
#[path = "reactor/epoll.rs"]
mod kernel;
#[cfg(not(all(target_os = "linux", not(ic_portable))))]
#[path = "reactor/portable.rs"]
mod kernel;
pub use kernel::NEEDS;
#[cfg(not(test))]
pub use kernel::{Source, Timer, accept, block_on, connect_tcp, connect_unix, next_turn, now};

#[cfg(test)]
mod switch;
#[cfg(test)]
pub use switch::{
    Source, Timer, accept, block_on, connect_tcp, connect_unix, next_turn, now, resolve, wall_clock,
};

impl Read for &kernel::Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = retry_on_intr(|| rustix::io::read(self.get_ref(), &mut *into));
        match result {
            Ok(count) if count < into.len() => self.read_emptied(),
            Err(Errno::AGAIN) => self.read_blocked(),
            _ => {}
        }
        Ok(result?)
    }
}

impl Write for &kernel::Source {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note_write(
            self,
            retry_on_intr(|| rustix::io::write(self.get_ref(), bytes)),
        )
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        note_write(
            self,
            retry_on_intr(|| rustix::io::writev(self.get_ref(), pieces)),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn note_write(source: &kernel::Source, result: Result<usize, Errno>) -> io::Result<usize> {
    if result == Err(Errno::AGAIN) {
        source.write_blocked();
    }
    Ok(result?)
}

impl kernel::Source {
    /// The socket itself. A simulated one has none.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.get_ref().as_fd())
    }

    /// The address of this side, if it is one of TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        getsockname(self.get_ref()).ok()?.try_into().ok()
    }

    /// The address of the peer, if it is one of TCP.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        getpeername(self.get_ref()).ok()??.try_into().ok()
    }

    /// Whether the connection has been reset: the socket has no peer any more.
    pub fn is_reset(&self) -> bool {
        getpeername(self.get_ref()).is_err_and(|error| error == Errno::NOTCONN)
    }

    /// Ends the direction that is written.
    pub fn end_writing(&self) -> io::Result<()> {
        Ok(shutdown(self.get_ref(), Shutdown::Write)?)
    }

    /// Lets closing reset the connection. Unix sockets have no resets.
    pub fn reset_when_closed(&self) {
        let _ = sockopt::set_socket_linger(self.get_ref(), Some(Duration::ZERO));
    }
}

/// The addresses of a host.
#[cfg(not(test))]
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    async_net::resolve((host, port)).await
}

/// The time of day.
#[cfg(not(test))]
pub fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
