//! Protocol upgrades: a tunnel where the origin agrees, an ordinary answer where it does not, nothing where
//! the protocol is not for tunnels; and CONNECT, which a reverse proxy has no use for.

use std::time::{Duration, Instant};

use crate::support::*;

const HANDSHAKE: &str = "GET /v1/realtime?model=x HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: realtime, openai-insecure-api-key.x\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: realtime\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// A tunnel, open on both ends.
fn tunnel() -> (Origin, Interceptor, Conn, Conn) {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(HANDSHAKE);
    let mut served = origin.accept();
    served.request();
    served.send(SWITCH);
    assert_eq!(client.response_head("GET").0.start[1], "101");
    (origin, interceptor, served, client)
}

#[test]
fn a_handshake_passes_whole_and_bytes_go_both_ways() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(HANDSHAKE);
    let mut served = origin.accept();
    let seen = served.request();
    assert_eq!(
        seen.fields.one("upgrade"),
        Some("websocket"),
        "RFC 6455 §4.1"
    );
    assert!(
        seen.fields
            .list("connection")
            .contains(&"upgrade".to_owned()),
        "{seen:?}"
    );
    let subprotocol: Vec<&str> = seen
        .fields
        .0
        .iter()
        .filter(|(name, _)| name.starts_with("Sec-"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(
        subprotocol,
        [
            "dGhlIHNhbXBsZSBub25jZQ==",
            "13",
            "realtime, openai-insecure-api-key.x",
            "permessage-deflate; client_max_window_bits"
        ]
    );
    assert_eq!(
        seen.fields.one("x-source"),
        Some("pycharm-ai-chat"),
        "identified like any request"
    );
    served.send(SWITCH);
    let (head, _) = client.response_head("GET");
    assert_eq!(
        (head.start[1].as_str(), head.fields.one("upgrade")),
        ("101", Some("websocket"))
    );
    assert!(
        head.fields
            .list("connection")
            .contains(&"upgrade".to_owned()),
        "{head:?}"
    );
    assert_eq!(
        head.fields.one("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(
        head.fields.one("sec-websocket-extensions"),
        Some("permessage-deflate")
    );
    for number in 0..5 {
        client.send([0x81, number, b'?']);
        served.expect([0x81, number, b'?']);
        served.send([0x81, number, b'!']);
        client.expect([0x81, number, b'!']);
    }
    // No longer HTTP: nothing in it is looked at.
    client.send("GET / HTTP/1.1\r\nHost: evil\r\n\r\n\0");
    served.expect("GET / HTTP/1.1\r\nHost: evil\r\n\r\n\0");
}

#[test]
fn bytes_that_came_with_the_handshake_are_not_lost() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(format!("{HANDSHAKE}early client"));
    let mut served = origin.accept();
    served.request();
    served.send(format!("{SWITCH}early origin"));
    assert_eq!(client.response_head("GET").0.start[1], "101");
    client.expect("early origin");
    served.expect("early client");
    client.send(" more");
    served.expect(" more");
}

#[test]
fn interim_answers_may_come_before_the_switch() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(HANDSHAKE);
    let mut served = origin.accept();
    served.request();
    served.send(format!("HTTP/1.1 103 Early Hints\r\n\r\n{SWITCH}x"));
    assert_eq!(client.response_head("GET").0.start[1], "103");
    assert_eq!(client.response_head("GET").0.start[1], "101");
    client.expect("x");
}

#[test]
fn a_switch_that_comes_byte_by_byte_is_a_switch() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    assert!(client.offer_in_pieces(HANDSHAKE, 1));
    let mut served = origin.accept();
    served.request();
    assert!(served.offer_in_pieces(format!("{SWITCH}abc"), 1));
    assert_eq!(client.response_head("GET").0.start[1], "101");
    client.expect("abc");
}

#[test]
fn when_the_client_closes_first_the_origin_sees_it() {
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    client.send("last");
    client.close();
    served.expect("last");
    served.expect_end();
}

#[test]
fn when_the_origin_closes_first_the_client_sees_it() {
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    served.send("last");
    served.close();
    client.expect("last");
    client.expect_end();
}

#[test]
fn a_half_close_of_the_client_leaves_the_other_half_open() {
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    client.send("all I have to say");
    client.finish_writing();
    served.expect("all I have to say");
    served.expect_eof();
    for number in 0..3u8 {
        served.send([number]);
        client.expect([number]);
    }
    served.close();
    client.expect_eof();
}

#[test]
fn a_half_close_of_the_origin_leaves_the_other_half_open() {
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    served.send("all I have to say");
    served.finish_writing();
    client.expect("all I have to say");
    client.expect_eof();
    for number in 0..3u8 {
        client.send([number]);
        served.expect([number]);
    }
    client.close();
    served.expect_eof();
}

#[test]
fn a_reset_on_one_side_resets_the_other() {
    let (_origin, _interceptor, mut served, client) = tunnel();
    client.reset();
    assert_eq!(
        served.expect_end_within(Duration::from_secs(1)),
        Stop::Reset,
        "what was cut does not look complete"
    );
    let (_origin, _interceptor, served, mut client) = tunnel();
    served.reset();
    assert_eq!(
        client.expect_end_within(Duration::from_secs(1)),
        Stop::Reset,
        "what was cut does not look complete"
    );
}

#[test]
fn a_tunnel_that_is_cut_by_the_end_of_the_program_is_reset() {
    let (_origin, interceptor, mut served, mut client) = tunnel();
    interceptor.terminate();
    interceptor.wait_for_errors("a word on it", |said| said.contains("stopping"));
    interceptor.terminate();
    let mut interceptor = interceptor;
    interceptor.exit_within(DEADLINE);
    assert_eq!(served.expect_end(), Stop::Reset);
    assert_eq!(client.expect_end(), Stop::Reset);
}

/// Waits until nothing is in flight any more.
#[track_caller]
fn wait_until_over(interceptor: &Interceptor, why: &str) {
    wait_until(why, 0, || {
        interceptor.health()["in_flight"]
            .as_u64()
            .expect("a number")
    });
}

#[test]
fn a_tunnel_ends_when_a_side_that_has_finished_is_reset_and_the_other_takes_no_notice() {
    let (_origin, interceptor, mut served, mut client) = tunnel();
    client.send("last");
    client.finish_writing();
    served.expect("last");
    served.expect_eof();
    // A reset shows wherever it comes from.
    client.reset();
    wait_until_over(&interceptor, "a client that finished and cut");
}

/// Much for a receiver that does not read, and little enough to be with the interceptor when its sender leaves: what that
/// one still has itself, it takes along.
const LAST_WORDS: usize = 400_000;

/// Waits until the interceptor has written so many bytes toward one side.
#[track_caller]
fn wait_until_relayed(interceptor: &Interceptor, metric: &str, bytes: usize) {
    let since = Instant::now();
    loop {
        let mut client = interceptor.client();
        client.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let text = client.response("GET").text();
        let line = text.lines().find_map(|line| line.strip_prefix(metric));
        let count = line.and_then(|count| count.trim().parse::<f64>().ok());
        if count.expect("it is counted") >= bytes as f64 {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "{text}");
    }
}

#[test]
fn last_words_in_a_tunnel_arrive_however_their_sender_leaves_and_whatever_it_is_told() {
    const ONWARD: &str = "ic_request_bytes_total";
    const BACK: &str = "ic_response_bytes_total";
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Leaves {
        Closes,
        /// And it is sent something all the time.
        ClosesInATalk,
        Cuts,
    }
    for leaves in [Leaves::Closes, Leaves::ClosesInATalk, Leaves::Cuts] {
        for client_leaves in [true, false] {
            let why = format!("{leaves:?}, the client: {client_leaves}");
            let (_origin, interceptor, served, client) = tunnel();
            let (mut sender, mut receiver, metric) = if client_leaves {
                (client, served, ONWARD)
            } else {
                (served, client, BACK)
            };
            sender.send(vec![b'x'; LAST_WORDS]);
            wait_until_relayed(&interceptor, metric, LAST_WORDS);
            match leaves {
                Leaves::Closes | Leaves::ClosesInATalk => sender.close(),
                Leaves::Cuts => sender.reset(),
            }
            let mut talker = receiver.twin();
            std::thread::scope(|scope| {
                if leaves == Leaves::ClosesInATalk {
                    scope.spawn(move || {
                        talker.set_timeout(Duration::from_millis(500));
                        while talker.offer([b'y'; 1024]) {}
                    });
                }
                // For a while nobody takes them.
                interceptor
                    .client()
                    .expect_silence(Duration::from_millis(200));
                let mut taken = 0;
                let stop = loop {
                    match receiver.try_fill() {
                        Ok(count) => taken += count,
                        Err(stop) => break stop,
                    }
                };
                assert_eq!(taken, LAST_WORDS, "{why}; then {stop:?}");
                match leaves {
                    Leaves::Closes => assert_eq!(stop, Stop::Closed, "{why}"),
                    Leaves::ClosesInATalk => assert_ne!(stop, Stop::Silent, "{why}"),
                    Leaves::Cuts => assert_eq!(stop, Stop::Reset, "{why}"),
                }
            });
        }
    }
    count("upgrade: last words", 6);
}

#[test]
fn much_goes_both_ways_at_once() {
    const SIZE: usize = 16 << 20;
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    let pattern: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let mut writers = [client.twin(), served.twin()];
    std::thread::scope(|scope| {
        for writer in &mut writers {
            scope.spawn(|| writer.send(&pattern));
        }
        for reader in [&mut client, &mut served] {
            let taken = reader.try_take(SIZE).expect("everything arrives");
            assert!(taken == pattern, "in order and unchanged");
        }
    });
}

#[test]
fn a_refused_handshake_is_an_ordinary_answer() {
    let rows = [
        (
            "400 Bad Request",
            "Sec-WebSocket-Version: 13\r\n",
            "RFC 6455 §4.4",
        ),
        ("403 Forbidden", "", "a refusal"),
        (
            "200 OK",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            "an origin that ignores the wish (RFC 9110 §7.8)",
        ),
        (
            "426 Upgrade Required",
            "Upgrade: h2c\r\nConnection: Upgrade\r\n",
            "another protocol",
        ),
    ];
    for (status, lines, why) in rows {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(HANDSHAKE);
        let mut served = origin.accept();
        served.request();
        served.send(format!(
            "HTTP/1.1 {status}\r\n{lines}Content-Length: 2\r\n\r\nno"
        ));
        let response = client.response("GET");
        assert_eq!(
            (
                format!("{} {}", response.status, response.reason).as_str(),
                response.text().as_str()
            ),
            (status, "no"),
            "{why}"
        );
        if response
            .fields
            .list("connection")
            .contains(&"close".to_owned())
        {
            client.expect_end();
            continue;
        }
        // Still HTTP, on both sides if the interceptor keeps the origin's connection.
        client.send("GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (target, mut now) = match served.try_request() {
            Ok(request) => (request.target, served),
            Err(_) => {
                let mut next = origin.accept();
                (next.request().target, next)
            }
        };
        assert_eq!(target, "/after", "{why}");
        now.send(OK);
        assert_eq!(client.response("GET").text(), "ok", "{why}");
    }
    count("upgrade: refused", rows.len());
}

#[test]
fn h2c_is_never_passed_on() {
    let rows = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: h2\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c, h2\r\nhttp2-settings: x\r\n",
    ];
    let stage = Stage::new();
    for lines in rows {
        let seen = stage.forwarded(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 5\r\n\r\nhello"
        ));
        assert!(
            !seen.fields.has("upgrade") && !seen.fields.has("http2-settings"),
            "uvicorn loses the body, LM Studio hangs: {seen:?}"
        );
        assert!(
            !seen
                .fields
                .list("connection")
                .contains(&"upgrade".to_owned()),
            "{seen:?}"
        );
        assert_eq!(latin1(&seen.body), "hello");
    }
}

#[test]
fn what_is_no_upgrade_opens_no_tunnel() {
    // The origin switches all the same: nobody asked it to, so its answer is a bad one.
    let rows = [
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n",
            "not named by Connection (RFC 9110 §7.8)",
        ),
        (
            "GET / HTTP/1.0\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.0 has no upgrade (RFC 9110 §7.8)",
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\r\n",
            "no protocol named",
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "a protocol that is stripped",
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "nothing of the kind",
        ),
    ];
    for (request, why) in rows {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(request);
        let mut served = origin.accept();
        assert!(!served.request().fields.has("upgrade"), "{why}");
        served.send(format!("{SWITCH}tunnel?"));
        check_own_error(&client.response("GET"), &[502]);
        served.expect_end();
        assert!(origin.try_accept(Duration::ZERO).is_none(), "{why}");
    }
    count("upgrade: none", rows.len());
}

#[test]
fn connect_is_not_implemented() {
    let rows: [(&str, &[u16], &str); 5] = [
        (
            "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
            &[501],
            "no forward proxy",
        ),
        (
            "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
            &[501, 421],
            "a foreign host may be said first",
        ),
        (
            "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nContent-Length: 5\r\n\r\nhello",
            &[400, 501],
            "a body on it: refused either way",
        ),
        (
            "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400, 501],
            "likewise",
        ),
        (
            "CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &[400, 501],
            "not authority-form (RFC 9112 §3.2.3)",
        ),
    ];
    let (origin, interceptor) = agreeing();
    for (request, statuses, why) in rows {
        let mut client = interceptor.client();
        client.send(format!(
            "{request}GET /inside HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        check_own_error(&client.response("CONNECT"), statuses);
        client.expect_end();
        assert!(origin.requests().is_empty(), "{why}");
    }
    count("upgrade: CONNECT", rows.len());
}
