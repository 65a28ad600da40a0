//! How the commands print a mapping, and name a command for it.

use std::path::Path;
use std::sync::OnceLock;

use super::env::shell;
use super::outcome::Failure;
use super::output::{Output, eprint_line};
use crate::machine::survey::staying_on;
use crate::registry::{Port, Project, Registry};
use crate::text::{Escaped, escaped_path, name, raw};

/// Prints a mapping in two lines, with the reason why it is listed.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print_mapping(
    out: &mut Output,
    path: &Path,
    port: Port,
    reason: &str,
) -> Result<(), Failure> {
    out.text(format_args!(
        "  Port {port:>5}  →  {project} ({reason})\n             {path}\n",
        port = port.get(),
        project = Escaped(&name(path)),
        path = escaped_path(path),
    ))
}

/// The value of `--registry`: a command that is suggested needs it too. Kept here because errors name commands everywhere.
static REGISTRY: OnceLock<String> = OnceLock::new();

/// Puts `--registry` into the commands that are suggested from now on.
pub fn suggest_with_registry(option: Option<&str>) {
    if let Some(file) = option {
        // Set once in a process, which runs one command.
        let _ = REGISTRY.set(file.to_owned());
    }
}

/// A command in backticks, with the path of the project as its argument; without it if there is no project, or if that is the
/// current folder.
pub fn command_for<'a>(command: &str, project: impl Into<Option<&'a Project>>) -> String {
    let registry = REGISTRY
        .get()
        .map(|file| format!("--registry {} ", shell::word(file)));
    let registry = registry.unwrap_or_default();
    let is_elsewhere = |path: &&Path| !std::env::current_dir().is_ok_and(|here| here == *path);
    let path = project.into().map(Project::path);
    let Some(path) = path.filter(is_elsewhere) else {
        return format!("`ic {registry}{command}`");
    };
    let option = match command {
        "serve" => "--project ",
        _ => "",
    };
    let path = shell::word(&raw::to_text(path.as_os_str()));
    format!("`ic {registry}{command} {option}{path}`")
}

/// The commands that give a project another port.
pub fn commands_for_another_port(project: &Project) -> String {
    let (remove, allocate) = (
        command_for("remove", project),
        command_for("allocate", project),
    );
    format!("{remove} and {allocate}")
}

/// For a project without a port, or with a new one: which folder above it has one, and how its subfolders share that.
pub fn port_above(registry: &Registry, project: &Project) -> Option<String> {
    let (above, port) = registry.nearest_above(project)?;
    let path = project.path();
    let is_here = std::env::current_dir().is_ok_and(|here| here == path);
    let repository = Project::of_repository(path).ok();
    let way = if is_here && repository.is_some_and(|it| it.path() == above) {
        let command = command_for("--project-root git COMMAND", None);
        format!("which {command} uses in its subfolders too")
    } else {
        "which commands use there, or with that folder as PATH; in a Git repository `--project-root git` finds the top"
            .to_owned()
    };
    Some(format!(
        "`{}` above it has port {port}, {way}",
        escaped_path(above)
    ))
}

/// Warns in one line of interceptors that still run on the ports of `removed` mappings.
pub fn warn_of_running<'a>(removed: impl IntoIterator<Item = (&'a Path, Port)>) {
    let removed = removed.into_iter().map(|(path, port)| (path, port.get()));
    let running = staying_on(removed);
    let Some((path, port, _)) = running.first() else {
        return;
    };
    let others = match running.len() - 1 {
        0 => String::new(),
        others => format!("; {others} more still run as well, see `ic status`"),
    };
    eprint_line(format_args!(
        "warning: port {port} stays in use: the interceptor of `{}` still runs; {} stops it{others}",
        escaped_path(path),
        command_for("stop", Project::recorded(path).as_ref()),
    ));
}
