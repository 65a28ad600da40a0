//! Runs an interceptor: listeners, limits, stopping. Knows bytes and addresses, and nothing of the registry.
//!
//! One thread and one event loop serve everything. A connection is a task, and a task that panics ends alone.

mod admin;
mod buffers;
pub(crate) mod conn;
mod deadline;
mod error;
mod exchange;
pub mod feed;
mod histogram;
pub(crate) mod listen;
mod metrics;
mod options;
mod peer;
pub(crate) mod reactor;
mod relay;
mod service;
mod site;
mod target;
mod transfer;
mod tunnel;
pub(crate) mod upstream;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use smol::future::{self, FutureExt as _};
use smol::{LocalExecutor, Task};

use self::conn::Stream;
use self::feed::{FeedSocket, Hub, InstanceInfo};
pub use self::listen::{Address, Listen, Listener, check_length, connect_at_once};
pub use self::options::{About, Options, ServedBy, Timeouts};
pub use self::peer::listens;
use self::reactor::{Source, Timer};
use self::site::Site;
pub use self::target::{BadUrl, Endpoint, Target};
pub use self::upstream::proxy::Proxy;
pub use self::upstream::tls::{Tls, TlsConfigError, Trust};
pub use crate::http::guard::Guard;
pub use crate::http::rewrite::{InvalidField, RequestRewriter};

/// What happens to an interceptor, for its caller.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// It listens on these addresses.
    Listening(&'a [Address]),
    /// It stops when the requests in flight are finished.
    Stopping(Stop),
}

/// Why an interceptor stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A signal arrived.
    Signal,
    /// No client was connected for this time.
    Idle(Duration),
}

/// Why an interceptor could not start or go on.
#[derive(Debug)]
pub enum ServeError {
    /// It cannot listen on this address.
    Bind(Address, io::Error),
    /// The target is the interceptor itself.
    TargetIsSelf(Target),
    /// Signals cannot be received.
    Signals(io::Error),
    /// A listening socket failed.
    Accept(io::Error),
    /// The system refuses what the event loop needs.
    Reactor(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            ServeError::TargetIsSelf(target) => {
                write!(
                    f,
                    "the target {target} is this interceptor itself; set TARGET_LLM_URL to the LLM proxy"
                )
            }
            ServeError::Signals(error) => {
                write!(
                    f,
                    "cannot receive signals: {error}; socketpair(2) and sigaction(2) are needed"
                )
            }
            ServeError::Accept(error) => write!(f, "cannot accept connections any more: {error}"),
            ServeError::Reactor(error) => {
                write!(
                    f,
                    "cannot wait for connections: {error}; {} are needed",
                    reactor::NEEDS
                )
            }
        }
    }
}

impl std::error::Error for ServeError {}

/// Runs an interceptor until a signal or [`Timeouts::idle_exit`] stops it. Calls `tell` with what happens.
pub fn run<'a>(
    mut options: Options,
    tell: &'a mut (dyn FnMut(Event<'_>) + 'a),
) -> Result<(), ServeError> {
    limit_connections(&mut options);
    let listeners = listen::open(&options.listen)
        .map_err(|(address, error)| ServeError::Bind(address, error))?;
    let addresses: Vec<Address> = listeners
        .iter()
        .filter_map(|listener| listener.address().ok())
        .collect();
    if leads_back(&options.target, &addresses) {
        return Err(ServeError::TargetIsSelf(options.target));
    }
    let feed: Rc<Hub> = Rc::default();
    let clients = Rc::new(LocalExecutor::new());
    // An executor of their own: subscribers outlive the clients, to be sent how their exchanges ended.
    let subscribers = Rc::new(LocalExecutor::new());
    let main = clients.spawn({
        let (feed, clients) = (Rc::clone(&feed), Rc::clone(&clients));
        let subscribers = Rc::clone(&subscribers);
        async move {
            let signals = Signals::new(options.stop_signals).map_err(ServeError::Signals)?;
            let feed_task = open_feed(&options, &addresses)
                .map(|socket| spawn_feed(socket, &feed, &subscribers));
            clients
                .spawn(async move { subscribers.run(future::pending::<()>()).await })
                .detach();
            let site = open_site(options, feed, &clients);
            let listeners: io::Result<Vec<_>> =
                listeners.into_iter().map(Source::listening).collect();
            let listeners = listeners.map_err(ServeError::Reactor)?;
            tell(Event::Listening(&addresses));
            serve_until_stopped(&site, listeners, feed_task, signals, tell, &clients).await
        }
    });
    reactor::block_on(run_tasks(&clients, main)).map_err(ServeError::Reactor)??;
    // Cuts the exchanges that have not finished in time; each is reported to the feed.
    drop(clients);
    feed.close();
    let farewell = future::or(
        feed.wait_until_empty(),
        Timer::at(Instant::now() + FAREWELL),
    );
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

/// The site of `options`; its background tasks run on `executor`.
fn open_site(options: Options, feed: Rc<Hub>, executor: &LocalExecutor<'_>) -> Rc<Site> {
    let site = Rc::new(Site::new(options, feed));
    let shared = Rc::clone(&site);
    executor
        .spawn(async move { shared.service.clock.run().await })
        .detach();
    let shared = Rc::clone(&site);
    executor
        .spawn(async move { shared.service.pool.sweep().await })
        .detach();
    site
}

/// Serves clients until a signal, a lack of clients or an error ends it; then waits for the requests in flight.
async fn serve_until_stopped(
    site: &Rc<Site>,
    listeners: Vec<Source<Listener>>,
    feed: Option<Task<()>>,
    mut signals: Signals,
    tell: &mut dyn FnMut(Event<'_>),
    clients: &LocalExecutor<'_>,
) -> Result<(), ServeError> {
    let acceptors = listeners.into_iter();
    let mut acceptors: Vec<_> = acceptors
        .map(|listener| Box::pin(accept_all(listener, site, clients)))
        .collect();
    // The failure of one listener ends the program: half an interceptor is worse than one that is restarted.
    let broken = poll_fn(|context| {
        let mut ends = acceptors
            .iter_mut()
            .map(|acceptor| acceptor.as_mut().poll(context));
        ends.find(Poll::is_ready).unwrap_or(Poll::Pending)
    });
    let signal = async {
        let signal = signals.next().await;
        signal.map(|()| Stop::Signal).map_err(ServeError::Signals)
    };
    let idle_exit = site
        .service
        .timeouts
        .idle_exit
        .filter(|limit| !limit.is_zero());
    let idle = async {
        let Some(limit) = idle_exit else {
            return future::pending().await;
        };
        site.service.idle(limit).await;
        Ok(Stop::Idle(limit))
    };
    let stop = future::or(future::or(signal, idle), async { Err(broken.await) }).await?;
    tell(Event::Stopping(stop));
    drop(acceptors);
    if let Some(feed) = feed {
        feed.cancel().await;
    }

    let grace = site.service.timeouts.grace;
    log::info!(
        "stopping; requests in flight have {} s to finish",
        grace.as_secs_f32()
    );
    site.service.clock.stop();
    // Grace 0 means do not wait; elsewhere 0 disables a limit.
    if !grace.is_zero() {
        let limit = site.service.clock.deadline();
        limit.set(Some(grace));
        let finished = future::or(site.service.all_disconnected(), limit.passed());
        future::or(finished, async { drop(signals.next().await) }).await;
    }
    Ok(())
}

/// Accepts clients until the listener fails; returns how.
async fn accept_all(
    listener: Source<Listener>,
    site: &Rc<Site>,
    clients: &LocalExecutor<'_>,
) -> ServeError {
    let mut accepted = 0u32;
    loop {
        match listen::accept(&listener).await {
            Ok(stream) => {
                if site.service.is_full() {
                    // A client whose request has arrived by now is not idle, and the task that reads it runs first.
                    reactor::next_turn().await;
                }
                admit(stream, site, clients);
            }
            Err(error) => return ServeError::Accept(error),
        }
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(TURN_CLIENTS) {
            reactor::next_turn().await;
        }
    }
}

/// Serves a client in a task of its own, or rejects it.
fn admit(stream: Stream, site: &Rc<Site>, clients: &LocalExecutor<'_>) {
    match site.admit() {
        Some(guard) if guard.is_served => spawn(exchange::serve(stream, guard), clients),
        Some(guard) => spawn(exchange::turn_away(stream, guard), clients),
        None => {}
    }
}

/// Spawns a task whose panic ends it alone: its descriptors are closed and its buffers dropped, and what it shares with others
/// are counters and pools.
fn spawn(task: impl Future<Output = ()> + 'static, executor: &LocalExecutor<'_>) {
    let task = AssertUnwindSafe(task).catch_unwind();
    executor.spawn(task).detach();
}

/// Accepts the feed's subscribers in a task of `executor`, and serves each in another one.
fn spawn_feed(
    socket: FeedSocket,
    feed: &Rc<Hub>,
    executor: &Rc<LocalExecutor<'static>>,
) -> Task<()> {
    let spawner = Rc::clone(executor);
    let attend = move |subscriber: Pin<Box<dyn Future<Output = ()>>>| spawn(subscriber, &spawner);
    executor.spawn(socket.run(Rc::clone(feed), attend))
}

/// Opens the feed's socket; `None` if there is none. A failure is logged only: forwarding does not need the feed.
fn open_feed(options: &Options, addresses: &[Address]) -> Option<FeedSocket> {
    let about = &options.about;
    let name = about
        .project
        .as_deref()
        .and_then(|path| path.rsplit('/').next());
    let who = InstanceInfo {
        instance_id: about.instance_id.clone(),
        project: name.filter(|name| !name.is_empty()).map(str::to_owned),
        path: about.project.clone(),
        port: addresses.iter().find_map(Address::port),
        pid: std::process::id(),
        target: options.target.to_string(),
    };
    let error = match &options.feed {
        Some(folder) => match FeedSocket::open(folder, who) {
            Ok(socket) => return Some(socket),
            Err(error) => error,
        },
        None => io::Error::other("there is no folder for its socket"),
    };
    log::debug!("there is no live feed: {error}");
    None
}

/// Lowers the limit on connections to what the limit on open files allows.
fn limit_connections(options: &mut Options) {
    let affordable = raise_descriptor_limit().map_or(usize::MAX, affordable);
    if affordable < options.connections_max {
        // A limit above the usual one is meant for clients that are mostly idle, which need one descriptor each.
        if options.connections_max <= CONNECTIONS_USUAL {
            options.connections_max = affordable;
        }
        log::warn!(
            "descriptors suffice for requests of {affordable} clients at once, and {} are let in; \
             `ulimit -n` raises it",
            options.connections_max,
        );
    }
}

/// Whether the target is one of the addresses listened on.
fn leads_back(target: &Target, addresses: &[Address]) -> bool {
    let (host, port) = match target.endpoint() {
        Endpoint::Tcp(host, port) => (host, port),
        Endpoint::Unix(path) => {
            let Ok(path) = path.canonicalize() else {
                return false;
            };
            let is_that = |address: &Address| match address {
                Address::Unix(own) => own.canonicalize().is_ok_and(|own| own == path),
                Address::Tcp(_) => false,
            };
            return addresses.iter().any(is_that);
        }
    };
    let addresses = || addresses.iter().filter_map(Address::tcp);
    let is_this_machine = match host.parse::<IpAddr>() {
        Ok(ip) => {
            let ip = ip.to_canonical();
            ip.is_loopback()
                || ip.is_unspecified()
                || addresses().any(|address| address.ip().to_canonical() == ip)
        }
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    is_this_machine && addresses().any(|address| address.port() == *port)
}

/// Raises the limit on open files to its maximum (many systems start at 256 or 1024). Returns the limit; `None`: there is none.
fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let mut raised = limit;
    raised.current = limit.maximum;
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            log::debug!("the limit on open files stays as it is: {error}");
            limit.current
        }
    }
}

/// How many clients `descriptors` suffice for: two each, and half a one for clients that are rejected. A client that is let in
/// without a descriptor left for its connection to the target gets an error; the connection limit makes it retry.
fn affordable(descriptors: u64) -> usize {
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS);
    usize::try_from(left / 5 * 2).unwrap_or(usize::MAX).max(1)
}

/// The default of `--max-connections`. Only limits up to this are lowered where descriptors are few.
const CONNECTIONS_USUAL: usize = 1024;

/// Standard streams, listeners, epoll, signals, a name that is resolved, and some pipes.
const OWN_DESCRIPTORS: u64 = 24;

/// Receives signals, one byte each.
struct Signals {
    read: Source,
    /// Kept open: without signals to register, `read` would be at its end.
    _write: UnixStream,
}

impl Signals {
    fn new(signals: &[i32]) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for &signal in signals {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Signals {
            read: Source::new(read.into())?,
            _write: write,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        loop {
            poll_fn(|context| self.read.poll_readable(context)).await?;
            match Read::read(&mut &self.read, &mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(drop),
            }
        }
    }
}

/// How long the feed's subscribers may take to read the last events.
const FAREWELL: Duration = Duration::from_millis(200);

/// After this many clients of one listener, other tasks have their turn.
const TURN_CLIENTS: u32 = 64;

/// How many tasks run before `main` and the sockets have their turn.
const TURN_TASKS: usize = 200;
