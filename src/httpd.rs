//! A small HTTP/1.1 server for `ic mock` and `ic ui`: a thread for each connection, one request after the other.
//!
//! Their clients open few connections, and a response may block: it reads files, tries ports, or pauses between two
//! events. Threads keep a slow response from delaying the others. How a request is read is decided in [`http`](crate::http);
//! who is served, and with what, is decided by a [`Handler`].

mod limiter;

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::body::{Body, BodyMode};
use crate::http::connection::ConnectionOptions;
use crate::http::framing::{self, Framing};
use crate::http::head::{self, RequestHead, Slots, Version};
use crate::http::reply::{self, ConnectionField, ReplyOptions};
use crate::http::scan::Scan;
use crate::http::target::Target;
use crate::http::{Error, Parsed, Sender};
use crate::serve::listen;

use self::limiter::{ConnectionLimiter, Slot};

/// What a server answers.
pub trait Handler: Send + Sync + 'static {
    /// What a request asks for, as its head says.
    type Route;

    /// The largest number of connections.
    const CONNECTIONS_MAX: usize;

    /// The largest request body, in MiB.
    const BODY_MIB_MAX: usize;

    /// Returns what the request asks for.
    ///
    /// # Errors
    ///
    /// The response that refuses it; nothing of its body is read.
    fn route(
        &self,
        head: &RequestHead<'_, '_>,
        target: &Target<'_>,
        framing: Framing,
    ) -> Result<Self::Route, Response>;

    /// Whether the client is trusted: its connection is not closed to make room while it is served.
    fn is_trusted(&self, route: &Self::Route) -> bool;

    /// Returns the response to a whole request.
    fn respond(self: &Arc<Self>, route: Self::Route, body: Vec<u8>) -> Response;

    /// Returns an error response in the form that the clients of this server expect; `route` is `None` where the head is
    /// malformed.
    fn error(&self, route: Option<&Self::Route>, status: u16, message: &str) -> Response;
}

/// Writes the body of a response piece by piece.
pub struct BodyWriter<'a> {
    stream: &'a TcpStream,
    is_chunked: bool,
}

impl BodyWriter<'_> {
    /// Sends these bytes, which must not be empty, at once.
    ///
    /// # Errors
    ///
    /// The client disconnected, or reads nothing for `WRITE_TIME_MAX`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_chunked {
            return self.stream.write_all(bytes);
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk)
    }

    fn finish(mut self) -> io::Result<()> {
        if self.is_chunked {
            self.stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }
}

/// A response.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Its media type.
    pub content_type: &'static str,
    /// More field lines, each with its line end.
    pub fields: Cow<'static, str>,
    /// The body.
    pub body: ResponseBody,
}

/// The body of a response.
pub enum ResponseBody {
    /// The whole body.
    Bytes(Cow<'static, [u8]>),
    /// A function that writes the body piece by piece. An error closes the connection.
    Stream(Box<StreamBody>),
}

/// Writes a body piece by piece.
pub type StreamBody = dyn FnOnce(&mut BodyWriter<'_>) -> io::Result<()>;

/// Accepts connections and answers their requests until a listener fails; returns that error.
pub fn run<H: Handler>(listeners: Vec<TcpListener>, handler: Arc<H>) -> io::Error {
    let limiter = Arc::new(ConnectionLimiter::new(H::CONNECTIONS_MAX));
    let (failed, failure) = mpsc::channel();
    for listener in listeners {
        let (handler, limiter) = (Arc::clone(&handler), Arc::clone(&limiter));
        let failed = failed.clone();
        let accept = move || {
            let error = accept_all(&listener, &handler, &limiter);
            // The receiver is gone only if the other listener failed first.
            let _ = failed.send(error);
        };
        if let Err(error) = spawn("listener", accept) {
            return error;
        }
    }
    drop(failed);
    failure
        .recv()
        .unwrap_or_else(|_| ErrorKind::AddrNotAvailable.into())
}

fn accept_all<H: Handler>(
    listener: &TcpListener,
    handler: &Arc<H>,
    limiter: &Arc<ConnectionLimiter>,
) -> io::Error {
    loop {
        let stream = match listen::accept_blocking(listener) {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let Some(slot) = limiter.enter(&stream) else {
            continue;
        };
        let handler = Arc::clone(handler);
        // An error means that the client disconnected or was too slow, so it cannot be reported. Without a thread
        // the connection is closed, and the client may try again.
        let _ = spawn("connection", move || {
            let _ = serve(stream, &handler, &slot);
        });
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}

/// Answers the requests of one connection.
fn serve<H: Handler>(stream: TcpStream, handler: &Arc<H>, slot: &Slot) -> io::Result<()> {
    // Each event leaves as it is written.
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIME_MAX))?;
    let mut connection = Connection {
        stream,
        bytes: Vec::new(),
        request: Request::UNREADABLE,
    };
    loop {
        slot.set_idle();
        match connection.receive(&**handler, slot) {
            Ok((route, body)) => connection.send(handler.respond(route, body))?,
            Err(ReceiveError::Refused(response)) => return connection.refuse(response),
            Err(ReceiveError::Io(error)) => return Err(error),
        }
        if !connection.request.persists {
            return Ok(());
        }
    }
}

/// Why a request is not passed to the handler.
enum ReceiveError {
    Io(io::Error),
    Refused(Response),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> ReceiveError {
        ReceiveError::Io(error)
    }
}

/// What decides how a request is read and answered, whatever it asks for.
#[derive(Clone, Copy)]
struct Request {
    framing: Framing,
    version: Version,
    is_head: bool,
    /// Another request may follow on the connection.
    persists: bool,
    expects_continue: bool,
}

impl Request {
    /// A request whose head is malformed.
    const UNREADABLE: Request = Request {
        framing: Framing::Empty,
        version: Version::Http11,
        is_head: false,
        persists: false,
        expects_continue: false,
    };
}

struct Connection {
    stream: TcpStream,
    /// Read and not yet used.
    bytes: Vec<u8>,
    /// The current request.
    request: Request,
}

impl Connection {
    /// Reads the next request.
    fn receive<H: Handler>(
        &mut self,
        handler: &H,
        slot: &Slot,
    ) -> Result<(H::Route, Vec<u8>), ReceiveError> {
        let route = self.read_head(handler)?;
        if handler.is_trusted(&route) {
            slot.set_busy();
        }
        let body = self.read_body(handler, &route)?;
        Ok((route, body))
    }

    fn read_head<H: Handler>(&mut self, handler: &H) -> Result<H::Route, ReceiveError> {
        self.request = Request::UNREADABLE;
        let mut deadline = Instant::now() + IDLE_TIME_MAX;
        let mut scan = Scan::head(Sender::Client);
        let mut seen = 0;
        loop {
            if seen == 0 || scan.is_decided(&self.bytes) {
                let parsed = self.take_head(handler);
                if let Parsed::Complete(route) =
                    parsed.map_err(|error| malformed(handler, None, error))?
                {
                    return route.map_err(ReceiveError::Refused);
                }
            }
            seen = self.bytes.len();
            if seen > 0 {
                deadline = deadline.min(Instant::now() + REQUEST_TIME_MAX);
            }
            self.fill(deadline)?;
        }
    }

    /// Parses and removes the head that the bytes begin with.
    fn take_head<H: Handler>(
        &mut self,
        handler: &H,
    ) -> Result<Parsed<Result<H::Route, Response>>, Error> {
        let mut slots = Slots::default();
        let Parsed::Complete(head) = head::request(&self.bytes, &mut slots)? else {
            return Ok(Parsed::Partial);
        };
        let target = Target::parse(head.method, head.target)?;
        let framing = framing::of_request(&head)?;
        let is_http11 = head.version == Version::Http11;
        let expects_continue = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
        self.request = Request {
            framing,
            version: head.version,
            is_head: head.method == "HEAD",
            persists: is_http11
                && ConnectionOptions::parse(head.fields)?.is_persistent(head.version),
            expects_continue: is_http11 && field(&head, "Expect").is_some_and(expects_continue),
        };
        let route = handler.route(&head, &target, framing);
        let len = head.len;
        self.bytes.drain(..len);
        Ok(Parsed::Complete(route))
    }

    /// Reads the body of an accepted request.
    fn read_body<H: Handler>(
        &mut self,
        handler: &H,
        route: &H::Route,
    ) -> Result<Vec<u8>, ReceiveError> {
        let mut body = Body::new(self.request.framing);
        let mut data = Vec::new();
        if self.request.expects_continue && !body.is_complete() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        loop {
            let drop_trailers = |_: &str| false;
            let used = body
                .take_ready(&self.bytes, BodyMode::Dechunked, drop_trailers, &mut data)
                .map_err(|error| malformed(handler, Some(route), error))?;
            self.bytes.drain(..used);
            if data.len() > H::BODY_MIB_MAX << 20 {
                let max = H::BODY_MIB_MAX;
                let message = format!("the request body is over {max} MiB; send less");
                return Err(ReceiveError::Refused(handler.error(
                    Some(route),
                    413,
                    &message,
                )));
            }
            if body.is_complete() {
                return Ok(data);
            }
            self.fill(Instant::now() + REQUEST_TIME_MAX)?;
        }
    }

    fn send(&mut self, response: Response) -> io::Result<()> {
        let Response {
            status,
            content_type,
            fields,
            body,
        } = response;
        let options = ReplyOptions {
            head_only: self.request.is_head,
            connection: match self.request.persists {
                true => ConnectionField::Absent,
                false => ConnectionField::Close,
            },
        };
        let mut out = Vec::new();
        match body {
            ResponseBody::Bytes(body) => {
                reply::document(status, content_type, &fields, &body, options, &mut out);
                self.stream.write_all(&out)
            }
            ResponseBody::Stream(write) => {
                let is_chunked = self.request.version == Version::Http11;
                reply::stream_head(content_type, &fields, is_chunked, options, &mut out);
                self.stream.write_all(&out)?;
                if options.head_only {
                    return Ok(());
                }
                let mut writer = BodyWriter {
                    stream: &self.stream,
                    is_chunked,
                };
                write(&mut writer)?;
                writer.finish()
            }
        }
    }

    /// Answers a request whose body is not read, and closes the connection.
    fn refuse(&mut self, response: Response) -> io::Result<()> {
        self.request.persists = false;
        self.send(response)?;
        self.stream.shutdown(Shutdown::Write)?;
        // With unread bytes, closing resets the connection, and the client may lose the response (RFC 9112 §9.6).
        let deadline = Instant::now() + LINGER_TIME_MAX;
        while Instant::now() < deadline {
            self.bytes.clear();
            self.fill(deadline)?;
        }
        Ok(())
    }

    /// Reads at least one byte.
    ///
    /// # Errors
    ///
    /// The deadline passed, or the client closed its side.
    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no limit.
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.bytes.extend_from_slice(&piece[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Refuses a malformed request.
fn malformed<H: Handler>(handler: &H, route: Option<&H::Route>, error: Error) -> ReceiveError {
    let reply = error.reply();
    ReceiveError::Refused(handler.error(route, reply.status, &reply.message))
}

/// The value of the first field of that name.
pub fn field<'b>(head: &RequestHead<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let mut fields = head.fields.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
    Some(field.value)
}

/// Between requests; browsers give up earlier.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// For a whole head, and for each piece of a body.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// For a client that reads nothing.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// For a client to read the response that refuses its request.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
