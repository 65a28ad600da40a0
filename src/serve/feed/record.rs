//! What is kept while recording is on, and the limits on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::event::Line;

/// The last exchanges, as the lines that were told of them.
#[derive(Debug, Default)]
pub struct Ring {
    exchanges: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    lines: Vec<Line>,
    bytes: usize,
}

impl Ring {
    /// Keeps the first line of an exchange.
    pub fn begin(&mut self, id: u64, line: Line) {
        if self.exchanges.len() == EXCHANGES_MAX {
            self.drop_oldest();
        }
        self.exchanges.push_back(Kept {
            id,
            lines: Vec::new(),
            bytes: 0,
        });
        self.keep(id, line);
    }

    /// Keeps another line of an exchange, if that is still kept.
    pub fn keep(&mut self, id: u64, line: Line) {
        // Most are among the last.
        let kept = self.exchanges.iter_mut().rev().find(|kept| kept.id == id);
        let Some(kept) = kept else {
            return;
        };
        kept.bytes += line.len();
        self.bytes += line.len();
        kept.lines.push(line);
        while self.bytes > BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// All that is kept, in the order of the exchanges.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.exchanges.iter().flat_map(|kept| &kept.lines)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.exchanges.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }
}

/// How many bytes of bodies that are not yet over are kept, by all threads together.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// How many of `wanted` bytes may be kept.
    fn take(&self, wanted: usize) -> usize {
        let before = self.0.fetch_add(wanted, Ordering::Relaxed);
        let granted = wanted.min(BYTES_MAX.saturating_sub(before));
        self.give_back(wanted - granted);
        granted
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The start of a body that is kept.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    is_cut: bool,
    budget: Arc<Budget>,
}

impl Body {
    /// Nothing yet.
    pub fn new(budget: &Arc<Budget>) -> Body {
        Body {
            bytes: Vec::new(),
            is_cut: false,
            budget: Arc::clone(budget),
        }
    }

    /// Keeps what there is room for.
    pub fn keep(&mut self, bytes: &[u8]) {
        let wanted = bytes.len().min(BODY_BYTES_MAX - self.bytes.len());
        let granted = if self.is_cut {
            0
        } else {
            self.budget.take(wanted)
        };
        self.bytes.extend_from_slice(&bytes[..granted]);
        self.is_cut |= granted < bytes.len();
    }

    /// Something has passed unseen.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Whether not all of it is there.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What there is of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes.len());
    }
}

const EXCHANGES_MAX: usize = 256;

/// Of what is kept of exchanges, and again of bodies that are still coming.
const BYTES_MAX: usize = 8 << 20;

const BODY_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn first_words(ring: &Ring) -> Vec<&str> {
        ring.lines()
            .map(|line| &line[..line.len().min(4)])
            .collect()
    }

    #[test]
    fn the_oldest_exchanges_make_room() {
        let mut ring = Ring::default();
        for id in 0..300 {
            ring.begin(id, format!("{id:04}").into());
        }
        assert_eq!(ring.lines().count(), 256);
        assert_eq!(first_words(&ring)[0], "0044");
        ring.keep(43, "gone".into());
        ring.keep(44, "more".into());
        assert_eq!(first_words(&ring)[..3], ["0044", "more", "0045"]);
    }

    #[test]
    fn what_is_kept_has_a_limit_in_bytes() {
        let mut ring = Ring::default();
        let large: Line = "x".repeat(3 << 20).into();
        for id in 0..3 {
            ring.begin(id, format!("{id:04}").into());
            ring.keep(id, large.clone());
        }
        assert_eq!(first_words(&ring), ["0001", "xxxx", "0002", "xxxx"]);
        ring.keep(2, "y".repeat(9 << 20).into());
        assert_eq!(
            ring.lines().count(),
            0,
            "one that is too large is not kept either"
        );
        assert_eq!(ring.bytes, 0);
    }

    #[test]
    fn bodies_share_what_may_be_kept_of_them() {
        let budget = Arc::new(Budget::default());
        let piece = vec![0; 700_000];
        let mut bodies: Vec<Body> = (0..9).map(|_| Body::new(&budget)).collect();
        for body in &mut bodies {
            (0..3).for_each(|_| body.keep(&piece));
        }
        let kept: Vec<usize> = bodies.iter().map(|body| body.bytes().len()).collect();
        assert_eq!(kept[0], 1 << 20, "each has a limit");
        assert_eq!(kept.iter().sum::<usize>(), 8 << 20, "and all have one");
        assert!(bodies.iter().all(Body::is_cut));
        drop(bodies);
        let mut body = Body::new(&budget);
        body.keep(b"whole");
        assert!(!body.is_cut());
        assert_eq!(budget.take(9 << 20), (8 << 20) - 5);
    }
}
