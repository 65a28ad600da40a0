//! The interceptor: the real program, started as a user starts it.
//!
//! It is ready when `/_ic/health` responds with the id of the started process, which excludes other programs on the same
//! port. Dropping it kills the process by its id. The test fails if the process has panicked or exited by itself.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::DEADLINE;
use super::origin::Origin;
use super::tls::Authority;
use super::wire::Conn;

/// Environment variable: `unix` lets interceptors listen on a Unix socket where the test does not choose.
const LISTEN: &str = "IC_TEST_LISTEN";

/// The settings of an interceptor to start.
pub struct Launch {
    wrapper: Vec<String>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    folder: PathBuf,
    port: Option<u16>,
    socket: Option<PathBuf>,
}

/// A running interceptor.
pub struct Interceptor {
    /// 0 if it listens on a socket.
    pub port: u16,
    socket: Option<PathBuf>,
    child: Child,
    /// Whether the test expects the process to end.
    over: bool,
    errors: Arc<Errors>,
    reader: Option<JoinHandle<()>>,
    clients: AtomicUsize,
    folder: PathBuf,
}

#[derive(Default)]
struct Errors {
    text: Mutex<String>,
    changed: Condvar,
}

impl Launch {
    /// `ic serve` with `--target`, and with the CA of the tests if the target is `https`.
    pub fn toward(target: impl Into<String>) -> Launch {
        let target = target.into();
        let launch = Launch::bare().args(["--target", &target]);
        if !target.starts_with("https:") {
            return launch;
        }
        launch.args([
            "--ca-file".into(),
            Authority::known().file.to_string_lossy(),
        ])
    }

    /// `ic serve` in front of an origin.
    pub fn before(origin: &Origin) -> Launch {
        Launch::toward(origin.url())
    }

    /// `ic serve` with a port only.
    pub fn bare() -> Launch {
        Launch {
            wrapper: Vec::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
            folder: scratch_folder(),
            port: None,
            socket: None,
        }
    }

    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Launch {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts it through a wrapper that executes it.
    pub fn under(mut self, wrapper: &[&str]) -> Launch {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on this port.
    pub fn on(mut self, port: u16) -> Launch {
        self.port = Some(port);
        self
    }

    /// Listens on this Unix socket instead of a port.
    pub fn at(mut self, socket: impl Into<PathBuf>) -> Launch {
        self.socket = Some(socket.into());
        self
    }

    /// Its current folder, which is its project and its home.
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Starts it in this folder.
    pub fn in_folder(mut self, folder: PathBuf) -> Launch {
        self.folder = folder;
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(mut self) -> Interceptor {
        let may_choose = self.port.is_none() && !self.arguments.iter().any(|word| word == "--host");
        if may_choose && std::env::var_os(LISTEN).is_some_and(|kind| kind == "unix") {
            self.socket.get_or_insert_with(scratch_socket);
        }
        // Another program may take the port between the probe and the start; then the next port is tried.
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let port = match self.socket {
                None => self.port.unwrap_or_else(free_port),
                Some(_) => 0,
            };
            let mut interceptor = self.spawn(port);
            match interceptor.wait_until_ready() {
                None => return interceptor,
                Some(status)
                    if status.code() == Some(3)
                        && self.port.or(self.socket.as_ref().map(|_| 0)).is_none() =>
                {
                    interceptor.over = true
                }
                Some(status) => {
                    interceptor.over = true;
                    panic!(
                        "interceptor: exited at start with {status}: {}",
                        interceptor.errors()
                    );
                }
            }
        }
        panic!("interceptor: no free port in {ATTEMPTS} attempts");
    }

    /// Starts it, waits until it exits, and returns its exit code and its standard error.
    #[track_caller]
    pub fn fail(self) -> (Option<i32>, String) {
        let mut interceptor = self.spawn(self.port.unwrap_or_else(free_port));
        let status = interceptor.exit_within(DEADLINE);
        (status.code(), interceptor.errors())
    }

    fn spawn(&self, port: u16) -> Interceptor {
        // The end of a previous attempt has removed it.
        std::fs::create_dir_all(&self.folder).expect("the build folder can be written");
        let ic = program();
        let mut command = match self.wrapper.split_first() {
            None => Command::new(ic),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(ic);
                command
            }
        };
        command
            .arg("serve")
            .args(match &self.socket {
                None => ["--port".to_owned(), port.to_string()],
                Some(path) => ["--listen".to_owned(), format!("unix:{}", path.display())],
            })
            .args(&self.arguments);
        // Variables of the developer must not influence a test.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let is_setting = [
                "INTERCEPTOR_",
                "TARGET_",
                "SUPERMEMORY_",
                "PORT_REGISTRY_",
                "RUST_LOG",
                "XDG_",
                "SSL_CERT_",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix));
            if is_setting || name.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command
            .env("PORT_REGISTRY_PATH", self.folder.join("port_registry.json"))
            .env("HOME", &self.folder);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .expect("the program under test can be started");
        let mut stream = child.stderr.take().expect("standard error is a pipe");
        let errors = Arc::new(Errors::default());
        let written = Arc::clone(&errors);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..count]);
                written
                    .text
                    .lock()
                    .expect("no holder of this lock panics")
                    .push_str(&text);
                written.changed.notify_all();
            }
        });
        Interceptor {
            port,
            socket: self.socket.clone(),
            child,
            over: false,
            errors,
            reader: Some(reader),
            clients: AtomicUsize::new(0),
            folder: self.folder.clone(),
        }
    }
}

impl Interceptor {
    /// An interceptor with default options in front of an origin.
    #[track_caller]
    pub fn before(origin: &Origin) -> Interceptor {
        Launch::before(origin).start()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Opens a connection to it.
    #[track_caller]
    pub fn client(&self) -> Conn {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let who = format!("client {number}");
        match &self.socket {
            None => Conn::connect(who, self.address()),
            Some(path) => Conn::connect_to(who, path),
        }
    }

    /// The response to `GET /_ic/health`.
    #[track_caller]
    pub fn health(&self) -> serde_json::Value {
        let mut client = self.client();
        client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = client.response("GET");
        assert_eq!(response.status, 200, "{response:?}");
        serde_json::from_slice(&response.body).expect("health is JSON")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The socket of its live feed.
    pub fn feed(&self) -> PathBuf {
        let socket = format!(".cache/ic/run/{}.sock", self.pid());
        self.folder.join(socket)
    }

    /// Its standard error up to now.
    pub fn errors(&self) -> String {
        self.errors
            .text
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Waits until its standard error satisfies `condition`.
    #[track_caller]
    pub fn wait_for_errors(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut text = self
            .errors
            .text
            .lock()
            .expect("no holder of this lock panics");
        while !condition(&text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "interceptor: {what} did not come within {DEADLINE:?}: {text}"
            );
            text = self
                .errors
                .changed
                .wait_timeout(text, left)
                .expect("no holder of this lock panics")
                .0;
        }
        text.clone()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .expect("a child that was not waited for can be signalled");
    }

    /// Waits until the process exits, as the test expects.
    #[track_caller]
    pub fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        self.over = true;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                if let Some(reader) = self.reader.take() {
                    reader
                        .join()
                        .expect("reading standard error does not panic");
                }
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "interceptor: still runs after {limit:?}: {}",
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its anonymous memory now, and its largest resident memory so far; in bytes.
    #[cfg(target_os = "linux")]
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("a running process has a status");
        let kibibytes = |name: &str| -> u64 {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("the kernel reports resident memory");
            line.split_whitespace()
                .nth(1)
                .and_then(|number| number.parse().ok())
                .expect("in KiB")
        };
        (kibibytes("RssAnon:") * 1024, kibibytes("VmHWM:") * 1024)
    }

    /// The number of its open file descriptors.
    #[cfg(target_os = "linux")]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a running process has descriptors")
            .count()
    }

    /// A connection to it, if it listens already.
    fn try_connect(&self, address: SocketAddr) -> Option<Conn> {
        let who = "readiness";
        match &self.socket {
            None => TcpStream::connect_timeout(&address, DEADLINE)
                .ok()
                .map(|stream| Conn::new(who, stream)),
            Some(path) => UnixStream::connect(path)
                .ok()
                .map(|stream| Conn::local(who, stream)),
        }
    }

    /// Waits until it is ready; returns its exit status if it exits instead.
    fn wait_until_ready(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + DEADLINE;
        let loopbacks = [
            self.address(),
            SocketAddr::from((Ipv6Addr::LOCALHOST, self.port)),
        ];
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            for address in loopbacks {
                if let Some(mut client) = self.try_connect(address) {
                    client.offer(
                        "GET /_ic/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                    );
                    // If only one of the two addresses was free, it exits with this connection in its queue.
                    let Ok(response) = client.try_response("GET") else {
                        continue;
                    };
                    let health: serde_json::Value =
                        serde_json::from_slice(&response.body).expect("health is JSON");
                    if health["pid"] == self.pid() {
                        client.expect_eof();
                        // Printed before the response, but the reading thread may be late.
                        self.wait_for_errors("its address", |said| said.contains("Target:  "));
                        return None;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!(
            "interceptor: not ready within {DEADLINE:?}: {}",
            self.errors()
        );
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        if let Some(reader) = self.reader.take() {
            // A panic there is a bug of the harness and has been printed.
            let _ = reader.join();
        }
        // A killed process does not remove its socket.
        if let Some(path) = self.socket.as_ref().filter(|_| ended.is_none()) {
            let _ = std::fs::remove_file(path);
        }
        // Removes the rest of the feed, and the folder unless a test has put files there.
        for folder in [".cache/ic/run", ".cache/ic", ".cache"] {
            let _ = std::fs::remove_file(self.feed());
            let _ = std::fs::remove_dir(self.folder.join(folder));
        }
        let _ = std::fs::remove_dir(&self.folder);
        let errors = self.errors();
        if std::thread::panicking() {
            eprintln!(
                "standard error of the interceptor on port {}:\n{errors}",
                self.port
            );
            return;
        }
        assert!(
            !errors.contains("panicked at"),
            "interceptor: panicked: {errors}"
        );
        assert!(
            self.over || ended.is_none(),
            "interceptor: exited by itself with {ended:?}: {errors}"
        );
    }
}

/// A copy of the program under another name. `ic status` and `ic ui` in other tests connect to every process that is
/// called `ic` or runs the same file, and to its target; those connections would disturb scripted origins and tests of
/// connection limits.
fn program() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let original = Path::new(env!("CARGO_BIN_EXE_ic"));
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("copy-of-ic");
        let changed = |file: &Path| file.metadata().ok()?.modified().ok();
        // Several test runs may create the copy at the same time, and a build with other features may replace the program
        // by an older one; so the times are compared for equality.
        if changed(&copy).is_none() || changed(&copy) != changed(original) {
            let new = copy.with_extension(std::process::id().to_string());
            // `cp` writes the file: child processes of other tests would inherit a file that this process writes, and a file
            // that is open for writing cannot be executed.
            let copied = Command::new("cp").arg("-p").args([original, &new]).status();
            assert!(
                copied.is_ok_and(|status| status.success()),
                "the program can be copied"
            );
            std::fs::rename(&new, &copy).expect("the build folder can be written");
        }
        copy
    })
}

/// A port that is free at both loopback addresses, outside of the range that the kernel uses for outgoing connections,
/// because parallel tests use those.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Parallel test runs start at different ports.
    let start = u16::try_from(u64::from(std::process::id()) * 61 % u64::from(COUNT))
        .expect("less than the count");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (u32::from(start) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        // The standard library binds with SO_REUSEADDR on Unix, so TIME_WAIT does not matter.
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free && (!has_ipv6() || TcpListener::bind(("::1", port)).is_ok()) {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Whether this machine has ::1.
pub fn has_ipv6() -> bool {
    TcpListener::bind(("::1", 0)).is_ok()
}

/// Whether `ic` can find listening processes on this machine; prints a note if not.
pub fn tells_who_listens() -> bool {
    let tells = cfg!(all(target_os = "linux", not(ic_portable)))
        // Without a PATH, as most tests run `ic`.
        || Command::new("lsof").env_clear().arg("-v").output().is_ok();
    if !tells {
        eprintln!("skipped: listening processes cannot be found without lsof");
    }
    tells
}

/// An unused path for a socket. Not in the build folder, whose path may be too long for a socket.
pub fn scratch_socket() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ic-test-{}-{number}.sock", std::process::id()))
}

/// Creates a new, empty folder.
pub fn scratch_folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!(
        "serve-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the build folder can be written");
    folder
}
