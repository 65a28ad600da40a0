//! The events as lines for subscribers. Whatever a peer sends, each is one line of JSON, and nothing in it acts on a terminal.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};

use crate::http::head::Field;
use crate::serve::error::{ClientError, ForwardError};
use crate::text::EscapedJson;
use crate::text::redact;

/// A line with its end; subscribers and the recording share it.
pub type Line = Rc<str>;

/// What is published. [`feed`](super) explains the members.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    Hello {
        protocol: u32,
        #[serde(flatten)]
        instance: &'a InstanceInfo,
        /// Those of a process that serves many ports.
        #[serde(skip_serializing_if = "Option::is_none")]
        sites: Option<Vec<InstanceInfo>>,
        recording: bool,
        at: f64,
    },
    Site {
        #[serde(flatten)]
        instance: &'a InstanceInfo,
    },
    SiteClosed {
        port: u16,
    },
    Yielded {
        port: u16,
    },
    Start {
        id: u64,
        at: f64,
        port: Option<u16>,
        connection: u64,
        client: &'a str,
        method: Option<&'a str>,
        path: Option<&'a str>,
        version: Option<&'a str>,
        fields: Fields<'a>,
        added: Option<Fields<'a>>,
        length: Option<u64>,
        upgrade: Option<&'a str>,
    },
    Head {
        id: u64,
        at: f64,
        status: u16,
        reason: &'a str,
        fields: Fields<'a>,
        length: Option<u64>,
        ttfb_ms: f64,
        model: Option<&'a str>,
    },
    Progress {
        id: u64,
        request_bytes: u64,
        response_bytes: u64,
        events: u64,
        model: Option<&'a str>,
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
        port: Option<u16>,
        duration_ms: f64,
        ttfb_ms: Option<f64>,
        request_bytes: u64,
        response_bytes: u64,
        outcome: Outcome,
        status: Option<u16>,
        error: Option<&'a str>,
        message: Option<&'a str>,
        model: Option<&'a str>,
        input_tokens: Option<u64>,
        cached_tokens: Option<u64>,
        output_tokens: Option<u64>,
        cost: Option<f64>,
        turns: Option<u64>,
        events: u64,
        first_event_ms: Option<f64>,
        last_event_ms: Option<f64>,
    },
    Recording {
        on: bool,
    },
    Live,
    Lost {
        count: u64,
    },
    Full {
        listeners: usize,
    },
    Bye,
}

/// What identifies an interceptor. Of a process that serves many ports the port and the project are null.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceInfo {
    pub instance_id: String,
    pub project: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole response was sent, or an event stream to its end mark.
    Complete,
    /// The client disconnected, or stopped reading.
    ClientGone,
    /// The target closed within its response.
    OriginCut,
    /// The request was not served, because of the client.
    Refused,
    /// The target sent no response.
    Error,
    /// The exchange became a tunnel, which has ended.
    Tunnel,
}

impl Outcome {
    /// How an exchange ended with `fault`. `is_answered`: the client has the target's response head.
    pub fn after(fault: &ForwardError, is_answered: bool) -> Outcome {
        match fault {
            ForwardError::Client(ClientError::Gone | ClientError::Stalled) => Outcome::ClientGone,
            ForwardError::Client(_) => Outcome::Refused,
            ForwardError::Upstream(_) if is_answered => Outcome::OriginCut,
            ForwardError::Upstream(_) => Outcome::Error,
        }
    }

    /// Whether an exchange that ended so, with this status, has failed: the one definition for the feed, the metrics, `ic status`
    /// and the page.
    pub fn is_failed(self, status: Option<u16>) -> bool {
        status.is_some_and(|status| status >= 400)
            || matches!(self, Outcome::OriginCut | Outcome::Error | Outcome::Refused)
    }
}

/// Serializes field lines as pairs, without secrets.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [Field<'a>]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|field| {
            (
                redact::text(field.name, false),
                redact::field(field.name, field.value),
            )
        }))
    }
}

impl Event<'_> {
    /// Returns the event as one line of JSON.
    pub fn line(&self) -> Line {
        // Serialization cannot fail: keys are strings, and nothing here returns an error.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{}\n", EscapedJson(&json)).into()
    }
}

/// Returns the current time in Unix seconds.
pub fn unix_time() -> f64 {
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
        assert!(!text.contains(['\u{7f}', '\u{9b}', '\u{202e}']), "{text}");
        serde_json::from_str(text).expect("it is JSON")
    }

    #[test]
    fn an_event_is_one_line_whatever_a_peer_sends() {
        let hostile = "a\u{7f}\u{9b}31m\u{202e}\"\\\n\0</script>";
        let mut fields = [header("x-a", b"\xff\x1b[31m\x9b"), header("Cookie", b"k=v")];
        fields[0].name = hostile;
        let event = Event::Head {
            id: 1,
            at: 0.5,
            status: 200,
            reason: hostile,
            fields: Fields(&fields),
            length: None,
            ttfb_ms: 1.25,
            model: None,
        };
        let parsed = parsed(&event);
        assert_eq!(parsed["event"], "head");
        assert_eq!(parsed["reason"], hostile, "the value is unchanged");
        assert_eq!(parsed["fields"][0][0], hostile);
        assert_eq!(parsed["fields"][0][1], "\u{fffd}\u{1b}[31m\u{fffd}");
        assert_eq!(parsed["fields"][1], serde_json::json!(["Cookie", "…"]));
        assert!(parsed["length"].is_null());
    }

    #[test]
    fn an_event_is_tagged_with_its_name() {
        let instance = InstanceInfo {
            instance_id: "i".to_owned(),
            project: None,
            path: None,
            port: Some(8888),
            pid: 1,
            target: "t".to_owned(),
        };
        let hello = Event::Hello {
            protocol: 1,
            instance: &instance,
            sites: None,
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

    fn header<'a>(name: &'a str, value: &'a [u8]) -> Field<'a> {
        Field { name, value }
    }
}
