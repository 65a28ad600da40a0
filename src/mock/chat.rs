//! OpenAI's chat completions, and the completions before them.

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, event};
use super::prompt::{Arguments, Choice, Prompt, Reply, Tool, halves, pieces};
use super::refusal::Refusal;
use super::request::Request;

/// `POST /v1/chat/completions`
pub fn chat(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    let model = model(&body)?;
    let prompt = prompt(&body)?;
    let reply = prompt.reply(request)?;
    let usage = usage(prompt.words, reply.words());
    let id = request.id();
    let completion = Completion {
        id: format!("chatcmpl-{id}"),
        object: "chat.completion",
        model,
    };
    if body["stream"] == true {
        let deltas = deltas(&reply, &id);
        let finish = finish_reason(&reply);
        let choices = deltas
            .into_iter()
            .map(|delta| json!({"index": 0, "delta": delta}));
        let last = json!({"index": 0, "delta": {}});
        return Ok(completion.events(choices, last, finish, usage_if_asked(&body, usage)));
    }
    let mut message = json!({"role": "assistant", "content": null, "refusal": null});
    match &reply {
        Reply::Text(text) => message["content"] = json!(text),
        Reply::Call(name, arguments) => {
            message["tool_calls"] = json!([call(name, arguments, &id)]);
        }
    }
    let choice = json!({
        "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(&reply),
    });
    Ok(completion.document(choice, usage))
}

/// `POST /v1/completions`
pub fn completions(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    let model = model(&body)?;
    let mut prompt = Prompt::default();
    match &body["prompt"] {
        text @ (Value::String(_) | Value::Array(_)) => prompt.push_message("user", text),
        _ => return Err(Refusal::missing("prompt")),
    }
    let reply = prompt.reply(request)?;
    let usage = usage(prompt.words, reply.words());
    let Reply::Text(text) = reply else {
        return Err(Refusal::new(500, "a call without tools"));
    };
    let completion = Completion {
        id: format!("cmpl-{}", request.id()),
        object: "text_completion",
        model,
    };
    let choice = |text: &str| json!({"text": text, "index": 0, "logprobs": null});
    if body["stream"] == true {
        let choices = pieces(&text).map(choice);
        let usage = usage_if_asked(&body, usage);
        return Ok(completion.events(choices, choice(""), "stop", usage));
    }
    let mut choice = choice(&text);
    choice["finish_reason"] = json!("stop");
    Ok(completion.document(choice, usage))
}

/// The model that a request names.
pub fn model(body: &Value) -> Result<&str, Refusal> {
    let model = body["model"].as_str().filter(|model| !model.is_empty());
    model.ok_or_else(|| Refusal::missing("model"))
}

/// The members that all completions have.
struct Completion<'a> {
    id: String,
    object: &'static str,
    model: &'a str,
}

impl Completion<'_> {
    fn object(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": CREATED, "model": self.model,
            "choices": choices,
        })
    }

    fn document(&self, choice: Value, usage: Value) -> Answer {
        let mut document = self.object(self.object, json!([choice]));
        document["usage"] = usage;
        Answer::document(&document)
    }

    /// A stream of these choices, of which the last says why the text ends.
    fn events(
        &self,
        choices: impl Iterator<Item = Value>,
        last: Value,
        finish_reason: &str,
        usage: Option<Value>,
    ) -> Answer {
        let object = match self.object {
            "chat.completion" => "chat.completion.chunk",
            other => other,
        };
        let chunk = |mut choice: Value, finish_reason: Value| {
            choice["finish_reason"] = finish_reason;
            event(&self.object(object, json!([choice])))
        };
        let mut events: Vec<String> = choices.map(|choice| chunk(choice, Value::Null)).collect();
        events.push(chunk(last, json!(finish_reason)));
        if let Some(usage) = usage {
            let mut last = self.object(object, json!([]));
            last["usage"] = usage;
            events.push(event(&last));
        }
        events.push("data: [DONE]\n\n".to_owned());
        Answer::events(events)
    }
}

fn prompt(body: &Value) -> Result<Prompt<'_>, Refusal> {
    let messages = body["messages"].as_array().filter(|list| !list.is_empty());
    let messages = messages.ok_or_else(|| Refusal::missing("messages"))?;
    let mut prompt = Prompt::default();
    for message in messages {
        let role = message["role"].as_str();
        match role.ok_or_else(|| Refusal::missing("messages"))? {
            "tool" | "function" => prompt.push_result(&message["content"]),
            role => prompt.push_message(role, &message["content"]),
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            prompt.push_call(&call["function"]["name"]);
        }
    }
    let tools = body["tools"].as_array().into_iter().flatten();
    prompt.tools = tools
        .filter_map(|tool| function(&tool["function"]))
        .collect();
    let choice = &body["tool_choice"];
    prompt.choice = choice_of(choice, &choice["function"]["name"]);
    prompt.schema = schema_of(
        &body["response_format"],
        |format| &format["json_schema"]["schema"],
    );
    Ok(prompt)
}

/// The function of a tool.
pub fn function(function: &Value) -> Option<Tool<'_>> {
    Some(Tool {
        name: function["name"].as_str()?,
        schema: Some(&function["parameters"]),
    })
}

/// A `tool_choice`; `name` is where it names a tool.
pub fn choice_of<'a>(choice: &Value, name: &'a Value) -> Choice<'a> {
    match (choice.as_str(), name.as_str()) {
        (_, Some(name)) => Choice::Named(name),
        (Some("none"), None) => Choice::None,
        (Some("required"), None) => Choice::Any,
        _ => Choice::Auto,
    }
}

/// The schema of a format that asks for JSON, null where it asks for no particular one.
pub fn schema_of<'a>(
    format: &'a Value,
    schema: impl Fn(&'a Value) -> &'a Value,
) -> Option<&'a Value> {
    match format["type"].as_str()? {
        "json_schema" => Some(schema(format)),
        "json_object" => Some(&Value::Null),
        _ => None,
    }
}

/// The deltas of a streamed reply.
fn deltas(reply: &Reply<'_>, id: &str) -> Vec<Value> {
    match reply {
        Reply::Text(text) => {
            let first = json!({"role": "assistant", "content": ""});
            let words = pieces(text).map(|word| json!({"content": word}));
            std::iter::once(first).chain(words).collect()
        }
        Reply::Call(name, arguments) => {
            let mut first = call(name, arguments, id);
            first["index"] = json!(0);
            first["function"]["arguments"] = json!("");
            let first = json!({"role": "assistant", "content": null, "tool_calls": [first]});
            let text = arguments.text();
            let halves = halves(&text)
                .map(|half| json!({"tool_calls": [{"index": 0, "function": {"arguments": half}}]}));
            std::iter::once(first).chain(halves).collect()
        }
    }
}

fn call(name: &str, arguments: &Arguments, id: &str) -> Value {
    let function = json!({"name": name, "arguments": arguments.text()});
    json!({"id": format!("call_{id}"), "type": "function", "function": function})
}

fn finish_reason(reply: &Reply<'_>) -> &'static str {
    match reply {
        Reply::Text(_) => "stop",
        Reply::Call(..) => "tool_calls",
    }
}

fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

/// Streams tell it only where the request asks for it.
fn usage_if_asked(body: &Value, usage: Value) -> Option<Value> {
    (body["stream_options"]["include_usage"] == true).then_some(usage)
}
