//! The load client: one thread, many connections, and every status and byte of every answer checked.
//!
//! Closed loop: each connection sends its next request when it has the answer to the last. Fixed rate: requests have
//! an intended start, and latency counts from it, also while all connections are busy; so a forwarder that stalls
//! cannot hide the requests that would have come meanwhile (coordinated omission).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::events::{self, put_digits};
use crate::message::{Chunked, Follower, Framing, Sink, Source};
use crate::pattern;
use crate::poll::{Poll, Ready};

/// Where requests go, and what the origin is told about it.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub address: SocketAddr,
    /// Whether the fields that a forwarder sets must be there.
    pub sets_fields: bool,
}

/// A request and its answer.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// An answer of so many bytes.
    Get(u64),
    /// A request body and an answer of so many bytes.
    Post(u64, u64),
    Down(Framing, u64),
    Up(Framing, u64),
    /// Events, one each so many microseconds.
    Stream(u64),
}

/// What a run came to.
#[derive(Debug)]
pub struct Metrics {
    /// Answers, or events.
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
    upload: Option<Source>,
    /// The part of an answer's head that has come.
    head: Vec<u8>,
    expected: Expected,
    phase: Phase,
    started: Instant,
}

enum Phase {
    Idle,
    Head,
    Body(Sink),
    Events(Follower, events::Reader),
    /// The answer is complete, the connection has still to be closed by the other side.
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

/// What has happened on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    Answered,
}

/// How long nothing may happen before a run has failed.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    pub fn new() -> io::Result<Client> {
        Ok(Client {
            poll: Poll::new()?,
            ready: Vec::new(),
            buffer: vec![0; pattern::RUN_MAX],
            connections: Vec::new(),
        })
    }

    /// Closed loop: `warm_up`, then `mark`, then `time`.
    pub fn closed_loop(
        &mut self,
        route: Route,
        ask: Ask,
        connections: usize,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        for _ in 0..connections {
            self.open(route)?;
        }
        let mut template = Template::new(route, ask, false);
        self.rounds(&mut template, warm_up)?;
        mark();
        let tally = self.rounds(&mut template, time)?;
        self.connections.clear();
        Ok(tally)
    }

    /// So many requests in turn on one connection, after `warm_up` others.
    pub fn exactly(
        &mut self,
        route: Route,
        ask: Ask,
        [warm_up, count]: [u64; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        self.open(route)?;
        let mut template = Template::new(route, ask, false);
        let mut tally = Metrics::new();
        for number in 0..warm_up + count {
            if number == warm_up {
                mark();
                tally = Metrics::new();
            }
            self.single(0, &mut template, &mut tally)?;
        }
        tally.finish();
        self.connections.clear();
        Ok(tally)
    }

    /// Fixed rate: `rate` requests a second, on whichever of the connections is free.
    pub fn fixed_rate(
        &mut self,
        route: Route,
        ask: Ask,
        connections: usize,
        rate: u32,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        self.connections.clear();
        for _ in 0..connections {
            self.open(route)?;
        }
        let mut template = Template::new(route, ask, false);
        self.scheduled(&mut template, rate, warm_up)?;
        mark();
        let tally = self.scheduled(&mut template, rate, time)?;
        self.connections.clear();
        Ok(tally)
    }

    /// A new connection for each request, some at a time; latency from before connecting.
    pub fn new_connections(
        &mut self,
        route: Route,
        ask: Ask,
        at_a_time: usize,
        [warm_up, time]: [Duration; 2],
        mark: &mut dyn FnMut(),
    ) -> Result<Metrics, String> {
        let mut template = Template::new(route, ask, true);
        let mut tally = Metrics::new();
        for (time, is_measured) in [(warm_up, false), (time, true)] {
            if is_measured {
                mark();
            }
            tally = Metrics::new();
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
                    if self.progress(at, &mut tally)? == News::Answered {
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
                            .map_err(said)?;
                        self.connections[slot].start(&mut template, now)?;
                    } else {
                        busy -= 1;
                    }
                }
            }
            tally.finish();
        }
        self.connections.clear();
        Ok(tally)
    }

    /// Many streams at once: when each has had an event, and `warm_up` is over, events are counted for `time`.
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
        let mut tally = Metrics::new();
        self.listen(&mut tally, time)?;
        tally.finish();
        self.connections.clear();
        Ok(tally)
    }

    /// One stream, until so many events have come.
    pub fn events(&mut self, route: Route, gap_micros: u64, count: u64) -> Result<Metrics, String> {
        self.connections.clear();
        self.hold_streams(route, gap_micros, 1)?;
        let mut tally = Metrics::new();
        while tally.count < count {
            self.listen(&mut tally, Duration::from_millis(1))?;
        }
        tally.finish();
        self.connections.clear();
        Ok(tally)
    }

    /// Opens connections up to `count`, makes one request on each in turn, and keeps them.
    pub fn hold_idle(&mut self, route: Route, count: usize) -> Result<(), String> {
        let mut template = Template::new(route, Ask::Get(16), false);
        let mut tally = Metrics::new();
        while self.connections.len() < count {
            self.open(route)?;
            self.single(self.connections.len() - 1, &mut template, &mut tally)?;
        }
        Ok(())
    }

    /// Opens streams up to `count`, waits for an event on each, and keeps them.
    pub fn hold_streams(
        &mut self,
        route: Route,
        gap_micros: u64,
        count: usize,
    ) -> Result<(), String> {
        let mut template = Template::new(route, Ask::Stream(gap_micros), false);
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
        let mut tally = Metrics::new();
        let mut waiting = 0;
        while waiting < self.connections.len() {
            if began(&self.connections[waiting]) {
                waiting += 1;
                pace.moved();
                continue;
            }
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                self.progress(at, &mut tally)?;
            }
        }
        Ok(())
    }

    fn listen(&mut self, tally: &mut Metrics, time: Duration) -> Result<(), String> {
        let mut pace = Pace::new(time);
        self.poll.wake_at(pace.until).map_err(said)?;
        while Instant::now() < pace.until {
            let before = tally.count;
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                self.progress(at, tally)?;
            }
            if tally.count > before {
                pace.moved();
            }
        }
        Ok(())
    }

    fn rounds(&mut self, template: &mut Template, time: Duration) -> Result<Metrics, String> {
        let mut tally = Metrics::new();
        let mut pace = Pace::new(time);
        for connection in &mut self.connections {
            connection.start(template, Instant::now())?;
        }
        let mut busy = self.connections.len();
        while busy > 0 {
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                if self.progress(at, &mut tally)? == News::Nothing {
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
        tally.finish();
        Ok(tally)
    }

    fn scheduled(
        &mut self,
        template: &mut Template,
        rate: u32,
        time: Duration,
    ) -> Result<Metrics, String> {
        let mut tally = Metrics::new();
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
                self.poll.wake_at(due).map_err(said)?;
            }
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                if self.progress(at, &mut tally)? == News::Answered {
                    pace.moved();
                    free.push(self.ready[at].token);
                }
            }
        }
        tally.finish();
        Ok(tally)
    }

    /// One request on one connection, until it is answered.
    fn single(
        &mut self,
        slot: usize,
        template: &mut Template,
        tally: &mut Metrics,
    ) -> Result<(), String> {
        let mut pace = Pace::new(Duration::ZERO);
        self.connections[slot].start(template, Instant::now())?;
        loop {
            let is_upload = self.connections[slot].upload.is_some();
            self.wait(&mut pace)?;
            for at in 0..self.ready.len() {
                if self.progress(at, tally)? == News::Answered {
                    return Ok(());
                }
            }
            // A large body moves all the time, whatever it says at its end.
            if is_upload || matches!(self.connections[slot].phase, Phase::Body(_)) {
                pace.moved();
            }
        }
    }

    fn open(&mut self, route: Route) -> Result<(), String> {
        let connection = Connection::open(route)?;
        self.poll
            .add(&connection.stream, self.connections.len())
            .map_err(said)?;
        self.connections.push(connection);
        Ok(())
    }

    fn wait(&mut self, pace: &mut Pace) -> Result<(), String> {
        self.poll
            .wait(&mut self.ready, Duration::from_millis(200))
            .map_err(said)?;
        if self.ready.is_empty() && pace.last.elapsed() > PATIENCE + pace.time {
            return Err(format!("nothing has come for {} s", PATIENCE.as_secs()));
        }
        Ok(())
    }

    fn progress(&mut self, at: usize, tally: &mut Metrics) -> Result<News, String> {
        let Ready { token, ended } = self.ready[at];
        let connection = self
            .connections
            .get_mut(token)
            .ok_or("an event of a connection that is gone")?;
        connection.progress(ended, &mut self.buffer, tally)
    }
}

impl Connection {
    fn open(route: Route) -> Result<Connection, String> {
        let stream = TcpStream::connect(route.address).map_err(said)?;
        stream.set_nonblocking(true).map_err(said)?;
        stream.set_nodelay(true).map_err(said)?;
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

    /// Sends a request that should have started at `started`.
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
        tally: &mut Metrics,
    ) -> Result<News, String> {
        if self.sent < self.request.len() || self.upload.is_some() {
            self.send()?;
        }
        let mut news = News::Nothing;
        loop {
            let count = match (&self.stream).read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(news),
                Err(error) => return Err(format!("reading an answer: {error}")),
            };
            if count == 0 {
                return match self.phase {
                    Phase::Closing => {
                        self.phase = Phase::Closed;
                        Ok(news)
                    }
                    _ => Err("the connection was closed".to_owned()),
                };
            }
            if self.take(&buffer[..count], tally)? {
                tally.add(self.started.elapsed());
                news = News::Answered;
                if !self.expected.closes {
                    self.phase = Phase::Idle;
                    return Ok(news);
                }
                self.phase = Phase::Closing;
            }
            // A short read has drained the socket, unless its end is behind it.
            if count < buffer.len() && !ended {
                return Ok(news);
            }
        }
    }

    /// Whether the answer is complete with these bytes.
    fn take(&mut self, mut bytes: &[u8], tally: &mut Metrics) -> Result<bool, String> {
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
                Phase::Body(Sink::new(body, self.expected.start))
            };
        }
        match &mut self.phase {
            Phase::Body(sink) => {
                let used = sink.take(bytes)?;
                if used < bytes.len() {
                    return Err("bytes behind an answer".to_owned());
                }
                if sink.is_over() && sink.found() != self.expected.len {
                    return Err(format!(
                        "{} bytes instead of {}",
                        sink.found(),
                        self.expected.len
                    ));
                }
                Ok(sink.is_over())
            }
            Phase::Events(follower, reader) => {
                while !bytes.is_empty() {
                    let (data, used) = follower.next(bytes)?;
                    reader.take(&bytes[data], |delay| tally.add(delay))?;
                    bytes = &bytes[used..];
                    if follower.is_over() {
                        return Err("a stream that ended".to_owned());
                    }
                }
                Ok(false)
            }
            _ => Err("bytes that nobody asked for".to_owned()),
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

/// In nanoseconds: a minute; nothing is waited for that long.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Until when new requests start, and when something last happened.
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

/// A request, but for its number.
struct Template {
    bytes: Vec<u8>,
    digits_at: usize,
    /// Where its body starts, and how long it is, if it goes out with the head.
    body: (usize, u64),
    upload: Option<Source>,
    answer: u64,
    is_stream: bool,
    closes: bool,
    sequence: u64,
}

impl Template {
    fn new(route: Route, ask: Ask, closes: bool) -> Template {
        let (method, kind, number) = match ask {
            Ask::Get(len) => ("GET", "length", len),
            Ask::Post(_, len) => ("POST", "length", len),
            Ask::Down(Framing::Length, len) => ("GET", "length", len),
            Ask::Down(Framing::Chunked, len) => ("GET", "chunked", len),
            Ask::Up(..) => ("POST", "length", 16),
            Ask::Stream(gap) => ("POST", "stream", gap),
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
        let upload = match ask {
            Ask::Up(framing, len) => Some(Source::new(framing, len)),
            _ => None,
        };
        let body = match ask {
            Ask::Post(len, _) => len,
            _ => 0,
        };
        match ask {
            Ask::Up(Framing::Chunked, _) => text.push_str("Transfer-Encoding: chunked\r\n"),
            Ask::Up(Framing::Length, len) | Ask::Post(len, _) => {
                text.push_str(&format!("Content-Length: {len}\r\n"));
            }
            Ask::Stream(_) => text.push_str("Content-Length: 0\r\n"),
            Ask::Get(_) | Ask::Down(..) => {}
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        let body_at = bytes.len();
        bytes.resize(body_at + body as usize, 0);
        let (received, answer) = match ask {
            Ask::Get(len) | Ask::Post(_, len) => (body, len),
            Ask::Up(_, len) => (len, 16),
            Ask::Down(_, len) => (0, len),
            Ask::Stream(_) => (0, 0),
        };
        Template {
            bytes,
            digits_at,
            body: (body_at, received),
            upload,
            answer,
            is_stream: matches!(ask, Ask::Stream(_)),
            closes,
            sequence: 0,
        }
    }

    /// Puts the next request into `request`, and says what is expected for it.
    fn next(&mut self, request: &mut Vec<u8>) -> Expected {
        let (body_at, received) = self.body;
        put_digits(&mut self.bytes[self.digits_at..][..DIGITS], self.sequence);
        let body = &mut self.bytes[body_at..];
        body.copy_from_slice(pattern::bytes(self.sequence, body.len()));
        request.clear();
        request.extend_from_slice(&self.bytes);
        // Large bodies are the pattern from its start, either way.
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

/// The length of a complete head, and the body behind it.
fn response(bytes: &[u8]) -> Result<Option<(usize, Follower)>, String> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut slots);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("an answer's head that is none: {error}")),
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
            body = Some(Follower::Length(length.ok_or("a length that is none")?));
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Some(Follower::Chunked(Chunked::start()));
        } else if field.name.eq_ignore_ascii_case("x-litellm-version") {
            is_marked = true;
        }
    }
    if !is_marked {
        return Err("an answer without the fields of the origin".to_owned());
    }
    match body {
        Some(body) => Ok(Some((len, body))),
        None => Err("an answer without framing".to_owned()),
    }
}

fn said(error: io::Error) -> String {
    error.to_string()
}
