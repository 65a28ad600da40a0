//! The requests of the page: the export, and changes. `server` has checked that the client may send them.
//!
//! Nothing is decided here about projects and ports: each request does what a command does, and is answered with the same
//! document as its `--json`. Paths that are not UTF-8 are encoded by `raw`.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::httpd::{Response, ResponseBody};
use crate::machine::interceptor::interceptor_at;
use crate::machine::survey::{idle_ports, is_for, staying_on};
use crate::registry::import::{self, ConflictPolicy, Readable, readable};
use crate::registry::project::expand_home;
use crate::registry::prune::{Allocation, allocate_or_prune, prune_here};
use crate::registry::store::StoreError;
use crate::registry::{Exhausted, Port, Project, Registry, documents};
use crate::text::{escaped_path, io_message, name, raw};

use super::app_state::AppState;
use super::{feeds, response, send};

/// The registry as a file.
pub fn export(app: &AppState) -> Response {
    match app.store.read() {
        Ok(snapshot) => {
            let text = snapshot.registry.to_text() + "\n";
            response::ok(
                "application/json",
                ResponseBody::Bytes(text.into_bytes().into()),
            )
        }
        Err(error) => error.into(),
    }
}

/// The token, in exchange for a code.
pub fn session(app: &AppState, body: &[u8]) -> Response {
    #[derive(Deserialize)]
    struct Session {
        code: String,
    }
    let Ok(Session { code }) = serde_json::from_slice(body) else {
        return malformed();
    };
    match app.auth.redeem(code.as_bytes(), Instant::now()) {
        Some(token) => response::json(&json!({ "token": token.to_string() })),
        None => response::error(
            401,
            "this address was valid once; open the one that `ic ui` printed",
        ),
    }
}

/// Makes a change.
pub fn change(app: &AppState, name: &str, body: &[u8]) -> Response {
    let result = match name {
        "allocate" => parsed(body, app, allocate),
        "remove" => parsed(body, app, remove),
        "pin" => parsed(body, app, pin),
        "prune" => parsed(body, app, prune),
        "import" => parsed(body, app, import),
        "record" => parsed(body, app, record),
        "send" => parsed(body, app, send::send),
        "snippets" => parsed(body, app, snippets),
        "start" => parsed(body, app, start),
        _ => Err(response::error(404, "not found")),
    };
    result.map_or_else(|error| error, |document| response::json(&document))
}

/// A change: returns the document that describes what it did.
type Change<R> = fn(&AppState, R) -> Result<Value, Response>;

fn parsed<R: DeserializeOwned>(
    body: &[u8],
    app: &AppState,
    change: Change<R>,
) -> Result<Value, Response> {
    let request = serde_json::from_slice(body).map_err(|_| malformed())?;
    change(app, request)
}

/// The answer to a request that no page sends.
pub fn malformed() -> Response {
    response::error(400, "the request is malformed; reload the page")
}

impl From<StoreError> for Response {
    fn from(error: StoreError) -> Response {
        response::error(500, error.to_string())
    }
}

#[derive(Deserialize)]
struct Allocate {
    path: String,
    #[serde(default)]
    pinned: bool,
}

fn allocate(app: &AppState, request: Allocate) -> Result<Value, Response> {
    let (folder, spellings) = typed(&request.path)?;
    let allocation = app.change(|registry| {
        let known = registry.first_of([&folder].into_iter().chain(&spellings));
        let project = known.map_or(&folder, |(project, _)| project).clone();
        let allocation = allocate_or_prune(registry, &project, app.range)?;
        if request.pinned {
            registry.pin(&project, true);
        }
        Ok((project, allocation))
    })?;
    let (project, Allocation { allocated, pruned }) =
        allocation.map_err(|error: Exhausted| response::error(500, error.to_string()))?;
    Ok(json!({
        "project": name(project.path()),
        "path": raw::to_text(project.path().as_os_str()),
        "port": allocated.port,
        "created": allocated.created,
        "missing": !project.path().exists(),
        "pruned": documents::pruned(&pruned, false),
    }))
}

/// The project at a path as a user types it, and what its mapping may be recorded under otherwise. Surrounding white space is
/// removed unless the folder has it in its name.
fn typed(text: &str) -> Result<(Project, Vec<Project>), Response> {
    let path = match absolute(text) {
        Ok(path) if path.exists() => path,
        _ => absolute(text.trim())?,
    };
    let shown = escaped_path(&path);
    if path.metadata().is_ok_and(|found| !found.is_dir()) {
        let message = format!("`{shown}` is not a folder; give the project's folder");
        return Err(response::error(400, message));
    }
    let folder = Project::resolve(&path).map_err(|error| {
        let why = io_message(&error);
        response::error(400, format!("cannot resolve `{shown}`: {why}"))
    })?;
    let spellings = Project::spellings(&path, Some(&folder));
    Ok((folder, spellings))
}

/// An absolute path, in which `~` is the home folder: a page has no current folder.
fn absolute(text: &str) -> Result<PathBuf, Response> {
    let path = PathBuf::from(raw::from_text(text));
    let path = expand_home(&path)
        .map_err(|error| response::error(400, format!("`{}` {error}", escaped_path(&path))))?;
    if !path.is_absolute() {
        let message = "give an absolute path, beginning with `/` or `~/`";
        return Err(response::error(400, message));
    }
    Ok(path)
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

fn remove(app: &AppState, request: Remove) -> Result<Value, Response> {
    let project = recorded(&request.path)?;
    let removed = app.change(|registry| registry.remove(&project))?;
    let port = removed.ok_or_else(|| no_port(&project))?;
    Ok(json!({ "port": port }))
}

#[derive(Deserialize)]
struct Pin {
    path: String,
    pinned: bool,
}

fn pin(app: &AppState, request: Pin) -> Result<Value, Response> {
    let project = recorded(&request.path)?;
    let port = app.change(|registry| {
        registry.pin(&project, request.pinned);
        registry.port_of(&project)
    })?;
    port.ok_or_else(|| no_port(&project))?;
    Ok(json!({ "pinned": request.pinned }))
}

/// A project by the path that the page got from here.
fn recorded(path: &str) -> Result<Project, Response> {
    Project::recorded(Path::new(&raw::from_text(path)))
        .ok_or_else(|| response::error(400, "the path is not absolute"))
}

fn no_port(project: &Project) -> Response {
    let path = escaped_path(project.path());
    response::error(404, format!("no port is assigned to `{path}` any more"))
}

#[derive(Deserialize)]
struct Prune {
    /// As `--unused-for`, in days.
    unused_for_days: Option<u32>,
    dry_run: bool,
}

fn prune(app: &AppState, request: Prune) -> Result<Value, Response> {
    let days = |days| Duration::from_secs(u64::from(days) * 86_400);
    let unused_for = request.unused_for_days.map(days);
    let mut registry = app.store.read()?.registry;
    let idle = idle_ports(registry.mappings().map(|(_, port)| port.get()));
    let prune = |registry: &mut Registry| prune_here(registry, unused_for, &idle);
    let pruned = if request.dry_run {
        prune(&mut registry)
    } else {
        app.change(prune)?
    };
    Ok(documents::pruned(&pruned, request.dry_run))
}

#[derive(Deserialize)]
struct Import {
    /// The file's name, for messages.
    name: String,
    /// The file, each byte as one character (U+0000 to U+00FF): it need not be text.
    bytes: String,
    /// The file wins conflicts.
    replace: bool,
    dry_run: bool,
}

fn import(app: &AppState, request: Import) -> Result<Value, Response> {
    let bytes: Option<Vec<u8>> = request
        .bytes
        .chars()
        .map(|byte| u8::try_from(byte).ok())
        .collect();
    let bytes = bytes.ok_or_else(malformed)?;
    let named = format!("`{}`", request.name);
    let Readable { registry, warning } =
        readable(&bytes, &named).map_err(|error| response::error(500, error))?;
    let policy = if request.replace {
        ConflictPolicy::Overwrite
    } else {
        ConflictPolicy::Reject
    };
    let import = |here: &mut Registry| here.import(&registry, policy);
    let imported = if request.dry_run {
        import(&mut app.store.read()?.registry)
    } else {
        app.change(import)?
    };
    let running = if request.replace {
        still_running(&imported)
    } else {
        None
    };
    let warnings: Vec<String> = warning.into_iter().chain(running).collect();
    let mut document = documents::imported(&imported, request.dry_run);
    document["warning"] = match warnings.is_empty() {
        true => Value::Null,
        false => json!(warnings.join("; ")),
    };
    Ok(document)
}

/// Names the interceptors that stay on ports that their projects lose.
fn still_running(imported: &import::Import) -> Option<String> {
    let lost = imported.lost().map(|(path, port)| (path, port.get()));
    let running = staying_on(lost).into_iter();
    let named: Vec<String> = running
        .map(|(path, port, _)| format!("`{}` (port {port})", escaped_path(path)))
        .collect();
    (!named.is_empty()).then(|| {
        format!(
            "interceptors that keep running on their former ports until they are stopped: {}",
            named.join(", ")
        )
    })
}

#[derive(Deserialize)]
struct Snippets {
    path: String,
    /// Of the interceptor, which need not be the one of the registry.
    port: u16,
}

/// The texts for clients, and whether `start` would help.
fn snippets(app: &AppState, request: Snippets) -> Result<Value, Response> {
    let project = recorded(&request.path)?;
    let port = Port::try_from(request.port).map_err(|_| malformed())?;
    let texts = app.commands.client_texts(&project, port);
    let mut document = json!(texts.map_err(|why| response::error(409, why))?);
    document["port"] = json!(port);
    document["can_start"] = json!(app.commands.can_start());
    Ok(document)
}

#[derive(Deserialize)]
struct Start {
    path: String,
}

/// Starts the service, and waits until it serves the project.
fn start(app: &AppState, request: Start) -> Result<Value, Response> {
    let project = recorded(&request.path)?;
    let registry = app.store.read()?.registry;
    let port = registry
        .port_of(&project)
        .ok_or_else(|| no_port(&project))?;
    app.commands
        .start()
        .map_err(|why| response::error(500, why))?;
    let deadline = Instant::now() + START_TIME_MAX;
    while !interceptor_at(port.get()).is_some_and(|found| is_for(&found, project.path())) {
        if Instant::now() >= deadline {
            let path = escaped_path(project.path());
            let message = format!(
                "the service does not serve `{path}`; `ic service status` shows its log, which says why"
            );
            return Err(response::error(500, message));
        }
        thread::sleep(PAUSE);
    }
    app.changes.note();
    Ok(json!({ "port": port }))
}

#[derive(Deserialize)]
struct Record {
    /// The interceptor's process id.
    pid: u32,
    on: bool,
}

fn record(app: &AppState, request: Record) -> Result<Value, Response> {
    let recorded = match &app.feeds {
        Some(feeds) => feeds::record(feeds.folder(), request.pid, request.on),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    recorded.map_err(|error| {
        let Record { pid, .. } = request;
        let why = io_message(&error);
        let message = format!(
            "the interceptor with pid {pid} did not change its recording: {why}; is it still running?"
        );
        response::error(500, message)
    })?;
    Ok(json!({ "recording": request.on }))
}

/// `ic serve --all` listens on all ports within a second after its start.
const START_TIME_MAX: Duration = Duration::from_secs(5);

/// Between two looks at a port.
const PAUSE: Duration = Duration::from_millis(50);
