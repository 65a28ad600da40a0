//! `ic service`: has `ic serve --all` started at login by the service manager of the user.
//!
//! Decided here: the order of the steps, and what the user sees. What the service runs is decided in `definition`; `manager` says
//! what a service manager has to do, which `systemd` and `launchd` do through their own programs.

mod absent;
mod definition;
mod launchd;
pub(super) mod manager;
mod program;
mod systemd;
mod warnings;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use self::launchd::Launchd;
use self::manager::{Definition, MARK, Manager, State};
use self::systemd::Systemd;
use super::serve::Serve;
use super::settings::{Environment, PORT, SourcedValue};
use crate::cli::context::{Context, Globals};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::registry::project::home_folder;
use crate::registry::store::{StoreError, replace_file};
use crate::text::{escaped_path, io_message};

/// start `ic serve --all` at login, as a service of systemd or launchd
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "service",
    help_triggers("-h", "--help"),
    example = "ic service install\n\
               ic service install -- --target http://localhost:4000\n\
               ic service status\n\
               ic service print -- --mock >ic.service",
    note = "ACTION is one of:\n\
            \x20 install    write the unit of systemd, or on macOS the agent of launchd; start it now and at each\n\
            \x20            login; again: replace the options, and restart it\n\
            \x20 uninstall  stop it and remove the file; nothing to remove is no error\n\
            \x20 status     show whether it is installed, starts at login and runs, and what is wrong\n\
            \x20 print      show the file; nothing is changed, and no service manager is needed\n\
            OPTION is an option of `ic serve --all`. The registry and the range of ports in effect, and\n\
            TARGET_LLM_URL, SUPERMEMORY_USERNAME, SSL_CERT_FILE and SSL_CERT_DIR, if they are set, are kept in\n\
            the file. The service does not know other variables of this shell.",
    error_code(1, "status: it is not installed, or does not run"),
    error_code(2, "an option has an invalid value"),
    error_code(3, "there is no service manager, or it has failed")
)]
pub struct Service {
    /// install, uninstall, status or print
    #[argh(positional, arg_name = "ACTION")]
    pub action: String,
    /// for install and print: options of `ic serve --all`, behind `--`
    #[argh(positional, arg_name = "-- OPTION")]
    pub options: Vec<String>,
    /// with status: print one JSON document
    #[argh(switch)]
    pub json: bool,
}

/// OPTIONS as `ic serve --all` reads them: the global ones, and those of the command.
pub struct ServeLine {
    /// The global options: those among OPTIONS, else those before them.
    pub globals: Globals,
    /// The options of the command.
    pub serve: Serve,
}

/// Reads the arguments of `ic serve`, as the program does: `None` if they ask for help, which is then printed.
pub type Parse<'a> =
    &'a dyn Fn(Vec<String>, &mut Context<'_>) -> Result<Option<ServeLine>, Failure>;

impl Service {
    pub(super) fn run(self, parse: Parse<'_>, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let action = SourcedValue::argument(&self.action);
        let takes_options = matches!(self.action.as_str(), "install" | "print");
        if let Some(option) = self.options.first().filter(|_| !takes_options) {
            return Err(Failure::usage(format!(
                "unexpected argument `{option}` for `ic service {}`; see `ic service --help`",
                self.action
            )));
        }
        if self.json && self.action != "status" {
            return Err(Failure::usage(
                "`--json` is for `ic service status`; leave it out",
            ));
        }
        let home = || home_folder().ok_or(StoreError::NoHome);
        match self.action.as_str() {
            "status" => status(
                &*manager(&context.environment, &home()?),
                self.json,
                context,
            ),
            "uninstall" => uninstall(&*manager(&context.environment, &home()?), context),
            "install" | "print" => {
                let manager = manager(&context.environment, &home()?);
                let Some(line) = parse(self.options.clone(), context)? else {
                    return Ok(Exit::Done);
                };
                if self.action == "install" {
                    manager.reload();
                }
                let new = Installation::new(&self.options, line, &*manager, context)?;
                match self.action.as_str() {
                    "print" => new.print(context),
                    _ => new.install(context),
                }
            }
            _ => Err(action.refused("is no action; give install, uninstall, status or print")),
        }
    }
}

/// The service manager of this system.
fn manager(environment: &Environment<'_>, home: &Path) -> Box<dyn Manager> {
    // `ic_portable` has on Linux what other systems have.
    if cfg!(any(target_os = "macos", ic_portable)) {
        Box::new(Launchd::new(home))
    } else {
        Box::new(Systemd::new(environment, home))
    }
}

/// The manager of a service that is installed and does not run.
#[cfg(feature = "ui")]
pub(super) fn stopped(environment: &Environment<'_>) -> Option<Box<dyn Manager>> {
    let manager = manager(environment, &home_folder()?);
    let state = manager.state().ok()?;
    (state.file.is_some() && state.pid.is_none()).then_some(manager)
}

/// A service that is to be installed, or shown.
struct Installation<'a> {
    line: ServeLine,
    definition: Definition,
    manager: &'a dyn Manager,
}

impl<'a> Installation<'a> {
    /// Checks the options as `ic serve --all` does, with the environment that the service will have.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable.
    fn new(
        options: &[String],
        line: ServeLine,
        manager: &'a dyn Manager,
        context: &Context<'_>,
    ) -> Result<Installation<'a>, Failure> {
        let shell = &context.environment;
        let of_service = |name: &str| match name {
            // The service does not get it.
            PORT => None,
            _ => (shell.0)(name)
                .filter(|value| !value.is_empty())
                .or_else(|| manager.variable(name).map(Into::into)),
        };
        let of_service = Environment(&of_service);
        line.globals.registry_handle(&of_service)?;
        let grace = line.serve.check_all(&of_service)?;
        let definition = definition::definition(options, &context.globals, shell, grace)?;
        Ok(Installation {
            line,
            definition,
            manager,
        })
    }

    fn print(self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        context.out.text(self.manager.text(&self.definition))?;
        self.warn();
        let file = self.manager.file();
        eprint_line(format_args!(
            "`ic service install` writes this to `{}`, and starts it",
            escaped_path(&file)
        ));
        Ok(Exit::Done)
    }

    fn install(self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let manager = self.manager;
        manager.check().map_err(|why| {
            let instead = absent::instead(&context.environment, Some(&self.definition));
            Failure::could_not(format!("{why}; {instead}"))
        })?;
        warnings::refuse_missing_variables(&self.line.serve, manager)?;
        let handle = self.line.globals.registry_handle(&context.environment)?;
        let before = manager.state()?;
        self.write()?;
        manager.enable()?;
        let by_hand = handle
            .store
            .claimed_by()
            .filter(|pid| before.pid != Some(*pid));
        if by_hand.is_none() {
            manager.restart()?;
        }
        let pid = manager.state()?.pid;
        let commands = manager.commands();
        let now = match pid {
            Some(pid) => format!("runs (pid {pid}) and starts at login"),
            None => "starts at login".to_owned(),
        };
        context.out.text(format_args!(
            "✓ Service installed: ic serve --all {now}\n  File: {file}\n  Log:  {log}\n",
            file = escaped_path(&manager.file()),
            log = commands.log,
        ))?;
        self.warn();
        // That of a registry that cannot be read is a matter of the service.
        if let Ok(loaded) = handle.store.read() {
            let (serve, environment) = (&self.line.serve, &context.environment);
            warnings::missing_variables(serve, &loaded.registry, environment, manager)
                .iter()
                .for_each(eprint_line);
        }
        if let Some(pid) = by_hand {
            eprint_line(format_args!(
                "another `ic serve --all` runs (pid {pid}), so the service is not started yet; `ic stop --all && {}` \
                 switches over",
                commands.start
            ));
        }
        if let Some(without_login) = commands.without_login {
            eprint_line(without_login);
        }
        Ok(Exit::Done)
    }

    fn warn(&self) {
        let warnings = warnings::secrets(&self.line.serve);
        let of_program = program::warning(&self.definition.program);
        warnings.iter().chain(&of_program).for_each(eprint_line);
    }

    /// Writes the file.
    fn write(&self) -> Result<(), Failure> {
        let file = self.manager.file();
        refuse_foreign(&file)?;
        let text = self.manager.text(&self.definition);
        let folder = file.parent().unwrap_or(&file);
        fs::create_dir_all(folder)
            .and_then(|()| replace_file(&file, text.as_bytes()))
            .map_err(|error| {
                Failure::could_not(format!(
                    "cannot write `{}`: {}; `ic service print` shows its content",
                    escaped_path(&file),
                    io_message(&error)
                ))
            })
    }
}

/// Refuses to replace or remove a file that was not written here.
fn refuse_foreign(file: &Path) -> Result<(), Failure> {
    let why = match fs::read_to_string(file) {
        Ok(text) if text.contains(MARK) => return Ok(()),
        Err(error) if is_missing(&error) => return Ok(()),
        // A link to `/dev/null`.
        Ok(text) if text.is_empty() => "is masked or empty",
        Ok(_) => "was not written by `ic service install`",
        Err(_) => "cannot be read",
    };
    Err(Failure::could_not(format!(
        "`{}` {why}; move it away first",
        escaped_path(file)
    )))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn uninstall(manager: &dyn Manager, context: &mut Context<'_>) -> Result<Exit, Failure> {
    let file = manager.file();
    check(manager, context)?;
    let state = manager.state()?;
    if state.file.is_none() && fs::symlink_metadata(&file).is_err() {
        context.out.text("The service is not installed\n")?;
        return Ok(Exit::Done);
    }
    refuse_foreign(&file)?;
    manager.disable()?;
    if let Err(error) = fs::remove_file(&file)
        && !is_missing(&error)
    {
        return Err(Failure::could_not(format!(
            "the service is stopped, and does not start any more, but `{}` cannot be removed: {}; remove it",
            escaped_path(&file),
            io_message(&error)
        )));
    }
    manager.forget();
    context
        .out
        .text(format_args!("✓ Service removed: {}\n", escaped_path(&file)))?;
    Ok(Exit::Done)
}

/// Checks that the manager can be reached.
fn check(manager: &dyn Manager, context: &Context<'_>) -> Result<(), Failure> {
    manager.check().map_err(|why| {
        let instead = absent::instead(&context.environment, None);
        Failure::could_not(format!("{why}; {instead}"))
    })
}

fn status(manager: &dyn Manager, json: bool, context: &mut Context<'_>) -> Result<Exit, Failure> {
    let checked = check(manager, context);
    let state = match checked {
        Ok(()) => manager.state()?,
        Err(_) => State::default(),
    };
    let is_running = state.pid.is_some();
    let file = state.file.clone().unwrap_or_else(|| manager.file());
    if json {
        context.out.json(&json!({
            "manager": checked.is_ok().then(|| manager.name()),
            "installed": state.file.is_some(),
            "enabled": state.is_enabled,
            "running": is_running,
            "pid": state.pid,
            "unit": state.file.as_ref().map(|file| crate::text::raw::to_text(file.as_os_str())),
        }))?;
    }
    checked?;
    if !json {
        print_state(&state, &file, manager, context)?;
    }
    problems(&state, manager, context)
        .iter()
        .for_each(eprint_line);
    match state.file {
        None => Err(Failure::no(
            "the service is not installed; `ic service install` installs it",
        )),
        Some(_) if !is_running => Ok(Exit::No),
        Some(_) => Ok(Exit::Done),
    }
}

fn print_state(
    state: &State,
    file: &Path,
    manager: &dyn Manager,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    if state.file.is_none() {
        return Ok(());
    }
    let running = match state.pid {
        Some(pid) => format!("yes, pid {pid}"),
        None => "no".to_owned(),
    };
    context.out.text(format_args!(
        "Manager:   {}\nFile:      {}\nAt login:  {}\nRunning:   {running}\nLog:       {}\n",
        manager.name(),
        escaped_path(file),
        if state.is_enabled { "yes" } else { "no" },
        manager.commands().log,
    ))
}

/// What is wrong with an installed service, each with the way out.
fn problems(state: &State, manager: &dyn Manager, context: &Context<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if state.file.is_none() {
        return problems;
    }
    let commands = manager.commands();
    let handle = context.registry_handle().ok();
    let other = handle.and_then(|handle| handle.store.claimed_by());
    let other = other.filter(|pid| state.pid != Some(*pid));
    let program: Option<&PathBuf> = state.program.as_ref();
    if let Some(gone) = program.filter(|program| !program.exists()) {
        problems.push(format!(
            "the service starts `{}`, which does not exist; `ic service install` lets it start this `ic`",
            escaped_path(gone)
        ));
    }
    if let Some(pid) = other {
        problems.push(format!(
            "another `ic serve --all` runs (pid {pid}), which was not started by the service; `ic stop --all && {}` switches \
             over",
            commands.start
        ));
    } else if let (None, Some(why)) = (state.pid, &state.last_failure) {
        problems.push(format!(
            "the service has failed: {why}; `{}` shows more",
            commands.log
        ));
    } else if state.pid.is_none() {
        problems.push(format!(
            "the service does not run; `{}` starts it",
            commands.start
        ));
    }
    if !state.is_enabled {
        problems.push(format!(
            "the service does not start at login; `{}` changes that",
            commands.enable
        ));
    }
    if state.is_outdated {
        problems.push(format!(
            "the file was changed since the manager has read it; `{}` reads it",
            commands.reload
        ));
    }
    problems
}
