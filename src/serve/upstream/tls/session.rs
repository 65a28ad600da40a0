//! A non-blocking TLS stream: rustls on top of a socket.
//!
//! Reading: plaintext that is buffered makes the session readable, whatever the state of the socket. Ciphertext is read many
//! records at a time into a borrowed buffer, which is returned when they are decrypted.
//! Writing: plaintext is encrypted at once; ciphertext that the socket does not take is written first by the next write or by
//! [`try_flush`](Session::try_flush).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write as _};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use rustls::ClientConnection;

use crate::serve::buffers::Buffer;
use crate::serve::reactor::Source;

/// A connected TLS stream.
#[derive(Debug)]
pub struct Session {
    source: Source,
    state: RefCell<State>,
    /// Close without a `close_notify`.
    is_silent: Cell<bool>,
}

#[derive(Debug)]
struct State {
    connection: ClientConnection,
    ciphertext: Ciphertext,
    /// A read may return something without the socket: plaintext, the end, or an error.
    has_more: bool,
    /// Ciphertext written to the socket.
    sent_bytes: u64,
    /// An error of the protocol, returned after all plaintext before it.
    failed: Option<rustls::Error>,
}

impl Session {
    /// Performs the handshake.
    pub async fn connect(source: Source, connection: ClientConnection) -> io::Result<Self> {
        let session = Session {
            source,
            state: RefCell::new(State {
                connection,
                ciphertext: Ciphertext::default(),
                has_more: false,
                sent_bytes: 0,
                failed: None,
            }),
            is_silent: Cell::new(false),
        };
        poll_fn(|context| session.poll_handshake(context)).await?;
        session.state.borrow_mut().has_more = true;
        Ok(session)
    }

    fn poll_handshake(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut state = self.state.borrow_mut();
            if let Err(error) = state.push(&self.source) {
                if error.kind() != ErrorKind::WouldBlock {
                    return Poll::Ready(Err(error));
                }
                ready!(self.source.poll_writable(context))?;
                continue;
            }
            if !state.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match state.pull(&self.source) {
                Ok(0) => {
                    return Poll::Ready(Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "it closed the connection during the TLS handshake",
                    )));
                }
                Ok(_) => {
                    if let Some(error) = state.failed.take() {
                        // Send the alert.
                        let _ = state.push(&self.source);
                        return Poll::Ready(Err(failure(error)));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.source.poll_readable(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The socket under it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether a read may bring something; else `context` is woken when it may.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.borrow().has_more {
            return Poll::Ready(Ok(()));
        }
        self.source.poll_readable(context)
    }

    /// Reads what is available. An end without `close_notify` is an error, as it could be forged.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let mut count = 0;
        let end = loop {
            if count == into.len() {
                state.has_more = true;
                return Ok(count);
            }
            match state.connection.reader().read(&mut into[count..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(more) if more > 0 => {
                    count += more;
                    continue;
                }
                end => break end,
            }
            if let Some(error) = &state.failed {
                break Err(failure(error.clone()));
            }
            if count > 0 && state.ciphertext.is_empty() {
                state.has_more = false;
                return Ok(count);
            }
            if let Err(error) = state.pull(&self.source) {
                break Err(error);
            }
            // Send what the protocol itself answers, now or with the next write.
            let _ = state.push(&self.source);
        };
        // An end or error is returned again by the next read.
        state.has_more = !matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if count > 0 { Ok(count) } else { end }
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        state.push(&self.source)?;
        let count = state.connection.writer().write(bytes)?;
        let before = state.sent_bytes;
        let pushed = state.push(&self.source);
        taken(count, state.sent_bytes > before, pushed)
    }

    /// How many bytes of ciphertext have been written, handshake and alerts included.
    pub fn sent_bytes(&self) -> u64 {
        self.state.borrow().sent_bytes
    }

    /// Writes buffered ciphertext; `Ok` if none is left.
    pub fn try_flush(&self) -> io::Result<()> {
        self.state.borrow_mut().push(&self.source)
    }

    /// Sends a `close_notify`, and all ciphertext before it.
    pub async fn close(&self) -> io::Result<()> {
        self.state.borrow_mut().connection.send_close_notify();
        poll_fn(|context| {
            loop {
                match self.try_flush() {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
                ready!(self.source.poll_writable(context))?;
            }
        })
        .await
    }

    /// Sends no `close_notify` at the end, since the message is incomplete.
    pub fn suppress_close_notify(&self) {
        self.is_silent.set(true);
    }

    /// Whether the peer has neither sent data nor closed. Records of the protocol itself, such as session tickets, do not
    /// count.
    pub fn is_quiet(&self) -> bool {
        if !self.state.borrow().has_more && self.source.is_quiet() == Some(true) {
            return true;
        }
        let probe = self.try_read(&mut [0]);
        matches!(probe, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.failed.is_none() && !self.is_silent.get() {
            state.connection.send_close_notify();
            // Best effort: the result does not matter any more.
            let _ = state.push(&self.source);
        }
    }
}

impl State {
    /// Writes ciphertext to the socket.
    fn push(&mut self, source: &Source) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut &*source)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => self.sent_bytes += count as u64,
            }
        }
        Ok(())
    }

    /// Reads and decrypts what is available. Returns how many bytes were read, 0 at the end.
    fn pull(&mut self, source: &Source) -> io::Result<usize> {
        let count = self.connection.read_tls(&mut Feed {
            ciphertext: &mut self.ciphertext,
            source,
        })?;
        if let Err(error) = self.connection.process_new_packets() {
            self.failed = Some(error);
        }
        Ok(count)
    }
}

/// Ciphertext that is not yet decrypted; a buffer is held only while there is some.
#[derive(Debug, Default)]
struct Ciphertext {
    buffer: Option<Buffer>,
    used: Range<usize>,
}

impl Ciphertext {
    fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

/// The socket, read ahead into a buffer.
struct Feed<'a> {
    ciphertext: &'a mut Ciphertext,
    source: &'a Source,
}

impl Read for Feed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Ciphertext { buffer, used } = &mut *self.ciphertext;
        let bytes = buffer.get_or_insert_with(Buffer::take);
        if used.start == used.end {
            match Read::read(&mut &*self.source, bytes.bytes_mut()) {
                Ok(count) => *used = 0..count,
                Err(error) => {
                    *buffer = None;
                    return Err(error);
                }
            }
        }
        let count = into.len().min(used.len());
        into[..count].copy_from_slice(&bytes.bytes()[used.start..used.start + count]);
        used.start += count;
        if used.start == used.end {
            *buffer = None;
        }
        Ok(count)
    }
}

/// The result of a write whose `count` bytes are encrypted. If some ciphertext went out before an error, the write counts as
/// done and the next call returns the error: the peer may have received it, so that the bytes must not be sent again.
fn taken(count: usize, went_out: bool, pushed: io::Result<()>) -> io::Result<usize> {
    match pushed {
        Err(error) if error.kind() != ErrorKind::WouldBlock && !went_out => Err(error),
        _ => Ok(count),
    }
}

fn failure(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partly_sent_write_does_not_fail() {
        let failed = |kind: ErrorKind| Err(io::Error::from(kind));
        for (why, went_out, pushed, expected) in [
            ("all of it", true, Ok(()), Some(7)),
            (
                "part of it, the rest waits",
                true,
                failed(ErrorKind::WouldBlock),
                Some(7),
            ),
            ("it waits", false, failed(ErrorKind::WouldBlock), Some(7)),
            (
                "part of it, then a reset",
                true,
                failed(ErrorKind::ConnectionReset),
                Some(7),
            ),
            ("a reset", false, failed(ErrorKind::ConnectionReset), None),
        ] {
            assert_eq!(taken(7, went_out, pushed).ok(), expected, "{why}");
        }
    }
}
