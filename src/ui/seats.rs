//! Who is connected, and who has to go when somebody else wants in.
//!
//! Connections are bounded, and everybody on the machine can make them. So whoever has waited longest without asking
//! anything makes room: a page that is open asks again, and opens another connection for it.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All connections.
#[derive(Default)]
pub struct Seats(Mutex<Room>);

#[derive(Default)]
struct Room {
    /// Counts connections, and how often one of them came to rest.
    count: u64,
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    stream: TcpStream,
    /// Since when; `None` while it is answered.
    at_rest: Option<u64>,
}

impl Seats {
    /// A seat for this connection, at rest; the longest at rest loses its own if there is no other. `None` where everybody
    /// is being answered.
    pub fn take(&self, stream: &TcpStream) -> Option<u64> {
        let stream = stream.try_clone().ok()?;
        let mut room = self.room();
        if room.taken.len() >= SEATS {
            let resting = room
                .taken
                .iter()
                .filter_map(|(id, taken)| Some((taken.at_rest?, *id)));
            let (_, longest) = resting.min()?;
            if let Some(taken) = room.taken.remove(&longest) {
                // Its thread reads an end, and ends.
                let _ = taken.stream.shutdown(Shutdown::Both);
            }
        }
        room.count += 1;
        let id = room.count;
        let at_rest = Some(id);
        room.taken.insert(id, Taken { stream, at_rest });
        Some(id)
    }

    /// The connection waits for its client.
    pub fn rest(&self, id: u64) {
        let mut room = self.room();
        room.count += 1;
        let now = room.count;
        if let Some(taken) = room.taken.get_mut(&id) {
            taken.at_rest = Some(now);
        }
    }

    /// The connection's client is answered, and has shown that it may ask.
    pub fn serve(&self, id: u64) {
        if let Some(taken) = self.room().taken.get_mut(&id) {
            taken.at_rest = None;
        }
    }

    /// The connection is over.
    pub fn leave(&self, id: u64) {
        self.room().taken.remove(&id);
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A browser has six for a page and may have a few pages.
const SEATS: usize = 64;
