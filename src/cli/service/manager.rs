//! What `ic service` asks of a service manager.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cli::outcome::Failure;
use crate::text::{Escaped, escaped_path, io_message};

/// A service manager of this user.
pub trait Manager {
    /// Its name, as JSON shows it.
    fn name(&self) -> &'static str;

    /// Where the file of the service goes.
    fn file(&self) -> PathBuf;

    /// The content of that file, for a service that is to run this.
    fn text(&self, definition: &Definition) -> String;

    /// Checks that it can be reached.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    fn check(&self) -> Result<(), String>;

    /// Reads anew what the user has set for all services.
    fn reload(&self);

    /// The value of a variable that it gives to every service.
    fn variable(&self, name: &str) -> Option<String>;

    /// Reads the file anew, and starts the service at each login from now on, but not yet.
    ///
    /// # Errors
    ///
    /// "Could not", with the manager's message.
    fn enable(&self) -> Result<(), Failure>;

    /// Starts the service, or starts it again, and waits until it serves.
    ///
    /// # Errors
    ///
    /// "Could not": it ends at once.
    fn restart(&self) -> Result<(), Failure>;

    /// Stops the service, and does not start it any more.
    ///
    /// # Errors
    ///
    /// "Could not", with the manager's message.
    fn disable(&self) -> Result<(), Failure>;

    /// Forgets a service whose file was removed.
    fn forget(&self);

    /// The service as the manager sees it.
    ///
    /// # Errors
    ///
    /// "Could not", with the manager's message.
    fn state(&self) -> Result<State, Failure>;

    /// The commands for the user.
    fn commands(&self) -> Commands;
}

/// What the service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables to set for it.
    pub variables: Vec<(&'static str, OsString)>,
    /// How long it may take to stop.
    pub stop_time: Duration,
}

/// A service as its manager sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The file that the manager has read; `None`: the service is not installed.
    pub file: Option<PathBuf>,
    /// Whether it starts at login.
    pub is_enabled: bool,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// The program that it starts, if the manager tells.
    pub program: Option<PathBuf>,
    /// Why it last ended, if it failed.
    pub last_failure: Option<String>,
    /// Whether the file was changed and not read anew.
    pub is_outdated: bool,
}

/// Commands that a message can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Starts the service.
    pub start: String,
    /// Starts it at login.
    pub enable: String,
    /// Reads a changed file anew.
    pub reload: String,
    /// Shows its log.
    pub log: String,
    /// How to give a variable to services, for use behind "the variable".
    pub set_variable: &'static str,
    /// How it runs without a login, if it does not yet.
    pub without_login: Option<String>,
}

/// Runs a program of the manager's; returns its standard output.
///
/// # Errors
///
/// What it has printed on standard error, as one line; or why it cannot be run.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no `{}`", escaped_path(&program)),
            _ => format!(
                "cannot run `{}`: {}",
                escaped_path(&program),
                io_message(&error)
            ),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Later lines only name commands.
    let said = said.lines().map(str::trim).find(|line| !line.is_empty());
    Err(match said {
        Some(said) => {
            let said = io_message(&io::Error::other(said.trim_end_matches('.')));
            Escaped(&said).to_string()
        }
        None => format!("`{}` ends with {}", escaped_path(&program), output.status),
    })
}

/// Changes the service through a program of the manager's.
///
/// # Errors
///
/// "Could not", naming the command line.
pub fn change(command: &mut Command) -> Result<(), Failure> {
    output_of(command).map(drop).map_err(|why| {
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        Failure::could_not(format!("`{}` failed: {why}", Escaped(&words.join(" "))))
    })
}

/// Is in every file that is written here.
pub const MARK: &str = "Written by `ic service install`, which replaces it";
