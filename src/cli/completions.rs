//! `ic completions`: scripts that complete command lines, from argh's own description of them.
//!
//! argh knows no values. Where one is of a few fixed words, they are put into the lines that argh_complete has written for
//! that option or command; tests ask the shells whether they are offered.

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};
use argh_complete::Generator;
use argh_complete::bash::Bash;
use argh_complete::fish::Fish;
use argh_complete::zsh::Zsh;

use super::help::unescaped;
use super::settings::SourcedValue;
use super::snippet;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};

/// print a script that completes command lines of ic
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "completions",
    help_triggers("-h", "--help"),
    example = "source <(ic completions bash)                        for this shell\n\
               ic completions bash >~/.local/share/bash-completion/completions/ic\n\
               ic completions zsh >\"${{fpath[1]}}/_ic\"\n\
               ic completions fish >~/.config/fish/completions/ic.fish"
)]
pub struct Completions {
    /// bash, zsh or fish
    #[argh(positional, arg_name = "SHELL")]
    pub shell: String,
}

impl Completions {
    pub(super) fn run(
        &self,
        program: &CommandInfoWithArgs,
        context: &mut Context<'_>,
    ) -> Result<Exit, Failure> {
        let script = match self.shell.as_str() {
            "bash" => {
                let script = with_words(&Bash::generate(program.name, program), bash);
                leaving_room_for_paths(&script, program)
            }
            "zsh" => with_words(&Zsh::generate(program.name, program), zsh),
            // `-x` is of fish 4; the older name of the same is understood by all.
            "fish" => with_words(&Fish::generate(program.name, program), fish)
                .replace("commandline -xpc", "commandline -opc"),
            _ => {
                let given = SourcedValue::argument(&self.shell);
                return Err(given.refused("is not a shell that ic knows; give bash, zsh or fish"));
            }
        };
        context.out.text(unescaped(&script))?;
        Ok(Exit::Done)
    }
}

/// Where a command takes a path, bash has files to offer for an empty word, and does if nothing else is offered: options
/// are from their first letter on.
fn leaving_room_for_paths(script: &str, program: &CommandInfoWithArgs) -> String {
    let takes_path = |name: &str| {
        let mut commands = program.commands.iter();
        let command = commands.find(|command| command.name == name);
        command.is_some_and(|command| {
            let mut arguments = command.command.positionals.iter();
            arguments.any(|argument| argument.name.contains("PATH") || argument.name == "FILE")
        })
    };
    let mut has_path = false;
    let lines = script.lines().map(|line| {
        if let Some(label) = bash_label(line) {
            has_path = takes_path(label);
        }
        let mut line = format!("{line}\n");
        if has_path {
            line = line.replace("${opts} ${cmds}", "${cmds}${cur:+ ${opts} }");
        }
        line
    });
    lines.collect()
}

/// `        ic_env)` begins a command's part; `        ic)` that of the program, whose name here is empty.
fn bash_label(line: &str) -> Option<&str> {
    let label = line.strip_prefix("        ic")?.strip_suffix(')')?;
    Some(label.trim_start_matches('_'))
}

/// A value of fixed words.
struct Choice {
    /// Empty for the options before the command.
    command: &'static str,
    /// The option, or nothing for the command's first argument.
    option: &'static str,
    words: String,
}

fn choices() -> [Choice; 4] {
    let choice = |command, option, words: &[&str]| Choice {
        command,
        option,
        words: words.join(" "),
    };
    [
        choice("", "--project-root", &["folder", "git"]),
        choice("env", "--shell", &["sh", "fish", "powershell"]),
        choice("snippet", "", &snippet::kinds()),
        choice("completions", "", &["bash", "zsh", "fish"]),
    ]
}

/// Puts every choice into a script, line by line: `place` is asked for each line what stands there instead.
fn with_words(
    script: &str,
    mut place: impl FnMut(&str, &Choice, &mut Section) -> Option<String>,
) -> String {
    let choices = choices();
    let mut sections: [Section; 5] = Default::default();
    let mut out = String::with_capacity(script.len() + 2048);
    for line in script.lines() {
        let mut line = line.to_owned();
        for (choice, section) in choices.iter().zip(&mut sections) {
            if let Some(other) = place(&line, choice, section) {
                line = other;
            }
        }
        out += &line;
        out.push('\n');
    }
    out
}

/// Where in a script the reader is.
#[derive(Default)]
struct Section {
    is_of_command: bool,
    /// The next line belongs to the option.
    is_of_option: bool,
}

/// `        ic_env)` begins a command's part, `                --shell)` an option's; what an option's offers is on the next
/// line, and the command's own words are those of `cmds`, which `opts` stands before.
fn bash(line: &str, choice: &Choice, section: &mut Section) -> Option<String> {
    let Choice {
        command,
        option,
        words,
    } = choice;
    let was_of_option = std::mem::take(&mut section.is_of_option);
    if let Some(label) = bash_label(line) {
        section.is_of_command = label == *command;
    }
    if !section.is_of_command {
        return None;
    }
    section.is_of_option = !option.is_empty() && line.trim() == format!("{option})");
    if was_of_option {
        let offer = format!("COMPREPLY=( $(compgen -W \"{words}\" -- \"${{cur}}\") )");
        return Some(line.replace("COMPREPLY=()", &offer));
    }
    (option.is_empty() && line.trim_start().starts_with("opts="))
        .then(|| format!("{line}\n            cmds=\"{words}\""))
}

/// `_ic_env() {` begins a command's function; `': :'` is any value, and `'1: :…'` its first argument.
fn zsh(line: &str, choice: &Choice, section: &mut Section) -> Option<String> {
    let Choice {
        command,
        option,
        words,
    } = choice;
    if let Some(function) = line
        .strip_prefix("_ic")
        .and_then(|rest| rest.strip_suffix("() {"))
    {
        section.is_of_command = function.trim_start_matches('_') == *command;
    }
    if !section.is_of_command {
        return None;
    }
    if option.is_empty() {
        return (line.trim() == "&& return 0")
            .then(|| format!("        '1: :({words})' '*: :_files -/' \\\n{line}"));
    }
    line.trim_start()
        .starts_with(&format!("'{option}["))
        .then(|| line.replace("': :'", &format!("': :({words})'")))
}

/// Each option is a line, `complete -c ic -n '__fish_ic_using_command env' -l shell -r …`; a command's own words get one more,
/// behind the line of `--help`, which every command has.
fn fish(line: &str, choice: &Choice, _: &mut Section) -> Option<String> {
    let Choice {
        command,
        option,
        words,
    } = choice;
    let condition = format!("__fish_ic_using_command {command}");
    let condition = condition.trim_end();
    let start = format!("complete -c ic -n '{condition}' ");
    let flags = line.strip_prefix(&start)?.trim_start_matches("-f ");
    if option.is_empty() {
        return flags
            .starts_with("-l help")
            .then(|| format!("{line}\n{start}-f -a '{words}'"));
    }
    flags
        .starts_with(&format!("-l {} ", option.trim_start_matches('-')))
        .then(|| format!("{line} -f -a '{words}'"))
}
