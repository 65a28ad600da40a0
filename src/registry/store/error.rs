//! What the store tells: what it waits for, what is wrong with the file, and why it could not do what it should.

use std::path::PathBuf;
use std::time::Duration;
use std::{error, fmt, io};

use crate::registry::damage::{self, Damage, Flaw, Shown};

/// Another program is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Another `ic` is changing the registry.
    Turn,
    /// Another program holds a lock on the registry file.
    Lock,
    /// The registry file is empty or torn, as if it were just being written.
    Written,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting::Turn => "waiting for another `ic` that is changing the registry",
            Waiting::Lock => "waiting for another program that has locked the registry file",
            Waiting::Written => "waiting for another program to finish writing the registry file",
        })
    }
}

/// The registry file is damaged, or was until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The registry file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
    /// What was seen in it but could not be taken over.
    pub flaws: Vec<Flaw>,
    /// How many mappings could be read.
    pub kept: usize,
    /// Where the damaged file is now; `None` where it was only read.
    pub backup: Option<PathBuf>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning {
            file,
            damage,
            flaws,
            kept,
            backup,
        } = self;
        let mappings = if *kept == 1 {
            "1 mapping".to_owned()
        } else {
            format!("{kept} mappings")
        };
        let (is, were) = match (backup, kept) {
            (Some(_), 1) => ("was", "was kept"),
            (Some(_), _) => ("was", "were kept"),
            (None, _) => ("is", "can be read"),
        };
        write!(f, "the registry file `{}` {is} damaged (", Shown(file))?;
        damage.fmt(f)?;
        if let (Damage::Torn(_), false) = (damage, flaws.is_empty()) {
            f.write_str("; ")?;
            damage::list(flaws, f)?;
        }
        write!(f, "); {mappings} {were}; ")?;
        match backup {
            Some(backup) => write!(f, "the damaged file is `{}`", Shown(backup)),
            None => f.write_str(
                "the next command that changes the registry repairs it and keeps a backup",
            ),
        }
    }
}

/// The registry file could not be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// There is no home folder to look for the registry in.
    NoHome,
    /// The file cannot be read.
    Read {
        /// The registry file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be replaced; nothing has changed.
    Write {
        /// The registry file.
        file: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file has been replaced, but that might not outlive a power cut.
    Unconfirmed {
        /// The registry file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a FIFO, a device or a socket.
    NotAFile {
        /// What was named as the registry file.
        file: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It is larger than any registry.
    TooLarge {
        /// The registry file.
        file: PathBuf,
    },
    /// It belongs to somebody else, and would not any more.
    NotOurs {
        /// The registry file.
        file: PathBuf,
        /// User and group that own it.
        owner: (u32, u32),
    },
    /// Another program did not let go of it in time.
    Busy {
        /// The registry file.
        file: PathBuf,
        /// What was waited for.
        waiting: Waiting,
    },
}

impl StoreError {
    /// The same, after the file has been replaced.
    pub(super) fn unconfirmed(self) -> StoreError {
        match self {
            StoreError::Read { file, source } | StoreError::Write { file, source, .. } => {
                StoreError::Unconfirmed { file, source }
            }
            other => other,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::NoHome => {
                write!(
                    f,
                    "this user has no home folder to keep the registry in; set HOME to an absolute path, or {ELSEWHERE}"
                )
            }
            StoreError::Read { file, source } => {
                write!(
                    f,
                    "cannot read the registry `{}`: {}; {}",
                    Shown(file),
                    said(source),
                    way_out(source)
                )
            }
            StoreError::Write { file, step, source } => {
                let (file, said, way_out) = (Shown(file), said(source), way_out(source));
                write!(
                    f,
                    "cannot write the registry `{file}` ({step}): {said}; nothing was changed; {way_out}"
                )
            }
            StoreError::Unconfirmed { file, source } => {
                write!(
                    f,
                    "the registry `{}` was changed, but the disk did not confirm it: {}; see with `ic list` what is \
                     there, and check that disk",
                    Shown(file),
                    said(source)
                )
            }
            StoreError::NotAFile { file, what } => {
                write!(
                    f,
                    "the registry `{}` is {what}, not a file; {ELSEWHERE}",
                    Shown(file)
                )
            }
            StoreError::TooLarge { file } => {
                let limit = SIZE_MAX >> 20;
                let file = Shown(file);
                write!(
                    f,
                    "the registry `{file}` is larger than {limit} MiB; move it away, or {ELSEWHERE}"
                )
            }
            StoreError::NotOurs {
                file,
                owner: (user, group),
            } => write!(
                f,
                "cannot write the registry `{}` without taking it from user {user}, group {group}; \
                 run `ic` as that user, or {ELSEWHERE}",
                Shown(file)
            ),
            StoreError::Busy { file, waiting } => write!(
                f,
                "gave up after {} s of {waiting}, `{}`; try again, or see with `fuser` who has it open",
                PATIENCE.as_secs(),
                Shown(file)
            ),
        }
    }
}

impl error::Error for StoreError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            StoreError::Read { source, .. }
            | StoreError::Write { source, .. }
            | StoreError::Unconfirmed { source, .. } => Some(source),
            _ => None,
        }
    }
}

const ELSEWHERE: &str = "name another file with --registry or PORT_REGISTRY_PATH";

/// What to do about an error of the system's.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        io::ErrorKind::PermissionDenied => "check who may use the file and its folder",
        _ => ELSEWHERE,
    }
}

/// The system's words without their number: `no space left on device`.
fn said(error: &io::Error) -> String {
    let said = error.to_string();
    let said = said.split(" (os error ").next().unwrap_or_default();
    let mut characters = said.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

/// Nobody waits longer than this for another program.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// In bytes. 65 535 mappings, which is all there can be, of 200 bytes each take 13 MiB.
pub(super) const SIZE_MAX: u64 = 16 << 20;
