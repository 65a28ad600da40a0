//! What an open page is sent: one JSON document a line, for as long as it is open. Projects, interceptors, and the events of
//! their feeds: the kept ones first, those of one interceptor after the other, up to `{"on":"live"}`.
//!
//! The machine is examined only while a page is open, and a state is sent only when it changed. The page reads the lines from
//! the body of an ordinary response: an `EventSource` cannot send the token in a field.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::httpd::{BodyWriter, Response, ResponseBody};
use crate::machine::survey::survey;
use crate::registry::project::is_deleted;
use crate::registry::prune::next_free;
use crate::registry::{Loaded, Port, Registry};
use crate::text::{Escaped, name, raw};

use super::app_state::AppState;
use super::queue::{Batch, Queue};
use super::response;

/// The stream of lines, until the page is closed.
pub fn stream(app: &Arc<AppState>) -> Response {
    let app = Arc::clone(app);
    let write = move |writer: &mut BodyWriter<'_>| write_lines(writer, &app);
    response::ok(
        "application/x-ndjson",
        ResponseBody::Stream(Box::new(write)),
    )
}

fn write_lines(writer: &mut BodyWriter<'_>, app: &Arc<AppState>) -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    app.feeds.iter().for_each(|feeds| feeds.open(&queue));
    let sent = spawn("projects", app, &queue, watch_projects)
        .and_then(|()| spawn("status", app, &queue, watch_status))
        .and_then(|()| spawn("recorded", app, &queue, send_recorded))
        .and_then(|()| app.prices.iter().try_for_each(|line| writer.write(line)))
        .and_then(|()| send(writer, &queue));
    queue.close();
    app.feeds.iter().for_each(|feeds| feeds.close(&queue));
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
            // An error of the write is what shows that the page disconnected.
            bytes.extend(b"{}\n");
        }
        bytes.extend(lines.into_iter().flatten());
        writer.write(&bytes)?;
    }
    Ok(())
}

fn line(document: &Value) -> Vec<u8> {
    format!("{document}\n").into_bytes()
}

fn watch_projects(app: &AppState, queue: &Arc<Queue>) {
    while queue.is_open() {
        let seen = app.changes.count();
        let projects = match app.store.read() {
            Ok(Loaded { registry, warning }) => {
                let mut projects = projects(app, &registry);
                projects["warning"] = json!(warning.map(|warning| warning.to_string()));
                projects
            }
            Err(error) => json!({ "on": "projects", "problem": error.to_string() }),
        };
        queue.put_state("projects", line(&projects));
        app.changes.wait(seen, PAUSE);
    }
}

fn watch_status(app: &AppState, queue: &Arc<Queue>) {
    while queue.is_open() {
        let seen = app.changes.count();
        // The projects' state reports a registry that cannot be read.
        let registry = app.store.read().map(|loaded| loaded.registry);
        let registry = registry.unwrap_or_default();
        let projects = registry.mappings().map(|(path, port)| (path, port.get()));
        // It fails for want of descriptors, which may be available at the next examination.
        let survey = survey(projects).unwrap_or_default();
        let status = json!({
            "on": "status", "interceptors": survey.interceptors, "held": survey.held,
        });
        queue.put_state("status", line(&status));
        app.changes.wait(seen, PAUSE);
    }
}

fn send_recorded(app: &AppState, queue: &Arc<Queue>) {
    app.feeds
        .iter()
        .for_each(|feeds| feeds.send_recorded(queue));
}

fn projects(app: &AppState, registry: &Registry) -> Value {
    let notes = registry.notes();
    let notes: HashMap<_, _> = notes.iter().collect();
    let project = |(path, port): (&Path, Port)| {
        let note = notes.get(path).copied().unwrap_or_default();
        json!({
            "path": raw::to_text(path.as_os_str()),
            "name": name(path),
            "port": port,
            "pinned": note.is_pinned,
            "last_used": note.last_used.map(|time| time.seconds()),
            "deleted": is_deleted(path),
        })
    };
    let file = raw::to_text(app.store.path().as_os_str());
    json!({
        "on": "projects",
        "program": app.commands.program(),
        "registry_file": Escaped(&file).to_string(),
        "range": { "start": app.range.start(), "end": app.range.end() },
        "assigned": registry.assigned_in(app.range),
        "available": registry.unassigned_in(app.range),
        "next_available": next_free(app.range, registry),
        "projects": registry.mappings().map(project).collect::<Vec<_>>(),
    })
}

/// Between two examinations: often enough to follow changes, seldom enough to cost little.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest time without a line, and half the time in which a disconnect is noticed.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
