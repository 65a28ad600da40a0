//! Readiness through epoll(7), edge-triggered: one epoll descriptor for each thread.
//!
//! A socket is added once, for all events. An event reports a change; what was known before stays true until a call finds
//! otherwise. So a request that comes in one piece costs one `read`, and waiting for the next one costs the `epoll_wait` that
//! waits for all sockets.
//!
//! A read that returns less than was asked for has emptied the socket: what arrives later is a new event. Except at the end of
//! the stream, whose event may have come before the read; it is remembered.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use slab::Slab;

/// The system calls that a sandbox must allow.
pub const NEEDS: &str = "epoll_create1(2), epoll_ctl(2), epoll_pwait(2) and eventfd2(2)";

/// A registered socket; by default a stream.
#[derive(Debug)]
pub struct Source<S: AsFd = OwnedFd> {
    // Closed first, which removes it from the epoll set unless another descriptor of the same socket is open.
    socket: S,
    registration: Registration,
}

impl<S: AsFd> Source<S> {
    /// Registers a socket and makes it non-blocking. It counts as readable and writable until a call finds otherwise.
    pub fn new(socket: S) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Self::registered(socket, STREAM, Readiness::UNKNOWN)
    }

    /// Registers a listening socket, level-triggered: each turn reports it as long as clients are waiting. So each turn accepts one
    /// client, no call to accept fails, and the connected clients have a turn between two new ones.
    pub fn listening(socket: S) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Self::registered(socket, LISTENER, Readiness::NONE)
    }

    /// Turns reports of a listening socket on or off. One that cannot accept for now would be reported in every turn.
    pub fn set_polled(&self, is_polled: bool) -> io::Result<()> {
        let interest = if is_polled {
            LISTENER
        } else {
            EventFlags::empty()
        };
        self.registration.change(&self.socket, interest)
    }

    fn registered(socket: S, interest: EventFlags, readiness: Readiness) -> io::Result<Self> {
        let registration = Reactor::current()?.register(&socket, interest, readiness)?;
        Ok(Source {
            socket,
            registration,
        })
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    /// Ready if a read may return something; else `context` is woken when it may.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registration.with(|entry| {
            if entry.readiness.readable {
                return Poll::Ready(Ok(()));
            }
            wait(&mut entry.reader, context.waker());
            Poll::Pending
        })
    }

    /// Ready if a write may take something; else `context` is woken when it may.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registration.with(|entry| {
            if entry.readiness.writable {
                return Poll::Ready(Ok(()));
            }
            wait(&mut entry.writer, context.waker());
            Poll::Pending
        })
    }

    /// Whether the peer is known to have ended its side, or the connection to have failed. There may be unread bytes before that.
    pub fn has_ended(&self) -> bool {
        self.registration.with(|entry| entry.readiness.ended)
    }

    /// Reports that a read would have blocked.
    pub fn read_blocked(&self) {
        self.registration
            .with(|entry| entry.readiness.readable = false);
    }

    /// Reports that a read has emptied the socket.
    pub fn read_emptied(&self) {
        self.registration
            .with(|entry| entry.readiness.readable = entry.readiness.ended);
    }

    /// Reports that a write would have blocked.
    pub fn write_blocked(&self) {
        self.registration
            .with(|entry| entry.readiness.writable = false);
    }

    /// Whether nothing has arrived since a read found the socket empty, as of the last turn; `None` if only a read can tell.
    pub fn is_quiet(&self) -> Option<bool> {
        self.registration.with(|entry| match entry.readiness {
            Readiness { ended: true, .. } => Some(false),
            Readiness { readable: true, .. } => None,
            _ => Some(true),
        })
    }

    /// Wakes `waker` when something arrives, unless another task waits for that later.
    pub fn watch(&self, waker: &Waker) {
        self.registration
            .with(|entry| wait(&mut entry.reader, waker));
    }
}

impl<S: AsFd> Drop for Source<S> {
    fn drop(&mut self) {
        // epoll(7), Q6: a socket stays in the set until all its descriptors are closed, and a supervisor keeps one of a listener
        // that it has passed. Then each waiting client would be reported in every turn.
        if self.registration.with(|entry| entry.is_listening) {
            let _ = epoll::delete(&self.registration.reactor.epoll, &self.socket);
        }
    }
}

/// Accepts a connection, if one is waiting. Its request is read in the next turn, and not before: that turn also reports which
/// kept connections the target closed before the client sent the request.
pub fn accept(listener: &Source<impl AsFd>) -> io::Result<Source> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::accept_with(listener.get_ref(), flags)?;
    listener.read_blocked();
    Source::registered(socket, STREAM, Readiness::NEW)
}

/// Connects to a TCP address.
pub async fn connect_tcp(address: SocketAddr) -> io::Result<Source> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    // Not earlier: epoll reports a socket that is not yet connecting as hung up.
    let source = Source::registered(socket, STREAM, Readiness::NONE)?;
    poll_fn(|context| source.poll_writable(context)).await?;
    sockopt::socket_error(source.get_ref())??;
    Ok(source)
}

/// Connects to a Unix domain socket.
pub async fn connect_unix(path: &Path) -> io::Result<Source> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            // unix(7): the listener's backlog is full; no event reports when there is room.
            Err(Errno::AGAIN) => Timer::at(Instant::now() + FULL_BACKLOG_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    Source::registered(socket, STREAM, Readiness::NEW)
}

/// A future that is ready at a time.
#[derive(Debug)]
pub struct Timer {
    at: Instant,
    set: Option<(Rc<Reactor>, usize)>,
}

impl Timer {
    /// Ready at `at`.
    pub fn at(at: Instant) -> Self {
        Timer { at, set: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.at <= now() {
            return Poll::Ready(());
        }
        match &self.set {
            Some((reactor, key)) => reactor.timers.borrow_mut()[*key]
                .1
                .clone_from(context.waker()),
            None => {
                // A thread without a reactor has nothing that could be waited for.
                let Ok(reactor) = Reactor::current() else {
                    return Poll::Ready(());
                };
                let waker = context.waker().clone();
                let key = reactor.timers.borrow_mut().insert((self.at, waker));
                self.set = Some((reactor, key));
            }
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((reactor, key)) = &self.set {
            reactor.timers.borrow_mut().remove(*key);
        }
    }
}

/// Lets the other tasks run: sockets are polled, and tasks that waited for one run first.
pub async fn next_turn() {
    let mut waits = true;
    poll_fn(|context| match Reactor::current() {
        Ok(reactor) if std::mem::take(&mut waits) => {
            reactor.yielded.borrow_mut().push(context.waker().clone());
            Poll::Pending
        }
        _ => Poll::Ready(()),
    })
    .await;
}

/// The time at which this turn began: precise enough for limits and ages, of which each request takes several.
pub fn now() -> Instant {
    TURN_BEGAN.get().unwrap_or_else(Instant::now)
}

/// Runs `future` on this thread to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let reactor = Reactor::current()?;
    let alarm = Arc::new(Alarm {
        state: AtomicU8::new(AWAKE),
        event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
    });
    let _registration = reactor.register(&alarm.event, ALARM, Readiness::NONE)?;
    let waker = Waker::from(Arc::clone(&alarm));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let result = loop {
        alarm.state.store(AWAKE, Ordering::Release);
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            break Ok(result);
        }
        if let Err(error) = reactor.turn(&alarm, &mut events) {
            break Err(error);
        }
    };
    // Between turns `now` reads the clock.
    TURN_BEGAN.set(None);
    result
}

/// Wakes the thread, also from another one.
struct Alarm {
    state: AtomicU8,
    /// Written only while the thread sleeps: a thread that wakes itself needs no system call.
    event: OwnedFd,
}

/// The thread runs, and sleeps next.
const AWAKE: u8 = 0;
/// The thread runs, and must not sleep next.
const WOKEN: u8 = 1;
/// The thread sleeps, or is about to.
const ASLEEP: u8 = 2;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Fails only if the counter is full, and then the event is pending.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

impl Alarm {
    /// Whether the thread may sleep.
    fn fall_asleep(&self) -> bool {
        self.state
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// The sockets and timers of one thread.
#[derive(Debug)]
struct Reactor {
    epoll: OwnedFd,
    entries: RefCell<Slab<Entry>>,
    /// Numbers entries: an event may be about a socket that was closed earlier in the same turn.
    generation: Cell<u32>,
    timers: RefCell<Slab<(Instant, Waker)>>,
    /// Tasks that have let the others run first.
    yielded: RefCell<Vec<Waker>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
    static TURN_BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

impl Reactor {
    fn current() -> io::Result<Rc<Reactor>> {
        CURRENT.with_borrow_mut(|current| {
            if let Some(reactor) = current {
                return Ok(Rc::clone(reactor));
            }
            let reactor = Rc::new(Reactor {
                epoll: epoll::create(CreateFlags::CLOEXEC)?,
                entries: RefCell::default(),
                generation: Cell::new(0),
                timers: RefCell::default(),
                yielded: RefCell::default(),
            });
            *current = Some(Rc::clone(&reactor));
            Ok(reactor)
        })
    }

    fn register(
        self: &Rc<Self>,
        socket: impl AsFd,
        interest: EventFlags,
        readiness: Readiness,
    ) -> io::Result<Registration> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let key = self.entries.borrow_mut().insert(Entry {
            generation,
            is_listening: interest == LISTENER,
            readiness,
            reader: None,
            writer: None,
        });
        // Its drop removes the entry if the kernel refuses the socket.
        let registration = Registration {
            reactor: Rc::clone(self),
            key,
        };
        epoll::add(&self.epoll, socket, token(generation, key), interest)?;
        Ok(registration)
    }

    /// Waits until something happens, and wakes the tasks that wait for it.
    fn turn(&self, alarm: &Alarm, events: &mut Vec<Event>) -> io::Result<()> {
        let may_sleep = self.yielded.borrow().is_empty() && alarm.fall_asleep();
        events.clear();
        let timeout = if may_sleep {
            // From now, not from the start of the turn: the thread would oversleep by what the turn took.
            self.next_timer()
                .map(|at| at.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        let room = rustix::buffer::spare_capacity(events);
        let waited = epoll::wait(&self.epoll, room, timeout.map(whole_millis).as_ref());
        // This may overwrite a wake-up by another thread. That is harmless: a turn is always followed by a poll of the future.
        alarm.state.store(AWAKE, Ordering::Release);
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        TURN_BEGAN.set(Some(Instant::now()));
        for &Event { flags, data } in events.iter() {
            self.dispatch(flags, data.u64());
        }
        self.wake_expired_timers();
        for waker in self.yielded.take() {
            waker.wake();
        }
        Ok(())
    }

    fn dispatch(&self, flags: EventFlags, token: u64) {
        let (generation, key) = ((token >> 32) as u32, (token & u64::from(u32::MAX)) as usize);
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries
            .get_mut(key)
            .filter(|entry| entry.generation == generation)
        else {
            return;
        };
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let readable = ended || flags.contains(EventFlags::IN);
        let writable = flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
        entry.readiness.ended |= ended;
        entry.readiness.readable |= readable;
        entry.readiness.writable |= writable;
        let reader = entry.reader.take_if(|_| readable);
        let writer = entry.writer.take_if(|_| writable);
        // Dropping a waker may drop the last reference to a task, which may close sockets.
        drop(entries);
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let timers = self.timers.borrow();
        timers.iter().map(|(_, (at, _))| *at).min()
    }

    fn wake_expired_timers(&self) {
        let now = now();
        for (_, (at, waker)) in self.timers.borrow().iter() {
            if *at <= now {
                // The timer is removed when its future is dropped.
                waker.wake_by_ref();
            }
        }
    }
}

/// What is known of a socket, and which tasks wait for it.
#[derive(Debug)]
struct Entry {
    generation: u32,
    is_listening: bool,
    readiness: Readiness,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What is known of a socket.
#[derive(Debug, Clone, Copy)]
struct Readiness {
    readable: bool,
    writable: bool,
    /// The peer has closed its side, or the connection has failed.
    ended: bool,
}

impl Readiness {
    /// Of a socket that is not connected yet.
    const NONE: Readiness = Readiness {
        readable: false,
        writable: false,
        ended: false,
    };
    /// Of a socket that was just connected: what it receives is reported.
    const NEW: Readiness = Readiness {
        writable: true,
        ..Readiness::NONE
    };
    /// Of any other socket: a call finds out.
    const UNKNOWN: Readiness = Readiness {
        readable: true,
        ..Readiness::NEW
    };
}

/// An entry of the reactor, removed when this is dropped.
#[derive(Debug)]
struct Registration {
    reactor: Rc<Reactor>,
    key: usize,
}

impl Registration {
    fn change(&self, socket: impl AsFd, interest: EventFlags) -> io::Result<()> {
        let token = token(self.with(|entry| entry.generation), self.key);
        Ok(epoll::modify(&self.reactor.epoll, socket, token, interest)?)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Entry) -> T) -> T {
        look(&mut self.reactor.entries.borrow_mut()[self.key])
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.reactor.entries.borrow_mut().remove(self.key);
        // After the borrow: see `dispatch`.
        drop(entry);
    }
}

fn token(generation: u32, key: usize) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | key as u64)
}

fn wait(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(present) => present.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

/// epoll counts milliseconds. Rounded up, or the last one would be spent in turns that find nothing.
fn whole_millis(time: Duration) -> Timespec {
    let millis = i64::from(time.subsec_nanos().div_ceil(1_000_000));
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: seconds.min(SLEEP_SECONDS_MAX) + millis / 1000,
        tv_nsec: millis % 1000 * 1_000_000,
    }
}

const STREAM: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Level-triggered.
const LISTENER: EventFlags = EventFlags::IN;

/// Never read: each write is an event, and the counter overflows in centuries.
const ALARM: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// Events of one turn; more come in the next.
const EVENTS_MAX: usize = 256;

/// In the milliseconds that epoll counts, this fits into 31 bits.
const SLEEP_SECONDS_MAX: i64 = 1_000_000;

const FULL_BACKLOG_PAUSE: Duration = Duration::from_millis(5);
