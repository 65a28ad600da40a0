//! The live feed's two readers of other people's bytes: what is seen of a body, and what a listener asks for.

use std::fmt;

use interceptor::serve::feed::command::{Command, Lines, TooLong};
use interceptor::serve::feed::observe::{Kind, Observer, Seen};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// However the bytes are split, the same is seen; and it is what stands there.
pub fn feed(input: &[u8]) {
    for kind in [Kind::Json, Kind::Events] {
        let see = |step: usize| {
            let mut observer = Observer::new(kind);
            input.chunks(step).for_each(|piece| observer.see(piece));
            observer.seen().clone()
        };
        let whole = see(input.len().max(1));
        assert_eq!(see(1), whole, "byte by byte");
        assert_eq!(see(7), whole, "in pieces");
        match kind {
            Kind::Events => assert_eq!(whole.events, events(input)),
            // Names that are too long are not looked at.
            Kind::Json if input.len() <= 256 => {
                if let Ok(document) = serde_json::from_slice::<Node>(input) {
                    let mut seen = Seen::default();
                    document.tell(&mut Vec::new(), &mut seen);
                    assert_eq!(whole, seen, "{document:?}");
                }
            }
            Kind::Json => {}
        }
    }
    let take = |step: usize| {
        let (mut lines, mut commands) = (Lines::default(), Vec::new());
        let taken = input
            .chunks(step)
            .try_for_each(|piece| lines.take(piece, |command| commands.push(command)));
        (commands, taken)
    };
    let whole = take(input.len().max(1));
    assert_eq!(take(1), whole, "byte by byte");
    assert_eq!(whole, commands(input));
}

/// How many events a stream has that end.
fn events(stream: &[u8]) -> u64 {
    let text: String = stream.iter().map(|&byte| char::from(byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    // What has no end yet is no line.
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

/// What the lines ask for, up to the first that is too long.
fn commands(input: &[u8]) -> (Vec<Command>, Result<(), TooLong>) {
    let mut commands = Vec::new();
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let unended = lines.pop().unwrap_or_default();
    for line in lines {
        if line.len() > 4096 {
            return (commands, Err(TooLong));
        }
        let document: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        let on = document.and_then(|document| document.get("record")?.as_bool());
        commands.extend(on.map(Command::Record));
    }
    let is_short = unended.len() <= 4096;
    (commands, is_short.then_some(()).ok_or(TooLong))
}

/// A document with all of its members in their order, those that are there twice too.
#[derive(Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    Text(String),
    Number(u64),
    Other,
}

impl Node {
    fn tell<'a>(&'a self, path: &mut Vec<&'a str>, seen: &mut Seen) {
        let answer = |key: &str| matches!(key, "response" | "message");
        match (self, &path[..]) {
            (Node::Object(members), _) => {
                for (key, value) in members {
                    path.push(key);
                    value.tell(path, seen);
                    path.pop();
                }
            }
            (Node::Text(text), ["model"]) if !text.is_empty() => seen.model = Some(text.clone()),
            (Node::Text(text), [outer, "model"]) if answer(outer) && !text.is_empty() => {
                seen.model = Some(text.clone());
            }
            (Node::Number(number), ["usage", key]) => count(key, *number, seen),
            (Node::Number(number), [outer, "usage", key]) if answer(outer) => {
                count(key, *number, seen);
            }
            _ => {}
        }
    }
}

fn count(key: &str, number: u64, seen: &mut Seen) {
    match key {
        "input_tokens" | "prompt_tokens" => seen.input_tokens = Some(number),
        "output_tokens" | "completion_tokens" => seen.output_tokens = Some(number),
        _ => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Reads)
    }
}

struct Reads;

impl<'de> Visitor<'de> for Reads {
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
