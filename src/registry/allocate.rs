//! Assigning and releasing ports: the order in which ports are assigned.
//!
//! Pure: the caller decides which ports are free.

use std::collections::HashSet;
use std::fmt;

use super::model::{Mapping, Registry};
use super::port::{Port, PortRange};
use super::probe::Refusal;
use super::project::Project;

impl Registry {
    /// Returns the ports that [`allocate`](Self::allocate) would assign, in order: from [`next_in`](Self::next_in) upwards,
    /// wrapping once, without assigned ports, those that [browsers refuse](Port::is_bad_for_fetch), and those for which
    /// `is_free` returns false. `is_free` is called lazily, with ports that are left only.
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
        around.filter(move |&port| {
            !assigned.contains(&port) && !port.is_bad_for_fetch() && is_free(port)
        })
    }

    /// Returns the port of a project: its present one, even outside `range`; otherwise the one it had before it was
    /// pruned, if that is free; otherwise the first of [`free_ports`](Self::free_ports).
    ///
    /// A new mapping sets `next_available` to the port after it, wrapped, and records `range`. A restored one leaves
    /// `next_available` unchanged.
    ///
    /// # Errors
    ///
    /// Every port of `range` is assigned or not free; then nothing has changed.
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
        let may_be_assigned = |port: Port| {
            range.contains(port) && self.path_of(port).is_none() && !port.is_bad_for_fetch()
        };
        let former = self.note(project.path()).former_port;
        let former = former.filter(|&port| may_be_assigned(port) && is_free(port));
        let port = match former {
            Some(port) => port,
            None => {
                let Some(port) = self.free_ports(range, is_free).next() else {
                    return Err(Exhausted {
                        range,
                        assigned: self.assigned_in(range),
                        bad: self.bad_in(range),
                        refusal: None,
                    });
                };
                let after = range.iter().find(|&candidate| candidate > port);
                self.record(range, after.unwrap_or(range.start()));
                port
            }
        };
        self.mappings.push(Mapping::new(project.path(), port));
        self.forget_former_port(project.path());
        Ok(Allocated {
            port,
            created: true,
        })
    }

    /// Removes a project's mapping and returns its port.
    pub fn remove(&mut self, project: &Project) -> Option<Port> {
        let port = self.port_of(project)?;
        // All spellings of the path (`/a/` and `/a`).
        self.mappings
            .retain(|mapping| mapping.path != project.path());
        self.forget([project.path()]);
        Some(port)
    }

    /// Gives a project's port, and everything that is noted of it, to the folder that it was moved to.
    ///
    /// # Errors
    ///
    /// That folder has this other port; nothing has changed.
    pub fn move_port(&mut self, from: &Project, to: &Project) -> Result<Option<Port>, Port> {
        let Some(port) = self.port_of(from) else {
            return Ok(None);
        };
        if from == to {
            return Ok(Some(port));
        }
        if let Some(other) = self.port_of(to) {
            return Err(other);
        }
        // Of an earlier project there. First: a note on a project without a port is dropped.
        self.forget([to.path()]);
        for mapping in &mut self.mappings {
            if mapping.path == from.path() {
                *mapping = Mapping::new(to.path(), port);
            }
        }
        self.move_notes(|path| (path == from.path()).then(|| to.path().to_owned()));
        Ok(Some(port))
    }

    /// Removes all mappings, sets `next_available` to the start of `range`, and returns the number of removed mappings.
    pub fn reset(&mut self, range: PortRange) -> usize {
        let removed = self.mappings.len();
        self.mappings.clear();
        self.forget_all();
        self.record(range, range.start());
        removed
    }
}

/// A project's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// The port.
    pub port: Port,
    /// Whether the mapping is new.
    pub created: bool,
}

/// The range has no free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// The searched range.
    pub range: PortRange,
    /// The number of its ports that are assigned.
    pub assigned: u32,
    /// The number of its other ports that [browsers refuse](Port::is_bad_for_fetch). The rest is in use, or this process may
    /// not bind it.
    pub bad: u32,
    /// Why none of the others could be probed, if so.
    pub refusal: Option<Refusal>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exhausted {
            range,
            assigned,
            bad,
            refusal,
        } = self;
        if let Some(refusal) = refusal {
            return write!(
                f,
                "no port of {range} is known to be free: {assigned} assigned to projects, the others cannot be tried \
                 ({refusal}); look for a sandbox, or a limit on open files"
            );
        }
        let in_use = range.len() - assigned - bad;
        let bad = match bad {
            0 => String::new(),
            bad => format!(", {bad} refused by browsers"),
        };
        write!(
            f,
            "no port is free in {range}: {assigned} assigned to projects, {in_use} in use by other programs{bad}; \
             raise INTERCEPTOR_PORT_MAX, or give up mappings with `ic prune` or `ic remove`"
        )
    }
}

impl std::error::Error for Exhausted {}
