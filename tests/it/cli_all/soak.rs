//! The soak of `ic serve --all`: projects come, change, move and go at random while clients stream. Every response is complete and
//! carries the identity that its port had during the request, and nothing leaks.
//!
//! `cargo test` runs it for two seconds. For ten minutes:
//!
//! ```text
//! IC_SOAK_SECONDS=600 cargo test --release --test it cli_all::soak -- --nocapture
//! ```

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ::interceptor::registry::{Registry, Store};
use rustix::fs::FlockOperation;
use serde_json::{Map, json};

use super::process::{All, at, connects, identity_on};
use crate::cli_home::{Home, free_port};
use crate::http_mix::Dice;
use crate::support::*;

const PORTS: usize = 8;
const CLIENTS: u64 = 12;

fn duration() -> Duration {
    let seconds = std::env::var("IC_SOAK_SECONDS");
    let seconds = seconds.map_or(2, |it| it.parse().expect("IC_SOAK_SECONDS is a number"));
    Duration::from_secs(seconds)
}

/// A port and what is known of it.
struct Port {
    number: u16,
    /// Its project is in the one or the other.
    folders: [PathBuf; 2],
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The number of changes, each counted when it begins and when it is served.
    epoch: u64,
    is_served: bool,
    /// The lowest and the highest generation of the identity that a request may carry now.
    oldest: u64,
    newest: u64,
    folder: usize,
}

impl Known {
    /// Whether nothing was changing between this and `later`.
    fn is_steady_until(self, later: Known) -> bool {
        self.epoch == later.epoch && self.epoch.is_multiple_of(2)
    }
}

impl Port {
    fn known(&self) -> Known {
        *self.known.lock().expect("no holder panics")
    }

    fn identity(&self, generation: u64) -> String {
        format!("{}-{generation}", self.number)
    }

    /// Makes one change, and waits until it is served.
    fn change(&self, dice: &mut Dice, write: impl FnOnce()) {
        let next = {
            let mut known = self.known.lock().expect("no holder panics");
            known.epoch += 1;
            known.newest += 1;
            let mut next = *known;
            match dice.roll(4) {
                0 => next.is_served = !known.is_served,
                1 => next.folder = 1 - known.folder,
                _ => {}
            }
            next.oldest = next.newest;
            known.folder = next.folder;
            *known = Known {
                is_served: next.is_served,
                oldest: known.oldest,
                ..*known
            };
            next
        };
        let folder = &self.folders[next.folder];
        match next.is_served {
            true => fs::create_dir_all(folder).expect("a folder"),
            false if dice.roll(2) == 0 && folder.exists() => {
                fs::remove_dir(folder).expect("removed");
            }
            false => {}
        }
        write();
        match next.is_served {
            true => wait_until("served", Some(self.identity(next.newest)), || {
                identity_on(self.number)
            }),
            false => wait_until("not served", false, || connects(self.number)),
        }
        *self.known.lock().expect("no holder panics") = Known {
            epoch: next.epoch + 1,
            ..next
        };
    }
}

/// Writes what is known into the registry, as `ic` or as the Python tool does.
fn write_registry(home: &Home, ports: &[Port], dice: &mut Dice) {
    let (mut mappings, mut projects) = (Map::new(), Map::new());
    for port in ports {
        let known = port.known();
        let path = port.folders[known.folder].to_str().expect("UTF-8");
        // The mapping of a deleted folder stays.
        if known.is_served || !port.folders[known.folder].exists() {
            mappings.insert(path.to_owned(), port.number.into());
            let settings = json!({"instance_id": port.identity(known.newest)});
            projects.insert(path.to_owned(), json!({ "settings": settings }));
        }
    }
    let registry = json!({"version": "1.0", "mappings": mappings, "ic": {"projects": projects}});
    let (file, text) = (home.registry(), registry.to_string());
    if dice.roll(2) == 0 {
        let new = Registry::parse(text.as_bytes()).expect("a good registry");
        let updated = Store::new(file).update(|registry| *registry = new.clone());
        updated.expect("it can be written");
    } else {
        // As the Python tool does.
        let mut file = fs::File::create(file).expect("it can be opened");
        rustix::fs::flock(&file, FlockOperation::LockExclusive).expect("locked");
        file.write_all(text.as_bytes()).expect("written");
    }
}

/// Answers each request with a stream of its identity.
fn stream(mut client: Conn, mut dice: Dice) {
    while let Ok(request) = client.try_request() {
        let id = request.fields.one("x-memory-user-id").expect("it has one");
        assert_eq!(request.fields.one("x-pycharm-instance"), Some(id));
        let pieces = 1 + dice.roll(20);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
        if !client.offer(format!("{head}x-pieces: {pieces}\r\n\r\n")) {
            return;
        }
        for _ in 0..pieces {
            thread::sleep(Duration::from_millis(dice.roll(6)));
            let line = format!("{id}\n");
            if !client.offer(format!("{:x}\r\n{line}\r\n", line.len())) {
                return;
            }
        }
        if !client.offer("0\r\n\r\n") {
            return;
        }
    }
}

/// One client; returns the numbers of its responses, and of the requests without one.
fn run_client(ports: &[Port], number: u64, until: Instant) -> (u64, u64) {
    let mut dice = Dice(0x9e37_79b9 * (number + 1));
    let (mut responses, mut failures) = (0, 0);
    let mut kept: Option<(usize, Conn, Known)> = None;
    while Instant::now() < until {
        let (at_port, client, since) = match kept.take() {
            Some(kept) => kept,
            None => {
                let index = dice.roll(PORTS as u64) as usize;
                let since = ports[index].known();
                let stream = std::net::TcpStream::connect(at(ports[index].number));
                let Ok(stream) = stream else {
                    let now = ports[index].known();
                    let may_fail = !since.is_served || !since.is_steady_until(now);
                    assert!(may_fail, "refused: {since:?}, {now:?}");
                    failures += 1;
                    continue;
                };
                (index, Conn::new("client", stream), since)
            }
        };
        let port = &ports[at_port];
        let before = port.known();
        let mut client = client;
        client.offer("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = client.try_response_head("GET");
        let now = port.known();
        let Ok((head, framing)) = head else {
            let may_fail = !since.is_steady_until(now) || !since.is_served;
            assert!(may_fail, "no response: {since:?}, {now:?}");
            failures += 1;
            continue;
        };
        // From here on nothing may be missing.
        let mut body = Body::new(framing);
        let mut text = String::new();
        while let piece = client.try_some(&mut body).expect("a whole response")
            && !piece.is_empty()
        {
            text.push_str(&latin1(&piece));
        }
        responses += 1;
        let id = text.lines().next().unwrap_or_default();
        assert!(text.lines().all(|line| line == id), "mixed: {text}");
        let pieces = head.fields.one("x-pieces").map(str::to_owned);
        assert_eq!(pieces, Some(text.lines().count().to_string()));
        let generation = id.strip_prefix(&format!("{}-", port.number));
        let generation: u64 = generation
            .and_then(|it| it.parse().ok())
            .expect("that of the port");
        let allowed = before.oldest..=now.newest;
        assert!(
            allowed.contains(&generation),
            "{generation}: {before:?}, {now:?}"
        );
        if dice.roll(3) > 0 {
            kept = Some((at_port, client, since));
        }
    }
    (responses, failures)
}

#[test]
fn projects_come_change_and_go_while_clients_stream_and_none_gets_the_identity_of_another() {
    let home = Home::new();
    let ports: Vec<Port> = (0..PORTS)
        .map(|number| Port {
            number: free_port(),
            folders: ["a", "b"].map(|side| home.folder(format!("{side}{number}"))),
            known: Mutex::new(Known {
                epoch: 0,
                is_served: true,
                oldest: 0,
                newest: 0,
                folder: 0,
            }),
        })
        .collect();
    let mut dice = Dice(0x5eed);
    fs::create_dir_all(home.registry().parent().expect("it has one")).expect("a folder");
    write_registry(&home, &ports, &mut dice);
    let origin = Origin::listen();
    let all = All::start(&home, &["--target", &origin.url()]);
    all.wait_for(&format!("{PORTS} projects\n"));
    let before = all.resources();
    let until = Instant::now() + duration();
    let mut changes = 0;
    let (responses, failures) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let ports = &ports;
                    move || run_client(ports, number, until)
                })
            })
            .collect();
        scope.spawn(|| {
            let mut number = 0;
            // Longer than the clients, whose last requests are still answered.
            while Instant::now() < until + Duration::from_secs(2) {
                if let Some(client) = origin.try_accept(Duration::from_millis(100)) {
                    number += 1;
                    let client = client.with_timeout(DEADLINE);
                    scope.spawn(move || stream(client, Dice(number)));
                }
            }
        });
        while Instant::now() < until {
            let port = &ports[dice.roll(PORTS as u64) as usize];
            let mut writes = Dice(dice.roll(u64::MAX / 2) + 1);
            port.change(&mut dice, || write_registry(&home, &ports, &mut writes));
            changes += 1;
        }
        let results = clients
            .into_iter()
            .map(|client| client.join().expect("no failed client"));
        results.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!("soak: {changes} changes, {responses} responses, {failures} requests without one");
    assert!(changes > 0 && responses > 0);
    // The clients have gone; what is served may be more or less than at the start.
    wait_until("no descriptor is left over", true, || {
        all.resources().0 <= before.0 + 8
    });
    let after = all.resources();
    println!("soak: before {before:?}, after {after:?} (descriptors, resident KiB)");
    assert!(
        after.1 < before.1 + (8 << 10),
        "memory: {before:?}, {after:?}"
    );
    all.stop();
}
