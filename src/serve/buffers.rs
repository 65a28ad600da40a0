//! The memory that bytes pass through: a small pool of buffers for each thread.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

/// The size of a buffer: a whole head ([`HEAD_BYTES_MAX`](crate::http::HEAD_BYTES_MAX)) fits, and a read
/// this large costs little more than its copying.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// The size of a large buffer, for bytes that arrive faster than they are read: it saves a seventh of the CPU for a body in chunks
/// of 16 KiB.
const LARGE_BYTES: usize = 256 * 1024;

/// How many large buffers a thread has. One is in use at a time while peers keep up; each peer that stalls holds one, so more of
/// them would cost four times the memory of ordinary ones.
const LARGE_MAX: usize = 2;

/// How many buffers of each other kind a thread keeps for later. One is in use at a time unless peers are slow.
const SPARE_MAX: usize = 8;

/// Most heads fit, so that a vector of this capacity does not grow: growing takes a fifth of the CPU of a small request.
const USUAL_HEAD_BYTES: usize = 1024;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static SPARE_LARGE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    /// How many large ones exist, in use or not.
    static LARGE: Cell<usize> = const { Cell::new(0) };
    static SPARE_SCRATCHES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are read into.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A buffer of [`BUFFER_BYTES`] with arbitrary content.
    pub fn take() -> Self {
        let spare = SPARE_BUFFERS.with_borrow_mut(Vec::pop);
        Buffer(spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }

    /// A large buffer if one is free, else one of [`BUFFER_BYTES`]; with arbitrary content.
    pub fn take_large() -> Self {
        if let Some(spare) = SPARE_LARGE.with_borrow_mut(Vec::pop) {
            return Buffer(spare);
        }
        if LARGE.get() == LARGE_MAX {
            return Buffer::take();
        }
        LARGE.set(LARGE.get() + 1);
        Buffer(vec![0; LARGE_BYTES].into_boxed_slice())
    }

    /// A buffer that holds `bytes` and no more.
    pub fn exactly(bytes: &[u8]) -> Self {
        Buffer(bytes.into())
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Its content.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its content, to be overwritten.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.0.len() {
            BUFFER_BYTES => give_back(&SPARE_BUFFERS, std::mem::take(&mut self.0)),
            LARGE_BYTES => give_back(&SPARE_LARGE, std::mem::take(&mut self.0)),
            _ => {}
        }
    }
}

/// A vector for a head that is being written.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// An empty one with at least [`USUAL_HEAD_BYTES`] of capacity.
    pub fn take() -> Self {
        let spare = SPARE_SCRATCHES.with_borrow_mut(Vec::pop);
        Scratch(spare.unwrap_or_else(|| Vec::with_capacity(USUAL_HEAD_BYTES)))
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if (1..=2 * BUFFER_BYTES).contains(&self.0.capacity()) {
            self.0.clear();
            give_back(&SPARE_SCRATCHES, std::mem::take(&mut self.0));
        }
    }
}

fn give_back<T>(spares: &'static std::thread::LocalKey<RefCell<Vec<T>>>, spare: T) {
    // Fails only while the thread ends.
    let _ = spares.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARE_MAX {
            spares.push(spare);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_few_and_come_back() {
        let lens = |buffers: &[Buffer]| -> Vec<usize> { buffers.iter().map(Buffer::len).collect() };
        let expected = [LARGE_BYTES, LARGE_BYTES, BUFFER_BYTES];
        for _ in 0..3 {
            let lent = [(); LARGE_MAX + 1].map(|()| Buffer::take_large());
            assert_eq!(lens(&lent), expected);
            assert_eq!(Buffer::take().len(), BUFFER_BYTES);
        }
        assert_eq!(LARGE.get(), LARGE_MAX);
    }
}
