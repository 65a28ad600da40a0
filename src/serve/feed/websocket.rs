//! Reads the messages of one side of a WebSocket (RFC 6455 §5) as they pass.
//!
//! Decided here: which frames hold a JSON document: those of text messages. An extension may change what a frame means, so a
//! WebSocket with one is not read, and reading ends at the first frame that needs one.

use super::json::{BodySummary, JsonScanner, Kind};

/// A position in the frames of one side.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The head of the current frame, as far as it has come.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    /// How much of the frame's payload is left; only after its head.
    payload_left: u64,
    /// How much of its payload has passed: the position in the masking key.
    payload_read: usize,
    /// The current message is text.
    is_text: bool,
    /// What the current message says.
    message: BodySummary,
    /// It is not a WebSocket without extensions: nothing more is read.
    is_lost: bool,
}

/// What the first two bytes of a frame say (RFC 6455 §5.2).
struct FrameHead {
    is_final: bool,
    opcode: u8,
    /// How many bytes of a longer length follow.
    length_bytes: usize,
    is_masked: bool,
}

impl Frames {
    /// Reads the next bytes and adds what whole messages say to `summary`.
    pub fn read(&mut self, bytes: &[u8], scanner: &mut JsonScanner, summary: &mut BodySummary) {
        let mut rest = bytes;
        while !self.is_lost && !rest.is_empty() {
            if self.payload_left > 0 {
                let most = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let (payload, behind) = rest.split_at(most.min(rest.len()));
                rest = behind;
                self.payload_left -= payload.len() as u64;
                self.payload(payload, scanner);
            } else {
                let (byte, behind) = (rest[0], &rest[1..]);
                rest = behind;
                self.head[self.head_len] = byte;
                self.head_len += 1;
                if !self.is_head_complete() {
                    continue;
                }
                self.start_payload(scanner);
            }
            if self.payload_left == 0 && !self.is_lost {
                self.end_frame(summary);
            }
        }
    }

    /// Reads nothing more.
    pub fn lose(&mut self) {
        self.is_lost = true;
    }

    /// Whether nothing more is read.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    fn frame(&self) -> FrameHead {
        let [first, second, ..] = self.head;
        FrameHead {
            is_final: first & 0x80 != 0,
            opcode: first & 0x0f,
            length_bytes: match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            },
            is_masked: second & 0x80 != 0,
        }
    }

    fn is_head_complete(&self) -> bool {
        let FrameHead {
            length_bytes,
            is_masked,
            ..
        } = self.frame();
        self.head_len >= 2 && self.head_len == 2 + length_bytes + 4 * usize::from(is_masked)
    }

    fn start_payload(&mut self, scanner: &mut JsonScanner) {
        let FrameHead {
            opcode,
            length_bytes,
            ..
        } = self.frame();
        let length = &self.head[2..2 + length_bytes];
        self.payload_left = match length_bytes {
            0 => u64::from(self.head[1] & 0x7f),
            _ => length
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.payload_read = 0;
        let has_extension = self.head[0] & 0x70 != 0;
        match opcode {
            _ if has_extension => self.is_lost = true,
            CONTINUATION => {}
            TEXT | BINARY => {
                self.is_text = opcode == TEXT;
                self.message = BodySummary::default();
                *scanner = JsonScanner::default();
            }
            CLOSE..=PONG => {}
            _ => self.is_lost = true,
        }
    }

    fn payload(&mut self, payload: &[u8], scanner: &mut JsonScanner) {
        let FrameHead {
            opcode, is_masked, ..
        } = self.frame();
        // A control frame may stand between the frames of a message.
        if !self.is_text || opcode >= CLOSE {
            return;
        }
        if !is_masked {
            return scanner.scan(payload, &mut self.message);
        }
        let key = self.head[..self.head_len].last_chunk::<4>().copied();
        let key = key.unwrap_or_default();
        let mut plain = [0; 256];
        for piece in payload.chunks(plain.len()) {
            for (plain, byte) in plain.iter_mut().zip(piece) {
                *plain = byte ^ key[self.payload_read % key.len()];
                self.payload_read = self.payload_read.wrapping_add(1);
            }
            scanner.scan(&plain[..piece.len()], &mut self.message);
        }
    }

    fn end_frame(&mut self, summary: &mut BodySummary) {
        let FrameHead {
            is_final, opcode, ..
        } = self.frame();
        self.head_len = 0;
        if !is_final || opcode >= CLOSE || !std::mem::take(&mut self.is_text) {
            return;
        }
        let message = std::mem::take(&mut self.message);
        if message.kind == Kind::Other {
            return;
        }
        summary.model = message.model.or(summary.model.take());
        let turns = summary.turns.get_or_insert(0);
        if message.kind == Kind::End {
            *turns += 1;
            summary.usage.add(&message.usage);
        }
    }
}

// The opcodes (RFC 6455 §11.8).
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// Two bytes, a length of 8 bytes and a masking key.
const HEAD_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::super::observe::{BodyFormat, Observer};

    /// A frame with `payload`, masked if there is a key.
    fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mask = if key.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(mask | len as u8),
            len @ 126..=0xffff => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend(key.iter().flatten());
        let key = key.unwrap_or_default();
        let masked = payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b);
        frame.extend(masked);
        frame
    }

    type Expected<'a> = (Option<&'a str>, Option<u64>, Option<u64>, Option<u64>);

    #[track_caller]
    fn check(why: &str, frames: &[Vec<u8>], expected: Expected<'_>) {
        let bytes = frames.concat();
        for step in [bytes.len().max(1), 1, 7] {
            let mut observer = Observer::new(BodyFormat::WebSocket);
            bytes.chunks(step).for_each(|piece| observer.observe(piece));
            let found = observer.summary();
            let usage = &found.usage;
            let found = (
                found.model.as_deref(),
                usage.input_tokens(),
                usage.output_tokens(),
                found.turns,
            );
            assert_eq!(found, expected, "{why}, {step} at a time");
        }
    }

    const CREATE: &[u8] =
        br#"{"type":"response.create","model":"gpt-5","input":"{\"model\":\"x\"}"}"#;
    const DONE: &[u8] = br#"{"type":"response.completed","response":{"model":"gpt-5-1","type":"x","usage":{"input_tokens":9,"output_tokens":2}}}"#;
    const FAILED: &[u8] = br#"{"response":{"usage":null},"type":"response.failed"}"#;
    const KEY: Option<[u8; 4]> = Some([1, 0, 255, 7]);

    #[test]
    #[rustfmt::skip] // A table.
    fn text_messages_yield_the_model_the_turns_and_all_their_tokens() {
        let text = |payload: &[u8]| frame(0x81, None, payload);
        check("nothing", &[], (None, None, None, None));
        check("a request", &[frame(0x81, KEY, CREATE)], (Some("gpt-5"), None, None, Some(0)));
        check("a response", &[text(br#"{"type":"response.created","response":{"model":"no"}}"#), text(DONE)], (Some("gpt-5-1"), Some(9), Some(2), Some(1)));
        check("turns add up", &[text(DONE), text(FAILED), text(DONE)], (Some("gpt-5-1"), Some(18), Some(4), Some(3)));
        let long = [CREATE, b" ".repeat(70_000).as_slice()].concat();
        check("a long length", &[frame(0x81, KEY, &long), frame(0x81, KEY, &long[..300])], (Some("gpt-5"), None, None, Some(0)));
        let (first, rest) = CREATE.split_at(12);
        let fragments = [frame(1, KEY, first), frame(0x89, KEY, DONE), frame(0, KEY, b""), frame(0x80, KEY, rest)];
        check("fragments, and a ping between them", &fragments, (Some("gpt-5"), None, None, Some(0)));
        check("a message that has not ended", &[frame(1, KEY, CREATE)], (None, None, None, None));
        check("binary", &[frame(0x82, KEY, CREATE), frame(0x82, None, b""), text(DONE)], (Some("gpt-5-1"), Some(9), Some(2), Some(1)));
        check("other messages", &[text(b""), text(b"{}"), text(br#"{"model":"m","usage":{"input_tokens":1}}"#), text(b"ping")], (None, None, None, None));
        check("compressed, and everything behind it", &[frame(0xc1, None, DONE), text(DONE)], (None, None, None, None));
        check("an unknown kind of frame", &[text(DONE), frame(0x83, None, b"x"), text(DONE)], (Some("gpt-5-1"), Some(9), Some(2), Some(1)));
        check("the largest length", &[vec![0x81, 0x7f, 255, 255, 255, 255, 255, 255, 255, 255], DONE.to_vec()], (None, None, None, None));
    }
}
