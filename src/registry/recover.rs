//! Reading what is left of a damaged registry file.
//!
//! A mapping is recovered if its path and its port are complete, and none is invented: a number that the damage may
//! have cut off is not a port. What happens to the file is decided in `store`.

use std::collections::HashSet;

use super::damage::Issue;
use super::json::{self, Cursor, Member, decode_path};
use super::model::{BYTE_ORDER_MARK, Field, MAPPINGS, Registry, Repeated, admit_mappings};

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
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    match json::object(text) {
        Ok(members) => {
            let (registry, issues) = Registry::admit_fields(&members);
            Recovered { registry, issues }
        }
        Err(_) => {
            // Padding by a file system or an editor does not end a number: the number before it may have been cut off.
            let end = text
                .iter()
                .rposition(|byte| !b" \t\r\n\0".contains(byte))
                .map_or(0, |last| last + 1);
            Scan::of(&text[..end]).recovered()
        }
    }
}

/// A scan of torn text for strings, colons and brackets, which skips everything else.
struct Scan<'a> {
    cursor: Cursor<'a>,
    /// The sections that the open brackets belong to.
    open: Vec<Section>,
    entries: Vec<Member<'a>>,
    /// Used if `mappings` is not among the fields.
    inner_entries: Vec<Member<'a>>,
    has_mappings: bool,
    fields: Vec<Member<'a>>,
    text: &'a [u8],
    /// The path of a mapping that the end of the text cuts off.
    broken_off: Option<&'a str>,
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

impl<'a> Scan<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut scan = Scan {
            cursor: Cursor::new(text),
            open: Vec::new(),
            entries: Vec::new(),
            inner_entries: Vec::new(),
            has_mappings: false,
            fields: Vec::new(),
            text,
            broken_off: None,
        };
        while let Some(byte) = scan.cursor.peek() {
            match byte {
                b'"' => scan.string(),
                b'{' | b'[' => scan.enter(scan.section()),
                b'}' | b']' => {
                    scan.open.pop();
                    scan.cursor.eat(byte);
                }
                _ => drop(scan.cursor.eat(byte)),
            }
        }
        scan
    }

    fn section(&self) -> Section {
        self.open.last().copied().unwrap_or(Section::Top)
    }

    fn enter(&mut self, section: Section) {
        if self.cursor.eat(b'{') || self.cursor.eat(b'[') {
            self.open.push(section);
        }
    }

    fn string(&mut self) {
        // A string that breaks off (usually at the end of the line) is skipped up to there.
        let Ok(string) = self.cursor.string() else {
            return;
        };
        let end = self.cursor.at();
        self.cursor.skip_space();
        match self.cursor.peek() {
            Some(b':') => {
                self.cursor.eat(b':');
                self.cursor.skip_space();
                self.member(string);
            }
            None if json::decode(string).starts_with(b"/") => self.breaks_off(string),
            Some(b',' | b'}' | b']') | None => {}
            // Nothing else can follow: a quote is missing, and the closing quote may be an opening one.
            Some(_) => self.cursor.go_to(end - 1),
        }
    }

    /// Reads the value after `key` and its colon.
    fn member(&mut self, key: &'a str) {
        let name = json::decode(key);
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

    fn entry(&mut self, key: &'a str, is_path: bool) {
        if let Some(b'{' | b'[') = self.cursor.peek() {
            // A port has no brackets: this bracket is superfluous, and what follows belongs to the same section.
            let section = if is_path {
                self.section()
            } else {
                Section::Foreign
            };
            return self.enter(section);
        }
        let start = self.cursor.at();
        match self.cursor.value() {
            Ok(value) if self.is_whole() => match self.section() {
                Section::InnerMappings => self.inner_entries.push(Member { key, value }),
                _ => self.entries.push(Member { key, value }),
            },
            _ => {
                self.cursor.go_to(start);
                let rest = &self.text[start..];
                if is_path && rest.iter().all(u8::is_ascii_digit) {
                    self.breaks_off(key);
                }
            }
        }
    }

    /// The text ends in the mapping of `key`.
    fn breaks_off(&mut self, key: &'a str) {
        if !matches!(self.section(), Section::Foreign) {
            self.broken_off = Some(key);
        }
    }

    fn field(&mut self, key: &'a str) {
        let start = self.cursor.at();
        match self.cursor.value() {
            Ok(value) if self.is_whole() => self.fields.push(Member { key, value }),
            _ => {
                self.cursor.go_to(start);
                self.enter(Section::Foreign);
            }
        }
    }

    /// Whether the value that ends here is complete.
    fn is_whole(&mut self) -> bool {
        let end = self.cursor.at();
        let followed = self.cursor.peek();
        self.cursor.skip_space();
        let then = self.cursor.peek();
        self.cursor.go_to(end);
        match (followed, then) {
            (Some(b',' | b'}'), _) => true,
            (Some(b' ' | b'\t' | b'\r' | b'\n'), Some(then)) => {
                !then.is_ascii_alphanumeric() && !b".+-_".contains(&then)
            }
            _ => false,
        }
    }

    fn recovered(self) -> Recovered {
        let mut registry = Registry::default();
        let mut names = HashSet::new();
        for Member { key, value } in self.fields {
            let name = json::decode(key);
            if !names.insert(name.clone()) {
                continue;
            }
            match Registry::KNOWN
                .iter()
                .find(|known| known.as_bytes() == name)
            {
                Some(known) => registry.set_field(known, value.to_owned()),
                None => registry.fields.push(Field::other(key, value)),
            }
        }
        let mut entries = self.entries;
        if !self.has_mappings {
            entries.extend(self.inner_entries);
        }
        let (mappings, mut issues) = admit_mappings(entries, Repeated::FirstCounts);
        if let Some(key) = self.broken_off {
            let path = decode_path(key);
            issues.push(Issue::BrokenOff { path });
        }
        registry.mappings = mappings;
        Recovered { registry, issues }
    }
}
