//! JSON text, split into pieces that keep every byte.
//!
//! The registry file is shared: whatever it holds that this program does not know must come out of a
//! rewrite as it went in. So values are not turned into numbers and strings here; a piece of text is
//! checked and handed on as it stands. That is why this is not `serde_json`: the file may hold lone surrogates
//! (the Python tool's spelling of a path that is not UTF-8), `NaN`, and numbers that no `f64` carries;
//! and what can be read out of a damaged text must be read by the same rules as an undamaged one.
//! Unit tests hold it against `serde_json` on everything both understand.
//!
//! Nothing here recurses, so no nesting is too deep; the cost is linear in the text.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A place in JSON text, and the grammar of RFC 8259 from there on (plus Python's `NaN` and `Infinity`).
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

/// One member of an object; both parts are valid JSON text, the key with its quotes.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

/// Why text is not JSON, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
    /// What would have been right there.
    pub expected: &'static str,
}

/// A [`SyntaxError`] without its line, which is counted only if the error is reported.
pub(super) struct Expected {
    what: &'static str,
    at: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected {} at line {}, column {}",
            self.expected, self.line, self.column
        )
    }
}

/// The members of the one object that `text` consists of.
pub(super) fn object(text: &[u8]) -> Result<Vec<Member<'_>>, SyntaxError> {
    members(text).map_err(|Expected { what, at }| {
        let before = &text[..at];
        let line_start = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        SyntaxError {
            line,
            column: 1 + at - line_start,
            expected: what,
        }
    })
}

fn members(text: &[u8]) -> Result<Vec<Member<'_>>, Expected> {
    let mut cursor = Cursor::new(text);
    let mut members = Vec::new();
    cursor.skip_space();
    cursor.expect(b'{', "`{`")?;
    cursor.skip_space();
    if !cursor.eat(b'}') {
        loop {
            let key = cursor.key()?;
            let value = cursor.value()?;
            members.push(Member { key, value });
            cursor.skip_space();
            if cursor.eat(b'}') {
                break;
            }
            cursor.expect(b',', "`,` or `}`")?;
        }
    }
    cursor.skip_space();
    match cursor.peek() {
        None => Ok(members),
        Some(_) => Err(cursor.error("the end of the file")),
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Cursor { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A string with its quotes, checked: no control characters, known escapes, UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a str, Expected> {
        let start = self.at;
        self.expect(b'"', "a string")?;
        loop {
            match self.peek() {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                            self.at += 1
                        }
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                match self.peek() {
                                    Some(digit) if digit.is_ascii_hexdigit() => self.at += 1,
                                    _ => return Err(self.error("four hexadecimal digits")),
                                }
                            }
                        }
                        _ => return Err(self.error("an escape")),
                    }
                }
                Some(0x20..) => self.at += 1,
                Some(_) | None => return Err(self.error("`\"`")),
            }
        }
        self.since(start)
    }

    /// A key of an object, with its quotes; the colon behind it is consumed.
    fn key(&mut self) -> Result<&'a str, Expected> {
        self.skip_space();
        let key = self.string()?;
        self.skip_space();
        self.expect(b':', "`:`")?;
        Ok(key)
    }

    /// One whole value, without the white space around it.
    pub(super) fn value(&mut self) -> Result<&'a str, Expected> {
        self.skip_space();
        let start = self.at;
        // The brackets that are open, instead of the call stack.
        let mut open = Vec::new();
        loop {
            // A value begins here.
            self.skip_space();
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    self.skip_space();
                    if !self.eat(b'}') {
                        open.push(b'}');
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.skip_space();
                    if !self.eat(b']') {
                        open.push(b']');
                        continue;
                    }
                }
                Some(b'"') => drop(self.string()?),
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => self.word()?,
            }
            // A value ended here.
            loop {
                let Some(&closing) = open.last() else {
                    return self.since(start);
                };
                self.skip_space();
                if self.eat(closing) {
                    open.pop();
                } else if self.eat(b',') {
                    if closing == b'}' {
                        self.key()?;
                    }
                    break;
                } else if closing == b'}' {
                    return Err(self.error("`,` or `}`"));
                } else {
                    return Err(self.error("`,` or `]`"));
                }
            }
        }
    }

    fn number(&mut self) -> Result<(), Expected> {
        let negative = self.eat(b'-');
        if negative && self.peek() == Some(b'I') {
            return self.word();
        }
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _sign = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Expected> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.error("a digit"))
        } else {
            Ok(())
        }
    }

    fn word(&mut self) -> Result<(), Expected> {
        for word in ["true", "false", "null", "NaN", "Infinity"] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        Err(self.error("a value"))
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Expected> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    fn since(&self, start: usize) -> Result<&'a str, Expected> {
        std::str::from_utf8(&self.text[start..self.at]).map_err(|error| Expected {
            what: "UTF-8 text",
            at: start + error.valid_up_to(),
        })
    }

    fn error(&self, what: &'static str) -> Expected {
        Expected { what, at: self.at }
    }
}

/// The bytes that a checked string (with its quotes) stands for.
///
/// `\udc80`–`\udcff` without a partner are the bytes 0x80–0xff: this is how Python's `surrogateescape`
/// (PEP 383) carries file names that are not UTF-8. Any other lone surrogate has no bytes of its own; it
/// becomes what UTF-8 would make of its number, which no other string turns into by accident.
pub(super) fn decode(string: &str) -> Vec<u8> {
    let inner = string.as_bytes();
    let inner = inner
        .get(1..inner.len().saturating_sub(1))
        .unwrap_or_default();
    let mut bytes = Vec::with_capacity(inner.len());
    let mut at = 0;
    while let Some(&byte) = inner.get(at) {
        if byte != b'\\' {
            bytes.push(byte);
            at += 1;
            continue;
        }
        let escape = inner.get(at + 1).copied().unwrap_or_default();
        at += 2;
        match escape {
            b'u' => {
                let unit = unit(inner, at);
                at += 4;
                let partner = match inner.get(at..at + 2) {
                    Some(b"\\u") if (0xd800..0xdc00).contains(&unit) => {
                        Some(self::unit(inner, at + 2)).filter(|low| (0xdc00..0xe000).contains(low))
                    }
                    _ => None,
                };
                match partner {
                    Some(low) => {
                        at += 6;
                        let scalar = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        push_scalar(&mut bytes, scalar);
                    }
                    None if (0xdc80..0xdd00).contains(&unit) => bytes.push((unit - 0xdc00) as u8),
                    None => push_scalar(&mut bytes, unit),
                }
            }
            b'b' => bytes.push(0x08),
            b'f' => bytes.push(0x0c),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            itself => bytes.push(itself),
        }
    }
    bytes
}

/// The path that a checked string stands for.
pub(super) fn decode_path(string: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(decode(string)))
}

/// An object as `json.dump(…, indent=2)` lays it out, `indent` being that of the line it begins on.
pub(super) fn object_text(members: &[(&str, String)], indent: &str) -> String {
    if members.is_empty() {
        return "{}".to_owned();
    }
    let lines: Vec<_> = members
        .iter()
        .map(|(key, value)| format!("{indent}  {key}: {value}"))
        .collect();
    format!("{{\n{}\n{indent}}}", lines.join(",\n"))
}

/// The four hexadecimal digits at `at`.
fn unit(text: &[u8], at: usize) -> u32 {
    let digits = text.get(at..at + 4).unwrap_or_default();
    digits.iter().fold(0, |unit, &digit| {
        unit << 4 | char::from(digit).to_digit(16).unwrap_or_default()
    })
}

fn push_scalar(bytes: &mut Vec<u8>, scalar: u32) {
    match char::from_u32(scalar) {
        Some(character) => {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        }
        // A surrogate is always three bytes: 1110xxxx 10xxxxxx 10xxxxxx.
        None => bytes.extend([
            0xe0 | (scalar >> 12) as u8,
            0x80 | (scalar >> 6 & 0x3f) as u8,
            0x80 | (scalar & 0x3f) as u8,
        ]),
    }
}

/// `bytes` as a JSON string, as Python's `json.dump` writes it: ASCII only, and bytes that are not UTF-8 as
/// lone surrogates.
pub(super) fn encode(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    let escape = |text: &mut String, unit: u16| {
        write!(text, "\\u{unit:04x}").expect("a string can always be written to");
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                ' '..='~' => text.push(character),
                _ => {
                    for &mut unit in character.encode_utf16(&mut [0; 2]) {
                        escape(&mut text, unit);
                    }
                }
            }
        }
        for &byte in chunk.invalid() {
            escape(&mut text, 0xdc00 + u16::from(byte));
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Every kind of value, every place for white space, every escape but surrogates: serde_json refuses lone ones.
    const SAMPLE: &str = "\r\n{ \"a\\u00e9\\n\\/\\\\\\\"\" : [ ] , \"\": {\t\"x\":[-0.5e+1,{},[true ,null]]},\
                          \"é\":false,\"n\":10E-2 ,\"s\":\"\\b\\f\\r\\t\"}\n";

    /// Both take it, with the same keys and values, or both refuse it.
    #[track_caller]
    fn agrees(text: &[u8]) {
        let shown = text.escape_ascii();
        let expected: Result<serde_json::Map<String, Value>, _> = serde_json::from_slice(text);
        let members = match (object(text), &expected) {
            (Ok(members), Ok(_)) => members,
            (Err(_), Err(_)) => return,
            (ours, _) => panic!("{shown}: {:?}, {expected:?}", ours.map(|_| "taken")),
        };
        let mut found = serde_json::Map::new();
        for Member { key, value } in members {
            let name = String::from_utf8(decode(key)).expect("no lone surrogate is in it");
            let value: Value = serde_json::from_str(value).expect("a piece of JSON is JSON");
            if let Value::String(text) = &value {
                let spelled = encode(text.as_bytes());
                assert_eq!(decode(&spelled), text.as_bytes(), "{shown}");
                let again: String = serde_json::from_str(&spelled).expect("a string is JSON");
                assert_eq!(&again, text, "{shown}");
            }
            found.insert(name, value);
        }
        assert_eq!(
            Ok(found),
            expected.map_err(|error| error.to_string()),
            "{shown}"
        );
    }

    #[test]
    fn what_is_json_is_what_serde_json_takes() {
        agrees(SAMPLE.as_bytes());
        for at in 0..SAMPLE.len() {
            agrees(&SAMPLE.as_bytes()[..at]);
            for byte in 0..=u8::MAX {
                let mut text = SAMPLE.as_bytes().to_vec();
                text[at] = byte;
                agrees(&text);
                text = SAMPLE.as_bytes().to_vec();
                text.insert(at, byte);
                agrees(&text);
            }
        }
    }

    #[test]
    fn what_serde_json_cannot_carry_is_kept_to_the_letter() {
        for value in [
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "-0",
            "1.0",
            "1e2",
            "123456789012345678901234567890",
            "\"\\ud800\"",
            "\"\\udce9\"",
            "\"\\u00E9\"",
        ] {
            let text = format!("{{\"x\":{value} }}");
            let members =
                object(text.as_bytes()).unwrap_or_else(|error| panic!("{value}: {error}"));
            assert_eq!(members[0].value, value);
        }
        for refused in [
            "nan",
            "-NaN",
            "+Infinity",
            "Inf",
            "-Infinit",
            "01",
            "--1",
            "1.e1",
            ".5",
        ] {
            assert!(
                object(format!("{{\"x\":{refused}}}").as_bytes()).is_err(),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_string_is_the_bytes_that_python_means_by_it() {
        #[track_caller]
        fn check(string: &str, bytes: &[u8]) {
            assert_eq!(decode(string), bytes, "{string}");
        }
        check(r#""""#, b"");
        check(r#""a\"b\\\/\b\f\n\r\t""#, b"a\"b\\/\x08\x0c\n\r\t");
        check(r#""\u0041\u00e9\u20AC\ud83d\ude00""#, "Aé€😀".as_bytes());
        check(r#""\udc80\udcff""#, b"\x80\xff"); // surrogateescape
        check(r#""\udc7f\udd00""#, b"\xed\xb1\xbf\xed\xb4\x80");
        check(r#""\ud83d\u0041\ud83d""#, b"\xed\xa0\xbdA\xed\xa0\xbd");
        check(r#""\ud83d\ud83d\ude00""#, b"\xed\xa0\xbd\xf0\x9f\x98\x80");
        for byte in 0x80..=0xff {
            assert_eq!(decode(&encode(&[byte])), [byte]);
            assert_eq!(encode(&[byte]), format!("\"\\udc{byte:02x}\""));
        }
    }
}
