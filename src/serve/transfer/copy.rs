//! Moves bytes through a buffer of this process: what every system can do.

use std::io;

use super::super::buffers::Buffer;
use super::super::conn::{Stream, Writer};
use super::super::deadline::InactivityTimeout;
use super::Moved;

/// See [`transfer`](super::transfer).
pub async fn transfer(
    source: &Stream,
    to: Writer<'_>,
    most: u64,
    inactivity: InactivityTimeout<'_>,
    moved: &mut impl FnMut(u64),
) -> Moved {
    let mut buffer = Buffer::take_large();
    let mut left = most;
    while left > 0 {
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = match source.try_read(&mut buffer.bytes_mut()[..room]) {
            Ok(0) => return Moved::EndOfFile,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Moved::AllThereIs,
            Err(_) => return Moved::SourceFailed,
        };
        if let Err(error) = to.write_within(&buffer.bytes()[..count], inactivity).await {
            return Moved::SinkFailed(error.kind);
        }
        left -= count as u64;
        moved(count as u64);
    }
    Moved::AsAsked
}
