//! What is told of one exchange, from its own thread.
//!
//! It is there only while the feed is on; then the relays show it what has passed, after it has: no byte waits for it. Where a
//! body ends is not decided here: a second [`Body`] follows the first.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::event::{Event, Fields, Line, Outcome, Side, now};
use super::hub::{Hub, Of};
use super::observe::{Kind, Observer, Seen};
use super::{record, redact};
use crate::http::body::Body;
use crate::http::chunked::Piece;
use crate::http::framing::Framing;
use crate::http::head::{Field, RequestHead, ResponseHead, Version};
use crate::serve::error::{ClientFault, Fault};

/// What an exchange tells.
#[derive(Debug)]
pub struct Trace {
    hub: Arc<Hub>,
    id: u64,
    began: Instant,
    request: RefCell<BodyTrace>,
    response: RefCell<BodyTrace>,
    /// The status of the target's answer, and when it began.
    answer: Cell<Option<(u16, f64)>>,
    /// When its progress was told last.
    told: Cell<Instant>,
    is_over: Cell<bool>,
}

/// What a request begins with.
#[derive(Debug)]
pub struct Beginning<'a> {
    pub connection: u64,
    /// Where the client is, if it is somewhere.
    pub client: Option<SocketAddr>,
    /// Its head, if it can be read.
    pub head: Option<&'a RequestHead<'a, 'a>>,
    /// Where it goes.
    pub path: Option<&'a str>,
    pub framing: Framing,
    pub began: Instant,
}

/// One body of it.
#[derive(Debug)]
struct BodyTrace {
    body: Body,
    bytes: u64,
    observer: Option<Observer>,
    kept: Option<record::Body>,
    /// When its first event came, and its last.
    events: Option<(f64, f64)>,
}

/// What a relay shows a body to.
#[derive(Debug, Clone, Copy)]
pub struct BodyTap<'a> {
    trace: &'a Trace,
    side: Side,
}

impl Trace {
    /// A request has come.
    pub fn begin(hub: &Arc<Hub>, beginning: &Beginning<'_>) -> Trace {
        let &Beginning {
            connection,
            client,
            head,
            path,
            framing,
            began,
        } = beginning;
        let id = hub.next_id();
        let fields = head.map_or(&[][..], |head| head.fields);
        let client = client.map_or_else(|| "unix".to_owned(), |client| client.to_string());
        let path = path.map(redact::path);
        let start = Event::Start {
            id,
            at: now(),
            connection,
            client: &client,
            method: head.map(|head| head.method),
            path: path.as_deref(),
            version: head.map(|head| match head.version {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
            }),
            fields: Fields(fields),
            length: length(framing),
        };
        hub.tell(Of::Beginning(id), &start.line());
        Trace {
            hub: Arc::clone(hub),
            id,
            began,
            request: RefCell::new(BodyTrace::new(framing, fields, records(hub))),
            response: RefCell::new(BodyTrace::new(Framing::Empty, &[], None)),
            answer: Cell::new(None),
            told: Cell::new(began),
            is_over: Cell::new(false),
        }
    }

    /// The target's answer has begun.
    pub fn answers(&self, head: &ResponseHead<'_, '_>, framing: Framing) {
        let ttfb_ms = self.age();
        self.answer.set(Some((head.status, ttfb_ms)));
        *self.response.borrow_mut() = BodyTrace::new(framing, head.fields, records(&self.hub));
        if !self.hub.is_on() {
            return;
        }
        let reason = head.status_and_reason.get(4..).unwrap_or_default();
        let event = Event::Head {
            id: self.id,
            at: now(),
            status: head.status,
            reason: &String::from_utf8_lossy(reason),
            fields: Fields(head.fields),
            length: length(framing),
            ttfb_ms,
        };
        self.tell(&event.line());
    }

    /// From here on the bytes of both sides are a tunnel's.
    pub fn tunnels(&self) {
        for passing in [&self.request, &self.response] {
            *passing.borrow_mut() = BodyTrace::new(Framing::UntilClose, &[], None);
        }
    }

    /// What shows the body of that side as it passes.
    pub fn sight(&self, side: Side) -> BodyTap<'_> {
        BodyTap { trace: self, side }
    }

    /// The exchange is over, with the last byte of its answer or of its tunnel.
    pub fn completes(&self, outcome: Outcome, status: u16) {
        self.end(outcome, Some(status), None);
    }

    /// The exchange broke off.
    pub fn breaks(&self, fault: &Fault, is_answered: bool) {
        let answer = fault.answer("");
        let outcome = match fault {
            Fault::Client(ClientFault::Gone | ClientFault::Stalled) => Outcome::ClientGone,
            Fault::Client(_) => Outcome::Refused,
            Fault::Origin(_) if is_answered => Outcome::OriginCut,
            Fault::Origin(_) => Outcome::Error,
        };
        let told = self
            .answer
            .get()
            .filter(|_| is_answered || answer.is_none());
        let status = match told {
            Some((status, _)) => Some(status),
            None => fault.status(),
        };
        let code = answer.as_ref().map(|answer| answer.reply().code);
        self.end(outcome, status, code);
    }

    fn end(&self, outcome: Outcome, status: Option<u16>, error: Option<&str>) {
        self.is_over.set(true);
        self.tell_body(Side::Request);
        self.tell_body(Side::Response);
        if !self.hub.is_on() {
            return;
        }
        let (request, response) = (self.request.borrow(), self.response.borrow());
        let (asked, answered) = (request.seen(), response.seen());
        let end = Event::End {
            id: self.id,
            at: now(),
            duration_ms: self.age(),
            ttfb_ms: self.answer.get().map(|(_, ttfb_ms)| ttfb_ms),
            request_bytes: request.bytes,
            response_bytes: response.bytes,
            outcome,
            status,
            error,
            // The answer knows better: a name without a date becomes one with.
            model: answered.model.as_deref().or(asked.model.as_deref()),
            input_tokens: answered.input_tokens,
            output_tokens: answered.output_tokens,
            events: answered.events,
            first_event_ms: response.events.map(|(first, _)| first),
            last_event_ms: response.events.map(|(_, last)| last),
        };
        self.tell(&end.line());
    }

    fn passing(&self, side: Side) -> &RefCell<BodyTrace> {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }

    fn has_passed(&self, side: Side) {
        if self.passing(side).borrow().body.is_complete() {
            self.tell_body(side);
        }
        let now = Instant::now();
        if now.duration_since(self.told.get()) >= PROGRESS_PAUSE && self.hub.is_on() {
            self.told.set(now);
            let response = self.response.borrow();
            let progress = Event::Progress {
                id: self.id,
                request_bytes: self.request.borrow().bytes,
                response_bytes: response.bytes,
                events: response.seen().events,
            };
            self.hub.tell(Of::Moment, &progress.line());
        }
    }

    /// Tells what was kept of a body, once.
    fn tell_body(&self, side: Side) {
        let mut passing = self.passing(side).borrow_mut();
        let Some(kept) = passing.kept.take() else {
            return;
        };
        if passing.bytes > 0 && self.hub.records() {
            let is_cut = kept.is_cut() || !passing.body.is_complete();
            let (encoding, data) = readable(kept.bytes(), kept.is_cut());
            let body = Event::Body {
                id: self.id,
                side,
                encoding,
                data: &data,
                truncated: is_cut,
                total: passing.bytes,
            };
            self.tell(&body.line());
        }
    }

    fn tell(&self, line: &Line) {
        self.hub.tell(Of::Exchange(self.id), line);
    }

    fn age(&self) -> f64 {
        // Whole microseconds: what is behind them says nothing.
        self.began.elapsed().as_micros() as f64 / 1e3
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // A program that ends does not wait for it.
        if !self.is_over.get() {
            let status = self.answer.get().map(|(status, _)| status);
            self.end(Outcome::Error, status, Some("interrupted"));
        }
    }
}

impl BodyTap<'_> {
    /// These bytes of the body have passed, framing included.
    pub fn passed(self, bytes: &[u8]) {
        {
            let mut passing = self.trace.passing(self.side).borrow_mut();
            passing.see(bytes, self.trace);
        }
        self.trace.has_passed(self.side);
    }

    /// So many bytes of its data have passed unseen.
    pub fn passed_unseen(self, count: u64) {
        {
            let mut passing = self.trace.passing(self.side).borrow_mut();
            passing.bytes += count;
            passing.body.advance(count);
            passing.forget_unless(self.trace.hub.records());
            if let Some(kept) = &mut passing.kept {
                kept.cut();
            }
        }
        self.trace.has_passed(self.side);
    }

    /// Whether it wants to see what comes.
    pub fn is_curious(self) -> bool {
        let passing = self.trace.passing(self.side).borrow();
        // A request says its model once, and nothing else.
        let is_told = self.side == Side::Request && passing.seen().model.is_some();
        let observes = passing.observer.is_some() && !is_told;
        observes || passing.kept.as_ref().is_some_and(|kept| !kept.is_cut())
    }
}

impl BodyTrace {
    fn new(framing: Framing, fields: &[Field<'_>], kept: Option<record::Body>) -> BodyTrace {
        BodyTrace {
            body: Body::new(framing),
            bytes: 0,
            observer: kind(fields).map(Observer::new),
            kept,
            events: None,
        }
    }

    fn see(&mut self, bytes: &[u8], trace: &Trace) {
        self.forget_unless(trace.hub.records());
        let mut used = 0;
        let before = self.seen().events;
        // What is behind the data, or malformed, is the relay's business.
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            match self.body.next(rest) {
                Ok(Piece::Data(count)) => {
                    let data = &rest[..count];
                    self.bytes += count as u64;
                    if let Some(observer) = &mut self.observer {
                        observer.see(data);
                    }
                    if let Some(kept) = &mut self.kept {
                        kept.keep(data);
                    }
                    used += count;
                }
                Ok(Piece::Framing(count)) => used += count,
                _ => break,
            }
        }
        if self.seen().events > before {
            let age = trace.age();
            self.events = Some((self.events.map_or(age, |(first, _)| first), age));
        }
    }

    /// A body that passes while nothing is recorded is not kept, whatever was before.
    fn forget_unless(&mut self, records: bool) {
        if !records {
            self.kept = None;
        }
    }

    fn seen(&self) -> &Seen {
        match &self.observer {
            Some(observer) => observer.seen(),
            None => &NOTHING_SEEN,
        }
    }
}

/// Where a body is kept, if it is to be.
fn records(hub: &Hub) -> Option<record::Body> {
    hub.records().then(|| record::Body::new(&hub.budget))
}

static NOTHING_SEEN: Seen = Seen {
    model: None,
    input_tokens: None,
    output_tokens: None,
    events: 0,
};

/// How a body with these fields is to be read, if it can be.
fn kind(fields: &[Field<'_>]) -> Option<Kind> {
    let one = |name: &str| {
        let mut values = fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .filter_map(|field| std::str::from_utf8(field.value).ok());
        values.next()
    };
    let is_coded =
        one("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    one("content-type").filter(|_| !is_coded).and_then(Kind::of)
}

/// What a body announces.
fn length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Empty => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// A body as it may be shown: text without its keys; or base64, where it is no text or is full of what would be escaped.
fn readable(bytes: &[u8], is_cut: bool) -> (&'static str, Cow<'_, str>) {
    // Nearly all of them are text: no character of it is looked at alone.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !is_odd(text)
    {
        return ("utf8", redact::text(text, is_cut));
    }
    let (encoding, data) = readable_bytes(bytes, is_cut);
    (encoding, data.into())
}

/// As [`readable`], of what may be no text.
fn readable_bytes(bytes: &[u8], is_cut: bool) -> (&'static str, String) {
    let mut shown = Vec::with_capacity(bytes.len());
    let mut is_text = true;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        let is_last = chunks.peek().is_none();
        let text = redact::text(chunk.valid(), is_cut && is_last);
        is_text &= !is_odd(&text);
        shown.extend_from_slice(text.as_bytes());
        // What is cut within a character is text all the same.
        if !(is_text && is_cut && is_last && is_begun(chunk.invalid())) {
            is_text &= chunk.invalid().is_empty();
            shown.extend_from_slice(chunk.invalid());
        }
    }
    match String::from_utf8(shown) {
        Ok(text) if is_text => ("utf8", text),
        Ok(text) => ("base64", BASE64_STANDARD.encode(text)),
        Err(error) => ("base64", BASE64_STANDARD.encode(error.as_bytes())),
    }
}

/// Whether control characters are in it other than those of lines and tables.
fn is_odd(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_ascii_odd =
        |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r' | b'\t');
    // Whole blocks, each to its end: that is what a compiler makes wide instructions of.
    let is_block_odd = |block: &[u8]| {
        block
            .iter()
            .fold(false, |odd, byte| odd | is_ascii_odd(byte))
    };
    bytes.chunks(64).any(is_block_odd)
        // U+0080 to U+009F are C2 80 to C2 9F.
        || memchr::memchr_iter(0xc2, bytes)
            .any(|at| bytes.get(at + 1).is_some_and(|&next| next < 0xa0))
}

/// Whether these bytes may be the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Between two lines on the progress of an exchange.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // A table.
    fn a_body_is_shown_as_text_where_it_is_text() {
        let check = |why: &str, bytes: &[u8], is_cut: bool, (encoding, data): (&str, &str)| {
            assert_eq!(readable(bytes, is_cut), (encoding, data.into()), "{why}");
        };
        check("nothing", b"", false, ("utf8", ""));
        check("text", "a\r\n\té".as_bytes(), false, ("utf8", "a\r\n\té"));
        check("a key", b"a sk-0123456789abcdef b", false, ("utf8", "a … b"));
        check("cut within a key", b"a sk-01", true, ("utf8", "a …"));
        check("cut within a character", "aé".as_bytes().split_last().expect("two").1, true, ("utf8", "a"));
        check("ends within a character", "aé".as_bytes().split_last().expect("two").1, false, ("base64", "YcM="));
        check("control characters of Unicode", "\u{9b}a\u{a0}".as_bytes(), false, ("base64", "wpthwqA="));
        check("what only begins like them", "\u{a0}\u{2028}".as_bytes(), false, ("utf8", "\u{a0}\u{2028}"));
        check("control characters", b"a\0", false, ("base64", "YQA="));
        check("bytes", b"\xff\xfe", true, ("base64", "//4="));
        check("a key among bytes", b"\xff sk-0123456789abcdef", false, ("base64", "/yDigKY="));
        check("a key among control characters", b"\0 sk-0123456789abcdef", false, ("base64", "ACDigKY="));
    }

    #[test]
    fn no_control_character_is_missed_wherever_it_stands() {
        for byte in 0..128u8 {
            for at in 0..17 {
                let mut text = *b"text of 17 bytes.";
                text[at] = byte;
                let text = std::str::from_utf8(&text).expect("ASCII");
                let expected = text.contains(|character: char| {
                    character.is_control() && !matches!(character, '\n' | '\r' | '\t')
                });
                assert_eq!(is_odd(text), expected, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn a_body_is_looked_at_unless_it_is_coded() {
        let json = Field {
            name: "Content-Type",
            value: b"application/json",
        };
        let coded = |value| Field {
            name: "content-ENCODING",
            value,
        };
        assert_eq!(kind(&[json]), Some(Kind::Json));
        assert_eq!(kind(&[coded(b"identity"), json]), Some(Kind::Json));
        assert_eq!(kind(&[json, coded(b"gzip")]), None);
        assert_eq!(kind(&[]), None);
    }
}
