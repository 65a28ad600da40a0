//! One client's connection: a request and its response, then the next. The only driver of [`http`](crate::http).
//!
//! Request body and response are awaited together: an answer may come before the upload is over, an upload
//! may wait for a 100, and a client may leave at any moment. Two futures in one task do it: see [`duplex`].
//! What is decided about a request is in [`request`], about a response in [`response`].

mod duplex;
mod request;
mod response;

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use smol::future;

use self::duplex::{Attempt, Sent};
use self::request::{Refusal, Request};
use super::admin::Page;
use super::buffers::Scratch;
use super::conn::{Conn, Reader, Stream};
use super::deadline::{Deadline, InactivityTimeout};
use super::error::{ClientFault, Fault, OriginFault};
use super::feed::{Outcome, Side};
use super::reactor;
use super::relay;
use super::service::ConnectionGuard;
use super::site::Site;
use super::tunnel;
use crate::http::body::{Body, BodyMode};
use crate::http::connection::{AfterResponse, CloseReason, Persistence};
use crate::http::forward::{self, ExchangeState};
use crate::http::framing::{Framing, ResponseTo};
use crate::http::reply::ReplyOptions;

/// A client's connection between two requests: all that an idle one costs.
#[derive(Debug)]
struct Connection {
    client: Conn,
    limit: Deadline,
    /// What it is called in the feed, once it is.
    number: u64,
}

/// Serves a client's connection to its end, at which `guard` is dropped.
pub fn serve(stream: Stream, site: Rc<Site>, guard: ConnectionGuard) -> impl Future<Output = ()> {
    let mut connection = Connection {
        client: Conn::new(stream),
        limit: site.service.clock.deadline(),
        number: 0,
    };
    async move {
        // Dropped last.
        let _guard = guard;
        let mut requests = 0u32;
        loop {
            let answer = {
                let Some(read) = request::read_request(&mut connection, &site).await else {
                    return;
                };
                // In a box that exists only meanwhile: an exchange needs ten times the memory of an idle connection.
                Box::pin(answer(connection, read, &site))
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

/// Answers one request; returns the connection if it serves another one, else closes it.
async fn answer(
    mut connection: Connection,
    read: Result<(Request, Scratch), Refusal>,
    site: &Site,
) -> Option<Connection> {
    let next = match read {
        Ok((request, mut out)) => exchange(&mut connection, &request, &mut out, site).await,
        Err(refusal) => Err(Some(refusal)),
    };
    match next {
        Ok(AfterResponse::KeepAlive) => return Some(connection),
        Ok(AfterResponse::Close(reason)) => {
            log::debug!("closing the client's connection: {}", reason.explain());
            // A client that has said that this was its last request sends nothing more (RFC 9112 §9.6).
            if reason != CloseReason::ClientRequested || !connection.client.is_quiet() {
                Box::pin(close(connection)).await;
            }
        }
        Ok(AfterResponse::Tunnel) => {}
        Err(Some(refusal)) => Box::pin(refuse(connection, refusal, site)).await,
        // Reset, since it ends within a response: a body that ends with the connection would look complete.
        Err(None) => {}
    }
    None
}

/// Answers a connection that is one too many.
pub async fn turn_away(stream: Stream, site: &Site) {
    let connection = Connection {
        client: Conn::new(stream),
        limit: site.service.clock.deadline(),
        number: 0,
    };
    let refusal = Refusal {
        fault: ClientFault::TooMany.into(),
        head_only: false,
    };
    refuse(connection, refusal, site).await;
}

/// The time limits of an exchange, one for each side.
#[derive(Clone, Copy)]
struct Limits<'a> {
    client: &'a Deadline,
    origin: &'a Deadline,
}

/// An exchange that broke off.
struct Break {
    fault: Fault,
    /// The client has part of a final response: it cannot be told any more.
    is_answered: bool,
}

/// Says what becomes of the connection; or what the client is to be told, if it can be told anything.
fn exchange<'a>(
    connection: &'a mut Connection,
    request: &'a Request,
    out: &'a mut Scratch,
    site: &'a Site,
) -> impl Future<Output = Result<AfterResponse, Option<Refusal>>> {
    async move {
        let refusal = |fault| Refusal {
            fault,
            head_only: request.context.response_to == ResponseTo::Head,
        };
        if let Some(page) = request.page {
            let next = serve_page(connection, request, page, site).await;
            return next.map_err(|fault| Some(refusal(fault)));
        }
        let in_flight = site.metrics.begin_request();
        let result = forward(connection, request, out, site).await;
        let status = match &result {
            Ok((status, _)) => Some(*status),
            Err(broken) => broken.fault.status(),
        };
        in_flight.end(status, request.age());
        match result {
            Ok((status, next)) => {
                if let Some(trace) = &request.trace {
                    let outcome = match next {
                        AfterResponse::Tunnel => Outcome::Tunnel,
                        AfterResponse::KeepAlive | AfterResponse::Close(_) => Outcome::Complete,
                    };
                    trace.complete(outcome, status);
                }
                if status >= 500 {
                    site.metrics
                        .set_last_error(format!("the target answered {status}"));
                }
                if let Some(label) = &request.label {
                    let millis = request.age().as_millis();
                    log::debug!("{label}: {status} in {millis} ms");
                }
                Ok(next)
            }
            Err(Break { fault, is_answered }) => {
                if let Some(trace) = &request.trace {
                    trace.fail(&fault, is_answered);
                }
                report(&fault, request, site);
                Err((!is_answered).then(|| refusal(fault)))
            }
        }
    }
}

/// Sends a request on and its response back; says the response's status.
fn forward<'a>(
    connection: &'a mut Connection,
    request: &'a Request,
    out: &'a mut Scratch,
    site: &'a Site,
) -> impl Future<Output = Result<(u16, AfterResponse), Break>> {
    async move {
        let Connection { client, limit, .. } = connection;
        let origin_limit = site.service.clock.deadline();
        let limits = Limits {
            client: limit,
            origin: &origin_limit,
        };
        let unanswered = |fault: Fault| Break {
            fault,
            is_answered: false,
        };
        let mut body = Body::new(request.framing);
        take_ready(&mut client.reader(), &mut body, request, site, out).map_err(unanswered)?;
        let is_repeatable = request.is_idempotent && body.is_complete();
        let out = std::mem::take(out);
        let mut attempt = Attempt::new(request, site, limits, out, is_repeatable);
        let mut kept = site.service.pool.reuse(is_repeatable);
        loop {
            attempt.is_reused = kept.is_some();
            let origin = match &mut kept {
                Some(origin) => origin,
                // In a box: few requests need it, and it is as large as all the rest.
                None => kept.insert(
                    Box::pin(connect(client, request, limits, site))
                        .await
                        .map_err(unanswered)?,
                ),
            };
            // Awaited where it is made, as everywhere here: a future that has a name first is held twice.
            match attempt.run(client, origin, &mut body).await {
                Ok(answered) => {
                    if attempt.is_reused {
                        site.service.pool.set_persistent();
                    }
                    if answered.next == AfterResponse::Tunnel {
                        let (up, down) = (&site.metrics.bytes_up, &site.metrics.bytes_down);
                        let limits = tunnel::Limits {
                            silence: limits.origin,
                            pause: limits.client,
                        };
                        let trace = request.trace.as_deref();
                        if let Some(trace) = trace {
                            trace.start_tunnel();
                        }
                        Box::pin(tunnel::run(client, origin, limits, (up, down), trace)).await;
                    } else if let Persistence::KeepAlive { announced_seconds } =
                        answered.persistence
                        && attempt.sent.get() == Sent::Whole
                        && body.is_complete()
                        && origin.bytes().is_empty()
                        && let Some(origin) = kept.take()
                    {
                        site.service.pool.keep(origin, announced_seconds);
                    }
                    return Ok((answered.status, answered.next));
                }
                Err(fault) => {
                    // A connection that was kept may have been closed by the origin just before it was used.
                    let was_stale = attempt.is_reused
                        && matches!(
                            fault,
                            Fault::Origin(OriginFault::Closed | OriginFault::Failed(_))
                        );
                    let is_answered = attempt.answered.get();
                    if is_answered || !was_stale || !attempt.restart() {
                        return Err(Break { fault, is_answered });
                    }
                    log::debug!("the kept connection had gone stale; sending the request again");
                    kept = None;
                }
            }
        }
    }
}

/// Takes what is already there of a request's body, to leave together with its head.
fn take_ready(
    client: &mut Reader<'_>,
    body: &mut Body,
    request: &Request,
    site: &Site,
    out: &mut Scratch,
) -> Result<(), Fault> {
    let stays = |name: &str| request.stays(name, &site.rewriter);
    let taken = body
        .take_ready(client.bytes(), BodyMode::Verbatim, stays, out)
        .map_err(ClientFault::Refused)?;
    if let Some(tap) = request.tap(Side::Request) {
        tap.observe(&client.bytes()[..taken]);
    }
    client.consume(taken);
    Ok(())
}

/// Makes a connection, unless the client leaves before it stands.
async fn connect(
    client: &mut Conn,
    request: &Request,
    limits: Limits<'_>,
    site: &Site,
) -> Result<Conn, Fault> {
    let connected = async {
        site.service
            .connector
            .connect(
                limits.origin,
                site.service.timeouts.connect,
                site.service.timeouts.hold,
            )
            .await
            .map_err(|error| OriginFault::Connect(error).into())
    };
    let mut reader = client.reader();
    let left = async { Err(duplex::departure(&mut reader, request, limits.client).await) };
    future::or(connected, left).await
}

/// Answers with a page of the interceptor's own.
async fn serve_page(
    connection: &Connection,
    request: &Request,
    page: Page,
    site: &Site,
) -> Result<AfterResponse, Fault> {
    let state = ExchangeState {
        is_request_sent: true,
        is_stopping: site.service.clock.is_stopping(),
    };
    let next = forward::after_response(&request.context, Framing::Empty, BodyMode::Verbatim, state);
    // Its body, if it has one, is not read.
    let next = if request.framing == Framing::Empty {
        next
    } else {
        AfterResponse::Close(CloseReason::RequestIncomplete)
    };
    let manner = ReplyOptions {
        head_only: request.context.response_to == ResponseTo::Head,
        close: next != AfterResponse::KeepAlive,
    };
    let mut out = Scratch::take();
    page.write(site, manner, &mut out);
    let silence = InactivityTimeout {
        deadline: &connection.limit,
        most: Some(site.service.timeouts.for_own_pages()),
    };
    connection
        .client
        .writer()
        .write_within(&out, silence)
        .await
        .map_err(|unwritten| duplex::untaken(unwritten.why))?;
    Ok(next)
}

/// Tells the client what is wrong, if it is still there, and closes.
async fn refuse(connection: Connection, refusal: Refusal, site: &Site) {
    let target = site.service.connector.target().to_string();
    let Some(reply) = refusal.fault.reply(&target) else {
        return;
    };
    let mut out = Scratch::take();
    let manner = ReplyOptions {
        head_only: refusal.head_only,
        close: true,
    };
    reply.write(&site.service.next_request_id(), manner, &mut out);
    log::debug!("answering {}: {}", reply.status, reply.message);
    let Connection { client, limit, .. } = &connection;
    let silence = InactivityTimeout {
        deadline: limit,
        most: Some(LINGER),
    };
    if client.writer().write_within(&out, silence).await.is_ok() {
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
    relay::discard(&mut client.reader(), &limit, LINGER_BYTES).await;
}

/// One line on what went wrong: the origin's faults are the user's business, the clients' are their own.
fn report(fault: &Fault, request: &Request, site: &Site) {
    let label = request.label.as_deref().unwrap_or("request");
    match fault {
        Fault::Client(ClientFault::Gone) => log::debug!("{label}: the client has gone"),
        Fault::Client(ClientFault::Stalled) => {
            log::debug!("{label}: the client took nothing for longer than --body-timeout allows");
        }
        Fault::Client(_) => log::debug!("{label}: {}", explain(fault, site)),
        Fault::Origin(_) => {
            let why = explain(fault, site);
            log::warn!("{label}: {why}");
            site.metrics.set_last_error(why);
        }
    }
}

fn explain(fault: &Fault, site: &Site) -> String {
    let reply = fault.reply(&site.service.connector.target().to_string());
    reply.map_or_else(String::new, |reply| reply.message.into_owned())
}

/// After this many requests of one connection, the others have their turn.
const TURN_REQUESTS: u32 = 64;

/// For how long what a client sends behind its last answer is read.
const LINGER: Duration = Duration::from_secs(2);

/// And how much of it: the largest file that OpenAI takes, since many clients look for an answer only behind their upload.
const LINGER_BYTES: usize = 512 << 20;
