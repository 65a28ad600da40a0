//! The lines that wait to be sent to one page: a bounded amount, however slow its browser is.
//!
//! There are two kinds of lines. A state replaces the previous one of its kind that still waits. Events are all kept up to the
//! limit; beyond it they are dropped and counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines for one page.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    states: BTreeMap<&'static str, Vec<u8>>,
    /// The latest state of each kind, sent or not.
    latest: BTreeMap<&'static str, Vec<u8>>,
    events: VecDeque<Vec<u8>>,
    /// The size of `events`.
    bytes: usize,
    lost: u64,
    is_closed: bool,
}

/// The lines that the page is sent next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they are sent.
    pub lines: Vec<Vec<u8>>,
    /// How many events were dropped before these.
    pub lost: u64,
}

impl Queue {
    /// Replaces the state called `kind` by this line, unless it has not changed.
    pub fn put_state(&self, kind: &'static str, line: Vec<u8>) {
        let mut waiting = self.lock();
        if waiting.latest.get(kind) != Some(&line) {
            waiting.latest.insert(kind, line.clone());
            waiting.states.insert(kind, line);
            self.changed.notify_one();
        }
    }

    /// Adds an event, or counts it as lost at the limit.
    pub fn put_event(&self, line: Vec<u8>) {
        let mut waiting = self.lock();
        if waiting.events.len() >= EVENTS_MAX || waiting.bytes + line.len() > BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        waiting.bytes += line.len();
        waiting.events.push_back(line);
        self.changed.notify_one();
    }

    /// Ends the queue: the page disconnected.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Whether the page is still connected.
    pub fn is_open(&self) -> bool {
        !self.lock().is_closed
    }

    /// The lines that wait or come within `time`, none in the end; `None` once the queue is closed.
    pub fn take(&self, time: Duration) -> Option<Batch> {
        let waiting = self.lock();
        let is_idle = |waiting: &mut Waiting| {
            waiting.states.is_empty() && waiting.events.is_empty() && !waiting.is_closed
        };
        let (mut waiting, _) = self
            .changed
            .wait_timeout_while(waiting, time, is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.is_closed {
            return None;
        }
        let states = std::mem::take(&mut waiting.states).into_values();
        let mut lines: Vec<Vec<u8>> = states.collect();
        lines.extend(std::mem::take(&mut waiting.events));
        waiting.bytes = 0;
        Some(Batch {
            lines,
            lost: std::mem::take(&mut waiting.lost),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Enough for the recording that an interceptor replays: five lines for each of its exchanges.
const EVENTS_MAX: usize = 4096;

/// Recorded bodies are large.
const BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn the_latest_state_counts_and_every_event() {
        let queue = Queue::default();
        queue.put_event(b"one".to_vec());
        queue.put_state("a", b"old".to_vec());
        queue.put_state("a", b"new".to_vec());
        queue.put_event(b"two".to_vec());
        let batch = queue.take(NOW).expect("it is open");
        assert_eq!(batch.lines, [&b"new"[..], b"one", b"two"]);
        queue.put_state("a", b"new".to_vec());
        assert_eq!(queue.take(NOW), Some(Batch::default()), "nothing is new");
    }

    #[test]
    fn events_that_a_slow_page_does_not_read_are_counted() {
        let queue = Queue::default();
        for _ in 0..EVENTS_MAX + 3 {
            queue.put_event(b"x".to_vec());
        }
        let batch = queue.take(NOW).expect("it is open");
        assert_eq!((batch.lines.len(), batch.lost), (EVENTS_MAX, 3));
        queue.put_event(vec![b'x'; BYTES_MAX]);
        queue.put_event(b"x".to_vec());
        queue.put_state("a", b"a state is never dropped".to_vec());
        let batch = queue.take(NOW).expect("it is open");
        assert_eq!((batch.lines.len(), batch.lost), (2, 1));
    }

    #[test]
    fn closing_ends_the_wait() {
        let queue = std::sync::Arc::new(Queue::default());
        let waiter = {
            let queue = std::sync::Arc::clone(&queue);
            std::thread::spawn(move || queue.take(Duration::from_secs(60)))
        };
        queue.close();
        assert_eq!(waiter.join().expect("no panic"), None);
        assert!(!queue.is_open());
    }
}
