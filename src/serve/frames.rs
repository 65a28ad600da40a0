//! The memory that exchanges run in: a few frames for each thread, lent out and taken back like buffers.
//!
//! A connection that waits for its next request needs a tenth of the state that an exchange needs, and a thread has many that
//! wait. So an exchange is a future in a box of its own, and the box outlives it: after the first requests,
//! none costs an allocation.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Frames for the futures that one function makes.
#[derive(Debug)]
pub struct Frames<A, F> {
    begin: fn(A) -> F,
    spare: RefCell<Vec<Frame<F>>>,
}

type Frame<F> = Pin<Box<Option<F>>>;

impl<A, F: Future> Frames<A, F> {
    /// Frames for what `begin` returns.
    pub fn new(begin: fn(A) -> F) -> Self {
        Frames {
            begin,
            spare: RefCell::default(),
        }
    }

    /// Runs what `begin` makes of `arguments`.
    pub fn run(&self, arguments: A) -> impl Future<Output = F::Output> {
        let spare = self.spare.borrow_mut().pop();
        let mut frame = spare.unwrap_or_else(|| Box::pin(None));
        // At once, so that the arguments are in the frame and not in whoever waits for it.
        frame.set(Some((self.begin)(arguments)));
        async move {
            let output = poll_fn(|context| match frame.as_mut().as_pin_mut() {
                Some(future) => future.poll(context),
                None => Poll::Pending,
            })
            .await;
            frame.set(None);
            let mut spare = self.spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(frame);
            }
            output
        }
    }
}

/// Frames kept for later: as many as answers that come at once.
const SPARE_MAX: usize = 64;
