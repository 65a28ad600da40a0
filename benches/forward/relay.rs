//! The lower bound: copies bytes between each client and a connection to the origin, without parsing them.
//!
//! What a forwarder costs beyond this is the cost of HTTP. No splice, no pool, no time limits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::poll::Poll;

struct Pair {
    ends: [TcpStream; 2],
    /// Bytes that each end has not accepted yet.
    unsent: [Vec<u8>; 2],
}

pub fn run(listener: TcpListener, origin: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free = Vec::new();
    let mut ready = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        poll.wait(&mut ready, Duration::from_secs(3600))?;
        for event in &ready {
            if event.token == LISTENER {
                accept(&listener, origin, &poll, &mut pairs, &mut free)?;
                continue;
            }
            let (slot, end) = (event.token / 2, event.token % 2);
            let Some(pair) = &mut pairs[slot] else {
                continue;
            };
            // Writable again: first the unsent bytes, then what the other end has sent since.
            let flushed = match pair.unsent[end].is_empty() {
                true => Ok(()),
                false => pair.flush(end).and_then(|is_free| match is_free {
                    true => pair.pass(1 - end, &mut buffer, true),
                    false => Ok(()),
                }),
            };
            if flushed
                .and_then(|()| pair.pass(end, &mut buffer, event.ended))
                .is_err()
            {
                pairs[slot] = None;
                free.push(slot);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    origin: SocketAddr,
    poll: &Poll,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let ends = [client, TcpStream::connect(origin)?];
        let slot = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        for (end, stream) in ends.iter().enumerate() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            poll.add(stream, slot * 2 + end)?;
        }
        pairs[slot] = Some(Pair {
            ends,
            unsent: [Vec::new(), Vec::new()],
        });
    }
}

impl Pair {
    /// Writes the unsent bytes of `end`; returns whether all are written.
    fn flush(&mut self, end: usize) -> io::Result<bool> {
        let unsent = &mut self.unsent[end];
        while !unsent.is_empty() {
            match (&self.ends[end]).write(unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Copies from `end` until it has no more bytes or the other end would block.
    fn pass(&mut self, end: usize, buffer: &mut [u8], ended: bool) -> io::Result<()> {
        if !self.unsent[1 - end].is_empty() {
            return Ok(());
        }
        loop {
            let count = match (&self.ends[end]).read(buffer) {
                // With requests and responses, the end of one direction ends both.
                Ok(0) => {
                    self.ends[1 - end].shutdown(Shutdown::Write)?;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let written = match (&self.ends[1 - end]).write(&buffer[..count]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if written < count {
                self.unsent[1 - end].extend_from_slice(&buffer[written..count]);
                return Ok(());
            }
            if count < buffer.len() && !ended {
                return Ok(());
            }
        }
    }
}

const LISTENER: usize = usize::MAX - 1;
const BUFFER: usize = 64 * 1024;
