//! The program that `ic run` runs: starting it, forwarding signals to it, waiting for it.
//!
//! It stays in the process group of `ic`, so that the shell treats the two as one job: both stop at Ctrl-Z, continue with
//! `fg`, and receive Ctrl-C from the terminal. A signal to the group has reached the program already and is not forwarded; a
//! signal to `ic` alone is. `guard` tells them apart. Every child that ends is reaped, including orphans that `ic` adopts when
//! it runs as process 1.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getrlimit, kill_process, setrlimit,
    wait,
};
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

use super::guard::{FORWARDED_SIGNALS, Guard};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::signals;
use crate::text::io_message;
use crate::text::raw;

/// Runs a program. Receives signals from its creation on, so that none is lost before the program runs.
pub struct Launcher {
    signals: Signals,
    /// Without it every signal is forwarded.
    guard: Option<Guard>,
    /// The limit on open files at its creation, which the program gets. The interceptor raises the limit for itself, but some
    /// programs loop over all possible descriptors.
    descriptors: Rlimit,
}

impl Launcher {
    /// From here on, signals no longer end `ic`.
    pub fn new() -> io::Result<Launcher> {
        let ignored = signals::ignored_signals();
        let forwarded = FORWARDED_SIGNALS.iter().filter(|&&signal| {
            // `nohup` and `&` in scripts make a program ignore signals; a handler here would undo that.
            ignored >> (signal - 1) & 1 == 0
        });
        let guard = Guard::start();
        let guard = guard.inspect_err(|error| log::debug!("there is no guard: {error}"));
        Ok(Launcher {
            signals: Signals::new(forwarded.chain([&SIGCHLD]))?,
            guard: guard.ok(),
            descriptors: getrlimit(Resource::Nofile),
        })
    }

    /// Runs the program with these variables added to the environment; returns its status as a shell does.
    ///
    /// # Errors
    ///
    /// The program does not exist (status 127) or cannot be run (126).
    pub fn run(
        mut self,
        program: &OsStr,
        arguments: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<u8, Failure> {
        // Before the program starts: from then on a signal to the group must reach the guard as well.
        self.guard = self.guard.filter(Guard::is_ready);
        // These have not reached it, however they were sent.
        let early = self.signals.pending().filter(|&signal| signal != SIGCHLD);
        let early: Vec<_> = early.collect();
        let raised = getrlimit(Resource::Nofile);
        // Lowering the limit and raising it again up to the hard limit is always allowed.
        let _ = setrlimit(Resource::Nofile, self.descriptors);
        let spawned = Command::new(program)
            .args(arguments)
            .envs(variables)
            .spawn();
        if let (Ok(child), Some(guard)) = (&spawned, &mut self.guard) {
            // Fails only if the guard has ended, which is noticed when it is reaped.
            let _ = guard.watch(Pid::from_child(child));
        }
        let _ = setrlimit(Resource::Nofile, raised);
        match spawned {
            Ok(child) => {
                let program = Pid::from_child(&child);
                early
                    .into_iter()
                    .for_each(|signal| forward(signal, program));
                Ok(self.wait(program))
            }
            Err(error) => Err(cannot_run(program, &error)),
        }
    }

    /// Forwards signals until the program ends; returns its status.
    fn wait(mut self, program: Pid) -> u8 {
        loop {
            // Collected first: another signal may arrive while one is forwarded.
            let signals: Vec<_> = self.signals.wait().collect();
            for signal in signals {
                if signal != SIGCHLD && self.must_forward(signal, program) {
                    forward(signal, program);
                }
            }
            if let Some(status) = self.reap(program) {
                self.guard.into_iter().for_each(Guard::end);
                return status;
            }
        }
    }

    /// Whether a signal received by `ic` has not reached `program` itself.
    fn must_forward(&mut self, signal: i32, program: Pid) -> bool {
        let guard = self.guard.as_mut();
        let was_sent_to_group = guard.is_some_and(|guard| guard.has_received(signal));
        // A program that created its own group, as an interactive shell does, is not in that of `ic`.
        !(was_sent_to_group && is_in_our_group(program))
    }

    /// Reaps every child that has ended; returns the status of `program` if it is one of them.
    fn reap(&mut self, program: Pid) -> Option<u8> {
        let mut status = None;
        while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
            if pid == program {
                status = Some(status_of(ended));
            }
            // Its process id may be another's from here on.
            self.guard.take_if(|guard| guard.pid() == pid);
        }
        status
    }
}

/// Why `program` was not started. execve(2) reports a missing interpreter of a script, or loader of a binary, as it does a
/// missing program (ENOENT).
fn cannot_run(program: &OsStr, error: &io::Error) -> Failure {
    let name = raw::to_text(program);
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let (why, remedy) = match file_of(program).filter(|_| is_missing) {
        None if is_missing => {
            return Failure {
                exit: Exit::Status(NOT_FOUND),
                message: format!("there is no program `{name}`; check its name and PATH"),
            };
        }
        None => (io_message(error), "check the file"),
        Some(file) => missing_interpreter(&file),
    };
    Failure {
        exit: Exit::Status(NOT_EXECUTABLE),
        message: format!("cannot run `{name}`: {why}; {remedy}"),
    }
}

/// What is missing of a `file` that is not, and the remedy.
fn missing_interpreter(file: &Path) -> (String, &'static str) {
    match interpreter(file).filter(|interpreter| !Path::new(interpreter).exists()) {
        Some(interpreter) => {
            let remedy = match interpreter.as_encoded_bytes().last() {
                Some(b'\r') => "save the file with Unix line ends",
                _ => "correct its first line, or install the interpreter",
            };
            let interpreter = raw::to_text(&interpreter);
            (format!("there is no interpreter `{interpreter}`"), remedy)
        }
        None => (
            "the loader of its binary is missing".to_owned(),
            "it was built for another system",
        ),
    }
}

/// The file of `program`, looked up as execvp(3) does. `None`: there is none.
fn file_of(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program)).filter(|file| file.exists());
    }
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

/// The interpreter in the first line of a script (execve(2), "Interpreter scripts"). `None`: it is no script.
fn interpreter(file: &Path) -> Option<OsString> {
    let mut start = Vec::new();
    let file = File::open(file).ok()?;
    file.take(INTERPRETER_LINE_MAX)
        .read_to_end(&mut start)
        .ok()?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = start
        .strip_prefix(b"#!")?
        .iter()
        .skip_while(|byte| is_blank(byte));
    let name = line.take_while(|byte| !is_blank(byte) && **byte != b'\n');
    Some(OsString::from_vec(name.copied().collect()))
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

fn forward(signal: i32, program: Pid) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        // Fails only if the program has ended, which is noticed when it is reaped.
        let _ = kill_process(program, signal);
    }
}

/// POSIX, `sh`, Exit Status for Commands.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNALLED: i32 = 128;

/// Linux reads no more of a script (BINPRM_BUF_SIZE).
const INTERPRETER_LINE_MAX: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

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
