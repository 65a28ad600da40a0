//! What all connections of the page share: the secrets, the registry, and the feeds.
//!
//! What a change of the registry does is decided in `registry`, as for every command. Here open pages are woken after each.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::registry::store::{DamageReport, Store, StoreError};
use crate::registry::{PortRange, Registry};

use super::auth::Auth;
use super::feeds::Feeds;

/// What all connections of the page share.
pub struct AppState {
    /// Checks who may send requests.
    pub auth: Auth,
    /// The registry file.
    pub store: Store,
    /// The allocation range.
    pub range: PortRange,
    /// Reports what was wrong with the registry file when a change repaired it.
    pub warn: fn(DamageReport),
    /// The interceptors' feeds; `None` if no folder can be used for their sockets.
    pub feeds: Option<Arc<Feeds>>,
    /// The line that tells a page the prices of models, if there are any.
    pub prices: Option<Vec<u8>>,
    /// Wakes the pages.
    pub changes: Changes,
}

/// Counts the changes of the registry that this process makes.
#[derive(Default)]
pub struct Changes {
    count: Mutex<u64>,
    changed: Condvar,
}

impl AppState {
    /// Changes the registry, as one step for every process that shares it, and wakes the pages.
    ///
    /// # Errors
    ///
    /// As [`Store::update`].
    pub fn change<T>(&self, change: impl FnMut(&mut Registry) -> T) -> Result<T, StoreError> {
        let updated = self.store.update(change)?;
        if let Some(warning) = updated.warning {
            (self.warn)(warning);
        }
        *self.changes.lock() += 1;
        self.changes.changed.notify_all();
        Ok(updated.value)
    }
}

impl Changes {
    /// How many changes were made.
    pub fn count(&self) -> u64 {
        *self.lock()
    }

    /// Waits until more changes than `seen` were made, at most for `time`.
    pub fn wait(&self, seen: u64, time: Duration) {
        let is_unchanged = |count: &mut u64| *count == seen;
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), time, is_unchanged);
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
