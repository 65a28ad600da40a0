//! The probes: the state of the registry file, of the port, of proxies, of the target by itself and through an interceptor.
//! Nothing is decided here, and nothing is written.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde_json::json;

use crate::cli::context::{Context, RegistryHandle};
use crate::cli::outcome::Failure;
use crate::cli::port_state::{PortState, port_state};
use crate::cli::serve::Serve;
use crate::cli::settings::{self, Environment};
use crate::machine::connect::{self, Unreachable};
use crate::machine::interceptor::interceptor_at;
use crate::registry::Registry;
use crate::registry::project::Project;
use crate::serve::{self, Address, Endpoint, Event, Listen, Target, reactor};
use crate::text::raw;
use crate::text::{escaped_path, io_message};

use super::checks::{ProjectPort, RegistryState};
use super::stream::Streams;
use super::variables::{Proxy, ProxyState};
use crate::machine::client::{self, Request, Response};

/// Reads the registry; returns the state of its file too.
pub fn registry(handle: &RegistryHandle, project: &Project) -> (RegistryState, Registry) {
    let file = handle.store.path();
    let (reading, registry) = match handle.store.read() {
        Ok(snapshot) => (
            match snapshot.warning {
                None => Ok(snapshot.registry.len()),
                Some(warning) => Err(warning.to_string()),
            },
            snapshot.registry,
        ),
        Err(error) => (Err(error.to_string()), Registry::default()),
    };
    let state = RegistryState {
        file: escaped_path(file),
        reading,
        writing: writable(file).map_err(|(path, error)| (escaped_path(&path), io_message(&error))),
        is_recorded: registry.port_of(project).is_some(),
    };
    (state, registry)
}

/// Checks whether the file can be replaced: by a new one in its folder, or in the nearest folder above that exists.
fn writable(file: &Path) -> Result<(), (PathBuf, io::Error)> {
    let can_write = |path: &Path, access_wanted| match access(path, access_wanted) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err((path.to_owned(), io::Error::from(error))),
    };
    can_write(file, Access::WRITE_OK)?;
    for folder in file.ancestors().skip(1) {
        if can_write(folder, Access::WRITE_OK | Access::EXEC_OK)? {
            break;
        }
    }
    Ok(())
}

/// Returns the project's port, and what listens on it.
pub fn port(
    context: &Context<'_>,
    path: Option<&str>,
    registry: &Registry,
    project: &Project,
) -> Result<ProjectPort, Failure> {
    let given = match context.environment.variable(settings::PORT) {
        Some(given) if path.is_none() => Some(given.port()?),
        _ => None,
    };
    let Some(port) = given.or_else(|| registry.port_of(project)) else {
        return Ok(ProjectPort::None(escaped_path(project.path())));
    };
    if let Some(identity) = interceptor_at(port.get()) {
        let is_ours = match identity.project.as_deref() {
            Some(path) => path == raw::to_text(project.path().as_os_str()),
            // Started with a port and an instance id, it needs no project.
            None => given.is_some(),
        };
        return Ok(if is_ours {
            ProjectPort::OwnInterceptor(port, identity)
        } else {
            ProjectPort::OtherInterceptor(port, identity)
        });
    }
    Ok(match port_state(port) {
        PortState::Free => ProjectPort::Free(port),
        PortState::NotPermitted => ProjectPort::NotPermitted(port),
        PortState::Unknown(refusal) => ProjectPort::Unknown(port, refusal),
        PortState::InUse(holder) => ProjectPort::OtherProgram(port, holder),
    })
}

/// Returns the proxy variables that apply to plain HTTP, and whether their proxies accept connections.
pub fn proxies(environment: &Environment<'_>) -> ProxyState {
    let text = |name| {
        let given = environment.variable(name)?;
        given.text().ok().map(str::to_owned)
    };
    let proxies = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
        .into_iter()
        .filter_map(|name| {
            let value = text(name)?;
            let (authority, target) = proxy(&value);
            Some(Proxy {
                variable: name,
                authority,
                reached: target.map(|target| reach(&target)),
            })
        })
        .collect();
    ProxyState {
        proxies,
        exceptions: ["no_proxy", "NO_PROXY"]
            .into_iter()
            .filter_map(|name| Some((name, text(name)?)))
            .collect(),
    }
}

/// Returns a proxy's host and port without its credentials, and as a target if it parses.
fn proxy(value: &str) -> (String, Option<Target>) {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    (host.to_owned(), format!("http://{host}").parse().ok())
}

/// Connects to a target and closes the connection.
pub fn reach(target: &Target) -> Result<(), Unreachable> {
    connect::reach(target.endpoint(), CONNECT_TIME_MAX)
}

/// The target, and an interceptor in front of it.
pub struct Chain {
    target: Target,
    interceptor: SocketAddr,
    key: Option<String>,
    /// The target is reached through a proxy, and possibly cannot be reached without it.
    is_behind_proxy: bool,
}

impl Chain {
    /// Uses the project's interceptor if it runs with this target and no `options` of `ic serve` are given, else starts a
    /// temporary one.
    pub fn new(
        context: &Context<'_>,
        target: &Target,
        port: &ProjectPort,
        options: Option<Serve>,
        is_behind_proxy: bool,
    ) -> Result<Chain, Failure> {
        let running = port
            .interceptor()
            .filter(|running| options.is_none() && running.target == target.to_string())
            .and_then(|running| running.address);
        let key = context.environment.variable("OPENAI_API_KEY");
        let key = key.and_then(|given| given.text().ok().map(str::to_owned));
        Ok(Chain {
            target: target.clone(),
            interceptor: match running {
                Some(address) => address,
                None => start_temporary(context, target, options.unwrap_or_default())?,
            },
            // Other characters may not stand in a header field.
            key: key.filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic())),
            is_behind_proxy,
        })
    }

    /// Requests the list of models through the interceptor.
    pub fn models(&self) -> Result<Response, Unreachable> {
        self.through("GET", "/v1/models", None, ANSWER_TIME_MAX)
    }

    /// Requests the same stream twice: directly, and through the interceptor.
    pub fn stream(&self, model: &str) -> Streams {
        let body = json!({
            "model": model,
            "stream": true,
            "messages": [{"role": "user", "content": PROMPT}],
        })
        .to_string();
        let path = "/v1/chat/completions";
        let base = self.target.base_path();
        let direct = Request {
            method: "POST",
            path: &format!("{}{path}", base.strip_suffix("/v1").unwrap_or(base)),
            host: self.target.host_field(),
            key: self.key.as_deref(),
            body: Some(&body),
        };
        let is_plain = !self.target.is_https() && !self.is_behind_proxy;
        Streams {
            target: self.target.to_string(),
            direct: is_plain.then(|| send(self.target.endpoint(), &direct, STREAM_TIME_MAX)),
            through: self.through("POST", path, Some(&body), STREAM_TIME_MAX),
        }
    }

    fn through(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        limit: Duration,
    ) -> Result<Response, Unreachable> {
        let request = Request {
            method,
            path,
            host: &self.interceptor.to_string(),
            key: self.key.as_deref(),
            body,
        };
        let (ip, port) = (self.interceptor.ip(), self.interceptor.port());
        send(&Endpoint::Tcp(ip.to_string(), port), &request, limit)
    }
}

fn send(
    endpoint: &Endpoint,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Response, Unreachable> {
    reactor::block_on(client::send(endpoint, request, limit))
        .unwrap_or_else(|error| Err(Unreachable::Failed(io_message(&error))))
}

/// Starts an interceptor that ends with this process; returns its address.
fn start_temporary(
    context: &Context<'_>,
    target: &Target,
    options: Serve,
) -> Result<SocketAddr, Failure> {
    let serve = Serve {
        target: Some(target.to_string()),
        // Given so that the registry is not read; not the port that it listens on.
        port: Some("1".to_owned()),
        instance_id: Some("ic-doctor".to_owned()),
        ..options
    };
    let (_, mut options) = serve.prepare(context, None, &[])?;
    options.listen = Listen::On(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("interceptor".to_owned())
        .spawn(move || {
            // If it cannot start, the channel is closed.
            serve::run(options, &mut |event| {
                if let Event::Listening(addresses) = event {
                    let _ = sender.send(addresses.iter().find_map(Address::tcp));
                }
            })
        });
    spawned
        .ok()
        .and_then(|_| receiver.recv().ok().flatten())
        .ok_or_else(|| Failure::could_not("cannot start a temporary interceptor; try again"))
}

/// Its answer has about forty events, and costs little.
const PROMPT: &str = "Count from 1 to 40 in digits, separated by spaces. Say nothing else.";

/// For a connection to a target or a proxy.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// For a list of models.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// For a stream: a model can think before its first token.
const STREAM_TIME_MAX: Duration = Duration::from_secs(60);
