//! The portable way: a look at the file's stamp now and then.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::PERIOD;

/// Waits for a change of a file.
pub struct Watch {
    file: PathBuf,
    stamp: Option<Stamp>,
}

impl Watch {
    /// Watches `file` from now on.
    pub fn new(file: &Path) -> Watch {
        Watch {
            file: file.to_owned(),
            stamp: stamp(file),
        }
    }

    /// Waits until the file may have changed since this was made, at most for `limit`.
    pub fn wait(self, limit: Option<Duration>) {
        let since = Instant::now();
        let left = |limit: Duration| limit.saturating_sub(since.elapsed());
        while limit.is_none_or(|limit| !left(limit).is_zero()) {
            thread::sleep(limit.map_or(PERIOD, |limit| left(limit).min(PERIOD)));
            if stamp(&self.file) != self.stamp {
                return;
            }
        }
    }
}

/// Device, inode, length, and the times of the last write and the last change of anything.
type Stamp = [u64; 7];

/// `None` without a file.
fn stamp(file: &Path) -> Option<Stamp> {
    let found = fs::metadata(file).ok()?;
    let time =
        |seconds: i64, nanoseconds: i64| [seconds.cast_unsigned(), nanoseconds.cast_unsigned()];
    let [written, written_ns] = time(found.mtime(), found.mtime_nsec());
    let [changed, changed_ns] = time(found.ctime(), found.ctime_nsec());
    let (device, inode, bytes) = (found.dev(), found.ino(), found.len());
    Some([
        device, inode, bytes, written, written_ns, changed, changed_ns,
    ])
}
