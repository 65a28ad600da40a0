//! Time limits: one coarse mechanism for all of them.
//!
//! Thousands of connections each have a limit that almost never passes. A timer for each would cost a few system calls a
//! request; here, setting a limit is a store to memory, and one task checks all of them when the earliest may have passed. A
//! limit passes up to [`GRANULARITY`] late. It counts from the start of the turn in which it is set ([`reactor::now`]), which
//! is mostly some microseconds ago; it passes that much early.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;

use super::reactor::{self, Timer};

/// By how much a limit may pass late.
pub const GRANULARITY: Duration = Duration::from_millis(50);

/// All time limits.
#[derive(Debug, Default)]
pub struct Clock {
    entries: RefCell<Slab<Entry>>,
    /// When [`Clock::run`] checks next; `None` while no limit is set.
    next_check: Cell<Option<Instant>>,
    runner: RefCell<Option<Waker>>,
    /// How often a client has become idle.
    last_idle: Cell<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    at: Option<Instant>,
    /// It limits how long a client is idle; the lowest number is that of the longest idle one.
    idle: Option<NonZeroU64>,
    waker: Option<Waker>,
}

impl Clock {
    /// A clock without limits.
    pub fn new() -> Rc<Self> {
        Rc::new(Clock::default())
    }

    /// A limit of this clock, not yet set.
    pub fn deadline(self: &Rc<Self>) -> Deadline {
        let key = self.entries.borrow_mut().insert(Entry::default());
        Deadline {
            clock: Rc::clone(self),
            key,
        }
    }

    /// Wakes the tasks whose limits have passed. Never returns.
    pub async fn run(&self) {
        loop {
            let now = reactor::now();
            self.next_check.set(
                self.wake_expired(now)
                    .map(|next| next.max(now + GRANULARITY)),
            );
            let mut timer = self.next_check.get().map(Timer::at);
            let planned = self.next_check.get();
            poll_fn(|context| {
                if self.next_check.get() != planned {
                    return Poll::Ready(());
                }
                self.runner.replace(Some(context.waker().clone()));
                match &mut timer {
                    Some(timer) => Pin::new(timer).poll(context).map(drop),
                    None => Poll::Pending,
                }
            })
            .await;
        }
    }

    /// Wakes all tasks that wait for a limit: those of idle clients find that their site closes.
    pub fn wake_all(&self) {
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Lets the limit of the client that has been idle longest pass now; returns false if none is idle.
    pub fn expire_longest_idle(&self) -> bool {
        let mut entries = self.entries.borrow_mut();
        let idle = entries.iter_mut();
        let idle = idle.filter_map(|(_, entry)| Some((entry.idle?, entry)));
        let Some((_, longest)) = idle.min_by_key(|(idle, _)| *idle) else {
            return false;
        };
        longest.idle = None;
        longest.at = Some(reactor::now());
        if let Some(waker) = longest.waker.take() {
            waker.wake();
        }
        true
    }

    /// Returns the earliest limit that has not passed.
    fn wake_expired(&self, now: Instant) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            match entry.at {
                Some(at) if at <= now => {
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                }
                Some(at) => earliest = Some(earliest.map_or(at, |earliest| earliest.min(at))),
                None => {}
            }
        }
        earliest
    }

    fn check_by(&self, at: Instant) {
        if self
            .next_check
            .get()
            .is_none_or(|next| at + GRANULARITY < next)
        {
            self.next_check.set(Some(at));
            if let Some(runner) = self.runner.borrow_mut().take() {
                runner.wake();
            }
        }
    }
}

/// A time limit that is set anew for each wait.
#[derive(Debug)]
pub struct Deadline {
    clock: Rc<Clock>,
    key: usize,
}

impl Deadline {
    /// As [`set`](Deadline::set), for a client that is idle from now on, until the limit is set anew.
    pub fn set_idle(&self, after: Option<Duration>) {
        self.set(after);
        let number = self.clock.last_idle.get() + 1;
        self.clock.last_idle.set(number);
        self.clock.entries.borrow_mut()[self.key].idle = NonZeroU64::new(number);
    }

    /// The limit passes in `after`; `None` or zero stands for never.
    pub fn set(&self, after: Option<Duration>) {
        let at = after
            .filter(|after| !after.is_zero())
            .and_then(|after| reactor::now().checked_add(after));
        let entry = &mut self.clock.entries.borrow_mut()[self.key];
        (entry.at, entry.idle) = (at, None);
        if let Some(at) = at {
            self.clock.check_by(at);
        }
    }

    /// The result of `poll`, or `None` if the limit passes first.
    pub fn race<T>(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = Option<T>> {
        poll_fn(move |context| {
            let result = poll(context);
            self.poll_unless(context, result)
        })
    }

    /// The `result`, or `None` if it is pending and the limit has passed.
    fn poll_unless<T>(&self, context: &Context<'_>, result: Poll<T>) -> Poll<Option<T>> {
        match result {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => self.poll_passed(context).map(|()| None),
        }
    }

    /// Waits until the limit has passed.
    pub async fn passed(&self) {
        poll_fn(|context| self.poll_passed(context)).await;
    }

    /// Ready if the limit has passed; else `context` is woken when it has.
    pub fn poll_passed(&self, context: &Context<'_>) -> Poll<()> {
        let entry = &mut self.clock.entries.borrow_mut()[self.key];
        let has_passed = entry.at.is_some_and(|at| at <= reactor::now());
        if has_passed {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => entry.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// A time from which ages are counted that include the time that the machine was asleep.
///
/// An [`Instant`] stops meanwhile (clock_gettime(2), CLOCK_MONOTONIC), so the wall clock is a second witness. CLOCK_BOOTTIME would
/// be a system call where the vDSO does not know it, does not exist everywhere, and stops with a virtual machine. A wall clock that
/// is set forward only makes things look older.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Instant, SystemTime);

impl Moment {
    /// The time.
    pub fn now() -> Self {
        Moment(reactor::now(), reactor::wall_clock())
    }

    /// The time from `earlier` to this.
    pub fn since(self, earlier: Moment) -> Duration {
        let by_wall_clock = self.1.duration_since(earlier.1).unwrap_or_default();
        self.0
            .saturating_duration_since(earlier.0)
            .max(by_wall_clock)
    }

    /// This time, if the machine were asleep for `time` after it.
    #[cfg(test)]
    pub fn before_sleep(self, time: Duration) -> Moment {
        Moment(self.0, self.1 - time)
    }
}

/// The deadlines of an exchange, one for each side.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Times waits for the client.
    pub client: &'a Deadline,
    /// Times waits for the origin.
    pub origin: &'a Deadline,
}

/// How long nothing may be sent or taken, and the deadline that times it.
#[derive(Debug, Clone, Copy)]
pub struct InactivityTimeout<'a> {
    /// Set only during a wait.
    pub deadline: &'a Deadline,
    /// `None` or zero: no limit.
    pub most: Option<Duration>,
}

impl InactivityTimeout<'_> {
    /// The result of `poll`, or `None` if that takes too long from now on.
    pub fn within<T>(
        self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = Option<T>> {
        self.deadline.set(self.most);
        poll_fn(move |context| {
            let result = poll(context);
            self.poll(context, result)
        })
    }

    /// Starts one of `parts` equal parts of the time.
    pub fn begin_part(self, parts: u32) {
        self.deadline.set(self.most.map(|most| most / parts));
    }

    /// The `result`, or `None` if it is pending and the time is over. Either one stops the time.
    pub fn poll<T>(self, context: &Context<'_>, result: Poll<T>) -> Poll<Option<T>> {
        let result = ready!(self.deadline.poll_unless(context, result));
        self.deadline.set(None);
        Poll::Ready(result)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.clock.entries.borrow_mut().remove(self.key);
    }
}
