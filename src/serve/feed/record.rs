//! What is kept while recording is on, and its limits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::event::Line;
use crate::text::redact;

/// The last exchanges, as the lines that were published of them.
#[derive(Debug, Default)]
pub struct Recording {
    exchanges: VecDeque<RecordedExchange>,
    bytes: usize,
}

#[derive(Debug)]
struct RecordedExchange {
    id: u64,
    port: Option<u16>,
    lines: Vec<Line>,
    bytes: usize,
}

impl Recording {
    /// Keeps the first line of an exchange; the oldest exchanges make room.
    pub fn start_exchange(&mut self, id: u64, port: Option<u16>, line: Line) {
        if self.exchanges.len() == EXCHANGES_MAX {
            self.drop_oldest();
        }
        self.exchanges.push_back(RecordedExchange {
            id,
            port,
            lines: Vec::new(),
            bytes: 0,
        });
        self.append(id, line);
    }

    /// Keeps another line of an exchange if its first one is still kept; the oldest exchanges make room.
    pub fn append(&mut self, id: u64, line: Line) {
        let Some(exchange) = self.exchanges.iter_mut().rev().find(|one| one.id == id) else {
            return;
        };
        exchange.bytes += line.len();
        self.bytes += line.len();
        exchange.lines.push(line);
        while self.bytes > BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Returns the lines about the `only` port, or all, in the order of the exchanges.
    pub fn lines(&self, only: Option<u16>) -> impl Iterator<Item = &Line> {
        let exchanges = self.exchanges.iter();
        exchanges
            .filter(move |exchange| only.is_none() || exchange.port == only)
            .flat_map(|exchange| &exchange.lines)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.exchanges.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }
}

/// How many bytes all recorded bodies that are not complete yet take together.
#[derive(Debug, Default)]
pub struct ByteBudget(Cell<usize>);

impl ByteBudget {
    /// Reserves up to `wanted` bytes and returns how many.
    fn reserve(&self, wanted: usize) -> usize {
        let granted = wanted.min(BYTES_MAX - self.0.get());
        self.0.set(self.0.get() + granted);
        granted
    }

    fn release(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// The start of a body, as far as the limits allow.
#[derive(Debug)]
pub struct RecordedBody {
    bytes: Vec<u8>,
    is_truncated: bool,
    is_omitted: bool,
    budget: Rc<ByteBudget>,
}

impl RecordedBody {
    pub fn new(budget: &Rc<ByteBudget>) -> RecordedBody {
        RecordedBody {
            bytes: Vec::new(),
            is_truncated: false,
            is_omitted: false,
            budget: Rc::clone(budget),
        }
    }

    /// Appends the next bytes of the body, as far as there is room.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.is_truncated {
            return;
        }
        let wanted = bytes.len().min(BODY_BYTES_MAX - self.bytes.len());
        let granted = self.budget.reserve(wanted);
        self.bytes.extend_from_slice(&bytes[..granted]);
        self.is_truncated = granted < bytes.len();
    }

    /// Stops the recording of this body: its next bytes are not available.
    pub fn truncate(&mut self) {
        self.is_truncated = true;
    }

    /// Leaves the body out: it has a content coding, so that secrets in it would not be found.
    pub fn omit(&mut self) {
        self.is_omitted = true;
        self.is_truncated = true;
    }

    /// Whether the end of the body is missing.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Returns the body without its keys, and its encoding: `utf8` where it is text without control characters other than
    /// those of lines and tables, else `base64`; `omitted` without data.
    pub fn encoded(&self) -> (&'static str, String) {
        if self.is_omitted {
            return ("omitted", String::new());
        }
        let text = match std::str::from_utf8(&self.bytes) {
            // Truncated within a character.
            Err(error) if self.is_truncated && error.error_len().is_none() => {
                std::str::from_utf8(&self.bytes[..error.valid_up_to()])
            }
            text => text,
        };
        match text {
            Ok(text) if !has_control_characters(text) => {
                ("utf8", redact::text(text, self.is_truncated))
            }
            _ => {
                let shown = redact::bytes(&self.bytes, self.is_truncated);
                ("base64", BASE64_STANDARD.encode(shown))
            }
        }
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        self.budget.release(self.bytes.len());
    }
}

fn has_control_characters(text: &str) -> bool {
    let is_odd = |character: char| character.is_control() && !"\n\r\t".contains(character);
    text.contains(is_odd)
}

const EXCHANGES_MAX: usize = 256;

/// The limit of a recording, and again of all bodies that are not complete yet.
const BYTES_MAX: usize = 8 << 20;

const BODY_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn starts_of_lines(recording: &Recording) -> Vec<&str> {
        recording
            .lines(None)
            .map(|line| &line[..line.len().min(4)])
            .collect()
    }

    #[test]
    fn the_oldest_exchanges_make_room() {
        let mut recording = Recording::default();
        for id in 0..300 {
            recording.start_exchange(id, None, format!("{id:04}").into());
        }
        assert_eq!(recording.lines(None).count(), 256);
        assert_eq!(starts_of_lines(&recording)[0], "0044");
        recording.append(43, "gone".into());
        recording.append(44, "more".into());
        assert_eq!(starts_of_lines(&recording)[..3], ["0044", "more", "0045"]);
    }

    #[test]
    fn a_recording_is_limited_in_bytes() {
        let mut recording = Recording::default();
        let large: Line = "x".repeat(3 << 20).into();
        for id in 0..3 {
            recording.start_exchange(id, None, format!("{id:04}").into());
            recording.append(id, large.clone());
        }
        assert_eq!(
            starts_of_lines(&recording),
            ["0001", "xxxx", "0002", "xxxx"]
        );
        recording.append(2, "y".repeat(9 << 20).into());
        assert_eq!(
            recording.lines(None).count(),
            0,
            "an exchange above the limit is not kept either"
        );
        assert_eq!(recording.bytes, 0);
    }

    #[test]
    fn bodies_share_a_limit() {
        let budget = Rc::new(ByteBudget::default());
        let piece = vec![0; 700_000];
        let mut bodies: Vec<RecordedBody> = (0..9).map(|_| RecordedBody::new(&budget)).collect();
        for body in &mut bodies {
            (0..3).for_each(|_| body.append(&piece));
        }
        let kept: Vec<usize> = bodies.iter().map(|body| body.bytes.len()).collect();
        assert_eq!(kept[0], 1 << 20, "each has a limit");
        assert_eq!(kept.iter().sum::<usize>(), 8 << 20, "and all have one");
        assert!(bodies.iter().all(RecordedBody::is_truncated));
        drop(bodies);
        let mut body = RecordedBody::new(&budget);
        body.append(b"whole");
        assert!(!body.is_truncated());
        assert_eq!(budget.reserve(9 << 20), (8 << 20) - 5);
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_body_is_encoded_as_text_where_it_is_text() {
        let check = |why: &str, bytes: &[u8], is_truncated: bool, (encoding, data): (&str, &str)| {
            let mut body = RecordedBody::new(&Rc::default());
            body.append(bytes);
            body.is_truncated = is_truncated;
            assert_eq!(body.encoded(), (encoding, data.to_owned()), "{why}");
        };
        check("nothing", b"", false, ("utf8", ""));
        check("text", "a\r\n\té".as_bytes(), false, ("utf8", "a\r\n\té"));
        check("a key", b"a sk-0123456789abcdef b", false, ("utf8", "a … b"));
        check("cut within a key", b"a sk-01", true, ("utf8", "a …"));
        check("cut within a character", "aé".as_bytes().split_last().expect("two").1, true, ("utf8", "a"));
        check("ends within a character", "aé".as_bytes().split_last().expect("two").1, false, ("base64", "YcM="));
        check("control characters of Unicode", "\u{9b}a\u{a0}".as_bytes(), false, ("base64", "wpthwqA="));
        check("what only begins like them", "\u{a0}\u{2028}".as_bytes(), false, ("utf8", "\u{a0}\u{2028}"));
        check("control characters", b"a\0", false, ("base64", "YQA="));
        check("bytes", b"\xff\xfe", true, ("base64", "//4="));
        check("a key among bytes", b"\xff sk-0123456789abcdef", false, ("base64", "/yDigKY="));
        check("a key among control characters", b"\0 sk-0123456789abcdef", false, ("base64", "ACDigKY="));
    }

    #[test]
    fn every_control_character_is_found() {
        for character in '\0'..=char::MAX {
            let expected = character.is_control() && !matches!(character, '\n' | '\r' | '\t');
            assert_eq!(
                has_control_characters(&format!("a{character}b")),
                expected,
                "{character:?}"
            );
        }
    }
}
