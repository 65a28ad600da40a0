//! What the store reports: waits, damage, and errors.

use std::path::PathBuf;
use std::time::Duration;
use std::{error, fmt, io};

use crate::registry::damage::{self, Damage, Issue};
use crate::text::{escaped_path, io_message};

/// What the store waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Another `ic` is changing the registry.
    RegistryLock,
    /// Another program holds a lock on the registry file.
    FileLock,
    /// The registry file is empty or torn, so another program may be writing it.
    Writer,
}

/// A wait for another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The file that the other program has open: the registry, or the lock beside it.
    pub file: PathBuf,
    /// What the other program does with it.
    pub reason: WaitReason,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            WaitReason::RegistryLock => "another `ic` that is changing the registry and holds",
            WaitReason::FileLock => "another program that has locked the registry file",
            WaitReason::Writer => "another program to finish writing the registry file",
        };
        write!(f, "waiting for {what} `{}`", escaped_path(&self.file))
    }
}

/// The registry file is damaged, or was damaged and has been repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageReport {
    /// The registry file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
    /// What could not be read.
    pub issues: Vec<Issue>,
    /// How many mappings could be read.
    pub kept: usize,
    /// The backup of the damaged file; `None` if the file was only read.
    pub backup: Option<PathBuf>,
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = escaped_path(&self.file);
        let is = if self.backup.is_some() { "was" } else { "is" };
        write!(
            f,
            "the registry file `{file}` {is} damaged ({}",
            self.damage
        )?;
        if let (Damage::Torn(_), false) = (&self.damage, self.issues.is_empty()) {
            f.write_str("; ")?;
            damage::list(&self.issues, f)?;
        }
        let (mappings, were) = match self.kept {
            1 => ("1 mapping".to_owned(), "was"),
            kept => (format!("{kept} mappings"), "were"),
        };
        match &self.backup {
            Some(backup) => {
                let backup = escaped_path(backup);
                write!(
                    f,
                    "); {mappings} {were} kept; the damaged file is `{backup}`"
                )
            }
            None => write!(
                f,
                "); {mappings} can be read; the next command that changes the registry repairs it and keeps a backup"
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
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be replaced; nothing has changed.
    Write {
        /// The registry file.
        file: PathBuf,
        /// The step that failed.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The file was replaced, but the change may be lost in a power failure.
    Unconfirmed {
        /// The registry file.
        file: PathBuf,
        /// The cause.
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
    /// Another program held it for too long.
    Busy(Wait),
}

impl StoreError {
    /// Converts an error that happened after the file was replaced.
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
            StoreError::NoHome => write!(
                f,
                "this user has no home folder for the registry; set HOME to an absolute path, or {ELSEWHERE}"
            ),
            StoreError::Read { file, source } => {
                let (file, cause, hint) = (escaped_path(file), io_message(source), hint(source));
                write!(f, "cannot read the registry `{file}`: {cause}; {hint}")
            }
            StoreError::Write { file, step, source } => {
                let (file, cause, hint) = (escaped_path(file), io_message(source), hint(source));
                write!(
                    f,
                    "cannot write the registry `{file}` ({step}): {cause}; nothing was changed; {hint}"
                )
            }
            StoreError::Unconfirmed { file, source } => {
                let (file, cause) = (escaped_path(file), io_message(source));
                write!(
                    f,
                    "the registry `{file}` was changed, but the disk did not confirm it: {cause}; \
                     check the registry with `ic list`, and the disk"
                )
            }
            StoreError::NotAFile { file, what } => {
                let file = escaped_path(file);
                write!(
                    f,
                    "the registry `{file}` is {what}, not a file; {ELSEWHERE}"
                )
            }
            StoreError::TooLarge { file } => {
                let (file, limit) = (escaped_path(file), SIZE_MAX >> 20);
                write!(
                    f,
                    "the registry `{file}` is larger than {limit} MiB; move it away, or {ELSEWHERE}"
                )
            }
            StoreError::Busy(wait) => {
                let (file, seconds) = (escaped_path(&wait.file), WAIT_MAX.as_secs());
                write!(
                    f,
                    "gave up after {seconds} s of {wait}; try again, or find the program with `fuser {file}`"
                )
            }
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

/// Why a file is not written whose last name is that of a mount point: other programs would not see the change.
pub const REPLACED_MOUNT: &str =
    "the mounted file has been replaced where it comes from; mount its folder instead";

/// What to do about an I/O error.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        io::ErrorKind::PermissionDenied => "check who may use the file and its folder",
        _ => ELSEWHERE,
    }
}

/// The longest wait for another program.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);

/// In bytes. 65,535 mappings, the maximum, of 200 bytes each take 13 MiB.
pub(super) const SIZE_MAX: u64 = 16 << 20;
