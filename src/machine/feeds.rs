//! The live feeds of the interceptors that run: where their sockets are, who they are, and their lines one by one.
//!
//! What stands in a line is said in [`serve::feed`](crate::serve::feed). Decided here: the folder of the sockets, for those
//! who listen as for those who tell; and that what cannot be trusted, or does not answer, is no feed.

use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::connect::connect_unix;
use crate::serve::feed::is_private;

/// Returns the folder of this user's feed sockets: `ic` in `runtime`, which is the value of `XDG_RUNTIME_DIR`, else
/// `.cache/ic/run` in the home folder. It need not exist. `None`: there is no home folder either.
pub fn folder(runtime: Option<PathBuf>) -> Option<PathBuf> {
    // After `su` or `sudo` the variable names the folder of another user.
    let is_ours = |path: &PathBuf| {
        let metadata = fs::metadata(path);
        path.is_absolute()
            && metadata.is_ok_and(|metadata| {
                metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw()
            })
    };
    match runtime.filter(is_ours) {
        Some(runtime) => Some(runtime.join("ic")),
        None => dirs::home_dir()
            .filter(|home| home.is_absolute())
            .map(|home| home.join(".cache/ic/run")),
    }
}

/// What an interceptor says of itself first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Hello {
    /// What it adds to every request as `x-memory-user-id`.
    pub instance_id: String,
    /// The name of the project that it was started for.
    pub project: Option<String>,
    /// The path of that project, as text that carries its bytes ([`raw`](crate::text::raw)).
    pub path: Option<String>,
    /// Where it listens.
    pub port: Option<u16>,
    /// Its process id.
    pub pid: u32,
    /// Where its requests go.
    pub target: String,
    /// Whether bodies are recorded at this moment.
    pub recording: bool,
}

/// A feed that is listened to.
#[derive(Debug)]
pub struct Feed {
    /// Who tells it.
    pub hello: Hello,
    /// The line in which it said so.
    pub first_line: String,
    stream: BufReader<UnixStream>,
}

/// Begins to listen to every feed in `folder`; sorted by port. Sockets of the dead are removed.
pub fn running(folder: &Path) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = sockets(folder)
        .iter()
        .filter_map(|path| Feed::at(path).ok())
        .collect();
    feeds.sort_by_key(|feed| (feed.hello.port, feed.hello.pid));
    feeds
}

/// The sockets in `folder`, whether or not somebody tells on them.
pub fn sockets(folder: &Path) -> Vec<PathBuf> {
    // Nobody may listen for others, or tell in their place.
    if !is_private(folder).is_ok_and(|is_private| is_private) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let sockets = paths.filter(|path| {
        let is_named = path
            .extension()
            .is_some_and(|extension| extension == "sock");
        let is_ready = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
        is_named && path.file_name().is_some_and(is_ready)
    });
    sockets.collect()
}

impl Feed {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// Nobody tells there, who is removed then; or it is no interceptor who does.
    pub fn at(path: &Path) -> io::Result<Feed> {
        let stream = connect_unix(path, HELLO_TIME_MAX).inspect_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                // Somebody else may have removed it first.
                let _ = fs::remove_file(path);
            }
        })?;
        stream.set_read_timeout(Some(HELLO_TIME_MAX))?;
        let mut stream = BufReader::new(stream);
        let mut first_line = String::new();
        stream.read_line(&mut first_line)?;
        stream.get_ref().set_read_timeout(None)?;
        Ok(Feed {
            hello: serde_json::from_str(&first_line)?,
            first_line,
            stream,
        })
    }

    /// Waits for the next line, its end included. `None`: there will be none.
    ///
    /// # Errors
    ///
    /// The connection failed, or what came is no text.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let len = self.stream.read_line(&mut line)?;
        Ok((len > 0 && line.ends_with('\n')).then_some(line))
    }

    /// The lines to come, for those who do not trust their length.
    pub fn lines(&mut self) -> &mut impl BufRead {
        &mut self.stream
    }

    /// Switches recording.
    ///
    /// # Errors
    ///
    /// The connection failed.
    pub fn record(&self, on: bool) -> io::Result<()> {
        self.stream
            .get_ref()
            .write_all(format!("{{\"record\":{on}}}\n").as_bytes())
    }

    /// The connection, to end it from elsewhere or to switch recording.
    pub fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }
}

/// A running interceptor says hello at once.
const HELLO_TIME_MAX: Duration = Duration::from_millis(300);
