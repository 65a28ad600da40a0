//! That a project's port is used is recorded: when its interceptor starts, and when it stops. While it runs, the port is
//! listened on, and needs no record to be known as used.
//!
//! The record only serves `ic prune --unused-for`. So it is made beside the interceptor's work, never before it or on the way of
//! a request; an interceptor that is started again and again does not write each time; and a registry that cannot be
//! written is no reason to complain.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::registry::project::Project;
use crate::registry::store::Store;
use crate::registry::{Moment, Note};
use crate::text::io_message;

/// A port of the registry that is used for its project.
pub struct Usage {
    store: Store,
    project: Project,
    /// The last use that was recorded when it started.
    recorded: Option<Moment>,
}

impl Usage {
    /// The use of a project's port, of which this is known so far.
    pub fn new(store: &Store, project: &Project, known: &Note) -> Usage {
        Usage {
            // Without its notices of waiting: nobody waits for this.
            store: Store::new(store.path().to_owned()),
            project: project.clone(),
            recorded: known.last_used,
        }
    }

    /// It starts now. Returns at once.
    pub fn starts(&self) {
        let is_fresh = |known: Moment| known.age(now()) < START_GRAIN;
        if !self.recorded.is_some_and(is_fresh) {
            self.record(START_GRAIN);
        }
    }

    /// It has stopped now. Returns when that is recorded, or when it takes too long.
    pub fn stops(&self) {
        // Should it take longer, the process ends in the midst of it, as by a kill: the file stays whole.
        let _ = self.record(STOP_GRAIN).recv_timeout(STOP_PATIENCE);
    }

    /// Records the use in a thread of its own, which hangs up when it is done.
    fn record(&self, grain: Duration) -> mpsc::Receiver<()> {
        let (done, is_done) = mpsc::channel();
        let (store, project) = (self.store.clone(), self.project.clone());
        let spawned = thread::Builder::new()
            .name("last-use".to_owned())
            .spawn(move || {
                if let Err(error) = store.update(|registry| registry.touch(&project, now(), grain))
                {
                    log::debug!("the use of the port is not recorded: {error}");
                }
                drop(done);
            });
        if let Err(error) = spawned {
            log::debug!(
                "the use of the port is not recorded: {}",
                io_message(&error)
            );
        }
        is_done
    }
}

fn now() -> Moment {
    SystemTime::now().into()
}

/// A start is not recorded where the last use is at most so old: it will be recorded when the interceptor stops.
const START_GRAIN: Duration = Duration::from_secs(3600);

/// A stop is not recorded where the last use is at most so old.
const STOP_GRAIN: Duration = Duration::from_secs(60);

/// Writing takes milliseconds, and more only where somebody else holds the lock.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
