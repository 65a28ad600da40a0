//! One body, from wire to wire.
//!
//! Each piece leaves as it arrives; the next is read when it is gone, which is all the back-pressure that
//! there is. The relay knows no framing: it asks the [`Body`].

use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll};

use super::buffers::{Buffer, Scratch};
use super::conn::{Failure, Filled, Reader, WriteError, Writer};
use super::deadline::{Deadline, InactivityTimeout};
use super::feed::BodyTap;
use super::metrics::Counter;
use super::reactor;
use super::transfer::{self, Moved};
use crate::http::body::{Body, BodyMode, Truncated};
use crate::http::chunked::Piece;
use crate::http::{Error, Parsed};

/// Why a body did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its sender's connection failed.
    Source,
    /// Its sender closed too early.
    Truncated,
    /// Its framing is wrong.
    Malformed(Error),
    /// Its sender was silent for longer than allowed.
    Silent,
    /// Its receiver gets no more.
    Sink(Failure),
}

impl From<WriteError> for Broken {
    fn from(WriteError { why, .. }: WriteError) -> Self {
        Broken::Sink(why)
    }
}

/// What goes with a relayed body.
pub struct Terms<'a, F> {
    /// How it is passed on.
    pub form: BodyMode,
    /// The fields that do not pass in a trailer section, beyond those that never do.
    pub stays: F,
    /// How long neither its sender may send nor its receiver take anything of it.
    pub silence: InactivityTimeout<'a>,
    /// Counts the bytes that went out.
    pub bytes: &'a Counter,
    /// Shows the body to the live feed while that is active.
    pub tap: Option<BodyTap<'a>>,
}

/// Passes on what is left of `body`.
pub fn relay<'a, F: Fn(&str) -> bool>(
    from: &'a mut Reader<'_>,
    to: Writer<'a>,
    body: &'a mut Body,
    terms: Terms<'a, F>,
) -> impl Future<Output = Result<(), Broken>> {
    async move {
        let mut is_flood = false;
        let mut since_turn = 0;
        // There is something to use, but it does not reach far enough.
        let mut is_short = false;
        while !body.is_complete() {
            if is_short || from.bytes().is_empty() {
                let is_observed = terms.tap.is_some_and(BodyTap::wants_bytes);
                let filled =
                    if is_flood && !is_short && !is_observed && transfer::worth(body.opaque()) {
                        // In a box: few bodies are large.
                        Box::pin(flow(from, to, body, &terms)).await?
                    } else {
                        let lend = if is_flood {
                            Buffer::take_large
                        } else {
                            Buffer::take
                        };
                        let silence = terms.silence;
                        in_time(
                            silence
                                .within(|context| from.poll_fill_into(context, lend))
                                .await,
                        )?
                    };
                if filled == Filled::EndOfFile {
                    return body.end_of_file().map_err(|Truncated| Broken::Truncated);
                }
                is_short = false;
                is_flood = from.is_full();
                if body.is_complete() {
                    return Ok(());
                }
                since_turn += from.bytes().len() as u64;
                if since_turn >= TURN_BYTES {
                    since_turn = 0;
                    reactor::next_turn().await;
                }
            }
            if body.has_trailers() {
                let mut out = Scratch::take();
                let taken = body
                    .take_trailers(from.bytes(), &terms.stays, &mut out)
                    .map_err(Broken::Malformed)?;
                // It is short, or refused: all of it is waited for.
                let Parsed::Complete(count) = taken else {
                    is_short = true;
                    continue;
                };
                from.consume(count);
                if terms.form == BodyMode::Verbatim {
                    to.write_within(&out, terms.silence).await?;
                    terms.bytes.add(out.len() as u64);
                }
                continue;
            }
            let (used, passes) = match terms.form {
                BodyMode::Verbatim => (body.follow(from.bytes()).map_err(Broken::Malformed)?, true),
                BodyMode::Dechunked => match body.next(from.bytes()).map_err(Broken::Malformed)? {
                    Piece::Data(count) => (count, true),
                    Piece::Framing(count) => (count, false),
                    Piece::Trailers | Piece::End => (0, false),
                },
            };
            if passes {
                let bytes = &from.bytes()[..used];
                to.write_within(bytes, terms.silence).await?;
                terms.bytes.add(used as u64);
            }
            if let Some(tap) = terms.tap {
                tap.observe(&from.bytes()[..used]);
            }
            from.consume(used);
        }
        Ok(())
    }
}

/// Passes on what may pass unseen of a body that comes faster than it is read, until that is over or it comes slowly. Then
/// reads what comes next, unless the body is complete.
async fn flow<F>(
    from: &mut Reader<'_>,
    to: Writer<'_>,
    body: &mut Body,
    terms: &Terms<'_, F>,
) -> Result<Filled, Broken> {
    let mut trickles = 0;
    while transfer::worth(body.opaque()) && trickles < TRICKLES_MAX {
        let most = body.opaque().min(TURN_BYTES);
        let mut count = 0;
        let moved = transfer::transfer(from, to, most, terms.silence, |piece| {
            count += piece;
            body.advance(piece);
            terms.bytes.add(piece);
            if let Some(tap) = terms.tap {
                tap.skip(piece);
            }
        })
        .await;
        match moved {
            Moved::AsAsked if body.is_complete() => break,
            Moved::AsAsked => reactor::next_turn().await,
            Moved::AllThereIs => {
                trickles = if count < TRICKLE_BYTES {
                    trickles + 1
                } else {
                    0
                };
                let readable = |context: &mut Context<'_>| from.stream().poll_readable(context);
                in_time(terms.silence.within(readable).await)?;
            }
            Moved::EndOfFile => return Ok(Filled::EndOfFile),
            Moved::SourceFailed => return Err(Broken::Source),
            Moved::SinkFailed(why) => return Err(Broken::Sink(why)),
        }
    }
    if body.is_complete() {
        return Ok(Filled::Some);
    }
    in_time(
        terms
            .silence
            .within(|context| from.poll_fill(context))
            .await,
    )
}

/// How reading what is nobody's ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// Its sender has finished.
    Ended,
    /// Its sender's connection failed.
    Failed,
    /// The time was over.
    TimeOver,
    /// There was that much of it.
    TooMuch,
}

/// Reads and forgets what comes until `limit` passes, at most about `most` bytes: what nobody reads turns the end of a
/// connection into a reset, which overtakes what was sent before it (RFC 9112 §9.6).
pub async fn discard(from: &mut Reader<'_>, limit: &Deadline, most: usize) -> Discarded {
    let (mut left, mut since_turn) = (most, 0);
    loop {
        let count = from.bytes().len();
        from.consume(count);
        left = left.saturating_sub(count);
        if left == 0 {
            return Discarded::TooMuch;
        }
        since_turn += count as u64;
        if since_turn >= TURN_BYTES {
            since_turn = 0;
            reactor::next_turn().await;
        }
        // The limit first: there may be more to read each time.
        let filled = poll_fn(|context| match limit.poll_passed(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => from.poll_fill(context).map(Some),
        });
        match filled.await {
            Some(Ok(Filled::Some)) => {}
            Some(Ok(Filled::EndOfFile)) => return Discarded::Ended,
            Some(Err(_)) => return Discarded::Failed,
            None => return Discarded::TimeOver,
        }
    }
}

/// What the sender brought, if it did so in time.
fn in_time<T>(result: Option<io::Result<T>>) -> Result<T, Broken> {
    result.ok_or(Broken::Silent)?.map_err(|_| Broken::Source)
}

/// After this many bytes in one go, the other connections have their turn.
const TURN_BYTES: u64 = 1 << 20;

/// Less than this at a time is better read: a pipe is two descriptors, and pages that are nearly empty.
const TRICKLE_BYTES: u64 = 16 * 1024;

/// How many trickles in a row end a flow.
const TRICKLES_MAX: u32 = 4;
