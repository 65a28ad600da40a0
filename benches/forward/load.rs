//! The load client: one thread, many connections; checks every status and byte of every response.
//!
//! Closed loop: each connection sends its next request when it has the response to the last. Fixed rate: each request has
//! an intended start, and latency counts from it even if all connections are busy then, so that a stall of the forwarder
//! counts for all requests that it delays (no coordinated omission).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::events::{self, put_digits};
use crate::message::{BodyChecker, BodyDecoder, BodyWriter, Chunked, Framing};
use crate::pattern;
use crate::poll::{Poll, Ready};

/// The address that requests are sent to.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub address: SocketAddr,
    /// Whether the origin must find the fields that a forwarder sets.
    pub sets_fields: bool,
}

/// A kind of request and response; sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// Size of the response body.
    Get(u64),
    /// Sizes of the request body and of the response body.
    Post(u64, u64),
    Down(Framing, u64),
    Up(Framing, u64),
    /// An event stream, with the gap between events in microseconds.
    Stream(u64),
}

/// The result of a run.
#[derive(Debug)]
pub struct Metrics {
    /// Number of responses, or of events.
    pub count: u64,
    pub time: Duration,
    /// In nanoseconds.
    pub latencies: Histogram<u64>,
}

pub struct Client {
    poll: Poll,
    ready: Vec<Ready>,
    buffer: Vec<u8>,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
    upload: Option<BodyWriter>,
    /// The received part of an incomplete response head.
    head: Vec<u8>,
    expected: Expected,
    phase: Phase,
    started: Instant,
}

enum Phase {
    Idle,
    Head,
    Body(BodyChecker),
    Events(BodyDecoder, events::Reader),
    /// The response is complete; the peer still has to close the connection.
    Closing,
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    start: u64,
    len: u64,
    is_stream: bool,
    closes: bool,
}

/// The result of reading from a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    Answered,
}

/// A run fails after this time without progress.
const STALL_MAX: Duration = Duration::from_secs(10);

impl Client {
    pub fn new() -> io::Result<Client> {
        Ok(Client {
            poll: Poll::new()?,
            ready: Vec::new(),
            buffer: vec![0; pattern::RUN_MAX],
            connections: Vec::new(),
        })
    }

    /// Closed loop for `warm_up`, then calls `mark`, then measures for `time`.
    pub fn closed_loop(
        &mut self,
        route: Route,
        workload: Workload,
        connections: usize,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        for _ in 0..connections {
            self.open(route)?;
        }
        let mut template = Template::new(route, workload, false);
        self.rounds(&mut template, warm_up)?;
        mark();
        let metrics = self.rounds(&mut template, time)?;
        self.connections.clear();
        Ok(metrics)
    }

    /// Sends `warm_up` requests in turn on one connection, calls `mark`, then measures `count` more.
    pub fn exactly(
        &mut self,
        route: Route,
        workload: Workload,
        [warm_up, count]: [u64; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        self.open(route)?;
        let mut template = Template::new(route, workload, false);
        let mut metrics = Metrics::new();
        for number in 0..warm_up + count {
            if number == warm_up {
                mark();
                metrics = Metrics::new();
            }
            self.single(0, &mut template, &mut metrics)?;
        }
        metrics.finish();
        self.connections.clear();
        Ok(metrics)
    }

    /// Fixed rate: `rate` requests per second, each on any idle connection.
    pub fn fixed_rate(
        &mut self,
        route: Route,
        workload: Workload,
        connections: usize,
        rate: u32,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        for _ in 0..connections {
            self.open(route)?;
        }
        let mut template = Template::new(route, workload, false);
        self.scheduled(&mut template, rate, warm_up)?;
        mark();
        let metrics = self.scheduled(&mut template, rate, time)?;
        self.connections.clear();
        Ok(metrics)
    }

    /// A new connection for each request, `at_a_time` in parallel; latency includes connecting.
    pub fn new_connections(
        &mut self,
        route: Route,
        workload: Workload,
        at_a_time: usize,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        let mut template = Template::new(route, workload, true);
        let mut metrics = Metrics::new();
        for (time, is_measured) in [(warm_up, false), (time, true)] {
            if is_measured {
                mark();
            }
            metrics = Metrics::new();
            let mut pace = Pace::new(time);
            self.connections.clear();
            for slot in 0..at_a_time {
                let now = Instant::now();
                self.open(route)?;
                self.connections[slot].start(&mut template, now)?;
            }
            let mut busy = at_a_time;
            while busy > 0 {
                self.wait(&mut pace)?;
                for at in 0..self.ready.len() {
                    let slot = self.ready[at].token;
                    if matches!(self.connections[slot].phase, Phase::Closed) {
                        continue;
                    }
                    if self.progress(at, &mut metrics)? == Progress::Answered {
                        pace.moved();
                    }
                    if !matches!(self.connections[slot].phase, Phase::Closed) {
                        continue;
                    }
                    let now = Instant::now();
                    if now < pace.until {
                        self.connections[slot] = Connection::open(route)?;
                        self.poll
                            .add(&self.connections[slot].stream, slot)
                            .map_err(message)?;
                        self.connections[slot].start(&mut template, now)?;
                    } else {
                        busy -= 1;
                    }
                }
            }
            metrics.finish();
        }
        self.connections.clear();
        Ok(metrics)
    }

    /// Opens `streams` streams, waits for an event on each and then for `warm_up`, and measures events for `time`.
    pub fn streams(
        &mut self,
        route: Route,
        gap_micros: u64,
        streams: usize,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        self.hold_streams(route, gap_micros, streams)?;
        self.listen(&mut Metrics::new(), warm_up)?;
        mark();
        let mut metrics = Metrics::new();
        self.listen(&mut metrics, time)?;
        metrics.finish();
        self.connections.clear();
        Ok(metrics)
    }

    /// Reads `count` events of one stream.
    pub fn events(&mut self, route: Route, gap_micros: u64, count: u64) -> Result<Metrics, String> {
        self.connections.clear();
        self.hold_streams(route, gap_micros, 1)?;
        let mut metrics = Metrics::new();
        while metrics.count < count {
            self.listen(&mut metrics, Duration::from_millis(1))?;
        }
        metrics.finish();
        self.connections.clear();
        Ok(metrics)
    }

    /// Opens connections until there are `count`, sends one request on each, and keeps them open.
    pub fn hold_idle(&mut self, route: Route, count: usize) -> Result<(), String> {
        let mut template = Template::new(route, Workload::Get(16), false);
        let mut metrics = Metrics::new();
        while self.connections.len() < count {
            self.open(route)?;
            self.single(self.connections.len() - 1, &mut template, &mut metrics)?;
        }
        Ok(())
    }

    /// Opens streams until there are `count`, waits for an event on each, and keeps them open.
    pub fn hold_streams(
        &mut self,
        route: Route,
        gap_micros: u64,
        count: usize,
    ) -> Result<(), String> {
        let mut template = Template::new(route, Workload::Stream(gap_micros), false);
        while self.connections.len() < count {
            self.open(route)?;
            let last = self.connections.len() - 1;
            self.connections[last].start(&mut template, Instant::now())?;
        }
        let began = |connection: &Connection| match &connection.phase {
            Phase::Events(_, reader) => reader.count() > 0,
            _ => false,
        };
        let mut pace = Pace::new(Duration::ZERO);
        let mut metrics = Metrics::new();
        let mut waiting = 0;
        while waiting < self.connections.len() {
            if began(&self.connections[waiting]) {
                waiting += 1;
                pace.moved();
                continue;
            }
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                self.progress(at, &mut metrics)?;
            }
        }
        Ok(())
    }

    fn listen(&mut self, metrics: &mut Metrics, time: Duration) -> Result<(), String> {
        let mut pace = Pace::new(time);
        self.poll.wake_at(pace.until).map_err(message)?;
        while Instant::now() < pace.until {
            let before = metrics.count;
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                self.progress(at, metrics)?;
            }
            if metrics.count > before {
                pace.moved();
            }
        }
        Ok(())
    }

    fn rounds(&mut self, template: &mut Template, time: Duration) -> Result<Metrics, String> {
        let mut metrics = Metrics::new();
        let mut pace = Pace::new(time);
        for connection in &mut self.connections {
            connection.start(template, Instant::now())?;
        }
        let mut busy = self.connections.len();
        while busy > 0 {
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                if self.progress(at, &mut metrics)? == Progress::Nothing {
                    continue;
                }
                pace.moved();
                let now = Instant::now();
                if now < pace.until {
                    self.connections[self.ready[at].token].start(template, now)?;
                } else {
                    busy -= 1;
                }
            }
        }
        metrics.finish();
        Ok(metrics)
    }

    fn scheduled(
        &mut self,
        template: &mut Template,
        rate: u32,
        time: Duration,
    ) -> Result<Metrics, String> {
        let mut metrics = Metrics::new();
        let mut pace = Pace::new(time);
        let gap = Duration::from_secs(1) / rate;
        let mut due = Instant::now();
        let mut free: Vec<usize> = (0..self.connections.len()).collect();
        loop {
            let mut now = Instant::now();
            while due <= now
                && due < pace.until
                && let Some(slot) = free.pop()
            {
                self.connections[slot].start(template, due)?;
                due += gap;
                now = Instant::now();
            }
            if due >= pace.until && free.len() == self.connections.len() {
                break;
            }
            if due < pace.until && !free.is_empty() {
                self.poll.wake_at(due).map_err(message)?;
            }
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                if self.progress(at, &mut metrics)? == Progress::Answered {
                    pace.moved();
                    free.push(self.ready[at].token);
                }
            }
        }
        metrics.finish();
        Ok(metrics)
    }

    /// Sends one request and waits for its response.
    fn single(
        &mut self,
        slot: usize,
        template: &mut Template,
        metrics: &mut Metrics,
    ) -> Result<(), String> {
        let mut pace = Pace::new(Duration::ZERO);
        self.connections[slot].start(template, Instant::now())?;
        loop {
            let is_upload = self.connections[slot].upload.is_some();
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                if self.progress(at, metrics)? == Progress::Answered {
                    return Ok(());
                }
            }
            // A large body is progress before its end.
            if is_upload || matches!(self.connections[slot].phase, Phase::Body(_)) {
                pace.moved();
            }
        }
    }

    fn open(&mut self, route: Route) -> Result<(), String> {
        let connection = Connection::open(route)?;
        self.poll
            .add(&connection.stream, self.connections.len())
            .map_err(message)?;
        self.connections.push(connection);
        Ok(())
    }

    fn wait(&mut self, pace: &mut Pace) -> Result<(), String> {
        self.poll
            .wait(&mut self.ready, Duration::from_millis(200))
            .map_err(message)?;
        if self.ready.is_empty() && pace.last.elapsed() > STALL_MAX + pace.time {
            return Err(format!("no progress for {} s", STALL_MAX.as_secs()));
        }
        Ok(())
    }

    fn progress(&mut self, at: usize, metrics: &mut Metrics) -> Result<Progress, String> {
        let Ready { token, ended } = self.ready[at];
        let connection = self
            .connections
            .get_mut(token)
            .ok_or("an event of a closed connection")?;
        connection.progress(ended, &mut self.buffer, metrics)
    }
}

impl Connection {
    fn open(route: Route) -> Result<Connection, String> {
        let stream = TcpStream::connect(route.address).map_err(message)?;
        stream.set_nonblocking(true).map_err(message)?;
        stream.set_nodelay(true).map_err(message)?;
        Ok(Connection {
            stream,
            request: Vec::new(),
            sent: 0,
            upload: None,
            head: Vec::new(),
            expected: Expected {
                start: 0,
                len: 0,
                is_stream: false,
                closes: false,
            },
            phase: Phase::Idle,
            started: Instant::now(),
        })
    }

    /// Sends a request; its latency counts from `started`.
    fn start(&mut self, template: &mut Template, started: Instant) -> Result<(), String> {
        self.started = started;
        self.expected = template.next(&mut self.request);
        self.upload = template.upload.clone();
        self.sent = 0;
        self.phase = Phase::Head;
        self.send()
    }

    fn send(&mut self) -> Result<(), String> {
        while self.sent < self.request.len() {
            match (&self.stream).write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("sending a request: {error}")),
            }
        }
        if let Some(upload) = &mut self.upload
            && upload
                .write_to(&self.stream)
                .map_err(|error| format!("sending a body: {error}"))?
        {
            self.upload = None;
        }
        Ok(())
    }

    fn progress(
        &mut self,
        ended: bool,
        buffer: &mut [u8],
        metrics: &mut Metrics,
    ) -> Result<Progress, String> {
        if self.sent < self.request.len() || self.upload.is_some() {
            self.send()?;
        }
        let mut progress = Progress::Nothing;
        loop {
            let count = match (&self.stream).read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(progress),
                Err(error) => return Err(format!("reading a response: {error}")),
            };
            if count == 0 {
                return match self.phase {
                    Phase::Closing => {
                        self.phase = Phase::Closed;
                        Ok(progress)
                    }
                    _ => Err("the connection was closed".to_owned()),
                };
            }
            if self.take(&buffer[..count], metrics)? {
                metrics.add(self.started.elapsed());
                progress = Progress::Answered;
                if !self.expected.closes {
                    self.phase = Phase::Idle;
                    return Ok(progress);
                }
                self.phase = Phase::Closing;
            }
            // A short read has drained the socket, unless the end of the stream follows.
            if count < buffer.len() && !ended {
                return Ok(progress);
            }
        }
    }

    /// Checks received bytes; returns whether the response is complete.
    fn take(&mut self, mut bytes: &[u8], metrics: &mut Metrics) -> Result<bool, String> {
        if matches!(self.phase, Phase::Head) {
            let before = self.head.len();
            if before > 0 {
                self.head.extend_from_slice(bytes);
            }
            let whole = if before > 0 { &self.head } else { bytes };
            let Some((len, body)) = response(whole)? else {
                if before == 0 {
                    self.head.extend_from_slice(bytes);
                }
                return Ok(false);
            };
            bytes = &bytes[len - before..];
            self.head.clear();
            self.phase = if self.expected.is_stream {
                Phase::Events(body, events::Reader::new())
            } else {
                Phase::Body(BodyChecker::new(body, self.expected.start))
            };
        }
        match &mut self.phase {
            Phase::Body(checker) => {
                let used = checker.take(bytes)?;
                if used < bytes.len() {
                    return Err("bytes after a response".to_owned());
                }
                if checker.is_over() && checker.found() != self.expected.len {
                    return Err(format!(
                        "{} bytes instead of {}",
                        checker.found(),
                        self.expected.len
                    ));
                }
                Ok(checker.is_over())
            }
            Phase::Events(decoder, reader) => {
                while !bytes.is_empty() {
                    let (data, used) = decoder.next(bytes)?;
                    reader.take(&bytes[data], |delay| metrics.add(delay))?;
                    bytes = &bytes[used..];
                    if decoder.is_over() {
                        return Err("the stream ended".to_owned());
                    }
                }
                Ok(false)
            }
            _ => Err("unexpected bytes".to_owned()),
        }
    }
}

impl Metrics {
    fn new() -> Metrics {
        Metrics {
            count: 0,
            time: Duration::ZERO,
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX, 3)
                .expect("bounds in order, and few digits"),
        }
        .begin()
    }

    fn begin(mut self) -> Metrics {
        self.time = events::clock();
        self
    }

    fn finish(&mut self) {
        self.time = events::clock() - self.time;
    }

    fn add(&mut self, latency: Duration) {
        self.count += 1;
        self.latencies.saturating_record(latency.as_nanos() as u64);
    }
}

/// A minute, in nanoseconds: longer than any wait.
const LATENCY_MAX: u64 = 60_000_000_000;

/// When to stop sending requests, and the time of the last progress.
struct Pace {
    time: Duration,
    until: Instant,
    last: Instant,
}

impl Pace {
    fn new(time: Duration) -> Pace {
        let now = Instant::now();
        Pace {
            time,
            until: now + time,
            last: now,
        }
    }

    fn moved(&mut self) {
        self.last = Instant::now();
    }
}

/// A request without its number.
struct Template {
    bytes: Vec<u8>,
    digits_at: usize,
    /// Offset of a body that is sent with the head, and the length of the request body.
    body: (usize, u64),
    upload: Option<BodyWriter>,
    answer: u64,
    is_stream: bool,
    closes: bool,
    sequence: u64,
}

impl Template {
    fn new(route: Route, workload: Workload, closes: bool) -> Template {
        let (method, kind, number) = match workload {
            Workload::Get(len) => ("GET", "length", len),
            Workload::Post(_, len) => ("POST", "length", len),
            Workload::Down(Framing::Length, len) => ("GET", "length", len),
            Workload::Down(Framing::Chunked, len) => ("GET", "chunked", len),
            Workload::Up(..) => ("POST", "length", 16),
            Workload::Stream(gap) => ("POST", "stream", gap),
        };
        let promise = if route.sets_fields { 'f' } else { 'd' };
        let mut text = format!("{method} /{promise}/{kind}/{number}/");
        let digits_at = text.len();
        let close = if closes { "close" } else { "keep-alive" };
        text.push_str(&format!(
            "{:0width$} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: gzip, deflate\r\nConnection: {close}\r\n\
             Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.99.0\r\n\
             X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.0\r\nX-Stainless-OS: Linux\r\n\
             X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.3\r\n\
             Authorization: Bearer sk-0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
             X-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n",
            0,
            route.address,
            width = DIGITS,
        ));
        let upload = match workload {
            Workload::Up(framing, len) => Some(BodyWriter::new(framing, len)),
            _ => None,
        };
        let body = match workload {
            Workload::Post(len, _) => len,
            _ => 0,
        };
        match workload {
            Workload::Up(Framing::Chunked, _) => text.push_str("Transfer-Encoding: chunked\r\n"),
            Workload::Up(Framing::Length, len) | Workload::Post(len, _) => {
                text.push_str(&format!("Content-Length: {len}\r\n"));
            }
            Workload::Stream(_) => text.push_str("Content-Length: 0\r\n"),
            Workload::Get(_) | Workload::Down(..) => {}
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        let body_at = bytes.len();
        bytes.resize(body_at + body as usize, 0);
        let (received, answer) = match workload {
            Workload::Get(len) | Workload::Post(_, len) => (body, len),
            Workload::Up(_, len) => (len, 16),
            Workload::Down(_, len) => (0, len),
            Workload::Stream(_) => (0, 0),
        };
        Template {
            bytes,
            digits_at,
            body: (body_at, received),
            upload,
            answer,
            is_stream: matches!(workload, Workload::Stream(_)),
            closes,
            sequence: 0,
        }
    }

    /// Writes the next request to `request` and returns what to expect in response.
    fn next(&mut self, request: &mut Vec<u8>) -> Expected {
        let (body_at, received) = self.body;
        put_digits(&mut self.bytes[self.digits_at..][..DIGITS], self.sequence);
        let body = &mut self.bytes[body_at..];
        body.copy_from_slice(pattern::bytes(self.sequence, body.len()));
        request.clear();
        request.extend_from_slice(&self.bytes);
        // Large bodies start at the start of the pattern, in both directions.
        let start = match (&self.upload, self.answer) {
            (None, len) if len > 64 * 1024 => 0,
            _ => self.sequence + received,
        };
        if self.upload.is_none() {
            self.sequence += 1;
        }
        Expected {
            start,
            len: self.answer,
            is_stream: self.is_stream,
            closes: self.closes,
        }
    }
}

const DIGITS: usize = 10;

/// Returns the length of a complete head and a decoder for the body that follows.
fn response(bytes: &[u8]) -> Result<Option<(usize, BodyDecoder)>, String> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut slots);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("invalid response head: {error}")),
    };
    if head.code != Some(200) {
        let rest = String::from_utf8_lossy(&bytes[len..bytes.len().min(len + 200)]);
        return Err(format!("status {}: {rest}", head.code.unwrap_or(0)));
    }
    let mut body = None;
    let mut is_marked = false;
    for field in head.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value)
                .ok()
                .and_then(|text| text.parse().ok());
            body = Some(BodyDecoder::Length(length.ok_or("invalid Content-Length")?));
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Some(BodyDecoder::Chunked(Chunked::start()));
        } else if field.name.eq_ignore_ascii_case("x-litellm-version") {
            is_marked = true;
        }
    }
    if !is_marked {
        return Err("response without the fields of the origin".to_owned());
    }
    match body {
        Some(body) => Ok(Some((len, body))),
        None => Err("response without framing".to_owned()),
    }
}

fn message(error: io::Error) -> String {
    error.to_string()
}
