//! A stream, and the bytes read from it but not yet used.
//!
//! Decided here: when a socket is read and written ([`reactor`] knows whether it can be), and who owns the memory between the
//! two. Not decided here: what the bytes mean.
//!
//! A connection that waits owns no buffer: it takes one from its thread's pool when bytes arrive and returns it when they are
//! used up, so that an idle connection, and a stream between two events, costs a descriptor and a task.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;

use super::buffers::{self, Buffer};
use super::deadline::InactivityTimeout;
use super::peer;
use super::reactor::{self, Source};
use super::upstream::tls::{Session, Tls};

/// A connected byte stream that never blocks.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP or a Unix domain socket.
    Plain(Source),
    /// In TLS. In a box: it is large and rare.
    Tls(Box<Session>),
}

impl Stream {
    /// Connects to a TCP address.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let source = reactor::connect_tcp(address).await?;
        if let Some(socket) = source.descriptor() {
            tune(socket, address);
        }
        Ok(Stream::Plain(source))
    }

    /// Connects to a Unix domain socket.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Stream::Plain(reactor::connect_unix(path).await?))
    }

    /// Starts TLS on a connection on which nothing has been read.
    pub async fn in_tls(self, tls: &Tls) -> io::Result<Self> {
        match self {
            Stream::Plain(source) => Ok(Stream::Tls(Box::new(tls.connect(source).await?))),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The socket, in TLS the one under it.
    fn source(&self) -> &Source {
        match self {
            Stream::Plain(source) => source,
            Stream::Tls(session) => session.source(),
        }
    }

    /// The address of this side, if it is one of TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.source().local_address()
    }

    /// The address of the peer, if it is one of TCP.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.source().peer_address()
    }

    /// Whether the connection has been reset: the socket has no peer any more.
    pub fn is_reset(&self) -> bool {
        self.source().is_reset()
    }

    /// The socket, if the bytes on it are those of the stream: not in TLS.
    pub fn plain(&self) -> Option<&Source> {
        match self {
            Stream::Plain(source) => Some(source),
            Stream::Tls(_) => None,
        }
    }

    /// See [`Source::poll_readable`].
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(source) => source.poll_readable(context),
            Stream::Tls(session) => session.poll_readable(context),
        }
    }

    /// See [`Source::has_ended`].
    pub fn has_ended(&self) -> bool {
        self.source().has_ended()
    }

    /// See [`Source::poll_writable`].
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source().poll_writable(context)
    }

    /// Reads what has arrived.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(source) => Read::read(&mut &*source, into),
            Stream::Tls(session) => session.try_read(into),
        }
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(source) => Write::write(&mut &*source, bytes),
            Stream::Tls(session) => session.try_write(bytes),
        }
    }

    /// How many bytes of earlier writes a TLS session has sent since; 0 without TLS.
    fn flushed_bytes(&self) -> u64 {
        match self {
            Stream::Plain(_) => 0,
            Stream::Tls(session) => session.sent_bytes(),
        }
    }

    /// Hands the socket what a TLS session still holds, as far as there is room.
    fn try_flush(&self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(session) => session.try_flush(),
        }
    }

    /// Writes all of `bytes`, without a time limit. Not for TLS, which would have to be flushed.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(
            !matches!(self, Stream::Tls(_)),
            "a TLS session would have to be flushed"
        );
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| self.poll_writable(context)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the peer has neither sent anything nor closed.
    fn is_quiet(&self) -> bool {
        let known = match self {
            Stream::Plain(source) => source.is_quiet(),
            Stream::Tls(session) => Some(session.is_quiet()),
        };
        known.unwrap_or_else(|| {
            let probe = self.try_read(&mut [0]);
            matches!(probe, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        })
    }

    /// Ends the direction that is written. In TLS by a close_notify: the protocol itself may still have to write to the socket.
    async fn finish(&self) -> io::Result<()> {
        match self {
            Stream::Plain(source) => source.end_writing(),
            Stream::Tls(session) => session.close().await,
        }
    }
}

/// A stream and its unused bytes.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    read_buffer: ReadBuffer,
    /// If it were closed now, an incomplete message would look complete to the peer.
    is_amid_message: Cell<bool>,
    /// Until when it may be kept for other requests; `None`: without limit.
    expires: Option<Instant>,
}

impl Conn {
    /// A connection on which nothing has been read.
    pub fn new(stream: Stream) -> Self {
        Conn {
            stream,
            read_buffer: ReadBuffer::default(),
            is_amid_message: Cell::new(false),
            expires: None,
        }
    }

    /// Lets it be kept for other requests no longer than until `at`.
    pub fn expire(&mut self, at: Instant) {
        self.expires = Some(at);
    }

    /// How long it may still be kept for other requests.
    pub fn lifetime(&self) -> Duration {
        let left = |at: Instant| at.saturating_duration_since(reactor::now());
        self.expires.map_or(Duration::MAX, left)
    }

    /// The stream itself.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Both directions, to be used at the same time.
    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        (
            Reader {
                stream: &self.stream,
                read_buffer: &mut self.read_buffer,
            },
            Writer {
                stream: &self.stream,
                is_amid_message: &self.is_amid_message,
            },
        )
    }

    /// The direction that is read.
    pub fn reader(&mut self) -> Reader<'_> {
        self.split().0
    }

    /// The direction that is written.
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            stream: &self.stream,
            is_amid_message: &self.is_amid_message,
        }
    }

    /// The bytes read but not yet used.
    pub fn bytes(&self) -> &[u8] {
        self.read_buffer.bytes()
    }

    /// Whether the peer has neither sent anything nor closed: an idle connection that may be used again.
    pub fn is_quiet(&self) -> bool {
        self.read_buffer.bytes().is_empty() && self.stream.is_quiet()
    }

    /// Wakes `waker` when the peer sends something or closes, unless a task waits to read later.
    pub fn watch(&self, waker: &Waker) {
        self.stream.source().watch(waker);
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.is_amid_message.get() {
            // A reset does not look like the end of a message.
            self.stream.source().reset_when_closed();
            if let Stream::Tls(session) = &self.stream {
                session.suppress_close_notify();
            }
        }
    }
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// There are more bytes.
    Some,
    /// The peer has ended its side.
    EndOfFile,
}

/// The direction of a connection that is read.
#[derive(Debug)]
pub struct Reader<'a> {
    stream: &'a Stream,
    read_buffer: &'a mut ReadBuffer,
}

impl<'a> Reader<'a> {
    /// The bytes read but not yet used.
    pub fn bytes(&self) -> &[u8] {
        self.read_buffer.bytes()
    }

    /// The stream that is read.
    pub fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// Whether no more bytes can be read before some are used.
    pub fn is_full(&self) -> bool {
        self.read_buffer.used.len() >= buffers::BUFFER_BYTES
    }

    /// Waits for more bytes than there are now. The reader must not be [full](Reader::is_full).
    ///
    /// If this future is dropped, no byte is lost.
    pub async fn fill(&mut self) -> io::Result<Filled> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    /// As [`fill`](Reader::fill).
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Filled>> {
        self.poll_fill_into(context, Buffer::take)
    }

    /// As [`fill`](Reader::fill); `allocate` makes the buffer if there is none yet.
    pub fn poll_fill_into(
        &mut self,
        context: &mut Context<'_>,
        allocate: fn() -> Buffer,
    ) -> Poll<io::Result<Filled>> {
        debug_assert!(!self.is_full(), "a full reader has to be emptied first");
        loop {
            match self.stream.poll_readable(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.read_buffer.shrink();
                    return Poll::Pending;
                }
            }
            match self.read_buffer.read_from(self.stream, allocate) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Drops the first `count` bytes, which have been used.
    pub fn consume(&mut self, count: usize) {
        self.read_buffer.consume(count);
    }
}

/// The direction of a connection that is written.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    stream: &'a Stream,
    is_amid_message: &'a Cell<bool>,
}

impl Writer<'_> {
    /// The stream that is written.
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    pub fn stream(&self) -> &Stream {
        self.stream
    }

    /// See [`Stream::write_all`].
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Writes as much of `bytes`, of which `written` are written, as there is room for. Returns whether all is written.
    pub fn write_on(&self, bytes: &[u8], written: &mut usize) -> Result<bool, WriteErrorKind> {
        let stream = self.stream;
        while *written < bytes.len() {
            match stream.try_write(&bytes[*written..]) {
                Ok(0) => return Err(WriteErrorKind::Failed(io::ErrorKind::WriteZero)),
                Ok(count) => *written += count,
                Err(error) => return blocked(&error),
            }
        }
        match stream.try_flush() {
            Ok(()) => Ok(true),
            Err(error) => blocked(&error),
        }
    }

    /// Writes all of `bytes`. Fails if the connection fails or the peer takes nothing for too long.
    pub fn write_within(
        self,
        bytes: &[u8],
        inactivity: InactivityTimeout<'_>,
    ) -> impl Future<Output = Result<(), WriteError>> {
        let mut written = 0;
        let mut stall = WriteStall::default();
        poll_fn(move |context| {
            let result = loop {
                if let Err(kind) = ready!(stall.poll(context, self.stream, inactivity)) {
                    break Err(kind);
                }
                let before = written;
                match self.write_on(bytes, &mut written) {
                    Ok(true) => break Ok(()),
                    Ok(false) => {}
                    Err(kind) => break Err(kind),
                }
                if written > before {
                    stall.progressed();
                }
                if let Err(kind) = stall.begin_wait(self.stream, inactivity) {
                    break Err(kind);
                }
            };
            Poll::Ready(result.map_err(|kind| WriteError { written, kind }))
        })
    }

    /// Marks the start of a message: until [`ends_message`](Writer::ends_message), dropping the connection resets it.
    pub fn begins_message(&self) {
        self.is_amid_message.set(true);
    }

    /// Marks the end of a message: the end of the connection does not cut it.
    pub fn ends_message(&self) {
        self.is_amid_message.set(false);
    }

    /// Ends this direction. An error is of no interest: then the connection has ended.
    pub async fn finish(&self) {
        drop(self.stream.finish().await);
    }
}

/// Not all bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteError {
    /// How many bytes were taken. 0: none of them was sent; in TLS the last of them may not have been sent.
    pub written: usize,
    /// Why no more.
    pub kind: WriteErrorKind,
}

/// Why a peer takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteErrorKind {
    /// The connection failed. A socket reports a reset only once: a later read returns an ordinary end.
    Failed(io::ErrorKind),
    /// It took nothing for longer than the inactivity timeout.
    Stalled,
}

/// The wait for room in a socket's send buffer, with an inactivity timeout.
///
/// The kernel reports a socket as writable when a third of its buffer is free, and that may be megabytes: a slow reader does not
/// count as stalled. So a write is tried when the time is over: it takes what little room there is.
#[derive(Debug, Default)]
pub struct WriteStall {
    is_waiting: bool,
    /// How many of the [`PARTS`] of the time have passed without progress.
    silent_parts: u32,
    flushed_bytes: u64,
}

/// Whether there is progress is known only after a part of the time. With several parts, a stall is found at most one part
/// late.
const PARTS: u32 = 4;

impl WriteStall {
    /// A write was taken, at least in part.
    pub fn progressed(&mut self) {
        self.silent_parts = 0;
    }

    /// A write would have blocked: the next one [waits](WriteStall::poll). Fails if the time is over.
    pub fn begin_wait(
        &mut self,
        stream: &Stream,
        inactivity: InactivityTimeout<'_>,
    ) -> Result<(), WriteErrorKind> {
        // Earlier writes may have made progress where this one has not.
        let flushed_bytes = stream.flushed_bytes();
        if std::mem::replace(&mut self.flushed_bytes, flushed_bytes) != flushed_bytes {
            self.progressed();
        }
        if self.silent_parts >= PARTS {
            return Err(WriteErrorKind::Stalled);
        }
        inactivity.begin_part(PARTS);
        self.is_waiting = true;
        Ok(())
    }

    /// Ready if a write is worth trying; else `context` is woken when it is.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &Stream,
        inactivity: InactivityTimeout<'_>,
    ) -> Poll<Result<(), WriteErrorKind>> {
        if !self.is_waiting {
            return Poll::Ready(Ok(()));
        }
        let writable = stream.poll_writable(context);
        let result = ready!(inactivity.poll(context, writable));
        self.is_waiting = false;
        self.silent_parts += u32::from(result.is_none());
        Poll::Ready(match result {
            Some(Err(error)) => Err(WriteErrorKind::Failed(error.kind())),
            Some(Ok(())) | None => Ok(()),
        })
    }
}

/// `Ok(false)` if the write would have blocked.
fn blocked(error: &io::Error) -> Result<bool, WriteErrorKind> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(false),
        kind => Err(WriteErrorKind::Failed(kind)),
    }
}

/// Bytes read but not yet used; without any there is no buffer.
#[derive(Debug, Default)]
struct ReadBuffer {
    buffer: Option<Buffer>,
    used: Range<usize>,
}

impl ReadBuffer {
    fn bytes(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.bytes()[self.used.clone()],
            None => &[],
        }
    }

    fn read_from(&mut self, stream: &Stream, allocate: fn() -> Buffer) -> io::Result<Filled> {
        if self
            .buffer
            .as_ref()
            .is_some_and(|buffer| self.used.end == buffer.len())
        {
            self.make_room();
        }
        let buffer = self.buffer.get_or_insert_with(allocate);
        let count = match stream.try_read(&mut buffer.bytes_mut()[self.used.end..]) {
            Ok(count) => count,
            Err(error) => {
                self.consume(0);
                return Err(error);
            }
        };
        self.used.end += count;
        if count == 0 {
            self.consume(0);
            return Ok(Filled::EndOfFile);
        }
        Ok(Filled::Some)
    }

    fn consume(&mut self, count: usize) {
        debug_assert!(
            count <= self.used.len(),
            "only bytes that were read can be used"
        );
        self.used.start += count;
        if self.used.is_empty() {
            self.used = 0..0;
            self.buffer = None;
        }
    }

    /// Moves the unused bytes to the front of a buffer of full size.
    fn make_room(&mut self) {
        let mut buffer = Buffer::take();
        let unused = self.bytes();
        let len = unused.len();
        buffer.bytes_mut()[..len].copy_from_slice(unused);
        self.buffer = Some(buffer);
        self.used = 0..len;
    }

    /// Moves a few unused bytes to a buffer of their size, so that a peer that sends half a head and then nothing holds no
    /// more memory than that.
    fn shrink(&mut self) {
        let len = self.used.len();
        let is_oversized = self
            .buffer
            .as_ref()
            .is_some_and(|buffer| buffer.len() / 4 > len);
        if len > 0 && is_oversized {
            self.buffer = Some(Buffer::exactly(self.bytes()));
            self.used = 0..len;
        }
    }
}

/// Whether a connection failed because there is no way to the peer's host, or that host is down.
pub fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::ADDRNOTAVAIL
        )
    )
}

/// Sends without waiting to fill a packet, and probes idle peers to find dead ones. Accepted sockets inherit both from the
/// listener. Errors are ignored: a sandbox that refuses the options costs speed and nothing else.
///
/// `address` is that of the peer, or of the listener. Keep-alive sends no probes while data is unacknowledged (tcp(7)), and the
/// system then sends that again for a quarter of an hour. A peer on this machine cannot vanish, but may be stopped in a debugger.
pub fn tune(stream: impl AsFd, address: SocketAddr) {
    let stream = stream.as_fd();
    let _ = sockopt::set_tcp_nodelay(stream, true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
    if !address.ip().to_canonical().is_loopback() {
        peer::limit_unacknowledged(stream, UNACKNOWLEDGED_MAX);
    }
}

/// Models think for minutes without sending; middleboxes drop idle connections after some minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// As long as until an idle peer that answers no probe is dead.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
