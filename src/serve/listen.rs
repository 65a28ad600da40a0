//! Listening sockets, and what to do when accepting fails.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::reactor::{self, Source, Timer};
use super::wire::{self, Stream};

/// Where to listen.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On these addresses. Those of families that the machine does not have are left out.
    On(Vec<SocketAddr>),
    /// On sockets that somebody else has opened.
    Inherited(Arc<[TcpListener]>),
}

/// Listens there. An error names the address that it is about.
pub fn open(listen: &Listen) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    match listen {
        Listen::On(addresses) => bind_all(addresses),
        Listen::Inherited(listeners) => {
            let tuned = |listener: &TcpListener| -> io::Result<TcpListener> {
                wire::tune(listener)?;
                listener.try_clone()
            };
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let listeners = listeners.iter().map(|listener| {
                tuned(listener).map_err(|error| (listener.local_addr().unwrap_or(nowhere), error))
            });
            listeners.collect()
        }
    }
}

/// Listens on all of `addresses` that this machine has: one family is enough where the other does not exist.
/// An error names the address that it is about.
pub fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    let mut missing = None;
    for &address in addresses {
        match bind_to(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_missing(&error) => missing = Some((address, error)),
            Err(error) => return Err((address, error)),
        }
    }
    match missing {
        Some(missing) if listeners.is_empty() => Err(missing),
        _ => Ok(listeners),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Binds and listens. A port in TIME_WAIT is free; one on which somebody listens is not.
fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // The two families are bound one by one, so that one may be missing.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    wire::tune(&socket)?;
    Ok(TcpListener::from(socket))
}

/// The next client. Waits through passing failures; an error is the listener's own end.
pub async fn accept(listener: &Source<TcpListener>) -> io::Result<TcpStream> {
    next(listener, reactor::accept).await
}

/// As [`accept`], where the listener is a Unix domain socket; the connection is watched by this thread.
pub async fn accept_unix(listener: &Source<UnixListener>) -> io::Result<Stream> {
    next(listener, reactor::accept_unix).await.map(Stream::Unix)
}

async fn next<L: AsFd, S>(
    listener: &Source<L>,
    accept: fn(&Source<L>) -> io::Result<S>,
) -> io::Result<S> {
    loop {
        poll_fn(|context| listener.poll_readable(context)).await?;
        let error = match accept(listener) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listener.read_blocked();
                continue;
            }
            Err(error) => error,
        };
        match after(&error) {
            After::GoOn => {}
            After::Wait => {
                complain(&error);
                listener.set_heard(false)?;
                Timer::at(Instant::now() + PAUSE).await;
                listener.set_heard(true)?;
            }
            After::Stop => return Err(error),
        }
    }
}

/// Says it now and then only: as long as it lasts, each attempt fails.
fn complain(error: &io::Error) {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let is_news = LAST.get().is_none_or(|last| now - last >= COMPLAINTS_EVERY);
    if !is_news {
        return;
    }
    LAST.set(Some(now));
    let way_out = if lacks_descriptors(error) {
        "; `ulimit -n` raises the limit"
    } else {
        ""
    };
    log::warn!("cannot accept connections for now: {error}{way_out}");
}

/// Whether there is no socket because this process, or the machine, may have no more descriptors.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    Wait,
    Stop,
}

/// Whose failure it was: that one client's, the machine's for the moment, or the listener's (accept(2)).
fn after(error: &io::Error) -> After {
    match Errno::from_io_error(error) {
        Some(
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::OPNOTSUPP,
        ) => After::GoOn,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => {
            After::Wait
        }
        // One client's, if a firewall says it; a sandbox says it each time, at once.
        Some(Errno::PERM) => After::Wait,
        _ => After::Stop,
    }
}

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// What lasts is worth a line as often as that.
const COMPLAINTS_EVERY: Duration = Duration::from_secs(10);

/// Long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_accept_never_ends_the_listener_and_never_spins() {
        let rows = [
            (Errno::CONNABORTED, After::GoOn, "that client has gone"),
            (Errno::PROTO, After::GoOn, "that client failed"),
            (
                Errno::MFILE,
                After::Wait,
                "descriptors come back when connections close",
            ),
            (Errno::NFILE, After::Wait, "so do the system's"),
            (Errno::NOMEM, After::Wait, "so does memory"),
            (
                Errno::PERM,
                After::Wait,
                "a sandbox may refuse each of them",
            ),
            (Errno::BADF, After::Stop, "the listener is no more"),
            (Errno::INVAL, After::Stop, "it does not listen"),
        ];
        for (errno, expected, reason) in rows {
            assert_eq!(
                after(&io::Error::from(errno)),
                expected,
                "{errno:?}: {reason}"
            );
        }
    }
}
