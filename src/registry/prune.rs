//! Giving up mappings that nobody needs: of projects that are deleted, and of ports that have long not been used.
//!
//! Pure, like the registry: whether a folder is gone and whether a port is listened on is asked of the caller. A pruned
//! project's port is remembered, so that one that comes back (another branch, a disk that was away) gets it again
//! while it is free.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::allocate::{Allocated, Exhausted};
use super::model::Registry;
use super::notes::Moment;
use super::port::{Port, PortRange};
use super::probe::Search;
use super::project::{Project, is_deleted};

/// A mapping that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// The project's path, as it was recorded.
    pub path: PathBuf,
    /// The port it had.
    pub port: Port,
    /// Why.
    pub reason: Reason,
}

/// Why a mapping was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The project's folder is gone.
    Deleted,
    /// Its port has not been used for so long.
    Unused(Duration),
}

/// From when on a port counts as unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recycling {
    /// Not used for at least this long.
    pub unused_for: Duration,
    /// Seen from here.
    pub now: Moment,
}

/// A port, and what had to go for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The port.
    pub allocated: Allocated,
    /// The mappings of deleted projects that were given up because the range had no port left.
    pub pruned: Vec<Pruned>,
}

impl Registry {
    /// Gives up the mappings of deleted projects and, with `recycling`, those of ports that have not been used for so
    /// long; the least recently used first, and then by port.
    ///
    /// Never one that is pinned or that `is_listening`; and one whose last use is not known is never old.
    pub fn prune(
        &mut self,
        recycling: Option<Recycling>,
        mut is_deleted: impl FnMut(&Path) -> bool,
        mut is_listening: impl FnMut(Port) -> bool,
    ) -> Vec<Pruned> {
        let notes = self.notes();
        let known: HashMap<_, _> = notes.iter().collect();
        let mut pruned: Vec<(Option<Moment>, Pruned)> = Vec::new();
        for (path, port) in self.mappings() {
            let note = known.get(path).copied().unwrap_or_default();
            let unused = recycling.and_then(|terms| {
                let unused = note.last_used?.age(terms.now);
                (unused >= terms.unused_for).then_some(unused)
            });
            let reason = match unused {
                _ if note.is_pinned => continue,
                _ if is_deleted(path) => Reason::Deleted,
                Some(unused) => Reason::Unused(unused),
                None => continue,
            };
            // Asked last: it is the dearest question.
            if !is_listening(port) {
                let path = path.to_owned();
                pruned.push((note.last_used, Pruned { path, port, reason }));
            }
        }
        pruned.sort_by_key(|(last_used, pruned)| (*last_used, pruned.port));
        let pruned: Vec<Pruned> = pruned.into_iter().map(|(_, pruned)| pruned).collect();
        self.give_up(&pruned);
        pruned
    }

    /// As [`allocate`](Self::allocate); where the range has no port left, the mappings of deleted projects in it are given
    /// up first.
    ///
    /// # Errors
    ///
    /// That did not help either; nothing has changed then.
    pub fn allocate_or_prune(
        &mut self,
        project: &Project,
        range: PortRange,
        mut is_free: impl FnMut(Port) -> bool,
        mut is_deleted: impl FnMut(&Path) -> bool,
    ) -> Result<Given, Exhausted> {
        let exhausted = match self.allocate(project, range, &mut is_free) {
            Ok(allocated) => {
                return Ok(Given {
                    allocated,
                    pruned: Vec::new(),
                });
            }
            Err(exhausted) => exhausted,
        };
        let mut roomier = self.clone();
        let helps_not = |port| !range.contains(port) || !is_free(port);
        let pruned = roomier.prune(None, &mut is_deleted, helps_not);
        if pruned.is_empty() {
            return Err(exhausted);
        }
        let allocated = roomier.allocate(project, range, is_free)?;
        *self = roomier;
        Ok(Given { allocated, pruned })
    }

    fn give_up(&mut self, pruned: &[Pruned]) {
        if pruned.is_empty() {
            return;
        }
        let paths: HashSet<&Path> = pruned.iter().map(|pruned| pruned.path.as_path()).collect();
        self.mappings
            .retain(|mapping| !paths.contains(mapping.path.as_path()));
        self.remember_only_ports(
            pruned
                .iter()
                .map(|pruned| (pruned.path.as_path(), pruned.port)),
        );
    }
}

/// The project's port, as this machine shows which ports are free and which projects deleted: see
/// [`Registry::allocate_or_prune`].
///
/// # Errors
///
/// No port of `range` is known to be free; nothing has changed then.
pub fn give(
    registry: &mut Registry,
    project: &Project,
    range: PortRange,
) -> Result<Given, Exhausted> {
    let search = Search::default();
    registry
        .allocate_or_prune(project, range, |port| search.is_free(port), is_deleted)
        .map_err(|exhausted| Exhausted {
            refusal: search.refusal(),
            ..exhausted
        })
}

/// The port of `range` that the next allocation would give.
pub fn next_free(range: PortRange, registry: &Registry) -> Option<Port> {
    let search = Search::default();
    registry
        .free_ports(range, |port| search.is_free(port))
        .next()
}
