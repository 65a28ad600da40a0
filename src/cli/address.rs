//! The addresses of interceptors: a project's port, the URLs for clients, and the addresses of a host name. Nothing is opened
//! or allocated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use crate::registry::{Port, Project};

use super::mapping::command_for;
use super::settings::PORT;
use crate::cli::context::Context;
use crate::cli::outcome::Failure;
use crate::text::{Escaped, escaped_path, io_message};

/// The port of the project at PATH. Without a PATH, `INTERCEPTOR_PORT` wins, as for `ic serve`.
///
/// # Errors
///
/// "No": the project has no port. Bad usage for an invalid value; "could not" if the registry cannot be read.
pub(super) fn port_of(context: &Context<'_>, path: Option<&str>) -> Result<Port, Failure> {
    mapping_of(context, path).map(|(_, port)| port)
}

/// The port as [`port_of`] finds it, and the project; `None` if the port is that of `INTERCEPTOR_PORT`.
///
/// # Errors
///
/// As [`port_of`].
pub(super) fn mapping_of(
    context: &Context<'_>,
    path: Option<&str>,
) -> Result<(Option<Project>, Port), Failure> {
    if path.is_none()
        && let Some(given) = context.environment.variable(PORT)
    {
        return Ok((None, given.port()?));
    }
    let handle = context.registry_handle()?;
    let named = context.named(path)?;
    match named.among(&handle.read()?)? {
        (project, Some(port)) => Ok((Some(project), port)),
        (project, None) => Err(no_port(&project)),
    }
}

/// The failure for a project without a port.
pub(super) fn no_port(project: &Project) -> Failure {
    Failure::no(format!(
        "no port is assigned to `{}`; {} assigns one",
        escaped_path(project.path()),
        command_for("allocate", project)
    ))
}

/// The base URL for clients of the OpenAI API, which append `/chat/completions`.
pub fn openai_url(authority: &str) -> String {
    format!("{}/v1", anthropic_url(authority))
}

/// The base URL for clients of the Anthropic API, which append `/v1/messages`.
pub fn anthropic_url(authority: &str) -> String {
    format!("http://{authority}")
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
