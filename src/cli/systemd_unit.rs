//! The syntax of systemd's unit files.

use std::ffi::OsStr;

/// A word of a line in a unit (systemd.syntax, systemd.unit): in quotes, no specifier, and odd bytes as C has them.
/// `doubled` is what else means itself only twice.
pub fn word(text: &OsStr, doubled: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.,-_=@+".contains(c);
    if let Some(plain) = text.to_str()
        && !plain.is_empty()
        && plain.chars().all(is_plain)
    {
        return plain.to_owned();
    }
    let mut quoted = String::from("\"");
    for chunk in text.as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => quoted.extend(['\\', character]),
                '%' => quoted.push_str("%%"),
                _ if doubled.contains(character) => quoted.extend([character, character]),
                _ if character.is_ascii_control() => {
                    quoted += &format!("\\x{:02x}", u32::from(character));
                }
                _ => quoted.push(character),
            }
        }
        for byte in chunk.invalid() {
            quoted += &format!("\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_unit_is_one_word_whatever_is_in_it() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(word(OsStr::new(text), ""), expected);
        }
        check("/home/me/shop", "/home/me/shop");
        check("/home/me/my shop", "\"/home/me/my shop\"");
        check("100%", "\"100%%\"");
        check("a\"b\\c", "\"a\\\"b\\\\c\"");
        check("", "\"\"");
        check("a\nb\x7f", "\"a\\x0ab\\x7f\"");
        check("日本", "\"日本\"");
        check("$a", "\"$a\"");
        assert_eq!(word(OsStr::new("$a$"), "$"), "\"$$a$$\"");
        assert_eq!(
            word(&crate::text::raw::from_text("caf\0e9 1"), "$"),
            "\"caf\\xe9 1\""
        );
    }
}
