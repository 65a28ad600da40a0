//! Many interceptors in one process: ports come, change and go while it runs.
//!
//! Decided here: when a port is listened on. One that another program holds is tried again every [`RETRY`]; one that another
//! process has asked for is left to it until that process disconnects. Which ports there are is decided by the caller, in batches
//! of changes from another thread. While nothing changes and no port is held, nothing runs.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::{self, Receiver, Sender};
use smol::{Task, future};

use super::clients::accept_all;
use super::descriptors;
use super::event::{AllEvent, ServeError};
use super::feed::{InstanceInfo, PendingLease, Publisher};
use super::listen::{self, Address, Listen};
use super::metrics::Metrics;
use super::options::{Options, SiteOptions, UpstreamOptions};
use super::process::{self, Process};
use super::reactor::{self, Source, Timer};
use super::signals::Signals;
use super::site::Site;
use super::upstream::Upstream;

/// A change of what is served.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "many are in one allocation, which goes back to the system; boxes would leave holes among what stays"
)]
pub enum Change {
    /// Serve this on its port. What is served there already is replaced: its requests in flight finish, its idle clients are
    /// disconnected, and the port is listened on all the time.
    Put(SiteOptions),
    /// Do not serve this port any more. Its requests in flight finish, its idle clients are disconnected.
    Remove(u16),
}

/// Serves many ports until a signal stops it. `batches` says which; all addresses of a site have the same port. What is served
/// stays when its sender is dropped. Calls `tell` with what happens.
pub fn run_all<'a>(
    mut options: Options,
    batches: Receiver<Vec<Change>>,
    tell: &'a mut (dyn FnMut(AllEvent<'_>) + 'a),
) -> Result<(), ServeError> {
    let descriptors = descriptors::raise_limit();
    let feed = options.feed.take();
    let connections_max = options.connections_max;
    process::run(&options, async move |process: Process<'a>, signals| {
        let (inputs, received) = channel::unbounded();
        let ports = Rc::new(Ports::default());
        let publisher = Rc::new(AllPorts {
            ports: Rc::clone(&ports),
            inputs: inputs.clone(),
        });
        let feed = process.open_feed(feed.as_deref(), publisher);
        let mut server = Server {
            process: process.clone(),
            ports,
            upstreams: Vec::new(),
            inputs,
            listeners_max: descriptors::listeners_max(descriptors),
            retry: None,
            tell,
        };
        while let Some(input) = server.next(&batches, &received, &signals).await? {
            server.act(input).await;
            let listeners = server.listeners();
            let allowed =
                descriptors::affordable_connections(descriptors, listeners, connections_max);
            process.service.set_connections_max(allowed);
        }
        (server.tell)(AllEvent::Stopping);
        if let Some(feed) = feed {
            feed.cancel().await;
        }
        server.stop_all().await;
        process.finish(&signals).await;
        server.tell_uses(|_| true);
        Ok(())
    })
}

/// What the server acts upon.
enum Input {
    Batch(Vec<Change>),
    /// A listener has failed.
    Failed(u16, io::Error),
    /// Another process asks for the port. The answer is whether it may have it.
    Lease(u16, Sender<bool>),
    /// That process has disconnected.
    Returned(u16),
    /// A client has connected to a port whose use was not looked at.
    Connected,
    /// The time for another attempt, or for a look at the use of a port, has come.
    Time,
}

/// The ports, by number.
type Ports = RefCell<BTreeMap<u16, Port>>;

/// A port that is served, or is to be.
struct Port {
    listen: Listen,
    site: CurrentSite,
    state: State,
    usage: Usage,
}

/// The site of a port, which its acceptors share.
type CurrentSite = Rc<RefCell<Rc<Site>>>;

/// The tasks that accept the clients of a port, one for each socket.
type Acceptors = Box<[Task<()>]>;

/// Whether a port is listened on.
enum State {
    /// By these tasks.
    Listening(Acceptors),
    /// Not yet, or it cannot be.
    Waiting(Told),
    /// Another process has asked for it.
    Leased,
}

/// What the caller knows of a port that is not listened on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Held,
    NoDescriptors,
    /// It cannot be served before it is changed.
    Refused,
}

/// The use of a port.
#[derive(Default)]
struct Usage {
    /// The number of finished requests when the caller was last told of them.
    told: Cell<u64>,
    /// When it is looked at next; `None`: not before another client connects. Its acceptors share it.
    next_look: Rc<Cell<Option<Instant>>>,
}

/// The connections to a target, for all sites with it.
struct SharedUpstream {
    options: Arc<UpstreamOptions>,
    upstream: Rc<Upstream>,
    _sweeper: Task<()>,
}

impl SharedUpstream {
    /// Whether a site uses it, and not only this and the sweeper.
    fn is_used(&self) -> bool {
        Rc::strong_count(&self.upstream) > 2
    }
}

struct Server<'a> {
    process: Process<'a>,
    ports: Rc<Ports>,
    upstreams: Vec<SharedUpstream>,
    inputs: Sender<Input>,
    listeners_max: usize,
    /// When the ports that cannot be listened on for now are tried again.
    retry: Option<Instant>,
    tell: &'a mut (dyn FnMut(AllEvent<'_>) + 'a),
}

impl<'a> Server<'a> {
    /// Waits for what happens next; `None`: a signal to stop.
    async fn next(
        &self,
        batches: &Receiver<Vec<Change>>,
        received: &Receiver<Input>,
        signals: &Signals,
    ) -> Result<Option<Input>, ServeError> {
        let signal = async {
            let signal = signals.next().await;
            signal.map(|()| None).map_err(ServeError::Signals)
        };
        let batch = async {
            match batches.recv().await {
                Ok(batch) => Ok(Some(Input::Batch(batch))),
                Err(_) => future::pending().await,
            }
        };
        let input = async {
            match received.recv().await {
                Ok(input) => Ok(Some(input)),
                Err(_) => future::pending().await,
            }
        };
        let time = async {
            match self.next_time() {
                Some(at) => Timer::at(at).await,
                None => future::pending().await,
            }
            Ok(Some(Input::Time))
        };
        future::or(future::or(signal, batch), future::or(input, time)).await
    }

    fn next_time(&self) -> Option<Instant> {
        let ports = self.ports.borrow();
        let looks = ports.values();
        let looks = looks.filter_map(|port| port.usage.next_look.get());
        looks.chain(self.retry).min()
    }

    async fn act(&mut self, input: Input) {
        match input {
            Input::Batch(changes) => self.apply(changes).await,
            // The port may have been stopped meanwhile, for this or the failure of another socket of it.
            Input::Failed(port, _) if !self.is_open(port) => {}
            Input::Failed(port, error) => {
                self.stop(port, State::Waiting(Told::Held)).await;
                self.retry_later();
                let error = &error;
                (self.tell)(AllEvent::Held { port, error });
            }
            Input::Lease(port, answer) => {
                let is_given = !self.is_leased(port) && self.stop(port, State::Leased).await;
                if is_given {
                    (self.tell)(AllEvent::GivenUp { port });
                }
                // Fails if the other process has disconnected meanwhile, which is reported next.
                let _ = answer.try_send(is_given);
            }
            Input::Returned(port) => {
                if self.is_leased(port) {
                    self.stop(port, State::Waiting(Told::Nothing)).await;
                    self.open(|told| told == Told::Nothing);
                }
            }
            Input::Connected => {}
            Input::Time => {
                let now = reactor::now();
                self.tell_uses(|next| next <= now);
                if self.retry.is_some_and(|at| at <= now) {
                    self.retry = None;
                    self.open(|told| matches!(told, Told::Held | Told::NoDescriptors));
                }
            }
        }
    }

    /// Makes the changes of a batch, first those that leave descriptors.
    async fn apply(&mut self, changes: Vec<Change>) {
        for change in &changes {
            if let Change::Remove(port) = change {
                self.remove(*port).await;
            }
        }
        for change in changes {
            if let Change::Put(options) = change {
                self.put(options);
            }
        }
        self.upstreams.retain(SharedUpstream::is_used);
        self.open(|told| matches!(told, Told::Nothing | Told::NoDescriptors));
        (self.tell)(AllEvent::Applied);
    }

    /// Puts a site in the place of what is served on its port; a new port is not listened on yet.
    fn put(&mut self, options: SiteOptions) {
        let Some(number) = options.listen.port() else {
            return;
        };
        let (listen, upstream) = (options.listen.clone(), self.upstream(&options.upstream));
        let mut ports = self.ports.borrow_mut();
        let known = ports.get(&number);
        let metrics = known.map(|port| Rc::clone(&port.site.borrow().metrics));
        let site = Rc::new(Site::new(
            options,
            Some(number),
            Rc::clone(&self.process.service),
            upstream,
            metrics.unwrap_or_else(|| Rc::new(Metrics::new())),
            Rc::clone(&self.process.hub),
        ));
        match ports.get_mut(&number) {
            Some(port) => {
                if port.is_open() {
                    self.process.hub.announce(&site.instance());
                }
                port.site.replace(site).close();
                if matches!(port.state, State::Waiting(Told::Refused)) {
                    port.state = State::Waiting(Told::Nothing);
                }
            }
            None => {
                let port = Port {
                    listen,
                    site: Rc::new(RefCell::new(site)),
                    state: State::Waiting(Told::Nothing),
                    usage: Usage::default(),
                };
                ports.insert(number, port);
            }
        }
    }

    async fn remove(&mut self, port: u16) {
        self.stop(port, State::Waiting(Told::Nothing)).await;
        let removed = self.ports.borrow_mut().remove(&port);
        if let Some(removed) = removed {
            self.tell_use(port, &removed);
        }
    }

    /// The connections for a site with these options.
    fn upstream(&mut self, options: &Arc<UpstreamOptions>) -> Rc<Upstream> {
        let mut known = self.upstreams.iter();
        if let Some(shared) = known.find(|shared| Arc::ptr_eq(&shared.options, options)) {
            return Rc::clone(&shared.upstream);
        }
        let (upstream, sweeper) = self.process.open_upstream(options);
        self.upstreams.push(SharedUpstream {
            options: Arc::clone(options),
            upstream: Rc::clone(&upstream),
            _sweeper: sweeper,
        });
        upstream
    }

    /// Listens on the ports that wait, where `is_due` says so.
    fn open(&mut self, is_due: impl Fn(Told) -> bool) {
        let ports = Rc::clone(&self.ports);
        let mut listeners = self.listeners();
        for (&number, port) in &mut *ports.borrow_mut() {
            let State::Waiting(told) = port.state else {
                continue;
            };
            if is_due(told) {
                let room = self.listeners_max.saturating_sub(listeners);
                port.state = self.listen(number, port, told, room);
                listeners += port.listeners();
            }
        }
    }

    /// Listens on a port with at most `room` sockets. Tells the caller of it, once where that is not possible.
    fn listen(&mut self, number: u16, port: &Port, told: Told, room: usize) -> State {
        let error = match self.acceptors(number, port, room) {
            Ok((acceptors, addresses)) => {
                self.process.hub.announce(&port.site.borrow().instance());
                (self.tell)(AllEvent::Serving {
                    port: number,
                    addresses: &addresses,
                });
                return State::Listening(acceptors);
            }
            Err(error) => error,
        };
        let now = match error.kind() {
            _ if listen::lacks_descriptors(&error) => Told::NoDescriptors,
            io::ErrorKind::InvalidInput => Told::Refused,
            _ => Told::Held,
        };
        // A port for which there is no room waits for another one to go. Where there is, the clients have the descriptors.
        if now == Told::Held || now == Told::NoDescriptors && port.listen.sockets() <= room {
            self.retry_later();
        }
        if now != told {
            (self.tell)(match now {
                Told::NoDescriptors => AllEvent::NoDescriptors { port: number },
                _ => AllEvent::Held {
                    port: number,
                    error: &error,
                },
            });
        }
        State::Waiting(now)
    }

    /// Opens the sockets of a port, and starts to accept clients.
    fn acceptors(
        &self,
        number: u16,
        port: &Port,
        room: usize,
    ) -> io::Result<(Acceptors, Vec<Address>)> {
        if port.listen.sockets() > room {
            return Err(listen::no_descriptors());
        }
        let listeners = listen::open(&port.listen).map_err(|(_, error)| error)?;
        let addresses = listeners.iter().map(listen::Listener::address);
        let addresses: Vec<Address> = addresses.collect::<io::Result<_>>()?;
        if port.site.borrow().leads_to(&addresses) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the target is this port itself",
            ));
        }
        let sources = listeners.into_iter().map(Source::listening);
        let sources: Vec<_> = sources.collect::<io::Result<_>>()?;
        let acceptors = sources.into_iter().map(|listener| {
            let clients = Rc::clone(&self.process.clients);
            let (site, inputs) = (Rc::clone(&port.site), self.inputs.clone());
            let next_look = Rc::clone(&port.usage.next_look);
            self.process.clients.spawn(async move {
                let current = || {
                    if next_look.get().is_none() {
                        next_look.set(Some(reactor::now() + FIRST_LOOK));
                        let _ = inputs.try_send(Input::Connected);
                    }
                    Rc::clone(&site.borrow())
                };
                let error = accept_all(&listener, &current, &clients).await;
                let _ = inputs.try_send(Input::Failed(number, error));
            })
        });
        Ok((acceptors.collect(), addresses))
    }

    /// Stops listening on a port, and disconnects its idle clients. Returns whether there is such a port.
    async fn stop(&mut self, number: u16, next: State) -> bool {
        let change = |state| {
            let mut ports = self.ports.borrow_mut();
            let port = ports.get_mut(&number)?;
            Some(std::mem::replace(&mut port.state, state))
        };
        let Some(last) = change(next) else {
            return false;
        };
        if let State::Listening(acceptors) = last {
            self.process.hub.close_port(number);
            for acceptor in acceptors {
                acceptor.cancel().await;
            }
        }
        // Not before: the acceptors may have let in clients until they were cancelled.
        if let Some(port) = self.ports.borrow().get(&number) {
            port.reopen_site();
        }
        true
    }

    /// Stops listening on all ports.
    async fn stop_all(&mut self) {
        let numbers: Vec<u16> = self.ports.borrow().keys().copied().collect();
        for number in numbers {
            self.stop(number, State::Waiting(Told::Nothing)).await;
        }
    }

    fn is_open(&self, port: u16) -> bool {
        self.ports.borrow().get(&port).is_some_and(Port::is_open)
    }

    fn is_leased(&self, port: u16) -> bool {
        let ports = self.ports.borrow();
        let port = ports.get(&port);
        port.is_some_and(|port| matches!(port.state, State::Leased))
    }

    /// How many sockets listen.
    fn listeners(&self) -> usize {
        self.ports.borrow().values().map(Port::listeners).sum()
    }

    fn retry_later(&mut self) {
        self.retry.get_or_insert_with(|| reactor::now() + RETRY);
    }

    /// Tells the caller of the use of each port that is looked at at a time that `is_due`.
    fn tell_uses(&mut self, is_due: impl Fn(Instant) -> bool) {
        let ports = Rc::clone(&self.ports);
        for (&number, port) in &*ports.borrow() {
            if port.usage.next_look.get().is_some_and(&is_due) {
                let pause = match self.tell_use(number, port) {
                    true => Some(LOOK),
                    false => port.has_clients().then_some(FIRST_LOOK),
                };
                let next_look = pause.map(|pause| reactor::now() + pause);
                port.usage.next_look.set(next_look);
            }
        }
    }

    /// Tells the caller if the port had requests since it was last told so, or has one in flight. Returns whether it was told.
    fn tell_use(&mut self, number: u16, port: &Port) -> bool {
        let metrics = Rc::clone(&port.site.borrow().metrics);
        let requests = metrics.classes().iter().sum();
        let is_used = port.usage.told.replace(requests) != requests || metrics.in_flight() > 0;
        if is_used {
            (self.tell)(AllEvent::Used { port: number });
        }
        is_used
    }
}

impl Port {
    fn is_open(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    fn listeners(&self) -> usize {
        match &self.state {
            State::Listening(acceptors) => acceptors.len(),
            State::Waiting(_) | State::Leased => 0,
        }
    }

    /// Whether a client is connected, which may send a request at any time.
    fn has_clients(&self) -> bool {
        // Each client's connection has the site.
        Rc::strong_count(&self.site.borrow()) > 1
    }

    /// Closes the site for the clients that it has, and replaces it by an equal one.
    fn reopen_site(&self) {
        let mut site = self.site.borrow_mut();
        site.close();
        *site = Rc::new(site.reopened());
    }
}

/// The ports, for the feed's subscribers.
struct AllPorts {
    ports: Rc<Ports>,
    inputs: Sender<Input>,
}

impl Publisher for AllPorts {
    fn instance(&self) -> InstanceInfo {
        InstanceInfo {
            instance_id: String::new(),
            project: None,
            path: None,
            port: None,
            pid: std::process::id(),
            target: String::new(),
        }
    }

    fn sites(&self) -> Option<Vec<InstanceInfo>> {
        let ports = self.ports.borrow();
        let open = ports.values().filter(|port| port.is_open());
        Some(open.map(|port| port.site.borrow().instance()).collect())
    }

    fn site(&self, port: u16) -> Option<InstanceInfo> {
        let ports = self.ports.borrow();
        let port = ports.get(&port).filter(|port| port.is_open())?;
        Some(port.site.borrow().instance())
    }

    fn lease(&self, port: u16) -> PendingLease {
        let inputs = self.inputs.clone();
        Box::pin(async move {
            let (sender, answer) = channel::bounded(1);
            inputs.try_send(Input::Lease(port, sender)).ok()?;
            let is_given = answer.recv().await.ok()?;
            is_given.then(|| Box::new(Lease { port, inputs }) as Box<dyn Any>)
        })
    }
}

/// A port that is left to another process until this is dropped.
struct Lease {
    port: u16,
    inputs: Sender<Input>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.inputs.try_send(Input::Returned(self.port));
    }
}

/// Between two attempts to listen on the ports that are held.
const RETRY: Duration = Duration::from_secs(2);

/// From the first client of a port to the look at whether it had requests, and between two looks while a client has sent none.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Between two looks at a port that had requests.
const LOOK: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::options::{About, ServedBy, Timeouts};
    use crate::serve::{Guard, RequestRewriter};
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::thread;

    /// A process that serves all, and its events as words.
    struct Running {
        batches: Sender<Vec<Change>>,
        events: mpsc::Receiver<String>,
    }

    impl Running {
        fn start(feed: Option<std::path::PathBuf>) -> Running {
            let (batches, received) = channel::unbounded();
            let (sender, events) = mpsc::channel();
            let options = Options {
                timeouts: Timeouts {
                    head: None,
                    idle: None,
                    connect: None,
                    first_byte: None,
                    body: None,
                    hold: Duration::ZERO,
                    grace: Duration::ZERO,
                    idle_exit: None,
                },
                connections_max: 16,
                feed,
                stop_signals: &[],
            };
            thread::spawn(move || {
                let ended = run_all(options, received, &mut |event| {
                    let word = match event {
                        AllEvent::Serving { port, .. } => format!("serving {port}"),
                        AllEvent::Held { port, .. } => format!("held {port}"),
                        AllEvent::NoDescriptors { port } => format!("no descriptors {port}"),
                        AllEvent::GivenUp { port } => format!("given up {port}"),
                        AllEvent::Applied => "applied".to_owned(),
                        AllEvent::Used { port } => format!("used {port}"),
                        AllEvent::Stopping => "stopping".to_owned(),
                    };
                    let _ = sender.send(word);
                });
                assert!(ended.is_ok(), "{ended:?}");
            });
            Running { batches, events }
        }

        #[track_caller]
        fn apply(&self, changes: Vec<Change>, expected: &[String]) {
            self.batches.try_send(changes).expect("it runs");
            self.expect(expected);
            self.expect(&["applied".to_owned()]);
        }

        #[track_caller]
        fn expect(&self, expected: &[String]) {
            for word in expected {
                let event = self.events.recv_timeout(Duration::from_secs(20));
                assert_eq!(event.as_ref(), Ok(word));
            }
        }
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").port()
    }

    fn site(port: u16, id: &str, target: &str) -> Change {
        let target: super::super::Target = target.parse().expect("a URL");
        let fields = [("x-id".to_owned(), id.to_owned())];
        let rewriter = RequestRewriter::new(target.host_field(), target.base_path(), &fields);
        Change::Put(SiteOptions {
            listen: Listen::On(vec![vec![SocketAddr::from(([127, 0, 0, 1], port))]]),
            rewriter: rewriter.expect("a good field"),
            upstream: Arc::new(UpstreamOptions {
                target,
                tls: None,
                proxy: None,
            }),
            guard: Guard {
                local_hosts_only: true,
                allowed_hosts: Vec::new(),
                allowed_origins: Vec::new(),
            },
            about: About {
                instance_id: id.to_owned(),
                project: Some(format!("/home/me/{id}")),
                served_by: ServedBy::All,
            },
        })
    }

    /// Answers each request with its `x-id`, on a thread for each connection.
    fn origin() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    while let Some(line) = lines.next() {
                        let mut id = String::new();
                        for field in lines.by_ref().take_while(|line| !line.is_empty()) {
                            if let Some(value) = field.strip_prefix("x-id: ") {
                                id = value.to_owned();
                            }
                        }
                        assert!(line.starts_with("GET / "), "{line}");
                        let head =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", id.len());
                        let _ = (&stream).write_all((head + &id).as_bytes());
                    }
                });
            }
        });
        url
    }

    /// Sends a request on a connection that stays; returns the body of the response, which has one character.
    fn response(stream: &mut TcpStream) -> String {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).expect("it is connected");
        let (mut response, mut byte) = (Vec::new(), [0]);
        while !response.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a response");
            response.extend(byte);
        }
        stream.read_exact(&mut byte).expect("a body");
        String::from_utf8_lossy(&byte).into_owned()
    }

    /// Sends a request on a new connection; returns the body of the response.
    fn id_at(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        Some(response.rsplit("\r\n").next()?.to_owned())
    }

    #[test]
    fn ports_come_change_and_go() {
        let (target, running) = (origin(), Running::start(None));
        let (a, b) = (free_port(), free_port());
        let changes = vec![site(a, "a", &target), site(b, "b", &target)];
        let mut serving = [a, b];
        serving.sort_unstable();
        running.apply(changes, &serving.map(|port| format!("serving {port}")));
        assert_eq!(
            (id_at(a).as_deref(), id_at(b).as_deref()),
            (Some("a"), Some("b"))
        );
        let mut idle = TcpStream::connect(("127.0.0.1", a)).expect("it listens");
        let mut other = TcpStream::connect(("127.0.0.1", b)).expect("it listens");
        assert_eq!(response(&mut idle), "a");
        assert_eq!(response(&mut other), "b");
        running.apply(vec![site(a, "c", &target)], &[]);
        assert_eq!(
            idle.read(&mut [0]).expect("an end"),
            0,
            "idle clients are disconnected"
        );
        assert_eq!(id_at(a).as_deref(), Some("c"));
        running.apply(vec![Change::Remove(a)], &[format!("used {a}")]);
        assert_eq!(id_at(a), None);
        assert_eq!(response(&mut other), "b", "others are not disturbed");
    }

    #[test]
    fn a_request_in_flight_and_the_late_one_of_a_waiting_client_are_use() {
        let (target, running) = (origin(), Running::start(None));
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let no_answer = format!("http://{}", silent.local_addr().expect("bound"));
        let (late, early) = (free_port(), free_port());
        running.apply(vec![site(late, "a", &target)], &[format!("serving {late}")]);
        let mut client = TcpStream::connect(("127.0.0.1", late)).expect("it listens");
        let changes = vec![site(early, "b", &no_answer)];
        running.apply(changes, &[format!("serving {early}")]);
        let mut waiting = TcpStream::connect(("127.0.0.1", early)).expect("it listens");
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        waiting.write_all(request).expect("it is connected");
        running.expect(&[format!("used {early}")]);
        assert_eq!(response(&mut client), "a");
        running.expect(&[format!("used {late}")]);
    }

    #[test]
    fn a_port_that_is_held_is_taken_when_it_is_free() {
        let (target, running) = (origin(), Running::start(None));
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = holder.local_addr().expect("bound").port();
        running.apply(vec![site(port, "a", &target)], &[format!("held {port}")]);
        drop(holder);
        running.expect(&[format!("serving {port}")]);
        assert_eq!(id_at(port).as_deref(), Some("a"));
    }

    #[test]
    fn a_port_is_left_to_a_process_that_asks_for_it_until_that_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let feed = folder.path().join("run");
        let (target, running) = (origin(), Running::start(Some(feed.clone())));
        let port = free_port();
        running.apply(vec![site(port, "a", &target)], &[format!("serving {port}")]);
        let socket = feed.join(format!("{}.sock", std::process::id()));
        let ask = |command: &str| {
            let stream = UnixStream::connect(&socket).expect("it listens");
            (&stream)
                .write_all(command.as_bytes())
                .expect("it is connected");
            let mut lines = BufReader::new(stream);
            let mut line = || {
                let mut line = String::new();
                lines.read_line(&mut line).expect("a line");
                line
            };
            let hello = line();
            assert!(hello.contains("\"sites\":["), "{hello}");
            let answer = match line() {
                live if live == "{\"event\":\"live\"}\n" => line(),
                answer => answer,
            };
            (lines, answer)
        };
        let (_, answer) = ask("{\"yield\":1}\n");
        assert_eq!(answer, "{\"event\":\"bye\"}\n", "another port");
        let (lease, answer) = ask(&format!("{{\"yield\":{port}}}\n"));
        assert_eq!(
            answer,
            format!("{{\"event\":\"yielded\",\"port\":{port}}}\n")
        );
        running.expect(&[format!("given up {port}")]);
        let own = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        let (_, answer) = ask(&format!("{{\"yield\":{port}}}\n"));
        assert_eq!(answer, "{\"event\":\"bye\"}\n", "it is left already");
        running.apply(vec![site(port, "b", &target)], &[]);
        drop(own);
        drop(lease);
        running.expect(&[format!("serving {port}")]);
        assert_eq!(id_at(port).as_deref(), Some("b"));
        let (_, hello) = ask(&format!("{{\"port\":{port}}}\n"));
        assert!(
            hello.contains(&format!(
                "\"instance_id\":\"b\",\"project\":\"b\",\"path\":\"/home/me/b\",\"port\":{port}"
            )),
            "{hello}"
        );
    }
}
