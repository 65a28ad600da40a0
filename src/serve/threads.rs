//! Several threads, each with an event loop, kept connections and buffers of its own. They share the way in and nothing
//! else: the first thread accepts everybody, and gives each client to the thread that has the fewest.
//!
//! Not by a listening socket for each (`SO_REUSEPORT`): a second interceptor of the same user could bind the port as well,
//! and nobody would notice; and a hash spreads thousands of connections evenly, but not the few of an IDE. Not by
//! all threads waiting for one listening socket: the kernel wakes the same idle one each time, and it would keep the
//! connections that come while there is little to do. Handing a client over costs one wake-up in its lifetime.

use std::cell::{Cell, RefCell};
use std::future;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use smol::LocalExecutor;
use smol::channel::{self, Receiver, Sender};

use super::admin::Metrics;
use super::conn::Client;
use super::station::Station;
use super::{Common, Options, ServeError, exchange, reactor, tasks};

/// The other threads, as the first one sees them.
pub struct Crew {
    hands: RefCell<Vec<Hand>>,
    ends: Receiver<Result<(), ServeError>>,
    ended: Cell<usize>,
}

/// One other thread.
struct Hand {
    tally: Arc<Metrics>,
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

/// What a thread is told.
enum Order {
    Serve(Client, Seat),
    Stop,
}

/// A client's place at a thread: counts it from when it is accepted until it has gone.
pub struct Seat(Arc<Metrics>);

impl Seat {
    /// One more client for the thread of that `tally`.
    pub fn at(tally: &Arc<Metrics>) -> Self {
        tally.connected();
        Seat(Arc::clone(tally))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

impl Crew {
    /// Starts a thread for each tally but the first.
    pub fn start(options: &Options, common: &Common) -> io::Result<Self> {
        let (end, ends) = channel::unbounded();
        let mut hands = Vec::new();
        for (at, tally) in common.tallies.iter().enumerate().skip(1) {
            let (orders, ordered) = channel::unbounded();
            let (options, common, end) = (options.clone(), common.clone(), end.clone());
            let thread = thread::Builder::new()
                .name(format!("serve-{at}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let work = AssertUnwindSafe(|| work(options, common, at, ordered));
                    let result = panic::catch_unwind(work);
                    // Nobody is left to be told only where everything ends anyway.
                    drop(end.try_send(result.unwrap_or(Err(ServeError::Fault))));
                })?;
            hands.push(Hand {
                tally: Arc::clone(tally),
                orders,
                thread,
            });
        }
        Ok(Crew {
            hands: RefCell::new(hands),
            ends,
            ended: Cell::new(0),
        })
    }

    /// Gives a client to another thread, unless the first one, with that tally, has no more clients than any of them.
    pub fn hand_over(&self, client: Client, first: &Metrics) -> Option<Client> {
        let hands = self.hands.borrow();
        let idlest = hands.iter().min_by_key(|hand| hand.tally.connections());
        let Some(hand) = idlest.filter(|hand| hand.tally.connections() < first.connections())
        else {
            return Some(client);
        };
        // A thread that has ended is the end of all, which its client shares.
        drop(
            hand.orders
                .try_send(Order::Serve(client, Seat::at(&hand.tally))),
        );
        None
    }

    /// Waits until a thread ends though nobody told it to; says how.
    pub async fn broke(&self) -> ServeError {
        match self.ends.recv().await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => ServeError::Fault,
            // There are no other threads.
            Err(_) => future::pending().await,
        }
    }

    /// Tells all threads to let requests in flight finish.
    pub fn stop(&self) {
        for hand in self.hands.borrow().iter() {
            drop(hand.orders.try_send(Order::Stop));
        }
    }

    /// Waits until all threads have ended.
    pub async fn ended(&self) {
        while self.ended.get() < self.hands.borrow().len() && self.ends.recv().await.is_ok() {
            self.ended.set(self.ended.get() + 1);
        }
    }

    /// Ends all threads at once, whatever they are doing.
    pub fn dismiss(&self) {
        let hands = self.hands.take();
        let threads: Vec<_> = hands.into_iter().map(|hand| hand.thread).collect();
        // Their orders are closed now.
        for thread in threads {
            drop(thread.join());
        }
    }
}

/// A thread's work: serves whom it is given, until it is told to stop.
fn work(
    options: Options,
    common: Common,
    at: usize,
    ordered: Receiver<Order>,
) -> Result<(), ServeError> {
    let executor = Rc::new(LocalExecutor::new());
    let station = Station::new(options, common, at, &executor, exchange::answer);
    let work = async {
        while let Ok(Order::Serve(client, seat)) = ordered.recv().await {
            station.serve(client, seat);
        }
        let dismissed = async { while ordered.recv().await.is_ok() {} };
        station.finish(dismissed).await;
    };
    reactor::block_on(tasks::run(&executor, work)).map_err(ServeError::Reactor)
}

/// For a thread that runs tasks whose state is on the heap; the default is 2 MiB.
const STACK_BYTES: usize = 512 * 1024;
