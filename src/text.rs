//! Names, paths and messages from outside the program, shown safely.
//!
//! Decided here: which characters are escaped so that none acts on a terminal. [`raw`] carries paths that are not UTF-8
//! inside text, [`redact`] removes secrets. All code that prints or logs text from outside uses these functions.

pub mod raw;
pub mod redact;

use std::fmt;
use std::io;
use std::path::Path;

/// The system's message for an error, for use inside a sentence: in lower case and without the error number.
pub fn io_message(error: &io::Error) -> String {
    let words = error.to_string();
    let words = words.split(" (os error ").next().unwrap_or_default();
    let mut characters = words.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

/// A path as escaped text on one line.
pub fn escaped_path(path: &Path) -> String {
    Escaped(&raw::to_text(path.as_os_str())).to_string()
}

/// The name of the project at `path`: its folder's full name. Bytes that are not UTF-8 are carried in it ([`raw`]).
pub fn name(path: &Path) -> String {
    raw::to_text(path.file_name().unwrap_or(path.as_os_str()))
}

/// Displays text with everything escaped that acts on a terminal: control characters, line separators, and marks that
/// change the writing direction. Carried bytes ([`raw`]) are shown as `\xff`.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(acts_on_a_terminal) {
            let (plain, odd) = rest.split_at(at);
            f.write_str(plain)?;
            let mut characters = odd.chars();
            let character = characters.next().unwrap_or_default();
            rest = characters.as_str();
            match character {
                raw::MARK => match raw::escaped_byte(rest) {
                    Some((byte, behind)) => {
                        write!(f, "\\x{byte:02x}")?;
                        rest = behind;
                    }
                    None => f.write_str("\\0")?,
                },
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                _ => write!(f, "\\u{{{:x}}}", u32::from(character))?,
            }
        }
        f.write_str(rest)
    }
}

/// Displays JSON with the same characters as `\uXXXX`. They occur only inside strings, so the value does not change.
pub struct EscapedJson<'a>(pub &'a str);

impl fmt::Display for EscapedJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(acts_on_a_terminal) {
            let mut characters = piece.chars();
            match characters.next_back() {
                // All of them are below U+10000.
                Some(last) if acts_on_a_terminal(last) => {
                    write!(f, "{}\\u{:04x}", characters.as_str(), u32::from(last))?;
                }
                _ => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

fn acts_on_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' // direction marks
            | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings and overrides
            | '\u{2066}'..='\u{2069}') // isolates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_act_on_a_terminal_are_escaped() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(Escaped(text).to_string(), expected);
        }
        check("/home/me/litellm", "/home/me/litellm");
        check("/Übung/日本 ✓", "/Übung/日本 ✓");
        check("", "");
        check("a\nb\r\tc", "a\\nb\\r\\tc");
        check("\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}");
        check("\u{9b}31m", "\\u{9b}31m"); // CSI in one character
        check("\u{7f}", "\\u{7f}");
        check("exe\u{202e}cod", "exe\\u{202e}cod"); // reverses the writing direction
        for character in
            "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars()
        {
            let expected = format!("\\u{{{:x}}}", u32::from(character));
            check(&character.to_string(), &expected);
        }
        check("caf\0e9", "caf\\xe9");
        check("a\0", "a\\0");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let text = "a\u{7f}b\u{9b}31m\u{202e}é日\u{200f}";
        let json = EscapedJson(&format!("\"{text}\"")).to_string();
        assert_eq!(json, r#""a\u007fb\u009b31m\u202eé日\u200f""#);
        let value: String = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(value, text);
    }
}
