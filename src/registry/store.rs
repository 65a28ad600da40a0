//! The registry file: reading it while others write it, and changing it without losing a change.
//!
//! Two kinds of programs share the file. `ic` processes exclude one another by a lock on a file beside it, which is never
//! renamed or removed, and replace the registry by a rename. The Python tool does not know that lock: it reads under
//! `flock(LOCK_SH)`; it writes by opening the file (which empties it), then taking `flock(LOCK_EX)`, then writing in
//! place. Consequences:
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
//! intends; only a lock around its read and write could prevent that.

mod error;
mod lock;
mod merge;
mod replace;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

pub use self::error::{DamageReport, StoreError, WaitReason};
use self::lock::LockDeadline;
use self::replace::StorePaths;
use self::snapshot::{FileSnapshot, read_stable};
use super::model::Registry;
use super::recover::Recovered;

/// The registry file on the disk, shared with other processes.
#[derive(Clone)]
pub struct Store {
    file: PathBuf,
    on_wait: Arc<dyn Fn(&WaitReason) + Send + Sync>,
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
    pub fn on_wait(mut self, notice: impl Fn(&WaitReason) + Send + Sync + 'static) -> Store {
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
        let home = dirs::home_dir().filter(|home| home.is_absolute());
        let home = home.ok_or(StoreError::NoHome)?;
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
        let Some(snapshot) = read_stable(|| FileSnapshot::at(&self.file), &mut self.deadline())?
        else {
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

    fn update_with(
        &self,
        change: &mut dyn FnMut(&mut Registry),
    ) -> Result<Option<DamageReport>, StoreError> {
        if self.is_unchanged_by(change)? {
            return Ok(None);
        }
        let mut deadline = self.deadline();
        let paths = StorePaths::of(&self.file)?;
        paths.create_folder()?;
        let _lock = paths.lock(&mut deadline)?;
        deadline.restart();
        let mut is_replaced = false;
        self.apply_until_stable(&paths, &mut deadline, change, &mut is_replaced)
            .map_err(|error| {
                if is_replaced {
                    error.unconfirmed()
                } else {
                    error
                }
            })
    }

    /// Makes the change under the registry lock, and repeats it while other programs overwrite it. Sets `is_replaced`
    /// once the file was replaced.
    fn apply_until_stable(
        &self,
        paths: &StorePaths,
        deadline: &mut LockDeadline<'_>,
        change: &mut dyn FnMut(&mut Registry),
        is_replaced: &mut bool,
    ) -> Result<Option<DamageReport>, StoreError> {
        let mut warning = None;
        let mut late_write: Option<LateWrite> = None;
        loop {
            let snapshot = read_stable(|| FileSnapshot::to_replace(paths.target()), deadline)?;
            let Recovered {
                registry: current,
                issues,
            } = snapshot
                .as_ref()
                .map(FileSnapshot::recovered)
                .unwrap_or_default();
            let damage = snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.parsed.as_ref().err());
            let text = snapshot.as_ref().map(|snapshot| snapshot.text.as_slice());
            let mut next = late_write.as_ref().map_or_else(
                || current.clone(),
                |late_write| late_write.onto(&current, text),
            );
            let base = next.clone();
            change(&mut next);
            if next == current && damage.is_none() {
                return Ok(warning);
            }
            if let (Some(snapshot), Some(damage)) = (&snapshot, damage) {
                let backup = paths.back_up(snapshot)?;
                warning.get_or_insert_with(|| DamageReport {
                    file: self.file.clone(),
                    damage: damage.clone(),
                    issues,
                    kept: current.len(),
                    backup: Some(backup),
                });
            }
            let next_text = next.to_text();
            let Some(replaced) = paths.replace(snapshot.as_ref(), &next_text, deadline)? else {
                deadline.wait(WaitReason::Writer)?;
                continue;
            };
            // The change is made. Check that it was not overwritten, and that no other change was lost.
            *is_replaced = true;
            paths.sync()?;
            late_write = match snapshot {
                None => {
                    thread::sleep(OVERWRITE_WATCH.saturating_sub(replaced.elapsed()));
                    None
                }
                Some(snapshot) => {
                    LateWrite::watch(snapshot, current, &next_text, replaced, deadline)?
                }
            };
            if late_write.is_some() {
                continue;
            }
            if fs::read(paths.target()).is_ok_and(|text| text == next_text.as_bytes()) {
                return Ok(warning);
            }
            // Another program has written the file, and may still be writing.
            let snapshot = read_stable(|| FileSnapshot::at(paths.target()), deadline)?;
            let is_in =
                |snapshot: &FileSnapshot| next.change_is_in(&base, &snapshot.recovered().registry);
            if snapshot.as_ref().is_none_or(is_in) {
                return Ok(warning);
            }
            deadline.wait(WaitReason::Writer)?;
        }
    }

    /// Whether the file is undamaged and `change` changes nothing.
    fn is_unchanged_by(&self, change: &mut dyn FnMut(&mut Registry)) -> Result<bool, StoreError> {
        let current = match FileSnapshot::at(&self.file)? {
            None => Registry::default(),
            Some(snapshot) if snapshot.is_whole() => match snapshot.parsed {
                Ok(registry) => registry,
                Err(_) => return Ok(false),
            },
            Some(_) => return Ok(false),
        };
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
