//! Readiness: which sockets can be read or written now, and who waits for it.
//!
//! Decided here: when the thread sleeps, and whom it wakes. Not decided here: what is read and written, or how long
//! anything may take ([`deadline`](super::deadline) sets one timer for all limits).
//!
//! A [`Source`] is a socket that is watched. Its owner reads and writes it with ordinary non-blocking calls, and
//! tells what it learns by them: that a call would have blocked, or that a read has emptied the socket. What is known to
//! be empty is not read again before the kernel says that something came, so that a request costs no call that
//! brings nothing.
//!
//! Two systems, one interface: `epoll` on Linux, with nothing armed twice and nobody else woken, and `portable`
//! on `async-io` wherever that runs. `--cfg ic_portable` compiles the second on Linux.

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod epoll;
#[cfg(all(target_os = "linux", not(ic_portable)))]
pub use epoll::{
    NEEDS, Source, Timer, accept, accepted, block_on, connect_tcp, connect_unix, next_turn, now,
};

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
mod portable;
#[cfg(not(all(target_os = "linux", not(ic_portable))))]
pub use portable::{
    NEEDS, Source, Timer, accept, accepted, block_on, connect_tcp, connect_unix, next_turn, now,
};
