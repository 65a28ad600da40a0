//! Streaming: every piece is forwarded as it arrives, in both directions at once, and a slow reader slows the writer instead of
//! filling the interceptor. A peer sends the next piece only when the other has received the previous one, so a piece that is
//! held back fails the test at its deadline.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

const GET: &str = "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let rows: [(&str, &str, &str); 4] = [
        (
            "Transfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n",
            "1.1",
            "chunked, as LLM servers send it",
        ),
        ("Content-Type: text/event-stream\r\n", "1.1", "until close"),
        ("Content-Length: 220\r\n", "1.1", "by length"),
        (
            "Transfer-Encoding: chunked\r\n",
            "1.0",
            "with chunked framing removed",
        ),
    ];
    for (lines, version, why) in rows {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!(
            "GET /stream HTTP/{version}\r\nHost: localhost\r\n\r\n"
        ));
        let mut served = origin.accept();
        served.request();
        served.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
        // The head, before there is a body.
        let (head, framing) = client.response_head("GET");
        assert_eq!(head.start[1], "200", "{why}");
        let mut body = Body::new(framing);
        for number in 0..20 {
            let event = format!("data: {number:03}\n\n");
            send_piece(&mut served, lines, &event);
            client.expect_some(&mut body, &event);
        }
        if lines.contains("chunked") {
            served.send("0\r\n\r\n");
        } else if !lines.contains("Length") {
            served.close();
        }
        client.expect_end_of(&mut body);
    }
    count("streaming: responses", rows.len());
}

/// One piece, in the framing of these field lines.
fn send_piece(wire: &mut Conn, lines: &str, piece: &str) {
    if lines.contains("chunked") {
        wire.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
    } else {
        wire.send(piece);
    }
}

#[test]
fn partial_events_and_partial_chunks_are_forwarded_as_they_arrive() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut body = Body::new(client.response_head("GET").1);
    served.send("b\r\ndata");
    client.expect_some(&mut body, "data");
    served.send(": x");
    client.expect_some(&mut body, ": x");
    served.send("\n\n..\r\n");
    client.expect_some(&mut body, "\n\n..");
    // A chunk whose first line arrives in two parts, then its data.
    served.send("0000");
    served.send("5;ext\r");
    served.send("\nhello");
    client.expect_some(&mut body, "hello");
    served.send("\r\n0\r\n\r\n");
    client.expect_end_of(&mut body);
}

#[test]
fn each_piece_of_an_upload_arrives_before_the_next_is_sent() {
    for lines in ["Transfer-Encoding: chunked\r\n", "Content-Length: 200\r\n"] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!(
            "POST /upload HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        ));
        // The head, before there is a body.
        let mut served = origin.accept();
        let (_, framing) = served.request_head();
        let mut body = Body::new(framing);
        for number in 0..20 {
            let piece = format!("piece {number:04}");
            send_piece(&mut client, lines, &piece);
            served.expect_some(&mut body, &piece);
        }
        if lines.contains("chunked") {
            client.send("0\r\n\r\n");
        }
        served.expect_end_of(&mut body);
        served.send(OK);
        assert_eq!(client.response("POST").text(), "ok");
    }
}

#[test]
fn request_and_response_bodies_are_forwarded_at_the_same_time() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut served = origin.accept();
    let mut sent = Body::new(served.request_head().1);
    // The response begins before the request body.
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (head, framing) = client.response_head("POST");
    let mut echoed = Body::new(framing);
    for number in 0..20 {
        let piece = format!("ping {number}");
        send_piece(&mut client, "chunked", &piece);
        served.expect_some(&mut sent, &piece);
        send_piece(&mut served, "chunked", &piece);
        client.expect_some(&mut echoed, &piece);
    }
    client.send("0\r\n\r\n");
    served.expect_end_of(&mut sent);
    served.send("0\r\n\r\n");
    client.expect_end_of(&mut echoed);
    // The interceptor may close the connections if it announces that (RFC 9112 §9.6).
    if head.fields.list("connection").contains(&"close".to_owned()) {
        client.expect_eof();
        return;
    }
    client.send(GET);
    let mut next = if served.try_request().is_ok() {
        served
    } else {
        let mut other = origin.accept();
        other.request();
        other
    };
    next.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
}

#[test]
fn an_upload_may_end_after_its_response() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello");
    let mut served = origin.accept();
    let mut sent = Body::new(served.request_head().1);
    served.expect_some(&mut sent, "hello");
    served.send(OK);
    let response = client.response("POST");
    assert_eq!(
        response.text(),
        "ok",
        "an early response is forwarded immediately"
    );
    // Either side may now close the connection; otherwise the rest of the body is still a body.
    client.offer("GET /");
    client.offer(GET);
    client.finish_writing();
    let (rest, stop) = client.drain();
    assert_ne!(stop, Stop::Silent, "{:?}", latin1(&rest));
    assert!(
        !latin1(&rest).contains("x-ic-error"),
        "the rest was a body, then a request: {:?}",
        latin1(&rest)
    );
}

#[test]
fn a_413_reaches_a_client_that_is_still_sending() {
    for lines in [
        "Content-Length: 104857600\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!(
            "POST /upload HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        ));
        send_piece(&mut client, lines, "the first piece");
        let mut served = origin.accept();
        let mut sent = Body::new(served.request_head().1);
        served.expect_some(&mut sent, "the first piece");
        served.send(
            "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
        );
        served.finish_writing();
        std::thread::scope(|scope| {
            let mut writer = client.twin();
            // It sends until it cannot, and only then reads the response.
            scope.spawn(move || {
                let piece = "x".repeat(16 * 1024);
                let piece = if lines.contains("chunked") {
                    format!("4000\r\n{piece}\r\n")
                } else {
                    piece
                };
                for _ in 0..64 {
                    if !writer.offer(&piece) {
                        break;
                    }
                }
            });
            scope.spawn(move || drop(served.drain()));
            let response = client.response("POST");
            assert_eq!(
                (response.status, response.text().as_str()),
                (413, "big"),
                "Claude Code shows it as a size limit"
            );
            client.stream().shutdown(std::net::Shutdown::Both).ok();
        });
    }
}

const MUCH: u64 = 256 << 20;
/// Limit of the socket buffers in the kernel: tens of megabytes.
const IN_FLIGHT: u64 = 64 << 20;
/// Limit of the memory of the process. It uses about a tenth.
#[cfg(target_os = "linux")]
const MEMORY: u64 = 48 << 20;

#[test]
fn a_slow_client_slows_the_origin_and_needs_no_memory() {
    for lines in [
        format!("Content-Length: {MUCH}\r\n"),
        "Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        served.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
        let mut body = Body::new(client.response_head("GET").1);
        check_back_pressure(served, &mut client, &mut body, &lines, &interceptor);
    }
}

#[test]
fn a_slow_origin_slows_the_client_and_needs_no_memory() {
    for lines in [
        format!("Content-Length: {MUCH}\r\n"),
        "Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!(
            "POST /upload HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        ));
        let mut served = origin.accept();
        let mut body = Body::new(served.request_head().1);
        check_back_pressure(client.twin(), &mut served, &mut body, &lines, &interceptor);
        served.send(OK);
        assert_eq!(client.response("POST").text(), "ok");
    }
}

/// Writes to a peer that does not read, waits until the writer blocks, and then reads everything.
#[track_caller]
fn check_back_pressure(
    mut writer: Conn,
    reader: &mut Conn,
    body: &mut Body,
    lines: &str,
    interceptor: &Interceptor,
) {
    const PIECE: u64 = 64 * 1024;
    let written = AtomicU64::new(0);
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let data = vec![b'x'; PIECE as usize];
            let piece = if lines.contains("chunked") {
                [format!("{PIECE:x}\r\n").as_bytes(), &data, b"\r\n"].concat()
            } else {
                data
            };
            for _ in 0..MUCH / PIECE {
                writer.send(&piece);
                written.fetch_add(PIECE, Ordering::Relaxed);
            }
            if lines.contains("chunked") {
                writer.send("0\r\n\r\n");
            }
            gone.store(true, Ordering::Relaxed);
        });
        let before = wait_until_still(&written);
        assert!(
            before < IN_FLIGHT,
            "the writer did not block: it wrote {before} bytes although the reader does not read"
        );
        check_memory(interceptor);
        let mut total = 0;
        loop {
            match reader.try_some(body) {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => total += piece.len() as u64,
                Err(stop) => panic!("the body ended after {total} bytes: {stop:?}"),
            }
            if total == MUCH {
                break;
            }
        }
        assert_eq!(total, MUCH);
        check_memory(interceptor);
    });
    assert!(gone.load(Ordering::Relaxed));
}

/// Waits until the value of a counter does not change for a while.
fn wait_until_still(counter: &AtomicU64) -> u64 {
    const STILL: Duration = Duration::from_millis(150);
    let (mut value, mut since) = (counter.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < STILL || value == 0 {
        let now = counter.load(Ordering::Relaxed);
        if now != value {
            (value, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    value
}

#[cfg(target_os = "linux")]
#[track_caller]
fn check_memory(interceptor: &Interceptor) {
    let (_, most) = interceptor.memory();
    assert!(most < MEMORY, "{most} bytes resident at the most");
}

#[cfg(not(target_os = "linux"))]
fn check_memory(_: &Interceptor) {}

#[test]
fn many_streams_are_forwarded_in_parallel() {
    const CLIENTS: usize = 40;
    let (origin, interceptor) = scripted();
    let mut pairs: Vec<(Conn, Conn, Body)> = (0..CLIENTS)
        .map(|_| {
            let mut client = interceptor.client();
            client.send(GET);
            let mut served = origin.accept();
            served.request();
            served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let body = Body::new(client.response_head("GET").1);
            (client, served, body)
        })
        .collect();
    for round in 0..5 {
        for (number, (_, served, _)) in pairs.iter_mut().enumerate() {
            send_piece(served, "chunked", &format!("{round} {number}"));
        }
        for (number, (client, _, body)) in pairs.iter_mut().enumerate() {
            client.expect_some(body, format!("{round} {number}"));
        }
    }
    for (client, served, body) in &mut pairs {
        served.send("0\r\n\r\n");
        client.expect_end_of(body);
    }
}
