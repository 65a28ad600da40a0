//! The origin: responds as the path of the request says, and checks the request.
//!
//! `/{d|f}/KIND/N/SEQUENCE`: `d` for direct, `f` for a request through a forwarder. A forwarded request without the fields
//! that all forwarders must set is answered with 500, and so is a body that differs from the pattern: a forwarder that
//! omits work fails instead of winning.
//!
//! | KIND | response |
//! |---|---|
//! | `length`, `chunked` | N bytes of the pattern, in that framing; they start where the request's body ended |
//! | `stream` | an event every N µs, until the client disconnects |

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::events;
use crate::message::{BodyChecker, BodyDecoder, BodyWriter, Chunked, Framing};
use crate::pattern;
use crate::poll::{Poll, Ready, pin};

/// The fields that every forwarder is configured to set, beside `Host` and `Via`.
pub const FIELDS: [(&str, &str); 3] = [
    ("x-memory-user-id", "bench"),
    ("x-pycharm-instance", "bench"),
    ("x-source", "pycharm-ai-chat"),
];

/// Starts the origin in a thread on core `core`; returns its address.
pub fn start(core: usize) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // The backlog of `bind` is too short for thousands of simultaneous connections.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let serve = move || {
        pin(core)?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER)?;
        let host = address.to_string();
        Origin {
            listener,
            host,
            poll,
            slots: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            accepted: 0,
        }
        .run()
    };
    let serve = move || serve().unwrap_or_else(|error: io::Error| panic!("the origin: {error}"));
    thread::Builder::new()
        .name("origin".to_owned())
        .spawn(serve)?;
    Ok(address)
}

const LISTENER: usize = usize::MAX - 1;

/// The fractional parts of its multiples are spread evenly between 0 and 1.
const GOLDEN: f64 = 0.618_033_988_749_895;

struct Origin {
    listener: TcpListener,
    host: String,
    poll: Poll,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// The next event of each stream: time, slot, and `Connection::id`.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    accepted: u64,
}

struct Connection {
    stream: TcpStream,
    /// Differs from that of earlier connections in the same slot.
    id: u64,
    /// The received part of an incomplete head.
    head: Vec<u8>,
    phase: Phase,
    /// Bytes that the socket has not accepted yet.
    out: Vec<u8>,
    closes: bool,
}

enum Phase {
    Head,
    Body(BodyChecker, ResponseSpec),
    Answer(BodyWriter),
    Stream { gap: Duration, sequence: u64 },
}

#[derive(Debug, Clone, Copy)]
struct ResponseSpec {
    kind: Kind,
    number: u64,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Pattern(Framing),
    Stream,
}

/// Why a connection ends.
enum ConnectionEnd {
    Closed,
    /// The request was invalid; the message is sent to the client.
    Refused(String),
}

impl From<io::Error> for ConnectionEnd {
    fn from(_: io::Error) -> ConnectionEnd {
        ConnectionEnd::Closed
    }
}

impl Origin {
    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut buffer = vec![0; pattern::RUN_MAX];
        loop {
            self.poll.wait(&mut ready, Duration::from_secs(3600))?;
            for &Ready { token, ended } in &ready {
                if token == LISTENER {
                    self.accept()?;
                } else {
                    self.serve(token, ended, &mut buffer);
                }
            }
            self.emit()?;
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            self.poll.add(&stream, slot)?;
            self.accepted += 1;
            self.slots[slot] = Some(Connection {
                stream,
                id: self.accepted,
                head: Vec::new(),
                phase: Phase::Head,
                out: Vec::new(),
                closes: false,
            });
        }
    }

    fn serve(&mut self, slot: usize, ended: bool, buffer: &mut [u8]) {
        let Some(connection) = &mut self.slots[slot] else {
            return;
        };
        let result = connection.progress(ended, &self.host, buffer);
        if let Ok(Some(gap)) = result {
            // Events are spread evenly over the gap even if the streams open within a short time; otherwise a faster
            // forwarder would receive its events in bursts.
            let part = (connection.id as f64 * GOLDEN).fract();
            let first = Instant::now() + gap + gap.mul_f64(part);
            self.due.push(Reverse((first, slot, connection.id)));
        }
        if let Err(end) = result {
            if let ConnectionEnd::Refused(why) = end {
                let text = format!(
                    "HTTP/1.1 500 Refused\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{why}",
                    why.len()
                );
                // A client that cannot read it sees the end of the connection.
                let _ = (&connection.stream).write(text.as_bytes());
            }
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }

    /// Sends the events that are due, and sets the timer for the next.
    fn emit(&mut self) -> io::Result<()> {
        let mut now = Instant::now();
        while let Some(&Reverse((due, slot, id))) = self.due.peek() {
            if due > now {
                now = Instant::now();
                if due > now {
                    return self.poll.wake_at(due);
                }
            }
            self.due.pop();
            let connection = self.slots[slot].as_mut().filter(|found| found.id == id);
            let Some(connection) = connection else {
                continue;
            };
            if let Some(gap) = connection.emit() {
                // After a long delay, events are skipped instead of sent in one burst.
                let next = (due + gap).max(now.checked_sub(gap * 8).unwrap_or(now));
                self.due.push(Reverse((next, slot, id)));
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Reads and writes until the socket would block; returns the gap between events when a stream begins.
    fn progress(
        &mut self,
        ended: bool,
        host: &str,
        buffer: &mut [u8],
    ) -> Result<Option<Duration>, ConnectionEnd> {
        loop {
            if !self.flush()? {
                return Ok(None);
            }
            if let Phase::Answer(source) = &mut self.phase {
                if !source.write_to(&self.stream)? {
                    return Ok(None);
                }
                self.phase = Phase::Head;
            }
            if self.closes && matches!(self.phase, Phase::Head) {
                return Err(ConnectionEnd::Closed);
            }
            let count = match (&self.stream).read(buffer) {
                Ok(0) => return Err(ConnectionEnd::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            self.take(&buffer[..count], host)
                .map_err(ConnectionEnd::Refused)?;
            if let Phase::Stream { gap, .. } = self.phase {
                self.flush()?;
                return Ok(Some(gap));
            }
            // A short read has drained the socket, unless the end of the stream follows.
            if count < buffer.len() && !ended && matches!(self.phase, Phase::Head | Phase::Body(..))
            {
                self.flush()?;
                if self.out.is_empty() && !self.closes {
                    return Ok(None);
                }
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], host: &str) -> Result<(), String> {
        while !bytes.is_empty() {
            match &mut self.phase {
                Phase::Head => {
                    let before = self.head.len();
                    let parsed = if before == 0 {
                        request(bytes, host)?
                    } else {
                        self.head.extend_from_slice(bytes);
                        request(&self.head, host)?
                    };
                    let Some(request) = parsed else {
                        if before == 0 {
                            self.head.extend_from_slice(bytes);
                        }
                        return Ok(());
                    };
                    self.head.clear();
                    bytes = &bytes[request.len - before..];
                    self.closes = request.closes;
                    self.phase = Phase::Body(
                        BodyChecker::new(request.body, request.spec.sequence),
                        request.spec,
                    );
                }
                Phase::Body(checker, _) => {
                    let used = checker.take(bytes)?;
                    bytes = &bytes[used..];
                }
                Phase::Answer(_) | Phase::Stream { .. } => {
                    return Err("a request before the response to the last one".to_owned());
                }
            }
            if let Phase::Body(checker, spec) = &self.phase
                && checker.is_over()
            {
                self.answer(*spec, checker.found());
            }
        }
        Ok(())
    }

    fn answer(&mut self, spec: ResponseSpec, received: u64) {
        let ResponseSpec {
            kind,
            number,
            sequence,
        } = spec;
        self.out.extend_from_slice(HEAD);
        match kind {
            Kind::Pattern(Framing::Length) => {
                let field = format!("content-length: {number}\r\n\r\n");
                self.out.extend_from_slice(field.as_bytes());
                if number <= SMALL {
                    let body = pattern::bytes(sequence + received, number as usize);
                    self.out.extend_from_slice(body);
                    self.phase = Phase::Head;
                } else {
                    self.phase = Phase::Answer(BodyWriter::new(Framing::Length, number));
                }
            }
            Kind::Pattern(Framing::Chunked) => {
                self.out
                    .extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                self.phase = Phase::Answer(BodyWriter::new(Framing::Chunked, number));
            }
            Kind::Stream => {
                self.out.extend_from_slice(
                    b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
                );
                self.phase = Phase::Stream {
                    gap: Duration::from_micros(number),
                    sequence: 0,
                };
            }
        }
    }

    /// Sends one event; returns the gap to the next, or `None` if the stream is over.
    fn emit(&mut self) -> Option<Duration> {
        let Phase::Stream { gap, sequence } = &mut self.phase else {
            return None;
        };
        let gap = *gap;
        // No further events while the client does not read.
        if self.out.is_empty() {
            events::write(*sequence, &mut self.out);
            *sequence += 1;
        }
        // The poll also reports a failed connection, which removes it.
        self.flush().is_ok().then_some(gap)
    }

    /// Writes `out` until the socket would block; returns whether `out` is empty.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match (&self.stream).write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

struct Request {
    len: usize,
    spec: ResponseSpec,
    body: BodyDecoder,
    closes: bool,
}

/// Parses a head (`None` if incomplete) and checks the fields that a forwarder must set.
fn request(bytes: &[u8], host: &str) -> Result<Option<Request>, String> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut slots);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("invalid request head: {error}")),
    };
    let target = head.path.unwrap_or_default();
    let mut body = BodyDecoder::Length(0);
    let mut closes = false;
    let mut found = [false; FIELDS.len() + 3];
    for field in head.headers.iter() {
        let name = field.name;
        if name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value)
                .ok()
                .and_then(|text| text.parse().ok());
            body = BodyDecoder::Length(length.ok_or("invalid Content-Length")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            body = BodyDecoder::Chunked(Chunked::start());
        } else if name.eq_ignore_ascii_case("connection") {
            closes = field.value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case("host") {
            found[0] = field.value == host.as_bytes();
        } else if name.eq_ignore_ascii_case("via") {
            found[1] = true;
        } else if name.eq_ignore_ascii_case("authorization") {
            found[2] = true;
        } else if let Some(at) = FIELDS
            .iter()
            .position(|(set, _)| name.eq_ignore_ascii_case(set))
        {
            found[3 + at] = field.value == FIELDS[at].1.as_bytes();
        }
    }
    let mut parts = target.split('/').skip(1);
    let mut part = || {
        parts
            .next()
            .ok_or_else(|| format!("an unknown target: {target}"))
    };
    if part()? == "f" && found.contains(&false) {
        let names = ["host", "via", "authorization"]
            .into_iter()
            .chain(FIELDS.map(|(name, _)| name));
        let missing: Vec<&str> = names
            .zip(found)
            .filter(|(_, found)| !found)
            .map(|(name, _)| name)
            .collect();
        return Err(format!("missing or wrong: {}", missing.join(", ")));
    }
    let kind = match part()? {
        "length" => Kind::Pattern(Framing::Length),
        "chunked" => Kind::Pattern(Framing::Chunked),
        "stream" => Kind::Stream,
        other => return Err(format!("an unknown kind: {other}")),
    };
    let mut number = || {
        part()?
            .parse()
            .map_err(|_| format!("no number in {target}"))
    };
    let spec = ResponseSpec {
        kind,
        number: number()?,
        sequence: number()?,
    };
    Ok(Some(Request {
        len,
        spec,
        body,
        closes,
    }))
}

/// The response head of LiteLLM on uvicorn, without framing.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n\
    x-litellm-call-id: 01234567-89ab-cdef-0123-456789abcdef\r\nx-litellm-version: 1.77.0\r\n";

/// A response up to this size is written at once and starts where the request's body ended; a larger one starts at 0.
const SMALL: u64 = 64 * 1024;
