//! The parsers of bodies and commands outside of HTTP: the observer of the live feed, its commands, and the end marks of streams.

use std::fmt;

use interceptor::serve::end_mark::EndMark;
use interceptor::serve::feed::command::{self, Command, TooLong};
use interceptor::serve::feed::observe::{BodyFormat, BodySummary, Count, Kind, Observer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The result does not depend on how the bytes are split, and equals that of a naive parser.
pub fn feed(input: &[u8]) {
    for format in [
        BodyFormat::Json,
        BodyFormat::EventStream,
        BodyFormat::WebSocket,
    ] {
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
            BodyFormat::WebSocket => {
                if let Some(messages) = messages(input).filter(|_| input.len() <= 256) {
                    let mut summary = BodySummary::default();
                    messages.iter().for_each(|text| text.add_turn(&mut summary));
                    assert_eq!(whole, summary, "{messages:?}");
                }
            }
        }
    }
    for is_contents in [false, true] {
        let ends = |step: usize| {
            let mut mark = EndMark::new(is_contents);
            input.chunks(step).for_each(|piece| mark.read(piece));
            mark.sent();
            mark.is_sent()
        };
        let whole = ends(input.len().max(1));
        assert_eq!([ends(1), ends(7)], [whole; 2], "contents: {is_contents}");
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

/// Returns the whole text messages in the frames of a WebSocket; `None` if one is not JSON, or there are frames of other kinds.
fn messages(mut frames: &[u8]) -> Option<Vec<Node>> {
    let (mut messages, mut current) = (Vec::new(), None::<Vec<u8>>);
    while let [first, second, rest @ ..] = frames {
        let (length, rest) = match second & 0x7f {
            126 if rest.len() >= 2 => (
                u64::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 if rest.len() >= 8 => (u64::from_be_bytes(rest[..8].try_into().ok()?), &rest[8..]),
            126.. => break,
            length => (u64::from(length), rest),
        };
        let key_len = if second & 0x80 == 0 { 0 } else { 4 };
        if first & 0x70 != 0 || matches!(first & 0x0f, 3..=7 | 11..=15) {
            return None;
        }
        let Some((key, rest)) = rest.split_at_checked(key_len) else {
            break;
        };
        let Some((payload, rest)) = rest.split_at_checked(usize::try_from(length).ok()?) else {
            break;
        };
        frames = rest;
        let payload = payload.iter().enumerate();
        let payload = payload.map(|(at, byte)| byte ^ key.get(at % 4).unwrap_or(&0));
        match first & 0x0f {
            1 => current = Some(payload.collect()),
            2 => current = None,
            0 => current
                .iter_mut()
                .for_each(|text| text.extend(payload.clone())),
            _ => continue,
        }
        if first & 0x80 != 0 {
            messages.extend(current.take().map(|text| serde_json::from_slice(&text)));
        }
    }
    messages.into_iter().collect::<Result<_, _>>().ok()
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
    Array(Vec<Node>),
    Text(String),
    Number(u64),
    Other,
}

impl Node {
    fn summarize<'a>(&'a self, path: &mut Vec<&'a str>, summary: &mut BodySummary) {
        let mut enter = |key, value: &'a Node| {
            path.push(key);
            value.summarize(path, summary);
            path.pop();
        };
        match self {
            Node::Object(members) => members.iter().for_each(|(key, value)| enter(key, value)),
            // No key has this name in the paths below.
            Node::Array(values) => values.iter().for_each(|value| enter("[]", value)),
            value => value.summarize_scalar(path, summary),
        }
    }

    /// Adds what a message of a WebSocket says.
    fn add_turn(&self, summary: &mut BodySummary) {
        let mut message = BodySummary::default();
        self.summarize(&mut Vec::new(), &mut message);
        if message.kind == Kind::Other {
            return;
        }
        summary.model = message.model.or(summary.model.take());
        *summary.turns.get_or_insert(0) += u64::from(message.kind == Kind::End);
        if message.kind == Kind::End {
            summary.usage.add(&message.usage);
        }
    }

    fn summarize_scalar(&self, path: &[&str], summary: &mut BodySummary) {
        let inner = match path {
            ["response" | "message", inner @ ..] => inner,
            ["[]", inner @ ..] if matches!(inner, ["modelVersion" | "usageMetadata", ..]) => inner,
            path => path,
        };
        match (self, inner) {
            (Node::Text(kind), _) if path == ["type"] => {
                summary.kind = match &**kind {
                    "response.create" => Kind::Create,
                    "response.completed" | "response.incomplete" | "response.failed" => Kind::End,
                    _ => Kind::Other,
                }
            }
            (_, _) if path == ["type"] => summary.kind = Kind::Other,
            (Node::Text(text), ["model" | "modelVersion"]) if !text.is_empty() => {
                summary.model = Some(text.clone());
            }
            (Node::Number(number), ["usage" | "usageMetadata", key]) => {
                if let Some(count) = count(key) {
                    summary.usage.set(count, *number);
                }
            }
            (
                Node::Number(number),
                [
                    "usage",
                    "prompt_tokens_details" | "input_tokens_details",
                    key,
                ],
            ) => {
                if let Some(Count::Cached) = count(key) {
                    summary.usage.set(Count::Cached, *number);
                }
            }
            _ => {}
        }
    }
}

fn count(key: &str) -> Option<Count> {
    Some(match key {
        "prompt_tokens" | "promptTokenCount" => Count::Prompt,
        "input_tokens" => Count::Input,
        "output_tokens" | "completion_tokens" | "candidatesTokenCount" => Count::Output,
        "cached_tokens" | "cachedContentTokenCount" => Count::Cached,
        "cache_read_input_tokens" => Count::CacheRead,
        "cache_creation_input_tokens" => Count::CacheCreation,
        "thoughtsTokenCount" => Count::Thoughts,
        "toolUsePromptTokenCount" => Count::ToolUse,
        _ => return None,
    })
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
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Node::Array(values))
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
