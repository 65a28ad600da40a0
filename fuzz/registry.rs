//! The property of the registry for any text of its file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use interceptor::registry::recover::{Recovered, recover};
use interceptor::registry::{Damage, Issue, Port, PortRange, Project, Registry};
use serde_json::Value;

/// An accepted text is written with the same meaning; mappings recovered from any other text occur in it.
pub fn registry(input: &[u8]) {
    let Recovered { registry, issues } = recover(input);
    match Registry::parse(input) {
        Ok(parsed) => {
            assert_eq!(issues, [], "an accepted text has no issues");
            assert_eq!(mappings(&parsed), mappings(&registry));
            written(&parsed);
            allocates(parsed);
        }
        Err(damage) => {
            in_one_line(&damage.to_string());
            if let Damage::Inconsistent(found) = &damage {
                assert_eq!(&issues, found, "both report the same issues");
                assert!(!found.is_empty());
            }
        }
    }
    written(&registry);
    let text = utf_8(input);
    let spelled = spelled(&text);
    for (path, port) in mappings(&registry) {
        assert!(
            spelled.contains(&(path.clone(), port)),
            "{path:?} is not there with {port:?}"
        );
    }
    for flaw in &issues {
        in_one_line(&flaw.to_string());
    }
    agrees_with_json(&text, &registry, &issues);
    allocates(registry);
}

/// A written registry is read as the same registry, and is valid JSON.
fn written(registry: &Registry) {
    let text = registry.to_text();
    let again = Registry::parse(text.as_bytes()).expect("a written registry can be read");
    assert_eq!(again.to_text(), text);
    assert_eq!(mappings(&again), mappings(registry));
    let all = mappings(registry);
    assert_eq!(all.len(), registry.len(), "no path occurs twice");
    let ports: HashSet<Port> = all.values().copied().collect();
    assert_eq!(ports.len(), registry.len(), "no port occurs twice");
    assert!(all.keys().all(|path| path.is_absolute()));
}

/// The text without its byte order mark, in UTF-8 if that says that it is UTF-16. What is not UTF-16 ends with a byte that is no
/// JSON.
fn utf_8(input: &[u8]) -> Vec<u8> {
    let (units, read): (_, fn([u8; 2]) -> u16) = match input {
        [0xff, 0xfe, units @ ..] => (units, u16::from_le_bytes),
        [0xfe, 0xff, units @ ..] => (units, u16::from_be_bytes),
        _ => {
            return input
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(input)
                .to_owned();
        }
    };
    let pairs = units.chunks_exact(2);
    let is_whole = pairs.remainder().is_empty();
    let units: Vec<u16> = pairs.map(|pair| read([pair[0], pair[1]])).collect();
    match String::from_utf16(&units) {
        Ok(text) if is_whole => text.into_bytes(),
        _ => String::from_utf16_lossy(&units)
            .into_bytes()
            .into_iter()
            .chain([0xff])
            .collect(),
    }
}

/// If serde_json accepts the text, it finds the same mappings.
fn agrees_with_json(text: &[u8], registry: &Registry, issues: &[Issue]) {
    let Ok(Value::Object(fields)) = serde_json::from_slice(text) else {
        return;
    };
    if !issues.is_empty() {
        return;
    }
    let found: BTreeMap<PathBuf, u64> = match fields.get("mappings") {
        None => BTreeMap::new(),
        Some(Value::Object(mappings)) => mappings
            .iter()
            .map(|(path, port)| (path.into(), number(port).expect("no flaw")))
            .collect(),
        Some(other) => panic!("{other} has no flaw"),
    };
    let ours: BTreeMap<PathBuf, u64> = mappings(registry)
        .into_iter()
        .map(|(path, port)| (path, port.get().into()))
        .collect();
    assert_eq!(ours, found);
}

/// The number that a port stands for, also in quotes or with a fraction of zero.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => digits.parse().ok(),
        number => number.as_u64().or_else(|| Some(number.as_f64()? as u64)),
    }
}

/// A new project gets an unused port of the range, and all others keep theirs.
fn allocates(mut registry: Registry) {
    let project = Project::recorded(Path::new("/an unknown project")).expect("it is absolute");
    let before = mappings(&registry);
    let had = registry.port_of(&project);
    let is_free = |port: Port| !port.get().is_multiple_of(3);
    let expected = registry.free_ports(PortRange::DEFAULT, is_free).next();
    let Ok(allocated) = registry.allocate(&project, PortRange::DEFAULT, is_free) else {
        assert_eq!((had, expected), (None, None));
        return;
    };
    assert_eq!(Some(allocated.port), had.or(expected));
    assert_eq!(allocated.created, had.is_none());
    if allocated.created {
        assert!(is_free(allocated.port) && PortRange::DEFAULT.contains(allocated.port));
        assert!(!before.values().any(|&port| port == allocated.port));
    }
    written(&registry);
    assert_eq!(registry.remove(&project), Some(allocated.port));
    let mut after = before;
    after.remove(project.path());
    assert_eq!(mappings(&registry), after);
}

fn mappings(registry: &Registry) -> BTreeMap<PathBuf, Port> {
    registry
        .mappings()
        .map(|(path, port)| (path.to_owned(), port))
        .collect()
}

fn in_one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// Every `"string": number` and `"string": "number"` that a simple search finds in `text`.
fn spelled(text: &[u8]) -> BTreeSet<(PathBuf, Port)> {
    let mut found = BTreeSet::new();
    for start in 0..text.len() {
        let Some(end) = string_end(&text[start..]) else {
            continue;
        };
        let Ok(inner) = std::str::from_utf8(&text[start + 1..start + end - 1]) else {
            continue;
        };
        let behind = text[start + end..].trim_ascii_start();
        let Some(behind) = behind.strip_prefix(b":") else {
            continue;
        };
        let behind = behind.trim_ascii_start();
        let quoted =
            string_end(behind).and_then(|end| std::str::from_utf8(&behind[1..end - 1]).ok());
        let behind = quoted.map_or_else(|| behind.to_owned(), unescaped);
        let digits = behind.iter().take_while(|byte| byte.is_ascii_digit());
        let digits: String = digits.map(|&byte| char::from(byte)).collect();
        if let Ok(port) = digits.parse() {
            found.insert((PathBuf::from(OsStr::from_bytes(&unescaped(inner))), port));
        }
    }
    found
}

/// The length of the string at the start of `text`, including its quotes.
fn string_end(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// The result of Python's `os.fsencode(json.loads(…))`; unspecified for a string with invalid escapes.
fn unescaped(inner: &str) -> Vec<u8> {
    let mut units: Vec<u16> = Vec::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let plain = match character {
            '\\' => match characters.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let digits: String = characters.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).unwrap_or_default());
                    continue;
                }
                other => other.unwrap_or_default(),
            },
            plain => plain,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    let mut bytes = Vec::new();
    for character in char::decode_utf16(units) {
        match character.map_err(|lone| lone.unpaired_surrogate()) {
            Ok(character) => bytes.extend(character.to_string().into_bytes()),
            Err(lone @ 0xdc80..=0xdcff) => bytes.push((lone - 0xdc00) as u8),
            Err(lone) => bytes.extend([
                0xe0 | (lone >> 12) as u8,
                0x80 | (lone >> 6 & 0x3f) as u8,
                0x80 | (lone & 0x3f) as u8,
            ]),
        }
    }
    bytes
}
