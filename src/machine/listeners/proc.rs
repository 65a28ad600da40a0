//! `/proc`: which sockets listen, and which processes have them open.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::machine::process::{Holder, IC, Listener, Process, other_user};
use crate::serve::connect_at_once;

/// Why no listeners can be listed.
pub const UNAVAILABLE: &str =
    "/proc/net/tcp cannot be read, which shows the sockets that listen on a port";

pub fn listeners(is_wanted: &dyn Fn(u16) -> bool) -> Option<Vec<Listener>> {
    // A system with one address family has one table.
    let tables: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .collect();
    if tables.is_empty() {
        return None;
    }
    let mut sockets: Vec<(u64, Listener)> = tables.iter().flat_map(|table| parse(table)).collect();
    let mut unclaimed: HashMap<String, usize> = sockets
        .iter()
        .enumerate()
        .map(|(index, (inode, _))| (format!("socket:[{inode}]"), index))
        .collect();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();

    // Reading what a process has open is expensive: first the few that may be interceptors, then the others, and those only
    // for sockets on wanted ports.
    let (likely, others): (Vec<u32>, Vec<u32>) =
        pids.into_iter().partition(|&pid| may_be_interceptor(pid));
    for pid in likely {
        claim(pid, &mut unclaimed, &mut sockets);
    }
    unclaimed.retain(|_, index| is_wanted(sockets[*index].1.address.port()));
    for pid in others {
        if unclaimed.is_empty() {
            break;
        }
        claim(pid, &mut unclaimed, &mut sockets);
    }
    let listeners = sockets.into_iter().map(|(_, listener)| listener);
    let is_selected = |listener: &Listener| {
        listener.holder.process.is_some() || is_wanted(listener.address.port())
    };
    Some(listeners.filter(is_selected).collect())
}

/// The kernel names the listener to a client that connects.
pub fn process_on_socket(path: &Path) -> Option<Process> {
    let stream = connect_at_once(path).ok()?;
    let credentials = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).ok()?;
    let program = program(pid)?;
    Some(Process { pid, program })
}

/// Whether the process is known as `pid` in one of its PID namespaces.
pub fn has_pid(process: u32, pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .is_some_and(|pids| {
            pids.split_ascii_whitespace()
                .any(|known| known.parse() == Ok(pid))
        })
}

/// Parses a table of `/proc/net/tcp`: the sockets that listen, each with its inode and owner (proc_pid_net(5)).
fn parse(table: &str) -> Vec<(u64, Listener)> {
    const LISTEN: &str = "0A";
    // A table changes while it is read, and may then have a socket twice.
    let mut seen = HashSet::new();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
            let mut columns = line.split_ascii_whitespace();
            let address = columns.nth(1)?;
            let state = columns.nth(1)?;
            let uid = columns.nth(3)?;
            let inode = columns.nth(1)?;
            (state == LISTEN).then_some(())?;
            let listener = Listener {
                address: self::address(address)?,
                holder: Holder {
                    process: None,
                    other_user: other_user(uid.parse().ok()?),
                },
            };
            Some((inode.parse().ok()?, listener))
        })
        .filter(|(inode, _)| seen.insert(*inode))
        .collect()
}

/// Parses `0100007F:22B8`: the address as words of 32 bits in the byte order of the machine, then the port.
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

/// Records the process as the holder of those sockets that it has open.
fn claim(pid: u32, unclaimed: &mut HashMap<String, usize>, sockets: &mut [(u64, Listener)]) {
    // Fails for the processes of other users, and for those that have ended meanwhile.
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return;
    };
    let mut name = None;
    for target in open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
        let found = target.to_str().and_then(|target| unclaimed.remove(target));
        if let Some(index) = found {
            let program = name.get_or_insert_with(|| program(pid)).clone();
            sockets[index].1.holder.process = program.map(|program| Process { pid, program });
        }
    }
}

/// Whether the process is called `ic`, or runs the same file as this one under another name.
fn may_be_interceptor(pid: u32) -> bool {
    let name = fs::read(format!("/proc/{pid}/comm"));
    if name.is_ok_and(|name| name.trim_ascii_end() == IC.as_bytes()) {
        return true;
    }
    let file = |pid: &str| {
        let found = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((found.dev(), found.ino()))
    };
    file(&pid.to_string()).is_some_and(|found| file("self") == Some(found))
}

fn program(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(&name).trim_end().to_owned();
    // Node names its first thread, and so its process, after the thread's role.
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
    fn listening_sockets_are_found_once_each() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3117 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:22B8 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 3200 1 0 20 4 30 10 -1\n\
            \x20  2: 00000000:22B9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 4294967294        0 3118 1 0 100 0 0 10 0\n\
            \x20  3: 00000000000000000000000001000000:22B8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3119 1 0 100 0 0 10 0\n\
            \x20  4: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3117 1 0 100 0 0 10 0\n\
            \x20  5: damaged\n";
        let found: Vec<_> = parse(table)
            .into_iter()
            .map(|(inode, listener)| {
                let address = listener.address.to_string();
                (address, inode, listener.holder.other_user)
            })
            .collect();
        let expected = [
            ("127.0.0.1:8888", 3117, None),
            ("0.0.0.0:8889", 3118, Some(4_294_967_294)),
            ("[::1]:8888", 3119, None),
        ];
        // The table above is of a little-endian machine.
        if cfg!(target_endian = "little") {
            assert_eq!(
                found,
                expected.map(|(address, inode, user)| (address.to_owned(), inode, user))
            );
        }
        assert!(parse("").is_empty());
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
