//! A stream, and the bytes read from it but not yet used.
//!
//! Decided here: when a socket is read and written (whether it can be is [`reactor`]'s to know), and who owns the memory between the two. Not decided here: what the bytes mean.
//!
//! A wire that waits owns no buffer: it borrows one from its thread when bytes arrive and returns it when
//! they are used up, so that idle connections and streams between two events cost a descriptor and a task.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Once;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;

use super::buffers::{self, Buffer};
use super::deadline::InactivityTimeout;
use super::reactor::{self, Source};
use super::upstream::tls::{Session, Tls};

/// Whatever the family of a socket, its source can do the same; what TLS does stands beside it.
macro_rules! on_source {
    ($stream:expr, $source:ident => $action:expr, $session:ident => $in_tls:expr) => {
        match $stream {
            Stream::Tcp($source) => $action,
            Stream::Unix($source) => $action,
            Stream::Tls($session) => $in_tls,
        }
    };
}

/// A connected byte stream that never blocks.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(Source<TcpStream>),
    /// Over a Unix domain socket.
    Unix(Source<UnixStream>),
    /// In TLS, over TCP. In a box: it is large, and few have it.
    Tls(Box<Session>),
}

/// A connection that was accepted, on its way to the thread that serves it.
#[derive(Debug)]
pub enum Client {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to a TCP address.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = reactor::connect_tcp(address).await?;
        tune(stream.get_ref());
        Ok(Stream::Tcp(stream))
    }

    /// Connects to a Unix domain socket.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Stream::Unix(reactor::connect_unix(path).await?))
    }

    /// Goes on in TLS; what is there already must be a TCP connection on which nothing has been read.
    pub async fn in_tls(self, tls: &Tls) -> io::Result<Self> {
        match self {
            Stream::Tcp(stream) => Ok(Stream::Tls(Box::new(tls.connect(stream).await?))),
            Stream::Unix(_) | Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a stream that was accepted, on the thread that serves it.
    pub fn accepted(client: Client) -> io::Result<Self> {
        Ok(match client {
            Client::Tcp(stream) => Stream::Tcp(reactor::accepted(stream)?),
            Client::Unix(stream) => Stream::Unix(reactor::accepted(stream)?),
        })
    }

    /// The TCP socket, where it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream.get_ref()),
            Stream::Unix(_) => None,
            Stream::Tls(session) => Some(session.tcp()),
        }
    }

    /// The Unix domain socket, where it is one.
    pub fn unix(&self) -> Option<&UnixStream> {
        match self {
            Stream::Unix(stream) => Some(stream.get_ref()),
            Stream::Tcp(_) | Stream::Tls(_) => None,
        }
    }

    /// Whether the connection has been reset: the socket has no peer any more.
    pub fn is_reset(&self) -> bool {
        fn has_no_peer<A>(peer_address: io::Result<A>) -> bool {
            peer_address.is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
        }
        match (self.tcp(), self.unix()) {
            (Some(tcp), _) => has_no_peer(tcp.peer_addr()),
            (_, Some(unix)) => has_no_peer(unix.peer_addr()),
            (None, None) => false,
        }
    }

    /// The socket, where the bytes on it are those of the stream.
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    pub fn bare(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        on_source!(self, source => Some(source.get_ref().as_fd()), _session => None)
    }

    /// See [`Source::poll_readable`].
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_source!(self, source => source.poll_readable(context), session => session.poll_readable(context))
    }

    /// See [`Source::has_ended`].
    pub fn has_ended(&self) -> bool {
        on_source!(self, source => source.has_ended(), session => session.has_ended())
    }

    /// See [`Source::poll_writable`].
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_source!(self, source => source.poll_writable(context), session => session.poll_writable(context))
    }

    /// A read of the [bare](Stream::bare) socket would have blocked.
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    pub fn read_blocked(&self) {
        on_source!(self, source => source.read_blocked(), _session => {});
    }

    /// A write to the [bare](Stream::bare) socket would have blocked.
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    pub fn write_blocked(&self) {
        on_source!(self, source => source.write_blocked(), _session => {});
    }

    /// Reads what is there; that nothing is there, and that nothing is left, is told to the source.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        on_source!(self, source => {
            let result = uninterrupted(|| source.get_ref().read(into));
            match &result {
                Ok(count) if *count < into.len() => source.read_emptied(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.read_blocked(),
                _ => {}
            }
            result
        }, session => session.try_read(into))
    }

    /// Writes what there is room for; that there is none is told to the source.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        on_source!(self, source => {
            let result = uninterrupted(|| source.get_ref().write(bytes));
            if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                source.write_blocked();
            }
            result
        }, session => session.try_write(bytes))
    }

    /// How many bytes have gone out that no write has told of: in TLS, those that were taken before.
    fn sent_unseen(&self) -> u64 {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => 0,
            Stream::Tls(session) => session.sent_bytes(),
        }
    }

    /// Hands to the socket what there is room for, of what was written and is not yet there.
    fn try_flush(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
            Stream::Tls(session) => session.try_flush(),
        }
    }

    /// Writes all of `bytes`, however long that takes, where there is no TLS.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(
            !matches!(self, Stream::Tls(_)),
            "what TLS has taken has yet to be flushed"
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
        let known =
            on_source!(self, source => source.is_quiet(), session => Some(session.is_quiet()));
        known.unwrap_or_else(|| {
            let probe = self.try_read(&mut [0]);
            matches!(probe, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        })
    }

    /// Says that nothing more will be written. In TLS the socket stays open for that: what the protocol itself has to say
    /// may still come.
    async fn finish(&self) -> io::Result<()> {
        on_source!(self, source => source.get_ref().shutdown(Shutdown::Write), session => {
            session.says_goodbye();
            session.flush().await
        })
    }
}

/// A stream and its unused bytes.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    inbox: ReadBuffer,
    /// Closed now, it would look to the peer as if a message were complete that is not.
    is_amid_message: Cell<bool>,
}

impl Conn {
    /// A wire on which nothing has been read.
    pub fn new(stream: Stream) -> Self {
        Conn {
            stream,
            inbox: ReadBuffer::default(),
            is_amid_message: Cell::new(false),
        }
    }

    /// Both directions, to be used at the same time.
    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        (
            Reader {
                stream: &self.stream,
                inbox: &mut self.inbox,
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
        self.inbox.bytes()
    }

    /// Whether the peer has neither sent anything nor closed: an idle connection that may be used again.
    pub fn is_quiet(&self) -> bool {
        self.inbox.bytes().is_empty() && self.stream.is_quiet()
    }

    /// Wakes `waker` when the peer sends something or closes, as long as nobody reads.
    pub fn watch(&self, waker: &Waker) {
        on_source!(&self.stream, source => source.watch(waker), session => session.watch(waker));
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.is_amid_message.get()
            && let Some(stream) = self.stream.tcp()
        {
            // A reset, which nobody takes for the end of a message. A Unix socket cannot say it.
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            if let Stream::Tls(session) = &self.stream {
                session.keeps_silent();
            }
        }
    }
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// More bytes.
    Some,
    /// The peer has closed its side.
    EndOfFile,
}

/// The direction of a wire that is read.
#[derive(Debug)]
pub struct Reader<'a> {
    stream: &'a Stream,
    inbox: &'a mut ReadBuffer,
}

impl<'a> Reader<'a> {
    /// The bytes read but not yet used.
    pub fn bytes(&self) -> &[u8] {
        self.inbox.bytes()
    }

    /// The stream that is read.
    pub fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// Whether no more bytes can be read before some are used.
    pub fn is_full(&self) -> bool {
        self.inbox.used.len() >= buffers::BUFFER_BYTES
    }

    /// Waits for more bytes than there are now. The wire must not be [full](Reader::is_full).
    ///
    /// If this future is dropped, no byte is lost.
    pub async fn fill(&mut self) -> io::Result<Filled> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    /// As [`fill`](Reader::fill).
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Filled>> {
        self.poll_fill_into(context, Buffer::take)
    }

    /// As [`fill`](Reader::fill), into what `lend` lends if there is no buffer yet.
    pub fn poll_fill_into(
        &mut self,
        context: &mut Context<'_>,
        lend: fn() -> Buffer,
    ) -> Poll<io::Result<Filled>> {
        debug_assert!(
            !self.is_full(),
            "a full wire has to be emptied before it is read"
        );
        loop {
            match self.stream.poll_readable(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.inbox.shrink();
                    return Poll::Pending;
                }
            }
            match self.inbox.read_from(self.stream, lend) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// `count` of the bytes have been used.
    pub fn consume(&mut self, count: usize) {
        self.inbox.consume(count);
    }
}

/// The direction of a wire that is written.
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

    /// Writes what there is room for of what is left of `bytes`, of which `written` have been taken before; says whether that
    /// was all.
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

    /// Writes all of `bytes`, or says how many of them were taken before the connection failed or its peer had taken nothing
    /// for too long.
    pub fn write_within(
        self,
        bytes: &[u8],
        silence: InactivityTimeout<'_>,
    ) -> impl Future<Output = Result<(), WriteError>> {
        let mut written = 0;
        let mut stall = WriteStall::default();
        poll_fn(move |context| {
            let result = loop {
                if let Err(kind) = ready!(stall.poll(context, self.stream, silence)) {
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
                if let Err(kind) = stall.begin_wait(self.stream, silence) {
                    break Err(kind);
                }
            };
            Poll::Ready(result.map_err(|kind| WriteError { written, kind }))
        })
    }

    /// From here on until [`ends_message`](Writer::ends_message), whatever ends the connection resets it.
    pub fn begins_message(&self) {
        self.is_amid_message.set(true);
    }

    /// The message is complete: the end of the connection is its end, or comes after it.
    pub fn ends_message(&self) {
        self.is_amid_message.set(false);
    }

    /// Says that nothing more will be written. A peer that is gone needs not be told.
    pub async fn finish(&self) {
        drop(self.stream.finish().await);
    }
}

/// Not everything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteError {
    /// The bytes that were taken before. If there are none, nothing of it has gone out; in TLS the last of them may be on this
    /// side still.
    pub written: usize,
    /// What stopped the rest.
    pub kind: WriteErrorKind,
}

/// Why a peer gets no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteErrorKind {
    /// The connection failed. A socket tells of a reset only once: who reads it afterwards sees an ordinary end.
    Failed(io::ErrorKind),
    /// It took nothing for longer than it may.
    Stalled,
}

/// The wait for room in a socket's send buffer.
///
/// The kernel calls a socket writable when a third of its buffer is free, and that may be megabytes: a slow reader is none
/// that has stopped. So a limit that passes is no verdict yet: the next write is, which takes what little room there is.
#[derive(Debug, Default)]
pub struct WriteStall {
    is_waited_for: bool,
    /// Of the [`PARTS`] of the limit, how many have passed since anything moved.
    silent_parts: u32,
    sent_unseen: u64,
}

/// What still moves when a wait begins, because it was on its way, is seen to have stopped only at the next look: so there
/// are several within the limit, and it passes at most one part late.
const PARTS: u32 = 4;

impl WriteStall {
    /// A write has been taken, in part at least.
    pub fn progressed(&mut self) {
        self.silent_parts = 0;
    }

    /// A write would have blocked: the next one [waits](WriteStall::poll), unless it is too late for that.
    pub fn begin_wait(
        &mut self,
        stream: &Stream,
        silence: InactivityTimeout<'_>,
    ) -> Result<(), WriteErrorKind> {
        // What was written before may have found room where this write has not.
        let sent_unseen = stream.sent_unseen();
        if std::mem::replace(&mut self.sent_unseen, sent_unseen) != sent_unseen {
            self.progressed();
        }
        if self.silent_parts >= PARTS {
            return Err(WriteErrorKind::Stalled);
        }
        silence.begin_part(PARTS);
        self.is_waited_for = true;
        Ok(())
    }

    /// Whether a write is worth trying; else `context` is woken when it is.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &Stream,
        silence: InactivityTimeout<'_>,
    ) -> Poll<Result<(), WriteErrorKind>> {
        if !self.is_waited_for {
            return Poll::Ready(Ok(()));
        }
        let writable = stream.poll_writable(context);
        let came = ready!(silence.poll(context, writable));
        self.is_waited_for = false;
        self.silent_parts += u32::from(came.is_none());
        Poll::Ready(match came {
            Some(Err(error)) => Err(WriteErrorKind::Failed(error.kind())),
            Some(Ok(())) | None => Ok(()),
        })
    }
}

/// Whether a write that failed may be tried again.
fn blocked(error: &io::Error) -> Result<bool, WriteErrorKind> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(false),
        kind => Err(WriteErrorKind::Failed(kind)),
    }
}

/// Bytes read but not yet used, in a buffer that is there only while there are some.
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

    fn read_from(&mut self, stream: &Stream, lend: fn() -> Buffer) -> io::Result<Filled> {
        if self
            .buffer
            .as_ref()
            .is_some_and(|buffer| self.used.end == buffer.len())
        {
            self.make_room();
        }
        let buffer = self.buffer.get_or_insert_with(lend);
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

    /// Moves what is left to the front of a buffer of full size.
    fn make_room(&mut self) {
        let mut roomy = Buffer::take();
        let left = self.bytes();
        let len = left.len();
        roomy.bytes_mut()[..len].copy_from_slice(left);
        self.buffer = Some(roomy);
        self.used = 0..len;
    }

    /// Keeps a few left-over bytes in memory of their own size, so that a peer that sends half a head and
    /// then nothing holds no more than that half.
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

/// No waiting for more bytes to fill a packet, and a probe now and then to find peers that are dead. What a listener
/// is told holds for what it accepts. A sandbox that refuses it takes speed away, and nothing else.
pub fn tune(stream: impl AsFd) {
    let stream = stream.as_fd();
    go_without_options([
        sockopt::set_tcp_nodelay(stream, true),
        sockopt::set_socket_keepalive(stream, true),
        sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE),
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL),
        sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES),
    ]);
}

/// Goes on where the system refuses options on which nothing depends, and says so once.
pub fn go_without_options(results: impl IntoIterator<Item = Result<(), Errno>>) {
    static SAID: Once = Once::new();
    if let Some(error) = results.into_iter().find_map(Result::err) {
        SAID.call_once(|| log::debug!("sockets keep the options that they have: {error}"));
    }
}

/// Models think for minutes in silence; a network that forgets connections does so after some minutes, too.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// What `call` brings when no signal comes in between.
pub fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
