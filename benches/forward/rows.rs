//! The rows of the table, and how each is measured for one peer.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Client, Metrics, Workload};
use crate::measure::system_calls;
use crate::message::Framing;
use crate::peers::{Peer, Running, Setup};
use crate::table::{Better, Figure, Results};

/// Durations and sizes of the measurements.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    warm_up: Duration,
    slice: Duration,
    stream_slice: Duration,
    body: u64,
    /// Numbers of connections or streams, between which the slope of memory is measured.
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

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub about: &'static str,
    pub what: Measurement,
}

#[derive(Debug, Clone, Copy)]
pub enum Measurement {
    Closed(Workload, usize),
    /// Workload, connections, requests per second.
    Rate(Workload, usize, u32),
    New(Workload, usize),
    /// Microseconds between the events of a stream, and the number of streams.
    Streams(u64, usize),
    Body(fn(u64) -> Workload),
    Idle,
    PerConnection,
    PerStream,
    Start,
    /// `ic check`, from starting the process to its end.
    Check,
    Calls,
}

pub const ROWS: &[Row] = &[
    row(
        "get-1",
        "GET of 1 KiB, closed loop, 1 connection",
        Measurement::Closed(Workload::Get(1024), 1),
    ),
    row(
        "get-64",
        "the same, 64 connections",
        Measurement::Closed(Workload::Get(1024), 64),
    ),
    row(
        "post-1",
        "POST of 2 KiB, response of 1 KiB, 1 connection",
        Measurement::Closed(Workload::Post(2048, 1024), 1),
    ),
    row(
        "post-64",
        "the same, 64 connections",
        Measurement::Closed(Workload::Post(2048, 1024), 64),
    ),
    row(
        "rate",
        "4000 POSTs per second on 64 connections, latency from the intended start",
        Measurement::Rate(Workload::Post(2048, 1024), 64, 4000),
    ),
    row(
        "new",
        "GET of 1 KiB, each on a new connection, 8 in parallel",
        Measurement::New(Workload::Get(1024), 8),
    ),
    row(
        "sse-1ms",
        "1 stream, an event every ms",
        Measurement::Streams(1000, 1),
    ),
    row(
        "sse-30ms",
        "1 stream, an event every 30 ms",
        Measurement::Streams(30_000, 1),
    ),
    row(
        "sse-1000",
        "1000 streams, an event every 100 ms on each",
        Measurement::Streams(100_000, 1000),
    ),
    row(
        "sse-full",
        "1000 streams, an event every 30 ms on each: more than one core can forward one by one",
        Measurement::Streams(30_000, 1000),
    ),
    row(
        "down-length",
        "large response with a length",
        Measurement::Body(|len| Workload::Down(Framing::Length, len)),
    ),
    row(
        "down-chunked",
        "the same, in chunks of 16 KiB",
        Measurement::Body(|len| Workload::Down(Framing::Chunked, len)),
    ),
    row(
        "up-length",
        "large request body with a length",
        Measurement::Body(|len| Workload::Up(Framing::Length, len)),
    ),
    row(
        "up-chunked",
        "the same, in chunks of 16 KiB",
        Measurement::Body(|len| Workload::Up(Framing::Chunked, len)),
    ),
    row(
        "idle",
        "anonymous memory and RSS of all processes, half a second after start",
        Measurement::Idle,
    ),
    row(
        "connection",
        "anonymous memory of each idle keep-alive connection (slope)",
        Measurement::PerConnection,
    ),
    row(
        "stream",
        "anonymous memory of each active stream (slope)",
        Measurement::PerStream,
    ),
    row(
        "start",
        "from starting the process until it listens",
        Measurement::Start,
    ),
    row(
        "check",
        "`ic check` from start to end of the process; in the column `direct`: `true`",
        Measurement::Check,
    ),
    row(
        "calls",
        "system calls per GET and per event (strace -f -c)",
        Measurement::Calls,
    ),
];

const fn row(name: &'static str, about: &'static str, what: Measurement) -> Row {
    Row { name, about, what }
}

impl Row {
    /// Whether it is measured once with new processes, not in rounds.
    pub fn is_footprint(&self) -> bool {
        matches!(
            self.what,
            Measurement::Idle
                | Measurement::PerConnection
                | Measurement::PerStream
                | Measurement::Start
                | Measurement::Check
                | Measurement::Calls
        )
    }

    /// Whether `peer` is measured in this row.
    pub fn includes(&self, peer: Peer) -> bool {
        use Measurement::{Check, Closed, Idle, New, Start, Streams};
        match peer {
            Peer::Ic | Peer::Baseline => true,
            _ if matches!(self.what, Check) => false,
            Peer::Direct => !self.is_footprint(),
            // Streams need buffering off; the footprint is the same.
            Peer::NginxBuffered => !self.is_footprint() && !matches!(self.what, Streams(..)),
            // Some hundred times slower: a few rows suffice to show that.
            Peer::FastApi => {
                matches!(
                    self.what,
                    Closed(..) | New(..) | Streams(_, 1) | Idle | Start
                )
            }
            Peer::Relay | Peer::Hyper | Peer::Nginx | Peer::Haproxy => true,
        }
    }

    /// Measures one round of a running peer.
    pub fn round(
        &self,
        client: &mut Client,
        running: &Running,
        effort: &Effort,
        results: &mut Results,
    ) -> Result<(), String> {
        let processes = running.processes();
        let cpu = || processes.as_ref().map(|processes| processes.cpu());
        let route = running.route();
        let slice = [effort.warm_up, effort.slice];
        let mut before = None;
        let mut mark = || before = cpu();
        let metrics = match self.what {
            Measurement::Closed(workload, connections) => {
                client.closed_loop(route, workload, connections, slice, &mut mark)
            }
            Measurement::Rate(workload, connections, rate) => {
                client.fixed_rate(route, workload, connections, rate, slice, &mut mark)
            }
            Measurement::New(workload, at_a_time) => {
                client.new_connections(route, workload, at_a_time, slice, &mut mark)
            }
            Measurement::Streams(gap, streams) => {
                let slice = [effort.warm_up, effort.stream_slice];
                client.streams(route, gap, streams, slice, &mut mark)
            }
            Measurement::Body(workload) => {
                client.exactly(route, workload(effort.body), [0, 1], &mut mark)
            }
            _ => return Ok(()),
        }?;
        let used = cpu().zip(before).map(|(after, before)| after - before);
        if metrics.count == 0 {
            return Err("no response".to_owned());
        }
        let mut record = |figure, value| results.record(self.name, figure, running.peer, value);
        if let Measurement::Body(_) = self.what {
            let gib = effort.body as f64 / f64::from(1 << 30);
            if let Some(used) = used {
                record(CPU_PER_GIB, used.as_secs_f64() / gib);
            }
            record(GIB_RATE, gib / metrics.time.as_secs_f64());
            return Ok(());
        }
        let (per, p50, p99) = match self.what {
            Measurement::Streams(..) => (CPU_PER_EVENT, DELAY_P50, DELAY_P99),
            _ => (CPU_PER_REQUEST, LATENCY_P50, LATENCY_P99),
        };
        if let Some(used) = used {
            record(per, used.as_secs_f64() * 1e6 / metrics.count as f64);
        }
        record(p50, micros_at(&metrics, 0.5));
        record(p99, micros_at(&metrics, 0.99));
        match self.what {
            Measurement::Closed(..) | Measurement::New(..) => {
                record(RATE, metrics.count as f64 / metrics.time.as_secs_f64())
            }
            Measurement::Streams(..) => record(
                EVENT_RATE,
                metrics.count as f64 / metrics.time.as_secs_f64(),
            ),
            _ => {}
        }
        Ok(())
    }

    /// Measures new processes of `peer`.
    pub fn footprint(
        &self,
        peer: Peer,
        setup: &Setup,
        effort: &Effort,
        results: &mut Results,
    ) -> Result<(), String> {
        let mut record = |figure, peer, value| results.record(self.name, figure, peer, value);
        match self.what {
            Measurement::Idle => {
                let running = Running::start(peer, setup)?;
                // Until the work after listening is done.
                thread::sleep(Duration::from_millis(500));
                if let Some(processes) = running.processes() {
                    record(ANONYMOUS, peer, processes.anonymous_kib() as f64);
                    record(RSS, peer, processes.resident_kib() as f64);
                }
                running.stop();
            }
            Measurement::PerConnection | Measurement::PerStream => {
                let running = Running::start(peer, setup)?;
                let route = running.route();
                let mut client = Client::new().map_err(|error| error.to_string())?;
                let mut sizes = Vec::new();
                for count in effort.held {
                    match self.what {
                        Measurement::PerStream => client.hold_streams(route, 1_000_000, count)?,
                        _ => client.hold_idle(route, count)?,
                    }
                    sizes.push(
                        running
                            .processes()
                            .map_or(0, |processes| processes.anonymous_kib())
                            as f64,
                    );
                }
                let [few, many] = effort.held;
                let each = (sizes[1] - sizes[0]) / (many - few) as f64;
                record(ANONYMOUS, peer, each);
                drop(client);
                running.stop();
            }
            Measurement::Start => {
                for _ in 0..effort.starts {
                    record(
                        START,
                        peer,
                        Running::time_to_listen(peer, setup)?.as_secs_f64() * 1e3,
                    );
                }
            }
            Measurement::Check => {
                let registry = setup.folder.join("registry.json");
                for _ in 0..effort.starts * 3 {
                    let mut check = Command::new(peer.program());
                    check
                        .args(["check", "8888"])
                        .env("PORT_REGISTRY_PATH", &registry);
                    record(WHOLE, peer, time_to_end(&mut check)?);
                    if peer == Peer::Ic {
                        record(WHOLE, Peer::Direct, time_to_end(&mut Command::new("true"))?);
                    }
                }
            }
            Measurement::Calls => {
                let gets = calls(peer, setup, |client, running, count| {
                    client.exactly(running.route(), Workload::Get(1024), [0, count], &mut || ())
                })?;
                record(CALLS_PER_REQUEST, peer, gets);
                let events = calls(peer, setup, |client, running, count| {
                    client.events(running.route(), 2000, count)
                })?;
                record(CALLS_PER_EVENT, peer, events);
            }
            _ => {}
        }
        Ok(())
    }
}

/// System calls per repetition: the difference between a long and a short run, divided by the difference in length.
fn calls(
    peer: Peer,
    setup: &Setup,
    run: impl Fn(&mut Client, &Running, u64) -> Result<Metrics, String>,
) -> Result<f64, String> {
    let [short, long] = [100, 600];
    let mut totals = Vec::new();
    for count in [short, long] {
        let file = setup.folder.join(format!("{}.calls", peer.name()));
        let _ = std::fs::remove_file(&file);
        let name = file.display().to_string();
        // `-D`: strace runs as a grandchild, so that the peer is the child of the bench.
        let running =
            Running::start_under(peer, setup, &["strace", "-D", "-f", "-c", "-o", &name])?;
        let mut client = Client::new().map_err(|error| error.to_string())?;
        run(&mut client, &running, count)?;
        drop(client);
        running.stop();
        totals.push(system_calls(&file)?);
    }
    Ok((totals[1] as f64 - totals[0] as f64) / (long - short) as f64)
}

/// Runs a process to its end; returns the time that it took, in milliseconds.
fn time_to_end(command: &mut Command) -> Result<f64, String> {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status();
    let time = started.elapsed();
    status
        .map(|_| time.as_secs_f64() * 1e3)
        .map_err(|error| error.to_string())
}

fn micros_at(metrics: &Metrics, quantile: f64) -> f64 {
    metrics.latencies.value_at_quantile(quantile) as f64 / 1e3
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
const ANONYMOUS: Figure = Figure::new("anonymous", "KiB", Better::Lower);
const RSS: Figure = Figure::new("RSS", "KiB", Better::Lower);
const START: Figure = Figure::new("time", "ms", Better::Lower);
const WHOLE: Figure = Figure::new("time", "ms", Better::Lower);
const CALLS_PER_REQUEST: Figure = Figure::new("per GET", "calls", Better::Lower);
const CALLS_PER_EVENT: Figure = Figure::new("per event", "calls", Better::Lower);
