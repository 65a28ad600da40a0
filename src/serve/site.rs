//! One project's port: the identity of its requests, which of them are served, what is counted and published of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::deadline::Clock;
use super::feed::Hub;
use super::metrics::Metrics;
use super::options::{About, Options};
use super::reactor;
use super::service::Service;
use super::upstream::connect::Connector;
use super::upstream::pool::Pool;
use crate::http::Error;
use crate::http::guard::Guard;
use crate::http::rewrite::RequestRewriter;

/// The port of one project.
pub struct Site {
    /// What all sites share.
    pub service: Rc<Service>,
    /// What `/_ic/health` says.
    pub about: About,
    /// Rewrites the head of each request.
    pub rewriter: RequestRewriter,
    /// Which requests are served.
    pub guard: Guard,
    /// What has happened so far.
    pub metrics: Rc<Metrics>,
    /// Its subscribers are sent what happens.
    pub feed: Rc<Hub>,
    /// When a warning about each of these errors was logged.
    warned: RefCell<Vec<(Error, Instant)>>,
}

impl Site {
    /// A site without clients, and a service for it.
    pub fn new(options: Options, feed: Rc<Hub>) -> Self {
        let clock = Clock::new();
        let metrics = Rc::new(Metrics::new());
        let connector = Connector::new(
            options.target,
            options.tls,
            options.proxy,
            Rc::clone(&metrics),
        );
        let pool = Pool::new(&clock, Rc::clone(&metrics));
        Site {
            service: Rc::new(Service::new(
                clock,
                options.timeouts,
                connector,
                pool,
                options.connections_max,
            )),
            about: options.about,
            rewriter: options.rewriter,
            guard: options.guard,
            metrics,
            feed,
            warned: RefCell::default(),
        }
    }

    /// Whether a warning about `error` is due: a client that is set up wrongly tries again and again.
    pub fn warns_of(&self, error: Error) -> bool {
        let now = reactor::now();
        let mut warned = self.warned.borrow_mut();
        warned.retain(|(_, last)| now.duration_since(*last) < WARNING_PERIOD);
        let is_due = !warned.iter().any(|(known, _)| *known == error);
        if is_due {
            warned.push((error, now));
        }
        is_due
    }

    /// Counts one more client, to be served or to be sent a 503; `None` if too many are sent one already.
    pub fn admit(self: &Rc<Self>) -> Option<ConnectionGuard> {
        let is_served = self.service.enter()?;
        Some(ConnectionGuard {
            site: Rc::clone(self),
            is_served,
        })
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
        if std::thread::panicking() {
            log::error!(
                "a connection ended by an internal error of ic; the others are not affected"
            );
        }
        self.site.service.leave(self.is_served);
    }
}

/// How often a warning about the same error is logged.
const WARNING_PERIOD: Duration = Duration::from_secs(10);
