//! How the commands print a project and its port, as JSON members and as text.

use std::path::Path;

use serde::Serialize;

use super::outcome::Failure;
use super::output::Output;
use crate::registry::Port;
use crate::text::{Escaped, escaped_path, name, raw};

/// The members `project` and `path` of a JSON document.
#[derive(Serialize)]
pub struct ProjectJson {
    project: String,
    path: String,
}

impl ProjectJson {
    /// Describes the project recorded under `path`.
    pub fn new(path: &Path) -> ProjectJson {
        ProjectJson {
            project: name(path),
            path: raw::to_text(path.as_os_str()),
        }
    }
}

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
