//! The two halves of an exchange, which run at the same time.
//!
//! The upload reads the client and writes the origin, and goes on to watch for the client's departure; the download reads the
//! origin and writes the client. Whichever ends the exchange drops the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use super::super::buffers::Scratch;
use super::super::conn::{Conn, Failure, Filled, Reader, Stream, WriteError, Writer};
use super::super::deadline::{Deadline, InactivityTimeout};
use super::super::error::{ClientFault, Fault, OriginFault};
use super::super::feed::Side;
use super::super::peer::{self, Peer};
use super::super::relay::{self, Broken, Terms};
use super::super::site::Site;
use super::Limits;
use super::request::Request;
use super::response::{Response, read_response};
use crate::http::body::{Body, BodyMode};
use crate::http::connection::{AfterResponse, Persistence};
use crate::http::forward::ResponseKind;
use crate::http::framing::Framing;
use crate::http::head::Version;

/// One attempt at a request: what it is about, and what its two halves know of each other.
pub struct Attempt<'a> {
    pub request: &'a Request,
    pub site: &'a Site,
    pub limits: Limits<'a>,
    /// It goes out on a connection that was kept, which the origin may be about to close.
    pub is_reused: bool,
    /// All of it is in `out`, and acting on it twice is acting on it once.
    is_repeatable: bool,
    /// The request's head and the start of its body, until the response makes it impossible to repeat it.
    out: Cell<Option<Scratch>>,
    pub sent: Cell<Sent>,
    /// A final response has begun to reach the client.
    pub answered: Cell<bool>,
    /// A 100 has: a client that waited for it waits no more.
    continued: Cell<bool>,
    /// The origin has reset its connection, as whoever wrote to it found.
    was_reset: Cell<bool>,
}

/// How much of the request has gone out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    Part,
    Whole,
}

/// A response that has been passed on.
pub struct Answered {
    pub status: u16,
    pub next: AfterResponse,
    pub persistence: Persistence,
}

impl<'a> Attempt<'a> {
    /// An attempt with what is in `out`; `is_repeatable`: that is all, and acting on it twice is acting on it once.
    pub fn new(
        request: &'a Request,
        site: &'a Site,
        limits: Limits<'a>,
        out: Scratch,
        is_repeatable: bool,
    ) -> Self {
        Attempt {
            request,
            site,
            limits,
            is_reused: false,
            is_repeatable,
            out: Cell::new(Some(out)),
            sent: Cell::new(Sent::Nothing),
            answered: Cell::new(false),
            continued: Cell::new(false),
            was_reset: Cell::new(false),
        }
    }

    /// Sends the request over `origin` and passes the response on.
    pub fn run(
        &self,
        client: &mut Conn,
        origin: &mut Conn,
        body: &mut Body,
    ) -> impl Future<Output = Result<Answered, Fault>> {
        let (client_reader, client_writer) = client.split();
        let (origin_reader, origin_writer) = origin.split();
        // The first is polled first.
        future::or(
            self.download(origin_reader, client_writer),
            self.upload(client_reader, origin_writer, body),
        )
    }

    /// Whether the request is still there and may go out again: only if no byte of it went out, or if acting on it twice
    /// is acting on it once. Either way its body is as it was.
    fn can_repeat(&self) -> bool {
        let out = self.out.take();
        let is_there = out.is_some();
        self.out.set(out);
        is_there && (self.is_repeatable || self.sent.get() == Sent::Nothing)
    }

    /// Makes ready for the same once more, over another connection; says whether that may be done.
    pub fn restart(&mut self) -> bool {
        let can_repeat = self.can_repeat();
        if can_repeat {
            self.sent.set(Sent::Nothing);
            self.continued.set(false);
            self.was_reset.set(false);
        }
        can_repeat
    }

    /// Sends the request, then watches the client. Ends only with a fault: the client's.
    fn upload(
        &self,
        mut client: Reader<'_>,
        origin: Writer<'_>,
        body: &mut Body,
    ) -> impl Future<Output = Result<Answered, Fault>> {
        async move {
            match self.begin(origin)? {
                Begun::Over => {}
                Begun::Whole if body.is_complete() => self.sent.set(Sent::Whole),
                begun => {
                    let stream = client.stream();
                    // What the client has sent may wait for an origin that takes nothing, and its end behind that.
                    let left = async { Err(absence(stream, self.request, self.site).await) };
                    let rest = self.send(&mut client, origin, body, begun);
                    // In a box: most requests have gone out by now, and this is as large as all the rest.
                    Box::pin(future::or(rest, left)).await?;
                }
            }
            // The origin has all of it, or wants no more: it is its turn.
            if !self.answered.get() {
                let first_byte = self.site.service.timeouts.first_byte;
                self.limits.origin.set(first_byte);
            }
            Err(departure(&mut client, self.request, self.limits.client).await)
        }
    }

    /// Sends the head, and what came of the body with it, as far as the origin takes it at once.
    fn begin(&self, origin: Writer<'_>) -> Result<Begun, OriginFault> {
        let Some(out) = self.out.take() else {
            return Ok(Begun::Whole);
        };
        let mut written = 0;
        let result = match origin.write_on(&out, &mut written) {
            Ok(true) => Ok(()),
            Ok(false) => return Ok(Begun::Part(out, written)),
            Err(why) => Err(WriteError { written, why }),
        };
        let goes_on = self.sent_head(out, result)?;
        Ok(if goes_on { Begun::Whole } else { Begun::Over })
    }

    /// Sends what is left of the request, as far as the origin takes it.
    async fn send(
        &self,
        client: &mut Reader<'_>,
        origin: Writer<'_>,
        body: &mut Body,
        begun: Begun,
    ) -> Result<(), Fault> {
        let Attempt { request, site, .. } = self;
        let silence = self.silence(self.limits.client);
        if let Begun::Part(out, before) = begun {
            let rest = origin.write_within(&out[before..], silence).await;
            let result = rest.map_err(|WriteError { written, why }| {
                let written = before + written;
                WriteError { written, why }
            });
            if !self.sent_head(out, result)? {
                return Ok(());
            }
        }
        if request.may_wait && *body == Body::new(request.framing) && client.bytes().is_empty() {
            // Its silence is the target's so far. The download is polled before this.
            let first = poll_fn(|context| match client.poll_fill(context) {
                Poll::Pending if self.continued.get() => Poll::Ready(Ok(Filled::Some)),
                filled => filled,
            });
            if !matches!(first.await, Ok(Filled::Some)) {
                return Err(ClientFault::Gone.into());
            }
        }
        let terms = Terms {
            form: BodyMode::Verbatim,
            stays: |name: &str| request.stays(name, &site.rewriter),
            silence,
            bytes: &site.metrics.bytes_up,
            tap: request.tap(Side::Request),
        };
        match relay::relay(client, origin, body, terms).await {
            Ok(()) => self.sent.set(Sent::Whole),
            Err(Broken::Sink(why)) => self.notice(why)?,
            Err(Broken::Source | Broken::Truncated) => return Err(ClientFault::Gone.into()),
            Err(Broken::Malformed(error)) => return Err(ClientFault::Refused(error).into()),
            Err(Broken::Silent) => return Err(ClientFault::BodyTimeout.into()),
        }
        Ok(())
    }

    /// Notes how the write of `out` ended, and keeps it while it may go out again; says whether more can follow.
    fn sent_head(&self, out: Scratch, result: Result<(), WriteError>) -> Result<bool, OriginFault> {
        let goes_on = result.is_ok();
        let sent = match result {
            Ok(()) => {
                self.site.metrics.bytes_up.add(out.len() as u64);
                Sent::Part
            }
            Err(WriteError { written, why }) => {
                self.notice(why)?;
                if written == 0 {
                    Sent::Nothing
                } else {
                    Sent::Part
                }
            }
        };
        self.sent.set(sent);
        if !self.answered.get() {
            self.out.set(Some(out));
        }
        Ok(goes_on)
    }

    /// How long nothing of a body may move.
    fn silence<'d>(&self, deadline: &'d Deadline) -> InactivityTimeout<'d> {
        InactivityTimeout {
            deadline,
            most: self.site.service.timeouts.body,
        }
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

    /// Passes the response on.
    fn download(
        &self,
        mut origin: Reader<'_>,
        client: Writer<'_>,
    ) -> impl Future<Output = Result<Answered, Fault>> {
        async move {
            let Attempt { request, site, .. } = self;
            // Set only while a write waits: before the answer, the deadline is the limit on its first byte.
            let silence = self.silence(self.limits.origin);
            let response;
            let mut body = Body::new(Framing::Empty);
            {
                let mut out = Scratch::take();
                response = self.settle(&mut origin, client, &mut out).await?;
                if let ResponseKind::Final(answer) = &response.kind {
                    body = Body::new(answer.framing);
                    let stays = |name: &str| answer.nominated.has(name);
                    let taken = body
                        .take_ready(origin.bytes(), answer.mode, stays, &mut out)
                        .map_err(OriginFault::Malformed)?;
                    if let Some(tap) = request.tap(Side::Response) {
                        tap.observe(&origin.bytes()[..taken]);
                    }
                    origin.consume(taken);
                }
                // From here on nothing else can be said, and nothing repeated.
                self.answered.set(true);
                client.begins_message();
                site.metrics.first_byte.record(request.age());
                self.out.take();
                silence.deadline.set(None);
                let written = client.write_within(&out, silence).await;
                written.map_err(|unwritten| untaken(unwritten.why))?;
                site.metrics.bytes_down.add(out.len() as u64);
            }
            let Response { status, kind } = &response;
            let ResponseKind::Final(answer) = kind else {
                return Ok(Answered {
                    status: *status,
                    next: AfterResponse::Tunnel,
                    persistence: Persistence::Close,
                });
            };
            let terms = Terms {
                form: answer.mode,
                stays: |name: &str| answer.nominated.has(name),
                silence,
                bytes: &site.metrics.bytes_down,
                tap: request.tap(Side::Response),
            };
            match relay::relay(&mut origin, client, &mut body, terms).await {
                // The end that the reset left behind is no end of a body that only an end completes.
                Ok(()) if answer.framing == Framing::UntilClose && self.was_reset.get() => {
                    Err(OriginFault::Truncated.into())
                }
                Ok(()) => {
                    client.ends_message();
                    Ok(Answered {
                        status: *status,
                        next: answer.next,
                        persistence: answer.persistence,
                    })
                }
                Err(Broken::Sink(why)) => Err(untaken(why)),
                Err(Broken::Source | Broken::Truncated) => Err(OriginFault::Truncated.into()),
                Err(Broken::Malformed(error)) => Err(OriginFault::Malformed(error).into()),
                Err(Broken::Silent) => Err(OriginFault::BodyTimeout.into()),
            }
        }
    }

    /// Reads the response that settles it, writes its head to `out`, and passes on the interim ones before it.
    async fn settle(
        &self,
        origin: &mut Reader<'_>,
        client: Writer<'_>,
        out: &mut Scratch,
    ) -> Result<Response, Fault> {
        let mut interim = 0;
        loop {
            let response = read_response(origin, self, out).await?;
            match &response.kind {
                ResponseKind::Interim => {}
                // An origin that had enough of waiting says so on its way out, and says it to the request that crosses it:
                // RFC 9110 §15.5.9 lets that be sent again. A 408 to what cannot be is passed on, for clients repeat it by
                // themselves; so is one that leaves the connection open, for somebody behind the origin has said it.
                ResponseKind::Final(answer)
                    if response.status == 408
                        && answer.persistence == Persistence::Close
                        && interim == 0
                        && self.is_reused
                        && self.can_repeat() =>
                {
                    return Err(OriginFault::Closed.into());
                }
                ResponseKind::Final(_) | ResponseKind::Tunnel => return Ok(response),
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(OriginFault::TooManyInterim.into());
            }
            // RFC 9110 §15.2: a client of HTTP/1.0 does not know them.
            if self.request.context.version == Version::Http11 {
                let limit = self.site.service.clock.deadline();
                let written = client.write_within(out, self.silence(&limit)).await;
                written.map_err(|unwritten| untaken(unwritten.why))?;
            }
            if response.status == 100 {
                self.continued.set(true);
            }
            out.clear();
        }
    }
}

/// How far the head of a request has gone out, and what came of the body with it.
enum Begun {
    /// All of it, or it is not needed any more.
    Whole,
    /// So many bytes of it; then there was no room.
    Part(Scratch, usize),
    /// The origin gets no more.
    Over,
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
async fn absence(client: &Stream, request: &Request, site: &Site) -> Fault {
    let readable = || poll_fn(|context| client.poll_readable(context));
    loop {
        // As long as all is read that comes, so is the end.
        drop(readable().await);
        let pause = site.service.clock.deadline();
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
        Peer::Unknown if request.context.is_persistent => Presence::Gone,
        Peer::Unknown => Presence::Untold,
    }
}

/// Why a client gets no more of its answer.
pub fn untaken(why: Failure) -> Fault {
    match why {
        Failure::Broken(_) => ClientFault::Gone.into(),
        Failure::Stalled => ClientFault::Stalled.into(),
    }
}

/// How many 1xx responses may come before the final one. Servers send one or two, or one every few seconds while a model
/// thinks.
const INTERIM_MAX: usize = 10_000;

/// How often a client that has stopped sending is asked for.
const PEER_PAUSE: Duration = Duration::from_millis(50);
