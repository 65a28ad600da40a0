//! Readiness: which sockets can be read or written now, and which task waits for that.
//!
//! Decided here: when the thread sleeps, and which tasks it wakes. Not decided here: what is read and written, and how long
//! anything may take ([`deadline`](super::deadline) sets one timer for all limits).
//!
//! A [`Source`] is a registered socket. Its owner reads and writes it with ordinary non-blocking calls, and reports what these
//! found: that a call would have blocked, or that a read has emptied the socket. A socket that is known to be empty is not read
//! again before the kernel reports something, so that a request costs no call without a result.
//!
//! Two implementations, one interface: `epoll` on Linux, and `portable` on `async-io` elsewhere. `--cfg ic_portable` compiles
//! the second on Linux.

use std::io;

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod epoll;
#[cfg(all(target_os = "linux", not(ic_portable)))]
pub use epoll::{
    NEEDS, Source, Timer, accept, block_on, connect_tcp, connect_unix, next_turn, now,
    register_accepted,
};

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
mod portable;
#[cfg(not(all(target_os = "linux", not(ic_portable))))]
pub use portable::{
    NEEDS, Source, Timer, accept, block_on, connect_tcp, connect_unix, next_turn, now,
    register_accepted,
};

/// Repeats `call` while a signal interrupts it.
pub fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
