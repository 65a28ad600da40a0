//! Listening sockets, and what to do when accepting fails.

mod socket;
mod unix;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, bind, listen, sockopt};

use self::socket::{BACKLOG, new_stream};
pub(super) use self::unix::{SocketFile, bind_at, lock_folder, remove_left_over};
pub use self::unix::{check_length, connect_at_once};
use super::conn::{self, Stream};
use super::reactor::{self, Source, Timer};
use super::warning;

/// Where to listen.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On the addresses of each of these hosts. Those of an address family that the machine does not have are left out.
    On(Vec<Vec<SocketAddr>>),
    /// On a Unix domain socket at this path; the mode of its file decides who may connect.
    At(PathBuf, u32),
    /// On sockets that another process has opened (socket activation).
    Inherited(Arc<[Listener]>),
}

impl Listen {
    /// The port, if it is on TCP and does not come from another process.
    pub fn port(&self) -> Option<u16> {
        match self {
            Listen::On(hosts) => Some(hosts.first()?.first()?.port()),
            Listen::At(..) | Listen::Inherited(_) => None,
        }
    }

    /// The most sockets that it takes.
    pub fn sockets(&self) -> usize {
        match self {
            Listen::On(hosts) => hosts.iter().map(Vec::len).sum(),
            Listen::At(..) => 1,
            Listen::Inherited(listeners) => listeners.len(),
        }
    }
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
    /// The port, if there is one.
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|address| address.port())
    }

    /// The address, if it is one of TCP.
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
        /// The file to remove at the end. Dropped before the socket, so that its inode number is not reused before that.
        file: Option<SocketFile>,
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

    /// Another descriptor of the same socket.
    fn duplicate(&self) -> io::Result<Listener> {
        Ok(match self {
            Listener::Tcp(socket) => {
                conn::tune(socket, socket.local_addr()?);
                Listener::Tcp(socket.try_clone()?)
            }
            Listener::Unix { socket, .. } => Listener::Unix {
                file: None,
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

/// Opens the sockets of `listen`. An error comes with the address that it is about.
pub fn open(listen: &Listen) -> Result<Vec<Listener>, (Address, io::Error)> {
    match listen {
        Listen::On(hosts) => {
            let listeners = hosts.iter().map(|addresses| bind_all(addresses));
            let listeners: Result<Vec<_>, _> = listeners.collect();
            match listeners {
                Ok(listeners) => Ok(listeners.into_iter().flatten().map(Listener::Tcp).collect()),
                Err((address, error)) => Err((Address::Tcp(address), error)),
            }
        }
        Listen::At(path, mode) => match unix::bind_at(path, *mode) {
            Ok((file, socket)) => Ok(vec![Listener::Unix {
                file: Some(file),
                socket,
            }]),
            Err(error) => Err((Address::Unix(path.clone()), error)),
        },
        Listen::Inherited(listeners) => {
            let nowhere = || Address::Unix(PathBuf::new());
            let listeners = listeners.iter().map(|listener| {
                let address = || listener.address().unwrap_or_else(|_| nowhere());
                listener.duplicate().map_err(|error| (address(), error))
            });
            listeners.collect()
        }
    }
}

/// Listens on all of `addresses` that this machine has: one address family is enough where the other does not exist. An error comes
/// with the address that it is about.
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

/// Binds and listens. A port in TIME_WAIT is free; one with a listener is not.
fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = new_stream(family)?;
    // A sandbox may refuse options; if one was needed, `bind` fails.
    let _ = sockopt::set_socket_reuseaddr(&socket, true);
    if address.is_ipv6() {
        // The two address families are bound separately, so that one may be missing.
        let _ = sockopt::set_ipv6_v6only(&socket, true);
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    conn::tune(&socket, address);
    Ok(TcpListener::from(socket))
}

/// Accepts the next client. Temporary failures are waited out; an error is final for the listener.
pub async fn accept(listener: &Source<impl AsFd>) -> io::Result<Stream> {
    loop {
        poll_fn(|context| listener.poll_readable(context)).await?;
        let error = match reactor::accept(listener) {
            Ok(source) => return Ok(Stream::Plain(source)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listener.read_blocked();
                continue;
            }
            Err(error) => error,
        };
        match reaction(&error) {
            Reaction::Continue => {}
            Reaction::Wait => {
                warn(&error);
                listener.set_polled(false)?;
                Timer::at(reactor::now() + PAUSE).await;
                listener.set_polled(true)?;
            }
            Reaction::Stop => return Err(error),
        }
    }
}

/// As [`accept`], for a TCP listener and a thread that blocks.
pub fn accept_blocking(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        let error = match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) => error,
        };
        match reaction(&error) {
            Reaction::Continue => {}
            Reaction::Wait => {
                warn(&error);
                thread::sleep(PAUSE);
            }
            Reaction::Stop => return Err(error),
        }
    }
}

/// As long as the failure lasts, each attempt fails.
fn warn(error: &io::Error) {
    let way_out = if lacks_descriptors(error) {
        "; `ulimit -n` raises the limit"
    } else {
        ""
    };
    warning::warn(format!(
        "cannot accept connections for now: {error}{way_out}"
    ));
}

/// The error where no descriptors are left.
pub fn no_descriptors() -> io::Error {
    Errno::MFILE.into()
}

/// Whether there is no socket because this process, or the machine, has no descriptors left.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// What an error of accept(2) means for the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    Continue,
    Wait,
    Stop,
}

/// Whether one client failed, the machine for the moment, or the listener itself (accept(2)).
fn reaction(error: &io::Error) -> Reaction {
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
        ) => Reaction::Continue,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => {
            Reaction::Wait
        }
        // A firewall refuses one client; a sandbox refuses each of them, without waiting.
        Some(Errno::PERM) => Reaction::Wait,
        _ => Reaction::Stop,
    }
}

/// The pause after a temporary failure.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", not(ic_portable)))] // elsewhere there is no such option
    #[test]
    fn a_peer_on_another_machine_that_acknowledges_nothing_for_two_minutes_is_dead() {
        use std::net::UdpSocket;

        /// `expected`: the limits of the connecting and of the accepted side, in seconds.
        #[track_caller]
        fn check(why: &str, on: &str, to: &str, expected: [u32; 2]) {
            let listeners = bind_all(&[on.parse().expect("an address")]).expect("it is free");
            let port = listeners[0].local_addr().expect("bound").port();
            let to = SocketAddr::new(to.parse().expect("an address"), port);
            let stream = reactor::block_on(Stream::connect(to)).expect("a reactor");
            let stream = stream.expect("it listens");
            let (accepted, _) = listeners[0].accept().expect("it was connected to");
            let limits = [
                sockopt::tcp_user_timeout(
                    stream
                        .plain()
                        .and_then(Source::descriptor)
                        .expect("a socket"),
                ),
                sockopt::tcp_user_timeout(&accepted),
            ];
            let seconds = limits.map(|limit| limit.expect("TCP has it") / 1000);
            assert_eq!(seconds, expected, "{why}");
        }
        check("loopback", "127.0.0.1:0", "127.0.0.1", [0, 0]);
        check("all addresses", "0.0.0.0:0", "127.0.0.1", [0, 120]);
        // The address that a packet to another machine would have; none is sent.
        let route = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        if route.connect("192.0.2.1:9").is_ok() {
            let own = route.local_addr().expect("connected").ip().to_string();
            check("not loopback", &format!("{own}:0"), &own, [120, 120]);
        }
    }

    #[test]
    fn one_bad_accept_never_ends_the_listener_and_never_spins() {
        let rows = [
            (
                Errno::CONNABORTED,
                Reaction::Continue,
                "that client has disconnected",
            ),
            (Errno::PROTO, Reaction::Continue, "that client failed"),
            (
                Errno::MFILE,
                Reaction::Wait,
                "descriptors come back when connections close",
            ),
            (Errno::NFILE, Reaction::Wait, "so do the system's"),
            (Errno::NOMEM, Reaction::Wait, "so does memory"),
            (
                Errno::PERM,
                Reaction::Wait,
                "a sandbox may refuse each of them",
            ),
            (Errno::BADF, Reaction::Stop, "the listener is no more"),
            (Errno::INVAL, Reaction::Stop, "it does not listen"),
        ];
        for (errno, expected, reason) in rows {
            assert_eq!(
                reaction(&io::Error::from(errno)),
                expected,
                "{errno:?}: {reason}"
            );
        }
    }
}
