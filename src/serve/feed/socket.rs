//! The Unix socket of the feed and its subscribers.
//!
//! Decided here: where the socket is, who may connect, and when it is removed. Its folder belongs to this user and no other user
//! can enter it; without such a folder there is no feed, and everything else works. A process that ends removes its socket; one
//! that is killed cannot, and the next one that looks removes it.

use std::any::Any;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use smol::future;

use super::command::{self, Command};
use super::event::{Event, InstanceInfo, Line, Side, unix_time};
use super::hub::{Hub, Subscriber};
use super::record::Growth;
use crate::serve::conn::{Conn, Filled, Reader, Stream, Writer};
use crate::serve::listen::{self, SocketFile};
use crate::serve::peer;
use crate::serve::reactor::{self, Source, Timer};

/// The listening socket; dropping it removes its file.
#[derive(Debug)]
pub struct FeedSocket {
    listener: Source<UnixListener>,
    _file: SocketFile,
}

/// Ends with what keeps a port for the subscriber until it is dropped, or `None`.
pub type PendingLease = Pin<Box<dyn Future<Output = Option<Box<dyn Any>>>>>;

/// What subscribers are sent about, and ask.
pub trait Publisher {
    /// The interceptor, or the process that serves many ports.
    fn instance(&self) -> InstanceInfo;

    /// Each port of a process that serves many.
    fn sites(&self) -> Option<Vec<InstanceInfo>>;

    /// What is served on `port`.
    fn site(&self, port: u16) -> Option<InstanceInfo>;

    /// Leaves `port` to another process. `None`: it is not served, or is left to another one already.
    fn lease(&self, port: u16) -> PendingLease;
}

impl FeedSocket {
    /// Listens in `folder`, which is created if it does not exist.
    pub fn open(folder: &Path) -> io::Result<FeedSocket> {
        create_private(folder)?;
        sweep(folder);
        // Fails if a process in another container has the same id.
        let (file, listener) = listen::bind_at(&own_socket(folder), 0o600)?;
        Ok(FeedSocket {
            listener: Source::listening(listener)?,
            _file: file,
        })
    }

    /// Accepts subscribers and spawns a task for each, until accepting fails.
    pub async fn run(
        self,
        hub: Rc<Hub>,
        publisher: Rc<dyn Publisher>,
        spawn: impl Fn(SubscriberTask),
    ) {
        loop {
            let stream = match listen::accept(&self.listener).await {
                Ok(stream) => stream,
                Err(error) => {
                    log::debug!("cannot accept more listeners of the live feed: {error}");
                    return;
                }
            };
            if stream
                .plain()
                .and_then(Source::descriptor)
                .is_some_and(peer::is_same_user)
            {
                spawn(Box::pin(serve_subscriber(
                    stream,
                    Rc::clone(&hub),
                    Rc::clone(&publisher),
                )));
            }
        }
    }
}

/// Serves one subscriber until it disconnects.
type SubscriberTask = Pin<Box<dyn Future<Output = ()>>>;

/// Removes the socket of this process when dropped: for a process that may end while its interceptor runs in a thread.
#[derive(Debug)]
pub struct OwnSocket {
    path: Option<PathBuf>,
}

impl OwnSocket {
    /// The socket that an interceptor of this process will have in `folder`. A socket that listens already is that of a process in
    /// another container, and stays.
    pub fn before_start(folder: Option<&Path>) -> OwnSocket {
        let path = folder.map(own_socket);
        let listens = |path: &PathBuf| match listen::connect_at_once(path) {
            Ok(_) => true,
            // Its queue is full.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        OwnSocket {
            path: path.filter(|path| !listens(path)),
        }
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && path
                .parent()
                .is_some_and(|folder| is_private(folder).is_ok_and(|it| it))
        {
            // There is none if the interceptor did not start. One that stays is removed by `sweep`.
            let _ = fs::remove_file(path);
        }
    }
}

fn own_socket(folder: &Path) -> PathBuf {
    folder.join(format!("{}.sock", std::process::id()))
}

/// Removes the sockets in `folder` of processes that have ended. A socket stays if it listens, since its process may run in another
/// container, and if there is a process with its id. All stay if the folder cannot be locked: a socket that does not listen yet
/// looks the same.
pub fn sweep(folder: &Path) {
    if !is_private(folder).is_ok_and(|is_private| is_private) {
        return;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.map(|entry| entry.path());
    let mut ended = entries.filter(|path| has_ended(path)).peekable();
    if ended.peek().is_none() {
        return;
    }
    let Some(_lock) = listen::lock_folder(folder) else {
        return;
    };
    for path in ended {
        // Fails if it listens, or is no socket.
        let _ = listen::remove_left_over(&path);
    }
}

/// Whether `path` has the name of a socket, and there is no process with its id.
fn has_ended(path: &Path) -> bool {
    let pid = || {
        let name = path.file_name()?.to_str()?.strip_suffix(".sock")?;
        // Older versions gave it a name with a dot until it listened.
        let digits = name.strip_prefix('.').unwrap_or(name);
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        Pid::from_raw(digits.parse().ok().filter(|_| is_number)?)
    };
    pid().is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
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

async fn serve_subscriber(stream: Stream, hub: Rc<Hub>, publisher: Rc<dyn Publisher>) {
    let mut conn = Conn::new(stream);
    let (mut reader, writer) = conn.split();
    let first = |recording| hello(&publisher.instance(), publisher.sites(), recording);
    let wanted = match hub.subscribe(first) {
        // One that holds a lease or watches an exchange gets no other events: as a subscriber, it would make each request cost more.
        Ok(subscriber) => publish(&mut reader, writer, subscriber, &hub, &*publisher).await,
        // Nor does it need room among the subscribers.
        Err(lines) => {
            if writer.write_all(lines.concat().as_bytes()).await.is_err() {
                return;
            }
            let late = async {
                Timer::at(reactor::now() + LATE_COMMAND_MAX).await;
                None
            };
            future::or(read_commands(&mut reader, |_| {}), late).await
        }
    };
    if let Some(Command::Watch(id)) = wanted {
        future::or(show_response(writer, &hub, id), wait_for_end(reader)).await;
    } else if let Some(Command::Yield(port)) = wanted {
        let lease = publisher.lease(port).await;
        let answer = match lease {
            Some(_) => Event::Yielded { port },
            None => Event::Bye,
        };
        let is_sent = writer.write_all(answer.line().as_bytes()).await.is_ok();
        if lease.is_some() && is_sent {
            wait_for_end(reader).await;
        }
    }
    drop(conn);
    if let Some(subscriptions) = hub.unattended_recording() {
        Timer::at(reactor::now() + UNATTENDED_RECORDING_MAX).await;
        hub.stop_unattended_recording(subscriptions);
    }
}

/// Sends the subscriber what is published, and runs its commands, until it disconnects, nothing follows, or it asks for something
/// else, which is returned.
async fn publish(
    reader: &mut Reader<'_>,
    writer: Writer<'_>,
    subscriber: Subscriber,
    hub: &Hub,
    publisher: &dyn Publisher,
) -> Option<Command> {
    let act = |command| match command {
        Command::Record(on) => hub.set_recording(on),
        Command::Port(port) => {
            let instance = publisher.site(port);
            let hello = instance.map(|it| hello(&it, None, hub.is_recording()));
            subscriber.select(port, hello);
        }
        Command::Yield(_) | Command::Watch(_) => {}
    };
    let mut writing = pin!(write_lines(writer, &subscriber));
    let written = async {
        writing.as_mut().await;
        None
    };
    let wanted = future::or(read_commands(reader, act), written).await;
    if wanted.is_some() {
        // The answer must not begin within a line.
        subscriber.end();
        writing.await;
    }
    wanted
}

fn hello(instance: &InstanceInfo, sites: Option<Vec<InstanceInfo>>, recording: bool) -> Line {
    let event = Event::Hello {
        protocol: PROTOCOL,
        instance,
        sites,
        recording,
        at: unix_time(),
    };
    event.line()
}

/// Calls `act` with each command until the peer disconnects or sends a line that is too long. Returns the command that ends the
/// subscription, as soon as there is one.
async fn read_commands(reader: &mut Reader<'_>, act: impl Fn(Command)) -> Option<Command> {
    let mut wanted = None;
    while let Ok(Filled::Some) = reader.fill().await {
        let used = command::read(reader.bytes(), |command| match command {
            Command::Yield(_) | Command::Watch(_) => wanted = Some(command),
            command => act(command),
        });
        match used {
            Ok(used) => reader.consume(used),
            Err(command::TooLong) => return None,
        }
        if wanted.is_some() {
            return wanted;
        }
    }
    None
}

/// Writes what is recorded of an exchange's response as it grows, until it is complete or the peer disconnects.
async fn show_response(writer: Writer<'_>, hub: &Hub, id: u64) {
    let mut growth = Growth::default();
    while let Some(response) = hub.open_response(id) {
        let line = growth.next_line(id, Side::Response, &response.borrow());
        drop(response);
        if let Some(line) = line
            && writer.write_all(line.as_bytes()).await.is_err()
        {
            return;
        }
        Timer::at(reactor::now() + WATCH_INTERVAL).await;
    }
    // One that has disconnected needs no end.
    let _ = writer.write_all(Event::Bye.line().as_bytes()).await;
}

/// Waits until the peer disconnects.
async fn wait_for_end(mut reader: Reader<'_>) {
    while let Ok(Filled::Some) = reader.fill().await {
        let unread = reader.bytes().len();
        reader.consume(unread);
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

/// Between two looks at a response that is watched.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How long one that is no subscriber may take to ask for a port.
const LATE_COMMAND_MAX: Duration = Duration::from_secs(1);

/// A recording continues this long without a subscriber: a page that is reloaded keeps it.
const UNATTENDED_RECORDING_MAX: Duration = Duration::from_secs(60);

const OUT_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

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
