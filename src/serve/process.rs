//! The process around the sites: its tasks, its signals, and how it ends.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use smol::future::{self, FutureExt as _};
use smol::{LocalExecutor, Task};

use super::event::ServeError;
use super::feed::{FeedSocket, Hub, Publisher};
use super::options::{Options, UpstreamOptions};
use super::reactor::{self, Timer};
use super::service::Service;
use super::signals::Signals;
use super::upstream::Upstream;
use super::warning;

/// What all sites of a process share.
#[derive(Clone)]
pub struct Process<'a> {
    /// The clock, the limits, the count of clients.
    pub service: Rc<Service>,
    /// Its subscribers are sent what happens.
    pub hub: Rc<Hub>,
    /// Runs the tasks of clients and listeners.
    pub clients: Rc<LocalExecutor<'a>>,
    /// Runs the tasks of subscribers, which outlive the clients, to be sent how their exchanges ended.
    pub subscribers: Rc<LocalExecutor<'static>>,
}

/// Runs `main` to its end, then cuts the exchanges that are left, and gives the feed's subscribers time to read of it.
pub fn run<'a, F>(
    options: &Options,
    main: impl FnOnce(Process<'a>, Signals) -> F + 'a,
) -> Result<(), ServeError>
where
    F: Future<Output = Result<(), ServeError>> + 'a,
{
    let clients = Rc::new(LocalExecutor::new());
    let process = Process {
        service: Rc::new(Service::new(options.timeouts, options.connections_max)),
        hub: Rc::default(),
        clients: Rc::clone(&clients),
        subscribers: Rc::default(),
    };
    let (hub, subscribers) = (Rc::clone(&process.hub), Rc::clone(&process.subscribers));
    let stop_signals = options.stop_signals;
    let main = clients.spawn(async move {
        let signals = Signals::new(stop_signals).map_err(ServeError::Signals)?;
        let subscribers = Rc::clone(&process.subscribers);
        let run_subscribers = async move { subscribers.run(future::pending::<()>()).await };
        process.clients.spawn(run_subscribers).detach();
        let clock = Rc::clone(&process.service.clock);
        process
            .clients
            .spawn(async move { clock.run().await })
            .detach();
        main(process, signals).await
    });
    reactor::block_on(run_tasks(&clients, main)).map_err(ServeError::Reactor)??;
    // Cuts the exchanges that have not finished in time; each is reported to the feed.
    drop(clients);
    hub.close();
    warning::finish();
    let farewell = future::or(hub.wait_until_empty(), Timer::at(reactor::now() + FAREWELL));
    reactor::block_on(subscribers.run(farewell)).map_err(ServeError::Reactor)
}

/// Runs the tasks of `executor` until `main`, which is one of them, has ended. [`LocalExecutor::run`] also looks for tasks that
/// other threads may have left, which takes a tenth of the CPU time of a small request.
async fn run_tasks<T>(executor: &LocalExecutor<'_>, main: Task<T>) -> T {
    let mut tasks_run = 0usize;
    while !main.is_finished() {
        if !executor.try_tick() {
            executor.tick().await;
        }
        tasks_run = tasks_run.wrapping_add(1);
        if tasks_run.is_multiple_of(TURN_TASKS) {
            future::yield_now().await;
        }
    }
    main.await
}

impl Process<'_> {
    /// A target without connections, and the task that closes those that expire.
    pub fn open_upstream(&self, options: &UpstreamOptions) -> (Rc<Upstream>, Task<()>) {
        let upstream = Rc::new(Upstream::new(options, &self.service.clock));
        let swept = Rc::clone(&upstream);
        let sweeper = self.clients.spawn(async move { swept.pool.sweep().await });
        (upstream, sweeper)
    }

    /// Publishes the feed in `folder`, for as long as the task is not cancelled. A failure is logged only: forwarding does not need
    /// the feed.
    pub fn open_feed(
        &self,
        folder: Option<&Path>,
        publisher: Rc<dyn Publisher>,
    ) -> Option<Task<()>> {
        let no_folder = || io::Error::other("there is no folder for its socket");
        let socket = folder.ok_or_else(no_folder).and_then(FeedSocket::open);
        let socket = socket
            .inspect_err(|error| log::debug!("there is no live feed: {error}"))
            .ok()?;
        let subscribers = Rc::clone(&self.subscribers);
        let serve = move |subscriber| spawn(subscriber, &subscribers);
        let feed = socket.run(Rc::clone(&self.hub), publisher, serve);
        Some(self.subscribers.spawn(feed))
    }

    /// Disconnects idle clients, and waits until the requests in flight are finished, for the grace period at most; another signal
    /// ends the wait.
    pub async fn finish(&self, signals: &Signals) {
        let grace = self.service.timeouts.grace;
        log::info!(
            "stopping; requests in flight have {} s to finish",
            grace.as_secs_f32()
        );
        self.service.stop();
        // Grace 0 means do not wait; elsewhere 0 disables a limit.
        if !grace.is_zero() {
            let limit = self.service.clock.deadline();
            limit.set(Some(grace));
            let finished = future::or(self.service.all_disconnected(), limit.passed());
            future::or(finished, async { drop(signals.next().await) }).await;
        }
    }
}

/// Spawns a task whose panic ends it alone: its descriptors are closed and its buffers dropped, and what it shares with others
/// are counters and pools.
pub fn spawn(task: impl Future<Output = ()> + 'static, executor: &LocalExecutor<'_>) {
    let task = AssertUnwindSafe(task).catch_unwind();
    executor.spawn(task).detach();
}

/// How long the feed's subscribers may take to read the last events.
const FAREWELL: Duration = Duration::from_millis(200);

/// How many tasks run before `main` and the sockets have their turn.
const TURN_TASKS: usize = 200;
