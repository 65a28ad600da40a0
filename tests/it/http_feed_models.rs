//! What the live feed says of models: the tokens, the cost, the message of an error, the turns of a WebSocket.

use serde_json::{Value, json};

use crate::support::*;

/// Sends a request with a body of JSON.
#[track_caller]
fn ask(interceptor: &Interceptor, path: &str, body: &str) -> Conn {
    let mut client = interceptor.client();
    let len = body.len();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    ));
    client
}

/// Returns the head of a response with a body of `len` bytes.
fn head(status: u16, fields: &str, len: usize) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}Content-Length: {len}\r\n\r\n")
}

/// Returns the events `head` and `end` of a request for `path` that the target answers with `fields` and `body`.
#[track_caller]
fn events_of(path: &str, status: u16, fields: &str, body: &str) -> (Value, Value) {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let mut client = ask(&interceptor, path, "{}");
    let mut served = origin.accept();
    served.request();
    served.send(head(status, fields, body.len()) + body);
    client.response("POST");
    listener.expect("start");
    (listener.expect("head"), listener.expect("end"))
}

#[test]
fn gemini_has_its_model_in_the_path_and_its_tokens_in_usage_metadata() {
    let body = "data: {\"usageMetadata\":{\"promptTokenCount\":7},\"modelVersion\":\"gemini-3-001\"}\r\n\r\n\
                data: {\"usageMetadata\":{\"promptTokenCount\":7,\"cachedContentTokenCount\":4,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":30}}\r\n\r\n";
    let path = "/v1beta/models/gemini-3:streamGenerateContent?alt=sse";
    let (head, end) = events_of(path, 200, "Content-Type: text/event-stream\r\n", body);
    assert_eq!(head["model"], "gemini-3");
    assert_eq!(end["model"], "gemini-3-001");
    let tokens = ["input_tokens", "cached_tokens", "output_tokens"].map(|name| &end[name]);
    assert_eq!(tokens, [&json!(7), &json!(4), &json!(32)]);
    assert_eq!(end["events"], 2);
}

#[test]
fn input_tokens_include_cached_ones_in_every_api() {
    for (usage, expected) in [
        (
            r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}"#,
            (json!(9), json!(4)),
        ),
        (
            r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":4}}"#,
            (json!(9), json!(4)),
        ),
        (
            r#"{"input_tokens":9,"cache_read_input_tokens":4,"cache_creation_input_tokens":2}"#,
            (json!(15), json!(4)),
        ),
        (r#"{"input_tokens":9}"#, (json!(9), Value::Null)),
    ] {
        let body = format!("{{\"usage\":{usage}}}");
        let (_, end) = events_of("/v1", 200, "Content-Type: application/json\r\n", &body);
        let found = (end["input_tokens"].clone(), end["cached_tokens"].clone());
        assert_eq!(found, expected, "{usage}");
        assert_eq!(end["turns"], Value::Null, "no WebSocket: {usage}");
    }
}

#[test]
fn the_cost_is_that_of_litellm() {
    let (_, end) = events_of("/", 200, "x-litellm-response-cost: 3.45e-05\r\n", "");
    assert_eq!(end["cost"], 3.45e-5);
    let (_, end) = events_of("/", 200, "x-litellm-response-cost: None\r\n", "");
    assert_eq!(end["cost"], Value::Null);
}

/// The status, fields and body of a response, and the expected message.
#[rustfmt::skip] // A table.
const ERRORS: &[(&str, u16, &str, &str, Option<&str>)] = &[
    ("OpenAI", 404, JSON, r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#, Some("The model `x` does not exist")),
    ("Anthropic", 529, JSON, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Some("Overloaded")),
    ("Gemini", 400, JSON, r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}"#, Some("API key not valid.")),
    ("FastAPI", 422, "Content-Type: application/problem+json\r\n", r#"{"detail":[{"msg":"Field required"}]}"#, Some("Field required")),
    ("a key, and control characters", 401, JSON, "{\"error\":\"Invalid key\\u001b[2J sk-proj-0123456789abcdef\\nin \\u202ethe header\"}", Some("Invalid key [2J … in \u{202e}the header")),
    ("no error", 200, JSON, r#"{"error":{"message":"x"}}"#, None),
    ("no JSON", 500, "Content-Type: text/html\r\n", "<h1>Internal Server Error</h1>", None),
    ("coded", 500, "Content-Type: application/json\r\nContent-Encoding: br\r\n", r#"{"error":"x"}"#, None),
];

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn the_end_has_the_message_of_the_target() {
    for &(why, status, fields, body, expected) in ERRORS {
        let (_, end) = events_of("/v1/chat/completions", status, fields, body);
        assert_eq!(end["message"], json!(expected), "{why}");
        let outcome = (&end["outcome"], &end["status"], &end["error"]);
        assert_eq!(
            outcome,
            (&json!("complete"), &json!(status), &Value::Null),
            "{why}"
        );
    }
    for (len, is_read) in [
        (64 << 10, true),
        ((64 << 10) + 1, false),
        (300 << 10, false),
    ] {
        let start = "{\"message\":\"x\",\"request\":\"";
        let body = format!("{start}{}\"}}", "y".repeat(len - start.len() - 2));
        let (_, end) = events_of("/", 500, JSON, &body);
        assert_eq!(end["message"], json!(is_read.then_some("x")), "{len} bytes");
        assert_eq!(end["response_bytes"], len);
    }
}

#[test]
fn the_end_has_the_message_of_the_interceptor() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let mut check = |request: &str, play: &dyn Fn()| {
        let mut client = interceptor.client();
        client.send(request);
        play();
        let response = client.response("GET");
        let document: Value = serde_json::from_slice(&response.body).expect("JSON");
        let end = listener.wait_for("end");
        assert_eq!(end["message"], document["error"]["message"], "{request}");
        let message = end["message"].as_str().unwrap_or_default();
        assert!(message.contains(' '), "{end}");
        assert_eq!(end["error"], document["error"]["code"]);
    };
    check("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &|| {
        let mut served = origin.accept();
        served.request();
        served.close();
    });
    check("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", &|| {});
    check("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n", &|| {});
    check("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", &|| {});
}

#[test]
fn a_response_that_breaks_off_has_a_message_of_the_interceptor() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let mut client = ask(&interceptor, "/", "{}");
    let mut served = origin.accept();
    served.request();
    served.send(head(200, "", 9) + "ab");
    served.close();
    client.drain();
    let end = listener.wait_for("end");
    let message = end["message"].as_str().unwrap_or_default();
    assert!(message.contains("broke off"), "{end}");
}

/// Returns the next line, whatever it is.
#[track_caller]
fn next(listener: &mut Listener) -> Value {
    listener.try_next().expect("there is another line")
}

#[test]
fn the_model_of_a_request_is_published_before_the_target_answers() {
    for (path, body, expected) in [
        ("/v1/messages", r#"{"model":"asked"}"#, json!("asked")),
        ("/v1beta/models/g:generateContent", "{}", json!("g")),
    ] {
        let (origin, interceptor) = scripted();
        let mut listener = Listener::of(&interceptor);
        let mut client = ask(&interceptor, path, body);
        let mut served = origin.accept();
        served.request();
        assert_eq!(listener.expect("start")["upgrade"], Value::Null);
        let progress = next(&mut listener);
        let found = (&progress["event"], &progress["model"]);
        assert_eq!(found, (&json!("progress"), &expected), "{path}");
        assert_eq!(progress["request_bytes"], body.len());
        served.send(head(404, "", 0));
        client.response("POST");
        for event in ["head", "end"] {
            let line = next(&mut listener);
            let found = (&line["event"], &line["model"]);
            assert_eq!(found, (&json!(event), &expected), "{path}: once");
        }
    }
}

const UPGRADE: &str = "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

/// Returns the client that asks for a WebSocket, and the connection on which the origin has got its request.
fn ask_for_websocket(origin: &Origin, interceptor: &Interceptor) -> (Conn, Conn) {
    let mut client = interceptor.client();
    client.send(UPGRADE);
    let mut served = origin.accept();
    served.request();
    (client, served)
}

/// Sends more than the buffers on the way hold.
fn pass(from: &mut Conn, to: &mut Conn, bytes: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(|| from.send(bytes));
        to.expect(bytes);
    });
}

/// Returns a text message of a WebSocket in one frame, masked if a client sends it.
fn text_frame(text: &str, is_masked: bool) -> Vec<u8> {
    let key = if is_masked { [7, 1, 255, 0] } else { [0; 4] };
    let mut frame = vec![0x81, if is_masked { 0xff } else { 0x7f }];
    frame.extend((text.len() as u64).to_be_bytes());
    frame.extend(key.iter().take_while(|_| is_masked));
    frame.extend(text.bytes().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

#[test]
fn a_refused_upgrade_is_an_ordinary_end() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let (mut client, mut served) = ask_for_websocket(&origin, &interceptor);
    let body = r#"{"error":{"message":"use HTTP"}}"#;
    served.send(head(426, JSON, body.len()) + body);
    client.response("GET");
    assert_eq!(listener.expect("start")["upgrade"], "websocket");
    let end = listener.wait_for("end");
    let found = ["outcome", "status", "message", "turns"].map(|name| &end[name]);
    let expected = [
        json!("complete"),
        json!(426),
        json!("use HTTP"),
        Value::Null,
    ];
    assert_eq!(found, expected.each_ref());
}

#[test]
fn the_responses_api_in_a_websocket_has_its_model_its_tokens_and_its_turns() {
    let filling = "x".repeat(200_000);
    let create = format!(r#"{{"type":"response.create","model":"asked","input":"{filling}"}}"#);
    let answer = format!(
        r#"{{"type":"response.completed","response":{{"model":"answered","instructions":"{filling}","usage":{{"input_tokens":30,"input_tokens_details":{{"cached_tokens":20}},"output_tokens":4}}}}}}"#
    );
    for (extensions, is_read) in [
        ("", true),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", false),
    ] {
        let (origin, interceptor) = scripted();
        let mut listener = Listener::of(&interceptor);
        let (mut client, mut served) = ask_for_websocket(&origin, &interceptor);
        served.send(format!("{SWITCHED}{extensions}\r\n"));
        client.response_head("GET");
        for _ in 0..2 {
            pass(&mut client, &mut served, &text_frame(&create, true));
            pass(&mut served, &mut client, &text_frame(&answer, false));
        }
        if is_read {
            while listener.try_next().expect("a line")["model"] != "asked" {}
        }
        client.finish_writing();
        served.expect_eof();
        served.close();
        client.expect_eof();
        let end = listener.wait_for("end");
        let names = [
            "model",
            "input_tokens",
            "cached_tokens",
            "output_tokens",
            "turns",
        ];
        let found = json!(names.map(|name| &end[name]));
        let expected = match is_read {
            true => json!(["answered", 60, 40, 8, 2]),
            false => json!([null, null, null, null, null]),
        };
        assert_eq!(found, expected);
        assert_eq!(end["outcome"], "tunnel");
    }
}

#[test]
fn a_websocket_is_no_failure_whichever_side_ends_it() {
    type End = fn(Conn, Conn);
    let ends: [(&str, End); 4] = [
        ("the client closes", |mut client, mut served| {
            // A close frame with the code 1000, masked with zeros.
            pass(&mut client, &mut served, b"\x88\x82\0\0\0\0\x03\xe8");
            client.close();
            served.expect_end();
        }),
        ("the target closes", |mut client, mut served| {
            pass(&mut served, &mut client, b"\x88\x02\x03\xe8");
            served.close();
            client.expect_end();
        }),
        ("the client vanishes", |client, mut served| {
            client.reset();
            served.expect_end();
        }),
        ("the target vanishes", |mut client, served| {
            served.reset();
            client.expect_end();
        }),
    ];
    for (why, end) in ends {
        let (origin, interceptor) = scripted();
        let mut listener = Listener::of(&interceptor);
        let (mut client, mut served) = ask_for_websocket(&origin, &interceptor);
        served.send(format!("{SWITCHED}\r\n"));
        client.response_head("GET");
        end(client, served);
        let end = listener.wait_for("end");
        assert_eq!(
            (&end["outcome"], &end["status"]),
            (&json!("tunnel"), &json!(101)),
            "{why}"
        );
        let health = interceptor.health();
        let counts = ["requests", "errors", "client_gone"].map(|name| &health[name]);
        assert_eq!(counts, [&json!(1), &json!(0), &json!(0)], "{why}");
    }
}
