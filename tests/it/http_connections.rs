//! Connections of clients: HTTP/1.0, keep-alive, pipelining, and how they end. `http_pool` tests connections to the origin.

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_connection_of_an_http_1_0_client_is_closed_after_the_response() {
    let rows: [(&str, &str, &str, &str); 5] = [
        (
            "GET / HTTP/1.0\r\n\r\n",
            "Content-Length: 2\r\n\r\nok",
            "ok",
            "by length",
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\nX-T: y\r\n\r\n",
            "ok",
            "chunked framing is removed (RFC 9112 §6.1)",
        ),
        (
            "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
            "Content-Length: 2\r\n\r\nok",
            "ok",
            "with a body",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
            "Content-Length: 2\r\n\r\nok",
            "ok",
            "with Connection: close",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
            "a response of unknown length ends with the connection",
        ),
    ];
    for (request, answer, expected, why) in rows {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(request);
        let mut served = origin.accept();
        let seen = served.request();
        assert_eq!(
            seen.version, "HTTP/1.1",
            "a proxy's version is its own (RFC 9110 §2.5): {why}"
        );
        served.send(format!("HTTP/1.1 200 OK\r\n{answer}"));
        let response = client.response("GET");
        assert_eq!(response.text(), expected, "{why}");
        assert_ne!(
            response.framing,
            Framing::Chunked,
            "HTTP/1.0 knows no chunks: {why}"
        );
        assert!(
            !response
                .fields
                .list("connection")
                .contains(&"keep-alive".to_owned()),
            "{why}: {response:?}"
        );
        if response.framing != Framing::UntilClose {
            client.expect_eof();
        }
    }
    count("framing: HTTP/1.0", rows.len());
}

#[test]
fn an_http_1_0_client_can_use_keep_alive() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    let mut connection = None;
    for option in ["keep-alive", "Keep-Alive", "x, keep-alive"] {
        client.send(format!("GET / HTTP/1.0\r\nConnection: {option}\r\n\r\n"));
        let served = connection.get_or_insert_with(|| origin.accept());
        served.request();
        served.send(OK);
        let response = client.response("GET");
        assert_eq!(response.text(), "ok");
        assert!(
            response
                .fields
                .list("connection")
                .contains(&"keep-alive".to_owned()),
            "RFC 9112 §9.3, appendix C.2.2: the response must say so: {response:?}"
        );
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    let served = connection.as_mut().expect("there were requests");
    served.request();
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
    client.expect_eof();
}

#[test]
fn a_response_to_an_http_1_0_client_has_no_transfer_encoding_even_without_a_body() {
    // RFC 9112 §6.1: never "unless the corresponding request indicates HTTP/1.1 (or later minor revisions)".
    for (method, status) in [("HEAD", "200 OK"), ("GET", "304 Not Modified")] {
        for version in ["1.0", "1.1"] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(format!(
                "{method} / HTTP/{version}\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
            ));
            let mut served = origin.accept();
            served.request();
            served.send(format!(
                "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
            ));
            let response = client.response(method);
            let expected = (version == "1.1").then_some("chunked");
            assert_eq!(
                response.fields.one("transfer-encoding"),
                expected,
                "{method} {status}, HTTP/{version}"
            );
            assert_eq!(response.fields.one("x"), Some("y"));
            // There is no body, so the connection does not have to end.
            client.send(format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n"));
            served.request();
            served.send(OK);
            assert_eq!(client.response("GET").text(), "ok");
        }
    }
}

#[test]
fn a_truncated_response_does_not_look_complete_to_an_http_1_0_client() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe");
    let (_, framing) = client.response_head("GET");
    let mut body = Body::new(framing);
    client.expect_some(&mut body, "he");
    served.close();
    // Only a reset tells this client that the response is incomplete.
    client.expect_cut(&mut body);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request, _| {
        let body = format!("{} {}", request.target, latin1(&request.body));
        Reply::Bytes(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    });
    let interceptor = Interceptor::before(&origin);
    let mut all = String::new();
    for number in 0..20 {
        all += &match number % 4 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => format!(
                "POST /{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
            ),
            2 => format!(
                "PUT /{number} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            ),
            _ => format!("HEAD /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        };
    }
    for pieces in [usize::MAX, 1, 7] {
        let mut client = interceptor.client();
        assert!(client.offer_in_pieces(&all, pieces));
        for number in 0..20 {
            let expected = match number % 4 {
                0 => format!("/{number} "),
                1 | 2 => format!("/{number} hello"),
                _ => String::new(),
            };
            assert_eq!(
                client
                    .response(["GET", "POST", "PUT", "HEAD"][number % 4])
                    .text(),
                expected,
                "RFC 9112 §9.3.2"
            );
        }
    }
    count("framing: pipelined requests", 60);
}

#[test]
fn a_pipelined_request_waits_for_the_previous_response() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    let mut first = origin.accept();
    assert_eq!(first.request().target, "/1");
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
    assert_eq!(client.response("GET").text(), "1");
    assert_eq!(first.request().target, "/2");
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2");
    assert_eq!(client.response("GET").text(), "2");
}

#[test]
fn many_pipelined_requests_are_answered_while_they_are_read() {
    const REQUESTS: usize = 5000;
    let (_, interceptor) = &agreeing();
    let mut client = interceptor.client();
    let mut writer = client.twin();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.send(GET.repeat(REQUESTS)));
        for number in 0..REQUESTS {
            assert_eq!(client.response("GET").text(), "ok", "{number}");
        }
    });
}

#[test]
fn requests_after_connection_close_are_ignored() {
    let (origin, interceptor) = agreeing();
    let mut client = interceptor.client();
    client.send("GET /1 HTTP/1.1\r\nHost: localhost\r\nConnection: x, Close\r\n\r\nGET /2 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.response("GET");
    assert!(
        response
            .fields
            .list("connection")
            .contains(&"close".to_owned()),
        "RFC 9112 §9.6: the last response says so: {response:?}"
    );
    client.expect_end();
    let targets: Vec<String> = origin
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(targets, ["/1"], "RFC 9112 §9.6");
}

#[test]
fn the_last_response_arrives_even_if_the_client_continues_to_send() {
    // RFC 9112 §9.6: unread bytes turn a close into a reset, which overtakes the response.
    const SIZE: usize = 8 << 20;
    for (line, lines) in [
        (
            "Connection: close\r\n",
            format!("Content-Length: {SIZE}\r\n"),
        ),
        ("", String::new()),
        ("Connection: close\r\n", String::new()),
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{line}\r\n"));
        let mut served = origin.accept();
        served.request();
        served.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
        let (_, framing) = client.response_head("GET");
        // More than fits into buffers.
        let mut talker = client.twin();
        std::thread::scope(|scope| {
            scope.spawn(move || talker.offer("x".repeat(512 * 1024)));
            scope.spawn(move || {
                served.send(vec![b'y'; SIZE]);
                served.close();
            });
            client.wait_for_arrival();
            let mut body = Body::new(framing);
            let mut total = 0;
            loop {
                match client.try_some(&mut body) {
                    Ok(piece) if piece.is_empty() => break,
                    Ok(piece) => total += piece.len(),
                    Err(stop) => panic!(
                        "the response ended after {total} of {SIZE} bytes: {stop:?}, {line:?} {lines:?}"
                    ),
                }
                // A slow reader.
                std::thread::yield_now();
            }
            assert_eq!(total, SIZE, "{line:?} {lines:?}");
        });
    }
}

#[test]
fn connections_are_reused_on_both_sides() {
    let (origin, interceptor) = agreeing();
    for _ in 0..3 {
        let mut client = interceptor.client();
        // The GETs prove that the origin keeps connections; a POST may need that proof.
        for method in ["GET", "GET", "POST", "PUT", "POST"] {
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
            ));
            assert_eq!(client.response(method).text(), "ok");
        }
        assert!(client.is_open());
    }
    assert_eq!(
        (origin.connections(), origin.requests().len()),
        (1, 15),
        "one connection carries them all"
    );
}

/// Checks which connections of the origin carry the requests of two clients, after the first has exchanged these.
#[track_caller]
fn check_pinned(fields: &str, answer: &str, is_pinned: bool) {
    let (origin, interceptor) = scripted();
    let (mut client, mut other) = (interceptor.client(), interceptor.client());
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    let mut served = origin.accept();
    served.request();
    served.send(format!("{answer}Content-Length: 2\r\n\r\nok"));
    assert_eq!(client.response("GET").text(), "ok");
    // Another client's request goes over another connection.
    other.send(GET);
    let mut second = is_pinned.then(|| origin.accept());
    let its = second.as_mut().unwrap_or(&mut served);
    its.request();
    its.send(OK);
    assert_eq!(other.response("GET").text(), "ok", "{fields} {answer}");
    // All requests of the first client go over the first, at once, whether they can be repeated or not.
    for request in [
        GET,
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        client.send(request);
        served.request();
        served.send(OK);
        assert_eq!(client.response("GET").text(), "ok", "{fields} {answer}");
    }
    client.close();
    if is_pinned {
        served.expect_end_within(std::time::Duration::from_secs(1));
    }
}

#[test]
fn a_connection_that_a_client_authenticates_is_its_own() {
    const OK_HEAD: &str = "HTTP/1.1 200 OK\r\n";
    let requests = [
        ("Authorization: NTLM TlRMTVNTUAAB\r\n", true),
        ("authorization: negotiate YII=\r\n", true),
        ("Proxy-Authorization: Negotiate YII=\r\n", true),
        ("Authorization: Kerberos YII=\r\n", true),
        ("Authorization: Nego2 YII=\r\n", true),
        ("Authorization: Bearer NTLM\r\n", false),
        ("Authorization: Basic bWU6cHc=\r\n", false),
        ("X-Authorization: NTLM\r\n", false),
    ];
    for (fields, is_pinned) in requests {
        check_pinned(fields, OK_HEAD, is_pinned);
    }
    let answers = [
        ("WWW-Authenticate: NTLM\r\n", true),
        (
            "WWW-Authenticate: Bearer\r\nWWW-Authenticate: Negotiate\r\n",
            true,
        ),
        (
            "www-authenticate: Basic realm=\"a\", NTLM TlRMTVNTUAAC\r\n",
            true,
        ),
        ("Proxy-Authenticate: NTLM\r\n", true),
        ("WWW-Authenticate: Basic realm=\"NTLM\"\r\n", false),
    ];
    for (fields, is_pinned) in answers {
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{fields}");
        check_pinned("", &answer, is_pinned);
    }
    count("connections: authenticated", requests.len() + answers.len());
}

#[test]
fn a_client_whose_authenticated_connection_ends_can_authenticate_again() {
    const NTLM: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: NTLM a\r\n\r\n";
    // Announced: the client's connection ends with it.
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(NTLM);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let response = client.response("GET");
    assert_eq!(response.fields.list("connection"), ["close"]);
    client.expect_eof();
    // While idle: the next request goes over a new one.
    let mut client = interceptor.client();
    client.send(NTLM);
    let mut served = origin.accept();
    served.request();
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
    served.close();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response("GET").status, 401);
    client.send(NTLM);
    served.request();
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
}

#[test]
fn connection_close_of_the_origin_does_not_close_the_clients_connection() {
    let origin = Origin::answering(|_, _| {
        Reply::BytesThenClose(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        )
    });
    let interceptor = Interceptor::before(&origin);
    let mut client = interceptor.client();
    for _ in 0..10 {
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(
            client.response("POST").text(),
            "ok",
            "the close was announced, so there is no race"
        );
    }
    assert_eq!((origin.connections(), origin.requests().len()), (10, 10));
}
