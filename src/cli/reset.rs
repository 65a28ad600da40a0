//! `ic reset`: remove every mapping, once it is certain that this is meant.

use std::io::{self, IsTerminal, Write};

use argh::{ArgsInfo, FromArgs};

use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::mappings;
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
        let place = context.place()?;
        if !self.yes {
            if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
                return Err(Failure::usage(
                    "reset asks before it removes all mappings, and there is no terminal to ask on; \
                     `ic reset --yes` does not ask",
                ));
            }
            let count = place.read()?.len();
            if !asked(&format!(
                "Remove all {} from {}?",
                mappings(count),
                escaped_path(place.store.path())
            )) {
                return Err(Failure::no("declined; nothing was changed"));
            }
        }
        let removed = place.update(|registry| registry.reset(place.range))?;
        context.out.text(format_args!(
            "✓ Registry reset: {} removed\n  Registry File: {}\n",
            mappings(removed),
            escaped_path(place.store.path())
        ))?;
        Ok(Exit::Done)
    }
}

/// Puts a question to the terminal. Only a plain yes is a yes; the end of input is a no.
fn asked(question: &str) -> bool {
    let mut terminal = io::stderr();
    // In one piece, or what is typed ahead shows in the middle of it. A question that could not be put will not be
    // answered with yes.
    let _ = terminal.write_all(format!("{} [y/N] ", Escaped(question)).as_bytes());
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(0) => {
            let _ = writeln!(terminal);
            false
        }
        Ok(_) => matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
        Err(_) => false,
    }
}
