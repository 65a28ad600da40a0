//! Waiting for other programs: for their locks, and for the end of their writes.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use fs2::FileExt;

use super::error::{StoreError, WAIT_MAX, Wait, WaitReason};

/// Takes the exclusive `flock`, under which the Python tool writes as well. `failed` converts the error of a file that
/// cannot be locked.
pub(super) fn lock(
    file: &File,
    waiting: WaitReason,
    deadline: &mut LockDeadline<'_>,
    failed: impl Fn(io::Error) -> StoreError,
) -> Result<(), StoreError> {
    loop {
        match file.try_lock_exclusive() {
            Ok(()) => return Ok(()),
            Err(error) if is_contended(&error) => deadline.wait(waiting)?,
            Err(error) => return Err(failed(error)),
        }
    }
}

pub(super) fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

/// The time limit of one wait for other programs, which polls.
///
/// A blocking `flock` cannot be given up without a signal, which would need unsafe code.
pub(super) struct LockDeadline<'a> {
    file: &'a Path,
    notice: &'a dyn Fn(&Wait),
    since: Instant,
    pause: Duration,
    noticed: bool,
}

impl<'a> LockDeadline<'a> {
    pub(super) fn new(file: &'a Path, notice: &'a dyn Fn(&Wait)) -> Self {
        LockDeadline {
            file,
            notice,
            since: Instant::now(),
            pause: PAUSE_MIN,
            noticed: false,
        }
    }

    /// Sleeps for a moment. Fails once [`WAIT_MAX`] has passed.
    pub(super) fn wait(&mut self, reason: WaitReason) -> Result<(), StoreError> {
        let file = self.file.to_owned();
        let wait = Wait { file, reason };
        if self.since.elapsed() >= WAIT_MAX {
            return Err(StoreError::Busy(wait));
        }
        if self.is_long() && !self.noticed {
            self.noticed = true;
            (self.notice)(&wait);
        }
        self.pause();
        Ok(())
    }

    /// Whether the wait is long enough to tell the user.
    pub(super) fn is_long(&self) -> bool {
        self.since.elapsed() >= NOTICE_AFTER
    }

    /// Sleeps, each time twice as long, up to [`PAUSE_MAX`].
    pub(super) fn pause(&mut self) {
        thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Starts the time limit again, for waits for another file.
    pub(super) fn restart(&mut self, file: &'a Path) {
        self.file = file;
        self.since = Instant::now();
        self.pause = PAUSE_MIN;
    }
}

/// A user notices a wait of this length.
const NOTICE_AFTER: Duration = Duration::from_millis(500);

const PAUSE_MIN: Duration = Duration::from_millis(1);

/// Short enough that 64 waiting processes leave no gap between two turns.
const PAUSE_MAX: Duration = Duration::from_millis(20);
