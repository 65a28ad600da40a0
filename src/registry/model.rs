//! The registry as a value: the mappings of projects to ports, the other fields of its file, and its text. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::damage::{Damage, Issue};
use super::json::{self, decode_path, object_text};
use super::port::{Port, PortRange};
use super::project::Project;

/// The mappings of projects to ports, and everything else in the registry file.
///
/// No port occurs twice, and every path is absolute. Equal registries have the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Every top-level field, in the file's order.
    pub(super) fields: Vec<Field>,
    /// In the file's order. At most 65,535, so a linear search is cheap.
    pub(super) mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    /// Stands for the mappings, to keep their position among the fields.
    Mappings,
    /// Any other field; both parts are JSON text.
    Other { key: String, value: String },
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
    /// An empty text is an empty registry. A byte order mark, missing fields, a foreign `version`, and an invalid
    /// `port_range` or `next_available` are accepted.
    ///
    /// # Errors
    ///
    /// The text is not one JSON object, `mappings` is not an object, a path is relative, a value is not a port, or a port
    /// or a path occurs twice. [`recover`](super::recover::recover) reads what is left.
    pub fn parse(text: &[u8]) -> Result<Registry, Damage> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if text.trim_ascii().is_empty() {
            return Ok(Registry::default());
        }
        let (registry, issues) = Registry::admit_fields(&json::object(text).map_err(Damage::Torn)?);
        if issues.is_empty() {
            Ok(registry)
        } else {
            Err(Damage::Inconsistent(issues))
        }
    }

    /// Returns the registry of these top-level fields, and what in them cannot be used.
    pub(super) fn admit_fields(members: &[json::Member<'_>]) -> (Registry, Vec<Issue>) {
        let mut registry = Registry {
            fields: Vec::new(),
            mappings: Vec::new(),
        };
        let mut issues = Vec::new();
        let mut entries = Vec::new();
        let mut seen = false;
        for member in members {
            if json::decode(member.key) != MAPPINGS.as_bytes() {
                registry.fields.push(Field::other(member.key, member.value));
                continue;
            }
            match json::object(member.value.as_bytes()) {
                Ok(more) => entries.extend(more),
                Err(_) => issues.push(Issue::MappingsNoObject),
            }
            if seen {
                // JSON readers use the last one; the next rewrite would lose the mappings of the others.
                issues.push(Issue::MappingsTwice);
            } else {
                registry.fields.push(Field::Mappings);
            }
            seen = true;
        }
        let (mappings, more_issues) = admit_mappings(entries, Repeated::LastCounts);
        registry.mappings = mappings;
        issues.extend(more_issues);
        (registry, issues)
    }

    /// Returns the text of the file in the layout of Python's `json.dump(…, indent=2)`, without a final line break. Unknown
    /// fields are unchanged.
    pub fn to_text(&self) -> String {
        let mut complete = self.fields.clone();
        // The Python tool needs each of its fields.
        for field in Registry::written().fields {
            if !self.fields.iter().any(|present| present.is(&field)) {
                complete.push(field);
            }
        }
        let fields: Vec<_> = complete
            .iter()
            .map(|field| match field {
                Field::Mappings => ("\"mappings\"", self.mappings_text()),
                Field::Other { key, value } => (key.as_str(), value.clone()),
            })
            .collect();
        object_text(&fields, "")
    }

    fn mappings_text(&self) -> String {
        let entries: Vec<_> = self
            .mappings
            .iter()
            .map(|mapping| (mapping.key.as_str(), mapping.port.to_string()))
            .collect();
        object_text(&entries, "  ")
    }

    /// Whether the text had a `mappings` field, even an empty one: other JSON documents do not.
    pub fn has_mappings_field(&self) -> bool {
        self.fields
            .iter()
            .any(|field| matches!(field, Field::Mappings))
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
    fn written() -> Registry {
        let mut registry = Registry {
            fields: Vec::new(),
            mappings: Vec::new(),
        };
        registry.set_field(VERSION, json::encode(b"1.0"));
        registry.record(PortRange::DEFAULT, PortRange::DEFAULT.start());
        registry.fields.insert(2, Field::Mappings);
        registry
    }

    pub(super) fn record(&mut self, range: PortRange, next: Port) {
        let inside = self
            .field(PORT_RANGE)
            .and_then(|text| json::object(text.as_bytes()).ok());
        let mut members: Vec<_> = inside
            .unwrap_or_default()
            .into_iter()
            .map(|member| (member.key.to_owned(), member.value.to_owned()))
            .collect();
        for (name, port) in [("start", range.start()), ("end", range.end())] {
            let same = |(key, _): &&mut (String, String)| json::decode(key) == name.as_bytes();
            match members.iter_mut().rev().find(same) {
                Some((_, value)) => *value = port.to_string(),
                None => members.push((json::encode(name.as_bytes()), port.to_string())),
            }
        }
        let members: Vec<_> = members
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        self.set_field(PORT_RANGE, object_text(&members, "  "));
        self.set_field(NEXT_AVAILABLE, next.to_string());
    }

    /// Returns the text of a top-level field; the last one if it is repeated, as in other JSON readers.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find_map(|field| match field {
            Field::Other { key, value } if json::decode(key) == name.as_bytes() => {
                Some(value.as_str())
            }
            _ => None,
        })
    }

    pub(super) fn set_field(&mut self, name: &str, text: String) {
        let field = Field::Other {
            key: json::encode(name.as_bytes()),
            value: text,
        };
        match self
            .fields
            .iter_mut()
            .rev()
            .find(|present| present.is(&field))
        {
            Some(present) => *present = field,
            None => self.fields.push(field),
        }
    }
}

impl Default for Registry {
    /// An empty registry without `next_available`: the first search starts at the start of the range.
    fn default() -> Self {
        let mut registry = Registry::written();
        registry.fields.truncate(3);
        registry
    }
}

impl Field {
    pub(super) fn other(key: &str, value: &str) -> Field {
        Field::Other {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    /// Whether both have the same name, in any spelling.
    fn is(&self, other: &Field) -> bool {
        match (self, other) {
            (Field::Mappings, Field::Mappings) => true,
            (Field::Other { key, .. }, Field::Other { key: other, .. }) => {
                json::decode(key) == json::decode(other)
            }
            _ => false,
        }
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
pub(super) fn admit_mappings<'a>(
    entries: impl IntoIterator<Item = json::Member<'a>>,
    repeated: Repeated,
) -> (Vec<Mapping>, Vec<Issue>) {
    let mut issues = Vec::new();
    let mut mappings: Vec<Mapping> = Vec::new();
    for json::Member { key, value } in entries {
        let path = decode_path(key);
        if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
            issues.push(Issue::NotAbsolute { path });
            continue;
        }
        match value.parse::<Port>() {
            Ok(port) => mappings.push(Mapping {
                key: key.to_owned(),
                path,
                port,
            }),
            Err(_) => issues.push(Issue::NoPort {
                path,
                value: value.to_owned(),
            }),
        }
    }
    // The first entry of a path stays, with the port that `repeated` selects; so does the first path of a port.
    let mut ports: Vec<Option<Port>> = mappings.iter().map(|mapping| Some(mapping.port)).collect();
    let mut places: HashMap<&Path, usize> = HashMap::with_capacity(mappings.len());
    for (at, Mapping { path, port, .. }) in mappings.iter().enumerate() {
        match places.entry(path) {
            Entry::Vacant(free) => drop(free.insert(at)),
            Entry::Occupied(earlier) => {
                ports[at] = None;
                let earlier = ports[*earlier.get()].get_or_insert(*port);
                let (kept, dropped) = match repeated {
                    Repeated::LastCounts => (*port, std::mem::replace(earlier, *port)),
                    Repeated::FirstCounts => (*earlier, *port),
                };
                issues.push(Issue::PathTwice {
                    path: path.clone(),
                    kept,
                    dropped,
                });
            }
        }
    }
    let mut owners: HashMap<Port, &Path> = HashMap::with_capacity(mappings.len());
    for (Mapping { path, .. }, counts) in mappings.iter().zip(&mut ports) {
        let Some(port) = *counts else { continue };
        match owners.entry(port) {
            Entry::Vacant(free) => drop(free.insert(path)),
            Entry::Occupied(owner) => {
                *counts = None;
                issues.push(Issue::PortTwice {
                    port,
                    kept: owner.get().to_path_buf(),
                    dropped: path.clone(),
                });
            }
        }
    }
    let counting = |(mapping, port): (Mapping, Option<Port>)| {
        Some(Mapping {
            port: port?,
            ..mapping
        })
    };
    let mappings = mappings.into_iter().zip(ports).filter_map(counting);
    (mappings.collect(), issues)
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

/// U+FEFF as UTF-8, which some editors prepend.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
