//! Accepts clients, and serves each in a task of its own.

use std::io;
use std::rc::Rc;

use smol::LocalExecutor;

use super::conn::Stream;
use super::exchange;
use super::listen::{self, Listener};
use super::process::spawn;
use super::reactor::{self, Source};
use super::site::Site;

/// Accepts clients until the listener fails; returns how. `site` returns the site that serves the next one.
pub async fn accept_all(
    listener: &Source<Listener>,
    site: &impl Fn() -> Rc<Site>,
    clients: &LocalExecutor<'_>,
) -> io::Error {
    let mut accepted = 0u32;
    loop {
        match listen::accept(listener).await {
            Ok(stream) => {
                let site = site();
                if site.service.is_full() {
                    // A client whose request has arrived by now is not idle, and the task that reads it runs first.
                    reactor::next_turn().await;
                }
                admit(stream, &site, clients);
            }
            Err(error) => return error,
        }
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(TURN_CLIENTS) {
            reactor::next_turn().await;
        }
    }
}

/// Serves a client in a task of its own, or rejects it.
fn admit(stream: Stream, site: &Rc<Site>, clients: &LocalExecutor<'_>) {
    match site.admit() {
        Some(guard) if guard.is_served => spawn(exchange::serve(stream, guard), clients),
        Some(guard) => spawn(exchange::turn_away(stream, guard), clients),
        None => {}
    }
}

/// After this many clients of one listener, other tasks have their turn.
const TURN_CLIENTS: u32 = 64;
