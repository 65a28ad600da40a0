//! `ic list`: the registry, and which of its ports are in use.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::probe::{Availability, availability};
use crate::registry::prune::next_free;
use crate::registry::{Port, PortRange};

use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::Output;
use crate::text::raw;
use crate::text::{Escaped, name};

/// show the registry: file, port range, and the port of each project
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help"),
    example = "ic list\n\
               ic list --json | jq '.mappings[].port'",
    note = "✓         the port is free",
    note = "⚠ IN USE  a program listens on it, usually the project's interceptor",
    note = "⚠ DENIED  binding it requires privileges"
)]
pub struct List {
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl List {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let handle = context.registry_handle()?;
        let (range, registry) = (handle.range, handle.read()?);
        let inside = registry.assigned_in(range);
        let summary = Summary {
            registry_file: raw::to_text(handle.store.path().as_os_str()),
            port_range: range,
            total_ports: range.len(),
            allocated_ports: registry.len(),
            // A mapping outside the range uses no port of it.
            available_ports: range.len() - inside,
            outsiders: registry.len() - inside as usize,
            next_available: next_free(range, &registry),
            mappings: registry
                .mappings()
                .map(|(path, port)| Mapping {
                    project: name(path),
                    path: raw::to_text(path.as_os_str()),
                    port,
                    availability: availability(port),
                })
                .collect(),
        };
        if self.json {
            context.out.json(&summary)?;
        } else {
            summary.print(context.out)?;
        }
        Ok(Exit::Done)
    }
}

/// The JSON document.
#[derive(Serialize)]
struct Summary {
    registry_file: String,
    port_range: PortRange,
    total_ports: u32,
    allocated_ports: usize,
    available_ports: u32,
    /// The number of allocated ports outside the range.
    #[serde(skip)]
    outsiders: usize,
    /// The port that the next allocation would assign.
    next_available: Option<Port>,
    mappings: Vec<Mapping>,
}

#[derive(Serialize)]
struct Mapping {
    project: String,
    path: String,
    port: Port,
    #[serde(rename = "available", serialize_with = "is_free")]
    availability: Availability,
}

fn is_free<S: serde::Serializer>(
    availability: &Availability,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(*availability == Availability::Free)
}

impl Summary {
    fn print(&self, out: &mut Output) -> Result<(), Failure> {
        let double_rule = "=".repeat(WIDTH);
        let next = match self.next_available {
            Some(port) => port.to_string(),
            None => "none".to_owned(),
        };
        out.text(format_args!(
            "{double_rule}\n\
             Port Registry Information\n\
             {double_rule}\n\
             Registry File:    {file}\n\
             Port Range:       {range}\n\
             Total Ports:      {total}\n\
             Allocated Ports:  {allocated}{outside}\n\
             Available Ports:  {available}\n\
             Next Available:   {next}\n\
             {double_rule}\n\
             \n",
            file = Escaped(&self.registry_file),
            range = self.port_range,
            total = self.total_ports,
            allocated = self.allocated_ports,
            outside = match self.outsiders {
                0 => String::new(),
                count => format!(" ({count} outside the range)"),
            },
            available = self.available_ports,
        ))?;
        if self.mappings.is_empty() {
            return out.text("No project mappings found.\n");
        }
        out.text(format_args!(
            "Project Mappings ({}):\n{}\n",
            self.mappings.len(),
            "-".repeat(WIDTH)
        ))?;
        for mapping in &self.mappings {
            let state = match mapping.availability {
                Availability::Free => "      ✓",
                Availability::InUse => "⚠ IN USE",
                Availability::NotPermitted => "⚠ DENIED",
                Availability::Untried(_) => "       ?",
            };
            out.text(format_args!(
                "  Port {port:>5}    {state}  →  {project}\n             {path}\n",
                port = mapping.port.get(),
                project = Escaped(&mapping.project),
                path = Escaped(&mapping.path),
            ))?;
        }
        Ok(())
    }
}

/// Columns of the rules above, between and below.
const WIDTH: usize = 80;
