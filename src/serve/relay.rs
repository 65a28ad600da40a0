//! One body, from connection to connection.
//!
//! Each piece is written as it arrives; the next is read when it has been written, which is all the back-pressure that there
//! is. The relay knows no framing: it asks the [`Body`].

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll};

use super::buffers::{Buffer, Scratch};
use super::conn::{Filled, Reader, WriteError, WriteErrorKind, Writer};
use super::deadline::{Deadline, InactivityTimeout};
use super::end_mark::EndMark;
use super::feed::BodyTap;
use super::metrics::Counter;
use super::reactor;
use super::transfer::{self, Moved};
use crate::http::body::{Body, BodyMode, Truncated};
use crate::http::chunked::Piece;
use crate::http::{Error, Parsed};

/// Why a body was not passed on to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayError {
    /// Its sender's connection failed.
    Source,
    /// Its sender closed too early.
    Truncated,
    /// Its framing is wrong.
    Malformed(Error),
    /// Its sender sent nothing for longer than the inactivity timeout.
    Stalled,
    /// Its receiver takes no more.
    Sink(WriteErrorKind),
}

impl From<WriteError> for RelayError {
    fn from(WriteError { kind, .. }: WriteError) -> Self {
        RelayError::Sink(kind)
    }
}

/// How a body is passed on.
pub struct RelayOptions<'a, F> {
    /// With its framing or without.
    pub mode: BodyMode,
    /// Whether a field of this name is removed from the trailer section, beyond those that always are.
    pub drops_trailer: F,
    /// How long the sender may send nothing, or the receiver take nothing.
    pub inactivity: InactivityTimeout<'a>,
    /// Counts the bytes written.
    pub bytes: &'a Counter,
    /// Observes what has been written, for the feed.
    pub tap: Option<BodyTap<'a>>,
    /// Follows an event stream to its end.
    pub end_mark: Option<&'a RefCell<EndMark>>,
}

/// Passes on what is left of `body`.
pub fn relay<'a, F: Fn(&str) -> bool>(
    from: &'a mut Reader<'_>,
    to: Writer<'a>,
    body: &'a mut Body,
    options: RelayOptions<'a, F>,
) -> impl Future<Output = Result<(), RelayError>> {
    async move {
        let mut since_turn = 0;
        // The last read filled the whole buffer: more has arrived than is read at a time.
        let mut is_flood = false;
        // There are bytes, and they end within what has to be taken whole.
        let mut is_short = false;
        while !body.is_complete() {
            if is_short || from.bytes().is_empty() {
                let filled = fill(from, to, body, &options, is_flood && !is_short).await?;
                if filled == Filled::EndOfFile {
                    return body
                        .end_of_file()
                        .map_err(|Truncated| RelayError::Truncated);
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
                is_short = !take_trailers(from, body, &options, &mut out)?;
                if options.mode == BodyMode::Verbatim && !is_short {
                    to.write_within(&out, options.inactivity).await?;
                    options.bytes.add(out.len() as u64);
                }
                continue;
            }
            let (used, passes) = next_piece(from.bytes(), body, &options)?;
            if passes {
                let bytes = &from.bytes()[..used];
                to.write_within(bytes, options.inactivity).await?;
                options.bytes.add(used as u64);
            }
            if let Some(mark) = options.end_mark {
                mark.borrow_mut().sent();
            }
            if let Some(tap) = options.tap {
                tap.observe(&from.bytes()[..used]);
            }
            from.consume(used);
        }
        Ok(())
    }
}

/// Reads more of the body, in the cheapest way that there is. `is_flood`: more has arrived than is read at a time.
async fn fill<F>(
    from: &mut Reader<'_>,
    to: Writer<'_>,
    body: &mut Body,
    options: &RelayOptions<'_, F>,
    is_flood: bool,
) -> Result<Filled, RelayError> {
    let is_observed = options.end_mark.is_some() || options.tap.is_some_and(BodyTap::wants_bytes);
    if is_flood && !is_observed && transfer::worth(body.opaque()) {
        // In a box: few bodies are large.
        return Box::pin(transfer_flood(from, to, body, options)).await;
    }
    let allocate = match is_flood {
        true => Buffer::take_large,
        false => Buffer::take,
    };
    let fill = |context: &mut Context<'_>| from.poll_fill_into(context, allocate);
    in_time(options.inactivity.within(fill).await)
}

/// How many of `bytes` can be used at once, and whether they are passed on. The end mark is looked for in the data among them.
fn next_piece<F>(
    bytes: &[u8],
    body: &mut Body,
    options: &RelayOptions<'_, F>,
) -> Result<(usize, bool), RelayError> {
    let show = |data: &[u8]| {
        if let Some(mark) = options.end_mark {
            mark.borrow_mut().read(data);
        }
    };
    let piece = match options.mode {
        BodyMode::Verbatim => {
            return body
                .follow_data(bytes, show)
                .map(|count| (count, true))
                .map_err(RelayError::Malformed);
        }
        BodyMode::Dechunked => body.next(bytes).map_err(RelayError::Malformed)?,
    };
    Ok(match piece {
        Piece::Data(count) => {
            show(&bytes[..count]);
            (count, true)
        }
        Piece::Framing(count) => (count, false),
        Piece::Trailers | Piece::End => (0, false),
    })
}

/// Takes the trailer section and writes it to `out`. Returns false if it has not arrived whole.
fn take_trailers<F: Fn(&str) -> bool>(
    from: &mut Reader<'_>,
    body: &mut Body,
    options: &RelayOptions<'_, F>,
    out: &mut Scratch,
) -> Result<bool, RelayError> {
    let taken = body
        .take_trailers(from.bytes(), &options.drops_trailer, out)
        .map_err(RelayError::Malformed)?;
    let Parsed::Complete(count) = taken else {
        return Ok(false);
    };
    from.consume(count);
    Ok(true)
}

/// Transfers the opaque part of a body that arrives faster than it is read, until it ends or arrives slowly. Then
/// reads what follows, unless the body is complete.
async fn transfer_flood<F>(
    from: &mut Reader<'_>,
    to: Writer<'_>,
    body: &mut Body,
    options: &RelayOptions<'_, F>,
) -> Result<Filled, RelayError> {
    let inactivity = options.inactivity;
    let mut trickles = 0;
    while transfer::worth(body.opaque()) && trickles < TRICKLES_MAX {
        let most = body.opaque().min(TURN_BYTES);
        let mut count = 0;
        let moved = transfer::transfer(from, to, most, inactivity, |piece| {
            count += piece;
            body.advance(piece);
            options.bytes.add(piece);
            if let Some(tap) = options.tap {
                tap.skip(piece);
            }
        })
        .await;
        match moved {
            Moved::AsAsked if body.is_complete() => break,
            Moved::AsAsked => reactor::next_turn().await,
            Moved::AllThereIs => {
                trickles = match count < TRICKLE_BYTES {
                    true => trickles + 1,
                    false => 0,
                };
                let readable = |context: &mut Context<'_>| from.stream().poll_readable(context);
                in_time(inactivity.within(readable).await)?;
            }
            Moved::EndOfFile => return Ok(Filled::EndOfFile),
            Moved::SourceFailed => return Err(RelayError::Source),
            Moved::SinkFailed(kind) => return Err(RelayError::Sink(kind)),
        }
    }
    if body.is_complete() {
        return Ok(Filled::Some);
    }
    in_time(inactivity.within(|context| from.poll_fill(context)).await)
}

/// Reads and drops what arrives until the sender ends, `limit` passes, or about `most` bytes have come: bytes that are not read turn
/// the end of a connection into a reset, which overtakes what was written before it (RFC 9112 §9.6).
pub async fn drain(from: &mut Reader<'_>, limit: &Deadline, most: usize) {
    let (mut left, mut since_turn) = (most, 0);
    loop {
        let count = from.bytes().len();
        from.consume(count);
        left = left.saturating_sub(count);
        if left == 0 {
            return;
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
        if !matches!(filled.await, Some(Ok(Filled::Some))) {
            return;
        }
    }
}

/// What was read from the sender; `None` is an inactivity timeout.
fn in_time<T>(result: Option<io::Result<T>>) -> Result<T, RelayError> {
    result
        .ok_or(RelayError::Stalled)?
        .map_err(|_| RelayError::Source)
}

/// After this many bytes without a pause, the other connections have their turn.
const TURN_BYTES: u64 = 1 << 20;

/// Less than this at a time is better read: a pipe is two descriptors, and pages that are nearly empty.
const TRICKLE_BYTES: u64 = 16 * 1024;

/// How many trickles in a row end a transfer.
const TRICKLES_MAX: u32 = 4;
