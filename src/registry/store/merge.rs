//! Changes of others, made at the same time as ours.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::registry::model::{Mapping, Registry};
use crate::registry::notes;
use crate::registry::port::Port;

impl Registry {
    /// Puts in what another program made of `base`: the mappings it added, without those it removed. Where both
    /// gave one project or one port away, what is here stays.
    pub(super) fn merge(&mut self, base: &Registry, theirs: &Registry) {
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
    pub(super) fn change_is_in(&self, base: &Registry, other_registry: &Registry) -> bool {
        let (before, after, other) = (base.by_path(), self.by_path(), other_registry.by_path());
        let added = |(path, port)| before.get(path) == Some(port) || other.get(path) == Some(port);
        let removed = |path| after.contains_key(path) || !other.contains_key(path);
        let is_noted = self.field(notes::FIELD) == base.field(notes::FIELD)
            || self.field(notes::FIELD) == other_registry.field(notes::FIELD);
        after.iter().all(added) && before.keys().all(removed) && is_noted
    }
}

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
