//! Which process listens on which port.
//!
//! Only what the system shows is returned: it hides the processes of other users, and then the process is `None`, never a
//! guess. The two ways to ask a system are in `proc` and `lsof`.

#[cfg(any(not(target_os = "linux"), ic_portable, test))]
mod lsof;
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod proc;

use std::path::Path;

use super::process::{Listener, Process};

#[cfg(not(all(target_os = "linux", not(ic_portable))))]
use self::lsof as system;
#[cfg(all(target_os = "linux", not(ic_portable)))]
use self::proc as system;

pub use self::system::UNAVAILABLE;

/// Returns the sockets that listen on the ports that are `wanted`, and all others of programs called `ic`, from one look at
/// the machine. `None`: the system does not list them ([`UNAVAILABLE`] says why).
pub fn listeners(wanted: impl Fn(u16) -> bool) -> Option<Vec<Listener>> {
    system::listeners(&wanted)
}

/// Returns the process that listens on `port`, if there is one and this user may see it.
pub fn process_on(port: u16) -> Option<Process> {
    listeners(|wanted| wanted == port)?
        .into_iter()
        .filter(|listener| listener.address.port() == port)
        .find_map(|listener| listener.process)
}

/// Returns the process that listens on the Unix socket at `path`, if there is one and the system says so.
pub fn process_on_socket(path: &Path) -> Option<Process> {
    system::process_on_socket(path)
}

/// Whether `pid` is a process id of `process`: in another PID namespace, such as a container's, it has another one.
pub fn has_pid(process: &Process, pid: u32) -> bool {
    process.pid == pid || system::has_pid(process.pid, pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let Some(process) = process_on(port) else {
            // The right answer only where it takes an lsof that is not installed.
            let asks_lsof = cfg!(any(not(target_os = "linux"), ic_portable));
            let lsof = std::process::Command::new("lsof").arg("-v").output();
            assert!(asks_lsof && lsof.is_err(), "{lsof:?}");
            eprintln!("skipped: lsof is not installed");
            return;
        };
        assert_eq!(process.pid, std::process::id());
        assert!(has_pid(&process, process.pid));
        assert!(!has_pid(&process, 1));
        drop(listener);
    }
}
