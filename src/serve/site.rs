//! One project's port, and what its exchanges share: the identity of its requests, the connections to the target, the time
//! limits, the count of clients.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::Clock;
use super::feed::Hub;
use super::metrics::Metrics;
use super::options::{About, Options, Timeouts};
use super::reactor::Timer;
use super::upstream::connect::Connector;
use super::upstream::pool::Pool;
use crate::http::guard::Guard;
use crate::http::rewrite::RequestRewriter;

/// The port of one project.
pub struct Site {
    /// What `/_ic/health` says.
    pub about: About,
    /// Rewrites the head of each request.
    pub rewriter: RequestRewriter,
    /// Which requests are served.
    pub guard: Guard,
    /// All time limits.
    pub clock: Rc<Clock>,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// Makes connections to the target.
    pub connector: Connector,
    /// Idle connections to the target.
    pub pool: Pool,
    /// What has happened so far.
    pub metrics: Rc<Metrics>,
    /// Its subscribers are sent what happens.
    pub feed: Rc<Hub>,
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

impl Site {
    /// A site without clients.
    pub fn new(options: Options, feed: Rc<Hub>) -> Self {
        let clock = Clock::new();
        let metrics = Rc::new(Metrics::new());
        Site {
            about: options.about,
            rewriter: options.rewriter,
            guard: options.guard,
            timeouts: options.timeouts,
            connector: Connector::new(
                options.target,
                options.tls,
                options.proxy,
                Rc::clone(&metrics),
            ),
            pool: Pool::new(&clock, Rc::clone(&metrics)),
            clock,
            metrics,
            feed,
            connections_max: options.connections_max,
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

    /// Counts one more client, to be served or to be sent a 503; `None` if too many are sent one already.
    pub fn admit(self: &Rc<Self>) -> Option<ConnectionGuard> {
        let is_served = self.connections.get() < self.connections_max;
        if is_served {
            self.connections.update(|count| count + 1);
        } else if self.rejections.get() < REJECTIONS_MAX {
            self.rejections.update(|count| count + 1);
        } else {
            return None;
        }
        Some(ConnectionGuard {
            site: Rc::clone(self),
            is_served,
        })
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

/// A client connection, counted until this is dropped.
pub struct ConnectionGuard {
    /// The site that it belongs to.
    pub site: Rc<Site>,
    /// Whether it is served; else it is sent a 503.
    pub is_served: bool,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let site = &self.site;
        if self.is_served {
            site.connections.update(|count| count - 1);
            site.idle_since.set(Instant::now());
        } else {
            site.rejections.update(|count| count - 1);
        }
        if std::thread::panicking() {
            log::error!(
                "a connection ended by an internal error of ic; the others are not affected"
            );
        }
        if let Some(waker) = site.waits_for_end.take() {
            waker.wake();
        }
    }
}

/// How many clients get a 503 at a time.
const REJECTIONS_MAX: usize = 64;
