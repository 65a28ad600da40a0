//! Protocol upgrades: a tunnel if the origin accepts, an ordinary response if it refuses, and no tunnel for other protocols.
//! CONNECT is not supported.

use std::time::{Duration, Instant};

use crate::support::*;

const HANDSHAKE: &str = "GET /v1/realtime?model=x HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: realtime, openai-insecure-api-key.x\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: realtime\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// A tunnel, with its client and its origin.
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
fn an_upgrade_opens_a_tunnel_in_both_directions() {
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
        "with identification fields, like any request"
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
    // The bytes are no longer HTTP and must not be parsed.
    client.send("GET / HTTP/1.1\r\nHost: evil\r\n\r\n\0");
    served.expect("GET / HTTP/1.1\r\nHost: evil\r\n\r\n\0");
}

#[test]
fn bytes_received_with_the_handshake_are_forwarded() {
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
fn interim_responses_may_precede_the_switch() {
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
fn a_switch_may_arrive_byte_by_byte() {
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
fn the_origin_sees_when_the_client_closes_first() {
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    client.send("last");
    client.close();
    served.expect("last");
    served.expect_end();
}

#[test]
fn the_client_sees_when_the_origin_closes_first() {
    let (_origin, _interceptor, mut served, mut client) = tunnel();
    served.send("last");
    served.close();
    client.expect("last");
    client.expect_end();
}

#[test]
fn a_half_close_of_the_client_keeps_the_other_direction_open() {
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
fn a_half_close_of_the_origin_keeps_the_other_direction_open() {
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
        "a cut tunnel does not look complete"
    );
    let (_origin, _interceptor, served, mut client) = tunnel();
    served.reset();
    assert_eq!(
        client.expect_end_within(Duration::from_secs(1)),
        Stop::Reset,
        "a cut tunnel does not look complete"
    );
}

#[test]
fn shutdown_resets_a_tunnel() {
    let (_origin, interceptor, mut served, mut client) = tunnel();
    interceptor.terminate();
    interceptor.wait_for_errors("the stop", |said| said.contains("stopping"));
    interceptor.terminate();
    let mut interceptor = interceptor;
    interceptor.exit_within(DEADLINE);
    assert_eq!(served.expect_end(), Stop::Reset);
    assert_eq!(client.expect_end(), Stop::Reset);
}

/// Waits until no request is in flight.
#[track_caller]
fn wait_until_over(interceptor: &Interceptor, why: &str) {
    wait_until(why, 0, || {
        interceptor.health()["in_flight"]
            .as_u64()
            .expect("a number")
    });
}

#[test]
fn a_tunnel_ends_when_a_half_closed_side_is_reset() {
    let (_origin, interceptor, mut served, mut client) = tunnel();
    client.send("last");
    client.finish_writing();
    served.expect("last");
    served.expect_eof();
    // A reset of either side.
    client.reset();
    wait_until_over(&interceptor, "a client that half-closed and reset");
}

/// Too much for a receiver that does not read, but little enough to have left the sender's buffers before it disconnects.
const LAST_BYTES: usize = 400_000;

/// Waits until the interceptor has written this many bytes toward one side.
#[track_caller]
fn wait_until_relayed(interceptor: &Interceptor, metric: &str, bytes: usize) {
    let since = Instant::now();
    loop {
        let mut client = interceptor.client();
        client.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let text = client.response("GET").text();
        let line = text.lines().find_map(|line| line.strip_prefix(metric));
        let count = line.and_then(|count| count.trim().parse::<f64>().ok());
        if count.expect("the metric exists") >= bytes as f64 {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "{text}");
    }
}

#[test]
fn the_last_bytes_in_a_tunnel_arrive_however_their_sender_disconnects() {
    const ONWARD: &str = "ic_request_bytes_total";
    const BACK: &str = "ic_response_bytes_total";
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum End {
        Close,
        /// The same, while the sender receives data.
        CloseWhileReceiving,
        Reset,
    }
    for end in [End::Close, End::CloseWhileReceiving, End::Reset] {
        for is_client in [true, false] {
            let why = format!("{end:?}, the client: {is_client}");
            let (_origin, interceptor, served, client) = tunnel();
            let (mut sender, mut receiver, metric) = if is_client {
                (client, served, ONWARD)
            } else {
                (served, client, BACK)
            };
            sender.send(vec![b'x'; LAST_BYTES]);
            wait_until_relayed(&interceptor, metric, LAST_BYTES);
            match end {
                End::Close | End::CloseWhileReceiving => sender.close(),
                End::Reset => sender.reset(),
            }
            let mut twin = receiver.twin();
            std::thread::scope(|scope| {
                if end == End::CloseWhileReceiving {
                    scope.spawn(move || {
                        twin.set_timeout(Duration::from_millis(500));
                        while twin.offer([b'y'; 1024]) {}
                    });
                }
                // They are not read for a while.
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
                assert_eq!(taken, LAST_BYTES, "{why}; then {stop:?}");
                match end {
                    End::Close => assert_eq!(stop, Stop::Closed, "{why}"),
                    End::CloseWhileReceiving => assert_ne!(stop, Stop::Silent, "{why}"),
                    End::Reset => assert_eq!(stop, Stop::Reset, "{why}"),
                }
            });
        }
    }
    count("upgrade: last bytes", 6);
}

#[test]
fn large_data_flows_in_both_directions_at_once() {
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
fn a_refused_upgrade_is_an_ordinary_response() {
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
            "an origin that ignores the offer (RFC 9110 §7.8)",
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
fn h2c_is_never_forwarded() {
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
fn a_request_without_a_valid_upgrade_opens_no_tunnel() {
    // The origin switches without a valid request for it, so its response is invalid.
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
            "a protocol that is removed",
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "no Upgrade at all",
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
            "it is not a forward proxy",
        ),
        (
            "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
            &[501, 421],
            "the host of another machine may be reported first",
        ),
        (
            "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nContent-Length: 5\r\n\r\nhello",
            &[400, 501],
            "with a body",
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
