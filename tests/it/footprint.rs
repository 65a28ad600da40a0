//! What a request and an event cost in system calls, how many threads there are, how large the program is, and what it keeps in memory
//! while nobody needs it.
//!
//! These are counts and sizes: the same on every machine, however busy it is, so a change that makes them grow is seen here
//! before anybody measures a time. Times are not tested; `cargo bench --bench forward` shows them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

/// What one exchange or event may cost. Waiting, reading and writing, once for each direction, is the floor of any
/// forwarder that waits for readiness; an event needs one direction only.
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

/// A guard against growth, just above what it is. A third of it is TLS, a tenth what unwinds and shows a panic.
const BINARY_BYTES_MAX: u64 = if cfg!(feature = "tls") {
    3880 << 10
} else {
    2720 << 10
};

/// What an idle process may keep, in KiB: its data, and the code that has run since its start.
const IDLE_KIB_MAX: u64 = 3600;

/// Longer than anything but time limits takes.
const QUIET: Duration = Duration::from_secs(2);

/// An exchange that is under way.
struct Counted {
    client: Conn,
    served: Conn,
    body: Body,
}

#[test]
fn a_request_and_an_event_cost_no_more_system_calls_than_they_must() {
    for &(what, most, repeat) in CALLS {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        served.send(ANSWER);
        client.response("GET");
        // The second shows that the origin keeps connections: until then, a POST gets one of its own.
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
        // Buffers and tables reach their size.
        repeat(&mut counted, 20);
        // What attaching and leaving cost is in both.
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
        // A clock that ticks meanwhile. One more call for each exchange would be four times as many.
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
fn one_thread_does_it_all() {
    let (_, interceptor) = &agreeing();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response("GET");
    assert_eq!(threads(interceptor.pid()), 1);
}

#[test]
fn what_looks_a_name_up_ends_soon_after() {
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
        // At first a kept connection to the target is still to be closed.
        let what = format!("in front of {target}: no thread runs for {QUIET:?}");
        wait_until(&what, true, || {
            let before = scheduled(interceptor.pid());
            thread::sleep(QUIET);
            scheduled(interceptor.pid()) == before
        });
    }
}

/// How long each thread of a process has run, and how often.
fn scheduled(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process has threads");
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat"));
    tasks.filter_map(|task| task.and_then(read).ok()).collect()
}

#[test]
fn the_release_binary_is_no_larger_than_it_may_be() {
    let Some(path) = release() else { return };
    let size = fs::metadata(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .len();
    assert!(
        size <= BINARY_BYTES_MAX,
        "{}: {} KiB, more than {} KiB",
        path.display(),
        size / 1024,
        BINARY_BYTES_MAX / 1024,
    );
}

#[test]
fn the_release_binary_is_small_while_it_is_idle() {
    let Some(path) = release() else { return };
    let folder = scratch_folder();
    let socket = scratch_socket();
    // Page by page: where the system holds a file in larger pieces, what is mapped is larger as well. By another process: a child of
    // another test may hold for a moment what is open here, and what is open for writing cannot be run.
    let program = folder.join("ic");
    let copied = Command::new("dd")
        .arg(format!("if={}", path.display()))
        .arg(format!("of={}", program.display()))
        .args(["bs=4k", "status=none"])
        .status()
        .expect("dd is there");
    assert!(copied.success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is our own");
    let idle = Command::new(&program)
        .args(["serve", "--target", "http://127.0.0.1:9", "--listen"])
        .arg(format!("unix:{}", socket.display()))
        .env("HOME", &folder)
        .stdin(Stdio::null())
        .spawn()
        .expect("the release binary starts");
    let idle = Idle(idle);
    let rollup = format!("/proc/{}/smaps_rollup", idle.0.id());
    wait_until("it listens, and is small", true, || {
        let pss = fs::read_to_string(&rollup).expect("it runs, and may be looked at");
        let pss = pss.lines().find_map(|line| kib(line, "Pss:"));
        socket.exists() && pss.expect("the kernel tells its memory") <= IDLE_KIB_MAX
    });
    drop(idle);
    let _ = fs::remove_file(&socket);
}

/// Ends with the test.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary whose size and memory count; a debug build's do not.
fn release() -> Option<PathBuf> {
    let path = std::env::var_os("IC_RELEASE").map(PathBuf::from);
    if path.is_none() {
        println!("skipped: IC_RELEASE does not name the release binary, as .ci/run does");
    }
    path
}

/// The size that is called `name`, if the line tells it.
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

/// On a developer's machine strace may be missing, or forbidden to look at others; in CI it is there.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "system calls cannot be counted: {reason}"
    );
    println!("skipped: system calls cannot be counted: {reason}");
}

/// strace, looking at a process from outside.
struct Tracer {
    child: Child,
    /// Open as long as it writes to it.
    said: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Tracer {
    /// Counts from now on.
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
        let mut said = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("strace writes text");
        let tracer = Tracer { child, said, file };
        match line.contains(" attached") {
            true => Ok(tracer),
            false => Err(line.trim().to_owned()),
        }
    }

    /// The number of calls since, and the table of them.
    fn finish(mut self) -> (u64, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .expect("a child that was not waited for can be signalled");
        let deadline = Instant::now() + DEADLINE;
        let mut line = String::new();
        while self.said.read_line(&mut line).expect("strace writes text") > 0 {
            assert!(Instant::now() < deadline, "strace does not end: {line}");
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
        // It has ended by itself unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}

/// The connection is kept also while strace takes its time.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok";
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
