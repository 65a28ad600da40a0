//! `ic prune`: remove mappings that are not needed.
//!
//! Which mappings are removed is decided in `registry::prune`; here, how the result is printed.

use argh::{ArgsInfo, FromArgs};

use crate::machine::survey::idle_ports;
use crate::registry::prune::{Pruned, Reason, prune_here};
use crate::registry::{Registry, documents};

use super::mapping::print_mapping;
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
    note = "A project counts as deleted if its folder does not exist and its parent folder does. If\n\
            that does not exist either, the nearest folder that does must belong to you and not be\n\
            empty: an empty one may be where a disk is mounted. For root, it must be in root's home\n\
            folder. `ic remove PATH` removes any other mapping.\n\
            The last use is recorded when an interceptor starts and stops, by `ic serve --all` when a\n\
            project has requests; a port without a record is not removed as unused. Ports in use and\n\
            pinned ports (`ic allocate --pin`) are kept; that `ic serve --all` listens is no use. A\n\
            project that returns gets its old port if it is still free.",
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
        let unused_for = match &self.unused_for {
            Some(given) => Some(SourcedValue::flag("--unused-for", given).period()?),
            None => None,
        };
        let handle = context.registry_handle()?;
        let mut registry = handle.read()?;
        let idle = idle_ports(registry.mappings().map(|(_, port)| port.get()));
        let prune = |registry: &mut Registry| prune_here(registry, unused_for, &idle);
        let pruned = if self.dry_run {
            prune(&mut registry)
        } else {
            handle.update(prune)?
        };
        if self.json {
            context
                .out
                .json(&documents::pruned(&pruned, self.dry_run))?;
            return Ok(Exit::Done);
        }
        if pruned.is_empty() {
            context.out.text("Nothing to prune.\n")?;
            return Ok(Exit::Done);
        }
        let change = if self.dry_run {
            "Would remove"
        } else {
            "✓ Removed"
        };
        let count = mappings(pruned.len());
        context.out.text(format_args!("{change} {count}:\n"))?;
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
