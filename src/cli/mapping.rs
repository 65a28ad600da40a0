//! How the commands print a mapping, and name a command for it.

use std::path::Path;

use super::env::shell;
use super::outcome::Failure;
use super::output::Output;
use crate::registry::Port;
use crate::registry::project::Project;
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

/// A command in backticks, with the path of the project as its argument unless it is the current folder.
pub fn command_for(command: &str, project: &Project) -> String {
    let path = project.path();
    if std::env::current_dir().is_ok_and(|here| here == path) {
        return format!("`ic {command}`");
    }
    let option = match command {
        "serve" => "--project ",
        _ => "",
    };
    let path = shell::word(&raw::to_text(path.as_os_str()));
    format!("`ic {command} {option}{path}`")
}
