//! `ic completions`: scripts that complete command lines, made from argh's description of the commands.
//!
//! argh does not know which values an option or argument accepts; `choices` lists those with a fixed set of words.

use std::fmt::Write as _;
use std::iter;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs, Optionality};

use super::context::Context;
use super::help::{self, unescaped};
use super::outcome::{Exit, Failure};
use super::settings::SourcedValue;
use super::snippet;

/// print a shell completion script
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "completions",
    help_triggers("-h", "--help"),
    example = "source <(ic completions bash)                        in the current shell\n\
               ic completions bash >~/.local/share/bash-completion/completions/ic\n\
               ic completions zsh >\"${{fpath[1]}}/_ic\"\n\
               ic completions fish >~/.config/fish/completions/ic.fish"
)]
pub struct Completions {
    /// shell: bash, zsh or fish
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
            "bash" => bash(program),
            "zsh" => zsh(program),
            "fish" => fish(program),
            _ => {
                let given = SourcedValue::argument(&self.shell);
                return Err(given.refused("is not a shell that ic knows; give bash, zsh or fish"));
            }
        };
        context.out.text(script)?;
        Ok(Exit::Done)
    }
}

/// The words that `option` of `command` accepts, if they are a fixed set. An empty `command` is the program itself, an
/// empty `option` the first argument.
fn choices(command: &str, option: &str) -> String {
    match (command, option) {
        ("", "--project-root") => "folder git".to_owned(),
        ("env", "--shell") => "sh fish powershell dotenv".to_owned(),
        ("snippet", "") => snippet::kinds().join(" "),
        ("service", "") => "install uninstall status print".to_owned(),
        ("completions", "") => "bash zsh fish".to_owned(),
        _ => String::new(),
    }
}

/// The program under the name "", then each command under its own.
fn levels(
    program: &CommandInfoWithArgs,
) -> impl Iterator<Item = (&'static str, &CommandInfoWithArgs)> {
    let commands = program.commands.iter();
    iter::once(("", program)).chain(commands.map(|command| (command.name, &command.command)))
}

fn takes_value(flag: &FlagInfo<'_>) -> bool {
    matches!(flag.kind, FlagInfoKind::Option { .. })
}

/// The options of the program that take a value: the word behind one is not the command.
fn value_options(program: &CommandInfoWithArgs, separator: &str) -> String {
    let flags = program.flags.iter().filter(|flag| takes_value(flag));
    let names: Vec<&str> = flags.map(|flag| flag.long).collect();
    names.join(separator)
}

/// The spellings of an option: `--json`, `-q`.
fn spellings(flag: &FlagInfo<'_>) -> impl Iterator<Item = String> {
    let short = flag.short.map(|short| format!("-{short}"));
    iter::once(flag.long.to_owned()).chain(short)
}

fn takes_files(command: &CommandInfoWithArgs) -> bool {
    let mut positionals = command.positionals.iter();
    positionals.any(|positional| matches!(positional.name, "PATH" | "PORT|PATH" | "FILE" | "CMD"))
}

/// bash offers files where the script offers nothing (`-o default`). So where an argument is a file, options are offered
/// only for a word that has begun.
fn bash(program: &CommandInfoWithArgs) -> String {
    let (mut levels_of_words, mut values) = (String::new(), String::new());
    for (name, level) in levels(program) {
        let options = iter::once("--help").chain(help::options(level).map(|flag| flag.long));
        let options: Vec<&str> = options.collect();
        let words = if name.is_empty() {
            let commands = program.commands.iter().map(|command| command.name);
            commands.collect::<Vec<_>>().join(" ")
        } else {
            choices(name, "")
        };
        // Writing into a String cannot fail.
        let _ = writeln!(
            levels_of_words,
            "    '{name}') words='{words}' options='{}' files={} ;;",
            options.join(" "),
            if takes_files(level) { "yes" } else { "" },
        );
        for flag in help::options(level).filter(|flag| takes_value(flag)) {
            for option in spellings(flag) {
                let words = choices(name, flag.long);
                let _ = writeln!(values, "    '{name} {option}') words='{words}' options= ;;");
            }
        }
    }
    format!(
        r#"_ic() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command= words= options= files= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {with_value}) ((++i)) ;;
        -*) ;;
        *) command=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $command in
{levels_of_words}    esac
    [[ $command && COMP_CWORD -ne i+1 ]] && words=
    [[ $files && ! $current ]] && options=
    case "$command ${{COMP_WORDS[COMP_CWORD - 1]}}" in
{values}    esac
    COMPREPLY=($(compgen -W "$words $options" -- "$current"))
}}
complete -F _ic -o bashdefault -o default ic
"#,
        with_value = value_options(program, " | "),
    )
}

/// A function for each level, which gives its options and arguments to `_arguments`.
fn zsh(program: &CommandInfoWithArgs) -> String {
    let mut script = "#compdef ic\n".to_owned();
    for (name, level) in levels(program) {
        let (function, state) = if name.is_empty() {
            (
                "_ic".to_owned(),
                "    local curcontext=$curcontext state line\n",
            )
        } else {
            (format!("_ic_{name}"), "")
        };
        let _ = write!(script, "\n{function}() {{\n{state}    _arguments -C \\\n");
        for flag in level.flags.iter().filter(|flag| !flag.hidden) {
            let repeats = if flag.optionality == Optionality::Repeating {
                "*"
            } else {
                ""
            };
            let value = match (takes_value(flag), choices(name, flag.long)) {
                (false, _) => String::new(),
                (true, words) if words.is_empty() => ": :_files".to_owned(),
                (true, words) => format!(": :({words})"),
            };
            let description = quoted(flag.description, &['\\', '[', ']', ':']);
            for option in spellings(flag) {
                let _ = writeln!(
                    script,
                    "        '{repeats}{option}[{description}]{value}' \\"
                );
            }
        }
        let _ = writeln!(script, "        {}", zsh_arguments(name, level));
        if name.is_empty() {
            script.push_str("    local -a commands=(\n");
            for command in &program.commands {
                let description = quoted(command.command.description, &['\\', ':']);
                let _ = writeln!(script, "        '{}:{description}'", command.name);
            }
            script.push_str(
                "    )\n    case $state in\n    command) _describe command commands ;;\n    \
                 arguments) (( $+functions[_ic_$words[1]] )) && _ic_$words[1] ;;\n    esac\n",
            );
        }
        script.push_str("}\n");
    }
    // A file in `fpath` is run as the completion function itself.
    script
        + "\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then _ic \"$@\"; else compdef _ic ic; fi\n"
}

/// The arguments behind the options, as `_arguments` takes them.
fn zsh_arguments(name: &str, level: &CommandInfoWithArgs) -> String {
    let words = choices(name, "");
    let last = level.positionals.last();
    if name.is_empty() {
        "'1: :->command' '*:: :->arguments' && return".to_owned()
    } else if last.is_some_and(|last| last.optionality == Optionality::Greedy) {
        "'(-)1: :_command_names -e' '*:: :_normal'".to_owned()
    } else if !words.is_empty() {
        format!("'1: :({words})' '*: :_files'")
    } else if takes_files(level) {
        "'*: :_files'".to_owned()
    } else {
        "'*: :'".to_owned()
    }
}

/// A `complete` line for each option and command. `__ic_command_is NAME` is true behind that command, with an empty name
/// before any command.
fn fish(program: &CommandInfoWithArgs) -> String {
    let mut script = format!(
        r#"function __ic_command_is -a name
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case {with_value}
                set -e words[1]
            case '-*'
            case '*'
                test $words[1] = "$name"
                return
        end
        set -e words[1]
    end
    test -z "$name"
end
"#,
        with_value = value_options(program, " "),
    );
    for (name, level) in levels(program) {
        let start = format!("complete -c ic -n '__ic_command_is \"{name}\"'");
        if !takes_files(level) {
            let _ = writeln!(script, "{start} -f");
        }
        for flag in level.flags.iter().filter(|flag| !flag.hidden) {
            let short = flag
                .short
                .map_or(String::new(), |short| format!(" -s {short}"));
            let value = match (takes_value(flag), choices(name, flag.long)) {
                (false, _) => String::new(),
                (true, words) if words.is_empty() => " -r".to_owned(),
                (true, words) => format!(" -r -f -a '{words}'"),
            };
            let _ = writeln!(
                script,
                "{start} -l {}{short}{value} -d '{}'",
                flag.long.trim_start_matches('-'),
                quoted(flag.description, &['\\']),
            );
        }
        let words = choices(name, "");
        if !words.is_empty() {
            let _ = writeln!(script, "{start} -f -a '{words}'");
        }
    }
    for command in &program.commands {
        let description = quoted(command.command.description, &['\\']);
        let _ = writeln!(
            script,
            "complete -c ic -n '__ic_command_is \"\"' -f -a {} -d '{description}'",
            command.name
        );
    }
    script
}

/// A description for use inside single quotes, with a backslash before each of `special`.
fn quoted(description: &str, special: &[char]) -> String {
    let mut quoted = String::new();
    for character in unescaped(description).chars() {
        match character {
            // Ends the quotes, adds one, and begins them again.
            '\'' => quoted.push_str("'\\''"),
            _ if special.contains(&character) => quoted.extend(['\\', character]),
            _ => quoted.push(character),
        }
    }
    quoted
}
