//! The programs that are compared, each in a fair configuration, and their processes.
//!
//! All set the same fields, keep connections open on both sides, and do not buffer. Each process is started through
//! [`launch`], so that it runs on the forwarders' core and ends with the bench even if the bench is killed.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::load::Route;
use crate::measure::{ProcessTree, until_listening};
use crate::origin::FIELDS;
use crate::{hyper_proxy, poll, relay};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// No forwarder: the client connects to the origin.
    Direct,
    Relay,
    Ic,
    /// Another build of `ic`, if `IC_BASELINE` is set.
    Baseline,
    Hyper,
    Nginx,
    /// nginx with its default buffering of responses.
    NginxBuffered,
    Haproxy,
    /// A simple proxy in Python, if FastAPI, httpx and uvicorn are installed.
    FastApi,
}

impl Peer {
    pub const ALL: [Peer; 9] = [
        Peer::Direct,
        Peer::Relay,
        Peer::Ic,
        Peer::Baseline,
        Peer::Nginx,
        Peer::NginxBuffered,
        Peer::Haproxy,
        Peer::Hyper,
        Peer::FastApi,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Relay => "relay",
            Peer::Ic => "ic",
            Peer::Baseline => "baseline",
            Peer::Hyper => "hyper",
            Peer::Nginx => "nginx",
            Peer::NginxBuffered => "nginx-buffered",
            Peer::Haproxy => "haproxy",
            Peer::FastApi => "fastapi",
        }
    }

    /// The `ic` binary of [`Peer::Ic`] and [`Peer::Baseline`].
    pub fn program(self) -> String {
        let other = baseline().filter(|_| self == Peer::Baseline);
        other.unwrap_or_else(|| IC.to_owned())
    }

    /// Whether it is another proxy that does the same work as `ic`.
    pub fn is_comparable(self) -> bool {
        matches!(
            self,
            Peer::Hyper | Peer::Nginx | Peer::NginxBuffered | Peer::Haproxy
        )
    }

    /// The version that the program prints (empty for those in this bench); `None` if it is not installed.
    pub fn version(self) -> Option<String> {
        let output = |program: &str, argument: &str| {
            let output = Command::new(program).arg(argument).output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            Some(
                String::from_utf8_lossy(&text)
                    .lines()
                    .next()?
                    .trim()
                    .to_owned(),
            )
        };
        match self {
            Peer::Direct | Peer::Relay | Peer::Hyper => Some(String::new()),
            Peer::Baseline if baseline().is_none() => None,
            Peer::Ic | Peer::Baseline => output(&self.program(), "--version"),
            Peer::Nginx | Peer::NginxBuffered => output("nginx", "-v"),
            Peer::Haproxy => output("haproxy", "-v"),
            Peer::FastApi => {
                let packages = "import fastapi, httpx, uvicorn; \
                    print(f'FastAPI {fastapi.__version__}, httpx {httpx.__version__}, uvicorn {uvicorn.__version__}')";
                let asked = Command::new(python())
                    .args(["-c", packages])
                    .output()
                    .ok()?;
                let text = String::from_utf8_lossy(&asked.stdout);
                asked.status.success().then(|| text.trim().to_owned())
            }
        }
    }
}

/// The program under test, which cargo builds for this bench.
const IC: &str = env!("CARGO_BIN_EXE_ic");

const FASTAPI_PROXY: &str = include_str!("fastapi_proxy.py");

fn baseline() -> Option<String> {
    std::env::var("IC_BASELINE").ok()
}

/// The interpreter for the proxy in Python.
fn python() -> String {
    std::env::var("IC_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// What every peer needs to start.
#[derive(Debug, Clone)]
pub struct Setup {
    pub origin: SocketAddr,
    /// The forwarders' core.
    pub core: usize,
    /// Folder for configurations and logs.
    pub folder: PathBuf,
}

/// A running peer; dropping it ends its process.
#[derive(Debug)]
pub struct Running {
    pub peer: Peer,
    address: SocketAddr,
    child: Option<Child>,
}

impl Running {
    pub fn start(peer: Peer, setup: &Setup) -> Result<Running, String> {
        Running::start_under(peer, setup, &[])
    }

    /// Starts the peer with a command in front of its own, such as `strace -f`.
    pub fn start_under(peer: Peer, setup: &Setup, tracer: &[&str]) -> Result<Running, String> {
        if peer == Peer::Direct {
            return Ok(Running {
                peer,
                address: setup.origin,
                child: None,
            });
        }
        let mut last = String::new();
        // Another program may take the port before the peer does.
        for _ in 0..3 {
            let port = free_port().map_err(|error| error.to_string())?;
            match Running::try_start(peer, setup, tracer, port) {
                Ok(running) => return Ok(running),
                Err(error) => last = format!("{} does not start: {error}", peer.name()),
            }
        }
        Err(last)
    }

    fn try_start(peer: Peer, setup: &Setup, tracer: &[&str], port: u16) -> io::Result<Running> {
        let mut words: Vec<String> = vec!["launch".into(), setup.core.to_string()];
        words.extend(tracer.iter().map(|&word| word.to_owned()));
        words.extend(command(peer, setup, port)?);
        let log = File::create(setup.folder.join(format!("{}.log", peer.name())))?;
        let child = Command::new(std::env::current_exe()?)
            .args(words)
            .env("PORT_REGISTRY_PATH", setup.folder.join("registry.json"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut running = Running {
            peer,
            address,
            child: Some(child),
        };
        running.until_listening()?;
        Ok(running)
    }

    /// Time from starting the process until it listens. The process is started directly, on the core of the bench:
    /// [`launch`] would count as well.
    pub fn time_to_listen(peer: Peer, setup: &Setup) -> Result<Duration, String> {
        let measure = || {
            let port = free_port()?;
            let words = command(peer, setup, port)?;
            let mut command = Command::new(&words[0]);
            command
                .args(&words[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let started = Instant::now();
            let child = command.spawn()?;
            let mut running = Running {
                peer,
                address,
                child: Some(child),
            };
            running.until_listening()?;
            let time = started.elapsed();
            running.stop();
            Ok(time)
        };
        measure().map_err(|error: io::Error| format!("{} does not start: {error}", peer.name()))
    }

    fn until_listening(&mut self) -> io::Result<()> {
        let child = &mut self.child;
        until_listening(self.address, || match child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(io::Error::other(format!("it has exited: {status}"))),
            _ => Ok(()),
        })
    }

    pub fn route(&self) -> Route {
        Route {
            address: self.address,
            sets_fields: !matches!(self.peer, Peer::Direct | Peer::Relay),
        }
    }

    /// Its processes; `None` for [`Peer::Direct`].
    pub fn processes(&self) -> Option<ProcessTree> {
        self.child.as_ref().map(|child| ProcessTree::of(child.id()))
    }

    /// Ends the process with SIGTERM, after 15 s with SIGKILL, and waits for it.
    pub fn stop(mut self) {
        self.end(Duration::from_secs(15));
    }

    fn end(&mut self, limit: Duration) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            // nginx ends its worker on SIGTERM, not on SIGKILL.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + limit;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Duration::from_secs(2));
    }
}

/// Returns the command that runs `peer` in the foreground, and writes the files that it needs.
pub fn command(peer: Peer, setup: &Setup, port: u16) -> io::Result<Vec<String>> {
    let origin = setup.origin;
    let file = |name: &str, text: String| {
        let path = setup.folder.join(name);
        fs::write(&path, text)?;
        Ok::<String, io::Error>(path.display().to_string())
    };
    let words = match peer {
        Peer::Direct => Vec::new(),
        Peer::Ic | Peer::Baseline => [
            &peer.program(),
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--target",
            &format!("http://{origin}"),
            "--instance-id",
            "bench",
            "--max-connections",
            &connections().to_string(),
        ]
        .map(str::to_owned)
        .to_vec(),
        Peer::Relay | Peer::Hyper => {
            // A copy of the file, so that its pages are not shared with the bench.
            let copy = setup.folder.join(format!("peer-{}", peer.name()));
            if !copy.exists() {
                fs::copy(std::env::current_exe()?, &copy)?;
            }
            let copy = copy.display().to_string();
            vec![
                copy,
                "peer".into(),
                peer.name().into(),
                port.to_string(),
                origin.to_string(),
            ]
        }
        Peer::Nginx | Peer::NginxBuffered => {
            let name = peer.name();
            let config = file(
                &format!("{name}.conf"),
                nginx(setup, port, peer == Peer::NginxBuffered),
            )?;
            [
                "nginx",
                "-p",
                &setup.folder.display().to_string(),
                "-e",
                "stderr",
                "-c",
                &config,
            ]
            .map(str::to_owned)
            .to_vec()
        }
        Peer::FastApi => {
            let script = file("fastapi_proxy.py", FASTAPI_PROXY.to_owned())?;
            vec![python(), script, port.to_string(), origin.to_string()]
        }
        Peer::Haproxy => {
            let config = file("haproxy.cfg", haproxy(origin, port))?;
            ["haproxy", "-db", "-f", &config]
                .map(str::to_owned)
                .to_vec()
        }
    };
    Ok(words)
}

fn nginx(setup: &Setup, port: u16, buffers: bool) -> String {
    let folder = setup.folder.display();
    let name = if buffers { "buffered" } else { "unbuffered" };
    let fields: String = FIELDS
        .iter()
        .map(|(name, value)| format!("            proxy_set_header {name} {value};\n"))
        .collect();
    let buffering = if buffers { "on" } else { "off" };
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let (connections, descriptors) = (connections(), raise_descriptor_limit());
    format!(
        "daemon off;
worker_processes 1;
{user}
pid {folder}/nginx-{name}.pid;
error_log stderr error;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    upstream origin {{
        server {origin};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host {origin};
            proxy_set_header Via \"1.1 bench\";
{fields}            proxy_request_buffering off;
            proxy_buffering {buffering};
            proxy_max_temp_file_size 0;
            proxy_read_timeout 600s;
        }}
    }}
}}
",
        origin = setup.origin,
    )
}

fn haproxy(origin: SocketAddr, port: u16) -> String {
    let fields: String = FIELDS
        .iter()
        .map(|(name, value)| format!("    http-request set-header {name} {value}\n"))
        .collect();
    let connections = connections();
    format!(
        "global
    nbthread 1
    maxconn {connections}
    tune.pipesize 262144
defaults
    mode http
    option http-keep-alive
    option http-no-delay
    option splice-request
    option splice-response
    http-reuse always
    maxconn {connections}
    timeout connect 10s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
frontend front
    bind 127.0.0.1:{port} backlog 4096
    http-request set-header Host {origin}
    http-request set-header Via \"1.1 bench\"
{fields}    default_backend back
backend back
    server origin {origin}
"
    )
}

/// Replaces this process by a peer: on core `core`, ending with its parent, with the largest limit of descriptors.
/// Returns only on failure.
pub fn launch(core: &str, words: &[String]) -> io::Error {
    let prepare = || {
        poll::pin(core.parse().map_err(io::Error::other)?)?;
        raise_descriptor_limit();
        Ok(rustix::process::set_parent_process_death_signal(Some(
            Signal::TERM,
        ))?)
    };
    match (prepare(), words) {
        (Err(error), _) => error,
        (Ok(()), [program, arguments @ ..]) => Command::new(program).args(arguments).exec(),
        (Ok(()), []) => io::ErrorKind::InvalidInput.into(),
    }
}

/// Runs one of the peers that are part of this bench.
pub fn serve(peer: &str, port: &str, origin: &str) -> Result<(), String> {
    let message = |error: io::Error| error.to_string();
    let port: u16 = port.parse().map_err(|_| "invalid port")?;
    let origin = origin.parse().map_err(|_| "invalid address")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(message)?;
    rustix::net::listen(&listener, 4096).map_err(|error| error.to_string())?;
    match peer {
        "relay" => relay::run(listener, origin).map_err(message),
        "hyper" => hyper_proxy::run(listener, origin).map_err(message),
        other => Err(format!("unknown peer `{other}`")),
    }
}

/// Raises the limit of descriptors as far as allowed, and returns it.
pub fn raise_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

/// The number of clients that the limit of descriptors allows: two each, and half a one for haproxy's pipes.
fn connections() -> u64 {
    (raise_descriptor_limit() / 8 * 3)
        .saturating_sub(200)
        .clamp(64, 16_000)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Creates the folder for configurations and logs, below the build folder.
pub fn folder() -> io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("forward");
    fs::create_dir_all(&folder)?;
    // Remove copies of earlier builds.
    for name in ["peer-relay", "peer-hyper"] {
        let _ = fs::remove_file(folder.join(name));
    }
    Ok(folder)
}
