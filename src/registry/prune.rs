//! Removing mappings that are not needed: of deleted projects, and of ports that are unused for long.
//!
//! A pruned project's port and settings are remembered: if the project comes back (another branch, a disk that was not
//! mounted), it gets the same port while that is free, and is served as before.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::allocate::{Allocated, Exhausted};
use super::model::Registry;
use super::notes::Timestamp;
use super::port::{Port, PortRange};
use super::probe::{Availability, Search, availability};
use super::project::{Project, is_deleted};

/// A removed mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// The project's path, as it was recorded.
    pub path: PathBuf,
    /// The port it had.
    pub port: Port,
    /// Why.
    pub reason: Reason,
}

/// Why a mapping was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The project's folder was deleted.
    Deleted,
    /// Its port has been unused for this long.
    Unused(Duration),
}

/// When a port counts as unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recycling {
    /// The minimum time without use.
    pub unused_for: Duration,
    /// The current time.
    pub now: Timestamp,
}

/// An assigned port, and the mappings that were removed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The port.
    pub allocated: Allocated,
    /// The mappings of deleted projects that were removed because the range had no free port.
    pub pruned: Vec<Pruned>,
}

impl Registry {
    /// Removes the mappings of deleted projects and, with `recycling`, those of unused ports. Returns them, the least
    /// recently used first, then by port.
    ///
    /// Keeps pinned projects and ports for which `is_listening` returns true. A port whose last use is unknown never
    /// counts as unused.
    pub fn prune(
        &mut self,
        recycling: Option<Recycling>,
        mut is_deleted: impl FnMut(&Path) -> bool,
        mut is_listening: impl FnMut(Port) -> bool,
    ) -> Vec<Pruned> {
        let notes = self.notes();
        let known: HashMap<_, _> = notes.iter().collect();
        let mut pruned: Vec<(Option<Timestamp>, Pruned)> = Vec::new();
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
            // Last: the most expensive check.
            if !is_listening(port) {
                let path = path.to_owned();
                pruned.push((note.last_used, Pruned { path, port, reason }));
            }
        }
        pruned.sort_by_key(|(last_used, pruned)| (*last_used, pruned.port));
        let pruned: Vec<Pruned> = pruned.into_iter().map(|(_, pruned)| pruned).collect();
        let paths: HashSet<&Path> = pruned.iter().map(|pruned| pruned.path.as_path()).collect();
        self.mappings
            .retain(|mapping| !paths.contains(mapping.path.as_path()));
        self.remember(pruned.iter().map(|it| (it.path.as_path(), it.port)));
        pruned
    }

    /// As [`allocate`](Self::allocate); if the range has no free port, first removes the mappings of deleted projects in it.
    ///
    /// # Errors
    ///
    /// The range still has no free port; then nothing has changed.
    pub fn allocate_or_prune_with(
        &mut self,
        project: &Project,
        range: PortRange,
        mut is_free: impl FnMut(Port) -> bool,
        mut is_deleted: impl FnMut(&Path) -> bool,
    ) -> Result<Allocation, Exhausted> {
        let exhausted = match self.allocate(project, range, &mut is_free) {
            Ok(allocated) => {
                return Ok(Allocation {
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
        Ok(Allocation { allocated, pruned })
    }
}

/// As [`Registry::allocate_or_prune_with`], with this machine's free ports and deleted folders.
///
/// # Errors
///
/// No port of `range` is known to be free; then nothing has changed.
pub fn allocate_or_prune(
    registry: &mut Registry,
    project: &Project,
    range: PortRange,
) -> Result<Allocation, Exhausted> {
    let search = Search::default();
    registry
        .allocate_or_prune_with(project, range, |port| search.is_free(port), is_deleted)
        .map_err(|exhausted| Exhausted {
            refusal: search.refusal(),
            ..exhausted
        })
}

/// As [`Registry::prune`], with this machine's time, deleted folders and listening ports. `idle` are ports on which a process
/// listens whether or not they are used.
pub fn prune_here(
    registry: &mut Registry,
    unused_for: Option<Duration>,
    idle: &BTreeSet<u16>,
) -> Vec<Pruned> {
    let now = SystemTime::now().into();
    let recycling = unused_for.map(|unused_for| Recycling { unused_for, now });
    // A port that cannot be probed may be in use.
    let is_listening =
        |port: Port| !idle.contains(&port.get()) && availability(port) != Availability::Free;
    registry.prune(recycling, is_deleted, is_listening)
}

/// The port of `range` that the next allocation would give.
pub fn next_free(range: PortRange, registry: &Registry) -> Option<Port> {
    let search = Search::default();
    registry
        .free_ports(range, |port| search.is_free(port))
        .next()
}
