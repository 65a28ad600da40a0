//! The request half of an exchange: waits for a head, and has it judged by [`passage`].

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use super::super::Service;
use super::super::buffers::Scratch;
use super::super::fault::{ClientFault, Fault};
use super::super::own::Page;
use super::super::wire::Filled;
use super::Connection;
use crate::http::Parsed;
use crate::http::connection::Named;
use crate::http::framing::Framing;
use crate::http::head::{self, Slots};
use crate::http::passage::{self, Asking};
use crate::http::rewrite::Onward;

/// What an exchange needs to know of a request whose head is already on its way.
pub struct Request {
    pub asking: Asking,
    pub framing: Framing,
    /// What its trailer section must not bring back.
    pub named: Named,
    /// Repeating it changes nothing (RFC 9110 §9.2.2).
    pub is_idempotent: bool,
    pub page: Option<Page>,
    pub began: Instant,
    /// Method and path for the log, where it is detailed. Never the query: it may hold a key.
    pub label: Option<String>,
}

impl Request {
    /// Whether fields of that `name` do not pass in its trailer section.
    pub fn stays(&self, name: &str, onward: &Onward) -> bool {
        onward.is_ours(name) || self.named.has(name)
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
        })
        .await;
        match filled {
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

/// Takes the request at the start of `bytes` if its head is all there, and says how long that is.
fn take_request(
    bytes: &[u8],
    began: Instant,
    service: &Service,
    out: &mut Scratch,
) -> Result<Parsed<(Request, usize)>, Refusal> {
    let mut slots = Slots::new();
    let taken = passage::request(bytes, &mut slots, &service.guard, &service.onward, out);
    let Parsed::Complete(onbound) = taken.map_err(|refused| Refusal {
        fault: ClientFault::Refused(refused.error).into(),
        head_only: refused.head_only,
    })?
    else {
        return Ok(Parsed::Partial);
    };
    let method = onbound.head.method;
    let path = onbound.target.path().split('?').next().unwrap_or_default();
    let request = Request {
        asking: onbound.asking,
        framing: onbound.framing,
        named: onbound.named,
        is_idempotent: matches!(
            method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        ),
        page: Page::at(method, path),
        began,
        label: log::log_enabled!(log::Level::Debug).then(|| format!("{method} {path}")),
    };
    Ok(Parsed::Complete((request, onbound.head.len)))
}
