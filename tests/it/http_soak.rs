//! The long soak test: all kinds of requests in parallel, against an origin that resets, stalls, sends invalid responses,
//! disconnects, and is killed and restarted. Every response is either correct or visibly failed, no POST is processed
//! twice, and no resources leak.
//!
//! `cargo test` runs it for a few seconds. For ten minutes with 200 clients:
//!
//! ```text
//! IC_SOAK_SECONDS=600 cargo test --release --test it http_soak -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::http_mix::{Dice, Drawn, chunked, pattern};
use crate::support::*;

/// The duration and the number of clients.
fn extent() -> (Duration, u64) {
    match std::env::var("IC_SOAK_SECONDS") {
        Ok(seconds) => (
            Duration::from_secs(seconds.parse().expect("IC_SOAK_SECONDS is a number")),
            200,
        ),
        Err(_) => (Duration::from_secs(2), 24),
    }
}

/// How long a client waits for an origin that stalls.
const PATIENCE: Duration = Duration::from_millis(250);

/// The behaviours of the origin, named by the first segment of the target.
const KINDS: [&str; 12] = [
    "length", "chunked", "close", "early", "slow", "pieces", "hang", "silent", "cut", "lie",
    "reset", "leave",
];

/// Those with a successful response, unless the origin is killed.
const GOOD: [&str; 6] = ["length", "chunked", "close", "early", "slow", "pieces"];

/// Variables with the address of the origin and with the file in which it records processed requests.
const ORIGIN: (&str, &str) = ("IC_SOAK_ORIGIN", "IC_SOAK_NOTES");

/// The origin, a separate process that can be killed. Only [`Restarting`] runs it.
#[test]
#[ignore = "the soak's origin: started by the soak"]
fn the_origin_of_the_soak() {
    let (Ok(address), Ok(notes)) = (std::env::var(ORIGIN.0), std::env::var(ORIGIN.1)) else {
        return;
    };
    let address: SocketAddr = address.parse().expect("an address is given");
    let notes = OpenOptions::new().append(true).open(notes);
    let notes = notes.expect("the notes can be written");
    let origin = Origin::answering_at(address, move |request, _| answer(request, &notes));
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let no_http = |seen: &Seen| {
            matches!(
                seen,
                Seen::Ended {
                    stop: Stop::Malformed(_),
                    ..
                }
            )
        };
        if let Some(seen) = origin.seen().into_iter().find(no_http) {
            eprintln!("the origin received malformed HTTP: {seen:?}");
            std::process::exit(1);
        }
        origin.forget();
    }
}

fn answer(request: &Request, mut notes: &File) -> Reply {
    let mut parts = request.target.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let seed = parts.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(seed);
    let body = pattern(&request.target, dice.roll(40_000) as usize);
    let is_right = request.body == pattern(&request.target, request.body.len());
    let status = if is_right { "200 OK" } else { "409 Mixed Up" };
    let line = format!("{} {} {is_right}\n", request.method, request.target);
    notes
        .write_all(line.as_bytes())
        .expect("the notes can be written");
    let by_length = [
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
        &body,
    ]
    .concat();
    let in_chunks = [
        format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
        &chunked(&body, &mut dice),
    ]
    .concat();
    let interim = &b"HTTP/1.1 103 Early Hints\r\n\r\n"[..];
    let part = dice.roll(by_length.len() as u64) as usize;
    match kind {
        "length" => Reply::Bytes(by_length),
        "chunked" => Reply::Bytes(in_chunks),
        "early" => Reply::Bytes([interim, &by_length].concat()),
        "slow" => {
            std::thread::sleep(Duration::from_millis(dice.roll(100)));
            Reply::Bytes(in_chunks)
        }
        "close" => Reply::BytesThenClose(
            [format!("HTTP/1.1 {status}\r\n\r\n").as_bytes(), &body].concat(),
        ),
        "pieces" => Reply::PiecesThenClose([interim, &in_chunks].concat(), 1 + dice.roll(500) as usize),
        // Sends nothing more, so that the client has to disconnect.
        "hang" => Reply::Bytes(by_length[..part].to_vec()),
        "silent" => Reply::Bytes(Vec::new()),
        "cut" => Reply::BytesThenClose(by_length[..part].to_vec()),
        "lie" => Reply::BytesThenClose(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n+2\r\nhe\r\n0\r\n\r\n".to_vec(),
        ),
        "reset" => Reply::Reset,
        _ => Reply::Close,
    }
}

/// The process of the origin, which is killed and restarted on the same port.
struct Restarting<'a> {
    address: SocketAddr,
    notes: &'a Path,
    child: Child,
}

impl<'a> Restarting<'a> {
    fn start(notes: &'a Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Restarting::spawn(address, notes);
        Restarting {
            address,
            notes,
            child,
        }
    }

    fn spawn(address: SocketAddr, notes: &Path) -> Child {
        let name = "http_soak::the_origin_of_the_soak";
        let child = Command::new(std::env::current_exe().expect("the test has a file"))
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(ORIGIN.0, address.to_string())
            .env(ORIGIN.1, notes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test can be started");
        let since = Instant::now();
        while TcpStream::connect_timeout(&address, DEADLINE).is_err() {
            assert!(since.elapsed() < DEADLINE, "the origin does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn kill(&mut self) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "the origin ended by itself: {ended:?}");
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    fn restart(&mut self) {
        self.kill();
        // For a while the port is closed.
        std::thread::sleep(Duration::from_millis(100));
        self.child = Restarting::spawn(self.address, self.notes);
    }
}

impl Drop for Restarting<'_> {
    fn drop(&mut self) {
        // After a failure it is still running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of exchanges by result.
type Metrics = BTreeMap<(&'static str, &'static str), u64>;

/// Runs one client until `until`.
fn run_client(interceptor: &Interceptor, number: u64, until: Instant) -> Metrics {
    let mut tally = Metrics::new();
    let mut dice = Dice(0x9e37_79b9 * (number + 1));
    let mut client = interceptor.client();
    let mut exchange = 0;
    while Instant::now() < until {
        exchange += 1;
        let drawn = Drawn::new(&mut dice, &KINDS, number, exchange);
        if drawn.disconnects {
            drawn.disconnect(client, &mut dice);
            client = interceptor.client();
            *tally.entry((drawn.kind, "disconnected")).or_default() += 1;
            continue;
        }
        client.offer_in_pieces(&drawn.whole, drawn.pieces);
        let is_patient = !["hang", "silent"].contains(&drawn.kind);
        client.set_timeout(if is_patient { 3 * DEADLINE } else { PATIENCE });
        let outcome = client.try_response(drawn.method);
        let (name, keeps) = judge(&drawn, &outcome);
        *tally.entry((drawn.kind, name)).or_default() += 1;
        if !keeps {
            client = interceptor.client();
        }
    }
    tally
}

/// Checks that the response is correct or visibly failed; returns the result and whether the connection stays open.
fn judge(drawn: &Drawn, outcome: &Result<Response, Stop>) -> (&'static str, bool) {
    let Drawn { kind, target, .. } = drawn;
    match outcome {
        Ok(response) if response.status == 200 => {
            assert!(
                GOOD.contains(kind),
                "{target}: an invalid response was forwarded"
            );
            ("correct", drawn.check_body(response))
        }
        Ok(response) => {
            check_own_error(response, &[502]);
            ("502", false)
        }
        Err(Stop::Closed | Stop::Reset) => ("cut", false),
        Err(Stop::Silent) => {
            assert!(["hang", "silent"].contains(kind), "{target}: no response");
            ("gave up waiting", false)
        }
        Err(stop @ Stop::Malformed(_)) => panic!("{target}: {stop:?}"),
    }
}

#[test]
fn a_soak_test_gets_correct_responses_and_leaks_nothing() {
    let (duration, clients) = extent();
    let folder = scratch_folder();
    let notes = folder.join("notes");
    File::create(&notes).expect("the build folder can be written");
    let mut origin = Restarting::start(&notes);
    let interceptor = Launch::toward(format!("http://{}", origin.address)).start();
    // Buffers, pools and the allocator reach their size slowly.
    let warm_up = duration / 10;
    let tally = Mutex::new(Metrics::new());
    let mut restarts = 0;
    let before = State::of(&interceptor);
    let mut warm = before;
    let until = Instant::now() + duration;
    std::thread::scope(|scope| {
        for number in 0..clients {
            let (interceptor, tally) = (&interceptor, &tally);
            scope.spawn(move || {
                let mine = run_client(interceptor, number, until);
                let mut all = tally.lock().expect("no holder of this lock panics");
                for (key, count) in mine {
                    *all.entry(key).or_default() += count;
                }
            });
        }
        while Instant::now() < until {
            std::thread::sleep(
                (duration / 20).clamp(Duration::from_millis(300), Duration::from_secs(7)),
            );
            origin.restart();
            restarts += 1;
            if warm.memory == before.memory && Instant::now() + duration > until + warm_up {
                warm = State::of(&interceptor);
            }
        }
    });
    let after = State::settled(&interceptor, &before);
    origin.kill();
    let tally = tally.into_inner().expect("no holder of this lock panics");
    report(
        &tally,
        restarts,
        &[("before", before), ("warm", warm), ("after", after)],
    );
    for kind in GOOD {
        assert!(
            tally.contains_key(&(kind, "correct")),
            "{kind}: no correct response: {tally:?}"
        );
    }
    assert!(
        after.memory < warm.memory.max(before.memory) + MEMORY_MARGIN,
        "memory grew: {before:?}, {warm:?}, {after:?}"
    );
    check_notes(&std::fs::read_to_string(&notes).expect("the notes are text"));
    std::fs::remove_dir_all(folder).expect("the build folder can be written");
}

/// No request had the body of another, and no request that is not idempotent was processed twice.
fn check_notes(notes: &str) {
    let mut posts: Vec<&str> = notes
        .lines()
        .filter(|line| line.starts_with("POST "))
        .collect();
    assert!(
        !notes.contains(" false\n"),
        "a body that belongs to another request"
    );
    let count = posts.len();
    posts.sort_unstable();
    posts.dedup();
    assert_eq!(posts.len(), count, "a POST was acted on twice");
}

fn report(tally: &Metrics, restarts: u32, states: &[(&str, State)]) {
    let total: u64 = tally.values().sum();
    println!("soak: {total} exchanges, {restarts} restarts of the origin");
    for ((kind, outcome), count) in tally {
        println!("soak: {kind}: {outcome}: {count}");
    }
    for (when, state) in states {
        println!("soak: {when}: {state:?}");
    }
}

/// Allowed growth of memory: some buffers are kept for the next connection.
const MEMORY_MARGIN: u64 = 8 << 20;

/// Four pipes with two ends each are kept for the next large body.
const KEPT_DESCRIPTORS: usize = 8;

/// The resources of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    descriptors: usize,
    /// Resident bytes.
    memory: u64,
    /// Connections of clients, including the one that queries this: one task each.
    connections: u64,
    in_flight: u64,
}

impl State {
    #[track_caller]
    fn of(interceptor: &Interceptor) -> State {
        let mut client = interceptor.client();
        client.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let text = client.response("GET").text();
        let sample = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .unwrap_or_else(|| panic!("{name} is in the metrics: {text}"))
        };
        let in_flight = sample("ic_requests_in_flight ");
        let connections = sample("ic_connections ");
        #[cfg(target_os = "linux")]
        let (descriptors, memory) = (interceptor.descriptors(), interceptor.memory().0);
        #[cfg(not(target_os = "linux"))]
        let (descriptors, memory) = (0, 0);
        State {
            descriptors,
            memory,
            connections,
            in_flight,
        }
    }

    /// Waits until all resources are as `before`, except for memory and kept pipes.
    #[track_caller]
    fn settled(interceptor: &Interceptor, before: &State) -> State {
        let since = Instant::now();
        loop {
            let now = State::of(interceptor);
            let is_as_before = (now.connections, now.in_flight)
                == (before.connections, before.in_flight)
                && now.descriptors <= before.descriptors + KEPT_DESCRIPTORS;
            if is_as_before {
                return now;
            }
            assert!(since.elapsed() < DEADLINE, "{now:?}, before: {before:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
