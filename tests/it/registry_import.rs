//! Import of the mappings of another registry, as pure functions.

use std::path::{Path, PathBuf};

use interceptor::registry::import::{Conflict, ConflictKind, ConflictPolicy, Import};
use interceptor::registry::{Port, Registry};

/// A registry of these mappings.
fn registry(mappings: &[(&str, u16)]) -> Registry {
    let mappings: serde_json::Map<_, _> = mappings
        .iter()
        .map(|(path, port)| ((*path).to_owned(), (*port).into()))
        .collect();
    let text = serde_json::json!({ "mappings": mappings }).to_string();
    Registry::parse(text.as_bytes()).expect("a registry")
}

fn port(number: u16) -> Port {
    Port::try_from(number).expect("not 0")
}

fn list(mappings: &[(&str, u16)]) -> Vec<(PathBuf, Port)> {
    mappings
        .iter()
        .map(|&(path, number)| (path.into(), port(number)))
        .collect()
}

#[track_caller]
fn mapped(registry: &Registry, expected: &[(&str, u16)]) {
    let found: Vec<_> = registry
        .mappings()
        .map(|(path, port)| (path.to_str().expect("UTF-8"), port.get()))
        .collect();
    assert_eq!(found, expected);
}

type Mappings<'a> = &'a [(&'a str, u16)];

#[track_caller]
fn check(
    here: Mappings,
    theirs: Mappings,
    policy: ConflictPolicy,
    expected: &Import,
    after: Mappings,
) {
    let mut registry = registry(here);
    let imported = registry.import(&self::registry(theirs), policy);
    assert_eq!(&imported, expected);
    mapped(&registry, after);
    // Existing mappings are not imported again.
    if policy == ConflictPolicy::Overwrite {
        let before = registry.clone();
        let again = registry.import(&self::registry(theirs), policy);
        assert_eq!(again.unchanged, theirs.len());
        assert_eq!((again.conflicts.len(), &registry), (0, &before));
    }
}

fn conflict(path: &str, number: u16, here: ConflictKind) -> Conflict {
    Conflict {
        path: path.into(),
        port: port(number),
        here,
    }
}

#[test]
fn registries_without_conflicts_are_merged() {
    for policy in [ConflictPolicy::Reject, ConflictPolicy::Overwrite] {
        check(
            &[("/a", 1), ("/b", 2)],
            &[("/b", 2), ("/c", 3)],
            policy,
            &Import {
                added: list(&[("/c", 3)]),
                unchanged: 1,
                ..Import::default()
            },
            &[("/a", 1), ("/b", 2), ("/c", 3)],
        );
        check(&[("/a", 1)], &[], policy, &Import::default(), &[("/a", 1)]);
    }
}

#[test]
fn one_conflict_refuses_the_whole_import() {
    let has = conflict("/a", 9, ConflictKind::HasPort(port(1)));
    let of = conflict("/c", 2, ConflictKind::PortOf("/b".into()));
    check(
        &[("/a", 1), ("/b", 2)],
        &[("/a", 9), ("/c", 2), ("/new", 7)],
        ConflictPolicy::Reject,
        &Import {
            conflicts: vec![has, of],
            ..Import::default()
        },
        &[("/a", 1), ("/b", 2)],
    );
}

#[test]
fn with_replace_the_file_wins_each_conflict_and_other_mappings_are_kept() {
    let has = conflict("/a", 9, ConflictKind::HasPort(port(1)));
    let of = conflict("/c", 2, ConflictKind::PortOf("/b".into()));
    check(
        &[("/a", 1), ("/b", 2), ("/stays", 3)],
        &[("/a", 9), ("/c", 2), ("/new", 7)],
        ConflictPolicy::Overwrite,
        &Import {
            added: list(&[("/c", 2), ("/new", 7)]),
            moved: list(&[("/a", 9)]),
            removed: list(&[("/b", 2)]),
            conflicts: vec![has, of],
            ..Import::default()
        },
        &[("/c", 2), ("/stays", 3), ("/new", 7), ("/a", 9)],
    );
    let mut here = registry(&[("/a", 1), ("/b", 2), ("/stays", 3)]);
    let there = registry(&[("/a", 9), ("/c", 2), ("/new", 7), ("/stays", 3)]);
    let import = here.import(&there, ConflictPolicy::Overwrite);
    let lost: Vec<_> = import.lost().collect();
    assert_eq!(
        lost,
        [(Path::new("/b"), port(2)), (Path::new("/a"), port(1))]
    );
    // Two projects that swap ports.
    let swapped = [
        conflict("/a", 2, ConflictKind::HasPort(port(1))),
        conflict("/a", 2, ConflictKind::PortOf("/b".into())),
        conflict("/b", 1, ConflictKind::HasPort(port(2))),
        conflict("/b", 1, ConflictKind::PortOf("/a".into())),
    ];
    check(
        &[("/a", 1), ("/b", 2)],
        &[("/a", 2), ("/b", 1)],
        ConflictPolicy::Overwrite,
        &Import {
            moved: list(&[("/a", 2), ("/b", 1)]),
            conflicts: swapped.to_vec(),
            ..Import::default()
        },
        &[("/b", 1), ("/a", 2)],
    );
}

#[test]
fn notes_are_imported() {
    let theirs = r#"{"mappings": {"/a": 1, "/b": 2},
        "ic": {"projects": {"/a": {"pinned": true, "last_used": 5}, "/b": {"pinned": true}}}}"#;
    let theirs = Registry::parse(theirs.as_bytes()).expect("a registry");
    let mut here = registry(&[("/b", 2)]);
    here.import(&theirs, ConflictPolicy::Reject);
    let note = here.note(Path::new("/a"));
    assert!(note.is_pinned && note.last_used.is_some(), "{note:?}");
    let note = here.note(Path::new("/b"));
    assert!(note.is_pinned, "also of a mapping that is there already");
}

#[test]
fn the_time_of_an_import_grows_with_the_number_of_mappings() {
    // In linear time it takes about a second in a debug build, in quadratic time minutes.
    let numbers = 1024..30_000;
    let mappings: Vec<String> = numbers.clone().map(|n| format!("\"/p{n}\": {n}")).collect();
    let note =
        |n| format!("\"/p{n}\": {{\"last_used\": 5, \"settings\": {{\"target\": \"http://a\"}}}}");
    let notes: Vec<String> = numbers.map(note).collect();
    let text = format!(
        "{{\"mappings\": {{{}}}, \"ic\": {{\"projects\": {{{}}}}}}}",
        mappings.join(", "),
        notes.join(", ")
    );
    let theirs = Registry::parse(text.as_bytes()).expect("a registry");
    let started = std::time::Instant::now();
    let mut here = registry(&[]);
    assert_eq!(
        here.import(&theirs, ConflictPolicy::Reject).added.len(),
        mappings.len()
    );
    assert_eq!(
        here.import(&theirs, ConflictPolicy::Reject).unchanged,
        mappings.len()
    );
    assert_eq!(here.notes().iter().count(), mappings.len());
    let taken = started.elapsed();
    assert!(taken < std::time::Duration::from_secs(20), "{taken:?}");
}

#[test]
fn settings_are_imported_and_other_ones_are_a_conflict() {
    /// The settings of `/a` here, there, and after an import that refuses conflicts and one that does not.
    #[track_caller]
    fn check(here: &str, there: &str, expected: Option<&str>, replaced: &str) {
        let text = |settings: &str| {
            let text = format!(
                r#"{{"mappings": {{"/a": 1}}, "ic": {{"projects": {{"/a": {{"pinned": true{settings}}}}}}}}}"#
            );
            Registry::parse(text.as_bytes()).expect("a registry")
        };
        let after = |policy, expected: Option<&str>| {
            let mut registry = text(here);
            let import = registry.import(&text(there), policy);
            let conflicts = match policy {
                ConflictPolicy::Reject if expected.is_none() => {
                    vec![conflict("/a", 1, ConflictKind::HasSettings)]
                }
                _ => import.conflicts.clone(),
            };
            assert_eq!(import.conflicts, conflicts, "{here} {there}");
            let expected = text(expected.unwrap_or(here));
            let path = Path::new("/a");
            assert_eq!(
                registry.notes().settings(path),
                expected.notes().settings(path)
            );
        };
        after(ConflictPolicy::Reject, expected);
        after(ConflictPolicy::Overwrite, Some(replaced));
    }
    let x = r#", "settings": {"target": "http://x"}"#;
    let spaced = r#", "settings": { "target":"http://x" }"#;
    let y = r#", "settings": {"instance_id": "y", "headers": [{"name": "a", "value": "b"}]}"#;
    check("", "", Some(""), "");
    check(x, "", Some(x), x);
    check("", x, Some(x), x);
    check(x, x, Some(x), x);
    check(x, spaced, Some(x), x);
    check(x, y, None, y);
}

#[test]
fn paths_are_mapped_from_one_root_to_another() {
    let roots = |pairs: &[(&str, &str)]| -> Vec<(PathBuf, PathBuf)> {
        pairs
            .iter()
            .map(|(from, to)| (from.into(), to.into()))
            .collect()
    };
    let here = registry(&[
        ("/home/me", 1),
        ("/home/me/a/b", 2),
        ("/home/meo", 3),
        ("/srv", 4),
    ]);
    let moved = here.remap_paths(&roots(&[("/home/me", "/Users/me"), ("/srv", "/")]));
    mapped(
        &moved.expect("the paths remain distinct"),
        &[
            ("/Users/me", 1),
            ("/Users/me/a/b", 2),
            ("/home/meo", 3),
            ("/", 4),
        ],
    );
    let longest = here.remap_paths(&roots(&[
        ("/home", "/x"),
        ("/home/me/a", "/y/"),
        ("/", "/z"),
    ]));
    mapped(
        &longest.expect("the paths remain distinct"),
        &[("/x/me", 1), ("/y/b", 2), ("/x/meo", 3), ("/z/srv", 4)],
    );
    let one = here.remap_paths(&roots(&[("/home/me", "/srv")]));
    assert_eq!(one, Err("/srv".into()));

    let noted = r#"{"mappings": {"/home/a": 1}, "ic": {"projects": {"/home/a": {
        "pinned": true, "theirs": 1, "settings": {"target": "http://x", "later": 2}}}}}"#;
    let noted = Registry::parse(noted.as_bytes()).expect("a registry");
    let moved = noted.remap_paths(&roots(&[("/home", "/Users")]));
    let text = moved.expect("the paths remain distinct").to_text();
    let moved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let expected = serde_json::json!({"pinned": true, "theirs": 1, "settings": {"target": "http://x", "later": 2}});
    assert_eq!(
        moved["ic"]["projects"],
        serde_json::json!({ "/Users/a": expected })
    );
}

#[test]
fn a_moved_project_keeps_its_note_when_another_mapping_is_removed() {
    let here = r#"{"mappings": {"/a": 1, "/b": 2},
        "ic": {"projects": {"/a": {"pinned": true}, "/b": {"pinned": true}}}}"#;
    let mut here = Registry::parse(here.as_bytes()).expect("a registry");
    let import = here.import(&registry(&[("/a", 2)]), ConflictPolicy::Overwrite);
    assert_eq!(import.removed, list(&[("/b", 2)]));
    assert!(here.note(Path::new("/a")).is_pinned);
    assert!(!here.note(Path::new("/b")).is_pinned);
}

#[test]
fn an_import_keeps_the_pins_and_the_later_use_of_both_registries() {
    /// The notes here, those there, and those of the result, each on `/a`, whose port is the same or another one.
    #[track_caller]
    fn check(here: &str, there: &str, expected: (bool, Option<u64>)) {
        for port in [8888, 8890] {
            let text = |port: u16, note: &str| {
                let text = format!(
                    r#"{{"mappings": {{"/a": {port}, "/b": 8889}}, "ic": {{"projects": {{"/a": {note}}}}}}}"#
                );
                Registry::parse(text.as_bytes()).unwrap()
            };
            let mut registry = text(8888, here);
            registry.import(&text(port, there), ConflictPolicy::Overwrite);
            let note = registry.note(Path::new("/a"));
            let found = (note.is_pinned, note.last_used.map(|time| time.seconds()));
            assert_eq!(found, expected, "{here} {there} {port}");
        }
    }
    let (pinned, used) = (r#"{"pinned": true}"#, r#"{"last_used": 5}"#);
    check("{}", "{}", (false, None));
    check(pinned, "{}", (true, None));
    check("{}", pinned, (true, None));
    check(pinned, used, (true, Some(5)));
    check(used, pinned, (true, Some(5)));
    check(used, r#"{"last_used": 6}"#, (false, Some(6)));
    check(used, r#"{"last_used": 4}"#, (false, Some(5)));
    check("{}", used, (false, Some(5)));
    check(r#"{"pinned": true, "theirs": 1}"#, used, (true, Some(5)));
    check("null", r#"{"former_port": 9000}"#, (false, None));

    // A member of another program stays, and JSON without notes changes none.
    let text =
        r#"{"mappings": {"/a": 8888}, "ic": {"projects": {"/a": {"pinned": true, "theirs": 1}}}}"#;
    let mut registry = Registry::parse(text.as_bytes()).unwrap();
    let bare = Registry::parse(br#"{"mappings": {"/a": 9000}}"#).unwrap();
    registry.import(&bare, ConflictPolicy::Overwrite);
    let written = registry.to_text();
    assert!(
        written.contains("\"theirs\": 1") && written.contains("\"pinned\": true"),
        "{written}"
    );
    assert!(written.contains("\"/a\": 9000"), "{written}");
}
