//! Taking a change back: every project that it touched gets again what it had, port, pin and all that was noted.
//!
//! Pure, and all or nothing. Other processes change the registry too, so a change is remembered as what it did to each
//! project and not as the registry before it: whatever has happened to other projects since stays. Where one of its own
//! projects has been changed again, or a port has another owner by now, nothing is taken back and the conflicts are told.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::model::{Mapping, Registry};
use super::notes::Entry;
use super::port::Port;

/// What a change did to the projects that it touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    altered: Vec<Altered>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Altered {
    path: PathBuf,
    before: Known,
    after: Known,
}

/// What a registry has of one project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    port: Option<Port>,
    entry: Option<Entry>,
}

impl Known {
    fn is_pinned(&self) -> bool {
        self.entry
            .as_ref()
            .is_some_and(|entry| entry.note().is_pinned)
    }

    /// Of the use of ports there is no undoing.
    fn differs(&self, other: &Known) -> bool {
        self.port != other.port || self.is_pinned() != other.is_pinned()
    }
}

/// Why a change cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The port that the project had is another's now.
    PortOf {
        /// The project.
        path: PathBuf,
        /// The port it had.
        port: Port,
        /// Whose it is.
        owner: PathBuf,
    },
    /// The project has been changed again: this is its port now.
    Changed {
        /// The project.
        path: PathBuf,
        /// Its port by now.
        port: Option<Port>,
    },
}

impl Change {
    /// What makes `after` of `before`.
    pub fn between(before: &Registry, after: &Registry) -> Change {
        let (before, after) = (before.known(), after.known());
        let paths: BTreeSet<&Path> = before.keys().chain(after.keys()).copied().collect();
        let altered = paths.into_iter().filter_map(|path| {
            let side = |known: &HashMap<&Path, Known>| known.get(path).cloned().unwrap_or_default();
            let (before, after) = (side(&before), side(&after));
            before.differs(&after).then(|| Altered {
                path: path.to_owned(),
                before,
                after,
            })
        });
        Change {
            altered: altered.collect(),
        }
    }

    /// Whether there is nothing to take back.
    pub fn is_empty(&self) -> bool {
        self.altered.is_empty()
    }

    /// How many projects it touched.
    pub fn projects(&self) -> usize {
        self.altered.len()
    }
}

impl Registry {
    fn known(&self) -> HashMap<&Path, Known> {
        let mut known: HashMap<&Path, Known> = HashMap::new();
        for mapping in &self.mappings {
            known.entry(&mapping.path).or_default().port = Some(mapping.port);
        }
        let notes = self.notes();
        for (path, entry) in notes.entries() {
            // What is noted of projects without a port is worth no undoing by itself.
            if let Some(known) = known.get_mut(path) {
                known.entry = Some(entry.clone());
            }
        }
        known
    }

    /// Gives each project that `change` touched what it had before.
    ///
    /// # Errors
    ///
    /// What stands in the way; nothing has changed then.
    pub fn take_back(&mut self, change: &Change) -> Result<(), Vec<Obstacle>> {
        let now = self.known();
        let mut obstacles = Vec::new();
        let touched: BTreeSet<&Path> = change
            .altered
            .iter()
            .map(|one| one.path.as_path())
            .collect();
        let others: HashMap<Port, &Path> = self
            .mappings
            .iter()
            .filter(|mapping| !touched.contains(mapping.path.as_path()))
            .map(|mapping| (mapping.port, mapping.path.as_path()))
            .collect();
        for Altered {
            path,
            before,
            after,
        } in &change.altered
        {
            let now = now.get(path.as_path()).cloned().unwrap_or_default();
            if now.differs(after) {
                let (path, port) = (path.clone(), now.port);
                obstacles.push(Obstacle::Changed { path, port });
            } else if let Some(port) = before.port
                && let Some(&owner) = others.get(&port)
            {
                let (path, owner) = (path.clone(), owner.to_owned());
                obstacles.push(Obstacle::PortOf { path, port, owner });
            }
        }
        if !obstacles.is_empty() {
            return Err(obstacles);
        }
        let entries: Vec<_> = change
            .altered
            .iter()
            .map(|Altered { path, before, .. }| {
                let now = now.get(path.as_path()).and_then(|now| now.entry.clone());
                let entry = match now {
                    // It may have been used since.
                    Some(now) if before.port.is_some() => Some(now.pinned(before.is_pinned())),
                    _ => before.entry.clone(),
                };
                (path.as_path(), entry)
            })
            .collect();
        for Altered { path, before, .. } in &change.altered {
            let at = self
                .mappings
                .iter()
                .position(|mapping| mapping.path == *path);
            match (at, before.port) {
                (Some(at), Some(port)) => self.mappings[at].port = port,
                (Some(_), None) => self.mappings.retain(|mapping| mapping.path != *path),
                (None, Some(port)) => self.mappings.push(Mapping::new(path, port)),
                (None, None) => {}
            }
        }
        self.put_entries(entries);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::import::Winner;
    use crate::registry::{Moment, PortRange, Project};
    use std::time::Duration;

    fn project(path: &str) -> Project {
        Project::recorded(Path::new(path)).expect("absolute")
    }

    fn port(number: u16) -> Port {
        Port::try_from(number).expect("a port")
    }

    fn registry(text: &str) -> Registry {
        Registry::parse(text.as_bytes()).expect("a registry")
    }

    const THREE: &str = r#"{"mappings":{"/p/a":8888,"/p/b":8889,"/p/c":8890},"next_available":8891,
        "ic":{"projects":{"/p/a":{"last_used":1700000000,"pinned":true,"theirs":[1]},"/p/b":{"last_used":1}}}}"#;

    /// What lies in the mappings and the notes, whatever the order.
    fn facts(registry: &Registry) -> Vec<(PathBuf, Port, crate::registry::Note)> {
        let fact = |(path, port): (&Path, Port)| (path.to_owned(), port, registry.note(path));
        registry.mappings().map(fact).collect()
    }

    #[track_caller]
    fn check(what: &str, make: impl FnOnce(&mut Registry)) {
        let before = registry(THREE);
        let mut after = before.clone();
        make(&mut after);
        assert_ne!(facts(&before), facts(&after), "{what}: a change");
        let change = Change::between(&before, &after);
        assert_eq!(after.take_back(&change), Ok(()), "{what}");
        assert_eq!(facts(&after), facts(&before), "{what}");
        let again = registry(&after.to_text());
        assert_eq!(facts(&again), facts(&before), "{what}: also on the disk");
    }

    #[test]
    fn every_kind_of_change_can_be_taken_back() {
        check("remove", |registry| {
            registry.remove(&project("/p/a"));
        });
        check("allocate", |registry| {
            let given = registry.allocate(&project("/p/new"), PortRange::DEFAULT, |_| true);
            assert_eq!(given.map(|given| given.port), Ok(port(8891)));
        });
        check("prune", |registry| {
            assert_eq!(registry.prune(None, |_| true, |_| false).len(), 2);
        });
        check("pin", |registry| registry.pin(&project("/p/b"), true));
        check("unpin", |registry| registry.pin(&project("/p/a"), false));
        check("reset", |registry| {
            registry.reset(PortRange::DEFAULT);
        });
        check("import that swaps, adds and removes", |registry| {
            let theirs = self::registry(r#"{"mappings":{"/p/b":8888,"/p/d":8890,"/p/e":9000}}"#);
            let import = registry.import(&theirs, Winner::Theirs);
            assert_eq!(import.removed.len(), 2, "{import:?}");
        });
    }

    #[test]
    fn what_others_noted_comes_back_too() {
        let before = registry(THREE);
        let mut after = before.clone();
        after.remove(&project("/p/a"));
        let change = Change::between(&before, &after);
        assert_eq!(change.projects(), 1);
        after.take_back(&change).expect("nothing is in the way");
        assert!(after.to_text().contains("\"theirs\": [1]"));
    }

    #[test]
    fn a_change_of_a_moment_ago_keeps_what_has_happened_since() {
        let before = registry(THREE);
        let mut after = before.clone();
        after.pin(&project("/p/b"), true);
        let change = Change::between(&before, &after);
        let used = Moment::from(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        after.touch(&project("/p/b"), used, Duration::ZERO);
        after.remove(&project("/p/c"));
        after.take_back(&change).expect("nothing is in the way");
        let note = after.note(Path::new("/p/b"));
        assert_eq!((note.is_pinned, note.last_used), (false, Some(used)));
        assert_eq!(after.len(), 2, "what was removed since stays so");
    }

    #[test]
    fn what_stands_in_the_way_is_told_and_nothing_changes() {
        let before = registry(THREE);
        let mut after = before.clone();
        after.remove(&project("/p/a"));
        after.remove(&project("/p/b"));
        let change = Change::between(&before, &after);

        let mut taken = after.clone();
        let first = taken.allocate(&project("/p/x"), PortRange::DEFAULT, |free| {
            free == port(8888)
        });
        assert_eq!(first.map(|given| given.port), Ok(port(8888)));
        let untouched = taken.clone();
        let expected = Obstacle::PortOf {
            path: "/p/a".into(),
            port: port(8888),
            owner: "/p/x".into(),
        };
        assert_eq!(taken.take_back(&change), Err(vec![expected]));
        assert_eq!(taken, untouched);

        let mut changed = after.clone();
        let theirs = registry(r#"{"mappings":{"/p/b":9999}}"#);
        changed.import(&theirs, Winner::Nobody);
        let expected = Obstacle::Changed {
            path: "/p/b".into(),
            port: Some(port(9999)),
        };
        assert_eq!(changed.take_back(&change), Err(vec![expected]));

        let mut back = after;
        assert_eq!(back.take_back(&change), Ok(()));
        assert!(back.take_back(&change).is_err(), "it is taken back once");
    }

    #[test]
    fn use_of_a_port_is_no_change_to_take_back() {
        let before = registry(THREE);
        let mut after = before.clone();
        let used = Moment::from(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        after.touch(&project("/p/c"), used, Duration::ZERO);
        assert!(Change::between(&before, &after).is_empty());
    }
}
