//! The interceptor: listeners, limits, stopping. Knows bytes and addresses, and nothing of the registry.
//!
//! One thread serves everything. A connection is a task, and a task that panics ends alone.

mod buffers;
mod deadline;
mod exchange;
mod fault;
mod frames;
mod histogram;
pub(crate) mod listen;
mod origin;
mod own;
mod peer;
pub(crate) mod reactor;
mod relay;
mod target;
mod transfer;
mod tunnel;
pub(crate) mod wire;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use smol::LocalExecutor;
use smol::future::{self, FutureExt as _};

use self::deadline::Clock;
use self::frames::Frames;
use self::origin::Origin;
pub use self::own::About;
use self::own::Tally;
use self::reactor::Source;
pub use self::target::{BadTarget, Place, Target};
pub use crate::http::guard::Guard;
pub use crate::http::rewrite::{Onward, Unsettable};

/// What an interceptor is to do.
#[derive(Debug)]
pub struct Options {
    /// Where to listen. Addresses of families that the machine does not have are left out.
    pub listen: Vec<SocketAddr>,
    /// Where requests go.
    pub target: Target,
    /// What is set on each request.
    pub onward: Onward,
    /// Which requests are served.
    pub guard: Guard,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// The most client connections at a time; further ones get a 503.
    pub connections_max: usize,
    /// What `/_ic/health` says.
    pub about: About,
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
    /// For the first byte of a response, from the last byte of the request on: 504.
    pub first_byte: Option<Duration>,
    /// For silence inside a body, on either side.
    pub body: Option<Duration>,
    /// How long a target that refuses connections is tried again.
    pub hold: Duration,
    /// How long requests in flight may take to finish when the program stops.
    pub grace: Duration,
}

/// Why an interceptor could not start, or had to stop.
#[derive(Debug)]
pub enum ServeError {
    /// It cannot listen there.
    Bind(SocketAddr, io::Error),
    /// The target is the interceptor itself.
    TargetIsSelf(Target),
    /// Signals cannot be received.
    Signals(io::Error),
    /// A listener broke.
    Accept(io::Error),
    /// The system does not say which sockets are ready.
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

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Bind(_, error)
            | ServeError::Signals(error)
            | ServeError::Accept(error)
            | ServeError::Reactor(error) => Some(error),
            ServeError::TargetIsSelf(_) => None,
        }
    }
}

/// Runs an interceptor until a signal stops it. Calls `ready` with the addresses that it listens on.
pub fn run(options: Options, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ServeError> {
    let executor = Rc::new(LocalExecutor::new());
    reactor::block_on(executor.run(main(options, ready, &executor))).map_err(ServeError::Reactor)?
}

async fn main(
    mut options: Options,
    ready: impl FnOnce(&[SocketAddr]),
    executor: &Rc<LocalExecutor<'static>>,
) -> Result<(), ServeError> {
    let affordable = raise_descriptor_limit().map_or(usize::MAX, affordable);
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
    let listeners = listen::bind_all(&options.listen)
        .map_err(|(address, error)| ServeError::Bind(address, error))?;
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    if leads_back(&options.target, &addresses) {
        return Err(ServeError::TargetIsSelf(options.target));
    }
    let mut signals = Signals::new(options.stop_signals).map_err(ServeError::Signals)?;
    let grace = options.timeouts.grace;
    let service = Rc::new(Service::new(options));
    let keepers = [
        executor.spawn({
            let service = Rc::clone(&service);
            async move { service.clock.run().await }
        }),
        executor.spawn({
            let service = Rc::clone(&service);
            async move { service.origin.sweep().await }
        }),
    ];
    let frames = Rc::new(Frames::new(exchange::answer));
    let mut acceptors = Vec::new();
    for listener in listeners {
        let listener = Source::new(listener).map_err(ServeError::Reactor)?;
        let task = accept_all(
            listener,
            Rc::clone(&service),
            Rc::clone(&frames),
            Rc::clone(executor),
        );
        acceptors.push(executor.spawn(task));
    }
    ready(&addresses);

    // One listener's end is the end: half an interceptor is worse than one that is restarted.
    let broken = poll_fn(|context| {
        let mut ends = acceptors.iter_mut().map(|acceptor| acceptor.poll(context));
        ends.find_map(|end| {
            if let Poll::Ready(error) = end {
                Some(Err(error))
            } else {
                None
            }
        })
        .map_or(Poll::Pending, Poll::Ready)
    });
    future::or(
        async { signals.next().await.map_err(ServeError::Signals) },
        broken,
    )
    .await?;
    drop(acceptors);

    log::info!(
        "stopping; requests in flight have {} s to finish",
        grace.as_secs_f32()
    );
    service.clock.stop();
    let limit = service.clock.deadline();
    limit.set(Some(grace));
    let again = async { drop(signals.next().await) };
    future::or(service.all_gone(), future::or(limit.passed(), again)).await;
    drop(keepers);
    Ok(())
}

/// Everything that connections share.
pub(crate) struct Service {
    clock: Rc<Clock>,
    origin: Origin,
    onward: Onward,
    guard: Guard,
    timeouts: Timeouts,
    connections_max: usize,
    about: About,
    tally: Tally,
    connections: Cell<usize>,
    /// Those that are told that there are too many; they do not count as served.
    turned_away: Cell<usize>,
    waits_for_end: RefCell<Option<Waker>>,
    request_ids: Cell<u64>,
}

impl Service {
    fn new(options: Options) -> Self {
        let clock = Clock::new();
        Service {
            origin: Origin::new(options.target, &clock),
            clock,
            onward: options.onward,
            guard: options.guard,
            timeouts: options.timeouts,
            connections_max: options.connections_max,
            about: options.about,
            tally: Tally::new(),
            connections: Cell::new(0),
            turned_away: Cell::new(0),
            waits_for_end: RefCell::default(),
            request_ids: Cell::new(0),
        }
    }

    fn connections(&self) -> usize {
        self.connections.get()
    }

    /// A name for an answer of our own, unique to this process.
    fn next_request_id(&self) -> String {
        self.request_ids.set(self.request_ids.get() + 1);
        format!("ic-{}-{}", std::process::id(), self.request_ids.get())
    }

    /// Waits until no connection is left.
    async fn all_gone(&self) {
        poll_fn(|context| {
            if self.connections.get() + self.turned_away.get() == 0 {
                return Poll::Ready(());
            }
            *self.waits_for_end.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Counts a connection for as long as it lives.
pub(crate) struct Connected {
    service: Rc<Service>,
    count: fn(&Service) -> &Cell<usize>,
}

impl Connected {
    fn new(service: &Rc<Service>, count: fn(&Service) -> &Cell<usize>) -> Self {
        count(service).set(count(service).get() + 1);
        Connected {
            service: Rc::clone(service),
            count,
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a connection ended by a fault of ic itself; the others go on");
        }
        let count = (self.count)(&self.service);
        count.set(count.get() - 1);
        if let Some(waker) = self.service.waits_for_end.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Accepts clients until the listener breaks; says how.
async fn accept_all<F>(
    listener: Source<TcpListener>,
    service: Rc<Service>,
    frames: Rc<Frames<exchange::Call, F>>,
    executor: Rc<LocalExecutor<'static>>,
) -> ServeError
where
    F: Future<Output = exchange::Done> + 'static,
{
    let mut accepted = 0u32;
    loop {
        let stream = match listen::accept(&listener).await {
            Ok(stream) => stream,
            Err(error) => return ServeError::Accept(error),
        };
        // Clients that come in crowds must not keep those who are there from their turn.
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(TURN_CLIENTS) {
            reactor::next_turn().await;
        }
        if service.connections() >= service.connections_max {
            if service.turned_away.get() < TURNED_AWAY_MAX {
                let connected = Connected::new(&service, |service| &service.turned_away);
                let told = async move { exchange::turn_away(stream, &connected.service).await };
                executor
                    .spawn(AssertUnwindSafe(told).catch_unwind())
                    .detach();
            }
            continue;
        }
        let connected = Connected::new(&service, |service| &service.connections);
        let served = exchange::serve(stream, connected, Rc::clone(&frames));
        // After a panic its descriptors are closed and its buffers gone; what the others share is counters and pools.
        executor
            .spawn(AssertUnwindSafe(served).catch_unwind())
            .detach();
    }
}

/// Whether the target is one of the addresses listened on.
fn leads_back(target: &Target, addresses: &[SocketAddr]) -> bool {
    let Place::Tcp(host, port) = target.place() else {
        return false;
    };
    let is_this_machine = match host.parse::<IpAddr>() {
        Ok(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || addresses.iter().any(|address| address.ip() == ip)
        }
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    is_this_machine && addresses.iter().any(|address| address.port() == *port)
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
fn affordable(descriptors: u64) -> usize {
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS);
    usize::try_from(left / 5 * 2).unwrap_or(usize::MAX).max(1)
}

/// Up to here a limit is lowered where descriptors are few. It is the default of `--max-connections`.
const CONNECTIONS_USUAL: usize = 1024;

/// Standard streams, listeners, readiness, signals, a name being resolved, and some pipes.
const OWN_DESCRIPTORS: u64 = 24;

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

/// After this many clients of one listener, the others have their turn.
const TURN_CLIENTS: u32 = 64;

/// How many connections above the limit are told so; the rest are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
