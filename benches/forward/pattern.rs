//! The bytes of every body: a sequence without short periods, so that lost, repeated, swapped or foreign bytes are
//! detected.

use std::sync::LazyLock;

/// The largest length that [`bytes`] accepts.
pub const RUN_MAX: usize = 256 * 1024;

/// A prime near 64 KiB: no buffer size is a multiple of it.
const PERIOD: usize = 65_521;

/// Returns `len` bytes of the sequence from offset `at` on.
pub fn bytes(at: u64, len: usize) -> &'static [u8] {
    let start = (at % PERIOD as u64) as usize;
    &TABLE[start..start + len]
}

/// Whether `found` equals the sequence at offset `at`.
pub fn agrees(mut at: u64, found: &[u8]) -> bool {
    found.chunks(RUN_MAX).all(|run| {
        let same = run == bytes(at, run.len());
        at += run.len() as u64;
        same
    })
}

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let period: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    period
        .iter()
        .copied()
        .cycle()
        .take(PERIOD + RUN_MAX)
        .collect()
});
