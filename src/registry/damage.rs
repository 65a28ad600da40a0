//! What can be wrong with a registry file, and how it is said.

use std::fmt;
use std::path::{Path, PathBuf};

use super::json::Syntax;
use super::port::Port;

/// Why a text is no registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// It is not one JSON object. It may be one that is being written at this moment.
    Torn(Syntax),
    /// It is JSON, but what it says cannot all be true.
    Flawed(Vec<Flaw>),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Torn(syntax) => syntax.fmt(f),
            Damage::Flawed(flaws) => list(flaws, f),
        }
    }
}

impl std::error::Error for Damage {}

/// Something in a registry that was not taken over, and what was instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// `mappings` is no object.
    MappingsNoObject,
    /// `mappings` is there more than once.
    MappingsTwice,
    /// A mapping's path is not absolute.
    NotAbsolute {
        /// The path as it stands there.
        path: PathBuf,
    },
    /// The file ends before the mapping's port does.
    BrokenOff {
        /// The project.
        path: PathBuf,
    },
    /// A mapping's value is no port.
    NoPort {
        /// The project.
        path: PathBuf,
        /// The value as it stands there, JSON text.
        value: String,
    },
    /// A project has two ports.
    PathTwice {
        /// The project.
        path: PathBuf,
        /// The port it keeps.
        kept: Port,
        /// The port it does not keep; may be the same.
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

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::MappingsNoObject => f.write_str("`mappings` is no object"),
            Flaw::MappingsTwice => f.write_str("`mappings` is there twice"),
            Flaw::NotAbsolute { path } if path.as_os_str().as_encoded_bytes().contains(&0) => {
                write!(f, "the path `{}` has a NUL in it", Shown(path))
            }
            Flaw::BrokenOff { path } => {
                write!(f, "the file ends before the port of `{}`", Shown(path))
            }
            Flaw::NotAbsolute { path } => write!(f, "the path `{}` is not absolute", Shown(path)),
            Flaw::NoPort { path, value } => {
                let mut characters = value.chars();
                let value: String = characters.by_ref().take(VALUE_SHOWN_MAX).collect();
                let more = if characters.next().is_some() {
                    "…"
                } else {
                    ""
                };
                write!(
                    f,
                    "`{}` has `{}{more}`, which is no port",
                    Shown(path),
                    Shown(Path::new(&value))
                )
            }
            Flaw::PathTwice {
                path,
                kept,
                dropped,
            } if kept == dropped => {
                write!(f, "`{}` is there twice", Shown(path))
            }
            Flaw::PathTwice {
                path,
                kept,
                dropped,
            } => {
                write!(f, "`{}` keeps port {kept} and not {dropped}", Shown(path))
            }
            Flaw::PortTwice {
                port,
                kept,
                dropped,
            } => {
                write!(
                    f,
                    "port {port} stays with `{}`, `{}` loses it",
                    Shown(kept),
                    Shown(dropped)
                )
            }
        }
    }
}

/// Some flaws in one line; of many the first.
pub(super) fn list(flaws: &[Flaw], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, flaw) in flaws.iter().take(FLAWS_SHOWN_MAX).enumerate() {
        write!(f, "{}{flaw}", if index == 0 { "" } else { "; " })?;
    }
    match flaws.len().checked_sub(FLAWS_SHOWN_MAX) {
        Some(more @ 1..) => write!(f, "; and {more} more"),
        _ => Ok(()),
    }
}

/// A path on one line, whatever is in its name.
pub(super) struct Shown<'a>(pub(super) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.to_string_lossy().chars() {
            if character == '\0' {
                f.write_str("\\0")?;
            } else if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// More than a few flaws in one line are not read; the backup has them all.
const FLAWS_SHOWN_MAX: usize = 3;

/// Characters of a value that is no port; enough for the longest number that is mistaken for one.
const VALUE_SHOWN_MAX: usize = 24;
