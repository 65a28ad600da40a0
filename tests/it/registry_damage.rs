//! Damaged registry files: what is refused, what is recovered, and that no mapping is invented.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use interceptor::registry::recover::{self, Recovered};
use interceptor::registry::{Damage, Issue, Registry};

/// A complete file, with fields before and after the mappings.
const WHOLE: &str = r#"{
  "version": "1.0",
  "port_range": {
    "start": 8888,
    "end": 9999
  },
  "notes": {"/not/a/mapping": 1, "deep": [{"/nor/this": 2}]},
  "mappings": {
    "/home/me/a": 8888,
    "/home/me/caf\udce9": 8889,
    "/home/me/\"c\", {d}: 1": 88,
    "/home/me/e": 65535
  },
  "next_available": 8890,
  "pins": {"/home/me/a": 8888, "/home/me/f": 9000}
}"#;

#[test]
fn a_file_truncated_at_any_byte_loses_only_incomplete_mappings() {
    let whole = Registry::parse(WHOLE.as_bytes()).unwrap();
    // A port is complete if the text after it has been read: the next field, or the end of the object.
    let after = |text: &str| WHOLE.find(text).unwrap() + text.len();
    let ends = [
        after("\"/home/me/a\": 8888,"),
        after("8889,"),
        after("1\": 88,"),
        after("65535\n  }"),
    ];
    let ports = [8888, 8889, 88, 65535];
    for len in 1..WHOLE.len() {
        let torn = &WHOLE.as_bytes()[..len];
        assert!(
            matches!(Registry::parse(torn), Err(Damage::Torn(_))),
            "at {len}"
        );
        // Zero bytes that a crash can leave, and bytes that editors append.
        for padding in ["", "\n", "\0\0\0\0", "\r\n\0\0"] {
            let text = [torn, padding.as_bytes()].concat();
            let Recovered { registry, issues } = recover::recover(&text);
            let expected: Vec<u16> = (0..4)
                .filter(|&at| len >= ends[at])
                .map(|at| ports[at])
                .collect();
            let mut found = numbers(&registry);
            found.sort_by_key(|port| ports.iter().position(|known| known == port));
            assert_eq!(found, expected, "at {len}: {}", torn.escape_ascii());
            for (path, port) in registry.mappings() {
                assert_eq!(whole.path_of(port), Some(path), "at {len}");
            }
            // At most the mapping at the end is named.
            match &issues[..] {
                [] => {}
                [Issue::BrokenOff { path }] => {
                    let next = whole.path_of(ports[found.len()].try_into().unwrap());
                    assert_eq!(Some(path.as_path()), next, "at {len}");
                }
                _ => panic!("at {len}: {issues:?}"),
            }
            check_written(&registry);
        }
    }
    assert_eq!(recover::recover(WHOLE.as_bytes()).registry, whole);
}

#[test]
fn a_file_without_its_first_bytes_keeps_complete_mappings() {
    let whole = Registry::parse(WHOLE.as_bytes()).unwrap();
    let mappings = WHOLE.find("\"mappings\"").unwrap();
    for start in 1..WHOLE.len() {
        let rest = &WHOLE.as_bytes()[start..];
        let recovered = recover::recover(rest).registry;
        for (path, port) in recovered.mappings() {
            // Without its name, the value of a field cannot be distinguished from the mappings.
            let is_mapping = whole.path_of(port) == Some(path);
            let is_pin = (path, port.get()) == (Path::new("/home/me/f"), 9000);
            let is_note = path == Path::new("/not/a/mapping") || path == Path::new("/nor/this");
            assert!(is_mapping || is_pin || is_note, "at {start}: {path:?}");
            assert!(start > mappings || !is_pin, "at {start}");
        }
        if start <= mappings {
            for (path, port) in whole.mappings() {
                assert_eq!(recovered.path_of(port), Some(path), "at {start}");
            }
        }
        check_written(&recovered);
    }
}

#[test]
fn a_file_with_one_byte_changed_gains_no_mapping() {
    let whole = Registry::parse(WHOLE.as_bytes()).unwrap();
    let name = WHOLE.find("\"mappings\"").unwrap();
    for at in 0..WHOLE.len() {
        for byte in *b"\0\n\" {}[],:x\xff" {
            let mut text = WHOLE.as_bytes().to_vec();
            text[at] = byte;
            let Recovered { registry, .. } = recover::recover(&text);
            let text = String::from_utf8_lossy(&text);
            let plain = text.replace("\\udce9", "\u{fffd}").replace("\\\"", "\"");
            let without_space = |text: &str| text.split_whitespace().collect::<String>();
            let plain = without_space(&plain);
            for (path, port) in registry.mappings() {
                // A known mapping, or one that is in the text with this port.
                let known = whole.path_of(port) == Some(path);
                let spelled = without_space(&format!("{}\":{port}", path.display()));
                assert!(
                    known || plain.contains(&spelled),
                    "{byte:#x} at {at}: {path:?} {port}"
                );
            }
            // One byte affects at most the two adjacent mappings, unless it is in the key of the mappings.
            let is_in_name = (name..name + "\"mappings\"".len()).contains(&at);
            assert!(
                registry.len() >= 2 || is_in_name,
                "{byte:#x} at {at}: {text}"
            );
            check_written(&registry);
        }
    }
}

#[test]
fn valid_json_with_invalid_mappings_loses_only_those() {
    /// The text of the mappings, those that are kept, and the report about the others.
    #[track_caller]
    fn check(mappings: &str, kept: &[(&str, u16)], said: &str) {
        let text = format!(
            "{{\"version\": \"1.0\", \"x\": [1], \"mappings\": {mappings}, \"next_available\": 9000}}"
        );
        let damage = Registry::parse(text.as_bytes()).expect_err(&text);
        assert!(
            matches!(damage, Damage::Inconsistent(_)),
            "{text}: {damage}"
        );
        assert_eq!(damage.to_string(), said, "{text}");
        check_recovered(&text, kept);
        let written = recover::recover(text.as_bytes()).registry.to_text();
        for field in ["\"x\": [1]", "\"next_available\": 9000"] {
            assert!(written.contains(field), "{written}");
        }
    }
    for value in [
        "0",
        "65536",
        "65537",
        "99999999999999999999999",
        "-1",
        "8888.5",
        "8.888e3",
        "0.0",
        "\"\"",
        "\"0\"",
        "\"70000\"",
        "\" 8888\"",
        "\"+8888\"",
        "\"8888.0\"",
        "-0",
        "true",
        "false",
        "null",
        "[]",
        "[8888]",
        "{}",
    ] {
        check(
            &format!("{{\"/a\": 1, \"/b\": {value}, \"/c\": 3}}"),
            &[("/a", 1), ("/c", 3)],
            &format!("`/b` has `{value}`, which is not a port"),
        );
    }
    check(
        r#"{"/b": {"port": 8888, "/inside": 4}, "/c": 3}"#,
        &[("/c", 3)],
        r#"`/b` has `{"port": 8888, "/inside"…`, which is not a port"#,
    );
    for relative in ["a", "", ".", "..", "~/a", "a/b", "C:\\\\a"] {
        let shown = relative.replace("\\\\", "\\");
        check(
            &format!("{{\"{relative}\": 1, \"/c\": 3}}"),
            &[("/c", 3)],
            &format!("the path `{shown}` is not absolute"),
        );
    }
    // No path contains a NUL character.
    check(
        r#"{"/a\u0000b": 1, "/c": 3}"#,
        &[("/c", 3)],
        r"the path `/a\0b` contains a NUL character",
    );
    check(
        r#"{"/a": 1, "/b": 1, "/c": 1, "/d": 2}"#,
        &[("/a", 1), ("/d", 2)],
        "port 1 stays with `/a`, `/b` loses it; port 1 stays with `/a`, `/c` loses it",
    );
    check(
        r#"{"/a": 1, "/b": 2, "/a": 3}"#,
        &[("/a", 3), ("/b", 2)], // as every JSON reader has it, the Python tool among them
        "`/a` keeps port 3 and loses 1",
    );
    check(r#"{"/a": 1, "/a": 1}"#, &[("/a", 1)], "`/a` occurs twice");
    check(
        r#"{"/a": 1, "/\u0061/": 1}"#,
        &[("/a", 1)],
        "`/a/` occurs twice",
    );
    check(
        r#"{"/a": 1, "/a": 2, "/b": 2}"#,
        &[("/a", 2)],
        "`/a` keeps port 2 and loses 1; port 2 stays with `/a`, `/b` loses it",
    );
    check(
        r#"{"/a": 0, "/b": 0, "/c": 0, "/d": 0, "/e": 0}"#,
        &[],
        "`/a` has `0`, which is not a port; `/b` has `0`, which is not a port; `/c` has `0`, which is not a port; and 2 more",
    );
    for value in ["null", "[]", "[[\"/a\", 1]]", "\"/a\"", "8888", "true"] {
        check(value, &[], "`mappings` is not an object");
    }
    check(
        "{\"/a\\n\\u001b[31m\": 0}",
        &[],
        r"`/a\n\u{1b}[31m` has `0`, which is not a port",
    );
    check(
        "{\"/a\": 1}, \"mappings\": {\"/b\": 2}",
        &[("/a", 1), ("/b", 2)],
        "`mappings` occurs twice",
    );
}

#[test]
fn invalid_json_is_recovered_as_far_as_possible() {
    #[track_caller]
    fn check(text: &str, kept: &[(&str, u16)]) {
        let damage = Registry::parse(text.as_bytes()).expect_err(text);
        assert!(matches!(damage, Damage::Torn(_)), "{text}: {damage}");
        check_recovered(text, kept);
    }
    // Without an end, or without a beginning.
    check(r#"{"mappings": {"/a": 1, "/b": 2"#, &[("/a", 1)]);
    check(
        r#"{"mappings": {"/a": 1, "/b": 2}"#,
        &[("/a", 1), ("/b", 2)],
    );
    check(r#""/a": 1, "/b": 2}}"#, &[("/a", 1), ("/b", 2)]);
    check(r#"/a": 1, "/b": 2}}"#, &[("/b", 2)]);
    // Typing errors.
    check(
        r#"{"mappings": {"/a": 1, "/b": 2,}}"#,
        &[("/a", 1), ("/b", 2)],
    );
    check(
        r#"{"mappings": {"/a": 1 "/b": 2}}"#,
        &[("/a", 1), ("/b", 2)],
    );
    check(
        "{\"mappings\": {\"/a\": 1\n\"/b\": 2}}",
        &[("/a", 1), ("/b", 2)],
    );
    check(
        r#"{"mappings": {"/a": 1,, "/b": 2}}"#,
        &[("/a", 1), ("/b", 2)],
    );
    check(
        r#"{"mappings": {"/a: 1, "/b": 2, "/c": 3}}"#,
        &[("/b", 2), ("/c", 3)],
    );
    check("{\"mappings\": {\"/a: 1,\n\"/b\": 2}}", &[("/b", 2)]);
    check(r#"{"mappings": {"/a" 1, "/b": 2}}"#, &[("/b", 2)]);
    check(
        r#"{"mappings": {"/a": 1}, "/b": 2, "x": 3"#,
        &[("/a", 1), ("/b", 2)],
    );
    check(
        r#"{"mappings": {"/a": 1}}, "/b": 2, "#,
        &[("/a", 1), ("/b", 2)],
    );
    check(
        "{\"mappings\": {\"/a\": 1 // mine\n, \"/b\": 2}}",
        &[("/a", 1), ("/b", 2)],
    );
    check(
        "{\"mappings\": {\"/a\": 1, // mine\n \"/b\": 2}}",
        &[("/a", 1), ("/b", 2)],
    );
    check(r#"{'mappings': {'/a': 1}}"#, &[]);
    check(r#"{"mappings": {/a: 1, "/b": 2}}"#, &[("/b", 2)]);
    check(r#"[{"mappings": {"/a": 1}}"#, &[("/a", 1)]);
    check(r#"x{"mappings": {"/a": 1}}"#, &[("/a", 1)]);
    check(r#"{"mappings": {"/a": 1}} x"#, &[("/a", 1)]);
    check("{\"mappings\": {\"/a\nb\": 1, \"/b\": 2}}", &[("/b", 2)]);
    check(
        "<<<<<<< HEAD\n\"/a\": 1,\n=======\n\"/b\": 1,\n>>>>>>>",
        &[("/a", 1)],
    );
    // Numbers that are not ports, or may be incomplete.
    for odd in [
        "0",
        "65536",
        "08888",
        "1.5",
        "1e3",
        "-1",
        "+1",
        "1_000",
        "0x50",
        "1a",
        "\"1 \"",
        "1.",
        "[1]",
        "{\"x\": 7}",
        "true",
    ] {
        check(
            &format!("{{\"mappings\": {{\"/a\": {odd}, \"/b\": 2,"),
            &[("/b", 2)],
        );
        check(&format!("{{\"mappings\": {{\"/a\": {odd}"), &[]);
    }
    // Values of fields are not mappings, even if truncated.
    check(
        r#"{"pins": {"/a": 1}, "mappings": {"/b": 2}, "x"#,
        &[("/b", 2)],
    );
    check(
        r#"{"pins": {"/a": 1, "y": nonsense, "/c": 3}, "mappings": {"/b": 2}"#,
        &[("/b", 2)],
    );
    check(r#"{"pins": [{"/a": 1}, {"/c": 3,"#, &[]);
    check(
        r#"{"mappings": {"/b": 2, "next_available": 4, "pins": {"/a": 1,"#,
        &[("/b", 2)],
    );
    // A missing or an extra bracket affects a field, not the mappings.
    check(
        r#"{"port_range": {"start": 1, "mappings": {"/a": 1, "/b": 2}, "next_available": 3}"#,
        &[("/a", 1), ("/b", 2)],
    );
    check(
        r#"{"version": {"1.0", "mappings": {"/a": 1}}"#,
        &[("/a", 1)],
    );
    check(r#"{"x": [[{"y": 1, "mappings": {"/a": 1}}"#, &[("/a", 1)]);
    check(r#"{"x": {}}, "mappings": {"/a": 1}}}"#, &[("/a", 1)]);
    check(
        r#"{"mappings": {"/a": 1, "/b": {2, "/c": 3}, "pins": {"/d": 4}}"#,
        &[("/a", 1), ("/c", 3)],
    );
    check(
        r#"{"mappings": {"/a": [{"/b": 2}, {"c": {"/d": 4}}], "/e": 5, "x"#,
        &[("/b", 2), ("/e", 5)],
    );
    // Unless the mappings are in their place.
    check(
        r#"{"old": {"mappings": {"/a": 1}}, "mappings": {"/b": 2}, "x"#,
        &[("/b", 2)],
    );
    check(
        r#"{"old": {"mappings": {"/a": 1}}, "mappings": {}, "x"#,
        &[],
    );
    // In a damaged text the first mapping wins: the text after the damage may be left over from an older file.
    check(
        r#"{"mappings": {"/a": 1, "/b": 2}, "next_available": 3}ings": {"/a": 7, "/c": 1, "/d": 4}}"#,
        &[("/a", 1), ("/b", 2), ("/d", 4)],
    );
    check("{\"mappings\": {\"/a\": 1},\u{feff}", &[("/a", 1)]);
}

#[test]
fn complete_fields_are_kept_in_a_truncated_file() {
    let text = r#"{"version": "2.0", "pins": {"/a": [1, 2]}, "mappings": {"/b": 2}, "port_range": {"start": 1, "end": 9, "x": null}, "next_available": 5, "last_use": {"/b": 17"#;
    let recovered = recover::recover(text.as_bytes()).registry;
    let written = recovered.to_text();
    let expected = r#"{
  "version": "2.0",
  "port_range": {"start": 1, "end": 9, "x": null},
  "mappings": {
    "/b": 2
  },
  "pins": {"/a": [1, 2]},
  "next_available": 5
}"#;
    assert_eq!(written, expected);
}

#[test]
fn a_syntax_error_is_reported_with_its_position() {
    #[track_caller]
    fn check(text: &[u8], said: &str) {
        let damage = Registry::parse(text).expect_err(said);
        assert_eq!(damage.to_string(), said, "{}", text.escape_ascii());
    }
    check(b"x", "expected value at line 1 column 1");
    check(b"[]", "it is not a JSON object");
    check(b"\"a\\nb\"", "it is not a JSON object");
    check(b"{", "EOF while parsing an object at line 1 column 1");
    check(b"{\n  \"a\" 1}", "expected `:` at line 2 column 7");
    check(b"{\"a\":1,}", "trailing comma at line 1 column 8");
    check(
        b"{\"a\":1\n\"b\":2}",
        "expected `,` or `}` at line 2 column 1",
    );
    check(b"{\"a\":[1 2]}", "expected `,` or `]` at line 1 column 9");
    check(b"{\"a\":01}", "invalid number at line 1 column 7");
    check(b"{\"a\":\"\\x\"}", "invalid escape at line 1 column 8");
    check(
        b"{\"a\":\"\xff\"}",
        "invalid unicode code point at line 1 column 7",
    );
    check(b"{} {}", "trailing characters at line 1 column 4");
    check(
        b"\xef\xbb\xbf{\n\n}x",
        "trailing characters at line 3 column 2",
    );
}

#[test]
fn deep_long_and_binary_files_are_handled() {
    const DEPTH: usize = 100_000;
    // Quadratic time would not end.
    const LONG: usize = 1 << 20;
    let kept: &[(&str, u16)] = &[("/a", 1)];
    let deep = |open: &str, close: &str| {
        let (open, close) = (open.repeat(DEPTH), close.repeat(DEPTH));
        format!("{{\"x\": {open}1{close}, \"mappings\": {{\"/a\": 1}}}}")
    };
    for text in [deep("[", "]"), deep("{\"k\": ", "}")] {
        let registry = Registry::parse(text.as_bytes()).unwrap();
        assert_eq!(registry.len(), 1);
        assert!(registry.to_text().len() >= text.len());
        // The same, truncated.
        check_recovered(&text[..text.len() - 1], kept);
        check_recovered(&text[..text.len() / 2], &[]);
    }
    check_recovered(&"[".repeat(LONG), &[]);
    check_recovered(&"{\"mappings\":".repeat(LONG / 12), &[]);
    check_recovered(&"\"".repeat(LONG), &[]);
    check_recovered(&"\\\"".repeat(LONG / 2), &[]);
    check_recovered(&"\"/a\":".repeat(LONG / 5), &[]);
    check_recovered(&"\"/a\":1,".repeat(LONG / 7), kept);
    check_recovered(&"\"/a\" ".repeat(LONG / 5), &[]);
    check_recovered(&format!("\"/a\":1,\"/b\":\"{}", "\\".repeat(LONG)), kept);
    check_recovered(
        &format!("{{\"/a\":1,\"x\":{}", "{\"x\":[".repeat(LONG / 6)),
        kept,
    );
    check_recovered(&format!("\"/a\":1,{}", " ".repeat(LONG)), kept);
    check_recovered(&format!("\"/a\":1,{}\"/b\":2", "]".repeat(LONG)), kept);

    let mut state = 1u32;
    let noise: Vec<u8> = (0..LONG)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    assert!(matches!(Registry::parse(&noise), Err(Damage::Torn(_))));
    assert!(recover::recover(&noise).registry.is_empty());
    let hidden = [&noise[..LONG / 2], b"\n\"/a\": 1,\n", &noise[LONG / 2..]].concat();
    assert_eq!(numbers(&recover::recover(&hidden).registry), [1]);
    assert!(recover::recover(&vec![0; LONG]).registry.is_empty());
}

#[track_caller]
fn check_recovered(text: &str, kept: &[(&str, u16)]) {
    let registry = recover::recover(text.as_bytes()).registry;
    let found: BTreeMap<PathBuf, u16> = registry
        .mappings()
        .map(|(path, port)| (path.to_owned(), port.get()))
        .collect();
    let expected: BTreeMap<PathBuf, u16> = kept
        .iter()
        .map(|&(path, port)| (PathBuf::from(path), port))
        .collect();
    assert_eq!(found, expected, "{:.300}", text);
    check_written(&registry);
}

/// The recovered registry is sound.
#[track_caller]
fn check_written(registry: &Registry) {
    let text = registry.to_text();
    let read =
        Registry::parse(text.as_bytes()).unwrap_or_else(|damage| panic!("{damage}: {text:.300}"));
    assert_eq!(read.to_text(), text);
    assert!(read.mappings().eq(registry.mappings()), "{text:.300}");
}

fn numbers(registry: &Registry) -> Vec<u16> {
    registry.mappings().map(|(_, port)| port.get()).collect()
}

#[test]
fn the_mapping_at_the_end_of_a_truncated_file_is_named() {
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let issues = recover::recover(text.as_bytes()).issues;
        let told: Vec<String> = issues.iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{text}");
    }
    const LOST: &str = "the file ends before the port of `/b`";
    check(r#"{"mappings": {"/a": 1, "/b": 88"#, &[LOST]);
    check("{\"mappings\": {\"/a\": 1, \"/b\": 88\n\0\0", &[LOST]); // 88 may have gone on
    check(r#"{"mappings": {"/a": 1, "/b":"#, &[LOST]);
    check(r#"{"mappings": {"/a": 1, "/b""#, &[LOST]);
    check(r#"{"mappings": {"/a": 1, "/b"#, &[]); // and so may the path
    check(r#"{"mappings": {"/a": 1,"#, &[]);
    check(r#"{"mappings": {"/a": 1}, "next_available": 88"#, &[]);
    check(r#"{"pins": {"/a": 1, "/b": 88"#, &[]);
}
