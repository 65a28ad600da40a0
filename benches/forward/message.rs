//! Message bodies: [`BodyWriter`] writes one, [`BodyChecker`] decodes one and checks its content.
//!
//! The decoder shares no code with the program, because it checks the program.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::ops::Range;

use crate::pattern;

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    /// In chunks of [`CHUNK`] bytes.
    Chunked,
}

/// Bytes of data in each chunk of a [`BodyWriter`].
pub const CHUNK: u64 = 16 * 1024;
const CHUNK_HEAD: &[u8] = b"4000\r\n";
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const FRAME: u64 = CHUNK_HEAD.len() as u64 + CHUNK + CHUNK_END.len() as u64;

/// Writes a body of `len` bytes of the pattern.
#[derive(Debug, Clone)]
pub struct BodyWriter {
    framing: Framing,
    len: u64,
    /// Bytes written, framing included.
    written: u64,
}

impl BodyWriter {
    /// `len` of a chunked body must be a multiple of [`CHUNK`].
    pub fn new(framing: Framing, len: u64) -> BodyWriter {
        assert!(framing == Framing::Length || len.is_multiple_of(CHUNK));
        BodyWriter {
            framing,
            len,
            written: 0,
        }
    }

    /// Writes until `stream` would block; returns whether the body is complete.
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

/// The rest of a frame after its first `into` bytes.
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

/// Separates the data of a body from its framing.
#[derive(Debug, Clone)]
pub enum BodyDecoder {
    Length(u64),
    Chunked(Chunked),
}

/// What the next byte of a chunked body is.
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
    /// The `\r\n` after the data.
    End,
    /// Lines after the last chunk, up to an empty one. `len`: bytes of the current line.
    Trailer {
        len: u32,
    },
    Over,
}

impl BodyDecoder {
    pub fn is_over(&self) -> bool {
        matches!(
            self,
            BodyDecoder::Length(0) | BodyDecoder::Chunked(Chunked::Over)
        )
    }

    /// Returns the range of the first data in `bytes` (empty: framing only) and the number of bytes consumed.
    pub fn next(&mut self, bytes: &[u8]) -> Result<(Range<usize>, usize), String> {
        match self {
            BodyDecoder::Length(left) => {
                let run = (*left).min(bytes.len() as u64);
                *left -= run;
                Ok((0..run as usize, run as usize))
            }
            BodyDecoder::Chunked(state) => state.next(bytes),
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
                    let digit = char::from(byte).to_digit(16).ok_or("invalid chunk size")?;
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
                _ => return Err("invalid chunked framing".to_owned()),
            };
        }
        Ok((0..0, bytes.len()))
    }
}

/// Checks that a body is the pattern from offset `start` on.
#[derive(Debug, Clone)]
pub struct BodyChecker {
    decoder: BodyDecoder,
    start: u64,
    found: u64,
}

impl BodyChecker {
    pub fn new(decoder: BodyDecoder, start: u64) -> BodyChecker {
        BodyChecker {
            decoder,
            start,
            found: 0,
        }
    }

    /// Checks the bytes that belong to the body, and returns their number.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut used = 0;
        while used < bytes.len() && !self.decoder.is_over() {
            let (data, count) = self.decoder.next(&bytes[used..])?;
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
        self.decoder.is_over()
    }

    /// Bytes of data read.
    pub fn found(&self) -> u64 {
        self.found
    }
}
