//! Resources that processes have used, as the kernel counts them: CPU time, memory, system calls.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A process and its descendants.
#[derive(Debug, Clone)]
pub struct ProcessTree {
    pids: Vec<u32>,
}

impl ProcessTree {
    /// Those of process `pid` that are running.
    pub fn of(pid: u32) -> ProcessTree {
        let mut pids = vec![pid];
        let parents: Vec<(u32, u32)> = processes().collect();
        let mut at = 0;
        while let Some(&parent) = pids.get(at) {
            pids.extend(
                parents
                    .iter()
                    .filter(|(_, of)| *of == parent)
                    .map(|(child, _)| child),
            );
            at += 1;
        }
        ProcessTree { pids }
    }

    /// CPU time of all threads, user and system.
    pub fn cpu(&self) -> Duration {
        let tasks = self
            .pids
            .iter()
            .flat_map(|pid| entries(format!("/proc/{pid}/task")));
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Memory that no file backs, so that the system cannot take it back without swap; in KiB.
    pub fn anonymous_kib(&self) -> u64 {
        self.kib("Anonymous:")
    }

    /// Resident memory, in KiB. Pages that several of the processes map count for each of them.
    pub fn resident_kib(&self) -> u64 {
        self.kib("Rss:")
    }

    fn kib(&self, name: &str) -> u64 {
        let sizes = self.pids.iter().filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line?.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        sizes.sum()
    }
}

/// The id of each process and of its parent.
fn processes() -> impl Iterator<Item = (u32, u32)> {
    entries("/proc").filter_map(|path| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // `pid (name) state ppid …`, and the name can contain any character.
        let (_, rest) = stat.rsplit_once(')')?;
        Some((pid, rest.split_ascii_whitespace().nth(1)?.parse().ok()?))
    })
}

fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = std::path::PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path()))
}

/// Waits up to 10 s until `address` accepts connections; stops when `is_alive` fails.
pub fn until_listening(
    address: SocketAddr,
    mut is_alive: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        is_alive()?;
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "not listening after 10 s",
            ));
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// Waits up to 10 s for the report of `strace -c`, and returns the number of system calls in it.
pub fn system_calls(file: &Path) -> Result<u64, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        // `100.00    0.001234           2       617         3 total`
        if let Some(total) = text.lines().find(|line| line.ends_with(" total")) {
            let calls = total
                .split_ascii_whitespace()
                .nth(3)
                .and_then(|calls| calls.parse().ok());
            return calls.ok_or_else(|| format!("strace wrote: {total}"));
        }
        if Instant::now() > deadline {
            return Err("strace has written no counts".to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
}
