//! inotify(7): nothing runs while nothing changes.
//!
//! Watched are, from the root to the file: each folder and each link on the path for being moved or removed, and the folder in
//! which the next part of the path is missing, or in which the file is, for its entries. So is the folder above that, because the
//! removal of a folder is not reported by itself while a program has a file of it open. Entries of the folders further up are not
//! watched: there is much traffic in a home folder. After a change everything is watched anew.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::{PERIOD, stamp};

/// Waits for a change of a file.
pub enum Watch {
    /// As the system reports it.
    Reported(Entries),
    /// Where the system cannot report it.
    Seen(stamp::Watch),
}

/// The entries of folders that are watched.
pub struct Entries {
    inotify: OwnedFd,
    /// The number of the watched folder, and the name in it.
    names: Vec<(i32, OsString)>,
}

impl Watch {
    /// Watches `file` from now on.
    pub fn new(file: &Path) -> Watch {
        let seen = stamp::Watch::new(file);
        Entries::watched(file).map_or_else(
            |error| {
                log::debug!(
                    "looking at the registry every {} s: {error}",
                    PERIOD.as_secs()
                );
                Watch::Seen(seen)
            },
            Watch::Reported,
        )
    }

    /// Waits until the file may have changed since this was made, at most for `limit`.
    pub fn wait(self, limit: Option<Duration>) {
        match self {
            Watch::Seen(watch) => watch.wait(limit),
            Watch::Reported(entries) => {
                if let Err(error) = entries.wait(limit) {
                    log::debug!("cannot wait for changes of the registry: {error}");
                    thread::sleep(PERIOD);
                }
            }
        }
    }
}

impl Entries {
    fn watched(file: &Path) -> Result<Entries, Errno> {
        let mut entries = Entries {
            inotify: inotify::init(CreateFlags::CLOEXEC)?,
            names: Vec::new(),
        };
        // Again if what was missing has come meanwhile.
        for _ in 0..ATTEMPTS_MAX {
            if entries.watch(file)? {
                return Ok(entries);
            }
        }
        Err(Errno::AGAIN)
    }

    /// Watches every part of the path. Returns false if it changed meanwhile.
    fn watch(&mut self, file: &Path) -> Result<bool, Errno> {
        let mut folder = PathBuf::from("/");
        // The folder in which `folder` is, and its name there.
        let mut above = None;
        let mut ahead = parts(file);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let path = folder.join(&name);
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.add_entry_below(above, &folder, &name)?;
                    return Ok(fs::symlink_metadata(&path).is_err());
                }
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            };
            if found.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                // Its removal and its replacement change how many names it has.
                self.add(&path, MOVED | WatchFlags::ATTRIB | WatchFlags::DONT_FOLLOW)?;
                let Ok(target) = fs::read_link(&path) else {
                    return Ok(false);
                };
                if target.is_absolute() {
                    folder = PathBuf::from("/");
                    above = None;
                }
                for part in parts(&target).into_iter().rev() {
                    ahead.push_front(part);
                }
            } else if ahead.is_empty() {
                return self.add_entry_below(above, &folder, &name).map(|()| true);
            } else if name == ".." {
                folder.pop();
                above = None;
            } else {
                match self.add(&path, MOVED | WatchFlags::ONLYDIR) {
                    // It may not be read: whether it is moved is then not noticed before the next change.
                    Ok(_) | Err(Errno::ACCESS) => {
                        above = Some((std::mem::replace(&mut folder, path), name));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    /// Watches for `name` in `folder`, and first for the folder itself in the one `above` it.
    fn add_entry_below(
        &mut self,
        above: Option<(PathBuf, OsString)>,
        folder: &Path,
        name: &OsStr,
    ) -> Result<(), Errno> {
        if let Some((above, folder)) = above {
            match self.add_entry(&above, &folder) {
                // It may not be read.
                Ok(()) | Err(Errno::ACCESS) => {}
                Err(error) => return Err(error),
            }
        }
        self.add_entry(folder, name)
    }

    fn add_entry(&mut self, folder: &Path, name: &OsStr) -> Result<(), Errno> {
        let kind = rustix::fs::statfs(folder)?.f_type;
        if NETWORK_FILE_SYSTEMS.contains(&(kind as u32)) {
            return Err(Errno::NOTSUP);
        }
        let number = self.add(folder, MOVED | ENTRIES | WatchFlags::ONLYDIR)?;
        self.names.push((number, name.to_owned()));
        Ok(())
    }

    fn add(&self, path: &Path, events: WatchFlags) -> Result<i32, Errno> {
        inotify::add_watch(&self.inotify, path, events | WatchFlags::MASK_ADD)
    }

    fn wait(&self, limit: Option<Duration>) -> Result<(), Errno> {
        let since = Instant::now();
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = Reader::new(self.inotify.as_fd(), &mut buffer);
        loop {
            if let Some(limit) = limit
                && events.is_buffer_empty()
                && !self.is_readable_within(limit.saturating_sub(since.elapsed()))?
            {
                return Ok(());
            }
            let event = match events.next() {
                Err(Errno::INTR) => continue,
                event => event?,
            };
            // Without a name: the folder or link itself, or events that were lost.
            let Some(name) = event.file_name() else {
                return Ok(());
            };
            let name = OsStr::from_bytes(name.to_bytes());
            let mut watched = self.names.iter();
            if watched.any(|(number, it)| *number == event.wd() && it == name) {
                return Ok(());
            }
        }
    }

    fn is_readable_within(&self, limit: Duration) -> Result<bool, Errno> {
        let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// The folder or link itself has another name, or none.
const MOVED: WatchFlags = WatchFlags::MOVE_SELF.union(WatchFlags::DELETE_SELF);

/// Something in a folder has come, gone, or changed.
const ENTRIES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB);

/// statfs(2): 9p, NFS, and the two of SMB.
const NETWORK_FILE_SYSTEMS: [u32; 4] = [0x0102_1997, 0x6969, 0xFF53_4D42, 0xFE53_4D42];

/// Linux's own limit (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: u32 = 40;

const ATTEMPTS_MAX: u32 = 16;

/// Room for several events with short names, and for one with the longest (`NAME_MAX`, 255).
const EVENTS_BYTES: usize = 1024;
