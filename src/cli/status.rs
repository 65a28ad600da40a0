//! `ic status`: which interceptors run, what they have done, and who else holds the ports of projects.
//!
//! How they are found is decided in `survey`; here, how the answer is written.

use std::path::Path;
use std::thread;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::Port;

use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line, rounded};
use crate::machine::holder::{Holder, LastError, NOT_TOLD};
use crate::machine::survey::{By, Held, Interceptor, Survey, survey};
use crate::text::raw;
use crate::text::{Escaped, escaped_path, name};

/// show which interceptors run, and who else holds ports of projects
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    example = "ic status\n\
               ic status --watch\n\
               ic status --json | jq .interceptors",
    note = "Every interceptor on this machine is escaped_path, also those that were given their port outright\n\
            (INTERCEPTOR_PORT, --port). With --watch --json each look is one document on its line."
)]
pub struct Status {
    /// look again every two seconds
    #[argh(switch)]
    pub watch: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Status {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let place = context.place()?;
        let mut has_warned = false;
        loop {
            let survey = survey(&place.read()?);
            if survey.is_partial && !has_warned {
                has_warned = true;
                eprint_line(format_args!(
                    "warning: {}; only the ports of projects were asked",
                    NOT_TOLD
                ));
            }
            let is_screen = self.watch && !self.json && context.out.clear(&context.environment)?;
            if self.json {
                context.out.json(&Statuses::from(&survey))?;
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
    for Interceptor {
        port,
        identity,
        target_reachable,
    } in interceptors
    {
        let (project, path) = match &identity.project {
            Some(path) => (project_name(path), path.as_str()),
            None => (identity.instance_id.clone(), "(no project)"),
        };
        out.text(format_args!(
            "  Port {port:>5}          ✓  →  {project}\n             {path}\n\
             \x20            Target:    {target} ({reachable})\n\
             \x20            Running:   for {uptime}, pid {pid}\n\
             \x20            Requests:  {requests}, {errors} of them failed, {in_flight} in flight\n",
            port = port.get(),
            project = Escaped(&project),
            path = Escaped(path),
            target = Escaped(&identity.target),
            reachable = if *target_reachable {
                "✓ reachable"
            } else {
                "⚠ NOT REACHABLE"
            },
            uptime = rounded(Duration::try_from_secs_f64(identity.uptime_seconds).unwrap_or_default()),
            pid = identity.pid,
            requests = identity.requests,
            errors = identity.errors,
            in_flight = identity.in_flight,
        ))?;
        if let Some(LastError {
            message,
            seconds_ago,
        }) = &identity.last_error
        {
            out.text(format_args!(
                "             Last error, {} ago: {}\n",
                rounded(Duration::from_secs(*seconds_ago)),
                Escaped(message),
            ))?;
        }
    }
    if !held.is_empty() {
        out.text("\n")?;
        heading(out, "Ports of Projects in Use by Others", held.len())?;
    }
    for Held { port, path, by } in held {
        let by = match by {
            By::Interceptor { pid, instance_id } => {
                format!("the interceptor {instance_id}, pid {pid}")
            }
            By::Program(Some(Holder { pid, program })) => format!("{program}, pid {pid}"),
            By::Program(None) => "a program that cannot be seen from here".to_owned(),
        };
        out.text(format_args!(
            "  Port {port:>5}    ⚠ IN USE  →  {project}\n             {path}\n             Held by:   {by}\n",
            port = port.get(),
            project = Escaped(&name(path)),
            path = escaped_path(path),
            by = Escaped(&by),
        ))?;
    }
    Ok(())
}

fn heading(out: &mut Output, title: &str, count: usize) -> Result<(), Failure> {
    out.text(format_args!("{title} ({count}):\n{}\n", "-".repeat(WIDTH)))
}

/// The name of the project under a path that came as text.
fn project_name(path: &str) -> String {
    name(Path::new(&raw::from_text(path)))
}

/// The answer as a document.
#[derive(Serialize)]
pub(crate) struct Statuses<'a> {
    interceptors: Vec<Running<'a>>,
    held: Vec<HeldBy<'a>>,
}

#[derive(Serialize)]
struct Running<'a> {
    port: Port,
    project: Option<String>,
    path: Option<&'a str>,
    instance_id: &'a str,
    pid: u32,
    uptime_seconds: u64,
    target: &'a str,
    target_reachable: bool,
    requests: u64,
    errors: u64,
    in_flight: u64,
    last_error: Option<&'a LastError>,
}

#[derive(Serialize)]
struct HeldBy<'a> {
    port: Port,
    project: String,
    path: String,
    /// Null where it cannot be seen.
    pid: Option<u32>,
    program: Option<&'a str>,
    /// Of the interceptor that it is; null for any other program.
    instance_id: Option<&'a str>,
}

impl<'a> From<&'a Survey> for Statuses<'a> {
    fn from(survey: &'a Survey) -> Statuses<'a> {
        Statuses {
            interceptors: survey.interceptors.iter().map(Running::from).collect(),
            held: survey.held.iter().map(HeldBy::from).collect(),
        }
    }
}

impl<'a> From<&'a Interceptor> for Running<'a> {
    fn from(interceptor: &'a Interceptor) -> Running<'a> {
        let identity = &interceptor.identity;
        let path = identity.project.as_deref();
        Running {
            port: interceptor.port,
            project: path.map(project_name),
            path,
            instance_id: &identity.instance_id,
            pid: identity.pid,
            // Whole seconds; what is no number is none.
            uptime_seconds: identity.uptime_seconds as u64,
            target: &identity.target,
            target_reachable: interceptor.target_reachable,
            requests: identity.requests,
            errors: identity.errors,
            in_flight: identity.in_flight,
            last_error: identity.last_error.as_ref(),
        }
    }
}

impl<'a> From<&'a Held> for HeldBy<'a> {
    fn from(held: &'a Held) -> HeldBy<'a> {
        let (pid, program, instance_id) = match &held.by {
            By::Interceptor { pid, instance_id } => (Some(*pid), None, Some(instance_id.as_str())),
            By::Program(Some(holder)) => (Some(holder.pid), Some(holder.program.as_str()), None),
            By::Program(None) => (None, None, None),
        };
        HeldBy {
            port: held.port,
            project: name(&held.path),
            path: raw::to_text(held.path.as_os_str()),
            pid,
            program,
            instance_id,
        }
    }
}

/// Columns of the rule below a heading.
const WIDTH: usize = 80;

/// Between two looks: soon enough to follow what happens, seldom enough to cost nothing.
const PAUSE: Duration = Duration::from_secs(2);
