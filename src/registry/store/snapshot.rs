//! Reading a file that others write in place: when its text is complete.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use fs2::FileExt;
use rustix::fs::{Mode, OFlags};

use super::error::{SIZE_MAX, StoreError, WaitReason};
use super::lock::{LockDeadline, is_contended};
use crate::registry::damage::Damage;
use crate::registry::json;
use crate::registry::model::Registry;
use crate::registry::recover::{Recovered, recover};

/// The open file and its text at one moment.
pub(super) struct FileSnapshot {
    path: PathBuf,
    pub(super) file: File,
    pub(super) text: Vec<u8>,
    pub(super) parsed: Result<Registry, Damage>,
    version: FileVersion,
    /// Whether the file stayed the same while it was read.
    is_steady: bool,
}

/// Changes whenever the file is written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    written: (i64, i64),
}

/// Reads until the text is complete, or empty or torn without a writer: unchanged for [`STABLE_AFTER`] and not locked.
/// `None` if there is no file.
pub(super) fn read_stable(
    mut read: impl FnMut() -> Result<Option<FileSnapshot>, StoreError>,
    deadline: &mut LockDeadline<'_>,
) -> Result<Option<FileSnapshot>, StoreError> {
    let mut torn: Option<(FileVersion, Instant)> = None;
    loop {
        let Some(snapshot) = read()? else {
            return Ok(None);
        };
        if snapshot.is_whole() {
            return Ok(Some(snapshot));
        }
        let since = match torn {
            Some((version, since)) if version == snapshot.version => since,
            _ => Instant::now(),
        };
        torn = Some((snapshot.version, since));
        let is_stable = since.elapsed() >= STABLE_AFTER;
        if (is_stable || deadline.is_long()) && snapshot.is_unlocked_and_unchanged() {
            if is_stable {
                return Ok(Some(snapshot));
            }
            // No writer is visible, so none is reported.
            deadline.pause();
        } else {
            deadline.wait(WaitReason::Writer)?;
        }
    }
}

impl FileSnapshot {
    /// Opens and reads the file; `None` where there is none.
    pub(super) fn at(path: &Path) -> Result<Option<FileSnapshot>, StoreError> {
        let fail = |source| StoreError::Read {
            file: path.to_owned(),
            source,
        };
        FileSnapshot::open(path, OFlags::RDONLY, fail)
    }

    /// As [`at`](Self::at), but fails for a read-only file: replacing it would circumvent its permissions.
    pub(super) fn to_replace(path: &Path) -> Result<Option<FileSnapshot>, StoreError> {
        let fail = |source| StoreError::Write {
            file: path.to_owned(),
            step: "opening it",
            source,
        };
        FileSnapshot::open(path, OFlags::RDWR, fail)
    }

    fn open(
        path: &Path,
        access: OFlags,
        fail: impl Fn(io::Error) -> StoreError,
    ) -> Result<Option<FileSnapshot>, StoreError> {
        // `name/` means a folder also where there is none yet.
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(StoreError::NotAFile {
                file: path.to_owned(),
                what: "a folder",
            });
        }
        // Checked before it is opened: opening a device can have effects.
        match fs::metadata(path) {
            Ok(found) => refuse_other_kinds(path, &found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        }
        // NONBLOCK: the file may have been replaced by a FIFO.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(fail(error.into())),
        };
        refuse_other_kinds(path, &file.metadata().map_err(&fail)?)?;
        let snapshot = FileSnapshot::of(path.to_owned(), file).map_err(fail)?;
        if snapshot.text.len() as u64 > SIZE_MAX {
            return Err(StoreError::TooLarge {
                file: path.to_owned(),
            });
        }
        Ok(Some(snapshot))
    }

    fn of(path: PathBuf, file: File) -> io::Result<FileSnapshot> {
        let (text, version, is_steady) = read_all(&file)?;
        let parsed = Registry::parse(&text);
        Ok(FileSnapshot {
            path,
            file,
            text,
            parsed,
            version,
            is_steady,
        })
    }

    /// Reads the same open file again, even if its name leads to another file now.
    pub(super) fn reopen(&self) -> Result<FileSnapshot, StoreError> {
        self.file
            .try_clone()
            .and_then(|file| FileSnapshot::of(self.path.clone(), file))
            .map_err(|error| self.unread(error))
    }

    /// Returns the current text of the same open file.
    pub(super) fn reread(&self) -> Result<Vec<u8>, StoreError> {
        let (text, ..) = read_all(&self.file).map_err(|error| self.unread(error))?;
        Ok(text)
    }

    fn unread(&self, source: io::Error) -> StoreError {
        StoreError::Read {
            file: self.path.clone(),
            source,
        }
    }

    /// What is wrong with the text, if anything.
    pub(super) fn damage(&self) -> Option<&Damage> {
        self.parsed.as_ref().err()
    }

    /// Whether the text is complete, so that no write is in progress.
    pub(super) fn is_whole(&self) -> bool {
        self.is_steady
            && !json::utf_8(&self.text).trim_ascii().is_empty()
            && !matches!(self.parsed, Err(Damage::Torn(_)))
    }

    /// Whether `path` still leads to this file, and the file still has this text.
    pub(super) fn is_current_at(&self, path: &Path) -> io::Result<bool> {
        let same = match fs::symlink_metadata(path) {
            Ok(found) => (found.dev(), found.ino()) == (self.version.device, self.version.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(same && read_all(&self.file)?.0 == self.text)
    }

    /// Whether no other program holds a lock on the file, and the file has not changed.
    fn is_unlocked_and_unchanged(&self) -> bool {
        // Shared where exclusive is not possible: NFS requires a file open for writing.
        let locked = match self.file.try_lock_exclusive() {
            Err(error) if is_contended(&error) => Err(error),
            Err(_) => FileExt::try_lock_shared(&self.file),
            locked => locked,
        };
        let alone = match locked {
            Ok(()) => FileVersion::of(&self.file).is_ok_and(|now| now == self.version),
            // A file system without locks has no holders of locks.
            Err(error) => !is_contended(&error),
        };
        // A failure does not matter: closing the file unlocks it as well.
        let _ = FileExt::unlock(&self.file);
        alone
    }

    /// Returns the registry in this text, as far as it can be read, and what could not be read.
    pub(super) fn recovered(&self) -> Recovered {
        match &self.parsed {
            Ok(registry) => Recovered {
                registry: registry.clone(),
                issues: Vec::new(),
            },
            Err(_) => recover(&self.text),
        }
    }
}

impl FileVersion {
    fn of(file: &File) -> io::Result<FileVersion> {
        let found = file.metadata()?;
        let (device, inode, bytes) = (found.dev(), found.ino(), found.len());
        Ok(FileVersion {
            device,
            inode,
            bytes,
            written: (found.mtime(), found.mtime_nsec()),
        })
    }
}

fn read_all(mut file: &File) -> io::Result<(Vec<u8>, FileVersion, bool)> {
    let before = FileVersion::of(file)?;
    let mut text = Vec::with_capacity(before.bytes.min(SIZE_MAX) as usize + 1);
    file.rewind()?;
    file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    let after = FileVersion::of(file)?;
    Ok((text, after, before == after))
}

fn refuse_other_kinds(path: &Path, found: &fs::Metadata) -> Result<(), StoreError> {
    let kind = found.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(StoreError::NotAFile {
        file: path.to_owned(),
        what,
    })
}

/// An empty or torn text counts as damaged after this time. The Python tool writes within milliseconds, but may be
/// stopped in between.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(1);
