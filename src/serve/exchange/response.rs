//! Waits for the head of a response, and decides by [`forward`] what becomes of it.

use std::io;

use crate::http::forward::{self, ExchangeState, ResponseError, ResponseKind};
use crate::http::framing::Framing;
use crate::http::head::{Field, Slots};
use crate::http::scan::Scan;
use crate::http::{Parsed, Sender};
use crate::serve::buffers::Scratch;
use crate::serve::conn::{Filled, Reader};
use crate::serve::error::{ForwardError, UpstreamError};
use crate::serve::exchange::attempt::Attempt;
use crate::serve::feed::body_format;
use crate::serve::feed::observe::BodyFormat;

/// A response head that has been rewritten.
pub struct Response {
    pub status: u16,
    pub kind: ResponseKind,
    /// Its body is an event stream that does not announce its length: its client may disconnect at the end mark.
    pub is_open_stream: bool,
}

/// Reads a response head; returns it, and what is written of it for the client. That exists only from then on: many exchanges may
/// wait for their response.
pub async fn read_response(
    origin: &mut Reader<'_>,
    attempt: &Attempt<'_>,
) -> Result<(Response, Scratch), ForwardError> {
    let mut scan = Scan::head(Sender::Target);
    let mut seen = 0;
    loop {
        let bytes = origin.bytes();
        let is_news = !bytes.is_empty() && (seen == 0 || scan.is_decided(bytes));
        if is_news {
            let mut out = Scratch::take();
            if let Parsed::Complete((response, len)) = take_response(bytes, attempt, &mut out)? {
                origin.consume(len);
                if let Some(proxy) = attempt.site.upstream.connector.request_proxy()
                    && response.status == PROXY_AUTHENTICATION_REQUIRED
                {
                    // The client does not know the proxy.
                    return Err(UpstreamError::Connect(proxy.refused(response.status)).into());
                }
                return Ok((response, out));
            }
        }
        seen = bytes.len();
        let is_empty = seen == 0;
        let limit = attempt.limits.origin;
        let filled = limit.race(|context| origin.poll_fill(context)).await;
        match filled.ok_or(UpstreamError::FirstByteTimeout)? {
            // An end that TLS did not announce does not end a body. Before a response it is an end like others.
            Err(error) if is_empty && error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(UpstreamError::Closed.into());
            }
            Err(error) if is_empty => return Err(UpstreamError::Failed(error).into()),
            Err(_) => return Err(UpstreamError::TruncatedHead.into()),
            Ok(Filled::Some) => {}
            Ok(Filled::EndOfFile) if is_empty => return Err(UpstreamError::Closed.into()),
            Ok(Filled::EndOfFile) => return Err(UpstreamError::TruncatedHead.into()),
        }
    }
}

/// Takes the response at the start of `bytes` if its head is all there, and says how long that is.
fn take_response(
    bytes: &[u8],
    attempt: &Attempt<'_>,
    out: &mut Scratch,
) -> Result<Parsed<(Response, usize)>, UpstreamError> {
    let state = ExchangeState {
        is_request_sent: attempt.is_sent(),
        is_stopping: attempt.site.is_closing(),
    };
    let request = attempt.request;
    let mut slots = Slots::default();
    let taken = forward::response(bytes, &mut slots, &request.context, state, out);
    let Parsed::Complete(forwarded) = taken.map_err(|error| match error {
        ResponseError::Malformed(error) => UpstreamError::Malformed(error),
        ResponseError::UnaskedUpgrade => UpstreamError::UnaskedUpgrade,
    })?
    else {
        return Ok(Parsed::Partial);
    };
    let framing = match &forwarded.kind {
        ResponseKind::Interim => None,
        ResponseKind::Tunnel => Some(Framing::UntilClose),
        ResponseKind::Final(head) => Some(head.framing),
    };
    if let (Some(trace), Some(framing)) = (&request.trace, framing) {
        trace.start_response(&forwarded.head, framing);
    }
    let response = Response {
        status: forwarded.head.status,
        is_open_stream: is_open_stream(&forwarded.kind, forwarded.head.fields),
        kind: forwarded.kind,
    };
    Ok(Parsed::Complete((response, forwarded.head.len)))
}

fn is_open_stream(kind: &ResponseKind, fields: &[Field<'_>]) -> bool {
    matches!(kind, ResponseKind::Final(head) if matches!(head.framing, Framing::Chunked | Framing::UntilClose))
        && body_format(fields) == Some(BodyFormat::EventStream)
}

/// RFC 9110 §15.5.8.
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;
