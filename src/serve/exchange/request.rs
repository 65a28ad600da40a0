//! The request half of an exchange's decisions: from the client's bytes to a head for the origin.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use super::super::Service;
use super::super::buffers::Scratch;
use super::super::fault::{ClientFault, Fault};
use super::super::own::Page;
use super::super::wire::Filled;
use super::Connection;
use crate::http::connection::Options;
use crate::http::framing::{self, Asked, Framing};
use crate::http::head::{self, Slots, Version};
use crate::http::rewrite;
use crate::http::target::Target;
use crate::http::{Error, Parsed};

/// What an exchange needs to know of a request whose head is already on its way.
pub struct Request {
    pub asked: Asked,
    pub version: Version,
    pub framing: Framing,
    pub persists: bool,
    pub upgrades: bool,
    /// Repeating it changes nothing (RFC 9110 §9.2.2).
    pub is_idempotent: bool,
    pub page: Option<Page>,
    pub began: Instant,
    /// Method and path for the log, where it is detailed. Never the query: it may hold a key.
    pub label: Option<String>,
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
    service: &Service,
) -> Option<Result<(Request, Scratch), Refusal>> {
    let Connection { client, limit } = connection;
    let mut reader = client.reader();
    let mut seen = 0;
    let mut began = None;
    limit.set(service.timeouts.idle);
    loop {
        let bytes = reader.bytes();
        // A lone line ending behind a body is not yet a request (RFC 9112 §2.2).
        let is_idle = matches!(bytes, b"" | b"\r" | b"\r\n");
        if !is_idle {
            let began = *began.get_or_insert_with(|| {
                limit.set(service.timeouts.head);
                Instant::now()
            });
            let is_news = seen == 0 || head::may_end(bytes, seen) || reader.is_full();
            if is_news {
                let mut out = Scratch::take();
                match take_request(bytes, began, service, &mut out) {
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
        });
        match filled.await {
            Some(Ok(Filled::Some)) => {}
            Some(Ok(Filled::EndOfFile) | Err(_)) => return None,
            None if is_idle => return None,
            None => {
                return Some(Err(Refusal {
                    fault: ClientFault::HeadTimeout.into(),
                    head_only: false,
                }));
            }
        }
    }
}

/// Everything that is decided about a request from its head.
fn take_request(
    bytes: &[u8],
    began: Instant,
    service: &Service,
    out: &mut Scratch,
) -> Result<Parsed<(Request, usize)>, Refusal> {
    let mut slots = Slots::new();
    let refused = |error: Error| Refusal {
        fault: ClientFault::Refused(error).into(),
        head_only: false,
    };
    let Parsed::Complete(head) = head::request(bytes, &mut slots).map_err(refused)? else {
        return Ok(Parsed::Partial);
    };
    let asked = Asked::by(head.method);
    let refused = |error: Error| Refusal {
        head_only: asked == Asked::Head,
        ..refused(error)
    };
    let framing = framing::of_request(&head).map_err(refused)?;
    if head.method == "CONNECT" && framing != Framing::Empty {
        return Err(refused(Error::ConnectBody));
    }
    let target = Target::parse(head.method, head.target).map_err(refused)?;
    service.guard.admit(&head, &target).map_err(refused)?;
    let options = Options::of(head.fields).map_err(refused)?;
    let upgrades = rewrite::request(&head, &target, &options, framing, &service.onward, out);
    let path = target.path().split('?').next().unwrap_or_default();
    let request = Request {
        asked,
        version: head.version,
        framing,
        persists: options.persists(head.version),
        upgrades,
        is_idempotent: matches!(
            head.method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        ),
        page: Page::at(head.method, path),
        began,
        label: log::log_enabled!(log::Level::Debug).then(|| format!("{} {path}", head.method)),
    };
    Ok(Parsed::Complete((request, head.len)))
}
