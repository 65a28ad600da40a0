//! Changes of the registry that the page asks for, and taking them back.
//!
//! What a change does is decided in `registry`, as for every command. Here it is remembered what the latest ones did, as long as
//! `ic ui` runs, so that it can be taken back from any of its pages; and pages are told at once that there is something new.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::cli::context::RegistryHandle;
use crate::cli::outcome::Failure;
use crate::registry::Registry;
use crate::registry::undo::{Change, Obstacle};

/// Where changes are made.
pub struct Desk {
    /// The registry.
    pub place: RegistryHandle,
    past: Mutex<Past>,
    /// Something is new.
    news: Condvar,
}

#[derive(Default)]
struct Past {
    /// The latest last.
    changes: VecDeque<(Done, Change)>,
    /// How many changes there have been that can be taken back.
    count: u64,
    /// The latest that has been forgotten, as all before it.
    forgotten: u64,
    /// How many, also those that were taken back.
    news: u64,
}

/// A change that was made, and can be taken back.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Done {
    /// Later ones are larger.
    pub id: u64,
    /// What was done, in a few words.
    pub label: String,
}

/// What came of taking a change back.
pub enum Undone {
    /// It is as it was before.
    Done(Done),
    /// Nothing has changed.
    InTheWay(Vec<Obstacle>),
    /// There is no such change, or no more.
    Unknown,
    /// Whatever became of it is forgotten.
    TooOld,
}

impl Desk {
    /// A desk without a past.
    pub fn new(place: RegistryHandle) -> Desk {
        Desk {
            place,
            past: Mutex::default(),
            news: Condvar::new(),
        }
    }

    /// Makes a change, as one step for every process that shares the registry; what `make` returned, and the change if
    /// there is something to take back. `label` says what was done.
    ///
    /// # Errors
    ///
    /// As [`RegistryHandle::update`].
    pub fn change<T>(
        &self,
        mut make: impl FnMut(&mut Registry) -> T,
        label: impl FnOnce(&T) -> String,
    ) -> Result<(T, Option<Done>), Failure> {
        let (value, change) = self.place.update(|registry| {
            let before = registry.clone();
            let value = make(registry);
            let change = Change::between(&before, registry);
            (value, change)
        })?;
        let mut past = self.lock();
        past.news += 1;
        let done = (!change.is_empty()).then(|| {
            past.count += 1;
            let done = Done {
                id: past.count,
                label: label(&value),
            };
            past.changes.push_back((done.clone(), change));
            if past.changes.len() > PAST_MAX {
                past.forgotten = past.changes.pop_front().map_or(0, |(done, _)| done.id);
            }
            done
        });
        drop(past);
        self.news.notify_all();
        Ok((value, done))
    }

    /// Takes a change back.
    ///
    /// # Errors
    ///
    /// As [`RegistryHandle::update`].
    pub fn undo(&self, id: u64) -> Result<Undone, Failure> {
        let past = self.lock();
        let known = past.changes.iter().find(|(done, _)| done.id == id);
        let Some((done, change)) = known.cloned() else {
            return Ok(if id <= past.forgotten {
                Undone::TooOld
            } else {
                Undone::Unknown
            });
        };
        drop(past);
        if let Err(obstacles) = self.place.update(|registry| registry.take_back(&change))? {
            return Ok(Undone::InTheWay(obstacles));
        }
        let mut past = self.lock();
        past.changes.retain(|(done, _)| done.id != id);
        past.news += 1;
        drop(past);
        self.news.notify_all();
        Ok(Undone::Done(done))
    }

    /// What can be taken back, the latest first.
    pub fn past(&self) -> Vec<Done> {
        let past = self.lock();
        past.changes
            .iter()
            .rev()
            .map(|(done, _)| done.clone())
            .collect()
    }

    /// How many changes have been made or taken back.
    pub fn changes(&self) -> u64 {
        self.lock().news
    }

    /// Waits until there have been more changes than `seen`, or for so long.
    pub fn wait(&self, seen: u64, time: Duration) {
        let is_so = |past: &mut Past| past.news == seen;
        drop(self.news.wait_timeout_while(self.lock(), time, is_so));
    }

    fn lock(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than a person remembers to have done.
pub const PAST_MAX: usize = 20;
