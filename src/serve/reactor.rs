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
//! the second on Linux.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{Errno, retry_on_intr};

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod epoll;
#[cfg(all(target_os = "linux", not(ic_portable)))]
pub use epoll::{
    NEEDS, Source, Timer, accept, block_on, connect_tcp, connect_unix, next_turn, now,
};

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
mod portable;
#[cfg(not(all(target_os = "linux", not(ic_portable))))]
pub use portable::{
    NEEDS, Source, Timer, accept, block_on, connect_tcp, connect_unix, next_turn, now,
};

impl Read for &Source {
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

impl Write for &Source {
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

fn note_write(source: &Source, result: Result<usize, Errno>) -> io::Result<usize> {
    if result == Err(Errno::AGAIN) {
        source.write_blocked();
    }
    Ok(result?)
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}
