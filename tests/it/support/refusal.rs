//! Requests that must not be forwarded, as rows of a table, and the check of a row.
//!
//! Each row runs alone and after a valid request on the same connection; whole, byte by byte, and followed by a smuggled
//! request. A row with several statuses is one where the RFCs allow a choice; they never allow forwarding.

use super::*;

/// A head that must not be forwarded.
pub struct Refusal {
    request: Vec<u8>,
    statuses: &'static [u16],
    why: &'static str,
}

pub const BAD: &[u16] = &[400];
/// An invalid transfer coding may be reported as unknown (RFC 9112 §6.1: 501) or as a bad request.
pub const CODING: &[u16] = &[400, 501];
/// An invalid version may be reported as unsupported.
pub const VERSION: &[u16] = &[400, 505];
/// An invalid host may be reported as malformed or as misdirected.
pub const HOST: &[u16] = &[400, 421];

pub fn row(request: impl AsRef<[u8]>, statuses: &'static [u16], why: &'static str) -> Refusal {
    Refusal {
        request: request.as_ref().to_vec(),
        statuses,
        why,
    }
}

/// A request with these framing fields.
pub fn framed(lines: impl AsRef<[u8]>, statuses: &'static [u16], why: &'static str) -> Refusal {
    row(
        [
            b"POST /bad HTTP/1.1\r\nHost: localhost\r\n",
            lines.as_ref(),
            b"\r\n\r\n",
        ]
        .concat(),
        statuses,
        why,
    )
}

#[track_caller]
pub fn check_all(category: &str, rows: &[Refusal]) {
    let (origin, interceptor) = agreeing();
    for row in rows {
        for pieces in [usize::MAX, piece_size(row)] {
            for tail in [
                "",
                "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "hello0\r\n\r\n",
            ] {
                for before in ["", "GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
                    check_refused(&origin, &interceptor, row, pieces, before, tail);
                }
            }
        }
    }
    count(category, rows.len());
}

/// One byte; more for a head near the limit, because parsing it at each of 65,000 bytes would take too long.
fn piece_size(row: &Refusal) -> usize {
    if row.request.len() > 4096 { 997 } else { 1 }
}

#[track_caller]
fn check_refused(
    origin: &Origin,
    interceptor: &Interceptor,
    row: &Refusal,
    pieces: usize,
    before: &str,
    tail: &str,
) {
    let why = format!(
        "{} ({:?} in pieces of {pieces}, after {before:?}, before {tail:?})",
        row.why,
        excerpt(&row.request)
    );
    origin.forget();
    let mut client = interceptor.client();
    // The interceptor may stop reading early.
    client.offer_in_pieces(
        [before.as_bytes(), &row.request, tail.as_bytes()].concat(),
        pieces,
    );
    let response = read_refusal(&mut client, before, row.statuses, &why);
    assert!(
        response
            .fields
            .list("connection")
            .contains(&"close".to_owned()),
        "RFC 9112 §9.6: {why}: {response:?}"
    );
    check_orderly_end(client, &why);
    check_only_good(
        origin,
        interceptor,
        before,
        &format!("no part of it reaches the origin: {why}"),
    );
    let broken: Vec<Seen> = origin
        .seen()
        .into_iter()
        .filter(|seen| matches!(seen, Seen::Ended { inside: true, .. }))
        .collect();
    assert!(
        broken.is_empty(),
        "no part of it reaches the origin: {why}: {broken:?}"
    );
}

/// Reads the response to the valid request `before`, if there is one, and the refusal, which is returned.
#[track_caller]
pub fn read_refusal(client: &mut Conn, before: &str, statuses: &[u16], why: &str) -> Response {
    if !before.is_empty() {
        let good = client
            .try_response("GET")
            .unwrap_or_else(|stop| panic!("the valid request gets a response: {stop:?}: {why}"));
        assert_eq!(good.text(), "ok", "{why}");
    }
    let response = client
        .try_response("GET")
        .unwrap_or_else(|stop| panic!("a refusal is a response: {stop:?}: {why}"));
    assert!(
        statuses.contains(&response.status),
        "{statuses:?} expected, {} received: {why}: {}",
        response.status,
        response.text()
    );
    check_own_error(&response, statuses);
    response
}

/// After a refusal the connection is closed without further bytes.
#[track_caller]
pub fn check_orderly_end(mut client: Conn, why: &str) {
    let (rest, stop) = client.drain();
    assert!(
        rest.is_empty() && stop == Stop::Closed,
        "an orderly end (RFC 9112 §9.6), because a reset may overtake the response: {stop:?}, {:?}: {why}",
        latin1(&rest)
    );
}

/// The origin has received only the requests `before` the refused one, and the one sent here.
#[track_caller]
pub fn check_only_good(origin: &Origin, interceptor: &Interceptor, before: &str, why: &str) {
    // A request that was forwarded earlier would arrive at the origin before this one.
    let mut client = interceptor.client();
    client.send("GET /sentinel HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response("GET").text(), "ok", "{why}");
    let targets: Vec<String> = origin
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    let expected: &[&str] = if before.is_empty() {
        &["/sentinel"]
    } else {
        &["/good", "/sentinel"]
    };
    assert_eq!(targets, expected, "{why}");
}
