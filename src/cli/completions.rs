//! `ic completions`: scripts that complete command lines, from argh's own description of them.

use argh::{ArgsInfo, FromArgs};
use argh_complete::Generator;
use argh_complete::bash::Bash;
use argh_complete::fish::Fish;
use argh_complete::zsh::Zsh;

use super::help::unescaped;
use super::settings::Given;
use super::{CommandLine, Context, Exit, Failure, arguments};

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
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let program = arguments::description::<CommandLine>();
        let script = match self.shell.as_str() {
            "bash" => Bash::generate(program.name, &program),
            "zsh" => Zsh::generate(program.name, &program),
            // `-x` is of fish 4; the older name of the same is understood by all.
            "fish" => Fish::generate(program.name, &program)
                .replace("commandline -xpc", "commandline -opc"),
            _ => {
                let given = Given::argument(&self.shell);
                return Err(given.refused("is not a shell that ic knows; give bash, zsh or fish"));
            }
        };
        context.out.text(unescaped(&script))?;
        Ok(Exit::Done)
    }
}
