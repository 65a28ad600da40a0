//! Commands agree on what runs on this machine: each finds the same interceptors, by the same addresses, and none hangs.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket, socket_with,
};
use serde_json::{Value, json};

use crate::cli_doctor::a_server;
use crate::cli_home::{Home, Serving, free_port};
use crate::support::{DEADLINE, Origin, count, has_ipv6, wait_until};

/// Whether `ic` can list the sockets of all processes on this machine, on every address.
const LISTS_SOCKETS: bool = cfg!(all(target_os = "linux", not(ic_portable)));

/// A home whose project `shop` has a port, and that port.
fn home() -> (Home, u16) {
    let (home, port) = (Home::new(), free_port());
    let shop = home.path("shop");
    (home.with_mappings(&[(&shop, port)], 8888), port)
}

/// Every command finds the interceptor of this project, with this process id.
#[track_caller]
fn check_known(home: &Home, port: u16, pid: u32, host: &str) {
    let shown = home.ic(["health", &port.to_string()]).result(0);
    assert!(shown.ends_with(&format!(", pid {pid}\n")), "{shown}");

    let status = home.ic(["status", "--json"]).json(0);
    let find = |list: &str| {
        let entries = status[list].as_array().expect("a list");
        entries.iter().find(|entry| entry["port"] == port).cloned()
    };
    let found = find("interceptors").expect("it is listed");
    assert_eq!(found["pid"], pid, "{status}");
    assert_eq!(find("held"), None, "{status}");

    let document = home.ic(["doctor", "--no-stream", "--json"]).json(0);
    assert_eq!(document["findings"][1]["check"], "Port", "{document}");
    let message = document["findings"][1]["message"].as_str().expect("text");
    let start = format!("{port}, this project's interceptor `pycharm-shop` (pid {pid})");
    assert!(message.starts_with(&start), "{message}");

    let said = home.ic(["serve", "--host", host, "--mock"]).complaint(3);
    let start = format!("this project's interceptor is already running on port {port} (pid {pid})");
    assert!(said.starts_with(&start), "{said}");
}

#[test]
fn every_command_finds_an_interceptor_on_another_loopback_address() {
    if !LISTS_SOCKETS {
        return;
    }
    let (home, port) = home();
    let serving = Serving::start(&home, &["--host", "127.0.0.2"]);
    check_known(&home, port, serving.pid(), "127.0.0.2");
}

#[test]
fn every_command_finds_an_interceptor_in_another_pid_namespace() {
    let (home, port) = home();
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--"];
    let can = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output();
    if !LISTS_SOCKETS || !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: PID namespaces cannot be created here");
        return;
    }
    let mut command = home.command(["serve", "--mock"]);
    let ic = command.get_program().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    command = {
        let mut wrapped = Command::new(wrapper[0]);
        wrapped.args(&wrapper[1..]).arg(ic).args(command.get_args());
        wrapped
            .env_clear()
            .env("PATH", path)
            .env("HOME", home.path(""));
        wrapped.current_dir(home.path("shop"));
        wrapped
    };
    let outer = Killed(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it has just been run"),
    );
    wait_until("it listens", true, || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    let outer_pid = outer.0.id();
    let children = fs::read_to_string(format!("/proc/{outer_pid}/task/{outer_pid}/children"));
    let children = children.expect("Linux says");
    let pid = children.trim().parse().expect("one child");
    check_known(&home, port, pid, "localhost");
}

/// A user that is not root, and whose id the tests do not run as.
const NOBODY: u32 = 65534;

/// `command` as that user, if this one may do that.
fn as_another_user(mut command: Command) -> Option<Killed> {
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.stderr(Stdio::null()).spawn() {
        Ok(child) => Some(Killed(child)),
        Err(error) => {
            eprintln!("skipped: ic cannot be run as another user: {error}");
            None
        }
    }
}

/// Another user runs a real interceptor on the port of this user's project, with its name and folder.
#[test]
fn an_interceptor_of_another_user_is_not_this_projects() {
    if !LISTS_SOCKETS {
        return;
    }
    let (home, port) = home();
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).expect("this user's");
    let (spy, good) = (Origin::agreeing(), Origin::agreeing());
    let home = home.with("TARGET_LLM_URL", good.url());
    let home = home.with("OPENAI_API_KEY", "sk-secret");
    let shop = home.path("shop").into_os_string().into_string();
    let (shop, text) = (shop.expect("UTF-8"), port.to_string());
    let target = spy.url();
    let options = ["--project", &shop, "--port", &text, "--target", &target];
    let Some(_impostor) = as_another_user(home.command([&["serve"], &options[..]].concat())) else {
        return;
    };
    wait_until("it listens", true, || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    let owner = format!("another user (uid {NOBODY})");
    let rows: &[(&[&str], i32)] = &[
        (&["health"], 1),
        (&["health", "--json", &text], 1),
        (&["env"], 1),
        (&["env", "--json", &shop], 1),
        (&["snippet", "aider"], 1),
        (&["serve", "--mock"], 3),
        (&["run", "--mock", "--", "true"], 3),
        (&["doctor", "--no-stream"], 1),
        (&["doctor", "--no-stream", "--json"], 1),
        (&["status"], 0),
        (&["check", &text], 1),
    ];
    for &(words, exit) in rows {
        let ran = home.ic(words);
        assert_eq!(ran.exit, Some(exit), "{words:?}: {ran:?}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains(&owner), "{words:?}: {ran:?}");
        let has_address = ran.out.contains(&format!("localhost:{port}"));
        assert!(
            !has_address && !said.contains("sk-secret"),
            "{words:?}: {ran:?}"
        );
    }
    let status = home.ic(["status", "--json"]).json(0);
    let find = |list: &str| {
        let entries = status[list].as_array().expect("a list");
        entries.iter().find(|entry| entry["port"] == port).cloned()
    };
    assert_eq!(find("interceptors"), None, "{status}");
    assert_eq!(find("held").expect("it is listed")["other_user"], NOBODY);
    assert_eq!(spy.requests(), [], "of a client that believed it");
    assert_ne!(
        good.requests().len(),
        0,
        "doctor looks at the target itself"
    );
    count("machine: commands and a port of another user", rows.len());
}

#[test]
fn a_unix_socket_of_another_user_is_not_an_interceptor() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("this user's");
    let home = Home::new();
    let path = folder.path().join("ic.sock");
    let url = format!("unix:{}", path.display());
    let listen = ["serve", "--mock", "--listen", &url];
    let Some(_impostor) = as_another_user(home.command(listen)) else {
        return;
    };
    wait_until("it listens", true, || UnixStream::connect(&path).is_ok());
    let owner = format!("another user (uid {NOBODY})");
    for (words, exit) in [(&["health", &url][..], 1), (&listen, 3)] {
        let said = home.ic(words).complaint(exit);
        assert!(said.contains(&owner), "{words:?}: {said}");
    }
}

/// A child that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_second_address_of_a_target_is_used_if_the_first_does_not_respond() {
    if !has_ipv6() || cfg!(not(target_os = "linux")) {
        return;
    }
    let target_port = free_port();
    let _target = TcpListener::bind(("::1", target_port)).expect("a free port");
    // Its queue is full, so connections are neither accepted nor refused.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, target_port));
    let silent = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&silent, &address).expect("a free port");
    listen(&silent, 0).expect("it is bound");
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queued.push(stream);
    }
    let (home, port) = home();
    let target = format!("http://localhost:{target_port}");
    let _serving = Serving::start(&home, &["--target", &target]);
    home.ic(["health", "--ready"]).result(0);
    let status = home.ic(["status", "--json"]).json(0);
    let entries = status["interceptors"].as_array().expect("a list");
    let found = entries.iter().find(|entry| entry["port"] == port);
    if LISTS_SOCKETS {
        assert_eq!(
            found.expect("it runs")["target_reachable"],
            true,
            "{status}"
        );
    }
}

#[test]
fn a_chunked_list_of_models_is_read() {
    let target = a_server(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         8\r\n{\"data\":\r\nc\r\n[{\"id\":\"a\"},\r\nb\r\n{\"id\":\"b\"}]\r\n1\r\n}\r\n0\r\n\r\n",
    );
    let ran = Home::new().ic(["doctor", "--no-stream", "--target", &target]);
    assert!(ran.out.contains("/v1/models lists 2 models"), "{ran:?}");
}

/// A listener whose queue is full: a blocking connection to it would block forever.
fn full_socket(path: &Path) -> (OwnedFd, Vec<UnixStream>) {
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let address = SocketAddrUnix::new(path).expect("a short path");
    bind(&listener, &address).expect("a new name");
    listen(&listener, 1).expect("it is bound");
    let mut queued = Vec::new();
    loop {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let client = client.expect("a socket");
        if rustix::net::connect(&client, &address).is_err() {
            return (listener, queued);
        }
        queued.push(UnixStream::from(client));
        assert!(queued.len() < 100, "the queue is limited");
    }
}

#[test]
fn a_unix_socket_with_a_full_queue_does_not_block_commands() {
    if cfg!(not(target_os = "linux")) {
        return;
    }
    let home = Home::new();
    let run = home.folder("run");
    let feeds = home.folder("run/ic");
    fs::set_permissions(&feeds, Permissions::from_mode(0o700)).expect("this user owns it");
    let home = home.with("XDG_RUNTIME_DIR", &run);
    let path = feeds.join("8888.sock");
    let _full = full_socket(&path);
    let start = Instant::now();
    let url = format!("unix:{}", path.display());
    let said = home.ic(["health", &url]).complaint(1);
    assert!(
        said.starts_with("no interceptor answers on unix:"),
        "{said}"
    );
    let said = home.ic(["tail", "--all"]).complaint(1);
    assert!(said.starts_with("no interceptor runs"), "{said}");
    let document = home.ic(["doctor", "--json", "--target", &url]);
    let document: Value = serde_json::from_str(&document.out).expect("JSON");
    let finding = document["findings"].as_array().and_then(|all| all.last());
    assert_eq!(
        finding.expect("one")["verdict"],
        json!("wrong"),
        "{document}"
    );
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
}
