//! Refused bodies. Their heads are valid, and may be forwarded before the body is received; but the origin never receives a
//! complete request.

use crate::support::refusal::{check_only_good, check_orderly_end, read_refusal};
use crate::support::*;

/// How a request arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    AtOnce,
    InPieces,
}

/// First all rows in one piece: rows in several pieces leave connections to the origin that end late.
#[track_caller]
fn check_all(rows: &[(&[u8], &str)]) {
    let (origin, interceptor) = agreeing();
    for arrival in [Arrival::AtOnce, Arrival::InPieces] {
        for (body, why) in rows {
            check_cut(&origin, &interceptor, body, arrival, why);
        }
    }
}

#[track_caller]
fn check_cut(origin: &Origin, interceptor: &Interceptor, body: &[u8], arrival: Arrival, why: &str) {
    let pieces = match arrival {
        Arrival::AtOnce => usize::MAX,
        Arrival::InPieces if body.len() > 4096 => 997,
        Arrival::InPieces => 1,
    };
    for before in ["", "GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let why = format!(
            "{why} ({:?} in pieces of {pieces}, after {before:?})",
            excerpt(body)
        );
        origin.forget();
        let mut client = interceptor.client();
        let head = "POST /bad HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let tail = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.offer_in_pieces(
            [before.as_bytes(), head.as_bytes(), body, tail.as_bytes()].concat(),
            pieces,
        );
        read_refusal(&mut client, before, &[400, 413, 431], &why);
        check_orderly_end(client, &why);
        check_only_good(
            origin,
            interceptor,
            before,
            &format!("it never looks complete, and no request follows: {why}"),
        );
        // The forwarded part was well-formed, and the connection to the origin was cut.
        let misled = |seen: &Seen| {
            matches!(
                seen,
                Seen::Ended {
                    stop: Stop::Malformed(_),
                    ..
                }
            )
        };
        assert!(
            !origin.seen().iter().any(misled),
            "{why}: {:?}",
            origin.seen()
        );
        // A body in one piece with its head is checked with it, so neither is forwarded.
        let came_at_once = arrival == Arrival::AtOnce && body.len() < 16 * 1024;
        let begun = |seen: &Seen| matches!(seen, Seen::Ended { inside: true, .. });
        assert!(
            !came_at_once || !origin.seen().iter().any(begun),
            "no part of it reaches the origin: {why}"
        );
    }
}

#[test]
fn malformed_chunks_are_refused() {
    let rows: [(&[u8], &str); 32] = [
        (b"\r\nhello\r\n", "RFC 9112 §7.1: no size"),
        (b";x\r\nhello\r\n", "an extension without a size"),
        (b"+5\r\nhello\r\n", "a sign, which Rust's `parse` accepts"),
        (b"-5\r\nhello\r\n", "another sign"),
        (b"0x5\r\nhello\r\n", "a prefix"),
        (b"5h\r\nhello\r\n", "a letter"),
        (b"g\r\nhello\r\n", "no digit"),
        (b"5_\r\nhello\r\n", "an underscore"),
        (b"5,5\r\nhello\r\n", "a list"),
        (b"5.0\r\nhello\r\n", "a fraction"),
        (b" 5\r\nhello\r\n", "a space before it"),
        (b"\t5\r\nhello\r\n", "a tab before it"),
        (b"5 \r\nhello\r\n", "a space after it"),
        (b"5 5\r\nhello\r\n", "a space inside"),
        (b"10000000000000005\r\nhello\r\n", "17 digits: wraps to 5 in 64 bits"),
        (b"fffffffffffffffff\r\nhello\r\n", "17 digits"),
        (b"00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000005\r\nhello\r\n\0", "endless zeros, or the NUL after them"),
        (b"5\nhello\r\n", "a bare LF after it"),
        (b"5\rhello\r\n", "a bare CR after it"),
        (b"5\r\rhello\r\n", "two CRs"),
        (b"5\r\nhello\n", "a bare LF after the data"),
        (b"5\r\nhello\r", "a bare CR after the data"),
        (b"5\r\nhello", "no CRLF after the data"),
        (b"5\r\nhello!\r\n", "data longer than announced"),
        (b"5\r\nhell\r\n\r\n", "data shorter than announced"),
        (b"5;a\rb\r\nhello\r\n", "a bare CR in an extension"),
        (b"5;a\nb\r\nhello\r\n", "a bare LF in an extension: parsers disagree on its end"),
        (b"5;a\0b\r\nhello\r\n", "NUL in an extension"),
        (b"5;a=\"b\nhello\r\n", "a bare LF in a quoted extension"),
        (b"\x005\r\nhello\r\n", "NUL before the size"),
        (b"5\r\nhello\r\n0\nX: y\r\n\r\n", "a bare LF after the last size"),
        (b"5\r\nhello\r\n0\r\n\n", "a bare LF as the empty line"),
    ];
    check_all(&rows);
    count("refusals: chunks", rows.len());
}

/// RFC 9112 §7.1.1 calls it bad: servers refuse it, skip it, or take it for a part of the size.
#[test]
fn white_space_in_chunk_extensions_is_refused() {
    let rows: [(&[u8], &str); 10] = [
        (b"5 ;a\r\nhello\r\n", "a space before the semicolon"),
        (b"5\t;a\r\nhello\r\n", "a tab before it"),
        (b"5; a\r\nhello\r\n", "a space after it"),
        (b"5;\ta\r\nhello\r\n", "a tab after it"),
        (b"5;a =b\r\nhello\r\n", "a space before the equals sign"),
        (b"5;a= b\r\nhello\r\n", "a space after it"),
        (b"5;a=b ;c\r\nhello\r\n", "a space after a value"),
        (b"5;a=\"b\" ;c\r\nhello\r\n", "a space after quotes"),
        (b"5;a \r\nhello\r\n", "a space at the end of the line"),
        (b"5\r\nhello\r\n0 ;a\r\n\r\n", "on the last chunk"),
    ];
    check_all(&rows);
    count("refusals: white space in extensions", rows.len());
}

#[test]
fn malformed_trailers_are_refused() {
    let many: String = (0..200)
        .map(|number| format!("X-{number}: y\r\n"))
        .collect();
    let long = format!("X: {}", "a".repeat(70_000));
    let rows: [(&[u8], &str); 13] = [
        (b"X: a\rb\r\n\r\n", "a bare CR (RFC 9112 §7.1.2)"),
        (b"X: a\nY: b\r\n\r\n", "a bare LF"),
        (b"X: a\0\r\n\r\n", "NUL"),
        (b"X : a\r\n\r\n", "white space before the colon"),
        (b"X\r\n\r\n", "no colon"),
        (b": a\r\n\r\n", "no name"),
        (b"X Y: a\r\n\r\n", "a space in a name"),
        (b"X: a\r\n b\r\n\r\n", "obs-fold"),
        (b" X: a\r\n\r\n", "white space at the start"),
        (
            b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "a request instead of trailers",
        ),
        (b"\rX", "a CR without LF"),
        (many.as_bytes(), "more fields than allowed"),
        (long.as_bytes(), "more bytes than allowed"),
    ];
    let bodies = rows.map(|(trailers, _)| [b"5\r\nhello\r\n0\r\n", trailers].concat());
    let rows: Vec<(&[u8], &str)> = bodies
        .iter()
        .zip(rows)
        .map(|(body, (_, why))| (&body[..], why))
        .collect();
    check_all(&rows);
    count("refusals: trailers", rows.len());
}

#[test]
fn chunk_overhead_is_limited() {
    let endless = format!("5;{}", "x".repeat(100_000));
    let mut dripping = format!("1;{}\r\nx\r\n", "e".repeat(3000)).repeat(3000);
    dripping.push_str("z\r\n");
    check_all(&[
        (endless.as_bytes(), "an extension without an end"),
        (
            dripping.as_bytes(),
            "9 MB of extensions on 3 KB of data, then an error at the latest",
        ),
    ]);
}
