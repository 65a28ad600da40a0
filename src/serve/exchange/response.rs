//! The response half of an exchange's decisions: from the origin's bytes to a head for the client.

use smol::future;

use super::super::Service;
use super::super::buffers::Scratch;
use super::super::deadline::Deadline;
use super::super::fault::{Fault, OriginFault};
use super::super::relay::Form;
use super::super::wire::{Filled, Reader};
use super::halves::{Sent, State};
use super::request::Request;
use crate::http::Parsed;
use crate::http::connection::{self, Next, Options, Reason};
use crate::http::framing::{self, Framing};
use crate::http::head::{self, Slots, Version};
use crate::http::rewrite::{self, Persistence};

/// A response head that has been taken.
pub struct Response {
    pub status: u16,
    pub kind: Kind,
}

/// What a response is to the exchange.
pub enum Kind {
    Interim,
    Tunnel,
    Final {
        framing: Framing,
        form: Form,
        next: Next,
        keep: Option<Option<u64>>,
    },
}

/// Reads a response head and writes it for the client to `out`.
pub async fn read_response(
    origin: &mut Reader<'_>,
    request: &Request,
    state: &State,
    deadline: &Deadline,
    service: &Service,
    out: &mut Scratch,
) -> Result<Response, Fault> {
    let mut seen = 0;
    loop {
        let bytes = origin.bytes();
        let is_news =
            !bytes.is_empty() && (seen == 0 || head::may_end(bytes, seen) || origin.is_full());
        if is_news
            && let Parsed::Complete((response, len)) =
                take_response(bytes, request, state, service, out)?
        {
            origin.consume(len);
            return Ok(response);
        }
        seen = bytes.len();
        let timeout = async {
            deadline.passed().await;
            Err(OriginFault::FirstByteTimeout)
        };
        let is_silent = seen == 0;
        let filled = async {
            origin.fill().await.map_err(|error| match is_silent {
                true => OriginFault::Failed(error),
                false => OriginFault::Truncated,
            })
        };
        match future::or(filled, timeout).await? {
            Filled::Some => {}
            Filled::EndOfFile if is_silent => return Err(OriginFault::Closed.into()),
            Filled::EndOfFile => return Err(OriginFault::Truncated.into()),
        }
    }
}

/// Everything that is decided about a response from its head.
fn take_response(
    bytes: &[u8],
    request: &Request,
    state: &State,
    service: &Service,
    out: &mut Scratch,
) -> Result<Parsed<(Response, usize)>, OriginFault> {
    let mut slots = Slots::new();
    let Parsed::Complete(head) =
        head::response(bytes, &mut slots).map_err(OriginFault::Malformed)?
    else {
        return Ok(Parsed::Partial);
    };
    let framing = framing::of_response(&head, request.asked).map_err(OriginFault::Malformed)?;
    let options = Options::of(head.fields).map_err(OriginFault::Malformed)?;
    let (kind, persistence, form) = match head.status {
        101 if request.upgrades => (Kind::Tunnel, Persistence::Upgrade, Form::AsIs),
        101 => return Err(OriginFault::UnaskedUpgrade),
        100..=199 => (Kind::Interim, Persistence::Presumed, Form::AsIs),
        _ => {
            let is_decoded = framing == Framing::Chunked && request.version == Version::Http10;
            let form = if is_decoded {
                Form::Decoded
            } else {
                Form::AsIs
            };
            let next = next(
                request,
                framing,
                form,
                state.sent.get(),
                service.clock.is_stopping(),
            );
            let persistence = match (next, request.version) {
                (Next::Reuse, Version::Http11) => Persistence::Presumed,
                (Next::Reuse, Version::Http10) => Persistence::KeepAlive,
                _ => Persistence::Close,
            };
            let keep = (options.persists(head.version) && framing != Framing::UntilClose)
                .then(|| connection::announced_idle_seconds(head.fields));
            (
                Kind::Final {
                    framing,
                    form,
                    next,
                    keep,
                },
                persistence,
                form,
            )
        }
    };
    rewrite::response(&head, &options, persistence, form == Form::Decoded, out);
    Ok(Parsed::Complete((
        Response {
            status: head.status,
            kind,
        },
        head.len,
    )))
}

/// What becomes of the client's connection behind a final response (RFC 9112 §9.3).
pub fn next(
    request: &Request,
    framing: Framing,
    form: Form,
    sent: Sent,
    is_stopping: bool,
) -> Next {
    if !request.persists {
        Next::Close(Reason::ClientAsked)
    } else if framing == Framing::UntilClose || form == Form::Decoded {
        Next::Close(Reason::BodyEndsByClose)
    } else if sent != Sent::Whole {
        Next::Close(Reason::RequestUnfinished)
    } else if is_stopping {
        Next::Close(Reason::Stopping)
    } else {
        Next::Reuse
    }
}
