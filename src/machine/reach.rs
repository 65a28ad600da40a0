//! Whether a target can be reached from here: a look from outside, such as a person would take before blaming `ic`.
//!
//! Of a target in TLS no more is asked than whether somebody accepts connections there. Whom it has to satisfy is known to its
//! interceptor alone, which says what it found: `ic doctor` asks it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::serve::{Endpoint, Target};

use crate::text::io_message;

/// Why a target cannot be reached; displays as what follows its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// Its host has no address; in the system's words.
    NoAddress(String),
    /// Nobody listens there.
    Refused,
    /// Nothing came back in this time.
    Silent(Duration),
    /// Anything else, in the system's words.
    Failed(String),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreachable::NoAddress(said) => write!(f, "has no address ({said})"),
            Unreachable::Refused => f.write_str("refuses connections"),
            Unreachable::Silent(time) => write!(f, "does not answer in {} s", time.as_secs()),
            Unreachable::Failed(said) => write!(f, "cannot be reached: {said}"),
        }
    }
}

/// Connects to `target`, at the first of its addresses that can be had, and hangs up.
pub fn reach(target: &Target, patience: Duration) -> Result<(), Unreachable> {
    let deadline = Instant::now() + patience;
    match target.place() {
        Endpoint::Unix(path) => UnixStream::connect(path)
            .map(drop)
            .map_err(|error| unreachable(&error, patience)),
        Endpoint::Tcp(host, port) => {
            let mut last = Unreachable::NoAddress("none was found".to_owned());
            for address in resolve(host, *port, patience)? {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Unreachable::Silent(patience));
                }
                match TcpStream::connect_timeout(&address, left) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = unreachable(&error, patience),
                }
            }
            Err(last)
        }
    }
}

/// The system's resolver knows no time limits, so it is asked in a thread that may be left behind. `localhost` is never
/// asked for (RFC 6761 §6.3): in a container that holds nothing but `ic`, the resolver does not know it.
fn resolve(host: &str, port: u16, patience: Duration) -> Result<Vec<SocketAddr>, Unreachable> {
    if host.eq_ignore_ascii_case("localhost") {
        let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(loopbacks.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let (tell, told) = mpsc::channel();
    let host = host.to_owned();
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            // Nobody waits for an answer that comes too late.
            let _ = tell.send(found);
        })
        .map_err(|error| Unreachable::Failed(io_message(&error)))?;
    match told.recv_timeout(patience) {
        Ok(found) => found.map_err(|error| Unreachable::NoAddress(io_message(&error))),
        Err(_) => Err(Unreachable::NoAddress(format!(
            "its name server does not answer in {} s",
            patience.as_secs()
        ))),
    }
}

fn unreachable(error: &io::Error, patience: Duration) -> Unreachable {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Unreachable::Silent(patience),
        _ => Unreachable::Failed(io_message(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn localhost_is_both_loopback_addresses_whatever_a_resolver_says() {
        let found = resolve("LocalHost", 80, Duration::ZERO);
        let expected = ["127.0.0.1:80", "[::1]:80"].map(|text| text.parse().expect("an address"));
        // Without time, nobody else was asked.
        assert_eq!(found, Ok(expected.to_vec()));
    }

    #[test]
    fn a_target_is_reachable_or_says_why_not() {
        const PATIENCE: Duration = Duration::from_secs(5);
        let reach = |target: &str| reach(&target.parse().expect("a target"), PATIENCE);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(reach(&format!("http://127.0.0.1:{port}/v1")), Ok(()));
        // Where `localhost` is ::1 first, the other address counts as well.
        assert_eq!(reach(&format!("http://localhost:{port}")), Ok(()));
        drop(listener);
        let refused = reach(&format!("http://127.0.0.1:{port}"));
        assert_eq!(refused, Err(Unreachable::Refused));
        assert!(matches!(
            reach("http://no-such-host.invalid"),
            Err(Unreachable::NoAddress(_))
        ));
        assert!(matches!(
            reach("unix:/no/such/socket"),
            Err(Unreachable::Failed(_))
        ));
    }
}
