//! Between the exchanges and the listeners: who listens, what waits for them, what is recorded.
//!
//! One for all threads. Whether anything is to be told is one load of one byte; the lock is for those who tell, and is held
//! for as long as it takes to put a line into a few queues. Nobody waits for a listener here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::event::{Event, Line};
use super::record::{Budget, Ring};

/// Where exchanges tell what happens, and listeners hear it.
#[derive(Debug, Default)]
pub struct Hub {
    /// [`LISTENS`] and [`RECORDS`].
    state: AtomicU8,
    ids: AtomicU64,
    connections: AtomicU64,
    shared: Mutex<Shared>,
    /// For bodies that are still coming.
    pub budget: Arc<Budget>,
}

/// Somebody listens.
const LISTENS: u8 = 1;
/// What happens is recorded, whoever listens.
const RECORDS: u8 = 2;

#[derive(Debug, Default)]
struct Shared {
    listeners: Slab<Queue>,
    /// How many listeners have come so far.
    arrivals: u64,
    /// There while recording is on.
    ring: Option<Ring>,
    is_over: bool,
    waits_for_end: Option<Waker>,
}

/// What waits for a listener.
#[derive(Debug, Default)]
struct Queue {
    /// What was recorded before it came.
    recorded: VecDeque<Line>,
    lines: VecDeque<Line>,
    bytes: usize,
    /// Lines that there was no room for behind those that wait.
    lost: u64,
    waker: Option<Waker>,
}

/// What a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The first of an exchange.
    Beginning(u64),
    /// Another one of an exchange.
    Exchange(u64),
    /// Of interest for the moment only.
    Moment,
}

impl Hub {
    /// Whether anything is to be told.
    pub fn is_on(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    /// Whether bodies are to be told.
    pub fn records(&self) -> bool {
        self.state.load(Ordering::Relaxed) & RECORDS != 0
    }

    /// A number for an exchange.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number for a client's connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells all listeners.
    pub fn tell(&self, of: Of, line: &Line) {
        let mut shared = self.lock();
        if shared.is_over {
            return;
        }
        if let Some(ring) = &mut shared.ring {
            match of {
                Of::Beginning(id) => ring.begin(id, line.clone()),
                Of::Exchange(id) => ring.keep(id, line.clone()),
                Of::Moment => {}
            }
        }
        shared.tell(line);
    }

    /// Switches recording; what was recorded is gone when it is off.
    pub fn record(&self, on: bool) {
        let mut shared = self.lock();
        if shared.ring.is_some() != on {
            shared.ring = on.then(Ring::default);
            shared.tell(&Event::Recording { on }.line());
            self.settle(&shared);
        }
    }

    /// Lets a listener in, who gets `hello` first. There may be too many, or it may be too late: then it gets that and no more.
    pub fn join(self: &Arc<Self>, hello: impl FnOnce(bool) -> Line) -> Result<Listener, [Line; 2]> {
        let mut shared = self.lock();
        let hello = hello(shared.ring.is_some());
        if shared.is_over {
            return Err([hello, Event::Bye.line()]);
        }
        if shared.listeners.len() >= LISTENERS_MAX {
            let listeners = LISTENERS_MAX;
            return Err([hello, Event::Full { listeners }.line()]);
        }
        let recorded = shared.ring.iter().flat_map(Ring::lines).cloned();
        let queue = Queue {
            recorded: std::iter::once(hello).chain(recorded).collect(),
            ..Queue::default()
        };
        let key = shared.listeners.insert(queue);
        shared.arrivals += 1;
        self.settle(&shared);
        Ok(Listener {
            hub: Arc::clone(self),
            key,
        })
    }

    /// How many listeners have come until now, if what happens is recorded and none of them is left.
    pub fn records_for_nobody(&self) -> Option<u64> {
        let shared = self.lock();
        (shared.ring.is_some() && shared.listeners.is_empty()).then_some(shared.arrivals)
    }

    /// Switches recording off unless a listener has come after so many.
    pub fn forget_unless_after(&self, arrivals: u64) {
        if self.records_for_nobody() == Some(arrivals) {
            self.record(false);
        }
    }

    /// Nothing happens any more.
    pub fn end(&self) {
        let mut shared = self.lock();
        shared.is_over = true;
        shared.tell(&Event::Bye.line());
    }

    /// Waits until no listener is left.
    pub async fn all_gone(&self) {
        poll_fn(|context| {
            let mut shared = self.lock();
            if shared.listeners.is_empty() {
                return Poll::Ready(());
            }
            shared.waits_for_end = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn settle(&self, shared: &Shared) {
        let listens = if shared.listeners.is_empty() {
            0
        } else {
            LISTENS
        };
        let records = if shared.ring.is_some() { RECORDS } else { 0 };
        self.state.store(listens | records, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Queues and counters, each whole after every step: a panic elsewhere leaves nothing half done.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn tell(&mut self, line: &Line) {
        for (_, queue) in &mut self.listeners {
            queue.push(line);
        }
    }
}

impl Queue {
    fn push(&mut self, line: &Line) {
        if self.lines.len() >= LINES_MAX || self.bytes + line.len() > LINE_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.tell_lost();
        self.bytes += line.len();
        self.lines.push_back(line.clone());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn tell_lost(&mut self) {
        let count = std::mem::take(&mut self.lost);
        if count > 0 {
            let line = Event::Lost { count }.line();
            self.bytes += line.len();
            self.lines.push_back(line);
        }
    }

    fn pop(&mut self) -> Option<Line> {
        if let Some(line) = self.recorded.pop_front() {
            return Some(line);
        }
        if self.lines.is_empty() {
            self.tell_lost();
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }
}

/// A listener's place, for as long as it stays.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    key: usize,
}

impl Listener {
    /// Waits for lines, and writes those that wait to `out`, about [`BATCH_BYTES`] of them. `false`: there are none, and none
    /// will come.
    pub async fn take(&self, out: &mut Vec<u8>) -> bool {
        poll_fn(|context| self.poll_take(context, out)).await
    }

    fn poll_take(&self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<bool> {
        let mut shared = self.hub.lock();
        let is_over = shared.is_over;
        let Some(queue) = shared.listeners.get_mut(self.key) else {
            return Poll::Ready(false);
        };
        while out.len() < BATCH_BYTES {
            match queue.pop() {
                Some(line) => out.extend_from_slice(line.as_bytes()),
                None => break,
            }
        }
        if !out.is_empty() {
            return Poll::Ready(true);
        }
        if is_over {
            return Poll::Ready(false);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = self.hub.lock();
        let queue = shared.listeners.try_remove(self.key);
        self.hub.settle(&shared);
        let waker = shared.waits_for_end.take();
        drop(shared);
        // With the lock free again: a waker may be the last to know a task.
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A page, a terminal, and some that were forgotten.
const LISTENERS_MAX: usize = 8;

/// Lines that may wait for a listener, and their bytes.
const LINES_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 8 << 20;

/// What is written at once.
const BATCH_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::default())
    }

    fn join(hub: &Arc<Hub>) -> Listener {
        hub.join(|on| format!("hello {on}\n").into())
            .expect("there is room")
    }

    /// The lines that wait.
    fn waiting(listener: &Listener) -> Vec<String> {
        let mut context = Context::from_waker(Waker::noop());
        let mut lines = Vec::new();
        let mut out = Vec::new();
        while listener.poll_take(&mut context, &mut out) == Poll::Ready(true) {
            let text = String::from_utf8(std::mem::take(&mut out)).expect("lines are text");
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }

    #[test]
    fn it_is_on_while_somebody_listens_or_it_records() {
        let hub = hub();
        assert!(!hub.is_on());
        let listener = join(&hub);
        assert!(hub.is_on() && !hub.records());
        hub.record(true);
        drop(listener);
        assert!(hub.is_on() && hub.records());
        hub.record(false);
        assert!(!hub.is_on());
    }

    #[test]
    fn a_slow_listener_loses_lines_and_is_told_how_many() {
        let hub = hub();
        let (slow, quick) = (join(&hub), join(&hub));
        for number in 0..1030 {
            hub.tell(Of::Moment, &format!("{number}\n").into());
            waiting(&quick);
        }
        let lines = waiting(&slow);
        assert_eq!(lines.len(), 1026);
        assert_eq!(lines[1024], "1023");
        assert_eq!(lines[1025], "{\"event\":\"lost\",\"count\":6}");
        hub.tell(Of::Moment, &"x".repeat(8 << 20).into());
        hub.tell(Of::Moment, &"y\n".into());
        let mut out = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(slow.poll_take(&mut context, &mut out).is_ready());
        assert_eq!(out.len(), 8 << 20, "what is large counts by its size");
        out.clear();
        hub.tell(Of::Moment, &"z\n".into());
        assert_eq!(waiting(&slow), ["{\"event\":\"lost\",\"count\":1}", "z"]);
    }

    #[test]
    fn what_was_recorded_is_told_to_whoever_comes_later() {
        let hub = hub();
        hub.tell(Of::Beginning(1), &"before\n".into());
        hub.record(true);
        hub.tell(Of::Exchange(1), &"of what began before\n".into());
        hub.tell(Of::Beginning(2), &"a\n".into());
        hub.tell(Of::Moment, &"moment\n".into());
        let listener = join(&hub);
        hub.tell(Of::Exchange(2), &"b\n".into());
        assert_eq!(waiting(&listener), ["hello true", "a", "b"]);
        hub.record(true);
        hub.record(false);
        hub.record(true);
        let switched =
            ["false", "true"].map(|on| format!("{{\"event\":\"recording\",\"on\":{on}}}"));
        assert_eq!(waiting(&listener), switched, "only changes are told");
        assert_eq!(
            waiting(&join(&hub)),
            ["hello true"],
            "what was kept is gone"
        );
    }

    #[test]
    fn what_is_recorded_for_nobody_is_forgotten() {
        let hub = hub();
        let first = join(&hub);
        assert_eq!(hub.records_for_nobody(), None);
        hub.record(true);
        assert_eq!(hub.records_for_nobody(), None);
        drop(first);
        let left = hub.records_for_nobody().expect("nobody is there");
        drop(join(&hub));
        hub.forget_unless_after(left);
        assert!(hub.records(), "somebody has come after that");
        let left = hub.records_for_nobody().expect("nobody is there");
        hub.forget_unless_after(left);
        assert!(!hub.is_on());
    }

    #[test]
    fn there_are_only_so_many_listeners_and_none_after_the_end() {
        let hub = hub();
        let mut listeners: Vec<Listener> = (0..LISTENERS_MAX).map(|_| join(&hub)).collect();
        let refused = |hub: &Arc<Hub>| match hub.join(|_| "hello\n".into()) {
            Ok(_) => panic!("there is no place"),
            Err(lines) => lines.map(|line| line.to_string()).concat(),
        };
        assert_eq!(
            refused(&hub),
            "hello\n{\"event\":\"full\",\"listeners\":8}\n"
        );
        listeners.pop();
        listeners.push(join(&hub));
        hub.end();
        for listener in &listeners {
            assert_eq!(waiting(listener), ["hello false", "{\"event\":\"bye\"}"]);
        }
        assert_eq!(refused(&hub), "hello\n{\"event\":\"bye\"}\n");
    }
}
