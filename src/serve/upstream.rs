//! The way to the target: connections to it, made and kept.
//!
//! [`pool`] lends a kept connection or asks [`connect`] for a new one. Which of several addresses is tried when is decided by
//! [`happy_eyeballs`]; a proxy on the way is asked in [`proxy`]; an `https` target is spoken to in [`tls`].

pub mod connect;
pub mod error;
pub mod happy_eyeballs;
pub mod pool;
pub mod proxy;
pub mod tls;

use std::rc::Rc;

use self::connect::Connector;
use self::pool::Pool;
use super::deadline::Clock;
use super::options::UpstreamOptions;

/// A target, and the connections to it.
#[derive(Debug)]
pub struct Upstream {
    /// Makes connections to the target.
    pub connector: Connector,
    /// Idle connections to the target.
    pub pool: Pool,
}

impl Upstream {
    /// One without connections.
    pub fn new(options: &UpstreamOptions, clock: &Rc<Clock>) -> Upstream {
        let UpstreamOptions { target, tls, proxy } = options.clone();
        Upstream {
            connector: Connector::new(target, tls, proxy),
            pool: Pool::new(clock),
        }
    }
}
