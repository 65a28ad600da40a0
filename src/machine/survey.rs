//! Which interceptors run on this machine, and who else holds the ports of projects.
//!
//! Nothing is recorded for it, so nothing can be wrong after a kill: the kernel says which sockets listen and whose they
//! are, and each candidate is asked who it is. Candidates are the sockets of programs called `ic` (those that were given
//! their port outright, too), and whatever listens on a port of the registry. One counts as an interceptor only if it
//! answers `/_ic/health` with the process id that the kernel gives its socket, as far as that can be seen.
//!
//! Only ports that are listened on are asked, side by side and each for a bounded time; the same goes for their targets. So a
//! registry that is full costs no more than one that is empty. Where the system does not tell which those are, every port of
//! the registry is asked, and the survey says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::machine::holder::{
    Holder, Identity, Listener, interceptor_at, interceptor_on, listeners,
};
use crate::registry::{Port, Registry};
use crate::serve::{Endpoint, Target};
use crate::text::raw;

/// What was found.
pub struct Survey {
    /// Sorted by port.
    pub interceptors: Vec<Interceptor>,
    /// Ports of projects that something else listens on; sorted by port.
    pub held: Vec<Held>,
    /// The system does not tell who listens: an interceptor that was given its port outright was not found, nor was who else
    /// holds a port.
    pub is_partial: bool,
}

/// A running interceptor.
pub struct Interceptor {
    /// Where it listens.
    pub port: Port,
    /// What it says of itself.
    pub identity: Identity,
    /// Whether its target, or the proxy before it, accepts connections.
    pub target_reachable: bool,
}

/// A project's port that is held by something else than its interceptor.
pub struct Held {
    /// The project's port.
    pub port: Port,
    /// The project's path.
    pub path: PathBuf,
    /// What listens on it.
    pub by: By,
}

/// Who holds it.
pub enum By {
    /// The interceptor of another project, or of none.
    Interceptor {
        /// Its process id.
        pid: u32,
        /// What it adds to every request as `x-memory-user-id`.
        instance_id: String,
    },
    /// A program, where it can be seen.
    Program(Option<Holder>),
}

/// Looks at the machine.
pub fn survey(registry: &Registry) -> Survey {
    let registered: HashMap<Port, &Path> = registry
        .mappings()
        .map(|(path, port)| (port, path))
        .collect();
    let (candidates, is_partial) = look(registry);
    let identities = side_by_side(&candidates, Candidate::identity);

    let targets: BTreeMap<&str, usize> = identities
        .iter()
        .flatten()
        .map(|identity| (identity.first_hop(), 0))
        .collect();
    let targets: Vec<&str> = targets.into_keys().collect();
    let reachable: HashMap<&str, bool> = targets
        .iter()
        .copied()
        .zip(side_by_side(&targets, |target| is_reachable(target)))
        .collect();

    let mut interceptors = Vec::new();
    let mut held = Vec::new();
    for (candidate, identity) in candidates.iter().zip(&identities) {
        let port = candidate.port;
        if let Some(identity) = identity {
            interceptors.push(Interceptor {
                port,
                identity: identity.clone(),
                target_reachable: reachable.get(identity.first_hop()) == Some(&true),
            });
        }
        let Some(&path) = registered.get(&port) else {
            continue;
        };
        let by = match identity {
            Some(identity) if is_for(identity, path) => continue,
            Some(identity) => By::Interceptor {
                pid: identity.pid,
                instance_id: identity.instance_id.clone(),
            },
            None if is_partial => continue,
            None => By::Program(candidate.holder.clone()),
        };
        held.push(Held {
            port,
            path: path.to_owned(),
            by,
        });
    }
    Survey {
        interceptors,
        held,
        is_partial,
    }
}

/// The interceptors that run, without a look at anything else.
pub fn running(registry: &Registry) -> impl Iterator<Item = Identity> {
    let (candidates, _) = look(registry);
    side_by_side(&candidates, Candidate::identity)
        .into_iter()
        .flatten()
}

/// Who may be an interceptor, and whether others may be missing.
fn look(registry: &Registry) -> (Vec<Candidate>, bool) {
    let ports: HashSet<Port> = registry.mappings().map(|(_, port)| port).collect();
    match listeners(|port| ports.contains(&port)) {
        Some(listeners) => (candidates(listeners), false),
        None => {
            let ports = registry.mappings().map(|(_, port)| port);
            (ports.map(Candidate::unseen).collect(), true)
        }
    }
}

/// Whether an interceptor was started for the project at `path`.
pub fn is_for(identity: &Identity, path: &Path) -> bool {
    identity.project.as_deref() == Some(&raw::to_text(path.as_os_str()))
}

/// A port that is listened on, by one process or one that cannot be seen.
struct Candidate {
    port: Port,
    /// Where; none if it cannot be seen whether it is listened on at all.
    addresses: Vec<SocketAddr>,
    holder: Option<Holder>,
}

fn candidates(listeners: Vec<Listener>) -> Vec<Candidate> {
    let mut candidates: BTreeMap<(Port, Option<u32>), Candidate> = BTreeMap::new();
    for listener in listeners {
        let Some(port) = listener.port() else {
            continue;
        };
        let Listener { address, holder } = listener;
        let pid = holder.as_ref().map(|holder| holder.pid);
        candidates
            .entry((port, pid))
            .or_insert(Candidate {
                port,
                addresses: Vec::new(),
                holder,
            })
            .addresses
            .push(address);
    }
    candidates.into_values().collect()
}

impl Candidate {
    fn unseen(port: Port) -> Self {
        Candidate {
            port,
            addresses: Vec::new(),
            holder: None,
        }
    }

    /// Who it says it is, if it is an interceptor and says it of itself.
    fn identity(&self) -> Option<Identity> {
        let is_itself = |identity: &Identity| {
            let pid = self.holder.as_ref().map(|holder| holder.pid);
            pid.is_none_or(|pid| pid == identity.pid)
        };
        // One answer is enough, and one silence too: an interceptor answers everywhere it listens.
        match self.addresses.first() {
            Some(&address) => interceptor_on(address),
            None => interceptor_at(self.port),
        }
        .filter(is_itself)
    }
}

/// Does the same with each of `items`, several at a time; the results in their order.
fn side_by_side<T: Sync, R: Send>(items: &[T], of: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            done.push((at, of(item)));
        }
        done
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let helpers = items.len().clamp(1, AT_A_TIME) - 1;
        // Where no thread can be had, there is this one.
        let helpers: Vec<_> = (0..helpers)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut results = work();
        for helper in helpers {
            match helper.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|&(at, _)| at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Whether somebody listens where a target says, as seen from here.
fn is_reachable(target: &str) -> bool {
    let Ok(target) = target.parse::<Target>() else {
        return false;
    };
    // In a thread that may be left behind: looking up a name cannot be given up.
    let (tell, told) = mpsc::channel();
    let spawned = thread::Builder::new().spawn(move || tell.send(connects(target.place())));
    spawned.is_ok() && told.recv_timeout(TARGET_TIME_MAX).unwrap_or(false)
}

fn connects(place: &Endpoint) -> bool {
    match place {
        Endpoint::Unix(path) => UnixStream::connect(path).is_ok(),
        // As the interceptor has it: `localhost` is both loopback addresses, whatever a resolver says.
        Endpoint::Tcp(host, port) if host.eq_ignore_ascii_case("localhost") => {
            let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            accepts(loopbacks.map(|ip| SocketAddr::new(ip, *port)))
        }
        Endpoint::Tcp(host, port) => (host.as_str(), *port).to_socket_addrs().is_ok_and(accepts),
    }
}

fn accepts(addresses: impl IntoIterator<Item = SocketAddr>) -> bool {
    addresses
        .into_iter()
        .any(|address| TcpStream::connect_timeout(&address, TARGET_TIME_MAX).is_ok())
}

/// How many are asked at the same time: enough that a few silent ones do not make a person wait, few enough for a
/// machine that limits threads.
const AT_A_TIME: usize = 16;

/// A target that takes longer is not of much use to anybody.
const TARGET_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_what_was_asked() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled = side_by_side(&items, |item| item * 2);
        assert_eq!(
            doubled,
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        assert!(side_by_side(&[(); 0], |()| ()).is_empty());
    }

    #[test]
    fn a_target_is_reachable_where_somebody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert!(is_reachable(&format!("http://127.0.0.1:{port}/v1")));
        assert!(is_reachable(&format!("http://localhost:{port}")));
        drop(listener);
        assert!(!is_reachable(&format!("http://127.0.0.1:{port}")));
        assert!(!is_reachable("unix:/nowhere.sock"));
        assert!(!is_reachable("no target"));
    }
}
