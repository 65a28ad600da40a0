//! `ic check` and `ic suggest`: the state of a port, and free ports.

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use crate::registry::Port;
use crate::registry::probe::Search;
use crate::registry::prune::next_free;

use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::port_state::{PortState, port_state};
use crate::machine::process::{Holder, IC};
use crate::text::raw;
use crate::text::{Escaped, escaped_path, name};

/// show which project a port is assigned to, and whether it is available
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "check",
    help_triggers("-h", "--help"),
    example = "ic check 8888\n\
               ic check 8888 --json",
    error_code(0, "the port is available"),
    error_code(1, "the port is in use, or binding it requires privileges"),
    error_code(2, "PORT is not a port"),
    error_code(3, "the port cannot be tried")
)]
pub struct Check {
    /// port, 1 to 65535
    #[argh(positional, arg_name = "PORT")]
    pub port: String,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Check {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let port = SourcedValue::argument(&self.port).port()?;
        let (range, registry) = context.ports()?;
        let owner = registry.path_of(port);
        let state = port_state(port);
        if self.json {
            context.out.json(&json!({
                "port": port,
                "available": state == PortState::Free,
                "project": owner.map(name),
                "path": owner.map(|path| raw::to_text(path.as_os_str())),
            }))?;
        } else {
            let assigned = match owner {
                Some(path) => format!(
                    "Assigned to project\n  Project:      {}\n  Path:         {}",
                    Escaped(&name(path)),
                    escaped_path(path)
                ),
                None => "Not assigned".to_owned(),
            };
            let available = match &state {
                PortState::Free => "Yes".to_owned(),
                taken => format!("No ({taken})"),
            };
            context.out.text(format_args!(
                "Port {port}:\n  Status:       {assigned}\n  Available:    {available}\n"
            ))?;
            if let PortState::InUse(holder) = &state
                && !is_expected(holder)
                && let Some(free) = next_free(range, &registry)
            {
                context.out.text(format_args!("  Next Free:    {free}\n"))?;
            }
        }
        match state {
            PortState::Free => Ok(Exit::Done),
            PortState::InUse(_) | PortState::NotPermitted => Ok(Exit::No),
            PortState::Unknown(refusal) => Err(Failure::could_not(format!(
                "port {port} cannot be tried ({refusal}); look for a sandbox, or a limit on open files"
            ))),
        }
    }
}

/// Whether it seems to be an interceptor of this user, which listens on the ports of projects.
pub(super) fn is_expected(holder: &Holder) -> bool {
    let process = holder.process.as_ref();
    holder.other_user.is_none() && process.is_some_and(|process| process.program == IC)
}

/// list free, unassigned ports in the order of allocation
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "suggest",
    help_triggers("-h", "--help"),
    example = "ic suggest\n\
               ic suggest -n 3",
    error_code(1, "the range has no free port")
)]
pub struct Suggest {
    /// maximum number of ports to list; default: 5
    #[argh(option, short = 'n', arg_name = "N")]
    pub number: Option<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Suggest {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let number = match &self.number {
            Some(number) => SourcedValue::flag("-n", number).count(1)?,
            None => SUGGESTIONS,
        };
        let (range, registry) = context.ports()?;
        let search = Search::default();
        let ports: Vec<Port> = registry
            .free_ports(range, |port| search.is_free(port))
            .take(number)
            .collect();
        let found = !ports.is_empty();
        if self.json {
            context.out.json(&json!({ "ports": ports }))?;
        } else {
            for port in ports {
                context.out.text(format_args!("{port}\n"))?;
            }
        }
        if found {
            Ok(Exit::Done)
        } else if let Some(refusal) = search.refusal() {
            Err(Failure::could_not(format!(
                "no port of {range} is known to be free: they cannot be tried ({refusal}); look for a sandbox, \
                 or a limit on open files"
            )))
        } else {
            Err(Failure::no(format!(
                "no port of {range} is free and unassigned; raise `INTERCEPTOR_PORT_MAX`, \
                 or `ic remove` what is not needed"
            )))
        }
    }
}

/// The default of `-n`.
const SUGGESTIONS: usize = 5;
