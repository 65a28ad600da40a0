//! The live feed: the events of each exchange, the recording, and that neither delays an exchange.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Returns the events `start`, `head` and `end` of an exchange with an origin that responds with these bytes.
#[track_caller]
fn events_of(request: &str, answer: &'static [u8]) -> (Value, Value, Value) {
    let origin = Origin::answering(move |_, _| Reply::Bytes(answer.to_vec()));
    let interceptor = Interceptor::before(&origin);
    let mut listener = Listener::of(&interceptor);
    let mut client = interceptor.client();
    client.send(request);
    client.response("POST");
    (
        listener.expect("start"),
        listener.expect("head"),
        listener.expect("end"),
    )
}

#[track_caller]
fn post(fields: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len}\r\n\r\n{body}"
    )
}

#[track_caller]
fn number(value: &Value) -> f64 {
    let number = value
        .as_f64()
        .unwrap_or_else(|| panic!("a number: {value}"));
    assert!(number >= 0.0, "{value}");
    number
}

#[test]
fn the_first_event_identifies_the_interceptor() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .args(["--instance-id", "me"])
        .start();
    let (_, hello) = Listener::greeted(&interceptor);
    assert_eq!(hello["protocol"], 1);
    assert_eq!(hello["instance_id"], "me");
    assert_eq!(hello["port"], interceptor.port);
    assert_eq!(hello["pid"], interceptor.pid());
    assert_eq!(hello["target"], origin.url());
    assert_eq!(hello["recording"], false);
    assert_eq!(hello["path"], interceptor.health()["project"]);
    let path = hello["path"].as_str().expect("the event has a project");
    assert_eq!(
        hello["project"],
        path.rsplit('/').next().unwrap_or_default()
    );
    number(&hello["at"]);
}

#[test]
fn an_exchange_has_a_start_a_head_and_an_end() {
    let body = r#"{"messages":[],"model":"asked"}"#;
    let (start, head, end) = events_of(
        &post("content-type: application/json\r\nAuthorization: Bearer x\r\n", body),
        b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n\
          31\r\ndata: {\"message\":{\"model\":\"answered\",\"usage\":{\"in\r\n\
          19\r\nput_tokens\":25,\"x\":0}}}\n\n\r\n\
          2c;x=y\r\ndata: {\"usage\":{\"output_tokens\":15}}\n\ndata:1\r\n3\r\n2\n\n\r\n0\r\nx: y\r\n\r\n",
    );
    assert_eq!(start["id"], 1);
    assert_eq!(start["connection"], 1);
    let client = start["client"].as_str().unwrap_or_default();
    assert!(client.starts_with("127.0.0.1:"), "{client}");
    assert_eq!(start["method"], "POST");
    assert_eq!(
        start["path"], "/v1/messages?beta=…",
        "the names of the query parameters, without values"
    );
    assert_eq!(start["version"], "1.1");
    let fields = json!([
        ["Host", "localhost"],
        ["content-type", "application/json"],
        ["Authorization", "…"],
        ["Content-Length", body.len().to_string()],
    ]);
    assert_eq!(start["fields"], fields, "in order, without secrets");
    assert_eq!(start["length"], body.len());

    assert_eq!(
        (&head["id"], &head["status"], &head["reason"]),
        (&json!(1), &json!(200), &json!("Fine"))
    );
    assert_eq!(head["fields"][1], json!(["Set-Cookie", "…"]));
    assert_eq!(head["length"], Value::Null);

    assert_eq!(end["id"], 1);
    assert_eq!(
        (&end["outcome"], &end["status"], &end["error"]),
        (&json!("complete"), &json!(200), &Value::Null)
    );
    assert_eq!(end["model"], "answered", "the response is more precise");
    assert_eq!(
        (&end["input_tokens"], &end["output_tokens"]),
        (&json!(25), &json!(15))
    );
    assert_eq!(end["events"], 3);
    assert_eq!(end["request_bytes"], body.len());
    assert_eq!(
        end["response_bytes"],
        0x31 + 0x19 + 0x2c + 3,
        "data, no framing"
    );
    let times = ["ttfb_ms", "first_event_ms", "last_event_ms", "duration_ms"];
    let times = times.map(|time| number(&end[time]));
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(end["ttfb_ms"], head["ttfb_ms"]);
    assert!(number(&start["at"]) <= number(&end["at"]));
}

#[test]
fn a_start_has_the_fields_that_the_target_gets_from_the_interceptor() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .args(["--instance-id", "me", "--header", "X-Team: blue"])
        .args(["--header", "Authorization: Bearer hunter2"])
        .start();
    let host = origin.url().replace("http://", "").replace("https://", "");
    let mut listener = Listener::of(&interceptor);
    for version in ["1.1", "1.0"] {
        let mut client = interceptor.client();
        client.send(format!(
            "GET / HTTP/{version}\r\nHost: localhost\r\nx-team: red\r\n\r\n"
        ));
        client.response("GET");
        let start = listener.wait_for("start");
        let expected = json!([
            ["Host", host],
            ["Via", format!("{version} ic")],
            ["x-memory-user-id", "me"],
            ["x-pycharm-instance", "me"],
            ["x-source", "pycharm-ai-chat"],
            ["X-Team", "blue"],
            ["Authorization", "…"],
        ]);
        assert_eq!(start["added"], expected, "HTTP/{version}");
        assert_eq!(start["fields"][1], json!(["x-team", "red"]));
    }
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
    assert_eq!(client.response("GET").status, 421);
    let start = listener.wait_for("start");
    assert_eq!(start["added"], Value::Null, "a refused request");
}

#[test]
fn bytes_of_a_peer_are_escaped_in_their_string() {
    let (start, head, end) = events_of(
        &post("x-!#$%&'*: \u{9b}31m\"\\\t</script>\u{202e}\r\n", "x"),
        b"HTTP/1.1 299 \xff\"\\\t<i>\r\nx: \x80\xff\"\r\nx-note: use sk-0123456789abcdef\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(
        start["fields"][1],
        json!(["x-!#$%&'*", "\u{9b}31m\"\\\t</script>\u{202e}"])
    );
    assert_eq!(head["reason"], "\u{fffd}\"\\\t<i>");
    assert_eq!(head["fields"][0], json!(["x", "\u{fffd}\u{fffd}\""]));
    assert_eq!(head["fields"][1], json!(["x-note", "use …"]));
    assert_eq!(end["outcome"], "complete");
}

#[test]
fn no_field_shows_a_secret() {
    const KEY: &str = "sk-proj-0123456789abcdef";
    let long = "0123456789abcdef";
    let rows = [
        (
            format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{KEY}"),
            "realtime, openai-insecure-api-key.…",
        ),
        (format!("X-Auth: {long}"), "…"),
        (format!("X-Auth-Credentials: {long}"), "…"),
        (format!("Authentication: Bearer {long}"), "…"),
        (format!("X-Forwarded-Authorization: Bearer {long}"), "…"),
        (
            format!("X-Note: bearer {long}, and more"),
            "bearer …, and more",
        ),
        (format!("X-Note: Basic {long}=="), "Basic …"),
        (
            format!("Referer: http://localhost/a?b={long}&c#d"),
            "http://localhost/a?b=…&c#d",
        ),
        (format!("X-Original-URL: /a?token={long}"), "/a?token=…"),
        ("User-Agent: what is it? a=b".to_owned(), "what is it? a=b"),
    ];
    let fields: String = rows.iter().map(|(line, _)| format!("{line}\r\n")).collect();
    let (start, head, _) = events_of(
        &post(&fields, "x"),
        b"HTTP/1.1 302 Found\r\nLocation: https://a.example/cb?code=0123456789abcdef\r\nContent-Length: 0\r\n\r\n",
    );
    for (index, (line, expected)) in rows.iter().enumerate() {
        assert_eq!(start["fields"][index + 1][1], *expected, "{line}");
    }
    assert_eq!(head["fields"][0][1], "https://a.example/cb?code=…");
}

#[test]
fn a_long_response_has_progress_events() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let mut client = interceptor.client();
    client.send(post("", "four"));
    let mut served = origin.accept();
    served.request();
    served.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let (_, framing) = client.response_head("POST");
    let mut body = Body::new(framing);
    let began = std::time::Instant::now();
    let mut events = 0;
    while began.elapsed().as_millis() < 600 {
        served.send("a\r\ndata: abc\n\r\n1\r\n\n\r\n");
        client.expect_some(&mut body, "data: abc\n\n");
        events += 1;
    }
    served.send("0\r\n\r\n");
    let mut progress = Vec::new();
    let end = loop {
        let line = listener.try_next().expect("there is an end");
        match line["event"].as_str() {
            Some("progress") => progress.push(line),
            Some("end") => break line,
            _ => {}
        }
    };
    let most = end["duration_ms"].as_f64().unwrap_or_default() / 250.0;
    assert!(
        !progress.is_empty() && progress.len() as f64 <= most,
        "{progress:?}"
    );
    for line in &progress {
        assert_eq!(
            (&line["id"], &line["request_bytes"]),
            (&json!(1), &json!(4))
        );
        let events = line["events"].as_u64().expect("a number");
        let bytes = line["response_bytes"].as_u64().expect("a number");
        assert!((11 * events..11 * events + 11).contains(&bytes), "{line}");
    }
    assert_eq!(end["events"], events);
}

#[test]
fn requests_have_the_number_of_their_connection() {
    let (_origin, interceptor) = agreeing();
    let mut listener = Listener::of(&interceptor);
    let (mut one, mut other) = (interceptor.client(), interceptor.client());
    for client in [&mut one, &mut other] {
        client.send(GET);
        client.response("GET");
    }
    one.send(GET.repeat(2));
    for _ in 0..2 {
        one.response("GET");
    }
    let starts = [(); 4].map(|()| listener.wait_for("start"));
    assert_eq!(
        starts.each_ref().map(|start| start["id"].as_u64()),
        [1, 2, 3, 4].map(Some)
    );
    assert_eq!(
        starts.each_ref().map(|start| start["connection"].as_u64()),
        [1, 2, 1, 1].map(Some)
    );
}

#[test]
fn every_listener_gets_the_exchanges_of_all_clients() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin).start();
    let mut listeners = [Listener::of(&interceptor), Listener::of(&interceptor)];
    let mut clients: Vec<Conn> = (0..6).map(|_| interceptor.client()).collect();
    for client in &mut clients {
        client.send(GET);
        client.response("GET");
    }
    for listener in &mut listeners {
        let mut ids: Vec<Option<u64>> = (0..6)
            .map(|_| listener.wait_for("end")["id"].as_u64())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6].map(Some));
    }
}

#[test]
fn requests_for_the_pages_of_the_interceptor_have_no_events() {
    let (_origin, interceptor) = agreeing();
    let mut listener = Listener::of(&interceptor);
    interceptor.health();
    let mut client = interceptor.client();
    client.send(GET);
    client.response("GET");
    assert_eq!(listener.expect("start")["path"], "/");
}

/// How an exchange goes, and its expected outcome, status and error.
type Ending = (
    &'static str,
    fn(&Origin, &Interceptor),
    (&'static str, Option<u16>, Option<&'static str>),
);

const ENDINGS: &[Ending] = &[
    (
        "with its last byte",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send(OK);
            client.response("GET");
        },
        ("complete", Some(200), None),
    ),
    (
        "the client disconnects before the response",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            client.close();
            served.expect_end();
        },
        ("client_gone", None, None),
    ),
    (
        "the client disconnects within the response",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
            client.response_head("GET");
            client.reset();
            served.expect_end();
        },
        ("client_gone", Some(200), None),
    ),
    (
        "the target closes within its response",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
            served.close();
            client.drain();
        },
        ("origin_cut", Some(200), Some("bad_response")),
    ),
    (
        "the target closes without a response",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.close();
            assert_eq!(client.response("GET").status, 502);
        },
        ("error", Some(502), Some("target_closed")),
    ),
    (
        "the target's response is not HTTP",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send("SSH-2.0-x\r\n");
            assert_eq!(client.response("GET").status, 502);
        },
        ("error", Some(502), Some("bad_response")),
    ),
    (
        "a head that is not served",
        |_, interceptor| {
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
            assert_eq!(client.response("GET").status, 421);
        },
        ("refused", Some(421), Some("host_not_allowed")),
    ),
    (
        "a head that cannot be read",
        |_, interceptor| {
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n");
            assert_eq!(client.response("GET").status, 400);
        },
        ("refused", Some(400), Some("bad_field_name")),
    ),
    (
        "a body that is malformed",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut served = origin.accept();
            served.request_head();
            client.send("x\r\n");
            assert_eq!(client.response("POST").status, 400);
        },
        ("refused", Some(400), Some("bad_chunk_size")),
    ),
    (
        "as a tunnel",
        |origin, interceptor| {
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            let mut served = origin.accept();
            served.request();
            served.send("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nab");
            client.response_head("GET");
            client.expect("ab");
            client.send("abc");
            served.expect("abc");
            client.finish_writing();
            served.expect_eof();
            served.close();
            client.expect_eof();
        },
        ("tunnel", Some(101), None),
    ),
];

#[test]
fn every_exchange_ends_with_its_outcome() {
    for &(why, play, (outcome, status, error)) in ENDINGS {
        let (origin, interceptor) = scripted();
        let mut listener = Listener::of(&interceptor);
        play(&origin, &interceptor);
        let start = listener.expect("start");
        let end = listener.wait_for("end");
        assert_eq!(start["id"], end["id"], "{why}");
        assert_eq!(end["outcome"], outcome, "{why}: {end}");
        assert_eq!(end["status"], json!(status), "{why}: {end}");
        assert_eq!(end["error"], json!(error), "{why}: {end}");
        number(&end["duration_ms"]);
        if outcome == "tunnel" {
            assert_eq!(
                (&end["request_bytes"], &end["response_bytes"]),
                (&json!(3), &json!(2))
            );
        }
        if why == "a head that cannot be read" {
            assert_eq!(
                (&start["method"], &start["path"]),
                (&Value::Null, &Value::Null)
            );
        }
    }
    count("feed: ends of exchanges", ENDINGS.len());
}

/// What a client does after the start of its response, and the expected outcome and error.
type Misdeed = (
    &'static str,
    fn(&mut Conn, &mut Conn),
    (&'static str, Option<&'static str>),
);

const CLIENT_FAILURES: &[Misdeed] = &[
    (
        "it stalls within its body",
        |client, served| {
            // The target sends until its connection is closed.
            while served.offer("5\r\nhello\r\n") {
                drop(client.try_fill());
            }
        },
        ("refused", Some("body_timeout")),
    ),
    (
        "it sends a malformed chunk",
        |client, _| {
            client.send("x\r\n");
            client.drain();
        },
        ("refused", Some("bad_chunk_size")),
    ),
    (
        "it stops reading",
        |client, served| {
            let mut writer = client.twin();
            std::thread::scope(|scope| {
                scope.spawn(move || while writer.offer("5\r\nhello\r\n".repeat(99)) {});
                while served.offer(format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(256)) {}
                client.stream().shutdown(std::net::Shutdown::Both).ok();
            });
        },
        ("client_gone", None),
    ),
];

#[test]
fn a_failure_of_the_client_within_the_response_is_not_reported_for_the_target() {
    for &(why, play, (outcome, error)) in CLIENT_FAILURES {
        let origin = Origin::listen();
        let interceptor = Launch::before(&origin)
            .args(["--body-timeout", "0.5"])
            .start();
        let mut listener = Listener::of(&interceptor);
        let mut client = interceptor.client();
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut served = origin.accept();
        served.request_head();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.response_head("POST");
        play(&mut client, &mut served);
        let end = listener.wait_for("end");
        assert_eq!(end["outcome"], outcome, "{why}: {end}");
        assert_eq!(end["error"], json!(error), "{why}: {end}");
        assert_eq!(end["status"], 200, "{why}: {end}");
    }
}

#[test]
fn large_bodies_pass_unchanged_while_they_are_observed() {
    let origin = Origin::answering(|request, _| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            request.body.len()
        );
        Reply::Bytes([head.as_bytes(), &request.body].concat())
    });
    let interceptor = Interceptor::before(&origin);
    let mut listener = Listener::of(&interceptor);
    let filling: String = (0..400_000).map(|number| format!("{number},")).collect();
    let body =
        format!("{{\"input\":[{filling}0],\"model\":\"m\",\"usage\":{{\"input_tokens\":7}}}}");
    for (records, kind) in [
        (false, "application/json"),
        (false, "text/plain"),
        (true, "application/json"),
    ] {
        if records {
            listener.record(true);
        }
        let mut client = interceptor.client();
        client.send(post(&format!("Content-Type: {kind}\r\n"), &body));
        let response = client.response("POST");
        assert!(response.body == body.as_bytes(), "byte for byte");
        let mut lines = Vec::new();
        while lines
            .last()
            .is_none_or(|line: &Value| line["event"] != "end")
        {
            lines.push(listener.next());
        }
        let end = lines.pop().expect("the end");
        assert_eq!(end["request_bytes"], body.len());
        assert_eq!(end["response_bytes"], body.len());
        assert_eq!(
            (&end["model"], &end["input_tokens"]),
            (&json!("m"), &json!(7))
        );
        lines.retain(|line| line["event"] == "body");
        let sides: Vec<&Value> = lines.iter().map(|line| &line["side"]).collect();
        assert_eq!(
            sides,
            if records {
                vec!["request", "response"]
            } else {
                vec![]
            }
        );
        for kept in lines {
            assert_eq!(
                (&kept["truncated"], &kept["total"]),
                (&json!(true), &json!(body.len()))
            );
            let data = kept["data"].as_str().unwrap_or_default();
            assert!(
                data.len() == 1 << 20 && body.starts_with(data),
                "the first MiB of it"
            );
        }
    }
}

#[test]
fn recorded_bodies_are_sent_to_present_and_later_listeners() {
    let origin = Origin::answering(|request, _| {
        let body: &[u8] = if request.target == "/bytes" {
            b"\xff\0"
        } else {
            b"{\"key\":\"sk-0123456789abcdef\",\"password\":\"x\"}"
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        Reply::Bytes([head.as_bytes(), body].concat())
    });
    let interceptor = Interceptor::before(&origin);
    let mut listener = Listener::of(&interceptor);
    let mut client = interceptor.client();
    let mut ask = |request: &str| {
        client.send(request);
        client.response("GET");
    };
    ask(&post("", "before"));
    listener.wait_for("end");
    listener.say("{\"record\":true}\n{\"record\":true}\nand nothing else\n");
    assert_eq!(
        listener.expect("recording"),
        json!({"event":"recording","on":true})
    );
    ask(&post("", "é sk-0123456789abcdef"));
    ask("GET /bytes HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut lines: Vec<Value> = Vec::new();
    while lines.iter().filter(|line| line["event"] == "end").count() < 2 {
        lines.push(listener.next());
    }
    let events: Vec<&Value> = lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(
        events,
        [
            "start", "body", "head", "body", "end", "start", "head", "body", "end"
        ]
    );
    let bodies: Vec<Value> = lines
        .iter()
        .filter(|line| line["event"] == "body")
        .cloned()
        .collect();
    let body = |id: u64, side, encoding, data, total: u64| json!({"event":"body","id":id,"side":side,"encoding":encoding,"data":data,"truncated":false,"total":total});
    assert_eq!(
        bodies,
        [
            body(2, "request", "utf8", "é …", 22),
            body(2, "response", "utf8", r#"{"key":"…","password":"…"}"#, 44),
            body(3, "response", "base64", "/wA=", 2),
        ]
    );

    drop(listener);
    let (mut later, hello) = Listener::greeted(&interceptor);
    assert_eq!(hello["recording"], true);
    let again: Vec<Value> = lines.iter().map(|_| later.next()).collect();
    assert_eq!(again, lines, "the same lines again");
    later.record(false);
    drop(later);
    let (mut last, hello) = Listener::greeted(&interceptor);
    assert_eq!(hello["recording"], false);
    ask(GET);
    assert_eq!(last.expect("start")["id"], 4, "the recording is discarded");
}

/// A response in each framing, the HTTP version of the client, and whether the end of its body is missing.
#[rustfmt::skip] // A table.
const RECORDED_RESPONSES: &[(&str, &str, &str, bool)] = &[
    ("a length", "1.1", "Content-Length: 5\r\n\r\nhello", false),
    ("a cut length", "1.1", "Content-Length: 9\r\n\r\nhello", true),
    ("until close", "1.1", "\r\nhello", false),
    ("until close, to HTTP/1.0", "1.0", "\r\nhello", false),
    ("chunks", "1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
    ("chunks, to HTTP/1.0", "1.0", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
    ("cut chunks", "1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true),
    ("a trailer", "1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: 1\r\nb: 2\r\n\r\n", false),
    ("a trailer, to HTTP/1.0", "1.0", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: 1\r\n\r\n", false),
    ("a trailer and more", "1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: 1\r\n\r\nHTTP/1.1 200", false),
    ("a cut trailer", "1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: 1\r\n", true),
];

#[test]
fn a_recorded_response_is_complete_in_every_framing() {
    for (why, version, answer, is_truncated) in RECORDED_RESPONSES {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
        for size in [1, answer.len()] {
            let (origin, interceptor) = scripted();
            let mut listener = Listener::of(&interceptor);
            listener.record(true);
            let mut client = interceptor.client();
            client.send(format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n"));
            let mut served = origin.accept();
            served.request();
            served.offer_in_pieces(&answer, size);
            served.close();
            let body = listener.wait_for("body");
            let found = (&body["side"], &body["data"], &body["truncated"]);
            let expected = (&json!("response"), &json!("hello"), &json!(is_truncated));
            assert_eq!(found, expected, "{why}, {size} bytes at a time");
        }
    }
}

#[test]
#[rustfmt::skip] // A table.
fn a_recorded_request_is_complete_in_every_framing() {
    let rows = [
        ("a length", "Content-Length: 5\r\n\r\nhello"),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("a trailer", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: 1\r\nb: 2\r\n\r\n"),
        ("another behind it", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: 1\r\n\r\nGET / HTTP"),
    ];
    let (_origin, interceptor) = agreeing();
    let mut listener = Listener::of(&interceptor);
    listener.record(true);
    for (why, rest) in rows {
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{rest}");
        for size in [1, request.len()] {
            let mut client = interceptor.client();
            client.offer_in_pieces(&request, size);
            client.response("POST");
            let body = listener.wait_for("body");
            let found = (&body["side"], &body["data"], &body["truncated"]);
            let expected = (&json!("request"), &json!("hello"), &json!(false));
            assert_eq!(found, expected, "{why}, {size} bytes at a time");
            listener.wait_for("end");
        }
    }
}

#[test]
fn a_recording_has_no_secrets() {
    let multipart =
        "--x\r\nContent-Disposition: form-data; name=\"api_key\"\r\n\r\nhunter2\r\n--x--";
    let rows = [
        (
            "",
            r#"{"headers":{"Authorization":"Bearer hunter2"}}"#,
            Some(r#"{"headers":{"Authorization":"…"}}"#),
        ),
        (
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "client_secret=hunter2&a=b",
            Some("client_secret=…&a=b"),
        ),
        (
            "Content-Type: multipart/form-data; boundary=x\r\n",
            multipart,
            Some(&*multipart.replace("hunter2", "…")),
        ),
        (
            "",
            "see https://me:hunter2@a.example/",
            Some("see https://…@a.example/"),
        ),
        ("Content-Encoding: identity\r\n", "hunter", Some("hunter")),
        ("Content-Encoding: gzip\r\n", "hunter2", None),
        ("Content-Encoding: identity, br\r\n", "hunter2", None),
        (
            "Content-Encoding: identity\r\nContent-Encoding: zstd\r\n",
            "hunter2",
            None,
        ),
    ];
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    listener.record(true);
    let mut client = interceptor.client();
    for (fields, body, expected) in rows {
        client.send(post(fields, body));
        let mut served = origin.accept();
        served.request();
        let len = body.len();
        let head = "HTTP/1.1 200 use sk-0123456789abcdef\r\nConnection: close\r\n";
        served.send(format!("{head}{fields}Content-Length: {len}\r\n\r\n{body}"));
        client.response("POST");
        assert_eq!(listener.wait_for("head")["reason"], "use …");
        // The body of the request comes before that head or behind it.
        let response = loop {
            let line = listener.next();
            if line["event"] == "body" && line["side"] == "response" {
                break line;
            }
        };
        let (encoding, data) = expected.map_or(("omitted", ""), |data| ("utf8", data));
        assert_eq!(
            (&response["encoding"], &response["data"]),
            (&json!(encoding), &json!(data)),
            "{fields}{body}"
        );
        assert_eq!(response["truncated"], expected.is_none());
        assert_eq!(response["total"], len);
        assert_eq!(listener.wait_for("end")["outcome"], "complete");
    }
}

#[test]
fn neither_the_log_nor_the_model_has_a_key() {
    const KEY: &str = "sk-proj-0123456789abcdef";
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin).env("RUST_LOG", "trace").start();
    let mut listener = Listener::of(&interceptor);
    let body = format!("{{\"model\":\"{KEY}\"}}");
    let fields = format!("Content-Type: application/json\r\n{KEY}: a\r\n");
    let mut client = interceptor.client();
    client
        .send(post(&fields, &body).replace("/v1/messages?", &format!("/v1/{KEY}/messages?{KEY}&")));
    client.response("POST");
    let start = listener.expect("start");
    assert_eq!(start["path"], "/v1/…/messages?…&beta=…");
    assert_eq!(start["fields"][2][0], "…");
    assert_eq!(listener.wait_for("end")["model"], "…");
    drop(origin);
    let mut client = interceptor.client();
    client.send(format!("GET /v1/{KEY} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(client.response("GET").status, 502);
    let said = interceptor.wait_for_errors("the refusal", |said| said.contains("WARN"));
    assert!(said.contains("GET /v1/…") && !said.contains(KEY), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_client_sends_takes_time_in_proportion_to_its_length() {
    let (_origin, interceptor) = agreeing();
    let mut listener = Listener::of(&interceptor);
    listener.record(true);
    let pieces = [
        " ",
        "a ",
        "a-",
        "sk-",
        "pa-",
        "a,",
        ",",
        "Basic ",
        "token ",
        "a=",
        "token=",
        "token: ",
        "://a@",
        "]=",
        "\"token\":[",
        "\"token\":",
        "\\\"",
        "-----BEGIN PRIVATE KEY-----",
        "form-data; name=token\t",
        "&=",
        "/?",
        "close,",
        "http://localhost ",
        "1.1 ic,",
    ];
    let names = [
        "X-Note",
        "Location",
        "Connection",
        "Origin",
        "Via",
        "TE",
        "Keep-Alive",
        "Sec-WebSocket-Protocol",
        "Content-Type",
        "Content-Encoding",
    ];
    for piece in pieces {
        let before = cpu_ticks(&interceptor);
        let field = piece.repeat(60_000 / piece.len());
        for name in names {
            let mut client = interceptor.client();
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\n{name}: {field}\r\nConnection: close\r\n\r\n"
            ));
            client.response("GET");
        }
        let mut client = interceptor.client();
        let body = piece.repeat(100_000 / piece.len());
        client.send(post("Connection: close\r\n", &body));
        client.response("POST");
        while listener.next()["event"] != "body" {}
        // The heads and the body take up to 0.5 s in a debug build; one head would take 4 s if the time were quadratic.
        let ticks = cpu_ticks(&interceptor) - before;
        assert!(ticks < 200, "{piece:?}: {ticks} hundredths of a second");
    }
}

/// Returns the CPU time of a process in hundredths of a second (proc_pid_stat(5), utime).
#[cfg(target_os = "linux")]
#[track_caller]
fn cpu_ticks(interceptor: &Interceptor) -> u64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", interceptor.pid())).expect("it runs");
    let (_, behind_name) = stat.rsplit_once(')').expect("a name");
    let utime = behind_name.split_whitespace().nth(11);
    utime
        .and_then(|utime| utime.parse().ok())
        .expect("a number")
}

#[test]
fn a_body_that_passes_while_recording_is_off_is_not_kept() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    listener.record(true);
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc");
    let mut served = origin.accept();
    let (_, framing) = served.request_head();
    let mut body = Body::new(framing);
    served.expect_some(&mut body, "abc");
    listener.expect("start");
    listener.record(false);
    client.send("def");
    served.expect_some(&mut body, "def");
    listener.record(true);
    client.send("ghi");
    served.expect_some(&mut body, "ghi");
    served.send(OK);
    client.response("POST");
    listener.expect("head");
    assert_eq!(listener.expect("body")["side"], "response", "and no other");
    listener.expect("end");
}

#[test]
fn a_listener_that_connects_during_an_exchange_gets_its_end() {
    let (origin, interceptor) = scripted();
    let mut first = Listener::of(&interceptor);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    first.expect("start");
    drop(first);
    let size = 3 << 20;
    served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
    client.response_head("GET");
    let mut second = Listener::of(&interceptor);
    second.record(true);
    std::thread::scope(|scope| {
        scope.spawn(|| served.send("x".repeat(size)));
        client.expect("x".repeat(size));
    });
    let end = second.wait_for("end");
    assert_eq!(
        (&end["id"], &end["outcome"]),
        (&json!(1), &json!("complete"))
    );
    assert_eq!(end["response_bytes"], size);
}

#[test]
fn a_listener_that_does_not_read_loses_lines_and_delays_no_exchange() {
    let (_origin, interceptor) = agreeing();
    let mut slow = Listener::of(&interceptor);
    let mut client = interceptor.client();
    let field = "x".repeat(2000);
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {field}\r\n\r\n");
    let exchanges = 1000;
    for _ in 0..exchanges {
        client.send(&request);
        client.response("GET");
    }
    let (mut lines, mut lost) = (0, 0);
    // Progress events may come as well.
    while lines + lost < 3 * exchanges {
        let line = slow.next();
        match line["count"].as_u64() {
            Some(count) => lost += count,
            None => lines += 1,
        }
    }
    assert!(lost > 0, "more than the socket and the queue can hold");
    client.send(GET);
    client.response("GET");
    while slow.wait_for("start")["id"] != exchanges + 1 {}
}

#[test]
fn there_are_at_most_eight_listeners_and_one_that_leaves_makes_room() {
    let (_origin, interceptor) = agreeing();
    let mut listeners: Vec<Listener> = (0..8).map(|_| Listener::of(&interceptor)).collect();
    let (mut ninth, _) = Listener::greeted(&interceptor);
    assert_eq!(ninth.expect("full")["listeners"], 8);
    ninth.expect_end();

    listeners.pop();
    // One sends a line that is too long and is disconnected.
    listeners[0].say("x".repeat(5000));
    while listeners[0].try_next().is_some() {}
    let mut later: Vec<Listener> = Vec::new();
    while later.len() < 2 {
        let (mut listener, _) = Listener::greeted(&interceptor);
        let mut client = interceptor.client();
        client.send(GET);
        client.response("GET");
        // There is room when the interceptor has noticed the end of the others.
        if listener.next()["event"] == "start" {
            later.push(listener);
        }
    }
    for listener in &mut listeners[1..] {
        assert_eq!(listener.expect("start")["event"], "start");
    }
}

#[test]
fn the_feed_ends_with_bye_and_its_socket_is_removed() {
    let (origin, mut interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    interceptor.terminate();
    interceptor.wait_for_errors("its stopping", |said| said.contains("stopping"));
    served.send(OK);
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
    assert_eq!(listener.wait_for("end")["outcome"], "complete");
    listener.expect("bye");
    listener.expect_end();
    assert!(!interceptor.feed().exists());
}

#[test]
fn exchanges_cut_at_shutdown_end_before_bye() {
    let origin = Origin::listen();
    let mut interceptor = Launch::before(&origin).args(["--grace", "0.2"]).start();
    let mut listener = Listener::of(&interceptor);
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        peers.push((client, served));
    }
    for _ in 0..2 {
        listener.expect("start");
    }
    interceptor.terminate();
    for _ in 0..2 {
        let end = listener.expect("end");
        assert_eq!(
            (&end["outcome"], &end["error"]),
            (&json!("error"), &json!("interrupted")),
            "{end}"
        );
    }
    listener.expect("bye");
    listener.expect_end();
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
}

#[test]
fn only_the_user_of_the_interceptor_may_connect_to_the_feed() {
    let (_origin, interceptor) = agreeing();
    let feed = interceptor.feed();
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).expect("the socket exists");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&feed), 0o600);
    assert_eq!(mode(feed.parent().expect("a folder")), 0o700);
}

#[test]
fn without_a_socket_for_the_feed_requests_are_served() {
    let open = scratch_folder();
    let taken = scratch_folder();
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .expect("this user owns it");
    };
    std::fs::create_dir(open.join("ic")).expect("a folder");
    set(&open.join("ic"), 0o755);
    std::fs::write(taken.join("ic"), "").expect("a file");
    let long = scratch_folder().join("x".repeat(100));
    std::fs::create_dir(&long).expect("a folder");
    for (why, runtime, stays) in [
        ("a folder that others may enter", &open, Some("ic")),
        ("a file in its place", &taken, Some("ic")),
        ("a name that is too long for a socket", &long, None),
    ] {
        let origin = Origin::agreeing();
        let interceptor = Launch::before(&origin)
            .env("XDG_RUNTIME_DIR", runtime.to_str().expect("UTF-8"))
            .env("RUST_LOG", "debug")
            .start();
        let mut client = interceptor.client();
        client.send(GET);
        assert_eq!(client.response("GET").status, 200, "{why}");
        let said = interceptor.wait_for_errors("the warning about the feed", |said| {
            said.contains("there is no live feed")
        });
        assert_eq!(
            said.matches("there is no live feed").count(),
            1,
            "{why}: {said}"
        );
        assert!(!said.contains("WARN"), "{why}: {said}");
        let socket = runtime.join(format!("ic/{}.sock", interceptor.pid()));
        assert!(UnixStream::connect(socket).is_err(), "{why}");
        assert!(!interceptor.feed().exists(), "{why}: not elsewhere either");
        drop(interceptor);
        if let Some(name) = stays {
            assert!(runtime.join(name).exists(), "{why}");
        }
        std::fs::remove_dir_all(runtime).expect("this user owns it");
    }
}

#[test]
fn a_runtime_folder_is_used_if_it_belongs_to_the_user() {
    let runtime = scratch_folder();
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .env("XDG_RUNTIME_DIR", runtime.to_str().expect("UTF-8"))
        .start();
    let socket = runtime.join(format!("ic/{}.sock", interceptor.pid()));
    assert_eq!(Listener::at(&socket).next()["pid"], interceptor.pid());
    drop(interceptor);
    // Any other value is treated as unset.
    for other in ["relative", "/nowhere", "/etc/hostname"] {
        let interceptor = Launch::before(&origin)
            .env("XDG_RUNTIME_DIR", other)
            .start();
        assert!(interceptor.feed().exists(), "{other}");
    }
    std::fs::remove_dir_all(runtime).expect("this user owns it");
}
