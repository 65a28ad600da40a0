//! The requests of the page: the export, and changes. `server` has checked that the client may send them.
//!
//! Nothing is decided here about projects and ports: each request does what a command does, and is answered with the same
//! document as its `--json`. Paths that are not UTF-8 are encoded by `raw`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::httpd::{Response, ResponseBody};
use crate::registry::import::{ConflictPolicy, Readable, readable};
use crate::registry::prune::{allocate_or_prune, prune_here};
use crate::registry::store::StoreError;
use crate::registry::{Exhausted, Project, Registry, documents};
use crate::text::{escaped_path, io_message, name, raw};

use super::app_state::AppState;
use super::{assets, feeds, response};

/// The registry as a file.
pub fn export(app: &AppState) -> Response {
    match app.registry.read() {
        Ok(snapshot) => Response {
            status: 200,
            content_type: "application/json",
            fields: assets::FIELDS.into(),
            body: ResponseBody::Bytes((snapshot.registry.to_text() + "\n").into_bytes().into()),
        },
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
        Some(token) => response::json(200, &json!({ "token": token.to_string() })),
        None => response::error(
            401,
            "this address was valid once; open the one that `ic ui` printed",
        ),
    }
}

/// Makes a change.
pub fn change(app: &AppState, name: &str, body: &[u8]) -> Response {
    match name {
        "allocate" => parsed(body, |request| allocate(app, &request)),
        "remove" => parsed(body, |request| remove(app, &request)),
        "pin" => parsed(body, |request| pin(app, &request)),
        "prune" => parsed(body, |request| prune_projects(app, &request)),
        "import" => parsed(body, |request| import(app, &request)),
        "record" => parsed(body, |request| record(app, &request)),
        _ => response::error(404, "not found"),
    }
}

fn parsed<R: DeserializeOwned>(
    body: &[u8],
    answer: impl FnOnce(R) -> Result<Response, Response>,
) -> Response {
    match serde_json::from_slice(body) {
        Ok(request) => answer(request).unwrap_or_else(|error| error),
        Err(_) => malformed(),
    }
}

fn malformed() -> Response {
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

fn allocate(app: &AppState, request: &Allocate) -> Result<Response, Response> {
    let project = typed(&request.path)?;
    let given = app.registry.change(|registry| {
        let given = allocate_or_prune(registry, &project, app.registry.range())?;
        if request.pinned {
            registry.pin(&project, true);
        }
        Ok(given)
    })?;
    let given =
        given.map_err(|exhausted: Exhausted| response::error(500, exhausted.to_string()))?;
    Ok(response::json(
        200,
        &json!({
            "project": name(project.path()),
            "path": raw::to_text(project.path().as_os_str()),
            "port": given.allocated.port,
            "created": given.allocated.created,
            "missing": !project.path().exists(),
            "pruned": documents::pruned(&given.pruned, false),
        }),
    ))
}

/// The project at a path as a user types it. Surrounding white space is removed unless the folder has it in its name.
fn typed(text: &str) -> Result<Project, Response> {
    let path = match absolute(text) {
        Ok(path) if path.exists() => path,
        _ => absolute(text.trim())?,
    };
    if std::fs::metadata(&path).is_ok_and(|found| !found.is_dir()) {
        return Err(response::error(
            400,
            format!(
                "`{}` is not a folder; give the project's folder",
                escaped_path(&path)
            ),
        ));
    }
    Project::resolve(&path).map_err(|error| {
        response::error(
            400,
            format!(
                "cannot resolve `{}`: {}",
                escaped_path(&path),
                io_message(&error)
            ),
        )
    })
}

/// An absolute path, in which `~` is the home folder: a page has no current folder.
fn absolute(text: &str) -> Result<PathBuf, Response> {
    let path = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => dirs::home_dir()
            .map(|home| home.join(raw::from_text(rest.trim_start_matches('/'))))
            .ok_or_else(|| {
                response::error(400, "there is no home folder; give an absolute path")
            })?,
        _ => PathBuf::from(raw::from_text(text)),
    };
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(response::error(
            400,
            "give an absolute path, beginning with `/` or `~/`",
        ))
    }
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

fn remove(app: &AppState, request: &Remove) -> Result<Response, Response> {
    let project = recorded(&request.path)?;
    let removed = app.registry.change(|registry| registry.remove(&project))?;
    let port = removed.ok_or_else(|| no_port(&project))?;
    Ok(response::json(200, &json!({ "port": port })))
}

#[derive(Deserialize)]
struct Pin {
    path: String,
    pinned: bool,
}

fn pin(app: &AppState, request: &Pin) -> Result<Response, Response> {
    let project = recorded(&request.path)?;
    let port = app.registry.change(|registry| {
        registry.pin(&project, request.pinned);
        registry.port_of(&project)
    })?;
    port.ok_or_else(|| no_port(&project))?;
    Ok(response::json(200, &json!({ "pinned": request.pinned })))
}

/// A project by the path that the page got from here.
fn recorded(path: &str) -> Result<Project, Response> {
    Project::recorded(Path::new(&raw::from_text(path)))
        .ok_or_else(|| response::error(400, "the path is not absolute"))
}

fn no_port(project: &Project) -> Response {
    response::error(
        404,
        format!(
            "no port is assigned to `{}` any more",
            escaped_path(project.path())
        ),
    )
}

#[derive(Deserialize)]
struct Prune {
    /// As `--unused-for`, in days.
    unused_for_days: Option<u32>,
    dry_run: bool,
}

fn prune_projects(app: &AppState, request: &Prune) -> Result<Response, Response> {
    let days = |days| Duration::from_secs(u64::from(days) * 86_400);
    let unused_for = request.unused_for_days.map(days);
    let prune = |registry: &mut Registry| prune_here(registry, unused_for);
    let pruned = if request.dry_run {
        prune(&mut app.registry.read()?.registry)
    } else {
        app.registry.change(prune)?
    };
    let document = documents::pruned(&pruned, request.dry_run);
    Ok(response::json(200, &document))
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

fn import(app: &AppState, request: &Import) -> Result<Response, Response> {
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
        import(&mut app.registry.read()?.registry)
    } else {
        app.registry.change(import)?
    };
    let mut document = documents::imported(&imported, request.dry_run);
    document["warning"] = json!(warning);
    Ok(response::json(200, &document))
}

#[derive(Deserialize)]
struct Record {
    /// The interceptor's process id.
    pid: u32,
    on: bool,
}

fn record(app: &AppState, request: &Record) -> Result<Response, Response> {
    let recorded = match &app.feeds {
        Some(folder) => feeds::record(folder, request.pid, request.on),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    match recorded {
        Ok(()) => Ok(response::json(200, &json!({ "recording": request.on }))),
        Err(error) => Err(response::error(
            500,
            format!(
                "the interceptor with pid {} did not change its recording: {}; is it still running?",
                request.pid,
                io_message(&error)
            ),
        )),
    }
}
