//! Whether a peer that has stopped sending still listens.
//!
//! A client that closes and one that only finishes its request look the same on the wire: a FIN. The first
//! has gone, and its request is to be dropped before a model spends minutes on it; the second waits for
//! the answer. Where both ends are on one machine, which is what `ic` is for, the kernel knows: a socket
//! that no process holds any more has no inode.
//!
//! Elsewhere the answer is [`Peer::Unknown`], and the exchange goes by what the client said: one that would keep its
//! connection has no reason to finish it and counts as gone; one that asked to close it may be waiting.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::conn::Stream;

/// What is known of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process holds it open.
    Open,
    /// Nobody can read from it any more.
    Closed,
    /// It is on another machine, or the system does not tell.
    Unknown,
}

/// Asks about the other end of `stream`.
pub fn of(stream: &Stream) -> Peer {
    let (is_cut, asked) = match (stream.tcp(), stream.unix()) {
        (Some(tcp), _) => (is_cut(tcp.peer_addr()), system::ask(tcp)),
        (_, Some(unix)) => (is_cut(unix.peer_addr()), system::ask_unix(unix)),
        (None, None) => (false, Ok(Peer::Unknown)),
    };
    match asked {
        // A connection that was reset has no other end any more.
        _ if is_cut => Peer::Closed,
        asked => asked.unwrap_or_else(|error| match Errno::from_io_error(&error) {
            // It cannot be told at this moment. Whoever asks, asks again.
            Some(
                Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::AGAIN
                | Errno::INTR,
            ) => Peer::Open,
            _ => Peer::Unknown,
        }),
    }
}

/// How many bytes the other end of `stream` has not yet acknowledged, as far as the system tells.
pub fn undelivered(stream: &TcpStream) -> Option<u32> {
    system::undelivered(stream).ok().flatten()
}

fn is_cut<A>(peer_address: io::Result<A>) -> bool {
    peer_address.is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
}

/// Whether the other end of a Unix socket was connected by a process of the same user, as far as the system tells.
pub fn is_same_user(stream: impl AsFd) -> bool {
    system::user(stream).is_none_or(|user| user == rustix::process::geteuid())
}

/// Whether a socket is one that peers come to, and not what one of them has come by; as far as the system tells.
pub fn listens(socket: impl AsFd) -> io::Result<bool> {
    system::listens(socket)
}

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod system {
    //! sock_diag(7): one exact look-up, whatever the number of sockets.

    use std::io;
    use std::net::{IpAddr, SocketAddr, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
    };
    use rustix::process::Uid;

    use super::Peer;

    pub fn ask(stream: &TcpStream) -> io::Result<Peer> {
        // The peer's own view: its local end is our remote one.
        let (local, remote) = (stream.peer_addr()?, stream.local_addr()?);
        look_up(local, remote, |answer| read(answer, local.ip()))
    }

    pub fn undelivered(stream: &TcpStream) -> io::Result<Option<u32>> {
        look_up(stream.local_addr()?, stream.peer_addr()?, |answer| {
            (kind(answer) == Some(SOCK_DIAG_BY_FAMILY))
                .then(|| number(answer, UNACKNOWLEDGED_AT))
                .flatten()
        })
    }

    fn look_up<T>(
        local: SocketAddr,
        remote: SocketAddr,
        read: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        let netlink = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(SOCK_DIAG),
        )?;
        sendto(
            &netlink,
            &request(local, remote),
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answer = [0; 512];
        // The kernel has answered by the time that sendto returns.
        let (len, _) = recv(&netlink, &mut answer, RecvFlags::empty())?;
        Ok(read(&answer[..len]))
    }

    /// unix(7): such a socket is hung up when both directions are shut, and nobody shuts the one that it reads but to leave.
    pub fn ask_unix(stream: &UnixStream) -> io::Result<Peer> {
        let mut looked_at = [PollFd::new(stream, PollFlags::empty())];
        poll(&mut looked_at, Some(&Timespec::default()))?;
        let is_hung_up = looked_at[0].revents().contains(PollFlags::HUP);
        Ok(if is_hung_up { Peer::Closed } else { Peer::Open })
    }

    pub fn user(stream: impl AsFd) -> Option<Uid> {
        // Of a peer that has already gone, too.
        rustix::net::sockopt::socket_peercred(stream)
            .ok()
            .map(|credentials| credentials.uid)
    }

    pub fn listens(socket: impl AsFd) -> io::Result<bool> {
        Ok(rustix::net::sockopt::socket_acceptconn(socket)?)
    }

    const HEADER_LEN: usize = 16;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const NLMSG_ERROR: u16 = 2;
    const IPPROTO_TCP: u8 = 6;
    const ENOENT: i32 = 2;

    /// `struct nlmsghdr` and `struct inet_diag_req_v2` of linux/netlink.h and linux/inet_diag.h.
    fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
        let family = if local.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let mut body = vec![family.as_raw() as u8, IPPROTO_TCP, 0, 0];
        body.extend_from_slice(&u32::MAX.to_ne_bytes()); // all states
        body.extend_from_slice(&local.port().to_be_bytes());
        body.extend_from_slice(&remote.port().to_be_bytes());
        body.extend_from_slice(&address(local.ip()));
        body.extend_from_slice(&address(remote.ip()));
        body.extend_from_slice(&0u32.to_ne_bytes()); // any interface
        body.extend_from_slice(&[0xff; 8]); // no cookie
        let mut message = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        message.extend_from_slice(&[0; 8]); // sequence number, sender
        message.extend_from_slice(&body);
        message
    }

    fn address(ip: IpAddr) -> [u8; 16] {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.copy_from_slice(&ip.octets()),
        }
        bytes
    }

    /// Where `idiag_inode` stands in `struct inet_diag_msg`: behind four bytes, the 48 of the socket's
    /// identity, and four numbers.
    const INODE_AT: usize = HEADER_LEN + 4 + 48 + 16;

    /// And `idiag_wqueue`, the third of them.
    const UNACKNOWLEDGED_AT: usize = HEADER_LEN + 4 + 48 + 8;

    fn number(answer: &[u8], at: usize) -> Option<u32> {
        let bytes = answer.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    }

    fn kind(answer: &[u8]) -> Option<u16> {
        let bytes = answer.get(4..6)?;
        bytes.try_into().ok().map(u16::from_ne_bytes)
    }

    fn read(answer: &[u8], peer: IpAddr) -> Peer {
        match kind(answer) {
            Some(SOCK_DIAG_BY_FAMILY) => match number(answer, INODE_AT) {
                Some(0) => Peer::Closed,
                Some(_) => Peer::Open,
                None => Peer::Unknown,
            },
            // A loopback peer that is nowhere on this machine has ceased to be.
            Some(NLMSG_ERROR)
                if number(answer, HEADER_LEN) == Some(-ENOENT as u32) && peer.is_loopback() =>
            {
                Peer::Closed
            }
            _ => Peer::Unknown,
        }
    }
}

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
mod system {
    //! No system call that is safe and unprivileged tells it elsewhere.

    use std::io;
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use rustix::process::Uid;

    use super::Peer;

    pub fn ask(_stream: &TcpStream) -> io::Result<Peer> {
        Ok(Peer::Unknown)
    }

    pub fn undelivered(_stream: &TcpStream) -> io::Result<Option<u32>> {
        Ok(None)
    }

    pub fn ask_unix(_stream: &UnixStream) -> io::Result<Peer> {
        Ok(Peer::Unknown)
    }

    pub fn user(_stream: impl AsFd) -> Option<Uid> {
        None
    }

    pub fn listens(socket: impl AsFd) -> io::Result<bool> {
        // Only that it is connected can be told everywhere: macOS knows of no SO_ACCEPTCONN.
        Ok(rustix::net::getpeername(socket).is_err())
    }
}
