//! What the Python tool's format has no place for: when a project's port was last used, whether it is pinned to it, and
//! which port a project had whose mapping was pruned.
//!
//! All of it lies in one top-level field, `ic`, which the Python tool keeps as it keeps every field that it does not know.
//! Losing it is no damage: a project without a note is one of which nothing is known. So what cannot be understood there
//! is left as it stands, and never makes a registry a damaged one.
//!
//! A note is an object under the project's path. It could not be a bare number: torn text is searched for `"path": number`,
//! and what a project once had must not be read as what it has.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::json::{self, decode_path, object_text};
use super::model::Registry;
use super::port::Port;
use super::project::Project;

/// A moment, in whole seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_secs())
    }
}

impl Timestamp {
    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// How long before `now` this was; nothing where it lies in the future.
    pub fn age(self, now: Timestamp) -> Duration {
        Duration::from_secs(now.0.saturating_sub(self.0))
    }
}

/// What is known of a project beside its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// When its port was last used.
    pub last_used: Option<Timestamp>,
    /// It keeps its port, however long it is not used.
    pub is_pinned: bool,
    /// The port that it had before its mapping was pruned.
    pub former_port: Option<Port>,
}

impl Registry {
    /// What is known of the project recorded under `path`.
    pub fn note(&self, path: &Path) -> Note {
        self.notes().get(path)
    }

    /// What is known of all projects.
    pub fn notes(&self) -> Notes {
        Notes::of(self.field(FIELD))
    }

    /// Records that the project's port is used at `now`; nothing where it has none, or where the last use that is
    /// recorded is less than `grain` ago.
    pub fn touch(&mut self, project: &Project, now: Timestamp, grain: Duration) {
        let mut notes = self.notes();
        let known = notes.get(project.path()).last_used;
        // A clock that was wrong for a while must not make a port look used for years to come.
        let is_fresh = |known: Timestamp| known.0.abs_diff(now.0) < grain.as_secs().max(1);
        if self.port_of(project).is_none() || known.is_some_and(is_fresh) {
            return;
        }
        notes.set(project.path(), LAST_USED, Some(now.0.to_string()));
        self.put(notes);
    }

    /// Pins the project to its port, or unpins it; nothing where it has none.
    pub fn pin(&mut self, project: &Project, is_pinned: bool) {
        let mut notes = self.notes();
        let is_so = notes.get(project.path()).is_pinned == is_pinned;
        if is_so || self.port_of(project).is_none() {
            return;
        }
        notes.set(project.path(), PINNED, is_pinned.then(|| "true".to_owned()));
        self.put(notes);
    }

    /// Takes over what is known of these projects from another registry, in the place of what is known here.
    pub(super) fn take_notes<'a>(&mut self, theirs: impl IntoIterator<Item = (&'a Path, Note)>) {
        let theirs: Vec<_> = theirs.into_iter().collect();
        let mut notes = self.notes();
        notes.forget_all(theirs.iter().map(|(path, _)| *path));
        for (path, note) in theirs {
            let mut entry = Entry::of(path);
            let mut note_down = |name: &str, value| {
                entry.members.push((json::encode(name.as_bytes()), value));
            };
            if let Some(moment) = note.last_used {
                note_down(LAST_USED, moment.0.to_string());
            }
            if note.is_pinned {
                note_down(PINNED, "true".to_owned());
            }
            notes.projects.push(entry);
        }
        self.put(notes);
    }

    /// Forgets everything about these projects but the ports that they had.
    pub(super) fn remember_only_ports<'a>(
        &mut self,
        had: impl IntoIterator<Item = (&'a Path, Port)>,
    ) {
        let had: Vec<_> = had.into_iter().collect();
        let mut notes = self.notes();
        // Forgotten first, so that they stand last: the first are the first to go.
        notes.forget_all(had.iter().map(|(path, _)| *path));
        for (path, port) in had {
            let mut entry = Entry::of(path);
            let name = json::encode(FORMER_PORT.as_bytes());
            entry.members.push((name, port.to_string()));
            notes.projects.push(entry);
        }
        self.put(notes);
    }

    /// Forgets the port that a project had, which has one now.
    pub(super) fn forget_former_port(&mut self, path: &Path) {
        let mut notes = self.notes();
        if notes.get(path).former_port.is_some() {
            notes.set(path, FORMER_PORT, None);
            self.put(notes);
        }
    }

    /// Forgets everything about a project.
    pub(super) fn forget(&mut self, path: &Path) {
        let mut notes = self.notes();
        if notes.forget(path) {
            self.put(notes);
        }
    }

    /// Forgets everything about all projects.
    pub(super) fn forget_all(&mut self) {
        let mut notes = self.notes();
        if !notes.projects.is_empty() {
            notes.projects.clear();
            self.put(notes);
        }
    }

    /// What the file has of these notes, to be compared.
    pub(super) fn notes_text(&self) -> Option<&str> {
        self.field(FIELD)
    }

    /// Writes the notes, without outdated ones.
    fn put(&mut self, mut notes: Notes) {
        let mapped: HashSet<&Path> = self
            .mappings
            .iter()
            .map(|mapping| mapping.path.as_path())
            .collect();
        let is_former =
            |entry: &Entry| !mapped.contains(entry.path.as_path()) && entry.former_port().is_some();
        let former = notes
            .projects
            .iter()
            .filter(|entry| is_former(entry))
            .count();
        let mut too_many = former.saturating_sub(FORMER_MAX);
        notes.projects.retain(|entry| {
            if mapped.contains(entry.path.as_path()) {
                return !entry.members.is_empty();
            }
            let stays = is_former(entry) && too_many == 0;
            too_many = too_many.saturating_sub(usize::from(is_former(entry)));
            stays
        });
        if notes.projects.is_empty() && notes.others.is_empty() && self.field(FIELD).is_none() {
            return;
        }
        self.set_field(FIELD, notes.text());
    }
}

/// The notes on all projects, as the file has them.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    projects: Vec<Entry>,
    /// The field's other members, JSON text.
    others: Vec<(String, String)>,
}

/// What the file has under one project's path: also members that are others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The path as the file spells it, as JSON text.
    key: String,
    path: PathBuf,
    /// Names and values, JSON text; ours and others'.
    members: Vec<(String, String)>,
}

impl Notes {
    fn of(text: Option<&str>) -> Notes {
        let mut notes = Notes::default();
        for (key, value) in members(text.unwrap_or_default()) {
            if json::decode(&key) != PROJECTS.as_bytes() {
                notes.others.push((key, value));
                continue;
            }
            notes
                .projects
                .extend(members(&value).into_iter().map(|(key, value)| Entry {
                    path: decode_path(&key),
                    key,
                    members: members(&value),
                }));
        }
        notes
    }

    /// What is known of the project recorded under `path`.
    pub fn get(&self, path: &Path) -> Note {
        let entry = self.projects.iter().find(|entry| entry.path == path);
        entry.map(Entry::note).unwrap_or_default()
    }

    /// All of them, by the project's path.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Note)> {
        self.projects
            .iter()
            .map(|entry| (entry.path.as_path(), entry.note()))
    }

    /// Sets one member of a project's note, or takes it away.
    fn set(&mut self, path: &Path, name: &str, value: Option<String>) {
        let at = self.projects.iter().position(|entry| entry.path == path);
        let entry = match (at, &value) {
            (Some(at), _) => &mut self.projects[at],
            (None, None) => return,
            (None, Some(_)) => {
                self.projects.push(Entry::of(path));
                let last = self.projects.len() - 1;
                &mut self.projects[last]
            }
        };
        entry
            .members
            .retain(|(key, _)| json::decode(key) != name.as_bytes());
        if let Some(value) = value {
            entry.members.push((json::encode(name.as_bytes()), value));
        }
    }

    /// Whether there was something to forget.
    fn forget(&mut self, path: &Path) -> bool {
        let before = self.projects.len();
        self.projects.retain(|entry| entry.path != path);
        self.projects.len() != before
    }

    /// Forgets many at once.
    fn forget_all<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        let paths: HashSet<&Path> = paths.collect();
        self.projects
            .retain(|entry| !paths.contains(entry.path.as_path()));
    }

    fn text(&self) -> String {
        let projects: Vec<_> = self
            .projects
            .iter()
            .map(|entry| (entry.key.as_str(), laid_out(&entry.members, "      ")))
            .collect();
        let projects = (
            json::encode(PROJECTS.as_bytes()),
            object_text(&projects, "    "),
        );
        let members: Vec<_> = std::iter::once(projects)
            .chain(self.others.iter().cloned())
            .collect();
        laid_out(&members, "  ")
    }
}

impl Entry {
    /// An empty one.
    pub(super) fn of(path: &Path) -> Entry {
        Entry {
            key: json::encode(path.as_os_str().as_encoded_bytes()),
            path: path.to_owned(),
            members: Vec::new(),
        }
    }

    pub(super) fn note(&self) -> Note {
        Note {
            last_used: self.value(LAST_USED).and_then(number).map(Timestamp),
            is_pinned: self.value(PINNED) == Some("true"),
            former_port: self.former_port(),
        }
    }

    fn former_port(&self) -> Option<Port> {
        self.value(FORMER_PORT)?.parse().ok()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let is_named = |(key, _): &&(String, String)| json::decode(key) == name.as_bytes();
        let (_, value) = self.members.iter().rev().find(is_named)?;
        Some(value)
    }
}

/// The members of an object; none where it is something else.
fn members(text: &str) -> Vec<(String, String)> {
    let members = json::object(text.as_bytes()).unwrap_or_default();
    members
        .iter()
        .map(|member| (member.key.to_owned(), member.value.to_owned()))
        .collect()
}

fn laid_out(members: &[(String, String)], indent: &str) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    object_text(&members, indent)
}

/// Digits are digits: `u64::from_str` would take `+5` too.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// The top-level field.
const FIELD: &str = "ic";
/// In it: path → note.
const PROJECTS: &str = "projects";
// In a note.
const LAST_USED: &str = "last_used";
const PINNED: &str = "pinned";
const FORMER_PORT: &str = "former_port";

/// Pruned projects whose ports are remembered. Enough for the branches and checkouts that come and go on one machine; a
/// file that only grows would slow down every command.
const FORMER_MAX: usize = 256;
