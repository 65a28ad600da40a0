//! Mappings of another registry, and mappings as comma-separated values: pure.

use std::path::{Path, PathBuf};

use interceptor::registry::import::{Conflict, Contradiction, Import, Winner};
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
fn check(here: Mappings, theirs: Mappings, winner: Winner, expected: &Import, after: Mappings) {
    let mut registry = registry(here);
    let imported = registry.import(&self::registry(theirs), winner);
    assert_eq!(&imported, expected);
    mapped(&registry, after);
    // What is there is not taken over again.
    if winner == Winner::Theirs {
        let before = registry.clone();
        let again = registry.import(&self::registry(theirs), winner);
        assert_eq!(again.unchanged, theirs.len());
        assert_eq!((again.conflicts.len(), &registry), (0, &before));
    }
}

fn conflict(path: &str, number: u16, here: Contradiction) -> Conflict {
    Conflict {
        path: path.into(),
        port: port(number),
        here,
    }
}

#[test]
fn without_conflicts_registries_are_merged() {
    for winner in [Winner::Nobody, Winner::Theirs] {
        check(
            &[("/a", 1), ("/b", 2)],
            &[("/b", 2), ("/c", 3)],
            winner,
            &Import {
                added: list(&[("/c", 3)]),
                unchanged: 1,
                ..Import::default()
            },
            &[("/a", 1), ("/b", 2), ("/c", 3)],
        );
        check(&[("/a", 1)], &[], winner, &Import::default(), &[("/a", 1)]);
    }
}

#[test]
fn one_conflict_keeps_everything_out() {
    let has = conflict("/a", 9, Contradiction::HasPort(port(1)));
    let of = conflict("/c", 2, Contradiction::PortOf("/b".into()));
    check(
        &[("/a", 1), ("/b", 2)],
        &[("/a", 9), ("/c", 2), ("/new", 7)],
        Winner::Nobody,
        &Import {
            conflicts: vec![has, of],
            ..Import::default()
        },
        &[("/a", 1), ("/b", 2)],
    );
}

#[test]
fn the_file_wins_each_conflict_and_other_mappings_stay() {
    let has = conflict("/a", 9, Contradiction::HasPort(port(1)));
    let of = conflict("/c", 2, Contradiction::PortOf("/b".into()));
    check(
        &[("/a", 1), ("/b", 2), ("/stays", 3)],
        &[("/a", 9), ("/c", 2), ("/new", 7)],
        Winner::Theirs,
        &Import {
            added: list(&[("/c", 2), ("/new", 7)]),
            moved: list(&[("/a", 9)]),
            removed: list(&[("/b", 2)]),
            conflicts: vec![has, of],
            ..Import::default()
        },
        &[("/c", 2), ("/stays", 3), ("/new", 7), ("/a", 9)],
    );
    // Two that change places.
    let swapped = [
        conflict("/a", 2, Contradiction::HasPort(port(1))),
        conflict("/a", 2, Contradiction::PortOf("/b".into())),
        conflict("/b", 1, Contradiction::HasPort(port(2))),
        conflict("/b", 1, Contradiction::PortOf("/a".into())),
    ];
    check(
        &[("/a", 1), ("/b", 2)],
        &[("/a", 2), ("/b", 1)],
        Winner::Theirs,
        &Import {
            moved: list(&[("/a", 2), ("/b", 1)]),
            conflicts: swapped.to_vec(),
            ..Import::default()
        },
        &[("/b", 1), ("/a", 2)],
    );
}

#[test]
fn what_is_noted_comes_along() {
    let theirs = r#"{"mappings": {"/a": 1, "/b": 2},
        "ic": {"projects": {"/a": {"pinned": true, "last_used": 5}, "/b": {"pinned": true}}}}"#;
    let theirs = Registry::parse(theirs.as_bytes()).expect("a registry");
    let mut here = registry(&[("/b", 2)]);
    here.import(&theirs, Winner::Nobody);
    let note = here.note(Path::new("/a"));
    assert!(note.is_pinned && note.last_used.is_some(), "{note:?}");
    assert!(
        !here.note(Path::new("/b")).is_pinned,
        "what was here stays as it was"
    );
}

#[test]
fn paths_are_moved_from_one_root_to_another() {
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
    let moved = here.rerooted(&roots(&[("/home/me", "/Users/me"), ("/srv", "/")]));
    mapped(
        &moved.expect("no two become one"),
        &[
            ("/Users/me", 1),
            ("/Users/me/a/b", 2),
            ("/home/meo", 3),
            ("/", 4),
        ],
    );
    let longest = here.rerooted(&roots(&[
        ("/home", "/x"),
        ("/home/me/a", "/y/"),
        ("/", "/z"),
    ]));
    mapped(
        &longest.expect("no two become one"),
        &[("/x/me", 1), ("/y/b", 2), ("/x/meo", 3), ("/z/srv", 4)],
    );
    let one = here.rerooted(&roots(&[("/home/me", "/srv")]));
    assert_eq!(one, Err("/srv".into()));
}

#[test]
fn csv_says_what_the_registry_says() {
    let odd = [
        ("/plain", 1),
        ("/with,comma", 2),
        ("/with\"quote\"", 3),
        ("/with\nline\r\nbreaks", 4),
        ("/ends in space ", 5),
        ("/Übung/日本", 6),
    ];
    let here = registry(&odd);
    let text = here.to_csv();
    assert!(text.starts_with(
        b"path,port\r\n/plain,1\r\n\"/with,comma\",2\r\n\"/with\"\"quote\"\"\",3\r\n"
    ));
    let again = Registry::from_csv(&text).expect("a header").expect("rows");
    mapped(&again, &odd);
    // Bytes that are no UTF-8.
    let latin = Registry::parse(br#"{"mappings": {"/caf\udce9": 7}}"#).expect("a registry");
    let text = latin.to_csv();
    assert_eq!(text, b"path,port\r\n/caf\xe9,7\r\n");
    let again = Registry::from_csv(&text).expect("a header").expect("rows");
    assert_eq!(again.to_csv(), text);
}

#[test]
fn csv_of_others_is_read() {
    #[track_caller]
    fn check(text: &str, expected: Result<Mappings, &str>) {
        let read = Registry::from_csv(text.as_bytes()).expect("a header");
        match expected {
            Ok(expected) => mapped(&read.expect("rows"), expected),
            Err(expected) => assert_eq!(read.expect_err(expected).to_string(), expected),
        }
    }
    check("path,port", Ok(&[]));
    check("path,port\n/a,1\n/b,2", Ok(&[("/a", 1), ("/b", 2)]));
    check(
        "\u{feff}Port , project,PATH\r\n 1 ,x,/a\r\n\r\n2,y,/b\r\n",
        Ok(&[("/a", 1), ("/b", 2)]),
    );
    check("\"path\",\"port\"\n\"/a\",\"1\"\n", Ok(&[("/a", 1)]));
    check("path,port\n/a\n", Err("line 2: it has no path or no port"));
    check(
        "path,port\n\n\na,1\n",
        Err("line 4: the path `a` is not absolute"),
    );
    check("path,port\n/a,0\n", Err("line 2: `0` is no port"));
    check(
        "path,port\n\"/a\nb\",1\n/c,x\n",
        Err("line 4: `x` is no port"),
    );
    check(
        "path,port\n/a,1\n/a,2\n",
        Err("line 3: `/a` is there twice"),
    );
    check(
        "path,port\n/a,1\n/b,1\n",
        Err("line 3: port 1 is there twice"),
    );
    check(
        "path,port\n\"/a,1\n",
        Err("line 2: a quoted value does not end where it should"),
    );
    check(
        "path,port\n\"/a\"b,1\n",
        Err("line 2: a quoted value does not end where it should"),
    );
    for other in [
        "",
        "/a,8888\n",
        "{\"mappings\": {}}",
        "path\n/a\n",
        "\"path,port",
    ] {
        assert_eq!(Registry::from_csv(other.as_bytes()), None, "{other:?}");
    }
}
