//! A process and its end, and a listening socket together with what holds it.

use std::net::SocketAddr;
use std::{fmt, fs, io};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A process that listens on a port or a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its process id, as seen from this process; of several that share a socket, the lowest: most often the parent.
    pub pid: u32,
    /// The name of its program. The program chooses it: it can be any text.
    pub program: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.program, self.pid)
    }
}

/// What holds a socket, as far as the system shows it to this user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// The process; `None` where this user may not see it.
    pub process: Option<Process>,
    /// The id of the user that owns the socket, if it is [another one](other_user).
    pub other_user: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, self.other_user) {
            (Some(process), None) => process.fmt(f),
            (Some(process), Some(uid)) => write!(f, "{process} of another user (uid {uid})"),
            (None, Some(uid)) => write!(f, "another user (uid {uid})"),
            (None, None) => f.write_str("a program that this user may not see"),
        }
    }
}

/// Returns `uid` if it is another user than the one that this process runs as.
///
/// Root is not another one: it can read everything of this user's, and binds sockets on behalf of others (systemd.socket(5)). To root
/// every other user is another one. In a user namespace all users without an id there have the same one, the overflow id
/// (user_namespaces(7)).
pub fn other_user(uid: u32) -> Option<u32> {
    (uid != 0 && uid != rustix::process::geteuid().as_raw()).then_some(uid)
}

/// A socket that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// What holds it.
    pub holder: Holder,
}

/// Asks a process to end, by SIGTERM. One that has ended already is no error.
///
/// # Errors
///
/// It belongs to another user.
pub fn ask_to_end(pid: u32) -> io::Result<()> {
    match process_id(pid).map(|pid| kill_process(pid, Signal::TERM)) {
        Some(Err(error)) if error != Errno::SRCH => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether no process has this id, or only one that waits for its parent to ask for its exit status.
pub fn has_ended(pid: u32) -> bool {
    let exists = process_id(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH));
    !exists || is_zombie(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
}

/// Whether a process with this content of `/proc/PID/stat` (proc_pid_stat(5)) has ended. While it has other threads than the
/// first one, which may end before them, it still has its descriptors.
fn is_zombie(status: &str) -> bool {
    // The values follow the program's name, which is any text in parentheses.
    let values = status.rsplit_once(") ").map_or("", |(_, values)| values);
    let mut values = values.split_ascii_whitespace();
    let is_dead = matches!(values.next(), Some("Z" | "X"));
    is_dead && matches!(values.nth(16), Some("0" | "1"))
}

fn process_id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The program name of an interceptor.
pub const IC: &str = "ic";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let of = |name: &str, state: &str, threads: u32| {
            format!(
                "812 ({name}) {state} 1 812 700 0 -1 4194316 9 0 0 0 0 0 0 0 20 0 {threads} 0 99 0\n"
            )
        };
        assert!(is_zombie(&of("ic", "Z", 1)));
        assert!(is_zombie(&of("a) S (b", "X", 0)));
        assert!(!is_zombie(&of("ic", "Z", 3)), "the first thread has ended");
        assert!(!is_zombie(&of("a) Z 1", "S", 1)));
        for unknown in ["", "812 (ic", "812 (ic) Z"] {
            assert!(!is_zombie(unknown), "{unknown}");
        }
        assert!(!has_ended(std::process::id()));
        if fs::read("/proc/self/stat").is_err() {
            eprintln!(
                "skipped: without /proc a process counts until its parent has asked for its exit status"
            );
            return;
        }
        let mut child = std::process::Command::new("true")
            .spawn()
            .expect("true runs");
        while !has_ended(child.id()) {
            std::thread::yield_now();
        }
        assert!(child.try_wait().expect("a child").is_some());
        assert!(has_ended(child.id()));
    }
}
