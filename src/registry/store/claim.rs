//! The lock of the one process that serves all projects of a registry, on `….serve` beside the registry file.
//!
//! It is a record lock (fcntl(2)) and not a flock(2): the system says which process holds it, also to a process in another
//! container. A process id in a file could be that of a killed process, which another one has by now.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::error::{StoreError, WaitReason};
use super::lock::LockDeadline;
use super::replace::StorePaths;

/// The result of [`Store::claim`](super::Store::claim).
#[derive(Debug)]
pub enum Claim {
    /// This process has the claim until the file is closed.
    Ours(File),
    /// Another process has it. The process id is not known in a container that does not see the process.
    HeldBy(Option<u32>),
}

impl StorePaths {
    /// As [`Store::claim`](super::Store::claim).
    pub(super) fn claim(&self, deadline: &mut LockDeadline<'_>) -> Result<Claim, StoreError> {
        let failed = |source| self.failed("taking the .serve beside it", source);
        self.create_folder()?;
        loop {
            // A lock for writing needs a file that is open for writing.
            let file = self
                .open_lock(self.claim_file(), OFlags::RDWR, deadline)
                .map_err(failed)?;
            self.share_lock(&file);
            match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // If the file was deleted until now, other processes lock a new one.
                    let ours = file.metadata().map_err(failed)?;
                    match fs::symlink_metadata(self.claim_file()) {
                        Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => {
                            return Ok(Claim::Ours(file));
                        }
                        _ => {}
                    }
                }
                Err(Errno::AGAIN | Errno::ACCESS) => {
                    if let Some(pid) = holder(&file) {
                        return Ok(Claim::HeldBy(pid));
                    }
                }
                Err(error) => return Err(failed(error.into())),
            }
            deadline.wait(WaitReason::RegistryLock)?;
        }
    }

    /// As [`Store::claimed_by`](super::Store::claimed_by).
    pub(super) fn claimed_by(&self) -> Option<u32> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(self.claim_file(), flags, Mode::empty()).ok()?;
        holder(&file.into())?
    }
}

/// The process that has locked the file for writing, `Some(None)` if it is not known; `None` if there is none. One that has locked it
/// for reading only is another program.
fn holder(file: &File) -> Option<Option<u32>> {
    let lock = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok()??;
    if lock.typ != FlockType::WriteLock {
        return None;
    }
    // On a network file system, that of another machine has a negative one.
    let pid = lock.pid.map(|pid| pid.as_raw_nonzero().get());
    Some(pid.and_then(|pid| u32::try_from(pid).ok()))
}
