//! The response half of an exchange: waits for a head, and has it judged by [`forward`].

use std::io;

use super::super::buffers::Scratch;
use super::super::conn::{Filled, Reader};
use super::super::error::{Fault, OriginFault};
use super::duplex::{Attempt, Sent};
use crate::http::Parsed;
use crate::http::forward::{self, ExchangeState, ResponseError, ResponseKind};
use crate::http::framing::Framing;
use crate::http::head::{self, Slots};

/// A response head that has been taken.
pub struct Response {
    pub status: u16,
    pub kind: ResponseKind,
}

/// Reads a response head and writes it for the client to `out`.
pub async fn read_response(
    origin: &mut Reader<'_>,
    attempt: &Attempt<'_>,
    out: &mut Scratch,
) -> Result<Response, Fault> {
    let mut seen = 0;
    loop {
        let bytes = origin.bytes();
        let is_news =
            !bytes.is_empty() && (seen == 0 || head::may_end(bytes, seen) || origin.is_full());
        if is_news && let Parsed::Complete((response, len)) = take_response(bytes, attempt, out)? {
            origin.consume(len);
            if let Some(proxy) = attempt.site.service.connector.request_proxy()
                && response.status == PROXY_AUTHENTICATION_REQUIRED
            {
                // The client knows of no proxy.
                return Err(OriginFault::Connect(proxy.refused(response.status)).into());
            }
            return Ok(response);
        }
        seen = bytes.len();
        let is_silent = seen == 0;
        let limit = attempt.limits.origin;
        let filled = limit.race(|context| origin.poll_fill(context)).await;
        match filled.ok_or(OriginFault::FirstByteTimeout)? {
            // An end that TLS did not announce is none to a body. Before an answer it is the same.
            Err(error) if is_silent && error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(OriginFault::Closed.into());
            }
            Err(error) if is_silent => return Err(OriginFault::Failed(error).into()),
            Err(_) => return Err(OriginFault::TruncatedHead.into()),
            Ok(Filled::Some) => {}
            Ok(Filled::EndOfFile) if is_silent => return Err(OriginFault::Closed.into()),
            Ok(Filled::EndOfFile) => return Err(OriginFault::TruncatedHead.into()),
        }
    }
}

/// Takes the response at the start of `bytes` if its head is all there, and says how long that is.
fn take_response(
    bytes: &[u8],
    attempt: &Attempt<'_>,
    out: &mut Scratch,
) -> Result<Parsed<(Response, usize)>, OriginFault> {
    let state = ExchangeState {
        is_request_sent: attempt.sent.get() == Sent::Whole,
        is_stopping: attempt.site.service.clock.is_stopping(),
    };
    let request = attempt.request;
    let mut slots = Slots::new();
    let taken = forward::response(bytes, &mut slots, &request.context, state, out);
    let Parsed::Complete(inbound) = taken.map_err(|wrong| match wrong {
        ResponseError::Malformed(error) => OriginFault::Malformed(error),
        ResponseError::UnaskedUpgrade => OriginFault::UnaskedUpgrade,
    })?
    else {
        return Ok(Parsed::Partial);
    };
    let framing = match &inbound.kind {
        ResponseKind::Interim => None,
        ResponseKind::Tunnel => Some(Framing::UntilClose),
        ResponseKind::Final(answer) => Some(answer.framing),
    };
    if let (Some(trace), Some(framing)) = (&request.trace, framing) {
        trace.start_response(&inbound.head, framing);
    }
    let response = Response {
        status: inbound.head.status,
        kind: inbound.kind,
    };
    Ok(Parsed::Complete((response, inbound.head.len)))
}

/// RFC 9110 §15.5.8: what a proxy says that wants a password.
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;
