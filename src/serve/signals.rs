//! The signals that stop the program, as bytes that a task can wait for.

use std::future::poll_fn;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use super::reactor::Source;

/// Receives signals, one byte each.
pub struct Signals {
    read: Source,
    /// Kept open: without signals to register, `read` would be at its end.
    _write: UnixStream,
}

impl Signals {
    /// Receives `signals`, which have no other effect from then on.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for &signal in signals {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Signals {
            read: Source::new(read.into())?,
            _write: write,
        })
    }

    /// Waits for the next one.
    pub async fn next(&self) -> io::Result<()> {
        loop {
            poll_fn(|context| self.read.poll_readable(context)).await?;
            match Read::read(&mut &self.read, &mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(drop),
            }
        }
    }
}
