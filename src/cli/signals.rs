//! The signals that stop `ic`, and how commands wait for them that have nothing to finish first.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::flag;

use crate::cli::outcome::{Exit, Failure};
use crate::text::io_message;

/// The signals that stop a command: SIGINT and SIGTERM, and SIGHUP unless it was ignored at the start, as by nohup(1).
pub(super) fn stop_signals() -> &'static [i32] {
    match ignored_signals() >> (SIGHUP - 1) & 1 {
        0 => &[SIGINT, SIGTERM, SIGHUP],
        _ => &[SIGINT, SIGTERM],
    }
}

/// The signals that were ignored when this process started, one bit each, the lowest for signal 1. Without Linux' `/proc` only that
/// of SIGHUP is known.
pub(super) fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status).unwrap_or_else(|| u64::from(a_shell_ignores_hangup()) << (SIGHUP - 1))
}

/// The ignored signals in the content of `/proc/PID/status` (proc_pid_status(5)).
fn ignored(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether a child ignores SIGHUP, which it does if this process has ignored it since its start (execve(2)).
fn a_shell_ignores_hangup() -> bool {
    let survives = Command::new("/bin/sh")
        .args(["-c", "kill -HUP $$"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    survives.is_ok_and(|status| status.success())
}

/// A stream that becomes readable on one of [`stop_signals`]. The signals have no other effect from then on. Works for process 1 of
/// a container too, where signals without a handler are ignored.
///
/// # Errors
///
/// "Could not": no descriptor is left.
pub(super) fn signals() -> Result<UnixStream, Failure> {
    register(stop_signals()).map_err(|error| cannot_receive(&error))
}

fn cannot_receive(error: &io::Error) -> Failure {
    Failure::could_not(format!(
        "cannot receive signals: {}; socketpair(2) and sigaction(2) are needed",
        io_message(error)
    ))
}

/// The pauses of a command that repeats something until it is stopped. A terminal that gets another size ends one early.
pub(super) struct Pauses(UnixStream);

impl Pauses {
    /// From here on, a signal to stop ends the process at once, with success.
    ///
    /// # Errors
    ///
    /// As [`signals`].
    pub(super) fn new() -> Result<Pauses, Failure> {
        let resized = || {
            for &signal in stop_signals() {
                let always = Arc::new(AtomicBool::new(true));
                flag::register_conditional_shutdown(signal, 0, always)?;
            }
            register(&[SIGWINCH])
        };
        resized()
            .map(Pauses)
            .map_err(|error| cannot_receive(&error))
    }

    /// Waits for `time`.
    pub(super) fn wait(&mut self, time: Duration) {
        let _ = self.0.set_read_timeout(Some(time));
        // Interrupted by the signal, it fails before the byte is there; the next pause then ends early too.
        let _ = self.0.read(&mut [0; 64]);
    }
}

/// Runs `server` in a thread of its own until `stop`, as [`signals`] returns it, has something to read.
///
/// # Errors
///
/// "Could not": the server failed, or no thread can be started.
pub(super) fn run_until_signal(
    mut stop: UnixStream,
    name: &str,
    server: impl FnOnce() -> io::Error + Send + 'static,
) -> Result<Exit, Failure> {
    let cannot_go_on = |error: io::Error| {
        Failure::could_not(format!("{name} cannot go on: {}", io_message(&error)))
    };
    let (failed, failure) = mpsc::channel();
    let wake = stop.try_clone().map_err(cannot_go_on)?;
    thread::Builder::new()
        .name("server".to_owned())
        .spawn(move || {
            let _ = failed.send(server());
            // The read below returns.
            let _ = wake.shutdown(Shutdown::Both);
        })
        .map_err(cannot_go_on)?;
    // If this fails, signals are no longer caught, and the default action ends the process.
    let _ = stop.read(&mut [0]);
    match failure.try_recv() {
        Ok(error) => Err(cannot_go_on(error)),
        Err(_) => Ok(Exit::Done),
    }
}

fn register(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for &signal in signals {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let text = "Name:\tic\nSigIgn:\t0000000000001001\nSigCgt:\tff\n";
        assert_eq!(ignored(text), Some(0x1001));
        for unknown in ["Name:\tic\n", "SigIgn:\tnone\n", ""] {
            assert_eq!(ignored(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn a_shell_ignores_hangup_if_this_process_does() {
        let hangup = 1 << (SIGHUP - 1);
        assert_eq!(ignored_signals() & hangup != 0, a_shell_ignores_hangup());
    }
}
