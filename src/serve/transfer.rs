//! Moves many opaque bytes from stream to stream.
//!
//! Decided here: when that is worth a loop of its own, and how it is done: by `splice`, which leaves the bytes in the kernel,
//! where the system has it and allows it; else by `copy`. Not decided here: how many bytes are opaque; the
//! [`Body`](crate::http::body::Body) says that.

mod copy;
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod splice;

use super::conn::{Reader, WriteErrorKind, Writer};
use super::deadline::InactivityTimeout;

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// As many bytes were moved as were asked for.
    AsAsked,
    /// All that had arrived was moved.
    AllThereIs,
    /// The sender has ended its side; everything before that was moved.
    EndOfFile,
    /// The sender's connection failed.
    SourceFailed,
    /// The receiver takes no more.
    SinkFailed(WriteErrorKind),
}

/// Whether a transfer is worth it, for a sender that has just filled a whole buffer and a body whose next `opaque` bytes need no
/// parsing. It needs a pipe, and little data is copied faster than its pages are moved.
pub fn worth(opaque: u64) -> bool {
    opaque >= WORTH_BYTES_MIN
}

const WORTH_BYTES_MIN: u64 = 64 * 1024;

/// Moves up to `most` bytes that have arrived, and calls `moved` with the length of each piece that was written. Waits for the sink,
/// up to the inactivity timeout, but not for the source. The reader must hold no bytes: these would overtake them.
pub async fn transfer(
    from: &Reader<'_>,
    to: Writer<'_>,
    most: u64,
    inactivity: InactivityTimeout<'_>,
    mut moved: impl FnMut(u64),
) -> Moved {
    debug_assert!(
        from.bytes().is_empty(),
        "bytes that were read are written first"
    );
    #[cfg(all(target_os = "linux", not(ic_portable)))]
    if let Some(end) =
        splice::transfer(from.stream(), to.stream(), most, inactivity, &mut moved).await
    {
        return end;
    }
    copy::transfer(from.stream(), to, most, inactivity, &mut moved).await
}
