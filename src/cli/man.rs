//! `ic man`: the manual page, in roff, from argh's own description of the commands.

use std::fmt::Write as _;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

use super::help::{label, sentence, unescaped, usage};
use super::settings;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};

/// print the manual page
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
        name = text(&lower(&unescaped(program.description))),
        usage = text(&usage(program, None)),
        description = text(DESCRIPTION),
    );
    section("OPTIONS", &mut page);
    options(program, &mut page);
    section("COMMANDS", &mut page);
    for command in &program.commands {
        let command = &command.command;
        // Writing into a String cannot fail.
        let _ = writeln!(
            page,
            ".SS {}\n{}",
            text(&usage(program, Some(command))),
            text(&sentence(command.description))
        );
        for positional in command.positionals {
            entry(positional.name, positional.description, &mut page);
        }
        options(command, &mut page);
        paragraphs(command.notes, &mut page);
        if !command.examples.is_empty() {
            page.push_str(".PP\nExamples:\n.nf\n.RS\n");
            for line in command.examples.iter().flat_map(|lines| lines.lines()) {
                let _ = writeln!(page, "{}", text(&unescaped(line)));
            }
            page.push_str(".RE\n.fi\n");
        }
        let exits: Vec<(String, &str)> = command
            .error_codes
            .iter()
            .map(|exit| (format!("Exit status {}", exit.code), exit.description))
            .collect();
        for (exit, meaning) in exits {
            entry(&exit, meaning, &mut page);
        }
    }
    section("EXIT STATUS", &mut page);
    for exit in program.error_codes {
        entry(&exit.code.to_string(), exit.description, &mut page);
    }
    section("ENVIRONMENT", &mut page);
    page.push_str(
        "An option wins over its variable. One that is set but empty counts as not set.\n",
    );
    for (variable, meaning) in VARIABLES {
        entry(variable, meaning, &mut page);
    }
    section("FILES", &mut page);
    entry(
        "~/.config/litellm/port_registry.json",
        "the registry, on every system; the lock file beside it is meant to stay",
        &mut page,
    );
    page
}

fn section(heading: &str, page: &mut String) {
    let _ = writeln!(page, ".SH {heading}");
}

fn options(command: &CommandInfoWithArgs, page: &mut String) {
    // The first is argh's own help.
    for flag in command.flags.iter().skip(1) {
        entry(&label(flag), flag.description, page);
    }
}

fn paragraphs(notes: &[&str], page: &mut String) {
    for note in notes {
        let _ = writeln!(page, ".PP\n{}", text(&unescaped(note)));
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

/// Text that roff takes for text: a backslash, and a line that begins like a request (groff(7), Escapes).
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

/// As the first line of a manual page has it.
fn lower(description: &str) -> String {
    let description = description.trim_end_matches('.');
    let mut characters = description.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

const DESCRIPTION: &str = "\
Gives every project its own port in front of one LLM proxy, and tells the proxy which project is asking.
What is sent through that port arrives unchanged, but for a few header fields that name the project.";

const VARIABLES: [(&str, &str); 8] = [
    (
        settings::PORT,
        "listen on this port; the registry is neither read nor written",
    ),
    (
        settings::PORT_MIN,
        "the lowest port to give out; 8888 without it",
    ),
    (
        settings::PORT_MAX,
        "the highest port to give out; 9999 without it",
    ),
    (settings::REGISTRY_PATH, "the registry file"),
    (
        settings::PROJECT_ROOT,
        "`git`: without a PATH, the project is the repository around the current folder",
    ),
    (
        settings::TARGET_URL,
        "where requests go; http://localhost:8764 without it",
    ),
    (
        settings::INSTANCE_ID,
        "the instance identifier; pycharm-{{project}} without it",
    ),
    ("RUST_LOG", "how much is logged; info without it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roff_takes_text_for_text() {
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
