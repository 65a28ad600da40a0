//! The registry as the page reads and changes it.
//!
//! What a change does is decided in `registry`, as for every command. Here open pages are woken after each change.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::registry::store::{DamageReport, Loaded, Store, StoreError};
use crate::registry::{PortRange, Registry};

/// The registry, for all pages of this process.
pub struct RegistryEditor {
    store: Store,
    range: PortRange,
    /// Reports what was wrong with the file when a change repaired it.
    warn: fn(DamageReport),
    /// How many changes were made.
    changes: Mutex<u64>,
    changed: Condvar,
}

impl RegistryEditor {
    /// An editor of this registry file and allocation range.
    pub fn new(store: Store, range: PortRange, warn: fn(DamageReport)) -> RegistryEditor {
        RegistryEditor {
            store,
            range,
            warn,
            changes: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The registry file.
    pub fn file(&self) -> &Path {
        self.store.path()
    }

    /// The allocation range.
    pub fn range(&self) -> PortRange {
        self.range
    }

    /// The registry as it is.
    ///
    /// # Errors
    ///
    /// As [`Store::read`].
    pub fn read(&self) -> Result<Loaded, StoreError> {
        self.store.read()
    }

    /// Makes a change, as one step for every process that shares the registry, and wakes the pages.
    ///
    /// # Errors
    ///
    /// As [`Store::update`].
    pub fn change<T>(&self, change: impl FnMut(&mut Registry) -> T) -> Result<T, StoreError> {
        let updated = self.store.update(change)?;
        if let Some(warning) = updated.warning {
            (self.warn)(warning);
        }
        *self.lock() += 1;
        self.changed.notify_all();
        Ok(updated.value)
    }

    /// How many changes were made.
    pub fn changes(&self) -> u64 {
        *self.lock()
    }

    /// Waits until there have been more changes than `seen`, at most for `time`.
    pub fn wait(&self, seen: u64, time: Duration) {
        let is_unchanged = |changes: &mut u64| *changes == seen;
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), time, is_unchanged);
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
