//! Clients that disconnect. The request of a client that disconnects before the response is complete is dropped, in every
//! phase. A client that only ends its side gets its response if it does not keep its connection.

use std::time::{Duration, Instant};

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Time within which the origin must see the end. Normally a tenth of it suffices; the rest is for a loaded machine.
const SOON: Duration = Duration::from_secs(1);
/// How long a connection must stay silent.
const WHILE: Duration = Duration::from_millis(300);

/// Whether the client keeps its connection after this request: then a half-close means that it has disconnected.
fn keeps_its_connection(request: &str) -> bool {
    request.contains("HTTP/1.1\r\n") && !request.contains("Connection: close")
}

#[derive(Debug, Clone, Copy)]
enum Leaves {
    ByClosing,
    ByReset,
}

impl Leaves {
    /// How a client may disconnect while it waits for the response to `request`.
    fn after(request: &str) -> &'static [Leaves] {
        if keeps_its_connection(request) {
            &[Leaves::ByClosing, Leaves::ByReset]
        } else {
            &[Leaves::ByReset]
        }
    }

    fn go(self, client: Conn) {
        match self {
            Leaves::ByClosing => client.close(),
            Leaves::ByReset => client.reset(),
        }
    }
}

/// The origin sees the end of this connection soon, and the next request arrives on another.
#[track_caller]
fn check_dropped(origin: &Origin, interceptor: &Interceptor, mut served: Conn, why: &str) {
    let (rest, stop) = {
        served.set_timeout(SOON);
        served.drain()
    };
    assert_ne!(
        stop,
        Stop::Silent,
        "the origin's connection is closed within {SOON:?}: {why}; it received {:?}",
        latin1(&rest)
    );
    assert!(
        !latin1(&rest).contains("0\r\n\r\n"),
        "a body that the client did not finish does not look finished: {why}: {:?}",
        latin1(&rest)
    );
    let mut client = interceptor.client();
    client.send(GET);
    let mut next = origin.accept();
    assert_eq!(next.request().target, "/", "{why}");
    next.send(OK);
    assert_eq!(client.response("GET").text(), "ok", "{why}");
}

#[test]
fn a_request_is_dropped_when_its_client_disconnects_within_it() {
    for leaves in [Leaves::ByClosing, Leaves::ByReset] {
        for (lines, part, seen) in [
            ("Content-Length: 10", "hello", "hello"),
            ("Content-Length: 10", "", ""),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "hello"),
            ("Transfer-Encoding: chunked", "a\r\nhello", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n", "hello"),
            (
                "Transfer-Encoding: chunked",
                "5\r\nhello\r\n0\r\nX: y\r\n",
                "hello",
            ),
            ("Content-Length: 10\r\nExpect: 100-continue", "", ""),
        ] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{part}"
            ));
            let mut served = origin.accept();
            let mut body = Body::new(served.request_head().1);
            served.expect_some(&mut body, seen);
            leaves.go(client);
            check_dropped(
                &origin,
                &interceptor,
                served,
                &format!("{leaves:?} after {lines:?} {part:?}"),
            );
        }
    }
    count("departures: inside the request", 14);
}

#[test]
fn a_request_is_dropped_when_its_client_disconnects_while_waiting() {
    for request in [
        GET,
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
    ] {
        for &leaves in Leaves::after(request) {
            let (origin, interceptor) = scripted();
            // A Unix socket has no reset: it looks like a half-close, after which the client may wait for a response.
            if interceptor.port == 0 && !keeps_its_connection(request) {
                continue;
            }
            let mut client = interceptor.client();
            client.send(request);
            let mut served = origin.accept();
            served.request();
            leaves.go(client);
            check_dropped(
                &origin,
                &interceptor,
                served,
                &format!("{leaves:?} while waiting for the response to {request:?}"),
            );
        }
    }
    count("departures: while waiting", 8);
}

/// Sends until the buffers are full.
fn fill_up(sender: &mut Conn, piece: &[u8]) {
    sender.set_timeout(WHILE);
    while sender.offer(piece) {}
    sender.set_timeout(DEADLINE);
}

/// Waits until the interceptor has dropped its only request, while both peers do not read.
#[track_caller]
fn wait_until_dropped(interceptor: &Interceptor, why: &str) {
    let since = Instant::now();
    while interceptor.health()["in_flight"] != 0 {
        assert!(since.elapsed() < SOON, "not within {SOON:?}: {why}");
    }
}

#[test]
fn a_request_is_dropped_when_its_client_disconnects_while_the_origin_does_not_read() {
    // Copied in user space, and spliced in the kernel.
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 1 << 16], b"\r\n"].concat();
    for (lines, piece) in [
        ("Transfer-Encoding: chunked", chunk.as_slice()),
        ("Content-Length: 10000000000", &[b'x'; 1 << 16]),
    ] {
        // A close would be behind bytes that are not read, so only a reset is visible.
        let why = format!("a reset in the middle of {lines}");
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n"
        ));
        let mut served = origin.accept();
        served.request_head();
        fill_up(&mut client, piece);
        Leaves::ByReset.go(client);
        wait_until_dropped(&interceptor, &why);
        assert_ne!(served.drain().1, Stop::Silent, "{why}");
    }
}

#[test]
fn a_request_is_dropped_when_its_client_disconnects_after_an_interim_response() {
    for &leaves in Leaves::after(GET) {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        served.send("HTTP/1.1 103 Early Hints\r\n\r\n");
        client.response_head("GET");
        leaves.go(client);
        check_dropped(
            &origin,
            &interceptor,
            served,
            &format!("{leaves:?} after 103"),
        );
    }
}

#[test]
fn a_client_that_disconnects_within_the_response_stops_the_origin() {
    for &leaves in Leaves::after(GET) {
        for (lines, part, seen) in [
            ("Transfer-Encoding: chunked", "", ""),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhe", "he"),
            ("Content-Length: 10", "", ""),
            ("Content-Length: 10", "hello", "hello"),
            ("X: until close", "", ""),
            ("X: until close", "hello", "hello"),
        ] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{part}"));
            let mut body = Body::new(client.response_head("GET").1);
            client.expect_some(&mut body, seen);
            leaves.go(client);
            // The origin is silent, as a model is before its first token; it must still see the end.
            check_dropped(
                &origin,
                &interceptor,
                served,
                &format!("{leaves:?} after {lines:?} {part:?}"),
            );
        }
    }
    count("departures: first byte and mid-stream", 14);
}

#[test]
fn a_client_that_disconnects_without_reading_stops_an_origin_that_is_sending() {
    for leaves in [Leaves::ByClosing, Leaves::ByReset] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
        client.response_head("GET");
        let mut writer = served.twin();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let piece = vec![b'x'; 1 << 20];
                while writer.offer(&piece) {}
            });
            client.wait_for_arrival();
            leaves.go(client);
            served.expect_end_within(SOON);
        });
    }
}

#[test]
fn a_client_that_disconnects_between_two_requests_does_not_affect_other_clients() {
    for leaves in [Leaves::ByClosing, Leaves::ByReset] {
        let (origin, interceptor) = agreeing();
        for _ in 0..3 {
            let mut client = interceptor.client();
            client.send(GET);
            assert_eq!(client.response("GET").text(), "ok");
            leaves.go(client);
        }
        // The exchange is over: the pool may use the origin's connection for the next client.
        assert_eq!(origin.requests().len(), 3);
        let mut client = interceptor.client();
        client.send("GE");
        leaves.go(client);
        let mut client = interceptor.client();
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok");
        assert_eq!(
            origin.requests().len(),
            4,
            "an incomplete head is not a request"
        );
    }
}

#[test]
fn both_requests_are_dropped_when_a_client_disconnects_with_a_pipelined_request_waiting() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(format!("{GET}{GET}"));
    let mut served = origin.accept();
    served.request();
    Leaves::ByReset.go(client);
    check_dropped(
        &origin,
        &interceptor,
        served,
        "with a second request on the way",
    );
}

#[test]
fn a_client_that_half_closes_gets_its_response_unless_it_keeps_its_connection() {
    let rows = [
        (GET, "Content-Length: 10\r\n\r\n", "GET"),
        (GET, "Transfer-Encoding: chunked\r\n\r\n", "GET, chunked"),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
            "Content-Length: 10\r\n\r\n",
            "POST by length",
        ),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "X: until close\r\n\r\n",
            "POST in chunks",
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            "Content-Length: 10\r\n\r\n",
            "HTTP/1.0: `printf … | nc -N`",
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "Content-Length: 10\r\n\r\n",
            "a client that sent Connection: close",
        ),
    ];
    for (request, lines, why) in rows {
        let is_taken_for_departure = keeps_its_connection(request);
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(request);
        // Immediately, possibly before there is a connection to the origin, unless the request is then dropped.
        if !is_taken_for_departure {
            client.finish_writing();
        }
        let mut served = origin.accept();
        served.request();
        if is_taken_for_departure {
            client.finish_writing();
            check_dropped(&origin, &interceptor, served, why);
            continue;
        }
        served.expect_silence(WHILE);
        served.send(format!("HTTP/1.1 200 OK\r\n{lines}"));
        let mut body = Body::new(client.response_head("GET").1);
        for _ in 0..2 {
            served.send(if lines.contains("chunked") {
                "5\r\nhello\r\n"
            } else {
                "hello"
            });
            client.expect_some(&mut body, "hello");
            assert!(served.is_open(), "{why}");
        }
        if lines.contains("chunked") {
            served.send("0\r\n\r\n");
        } else if lines.contains("close") {
            served.close();
        }
        client.expect_end_of(&mut body);
        client.expect_eof();
    }
    count("departures: half-close", rows.len());
}

#[test]
fn a_half_close_behind_pipelined_requests_that_keep_the_connection_drops_them() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET.repeat(3));
    let mut served = origin.accept();
    served.request();
    client.finish_writing();
    check_dropped(&origin, &interceptor, served, "with two requests waiting");
}

#[test]
fn a_half_close_within_a_request_is_a_malformed_request() {
    for part in [
        "GET / HTTP/1.1\r\nHost: loc",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let (origin, interceptor) = agreeing();
        let mut client = interceptor.client();
        client.send(part);
        client.finish_writing();
        let (answer, stop) = client.drain();
        assert_ne!(stop, Stop::Silent, "{part:?}");
        assert!(
            answer.is_empty() || latin1(&answer).starts_with("HTTP/1.1 400 "),
            "refused or cut, never answered: {part:?}: {:?}",
            latin1(&answer)
        );
        assert!(origin.requests().is_empty(), "{part:?}");
    }
}

#[test]
fn a_request_is_dropped_when_its_client_disconnects_with_unread_pipelined_requests() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    client.send(GET.repeat(4000));
    client.reset();
    check_dropped(
        &origin,
        &interceptor,
        served,
        "by a reset after 160 kB of further requests",
    );
}
