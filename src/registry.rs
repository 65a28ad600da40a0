//! Which project has which port.
//!
//! Decided here: what a registry is (no port twice, every path absolute), how it is written as text, and in which
//! order ports are given out. Pure: no files, no sockets, no clock. What a path means is [`project`]'s to
//! say, how the text gets on and off the disk [`store`]'s, what a damaged text still tells [`recover`]'s,
//! whether a port can be bound [`probe`]'s, what is known beside the mappings [`notes`]', which mappings
//! nobody needs [`prune`]'s, and how a change is taken back [`undo`]'s.
//!
//! The file is shared with a Python tool. So a registry keeps what it does not know, in its place and to the letter,
//! and writes what it does know as that tool would (`json.dump(…, indent=2)`).

pub mod csv;
pub mod facade;
pub mod import;
mod json;
pub mod notes;
mod port;
pub mod probe;
pub mod project;
pub mod prune;
pub mod recover;
pub mod store;
pub mod undo;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use json::Syntax;
pub use notes::{Moment, Note};
pub use port::{EmptyRange, NotAPort, Port, PortRange};
pub use probe::{Availability, Refusal, availability};
pub use project::Project;
pub use recover::{Damage, Flaw};
pub use store::{Snapshot, Store, StoreError, Updated, Waiting, Warning};

/// The mappings of projects to ports, and whatever else the registry file holds.
///
/// No port is in it twice, and every path is absolute. Two registries that are equal are written as the same
/// text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Every top-level field, in the file's order.
    fields: Vec<Field>,
    /// In the file's order. At most 65 535, so that looking through them is cheap.
    mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    /// The place of the mappings among the fields.
    Mappings,
    /// Any other field; both parts are JSON text.
    Other { key: String, value: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    /// The path as the file spells it, as JSON text: a path can be spelled in many ways.
    key: String,
    path: PathBuf,
    port: Port,
}

impl Registry {
    /// The fields that the Python tool's format has, but for the mappings.
    const KNOWN: [&'static str; 3] = [VERSION, PORT_RANGE, NEXT_AVAILABLE];

    /// Reads the registry file's text.
    ///
    /// An empty text is an empty registry. A byte order mark, missing fields, a foreign `version`, an odd
    /// `port_range` or `next_available` are taken as they are.
    ///
    /// # Errors
    ///
    /// Text that is not one JSON object, `mappings` that are not an object, and mappings that cannot all be
    /// true: a relative path, something that is no port, a port or a path that is there twice.
    /// [`recover::recover`] tells what can still be read.
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
    fn admit_fields(members: &[json::Member<'_>]) -> (Registry, Vec<Flaw>) {
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

    /// The ports that [`allocate`](Self::allocate) would give out, in that order: up from
    /// [`next_in`](Self::next_in), once around, without those that are assigned or that `is_free` declines.
    /// `is_free` is asked as the iterator advances, about unassigned ports only.
    pub fn free_ports<'a>(
        &'a self,
        range: PortRange,
        mut is_free: impl FnMut(Port) -> bool + 'a,
    ) -> impl Iterator<Item = Port> + 'a {
        let assigned: HashSet<Port> = self.mappings.iter().map(|mapping| mapping.port).collect();
        let next = self.next_in(range);
        let around = range
            .iter()
            .skip_while(move |&port| port < next)
            .chain(range.iter().take_while(move |&port| port < next));
        around.filter(move |port| !assigned.contains(port) && is_free(*port))
    }

    /// The port of a project: the one it has, be it outside `range`; or else the one that it had before it was pruned, if
    /// that is still to be had; or else the first of [`free_ports`](Self::free_ports), which becomes its own.
    ///
    /// A new mapping moves `next_available` to the port after it, around the end of the range, and records `range`.
    /// One that has come back leaves `next_available` where it is.
    ///
    /// # Errors
    ///
    /// Every port of `range` is assigned or not free; nothing has changed then.
    pub fn allocate(
        &mut self,
        project: &Project,
        range: PortRange,
        mut is_free: impl FnMut(Port) -> bool,
    ) -> Result<Allocated, Exhausted> {
        if let Some(port) = self.port_of(project) {
            return Ok(Allocated {
                port,
                created: false,
            });
        }
        let former = self.note(project.path()).former_port;
        if let Some(port) = former
            .filter(|&port| range.contains(port) && self.path_of(port).is_none() && is_free(port))
        {
            self.mappings.push(Mapping::new(project.path(), port));
            self.forget_former_port(project.path());
            return Ok(Allocated {
                port,
                created: true,
            });
        }
        let Some(port) = self.free_ports(range, is_free).next() else {
            return Err(Exhausted {
                range,
                assigned: self.assigned_in(range),
                refusal: None,
            });
        };
        self.mappings.push(Mapping::new(project.path(), port));
        let after = range
            .iter()
            .find(|&candidate| candidate > port)
            .unwrap_or(range.start());
        self.record(range, after);
        self.forget_former_port(project.path());
        Ok(Allocated {
            port,
            created: true,
        })
    }

    /// Removes a project's mapping; the port it had.
    pub fn remove(&mut self, project: &Project) -> Option<Port> {
        let port = self.port_of(project)?;
        // All spellings of the path (`/a/` and `/a`), or the next would come to light.
        self.mappings
            .retain(|mapping| mapping.path != project.path());
        self.forget(project.path());
        Some(port)
    }

    /// Removes all mappings and puts `next_available` back to the start of `range`; how many there were.
    pub fn reset(&mut self, range: PortRange) -> usize {
        let removed = self.mappings.len();
        self.mappings.clear();
        self.forget_all();
        self.record(range, range.start());
        removed
    }

    /// Puts in what another program made of `base`: the mappings it added, without those it removed. Where both
    /// gave one project or one port away, what is here stays.
    fn merge(&mut self, base: &Registry, theirs: &Registry) {
        let (before, after) = (base.by_path(), theirs.by_path());
        let removed = |mapping: &Mapping| {
            let path = mapping.path.as_path();
            before.get(path) == Some(&mapping.port) && after.get(path) != Some(&mapping.port)
        };
        self.mappings.retain(|mapping| !removed(mapping));
        let mut paths: HashSet<PathBuf> = self
            .mappings
            .iter()
            .map(|mapping| mapping.path.clone())
            .collect();
        let mut ports: HashSet<Port> = self.mappings.iter().map(|mapping| mapping.port).collect();
        for mapping in &theirs.mappings {
            let added = before.get(mapping.path.as_path()) != Some(&mapping.port);
            if added && !paths.contains(&mapping.path) && ports.insert(mapping.port) {
                paths.insert(mapping.path.clone());
                self.mappings.push(mapping.clone());
            }
        }
    }

    /// Whether what was added to and removed from `base` to get `self`, and what was noted, is so in the other too.
    fn change_is_in(&self, base: &Registry, other_registry: &Registry) -> bool {
        let (before, after, other) = (base.by_path(), self.by_path(), other_registry.by_path());
        let added = |(path, port)| before.get(path) == Some(port) || other.get(path) == Some(port);
        let removed = |path| after.contains_key(path) || !other.contains_key(path);
        let is_noted = self.notes_text() == base.notes_text()
            || self.notes_text() == other_registry.notes_text();
        after.iter().all(added) && before.keys().all(removed) && is_noted
    }

    fn by_path(&self) -> HashMap<&Path, Port> {
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

    fn record(&mut self, range: PortRange, next: Port) {
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
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find_map(|field| match field {
            Field::Other { key, value } if json::decode(key) == name.as_bytes() => {
                Some(value.as_str())
            }
            _ => None,
        })
    }

    fn set_field(&mut self, name: &str, text: String) {
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
    fn other(key: &str, value: &str) -> Field {
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
    fn new(path: &Path, port: Port) -> Mapping {
        Mapping {
            key: json::encode(path.as_os_str().as_bytes()),
            path: path.to_owned(),
            port,
        }
    }
}

/// A path is any bytes.
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// The mappings that these entries of a `mappings` object make, in their order, and what of them could not be
/// taken. Of two paths with one port the first keeps it.
fn admit_mappings<'a>(
    entries: impl IntoIterator<Item = json::Member<'a>>,
    repeated: Repeated,
) -> (Vec<Mapping>, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let mut mappings: Vec<Mapping> = Vec::new();
    for json::Member { key, value } in entries {
        let path = path_of(json::decode(key));
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
enum Repeated {
    /// In valid JSON the last, as for every JSON reader, the Python tool among them.
    LastCounts,
    /// In a torn text the first: what follows a tear may be left over from an older text.
    FirstCounts,
}

/// An object as `json.dump(…, indent=2)` lays it out, `indent` being that of the line it begins on.
fn object_text(members: &[(&str, String)], indent: &str) -> String {
    if members.is_empty() {
        return "{}".to_owned();
    }
    let lines: Vec<_> = members
        .iter()
        .map(|(key, value)| format!("{indent}  {key}: {value}"))
        .collect();
    format!("{{\n{}\n{indent}}}", lines.join(",\n"))
}

/// A project's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// The port.
    pub port: Port,
    /// Whether the project did not have it before.
    pub created: bool,
}

/// A range has no port left to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// The range that was searched.
    pub range: PortRange,
    /// How many of its ports are assigned; the others are in use by some program, or this process may not bind them.
    pub assigned: u32,
    /// Why none of the others could be tried, where [`probe::give`] was told so.
    pub refusal: Option<Refusal>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exhausted {
            range,
            assigned,
            refusal,
        } = self;
        if let Some(refusal) = refusal {
            return write!(
                f,
                "no port of {range} is known to be free: {assigned} assigned to projects, the others cannot be tried \
                 ({refusal}); look for a sandbox, or a limit on open files"
            );
        }
        let in_use = range.len() - assigned;
        write!(
            f,
            "no port is free in {range}: {assigned} assigned to projects, {in_use} in use by other programs; \
             raise INTERCEPTOR_PORT_MAX, or give up mappings with `ic prune` or `ic remove`"
        )
    }
}

impl std::error::Error for Exhausted {}

// The fields that the Python tool's format has.
const VERSION: &str = "version";
const PORT_RANGE: &str = "port_range";
const MAPPINGS: &str = "mappings";
const NEXT_AVAILABLE: &str = "next_available";

/// U+FEFF as UTF-8: what some editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(mappings: &str) -> Registry {
        Registry::parse(format!("{{\"mappings\": {mappings}}}").as_bytes()).expect("a sound text")
    }

    #[test]
    fn two_changes_of_one_registry_are_merged() {
        /// What both went out from, what is here and what is there by now; what comes of it.
        #[track_caller]
        fn check(base: &str, here: &str, theirs: &str, expected: &str) {
            let mut merged = registry(here);
            merged.merge(&registry(base), &registry(theirs));
            assert_eq!(merged.by_path(), registry(expected).by_path());
        }
        let base = r#"{"/a": 1, "/b": 2}"#;
        check(base, base, base, base);
        check(
            base,
            r#"{"/a": 1, "/b": 2, "/c": 3}"#,
            base,
            r#"{"/a": 1, "/b": 2, "/c": 3}"#,
        );
        check(
            base,
            base,
            r#"{"/a": 1, "/b": 2, "/d": 4}"#,
            r#"{"/a": 1, "/b": 2, "/d": 4}"#,
        );
        check(
            base,
            r#"{"/a": 1, "/b": 2, "/c": 3}"#,
            r#"{"/b": 2, "/d": 4}"#,
            r#"{"/b": 2, "/c": 3, "/d": 4}"#,
        );
        // One project or one port, given away on both sides: what is here stays.
        check(base, r#"{"/c": 3}"#, r#"{"/c": 4}"#, r#"{"/c": 3}"#);
        check(base, r#"{"/c": 3}"#, r#"{"/d": 3}"#, r#"{"/c": 3}"#);
        // Given up here, and another port there.
        check(
            base,
            r#"{"/b": 2}"#,
            r#"{"/a": 7, "/b": 2}"#,
            r#"{"/a": 7, "/b": 2}"#,
        );
        check(base, "{}", "{}", "{}");
    }

    #[test]
    fn a_change_is_in_what_others_have_written_or_not() {
        #[track_caller]
        fn check(base: &str, changed: &str, other: &str, expected: bool) {
            let [base, changed, other] = [base, changed, other].map(registry);
            assert_eq!(changed.change_is_in(&base, &other), expected);
        }
        let (base, added) = (r#"{"/a": 1}"#, r#"{"/a": 1, "/b": 2}"#);
        check(base, added, added, true);
        check(base, added, r#"{"/b": 2, "/c": 3}"#, true);
        check(base, added, base, false);
        check(base, added, r#"{"/a": 1, "/b": 3}"#, false);
        check(base, "{}", r#"{"/c": 3}"#, true);
        check(base, "{}", r#"{"/a": 4}"#, false);
        check(base, base, "{}", true);
    }
}
