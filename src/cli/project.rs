//! `ic show`, `ic allocate`, `ic move` and `ic remove`: one project and its port.

use std::path::Path;

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use crate::registry::allocate::Allocated;
use crate::registry::project::Project;
use crate::registry::{Port, documents};

use super::address::{bad_port, no_port};
use super::check::is_expected;
use super::identity::namesake;
use super::kept;
use super::mapping::{command_for, warn_of_running};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line};
use crate::cli::port_state::{PortState, port_state};
use crate::text::{Escaped, escaped_path, name, raw};

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
        let format = Format::of(self.json, self.quiet)?;
        let handle = context.registry_handle()?;
        let named = context.named(self.path.as_deref())?;
        let registry = handle.read()?;
        let (project, port) = named.among(&registry)?;
        let note = port
            .map(|_| registry.note(project.path()))
            .unwrap_or_default();
        let settings = kept::settings_of(&registry, &project);
        match (format, port) {
            (Format::Json, port) => {
                let mut document = documents::noted(project.path(), port, note);
                document["settings"] = kept::document(&settings);
                context.out.json(&document)?;
            }
            (Format::Bare, Some(port)) => context.out.text(format_args!("{port}\n"))?,
            (Format::Text, Some(port)) => {
                print_project(context.out, &project, Some(port))?;
                if note.is_pinned {
                    context.out.text("Pinned:  Yes\n")?;
                }
                kept::print(context.out, &settings)?;
                match port_state(port) {
                    PortState::Free => context.out.text("Status:  Available\n")?,
                    PortState::InUse(holder) if is_expected(&holder) => {
                        context
                            .out
                            .text(format_args!("Status:  Served by {holder}\n"))?;
                    }
                    taken => context
                        .out
                        .text(format_args!("Status:  Not available ({taken})\n"))?,
                }
            }
            (Format::Bare | Format::Text, None) => {}
        }
        match port {
            Some(_) => Ok(Exit::Done),
            None => Err(no_port(&registry, &project)),
        }
    }
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
        let format = Format::of(self.json, self.quiet)?;
        let pinned = match (self.pin, self.unpin) {
            (true, true) => {
                return Err(Failure::usage(
                    "`--pin` and `--unpin` exclude each other; give one of them",
                ));
            }
            (false, false) => None,
            (pin, _) => Some(pin),
        };
        let handle = context.registry_handle()?;
        let project = context.project(self.path.as_deref())?;
        refuse_no_folder(project.path())?;
        let (Allocated { port, created }, registry) =
            handle.allocate(&project, |registry, _| {
                if let Some(pinned) = pinned {
                    registry.pin(&project, pinned);
                }
                registry.clone()
            })?;
        if created {
            note_if_missing(&project);
        }
        if let Some(why) = namesake(&registry, &project, None, &context.environment) {
            eprint_line(format_args!("warning: {why}"));
        }
        match format {
            Format::Json => {
                let mut document = documents::mapping(project.path(), port);
                document["created"] = json!(created);
                if let Some(pinned) = pinned {
                    document["pinned"] = json!(pinned);
                }
                context.out.json(&document)?;
            }
            Format::Bare => context.out.text(format_args!("{port}\n"))?,
            Format::Text => {
                print_project(context.out, &project, Some(port))?;
                context.out.text(if created {
                    "\n✓ Port allocated successfully\n"
                } else {
                    "\n✓ Port was allocated already\n"
                })?;
                match pinned {
                    Some(true) => context
                        .out
                        .text("✓ Pinned: `ic prune` keeps the mapping\n")?,
                    Some(false) => context.out.text("✓ Unpinned\n")?,
                    None => {}
                }
            }
        }
        bad_port(port, Some(&project)).iter().for_each(eprint_line);
        Ok(Exit::Done)
    }
}

/// Refuses a path that exists and is not a folder. A missing folder may still be created.
///
/// # Errors
///
/// Bad usage.
pub fn refuse_no_folder(path: &Path) -> Result<(), Failure> {
    let is_other = std::fs::metadata(path).is_ok_and(|found| !found.is_dir());
    if is_other {
        return Err(Failure::usage(format!(
            "`{}` is not a folder; give the project's folder",
            escaped_path(path)
        )));
    }
    Ok(())
}

/// Warns of a port that was allocated to a missing folder.
pub fn note_if_missing(project: &Project) {
    if !project.path().exists() {
        eprint_line(format_args!(
            "note: the folder `{}` does not exist; if that is a mistake, {} removes the mapping",
            escaped_path(project.path()),
            command_for("remove", project)
        ));
    }
}

/// give a project's port and settings to the folder that it was renamed or moved to
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "move",
    help_triggers("-h", "--help"),
    example = "mv ~/work/shop ~/work/store && ic move ~/work/shop ~/work/store",
    error_code(1, "OLD has no port, or NEW has another one")
)]
pub struct Move {
    /// the project's former folder, which need not exist
    #[argh(positional, arg_name = "OLD")]
    pub old: String,
    /// its folder now
    #[argh(positional, arg_name = "NEW")]
    pub new: String,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Move {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let handle = context.registry_handle()?;
        let (old, new) = (
            context.named(Some(&self.old))?,
            context.named(Some(&self.new))?,
        );
        let (from, to, moved) = handle.update(|registry| {
            let ((from, _), (to, _)) = (old.among(registry)?, new.among(registry)?);
            refuse_no_folder(to.path())?;
            let moved = registry.move_port(&from, &to);
            Ok::<_, Failure>((from, to, moved))
        })??;
        let port = match moved {
            Ok(Some(port)) => port,
            Ok(None) => return Err(no_mapping(&from)),
            Err(other) => {
                return Err(Failure::no(format!(
                    "`{}` has port {other} already; {} frees that, then move the other one",
                    escaped_path(to.path()),
                    command_for("remove", &to)
                )));
            }
        };
        note_if_missing(&to);
        if from != to {
            warn_of_running([(from.path(), port)]);
        }
        if self.json {
            let text = |project: &Project| raw::to_text(project.path().as_os_str());
            let document = json!({ "from": text(&from), "to": text(&to), "port": port });
            context.out.json(&document)?;
        } else {
            context.out.text(format_args!(
                "✓ Moved port {port} to project: {}\n  From: {}\n  To:   {}\n",
                Escaped(&name(to.path())),
                escaped_path(from.path()),
                escaped_path(to.path()),
            ))?;
        }
        Ok(Exit::Done)
    }
}

fn no_mapping(project: &Project) -> Failure {
    Failure::no(format!(
        "no port is assigned to `{}`; {} shows what is assigned",
        escaped_path(project.path()),
        command_for("list", None)
    ))
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
        let handle = context.registry_handle()?;
        let named = context.named(self.path.as_deref())?;
        let (project, removed) = handle.update(|registry| {
            let (project, port) = named.among(registry)?;
            registry.remove(&project);
            Ok::<_, Failure>((project, port))
        })??;
        if self.json {
            let mut document = documents::mapping(project.path(), removed);
            document["removed"] = json!(removed.is_some());
            context.out.json(&document)?;
        } else if removed.is_some() {
            context.out.text(format_args!(
                "✓ Removed port mapping for project: {}\n  Path: {}\n",
                Escaped(&name(project.path())),
                escaped_path(project.path())
            ))?;
        }
        warn_of_running(removed.map(|port| (project.path(), port)));
        match removed {
            Some(_) => Ok(Exit::Done),
            None => Err(no_mapping(&project)),
        }
    }
}

/// The output format.
enum Format {
    Text,
    Json,
    Bare,
}

impl Format {
    fn of(json: bool, quiet: bool) -> Result<Format, Failure> {
        match (json, quiet) {
            (false, false) => Ok(Format::Text),
            (true, false) => Ok(Format::Json),
            (false, true) => Ok(Format::Bare),
            (true, true) => Err(Failure::usage(
                "`--json` and `-q` exclude each other; give one of them",
            )),
        }
    }
}

/// Prints a project's name, its path and, if it has one, its port.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print_project(
    out: &mut Output,
    project: &Project,
    port: Option<Port>,
) -> Result<(), Failure> {
    out.text(format_args!(
        "Project: {}\nPath:    {}\n",
        Escaped(&name(project.path())),
        escaped_path(project.path()),
    ))?;
    match port {
        Some(port) => out.text(format_args!("Port:    {port}\n")),
        None => Ok(()),
    }
}
