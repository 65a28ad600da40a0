//! Invalid responses: a 502 if no head has been sent, a cut connection otherwise. They never look complete, and the rest of
//! one never becomes part of the next response.

use std::time::Duration;

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What the client may receive instead of an invalid response.
#[derive(Clone, Copy, PartialEq)]
enum Instead {
    /// The interceptor's own 502.
    Refused,
    /// That, or a well-formed response with this body, where the RFC allows a proxy to repair it.
    OrRepaired(&'static str),
    /// That, or a connection that is cut within the response.
    OrCut,
}

use Instead::{OrCut, OrRepaired, Refused};

/// How the origin sends its response.
#[derive(Debug, Clone, Copy)]
enum ReplyOptions {
    ThenOpen,
    ThenClosed,
    InPieces,
}

#[track_caller]
fn check(answer: &[u8], instead: Instead, why: &str) {
    for manner in [
        ReplyOptions::ThenOpen,
        ReplyOptions::ThenClosed,
        ReplyOptions::InPieces,
    ] {
        let why = format!("{why} ({:?}, {manner:?})", excerpt(answer));
        let answer = answer.to_vec();
        let mendable = latin1(&answer).contains("Transfer-Encoding");
        let origin = Origin::answering(move |_, _| match manner {
            ReplyOptions::ThenOpen => Reply::Bytes(answer.clone()),
            ReplyOptions::ThenClosed => Reply::BytesThenClose(answer.clone()),
            ReplyOptions::InPieces => {
                Reply::PiecesThenClose(answer.clone(), if answer.len() > 4096 { 997 } else { 1 })
            }
        });
        let interceptor = Interceptor::before(&origin);
        let mut client = interceptor.client();
        client.send(GET);
        let mended = match client.try_response("GET") {
            Ok(response) if response.status == 502 => {
                check_own_error(&response, &[502]);
                false
            }
            Ok(response) => match instead {
                OrRepaired(body) => {
                    assert_eq!(response.text(), body, "{why}");
                    true
                }
                _ => panic!("an invalid response was forwarded: {why}: {response:?}"),
            },
            Err(stop) => {
                assert!(
                    instead == OrCut && matches!(stop, Stop::Closed | Stop::Reset),
                    "{stop:?}: {why}"
                );
                false
            }
        };
        if mended && !mendable {
            continue;
        }
        // The connection is not used again (RFC 9112 §6.3 (3), (5)).
        let opened = origin.connections();
        let mut client = interceptor.client();
        client.send(GET);
        drop(client.try_response("GET"));
        assert!(
            origin.connections() > opened,
            "the connection is not used again: {why}"
        );
    }
}

#[test]
fn an_invalid_response_head_is_a_502() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(300_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(3000));
    let rows: [(&[u8], Instead, &str); 38] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OrRepaired("hello"), "RFC 9112 §6.3 (3): never both to the client"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OrRepaired("hello"), "the other order"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Refused, "RFC 9112 §6.3 (5): differing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", Refused, "a list that differs"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", OrRepaired("hello"), "a list that does not"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", Refused, "a sign"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", Refused, "another"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello", Refused, "a space inside"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", Refused, "hexadecimal"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", Refused, "empty"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello", Refused, "overflow that wraps to 5"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OrCut, "RFC 9112 §6.1: not twice"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused, "an unknown coding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nhello", Refused, "an empty one"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OrRepaired("hello"), "HTTP/1.0 has no codings (RFC 9112 §6.1: faulty framing)"),
        (b"HELLO\r\n\r\n", Refused, "no HTTP"),
        (b"220 mail.example ESMTP\r\n\r\n", Refused, "another protocol"),
        (b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n", Refused, "a TLS alert"),
        (b"HTTP/2 200 OK\r\n\r\n", Refused, "another version"),
        (b"HTTP/2.0 200 OK\r\n\r\n", Refused, "another version with a minor digit"),
        (b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Refused, "versions are case-sensitive"),
        (b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", Refused, "two digits (RFC 9112 §4)"),
        (b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", Refused, "four"),
        (b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", Refused, "none"),
        (b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", Refused, "RFC 9110 §15: from 100"),
        (b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", Refused, "two spaces"),
        (b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n", Refused, "NUL in the reason"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", Refused, "NUL in a value (RFC 9110 §5.5)"),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", Refused, "a bare CR (RFC 9112 §2.2)"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", Refused, "LF alone"),
        (b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n", Refused, "a bare LF"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", OrRepaired(""), "obs-fold (RFC 9112 §5.2: 502 or repaired)"),
        (b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n", OrRepaired(""), "white space before the colon (RFC 9112 §5.1: removed)"),
        (b"HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n", Refused, "a space in a name"),
        (b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n", Refused, "no colon"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello", Refused, "a switch without a request for it (RFC 9110 §15.2.2)"),
        (long.as_bytes(), Refused, "a head of 300 kB"),
        (many.as_bytes(), Refused, "3000 fields"),
    ];
    for (answer, instead, why) in rows {
        check(answer, instead, why);
    }
    count("invalid responses: heads", rows.len());
}

#[test]
fn an_unfinished_response_head_is_a_502() {
    for (part, why) in [
        ("", "nothing at all"),
        ("H", "one byte"),
        ("HTTP/1.1 200 OK", "half a line"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "half a head"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r",
            "all but a byte",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            "an interim response and no final one",
        ),
    ] {
        for method in ["GET", "POST"] {
            for reset in [false, true] {
                let (origin, interceptor) = scripted();
                let mut client = interceptor.client();
                client.send(format!(
                    "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
                ));
                let mut served = origin.accept();
                served.request();
                served.send(part);
                if reset {
                    served.reset()
                } else {
                    served.close()
                }
                // A second attempt would get no response, and the client would wait.
                let response = client.response(method);
                check_own_error(&response, &[502]);
                assert!(
                    origin.try_accept(Duration::ZERO).is_none(),
                    "{method}, {why}: a new connection cannot be stale"
                );
            }
        }
    }
    count("invalid responses: unfinished heads", 24);
}

/// The origin keeps its connection open, and the client would wait for ever.
#[test]
fn a_malformed_response_head_is_a_502_though_it_does_not_go_on() {
    let rows = [
        ("22", "0 mail.example ESMTP\r\n", "another protocol"),
        ("HTTP/1.1 ", "ok", "no status"),
        ("HTTP/1.1 20", "00", "four digits"),
        ("HTTP/1.1 200 OK", "\nA", "a bare LF"),
        ("HTTP/1.1 200 OK\r\nA", " B: c\r\n", "a space in a name"),
        ("HTTP/1.1 200 OK\r\nA", "\r\n", "no colon"),
        ("HTTP/1.1 200 OK\r\nA: b", "\r\n fold", "a fold"),
        ("HTTP/1.1 200 OK\r\nA: b", "\rc", "a bare CR"),
        (
            "HTTP/1.1 200 OK\r\nA: b",
            "\nC: d",
            "a bare LF after a value",
        ),
        ("HTTP/1.1 200 OK\r\nA: b", "\0", "NUL"),
    ];
    for (first, then, why) in rows {
        for pieces in [usize::MAX, 1] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send(first);
            // The response to another client proves that the first part was read.
            interceptor.health();
            served.offer_in_pieces(then, pieces);
            let response = client.response("GET");
            assert_eq!(check_own_error(&response, &[502]), "bad_response", "{why}");
        }
    }
    count("invalid responses: heads that do not go on", 2 * rows.len());
}

#[test]
fn the_log_says_where_a_response_was_cut() {
    for (part, says) in [
        ("HTTP/1.1 200 OK\r\n", "broke off within its response head"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhe",
            "broke off within its response body",
        ),
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        served.send(part);
        served.close();
        client.drain();
        interceptor.wait_for_errors(says, |said| said.contains(says));
    }
}

#[test]
fn a_truncated_response_never_looks_complete() {
    let rows: [(&str, &str, &str); 14] = [
        ("Content-Length: 10\r\n\r\nhe", "", "RFC 9112 §8: by length"),
        (
            "Content-Length: 10\r\n\r\nhe",
            "lloworl",
            "all but one byte",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "",
            "between two chunks",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
            "",
            "inside a chunk",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe",
            "\r",
            "inside a chunk's end",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "5",
            "inside a size",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "0\r\n",
            "before the empty line",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "0\r\n\r",
            "inside the empty line",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "0\r\nX-Sum: 1\r\n",
            "inside the trailers",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "zz\r\n",
            "into garbage",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe",
            "llo\r\n0\r\n\r\n",
            "a chunk longer than announced",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "+2\r\nhe\r\n0\r\n\r\n",
            "a sign in a size",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "2\nhe\r\n0\r\n\r\n",
            "a bare LF after a size",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            "0\r\nX: a\rb\r\n\r\n",
            "a bare CR in a trailer",
        ),
    ];
    for (first, then, why) in rows {
        for reset in [false, true] {
            for version in ["1.1", "1.0"] {
                let (origin, interceptor) = scripted();
                let mut client = interceptor.client();
                client.send(format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n"));
                let mut served = origin.accept();
                served.request();
                served.send(format!("HTTP/1.1 200 OK\r\n{first}"));
                let (_, framing) = client.response_head("GET");
                let mut body = Body::new(framing);
                client.expect_some(&mut body, "he");
                // The client has received a part, so only a cut can signal the error.
                served.send(then);
                if reset {
                    served.reset()
                } else {
                    served.close()
                }
                client.expect_cut(&mut body);
                assert!(
                    origin.try_accept(Duration::ZERO).is_none(),
                    "the request is not sent again: {why}"
                );
            }
        }
    }
    count("invalid responses: truncated", 4 * rows.len());
}

#[test]
fn what_comes_before_a_malformed_chunk_is_not_lost() {
    let rows = [
        ("x\r\n", "", "no size"),
        ("5;=\r\nworld\r\n0\r\n\r\n", "", "a malformed extension"),
        ("5\r\nworld!0\r\n\r\n", "world", "more data than announced"),
        ("0\r\nX Y: z\r\n\r\n", "", "a malformed trailer"),
    ];
    for (malformed, its_data, why) in rows {
        for version in ["1.1", "1.0"] {
            // In one piece with the head, and in another one.
            for with_head in [true, false] {
                let (origin, interceptor) = scripted();
                let mut client = interceptor.client();
                client.send(format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n"));
                let mut served = origin.accept();
                served.request();
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let rest = format!("5\r\nhello\r\n{malformed}");
                served.send(if with_head {
                    [head, &rest].concat()
                } else {
                    head.to_owned()
                });
                let mut body = Body::new(client.response_head("GET").1);
                if !with_head {
                    served.send(rest);
                }
                let mut data = Vec::new();
                while let Ok(piece) = client.try_some(&mut body) {
                    assert!(!piece.is_empty(), "it looks complete: {why}");
                    data.extend(piece);
                }
                assert_eq!(
                    latin1(&data),
                    format!("hello{its_data}"),
                    "{why}, {with_head}"
                );
            }
        }
    }
    count("invalid responses: after valid chunks", 4 * rows.len());
}

#[test]
fn a_reset_does_not_end_a_response_until_close() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\n\r\nhe");
    let (_, framing) = client.response_head("GET");
    let mut body = Body::new(framing);
    client.expect_some(&mut body, "he");
    served.reset();
    client.expect_cut(&mut body);
}

#[test]
fn a_reset_found_by_the_upload_does_not_end_a_response_until_close() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    let mut served = origin.accept();
    served.request_head();
    served.send("HTTP/1.1 200 OK\r\n\r\n");
    client.response_head("POST");
    // The client does not read, so the interceptor stops reading the origin: the reset is found by writing.
    served.set_timeout(Duration::from_millis(200));
    while served.offer(vec![b'x'; 1 << 20]) {}
    served.reset();
    client.send("hello");
    // The response to this request proves that the reset was processed.
    interceptor.health();
    let (_, stop) = client.drain();
    assert_eq!(stop, Stop::Reset, "a truncated response looks complete");
}

#[test]
fn an_error_names_the_protocol_of_a_target_that_does_not_speak_http() {
    for (answer, said) in [
        (
            &b"\x15\x03\x03\x00\x02\x02\x46"[..],
            "it speaks TLS; give its address as https://",
        ),
        (
            b"HTTP/2.0 200 OK\r\n\r\n",
            "the version is neither HTTP/1.1 nor HTTP/1.0",
        ),
        (b"<html>\r\n\r\n", "the version is neither"),
    ] {
        let origin = Origin::answering(|_, _| Reply::BytesThenClose(answer.to_vec()));
        let interceptor = Interceptor::before(&origin);
        let mut client = interceptor.client();
        client.send(GET);
        let response = client.response("GET");
        assert_eq!(check_own_error(&response, &[502]), "bad_response");
        let text = response.text();
        assert!(text.contains(said), "{said}: {text}");
        assert!(!text.contains("the client"), "{text}");
    }
}

#[test]
fn bytes_after_a_response_do_not_become_the_next_response() {
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let rows = [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "by length",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "chunked",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            "to HEAD",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            "304",
        ),
    ];
    for (method, answer, why) in rows {
        // Immediately, and while the connection is in the pool.
        for late in [false, true] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let mut served = origin.accept();
            served.request();
            served.send(if late {
                answer.to_owned()
            } else {
                format!("{answer}{POISON}")
            });
            client.response(method);
            if late {
                served.send(POISON);
            }
            for (mut client, whose) in [
                (client, "the same client"),
                (interceptor.client(), "another client"),
            ] {
                client.send(GET);
                let mut next = origin.accept();
                next.request();
                next.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood");
                assert_eq!(
                    client.response("GET").text(),
                    "good",
                    "{whose}: {why}, late: {late}"
                );
            }
            served.expect_end();
        }
    }
    count("invalid responses: bytes after them", 2 * rows.len());
}

#[test]
fn the_number_of_interim_responses_is_bounded() {
    for line in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let flood = line.repeat(1000);
                while served.offer(&flood) {}
            });
            match client.try_response("GET") {
                Ok(response) => drop(check_own_error(&response, &[502])),
                Err(stop) => assert!(matches!(stop, Stop::Closed | Stop::Reset), "{stop:?}"),
            }
        });
    }
}
