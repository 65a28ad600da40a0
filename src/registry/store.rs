//! The registry file: reading it while others write it, and changing it so that nothing is lost.
//!
//! Two kinds of programs share the file. Other `ic` processes take turns by a lock on a file beside it, which is never
//! renamed or removed, and replace the registry by a rename. The Python tool knows nothing of that: it reads
//! under `flock(LOCK_SH)`, and writes by opening the file (which empties it), then taking
//! `flock(LOCK_EX)`, then writing in place. What follows from that:
//!
//! * An empty or half text may be one that is just being written. It is looked at again for
//!   a second, and for as long as somebody holds a lock on it. A whole text is believed at once, without
//!   any lock.
//! * A change is computed without keeping the Python tool waiting. Then its lock is taken, the text compared with the
//!   one the change was computed from, and only where it is still the same the rename follows; else everything starts again.
//! * Somebody may have opened the file before the rename and not have read it yet. Who takes no lock is given a moment to
//!   read the old text; who waits for our lock on it finds the new one there.
//! * The Python tool may have opened the file before the rename and write afterwards, into a file that has no name
//!   any more; or it may have read before the rename, and write over what it has not seen. So the writer
//!   stays a moment and looks at both; what it finds becomes the text the change is made to again.
//!
//! What the Python tool read before a change and writes back later than that moment cannot be told from a change that
//! it means; only its own taking of a lock around both could help.

mod error;
mod lock;
mod merge;
mod replace;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, thread};

pub use self::error::{StoreError, Waiting, Warning};
use self::lock::Patience;
use self::replace::Place;
use self::snapshot::{Ailment, Look, settled};
use super::model::Registry;

/// The registry file on the disk, shared with other processes.
#[derive(Clone)]
pub struct Store {
    file: PathBuf,
    on_wait: Arc<dyn Fn(&Waiting) + Send + Sync>,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The registry; empty where there is no file.
    pub registry: Registry,
    /// What is wrong with the file, if something is.
    pub warning: Option<Warning>,
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Updated<R> {
    /// What the change returned, the last time it was made.
    pub value: R,
    /// What was wrong with the file, and was repaired.
    pub warning: Option<Warning>,
}

impl Store {
    /// The store in this file, which need not exist. Nothing is opened yet.
    pub fn new(file: PathBuf) -> Store {
        Store {
            file,
            on_wait: Arc::new(|_| {}),
        }
    }

    /// Calls `notice` once for each call of [`read`](Self::read) or [`update`](Self::update) that has to wait for another
    /// program for more than half a second.
    pub fn on_wait(mut self, notice: impl Fn(&Waiting) + Send + Sync + 'static) -> Store {
        self.on_wait = Arc::new(notice);
        self
    }

    /// `~/.config/litellm/port_registry.json`: under the home folder on every system, as the Python tool has it.
    ///
    /// # Errors
    ///
    /// `HOME` is not set, and the system does not know this user's home folder either; or it is relative, which would
    /// make another registry in each folder.
    pub fn default_file() -> Result<PathBuf, StoreError> {
        let home = dirs::home_dir().filter(|home| home.is_absolute());
        let home = home.ok_or(StoreError::NoHome)?;
        Ok(home.join(".config/litellm/port_registry.json"))
    }

    /// The file's path, as it was given.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// What the file says now. Creates and changes nothing; a file that is not there is an empty registry.
    ///
    /// A damaged file is answered from as far as it can be read, with a warning. An empty or torn one takes a second to
    /// be believed to be so.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no regular file or larger than 16 MiB, or is still being written after 10 s.
    pub fn read(&self) -> Result<Snapshot, StoreError> {
        let look = settled(|| Look::at(&self.file), &mut self.patience())?;
        let Some(look) = look else {
            return Ok(Snapshot {
                registry: Registry::default(),
                warning: None,
            });
        };
        let (registry, ailment) = look.reading();
        let warning = ailment.map(|ailment| Warning::new(&self.file, &registry, ailment, None));
        Ok(Snapshot { registry, warning })
    }

    /// Makes a change, as one critical section among all processes; returns what `change` returned.
    ///
    /// `change` may be called several times, each time with what the file says by then, and only the last call counts: what it
    /// finds out belongs into what it returns, and calling it again must do no harm. Where it changes
    /// nothing and the file is sound, nothing is written, no lock is waited for, and no file or folder is created.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read); the file or its folder cannot be written, or not with the owner and the permissions that
    /// the file has; the lock could not be had within 10 s. The file has its old content then, or the new one where only the
    /// last step failed.
    pub fn update<R>(
        &self,
        mut change: impl FnMut(&mut Registry) -> R,
    ) -> Result<Updated<R>, StoreError> {
        // What is behind this is large, and the same whatever the change returns: it exists once.
        let mut value = None;
        let warning = self.update_with(&mut |registry| value = Some(change(registry)))?;
        let value = value.expect("an update makes its change at least once");
        Ok(Updated { value, warning })
    }

    fn update_with(
        &self,
        change: &mut dyn FnMut(&mut Registry),
    ) -> Result<Option<Warning>, StoreError> {
        if self.is_unchanged_by(change)? {
            return Ok(None);
        }
        let mut patience = self.patience();
        let place = Place::of(&self.file)?;
        place.make_folder()?;
        let _turn = place.take_turn(&mut patience)?;
        patience.start_over();
        let mut is_replaced = false;
        self.change_until_it_stays(&place, &mut patience, change, &mut is_replaced)
            .map_err(|error| {
                if is_replaced {
                    error.unconfirmed()
                } else {
                    error
                }
            })
    }

    /// Makes the change in our turn, again for as long as others write over it; `is_replaced` says whether it has been
    /// made at all.
    fn change_until_it_stays(
        &self,
        place: &Place,
        patience: &mut Patience<'_>,
        change: &mut dyn FnMut(&mut Registry),
        is_replaced: &mut bool,
    ) -> Result<Option<Warning>, StoreError> {
        let mut warning = None;
        let mut late: Option<Late> = None;
        loop {
            let look = settled(|| Look::to_replace(place.target()), patience)?;
            let (current, ailment) = look.as_ref().map_or_else(Default::default, Look::reading);
            let text = look.as_ref().map(|look| look.text.as_slice());
            let mut next = late
                .as_ref()
                .map_or_else(|| current.clone(), |late| late.onto(&current, text));
            let base = next.clone();
            change(&mut next);
            if next == current && ailment.is_none() {
                return Ok(warning);
            }
            if let (Some(look), Some(ailment)) = (&look, ailment) {
                let backup = place.back_up(look)?;
                warning.get_or_insert_with(|| {
                    Warning::new(&self.file, &current, ailment, Some(backup))
                });
            }
            let next_text = next.to_text();
            let Some(replaced) = place.replace(look.as_ref(), &next_text, patience)? else {
                patience.wait(Waiting::Written)?;
                continue;
            };
            // The change is made. What remains is to see that it stays, and that it has cost nobody else's.
            *is_replaced = true;
            place.sync()?;
            thread::sleep(UNLOCKED_READING.saturating_sub(replaced.elapsed()));
            let orphan = look.map(|look| look.pass_on(&next_text));
            thread::sleep(AFTERMATH.saturating_sub(replaced.elapsed()));
            late = match orphan {
                None => None,
                Some(orphan) => orphan.written_late(patience)?.map(|theirs| Late {
                    base: current,
                    ours: next_text.clone().into_bytes(),
                    theirs,
                }),
            };
            if late.is_some() {
                continue;
            }
            if fs::read(place.target()).is_ok_and(|text| text == next_text.as_bytes()) {
                return Ok(warning);
            }
            // Somebody else has been there, and may be still.
            let look = settled(|| Look::at(place.target()), patience)?;
            let is_in = |look: &Look| next.change_is_in(&base, &look.reading().0);
            if look.as_ref().is_none_or(is_in) {
                return Ok(warning);
            }
            patience.wait(Waiting::Written)?;
        }
    }

    /// The file is sound, and `change` leaves everything as it is.
    fn is_unchanged_by(&self, change: &mut dyn FnMut(&mut Registry)) -> Result<bool, StoreError> {
        let current = match Look::at(&self.file)? {
            None => Registry::default(),
            Some(look) if look.is_whole() => match look.parsed {
                Ok(registry) => registry,
                Err(_) => return Ok(false),
            },
            Some(_) => return Ok(false),
        };
        let mut next = current.clone();
        change(&mut next);
        Ok(next == current)
    }

    fn patience(&self) -> Patience<'_> {
        Patience::new(&self.file, &*self.on_wait)
    }
}

impl Warning {
    fn new(file: &Path, registry: &Registry, ailment: Ailment, backup: Option<PathBuf>) -> Warning {
        let Ailment { damage, flaws } = ailment;
        Warning {
            file: file.to_owned(),
            damage,
            flaws,
            kept: registry.len(),
            backup,
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// What another program wrote into the old file after it had been replaced.
struct Late {
    /// What both went out from.
    base: Registry,
    /// The text that the file was replaced with.
    ours: Vec<u8>,
    theirs: Registry,
}

impl Late {
    /// The registry to make our change to: as if theirs had been first.
    fn onto(&self, current: &Registry, text: Option<&[u8]>) -> Registry {
        if text == Some(&self.ours) {
            return self.theirs.clone();
        }
        let mut merged = current.clone();
        merged.merge(&self.base, &self.theirs);
        merged
    }
}

/// How long a writer stays to see that its change is not written over, or another lost by it. The Python tool reads,
/// binds a port or two to see that they are free, and writes: about a millisecond.
const AFTERMATH: Duration = Duration::from_millis(5);

/// How long those have who opened the old file and read it without a lock, before it is written for those who wait for
/// our lock on it. A part of [`AFTERMATH`], so that nobody's change takes longer for it.
const UNLOCKED_READING: Duration = Duration::from_millis(4);
