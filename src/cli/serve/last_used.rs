//! Records in the registry when a project's port was last used: at the start and at the end of its interceptor. In between
//! the port is listened on, which shows that it is in use.
//!
//! Only `ic prune --unused-for` reads the record. So it is written in a thread of its own, never while a request waits; an
//! interceptor that restarts often does not write each time; and an error is only logged.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::registry::project::Project;
use crate::registry::store::Store;
use crate::registry::{Note, Registry, Timestamp};
use crate::text::io_message;

/// Records the use of a project's port.
pub struct LastUsed {
    store: Store,
    project: Project,
    /// The last recorded use before this one.
    recorded: Option<Timestamp>,
}

impl LastUsed {
    /// For `project`, whose registry entry has this note.
    pub fn new(store: &Store, project: &Project, note: &Note) -> LastUsed {
        LastUsed {
            // Without messages about waiting for the lock: the user does not wait for this.
            store: Store::new(store.path().to_owned()),
            project: project.clone(),
            recorded: note.last_used,
        }
    }

    /// Records a start. Returns at once.
    pub fn record_start(&self) {
        let is_fresh = |known: Timestamp| known.age(now()) < START_INTERVAL;
        if !self.recorded.is_some_and(is_fresh) {
            self.record(START_INTERVAL);
        }
    }

    /// Records a stop. Returns when it is written, after [`STOP_TIMEOUT`] at the latest.
    pub fn record_stop(&self) {
        // After the timeout the process ends during the write, as if killed; the file stays valid.
        let _ = self.record(STOP_INTERVAL).recv_timeout(STOP_TIMEOUT);
    }

    fn record(&self, interval: Duration) -> mpsc::Receiver<()> {
        record(&self.store, vec![self.project.clone()], interval)
    }
}

/// Records the use of the projects' ports in a thread, except where the last record is at most `interval` old. The receiver
/// disconnects at its end.
pub fn record(store: &Store, projects: Vec<Project>, interval: Duration) -> mpsc::Receiver<()> {
    let (done, is_done) = mpsc::channel();
    let store = store.clone();
    let spawned = thread::Builder::new()
        .name("last-use".to_owned())
        .spawn(move || {
            let record = |registry: &mut Registry| registry.touch_all(&projects, now(), interval);
            if let Err(error) = store.update(record) {
                log::debug!("cannot record the last use of the port: {error}");
            }
            drop(done);
        });
    if let Err(error) = spawned {
        log::debug!(
            "cannot record the last use of the port: {}",
            io_message(&error)
        );
    }
    is_done
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// A start is not recorded if the last record is at most this old: the stop will be recorded.
const START_INTERVAL: Duration = Duration::from_secs(3600);

/// A stop is not recorded if the last record is at most this old.
pub const STOP_INTERVAL: Duration = Duration::from_secs(60);

/// Writing takes milliseconds, unless another process holds the lock.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(1);
