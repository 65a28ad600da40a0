//! Who holds a port: nobody, the program that listens on it, the interceptor that answers there.
//!
//! Only what can be seen is said: other people's processes hide theirs, and then the answer is `None`, never a guess.
//! What to advise is decided by the commands, how a system is asked in `proc` and `lsof`.

#[cfg(any(not(target_os = "linux"), ic_portable, test))]
mod lsof;
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod proc;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::{Deserialize, Serialize};

use crate::registry::Port;
use crate::registry::probe::{Availability, Refusal, availability};
use crate::serve::connect_at_once;

use crate::text::Escaped;

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
use self::lsof as system;
#[cfg(all(target_os = "linux", not(ic_portable)))]
use self::proc as system;

pub use self::system::NOT_TOLD;

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

/// A socket that accepts connections, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process that has it, where that can be seen.
    pub holder: Option<Holder>,
}

impl Listener {
    /// The port that it listens on; sockets that listen have one.
    pub fn port(&self) -> Option<Port> {
        Port::try_from(self.address.port()).ok()
    }
}

/// What listens on the ports that are `wanted`, and whatever else programs called `ic` listen on. One look at the
/// machine, however many ports there are. `None` where the system does not tell: without `/proc`, or without an `lsof`
/// where that is asked.
pub fn listeners(wanted: impl Fn(Port) -> bool) -> Option<Vec<Listener>> {
    let is_wanted = |port: u16| Port::try_from(port).is_ok_and(&wanted);
    system::listeners(&is_wanted)
}

/// The process that listens on `port`, if there is one and it can be seen.
pub fn holder(port: Port) -> Option<Holder> {
    listeners(|wanted| wanted == port)?
        .into_iter()
        .filter(|listener| listener.port() == Some(port))
        .find_map(|listener| listener.holder)
}

/// The process that listens on a Unix socket, if there is one and it can be seen.
pub fn socket_holder(path: &Path) -> Option<Holder> {
    system::socket_holder(path)
}

/// What a program is called that may be an interceptor.
const IC: &str = "ic";

/// Whether a port can be had, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupancy {
    /// It can be bound.
    Free,
    /// A program has it; which one is not always to be seen.
    Held(Option<Holder>),
    /// It takes privileges that this process does not have.
    NotPermitted,
    /// It could not be tried.
    Untried(Refusal),
}

/// Tries `port`. Its holder is looked for only if there is one: that takes a walk through all processes.
pub fn occupancy(port: Port) -> Occupancy {
    match availability(port) {
        Availability::Free => Occupancy::Free,
        Availability::InUse => Occupancy::Held(holder(port)),
        Availability::NotPermitted => Occupancy::NotPermitted,
        Availability::Untried(refusal) => Occupancy::Untried(refusal),
    }
}

impl fmt::Display for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Occupancy::Free => f.write_str("free"),
            Occupancy::Held(Some(holder)) => write!(
                f,
                "in use by {}, pid {}",
                Escaped(&holder.program),
                holder.pid
            ),
            Occupancy::Held(None) => f.write_str("in use"),
            Occupancy::NotPermitted => f.write_str("needs privileges to bind"),
            Occupancy::Untried(refusal) => write!(f, "cannot be tried: {refusal}"),
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
    /// The proxy through which it reaches its target.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Anybody may pass for its target, which is one in TLS.
    #[serde(default)]
    pub insecure: bool,
    /// The project that it was started for.
    #[serde(default)]
    pub project: Option<String>,
    /// Its process id.
    pub pid: u32,
    /// How long it has been running.
    pub uptime_seconds: f64,
    /// How many requests it has answered.
    #[serde(default)]
    pub requests: u64,
    /// How many of them with a status of 500 or above.
    #[serde(default)]
    pub errors: u64,
    /// How many it is serving.
    #[serde(default)]
    pub in_flight: u64,
    /// What went wrong last.
    #[serde(default)]
    pub last_error: Option<LastError>,
}

impl Identity {
    /// What it has to connect to on the way to its target.
    pub fn first_hop(&self) -> &str {
        self.proxy.as_deref().unwrap_or(&self.target)
    }
}

/// What went wrong last on the way to an interceptor's target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct LastError {
    /// One line.
    pub message: String,
    /// How long ago that was.
    pub seconds_ago: u64,
}

/// Asks the interceptor on this machine's `port` who it is. `None` if nobody answers in 300 ms, or
/// something else does.
pub fn interceptor_at(port: Port) -> Option<Identity> {
    [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ]
    .into_iter()
    .find_map(|ip| interceptor_on(SocketAddr::new(ip, port.get())))
}

/// As [`interceptor_at`], where it is known where it listens.
pub fn interceptor_on(address: SocketAddr) -> Option<Identity> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let answer = ask(SocketAddr::new(ip, address.port()), deadline).ok()?;
    identity(&answer)
}

/// As [`interceptor_at`], where it listens on a Unix socket.
pub fn interceptor_at_socket(path: &Path) -> Option<Identity> {
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let stream = connect_at_once(path).ok()?;
    identity(&question(stream, "localhost", deadline).ok()?)
}

fn ask(address: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    question(stream, &address.to_string(), deadline)
}

/// What is left of the time for an answer.
fn left(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Asks on a connection that blocks.
fn question(
    mut stream: impl Read + Write + AsFd,
    host: &str,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    set_socket_timeout(&stream, Timeout::Send, Some(left(deadline)?))?;
    stream.write_all(
        format!("GET /_ic/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < ANSWER_LENGTH_MAX && identity(&answer).is_none() {
        set_socket_timeout(&stream, Timeout::Recv, Some(left(deadline)?))?;
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

/// A running interceptor answers in a few milliseconds; whoever waits here is at a prompt.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(300);

/// Somebody else's server may have more to say than is wanted.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let port = Port::try_from(port).expect("bound to a port");
        let Some(holder) = holder(port) else {
            // Not knowing is the right answer only where it takes an lsof that is not there.
            let asks_lsof = cfg!(any(not(target_os = "linux"), ic_portable));
            let lsof = std::process::Command::new("lsof").arg("-v").output();
            assert!(asks_lsof && lsof.is_err(), "{lsof:?}");
            eprintln!("skipped: there is no lsof here");
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
