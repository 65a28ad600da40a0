//! One client's connection: a request and its response, then the next. The only driver of [`http`](crate::http).
//!
//! Request body and response are awaited together: a response may come before the upload is over, an upload may wait for a 100,
//! and a client may disconnect at any moment. Two futures in one task do it, [`upload`] and [`download`]; what they know of each
//! other is in [`attempt`]. What is decided about a request is in [`request`], about a response in [`response`].

mod attempt;
mod download;
mod request;
mod response;
mod upload;

use std::future::Future;
use std::time::Duration;

use smol::future;

use self::attempt::{Attempt, Completion, client_fault};
use self::request::{Connection, Refusal, Request};
use self::upload::wait_for_disconnect;
use super::admin::Page;
use super::buffers::{Outgoing, Scratch};
use super::conn::{Conn, Reader, Stream};
use super::deadline::{InactivityTimeout, Limits};
use super::error::{ClientError, ForwardError, UpstreamError};
use super::feed::{Outcome, Side};
use super::reactor;
use super::relay;
use super::site::{ConnectionGuard, Site};
use super::tunnel;
use super::warning;
use crate::http::body::{Body, BodyMode};
use crate::http::connection::{AfterResponse, CloseReason, Persistence};
use crate::http::forward::{self, ExchangeState};
use crate::http::framing::{Framing, ResponseTo};
use crate::http::reply::{ConnectionField, Reply, ReplyOptions};

/// Serves a client's connection to its end, at which `guard` is dropped.
pub fn serve(stream: Stream, guard: ConnectionGuard) -> impl Future<Output = ()> {
    let mut connection = Connection::new(stream, &guard.site);
    async move {
        let site = &guard.site;
        let mut requests = 0u32;
        loop {
            let answer = {
                let Some(incoming) = request::read_request(&mut connection, site).await else {
                    return;
                };
                // In a box that exists only meanwhile: an exchange needs ten times the memory of an idle connection.
                Box::pin(answer(connection, incoming, site))
            };
            match answer.await {
                Some(persistent) => connection = persistent,
                None => return,
            }
            // A client that pipelines requests must not keep the others waiting.
            requests = requests.wrapping_add(1);
            if requests.is_multiple_of(TURN_REQUESTS) {
                reactor::next_turn().await;
            }
        }
    }
}

/// Rejects a connection that is one too many.
pub async fn turn_away(stream: Stream, guard: ConnectionGuard) {
    let site = &guard.site;
    let refusal = Refusal {
        fault: ClientError::TooMany.into(),
        head_only: false,
    };
    site.metrics.count(refusal.fault.status(), true);
    refuse(Connection::new(stream, site), refusal, site).await;
}

/// What becomes of the client's connection after a request.
enum Ending {
    /// What HTTP says.
    Next(AfterResponse),
    /// It is sent an error response, and closed.
    Refuse(Refusal),
    /// It is reset, since it ends within a response: a body that ends with the connection would look complete.
    Reset,
}

/// Answers one request. Returns the connection if it serves another one, else closes it.
fn answer(
    mut connection: Connection,
    mut incoming: Result<(Request, Scratch), Refusal>,
    site: &Site,
) -> impl Future<Output = Option<Connection>> {
    async move {
        // By reference: a future holds both what it takes apart and the parts.
        let ending = match incoming {
            Ok((ref request, ref mut out)) => exchange(&mut connection, request, out, site).await,
            Err(refusal) => Ending::Refuse(refusal),
        };
        match ending {
            Ending::Next(AfterResponse::KeepAlive) => return Some(connection),
            Ending::Next(AfterResponse::Close(reason)) => {
                log::debug!("closing the client's connection: {reason:?}");
                // A client that has said that this was its last request sends nothing more (RFC 9112 §9.6).
                if reason != CloseReason::ClientRequested || !connection.client.is_quiet() {
                    Box::pin(close(connection)).await;
                }
            }
            Ending::Refuse(refusal) => Box::pin(refuse(connection, refusal, site)).await,
            Ending::Next(AfterResponse::Tunnel) | Ending::Reset => {}
        }
        None
    }
}

/// An exchange that was not completed.
struct ExchangeError {
    fault: ForwardError,
    /// The status of a final response of which the client has been sent part: an error response is not possible any more.
    response_status: Option<u16>,
}

impl ExchangeError {
    /// Whether the exchange has failed; where the client disconnected, what it was sent before decides.
    fn is_failure(&self) -> bool {
        Outcome::after(&self.fault, false).is_failed(self.response_status)
    }
}

impl<F: Into<ForwardError>> From<F> for ExchangeError {
    /// Before a response.
    fn from(fault: F) -> Self {
        ExchangeError {
            fault: fault.into(),
            response_status: None,
        }
    }
}

fn exchange<'a>(
    connection: &'a mut Connection,
    request: &'a Request,
    out: &'a mut Scratch,
    site: &'a Site,
) -> impl Future<Output = Ending> {
    async move {
        if let Some(page) = &request.page {
            return match serve_page(connection, request, page, site).await {
                Ok(next) => Ending::Next(next),
                Err(fault) => Ending::Refuse(request.refusal(fault)),
            };
        }
        let in_flight = site.metrics.begin_request();
        let result = forward(connection, request, out, site).await;
        let (status, is_failed) = match &result {
            Ok((status, _)) => (Some(*status), Outcome::Complete.is_failed(Some(*status))),
            Err(error) => (error.fault.status(), error.is_failure()),
        };
        in_flight.end(status, is_failed, request.age());
        match result {
            Ok((status, ending)) => {
                report_response(status, &ending, request, site);
                ending
            }
            Err(ExchangeError {
                fault,
                response_status,
            }) => {
                let has_response = response_status.is_some();
                let reply = request::reply(&fault, connection.client.stream(), site);
                if let Some(trace) = &request.trace {
                    trace.fail(&fault, reply.as_ref(), has_response);
                }
                report_fault(&fault, reply, request, site);
                match has_response {
                    true => Ending::Reset,
                    false => Ending::Refuse(request.refusal(fault)),
                }
            }
        }
    }
}

/// Sends a request on and its response back; returns the response's status, and what becomes of the client's connection.
fn forward<'a>(
    connection: &'a mut Connection,
    request: &'a Request,
    out: &'a mut Scratch,
    site: &'a Site,
) -> impl Future<Output = Result<(u16, Ending), ExchangeError>> {
    async move {
        let (client, pinned) = (&mut connection.client, &mut connection.pinned);
        let origin_limit = site.service.clock.deadline();
        let limits = Limits {
            client: &connection.limit,
            origin: &origin_limit,
        };
        let mut body = Body::new(request.framing);
        take_ready(&mut client.reader(), &mut body, request, site, out)?;
        let is_repeatable = request.is_idempotent && body.is_complete();
        let out = Outgoing::Scratch(std::mem::take(out));
        let mut attempt = Attempt::new(request, site, limits, out, is_repeatable);
        let mut kept = reuse(pinned.take(), is_repeatable, site);
        loop {
            attempt.is_reused = kept.is_some();
            let origin = match &mut kept {
                Some(origin) => origin,
                None => {
                    attempt.out.set(attempt.out.take().map(Outgoing::settle));
                    // In a box: few requests need it, and it is as large as all the rest.
                    kept.insert(Box::pin(connect(client, request, limits, site)).await?)
                }
            };
            // Awaited where it is made, as everywhere here: a future that has a name first is stored twice.
            match run(&attempt, client, origin, &mut body).await {
                Ok(completion) => {
                    if attempt.is_reused {
                        site.upstream.pool.set_persistent();
                    }
                    let Completion { status, next, .. } = completion;
                    if next == AfterResponse::Tunnel {
                        let (metrics, trace) = (&site.metrics, request.trace.as_deref());
                        Box::pin(tunnel::run(client, origin, limits, metrics, trace)).await;
                    } else if attempt.is_sent() && body.is_complete() {
                        // Many servers leave trailers unread, and take them for the next request.
                        let origin = kept.take().filter(|_| !body.has_passed_trailers());
                        *pinned = keep(origin, completion.persistence, site);
                    }
                    return Ok((status, Ending::Next(next)));
                }
                Err(fault) if attempt.restart_after(&fault) => {
                    log::debug!("the kept connection was closed; sending the request again");
                    kept = None;
                }
                Err(fault) => return interrupted(&attempt, fault),
            }
        }
    }
}

/// What `fault` makes of an exchange: where the client disconnected at the end mark, it was complete.
fn interrupted(attempt: &Attempt<'_>, fault: ForwardError) -> Result<(u16, Ending), ExchangeError> {
    if let Some(status) = attempt.status_at_end_mark(&fault) {
        return Ok((status, Ending::Reset));
    }
    Err(ExchangeError {
        fault,
        response_status: attempt.response_status.get(),
    })
}

/// Sends the request over `origin` and passes the response on, side by side; the one that ends the exchange drops the other.
fn run<'a>(
    attempt: &'a Attempt<'_>,
    client: &'a mut Conn,
    origin: &'a mut Conn,
    body: &'a mut Body,
) -> impl Future<Output = Result<Completion, ForwardError>> {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    // The first is polled first.
    future::or(
        attempt.download(origin_reader, client_writer),
        attempt.upload(client_reader, origin_writer, body),
    )
}

/// A kept connection for a request: the client's own one if it has one, unless the origin has closed that.
fn reuse(pinned: Option<Box<Conn>>, is_repeatable: bool, site: &Site) -> Option<Conn> {
    if let Some(origin) = pinned.filter(|origin| origin.is_quiet()) {
        site.metrics.reuses.add(1);
        return Some(*origin);
    }
    let kept = site.upstream.pool.reuse(is_repeatable)?;
    site.metrics.reuses.add(1);
    Some(kept)
}

/// Keeps the origin's connection for another request, if the origin does and nothing has been read ahead. Returns one that only
/// this client may use.
fn keep(origin: Option<Conn>, persistence: Persistence, site: &Site) -> Option<Box<Conn>> {
    let origin = origin.filter(|origin| origin.bytes().is_empty())?;
    match persistence {
        Persistence::Close => None,
        Persistence::Pinned => Some(Box::new(origin)),
        Persistence::KeepAlive { announced_seconds } => {
            site.upstream.pool.keep(origin, announced_seconds);
            None
        }
    }
}

/// Takes what has arrived of a request's body, to be written together with its head.
fn take_ready(
    client: &mut Reader<'_>,
    body: &mut Body,
    request: &Request,
    site: &Site,
    out: &mut Scratch,
) -> Result<(), ClientError> {
    let drops_trailer = |name: &str| request.drops_trailer(name, &site.rewriter);
    let taken = body
        .take_ready(client.bytes(), BodyMode::Verbatim, drops_trailer, out)
        .map_err(ClientError::Refused)?;
    if let Some(tap) = request.tap(Side::Request) {
        tap.observe(&client.bytes()[..taken]);
        if body.is_complete() {
            tap.end();
        }
    }
    client.consume(taken);
    Ok(())
}

/// Connects to the origin, unless the client disconnects first.
async fn connect(
    client: &mut Conn,
    request: &Request,
    limits: Limits<'_>,
    site: &Site,
) -> Result<Conn, ForwardError> {
    let timeouts = &site.service.timeouts;
    let connected = async {
        let connector = &site.upstream.connector;
        let connected = connector.connect(limits.origin, timeouts.connect, timeouts.hold);
        let connected = connected.await.map_err(UpstreamError::Connect)?;
        site.metrics.connects.add(1);
        Ok(connected)
    };
    let mut reader = client.reader();
    let disconnect = async { Err(wait_for_disconnect(&mut reader, request, limits.client).await) };
    future::or(connected, disconnect).await
}

/// Answers with a page of the interceptor itself.
async fn serve_page(
    connection: &Connection,
    request: &Request,
    page: &Page,
    site: &Site,
) -> Result<AfterResponse, ForwardError> {
    let state = ExchangeState {
        is_request_sent: true,
        is_stopping: site.is_closing(),
    };
    let next = forward::after_response(&request.context, Framing::Empty, BodyMode::Verbatim, state);
    // Its body, if it has one, is not read.
    let next = if request.framing == Framing::Empty {
        next
    } else {
        AfterResponse::Close(CloseReason::RequestIncomplete)
    };
    let options = ReplyOptions {
        head_only: request.context.response_to == ResponseTo::Head,
        connection: forward::connection_field(next, request.context.version),
    };
    let mut out = Scratch::take();
    page.write(site, options, &mut out);
    let inactivity = InactivityTimeout {
        deadline: &connection.limit,
        most: Some(LINGER),
    };
    let written = connection.client.writer().write_within(&out, inactivity);
    written.await.map_err(|error| client_fault(error.kind))?;
    Ok(next)
}

/// Sends an error response, if the client can still read one, and closes.
async fn refuse(connection: Connection, refusal: Refusal, site: &Site) {
    let Some(reply) = request::reply(&refusal.fault, connection.client.stream(), site) else {
        return;
    };
    site.metrics.count_own_response(reply.code);
    // Clients that take this port for another kind of server seldom show the response.
    if let ForwardError::Client(ClientError::Refused(error)) = refusal.fault
        && error.is_of_url()
    {
        warning::warn(format!("refused a client: {}", reply.message));
    }
    let mut out = Scratch::take();
    let options = ReplyOptions {
        head_only: refusal.head_only,
        connection: ConnectionField::Close,
    };
    reply.write(&site.service.next_request_id(), options, &mut out);
    log::debug!("answering {}: {}", reply.status, reply.message);
    let Connection { client, limit, .. } = &connection;
    let inactivity = InactivityTimeout {
        deadline: limit,
        most: Some(LINGER),
    };
    let written = client.writer().write_within(&out, inactivity).await;
    drop(out);
    if written.is_ok() {
        close(connection).await;
    }
}

/// Closes so that the last response arrives: what the client still sends is read for a while.
async fn close(connection: Connection) {
    let Connection {
        mut client, limit, ..
    } = connection;
    client.writer().finish().await;
    limit.set(Some(LINGER));
    relay::drain(&mut client.reader(), &limit, LINGER_BYTES).await;
}

/// Tells the feed, the metrics and the log of a response that was passed on.
fn report_response(status: u16, ending: &Ending, request: &Request, site: &Site) {
    if let Some(trace) = &request.trace {
        let outcome = match ending {
            Ending::Next(AfterResponse::Tunnel) => Outcome::Tunnel,
            Ending::Next(_) | Ending::Refuse(_) => Outcome::Complete,
            Ending::Reset => {
                // The client disconnected at the end mark: nothing of the body is missing.
                trace.tap(Side::Response).end();
                Outcome::Complete
            }
        };
        trace.complete(outcome, status);
    }
    if status >= 400 {
        let message = format!("the target answered {status}");
        site.metrics.set_last_error(message);
    }
    if let Some(label) = &request.label {
        let millis = request.age().as_millis();
        log::debug!("{label}: {status} in {millis} ms");
    }
}

/// Logs a fault: a warning where the target is at fault, else only for debugging.
fn report_fault(
    fault: &ForwardError,
    reply: Option<Reply<'static>>,
    request: &Request,
    site: &Site,
) {
    let label = request.label.as_deref().unwrap_or("request");
    let message = reply.map_or_else(String::new, |reply| reply.message.into_owned());
    match fault {
        ForwardError::Client(ClientError::Gone) => log::debug!("{label}: the client disconnected"),
        ForwardError::Client(ClientError::Stalled) => {
            log::debug!("{label}: the client took nothing for longer than --body-timeout allows");
        }
        ForwardError::Client(_) => log::debug!("{label}: {message}"),
        ForwardError::Upstream(_) => {
            warning::warn(format!("{label}: {message}"));
            site.metrics.set_last_error(message);
        }
    }
}

/// After this many requests of one connection, the others have their turn.
const TURN_REQUESTS: u32 = 64;

/// How long what a client sends after its last response is read, and how long it may take nothing of a page or an error response.
const LINGER: Duration = Duration::from_secs(2);

/// How much of what it sends then is read: the largest file that OpenAI takes, since many clients read a response only after their
/// upload.
const LINGER_BYTES: usize = 512 << 20;
