//! Results on standard output, everything else on standard error.
//!
//! Decided here: a result that cannot be written is an error, but a closed pipe is not; and no byte of a path or of a peer
//! reaches a terminal as a control character. The only escape codes are colours ([`table`](super::table)), which `NO_COLOR` turns
//! off, and those with which `--watch` and `ic tail` overwrite what they have shown.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use crate::cli::outcome::Failure;
use crate::text::{Escaped, EscapedJson, io_message, redact};

/// Standard output, locked and buffered, for the results of one command.
pub struct Output {
    stream: BufWriter<StdoutLock<'static>>,
    /// Whether the reader has closed the pipe (`ic list | head -1`); the rest is discarded.
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

    /// Writes text unchanged; paths and names go through [`escaped_path`](crate::text::escaped_path) first.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written, except because its reader has closed the pipe.
    pub fn text(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        let written = write!(self.stream, "{text}");
        self.check(written)
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
        self.check(written)
    }

    /// Flushes the buffer at the end.
    ///
    /// # Errors
    ///
    /// As [`Output::text`]: a full device is often noticed only here.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.show().map(drop)
    }

    /// Flushes the buffer of a result that continues; returns whether the reader is still there.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn show(&mut self) -> Result<bool, Failure> {
        let written = self.stream.flush();
        self.check(written)?;
        Ok(!self.reader_left)
    }

    fn check(&mut self, written: io::Result<()>) -> Result<(), Failure> {
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

/// Writes one line, with the prefix `ic: `, to standard error. Errors are ignored.
pub fn eprint_line(line: impl fmt::Display) {
    let line = redact::text(&line.to_string(), false);
    let line = format!("ic: {}\n", Escaped(&line));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes text that is not a result to standard error. Errors are ignored.
pub fn eprint_text(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `count` with its noun: `1 conflict`, `2 conflicts`.
pub fn counted(count: impl fmt::Display, noun: &str) -> String {
    let count = count.to_string();
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `1 port mapping`
pub fn mappings(count: usize) -> String {
    counted(count, "port mapping")
}

/// A duration in its largest whole unit: `41 days`.
pub fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => counted(seconds, "second"),
        120..7200 => counted(seconds / 60, "minute"),
        7200..172_800 => counted(seconds / 3600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    }
}

/// Unix seconds as a time of day: `12:34:56Z`.
pub fn clock(at: f64) -> String {
    let seconds = at.rem_euclid(86_400.0) as u32;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}Z", seconds % 60)
}

/// Formats JSON on one line, with carried bytes as lone surrogates and all control characters escaped.
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
            // The two digits of the carried byte follow and complete the surrogate, U+DC80 to U+DCFF.
            CharEscape::AsciiControl(0) => writer.write_all(b"\\udc"),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_contains_every_path_and_no_control_character() {
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
    fn a_duration_is_shown_in_its_largest_whole_unit() {
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
