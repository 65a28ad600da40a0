//! The upload of an exchange: sends the request to the origin, then waits for the client to disconnect.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use crate::http::body::{Body, BodyMode};
use crate::serve::buffers::Outgoing;
use crate::serve::conn::{Filled, Reader, Stream, WriteError, WriteErrorKind, Writer};
use crate::serve::deadline::Deadline;
use crate::serve::error::{ClientError, ForwardError, UpstreamError};
use crate::serve::exchange::attempt::{Attempt, RequestProgress};
use crate::serve::exchange::request::Request;
use crate::serve::feed::Side;
use crate::serve::relay::{self, RelayError, RelayOptions};
use crate::serve::site::Site;

/// How far the head of a request, and what came of its body with it, has been written.
enum WriteProgress {
    /// All of it, or it is not needed any more.
    Whole,
    /// This many bytes; then the origin took no more at once.
    Part(Outgoing, usize),
    /// The origin's connection takes no more.
    Closed,
}

impl Attempt<'_> {
    /// Sends the request, then waits for the client to disconnect. Ends only with a fault.
    pub fn upload<T>(
        &self,
        mut client: Reader<'_>,
        origin: Writer<'_>,
        body: &mut Body,
    ) -> impl Future<Output = Result<T, ForwardError>> {
        async move {
            match self.write_at_once(origin)? {
                WriteProgress::Closed => {}
                WriteProgress::Whole if body.is_complete() => {
                    self.progress.set(RequestProgress::Whole);
                }
                written => {
                    let stream = client.stream();
                    let disconnect =
                        async { Err(unread_disconnect(stream, self.request, self.site).await) };
                    let rest = self.send_rest(&mut client, origin, body, written);
                    // In a box: most requests are sent by now, and this is as large as all the rest.
                    Box::pin(future::or(rest, disconnect)).await?;
                }
            }
            // The origin has the whole request, or takes no more of it: now it has to respond.
            if !self.has_response() {
                let first_byte = self.site.service.timeouts.first_byte;
                self.limits.origin.set(first_byte);
            }
            Err(wait_for_disconnect(&mut client, self.request, self.limits.client).await)
        }
    }

    /// Writes the head, and what came of the body with it, as far as the origin takes it at once.
    fn write_at_once(&self, origin: Writer<'_>) -> Result<WriteProgress, UpstreamError> {
        let Some(out) = self.out.take() else {
            return Ok(WriteProgress::Whole);
        };
        let mut written = 0;
        let result = match origin.write_on(&out, &mut written) {
            Ok(true) => Ok(()),
            Ok(false) => return Ok(WriteProgress::Part(out.settle(), written)),
            Err(kind) => Err(WriteError { written, kind }),
        };
        let goes_on = self.head_written(out, result)?;
        Ok(match goes_on {
            true => WriteProgress::Whole,
            false => WriteProgress::Closed,
        })
    }

    /// Sends the rest of the request, as far as the origin takes it.
    async fn send_rest(
        &self,
        client: &mut Reader<'_>,
        origin: Writer<'_>,
        body: &mut Body,
        written: WriteProgress,
    ) -> Result<(), ForwardError> {
        let Attempt { request, site, .. } = self;
        let inactivity = self.inactivity(self.limits.client);
        if let WriteProgress::Part(out, before) = written {
            let rest = origin.write_within(&out[before..], inactivity).await;
            let result = rest.map_err(|WriteError { written, kind }| {
                let written = before + written;
                WriteError { written, kind }
            });
            if !self.head_written(out, result)? {
                return Ok(());
            }
        }
        if request.may_wait && *body == Body::new(request.framing) && client.bytes().is_empty() {
            self.wait_for_body(client).await?;
        }
        let options = RelayOptions {
            mode: BodyMode::Verbatim,
            drops_trailer: |name: &str| request.drops_trailer(name, &site.rewriter),
            inactivity,
            bytes: &site.metrics.bytes_up,
            tap: request.tap(Side::Request),
            end_mark: None,
        };
        match relay::relay(client, origin, body, options).await {
            Ok(()) => {
                self.progress.set(RequestProgress::Whole);
                if let Some(tap) = request.tap(Side::Request) {
                    tap.end();
                }
            }
            Err(RelayError::Sink(kind)) => self.origin_closed(kind)?,
            Err(RelayError::Source | RelayError::Truncated) => return Err(ClientError::Gone.into()),
            Err(RelayError::Malformed(error)) => return Err(ClientError::Refused(error).into()),
            Err(RelayError::Stalled) => return Err(ClientError::BodyTimeout.into()),
        }
        Ok(())
    }

    /// Waits for the body of a client that may wait for a 100: until it has been sent one, its silence is the target's.
    async fn wait_for_body(&self, client: &mut Reader<'_>) -> Result<(), ForwardError> {
        // The download, which passes a 100 on, is polled before this.
        let filled = poll_fn(|context| match client.poll_fill(context) {
            Poll::Pending if self.has_continued.get() => Poll::Ready(Ok(Filled::Some)),
            filled => filled,
        });
        match filled.await {
            Ok(Filled::Some) => Ok(()),
            Ok(Filled::EndOfFile) | Err(_) => Err(ClientError::Gone.into()),
        }
    }

    /// Notes how the write of `out` ended, and keeps it while it may be sent again. Returns whether more can be written.
    fn head_written(
        &self,
        out: Outgoing,
        result: Result<(), WriteError>,
    ) -> Result<bool, UpstreamError> {
        let goes_on = result.is_ok();
        let progress = match result {
            Ok(()) => {
                self.site.metrics.bytes_up.add(out.len() as u64);
                RequestProgress::Part
            }
            Err(WriteError { written, kind }) => {
                self.origin_closed(kind)?;
                match written {
                    0 => RequestProgress::Nothing,
                    _ => RequestProgress::Part,
                }
            }
        };
        self.progress.set(progress);
        self.keep(out);
        Ok(goes_on)
    }

    /// Notes that the origin takes no more of the request. It may still respond, which the download finds out; one that stalls
    /// before a response is at fault.
    fn origin_closed(&self, kind: WriteErrorKind) -> Result<(), UpstreamError> {
        if kind == WriteErrorKind::Failed(io::ErrorKind::ConnectionReset) {
            self.was_reset.set(true);
        }
        if kind == WriteErrorKind::Stalled && !self.has_response() {
            return Err(UpstreamError::Stalled);
        }
        Ok(())
    }
}

/// Waits until the client disconnects. What it sends meanwhile is kept for the next request.
pub async fn wait_for_disconnect(
    client: &mut Reader<'_>,
    request: &Request,
    deadline: &Deadline,
) -> ForwardError {
    while !client.is_full() {
        match client.fill().await {
            Ok(Filled::Some) => {}
            Ok(Filled::EndOfFile) if request.context.is_persistent => {
                return ClientError::Gone.into();
            }
            Ok(Filled::EndOfFile) => break,
            Err(_) => return ClientError::Gone.into(),
        }
    }
    // It has ended its side and waits for its response, or has sent more than is read ahead.
    while !has_disconnected(client.stream(), request) {
        deadline.set(Some(DISCONNECT_PAUSE));
        deadline.passed().await;
    }
    ClientError::Gone.into()
}

/// Waits until the client disconnects, while what it has sent waits for an origin that takes nothing: the client's end may
/// follow bytes that are not read yet.
async fn unread_disconnect(client: &Stream, request: &Request, site: &Site) -> ForwardError {
    let readable = || poll_fn(|context| client.poll_readable(context));
    loop {
        // As long as everything is read that arrives, so is the end.
        drop(readable().await);
        let pause = site.service.clock.deadline();
        pause.set(Some(DISCONNECT_PAUSE));
        pause.passed().await;
        drop(readable().await);
        if has_disconnected(client, request) {
            return ClientError::Gone.into();
        }
    }
}

/// Whether the client has disconnected: its connection was reset; or it has ended its side although it asked to keep the
/// connection. A client that asked to close it, or speaks HTTP/1.0, may end its side and wait for the response.
fn has_disconnected(client: &Stream, request: &Request) -> bool {
    client.is_reset() || (request.context.is_persistent && client.has_ended())
}

/// The pause between two checks whether a client has disconnected.
const DISCONNECT_PAUSE: Duration = Duration::from_millis(50);
