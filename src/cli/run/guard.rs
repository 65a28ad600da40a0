//! The guard of `ic run`: a second process of `ic` in the process group of the program.
//!
//! It answers what `ic` cannot see itself. A signal looks the same whether it was sent to `ic` alone or to the whole group, as by
//! a terminal, by timeout(1) or by `kill -- -PGID`; one that the guard receives as well was sent to the group, and the program
//! has it already. And what is killed with SIGKILL cannot take its program with it: the guard, whose standard input ends then,
//! ends the program.
//!
//! Refused: a process group for the program alone. Ctrl-Z, `fg` and the foreground of the terminal (tcsetpgrp(3)) would have
//! to be handed over each time, SIGKILL to the group would miss the program, and a service manager that signals each process of
//! a cgroup would still reach it twice.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::cli::outcome::Exit;

/// The only argument of a guard, and the name that it is shown under. Neither `pkill -f 'ic run'` nor, with Linux' `/proc`, `killall
/// ic` selects the guard, which would take the signal for one to the group.
pub const NAME: &str = "signal-guard";

/// The guard, as `ic run` sees it.
pub struct Guard {
    process: Child,
    /// The signals that it receives, each with the time at which it was reported.
    reports: Receiver<(i32, Instant)>,
    recent: Vec<(i32, Instant)>,
}

impl Guard {
    /// Starts the guard; [`is_ready`](Guard::is_ready) waits for it.
    ///
    /// # Errors
    ///
    /// The program of `ic` is not found or cannot be run again.
    pub fn start() -> io::Result<Guard> {
        let mut process = Command::new(own_program()?)
            .arg0(NAME)
            .arg(NAME)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It must not hold the streams of `ic` open.
            .stderr(Stdio::null())
            .spawn()?;
        let (sender, reports) = mpsc::channel();
        let output = process.stdout.take().into_iter().flat_map(Read::bytes);
        thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || {
                for byte in output.map_while(Result::ok) {
                    // Fails only after the guard has been dropped.
                    let _ = sender.send((i32::from(byte), Instant::now()));
                }
            })?;
        Ok(Guard {
            process,
            reports,
            recent: Vec::new(),
        })
    }

    /// Waits until it receives signals. False: it has ended, or does not start in time.
    pub fn is_ready(&self) -> bool {
        let first = self.reports.recv_timeout(START_TIME_MAX);
        first.is_ok_and(|(byte, _)| byte == READY)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Lets it end `program` when `ic` has ended without ending the guard. Called at once after the start of the program, which stays
    /// if `ic` is killed in between.
    pub fn watch(&mut self, program: Pid) -> io::Result<()> {
        match &mut self.process.stdin {
            Some(input) => writeln!(input, "{}", program.as_raw_nonzero()),
            None => Ok(()),
        }
    }

    /// Whether it has received `signal`, which `ic` has just received, as well. Waits for its report.
    pub fn has_received(&mut self, signal: i32) -> bool {
        let start = Instant::now();
        self.recent.extend(self.reports.try_iter());
        self.recent
            .retain(|(_, at)| start.saturating_duration_since(*at) < RECENT);
        loop {
            if self.recent.iter().any(|(received, _)| *received == signal) {
                return true;
            }
            let left = REPORT_TIME_MAX.saturating_sub(start.elapsed());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.recent.push(report),
                Err(_) => return false,
            }
        }
    }

    /// Ends it; the program has ended.
    pub fn end(mut self) {
        // It may have been killed by another process.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// This program, for another run. Under Linux also after an update has replaced its file.
fn own_program() -> io::Result<OsString> {
    let running = Path::new("/proc/self/exe");
    match running.exists() {
        true => Ok(running.into()),
        false => std::env::current_exe().map(OsString::from),
    }
}

/// What the guard itself does: reports each signal as one byte on standard output until standard input ends, which holds the
/// process id of the program; then ends the program.
pub fn run() -> Exit {
    let Ok(mut signals) = Signals::new(FORWARDED_SIGNALS) else {
        return Exit::CouldNot;
    };
    let report = |byte: i32| {
        let mut out = io::stdout();
        // Fails only if `ic` has ended, which is noticed at standard input.
        let _ = out.write_all(&[u8::try_from(byte).unwrap_or_default()]);
        let _ = out.flush();
    };
    report(READY);
    let reporter = thread::Builder::new().spawn(move || signals.forever().for_each(report));
    let mut program = String::new();
    let input = io::stdin().read_to_string(&mut program);
    if reporter.is_err() || input.is_err() {
        return Exit::CouldNot;
    }
    if let Some(program) = program.trim().parse().ok().and_then(Pid::from_raw) {
        end(program);
    }
    Exit::Done
}

/// Ends the program as a service manager does: SIGTERM, SIGCONT in case it is stopped, and SIGKILL if that does not help.
fn end(program: Pid) {
    // Each fails only if the program has ended, or has become another user's.
    let _ = kill_process(program, Signal::TERM);
    let _ = kill_process(program, Signal::CONT);
    let start = Instant::now();
    // Process ids are given out in turn: this one is not reused within a pause.
    while test_kill_process(program).is_ok() {
        if start.elapsed() > STOP_TIME_MAX {
            let _ = kill_process(program, Signal::KILL);
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// The signals that ask a program to stop, to reload or to report.
pub const FORWARDED_SIGNALS: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// The first byte of the guard's output; no signal has this number.
const READY: i32 = 0;

/// Starting takes a few milliseconds; a loaded machine may take a thousand times as long.
const START_TIME_MAX: Duration = Duration::from_secs(5);

/// The guard gets its copy of a signal within microseconds, but a loaded machine may not let it run at once, and a service
/// manager may signal one process after the other. A signal for `ic` alone is forwarded after this time.
const REPORT_TIME_MAX: Duration = Duration::from_millis(250);

/// A report is that of a signal at most this much older: one to the group may arrive in front of one to `ic`, and timeout(1)
/// sends both.
const RECENT: Duration = Duration::from_millis(500);

/// A program may save its state first.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(50);
