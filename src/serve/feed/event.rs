//! The lines that listeners get. Whatever a peer sent, a line is one line of JSON, and nothing in it acts on a terminal.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::redact;
use crate::http::head::Field;

/// One line, its end included, as several listeners share it.
pub type Line = Arc<str>;

/// What is told; the members are explained in [`feed`](super).
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// Who tells it.
    Hello {
        protocol: u32,
        #[serde(flatten)]
        who: &'a InstanceInfo,
        recording: bool,
        at: f64,
    },
    Start {
        id: u64,
        at: f64,
        connection: u64,
        client: &'a str,
        method: Option<&'a str>,
        path: Option<&'a str>,
        version: Option<&'a str>,
        fields: Fields<'a>,
        length: Option<u64>,
    },
    Head {
        id: u64,
        at: f64,
        status: u16,
        reason: &'a str,
        fields: Fields<'a>,
        length: Option<u64>,
        ttfb_ms: f64,
    },
    Progress {
        id: u64,
        request_bytes: u64,
        response_bytes: u64,
        events: u64,
    },
    Body {
        id: u64,
        side: Side,
        encoding: &'a str,
        data: &'a str,
        truncated: bool,
        total: u64,
    },
    End {
        id: u64,
        at: f64,
        duration_ms: f64,
        ttfb_ms: Option<f64>,
        request_bytes: u64,
        response_bytes: u64,
        outcome: Outcome,
        status: Option<u16>,
        error: Option<&'a str>,
        model: Option<&'a str>,
        input_tokens: Option<u64>,
        output_tokens: Option<u64>,
        events: u64,
        first_event_ms: Option<f64>,
        last_event_ms: Option<f64>,
    },
    Recording {
        on: bool,
    },
    Lost {
        count: u64,
    },
    Full {
        listeners: usize,
    },
    Bye,
}

/// Who an interceptor is.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceInfo {
    pub instance_id: String,
    /// The project's name.
    pub project: Option<String>,
    /// The project's path.
    pub path: Option<String>,
    pub port: Option<u16>,
    pub pid: u32,
    pub target: String,
}

/// One of the two messages of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Request,
    Response,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With the last byte of its answer.
    Complete,
    /// Its client left.
    ClientGone,
    /// The target broke off within its answer.
    OriginCut,
    /// It was not served, for something that the client did.
    Refused,
    /// The target did not answer.
    Error,
    /// It went on as a tunnel, which has ended.
    Tunnel,
}

/// Field lines, as they may be shown.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [Field<'a>]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .iter()
                .map(|field| (field.name, redact::field(field.name, field.value))),
        )
    }
}

impl Event<'_> {
    /// The event as a line.
    pub fn line(&self) -> Line {
        // Nothing in an event can fail to be written.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        if has_one_that_acts(&line) {
            line = escaped(&line);
        }
        line.push('\n');
        line.into()
    }
}

/// Such characters stand only inside strings: JSON itself has none of them.
fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len() + 16);
    for character in line.chars() {
        if acts_on_a_terminal(character) {
            // All are below U+10000; writing to a string cannot fail.
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

/// JSON escapes the control characters of ASCII, but DEL, the C1 range, line separators and the marks that turn the direction
/// of writing pass.
fn acts_on_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether such a character is in a line of JSON, without a look at each.
fn has_one_that_acts(line: &str) -> bool {
    let bytes = line.as_bytes();
    memchr::memchr3_iter(0x7f, 0xc2, 0xe2, bytes).any(|at| {
        let [second, third] = [1, 2].map(|next| bytes.get(at + next).copied().unwrap_or(0));
        match (bytes[at], second, third) {
            // U+0080 to U+009F.
            (0xc2, second, _) => second < 0xa0,
            // U+200E, U+200F, U+2028 to U+202E; U+2066 to U+2069.
            (0xe2, 0x80, third) => matches!(third, 0x8e | 0x8f | 0xa8..=0xae),
            (0xe2, 0x81, third) => matches!(third, 0xa6..=0xa9),
            (0xe2, _, _) => false,
            _ => true,
        }
    })
}

/// Now, as Unix seconds.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(event: &Event<'_>) -> serde_json::Value {
        let line = event.line();
        let (text, end) = line.split_at(line.len() - 1);
        assert_eq!(end, "\n");
        assert!(!text.contains(acts_on_a_terminal), "{text}");
        serde_json::from_str(text).expect("it is JSON")
    }

    #[test]
    fn a_line_is_one_line_whatever_a_peer_sent() {
        let hostile = "a\u{7f}\u{9b}31m\u{202e}\"\\\n\0</script>";
        let mut fields = [
            httparse_like("x-a", b"\xff\x1b[31m\x9b"),
            httparse_like("Cookie", b"k=v"),
        ];
        fields[0].name = hostile;
        let event = Event::Head {
            id: 1,
            at: 0.5,
            status: 200,
            reason: hostile,
            fields: Fields(&fields),
            length: None,
            ttfb_ms: 1.25,
        };
        let parsed = parsed(&event);
        assert_eq!(parsed["event"], "head");
        assert_eq!(parsed["reason"], hostile, "it comes out as it went in");
        assert_eq!(parsed["fields"][0][0], hostile);
        assert_eq!(parsed["fields"][0][1], "\u{fffd}\u{1b}[31m\u{fffd}");
        assert_eq!(parsed["fields"][1], serde_json::json!(["Cookie", "…"]));
        assert!(parsed["length"].is_null());
    }

    #[test]
    fn no_character_that_acts_on_a_terminal_is_missed() {
        for character in '\u{20}'..=char::MAX {
            let text = format!("a{character}");
            let acts = acts_on_a_terminal(character);
            assert_eq!(has_one_that_acts(&text), acts, "{character:?}");
        }
    }

    #[test]
    fn an_event_says_what_it_is() {
        let who = InstanceInfo {
            instance_id: "i".to_owned(),
            project: None,
            path: None,
            port: Some(8888),
            pid: 1,
            target: "t".to_owned(),
        };
        let hello = Event::Hello {
            protocol: 1,
            who: &who,
            recording: false,
            at: 1.0,
        };
        let expected = "{\"event\":\"hello\",\"protocol\":1,\"instance_id\":\"i\",\"project\":null,\"path\":null,\
                        \"port\":8888,\"pid\":1,\"target\":\"t\",\"recording\":false,\"at\":1.0}\n";
        assert_eq!(&*hello.line(), expected);
        assert_eq!(&*Event::Bye.line(), "{\"event\":\"bye\"}\n");
        let lost = Event::Lost { count: 3 };
        assert_eq!(&*lost.line(), "{\"event\":\"lost\",\"count\":3}\n");
    }

    fn httparse_like<'a>(name: &'a str, value: &'a [u8]) -> Field<'a> {
        Field { name, value }
    }
}
