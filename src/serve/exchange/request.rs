//! Waits for the head of a request, and decides by [`forward`] what becomes of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::http::connection::NominatedFields;
use crate::http::forward::{self, ForwardedRequest, RequestContext};
use crate::http::framing::{Framing, ResponseTo};
use crate::http::head::{self, Field, RequestHead, Slots, Version};
use crate::http::reply::Reply;
use crate::http::rewrite::RequestRewriter;
use crate::http::scan::Scan;
use crate::http::target::Target;
use crate::http::{Parsed, Sender};
use crate::serve::admin::Page;
use crate::serve::buffers::Scratch;
use crate::serve::conn::{Conn, Filled, Reader, Stream};
use crate::serve::deadline::Deadline;
use crate::serve::error::{ClientError, ForwardError};
use crate::serve::feed::{BodyTap, RequestStart, Side, Trace};
use crate::serve::reactor;
use crate::serve::site::Site;
use crate::text::redact;

/// A client's connection between two requests: all that an idle one costs.
#[derive(Debug)]
pub struct Connection {
    pub client: Conn,
    pub limit: Deadline,
    /// Its number in the feed; 0 until it has one.
    number: Cell<u64>,
    /// The target's connection that is used for its requests alone, and ends with it. In a box: few have one.
    pub pinned: Option<Box<Conn>>,
}

impl Connection {
    /// A connection on which nothing has been read.
    pub fn new(stream: Stream, site: &Site) -> Self {
        Connection {
            client: Conn::new(stream),
            limit: site.service.clock.deadline(),
            number: Cell::new(0),
            pinned: None,
        }
    }
}

/// What an exchange needs to know of a request whose head has been rewritten.
pub struct Request {
    pub context: RequestContext,
    pub framing: Framing,
    /// Its client may wait for a 100 before it sends the body, and the body has an inactivity timeout.
    pub may_wait: bool,
    /// Fields that its trailer section must not bring back.
    nominated: NominatedFields,
    /// It asks for a stream of Gemini's contents.
    pub streams_contents: bool,
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

/// Returns the error response to `fault` for a client on `stream`; `None` if the client does not read.
pub fn reply(fault: &ForwardError, stream: &Stream, site: &Site) -> Option<Reply<'static>> {
    let mut reply = fault.reply(&site.upstream.connector.target().to_string())?;
    if let ForwardError::Client(ClientError::Refused(error)) = fault
        && error.is_of_url()
    {
        reply.message.to_mut().push_str(&base_url(stream, site));
    }
    Some(reply)
}

/// `: ` and the base URL for clients that connect as this one did; empty on a Unix socket.
fn base_url(stream: &Stream, site: &Site) -> String {
    let Some(address) = stream.local_address() else {
        return String::new();
    };
    let ip = address.ip().to_canonical();
    let address = match site.guard.allowed_hosts.first() {
        _ if [LOCALHOST, LOCALHOST_IPV6].contains(&ip) => format!("localhost:{}", address.port()),
        Some(host) if !site.guard.serves_all_hosts() => format!("{host}:{}", address.port()),
        _ => SocketAddr::new(ip, address.port()).to_string(),
    };
    format!(": http://{address}")
}

/// The addresses of `localhost`.
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Reads the next request, and writes its head for the origin; the error is why it is not served. `None` if there is none: the
/// client has ended its side, was idle for too long, or makes room for another one, or the program stops.
pub async fn read_request(
    connection: &mut Connection,
    site: &Site,
) -> Option<Result<(Request, Scratch), Refusal>> {
    let Connection {
        client,
        limit,
        number,
        pinned,
    } = connection;
    let mut reader = client.reader();
    let caller = Caller {
        site,
        stream: reader.stream(),
        number,
    };
    let mut scan = Scan::head(Sender::Client);
    let mut seen = 0;
    let mut began = None;
    limit.set_idle(site.service.timeouts.idle);
    loop {
        let bytes = reader.bytes();
        // A line ending that follows a body is not yet a request (RFC 9112 §2.2).
        let is_idle = matches!(bytes, b"" | b"\r" | b"\r\n");
        if !is_idle {
            let began = *began.get_or_insert_with(|| {
                limit.set(site.service.timeouts.head);
                reactor::now()
            });
            let is_news = seen == 0 || scan.is_decided(bytes);
            if is_news {
                let mut out = Scratch::take();
                match take_request(bytes, began, caller, &mut out) {
                    Ok(Parsed::Complete((mut request, len))) => {
                        request.context.is_pinned |= pinned.is_some();
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
        match fill_within(&mut reader, limit, is_idle, site).await {
            Some(Ok(Filled::Some)) => {}
            Some(Ok(Filled::EndOfFile) | Err(_)) => return None,
            None if is_idle => return None,
            None => {
                let began = began.unwrap_or_else(reactor::now);
                let fault = ClientError::HeadTimeout.into();
                return Some(Err(caller.refuse(reader.bytes(), began, fault, false)));
            }
        }
    }
}

/// Waits for more bytes; `None` if the limit passes, or the site closes while the client is idle.
async fn fill_within(
    reader: &mut Reader<'_>,
    limit: &Deadline,
    is_idle: bool,
    site: &Site,
) -> Option<io::Result<Filled>> {
    poll_fn(|context| {
        if let Poll::Ready(filled) = reader.poll_fill(context) {
            return Poll::Ready(Some(filled));
        }
        if is_idle && site.is_closing() {
            return Poll::Ready(None);
        }
        limit.poll_passed(context).map(|()| None)
    })
    .await
}

/// Takes the request at the start of `bytes` if its head is all there, and says how long that is.
fn take_request(
    bytes: &[u8],
    began: Instant,
    caller: Caller<'_>,
    out: &mut Scratch,
) -> Result<Parsed<(Request, usize)>, Refusal> {
    let site = caller.site;
    let mut slots = Slots::default();
    let taken = forward::request(bytes, &mut slots, &site.guard, &site.rewriter, out);
    let taken = taken.map_err(|refused| {
        let fault = ClientError::Refused(refused.error).into();
        caller.refuse(bytes, began, fault, refused.head_only)
    })?;
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
    let page = match forwarded.ends_here {
        true => Some(Page::last_hop(&forwarded.head)),
        false => Page::at(method, path),
    };
    let is_traced = page.is_none() && site.feed.is_active(site.port);
    let trace = is_traced.then(|| {
        let head = Some(&forwarded.head);
        let target = forwarded.target.path();
        let rewriter = Some(&site.rewriter);
        Box::new(caller.begin(head, rewriter, Some(target), forwarded.framing, began))
    });
    let request = Request {
        context: forwarded.context,
        framing: forwarded.framing,
        may_wait: may_wait(&forwarded, site),
        nominated: forwarded.nominated,
        streams_contents: path.ends_with(":streamGenerateContent"),
        is_idempotent: matches!(
            method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        ),
        page,
        began,
        label: log::log_enabled!(log::Level::Debug)
            .then(|| format!("{method} {}", redact::path(path))),
        trace,
    };
    Ok(Parsed::Complete((request, forwarded.head.len)))
}

/// RFC 9110 §10.1.1. Not looked for where there is no inactivity timeout.
fn may_wait(forwarded: &ForwardedRequest<'_, '_>, site: &Site) -> bool {
    let limit = site.service.timeouts.body.unwrap_or_default();
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

/// Where a request comes from, for the feed.
#[derive(Clone, Copy)]
struct Caller<'a> {
    site: &'a Site,
    stream: &'a Stream,
    /// The connection's number; 0 until it has one.
    number: &'a Cell<u64>,
}

impl Caller<'_> {
    fn begin(
        self,
        head: Option<&RequestHead<'_, '_>>,
        rewriter: Option<&RequestRewriter>,
        path: Option<&str>,
        framing: Framing,
        began: Instant,
    ) -> Trace {
        if self.number.get() == 0 {
            self.number.set(self.site.feed.next_connection_id());
        }
        let start = RequestStart {
            port: self.site.port,
            connection: self.number.get(),
            client: self.stream.peer_address(),
            head,
            rewriter,
            path,
            framing,
            began,
        };
        Trace::start(&self.site.feed, &start)
    }

    /// Refuses a request, and counts it. The feed is sent as much of it as can be read.
    #[cold]
    fn refuse(self, bytes: &[u8], began: Instant, fault: ForwardError, head_only: bool) -> Refusal {
        let age = reactor::now().duration_since(began);
        let metrics = &self.site.metrics;
        metrics.begin_request().end(fault.status(), true, age);
        if self.site.feed.is_active(self.site.port) {
            let mut slots = Slots::default();
            let head = match head::request(bytes, &mut slots) {
                Ok(Parsed::Complete(head)) => Some(head),
                _ => None,
            };
            let path = head.as_ref().and_then(|head| {
                let target = Target::parse(head.method, head.target).ok()?;
                Some(target.path())
            });
            let trace = self.begin(head.as_ref(), None, path, Framing::Empty, began);
            let reply = reply(&fault, self.stream, self.site);
            trace.fail(&fault, reply.as_ref(), false);
        }
        Refusal { fault, head_only }
    }
}
