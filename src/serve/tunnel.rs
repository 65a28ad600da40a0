//! Bytes in both directions, until both have ended (RFC 9110 §7.8).
//!
//! Each direction is a body that ends with its connection, and is relayed as one: the end of one side's stream is passed on as
//! an end, and a failure as a reset. The end of one direction says nothing about the other. After a failure the other side has
//! a moment to read what was sent before it, for a reset overtakes that.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use super::conn::{Conn, Reader, Stream, Writer};
use super::deadline::{Deadline, InactivityTimeout, Limits};
use super::feed::{self, BodyTap, Trace};
use super::metrics::{Counter, Metrics};
use super::relay::{self, RelayError, RelayOptions};
use crate::http::body::{Body, BodyMode};
use crate::http::framing::Framing;

/// Relays bytes between two connections, those that were already read first. Silence is not limited; `limits` time pauses. Returns
/// when both sides have ended, or one of them has failed and the other had time to read the last bytes.
pub async fn run(
    client: &mut Conn,
    origin: &mut Conn,
    limits: Limits<'_>,
    metrics: &Metrics,
    trace: Option<&Trace>,
) {
    if let Some(trace) = trace {
        trace.start_tunnel();
    }
    relay_both(client, origin, limits, metrics, trace).await;
    let client = linger(client, limits.client);
    let origin = linger(origin, limits.origin);
    future::zip(client, origin).await;
}

async fn relay_both(
    client: &mut Conn,
    origin: &mut Conn,
    limits: Limits<'_>,
    metrics: &Metrics,
    trace: Option<&Trace>,
) {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    let [client_side, origin_side] = [&client_reader, &origin_reader].map(|reader| Side {
        stream: reader.stream(),
        has_ended: Cell::new(false),
        has_failed: Cell::new(false),
    });
    let broken = wait_until_broken([&client_side, &origin_side], limits.client);
    let tap = |side| trace.map(|trace| trace.tap(side));
    let up = relay_one(
        client_reader,
        origin_writer,
        limits.origin,
        (&metrics.bytes_up, tap(feed::Side::Request)),
        [&client_side, &origin_side],
    );
    let down = relay_one(
        origin_reader,
        client_writer,
        limits.origin,
        (&metrics.bytes_down, tap(feed::Side::Response)),
        [&origin_side, &client_side],
    );
    let both = async {
        let _ = future::try_zip(up, down).await;
    };
    future::or(both, broken).await;
}

/// One end of a tunnel.
struct Side<'a> {
    stream: &'a Stream,
    /// It sends nothing more.
    has_ended: Cell<bool>,
    /// Its connection has failed.
    has_failed: Cell<bool>,
}

/// The sender failed, and everything it sent before has been relayed: both directions end.
struct Failed;

async fn relay_one(
    mut from: Reader<'_>,
    to: Writer<'_>,
    deadline: &Deadline,
    (bytes, tap): (&Counter, Option<BodyTap<'_>>),
    [sender, receiver]: [&Side<'_>; 2],
) -> Result<(), Failed> {
    let options = RelayOptions {
        mode: BodyMode::Verbatim,
        drops_trailer: |_: &str| false,
        inactivity: InactivityTimeout {
            deadline,
            most: None,
        },
        bytes,
        tap,
        end_mark: None,
    };
    let mut rest = Body::new(Framing::UntilClose);
    to.begins_message();
    match relay::relay(&mut from, to, &mut rest, options).await {
        // A socket reports a failure only once, and a write in the other direction may have received it.
        Ok(()) if sender.has_failed.get() => Err(Failed),
        Ok(()) => {
            to.finish().await;
            to.ends_message();
            sender.has_ended.set(true);
            Ok(())
        }
        // What the receiver sent before it failed is still to be read: the other direction finds its end.
        Err(RelayError::Sink(_)) => {
            receiver.has_failed.set(true);
            Ok(())
        }
        Err(_) => {
            sender.has_failed.set(true);
            Err(Failed)
        }
    }
}

/// Waits until one of `sides` has failed, and then until the other had time to take what was sent before. A side that has ended
/// is not read any more, so it is checked for a reset now and then.
async fn wait_until_broken(sides: [&Side<'_>; 2], deadline: &Deadline) {
    // The relays, which set this, are polled before this, by the same task.
    poll_fn(|_| {
        let is_over = |side: &&Side<'_>| side.has_ended.get() || side.has_failed.get();
        match sides.iter().any(is_over) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    let mut pause = PAUSE_MIN;
    loop {
        let is_reset = |side: &&Side<'_>| side.has_ended.get() && side.stream.is_reset();
        if sides.iter().any(is_reset) {
            return;
        }
        let has_failed = sides.iter().any(|side| side.has_failed.get());
        deadline.set(Some(if has_failed { FLUSH_TIME } else { pause }));
        deadline.passed().await;
        if has_failed {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Gives a peer that has not ended its side the time to read what was written to it. What it sends meanwhile is dropped.
async fn linger(conn: &mut Conn, deadline: &Deadline) {
    deadline.set(Some(LINGER));
    relay::drain(&mut conn.reader(), deadline, usize::MAX).await;
}

/// Most peers that have ended their side close their connection soon after.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// A tunnel may be open in one direction for hours.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long the other direction goes on after a failure.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// A peer that reads at all empties its socket in this time; a reset is not delayed for longer.
const LINGER: Duration = Duration::from_millis(400);
