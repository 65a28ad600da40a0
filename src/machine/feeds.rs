//! The live feeds of running interceptors: the folder of their sockets, for publishers and subscribers alike, and a
//! subscription to one.
//!
//! [`serve::feed`](crate::serve::feed) decides what the lines of a feed hold. A socket that another user could have made, or
//! that does not answer in time, is ignored.

use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::connect_unix;
use super::listeners::{has_pid, holder_of_socket};
pub use crate::serve::feed::create_private;
use crate::serve::feed::is_private;
pub use crate::serve::feed::sweep;
use crate::text::raw;

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

/// The first line of a feed: the interceptor that publishes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Hello {
    /// What it adds to every request as `x-memory-user-id`.
    pub instance_id: String,
    /// The name of the project that it was started for.
    pub project: Option<String>,
    /// The path of that project, as text that carries its bytes ([`raw`]).
    pub path: Option<String>,
    /// The port that it listens on; `None` for a Unix socket.
    pub port: Option<u16>,
    /// Its process id.
    pub pid: u32,
    /// Whether it records bodies.
    pub recording: bool,
    /// Each port of a process that serves many; such a process has no project and no port of its own.
    #[serde(default)]
    pub sites: Vec<Site>,
}

impl Hello {
    /// The project, or the identifier where there is none.
    pub fn name(&self) -> &str {
        self.project.as_deref().unwrap_or(&self.instance_id)
    }
}

/// One port of a process that serves many.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Site {
    /// What is added to every request as `x-memory-user-id`.
    pub instance_id: String,
    /// The name of the project.
    pub project: Option<String>,
    /// The path of the project, as text that carries its bytes ([`raw`]).
    pub path: Option<String>,
    /// The port.
    pub port: u16,
}

impl Site {
    /// The project, or the identifier where there is none.
    pub fn name(&self) -> &str {
        self.project.as_deref().unwrap_or(&self.instance_id)
    }
}

/// A port that a process that serves many has left to this one, for as long as this exists.
#[derive(Debug)]
pub struct Lease(#[expect(dead_code, reason = "closed when it is dropped")] UnixStream);

/// Asks the process `pid`, whose socket is in `folder`, to leave `port` to this one. It does not listen on the port any more when
/// this returns.
///
/// # Errors
///
/// There is no such process, it does not serve the port, or it does not answer in time.
pub fn lease(folder: &Path, pid: u32, port: u16) -> io::Result<Lease> {
    let mut feed = Feed::at(&folder.join(format!("{pid}.sock")))?;
    feed.stream().set_read_timeout(Some(LEASE_TIME_MAX))?;
    feed.command(&json!({ "yield": port }))?;
    while let Some(line) = feed.next_line()? {
        let line: Value = serde_json::from_str(&line)?;
        match line["event"].as_str() {
            Some("yielded") => return Ok(Lease(feed.stream.into_inner())),
            Some("bye") => break,
            // It may be full: a lease needs no room among its subscribers.
            _ => {}
        }
    }
    Err(io::Error::other("the port is not left"))
}

/// A subscription to a feed.
#[derive(Debug)]
pub struct Feed {
    /// The interceptor that publishes it.
    pub hello: Hello,
    /// The line that `hello` was parsed from, its end included.
    pub first_line: String,
    stream: BufReader<UnixStream>,
}

/// Subscribes to every feed in `folder`, after the sockets of ended processes have been removed; sorted by port.
pub fn running(folder: &Path) -> Vec<Feed> {
    sweep(folder);
    let mut feeds: Vec<Feed> = sockets(folder)
        .iter()
        .filter_map(|path| Feed::at(path).ok())
        .collect();
    feeds.sort_by_key(|feed| (feed.hello.port, feed.hello.pid));
    feeds
}

/// Returns the process ids of the interceptors that publish a feed of the project at `path` in `folder`, as far as the system
/// shows which process it is.
pub fn publishers_for(folder: &Path, path: &Path) -> Vec<u32> {
    let path = raw::to_text(path.as_os_str());
    let mut hellos = running(folder)
        .into_iter()
        .map(|feed| feed.hello)
        .collect::<Vec<_>>();
    hellos.retain(|hello| hello.path.as_ref() == Some(&path));
    let pid = |hello: Hello| {
        let socket = folder.join(format!("{}.sock", hello.pid));
        let process = holder_of_socket(&socket).process?;
        has_pid(&process, hello.pid).then_some(process.pid)
    };
    hellos.into_iter().filter_map(pid).collect()
}

/// Returns the sockets in `folder`; not all of them need have a process.
pub fn sockets(folder: &Path) -> Vec<PathBuf> {
    // Another user could have put a socket there.
    if !is_private(folder).is_ok_and(|is_private| is_private) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // A name that starts with a dot is of a socket that does not listen yet.
    let is_socket = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.ends_with(b".sock") && !name.starts_with(b".")
    };
    entries
        .map(|entry| entry.path())
        .filter(is_socket)
        .collect()
}

impl Feed {
    /// Subscribes to the feed at `path`.
    ///
    /// # Errors
    ///
    /// The connection is refused; it does not answer in time; or what answers is not an interceptor.
    pub fn at(path: &Path) -> io::Result<Feed> {
        let stream = connect_unix(path, HELLO_TIME_MAX)?;
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

    /// From now on the lines are those of one port of a process that serves many.
    ///
    /// # Errors
    ///
    /// The connection has failed, or the port is not served any more.
    pub fn select(&mut self, port: u16) -> io::Result<()> {
        self.command(&json!({ "port": port }))?;
        while let Some(line) = self.next_line()? {
            // Lines about other ports may have been sent before.
            if let Ok(hello) = serde_json::from_str::<Hello>(&line)
                && hello.port == Some(port)
            {
                (self.hello, self.first_line) = (hello, line);
                return Ok(());
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits for the next line and returns it, its end included. `None`: the feed has ended.
    ///
    /// # Errors
    ///
    /// The connection has failed, or the line is not UTF-8.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let len = self.stream.read_line(&mut line)?;
        Ok((len > 0 && line.ends_with('\n')).then_some(line))
    }

    /// Returns the unread lines, for a caller that limits their length.
    pub fn lines(&mut self) -> &mut impl BufRead {
        &mut self.stream
    }

    /// Switches recording on or off.
    ///
    /// # Errors
    ///
    /// The connection has failed.
    pub fn record(&self, on: bool) -> io::Result<()> {
        self.command(&json!({ "record": on }))
    }

    /// From now on the lines are those of the response of one exchange.
    ///
    /// # Errors
    ///
    /// The connection has failed.
    pub fn watch(&self, id: u64) -> io::Result<()> {
        self.command(&json!({ "watch": id }))
    }

    fn command(&self, command: &Value) -> io::Result<()> {
        let mut stream = self.stream.get_ref();
        stream.write_all(format!("{command}\n").as_bytes())
    }

    /// Returns the connection, so that another thread can close it.
    pub fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }
}

/// Closing two listeners takes microseconds, but the process may be busy.
const LEASE_TIME_MAX: Duration = Duration::from_secs(2);

/// A running interceptor sends its first line at once.
const HELLO_TIME_MAX: Duration = Duration::from_millis(300);
