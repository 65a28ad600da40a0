//! Waits for the head of a request, and decides by [`forward`] what becomes of it.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::http::Parsed;
use crate::http::connection::NominatedFields;
use crate::http::forward::{self, ForwardedRequest, RequestContext};
use crate::http::framing::{Framing, ResponseTo};
use crate::http::head::{self, Field, RequestHead, Slots, Version};
use crate::http::rewrite::RequestRewriter;
use crate::http::target::Target;
use crate::serve::admin::Page;
use crate::serve::buffers::Scratch;
use crate::serve::conn::{Conn, Filled, Reader, Stream};
use crate::serve::deadline::Deadline;
use crate::serve::error::{ClientError, ForwardError};
use crate::serve::feed::{BodyTap, RequestStart, Side, Trace};
use crate::serve::reactor;
use crate::serve::site::Site;

/// A client's connection between two requests: all that an idle one costs.
#[derive(Debug)]
pub struct Connection {
    pub client: Conn,
    pub limit: Deadline,
    /// Its number in the feed; 0 until it has one.
    number: u64,
}

impl Connection {
    /// A connection on which nothing has been read.
    pub fn new(stream: Stream, site: &Site) -> Self {
        Connection {
            client: Conn::new(stream),
            limit: site.clock.deadline(),
            number: 0,
        }
    }
}

/// What came on a connection.
pub enum Incoming {
    /// A request, and its head as the origin gets it.
    Request(Request, Scratch),
    /// A request that is not served.
    Refused(Refusal),
    /// No further request: the client has ended its side or was idle for too long, or the program stops.
    End,
}

/// What an exchange needs to know of a request whose head has been rewritten.
pub struct Request {
    pub context: RequestContext,
    pub framing: Framing,
    /// Its client may wait for a 100 before it sends the body, and the body has an inactivity timeout.
    pub may_wait: bool,
    /// Fields that its trailer section must not bring back.
    nominated: NominatedFields,
    /// Repeating it changes nothing (RFC 9110 §9.2.2).
    pub is_idempotent: bool,
    /// The page of the interceptor itself that it asks for.
    pub page: Option<Page>,
    began: Instant,
    /// Method and path, where the log is detailed. Never the query: it may hold a key.
    pub label: Option<String>,
    /// Tells the feed's subscribers, if there are any.
    pub trace: Option<Box<Trace>>,
}

impl Request {
    /// Whether fields of that `name` are removed from its trailer section.
    pub fn drops_trailer(&self, name: &str, rewriter: &RequestRewriter) -> bool {
        rewriter.sets(name) || self.nominated.has(name)
    }

    /// Time since its first byte.
    pub fn age(&self) -> Duration {
        reactor::now().duration_since(self.began)
    }

    /// Observes a body of its exchange, where the feed has subscribers.
    pub fn tap(&self, side: Side) -> Option<BodyTap<'_>> {
        self.trace.as_deref().map(|trace| trace.tap(side))
    }

    /// Its refusal because of `fault`.
    pub fn refusal(&self, fault: ForwardError) -> Refusal {
        Refusal {
            fault,
            head_only: self.context.response_to == ResponseTo::Head,
        }
    }
}

/// Why a request is not served.
pub struct Refusal {
    pub fault: ForwardError,
    /// The error response has no body.
    pub head_only: bool,
}

/// Reads the next request, and writes its head for the origin.
pub async fn read_request(connection: &mut Connection, site: &Site) -> Incoming {
    let Connection {
        client,
        limit,
        number,
    } = connection;
    let mut reader = client.reader();
    let mut seen = 0;
    let mut began = None;
    limit.set(site.timeouts.idle);
    loop {
        let bytes = reader.bytes();
        // A line ending that follows a body is not yet a request (RFC 9112 §2.2).
        let is_idle = matches!(bytes, b"" | b"\r" | b"\r\n");
        if !is_idle {
            let began = *began.get_or_insert_with(|| {
                limit.set(site.timeouts.head);
                reactor::now()
            });
            let is_news = seen == 0 || head::may_end(bytes, seen) || reader.is_full();
            if is_news {
                let mut out = Scratch::take();
                let caller = Caller {
                    stream: reader.stream(),
                    number,
                };
                match take_request(bytes, began, site, caller, &mut out) {
                    Ok(Parsed::Complete((request, len))) => {
                        limit.set(None);
                        reader.consume(len);
                        return Incoming::Request(request, out);
                    }
                    Ok(Parsed::Partial) => {}
                    Err(refusal) => return Incoming::Refused(refusal),
                }
            }
            seen = bytes.len();
        }
        match fill_within(&mut reader, limit, is_idle).await {
            Some(Ok(Filled::Some)) => {}
            Some(Ok(Filled::EndOfFile) | Err(_)) => return Incoming::End,
            None if is_idle => return Incoming::End,
            None => {
                let caller = Caller {
                    stream: reader.stream(),
                    number,
                };
                let began = began.unwrap_or_else(reactor::now);
                return Incoming::Refused(head_timeout(reader.bytes(), began, site, caller));
            }
        }
    }
}

/// Waits for more bytes; `None` if the limit passes, or the program stops while the client is idle.
async fn fill_within(
    reader: &mut Reader<'_>,
    limit: &Deadline,
    is_idle: bool,
) -> Option<io::Result<Filled>> {
    poll_fn(|context| {
        if let Poll::Ready(filled) = reader.poll_fill(context) {
            return Poll::Ready(Some(filled));
        }
        let passed = match is_idle {
            true => limit.poll_idle(context),
            false => limit.poll_passed(context),
        };
        passed.map(|()| None)
    })
    .await
}

/// The refusal of a head that took too long; `bytes` are what has arrived of it.
#[cold]
fn head_timeout(bytes: &[u8], began: Instant, site: &Site, caller: Caller<'_>) -> Refusal {
    let fault = ClientError::HeadTimeout.into();
    if site.feed.is_active() {
        trace_refusal(bytes, began, site, caller, &fault);
    }
    Refusal {
        fault,
        head_only: false,
    }
}

/// Takes the request at the start of `bytes` if its head is all there, and says how long that is.
fn take_request(
    bytes: &[u8],
    began: Instant,
    site: &Site,
    caller: Caller<'_>,
    out: &mut Scratch,
) -> Result<Parsed<(Request, usize)>, Refusal> {
    let mut slots = Slots::new();
    let taken = forward::request(bytes, &mut slots, &site.guard, &site.rewriter, out);
    let taken = match taken {
        Ok(taken) => taken,
        Err(refused) => {
            let fault = ClientError::Refused(refused.error).into();
            if site.feed.is_active() {
                trace_refusal(bytes, began, site, caller, &fault);
            }
            return Err(Refusal {
                fault,
                head_only: refused.head_only,
            });
        }
    };
    let Parsed::Complete(forwarded) = taken else {
        return Ok(Parsed::Partial);
    };
    let method = forwarded.head.method;
    let path = forwarded
        .target
        .path()
        .split('?')
        .next()
        .unwrap_or_default();
    let page = Page::at(method, path);
    let is_traced = page.is_none() && site.feed.is_active();
    let trace = is_traced.then(|| {
        let head = Some(&forwarded.head);
        let target = forwarded.target.path();
        Box::new(caller.begin(site, head, Some(target), forwarded.framing, began))
    });
    let request = Request {
        context: forwarded.context,
        framing: forwarded.framing,
        may_wait: may_wait(&forwarded, site),
        nominated: forwarded.nominated,
        is_idempotent: matches!(
            method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        ),
        page,
        began,
        label: log::log_enabled!(log::Level::Debug).then(|| format!("{method} {path}")),
        trace,
    };
    Ok(Parsed::Complete((request, forwarded.head.len)))
}

/// RFC 9110 §10.1.1. Not looked for where there is no inactivity timeout.
fn may_wait(forwarded: &ForwardedRequest<'_, '_>, site: &Site) -> bool {
    let limit = site.timeouts.body.unwrap_or_default();
    let ForwardedRequest { head, framing, .. } = forwarded;
    let expects = |field: &Field<'_>| {
        field.name.eq_ignore_ascii_case("Expect")
            && field.value.eq_ignore_ascii_case(b"100-continue")
    };
    !limit.is_zero()
        && *framing != Framing::Empty
        && head.version == Version::Http11
        && head.fields.iter().any(expects)
}

/// The client of a request, for the feed.
struct Caller<'a> {
    stream: &'a Stream,
    /// The connection's number; 0 until it has one.
    number: &'a mut u64,
}

impl Caller<'_> {
    fn begin(
        self,
        site: &Site,
        head: Option<&RequestHead<'_, '_>>,
        path: Option<&str>,
        framing: Framing,
        began: Instant,
    ) -> Trace {
        if *self.number == 0 {
            *self.number = site.feed.next_connection_id();
        }
        let start = RequestStart {
            connection: *self.number,
            client: self.stream.peer_address(),
            head,
            path,
            framing,
            began,
        };
        Trace::start(&site.feed, &start)
    }
}

/// Tells the feed of a request that is not served, and as much of it as can be read.
#[cold]
fn trace_refusal(
    bytes: &[u8],
    began: Instant,
    site: &Site,
    caller: Caller<'_>,
    fault: &ForwardError,
) {
    let mut slots = Slots::new();
    let head = match head::request(bytes, &mut slots) {
        Ok(Parsed::Complete(head)) => Some(head),
        _ => None,
    };
    let path = head.as_ref().and_then(|head| {
        let target = Target::parse(head.method, head.target).ok()?;
        Some(target.path())
    });
    let trace = caller.begin(site, head.as_ref(), path, Framing::Empty, began);
    trace.fail(fault, false);
}
