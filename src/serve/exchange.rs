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
use super::admin::{Page, Trouble};
use super::buffers::Scratch;
use super::conn::{Conn, Reader, Stream};
use super::deadline::{Deadline, InactivityTimeout};
use super::error::{ClientFault, Fault, OriginFault};
use super::feed::{Outcome, Side};
use super::frames::Frames;
use super::reactor;
use super::relay;
use super::tunnel;
use super::{Connected, Service};
use crate::http::body::{Body, BodyMode};
use crate::http::connection::{Next, Reason};
use crate::http::forward::{self, ExchangeState};
use crate::http::framing::{Asked, Framing};
use crate::http::reply::ReplyOptions;

/// A client's connection between two requests: all that an idle one costs.
#[derive(Debug)]
struct Connection {
    client: Conn,
    limit: Deadline,
    /// What it is called in the feed, once it is.
    number: u64,
}

/// Serves a client's connection to its end.
pub fn serve<F>(
    stream: Stream,
    connected: Connected,
    frames: Rc<Frames<Call, F>>,
) -> impl Future<Output = ()>
where
    F: Future<Output = Done>,
{
    let mut connection = Connection {
        client: Conn::new(stream),
        limit: connected.service.clock.deadline(),
        number: 0,
    };
    async move {
        let mut requests = 0u32;
        loop {
            let answer = {
                let service = &connected.service;
                let Some(read) = request::read_request(&mut connection, service).await else {
                    return;
                };
                frames.run(Call {
                    connection,
                    read,
                    service: Rc::clone(service),
                })
            };
            match answer.await.0 {
                Some(persistent) => connection = persistent,
                None => return,
            }
            // Whoever sends one request behind the other must not keep everybody else from their turn.
            requests = requests.wrapping_add(1);
            if requests.is_multiple_of(TURN_REQUESTS) {
                reactor::next_turn().await;
            }
        }
    }
}

/// What an exchange begins with.
pub struct Call {
    connection: Connection,
    read: Result<(Request, Scratch), Refusal>,
    service: Rc<Service>,
}

/// What an exchange leaves: the connection, if it serves another request.
pub struct Done(Option<Connection>);

/// Answers one request, and sees to the connection's end if it was the last.
pub fn answer(call: Call) -> impl Future<Output = Done> {
    // Taken apart out here: a future holds what it takes apart twice.
    let Call {
        mut connection,
        mut read,
        service,
    } = call;
    async move {
        let next = match read {
            Ok((ref request, ref mut out)) => {
                exchange(&mut connection, request, out, &service).await
            }
            Err(refusal) => Err(Some(refusal)),
        };
        Done(match next {
            Ok(Next::Reuse) => Some(connection),
            Ok(Next::Close(reason)) => {
                log::debug!("closing the client's connection: {}", reason.explain());
                // Who has said that this was its last request sends nothing more (RFC 9112 §9.6).
                if reason != Reason::ClientAsked || !connection.client.is_quiet() {
                    Box::pin(close(connection)).await;
                }
                None
            }
            Ok(Next::Tunnel) => None,
            Err(Some(refusal)) => {
                Box::pin(refuse(connection, refusal, &service)).await;
                None
            }
            // Reset, since it ends amid an answer: a body that ends with the connection would look complete.
            Err(None) => None,
        })
    }
}

/// Answers a connection that is one too many.
pub async fn turn_away(stream: Stream, service: &Service) {
    let connection = Connection {
        client: Conn::new(stream),
        limit: service.clock.deadline(),
        number: 0,
    };
    let refusal = Refusal {
        fault: ClientFault::TooMany.into(),
        head_only: false,
    };
    refuse(connection, refusal, service).await;
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
    service: &'a Service,
) -> impl Future<Output = Result<Next, Option<Refusal>>> {
    async move {
        let refusal = |fault| Refusal {
            fault,
            head_only: request.asking.asked == Asked::Head,
        };
        if let Some(page) = request.page {
            let next = serve_page(connection, request, page, service).await;
            return next.map_err(|fault| Some(refusal(fault)));
        }
        let underway = service.tally.begin();
        let result = forward(connection, request, out, service).await;
        let status = match &result {
            Ok((status, _)) => Some(*status),
            Err(broken) => broken.fault.status(),
        };
        underway.end(status, request.age());
        match result {
            Ok((status, next)) => {
                if let Some(trace) = &request.trace {
                    let outcome = match next {
                        Next::Tunnel => Outcome::Tunnel,
                        Next::Reuse | Next::Close(_) => Outcome::Complete,
                    };
                    trace.complete(outcome, status);
                }
                if status >= 500 {
                    service.tally.failed(Trouble::Answered(status));
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
                report(&fault, request, service);
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
    service: &'a Service,
) -> impl Future<Output = Result<(u16, Next), Break>> {
    async move {
        let Connection { client, limit, .. } = connection;
        let origin_limit = service.clock.deadline();
        let limits = Limits {
            client: limit,
            origin: &origin_limit,
        };
        let unanswered = |fault: Fault| Break {
            fault,
            is_answered: false,
        };
        let mut body = Body::new(request.framing);
        take_ready(&mut client.reader(), &mut body, request, service, out).map_err(unanswered)?;
        let is_repeatable = request.is_idempotent && body.is_complete();
        let out = std::mem::take(out);
        let mut attempt = Attempt::new(request, service, limits, out, is_repeatable);
        let mut kept = service.pool.reuse(is_repeatable);
        loop {
            attempt.is_reused = kept.is_some();
            let origin = match &mut kept {
                Some(origin) => origin,
                // In a box: few requests need it, and it is as large as all the rest.
                None => kept.insert(
                    Box::pin(connect(client, request, limits, service))
                        .await
                        .map_err(unanswered)?,
                ),
            };
            // Awaited where it is made, as everywhere here: a future that has a name first is held twice.
            match attempt.run(client, origin, &mut body).await {
                Ok(answered) => {
                    if attempt.is_reused {
                        service.pool.set_persistent();
                    }
                    if answered.next == Next::Tunnel {
                        let (up, down) = (&service.tally.bytes_up, &service.tally.bytes_down);
                        let limits = tunnel::Limits {
                            silence: limits.origin,
                            pause: limits.client,
                        };
                        let trace = request.trace.as_deref();
                        if let Some(trace) = trace {
                            trace.start_tunnel();
                        }
                        Box::pin(tunnel::run(client, origin, limits, (up, down), trace)).await;
                    } else if let Some(announced_seconds) = answered.keep
                        && attempt.sent.get() == Sent::Whole
                        && body.is_complete()
                        && origin.bytes().is_empty()
                        && let Some(origin) = kept.take()
                    {
                        service.pool.keep(origin, announced_seconds);
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
    service: &Service,
    out: &mut Scratch,
) -> Result<(), Fault> {
    let stays = |name: &str| request.stays(name, &service.onward);
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
    service: &Service,
) -> Result<Conn, Fault> {
    let connected = async {
        service
            .connector
            .connect(
                limits.origin,
                service.timeouts.connect,
                service.timeouts.hold,
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
    service: &Service,
) -> Result<Next, Fault> {
    let moment = ExchangeState {
        is_sent: true,
        is_stopping: service.clock.is_stopping(),
    };
    let next = forward::next(&request.asking, Framing::Empty, BodyMode::Verbatim, moment);
    // Its body, if it has one, is not read.
    let next = if request.framing == Framing::Empty {
        next
    } else {
        Next::Close(Reason::RequestUnfinished)
    };
    let manner = ReplyOptions {
        head_only: request.asking.asked == Asked::Head,
        close: next != Next::Reuse,
    };
    let mut out = Scratch::take();
    page.write(service, manner, &mut out);
    let silence = InactivityTimeout {
        deadline: &connection.limit,
        most: Some(service.timeouts.for_own_pages()),
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
async fn refuse(connection: Connection, refusal: Refusal, service: &Service) {
    let target = service.connector.target().to_string();
    let Some(answer) = refusal.fault.answer(&target) else {
        return;
    };
    let mut out = Scratch::take();
    let manner = ReplyOptions {
        head_only: refusal.head_only,
        close: true,
    };
    answer
        .reply()
        .write(&service.next_request_id(), manner, &mut out);
    log::debug!(
        "answering {}: {}",
        answer.reply().status,
        answer.reply().message
    );
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
fn report(fault: &Fault, request: &Request, service: &Service) {
    let label = request.label.as_deref().unwrap_or("request");
    match fault {
        Fault::Client(ClientFault::Gone) => log::debug!("{label}: the client has gone"),
        Fault::Client(ClientFault::Stalled) => {
            log::debug!("{label}: the client took nothing for longer than --body-timeout allows");
        }
        Fault::Client(_) => log::debug!("{label}: {}", explain(fault, service)),
        Fault::Origin(_) => {
            let why = explain(fault, service);
            log::warn!("{label}: {why}");
            service.tally.failed(Trouble::Told(why));
        }
    }
}

fn explain(fault: &Fault, service: &Service) -> String {
    let answer = fault.answer(&service.connector.target().to_string());
    answer
        .map(|answer| answer.reply().message.to_owned())
        .unwrap_or_default()
}

/// After this many requests of one connection, the others have their turn.
const TURN_REQUESTS: u32 = 64;

/// For how long what a client sends behind its last answer is read.
const LINGER: Duration = Duration::from_secs(2);

/// And how much of it: the largest file that OpenAI takes, since many clients look for an answer only behind their upload.
const LINGER_BYTES: usize = 512 << 20;
