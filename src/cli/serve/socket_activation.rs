//! Sockets that the supervisor opened and passed in: sd_listen_fds(3), as systemd does for a unit with a `.socket`.
//!
//! Decided here: whether there are any for this process, and that each is a TCP or Unix stream socket. The file of a Unix
//! socket stays: it belongs to the supervisor. The sockets say where to listen, so `--host`, `--port` and `--listen`
//! contradict them and are refused; `INTERCEPTOR_PORT` is only a default and is ignored. The registry is not written, and read only
//! for what `ic set` keeps of the project, with `INTERCEPTOR_PORT` not at all.

use std::net::SocketAddr;

use listenfd::ListenFd;

use super::arguments::Serve;
use super::port::{PortChoice, PortOrigin};
use crate::cli::outcome::Failure;
use crate::cli::settings::Environment;
use crate::registry::Port;
use crate::serve::{Listener, listens};
use crate::text::io_message;

/// Listening sockets that were passed in, at least one.
pub struct Inherited {
    /// The addresses of the TCP sockets.
    pub addresses: Vec<SocketAddr>,
    /// All sockets.
    pub listeners: Vec<Listener>,
}

impl Inherited {
    /// The port of the first TCP socket, if there is one.
    pub fn port(&self) -> PortChoice {
        let mut ports = self.addresses.iter().map(SocketAddr::port);
        match ports.find_map(|port| Port::try_from(port).ok()) {
            Some(port) => PortChoice::Given(port, PortOrigin::Inherited),
            None => PortChoice::None,
        }
    }

    /// Takes the sockets that were passed to this process, if any. Call it once, before anything else is opened: it removes
    /// the variables, so that no child process uses them.
    ///
    /// # Errors
    ///
    /// Bad usage: an option contradicts the sockets, or one of them cannot be listened on.
    pub fn take(
        serve: &Serve,
        environment: &Environment<'_>,
    ) -> Result<Option<Inherited>, Failure> {
        let count = count(environment, std::process::id())?;
        if count == 0 {
            return Ok(None);
        }
        let places = [
            ("--host", !serve.host.is_empty()),
            ("--port", serve.port.is_some()),
            ("--listen", serve.listen.is_some()),
        ];
        if let Some((option, _)) = places.iter().find(|(_, is_given)| *is_given) {
            return Err(Failure::usage(format!(
                "`{option}` says where to listen, and so do the sockets of {LISTEN_FDS}; leave one of them out"
            )));
        }
        let mut passed = ListenFd::from_env();
        let mut inherited = Inherited {
            addresses: Vec::new(),
            listeners: Vec::new(),
        };
        for at in 0..count {
            let refused = |why: String| {
                Failure::usage(format!(
                    "socket {} of {LISTEN_FDS} is not one that `ic` can listen on ({why}); give it TCP or Unix stream sockets",
                    at + 1
                ))
            };
            // A socket of another kind is left in place.
            let listener = match passed.take_tcp_listener(at) {
                Ok(listener) => listener.map(Listener::Tcp),
                Err(_) => passed
                    .take_unix_listener(at)
                    .map_err(|error| refused(io_message(&error)))?
                    .map(|socket| Listener::Unix { file: None, socket }),
            };
            let listener = listener.ok_or_else(|| refused("it is missing".to_owned()))?;
            if !listens(&listener).map_err(|error| refused(io_message(&error)))? {
                return Err(refused(
                    "it does not listen; in a `.socket`, use Accept=no".to_owned(),
                ));
            }
            let address = listener
                .address()
                .map_err(|error| refused(io_message(&error)))?;
            inherited.addresses.extend(address.tcp());
            inherited.listeners.push(listener);
        }
        Ok(Some(inherited))
    }
}

/// How many sockets were passed to process `pid`: none if the variables name another process.
fn count(environment: &Environment<'_>, pid: u32) -> Result<usize, Failure> {
    let is_ours = environment
        .variable(LISTEN_PID)
        .is_some_and(|given| given.count(1).ok() == usize::try_from(pid).ok());
    match environment.variable(LISTEN_FDS).filter(|_| is_ours) {
        None => Ok(0),
        Some(given) => match given.count(0)? {
            count if count > SOCKETS_MAX => Err(given.refused(format_args!(
                "is more sockets than `ic` listens on; give at most {SOCKETS_MAX}"
            ))),
            count => Ok(count),
        },
    }
}

/// The process that the sockets are for.
const LISTEN_PID: &str = "LISTEN_PID";

/// The number of sockets.
const LISTEN_FDS: &str = "LISTEN_FDS";

/// Enough for `localhost` (two) and several other addresses.
const SOCKETS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outcome::Exit;
    use std::ffi::OsString;

    #[test]
    fn sockets_are_taken_only_by_the_process_that_they_are_for() {
        #[track_caller]
        fn check(variables: &[(&str, &str)], expected: Result<usize, &str>) {
            let read = |name: &str| {
                let found = variables.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| OsString::from(value))
            };
            match (count(&Environment(&read), 812), expected) {
                (Ok(count), Ok(expected)) => assert_eq!(count, expected, "{variables:?}"),
                (Err(failure), Err(start)) => {
                    assert_eq!(failure.exit, Exit::BadUsage);
                    assert!(failure.to_string().starts_with(start), "{failure}");
                }
                (Ok(count), Err(_)) => panic!("{variables:?}: {count}"),
                (Err(failure), Ok(_)) => panic!("{variables:?}: {failure}"),
            }
        }
        check(&[], Ok(0));
        check(&[("LISTEN_FDS", "2")], Ok(0));
        check(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "812")], Ok(2));
        check(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "813")], Ok(0));
        check(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "")], Ok(0));
        check(&[("LISTEN_FDS", "x"), ("LISTEN_PID", "813")], Ok(0));
        check(&[("LISTEN_FDS", "0"), ("LISTEN_PID", "812")], Ok(0));
        check(&[("LISTEN_PID", "812")], Ok(0));
        let refused = Err("`LISTEN_FDS=x` is not a valid number");
        check(&[("LISTEN_FDS", "x"), ("LISTEN_PID", "812")], refused);
        let refused = Err("`LISTEN_FDS=17` is more sockets");
        check(&[("LISTEN_FDS", "17"), ("LISTEN_PID", "812")], refused);
    }
}
