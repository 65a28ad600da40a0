//! Connections to addresses, each with a time limit, by the connector that the interceptor itself uses.
//!
//! Of a target in TLS only the TCP connection is made. Which certificates are trusted is known to its interceptor, which
//! reports a failed handshake itself.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::serve::conn::Stream;
use crate::serve::reactor;
use crate::serve::upstream::connect::once;
use crate::serve::upstream::error::ConnectError;
use crate::serve::{Endpoint, connect_at_once};
use crate::text::io_message;

/// Why there is no connection, or no response on it, as a predicate: `refuses connections`.
pub type Unreachable = String;

/// The predicate for a time limit that has passed.
pub fn timed_out(limit: Duration) -> Unreachable {
    format!("does not answer in {} s", limit.as_secs_f32())
}

/// The predicate for any other error.
pub fn failed(error: &io::Error) -> Unreachable {
    format!("cannot be reached: {}", io_message(error))
}

/// Connects to `endpoint` within `limit`.
///
/// # Errors
///
/// Why none of its addresses could be connected to.
pub async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Stream, Unreachable> {
    once(endpoint, limit).await.map_err(|error| match error {
        ConnectError::Unresolved(error) => format!("has no address ({})", io_message(&error)),
        ConnectError::Refused => "refuses connections".to_owned(),
        ConnectError::Timeout => timed_out(limit),
        ConnectError::Failed(error) => failed(&error),
        ConnectError::NoDescriptors => {
            "cannot be reached: no file descriptors are left; raise `ulimit -n`".to_owned()
        }
        // Errors of TLS and of a proxy, neither of which is used.
        _ => "cannot be reached".to_owned(),
    })
}

/// Connects to `endpoint` within `limit`, and closes the connection.
///
/// # Errors
///
/// As [`connect`].
pub fn reach(endpoint: &Endpoint, limit: Duration) -> Result<(), Unreachable> {
    reactor::block_on(connect(endpoint, limit))
        .unwrap_or_else(|error| Err(failed(&error)))
        .map(drop)
}

/// Connects to the Unix socket at `path` within `limit`, for blocking reads and writes.
///
/// # Errors
///
/// The system's; `WouldBlock` where the socket's queue stayed full for that long: a blocking connect would wait for ever.
pub fn connect_unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + limit;
    loop {
        match connect_at_once(path) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                // No event says that the queue has room.
                thread::sleep(FULL_QUEUE_PAUSE);
            }
            result => return result,
        }
    }
}

/// Between two attempts at a socket whose queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Target;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    fn reach(target: &str) -> Result<(), Unreachable> {
        let target: Target = target.parse().expect("a target");
        super::reach(target.endpoint(), LIMIT)
    }

    #[test]
    fn a_target_is_reachable_or_the_error_says_why_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(reach(&format!("http://127.0.0.1:{port}/v1")), Ok(()));
        // Where `localhost` is ::1 first, the other address counts as well.
        assert_eq!(reach(&format!("http://localhost:{port}")), Ok(()));
        drop(listener);
        let refused = reach(&format!("http://127.0.0.1:{port}"));
        assert_eq!(refused, Err("refuses connections".to_owned()));
        let why = reach("http://no-such-host.invalid").expect_err("it has no address");
        assert!(why.starts_with("has no address ("), "{why}");
        assert!(reach("unix:/no/such/socket").is_err());
    }

    #[test]
    fn a_socket_whose_queue_is_full_is_given_up_after_the_limit() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("full.sock");
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        let address = SocketAddrUnix::new(&path).expect("a short path");
        bind(&listener, &address).expect("a new name");
        listen(&listener, 1).expect("it is bound");
        let limit = Duration::from_millis(50);
        let mut queued = Vec::new();
        let error = loop {
            match connect_unix(&path, limit) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 100, "the queue has an end");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let endpoint = Endpoint::Unix(path);
        assert_eq!(super::reach(&endpoint, limit), Err(timed_out(limit)));
    }
}
