//! What one thread serves its clients with: a service of its own, and the tasks that keep it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use smol::future::{self, FutureExt as _};
use smol::{LocalExecutor, Task};

use super::conn::{Client, Stream};
use super::frames::Frames;
use super::threads::Seat;
use super::{Common, Options, Service, exchange};

/// A thread's place of work.
pub struct Station<F> {
    /// What its connections share.
    pub service: Rc<Service>,
    frames: Rc<Frames<exchange::Call, F>>,
    executor: Rc<LocalExecutor<'static>>,
    /// Time limits, and the care of kept connections; they end with the station.
    _keepers: [Task<()>; 2],
}

impl<F: Future<Output = exchange::Done> + 'static> Station<F> {
    /// The station of thread `at`, whose exchanges are what `answer` returns.
    pub fn new(
        options: Options,
        common: Common,
        at: usize,
        executor: &Rc<LocalExecutor<'static>>,
        answer: fn(exchange::Call) -> F,
    ) -> Self {
        let service = Rc::new(Service::new(options, common, at));
        let keepers = [
            executor.spawn({
                let service = Rc::clone(&service);
                async move { service.clock.run().await }
            }),
            executor.spawn({
                let service = Rc::clone(&service);
                async move { service.pool.sweep().await }
            }),
        ];
        Station {
            service,
            frames: Rc::new(Frames::new(answer)),
            executor: Rc::clone(executor),
            _keepers: keepers,
        }
    }

    /// Serves a client until it has gone.
    pub fn serve(&self, client: Client, seat: Seat) {
        let Some(stream) = watched(client) else {
            return;
        };
        let connected = Connected {
            service: Rc::clone(&self.service),
            _seat: seat,
        };
        self.spawn(exchange::serve(stream, connected, Rc::clone(&self.frames)));
    }

    /// Tells a client that there are too many; if even those who are told are too many, closes without a word.
    pub fn turn_away(&self, client: Client) {
        if self.service.turned_away.get() >= TURNED_AWAY_MAX {
            return;
        }
        if let Some(stream) = watched(client) {
            let turned_away = TurnedAway::new(&self.service);
            self.spawn(async move { exchange::turn_away(stream, &turned_away.0).await });
        }
    }

    fn spawn(&self, served: impl Future<Output = ()> + 'static) {
        // After a panic its descriptors are closed and its buffers gone; what the others share is counters and pools.
        self.executor
            .spawn(AssertUnwindSafe(served).catch_unwind())
            .detach();
    }

    /// Lets requests in flight finish, until their grace is over or `at_once` is ready.
    pub async fn finish(&self, at_once: impl Future<Output = ()>) {
        let service = &self.service;
        service.clock.stop();
        let grace = service.timeouts.grace;
        // No time for them, where a limit of zero is none.
        if grace.is_zero() {
            return;
        }
        let limit = service.clock.deadline();
        limit.set(Some(grace));
        future::or(service.all_gone(), future::or(limit.passed(), at_once)).await;
    }
}

fn watched(client: Client) -> Option<Stream> {
    match Stream::accepted(client) {
        Ok(stream) => Some(stream),
        Err(error) => {
            log::warn!("a client cannot be served: {error}");
            None
        }
    }
}

/// A client that is served: it counts for as long as it is there.
pub struct Connected {
    /// What serves it.
    pub service: Rc<Service>,
    _seat: Seat,
}

impl Drop for Connected {
    fn drop(&mut self) {
        left(&self.service);
    }
}

/// A client that is told that there are too many; it does not count as served.
struct TurnedAway(Rc<Service>);

impl TurnedAway {
    fn new(service: &Rc<Service>) -> Self {
        service.turned_away.set(service.turned_away.get() + 1);
        TurnedAway(Rc::clone(service))
    }
}

impl Drop for TurnedAway {
    fn drop(&mut self) {
        self.0.turned_away.set(self.0.turned_away.get() - 1);
        left(&self.0);
    }
}

/// Somebody has gone: whoever waits for the last one looks again, when this one's place is free.
fn left(service: &Service) {
    if std::thread::panicking() {
        log::error!("a connection ended by a fault of ic itself; the others go on");
    }
    if let Some(waker) = service.waits_for_end.borrow_mut().take() {
        waker.wake();
    }
}

/// How many connections above the limit are told so; the rest are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
