//! The interface of the reactor in unit tests: sockets of the kernel, or of the network that is simulated on this thread.

use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use super::kernel;
use crate::serve::simulation::network::{self, Network, Socket};

/// A registered socket; by default a stream.
#[derive(Debug)]
pub enum Source<S: AsFd = OwnedFd> {
    Kernel(kernel::Source<S>),
    Simulated(Socket),
}

/// Calls a method of the same name of either kind.
macro_rules! either {
    ($source:expr, $method:ident($($argument:expr),*)) => {
        match $source {
            Source::Kernel(source) => source.$method($($argument),*),
            Source::Simulated(socket) => socket.$method($($argument),*),
        }
    };
}

impl<S: AsFd> Source<S> {
    pub fn new(socket: S) -> io::Result<Self> {
        kernel::Source::new(socket).map(Source::Kernel)
    }

    pub fn listening(socket: S) -> io::Result<Self> {
        kernel::Source::listening(socket).map(Source::Kernel)
    }

    pub fn set_polled(&self, is_polled: bool) -> io::Result<()> {
        either!(self, set_polled(is_polled))
    }

    pub fn get_ref(&self) -> &S {
        match self {
            Source::Kernel(source) => source.get_ref(),
            Source::Simulated(_) => panic!("a simulated socket has no descriptor"),
        }
    }

    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_readable(context))
    }

    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_writable(context))
    }

    pub fn has_ended(&self) -> bool {
        either!(self, has_ended())
    }

    pub fn read_blocked(&self) {
        either!(self, read_blocked());
    }

    pub fn write_blocked(&self) {
        either!(self, write_blocked());
    }

    pub fn is_quiet(&self) -> Option<bool> {
        either!(self, is_quiet())
    }

    pub fn watch(&self, waker: &Waker) {
        either!(self, watch(waker));
    }
}

impl Source {
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Kernel(source) => source.descriptor(),
            Source::Simulated(_) => None,
        }
    }

    pub fn local_address(&self) -> Option<SocketAddr> {
        either!(self, local_address())
    }

    pub fn peer_address(&self) -> Option<SocketAddr> {
        either!(self, peer_address())
    }

    pub fn is_reset(&self) -> bool {
        either!(self, is_reset())
    }

    pub fn end_writing(&self) -> io::Result<()> {
        either!(self, end_writing())
    }

    pub fn reset_when_closed(&self) {
        either!(self, reset_when_closed());
    }
}

impl Read for &Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Kernel(source) => Read::read(&mut &*source, into),
            Source::Simulated(socket) => socket.read(into),
        }
    }
}

impl Write for &Source {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Source::Kernel(source) => Write::write(&mut &*source, bytes),
            Source::Simulated(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Source::Kernel(source) => Write::write_vectored(&mut &*source, pieces),
            Source::Simulated(socket) => {
                let bytes: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| piece.iter().copied())
                    .collect();
                socket.write(&bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn accept(listener: &Source<impl AsFd>) -> io::Result<Source> {
    match listener {
        Source::Kernel(listener) => kernel::accept(listener).map(Source::Kernel),
        Source::Simulated(listener) => listener.accept().map(Source::Simulated),
    }
}

pub async fn connect_tcp(address: SocketAddr) -> io::Result<Source> {
    match network::current() {
        Some(network) => network.connect(address).await.map(Source::Simulated),
        None => kernel::connect_tcp(address).await.map(Source::Kernel),
    }
}

pub async fn connect_unix(path: &Path) -> io::Result<Source> {
    kernel::connect_unix(path).await.map(Source::Kernel)
}

/// A future that is ready at a time.
#[derive(Debug)]
pub enum Timer {
    Kernel(kernel::Timer),
    Simulated(network::Timer),
}

impl Timer {
    pub fn at(at: Instant) -> Self {
        match network::current() {
            Some(network) => Timer::Simulated(network.timer(at)),
            None => Timer::Kernel(kernel::Timer::at(at)),
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Timer::Kernel(timer) => Pin::new(timer).poll(context),
            Timer::Simulated(timer) => Pin::new(timer).poll(context),
        }
    }
}

pub async fn next_turn() {
    match network::current() {
        Some(network) => network.next_turn().await,
        None => kernel::next_turn().await,
    }
}

pub fn now() -> Instant {
    network::current().map_or_else(kernel::now, |network| network.now())
}

pub fn wall_clock() -> SystemTime {
    network::current().map_or_else(SystemTime::now, |network| network.wall_clock())
}

pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match network::current() {
        Some(network) => network.resolve(host, port).await,
        None => async_net::resolve((host, port)).await,
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    match network::current() {
        Some(network) => Network::block_on(&network, future),
        None => kernel::block_on(future),
    }
}
