//! `lsof`, where it is installed: which sockets listen, and which processes have them open.

#![cfg_attr(all(target_os = "linux", not(ic_portable)), allow(dead_code))] // compiled for its test

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::machine::process::{Holder, IC, Listener, Process, other_user};

/// Why no listeners can be listed.
pub const UNAVAILABLE: &str =
    "lsof is not installed, which shows the process that listens on a port";

/// Always `None`: lsof lists the sockets of a process, but not which of them listens.
pub fn process_on_socket(_path: &Path) -> Option<Process> {
    None
}

/// There are no PID namespaces here.
pub fn has_pid(_process: u32, _pid: u32) -> bool {
    false
}

pub fn listeners(is_wanted: &dyn Fn(u16) -> bool) -> Option<Vec<Listener>> {
    let output = Command::new("lsof")
        .args(["-nP", "-iTCP", "-sTCP:LISTEN", "-FpcuPn"]) // no look-ups of names; one field on each line
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let is_selected = |listener: &Listener| {
        let is_ic = |process: &Process| process.program == IC;
        is_wanted(listener.address.port()) || listener.holder.process.as_ref().is_some_and(is_ic)
    };
    let mut listeners = parse(&String::from_utf8_lossy(&output.stdout));
    listeners.retain(is_selected);
    Some(listeners)
}

/// Parses lsof's fields: `p812`, `cnode`, `u501`, then `n*:8888` for each socket of that process; then the next process.
fn parse(fields: &str) -> Vec<Listener> {
    let mut found = Vec::new();
    let mut pid = None;
    let mut program = None;
    let mut user = None;
    for line in fields.lines() {
        let Some((kind, value)) = line.split_at_checked(1) else {
            continue;
        };
        match kind {
            "p" => (pid, program, user) = (value.parse().ok(), None, None),
            "c" => program = Some(value),
            "u" => user = value.parse().ok(),
            "n" => {
                let process = pid.zip(program).map(|(pid, program)| Process {
                    pid,
                    program: program.to_owned(),
                });
                let holder = Holder {
                    process,
                    other_user: user.and_then(other_user),
                };
                found.extend(addresses(value).into_iter().map(|address| Listener {
                    address,
                    holder: holder.clone(),
                }));
            }
            _ => {}
        }
    }
    found
}

/// `127.0.0.1:8888`, `[::1]:8888`, or `*:8888`, which may be either family.
fn addresses(name: &str) -> Vec<SocketAddr> {
    match name.strip_prefix("*:").map(str::parse) {
        Some(Ok(port)) => [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ]
        .map(|ip| SocketAddr::new(ip, port))
        .to_vec(),
        Some(Err(_)) => Vec::new(),
        None => name.parse().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_comes_with_its_process_and_user() {
        type Found<'a> = (&'a str, Option<(u32, &'a str)>, Option<u32>);
        #[track_caller]
        fn check(fields: &str, expected: &[Found<'_>]) {
            let found = parse(fields);
            let found: Vec<_> = found
                .iter()
                .map(|Listener { address, holder }| {
                    let process = holder.process.as_ref();
                    let process = process.map(|it| (it.pid, it.program.as_str()));
                    (address.to_string(), process, holder.other_user)
                })
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|&(address, process, user)| (address.to_owned(), process, user))
                .collect();
            assert_eq!(found, expected);
        }
        check(
            "p812\ncnode\nu4294967294\nf18\nPTCP\nn127.0.0.1:8888\nf19\nPTCP\nn[::1]:8888\np9\ncGoogle Chrome\nu0\nf3\nPTCP\nn*:80\n",
            &[
                ("127.0.0.1:8888", Some((812, "node")), Some(4_294_967_294)),
                ("[::1]:8888", Some((812, "node")), Some(4_294_967_294)),
                ("0.0.0.0:80", Some((9, "Google Chrome")), None),
                ("[::]:80", Some((9, "Google Chrome")), None),
            ],
        );
        check("p812\nn127.0.0.1:1\n", &[("127.0.0.1:1", None, None)]);
        check("px\ncnode\nn127.0.0.1:1\n", &[("127.0.0.1:1", None, None)]);
        check("p812\ncnode\nn*:http\nnlocalhost:1\n\u{e9}\n\n", &[]);
        check("", &[]);
        check("lsof: no such thing\n", &[]);
    }
}
