//! The Unix socket of the feed and its subscribers.
//!
//! Decided here: where the socket is and who may connect. Its folder belongs to this user and no other user can enter it;
//! without such a folder there is no feed, and everything else works. The socket gets its name when it already listens, so a
//! socket that refuses connections belongs to a dead process, and the process that finds it removes it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::future;

use super::command;
use super::event::{Event, InstanceInfo, unix_time};
use super::hub::{Hub, Subscriber};
use crate::serve::conn::{Conn, Filled, Reader, Stream, Writer};
use crate::serve::reactor::{Source, Timer};
use crate::serve::{listen, peer};

/// The listening socket; dropping it removes its file.
#[derive(Debug)]
pub struct FeedSocket {
    listener: Source<UnixListener>,
    path: PathBuf,
    instance: Rc<InstanceInfo>,
}

impl FeedSocket {
    /// Listens in `folder`, which is created if it does not exist. `instance` goes into the first line of each subscriber.
    pub fn open(folder: &Path, instance: InstanceInfo) -> io::Result<FeedSocket> {
        create_private(folder)?;
        let pid = std::process::id();
        let path = own_socket(folder);
        // A process in another container may have the same id.
        let connected = listen::connect_at_once(&path).map_err(|error| error.kind());
        // It would block if the other's queue is full.
        if matches!(connected, Ok(_) | Err(io::ErrorKind::WouldBlock)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let temporary = folder.join(format!(".{pid}.sock"));
        let listener = match UnixListener::bind(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                fs::remove_file(&temporary)?;
                UnixListener::bind(&temporary)?
            }
            bound => bound?,
        };
        // From here on an error drops the value, which removes the file.
        let mut socket = FeedSocket {
            listener: Source::listening(listener)?,
            path: temporary,
            instance: Rc::new(instance),
        };
        fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
        fs::rename(&socket.path, &path)?;
        socket.path = path;
        Ok(socket)
    }

    /// Accepts subscribers and spawns a task for each, until accepting fails.
    pub async fn run(self, hub: Rc<Hub>, spawn: impl Fn(SubscriberTask)) {
        loop {
            let stream = match listen::accept(&self.listener).await {
                Ok(stream) => stream,
                Err(error) => {
                    log::debug!("cannot accept more listeners of the live feed: {error}");
                    return;
                }
            };
            if stream.plain().is_some_and(peer::is_same_user) {
                spawn(Box::pin(serve_subscriber(
                    stream,
                    Rc::clone(&hub),
                    Rc::clone(&self.instance),
                )));
            }
        }
    }
}

/// Serves one subscriber until it disconnects.
type SubscriberTask = Pin<Box<dyn Future<Output = ()>>>;

impl Drop for FeedSocket {
    fn drop(&mut self) {
        // A later process removes it if this one cannot.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the path of the socket of this process in `folder`, whether or not it exists.
pub fn own_socket(folder: &Path) -> PathBuf {
    folder.join(format!("{}.sock", std::process::id()))
}

/// Creates a folder that no other user can enter. Fails if it exists and is not private.
pub fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    match is_private(folder)? {
        true => Ok(()),
        false => Err(io::Error::other("other users can enter its folder")),
    }
}

/// Whether a folder belongs to this user and no other user can enter it. Fails if its metadata cannot be read.
pub fn is_private(folder: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(folder)?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    Ok(metadata.is_dir() && is_ours && metadata.mode() & 0o077 == 0)
}

async fn serve_subscriber(stream: Stream, hub: Rc<Hub>, instance: Rc<InstanceInfo>) {
    let mut conn = Conn::new(stream);
    let (reader, writer) = conn.split();
    let hello = |recording| {
        let event = Event::Hello {
            protocol: PROTOCOL,
            instance: &instance,
            recording,
            at: unix_time(),
        };
        event.line()
    };
    match hub.subscribe(hello) {
        Ok(subscriber) => {
            future::or(
                read_commands(reader, &hub),
                write_lines(writer, &subscriber),
            )
            .await;
        }
        Err(lines) => {
            // A failed write needs no handling: the connection ends here.
            let _ = writer.write_all(lines.concat().as_bytes()).await;
        }
    }
    drop(conn);
    if let Some(subscriptions) = hub.unattended_recording() {
        Timer::at(Instant::now() + UNATTENDED_RECORDING_MAX).await;
        hub.stop_unattended_recording(subscriptions);
    }
}

/// Runs the commands of a subscriber until it disconnects or sends a line that is too long.
async fn read_commands(mut reader: Reader<'_>, hub: &Hub) {
    while let Ok(Filled::Some) = reader.fill().await {
        match command::read(reader.bytes(), |on| hub.set_recording(on)) {
            Ok(used) => reader.consume(used),
            Err(command::TooLong) => return,
        }
    }
}

/// Writes what is published until the hub is closed or the subscriber disconnects.
async fn write_lines(writer: Writer<'_>, subscriber: &Subscriber) {
    let mut out = Vec::new();
    while subscriber.receive(&mut out).await {
        if writer.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        // Recorded bodies are rare and large.
        out.shrink_to(OUT_BYTES_KEPT);
    }
}

/// The version of the protocol, in the hello.
const PROTOCOL: u32 = 1;

/// A recording continues this long without a subscriber: a page that is reloaded keeps it.
const UNATTENDED_RECORDING_MAX: Duration = Duration::from_secs(60);

const OUT_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_private_folder_is_accepted() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("run");
        for (mode, expected) in [(0o700, true), (0o750, false), (0o701, false), (0o500, true)] {
            let _ = fs::remove_dir(&folder);
            fs::create_dir(&folder).expect("it can be created");
            fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(is_private(&folder).ok(), Some(expected), "{mode:o}");
        }
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).expect("it can be created");
        assert_eq!(
            is_private(&link).ok(),
            Some(false),
            "a link is not a folder"
        );
        assert!(is_private(&parent.path().join("nowhere")).is_err());
    }
}
