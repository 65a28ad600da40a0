//! Waiting for other programs: for their locks, and for the end of their writing.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use fs2::FileExt;

use super::error::{PATIENCE, StoreError, Waiting};

/// Takes the exclusive lock that the Python tool writes under.
pub(super) fn lock(
    file: &File,
    waiting: Waiting,
    patience: &mut Patience<'_>,
) -> Result<(), LockError> {
    loop {
        match file.try_lock_exclusive() {
            Ok(()) => return Ok(()),
            Err(error) if is_contended(&error) => {
                patience.wait(waiting).map_err(LockError::Busy)?
            }
            Err(error) => return Err(LockError::Refused(error)),
        }
    }
}

/// Why a lock was not had.
pub(super) enum LockError {
    Busy(StoreError),
    Refused(io::Error),
}

pub(super) fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

/// The time that one call spends waiting for other programs, in naps.
///
/// Not `flock` without `LOCK_NB`: it cannot be given up, and a timer's signal would need unsafe code.
pub(super) struct Patience<'a> {
    file: &'a Path,
    notice: &'a dyn Fn(&Waiting),
    since: Instant,
    nap: Duration,
    noticed: bool,
}

impl<'a> Patience<'a> {
    pub(super) fn new(file: &'a Path, notice: &'a dyn Fn(&Waiting)) -> Self {
        Patience {
            file,
            notice,
            since: Instant::now(),
            nap: NAP_MIN,
            noticed: false,
        }
    }

    /// Waits a little; an error when it has been [`PATIENCE`] in all.
    pub(super) fn wait(&mut self, waiting: Waiting) -> Result<(), StoreError> {
        let waited = self.since.elapsed();
        if waited >= PATIENCE {
            return Err(StoreError::Busy {
                file: self.file.to_owned(),
                waiting,
            });
        }
        if self.is_noticeable() && !self.noticed {
            self.noticed = true;
            (self.notice)(&waiting);
        }
        self.nap();
        Ok(())
    }

    /// Whether a person wonders by now.
    pub(super) fn is_noticeable(&self) -> bool {
        self.since.elapsed() >= NOTICE
    }

    pub(super) fn nap(&mut self) {
        thread::sleep(self.nap);
        self.nap = (self.nap * 2).min(NAP_MAX);
    }

    /// The wait so far was for something else.
    pub(super) fn start_over(&mut self) {
        self.since = Instant::now();
        self.nap = NAP_MIN;
    }
}

/// A wait that a person notices, and wants explained.
const NOTICE: Duration = Duration::from_millis(500);

const NAP_MIN: Duration = Duration::from_millis(1);

/// Short enough that 64 waiting processes leave no gap between two turns.
const NAP_MAX: Duration = Duration::from_millis(20);
