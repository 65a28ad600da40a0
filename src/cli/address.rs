//! The addresses of interceptors: a project's port, the URLs for clients, and the addresses of a host name. Nothing is opened
//! or allocated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use crate::registry::probe::{Availability, availability};
use crate::registry::{Port, Project, Registry, Settings};

use super::kept::settings_of;
use super::mapping::{command_for, commands_for_another_port, port_above};
use super::settings::{Environment, PORT, SourcedValue, TARGET_URL};
use crate::cli::context::Context;
use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::port_state::{PortState, port_state};
use crate::machine::interceptor::interceptor_at;
use crate::serve::Target;
use crate::text::{Escaped, escaped_path, io_message};

/// The URLs of the project at PATH, for clients to connect to. Without a PATH, `INTERCEPTOR_PORT` wins, as for `ic serve`.
///
/// # Errors
///
/// "No": the project has no port, or another user listens on it. Bad usage for an invalid value; "could not" if the registry cannot
/// be read.
pub(super) fn urls_for_clients(
    context: &Context<'_>,
    path: Option<&str>,
) -> Result<BaseUrls, Failure> {
    let (project, port, registry) = mapping_of(context, path)?;
    check_owner(port, project.as_ref())?;
    bad_port(port, project.as_ref())
        .iter()
        .for_each(eprint_line);
    let kept = project.map_or_else(Settings::default, |project| {
        settings_of(&registry, &project)
    });
    urls_of(&context.environment, port, &kept)
}

/// The URLs of a project's port, for clients on this machine; `kept` are the settings of the project.
///
/// # Errors
///
/// Bad usage: the variable of the target has an invalid value.
pub(super) fn urls_of(
    environment: &Environment<'_>,
    port: Port,
    kept: &Settings,
) -> Result<BaseUrls, Failure> {
    let target = target_of(environment, port, kept)?;
    Ok(BaseUrls::new(local(port), target.as_ref()))
}

/// The target of the interceptor that runs on the port, else of the one that would be started there; `None` if it is not known.
///
/// # Errors
///
/// Bad usage: the variable has an invalid value.
fn target_of(
    environment: &Environment<'_>,
    port: Port,
    kept: &Settings,
) -> Result<Option<Target>, Failure> {
    let next = environment.setting("--target", None, TARGET_URL, kept.target.as_deref());
    let next = next.as_ref().map(SourcedValue::target).transpose()?;
    let is_in_use = availability(port) == Availability::InUse;
    let running = is_in_use.then(|| interceptor_at(port.get())).flatten();
    // A target with a key in it is not shown, and is most likely the configured one.
    let running = running.and_then(|running| running.target.parse().ok());
    Ok(running.or(next))
}

/// A warning if `fetch` refuses to connect to the port: one that another program has assigned to `project`, or that is given. All
/// commands that start an interceptor, or tell clients or users a port, print it.
pub(super) fn bad_port(port: Port, project: Option<&Project>) -> Option<String> {
    port.is_bad_for_fetch().then(|| {
        let way_out = match project {
            Some(project) => format!("; {} for another one", commands_for_another_port(project)),
            None => String::new(),
        };
        format!(
            "warning: browsers and node's fetch refuse to connect to port {port} (\"bad port\"); other clients can{way_out}"
        )
    })
}

/// Checks that clients of `port` would not send their keys to another user, who listens there.
///
/// # Errors
///
/// "No": they would.
pub(super) fn check_owner(port: Port, project: Option<&Project>) -> Result<(), Failure> {
    let PortState::InUse(holder) = port_state(port) else {
        return Ok(());
    };
    if holder.other_user.is_none() {
        return Ok(());
    }
    let way_out = match project {
        Some(project) => format!("{} for another port", commands_for_another_port(project)),
        None => format!("give another port with {PORT}"),
    };
    Err(Failure::no(format!(
        "port {port} is held by {holder}, and clients would send their keys there; {way_out}"
    )))
}

/// The port as [`urls_for_clients`] finds it, unchecked, the project, and the registry; `None` and an empty one if the port is that
/// of `INTERCEPTOR_PORT`.
///
/// # Errors
///
/// As [`urls_for_clients`].
pub(super) fn mapping_of(
    context: &Context<'_>,
    path: Option<&str>,
) -> Result<(Option<Project>, Port, Registry), Failure> {
    if path.is_none()
        && let Some(given) = context.environment.variable(PORT)
    {
        return Ok((None, given.port()?, Registry::default()));
    }
    let handle = context.registry_handle()?;
    let named = context.named(path)?;
    let registry = handle.read()?;
    match named.among(&registry)? {
        (project, Some(port)) => Ok((Some(project), port, registry)),
        (project, None) => Err(no_port(&registry, &project)),
    }
}

/// The failure for a project without a port.
pub(super) fn no_port(registry: &Registry, project: &Project) -> Failure {
    let above = port_above(registry, project).map(|above| format!("; {above}"));
    Failure::no(format!(
        "no port is assigned to `{}`; {} assigns one{}",
        escaped_path(project.path()),
        command_for("allocate", project),
        above.unwrap_or_default(),
    ))
}

/// The base URLs at which clients reach an interceptor.
#[derive(Debug, Clone)]
pub struct BaseUrls {
    /// Host and port.
    pub authority: String,
    /// Whether `/v1` stands in front of the endpoints of the OpenAI API.
    has_v1: bool,
}

impl BaseUrls {
    /// Those of the interceptor at `authority`, with this target.
    pub fn new(authority: String, target: Option<&Target>) -> BaseUrls {
        BaseUrls {
            authority,
            has_v1: !target.is_some_and(Target::has_own_version),
        }
    }

    /// For clients of the OpenAI API, which append `/chat/completions`.
    pub fn openai(&self) -> String {
        match self.has_v1 {
            true => self.with_v1(),
            false => self.bare(),
        }
    }

    /// For clients of the Anthropic API, which append `/v1/messages`, and of the Gemini API.
    pub fn bare(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// For clients of the Anthropic API that append `/messages`, as Vercel's library does.
    pub fn with_v1(&self) -> String {
        format!("{}/v1", self.bare())
    }

    /// The path of an endpoint of the OpenAI API, such as `models`.
    pub fn openai_path(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", if self.has_v1 { "v1/" } else { "" })
    }

    /// The interceptor's port.
    pub fn port(&self) -> &str {
        let port = self.authority.rsplit_once(':');
        port.unwrap_or_default().1
    }
}

/// Host and port for clients on this machine.
pub fn local(port: Port) -> String {
    format!("localhost:{port}")
}

/// Where a host name means: `localhost` is both loopback addresses (RFC 6761 §6.3), whatever a resolver says.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, Failure> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    match (host, 0).to_socket_addrs() {
        Ok(found) => {
            let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            ips.dedup();
            Ok(ips)
        }
        Err(error) => Err(Failure::usage(format!(
            "`--host {}` has no address ({}); give an address of this machine, or leave it out",
            Escaped(host),
            io_message(&error)
        ))),
    }
}
