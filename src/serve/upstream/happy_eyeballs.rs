//! Happy Eyeballs: which of several addresses of a host is connected to (RFC 8305).
//!
//! Decided here: the order, and when the next attempt starts: when an earlier one fails, or [`ATTEMPT_DELAY`] after the last.
//! No attempt is cancelled before one has succeeded. The time limit and the addresses are the caller's.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::serve::reactor::{self, Timer};

/// Connects to the first of `addresses` that answers, and returns it with its connection.
///
/// # Errors
///
/// The error that says most about the host if all fail; `None` if there is no address.
pub async fn connect<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Option<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.iter();
    let mut attempts: Vec<(SocketAddr, Pin<Box<F>>)> = Vec::new();
    let mut failed: Option<io::Error> = None;
    let mut pause: Option<Timer> = None;
    poll_fn(|context| {
        loop {
            let mut at = 0;
            while let Some((address, attempt)) = attempts.get_mut(at) {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(Ok(connected)) => return Poll::Ready(Ok((*address, connected))),
                    Poll::Ready(Err(error)) => {
                        failed = Some(more_telling(failed.take(), error));
                        drop(attempts.remove(at));
                        pause = None;
                    }
                    Poll::Pending => at += 1,
                }
            }
            if waiting.as_slice().is_empty() {
                return match attempts.is_empty() {
                    true => Poll::Ready(Err(failed.take())),
                    false => Poll::Pending,
                };
            }
            if let Some(timer) = &mut pause
                && Pin::new(timer).poll(context).is_pending()
            {
                return Poll::Pending;
            }
            if let Some(&address) = waiting.next() {
                attempts.push((address, Box::pin(connect(address))));
                pause = Some(Timer::at(reactor::now() + ATTEMPT_DELAY));
            }
        }
    })
    .await
}

/// The more telling of two errors: a refusal, as the host is up then and may listen soon; else the first, which is about the
/// preferred address.
fn more_telling(before: Option<io::Error>, now: io::Error) -> io::Error {
    match before {
        Some(before) if now.kind() != io::ErrorKind::ConnectionRefused => before,
        _ => now,
    }
}

/// Interleaves the address families, beginning with that of the first address (RFC 8305 §4): an unreachable family then costs
/// one delay, however many addresses it has.
pub fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv4) else {
        return addresses;
    };
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first);
    let mut order = Vec::new();
    for at in 0..preferred.len().max(other.len()) {
        order.extend(preferred.get(at));
        order.extend(other.get(at));
    }
    order
}

/// The delay that RFC 8305 §5 recommends between two attempts.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::reactor;
    use std::cell::RefCell;
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable};

    /// How an attempt ends.
    #[derive(Clone, Copy)]
    enum Fate {
        Succeeds,
        /// Once so many addresses have been tried.
        SucceedsAfter(usize),
        Fails(io::ErrorKind),
        Silent,
    }

    fn address(number: usize) -> SocketAddr {
        format!("192.0.2.{number}:80").parse().expect("an address")
    }

    /// The index of the address that was connected to, or the error; and the indexes that were tried, in order.
    fn outcome(fates: &[Fate]) -> (Result<usize, Option<io::ErrorKind>>, Vec<usize>) {
        let addresses: Vec<SocketAddr> = (0..fates.len()).map(address).collect();
        let tried = RefCell::new(Vec::new());
        let attempt = |to: SocketAddr| {
            let number = addresses.iter().position(|&address| address == to);
            let number = number.expect("one of them");
            tried.borrow_mut().push(number);
            let tried = &tried;
            async move {
                match fates[number] {
                    Fate::Succeeds => Ok(number),
                    Fate::SucceedsAfter(count) => {
                        poll_fn(|_| match tried.borrow().len() {
                            fewer if fewer < count => Poll::Pending,
                            _ => Poll::Ready(Ok(number)),
                        })
                        .await
                    }
                    Fate::Fails(kind) => Err(kind.into()),
                    Fate::Silent => std::future::pending().await,
                }
            }
        };
        let result = reactor::block_on(connect(&addresses, attempt)).expect("a reactor");
        let result = result.map(|(to, number)| {
            assert_eq!(to, addresses[number]);
            number
        });
        let kind = |error: Option<io::Error>| error.map(|error| error.kind());
        (result.map_err(kind), tried.into_inner())
    }

    #[test]
    fn the_first_address_that_answers_is_connected_to() {
        use Fate::{Fails, Silent, Succeeds, SucceedsAfter};
        #[track_caller]
        fn check(
            why: &str,
            fates: &[Fate],
            expected: Result<usize, Option<io::ErrorKind>>,
            tried: &[usize],
        ) {
            assert_eq!(outcome(fates), (expected, tried.to_vec()), "{why}");
        }
        let (refused, gone) = (Fails(ConnectionRefused), Fails(HostUnreachable));
        check("no address", &[], Err(None), &[]);
        check(
            "one that answers is the only one tried",
            &[Succeeds, Succeeds],
            Ok(0),
            &[0],
        );
        check(
            "one that refuses is skipped",
            &[refused, gone, Succeeds],
            Ok(2),
            &[0, 1, 2],
        );
        check(
            "one that is silent is overtaken",
            &[Silent, Succeeds],
            Ok(1),
            &[0, 1],
        );
        check(
            "a failure starts the next attempt",
            &[Silent, refused, Succeeds],
            Ok(2),
            &[0, 1, 2],
        );
        check(
            "a slow attempt is not cancelled",
            &[SucceedsAfter(2), Silent],
            Ok(0),
            &[0, 1],
        );
        check(
            "a slow attempt succeeds when others fail",
            &[SucceedsAfter(2), refused],
            Ok(0),
            &[0, 1],
        );
        check(
            "all fail: the first error is returned",
            &[gone, Fails(io::ErrorKind::Other)],
            Err(Some(HostUnreachable)),
            &[0, 1],
        );
        check(
            "all fail: a refusal is returned",
            &[gone, refused],
            Err(Some(ConnectionRefused)),
            &[0, 1],
        );
        check(
            "also if it comes first",
            &[refused, gone],
            Err(Some(ConnectionRefused)),
            &[0, 1],
        );
    }

    #[test]
    fn an_address_that_refuses_costs_no_delay() {
        // With a delay for each, this would take an hour.
        let addresses = vec![address(1); 20_000];
        let attempt = |_| async { Err::<(), _>(io::Error::from(ConnectionRefused)) };
        let result = reactor::block_on(connect(&addresses, attempt)).expect("a reactor");
        assert!(result.is_err());
    }

    #[test]
    fn families_are_interleaved() {
        #[track_caller]
        fn check(addresses: &str, expected: &str) {
            let parse = |address: &str| match address {
                "6" => "[2001:db8::1]:80".parse().expect("an address"),
                last => format!("192.0.2.{last}:80").parse().expect("an address"),
            };
            let read =
                |text: &str| -> Vec<SocketAddr> { text.split_whitespace().map(parse).collect() };
            assert_eq!(interleave(read(addresses)), read(expected), "{addresses}");
        }
        check("", "");
        check("1 2 3", "1 2 3");
        check("6 6 6 1 2", "6 1 6 2 6");
        check("1 6 2 3", "1 6 2 3");
        check("1 2 3 6", "1 6 2 3");
    }
}
