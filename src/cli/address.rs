//! Where the interceptor of a project listens, as far as it has been decided: nothing is opened or given out for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use crate::registry::{Port, Project};

use super::settings::PORT;
use crate::cli::context::Context;
use crate::cli::outcome::Failure;
use crate::text::{Escaped, escaped_path, io_message};

/// The port of the project at PATH. Without a PATH, `INTERCEPTOR_PORT` counts first, as it does for `ic serve`.
///
/// # Errors
///
/// "No": the project has none. Bad usage and "could not" as for every value and every look at the registry.
pub(super) fn port_of(context: &Context<'_>, path: Option<&str>) -> Result<Port, Failure> {
    mapping_of(context, path).map(|(_, port)| port)
}

/// As [`port_of`], with the project that it was looked up for.
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
    let place = context.place()?;
    let named = context.named(path)?;
    match named.among(&place.read()?)? {
        (project, Some(port)) => Ok((Some(project), port)),
        (project, None) => Err(Failure::no(format!(
            "no port is assigned to `{}`; `ic allocate` assigns one",
            escaped_path(project.path())
        ))),
    }
}

/// What clients of OpenAI's API are given: their libraries put nothing but `/chat/completions` behind it.
pub fn openai_url(authority: &str) -> String {
    format!("{}/v1", anthropic_url(authority))
}

/// What clients of Anthropic's API are given: their libraries put `/v1/messages` behind it. Also the bare address.
pub fn anthropic_url(authority: &str) -> String {
    format!("http://{authority}")
}

/// Where clients on this machine find the interceptor: by a name that every one of them resolves to this machine.
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
