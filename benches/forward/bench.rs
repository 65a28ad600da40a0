//! The command line of the bench, its rounds and its report.

use std::fs;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::json;

use crate::load::Client;
use crate::peers::{self, Peer, Running, Setup};
use crate::rows::{Effort, ROWS, Row};
use crate::table::Results;
use crate::{origin, poll};

pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["launch", core, ..] => Err(peers::launch(core, &arguments[2..]).to_string()),
        ["peer", peer, port, origin] => peers::serve(peer, port, origin),
        _ => Run::of(&words).and_then(|plan| plan.map_or(Ok(()), Run::run)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Run {
    effort: Effort,
    rows: Vec<&'static Row>,
    peers: Vec<Peer>,
    json: Option<String>,
}

impl Run {
    /// Returns `None` after `--help`.
    fn of(words: &[&str]) -> Result<Option<Run>, String> {
        let mut plan = Run {
            effort: Effort::FULL,
            rows: ROWS.iter().collect(),
            peers: Peer::ALL.to_vec(),
            json: None,
        };
        if words.contains(&"--quick") {
            plan.effort = Effort::QUICK;
        }
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("`{word}` needs a value"))
            };
            match word {
                // cargo adds `--bench`.
                "--bench" | "--quick" => {}
                "--help" | "-h" => {
                    help();
                    return Ok(None);
                }
                "--rounds" => {
                    plan.effort.rounds =
                        value()?.parse().map_err(|_| "`--rounds` needs a number")?;
                }
                "--json" => plan.json = Some((*value()?).to_owned()),
                "--only" => {
                    let names: Vec<&str> = value()?.split(',').collect();
                    plan.rows
                        .retain(|row| names.iter().any(|name| row.name.starts_with(name)));
                }
                "--peers" => {
                    let names: Vec<&str> = value()?.split(',').collect();
                    plan.peers
                        .retain(|peer| names.iter().any(|name| peer.name().starts_with(name)));
                }
                _ => return Err(format!("`{word}` is an unknown option; see --help")),
            }
        }
        if plan.rows.is_empty() || plan.peers.is_empty() || plan.effort.rounds == 0 {
            return Err("no row or no peer is selected".to_owned());
        }
        Ok(Some(plan))
    }

    fn run(mut self) -> Result<(), String> {
        let started = Instant::now();
        let message = |error: std::io::Error| error.to_string();
        peers::raise_descriptor_limit();
        let cores = poll::cores();
        let [ours, theirs] = [cores[0], cores[cores.len() - 1]];
        poll::pin(ours).map_err(message)?;
        let setup = Setup {
            origin: origin::start(ours).map_err(message)?,
            core: theirs,
            folder: peers::folder().map_err(message)?,
        };
        let mut versions = Vec::new();
        self.peers.retain(|peer| {
            let version = peer.version();
            match &version {
                None => eprintln!("{} is not available: left out", peer.name()),
                Some(version) => versions.push((peer.name(), version.clone())),
            }
            version.is_some()
        });
        let mut results = Results::default();
        let mut failures = Vec::new();
        self.rounds(&setup, &mut results, &mut failures);
        self.footprints(&setup, &mut results, &mut failures);

        let machine = machine(&cores);
        let mut table = format!(
            "{machine}\n{}, medians of {} rounds, {} s\n",
            match cores.len() {
                1 => "all processes on one core",
                _ => "forwarder on one core, origin and load on another",
            },
            self.effort.rounds,
            started.elapsed().as_secs(),
        );
        for (name, version) in versions.iter().filter(|(_, version)| !version.is_empty()) {
            table.push_str(&format!("{name}: {version}\n"));
        }
        table.push('\n');
        table.push_str(&results.table(&self.peers));
        for failure in &failures {
            table.push_str(&format!("FAILED {failure}\n"));
        }
        // `println!` would panic if the pipe is closed.
        let _ = std::io::stdout().write_all(table.as_bytes());
        if let Some(file) = &self.json {
            let versions: serde_json::Map<String, serde_json::Value> = versions
                .into_iter()
                .map(|(name, version)| (name.to_owned(), version.into()))
                .collect();
            let text = json!({
                "machine": machine,
                "cores": cores.len(),
                "rounds": self.effort.rounds,
                "versions": versions,
                "figures": results.json(),
                "failures": failures,
            });
            fs::write(file, format!("{text:#}\n")).map_err(|error| format!("{file}: {error}"))?;
        }
        match failures.len() {
            0 => Ok(()),
            count => Err(format!("{count} of the measurements failed")),
        }
    }

    fn rounds(&self, setup: &Setup, results: &mut Results, failures: &mut Vec<String>) {
        let rows: Vec<&Row> = self
            .rows
            .iter()
            .copied()
            .filter(|row| !row.is_footprint())
            .collect();
        if rows.is_empty() {
            return;
        }
        let mut running = Vec::new();
        for &peer in &self.peers {
            match Running::start(peer, setup) {
                Ok(started) => running.push(started),
                Err(error) => failures.push(error),
            }
        }
        for round in 0..self.effort.rounds {
            for row in &rows {
                for at in 0..running.len() {
                    // Each round starts with another peer, so that no peer always follows the same one.
                    let running = &running[(at + round) % running.len()];
                    if !row.includes(running.peer) {
                        continue;
                    }
                    let name = running.peer.name();
                    eprintln!(
                        "round {}/{}  {}  {name}",
                        round + 1,
                        self.effort.rounds,
                        row.name
                    );
                    let result =
                        Client::new()
                            .map_err(|error| error.to_string())
                            .and_then(|mut client| {
                                row.round(&mut client, running, &self.effort, results)
                            });
                    if let Err(error) = result {
                        failures.push(format!("{} {name}: {error}", row.name));
                    }
                }
            }
        }
        for running in running {
            running.stop();
        }
    }

    fn footprints(&self, setup: &Setup, results: &mut Results, failures: &mut Vec<String>) {
        for row in self.rows.iter().filter(|row| row.is_footprint()) {
            for &peer in self.peers.iter().filter(|&&peer| row.includes(peer)) {
                eprintln!("{}  {}", row.name, peer.name());
                if let Err(error) = row.footprint(peer, setup, &self.effort, results) {
                    failures.push(format!("{} {}: {error}", row.name, peer.name()));
                }
            }
        }
    }
}

fn machine(cores: &[usize]) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = Command::new("uname")
        .arg("-sr")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    format!(
        "{}, {} cores, {}",
        model.map_or("unknown processor", |(_, model)| model),
        cores.len(),
        String::from_utf8_lossy(&kernel).trim(),
    )
}

fn help() {
    println!(
        "Compares the cost of forwarding in ic, nginx and haproxy (if installed), a proxy on hyper, and one on FastAPI (if \
         IC_BENCH_PYTHON, or python3, has FastAPI, httpx and uvicorn). IC_BASELINE: another ic binary to compare with.\n"
    );
    println!("  --quick        under three minutes: short rounds, smaller bodies");
    println!("  --rounds N     number of rounds of each row");
    println!("  --only A,B     only rows whose names start with A or B");
    println!(
        "  --peers A,B    only these peers: {}",
        Peer::ALL.map(Peer::name).join(", ")
    );
    println!("  --json FILE    also write all figures to FILE, as JSON\n");
    for row in ROWS {
        println!("  {:<14} {}", row.name, row.about);
    }
}
