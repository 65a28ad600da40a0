//! The interceptor: listeners, limits, stopping. Knows bytes and addresses, and nothing of the registry.
//!
//! One thread serves everything, or several that share nothing (see `threads`). A connection is a task, and a task that
//! panics ends alone.

mod admin;
mod buffers;
pub(crate) mod conn;
mod counter;
mod deadline;
mod error;
mod exchange;
pub mod feed;
mod frames;
mod histogram;
pub(crate) mod listen;
mod peer;
pub(crate) mod reactor;
mod relay;
mod station;
mod target;
mod tasks;
mod threads;
mod transfer;
mod tunnel;
pub(crate) mod upstream;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use smol::future::{self, FutureExt as _};
use smol::{LocalExecutor, Task};

pub use self::admin::About;
use self::admin::Metrics;
use self::deadline::Clock;
use self::feed::{FeedSocket, Hub, InstanceInfo};
pub use self::listen::{Address, Listen, Listener, check_length, connect_at_once};
pub use self::peer::listens;
use self::reactor::{Source, Timer};
use self::station::{Connected, Station};
pub use self::target::{BadTarget, Endpoint, Target};
use self::threads::{Crew, Seat};
use self::upstream::connect::Connector;
use self::upstream::pool::Pool;
pub use self::upstream::proxy::{BadProxy, Proxy};
pub use self::upstream::tls::{Tls, Trust, Unusable};
pub use crate::http::guard::Guard;
pub use crate::http::rewrite::{RequestRewriter, Unsettable};

/// What an interceptor is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: Listen,
    /// Where requests go.
    pub target: Target,
    /// How it is talked to, where that is in TLS.
    pub tls: Option<Tls>,
    /// Through which proxy.
    pub proxy: Option<Proxy>,
    /// What is set on each request.
    pub onward: RequestRewriter,
    /// Which requests are served.
    pub guard: Guard,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// How many threads serve, each by itself.
    pub threads: NonZeroUsize,
    /// The most client connections at a time; further ones get a 503.
    pub connections_max: usize,
    /// What `/_ic/health` says.
    pub about: About,
    /// The folder in which the [`feed`] has its socket; none if there is to be no feed.
    pub feed: Option<PathBuf>,
    /// The signals that stop it; none where something else decides how long it runs.
    pub stop_signals: &'static [i32],
}

/// Time limits; `None` or zero is none.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a request head, from its first byte on: 408.
    pub head: Option<Duration>,
    /// For a client between requests: closed without a word.
    pub idle: Option<Duration>,
    /// For a connection to the target: 504.
    pub connect: Option<Duration>,
    /// From the last byte of the request to the whole head of the final response: 504. Interim responses do not count: they
    /// are sent by whoever stands before the one that thinks. Nor does the start of a head, which could drip for ever.
    pub first_byte: Option<Duration>,
    /// For silence inside a message that has begun to pass: nothing of it comes from its sender, or its receiver takes nothing
    /// of it. 408 or 504 as long as there is no answer, and a cut afterwards.
    pub body: Option<Duration>,
    /// How long a target that refuses connections is tried again.
    pub hold: Duration,
    /// How long requests in flight may take to finish when the program stops.
    pub grace: Duration,
    /// Without a client for so long, the program stops by itself.
    pub idle_exit: Option<Duration>,
}

/// What an interceptor tells whoever runs it.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// It listens on these addresses.
    Listening(&'a [Address]),
    /// It lets requests in flight finish, and ends.
    Stopping(Stop),
}

/// Why an interceptor stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A signal told it to.
    Signal,
    /// No client has been there for so long.
    Idle(Duration),
}

impl Timeouts {
    /// For a client that takes nothing of a page of the interceptor's own, which has no model to wait for: there always is one.
    fn for_own_pages(&self) -> Duration {
        let asked_for = self.body.filter(|body| !body.is_zero());
        asked_for.unwrap_or(OWN_PAGES)
    }
}

/// Why an interceptor could not start, or had to stop.
#[derive(Debug)]
pub enum ServeError {
    /// It cannot listen there.
    Bind(Address, io::Error),
    /// The target is the interceptor itself.
    TargetIsSelf(Target),
    /// Signals cannot be received.
    Signals(io::Error),
    /// A listener broke.
    Accept(io::Error),
    /// The system does not say which sockets are ready.
    Reactor(io::Error),
    /// There cannot be so many threads.
    Threads(io::Error),
    /// A thread ended by a fault of the program itself.
    Fault,
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
            ServeError::Threads(error) => {
                write!(f, "cannot start a thread: {error}; ask for fewer with --threads")
            }
            ServeError::Fault => {
                f.write_str("a thread ended by a fault of ic itself; start it again, and report what the log says")
            }
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Bind(_, error)
            | ServeError::Signals(error)
            | ServeError::Accept(error)
            | ServeError::Reactor(error)
            | ServeError::Threads(error) => Some(error),
            ServeError::TargetIsSelf(_) | ServeError::Fault => None,
        }
    }
}

/// Runs an interceptor until a signal stops it, or nobody has needed it for long. Calls `tell` with what happens.
pub fn run(mut options: Options, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), ServeError> {
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
    let tallies = (0..options.threads.get()).map(|_| Arc::new(Metrics::new()));
    let common = Common {
        tallies: tallies.collect(),
        feed: Arc::default(),
    };
    let crew = Rc::new(Crew::start(&options, &common).map_err(ServeError::Threads)?);
    let feed = Arc::clone(&common.feed);
    let executor = Rc::new(LocalExecutor::new());
    // Those who listen to the feed, apart from the clients, who are gone before them.
    let attendance = Rc::new(LocalExecutor::new());
    let main = async {
        let signals = Signals::new(options.stop_signals).map_err(ServeError::Signals)?;
        let channel = open_feed(&options, &addresses).map(|channel| {
            let spawner = Rc::clone(&attendance);
            let attend = move |listener: Pin<Box<dyn Future<Output = ()>>>| {
                // As with a client: a panic is the end of this one.
                let attended = AssertUnwindSafe(listener).catch_unwind();
                spawner.spawn(attended).detach();
            };
            attendance.spawn(channel.run(Arc::clone(&feed), attend))
        });
        let station = Station::new(options, common, 0, &executor, exchange::answer);
        let tell = |event: Option<Stop>| {
            tell(event.map_or(Event::Listening(&addresses), Event::Stopping));
        };
        let crew = Rc::clone(&crew);
        main(station, listeners, channel, crew, signals, tell, &executor).await
    };
    // A task: there is something to do for it now and then only.
    executor
        .spawn({
            let attendance = Rc::clone(&attendance);
            async move { tasks::run(&attendance, future::pending::<()>()).await }
        })
        .detach();
    reactor::block_on(tasks::run(&executor, main)).map_err(ServeError::Reactor)??;
    // Exchanges that were not over in time end here, on all threads, which is told before the end.
    drop(executor);
    crew.dismiss();
    feed.close();
    let farewell = future::or(
        feed.wait_until_empty(),
        Timer::at(Instant::now() + FAREWELL),
    );
    reactor::block_on(tasks::run(&attendance, farewell)).map_err(ServeError::Reactor)
}

/// The first thread: accepts everybody, serves its share, and tells the others when to stop.
async fn main<F>(
    station: Station<F>,
    listeners: Vec<Listener>,
    channel: Option<Task<()>>,
    crew: Rc<Crew>,
    mut signals: Signals,
    mut tell: impl FnMut(Option<Stop>),
    executor: &LocalExecutor<'static>,
) -> Result<(), ServeError>
where
    F: Future<Output = exchange::Done> + 'static,
{
    let station = Rc::new(station);
    let mut acceptors = Vec::new();
    for listener in listeners {
        let listener = Source::listening(listener).map_err(ServeError::Reactor)?;
        // Tasks among the others: whoever comes waits for those who are there to have their turn.
        let task = accept_all(listener, Rc::clone(&station), Rc::clone(&crew));
        acceptors.push(executor.spawn(task));
    }
    tell(None);

    // One listener's end is the end, and so is a thread's: half an interceptor is worse than one that is restarted.
    let broken = poll_fn(|context| {
        let mut ends = acceptors.iter_mut().map(|acceptor| acceptor.poll(context));
        ends.find_map(|end| {
            if let Poll::Ready(error) = end {
                Some(error)
            } else {
                None
            }
        })
        .map_or(Poll::Pending, Poll::Ready)
    });
    let told = async {
        let signal = signals.next().await;
        signal.map(|()| Stop::Signal).map_err(ServeError::Signals)
    };
    let idle = async { Ok(station.service.idle().await) };
    let stop = future::or(future::or(told, idle), async {
        Err(future::or(broken, crew.broke()).await)
    })
    .await?;
    tell(Some(stop));
    for acceptor in acceptors {
        // To its end: what it holds keeps the executor, and with that every connection.
        acceptor.cancel().await;
    }
    if let Some(channel) = channel {
        channel.cancel().await;
    }

    log::info!(
        "stopping; requests in flight have {} s to finish",
        station.service.timeouts.grace.as_secs_f32()
    );
    crew.stop();
    let finished = async {
        station.finish(future::pending()).await;
        crew.ended().await;
    };
    future::or(finished, async { drop(signals.next().await) }).await;
    Ok(())
}

/// The live feed's socket. Without one everything else goes on.
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
            Ok(channel) => return Some(channel),
            Err(error) => error,
        },
        None => io::Error::other("there is no folder for it"),
    };
    log::debug!("there is no live feed: {error}");
    None
}

/// Accepts clients until the listener breaks; says how.
async fn accept_all<F>(
    listener: Source<Listener>,
    station: Rc<Station<F>>,
    crew: Rc<Crew>,
) -> ServeError
where
    F: Future<Output = exchange::Done> + 'static,
{
    let service = &station.service;
    let mut accepted = 0u32;
    loop {
        let client = match listen::accept(&listener).await {
            Ok(client) => client,
            Err(error) => return ServeError::Accept(error),
        };
        // Clients that come in crowds must not keep those who are there from their turn.
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(TURN_CLIENTS) {
            reactor::next_turn().await;
        }
        if service.connections() >= service.connections_max {
            station.turn_away(client);
        } else if let Some(client) = crew.hand_over(client, &service.tally) {
            station.serve(client, Seat::at(&service.tally));
        }
    }
}

/// Everything that the connections of a thread share.
pub(crate) struct Service {
    clock: Rc<Clock>,
    connector: Connector,
    pool: Pool,
    onward: RequestRewriter,
    guard: Guard,
    timeouts: Timeouts,
    connections_max: usize,
    about: About,
    /// What happens on this thread.
    tally: Arc<Metrics>,
    /// And on all threads, this one included.
    tallies: Arc<[Arc<Metrics>]>,
    /// Who is told what happens.
    feed: Arc<Hub>,
    /// Those that are told that there are too many; they do not count as served.
    turned_away: Cell<usize>,
    waits_for_end: RefCell<Option<Waker>>,
    /// Each thread has every so many-th.
    last_request_id: Cell<usize>,
}

/// What all threads have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// What each of them counts.
    tallies: Arc<[Arc<Metrics>]>,
    feed: Arc<Hub>,
}

impl Service {
    /// The service of thread `at`.
    fn new(options: Options, common: Common, at: usize) -> Self {
        let Common { tallies, feed } = common;
        let clock = Clock::new();
        let tally = Arc::clone(&tallies[at]);
        Service {
            connector: Connector::new(
                options.target,
                options.tls,
                options.proxy,
                Arc::clone(&tally),
            ),
            pool: Pool::new(&clock, Arc::clone(&tally)),
            clock,
            onward: options.onward,
            guard: options.guard,
            timeouts: options.timeouts,
            connections_max: options.connections_max,
            about: options.about,
            tally,
            tallies,
            feed,
            turned_away: Cell::new(0),
            waits_for_end: RefCell::default(),
            last_request_id: Cell::new(at),
        }
    }

    /// What all threads have counted.
    fn sum(&self, count: impl Fn(&Metrics) -> u64) -> u64 {
        self.tallies.iter().map(|tally| count(tally)).sum()
    }

    /// The clients of all threads.
    fn connections(&self) -> usize {
        self.tallies.iter().map(|tally| tally.connections()).sum()
    }

    /// A name for an answer of our own, unique to this process.
    fn next_request_id(&self) -> String {
        let id = self.last_request_id.get() + self.tallies.len();
        self.last_request_id.set(id);
        format!("ic-{}-{id}", std::process::id())
    }

    /// Waits until no thread has had a client for as long as `idle_exit` says; how long that is.
    async fn idle(&self) -> Stop {
        let Some(limit) = self.timeouts.idle_exit.filter(|limit| !limit.is_zero()) else {
            return future::pending().await;
        };
        loop {
            let since = self.tallies.iter().map(|tally| tally.quiet_since());
            // While one is there, it is too early whenever it goes.
            let since = since.collect::<Option<Vec<_>>>().unwrap_or_default();
            let quiet = since
                .into_iter()
                .max()
                .map_or(Duration::ZERO, |since| since.elapsed());
            match limit.checked_sub(quiet).filter(|left| !left.is_zero()) {
                Some(left) => Timer::at(Instant::now() + left).await,
                None => return Stop::Idle(limit),
            }
        }
    }

    /// Waits until no connection of this thread is left.
    async fn all_gone(&self) {
        poll_fn(|context| {
            if self.tally.connections() + self.turned_away.get() == 0 {
                return Poll::Ready(());
            }
            *self.waits_for_end.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Lets in no more clients than there are descriptors for.
fn limit_connections(options: &mut Options) {
    let affordable =
        raise_descriptor_limit().map_or(usize::MAX, |limit| affordable(limit, options.threads));
    if affordable < options.connections_max {
        // Whoever asks for more than is usual knows that most of them are idle.
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
    let (host, port) = match target.place() {
        Endpoint::Tcp(host, port) => (host, port),
        Endpoint::Unix(path) => {
            let is_that = |address: &Address| match address {
                Address::Unix(own) => {
                    let same = |path: &PathBuf| path.canonicalize().ok();
                    same(path).is_some_and(|path| same(own) == Some(path))
                }
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

/// Asks for as many descriptors as there may be (many systems start at 256 or 1024); how many there are now.
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

/// How many clients `descriptors` are enough for: two each, and half a one for those that are turned away. A client
/// that is let in without a descriptor left for the target could only be told of a failure; the connection
/// limit tells it to come again.
fn affordable(descriptors: u64, threads: NonZeroUsize) -> usize {
    let others = threads.get() as u64 - 1;
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS + others * THREAD_DESCRIPTORS);
    usize::try_from(left / 5 * 2).unwrap_or(usize::MAX).max(1)
}

/// Up to here a limit is lowered where descriptors are few. It is the default of `--max-connections`.
const CONNECTIONS_USUAL: usize = 1024;

/// Standard streams, listeners, readiness, signals, a name being resolved, and some pipes.
const OWN_DESCRIPTORS: u64 = 24;

/// Of each thread more: readiness and some pipes.
const THREAD_DESCRIPTORS: u64 = 12;

/// Signals, one byte each.
struct Signals {
    read: Source<UnixStream>,
    /// Kept, since there may be no signal that would write to it: then none comes, and no end either.
    _write: UnixStream,
}

impl Signals {
    fn new(signals: &[i32]) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for &signal in signals {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Signals {
            read: Source::new(read)?,
            _write: write,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        loop {
            poll_fn(|context| self.read.poll_readable(context)).await?;
            match self.read.get_ref().read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.read.read_blocked(),
                result => return result.map(drop),
            }
        }
    }
}

/// For those who listen to the feed to take what was told last.
const FAREWELL: Duration = Duration::from_millis(200);

/// A page fits into a socket's buffer unless its reader has stopped reading those before.
const OWN_PAGES: Duration = Duration::from_secs(10);

/// After this many clients of one listener, the others have their turn.
const TURN_CLIENTS: u32 = 64;
