//! `ic prune`: remove mappings that are not needed.
//!
//! Which mappings are removed is decided in `registry::prune`; here, which ports are in use, and how the result is printed.

use std::time::{Duration, SystemTime};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::probe::{Availability, availability};
use crate::registry::project::is_deleted;
use crate::registry::prune::{Pruned, Reason, Recycling};
use crate::registry::{Port, Registry};

use super::mapping::{ProjectJson, print_mapping};
use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{mappings, rounded};

/// remove mappings of deleted projects and, with --unused-for, of unused ports
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "prune",
    help_triggers("-h", "--help"),
    example = "ic prune --dry-run\n\
               ic prune --unused-for 30d",
    note = "A project counts as deleted if its folder does not exist and its parent folder does.\n\
            The last use is recorded when an interceptor starts and stops; a port without a\n\
            record is not removed as unused. Ports in use and pinned ports (`ic allocate --pin`)\n\
            are kept. A project that returns gets its old port if it is still free.",
    error_code(0, "done, even if nothing was removed")
)]
pub struct Prune {
    /// show what would be removed, and change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// also remove mappings unused for this long, such as 30d; units: s, m, h, d, w
    #[argh(option, arg_name = "TIME")]
    pub unused_for: Option<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Prune {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let recycling = match &self.unused_for {
            Some(given) => Some(unused_for(
                SourcedValue::flag("--unused-for", given).period()?,
            )),
            None => None,
        };
        let handle = context.registry_handle()?;
        let prune = |registry: &mut Registry| prune(registry, recycling);
        let pruned = if self.dry_run {
            prune(&mut handle.read()?)
        } else {
            handle.update(prune)?
        };
        if self.json {
            context.out.json(&PruneJson::new(&pruned, self.dry_run))?;
            return Ok(Exit::Done);
        }
        if pruned.is_empty() {
            context.out.text("Nothing to prune.\n")?;
            return Ok(Exit::Done);
        }
        let count = mappings(pruned.len());
        if self.dry_run {
            context.out.text(format_args!("Would remove {count}:\n"))?;
        } else {
            context.out.text(format_args!("✓ Removed {count}:\n"))?;
        }
        for Pruned { path, port, reason } in &pruned {
            let why = match reason {
                Reason::Deleted => "deleted".to_owned(),
                Reason::Unused(time) => format!("unused for {}", rounded(*time)),
            };
            print_mapping(context.out, path, *port, &why)?;
        }
        Ok(Exit::Done)
    }
}

/// Removes the mappings that are not needed on this machine.
pub(crate) fn prune(registry: &mut Registry, recycling: Option<Recycling>) -> Vec<Pruned> {
    // A port that cannot be probed may be in use.
    let is_listening = |port| availability(port) != Availability::Free;
    registry.prune(recycling, is_deleted, is_listening)
}

/// Returns the terms for ports that are unused for this long now.
pub(crate) fn unused_for(unused_for: Duration) -> Recycling {
    Recycling {
        unused_for,
        now: SystemTime::now().into(),
    }
}

/// The JSON document of `ic prune`.
#[derive(Serialize)]
pub(crate) struct PruneJson {
    removed: Vec<RemovedJson>,
    dry_run: bool,
}

#[derive(Serialize)]
struct RemovedJson {
    #[serde(flatten)]
    project: ProjectJson,
    port: Port,
    reason: &'static str,
}

impl PruneJson {
    pub(crate) fn new(pruned: &[Pruned], dry_run: bool) -> PruneJson {
        let removed = |pruned: &Pruned| RemovedJson {
            project: ProjectJson::new(&pruned.path),
            port: pruned.port,
            reason: match pruned.reason {
                Reason::Deleted => "deleted",
                Reason::Unused(_) => "unused",
            },
        };
        PruneJson {
            removed: pruned.iter().map(removed).collect(),
            dry_run,
        }
    }
}
