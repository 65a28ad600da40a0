//! New connections to the target: resolve, connect, ask the proxy for a tunnel, TLS handshake.
//!
//! Decided here: the order of these steps, which addresses are cached, and which error a time limit becomes. Not decided
//! here: which of several addresses is tried when ([`happy_eyeballs`]), and how long a connection is kept ([`pool`](super::pool)).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::future;

use super::error::{ConnectError, ProxyFailure};
use super::happy_eyeballs;
use super::proxy::Proxy;
use super::tls::{self, Tls};
use crate::serve::conn::{Conn, Stream};
use crate::serve::deadline::Deadline;
use crate::serve::listen;
use crate::serve::metrics::Metrics;
use crate::serve::reactor::{self, Timer};
use crate::serve::target::{Endpoint, Target};

/// Makes connections to one target.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    tls: Option<Tls>,
    proxy: Option<Proxy>,
    /// The addresses of the host that is connected to, the one that answered last first. Empty until one has.
    cached: RefCell<Rc<[SocketAddr]>>,
    metrics: Rc<Metrics>,
}

impl Connector {
    /// A connector to `target`, in TLS and through a proxy where they are given.
    pub fn new(
        target: Target,
        tls: Option<Tls>,
        proxy: Option<Proxy>,
        metrics: Rc<Metrics>,
    ) -> Self {
        Connector {
            target,
            tls,
            proxy,
            cached: RefCell::default(),
            metrics,
        }
    }

    /// The target, as the user wrote it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The proxy on the way to the target.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The proxy that requests themselves are sent to. A proxy on the way to a target in TLS only sees `CONNECT`.
    pub fn request_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| self.tls.is_none())
    }

    /// Whether the target is spoken to in TLS and its certificate is not verified.
    pub fn is_insecure(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_insecure)
    }

    /// Makes a new connection, each attempt within `limit`. While the target refuses connections, tries again for `hold`.
    pub async fn connect(
        &self,
        deadline: &Deadline,
        limit: Option<Duration>,
        hold: Duration,
    ) -> Result<Conn, ConnectError> {
        let give_up = reactor::now() + hold;
        loop {
            deadline.set(limit);
            let stage = Cell::new(Stage::Connect);
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

    /// What a time limit that passes at `stage` means.
    fn timeout_at(&self, stage: Stage) -> ConnectError {
        match (stage, &self.proxy) {
            (Stage::Handshake, _) => ConnectError::HandshakeTimeout,
            (Stage::Connect, Some(proxy)) => {
                proxy.error(ProxyFailure::Connect(ConnectError::Timeout))
            }
            (Stage::Tunnel, Some(proxy)) => proxy.error(ProxyFailure::ReplyTimeout),
            (Stage::Connect | Stage::Tunnel, None) => ConnectError::Timeout,
        }
    }

    async fn connect_once(&self, stage: &Cell<Stage>) -> Result<Conn, ConnectError> {
        let stream = match self.target.endpoint() {
            Endpoint::Unix(path) => Stream::connect_unix(path).await.map_err(failure)?,
            Endpoint::Tcp(host, port) => match &self.proxy {
                None => self.connect_tcp(host, *port).await?,
                // Boxed: few have a proxy, and the others need not make room for its future.
                Some(proxy) => Box::pin(self.connect_through(proxy, host, *port, stage)).await?,
            },
        };
        self.metrics.connects.add(1);
        stage.set(Stage::Handshake);
        let stream = match &self.tls {
            // Boxed for the same reason.
            Some(tls) => Box::pin(stream.in_tls(tls)).await.map_err(failure)?,
            None => stream,
        };
        Ok(Conn::new(stream))
    }

    /// Connects to a proxy, and for a target in TLS through it to the target.
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
                    error => proxy.error(ProxyFailure::Connect(error)),
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

    /// Connects to a cached address of the host, else resolves it and caches its addresses once one has answered.
    async fn connect_tcp(&self, host: &str, port: u16) -> Result<Stream, ConnectError> {
        let cached = CachedAddress {
            cache: &self.cached,
            addresses: self.cached.borrow().clone(),
        };
        if let Ok((address, stream)) =
            happy_eyeballs::connect(&cached.addresses, Stream::connect).await
        {
            if address == cached.addresses[0] {
                cached.keep();
            }
            return Ok(stream);
        }
        drop(cached);
        let mut addresses = resolve(host, port).await?;
        let (address, stream) = connect_first(&addresses).await?;
        if let Some(at) = addresses.iter().position(|&other| other == address) {
            addresses[..=at].rotate_right(1);
        }
        self.cached.replace(addresses.into());
        Ok(stream)
    }
}

/// Addresses from the cache while they are tried. They are removed from it when this is dropped, as it also is when the time
/// limit passes first, unless the preferred one has answered.
struct CachedAddress<'a> {
    cache: &'a RefCell<Rc<[SocketAddr]>>,
    addresses: Rc<[SocketAddr]>,
}

impl CachedAddress<'_> {
    /// Leaves them in the cache.
    fn keep(mut self) {
        self.addresses = Rc::default();
    }
}

impl Drop for CachedAddress<'_> {
    fn drop(&mut self) {
        // Another connection may have cached others since.
        if Rc::ptr_eq(&self.cache.borrow(), &self.addresses) {
            self.cache.replace(Rc::default());
        }
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It is being made, to the target or to the proxy.
    Connect,
    /// The proxy has been asked for a tunnel.
    Tunnel,
    /// The TLS handshake with the target.
    Handshake,
}

/// Makes one connection to `endpoint` within `limit`, without TLS and without a proxy: what a command does that looks at a
/// target or asks an interceptor. [`reactor::block_on`] runs it:
///
/// ```ignore
/// let stream = reactor::block_on(connect::once(target.endpoint(), limit))??;
/// ```
///
/// A limit that passes is [`ConnectError::Timeout`], during name resolution too.
pub async fn once(endpoint: &Endpoint, limit: Duration) -> Result<Stream, ConnectError> {
    let connected = async {
        match endpoint {
            Endpoint::Unix(path) => Stream::connect_unix(path).await.map_err(failure),
            Endpoint::Tcp(host, port) => {
                let (_, stream) = connect_first(&resolve(host, *port).await?).await?;
                Ok(stream)
            }
        }
    };
    let timeout = async {
        Timer::at(Instant::now() + limit).await;
        Err(ConnectError::Timeout)
    };
    future::or(connected, timeout).await
}

/// The first of `addresses` that answers, and the connection to it.
async fn connect_first(addresses: &[SocketAddr]) -> Result<(SocketAddr, Stream), ConnectError> {
    let connected = happy_eyeballs::connect(addresses, Stream::connect).await;
    connected.map_err(|error| match error {
        Some(error) => failure(error),
        None => ConnectError::Unresolved(io::Error::new(io::ErrorKind::NotFound, "no address")),
    })
}

/// The addresses of a host, in the order in which they are tried. `localhost` is never looked up (RFC 6761 §6.3) and is both
/// loopback addresses: servers listen on either.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ]);
    }
    match async_net::resolve((host, port)).await {
        Ok(addresses) => Ok(happy_eyeballs::interleave(addresses)),
        Err(error) if listen::lacks_descriptors(&error) => Err(ConnectError::NoDescriptors),
        Err(error) => Err(ConnectError::Unresolved(error)),
    }
}

fn failure(error: io::Error) -> ConnectError {
    if let Some(error) = tls::diagnose(&error) {
        return ConnectError::Tls(error);
    }
    if listen::lacks_descriptors(&error) {
        return ConnectError::NoDescriptors;
    }
    match error.kind() {
        // A Unix socket that does not exist belongs to a server that has not started.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ConnectError::Refused,
        io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Failed(error),
    }
}

/// The pause between two attempts while a target starts.
const HOLD_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn connect(target: &str) -> Result<(), ConnectError> {
        let target: Target = target.parse().expect("a target");
        let connected = once(target.endpoint(), Duration::from_secs(5));
        reactor::block_on(connected).expect("a reactor").map(drop)
    }

    #[test]
    fn one_connection_is_made_or_the_error_says_why_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert!(connect(&format!("http://127.0.0.1:{port}/v1")).is_ok());
        // Where ::1 refuses, the other loopback address answers.
        assert!(connect(&format!("http://LocalHost:{port}")).is_ok());
        drop(listener);
        let refused = connect(&format!("http://127.0.0.1:{port}"));
        assert!(matches!(refused, Err(ConnectError::Refused)));
        let unresolved = connect("http://no-such-host.invalid");
        assert!(matches!(unresolved, Err(ConnectError::Unresolved(_))));
        let missing = connect("unix:/no/such/socket");
        assert!(matches!(missing, Err(ConnectError::Refused)));
    }

    #[test]
    fn localhost_is_both_loopback_addresses() {
        let resolved = reactor::block_on(resolve("LocalHost", 80)).expect("a reactor");
        let expected = ["127.0.0.1:80", "[::1]:80"].map(|text| text.parse().expect("an address"));
        assert_eq!(resolved.expect("never looked up"), expected);
    }
}
