//! The property that each fuzz target checks, one function per target. Here those of the HTTP layer; the registry, the feed
//! and the command line have their own files.
//!
//! `cargo fuzz run NAME fuzz/corpus/NAME fuzz/seeds/NAME` searches for counterexamples;
//! `tests/it/corpus.rs` replays the seeds with every `cargo test`.

use interceptor::http::body::Body;
use interceptor::http::chunked::{Chunked, Piece};
use interceptor::http::connection::ConnectionOptions;
use interceptor::http::framing::{self, Framing, ResponseTo};
use interceptor::http::guard::Guard;
use interceptor::http::head::{self, Field, Slots};
use interceptor::http::reply::ConnectionField;
use interceptor::http::rewrite::{self, RequestRewriter};
use interceptor::http::scan::Scan;
use interceptor::http::target::Target;
use interceptor::http::{Error, Parsed, Sender, trailer};

mod command_line;
mod exchange;
mod feed;
mod reference;
mod registry;

pub use command_line::command_line;
pub use registry::registry;

pub use exchange::exchange;
pub use feed::feed;

/// A request head is accepted if and only if the reference accepts it.
pub fn request_head(input: &[u8]) {
    let parse = |bytes: &[u8]| {
        let mut slots = Slots::default();
        Ok(match head::request(bytes, &mut slots)? {
            Parsed::Complete(head) => Parsed::Complete(reference::Head {
                line: vec![
                    head.method.to_owned(),
                    head.target.to_owned(),
                    format!("{:?}", head.version),
                ],
                fields: owned(head.fields),
                len: head.len,
            }),
            Parsed::Partial => Parsed::Partial,
        })
    };
    agrees(input, parse, Sender::Client, reference::request(input));
}

/// A response head is accepted if and only if the reference accepts it.
pub fn response_head(input: &[u8]) {
    let parse = |bytes: &[u8]| {
        let mut slots = Slots::default();
        Ok(match head::response(bytes, &mut slots)? {
            Parsed::Complete(head) => Parsed::Complete(reference::Head {
                line: vec![
                    format!("{:?}", head.version),
                    head.status.to_string(),
                    head.status_and_reason.escape_ascii().to_string(),
                ],
                fields: owned(head.fields),
                len: head.len,
            }),
            Parsed::Partial => Parsed::Partial,
        })
    };
    agrees(input, parse, Sender::Target, reference::response(input));
}

/// The verdict on a head stays the same from the byte that decides it, and equals that of the reference.
fn agrees(
    input: &[u8],
    parse: impl Fn(&[u8]) -> Result<Parsed<reference::Head>, Error>,
    sender: Sender,
    expected: reference::Verdict,
) {
    let verdict = parse(input);
    match &expected {
        reference::Verdict::Taken(head) => {
            assert_eq!(verdict.as_ref(), Ok(&Parsed::Complete(head.clone())));
        }
        reference::Verdict::Refused => assert!(verdict.is_err(), "{verdict:?}"),
        reference::Verdict::Unended => {
            assert!(!matches!(verdict, Ok(Parsed::Complete(_))), "{verdict:?}");
        }
    }
    let end = match &verdict {
        Ok(Parsed::Complete(head)) => head.len,
        _ => input.len(),
    };
    let mut scan = Scan::head(sender);
    // All prefixes of short inputs, 64 of long ones.
    for len in (0..input.len()).step_by(input.len() / 64 + 1) {
        let early = parse(&input[..len]);
        match early {
            Ok(Parsed::Partial) => assert!(len < end, "the end of the head was missed at {len}"),
            Ok(Parsed::Complete(_)) => {
                assert!(len >= end, "complete at {len}");
                assert_eq!(early, verdict);
            }
            Err(_) => assert_eq!(early, verdict, "the verdict changed at {len}"),
        }
        let early = early.map(|parsed| match parsed {
            Parsed::Complete(head) => Parsed::Complete(head.len),
            Parsed::Partial => Parsed::Partial,
        });
        assert_eq!(scan.follow(&input[..len]), early, "a slow head, at {len}");
    }
}

/// The framing of a body equals that of the reference. The first byte of `input` selects the kind of message, the rest are
/// its field lines.
pub fn framing(input: &[u8]) {
    let Some((&kind, lines)) = input.split_first() else {
        return;
    };
    let minor = kind & 1;
    let is_request = kind & 2 == 0;
    let method = ["POST", "GET", "HEAD", "CONNECT"][usize::from(kind >> 2 & 3)];
    let status = [200, 204, 304, 103][usize::from(kind >> 4 & 3)];
    let line = if is_request {
        format!("{method} / HTTP/1.{minor}\r\n")
    } else {
        format!("HTTP/1.{minor} {status} x\r\n")
    };
    let bytes = [line.as_bytes(), lines, b"\r\n\r\n"].concat();
    let mut slots = Slots::default();
    let (verdict, fields) = if is_request {
        match head::request(&bytes, &mut slots) {
            Ok(Parsed::Complete(head)) => (framing::of_request(&head), owned(head.fields)),
            _ => return,
        }
    } else {
        match head::response(&bytes, &mut slots) {
            Ok(Parsed::Complete(head)) => {
                let framing = framing::of_response(&head, ResponseTo::method(method));
                (framing, owned(head.fields))
            }
            _ => return,
        }
    };
    let announced = reference::announced(&fields, minor == 1 || !is_request);
    let expected = if is_request {
        announced
            .filter(|framing| method != "CONNECT" || matches!(framing, None | Some(Framing::Empty)))
            .map(|framing| framing.unwrap_or(Framing::Empty))
    } else if method == "HEAD" || status != 200 {
        announced.map(|_| Framing::Empty)
    } else {
        announced.map(|framing| framing.unwrap_or(Framing::UntilClose))
    };
    assert_eq!(verdict.ok(), expected, "{verdict:?}");
}

/// A chunked body ends where a naive decoder finds its end, however its bytes are split.
pub fn chunked(input: &[u8]) {
    chunked_by(Sender::Client, input);
    chunked_by(Sender::Target, input);
}

fn chunked_by(sender: Sender, input: &[u8]) {
    let whole = follow(sender, [input]);
    assert_eq!(follow(sender, input.chunks(1)), whole, "byte by byte");
    assert_eq!(follow(sender, split(input)), whole, "in pieces");
    match (reference::chunked(input, sender), whole) {
        // The reference has no limit of framing bytes.
        (_, Err(Error::ChunkOverhead)) => assert!(input.len() > 16 * 1024),
        (reference::Chunks::Taken(chunks), whole) => assert_eq!(whole, Ok((chunks, true))),
        (reference::Chunks::Refused, whole) => assert!(whole.is_err(), "{whole:?}"),
        (reference::Chunks::Unended, whole) => {
            assert!(!matches!(whole, Ok((_, true))), "{whole:?}");
        }
    }
}

/// Follows `pieces` up to the end of the body or to its trailer section. Returns the number of bytes, the data among them,
/// and whether that point was reached.
fn follow<'p>(
    sender: Sender,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<((usize, Vec<u8>), bool), Error> {
    let mut chunked = Chunked::new(sender);
    let (mut len, mut data) = (0, Vec::new());
    for (index, mut piece) in pieces.into_iter().enumerate() {
        while !piece.is_empty() {
            let opaque = usize::try_from(chunked.opaque())
                .expect("64 bits")
                .min(piece.len());
            let count = if opaque > 0 && index % 2 == 0 {
                chunked.advance(opaque as u64);
                data.extend_from_slice(&piece[..opaque]);
                opaque
            } else {
                match chunked.next(piece)? {
                    Piece::Data(count) => {
                        assert_eq!(count, opaque, "only data is opaque");
                        data.extend_from_slice(&piece[..count]);
                        count
                    }
                    Piece::Framing(count) => count,
                    Piece::Trailers | Piece::End => break,
                }
            };
            assert_ne!(count, 0, "every step makes progress");
            len += count;
            piece = &piece[count..];
        }
    }
    let is_over = chunked.is_complete() || chunked.is_at_trailers();
    Ok(((len, data), is_over))
}

/// The bytes consumed and forwarded of a body do not depend on how it is split. The first three bytes of `input` select the
/// framing.
pub fn body(input: &[u8]) {
    let Some((&[kind, high, low], bytes)) = input.split_first_chunk() else {
        return;
    };
    let framing = match kind % 4 {
        0 => Framing::Chunked,
        1 => Framing::Length(u64::from(u16::from_be_bytes([high, low]))),
        2 => Framing::UntilClose,
        _ => Framing::Empty,
    };
    let start = match kind & 4 {
        0 => Body::new(framing),
        _ => Body::of_response(framing),
    };
    let whole = pass(start, [bytes]);
    assert_eq!(pass(start, bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(pass(start, split(bytes)), whole, "in pieces");
    let passed = whole;
    if passed.error.is_some() {
        return;
    }
    assert!(passed.taken <= bytes.len());
    match framing {
        Framing::Empty => assert_eq!(passed.taken, 0),
        Framing::Length(length) => {
            assert_eq!(passed.taken as u64, length.min(bytes.len() as u64));
            assert_eq!(passed.is_complete, passed.taken as u64 == length);
        }
        Framing::UntilClose => assert!(passed.taken == bytes.len() && passed.ends_by_close),
        Framing::Chunked => assert_eq!(passed.ends_by_close, passed.is_complete),
    }
    if framing != Framing::Chunked {
        assert_eq!(passed.sent, bytes[..passed.taken]);
    } else if passed.is_complete {
        let (len, again) = (passed.sent.len(), pass(start, [&passed.sent[..]]));
        assert!(again.is_complete && again.taken == len && again.sent == passed.sent);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Passed {
    taken: usize,
    sent: Vec<u8>,
    is_complete: bool,
    ends_by_close: bool,
    error: Option<Error>,
}

/// Forwards `pieces` one after another, as a relay does.
fn pass<'p>(mut body: Body, pieces: impl IntoIterator<Item = &'p [u8]>) -> Passed {
    let mut sent = Vec::new();
    let mut taken = 0;
    let mut held = Vec::new();
    let mut error = None;
    'pieces: for piece in pieces {
        held.extend_from_slice(piece);
        while !held.is_empty() && !body.is_complete() {
            let count = if body.has_trailers() {
                body.take_trailers(&held, |_| false, &mut sent)
            } else {
                body.follow(&held).map(|count| {
                    sent.extend_from_slice(&held[..count]);
                    Parsed::Complete(count)
                })
            };
            let count = match count {
                Ok(Parsed::Complete(count)) => count,
                Ok(Parsed::Partial) => break,
                Err(wrong) => {
                    error = Some(wrong);
                    break 'pieces;
                }
            };
            assert!(
                count > 0 || body.has_trailers() || body.is_complete(),
                "it makes progress"
            );
            held.drain(..count);
            taken += count;
        }
    }
    let is_complete = body.is_complete();
    let ends_by_close = body.end_of_file().is_ok();
    Passed {
        taken,
        sent,
        is_complete,
        ends_by_close,
        error,
    }
}

/// A forwarded trailer section is a valid trailer section without forbidden fields.
pub fn trailer(input: &[u8]) {
    trailer_of(Sender::Client, input);
    trailer_of(Sender::Target, input);
}

fn trailer_of(sender: Sender, input: &[u8]) {
    let parse = |bytes: &[u8]| {
        let mut out = Vec::new();
        let parsed = trailer::pass(
            bytes,
            sender,
            |name| name.eq_ignore_ascii_case("ours"),
            &mut out,
        )?;
        assert!(
            parsed != Parsed::Partial || out.is_empty(),
            "nothing is forwarded too early"
        );
        Ok::<_, Error>((parsed, out))
    };
    let verdict = parse(input);
    for len in (0..input.len()).step_by(input.len() / 64 + 1) {
        match parse(&input[..len]) {
            Ok((Parsed::Partial, _)) => {}
            early => assert_eq!(early, verdict, "at {len}"),
        }
    }
    let Ok((Parsed::Complete(_), out)) = verdict else {
        return;
    };
    let again = parse(&out).expect("the output is a trailer section");
    assert_eq!(again, (Parsed::Complete(out.len()), out.clone()));
    let lines = String::from_utf8_lossy(&out).to_ascii_lowercase();
    for name in [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "authorization",
        "ours",
    ] {
        let is_there = lines.split("\r\n").any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(':'))
        });
        assert!(!is_there, "{name} has passed");
    }
}

/// A head for the next hop has the same framing, no hop-by-hop fields, and the fields of the interceptor once.
pub fn rewrite(input: &[u8]) {
    rewrite_request(input);
    rewrite_response(input);
}

fn rewrite_request(input: &[u8]) {
    let mut slots = Slots::default();
    let Ok(Parsed::Complete(head)) = head::request(input, &mut slots) else {
        return;
    };
    let Ok(framing) = framing::of_request(&head) else {
        return;
    };
    let Ok(target) = Target::parse(head.method, head.target) else {
        return;
    };
    if Guard::default().check(&head, &target, framing).is_err() {
        return;
    }
    let ours = [("x-source".to_owned(), "ic".to_owned())];
    let onward = RequestRewriter::new("o:1", "/base/v1", &ours).expect("the field is allowed");
    let Ok(options) = ConnectionOptions::parse(head.fields) else {
        return;
    };
    let mut out = Vec::new();
    let upgrades = rewrite::request(&head, &target, &options, framing, &onward, &mut out);

    let mut slots = Slots::default();
    let Ok(Parsed::Complete(next)) = head::request(&out, &mut slots) else {
        panic!("no head: {}", out.escape_ascii());
    };
    assert_eq!(next.len, out.len(), "only a head");
    assert_eq!(next.method, head.method);
    assert_eq!(framing::of_request(&next), Ok(framing), "the same framing");
    let target = Target::parse(next.method, next.target);
    assert!(
        matches!(target, Ok(Target::Origin(_) | Target::Asterisk)),
        "{target:?}"
    );

    let mut expected = reference::forwarded(&owned(head.fields), upgrades);
    expected.retain(|(name, _)| name != "host" && reference::variable(name) != "X_SOURCE");
    if head.version == head::Version::Http10 {
        expected.retain(|(name, _)| name != "expect");
    }
    for (name, value) in &mut expected {
        if name == "max-forwards" && ["OPTIONS", "TRACE"].contains(&head.method) {
            let text = String::from_utf8_lossy(value).into_owned();
            let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
            if let Some(left) = text.parse::<u64>().ok().filter(|_| is_digits) {
                *value = left.saturating_sub(1).to_string().into_bytes();
            }
        }
    }
    let has = |wanted: &str| expected.iter().any(|(name, _)| name == wanted);
    assert!(!upgrades || framing == Framing::Empty && has("upgrade"));
    let accepts_trailers = has("te");
    let mut sent = reference::lowercased(&owned(next.fields));
    let mut take = |name: &str, value: &str| {
        let at = sent
            .iter()
            .rposition(|(found, _)| found == name)
            .expect("the field is set");
        assert_eq!(sent.remove(at).1, value.as_bytes(), "{name}");
    };
    match (upgrades, accepts_trailers) {
        (true, true) => take("connection", "Upgrade, TE"),
        (true, false) => take("connection", "Upgrade"),
        (false, true) => take("connection", "TE"),
        (false, false) => {}
    }
    let received = if head.version == head::Version::Http10 {
        "1.0 ic"
    } else {
        "1.1 ic"
    };
    take("via", received);
    take("x-source", "ic");
    take("host", "o:1");
    assert_eq!(
        sent, expected,
        "the others are forwarded unchanged and in order"
    );
}

fn rewrite_response(input: &[u8]) {
    let mut slots = Slots::default();
    let Ok(Parsed::Complete(head)) = head::response(input, &mut slots) else {
        return;
    };
    for asked in [ResponseTo::Head, ResponseTo::Other] {
        let Ok(framing) = framing::of_response(&head, asked) else {
            return;
        };
        for persistence in [
            ConnectionField::Absent,
            ConnectionField::KeepAlive,
            ConnectionField::Close,
            ConnectionField::Upgrade,
        ] {
            for decoded in [false, true] {
                let Ok(options) = ConnectionOptions::parse(head.fields) else {
                    return;
                };
                let mut out = Vec::new();
                rewrite::response(&head, &options, persistence, decoded, &mut out);
                check_response(&head, asked, framing, decoded, &out);
            }
        }
    }
}

fn check_response(
    head: &head::ResponseHead<'_, '_>,
    asked: ResponseTo,
    framing: Framing,
    decoded: bool,
    out: &[u8],
) {
    let mut slots = Slots::default();
    let Ok(Parsed::Complete(next)) = head::response(out, &mut slots) else {
        panic!("no head: {}", out.escape_ascii());
    };
    assert_eq!(next.len, out.len(), "only a head");
    assert_eq!(next.status, head.status);
    assert!(next.status_and_reason.starts_with(head.status_and_reason));
    let expected = if decoded && framing == Framing::Chunked {
        Framing::UntilClose
    } else {
        framing
    };
    assert_eq!(
        framing::of_response(&next, asked),
        Ok(expected),
        "the same framing"
    );
    let is_ours = |(name, _): &(String, Vec<u8>)| ["connection", "upgrade"].contains(&&name[..]);
    let is_framing = |(name, _): &(String, Vec<u8>)| framing::is_framing(name);
    let mut sent = reference::lowercased(&owned(next.fields));
    assert!(sent.iter().filter(|field| field.0 == "connection").count() <= 1);
    sent.retain(|field| !is_ours(field) && !is_framing(field));
    let mut expected = reference::end_to_end(&owned(head.fields));
    expected.retain(|field| !is_framing(field));
    assert_eq!(
        sent, expected,
        "the others are forwarded unchanged and in order"
    );
}

/// The target for the origin is valid, starts with the base path, and contains one version. Lines of `input`: method, base path,
/// target.
pub fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.split('\n');
    let (Some(method), Some(base), Some(target)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let is_visible = target.bytes().all(|byte| byte.is_ascii_graphic());
    if RequestRewriter::new("o", base, &[]).is_err() || !is_visible {
        return;
    }
    let Ok(parsed) = Target::parse(method, target) else {
        return;
    };
    let base = base.trim_end_matches('/');
    let mut out = Vec::new();
    parsed.write(method, base, &mut out);
    let out = std::str::from_utf8(&out).expect("the input is ASCII");
    if out == "*" {
        assert_eq!(method, "OPTIONS");
        return;
    }
    let path = match parsed {
        Target::Origin(path) => path,
        Target::Absolute { path, .. } => path,
        Target::Asterisk => panic!("asterisk-form is kept"),
    };
    assert!(out.ends_with(path));
    let before = &out[..out.len() - path.len()];
    let before = if path.starts_with('/') {
        before
    } else {
        before.strip_suffix('/').expect("the target has a path")
    };
    let segment = path.split(['/', '?']).nth(1);
    if base.ends_with("/v1") && path.starts_with("/v1") && segment == Some("v1") {
        assert_eq!(
            before,
            base.strip_suffix("/v1")
                .expect("the base path ends with /v1")
        );
    } else {
        assert_eq!(before, base);
    }
    assert_eq!(
        Target::parse(method, out),
        Ok(Target::Origin(out)),
        "it is in origin-form"
    );
}

/// Splits `input` into pieces; its bytes select their lengths.
fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = input;
    let mut turn = input.len();
    while !rest.is_empty() {
        turn = turn.wrapping_mul(31).wrapping_add(usize::from(rest[0]));
        let (piece, behind) = rest.split_at(rest.len().min(turn % 13 + 1));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn owned(fields: &[Field<'_>]) -> Vec<(String, Vec<u8>)> {
    let owned = |field: &Field<'_>| (field.name.to_owned(), field.value.to_vec());
    fields.iter().map(owned).collect()
}
