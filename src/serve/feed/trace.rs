//! Publishes the events of one exchange.
//!
//! A trace exists only while the hub is active. The relays show it each piece of a body after it has passed, so no byte waits
//! for it. A second [`Body`] follows the framing, because where a body ends is decided there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::event::{Event, Fields, Line, Outcome, Side, unix_time};
use super::hub::{Hub, Retention};
use super::observe::{BodyFormat, BodySummary, Observer, model_in_path};
use super::record::{OpenBody, RecordedBody};
use crate::http;
use crate::http::body::Body;
use crate::http::chunked::Piece;
use crate::http::framing::Framing;
use crate::http::head::{Field, RequestHead, ResponseHead, Version, elements};
use crate::http::reply::Reply;
use crate::http::rewrite::RequestRewriter;
use crate::serve::error::ForwardError;
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
    /// The model that the path names.
    path_model: Option<String>,
    /// What the target says that its response costs, in US dollars.
    cost: Cell<Option<f64>>,
    /// How the bytes of a tunnel are read; `None` if they are not.
    tunnel_format: Cell<Option<BodyFormat>>,
    /// When the last progress was published, or the exchange began.
    last_progress: Cell<Instant>,
    /// The model has been published.
    has_shown_model: Cell<bool>,
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
    recorded: Option<OpenBody>,
    /// An error document, as far as it has come.
    error: Option<Vec<u8>>,
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
        let path_model = path.and_then(model_in_path).map(str::to_owned);
        let path = path.map(redact::path);
        let upgrade = http::values(fields, "upgrade").next();
        let upgrade = upgrade.map(|protocol| redact::field("Upgrade", protocol));
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
            upgrade: upgrade.as_deref(),
        };
        hub.publish(port, Retention::ExchangeStart(id), &event.line());
        let response = BodyTrace::new(Framing::Empty, &[], new_recorded_body(hub));
        response.show(id, hub);
        Trace {
            hub: Rc::clone(hub),
            port,
            id,
            began,
            request: RefCell::new(BodyTrace::new(framing, fields, new_recorded_body(hub))),
            response: RefCell::new(response),
            response_head: Cell::new(None),
            path_model,
            cost: Cell::new(None),
            tunnel_format: Cell::new(None),
            last_progress: Cell::new(began),
            has_shown_model: Cell::new(false),
            has_ended: Cell::new(false),
        }
    }

    /// Publishes the head of the target's response.
    pub fn start_response(&self, head: &ResponseHead<'_, '_>, framing: Framing) {
        let ttfb_ms = self.elapsed_ms();
        self.response_head.set(Some((head.status, ttfb_ms)));
        self.cost.set(response_cost(head.fields));
        self.tunnel_format.set(tunnel_format(head));
        let mut response = BodyTrace::new(framing, head.fields, new_recorded_body(&self.hub));
        let is_error = head.status >= 400 && body_format(head.fields) == Some(BodyFormat::Json);
        response.error = is_error.then(Vec::new);
        response.show(self.id, &self.hub);
        *self.response.borrow_mut() = response;
        let reason = head.status_and_reason.get(4..).unwrap_or_default();
        let model = self.model();
        self.has_shown_model.set(model.is_some());
        let event = Event::Head {
            id: self.id,
            at: unix_time(),
            status: head.status,
            reason: &redact::text(&String::from_utf8_lossy(reason), false),
            fields: Fields(head.fields),
            length: announced_length(framing),
            ttfb_ms,
            model: model.as_deref(),
        };
        self.publish(&event);
    }

    /// From here on the bodies of both sides are the bytes of a tunnel.
    pub fn start_tunnel(&self) {
        for body in [&self.request, &self.response] {
            let mut trace = BodyTrace::new(Framing::UntilClose, &[], None);
            trace.observer = self.tunnel_format.get().map(Observer::new);
            *body.borrow_mut() = trace;
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

    /// Publishes the end of an exchange that failed. `reply` is the error response, `None` if the client does not read.
    /// `is_answered`: the client has the target's response head.
    pub fn fail(&self, fault: &ForwardError, reply: Option<&Reply<'_>>, is_answered: bool) {
        let outcome = Outcome::after(fault, is_answered);
        let status = match self.response_head.get() {
            Some((status, _)) if is_answered || reply.is_none() => Some(status),
            _ => reply.map(|reply| reply.status),
        };
        self.end(
            outcome,
            status,
            reply.map(|reply| (reply.code, &*reply.message)),
        );
    }

    /// Publishes the end. `error` is the code and the message of an error of the interceptor.
    fn end(&self, outcome: Outcome, status: Option<u16>, error: Option<(&str, &str)>) {
        self.has_ended.set(true);
        self.publish_body(Side::Request);
        self.publish_body(Side::Response);
        self.hub.hide(self.id);
        let model = self.model();
        let (request, response) = (self.request.borrow(), self.response.borrow());
        let (requested, responded) = (request.summary(), response.summary());
        let message = match (error, &response.error) {
            (Some((_, message)), _) => Some(shown_message(message)),
            (None, Some(document)) => error_message(document),
            (None, None) => None,
        };
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
            error: error.map(|(code, _)| code),
            message: message.as_deref(),
            model: model.as_deref(),
            input_tokens: responded.usage.input_tokens(),
            cached_tokens: responded.usage.cached_tokens(),
            output_tokens: responded.usage.output_tokens(),
            cost: self.cost.get(),
            turns: responded.turns.or(requested.turns),
            events: responded.events,
            first_event_ms: response.events.map(|(first, _)| first),
            last_event_ms: response.events.map(|(_, last)| last),
        };
        self.publish(&event);
    }

    fn knows_model(&self) -> bool {
        let knows_model = |body: &RefCell<BodyTrace>| body.borrow().summary().model.is_some();
        self.path_model.is_some() || knows_model(&self.request) || knows_model(&self.response)
    }

    /// Returns the model, as far as it is known.
    fn model(&self) -> Option<String> {
        let (request, response) = (self.request.borrow(), self.response.borrow());
        // The response is more precise: its name of the model may have a date.
        let model = response.summary().model.as_deref();
        let model = model.or(request.summary().model.as_deref());
        let model = model.or(self.path_model.as_deref());
        model.map(|model| redact::text(model, false))
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
        let is_news = !self.has_shown_model.get() && self.knows_model();
        if (is_news || pause >= PROGRESS_INTERVAL) && self.hub.is_active(self.port) {
            self.last_progress.set(now);
            let model = self.model();
            self.has_shown_model.set(model.is_some());
            let response = self.response.borrow();
            let event = Event::Progress {
                id: self.id,
                request_bytes: self.request.borrow().bytes,
                response_bytes: response.bytes,
                events: response.summary().events,
                model: model.as_deref(),
            };
            self.hub.publish(self.port, Retention::None, &event.line());
        }
    }

    /// Publishes the recorded body of `side`, once.
    fn publish_body(&self, side: Side) {
        let mut trace = self.body(side).borrow_mut();
        let Some(recorded) = trace.recorded.take() else {
            return;
        };
        if trace.bytes > 0 && self.hub.is_recording() {
            let is_complete = trace.body.is_complete();
            let line = recorded.borrow().line(self.id, side, is_complete);
            self.publish_line(&line);
        }
    }

    fn publish(&self, event: &Event<'_>) {
        // The last subscriber may have left since the trace was started.
        if self.hub.is_active(self.port) {
            self.publish_line(&event.line());
        }
    }

    fn publish_line(&self, line: &Line) {
        let retention = Retention::Exchange(self.id);
        self.hub.publish(self.port, retention, line);
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
            let error = ("interrupted", "ic stopped before the response was complete");
            self.end(Outcome::Error, status, Some(error));
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
        let observes = match trace.observer.as_ref().map(Observer::reads_websocket) {
            // A tunnel may outlive all subscribers.
            Some(Some(reads)) => reads && self.trace.hub.is_active(self.trace.port),
            // A request has its model once, and no tokens.
            Some(None) => self.side == Side::Response || !self.trace.knows_model(),
            None => false,
        };
        let records = |recorded: &OpenBody| !recorded.borrow().is_truncated();
        observes || trace.error.is_some() || trace.recorded.as_ref().is_some_and(records)
    }
}

impl BodyTrace {
    fn new(framing: Framing, fields: &[Field<'_>], recorded: Option<OpenBody>) -> BodyTrace {
        let is_coded = content_coding(fields).is_some();
        if let Some(recorded) = recorded.as_ref().filter(|_| is_coded) {
            recorded.borrow_mut().omit();
        }
        BodyTrace {
            // The lenient one for both: the relay has judged the framing.
            body: Body::of_response(framing),
            bytes: 0,
            observer: body_format(fields).map(Observer::new),
            recorded,
            error: None,
            events: None,
        }
    }

    /// Lets others watch what is recorded of this response.
    fn show(&self, id: u64, hub: &Hub) {
        if let Some(recorded) = &self.recorded {
            hub.show(id, recorded);
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
        self.error = None;
        if let Some(observer) = &mut self.observer {
            observer.skip();
        }
        if let Some(recorded) = &self.recorded {
            recorded.borrow_mut().skip(count);
        }
    }

    fn observe_data(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        if let Some(observer) = &mut self.observer {
            observer.observe(data);
        }
        if let Some(recorded) = &self.recorded {
            recorded.borrow_mut().append(data);
        }
        let fits = |error: &Vec<u8>| error.len() + data.len() <= ERROR_BYTES_MAX;
        self.error = self.error.take().filter(fits).map(|mut error| {
            error.extend_from_slice(data);
            error
        });
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

fn new_recorded_body(hub: &Hub) -> Option<OpenBody> {
    hub.is_recording()
        .then(|| Rc::new(RefCell::new(RecordedBody::new(&hub.body_budget))))
}

static NO_SUMMARY: BodySummary = BodySummary::NONE;

/// Returns how a body with these fields is read; `None` if it cannot be, also because of a content coding.
pub fn body_format(fields: &[Field<'_>]) -> Option<BodyFormat> {
    let content_type = http::values(fields, "content-type").next()?;
    BodyFormat::of(std::str::from_utf8(content_type).ok()?)
        .filter(|_| content_coding(fields).is_none())
}

/// Returns what LiteLLM says that a response costs, in US dollars.
fn response_cost(fields: &[Field<'_>]) -> Option<f64> {
    let cost = http::values(fields, "x-litellm-response-cost").next()?;
    let cost: f64 = std::str::from_utf8(cost).ok()?.parse().ok()?;
    (cost.is_finite() && cost >= 0.0).then_some(cost)
}

/// Returns how what follows a 101 is read; `None` if it is no WebSocket, or an extension changes its frames, as compression does
/// (RFC 6455 §9).
fn tunnel_format(head: &ResponseHead<'_, '_>) -> Option<BodyFormat> {
    let is_websocket = |protocol: &[u8]| protocol.eq_ignore_ascii_case(b"websocket");
    let is_read = head.status == 101
        && elements(head.fields, "upgrade").any(is_websocket)
        && elements(head.fields, "sec-websocket-extensions")
            .next()
            .is_none();
    is_read.then_some(BodyFormat::WebSocket)
}

/// Returns the message of an error document: of OpenAI, Anthropic and Gemini `error.message`; others have `message`, `detail` or
/// `error` itself, as text or in a list.
fn error_message(document: &[u8]) -> Option<String> {
    fn find(value: &Value) -> Option<&str> {
        match value {
            Value::String(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            Value::Array(values) => find(values.first()?),
            Value::Object(members) => {
                let mut names = ["message", "detail", "msg", "error"].iter();
                names.find_map(|name| find(members.get(*name)?))
            }
            _ => None,
        }
    }
    find(&serde_json::from_slice(document).ok()?).map(shown_message)
}

/// Returns a message in one line, without secrets.
fn shown_message(message: &str) -> String {
    let shown = redact::text(message, false);
    let is_gap = |character: char| character.is_whitespace() || character.is_control();
    let words: Vec<&str> = shown
        .split(is_gap)
        .filter(|word| !word.is_empty())
        .collect();
    let message = words.join(" ");
    match message.char_indices().nth(MESSAGE_CHARS_MAX - 1) {
        Some((end, last)) if end + last.len_utf8() < message.len() => {
            format!("{}…", &message[..end])
        }
        _ => message,
    }
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

/// The longest message that is shown; a list has less room.
const MESSAGE_CHARS_MAX: usize = 300;

/// The longest error document that is read. Those of the APIs have less than a kilobyte, unless they quote the request.
const ERROR_BYTES_MAX: usize = 64 * 1024;

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

    #[test]
    #[rustfmt::skip] // A table.
    fn the_message_of_an_error_document_is_one_line_without_secrets() {
        #[track_caller]
        fn check(why: &str, document: &str, expected: Option<&str>) {
            assert_eq!(error_message(document.as_bytes()).as_deref(), expected, "{why}");
        }
        check("OpenAI", r#"{"error":{"message":"No such model","type":"x","code":"model_not_found","param":null}}"#, Some("No such model"));
        check("Anthropic", r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Some("Overloaded"));
        check("Gemini, in a list", r#"[{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT"}}]"#, Some("API key not valid"));
        check("a text", r#"{"error":"model not found"}"#, Some("model not found"));
        check("a message beside an error", r#"{"status":404,"error":"Not Found","message":"no route"}"#, Some("no route"));
        check("a detail", r#"{"detail":"Not Found"}"#, Some("Not Found"));
        check("details", r#"{"detail":[{"loc":["body"],"msg":"Field required","type":"missing"}]}"#, Some("Field required"));
        check("an error in a detail", r#"{"detail":{"error":"no"}}"#, Some("no"));
        check("the next that says something", r#"{"message":" ","detail":[],"error":{"message":"x"}}"#, Some("x"));
        check("control characters", "{\"error\":\"a\\u001b[31m\\r\\n\\tb\\u0000\"}", Some("a [31m b"));
        check("a key", r#"{"error":{"message":"Incorrect API key provided: sk-proj-0123456789abcdef."}}"#, Some("Incorrect API key provided: …"));
        check("no message", r#"{"error":{"code":1},"id":"x"}"#, None);
        check("nothing", "{}", None);
        check("no JSON", "<html>", None);
        check("cut", r#"{"error":{"message":"a"#, None);
        let text = |count| format!("{{\"error\":\"{}\"}}", "é".repeat(count));
        check("the longest", &text(300), Some(&"é".repeat(300)));
        check("one more", &text(301), Some(&format!("{}…", "é".repeat(299))));
    }

    #[test]
    fn a_cost_is_a_number_of_dollars() {
        let cost = |value| {
            response_cost(&[Field {
                name: "X-LiteLLM-Response-Cost",
                value,
            }])
        };
        assert_eq!(cost(b"1.2e-05"), Some(0.000_012));
        assert_eq!(cost(b"0.0"), Some(0.0));
        for value in ["None", "", "-1", "inf", "NaN", "1 USD", "\u{e9}"] {
            assert_eq!(cost(value.as_bytes()), None, "{value}");
        }
        assert_eq!(response_cost(&[]), None);
    }

    #[test]
    fn only_a_websocket_without_extensions_is_read() {
        let format = |status, fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| Field {
                name,
                value: value.as_bytes(),
            });
            let fields: Vec<Field<'_>> = fields.collect();
            tunnel_format(&ResponseHead {
                version: Version::Http11,
                status,
                status_and_reason: b"",
                fields: &fields,
                len: 0,
            })
        };
        let upgrade = ("Upgrade", "WebSocket");
        let extension = ("Sec-WebSocket-Extensions", "permessage-deflate");
        assert_eq!(format(101, &[upgrade]), Some(BodyFormat::WebSocket));
        assert_eq!(format(101, &[upgrade, extension]), None);
        assert_eq!(format(101, &[("Upgrade", "x")]), None);
        assert_eq!(format(426, &[upgrade]), None);
    }
}
