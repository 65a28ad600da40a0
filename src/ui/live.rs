//! What an open page is sent: one JSON document a line, for as long as it is open. Projects, interceptors, and the events of
//! their feeds.
//!
//! The machine is examined only while a page is open, and a state is sent only when it changed. The page reads the lines from
//! the body of an ordinary response: an `EventSource` cannot send the token in a field.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::httpd::{BodyWriter, Response, ResponseBody};
use crate::machine::survey::{Survey, survey};
use crate::registry::project::is_deleted;
use crate::registry::prune::next_free;
use crate::registry::{Port, Registry};
use crate::text::raw;
use crate::text::{Escaped, name};

use super::app_state::AppState;
use super::queue::{Batch, Queue};
use super::{assets, feeds};

/// The stream of lines, until the page is closed.
pub fn stream(app: &Arc<AppState>) -> Response {
    let app = Arc::clone(app);
    Response {
        status: 200,
        content_type: "application/x-ndjson",
        fields: assets::FIELDS.into(),
        body: ResponseBody::Stream(Box::new(move |writer| write_lines(writer, &app))),
    }
}

fn write_lines(writer: &mut BodyWriter<'_>, app: &Arc<AppState>) -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    let connection = writer.connection().try_clone()?;
    let disconnecting = connection.try_clone()?;
    let started = spawn("disconnect", app, &queue, |_, queue| {
        wait_for_disconnect(disconnecting, queue);
    })
    .and_then(|()| spawn("projects", app, &queue, watch_projects))
    .and_then(|()| spawn("status", app, &queue, watch_status))
    .and_then(|()| {
        spawn("feeds", app, &queue, |app, queue| {
            if let Some(folder) = &app.feeds {
                feeds::follow(folder, queue);
            }
        })
    });
    let sent = started.and_then(|()| send(writer, &queue));
    queue.close();
    // Wakes the thread that waits for the page to disconnect.
    let _ = connection.shutdown(Shutdown::Both);
    sent
}

/// Works in a thread of its own, which ends when the queue is closed.
fn spawn(
    name: &str,
    app: &Arc<AppState>,
    queue: &Arc<Queue>,
    work: impl FnOnce(&AppState, &Arc<Queue>) + Send + 'static,
) -> io::Result<()> {
    let (app, queue) = (Arc::clone(app), Arc::clone(queue));
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&app, &queue))
        .map(drop)
}

fn send(writer: &mut BodyWriter<'_>, queue: &Queue) -> io::Result<()> {
    while let Some(Batch { lines, lost }) = queue.take(HEARTBEAT) {
        let mut bytes = Vec::new();
        if lost > 0 {
            bytes.extend(line(&json!({ "on": "lost", "count": lost })));
        }
        if lines.is_empty() {
            // Shows the page that the server is there, and the server whether the page is.
            bytes.extend(b"{}\n");
        }
        bytes.extend(lines.into_iter().flatten());
        writer.write(&bytes)?;
    }
    Ok(())
}

/// The page sends nothing more: whatever can be read is its end.
fn wait_for_disconnect(mut stream: TcpStream, queue: &Queue) {
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

/// Sends a state whenever it changed.
struct ChangeNotifier<'a> {
    queue: &'a Queue,
    kind: &'static str,
    last: Vec<u8>,
}

impl<'a> ChangeNotifier<'a> {
    fn new(queue: &'a Queue, kind: &'static str) -> ChangeNotifier<'a> {
        ChangeNotifier {
            queue,
            kind,
            last: Vec::new(),
        }
    }

    fn notify(&mut self, document: &impl Serialize) {
        let line = line(document);
        if line != self.last {
            self.last.clone_from(&line);
            self.queue.put_state(self.kind, line);
        }
    }
}

fn watch_projects(app: &AppState, queue: &Arc<Queue>) {
    let mut notifier = ChangeNotifier::new(queue, "projects");
    while queue.is_open() {
        let seen = app.registry.changes();
        match app.registry.read() {
            Ok(snapshot) => {
                let warning = snapshot.warning.map(|warning| warning.to_string());
                notifier.notify(&Projects::of(app, &snapshot.registry, warning));
            }
            Err(error) => {
                notifier.notify(&json!({ "on": "projects", "problem": error.to_string() }));
            }
        }
        app.registry.wait(seen, PAUSE);
    }
}

fn watch_status(app: &AppState, queue: &Arc<Queue>) {
    let mut notifier = ChangeNotifier::new(queue, "status");
    while queue.is_open() {
        let seen = app.registry.changes();
        // The projects' state reports a registry that cannot be read.
        let registry = app.registry.read().map(|snapshot| snapshot.registry);
        let registry = registry.unwrap_or_default();
        let projects = registry.mappings().map(|(path, port)| (path, port.get()));
        // It fails for want of descriptors, which may be available at the next examination.
        let status = &survey(projects).unwrap_or_default();
        notifier.notify(&Status {
            on: "status",
            status,
        });
        app.registry.wait(seen, PAUSE);
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
    /// Its folder was deleted.
    deleted: bool,
}

impl Projects {
    fn of(app: &AppState, registry: &Registry, warning: Option<String>) -> Projects {
        let range = app.registry.range();
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
            registry_file: Escaped(&raw::to_text(app.registry.file().as_os_str())).to_string(),
            range: Range {
                start: range.start(),
                end: range.end(),
            },
            assigned: registry.assigned_in(range),
            next_available: next_free(range, registry),
            warning,
            projects: registry.mappings().map(project).collect(),
        }
    }
}

/// Between two examinations: often enough to follow changes, seldom enough to cost little.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest time without a line.
const HEARTBEAT: Duration = Duration::from_secs(10);
