//! What a process has used, by the kernel's account: CPU time, memory, system calls, and the time until it listens.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A process and the processes that it has started.
#[derive(Debug, Clone)]
pub struct Family {
    pids: Vec<u32>,
}

impl Family {
    /// Those of `pid` that run now.
    pub fn of(pid: u32) -> Family {
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
        Family { pids }
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

    /// Proportional set size: its own memory, and its share of what others map as well. In bytes.
    pub fn pss(&self) -> u64 {
        self.size("Pss:")
    }

    /// Of it, what no file is mapped to: how much of its code and its libraries a process has touched by chance does not matter. In
    /// bytes.
    pub fn data(&self) -> u64 {
        self.size("Pss_Anon:") + self.size("Pss_Shmem:")
    }

    fn size(&self, name: &str) -> u64 {
        let sizes = self.pids.iter().filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let line =
                line.unwrap_or_else(|| panic!("the kernel does not tell {name} Linux 5.4 does"));
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        sizes.sum::<u64>() * 1024
    }

    pub fn threads(&self) -> usize {
        self.pids
            .iter()
            .map(|pid| entries(format!("/proc/{pid}/task")).count())
            .sum()
    }
}

/// Each process and its parent.
fn processes() -> impl Iterator<Item = (u32, u32)> {
    entries("/proc").filter_map(|path| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // `pid (name) state ppid …`, and a name may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        Some((pid, rest.split_ascii_whitespace().nth(1)?.parse().ok()?))
    })
}

fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = std::path::PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path()))
}

/// Waits until somebody listens on `address`; `is_alive` says whether that can still be.
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
                "it does not listen after 10 s",
            ));
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// All system calls that `strace -c` has counted, once it has written them down.
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
