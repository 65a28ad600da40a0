//! A connection of a client, in memory: calls the pure functions in the order of `serve::exchange`, with pieces of bytes
//! arriving at random times. The reference parser then checks the output of both sides.
//!
//! The input: one byte that seeds the random generator, the bytes of the client, and after each [`SEPARATOR`] the bytes that
//! another connection of the origin sends before it closes.

use interceptor::http::body::{Body, BodyMode};
use interceptor::http::connection::{AfterResponse, Persistence};
use interceptor::http::forward::{
    self, ExchangeState, FinalResponse, RequestContext, ResponseError, ResponseKind,
};
use interceptor::http::framing::{Framing, ResponseTo};
use interceptor::http::guard::Guard;
use interceptor::http::head::{Slots, Version};
use interceptor::http::reply::{ConnectionField, Reply, ReplyOptions, Retry};
use interceptor::http::rewrite::RequestRewriter;
use interceptor::http::scan::Scan;
use interceptor::http::{Error, Parsed, Sender as Side};

use super::reference::{self, Line, Section, Verdict};

const SEPARATOR: &[u8] = b"\n====\n";

/// Both sides receive the messages that the other side has sent.
pub fn exchange(input: &[u8]) {
    let Some((&seed, bytes)) = input.split_first() else {
        return;
    };
    let mut parts = split(bytes).into_iter();
    let Some(sent) = parts.next() else { return };
    let mut play = Play {
        dice: Dice(u64::from(seed) * 2 + 1),
        client: Sender::new(sent),
        origins: parts.map(|bytes| Origin::new(Sender::new(bytes))).collect(),
        to_client: Vec::new(),
        exchanges: Vec::new(),
    };
    let end = play.run();
    play.check(&end);
}

struct Play<'i> {
    dice: Dice,
    client: Sender<'i>,
    /// All connections of the origin, including later ones.
    origins: Vec<Origin<'i>>,
    to_client: Vec<u8>,
    exchanges: Vec<Exchange>,
}

/// One connection of the origin: the bytes that it sends, and those that it receives.
struct Origin<'i> {
    sender: Sender<'i>,
    got: Vec<u8>,
}

/// The start and the end of one exchange in the streams.
struct Exchange {
    origin: usize,
    origin_sent: (usize, usize),
    origin_got: (usize, usize),
    client_got: (usize, usize),
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The response was forwarded.
    Done(AfterResponse),
    /// Both sides have switched to another protocol.
    Tunnel,
    /// The client received an error response.
    Refused(Why),
    /// An error response was no longer possible; the connection was reset.
    Cut(Why),
    /// The client had disconnected.
    Gone,
}

/// The side that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Client(Error),
    Origin(Error),
    UnaskedUpgrade,
    TooManyInterim,
    /// The origin closed too early.
    Ended,
}

/// How a client's connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client stopped between two requests, or within a head.
    ClientStopped,
    /// Its request was refused for this.
    Refused(Error),
    /// There was no connection to the origin.
    NoOrigin,
    /// The last exchange ended the connection.
    WithExchange,
    /// Its request is answered here.
    LastHop,
}

impl Play<'_> {
    fn run(&mut self) -> End {
        let ours = [("x-source".to_owned(), "ic".to_owned())];
        let onward = RequestRewriter::new("o:1", "", &ours).expect("the field is allowed");
        let mut used_origins = 0;
        let mut kept = None;
        loop {
            let mut out = Vec::new();
            let request = match self.read_request(&onward, &mut out) {
                Ok(Some(request)) => request,
                Ok(None) => return End::ClientStopped,
                Err(refused) => {
                    self.refuse(refused.error.reply(), refused.head_only);
                    return End::Refused(refused.error);
                }
            };
            if request.ends_here {
                return End::LastHop;
            }
            let head_only = request.context.response_to == ResponseTo::Head;
            let stays = |name: &str| onward.sets(name) || request.nominated.has(name);
            let mut body = Body::new(request.framing);
            let ready = body.take_ready(self.client.inbox(), BodyMode::Verbatim, stays, &mut out);
            match ready {
                Ok(count) => self.client.consume(count),
                Err(error) => {
                    self.refuse(error.reply(), head_only);
                    return End::Refused(error);
                }
            }
            let index = kept.take().unwrap_or_else(|| {
                used_origins += 1;
                used_origins - 1
            });
            let Some(origin) = self.origins.get_mut(index) else {
                self.refuse(unreachable_origin(), head_only);
                return End::NoOrigin;
            };
            let mut exchange = Exchange {
                origin: index,
                origin_sent: (origin.sender.used, 0),
                origin_got: (origin.got.len(), 0),
                client_got: (self.to_client.len(), 0),
                outcome: Outcome::Gone,
            };
            origin.got.extend_from_slice(&out);
            let (outcome, keeps) =
                self.exchange_directions(&request.context, &mut body, &stays, index);
            let origin = &mut self.origins[index];
            match outcome {
                Outcome::Refused(Why::Client(error)) => {
                    self.refuse(error.reply(), head_only);
                }
                Outcome::Refused(_) => self.refuse(unreachable_origin(), head_only),
                Outcome::Tunnel => {
                    origin.got.extend_from_slice(self.client.rest());
                    self.to_client.extend_from_slice(origin.sender.rest());
                }
                _ => {}
            }
            let origin = &self.origins[index];
            exchange.origin_sent.1 = origin.sender.used;
            exchange.origin_got.1 = origin.got.len();
            exchange.client_got.1 = self.to_client.len();
            exchange.outcome = outcome;
            self.exchanges.push(exchange);
            if outcome != Outcome::Done(AfterResponse::KeepAlive) {
                return End::WithExchange;
            }
            if keeps && origin.sender.inbox().is_empty() {
                kept = Some(index);
            }
        }
    }

    /// As `serve::exchange::request::read_request`.
    fn read_request(
        &mut self,
        onward: &RequestRewriter,
        out: &mut Vec<u8>,
    ) -> Result<Option<Request>, forward::Refused> {
        let guard = Guard::default();
        let mut scan = Scan::head(Side::Client);
        let mut seen = 0;
        loop {
            let bytes = self.client.inbox();
            if !matches!(bytes, b"" | b"\r" | b"\r\n") {
                if seen == 0 || scan.is_decided(bytes) {
                    let mut slots = Slots::default();
                    let taken = forward::request(bytes, &mut slots, &guard, onward, out)?;
                    if let Parsed::Complete(onbound) = taken {
                        let request = Request {
                            context: onbound.context,
                            framing: onbound.framing,
                            nominated: onbound.nominated,
                            ends_here: onbound.ends_here,
                        };
                        let len = onbound.head.len;
                        self.client.consume(len);
                        return Ok(Some(request));
                    }
                }
                seen = bytes.len();
            }
            if !self.client.fill(&mut self.dice) {
                return Ok(None);
            }
        }
    }

    /// Steps of either direction, in random order, up to the end of one of them. Also returns whether the connection to
    /// the origin may be kept.
    fn exchange_directions(
        &mut self,
        context: &RequestContext,
        body: &mut Body,
        stays: &dyn Fn(&str) -> bool,
        index: usize,
    ) -> (Outcome, bool) {
        let mut download = Download {
            scan: Scan::head(Side::Target),
            seen: 0,
            interim: 0,
            answer: None,
        };
        loop {
            let is_answered = download.answer.is_some();
            let failed = |why| match is_answered {
                true => Outcome::Cut(why),
                false => Outcome::Refused(why),
            };
            let origin = &mut self.origins[index];
            if !body.is_complete() && self.dice.roll(2) == 0 {
                let to = &mut origin.got;
                let step = relay(
                    &mut self.client,
                    &mut self.dice,
                    body,
                    BodyMode::Verbatim,
                    stays,
                    to,
                );
                match step {
                    Ok(()) => {}
                    Err(Broken::Truncated) => return (Outcome::Gone, false),
                    Err(Broken::Malformed(error)) => return (failed(Why::Client(error)), false),
                }
                continue;
            }
            let state = ExchangeState {
                is_request_sent: body.is_complete(),
                is_stopping: false,
            };
            let sender = &mut origin.sender;
            match download.step(sender, &mut self.dice, context, state, &mut self.to_client) {
                Ok(Step::More) => {}
                Ok(Step::Tunnel) => return (Outcome::Tunnel, false),
                Ok(Step::Done(answer)) => {
                    let keeps = answer.persistence != Persistence::Close && body.is_complete();
                    return (Outcome::Done(answer.next), keeps);
                }
                // The response may have begun in this step.
                Err(why) if download.answer.is_some() => return (Outcome::Cut(why), false),
                Err(why) => return (Outcome::Refused(why), false),
            }
        }
    }

    fn refuse(&mut self, reply: Reply<'_>, head_only: bool) {
        let manner = ReplyOptions {
            head_only,
            connection: ConnectionField::Close,
        };
        reply.write("id", manner, &mut self.to_client);
    }
}

fn unreachable_origin() -> Reply<'static> {
    Reply::new(502, "bad_response", Retry::Never, "the target failed")
}

struct Request {
    context: RequestContext,
    framing: Framing,
    nominated: interceptor::http::connection::NominatedFields,
    ends_here: bool,
}

/// Forwards one response.
struct Download {
    scan: Scan,
    seen: usize,
    interim: usize,
    answer: Option<(FinalResponse, Body)>,
}

enum Step {
    More,
    Tunnel,
    Done(FinalResponse),
}

impl Download {
    fn step(
        &mut self,
        origin: &mut Sender<'_>,
        dice: &mut Dice,
        context: &RequestContext,
        state: ExchangeState,
        client: &mut Vec<u8>,
    ) -> Result<Step, Why> {
        if let Some((answer, body)) = &mut self.answer {
            if !body.is_complete() {
                let stays = |name: &str| answer.nominated.has(name);
                relay(origin, dice, body, answer.mode, &stays, client).map_err(|broken| {
                    match broken {
                        Broken::Truncated => Why::Ended,
                        Broken::Malformed(error) => Why::Origin(error),
                    }
                })?;
            }
            return Ok(if body.is_complete() {
                Step::Done(answer.clone())
            } else {
                Step::More
            });
        }
        let bytes = origin.inbox();
        if !bytes.is_empty() && (self.seen == 0 || self.scan.is_decided(bytes)) {
            let mut slots = Slots::default();
            let mut out = Vec::new();
            let taken = forward::response(bytes, &mut slots, context, state, &mut out).map_err(
                |wrong| match wrong {
                    ResponseError::Malformed(error) => Why::Origin(error),
                    ResponseError::UnaskedUpgrade => Why::UnaskedUpgrade,
                },
            )?;
            if let Parsed::Complete(inbound) = taken {
                let (len, kind) = (inbound.head.len, inbound.kind);
                origin.consume(len);
                self.seen = 0;
                self.scan = Scan::head(Side::Target);
                return self.begin(kind, origin, context, out, client);
            }
        }
        self.seen = bytes.len();
        if origin.fill(dice) {
            Ok(Step::More)
        } else {
            Err(Why::Ended)
        }
    }

    fn begin(
        &mut self,
        kind: ResponseKind,
        origin: &mut Sender<'_>,
        context: &RequestContext,
        mut out: Vec<u8>,
        client: &mut Vec<u8>,
    ) -> Result<Step, Why> {
        match kind {
            ResponseKind::Interim => {
                self.interim += 1;
                if self.interim > 16 {
                    return Err(Why::TooManyInterim);
                }
                if context.version == Version::Http11 {
                    client.extend_from_slice(&out);
                }
                Ok(Step::More)
            }
            ResponseKind::Tunnel => {
                client.extend_from_slice(&out);
                Ok(Step::Tunnel)
            }
            ResponseKind::Final(answer) => {
                let mut body = Body::of_response(answer.framing);
                let stays = |name: &str| answer.nominated.has(name);
                let taken = body.take_ready(origin.inbox(), answer.mode, stays, &mut out);
                origin.consume(taken.map_err(Why::Origin)?);
                client.extend_from_slice(&out);
                // A complete message ends at once.
                let is_over = body.is_complete();
                self.answer = Some((answer.clone(), body));
                Ok(if is_over {
                    Step::Done(answer)
                } else {
                    Step::More
                })
            }
        }
    }
}

enum Broken {
    Truncated,
    Malformed(Error),
}

/// One turn of `serve::relay::relay`.
fn relay(
    from: &mut Sender<'_>,
    dice: &mut Dice,
    body: &mut Body,
    form: BodyMode,
    stays: &dyn Fn(&str) -> bool,
    to: &mut Vec<u8>,
) -> Result<(), Broken> {
    if from.inbox().is_empty() && !from.fill(dice) {
        return body.end_of_file().map_err(|_| Broken::Truncated);
    }
    let bytes = from.inbox();
    let malformed = Broken::Malformed;
    if body.has_trailers() {
        let mut out = Vec::new();
        match body
            .take_trailers(bytes, stays, &mut out)
            .map_err(malformed)?
        {
            Parsed::Complete(count) => {
                from.consume(count);
                if form == BodyMode::Verbatim {
                    to.extend_from_slice(&out);
                }
            }
            Parsed::Partial => {
                if !from.fill(dice) {
                    return Err(Broken::Truncated);
                }
            }
        }
        return Ok(());
    }
    // Opaque bytes may be moved without being read (splice), or not.
    let opaque = usize::try_from(body.opaque())
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let count = if opaque > 0 && dice.roll(2) == 0 {
        body.advance(opaque as u64);
        to.extend_from_slice(&bytes[..opaque]);
        opaque
    } else if form == BodyMode::Verbatim {
        let count = body.follow(bytes).map_err(malformed)?;
        to.extend_from_slice(&bytes[..count]);
        count
    } else {
        match body.next(bytes).map_err(malformed)? {
            interceptor::http::chunked::Piece::Data(count) => {
                to.extend_from_slice(&bytes[..count]);
                count
            }
            interceptor::http::chunked::Piece::Framing(count) => count,
            _ => 0,
        }
    };
    from.consume(count);
    Ok(())
}

/// A sender: its received and unused bytes.
struct Sender<'i> {
    bytes: &'i [u8],
    used: usize,
    arrived: usize,
}

impl<'i> Sender<'i> {
    fn new(bytes: &'i [u8]) -> Self {
        Sender {
            bytes,
            used: 0,
            arrived: 0,
        }
    }

    fn inbox(&self) -> &'i [u8] {
        &self.bytes[self.used..self.arrived]
    }

    fn rest(&self) -> &'i [u8] {
        &self.bytes[self.used..]
    }

    fn consume(&mut self, count: usize) {
        assert!(count <= self.inbox().len(), "only received bytes are used");
        self.used += count;
    }

    /// Lets more bytes arrive; returns whether there were any.
    fn fill(&mut self, dice: &mut Dice) -> bool {
        let left = self.bytes.len() - self.arrived;
        let most = [1, 3, 20, left][dice.roll(4)].min(left);
        if most == 0 {
            return false;
        }
        self.arrived += 1 + dice.roll(most);
        true
    }
}

impl<'i> Origin<'i> {
    fn new(sender: Sender<'i>) -> Self {
        Origin {
            sender,
            got: Vec::new(),
        }
    }
}

/// xorshift64
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % sides
    }
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = bytes
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR)
    {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + SEPARATOR.len()..];
    }
    parts.push(bytes);
    parts
}

impl Play<'_> {
    /// The messages that one side has received are those that the other side has sent, both as the reference parses them.
    fn check(&self, end: &End) {
        let mut at = 0;
        for (index, exchange) in self.exchanges.iter().enumerate() {
            let is_last = index + 1 == self.exchanges.len();
            let sent = &self.client.bytes[at..];
            let Verdict::Taken(head) = reference::request(sent) else {
                panic!("an invalid head was forwarded: {}", sent.escape_ascii());
            };
            let got = &self.origins[exchange.origin].got;
            let got = &got[exchange.origin_got.0..exchange.origin_got.1];
            let took = check_request(sent, &head, got, exchange.outcome);
            assert!(
                took.is_some() || is_last,
                "only the last message is incomplete, {:?}",
                exchange.outcome
            );
            at += took.unwrap_or(0);
            self.check_answer(&head, exchange);
        }
        let rest = &self.client.bytes[at..];
        match end {
            // The end of the exchange has ended the connection.
            End::WithExchange | End::NoOrigin | End::LastHop => {}
            End::ClientStopped => {
                assert!(
                    !matches!(reference::request(rest), Verdict::Taken(_)),
                    "a request was missed: {}",
                    rest.escape_ascii()
                );
            }
            End::Refused(error) => {
                let is_whole = matches!(reference::request(rest), Verdict::Taken(head) if request_len(rest, &head).is_some());
                assert!(
                    !is_whole || is_beyond_the_reference(*error),
                    "{error:?} for what the reference takes: {}",
                    rest.escape_ascii()
                );
            }
        }
        let last_got = self
            .exchanges
            .last()
            .map_or(0, |exchange| exchange.client_got.1);
        let own = &self.to_client[last_got..];
        match end {
            End::WithExchange | End::ClientStopped | End::LastHop => assert!(own.is_empty()),
            End::Refused(_) | End::NoOrigin => check_own(own),
        }
    }

    /// The client receives the response of the origin, or a part of it, or an error of the interceptor.
    fn check_answer(&self, request: &reference::Head, exchange: &Exchange) {
        let mut got = &self.to_client[exchange.client_got.0..exchange.client_got.1];
        let mut sent = &self.origins[exchange.origin].sender.bytes[exchange.origin_sent.0..];
        let knows_interim = request.line[2] == "Http11";
        let mut is_interim = true;
        while is_interim && let Verdict::Taken(head) = reference::response(sent) {
            is_interim = head.line[1].starts_with('1') && head.line[1] != "101";
            if !is_interim || reference::announced(&head.fields, true).is_none() {
                break;
            }
            let passed = reference::response(got);
            let same = matches!(&passed, Verdict::Taken(passed) if passed.line[1] == head.line[1] && !has_own_code(passed));
            if knows_interim && same {
                got = &got[passed_len(&passed)..];
            } else if knows_interim {
                break;
            }
            sent = &sent[head.len..];
        }
        let answer = reference::response(sent);
        match exchange.outcome {
            Outcome::Gone => {}
            Outcome::Refused(why) => {
                if let Why::Origin(error) = why {
                    assert!(
                        !is_whole(&answer, sent, request) || is_beyond_the_reference(error),
                        "{error:?} for what the reference takes: {}",
                        sent.escape_ascii()
                    );
                }
                check_own(got);
            }
            Outcome::Done(_) | Outcome::Tunnel | Outcome::Cut(_) => {
                let (Verdict::Taken(sent_head), Verdict::Taken(got_head)) =
                    (answer, reference::response(got))
                else {
                    panic!(
                        "not a response: {} became {}",
                        sent.escape_ascii(),
                        got.escape_ascii()
                    );
                };
                assert_eq!(got_head.line[1], sent_head.line[1], "the status");
                assert!(
                    got_head.line[2].starts_with(&sent_head.line[2]),
                    "the reason"
                );
                check_fields(&sent_head.fields, &got_head.fields, &["connection"], true);
                let (sent, got) = (&sent[sent_head.len..], &got[got_head.len..]);
                if exchange.outcome == Outcome::Tunnel {
                    assert_eq!(got, sent, "a tunnel forwards bytes unchanged");
                    return;
                }
                let framing = response_framing(&sent_head, request)
                    .unwrap_or_else(|| panic!("a response with invalid framing was forwarded"));
                let decoded = framing == Framing::Chunked && !knows_interim;
                let named = reference::named(&sent_head.fields);
                match exchange.outcome {
                    Outcome::Done(_) if decoded => {
                        let reference::Chunks::Taken((_, data)) =
                            reference::chunked(sent, Side::Target)
                        else {
                            panic!("a malformed body looks complete: {}", sent.escape_ascii());
                        };
                        assert_eq!(got, data);
                    }
                    Outcome::Done(_) => {
                        let framing_got = response_framing(&got_head, request);
                        assert_eq!(framing_got, Some(framing), "the same framing");
                        check_body(sent, got, framing, Side::Target, &named);
                    }
                    Outcome::Cut(_) if decoded || framing == Framing::UntilClose => {}
                    _ => check_partial(sent, got, framing, Side::Target),
                }
            }
        }
    }
}

/// The origin receives the request of the client. Returns its length in the bytes of the client; `None` if only a part was
/// forwarded.
fn check_request(
    sent: &[u8],
    head: &reference::Head,
    got: &[u8],
    outcome: Outcome,
) -> Option<usize> {
    let framing = request_framing(head)
        .unwrap_or_else(|| panic!("a request with invalid framing was forwarded"));
    let Verdict::Taken(next) = reference::request(got) else {
        panic!("no head: {}", got.escape_ascii());
    };
    assert_eq!(next.line[0], head.line[0], "the method");
    assert_eq!(next.line[2], "Http11");
    assert_eq!(next.line[1], forwarded_target(&head.line[0], &head.line[1]));
    check_fields(
        &head.fields,
        &next.fields,
        &["host", "via", "upgrade", "te", "connection", "max-forwards"],
        false,
    );
    assert_eq!(
        request_framing(&next),
        Some(framing),
        "the same framing on both hops"
    );
    let (sent_body, got_body) = (&sent[head.len..], &got[next.len..]);
    if outcome == Outcome::Tunnel {
        assert_eq!(framing, Framing::Empty);
        assert_eq!(got_body, sent_body, "a tunnel forwards bytes unchanged");
        return None;
    }
    let named = reference::named(&head.fields);
    match outcome {
        Outcome::Done(AfterResponse::KeepAlive) => {
            let len = check_body(sent_body, got_body, framing, Side::Client, &named);
            Some(head.len + len)
        }
        // It may be complete; the received part is correct.
        _ => {
            let is_whole =
                body_len(got_body, framing, Side::Client).is_some_and(|len| len == got_body.len());
            if is_whole {
                check_body(sent_body, got_body, framing, Side::Client, &named);
            } else {
                check_partial(sent_body, got_body, framing, Side::Client);
            }
            None
        }
    }
}

/// RFC 9112 §3.2.2: absolute-form becomes origin-form; the others stay.
fn forwarded_target(method: &str, target: &str) -> String {
    if target.starts_with('/') || target == "*" {
        return target.to_owned();
    }
    let behind_scheme = target.get("http://".len()..).unwrap_or_default();
    let at = behind_scheme
        .find(['/', '?'])
        .unwrap_or(behind_scheme.len());
    match &behind_scheme[at..] {
        "" if method == "OPTIONS" => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    }
}

/// A complete body is forwarded byte by byte, except for its trailers. Returns its length in `sent`.
fn check_body(
    sent: &[u8],
    got: &[u8],
    framing: Framing,
    side: Side,
    nominated: &[String],
) -> usize {
    match framing {
        Framing::Chunked => {
            let reference::Chunks::Taken((len, _)) = reference::chunked(sent, side) else {
                panic!("a malformed body looks complete: {}", sent.escape_ascii());
            };
            assert_eq!(
                got.get(..len),
                Some(&sent[..len]),
                "chunks are forwarded unchanged"
            );
            if sent[..len].ends_with(b"\r\n\r\n") && !is_trailing(&sent[..len], side) {
                assert_eq!(got.len(), len, "no bytes after it");
                return len;
            }
            match (
                reference::section(&sent[len..], side),
                reference::section(&got[len..], side),
            ) {
                (Section::Taken(mut lines, sent_len), Section::Taken(got_lines, got_len)) => {
                    lines.retain(|(name, _)| {
                        let name = name.to_ascii_lowercase();
                        let is_set_by_ic = side == Side::Client && is_ours(&name);
                        !is_set_by_ic
                            && !reference::stays_out_of_trailers(&name)
                            && !nominated.contains(&name)
                    });
                    assert_eq!(got_lines, lines, "the allowed trailers");
                    assert_eq!(got.len(), len + got_len, "no bytes after it");
                    len + sent_len
                }
                _ => panic!("malformed trailers look complete: {}", sent.escape_ascii()),
            }
        }
        Framing::UntilClose => {
            assert_eq!(got, sent);
            sent.len()
        }
        Framing::Empty => {
            assert!(got.is_empty(), "no body: {}", got.escape_ascii());
            0
        }
        Framing::Length(length) => {
            let length = usize::try_from(length).expect("64 bits");
            assert_eq!(Some(got), sent.get(..length));
            length
        }
    }
}

/// Whether a chunked body up to there ends before a trailer section: `0 CRLF`, and not `0 CRLF CRLF`.
fn is_trailing(taken: &[u8], side: Side) -> bool {
    !matches!(reference::chunked(taken, side), reference::Chunks::Taken((len, _)) if len == taken.len())
}

/// Part of a body is a prefix of it, and the receiver can detect that it is incomplete.
fn check_partial(sent: &[u8], got: &[u8], framing: Framing, side: Side) {
    assert!(
        sent.starts_with(got),
        "{} of {}",
        got.escape_ascii(),
        sent.escape_ascii()
    );
    assert_eq!(
        body_len(got, framing, side),
        None,
        "it looks complete: {}",
        got.escape_ascii()
    );
}

/// The length of a complete body at the start of `bytes`.
fn body_len(bytes: &[u8], framing: Framing, side: Side) -> Option<usize> {
    match framing {
        Framing::Empty => Some(0),
        Framing::UntilClose => None,
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            (bytes.len() >= length).then_some(length)
        }
        Framing::Chunked => match reference::chunked(bytes, side) {
            reference::Chunks::Taken((len, _)) if !is_trailing(&bytes[..len], side) => Some(len),
            reference::Chunks::Taken((len, _)) => match reference::section(&bytes[len..], side) {
                Section::Taken(_, trailers) => Some(len + trailers),
                _ => None,
            },
            _ => None,
        },
    }
}

fn request_framing(head: &reference::Head) -> Option<Framing> {
    let announced = reference::announced(&head.fields, head.line[2] == "Http11")?;
    Some(announced.unwrap_or(Framing::Empty))
}

fn request_len(bytes: &[u8], head: &reference::Head) -> Option<usize> {
    Some(head.len + body_len(&bytes[head.len..], request_framing(head)?, Side::Client)?)
}

fn response_framing(head: &reference::Head, request: &reference::Head) -> Option<Framing> {
    let announced = reference::announced(&head.fields, true)?;
    let status = &head.line[1][..];
    if request.line[0] == "HEAD" || status.starts_with('1') || ["204", "304"].contains(&status) {
        return Some(Framing::Empty);
    }
    Some(announced.unwrap_or(Framing::UntilClose))
}

fn is_whole(answer: &Verdict, sent: &[u8], request: &reference::Head) -> bool {
    let Verdict::Taken(head) = answer else {
        return false;
    };
    response_framing(head, request)
        .is_some_and(|framing| body_len(&sent[head.len..], framing, Side::Target).is_some())
}

/// End-to-end fields are forwarded unchanged and in order; this hop replaces `set`.
fn check_fields(sent: &[Line], got: &[Line], set: &[&str], is_response: bool) {
    let passes = |(name, _): &Line| {
        let is_framing = ["content-length", "transfer-encoding"].contains(&&name[..]);
        !set.contains(&&name[..])
            && (is_response || !is_ours(name))
            && !(is_response && (is_framing || name == "upgrade"))
            && name != "expect"
    };
    let mut expected = reference::end_to_end(sent);
    let mut passed = reference::lowercased(got);
    // Via is appended to, not replaced: the first values are those of the client.
    expected.retain(passes);
    passed.retain(passes);
    assert_eq!(passed, expected);
}

/// Whether the target could take a field of the client for the one that the interceptor sets.
fn is_ours(name: &str) -> bool {
    reference::variable(name) == "X_SOURCE"
}

/// The length of a head.
fn passed_len(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Taken(head) => head.len,
        Verdict::Refused | Verdict::Unended => 0,
    }
}

fn has_own_code(head: &reference::Head) -> bool {
    head.fields.iter().any(|(name, _)| name == "x-ic-error")
}

/// An error response of the interceptor: complete, and nothing after it.
fn check_own(bytes: &[u8]) {
    let Verdict::Taken(head) = reference::response(bytes) else {
        panic!("no answer: {}", bytes.escape_ascii());
    };
    assert!(has_own_code(&head), "{}", bytes.escape_ascii());
    let closes = |(name, value): &Line| name == "Connection" && value == b"close";
    assert!(head.fields.iter().any(closes), "it announces the close");
    let body = &bytes[head.len..];
    let announced = reference::announced(&head.fields, true);
    let is_whole = announced == Some(Some(Framing::Length(body.len() as u64)));
    assert!(is_whole || body.is_empty(), "{}", bytes.escape_ascii());
}

/// Errors that the reference does not check: the host and the scheme of a request, and limits.
fn is_beyond_the_reference(error: Error) -> bool {
    matches!(
        error,
        Error::Target
            | Error::RequestLine
            | Error::HostMissing
            | Error::HostRepeated
            | Error::HostMalformed
            | Error::HostForeign
            | Error::ForwardProxy
            | Error::OriginForeign
            | Error::Loop
            | Error::Connect
            | Error::ConnectBody
            | Error::TooManyOptions
            | Error::ChunkOverhead
    )
}
