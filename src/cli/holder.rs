//! Who holds a port: nobody, the program that listens on it, the interceptor that answers there.
//!
//! Only what can be seen is said: other people's processes hide theirs, and then the answer is `None`, never a guess.
//! What to advise is decided by the commands.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::registry::Port;
use crate::registry::probe::{Availability, availability};

use super::output::Shown;

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
use self::lsof::listener;
#[cfg(all(target_os = "linux", not(ic_portable)))]
use self::proc::listener;

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id; of several that share the socket, the lowest: most often the parent.
    pub pid: u32,
    /// The name of its program. Chosen by that program: any text at all.
    pub program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.program, self.pid)
    }
}

/// The process that listens on `port`, if there is one and it can be seen.
pub fn holder(port: Port) -> Option<Holder> {
    listener(port)
}

/// Whether a port can be had, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupancy {
    /// It can be bound.
    Free,
    /// A program has it; which one is not always to be seen.
    Held(Option<Holder>),
    /// It takes privileges that this process does not have.
    NotPermitted,
}

/// Tries `port`. Its holder is looked for only if there is one: that takes a walk through all processes.
pub fn occupancy(port: Port) -> Occupancy {
    match availability(port) {
        Availability::Free => Occupancy::Free,
        Availability::InUse => Occupancy::Held(holder(port)),
        Availability::NotPermitted => Occupancy::NotPermitted,
    }
}

impl fmt::Display for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Occupancy::Free => f.write_str("free"),
            Occupancy::Held(Some(holder)) => write!(
                f,
                "in use by {}, pid {}",
                Shown(&holder.program),
                holder.pid
            ),
            Occupancy::Held(None) => f.write_str("in use"),
            Occupancy::NotPermitted => f.write_str("needs privileges to bind"),
        }
    }
}

/// What an interceptor says of itself (`GET /_ic/health`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Identity {
    /// `healthy`.
    pub status: String,
    /// What it adds to every request as `x-memory-user-id`.
    pub instance_id: String,
    /// Where its requests go.
    pub target: String,
    /// The project that it was started for.
    #[serde(default)]
    pub project: Option<String>,
    /// Its process id.
    pub pid: u32,
    /// How long it has been running.
    pub uptime_seconds: f64,
}

/// Asks the interceptor on this machine's `port` who it is. `None` if nobody answers in 300 ms, or
/// something else does.
pub fn interceptor_at(port: Port) -> Option<Identity> {
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ]
    .into_iter()
    .find_map(|address| {
        let answer = ask(SocketAddr::new(address, port.get()), deadline).ok()?;
        identity(&answer)
    })
}

fn ask(address: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    let left = || {
        deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or(io::ErrorKind::TimedOut)
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(
        format!("GET /_ic/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < ANSWER_LENGTH_MAX && identity(&answer).is_none() {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece)? {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    Ok(answer)
}

/// The identity in an answer, as soon as all of it is there.
fn identity(answer: &[u8]) -> Option<Identity> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_length) = head.parse(answer).ok()? else {
        return None;
    };
    if head.code != Some(200) {
        return None;
    }
    // Half a JSON document is none, so where the body ends need not be known.
    serde_json::from_slice(&answer[head_length..])
        .ok()
        .filter(|identity: &Identity| identity.status == "healthy")
}

/// `/proc`: which socket listens, and which process has it open.
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod proc {
    use std::fs;
    use std::path::Path;

    use super::Holder;
    use crate::registry::Port;

    pub fn listener(port: Port) -> Option<Holder> {
        let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listening_inodes(&table, port.get()))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        if sockets.is_empty() {
            return None;
        }
        let mut pids: Vec<u32> = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        let pid = pids.into_iter().find(|pid| has_open(*pid, &sockets))?;
        Some(Holder {
            pid,
            program: program(pid)?,
        })
    }

    /// The inodes in a table of `/proc/net/tcp` that listen on `port`.
    pub(super) fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
        const LISTEN: &str = "0A";
        table
            .lines()
            .skip(1)
            .filter_map(|line| {
                // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
                let mut columns = line.split_ascii_whitespace();
                let local = columns.nth(1)?;
                let state = columns.nth(1)?;
                let inode = columns.nth(5)?;
                let (_, local_port) = local.rsplit_once(':')?;
                let matches = state == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
                matches.then(|| inode.parse().ok())?
            })
            .collect()
    }

    fn has_open(pid: u32, sockets: &[String]) -> bool {
        // Unreadable for other people's processes, and gone for those that ended meanwhile.
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|target| {
                sockets
                    .iter()
                    .any(|socket| target == Path::new(socket.as_str()))
            })
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
}

/// `lsof`, where it is installed.
#[cfg(any(not(target_os = "linux"), ic_portable, test))]
mod lsof {
    use std::process::{Command, Stdio};

    use super::Holder;
    use crate::registry::Port;

    #[cfg_attr(all(target_os = "linux", not(ic_portable)), allow(dead_code))] // compiled for its test
    pub fn listener(port: Port) -> Option<Holder> {
        let output = Command::new("lsof")
            .args(["-nP", "-sTCP:LISTEN", "-Fpc"]) // no look-ups of names; one field on each line
            .arg(format!("-iTCP:{port}"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        first_process(&String::from_utf8_lossy(&output.stdout))
    }

    /// `p812`, `cnode`, then the files of that process; then the next process.
    pub(super) fn first_process(fields: &str) -> Option<Holder> {
        let mut lines = fields.lines();
        let pid = lines.find_map(|line| line.strip_prefix('p')?.parse().ok())?;
        let program = lines.next()?.strip_prefix('c')?.to_owned();
        Some(Holder { pid, program })
    }
}

/// A running interceptor answers in a few milliseconds; whoever waits here is at a prompt.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(300);

/// Somebody else's server may have more to say than is wanted.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3117 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:22B8 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 3200 1 0 20 4 30 10 -1\n\
            \x20  2: 0100007F:22B9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3118 1 0 100 0 0 10 0\n\
            \x20  3: 00000000000000000000000001000000:22B8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3119 1 0 100 0 0 10 0\n\
            \x20  4: damaged\n";
        assert_eq!(proc::listening_inodes(table, 8888), [3117, 3119]);
        assert_eq!(proc::listening_inodes(table, 8889), [3118]);
        assert!(proc::listening_inodes(table, 8890).is_empty());
        assert!(proc::listening_inodes("", 8888).is_empty());
    }

    #[test]
    fn the_first_process_that_lsof_names_is_the_holder() {
        #[track_caller]
        fn check(fields: &str, expected: Option<(u32, &str)>) {
            let expected = expected.map(|(pid, program)| Holder {
                pid,
                program: program.to_owned(),
            });
            assert_eq!(lsof::first_process(fields), expected);
        }
        check("p812\ncnode\nf18\nf19\n", Some((812, "node")));
        check(
            "p812\ncPython\nf3\np813\ncPython\nf3\n",
            Some((812, "Python")),
        );
        check("p7\ncGoogle Chrome\n", Some((7, "Google Chrome")));
        check("", None);
        check("p812\n", None);
        check("lsof: no such thing\n", None);
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let port = Port::try_from(port).expect("bound to a port");
        let Some(holder) = holder(port) else {
            // Where nothing shows open files (no /proc, no lsof), not knowing is the right answer.
            assert!(!std::path::Path::new("/proc/self/fd").exists());
            return;
        };
        assert_eq!(holder.pid, std::process::id());
        drop(listener);
    }

    #[test]
    fn only_a_whole_healthy_answer_identifies_an_interceptor() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\
            {\"status\":\"healthy\",\"instance_id\":\"pycharm-a\",\"target\":\"http://localhost:8764\",\
            \"project\":\"/home/me/a\",\"pid\":812,\"uptime_seconds\":12,\"more\":[]}";
        for cut in 0..whole.len() {
            assert_eq!(identity(&whole.as_bytes()[..cut]), None, "cut at {cut}");
        }
        let found = identity(whole.as_bytes()).expect("a whole answer");
        assert_eq!((found.pid, found.instance_id.as_str()), (812, "pycharm-a"));
        assert_eq!(found.project.as_deref(), Some("/home/me/a"));

        assert_eq!(
            identity(whole.replace("200 OK", "404 Not Found").as_bytes()),
            None
        );
        assert_eq!(identity(whole.replace("healthy", "ill").as_bytes()), None);
        assert_eq!(identity(b"SSH-2.0-OpenSSH_9.6\r\n"), None);
        assert_eq!(identity(b"HTTP/1.1 200 OK\r\n\r\n<html></html>"), None);
    }

    #[test]
    fn an_interceptor_is_asked_over_either_address_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("skipped {address}: not on this machine");
                continue;
            };
            let port = listener.local_addr().expect("bound").port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("the question");
                let mut question = [0; 1024];
                let length = stream.read(&mut question).expect("the question");
                assert!(question[..length].starts_with(b"GET /_ic/health HTTP/1.1\r\nHost: "));
                stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"healthy\",\"instance_id\":\"i\",\
                        \"target\":\"t\",\"project\":null,\"pid\":1,\"uptime_seconds\":0.5}",
                    )
                    .expect("the answer");
            });
            let found = interceptor_at(Port::try_from(port).expect("bound to a port"));
            assert_eq!(found.map(|identity| identity.pid), Some(1), "{address}");
            server.join().expect("no failure in the server");
        }
    }

    #[test]
    fn a_silent_server_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let asked = Instant::now();
        assert_eq!(
            interceptor_at(Port::try_from(port).expect("bound to a port")),
            None
        );
        assert!(
            asked.elapsed() < ANSWER_TIME_MAX * 10,
            "{:?}",
            asked.elapsed()
        );
    }
}
