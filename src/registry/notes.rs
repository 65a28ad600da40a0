//! What the Python tool's format has no place for: when a project's port was last used, whether it is pinned, how it is served,
//! and which port a project had before its mapping was pruned.
//!
//! Stored in the top-level field `ic`, which the Python tool keeps like every unknown field. Invalid notes are ignored
//! and do not make a registry damaged.
//!
//! A note is an object under the project's path, not a bare number: a scan of torn text for `"path": number` must not take
//! a former port for a mapping.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

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

/// How a project is served, as `ic set` keeps it. Values are kept as they were given; the command line decides what they mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where requests go.
    pub target: Option<String>,
    /// The instance identifier, with its placeholders.
    pub instance_id: Option<String>,
    /// Fields to set on every request, in order.
    pub headers: Vec<Header>,
}

/// A field to set on every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, with its placeholders.
    pub value: String,
}

/// Settings in the registry that are not of this form. Their text is not shown: it may contain a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSettings;

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
        self.touch_all([project], now, grain);
    }

    /// As [`touch`](Self::touch), for several projects.
    pub fn touch_all<'a>(
        &mut self,
        projects: impl IntoIterator<Item = &'a Project>,
        now: Timestamp,
        grain: Duration,
    ) {
        let notes = self.notes();
        // A clock that was wrong for a while must not make a port look used for years to come.
        let is_fresh = |known: Timestamp| known.0.abs_diff(now.0) < grain.as_secs().max(1);
        let is_due = |project: &&Project| {
            let last_used = notes.get(project.path()).last_used;
            self.port_of(project).is_some() && !last_used.is_some_and(is_fresh)
        };
        let due: Vec<&Project> = projects.into_iter().filter(is_due).collect();
        if due.is_empty() {
            return;
        }
        self.edit_notes(|notes| {
            for project in due {
                let members = notes.members_of(project.path());
                remove(members, LAST_USED);
                members.push(Member::new(LAST_USED, now.0));
            }
        });
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

    /// Keeps how the project is served. Does nothing if it has no port.
    pub fn set_settings(&mut self, project: &Project, settings: &Settings) {
        if self.port_of(project).is_none() {
            return;
        }
        // Serialising texts cannot fail.
        let new = serde_json::to_string(settings).unwrap_or_default();
        let is_set = |value: &str| value != "null" && value != "[]";
        self.edit_notes(|notes| {
            let members = notes.members_of(project.path());
            // Members of other programs stay.
            let mut kept = json::members(json::get(members, SETTINGS).unwrap_or_default());
            for member in json::members(&new) {
                if is_set(&member.value) {
                    json::set(&mut kept, member);
                } else {
                    kept.retain(|other| other.name() != member.name());
                }
            }
            remove(members, SETTINGS);
            if !kept.is_empty() {
                members.push(Member::new(SETTINGS, object_text(&kept, "        ")));
            }
        });
    }

    /// Remembers the ports of projects whose mappings were pruned, and how they were served, at the end of the notes.
    pub(super) fn remember<'a>(&mut self, pruned: impl Iterator<Item = (&'a Path, Port)>) {
        let pruned: Vec<(&Path, Port)> = pruned.collect();
        let paths: HashSet<&Path> = pruned.iter().map(|(path, _)| *path).collect();
        self.edit_notes(|notes| {
            let (mut served, kept): (Vec<_>, _) = std::mem::take(&mut notes.projects)
                .into_iter()
                .partition(|entry| paths.contains(entry.path.as_path()));
            notes.projects = kept;
            for entry in &mut served {
                entry
                    .members
                    .retain(|member| member.name() == SETTINGS.as_bytes());
            }
            let mut served: HashMap<PathBuf, Entry> = served
                .into_iter()
                .map(|entry| (entry.path.clone(), entry))
                .collect();
            for (path, port) in &pruned {
                let mut entry = served.remove(*path).unwrap_or_else(|| Entry::new(path));
                entry.members.push(Member::new(FORMER_PORT, port));
                notes.projects.push(entry);
            }
        });
    }

    /// Gives the notes on each project to the path that `moved` returns for it.
    pub(super) fn move_notes(&mut self, moved: impl Fn(&Path) -> Option<PathBuf>) {
        self.edit_notes(|notes| {
            for entry in &mut notes.projects {
                if let Some(path) = moved(&entry.path) {
                    entry.key = json::encode(path.as_os_str().as_encoded_bytes());
                    entry.path = path;
                }
            }
        });
    }

    /// Adds the pins, the last uses and the settings in `theirs` for these projects.
    pub(super) fn add_notes(&mut self, theirs: &Notes, projects: &HashSet<&Path>) {
        self.edit_notes(|notes| {
            // Of notes on one project, the first counts.
            let places = notes.projects.iter().enumerate().rev();
            let mut places: HashMap<PathBuf, usize> =
                places.map(|(at, entry)| (entry.path.clone(), at)).collect();
            let theirs = theirs.projects.iter();
            for entry in theirs.filter(|entry| projects.contains(entry.path.as_path())) {
                let at = *places.entry(entry.path.clone()).or_insert_with(|| {
                    notes.projects.push(Entry::new(&entry.path));
                    notes.projects.len() - 1
                });
                notes.projects[at].add(entry);
            }
        });
    }

    /// Removes the former port of a project that has a port again.
    pub(super) fn forget_former_port(&mut self, path: &Path) {
        self.edit_notes(|notes| remove(notes.members_of(path), FORMER_PORT));
    }

    /// Removes the notes on these projects.
    pub(super) fn forget<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        let paths: HashSet<&Path> = paths.into_iter().collect();
        self.edit_notes(|notes| {
            notes
                .projects
                .retain(|entry| !paths.contains(entry.path.as_path()));
        });
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

    /// Returns how the project recorded under `path` is served.
    ///
    /// # Errors
    ///
    /// What is kept is not of this form; it was edited by hand, or is of a later version.
    pub fn settings(&self, path: &Path) -> Result<Settings, BadSettings> {
        match self.settings_text(path) {
            None => Ok(Settings::default()),
            Some(text) => serde_json::from_str(text).map_err(|_| BadSettings),
        }
    }

    /// Returns how projects are served, each with its path: those with settings, also ones that are not of this form.
    pub fn settings_of_all(&self) -> impl Iterator<Item = (&Path, Result<Settings, BadSettings>)> {
        self.projects.iter().filter_map(|entry| {
            let text = json::get(&entry.members, SETTINGS)?;
            let settings = serde_json::from_str(text).map_err(|_| BadSettings);
            Some((entry.path.as_path(), settings))
        })
    }

    /// Returns the projects of which both have settings that differ.
    pub(super) fn contradictions<'a>(&self, theirs: &'a Notes) -> HashSet<&'a Path> {
        let settings = |entry: &Entry| {
            let text = json::get(&entry.members, SETTINGS)?;
            serde_json::from_str::<serde_json::Value>(text).ok()
        };
        let here = self.projects.iter().rev();
        let here: HashMap<&Path, serde_json::Value> = here
            .filter_map(|entry| Some((entry.path.as_path(), settings(entry)?)))
            .collect();
        let differs = |entry: &&Entry| match (here.get(entry.path.as_path()), settings(entry)) {
            (Some(here), Some(there)) => *here != there,
            _ => false,
        };
        let differing = theirs.projects.iter().filter(differs);
        differing.map(|entry| entry.path.as_path()).collect()
    }

    fn settings_text(&self, path: &Path) -> Option<&str> {
        let entry = self.projects.iter().find(|entry| entry.path == path)?;
        json::get(&entry.members, SETTINGS)
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
            self.projects.push(Entry::new(path));
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
    fn new(path: &Path) -> Entry {
        Entry {
            key: json::encode(path.as_os_str().as_encoded_bytes()),
            path: path.to_owned(),
            members: Vec::new(),
        }
    }

    /// Adds a pin, a later use and the settings of another note on the project.
    fn add(&mut self, other: &Entry) {
        let (known, new) = (self.note(), other.note());
        if new.is_pinned {
            json::set(&mut self.members, Member::new(PINNED, true));
        }
        if let Some(Timestamp(seconds)) = new.last_used.filter(|_| new.last_used > known.last_used)
        {
            json::set(&mut self.members, Member::new(LAST_USED, seconds));
        }
        if let Some(settings) = json::get(&other.members, SETTINGS) {
            json::set(&mut self.members, Member::new(SETTINGS, settings));
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
const SETTINGS: &str = "settings";

/// The number of pruned projects whose ports are remembered: enough for the branches and checkouts that come and go on one
/// machine. A file that only grows would slow down every command.
const FORMER_MAX: usize = 256;
