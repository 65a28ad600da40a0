//! One end of a connection, with a buffer of unused bytes and a deadline for every wait.
//!
//! Blocking and single-threaded, so that a test is a sequence of steps. A `try_` method returns how the connection
//! stopped; the method without the prefix fails the test with what was expected and what was received.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::message::{self, Fields, Framing, Head, Request, Response, latin1};
use super::tls::{Config, Tls};

/// A connection and the bytes read from it but not used yet.
pub struct Conn {
    who: String,
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    unread: Vec<u8>,
    /// The test fails after this time without progress in reading or writing.
    timeout: Duration,
}

/// Why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The peer has closed its sending direction: end of file.
    Closed,
    /// The peer has reset the connection.
    Reset,
    /// Nothing was received for the time limit.
    Silent,
    /// The bytes are not valid HTTP.
    Malformed(String),
}

/// Reads a body in any framing.
#[derive(Debug)]
pub struct Body {
    left: Left,
    pub trailers: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Length(u64),
    Chunk(u64),
    BeforeChunk,
    AfterChunk,
    UntilClose,
    Nothing,
}

impl Conn {
    /// Wraps a connection; `who` names this end in failures.
    pub fn new(who: impl Into<String>, stream: TcpStream) -> Conn {
        stream
            .set_nodelay(true)
            .expect("TCP_NODELAY can be set on a connection");
        Conn::over(who, stream)
    }

    /// Wraps a connection through a Unix socket.
    pub fn local(who: impl Into<String>, stream: UnixStream) -> Conn {
        // The same calls work for both address families.
        Conn::over(who, TcpStream::from(OwnedFd::from(stream)))
    }

    fn over(who: impl Into<String>, stream: TcpStream) -> Conn {
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a write deadline can be set");
        Conn {
            who: who.into(),
            stream,
            tls: None,
            unread: Vec::new(),
            timeout: DEADLINE,
        }
    }

    /// Wraps a connection and performs the TLS handshake as the server.
    pub fn secure(who: impl Into<String>, stream: TcpStream, config: Config) -> io::Result<Conn> {
        let tls = Tls::accept(config, &stream)?;
        let mut wire = Conn::new(who, stream);
        // Bytes received together with the end of the handshake.
        tls.open(&[], &mut wire.unread)?;
        wire.tls = Some(Arc::new(tls));
        Ok(wire)
    }

    /// Connects within the deadline.
    #[track_caller]
    pub fn connect(who: impl Into<String>, address: SocketAddr) -> Conn {
        let who = who.into();
        match TcpStream::connect_timeout(&address, DEADLINE) {
            Ok(stream) => Conn::new(who, stream),
            Err(error) => panic!("{who}: cannot connect to {address}: {error}"),
        }
    }

    /// Connects to a Unix socket.
    #[track_caller]
    pub fn connect_to(who: impl Into<String>, path: &Path) -> Conn {
        let who = who.into();
        match UnixStream::connect(path) {
            Ok(stream) => Conn::local(who, stream),
            Err(error) => panic!("{who}: cannot connect to {}: {error}", path.display()),
        }
    }

    /// Sets the limit of every wait.
    pub fn with_timeout(mut self, timeout: Duration) -> Conn {
        self.set_timeout(timeout);
        self
    }

    /// Sets the limit of every wait.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.stream
            .set_write_timeout(Some(timeout))
            .expect("a write deadline can be set");
        self.timeout = timeout;
    }

    /// The TLS state of the connection.
    #[track_caller]
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this end speaks TLS")
    }

    /// The socket itself, for options and for a second thread.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A second handle on the same connection, for a thread that writes while this one reads.
    pub fn twin(&self) -> Conn {
        let stream = self.stream.try_clone().expect("a socket can be duplicated");
        Conn {
            who: format!("{} (writer)", self.who),
            stream,
            tls: self.tls.clone(),
            unread: Vec::new(),
            timeout: self.timeout,
        }
    }

    // Sending.

    /// Sends all of it, or fails.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(bytes.as_ref()) {
            panic!(
                "{}: cannot send {:?}: {error}",
                self.who,
                excerpt(bytes.as_ref())
            );
        }
    }

    /// Sends to a peer that may close early; returns whether everything was sent.
    pub fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.try_send(bytes.as_ref()).is_ok()
    }

    fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => tls.send(&self.stream, bytes),
        }
    }

    /// Sends pieces of at most `size` bytes, each in a separate segment, to a peer that may close early.
    pub fn offer_in_pieces(&mut self, bytes: impl AsRef<[u8]>, size: usize) -> bool {
        bytes.as_ref().chunks(size).all(|piece| {
            // Lets the reader run between two pieces, so that it parses many prefixes.
            std::thread::yield_now();
            self.offer(piece)
        })
    }

    /// Shuts down the sending direction; the response can still be read.
    pub fn finish_writing(&mut self) {
        // Fails if the peer has reset the connection.
        match &self.tls {
            None => drop(self.stream.shutdown(Shutdown::Write)),
            Some(tls) => drop(tls.finish(&self.stream)),
        }
    }

    /// Closes at once (FIN, or a reset if there are unread bytes).
    pub fn close(self) {}

    /// Closes the socket without close_notify of TLS, as an attacker on the path could do.
    pub fn close_unannounced(mut self) {
        self.tls = None;
    }

    /// Resets the connection.
    pub fn reset(mut self) {
        self.tls = None;
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))
            .expect("SO_LINGER can be set");
    }

    // Receiving bytes.

    /// Waits for at least one more byte.
    pub fn try_fill(&mut self) -> Result<usize, Stop> {
        self.try_fill_until(Instant::now() + self.timeout)
    }

    fn try_fill_until(&mut self, deadline: Instant) -> Result<usize, Stop> {
        if let Some(tls) = &self.tls {
            // The end was received together with preceding bytes.
            let before = self.unread.len();
            match tls.open(&[], &mut self.unread) {
                Ok(true) if self.unread.len() == before => return Err(Stop::Closed),
                Ok(_) if self.unread.len() > before => return Ok(self.unread.len() - before),
                Ok(_) => {}
                Err(error) => panic!("{}: {error}", self.who),
            }
        }
        let mut piece = [0; 64 * 1024];
        loop {
            // To the kernel, zero means no timeout.
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.stream
                .set_read_timeout(Some(left))
                .expect("a read deadline can be set");
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(Stop::Closed),
                Ok(count) => {
                    let before = self.unread.len();
                    match &self.tls {
                        None => self.unread.extend_from_slice(&piece[..count]),
                        Some(tls) => match tls.open(&piece[..count], &mut self.unread) {
                            Ok(true) if self.unread.len() == before => return Err(Stop::Closed),
                            Ok(_) => {}
                            Err(error) => panic!("{}: {error}", self.who),
                        },
                    }
                    // TLS protocol records contain no data.
                    if self.unread.len() > before {
                        return Ok(self.unread.len() - before);
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut if Instant::now() >= deadline => {
                        return Err(Stop::Silent);
                    }
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    ErrorKind::ConnectionReset
                    | ErrorKind::BrokenPipe
                    | ErrorKind::ConnectionAborted => return Err(Stop::Reset),
                    _ => panic!("{}: {error}", self.who),
                },
            }
        }
    }

    /// Waits for at least one unused byte.
    pub fn try_fill_if_empty(&mut self) -> Result<(), Stop> {
        if self.unread.is_empty() {
            self.try_fill().map(drop)
        } else {
            Ok(())
        }
    }

    /// Waits until the kernel has received bytes, without reading them.
    #[track_caller]
    pub fn wait_for_arrival(&mut self) {
        if self.tls.is_some() && !self.unread.is_empty() {
            // Received together with the end of the handshake.
            return;
        }
        self.stream
            .set_read_timeout(Some(self.timeout))
            .expect("a read deadline can be set");
        match self.stream.peek(&mut [0]) {
            Ok(count) => assert!(
                self.unread.is_empty() && count == 1,
                "{}: the end came, not a byte",
                self.who
            ),
            Err(error) => panic!("{}: nothing arrived: {error}", self.who),
        }
    }

    /// Checks that nothing is received for this time.
    #[track_caller]
    pub fn expect_silence(&mut self, window: Duration) {
        assert!(
            self.unread.is_empty(),
            "{}: bytes where silence was expected: {:?}",
            self.who,
            excerpt(&self.unread)
        );
        match self.try_fill_until(Instant::now() + window) {
            Err(Stop::Silent) => {}
            other => panic!(
                "{}: silence was expected, not {other:?}: {:?}",
                self.who,
                excerpt(&self.unread)
            ),
        }
    }

    /// Exactly `count` bytes.
    pub fn try_take(&mut self, count: usize) -> Result<Vec<u8>, Stop> {
        while self.unread.len() < count {
            self.try_fill()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// Exactly these bytes.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match self.try_take(bytes.len()) {
            Ok(taken) => assert_eq!(latin1(&taken), latin1(bytes), "{}", self.who),
            Err(stop) => self.fail(&stop, &format!("waiting for {:?}", excerpt(bytes))),
        }
    }

    /// Reads everything up to the end; returns it and how the connection ended.
    pub fn drain(&mut self) -> (Vec<u8>, Stop) {
        loop {
            if let Err(stop) = self.try_fill() {
                return (std::mem::take(&mut self.unread), stop);
            }
        }
    }

    fn try_take_past(&mut self, mark: &[u8]) -> Result<Vec<u8>, Stop> {
        let mut searched = 0;
        loop {
            let from = searched;
            if let Some(at) = self.unread[from..]
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Ok(self.unread.drain(..from + at + mark.len()).collect());
            }
            searched = self.unread.len().saturating_sub(mark.len() - 1);
            self.try_fill()?;
        }
    }

    // The end.

    /// The peer closes or resets the connection without further bytes.
    #[track_caller]
    pub fn expect_end(&mut self) -> Stop {
        self.expect_end_within(self.timeout)
    }

    /// The same, with another deadline.
    #[track_caller]
    pub fn expect_end_within(&mut self, timeout: Duration) -> Stop {
        assert!(
            self.unread.is_empty(),
            "{}: bytes where the end was expected: {:?}",
            self.who,
            excerpt(&self.unread)
        );
        match self.try_fill_until(Instant::now() + timeout) {
            Err(stop @ (Stop::Closed | Stop::Reset)) => stop,
            Err(stop) => self.fail(&stop, &format!("waiting {timeout:?} for the end")),
            Ok(_) => panic!(
                "{}: bytes where the end was expected: {:?}",
                self.who,
                excerpt(&self.unread)
            ),
        }
    }

    /// The peer closes the connection, without a reset and without further bytes.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        assert_eq!(
            self.expect_end(),
            Stop::Closed,
            "{}: an orderly end",
            self.who
        );
    }

    /// Whether the connection is open and has no unread bytes; does not wait.
    pub fn is_open(&mut self) -> bool {
        self.unread.is_empty() && self.try_fill_until(Instant::now()) == Err(Stop::Silent)
    }

    // Messages.

    /// Reads the head of a request; returns it and the framing of the body.
    pub fn try_request_head(&mut self) -> Result<(Head, Framing), Stop> {
        let bytes = self.try_take_past(b"\r\n\r\n")?;
        let head = message::read_request_head(&bytes).map_err(Stop::Malformed)?;
        let framing = message::request_framing(&head).map_err(Stop::Malformed)?;
        Ok((head, framing))
    }

    /// Reads the head of a request; returns it and the framing of the body.
    #[track_caller]
    pub fn request_head(&mut self) -> (Head, Framing) {
        match self.try_request_head() {
            Ok(head) => head,
            Err(stop) => self.fail(&stop, "waiting for a request's head"),
        }
    }

    /// Reads a request.
    pub fn try_request(&mut self) -> Result<Request, Stop> {
        let (head, framing) = self.try_request_head()?;
        let (body, trailers) = self.try_body(framing)?;
        let [method, target, version] = head.start;
        Ok(Request {
            method,
            target,
            version,
            fields: head.fields,
            framing,
            body,
            trailers,
        })
    }

    /// Reads a request.
    #[track_caller]
    pub fn request(&mut self) -> Request {
        match self.try_request() {
            Ok(request) => request,
            Err(stop) => self.fail(&stop, "waiting for a request"),
        }
    }

    /// Reads the head of an interim or final response; returns it and the framing of the body.
    pub fn try_response_head(&mut self, method: &str) -> Result<(Head, Framing), Stop> {
        let bytes = self.try_take_past(b"\r\n\r\n")?;
        let head = message::read_response_head(&bytes).map_err(Stop::Malformed)?;
        let framing = message::response_framing(&head, method).map_err(Stop::Malformed)?;
        Ok((head, framing))
    }

    /// Reads the head of an interim or final response; returns it and the framing of the body.
    #[track_caller]
    pub fn response_head(&mut self, method: &str) -> (Head, Framing) {
        match self.try_response_head(method) {
            Ok(head) => head,
            Err(stop) => self.fail(&stop, "waiting for a response's head"),
        }
    }

    /// Reads the final response to `method`, with the interim ones before it.
    pub fn try_response(&mut self, method: &str) -> Result<Response, Stop> {
        let mut interim = Vec::new();
        loop {
            let (head, framing) = self.try_response_head(method)?;
            if head.start[1].starts_with('1') && head.start[1] != "101" {
                interim.push(head);
                continue;
            }
            let (body, trailers) = self.try_body(framing)?;
            let [version, status, reason] = head.start;
            let status = status.parse().expect("three digits were read");
            return Ok(Response {
                interim,
                version,
                status,
                reason,
                fields: head.fields,
                framing,
                body,
                trailers,
            });
        }
    }

    /// Reads the final response to `method`, with the interim ones before it.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        match self.try_response(method) {
            Ok(response) => response,
            Err(stop) => self.fail(&stop, &format!("waiting for the response to {method}")),
        }
    }

    fn try_body(&mut self, framing: Framing) -> Result<(Vec<u8>, Fields), Stop> {
        let mut body = Body::new(framing);
        let mut bytes = Vec::new();
        loop {
            let piece = self.try_some(&mut body)?;
            if piece.is_empty() {
                return Ok((bytes, body.trailers));
            }
            bytes.extend(piece);
        }
    }

    /// The next received bytes of a body, without framing; empty at the end.
    pub fn try_some(&mut self, body: &mut Body) -> Result<Vec<u8>, Stop> {
        loop {
            match body.left {
                Left::Nothing => return Ok(Vec::new()),
                Left::Length(0) => body.left = Left::Nothing,
                Left::Chunk(0) => body.left = Left::AfterChunk,
                Left::Length(left) => {
                    let piece = self.try_at_most(left)?;
                    body.left = Left::Length(left - piece.len() as u64);
                    return Ok(piece);
                }
                Left::Chunk(left) => {
                    let piece = self.try_at_most(left)?;
                    body.left = Left::Chunk(left - piece.len() as u64);
                    return Ok(piece);
                }
                Left::AfterChunk => {
                    let end = self.try_take(2)?;
                    if end != b"\r\n" {
                        return Err(Stop::Malformed(format!(
                            "a chunk's data ends with CRLF, not {:?}",
                            latin1(&end)
                        )));
                    }
                    body.left = Left::BeforeChunk;
                }
                Left::BeforeChunk => {
                    let line = self.try_take_past(b"\r\n")?;
                    let size = message::read_chunk_size(&line[..line.len() - 2])
                        .map_err(Stop::Malformed)?;
                    if size > 0 {
                        body.left = Left::Chunk(size);
                        continue;
                    }
                    let mut lines = Vec::new();
                    while !lines.ends_with(b"\r\n\r\n") && lines != b"\r\n" {
                        lines.extend(self.try_take_past(b"\r\n")?);
                    }
                    body.trailers = message::read_trailers(&lines).map_err(Stop::Malformed)?;
                    body.left = Left::Nothing;
                }
                Left::UntilClose => match self.try_at_most(u64::MAX) {
                    Err(Stop::Closed) => body.left = Left::Nothing,
                    other => return other,
                },
            }
        }
    }

    /// Exactly these bytes of a body, in any number of pieces and chunks.
    #[track_caller]
    pub fn expect_some(&mut self, body: &mut Body, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut taken = Vec::new();
        while taken.len() < bytes.len() {
            match self.try_some(body) {
                Ok(piece) if piece.is_empty() => panic!(
                    "{}: the body ended after {:?}, {:?} was expected",
                    self.who,
                    excerpt(&taken),
                    excerpt(bytes)
                ),
                Ok(piece) => taken.extend(piece),
                Err(stop) => self.fail(
                    &stop,
                    &format!(
                        "waiting for {:?} of a body after {:?}",
                        excerpt(bytes),
                        excerpt(&taken)
                    ),
                ),
            }
        }
        assert_eq!(latin1(&taken), latin1(bytes), "{}", self.who);
    }

    /// The body is complete here.
    #[track_caller]
    pub fn expect_end_of(&mut self, body: &mut Body) {
        match self.try_some(body) {
            Ok(piece) => assert!(
                piece.is_empty(),
                "{}: more of a body that should have ended: {:?}",
                self.who,
                excerpt(&piece)
            ),
            Err(stop) => self.fail(&stop, "waiting for the end of a body"),
        }
    }

    /// The body is cut off, in a way that its receiver can distinguish from its end.
    #[track_caller]
    pub fn expect_cut(&mut self, body: &mut Body) {
        loop {
            match self.try_some(body) {
                Ok(piece) if piece.is_empty() => {
                    panic!("{}: a body that was cut looks complete", self.who)
                }
                Ok(_) => {}
                Err(Stop::Closed | Stop::Reset) => return,
                Err(stop) => self.fail(&stop, "waiting for a body to be cut"),
            }
        }
    }

    fn try_at_most(&mut self, count: u64) -> Result<Vec<u8>, Stop> {
        if self.unread.is_empty() {
            self.try_fill()?;
        }
        let count = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(self.unread.len());
        Ok(self.unread.drain(..count).collect())
    }

    #[track_caller]
    fn fail(&self, stop: &Stop, waiting: &str) -> ! {
        let stop = match stop {
            Stop::Closed => "the other side closed the connection".to_owned(),
            Stop::Reset => "the other side reset the connection".to_owned(),
            Stop::Silent => format!("nothing more came within {:?}", self.timeout),
            Stop::Malformed(why) => format!("the other side sent no HTTP ({why})"),
        };
        panic!(
            "{}: {stop}, {waiting}; unread: {:?}",
            self.who,
            excerpt(&self.unread)
        );
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // The last handle closes the connection.
        if let Some(tls) = self.tls.take().and_then(Arc::into_inner) {
            let _ = tls.finish(&self.stream);
        }
    }
}

impl Body {
    /// A body before its first byte.
    pub fn new(framing: Framing) -> Body {
        let left = match framing {
            Framing::Empty => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::BeforeChunk,
            Framing::UntilClose => Left::UntilClose,
        };
        Body {
            left,
            trailers: Fields::default(),
        }
    }
}

/// The start of the bytes, for the message of a failure.
pub fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    match bytes.get(..SHOWN) {
        Some(start) if bytes.len() > SHOWN => format!("{}… ({} bytes)", latin1(start), bytes.len()),
        _ => latin1(bytes),
    }
}
