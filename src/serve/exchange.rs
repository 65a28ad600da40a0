//! One client's connection: a request and its response, then the next. The only driver of [`http`](crate::http).
//!
//! Request body and response are awaited together: an answer may come before the upload is over, an upload
//! may wait for a 100, and a client may leave at any moment. Two futures in one task do it: see [`halves`].
//! What is decided about a request is in [`request`], about a response in [`response`].

mod halves;
mod request;
mod response;

use std::rc::Rc;
use std::time::Duration;

use smol::future;

use self::halves::{Answered, Sent, State};
use self::request::{Refusal, Request};
use super::Service;
use super::buffers::Scratch;
use super::deadline::Deadline;
use super::fault::{ClientFault, Fault, OriginFault};
use super::own::Page;
use super::relay::{self, Form};
use super::tunnel;
use super::wire::{Filled, Stream, Wire};
use crate::http::body::Body;
use crate::http::connection::{Next, Reason};
use crate::http::framing::{Asked, Framing};
use crate::http::reply::Manner;

/// Serves a client's connection to its end.
pub async fn serve(stream: Stream, service: &Rc<Service>) {
    let mut client = Wire::new(stream);
    let limits = ClientLimits {
        client: service.clock.deadline(),
        origin: service.clock.deadline(),
    };
    loop {
        let mut out = Scratch::take();
        let request =
            match request::read_request(&mut client, &limits.client, service, &mut out).await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(refusal) => return refuse(client, refusal, &limits.client, service).await,
            };
        let result = exchange(&mut client, &request, out, &limits, service).await;
        let next = match result {
            Ok(next) => next,
            Err(broken) => {
                report(&broken.fault, &request, service);
                service
                    .tally
                    .end(broken.fault.answer("").map(|answer| answer.reply().status));
                if broken.is_answered {
                    // A body that ends with the connection would otherwise look complete.
                    client.reset();
                } else {
                    let refusal = Refusal {
                        fault: broken.fault,
                        head_only: request.asked == Asked::Head,
                    };
                    refuse(client, refusal, &limits.client, service).await;
                }
                return;
            }
        };
        match next {
            Next::Reuse => {}
            Next::Close(reason) => {
                log::debug!("closing the client's connection: {}", reason.explain());
                return close(client, &limits.client).await;
            }
            Next::Tunnel => return,
        }
    }
}

/// Answers a connection that is one too many.
pub async fn turn_away(stream: Stream, service: &Rc<Service>) {
    let refusal = Refusal {
        fault: ClientFault::TooMany.into(),
        head_only: false,
    };
    refuse(
        Wire::new(stream),
        refusal,
        &service.clock.deadline(),
        service,
    )
    .await;
}

struct ClientLimits {
    client: Deadline,
    origin: Deadline,
}

/// An exchange that broke off.
struct Break {
    fault: Fault,
    /// The client has part of a final response: it cannot be told any more.
    is_answered: bool,
}

async fn exchange(
    client: &mut Wire,
    request: &Request,
    out: Scratch,
    limits: &ClientLimits,
    service: &Service,
) -> Result<Next, Break> {
    if let Some(page) = request.page {
        let next = serve_page(client, request, page, service).await;
        return next.map_err(|fault| Break {
            fault,
            is_answered: false,
        });
    }
    service.tally.begin();
    let result = forward(client, request, out, limits, service).await;
    service.tally.end(match &result {
        Ok((status, _)) => Some(*status),
        Err(broken) => broken.fault.answer("").map(|answer| answer.reply().status),
    });
    let (status, next) = result?;
    if let Some(label) = &request.label {
        log::debug!(
            "{label}: {status} in {} ms",
            request.began.elapsed().as_millis()
        );
    }
    Ok(next)
}

/// Sends a request on and its response back; says the response's status.
async fn forward(
    client: &mut Wire,
    request: &Request,
    mut out: Scratch,
    limits: &ClientLimits,
    service: &Service,
) -> Result<(u16, Next), Break> {
    let unanswered = |fault: Fault| Break {
        fault,
        is_answered: false,
    };
    let mut body = Body::new(request.framing);
    relay::take_ready(&mut client.reader(), &mut body, Form::AsIs, &mut out)
        .map_err(|error| unanswered(ClientFault::Refused(error).into()))?;
    let is_repeatable = request.is_idempotent && body.is_complete();

    let mut state = State::new(out);
    let mut kept = service.origin.reuse(is_repeatable);
    loop {
        let is_reused = kept.is_some();
        let mut origin = match kept.take() {
            Some(origin) => origin,
            None => connect(client, request, limits, service)
                .await
                .map_err(unanswered)?,
        };
        let mut attempt_body = body;
        let result = halves::attempt(
            client,
            &mut origin,
            &mut attempt_body,
            request,
            &state,
            limits,
            service,
        )
        .await;
        let (fault, is_answered) = match result {
            Ok(answered) => {
                if is_reused {
                    service.origin.has_persisted();
                }
                if let Answered {
                    next: Next::Tunnel, ..
                } = answered
                {
                    tunnel::run(client, &mut origin, &service.tally.bytes_down).await;
                } else if let Some(announced_seconds) = answered.keep.filter(|_| {
                    state.sent.get() == Sent::Whole
                        && attempt_body.is_complete()
                        && origin.bytes().is_empty()
                }) {
                    service.origin.keep(origin, announced_seconds);
                }
                return Ok((answered.status, answered.next));
            }
            Err(fault) => (fault, state.answered.get()),
        };
        // A connection that was kept may have been closed by the origin just before it was used. The request
        // goes out again only if no byte of it went out, or if acting on it twice is acting on it once.
        let was_stale = is_reused
            && matches!(
                fault,
                Fault::Origin(OriginFault::Closed | OriginFault::Failed(_))
            );
        let can_repeat = state.sent.get() == Sent::Nothing || is_repeatable;
        match state.out.take() {
            Some(out) if was_stale && can_repeat && !is_answered => {
                log::debug!("the kept connection had gone stale; sending the request again");
                state = State::new(out);
            }
            _ => return Err(Break { fault, is_answered }),
        }
    }
}

/// Makes a connection, unless the client leaves before it stands.
async fn connect(
    client: &mut Wire,
    request: &Request,
    limits: &ClientLimits,
    service: &Service,
) -> Result<Wire, Fault> {
    let connected = async {
        service
            .origin
            .connect(
                &limits.origin,
                service.timeouts.connect,
                service.timeouts.hold,
            )
            .await
            .map_err(|error| OriginFault::Connect(error).into())
    };
    let mut reader = client.reader();
    let left = async { Err(halves::departure(&mut reader, request, &limits.client).await) };
    future::or(connected, left).await
}

/// Answers with a page of the interceptor's own.
async fn serve_page(
    client: &mut Wire,
    request: &Request,
    page: Page,
    service: &Service,
) -> Result<Next, Fault> {
    let next = response::next(
        request,
        Framing::Empty,
        Form::AsIs,
        Sent::Whole,
        service.clock.is_stopping(),
    );
    // Its body, if it has one, is not read.
    let next = if request.framing == Framing::Empty {
        next
    } else {
        Next::Close(Reason::RequestUnfinished)
    };
    let manner = Manner {
        head_only: request.asked == Asked::Head,
        close: next != Next::Reuse,
    };
    let mut out = Scratch::take();
    page.write(service, manner, &mut out);
    client
        .writer()
        .write_all(&out)
        .await
        .map_err(|_| ClientFault::Gone)?;
    Ok(next)
}

/// Tells the client what is wrong, if it is still there, and closes.
async fn refuse(client: Wire, refusal: Refusal, deadline: &Deadline, service: &Service) {
    let target = service.origin.target().to_string();
    let Some(answer) = refusal.fault.answer(&target) else {
        return;
    };
    let mut out = Scratch::take();
    let manner = Manner {
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
    deadline.set(Some(LINGER));
    let written = async { client.writer().write_all(&out).await.is_ok() };
    let in_time = async {
        deadline.passed().await;
        false
    };
    if future::or(written, in_time).await {
        close(client, deadline).await;
    }
}

/// Closes so that the last response arrives: what the client still sends is read for a while, for bytes that
/// nobody reads turn the end of a connection into a reset, which overtakes the response (RFC 9112 §9.6).
async fn close(mut client: Wire, deadline: &Deadline) {
    client.writer().finish();
    deadline.set(Some(LINGER));
    let drained = async {
        let mut reader = client.reader();
        loop {
            reader.consume(reader.bytes().len());
            match reader.fill().await {
                Ok(Filled::Some) => {}
                Ok(Filled::EndOfFile) | Err(_) => return,
            }
        }
    };
    future::or(drained, deadline.passed()).await;
}

/// One line on what went wrong: the origin's faults are the user's business, the clients' are their own.
fn report(fault: &Fault, request: &Request, service: &Service) {
    let label = request.label.as_deref().unwrap_or("request");
    match fault {
        Fault::Client(ClientFault::Gone) => log::debug!("{label}: the client has gone"),
        Fault::Client(_) => log::debug!("{label}: {}", explain(fault, service)),
        Fault::Origin(_) => log::warn!("{label}: {}", explain(fault, service)),
    }
}

fn explain(fault: &Fault, service: &Service) -> String {
    let answer = fault.answer(&service.origin.target().to_string());
    answer
        .map(|answer| answer.reply().message.to_owned())
        .unwrap_or_default()
}

/// For how long what a refused client still sends is read.
const LINGER: Duration = Duration::from_secs(2);
