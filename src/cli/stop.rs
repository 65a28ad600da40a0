//! `ic stop`: ends the interceptor of a project, or `ic serve --all`, and waits for its end.
//!
//! What is stopped is found as `ic status` finds it, and only an interceptor of this user counts. The process that serves all
//! projects of a registry is the one that has the [claim](crate::registry::store::Store::claim) to it: another registry may
//! have the same projects on the same ports.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};

use super::mapping::command_for;
use super::settings::PORT;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line};
use crate::machine::feeds::publishers_for;
use crate::machine::interceptor::Identity;
use crate::machine::process::{ask_to_end, has_ended};
use crate::machine::survey::{interceptors_for, running_on};
use crate::registry::project::Project;
use crate::registry::store::{Claim, Store};
use crate::serve::ServedBy;
use crate::text::{Escaped, escaped_path, io_message, name};

/// stop this project's interceptor, or the one of all projects
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "stop",
    help_triggers("-h", "--help"),
    example = "ic stop\n\
               ic stop ~/work/shop\n\
               ic stop --all",
    note = "Sends SIGTERM and waits until the interceptor has ended: requests in flight may finish within its\n\
            --grace. The program of an `ic run` gets SIGTERM as well.",
    error_code(1, "no interceptor runs"),
    error_code(3, "it does not end, or only `ic serve --all` serves the project")
)]
pub struct Stop {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// stop `ic serve --all` of this registry, and no other interceptor
    #[argh(switch)]
    pub all: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Stop {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let found = match (self.all, &self.path) {
            (true, Some(_)) => {
                return Err(Failure::usage(
                    "`--all` stops the interceptor of all projects; give `--all` or PATH",
                ));
            }
            (true, None) => of_all(context),
            (false, path) => of_project(context, path.as_deref()),
        };
        let processes = match found {
            Ok(processes) => processes,
            Err(failure) => {
                if self.json && failure.exit == Exit::No {
                    context.out.json(&document(&[]))?;
                }
                return Err(failure);
            }
        };
        let asked: Vec<io::Result<()>> = processes
            .iter()
            .map(|process| ask_to_end(process.pid))
            .collect();
        let mut stopped = Vec::new();
        let mut outcome = Ok(Exit::Done);
        for (process, asked) in processes.into_iter().zip(asked) {
            match asked.map_err(|error| process.refused(&error)) {
                Ok(()) if process.waits_for_end() => stopped.push(process),
                Ok(()) => outcome = Err(process.goes_on()),
                Err(failure) => outcome = Err(failure),
            }
        }
        if self.json {
            context.out.json(&document(&stopped))?;
        } else {
            for process in &stopped {
                process.print(context.out)?;
            }
        }
        outcome
    }
}

/// A process that is to be stopped.
struct Running {
    pid: u32,
    served_by: ServedBy,
    /// The name of its project.
    project: String,
    /// The ports that it listens on, of the project or of all.
    ports: Vec<u16>,
    /// How long it waits for requests in flight.
    grace: Duration,
}

impl Running {
    fn new(pid: u32, served_by: ServedBy, project: &Path) -> Running {
        Running {
            pid,
            served_by,
            project: name(project),
            ports: Vec::new(),
            grace: GRACE,
        }
    }

    fn add(&mut self, port: u16, identity: &Identity) {
        self.ports.push(port);
        self.grace = identity.grace().unwrap_or(GRACE);
    }

    /// Waits until the process has ended; false if it does not in time.
    fn waits_for_end(&self) -> bool {
        let (start, time_max) = (Instant::now(), self.end_time_max());
        let mut has_said = false;
        while !has_ended(self.pid) {
            let waited = start.elapsed();
            if waited > time_max {
                return false;
            }
            if !has_said && waited > NOTICE_AFTER {
                has_said = true;
                let what = match self.served_by {
                    ServedBy::Run => "its program to end".to_owned(),
                    _ => format!(
                        "its requests in flight to end; `kill {}` cuts them",
                        self.pid
                    ),
                };
                eprint_line(format_args!(
                    "waiting for `{}` (pid {}) and {what}",
                    self.served_by, self.pid
                ));
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    fn end_time_max(&self) -> Duration {
        self.grace.saturating_add(END_TIME_MAX)
    }

    fn refused(&self, error: &io::Error) -> Failure {
        Failure::could_not(format!(
            "cannot stop `{}` (pid {}): {}; stop it as the user who started it",
            self.served_by,
            self.pid,
            io_message(error)
        ))
    }

    fn goes_on(&self) -> Failure {
        Failure::could_not(format!(
            "`{}` (pid {}) has not ended after {} s; `kill -KILL {}` ends it at once, with all its requests",
            self.served_by,
            self.pid,
            self.end_time_max().as_secs(),
            self.pid
        ))
    }

    fn print(&self, out: &mut Output) -> Result<(), Failure> {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let what = match (self.served_by, ports.len()) {
            (ServedBy::All, 1) => "1 project".to_owned(),
            (ServedBy::All, count) => format!("{count} projects"),
            _ => format!("project: {}", Escaped(&self.project)),
        };
        out.text(format_args!(
            "✓ Stopped the interceptor of {what}\n  Process: {} ({})\n",
            self.pid, self.served_by
        ))?;
        match (self.served_by, &*ports) {
            (ServedBy::All, _) | (_, []) => Ok(()),
            (_, ports) => out.text(format_args!("  Port:    {}\n", ports.join(", "))),
        }
    }
}

/// `{"stopped":[{"port","pid"}]}`, an element for each port; null for a process without one.
fn document(stopped: &[Running]) -> Value {
    let elements = stopped.iter().flat_map(|process| {
        let pid = process.pid;
        let mut ports: Vec<Value> = process.ports.iter().map(|&port| json!(port)).collect();
        if ports.is_empty() {
            ports.push(Value::Null);
        }
        ports
            .into_iter()
            .map(move |port| json!({ "port": port, "pid": pid }))
    });
    json!({ "stopped": elements.collect::<Vec<Value>>() })
}

/// The project's own interceptors, at least one.
///
/// # Errors
///
/// "No": none runs; "could not": only `ic serve --all` serves the project.
fn of_project(context: &Context<'_>, path: Option<&str>) -> Result<Vec<Running>, Failure> {
    let variable = context.environment.variable(PORT);
    let ports: Vec<u16> = match variable.filter(|_| path.is_none()) {
        Some(given) => vec![given.port()?.get()],
        None => {
            let (_, registry) = context.ports()?;
            registry.mappings().map(|(_, port)| port.get()).collect()
        }
    };
    let project = context.project(path)?;
    let mut of_all = None;
    let mut processes = BTreeMap::new();
    for (port, identity) in interceptors_for(project.path(), ports.into_iter()) {
        match identity.served_by {
            ServedBy::All => of_all = Some(identity.pid),
            by => processes
                .entry(identity.pid)
                .or_insert_with(|| Running::new(identity.pid, by, project.path()))
                .add(port, &identity),
        }
    }
    // On a Unix socket, or on a port that the system does not list.
    if let Some(folder) = context.feed_folder() {
        for pid in publishers_for(&folder, project.path()) {
            let running = || Running::new(pid, ServedBy::Serve, project.path());
            processes.entry(pid).or_insert_with(running);
        }
    }
    match of_all {
        _ if !processes.is_empty() => Ok(processes.into_values().collect()),
        Some(pid) => Err(Failure::could_not(format!(
            "this project is served by `ic serve --all` (pid {pid}) together with the others; `ic stop --all` stops it \
             for all projects"
        ))),
        None => Err(none_runs(&project)),
    }
}

fn none_runs(project: &Project) -> Failure {
    Failure::no(format!(
        "no interceptor runs for `{}`; {} starts one, `ic status` shows those that run",
        escaped_path(project.path()),
        command_for("serve", project)
    ))
}

/// The process that serves all projects of the registry.
///
/// # Errors
///
/// "No": none runs; "could not": it is not a process of this machine, or the registry cannot be read.
fn of_all(context: &Context<'_>) -> Result<Vec<Running>, Failure> {
    let handle = context.registry_handle()?;
    let claimed = handle.store.claimed_by();
    let registry = handle.read()?;
    let ports = registry.mappings().map(|(path, port)| (path, port.get()));
    let mut served = running_on(ports);
    served.retain(|(_, _, identity)| identity.served_by == ServedBy::All);
    let first = served.first().map(|(_, _, identity)| identity.pid);
    let pid = match (claimed, first) {
        (Some(pid), _) => pid,
        (None, Some(pid)) => unclaimed(&handle.store, pid)?,
        (None, None) => return Err(none_of_all()),
    };
    let mut process = Running::new(pid, ServedBy::All, Path::new(""));
    served
        .iter()
        .filter(|(_, _, identity)| identity.pid == pid)
        .for_each(|(_, port, identity)| process.add(*port, identity));
    Ok(vec![process])
}

/// The process `pid`, which serves all projects of a registry, if it may be that of this one: it has no claim where the
/// registry's folder cannot be written.
fn unclaimed(store: &Store, pid: u32) -> Result<u32, Failure> {
    match store.claim() {
        Err(_) => Ok(pid),
        Ok(Claim::HeldBy(Some(holder))) if holder == pid => Ok(pid),
        // Another one may be another `ic stop --all`, which has the claim for a moment.
        Ok(Claim::Ours(_) | Claim::HeldBy(Some(_))) => Err(none_of_all()),
        Ok(Claim::HeldBy(None)) => Err(Failure::could_not(
            "`ic serve --all` runs in another container or on another machine; stop it there",
        )),
    }
}

fn none_of_all() -> Failure {
    Failure::no("`ic serve --all` does not run for this registry; `ic status` shows what runs")
}

/// The default of `--grace`, for interceptors that do not answer.
const GRACE: Duration = Duration::from_secs(10);

/// After its grace, an interceptor ends within 1.5 s.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// A user notices a wait of this length.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(10);
