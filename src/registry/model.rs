//! What a registry is: the mappings of projects to ports, among the other fields of its file; and its text.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::damage::{Damage, Flaw};
use super::json::{self, decode_path, object_text};
use super::port::{Port, PortRange};
use super::project::Project;

/// The mappings of projects to ports, and whatever else the registry file holds.
///
/// No port is in it twice, and every path is absolute. Two registries that are equal are written as the same
/// text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Every top-level field, in the file's order.
    pub(super) fields: Vec<Field>,
    /// In the file's order. At most 65 535, so that looking through them is cheap.
    pub(super) mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    /// The place of the mappings among the fields.
    Mappings,
    /// Any other field; both parts are JSON text.
    Other { key: String, value: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The path as the file spells it, as JSON text: a path can be spelled in many ways.
    key: String,
    pub(super) path: PathBuf,
    pub(super) port: Port,
}

impl Registry {
    /// The fields that the Python tool's format has, but for the mappings.
    pub(super) const KNOWN: [&'static str; 3] = [VERSION, PORT_RANGE, NEXT_AVAILABLE];

    /// Reads the registry file's text.
    ///
    /// An empty text is an empty registry. A byte order mark, missing fields, a foreign `version`, an odd
    /// `port_range` or `next_available` are taken as they are.
    ///
    /// # Errors
    ///
    /// Text that is not one JSON object, `mappings` that are not an object, and mappings that cannot all be
    /// true: a relative path, something that is no port, a port or a path that is there twice.
    /// [`recover`](super::recover::recover) tells what can still be read.
    pub fn parse(text: &[u8]) -> Result<Registry, Damage> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if text.trim_ascii().is_empty() {
            return Ok(Registry::default());
        }
        let (registry, flaws) = Registry::admit_fields(&json::object(text).map_err(Damage::Torn)?);
        if flaws.is_empty() {
            Ok(registry)
        } else {
            Err(Damage::Flawed(flaws))
        }
    }

    /// The registry that these top-level fields make, and what in them could not be taken.
    pub(super) fn admit_fields(members: &[json::Member<'_>]) -> (Registry, Vec<Flaw>) {
        let mut registry = Registry {
            fields: Vec::new(),
            mappings: Vec::new(),
        };
        let mut flaws = Vec::new();
        let mut entries = Vec::new();
        let mut seen = false;
        for member in members {
            if json::decode(member.key) != MAPPINGS.as_bytes() {
                registry.fields.push(Field::other(member.key, member.value));
                continue;
            }
            match json::object(member.value.as_bytes()) {
                Ok(more) => entries.extend(more),
                Err(_) => flaws.push(Flaw::MappingsNoObject),
            }
            if seen {
                // JSON readers go by the last; the mappings of the others would be lost with the next rewrite.
                flaws.push(Flaw::MappingsTwice);
            } else {
                registry.fields.push(Field::Mappings);
            }
            seen = true;
        }
        let (mappings, more_flaws) = admit_mappings(entries, Repeated::LastCounts);
        registry.mappings = mappings;
        flaws.extend(more_flaws);
        (registry, flaws)
    }

    /// The registry as the text of its file, as Python's `json.dump(…, indent=2)` lays it out: without a line
    /// break at the end. What was not known when it was read stands there to the letter.
    pub fn to_text(&self) -> String {
        let mut complete = self.fields.clone();
        // The Python tool looks for each of its fields.
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

    /// Whether the text it was read from had mappings at all, be it none: other JSON documents have not.
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

    /// The first of these projects that has a port, and its port.
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

    /// How many ports of `range` are assigned. Mappings may lie outside it: a range only says where new
    /// ports come from.
    pub fn assigned_in(&self, range: PortRange) -> u32 {
        self.mappings
            .iter()
            .map(|mapping| u32::from(range.contains(mapping.port)))
            .sum()
    }

    /// Where the next search for a port starts: the recorded `next_available`, or the range's start where
    /// that lies outside or is no port.
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

    /// The fields that every file has, as a fresh one has them.
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

    /// The text of a top-level field; of the last, where it is repeated, as every JSON reader has it.
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
    /// A registry in which nothing was ever allocated: the search starts wherever the range of the day does.
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

    /// Whether both stand under the same name, in whatever spelling.
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

/// The mappings that these entries of a `mappings` object make, in their order, and what of them could not be
/// taken. Of two paths with one port the first keeps it.
pub(super) fn admit_mappings<'a>(
    entries: impl IntoIterator<Item = json::Member<'a>>,
    repeated: Repeated,
) -> (Vec<Mapping>, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let mut mappings: Vec<Mapping> = Vec::new();
    for json::Member { key, value } in entries {
        let path = decode_path(key);
        if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
            flaws.push(Flaw::NotAbsolute { path });
            continue;
        }
        match value.parse::<Port>() {
            Ok(port) => mappings.push(Mapping {
                key: key.to_owned(),
                path,
                port,
            }),
            Err(_) => flaws.push(Flaw::NoPort {
                path,
                value: value.to_owned(),
            }),
        }
    }
    // Of several with one path the first stays, with the port that counts; of several with one port the first as well.
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
                flaws.push(Flaw::PathTwice {
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
                flaws.push(Flaw::PortTwice {
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
    (mappings.collect(), flaws)
}

/// Which port counts for a path that is there twice.
#[derive(Clone, Copy)]
pub(super) enum Repeated {
    /// In valid JSON the last, as for every JSON reader, the Python tool among them.
    LastCounts,
    /// In a torn text the first: what follows a tear may be left over from an older text.
    FirstCounts,
}

// The fields that the Python tool's format has.
const VERSION: &str = "version";
const PORT_RANGE: &str = "port_range";
pub(super) const MAPPINGS: &str = "mappings";
const NEXT_AVAILABLE: &str = "next_available";

/// U+FEFF as UTF-8: what some editors put in front of a text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
