//! Listening sockets, and what to do when accepting fails.

mod socket;

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketType, bind, listen, sockopt};

use self::socket::Name;
pub use self::socket::{check_length, connect_at_once};
use super::conn::{self, Client, Stream};
use super::reactor::{self, Source, Timer};

/// Where to listen.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On these addresses. Those of families that the machine does not have are left out.
    On(Vec<SocketAddr>),
    /// On a Unix domain socket of this path, to which this mode of its file lets others connect.
    At(PathBuf, u32),
    /// On sockets that somebody else has opened.
    Inherited(Arc<[Listener]>),
}

/// Where clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// A Unix domain socket; its path is empty if it has none.
    Unix(PathBuf),
}

impl Address {
    /// The port, where there is one.
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|address| address.port())
    }

    /// The address, where it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// For TCP.
    Tcp(TcpListener),
    /// A Unix domain socket.
    Unix {
        /// The name that is to be removed at the end. First, so that the number of its file is not given out again before that.
        name: Option<Name>,
        /// The socket.
        socket: UnixListener,
    },
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Listener::Tcp(socket) => Address::Tcp(socket.local_addr()?),
            Listener::Unix { socket, .. } => {
                let path = socket.local_addr()?.as_pathname().map(PathBuf::from);
                Address::Unix(path.unwrap_or_default())
            }
        })
    }

    /// The same socket, for a run of its own.
    fn again(&self) -> io::Result<Listener> {
        Ok(match self {
            Listener::Tcp(socket) => {
                conn::tune(socket);
                Listener::Tcp(socket.try_clone()?)
            }
            Listener::Unix { socket, .. } => Listener::Unix {
                name: None,
                socket: socket.try_clone()?,
            },
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(socket) => socket.as_fd(),
            Listener::Unix { socket, .. } => socket.as_fd(),
        }
    }
}

/// Listens there. An error names the address that it is about.
pub fn open(listen: &Listen) -> Result<Vec<Listener>, (Address, io::Error)> {
    match listen {
        Listen::On(addresses) => match bind_all(addresses) {
            Ok(listeners) => Ok(listeners.into_iter().map(Listener::Tcp).collect()),
            Err((address, error)) => Err((Address::Tcp(address), error)),
        },
        Listen::At(path, mode) => match socket::bind_at(path, *mode) {
            Ok((name, socket)) => Ok(vec![Listener::Unix {
                name: Some(name),
                socket,
            }]),
            Err(error) => Err((Address::Unix(path.clone()), error)),
        },
        Listen::Inherited(listeners) => {
            let nowhere = || Address::Unix(PathBuf::new());
            let listeners = listeners.iter().map(|listener| {
                let address = || listener.address().unwrap_or_else(|_| nowhere());
                listener.again().map_err(|error| (address(), error))
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
    let socket = unwatched(family)?;
    // Where one was needed and refused, `bind` fails.
    conn::go_without_options([sockopt::set_socket_reuseaddr(&socket, true)]);
    if address.is_ipv6() {
        // The two families are bound one by one, so that one may be missing.
        conn::go_without_options([sockopt::set_ipv6_v6only(&socket, true)]);
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    conn::tune(&socket);
    Ok(TcpListener::from(socket))
}

/// A socket that blocks. That no child gets it takes a call of its own: not every system knows it as a flag.
fn unwatched(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// The next client. Waits through passing failures; an error is the listener's own end.
pub async fn accept(listener: &Source<Listener>) -> io::Result<Client> {
    let client = next(listener).await?;
    Ok(match listener.get_ref() {
        Listener::Tcp(_) => Client::Tcp(client.into()),
        Listener::Unix { .. } => Client::Unix(client.into()),
    })
}

/// As [`accept`], where the listener is one for TCP.
pub async fn accept_tcp(listener: &Source<TcpListener>) -> io::Result<TcpStream> {
    next(listener).await.map(TcpStream::from)
}

/// As [`accept`], where the listener is a Unix domain socket; the connection is watched by this thread.
pub async fn accept_unix(listener: &Source<UnixListener>) -> io::Result<Stream> {
    let client = UnixStream::from(next(listener).await?);
    Stream::accepted(Client::Unix(client))
}

async fn next(listener: &Source<impl AsFd>) -> io::Result<OwnedFd> {
    loop {
        poll_fn(|context| listener.poll_readable(context)).await?;
        let error = match reactor::accept(listener) {
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
