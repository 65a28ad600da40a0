//! The interceptor of `ic run`: its own one, or the one that already runs for the project.
//!
//! The port decides which of the two it is: it is bound first, and only where it is in use, what listens there is asked who it
//! is. So the usual start costs nothing, and of two that start at once one serves and the other one joins it.
//!
//! A joined interceptor is watched through an idle connection, which costs it one client and no CPU time. When it has ended, the
//! port is served here. Nothing is printed then: the terminal belongs to the program.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGALRM;
use signal_hook::low_level::raise;

use crate::cli::address::BaseUrls;
use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::signals;
use crate::machine::interceptor::{Identity, claimed_identity};
use crate::serve::{self, Address, Event, Options, ServeError, SiteOptions};
use crate::text::io_message;

/// The interceptor that the program uses.
pub struct Interceptor {
    /// Where the program reaches it.
    pub urls: BaseUrls,
    address: Option<SocketAddr>,
    /// What it had received before the program started; `None` if it did not answer.
    before: Option<Received>,
    /// Whether it is, or has become, one of this process.
    is_own: Arc<AtomicBool>,
    /// Is disconnected when the one of this process has ended.
    ended: Receiver<()>,
}

/// The number of requests that the interceptor with this process id has received.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    pid: u32,
    requests: u64,
}

impl From<&Identity> for Received {
    fn from(identity: &Identity) -> Received {
        Received {
            pid: identity.pid,
            requests: identity.requests + identity.in_flight,
        }
    }
}

impl Interceptor {
    /// Starts one in a thread that ends with the process; returns it once it listens.
    ///
    /// # Errors
    ///
    /// "Could not": there is no thread for it. The inner error: it cannot start.
    pub fn start(
        options: Options,
        site: SiteOptions,
    ) -> Result<Result<Interceptor, ServeError>, Failure> {
        let (sender, receiver) = mpsc::channel();
        let ready = sender.clone();
        let (end, ended) = mpsc::channel();
        let target = site.upstream.target.clone();
        in_thread(move || {
            let ended = serve::run(options, site, &mut |event| {
                if let Event::Listening(addresses) = event {
                    let addresses: Vec<_> = addresses.iter().filter_map(Address::tcp).collect();
                    let _ = ready.send(Ok(addresses));
                }
            });
            // After the start there is no receiver, and the error is printed.
            if let Err(error) = ended
                && let Err(unsent) = sender.send(Err(error))
                && let Err(error) = unsent.0
            {
                print_end(&error);
            }
            drop(end);
        })?;
        let started = receiver.recv().map_err(|mpsc::RecvError| {
            Failure::could_not("the interceptor has stopped at its start; please report this")
        })?;
        Ok(started.map(|addresses| Interceptor {
            urls: BaseUrls::new(authority(&addresses), Some(&target)),
            address: addresses.first().map(reachable),
            before: Some(Received {
                pid: std::process::id(),
                requests: 0,
            }),
            is_own: Arc::new(AtomicBool::new(true)),
            ended,
        }))
    }

    /// Joins the one at `address`. When it has ended, its port is served as `next` says.
    ///
    /// # Errors
    ///
    /// "Could not": there is no thread for that.
    pub fn join(
        address: SocketAddr,
        next: Option<(Options, SiteOptions)>,
    ) -> Result<Interceptor, Failure> {
        let is_own = Arc::new(AtomicBool::new(false));
        let becomes_own = Arc::clone(&is_own);
        let (end, ended) = mpsc::channel();
        let identity = claimed_identity(address);
        let target = identity.as_ref().and_then(|it| it.target.parse().ok());
        if let Some((options, site)) = next {
            in_thread(move || {
                take_over(address, &options, &site, &becomes_own);
                drop(end);
            })?;
        }
        Ok(Interceptor {
            urls: BaseUrls::new(authority(&[address]), target.as_ref()),
            address: Some(address),
            before: identity.as_ref().map(Received::from),
            is_own,
            ended,
        })
    }

    /// Whether it is known to have received no request since its start here, or since it was joined.
    pub fn is_unused(&self) -> bool {
        let now = self.address.and_then(claimed_identity);
        now.is_some() && now.as_ref().map(Received::from) == self.before
    }

    /// Stops the one of this process: requests of other clients finish within the grace period. A signal that stops a command
    /// ends the wait.
    pub fn finish(self) {
        let Ok(mut stop) = signals::signals() else {
            return;
        };
        let waker = stop.try_clone().and_then(|waker| {
            let wait = move || {
                let _ = self.ended.recv();
                let _ = waker.shutdown(Shutdown::Both);
            };
            thread::Builder::new().spawn(wait)
        });
        if waker.is_ok() && STOP_SIGNALS.iter().all(|&it| raise(it).is_ok()) {
            let _ = stop.read(&mut [0]);
        }
    }

    /// Whether it is, or has become, one of this process.
    pub fn is_own(&self) -> bool {
        self.is_own.load(Ordering::Relaxed)
    }
}

/// Stop the interceptor of this process, and are raised by this process itself; no terminal and no service manager sends them.
pub const STOP_SIGNALS: &[i32] = &[SIGALRM];

/// Serves the port at `address` whenever no other interceptor does.
fn take_over(address: SocketAddr, options: &Options, site: &SiteOptions, is_own: &AtomicBool) {
    loop {
        wait_while_served(address);
        let ended = serve::run(options.clone(), site.clone(), &mut |event| {
            if let Event::Listening(_) = event {
                is_own.store(true, Ordering::Relaxed);
            }
        });
        match ended {
            Ok(()) => return,
            // By another `ic run` that had joined it, or by one that listens on another address.
            Err(error) if is_in_use(&error) => thread::sleep(PAUSE),
            Err(error) => return print_end(&error),
        }
    }
}

/// Waits until `address` accepts no connections.
fn wait_while_served(address: SocketAddr) {
    let mut refused = 0;
    while refused < REFUSALS_MIN {
        let since = Instant::now();
        match TcpStream::connect(address) {
            // Returns when the connection is closed, since nothing is asked.
            Ok(mut stream) => {
                refused = 0;
                let _ = stream.read(&mut [0]);
                // The interceptor closes it because it needs the descriptor.
                thread::sleep(PAUSE.saturating_sub(since.elapsed()));
            }
            Err(_) => {
                refused += 1;
                thread::sleep(REFUSED_PAUSE);
            }
        }
    }
}

/// Whether the interceptor could not start because its port is in use.
pub fn is_in_use(error: &ServeError) -> bool {
    matches!(error, ServeError::Bind(_, error) if error.kind() == io::ErrorKind::AddrInUse)
}

fn in_thread(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new()
        .name("interceptor".to_owned())
        .spawn(work);
    spawned.map(drop).map_err(|error| {
        Failure::could_not(format!(
            "cannot start a thread: {}; try again",
            io_message(&error)
        ))
    })
}

fn print_end(error: &ServeError) {
    eprint_line(format_args!("the interceptor has stopped: {error}"));
}

/// An address at which a client reaches a socket that is bound to this one.
fn reachable(bound: &SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => LOOPBACK[0],
        IpAddr::V6(ip) if ip.is_unspecified() => LOOPBACK[1],
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// The host and port at which the program reaches an interceptor on `addresses`.
fn authority(addresses: &[SocketAddr]) -> String {
    let is_local =
        |address: &SocketAddr| address.ip().is_unspecified() || LOOPBACK.contains(&address.ip());
    match addresses.first() {
        Some(first) if addresses.iter().any(is_local) => format!("localhost:{}", first.port()),
        Some(first) => first.to_string(),
        None => String::new(),
    }
}

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The shortest time between two connections, and between two attempts to serve the port.
const PAUSE: Duration = Duration::from_secs(1);

/// A port must refuse this many connections in a row before it is served here: a service that is started again, and an `ic serve`
/// that takes the port over from `ic serve --all`, bind it in between.
const REFUSALS_MIN: u32 = 3;

const REFUSED_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_one_that_the_interceptor_listens_on() {
        #[track_caller]
        fn check(addresses: &[&str], expected: &str) {
            let addresses: Vec<SocketAddr> = addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect();
            assert_eq!(authority(&addresses), expected);
        }
        check(&["127.0.0.1:80", "[::1]:80"], "localhost:80");
        check(&["[::1]:80"], "localhost:80");
        check(&["0.0.0.0:80"], "localhost:80");
        check(&["[::]:80"], "localhost:80");
        check(&["127.0.0.2:80"], "127.0.0.2:80"); // `localhost` is another address
        check(&["10.0.0.1:80"], "10.0.0.1:80");
        check(&["[fd00::1]:80"], "[fd00::1]:80");
    }
}
