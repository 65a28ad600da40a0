//! Taking over the mappings of another registry: what is new, what is here already, and what contradicts what is here.
//!
//! Pure, and all or nothing: the caller decides beforehand which side wins a conflict.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::model::{Mapping, Registry};
use super::port::Port;

/// Who wins where two registries contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    /// Nobody: with a single conflict nothing is taken over.
    Nobody,
    /// What is taken over; other mappings stay.
    Theirs,
}

/// What came of taking over another registry's mappings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// Mappings of projects that had none.
    pub added: Vec<(PathBuf, Port)>,
    /// Mappings of projects that had another port.
    pub moved: Vec<(PathBuf, Port)>,
    /// Mappings that had to go, because another project got their port.
    pub removed: Vec<(PathBuf, Port)>,
    /// How many were here already.
    pub unchanged: usize,
    /// What contradicted what was here. If nobody wins, the lists above are empty then.
    pub conflicts: Vec<Conflict>,
}

/// A mapping that contradicts one that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The project in the other registry.
    pub path: PathBuf,
    /// Its port there.
    pub port: Port,
    /// What contradicts it here.
    pub here: Contradiction,
}

/// What contradicts a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contradiction {
    /// The port is that of another project.
    PortOf(PathBuf),
    /// The project has another port.
    HasPort(Port),
}

impl Registry {
    /// Takes over the mappings of `theirs`, and what is noted about them.
    pub fn import(&mut self, theirs: &Registry, winner: Winner) -> Import {
        let mut import = Import::default();
        let by_path: HashMap<&Path, Port> = self.by_path();
        let by_port: HashMap<Port, &Path> =
            by_path.iter().map(|(path, port)| (*port, *path)).collect();
        let mut taken: Vec<Mapping> = Vec::new();
        for mapping in &theirs.mappings {
            let (path, port) = (mapping.path.as_path(), mapping.port);
            let has = by_path.get(path).copied();
            if has == Some(port) {
                import.unchanged += 1;
                continue;
            }
            let mut conflict = |here| {
                let path = path.to_owned();
                import.conflicts.push(Conflict { path, port, here });
            };
            if let Some(has) = has {
                conflict(Contradiction::HasPort(has));
            }
            if let Some(owner) = by_port.get(&port) {
                conflict(Contradiction::PortOf((*owner).to_owned()));
            }
            match has {
                Some(_) => import.moved.push((path.to_owned(), port)),
                None => import.added.push((path.to_owned(), port)),
            }
            taken.push(Mapping::new(path, port));
        }
        if winner == Winner::Nobody && !import.conflicts.is_empty() {
            let conflicts = std::mem::take(&mut import.conflicts);
            return Import {
                conflicts,
                unchanged: import.unchanged,
                ..Import::default()
            };
        }
        self.give_way_to(&taken, &mut import);
        let notes = theirs.notes();
        let is_taken: HashSet<&Path> = taken.iter().map(|mapping| mapping.path.as_path()).collect();
        let notes: Vec<_> = notes
            .iter()
            .filter(|(path, _)| is_taken.contains(path))
            .collect();
        self.mappings.extend(taken.iter().cloned());
        if !notes.is_empty() {
            self.take_notes(notes);
        }
        import
    }

    /// Removes what contradicts `taken`.
    fn give_way_to(&mut self, taken: &[Mapping], import: &mut Import) {
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
        for (path, _) in &import.removed {
            self.forget(path);
        }
    }

    /// The same with every path that lies under the first of a pair moved to under the second; of several pairs that
    /// fit, the longest counts.
    ///
    /// # Errors
    ///
    /// Two projects would become this one.
    pub fn rerooted(&self, roots: &[(PathBuf, PathBuf)]) -> Result<Registry, PathBuf> {
        let moved = |path: &Path| {
            let (from, to) = roots
                .iter()
                .filter(|(from, _)| path.starts_with(from))
                .max_by_key(|(from, _)| from.components().count())?;
            // Component by component, so that the root itself gets no slash at its end.
            let rest = path.strip_prefix(from).ok()?;
            Some(
                to.components()
                    .chain(rest.components())
                    .collect::<PathBuf>(),
            )
        };
        let mut rerooted = self.clone();
        let mut seen = HashSet::new();
        for mapping in &mut rerooted.mappings {
            if let Some(path) = moved(&mapping.path) {
                *mapping = Mapping::new(&path, mapping.port);
            }
            if !seen.insert(mapping.path.clone()) {
                return Err(mapping.path.clone());
            }
        }
        let notes = self.notes();
        let notes: Vec<_> = notes
            .iter()
            .map(|(path, note)| (moved(path).unwrap_or_else(|| path.to_owned()), note))
            .collect();
        rerooted.forget_all();
        rerooted.take_notes(notes.iter().map(|(path, note)| (path.as_path(), *note)));
        Ok(rerooted)
    }
}
