//! What all exchanges of the process share: the clock, the connections to the target, the limits, the count of clients.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::Clock;
use super::options::Timeouts;
use super::reactor::Timer;
use super::upstream::connect::Connector;
use super::upstream::pool::Pool;

/// What all exchanges of the process share.
pub struct Service {
    /// All time limits.
    pub clock: Rc<Clock>,
    /// Makes connections to the target.
    pub connector: Connector,
    /// Idle connections to the target.
    pub pool: Pool,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// The most clients at a time.
    connections_max: usize,
    /// Clients that are served.
    connections: Cell<usize>,
    /// Clients that get a 503 because there are too many.
    rejections: Cell<usize>,
    /// When the last client disconnected; the start before that.
    idle_since: Cell<Instant>,
    /// Woken when a client disconnects.
    waits_for_end: RefCell<Option<Waker>>,
    last_request_id: Cell<u64>,
}

impl Service {
    /// A service without clients.
    pub fn new(
        connector: Connector,
        pool: Pool,
        clock: Rc<Clock>,
        timeouts: Timeouts,
        connections_max: usize,
    ) -> Self {
        Service {
            clock,
            connector,
            pool,
            timeouts,
            connections_max,
            connections: Cell::new(0),
            rejections: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            waits_for_end: RefCell::default(),
            last_request_id: Cell::new(0),
        }
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

    /// Counts one more client, unless there are too many.
    pub fn admit(self: &Rc<Self>) -> Admission {
        let is_served = self.connections.get() < self.connections_max;
        let count = match is_served {
            true => &self.connections,
            false => &self.rejections,
        };
        if !is_served && count.get() >= REJECTIONS_MAX {
            return Admission::Drop;
        }
        count.set(count.get() + 1);
        let guard = ConnectionGuard {
            service: Rc::clone(self),
            is_served,
        };
        match is_served {
            true => Admission::Serve(guard),
            false => Admission::Reject(guard),
        }
    }

    /// Waits until no client has been served for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            // While a client is connected, at least the whole limit is left.
            let idle = match self.connections.get() {
                0 => self.idle_since.get().elapsed(),
                _ => Duration::ZERO,
            };
            match limit.checked_sub(idle).filter(|left| !left.is_zero()) {
                Some(left) => Timer::at(Instant::now() + left).await,
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

/// What is done with a new client.
pub enum Admission {
    /// It is served.
    Serve(ConnectionGuard),
    /// It gets a 503.
    Reject(ConnectionGuard),
    /// It is closed without a response: too many get a 503 already.
    Drop,
}

/// A client connection, counted until this is dropped.
pub struct ConnectionGuard {
    service: Rc<Service>,
    is_served: bool,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let service = &self.service;
        if self.is_served {
            service.connections.set(service.connections.get() - 1);
            service.idle_since.set(Instant::now());
        } else {
            service.rejections.set(service.rejections.get() - 1);
        }
        if std::thread::panicking() {
            log::error!(
                "a connection ended by an internal error of ic; the others are not affected"
            );
        }
        if let Some(waker) = service.waits_for_end.take() {
            waker.wake();
        }
    }
}

/// How many clients get a 503 at a time.
const REJECTIONS_MAX: usize = 64;
