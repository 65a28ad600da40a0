//! What the Python tool's format has no place for: when a project's port was last used, whether it is pinned, and which
//! port a project had before its mapping was pruned.
//!
//! Stored in the top-level field `ic`, which the Python tool keeps like every unknown field. Invalid notes are ignored
//! and do not make a registry damaged.
//!
//! A note is an object under the project's path, not a bare number: a scan of torn text for `"path": number` must not take
//! a former port for a mapping.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::json::{self, Member, decode_path, object_text};
use super::model::Registry;
use super::port::Port;
use super::project::Project;

/// A time, in whole seconds since 1970.
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

    /// The time from this until `now`; zero if this is later.
    pub fn age(self, now: Timestamp) -> Duration {
        Duration::from_secs(now.0.saturating_sub(self.0))
    }
}

/// What is recorded of a project beside its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// When its port was last used.
    pub last_used: Option<Timestamp>,
    /// Whether it keeps its port even if that is not used.
    pub is_pinned: bool,
    /// The port it had before its mapping was pruned.
    pub former_port: Option<Port>,
}

impl Registry {
    /// Returns the note on the project recorded under `path`.
    pub fn note(&self, path: &Path) -> Note {
        self.notes().get(path)
    }

    /// Returns the notes on all projects.
    pub fn notes(&self) -> Notes {
        Notes::parse(self.field(FIELD).unwrap_or_default())
    }

    /// Records that the project's port is used at `now`. Does nothing if the project has no port, or if the recorded last
    /// use is less than `grain` ago.
    pub fn touch(&mut self, project: &Project, now: Timestamp, grain: Duration) {
        let last_used = self.note(project.path()).last_used;
        // A clock that was wrong for a while must not make a port look used for years to come.
        let is_fresh = |known: Timestamp| known.0.abs_diff(now.0) < grain.as_secs().max(1);
        if self.port_of(project).is_some() && !last_used.is_some_and(is_fresh) {
            self.edit_notes(|notes| {
                let members = notes.members_of(project.path());
                remove(members, LAST_USED);
                members.push(Member::new(LAST_USED, now.0));
            });
        }
    }

    /// Pins the project to its port, or unpins it. Does nothing if it has none.
    pub fn pin(&mut self, project: &Project, is_pinned: bool) {
        if self.port_of(project).is_none() || self.note(project.path()).is_pinned == is_pinned {
            return;
        }
        self.edit_notes(|notes| {
            let members = notes.members_of(project.path());
            if is_pinned {
                json::set(members, Member::new(PINNED, true));
            } else {
                remove(members, PINNED);
            }
        });
    }

    /// Replaces the notes on these projects, and moves them to the end.
    pub(super) fn set_notes<'a>(&mut self, notes: impl IntoIterator<Item = (&'a Path, Note)>) {
        let new: Vec<Entry> = notes.into_iter().map(Entry::new).collect();
        if new.is_empty() {
            return;
        }
        self.edit_notes(|notes| {
            let paths: HashSet<&Path> = new.iter().map(|entry| entry.path.as_path()).collect();
            notes
                .projects
                .retain(|entry| !paths.contains(entry.path.as_path()));
            notes.projects.extend(new.iter().cloned());
        });
    }

    /// Adds the pins and the last uses in `theirs` for these projects.
    pub(super) fn add_notes(&mut self, theirs: &Notes, projects: &HashSet<&Path>) {
        self.edit_notes(|notes| {
            for (path, note) in theirs.iter().filter(|(path, _)| projects.contains(path)) {
                let known = notes.get(path);
                let members = notes.members_of(path);
                if note.is_pinned {
                    json::set(members, Member::new(PINNED, true));
                }
                if let Some(Timestamp(seconds)) =
                    note.last_used.filter(|_| note.last_used > known.last_used)
                {
                    json::set(members, Member::new(LAST_USED, seconds));
                }
            }
        });
    }

    /// Removes the former port of a project that has a port again.
    pub(super) fn forget_former_port(&mut self, path: &Path) {
        self.edit_notes(|notes| remove(notes.members_of(path), FORMER_PORT));
    }

    /// Removes the note on a project.
    pub(super) fn forget(&mut self, path: &Path) {
        self.set_notes([(path, Note::default())]);
    }

    /// Removes the notes on all projects.
    pub(super) fn forget_all(&mut self) {
        self.edit_notes(|notes| notes.projects.clear());
    }

    /// Changes the notes, and removes those that are not needed: empty ones, those on projects without a port or a former
    /// port, and the oldest former ports over [`FORMER_MAX`].
    fn edit_notes(&mut self, edit: impl FnOnce(&mut Notes)) {
        let before = self.notes();
        let mut notes = before.clone();
        edit(&mut notes);
        let mapped: HashSet<&Path> = self
            .mappings
            .iter()
            .map(|mapping| mapping.path.as_path())
            .collect();
        notes.projects.retain(|entry| {
            let is_mapped = mapped.contains(entry.path.as_path());
            !entry.members.is_empty() && (is_mapped || entry.note().former_port.is_some())
        });
        let is_former = |entry: &Entry| !mapped.contains(entry.path.as_path());
        let former = notes.projects.iter().filter(|&entry| is_former(entry));
        let mut too_many = former.count().saturating_sub(FORMER_MAX);
        notes.projects.retain(|entry| {
            let is_dropped = is_former(entry) && too_many > 0;
            too_many -= usize::from(is_dropped);
            !is_dropped
        });
        if notes != before {
            self.set_field(Member::new(FIELD, notes.to_text()));
        }
    }
}

/// The notes on all projects, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    projects: Vec<Entry>,
    /// The field's other members.
    others: Vec<Member>,
}

/// The note on a project, with members of other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The path as the file spells it, as JSON text.
    key: String,
    path: PathBuf,
    members: Vec<Member>,
}

impl Notes {
    fn parse(text: &str) -> Notes {
        let (projects, others): (Vec<_>, Vec<_>) = json::members(text)
            .into_iter()
            .partition(|member| member.name() == PROJECTS.as_bytes());
        let projects = projects
            .iter()
            .flat_map(|projects| json::members(&projects.value))
            .map(|Member { key, value }| Entry {
                path: decode_path(&key),
                key,
                members: json::members(&value),
            });
        Notes {
            projects: projects.collect(),
            others,
        }
    }

    /// Returns the note on the project recorded under `path`.
    pub fn get(&self, path: &Path) -> Note {
        let entry = self.projects.iter().find(|entry| entry.path == path);
        entry.map(Entry::note).unwrap_or_default()
    }

    /// Returns all notes, each with the project's path.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Note)> {
        self.projects
            .iter()
            .map(|entry| (entry.path.as_path(), entry.note()))
    }

    fn members_of(&mut self, path: &Path) -> &mut Vec<Member> {
        let found = self.projects.iter().position(|entry| entry.path == path);
        let at = found.unwrap_or_else(|| {
            self.projects.push(Entry::new((path, Note::default())));
            self.projects.len() - 1
        });
        &mut self.projects[at].members
    }

    fn to_text(&self) -> String {
        let projects: Vec<_> = self
            .projects
            .iter()
            .map(|entry| Member {
                key: entry.key.clone(),
                value: object_text(&entry.members, "      "),
            })
            .collect();
        let mut members = vec![Member::new(PROJECTS, object_text(&projects, "    "))];
        members.extend(self.others.iter().cloned());
        object_text(&members, "  ")
    }
}

impl Entry {
    fn new((path, note): (&Path, Note)) -> Entry {
        let members = [
            note.last_used
                .map(|Timestamp(seconds)| Member::new(LAST_USED, seconds)),
            note.is_pinned.then(|| Member::new(PINNED, true)),
            note.former_port.map(|port| Member::new(FORMER_PORT, port)),
        ];
        Entry {
            key: json::encode(path.as_os_str().as_encoded_bytes()),
            path: path.to_owned(),
            members: members.into_iter().flatten().collect(),
        }
    }

    fn note(&self) -> Note {
        let value = |name| json::get(&self.members, name);
        Note {
            last_used: value(LAST_USED)
                .and_then(|text| text.parse().ok())
                .map(Timestamp),
            is_pinned: value(PINNED) == Some("true"),
            former_port: value(FORMER_PORT).and_then(|text| text.parse().ok()),
        }
    }
}

fn remove(members: &mut Vec<Member>, name: &str) {
    members.retain(|member| member.name() != name.as_bytes());
}

/// The top-level field.
pub(super) const FIELD: &str = "ic";
/// In it: path → note.
const PROJECTS: &str = "projects";
// In a note.
const LAST_USED: &str = "last_used";
const PINNED: &str = "pinned";
const FORMER_PORT: &str = "former_port";

/// The number of pruned projects whose ports are remembered: enough for the branches and checkouts that come and go on one
/// machine. A file that only grows would slow down every command.
const FORMER_MAX: usize = 256;
