//! How the commands print a mapping.

use std::path::Path;

use super::outcome::Failure;
use super::output::Output;
use crate::registry::Port;
use crate::text::{Escaped, escaped_path, name};

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
