//! Runs the tasks of a thread.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use smol::LocalExecutor;

/// Runs `main` to its end, and the tasks of `executor` beside it.
///
/// As `LocalExecutor::run` does it, which however looks for tasks where other threads may have left some, and polls `main`
/// whichever task was woken. `main` has several things to wait for, and a request is none of them.
pub async fn run<T>(executor: &LocalExecutor<'_>, main: impl Future<Output = T>) -> T {
    let mut main = pin!(main);
    let mut call = None;
    // Whoever has something to run while nothing can be run wakes it. It is kept when it was woken, and waits again with its next
    // poll; no poll of all this ends without that, or without a wake of its own.
    let mut rest = pin!(None);
    poll_fn(|context| {
        let call = Call::through(&mut call, context.waker());
        if call.is_due.swap(false, Ordering::AcqRel) {
            let waker = Waker::from(Arc::clone(call));
            if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(result);
            }
        }
        for _ in 0..TURN_TASKS {
            if executor.try_tick() {
                continue;
            }
            if rest.is_none() {
                rest.set(Some(executor.tick()));
            }
            let resting = rest.as_mut().as_pin_mut().map(|rest| rest.poll(context));
            if resting == Some(Poll::Pending) {
                return Poll::Pending;
            }
            // Another thread was faster; the task has run.
            rest.set(None);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Wakes what runs `main` and the tasks, and says that it was for `main`.
struct Call {
    is_due: AtomicBool,
    whole: Waker,
}

impl Call {
    /// The one through `whole`; where that is another than before, a new one, which is due.
    fn through<'a>(place: &'a mut Option<Arc<Call>>, whole: &Waker) -> &'a Arc<Call> {
        let known = place.take().filter(|call| call.whole.will_wake(whole));
        place.insert(known.unwrap_or_else(|| {
            Arc::new(Call {
                is_due: AtomicBool::new(true),
                whole: whole.clone(),
            })
        }))
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.whole.wake_by_ref();
    }
}

/// After this many, sockets are looked at.
const TURN_TASKS: usize = 200;
