//! Both ways at once, until both halves have closed (RFC 9110 §7.8).
//!
//! Each direction is a body that ends with its connection, and is relayed as one: a receiver sees the end of its
//! sender as an end, and anything else that ends the tunnel as a reset.
//!
//! Decided here: when a tunnel has nobody left. One direction's end says nothing about the other, but a peer that has closed
//! its side and then ceases to be will never read what the other side may still say.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use super::counter::Counter;
use super::deadline::{Deadline, Silence};
use super::feed::{self, Sight, Trace};
use super::peer::{self, Peer};
use super::relay::{self, Broken, Terms};
use super::wire::{Reader, Stream, Wire, Writer};
use crate::http::body::{Body, Form};
use crate::http::framing::Framing;

/// The limits of a tunnel: neither is on silence, which is no fault in one.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Never set.
    pub silence: &'a Deadline,
    /// The pause between two looks at a peer that has closed its side.
    pub pause: &'a Deadline,
}

/// Carries bytes between two wires, those that were already read first. Returns when both sides have
/// finished, one of them failed, or one that has finished is gone.
pub async fn run(
    client: &mut Wire,
    origin: &mut Wire,
    limits: Limits<'_>,
    (bytes_up, bytes_down): (&Counter, &Counter),
    trace: Option<&Trace>,
) {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    let [client_side, origin_side] = [&client_reader, &origin_reader].map(|reader| Side {
        stream: reader.stream(),
        has_finished: Cell::new(false),
    });
    let is_over = abandoned([&client_side, &origin_side], limits.pause);
    let silence = limits.silence;
    let sight = |side| trace.map(|trace| trace.sight(side));
    let up = carry(
        client_reader,
        origin_writer,
        silence,
        (bytes_up, sight(feed::Side::Request)),
        &client_side,
    );
    let down = carry(
        origin_reader,
        client_writer,
        silence,
        (bytes_down, sight(feed::Side::Response)),
        &origin_side,
    );
    let both = async {
        // Each direction has its own end; a failure of one is the end of both.
        let _ = future::try_zip(up, down).await;
    };
    future::or(both, is_over).await;
}

/// One end of a tunnel.
struct Side<'a> {
    stream: &'a Stream,
    /// It sends nothing more.
    has_finished: Cell<bool>,
}

async fn carry(
    mut from: Reader<'_>,
    to: Writer<'_>,
    limit: &Deadline,
    (bytes, sight): (&Counter, Option<Sight<'_>>),
    side: &Side<'_>,
) -> Result<(), Broken> {
    let terms = Terms {
        form: Form::AsIs,
        stays: |_: &str| false,
        silence: Silence {
            deadline: limit,
            most: None,
        },
        bytes,
        sight,
    };
    let mut rest = Body::new(Framing::UntilClose);
    to.begins_message();
    relay::relay(&mut from, to, &mut rest, terms).await?;
    to.finish().await;
    to.ends_message();
    side.has_finished.set(true);
    Ok(())
}

/// Waits until one of `sides` has finished and nobody holds it any more.
async fn abandoned(sides: [&Side<'_>; 2], pause: &Deadline) {
    poll_fn(|_| {
        // Whoever sets it is polled before this, by the same task.
        if sides.iter().any(|side| side.has_finished.get()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let mut wait = PAUSE_MIN;
    loop {
        let is_gone = |side: &&Side<'_>| {
            let tcp = side.stream.tcp();
            side.has_finished.get() && tcp.is_some_and(|tcp| peer::of(tcp) == Peer::Closed)
        };
        if sides.iter().any(is_gone) {
            return;
        }
        pause.set(Some(wait));
        pause.passed().await;
        wait = (wait * 2).min(PAUSE_MAX);
    }
}

/// Most who finish close soon after.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// A tunnel that is open in one direction only may stay so for hours, and each look is a few system calls.
const PAUSE_MAX: Duration = Duration::from_secs(2);
