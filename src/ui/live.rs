//! What the page is told without asking, one JSON document a line for as long as it is open: projects, interceptors, and
//! what passes through them.
//!
//! Looked at only while a page is open, and sent only when it is new. The page reads the lines from the body of an ordinary
//! answer: an `EventSource` could not send the token in a field.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::machine::survey::{Survey, survey};
use crate::registry::project::is_deleted;
use crate::registry::{Port, Registry};
use crate::text::raw;
use crate::text::{Escaped, name};

use super::changes::Done;
use super::queue::{Batch, Queue};
use super::server::Site;
use super::{assets, relay};

/// Sends lines until the page is closed.
pub fn stream(mut stream: TcpStream, site: &Arc<Site>) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n{}Connection: close\r\n\r\n",
        assets::FIELDS
    );
    stream.write_all(head.as_bytes())?;
    let queue = Arc::new(Queue::default());
    let departing = stream.try_clone()?;
    let help = |name: &str, work: fn(&Site, &Arc<Queue>)| beside(name, site, &queue, work);
    let started = beside("departure", site, &queue, |_, queue| {
        watch_for_departure(departing, queue);
    })
    .and_then(|()| help("projects", |site, queue| watch_projects(site, queue)))
    .and_then(|()| help("status", |site, queue| watch_status(site, queue)))
    .and_then(|()| {
        help("feeds", |site, queue| {
            if let Some(folder) = &site.feeds {
                relay::follow(folder, queue);
            }
        })
    });
    let sent = started.and_then(|()| send(&mut stream, &queue));
    queue.close();
    // Wakes the thread that waits for the page's departure.
    let _ = stream.shutdown(Shutdown::Both);
    sent
}

/// Works in a thread of its own, which ends when the queue is closed.
fn beside(
    name: &str,
    site: &Arc<Site>,
    queue: &Arc<Queue>,
    work: impl FnOnce(&Site, &Arc<Queue>) + Send + 'static,
) -> io::Result<()> {
    let (site, queue) = (Arc::clone(site), Arc::clone(queue));
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&site, &queue))
        .map(drop)
}

fn send(stream: &mut TcpStream, queue: &Queue) -> io::Result<()> {
    while let Some(Batch { lines, lost }) = queue.take(HEARTBEAT) {
        let mut bytes = Vec::new();
        if lost > 0 {
            bytes.extend(line(&json!({ "on": "lost", "count": lost })));
        }
        if lines.is_empty() {
            // Shows the page that there still is somebody, and us whether there still is a page.
            bytes.extend(b"{}\n");
        }
        bytes.extend(lines.into_iter().flatten());
        stream.write_all(&bytes)?;
    }
    Ok(())
}

/// A page says nothing more; what comes is its end.
fn watch_for_departure(mut stream: TcpStream, queue: &Queue) {
    if stream.set_read_timeout(None).is_ok() {
        let _ = stream.read(&mut [0]);
    }
    queue.close();
}

fn line(document: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(document).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Sends a state whenever it is another one.
struct Teller<'a> {
    queue: &'a Queue,
    kind: &'static str,
    last: Vec<u8>,
}

impl<'a> Teller<'a> {
    fn new(queue: &'a Queue, kind: &'static str) -> Teller<'a> {
        Teller {
            queue,
            kind,
            last: Vec::new(),
        }
    }

    fn tell(&mut self, document: &impl Serialize) {
        let line = line(document);
        if line != self.last {
            self.last.clone_from(&line);
            self.queue.put_state(self.kind, line);
        }
    }
}

fn watch_projects(site: &Site, queue: &Queue) {
    let mut teller = Teller::new(queue, "projects");
    while queue.is_open() {
        let seen = site.desk.changes();
        match site.desk.place.store.read() {
            Ok(snapshot) => {
                let warning = snapshot.warning.map(|warning| warning.to_string());
                teller.tell(&Projects::of(site, &snapshot.registry, warning));
            }
            Err(error) => {
                teller.tell(&json!({ "on": "projects", "problem": error.to_string() }));
            }
        }
        site.desk.wait(seen, PAUSE);
    }
}

fn watch_status(site: &Site, queue: &Queue) {
    let mut teller = Teller::new(queue, "status");
    while queue.is_open() {
        let seen = site.desk.changes();
        // What is wrong with the registry is said with the projects.
        let registry = site
            .desk
            .place
            .store
            .read()
            .map(|snapshot| snapshot.registry);
        let registry = registry.unwrap_or_default();
        let projects = registry.mappings().map(|(path, port)| (path, port.get()));
        // Without descriptors nothing can be asked, for now.
        let survey = survey(projects).unwrap_or_default();
        teller.tell(&Status {
            on: "status",
            status: &survey,
        });
        site.desk.wait(seen, PAUSE);
    }
}

#[derive(Serialize)]
struct Status<'a> {
    on: &'static str,
    #[serde(flatten)]
    status: &'a Survey,
}

#[derive(Serialize)]
struct Projects {
    on: &'static str,
    registry_file: String,
    range: Range,
    assigned: u32,
    next_available: Option<Port>,
    /// What is wrong with the file.
    warning: Option<String>,
    projects: Vec<Project>,
    /// What can be taken back, the latest first.
    past: Vec<Done>,
}

#[derive(Serialize)]
struct Range {
    start: Port,
    end: Port,
}

#[derive(Serialize)]
struct Project {
    path: String,
    name: String,
    port: Port,
    pinned: bool,
    /// In seconds since 1970.
    last_used: Option<u64>,
    /// Its folder is gone.
    deleted: bool,
}

impl Projects {
    fn of(site: &Site, registry: &Registry, warning: Option<String>) -> Projects {
        let place = &site.desk.place;
        let notes = registry.notes();
        let notes: HashMap<_, _> = notes.iter().collect();
        let project = |(path, port): (&Path, Port)| {
            let note = notes.get(path).copied().unwrap_or_default();
            Project {
                path: raw::to_text(path.as_os_str()),
                name: name(path),
                port,
                pinned: note.is_pinned,
                last_used: note.last_used.map(|moment| moment.seconds()),
                deleted: is_deleted(path),
            }
        };
        Projects {
            on: "projects",
            registry_file: Escaped(&raw::to_text(place.store.path().as_os_str())).to_string(),
            range: Range {
                start: place.range.start(),
                end: place.range.end(),
            },
            assigned: registry.assigned_in(place.range),
            next_available: place.next_free(registry),
            warning,
            projects: registry.mappings().map(project).collect(),
            past: site.desk.past(),
        }
    }
}

/// Between two looks: soon enough to follow what happens, seldom enough to cost nothing.
const PAUSE: Duration = Duration::from_secs(2);

/// A line at least so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
