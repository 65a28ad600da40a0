//! The registry as a value: the mappings of projects to ports, the other fields of its file, and its text. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::damage::{Damage, Issue};
use super::json::{self, Member, decode_path, object_text};
use super::port::{FETCH_BAD_PORTS, Port, PortRange};
use super::project::Project;

/// The mappings of projects to ports, and everything else in the registry file.
///
/// No port occurs twice, and every path is absolute. Equal registries have the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Every top-level field, in the file's order. The value of `mappings` is empty here.
    pub(super) fields: Vec<Member>,
    /// In the file's order. At most 65,535, so a linear search is cheap.
    pub(super) mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The path as it is spelled in the file, JSON text: one path has many spellings.
    key: String,
    pub(super) path: PathBuf,
    pub(super) port: Port,
}

impl Registry {
    /// The fields of the Python tool's format, except for the mappings.
    pub(super) const KNOWN: [&'static str; 3] = [VERSION, PORT_RANGE, NEXT_AVAILABLE];

    /// Reads the registry file's text.
    ///
    /// An empty text is an empty registry. A byte order mark, UTF-16 behind one, ports in quotes or as `8888.0`, missing fields, a
    /// foreign `version`, and an invalid `port_range` or `next_available` are accepted.
    ///
    /// # Errors
    ///
    /// The text is not one JSON object, `mappings` is not an object, a path is relative, a value is not a port, or a port
    /// or a path occurs twice. [`recover`](super::recover::recover) reads what is left.
    pub fn parse(text: &[u8]) -> Result<Registry, Damage> {
        let text = &*json::utf_8(text);
        if text.trim_ascii().is_empty() {
            return Ok(Registry::default());
        }
        let fields = json::object(text).map_err(|error| {
            // The message would quote the text.
            Damage::Torn(if error.is_data() {
                "it is not a JSON object".to_owned()
            } else {
                error.to_string()
            })
        })?;
        let (registry, issues) = Registry::admit_fields(fields);
        if issues.is_empty() {
            Ok(registry)
        } else {
            Err(Damage::Inconsistent(issues))
        }
    }

    /// Returns the registry of these top-level fields, and what in them cannot be used.
    pub(super) fn admit_fields(members: Vec<Member>) -> (Registry, Vec<Issue>) {
        let mut fields: Vec<Member> = Vec::new();
        let mut issues = Vec::new();
        let mut entries = Vec::new();
        let mut has_mappings = false;
        for member in members {
            if member.name() != MAPPINGS.as_bytes() {
                fields.push(member);
                continue;
            }
            match json::object(member.value.as_bytes()) {
                Ok(more) => entries.extend(more),
                Err(_) => issues.push(Issue::MappingsNoObject),
            }
            if has_mappings {
                // JSON readers use the last one; the next rewrite would lose the mappings of the others.
                issues.push(Issue::MappingsTwice);
            } else {
                fields.push(Member::new(MAPPINGS, ""));
            }
            has_mappings = true;
        }
        let (mappings, more_issues) = admit_mappings(entries, Repeated::LastCounts);
        issues.extend(more_issues);
        (Registry { fields, mappings }, issues)
    }

    /// Returns the text of the file in the layout of Python's `json.dump(…, indent=2)`, without a final line break. Unknown
    /// fields are unchanged.
    pub fn to_text(&self) -> String {
        let entries: Vec<_> = self
            .mappings
            .iter()
            .map(|mapping| Member {
                key: mapping.key.clone(),
                value: mapping.port.to_string(),
            })
            .collect();
        let mut fields = self.fields.clone();
        // The Python tool needs each of its fields.
        for field in Registry::new_file().fields {
            if !fields.iter().any(|present| present.name() == field.name()) {
                fields.push(field);
            }
        }
        let mappings = object_text(&entries, "  ");
        json::set(&mut fields, Member::new(MAPPINGS, mappings));
        object_text(&fields, "")
    }

    /// Whether the text had a `mappings` field, even an empty one: other JSON documents do not.
    pub fn has_mappings_field(&self) -> bool {
        self.field(MAPPINGS).is_some()
    }

    /// The port of a project, if it has one.
    pub fn port_of(&self, project: &Project) -> Option<Port> {
        self.mappings
            .iter()
            .find(|mapping| mapping.path == project.path())
            .map(|mapping| mapping.port)
    }

    /// Returns the first of these projects that has a port, with its port.
    pub fn first_of<'a>(
        &self,
        mut projects: impl Iterator<Item = &'a Project>,
    ) -> Option<(&'a Project, Port)> {
        projects.find_map(|project| Some((project, self.port_of(project)?)))
    }

    /// Returns the nearest folder above the project's that has a port, with its port.
    pub fn nearest_above(&self, project: &Project) -> Option<(&Path, Port)> {
        let path = project.path();
        self.mappings
            .iter()
            .filter(|mapping| mapping.path != path && path.starts_with(&mapping.path))
            .max_by_key(|mapping| mapping.path.as_os_str().len())
            .map(|mapping| (mapping.path.as_path(), mapping.port))
    }

    /// The project that has this port, if any.
    pub fn path_of(&self, port: Port) -> Option<&Path> {
        self.mappings
            .iter()
            .find(|mapping| mapping.port == port)
            .map(|mapping| mapping.path.as_path())
    }

    /// All mappings, the lowest port first.
    pub fn mappings(&self) -> impl Iterator<Item = (&Path, Port)> {
        let mut mappings: Vec<_> = self
            .mappings
            .iter()
            .map(|mapping| (mapping.path.as_path(), mapping.port))
            .collect();
        mappings.sort_unstable_by_key(|&(_, port)| port);
        mappings.into_iter()
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there is no mapping.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Returns the number of assigned ports in `range`. Mappings outside it are valid: the range limits only new ports.
    pub fn assigned_in(&self, range: PortRange) -> u32 {
        self.mappings
            .iter()
            .map(|mapping| u32::from(range.contains(mapping.port)))
            .sum()
    }

    /// Returns the number of ports in `range` that are not assigned and that [browsers refuse](Port::is_bad_for_fetch).
    pub(super) fn bad_in(&self, range: PortRange) -> u32 {
        let bad = FETCH_BAD_PORTS
            .iter()
            .filter_map(|&number| Port::try_from(number).ok());
        bad.map(|port| u32::from(range.contains(port) && self.path_of(port).is_none()))
            .sum()
    }

    /// Returns the number of ports in `range` that could be assigned, whether or not a program uses them.
    pub fn unassigned_in(&self, range: PortRange) -> u32 {
        range.len() - self.assigned_in(range) - self.bad_in(range)
    }

    /// Returns the port at which the next search starts: the recorded `next_available`, or the start of the range if that
    /// is outside of it or not a port.
    pub fn next_in(&self, range: PortRange) -> Port {
        self.field(NEXT_AVAILABLE)
            .and_then(|text| text.parse().ok())
            .filter(|&port| range.contains(port))
            .unwrap_or(range.start())
    }

    pub(super) fn by_path(&self) -> HashMap<&Path, Port> {
        self.mappings
            .iter()
            .map(|mapping| (mapping.path.as_path(), mapping.port))
            .collect()
    }

    /// Returns a registry with the fields of a new file.
    fn new_file() -> Registry {
        let mut registry = Registry {
            fields: vec![Member::new(VERSION, "\"1.0\"")],
            mappings: Vec::new(),
        };
        registry.record(PortRange::DEFAULT, PortRange::DEFAULT.start());
        registry.fields.insert(2, Member::new(MAPPINGS, ""));
        registry
    }

    pub(super) fn record(&mut self, range: PortRange, next: Port) {
        let mut members = json::members(self.field(PORT_RANGE).unwrap_or_default());
        json::set(&mut members, Member::new("start", range.start()));
        json::set(&mut members, Member::new("end", range.end()));
        self.set_field(Member::new(PORT_RANGE, object_text(&members, "  ")));
        self.set_field(Member::new(NEXT_AVAILABLE, next));
    }

    /// Returns the text of a top-level field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        json::get(&self.fields, name)
    }

    pub(super) fn set_field(&mut self, field: Member) {
        json::set(&mut self.fields, field);
    }
}

impl Default for Registry {
    /// An empty registry without `next_available`: the first search starts at the start of the range.
    fn default() -> Self {
        let mut registry = Registry::new_file();
        registry.fields.truncate(3);
        registry
    }
}

impl Mapping {
    pub(super) fn new(path: &Path, port: Port) -> Mapping {
        Mapping {
            key: json::encode(path.as_os_str().as_bytes()),
            path: path.to_owned(),
            port,
        }
    }
}

/// Returns the valid mappings among these entries of a `mappings` object, in order, and what is wrong with the others.
/// The first of two paths with one port keeps it.
pub(super) fn admit_mappings(
    entries: Vec<Member>,
    repeated: Repeated,
) -> (Vec<Mapping>, Vec<Issue>) {
    let mut issues = Vec::new();
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut places: HashMap<PathBuf, usize> = HashMap::new();
    for Member { key, value } in entries {
        let path = decode_path(&key);
        if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
            issues.push(Issue::NotAbsolute { path });
            continue;
        }
        let Some(port) = json::port(&value) else {
            issues.push(Issue::NoPort { path, value });
            continue;
        };
        match places.entry(path.clone()) {
            Entry::Vacant(place) => {
                place.insert(mappings.len());
                mappings.push(Mapping { key, path, port });
            }
            Entry::Occupied(place) => {
                let earlier = &mut mappings[*place.get()].port;
                let (kept, dropped) = match repeated {
                    Repeated::LastCounts => (port, std::mem::replace(earlier, port)),
                    Repeated::FirstCounts => (*earlier, port),
                };
                issues.push(Issue::PathTwice {
                    path,
                    kept,
                    dropped,
                });
            }
        }
    }
    let mut owners: HashMap<Port, PathBuf> = HashMap::new();
    mappings.retain(|Mapping { path, port, .. }| match owners.entry(*port) {
        Entry::Vacant(owner) => {
            owner.insert(path.clone());
            true
        }
        Entry::Occupied(owner) => {
            issues.push(Issue::PortTwice {
                port: *port,
                kept: owner.get().clone(),
                dropped: path.clone(),
            });
            false
        }
    });
    (mappings, issues)
}

/// Which port counts for a path that occurs twice.
#[derive(Clone, Copy)]
pub(super) enum Repeated {
    /// The last, in valid JSON: as in other JSON readers, including the Python tool.
    LastCounts,
    /// The first, in a torn text: the rest may be left over from an older text.
    FirstCounts,
}

// The fields of the Python tool's format.
const VERSION: &str = "version";
const PORT_RANGE: &str = "port_range";
pub(super) const MAPPINGS: &str = "mappings";
const NEXT_AVAILABLE: &str = "next_available";
