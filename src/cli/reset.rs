//! `ic reset`: remove all mappings, after a confirmation.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use crate::cli::context::Context;
use crate::cli::mapping::warn_of_running;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::mappings;
use crate::registry::Port;
use crate::text::{Escaped, escaped_path};

/// remove all mappings, after confirmation
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "reset",
    help_triggers("-h", "--help"),
    example = "ic reset            ask for confirmation first\n\
               ic reset --yes      does not",
    error_code(1, "declined; nothing is changed"),
    error_code(2, "no terminal for the confirmation, and no --yes")
)]
pub struct Reset {
    /// do not ask for confirmation
    #[argh(switch)]
    pub yes: bool,
}

impl Reset {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let handle = context.registry_handle()?;
        if !self.yes {
            if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
                return Err(Failure::usage(
                    "cannot ask for confirmation without a terminal; `ic reset --yes` does not ask",
                ));
            }
            let count = handle.read()?.len();
            if !is_confirmed(&format!(
                "Remove all {} from {}?",
                mappings(count),
                escaped_path(handle.store.path())
            )) {
                return Err(Failure::no("declined; nothing was changed"));
            }
        }
        let removed = handle.update(|registry| {
            let removed = registry
                .mappings()
                .map(|(path, port)| (path.to_owned(), port));
            let removed: Vec<(PathBuf, Port)> = removed.collect();
            registry.reset(handle.range);
            removed
        })?;
        context.out.text(format_args!(
            "✓ Registry reset: {} removed\n  Registry File: {}\n",
            mappings(removed.len()),
            escaped_path(handle.store.path())
        ))?;
        warn_of_running(removed.iter().map(|(path, port)| (path.as_path(), *port)));
        Ok(Exit::Done)
    }
}

/// Asks on the terminal. Only `y` and `yes` confirm; the end of input declines.
fn is_confirmed(question: &str) -> bool {
    let mut terminal = io::stderr();
    // In one write, so that text typed ahead does not appear inside it. If it fails, the answer decides.
    let _ = terminal.write_all(format!("{} [y/N] ", Escaped(question)).as_bytes());
    let mut answer = String::new();
    // What an error leaves in `answer` confirms nothing.
    let _ = io::stdin().read_line(&mut answer);
    if answer.is_empty() {
        let _ = writeln!(terminal);
    }
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
