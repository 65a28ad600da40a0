//! What the page can ask for: exports, and changes. Whoever asks has been let in by then.
//!
//! Nothing is decided here about projects and ports: each question is one that a command asks, with the same answer as
//! its `--json`, and a change comes with what takes it back. Paths that are not UTF-8 travel as `raw` carries them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::mappings;
use crate::cli::project::refuse_no_folder;
use crate::cli::prune::{Prunes, prune, unused_for};
use crate::cli::settings::SourcedValue;
use crate::cli::transfer::{Imports, Readable, readable};
use crate::registry::import::Winner;
use crate::registry::undo::Obstacle;
use crate::registry::{Project, Registry};
use crate::text::raw;
use crate::text::{escaped_path, io_message, name};

use super::changes::{Done, PAST_MAX, Undone};
use super::relay;
use super::server::{Answer, Site};

/// Answers a question that changes nothing.
pub fn read(site: &Site, name: &str, query: &str) -> Answer {
    if name != "export" {
        return Answer::refusal(404, "there is nothing here");
    }
    let registry = match site.desk.place.read() {
        Ok(registry) => registry,
        Err(failure) => return failed(&failure),
    };
    match query {
        "format=json" => Answer::file("application/json", (registry.to_text() + "\n").into()),
        _ => Answer::refusal(400, "give `format=json`"),
    }
}

/// The token, for a code that is good once.
pub fn session(site: &Site, body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Session {
        code: String,
    }
    let Ok(Session { code }) = serde_json::from_slice(body) else {
        return not_understood();
    };
    match site.key.redeem(code.as_bytes(), Instant::now()) {
        Some(token) => Answer::json(200, &json!({ "token": token.to_string() })),
        None => Answer::refusal(
            401,
            "this address was good once; open the one that `ic ui` printed",
        ),
    }
}

/// Makes a change.
pub fn change(site: &Arc<Site>, name: &str, body: &[u8]) -> Answer {
    match name {
        "allocate" => with(body, |ask| allocate(site, &ask)),
        "remove" => with(body, |ask| remove(site, &ask)),
        "pin" => with(body, |ask| pin(site, &ask)),
        "prune" => with(body, |ask| prune_projects(site, &ask)),
        "import" => with(body, |ask| import(site, &ask)),
        "undo" => with(body, |ask| undo(site, &ask)),
        "record" => with(body, |ask| Ok(record(site, &ask))),
        _ => Answer::refusal(404, "there is nothing here"),
    }
}

fn with<Q: DeserializeOwned>(
    body: &[u8],
    answer: impl FnOnce(Q) -> Result<Answer, Failure>,
) -> Answer {
    let Ok(question) = serde_json::from_slice(body) else {
        return not_understood();
    };
    answer(question).unwrap_or_else(|failure| failed(&failure))
}

fn not_understood() -> Answer {
    Answer::refusal(400, "the question is not understood; reload the page")
}

fn failed(failure: &Failure) -> Answer {
    let status = match failure.exit {
        Exit::BadUsage => 400,
        Exit::No => 404,
        _ => 500,
    };
    Answer::refusal(status, failure.to_string())
}

#[derive(Deserialize)]
struct Allocate {
    path: String,
    #[serde(default)]
    pinned: bool,
}

fn allocate(site: &Site, ask: &Allocate) -> Result<Answer, Failure> {
    let project = typed(&ask.path)?;
    let place = &site.desk.place;
    let give = |registry: &mut Registry| {
        let given = place.give(registry, &project)?;
        if ask.pinned {
            registry.pin(&project, true);
        }
        Ok(given)
    };
    let label = |_: &_| format!("Allocated a port for {}", name(project.path()));
    let (given, done) = site.desk.change(give, label)?;
    let given = given.map_err(|exhausted: crate::registry::Exhausted| {
        Failure::could_not(exhausted.to_string())
    })?;
    Ok(changed(
        json!({
            "project": name(project.path()),
            "path": raw::to_text(project.path().as_os_str()),
            "port": given.allocated.port,
            "created": given.allocated.created,
            "missing": !project.path().exists(),
            "pruned": Prunes::new(&given.pruned, false),
        }),
        done,
    ))
}

/// A project as a person types it. White space around it is most often a slip, but folders can have it in their names.
fn typed(text: &str) -> Result<Project, Failure> {
    let path = match whole(text) {
        Ok(path) if path.exists() => path,
        _ => whole(text.trim())?,
    };
    refuse_no_folder(&path)?;
    Project::resolve(&path).map_err(|error| {
        Failure::usage(format!(
            "cannot resolve `{}`: {}",
            escaped_path(&path),
            io_message(&error)
        ))
    })
}

/// The whole path: there is no current folder that a page could be in.
fn whole(text: &str) -> Result<PathBuf, Failure> {
    let path = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => dirs::home_dir()
            .map(|home| home.join(raw::from_text(rest.trim_start_matches('/'))))
            .ok_or_else(|| Failure::usage("there is no home folder; give the whole path"))?,
        _ => PathBuf::from(raw::from_text(text)),
    };
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Failure::usage(
            "give the project's whole path, beginning with `/` or `~/`",
        ))
    }
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

fn remove(site: &Site, ask: &Remove) -> Result<Answer, Failure> {
    let project = recorded(&ask.path)?;
    let label = |_: &_| format!("Removed {}", name(project.path()));
    let (removed, done) = site
        .desk
        .change(|registry| registry.remove(&project), label)?;
    let port = removed.ok_or_else(|| gone(&project))?;
    Ok(changed(json!({ "port": port }), done))
}

#[derive(Deserialize)]
struct Pin {
    path: String,
    pinned: bool,
}

fn pin(site: &Site, ask: &Pin) -> Result<Answer, Failure> {
    let project = recorded(&ask.path)?;
    let pin = |registry: &mut Registry| {
        registry.pin(&project, ask.pinned);
        registry.port_of(&project)
    };
    let verb = if ask.pinned { "Pinned" } else { "Unpinned" };
    let label = |_: &_| format!("{verb} {}", name(project.path()));
    let (port, done) = site.desk.change(pin, label)?;
    port.ok_or_else(|| gone(&project))?;
    Ok(changed(json!({ "pinned": ask.pinned }), done))
}

/// A project as the page was told of it.
fn recorded(path: &str) -> Result<Project, Failure> {
    Project::recorded(Path::new(&raw::from_text(path)))
        .ok_or_else(|| Failure::usage("the path is not absolute"))
}

fn gone(project: &Project) -> Failure {
    Failure::no(format!(
        "no port is assigned to `{}` any more",
        escaped_path(project.path())
    ))
}

#[derive(Deserialize)]
struct Prune {
    /// As `--unused-for` has it.
    unused_for: Option<String>,
    dry_run: bool,
}

fn prune_projects(site: &Site, ask: &Prune) -> Result<Answer, Failure> {
    let recycling = match &ask.unused_for {
        Some(time) => Some(unused_for(SourcedValue::argument(time).period()?)),
        None => None,
    };
    if ask.dry_run {
        let pruned = prune(&mut site.desk.place.read()?, recycling);
        return Ok(Answer::json(200, &Prunes::new(&pruned, true)));
    }
    let label = |pruned: &Vec<_>| format!("Pruned {}", mappings(pruned.len()));
    let (pruned, done) = site
        .desk
        .change(|registry| prune(registry, recycling), label)?;
    Ok(changed(document(&Prunes::new(&pruned, false)), done))
}

#[derive(Deserialize)]
struct Import {
    /// The file's name, for a person.
    name: String,
    /// The file, each byte as one character (U+0000 to U+00FF): it need not be text.
    bytes: String,
    /// The file wins conflicts.
    replace: bool,
    dry_run: bool,
}

fn import(site: &Site, ask: &Import) -> Result<Answer, Failure> {
    let bytes: Option<Vec<u8>> = ask
        .bytes
        .chars()
        .map(|byte| u8::try_from(byte).ok())
        .collect();
    let Some(bytes) = bytes else {
        return Ok(not_understood());
    };
    let named = format!("`{}`", ask.name);
    let Readable { registry, warning } = readable(&bytes, &named)?;
    let winner = if ask.replace {
        Winner::Theirs
    } else {
        Winner::Nobody
    };
    let (imported, done) = if ask.dry_run {
        (site.desk.place.read()?.import(&registry, winner), None)
    } else {
        let label = |imported: &crate::registry::import::Import| {
            format!(
                "Imported {}",
                mappings(imported.added.len() + imported.moved.len())
            )
        };
        site.desk
            .change(|here| here.import(&registry, winner), label)?
    };
    let mut answer = document(&Imports::new(&imported, ask.dry_run));
    answer["warning"] = json!(warning);
    Ok(changed(answer, done))
}

#[derive(Deserialize)]
struct Undo {
    id: u64,
}

fn undo(site: &Site, ask: &Undo) -> Result<Answer, Failure> {
    Ok(match site.desk.undo(ask.id)? {
        Undone::Done(done) => Answer::json(200, &json!({ "undone": done })),
        Undone::Unknown => Answer::refusal(404, "this was taken back already"),
        Undone::TooOld => Answer::refusal(
            404,
            format!("too old to be undone: only the latest {PAST_MAX} changes can be"),
        ),
        Undone::InTheWay(obstacles) => {
            let lines: Vec<String> = obstacles.iter().map(told).collect();
            let error = "cannot be undone: something has changed since";
            Answer::json(409, &json!({ "error": error, "obstacles": lines }))
        }
    })
}

fn told(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::PortOf { path, port, owner } => {
            format!(
                "{}: port {port} belongs to {} now",
                escaped_path(path),
                escaped_path(owner)
            )
        }
        Obstacle::Changed {
            path,
            port: Some(port),
        } => format!(
            "{}: has been changed again (port {port})",
            escaped_path(path)
        ),
        Obstacle::Changed { path, port: None } => {
            format!("{}: has no port any more", escaped_path(path))
        }
    }
}

#[derive(Deserialize)]
struct Record {
    /// The interceptor's.
    pid: u32,
    on: bool,
}

fn record(site: &Site, ask: &Record) -> Answer {
    let recorded = match &site.feeds {
        Some(folder) => relay::record(folder, ask.pid, ask.on),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    match recorded {
        Ok(()) => Answer::json(200, &json!({ "recording": ask.on })),
        Err(error) => Answer::refusal(
            500,
            format!(
                "the interceptor with pid {} does not take notice: {}; is it still running?",
                ask.pid,
                io_message(&error)
            ),
        ),
    }
}

/// An answer, and what takes back what was done.
fn changed(mut answer: Value, done: Option<Done>) -> Answer {
    answer["undo"] = json!(done);
    Answer::json(200, &answer)
}

fn document(answer: &impl serde::Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}
