//! Reading what is left of a damaged registry file.
//!
//! A mapping is recovered if its path and its port are complete, and none is invented: a number that the damage may
//! have cut off is not a port. What happens to the file is decided in `store`.

use std::collections::HashSet;

use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::damage::Issue;
use super::json::{self, Member, decode, decode_path};
use super::model::{MAPPINGS, Registry, Repeated, admit_mappings};

/// What can be read out of a damaged text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Everything that could be read.
    pub registry: Registry,
    /// What was found but cannot be used.
    pub issues: Vec<Issue>,
}

/// Reads what can be read from a text that [`Registry::parse`] refuses. Linear in the length of the text.
///
/// Valid JSON loses only its invalid mappings. From any other text, every `"path": port` is recovered that is in the
/// `mappings` object or outside of the other fields' values, and every complete other field. If `mappings` is not one of
/// the fields, one inside a field's value counts: then that field's bracket is missing.
pub fn recover(text: &[u8]) -> Recovered {
    let text = &*json::utf_8(text);
    match json::object(text) {
        Ok(members) => {
            let (registry, issues) = Registry::admit_fields(members);
            Recovered { registry, issues }
        }
        Err(_) => {
            // Padding by a file system or an editor does not end a number: the number before it may have been cut off.
            let end = text
                .iter()
                .rposition(|byte| !b" \t\r\n\0".contains(byte))
                .map_or(0, |last| last + 1);
            let mut scan = Scan {
                text: &text[..end],
                ..Scan::default()
            };
            scan.run();
            scan.recovered()
        }
    }
}

/// A scan of torn text for strings, colons and brackets, which skips everything else.
#[derive(Default)]
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// The sections that the open brackets belong to.
    open: Vec<Section>,
    entries: Vec<Member>,
    /// Used if `mappings` is not among the fields.
    inner_entries: Vec<Member>,
    has_mappings: bool,
    fields: Vec<Member>,
    /// The key of a mapping that the end of the text cuts off.
    broken_off: Option<String>,
}

/// The part of the registry that a `"name": value` belongs to.
#[derive(Clone, Copy)]
enum Section {
    /// A field of the registry. Mappings are accepted here too: a superfluous bracket or a missing start must not lose the
    /// rest of the file, and no field is named like an absolute path.
    Top,
    Mappings,
    /// A part of some other field's value.
    Foreign,
    /// `mappings` inside some other field's value.
    InnerMappings,
}

impl Scan<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.string(),
                b'{' | b'[' => self.enter(self.section()),
                b'}' | b']' => {
                    self.open.pop();
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Reads one JSON value.
    fn value(&mut self) -> Option<String> {
        let mut values = Deserializer::from_slice(&self.text[self.at..]).into_iter::<&RawValue>();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value.get().to_owned())
    }

    /// Skips a string that is not valid, at most up to the end of the line.
    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte @ 0x20..) = self.peek() {
            self.at += 1;
            match (byte, self.peek()) {
                (b'"', _) => return,
                (b'\\', Some(b'"' | b'\\')) => self.at += 1,
                _ => {}
            }
        }
    }

    fn section(&self) -> Section {
        self.open.last().copied().unwrap_or(Section::Top)
    }

    fn enter(&mut self, section: Section) {
        if let Some(b'{' | b'[') = self.peek() {
            self.at += 1;
            self.open.push(section);
        }
    }

    fn string(&mut self) {
        let Some(string) = self.value() else {
            return self.skip_string();
        };
        let end = self.at;
        self.skip_space();
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                self.skip_space();
                self.member(string);
            }
            None if decode(&string).starts_with(b"/") => self.breaks_off(string),
            Some(b',' | b'}' | b']') | None => {}
            // Nothing else can follow: a quote is missing, and the closing quote may be an opening one.
            Some(_) => self.at = end - 1,
        }
    }

    /// Reads the value after `key` and its colon.
    fn member(&mut self, key: String) {
        let name = decode(&key);
        let is_path = name.starts_with(b"/");
        match self.section() {
            Section::Foreign if name == MAPPINGS.as_bytes() => self.enter(Section::InnerMappings),
            Section::Foreign => self.enter(Section::Foreign),
            Section::InnerMappings => self.entry(key, is_path),
            Section::Top if name == MAPPINGS.as_bytes() => {
                self.has_mappings = true;
                self.enter(Section::Mappings);
            }
            Section::Top if !is_path => self.field(key),
            // The closing bracket of the mappings is missing.
            Section::Mappings if Registry::KNOWN.iter().any(|known| name == known.as_bytes()) => {
                self.field(key)
            }
            Section::Top | Section::Mappings => self.entry(key, is_path),
        }
    }

    fn entry(&mut self, key: String, is_path: bool) {
        if let Some(b'{' | b'[') = self.peek() {
            // A port has no brackets: this bracket is superfluous, and what follows belongs to the same section.
            let section = if is_path {
                self.section()
            } else {
                Section::Foreign
            };
            return self.enter(section);
        }
        let rest = &self.text[self.at..];
        match (self.whole_value(), self.section()) {
            (Some(value), Section::InnerMappings) => self.inner_entries.push(Member { key, value }),
            (Some(value), _) => self.entries.push(Member { key, value }),
            (None, _) if is_path && rest.iter().all(u8::is_ascii_digit) => self.breaks_off(key),
            (None, _) => {}
        }
    }

    /// The text ends in the mapping of `key`.
    fn breaks_off(&mut self, key: String) {
        if !matches!(self.section(), Section::Foreign) {
            self.broken_off = Some(key);
        }
    }

    fn field(&mut self, key: String) {
        match self.whole_value() {
            Some(value) => self.fields.push(Member { key, value }),
            None => self.enter(Section::Foreign),
        }
    }

    /// Reads a value if the text after it shows that it is complete.
    fn whole_value(&mut self) -> Option<String> {
        let start = self.at;
        let value = self.value();
        let end = self.at;
        let followed = self.peek();
        self.skip_space();
        let is_whole = match (followed, self.peek()) {
            (Some(b',' | b'}'), _) => true,
            (Some(b' ' | b'\t' | b'\r' | b'\n'), Some(then)) => {
                !then.is_ascii_alphanumeric() && !b".+-_".contains(&then)
            }
            _ => false,
        };
        let value = value.filter(|_| is_whole);
        self.at = if value.is_some() { end } else { start };
        value
    }

    fn recovered(mut self) -> Recovered {
        let mut names = HashSet::new();
        self.fields.retain(|field| names.insert(field.name()));
        let mut registry = Registry::default();
        for field in self.fields {
            registry.set_field(field);
        }
        let mut entries = self.entries;
        if !self.has_mappings {
            entries.extend(self.inner_entries);
        }
        let (mappings, mut issues) = admit_mappings(entries, Repeated::FirstCounts);
        if let Some(key) = self.broken_off {
            let path = decode_path(&key);
            issues.push(Issue::BrokenOff { path });
        }
        registry.mappings = mappings;
        Recovered { registry, issues }
    }
}
