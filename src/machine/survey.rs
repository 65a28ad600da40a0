//! The interceptors of this user that run on this machine, and what else listens on the ports of projects.
//!
//! Found live from the listening sockets; there is no state file that could be wrong after a kill. What is asked who it is:
//! the sockets of programs called `ic`, so that interceptors with a port of their own (`--port`) are found too, and whatever
//! listens on a port of a project.
//!
//! All are asked concurrently, each within a time limit, and so are their targets: a full registry costs no more time than
//! an empty one. Where the system does not list sockets, each port of a project is asked, and the survey is partial.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use smol::LocalExecutor;
use smol::lock::Semaphore;

use super::connect::connect;
use super::interceptor::{Identity, Service};
use super::listeners::listeners;
use super::process::Holder;
use crate::serve::{ServedBy, Target, reactor};
use crate::text::redact::REDACTED;
use crate::text::{name, raw};

/// What was found; serialises as the document of `ic status --json`.
#[derive(Debug, Default, Serialize)]
pub struct Survey {
    /// Sorted by port.
    pub interceptors: Vec<Running>,
    /// Ports of projects on which something else listens; sorted by port.
    pub held: Vec<Held>,
    /// The system does not list sockets: interceptors with a port of their own are missing, and so is what else holds ports.
    #[serde(skip)]
    pub is_partial: bool,
}

/// A running interceptor.
#[derive(Debug, Serialize)]
pub struct Running {
    /// The port that it listens on.
    pub port: u16,
    /// The name of its project, if it has one.
    pub project: Option<String>,
    /// The path of its project, as text that carries its bytes ([`raw`]).
    pub path: Option<String>,
    /// Whether its target, or the proxy before it, accepts connections.
    pub target_reachable: bool,
    /// What it says of itself.
    #[serde(flatten)]
    pub identity: Identity,
}

/// A project's port on which something else than its interceptor listens.
#[derive(Debug, Serialize)]
pub struct Held {
    /// The port.
    pub port: u16,
    /// The name of the project.
    pub project: String,
    /// The path of the project, as text that carries its bytes ([`raw`]).
    pub path: String,
    /// The process that listens; null where this user may not see it.
    pub pid: Option<u32>,
    /// The name of its program; null for an interceptor.
    pub program: Option<String>,
    /// The identity of the interceptor that it is; null for any other program.
    pub instance_id: Option<String>,
    /// The id of the user that it belongs to; null for this user, root, and where that is unknown.
    pub other_user: Option<u32>,
}

/// Looks at the machine. `projects` are the registry's paths and ports.
///
/// # Errors
///
/// The system has no descriptors left.
pub fn survey<'a>(projects: impl IntoIterator<Item = (&'a Path, u16)>) -> io::Result<Survey> {
    let projects: HashMap<u16, &Path> = projects
        .into_iter()
        .map(|(path, port)| (port, path))
        .collect();
    let (services, is_partial) = services(projects.keys().copied());
    let (identities, reachable) = reactor::block_on(async {
        let identities = concurrently(&services, Service::identity).await;
        let known = identities.iter().flatten();
        let targets: BTreeSet<String> = known.map(|it| it.first_hop().to_owned()).collect();
        let targets: Vec<String> = targets.into_iter().collect();
        let reachable = concurrently(&targets, async |target| is_reachable(target).await).await;
        let reachable: HashMap<String, bool> = targets.into_iter().zip(reachable).collect();
        (identities, reachable)
    })?;
    let mut survey = Survey {
        is_partial,
        ..Survey::default()
    };
    for (service, identity) in services.into_iter().zip(identities) {
        let port = service.port;
        let holder = identity.as_ref();
        if let Some(&path) = projects.get(&port)
            && !holder.is_some_and(|holder| is_for(holder, path))
            // Where the system does not list sockets, there may be none on the port.
            && (holder.is_some() || !is_partial)
        {
            survey.held.push(held(path, service, holder));
        }
        if let Some(identity) = identity {
            let path = identity.project.clone();
            let project = path
                .as_ref()
                .map(|path| name(raw::from_text(path).as_ref()));
            survey.interceptors.push(Running {
                port,
                project,
                path,
                target_reachable: reachable.get(identity.first_hop()) == Some(&true),
                identity,
            });
        }
    }
    Ok(survey)
}

/// Returns the interceptors that serve the project at `path`, each with its port; `ports` are those of all projects.
pub fn interceptors_for(path: &Path, ports: impl Iterator<Item = u16>) -> Vec<(u16, Identity)> {
    let mut identities = identities(ports);
    identities.retain(|(_, identity)| is_for(identity, path));
    identities
}

/// Returns the interceptors of `projects` that run on their project's port, which is given beside its path; sorted by port.
pub fn running_on<'a>(
    projects: impl IntoIterator<Item = (&'a Path, u16)>,
) -> Vec<(&'a Path, u16, Identity)> {
    let projects: HashMap<u16, &Path> = projects
        .into_iter()
        .map(|(path, port)| (port, path))
        .collect();
    let identities = identities(projects.keys().copied()).into_iter();
    let running = identities.filter_map(|(port, identity)| {
        let &path = projects.get(&port)?;
        is_for(&identity, path).then_some((path, port, identity))
    });
    running.collect()
}

/// As [`running_on`], for projects that lose their ports: `ic serve --all` notices that itself, and is left out.
pub fn staying_on<'a>(
    projects: impl IntoIterator<Item = (&'a Path, u16)>,
) -> Vec<(&'a Path, u16, Identity)> {
    let mut running = running_on(projects);
    running.retain(|(_, _, identity)| identity.served_by != ServedBy::All);
    running
}

/// Returns those of `ports` on which `ic serve --all` listens and has no request in flight: it listens on all of them.
pub fn idle_ports(ports: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    let identities = identities(ports).into_iter();
    let idle = identities
        .filter(|(_, identity)| identity.served_by == ServedBy::All && identity.in_flight == 0);
    idle.map(|(port, _)| port).collect()
}

/// Asks what may be an interceptor who it is, `ports` among them; returns each with its port.
fn identities(ports: impl Iterator<Item = u16>) -> Vec<(u16, Identity)> {
    let (services, _) = services(ports);
    let identities = reactor::block_on(concurrently(&services, Service::identity));
    let identities = identities.unwrap_or_default().into_iter();
    let identities = services.iter().zip(identities);
    identities
        .filter_map(|(service, identity)| Some((service.port, identity?)))
        .collect()
}

/// Whether an interceptor was started for the project at `path`.
pub fn is_for(identity: &Identity, path: &Path) -> bool {
    identity.project.as_deref() == Some(&raw::to_text(path.as_os_str()))
}

/// Returns what may be an interceptor, and whether the system does not list sockets, so that others may be missing.
fn services(ports: impl Iterator<Item = u16>) -> (Vec<Service>, bool) {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    match listeners(|port| ports.binary_search(&port).is_ok()) {
        Some(listeners) => (Service::group(listeners.into_iter()), false),
        None => (ports.into_iter().map(Service::unseen).collect(), true),
    }
}

/// The port of the project at `path`, on which `service` listens: another interceptor, or any other program.
fn held(path: &Path, service: Service, interceptor: Option<&Identity>) -> Held {
    let Holder {
        process,
        other_user,
    } = service.holder;
    let (pid, program) = match (interceptor, process) {
        (Some(interceptor), _) => (Some(interceptor.pid), None),
        (None, process) => process.map(|it| (it.pid, it.program)).unzip(),
    };
    Held {
        port: service.port,
        project: name(path),
        path: raw::to_text(path.as_os_str()),
        pid,
        program,
        instance_id: interceptor.map(|interceptor| interceptor.instance_id.clone()),
        other_user,
    }
}

/// Calls `work` with each of `items`, at most [`CONCURRENT_MAX`] at a time; returns the results in their order.
async fn concurrently<'a, T, R>(items: &'a [T], work: impl AsyncFn(&'a T) -> R) -> Vec<R> {
    let permits = Semaphore::new(CONCURRENT_MAX);
    let executor = LocalExecutor::new();
    let tasks: Vec<_> = items
        .iter()
        .map(|item| {
            executor.spawn(async {
                let _permit = permits.acquire().await;
                work(item).await
            })
        })
        .collect();
    let results = async {
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await);
        }
        results
    };
    executor.run(results).await
}

/// Whether a target, or the proxy before it, accepts connections.
async fn is_reachable(target: &str) -> bool {
    // A key in its base path is shown as a character that no URL has.
    match target.replace(REDACTED, "-").parse::<Target>() {
        Ok(target) => connect(target.endpoint(), CONNECT_TIME_MAX).await.is_ok(),
        Err(_) => false,
    }
}

/// How many are asked at a time: each takes a descriptor.
const CONCURRENT_MAX: usize = 64;

/// A target on another continent accepts a connection within this time.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled = async |item: &usize| {
            reactor::next_turn().await;
            item * 2
        };
        let results = reactor::block_on(concurrently(&items, doubled)).expect("a reactor");
        let expected: Vec<usize> = items.iter().map(|item| item * 2).collect();
        assert_eq!(results, expected);
    }

    #[test]
    fn a_target_is_reachable_where_it_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let reach = |target: &str| reactor::block_on(is_reachable(target)).expect("a reactor");
        assert!(reach(&format!("http://127.0.0.1:{port}/v1")));
        assert!(reach(&format!("http://localhost:{port}")));
        drop(listener);
        assert!(!reach(&format!("http://127.0.0.1:{port}")));
        assert!(!reach("unix:/nowhere.sock"));
        assert!(!reach("no target"));
    }
}
