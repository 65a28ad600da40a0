//! Both ways at once, until both halves have closed (RFC 9110 §7.8).
//!
//! Each direction is a body that ends with its connection, and is relayed as one: a receiver sees the end of its
//! sender as an end, and anything else that ends the tunnel as a reset.
//!
//! Decided here: when a tunnel has nobody left. One direction's end says nothing about the other, but a peer that has closed
//! its side and then ceases to be will never read what the other side may still say. And what happens then: last words are
//! delivered before the connection ends, for a reset overtakes them, and so does an end that finds something unread.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use super::conn::{Conn, Reader, Stream, Writer};
use super::deadline::{Deadline, InactivityTimeout};
use super::feed::{self, BodyTap, Trace};
use super::metrics::Counter;
use super::peer::{self, Peer};
use super::relay::{self, Broken, Discarded, Terms};
use crate::http::body::{Body, BodyMode};
use crate::http::framing::Framing;

/// The limits of a tunnel: neither is on silence, which is no fault in one. Both time pauses behind its end.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Never set before that.
    pub silence: &'a Deadline,
    /// The pause between two looks at a peer that has closed its side.
    pub pause: &'a Deadline,
}

/// Carries bytes between two wires, those that were already read first. Returns when both sides have
/// finished, one of them failed, or one that has finished is gone; and when who is left has its last words.
pub async fn run(
    client: &mut Conn,
    origin: &mut Conn,
    limits: Limits<'_>,
    counts: (&Counter, &Counter),
    trace: Option<&Trace>,
) {
    let [client_failed, origin_failed] = carry_both(client, origin, limits, counts, trace).await;
    let client = deliver(client, client_failed, limits.pause);
    let origin = deliver(origin, origin_failed, limits.silence);
    future::zip(client, origin).await;
}

/// Says which of the two sides have failed.
async fn carry_both(
    client: &mut Conn,
    origin: &mut Conn,
    limits: Limits<'_>,
    (bytes_up, bytes_down): (&Counter, &Counter),
    trace: Option<&Trace>,
) -> [bool; 2] {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    let [client_side, origin_side] = [&client_reader, &origin_reader].map(|reader| Side {
        stream: reader.stream(),
        has_finished: Cell::new(false),
        has_failed: Cell::new(false),
    });
    let is_over = abandoned([&client_side, &origin_side], limits.pause);
    let silence = limits.silence;
    let tap = |side| trace.map(|trace| trace.tap(side));
    let up = carry(
        client_reader,
        origin_writer,
        silence,
        (bytes_up, tap(feed::Side::Request)),
        [&client_side, &origin_side],
    );
    let down = carry(
        origin_reader,
        client_writer,
        silence,
        (bytes_down, tap(feed::Side::Response)),
        [&origin_side, &client_side],
    );
    let both = async {
        // Each direction has its own end.
        let _ = future::try_zip(up, down).await;
    };
    future::or(both, is_over).await;
    [client_side, origin_side].map(|side| side.has_failed.get())
}

/// One end of a tunnel.
struct Side<'a> {
    stream: &'a Stream,
    /// It sends nothing more.
    has_finished: Cell<bool>,
    /// Its connection has failed.
    has_failed: Cell<bool>,
}

/// It failed, and all that came from it before has been carried: the end of both directions.
struct Failed;

async fn carry(
    mut from: Reader<'_>,
    to: Writer<'_>,
    limit: &Deadline,
    (bytes, tap): (&Counter, Option<BodyTap<'_>>),
    [sender, receiver]: [&Side<'_>; 2],
) -> Result<(), Failed> {
    let terms = Terms {
        form: BodyMode::Verbatim,
        stays: |_: &str| false,
        silence: InactivityTimeout {
            deadline: limit,
            most: None,
        },
        bytes,
        tap,
    };
    let mut rest = Body::new(Framing::UntilClose);
    to.begins_message();
    match relay::relay(&mut from, to, &mut rest, terms).await {
        // A socket tells of a failure only once, and whoever wrote to it may have been told.
        Ok(()) if sender.has_failed.get() => Err(Failed),
        Ok(()) => {
            to.finish().await;
            to.ends_message();
            sender.has_finished.set(true);
            Ok(())
        }
        // What came from it before is still to be read: the other direction finds its end.
        Err(Broken::Sink(_)) => {
            receiver.has_failed.set(true);
            Ok(())
        }
        Err(_) => {
            sender.has_failed.set(true);
            Err(Failed)
        }
    }
}

/// Waits until a peer has what was written to it, as long as it takes some of it now and then. What it says meanwhile is read
/// and nobody's any more.
async fn deliver(wire: &mut Conn, has_failed: bool, pause: &Deadline) {
    if has_failed {
        return;
    }
    let mut reader = wire.reader();
    let mut left = u32::MAX;
    let mut idle = 0;
    let mut is_listening = true;
    loop {
        let undelivered = reader.stream().tcp().map(peer::undelivered);
        match undelivered {
            // A Unix socket has it as soon as it is written.
            None | Some(Some(0)) => return,
            Some(None) if idle == DELIVERY_UNTOLD => return,
            Some(Some(now)) if now < left => (left, idle) = (now, 0),
            Some(_) if idle == DELIVERY_IDLE_MAX => return,
            Some(_) => {}
        }
        idle += 1;
        pause.set(Some(PAUSE_MIN));
        if is_listening {
            match relay::discard(&mut reader, pause, usize::MAX).await {
                Discarded::Ended => is_listening = false,
                Discarded::Failed => return,
                Discarded::TimeOver | Discarded::TooMuch => {}
            }
        }
        pause.passed().await;
    }
}

/// Waits until one of `sides` has finished and nobody holds it any more, or has failed and the other one takes nothing of its
/// last words.
async fn abandoned(sides: [&Side<'_>; 2], pause: &Deadline) {
    poll_fn(|_| {
        // Whoever sets it is polled before this, by the same task.
        let is_over = |side: &&Side<'_>| side.has_finished.get() || side.has_failed.get();
        if sides.iter().any(is_over) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let mut wait = PAUSE_MIN;
    let mut left = None;
    let mut idle = 0;
    loop {
        let is_gone =
            |side: &&Side<'_>| side.has_finished.get() && peer::of(side.stream) == Peer::Closed;
        if sides.iter().any(is_gone) {
            return;
        }
        if sides.iter().any(|side| side.has_failed.get()) {
            let taker = sides.iter().find(|side| !side.has_failed.get());
            let now = taker.and_then(|side| peer::undelivered(side.stream.tcp()?));
            (left, idle) = if now == left {
                (left, idle + 1)
            } else {
                (now, 0)
            };
            if idle == DELIVERY_IDLE_MAX {
                return;
            }
            wait = PAUSE_MIN;
        }
        pause.set(Some(wait));
        pause.passed().await;
        wait = (wait * 2).min(PAUSE_MAX);
    }
}

/// Most who finish close soon after.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// So many pauses without a byte taken end a delivery: one to two seconds.
const DELIVERY_IDLE_MAX: u32 = 20;

/// And so many where the system does not tell: most who read at all have it by then.
const DELIVERY_UNTOLD: u32 = 5;

/// A tunnel that is open in one direction only may stay so for hours, and each look is a few system calls.
const PAUSE_MAX: Duration = Duration::from_secs(2);
