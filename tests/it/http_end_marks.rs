//! Event streams whose client disconnects at the end mark: a complete response, in the feed and in the metrics.

use serde_json::{Value, json};

use crate::support::*;

/// How the target sends a stream.
#[derive(Debug, Clone, Copy)]
enum Way {
    WithItsHead,
    InOneChunk,
    /// Each byte in a segment of its own, also those of the framing.
    ByteByByte,
    InChunksOfTwo,
}

const WAYS: [Way; 4] = [
    Way::WithItsHead,
    Way::InOneChunk,
    Way::ByteByByte,
    Way::InChunksOfTwo,
];

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Sends a response with `fields` and the start of a body, of which the client reads `stream` before it disconnects.
#[track_caller]
fn play(
    (origin, interceptor): &(Origin, Interceptor),
    request: &str,
    fields: &str,
    stream: &str,
    way: Way,
) {
    let mut client = interceptor.client();
    client.send(format!("{request}\r\nHost: localhost\r\n\r\n"));
    let mut served = origin.accept();
    served.request();
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let is_chunked = fields.contains("chunked");
    let framed = match way {
        _ if !is_chunked => stream.to_owned(),
        Way::InChunksOfTwo => stream
            .as_bytes()
            .chunks(2)
            .map(|two| chunk(&latin1(two)))
            .collect(),
        _ => chunk(stream),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| match way {
            Way::WithItsHead => served.send(head + &framed),
            Way::InOneChunk | Way::InChunksOfTwo => {
                served.send(head);
                served.send(framed);
            }
            Way::ByteByByte => {
                served.send(head);
                assert!(served.offer_in_pieces(framed, 1));
            }
        });
        let (_, framing) = client.response_head("GET");
        client.expect_some(&mut Body::new(framing), stream);
    });
    client.close();
    if request.ends_with("1.0") {
        // It may have ended its side only, until a write fails.
        while served.offer(chunk(": keep-alive\n\n")) {}
    }
    served.expect_end();
}

/// Checks the outcome of such an exchange, with a subscriber of the feed and without.
#[track_caller]
fn check(
    stage: &(Origin, Interceptor),
    why: &str,
    (request, fields): (&str, &str),
    stream: &str,
    is_complete: bool,
) {
    for way in WAYS {
        for has_listener in [false, true] {
            let interceptor = &stage.1;
            let counts = |health: &Value| {
                ["requests", "client_gone", "errors"].map(|name| health[name].as_u64())
            };
            let [requests, gone, errors] = counts(&interceptor.health());
            let listener = has_listener.then(|| Listener::of(interceptor));
            play(stage, request, fields, stream, way);
            let left = u64::from(!is_complete);
            let expected = [
                requests.map(|count| count + 1),
                gone.map(|count| count + left),
                errors,
            ];
            let health = interceptor.health();
            assert_eq!(counts(&health), expected, "{why}, {way:?}: {health}");
            if let Some(mut listener) = listener {
                let end = listener.wait_for("end");
                let outcome = if is_complete {
                    "complete"
                } else {
                    "client_gone"
                };
                let found = (&end["outcome"], &end["status"], &end["error"]);
                assert_eq!(
                    found,
                    (&json!(outcome), &json!(200), &Value::Null),
                    "{why}, {way:?}"
                );
            }
        }
    }
}

const POST: &str = "POST /v1/x HTTP/1.1\r\nContent-Length: 0";
const CHUNKED: &str = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
const DONE: &str = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";

#[test]
fn a_client_that_disconnects_at_the_end_mark_has_a_complete_response() {
    let stage = scripted();
    let check = |why: &str, stream: &str| check(&stage, why, (POST, CHUNKED), stream, true);
    check("chat completions", DONE);
    for name in [
        "response.completed",
        "response.incomplete",
        "response.failed",
        "message_stop",
    ] {
        check(
            "an event with a name",
            &format!("event: x\ndata: {{}}\n\nevent: {name}\ndata: {{\"type\":\"{name}\"}}\n\n"),
        );
        check(
            "an event without a name",
            &format!("data: {{\"type\": \"{name}\"}}\n\n"),
        );
    }
    check("CRLF", "data: [DONE]\r\n\r\n");
    check(
        "two marks",
        "event: response.completed\ndata: {}\n\ndata: [DONE]\n\n",
    );
    check("a comment behind it", "data: [DONE]\n\n: ping\n\n");
}

#[test]
fn gemini_ends_with_a_finish_reason() {
    let stage = scripted();
    let stream = "data: {\"candidates\": [{\"finishReason\": \"STOP\"}]}\r\n\r\n";
    for (path, is_complete) in [
        (
            "/v1beta/models/gemini-3:streamGenerateContent?alt=sse",
            true,
        ),
        ("/v1beta/models/gemini-3:streamGenerateContent", true),
        ("/v1/chat/completions?a=:streamGenerateContent", false),
        ("/v1beta/models/gemini-3:generateContent", false),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nContent-Length: 0");
        check(&stage, path, (&request, CHUNKED), stream, is_complete);
    }
}

#[test]
fn a_client_that_disconnects_elsewhere_has_gone() {
    let stage = scripted();
    let check = |why: &str, stream: &str| check(&stage, why, (POST, CHUNKED), stream, false);
    check(
        "no mark",
        "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n",
    );
    check("within the mark", "data: {}\n\ndata: [DON");
    check("the mark's line has not ended", "data: {}\n\ndata: [DONE]");
    check("its data has not come", "event: response.completed\n");
    check("an event behind it", "data: [DONE]\n\ndata: {}\n\n");
    check(
        "a text that has marks",
        "data: {\"type\":\"response.output_text.delta\",\"delta\":\"\\n\\ndata: [DONE]\\n\\nevent: message_stop\\ndata: {\\\"type\\\":\\\"message_stop\\\"\"}\n\n",
    );
    check(
        "a message that is a mark",
        "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE]\"}}]}\n\n",
    );
}

#[test]
fn only_event_streams_whose_end_is_open_have_end_marks() {
    let stage = scripted();
    let check =
        |fields: &str, is_complete| check(&stage, fields, (POST, fields), DONE, is_complete);
    check("Content-Type: text/event-stream\r\n", true);
    check(
        "Content-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\nContent-Encoding: identity\r\n",
        true,
    );
    check(
        "Content-Type: text/event-stream\r\nContent-Length: 100\r\n",
        false,
    );
    check(
        "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n",
        false,
    );
    check(
        "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n",
        false,
    );
    check("Transfer-Encoding: chunked\r\n", false);
}

#[test]
fn an_http_1_0_client_may_disconnect_at_the_end_mark() {
    let stage = scripted();
    let request = "GET / HTTP/1.0";
    check(&stage, "a mark", (request, CHUNKED), DONE, true);
    check(&stage, "none", (request, CHUNKED), "data: {}\n\n", false);
}

#[test]
fn the_mark_is_found_behind_data_that_arrives_faster_than_it_is_read() {
    let stage = scripted();
    let event = format!("data: {{\"a\":\"{}\"}}\n\n", "x".repeat(99_999));
    let stream = event.repeat(40) + DONE;
    for fields in [CHUNKED, "Content-Type: text/event-stream\r\n"] {
        for way in [Way::WithItsHead, Way::InOneChunk] {
            let gone = stage.1.health()["client_gone"].clone();
            play(&stage, POST, fields, &stream, way);
            assert_eq!(stage.1.health()["client_gone"], gone, "{fields} {way:?}");
        }
    }
}

#[test]
fn a_recorded_stream_that_ends_at_its_mark_is_whole() {
    let stage = scripted();
    let mut listener = Listener::of(&stage.1);
    listener.record(true);
    for (stream, is_whole) in [(DONE, true), ("data: {}\n\n", false)] {
        play(&stage, POST, CHUNKED, stream, Way::InOneChunk);
        let body = listener.wait_for("body");
        assert_eq!(
            (&body["side"], &body["data"]),
            (&json!("response"), &json!(stream))
        );
        assert_eq!(body["truncated"], !is_whole, "{stream}");
        listener.wait_for("end");
    }
}
