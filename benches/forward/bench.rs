//! The bench as a program: its options, its rounds, its progress.

use std::fs;
use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::json;

use crate::load::Client;
use crate::peers::{self, Peer, Place, Running};
use crate::rows::{Effort, ROWS, Row};
use crate::table::Book;
use crate::{origin, poll};

pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["launch", core, ..] => Err(peers::launch(core, &arguments[2..]).to_string()),
        ["peer", peer, port, origin] => peers::serve(peer, port, origin),
        _ => Plan::of(&words).and_then(|plan| plan.map_or(Ok(()), Plan::carry_out)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Plan {
    effort: Effort,
    rows: Vec<&'static Row>,
    peers: Vec<Peer>,
    json: Option<String>,
}

impl Plan {
    /// Nothing to do if only help was wanted.
    fn of(words: &[&str]) -> Result<Option<Plan>, String> {
        let mut plan = Plan {
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
                // cargo says it.
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
                _ => return Err(format!("`{word}` is no option; see --help")),
            }
        }
        if plan.rows.is_empty() || plan.peers.is_empty() || plan.effort.rounds == 0 {
            return Err("nothing is left to measure".to_owned());
        }
        Ok(Some(plan))
    }

    fn carry_out(mut self) -> Result<(), String> {
        let started = Instant::now();
        let said = |error: std::io::Error| error.to_string();
        peers::raise_descriptor_limit();
        let cores = poll::cores();
        let [ours, theirs] = [cores[0], cores[cores.len() - 1]];
        poll::pin(ours).map_err(said)?;
        let place = Place {
            origin: origin::start(ours).map_err(said)?,
            core: theirs,
            folder: peers::folder().map_err(said)?,
        };
        let mut versions = Vec::new();
        self.peers.retain(|peer| {
            let version = peer.version();
            match &version {
                None => eprintln!("{} is not installed: left out", peer.name()),
                Some(version) => versions.push((peer.name(), version.clone())),
            }
            version.is_some()
        });
        let mut book = Book::default();
        let mut failures = Vec::new();
        self.rounds(&place, &mut book, &mut failures);
        self.footprints(&place, &mut book, &mut failures);
        progress("");

        let machine = machine(&cores);
        let mut table = format!(
            "{machine}\n{}, medians of {} rounds, {} s\n",
            match cores.len() {
                1 => "everything on one core",
                _ => "forwarder on one core, origin and load on another",
            },
            self.effort.rounds,
            started.elapsed().as_secs(),
        );
        for (name, version) in versions.iter().filter(|(_, version)| !version.is_empty()) {
            table.push_str(&format!("{name}: {version}\n"));
        }
        table.push('\n');
        table.push_str(&book.table(&self.peers));
        for failure in &failures {
            table.push_str(&format!("FAILED {failure}\n"));
        }
        // A closed pipe is no reason to panic.
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
                "figures": book.json(),
                "failures": failures,
            });
            fs::write(file, format!("{text:#}\n")).map_err(|error| format!("{file}: {error}"))?;
        }
        match failures.len() {
            0 => Ok(()),
            count => Err(format!("{count} of the measurements failed")),
        }
    }

    fn rounds(&self, place: &Place, book: &mut Book, failures: &mut Vec<String>) {
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
            match Running::start(peer, place) {
                Ok(started) => running.push(started),
                Err(error) => failures.push(error),
            }
        }
        for round in 0..self.effort.rounds {
            for row in &rows {
                for at in 0..running.len() {
                    // Each round starts with another peer, so that none always follows the same one.
                    let running = &running[(at + round) % running.len()];
                    if !row.includes(running.peer) {
                        continue;
                    }
                    let name = running.peer.name();
                    progress(&format!(
                        "round {}/{}  {}  {name}",
                        round + 1,
                        self.effort.rounds,
                        row.name
                    ));
                    let result = Client::new()
                        .map_err(|error| error.to_string())
                        .and_then(|mut client| row.round(&mut client, running, &self.effort, book));
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

    fn footprints(&self, place: &Place, book: &mut Book, failures: &mut Vec<String>) {
        for row in self.rows.iter().filter(|row| row.is_footprint()) {
            for &peer in self.peers.iter().filter(|&&peer| row.includes(peer)) {
                progress(&format!("{}  {}", row.name, peer.name()));
                if let Err(error) = row.footprint(peer, place, &self.effort, book) {
                    failures.push(format!("{} {}: {error}", row.name, peer.name()));
                }
            }
        }
    }
}

/// On a terminal one line that changes, else a line each.
fn progress(text: &str) {
    let mut out = std::io::stderr();
    let _ = match out.is_terminal() {
        true => write!(out, "\r\x1b[K{text}"),
        false if text.is_empty() => Ok(()),
        false => writeln!(out, "{text}"),
    };
    let _ = out.flush();
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
        model.map_or("an unknown processor", |(_, model)| model),
        cores.len(),
        String::from_utf8_lossy(&kernel).trim(),
    )
}

fn help() {
    println!(
        "Measures what forwarding costs: ic, and beside it nginx and haproxy (where installed), a proxy on hyper, and one \
         on FastAPI (where IC_BENCH_PYTHON, or python3, has FastAPI, httpx and uvicorn).\n"
    );
    println!("  --quick        under three minutes: short rounds, smaller bodies");
    println!("  --rounds N     so many rounds of each row");
    println!("  --only A,B     only rows whose names start so");
    println!(
        "  --peers A,B    only these peers: {}",
        Peer::ALL.map(Peer::name).join(", ")
    );
    println!("  --json FILE    write all figures there as well\n");
    for row in ROWS {
        println!("  {:<14} {}", row.name, row.about);
    }
}
