//! Waits for the signal to stop, in commands that have nothing to finish first.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::outcome::{Exit, Failure};
use crate::text::io_message;

/// A stream that becomes readable on SIGINT or SIGTERM. The signals have no other effect from then on. Works for process 1 of
/// a container too, where signals without a handler are ignored.
///
/// # Errors
///
/// "Could not": no descriptor is left.
pub(super) fn signals() -> Result<UnixStream, Failure> {
    register().map_err(|error| {
        Failure::could_not(format!(
            "cannot receive signals: {}; socketpair(2) and sigaction(2) are needed",
            io_message(&error)
        ))
    })
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

fn register() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}
