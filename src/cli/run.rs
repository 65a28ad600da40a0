//! `ic run`: runs a program together with an interceptor, and sets the variables that point the program at it.
//!
//! Decided here: the port is bound before the program starts, and the interceptor ends with the program. Starting the
//! program, forwarding signals to it and waiting for it is decided in `child`, and how a second process of `ic` helps with that in
//! `guard`.

mod child;
mod guard;

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use argh::{
    ArgsInfo, CommandInfo, CommandInfoWithArgs, EarlyExit, FlagInfoKind, FromArgs, SubCommand,
};

use crate::serve::feed::OwnSocket;
use crate::serve::{self, Address, Event, Options, ServedBy, SiteOptions};

use self::child::Launcher;
pub(super) use self::guard::{NAME as GUARD, run as guard};
use super::env::variables;
use super::serve::{Prepared, Serve};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::text::io_message;
use crate::text::raw;

/// `ic run`, with every option of `ic serve`. argh cannot include one command's options in another, so its traits are
/// implemented here with those of [`Serve`] and `Program`.
#[derive(Debug, PartialEq)]
pub struct Run {
    serve: Serve,
    program: Program,
}

/// run a program together with an interceptor
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "run",
    help_triggers("-h", "--help"),
    example = "ic run -- claude\n\
               ic run --header 'x-branch: {{branch}}' -- aider --model openai/gpt-5\n\
               ic run --mock -- sh -c 'curl -s $OPENAI_BASE_URL/models'",
    note = "Sets the variables that `ic env` prints. The program starts once the port is bound, and the\n\
            interceptor stops when it ends. Signals sent to ic are forwarded to it, except those that it\n\
            gets itself because they are sent to the process group. If ic is killed, the program gets\n\
            SIGTERM, and SIGKILL five seconds later. The options are those of `ic serve`. Only errors are\n\
            logged unless RUST_LOG is set.",
    error_code(2, "an option or a variable has an invalid value"),
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
        let (prepared, options, mut site) = self.serve.prepare(context, None, &[])?;
        site.about.served_by = ServedBy::Run;
        let launcher = Launcher::new().map_err(|error| {
            Failure::could_not(format!("cannot receive signals: {}", io_message(&error)))
        })?;
        // The thread ends with the process and cannot remove the socket of its feed.
        let _feed = OwnSocket::before_start(options.feed.as_deref());
        let warnings = prepared.port_warnings(context);
        let authority = start(&prepared, options, site)?;
        warnings.iter().for_each(eprint_line);
        let Program { name, arguments } = &self.program;
        let arguments = arguments.iter().map(|word| raw::from_text(word));
        let variables = variables(&authority, &context.environment);
        let status = launcher.run(&raw::from_text(name), arguments, variables)?;
        prepared.record_stop();
        Ok(Exit::Status(status))
    }
}

/// Starts the interceptor in a thread that ends with the process. Returns the authority for clients once it listens.
///
/// # Errors
///
/// As [`Prepared::failure`].
fn start(prepared: &Prepared, options: Options, site: SiteOptions) -> Result<String, Failure> {
    let (sender, receiver) = mpsc::channel();
    let ready = sender.clone();
    thread::Builder::new()
        .name("interceptor".to_owned())
        .spawn(move || {
            let ended = serve::run(options, site, &mut |event| {
                if let Event::Listening(addresses) = event {
                    let addresses: Vec<_> = addresses.iter().filter_map(Address::tcp).collect();
                    let _ = ready.send(Ok(authority(&addresses)));
                }
            });
            // After the start there is no receiver, and the error is printed.
            if let Err(error) = ended
                && let Err(unsent) = sender.send(Err(error))
                && let Err(error) = unsent.0
            {
                eprint_line(format_args!("the interceptor has stopped: {error}"));
            }
        })
        .map_err(|error| {
            Failure::could_not(format!(
                "cannot start a thread: {}; try again",
                io_message(&error)
            ))
        })?;
    match receiver.recv() {
        Ok(Ok(authority)) => {
            prepared.record_start();
            Ok(authority)
        }
        Ok(Err(error)) => Err(prepared.failure(&error)),
        Err(mpsc::RecvError) => Err(Failure::could_not(
            "the interceptor has stopped at its start; please report this",
        )),
    }
}

/// The host and port at which the program reaches an interceptor on `addresses`.
fn authority(addresses: &[SocketAddr]) -> String {
    let is_local =
        |address: &SocketAddr| address.ip().is_unspecified() || LOOPBACK.contains(&address.ip());
    match addresses.first() {
        Some(first) if addresses.iter().any(is_local) => format!("localhost:{}", first.port()),
        Some(first) => first.to_string(),
        None => String::new(),
    }
}

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
];

impl FromArgs for Run {
    fn from_args(command_name: &[&str], words: &[&str]) -> Result<Run, EarlyExit> {
        let (options, command) = split(words);
        Ok(Run {
            serve: Serve::from_args(command_name, options)?,
            program: Program::from_args(command_name, &[&["--"], command].concat())?,
        })
    }
}

/// Splits `words` into the options and the program's command line; `--` may stand between.
fn split<'a>(words: &'a [&'a str]) -> (&'a [&'a str], &'a [&'a str]) {
    let flags = Serve::get_args_info().flags;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if *word == "--" {
            return (&words[..at], &words[at + 1..]);
        }
        if !word.starts_with('-') {
            break;
        }
        let has_value = flags
            .iter()
            .any(|flag| flag.long == *word && matches!(flag.kind, FlagInfoKind::Option { .. }));
        at += 1 + usize::from(has_value);
    }
    words.split_at(at.min(words.len()))
}

impl SubCommand for Run {
    const COMMAND: &'static CommandInfo = Program::COMMAND;
}

impl ArgsInfo for Run {
    fn get_args_info() -> CommandInfoWithArgs {
        CommandInfoWithArgs {
            flags: Serve::get_args_info().flags,
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
            assert_eq!(split(words), (&words[..options], command));
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

    #[test]
    fn the_authority_is_one_that_the_interceptor_listens_on() {
        #[track_caller]
        fn check(addresses: &[&str], expected: &str) {
            let addresses: Vec<SocketAddr> = addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect();
            assert_eq!(authority(&addresses), expected);
        }
        check(&["127.0.0.1:80", "[::1]:80"], "localhost:80");
        check(&["[::1]:80"], "localhost:80");
        check(&["0.0.0.0:80"], "localhost:80");
        check(&["[::]:80"], "localhost:80");
        check(&["127.0.0.2:80"], "127.0.0.2:80"); // `localhost` is another address
        check(&["10.0.0.1:80"], "10.0.0.1:80");
        check(&["[fd00::1]:80"], "[fd00::1]:80");
    }
}
