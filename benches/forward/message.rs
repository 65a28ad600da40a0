//! Bodies as the two ends see them: [`Source`] writes one, [`Sink`] follows one and checks what is in it.
//!
//! The framing is followed by code that shares nothing with the program's own, which is what is checked.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::ops::Range;

use crate::pattern;

/// How a body says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    /// In chunks of [`CHUNK`] bytes.
    Chunked,
}

/// The data of one chunk of a [`Source`].
pub const CHUNK: u64 = 16 * 1024;
const CHUNK_HEAD: &[u8] = b"4000\r\n";
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const FRAME: u64 = CHUNK_HEAD.len() as u64 + CHUNK + CHUNK_END.len() as u64;

/// A body that is written: `len` bytes of the pattern.
#[derive(Debug, Clone)]
pub struct Source {
    framing: Framing,
    len: u64,
    /// How much is written, framing included.
    written: u64,
}

impl Source {
    /// A chunked one must consist of whole chunks.
    pub fn new(framing: Framing, len: u64) -> Source {
        assert!(framing == Framing::Length || len.is_multiple_of(CHUNK));
        Source {
            framing,
            len,
            written: 0,
        }
    }

    /// Writes as much as `stream` takes; true when all is written.
    pub fn write_to(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        loop {
            let count = match self.framing {
                Framing::Length if self.written == self.len => return Ok(true),
                Framing::Length => {
                    let run = (self.len - self.written).min(pattern::RUN_MAX as u64) as usize;
                    stream.write(pattern::bytes(self.written, run))
                }
                Framing::Chunked => {
                    let frames = self.len / CHUNK;
                    let (frame, into) = (self.written / FRAME, self.written % FRAME);
                    if frame < frames {
                        stream.write_vectored(&rest_of_frame(frame, into as usize))
                    } else if into == LAST_CHUNK.len() as u64 {
                        return Ok(true);
                    } else {
                        stream.write(&LAST_CHUNK[into as usize..])
                    }
                }
            };
            match count {
                Ok(count) => self.written += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// What is left of a frame of which `into` bytes are written.
fn rest_of_frame(frame: u64, mut into: usize) -> [IoSlice<'static>; 3] {
    [
        CHUNK_HEAD,
        pattern::bytes(frame * CHUNK, CHUNK as usize),
        CHUNK_END,
    ]
    .map(|part| {
        let cut = into.min(part.len());
        into -= cut;
        IoSlice::new(&part[cut..])
    })
}

/// Follows the framing of a body that is read.
#[derive(Debug, Clone)]
pub enum Follower {
    Length(u64),
    Chunked(Chunked),
}

/// Where in a chunked body the next byte belongs.
#[derive(Debug, Clone, Copy)]
pub enum Chunked {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
    },
    Data {
        left: u64,
    },
    /// After the data: `\r\n`.
    End,
    /// After the last chunk: lines, until an empty one. `len` counts the bytes of the line so far.
    Trailer {
        len: u32,
    },
    Over,
}

impl Follower {
    pub fn is_over(&self) -> bool {
        matches!(self, Follower::Length(0) | Follower::Chunked(Chunked::Over))
    }

    /// The first run of data in `bytes`, and how many bytes are thereby used; an empty run is framing only.
    pub fn next(&mut self, bytes: &[u8]) -> Result<(Range<usize>, usize), String> {
        match self {
            Follower::Length(left) => {
                let run = (*left).min(bytes.len() as u64);
                *left -= run;
                Ok((0..run as usize, run as usize))
            }
            Follower::Chunked(state) => state.next(bytes),
        }
    }
}

impl Chunked {
    pub fn start() -> Chunked {
        Chunked::Size {
            value: 0,
            digits: 0,
        }
    }

    fn next(&mut self, bytes: &[u8]) -> Result<(Range<usize>, usize), String> {
        for (at, &byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Chunked::Data { left }, _) => {
                    let run = left.min((bytes.len() - at) as u64);
                    let left = left - run;
                    *self = if left == 0 {
                        Chunked::End
                    } else {
                        Chunked::Data { left }
                    };
                    let end = at + run as usize;
                    return Ok((at..end, end));
                }
                (Chunked::Size { value, digits: 1.. }, b'\r' | b';') => {
                    Chunked::Extension { value }
                }
                (Chunked::Size { value, digits }, _) if digits < 16 => {
                    let digit = char::from(byte)
                        .to_digit(16)
                        .ok_or("a chunk size that is none")?;
                    Chunked::Size {
                        value: value << 4 | u64::from(digit),
                        digits: digits + 1,
                    }
                }
                (Chunked::Extension { value: 0 }, b'\n') => Chunked::Trailer { len: 0 },
                (Chunked::Extension { value: left }, b'\n') => Chunked::Data { left },
                (state @ Chunked::Extension { .. }, _) => state,
                (Chunked::End, b'\r') => Chunked::End,
                (Chunked::End, b'\n') => Chunked::start(),
                (Chunked::Trailer { len: 0 }, b'\n') => {
                    *self = Chunked::Over;
                    return Ok((0..0, at + 1));
                }
                (Chunked::Trailer { len }, b'\r') => Chunked::Trailer { len },
                (Chunked::Trailer { .. }, b'\n') => Chunked::Trailer { len: 0 },
                (Chunked::Trailer { len }, _) => Chunked::Trailer { len: len + 1 },
                _ => return Err("broken chunk framing".to_owned()),
            };
        }
        Ok((0..0, bytes.len()))
    }
}

/// A body that is read: the pattern from `start` on, `len` bytes of it if that is known.
#[derive(Debug, Clone)]
pub struct Sink {
    follower: Follower,
    start: u64,
    found: u64,
}

impl Sink {
    pub fn new(follower: Follower, start: u64) -> Sink {
        Sink {
            follower,
            start,
            found: 0,
        }
    }

    /// Checks what of `bytes` belongs to the body, and says how many do.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut used = 0;
        while used < bytes.len() && !self.follower.is_over() {
            let (data, count) = self.follower.next(&bytes[used..])?;
            let data = &bytes[used..][data];
            if !pattern::agrees(self.start + self.found, data) {
                return Err(format!("wrong bytes after {} of a body", self.found));
            }
            self.found += data.len() as u64;
            used += count;
        }
        Ok(used)
    }

    pub fn is_over(&self) -> bool {
        self.follower.is_over()
    }

    /// How much data has been read.
    pub fn found(&self) -> u64 {
        self.found
    }
}
