//! Whether a port could be listened on now.
//!
//! The result is a snapshot: nothing is reserved. If the system does not allow the probe (no file descriptor left, a sandbox
//! without sockets), the result says so, and the port is neither in use nor free.

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::port::Port;
use crate::text::io_message;

/// The result of probing a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can be bound on every address family of this system.
    Free,
    /// A program has bound it, on some address.
    InUse,
    /// Binding it needs privileges (usually ports below 1024).
    NotPermitted,
    /// It could not be probed.
    Untried(Refusal),
}

impl Availability {
    /// Its name in JSON documents.
    pub fn state(self) -> &'static str {
        match self {
            Availability::Free => "free",
            Availability::InUse => "in_use",
            Availability::NotPermitted => "denied",
            Availability::Untried(_) => "unknown",
        }
    }
}

/// Why the system does not allow the probe. Displays the system's error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(Errno);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&io_message(&self.0.into()))
    }
}

/// Binds `port` on IPv4 and IPv6, and closes it again at once.
///
/// It never listens, and binds with `SO_REUSEADDR`: connections in TIME_WAIT do not count as use, and simultaneous
/// probes of one port do not see one another.
pub fn availability(port: Port) -> Availability {
    // On Linux the wildcard conflicts with every listener; on BSD and macOS not with one on a single address, so the
    // addresses of an interceptor are probed as well.
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

/// Binds `address` once; the error says why that failed.
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
    // A sandbox may refuse both. Then TIME_WAIT and simultaneous probes count as use.
    let _ = sockopt::set_socket_reuseaddr(&socket, true);
    if address.is_ipv6() {
        // Otherwise `::` includes IPv4, which is probed separately.
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

/// A search for free ports, which records whether any port could be probed.
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

    /// Why no port could be probed, if none could: then a search without a result does not prove that none is free.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().filter(|_| !self.has_seen.get())
    }
}
