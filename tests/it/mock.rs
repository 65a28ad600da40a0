//! What the mock answers, as agents ask: each API, plain and as a stream, calls of tools, errors, pauses.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli_home::{Home, free_port};
use crate::support::Conn;
use crate::support::interceptor::Launch;
use crate::support::message::Response;

/// `ic mock`, killed when it is dropped.
struct Mock {
    child: Child,
    address: SocketAddr,
    /// Its current folder.
    _home: Home,
}

impl Mock {
    /// Starts it without pauses, unless the arguments say otherwise, and waits until it listens.
    #[track_caller]
    fn start(arguments: &[&str]) -> Mock {
        let (home, port) = (Home::new(), free_port());
        let port_text = port.to_string();
        let mut words = vec!["mock", "--port", &port_text];
        if !arguments.contains(&"--interval-ms") {
            words.extend(["--interval-ms", "0"]);
        }
        words.extend(arguments);
        let mut child = home
            .command(words)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let mut said = String::new();
        BufReader::new(child.stderr.take().expect("a pipe"))
            .read_line(&mut said)
            .expect("text");
        assert!(said.starts_with("Mock: "), "{said}");
        Mock {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _home: home,
        }
    }

    fn client(&self) -> Conn {
        Conn::connect("client", self.address)
    }

    /// Sends a request with these additional field lines.
    #[track_caller]
    fn ask_with(&self, fields: &str, method: &str, path: &str, body: &str) -> Response {
        let mut client = self.client();
        client.send(request(fields, method, path, body));
        client.response(method)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        self.ask_with("", method, path, body)
    }

    /// The document that answers a good request.
    #[track_caller]
    fn document(&self, path: &str, body: &Value) -> Value {
        let response = self.ask("POST", path, &body.to_string());
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        document(&response)
    }

    /// The events that answer a good request.
    #[track_caller]
    fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.ask("POST", path, &body.to_string());
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        events(&response)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(fields: &str, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

#[track_caller]
fn document(response: &Response) -> Value {
    let content_type = response.fields.one("Content-Type");
    assert_eq!(content_type, Some("application/json"));
    serde_json::from_slice(&response.body).expect("JSON")
}

/// The data of each event; the name of an event is also the `type` in its data.
#[track_caller]
fn events(response: &Response) -> Vec<Value> {
    let content_type = response.fields.one("Content-Type");
    assert_eq!(content_type, Some("text/event-stream"));
    let text = String::from_utf8(response.body.clone()).expect("UTF-8");
    assert!(text.ends_with("\n\n"), "the last event is whole");
    let event = |event: &str| {
        let (name, data) = match event.strip_prefix("event: ") {
            Some(named) => named.split_once('\n').expect("two lines"),
            None => ("", event),
        };
        let data = data.strip_prefix("data: ").expect("data");
        let data = match data {
            "[DONE]" => json!(data),
            data => serde_json::from_str(data).expect("JSON"),
        };
        assert!(name.is_empty() || data["type"] == name, "{event}");
        data
    };
    text.trim_end().split("\n\n").map(event).collect()
}

/// An API: its path, a request with a prompt, and where its answers hold the text.
struct Api {
    path: &'static str,
    stream_path: &'static str,
    ask: fn(prompt: &str) -> Value,
    text: &'static str,
}

const CHAT: Api = Api {
    path: "/v1/chat/completions",
    stream_path: "/v1/chat/completions",
    ask: |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}),
    text: "/choices/0/message/content",
};

const COMPLETIONS: Api = Api {
    path: "/v1/completions",
    stream_path: "/v1/completions",
    ask: |prompt| json!({"model": "m", "prompt": prompt}),
    text: "/choices/0/text",
};

const RESPONSES: Api = Api {
    path: "/v1/responses",
    stream_path: "/v1/responses",
    ask: |prompt| json!({"model": "m", "input": prompt}),
    text: "/output/0/content/0/text",
};

const MESSAGES: Api = Api {
    path: "/v1/messages",
    stream_path: "/v1/messages",
    ask: |prompt| json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": prompt}]}),
    text: "/content/0/text",
};

const GEMINI: Api = Api {
    path: "/v1beta/models/m:generateContent",
    stream_path: "/v1beta/models/m:streamGenerateContent?alt=sse",
    ask: |prompt| json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}),
    text: "/candidates/0/content/parts/0/text",
};

const APIS: [Api; 5] = [CHAT, COMPLETIONS, RESPONSES, MESSAGES, GEMINI];

impl Api {
    fn ask_for_stream(&self, prompt: &str) -> Value {
        let mut body = (self.ask)(prompt);
        body["stream"] = json!(true);
        body
    }
}

const HELLO: &str = "You said: hello there\nIdentified by: x-memory-user-id=(none), x-pycharm-instance=(none), \
                     x-source=(none)";

/// The joined strings at this place of each event.
fn joined(events: &[Value], pointer: &str) -> String {
    let texts = events.iter().filter_map(|event| event.pointer(pointer));
    texts.filter_map(Value::as_str).collect()
}

#[test]
fn a_request_arrives_whole_in_chunks_byte_by_byte_and_behind_another() {
    let mock = Mock::start(&[]);
    for api in APIS {
        let body = (api.ask)("hello there").to_string();
        let whole = request("", "POST", api.path, &body);
        let (first, second) = body.split_at(7);
        let chunked = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             7\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            api.path,
            second.len()
        );
        let mut client = mock.client();
        client.send(format!("{whole}{chunked}{whole}"));
        assert!(client.offer_in_pieces(&whole, 1), "all is read");
        for kind in ["whole", "chunked", "pipelined", "byte by byte"] {
            let response = client.response("POST");
            assert_eq!(response.status, 200, "{kind}: {}", response.text());
            let document = document(&response);
            let text = document.pointer(api.text);
            assert_eq!(text, Some(&json!(HELLO)), "{}, {kind}", api.path);
        }
    }
}

#[test]
fn equal_requests_have_equal_answers_and_a_stream_says_what_the_document_says() {
    let mock = Mock::start(&[]);
    let deltas = [
        (CHAT, "/choices/0/delta/content"),
        (COMPLETIONS, "/choices/0/text"),
        (RESPONSES, "/delta"),
        (MESSAGES, "/delta/text"),
        (GEMINI, "/candidates/0/content/parts/0/text"),
    ];
    for (api, delta) in deltas {
        let body = api.ask_for_stream("hello there").to_string();
        let [one, other] = [(); 2].map(|()| mock.ask("POST", api.stream_path, &body));
        assert_eq!(one.body, other.body, "{}", api.path);
        let events = events(&one);
        assert_eq!(joined(&events, delta), HELLO, "{}", api.path);
        assert!(events.len() >= 9, "an event for each word");
    }
}

#[test]
fn the_reply_names_the_identification_and_no_more_than_one_line_of_the_prompt() {
    let interceptor = Launch::bare()
        .args(["--mock", "--mock-interval-ms", "0", "--instance-id", "me"])
        .start();
    let prompt = "first line\n```\nsecond line\n```\n".repeat(100);
    for api in APIS {
        let mut client = interceptor.client();
        let body = (api.ask)(&prompt).to_string();
        client.send(request("", "POST", api.path, &body));
        let document = document(&client.response("POST"));
        let text = document.pointer(api.text).and_then(Value::as_str);
        let expected = "You said: first line\nIdentified by: x-memory-user-id=me, x-pycharm-instance=me, \
                        x-source=pycharm-ai-chat";
        assert_eq!(text, Some(expected), "{}", api.path);
    }
}

#[test]
fn models_are_listed_in_the_form_of_each_api() {
    let mock = Mock::start(&[]);
    #[track_caller]
    fn check(mock: &Mock, fields: &str, path: &str, pointer: &str, expected: &str) {
        let response = mock.ask_with(fields, "GET", path, "");
        assert_eq!(response.status, 200, "{path}");
        let document = document(&response);
        assert_eq!(
            document.pointer(pointer),
            Some(&json!(expected)),
            "{path}: {document}"
        );
    }
    let anthropic = "anthropic-version: 2023-06-01\r\n";
    let google = "x-goog-api-key: k\r\n";
    for path in ["/v1/models", "/models", "/v1/models?limit=3"] {
        check(&mock, "", path, "/data/0/id", "mock");
        check(&mock, "", path, "/object", "list");
        check(&mock, anthropic, path, "/data/0/type", "model");
        check(&mock, google, path, "/models/0/name", "models/mock");
    }
    check(&mock, "", "/v1/models/gpt-5", "/id", "gpt-5");
    check(
        &mock,
        anthropic,
        "/v1/models/claude",
        "/display_name",
        "claude",
    );
    check(&mock, "", "/v1beta/models", "/models/0/name", "models/mock");
    check(&mock, "", "/v1beta/models/gemini", "/name", "models/gemini");
    check(&mock, "", "/health", "/status", "healthy");
    assert_eq!(mock.ask("HEAD", "/v1/models", "").status, 200);
}

#[test]
fn a_stream_of_chat_completions_ends_with_its_usage_if_asked_and_done() {
    let mock = Mock::start(&[]);
    for api in [CHAT, COMPLETIONS] {
        let mut body = api.ask_for_stream("hello there");
        let events = mock.events(api.path, &body);
        let [.., last, done] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert_eq!(done, "[DONE]");
        body["stream_options"] = json!({"include_usage": true});
        let events = mock.events(api.path, &body);
        let [.., usage, _] = &events[..] else {
            panic!("{events:?}");
        };
        let expected = [&json!(2), &json!(9), &json!(11)];
        let names = ["prompt_tokens", "completion_tokens", "total_tokens"];
        assert_eq!(names.map(|name| &usage["usage"][name]), expected);
        assert_eq!(usage["choices"], json!([]));
    }
}

#[test]
fn a_stream_of_a_response_has_every_event_that_clients_wait_for() {
    let mock = Mock::start(&[]);
    let events = mock.events(RESPONSES.path, &RESPONSES.ask_for_stream("hello there"));
    let mut kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let numbers: Vec<_> = events
        .iter()
        .map(|e| e["sequence_number"].as_u64())
        .collect();
    let expected: Vec<_> = (0..events.len() as u64).map(Some).collect();
    assert_eq!(numbers, expected);
    let plain = mock.document(RESPONSES.path, &(RESPONSES.ask)("hello there"));
    let last = &events[events.len() - 1]["response"];
    for member in ["status", "output", "usage", "model", "object"] {
        let without_ids = |value: &Value| {
            let mut value = value.clone();
            if let Some(item) = value.pointer_mut("/0/id") {
                *item = Value::Null;
            }
            value
        };
        assert_eq!(
            without_ids(&last[member]),
            without_ids(&plain[member]),
            "{member}"
        );
    }
    let usage = json!({
        "input_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 11,
    });
    assert_eq!(plain["usage"], usage);
    assert_eq!(events[0]["response"]["status"], "in_progress");
}

#[test]
fn a_stream_of_a_message_starts_one_block_and_says_why_it_ends() {
    let mock = Mock::start(&[]);
    let events = mock.events(MESSAGES.path, &MESSAGES.ask_for_stream("hello there"));
    let mut kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 2);
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "end_turn");
    assert_eq!(end["usage"]["output_tokens"], 9);
    let count = mock.document("/v1/messages/count_tokens", &(MESSAGES.ask)("a b c"));
    assert_eq!(count, json!({"input_tokens": 3}));
}

#[test]
fn gemini_streams_events_with_alt_sse_and_one_array_without() {
    let mock = Mock::start(&[]);
    let body = (GEMINI.ask)("hello there");
    let events = mock.events(GEMINI.stream_path, &body);
    let array = mock.document("/v1beta/models/m:streamGenerateContent", &body);
    assert_eq!(array, json!(events));
    let (last, before) = events.split_last().expect("events");
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert!(
        before
            .iter()
            .all(|event| event["candidates"][0]["finishReason"].is_null())
    );
    assert_eq!(last["usageMetadata"]["totalTokenCount"], 11);
    assert_eq!(last["modelVersion"], "m");
    for path in [
        "/v1/models/m:generateContent",
        "/v1beta/models/m%3AgenerateContent",
    ] {
        assert_eq!(
            mock.document(path, &body).pointer(GEMINI.text),
            Some(&json!(HELLO))
        );
    }
    let count = mock.document("/v1beta/models/m:countTokens", &body);
    assert_eq!(count, json!({"totalTokens": 2}));
}

/// A tool, its arguments that fit, and their schema.
const TOOL: &str = "weather";

fn schema() -> Value {
    json!({
        "type": "object", "required": ["city", "days"],
        "properties": {
            "city": {"type": "string"}, "days": {"type": "integer", "minimum": 2},
            "unit": {"type": "string"},
        },
    })
}

/// A request that offers [`TOOL`] and asks for it, with these turns behind the prompt.
fn with_tool(api: &Api, prompt: &str, turns: &[Value]) -> Value {
    let mut body = (api.ask)(prompt);
    let function = json!({"name": TOOL, "parameters": schema()});
    let (turns_at, tool) = match api.path {
        "/v1/chat/completions" => (
            "messages",
            json!({"type": "function", "function": function}),
        ),
        "/v1/responses" => {
            body["input"] = json!([{"role": "user", "content": prompt}]);
            let tool = json!({"type": "function", "name": TOOL, "parameters": schema()});
            ("input", tool)
        }
        "/v1/messages" => ("messages", json!({"name": TOOL, "input_schema": schema()})),
        _ => ("contents", json!({"functionDeclarations": [function]})),
    };
    body["tools"] = json!([tool]);
    if let Some(list) = body[turns_at].as_array_mut() {
        list.extend(turns.iter().cloned());
    }
    body
}

/// Arguments that are text, as JSON.
#[track_caller]
fn parsed(arguments: &str) -> Value {
    serde_json::from_str(arguments).expect("JSON")
}

#[test]
fn a_tool_is_called_where_it_is_offered_and_the_prompt_asks_for_it() {
    let mock = Mock::start(&[]);
    let fits = json!({"city": "mock", "days": 2});
    let cases = [
        ("Please use the tool weather.", fits.clone()),
        (
            "use the tool weather {\"city\": \"Rome\"}",
            json!({"city": "Rome", "days": 2}),
        ),
    ];
    for (prompt, arguments) in cases {
        let chat = mock.document(CHAT.path, &with_tool(&CHAT, prompt, &[]));
        let choice = &chat["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        let function = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!(function["name"], TOOL);
        assert_eq!(
            parsed(function["arguments"].as_str().expect("text")),
            arguments
        );

        let response = mock.document(RESPONSES.path, &with_tool(&RESPONSES, prompt, &[]));
        let item = &response["output"][0];
        assert_eq!(
            (&item["type"], &item["name"]),
            (&json!("function_call"), &json!(TOOL))
        );
        assert_eq!(parsed(item["arguments"].as_str().expect("text")), arguments);

        let message = mock.document(MESSAGES.path, &with_tool(&MESSAGES, prompt, &[]));
        assert_eq!(message["stop_reason"], "tool_use");
        let block = &message["content"][0];
        assert_eq!(
            (&block["type"], &block["name"]),
            (&json!("tool_use"), &json!(TOOL))
        );
        assert_eq!(block["input"], arguments);

        let gemini = mock.document(GEMINI.path, &with_tool(&GEMINI, prompt, &[]));
        let call = &gemini["candidates"][0]["content"]["parts"][0]["functionCall"];
        assert_eq!((&call["name"], &call["args"]), (&json!(TOOL), &arguments));
    }
    for api in [CHAT, RESPONSES, MESSAGES, GEMINI] {
        let text = mock.document(api.path, &with_tool(&api, "hello there", &[]));
        assert_eq!(text.pointer(api.text), Some(&json!(HELLO)), "not asked for");
        let text = mock.document(api.path, &(api.ask)("use the tool weather"));
        assert!(text.pointer(api.text).is_some(), "not offered: {text}");
    }
}

#[test]
fn a_streamed_call_of_a_tool_has_the_arguments_of_the_plain_one() {
    let mock = Mock::start(&[]);
    let arguments = "{\"city\":\"mock\",\"days\":2}";
    let stream = |api: &Api| {
        let mut body = with_tool(api, "use the tool weather", &[]);
        body["stream"] = json!(true);
        mock.events(api.stream_path, &body)
    };
    let chat = stream(&CHAT);
    let call = "/choices/0/delta/tool_calls/0";
    assert_eq!(
        joined(&chat, &format!("{call}/function/arguments")),
        arguments
    );
    assert_eq!(joined(&chat, &format!("{call}/function/name")), TOOL);
    assert_eq!(joined(&chat, "/choices/0/finish_reason"), "tool_calls");

    let response = stream(&RESPONSES);
    assert_eq!(joined(&response, "/delta"), arguments);
    let kinds: Vec<&str> = response.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(
        kinds[2..],
        [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let ids = ["/item/id", "/item_id"].map(|at| response.iter().find_map(|e| e.pointer(at)));
    assert_eq!(ids[0], ids[1], "each event names its item");

    let message = stream(&MESSAGES);
    assert_eq!(joined(&message, "/delta/partial_json"), arguments);
    assert_eq!(joined(&message, "/content_block/name"), TOOL);
    assert_eq!(joined(&message, "/delta/stop_reason"), "tool_use");

    let gemini = stream(&GEMINI);
    let part = &gemini[0]["candidates"][0]["content"]["parts"][0];
    assert_eq!(part["functionCall"]["args"], parsed(arguments));
}

#[test]
fn a_custom_tool_gets_a_text() {
    let mock = Mock::start(&[]);
    let mut body = with_tool(&RESPONSES, "use the tool patch {\"input\": \"text\"}", &[]);
    body["tools"] = json!([{"type": "custom", "name": "patch"}]);
    let response = mock.document(RESPONSES.path, &body);
    let item = &response["output"][0];
    assert_eq!(
        (&item["type"], &item["input"]),
        (&json!("custom_tool_call"), &json!("text"))
    );
    body["stream"] = json!(true);
    assert_eq!(
        joined(&mock.events(RESPONSES.path, &body), "/delta"),
        "text"
    );
}

#[test]
fn the_turn_after_a_call_names_the_result() {
    let mock = Mock::start(&[]);
    let prompt = "use the tool weather";
    let result = "it is\nsunny";
    let turns = [
        (
            CHAT,
            json!({"role": "assistant", "content": null, "tool_calls": [{
                "id": "c", "type": "function", "function": {"name": TOOL, "arguments": "{}"},
            }]}),
            json!({"role": "tool", "tool_call_id": "c", "content": result}),
        ),
        (
            RESPONSES,
            json!({"type": "function_call", "call_id": "c", "name": TOOL, "arguments": "{}"}),
            json!({"type": "function_call_output", "call_id": "c", "output": result}),
        ),
        (
            MESSAGES,
            json!({"role": "assistant", "content": [
                {"type": "tool_use", "id": "c", "name": TOOL, "input": {}},
            ]}),
            json!({"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": result}]},
            ]}),
        ),
        (
            GEMINI,
            json!({"role": "model", "parts": [{"functionCall": {"name": TOOL, "args": {}}}]}),
            json!({"role": "user", "parts": [
                {"functionResponse": {"name": TOOL, "response": {"output": result}}},
            ]}),
        ),
    ];
    for (api, call, result) in turns {
        let document = mock.document(api.path, &with_tool(&api, prompt, &[call, result]));
        let text = document.pointer(api.text).and_then(Value::as_str);
        let line = text.and_then(|text| text.lines().next());
        assert_eq!(line, Some("The tool returned: sunny"), "{}", api.path);
    }
}

#[test]
fn a_bad_request_gets_the_error_of_its_api() {
    let mock = Mock::start(&[]);
    #[track_caller]
    fn check(mock: &Mock, path: &str, body: &str, status: u16, message: &str) {
        let response = mock.ask("POST", path, body);
        let error = document(&response);
        assert_eq!(response.status, status, "{path}: {error}");
        let said = error["error"]["message"].as_str().unwrap_or_default();
        assert!(said.contains(message), "{path}: {error}");
        let shape: Vec<&String> = error["error"]
            .as_object()
            .into_iter()
            .flat_map(|e| e.keys())
            .collect();
        if path.contains("Content") {
            assert_eq!(shape, ["code", "message", "status"], "{error}");
            assert_eq!(error["error"]["code"], status);
        } else if path.starts_with("/v1/messages") {
            assert_eq!(shape, ["type", "message"], "{error}");
            assert_eq!(error["type"], "error");
        } else {
            assert_eq!(shape, ["message", "type", "param", "code"], "{error}");
        }
    }
    for api in APIS {
        let good = (api.ask)("hello").to_string();
        for body in [
            "",
            "{",
            "\u{0}",
            "[",
            &good[..good.len() - 1],
            &"[".repeat(100_000),
        ] {
            check(&mock, api.path, body, 400, "is not JSON");
        }
        for body in ["{}", "[]", "7", "null"] {
            check(&mock, api.path, body, 400, "missing or malformed parameter");
        }
    }
    let embeddings = "/v1/embeddings";
    check(&mock, embeddings, "{", 400, "is not JSON");
    check(&mock, embeddings, r#"{"model":"m"}"#, 400, "`input`");
    check(
        &mock,
        embeddings,
        r#"{"model":"m","input":"a","dimensions":0}"#,
        400,
        "between 1 and 4096",
    );
    // Each takes some KiB of memory.
    let many = json!({"model": "m", "input": vec!["a"; 2049]}).to_string();
    check(&mock, embeddings, &many, 400, "at most 2048 elements");
    for api in [CHAT, COMPLETIONS, RESPONSES, MESSAGES] {
        for model in [Value::Null, json!(""), json!(7)] {
            let mut body = (api.ask)("hello");
            body["model"] = model;
            check(&mock, api.path, &body.to_string(), 400, "`model`");
        }
    }
    let unnamed = "/v1beta/models/:generateContent";
    check(
        &mock,
        unnamed,
        &(GEMINI.ask)("hello").to_string(),
        400,
        "`model`",
    );
    for (api, body) in [
        (CHAT, json!({"model": "m", "messages": []})),
        (
            CHAT,
            json!({"model": "m", "messages": [{"content": "no role"}]}),
        ),
        (MESSAGES, json!({"model": "m", "messages": "hello"})),
        (RESPONSES, json!({"model": "m", "input": []})),
        (
            RESPONSES,
            json!({"model": "m", "input": [{"content": "no role"}]}),
        ),
        (GEMINI, json!({"contents": []})),
    ] {
        check(
            &mock,
            api.path,
            &body.to_string(),
            400,
            "missing or malformed parameter",
        );
    }
    let not_offered = "the tool `nope` is not offered; the request offers: weather";
    for (api, choice) in [
        (
            CHAT,
            json!({"type": "function", "function": {"name": "nope"}}),
        ),
        (RESPONSES, json!({"type": "function", "name": "nope"})),
        (MESSAGES, json!({"type": "tool", "name": "nope"})),
        (GEMINI, Value::Null),
    ] {
        let body = with_tool(&api, "use the tool nope", &[]).to_string();
        check(&mock, api.path, &body, 400, not_offered);
        let mut body = with_tool(&api, "hello", &[]);
        body["tool_choice"] = choice;
        let mode = json!({"mode": "ANY", "allowedFunctionNames": ["nope"]});
        body["toolConfig"] = json!({"functionCallingConfig": mode});
        check(&mock, api.path, &body.to_string(), 400, not_offered);
    }
    check(&mock, "/v1/nothing", "{}", 404, "chat/completions");
    check(&mock, "/v1/messages/nothing", "{}", 404, "chat/completions");
    check(&mock, "/messages", "{}", 404, "messages");
    check(
        &mock,
        "/v1beta/models/m:editContent",
        "{}",
        404,
        "no method `editContent`",
    );
}

#[test]
fn a_wrong_method_is_refused_and_a_websocket_is_told_to_fall_back() {
    let mock = Mock::start(&[]);
    for (method, path) in [
        ("POST", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/responses"),
        ("PUT", "/v1/messages"),
        ("GET", "/v1/messages/count_tokens"),
    ] {
        assert_eq!(mock.ask(method, path, "").status, 405, "{method} {path}");
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    for path in ["/v1/responses", "/v1/realtime?model=m"] {
        let response = mock.ask_with(upgrade, "GET", path, "");
        assert_eq!(response.status, 426, "{path}");
        // RFC 9110 §15.5.22
        assert_eq!(response.fields.one("Upgrade"), Some("HTTP/1.1"));
        assert!(document(&response)["error"]["message"].is_string());
    }
    let interceptor = Launch::bare().args(["--mock"]).start();
    let mut client = interceptor.client();
    client.send(request(upgrade, "GET", "/v1/responses", ""));
    assert_eq!(client.response("GET").status, 426);
}

#[test]
fn a_body_that_is_too_large_gets_the_error_of_its_api() {
    let mock = Mock::start(&[]);
    let mebibyte = vec![b' '; 1 << 20];
    for (path, kind) in [
        (CHAT.path, "/error/param"),
        (MESSAGES.path, "/request_id"),
        (GEMINI.path, "/error/status"),
    ] {
        let mut client = mock.client();
        let length = 65 << 20;
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        ));
        for _ in 0..65 {
            client.send(&mebibyte);
        }
        let response = client.response("POST");
        assert_eq!(response.status, 413, "{path}");
        let error = document(&response);
        assert!(error.pointer(kind).is_some(), "{path}: {error}");
    }
}

#[test]
fn fail_answers_every_request_with_that_status_in_the_form_of_its_api() {
    #[track_caller]
    fn check(
        mock: &Mock,
        path: &str,
        status: u16,
        retry_after: Option<&str>,
        pointer: &str,
        kind: &str,
    ) {
        // Not even a request that is no JSON gets another one.
        for body in ["{", "{}"] {
            let response = mock.ask("POST", path, body);
            assert_eq!(response.status, status, "{path}");
            assert_eq!(response.fields.one("Retry-After"), retry_after, "{path}");
            let error = document(&response);
            assert_eq!(
                error.pointer(pointer),
                Some(&json!(kind)),
                "{path}: {error}"
            );
        }
    }
    let mock = Mock::start(&["--fail", "429"]);
    let soon = Some("1");
    for api in [CHAT, COMPLETIONS, RESPONSES] {
        check(
            &mock,
            api.path,
            429,
            soon,
            "/error/code",
            "rate_limit_exceeded",
        );
    }
    check(
        &mock,
        MESSAGES.path,
        429,
        soon,
        "/error/type",
        "rate_limit_error",
    );
    check(
        &mock,
        GEMINI.path,
        429,
        None,
        "/error/status",
        "RESOURCE_EXHAUSTED",
    );
    assert_eq!(mock.ask("GET", "/v1/models", "").status, 429);
    assert_eq!(mock.ask("GET", "/health", "").status, 200);

    let mock = Mock::start(&["--fail", "529"]);
    check(&mock, CHAT.path, 529, None, "/error/type", "server_error");
    check(
        &mock,
        MESSAGES.path,
        529,
        None,
        "/error/type",
        "overloaded_error",
    );
    check(&mock, GEMINI.path, 529, None, "/error/status", "INTERNAL");
}

#[test]
fn the_delay_is_before_a_response_and_the_interval_between_events() {
    let mock = Mock::start(&["--delay-ms", "300", "--interval-ms", "40"]);
    let body = CHAT.ask_for_stream("hello").to_string();
    let mut client = mock.client();
    let started = Instant::now();
    client.send(request("", "POST", CHAT.path, &body));
    client.response_head("POST");
    assert!(started.elapsed() >= Duration::from_millis(300));

    let started = Instant::now();
    let count = mock.events(CHAT.path, &parsed(&body)).len() as u32;
    let least = Duration::from_millis(300) + Duration::from_millis(40) * (count - 1);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());

    let started = Instant::now();
    assert_eq!(mock.ask("GET", "/health", "").status, 200);
    assert!(started.elapsed() < Duration::from_millis(300));
}

#[test]
fn a_format_is_answered_with_a_document_that_fits() {
    let mock = Mock::start(&[]);
    let expected = json!({"city": "mock", "days": 2});
    let format = json!({"type": "json_schema", "schema": schema()});
    let inner = json!({"type": "json_schema", "json_schema": {"schema": schema()}});
    let config = json!({"responseMimeType": "application/json", "responseSchema": schema()});
    for (api, member, value) in [
        (CHAT, "response_format", inner),
        (RESPONSES, "text", json!({ "format": format })),
        (MESSAGES, "output_config", json!({ "format": format })),
        (GEMINI, "generationConfig", config),
    ] {
        let mut body = (api.ask)("hello");
        body[member] = value;
        let document = mock.document(api.path, &body);
        let text = document.pointer(api.text).and_then(Value::as_str);
        assert_eq!(parsed(text.expect("a text")), expected, "{}", api.path);
    }
}
