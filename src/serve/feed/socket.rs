//! The socket of the feed, and those who listen on it.
//!
//! Decided here: where it is and who may come. It stands in a folder that is ours and that nobody else may enter; where such a
//! folder cannot be had, there is no feed, and everything else goes on. A socket appears under its name when it already
//! listens, so one that refuses connections is a dead interceptor's, and whoever finds it removes it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::future;

use super::command::{Command, Lines};
use super::event::{Event, InstanceInfo, Line, now};
use super::hub::{Hub, Listener};
use crate::serve::conn::{Conn, Filled, Reader, Stream, Writer};
use crate::serve::reactor::{Source, Timer};
use crate::serve::{listen, peer};

/// The socket, for as long as it is there.
#[derive(Debug)]
pub struct Channel {
    listener: Source<UnixListener>,
    path: PathBuf,
    who: Rc<InstanceInfo>,
}

impl Channel {
    /// Listens in `folder`, which is made if it is not there, and says who is behind it.
    pub fn open(folder: &Path, who: InstanceInfo) -> io::Result<Channel> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        if !is_private(folder)? {
            return Err(io::Error::other("the folder is open to others"));
        }
        let pid = std::process::id();
        let path = own_socket(folder);
        // In another container there may be another process of that id.
        if UnixStream::connect(&path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let unready = folder.join(format!(".{pid}.sock"));
        let listener = match UnixListener::bind(&unready) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                fs::remove_file(&unready)?;
                UnixListener::bind(&unready)?
            }
            bound => bound?,
        };
        // From here on what goes wrong leaves nothing behind.
        let mut channel = Channel {
            listener: Source::listening(listener)?,
            path: unready,
            who: Rc::new(who),
        };
        fs::set_permissions(&channel.path, Permissions::from_mode(0o600))?;
        fs::rename(&channel.path, &path)?;
        channel.path = path;
        Ok(channel)
    }

    /// Lets listeners in, for ever.
    pub async fn run(self, hub: Arc<Hub>, spawn: impl Fn(Attended)) {
        loop {
            let stream = match listen::accept_unix(&self.listener).await {
                Ok(stream) => stream,
                Err(error) => {
                    log::debug!("the live feed takes no more listeners: {error}");
                    return;
                }
            };
            if stream.unix().is_some_and(peer::is_same_user) {
                spawn(Box::pin(attend(
                    stream,
                    Arc::clone(&hub),
                    Rc::clone(&self.who),
                )));
            }
        }
    }
}

/// A listener, as long as it is there.
type Attended = Pin<Box<dyn Future<Output = ()>>>;

impl Drop for Channel {
    fn drop(&mut self) {
        // Another one removes it if this one cannot.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where this process listens, if it does.
pub fn own_socket(folder: &Path) -> PathBuf {
    folder.join(format!("{}.sock", std::process::id()))
}

/// Whether a folder is ours, and nobody else's to enter.
pub fn is_private(folder: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(folder)?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    Ok(metadata.is_dir() && is_ours && metadata.mode() & 0o077 == 0)
}

/// One listener, from its coming to its leaving.
async fn attend(stream: Stream, hub: Arc<Hub>, who: Rc<InstanceInfo>) {
    let mut wire = Conn::new(stream);
    let (reader, writer) = wire.split();
    match hub.join(|recording| hello(&who, recording)) {
        Ok(listener) => future::or(hear(reader, &hub), tell(writer, &listener)).await,
        Err(lines) => {
            // Whoever does not read it may ask again.
            let _ = writer.write_all(lines.concat().as_bytes()).await;
        }
    }
    drop(wire);
    if let Some(arrivals) = hub.records_for_nobody() {
        Timer::at(Instant::now() + RECORDING_OUTLIVES).await;
        hub.forget_unless_after(arrivals);
    }
}

fn hello(who: &InstanceInfo, recording: bool) -> Line {
    let hello = Event::Hello {
        protocol: PROTOCOL,
        who,
        recording,
        at: now(),
    };
    hello.line()
}

/// Does what a listener asks for, until it leaves.
async fn hear(mut reader: Reader<'_>, hub: &Hub) {
    let mut lines = Lines::default();
    while let Ok(Filled::Some) = reader.fill().await {
        let bytes = reader.bytes();
        let taken = lines.take(bytes, |Command::Record(on)| hub.record(on));
        let len = bytes.len();
        reader.consume(len);
        if taken.is_err() {
            return;
        }
    }
}

/// Tells a listener what happens, until nothing does any more.
async fn tell(writer: Writer<'_>, listener: &Listener) {
    let mut out = Vec::new();
    while listener.take(&mut out).await {
        if writer.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        // Bodies are rare, and large.
        out.shrink_to(OUT_BYTES_KEPT);
    }
}

const PROTOCOL: u32 = 1;

/// For how long what happens is recorded for nobody.
const RECORDING_OUTLIVES: Duration = Duration::from_secs(60);

const OUT_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("run");
        for (mode, expected) in [(0o700, true), (0o750, false), (0o701, false), (0o500, true)] {
            let _ = fs::remove_dir(&folder);
            fs::create_dir(&folder).expect("it can be made");
            fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(is_private(&folder).ok(), Some(expected), "{mode:o}");
        }
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).expect("it can be made");
        assert_eq!(is_private(&link).ok(), Some(false), "a link is no folder");
        assert!(is_private(&parent.path().join("nowhere")).is_err());
    }
}
