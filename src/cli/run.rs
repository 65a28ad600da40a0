//! `ic run`: runs a program together with an interceptor, and sets the variables that point the program at it.
//!
//! Decided here: the port is bound before the program starts, and the interceptor ends with the program. Starting the
//! program, forwarding signals to it and waiting for it is decided in `child`, and how a second process of `ic` helps with that in
//! `guard`.

mod agents;
mod child;
mod fill;
mod guard;
mod interceptor;
mod options;
mod unused;

use std::net::SocketAddr;
use std::sync::LazyLock;

use argh::{
    ArgsInfo, CommandInfo, CommandInfoWithArgs, EarlyExit, FlagInfo, FlagInfoKind, FromArgs,
    Optionality, SubCommand,
};

use crate::serve::feed::OwnSocket;
use crate::serve::{Options, ServedBy, SiteOptions};

use self::agents::additions;
use self::child::Launcher;
use self::fill::filled;
pub(super) use self::guard::{NAME as GUARD, run as guard};
use self::interceptor::{Interceptor, STOP_SIGNALS, is_in_use};
use self::options::{note_others, refuse_others};
use self::unused::why_unused;
use super::address::{BaseUrls, mapping_of};
use super::env::variables;
use super::identity::instance_template;
use super::serve::{Prepared, Serve};
use super::settings::{Environment, SourcedValue, TARGET_URL};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::machine::interceptor::interceptor_at;
use crate::machine::survey::is_for;
use crate::text::{Escaped, io_message, raw};

/// `ic run`, with the options of `ic serve`. argh cannot include one command's options in another, so its traits are
/// implemented here with those of [`Serve`] and `Program`.
#[derive(Debug, PartialEq)]
pub struct Run {
    serve: Serve,
    /// The names of its options on the command line.
    given: Vec<String>,
    program: Program,
}

/// run a program together with an interceptor
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "run",
    help_triggers("-h", "--help"),
    example = "ic run -- claude\n\
               ic run -- codex\n\
               ic run -- my-agent --base-url {{v1}}\n\
               ic run --header 'x-branch: {{branch}}' -- aider --model openai/gpt-5\n\
               ic run --mock -- sh -c 'curl -s $OPENAI_BASE_URL/models'",
    note = "Sets the variables that `ic env` prints. In arguments, {{port}}, {{url}} (without /v1) and {{v1}}\n\
            (as OPENAI_BASE_URL) are filled in, and two opening braces in such an argument are one. codex,\n\
            copilot, opencode, qwen and goose also get the settings that they need; of others a line says\n\
            what is missing.\n\
            The program starts once the port is bound, and the interceptor stops when it ends. If an\n\
            interceptor already runs for the project on the port, the program uses that one; when it ends,\n\
            ic serves the port itself. Signals sent to ic are forwarded to the program, except those that\n\
            it gets itself because they are sent to the process group. If ic is killed, the program gets\n\
            SIGTERM, and SIGKILL five seconds later. Only errors are logged unless RUST_LOG is set.",
    error_code(
        2,
        "an option or a variable has an invalid value, or differs from the running interceptor's"
    ),
    error_code(3, "the interceptor cannot start; the program is not run"),
    error_code(126, "the program cannot be run, or its interpreter is missing"),
    error_code(
        127,
        "there is no such program; otherwise the program's own status, 128 + N for signal N"
    )
)]
struct Program {
    /// the program to run
    #[argh(positional, arg_name = "CMD")]
    name: String,
    /// its arguments, options included
    #[argh(positional, arg_name = "ARG", greedy)]
    arguments: Vec<String>,
}

impl Run {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        if self.serve.idle_exit.is_some() {
            return Err(Failure::usage(
                "`--idle-exit` is for `ic serve`; `ic run` ends with its program, leave it out",
            ));
        }
        if self.serve.all {
            return Err(Failure::usage(
                "`--all` is for `ic serve`; `ic run` runs a program in one project, leave it out",
            ));
        }
        if self.serve.listen.is_some() {
            return Err(Failure::usage(
                "`--listen` is for `ic serve`: the program needs a URL, and a Unix socket has none; leave it out",
            ));
        }
        let prepared = match self.serve.prepare(context, None, STOP_SIGNALS) {
            Ok(prepared) => Ok(prepared),
            // A field may need a variable that only that one has.
            Err(failure) => match self.running(context)? {
                Some(running) => {
                    log::debug!("the port cannot be served here: {failure}");
                    Err(running)
                }
                None => return Err(failure),
            },
        };
        let launcher = Launcher::new().map_err(|error| {
            Failure::could_not(format!("cannot receive signals: {}", io_message(&error)))
        })?;
        // The thread ends with the process and cannot remove the socket of its feed.
        let _feed = OwnSocket::before_start(context.feed_folder().as_deref());
        let (interceptor, prepared) = match prepared {
            Ok((prepared, options, mut site)) => {
                site.about.served_by = ServedBy::Run;
                let warnings = prepared.port_warnings(context);
                let interceptor = interceptor(&prepared, &options, &site, &self.given, context)?;
                warnings.iter().for_each(eprint_line);
                (interceptor, Some(prepared))
            }
            Err(address) => (Interceptor::join(address, None)?, None),
        };
        let (urls, environment) = (&interceptor.urls, &context.environment);
        let status = self.program.run(launcher, urls, environment)?;
        if interceptor.is_unused() {
            let project = prepared.as_ref().and_then(Prepared::project);
            eprint_line(why_unused(
                &self.program.name,
                &self.program.arguments,
                &urls.authority,
                project,
                environment,
            ));
        }
        if interceptor.is_own() {
            interceptor.finish();
            prepared.iter().for_each(Prepared::record_stop);
        }
        Ok(Exit::Status(status))
    }

    /// The address of the interceptor that runs for the project, for a run without options that one would have to follow.
    ///
    /// # Errors
    ///
    /// Bad usage: a variable has an invalid value, also one that would not be used.
    fn running(&self, context: &Context<'_>) -> Result<Option<SocketAddr>, Failure> {
        let mut given = self.given.iter();
        if !given.all(|option| ["--port", "--project"].contains(&&**option)) {
            return Ok(None);
        }
        let target = context.environment.variable(TARGET_URL);
        target.as_ref().map(SourcedValue::target).transpose()?;
        instance_template(&context.environment, None, None)?;
        Ok(self.address_of_running(context))
    }

    fn address_of_running(&self, context: &Context<'_>) -> Option<SocketAddr> {
        let path = self.serve.project.as_deref();
        let port = match &self.serve.port {
            Some(port) => port.parse().ok()?,
            None => mapping_of(context, path).ok()?.1,
        };
        let project = context.project(path).ok()?;
        let running = interceptor_at(port.get()).filter(|running| is_for(running, project.path()));
        running?.address
    }
}

impl Program {
    /// Runs it with what points it at the interceptor at these URLs; returns its status.
    ///
    /// # Errors
    ///
    /// As [`Launcher::run`].
    fn run(
        &self,
        launcher: Launcher,
        urls: &BaseUrls,
        environment: &Environment<'_>,
    ) -> Result<u8, Failure> {
        let arguments = self.arguments.iter().map(|it| filled(it, urls));
        let arguments: Vec<_> = arguments.collect();
        let added = additions(&self.name, &arguments, urls, environment);
        if let Some(note) = &added.note {
            eprint_line(format_args!("note: `{}` {note}", Escaped(&self.name)));
        }
        let variables = variables(urls, environment);
        let (of_launcher, own) = arguments.split_at(added.launcher_arguments);
        let arguments = of_launcher.iter().chain(&added.arguments).chain(own);
        launcher.run(
            &raw::from_text(&self.name),
            arguments.map(|it| raw::from_text(it)),
            variables.into_iter().chain(added.variables),
        )
    }
}

/// The interceptor that runs for the project on the same port, or else one of this process.
///
/// # Errors
///
/// As [`Prepared::failure`]; bad usage: an option of `given` differs from what the running one does.
fn interceptor(
    prepared: &Prepared,
    options: &Options,
    site: &SiteOptions,
    given: &[String],
    context: &Context<'_>,
) -> Result<Interceptor, Failure> {
    let mut attempts = 0;
    loop {
        let error = match Interceptor::start(options.clone(), site.clone())? {
            Ok(interceptor) => {
                prepared.record_start();
                return Ok(interceptor);
            }
            Err(error) => error,
        };
        attempts += 1;
        let port = prepared.port().filter(|_| is_in_use(&error));
        let running = port.and_then(|port| interceptor_at(port.get()));
        if let Some(running) = running.filter(|running| prepared.is_served_by(running))
            && let Some(address) = running.address
        {
            refuse_others(given, site, &running)?;
            note_others(given, site, &running, context);
            return Interceptor::join(address, Some((options.clone(), site.clone())));
        }
        // It may have ended meanwhile, or was slow to answer.
        if port.is_none() || attempts == ATTEMPTS_MAX {
            return Err(prepared.failure(&error));
        }
    }
}

const ATTEMPTS_MAX: usize = 2;

/// The options of `ic serve`. Those that are refused are not shown.
static FLAGS: LazyLock<Vec<FlagInfo<'static>>> = LazyLock::new(|| {
    let of_serve = Serve::get_args_info().flags.iter();
    // argh's types cannot be cloned.
    let flags = of_serve.map(|flag| FlagInfo {
        kind: match flag.kind {
            FlagInfoKind::Switch => FlagInfoKind::Switch,
            FlagInfoKind::Option { arg_name } => FlagInfoKind::Option { arg_name },
        },
        optionality: match flag.optionality {
            Optionality::Required => Optionality::Required,
            Optionality::Optional => Optionality::Optional,
            Optionality::Repeating => Optionality::Repeating,
            Optionality::Greedy => Optionality::Greedy,
        },
        hidden: flag.hidden || REFUSED.contains(&flag.long),
        ..*flag
    });
    flags.collect()
});

/// The options of `ic serve` that are refused.
const REFUSED: [&str; 4] = ["--all", "--listen", "--listen-mode", "--idle-exit"];

impl FromArgs for Run {
    fn from_args(command_name: &[&str], words: &[&str]) -> Result<Run, EarlyExit> {
        let (options, given, command) = split(words);
        Ok(Run {
            serve: Serve::from_args(command_name, options)?,
            given,
            program: Program::from_args(command_name, &[&["--"], command].concat())?,
        })
    }
}

/// Splits `words` into the options, the names among them, and the program's command line; `--` may stand between.
fn split<'a>(words: &'a [&'a str]) -> (&'a [&'a str], Vec<String>, &'a [&'a str]) {
    let flags = Serve::get_args_info().flags;
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if *word == "--" {
            return (&words[..at], names, &words[at + 1..]);
        }
        if !word.starts_with('-') {
            break;
        }
        let has_value = flags
            .iter()
            .any(|flag| flag.long == *word && matches!(flag.kind, FlagInfoKind::Option { .. }));
        names.push((*word).to_owned());
        at += 1 + usize::from(has_value);
    }
    let (options, command) = words.split_at(at.min(words.len()));
    (options, names, command)
}

impl SubCommand for Run {
    const COMMAND: &'static CommandInfo = Program::COMMAND;
}

impl ArgsInfo for Run {
    fn get_args_info() -> CommandInfoWithArgs {
        CommandInfoWithArgs {
            flags: &FLAGS,
            ..Program::get_args_info()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_the_programs_command_line_begins() {
        #[track_caller]
        fn check(words: &[&str], options: usize, command: &[&str]) {
            let (given, names, rest) = split(words);
            assert_eq!((given, rest), (&words[..options], command));
            // `--` is the value of an option.
            let named = given
                .iter()
                .filter(|word| word.starts_with("--") && **word != "--");
            assert!(named.eq(names.iter()));
        }
        check(&["--", "a", "--b", "--"], 0, &["a", "--b", "--"]);
        check(&["a", "--mock", "--", "b"], 0, &["a", "--mock", "--", "b"]);
        check(&["--mock", "a"], 1, &["a"]);
        check(&["--port", "9000", "--mock", "--", "a"], 3, &["a"]);
        check(&["--instance-id", "--", "--", "a"], 2, &["a"]); // the value of an option
        check(&["--header", "a: b", "\x002d", "c"], 2, &["\x002d", "c"]); // `-`
        check(&["--mock"], 1, &[]);
        check(&["--"], 0, &[]);
        check(&[], 0, &[]);
    }
}
