//! Counts, gauges and times of one port. [`admin`](super::admin) shows them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::reactor;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// What has happened on a port since its start.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    in_flight: Cell<u64>,
    /// Requests by the first digit of their status; 0 for those whose client disconnected.
    classes: [Counter; 6],
    /// Requests that failed.
    pub failed: Counter,
    /// Responses of the interceptor itself, by reason.
    own_responses: RefCell<BTreeMap<&'static str, u64>>,
    /// Bytes of requests passed on.
    pub bytes_up: Counter,
    /// Bytes of responses passed on.
    pub bytes_down: Counter,
    /// Connections made to the target.
    pub connects: Counter,
    /// Requests sent on a kept connection.
    pub reuses: Counter,
    /// From the first byte of a request to the first byte of its response.
    pub first_byte: Histogram,
    /// From the first byte of a request to the last byte of its response.
    pub duration: Histogram,
    last_error: RefCell<Option<(Instant, String)>>,
}

impl Metrics {
    /// Zero everywhere, from now on.
    pub fn new() -> Self {
        Metrics {
            started: reactor::now(),
            in_flight: Cell::new(0),
            classes: Default::default(),
            failed: Counter::default(),
            own_responses: RefCell::default(),
            bytes_up: Counter::default(),
            bytes_down: Counter::default(),
            connects: Counter::default(),
            reuses: Counter::default(),
            first_byte: Histogram::default(),
            duration: Histogram::default(),
            last_error: RefCell::default(),
        }
    }

    /// Counts a request, which is in flight until the guard is dropped.
    pub fn begin_request(&self) -> InFlightGuard<'_> {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlightGuard(self)
    }

    /// Counts a finished request; `status` is `None` if the client disconnected.
    pub fn count(&self, status: Option<u16>, is_failed: bool) {
        self.failed.add(u64::from(is_failed));
        let class = usize::from(status.unwrap_or(0) / 100).min(self.classes.len() - 1);
        self.classes[class].add(1);
    }

    /// Counts a response of the interceptor itself. `reason` is the code of an error, or the name of a page.
    pub fn count_own_response(&self, reason: &'static str) {
        *self.own_responses.borrow_mut().entry(reason).or_default() += 1;
    }

    /// Responses of the interceptor itself, by reason.
    pub fn own_responses(&self) -> BTreeMap<&'static str, u64> {
        self.own_responses.borrow().clone()
    }

    /// Remembers an error of the target, as one line.
    pub fn set_last_error(&self, message: String) {
        self.last_error.replace(Some((reactor::now(), message)));
    }

    /// The last error of the target, and how long ago it was.
    pub fn last_error(&self) -> Option<(Duration, String)> {
        let last = self.last_error.borrow();
        last.as_ref()
            .map(|(at, message)| (reactor::now().duration_since(*at), message.clone()))
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        reactor::now().duration_since(self.started)
    }

    /// Requests being served.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Requests whose client disconnected before the end of the response.
    pub fn client_gone(&self) -> u64 {
        self.classes[0].get()
    }

    /// Finished requests by the first digit of their status; 0 for those whose client disconnected.
    pub fn classes(&self) -> [u64; 6] {
        self.classes.each_ref().map(Counter::get)
    }
}

/// A request that is being served.
#[derive(Debug)]
pub struct InFlightGuard<'a>(&'a Metrics);

impl InFlightGuard<'_> {
    /// Counts the request as finished after `duration`; `status` is `None` if the client disconnected.
    pub fn end(self, status: Option<u16>, is_failed: bool, duration: Duration) {
        self.0.count(status, is_failed);
        // The lifetime of a tunnel says nothing about how long responses take.
        if status != Some(101) {
            self.0.duration.record(duration);
        }
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
