//! The events of a stream: all of one size, each with its number and the time at which the origin sent it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Bytes of an event: the usual size of a chunk of a chat completion.
pub const EVENT: usize = 220;
const SENT: usize = 15;
const SEQUENCE: usize = 44;
const DIGITS: usize = 20;

/// Time since the first call. Origin and client are threads of one process and share this clock.
pub fn clock() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Appends event number `sequence` as one chunk, with the current time in it.
pub fn write(sequence: u64, out: &mut Vec<u8>) {
    static HEAD: LazyLock<String> = LazyLock::new(|| format!("{EVENT:x}\r\n"));
    out.extend_from_slice(HEAD.as_bytes());
    let start = out.len();
    out.extend_from_slice(&TEMPLATE);
    put_digits(
        &mut out[start + SENT..][..DIGITS],
        clock().as_nanos() as u64,
    );
    put_digits(&mut out[start + SEQUENCE..][..DIGITS], sequence);
    out.extend_from_slice(b"\r\n");
}

/// Reads events from arbitrary pieces of the stream, and checks them.
#[derive(Debug)]
pub struct Reader {
    event: Box<[u8; EVENT]>,
    len: usize,
    sequence: u64,
}

impl Reader {
    pub fn new() -> Reader {
        Reader {
            event: Box::new([0; EVENT]),
            len: 0,
            sequence: 0,
        }
    }

    /// The number of events read.
    pub fn count(&self) -> u64 {
        self.sequence
    }

    /// Reads the next bytes of the stream; calls `delay` with the transit time of each event that they complete.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        mut delay: impl FnMut(Duration),
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            let count = bytes.len().min(EVENT - self.len);
            self.event[self.len..][..count].copy_from_slice(&bytes[..count]);
            self.len += count;
            bytes = &bytes[count..];
            if self.len == EVENT {
                delay(clock().saturating_sub(self.check()?));
                self.len = 0;
                self.sequence += 1;
            }
        }
        Ok(())
    }

    /// Returns when the event was sent; fails unless it is the next one and every byte is correct.
    fn check(&self) -> Result<Duration, String> {
        let mut expected = [0; EVENT];
        expected.copy_from_slice(&TEMPLATE);
        put_digits(&mut expected[SEQUENCE..][..DIGITS], self.sequence);
        let sent = &self.event[SENT..][..DIGITS];
        expected[SENT..][..DIGITS].copy_from_slice(sent);
        let nanos = std::str::from_utf8(sent)
            .ok()
            .and_then(|text| text.parse().ok());
        match nanos {
            Some(nanos) if expected == *self.event => Ok(Duration::from_nanos(nanos)),
            _ => Err(format!(
                "event {} of a stream is not what was sent",
                self.sequence
            )),
        }
    }
}

/// Overwrites `digits` with `number` and leading zeros.
pub fn put_digits(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

static TEMPLATE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let zeros = "0".repeat(DIGITS);
    let start = format!("data: {{\"sent\":\"{zeros}\",\"seq\":\"{zeros}\",\"delta\":\"");
    let end = "\"}\n\n";
    let padding = "x".repeat(EVENT - start.len() - end.len());
    let event = format!("{start}{padding}{end}").into_bytes();
    assert_eq!(&event[SENT - 1..SENT], b"\"", "the offset of the time");
    assert_eq!(
        &event[SEQUENCE - 1..SEQUENCE],
        b"\"",
        "the offset of the number"
    );
    event
});
