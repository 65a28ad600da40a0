//! The interceptor: the real program, started as a user starts it.
//!
//! Readiness is waited for by asking `/_ic/health`, which also proves that the answer comes from the process
//! that was started and not from a stranger on the same port. Dropping one kills its process, by its id;
//! a process that panicked or died by itself fails the test even if every byte was right.

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

/// The variable that says where interceptors listen that are not told: with `unix`, on a socket and no port.
const LISTEN: &str = "IC_TEST_LISTEN";

/// How an interceptor is to be started.
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
    /// Whether its end is part of the test.
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
    /// `ic serve` with `--target`.
    /// Knows the CA of the tests, where the target may ask for it.
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

    /// `ic serve` and nothing else but a port.
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

    /// Starts it through a program that becomes it.
    pub fn under(mut self, wrapper: &[&str]) -> Launch {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on this port and on no other.
    pub fn on(mut self, port: u16) -> Launch {
        self.port = Some(port);
        self
    }

    /// Listens on this Unix socket, and on no port.
    pub fn at(mut self, socket: impl Into<PathBuf>) -> Launch {
        self.socket = Some(socket.into());
        self
    }

    /// The folder in which it runs, and which is its project.
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Starts it in a folder of the test's.
    pub fn in_folder(mut self, folder: PathBuf) -> Launch {
        self.folder = folder;
        self
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(mut self) -> Interceptor {
        let may_choose = self.port.is_none() && !self.arguments.iter().any(|word| word == "--host");
        if may_choose && std::env::var_os(LISTEN).is_some_and(|kind| kind == "unix") {
            self.socket.get_or_insert_with(scratch_socket);
        }
        // Between the probe and the start somebody else may take the port: then the next one.
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
                        "interceptor: ended at start with {status}: {}",
                        interceptor.errors()
                    );
                }
            }
        }
        panic!("interceptor: no port could be had in {ATTEMPTS} attempts");
    }

    /// Starts it where it is expected to end by itself: its exit code and its standard error.
    #[track_caller]
    pub fn fail(self) -> (Option<i32>, String) {
        let mut interceptor = self.spawn(self.port.unwrap_or_else(free_port));
        let status = interceptor.exit_within(DEADLINE);
        (status.code(), interceptor.errors())
    }

    fn spawn(&self, port: u16) -> Interceptor {
        // An attempt before this one has taken it away when it ended.
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
        // What the developer has set must not steer a test.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let steers = [
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
            if steers || name.to_ascii_lowercase().ends_with("_proxy") {
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
    /// An interceptor in front of an origin, with everything at its default.
    #[track_caller]
    pub fn before(origin: &Origin) -> Interceptor {
        Launch::before(origin).start()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A client's new connection to it.
    #[track_caller]
    pub fn client(&self) -> Conn {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let who = format!("client {number}");
        match &self.socket {
            None => Conn::connect(who, self.address()),
            Some(path) => Conn::connect_to(who, path),
        }
    }

    /// What `GET /_ic/health` answers.
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

    /// The socket of its live feed: its home is the folder in which it runs.
    pub fn feed(&self) -> PathBuf {
        let socket = format!(".cache/ic/run/{}.sock", self.pid());
        self.folder.join(socket)
    }

    /// Its standard error so far.
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

    /// Waits for its end, which is part of the test.
    #[track_caller]
    pub fn exit_within(&mut self, patience: Duration) -> ExitStatus {
        self.over = true;
        let deadline = Instant::now() + patience;
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
                "interceptor: still runs after {patience:?}: {}",
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// In bytes: its data in memory now, without what is mapped of files, which comes and goes; and the most memory of all kinds that
    /// there ever was.
    #[cfg(target_os = "linux")]
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("a running process has a status");
        let kibibytes = |name: &str| -> u64 {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("the kernel tells resident memory");
            line.split_whitespace()
                .nth(1)
                .and_then(|number| number.parse().ok())
                .expect("in KiB")
        };
        (kibibytes("RssAnon:") * 1024, kibibytes("VmHWM:") * 1024)
    }

    /// How many file descriptors it has open.
    #[cfg(target_os = "linux")]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a running process has descriptors")
            .count()
    }

    /// A connection, if it listens already.
    fn knock(&self, address: SocketAddr) -> Option<Conn> {
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

    /// Its exit status if it ended instead.
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
                if let Some(mut client) = self.knock(address) {
                    client.offer(
                        "GET /_ic/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                    );
                    // One that finds half of its port taken ends with this connection in its queue.
                    let Ok(response) = client.try_response("GET") else {
                        continue;
                    };
                    let health: serde_json::Value =
                        serde_json::from_slice(&response.body).expect("health is JSON");
                    if health["pid"] == self.pid() {
                        client.expect_eof();
                        // It has said this before it answered, but who reads it may not have come to it yet.
                        self.wait_for_errors("who it is", |said| said.contains("Target:  "));
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
        // Who is killed leaves it behind.
        if let Some(path) = self.socket.as_ref().filter(|_| ended.is_none()) {
            let _ = std::fs::remove_file(path);
        }
        // What a test has put there stays; an empty folder would only pile up, and so would what was left of the feed.
        for folder in [".cache/ic/run", ".cache/ic", ".cache"] {
            let _ = std::fs::remove_file(self.feed());
            let _ = std::fs::remove_dir(self.folder.join(folder));
        }
        let _ = std::fs::remove_dir(&self.folder);
        let errors = self.errors();
        if std::thread::panicking() {
            eprintln!("the interceptor on port {} said:\n{errors}", self.port);
            return;
        }
        assert!(
            !errors.contains("panicked at"),
            "interceptor: panicked: {errors}"
        );
        assert!(
            self.over || ended.is_none(),
            "interceptor: ended by itself with {ended:?}: {errors}"
        );
    }
}

/// A copy of the program, which nobody else takes for an interceptor: `ic status` and `ic ui`, as other tests run them, ask
/// every process on the machine that is called `ic` or runs the same file how it is, and connect to its target. An origin that
/// a test scripts, and a limit on connections, must not see them.
fn program() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let original = Path::new(env!("CARGO_BIN_EXE_ic"));
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("copy-of-ic");
        let changed = |file: &Path| file.metadata().ok()?.modified().ok();
        // Several runs of the tests may make it at the same time.
        // A build with other features may put an older program in its place: what counts is whether it is the same.
        if changed(&copy).is_none() || changed(&copy) != changed(original) {
            let new = copy.with_extension(std::process::id().to_string());
            // By a process of its own: a file that is being written here would be open in children of other tests, too, and
            // what is open for writing is not run.
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

/// A port that nobody listens on at either loopback address, outside the range from which the kernel
/// takes the ports of outgoing connections: those come and go with every test that runs beside this one.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test runs side by side start apart.
    let start = u16::try_from(u64::from(std::process::id()) * 61 % u64::from(COUNT))
        .expect("less than the count");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (u32::from(start) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        // The standard library binds with SO_REUSEADDR on Unix, so what is in TIME_WAIT is no hindrance.
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

/// Whether `ic` can see on this machine what listens on which port; says so where it cannot.
pub fn tells_who_listens() -> bool {
    let tells = cfg!(all(target_os = "linux", not(ic_portable)))
        // Without a PATH, as most tests run `ic`.
        || Command::new("lsof").env_clear().arg("-v").output().is_ok();
    if !tells {
        eprintln!("skipped: there is no lsof here that says what listens on which port");
    }
    tells
}

/// A path for a socket that nobody has. Not in the build folder, whose path may be longer than a socket's can be.
pub fn scratch_socket() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ic-test-{}-{number}.sock", std::process::id()))
}

/// A new, empty folder of the test's own.
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
