//! Whether a port could be listened on now.
//!
//! What a port is assigned to is the registry's to say. The answer is a snapshot: nothing is reserved by asking. Where the system
//! does not let ports be tried (no descriptor left, a sandbox without sockets), that is said, and no port is called taken
//! or free.

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::port::Port;

/// What came of trying to bind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can be bound on every address family of this system.
    Free,
    /// Something else has it, on some address.
    InUse,
    /// Only privilege keeps this process from binding it (ports below 1024, most often).
    NotPermitted,
    /// It could not be tried.
    Untried(Refusal),
}

/// Why the system lets no port be tried. Shown in the system's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(Errno);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::io::Error::from(self.0).to_string();
        let words = words.split(" (os error ").next().unwrap_or_default();
        f.write_str(&words.to_lowercase())
    }
}

/// Tries to bind `port` on IPv4 and IPv6, and lets go again at once.
///
/// It never listens, and it binds with `SO_REUSEADDR`: connections in TIME_WAIT do not make a port
/// taken, and simultaneous probes of one port do not see one another.
pub fn availability(port: Port) -> Availability {
    // The wildcard meets every listener on Linux; BSD and macOS let it pass a listener on one address, so that
    // the addresses an interceptor listens on are tried as well.
    const ADDRESSES: [IpAddr; 4] = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    for address in ADDRESSES {
        match bind_once(SocketAddr::new(address, port.get())) {
            Ok(()) => {}
            Err(availability) => return availability,
        }
    }
    Availability::Free
}

/// What keeps `address` from being bound is an error.
fn bind_once(address: SocketAddr) -> Result<(), Availability> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = match socket(family, SocketType::STREAM, None) {
        Ok(socket) => socket,
        // A system without this family.
        Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT) => return Ok(()),
        Err(errno) => return Err(Availability::Untried(Refusal(errno))),
    };
    // A sandbox may refuse both. Then a port in TIME_WAIT, or one that another probe is trying just now, counts as taken.
    let _ = sockopt::set_socket_reuseaddr(&socket, true);
    if address.is_ipv6() {
        // Or `::` would stand for IPv4 too, and meet what the IPv4 attempt has already answered.
        let _ = sockopt::set_ipv6_v6only(&socket, true);
    }
    match bind(&socket, &address) {
        // A system without addresses of this family.
        Ok(()) | Err(Errno::ADDRNOTAVAIL) => Ok(()),
        Err(Errno::ADDRINUSE) => Err(Availability::InUse),
        Err(Errno::ACCESS | Errno::PERM) => Err(Availability::NotPermitted),
        Err(errno) => Err(Availability::Untried(Refusal(errno))),
    }
}

/// A search for ports that are free, which remembers whether it was allowed to look at any.
#[derive(Debug, Default)]
pub struct Search {
    refusal: Cell<Option<Refusal>>,
    has_seen: Cell<bool>,
}

impl Search {
    /// Whether `port` is known to be free.
    pub fn is_free(&self, port: Port) -> bool {
        let availability = availability(port);
        match availability {
            Availability::Untried(refusal) => self.refusal.set(Some(refusal)),
            _ => self.has_seen.set(true),
        }
        availability == Availability::Free
    }

    /// Why no port could be tried, if none could: then a search that found nothing is no proof that nothing is free.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().filter(|_| !self.has_seen.get())
    }
}
