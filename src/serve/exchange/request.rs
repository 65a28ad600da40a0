//! The request half of an exchange: waits for a head, and has it judged by [`forward`].

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::super::admin::Page;
use super::super::buffers::Scratch;
use super::super::conn::{Filled, Stream};
use super::super::error::{ClientFault, Fault};
use super::super::feed::{BodyTap, RequestStart, Side, Trace};
use super::super::reactor;
use super::super::site::Site;
use super::Connection;
use crate::http::Parsed;
use crate::http::connection::NominatedFields;
use crate::http::forward::{self, ForwardedRequest, RequestContext};
use crate::http::framing::Framing;
use crate::http::head::{self, Field, RequestHead, Slots, Version};
use crate::http::rewrite::RequestRewriter;
use crate::http::target::Target;

/// What an exchange needs to know of a request whose head is already on its way.
pub struct Request {
    pub context: RequestContext,
    pub framing: Framing,
    /// Its client may wait for a 100 before it sends the body, and there is a limit on how long it is silent within that.
    pub may_wait: bool,
    /// What its trailer section must not bring back.
    pub nominated: NominatedFields,
    /// Repeating it changes nothing (RFC 9110 §9.2.2).
    pub is_idempotent: bool,
    pub page: Option<Page>,
    pub began: Instant,
    /// Method and path for the log, where it is detailed. Never the query: it may hold a key.
    pub label: Option<String>,
    /// What is told of it, while somebody listens.
    pub trace: Option<Box<Trace>>,
}

impl Request {
    /// Whether fields of that `name` do not pass in its trailer section.
    pub fn stays(&self, name: &str, onward: &RequestRewriter) -> bool {
        onward.sets(name) || self.nominated.has(name)
    }

    /// How long ago it came.
    pub fn age(&self) -> Duration {
        reactor::now().duration_since(self.began)
    }

    /// What sees the bodies of its exchange.
    pub fn tap(&self, side: Side) -> Option<BodyTap<'_>> {
        self.trace.as_deref().map(|trace| trace.tap(side))
    }
}

/// A request that is not served.
pub struct Refusal {
    pub fault: Fault,
    pub head_only: bool,
}

/// Reads the next request, and writes its head for the origin. `None`: the client has finished, or was idle
/// for too long, or the program stops.
pub async fn read_request(
    connection: &mut Connection,
    site: &Site,
) -> Option<Result<(Request, Scratch), Refusal>> {
    let Connection {
        client,
        limit,
        number,
    } = connection;
    let mut reader = client.reader();
    let mut seen = 0;
    let mut began = None;
    limit.set(site.service.timeouts.idle);
    loop {
        let bytes = reader.bytes();
        // A lone line ending behind a body is not yet a request (RFC 9112 §2.2).
        let is_idle = matches!(bytes, b"" | b"\r" | b"\r\n");
        if !is_idle {
            let began = *began.get_or_insert_with(|| {
                limit.set(site.service.timeouts.head);
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
                        return Some(Ok((request, out)));
                    }
                    Ok(Parsed::Partial) => {}
                    Err(refusal) => return Some(Err(refusal)),
                }
            }
            seen = bytes.len();
        }
        let filled = poll_fn(|context| {
            if let Poll::Ready(filled) = reader.poll_fill(context) {
                return Poll::Ready(Some(filled));
            }
            let waited = if is_idle {
                limit.poll_idle(context)
            } else {
                limit.poll_passed(context)
            };
            waited.map(|()| None)
        })
        .await;
        match filled {
            Some(Ok(Filled::Some)) => {}
            Some(Ok(Filled::EndOfFile) | Err(_)) => return None,
            None if is_idle => return None,
            None => {
                let fault = ClientFault::HeadTimeout.into();
                if site.feed.is_active() {
                    let began = began.unwrap_or_else(reactor::now);
                    let caller = Caller {
                        stream: reader.stream(),
                        number,
                    };
                    trace_refusal(reader.bytes(), began, site, caller, &fault);
                }
                return Some(Err(Refusal {
                    fault,
                    head_only: false,
                }));
            }
        }
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
            let fault = ClientFault::Refused(refused.error).into();
            if site.feed.is_active() {
                trace_refusal(bytes, began, site, caller, &fault);
            }
            return Err(Refusal {
                fault,
                head_only: refused.head_only,
            });
        }
    };
    let Parsed::Complete(onbound) = taken else {
        return Ok(Parsed::Partial);
    };
    let method = onbound.head.method;
    let path = onbound.target.path().split('?').next().unwrap_or_default();
    let page = Page::at(method, path);
    let is_told = page.is_none() && site.feed.is_active();
    let trace = is_told.then(|| {
        let head = Some(&onbound.head);
        let target = onbound.target.path();
        Box::new(caller.begin(site, head, Some(target), onbound.framing, began))
    });
    let request = Request {
        context: onbound.context,
        framing: onbound.framing,
        may_wait: may_wait(&onbound, site),
        nominated: onbound.nominated,
        is_idempotent: matches!(
            method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        ),
        page,
        began,
        label: log::log_enabled!(log::Level::Debug).then(|| format!("{method} {path}")),
        trace,
    };
    Ok(Parsed::Complete((request, onbound.head.len)))
}

/// RFC 9110 §10.1.1. Where nothing hangs on it, it is not looked for.
fn may_wait(onbound: &ForwardedRequest<'_, '_>, site: &Site) -> bool {
    let limit = site.service.timeouts.body.unwrap_or_default();
    let ForwardedRequest { head, framing, .. } = onbound;
    let expects = |field: &Field<'_>| {
        field.name.eq_ignore_ascii_case("Expect")
            && field.value.eq_ignore_ascii_case(b"100-continue")
    };
    !limit.is_zero()
        && *framing != Framing::Empty
        && head.version == Version::Http11
        && head.fields.iter().any(expects)
}

/// Whose request it is, for those who listen.
struct Caller<'a> {
    stream: &'a Stream,
    /// The connection's number, once it has one.
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
            client: self.stream.tcp().and_then(|tcp| tcp.peer_addr().ok()),
            head,
            path,
            framing,
            began,
        };
        Trace::start(&site.feed, &start)
    }
}

/// Tells of a request that is not served, and as much of it as can be read.
#[cold]
fn trace_refusal(bytes: &[u8], began: Instant, site: &Site, caller: Caller<'_>, fault: &Fault) {
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
