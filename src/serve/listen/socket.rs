//! The name of a Unix domain socket to listen on: a file, which a process that is killed leaves behind.
//!
//! Decided here: whose a name is that is there already. A socket on which nobody listens is a dead process's, and is
//! replaced; one on which somebody does, and whatever is no socket, stays as it is. At the end the name is removed, unless
//! it has become somebody else's.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, bind, connect, listen};

use super::{BACKLOG, unwatched};

/// The file of a socket that listens, for as long as it does.
#[derive(Debug)]
pub struct Name {
    path: PathBuf,
    /// Device and number of the file, by which it is told from one that has taken its place.
    identity: (u64, u64),
}

impl Name {
    fn of(path: &Path) -> io::Result<Name> {
        Ok(Name {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Whoever wants the name next replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens at `path`, which only those can connect to whom `mode` lets write there.
pub fn bind_at(path: &Path, mode: u32) -> io::Result<(Name, UnixListener)> {
    let address = SocketAddrUnix::new(path)?;
    let socket = unwatched(AddressFamily::UNIX)?;
    let _alone = path.parent().map(alone);
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            make_way(path)?;
            bind(&socket, &address)?;
        }
        bound => bound?,
    }
    let name = Name::of(path)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    listen(&socket, BACKLOG)?;
    Ok((name, UnixListener::from(socket)))
}

/// Removes a socket on which nobody listens.
fn make_way(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is no socket has that name",
        ));
    }
    match connect_at_once(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // It has ended at this moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => match Errno::from_io_error(&error) {
            // Its queue is full; or it is one for datagrams.
            Some(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => {
                Err(io::ErrorKind::AddrInUse.into())
            }
            _ => Err(error),
        },
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Whether a socket can have this path; if not, how many bytes it may have.
pub fn check_length(path: &Path) -> Result<(), usize> {
    // Not what the system takes, which may be a byte more: clients with C strings have to reach it.
    if SocketAddr::from_pathname(path).is_ok() {
        return Ok(());
    }
    // Systems differ, and say it only this way.
    let fits = |length: &usize| SocketAddr::from_pathname("/".repeat(*length)).is_ok();
    Err((1..).take_while(fits).last().unwrap_or(0))
}

/// Connects to a socket, unless that takes waiting.
pub fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let socket = unwatched(AddressFamily::UNIX)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixStream::from(socket))
}

/// Keeps other interceptors from binding in `folder` at the same time: one that has bound and does not listen yet looks dead.
/// Whatever else locks folders is not waited for long.
fn alone(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    let deadline = Instant::now() + ALONE_TIME_MAX;
    while flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(ALONE_PAUSE);
    }
    Some(folder)
}

/// An interceptor holds the lock for less than a millisecond.
const ALONE_TIME_MAX: Duration = Duration::from_secs(1);
const ALONE_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_from_the_dead_and_from_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ic.sock");
        let kind = |path: &Path| bind_at(path, 0o600).map_err(|error| error.kind()).err();

        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "a socket leaves its name behind");
        let (name, socket) = bind_at(&path, 0o640).expect("it is a dead one's");
        let mode = fs::metadata(&path).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(kind(&path), Some(io::ErrorKind::AddrInUse), "alive");
        drop((name, socket));
        assert!(!path.exists(), "it is removed at the end");

        fs::write(&path, "text").expect("it can be written");
        assert_eq!(kind(&path), Some(io::ErrorKind::AlreadyExists), "a file");
        assert_eq!(fs::read(&path).expect("it is there"), b"text");
        fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink(folder.path().join("else"), &path).expect("a link");
        assert_eq!(kind(&path), Some(io::ErrorKind::AlreadyExists), "a link");
        fs::remove_file(&path).expect("it is there");
        let datagrams = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        assert_eq!(kind(&path), Some(io::ErrorKind::AddrInUse), "for datagrams");
        drop(datagrams);
        let nowhere = folder.path().join("nowhere/ic.sock");
        assert_eq!(kind(&nowhere), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_name_that_has_become_somebody_elses_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ic.sock");
        let first = bind_at(&path, 0o600).expect("nobody has it");
        fs::remove_file(&path).expect("it is there");
        let second = bind_at(&path, 0o600).expect("nobody has it");
        drop(first);
        assert!(connect_at_once(&path).is_ok(), "the second's");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn of_many_at_once_one_has_the_name_of_the_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ic.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).expect("a socket"));
            let bound: Vec<_> = thread::scope(|scope| {
                let several: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| bind_at(&path, 0o600)))
                    .collect();
                several
                    .into_iter()
                    .filter_map(|one| one.join().expect("no panic").ok())
                    .collect()
            });
            assert_eq!(bound.len(), 1);
            assert!(connect_at_once(&path).is_ok(), "whose name is there");
        }
    }
}
