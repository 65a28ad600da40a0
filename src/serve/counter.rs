//! Numbers that one thread counts and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only its own thread changes. So counting is a load and a store, as if nobody else could see it, and
/// who reads it sees every value in turn, perhaps a moment late.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`; only on the counter's own thread.
    pub fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// As [`add`](Counter::add), but stays at the highest number.
    pub fn add_up_to_max(&self, more: u64) {
        self.0
            .store(self.get().saturating_add(more), Ordering::Relaxed);
    }

    /// Counts one less; only on the counter's own thread.
    pub fn sub_one(&self) {
        self.0
            .store(self.get().saturating_sub(1), Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
