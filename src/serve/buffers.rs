//! The memory that bytes pass through: a small pool of buffers for each thread.
//!
//! What waits for a peer is in pages of its own (mmap(2)) unless it is small: they go back to the system when they are freed. How
//! much waits is up to the peers, and an allocator keeps what is freed while memory above it is in use.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// The size of a buffer: a whole head ([`HEAD_BYTES_MAX`](crate::http::HEAD_BYTES_MAX)) fits, and a read
/// this large costs little more than its copying.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// The size of a large buffer, for bytes that arrive faster than they are read: it saves a seventh of the CPU for a body in chunks
/// of 16 KiB.
const LARGE_BYTES: usize = 256 * 1024;

/// How many large buffers a thread has. One is in use at a time while peers keep up; each peer that stalls holds one, so more of
/// them would cost four times the memory of ordinary ones.
const LARGE_MAX: usize = 2;

/// A page on most systems; smaller ones are for the allocator.
const PAGES_BYTES_MIN: usize = 4 * 1024;

/// How many buffers of each other kind a thread keeps for later. One is in use at a time unless peers are slow.
const SPARE_MAX: usize = 8;

/// Most heads fit, so that a vector of this capacity does not grow: growing takes a fifth of the CPU of a small request.
const USUAL_HEAD_BYTES: usize = 1024;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
    static SPARE_LARGE: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
    /// How many large ones exist, in use or not.
    static LARGE: Cell<usize> = const { Cell::new(0) };
    static SPARE_SCRATCHES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are read into.
#[derive(Debug)]
pub struct Buffer(Memory);

#[derive(Debug)]
enum Memory {
    Pages(MmapMut),
    Heap(Box<[u8]>),
}

impl Memory {
    fn new(len: usize) -> Self {
        if len >= PAGES_BYTES_MIN
            && let Ok(pages) = MmapMut::map_anon(len)
        {
            return Memory::Pages(pages);
        }
        // Also where there are too many mappings (vm.max_map_count).
        Memory::Heap(vec![0; len].into_boxed_slice())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Heap(Box::default())
    }
}

impl Buffer {
    /// A buffer of [`BUFFER_BYTES`] with arbitrary content.
    pub fn take() -> Self {
        let spare = SPARE_BUFFERS.with_borrow_mut(Vec::pop);
        Buffer(spare.unwrap_or_else(|| Memory::new(BUFFER_BYTES)))
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
        Buffer(Memory::new(LARGE_BYTES))
    }

    /// A buffer that holds `bytes` and no more.
    pub fn exactly(bytes: &[u8]) -> Self {
        let mut buffer = Buffer(Memory::new(bytes.len()));
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Its content.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        }
    }

    /// Its content, to be overwritten.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.len() {
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

/// What is written to a peer, and kept while that waits.
#[derive(Debug)]
pub enum Outgoing {
    /// As it was assembled.
    Scratch(Scratch),
    /// A buffer, and how much of it is used.
    Waiting(Buffer, usize),
}

impl Outgoing {
    /// To be called before a wait: if its memory is large, which it may be from an earlier use, it moves to a buffer.
    pub fn settle(self) -> Self {
        match self {
            Outgoing::Scratch(scratch) if scratch.capacity() >= PAGES_BYTES_MIN => {
                let len = scratch.len();
                let mut buffer = match len {
                    PAGES_BYTES_MIN..=BUFFER_BYTES => Buffer::take(),
                    _ => Buffer(Memory::new(len)),
                };
                buffer.bytes_mut()[..len].copy_from_slice(&scratch);
                Outgoing::Waiting(buffer, len)
            }
            settled => settled,
        }
    }
}

impl Deref for Outgoing {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Outgoing::Scratch(scratch) => scratch,
            Outgoing::Waiting(buffer, len) => &buffer.bytes()[..*len],
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
    fn what_waits_keeps_its_content() {
        let sizes = [0, 1, PAGES_BYTES_MIN, BUFFER_BYTES, BUFFER_BYTES + 1, 1];
        for len in sizes {
            let content: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut scratch = Scratch::take();
            scratch.extend_from_slice(&content);
            let waiting = Outgoing::Scratch(scratch).settle();
            assert!(*waiting == content[..], "{len} bytes");
            let is_small = !matches!(&waiting, Outgoing::Scratch(scratch) if scratch.capacity() > USUAL_HEAD_BYTES);
            assert!(is_small, "{len} bytes: an earlier use has made it large");
            assert!(*waiting.settle() == content[..], "{len} bytes, again");
        }
    }

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
