//! The registry file: reading it while others write it, and changing it without losing a change.
//!
//! Two kinds of programs share the file. `ic` processes exclude one another by a lock on a file beside it, which is never
//! renamed or removed, and replace the registry by a rename, or where that is not possible write it in place, with a copy
//! beside it for the case of a crash. The Python tool does not know that lock: it reads under `flock(LOCK_SH)`; it writes by
//! opening the file (which empties it), then taking `flock(LOCK_EX)`, then writing in place. Consequences:
//!
//! * An empty or torn text may be a write in progress. It is read again for a second, and for as long as another
//!   program holds a lock on it. A complete text is accepted at once, without a lock.
//! * A change is computed without a lock that the Python tool waits for. Then its lock is taken, and the file is
//!   replaced only if it still has the text that the change was computed from; otherwise everything starts again.
//! * Another program may have opened the file before the rename and not have read it yet. A reader without a lock gets
//!   a few milliseconds to read the old text; a reader that waits for our lock on it finds the new text there.
//! * The Python tool may have opened the file before the rename and write into the unlinked file afterwards; or it may
//!   have read before the rename and overwrite the change. So the writer waits a few milliseconds and checks both; what
//!   it finds is the new base of the change.
//!
//! A text that the Python tool read before a change and writes later than that cannot be told from a change that it
//! intends; only a lock around its read and write could prevent that. And what it writes into the unlinked file is missing from the
//! registry until our writer has found it, some milliseconds later.

mod claim;
mod error;
mod lock;
mod merge;
mod replace;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

pub use self::claim::Claim;
pub use self::error::{DamageReport, REPLACED_MOUNT, StoreError, Wait, WaitReason};
use self::lock::LockDeadline;
pub use self::replace::lock_beside;
pub(crate) use self::replace::replace_file;
use self::replace::{Replaced, StorePaths};
use self::snapshot::{FileSnapshot, read_stable};
use super::model::Registry;
use super::project::home_folder;
use super::recover::Recovered;

/// The registry file on the disk, shared with other processes.
#[derive(Clone)]
pub struct Store {
    file: PathBuf,
    on_wait: Arc<dyn Fn(&Wait) + Send + Sync>,
}

/// The result of [`Store::read`].
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The registry; empty where there is no file.
    pub registry: Registry,
    /// What is wrong with the file, if anything.
    pub warning: Option<DamageReport>,
}

/// The result of [`Store::update`].
#[derive(Debug, Clone)]
pub struct Updated<R> {
    /// What the change returned, the last time it was made.
    pub value: R,
    /// What was wrong with the file, and was repaired.
    pub warning: Option<DamageReport>,
}

impl Store {
    /// Returns the store in this file, which need not exist. Opens nothing.
    pub fn new(file: PathBuf) -> Store {
        Store {
            file,
            on_wait: Arc::new(|_| {}),
        }
    }

    /// Sets a function that is called once by each [`read`](Self::read) or [`update`](Self::update) that waits for
    /// another program for more than half a second.
    pub fn on_wait(mut self, notice: impl Fn(&Wait) + Send + Sync + 'static) -> Store {
        self.on_wait = Arc::new(notice);
        self
    }

    /// `~/.config/litellm/port_registry.json`: under the home folder on every system, as the Python tool has it.
    ///
    /// # Errors
    ///
    /// There is no home folder, neither in `HOME` nor in the user database; or it is relative, which would be another
    /// registry in each folder.
    pub fn default_file() -> Result<PathBuf, StoreError> {
        let home = home_folder().ok_or(StoreError::NoHome)?;
        Ok(home.join(".config/litellm/port_registry.json"))
    }

    /// The file's path, as it was given.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Reads the file. Creates and changes nothing; a missing file is an empty registry.
    ///
    /// Of a damaged file it returns what can be read, with a warning. An empty or torn file takes a second, because it
    /// may be a write in progress.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no regular file or larger than 16 MiB, or is still being written after 10 s.
    pub fn read(&self) -> Result<Loaded, StoreError> {
        let Some(snapshot) = read_stable(|| self.snapshot(), &mut self.deadline())? else {
            return Ok(Loaded {
                registry: Registry::default(),
                warning: None,
            });
        };
        let Recovered { registry, issues } = snapshot.recovered();
        let warning = snapshot.parsed.err().map(|damage| DamageReport {
            file: self.file.clone(),
            damage,
            issues,
            kept: registry.len(),
            backup: None,
        });
        Ok(Loaded { registry, warning })
    }

    /// Makes a change, as one critical section across all processes; returns what `change` returned.
    ///
    /// `change` may be called several times, each time with the current registry; only the last call counts, so it must
    /// not have side effects. If it changes nothing and the file is undamaged, no lock is taken, and nothing is
    /// created or written.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); the file or its folder cannot be written, or not with the file's owner and permissions;
    /// the lock is not free within 10 s. The file then has its old content, or the new one if only the last step
    /// failed ([`StoreError::Unconfirmed`]).
    pub fn update<R>(
        &self,
        mut change: impl FnMut(&mut Registry) -> R,
    ) -> Result<Updated<R>, StoreError> {
        // Not generic behind this: the code is large and does not depend on `R`.
        let mut value = None;
        let warning = self.update_with(&mut |registry| value = Some(change(registry)))?;
        let value = value.expect("an update calls its change at least once");
        Ok(Updated { value, warning })
    }

    /// Claims the registry for this process, as the one that serves all of its projects. Creates the registry's folder.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or its file system has no locks.
    pub fn claim(&self) -> Result<Claim, StoreError> {
        StorePaths::of(&self.file)?.claim(&mut self.deadline())
    }

    /// The process id of the other process that has the [claim](Self::claim). To be asked by processes without the claim only: to
    /// close the file that is asked gives it up (fcntl(2)).
    pub fn claimed_by(&self) -> Option<u32> {
        StorePaths::of(&self.file).ok()?.claimed_by()
    }

    /// The file, or the copy of what another writer is writing into it, or has not finished.
    fn snapshot(&self) -> Result<Option<FileSnapshot>, StoreError> {
        let snapshot = FileSnapshot::at(&self.file)?;
        Ok(snapshot.map(|now| {
            let paths = (!now.is_whole()).then(|| StorePaths::of(&self.file).ok());
            let copy = paths.flatten().and_then(|paths| paths.unfinished(&now));
            copy.unwrap_or(now)
        }))
    }

    fn update_with(
        &self,
        change: &mut dyn FnMut(&mut Registry),
    ) -> Result<Option<DamageReport>, StoreError> {
        if self.is_unchanged_by(change)? {
            return Ok(None);
        }
        let paths = StorePaths::of(&self.file)?;
        paths.create_folder()?;
        let mut deadline = LockDeadline::new(paths.lock_file(), &*self.on_wait);
        let _lock = paths.lock(&mut deadline)?;
        deadline.restart(&self.file);
        paths.repair(&mut deadline)?;
        let mut update = Update {
            file: &self.file,
            paths: &paths,
            deadline,
            is_replaced: false,
            warning: None,
            late_write: None,
        };
        loop {
            match update.attempt(change) {
                Ok(true) => return Ok(update.warning),
                Ok(false) => {}
                Err(error) if update.is_replaced => return Err(error.unconfirmed()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the file is undamaged and `change` changes nothing.
    fn is_unchanged_by(&self, change: &mut dyn FnMut(&mut Registry)) -> Result<bool, StoreError> {
        let snapshot = FileSnapshot::at(&self.file)?;
        let needs_lock = |now: &FileSnapshot| !now.is_whole() || now.damage().is_some();
        if snapshot.as_ref().is_some_and(needs_lock) {
            return Ok(false);
        }
        let recovered = snapshot.as_ref().map(FileSnapshot::recovered);
        let current = recovered.unwrap_or_default().registry;
        let mut next = current.clone();
        change(&mut next);
        Ok(next == current)
    }

    fn deadline(&self) -> LockDeadline<'_> {
        LockDeadline::new(&self.file, &*self.on_wait)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// A change in progress, under the registry lock.
struct Update<'a> {
    file: &'a Path,
    paths: &'a StorePaths,
    deadline: LockDeadline<'a>,
    /// Whether the file was replaced, so that an error no longer means that nothing has changed.
    is_replaced: bool,
    warning: Option<DamageReport>,
    late_write: Option<LateWrite>,
}

impl Update<'_> {
    /// Makes the change to the present file. Returns false if another program interfered: then it must be made again.
    fn attempt(&mut self, change: &mut dyn FnMut(&mut Registry)) -> Result<bool, StoreError> {
        let snapshot = read_stable(
            || FileSnapshot::to_replace(self.paths.target()),
            &mut self.deadline,
        )?;
        let recovered = snapshot.as_ref().map(FileSnapshot::recovered);
        let Recovered {
            registry: current,
            issues,
        } = recovered.unwrap_or_default();
        let text = snapshot.as_ref().map(|snapshot| snapshot.text.as_slice());
        let base = match &self.late_write {
            Some(late_write) => late_write.onto(&current, text),
            None => current.clone(),
        };
        let mut next = base.clone();
        change(&mut next);
        let damage = snapshot.as_ref().and_then(FileSnapshot::damage);
        if next == current && damage.is_none() {
            return Ok(true);
        }
        if let (Some(snapshot), Some(damage)) = (&snapshot, damage) {
            let backup = self.paths.back_up(snapshot)?;
            self.warning.get_or_insert_with(|| DamageReport {
                file: self.file.to_owned(),
                damage: damage.clone(),
                issues,
                kept: current.len(),
                backup: Some(backup),
            });
        }
        let text = next.to_text();
        let replaced = self
            .paths
            .replace(snapshot.as_ref(), &text, &mut self.deadline)?;
        let Some(replaced) = replaced else {
            self.deadline.wait(WaitReason::Writer)?;
            return Ok(false);
        };
        self.is_replaced = true;
        self.paths.sync()?;
        self.late_write = match (replaced, snapshot) {
            (Replaced::Renamed(since), Some(old)) => {
                LateWrite::watch(old, current, &text, since, &mut self.deadline)?
            }
            (Replaced::Renamed(since) | Replaced::InPlace(since), written) => {
                // Unlocks it, for programs that wait to write it.
                drop(written);
                thread::sleep(OVERWRITE_WATCH.saturating_sub(since.elapsed()));
                None
            }
        };
        Ok(self.late_write.is_none() && self.is_kept(&base, &next, &text)?)
    }

    /// Whether the change is still in the file: another program may have overwritten it.
    fn is_kept(
        &mut self,
        base: &Registry,
        next: &Registry,
        text: &str,
    ) -> Result<bool, StoreError> {
        if fs::read(self.paths.target()).is_ok_and(|now| now == text.as_bytes()) {
            return Ok(true);
        }
        // The other program may still be writing.
        let snapshot = read_stable(|| FileSnapshot::at(self.paths.target()), &mut self.deadline)?;
        if snapshot.is_none_or(|now| next.change_is_in(base, &now.recovered().registry)) {
            return Ok(true);
        }
        self.deadline.wait(WaitReason::Writer)?;
        Ok(false)
    }
}

/// What another program wrote into the old file after it was replaced.
struct LateWrite {
    /// The registry that both changes started from.
    base: Registry,
    /// The text that the file was replaced with.
    ours: Vec<u8>,
    theirs: Registry,
}

impl LateWrite {
    /// Publishes `ours` in the replaced file, and returns what another program writes into it.
    fn watch(
        replaced: FileSnapshot,
        base: Registry,
        ours: &str,
        since: Instant,
        deadline: &mut LockDeadline<'_>,
    ) -> Result<Option<LateWrite>, StoreError> {
        thread::sleep(UNLOCKED_READ_GRACE.saturating_sub(since.elapsed()));
        let replaced_file = replaced.publish(ours);
        thread::sleep(OVERWRITE_WATCH.saturating_sub(since.elapsed()));
        let theirs = replaced_file.late_write(deadline)?;
        Ok(theirs.map(|theirs| LateWrite {
            base,
            ours: ours.as_bytes().to_vec(),
            theirs,
        }))
    }

    /// Returns the registry to make our change to, as if theirs had been made first.
    fn onto(&self, current: &Registry, text: Option<&[u8]>) -> Registry {
        if text == Some(&self.ours) {
            return self.theirs.clone();
        }
        let mut merged = current.clone();
        merged.merge(&self.base, &self.theirs);
        merged
    }
}

/// How long a writer watches for other changes after its rename. The Python tool reads, probes a port or two, and
/// writes: about a millisecond.
const OVERWRITE_WATCH: Duration = Duration::from_millis(5);

/// How long a reader without a lock has to read the old file before the new text is written into it. A part of
/// [`OVERWRITE_WATCH`], so it makes no change slower.
const UNLOCKED_READ_GRACE: Duration = Duration::from_millis(4);
