//! The registry as text: its format, what a rewrite keeps, and that Python's `json` writes the same bytes.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use interceptor::registry::recover::recover;
use interceptor::registry::{Damage, Port, PortRange, Project, Registry};
use serde_json::Value;

#[test]
fn a_new_registry_equals_that_of_the_python_tool() {
    let text = r#"{
  "version": "1.0",
  "port_range": {
    "start": 8888,
    "end": 9999
  },
  "mappings": {},
  "next_available": 8888
}"#;
    let fresh = Registry::parse(b"").unwrap();
    assert_eq!(fresh, Registry::default());
    assert_eq!(fresh.to_text(), text);
}

#[test]
fn a_registry_in_the_known_layout_is_written_unchanged() {
    /// The text of a file, which is written unchanged, and its mappings, the lowest port first.
    #[track_caller]
    fn check(why: &str, text: &str, mappings: &[(&str, u16)]) {
        let registry = Registry::parse(text.as_bytes()).expect(why);
        assert_eq!(registry.to_text(), text, "{why}");
        assert_eq!(mappings_of(&registry), owned(mappings), "{why}");
        assert_eq!(registry.len(), mappings.len(), "{why}");
        assert_eq!(registry.is_empty(), mappings.is_empty(), "{why}");
    }
    let layout = |before: &str, range: &str, mappings: &str, after: &str| {
        format!(
            "{{\n{before}  \"version\": \"1.0\",\n  \"port_range\": {range},\n  \
             \"mappings\": {mappings},\n  \"next_available\": 8890{after}\n}}"
        )
    };
    let range = "{\n    \"start\": 8888,\n    \"end\": 9999\n  }";
    let two = "{\n    \"/home/me/b\": 8889,\n    \"/home/me/a\": 8888\n  }";
    let both = [("/home/me/a", 8888), ("/home/me/b", 8889)];
    check("no mapping", &layout("", range, "{}", ""), &[]);
    check("in the file's order", &layout("", range, two, ""), &both);
    check(
        "unknown fields after them, with numbers that no number type holds",
        &layout(
            "",
            range,
            two,
            ",\n  \"pins\": [1.0, 1e999, 123456789012345678901234567890, -0],\n  \
             \"empty\": {}",
        ),
        &both,
    );
    check(
        "unknown fields before them, in another layout",
        &layout(
            "  \"notes\":  {\"a\":[ ],\n\t\"b\" : null},\n",
            range,
            two,
            "",
        )
        .replace(
            "\"notes\":  {",
            "\"notes\": {", // the layout between key and value is that of ic
        ),
        &both,
    );
    check(
        "unknown fields inside",
        &layout(
            "",
            "{\n    \"step\": 2,\n    \"start\": 8888,\n    \"why\": \"two\\u0020by two\",\n    \"end\": 9999\n  }",
            two,
            "",
        ),
        &both,
    );
    check(
        "spellings of keys and strings that json.dump would not choose",
        &layout(
            "  \"n\\u006ftes\": \"caf\\u00E9 \\/ café \\ud83d\",\n",
            range,
            "{\n    \"/home/me/caf\\u00E9\": 8888,\n    \"/home/me/日本\": 8889,\n    \"\\/x\": 1\n  }",
            "",
        ),
        &[("/x", 1), ("/home/me/café", 8888), ("/home/me/日本", 8889)],
    );
    check(
        "known fields in another order",
        "{\n  \"mappings\": {\n    \"/a\": 65535\n  },\n  \"next_available\": 1,\n  \
         \"version\": \"1.0\",\n  \"port_range\": {}\n}",
        &[("/a", 65535)],
    );
    check(
        "a duplicate field is kept",
        &layout("  \"notes\": 1,\n  \"notes\": 2,\n", range, two, ""),
        &both,
    );
}

#[test]
fn unusual_but_harmless_files_are_accepted() {
    /// An undamaged text, the start of the next search in 8888–9999, and its mappings.
    #[track_caller]
    fn check(text: impl AsRef<[u8]>, next: u16, mappings: &[(&str, u16)]) {
        let text = text.as_ref();
        let shown = text.escape_ascii();
        let registry = Registry::parse(text).unwrap_or_else(|damage| panic!("{shown}: {damage}"));
        assert_eq!(registry.next_in(PortRange::DEFAULT), port(next), "{shown}");
        assert_eq!(mappings_of(&registry), owned(mappings), "{shown}");
        let written = registry.to_text();
        let again = Registry::parse(written.as_bytes()).expect("ic wrote it");
        assert_eq!(again.to_text(), written, "{shown}");
        assert_eq!(mappings_of(&again), owned(mappings), "{shown}");
        // The Python tool needs each of these.
        let value: Value = serde_json::from_str(&written).expect("it is JSON");
        for field in ["version", "port_range", "mappings", "next_available"] {
            assert!(value.get(field).is_some(), "{field} in {written}");
        }
    }
    for nothing in [
        "",
        " ",
        "\n\n",
        "\u{feff}",
        "\u{feff} \r\n\t",
        "{}",
        " { } \n",
    ] {
        check(nothing, 8888, &[]);
    }
    check(
        "\u{feff}{\"mappings\":{\"/a\":9000}}\r\n",
        8888,
        &[("/a", 9000)],
    );
    check(r#"{"mappings": {}, "next_available": 9000}"#, 9000, &[]);
    for odd in [
        "0",
        "8887",
        "10000",
        "65536",
        "70000",
        "-1",
        "8890.0",
        "9e3",
        "\"8890\"",
        "null",
        "true",
        "[8890]",
        "{\"a\": 1}",
        "99999999999999999999999",
    ] {
        check(format!("{{\"next_available\": {odd}}}"), 8888, &[]);
    }
    for version in ["\"2.0\"", "\"\"", "1", "null", "{\"major\": 1}"] {
        let text = format!("{{\"version\": {version}, \"mappings\": {{\"/a\": 1}}}}");
        check(&text, 8888, &[("/a", 1)]);
        let written = Registry::parse(text.as_bytes())
            .expect("as above")
            .to_text();
        assert!(
            written.contains(&format!("\"version\": {version},")),
            "the version is kept: {written}"
        );
    }
    for range in ["{}", "null", "[8888, 9999]", "{\"start\": \"x\"}", "7"] {
        check(
            format!("{{\"port_range\": {range}, \"next_available\": 8890}}"),
            8890,
            &[],
        );
    }
    check(
        r#"{"next_available": 9000, "next_available": 9001}"#,
        9001, // the last duplicate wins, as in every JSON parser
        &[],
    );
    // Unusual paths, but absolute.
    check(
        r#"{"mappings": {"/": 1, "/a/../b/": 3, "/ ": 4, "/\n": 5}}"#,
        8888,
        &[("/", 1), ("/a/../b/", 3), ("/ ", 4), ("/\n", 5)],
    );
}

#[test]
fn a_text_in_utf_16_is_read_whole_or_is_torn() {
    let text = "{\"mappings\": {\"/home/é\": 8888, \"/日本\": 8889, \"/😀\": 8890}}";
    let expected = mappings_of(&Registry::parse(text.as_bytes()).unwrap());
    assert_eq!(expected.len(), 3);
    for bytes_of in [u16::to_le_bytes, u16::to_be_bytes] {
        let encoded = |units: &[u16]| -> Vec<u8> {
            let mark = std::iter::once(0xfeff);
            mark.chain(units.iter().copied())
                .flat_map(bytes_of)
                .collect()
        };
        let units: Vec<u16> = text.encode_utf16().collect();
        let whole = encoded(&units);
        let read = Registry::parse(&whole).unwrap();
        assert_eq!(mappings_of(&read), expected);
        assert_eq!(Registry::parse(&whole[..2]), Ok(Registry::default()));
        let is_torn = |text: &[u8]| {
            assert!(
                matches!(Registry::parse(text), Err(Damage::Torn(_))),
                "{text:?}"
            );
            let left = mappings_of(&recover(text).registry);
            assert!(
                left.iter().all(|mapping| expected.contains(mapping)),
                "{left:?}"
            );
        };
        for end in 3..whole.len() {
            is_torn(&whole[..end]);
        }
        is_torn(&[&whole[..], b"\0"].concat());
        is_torn(&[&whole[..], &whole].concat());
        // A surrogate without its partner is no character, and a path with it would be another one.
        let high = units
            .iter()
            .position(|unit| (0xd800..0xdc00).contains(unit))
            .unwrap();
        let mut alone = units.clone();
        alone.remove(high);
        is_torn(&encoded(&alone));
        alone = units.clone();
        alone.remove(high + 1);
        is_torn(&encoded(&alone));
    }
}

#[test]
fn a_port_in_quotes_or_with_a_fraction_of_zero_is_read_and_written_as_a_number() {
    for (value, number) in [
        ("\"8888\"", 8888),
        ("\"\\u0038888\"", 8888),
        ("8889.0", 8889),
        ("8889.000", 8889),
        ("\"1\"", 1),
        ("65535.0", 65535),
    ] {
        let text = format!("{{\"mappings\": {{\"/a\": {value}}}}}");
        let registry =
            Registry::parse(text.as_bytes()).unwrap_or_else(|damage| panic!("{value}: {damage}"));
        assert_eq!(mappings_of(&registry), owned(&[("/a", number)]));
        assert!(registry.to_text().contains(&format!("\"/a\": {number}\n")));
        // Of a torn text only where its end is there.
        for (torn, is_read) in [
            ("{\"mappings\": {\"/a\": ", false),
            ("{\"mappings\": {\"/b\": 7, \"/a\": ", true),
        ] {
            let torn = format!("{torn}{value}{}", if is_read { ", " } else { "" });
            let left = mappings_of(&recover(torn.as_bytes()).registry);
            assert_eq!(left.contains(&("/a".to_owned(), number)), is_read, "{torn}");
        }
    }
}

#[test]
fn a_path_of_any_bytes_is_encoded_as_in_python() {
    /// A path below `/`, and its encoding in the file.
    #[track_caller]
    fn check(name: &[u8], spelled: &str) {
        let path = Path::new(OsStr::from_bytes(name));
        let text = registry_of([path]).to_text();
        let line = text
            .lines()
            .find(|line| line.starts_with("    \"/"))
            .unwrap();
        assert_eq!(line, format!("    \"{spelled}\": 8888"));
        let read = Registry::parse(text.as_bytes()).unwrap();
        let (found, _) = read.mappings().next().unwrap();
        assert_eq!(found, path);
    }
    check(b"/home/me/project", "/home/me/project");
    check(b"/a b'c~", "/a b'c~");
    check(b"/\"\\", r#"/\"\\"#);
    check(b"/\x08\x0c\n\r\t", r"/\b\f\n\r\t");
    check(b"/\x01\x1f\x7f", r"/\u0001\u001f\u007f");
    check("/é€".as_bytes(), r"/\u00e9\u20ac");
    check("/\u{ffff}".as_bytes(), r"/\uffff");
    check("/\u{10000}😀".as_bytes(), r"/\ud800\udc00\ud83d\ude00");
    check(b"/caf\xe9", r"/caf\udce9");
    check(b"/\x80\xff", r"/\udc80\udcff");
    check(b"/\xe6\x97x\xc3", r"/\udce6\udc97x\udcc3");
    check(b"/\xed\xa0\x80", r"/\udced\udca0\udc80"); // U+D800, which UTF-8 has no place for
    check(b"/\xf0\x9f\x98", r"/\udcf0\udc9f\udc98");
}

#[test]
fn python_reads_what_is_written_and_writes_the_same_bytes() {
    // Like the Python tool, and prints each path as bytes.
    const ROUND: &str = "
import json, os, sys
registry = json.loads(sys.stdin.buffer.read())
for path in registry['mappings']:
    print(os.fsencode(path).hex())
json.dump(registry, sys.stdout, indent=2)
";
    // Every character except NUL, 32,768 in each name, and every byte that is not valid UTF-8.
    let mut names: Vec<Vec<u8>> = Vec::new();
    let characters: Vec<char> = ('\u{1}'..=char::MAX).collect();
    for some in characters.chunks(32_768) {
        names.push(String::from_iter(some).into_bytes());
    }
    names.extend((0x80..=0xff).map(|byte| vec![b'x', byte, b'y', byte]));
    let paths: Vec<Vec<u8>> = names
        .into_iter()
        .map(|name| [b"/", &name[..]].concat())
        .collect();
    let registry = registry_of(paths.iter().map(|path| Path::new(OsStr::from_bytes(path))));
    let text = registry.to_text();
    assert!(text.is_ascii());
    assert_eq!(Registry::parse(text.as_bytes()).unwrap(), registry);

    let python = Command::new("python3")
        .args(["-c", ROUND])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("skipped: no python3 here");
        return;
    };
    let mut input = python.stdin.take().unwrap();
    let sent = text.clone();
    let sender = std::thread::spawn(move || input.write_all(sent.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    sender.join().unwrap();
    assert!(output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    let (seen, written) = output.split_at(output.find('{').unwrap());
    let hex = |path: &Vec<u8>| {
        path.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert!(
        seen.lines().eq(paths.iter().map(hex)),
        "Python reads another path"
    );
    assert!(written == text, "Python writes other bytes");
}

#[test]
fn an_unpaired_surrogate_is_a_distinct_path() {
    // Only U+DC80 to U+DCFF encode bytes; Python can write other surrogates, but cannot open such paths.
    let text = r#"{"mappings": {"/\ud800": 1, "/\udc7f": 2, "/\udd00": 3, "/\udc80": 4, "/\udcff\ud83d": 5}}"#;
    let registry = Registry::parse(text.as_bytes()).unwrap();
    let paths: Vec<&[u8]> = registry
        .mappings()
        .map(|(path, _)| path.as_os_str().as_bytes())
        .collect();
    let expected: [&[u8]; 5] = [
        b"/\xed\xa0\x80",
        b"/\xed\xb1\xbf",
        b"/\xed\xb4\x80",
        b"/\x80",
        b"/\xff\xed\xa0\xbd",
    ];
    assert_eq!(paths, expected);
    for kept in [r#""/\ud800": 1"#, r#""/\udcff\ud83d": 5"#] {
        assert!(registry.to_text().contains(kept), "{}", registry.to_text());
    }
}

#[test]
fn a_change_keeps_everything_else() {
    let before = r#"{
  "first": [1, 2.50, "\u00e9"],
  "version": "1.1",
  "port_range": {
    "step": 1,
    "start": 1,
    "end": 2,
    "why": {"nested": true}
  },
  "mappings": {
    "/home/me/b\u0061r": 9500,
    "/home/me/a": 80
  },
  "next_available": 9000,
  "pins": {"/home/me/a": 80}
}"#;
    let project = |path: &str| Project::recorded(Path::new(path)).unwrap();
    let range = PortRange::new(port(9000), port(9001)).unwrap();
    let mut registry = Registry::parse(before.as_bytes()).unwrap();

    assert!(
        !registry
            .allocate(&project("/home/me/bar"), range, |_| true)
            .unwrap()
            .created
    );
    assert_eq!(registry.remove(&project("/home/me/nobody")), None);
    assert_eq!(registry.to_text(), before, "nothing has changed");

    assert!(
        registry
            .allocate(&project("/home/me/c"), range, |_| true)
            .unwrap()
            .created
    );
    let allocated = before
        .replace(
            "\"/home/me/a\": 80\n",
            "\"/home/me/a\": 80,\n    \"/home/me/c\": 9000\n",
        )
        .replace(
            "\"start\": 1,\n    \"end\": 2,",
            "\"start\": 9000,\n    \"end\": 9001,",
        )
        .replace("\"next_available\": 9000", "\"next_available\": 9001");
    assert_eq!(registry.to_text(), allocated);

    assert_eq!(registry.remove(&project("/home/me/bar")), Some(port(9500)));
    let removed = allocated.replace("    \"/home/me/b\\u0061r\": 9500,\n", "");
    assert_eq!(registry.to_text(), removed);

    assert_eq!(registry.reset(PortRange::DEFAULT), 2);
    let reset = removed
        .replace(
            "{\n    \"/home/me/a\": 80,\n    \"/home/me/c\": 9000\n  }",
            "{}",
        )
        .replace(
            "\"start\": 9000,\n    \"end\": 9001,",
            "\"start\": 8888,\n    \"end\": 9999,",
        )
        .replace("\"next_available\": 9001", "\"next_available\": 8888");
    assert_eq!(registry.to_text(), reset);
}

#[test]
fn all_spellings_of_one_path_are_one_project() {
    // Paths written by hand mean one folder; `show` and `remove` must use the same port.
    let text = r#"{"mappings": {"/a/b/": 1, "/a/./c": 3, "/a//d": 4, "/\u0061/e": 5}}"#;
    let mut registry = Registry::parse(text.as_bytes()).unwrap();
    for (path, number) in [("/a/b", 1), ("/a/c", 3), ("/a/d", 4), ("/a/e", 5)] {
        let project = Project::recorded(Path::new(path)).unwrap();
        assert_eq!(registry.port_of(&project), Some(port(number)), "{path}");
        assert_eq!(registry.path_of(port(number)), Some(Path::new(path)));
        assert_eq!(registry.remove(&project), Some(port(number)), "{path}");
        assert_eq!(registry.port_of(&project), None, "{path}");
    }
    assert!(registry.is_empty());
}

/// A registry with a port for each path, from 8888 up.
fn registry_of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Registry {
    let mut registry = Registry::default();
    for path in paths {
        let project = Project::recorded(path).unwrap();
        let range = PortRange::new(port(8888), port(65535)).unwrap();
        registry.allocate(&project, range, |_| true).unwrap();
    }
    registry
}

fn mappings_of(registry: &Registry) -> Vec<(String, u16)> {
    registry
        .mappings()
        .map(|(path, port)| (path.to_str().unwrap().to_owned(), port.get()))
        .collect()
}

fn owned(mappings: &[(&str, u16)]) -> Vec<(String, u16)> {
    mappings
        .iter()
        .map(|&(path, port)| (path.to_owned(), port))
        .collect()
}

fn port(number: u16) -> Port {
    Port::try_from(number).unwrap()
}
