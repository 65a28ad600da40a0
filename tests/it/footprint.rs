//! System calls per request and per event, the number of threads, the size of the program, and its memory while it is idle.
//!
//! Counts and sizes are the same on every machine under every load, so these tests detect growth without a benchmark.
//! Times are not tested; `cargo bench --bench forward` measures them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli_all::process::{All, at};
use crate::cli_home::Home;
use crate::support::*;

/// The largest number of system calls for one exchange or event. Any forwarder that waits for readiness needs to wait, read
/// and write once in each direction; an event has one direction only.
const CALLS: &[(&str, u64, Repeat)] = &[
    ("a GET on a kept connection", 6, |counted, times| {
        let request = "GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n";
        exchanges(counted, times, request);
    }),
    (
        "a POST whose body comes with its head",
        6,
        |counted, times| {
            let body = "x".repeat(2048);
            let head = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2048\r\n\r\n";
            exchanges(counted, times, &format!("{head}{body}"));
        },
    ),
    ("an event of a stream", 3, |counted, times| {
        let event = "data: {\"delta\":\"word\"}\n\n";
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        for _ in 0..times {
            counted.served.send(&chunk);
            counted.client.expect_some(&mut counted.body, event);
        }
    }),
];

type Repeat = fn(&mut Counted, u64);

/// Guards against growth, just above the current size: with all features, and with none.
const RELEASE_BYTES_MAX: u64 = 5270 << 10;
const SMALLEST_BYTES_MAX: u64 = 3690 << 10;

/// The largest anonymous memory of an idle process, in KiB: memory that the system cannot take back without swap.
const IDLE_KIB_MAX: u64 = 400;

/// Longer than any work that is not a time limit.
const QUIET: Duration = Duration::from_secs(2);

/// An exchange in progress.
struct Counted {
    client: Conn,
    served: Conn,
    body: Body,
}

#[test]
fn a_request_takes_six_system_calls_and_an_event_three() {
    for &(what, most, repeat) in CALLS {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        served.send(ANSWER);
        client.response("GET");
        // After a second response the origin is known to keep connections; before that, a POST gets a new one.
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        served.request();
        let is_stream = what.contains("event");
        served.send(if is_stream { STREAM } else { ANSWER });
        let (_, framing) = client.response_head("GET");
        let mut body = Body::new(framing);
        if !is_stream {
            client.expect_some(&mut body, "ok");
        }
        let mut counted = Counted {
            client,
            served,
            body,
        };
        // Buffers and tables grow to their final size.
        repeat(&mut counted, 20);
        // Both counts contain the cost of attaching and detaching.
        let [few, many] = [100, 500];
        let mut counts = Vec::new();
        for times in [few, many] {
            let tracer = match Tracer::attach(interceptor.pid()) {
                Ok(tracer) => tracer,
                Err(reason) => return skip(&reason),
            };
            repeat(&mut counted, times);
            counts.push(tracer.finish());
        }
        let [(with_few, _), (with_many, table)] = &counts[..] else {
            unreachable!("there were two rounds");
        };
        let calls = with_many.saturating_sub(*with_few);
        // Timers may fire meanwhile. One more call per exchange would exceed the allowance four times.
        let allowance = (many - few) / 4;
        assert!(
            calls <= most * (many - few) + allowance,
            "{what}: {calls} system calls for {} of them, {most} each are needed:\n{table}",
            many - few,
        );
    }
    count("footprint: kinds of exchanges", CALLS.len());
}

#[test]
fn a_process_has_one_thread() {
    let (_, interceptor) = &agreeing();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response("GET");
    assert_eq!(threads(interceptor.pid()), 1);
}

#[test]
fn the_thread_of_a_name_lookup_ends_soon() {
    let interceptor = Launch::toward("http://no-such-host.invalid").start();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response("GET").status, 502);
    wait_until("threads", 1, || threads(interceptor.pid()));
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("a running process has threads")
        .count()
}

#[test]
fn an_idle_interceptor_makes_no_system_call() {
    let (_origin, with_target) = agreeing();
    let with_mock = Launch::bare().args(["--mock"]).start();
    for (target, interceptor) in [("an origin", &with_target), ("the mock", &with_mock)] {
        let mut client = interceptor.client();
        client.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response("GET");
        drop(client);
        // The pooled connection to the target is closed first, after its idle limit.
        wait_until_quiet(interceptor.pid(), target);
    }
}

#[test]
fn serving_all_projects_makes_no_system_call_while_it_is_idle() {
    // Without inotify it looks at the registry every two seconds.
    if cfg!(ic_portable) {
        return;
    }
    let home = Home::new();
    let ports = [crate::cli_home::free_port(), crate::cli_home::free_port()];
    let (shop, web) = (home.path("shop"), home.folder("web"));
    let home = home.with_mappings(&[(&shop, ports[0]), (&web, ports[1])], ports[0]);
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let mut client = Conn::connect("client", at(ports[0]));
    client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response("GET");
    drop(client);
    home.ic(["set", "--header", "a: b"]);
    all.wait_for_count("  shop  → ", 2);
    wait_until_quiet(all.pid(), "the mock of all projects");
    all.stop();
}

/// Waits until no thread of a process has run for [`QUIET`]. Commands of other tests that ask every interceptor who it is wake it.
#[track_caller]
fn wait_until_quiet(pid: u32, target: &str) {
    let is_quiet = |_| {
        let before = scheduled(pid);
        thread::sleep(QUIET);
        scheduled(pid) == before
    };
    assert!(
        (0..30).any(is_quiet),
        "in front of {target}: a thread runs within each {QUIET:?}"
    );
}

/// The content of `schedstat` of each thread: how long and how often it has run.
fn scheduled(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process has threads");
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat"));
    tasks.filter_map(|task| task.and_then(read).ok()).collect()
}

#[test]
fn the_release_binary_is_no_larger_than_its_limit() {
    check_size("IC_RELEASE", RELEASE_BYTES_MAX);
}

#[test]
fn the_smallest_build_is_no_larger_than_its_limit() {
    check_size("IC_SMALLEST", SMALLEST_BYTES_MAX);
}

#[track_caller]
fn check_size(variable: &str, limit: u64) {
    let Some(path) = binary(variable) else { return };
    let size = fs::metadata(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .len();
    assert!(
        size <= limit,
        "{}: {} KiB, more than {} KiB",
        path.display(),
        size / 1024,
        limit / 1024,
    );
}

#[test]
fn the_release_binary_is_small_while_it_is_idle() {
    let Some(path) = binary("IC_RELEASE") else {
        return;
    };
    let folder = scratch_folder();
    let socket = scratch_socket();
    let idle = Command::new(&path)
        .args(["serve", "--target", "http://127.0.0.1:9", "--listen"])
        .arg(format!("unix:{}", socket.display()))
        .env("HOME", &folder)
        .stdin(Stdio::null())
        .spawn()
        .expect("the release binary starts");
    let idle = Idle(idle);
    let rollup = format!("/proc/{}/smaps_rollup", idle.0.id());
    wait_until("the socket exists", true, || socket.exists());
    let text = fs::read_to_string(&rollup).expect("a process of the same user is readable");
    let anonymous = text.lines().find_map(|line| kib(line, "Anonymous:"));
    let anonymous = anonymous.expect("the kernel reports anonymous memory");
    assert!(
        anonymous <= IDLE_KIB_MAX,
        "{anonymous} KiB, more than {IDLE_KIB_MAX} KiB"
    );
    drop(idle);
    let _ = fs::remove_file(&socket);
}

/// A child process that is killed at the end of the test.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary that the environment variable names. Sizes of a debug build do not count.
fn binary(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        println!("skipped: {variable} is not set; .ci/run sets it");
    }
    path
}

/// The size in KiB, if the line is that of `name`.
fn kib(line: &str, name: &str) -> Option<u64> {
    let size = line.strip_prefix(name)?.strip_suffix(" kB")?;
    size.trim().parse().ok()
}

fn exchanges(counted: &mut Counted, times: u64, request: &str) {
    for _ in 0..times {
        counted.client.send(request);
        counted.served.request();
        counted.served.send(ANSWER);
        counted.client.response("GET");
    }
}

/// Outside of CI, strace may be missing or not permitted.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "system calls cannot be counted: {reason}"
    );
    println!("skipped: system calls cannot be counted: {reason}");
}

/// An strace that is attached to a process.
struct Tracer {
    child: Child,
    /// Kept open, since strace writes to it.
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Tracer {
    /// Starts counting.
    fn attach(pid: u32) -> Result<Tracer, String> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calls-{pid}"));
        let mut child = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(&file)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace does not start: {error}"))?;
        let mut stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("strace writes text");
        let tracer = Tracer {
            child,
            stderr,
            file,
        };
        match line.contains(" attached") {
            true => Ok(tracer),
            false => Err(line.trim().to_owned()),
        }
    }

    /// Stops counting; returns the number of calls and the table of strace.
    fn finish(mut self) -> (u64, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .expect("a child that was not waited for can be signalled");
        let deadline = Instant::now() + DEADLINE;
        let mut line = String::new();
        while self
            .stderr
            .read_line(&mut line)
            .expect("strace writes text")
            > 0
        {
            assert!(Instant::now() < deadline, "strace did not exit: {line}");
        }
        self.child.wait().expect("a child can be waited for");
        let table = fs::read_to_string(&self.file).expect("strace has written its counts");
        // `100.00    0.001234           2       617         3 total`
        let total = table.lines().find(|line| line.ends_with(" total"));
        let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
        (
            calls.unwrap_or_else(|| panic!("no total in {table}")),
            table,
        )
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Still running only if the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}

/// `Keep-Alive`, so that the connection stays open while strace is slow.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok";
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
