//! Bytes that are not UTF-8, carried inside text.
//!
//! A Unix path is any bytes except NUL; argh, JSON and terminals need text. So each byte that is not UTF-8 is written as
//! NUL and two hexadecimal digits. This is reversible, because neither an argument nor a path contains a NUL, and safe
//! where it is overlooked, because all output escapes NUL.
//!
//! How the byte is shown is decided in [`Escaped`](super::Escaped) and in `cli::output`.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Text that carries the bytes of `raw`.
pub fn to_text(raw: &OsStr) -> String {
    bytes_to_text(raw.as_bytes())
}

/// As [`to_text`], for bytes that are not an `OsStr`.
pub fn bytes_to_text(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _ = write!(text, "{MARK}{byte:02x}");
        }
    }
    text
}

/// The bytes that `text`, made by [`to_text`], carries.
pub fn from_text(text: &str) -> OsString {
    let mut pieces = text.split(MARK);
    let mut raw = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        match escaped_byte(piece) {
            Some((byte, rest)) => {
                raw.push(byte);
                raw.extend(rest.as_bytes());
            }
            None => {
                raw.push(0);
                raw.extend(piece.as_bytes());
            }
        }
    }
    OsString::from_vec(raw)
}

/// The byte that is carried at the start of `after_mark`, and the text after it.
pub fn escaped_byte(after_mark: &str) -> Option<(u8, &str)> {
    let (digits, rest) = after_mark.split_at_checked(2)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some((u8::from_str_radix(digits, 16).ok()?, rest))
}

/// Precedes each carried byte.
pub const MARK: char = '\0';

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &[u8], text: &str) {
        assert_eq!(to_text(OsStr::from_bytes(raw)), text);
        assert_eq!(from_text(text).as_bytes(), raw);
    }

    #[test]
    fn every_path_survives_conversion_to_text_and_back() {
        check(b"", "");
        check(b"/home/me/litellm", "/home/me/litellm");
        check("/Übung/日本".as_bytes(), "/Übung/日本");
        check(b"/caf\xe9", "/caf\0e9"); // Latin-1
        check(b"\xff\xfe", "\0ff\0fe");
        check(b"\xe6\x97x", "\0e6\097x"); // cut in mid-character, a digit-like byte behind
        check(b"\xffab", "\0ffab"); // what follows looks like digits
        check(b"a\nb\x1b[31m", "a\nb\x1b[31m"); // control characters are text
    }

    #[test]
    fn a_mark_that_carries_nothing_is_a_nul() {
        assert_eq!(from_text("a\0").as_bytes(), b"a\0");
        assert_eq!(from_text("a\0+5").as_bytes(), b"a\0+5");
        assert_eq!(from_text("a\0é").as_bytes(), "a\0é".as_bytes());
    }
}
