//! One body, from wire to wire.
//!
//! Each piece leaves as it arrives; the next is read when it is gone, which is all the back-pressure that
//! there is. The relay knows no framing: it asks the [`Body`].

use std::cell::Cell;
use std::time::Duration;

use smol::future;

use super::buffers::Scratch;
use super::deadline::Deadline;
use super::wire::{Filled, Reader, Writer};
use crate::http::body::{Body, Truncated};
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
    /// Its receiver's connection failed.
    Sink,
}

/// How a body is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it came, chunk framing and all.
    AsIs,
    /// Its data alone, for a receiver that knows no chunks.
    Decoded,
}

/// What goes with a relayed body.
pub struct Terms<'a, F> {
    /// How it is passed on.
    pub form: Form,
    /// The fields that a trailer must not replace.
    pub is_ours: F,
    /// The limit on silence, and how long it is.
    pub silence: (&'a Deadline, Option<Duration>),
    /// Counts the bytes that went out.
    pub bytes: &'a Cell<u64>,
}

/// Passes on what is left of `body`.
pub async fn relay<F: Fn(&str) -> bool>(
    from: &mut Reader<'_>,
    to: Writer<'_>,
    body: &mut Body,
    terms: Terms<'_, F>,
) -> Result<(), Broken> {
    while !body.is_complete() {
        if from.bytes().is_empty() && fill(from, terms.silence).await? == Filled::EndOfFile {
            return body.end_of_file().map_err(|Truncated| Broken::Truncated);
        }
        if body.has_trailers() {
            let trailers = take_trailers(from, body, &terms).await?;
            write(to, &trailers, terms.bytes).await?;
            continue;
        }
        let used = match terms.form {
            Form::AsIs => {
                let count = body.follow(from.bytes()).map_err(Broken::Malformed)?;
                write(to, &from.bytes()[..count], terms.bytes).await?;
                count
            }
            Form::Decoded => match body.next(from.bytes()).map_err(Broken::Malformed)? {
                Piece::Data(count) => {
                    write(to, &from.bytes()[..count], terms.bytes).await?;
                    count
                }
                Piece::Framing(count) => count,
                Piece::Trailers | Piece::End => 0,
            },
        };
        from.consume(used);
    }
    Ok(())
}

/// Takes of the bytes that are already there what belongs to `body` and writes it to `out`, so that it can
/// leave together with a head.
pub fn take_ready(
    from: &mut Reader<'_>,
    body: &mut Body,
    form: Form,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut used = 0;
    while used < from.bytes().len() {
        let bytes = &from.bytes()[used..];
        match body.next(bytes)? {
            Piece::Data(count) => {
                out.extend_from_slice(&bytes[..count]);
                used += count;
            }
            Piece::Framing(count) => {
                if form == Form::AsIs {
                    out.extend_from_slice(&bytes[..count]);
                }
                used += count;
            }
            Piece::Trailers | Piece::End => break,
        }
    }
    from.consume(used);
    Ok(())
}

/// Reads until the trailer section is whole; it is short, or refused.
async fn take_trailers<F: Fn(&str) -> bool>(
    from: &mut Reader<'_>,
    body: &mut Body,
    terms: &Terms<'_, F>,
) -> Result<Scratch, Broken> {
    loop {
        let mut out = Scratch::take();
        match body
            .take_trailers(from.bytes(), &terms.is_ours, &mut out)
            .map_err(Broken::Malformed)?
        {
            Parsed::Complete(count) => {
                from.consume(count);
                if terms.form == Form::Decoded {
                    out.clear();
                }
                return Ok(out);
            }
            Parsed::Partial => {
                if fill(from, terms.silence).await? == Filled::EndOfFile {
                    return Err(Broken::Truncated);
                }
            }
        }
    }
}

async fn fill(
    from: &mut Reader<'_>,
    (deadline, limit): (&Deadline, Option<Duration>),
) -> Result<Filled, Broken> {
    deadline.set(limit);
    let silent = async {
        deadline.passed().await;
        Err(Broken::Silent)
    };
    let result = future::or(
        async { from.fill().await.map_err(|_| Broken::Source) },
        silent,
    )
    .await;
    deadline.set(None);
    result
}

async fn write(to: Writer<'_>, bytes: &[u8], count: &Cell<u64>) -> Result<(), Broken> {
    to.write_all(bytes).await.map_err(|_| Broken::Sink)?;
    count.set(count.get() + bytes.len() as u64);
    Ok(())
}
