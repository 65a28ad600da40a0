//! `ic prune`: give up mappings that nobody needs.
//!
//! What may go is decided in `registry::prune`; here, what is asked of the machine, and how the answer is written.

use std::time::{Duration, SystemTime};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::probe::{Availability, availability};
use crate::registry::project::is_deleted;
use crate::registry::prune::{Pruned, Reason, Recycling};
use crate::registry::{Port, Registry};

use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{mappings, rounded};
use crate::text::raw;
use crate::text::{Escaped, name};

/// remove mappings of deleted projects, and of ports that are not used any more
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "prune",
    help_triggers("-h", "--help"),
    example = "ic prune --dry-run\n\
               ic prune --unused-for 30d",
    note = "A project is deleted when its folder is gone and the folder above it is there.\n\
            A port is used when its interceptor starts and when it stops; where that is not\n\
            known, it is never unused. A port that something listens on stays, and so does\n\
            one that is pinned (`ic allocate --pin`). A project that comes back gets its old\n\
            port while that is free.",
    error_code(0, "done, also where there was nothing to do")
)]
pub struct Prune {
    /// only show what would be removed
    #[argh(switch)]
    pub dry_run: bool,
    /// also those not used for so long: a number and one of s, m, h, d, w
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
        let place = context.place()?;
        let prune = |registry: &mut Registry| prune(registry, recycling);
        let pruned = if self.dry_run {
            prune(&mut place.read()?)
        } else {
            place.update(prune)?
        };
        if self.json {
            context.out.json(&Prunes::new(&pruned, self.dry_run))?;
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
            context.out.text(format_args!(
                "  Port {port:>5}  →  {project} ({why})\n             {path}\n",
                port = port.get(),
                project = Escaped(&name(path)),
                path = Escaped(&raw::to_text(path.as_os_str())),
            ))?;
        }
        Ok(Exit::Done)
    }
}

/// Gives up what is not needed, as this machine shows it.
pub(crate) fn prune(registry: &mut Registry, recycling: Option<Recycling>) -> Vec<Pruned> {
    // What cannot be bound for want of privileges cannot be seen to be free either.
    let is_listening = |port| availability(port) != Availability::Free;
    registry.prune(recycling, is_deleted, is_listening)
}

/// Unused for so long, seen from now.
pub(crate) fn unused_for(unused_for: Duration) -> Recycling {
    Recycling {
        unused_for,
        now: SystemTime::now().into(),
    }
}

/// The answer as a document.
#[derive(Serialize)]
pub(crate) struct Prunes {
    removed: Vec<Removed>,
    dry_run: bool,
}

impl Prunes {
    pub(crate) fn new(pruned: &[Pruned], dry_run: bool) -> Prunes {
        Prunes {
            removed: pruned.iter().map(Removed::from).collect(),
            dry_run,
        }
    }
}

#[derive(Serialize)]
struct Removed {
    project: String,
    path: String,
    port: Port,
    reason: &'static str,
}

impl From<&Pruned> for Removed {
    fn from(pruned: &Pruned) -> Removed {
        Removed {
            project: name(&pruned.path),
            path: raw::to_text(pruned.path.as_os_str()),
            port: pruned.port,
            reason: match pruned.reason {
                Reason::Deleted => "deleted",
                Reason::Unused(_) => "unused",
            },
        }
    }
}
