//! Connections to the origin: making them, keeping them for the next request, letting them go.
//!
//! A kept connection may be closed by the origin at any moment, and a request that meets the end of one is
//! lost unless it may be repeated. So they are kept for less time than known origins do (uvicorn closes
//! after 5 s, gunicorn after 2 s), and not used if anything is known to have come on them since.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use smol::future;

use super::admin::Metrics;
use super::conn::{Conn, Stream};
use super::deadline::{Clock, Deadline};
use super::listen;
use super::proxy::{self, Proxy, Trouble};
use super::reactor;
use super::stagger;
use super::target::{Endpoint, Target};
use super::tls::{self, Tls, Wrong};

/// The origin and the idle connections to it.
#[derive(Debug)]
pub struct Origin {
    target: Target,
    tls: Option<Tls>,
    proxy: Option<Proxy>,
    idle: RefCell<Vec<Idle>>,
    /// Kept connections have been seen to serve another request, and none to be closed at once.
    is_persistent: Cell<bool>,
    /// The addresses of its host, as they were found last; the one that answered is tried first.
    known: RefCell<Option<Rc<[SocketAddr]>>>,
    sweep: Deadline,
    /// Wakes [`Origin::sweep`], also when an idle connection is closed by the origin.
    sweeper: RefCell<Option<Waker>>,
    tally: Arc<Metrics>,
}

#[derive(Debug)]
struct Idle {
    wire: Conn,
    since: Instant,
    until: Instant,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The host has no address.
    Unresolved(io::Error),
    /// Nobody listens there.
    Refused,
    /// No answer within `--connect-timeout`.
    Timeout,
    /// There is a connection, and the handshake of TLS was not over within `--connect-timeout`.
    HandshakeTimeout,
    /// There is a connection, and TLS does not come about on it.
    Tls(Wrong),
    /// The proxy on the way does not lead to it.
    Proxy(Box<proxy::Fault>),
    /// This process, or the machine, may have no more descriptors: the target has no part in it.
    NoDescriptors,
    /// Anything else.
    Failed(io::Error),
}

impl ConnectError {
    /// The failure's name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::Unresolved(_) => "target_unresolved",
            ConnectError::Refused => "target_refused",
            ConnectError::Timeout | ConnectError::HandshakeTimeout => "connect_timeout",
            ConnectError::Tls(wrong) => wrong.code(),
            ConnectError::Proxy(fault) => fault.code(),
            ConnectError::NoDescriptors => "no_descriptors",
            ConnectError::Failed(_) => "target_unreachable",
        }
    }

    /// The failure in one line.
    pub fn explain(&self, target: &str) -> String {
        match self {
            ConnectError::Unresolved(error) => {
                format!(
                    "the target {target} has a host name without an address ({error}); check TARGET_LLM_URL"
                )
            }
            ConnectError::Refused => {
                format!("the target {target} refuses connections; start it, or set TARGET_LLM_URL")
            }
            ConnectError::Timeout => {
                format!("the target {target} did not accept a connection within --connect-timeout")
            }
            ConnectError::HandshakeTimeout => {
                format!(
                    "the target {target} did not finish the TLS handshake within --connect-timeout; see its log"
                )
            }
            ConnectError::Tls(wrong) => wrong.explain(target),
            ConnectError::Proxy(fault) => fault.explain(target),
            ConnectError::NoDescriptors => {
                "ic may open no more connections; raise `ulimit -n`, or lower --max-connections"
                    .to_owned()
            }
            ConnectError::Failed(error) => {
                format!("the target {target} cannot be reached ({error})")
            }
        }
    }
}

impl Origin {
    /// An origin to which nothing is connected yet.
    pub fn new(
        target: Target,
        tls: Option<Tls>,
        proxy: Option<Proxy>,
        clock: &Rc<Clock>,
        tally: Arc<Metrics>,
    ) -> Self {
        Origin {
            target,
            tls,
            proxy,
            idle: RefCell::default(),
            is_persistent: Cell::new(false),
            known: RefCell::default(),
            sweep: clock.deadline(),
            sweeper: RefCell::default(),
            tally,
        }
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The proxy on the way to it.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The proxy that requests are sent to themselves: it knows of those of a target in TLS only the first bytes.
    pub fn asked_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| self.tls.is_none())
    }

    /// Whether anybody may pass for it: in TLS, and with no look at certificates.
    pub fn is_insecure(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_insecure)
    }

    /// A kept connection that is still good, the most recently used first.
    ///
    /// Some origins close behind each response without a word. A request that meets that moment is lost if
    /// it cannot be repeated, so until the origin has shown that it keeps connections, such a request gets
    /// only one that has stayed open for [`REST`].
    pub fn reuse(&self, is_repeatable: bool) -> Option<Conn> {
        let now = reactor::now();
        let mut idle = self.idle.borrow_mut();
        loop {
            let candidate = if is_repeatable || self.is_persistent.get() {
                idle.pop()?
            } else {
                // They are in the order in which they came to rest.
                let longest = idle.first()?;
                if now.duration_since(longest.since) < REST {
                    return None;
                }
                idle.remove(0)
            };
            if candidate.until <= now {
                continue;
            }
            if candidate.wire.is_quiet() {
                self.tally.reuses.add(1);
                return Some(candidate.wire);
            }
            self.is_persistent.set(false);
        }
    }

    /// A kept connection has served another request.
    pub fn has_persisted(&self) {
        self.is_persistent.set(true);
    }

    /// Keeps a connection whose last response is over. `announced_seconds` is how long the origin said that
    /// it would keep it.
    pub fn keep(&self, wire: Conn, announced_seconds: Option<u64>) {
        let lifetime = idle_lifetime(announced_seconds);
        let mut idle = self.idle.borrow_mut();
        if !wire.is_quiet() {
            self.is_persistent.set(false);
            return;
        }
        if lifetime.is_zero() || idle.len() == IDLE_MAX {
            return;
        }
        let since = reactor::now();
        let until = since + lifetime;
        if idle.iter().all(|idle| idle.until > until) {
            self.sweep.set(Some(lifetime));
        }
        if let Some(sweeper) = &*self.sweeper.borrow() {
            wire.watch(sweeper);
        }
        idle.push(Idle { wire, since, until });
    }

    /// Closes kept connections whose time is over, or that the origin has closed, for ever.
    pub async fn sweep(&self) {
        loop {
            self.drop_dead();
            let mut waits = false;
            poll_fn(|context| {
                self.sweeper.replace(Some(context.waker().clone()));
                let passed = self.sweep.poll_passed(context);
                // Whoever woke it, the limit or a connection: it looks at all of them.
                if std::mem::replace(&mut waits, true) {
                    Poll::Ready(())
                } else {
                    passed
                }
            })
            .await;
        }
    }

    fn drop_dead(&self) {
        let now = reactor::now();
        let sweeper = self.sweeper.borrow();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| {
            let is_quiet = idle.wire.is_quiet();
            if !is_quiet {
                self.is_persistent.set(false);
            } else if let Some(sweeper) = &*sweeper {
                // Something may have come that is nothing: TLS has words of its own.
                idle.wire.watch(sweeper);
            }
            is_quiet && idle.until > now
        });
        self.sweep
            .set(idle.iter().map(|idle| idle.until - now).min());
    }

    /// Makes a new connection, within `limit`. While nobody listens there, tries again for `hold`.
    pub async fn connect(
        &self,
        deadline: &Deadline,
        limit: Option<Duration>,
        hold: Duration,
    ) -> Result<Conn, ConnectError> {
        let give_up = reactor::now() + hold;
        loop {
            deadline.set(limit);
            let stage = Cell::new(Stage::Connection);
            let timeout = async {
                deadline.passed().await;
                Err(self.timeout_at(stage.get()))
            };
            let result = future::or(self.connect_once(&stage), timeout).await;
            deadline.set(None);
            match result {
                Err(ConnectError::Refused) if reactor::now() < give_up => {
                    deadline.set(Some(HOLD_PAUSE));
                    deadline.passed().await;
                }
                result => return result,
            }
        }
    }

    /// Who is to blame when the time is over.
    fn timeout_at(&self, stage: Stage) -> ConnectError {
        match (stage, &self.proxy) {
            (Stage::Handshake, _) => ConnectError::HandshakeTimeout,
            (Stage::Connection, Some(proxy)) => {
                proxy.fault(Trouble::Unreachable(ConnectError::Timeout))
            }
            (Stage::Tunnel, Some(proxy)) => proxy.fault(Trouble::Silent),
            (Stage::Connection | Stage::Tunnel, None) => ConnectError::Timeout,
        }
    }

    async fn connect_once(&self, stage: &Cell<Stage>) -> Result<Conn, ConnectError> {
        let stream = match self.target.place() {
            Endpoint::Unix(path) => Stream::connect_unix(path).await.map_err(failure)?,
            Endpoint::Tcp(host, port) => match &self.proxy {
                None => self.connect_tcp(host, *port).await?,
                // In a box: few have one.
                Some(proxy) => Box::pin(self.connect_through(proxy, host, *port, stage)).await?,
            },
        };
        self.tally.connects.add(1);
        stage.set(Stage::Handshake);
        let stream = match &self.tls {
            // In a box: no other target needs it.
            Some(tls) => Box::pin(stream.in_tls(tls)).await.map_err(failure)?,
            None => stream,
        };
        Ok(Conn::new(stream))
    }

    /// Connects to a proxy; on behalf of a target in TLS, to that target.
    async fn connect_through(
        &self,
        proxy: &Proxy,
        host: &str,
        port: u16,
        stage: &Cell<Stage>,
    ) -> Result<Stream, ConnectError> {
        let (proxy_host, proxy_port) = proxy.address();
        let stream =
            self.connect_tcp(proxy_host, proxy_port)
                .await
                .map_err(|error| match error {
                    ConnectError::NoDescriptors => error,
                    error => proxy.fault(Trouble::Unreachable(error)),
                })?;
        if self.tls.is_some() {
            let authority = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            };
            stage.set(Stage::Tunnel);
            proxy.tunnel(&stream, &authority).await?;
        }
        Ok(stream)
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> Result<Stream, ConnectError> {
        let known = self.known.borrow().clone();
        if let Some(known) = known {
            let good = known[0];
            // If the limit passes first, nobody comes back here to forget them.
            let doubt = Doubt {
                origin: self,
                known: &known,
            };
            if let Ok((address, stream)) = stagger::first(&known, Stream::connect).await {
                // If it was another than last time, the next connection looks the name up anew.
                if address == good {
                    std::mem::forget(doubt);
                }
                return Ok(stream);
            }
        }
        let found = addresses(host, port).await;
        let mut found = stagger::alternate(found.map_err(
            |error| match listen::lacks_descriptors(&error) {
                true => ConnectError::NoDescriptors,
                false => ConnectError::Unresolved(error),
            },
        )?);
        let (address, stream) =
            stagger::first(&found, Stream::connect)
                .await
                .map_err(|failed| match failed {
                    Some(error) => failure(error),
                    None => ConnectError::Unresolved(io::Error::new(
                        io::ErrorKind::NotFound,
                        "no address",
                    )),
                })?;
        if let Some(at) = found.iter().position(|&found| found == address) {
            found[..=at].rotate_right(1);
        }
        self.known.replace(Some(found.into()));
        Ok(stream)
    }
}

/// Connections by known addresses, which are forgotten unless they prove good: others may use them meanwhile.
struct Doubt<'a> {
    origin: &'a Origin,
    known: &'a Rc<[SocketAddr]>,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        // Somebody may have found others since.
        self.origin
            .known
            .borrow_mut()
            .take_if(|known| Rc::ptr_eq(known, self.known));
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It is being made, to the target or to the proxy.
    Connection,
    /// It stands, and the proxy has been asked for a tunnel.
    Tunnel,
    /// It leads to the target.
    Handshake,
}

/// The addresses of a host. `localhost` is never asked of a name server (RFC 6761 §6.3), and means both
/// loopback addresses: servers listen on either.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ]);
    }
    async_net::resolve((host, port)).await
}

fn failure(error: io::Error) -> ConnectError {
    if let Some(wrong) = tls::wrong_in(&error) {
        return ConnectError::Tls(wrong);
    }
    if listen::lacks_descriptors(&error) {
        return ConnectError::NoDescriptors;
    }
    match error.kind() {
        // A Unix socket that is not there is a server that has not started.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ConnectError::Refused,
        io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Failed(error),
    }
}

/// How long a connection is kept idle.
fn idle_lifetime(announced_seconds: Option<u64>) -> Duration {
    match announced_seconds {
        None => IDLE_DEFAULT,
        Some(seconds) => Duration::from_secs(seconds)
            .min(IDLE_LONGEST)
            .saturating_sub(IDLE_MARGIN),
    }
}

/// Below gunicorn's 2 s: closing first is what keeps requests off connections that are about to close.
const IDLE_DEFAULT: Duration = Duration::from_millis(1500);

/// What an announcement can extend that to.
const IDLE_LONGEST: Duration = Duration::from_secs(60);

/// Behind the last byte of a response an origin that closes does so within some milliseconds.
const REST: Duration = Duration::from_millis(20);

/// How much earlier than announced a connection is dropped.
const IDLE_MARGIN: Duration = Duration::from_millis(500);

/// The most idle connections kept.
const IDLE_MAX: usize = 256;

/// The pause between two attempts while a target starts.
const HOLD_PAUSE: Duration = Duration::from_millis(100);
