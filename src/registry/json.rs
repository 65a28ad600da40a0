//! JSON objects split into members that keep their text.
//!
//! A rewrite must not change what other programs wrote, for example numbers that no `f64` represents, and lone surrogates
//! (the Python tool's spelling of a path that is not UTF-8). So keys and values stay JSON text.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::port::Port;

/// One member of an object; both parts are valid JSON text, the key with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) value: String,
}

impl Member {
    pub(super) fn new(name: &str, value: impl fmt::Display) -> Member {
        Member {
            key: encode(name.as_bytes()),
            value: value.to_string(),
        }
    }

    /// The decoded key.
    pub(super) fn name(&self) -> Vec<u8> {
        decode(&self.key)
    }
}

/// Returns a text without its byte order mark (U+FEFF), and in UTF-8 if that says that it is UTF-16: PowerShell before version 6
/// writes that with `>`. What is not UTF-16 becomes a byte that is not UTF-8 either.
pub(super) fn utf_8(text: &[u8]) -> Cow<'_, [u8]> {
    let (units, read): (_, fn([u8; 2]) -> u16) = match text {
        [0xef, 0xbb, 0xbf, text @ ..] => return Cow::Borrowed(text),
        [0xff, 0xfe, units @ ..] => (units, u16::from_le_bytes),
        [0xfe, 0xff, units @ ..] => (units, u16::from_be_bytes),
        _ => return Cow::Borrowed(text),
    };
    let (pairs, rest) = units.as_chunks();
    let mut text = Vec::with_capacity(units.len());
    for character in char::decode_utf16(pairs.iter().map(|&pair| read(pair))) {
        match character {
            Ok(character) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(_) => text.push(0xff),
        }
    }
    text.extend(rest.iter().map(|_| 0xff));
    Cow::Owned(text)
}

/// Returns the port that a value is: digits, also in quotes or with a fraction of zero, as spreadsheets and other tools that edit
/// JSON write them.
pub(super) fn port(value: &str) -> Option<Port> {
    if value.starts_with('"') {
        return str::from_utf8(&decode(value)).ok()?.parse().ok();
    }
    let whole = match value.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => value,
    };
    whole.parse().ok()
}

/// Returns the members of the object that `text` consists of.
pub(super) fn object(text: &[u8]) -> serde_json::Result<Vec<Member>> {
    let mut deserializer = Deserializer::from_slice(text);
    let members = deserializer.deserialize_map(Members)?;
    deserializer.end()?;
    Ok(members)
}

/// Returns the members of an object; none of anything else.
pub(super) fn members(text: &str) -> Vec<Member> {
    object(text.as_bytes()).unwrap_or_default()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Member>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Member>, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.push(Member {
                key: key.get().to_owned(),
                value: value.get().to_owned(),
            });
        }
        Ok(members)
    }
}

/// Returns the value of a member; the last one if the name is repeated, as in other JSON readers.
pub(super) fn get<'a>(members: &'a [Member], name: &str) -> Option<&'a str> {
    let member = members
        .iter()
        .rev()
        .find(|member| member.name() == name.as_bytes())?;
    Some(&member.value)
}

/// Replaces the member of the same name, or appends it.
pub(super) fn set(members: &mut Vec<Member>, member: Member) {
    let name = member.name();
    match members
        .iter_mut()
        .rev()
        .find(|present| present.name() == name)
    {
        Some(present) => *present = member,
        None => members.push(member),
    }
}

/// Returns an object in the layout of `json.dump(…, indent=2)`; `indent` is that of the line it begins on.
pub(super) fn object_text(members: &[Member], indent: &str) -> String {
    if members.is_empty() {
        return "{}".to_owned();
    }
    let lines: Vec<_> = members
        .iter()
        .map(|Member { key, value }| format!("{indent}  {key}: {value}"))
        .collect();
    format!("{{\n{}\n{indent}}}", lines.join(",\n"))
}

/// Returns the bytes that a valid string (with its quotes) stands for.
///
/// `\udc80`–`\udcff` without a partner are the bytes 0x80–0xff, as in Python's `surrogateescape` (PEP 383). Any other lone
/// surrogate becomes its three-byte UTF-8 form, which no other string decodes to.
pub(super) fn decode(string: &str) -> Vec<u8> {
    let decoded = Deserializer::from_str(string).deserialize_bytes(StringBytes);
    let decoded = decoded.unwrap_or_default();
    let mut bytes = Vec::with_capacity(decoded.len());
    let mut rest = decoded.as_slice();
    loop {
        rest = match rest {
            // U+DC80 to U+DCFF, of which serde_json makes three bytes.
            [0xed, high @ (0xb2 | 0xb3), low, rest @ ..] => {
                bytes.push(high << 6 | low & 0x3f);
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
            [] => return bytes,
        };
    }
}

struct StringBytes;

impl Visitor<'_> for StringBytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_owned())
    }
}

/// Returns the path that a valid string stands for.
pub(super) fn decode_path(string: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(decode(string)))
}

/// Returns `bytes` as a JSON string, as Python's `json.dump` writes it: ASCII only, and bytes that are not UTF-8 as
/// lone surrogates.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
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
                _ => text.extend(character.encode_utf16(&mut [0; 2]).iter().map(escape)),
            }
        }
        let escaped = chunk.invalid().iter().map(|&byte| 0xdc00 + u16::from(byte));
        text.extend(escaped.map(|unit| escape(&unit)));
    }
    text.push('"');
    text
}

fn escape(unit: &u16) -> String {
    format!("\\u{unit:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_serde_json_cannot_represent_keep_their_text() {
        for value in [
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
