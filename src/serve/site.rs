//! One project's port: under which identity its requests go on, which of them are served, and what has happened on it.

use std::rc::Rc;

use super::feed::Hub;
use super::metrics::Metrics;
use super::options::About;
use super::service::Service;
use crate::http::guard::Guard;
use crate::http::rewrite::RequestRewriter;

/// The port of one project. Each accepted connection belongs to a site.
pub struct Site {
    /// What it shares with other sites.
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
}
