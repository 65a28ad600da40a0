//! The origin, which is the target of the interceptor and controlled by the test.
//!
//! `Origin::listen` leaves every connection to the test, which accepts and uses it on its own thread.
//! `Origin::answering` responds with a closure, on a thread per connection, and records events; it is for tests in which
//! connections do not matter.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::message::Request;
use super::tls::{self, Config};
use super::wire::{Conn, Stop};

/// A listening origin.
pub struct Origin {
    address: SocketAddr,
    tls: Option<Config>,
    connections: Mutex<Receiver<TcpStream>>,
    accepted: Mutex<usize>,
    acceptor: Option<JoinHandle<()>>,
    stopping: Arc<Mutex<bool>>,
    book: Arc<Book>,
}

/// An event that an answering origin has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A connection was opened.
    Opened { connection: usize },
    /// A complete, well-formed request.
    Request { connection: usize, request: Request },
    /// The connection ended between two requests, or inside of one.
    Ended {
        connection: usize,
        inside: bool,
        stop: Stop,
    },
}

/// The reaction of an answering origin to a request.
pub enum Reply {
    /// Sends these bytes and waits for the next request.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes the connection.
    BytesThenClose(Vec<u8>),
    /// Sends these bytes in pieces of at most that size and closes the connection.
    PiecesThenClose(Vec<u8>, usize),
    /// Resets the connection.
    Reset,
    /// Closes the connection without a response.
    Close,
}

#[derive(Default)]
struct Book {
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
}

impl Origin {
    /// Listens on any free port; the test accepts connections.
    pub fn listen() -> Origin {
        Origin::listen_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same, always without TLS.
    pub fn listen_in_plain() -> Origin {
        Origin::listen().with_tls(None)
    }

    /// The same in TLS.
    pub fn listen_in_tls(config: Config) -> Origin {
        Origin::listen().with_tls(Some(config))
    }

    /// The same in this TLS, or without it.
    pub fn with_tls(mut self, tls: Option<Config>) -> Origin {
        self.tls = tls;
        self
    }

    /// Listens on an address; the test accepts connections.
    #[track_caller]
    pub fn listen_at(address: SocketAddr) -> Origin {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("origin: cannot listen on {address}: {error}"));
        let address = listener.local_addr().expect("a listener has an address");
        let (sender, connections) = channel();
        let stopping = Arc::new(Mutex::new(false));
        let told = Arc::clone(&stopping);
        let acceptor = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if *lock(&told) || sender.send(stream).is_err() {
                    break;
                }
            }
        });
        Origin {
            address,
            tls: tls::is_asked_for().then(tls::usual),
            connections: Mutex::new(connections),
            accepted: Mutex::new(0),
            acceptor: Some(acceptor),
            stopping,
            book: Arc::default(),
        }
    }

    /// Responds to each request with `answer(request, n)`, where n counts the requests of the connection from 0.
    pub fn answering(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Origin {
        Origin::answering_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// The same in TLS.
    pub fn answering_in_tls(
        config: Config,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Origin {
        Origin::listen_in_tls(config).answers(answer)
    }

    /// The same on an address.
    #[track_caller]
    pub fn answering_at(
        address: SocketAddr,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Origin {
        Origin::listen_at(address).answers(answer)
    }

    /// Responds to each request as [`Origin::answering`] does.
    pub fn answers(
        mut self,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Origin {
        let origin = &mut self;
        let connections = std::mem::replace(&mut *lock(&origin.connections), channel().1);
        let book = Arc::clone(&origin.book);
        let answer = Arc::new(answer);
        let tls = origin.tls.clone();
        let acceptor = origin.acceptor.take();
        origin.acceptor = Some(std::thread::spawn(move || {
            let mut threads = Vec::new();
            for (connection, stream) in connections.into_iter().enumerate() {
                let (book, answer) = (Arc::clone(&book), Arc::clone(&answer));
                let tls = tls.clone();
                threads.push(std::thread::spawn(move || {
                    book.write(Seen::Opened { connection });
                    let (inside, stop) = match wire(connection, stream, tls) {
                        Ok(wire) => {
                            let wire = wire.with_timeout(6 * DEADLINE);
                            answer_all(wire, connection, &book, &*answer)
                        }
                        Err(error) => (false, stop_of(&error)),
                    };
                    book.write(Seen::Ended {
                        connection,
                        inside,
                        stop,
                    });
                }));
            }
            for thread in threads.into_iter().chain(acceptor) {
                thread.join().expect("an origin's thread does not panic");
            }
        }));
        self
    }

    /// Responds to every request with `200 OK` and the body `ok`.
    pub fn agreeing() -> Origin {
        Origin::answering(|_, _| {
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for `--target`.
    pub fn url(&self) -> String {
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        format!("{scheme}://{}", self.address)
    }

    /// The next connection, within the deadline.
    #[track_caller]
    pub fn accept(&self) -> Conn {
        self.try_accept(DEADLINE)
            .unwrap_or_else(|| panic!("origin: no connection came within {DEADLINE:?}"))
    }

    /// The next connection, or `None` after the limit.
    pub fn try_accept(&self, timeout: Duration) -> Option<Conn> {
        match lock(&self.connections).recv_timeout(timeout) {
            Ok(stream) => {
                let mut accepted = lock(&self.accepted);
                *accepted += 1;
                let wire = wire(*accepted - 1, stream, self.tls.clone());
                Some(wire.unwrap_or_else(|error| panic!("origin: no handshake: {error}")))
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("origin: no longer listens"),
        }
    }

    /// The recorded events of an answering origin.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.book.seen).clone()
    }

    /// The recorded requests of an answering origin.
    pub fn requests(&self) -> Vec<Request> {
        requests_of(&self.seen())
    }

    /// The number of recorded connections of an answering origin.
    pub fn connections(&self) -> usize {
        self.seen()
            .iter()
            .filter(|seen| matches!(seen, Seen::Opened { .. }))
            .count()
    }

    /// Clears the recorded events, for the next row of a table.
    pub fn forget(&self) {
        lock(&self.book.seen).clear();
    }

    /// Waits until the recorded events satisfy `condition`.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = lock(&self.book.seen);
        while !condition(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "origin: {what} was not satisfied within {DEADLINE:?}; seen: {:?}",
                *seen
            );
            seen = self
                .book
                .changed
                .wait_timeout(seen, left)
                .expect("no holder of this lock panics")
                .0;
        }
        seen.clone()
    }
}

fn wire(number: usize, stream: TcpStream, tls: Option<Config>) -> io::Result<Conn> {
    let who = format!("origin, connection {number}");
    match tls {
        None => Ok(Conn::new(who, stream)),
        Some(config) => Conn::secure(who, stream, config),
    }
}

/// The error of a failed handshake.
fn stop_of(error: &io::Error) -> Stop {
    let is_goodbye = error.get_ref().and_then(|error| error.downcast_ref())
        == Some(&rustls::Error::AlertReceived(
            rustls::AlertDescription::CloseNotify,
        ));
    match error.kind() {
        _ if is_goodbye => Stop::Closed,
        ErrorKind::UnexpectedEof => Stop::Closed,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Stop::Reset,
        _ => Stop::Malformed(error.to_string()),
    }
}

/// The requests among recorded events.
pub fn requests_of(seen: &[Seen]) -> Vec<Request> {
    let request = |seen: &Seen| match seen {
        Seen::Request { request, .. } => Some(request.clone()),
        _ => None,
    };
    seen.iter().filter_map(request).collect()
}

impl Drop for Origin {
    fn drop(&mut self) {
        *lock(&self.stopping) = true;
        // Wakes the accepting thread, which then stops.
        let woken = TcpStream::connect_timeout(&self.address, DEADLINE);
        let refused = matches!(&woken, Err(error) if error.kind() == ErrorKind::ConnectionRefused);
        if let Some(acceptor) = self.acceptor.take() {
            // After a failure, joining could block and hide it.
            if (woken.is_ok() || refused) && !std::thread::panicking() {
                acceptor.join().expect("an origin's thread does not panic");
            }
        }
    }
}

impl Book {
    fn write(&self, seen: Seen) {
        lock(&self.seen).push(seen);
        self.changed.notify_all();
    }
}

fn answer_all(
    mut wire: Conn,
    connection: usize,
    book: &Book,
    answer: &dyn Fn(&Request, usize) -> Reply,
) -> (bool, Stop) {
    for number in 0.. {
        let request = match wire
            .try_fill_if_empty()
            .map_err(|stop| (false, stop))
            .and_then(|()| wire.try_request().map_err(|stop| (true, stop)))
        {
            Ok(request) => request,
            Err(end) => return end,
        };
        let reply = answer(&request, number);
        book.write(Seen::Request {
            connection,
            request,
        });
        match reply {
            Reply::Bytes(bytes) => {
                if !wire.offer(bytes) {
                    return (false, Stop::Reset);
                }
            }
            Reply::BytesThenClose(bytes) => {
                wire.offer(bytes);
                // A child process of another test may hold the socket for a moment; shutdown sends the FIN now.
                wire.finish_writing();
                wire.close();
                return (false, Stop::Closed);
            }
            Reply::PiecesThenClose(bytes, size) => {
                wire.offer_in_pieces(bytes, size);
                wire.close();
                return (false, Stop::Closed);
            }
            Reply::Reset => {
                wire.reset();
                return (false, Stop::Reset);
            }
            Reply::Close => {
                wire.close();
                return (false, Stop::Closed);
            }
        }
    }
    unreachable!("the numbers of requests do not end")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
