//! Time limits: one coarse mechanism for all of them.
//!
//! Thousands of connections each have a limit that almost never passes. A timer for each would cost a few
//! system calls a request; here, setting a limit is a store to memory, and one task looks through them
//! when the earliest may have passed. A limit passes up to [`GRANULARITY`] late. It counts from the beginning of the turn in
//! which it is set ([`reactor::now`]), which is mostly some microseconds ago: early is as much as that turn has taken.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use slab::Slab;

use super::reactor::{self, Timer};

/// By how much a limit may pass late.
pub const GRANULARITY: Duration = Duration::from_millis(50);

/// The limits of one thread.
#[derive(Debug, Default)]
pub struct Clock {
    entries: RefCell<Slab<Entry>>,
    /// When [`Clock::run`] looks next; `None` while nothing is set.
    next_look: Cell<Option<Instant>>,
    runner: RefCell<Option<Waker>>,
    stopping: Cell<bool>,
}

#[derive(Debug, Default)]
struct Entry {
    at: Option<Instant>,
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

    /// Wakes whoever waits for a limit that has passed, for ever.
    pub async fn run(&self) {
        loop {
            let now = reactor::now();
            self.next_look.set(
                self.wake_expired(now)
                    .map(|next| next.max(now + GRANULARITY)),
            );
            let mut timer = self.next_look.get().map(Timer::at);
            let planned = self.next_look.get();
            poll_fn(|context| {
                if self.next_look.get() != planned {
                    return Poll::Ready(());
                }
                let mut runner = self.runner.borrow_mut();
                if !runner
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(context.waker()))
                {
                    *runner = Some(context.waker().clone());
                }
                match &mut timer {
                    Some(timer) => Pin::new(timer).poll(context).map(drop),
                    None => Poll::Pending,
                }
            })
            .await;
        }
    }

    /// From now on [`Deadline::poll_idle`] ends at once.
    pub fn stop(&self) {
        self.stopping.set(true);
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether [`Clock::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
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

    fn look_by(&self, at: Instant) {
        if self
            .next_look
            .get()
            .is_none_or(|next| at + GRANULARITY < next)
        {
            self.next_look.set(Some(at));
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
    /// The limit passes in `after`; `None` or zero stands for never.
    pub fn set(&self, after: Option<Duration>) {
        let at = after
            .filter(|after| !after.is_zero())
            .and_then(|after| reactor::now().checked_add(after));
        self.clock.entries.borrow_mut()[self.key].at = at;
        if let Some(at) = at {
            self.clock.look_by(at);
        }
    }

    /// What `poll` brings, or `None` if the limit passes before that.
    pub fn race<T>(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = Option<T>> {
        poll_fn(move |context| {
            let came = poll(context);
            self.poll_unless(context, came)
        })
    }

    /// What `came`, or `None` if that is nothing yet and the limit has passed.
    fn poll_unless<T>(&self, context: &Context<'_>, came: Poll<T>) -> Poll<Option<T>> {
        match came {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => self.poll_passed(context).map(|()| None),
        }
    }

    /// Waits until the limit has passed.
    pub async fn passed(&self) {
        poll_fn(|context| self.poll_passed(context)).await;
    }

    /// Whether the limit has passed; else `context` is woken when it has.
    pub fn poll_passed(&self, context: &Context<'_>) -> Poll<()> {
        self.poll(context, false)
    }

    /// Whether the limit has passed, or the program is to stop; else `context` is woken when one of them is so.
    pub fn poll_idle(&self, context: &Context<'_>) -> Poll<()> {
        self.poll(context, true)
    }

    fn poll(&self, context: &Context<'_>, ends_with_stop: bool) -> Poll<()> {
        let entry = &mut self.clock.entries.borrow_mut()[self.key];
        let has_passed = entry.at.is_some_and(|at| at <= reactor::now());
        if has_passed || (ends_with_stop && self.clock.is_stopping()) {
            return Poll::Ready(());
        }
        if !entry
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            entry.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// How long nothing may move, and the limit that tells when it has been too long.
#[derive(Debug, Clone, Copy)]
pub struct InactivityTimeout<'a> {
    /// Set while something is waited for, and only then.
    pub deadline: &'a Deadline,
    /// `None` or zero stands for ever.
    pub most: Option<Duration>,
}

impl InactivityTimeout<'_> {
    /// What `poll` brings, or `None` if that takes too long from now on.
    pub fn within<T>(
        self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = Option<T>> {
        self.begin();
        poll_fn(move |context| {
            let came = poll(context);
            self.poll(context, came)
        })
    }

    /// The time begins.
    pub fn begin(self) {
        self.deadline.set(self.most);
    }

    /// One of `parts` equal parts of the time begins.
    pub fn begin_part(self, parts: u32) {
        self.deadline.set(self.most.map(|most| most / parts));
    }

    /// What `came` since it [began](InactivityTimeout::begin), or `None` if that takes too long. With either the time is over.
    pub fn poll<T>(self, context: &Context<'_>, came: Poll<T>) -> Poll<Option<T>> {
        let result = ready!(self.deadline.poll_unless(context, came));
        self.deadline.set(None);
        Poll::Ready(result)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.clock.entries.borrow_mut().remove(self.key);
    }
}
