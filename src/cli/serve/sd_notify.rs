//! Messages to the supervisor that started the program: sd_notify(3).
//!
//! Each message is a datagram to the socket that `NOTIFY_SOCKET` names; a name that begins with `@` is an abstract socket
//! of Linux. An error is only logged: a supervisor that waits for a message reports its absence itself.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use crate::cli::settings::Environment;
use crate::text::io_message;

/// Sends messages to the supervisor, if there is one.
pub struct Notifier(Option<Vec<u8>>);

impl Notifier {
    /// For the socket that the environment names.
    pub fn from_environment(environment: &Environment<'_>) -> Notifier {
        let given = environment.variable(NOTIFY_SOCKET);
        Notifier(given.and_then(|given| Some(given.path().ok()?.as_os_str().as_bytes().to_vec())))
    }

    /// Sends one state, such as `READY=1`.
    pub fn send(&self, state: &str) {
        let Some(name) = &self.0 else {
            return;
        };
        if let Err(error) = send(name, state) {
            log::warn!(
                "cannot send {state} to {NOTIFY_SOCKET}: {}",
                io_message(&error)
            );
        }
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix(b"@") {
        Some(name) => socket.send_to_addr(state.as_bytes(), &abstract_address(name)?)?,
        None => socket.send_to(state.as_bytes(), std::ffi::OsStr::from_bytes(name))?,
    };
    Ok(())
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The variable of sd_notify(3).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
