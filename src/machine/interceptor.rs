//! Which interceptor listens on a port or a Unix socket, by its own answer to `GET /_ic/health`.
//!
//! The answer counts only if the socket is this user's and its process id is that of the process that holds the socket, as far as
//! the system shows that: another program or another user on the port of a project could claim to be its interceptor, to be sent
//! the keys of clients. A socket that is missing in the system's list is not this user's. A system that does not list sockets
//! (a container without `/proc`) cannot show who answers, and then the answer counts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{self, Request};
use super::listeners::{has_pid, holder_of_socket, on_port};
use super::process::{Holder, Listener};
use crate::serve::{Endpoint, ServedBy, reactor};

/// What an interceptor says of itself.
/// Serialises as members of a document of `ic status`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Identity {
    /// `healthy`.
    #[serde(skip_serializing)]
    pub status: String,
    /// What it adds to every request as `x-memory-user-id`.
    pub instance_id: String,
    /// The target that it forwards to.
    pub target: String,
    /// The proxy through which it reaches its target.
    #[serde(default, skip_serializing)]
    pub proxy: Option<String>,
    /// Whether it does not verify the certificate of its target.
    #[serde(default)]
    pub insecure: bool,
    /// The path of the project that it was started for, as text that carries its bytes ([`raw`](crate::text::raw)).
    #[serde(default, skip_serializing)]
    pub project: Option<String>,
    /// Its process id, as seen from this process where that is known.
    pub pid: u32,
    /// The command that runs it.
    #[serde(default)]
    pub served_by: ServedBy,
    /// The time since its start.
    pub uptime_seconds: u64,
    /// How long it lets requests in flight continue when it is stopped.
    #[serde(default, skip_serializing)]
    grace_seconds: Option<f64>,
    /// The number of requests that it has answered.
    #[serde(default)]
    pub requests: u64,
    /// How many of them failed: with a status of 400 or above, or a response that broke off.
    #[serde(default)]
    pub errors: u64,
    /// Those whose client disconnected before the end of the response.
    #[serde(default)]
    pub client_gone: u64,
    /// The number of requests in flight.
    #[serde(default)]
    pub in_flight: u64,
    /// The last failure on the way to its target.
    #[serde(default)]
    pub last_error: Option<LastError>,
    /// The address at which it answered; `None` for a Unix socket.
    #[serde(skip)]
    pub address: Option<SocketAddr>,
}

impl Identity {
    /// Returns how long it lets requests in flight continue when it is stopped; `None` if it does not say so.
    pub fn grace(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.grace_seconds?).ok()
    }

    /// Returns the URL that it connects to: its proxy's, else its target's.
    pub fn first_hop(&self) -> &str {
        self.proxy.as_deref().unwrap_or(&self.target)
    }
}

/// The last failure on the way to an interceptor's target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct LastError {
    /// One line.
    pub message: String,
    /// The time since then.
    pub seconds_ago: u64,
}

/// Returns the interceptor that listens on `port`, on any address of this machine.
pub fn interceptor_at(port: u16) -> Option<Identity> {
    let services = match on_port(port) {
        Some(listeners) => Service::group(listeners.into_iter()),
        None => vec![Service::unseen(port)],
    };
    reactor::block_on(async {
        for service in &services {
            if let Some(identity) = service.identity().await {
                return Some(identity);
            }
        }
        None
    })
    .ok()?
}

/// Returns the interceptor that listens on the Unix socket at `path`.
pub fn interceptor_at_socket(path: &Path) -> Option<Identity> {
    let identity = reactor::block_on(identity(&Endpoint::Unix(path.to_owned()))).ok()?;
    identity.filter(|_| holder_of_socket(path).other_user.is_none())
}

/// Returns what the interceptor at `address` says of itself. Its process and its user are not checked.
pub fn claimed_identity(address: SocketAddr) -> Option<Identity> {
    let endpoint = Endpoint::Tcp(address.ip().to_string(), address.port());
    reactor::block_on(identity(&endpoint)).ok()?
}

/// The sockets on one port of one process, or of processes of one user that cannot be seen.
#[derive(Debug)]
pub struct Service {
    /// The port.
    pub port: u16,
    /// What holds them.
    pub holder: Holder,
    addresses: Vec<IpAddr>,
}

impl Service {
    /// Groups sockets by port, process and user; sorted by port.
    pub fn group(listeners: impl Iterator<Item = Listener>) -> Vec<Service> {
        let mut services = BTreeMap::new();
        for Listener { address, holder } in listeners {
            let port = address.port();
            let pid = holder.process.as_ref().map(|process| process.pid);
            let key = (port, pid, holder.other_user);
            let service = services.entry(key).or_insert(Service {
                port,
                holder,
                addresses: Vec::new(),
            });
            service.addresses.push(address.ip());
        }
        services.into_values().collect()
    }

    /// Whatever listens on `port`, where the system lists no sockets.
    pub fn unseen(port: u16) -> Service {
        Service {
            port,
            holder: Holder::default(),
            addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        }
    }

    /// Returns the interceptor of this user that this is, if it is one.
    pub async fn identity(&self) -> Option<Identity> {
        if self.holder.other_user.is_some() {
            return None;
        }
        for &ip in &self.addresses {
            let ip = match ip {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            let Some(mut identity) = identity(&Endpoint::Tcp(ip.to_string(), self.port)).await
            else {
                continue;
            };
            identity.address = Some(SocketAddr::new(ip, self.port));
            match &self.holder.process {
                None => return Some(identity),
                Some(process) if has_pid(process, identity.pid) => {
                    identity.pid = process.pid;
                    return Some(identity);
                }
                Some(_) => {}
            }
        }
        None
    }
}

/// Asks what listens at `endpoint` who it is.
async fn identity(endpoint: &Endpoint) -> Option<Identity> {
    let request = Request {
        method: "GET",
        path: "/_ic/health",
        // Accepted on every address: one that is loopback answers to it, the others to any.
        host: "localhost",
        ..Request::default()
    };
    let response = client::send(endpoint, &request, ANSWER_TIME_MAX)
        .await
        .ok()?;
    let identity: Identity = serde_json::from_slice(&response.body).ok()?;
    (response.status == 200 && identity.status == "healthy").then_some(identity)
}

/// A running interceptor answers in a few milliseconds, and a user waits at the prompt.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    /// Answers one request on a free port of `address`; returns what is found there.
    fn found(address: &str, answer: String) -> Option<Identity> {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the request");
            let mut request = [0; 1024];
            let len = TcpStream::read(&mut stream, &mut request).expect("the request");
            assert!(request[..len].starts_with(b"GET /_ic/health HTTP/1.1\r\nHost: "));
            stream.write_all(answer.as_bytes()).expect("the answer");
        });
        let found = interceptor_at(port);
        server.join().expect("no failure in the server");
        found
    }

    fn document(pid: u32) -> String {
        format!(
            "{{\"status\":\"healthy\",\"instance_id\":\"pycharm-a\",\"target\":\"http://localhost:8764\",\
             \"project\":\"/home/me/a\",\"pid\":{pid},\"uptime_seconds\":12,\"more\":[]}}"
        )
    }

    #[test]
    fn only_a_healthy_answer_of_the_process_that_listens_identifies_an_interceptor() {
        let pid = std::process::id();
        let whole = format!("HTTP/1.1 200 OK\r\n\r\n{}", document(pid));
        let identity = found("127.0.0.1", whole.clone()).expect("an interceptor");
        assert_eq!(
            (identity.pid, identity.instance_id.as_str()),
            (pid, "pycharm-a")
        );
        assert_eq!(identity.project.as_deref(), Some("/home/me/a"));
        for answer in [
            whole.replace("200 OK", "404 Not Found"),
            whole.replace("healthy", "ill"),
            whole[..whole.len() - 1].to_owned(),
            "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\n\r\n<html></html>".to_owned(),
        ] {
            assert_eq!(found("127.0.0.1", answer.clone()), None, "{answer}");
        }
        if cfg!(all(target_os = "linux", not(ic_portable))) {
            let other = format!("HTTP/1.1 200 OK\r\n\r\n{}", document(1));
            assert_eq!(found("127.0.0.1", other), None, "another process");
        }
    }

    #[test]
    fn an_interceptor_is_found_on_every_loopback_address_and_in_every_framing() {
        let body = document(std::process::id());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        for address in ["127.0.0.1", "127.0.0.2", "::1"] {
            if TcpListener::bind((address, 0)).is_err() {
                eprintln!("skipped {address}: not on this machine");
                continue;
            }
            let is_listed = cfg!(all(target_os = "linux", not(ic_portable)));
            if is_listed || address != "127.0.0.2" {
                assert!(found(address, answer.clone()).is_some(), "{address}");
            }
        }
    }

    #[test]
    fn a_silent_server_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let start = Instant::now();
        assert_eq!(interceptor_at(port), None);
        let elapsed = start.elapsed();
        assert!(elapsed < ANSWER_TIME_MAX * 10, "{elapsed:?}");
    }
}
