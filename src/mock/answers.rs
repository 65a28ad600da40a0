//! The content of the mock's responses: pure functions of the request.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// The fields that identify the project of a request. Each completion repeats them.
pub const IDENTIFICATION: [&str; 3] = ["x-memory-user-id", "x-pycharm-instance", "x-source"];

/// The parts of a request that the answer depends on.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, without query.
    pub path: String,
    /// The values of [`IDENTIFICATION`], in its order.
    pub identification: [Option<String>; 3],
    /// The body.
    pub body: Vec<u8>,
}

/// The content of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One JSON document.
    Document {
        /// The status code.
        status: u16,
        /// The document.
        body: String,
    },
    /// Server-sent events, each with its blank line.
    Events(Vec<String>),
}

impl Answer {
    /// An error, in the form of OpenAI's API.
    pub fn error(status: u16, message: &str) -> Self {
        let error = json!({"error": {
            "message": message, "type": "invalid_request_error", "param": null, "code": null,
        }});
        Answer::Document {
            status,
            body: format!("{error}\n"),
        }
    }

    fn document(body: &Value) -> Self {
        Answer::Document {
            status: 200,
            body: format!("{body}\n"),
        }
    }
}

/// Answers a request.
pub fn answer(request: &Request) -> Answer {
    let path = request.path.strip_prefix("/v1").unwrap_or(&request.path);
    let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
    let is_post = request.method == "POST";
    match path {
        "" | "/" | "/health" if is_read => Answer::document(&json!({"status": "healthy"})),
        "/models" if is_read => {
            Answer::document(&json!({"object": "list", "data": [model(MODEL)]}))
        }
        "/chat/completions" if is_post => parsed(request, chat),
        "/embeddings" if is_post => parsed(request, embeddings),
        "" | "/" | "/health" | "/models" | "/chat/completions" | "/embeddings" => {
            Answer::error(405, "the mock does not answer that method here")
        }
        _ => match path.strip_prefix("/models/") {
            Some(id) if is_read && !id.is_empty() => Answer::document(&model(id)),
            _ => Answer::error(
                404,
                "the mock has models, chat/completions and embeddings under /v1",
            ),
        },
    }
}

fn parsed<'q, T: Deserialize<'q>>(
    request: &'q Request,
    answer: fn(&Request, T) -> Answer,
) -> Answer {
    match serde_json::from_slice(&request.body) {
        Ok(body) => answer(request, body),
        Err(error) => Answer::error(
            400,
            &format!("the request body is not what this endpoint takes: {error}"),
        ),
    }
}

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "ic"})
}

#[derive(Deserialize)]
struct Chat {
    #[serde(default = "default_model")]
    model: String,
    messages: Vec<Message>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

impl Message {
    /// The text of a content that is a string, or a list of parts of which some are text.
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                texts.collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        }
    }
}

fn default_model() -> String {
    MODEL.to_owned()
}

fn chat(request: &Request, chat: Chat) -> Answer {
    let text = completion_text(request, &chat.messages);
    let prompt_tokens: usize = chat.messages.iter().map(|m| words(&m.text())).sum();
    let completion_tokens = words(&text);
    let usage = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    });
    if chat.stream == Some(true) {
        let options = chat
            .stream_options
            .and_then(|options| options.include_usage);
        let usage = (options == Some(true)).then_some(usage);
        return chat_events(&chat.model, &text, usage);
    }
    let message = json!({"role": "assistant", "content": text});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    let mut document = chat_object("chat.completion", &chat.model, json!([choice]));
    document["usage"] = usage;
    Answer::document(&document)
}

/// Repeats the last message of the user and the identification fields.
fn completion_text(request: &Request, messages: &[Message]) -> String {
    let last = messages.iter().rfind(|message| message.role == "user");
    let prompt = last.map(Message::text).unwrap_or_default();
    let fields: Vec<String> = IDENTIFICATION
        .iter()
        .zip(&request.identification)
        .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("(none)")))
        .collect();
    format!("You said: {prompt}\nIdentified by: {}", fields.join(", "))
}

/// The events of a streamed completion, one for each word.
fn chat_events(model: &str, text: &str, usage: Option<Value>) -> Answer {
    let chunk = |choices| chat_object("chat.completion.chunk", model, choices);
    let delta = |delta: Value, finish_reason: Value| {
        chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish_reason}]))
    };
    let role = json!({"role": "assistant", "content": ""});
    let mut chunks = vec![delta(role, Value::Null)];
    for word in text.split_inclusive([' ', '\n']) {
        chunks.push(delta(json!({"content": word}), Value::Null));
    }
    chunks.push(delta(json!({}), json!("stop")));
    if let Some(usage) = usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage;
        chunks.push(last);
    }
    let event = |chunk: &Value| format!("data: {chunk}\n\n");
    let mut events: Vec<String> = chunks.iter().map(event).collect();
    events.push("data: [DONE]\n\n".to_owned());
    Answer::Events(events)
}

fn chat_object(object: &str, model: &str, choices: Value) -> Value {
    json!({
        "id": "chatcmpl-mock", "object": object, "created": CREATED, "model": model,
        "choices": choices,
    })
}

/// The mock counts a word as a token.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[derive(Deserialize)]
struct Embeddings {
    #[serde(default = "default_model")]
    model: String,
    input: Value,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

fn embeddings(_: &Request, request: Embeddings) -> Answer {
    let dimensions = request.dimensions.unwrap_or(DIMENSIONS);
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Answer::error(400, "dimensions has to be between 1 and 4096");
    }
    let inputs = match request.input {
        Value::Array(inputs) if inputs.iter().any(|input| !input.is_number()) => inputs,
        one => vec![one],
    };
    let is_base64 = request.encoding_format.as_deref() == Some("base64");
    let mut tokens = 0;
    let mut data = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let input = input.to_string();
        tokens += words(&input);
        let vector = vector(&input, dimensions);
        let embedding = if is_base64 {
            json!(base64(&vector))
        } else {
            json!(vector)
        };
        data.push(json!({"object": "embedding", "index": index, "embedding": embedding}));
    }
    Answer::document(&json!({
        "object": "list", "data": data, "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// A vector of length 1 that depends on every byte of `text`.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let component = |index: usize| {
        let mut hasher = DefaultHasher::new();
        (text, index).hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let components: Vec<f32> = (0..dimensions).map(component).collect();
    let length = components.iter().map(|x| x * x).sum::<f32>().sqrt();
    let length = length.max(f32::MIN_POSITIVE);
    components.iter().map(|x| x / length).collect()
}

/// Little-endian floats in base64 (RFC 4648 §4), which is what openai-python asks for.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

/// The name of the mock's model; requests may name any other.
const MODEL: &str = "mock";

/// A fixed time, so that equal requests get equal answers: 2024-01-01 00:00:00 UTC.
const CREATED: u64 = 1_704_067_200;

/// As OpenAI's small model.
const DIMENSIONS: usize = 1536;

/// More than any model of today returns.
const DIMENSIONS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, body: &str) -> Answer {
        answer(&Request {
            method: method.to_owned(),
            path: path.to_owned(),
            identification: [Some("pycharm-shop".to_owned()), None, None],
            body: body.as_bytes().to_vec(),
        })
    }

    #[track_caller]
    fn check(method: &str, path: &str, body: &str, status: u16, holds: &str) {
        match ask(method, path, body) {
            Answer::Document {
                status: actual,
                body,
            } => {
                assert_eq!(actual, status, "{body}");
                assert!(body.contains(holds), "`{holds}` is missing in {body}");
            }
            Answer::Events(events) => panic!("{path} answered with events: {events:?}"),
        }
    }

    #[test]
    fn each_endpoint_answers_what_it_is_asked_and_nothing_else() {
        check("GET", "/v1/models", "", 200, r#""id":"mock""#);
        check("GET", "/models", "", 200, r#""id":"mock""#);
        check("GET", "/v1/models/gpt-x", "", 200, r#""id":"gpt-x""#);
        check("POST", "/v1/models", "", 405, "method");
        check("GET", "/v1/nothing", "", 404, "chat/completions");
        check(
            "POST",
            "/v1/chat/completions",
            "{",
            400,
            "not what this endpoint takes",
        );
        check("POST", "/v1/chat/completions", "{}", 400, "messages");
        let chat = r#"{"model":"m","messages":[{"role":"user","content":"hello there"}]}"#;
        check(
            "POST",
            "/v1/chat/completions",
            chat,
            200,
            "You said: hello there",
        );
        check(
            "POST",
            "/v1/chat/completions",
            chat,
            200,
            "x-memory-user-id=pycharm-shop",
        );
        let parts =
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"in parts"}]}]}"#;
        check(
            "POST",
            "/v1/chat/completions",
            parts,
            200,
            "You said: in parts",
        );
        check(
            "POST",
            "/v1/embeddings",
            r#"{"input":"a","dimensions":0}"#,
            400,
            "dimensions",
        );
    }

    #[test]
    fn a_stream_says_word_by_word_what_the_document_says_at_once() {
        let stream = r#"{"messages":[{"role":"user","content":"a b"}],"stream":true}"#;
        let Answer::Events(events) = ask("POST", "/v1/chat/completions", stream) else {
            panic!("a stream was asked for");
        };
        assert_eq!(events.last().map(String::as_str), Some("data: [DONE]\n\n"));
        let said: String = events[..events.len() - 1]
            .iter()
            .map(|event| {
                let data = event.strip_prefix("data: ").expect("an event");
                let chunk: Value = serde_json::from_str(data).expect("a document");
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        assert!(said.starts_with("You said: a b\n"), "{said}");
        assert_eq!(
            ask("POST", "/v1/chat/completions", stream),
            Answer::Events(events)
        );
    }

    #[test]
    fn embeddings_are_unit_vectors_that_differ_by_text_and_agree_in_both_encodings() {
        let (a, b) = (vector("a", 64), vector("b", 64));
        assert_ne!(a, b);
        assert!((a.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.0, 0.5]), "AACAPwAAAMAAAAA/");
    }
}
