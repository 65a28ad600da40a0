//! Whether a port could be listened on now.
//!
//! What a port is assigned to is not asked here. The answer is a snapshot: nothing is reserved by asking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::Port;

/// What came of trying to bind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can be bound on every address family of this system.
    Free,
    /// Something else has it, on some address.
    InUse,
    /// Only privilege keeps this process from binding it (ports below 1024, most often).
    NotPermitted,
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
            // A system without this family (EAFNOSUPPORT), or without addresses in it (EADDRNOTAVAIL).
            Ok(()) | Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::ADDRNOTAVAIL) => {}
            Err(Errno::ACCESS | Errno::PERM) => return Availability::NotPermitted,
            // EADDRINUSE; anything else (no descriptors left) keeps us from binding it just as well.
            Err(_) => return Availability::InUse,
        }
    }
    Availability::Free
}

fn bind_once(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Or `::` would stand for IPv4 too, and meet what the IPv4 attempt has already answered.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)
}
