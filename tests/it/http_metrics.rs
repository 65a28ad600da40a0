//! The metrics of an interceptor: each request is counted once, with its outcome and its durations.

use std::collections::HashMap;

use crate::support::*;

/// The samples of `/_ic/metrics`, by name and labels.
#[track_caller]
fn metrics(interceptor: &Interceptor) -> HashMap<String, f64> {
    let mut client = interceptor.client();
    client.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.status, 200, "{response:?}");
    let text = response.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let value = value.parse().expect("a number");
            (name.to_owned(), value)
        })
        .collect()
}

/// Waits until a sample has this value.
#[track_caller]
fn wait_for(interceptor: &Interceptor, sample: &str, value: f64) -> HashMap<String, f64> {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        let found = metrics(interceptor);
        if found[sample] == value {
            return found;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{sample} is {} and not {value}",
            found[sample]
        );
    }
}

#[test]
fn each_request_is_counted_once_with_its_bytes_and_durations() {
    let stage = Stage::new();
    let requests = [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK", ""),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
            "201 Created",
            "made",
        ),
        (
            "GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "404 Not Found",
            "no",
        ),
        (
            "GET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "500 Oops",
            "oops",
        ),
    ];
    let mut forwarded = 0;
    for (request, status, body) in requests {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        let (seen, _, _) = stage.exchange(request, answer);
        forwarded += seen.body.len();
    }
    let found = wait_for(&stage.interceptor, "ic_request_duration_seconds_count", 4.0);
    for (sample, expected) in [
        ("ic_requests_total{class=\"2xx\"}", 2.0),
        ("ic_requests_total{class=\"4xx\"}", 1.0),
        ("ic_requests_total{class=\"5xx\"}", 1.0),
        ("ic_requests_total{class=\"gone\"}", 0.0),
        ("ic_requests_in_flight", 0.0),
        ("ic_time_to_first_byte_seconds_count", 4.0),
        ("ic_time_to_first_byte_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("ic_request_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
    ] {
        assert_eq!(found[sample], expected, "{sample}");
    }
    let connections = found["ic_target_connects_total"] + found["ic_target_reuses_total"];
    assert_eq!(connections, 4.0, "each used a new or a kept connection");
    assert!(
        found["ic_time_to_first_byte_seconds_sum"] <= found["ic_request_duration_seconds_sum"],
        "no phase begins after the end"
    );
    assert!(
        found["ic_request_bytes_total"] > forwarded as f64,
        "heads are included"
    );
    assert!(found["ic_response_bytes_total"] > 10.0);

    let health = stage.interceptor.health();
    assert_eq!(
        (&health["requests"], &health["errors"]),
        (&4.into(), &2.into())
    );
    assert_eq!(health["last_error"]["message"], "the target answered 500");
    assert!(health["last_error"]["seconds_ago"].is_u64(), "{health}");
}

#[test]
fn a_failure_is_the_same_in_the_feed_the_metrics_and_the_health() {
    let origin = Origin::answering(|request, _| {
        let bytes = |bytes: &str| bytes.as_bytes().to_vec();
        let half = "Content-Length: 9\r\n\r\nhalf";
        match request.target.as_str() {
            "/401" => Reply::Bytes(bytes("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")),
            "/503" => Reply::Bytes(bytes("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")),
            "/closes" => Reply::Close,
            "/breaks" => Reply::BytesThenClose(bytes(&format!("HTTP/1.1 200 OK\r\n{half}"))),
            "/stalls" => Reply::Bytes(bytes(&format!("HTTP/1.1 200 OK\r\n{half}"))),
            "/stalls-with-500" => Reply::Bytes(bytes(&format!("HTTP/1.1 500 No\r\n{half}"))),
            _ => Reply::Bytes(OK.to_vec()),
        }
    });
    let interceptor = Interceptor::before(&origin);
    let mut listener = Listener::of(&interceptor);
    let (mut failed, mut left) = (0, 0);
    for (target, is_failed, leaves) in [
        ("/", false, false),
        ("/401", true, false),
        ("/503", true, false),
        ("/closes", true, false),
        ("/breaks", true, false),
        ("/with space", true, false),
        ("/stalls", false, true),
        ("/stalls-with-500", true, true),
    ] {
        let mut client = interceptor.client();
        // One that asks to close may be waiting after its end of file, and a Unix socket has no reset.
        let connection = if leaves { "keep-alive" } else { "close" };
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
        ));
        if leaves {
            client.response_head("GET");
            client.expect("half");
            client.reset();
        } else {
            client.drain();
        }
        let end = listener.wait_for("end");
        let is_error = end["status"].as_u64().is_some_and(|status| status >= 400)
            || ["origin_cut", "error", "refused"].contains(&end["outcome"].as_str().expect("text"));
        assert_eq!(is_error, is_failed, "{target}: {end}");
        assert_eq!(end["outcome"] == "client_gone", leaves, "{target}: {end}");
        failed += u64::from(is_failed);
        left += u64::from(leaves);
        let health = interceptor.health();
        assert_eq!(health["errors"], failed, "{target}: {health}");
        assert_eq!(health["client_gone"], left, "{target}: {health}");
        assert_eq!(health["last_error"].is_null(), failed == 0, "{health}");
        let found = metrics(&interceptor);
        assert_eq!(found["ic_requests_failed_total"], failed as f64, "{target}");
        assert_eq!(
            found["ic_requests_client_gone_total"], left as f64,
            "{target}"
        );
        assert_eq!(
            found["ic_requests_total{class=\"gone\"}"], left as f64,
            "{target}"
        );
    }
}

/// Requests that the interceptor answers itself, with the status.
#[rustfmt::skip] // A table.
const OWN_RESPONSES: &[(&str, &str, u16)] = &[
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("a foreign Host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    ("a foreign Origin", "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", 403),
    ("no HTTP", "\x16\x03\x01\0\x05\x01\0\0\x01\0", 400),
    ("CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    ("a coding", "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ("a chunk that came with the head", "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ("half a head", "GET / HTTP/1.1\r\nHost: local", 408),
    ("a target that closes", "GET /close HTTP/1.1\r\nHost: localhost\r\n\r\n", 502),
];

#[test]
fn every_response_of_its_own_is_counted_once_with_its_reason() {
    let origin = Origin::answering(|request, _| match request.target.as_str() {
        "/close" => Reply::Close,
        _ => Reply::Bytes(OK.to_vec()),
    });
    let interceptor = Launch::before(&origin)
        // On a Unix socket every Host is accepted.
        .args(["--host", "localhost", "--head-timeout", "0.3"])
        .start();
    for (number, (why, request, status)) in (1..).zip(OWN_RESPONSES) {
        let mut client = interceptor.client();
        client.send(request);
        let response = client.response("GET");
        let code = check_own_error(&response, &[*status]);
        let found = metrics(&interceptor);
        let own = &format!("ic_own_responses_total{{reason=\"{code}\"}}");
        assert_eq!(found.get(own), Some(&1.0), "{why}: {own}: {found:?}");
        let classes = ["4xx", "5xx"].map(|class| format!("ic_requests_total{{class=\"{class}\"}}"));
        assert_eq!(
            found[&classes[0]] + found[&classes[1]],
            f64::from(number),
            "{why}"
        );
        assert_eq!(
            found["ic_request_duration_seconds_count"],
            f64::from(number),
            "{why}"
        );
    }
}

#[test]
fn a_response_at_the_connection_limit_is_counted_with_its_reason() {
    let origin = Origin::listen();
    let interceptor = Launch::before(&origin)
        .args(["--max-connections", "2"])
        .start();
    let before = metrics(&interceptor);
    // Each answer lets time pass in which the connection before it is no longer counted.
    let mut in_flight = [(); 2].map(|()| {
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        (client, served)
    });
    let mut other = interceptor.client();
    let response = other.response("GET");
    let code = check_own_error(&response, &[503]);
    for (client, served) in &mut in_flight {
        served.send(OK);
        assert_eq!(client.response("GET").text(), "ok");
        client.expect_end();
    }
    let found = metrics(&interceptor);
    assert_eq!(
        found[&format!("ic_own_responses_total{{reason=\"{code}\"}}")],
        1.0
    );
    assert_eq!(found["ic_requests_total{class=\"5xx\"}"], 1.0);
    assert_eq!(found["ic_requests_total{class=\"2xx\"}"], 2.0);
    let pages = "ic_own_responses_total{reason=\"metrics\"}";
    assert_eq!(
        found[pages],
        before[pages] + 1.0,
        "a page is one too, and no request"
    );
}

#[test]
fn a_target_that_is_down_is_one_error_for_each_request() {
    let interceptor = Launch::toward(format!("http://127.0.0.1:{}", free_port())).start();
    assert!(interceptor.health()["last_error"].is_null());
    for _ in 0..2 {
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response("GET").status, 502);
    }
    let found = metrics(&interceptor);
    assert_eq!(found["ic_requests_total{class=\"5xx\"}"], 2.0);
    assert_eq!(found["ic_request_duration_seconds_count"], 2.0);
    let health = interceptor.health();
    assert_eq!(
        (&health["requests"], &health["errors"]),
        (&2.into(), &2.into())
    );
    let message = health["last_error"]["message"].as_str().expect("text");
    assert!(message.contains("refuses connections"), "{message}");
}

#[test]
fn a_request_is_in_flight_until_its_client_disconnects() {
    let (origin, interceptor) = &scripted();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut served = origin.accept();
    served.request();
    assert_eq!(metrics(interceptor)["ic_requests_in_flight"], 1.0);
    client.reset();
    let found = wait_for(interceptor, "ic_requests_in_flight", 0.0);
    assert_eq!(found["ic_requests_total{class=\"gone\"}"], 1.0);
    assert_eq!(found["ic_time_to_first_byte_seconds_count"], 0.0);
    assert_eq!(found["ic_request_duration_seconds_count"], 1.0);
    // The interceptor's own pages are not requests.
    assert_eq!(interceptor.health()["requests"], 1);
}
