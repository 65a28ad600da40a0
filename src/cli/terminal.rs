//! The terminal that a standard stream may be, and text that fits into its columns.
//!
//! What goes to a file or a pipe is neither coloured nor cut.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar as _;

use super::settings::Environment;

/// What a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// The characters of a line; at least 1.
    pub columns: usize,
    /// The lines of the screen; at least 1.
    pub rows: usize,
    /// Whether text may be coloured: `NO_COLOR` is not set.
    pub has_colour: bool,
    /// Whether it understands escape codes: it does not call itself `dumb`.
    pub moves_cursor: bool,
}

impl Terminal {
    /// Returns that of standard output, if it is one.
    pub fn of_output(environment: &Environment<'_>) -> Option<Terminal> {
        Terminal::of(&io::stdout(), environment)
    }

    /// Returns that of standard error, if it is one.
    pub fn of_errors(environment: &Environment<'_>) -> Option<Terminal> {
        Terminal::of(&io::stderr(), environment)
    }

    fn of(stream: &(impl AsFd + IsTerminal), environment: &Environment<'_>) -> Option<Terminal> {
        if !stream.is_terminal() {
            return None;
        }
        let is = |name, value: &str| {
            let given = environment.variable(name);
            given.is_some_and(|given| given.text().is_ok_and(|text| text == value))
        };
        let moves_cursor = !is("TERM", "dumb");
        let size = tcgetwinsize(stream).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        // A terminal on a serial line does not know its size.
        let or = |known: u16, default| match usize::from(known) {
            0 => default,
            known => known,
        };
        Some(Terminal {
            columns: or(size.0, 80),
            rows: or(size.1, 24),
            has_colour: moves_cursor && environment.variable("NO_COLOR").is_none(),
            moves_cursor,
        })
    }
}

/// Returns the columns that `text` takes. Joined emoji count as the separate ones that some terminals show.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(character: char) -> usize {
    match character {
        // Makes an emoji, which takes two columns, of the narrow character before it.
        '\u{fe0f}' => 1,
        _ => character.width().unwrap_or_default(),
    }
}

/// Returns `text` in at most `columns` columns: one that is longer ends with an ellipsis, behind a whole word if at least half of
/// the room is used then.
pub fn fitted(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    // One column is that of the ellipsis.
    let Some(mut left) = columns.checked_sub(1) else {
        return Cow::Borrowed("");
    };
    let (mut end, mut end_of_words) = (0, 0);
    for (at, character) in text.char_indices() {
        let taken = width_of(character);
        if taken > left {
            break;
        }
        left -= taken;
        end = at + character.len_utf8();
        if character == ' ' {
            end_of_words = end;
        }
    }
    let words = text[..end_of_words].trim_end();
    let is_whole = text[end..].starts_with(' ');
    let kept = match is_whole || width(words) < columns / 2 {
        true => &text[..end],
        false => words,
    };
    Cow::Owned(format!("{kept}…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_ends_with_an_ellipsis() {
        #[track_caller]
        fn check(text: &str, columns: usize, expected: &str) {
            assert_eq!(fitted(text, columns), expected);
            assert!(width(&fitted(text, columns)) <= columns, "{expected}");
        }
        check("shop", 4, "shop");
        check("shop", 3, "sh…");
        check("shop", 1, "…");
        check("shop", 0, "");
        check("", 0, "");
        // Behind a word, where not too much is lost.
        check("POST /v1/chat/completions", 25, "POST /v1/chat/completions");
        check("POST /v1/chat/completions", 24, "POST /v1/chat/completio…");
        check("the quick brown fox", 12, "the quick…");
        check("the quick brown fox", 10, "the quick…");
        check("an extraordinarily", 10, "an extrao…");
        // A character of two columns is not halved.
        check("日本語", 6, "日本語");
        check("日本語", 5, "日本…");
        check("日本語", 4, "日…");
        check("日本語", 2, "…");
        // A mark takes no column, and may make its character wider.
        check("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}");
        check("❤\u{fe0f}❤\u{fe0f}", 4, "❤\u{fe0f}❤\u{fe0f}");
        check("❤\u{fe0f}❤\u{fe0f}", 3, "❤\u{fe0f}…");
    }
}
