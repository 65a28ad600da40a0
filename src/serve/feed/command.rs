//! The commands of a subscriber, one line of JSON each. Pure: bytes in, commands out.

use serde_json::Value;

/// A line exceeds 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// What a subscriber can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Switch recording on or off.
    Record(bool),
    /// Send only the lines about this port.
    Port(u16),
    /// Leave this port to the subscriber for as long as it is connected.
    Yield(u16),
    /// Send only the response of the exchange with this id, as it is recorded.
    Watch(u64),
}

/// Calls `act` with each command in the complete lines of `bytes`. Lines that are no command are ignored. Returns how many bytes
/// the complete lines have.
pub fn read(bytes: &[u8], mut act: impl FnMut(Command)) -> Result<usize, TooLong> {
    let mut used = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_complete = line.ends_with(b"\n");
        if line.len() - usize::from(is_complete) > LINE_BYTES_MAX {
            return Err(TooLong);
        }
        if is_complete {
            parse(line).into_iter().for_each(&mut act);
            used += line.len();
        }
    }
    Ok(used)
}

fn parse(line: &[u8]) -> Option<Command> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let port = |name| line.get(name)?.as_u64()?.try_into().ok();
    let record = line.get("record").and_then(Value::as_bool);
    record
        .map(Command::Record)
        .or_else(|| port("port").map(Command::Port))
        .or_else(|| port("yield").map(Command::Yield))
        .or_else(|| Some(Command::Watch(line.get("watch")?.as_u64()?)))
}

/// The longest line, without its end; many times what a command needs.
const LINE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::Command::{Port, Record, Watch, Yield};
    use super::*;

    #[track_caller]
    fn check(why: &str, input: &str, expected: Result<&[Command], TooLong>) {
        for step in [input.len().max(1), 1, 3] {
            let (mut buffer, mut commands) = (Vec::new(), Vec::new());
            let result = input.as_bytes().chunks(step).try_for_each(|piece| {
                buffer.extend_from_slice(piece);
                let used = read(&buffer, |command| commands.push(command))?;
                buffer.drain(..used);
                Ok(())
            });
            let expected = expected.map(<[Command]>::to_vec);
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
        check("on", "{\"record\":true}\n", Ok(&[Record(true)]));
        check(
            "on and off, with an empty line between them",
            "{\"record\":true}\r\n\n {\"x\":1,\"record\":false} \n",
            Ok(&[Record(true), Record(false)]),
        );
        check("half a line", "{\"record\":true}", Ok(&[]));
        check("another type", "{\"record\":1}\n", Ok(&[]));
        check("no JSON, and no text", "record\n\0\u{ff}\n", Ok(&[]));
        check("another command", "{\"stop\":true}\n", Ok(&[]));
        check("a port", "{\"port\":8889}\n", Ok(&[Port(8889)]));
        check("no port", "{\"port\":65536}\n{\"port\":-1}\n", Ok(&[]));
        check("a lease", "{\"yield\":8889}\n", Ok(&[Yield(8889)]));
        check("an exchange", "{\"watch\":7}\n", Ok(&[Watch(7)]));
        check("no exchange", "{\"watch\":-1}\n", Ok(&[]));
    }

    #[test]
    fn the_length_of_a_line_is_limited() {
        let fits = format!("{{\"record\":true{}}}\n", " ".repeat(4096 - 15));
        assert_eq!(fits.len(), 4097);
        check("the longest", &fits, Ok(&[Record(true)]));
        check("one more", &format!(" {fits}"), Err(TooLong));
        check("without an end", &"x".repeat(4097), Err(TooLong));
    }
}
