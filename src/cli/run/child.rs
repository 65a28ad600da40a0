//! The program that `ic run` runs: started, told of signals, waited for.
//!
//! It stays in the process group of `ic`, so that a terminal and its shell treat the two as one job: both stop at Ctrl-Z,
//! go on with `fg`, and get Ctrl-C from the terminal itself. Such a signal has reached the program already and is not
//! passed on; one that somebody sent to `ic` is. Every child that ends is waited for, also one that was left to `ic`
//! because it runs as process 1.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Command;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getrlimit, kill_process, setrlimit,
    wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

use crate::cli::outcome::{Exit, Failure};
use crate::text::io_message;
use crate::text::raw;

/// A program that is to be started, with signals that are received already: none gets lost in between.
pub struct Child(SignalsInfo<WithOrigin>);

impl Child {
    /// From here on, signals do not end `ic`.
    pub fn expect() -> io::Result<Child> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let passed_on = PASSED_ON.iter().filter(|&&signal| {
            // `nohup` and `&` in scripts take signals away from a program; a handler here would give them back to it.
            ignored >> (signal - 1) & 1 == 0
        });
        Ok(Child(SignalsInfo::new(passed_on.chain([&SIGCHLD]))?))
    }

    /// Starts it.
    pub fn spawn(
        self,
        program: &OsStr,
        arguments: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Running, Failure> {
        let spawned = Command::new(program)
            .args(arguments)
            .envs(variables)
            .spawn();
        let name = raw::to_text(program);
        match spawned {
            Ok(child) => Ok(Running {
                pid: Pid::from_child(&child),
                signals: self.0,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure {
                exit: Exit::Status(NOT_FOUND),
                message: format!("there is no program `{name}`; check its name and PATH"),
            }),
            Err(error) => Err(Failure {
                exit: Exit::Status(NOT_EXECUTABLE),
                message: format!(
                    "cannot run `{name}`: {}; check the file",
                    io_message(&error)
                ),
            }),
        }
    }
}

/// A program that was started.
pub struct Running {
    pid: Pid,
    signals: SignalsInfo<WithOrigin>,
}

impl Running {
    /// Passes signals on until it has ended; returns its status as a shell would.
    pub fn wait(mut self) -> u8 {
        loop {
            // Collected first: a signal may come while one is passed on.
            let signals: Vec<_> = self.signals.wait().collect();
            for signal in signals {
                let sender = signal.process.as_ref().map(|sender| sender.pid);
                let same_group = || is_in_our_group(self.pid);
                if signal.signal != SIGCHLD && is_to_be_passed_on(sender, self.pid, same_group) {
                    // It may have ended; then that is noticed next.
                    let _ = kill_process(self.pid, rustix_signal(signal.signal));
                }
            }
            if let Some(status) = reap(self.pid) {
                return status;
            }
        }
    }
}

/// Waits for every child that has ended, and returns the status of `program` if it is among them.
fn reap(program: Pid) -> Option<u8> {
    let mut status = None;
    while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            status = Some(status_of(ended));
        }
    }
    status
}

fn status_of(ended: WaitStatus) -> u8 {
    let status = match (ended.exit_status(), ended.terminating_signal()) {
        (Some(status), _) => status,
        (None, Some(signal)) => SIGNALLED + signal,
        (None, None) => i32::from(u8::MAX),
    };
    // A status has eight bits, and no signal has a number above 64.
    u8::try_from(status).unwrap_or(u8::MAX)
}

/// Whether a signal that `sender` sent to `ic` has yet to reach `program`; none has sent what comes from the terminal.
fn is_to_be_passed_on(
    sender: Option<i32>,
    program: Pid,
    same_group: impl FnOnce() -> bool,
) -> bool {
    match sender {
        // The program to its whole group, itself included.
        Some(sender) => sender != program.as_raw_nonzero().get(),
        // The terminal to all of the group in its foreground. A program that made a group of its own is not in it.
        None => !same_group(),
    }
}

/// Where that cannot be told it is so, since programs that make a group of their own are few. Not asked by getpgid(2):
/// as process 1 a group can be that of a process outside, whose number is 0, which rustix takes for impossible.
fn is_in_our_group(program: Pid) -> bool {
    let group = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        process_group(&status).map(str::to_owned)
    };
    let theirs = group(&program.as_raw_nonzero().to_string());
    match (group("self"), theirs) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    }
}

/// The process group in a process's `/proc/PID/stat`: the third value behind the program's name, which may be any text
/// in parentheses.
fn process_group(status: &str) -> Option<&str> {
    let (_, values) = status.rsplit_once(')')?;
    values.split_ascii_whitespace().nth(2)
}

fn rustix_signal(number: i32) -> Signal {
    Signal::from_named_raw(number).unwrap_or(Signal::TERM)
}

/// The signals that a process ignores, one bit each, out of its `/proc/PID/status`; none where that is not known.
fn ignored(status: &str) -> u64 {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0)
}

/// How many files the program may open: an interceptor raises the limit for itself, but some programs take their time
/// for each descriptor that they could have.
pub struct DescriptorLimit(Rlimit);

impl DescriptorLimit {
    /// As it is now.
    pub fn now() -> DescriptorLimit {
        DescriptorLimit(getrlimit(Resource::Nofile))
    }

    /// Does `start` under the limit as it was.
    pub fn during<T>(self, start: impl FnOnce() -> T) -> T {
        let raised = getrlimit(Resource::Nofile);
        // Lowering it and raising it again below the hard limit is always allowed.
        let _ = setrlimit(Resource::Nofile, self.0);
        let started = start();
        let _ = setrlimit(Resource::Nofile, raised);
        started
    }
}

/// Those by which people and supervisors tell a program to stop, to reload or to report.
const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// POSIX, `sh`, Exit Status for Commands.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNALLED: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_reaches_the_program_once() {
        let program = Pid::from_raw(812).expect("not 0");
        #[track_caller]
        fn check(sender: Option<i32>, program: Pid, same_group: bool, expected: bool) {
            assert_eq!(is_to_be_passed_on(sender, program, || same_group), expected);
        }
        check(Some(1), program, true, true); // `kill`, a supervisor
        check(Some(1), program, false, true);
        check(None, program, true, false); // Ctrl-C, which the program got as well
        check(None, program, false, true); // the program is not in the foreground
        check(Some(812), program, true, false); // `kill 0` in the program
    }

    #[test]
    fn a_process_group_is_read_whatever_the_program_is_called() {
        assert_eq!(
            process_group("812 (node) S 1 812 700 0 -1 4194304"),
            Some("812")
        );
        assert_eq!(process_group("9 (a) S 1 (x) R 8 0 7 0"), Some("0"));
        assert_eq!(process_group("9 (a"), None);
        assert_eq!(process_group(""), None);
    }

    #[test]
    fn ignored_signals_are_read_out_of_a_processs_status() {
        assert_eq!(
            ignored("Name:\tic\nSigIgn:\t0000000000001001\nSigCgt:\tff\n"),
            0x1001
        );
        assert_eq!(ignored("Name:\tic\n"), 0);
        assert_eq!(ignored("SigIgn:\tnone\n"), 0);
        assert_eq!(ignored(""), 0);
    }
}
