//! `ic list`: the registry, and which of its ports are in use.

use std::collections::HashMap;

use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};

use crate::registry::probe::{Availability, availability};
use crate::registry::prune::next_free;
use crate::registry::{Registry, documents};

use crate::cli::context::{Context, RegistryHandle};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::Output;
use crate::text::{Escaped, escaped_path, name, raw};

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
        let registry = handle.read()?;
        if self.json {
            context.out.json(&document(&handle, &registry))?;
        } else {
            print(context.out, &handle, &registry)?;
        }
        Ok(Exit::Done)
    }
}

fn document(handle: &RegistryHandle, registry: &Registry) -> Value {
    let range = handle.range;
    let notes = registry.notes();
    let known: HashMap<_, _> = notes.iter().collect();
    let mappings = registry.mappings().map(|(path, port)| {
        let note = known.get(path).copied().unwrap_or_default();
        documents::noted(path, Some(port), note)
    });
    json!({
        "registry_file": raw::to_text(handle.store.path().as_os_str()),
        "port_range": range,
        "total_ports": range.len(),
        "allocated_ports": registry.len(),
        "available_ports": registry.unassigned_in(range),
        "next_available": next_free(range, registry),
        "mappings": mappings.collect::<Value>(),
    })
}

fn print(out: &mut Output, handle: &RegistryHandle, registry: &Registry) -> Result<(), Failure> {
    let range = handle.range;
    let inside = registry.assigned_in(range);
    let double_rule = "=".repeat(WIDTH);
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
        file = escaped_path(handle.store.path()),
        total = range.len(),
        allocated = registry.len(),
        outside = match registry.len() - inside as usize {
            0 => String::new(),
            count => format!(" ({count} outside the range)"),
        },
        available = registry.unassigned_in(range),
        next = next_free(range, registry).map_or("none".to_owned(), |port| port.to_string()),
    ))?;
    if registry.is_empty() {
        return out.text("No project mappings found.\n");
    }
    out.text(format_args!(
        "Project Mappings ({}):\n{}\n",
        registry.len(),
        "-".repeat(WIDTH)
    ))?;
    for (path, port) in registry.mappings() {
        let state = match availability(port) {
            Availability::Free => "      ✓",
            Availability::InUse => "⚠ IN USE",
            Availability::NotPermitted => "⚠ DENIED",
            Availability::Untried(_) => "       ?",
        };
        out.text(format_args!(
            "  Port {port:>5}    {state}  →  {project}\n             {path}\n",
            port = port.get(),
            project = Escaped(&name(path)),
            path = escaped_path(path),
        ))?;
    }
    Ok(())
}

/// Columns of the rules above, between and below.
const WIDTH: usize = 80;
