//! Observes the traffic of a language model: its model, its tokens, its events.
//!
//! Decided here: which bodies are read, for OpenAI's chat completions and responses, Anthropic's messages and Gemini's contents, in
//! one piece and as server-sent events, and for responses in a WebSocket. Pure: bytes in, in pieces of any size, numbers out; the
//! state has a fixed limit.

use super::json::JsonScanner;
pub use super::json::{BodySummary, Count, Kind};
use super::websocket::Frames;

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// One JSON document.
    Json,
    /// Server-sent events, each with a JSON document.
    EventStream,
    /// The frames of one side of a WebSocket, each message a JSON document.
    WebSocket,
}

impl BodyFormat {
    /// Returns the format that a `Content-Type` names, if it is one of these.
    pub fn of(content_type: &str) -> Option<BodyFormat> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        let suffix = essence.get(essence.len().saturating_sub("+json".len())..);
        if is("text/event-stream") {
            Some(BodyFormat::EventStream)
        } else if is("application/json")
            || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
        {
            Some(BodyFormat::Json)
        } else {
            None
        }
    }
}

/// Observes one body as it passes.
#[derive(Debug, Clone)]
pub struct Observer {
    scanner: JsonScanner,
    position: Position,
    summary: BodySummary,
}

/// The position in a body, beyond that in a document.
#[derive(Debug, Clone)]
enum Position {
    Json,
    EventStream(Line),
    WebSocket(Frames),
}

/// Returns the model that a path of Gemini's API names: `/v1beta/models/NAME:generateContent`.
pub fn model_in_path(path: &str) -> Option<&str> {
    let path = path.split('?').next()?;
    let (_, model) = path.split_once("/models/")?;
    let (model, method) = model.rsplit_once(':')?;
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic());
    (is_method && (1..=MODEL_BYTES_MAX).contains(&model.len())).then_some(model)
}

/// The longest model in a path that is shown.
const MODEL_BYTES_MAX: usize = 256;

/// A position in an event stream.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// How many bytes of [`DATA`] the line starts with so far; `None`: it has another field.
    matched: Option<usize>,
    /// The line before ended with CR, so that an LF belongs to the same line end.
    follows_cr: bool,
    /// The event has data.
    has_data: bool,
}

impl Observer {
    /// Starts before the first byte of a body.
    pub fn new(format: BodyFormat) -> Observer {
        let line = Line {
            matched: Some(0),
            follows_cr: false,
            has_data: false,
        };
        Observer {
            scanner: JsonScanner::default(),
            position: match format {
                BodyFormat::Json => Position::Json,
                BodyFormat::EventStream => Position::EventStream(line),
                BodyFormat::WebSocket => Position::WebSocket(Frames::default()),
            },
            summary: BodySummary::default(),
        }
    }

    /// Reads the next bytes of the body.
    pub fn observe(&mut self, bytes: &[u8]) {
        let Observer {
            scanner,
            position,
            summary,
        } = self;
        let line = match position {
            Position::Json => return scanner.scan(bytes, summary),
            Position::WebSocket(frames) => return frames.read(bytes, scanner, summary),
            Position::EventStream(line) => line,
        };
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        for piece in bytes.split_inclusive(is_line_end) {
            let (text, end) = match piece.split_last() {
                Some((end, text)) if is_line_end(end) => (text, Some(*end)),
                _ => (piece, None),
            };
            scanner.scan(line.data(text), summary);
            if let Some(end) = end {
                line.end(end, scanner, summary);
            }
        }
    }

    /// Leaves bytes of the body out. The frames of a WebSocket cannot be found again.
    pub fn skip(&mut self) {
        if let Position::WebSocket(frames) = &mut self.position {
            frames.lose();
        }
    }

    /// Returns whether it reads the frames of a WebSocket; `None`: the body is no WebSocket.
    pub fn reads_websocket(&self) -> Option<bool> {
        match &self.position {
            Position::WebSocket(frames) => Some(!frames.is_lost()),
            Position::Json | Position::EventStream(_) => None,
        }
    }

    /// Returns what the body has said so far.
    pub fn summary(&self) -> &BodySummary {
        &self.summary
    }
}

impl Line {
    /// Reads the next bytes of the line and returns those that are data. A space after the colon is left to the scanner.
    fn data<'b>(&mut self, text: &'b [u8]) -> &'b [u8] {
        let mut rest = text;
        while let Some(matched) = self.matched
            && let Some(expected) = DATA.get(matched)
            && let Some((byte, behind)) = rest.split_first()
        {
            self.matched = (byte == expected).then_some(matched + 1);
            rest = behind;
        }
        if self.matched == Some(DATA.len()) {
            rest
        } else {
            &[]
        }
    }

    /// Reads the end of the line.
    fn end(&mut self, byte: u8, scanner: &mut JsonScanner, summary: &mut BodySummary) {
        let is_same_end = byte == b'\n' && self.follows_cr && self.matched == Some(0);
        self.follows_cr = byte == b'\r';
        match self.matched.replace(0) {
            _ if is_same_end => {}
            // An empty line ends the event.
            Some(0) => {
                summary.events += u64::from(std::mem::take(&mut self.has_data));
                *scanner = JsonScanner::default();
            }
            // A name without a colon is a field with an empty value.
            Some(len) if len + 1 >= DATA.len() => {
                self.has_data = true;
                scanner.scan(b"\n", summary);
            }
            _ => {}
        }
    }
}

const DATA: &[u8] = b"data:";

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = (Option<&'a str>, Option<u64>, Option<u64>, u64);

    /// Observes `body` whole, byte by byte, and with trailing bytes that say nothing.
    #[track_caller]
    fn check(
        why: &str,
        format: BodyFormat,
        body: &str,
        (model, input, output, events): Expected<'_>,
    ) {
        let expected = (model.map(str::to_owned), input, output, events);
        let observe = |body: &str, step: usize| {
            let mut observer = Observer::new(format);
            for piece in body.as_bytes().chunks(step) {
                observer.observe(piece);
            }
            let BodySummary {
                model,
                usage,
                events,
                ..
            } = observer.summary().clone();
            (model, usage.input_tokens(), usage.output_tokens(), events)
        };
        assert_eq!(observe(body, body.len().max(1)), expected, "{why}");
        assert_eq!(observe(body, 1), expected, "{why}: byte by byte");
        let behind = format!("{body} \r\n:x");
        assert_eq!(observe(&behind, 3), expected, "{why}: with trailing bytes");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_json_body_yields_its_model_and_its_tokens() {
        let check = |why: &str, body: &str, (model, input, output): (Option<&str>, _, _)| check(why, BodyFormat::Json, body, (model, input, output, 0));
        check("a chat completion", r#"{"id":"a","model":"gpt-5","choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"completion_tokens_details":{"reasoning_tokens":7}}}"#, (Some("gpt-5"), Some(9), Some(12)));
        check("a response", r#"{"object":"response","model":"o3","output":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":1},"output_tokens":87}}"#, (Some("o3"), Some(36), Some(87)));
        check("a message", "{\"type\":\"message\",\n \"model\" : \"claude-opus\",\n \"usage\" : { \"input_tokens\" : 10 , \"output_tokens\" : 3 } }", (Some("claude-opus"), Some(10), Some(3)));
        check("contents", r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":2},"modelVersion":"gemini-3"}"#, (Some("gemini-3"), Some(7), Some(2)));
        check("contents in a list", r#"[{"usageMetadata":{"promptTokenCount":7},"modelVersion":"gemini-3"},{"usageMetadata":{"candidatesTokenCount":2}}]"#, (Some("gemini-3"), Some(7), Some(2)));
        check("a request", r#"{"messages":[{"role":"user","content":"{\"model\":\"not\"}"}],"model":"m"}"#, (Some("m"), None, None));
        check("a deeper value does not count", r#"{"messages":[{"model":"a","usage":{"input_tokens":1}}],"tools":{"model":"b","usage":{"input_tokens":1}},"response":[{"model":"c"}]}"#, (None, None, None));
        check("a value outside an object", r#"["model","m",{"model":"n"}]"#, (None, None, None));
        check("escapes in a key and in a value", r#"{"mod\u0065l":"a\/b\"c"}"#, (Some("a/b\"c"), None, None));
        check("a text that ends in a backslash", r#"{"a":"\\","model":"m"}"#, (Some("m"), None, None));
        check("half a surrogate", r#"{"model":"\ud800"}"#, (None, None, None));
        check("other types", r#"{"model":null,"usage":{"prompt_tokens":null,"completion_tokens":"3"}}"#, (None, None, None));
        check("no usage", r#"{"model":"","usage":null}"#, (None, None, None));
        check("numbers that count nothing", r#"{"usage":{"prompt_tokens":-1,"completion_tokens":1.5}}"#, (None, None, None));
        check("other numbers that count nothing", r#"{"usage":{"prompt_tokens":1e3,"completion_tokens":99999999999999999999}}"#, (None, None, None));
        check("the last one counts", r#"{"model":"a","model":"b"}"#, (Some("b"), None, None));
        check("more ends than starts", r#"}}]]{"model":"m"}"#, (Some("m"), None, None));
        check("empty", "", (None, None, None));
        check("no JSON", "model: m", (None, None, None));
        let long = format!(r#"{{"{}":1,"model":"{}"}}"#, "k".repeat(999), "m".repeat(257));
        check("too long for a name", &long, (None, None, None));
        let deep = format!(r#"{{"a":{}{{"model":"a"}}{},"model":"b"}}"#, "[".repeat(9), "]".repeat(9));
        check("deep", &deep, (Some("b"), None, None));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn cached_tokens_are_part_of_the_input() {
        #[track_caller]
        fn check(why: &str, usage: &str, expected: (Option<u64>, Option<u64>, Option<u64>)) {
            for body in [format!("{{{usage}}}"), format!("{{\"response\":{{{usage}}}}}")] {
                let mut observer = Observer::new(BodyFormat::Json);
                observer.observe(body.as_bytes());
                let usage = &observer.summary().usage;
                assert_eq!((usage.input_tokens(), usage.cached_tokens(), usage.output_tokens()), expected, "{why}: {body}");
            }
        }
        check("chat", r#""usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":1},"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":2,"cached_tokens":1}}"#, (Some(9), Some(4), Some(3)));
        check("responses", r#""usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":0},"output_tokens":3}"#, (Some(9), Some(0), Some(3)));
        check("messages", r#""usage":{"input_tokens":9,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"cache_creation":{"input_tokens":1},"output_tokens":3}"#, (Some(129), Some(100), Some(3)));
        check("messages without a cache", r#""usage":{"input_tokens":9,"cache_creation_input_tokens":null,"output_tokens":3}"#, (Some(9), None, Some(3)));
        check("a message as chat", r#""usage":{"prompt_tokens":129,"cache_creation_input_tokens":20,"cache_read_input_tokens":100}"#, (Some(129), Some(100), None));
        check("a message as a response", r#""usage":{"input_tokens":129,"input_tokens_details":{"cached_tokens":100},"cache_read_input_tokens":100}"#, (Some(129), Some(100), None));
        check("contents", r#""usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":6,"candidatesTokenCount":3,"thoughtsTokenCount":50,"toolUsePromptTokenCount":5,"totalTokenCount":68}"#, (Some(15), Some(6), Some(53)));
        check("thoughts only", r#""usageMetadata":{"promptTokenCount":10,"thoughtsTokenCount":50}"#, (Some(10), None, Some(50)));
        check("too many", r#""usage":{"input_tokens":18446744073709551615,"cache_read_input_tokens":1}"#, (Some(u64::MAX), Some(1), None));
    }

    #[test]
    fn a_path_of_gemini_names_its_model() {
        for (path, expected) in [
            (
                "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse",
                Some("gemini-3-pro"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
                Some("m"),
            ),
            ("/v1beta/models/team/m:8b:countTokens", Some("team/m:8b")),
            ("/v1beta/models/gemini-3-pro", None),
            ("/v1beta/models/:generateContent", None),
            ("/v1beta/models/m:", None),
            ("/v1beta/models/m:8", None),
            ("/v1/models?a=/models/m:x", None),
            ("*", None),
        ] {
            assert_eq!(model_in_path(path), expected, "{path}");
        }
        let long = format!("/models/{}:x", "m".repeat(257));
        assert_eq!(model_in_path(&long), None);
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_event_stream_yields_them_too_and_its_events_are_counted() {
        let check = |why: &str, body: &str, expected| check(why, BodyFormat::EventStream, body, expected);
        check("chat", "data: {\"model\":\"gpt-5\",\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n", (Some("gpt-5"), Some(9), Some(2), 3));
        check("responses", "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"o3\",\"usage\":null}}\n\nevent: x\ndata: {\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n", (Some("o3"), Some(1), Some(2), 2));
        check("messages", "event: message_start\ndata: {\"message\":{\"model\":\"claude\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":15}}\n\n", (Some("claude"), Some(25), Some(15), 2));
        check("contents", "data: {\"modelVersion\":\"g\",\"usageMetadata\":{\"promptTokenCount\":7}}\n\ndata: {\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":2}}\n\n", (Some("g"), Some(7), Some(2), 2));
        check("CRLF", "data: {\"model\":\"m\"}\r\n\r\ndata: {}\r\n\r\n", (Some("m"), None, None, 2));
        check("CR", "data:{\"model\":\"m\"}\r\rdata:{}\r\r", (Some("m"), None, None, 2));
        check("data on several lines", "data: {\"model\":\ndata: \"m\"}\n\n", (Some("m"), None, None, 1));
        check("data without a value", "data\n\ndata:\n\n", (None, None, None, 2));
        check("comments, names and other fields", ": data: x\n\nevent: data\nid: 1\n\ndatum: 1\n\ndat\n\ndatab\n\n Data: 1\n\n", (None, None, None, 0));
        check("a truncated event does not affect the next", "data: {\"a\":\"\n\ndata: {\"model\":\"m\"}\n\n", (Some("m"), None, None, 2));
        check("an event that has not ended", "data: {\"model\":\"m\"}\n", (Some("m"), None, None, 0));
    }

    #[test]
    fn the_content_type_decides_the_format() {
        for (content_type, expected) in [
            ("application/json", Some(BodyFormat::Json)),
            ("Application/JSON; charset=utf-8", Some(BodyFormat::Json)),
            ("application/problem+json", Some(BodyFormat::Json)),
            (
                "text/event-stream;charset=utf-8",
                Some(BodyFormat::EventStream),
            ),
            ("text/plain", None),
            ("application/jsonl", None),
            ("json", None),
            ("é+jso", None),
            ("", None),
        ] {
            assert_eq!(BodyFormat::of(content_type), expected, "{content_type}");
        }
    }
}
