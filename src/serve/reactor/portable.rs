//! Readiness through `async-io`: what systems without epoll get.
//!
//! Costs about twice the system calls of a request, and a helper thread; behaves alike.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_io::Async;
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

/// The system calls that a sandbox must allow.
pub const NEEDS: &str = "the system's poller and its timer";

/// A registered socket; by default a stream.
#[derive(Debug)]
pub struct Source<S = OwnedFd>(Async<S>);

impl<S: AsFd> Source<S> {
    /// Registers a socket and makes it non-blocking.
    pub fn new(socket: S) -> io::Result<Self> {
        Async::new(socket).map(Source)
    }

    /// As [`new`](Self::new), for a listening socket.
    pub fn listening(socket: S) -> io::Result<Self> {
        Self::new(socket)
    }

    /// Without effect: a listening socket is polled only while a task waits for it.
    pub fn set_polled(&self, _is_polled: bool) -> io::Result<()> {
        Ok(())
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        self.0.get_ref()
    }

    /// Ready if a read may return something; else `context` is woken when it may.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(context)
    }

    /// Ready if a write may take something; else `context` is woken when it may.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(context)
    }

    /// Whether the peer is known to have ended its side: only a read tells.
    pub fn has_ended(&self) -> bool {
        false
    }

    /// Reports that a read would have blocked.
    pub fn read_blocked(&self) {}

    /// Reports that a read has emptied the socket.
    pub fn read_emptied(&self) {}

    /// Reports that a write would have blocked.
    pub fn write_blocked(&self) {}

    /// `None`: only a read tells whether something has arrived.
    pub fn is_quiet(&self) -> Option<bool> {
        None
    }

    /// Without effect: that the peer has closed an idle connection is found when it is to be used.
    pub fn watch(&self, _waker: &Waker) {}
}

/// Accepts a connection, if one is waiting.
pub fn accept(listener: &Source<impl AsFd>) -> io::Result<Source> {
    let socket = rustix::net::accept(listener.get_ref())?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    Source::new(socket)
}

/// Connects to a TCP address.
pub async fn connect_tcp(address: SocketAddr) -> io::Result<Source> {
    let stream = Async::<TcpStream>::connect(address).await?;
    Source::new(stream.into_inner()?.into())
}

/// Connects to a Unix domain socket. `Async::connect` takes a full backlog for a connection in progress.
pub async fn connect_unix(path: &Path) -> io::Result<Source> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Source::new(socket),
            // unix(7): no event reports when there is room. macOS refuses the connection instead.
            Err(Errno::AGAIN) => Timer::at(Instant::now() + FULL_BACKLOG_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

const FULL_BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// A future that is ready at a time.
#[derive(Debug)]
pub struct Timer(async_io::Timer);

impl Timer {
    /// Ready at `at`.
    pub fn at(at: Instant) -> Self {
        Timer(async_io::Timer::at(at))
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(drop)
    }
}

/// Lets the other tasks run.
pub async fn next_turn() {
    smol::future::yield_now().await;
}

/// The time.
pub fn now() -> Instant {
    Instant::now()
}

/// Runs `future` on this thread to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(async_io::block_on(future))
}
