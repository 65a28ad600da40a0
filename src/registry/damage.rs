//! What can be wrong with the text of a registry file, and its messages.

use std::fmt;
use std::path::PathBuf;

use super::port::Port;
use crate::text::{Escaped, escaped_path};

/// Why a text is not a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// It is not one JSON object, with the reason. A write may be in progress.
    Torn(String),
    /// It is JSON, but its mappings are invalid or contradict one another.
    Inconsistent(Vec<Issue>),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Torn(reason) => f.write_str(reason),
            Damage::Inconsistent(issues) => list(issues, f),
        }
    }
}

impl std::error::Error for Damage {}

/// Something in a registry file that cannot be used, and what is used instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issue {
    /// `mappings` is not an object.
    MappingsNoObject,
    /// `mappings` occurs more than once.
    MappingsTwice,
    /// A mapping's path is not absolute.
    NotAbsolute {
        /// The path in the file.
        path: PathBuf,
    },
    /// The file ends before the mapping's port does.
    BrokenOff {
        /// The project.
        path: PathBuf,
    },
    /// A mapping's value is not a port.
    NoPort {
        /// The project.
        path: PathBuf,
        /// The value in the file, JSON text.
        value: String,
    },
    /// A project has two ports.
    PathTwice {
        /// The project.
        path: PathBuf,
        /// The port it keeps.
        kept: Port,
        /// The port it loses; may be the same.
        dropped: Port,
    },
    /// Two projects have one port.
    PortTwice {
        /// The port.
        port: Port,
        /// The project that keeps it.
        kept: PathBuf,
        /// The project that loses it.
        dropped: PathBuf,
    },
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Issue::MappingsNoObject => f.write_str("`mappings` is not an object"),
            Issue::MappingsTwice => f.write_str("`mappings` occurs twice"),
            Issue::NotAbsolute { path } => {
                let problem = if path.as_os_str().as_encoded_bytes().contains(&0) {
                    "contains a NUL character"
                } else {
                    "is not absolute"
                };
                write!(f, "the path `{}` {problem}", escaped_path(path))
            }
            Issue::BrokenOff { path } => {
                let path = escaped_path(path);
                write!(f, "the file ends before the port of `{path}`")
            }
            Issue::NoPort { path, value } => {
                let path = escaped_path(path);
                let start: String = value.chars().take(VALUE_SHOWN_MAX).collect();
                let more = if start.len() < value.len() { "…" } else { "" };
                let start = Escaped(&start);
                write!(f, "`{path}` has `{start}{more}`, which is not a port")
            }
            Issue::PathTwice {
                path,
                kept,
                dropped,
            } => {
                let path = escaped_path(path);
                if kept == dropped {
                    write!(f, "`{path}` occurs twice")
                } else {
                    write!(f, "`{path}` keeps port {kept} and loses {dropped}")
                }
            }
            Issue::PortTwice {
                port,
                kept,
                dropped,
            } => {
                let (kept, dropped) = (escaped_path(kept), escaped_path(dropped));
                write!(f, "port {port} stays with `{kept}`, `{dropped}` loses it")
            }
        }
    }
}

/// Writes the first issues in one line, and the number of the others.
pub(super) fn list(issues: &[Issue], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, issue) in issues.iter().take(ISSUES_SHOWN_MAX).enumerate() {
        write!(f, "{}{issue}", if index == 0 { "" } else { "; " })?;
    }
    match issues.len().checked_sub(ISSUES_SHOWN_MAX) {
        Some(more @ 1..) => write!(f, "; and {more} more"),
        _ => Ok(()),
    }
}

/// More would not fit on a line; the backup has them all.
const ISSUES_SHOWN_MAX: usize = 3;

/// Characters of an invalid port; enough for the longest number that is mistaken for one.
const VALUE_SHOWN_MAX: usize = 24;
