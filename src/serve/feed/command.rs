//! The commands of a subscriber, one line of JSON each. Pure: bytes in, commands out.

use serde_json::Value;

/// A command of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Switch recording on or off.
    Record(bool),
}

/// A line exceeds 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Splits the input into lines; holds the start of the current one.
#[derive(Debug, Clone, Default)]
pub struct CommandReader(Vec<u8>);

impl CommandReader {
    /// Reads the next bytes and calls `run` with each complete command. Lines that are no command are ignored.
    pub fn read(&mut self, bytes: &[u8], mut run: impl FnMut(Command)) -> Result<(), TooLong> {
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
                parse(&self.0).into_iter().for_each(&mut run);
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

/// The longest line, without its end; many times what a command needs.
const LINE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(why: &str, input: &str, expected: Result<&[bool], TooLong>) {
        for step in [input.len().max(1), 1, 3] {
            let mut reader = CommandReader::default();
            let mut commands = Vec::new();
            let mut pieces = input.as_bytes().chunks(step);
            let result =
                pieces.try_for_each(|piece| reader.read(piece, |command| commands.push(command)));
            let expected = expected.map(|on| on.iter().map(|on| Command::Record(*on)).collect());
            assert_eq!(
                result.map(|()| commands),
                expected,
                "{why}, {step} at a time"
            );
        }
    }

    #[test]
    fn commands_are_read_and_other_lines_ignored() {
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
    fn the_length_of_a_line_is_limited() {
        let fits = format!("{{\"record\":true{}}}\n", " ".repeat(4096 - 15));
        assert_eq!(fits.len(), 4097);
        check("the longest", &fits, Ok(&[true]));
        check("one more", &format!(" {fits}"), Err(TooLong));
        check("without an end", &"x".repeat(4097), Err(TooLong));
    }
}
