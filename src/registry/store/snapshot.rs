//! Looking at a file that others write in place: when what is there can be believed.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use fs2::FileExt;
use rustix::fs::{Mode, OFlags};

use super::error::{SIZE_MAX, StoreError, Waiting};
use super::lock::{Patience, is_contended};
use crate::registry::damage::{Damage, Flaw};
use crate::registry::model::Registry;
use crate::registry::recover::{Recovered, recover};

/// The file at one moment.
pub(super) struct Look {
    path: PathBuf,
    pub(super) file: File,
    pub(super) text: Vec<u8>,
    pub(super) parsed: Result<Registry, Damage>,
    stamp: Stamp,
    /// Whether the file stayed the same while it was read.
    steady: bool,
}

/// What tells whether a file was written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    written: (i64, i64),
}

/// Looks until a whole text is seen, or one that nobody is going to complete: empty or torn, the same for
/// [`SETTLING`], and not locked by anybody. `None` is no file.
pub(super) fn settled(
    mut look: impl FnMut() -> Result<Option<Look>, StoreError>,
    patience: &mut Patience<'_>,
) -> Result<Option<Look>, StoreError> {
    let mut torn: Option<(Stamp, Instant)> = None;
    loop {
        let Some(seen) = look()? else { return Ok(None) };
        if seen.is_whole() {
            return Ok(Some(seen));
        }
        let since = match torn {
            Some((stamp, since)) if stamp == seen.stamp => since,
            _ => Instant::now(),
        };
        torn = Some((seen.stamp, since));
        let is_believed = since.elapsed() >= SETTLING;
        if (is_believed || patience.is_noticeable()) && seen.is_left_alone() {
            if is_believed {
                return Ok(Some(seen));
            }
            // Nobody is seen at it, so there is nobody to be named.
            patience.nap();
        } else {
            patience.wait(Waiting::Written)?;
        }
    }
}

impl Look {
    /// Opens and reads the file; `None` where there is none.
    pub(super) fn at(path: &Path) -> Result<Option<Look>, StoreError> {
        let fail = |source| StoreError::Read {
            file: path.to_owned(),
            source,
        };
        Look::open(path, OFlags::RDONLY, fail)
    }

    /// As [`at`](Self::at), but refuses a file that may not be written: replacing it would go behind the back of
    /// whoever made it so.
    pub(super) fn to_replace(path: &Path) -> Result<Option<Look>, StoreError> {
        let fail = |source| StoreError::Write {
            file: path.to_owned(),
            step: "opening it",
            source,
        };
        Look::open(path, OFlags::RDWR, fail)
    }

    fn open(
        path: &Path,
        access: OFlags,
        fail: impl Fn(io::Error) -> StoreError,
    ) -> Result<Option<Look>, StoreError> {
        // `name/` means a folder also where there is none yet.
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(StoreError::NotAFile {
                file: path.to_owned(),
                what: "a folder",
            });
        }
        // Asked before it is opened: opening a device can do things.
        match fs::metadata(path) {
            Ok(found) => refuse_other_kinds(path, &found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        }
        // NONBLOCK: what was a file may be a FIFO by now.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(fail(error.into())),
        };
        refuse_other_kinds(path, &file.metadata().map_err(&fail)?)?;
        let (text, stamp, steady) = read_all(&file).map_err(&fail)?;
        if text.len() as u64 > SIZE_MAX {
            return Err(StoreError::TooLarge {
                file: path.to_owned(),
            });
        }
        let parsed = Registry::parse(&text);
        Ok(Some(Look {
            path: path.to_owned(),
            file,
            text,
            parsed,
            stamp,
            steady,
        }))
    }

    /// The same open file again, whatever its name leads to by now.
    pub(super) fn again(&self) -> Result<Look, StoreError> {
        let file = self.file.try_clone().map_err(|error| self.unread(error))?;
        let (text, stamp, steady) = read_all(&file).map_err(|error| self.unread(error))?;
        let parsed = Registry::parse(&text);
        Ok(Look {
            path: self.path.clone(),
            file,
            text,
            parsed,
            stamp,
            steady,
        })
    }

    /// What the same open file holds by now.
    pub(super) fn text_now(&self) -> Result<Vec<u8>, StoreError> {
        let (text, ..) = read_all(&self.file).map_err(|error| self.unread(error))?;
        Ok(text)
    }

    fn unread(&self, source: io::Error) -> StoreError {
        StoreError::Read {
            file: self.path.clone(),
            source,
        }
    }

    /// Whether this is a complete text: nobody is in the middle of writing it.
    pub(super) fn is_whole(&self) -> bool {
        self.steady
            && !self.text.trim_ascii().is_empty()
            && !matches!(self.parsed, Err(Damage::Torn(_)))
    }

    /// Whether `path` still leads to the file that was seen, and that still has the text that was seen.
    pub(super) fn is_still_at(&self, path: &Path) -> io::Result<bool> {
        let same = match fs::symlink_metadata(path) {
            Ok(found) => (found.dev(), found.ino()) == (self.stamp.device, self.stamp.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(same && read_all(&self.file)?.0 == self.text)
    }

    /// Whether nobody has a lock on the file, and it is still as it was seen when nobody had.
    fn is_left_alone(&self) -> bool {
        // Shared where exclusive is refused for good: NFS wants a file open for writing for that.
        let locked = match self.file.try_lock_exclusive() {
            Err(error) if is_contended(&error) => Err(error),
            Err(_) => FileExt::try_lock_shared(&self.file),
            locked => locked,
        };
        let alone = match locked {
            Ok(()) => Stamp::of(&self.file).is_ok_and(|now| now == self.stamp),
            // A file system without locks has nobody who holds one.
            Err(error) => !is_contended(&error),
        };
        // Closing would do as well; what fails here does not matter then.
        let _ = FileExt::unlock(&self.file);
        alone
    }

    /// The registry that was seen, as far as it can be read.
    pub(super) fn reading(&self) -> (Registry, Option<Ailment>) {
        match &self.parsed {
            Ok(registry) => (registry.clone(), None),
            Err(damage) => {
                let Recovered { registry, flaws } = recover(&self.text);
                (
                    registry,
                    Some(Ailment {
                        damage: damage.clone(),
                        flaws,
                    }),
                )
            }
        }
    }
}

/// What is wrong with a file, and what could not be read because of it.
pub(super) struct Ailment {
    pub(super) damage: Damage,
    pub(super) flaws: Vec<Flaw>,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Stamp> {
        let found = file.metadata()?;
        let (device, inode, bytes) = (found.dev(), found.ino(), found.len());
        Ok(Stamp {
            device,
            inode,
            bytes,
            written: (found.mtime(), found.mtime_nsec()),
        })
    }
}

fn read_all(mut file: &File) -> io::Result<(Vec<u8>, Stamp, bool)> {
    let before = Stamp::of(file)?;
    let mut text = Vec::with_capacity(before.bytes.min(SIZE_MAX) as usize + 1);
    file.rewind()?;
    file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    let after = Stamp::of(file)?;
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

/// An empty or torn text is believed to be so after this long. The Python tool writes within milliseconds, but may be
/// stopped in the middle of it.
pub(super) const SETTLING: Duration = Duration::from_secs(1);
