//! A home folder for each test, and `ic` run in it.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use interceptor::registry::{Availability, Port, availability};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::DEADLINE;

/// A home folder, removed with everything in it.
pub struct Home {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
    current: PathBuf,
}

impl Home {
    /// An empty home with the folder `shop` as the current folder.
    pub fn new() -> Home {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Projects have canonical paths; the path of the temporary folder may contain a link.
        let home = folder.path().canonicalize().expect("it exists");
        let current = home.join("shop");
        std::fs::create_dir(&current).expect("an empty home");
        Home {
            folder,
            variables: vec![("HOME".into(), home.into())],
            current,
        }
    }

    /// A file or folder in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        let home = self.folder.path().canonicalize().expect("it exists");
        home.join(name)
    }

    /// A new folder in it.
    pub fn folder(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a folder can be made");
        path
    }

    /// The registry at its default path.
    pub fn registry(&self) -> PathBuf {
        self.path(".config/litellm/port_registry.json")
    }

    /// Writes a registry with these mappings.
    pub fn with_mappings(self, mappings: &[(&Path, u16)], next_available: u16) -> Home {
        let mappings: serde_json::Map<String, Value> = mappings
            .iter()
            .map(|(path, port)| (path.to_str().expect("UTF-8").to_owned(), (*port).into()))
            .collect();
        let registry = serde_json::json!({
            "version": "1.0",
            "port_range": {"start": 8888, "end": 9999},
            "mappings": mappings,
            "next_available": next_available,
        });
        self.with_registry(registry.to_string())
    }

    /// Writes a registry file with this text.
    pub fn with_registry(self, content: impl AsRef<[u8]>) -> Home {
        let file = self.registry();
        std::fs::create_dir_all(file.parent().expect("it has a folder")).expect("a folder");
        std::fs::write(file, content).expect("a file");
        self
    }

    /// Sets a variable for every run.
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Home {
        self.variables
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Changes the current folder of every run.
    pub fn inside(mut self, folder: impl Into<PathBuf>) -> Home {
        self.current = folder.into();
        self
    }

    /// `ic` with these arguments, not started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ic"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(&self.current)
            .stdin(Stdio::null());
        command
    }

    /// Runs `ic` to its end.
    #[track_caller]
    pub fn ic<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        Ran::from(
            self.command(arguments)
                .output()
                .expect("the program can be run"),
        )
    }

    /// The inode and the change time of each file and folder in it.
    pub fn stamps(&self) -> Vec<(PathBuf, u64, i64, i64)> {
        let names = self.content().into_iter().map(|(path, _)| path);
        names
            .chain([self.path("")])
            .map(|path| {
                let found = path.symlink_metadata().expect("it is there");
                let (ino, changed) = (found.ino(), (found.ctime(), found.ctime_nsec()));
                (path, ino, changed.0, changed.1)
            })
            .collect()
    }

    /// Every file and folder in it, with the content of files.
    pub fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("readable") {
                let path = entry.expect("readable").path();
                let kind = path.symlink_metadata().expect("it is there").file_type();
                if kind.is_dir() {
                    folders.push(path.clone());
                }
                let held = if kind.is_file() {
                    std::fs::read(&path).expect("readable")
                } else {
                    Vec::new()
                };
                found.push((path, held));
            }
        }
        found.sort();
        found
    }
}

/// The result of a run of `ic`.
#[derive(Debug)]
pub struct Ran {
    pub exit: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            exit: output.status.code(),
            out: String::from_utf8(output.stdout).expect("results are UTF-8"),
            err: String::from_utf8(output.stderr).expect("messages are UTF-8"),
        }
    }
}

impl Ran {
    /// An `ic run` whose program has sent no request, without the line that says so, which must be the last one.
    #[track_caller]
    pub fn of_unused_run(mut self) -> Ran {
        let line = self.err.lines().next_back().expect("a message").to_owned();
        assert!(line.contains("has sent no request to http://"), "{self:?}");
        self.err.truncate(self.err.len() - line.len() - 1);
        self
    }

    /// It exited with this code and without messages; returns its standard output.
    #[track_caller]
    pub fn result(self, exit: i32) -> String {
        assert_eq!((self.exit, self.err.as_str()), (Some(exit), ""), "{self:?}");
        self.out
    }

    /// Like [`result`](Ran::result), as JSON.
    #[track_caller]
    pub fn json(self, exit: i32) -> Value {
        let out = self.result(exit);
        assert_eq!(
            out.matches('\n').count(),
            1,
            "one document on one line: {out:?}"
        );
        serde_json::from_str(&out).expect("results are JSON")
    }

    /// It exited with this code, without a result and with one message, which is returned without `ic: `.
    #[track_caller]
    pub fn complaint(self, exit: i32) -> String {
        assert_eq!((self.exit, self.out.as_str()), (Some(exit), ""), "{self:?}");
        one_line(&self.err)
    }
}

/// `ic serve` in the home's current folder, killed when it is dropped.
pub struct Serving(Child);

impl Serving {
    /// Starts it, with the mock as its target unless the arguments name one, and waits until it listens.
    #[track_caller]
    pub fn start(home: &Home, arguments: &[&str]) -> Serving {
        let mut words = vec!["serve"];
        if !arguments.contains(&"--target") {
            words.push("--mock");
        }
        words.extend(arguments);
        Serving::of(home.command(words))
    }

    /// Starts this command and waits until it listens.
    #[track_caller]
    pub fn of(mut command: Command) -> Serving {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        while !said.contains("Port from:") {
            let read = errors.read_line(&mut said).expect("text");
            assert_ne!(read, 0, "it has exited: {said}");
        }
        // Kept open for later messages.
        child.stderr = Some(errors.into_inner());
        Serving(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its exit code; `None` if it still runs or was killed.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.0.try_wait().expect("a child can be waited for");
        status.and_then(|status| status.code())
    }

    /// Sends SIGTERM and waits for its exit.
    #[track_caller]
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
        let status = self.0.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The commands in the groups of a help text: the first word of each line that is indented by two, before the options.
pub fn commands(help: &str) -> impl Iterator<Item = &str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .take_while(|line| *line != "Options:")
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
}

/// The one line on standard error, without `ic: `.
#[track_caller]
pub fn one_line(err: &str) -> String {
    let line = err.strip_suffix('\n').expect("a complete line");
    assert!(!line.contains(char::is_control), "one line: {err:?}");
    line.strip_prefix("ic: ")
        .expect("a message of ic")
        .to_owned()
}

/// A client on `port` to which the mock has begun to stream its response to this prompt.
#[track_caller]
pub fn begun_stream(port: u16, prompt: &str) -> TcpStream {
    let mut client = TcpStream::connect(("localhost", port)).expect("it listens");
    client
        .set_read_timeout(Some(DEADLINE))
        .expect("a time limit can be set");
    let body = json!({
        "model": "m", "stream": true, "messages": [{ "role": "user", "content": prompt }],
    })
    .to_string();
    write!(
        client,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the request can be sent");
    let mut start = [0; 15];
    client.read_exact(&mut start).expect("the response begins");
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    client
}

/// A free port, different for each call. It is below the ephemeral ports, which other tests use.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    let process = (std::process::id() % 97) as u16 * 100;
    (0..PORTS.len())
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|step| PORTS.start + process.wrapping_add(step) % PORTS.len() as u16)
        .find(|&port| {
            let port = Port::try_from(port).expect("not 0");
            availability(port) == Availability::Free
        })
        .expect("one of these ports is free")
}

/// A listener, and its port.
pub fn held_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

/// Runs `ic` as an unprivileged user; prints a note if that is not possible.
#[track_caller]
pub fn unprivileged<A: AsRef<OsStr> + Debug>(home: &Home, arguments: &[A]) -> Option<Ran> {
    let run = |arguments: &[&OsStr]| {
        let mut ic = home.command(arguments);
        if !rustix::process::geteuid().is_root() {
            return ic.output();
        }
        let options = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        setpriv(&options, &ic).output()
    };
    // Other users cannot enter the folder of the test, so it runs in the root folder.
    let works = run(&["--version".as_ref()]).is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: this machine cannot run ic as another user");
        return None;
    }
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    Some(Ran::from(run(&arguments).expect("it has just been run")))
}

/// `ic`, with its arguments and variables, as setpriv(1) with these options starts it.
pub fn setpriv(options: &[&str], ic: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(options)
        .arg(ic.get_program())
        .args(ic.get_args())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(
            ic.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null());
    command
}

/// Runs `ic` as this user, with this group and this umask; prints a note if that is not possible.
#[track_caller]
pub fn as_user(
    home: &Home,
    (user, group): (u32, u32),
    umask: &str,
    arguments: &[&str],
) -> Option<Ran> {
    let ic = home.command(arguments);
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let script = "umask $0 && exec \"$@\"";
    let options = [&user, &group, "--clear-groups", "sh", "-c", script, umask];
    let ran = setpriv(&options, &ic).current_dir("/").output();
    if !rustix::process::geteuid().is_root() || ran.is_err() {
        eprintln!("skipped: this machine cannot run ic as another user");
        return None;
    }
    ran.ok().map(Ran::from)
}
