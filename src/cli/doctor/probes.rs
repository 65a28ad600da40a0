//! What `ic doctor` sees: the registry and its file, the port and who has it, proxies, the target by itself and through
//! an interceptor. Nothing is judged here, and nothing is written.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::context::RegistryHandle;
use crate::cli::outcome::Failure;
use crate::cli::port_state::{PortState, port_state};
use crate::cli::serve::Serve;
use crate::cli::settings::{self, Environment};
use crate::machine::connect::{self, Unreachable};
use crate::machine::interceptor::interceptor_at;
use crate::registry::project::Project;
use crate::registry::{Port, Registry};
use crate::serve::{self, Address, Endpoint, Event, Listen, Target, reactor};
use crate::text::raw;
use crate::text::{escaped_path, io_message, name};

use super::checks::{ProjectPort, RegistryState};
use super::stream::Streams;
use super::variables::{Proxy, ProxyState};
use crate::machine::client::{self, Request, Response};

/// The registry and its file.
pub fn registry(place: &RegistryHandle, project: &Project) -> (RegistryState, Registry) {
    let file = place.store.path();
    let (reading, registry) = match place.store.read() {
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

/// Whether the file could be replaced: by a new one in its folder, or the first one that there is above it.
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

/// The name of the project that has `port`.
pub fn owner(registry: &Registry, port: Port) -> Option<String> {
    registry.path_of(port).map(name)
}

/// The port, and who has it.
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
        let theirs = identity.project.as_deref();
        let is_ours = match theirs {
            Some(theirs) => theirs == raw::to_text(project.path().as_os_str()),
            // It was told its port and its name, and needed no project.
            None => given.is_some(),
        };
        return Ok(if is_ours {
            ProjectPort::Ours(port, identity)
        } else {
            ProjectPort::Theirs(port, identity)
        });
    }
    Ok(match port_state(port) {
        PortState::Free => ProjectPort::Free(port),
        PortState::NotPermitted => ProjectPort::NotPermitted(port),
        PortState::Unknown(refusal) => ProjectPort::Untried(port, refusal),
        PortState::InUse(holder) => ProjectPort::Foreign(port, holder),
    })
}

/// The variables for proxies that count for plain HTTP, and what they lead to.
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

/// A proxy without its password, and where it is if that can be told.
fn proxy(value: &str) -> (String, Option<Target>) {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    (host.to_owned(), format!("http://{host}").parse().ok())
}

/// Whether somebody listens where a target is.
pub fn reach(target: &Target) -> Result<(), Unreachable> {
    connect::reach(target.place(), CONNECT_TIME_MAX)
}

/// The target, and an interceptor in front of it.
pub struct Chain {
    target: Target,
    /// Host and port.
    interceptor: (String, u16),
    key: Option<String>,
    /// The target is reached through a proxy, and maybe in no other way.
    is_behind_proxy: bool,
}

impl Chain {
    /// With the project's interceptor where that runs and leads there, unless a `way` to go is given; else with one for the
    /// moment, which goes it.
    pub fn new(
        context: &Context<'_>,
        target: &Target,
        port: &ProjectPort,
        way: Option<Serve>,
        is_behind_proxy: bool,
    ) -> Result<Chain, Failure> {
        let running = match port {
            ProjectPort::Ours(port, identity)
                if way.is_none() && identity.target == target.to_string() =>
            {
                Some(("localhost".to_owned(), port.get()))
            }
            _ => None,
        };
        let key = context.environment.variable("OPENAI_API_KEY");
        let key = key.and_then(|given| given.text().ok().map(str::to_owned));
        Ok(Chain {
            target: target.clone(),
            interceptor: match running {
                Some(address) => address,
                None => for_the_moment(context, target, way.unwrap_or_default())?,
            },
            // A field holds nothing else.
            key: key.filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic())),
            is_behind_proxy,
        })
    }

    /// Asks for the models, through the interceptor.
    pub fn models(&self) -> Result<Response, Unreachable> {
        self.through("GET", "/v1/models", None, ANSWER_TIME_MAX)
    }

    /// Asks for the same stream, directly and through the interceptor.
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
            direct: is_plain.then(|| send(self.target.place(), &direct, STREAM_TIME_MAX)),
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
        let (host, port) = &self.interceptor;
        let request = Request {
            method,
            path,
            host: &format!("{host}:{port}"),
            key: self.key.as_deref(),
            body,
        };
        send(&Endpoint::Tcp(host.clone(), *port), &request, limit)
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

/// An interceptor that ends with this process.
fn for_the_moment(
    context: &Context<'_>,
    target: &Target,
    way: Serve,
) -> Result<(String, u16), Failure> {
    let serve = Serve {
        target: Some(target.to_string()),
        // Not listened on; so the registry is not asked.
        port: Some("1".to_owned()),
        instance_id: Some("ic-doctor".to_owned()),
        ..way
    };
    let (_, mut options) = serve.prepare(context, None, &[])?;
    options.listen = Listen::On(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
    let (tell, told) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("interceptor".to_owned())
        .spawn(move || {
            // Dropped when it cannot start, which is how that is told.
            serve::run(options, &mut |event| {
                if let Event::Listening(addresses) = event {
                    let _ = tell.send(addresses.iter().find_map(Address::tcp));
                }
            })
        });
    spawned
        .ok()
        .and_then(|_| told.recv().ok().flatten())
        .map(|address| (address.ip().to_string(), address.port()))
        .ok_or_else(|| Failure::could_not("cannot start an interceptor for the moment; try again"))
}

/// Long enough for some forty events, and cheap.
const PROMPT: &str = "Count from 1 to 40 in digits, separated by spaces. Say nothing else.";

/// For a connection to a target or a proxy.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// For a list of models.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// For a stream; models can take their time before they begin.
const STREAM_TIME_MAX: Duration = Duration::from_secs(60);
