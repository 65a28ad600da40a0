//! Replacing the file atomically, with the same owner, permissions and path.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs2::FileExt;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::error::{REPLACED_MOUNT, StoreError, WaitReason};
use super::lock::{LockDeadline, lock};
use super::snapshot::{FileSnapshot, read_stable};
use crate::registry::model::Registry;
use crate::registry::project;

/// The path of the registry file behind links, and of the files beside it.
pub(super) struct StorePaths {
    /// Not a symbolic link: a link stays, the file that it leads to is replaced.
    target: PathBuf,
    folder: PathBuf,
    /// Never renamed or removed, so that all processes lock the same file.
    lock: PathBuf,
    /// Never renamed or removed; see [`claim`](super::claim).
    claim: PathBuf,
    /// A single name, used only under the lock: killed processes leave at most one behind.
    temp: PathBuf,
    /// The text that is being written in place; there only during that, and after a crash in it.
    copy: PathBuf,
    backup: PathBuf,
}

/// The path of the lock file of a registry, whose links are resolved.
pub fn lock_beside(file: &Path) -> PathBuf {
    beside(file, ".lock")
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How the file got its new text.
pub(super) enum Replaced {
    /// By a rename. The lock on the old file is still held.
    Renamed(Instant),
    /// In place; the lock on the file is released when the snapshot is dropped.
    InPlace(Instant),
}

impl StorePaths {
    pub(super) fn of(file: &Path) -> Result<StorePaths, StoreError> {
        let fail = |source| StoreError::Write {
            file: file.to_owned(),
            step: "following its links",
            source,
        };
        let target = project::resolve(file).map_err(fail)?;
        let (Some(folder), Some(_)) = (target.parent(), target.file_name()) else {
            return Err(StoreError::NotAFile {
                file: file.to_owned(),
                what: "a folder",
            });
        };
        Ok(StorePaths {
            lock: lock_beside(&target),
            claim: beside(&target, ".serve"),
            temp: beside(&target, ".new"),
            copy: beside(&target, ".copy"),
            backup: beside(&target, ".backup"),
            folder: folder.to_owned(),
            target,
        })
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) fn lock_file(&self) -> &Path {
        &self.lock
    }

    pub(super) fn claim_file(&self) -> &Path {
        &self.claim
    }

    pub(super) fn create_folder(&self) -> Result<(), StoreError> {
        let missing: Vec<&Path> = self
            .folder
            .ancestors()
            .take_while(|folder| !folder.exists())
            .collect();
        let made = fs::create_dir_all(&self.folder).and_then(|()| {
            let mut parents = missing.iter().filter_map(|folder| folder.parent());
            parents.try_for_each(sync_folder)
        });
        made.map_err(|source| self.failed("making its folder", source))
    }

    /// Waits until no other `ic` changes this registry. The lock is held until the returned file is closed, at the latest
    /// when the process ends.
    pub(super) fn lock(&self, deadline: &mut LockDeadline<'_>) -> Result<File, StoreError> {
        let failed = |source| self.failed("taking the .lock beside it", source);
        loop {
            // `flock` needs only read access, so a lock file of another user works.
            let file = self
                .open_lock(&self.lock, OFlags::RDONLY, deadline)
                .map_err(failed)?;
            self.share_lock(&file);
            lock(&file, WaitReason::RegistryLock, deadline, failed)?;
            // If the lock file was deleted during the wait, other processes lock a new one.
            let ours = file.metadata().map_err(failed)?;
            match fs::symlink_metadata(&self.lock) {
                Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
                _ => deadline.wait(WaitReason::RegistryLock)?,
            }
        }
    }

    /// Opens a lock file, or creates it.
    pub(super) fn open_lock(
        &self,
        path: &Path,
        access: OFlags,
        deadline: &mut LockDeadline<'_>,
    ) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let is_there = || fs::symlink_metadata(path).is_ok();
        loop {
            // With CREATE, the file of another user cannot be opened in a sticky folder (proc_sys_fs(5), protected_regular).
            let opened = match rustix::fs::open(path, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    let create = flags | OFlags::CREATE | OFlags::EXCL;
                    rustix::fs::open(path, create, NEW_FILE)
                }
                opened => opened,
            };
            match opened {
                Ok(file) => {
                    let file = File::from(file);
                    if file.metadata()?.is_dir() {
                        return Err(io::ErrorKind::IsADirectory.into());
                    }
                    return Ok(file);
                }
                Err(Errno::EXIST) if !deadline.is_long() => deadline.pause(),
                // The process that has just created it may not have shared it yet.
                Err(Errno::ACCESS) if is_there() && !deadline.is_long() => deadline.pause(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a lock file the owner, the group, and the read and write permissions of the registry, as far as this user may:
    /// whether the next user of the registry can lock it must not depend on the umask of this one.
    pub(super) fn share_lock(&self, file: &File) {
        let (Ok(registry), Ok(now)) = (fs::symlink_metadata(&self.target), file.metadata()) else {
            return;
        };
        // Other files, which another user may have put there, keep their owner.
        let is_lock = now.is_file() && now.len() == 0 && now.nlink() == 1;
        if !is_lock || !registry.is_file() {
            return;
        }
        // A failure does not matter: this process has the file open.
        let _ = adopt(file, &registry, |given| {
            let is_same = (given.uid(), given.gid()) == (registry.uid(), registry.gid());
            // With another owner or group, the permissions apply to other users than those of the registry.
            registry.mode() & 0o666 | if is_same { 0 } else { 0o444 }
        });
    }

    /// Writes the snapshot to `….backup` and returns that path. An older backup moves to `….backup.1`, or the next free
    /// number; an identical one (of a killed process) is kept.
    pub(super) fn back_up(&self, snapshot: &FileSnapshot) -> Result<PathBuf, StoreError> {
        let failed = |source| self.failed("keeping a backup", source);
        match fs::symlink_metadata(&self.backup) {
            Ok(found)
                if found.is_file()
                    && fs::read(&self.backup).is_ok_and(|kept| kept == snapshot.text) =>
            {
                return Ok(self.backup.clone());
            }
            Ok(_) => self.rotate_backup().map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // A copy, not a link: a program that still has the file open may write into it.
        let mut copy = self.temp_file("keeping a backup", &snapshot.text, Some(snapshot))?;
        copy.rename_to(&self.backup).map_err(failed)?;
        sync_folder(&self.folder).map_err(failed)?;
        Ok(self.backup.clone())
    }

    fn rotate_backup(&self) -> io::Result<()> {
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

    /// Gives the file this text; returns `None` if it is no longer the one in `seen`. Where it cannot be replaced with the same
    /// owner and permissions, because it is a mount point (`rename(2)`, EBUSY) or the file of another user, it is written in
    /// place.
    pub(super) fn replace(
        &self,
        seen: Option<&FileSnapshot>,
        text: &str,
        deadline: &mut LockDeadline<'_>,
    ) -> Result<Option<Replaced>, StoreError> {
        let failed = |source| self.failed("replacing it", source);
        let mut temp = self.temp_file("writing the new one", text.as_bytes(), seen)?;
        match seen {
            // A hard link does not replace a file that the Python tool may have created meanwhile.
            None => match fs::hard_link(&self.temp, &self.target) {
                Ok(()) => drop(temp),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                // A file system without links.
                Err(_) if fs::symlink_metadata(&self.target).is_ok() => return Ok(None),
                Err(_) => temp.rename_to(&self.target).map_err(failed)?,
            },
            Some(snapshot) => {
                let unlockable = |source| self.failed("locking it", source);
                lock(&snapshot.file, WaitReason::FileLock, deadline, unlockable)?;
                if !snapshot.is_current_at(&self.target).map_err(failed)? || !temp.is_still_there()
                {
                    return Ok(None);
                }
                let renamed = if temp.is_alike {
                    temp.rename_to(&self.target)
                } else {
                    Err(io::ErrorKind::PermissionDenied.into())
                };
                match renamed {
                    Err(error) if is_only_in_place(&error) => {
                        self.write_in_place(snapshot, temp, text)?;
                        return Ok(Some(Replaced::InPlace(Instant::now())));
                    }
                    renamed => renamed.map_err(failed)?,
                }
            }
        }
        Ok(Some(Replaced::Renamed(Instant::now())))
    }

    /// Writes the text into the file, under both locks. From the time when the new file is the copy beside it, the change counts
    /// as made, unless the old text is put back after an error: readers of a torn file answer from the copy, and the next writer
    /// [repairs](Self::repair) the file from it.
    fn write_in_place(
        &self,
        snapshot: &FileSnapshot,
        mut temp: TempFile<'_>,
        text: &str,
    ) -> Result<(), StoreError> {
        let failed = |source| self.failed("writing into it", source);
        let file = &snapshot.file;
        if file.metadata().map_err(failed)?.nlink() == 0 {
            return Err(failed(io::Error::other(REPLACED_MOUNT)));
        }
        temp.rename_to(&self.copy)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|source| self.failed("keeping a copy", source))?;
        let written = overwrite(file, text.as_bytes()).map_err(failed);
        // Programs that have the file in another folder have no copy there. There was room for the old text.
        if written.is_err() && overwrite(file, &snapshot.text).is_err() {
            return written.map_err(StoreError::unconfirmed);
        }
        self.remove_copy();
        written
    }

    /// Writes the text to `….new`, as far as this user may with the owner and the permissions of `like`.
    fn temp_file(
        &self,
        step: &'static str,
        text: &[u8],
        like: Option<&FileSnapshot>,
    ) -> Result<TempFile<'_>, StoreError> {
        like.map(|like| like.file.metadata())
            .transpose()
            .and_then(|like| TempFile::write(&self.temp, text, like.as_ref()))
            .map_err(|source| self.failed(step, source))
    }

    fn remove_copy(&self) {
        // A failure does not matter: beside a whole file the copy is not used.
        let _ = fs::remove_file(&self.copy);
    }

    /// The copy of the text that a writer that has crashed was writing into this file.
    pub(super) fn unfinished(&self, torn: &FileSnapshot) -> Option<FileSnapshot> {
        let copy = FileSnapshot::at(&self.copy).ok().flatten()?;
        // In a folder such as /tmp, another user could make one.
        let (of_torn, of_copy) = (torn.file.metadata().ok()?, copy.file.metadata().ok()?);
        let is_of_group = of_torn.mode() & 0o020 != 0 && of_copy.gid() == of_torn.gid();
        let is_trusted = [of_torn.uid(), geteuid().as_raw()].contains(&of_copy.uid())
            || is_of_group
            || of_torn.mode() & 0o002 != 0;
        // Pages that were not written when the machine stopped are zero.
        let is_start = torn.text.len() <= copy.text.len()
            && std::iter::zip(&torn.text, &copy.text)
                .all(|(byte, of_copy)| byte == of_copy || *byte == 0);
        (is_trusted && copy.is_whole() && is_start).then_some(copy)
    }

    /// Finishes what a writer that has crashed was writing in place, and removes its copy. Under the registry lock.
    pub(super) fn repair(&self, deadline: &mut LockDeadline<'_>) -> Result<(), StoreError> {
        if fs::symlink_metadata(&self.copy).is_err() {
            return Ok(());
        }
        if let Some(torn) = FileSnapshot::to_replace(&self.target)?.filter(|now| !now.is_whole()) {
            let unlockable = |source| self.failed("locking it", source);
            lock(&torn.file, WaitReason::FileLock, deadline, unlockable)?;
            // Another program may have written it until now.
            if let Some(copy) = self.unfinished(&torn.reopen()?) {
                overwrite(&torn.file, &copy.text)
                    .map_err(|source| self.failed("finishing an earlier change", source))?;
            }
        }
        self.remove_copy();
        Ok(())
    }

    /// Makes the rename durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sync_folder(&self.folder).map_err(|source| self.failed("confirming it", source))
    }

    pub(super) fn failed(&self, step: &'static str, source: io::Error) -> StoreError {
        StoreError::Write {
            file: self.target.clone(),
            step,
            source,
        }
    }
}

/// Writes a text into a file that is no registry, as [`StorePaths::replace`] does: by a rename if the new file gets the owner and
/// the permissions of the old one, otherwise in place. A pipe or a device is written directly.
///
/// # Errors
///
/// The file then has its old content.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    // A symbolic link stays, also one that leads nowhere yet.
    let target = project::resolve(path)?;
    let known = fs::metadata(&target).ok();
    if known.as_ref().is_some_and(|known| !known.is_file()) {
        return fs::write(target, text);
    }
    // Not `….new`, which is used only under the lock of a registry.
    let temp = beside(&target, &format!(".{}.new", std::process::id()));
    let renamed = TempFile::write(&temp, text, known.as_ref()).and_then(|mut temp| {
        if !temp.is_alike {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        temp.rename_to(&target)
    });
    match renamed {
        Err(error) if known.is_some() && is_only_in_place(&error) => {
            // Without CREATE, which may be refused in a sticky folder (proc_sys_fs(5), protected_regular).
            let file = OpenOptions::new().write(true).open(&target)?;
            let old = fs::read(&target);
            let written = overwrite(&file, text);
            if let (Err(_), Ok(old)) = (&written, old) {
                // There was room for it; the error is reported.
                let _ = overwrite(&file, &old);
            }
            written
        }
        renamed => renamed,
    }
}

/// The old, unlinked file, which other programs may still have open.
pub(super) struct ReplacedFile {
    snapshot: FileSnapshot,
    /// Its text, unless another program has written it.
    text: Vec<u8>,
}

impl FileSnapshot {
    /// Writes the new text into the replaced file, for programs that opened it earlier and wait for our lock.
    pub(super) fn publish(self, text: &str) -> ReplacedFile {
        let mut held = self.text.clone();
        let nameless = self.file.metadata().is_ok_and(|found| found.nlink() == 0);
        let unwritten = self.reread().is_ok_and(|now| now == self.text);
        // Emptied first: a reader that does not lock must not take a mixture for a whole text.
        if nameless && unwritten && self.file.set_len(0).is_ok() {
            held = match self.file.write_all_at(text.as_bytes(), 0) {
                Ok(()) => text.as_bytes().to_vec(),
                // Readers see a torn text, read again, and find the new file.
                Err(_) => self.reread().unwrap_or_default(),
            };
        }
        // A failure does not matter: closing the file unlocks it as well.
        let _ = FileExt::unlock(&self.file);
        ReplacedFile {
            snapshot: self,
            text: held,
        }
    }
}

impl ReplacedFile {
    /// Returns the registry that another program has written into it since, if any.
    pub(super) fn late_write(
        self,
        deadline: &mut LockDeadline<'_>,
    ) -> Result<Option<Registry>, StoreError> {
        if self.snapshot.reread()? == self.text {
            return Ok(None);
        }
        let read_stable = read_stable(|| self.snapshot.reopen().map(Some), deadline)?;
        Ok(read_stable
            .filter(FileSnapshot::is_whole)
            .map(|snapshot| snapshot.recovered().registry))
    }
}

/// A new file before its rename; removed if it is not renamed.
struct TempFile<'a> {
    path: &'a Path,
    file: File,
    is_there: bool,
    /// Whether it has the owner and the permissions of the file that it is to replace.
    is_alike: bool,
}

impl<'a> TempFile<'a> {
    /// Writes and syncs `text`, as far as this user may with the owner and the permissions of `like`, or with those of any new
    /// file.
    fn write(path: &'a Path, text: &[u8], like: Option<&fs::Metadata>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // Exclusive: writes neither to a leftover nor through a planted link.
        options
            .write(true)
            .create_new(true)
            .mode(if like.is_some() { 0o600 } else { 0o666 });
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(path).and_then(|()| options.open(path))
            }
            opened => opened,
        };
        let mut temp = TempFile {
            path,
            file: file?,
            is_there: true,
            is_alike: true,
        };
        if let Some(like) = like {
            temp.is_alike = temp.resemble(like)?;
        }
        temp.file.write_all(text)?;
        temp.file.sync_all()?;
        Ok(temp)
    }

    /// Gives it the owner and the permissions of another file, and returns whether it has them then. Another group than that
    /// of the other file gets the access that all users have.
    fn resemble(&self, wanted: &fs::Metadata) -> io::Result<bool> {
        let given = adopt(&self.file, wanted, |given| {
            let of_group = if given.gid() == wanted.gid() {
                wanted.mode() & 0o070
            } else {
                (wanted.mode() & 0o007) << 3
            };
            wanted.mode() & 0o7707 | of_group
        })?;
        let identity = |found: &fs::Metadata| (found.uid(), found.gid(), found.mode() & 0o7777);
        Ok(identity(&given) == identity(wanted))
    }

    /// Whether its name still leads to it: if the lock file was deleted, another process may have replaced it.
    fn is_still_there(&self) -> bool {
        let of = |found: fs::Metadata| (found.dev(), found.ino());
        let (there, here) = (fs::symlink_metadata(self.path), self.file.metadata());
        there.is_ok_and(|there| here.is_ok_and(|here| of(there) == of(here)))
    }

    fn rename_to(&mut self, name: &Path) -> io::Result<()> {
        fs::rename(self.path, name)?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if self.is_there {
            // A leftover is removed by the next writer.
            let _ = fs::remove_file(self.path);
        }
    }
}

/// Gives a file the owner and the group of another one, and then the permissions that `mode` returns, as far as this user may.
/// Returns what it has then.
fn adopt(
    file: &File,
    wanted: &fs::Metadata,
    mode: impl Fn(&fs::Metadata) -> u32,
) -> io::Result<fs::Metadata> {
    let given = file.metadata()?;
    let user = (wanted.uid() != given.uid()).then_some(wanted.uid());
    let group = (wanted.gid() != given.gid()).then_some(wanted.gid());
    // The result is looked at below. A user may give a file to a group of theirs, but to no other user (chown(2)).
    if user.is_some() || group.is_some() {
        let _ = fchown(file, user, group).or_else(|_| fchown(file, None, group));
    }
    // After the owner: `fchown` clears permission bits.
    let given = file.metadata()?;
    let mode = mode(&given);
    // DrvFs refuses every change of permissions, also one without an effect.
    if given.mode() & 0o7777 != mode {
        let _ = file.set_permissions(Permissions::from_mode(mode));
    }
    file.metadata()
}

/// Whether a file may be writable although a rename to its name failed with this error: of a mount point, or in a folder that is
/// read-only, or whose sticky bit keeps the files of others.
fn is_only_in_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Writes a text into a file, durably. Emptied first: a reader that does not lock must not take a mixture for a whole text.
fn overwrite(file: &File, text: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(text, 0)?;
    file.sync_all()
}

/// Makes the names in a folder durable, where the file system supports it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // A folder without read permission cannot be opened.
    let Ok(opened) = File::open(folder) else {
        return Ok(());
    };
    opened.sync_all().or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    })
}

/// Before the umask.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

/// A program that damages the file again and again must not fill the disk.
const BACKUPS_MAX: u32 = 1000;
