//! `ic status`: the interceptors that run, their counters, and what else listens on the ports of projects.
//!
//! How they are found is decided in [`survey`](crate::machine::survey); here, how they are shown.

use std::path::Path;
use std::thread;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line, rounded};
use crate::machine::listeners::UNAVAILABLE;
use crate::machine::survey::{Held, Running, Survey, survey};
use crate::text::raw;
use crate::text::{Escaped, escaped_path, io_message};

/// show running interceptors, and other programs on ports of projects
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    example = "ic status\n\
               ic status --watch\n\
               ic status --json | jq .interceptors",
    note = "Shows every interceptor of this user on this machine, including those started with --port or\n\
            INTERCEPTOR_PORT. A program of another user is never shown as one, whatever it answers.\n\
            With --watch --json each refresh prints one document on one line."
)]
pub struct Status {
    /// refresh every two seconds
    #[argh(switch)]
    pub watch: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Status {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let handle = context.registry_handle()?;
        let mut has_warned = false;
        loop {
            let registry = handle.read()?;
            let projects = registry.mappings().map(|(path, port)| (path, port.get()));
            let survey = survey(projects).map_err(|error| {
                Failure::could_not(format!(
                    "cannot ask interceptors who they are: {}",
                    io_message(&error)
                ))
            })?;
            if survey.is_partial && !has_warned {
                has_warned = true;
                eprint_line(format_args!(
                    "warning: {UNAVAILABLE}; only the ports of projects are looked at"
                ));
            }
            let is_screen = self.watch && !self.json && context.out.clear(&context.environment)?;
            if self.json {
                context.out.json(&survey)?;
            } else {
                print(&survey, context.out)?;
            }
            if !self.watch {
                return Ok(Exit::Done);
            }
            if !self.json && !is_screen {
                context.out.text("\n")?;
            }
            if !context.out.show()? {
                return Ok(Exit::Done);
            }
            thread::sleep(PAUSE);
        }
    }
}

fn print(survey: &Survey, out: &mut Output) -> Result<(), Failure> {
    let Survey {
        interceptors, held, ..
    } = survey;
    if interceptors.is_empty() {
        out.text("No interceptor is running.\n")?;
    } else {
        heading(out, "Running Interceptors", interceptors.len())?;
    }
    for running in interceptors {
        print_running(running, out)?;
    }
    if !held.is_empty() {
        out.text("\n")?;
        heading(out, "Ports of Projects in Use by Others", held.len())?;
    }
    for held in held {
        print_held(held, out)?;
    }
    Ok(())
}

fn print_running(running: &Running, out: &mut Output) -> Result<(), Failure> {
    let identity = &running.identity;
    let (project, path) = match (&running.project, &running.path) {
        (Some(project), Some(path)) => (project.as_str(), path.as_str()),
        _ => (identity.instance_id.as_str(), "(no project)"),
    };
    out.text(format_args!(
        "  Port {port:>5}          ✓  →  {project}\n             {path}\n\
         \x20            Target:    {target} ({reachable}{insecure})\n\
         \x20            Running:   for {uptime}, pid {pid} ({served_by})\n\
         \x20            Requests:  {requests}, {errors} of them failed, {in_flight} in flight\n",
        port = running.port,
        project = Escaped(project),
        path = Escaped(path),
        target = Escaped(&identity.target),
        reachable = if running.target_reachable {
            "✓ reachable"
        } else {
            "⚠ NOT REACHABLE"
        },
        insecure = if identity.insecure {
            "; ⚠ certificate not verified: --insecure"
        } else {
            ""
        },
        uptime = rounded(Duration::from_secs(identity.uptime_seconds)),
        pid = identity.pid,
        served_by = identity.served_by,
        requests = identity.requests,
        errors = identity.errors,
        in_flight = identity.in_flight,
    ))?;
    if let Some(error) = &identity.last_error {
        out.text(format_args!(
            "             Last error, {} ago: {}\n",
            rounded(Duration::from_secs(error.seconds_ago)),
            Escaped(&error.message),
        ))?;
    }
    Ok(())
}

fn print_held(held: &Held, out: &mut Output) -> Result<(), Failure> {
    let by = match (held.pid, &held.instance_id, &held.program) {
        (Some(pid), Some(instance_id), _) => format!("the interceptor {instance_id}, pid {pid}"),
        (Some(pid), None, Some(program)) => format!("{program}, pid {pid}"),
        _ if held.other_user.is_some() => "a program".to_owned(),
        _ => "a program that this user may not see".to_owned(),
    };
    let of = held
        .other_user
        .map(|uid| format!(" of another user (uid {uid})"));
    out.text(format_args!(
        "  Port {port:>5}    ⚠ IN USE  →  {project}\n             {path}\n             Held by:   {by}{of}\n",
        port = held.port,
        project = Escaped(&held.project),
        path = escaped_path(Path::new(&raw::from_text(&held.path))),
        by = Escaped(&by),
        of = of.unwrap_or_default(),
    ))
}

fn heading(out: &mut Output, title: &str, count: usize) -> Result<(), Failure> {
    out.text(format_args!("{title} ({count}):\n{}\n", "-".repeat(WIDTH)))
}

/// Columns of the rule below a heading.
const WIDTH: usize = 80;

/// Between two surveys: short enough to follow what happens, long enough to cost little.
const PAUSE: Duration = Duration::from_secs(2);
