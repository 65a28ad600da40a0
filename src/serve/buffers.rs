//! The memory that bytes pass through: a few buffers for each thread, lent out and taken back.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// The size of a buffer: a whole head ([`HEAD_BYTES_MAX`](crate::http::HEAD_BYTES_MAX)) fits, and a read
/// this large costs little more than its copying.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// How many buffers of each kind a thread keeps for later. One is in use at a time unless peers are slow.
const SPARE_MAX: usize = 8;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static SPARE_SCRATCHES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are read into.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A buffer of [`BUFFER_BYTES`], with anything in it.
    pub fn take() -> Self {
        let spare = SPARE_BUFFERS.with_borrow_mut(Vec::pop);
        Buffer(spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }

    /// A buffer that just holds `bytes`.
    pub fn exactly(bytes: &[u8]) -> Self {
        Buffer(bytes.into())
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Room for what comes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.len() == BUFFER_BYTES {
            give_back(&SPARE_BUFFERS, std::mem::take(&mut self.0));
        }
    }
}

/// A vector for a head that is being written, empty when taken.
#[derive(Debug)]
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// An empty one, with the room that earlier ones needed.
    pub fn take() -> Self {
        Scratch(
            SPARE_SCRATCHES
                .with_borrow_mut(Vec::pop)
                .unwrap_or_default(),
        )
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
    // A thread that ends has no more use for it.
    let _ = spares.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARE_MAX {
            spares.push(spare);
        }
    });
}
