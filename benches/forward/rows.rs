//! What is measured: each row of the table, and how one round of it is taken for one peer.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Ask, Client, Metrics};
use crate::measure::system_calls;
use crate::message::Framing;
use crate::peers::{IC, Peer, Place, Running};
use crate::table::{Better, Book, Figure};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    warm_up: Duration,
    slice: Duration,
    stream_slice: Duration,
    body: u64,
    /// Connections, or streams, between which the slope of memory is taken.
    held: [usize; 2],
    starts: usize,
}

impl Effort {
    pub const FULL: Effort = Effort {
        rounds: 7,
        warm_up: Duration::from_millis(100),
        slice: Duration::from_millis(1000),
        stream_slice: Duration::from_millis(2000),
        body: 1 << 30,
        held: [100, 4000],
        starts: 15,
    };

    pub const QUICK: Effort = Effort {
        rounds: 3,
        warm_up: Duration::from_millis(30),
        slice: Duration::from_millis(200),
        stream_slice: Duration::from_millis(350),
        body: 128 << 20,
        held: [100, 1100],
        starts: 5,
    };
}

/// A row that every running peer takes part in, round by round.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub about: &'static str,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub enum What {
    Closed(Ask, usize),
    /// So many requests a second.
    Rate(Ask, usize, u32),
    New(Ask, usize),
    /// One event each so many microseconds, on so many streams.
    Streams(u64, usize),
    Body(fn(u64) -> Ask),
    Idle,
    PerConnection,
    PerStream,
    Start,
    /// `ic check` as a whole process.
    Check,
    Calls,
}

pub const ROWS: &[Row] = &[
    row(
        "get-1",
        "GET of 1 KiB, closed loop, 1 connection",
        What::Closed(Ask::Get(1024), 1),
    ),
    row(
        "get-64",
        "the same on 64 connections",
        What::Closed(Ask::Get(1024), 64),
    ),
    row(
        "post-1",
        "POST of 2 KiB, answer of 1 KiB, 1 connection",
        What::Closed(Ask::Post(2048, 1024), 1),
    ),
    row(
        "post-64",
        "the same on 64 connections",
        What::Closed(Ask::Post(2048, 1024), 64),
    ),
    row(
        "rate",
        "POST at 4000 a second on 64 connections, latency from the intended start",
        What::Rate(Ask::Post(2048, 1024), 64, 4000),
    ),
    row(
        "new",
        "GET of 1 KiB, a new connection for each, 8 at a time",
        What::New(Ask::Get(1024), 8),
    ),
    row(
        "sse-1ms",
        "1 stream, an event each ms",
        What::Streams(1000, 1),
    ),
    row(
        "sse-30ms",
        "1 stream, an event each 30 ms",
        What::Streams(30_000, 1),
    ),
    row(
        "sse-1000",
        "1000 streams, an event each 100 ms on each",
        What::Streams(100_000, 1000),
    ),
    row(
        "sse-full",
        "1000 streams, an event each 30 ms on each: more than one core can pass on singly",
        What::Streams(30_000, 1000),
    ),
    row(
        "down-length",
        "a large answer by length",
        What::Body(|len| Ask::Down(Framing::Length, len)),
    ),
    row(
        "down-chunked",
        "the same in chunks of 16 KiB",
        What::Body(|len| Ask::Down(Framing::Chunked, len)),
    ),
    row(
        "up-length",
        "a large request body by length",
        What::Body(|len| Ask::Up(Framing::Length, len)),
    ),
    row(
        "up-chunked",
        "the same in chunks of 16 KiB",
        What::Body(|len| Ask::Up(Framing::Chunked, len)),
    ),
    row(
        "idle",
        "PSS of all processes, half a second after start",
        What::Idle,
    ),
    row(
        "connection",
        "data of each idle keep-alive connection (slope)",
        What::PerConnection,
    ),
    row(
        "stream",
        "data of each active stream (slope)",
        What::PerStream,
    ),
    row(
        "start",
        "from starting the process until it listens",
        What::Start,
    ),
    row(
        "check",
        "`ic check` as a whole process; beside it `true`",
        What::Check,
    ),
    row(
        "calls",
        "system calls for each GET and each event (strace -f -c)",
        What::Calls,
    ),
];

const fn row(name: &'static str, about: &'static str, what: What) -> Row {
    Row { name, about, what }
}

impl Row {
    /// Whether it is taken once with fresh processes, not in rounds.
    pub fn is_footprint(&self) -> bool {
        matches!(
            self.what,
            What::Idle
                | What::PerConnection
                | What::PerStream
                | What::Start
                | What::Check
                | What::Calls
        )
    }

    /// Whether the peer has a part in it.
    pub fn includes(&self, peer: Peer) -> bool {
        match (self.what, peer) {
            (What::Check, _) => peer == Peer::Ic,
            // It is some hundred times slower: no more than what shows that.
            (
                What::Closed(..) | What::New(..) | What::Streams(_, 1) | What::Idle | What::Start,
                Peer::FastApi,
            ) => true,
            (_, Peer::FastApi) => false,
            // Whoever streams switches the buffers off; in footprint they are the same program.
            (What::Streams(..), Peer::NginxBuffered) => false,
            (_, Peer::Direct) => !self.is_footprint(),
            (_, Peer::NginxBuffered) => !self.is_footprint(),
            _ => true,
        }
    }

    /// One round of a running peer.
    pub fn round(
        &self,
        client: &mut Client,
        running: &Running,
        effort: &Effort,
        book: &mut Book,
    ) -> Result<(), String> {
        let family = running.family();
        let cpu = || family.as_ref().map(|family| family.cpu());
        let route = running.route();
        let slice = [effort.warm_up, effort.slice];
        let mut before = None;
        let mut mark = || before = cpu();
        let tally = match self.what {
            What::Closed(ask, connections) => {
                client.closed_loop(route, ask, connections, slice, &mut mark)
            }
            What::Rate(ask, connections, rate) => {
                client.fixed_rate(route, ask, connections, rate, slice, &mut mark)
            }
            What::New(ask, at_a_time) => {
                client.new_connections(route, ask, at_a_time, slice, &mut mark)
            }
            What::Streams(gap, streams) => {
                let slice = [effort.warm_up, effort.stream_slice];
                client.streams(route, gap, streams, slice, &mut mark)
            }
            What::Body(ask) => client.exactly(route, ask(effort.body), [0, 1], &mut mark),
            _ => return Ok(()),
        }?;
        let used = cpu().zip(before).map(|(after, before)| after - before);
        if tally.count == 0 {
            return Err("nothing was answered".to_owned());
        }
        let mut note = |figure, value| book.note(self.name, figure, running.peer, value);
        if let What::Body(_) = self.what {
            let gib = effort.body as f64 / f64::from(1 << 30);
            if let Some(used) = used {
                note(CPU_PER_GIB, used.as_secs_f64() / gib);
            }
            note(GIB_RATE, gib / tally.time.as_secs_f64());
            return Ok(());
        }
        let (per, p50, p99) = match self.what {
            What::Streams(..) => (CPU_PER_EVENT, DELAY_P50, DELAY_P99),
            _ => (CPU_PER_REQUEST, LATENCY_P50, LATENCY_P99),
        };
        if let Some(used) = used {
            note(per, used.as_secs_f64() * 1e6 / tally.count as f64);
        }
        note(p50, micros_at(&tally, 0.5));
        note(p99, micros_at(&tally, 0.99));
        match self.what {
            What::Closed(..) | What::New(..) => {
                note(RATE, tally.count as f64 / tally.time.as_secs_f64())
            }
            What::Streams(..) => note(EVENT_RATE, tally.count as f64 / tally.time.as_secs_f64()),
            _ => {}
        }
        Ok(())
    }

    /// The figures of fresh processes of `peer`.
    pub fn footprint(
        &self,
        peer: Peer,
        place: &Place,
        effort: &Effort,
        book: &mut Book,
    ) -> Result<(), String> {
        let mut note = |figure, peer, value| book.note(self.name, figure, peer, value);
        let kib = 1024.0;
        match self.what {
            What::Idle => {
                let running = Running::start(peer, place)?;
                // Until what is done after listening is done as well.
                thread::sleep(Duration::from_millis(500));
                if let Some(family) = running.family() {
                    note(PSS, peer, family.pss() as f64 / kib);
                    note(THREADS, peer, family.threads() as f64);
                }
                running.stop();
            }
            What::PerConnection | What::PerStream => {
                let running = Running::start(peer, place)?;
                let route = running.route();
                let mut client = Client::new().map_err(|error| error.to_string())?;
                let mut sizes = Vec::new();
                for count in effort.held {
                    match self.what {
                        What::PerStream => client.hold_streams(route, 1_000_000, count)?,
                        _ => client.hold_idle(route, count)?,
                    }
                    sizes.push(running.family().map_or(0, |family| family.data()) as f64);
                }
                let [few, many] = effort.held;
                let each = (sizes[1] - sizes[0]) / (many - few) as f64;
                note(DATA, peer, each / kib);
                drop(client);
                running.stop();
            }
            What::Start => {
                for _ in 0..effort.starts {
                    note(
                        START,
                        peer,
                        Running::time_to_listen(peer, place)?.as_secs_f64() * 1e3,
                    );
                }
            }
            What::Check => {
                for _ in 0..effort.starts * 3 {
                    let registry = place.folder.join("registry.json");
                    let check = Command::new(IC)
                        .args(["check", "8888"])
                        .env("PORT_REGISTRY_PATH", registry)
                        .whole();
                    note(WHOLE, Peer::Ic, check?);
                    note(WHOLE, Peer::Direct, Command::new("true").whole()?);
                }
            }
            What::Calls => {
                let gets = calls(peer, place, |client, running, count| {
                    client.exactly(running.route(), Ask::Get(1024), [0, count], &mut || ())
                })?;
                note(CALLS_PER_REQUEST, peer, gets);
                let events = calls(peer, place, |client, running, count| {
                    client.events(running.route(), 2000, count)
                })?;
                note(CALLS_PER_EVENT, peer, events);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The system calls that each of many repetitions adds: those of a long run less those of a short one.
fn calls(
    peer: Peer,
    place: &Place,
    run: impl Fn(&mut Client, &Running, u64) -> Result<Metrics, String>,
) -> Result<f64, String> {
    let [short, long] = [100, 600];
    let mut totals = Vec::new();
    for count in [short, long] {
        let file = place.folder.join(format!("{}.calls", peer.name()));
        let _ = std::fs::remove_file(&file);
        let name = file.display().to_string();
        // `-D`: the peer is the bench's own child, strace only a bystander.
        let running =
            Running::start_under(peer, place, &["strace", "-D", "-f", "-c", "-o", &name])?;
        let mut client = Client::new().map_err(|error| error.to_string())?;
        run(&mut client, &running, count)?;
        drop(client);
        running.stop();
        totals.push(system_calls(&file)?);
    }
    Ok((totals[1] as f64 - totals[0] as f64) / (long - short) as f64)
}

/// A process from its start to its end, in milliseconds.
trait Whole {
    fn whole(&mut self) -> Result<f64, String>;
}

impl Whole for Command {
    fn whole(&mut self) -> Result<f64, String> {
        let started = Instant::now();
        let status = self
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let time = started.elapsed();
        match status {
            Ok(_) => Ok(time.as_secs_f64() * 1e3),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn micros_at(tally: &Metrics, quantile: f64) -> f64 {
    tally.latencies.value_at_quantile(quantile) as f64 / 1e3
}

const CPU_PER_REQUEST: Figure = Figure::new("CPU/request", "µs", Better::Lower);
const CPU_PER_EVENT: Figure = Figure::new("CPU/event", "µs", Better::Lower);
const CPU_PER_GIB: Figure = Figure::new("CPU/GiB", "s", Better::Lower);
const GIB_RATE: Figure = Figure::new("throughput", "GiB/s", Better::Higher);
const LATENCY_P50: Figure = Figure::new("latency p50", "µs", Better::LowerThanDirect);
const LATENCY_P99: Figure = Figure::new("latency p99", "µs", Better::LowerThanDirect);
const DELAY_P50: Figure = Figure::new("delay p50", "µs", Better::LowerThanDirect);
const DELAY_P99: Figure = Figure::new("delay p99", "µs", Better::LowerThanDirect);
const RATE: Figure = Figure::new("requests", "1/s", Better::Higher);
const EVENT_RATE: Figure = Figure::new("events", "1/s", Better::Higher);
const PSS: Figure = Figure::new("PSS", "KiB", Better::Lower);
const THREADS: Figure = Figure::new("threads", "", Better::Lower);
const DATA: Figure = Figure::new("data", "KiB", Better::Lower);
const START: Figure = Figure::new("time", "ms", Better::Lower);
const WHOLE: Figure = Figure::new("time", "ms", Better::Lower);
const CALLS_PER_REQUEST: Figure = Figure::new("per GET", "calls", Better::Lower);
const CALLS_PER_EVENT: Figure = Figure::new("per event", "calls", Better::Lower);
