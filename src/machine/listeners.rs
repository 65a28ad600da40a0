//! Which process of which user listens on which port.
//!
//! Only what the system shows is returned: it hides the processes of other users, and then the process is `None`, never a
//! guess. Linux shows the owner of each socket to every user (proc_pid_net(5)); lsof of other systems shows other users' sockets to
//! root only. The two ways to ask a system are in `proc` and `lsof`.

#[cfg(any(not(target_os = "linux"), ic_portable, test))]
mod lsof;
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod proc;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::process::{Holder, Listener, Process, other_user};

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

/// Returns what listens on `port`: another user, if one does on any address.
pub fn holder_of(port: u16) -> Holder {
    let holders = on_port(port).unwrap_or_default().into_iter();
    // A socket of another user is `true`, which is greater; then one with a process.
    holders
        .map(|listener| listener.holder)
        .max_by_key(|holder| (holder.other_user.is_some(), holder.process.is_some()))
        .unwrap_or_default()
}

/// Whether every socket that listens on `port` is known to be this user's, and there is one.
pub fn is_own(port: u16) -> bool {
    on_port(port).is_some_and(|listeners| {
        let mut holders = listeners.iter().map(|listener| &listener.holder);
        !listeners.is_empty() && holders.all(|holder| holder.other_user.is_none())
    })
}

/// Returns the sockets that listen on `port`; `None` as for [`listeners`].
pub fn on_port(port: u16) -> Option<Vec<Listener>> {
    let mut found = listeners(|wanted| wanted == port)?;
    found.retain(|listener| listener.address.port() == port);
    Some(found)
}

/// Returns what listens on the Unix socket at `path`. The file belongs to the user that has bound it (unix(7)), unless root has given
/// it to another one.
pub fn holder_of_socket(path: &Path) -> Holder {
    let metadata = fs::metadata(path).ok();
    Holder {
        process: system::process_on_socket(path),
        other_user: metadata.and_then(|metadata| other_user(metadata.uid())),
    }
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
        let Some(process) = holder_of(port).process else {
            // The right answer only where it takes an lsof that is not installed.
            let asks_lsof = cfg!(any(not(target_os = "linux"), ic_portable));
            let lsof = std::process::Command::new("lsof").arg("-v").output();
            assert!(asks_lsof && lsof.is_err(), "{lsof:?}");
            eprintln!("skipped: lsof is not installed");
            return;
        };
        assert_eq!(process.pid, std::process::id());
        assert!(is_own(port));
        assert!(has_pid(&process, process.pid));
        assert!(!has_pid(&process, 1));
        drop(listener);
    }
}
