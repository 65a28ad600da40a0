//! The two parsers of the live feed for bytes of a peer: the observer of bodies and the commands of a subscriber.

use std::fmt;

use interceptor::serve::feed::command::{self, Command, TooLong};
use interceptor::serve::feed::observe::{BodyFormat, BodySummary, Observer};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The result does not depend on how the bytes are split, and equals that of a naive parser.
pub fn feed(input: &[u8]) {
    for format in [BodyFormat::Json, BodyFormat::EventStream] {
        let observe = |step: usize| {
            let mut observer = Observer::new(format);
            input.chunks(step).for_each(|piece| observer.observe(piece));
            observer.summary().clone()
        };
        let whole = observe(input.len().max(1));
        assert_eq!(observe(1), whole, "byte by byte");
        assert_eq!(observe(7), whole, "in pieces");
        match format {
            BodyFormat::EventStream => assert_eq!(whole.events, events(input)),
            // Longer strings are not read.
            BodyFormat::Json if input.len() <= 256 => {
                if let Ok(document) = serde_json::from_slice::<Node>(input) {
                    let mut summary = BodySummary::default();
                    document.summarize(&mut Vec::new(), &mut summary);
                    assert_eq!(whole, summary, "{document:?}");
                }
            }
            BodyFormat::Json => {}
        }
    }
    let read = |step: usize| {
        let (mut buffer, mut commands) = (Vec::new(), Vec::new());
        let result = input.chunks(step).try_for_each(|piece| {
            buffer.extend_from_slice(piece);
            let used = command::read(&buffer, |command| commands.push(command))?;
            buffer.drain(..used);
            Ok(())
        });
        (commands, result)
    };
    let whole = read(input.len().max(1));
    assert_eq!(read(1), whole, "byte by byte");
    assert_eq!(whole, commands(input));
}

/// Returns the number of complete events with data.
fn events(stream: &[u8]) -> u64 {
    let text: String = stream.iter().map(|&byte| char::from(byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    // The last line has no end.
    lines.pop();
    let (mut events, mut has_data) = (0, false);
    for line in lines {
        match line {
            "" => events += u64::from(std::mem::take(&mut has_data)),
            line => has_data |= line == "data" || line.starts_with("data:"),
        }
    }
    events
}

/// Returns the commands up to the first line that is too long.
fn commands(input: &[u8]) -> (Vec<Command>, Result<(), TooLong>) {
    let mut commands = Vec::new();
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let unended = lines.pop().unwrap_or_default();
    for line in lines {
        if line.len() > 4096 {
            return (commands, Err(TooLong));
        }
        let document: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        let Some(document) = document else { continue };
        let port = |name| {
            let port = document.get(name).and_then(serde_json::Value::as_u64);
            port.filter(|&port| port <= 65535).map(|port| port as u16)
        };
        let record = document.get("record").and_then(serde_json::Value::as_bool);
        commands.extend(match (record, port("port"), port("yield")) {
            (Some(on), _, _) => Some(Command::Record(on)),
            (None, Some(port), _) => Some(Command::Port(port)),
            (None, None, Some(port)) => Some(Command::Yield(port)),
            (None, None, None) => None,
        });
    }
    let is_short = unended.len() <= 4096;
    (commands, is_short.then_some(()).ok_or(TooLong))
}

/// A document with all members in their order, duplicates included.
#[derive(Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    Text(String),
    Number(u64),
    Other,
}

impl Node {
    fn summarize<'a>(&'a self, path: &mut Vec<&'a str>, summary: &mut BodySummary) {
        let is_response = |key: &str| matches!(key, "response" | "message");
        match (self, &path[..]) {
            (Node::Object(members), _) => {
                for (key, value) in members {
                    path.push(key);
                    value.summarize(path, summary);
                    path.pop();
                }
            }
            (Node::Text(text), ["model"]) if !text.is_empty() => summary.model = Some(text.clone()),
            (Node::Text(text), [outer, "model"]) if is_response(outer) && !text.is_empty() => {
                summary.model = Some(text.clone());
            }
            (Node::Number(number), ["usage", key]) => count(key, *number, summary),
            (Node::Number(number), [outer, "usage", key]) if is_response(outer) => {
                count(key, *number, summary);
            }
            _ => {}
        }
    }
}

fn count(key: &str, number: u64, summary: &mut BodySummary) {
    match key {
        "input_tokens" | "prompt_tokens" => summary.input_tokens = Some(number),
        "output_tokens" | "completion_tokens" => summary.output_tokens = Some(number),
        _ => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}
