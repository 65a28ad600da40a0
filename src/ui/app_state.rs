//! What all connections of the page share: the secrets, the registry, the feeds, and what other commands hand in.
//!
//! What a change of the registry does is decided in `registry`, as for every command. Here open pages are woken after each.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::registry::store::{DamageReport, Store, StoreError};
use crate::registry::{Port, PortRange, Project, Registry};

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
    /// What other commands print and do.
    pub commands: Box<dyn Commands>,
    /// Wakes the pages.
    pub changes: Changes,
}

/// What the page takes from other commands, which it does not know.
pub trait Commands: Send + Sync {
    /// What a user types for `ic` in any folder, so that it uses the registry of the page.
    fn program(&self) -> String;

    /// The texts that point clients at the interceptor of a project, as `ic env` and `ic snippet` print them.
    ///
    /// # Errors
    ///
    /// Another user listens on the port.
    fn client_texts(&self, project: &Project, port: Port) -> Result<ClientTexts, String>;

    /// Whether [`start`](Self::start) would start interceptors.
    fn can_start(&self) -> bool;

    /// Starts the installed service, which serves every project.
    ///
    /// # Errors
    ///
    /// It does not start.
    fn start(&self) -> Result<(), String>;
}

/// The texts for clients of a project.
#[derive(Debug, Serialize)]
pub struct ClientTexts {
    /// One for each client.
    pub texts: Vec<ClientText>,
    /// The base URL for clients of the OpenAI API.
    pub openai_url: String,
    /// The base URL for clients of the Anthropic and Gemini APIs.
    pub anthropic_url: String,
    /// The command that serves the project; `None` for a path that a terminal would not take unchanged.
    pub serve: Option<String>,
    /// Which clients refuse to connect to the port.
    pub warning: Option<String>,
}

/// What points a client at an interceptor.
#[derive(Debug, Serialize)]
pub struct ClientText {
    /// The client, as the command line names it.
    pub kind: &'static str,
    /// The client, for people.
    pub title: &'static str,
    /// Where the text goes.
    pub hint: String,
    /// The text.
    pub text: String,
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
        self.changes.note();
        Ok(updated.value)
    }
}

impl Changes {
    /// How many changes were made.
    pub fn count(&self) -> u64 {
        *self.lock()
    }

    /// Counts a change, and wakes the pages.
    pub fn note(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
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
