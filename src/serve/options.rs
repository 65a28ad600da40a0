//! What an interceptor is to do: the options of its process, and those of each port.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listen::Listen;
use super::target::Target;
use super::upstream::proxy::Proxy;
use super::upstream::tls::Tls;
use crate::http::guard::Guard;
use crate::http::rewrite::RequestRewriter;

/// What a process that serves one port or many is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time limits.
    pub timeouts: Timeouts,
    /// The most client connections at a time. For a further one the longest idle one is closed; if none is idle, it gets a 503.
    pub connections_max: usize,
    /// The folder for the socket of the [`feed`](super::feed); `None`: no feed.
    pub feed: Option<PathBuf>,
    /// The signals that stop the process.
    pub stop_signals: &'static [i32],
}

/// What is to be done on one port.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// Where to listen.
    pub listen: Listen,
    /// Where requests go. Sites with the same one, not only an equal one, share its connections.
    pub upstream: Arc<UpstreamOptions>,
    /// Rewrites the head of each request.
    pub rewriter: RequestRewriter,
    /// Which requests are served.
    pub guard: Guard,
    /// What `/_ic/health` says.
    pub about: About,
}

/// Where requests go, and how.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// The target.
    pub target: Target,
    /// TLS towards the target; `None`: in the clear.
    pub tls: Option<Tls>,
    /// The proxy through which the target is reached.
    pub proxy: Option<Proxy>,
}

/// What an interceptor says about itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The instance identifier that its requests carry.
    pub instance_id: String,
    /// The project's path, where it serves one.
    pub project: Option<String>,
    /// The command that runs it.
    pub served_by: ServedBy,
}

/// The command that runs an interceptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServedBy {
    /// `ic serve`, for one project.
    #[default]
    Serve,
    /// `ic run`, until its program ends.
    Run,
    /// `ic serve --all`, among those of all projects.
    All,
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServedBy::Serve => "ic serve",
            ServedBy::Run => "ic run",
            ServedBy::All => "ic serve --all",
        })
    }
}

/// Time limits; `None` or zero is no limit, except for `hold` and `grace`.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Maximum time from the first byte of a request head to its last: 408.
    pub head: Option<Duration>,
    /// Maximum time that a client is silent between requests; its connection is then closed.
    pub idle: Option<Duration>,
    /// Maximum time to connect to the target, TLS included: 504.
    pub connect: Option<Duration>,
    /// Maximum time from the last byte of the request to the last byte of the final response head: 504. 1xx responses and
    /// partial heads do not count.
    pub first_byte: Option<Duration>,
    /// Maximum stall of a body: its sender sends nothing, or its receiver takes nothing. 408 or 504 before a response has begun;
    /// afterwards the connection is reset.
    pub body: Option<Duration>,
    /// How long a target that cannot be connected to is tried again; zero: not at all.
    pub hold: Duration,
    /// How long requests in flight may take to finish when the program stops; zero: they are cut at once.
    pub grace: Duration,
    /// The program stops after this time without a client.
    pub idle_exit: Option<Duration>,
}
