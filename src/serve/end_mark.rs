//! Whether a stream of server-sent events has reached the mark that ends it.
//!
//! Clients close their connection at that mark, some milliseconds before the target's last chunk: they have a complete response.
//! Decided here: which events are an end mark, for OpenAI's chat completions and responses, Anthropic's messages and Gemini's
//! contents. Pure: bytes in, in pieces of any size. It is read whether or not the feed has subscribers, so it looks at the start
//! of each line only; Gemini's mark is not there.

use memchr::{memchr, memmem, memrchr};

/// Follows the data of one event stream. Lines end with LF or CRLF; a bare CR, which no such API sends, ends none.
#[derive(Debug)]
pub struct EndMark {
    /// The start of the current line.
    line: [u8; LINE_BYTES],
    line_len: usize,
    /// How much of [`FINISH_REASON`] the line has at this point; `None`: the stream is not one of Gemini's.
    finish_reason: Option<usize>,
    /// The current event is an end mark.
    is_end_event: bool,
    /// The last event that was read is one.
    is_read: bool,
    /// So is the last one that was sent.
    is_sent: bool,
}

impl EndMark {
    /// Starts before the first byte of a body. `is_contents`: it is one of Gemini's streams.
    pub fn new(is_contents: bool) -> EndMark {
        EndMark {
            line: [0; LINE_BYTES],
            line_len: 0,
            finish_reason: is_contents.then_some(0),
            is_end_event: false,
            is_read: false,
            is_sent: false,
        }
    }

    /// Reads the next bytes of data.
    pub fn read(&mut self, data: &[u8]) {
        let mut rest = data;
        while let Some(len) = line_len(rest) {
            let (text, behind) = rest.split_at(len);
            rest = &behind[1..];
            if self.line_len == 0 {
                self.find_finish_reason(text);
                self.end_line(&text[..len.min(LINE_BYTES)]);
            } else {
                self.keep(text);
                let (line, len) = (self.line, std::mem::take(&mut self.line_len));
                self.end_line(&line[..len]);
            }
        }
        self.keep(rest);
    }

    /// The client has been sent what was read.
    pub fn sent(&mut self) {
        self.is_sent = self.is_read;
    }

    /// Whether the last event that the client has been sent whole is an end mark.
    pub fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// Keeps the next bytes of a line that has not ended.
    fn keep(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let room = &mut self.line[self.line_len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text[..len]);
        self.line_len += len;
        self.find_finish_reason(text);
    }

    fn find_finish_reason(&mut self, text: &[u8]) {
        if let Some(matched) = &mut self.finish_reason {
            *matched = find_finish_reason(*matched, text);
        }
    }

    /// `line` is the start of a line that has ended.
    fn end_line(&mut self, line: &[u8]) {
        let has_finish_reason = match &mut self.finish_reason {
            Some(matched) => std::mem::take(matched) == FINISH_REASON.len(),
            None => false,
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.is_end_event = false;
        } else if let Some(data) = line.strip_prefix(b"data:") {
            // The data may have more lines.
            self.is_end_event |= has_finish_reason || is_end_data(data);
            self.is_read = self.is_end_event;
        } else if let Some(name) = line.strip_prefix(b"event:") {
            self.is_end_event = END_EVENTS.contains(&name.trim_ascii_start());
        }
    }
}

/// Returns the length of the line at the start of `bytes` if it ends in them. Every second line is empty.
fn line_len(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'\n' => Some(0),
        _ => memchr(b'\n', bytes),
    }
}

/// Whether data that starts so is an end mark.
fn is_end_data(data: &[u8]) -> bool {
    let data = data.trim_ascii_start();
    let Some(value) = data.strip_prefix(b"{\"type\":") else {
        return data == b"[DONE]";
    };
    let ends_with = |name: &&[u8]| {
        let rest = value.trim_ascii_start().strip_prefix(b"\"");
        let rest = rest.and_then(|value| value.strip_prefix(*name));
        rest.is_some_and(|rest| rest.starts_with(b"\""))
    };
    END_EVENTS.iter().any(ends_with)
}

/// Looks for [`FINISH_REASON`] in a line of which `matched` bytes match before `text`; returns how many match after it.
fn find_finish_reason(matched: usize, text: &[u8]) -> usize {
    let (mut matched, mut rest) = (matched, text);
    loop {
        while (1..FINISH_REASON.len()).contains(&matched)
            && let Some((byte, behind)) = rest.split_first()
        {
            rest = behind;
            matched = match byte {
                byte if *byte == FINISH_REASON[matched] => matched + 1,
                b' ' if matched >= FINISH_NAME.len() => matched,
                b'"' => 1,
                _ => 0,
            };
        }
        if matched > 0 || rest.is_empty() {
            return matched;
        }
        let Some(at) = memmem::find(rest, FINISH_NAME) else {
            let tail = &rest[memrchr(b'"', rest).unwrap_or(rest.len())..];
            return match FINISH_NAME.starts_with(tail) {
                true => tail.len(),
                false => 0,
            };
        };
        matched = FINISH_NAME.len();
        rest = &rest[at + matched..];
    }
}

/// The events that end a stream of the Responses API, and one of the Messages API.
const END_EVENTS: [&[u8]; 4] = [
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
    b"message_stop",
];

/// What Gemini's last chunk has; spaces may stand around the colon. Quotes in a JSON string are escaped, so no text has it.
const FINISH_REASON: &[u8] = b"\"finishReason\":\"";

/// The name in it.
const FINISH_NAME: &[u8] = FINISH_REASON.split_at(FINISH_REASON.len() - 2).0;

/// How much of a line is kept; the longest mark has 36 bytes: `data: {"type": "response.incomplete"`.
const LINE_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::Body;
    use crate::http::framing::Framing;

    /// Reads `stream` whole, byte by byte, with the start of another event behind it, and in chunks of every size up to ten.
    #[track_caller]
    fn check_of(is_contents: bool, why: &str, stream: &str, expected: bool) {
        let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut mark = EndMark::new(is_contents);
            pieces.for_each(|piece| mark.read(piece));
            mark.sent();
            mark.is_sent()
        };
        let stream = stream.as_bytes();
        let behind = [stream, b"data: {\"type\""].concat();
        assert_eq!(read(&mut [stream].into_iter()), expected, "{why}");
        assert_eq!(read(&mut stream.chunks(1)), expected, "{why}: byte by byte");
        assert_eq!(
            read(&mut behind.chunks(3)),
            expected,
            "{why}: with trailing bytes"
        );
        for size in 1..10 {
            let chunk = |data: &[u8]| {
                let size = format!("{:x};a=\"data:\"\r\n", data.len());
                [size.as_bytes(), data, b"\r\n"].concat()
            };
            let chunks: Vec<u8> = stream.chunks(size).flat_map(chunk).collect();
            for step in [1, 7, chunks.len().max(1)] {
                let mut mark = EndMark::new(is_contents);
                let mut body = Body::of_response(Framing::Chunked);
                for piece in chunks.chunks(step) {
                    let used = body.follow_data(piece, |data| mark.read(data));
                    assert_eq!(used, Ok(piece.len()), "{why}");
                }
                mark.sent();
                assert_eq!(
                    mark.is_sent(),
                    expected,
                    "{why}: chunks of {size}, {step} at a time"
                );
            }
        }
    }

    #[track_caller]
    fn check(why: &str, stream: &str, expected: bool) {
        check_of(false, why, stream, expected);
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_event_stream_ends_at_its_mark() {
        check("chat", "data: {\"id\":\"x\",\"choices\":[]}\n\ndata: [DONE]\n\n", true);
        check("CRLF", "data: {}\r\n\r\ndata: [DONE]\r\n\r\n", true);
        check("no spaces", "data:[DONE]\n\n", true);
        check("the client may read lines", "data: {}\n\ndata: [DONE]\n", true);
        for name in ["response.completed", "response.incomplete", "response.failed", "message_stop"] {
            check("by name", &format!("event: x\ndata: {{}}\n\nevent: {name}\ndata: {{}}\n\n"), true);
            check("by name, in lines", &format!("event:{name}\r\ndata: {{\r\ndata: }}\r\n\r\n"), true);
            check("by type", &format!("data: {{\"type\":\"{name}\"}}\n\n"), true);
            check("by type, with spaces", &format!("data: {{\"type\": \"{name}\", \"sequence_number\": 9}}\n\n"), true);
            check("only the name", &format!("event: {name}\n"), false);
            check("the data has not ended", &format!("event: {name}\ndata: {{\"type\":\"{name}\""), false);
            check("a longer name", &format!("event: {name}.x\ndata: {{\"type\":\"{name}.x\"}}\n\n"), false);
            check("in a text", &format!("data: {{\"type\":\"x\",\"delta\":\"data: [DONE]\\n\\nevent: {name}\\ndata: {{\\\"type\\\":\\\"{name}\\\"\"}}\n\n"), false);
            check("a message behind it", &format!("event: {name}\ndata: {{}}\n\ndata: {{}}\n\n"), false);
        }
        check("twice", "event: response.completed\ndata: {}\n\ndata: [DONE]\n\n", true);
        check("a comment behind it", "data: [DONE]\n\n: keep-alive\n\n", true);
        check("a name without data behind it", "data: [DONE]\n\nevent: ping\n\n", true);
        check("half an event behind it", "data: [DONE]\n\nevent: ping\ndata: {\"a\":", true);
        check("an event behind it", "data: [DONE]\n\nevent: ping\ndata: {}\n\n", false);
        check("no stream", "", false);
        check("no mark", "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n", false);
        check("a longer text", "data: [DONE] not\n\n", false);
        check("a long line that starts so", &format!("data: [DONE]{}\n\n", " ".repeat(50) + "x"), false);
        check("another field", "id: [DONE]\nretry: 1\n\n", false);
        check("Gemini's, in another stream", "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n", false);
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_stream_of_contents_ends_with_a_finish_reason() {
        let check = |why: &str, stream: &str, expected| check_of(true, why, stream, expected);
        check("the last chunk", "data: {\"candidates\":[{\"content\":{}}]}\r\n\r\ndata: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"and a long text of the model\"}]},\"finishReason\": \"STOP\",\"index\": 0}]}\r\n\r\n", true);
        check("without spaces", "data: {\"candidates\":[{\"finishReason\":\"MAX_TOKENS\"}]}\n\n", true);
        check("with more", "data: {\"a\":\"\",\"finishReason\" : \"STOP\"}\n\n", true);
        check("not the last chunk", "data: {\"finishReason\":\"STOP\"}\n\ndata: {\"usageMetadata\":{}}\n\n", false);
        check("none yet", "data: {\"finishReason\":null}\n\n", false);
        check("in a text", "data: {\"text\":\"{\\\"finishReason\\\":\\\"STOP\\\"}\"}\n\n", false);
        check("as a text", "data: {\"text\":\"finishReason\"}\n\n", false);
        check("a longer name", "data: {\"xfinishReason\":\"a\",\"finishReasons\":\"b\"}\n\n", false);
        check("over two lines", "data: {\"finish\ndata: Reason\":\"STOP\"}\n\n", false);
        check("in another field", "id: {\"finishReason\":\"STOP\"}\ndata: {}\n\n", false);
        check("the other marks", "data: [DONE]\n\n", true);
    }

    #[test]
    fn a_mark_counts_when_it_has_been_sent() {
        let mut mark = EndMark::new(false);
        mark.read(b"data: [DONE]\n\n");
        assert!(!mark.is_sent());
        mark.sent();
        assert!(mark.is_sent());
        mark.read(b"data: {}\n\n");
        assert!(mark.is_sent(), "the client does not have it");
        mark.sent();
        assert!(!mark.is_sent());
    }
}
