//! The command line: parses the arguments and runs the command.
//!
//! Only this module knows both halves of the program, and only it prints results. The rules of ports and of requests are
//! decided in [`registry`](crate::registry) and [`serve`](crate::serve).
//!
//! All commands read options and variables before they open anything. Results go to standard output, everything else to
//! standard error, errors as lines that begin with `ic: `. The exit code is an [`Exit`].

pub mod address;
pub mod arguments;
pub mod check;
pub mod completions;
pub mod context;
pub mod doctor;
pub mod env;
pub mod field;
pub mod health;
pub mod help;
pub mod identity;
pub mod kept;
pub mod list;
pub mod logging;
pub mod man;
mod mapping;
pub mod mock;
pub mod outcome;
pub mod output;
mod placeholders;
pub mod port_state;
pub mod project;
pub mod prune;
pub mod reset;
pub mod run;
pub mod serve;
pub mod service;
pub mod set;
pub mod settings;
pub mod signals;
pub mod snippet;
pub mod status;
pub mod stop;
mod systemd_unit;
pub mod table;
pub mod tail;
pub mod template;
pub mod terminal;
pub mod transfer;
pub mod ui;

use std::ffi::OsString;

use argh::{ArgsInfo, FromArgs};

use self::arguments::Parsed;
use self::context::{Context, Globals};
use self::outcome::{Exit, Failure};
use self::settings::Environment;
use self::terminal::Terminal;
use crate::cli::output::{Output, eprint_line};
use crate::text::raw;

/// One port for each project, and a transparent HTTP/1.1 forwarder on it.
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    help_triggers("-h", "--help"),
    example = "ic allocate        assign a port to the current folder\n\
               ic list            show all assigned ports\n\
               ic list --help     show the options of a command",
    note = "Environment variables, used where the option is missing: PORT_REGISTRY_PATH,\n\
            INTERCEPTOR_PORT_MIN, INTERCEPTOR_PORT_MAX, INTERCEPTOR_PROJECT_ROOT.",
    error_code(0, "success; the answer is yes"),
    error_code(1, "the answer is no; not found"),
    error_code(2, "invalid arguments or values"),
    error_code(3, "the operation failed")
)]
pub struct CommandLine {
    /// registry file; default: ~/.config/litellm/port_registry.json
    #[argh(option, arg_name = "FILE")]
    registry: Option<String>,
    /// lowest port of the allocation range; default: 8888
    #[argh(option, arg_name = "N")]
    port_min: Option<String>,
    /// highest port of the allocation range; default: 9999
    #[argh(option, arg_name = "N")]
    port_max: Option<String>,
    /// project if no PATH is given: `folder` (the current folder) or `git` (its repository); default: folder
    #[argh(option, arg_name = "KIND")]
    project_root: Option<String>,
    /// print the version
    #[argh(switch, short = 'V')]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand)]
enum Command {
    List(list::List),
    Show(project::Show),
    Allocate(project::Allocate),
    Remove(project::Remove),
    Move(project::Move),
    Set(set::Set),
    Check(check::Check),
    Suggest(check::Suggest),
    Status(status::Status),
    Tail(tail::Tail),
    Ui(ui::Ui),
    Prune(prune::Prune),
    Export(transfer::Export),
    Import(transfer::Import),
    Reset(reset::Reset),
    Serve(serve::Serve),
    Run(run::Run),
    Stop(stop::Stop),
    Service(service::Service),
    Health(health::Health),
    Doctor(doctor::Doctor),
    Env(env::Env),
    Snippet(snippet::Snippet),
    Mock(mock::Mock),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// The log filter if `RUST_LOG` is not set.
    fn log_filter(&self) -> &'static str {
        match self {
            // The terminal belongs to the program that is run; errors of doctor's interceptor are part of its result.
            Command::Run(_) | Command::Doctor(_) => "error",
            _ => "info",
        }
    }
}

/// Runs the command in `arguments`, which do not include the program's name, and prints its errors.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let mut arguments = arguments.into_iter().peekable();
    // Not a command: `ic run` starts it.
    if arguments.next_if(|word| word == run::GUARD).is_some() {
        return run::guard();
    }
    let mut out = Output::standard();
    let outcome = run_command(arguments, &mut out);
    // After a failure too, since output before it is part of the result. An output error wins over the answer no.
    out.finish().and(outcome).unwrap_or_else(|failure| {
        eprint_line(&failure);
        failure.exit
    })
}

fn run_command(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let line = match arguments::parse::<CommandLine>(arguments).map_err(Failure::usage)? {
        Parsed::Help(command) => {
            out.text(help_for(command, Terminal::of_output(&ENVIRONMENT)))?;
            return Ok(Exit::Done);
        }
        Parsed::Command(line) => line,
    };
    if line.version {
        out.text(format_args!("ic {}\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(Exit::Done);
    }
    let Some(command) = line.command else {
        // Help that was not requested is not a result.
        output::eprint_text(&help_for(None, Terminal::of_errors(&ENVIRONMENT)));
        return Ok(Exit::BadUsage);
    };
    let mut context = Context {
        globals: Globals {
            registry: line.registry,
            port_min: line.port_min,
            port_max: line.port_max,
            project_root: line.project_root,
        },
        environment: ENVIRONMENT,
        out,
    };
    mapping::suggest_with_registry(context.globals.registry.as_deref());
    logging::start(&context.environment, command.log_filter());
    command.run(&mut context)
}

/// The help of a command, or of the whole program, for `terminal`.
fn help_for(command: Option<&str>, terminal: Option<Terminal>) -> String {
    let columns = terminal.map_or(usize::MAX, |terminal| terminal.columns);
    let columns = columns.clamp(HELP_COLUMNS.0, HELP_COLUMNS.1);
    arguments::help::<CommandLine>(command, columns)
}

/// Longer lines are hard to read; in shorter ones the descriptions of options have no room.
const HELP_COLUMNS: (usize, usize) = (40, 100);

/// That of the process.
const ENVIRONMENT: Environment<'static> = Environment(&|name| std::env::var_os(name));

impl Command {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let description = arguments::description::<CommandLine>;
        match self {
            Command::List(list) => list.run(context),
            Command::Show(show) => show.run(context),
            Command::Allocate(allocate) => allocate.run(context),
            Command::Remove(remove) => remove.run(context),
            Command::Move(moving) => moving.run(context),
            Command::Set(set) => set.run(context),
            Command::Check(check) => check.run(context),
            Command::Suggest(suggest) => suggest.run(context),
            Command::Status(status) => status.run(context),
            Command::Tail(tail) => tail.run(context),
            Command::Ui(ui) => ui.run(context),
            Command::Prune(prune) => prune.run(context),
            Command::Export(export) => export.run(context),
            Command::Import(import) => import.run(context),
            Command::Reset(reset) => reset.run(context),
            Command::Serve(serve) => serve.run(context),
            Command::Run(run) => run.run(context),
            Command::Stop(stop) => stop.run(context),
            Command::Service(service) => service.run(&serve_line, context),
            Command::Health(health) => health.run(context),
            Command::Doctor(doctor) => doctor.run(context),
            Command::Env(env) => env.run(context),
            Command::Snippet(snippet) => snippet.run(context),
            Command::Mock(mock) => mock.run(),
            Command::Completions(completions) => completions.run(&description(), context),
            Command::Man(man) => man.run(&description(), context),
        }
    }
}

/// Reads the arguments of `ic serve`, for the service that is to run it; `None` if they ask for help, which is printed.
fn serve_line(
    options: Vec<String>,
    context: &mut Context<'_>,
) -> Result<Option<service::ServeLine>, Failure> {
    let command = ["serve", "--all"].map(OsString::from);
    let options = options.iter().map(|word| raw::from_text(word));
    let words = command.into_iter().chain(options);
    let line = match arguments::parse::<CommandLine>(words).map_err(Failure::usage)? {
        Parsed::Help(command) => {
            let terminal = Terminal::of_output(&context.environment);
            context.out.text(help_for(command, terminal))?;
            return Ok(None);
        }
        Parsed::Command(line) => line,
    };
    let before = &context.globals;
    let or = |behind: Option<String>, before: &Option<String>| behind.or_else(|| before.clone());
    let Some(Command::Serve(serve)) = line.command else {
        return Err(Failure::usage(
            "give options of `ic serve --all` behind `--`",
        ));
    };
    Ok(Some(service::ServeLine {
        globals: Globals {
            registry: or(line.registry, &before.registry),
            port_min: or(line.port_min, &before.port_min),
            port_max: or(line.port_max, &before.port_max),
            project_root: or(line.project_root, &before.project_root),
        },
        serve,
    }))
}
