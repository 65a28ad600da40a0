//! What waits to be sent to one page: never more than a bounded amount, however slow its browser is. Of a state only the
//! latest counts, and it replaces one that is still waiting.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines for one page.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    states: BTreeMap<&'static str, Vec<u8>>,
    is_closed: bool,
}

impl Queue {
    /// The state called `kind` is now as this line says.
    pub fn put_state(&self, kind: &'static str, line: Vec<u8>) {
        self.lock().states.insert(kind, line);
        self.news.notify_one();
    }

    /// Nobody reads any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_all();
    }

    /// Whether somebody still reads.
    pub fn is_open(&self) -> bool {
        !self.lock().is_closed
    }

    /// What waits, or comes within `patience`; `None` once it is closed.
    pub fn take(&self, patience: Duration) -> Option<Vec<Vec<u8>>> {
        let waiting = self.lock();
        let is_idle = |waiting: &mut Waiting| waiting.states.is_empty() && !waiting.is_closed;
        let (mut waiting, _) = self
            .news
            .wait_timeout_while(waiting, patience, is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.is_closed {
            return None;
        }
        let states = std::mem::take(&mut waiting.states).into_values();
        Some(states.collect())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_state_counts() {
        let queue = Queue::default();
        queue.put_state("a", b"old".to_vec());
        queue.put_state("b", b"other".to_vec());
        queue.put_state("a", b"new".to_vec());
        let lines = queue.take(Duration::ZERO).expect("it is open");
        assert_eq!(lines, [&b"new"[..], b"other"]);
        assert_eq!(queue.take(Duration::ZERO), Some(Vec::new()));
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
