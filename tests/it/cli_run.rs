//! `ic run`: the program, its variables, its signals and its exit.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};

use serde_json::Value;

use crate::cli_all::process::All;
use crate::cli_home::{Home, Serving, begun_stream, free_port, held_port, one_line};
use crate::cli_terminal::terminal;
use crate::support::{DEADLINE, is_ignored};

/// Runs `ic run --mock --port N -- sh -c SCRIPT`.
fn started(home: &Home, port: u16, script: &str) -> (Child, BufReader<ChildStdout>) {
    let port = port.to_string();
    let mut ic = home
        .command(["run", "--mock", "--port", &port, "--", "sh", "-c", script])
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let out = BufReader::new(ic.stdout.take().expect("the stream is piped"));
    (ic, out)
}

/// Waits for signals in a shell, where each ends a `read`, and not for ever at the end of standard input.
const WAIT: &str = "for i in 1 2 3 4 5 6 7 8 9; do read line; done";

#[track_caller]
fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).expect("it can be read");
    line.trim_end().to_owned()
}

fn shop() -> Home {
    Home::new().with("PATH", std::env::var_os("PATH").unwrap_or_default())
}

/// The response to a GET.
#[track_caller]
fn response(port: u16, path: &str) -> String {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    client
        .set_read_timeout(Some(DEADLINE))
        .expect("a time limit can be set");
    write!(
        client,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("the connection accepts bytes");
    let mut response = String::new();
    client
        .read_to_string(&mut response)
        .expect("the interceptor responds");
    response
}

#[test]
fn a_program_runs_for_as_long_as_its_interceptor() {
    let (home, port) = (shop().with("NO_PROXY", "corp"), free_port());
    let script = "echo $OPENAI_BASE_URL $OPENAI_API_BASE $ANTHROPIC_BASE_URL $NO_PROXY; read line; echo $line";
    let (mut ic, mut out) = started(&home, port, script);
    assert_eq!(
        line(&mut out),
        format!(
            "http://localhost:{port}/v1 http://localhost:{port}/v1 http://localhost:{port} corp,localhost,127.0.0.1,::1"
        )
    );
    // The port is bound before the program starts, so a retry is not needed.
    let answer = response(port, "/v1/models");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let health = response(port, "/_ic/health");
    assert!(health.contains("\"served_by\":\"run\""), "{health}");

    let mut input = ic.stdin.take().expect("the stream is piped");
    input
        .write_all(b"what is typed\n")
        .expect("the program reads it");
    assert_eq!(line(&mut out), "what is typed");
    assert_eq!(ic.wait().expect("it ends").code(), Some(0));
    TcpStream::connect(("127.0.0.1", port)).expect_err("the interceptor has exited");
}

#[test]
fn the_exit_code_is_that_of_the_program() {
    let home = shop();
    let check = |command: &[&str], exit: i32| {
        let port = free_port().to_string();
        let mut words = vec!["run", "--mock", "--port", &port];
        words.extend(command);
        home.ic(words).of_unused_run().result(exit)
    };
    check(&["--", "true"], 0);
    check(&["--", "false"], 1);
    check(&["--", "sh", "-c", "exit 7"], 7);
    check(&["--", "sh", "-c", "exit 255"], 255);
    check(&["--", "sh", "-c", "kill -KILL $$"], 137);
    check(&["--", "sh", "-c", "kill -TERM $$"], 143);
    // Its arguments, variables and output.
    assert_eq!(
        check(&["--", "echo", "--port", "--", "-h"], 0),
        "--port -- -h\n"
    );
    let echo = ["sh", "-c", "echo \"$@\"", "sh", "--help", "--port"];
    assert_eq!(check(&echo, 0), "--help --port\n", "without `--` as well");
}

#[test]
fn a_program_that_cannot_be_run_is_reported_with_the_reason() {
    let home = shop();
    #[track_caller]
    fn check(home: &Home, command: impl AsRef<OsStr>, exit: i32, start: &str, end: &str) {
        let port = free_port().to_string();
        let mut words: Vec<&OsStr> = ["run", "--mock", "--port", &port, "--"]
            .map(OsStr::new)
            .to_vec();
        words.push(command.as_ref());
        let said = home.ic(words).complaint(exit);
        assert!(said.starts_with(start) && said.ends_with(end), "{said}");
    }
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = home.path(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        path
    };
    for missing in ["no-such-program", "/no/such/program", "./no-such-program"] {
        let start = format!("there is no program `{missing}`; ");
        check(&home, missing, 127, &start, "");
    }
    check(
        &home,
        home.folder("folder"),
        126,
        "cannot run `",
        "; check the file",
    );
    let file = write("file", b"#!/bin/sh\n", 0o644);
    check(&home, file, 126, "cannot run `", "; check the file");

    // The system reports a missing interpreter as it does a missing program.
    let install = "; correct its first line, or install the interpreter";
    for (line, interpreter, end) in [
        ("#!/no/such/interpreter\n", "/no/such/interpreter", install),
        ("#! \t/no/such/one -e x\n", "/no/such/one", install),
        ("#!no-such-one", "no-such-one", install),
        (
            "#!/bin/sh\r\n",
            "/bin/sh\\r",
            "; save the file with Unix line ends",
        ),
    ] {
        let script = write("script", line.as_bytes(), 0o755);
        let start = format!("cannot run `{}`: ", script.display());
        let end = format!("there is no interpreter `{interpreter}`{end}");
        check(&home, script, 126, &start, &end);
    }
    let loader = b"/lib64/ld-linux-x86-64.so.2";
    let binary = std::fs::read("/bin/true").unwrap_or_default();
    match binary.windows(loader.len()).position(|at| at == loader) {
        Some(at) => {
            let mut binary = binary;
            binary[at + 1..at + 4].copy_from_slice(b"no-");
            let binary = write("binary", &binary, 0o755);
            let end = "the loader of its binary is missing; it was built for another system";
            check(&home, binary, 126, "cannot run `", end);
        }
        None => eprintln!("skipped a missing loader: /bin/true is of another kind"),
    }

    let script = write("interpreted", b"#!/no/such/interpreter\n", 0o755);
    let folders = format!("/no/such/folder:{}", home.path("").display());
    let home = home.with("PATH", folders);
    let start = "cannot run `interpreted`: there is no interpreter `/no/such/interpreter`; ";
    check(&home, "interpreted", 126, start, "");
    drop(script);
}

#[test]
fn a_program_is_not_started_without_its_interceptor() {
    let home = shop();
    let (_listener, held) = held_port();
    let held = held.to_string();
    let marker = home.path("ran");
    let marker = marker.to_str().expect("UTF-8");
    let touch = ["--", "touch", marker];
    let check = |options: &[&str], exit: i32, start: &str| {
        let mut words = vec!["run"];
        words.extend(options);
        words.extend(touch);
        let said = home.ic(words).complaint(exit);
        assert!(said.starts_with(start), "{said}");
        assert!(!home.path("ran").exists(), "{options:?}");
    };
    check(&["--port", &held], 3, &format!("port {held} is in use"));
    check(&["--port", "0"], 2, "`--port 0` is not a port");
    check(&["--target", "localhost"], 2, "`--target localhost`");
    check(
        &["--prot", "1"],
        2,
        "`ic run` has no option `--prot`; did you mean `--port`?",
    );
    let said = home.ic(["run"]).complaint(2);
    assert!(said.contains("CMD"), "{said}");
    let said = home.ic(["run", "--mock", "--"]).complaint(2);
    assert!(said.contains("CMD"), "{said}");
}

#[test]
fn signals_are_forwarded_to_the_program() {
    let home = shop();
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        if is_ignored(signal) {
            continue;
        }
        // A shell runs a trap after the current command, but a signal ends `wait` immediately. With `read`, the line that ends it
        // could arrive before the signal.
        let script = format!(
            "trap 'kill $!; echo got {name}; exit 9' {name}; sleep 60 >&2 & echo ready; wait"
        );
        let (mut ic, mut out) = started(&home, free_port(), &script);
        assert_eq!(line(&mut out), "ready");
        kill_process(Pid::from_child(&ic), signal).expect("it runs");
        assert_eq!(line(&mut out), format!("got {name}"));
        assert_eq!(ic.wait().expect("it ends").code(), Some(9), "{name}");
    }
}

#[test]
fn a_signal_reaches_the_program_once() {
    /// Sends a signal to a process, or to the process group that it leads.
    type Send = fn(Pid, Signal);
    let to_ic: Send = |ic, signal| kill_process(ic, signal).expect("it runs");
    let to_the_group: Send = |ic, signal| kill_process_group(ic, signal).expect("it runs");
    let by_timeout: Send = |ic, signal| {
        kill_process(ic, signal).expect("it runs");
        kill_process_group(ic, signal).expect("it runs");
    };
    let by_the_program: Send = |_, _| {};
    let home = shop();
    for (why, send, then, is_direct) in [
        ("to ic alone", to_ic, "", false),
        ("to the process group", to_the_group, "", true),
        ("by timeout(1), which does both", by_timeout, "", true),
        (
            "by the program to its group",
            by_the_program,
            "kill -$name 0",
            true,
        ),
        (
            "by the program to ic",
            by_the_program,
            "kill -$name $PPID",
            false,
        ),
    ] {
        for (signal, name) in [
            (Signal::TERM, "TERM"),
            (Signal::INT, "INT"),
            (Signal::HUP, "HUP"),
            (Signal::USR1, "USR1"),
        ] {
            if is_ignored(signal) {
                continue;
            }
            let script = format!(
                "n=0; u=0; name={name}; trap 'n=$((n+1)); echo got $n' {name}; \
                 trap 'u=$((u+1)); [ $u = 2 ] && echo total $n && exit 4; echo pong' USR2; \
                 echo ready\nread line\n{then}\n{WAIT}"
            );
            let port = free_port().to_string();
            let mut ic = home
                .command(["run", "--mock", "--port", &port, "--", "sh", "-c", &script])
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the program can be run");
            let mut out = BufReader::new(ic.stdout.take().expect("the stream is piped"));
            let mut input = ic.stdin.take().expect("the stream is piped");
            let id = Pid::from_child(&ic);
            let mut expect = |expected: &str| assert_eq!(line(&mut out), expected, "{why}, {name}");
            expect("ready");
            // The system merges a forwarded signal with one that the program has not handled yet.
            to_ic(id, Signal::STOP);
            waitpid(Some(id), WaitOptions::UNTRACED).expect("it stops");
            send(id, signal);
            input.write_all(b"\n").expect("the program reads it");
            if is_direct {
                expect("got 1");
            }
            to_ic(id, Signal::CONT);
            if !is_direct {
                expect("got 1");
            }
            // A signal too much is forwarded after the first of these at the latest.
            to_ic(id, Signal::USR2);
            expect("pong");
            to_ic(id, Signal::USR2);
            expect("total 1");
            assert_eq!(ic.wait().expect("it ends").code(), Some(4));
        }
    }
}

#[test]
fn a_program_does_not_outlive_ic() {
    let home = shop();
    for (why, trap, then, last) in [
        ("it stops at SIGTERM", "echo bye; exit", "", "bye"),
        ("it ignores SIGTERM", "", "", ""),
        ("it is stopped", "echo bye; exit", "kill -STOP $$", "bye"),
    ] {
        let script = format!(
            "trap 'echo watched' USR1; trap '{trap}' TERM; echo ready; read line\n{then}\n{WAIT}"
        );
        let (mut ic, mut out) = started(&home, free_port(), &script);
        assert_eq!(line(&mut out), "ready", "{why}");
        // It forwards signals once the guard knows the program.
        kill_process(Pid::from_child(&ic), Signal::USR1).expect("it runs");
        assert_eq!(line(&mut out), "watched", "{why}");
        let input = ic.stdin.take();
        ic.kill().expect("it runs");
        ic.wait().expect("it ends");
        // The stream ends when the program, which holds it, has ended.
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let mut rest = String::new();
            out.read_to_string(&mut rest).expect("text");
            let _ = sender.send(rest);
        });
        let rest = ended.recv_timeout(DEADLINE);
        let rest = rest.unwrap_or_else(|_| panic!("{why}, but it still runs"));
        assert_eq!(rest.trim_end(), last, "{why}");
        drop(input);
    }
}

#[test]
fn a_program_killed_by_a_forwarded_signal_is_reported() {
    let home = shop();
    let (mut ic, mut out) = started(&home, free_port(), "echo ready; exec cat");
    assert_eq!(line(&mut out), "ready");
    // `wait` closes standard input, which could end the program before the signal.
    let input = ic.stdin.take();
    kill_process(Pid::from_child(&ic), Signal::TERM).expect("it runs");
    assert_eq!(ic.wait().expect("it ends").code(), Some(128 + 15));
    drop(input);
}

#[test]
fn an_interrupt_of_the_terminal_reaches_the_program_once() {
    if is_ignored(Signal::INT) {
        return;
    }
    let home = shop();
    let (mut person, program) = terminal();
    let same = || Stdio::from(program.try_clone().expect("a descriptor"));
    let port = free_port().to_string();
    let script = "n=0; trap 'n=$((n+1)); echo int $n' INT; echo ready; \
                  while read line || [ $? -gt 128 ]; do [ \"$line\" = end ] && break; done; echo total $n; exit 4";
    // The interceptor leads the session of the terminal, like a foreground job of a shell.
    let mut setsid = Command::new("setsid");
    setsid
        .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_ic")])
        .args(["run", "--mock", "--port", &port, "--", "sh", "-c", script])
        .env("HOME", home.path(""))
        .stdin(same())
        .stdout(same())
        .stderr(same());
    let Ok(mut ic) = setsid.spawn() else {
        eprintln!("skipped: this machine has no setsid");
        return;
    };
    drop((setsid, program));
    let mut shown = BufReader::new(person.try_clone().expect("a descriptor"));
    let mut wait_for = |what: &str| loop {
        let line = line(&mut shown);
        assert!(!line.is_empty(), "{what} is missing");
        if line.ends_with(what) {
            break;
        }
    };
    wait_for("ready");
    person
        .write_all(b"\x03")
        .expect("the terminal accepts input");
    wait_for("int 1");
    person
        .write_all(b"end\n")
        .expect("the terminal accepts input");
    wait_for("total 1");
    assert_eq!(ic.wait().expect("it ends").code(), Some(4));
}

#[test]
fn a_signal_that_ic_ignores_stays_ignored_for_the_program() {
    let home = shop();
    let port = free_port().to_string();
    let ic = env!("CARGO_BIN_EXE_ic");
    let script =
        format!("trap '' HUP; exec {ic} run --mock --port {port} -- grep SigIgn /proc/self/status");
    let ran = Command::new("sh")
        .args(["-c", &script])
        .envs([("HOME", home.path(""))])
        .output();
    let ran = ran.expect("there is a shell");
    let said = String::from_utf8_lossy(&ran.stdout);
    let Some(mask) = said.strip_prefix("SigIgn:") else {
        eprintln!("skipped: ignored signals cannot be queried on this system");
        return;
    };
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a mask");
    assert_eq!(mask & 1, 1, "{said}");
}

#[test]
fn as_process_1_it_reaps_orphaned_processes() {
    let home = shop();
    let port = free_port().to_string();
    // Exits when there is no zombie process.
    let script = "(true &) ; (sh -c 'exit 3' &) ; while grep -l 'State:.Z' /proc/[0-9]*/status; do :; done 2>&1; \
                  echo \"parent $PPID\"; exit 5";
    let mut unshare = Command::new("unshare");
    unshare
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            env!("CARGO_BIN_EXE_ic"),
        ])
        .args(["run", "--mock", "--port", &port, "--", "sh", "-c", script])
        .env("HOME", home.path(""));
    let can = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "true"])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: PID namespaces cannot be created here");
        return;
    }
    let output = unshare.output().expect("it was run before");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.ends_with("parent 1\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

/// Runs `ic run -- sh` with a program that prints a line and goes on until its input ends.
fn waiting(home: &Home) -> Child {
    let mut ic = home
        .command(["run", "--", "sh", "-c", "echo; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let mut out = BufReader::new(ic.stdout.take().expect("a pipe"));
    line(&mut out);
    ic
}

/// Waits until an interceptor with this process id answers on the port; returns the command that it says runs it.
#[track_caller]
fn served_by(port: u16, pid: u32) -> String {
    let start = Instant::now();
    loop {
        let health = TcpStream::connect(("localhost", port)).map(|_| response(port, "/_ic/health"));
        let body = health
            .ok()
            .and_then(|text| Some(text.split_once("\r\n\r\n")?.1.to_owned()));
        let health = body.and_then(|body| serde_json::from_str::<Value>(&body).ok());
        if let Some(health) = health.filter(|health| health["pid"] == pid) {
            return health["served_by"].as_str().expect("text").to_owned();
        }
        assert!(start.elapsed() < DEADLINE, "port {port} is not served");
        thread::yield_now();
    }
}

/// A home whose project has a port, and the port.
fn with_port() -> (Home, u16) {
    let port = free_port();
    let home = shop();
    let folder = home.path("shop");
    (home.with_mappings(&[(&folder, port)], port), port)
}

#[test]
fn a_program_uses_the_interceptor_that_runs_for_the_project() {
    let (home, port) = with_port();
    let serving = Serving::start(&home, &[]);
    let program = env!("CARGO_BIN_EXE_ic");
    let ran = home.ic(["run", "--", program, "health", "--json"]);
    let health = ran.of_unused_run().json(0);
    assert_eq!(
        (&health["pid"], &health["port"]),
        (&serving.pid().into(), &port.into())
    );
    // The project is the same from everywhere, and its program's status stays.
    let elsewhere = ["run", "--project", "../shop", "--", "sh", "-c", "exit 7"];
    let elsewhere = home.ic(elsewhere);
    assert_eq!(elsewhere.of_unused_run().exit, Some(7));
    assert_eq!(served_by(port, serving.pid()), "serve");
    serving.stop();
}

#[test]
fn options_that_differ_from_those_of_the_running_interceptor_are_refused() {
    let (home, port) = with_port();
    let serving = Serving::start(&home, &["--target", "http://localhost:1/a"]);
    let (pid, port) = (serving.pid(), port.to_string());
    let run = |options: &[&str]| home.ic([&["run"], options, &["--", "echo", "started"]].concat());
    for accepted in [
        &[][..],
        &["--target", "http://localhost:1/a"],
        &["--instance-id", "pycharm-{project}"],
        &[
            "--instance-id",
            "pycharm-shop",
            "--port",
            &port,
            "--project",
            "../shop",
        ],
    ] {
        assert_eq!(
            run(accepted).of_unused_run().result(0),
            "started\n",
            "{accepted:?}"
        );
    }
    let differs = "may differ from what it does";
    for (options, option, why) in [
        (
            &["--target", "http://localhost:2"][..],
            "--target",
            "differs from its target http://localhost:1/a",
        ),
        (
            &["--instance-id", "b"],
            "--instance-id",
            "differs from its instance id `pycharm-shop`",
        ),
        (&["--mock"], "--mock", differs),
        (&["--header", "a: b"], "--header", differs),
        (&["--port", &port, "--host", "127.0.0.1"], "--host", differs),
        (&["--body-timeout", "5"], "--body-timeout", differs),
        (&["--insecure"], "--insecure", differs),
    ] {
        assert_eq!(
            run(options).complaint(2),
            format!(
                "this project's interceptor is already running (`ic serve`, pid {pid}), and `{option}` {why}; \
                 leave `{option}` out, or stop it first with `ic stop`"
            )
        );
    }
    // A variable may be set for other programs.
    let home = home.with("TARGET_LLM_URL", "http://localhost:2");
    let ran = home.ic(["run", "--", "true"]).of_unused_run();
    assert_eq!(
        one_line(&ran.err),
        format!(
            "note: `TARGET_LLM_URL=http://localhost:2` is not used: this project's interceptor (`ic serve`, pid {pid}) was \
             started with `http://localhost:1/a`"
        )
    );
    serving.stop();
}

#[test]
fn the_port_is_served_on_when_the_running_interceptor_ends() {
    let (home, port) = with_port();
    let serving = Serving::start(&home, &[]);
    let mut ic = waiting(&home);
    assert_eq!(served_by(port, serving.pid()), "serve");
    serving.stop();
    assert_eq!(served_by(port, ic.id()), "run");
    // Until the program ends.
    drop(ic.stdin.take());
    assert_eq!(
        ic.wait().expect("it ends").code(),
        Some(1),
        "that of `read`"
    );
    TcpStream::connect(("localhost", port)).expect_err("nothing listens");
}

#[test]
fn a_program_uses_serve_all_and_outlives_it() {
    let (home, port) = with_port();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("1 project\n");
    let mut ic = waiting(&home);
    assert_eq!(served_by(port, all.pid()), "all");
    let pid = all.pid();
    let refused = home
        .ic(["run", "--header", "a: b", "--", "true"])
        .complaint(2);
    assert_eq!(
        refused,
        format!(
            "this project's interceptor is already running (`ic serve --all`, pid {pid}), and `--header` may differ from \
             what it does; leave `--header` out, or keep it for the project with `ic set`"
        )
    );
    // The project's own `ic serve` gets the port, although the program's `ic` waits for it as well.
    let own = Serving::start(&home, &[]);
    assert_eq!(served_by(port, own.pid()), "serve");
    own.stop();
    assert_eq!(served_by(port, all.pid()), "all");
    home.ic(["stop", "--all"]).result(0);
    assert_eq!(served_by(port, ic.id()), "run");
    drop(ic.stdin.take());
    ic.wait().expect("it ends");
    all.stop();
}

#[test]
fn a_program_needs_no_variable_that_only_the_running_interceptor_needs() {
    let (home, port) = with_port();
    home.ic(["set", "--header", "x-key: {env:SHOP_KEY}"])
        .result(0);
    let home = home.with("SHOP_KEY", "k");
    let serving = Serving::start(&home, &[]);
    let mut without = home.with("SHOP_KEY", "");
    let ran = without.ic(["run", "--", "echo", "started"]);
    assert_eq!(ran.of_unused_run().result(0), "started\n");
    for (name, value) in [("TARGET_LLM_URL", "abc"), ("SUPERMEMORY_USERNAME", "{a}")] {
        without = without.with(name, value);
        let ran = without.ic(["run", "--", "echo", "started"]);
        let line = ran.complaint(2);
        assert!(line.starts_with(&format!("`{name}={value}` ")), "{line}");
        without = without.with(name, "");
    }
    let missing = "the field `x-key` needs the variable SHOP_KEY, which is not set; set it, or leave the field out";
    let with_option = ["run", "--grace", "1", "--", "echo", "started"];
    assert_eq!(without.ic(with_option).complaint(2), missing);
    serving.stop();
    let ran = without.ic(["run", "--", "echo", "started"]);
    assert_eq!(ran.complaint(2), missing);
    TcpStream::connect(("localhost", port)).expect_err("nothing listens");
}

#[test]
fn options_that_only_serve_takes_are_refused_and_not_shown() {
    let home = Home::new();
    let help = home.ic(["run", "--help"]).result(0);
    for option in ["--all", "--listen", "--listen-mode", "--idle-exit"] {
        assert!(!help.contains(&format!("  {option} ")), "{option}: {help}");
        let value = (option != "--all").then_some("unix:/s");
        let words = ["run", option].into_iter().chain(value);
        let refused = home.ic(words.chain(["--", "true"])).complaint(2);
        assert!(refused.starts_with(&format!("`{option}")), "{refused}");
    }
    assert!(help.contains("  --target URL "), "{help}");
}

#[test]
fn requests_of_other_clients_finish_when_the_program_ends() {
    let (home, port) = with_port();
    let mut ic = home
        .command(["run", "--mock", "--mock-interval-ms", "200"])
        .args(["--", "sh", "-c", "echo; read line; exit 5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    line(&mut BufReader::new(ic.stdout.take().expect("a pipe")));
    let mut client = begun_stream(port, "one two three four");
    drop(ic.stdin.take());
    let mut rest = String::new();
    client
        .read_to_string(&mut rest)
        .expect("the response is complete");
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(ic.wait().expect("it ends").code(), Some(5));
}

#[test]
fn several_runs_of_a_project_share_an_interceptor_that_outlives_each() {
    let (home, port) = with_port();
    let mut runs = vec![waiting(&home), waiting(&home), waiting(&home)];
    assert_eq!(served_by(port, runs[0].id()), "run");
    let start = Instant::now();
    while !runs.is_empty() {
        let health = TcpStream::connect(("localhost", port)).map(|_| response(port, "/_ic/health"));
        let is_server = |ic: &Child| {
            let pid = format!("\"pid\":{},", ic.id());
            health.as_ref().is_ok_and(|health| health.contains(&pid))
        };
        if let Some(server) = runs.iter().position(is_server) {
            let mut server = runs.remove(server);
            drop(server.stdin.take());
            server.wait().expect("it ends");
        }
        assert!(start.elapsed() < DEADLINE, "port {port} is not served");
        thread::yield_now();
    }
    TcpStream::connect(("localhost", port)).expect_err("nothing listens");
}

#[test]
fn a_program_that_sends_no_request_is_reported_with_the_likely_reason() {
    let (home, port) = with_port();
    let tool = home.path("codex");
    std::fs::write(&tool, "#!/bin/sh\nexit 3\n").expect("a file");
    std::fs::set_permissions(&tool, Permissions::from_mode(0o755)).expect("its mode can be set");
    let tool = tool.to_str().expect("UTF-8");
    let ask = "exec 3<>/dev/tcp/localhost/$0 && printf 'GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3 && cat <&3 >&2";
    let number = port.to_string();
    let run = |home: &Home, command: &[&str]| home.ic([&["run", "--mock", "--"], command].concat());
    let url = format!("http://localhost:{port}");
    let unread = "it does not read the variables that `ic help env` lists";
    let ran = run(&home, &["sh", "-c", "exit 4"]);
    let expected = format!("`sh` has sent no request to {url}; if it should have, {unread}");
    assert_eq!((ran.exit, one_line(&ran.err)), (Some(4), expected));
    let launcher = home.path("npx");
    std::os::unix::fs::symlink(tool, &launcher).expect("a link");
    let launcher = launcher.to_str().expect("UTF-8");
    let said = run(&home, &[launcher, "@openai/codex@1.2"]).complaint(3);
    assert!(said.contains("`ic snippet codex`"), "{said}");
    let ran = run(&home, &[tool]);
    let expected = format!(
        "`{tool}` has sent no request to {url}; if it should have, its own settings win over the variables: \
         `ic snippet codex` prints those to use"
    );
    assert_eq!((ran.exit, one_line(&ran.err)), (Some(3), expected));
    let behind_proxy = home.with("http_proxy", "http://proxy:3128");
    let expected = format!(
        "`true` has sent no request to {url}; if it should have, {unread}, or sends them to the proxy in http_proxy \
         although NO_PROXY names this machine"
    );
    assert_eq!(run(&behind_proxy, &["true"]).complaint(0), expected);
    // Nothing else is said of a program that does not exist.
    let said = run(&behind_proxy, &["no-such-program"]).complaint(127);
    assert!(said.starts_with("there is no program"), "{said}");
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("skipped: bash is not installed");
        return;
    }
    let ran = run(&behind_proxy, &["bash", "-c", ask, &number]);
    assert!(ran.err.starts_with("HTTP/1.1 200 OK\r\n"), "{ran:?}");
    assert!(!ran.err.contains("ic: "), "{ran:?}");
    // Also where another `ic` has received it.
    let serving = Serving::start(&behind_proxy, &[]);
    let ran = behind_proxy.ic(["run", "--", "bash", "-c", ask, &number]);
    assert!(ran.err.starts_with("HTTP/1.1 200 OK\r\n"), "{ran:?}");
    assert!(!ran.err.contains("ic: "), "{ran:?}");
    let ran = behind_proxy.ic(["run", "--", "true"]).of_unused_run();
    assert_eq!((ran.exit, &*ran.err), (Some(0), ""));
    serving.stop();
}

#[test]
fn placeholders_in_arguments_are_filled_in() {
    let (home, port) = with_port();
    let print = "printf '%s\\n' \"$@\"";
    let words = [
        "{port}",
        "--base={v1}",
        "{{port}} {url}",
        r#"{"a":{"b":"${port}"}}"#,
        "{{x}}",
    ];
    let command = [
        &["run", "--mock", "--", "sh", "-c", print, "sh"][..],
        &words,
    ]
    .concat();
    let ran = home.ic(command).of_unused_run();
    let expected = format!(
        "{port}\n--base=http://localhost:{port}/v1\n{{port}} http://localhost:{port}\n{}\n{{{{x}}}}\n",
        r#"{"a":{"b":"${port}"}}"#
    );
    assert_eq!((ran.exit, &*ran.out), (Some(0), &*expected), "{ran:?}");
}

#[test]
fn a_program_gets_no_v1_where_the_target_has_a_version_of_its_own() {
    let target = "http://127.0.0.1:9/v4";
    let check = |home: &Home, port: u16| {
        let url = format!("http://localhost:{port}");
        let got = |program: &str, argument: &str| {
            let agent = agent(home, program);
            let ran = home.ic(["run", "--", &agent, argument]).of_unused_run();
            assert_eq!(ran.exit, Some(0), "{ran:?}");
            ran.out
        };
        assert!(got("cat", "{v1} {url}").starts_with(&format!("{url} {url}\n")));
        let codex = got("codex", "a");
        let expected = format!("base_url = \"{url}\",");
        assert!(codex.contains(&expected), "{codex}");
        let opencode = got("opencode", "a");
        // The paths of Anthropic's API have theirs in any case.
        let (openai, anthropic) = opencode.split_once("anthropic").expect("both");
        assert!(openai.contains(&format!("\"{url}\"")), "{opencode}");
        assert!(anthropic.contains(&format!("\"{url}/v1\"")), "{opencode}");
        let goose = got("goose", "a");
        assert!(goose.contains("BASE_PATH=chat/completions\n"), "{goose}");
    };
    let (home, port) = with_port();
    check(&home.with("TARGET_LLM_URL", target), port);
    // The target of the interceptor that runs counts.
    let (home, port) = with_port();
    let serving = Serving::start(&home, &["--target", target]);
    check(&home, port);
    serving.stop();
}

/// A program of this name that prints its arguments and some variables, one a line.
fn agent(home: &Home, name: &str) -> String {
    let file = home.path(name);
    let script = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nenv | grep -E '^(OPENCODE|COPILOT|OPENAI_(HOST|BASE_PATH)|GOOGLE)' | sort\n";
    std::fs::write(&file, script).expect("a file");
    std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("its mode can be set");
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_agent_gets_the_settings_that_it_needs_or_a_line_says_which() {
    let (home, port) = with_port();
    let url = format!("http://localhost:{port}");
    let google = format!("GOOGLE_GEMINI_BASE_URL={url}\n");
    let provider = format!(
        "model_providers.ic-{port}={{name = \"ic\", base_url = \"{url}/v1\", wire_api = \"responses\""
    );
    let chosen = format!("-c\nmodel_provider=ic-{port}\n-c\n{provider}");
    let options = format!("{{\"options\":{{\"baseURL\":\"{url}/v1\"}}}}");
    let opencode = format!(
        "OPENCODE_CONFIG_CONTENT={{\"provider\":{{\"openai\":{options},\"anthropic\":{options}}}}}\n"
    );
    let copilot = format!("COPILOT_PROVIDER_BASE_URL={url}");
    let key = ("OPENAI_API_KEY", "k");
    type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], String, &'a str);
    let rows: &[Row<'_>] = &[
        (
            &["codex", "exec", "hi"],
            &[],
            format!("{chosen}}}\nexec\nhi\n"),
            "",
        ),
        (
            &["codex"],
            &[key],
            format!("{chosen}, env_key = \"OPENAI_API_KEY\"}}\n"),
            "",
        ),
        (
            &["codex", "-c", "openai_base_url={v1}"],
            &[],
            format!("-c\nopenai_base_url={url}/v1\n"),
            "",
        ),
        (
            &["npx", "-y", "@openai/codex@0.171.0", "exec", "hi"],
            &[],
            format!("-y\n@openai/codex@0.171.0\n{chosen}}}\nexec\nhi\n"),
            "",
        ),
        (
            &["npx", "--package", "@openai/codex", "codex", "hi"],
            &[],
            format!("--package\n@openai/codex\ncodex\n{chosen}}}\nhi\n"),
            "",
        ),
        (
            &["pnpm", "dlx", "@qwen-code/qwen-code", "-p", "a"],
            &[],
            "dlx\n@qwen-code/qwen-code\n--auth-type\nopenai\n-p\na\n".to_owned(),
            "set OPENAI_MODEL, or give --model",
        ),
        (
            &["npx", "@continuedev/cli"],
            &[],
            "@continuedev/cli\n".to_owned(),
            "`ic snippet continue`",
        ),
        // Neither starts an agent.
        (
            &["pnpm", "install", "codex"],
            &[],
            "install\ncodex\n".to_owned(),
            "",
        ),
        (&["npx", "-y"], &[], "-y\n".to_owned(), ""),
        (
            &["opencode", "run"],
            &[],
            format!("run\nGOOGLE\n{opencode}"),
            "",
        ),
        (
            &["opencode"],
            &[("OPENCODE_CONFIG_CONTENT", "{}")],
            "\nGOOGLE\nOPENCODE_CONFIG_CONTENT={}\n".to_owned(),
            "",
        ),
        (
            &["qwen", "-m", "a"],
            &[],
            "--auth-type\nopenai\n-m\na\n".to_owned(),
            "",
        ),
        (
            &["qwen", "--auth-type=x"],
            &[("OPENAI_MODEL", "a")],
            "--auth-type=x\n".to_owned(),
            "",
        ),
        (
            &["qwen", "-p", "a"],
            &[],
            "--auth-type\nopenai\n-p\na\n".to_owned(),
            "set OPENAI_MODEL, or give --model",
        ),
        (
            &["copilot", "--model=a"],
            &[key],
            format!("--model=a\nCOPILOT_PROVIDER_API_KEY=k\n{copilot}/v1\nGOOGLE\n"),
            "",
        ),
        (
            &["copilot", "-p"],
            &[("COPILOT_PROVIDER_TYPE", "anthropic")],
            format!("-p\n{copilot}\nCOPILOT_PROVIDER_TYPE=anthropic\nGOOGLE\n"),
            "set COPILOT_MODEL, or give --model",
        ),
        (
            &["goose"],
            &[],
            format!("\nGOOGLE\nOPENAI_BASE_PATH=v1/chat/completions\nOPENAI_HOST={url}\n"),
            "",
        ),
        (&["gemini"], &[], "\n".to_owned(), "`ic snippet gemini`"),
        (
            &["cn", "-p", "a"],
            &[],
            "-p\na\n".to_owned(),
            "`ic snippet continue`",
        ),
        (
            &["cn", "--config", "a"],
            &[],
            "--config\na\n".to_owned(),
            "",
        ),
        (&["cline", "a"], &[], "a\n".to_owned(), "`ic snippet cline`"),
        (
            &["cline", "--data-dir", "a"],
            &[],
            "--data-dir\na\n".to_owned(),
            "",
        ),
        (&["pi"], &[], "\n".to_owned(), "`ic snippet pi`"),
        (
            &["pi"],
            &[("PI_CODING_AGENT_DIR", "a")],
            "\n".to_owned(),
            "",
        ),
        (&["claude", "a"], &[], "a\n".to_owned(), ""),
    ];
    for (command, variables, expected, note) in rows {
        let program = agent(&home, command[0]);
        let words = [&["run", "--mock", "--", &program][..], &command[1..]].concat();
        let output = home.command(words).envs(variables.iter().copied()).output();
        let output = output.expect("it can be run");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        let expected = match expected.contains("GOOGLE\n") {
            true => expected.replace("GOOGLE\n", &google),
            false => format!("{expected}{google}"),
        };
        assert_eq!(out, expected, "{command:?}: {err}");
        let notes: Vec<_> = err
            .lines()
            .filter(|line| line.starts_with("ic: note: "))
            .collect();
        let is_expected = match note.is_empty() {
            true => notes.is_empty(),
            false => notes.len() == 1 && notes[0].contains(note),
        };
        assert!(is_expected, "{command:?}: {err}");
    }
    std::fs::create_dir(home.path(".gemini")).expect("a folder");
    let settings = r#"{"security":{"auth":{"selectedType":"gemini-api-key"}}}"#;
    std::fs::write(home.path(".gemini/settings.json"), settings).expect("a file");
    let ran = home.ic(["run", "--mock", "--", &agent(&home, "gemini")]);
    assert!(!ran.err.contains("note: "), "{ran:?}");
}
