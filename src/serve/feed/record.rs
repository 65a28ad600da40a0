//! What is kept while recording is on, and its limits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::event::{Event, Line, Side};
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

/// A body that is being recorded, for its exchange and for those that watch it.
pub type OpenBody = Rc<RefCell<RecordedBody>>;

/// The start of a body, as far as the limits allow.
#[derive(Debug)]
pub struct RecordedBody {
    bytes: Vec<u8>,
    /// The bytes of the body, kept or not.
    total: u64,
    is_truncated: bool,
    is_omitted: bool,
    budget: Rc<ByteBudget>,
}

impl RecordedBody {
    pub fn new(budget: &Rc<ByteBudget>) -> RecordedBody {
        RecordedBody {
            bytes: Vec::new(),
            total: 0,
            is_truncated: false,
            is_omitted: false,
            budget: Rc::clone(budget),
        }
    }

    /// Appends the next bytes of the body, as far as there is room.
    pub fn append(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.is_truncated {
            return;
        }
        let wanted = bytes.len().min(BODY_BYTES_MAX - self.bytes.len());
        let granted = self.budget.reserve(wanted);
        self.bytes.extend_from_slice(&bytes[..granted]);
        self.is_truncated = granted < bytes.len();
    }

    /// Counts bytes of the body that are not available. What follows them is not kept.
    pub fn skip(&mut self, count: u64) {
        self.total += count;
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

    /// Returns the event with the body, without its keys. `is_complete`: its end has come.
    pub fn line(&self, id: u64, side: Side, is_complete: bool) -> Line {
        self.line_of(
            self.bytes.len(),
            id,
            side,
            self.is_truncated || !is_complete,
        )
    }

    /// How many of the kept bytes are whole lines. A secret that has come in part is not always recognised; one within a line is.
    fn whole_lines_len(&self) -> usize {
        let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let last = self.bytes.iter().rposition(is_line_end);
        last.map_or(0, |last| last + 1)
    }

    fn line_of(&self, len: usize, id: u64, side: Side, truncated: bool) -> Line {
        let (encoding, data) = self.encoded(&self.bytes[..len], truncated);
        let event = Event::Body {
            id,
            side,
            encoding,
            data: &data,
            truncated,
            total: self.total,
        };
        event.line()
    }

    /// Returns the body and its encoding: `utf8` where it is text without control characters other than those of lines and
    /// tables, else `base64`; `omitted` without data.
    fn encoded(&self, bytes: &[u8], is_truncated: bool) -> (&'static str, String) {
        if self.is_omitted {
            return ("omitted", String::new());
        }
        let text = match std::str::from_utf8(bytes) {
            // Truncated within a character.
            Err(error) if is_truncated && error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()])
            }
            text => text,
        };
        match text {
            Ok(text) if !has_control_characters(text) => ("utf8", redact::text(text, is_truncated)),
            _ => {
                let shown = redact::bytes(bytes, is_truncated);
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

/// What has been shown of a body that grows: its whole lines. All of them are read again for secrets each time, because one may
/// depend on a line before it. So that this takes time linear in the length, they are shown when they have grown by a sixteenth, or
/// have stopped growing.
#[derive(Debug, Default)]
pub struct Growth {
    /// The bytes that there were when it was last looked at.
    seen: usize,
    shown: usize,
}

impl Growth {
    /// Returns the event with what is kept of the body by now, if it is to be shown.
    pub fn next_line(&mut self, id: u64, side: Side, body: &RecordedBody) -> Option<Line> {
        let len = body.whole_lines_len();
        let is_due = self.is_due(len);
        is_due.then(|| body.line_of(len, id, side, true))
    }

    fn is_due(&mut self, len: usize) -> bool {
        let has_stopped = std::mem::replace(&mut self.seen, len) == len;
        let growth = len.abs_diff(self.shown);
        let is_due = growth > 0 && (has_stopped || growth >= self.shown / 16);
        if is_due {
            self.shown = len;
        }
        is_due
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
            assert_eq!(body.encoded(bytes, is_truncated), (encoding, data.to_owned()), "{why}");
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
    fn no_beginning_of_a_growing_body_shows_a_part_of_a_secret() {
        for secret in [
            r#"{"text":"use sk-proj-qwWm3Zx9Lk2Vb8Nt now"}"#,
            r#"{"a":"Authorization: Bearer qwWm3Zx9Lk2Vb8Nt0123","b":1}"#,
            r#"{"a":"Bearer qwWm3Zx9Lk2Vb8Nt0123"}"#,
            r#"{"api_key":"qwWm3Zx9Lk2Vb8Nt","b":1}"#,
            "password=qwWm3Zx9Lk2Vb8Nt&a=b",
            "https://me:qwWm3Zx9Lk2Vb8Nt@example.com/ x",
            "-----BEGIN PRIVATE KEY-----\nqwWm3Zx9\nLk2Vb8Nt\n-----END PRIVATE KEY-----",
        ] {
            let text = format!("data: before\n\ndata: {secret}\n\ndata: behind\n\n");
            let mut body = RecordedBody::new(&Rc::default());
            let mut growth = Growth::default();
            let mut last = None;
            for byte in text.bytes() {
                body.append(&[byte]);
                let line = growth.next_line(1, Side::Response, &body);
                for part in ["qwW", "3Zx9", "Lk2V", "b8Nt"] {
                    assert!(!line.iter().any(|line| line.contains(part)), "{line:?}");
                }
                last = line.or(last);
            }
            let last = last.unwrap_or_default();
            assert!(last.contains("before") && last.contains("behind"), "{last}");
        }
    }

    #[test]
    fn a_growing_body_is_shown_when_it_has_grown_by_a_sixteenth_or_stops() {
        let shown = |lengths: &[usize]| {
            let mut growth = Growth::default();
            let is_due = |len: &&usize| growth.is_due(**len);
            lengths.iter().filter(is_due).copied().collect::<Vec<_>>()
        };
        assert_eq!(shown(&[0, 0, 1, 1, 2]), [1, 2]);
        assert_eq!(shown(&[1600, 1601, 1699, 1700, 1700]), [1600, 1700]);
        assert_eq!(shown(&[1600, 1601, 1601, 1601]), [1600, 1601]);
        assert_eq!(shown(&[1600, 5, 5]), [1600, 5], "another response");
        let all: Vec<usize> = (0..=1 << 20).step_by(64).collect();
        let sum: usize = shown(&all).iter().sum();
        assert!(sum < 20 << 20, "{sum}");
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
