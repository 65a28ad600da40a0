//! The pages that the interceptor answers itself, and the numbers on them. Nothing else is shadowed.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Service;
use super::counter::Counter;
use super::histogram::Histogram;
use crate::http::reply::{self, ReplyOptions};

/// A page of the interceptor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Who this is: `/_ic/health`.
    Health,
    /// What it has done, for Prometheus: `/_ic/metrics`.
    Metrics,
}

impl Page {
    /// The page that a request asks for, if it is one of these.
    pub fn at(method: &str, path: &str) -> Option<Self> {
        if !matches!(method, "GET" | "HEAD") {
            return None;
        }
        match path {
            "/_ic/health" => Some(Page::Health),
            "/_ic/metrics" => Some(Page::Metrics),
            _ => None,
        }
    }

    /// Writes the whole response.
    pub fn write(self, service: &Service, manner: ReplyOptions, out: &mut Vec<u8>) {
        match self {
            Page::Health => reply::document(
                200,
                "application/json",
                "",
                health(service).as_bytes(),
                manner,
                out,
            ),
            Page::Metrics => {
                let body = metrics(service);
                reply::document(
                    200,
                    "text/plain; version=0.0.4",
                    "",
                    body.as_bytes(),
                    manner,
                    out,
                );
            }
        }
    }
}

/// What an interceptor says about itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The instance identifier that its requests carry.
    pub instance_id: String,
    /// The project's path, where it serves one.
    pub project: Option<String>,
}

/// What has happened so far on one thread. Whoever tells of it adds up those of all threads.
#[derive(Debug)]
// Apart from what other threads write: two cache lines, since they are fetched in pairs.
#[repr(align(128))]
pub struct Metrics {
    started: Instant,
    /// Client connections, also those that are still on their way to the thread. The one number that two threads change:
    /// who accepts them and who serves them.
    connections: AtomicUsize,
    /// When the last client has gone so far, in microseconds since the start.
    last_gone: AtomicU64,
    in_flight: Counter,
    /// Requests by the first digit of their status; 0 for those whose client left.
    classes: [Counter; 6],
    /// Bytes of requests passed on.
    pub bytes_up: Counter,
    /// Bytes of responses passed on.
    pub bytes_down: Counter,
    /// Connections made to the origin.
    pub connects: Counter,
    /// Requests that went out on a kept connection.
    pub reuses: Counter,
    first_byte: Histogram,
    duration: Histogram,
    last_error: Mutex<Option<(Instant, Trouble)>>,
}

impl Metrics {
    /// Nothing yet, from now on.
    pub fn new() -> Self {
        Metrics {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            last_gone: AtomicU64::new(0),
            in_flight: Counter::default(),
            classes: Default::default(),
            bytes_up: Counter::default(),
            bytes_down: Counter::default(),
            connects: Counter::default(),
            reuses: Counter::default(),
            first_byte: Histogram::default(),
            duration: Histogram::default(),
            last_error: Mutex::default(),
        }
    }

    /// A request has come; it is in flight for as long as what is returned is kept.
    pub fn begin(&self) -> InFlightGuard<'_> {
        self.in_flight.add(1);
        InFlightGuard(self)
    }

    /// The response to a request of that age begins to leave.
    pub fn answers(&self, request: Duration) {
        self.first_byte.note(request);
    }

    /// What went wrong on the origin's side.
    pub fn failed(&self, trouble: Trouble) {
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), trouble));
    }

    /// A client is given to the thread.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A client of the thread has gone.
    pub fn disconnected(&self) {
        let now = self.started.elapsed().as_micros() as u64;
        self.last_gone.store(now, Ordering::Relaxed);
        // Whoever finds that nobody is left finds out since when.
        self.connections.fetch_sub(1, Ordering::Release);
    }

    /// Since when the thread has had no client; `None` while it has one.
    pub fn quiet_since(&self) -> Option<Instant> {
        let is_quiet = self.connections.load(Ordering::Acquire) == 0;
        let last_gone = Duration::from_micros(self.last_gone.load(Ordering::Relaxed));
        is_quiet.then(|| self.started + last_gone)
    }

    /// How many clients the thread has.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn requests(&self) -> u64 {
        self.classes.iter().map(Counter::get).sum()
    }

    fn errors(&self) -> u64 {
        self.classes[5].get()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

/// What went wrong on the origin's side. An answer is put into words only when it is shown: an origin may have many like it.
#[derive(Debug)]
pub enum Trouble {
    /// The origin answered with this status.
    Answered(u16),
    /// Something else, in a line that the log has as well.
    Told(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Answered(status) => write!(f, "the target answered {status}"),
            Trouble::Told(line) => f.write_str(line),
        }
    }
}

/// A request that is being served. Whatever ends it, it is not in flight any more then.
pub struct InFlightGuard<'a>(&'a Metrics);

impl InFlightGuard<'_> {
    /// It is over at that age; `None` if the client left before an answer.
    pub fn end(self, status: Option<u16>, request: Duration) {
        let classes = &self.0.classes;
        let class = usize::from(status.unwrap_or(0) / 100).min(classes.len() - 1);
        classes[class].add(1);
        // How long a tunnel stood says nothing about how long answers take.
        if status != Some(101) {
            self.0.duration.note(request);
        }
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.sub_one();
    }
}

fn health(service: &Service) -> String {
    let sum = |count: fn(&Metrics) -> u64| service.sum(count);
    let errors: Vec<_> = service
        .tallies
        .iter()
        .map(|tally| {
            tally
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
        .collect();
    let last_error = errors
        .iter()
        .filter_map(|error| error.as_ref())
        .max_by_key(|(when, _)| *when);
    let document = json!({
        "status": "healthy",
        "instance_id": service.about.instance_id,
        "target": service.connector.target().to_string(),
        "proxy": service.connector.proxy().map(ToString::to_string),
        "insecure": service.connector.is_insecure(),
        "project": service.about.project,
        "pid": std::process::id(),
        "uptime_seconds": service.tally.started.elapsed().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
        "requests": sum(Metrics::requests),
        "errors": sum(Metrics::errors),
        "in_flight": sum(|tally| tally.in_flight.get()),
        "last_error": last_error.map(|(when, trouble)| json!({
            "message": trouble.to_string(),
            "seconds_ago": when.elapsed().as_secs(),
        })),
    });
    format!("{document}\n")
}

fn metrics(service: &Service) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP ic_{name} {help}\n# TYPE ic_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "ic_{name}{labels} {value}");
        }
    };
    let class = |class: usize| -> u64 {
        let tallies = service.tallies.iter();
        tallies.map(|tally| tally.classes[class].get()).sum()
    };
    let classes: Vec<(String, u64)> = CLASS_NAMES
        .iter()
        .enumerate()
        .map(|(at, name)| (format!("{{class=\"{name}\"}}"), class(at)))
        .collect();
    family(
        "requests_total",
        "counter",
        "Requests by class of status.",
        &classes,
    );
    for (name, kind, help, count) in NUMBERS {
        family(name, kind, help, &[(String::new(), service.sum(count))]);
    }
    family(
        "uptime_seconds",
        "gauge",
        "Seconds since the start.",
        &[(String::new(), service.tally.started.elapsed().as_secs())],
    );
    let tallies = || service.tallies.iter();
    Histogram::write(
        tallies().map(|tally| &tally.first_byte),
        "ic_time_to_first_byte_seconds",
        "From the first byte of a request to the first of its response.",
        &mut text,
    );
    Histogram::write(
        tallies().map(|tally| &tally.duration),
        "ic_request_duration_seconds",
        "From the first byte of a request to the last of its response.",
        &mut text,
    );
    text
}

const CLASS_NAMES: [&str; 6] = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Name, kind and meaning of a number, and where it is counted.
type Number = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Metrics) -> u64,
);

/// The numbers that are what the threads have counted, added up.
const NUMBERS: [Number; 6] = [
    (
        "requests_in_flight",
        "gauge",
        "Requests being served.",
        |tally| tally.in_flight.get(),
    ),
    (
        "request_bytes_total",
        "counter",
        "Bytes relayed to the target.",
        |tally| tally.bytes_up.get(),
    ),
    (
        "response_bytes_total",
        "counter",
        "Bytes relayed to clients.",
        |tally| tally.bytes_down.get(),
    ),
    (
        "target_connects_total",
        "counter",
        "Connections made to the target.",
        |tally| tally.connects.get(),
    ),
    (
        "target_reuses_total",
        "counter",
        "Requests on a kept connection.",
        |tally| tally.reuses.get(),
    ),
    ("connections", "gauge", "Client connections.", |tally| {
        tally.connections() as u64
    }),
];
