//! The end of the commands that run until they are told to stop, where nothing has to be finished before.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::outcome::Failure;
use crate::text::io_message;

/// A stream that has something to read when the program shall stop. From then on nothing else happens on these signals,
/// also where the program is a container's first process, which the system lets ignore them otherwise.
///
/// # Errors
///
/// "Could not": the system has no more descriptors.
pub(super) fn signals() -> Result<UnixStream, Failure> {
    register().map_err(|error| {
        Failure::could_not(format!(
            "cannot receive signals: {}; socketpair(2) and sigaction(2) are needed",
            io_message(&error)
        ))
    })
}

fn register() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}
