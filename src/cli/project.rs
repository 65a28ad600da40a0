//! `ic show`, `ic allocate` and `ic remove`: one project and its port.

use std::path::Path;

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::registry::Port;
use crate::registry::probe::{Availability, availability};
use crate::registry::project::Project;

use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line};
use crate::cli::port_state::{PortState, port_state};
use crate::text::raw;
use crate::text::{Escaped, escaped_path, name};

/// show the port of a project
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "show",
    help_triggers("-h", "--help"),
    example = "curl \"http://localhost:$(ic show -q)/v1/models\"",
    error_code(1, "the project has no port")
)]
pub struct Show {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
    /// print only the port number
    #[argh(switch, short = 'q')]
    pub quiet: bool,
}

impl Show {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let form = Form::of(self.json, self.quiet)?;
        let place = context.place()?;
        let named = context.named(self.path.as_deref())?;
        let registry = place.read()?;
        let (project, port) = named.among(&registry)?;
        let is_pinned = port.is_some() && registry.note(project.path()).is_pinned;
        match (form, port) {
            (Form::Json, port) => context.out.json(&Shows {
                project: name(project.path()),
                path: raw::to_text(project.path().as_os_str()),
                port,
                available: port.map(|port| availability(port) == Availability::Free),
                pinned: is_pinned,
            })?,
            (Form::Bare, Some(port)) => context.out.text(format_args!("{port}\n"))?,
            (Form::Text, Some(port)) => {
                print(context.out, &project, port)?;
                if is_pinned {
                    context.out.text("Pinned:  Yes\n")?;
                }
                match port_state(port) {
                    PortState::Free => context.out.text("Status:  Available\n")?,
                    taken => context
                        .out
                        .text(format_args!("Status:  Not available ({taken})\n"))?,
                }
            }
            (Form::Bare | Form::Text, None) => {}
        }
        match port {
            Some(_) => Ok(Exit::Done),
            None => Err(Failure::no(format!(
                "no port is assigned to `{}`; `ic allocate` assigns one",
                escaped_path(project.path())
            ))),
        }
    }
}

#[derive(Serialize)]
struct Shows {
    project: String,
    path: String,
    port: Option<Port>,
    /// Null as well when there is no port.
    available: Option<bool>,
    /// Only where it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
}

/// assign a port to a project, or show the one it has
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "allocate",
    help_triggers("-h", "--help"),
    example = "ic allocate\n\
               ic allocate ~/work/shop -q",
    error_code(3, "no port of the range is left, or the registry cannot be written")
)]
pub struct Allocate {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
    /// print only the port number
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// pin the port: `ic prune` keeps it
    #[argh(switch)]
    pub pin: bool,
    /// unpin: `ic prune` may remove it again
    #[argh(switch)]
    pub unpin: bool,
}

impl Allocate {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let form = Form::of(self.json, self.quiet)?;
        let pinned = match (self.pin, self.unpin) {
            (true, true) => {
                return Err(Failure::usage(
                    "`--pin` and `--unpin` contradict each other; give one of them",
                ));
            }
            (false, false) => None,
            (pin, _) => Some(pin),
        };
        let place = context.place()?;
        let project = context.project(self.path.as_deref())?;
        refuse_no_folder(project.path())?;
        let allocated = place.allocate_and(&project, |registry, _| {
            if let Some(pinned) = pinned {
                registry.pin(&project, pinned);
            }
        })?;
        let (port, created) = (allocated.port, allocated.created);
        if created {
            note_if_missing(&project);
        }
        match form {
            Form::Json => context.out.json(&Allocates {
                project: name(project.path()),
                path: raw::to_text(project.path().as_os_str()),
                port,
                created,
                pinned,
            })?,
            Form::Bare => context.out.text(format_args!("{port}\n"))?,
            Form::Text => {
                print(context.out, &project, port)?;
                context.out.text(if created {
                    "\n✓ Port allocated successfully\n"
                } else {
                    "\n✓ Port was allocated already\n"
                })?;
                match pinned {
                    Some(true) => context.out.text("✓ Pinned: `ic prune` leaves it alone\n")?,
                    Some(false) => context.out.text("✓ Not pinned any more\n")?,
                    None => {}
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// Refuses what is there and no folder: a mapping for it would be a slip. What is not there may still come.
///
/// # Errors
///
/// Bad usage.
pub fn refuse_no_folder(path: &Path) -> Result<(), Failure> {
    let is_other = std::fs::metadata(path).is_ok_and(|found| !found.is_dir());
    if is_other {
        return Err(Failure::usage(format!(
            "`{}` is no folder; give the project's folder",
            escaped_path(path)
        )));
    }
    Ok(())
}

/// Says so where a port was given to a folder that is not there.
pub fn note_if_missing(project: &Project) {
    if !project.path().exists() {
        eprint_line(format_args!(
            "note: there is no folder `{}` yet; if that is a slip, `ic remove` takes the port back",
            escaped_path(project.path())
        ));
    }
}

#[derive(Serialize)]
struct Allocates {
    project: String,
    path: String,
    port: Port,
    created: bool,
    /// Only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<bool>,
}

/// remove the mapping of a project, which frees its port
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "remove",
    help_triggers("-h", "--help"),
    example = "ic remove\n\
               ic remove ~/work/deleted-project",
    error_code(1, "the project has no port")
)]
pub struct Remove {
    /// the project's folder, which need not exist; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Remove {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let place = context.place()?;
        let named = context.named(self.path.as_deref())?;
        let (project, removed) = place.update(|registry| {
            let (project, port) = named.among(registry)?;
            registry.remove(&project);
            Ok::<_, Failure>((project, port))
        })??;
        if self.json {
            context.out.json(&Removes {
                project: name(project.path()),
                path: raw::to_text(project.path().as_os_str()),
                port: removed,
                removed: removed.is_some(),
            })?;
        } else if removed.is_some() {
            context.out.text(format_args!(
                "✓ Removed port mapping for project: {}\n  Path: {}\n",
                Escaped(&name(project.path())),
                escaped_path(project.path())
            ))?;
        }
        match removed {
            Some(_) => Ok(Exit::Done),
            None => Err(Failure::no(format!(
                "no port is assigned to `{}`; `ic list` shows what is assigned",
                escaped_path(project.path())
            ))),
        }
    }
}

#[derive(Serialize)]
struct Removes {
    project: String,
    path: String,
    port: Option<Port>,
    removed: bool,
}

/// How the answer is written.
enum Form {
    Text,
    Json,
    Bare,
}

impl Form {
    fn of(json: bool, quiet: bool) -> Result<Form, Failure> {
        match (json, quiet) {
            (false, false) => Ok(Form::Text),
            (true, false) => Ok(Form::Json),
            (false, true) => Ok(Form::Bare),
            (true, true) => Err(Failure::usage(
                "`--json` and `-q` are two forms of one answer; give one of them",
            )),
        }
    }
}

fn print(out: &mut Output, project: &Project, port: Port) -> Result<(), Failure> {
    out.text(format_args!(
        "Project: {}\nPath:    {}\nPort:    {port}\n",
        Escaped(&name(project.path())),
        escaped_path(project.path()),
    ))
}
