//! Many bytes that nobody has to look at, from stream to stream.
//!
//! Decided here: when that is worth a loop of its own, and which of two ways it goes: `splice`, which leaves the bytes in
//! the kernel, where there is such a call and it is allowed; else `copy`. Not decided here: how many bytes may
//! pass unseen; that is the [`Body`](crate::http::body::Body)'s to say.

mod copy;
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod splice;

use super::conn::{Reader, WriteErrorKind, Writer};
use super::deadline::InactivityTimeout;

/// What a transfer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// As many bytes as were asked for.
    AsAsked,
    /// All that was there; the sender has to send more first.
    AllThereIs,
    /// The sender has closed its side; all that came before has been moved.
    EndOfFile,
    /// The sender's connection failed.
    SourceFailed,
    /// The receiver gets no more.
    SinkFailed(WriteErrorKind),
}

/// Whether a transfer pays, for a sender that has just filled a whole buffer and a body of which `opaque` bytes may
/// pass unseen.
///
/// A pipe has to be found, and what is small is copied faster than its pages are handed over.
pub fn worth(opaque: u64) -> bool {
    opaque >= WORTH_BYTES_MIN
}

const WORTH_BYTES_MIN: u64 = 64 * 1024;

/// Moves up to `most` bytes, as long as they are there, and says of each piece that has reached the sink how long it was.
/// Waits for the sink, unless that takes nothing for too long, but not for the source. The reader must hold no bytes: they would be overtaken.
pub async fn transfer(
    from: &Reader<'_>,
    to: Writer<'_>,
    most: u64,
    silence: InactivityTimeout<'_>,
    mut moved: impl FnMut(u64),
) -> Moved {
    debug_assert!(
        from.bytes().is_empty(),
        "what was read first has to leave first"
    );
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    if let Some(end) = splice::transfer(from.stream(), to.stream(), most, silence, &mut moved).await
    {
        return end;
    }
    copy::transfer(from.stream(), to, most, silence, &mut moved).await
}
