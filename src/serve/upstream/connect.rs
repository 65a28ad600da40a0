//! New connections to the target: resolve, connect, ask the proxy for a tunnel, TLS handshake.
//!
//! Decided here: the order of these steps, which addresses are cached, and which error a time limit becomes. Not decided
//! here: which of several addresses is tried when ([`happy_eyeballs`]), and how long a connection is kept ([`pool`](super::pool)).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use smol::future;

use super::error::{ConnectError, ProxyFailure};
use super::happy_eyeballs;
use super::proxy::Proxy;
use super::tls::{self, Tls};
use crate::serve::conn::{self, Conn, Stream};
use crate::serve::deadline::{Deadline, Moment};
use crate::serve::listen;
use crate::serve::reactor::{self, Timer};
use crate::serve::target::{Endpoint, Target};

/// The addresses of the host that is connected to.
#[derive(Debug, Clone)]
struct Lookup {
    /// The one that answered last first.
    addresses: Rc<[SocketAddr]>,
    at: Moment,
}

/// Makes connections to one target.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    tls: Option<Tls>,
    proxy: Option<Proxy>,
    /// The host that is connected to is a name, which may lead elsewhere later.
    is_name: bool,
    /// The last lookup that led to a connection.
    found: RefCell<Option<Lookup>>,
}

impl Connector {
    /// A connector to `target`, in TLS and through a proxy where they are given.
    pub fn new(target: Target, tls: Option<Tls>, proxy: Option<Proxy>) -> Self {
        let is_name = match (target.endpoint(), &proxy) {
            (Endpoint::Unix(_), _) => false,
            (_, Some(proxy)) => known(proxy.address().0, 0).is_none(),
            (Endpoint::Tcp(host, _), None) => known(host, 0).is_none(),
        };
        Connector {
            target,
            tls,
            proxy,
            is_name,
            found: RefCell::default(),
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

    /// Makes a new connection, each attempt within `limit`. While the target cannot be connected to, tries again for `hold`.
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
            if result.is_err() {
                self.found.take();
            }
            match result {
                Err(error) if may_come_up(&error) && reactor::now() < give_up => {
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

    /// Makes a connection. The addresses of the last lookup are used for [`LOOKUP_AGE_MAX`]; if that fails in any way, TLS included,
    /// the name is looked up, and the host is connected to again if it has moved.
    async fn connect_once(&self, stage: &Cell<Stage>) -> Result<Conn, ConnectError> {
        let (host, port) = match (self.target.endpoint(), &self.proxy) {
            (Endpoint::Unix(path), _) => {
                let stream = Stream::connect_unix(path).await.map_err(failure)?;
                return self.finish(stream, stage).await;
            }
            (Endpoint::Tcp(..), Some(proxy)) => proxy.address(),
            (Endpoint::Tcp(host, port), None) => (host.as_str(), *port),
        };
        let last = self.found.borrow().clone();
        let mut failure = None;
        if let Some(last) = &last
            && Moment::now().since(last.at) < LOOKUP_AGE_MAX
        {
            match self.connect_to(last.clone(), stage).await {
                Err(error) => failure = Some(error),
                connected => return connected,
            }
            stage.set(Stage::Connect);
        }
        let has_old = last.is_some() && failure.is_none();
        let too_late = async {
            if !has_old {
                future::pending::<()>().await;
            }
            Timer::at(reactor::now() + LOOKUP_TIME_MAX).await;
            Err(ConnectError::Unresolved(io::ErrorKind::TimedOut.into()))
        };
        let found = future::or(resolve(host, port), too_late).await;
        let addresses = match (found, last, failure) {
            (Ok(addresses), Some(last), Some(failure))
                if addresses.iter().all(|to| last.addresses.contains(to)) =>
            {
                return Err(failure);
            }
            // RFC 8305 §4: an address that was used before is preferred.
            (Ok(addresses), Some(last), None) => preferring(last.addresses[0], addresses),
            (Ok(addresses), ..) => addresses.into(),
            // RFC 8767 §5: old addresses are better than none.
            (Err(_), Some(last), None) => last.addresses,
            (Err(error), ..) => return Err(self.at_proxy(error)),
        };
        let at = Moment::now();
        self.connect_to(Lookup { addresses, at }, stage).await
    }

    /// Makes a connection to the first address that answers, and keeps the addresses for the next one.
    async fn connect_to(&self, to: Lookup, stage: &Cell<Stage>) -> Result<Conn, ConnectError> {
        let (address, stream) = connect_first(&to.addresses)
            .await
            .map_err(|error| self.at_proxy(error))?;
        if let (Some(proxy), Some(_), Endpoint::Tcp(host, port)) =
            (&self.proxy, &self.tls, self.target.endpoint())
        {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            stage.set(Stage::Tunnel);
            // Boxed: few have a proxy, and the others need not make room for its future.
            Box::pin(proxy.tunnel(&stream, &format!("{host}:{port}"))).await?;
        }
        let mut conn = self.finish(stream, stage).await?;
        let Lookup { mut addresses, at } = to;
        if self.is_name {
            conn.expire(reactor::now() + LOOKUP_AGE_MAX.saturating_sub(Moment::now().since(at)));
        }
        if addresses[0] != address {
            addresses = preferring(address, addresses.to_vec());
        }
        self.found.replace(Some(Lookup { addresses, at }));
        Ok(conn)
    }

    /// Starts TLS on a connection to the target, where the target speaks it.
    async fn finish(&self, stream: Stream, stage: &Cell<Stage>) -> Result<Conn, ConnectError> {
        stage.set(Stage::Handshake);
        let stream = match &self.tls {
            // Boxed: it is large, and most targets are in the clear.
            Some(tls) => Box::pin(stream.in_tls(tls)).await.map_err(failure)?,
            None => stream,
        };
        Ok(Conn::new(stream))
    }

    /// The error of a connection that goes to the proxy, if there is one.
    fn at_proxy(&self, error: ConnectError) -> ConnectError {
        match (&self.proxy, error) {
            (Some(proxy), error) if !matches!(error, ConnectError::NoDescriptors) => {
                proxy.error(ProxyFailure::Connect(error))
            }
            (_, error) => error,
        }
    }
}

/// The addresses, `first` in front if it is one of them.
fn preferring(first: SocketAddr, mut addresses: Vec<SocketAddr>) -> Rc<[SocketAddr]> {
    addresses.sort_by_key(|address| *address != first);
    addresses.into()
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
        Timer::at(reactor::now() + limit).await;
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

/// The addresses of a host, in the order in which they are tried.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(addresses) = known(host, port) {
        return Ok(addresses);
    }
    match reactor::resolve(host, port).await {
        Ok(addresses) => Ok(happy_eyeballs::interleave(addresses)),
        Err(error) if listen::lacks_descriptors(&error) => Err(ConnectError::NoDescriptors),
        Err(error) => Err(ConnectError::Unresolved(error)),
    }
}

/// The addresses of a host that is not looked up. `localhost` never is (RFC 6761 §6.3) and is both loopback addresses: servers
/// listen on either.
fn known(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Some(loopback.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let ip = host.parse().ok()?;
    Some(vec![SocketAddr::new(ip, port)])
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

/// Whether a target that has not started yet causes `error`: its name is registered and its host answers once it has.
fn may_come_up(error: &ConnectError) -> bool {
    match error {
        ConnectError::Unresolved(_) | ConnectError::Refused | ConnectError::Timeout => true,
        ConnectError::Failed(error) => conn::is_unreachable(error),
        ConnectError::Proxy(error) => {
            matches!(&error.cause, ProxyFailure::Connect(error) if may_come_up(error))
        }
        ConnectError::HandshakeTimeout | ConnectError::NoDescriptors | ConnectError::Tls(_) => {
            false
        }
    }
}

/// How long addresses, and kept connections to them, are used before the name is looked up again: a server that moves is followed,
/// as nginx (`valid=30s`) and Java do, and most connections wait for no lookup.
const LOOKUP_AGE_MAX: Duration = Duration::from_secs(30);

/// How long a lookup is waited for if there are old addresses (RFC 8767 §5: 1.8 s). The system's resolver takes longer to give up
/// on a name server than the default of `--connect-timeout`.
const LOOKUP_TIME_MAX: Duration = Duration::from_millis(1800);

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
