//! What is wrong with a registry file, and what can still be read out of it.
//!
//! A mapping is carried over where its path and its port are whole, and none is ever made up: a port that
//! could be the beginning of a longer number is no port. What happens to the file is the store's business.

use std::collections::HashSet;

use super::damage::Flaw;
use super::json::{self, Cursor, Member, decode_path};
use super::model::{BYTE_ORDER_MARK, Field, MAPPINGS, Registry, Repeated, admit_mappings};

/// What can be read out of a damaged text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// A registry of everything that could be read.
    pub registry: Registry,
    /// What was seen but could not be taken over.
    pub flaws: Vec<Flaw>,
}

/// Reads what can be read out of a text that [`Registry::parse`] refuses.
///
/// Text that is JSON loses only its flawed mappings. Out of any other, every `"path": port` is taken that stands in
/// the `mappings` object, or in no other field's value; and of the other fields those that are whole. Where there is no
/// `mappings` among the fields, one inside a field counts: that field's bracket is missing. Linear in the
/// text, whatever it holds.
pub fn recover(text: &[u8]) -> Recovered {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    match json::object(text) {
        Ok(members) => {
            let (registry, flaws) = Registry::admit_fields(&members);
            Recovered { registry, flaws }
        }
        Err(_) => {
            // Padding by a file system or an editor does not end a number: what was before it may have been cut off.
            let end = text
                .iter()
                .rposition(|byte| !b" \t\r\n\0".contains(byte))
                .map_or(0, |last| last + 1);
            Scan::of(&text[..end]).recovered()
        }
    }
}

/// A walk over torn text: strings, colons and brackets count, and whatever makes no sense is stepped over.
struct Scan<'a> {
    cursor: Cursor<'a>,
    /// Where the brackets that are open have led to.
    open: Vec<Place>,
    entries: Vec<Member<'a>>,
    /// What counts unless `mappings` are found among the fields.
    inner_entries: Vec<Member<'a>>,
    has_mappings: bool,
    fields: Vec<Member<'a>>,
    text: &'a [u8],
    /// The path of a mapping that the text ends in.
    broken_off: Option<&'a str>,
}

/// What a `"name": value` found here would mean.
#[derive(Clone, Copy)]
enum Place {
    /// A field of the registry. A mapping is believed here too: one bracket too many, or a missing beginning, must
    /// not cost the rest of the file, and no field is called like an absolute path.
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
                b'{' | b'[' => scan.enter(scan.place()),
                b'}' | b']' => {
                    scan.open.pop();
                    scan.cursor.eat(byte);
                }
                _ => drop(scan.cursor.eat(byte)),
            }
        }
        scan
    }

    fn place(&self) -> Place {
        self.open.last().copied().unwrap_or(Place::Top)
    }

    fn enter(&mut self, place: Place) {
        if self.cursor.eat(b'{') || self.cursor.eat(b'[') {
            self.open.push(place);
        }
    }

    fn string(&mut self) {
        // One that breaks off (at the end of the line, most often) is stepped over up to there.
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
            // Nothing can follow here: a quote is missing somewhere, and the closing one may be an opening one.
            Some(_) => self.cursor.go_to(end - 1),
        }
    }

    /// What stands behind `key` and its colon.
    fn member(&mut self, key: &'a str) {
        let name = json::decode(key);
        let is_path = name.starts_with(b"/");
        match self.place() {
            Place::Foreign if name == MAPPINGS.as_bytes() => self.enter(Place::InnerMappings),
            Place::Foreign => self.enter(Place::Foreign),
            Place::InnerMappings => self.entry(key, is_path),
            Place::Top if name == MAPPINGS.as_bytes() => {
                self.has_mappings = true;
                self.enter(Place::Mappings);
            }
            Place::Top if !is_path => self.field(key),
            // The bracket that ends the mappings is missing.
            Place::Mappings if Registry::KNOWN.iter().any(|known| name == known.as_bytes()) => {
                self.field(key)
            }
            Place::Top | Place::Mappings => self.entry(key, is_path),
        }
    }

    fn entry(&mut self, key: &'a str, is_path: bool) {
        if let Some(b'{' | b'[') = self.cursor.peek() {
            // No port has brackets: this one is too many, and what stands behind it is where it was.
            let place = if is_path {
                self.place()
            } else {
                Place::Foreign
            };
            return self.enter(place);
        }
        let start = self.cursor.at();
        match self.cursor.value() {
            Ok(value) if self.is_whole() => match self.place() {
                Place::InnerMappings => self.inner_entries.push(Member { key, value }),
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
        if !matches!(self.place(), Place::Foreign) {
            self.broken_off = Some(key);
        }
    }

    fn field(&mut self, key: &'a str) {
        let start = self.cursor.at();
        match self.cursor.value() {
            Ok(value) if self.is_whole() => self.fields.push(Member { key, value }),
            _ => {
                self.cursor.go_to(start);
                self.enter(Place::Foreign);
            }
        }
    }

    /// Whether the scalar or object that ended here could not have gone on.
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
        let (mappings, mut flaws) = admit_mappings(entries, Repeated::FirstCounts);
        if let Some(key) = self.broken_off {
            let path = decode_path(key);
            flaws.push(Flaw::BrokenOff { path });
        }
        registry.mappings = mappings;
        Recovered { registry, flaws }
    }
}
