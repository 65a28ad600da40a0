//! Tells whoever supervises the program that it is ready, and that it stops: sd_notify(3).
//!
//! A datagram for each, to the socket that `NOTIFY_SOCKET` names; a name that begins with `@` is one of Linux's abstract
//! sockets. That nobody hears it is no reason not to serve: a supervisor that waits for it says so itself.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use crate::cli::settings::Environment;
use crate::text::io_message;

/// What has started the program and waits for it, if anything does.
pub struct Supervisor(Option<Vec<u8>>);

impl Supervisor {
    /// The one that the environment names.
    pub fn of(environment: &Environment<'_>) -> Supervisor {
        let given = environment.variable(NOTIFY_SOCKET);
        Supervisor(given.and_then(|given| Some(given.path().ok()?.as_os_str().as_bytes().to_vec())))
    }

    /// Tells it one thing, as `READY=1`.
    pub fn tell(&self, state: &str) {
        let Some(name) = &self.0 else {
            return;
        };
        if let Err(error) = send(name, state) {
            log::warn!(
                "{NOTIFY_SOCKET} cannot be told {state}: {}",
                io_message(&error)
            );
        }
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix(b"@") {
        Some(name) => socket.send_to_addr(state.as_bytes(), &in_the_abstract(name)?)?,
        None => socket.send_to(state.as_bytes(), std::ffi::OsStr::from_bytes(name))?,
    };
    Ok(())
}

#[cfg(target_os = "linux")]
fn in_the_abstract(name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn in_the_abstract(_name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The variable of sd_notify(3).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
