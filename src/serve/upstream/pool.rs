//! Idle connections to the target, kept for the next request.
//!
//! The target may close a kept connection at any moment, and a request that is sent at that moment is lost unless it may be
//! repeated. So connections are kept for less time than known servers keep them (uvicorn closes after 5 s, gunicorn after
//! 2 s), and are not used if anything has arrived on them since. Time that the machine was asleep counts: nothing that has arrived
//! meanwhile is known, the target's close included.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::serve::conn::Conn;
use crate::serve::deadline::{Clock, Deadline, Moment};

/// The idle connections to one target.
#[derive(Debug)]
pub struct Pool {
    /// In the order in which they became idle.
    idle: RefCell<Vec<Idle>>,
    /// Kept connections have been seen to serve another request, and none to be closed at once.
    is_persistent: Cell<bool>,
    next_sweep: Deadline,
    /// Wakes [`Pool::sweep`], also when the target closes an idle connection.
    sweeper: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since: Moment,
    lifetime: Duration,
}

impl Idle {
    /// How much longer it is kept.
    fn left(&self, now: Moment) -> Duration {
        self.lifetime.saturating_sub(now.since(self.since))
    }
}

impl Pool {
    /// A pool without connections.
    pub fn new(clock: &Rc<Clock>) -> Self {
        Pool {
            idle: RefCell::default(),
            is_persistent: Cell::new(false),
            next_sweep: clock.deadline(),
            sweeper: RefCell::default(),
        }
    }

    /// A kept connection that is still good, the most recently used first.
    ///
    /// Some servers close a connection after each response without announcing it. A request that is sent at that moment is
    /// lost if it cannot be repeated, so until the target has shown that it keeps connections, such a request gets only one
    /// that has stayed open for [`CLOSE_DELAY_MAX`].
    pub fn reuse(&self, is_repeatable: bool) -> Option<Conn> {
        let now = Moment::now();
        let mut idle = self.idle.borrow_mut();
        loop {
            let candidate = if is_repeatable || self.is_persistent.get() {
                idle.pop()?
            } else {
                let oldest = idle.first()?;
                if now.since(oldest.since) < CLOSE_DELAY_MAX {
                    return None;
                }
                idle.remove(0)
            };
            if candidate.left(now).is_zero() {
                continue;
            }
            if candidate.conn.is_quiet() {
                return Some(candidate.conn);
            }
            self.is_persistent.set(false);
        }
    }

    /// Records that a kept connection has served another request.
    pub fn set_persistent(&self) {
        self.is_persistent.set(true);
    }

    /// Keeps a connection whose last response is complete. `announced_seconds` is how long the target said that it would
    /// keep it.
    pub fn keep(&self, conn: Conn, announced_seconds: Option<u64>) {
        let lifetime = idle_lifetime(announced_seconds).min(conn.lifetime());
        let mut idle = self.idle.borrow_mut();
        if !conn.is_quiet() {
            self.is_persistent.set(false);
            return;
        }
        if lifetime.is_zero() || idle.len() == IDLE_MAX {
            return;
        }
        let since = Moment::now();
        if idle.iter().all(|idle| idle.left(since) > lifetime) {
            self.next_sweep.set(Some(lifetime));
        }
        if let Some(sweeper) = &*self.sweeper.borrow() {
            conn.watch(sweeper);
        }
        idle.push(Idle {
            conn,
            since,
            lifetime,
        });
    }

    /// Closes kept connections that have expired or that the target has closed. Never returns.
    pub async fn sweep(&self) {
        loop {
            self.close_dead();
            let mut waits = false;
            poll_fn(|context| {
                self.sweeper.replace(Some(context.waker().clone()));
                let passed = self.next_sweep.poll_passed(context);
                // Woken by the deadline or by a connection: either way all of them are checked.
                if std::mem::replace(&mut waits, true) {
                    Poll::Ready(())
                } else {
                    passed
                }
            })
            .await;
        }
    }

    fn close_dead(&self) {
        let now = Moment::now();
        let sweeper = self.sweeper.borrow();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| {
            let is_quiet = idle.conn.is_quiet();
            if !is_quiet {
                self.is_persistent.set(false);
            } else if let Some(sweeper) = &*sweeper {
                // It may have been woken by a TLS record without data, and is watched again.
                idle.conn.watch(sweeper);
            }
            is_quiet && !idle.left(now).is_zero()
        });
        self.next_sweep
            .set(idle.iter().map(|idle| idle.left(now)).min());
    }
}

/// How long a connection is kept idle.
fn idle_lifetime(announced_seconds: Option<u64>) -> Duration {
    match announced_seconds {
        None => IDLE_DEFAULT,
        Some(seconds) => Duration::from_secs(seconds)
            .min(IDLE_LONGEST)
            .saturating_sub(IDLE_MARGIN),
    }
}

/// Below gunicorn's 2 s: this side closes first, so that no request is sent on a connection that is about to be closed.
const IDLE_DEFAULT: Duration = Duration::from_millis(1500);

/// The longest that an announcement can extend that to.
const IDLE_LONGEST: Duration = Duration::from_secs(60);

/// A server that closes after a response does so within some milliseconds of its last byte.
const CLOSE_DELAY_MAX: Duration = Duration::from_millis(20);

/// How much earlier than announced a connection is dropped.
const IDLE_MARGIN: Duration = Duration::from_millis(500);

/// The most idle connections kept.
const IDLE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::conn::Stream;
    use crate::serve::reactor;
    use std::net::TcpListener;

    #[test]
    fn a_connection_that_was_kept_before_the_machine_slept_is_not_used_after_it() {
        #[track_caller]
        fn check(why: &str, announced: Option<u64>, asleep: u64, expected: bool) {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("bound");
            let pool = Pool::new(&Clock::new());
            let reused = reactor::block_on(async {
                let stream = Stream::connect(address).await.expect("it listens");
                pool.keep(Conn::new(stream), announced);
                for idle in &mut *pool.idle.borrow_mut() {
                    idle.since = idle.since.before_sleep(Duration::from_secs(asleep));
                }
                pool.reuse(true).is_some()
            });
            assert_eq!(reused.expect("a reactor"), expected, "{why}");
        }
        check("awake", None, 0, true);
        check("asleep for longer than it is kept", None, 2, false);
        check("asleep for less than announced", Some(60), 2, true);
        check("asleep for longer than announced", Some(60), 60, false);
    }
}
