//! `ic health`: whether an interceptor is up, for health checks of containers that hold no other program.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::probe::{Availability, availability};
use crate::registry::{Port, Project};
use crate::serve::Target;

use super::address::mapping_of;
use super::mapping::command_for;
use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::port_state::{PortState, port_state};
use crate::machine::connect::reach;
use crate::machine::interceptor::{Identity, interceptor_at, interceptor_at_socket};
use crate::machine::listeners::holder_of_socket;
use crate::text::{Escaped, escaped_path};

/// check that an interceptor is running, for health checks without curl
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "health",
    help_triggers("-h", "--help"),
    example = "ic health                   the interceptor of the current folder\n\
               ic health 8888 --ready      the interceptor on port 8888, and its target\n\
               ic health unix:/run/ic.sock\n\
               HEALTHCHECK CMD [\"ic\", \"health\"]",
    note = "Without an argument, INTERCEPTOR_PORT is used if it is set.",
    error_code(0, "the interceptor is running"),
    error_code(1, "it is not running, or with --ready its target is unreachable")
)]
pub struct Health {
    /// port, Unix socket as unix:/path.sock, or project folder; default: the current folder
    #[argh(positional, arg_name = "PORT|PATH")]
    pub place: Option<String>,
    /// also check that the target is reachable
    #[argh(switch)]
    pub ready: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Health {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let address = match self.address(context) {
            Ok(address) => address,
            Err(failure) => {
                if self.json && failure.exit == Exit::No {
                    context.out.json(&Document::default())?;
                }
                return Err(failure);
            }
        };
        let identity = match &address {
            Address::Port(port, _) => ask(*port),
            Address::Socket(path) => interceptor_at_socket(path),
        };
        let ready = match &identity {
            Some(identity) if self.ready => Some(reach_target(&address, identity)),
            _ => None,
        };
        if self.json {
            context.out.json(&Document {
                port: address.port(),
                up: identity.is_some(),
                ready: ready.as_ref().map(Result::is_ok),
                instance_id: identity.as_ref().map(|identity| &*identity.instance_id),
                target: identity.as_ref().map(|identity| &*identity.target),
                pid: identity.as_ref().map(|identity| identity.pid),
            })?;
        }
        let Some(identity) = &identity else {
            return Err(address.not_up());
        };
        ready.unwrap_or(Ok(()))?;
        if !self.json {
            print(&address, identity, context.out)?;
        }
        Ok(Exit::Done)
    }

    fn address(&self, context: &Context<'_>) -> Result<Address, Failure> {
        Ok(match &self.place {
            // A folder of that name is `./unix:…`.
            Some(place) if place.starts_with("unix:") => {
                Address::Socket(SourcedValue::argument(place).socket()?)
            }
            // A folder of that name is `./8888`.
            Some(place) if !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_digit()) => {
                Address::Port(SourcedValue::argument(place).port()?, None)
            }
            path => {
                let (project, port, _) = mapping_of(context, path.as_deref())?;
                Address::Port(port, project)
            }
        })
    }
}

fn print(address: &Address, identity: &Identity, out: &mut Output) -> Result<(), Failure> {
    let insecure = if identity.insecure {
        " (certificate not verified: --insecure)"
    } else {
        ""
    };
    out.text(format_args!(
        "✓ {}: {} → {}{insecure}, pid {}\n",
        match address {
            Address::Port(port, _) => format!("Port {port}"),
            Address::Socket(_) => address.to_string(),
        },
        Escaped(&identity.instance_id),
        Escaped(&identity.target),
        identity.pid
    ))
}

/// The address of an interceptor.
enum Address {
    /// A port, of a project or of its own.
    Port(Port, Option<Project>),
    Socket(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(port, _) => write!(f, "port {port}"),
            Address::Socket(path) => write!(f, "unix:{}", escaped_path(path)),
        }
    }
}

impl Address {
    fn port(&self) -> Option<Port> {
        match self {
            Address::Port(port, _) => Some(*port),
            Address::Socket(_) => None,
        }
    }

    fn not_up(&self) -> Failure {
        match self {
            Address::Port(port, project) => not_up(*port, project.as_ref()),
            Address::Socket(path) => Failure::no(match holder_of_socket(path).other_user {
                Some(uid) => format!(
                    "no interceptor answers on {self}, which belongs to another user (uid {uid}); \
                     run `ic health` as that user, or give another path"
                ),
                None => format!(
                    "no interceptor answers on {self}; `ic serve --listen {self}` starts one"
                ),
            }),
        }
    }
}

#[derive(Default, Serialize)]
struct Document<'a> {
    /// Null for a Unix socket, and for a project without a port.
    port: Option<Port>,
    up: bool,
    /// Null without `--ready`, and where no interceptor is up.
    ready: Option<bool>,
    /// Null, like the members below, where no interceptor is up.
    instance_id: Option<&'a str>,
    target: Option<&'a str>,
    pid: Option<u32>,
}

/// Connects to the target, or to the proxy before it.
fn reach_target(address: &Address, identity: &Identity) -> Result<(), Failure> {
    let target = identity.first_hop();
    let target: Target = target
        .parse()
        .map_err(|error| Failure::no(format!("the target `{target}` of {address} {error}")))?;
    let what = identity.proxy.as_ref().map_or("target", |_| "proxy");
    reach(target.endpoint(), CONNECT_TIME_MAX).map_err(|why| {
        Failure::no(format!(
            "the interceptor on {address} is up, but its {what} {target} {why}; start it, or wait"
        ))
    })
}

/// Asks again while the port is in use: the interceptor may only be slow.
fn ask(port: Port) -> Option<Identity> {
    (0..ATTEMPTS_MAX)
        .take_while(|&attempt| attempt == 0 || availability(port) == Availability::InUse)
        .find_map(|_| interceptor_at(port.get()))
}

fn not_up(port: Port, project: Option<&Project>) -> Failure {
    let state = match port_state(port) {
        PortState::Free => {
            let serve = command_for("serve", project);
            return Failure::no(format!(
                "nothing listens on port {port}; {serve} starts an interceptor"
            ));
        }
        state @ PortState::InUse(_) => format!("is {state}"),
        state => state.to_string(),
    };
    let doctor = command_for("doctor", project);
    Failure::no(format!(
        "no interceptor answers on port {port}, which {state}; {doctor} says more"
    ))
}

/// A container's health check has 30 s by default, and often 1 s.
const ATTEMPTS_MAX: usize = 3;

/// For the connection to the target.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
