//! One project's port: the identity of its requests, which of them are served, what is counted and published of them.

use std::cell::Cell;
use std::future;
use std::net::IpAddr;
use std::rc::Rc;

use super::feed::{Hub, InstanceInfo, PendingLease, Publisher};
use super::listen::Address;
use super::metrics::Metrics;
use super::options::{About, SiteOptions};
use super::service::Service;
use super::target::Endpoint;
use super::upstream::Upstream;
use crate::http::guard::Guard;
use crate::http::rewrite::RequestRewriter;

/// The port of one project.
pub struct Site {
    /// Where clients connect to; `None` for a Unix socket.
    pub port: Option<u16>,
    /// What all sites share.
    pub service: Rc<Service>,
    /// Where its requests go; other sites may share it.
    pub upstream: Rc<Upstream>,
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
    is_closed: Cell<bool>,
}

impl Site {
    /// A site without clients. `options.upstream` is that of `upstream`.
    pub fn new(
        options: SiteOptions,
        port: Option<u16>,
        service: Rc<Service>,
        upstream: Rc<Upstream>,
        metrics: Rc<Metrics>,
        feed: Rc<Hub>,
    ) -> Self {
        Site {
            port,
            service,
            upstream,
            about: options.about,
            rewriter: options.rewriter,
            guard: options.guard,
            metrics,
            feed,
            is_closed: Cell::new(false),
        }
    }

    /// Whether its target is one of the `addresses` listened on.
    pub fn leads_to(&self, addresses: &[Address]) -> bool {
        let (host, port) = match self.upstream.connector.target().endpoint() {
            Endpoint::Tcp(host, port) => (host, port),
            Endpoint::Unix(path) => {
                let Ok(path) = path.canonicalize() else {
                    return false;
                };
                let is_that = |address: &Address| match address {
                    Address::Unix(own) => own.canonicalize().is_ok_and(|own| own == path),
                    Address::Tcp(_) => false,
                };
                return addresses.iter().any(is_that);
            }
        };
        let addresses = || addresses.iter().filter_map(Address::tcp);
        let is_this_machine = match host.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip.is_loopback()
                    || ip.is_unspecified()
                    || addresses().any(|address| address.ip().to_canonical() == ip)
            }
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        is_this_machine && addresses().any(|address| address.port() == *port)
    }

    /// From now on its clients are served one more response at most, and idle ones are disconnected.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.service.clock.wake_all();
    }

    /// An equal one that is not closed, without clients. What has happened so far is that of both.
    pub fn reopened(&self) -> Site {
        Site {
            port: self.port,
            service: Rc::clone(&self.service),
            upstream: Rc::clone(&self.upstream),
            about: self.about.clone(),
            rewriter: self.rewriter.clone(),
            guard: self.guard.clone(),
            metrics: Rc::clone(&self.metrics),
            feed: Rc::clone(&self.feed),
            is_closed: Cell::new(false),
        }
    }

    /// Whether it is closed, or the program stops.
    pub fn is_closing(&self) -> bool {
        self.is_closed.get() || self.service.is_stopping()
    }

    /// What identifies it, for subscribers.
    pub fn instance(&self) -> InstanceInfo {
        let About {
            instance_id,
            project,
            ..
        } = &self.about;
        let name = project.as_deref().and_then(|path| path.rsplit('/').next());
        InstanceInfo {
            instance_id: instance_id.clone(),
            project: name.filter(|name| !name.is_empty()).map(str::to_owned),
            path: project.clone(),
            port: self.port,
            pid: std::process::id(),
            target: self.upstream.connector.target().to_string(),
        }
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

impl Publisher for Site {
    fn instance(&self) -> InstanceInfo {
        Site::instance(self)
    }

    fn sites(&self) -> Option<Vec<InstanceInfo>> {
        None
    }

    fn site(&self, port: u16) -> Option<InstanceInfo> {
        (self.port == Some(port)).then(|| Site::instance(self))
    }

    fn lease(&self, _port: u16) -> PendingLease {
        Box::pin(future::ready(None))
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
