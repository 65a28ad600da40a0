//! What the exchanges of all sites share: the clock, the limits, the count of clients.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::Clock;
use super::options::Timeouts;
use super::reactor::{self, Timer};

/// The part of an interceptor that depends neither on the project nor on its target.
pub struct Service {
    /// All time limits.
    pub clock: Rc<Clock>,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// The most clients at a time.
    connections_max: Cell<usize>,
    /// Clients that are served.
    connections: Cell<usize>,
    /// Clients that get a 503 because there are too many.
    rejections: Cell<usize>,
    /// When the last client disconnected; the start before that.
    idle_since: Cell<Instant>,
    /// Woken when a client disconnects.
    waits_for_end: RefCell<Option<Waker>>,
    last_request_id: Cell<u64>,
    is_stopping: Cell<bool>,
}

impl Service {
    /// A service without clients.
    pub fn new(timeouts: Timeouts, connections_max: usize) -> Self {
        Service {
            clock: Clock::new(),
            timeouts,
            connections_max: Cell::new(connections_max),
            connections: Cell::new(0),
            rejections: Cell::new(0),
            idle_since: Cell::new(reactor::now()),
            waits_for_end: RefCell::default(),
            last_request_id: Cell::new(0),
            is_stopping: Cell::new(false),
        }
    }

    /// From now on the clients of all sites are served one more response at most, and idle ones are disconnected.
    pub fn stop(&self) {
        self.is_stopping.set(true);
        self.clock.wake_all();
    }

    /// Whether [`Service::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// How many clients are served.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// An identifier for a response of the interceptor itself, unique in this process.
    pub fn next_request_id(&self) -> String {
        let id = self.last_request_id.get() + 1;
        self.last_request_id.set(id);
        format!("ic-{}-{id}", std::process::id())
    }

    /// Changes the most clients at a time.
    pub fn set_connections_max(&self, count: usize) {
        self.connections_max.set(count);
    }

    /// Whether as many clients are served as may be.
    pub fn is_full(&self) -> bool {
        self.connections.get() >= self.connections_max.get()
    }

    /// Counts one more client; returns whether it is served, or `None` if too many are being rejected already. At the limit the
    /// connection of the client that has been idle longest is closed for it.
    pub fn enter(&self) -> Option<bool> {
        let is_served = !self.is_full() || self.clock.expire_longest_idle();
        if is_served {
            self.connections.update(|count| count + 1);
        } else if self.rejections.get() < REJECTIONS_MAX {
            self.rejections.update(|count| count + 1);
        } else {
            return None;
        }
        Some(is_served)
    }

    /// Counts one client less; `is_served` as [`enter`](Self::enter) returned it.
    pub fn leave(&self, is_served: bool) {
        if is_served {
            self.connections.update(|count| count - 1);
            self.idle_since.set(reactor::now());
        } else {
            self.rejections.update(|count| count - 1);
        }
        if let Some(waker) = self.waits_for_end.take() {
            waker.wake();
        }
    }

    /// Waits until no client has been served for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            // While a client is connected, at least the whole limit is left.
            let idle = match self.connections.get() {
                0 => reactor::now().duration_since(self.idle_since.get()),
                _ => Duration::ZERO,
            };
            match limit.checked_sub(idle).filter(|left| !left.is_zero()) {
                Some(left) => Timer::at(reactor::now() + left).await,
                None => return,
            }
        }
    }

    /// Waits until all clients have disconnected.
    pub async fn all_disconnected(&self) {
        poll_fn(|context| {
            if self.connections.get() + self.rejections.get() == 0 {
                return Poll::Ready(());
            }
            self.waits_for_end.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// How many clients get a 503 at a time.
const REJECTIONS_MAX: usize = 64;
