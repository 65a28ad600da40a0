//! The pages that the interceptor answers itself, and the numbers on them. Nothing else is shadowed.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Service;
use super::histogram::Histogram;
use crate::http::reply::{self, Manner};

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
    pub fn write(self, service: &Service, manner: Manner, out: &mut Vec<u8>) {
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

/// What has happened so far.
#[derive(Debug)]
pub struct Tally {
    started: Instant,
    in_flight: Cell<u64>,
    /// Requests by the first digit of their status; 0 for those whose client left.
    classes: [Cell<u64>; 6],
    /// Bytes of requests passed on.
    pub bytes_up: Cell<u64>,
    /// Bytes of responses passed on.
    pub bytes_down: Cell<u64>,
    first_byte: Histogram,
    duration: Histogram,
    last_error: RefCell<Option<(Instant, Trouble)>>,
}

impl Tally {
    /// Nothing yet, from now on.
    pub fn new() -> Self {
        Tally {
            started: Instant::now(),
            in_flight: Cell::new(0),
            classes: Default::default(),
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            first_byte: Histogram::default(),
            duration: Histogram::default(),
            last_error: RefCell::default(),
        }
    }

    /// A request has come; it is in flight for as long as what is returned is kept.
    pub fn begin(&self) -> Underway<'_> {
        self.in_flight.set(self.in_flight.get() + 1);
        Underway(self)
    }

    /// The response to a request of that age begins to leave.
    pub fn answers(&self, request: Duration) {
        self.first_byte.note(request);
    }

    /// What went wrong on the origin's side.
    pub fn failed(&self, trouble: Trouble) {
        *self.last_error.borrow_mut() = Some((Instant::now(), trouble));
    }

    fn requests(&self) -> u64 {
        self.classes.iter().map(Cell::get).sum()
    }

    fn errors(&self) -> u64 {
        self.classes[5].get()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally::new()
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
pub struct Underway<'a>(&'a Tally);

impl Underway<'_> {
    /// It is over at that age; `None` if the client left before an answer.
    pub fn end(self, status: Option<u16>, request: Duration) {
        let classes = &self.0.classes;
        let class = &classes[usize::from(status.unwrap_or(0) / 100).min(classes.len() - 1)];
        class.set(class.get() + 1);
        // How long a tunnel stood says nothing about how long answers take.
        if status != Some(101) {
            self.0.duration.note(request);
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0
            .in_flight
            .set(self.0.in_flight.get().saturating_sub(1));
    }
}

fn health(service: &Service) -> String {
    let tally = &service.tally;
    let document = json!({
        "status": "healthy",
        "instance_id": service.about.instance_id,
        "target": service.origin.target().to_string(),
        "project": service.about.project,
        "pid": std::process::id(),
        "uptime_seconds": tally.started.elapsed().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
        "requests": tally.requests(),
        "errors": tally.errors(),
        "in_flight": tally.in_flight.get(),
        "last_error": tally.last_error.borrow().as_ref().map(|(when, trouble)| json!({
            "message": trouble.to_string(),
            "seconds_ago": when.elapsed().as_secs(),
        })),
    });
    format!("{document}\n")
}

fn metrics(service: &Service) -> String {
    let tally = &service.tally;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP ic_{name} {help}\n# TYPE ic_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "ic_{name}{labels} {value}");
        }
    };
    let classes: Vec<(String, u64)> = CLASS_NAMES
        .iter()
        .zip(&tally.classes)
        .map(|(name, count)| (format!("{{class=\"{name}\"}}"), count.get()))
        .collect();
    family(
        "requests_total",
        "counter",
        "Requests by class of status.",
        &classes,
    );
    let one = |value: u64| [(String::new(), value)];
    family(
        "requests_in_flight",
        "gauge",
        "Requests being served.",
        &one(tally.in_flight.get()),
    );
    family(
        "request_bytes_total",
        "counter",
        "Bytes relayed to the target.",
        &one(tally.bytes_up.get()),
    );
    family(
        "response_bytes_total",
        "counter",
        "Bytes relayed to clients.",
        &one(tally.bytes_down.get()),
    );
    let origin = service.origin.tally();
    family(
        "target_connects_total",
        "counter",
        "Connections made to the target.",
        &one(origin.connects.get()),
    );
    family(
        "target_reuses_total",
        "counter",
        "Requests on a kept connection.",
        &one(origin.reuses.get()),
    );
    family(
        "connections",
        "gauge",
        "Client connections.",
        &one(service.connections() as u64),
    );
    family(
        "uptime_seconds",
        "gauge",
        "Seconds since the start.",
        &one(tally.started.elapsed().as_secs()),
    );
    tally.first_byte.write(
        "ic_time_to_first_byte_seconds",
        "From the first byte of a request to the first of its response.",
        &mut text,
    );
    tally.duration.write(
        "ic_request_duration_seconds",
        "From the first byte of a request to the last of its response.",
        &mut text,
    );
    text
}

const CLASS_NAMES: [&str; 6] = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"];
