//! What a listener says: lines of JSON, most of which mean nothing here.
//!
//! Pure: bytes in, commands out.

use serde_json::Value;

/// What a listener may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Recording is to be on, or off.
    Record(bool),
}

/// A line was longer than any that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The line that has begun.
#[derive(Debug, Clone, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes the next bytes, and tells the commands that they complete.
    pub fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(Command)) -> Result<(), TooLong> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if self.0.len() + text.len() > LINE_BYTES_MAX {
                return Err(TooLong);
            }
            self.0.extend_from_slice(text);
            if is_whole {
                parse(&self.0).into_iter().for_each(&mut tell);
                self.0.clear();
            }
        }
        Ok(())
    }
}

fn parse(line: &[u8]) -> Option<Command> {
    let line: Value = serde_json::from_slice(line).ok()?;
    line.get("record")?.as_bool().map(Command::Record)
}

/// Many times what any command needs.
const LINE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(why: &str, said: &str, expected: Result<&[bool], TooLong>) {
        for step in [said.len().max(1), 1, 3] {
            let mut lines = Lines::default();
            let mut commands = Vec::new();
            let mut pieces = said.as_bytes().chunks(step);
            let taken =
                pieces.try_for_each(|piece| lines.take(piece, |command| commands.push(command)));
            let expected = expected.map(|on| on.iter().map(|on| Command::Record(*on)).collect());
            assert_eq!(
                taken.map(|()| commands),
                expected,
                "{why}, {step} at a time"
            );
        }
    }

    #[test]
    fn a_line_that_means_something_is_a_command() {
        check("nothing", "", Ok(&[]));
        check("on", "{\"record\":true}\n", Ok(&[true]));
        check(
            "on and off, with an empty line between them",
            "{\"record\":true}\r\n\n {\"x\":1,\"record\":false} \n",
            Ok(&[true, false]),
        );
        check("half a line", "{\"record\":true}", Ok(&[]));
        check("another type", "{\"record\":1}\n", Ok(&[]));
        check("no JSON, and no text", "record\n\0\u{ff}\n", Ok(&[]));
        check("another command", "{\"stop\":true}\n", Ok(&[]));
    }

    #[test]
    fn a_line_has_a_limit() {
        let fits = format!("{{\"record\":true{}}}\n", " ".repeat(4096 - 15));
        assert_eq!(fits.len(), 4097);
        check("the longest", &fits, Ok(&[true]));
        check("one more", &format!(" {fits}"), Err(TooLong));
        check("without an end", &"x".repeat(4097), Err(TooLong));
    }
}
