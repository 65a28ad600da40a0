//! A limit on connections under which idle ones make room for new ones.
//!
//! Every program on this machine can connect. At the limit the connection that has been idle longest is closed: a client
//! that still needs it connects again. A connection whose client is being served is never closed for another.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All connections of a server.
pub struct ConnectionLimiter {
    max: usize,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    /// A logical clock: counts new connections, and how often one became idle.
    clock: u64,
    by_id: BTreeMap<u64, Connection>,
}

struct Connection {
    stream: TcpStream,
    /// Since when it is idle; `None` while its client is being served.
    idle_since: Option<u64>,
}

/// One connection, until it is dropped.
pub struct Slot {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
}

impl ConnectionLimiter {
    /// A limiter for at most `max` connections.
    pub fn new(max: usize) -> ConnectionLimiter {
        ConnectionLimiter {
            max,
            connections: Mutex::default(),
        }
    }

    /// A slot for this connection, idle at first. At the limit the connection that has been idle longest is closed;
    /// `None` if there is none.
    pub fn enter(self: &Arc<Self>, stream: &TcpStream) -> Option<Slot> {
        let stream = stream.try_clone().ok()?;
        let mut connections = self.lock();
        if connections.by_id.len() >= self.max {
            let idle = connections
                .by_id
                .iter()
                .filter_map(|(id, connection)| Some((connection.idle_since?, *id)));
            let (_, longest) = idle.min()?;
            if let Some(connection) = connections.by_id.remove(&longest) {
                // Its thread reads the end of the stream and returns.
                let _ = connection.stream.shutdown(Shutdown::Both);
            }
        }
        connections.clock += 1;
        let id = connections.clock;
        let idle_since = Some(id);
        connections
            .by_id
            .insert(id, Connection { stream, idle_since });
        let limiter = Arc::clone(self);
        Some(Slot { limiter, id })
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The connection waits for its client.
    pub fn set_idle(&self) {
        let mut connections = self.limiter.lock();
        connections.clock += 1;
        let now = connections.clock;
        if let Some(connection) = connections.by_id.get_mut(&self.id) {
            connection.idle_since = Some(now);
        }
    }

    /// The connection's client is being served, and is trusted.
    pub fn set_busy(&self) {
        if let Some(connection) = self.limiter.lock().by_id.get_mut(&self.id) {
            connection.idle_since = None;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limiter.lock().by_id.remove(&self.id);
    }
}
