//! `ic tail`: which requests it shows, as text and as JSON, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli_home::{Home, Serving, free_port};
use crate::cli_terminal::OnTerminal;
use crate::support::{Conn, is_ignored};

/// A running `ic tail`, killed when it is dropped.
struct Tail {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(home: &Home, arguments: &[&str]) -> Tail {
        let mut child = home
            .command([&["tail"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let out = child.stdout.take().map(BufReader::new);
        Tail { child, out }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        let out = self.out.as_mut().expect("standard output is piped");
        out.read_line(&mut line).expect("text");
        assert!(
            line.ends_with('\n'),
            "a complete line instead of the end: {line:?}"
        );
        line
    }

    /// Returns its exit code and its standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("a child can be waited for");
        let mut said = String::new();
        let errors = self.child.stderr.as_mut().expect("a pipe");
        errors.read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends requests until a newly started tail prints one; returns its line.
#[track_caller]
fn first_line(tail: &mut Tail, port: u16) -> String {
    let (found, line) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = found.send(tail.line());
        });
        loop {
            get(port, "/v1/models");
            if let Ok(line) = line.recv_timeout(std::time::Duration::from_millis(20)) {
                return line;
            }
        }
    })
}

pub fn get(port: u16, path: &str) {
    let mut client = Conn::connect("client", ([127, 0, 0, 1], port).into());
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ));
    client.response("GET");
}

/// A home with an interceptor for its current folder.
fn serving() -> (Home, u16, Serving) {
    let home = Home::new();
    let port = free_port();
    let serving = Serving::start(&home, &["--port", &port.to_string()]);
    (home, port, serving)
}

#[test]
fn a_request_is_one_line_and_the_command_ends_with_the_interceptor() {
    let (home, port, serving) = serving();
    let mut tail = Tail::start(&home, &[]);
    let line = first_line(&mut tail, port);
    assert!(line.ends_with(" B  GET /v1/models\n"), "{line}");
    assert!(line.contains("Z  200  "), "{line}");
    assert!(!line.contains('\x1b'), "no colours: {line:?}");
    serving.stop();
    let (exit, said) = tail.end();
    assert_eq!(
        (exit, said.as_str()),
        (Some(0), "ic: the interceptor has stopped\n")
    );
}

#[test]
fn json_output_is_the_lines_of_the_feed() {
    let (home, _, serving) = serving();
    let mut tail = Tail::start(&home, &["--json"]);
    let hello: Value = serde_json::from_str(&tail.line()).expect("JSON");
    assert_eq!(
        (&hello["event"], &hello["pid"]),
        (&"hello".into(), &serving.pid().into())
    );
    assert_eq!(hello["project"], "shop");
    assert_eq!(tail.line(), "{\"event\":\"live\"}\n");
    serving.stop();
    assert_eq!(tail.line(), "{\"event\":\"bye\"}\n");
    assert_eq!(tail.end().0, Some(0));
}

#[test]
fn it_ends_on_a_signal_and_when_its_reader_leaves() {
    let (home, port, _serving) = serving();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if signal == Signal::HUP && is_ignored(signal) {
            continue;
        }
        let mut tail = Tail::start(&home, &["--json"]);
        tail.line();
        kill_process(Pid::from_child(&tail.child), signal).expect("it runs");
        assert_eq!(tail.end(), (Some(0), String::new()), "{signal:?}");
    }
    let mut tail = Tail::start(&home, &["--json"]);
    tail.line();
    // It detects the closed reader at the next line.
    drop(tail.out.take());
    get(port, "/v1/models");
    assert_eq!(tail.end(), (Some(0), String::new()));
}

#[test]
fn a_folder_a_port_or_all_selects_the_interceptors() {
    let (home, port, serving) = serving();
    let other = home.folder("other");
    let number = free_port().to_string();
    let path = other.to_str().expect("UTF-8").to_owned();
    let second = Serving::start(&home, &["--port", &number, "--project", &path]);
    let greeted = |home: &Home, arguments: &[&str], count: usize| -> Vec<Value> {
        let mut tail = Tail::start(home, arguments);
        let hellos = (0..count).map(|_| serde_json::from_str(&tail.line()).expect("JSON"));
        hellos.collect()
    };
    let pids = |hellos: Vec<Value>| -> Vec<u64> {
        hellos
            .iter()
            .filter_map(|hello| hello["pid"].as_u64())
            .collect()
    };
    let (first, second) = (u64::from(serving.pid()), u64::from(second.pid()));
    assert_eq!(pids(greeted(&home, &["--json"], 1)), [first]);
    assert_eq!(pids(greeted(&home, &["--json", &path], 1)), [second]);
    assert_eq!(pids(greeted(&home, &["--json", "../other/"], 1)), [second]);
    let mut both = pids(greeted(&home, &["--json", "--all"], 2));
    both.sort_unstable();
    let mut expected = [first, second];
    expected.sort_unstable();
    assert_eq!(both, expected);
    let mut tail = Tail::start(&home, &["--all"]);
    let line = first_line(&mut tail, port);
    assert!(line.contains("  shop     GET /v1/models"), "{line}");
    let home = home.with("INTERCEPTOR_PORT", &number);
    assert_eq!(pids(greeted(&home, &["--json"], 1)), [second]);
    assert_eq!(pids(greeted(&home, &["--json", "."], 1)), [first]);
}

#[test]
fn without_an_interceptor_the_error_says_what_to_do() {
    let home = Home::new();
    let said = home.ic(["tail"]).complaint(1);
    let shop = home.path("shop");
    assert_eq!(
        said,
        format!(
            "no interceptor runs for `{}`; `ic serve` starts one, `ic status` shows those that run",
            shop.display()
        )
    );
    let said = home.ic(["tail", "--all"]).complaint(1);
    assert!(
        said.starts_with("no interceptor runs; `ic serve`"),
        "{said}"
    );
    let said = home.ic(["tail", "--all", "."]).complaint(2);
    assert!(said.starts_with("`--all` is for every project"), "{said}");
    let port = free_port().to_string();
    let on_port = Home::new().with("INTERCEPTOR_PORT", &port);
    let said = on_port.ic(["tail"]).complaint(1);
    let expected = format!("no interceptor runs on port {port}; ");
    assert!(said.starts_with(&expected), "{said}");
    let said = Home::new()
        .with("INTERCEPTOR_PORT", "x")
        .ic(["tail"])
        .complaint(2);
    assert!(
        said.starts_with("`INTERCEPTOR_PORT=x` is not a port"),
        "{said}"
    );
}

/// The names in the folder of the feeds.
fn sockets(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.path(".cache/ic/run"));
    let names = entries.into_iter().flatten().map(|entry| {
        let name = entry.expect("readable").file_name();
        name.into_string().expect("UTF-8")
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn no_end_of_a_process_leaves_the_socket_of_its_feed() {
    let home = Home::new().with("PATH", std::env::var_os("PATH").unwrap_or_default());
    let script = "ls $HOME/.cache/ic/run; exit 7";
    let ran = home
        .ic(["run", "--mock", "--", "sh", "-c", script])
        .of_unused_run()
        .result(7);
    assert!(ran.ends_with(".sock\n"), "a socket is printed: {ran:?}");
    assert_eq!(sockets(&home), [""; 0], "ic run");
    home.ic(["run", "--mock", "--", "no-such-program"])
        .complaint(127);
    assert_eq!(sockets(&home), [""; 0], "ic run without its program");
    let mock = Serving::start(&home, &[]);
    assert_eq!(sockets(&home), [format!("{}.sock", mock.pid())]);
    let target = home.ic(["env", "--json"]).json(0)["OPENAI_BASE_URL"].clone();
    let target = target.as_str().expect("a URL").to_owned();
    let target = target.strip_suffix("/v1").expect("the API").to_owned();
    let doctor = home.ic(["doctor", "--target", &target, "--no-stream"]);
    assert!(
        doctor.out.contains("API"),
        "it started its own interceptor: {doctor:?}"
    );
    assert_eq!(
        sockets(&home),
        [format!("{}.sock", mock.pid())],
        "ic doctor"
    );
    mock.stop();
    assert_eq!(sockets(&home), [""; 0], "ic serve");
}

#[test]
fn only_the_sockets_of_killed_processes_are_removed() {
    let (home, _, killed) = serving();
    let killed_pid = killed.pid();
    drop(killed);
    let folder = home.path(".cache/ic/run");
    let ended = |name: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ic"))
            .arg("--version")
            .stdout(Stdio::null())
            .spawn()
            .expect("the program can be run");
        child.wait().expect("it ends");
        folder.join(name.replace("PID", &child.id().to_string()))
    };
    // In another container, where process ids have another meaning.
    let elsewhere = ended("PID.sock");
    let _elsewhere = UnixListener::bind(&elsewhere).expect("a new socket");
    // As a killed process of an older version leaves it before it listens.
    let half = ended(".PID.sock");
    drop(UnixListener::bind(&half).expect("a new socket"));
    let file = ended("PID.sock");
    std::fs::write(&file, "").expect("a file");
    let link = ended("PID.sock");
    std::os::unix::fs::symlink(&half, &link).expect("a link");
    let own = folder.join(format!("{}.sock", std::process::id()));
    drop(UnixListener::bind(&own).expect("a new socket"));
    let other = folder.join("other.sock");
    drop(UnixListener::bind(&other).expect("a new socket"));

    let killed = folder.join(format!("{killed_pid}.sock"));
    assert!(killed.exists(), "a killed process cannot remove its socket");
    for command in ["tail", "serve"] {
        if !killed.exists() {
            drop(UnixListener::bind(&killed).expect("a new socket"));
            drop(UnixListener::bind(&half).expect("a new socket"));
        }
        match command {
            "tail" => drop(home.ic(["tail"]).complaint(1)),
            _ => Serving::start(&home, &[]).stop(),
        }
        for removed in [&killed, &half] {
            assert!(!removed.exists(), "{command}: {}", removed.display());
        }
        for kept in [&elsewhere, &file, &link, &own, &other] {
            let found = kept.symlink_metadata();
            assert!(found.is_ok(), "{command}: {}", kept.display());
        }
    }
}

#[test]
fn an_interceptor_with_its_feed_in_another_folder_is_named() {
    let runtime = tempfile::tempdir().expect("a temporary folder");
    let (home, _, serving) = serving();
    let home = home.with("XDG_RUNTIME_DIR", runtime.path());
    let said = home.ic(["tail"]).complaint(1);
    let folder = runtime.path().join("ic");
    assert_eq!(
        said,
        format!(
            "the interceptor for `{}` (pid {}) has no feed in `{}`; run `ic tail` with its HOME and \
             XDG_RUNTIME_DIR, or start it with RUST_LOG=debug to see why",
            home.path("shop").display(),
            serving.pid(),
            folder.display()
        )
    );
}

#[test]
fn a_terminal_shows_requests_in_flight() {
    let (home, port, _serving) = serving();
    let mut tail = OnTerminal::start(home.command(["tail"]), (120, 24));
    let heading = tail.until("\r\n");
    assert!(heading.starts_with("TIME "), "{heading:?}");
    get(port, "/v1/models");
    let shown = tail.until("GET /v1/models\r\n");
    assert!(
        shown.contains("\r\x1b[K… 1 in flight: GET /v1/models\r\x1b[K"),
        "{shown:?}"
    );
    assert!(
        !shown.contains("\x1b[3"),
        "only failures have a colour: {shown:?}"
    );
    tail.signal(Signal::INT);
    assert_eq!(tail.end().0, Some(0));
}

#[test]
fn the_requests_of_a_killed_interceptor_are_not_in_flight() {
    let (home, port, _serving) = serving();
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let target = format!("http://{}", silent.local_addr().expect("an address"));
    let other = home.folder("other").to_str().expect("UTF-8").to_owned();
    let of_other = free_port();
    let number = of_other.to_string();
    let options = ["--port", &number, "--project", &other, "--target", &target];
    let killed = Serving::start(&home, &options);
    let mut tail = OnTerminal::start(home.command(["tail", "--all"]), (120, 24));
    tail.until("REQUEST");
    let mut client = Conn::connect("client", ([127, 0, 0, 1], of_other).into());
    client.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    tail.until("… 1 in flight: GET /slow");
    drop(killed);
    tail.until("\r\x1b[K");
    get(port, "/v1/models");
    tail.until("… 1 in flight: GET /v1/models");
    tail.signal(Signal::INT);
    assert_eq!(tail.end().0, Some(0));
}
