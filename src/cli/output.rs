//! What leaves the program: results on standard output, everything else on standard error.
//!
//! Decided here: that a result which could not be written is an error while a reader that left early is not, and that
//! no byte of a path or of a peer reaches a terminal as a control character. The only escape codes are those that begin a
//! new screen for a table that is watched and those of `ic tail`; `NO_COLOR` turns them off as well.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use super::settings::Environment;
use crate::cli::outcome::Failure;
use crate::text::{Escaped, EscapedJson, io_message};

/// Standard output, locked and buffered, for the results of one command.
pub struct Output {
    stream: BufWriter<StdoutLock<'static>>,
    /// The reader has gone (`ic list | head -1`): nobody misses the rest.
    reader_left: bool,
}

impl Output {
    /// Takes standard output for the rest of the process.
    pub fn standard() -> Output {
        Output {
            stream: BufWriter::new(io::stdout().lock()),
            reader_left: false,
        }
    }

    /// Writes text as it is; paths and names go through [`escaped_path`](crate::text::escaped_path) first.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written, for another reason than that its reader has gone.
    pub fn text(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        let written = write!(self.stream, "{text}");
        self.settle(written)
    }

    /// Writes bytes as they are: a file's content, not text for a terminal.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stream.write_all(bytes);
        self.settle(written)
    }

    /// Writes one JSON document and a newline. Text may carry raw bytes ([`raw`](crate::text::raw)): they become lone surrogates
    /// (`\udcff`), as Python's `json` and `os.fsdecode` write and read such paths.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let mut serializer = serde_json::Serializer::with_formatter(&mut self.stream, CarriedBytes);
        let written = document
            .serialize(&mut serializer)
            .map_err(io::Error::from)
            .and_then(|()| self.stream.write_all(b"\n"));
        self.settle(written)
    }

    /// Sends what is still buffered.
    ///
    /// # Errors
    ///
    /// As [`Output::text`]: a full device is often noticed only here.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.show().map(drop)
    }

    /// Sends what is buffered, of a result that goes on; says whether anybody still reads it.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn show(&mut self) -> Result<bool, Failure> {
        let written = self.stream.flush();
        self.settle(written)?;
        Ok(!self.reader_left)
    }

    /// Begins a new screen, where there is a screen and nobody has asked for plain text (`NO_COLOR`); says whether.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn clear(&mut self, environment: &Environment<'_>) -> Result<bool, Failure> {
        let is_screen = self.is_screen(environment);
        if is_screen {
            // To the upper left, and nothing behind.
            self.text("\x1b[H\x1b[J")?;
        }
        Ok(is_screen)
    }

    /// Whether there is a screen, and nobody has asked for plain text (`NO_COLOR`).
    pub fn is_screen(&self, environment: &Environment<'_>) -> bool {
        environment.variable("NO_COLOR").is_none() && io::stdout().is_terminal()
    }

    fn settle(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_left = true;
                Ok(())
            }
            Err(_) if self.reader_left => Ok(()),
            Err(error) => Err(Failure::could_not(format!(
                "cannot write the result to standard output: {}; make room, or send it elsewhere",
                io_message(&error)
            ))),
        }
    }
}

/// Writes one line about the command to standard error. A standard error that cannot be written is no reason to fail.
pub fn eprint_line(line: impl fmt::Display) {
    let line = format!("ic: {}\n", Escaped(&line.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes text that is no result, such as help that nobody asked for, to standard error.
pub fn eprint_text(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// So many mappings, in words.
pub fn mappings(count: usize) -> String {
    match count {
        1 => "1 port mapping".to_owned(),
        _ => format!("{count} port mappings"),
    }
}

/// A time in its largest whole unit: `41 days`.
pub fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

/// JSON on one line, with carried bytes as lone surrogates and no control character left as it is.
struct CarriedBytes;

impl Formatter for CarriedBytes {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        // serde_json escapes the control characters of ASCII only.
        write!(writer, "{}", EscapedJson(fragment))
    }

    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        match escape {
            // The two digits of the carried byte follow: together they are one surrogate, U+DC80 to U+DCFF.
            CharEscape::AsciiControl(0) => writer.write_all(b"\\udc"),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_every_path_and_no_control_character() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let mut written = Vec::new();
            let mut serializer = serde_json::Serializer::with_formatter(&mut written, CarriedBytes);
            text.serialize(&mut serializer)
                .expect("a Vec takes everything");
            assert_eq!(String::from_utf8_lossy(&written), expected);
        }
        check("/home/me/litellm", r#""/home/me/litellm""#);
        check("a\n\"\\\x1b", r#""a\n\"\\\u001b""#);
        check("\u{7f}\u{9b}x", r#""\u007f\u009bx""#);
        check("日本", r#""日本""#);
        check("/caf\0e9/x", r#""/caf\udce9/x""#); // os.fsdecode(b"/caf\xe9/x")
    }

    #[test]
    fn a_time_is_told_in_its_largest_whole_unit() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
            (3_600_000, "41 days"),
        ] {
            assert_eq!(rounded(Duration::from_secs(seconds)), expected);
        }
    }
}
