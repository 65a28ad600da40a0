//! A network and a clock that obey a seed.
//!
//! What is written arrives in pieces and later, each connection at its own pace; windows are small, connecting may fail, and
//! time jumps to the next thing that happens. Readiness is reported as the reactor does in production: once, when something
//! changes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use smol::LocalExecutor;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Network>>> = const { RefCell::new(None) };
}

/// The network that this thread is in.
pub fn current() -> Option<Rc<Network>> {
    CURRENT.with_borrow(Option::clone)
}

/// Numbers that follow from a seed (splitmix64).
#[derive(Debug)]
pub struct Rng(Cell<u64>);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(Cell::new(seed))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `times`.
    pub fn once_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn one_of<T: Clone>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    /// At most `most`, small ones more often.
    pub fn time(&self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below((micros >> self.below(12)) + 1))
    }
}

/// How a network behaves.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The longest time that a piece is on its way.
    pub latency: Duration,
    /// How many bytes may be on their way in one direction of a connection.
    pub window: usize,
    /// How often a socket cannot be had because there are no descriptors: once in so many times; 0: never.
    pub lacks_descriptors: u64,
    /// Readiness as the portable reactor reports it: what is there now, and not what has changed.
    pub is_level_triggered: bool,
    /// A reset discards what has arrived and was not read.
    pub reset_discards: bool,
}

/// What becomes of connections to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Refused,
    Unreachable,
    /// Nothing answers.
    Silent,
}

/// A simulated network.
#[derive(Debug)]
pub struct Network {
    pub rng: Rng,
    conditions: Conditions,
    /// The tasks of clients and origins.
    peers: RefCell<Option<Rc<LocalExecutor<'static>>>>,
    base: Instant,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since the start.
    now: Duration,
    last_key: u64,
    events: BTreeMap<(Duration, u64), Event>,
    ends: BTreeMap<u64, End>,
    listeners: BTreeMap<SocketAddr, u64>,
    /// What becomes of connections to addresses other than those of listeners.
    reach: BTreeMap<SocketAddr, Reach>,
    hosts: BTreeMap<String, Vec<SocketAddr>>,
    waiting: BTreeMap<u64, Waiting>,
    yielded: Vec<Waker>,
}

/// What happens at a time.
#[derive(Debug)]
enum Event {
    Data(u64, Vec<u8>),
    Fin(u64),
    Reset(u64),
    /// The peer has read so many bytes.
    Room(u64, usize),
    /// There is something to accept, or something had arrived before this.
    Report(u64),
    /// A wait is over: a timer, a lookup, an attempt to connect.
    Wake(u64),
}

/// A wait, and the task that waits.
#[derive(Debug, Default)]
struct Waiting {
    is_over: bool,
    waker: Option<Waker>,
    event: (Duration, u64),
}

/// One end of a connection, or a listener.
#[derive(Debug)]
struct End {
    local: SocketAddr,
    /// The other end, and its address.
    peer: Option<(u64, SocketAddr)>,
    /// Of a listener.
    backlog: VecDeque<u64>,
    arrived: VecDeque<u8>,
    has_fin: bool,
    is_reset: bool,
    /// A reset that no call has reported yet.
    has_error: bool,
    has_sent_fin: bool,
    resets_when_closed: bool,
    /// Sent and not yet read by the peer.
    unread: usize,
    /// When what was sent last arrives.
    last_arrival: Duration,
    readable: bool,
    writable: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl End {
    fn new(local: SocketAddr, peer: Option<(u64, SocketAddr)>) -> Self {
        End {
            local,
            peer,
            backlog: VecDeque::new(),
            arrived: VecDeque::new(),
            has_fin: false,
            is_reset: false,
            has_error: false,
            has_sent_fin: false,
            resets_when_closed: false,
            unread: 0,
            last_arrival: Duration::ZERO,
            readable: false,
            writable: true,
            reader: None,
            writer: None,
        }
    }

    fn has_ended(&self) -> bool {
        self.has_fin || self.is_reset
    }

    fn has_something(&self) -> bool {
        !self.arrived.is_empty() || !self.backlog.is_empty() || self.has_ended()
    }
}

impl State {
    fn key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    fn schedule(&mut self, at: Duration, event: Event) -> (Duration, u64) {
        let key = (at.max(self.now), self.key());
        self.events.insert(key, event);
        key
    }

    /// Lets `event` reach the other end of `from` behind what was sent before.
    fn send(&mut self, from: u64, latency: Duration, event: impl FnOnce(u64) -> Event) {
        let at = self.now + latency;
        let Some(end) = self.ends.get_mut(&from) else {
            return;
        };
        let Some((peer, _)) = end.peer else { return };
        end.last_arrival = end.last_arrival.max(at);
        let at = end.last_arrival;
        self.schedule(at, event(peer));
    }

    fn set_readable(&mut self, key: u64) -> Option<Waker> {
        let end = self.ends.get_mut(&key)?;
        end.readable = true;
        end.reader.take()
    }

    fn reset_sender_to(&mut self, to: u64) {
        let is_sender = |end: &End| end.peer.is_some_and(|(peer, _)| peer == to);
        let mut sender = self.ends.iter().filter(|(_, end)| is_sender(end));
        if let Some((&sender, _)) = sender.next() {
            self.schedule(self.now, Event::Reset(sender));
        }
    }

    /// Lets `event` happen; returns the tasks to wake.
    fn happen(&mut self, event: Event, conditions: &Conditions) -> Vec<Waker> {
        let mut wakers = Vec::new();
        match event {
            Event::Data(to, bytes) => match self.ends.get_mut(&to) {
                Some(end) if !end.is_reset => {
                    end.arrived.extend(bytes);
                    wakers.extend(self.set_readable(to));
                }
                Some(_) => {}
                // No socket is left to read it: the sender gets a reset.
                None => self.reset_sender_to(to),
            },
            Event::Fin(to) => {
                if let Some(end) = self.ends.get_mut(&to).filter(|end| !end.is_reset) {
                    end.has_fin = true;
                    wakers.extend(self.set_readable(to));
                }
            }
            Event::Reset(to) => {
                if let Some(end) = self.ends.get_mut(&to).filter(|end| !end.is_reset) {
                    end.is_reset = true;
                    end.has_error = true;
                    if conditions.reset_discards {
                        end.arrived.clear();
                    }
                    end.writable = true;
                    wakers.extend(end.writer.take());
                    wakers.extend(self.set_readable(to));
                }
            }
            Event::Room(to, count) => {
                if let Some(end) = self.ends.get_mut(&to) {
                    end.unread -= count;
                    // tcp(7): reported when a third is free.
                    if !end.writable && end.unread <= conditions.window * 2 / 3 {
                        end.writable = true;
                        wakers.extend(end.writer.take());
                    }
                }
            }
            Event::Report(to) => {
                if self.ends.get(&to).is_some_and(End::has_something) {
                    wakers.extend(self.set_readable(to));
                }
            }
            Event::Wake(key) => {
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.is_over = true;
                    wakers.extend(waiting.waker.take());
                }
            }
        }
        wakers
    }
}

impl Network {
    pub fn new(rng: Rng, conditions: Conditions) -> Rc<Network> {
        Rc::new(Network {
            rng,
            conditions,
            peers: RefCell::new(Some(Rc::default())),
            base: Instant::now(),
            state: RefCell::default(),
        })
    }

    /// Puts this thread into the network, until the result is dropped.
    pub fn enter(self: &Rc<Self>) -> Entered {
        CURRENT.set(Some(Rc::clone(self)));
        Entered(Rc::clone(self))
    }

    pub fn now(&self) -> Instant {
        self.base + self.elapsed()
    }

    pub fn elapsed(&self) -> Duration {
        self.state.borrow().now
    }

    pub fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) + self.elapsed()
    }

    /// Runs a client or an origin.
    pub fn spawn(&self, peer: impl Future<Output = ()> + 'static) {
        if let Some(peers) = &*self.peers.borrow() {
            peers.spawn(peer).detach();
        }
    }

    pub fn set_host(&self, name: &str, addresses: Vec<SocketAddr>) {
        self.state
            .borrow_mut()
            .hosts
            .insert(name.to_owned(), addresses);
    }

    pub fn set_reach(&self, address: SocketAddr, reach: Reach) {
        self.state.borrow_mut().reach.insert(address, reach);
    }

    /// Listens on `address`.
    pub fn listen(self: &Rc<Self>, address: SocketAddr) -> Socket {
        let mut state = self.state.borrow_mut();
        let key = state.key();
        state.ends.insert(key, End::new(address, None));
        state.listeners.insert(address, key);
        drop(state);
        self.socket(key)
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.state.borrow().ends.len()
    }

    fn socket(self: &Rc<Self>, key: u64) -> Socket {
        Socket {
            network: Rc::downgrade(self),
            key,
        }
    }

    fn latency(&self) -> Duration {
        self.rng.time(self.conditions.latency)
    }

    fn lacks_descriptors(&self) -> bool {
        match self.conditions.lacks_descriptors {
            0 => false,
            times => self.rng.once_in(times),
        }
    }

    pub async fn sleep(self: &Rc<Self>, time: Duration) {
        self.timer(self.now() + time).await;
    }

    pub fn timer(self: &Rc<Self>, at: Instant) -> Timer {
        let mut state = self.state.borrow_mut();
        let key = state.key();
        let at = at.saturating_duration_since(self.base);
        let event = state.schedule(at, Event::Wake(key));
        let is_over = at <= state.now;
        let waiting = Waiting {
            is_over,
            waker: None,
            event,
        };
        state.waiting.insert(key, waiting);
        Timer {
            network: Rc::downgrade(self),
            key,
        }
    }

    pub async fn resolve(self: &Rc<Self>, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.sleep(self.latency()).await;
        let state = self.state.borrow();
        let addresses = state.hosts.get(host).cloned().unwrap_or_default();
        if addresses.is_empty() {
            return Err(io::Error::other("no such host"));
        }
        let with_port = |mut address: SocketAddr| {
            address.set_port(port);
            address
        };
        Ok(addresses.into_iter().map(with_port).collect())
    }

    /// Connects, unless there are no descriptors.
    pub async fn connect(self: &Rc<Self>, address: SocketAddr) -> io::Result<Socket> {
        match self.lacks_descriptors() {
            true => Err(Errno::MFILE.into()),
            false => self.dial(address).await,
        }
    }

    /// Connects.
    pub async fn dial(self: &Rc<Self>, address: SocketAddr) -> io::Result<Socket> {
        self.sleep(self.latency()).await;
        let reach = self.state.borrow().reach.get(&address).copied();
        match reach {
            Some(Reach::Silent) => std::future::pending().await,
            Some(Reach::Unreachable) => return Err(Errno::HOSTUNREACH.into()),
            Some(Reach::Refused) => return Err(Errno::CONNREFUSED.into()),
            None => {}
        }
        let mut state = self.state.borrow_mut();
        let Some(&listener) = state.listeners.get(&address) else {
            return Err(Errno::CONNREFUSED.into());
        };
        let (near, far) = (state.key(), state.key());
        let from = SocketAddr::from(([127, 0, 0, 1], 32768 + (near % 16384) as u16));
        state
            .ends
            .insert(near, End::new(from, Some((far, address))));
        state
            .ends
            .insert(far, End::new(address, Some((near, from))));
        if let Some(listener) = state.ends.get_mut(&listener) {
            listener.backlog.push_back(far);
        }
        let at = state.now + self.latency();
        state.schedule(at, Event::Report(listener));
        drop(state);
        Ok(self.socket(near))
    }

    pub async fn next_turn(self: &Rc<Self>) {
        let mut waits = true;
        poll_fn(|context| {
            if !std::mem::take(&mut waits) {
                return Poll::Ready(());
            }
            self.state
                .borrow_mut()
                .yielded
                .push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs `future`, and the peers, until it ends. Fails if it never would, or does not let time pass.
    pub fn block_on<T>(network: &Rc<Network>, future: impl Future<Output = T>) -> io::Result<T> {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        let mut turns_at_once = 0u32;
        loop {
            woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return Ok(result);
            }
            let peers = network.peers.borrow().clone();
            while peers.as_ref().is_some_and(|peers| peers.try_tick()) {}
            let mut state = network.state.borrow_mut();
            let yielded = std::mem::take(&mut state.yielded);
            let is_idle = yielded.is_empty() && !woken.0.load(Ordering::Relaxed);
            let next = state.events.first_key_value().map(|((at, _), _)| *at);
            match next {
                Some(at) if is_idle && at > state.now => {
                    state.now = at;
                    turns_at_once = 0;
                }
                None if is_idle => {
                    return Err(io::Error::other("everything waits for ever"));
                }
                _ => turns_at_once += 1,
            }
            if turns_at_once > TURNS_AT_ONCE_MAX {
                return Err(io::Error::other("it runs for ever while no time passes"));
            }
            let mut wakers = yielded;
            let mut woken_now = Vec::new();
            while let Some((at, event)) = state.events.pop_first() {
                if at.0 > state.now {
                    state.events.insert(at, event);
                    break;
                }
                woken_now.extend(state.happen(event, &network.conditions));
            }
            // Tasks that let others run first come last.
            wakers.splice(0..0, woken_now);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// This thread is in a network.
pub struct Entered(Rc<Network>);

impl Drop for Entered {
    fn drop(&mut self) {
        // The peers hold the network.
        let peers = self.0.peers.take();
        drop(peers);
        CURRENT.set(None);
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that is ready at a time.
#[derive(Debug)]
pub struct Timer {
    network: Weak<Network>,
    key: u64,
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(network) = self.network.upgrade() else {
            return Poll::Pending;
        };
        let mut state = network.state.borrow_mut();
        match state.waiting.get_mut(&self.key) {
            Some(waiting) if !waiting.is_over => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(network) = self.network.upgrade() else {
            return;
        };
        let waiting = {
            let mut state = network.state.borrow_mut();
            let waiting = state.waiting.remove(&self.key);
            if let Some(waiting) = &waiting {
                state.events.remove(&waiting.event);
            }
            waiting
        };
        // Its waker may hold the last reference to a task.
        drop(waiting);
    }
}

/// One end of a connection, or a listener. Dropping it closes it.
#[derive(Debug)]
pub struct Socket {
    network: Weak<Network>,
    key: u64,
}

impl Socket {
    fn with<T>(&self, look: impl FnOnce(&Rc<Network>, &mut State) -> T) -> T {
        let network = self.network.upgrade().expect("the network is there");
        let mut state = network.state.borrow_mut();
        look(&network, &mut state)
    }

    fn end<T>(&self, look: impl FnOnce(&mut End) -> T) -> T {
        self.with(|_, state| look(state.ends.get_mut(&self.key).expect("it is open")))
    }

    fn is_level_triggered(&self) -> bool {
        self.with(|network, _| network.conditions.is_level_triggered)
    }

    pub fn set_polled(&self, is_polled: bool) -> io::Result<()> {
        if is_polled {
            self.with(|_, state| state.schedule(state.now, Event::Report(self.key)));
        }
        Ok(())
    }

    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_level_triggered = self.is_level_triggered();
        self.end(|end| {
            if end.readable || (is_level_triggered && end.has_something()) {
                return Poll::Ready(Ok(()));
            }
            end.reader = Some(context.waker().clone());
            Poll::Pending
        })
    }

    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end(|end| {
            if end.writable {
                return Poll::Ready(Ok(()));
            }
            end.writer = Some(context.waker().clone());
            Poll::Pending
        })
    }

    pub fn has_ended(&self) -> bool {
        !self.is_level_triggered() && self.end(|end| end.has_ended())
    }

    pub fn read_blocked(&self) {
        self.end(|end| end.readable = false);
    }

    pub fn write_blocked(&self) {
        self.end(|end| end.writable = false);
    }

    pub fn is_quiet(&self) -> Option<bool> {
        let is_level_triggered = self.is_level_triggered();
        self.end(|end| match end.has_ended() {
            _ if is_level_triggered => None,
            true => Some(false),
            false if end.readable => None,
            false => Some(true),
        })
    }

    pub fn watch(&self, waker: &Waker) {
        if !self.is_level_triggered() {
            self.end(|end| end.reader = Some(waker.clone()));
        }
    }

    pub fn local_address(&self) -> Option<SocketAddr> {
        self.end(|end| Some(end.local))
    }

    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.end(|end| end.peer.map(|(_, address)| address))
    }

    pub fn is_reset(&self) -> bool {
        self.end(|end| end.is_reset)
    }

    pub fn end_writing(&self) -> io::Result<()> {
        self.with(|network, state| {
            let end = state.ends.get_mut(&self.key).expect("it is open");
            if end.is_reset {
                return Err(Errno::NOTCONN.into());
            }
            if !std::mem::replace(&mut end.has_sent_fin, true) {
                state.send(self.key, network.latency(), Event::Fin);
            }
            Ok(())
        })
    }

    pub fn reset_when_closed(&self) {
        self.end(|end| end.resets_when_closed = true);
    }

    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.with(|network, state| {
            let end = state.ends.get_mut(&self.key).expect("it is open");
            if end.arrived.is_empty() {
                if std::mem::take(&mut end.has_error) {
                    return Err(Errno::CONNRESET.into());
                }
                if end.has_ended() {
                    return Ok(0);
                }
                end.readable = false;
                return Err(Errno::AGAIN.into());
            }
            let count = end.arrived.len().min(into.len());
            let (first, second) = end.arrived.as_slices();
            let split = first.len().min(count);
            into[..split].copy_from_slice(&first[..split]);
            into[split..count].copy_from_slice(&second[..count - split]);
            end.arrived.drain(..count);
            if count < into.len() {
                end.readable = end.has_ended();
            }
            let peer = end.peer.map(|(peer, _)| peer);
            if let Some(peer) = peer {
                let at = state.now + network.latency();
                state.schedule(at, Event::Room(peer, count));
            }
            Ok(count)
        })
    }

    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|network, state| {
            let end = state.ends.get_mut(&self.key).expect("it is open");
            if std::mem::take(&mut end.has_error) {
                return Err(Errno::CONNRESET.into());
            }
            if end.is_reset || end.has_sent_fin {
                return Err(Errno::PIPE.into());
            }
            let room = network.conditions.window.saturating_sub(end.unread);
            let mut count = bytes.len().min(room);
            if count == 0 {
                end.writable = false;
                return if bytes.is_empty() {
                    Ok(0)
                } else {
                    Err(Errno::AGAIN.into())
                };
            }
            if network.rng.once_in(4) {
                count = 1 + network.rng.below(count as u64) as usize;
            }
            end.unread += count;
            let mut rest = &bytes[..count];
            while !rest.is_empty() {
                let piece = match network.rng.once_in(3) {
                    true => 1 + network.rng.below(rest.len() as u64) as usize,
                    false => rest.len(),
                };
                let (first, others) = rest.split_at(piece);
                state.send(self.key, network.latency(), |to| {
                    Event::Data(to, first.to_vec())
                });
                rest = others;
            }
            Ok(count)
        })
    }

    pub fn accept(&self) -> io::Result<Socket> {
        self.with(|network, state| {
            let end = state.ends.get_mut(&self.key).expect("it is open");
            if end.backlog.is_empty() {
                end.readable = false;
                return Err(Errno::AGAIN.into());
            }
            if network.lacks_descriptors() {
                return Err(Errno::MFILE.into());
            }
            let key = end.backlog.pop_front().expect("it is not empty");
            // One in each turn.
            end.readable = false;
            state.schedule(state.now, Event::Report(self.key));
            // What had arrived before is reported in the next turn.
            if let Some(accepted) = state.ends.get_mut(&key) {
                accepted.readable = false;
            }
            state.schedule(state.now, Event::Report(key));
            Ok(network.socket(key))
        })
    }

    /// Accepts the next connection, of a peer of the program under test.
    pub async fn accepted(&self) -> Socket {
        loop {
            if let Ok(socket) = self.accept() {
                return socket;
            }
            self.read_blocked();
            self.with(|_, state| {
                let has_backlog = state.ends.get(&self.key).is_some_and(End::has_something);
                // There were no descriptors, which a peer does not lack for long.
                if has_backlog {
                    state.schedule(
                        state.now + Duration::from_millis(1),
                        Event::Report(self.key),
                    );
                }
            });
            let _ = poll_fn(|context| self.poll_readable(context)).await;
        }
    }

    /// Reads what there is; nothing at the end.
    pub async fn some(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            poll_fn(|context| self.poll_readable(context)).await?;
            match self.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    bytes.truncate(result?);
                    return Ok(bytes);
                }
            }
        }
    }

    /// Writes all of `bytes`.
    pub async fn all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| self.poll_writable(context)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(network) = self.network.upgrade() else {
            return;
        };
        let latency = network.latency();
        let mut state = network.state.borrow_mut();
        let Some(end) = state.ends.get(&self.key) else {
            return;
        };
        let (now, peer) = (state.now, end.peer);
        let backlog = end.backlog.clone();
        if !end.is_reset
            && let Some((peer, _)) = peer
        {
            if end.resets_when_closed {
                // Overtakes what is on its way.
                state.schedule(now + latency, Event::Reset(peer));
            } else if !end.arrived.is_empty() {
                state.send(self.key, latency, Event::Reset);
            } else if !end.has_sent_fin {
                state.send(self.key, latency, Event::Fin);
            }
        }
        let end = state.ends.remove(&self.key);
        state.listeners.retain(|_, key| *key != self.key);
        drop(state);
        // The wakers may hold the last references to tasks.
        drop(end);
        for key in backlog {
            let socket = network.socket(key);
            socket.reset_when_closed();
        }
    }
}

/// More turns than any exchange needs at a time.
const TURNS_AT_ONCE_MAX: u32 = 10_000;
