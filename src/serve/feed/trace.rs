//! Publishes the events of one exchange.
//!
//! A trace exists only while the hub is active. The relays show it each piece of a body after it has passed, so no byte waits
//! for it. A second [`Body`] follows the framing, because where a body ends is decided there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::event::{Event, Fields, Outcome, Side, unix_time};
use super::hub::{Hub, Retention};
use super::observe::{BodyFormat, BodySummary, Observer};
use super::record::RecordedBody;
use crate::http;
use crate::http::body::Body;
use crate::http::chunked::Piece;
use crate::http::framing::Framing;
use crate::http::head::{Field, RequestHead, ResponseHead, Version, elements};
use crate::http::rewrite::RequestRewriter;
use crate::serve::error::{ClientError, ForwardError};
use crate::text::redact;

/// One exchange and what its subscribers know of it. Dropped before its end, it ends as interrupted.
#[derive(Debug)]
pub struct Trace {
    hub: Rc<Hub>,
    /// The port that it came to.
    port: Option<u16>,
    id: u64,
    began: Instant,
    request: RefCell<BodyTrace>,
    response: RefCell<BodyTrace>,
    /// The status of the target's response, and when its head came, in milliseconds.
    response_head: Cell<Option<(u16, f64)>>,
    /// When the last progress was published, or the exchange began.
    last_progress: Cell<Instant>,
    has_ended: Cell<bool>,
}

/// What is known of a request when its head has come.
#[derive(Debug)]
pub struct RequestStart<'a> {
    /// `None` on a Unix socket.
    pub port: Option<u16>,
    pub connection: u64,
    /// `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// `None` if it is malformed.
    pub head: Option<&'a RequestHead<'a, 'a>>,
    /// What rewrites its head; `None` if it is refused.
    pub rewriter: Option<&'a RequestRewriter>,
    pub path: Option<&'a str>,
    pub framing: Framing,
    /// When its first byte came.
    pub began: Instant,
}

/// The body of one side.
#[derive(Debug)]
struct BodyTrace {
    body: Body,
    /// Bytes of data so far, without framing.
    bytes: u64,
    observer: Option<Observer>,
    recorded: Option<RecordedBody>,
    /// When its first and last server-sent event came, in milliseconds.
    events: Option<(f64, f64)>,
}

/// Shows the body of one side to its trace.
#[derive(Debug, Clone, Copy)]
pub struct BodyTap<'a> {
    trace: &'a Trace,
    side: Side,
}

impl Trace {
    /// Publishes the start of an exchange.
    pub fn start(hub: &Rc<Hub>, start: &RequestStart<'_>) -> Trace {
        let &RequestStart {
            port,
            connection,
            client,
            head,
            rewriter,
            path,
            framing,
            began,
        } = start;
        let id = hub.next_exchange_id();
        let fields = head.map_or(&[][..], |head| head.fields);
        let client = client.map_or_else(|| "unix".to_owned(), |client| client.to_string());
        let path = path.map(redact::path);
        let method = head.map(|head| redact::text(head.method, false));
        let added = rewriter.zip(head);
        let added = added.map(|(rewriter, head)| rewriter.added(head.version));
        let event = Event::Start {
            id,
            at: unix_time(),
            port,
            connection,
            client: &client,
            method: method.as_deref(),
            path: path.as_deref(),
            version: head.map(|head| match head.version {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
            }),
            fields: Fields(fields),
            added: added.as_deref().map(Fields),
            length: announced_length(framing),
        };
        hub.publish(port, Retention::ExchangeStart(id), &event.line());
        Trace {
            hub: Rc::clone(hub),
            port,
            id,
            began,
            request: RefCell::new(BodyTrace::new(framing, fields, new_recorded_body(hub))),
            response: RefCell::new(BodyTrace::new(Framing::Empty, &[], None)),
            response_head: Cell::new(None),
            last_progress: Cell::new(began),
            has_ended: Cell::new(false),
        }
    }

    /// Publishes the head of the target's response.
    pub fn start_response(&self, head: &ResponseHead<'_, '_>, framing: Framing) {
        let ttfb_ms = self.elapsed_ms();
        self.response_head.set(Some((head.status, ttfb_ms)));
        *self.response.borrow_mut() =
            BodyTrace::new(framing, head.fields, new_recorded_body(&self.hub));
        let reason = head.status_and_reason.get(4..).unwrap_or_default();
        let event = Event::Head {
            id: self.id,
            at: unix_time(),
            status: head.status,
            reason: &redact::text(&String::from_utf8_lossy(reason), false),
            fields: Fields(head.fields),
            length: announced_length(framing),
            ttfb_ms,
        };
        self.publish(&event);
    }

    /// From here on the bodies of both sides are the bytes of a tunnel.
    pub fn start_tunnel(&self) {
        for body in [&self.request, &self.response] {
            *body.borrow_mut() = BodyTrace::new(Framing::UntilClose, &[], None);
        }
    }

    /// Returns what shows the body of `side` to this trace.
    pub fn tap(&self, side: Side) -> BodyTap<'_> {
        BodyTap { trace: self, side }
    }

    /// Publishes the end of an exchange or a tunnel that was served.
    pub fn complete(&self, outcome: Outcome, status: u16) {
        self.end(outcome, Some(status), None);
    }

    /// Publishes the end of an exchange that failed. `is_answered`: the client has the target's response head.
    pub fn fail(&self, fault: &ForwardError, is_answered: bool) {
        let reply = fault.reply("");
        let outcome = match fault {
            ForwardError::Client(ClientError::Gone | ClientError::Stalled) => Outcome::ClientGone,
            ForwardError::Client(_) => Outcome::Refused,
            ForwardError::Upstream(_) if is_answered => Outcome::OriginCut,
            ForwardError::Upstream(_) => Outcome::Error,
        };
        let status = match self.response_head.get() {
            Some((status, _)) if is_answered || reply.is_none() => Some(status),
            _ => fault.status(),
        };
        let code = reply.map(|reply| reply.code);
        self.end(outcome, status, code);
    }

    fn end(&self, outcome: Outcome, status: Option<u16>, error: Option<&str>) {
        self.has_ended.set(true);
        self.publish_body(Side::Request);
        self.publish_body(Side::Response);
        let (request, response) = (self.request.borrow(), self.response.borrow());
        let (requested, responded) = (request.summary(), response.summary());
        // The response is more precise: its name of the model may have a date.
        let model = responded.model.as_deref().or(requested.model.as_deref());
        let model = model.map(|model| redact::text(model, false));
        let event = Event::End {
            id: self.id,
            at: unix_time(),
            port: self.port,
            duration_ms: self.elapsed_ms(),
            ttfb_ms: self.response_head.get().map(|(_, ttfb_ms)| ttfb_ms),
            request_bytes: request.bytes,
            response_bytes: response.bytes,
            outcome,
            status,
            error,
            model: model.as_deref(),
            input_tokens: responded.input_tokens,
            output_tokens: responded.output_tokens,
            events: responded.events,
            first_event_ms: response.events.map(|(first, _)| first),
            last_event_ms: response.events.map(|(_, last)| last),
        };
        self.publish(&event);
    }

    fn body(&self, side: Side) -> &RefCell<BodyTrace> {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }

    /// Publishes what follows from a piece of a body: its end, and now and then the progress.
    fn after_piece(&self, side: Side) {
        if self.body(side).borrow().body.is_complete() {
            self.publish_body(side);
        }
        let now = Instant::now();
        let pause = now.duration_since(self.last_progress.get());
        if pause >= PROGRESS_INTERVAL && self.hub.is_active(self.port) {
            self.last_progress.set(now);
            let response = self.response.borrow();
            let event = Event::Progress {
                id: self.id,
                request_bytes: self.request.borrow().bytes,
                response_bytes: response.bytes,
                events: response.summary().events,
            };
            self.hub.publish(self.port, Retention::None, &event.line());
        }
    }

    /// Publishes the recorded body of `side`, once.
    fn publish_body(&self, side: Side) {
        let mut trace = self.body(side).borrow_mut();
        let Some(mut recorded) = trace.recorded.take() else {
            return;
        };
        if trace.bytes == 0 || !self.hub.is_recording() {
            return;
        }
        if !trace.body.is_complete() {
            recorded.truncate();
        }
        let (encoding, data) = recorded.encoded();
        let event = Event::Body {
            id: self.id,
            side,
            encoding,
            data: &data,
            truncated: recorded.is_truncated(),
            total: trace.bytes,
        };
        self.publish(&event);
    }

    fn publish(&self, event: &Event<'_>) {
        // The last subscriber may have left since the trace was started.
        if self.hub.is_active(self.port) {
            let retention = Retention::Exchange(self.id);
            self.hub.publish(self.port, retention, &event.line());
        }
    }

    /// Returns the milliseconds since the request's first byte, to the microsecond.
    fn elapsed_ms(&self) -> f64 {
        self.began.elapsed().as_micros() as f64 / 1e3
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // An exchange that is cut at shutdown is dropped before its end.
        if !self.has_ended.get() {
            let status = self.response_head.get().map(|(status, _)| status);
            self.end(Outcome::Error, status, Some("interrupted"));
        }
    }
}

impl BodyTap<'_> {
    /// Reads the next bytes of the body, which have passed, framing included.
    pub fn observe(self, bytes: &[u8]) {
        let body = self.trace.body(self.side);
        body.borrow_mut().observe(bytes, self.trace);
        self.trace.after_piece(self.side);
    }

    /// All of the body has passed. The bytes do not say so where a trailer section or the end of the connection ends it.
    pub fn end(self) {
        self.trace.body(self.side).borrow_mut().body = Body::new(Framing::Empty);
        self.trace.publish_body(self.side);
    }

    /// Counts bytes of data that have passed without being read.
    pub fn skip(self, count: u64) {
        let body = self.trace.body(self.side);
        body.borrow_mut().skip(count, self.trace);
        self.trace.after_piece(self.side);
    }

    /// Whether the next bytes are to be read, not skipped.
    pub fn wants_bytes(self) -> bool {
        let trace = self.trace.body(self.side).borrow();
        // A request has its model once, and no tokens.
        let is_known = self.side == Side::Request && trace.summary().model.is_some();
        let observes = trace.observer.is_some() && !is_known;
        let records = |recorded: &RecordedBody| !recorded.is_truncated();
        observes || trace.recorded.as_ref().is_some_and(records)
    }
}

impl BodyTrace {
    fn new(
        framing: Framing,
        fields: &[Field<'_>],
        mut recorded: Option<RecordedBody>,
    ) -> BodyTrace {
        let is_coded = content_coding(fields).is_some();
        if let Some(recorded) = recorded.as_mut().filter(|_| is_coded) {
            recorded.omit();
        }
        BodyTrace {
            // The lenient one for both: the relay has judged the framing.
            body: Body::of_response(framing),
            bytes: 0,
            observer: body_format(fields).map(Observer::new),
            recorded,
            events: None,
        }
    }

    fn observe(&mut self, bytes: &[u8], trace: &Trace) {
        self.discard_unless(trace.hub.is_recording());
        let before = self.summary().events;
        let mut rest = bytes;
        while !rest.is_empty() {
            // Malformed framing and what follows the data are left to the relay.
            let (count, is_data) = match self.body.next(rest) {
                Ok(Piece::Data(count)) => (count, true),
                Ok(Piece::Framing(count)) => (count, false),
                _ => break,
            };
            let (piece, behind) = rest.split_at(count);
            rest = behind;
            if is_data {
                self.observe_data(piece);
            }
        }
        if self.summary().events > before {
            let now = trace.elapsed_ms();
            self.events = Some((self.events.map_or(now, |(first, _)| first), now));
        }
    }

    fn skip(&mut self, count: u64, trace: &Trace) {
        self.discard_unless(trace.hub.is_recording());
        self.bytes += count;
        self.body.advance(count);
        if let Some(recorded) = &mut self.recorded {
            recorded.truncate();
        }
    }

    fn observe_data(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        if let Some(observer) = &mut self.observer {
            observer.observe(data);
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.append(data);
        }
    }

    /// Discards the recorded start of a body that passes while recording is off.
    fn discard_unless(&mut self, is_recording: bool) {
        if !is_recording {
            self.recorded = None;
        }
    }

    fn summary(&self) -> &BodySummary {
        match &self.observer {
            Some(observer) => observer.summary(),
            None => &NO_SUMMARY,
        }
    }
}

fn new_recorded_body(hub: &Hub) -> Option<RecordedBody> {
    hub.is_recording()
        .then(|| RecordedBody::new(&hub.body_budget))
}

static NO_SUMMARY: BodySummary = BodySummary {
    model: None,
    input_tokens: None,
    output_tokens: None,
    events: 0,
};

/// Returns how a body with these fields is read; `None` if it cannot be, also because of a content coding.
fn body_format(fields: &[Field<'_>]) -> Option<BodyFormat> {
    let content_type = http::values(fields, "content-type").next()?;
    BodyFormat::of(std::str::from_utf8(content_type).ok()?)
        .filter(|_| content_coding(fields).is_none())
}

/// Returns the first content coding that changes a body (RFC 9110 §8.4). `identity` is none, but some servers send it.
fn content_coding<'b>(fields: &[Field<'b>]) -> Option<&'b [u8]> {
    let mut codings = elements(fields, "content-encoding");
    codings.find(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// Returns the length that a message announces for its body.
fn announced_length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Empty => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// The pause between two progress events of an exchange.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_observed_unless_it_is_coded() {
        let json = Field {
            name: "Content-Type",
            value: b"application/json",
        };
        let coded = |value| Field {
            name: "content-ENCODING",
            value,
        };
        assert_eq!(body_format(&[json]), Some(BodyFormat::Json));
        assert_eq!(
            body_format(&[coded(b"identity"), json]),
            Some(BodyFormat::Json)
        );
        assert_eq!(body_format(&[json, coded(b"gzip")]), None);
        assert_eq!(body_format(&[json, coded(b"identity, br")]), None);
        assert_eq!(body_format(&[coded(b""), json, coded(b"\xff")]), None);
        assert_eq!(body_format(&[]), None);
    }
}
