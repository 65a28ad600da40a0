//! Replacing the file: whole or not at all, and with the owner, the permissions and the place it had.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs2::FileExt;
use rustix::fs::{Mode, OFlags};

use super::error::{StoreError, Waiting};
use super::lock::{LockError, Patience, lock};
use super::snapshot::{Look, settled};
use crate::registry::model::Registry;

/// Where the registry file really is, and the files beside it.
pub(super) struct Place {
    /// Without symbolic links in its last part: a link stays, what it leads to is replaced.
    target: PathBuf,
    folder: PathBuf,
    /// Never renamed or removed, so that all who lock it lock the same file.
    lock: PathBuf,
    /// One name, used only by whose turn it is: kills leave at most one behind.
    temp: PathBuf,
    backup: PathBuf,
}

impl Place {
    pub(super) fn of(file: &Path) -> Result<Place, StoreError> {
        let fail = |source| StoreError::Write {
            file: file.to_owned(),
            step: "following its links",
            source,
        };
        let target = follow_links(file).map_err(fail)?;
        let Some(name) = target.file_name() else {
            return Err(StoreError::NotAFile {
                file: file.to_owned(),
                what: "a folder",
            });
        };
        let beside = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(suffix);
            target.with_file_name(name)
        };
        let (lock, temp, backup) = (beside(".lock"), beside(".new"), beside(".backup"));
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        Ok(Place {
            target,
            folder,
            lock,
            temp,
            backup,
        })
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) fn make_folder(&self) -> Result<(), StoreError> {
        let missing: Vec<&Path> = self
            .folder
            .ancestors()
            .take_while(|folder| !folder.exists())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)
            .map_err(|source| self.failed("making its folder", source))?;
        for folder in missing {
            sync_folder(
                folder
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty())
                    .unwrap_or(Path::new(".")),
            )
            .map_err(|source| self.failed("making its folder", source))?;
        }
        Ok(())
    }

    /// Waits until no other `ic` changes this registry; it is our turn until the file that is returned is closed, by a kill
    /// at the latest.
    pub(super) fn take_turn(&self, patience: &mut Patience<'_>) -> Result<File, StoreError> {
        let failed = |source| self.failed("taking the .lock beside it", source);
        // Reading is enough for flock: whoever may write the folder may use a lock that somebody else has made.
        let flags =
            OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        loop {
            let file = File::from(
                rustix::fs::open(&self.lock, flags, NEW_FILE)
                    .map_err(|error| failed(error.into()))?,
            );
            match lock(&file, Waiting::Turn, patience) {
                Ok(()) => {}
                Err(LockError::Busy(error)) => return Err(error),
                Err(LockError::Refused(source)) => return Err(failed(source)),
            }
            // Somebody may have cleaned it away while we waited: then the others lock another file.
            let ours = file.metadata().map_err(failed)?;
            match fs::symlink_metadata(&self.lock) {
                Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
                _ => patience.wait(Waiting::Turn)?,
            }
        }
    }

    /// Keeps what was seen as `….backup`; an older backup moves on to `….backup.1`, or the next number that is free.
    /// One that is the same already (after a kill) is enough.
    pub(super) fn back_up(&self, look: &Look) -> Result<PathBuf, StoreError> {
        let failed = |source| self.failed("keeping a backup", source);
        match fs::symlink_metadata(&self.backup) {
            Ok(found) if found.is_file() && found.len() == look.text.len() as u64 => {
                if fs::read(&self.backup).is_ok_and(|kept| kept == look.text) {
                    return Ok(self.backup.clone());
                }
                self.move_backup_on().map_err(failed)?;
            }
            Ok(_) => self.move_backup_on().map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // A copy, not a link: a program that still has the file open may write into it.
        let copy = Temp::write(self, "keeping a backup", &look.text, Some(look))?;
        copy.rename_to(&self.backup).map_err(failed)?;
        sync_folder(&self.folder).map_err(failed)?;
        Ok(self.backup.clone())
    }

    fn move_backup_on(&self) -> io::Result<()> {
        for number in 1..=BACKUPS_MAX {
            let mut older = OsString::from(&self.backup);
            older.push(format!(".{number}"));
            match fs::symlink_metadata(&older) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return fs::rename(&self.backup, &older);
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("there are {BACKUPS_MAX} older ones already"),
        ))
    }

    /// Puts `text` in the place of what was seen, and says when that was; `None` where that is not there any more. On
    /// success the lock on the old file is still held.
    pub(super) fn replace(
        &self,
        seen: Option<&Look>,
        text: &str,
        patience: &mut Patience<'_>,
    ) -> Result<Option<Instant>, StoreError> {
        let failed = |source| self.failed("replacing it", source);
        let temp = Temp::write(self, "writing the new one", text.as_bytes(), seen)?;
        match seen {
            // A link does not replace what the Python tool may have created by now.
            None => match fs::hard_link(&self.temp, &self.target) {
                Ok(()) => drop(temp),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                // A file system without links.
                Err(_) if fs::symlink_metadata(&self.target).is_ok() => return Ok(None),
                Err(_) => temp.rename_to(&self.target).map_err(failed)?,
            },
            Some(look) => {
                match lock(&look.file, Waiting::Lock, patience) {
                    Ok(()) => {}
                    Err(LockError::Busy(error)) => return Err(error),
                    Err(LockError::Refused(source)) => {
                        return Err(self.failed("locking it", source));
                    }
                }
                if !look.is_still_at(&self.target).map_err(failed)? || !temp.is_still_there() {
                    return Ok(None);
                }
                temp.rename_to(&self.target).map_err(failed)?;
            }
        }
        Ok(Some(Instant::now()))
    }

    /// Makes the new name outlive a power cut.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sync_folder(&self.folder).map_err(|source| self.failed("confirming it", source))
    }

    fn failed(&self, step: &'static str, source: io::Error) -> StoreError {
        StoreError::Write {
            file: self.target.clone(),
            step,
            source,
        }
    }
}

/// A file that has lost its name to a new one, and may still be open elsewhere.
pub(super) struct Orphan {
    look: Look,
    /// What it holds unless somebody else has written it.
    text: Vec<u8>,
}

impl Look {
    /// Gives those who have opened the file before it was replaced, and wait for our lock to read it, the new text.
    pub(super) fn pass_on(self, text: &str) -> Orphan {
        let mut held = self.text.clone();
        let nameless = self.file.metadata().is_ok_and(|found| found.nlink() == 0);
        let unwritten = self.text_now().is_ok_and(|now| now == self.text);
        // Emptied first: a reader that does not lock must not take a mixture for a whole text.
        if nameless && unwritten && self.file.set_len(0).is_ok() {
            held = match self.file.write_all_at(text.as_bytes(), 0) {
                Ok(()) => text.as_bytes().to_vec(),
                // Torn, as for anyone who reads it: they look again, and find the new file.
                Err(_) => self.text_now().unwrap_or_default(),
            };
        }
        // Closing would do as well; what fails here does not matter then.
        let _ = FileExt::unlock(&self.file);
        Orphan {
            look: self,
            text: held,
        }
    }
}

impl Orphan {
    /// What somebody has written into it since.
    pub(super) fn written_late(
        self,
        patience: &mut Patience<'_>,
    ) -> Result<Option<Registry>, StoreError> {
        if self.look.text_now()? == self.text {
            return Ok(None);
        }
        let settled = settled(|| self.look.again().map(Some), patience)?;
        Ok(settled.filter(Look::is_whole).map(|look| look.reading().0))
    }
}

/// A new file that has not got its name yet; removed if it does not get it.
struct Temp<'a> {
    place: &'a Place,
    file: File,
    is_there: bool,
}

impl<'a> Temp<'a> {
    /// Writes `text` with the owner and the permissions of `like`, or those of any new file, so that it outlives a power cut.
    fn write(
        place: &'a Place,
        step: &'static str,
        text: &[u8],
        like: Option<&Look>,
    ) -> Result<Self, StoreError> {
        let failed = |source| place.failed(step, source);
        let mut options = OpenOptions::new();
        // Exclusive: neither a leftover nor a link that somebody has planted is written to.
        options
            .write(true)
            .create_new(true)
            .mode(if like.is_some() { 0o600 } else { 0o666 });
        let file = match options.open(&place.temp) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&place.temp).and_then(|()| options.open(&place.temp))
            }
            opened => opened,
        };
        let mut temp = Temp {
            place,
            file: file.map_err(failed)?,
            is_there: true,
        };
        if let Some(like) = like {
            let wanted = like.file.metadata().map_err(failed)?;
            let given = temp.file.metadata().map_err(failed)?;
            let user = (wanted.uid() != given.uid()).then_some(wanted.uid());
            let group = (wanted.gid() != given.gid()).then_some(wanted.gid());
            if (user, group) != (None, None) {
                let owner = (wanted.uid(), wanted.gid());
                fchown(&temp.file, user, group).map_err(|_| StoreError::NotOurs {
                    file: place.target.clone(),
                    owner,
                })?;
            }
            // After the owner: giving a file away takes bits off it.
            let permissions = Permissions::from_mode(wanted.mode() & 0o7777);
            temp.file.set_permissions(permissions).map_err(failed)?;
        }
        temp.file
            .write_all(text)
            .and_then(|()| temp.file.sync_all())
            .map_err(failed)?;
        Ok(temp)
    }

    /// Whether its name still leads to it: whoever removes lock files may have let in somebody else.
    fn is_still_there(&self) -> bool {
        let of = |found: fs::Metadata| (found.dev(), found.ino());
        let (there, here) = (fs::symlink_metadata(&self.place.temp), self.file.metadata());
        there.is_ok_and(|there| here.is_ok_and(|here| of(there) == of(here)))
    }

    fn rename_to(mut self, name: &Path) -> io::Result<()> {
        fs::rename(&self.place.temp, name)?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.is_there {
            // What stays is removed by the next writer.
            let _ = fs::remove_file(&self.place.temp);
        }
    }
}

/// Makes the names in a folder outlive a power cut, where the file system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // One that may be written and entered but not read cannot be opened either.
    let Ok(opened) = File::open(folder) else {
        return Ok(());
    };
    match opened.sync_all() {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// The file that `path` means: links in its last part followed, to where they lead even if nothing is there.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..=LINKS_MAX {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// For the umask to take from, as for any file that a program creates.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

/// Far more than anybody looks at; a program that damages the file again and again must not fill the disk.
const BACKUPS_MAX: u32 = 1000;

/// Linux's own limit (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: u32 = 40;
