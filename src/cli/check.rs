//! `ic check` and `ic suggest`: the state of a port, and free ports.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::Port;
use crate::registry::probe::{Availability, Search, availability};
use crate::registry::prune::next_free;

use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::port_state::{PortState, port_state};
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
    error_code(2, "PORT is not a port")
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
        let available = if self.json {
            let available = availability(port) == Availability::Free;
            context.out.json(&Checks {
                port,
                available,
                project: owner.map(name),
                path: owner.map(|path| raw::to_text(path.as_os_str())),
            })?;
            available
        } else {
            context.out.text(format_args!("Port {port}:\n"))?;
            match owner {
                Some(path) => context.out.text(format_args!(
                    "  Status:       Assigned to project\n  Project:      {}\n  Path:         {}\n",
                    Escaped(&name(path)),
                    escaped_path(path)
                ))?,
                None => context.out.text("  Status:       Not assigned\n")?,
            }
            let state = port_state(port);
            match &state {
                PortState::Free => context.out.text("  Available:    Yes\n")?,
                taken => context
                    .out
                    .text(format_args!("  Available:    No ({taken})\n"))?,
            }
            if is_held_by_another_program(&state)
                && let Some(free) = next_free(range, &registry)
            {
                context.out.text(format_args!("  Next Free:    {free}\n"))?;
            }
            state == PortState::Free
        };
        Ok(if available { Exit::Done } else { Exit::No })
    }
}

/// Whether a program other than an interceptor holds the port, so that another port is worth suggesting.
fn is_held_by_another_program(state: &PortState) -> bool {
    match state {
        PortState::InUse(Some(process)) => process.program != "ic",
        PortState::InUse(None) => true,
        PortState::Free | PortState::NotPermitted | PortState::Unknown(_) => false,
    }
}

#[derive(Serialize)]
struct Checks {
    port: Port,
    available: bool,
    project: Option<String>,
    path: Option<String>,
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
            context.out.json(&Suggests { ports })?;
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

#[derive(Serialize)]
struct Suggests {
    ports: Vec<Port>,
}

/// The default of `-n`.
const SUGGESTIONS: usize = 5;
