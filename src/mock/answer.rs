//! The content of a response, as all APIs of the mock make it.

use serde::Serialize;
use serde_json::Value;

/// The content of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One JSON document.
    Document {
        /// The status code.
        status: u16,
        /// More field lines, each with its line end.
        fields: &'static str,
        /// The document.
        body: String,
    },
    /// A body whose pieces are sent one after the other.
    Stream {
        /// Its media type.
        content_type: &'static str,
        /// The pieces.
        pieces: Vec<String>,
    },
}

impl Answer {
    /// A document with status 200.
    pub fn document(body: &impl Serialize) -> Self {
        // Serialising texts and numbers cannot fail.
        let mut body = serde_json::to_string(body).unwrap_or_default();
        body.push('\n');
        Answer::Document {
            status: 200,
            fields: "",
            body,
        }
    }

    /// Server-sent events, each with its blank line.
    pub fn events(pieces: Vec<String>) -> Self {
        Answer::Stream {
            content_type: "text/event-stream",
            pieces,
        }
    }
}

/// An event with a name, as the Responses API and Anthropic's send them: `data` says the name as well, in `type`.
pub fn named_event(data: &Value) -> String {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

/// An event without a name.
pub fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// The name of the mock's model; requests may name any other.
pub const MODEL: &str = "mock";

/// A fixed time, so that equal requests get equal answers: 2024-01-01 00:00:00 UTC.
pub const CREATED: u64 = 1_704_067_200;
