//! An image that contains only `ic`: a static binary in an otherwise empty root file system. No `/proc`, `/etc`, `/tmp`,
//! home, resolver or certificates; the binary contains what it needs of them, or an error names what is missing.
//!
//! `IC_STATIC` names the binary (`.ci/run` builds it); without it the tests are skipped.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::cli_home::Ran;
#[cfg(feature = "tls")]
use crate::support::tls::{Authority, usual};
use crate::support::*;

/// A root folder that contains only the binary.
struct Root(tempfile::TempDir);

impl Root {
    /// Returns `None` without a binary or without permission for chroot.
    fn new() -> Option<Root> {
        let Some(ic) = std::env::var_os("IC_STATIC") else {
            println!("skipped: IC_STATIC is not set");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        // `cp` writes the file: a child process of another test would inherit a file that this process writes, and a file that is
        // open for writing cannot be executed.
        let copied = Command::new("cp").arg(ic).arg(folder.path()).status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "the file can be copied"
        );
        let root = Root(folder);
        let may = root.ic(&["--version"]).output();
        // In CI the user is root, and missing permission is a failure.
        if rustix::process::getuid().is_root() || may.is_ok_and(|ran| ran.status.success()) {
            return Some(root);
        }
        println!("skipped: this user has no permission for chroot");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The command `ic` in this root, without environment variables.
    fn ic(&self, arguments: &[&str]) -> Command {
        let mut command = if rustix::process::getuid().is_root() {
            Command::new("chroot")
        } else {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--root"]);
            command
        };
        command.arg(self.path()).arg("/ic").args(arguments);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.ic(arguments).output().expect("it can be started"))
    }

    /// Starts `ic serve` on a free port.
    #[track_caller]
    fn serve(&self, arguments: &[&str]) -> Server {
        // Another program may take the port between the probe and the start; then the next port is tried.
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let port = free_port();
            let port_text = port.to_string();
            let all = [&["serve", "--port", &port_text], arguments].concat();
            let ic = self.ic(&all).stderr(Stdio::piped()).spawn();
            let mut ic = ic.expect("it can be started");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let deadline = Instant::now() + DEADLINE;
            loop {
                if std::net::TcpStream::connect(address).is_ok() {
                    let ic = Some(ic);
                    return Server { ic, address };
                }
                if ic.try_wait().expect("a child can be waited for").is_some() {
                    let ran = Ran::from(ic.wait_with_output().expect("it has ended"));
                    assert_eq!(ran.exit, Some(3), "{ran:?}");
                    break;
                }
                assert!(Instant::now() < deadline, "it does not listen");
                std::thread::yield_now();
            }
        }
        panic!("no free port in {ATTEMPTS} attempts");
    }
}

struct Server {
    ic: Option<Child>,
    address: SocketAddr,
}

impl Server {
    #[track_caller]
    fn answer(&self, target: &str) -> Response {
        let mut client = Conn::connect("client", self.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.response("GET")
    }

    /// Stops it with SIGTERM, as a container engine does.
    #[track_caller]
    fn stop(mut self) -> String {
        let ic = self.ic.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&ic);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("a child can be waited for");
        let ran = Ran::from(ic.wait_with_output().expect("it ends"));
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
        ran.err
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut ic) = self.ic.take() {
            let _ = ic.kill();
            let _ = ic.wait();
        }
    }
}

#[test]
fn commands_without_a_registry_work_and_the_others_report_an_error() {
    let Some(root) = Root::new() else { return };
    assert_eq!(
        root.run(&["--version"]).result(0),
        concat!("ic ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let port = free_port().to_string();
    let ran = root.run(&["check", &port]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.out.contains("Available:    Yes"), "{ran:?}");
    assert!(ran.err.contains("warning: no registry is known"), "{ran:?}");
    assert_eq!(root.run(&["suggest", "-n", "1"]).exit, Some(0));
    for command in ["allocate", "serve"] {
        let said = root.run(&[command]).complaint(3);
        assert!(said.contains("set HOME to an absolute path"), "{said}");
    }
    // Engines set HOME to `/` for a user without a home.
    let registry = ["--registry", "/port_registry.json"];
    let ran = root.run(&[&registry[..], &["allocate", "-q"]].concat());
    assert_eq!(ran.out, "8888\n", "{ran:?}");
}

#[test]
fn the_mock_is_served_and_its_health_is_checked() {
    let Some(root) = Root::new() else { return };
    let server = root.serve(&["--mock"]);
    assert_eq!(server.answer("/v1/models").status, 200);
    let port = server.address.port().to_string();
    for arguments in [&["health", &port][..], &["health", &port, "--ready"]] {
        assert_eq!(root.run(arguments).exit, Some(0), "{arguments:?}");
    }
    // `ic status` without /proc.
    assert_eq!(root.run(&["check", &port]).exit, Some(1));
    server.stop();

    let listen = [
        "serve",
        "--mock",
        "--listen",
        "unix:/ic.sock",
        "--idle-exit",
        "0.2",
    ];
    let ran = root.run(&listen);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(!root.path().join("ic.sock").exists());
}

#[test]
fn names_of_targets_are_resolved_without_resolver_files() {
    let Some(root) = Root::new() else { return };
    let origin = Origin::listen_in_plain();
    let port = origin.address().port();
    let answers = std::thread::spawn(move || {
        for _ in 0..3 {
            let mut served = origin.accept();
            served.request();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    for host in ["localhost", "127.0.0.1"] {
        let server = root.serve(&["--target", &format!("http://{host}:{port}")]);
        assert_eq!(server.answer("/").text(), "ok", "{host}");
        server.stop();
    }
    let named = ["--target", &format!("http://llm.test:{port}")];
    let server = root.serve(&named);
    let response = server.answer("/");
    assert_eq!(
        response.fields.one("x-ic-error"),
        Some("target_unresolved"),
        "{response:?}"
    );
    assert!(response.text().contains("does not resolve"), "{response:?}");
    server.stop();
    // The file that engines provide is used.
    fs::create_dir(root.path().join("etc")).expect("a folder");
    fs::write(root.path().join("etc/hosts"), "127.0.0.1 llm.test\n").expect("a file");
    let server = root.serve(&named);
    assert_eq!(server.answer("/").text(), "ok");
    server.stop();
    answers.join().expect("the thread does not panic");
}

#[cfg(feature = "tls")]
#[test]
fn certificates_are_verified_with_the_built_in_list_and_the_ca_file() {
    let Some(root) = Root::new() else { return };
    let origin = Origin::answering_in_tls(usual(), |_, _| Reply::Bytes(OK.to_vec()));
    let target = origin.url();
    let server = root.serve(&["--target", &target]);
    let response = server.answer("/");
    assert_eq!(response.status, 502, "{response:?}");
    // The certificate is not trusted; the list of trusted certificates is not empty.
    assert_eq!(
        response.fields.one("x-ic-error"),
        Some("target_certificate"),
        "{response:?}"
    );
    assert!(response.text().contains("--ca-file"), "{}", response.text());
    server.stop();
    fs::copy(&Authority::known().file, root.path().join("ca.pem")).expect("the file can be copied");
    let server = root.serve(&["--target", &target, "--ca-file", "/ca.pem"]);
    assert_eq!(server.answer("/").status, 200);
    server.stop();
}
