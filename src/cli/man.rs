//! `ic man`: the manual page in roff, made from argh's description of the commands.

use std::fmt::Write as _;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

use super::help::{self, label, sentence, unescaped, usage};
use super::settings;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};

/// print the manual page (roff)
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "man",
    help_triggers("-h", "--help"),
    example = "ic man | man -l -\n\
               ic man >~/.local/share/man/man1/ic.1"
)]
pub struct Man {}

impl Man {
    pub(super) fn run(
        &self,
        program: &CommandInfoWithArgs,
        context: &mut Context<'_>,
    ) -> Result<Exit, Failure> {
        context.out.text(page(program))?;
        Ok(Exit::Done)
    }
}

fn page(program: &CommandInfoWithArgs) -> String {
    let mut page = format!(
        ".TH IC 1 \"\" \"ic {version}\" \"User Commands\"\n\
         .SH NAME\nic \\- {name}\n\
         .SH SYNOPSIS\n.B {usage}\n\
         .SH DESCRIPTION\n{description}\n",
        version = env!("CARGO_PKG_VERSION"),
        name = text(unescaped(program.description).trim_end_matches('.')),
        usage = text(&usage(program, None)),
        description = text(DESCRIPTION),
    );
    page.push_str(".SH OPTIONS\n");
    options(program, &mut page);
    page.push_str(".SH COMMANDS\n");
    for command in &program.commands {
        section(program, &command.command, &mut page);
    }
    page.push_str(".SH EXIT STATUS\n");
    for exit in program.error_codes {
        entry(&exit.code.to_string(), exit.description, &mut page);
    }
    page.push_str(
        ".SH ENVIRONMENT\nAn option wins over its variable. An empty variable counts as unset.\n",
    );
    for (variable, meaning) in VARIABLES {
        entry(variable, meaning, &mut page);
    }
    page.push_str(".SH FILES\n");
    entry(
        "~/.config/litellm/port_registry.json",
        "the registry; the lock file beside it is permanent",
        &mut page,
    );
    page
}

/// The section of a command.
fn section(program: &CommandInfoWithArgs, command: &CommandInfoWithArgs, page: &mut String) {
    // Writing into a String cannot fail.
    let _ = writeln!(
        page,
        ".SS {}\n{}",
        text(&usage(program, Some(command))),
        text(&sentence(command.description))
    );
    for positional in command.positionals {
        entry(positional.name, positional.description, page);
    }
    options(command, page);
    for note in command.notes {
        let _ = writeln!(page, ".PP\n{}", text(&unescaped(note)));
    }
    if !command.examples.is_empty() {
        page.push_str(".PP\nExamples:\n.nf\n.RS\n");
        for line in command.examples.iter().flat_map(|lines| lines.lines()) {
            let _ = writeln!(page, "{}", text(&unescaped(line)));
        }
        page.push_str(".RE\n.fi\n");
    }
    for exit in command.error_codes {
        entry(
            &format!("Exit status {}", exit.code),
            exit.description,
            page,
        );
    }
}

fn options(command: &CommandInfoWithArgs, page: &mut String) {
    for flag in help::options(command) {
        entry(&label(flag), flag.description, page);
    }
}

fn entry(label: &str, meaning: &str, page: &mut String) {
    let _ = writeln!(
        page,
        ".TP\n.B {}\n{}",
        text(&unescaped(label)),
        text(&sentence(meaning))
    );
}

/// Escapes backslashes and hyphens, and lines that begin like a request (groff(7), Escapes).
fn text(plain: &str) -> String {
    let lines = plain.lines().map(|line| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

const DESCRIPTION: &str = "\
Gives each project its own port in front of one LLM proxy and adds header fields that identify the project.
Everything else in requests and responses passes through unchanged.";

const VARIABLES: [(&str, &str); 8] = [
    (
        settings::PORT,
        "listen on this port; the registry is neither read nor written",
    ),
    (
        settings::PORT_MIN,
        "lowest port of the allocation range; default: 8888",
    ),
    (
        settings::PORT_MAX,
        "highest port of the allocation range; default: 9999",
    ),
    (settings::REGISTRY_PATH, "registry file"),
    (
        settings::PROJECT_ROOT,
        "`git`: without a PATH, the project is the repository around the current folder",
    ),
    (
        settings::TARGET_URL,
        "where requests go; default: http://localhost:8764",
    ),
    (
        settings::INSTANCE_ID,
        "instance identifier; default: pycharm-{{project}}",
    ),
    ("RUST_LOG", "log filter; default: info"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roff_special_characters_are_escaped() {
        #[track_caller]
        fn check(plain: &str, expected: &str) {
            assert_eq!(text(plain), expected);
        }
        check("--port N", "\\-\\-port N");
        check("a\\b", "a\\eb");
        check(
            ".SH no heading\n'no request",
            "\\&.SH no heading\n\\&'no request",
        );
        check("", "");
    }
}
