//! Google's Gemini API: `POST /v1beta/models/MODEL:METHOD`. The model is part of the path.

use serde_json::{Value, json};

use super::answer::{Answer, event};
use super::prompt::{Choice, Prompt, Reply, Tool, pieces};
use super::refusal::Refusal;
use super::request::Request;

/// `GET /v1beta/models/MODEL`
pub fn model(id: &str) -> Value {
    json!({
        "name": format!("models/{id}"), "version": "1", "displayName": id,
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    })
}

/// Answers a method of a model.
pub fn method(request: &Request, model: &str, method: &str) -> Result<Answer, Refusal> {
    let is_stream = match method {
        "generateContent" => false,
        "streamGenerateContent" => true,
        "countTokens" => return count_tokens(request),
        _ => {
            return Err(Refusal::new(
                404,
                format!("the mock has no method `{method}`"),
            ));
        }
    };
    if model.is_empty() {
        return Err(Refusal::missing("model"));
    }
    let body = request.document()?;
    let prompt = prompt(&body)?;
    let reply = prompt.reply(request)?;
    let response = Response {
        id: request.id(),
        model,
        prompt: prompt.words,
        reply: reply.words(),
    };
    let parts = match &reply {
        Reply::Text(text) if is_stream => pieces(text).map(|word| json!({"text": word})).collect(),
        Reply::Text(text) => vec![json!({"text": text})],
        Reply::Call(name, arguments) => {
            let arguments: Value = serde_json::from_str(&arguments.text()).unwrap_or_default();
            let id = format!("call_{}", response.id);
            vec![json!({"functionCall": {"id": id, "name": name, "args": arguments}})]
        }
    };
    let last = parts.len().saturating_sub(1);
    let parts = parts.into_iter().enumerate();
    let chunks: Vec<Value> = parts
        .map(|(at, part)| response.chunk(part, at == last))
        .collect();
    Ok(match &chunks[..] {
        [whole] if !is_stream => Answer::document(whole),
        chunks if request.query.split('&').any(|pair| pair == "alt=sse") => {
            Answer::events(chunks.iter().map(event).collect())
        }
        chunks => array(chunks),
    })
}

struct Response<'a> {
    id: String,
    model: &'a str,
    prompt: usize,
    reply: usize,
}

impl Response<'_> {
    /// A part of the response; the last one says why it ends.
    fn chunk(&self, part: Value, is_last: bool) -> Value {
        let mut candidate = json!({"content": {"role": "model", "parts": [part]}, "index": 0});
        if is_last {
            candidate["finishReason"] = json!("STOP");
        }
        json!({
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": self.prompt, "candidatesTokenCount": self.reply,
                "totalTokenCount": self.prompt + self.reply,
            },
            "modelVersion": self.model, "responseId": self.id,
        })
    }
}

/// Without `alt=sse` a stream is one JSON array whose elements arrive one by one.
fn array(chunks: &[Value]) -> Answer {
    let element = |(at, chunk): (usize, &Value)| {
        let before = if at == 0 { "[" } else { ",\r\n" };
        format!("{before}{chunk}")
    };
    let mut pieces: Vec<String> = chunks.iter().enumerate().map(element).collect();
    pieces.push("]".to_owned());
    Answer::Stream {
        content_type: "application/json",
        pieces,
    }
}

fn count_tokens(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    let inner = &body["generateContentRequest"];
    let prompt = prompt(if inner.is_object() { inner } else { &body })?;
    Ok(Answer::document(&json!({"totalTokens": prompt.words})))
}

fn prompt(body: &Value) -> Result<Prompt<'_>, Refusal> {
    let contents = match &body["contents"] {
        Value::Array(contents) if !contents.is_empty() => contents.as_slice(),
        one @ Value::Object(_) => std::slice::from_ref(one),
        _ => return Err(Refusal::missing("contents")),
    };
    let mut prompt = Prompt::default();
    prompt.push_instructions(&member(body, "systemInstruction", "system_instruction")["parts"]);
    for content in contents {
        let parts = content["parts"].as_array().map_or(&[][..], Vec::as_slice);
        let mut results = parts
            .iter()
            .map(|part| &member(part, "functionResponse", "function_response")["response"])
            .filter(|response| !response.is_null())
            .peekable();
        if results.peek().is_none() {
            let role = content["role"].as_str().unwrap_or("user");
            prompt.push_message(role, &content["parts"]);
        }
        results.for_each(|response| prompt.push_result(response));
        for part in parts {
            prompt.push_call(&member(part, "functionCall", "function_call")["name"]);
        }
    }
    let tools = body["tools"].as_array().into_iter().flatten();
    let functions = tools.map(|tool| member(tool, "functionDeclarations", "function_declarations"));
    let functions = functions.filter_map(Value::as_array).flatten();
    prompt.tools = functions.filter_map(function).collect();
    prompt.choice = choice(body);
    prompt.schema = schema(member(body, "generationConfig", "generation_config"));
    Ok(prompt)
}

fn function(function: &Value) -> Option<Tool<'_>> {
    let schemas = [
        "parametersJsonSchema",
        "parameters_json_schema",
        "parameters",
    ];
    let schema = schemas.iter().find_map(|name| function.get(name));
    Some(Tool {
        name: function["name"].as_str()?,
        schema: Some(schema.unwrap_or(&Value::Null)),
    })
}

fn choice(body: &Value) -> Choice<'_> {
    let config = member(body, "toolConfig", "tool_config");
    let config = member(config, "functionCallingConfig", "function_calling_config");
    let allowed = member(config, "allowedFunctionNames", "allowed_function_names");
    match (config["mode"].as_str(), allowed[0].as_str()) {
        (Some("NONE"), _) => Choice::None,
        (Some("ANY"), Some(name)) => Choice::Named(name),
        (Some("ANY"), None) => Choice::Any,
        _ => Choice::Auto,
    }
}

/// The schema of an answer in JSON, null where none is given.
fn schema(config: &Value) -> Option<&Value> {
    let mime = member(config, "responseMimeType", "response_mime_type");
    if mime != "application/json" {
        return None;
    }
    let schema = member(config, "responseJsonSchema", "response_json_schema");
    Some(match schema {
        Value::Null => member(config, "responseSchema", "response_schema"),
        schema => schema,
    })
}

/// A member, which this API takes under two names.
fn member<'a>(object: &'a Value, name: &str, other: &str) -> &'a Value {
    match &object[name] {
        Value::Null => &object[other],
        value => value,
    }
}
