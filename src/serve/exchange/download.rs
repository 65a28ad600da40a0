//! The download of an exchange: reads the response from the origin and passes it on to the client.

use std::cell::RefCell;
use std::future::Future;

use crate::http::body::Body;
use crate::http::connection::{AfterResponse, Persistence};
use crate::http::forward::ResponseKind;
use crate::http::framing::Framing;
use crate::http::head::Version;
use crate::serve::buffers::{Outgoing, Scratch};
use crate::serve::conn::{Reader, Writer};
use crate::serve::deadline::Deadline;
use crate::serve::end_mark::EndMark;
use crate::serve::error::{ForwardError, UpstreamError};
use crate::serve::exchange::attempt::{Attempt, Completion, client_fault};
use crate::serve::exchange::response::{Response, read_response};
use crate::serve::feed::Side;
use crate::serve::relay::{self, RelayError, RelayOptions};

impl Attempt<'_> {
    /// Passes the response on.
    pub fn download(
        &self,
        mut origin: Reader<'_>,
        client: Writer<'_>,
    ) -> impl Future<Output = Result<Completion, ForwardError>> {
        async move {
            let (response, mut body) = self.pass_head(&mut origin, client).await?;
            let Response { status, kind, .. } = &response;
            let ResponseKind::Final(head) = kind else {
                return Ok(Completion {
                    status: *status,
                    next: AfterResponse::Tunnel,
                    persistence: Persistence::Close,
                });
            };
            let options = RelayOptions {
                mode: head.mode,
                drops_trailer: |name: &str| head.nominated.has(name),
                // Set only while a write waits: before the response, the deadline limits the time to its head.
                inactivity: self.inactivity(self.limits.origin),
                bytes: &self.site.metrics.bytes_down,
                tap: self.request.tap(Side::Response),
                end_mark: self.end_mark.get(),
            };
            match relay::relay(&mut origin, client, &mut body, options).await {
                // After a reset, the end of the connection is not the end of a body that only an end completes.
                Ok(()) if head.framing == Framing::UntilClose && self.was_reset.get() => {
                    Err(UpstreamError::Truncated.into())
                }
                Ok(()) => {
                    client.ends_message();
                    if let Some(tap) = self.request.tap(Side::Response) {
                        tap.end();
                    }
                    Ok(Completion {
                        status: *status,
                        next: head.next,
                        persistence: head.persistence,
                    })
                }
                Err(RelayError::Sink(kind)) => Err(client_fault(kind)),
                Err(RelayError::Source | RelayError::Truncated) => {
                    Err(UpstreamError::Truncated.into())
                }
                Err(RelayError::Malformed(error)) => Err(UpstreamError::Malformed(error).into()),
                Err(RelayError::Stalled) => Err(UpstreamError::BodyTimeout.into()),
            }
        }
    }

    /// Writes the head of the final response, with what has arrived of its body; returns the rest of the body.
    async fn pass_head(
        &self,
        origin: &mut Reader<'_>,
        client: Writer<'_>,
    ) -> Result<(Response, Body), ForwardError> {
        let mut body = Body::new(Framing::Empty);
        let (response, mut out) = self.final_response(origin, client).await?;
        if let ResponseKind::Final(head) = &response.kind {
            body = Body::of_response(head.framing);
            let drops_trailer = |name: &str| head.nominated.has(name);
            let mut before = body;
            let taken = body
                .take_ready(origin.bytes(), head.mode, drops_trailer, &mut out)
                .map_err(UpstreamError::Malformed)?;
            if let Some(tap) = self.request.tap(Side::Response) {
                tap.observe(&origin.bytes()[..taken]);
            }
            if response.is_open_stream {
                let mut mark = EndMark::new(self.request.streams_contents);
                // Malformed framing is left to the relay.
                let _ = before.follow_data(&origin.bytes()[..taken], |data| mark.read(data));
                // An attempt has one final response that is passed on.
                let _ = self.end_mark.set(RefCell::new(mark));
            }
            origin.consume(taken);
        }
        // From here on no error response is possible, and no other attempt.
        self.response_status.set(Some(response.status));
        client.begins_message();
        self.site.metrics.first_byte.record(self.request.age());
        self.out.take();
        self.limits.origin.set(None);
        let len = out.len() as u64;
        self.write_to_client(client, out, self.limits.origin)
            .await?;
        self.site.metrics.bytes_down.add(len);
        if let Some(mark) = self.end_mark.get() {
            mark.borrow_mut().sent();
        }
        Ok((response, body))
    }

    /// Writes the head of a response, and what came of its body with it.
    async fn write_to_client(
        &self,
        client: Writer<'_>,
        out: Scratch,
        deadline: &Deadline,
    ) -> Result<(), ForwardError> {
        let out = Outgoing::Scratch(out);
        let mut written = 0;
        if !client.write_on(&out, &mut written).map_err(client_fault)? {
            let out = out.settle();
            let rest = client.write_within(&out[written..], self.inactivity(deadline));
            // In a box: most clients take it at once.
            let rest = Box::pin(rest).await;
            rest.map_err(|error| client_fault(error.kind))?;
        }
        Ok(())
    }

    /// Reads the final response, or the one that opens a tunnel, as [`read_response`]; passes interim responses on.
    async fn final_response(
        &self,
        origin: &mut Reader<'_>,
        client: Writer<'_>,
    ) -> Result<(Response, Scratch), ForwardError> {
        loop {
            let (response, out) = read_response(origin, self).await?;
            match &response.kind {
                ResponseKind::Interim => {}
                // An origin that closes an idle connection may send a 408 first, which crosses the request: RFC 9110 §15.5.9
                // allows to send that again. A 408 to a request that cannot be repeated is passed on, for clients repeat it
                // themselves; so is one that keeps the connection, since it comes from a server behind the origin.
                ResponseKind::Final(head)
                    if response.status == 408
                        && head.persistence == Persistence::Close
                        && self.is_reused
                        && self.can_repeat() =>
                {
                    return Err(UpstreamError::Closed.into());
                }
                ResponseKind::Final(_) | ResponseKind::Tunnel => return Ok((response, out)),
            }
            self.interim.update(|count| count + 1);
            if self.interim.get() > INTERIM_MAX {
                return Err(UpstreamError::TooManyInterim.into());
            }
            // RFC 9110 §15.2: a client of HTTP/1.0 does not know them.
            if self.request.context.version == Version::Http11 {
                let limit = self.site.service.clock.deadline();
                self.write_to_client(client, out, &limit).await?;
            }
            if response.status == 100 {
                self.has_continued.set(true);
            }
        }
    }
}

/// How many 1xx responses may come before the final one. Servers send one or two, or one every few seconds while a model
/// thinks.
const INTERIM_MAX: usize = 10_000;
