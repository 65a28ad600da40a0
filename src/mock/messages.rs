//! Anthropic's API: `POST /v1/messages` and `/v1/messages/count_tokens`.

use serde_json::{Value, json};

use super::answer::{Answer, named_event};
use super::chat::{model, schema_of};
use super::prompt::{Choice, Prompt, Reply, Tool, halves, pieces};
use super::refusal::Refusal;
use super::request::Request;

/// Answers with a message.
pub fn messages(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    let model = model(&body)?;
    let prompt = prompt(&body)?;
    let reply = prompt.reply(request)?;
    let id = request.id();
    let (block, stop_reason) = match &reply {
        Reply::Text(text) => (json!({"type": "text", "text": text}), "end_turn"),
        Reply::Call(name, arguments) => {
            let input: Value = serde_json::from_str(&arguments.text()).unwrap_or_default();
            let id = format!("toolu_{id}");
            (
                json!({"type": "tool_use", "id": id, "name": name, "input": input}),
                "tool_use",
            )
        }
    };
    let mut message = json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model,
        "content": [block], "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {
            "input_tokens": prompt.words, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": reply.words(),
        },
    });
    if body["stream"] != true {
        return Ok(Answer::document(&message));
    }
    let end = json!({
        "type": "message_delta", "usage": message["usage"],
        "delta": {"stop_reason": stop_reason, "stop_sequence": null},
    });
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["usage"]["output_tokens"] = json!(1);
    Ok(Answer::events(events(message, &reply, block, end)))
}

/// Answers with the number of tokens that a message would have.
pub fn count_tokens(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    model(&body)?;
    Ok(Answer::document(
        &json!({"input_tokens": prompt(&body)?.words}),
    ))
}

fn prompt(body: &Value) -> Result<Prompt<'_>, Refusal> {
    let messages = body["messages"].as_array().filter(|list| !list.is_empty());
    let messages = messages.ok_or_else(|| Refusal::missing("messages"))?;
    let mut prompt = Prompt::default();
    prompt.push_instructions(&body["system"]);
    for message in messages {
        let role = message["role"].as_str();
        let role = role.ok_or_else(|| Refusal::missing("messages"))?;
        let content = &message["content"];
        let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
        let of_kind = |kind| blocks.iter().filter(move |block| block["type"] == kind);
        let mut results = of_kind("tool_result").peekable();
        if results.peek().is_none() {
            prompt.push_message(role, content);
        }
        results.for_each(|result| prompt.push_result(&result["content"]));
        of_kind("tool_use").for_each(|call| prompt.push_call(&call["name"]));
    }
    let tools = body["tools"].as_array().into_iter().flatten();
    prompt.tools = tools.filter_map(client_tool).collect();
    let choice = &body["tool_choice"];
    prompt.choice = match choice["type"].as_str() {
        Some("none") => Choice::None,
        Some("any") => Choice::Any,
        Some("tool") => Choice::Named(choice["name"].as_str().unwrap_or_default()),
        _ => Choice::Auto,
    };
    let format = [&body["output_config"]["format"], &body["output_format"]];
    let mut schemas = format
        .into_iter()
        .filter_map(|format| schema_of(format, |f| &f["schema"]));
    prompt.schema = schemas.next();
    Ok(prompt)
}

fn client_tool(tool: &Value) -> Option<Tool<'_>> {
    Some(Tool {
        name: tool["name"].as_str()?,
        schema: Some(&tool["input_schema"]),
    })
}

/// The events of a streamed message: its start, its only block, its end.
fn events(message: Value, reply: &Reply<'_>, mut block: Value, end: Value) -> Vec<String> {
    let deltas: Vec<Value> = match reply {
        Reply::Text(text) => {
            block["text"] = json!("");
            let delta = |word| json!({"type": "text_delta", "text": word});
            pieces(text).map(delta).collect()
        }
        Reply::Call(_, arguments) => {
            block["input"] = json!({});
            let delta = |half| json!({"type": "input_json_delta", "partial_json": half});
            halves(&arguments.text()).map(delta).into()
        }
    };
    let mut events = vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "ping"}),
    ];
    let delta = |delta| json!({"type": "content_block_delta", "index": 0, "delta": delta});
    events.extend(deltas.into_iter().map(delta));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.push(end);
    events.push(json!({"type": "message_stop"}));
    events.iter().map(named_event).collect()
}
