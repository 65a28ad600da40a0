//! OpenAI's Responses API: `POST /v1/responses`. Nothing is stored, so each request carries its whole conversation.

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, named_event};
use super::chat::{choice_of, function, model, schema_of};
use super::prompt::{Arguments, Prompt, Reply, Tool, halves, pieces};
use super::refusal::Refusal;
use super::request::Request;

/// Answers a request for a response.
pub fn responses(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    let prompt = prompt(&body)?;
    let response = Response {
        id: request.id(),
        model: model(&body)?,
        tool_choice: &body["tool_choice"],
        reply: prompt.reply(request)?,
        input_tokens: prompt.words,
    };
    Ok(if body["stream"] == true {
        response.events()
    } else {
        Answer::document(&response.object("completed"))
    })
}

fn prompt(body: &Value) -> Result<Prompt<'_>, Refusal> {
    let mut prompt = Prompt::default();
    prompt.push_instructions(&body["instructions"]);
    match &body["input"] {
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                push_item(&mut prompt, item)?;
            }
        }
        text @ Value::String(_) => prompt.push_message("user", text),
        _ => return Err(Refusal::missing("input")),
    }
    let tools = body["tools"].as_array().into_iter().flatten();
    prompt.tools = tools.flat_map(tools_of).collect();
    let choice = &body["tool_choice"];
    prompt.choice = choice_of(choice, &choice["name"]);
    prompt.schema = schema_of(&body["text"]["format"], |format| &format["schema"]);
    Ok(prompt)
}

fn push_item<'a>(prompt: &mut Prompt<'a>, item: &'a Value) -> Result<(), Refusal> {
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let role = item["role"].as_str();
            let role = role.ok_or_else(|| Refusal::missing("input"))?;
            prompt.push_message(role, &item["content"]);
        }
        "function_call" | "custom_tool_call" => prompt.push_call(&item["name"]),
        "function_call_output" | "custom_tool_call_output" => prompt.push_result(&item["output"]),
        // Reasoning, and the traces of tools that the service runs.
        _ => {}
    }
    Ok(())
}

/// The tools of the client that an entry offers; those that the service runs are not called.
fn tools_of(tool: &Value) -> Vec<Tool<'_>> {
    match tool["type"].as_str() {
        Some("function") => function(tool).into_iter().collect(),
        Some("custom") => {
            let name = tool["name"].as_str();
            let custom = |name| Tool { name, schema: None };
            name.map(custom).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

struct Response<'a> {
    id: String,
    model: &'a str,
    tool_choice: &'a Value,
    reply: Reply<'a>,
    input_tokens: usize,
}

impl Response<'_> {
    fn object(&self, status: &str) -> Value {
        let is_complete = status == "completed";
        let tool_choice = match self.tool_choice {
            Value::Null => json!("auto"),
            choice => choice.clone(),
        };
        json!({
            "id": format!("resp_{}", self.id), "object": "response", "created_at": CREATED,
            "status": status, "background": false, "error": null, "incomplete_details": null,
            "instructions": null, "max_output_tokens": null, "model": self.model,
            "output": if is_complete { json!([self.item(true)]) } else { json!([]) },
            "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": tool_choice, "tools": [],
            "top_p": 1.0, "truncation": "disabled",
            "usage": if is_complete { self.usage() } else { Value::Null },
            "metadata": {},
        })
    }

    fn usage(&self) -> Value {
        let output = self.reply.words();
        json!({
            "input_tokens": self.input_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + output,
        })
    }

    /// The only item of the output: as it begins, without content, or complete.
    fn item(&self, is_complete: bool) -> Value {
        let id = &self.id;
        let status = if is_complete {
            "completed"
        } else {
            "in_progress"
        };
        let (name, kind, prefix, member, arguments) = match &self.reply {
            Reply::Text(text) => {
                let content = if is_complete {
                    json!([part(text)])
                } else {
                    json!([])
                };
                return json!({
                    "id": self.item_id(), "type": "message", "status": status,
                    "role": "assistant", "content": content,
                });
            }
            Reply::Call(name, arguments @ Arguments::Object(_)) => {
                (name, "function_call", "fc", "arguments", arguments)
            }
            Reply::Call(name, arguments @ Arguments::Text(_)) => {
                (name, "custom_tool_call", "ctc", "input", arguments)
            }
        };
        let arguments = if is_complete {
            arguments.text()
        } else {
            String::new()
        };
        json!({
            "id": format!("{prefix}_{id}"), "type": kind, "status": status,
            "call_id": format!("call_{id}"), "name": name, member: arguments,
        })
    }

    fn item_id(&self) -> String {
        format!("msg_{}", self.id)
    }

    /// All events that clients wait for: some build the answer from the deltas, some from the items, some from the last one.
    fn events(&self) -> Answer {
        let mut events = Events::default();
        for (kind, status) in [("created", "in_progress"), ("in_progress", "in_progress")] {
            events.push(
                &format!("response.{kind}"),
                json!({"response": self.object(status)}),
            );
        }
        let item = |is_complete| json!({"output_index": 0, "item": self.item(is_complete)});
        events.push("response.output_item.added", item(false));
        match &self.reply {
            Reply::Text(text) => self.push_text(text, &mut events),
            Reply::Call(_, arguments) => self.push_call(arguments, &mut events),
        }
        events.push("response.output_item.done", item(true));
        let response = self.object("completed");
        events.push("response.completed", json!({"response": response}));
        Answer::events(events.0)
    }

    fn push_text(&self, text: &str, events: &mut Events) {
        let mut push = |kind: &str, member: &str, value: Value| {
            let at = json!({
                "item_id": self.item_id(), "output_index": 0, "content_index": 0, member: value,
            });
            events.push(kind, at);
        };
        push("response.content_part.added", "part", part(""));
        for word in pieces(text) {
            push("response.output_text.delta", "delta", json!(word));
        }
        push("response.output_text.done", "text", json!(text));
        push("response.content_part.done", "part", part(text));
    }

    fn push_call(&self, arguments: &Arguments, events: &mut Events) {
        let (kind, member) = match arguments {
            Arguments::Object(_) => ("response.function_call_arguments", "arguments"),
            Arguments::Text(_) => ("response.custom_tool_call_input", "input"),
        };
        let item_id = &self.item(true)["id"];
        let mut push = |kind: String, member: &str, text: &str| {
            let at = json!({"item_id": item_id, "output_index": 0, member: text});
            events.push(&kind, at);
        };
        let text = arguments.text();
        for half in halves(&text) {
            push(format!("{kind}.delta"), "delta", half);
        }
        push(format!("{kind}.done"), member, &text);
    }
}

/// Numbered events.
#[derive(Default)]
struct Events(Vec<String>);

impl Events {
    fn push(&mut self, kind: &str, members: Value) {
        let mut data = json!({"type": kind, "sequence_number": self.0.len()});
        if let (Some(data), Value::Object(members)) = (data.as_object_mut(), members) {
            data.extend(members);
        }
        self.0.push(named_event(&data));
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}
