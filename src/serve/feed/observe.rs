//! What the traffic of a language model says of itself: its model, its tokens, its events.
//!
//! Decided here: what of a body counts, for OpenAI's chat completions and responses and for Anthropic's messages, in one piece
//! and as a stream of events. Pure: bytes in, in pieces of any size, numbers out. What is kept meanwhile is less
//! than a kilobyte, however long the body is. Not decided here: which bodies are looked at, and when.

use super::json::Document;
pub use super::json::Seen;

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One JSON document.
    Json,
    /// Server-sent events, each with a JSON document.
    Events,
}

impl Kind {
    /// What a `Content-Type` announces, if it is one of these.
    pub fn of(content_type: &str) -> Option<Kind> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is = |kind: &str| essence.eq_ignore_ascii_case(kind);
        let is_json = || {
            let suffix = essence.len().checked_sub("+json".len());
            let suffix = suffix.and_then(|at| essence.get(at..));
            suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
        };
        if is("text/event-stream") {
            Some(Kind::Events)
        } else if is("application/json") || is_json() {
            Some(Kind::Json)
        } else {
            None
        }
    }
}

/// Looks at one body as it passes.
#[derive(Debug, Clone)]
pub struct Observer {
    document: Document,
    events: Option<Line>,
    seen: Seen,
}

/// Where in an event stream we are.
#[derive(Debug, Clone, Copy)]
struct Line {
    part: Part,
    /// The last byte was a CR: an LF behind it ends the same line.
    was_cr: bool,
    /// The event has data.
    has_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// So many bytes of `data:` have come, and nothing else.
    Name(usize),
    /// Behind the colon, where one space may stand.
    Colon,
    Data,
    /// Nothing that is looked at.
    Other,
}

impl Observer {
    /// Looks at a body of that kind.
    pub fn new(kind: Kind) -> Observer {
        let line = Line {
            part: Part::Name(0),
            was_cr: false,
            has_data: false,
        };
        Observer {
            document: Document::default(),
            events: (kind == Kind::Events).then_some(line),
            seen: Seen::default(),
        }
    }

    /// Takes the next bytes of the body.
    pub fn see(&mut self, bytes: &[u8]) {
        let Some(line) = &mut self.events else {
            self.document.see(bytes, &mut self.seen);
            return;
        };
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            let was_cr = std::mem::take(&mut line.was_cr);
            if matches!(byte, b'\r' | b'\n') {
                rest = behind;
                if byte == b'\n' && was_cr {
                    continue;
                }
                line.was_cr = byte == b'\r';
                match line.part {
                    // An empty line ends an event.
                    Part::Name(0) => {
                        self.seen.events += u64::from(std::mem::take(&mut line.has_data));
                        self.document = Document::default();
                    }
                    // A name without a colon is a field without a value.
                    Part::Name(NAME_LEN) => line.has_data = true,
                    Part::Colon | Part::Data => {
                        line.has_data = true;
                        self.document.see(b"\n", &mut self.seen);
                    }
                    Part::Name(_) | Part::Other => {}
                }
                line.part = Part::Name(0);
                continue;
            }
            match line.part {
                Part::Name(count) => {
                    rest = behind;
                    line.part = match DATA.get(count) {
                        Some(&expected) if expected != byte => Part::Other,
                        _ if count == NAME_LEN => Part::Colon,
                        _ => Part::Name(count + 1),
                    };
                }
                Part::Colon => {
                    line.part = Part::Data;
                    if byte == b' ' {
                        rest = behind;
                    }
                }
                Part::Data | Part::Other => {
                    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n');
                    let end = rest.iter().position(ends).unwrap_or(rest.len());
                    let (text, behind) = rest.split_at(end);
                    if line.part == Part::Data {
                        self.document.see(text, &mut self.seen);
                    }
                    rest = behind;
                }
            }
        }
    }

    /// What the body has said so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

const DATA: &[u8] = b"data:";
const NAME_LEN: usize = DATA.len() - 1;

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = (Option<&'a str>, Option<u64>, Option<u64>, u64);

    /// Looks at `body` whole, byte by byte, and with other bytes behind it that say nothing.
    #[track_caller]
    fn check(why: &str, kind: Kind, body: &str, (model, input, output, events): Expected<'_>) {
        let expected = Seen {
            model: model.map(str::to_owned),
            input_tokens: input,
            output_tokens: output,
            events,
        };
        let see = |body: &str, step: usize| {
            let mut observer = Observer::new(kind);
            for piece in body.as_bytes().chunks(step) {
                observer.see(piece);
            }
            observer.seen().clone()
        };
        assert_eq!(see(body, body.len().max(1)), expected, "{why}");
        assert_eq!(see(body, 1), expected, "{why}: byte by byte");
        let behind = format!("{body} \r\n:x");
        assert_eq!(see(&behind, 3), expected, "{why}: with bytes behind it");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_answer_in_one_piece_tells_its_model_and_its_tokens() {
        let check = |why: &str, body: &str, (model, input, output): (Option<&str>, _, _)| check(why, Kind::Json, body, (model, input, output, 0));
        check("a chat completion", r#"{"id":"a","model":"gpt-5","choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"completion_tokens_details":{"reasoning_tokens":7}}}"#, (Some("gpt-5"), Some(9), Some(12)));
        check("a response", r#"{"object":"response","model":"o3","output":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":1},"output_tokens":87}}"#, (Some("o3"), Some(36), Some(87)));
        check("a message", "{\"type\":\"message\",\n \"model\" : \"claude-opus\",\n \"usage\" : { \"input_tokens\" : 10 , \"cache_read_input_tokens\":5, \"output_tokens\" : 3 } }", (Some("claude-opus"), Some(10), Some(3)));
        check("a question", r#"{"messages":[{"role":"user","content":"{\"model\":\"not\"}"}],"model":"m"}"#, (Some("m"), None, None));
        check("what is deeper is somebody else's", r#"{"messages":[{"model":"a","usage":{"input_tokens":1}}],"tools":{"model":"b","usage":{"input_tokens":1}},"response":[{"model":"c"}]}"#, (None, None, None));
        check("what is in no object", r#"["model","m",{"model":"n"}]"#, (None, None, None));
        check("escapes in a key and in a value", r#"{"mod\u0065l":"a\/b\"c"}"#, (Some("a/b\"c"), None, None));
        check("a text that ends in a backslash", r#"{"a":"\\","model":"m"}"#, (Some("m"), None, None));
        check("half a surrogate", r#"{"model":"\ud800"}"#, (None, None, None));
        check("other types", r#"{"model":null,"usage":{"prompt_tokens":null,"completion_tokens":"3"}}"#, (None, None, None));
        check("no usage", r#"{"model":"","usage":null}"#, (None, None, None));
        check("numbers that count nothing", r#"{"usage":{"prompt_tokens":-1,"completion_tokens":1.5}}"#, (None, None, None));
        check("nor does this", r#"{"usage":{"prompt_tokens":1e3,"completion_tokens":99999999999999999999}}"#, (None, None, None));
        check("the last one counts", r#"{"model":"a","model":"b"}"#, (Some("b"), None, None));
        check("more ends than beginnings", r#"}}]]{"model":"m"}"#, (Some("m"), None, None));
        check("empty", "", (None, None, None));
        check("no JSON", "model: m", (None, None, None));
        let long = format!(r#"{{"{}":1,"model":"{}"}}"#, "k".repeat(999), "m".repeat(257));
        check("too long for a name", &long, (None, None, None));
        let deep = format!(r#"{{"a":{}{{"model":"a"}}{},"model":"b"}}"#, "[".repeat(9), "]".repeat(9));
        check("deep", &deep, (Some("b"), None, None));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_stream_tells_them_too_and_counts_its_events() {
        let check = |why: &str, body: &str, expected| check(why, Kind::Events, body, expected);
        check("chat", "data: {\"model\":\"gpt-5\",\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n", (Some("gpt-5"), Some(9), Some(2), 3));
        check("responses", "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"o3\",\"usage\":null}}\n\nevent: x\ndata: {\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n", (Some("o3"), Some(1), Some(2), 2));
        check("messages", "event: message_start\ndata: {\"message\":{\"model\":\"claude\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":15}}\n\n", (Some("claude"), Some(25), Some(15), 2));
        check("CRLF", "data: {\"model\":\"m\"}\r\n\r\ndata: {}\r\n\r\n", (Some("m"), None, None, 2));
        check("CR", "data:{\"model\":\"m\"}\r\rdata:{}\r\r", (Some("m"), None, None, 2));
        check("data on several lines", "data: {\"model\":\ndata: \"m\"}\n\n", (Some("m"), None, None, 1));
        check("data without a value", "data\n\ndata:\n\n", (None, None, None, 2));
        check("comments, names and other fields", ": data: x\n\nevent: data\nid: 1\n\ndatum: 1\n\ndat\n\ndatab\n\n Data: 1\n\n", (None, None, None, 0));
        check("an event that is broken off does not spoil the next", "data: {\"a\":\"\n\ndata: {\"model\":\"m\"}\n\n", (Some("m"), None, None, 2));
        check("an event that has not ended", "data: {\"model\":\"m\"}\n", (Some("m"), None, None, 0));
    }

    #[test]
    fn a_body_is_looked_at_by_its_type() {
        for (content_type, expected) in [
            ("application/json", Some(Kind::Json)),
            ("Application/JSON; charset=utf-8", Some(Kind::Json)),
            ("application/problem+json", Some(Kind::Json)),
            ("text/event-stream;charset=utf-8", Some(Kind::Events)),
            ("text/plain", None),
            ("application/jsonl", None),
            ("json", None),
            ("é+jso", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(content_type), expected, "{content_type}");
        }
    }
}
