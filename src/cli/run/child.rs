//! The program that `ic run` runs: starting it, forwarding signals to it, waiting for it.
//!
//! It stays in the process group of `ic`, so that the shell treats the two as one job: both stop at Ctrl-Z, continue with
//! `fg`, and receive Ctrl-C from the terminal. A signal from the terminal has reached the program already and is not
//! forwarded; a signal sent to `ic` by another process is. Every child that ends is reaped, including orphans that `ic`
//! adopts when it runs as process 1.

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
use crate::cli::stop;
use crate::text::io_message;
use crate::text::raw;

/// Runs a program. Receives signals from its creation on, so that none is lost before the program runs.
pub struct Launcher {
    signals: SignalsInfo<WithOrigin>,
    /// The limit on open files at its creation, which the program gets. The interceptor raises the limit for itself, but some
    /// programs loop over all possible descriptors.
    descriptors: Rlimit,
}

impl Launcher {
    /// From here on, signals no longer end `ic`.
    pub fn new() -> io::Result<Launcher> {
        let ignored = stop::ignored_signals();
        let forwarded = FORWARDED_SIGNALS.iter().filter(|&&signal| {
            // `nohup` and `&` in scripts make a program ignore signals; a handler here would undo that.
            ignored >> (signal - 1) & 1 == 0
        });
        Ok(Launcher {
            signals: SignalsInfo::new(forwarded.chain([&SIGCHLD]))?,
            descriptors: getrlimit(Resource::Nofile),
        })
    }

    /// Runs the program with these variables added to the environment; returns its status as a shell does.
    ///
    /// # Errors
    ///
    /// The program does not exist (status 127) or cannot be run (126).
    pub fn run(
        self,
        program: &OsStr,
        arguments: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<u8, Failure> {
        let raised = getrlimit(Resource::Nofile);
        // Lowering the limit and raising it again up to the hard limit is always allowed.
        let _ = setrlimit(Resource::Nofile, self.descriptors);
        let spawned = Command::new(program)
            .args(arguments)
            .envs(variables)
            .spawn();
        let _ = setrlimit(Resource::Nofile, raised);
        let name = raw::to_text(program);
        match spawned {
            Ok(child) => Ok(self.wait(Pid::from_child(&child))),
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

    /// Forwards signals until the program ends; returns its status.
    fn wait(mut self, program: Pid) -> u8 {
        loop {
            // Collected first: another signal may arrive while one is forwarded.
            let signals: Vec<_> = self.signals.wait().collect();
            for signal in signals {
                let sender = signal.process.as_ref().map(|sender| sender.pid);
                let same_group = || is_in_our_group(program);
                if signal.signal != SIGCHLD && must_be_forwarded(sender, program, same_group) {
                    // Fails only if the program has ended, which the next step notices.
                    let _ = kill_process(program, rustix_signal(signal.signal));
                }
            }
            if let Some(status) = reap(program) {
                return status;
            }
        }
    }
}

/// Reaps every child that has ended; returns the status of `program` if it is one of them.
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

/// Whether a signal received by `ic` has not reached `program` itself. `sender` is `None` for signals from the terminal.
fn must_be_forwarded(sender: Option<i32>, program: Pid, same_group: impl FnOnce() -> bool) -> bool {
    match sender {
        // Sent by the program to its process group, which includes it.
        Some(sender) => sender != program.as_raw_nonzero().get(),
        // Sent to the foreground process group. A program that created its own group is not in it.
        None => !same_group(),
    }
}

/// Whether `program` is in the process group of `ic`; true if unknown, since few programs create their own group.
/// getpgid(2) is not used: for process 1 of a container the group can be 0, which rustix treats as impossible.
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

/// The process group in the content of `/proc/PID/stat`: the third value after the program's name, which is any text in
/// parentheses.
fn process_group(status: &str) -> Option<&str> {
    let (_, values) = status.rsplit_once(')')?;
    values.split_ascii_whitespace().nth(2)
}

fn rustix_signal(number: i32) -> Signal {
    Signal::from_named_raw(number).unwrap_or(Signal::TERM)
}

/// The signals that ask a program to stop, to reload or to report.
const FORWARDED_SIGNALS: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

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
            assert_eq!(must_be_forwarded(sender, program, || same_group), expected);
        }
        check(Some(1), program, true, true); // `kill`, a supervisor
        check(Some(1), program, false, true);
        check(None, program, true, false); // Ctrl-C, which the program received as well
        check(None, program, false, true); // the program is not in the foreground
        check(Some(812), program, true, false); // `kill 0` in the program
    }

    #[test]
    fn a_process_group_is_read_for_any_program_name() {
        assert_eq!(
            process_group("812 (node) S 1 812 700 0 -1 4194304"),
            Some("812")
        );
        assert_eq!(process_group("9 (a) S 1 (x) R 8 0 7 0"), Some("0"));
        assert_eq!(process_group("9 (a"), None);
        assert_eq!(process_group(""), None);
    }
}
