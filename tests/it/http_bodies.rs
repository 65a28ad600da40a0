//! Message framing: bodies in every framing, in both directions, and responses without a body. Malformed framing is tested
//! in `http_refused_framing`, `http_refused_bodies` and `http_bad_responses`.

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn request_bodies_are_forwarded_unchanged() {
    let tiny = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(3000));
    let rows: [(&str, &str, &str, &str); 18] = [
        ("Content-Length: 5\r\n", "hello", "hello", "by length"),
        ("Content-Length: 0\r\n", "", "", "length 0"),
        (
            "Content-Length: 00005\r\n",
            "hello",
            "hello",
            "leading zeros are digits (RFC 9110 §8.6)",
        ),
        (
            "content-length:5\t \r\n",
            "hello",
            "hello",
            "white space around the value (RFC 9112 §5.1)",
        ),
        ("", "", "", "none"),
        (
            "Transfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
            "",
            "no chunks",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "hello",
            "one chunk",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
            "hello",
            "two",
        ),
        (
            "transfer-encoding:\tChunKed \r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "hello",
            "codings are case-insensitive (RFC 9112 §7)",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "0005\r\nhello\r\n000\r\n\r\n",
            "hello",
            "leading zeros in a size (RFC 9112 §7.1)",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "a\r\nhellohello\r\nA\r\nhellohello\r\n0\r\n\r\n",
            "hellohellohellohello",
            "either case in a size",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "0000000000000005\r\nhello\r\n0\r\n\r\n",
            "hello",
            "sixteen digits",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "5;a\r\nhello\r\n0;b=c\r\n\r\n",
            "hello",
            "extensions are skipped (RFC 9112 §7.1.1)",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "5;a=\"b;c\\\"d\";e=f\r\nhello\r\n0\r\n\r\n",
            "hello",
            "quoted extensions are skipped",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n",
            "hello",
            "white space within quotes is part of the value",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "9\r\n0\r\n\r\nGET \r\n0\r\n\r\n",
            "0\r\n\r\nGET ",
            "data that looks like framing",
        ),
        (
            "Content-Length: 27\r\n",
            "GET /no HTTP/1.1\r\nHost: x\r\n",
            "GET /no HTTP/1.1\r\nHost: x\r\n",
            "data that looks like a request",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            &tiny,
            &"x".repeat(3000),
            "many tiny chunks",
        ),
    ];
    let stage = Stage::new();
    for (lines, body, expected, why) in rows {
        for method in ["POST", "GET", "DELETE"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}");
            for pieces in [usize::MAX, 1] {
                stage.origin.forget();
                let mut client = stage.interceptor.client();
                assert!(client.offer_in_pieces(&request, pieces), "{why}");
                assert_eq!(client.response(method).status, 200, "{why}");
                // The next request on the connection is understood, so the end of the body was found.
                client.send("GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!(client.response("GET").status, 200, "{why}");
                let seen = stage.origin.requests();
                assert_eq!(seen.len(), 2, "{why}: {seen:?}");
                assert_eq!(
                    (latin1(&seen[0].body).as_str(), seen[1].target.as_str()),
                    (expected, "/after"),
                    "{method} in pieces of {pieces}: {why}"
                );
            }
        }
    }
    count("framing: request bodies", 6 * rows.len());
}

#[test]
fn content_length_0_on_a_get_is_kept() {
    let stage = Stage::new();
    let seen = stage.forwarded("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        seen.fields.one("content-length"),
        Some("0"),
        "Java's HttpClient sends it"
    );
    assert!(
        !stage.forwarded(GET).fields.has("content-length"),
        "a missing length is not added"
    );
}

#[test]
fn the_framing_of_a_request_body_is_kept() {
    let stage = Stage::new();
    let seen =
        stage.forwarded("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(seen.framing, Framing::Length(3));
    let seen = stage.forwarded("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(seen.framing, Framing::Chunked, "chunked stays chunked");
}

#[test]
fn equal_lengths_are_refused_or_merged() {
    // RFC 9110 §8.6 allows both, and refuses differing ones.
    let stage = Stage::new();
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 5",
        "Content-Length: 5\r\nContent-Length: 05",
    ] {
        stage.origin.forget();
        let mut client = stage.interceptor.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\nhello"
        ));
        let response = client.response("POST");
        // The parser of the origin accepts only one length.
        let bodies: Vec<String> = stage
            .origin
            .requests()
            .iter()
            .map(|request| latin1(&request.body))
            .collect();
        if response.status == 200 {
            assert_eq!(bodies, ["hello"]);
        } else {
            check_own_error(&response, &[400]);
            assert!(bodies.is_empty());
        }
    }
}

#[test]
fn response_bodies_are_forwarded_unchanged() {
    let tiny = format!(
        "Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        "1\r\nx\r\n".repeat(3000)
    );
    let rows: [(&str, &str, &str); 10] = [
        ("Content-Length: 5\r\n\r\nhello", "hello", "by length"),
        ("Content-Length: 0\r\n\r\n", "", "length 0"),
        (
            "Content-Length: 0005\r\n\r\nhello",
            "hello",
            "leading zeros",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "",
            "no chunks",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            "one chunk",
        ),
        (
            "Transfer-Encoding: Chunked\r\n\r\n1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
            "hello",
            "two chunks, and the coding in another case",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n",
            "hello",
            "extensions",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n9\r\n0\r\n\r\nHTTP\r\n0\r\n\r\n",
            "0\r\n\r\nHTTP",
            "data that looks like framing",
        ),
        (
            "Content-Length: 17\r\n\r\nHTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n",
            "data that looks like a response",
        ),
        (&tiny, &"x".repeat(3000), "many tiny chunks"),
    ];
    for (rest, expected, why) in rows {
        for pieces in [usize::MAX, 1] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            assert!(
                served.offer_in_pieces(format!("HTTP/1.1 200 OK\r\n{rest}"), pieces),
                "{why}"
            );
            assert_eq!(client.response("GET").text(), expected, "{why}");
            // Both connections can be used again.
            client.send(GET);
            assert_eq!(served.request().method, "GET", "{why}");
            served.send(OK);
            assert_eq!(client.response("GET").text(), "ok", "{why}");
        }
    }
    count("framing: responses", 2 * rows.len());
}

#[test]
fn white_space_in_the_size_lines_of_a_response_passes() {
    let rows = [
        ("5 ;a\r\nhello\r\n0\r\n\r\n", "before a semicolon"),
        ("5;\ta\r\nhello\r\n0\r\n\r\n", "after it"),
        ("5;a = b ;c\r\nhello\r\n0\r\n\r\n", "around an equals sign"),
        ("5   \r\nhello\r\n0     \r\n\r\n", "padding after a size"),
        ("5\t\r\nhello\r\n0\r\n\r\n", "a tab after a size"),
        ("5;a=b \r\nhello\r\n0;c \r\n\r\n", "after an extension"),
    ];
    for (body, why) in rows {
        for pieces in [usize::MAX, 1] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let mut served = origin.accept();
            served.request();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            assert!(
                served.offer_in_pieces([head, body].concat(), pieces),
                "{why}"
            );
            let (received, stop) = client.drain();
            assert_eq!(stop, Stop::Closed, "{why}");
            assert!(latin1(&received).ends_with(body), "{why}: {received:?}");
        }
    }
    count("framing: white space in size lines", 2 * rows.len());
}

#[test]
fn white_space_before_a_colon_in_the_trailers_of_a_response_is_removed() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
    served.send("0\r\nX-Sum : 1\r\nContent-Length\t: 5\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.text(), "ok");
    assert_eq!(
        response.trailers.without(&[]),
        [("X-Sum", "1")],
        "RFC 9112 §5.1"
    );
}

#[test]
fn a_response_until_close_is_complete_and_ends_the_connection() {
    for body in ["", "until close", "0\r\n\r\n"] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send(format!("{version} 200 OK\r\nX: y\r\n\r\n{body}"));
            served.close();
            let response = client.response("GET");
            assert_eq!(
                (response.text().as_str(), response.fields.one("x")),
                (body, Some("y")),
                "RFC 9112 §6.3 (8), {version}"
            );
            if response.framing == Framing::UntilClose {
                continue;
            }
            // If re-framed as chunks, the client's connection may stay open.
            assert_eq!(response.framing, Framing::Chunked);
        }
    }
}

#[test]
fn the_response_of_an_http_1_0_origin_is_forwarded_as_http_1_1() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let response = client.response("GET");
    assert_eq!(
        (response.version.as_str(), response.text().as_str()),
        ("HTTP/1.1", "ok"),
        "RFC 9110 §2.5: a proxy's version is its own"
    );
    // HTTP/1.0 connections are not persistent by default (RFC 9112 §9.3): the connection is not used again.
    client.send(GET);
    let mut second = origin.accept();
    second.request();
    second.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
}

#[test]
fn an_http_1_0_response_in_chunks_is_decoded_and_its_connection_not_kept() {
    for connection in ["", "Connection: keep-alive\r\n"] {
        for client_version in ["1.1", "1.0"] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(format!(
                "GET / HTTP/{client_version}\r\nHost: localhost\r\n\r\n"
            ));
            let mut served = origin.accept();
            served.request();
            served.send(format!(
                "HTTP/1.0 200 OK\r\n{connection}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            ));
            let response = client.response("GET");
            assert_eq!(
                (response.version.as_str(), response.text().as_str()),
                ("HTTP/1.1", "hello"),
                "RFC 9112 §6.1, to {client_version}"
            );
            served.expect_end();
            // The next response does not come from what the origin may send behind it.
            let mut client = interceptor.client();
            client.send(GET);
            let mut second = origin.accept();
            second.request();
            second.send(OK);
            assert_eq!(client.response("GET").text(), "ok");
        }
    }
}

#[test]
fn responses_without_a_body_end_after_their_head() {
    let rows: [(&str, &str, Lines, &str); 8] = [
        (
            "HEAD",
            "200 OK\r\nContent-Length: 1000\r\n",
            &[("Content-Length", "1000")],
            "the length a GET would have (RFC 9110 §9.3.2)",
        ),
        (
            "HEAD",
            "200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n",
            &[("X", "y")],
            "chunked without chunks (RFC 9112 §6.1)",
        ),
        (
            "HEAD",
            "200 OK\r\nX: y\r\n",
            &[("X", "y")],
            "no length, but no wait for the close",
        ),
        (
            "HEAD",
            "404 No\r\nContent-Length: 5\r\n",
            &[("Content-Length", "5")],
            "an error",
        ),
        (
            "GET",
            "204 No Content\r\nX: y\r\n",
            &[("X", "y")],
            "RFC 9110 §15.3.5",
        ),
        (
            "GET",
            "304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n",
            &[("Content-Length", "1000"), ("ETag", "\"x\"")],
            "the length a 200 would have (RFC 9110 §8.6)",
        ),
        (
            "GET",
            "304 Not Modified\r\nTransfer-Encoding: chunked\r\nX: y\r\n",
            &[("X", "y")],
            "chunked without chunks",
        ),
        (
            "DELETE",
            "204 No Content\r\nX: y\r\n",
            &[("X", "y")],
            "to any method",
        ),
    ];
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    let mut connection = None;
    for (method, head, expected, why) in rows {
        client.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let served = connection.get_or_insert_with(|| origin.accept());
        assert_eq!(served.request().method, method);
        served.send(format!("HTTP/1.1 {head}\r\n"));
        let response = client.response(method);
        assert_eq!(
            response
                .fields
                .without(&["connection", "transfer-encoding"]),
            expected,
            "{why}"
        );
        // The next response on the same two connections proves that no bytes were taken as a body.
        client.send(GET);
        served.request();
        served.send(OK);
        assert_eq!(client.response("GET").text(), "ok", "{why}");
    }
    count("framing: responses without a body", rows.len());
}

#[test]
fn a_204_with_a_length_still_has_no_body() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        client.response("GET").status,
        204,
        "RFC 9110 §8.6 forbids it, but servers send it; framing: RFC 9112 §6.3 (1)"
    );
    client.send(GET);
    if let Some(mut next) = next_request(&origin, &mut served) {
        next.send(OK);
    } else {
        served.send(OK);
    }
    assert_eq!(client.response("GET").text(), "ok");
}

/// The next request, and its connection if that is a new one.
#[track_caller]
fn next_request(origin: &Origin, served: &mut Conn) -> Option<Conn> {
    if let Ok(request) = served.try_request() {
        assert!(!request.method.is_empty());
        return None;
    }
    let mut next = origin.accept();
    next.request();
    Some(next)
}

#[test]
fn trailers_are_forwarded_in_both_directions() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n");
    client.send(b"X-Sum: 1\r\nx-sum:2\t\r\nX-Obs: \xe9\r\n\r\n");
    let mut served = origin.accept();
    let seen = served.request();
    let sent = [("X-Sum", "1"), ("x-sum", "2"), ("X-Obs", "\u{e9}")];
    assert_eq!(
        seen.trailers.without(&[]),
        sent,
        "trailer fields are forwarded"
    );
    assert_eq!(seen.fields.one("trailer"), Some("X-Sum"));
    served.send("HTTP/1.1 200 OK\r\nTrailer: Grpc-Status\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\nServer-Timing: a;dur=1\r\n\r\n");
    let response = client.response("POST");
    assert_eq!(
        response.trailers.without(&[]),
        [("Grpc-Status", "0"), ("Server-Timing", "a;dur=1")]
    );
    // The connection that carried request trailers is not kept.
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
}

#[test]
fn framing_and_routing_fields_in_trailers_are_not_forwarded() {
    // RFC 9110 §6.5.1: a recipient that merges them could be attacked.
    let forbidden = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil.example",
        "Connection: X-Sum",
        "Trailer: x",
        "TE: trailers",
        "Upgrade: h2c",
        "Keep-Alive: timeout=5",
        "content-LENGTH: 0",
    ];
    for line in forbidden {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: 1\r\n{line}\r\nX-B: 2\r\n\r\n"));
        let mut served = origin.accept();
        // Both dropping the field and refusing the message are correct.
        if let Ok(seen) = served.try_request() {
            assert_eq!(
                seen.trailers.without(&[]),
                [("X-A", "1"), ("X-B", "2")],
                "{line}"
            );
            served.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 1\r\n{line}\r\nX-B: 2\r\n\r\n"));
            let response = client.response("POST");
            assert_eq!(
                (response.text().as_str(), response.trailers.without(&[])),
                ("ok", vec![("X-A", "1"), ("X-B", "2")]),
                "{line}"
            );
        } else {
            check_own_error(&client.response("POST"), &[400]);
        }
    }
    count(
        "framing: trailers that are not forwarded",
        2 * forbidden.len(),
    );
}

#[test]
fn trailers_named_by_connection_are_not_forwarded() {
    // RFC 9110 §7.6.1: "remove any header or trailer field(s) from the message with the same name".
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: x-hop, keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: 1\r\nX-Hop: 2\r\n\r\n");
    let mut served = origin.accept();
    let seen = served.request();
    assert_eq!(seen.trailers.without(&[]), [("X-A", "1")]);
    served.send("HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-hop: 1\r\nX-B: 2\r\n\r\n");
    let response = client.response("POST");
    assert_eq!(response.text(), "ok");
    assert_eq!(response.trailers.without(&[]), [("X-B", "2")]);
    // The options of one message do not apply to the next.
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Hop: 2\r\n\r\n");
    let seen = served
        .try_request()
        .unwrap_or_else(|_| origin.accept().request());
    assert_eq!(seen.trailers.without(&[]), [("X-Hop", "2")]);
}
