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
    // The state follows the program's name, which is any text in parentheses (proc_pid_stat(5)).
    let status = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !exists
        || status()
            .rsplit(") ")
            .next()
            .is_some_and(|state| state.starts_with(['Z', 'X']))
}

fn process_id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The program name of an interceptor.
pub const IC: &str = "ic";
