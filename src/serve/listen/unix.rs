//! The file of a Unix domain socket to listen on, which a killed process leaves behind.
//!
//! Decided here: what happens to a file that exists already. A socket without a listener is left over and is replaced; a socket
//! with a listener, and a file of another kind, stays as it is. At the end the file is removed, unless another one has taken its place.

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

use super::socket::{BACKLOG, new_stream};

/// The file of a listening socket; removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, to recognise a file that has taken its place.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // One that stays is replaced by the next listener.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens at `path`. Users who may write to a file of this `mode` can connect.
pub fn bind_at(path: &Path, mode: u32) -> io::Result<(SocketFile, UnixListener)> {
    let address = SocketAddrUnix::new(path)?;
    let socket = new_stream(AddressFamily::UNIX)?;
    let _lock = path.parent().map(lock_folder);
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_left_over(path)?;
            bind(&socket, &address)?;
        }
        bound => bound?,
    }
    let file = SocketFile::of(path)?;
    // No client can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    listen(&socket, BACKLOG)?;
    Ok((file, UnixListener::from(socket)))
}

/// Removes a socket without a listener; an error if the file is anything else. The caller holds the lock of its folder.
pub fn remove_left_over(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is no socket has that name",
        ));
    }
    match connect_at_once(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Its process has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => match Errno::from_io_error(&error) {
            // Its backlog is full, or it is a datagram socket.
            Some(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => {
                Err(io::ErrorKind::AddrInUse.into())
            }
            _ => Err(error),
        },
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Checks that a socket can have this path. The error is the maximum length in bytes.
pub fn check_length(path: &Path) -> Result<(), usize> {
    // The system may accept one byte more, but clients that use C strings could not connect then.
    if SocketAddr::from_pathname(path).is_ok() {
        return Ok(());
    }
    // The maximum differs between systems and can only be found by trying.
    let fits = |length: &usize| SocketAddr::from_pathname("/".repeat(*length)).is_ok();
    Err((1..).take_while(fits).last().unwrap_or(0))
}

/// Connects to a socket; an error if its backlog is full.
pub fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let socket = new_stream(AddressFamily::UNIX)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixStream::from(socket))
}

/// Keeps other interceptors from binding in `folder` at the same time: a socket that is bound and does not listen yet looks left
/// over. Returns `None` if another program holds the lock for longer than [`LOCK_TIME_MAX`], or the folder cannot be locked, as on
/// NFS.
pub fn lock_folder(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    let deadline = Instant::now() + LOCK_TIME_MAX;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(_) => return None,
        }
    }
}

/// An interceptor holds the lock for less than a millisecond.
const LOCK_TIME_MAX: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_over_socket_is_replaced_and_no_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ic.sock");
        let kind = |path: &Path| bind_at(path, 0o600).map_err(|error| error.kind()).err();

        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "a socket leaves its file behind");
        let (name, socket) = bind_at(&path, 0o640).expect("it is left over");
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
    fn a_file_that_has_taken_its_place_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ic.sock");
        let first = bind_at(&path, 0o600).expect("there is no file");
        fs::remove_file(&path).expect("it is there");
        let second = bind_at(&path, 0o600).expect("there is no file");
        drop(first);
        assert!(connect_at_once(&path).is_ok(), "the second's");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn of_many_at_once_one_replaces_a_left_over_socket() {
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
            assert!(connect_at_once(&path).is_ok(), "its file is there");
        }
    }
}
