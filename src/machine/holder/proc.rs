//! `/proc`: which sockets listen, and which processes have them open.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Holder, IC, Listener};

/// What to say where nobody can be seen to listen.
pub const NOT_TOLD: &str = "without /proc/net/tcp, it cannot be seen who listens on which port";

pub fn listeners(is_wanted: &dyn Fn(u16) -> bool) -> Option<Vec<Listener>> {
    // A system with one address family has one table.
    let tables: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .collect();
    if tables.is_empty() {
        return None;
    }
    let mut sockets: Vec<Socket> = tables.iter().flat_map(|table| listening(table)).collect();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .map(|processes| {
            processes
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    pids.sort_unstable();

    // Looking through what a process has open is dear: first the few that may be interceptors, then the others only
    // for what is left.
    let (likely, others): (Vec<u32>, Vec<u32>) =
        pids.into_iter().partition(|&pid| may_be_interceptor(pid));
    let mut unclaimed: HashMap<String, usize> = sockets
        .iter()
        .enumerate()
        .map(|(at, socket)| (format!("socket:[{}]", socket.inode), at))
        .collect();
    likely
        .into_iter()
        .for_each(|pid| claim(pid, &mut unclaimed, &mut sockets));
    unclaimed.retain(|_, at| is_wanted(sockets[*at].address.port()));
    for pid in others {
        if unclaimed.is_empty() {
            break;
        }
        claim(pid, &mut unclaimed, &mut sockets);
    }
    let listeners = sockets
        .into_iter()
        .filter(|socket| socket.holder.is_some() || is_wanted(socket.address.port()))
        .map(
            |Socket {
                 address, holder, ..
             }| Listener { address, holder },
        )
        .collect();
    Some(listeners)
}

/// Who listens on a Unix socket, as the kernel tells whoever connects.
pub fn socket_holder(path: &Path) -> Option<Holder> {
    let stream = crate::serve::connect_at_once(path).ok()?;
    let credentials = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).ok()?;
    let program = program(pid)?;
    Some(Holder { pid, program })
}

/// A socket that listens.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: SocketAddr,
    inode: u64,
    holder: Option<Holder>,
}

/// The sockets in a table of `/proc/net/tcp` that listen.
fn listening(table: &str) -> Vec<Socket> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
            let mut columns = line.split_ascii_whitespace();
            let address = columns.nth(1)?;
            let state = columns.nth(1)?;
            let inode = columns.nth(5)?;
            (state == LISTEN).then_some(())?;
            Some(Socket {
                address: self::address(address)?,
                inode: inode.parse().ok()?,
                holder: None,
            })
        })
        .collect()
}

/// `0100007F:22B8`: the address in words of 32 bits as the machine has them, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let words: Vec<[u8; 4]> = (0..ip.len() / 8)
        .map(|at| {
            let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    let bytes = words.concat();
    let ip: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).into(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Notes a process as the holder of what it has open.
fn claim(pid: u32, unclaimed: &mut HashMap<String, usize>, sockets: &mut [Socket]) {
    // Unreadable for other people's processes, and gone for those that ended meanwhile.
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return;
    };
    let mut name = None;
    for target in open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
        let found = target.to_str().and_then(|target| unclaimed.remove(target));
        if let Some(at) = found {
            let program = name.get_or_insert_with(|| program(pid)).clone();
            sockets[at].holder = program.map(|program| Holder { pid, program });
        }
    }
}

/// Whether it is called `ic`, or runs the same program under another name.
fn may_be_interceptor(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let name = fs::read(format!("/proc/{pid}/comm"));
    if name.is_ok_and(|name| name.trim_ascii_end() == IC.as_bytes()) {
        return true;
    }
    let file = |pid: &str| {
        let found = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((found.dev(), found.ino()))
    };
    file(&pid.to_string()).is_some_and(|theirs| file("self") == Some(theirs))
}

fn program(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(&name).trim_end().to_owned();
    // Node names its first thread, and with it the process, after the thread's role.
    if name != "MainThread" {
        return Some(name);
    }
    let file = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let file = file.as_deref().and_then(Path::file_name);
    Some(file.map_or(name, |file| file.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3117 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:22B8 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 3200 1 0 20 4 30 10 -1\n\
            \x20  2: 00000000:22B9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3118 1 0 100 0 0 10 0\n\
            \x20  3: 00000000000000000000000001000000:22B8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3119 1 0 100 0 0 10 0\n\
            \x20  4: damaged\n";
        let found: Vec<_> = listening(table)
            .into_iter()
            .map(|socket| (socket.address.to_string(), socket.inode))
            .collect();
        let expected = [
            ("127.0.0.1:8888", 3117),
            ("0.0.0.0:8889", 3118),
            ("[::1]:8888", 3119),
        ];
        // As a machine writes it that puts the lowest byte first.
        if cfg!(target_endian = "little") {
            assert_eq!(
                found,
                expected.map(|(address, inode)| (address.to_owned(), inode))
            );
        }
        assert!(listening("").is_empty());
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            ":",
            "0100007F",
            "0100007F:",
            ":22B8",
            "0100007:22B8",
            "x100007F:22B8",
            "é100007F:22B8",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
