//! Importing the mappings of another registry: which are new, which are present, and which contradict present ones.
//!
//! Pure, and all or nothing: the caller decides beforehand what a conflict does.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::model::{Mapping, Registry};
use super::port::Port;
use super::recover::{Recovered, recover};

/// What to do where two registries contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// Import nothing.
    Reject,
    /// The imported mapping replaces the ones that it contradicts; other mappings stay.
    Overwrite,
}

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// Mappings of projects that had none.
    pub added: Vec<(PathBuf, Port)>,
    /// Mappings of projects that had another port.
    pub moved: Vec<(PathBuf, Port)>,
    /// Mappings that were removed because another project got their port.
    pub removed: Vec<(PathBuf, Port)>,
    /// How many mappings were present already.
    pub unchanged: usize,
    /// The contradictions. With [`ConflictPolicy::Reject`] the lists above are empty if there are any.
    pub conflicts: Vec<Conflict>,
}

impl Import {
    /// The mappings that projects had before the import, and have no more.
    pub fn lost(&self) -> impl Iterator<Item = (&Path, Port)> {
        let moved = self
            .conflicts
            .iter()
            .filter_map(|conflict| match conflict.here {
                ConflictKind::HasPort(port) => Some((conflict.path.as_path(), port)),
                ConflictKind::PortOf(_) | ConflictKind::HasSettings => None,
            });
        let removed = self.removed.iter();
        removed
            .map(|(path, port)| (path.as_path(), *port))
            .chain(moved)
    }
}

/// An imported mapping that contradicts a present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The project in the other registry.
    pub path: PathBuf,
    /// Its port there.
    pub port: Port,
    /// What it contradicts.
    pub here: ConflictKind,
}

/// What an imported mapping contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictKind {
    /// The port belongs to this other project.
    PortOf(PathBuf),
    /// The project has this other port.
    HasPort(Port),
    /// The project is served otherwise: both registries have settings of it.
    HasSettings,
}

/// A registry to import, read from a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    /// Everything that could be read.
    pub registry: Registry,
    /// Says what could not be read.
    pub warning: Option<String>,
}

/// Reads an export, a registry file or a backup; messages call the text `named`.
///
/// # Errors
///
/// It has no mappings: a line that says why.
pub fn readable(text: &[u8], named: &dyn fmt::Display) -> Result<Readable, String> {
    let bad = |why: &dyn fmt::Display| {
        format!(
            "{named} holds no mappings: {why}; give an export, a registry file or a backup of one"
        )
    };
    if text.trim_ascii().is_empty() {
        return Err(bad(&"it is empty"));
    }
    let damage = match Registry::parse(text) {
        Ok(registry) if registry.has_mappings_field() => {
            let warning = None;
            return Ok(Readable { registry, warning });
        }
        Ok(_) => return Err(bad(&"it has no `mappings`")),
        Err(damage) => damage,
    };
    // A backup of a damaged registry is damaged.
    let Recovered { registry, issues } = recover(text);
    if registry.is_empty() {
        return Err(bad(&damage));
    }
    let warning = format!(
        "{named} is damaged ({damage}); port mappings read: {}, unreadable entries: {}",
        registry.len(),
        issues.len()
    );
    let warning = Some(warning);
    Ok(Readable { registry, warning })
}

impl Registry {
    /// Adds the mappings of `theirs`, and the notes on their projects: a pin of either registry is kept, the later use, and the
    /// settings of the registry that has some.
    pub fn import(&mut self, theirs: &Registry, policy: ConflictPolicy) -> Import {
        let mut import = Import::default();
        let by_path: HashMap<&Path, Port> = self.by_path();
        let by_port: HashMap<Port, &Path> =
            by_path.iter().map(|(path, port)| (*port, *path)).collect();
        let their_notes = theirs.notes();
        let contradictions = self.notes().contradictions(&their_notes);
        let mut taken: Vec<Mapping> = Vec::new();
        for mapping in &theirs.mappings {
            let (path, port) = (mapping.path.as_path(), mapping.port);
            let has = by_path.get(path).copied();
            let mut conflict = |here| {
                let path = path.to_owned();
                import.conflicts.push(Conflict { path, port, here });
            };
            if has.is_some() && contradictions.contains(path) {
                conflict(ConflictKind::HasSettings);
            }
            if has == Some(port) {
                import.unchanged += 1;
                continue;
            }
            if let Some(has) = has {
                conflict(ConflictKind::HasPort(has));
            }
            if let Some(owner) = by_port.get(&port) {
                conflict(ConflictKind::PortOf((*owner).to_owned()));
            }
            match has {
                Some(_) => import.moved.push((path.to_owned(), port)),
                None => import.added.push((path.to_owned(), port)),
            }
            taken.push(Mapping::new(path, port));
        }
        if policy == ConflictPolicy::Reject && !import.conflicts.is_empty() {
            let conflicts = std::mem::take(&mut import.conflicts);
            return Import {
                conflicts,
                unchanged: import.unchanged,
                ..Import::default()
            };
        }
        self.remove_conflicting(&taken, &mut import);
        self.mappings.extend(taken);
        self.forget(import.removed.iter().map(|(path, _)| path.as_path()));
        let mapped = theirs.mappings.iter().map(|mapping| mapping.path.as_path());
        self.add_notes(&their_notes, &mapped.collect());
        import
    }

    /// Removes the mappings that contradict `taken`.
    fn remove_conflicting(&mut self, taken: &[Mapping], import: &mut Import) {
        let paths: HashSet<&Path> = taken.iter().map(|mapping| mapping.path.as_path()).collect();
        let ports: HashSet<Port> = taken.iter().map(|mapping| mapping.port).collect();
        self.mappings.retain(|mapping| {
            let is_moved = paths.contains(mapping.path.as_path());
            if ports.contains(&mapping.port) && !is_moved {
                import.removed.push((mapping.path.clone(), mapping.port));
                return false;
            }
            !is_moved
        });
    }

    /// Returns a copy in which every path below the first path of a pair lies below the second. The longest matching
    /// pair applies.
    ///
    /// # Errors
    ///
    /// The path that two projects would both get.
    pub fn remap_paths(&self, pairs: &[(PathBuf, PathBuf)]) -> Result<Registry, PathBuf> {
        let moved = |path: &Path| {
            let (from, to) = pairs
                .iter()
                .filter(|(from, _)| path.starts_with(from))
                .max_by_key(|(from, _)| from.components().count())?;
            // Component by component, so that `from` itself gets no trailing slash.
            let rest = path.strip_prefix(from).ok()?;
            Some(
                to.components()
                    .chain(rest.components())
                    .collect::<PathBuf>(),
            )
        };
        let mut remapped = self.clone();
        let mut seen = HashSet::new();
        for mapping in &mut remapped.mappings {
            if let Some(path) = moved(&mapping.path) {
                *mapping = Mapping::new(&path, mapping.port);
            }
            if !seen.insert(mapping.path.clone()) {
                return Err(mapping.path.clone());
            }
        }
        remapped.move_notes(moved);
        Ok(remapped)
    }
}
