//! The two halves of an exchange, which run at the same time.
//!
//! [`upload`] reads the client and writes the origin, and goes on to watch for the client's departure;
//! [`download`] reads the origin and writes the client. Whichever ends the exchange drops the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use super::super::Service;
use super::super::buffers::Scratch;
use super::super::deadline::{Deadline, Silence};
use super::super::fault::{ClientFault, Fault, OriginFault};
use super::super::feed::Side;
use super::super::peer::{self, Peer};
use super::super::relay::{self, Broken, Terms};
use super::super::wire::{Failure, Filled, Reader, Stream, Wire, Writer};
use super::Limits;
use super::request::Request;
use super::response::read_response;
use crate::http::body::{Body, Form};
use crate::http::connection::Next;
use crate::http::framing::Framing;
use crate::http::head::Version;
use crate::http::passage::{Final, Kind};

/// What the two halves of an attempt know of each other.
pub struct State {
    /// The request's head and the start of its body, until the response makes it impossible to repeat it.
    pub out: Cell<Option<Scratch>>,
    pub sent: Cell<Sent>,
    /// A final response has begun to reach the client.
    pub answered: Cell<bool>,
    /// A 100 has: a client that waited for it waits no more.
    continued: Cell<bool>,
    /// The origin has reset its connection, as whoever wrote to it found.
    pub was_reset: Cell<bool>,
    /// It goes out on a connection that was kept, which the origin may be about to close.
    pub is_reused: bool,
    /// All of it is in `out`, and acting on it twice is acting on it once.
    is_repeatable: bool,
}

/// How much of the request has gone out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    Part,
    Whole,
}

impl State {
    pub fn new(out: Scratch, is_repeatable: bool) -> Self {
        State {
            out: Cell::new(Some(out)),
            sent: Cell::new(Sent::Nothing),
            answered: Cell::new(false),
            continued: Cell::new(false),
            was_reset: Cell::new(false),
            is_reused: false,
            is_repeatable,
        }
    }

    /// Whether the request is still there and may go out again: only if no byte of it went out, or if acting on it twice
    /// is acting on it once.
    pub fn can_repeat(&self) -> bool {
        let out = self.out.take();
        let is_there = out.is_some();
        self.out.set(out);
        is_there && (self.is_repeatable || self.sent.get() == Sent::Nothing)
    }

    /// What follows from it that the origin gets no more: it may still have answered, or be about to, which the download
    /// finds out. One that takes nothing is at fault as long as it has not.
    fn notice(&self, why: Failure) -> Result<(), OriginFault> {
        if why == Failure::Broken(io::ErrorKind::ConnectionReset) {
            self.was_reset.set(true);
        }
        if why == Failure::Stalled && !self.answered.get() {
            return Err(OriginFault::Stalled);
        }
        Ok(())
    }
}

/// A response that has been passed on.
pub struct Answered {
    pub status: u16,
    pub next: Next,
    /// The origin's connection may be kept, for as long as was announced.
    pub keep: Option<Option<u64>>,
}

/// Sends the request over `origin` and passes the response on.
pub async fn attempt(
    client: &mut Wire,
    origin: &mut Wire,
    body: &mut Body,
    request: &Request,
    state: &State,
    limits: Limits<'_>,
    service: &Service,
) -> Result<Answered, Fault> {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    let mut download = pin!(download(
        origin_reader,
        client_writer,
        request,
        state,
        limits.origin,
        service,
    ));
    let mut upload = pin!(upload(
        client_reader,
        origin_writer,
        body,
        request,
        state,
        limits,
        service,
    ));
    poll_fn(|context| match download.as_mut().poll(context) {
        Poll::Ready(answered) => Poll::Ready(answered),
        Poll::Pending => upload.as_mut().poll(context).map(Err),
    })
    .await
}

/// Sends the request, then watches the client. Ends only with a fault: the client's.
async fn upload(
    mut client: Reader<'_>,
    origin: Writer<'_>,
    body: &mut Body,
    request: &Request,
    state: &State,
    limits: Limits<'_>,
    service: &Service,
) -> Fault {
    let stream = client.stream();
    // What the client has sent may wait for an origin that takes nothing, and its end behind that.
    let left = async { Err(absence(stream, request, service).await) };
    let sent = send(&mut client, origin, body, request, state, limits, service);
    if let Err(fault) = future::or(sent, left).await {
        return fault;
    }
    departure(&mut client, request, limits.client).await
}

/// Sends the request, as far as the origin takes it.
async fn send(
    client: &mut Reader<'_>,
    origin: Writer<'_>,
    body: &mut Body,
    request: &Request,
    state: &State,
    limits: Limits<'_>,
    service: &Service,
) -> Result<(), Fault> {
    let silence = Silence {
        deadline: limits.client,
        most: service.timeouts.body,
    };
    if let Some(out) = state.out.take() {
        let result = origin.write_within(&out, silence).await;
        let is_over = match result {
            Ok(()) => {
                service.tally.bytes_up.add(out.len() as u64);
                false
            }
            Err(unwritten) => {
                state.notice(unwritten.why)?;
                state.sent.set(if unwritten.written == 0 {
                    Sent::Nothing
                } else {
                    Sent::Part
                });
                true
            }
        };
        if !state.answered.get() {
            state.out.set(Some(out));
        }
        if is_over {
            return Ok(());
        }
        state.sent.set(Sent::Part);
    }
    if request.may_wait && *body == Body::new(request.framing) && client.bytes().is_empty() {
        // Its silence is the target's so far. The download is polled before this.
        let begun = poll_fn(|context| match client.poll_fill(context) {
            Poll::Pending if state.continued.get() => Poll::Ready(Ok(Filled::Some)),
            filled => filled,
        });
        if !matches!(begun.await, Ok(Filled::Some)) {
            return Err(ClientFault::Gone.into());
        }
    }
    let terms = Terms {
        form: Form::AsIs,
        stays: |name: &str| request.stays(name, &service.onward),
        silence,
        bytes: &service.tally.bytes_up,
        sight: request.sight(Side::Request),
    };
    // In a box: most bodies come with their heads, and this would be a quarter of what each exchange holds.
    match Box::pin(relay::relay(client, origin, body, terms)).await {
        Ok(()) => state.sent.set(Sent::Whole),
        Err(Broken::Sink(why)) => state.notice(why)?,
        Err(Broken::Source | Broken::Truncated) => return Err(ClientFault::Gone.into()),
        Err(Broken::Malformed(error)) => return Err(ClientFault::Refused(error).into()),
        Err(Broken::Silent) => return Err(ClientFault::BodyTimeout.into()),
    }
    if !state.answered.get() {
        limits.origin.set(service.timeouts.first_byte);
    }
    Ok(())
}

/// Waits until the client has gone. What it sends meanwhile is kept for the next request.
pub async fn departure(client: &mut Reader<'_>, request: &Request, deadline: &Deadline) -> Fault {
    while !client.is_full() {
        match client.fill().await {
            Ok(Filled::Some) => {}
            Ok(Filled::EndOfFile) => break,
            Err(_) => return ClientFault::Gone.into(),
        }
    }
    // It has stopped sending, or sent more ahead than is read: has it gone, or does it wait for its answers?
    let has_ended = !client.is_full();
    loop {
        match presence(client.stream(), has_ended, request) {
            Presence::Gone => return ClientFault::Gone.into(),
            Presence::MayEnd => {}
            Presence::Untold => future::pending::<()>().await,
        }
        deadline.set(Some(PEER_PAUSE));
        deadline.passed().await;
    }
}

/// Waits until the client has gone, while what it has sent waits for an origin that takes nothing. Its end may stand behind
/// that, where nobody reads it, or not even be on its way yet.
async fn absence(client: &Stream, request: &Request, service: &Service) -> Fault {
    let readable = || poll_fn(|context| client.poll_readable(context));
    loop {
        // As long as all is read that comes, so is the end.
        drop(readable().await);
        let pause = service.clock.deadline();
        pause.set(Some(PEER_PAUSE));
        pause.passed().await;
        drop(readable().await);
        if presence(client, client.has_ended(), request) == Presence::Gone {
            return ClientFault::Gone.into();
        }
    }
}

/// Whether a client is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Gone,
    /// It is there, or would be missed; that may end.
    MayEnd,
    /// It is there for all that will ever be known before the answer is written.
    Untold,
}

/// Whether a client that may have stopped sending has gone.
fn presence(client: &Stream, has_ended: bool, request: &Request) -> Presence {
    match peer::of(client) {
        Peer::Closed => Presence::Gone,
        Peer::Open => Presence::MayEnd,
        // A reset would show.
        Peer::Unknown if !has_ended => Presence::MayEnd,
        // Who means to go on with this connection does not finish it; who asked to close it may.
        Peer::Unknown if request.asking.persists => Presence::Gone,
        Peer::Unknown => Presence::Untold,
    }
}

/// Passes the response on.
async fn download(
    mut origin: Reader<'_>,
    client: Writer<'_>,
    request: &Request,
    state: &State,
    deadline: &Deadline,
    service: &Service,
) -> Result<Answered, Fault> {
    // Set only while a write waits: before the answer, `deadline` is the limit on its first byte.
    let most = service.timeouts.body;
    let silence = Silence { deadline, most };
    let mut interim = 0;
    let (mut out, status, answer) = loop {
        let mut out = Scratch::take();
        let response =
            read_response(&mut origin, request, state, deadline, service, &mut out).await?;
        match response.kind {
            // An origin that had enough of waiting says so on its way out, and says it to the request that crosses it:
            // RFC 9110 §15.5.9 lets that be sent again. A 408 to what cannot be is passed on, for clients repeat it by
            // themselves; so is one that leaves the connection open, for somebody behind the origin has said it.
            Kind::Final(answer)
                if response.status == 408
                    && answer.keep.is_none()
                    && interim == 0
                    && state.is_reused
                    && state.can_repeat() =>
            {
                return Err(OriginFault::Closed.into());
            }
            Kind::Final(answer) => break (out, response.status, answer),
            Kind::Tunnel => {
                state.answered.set(true);
                service.tally.answers(request.began.elapsed());
                deadline.set(None);
                client
                    .write_within(&out, silence)
                    .await
                    .map_err(|unwritten| untaken(unwritten.why))?;
                return Ok(Answered {
                    status: response.status,
                    next: Next::Tunnel,
                    keep: None,
                });
            }
            Kind::Interim => {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(OriginFault::TooManyInterim.into());
                }
                // RFC 9110 §15.2: a client of HTTP/1.0 does not know them.
                if request.asking.version == Version::Http11 {
                    let limit = service.clock.deadline();
                    client
                        .write_within(
                            &out,
                            Silence {
                                deadline: &limit,
                                most,
                            },
                        )
                        .await
                        .map_err(|unwritten| untaken(unwritten.why))?;
                }
                if response.status == 100 {
                    state.continued.set(true);
                }
            }
        }
    };
    let Final {
        framing,
        form,
        next,
        keep,
        named,
    } = answer;
    let mut body = Body::new(framing);
    let taken = body
        .take_ready(origin.bytes(), form, |name| named.has(name), &mut out)
        .map_err(OriginFault::Malformed)?;
    if let Some(sight) = request.sight(Side::Response) {
        sight.passed(&origin.bytes()[..taken]);
    }
    origin.consume(taken);
    // From here on nothing else can be said, and nothing repeated.
    state.answered.set(true);
    client.begins_message();
    service.tally.answers(request.began.elapsed());
    state.out.take();
    deadline.set(None);
    client
        .write_within(&out, silence)
        .await
        .map_err(|unwritten| untaken(unwritten.why))?;
    service.tally.bytes_down.add(out.len() as u64);
    drop(out);
    let terms = Terms {
        form,
        stays: |name: &str| named.has(name),
        silence,
        bytes: &service.tally.bytes_down,
        sight: request.sight(Side::Response),
    };
    match relay::relay(&mut origin, client, &mut body, terms).await {
        // The end that the reset left behind is no end of a body that only an end completes.
        Ok(()) if framing == Framing::UntilClose && state.was_reset.get() => {
            Err(OriginFault::Truncated.into())
        }
        Ok(()) => {
            client.ends_message();
            Ok(Answered { status, next, keep })
        }
        Err(Broken::Sink(why)) => Err(untaken(why)),
        Err(Broken::Source | Broken::Truncated) => Err(OriginFault::Truncated.into()),
        Err(Broken::Malformed(error)) => Err(OriginFault::Malformed(error).into()),
        Err(Broken::Silent) => Err(OriginFault::BodyTimeout.into()),
    }
}

/// Why a client gets no more of its answer.
pub fn untaken(why: Failure) -> Fault {
    match why {
        Failure::Broken(_) => ClientFault::Gone.into(),
        Failure::Stalled => ClientFault::Stalled.into(),
    }
}

/// How many 1xx responses may come before the final one. Servers send one or two.
const INTERIM_MAX: usize = 16;

/// How often a client that has stopped sending is asked for.
const PEER_PAUSE: Duration = Duration::from_millis(50);
