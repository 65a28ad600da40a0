//! Both ways at once, until both halves have closed (RFC 9110 §7.8).
//!
//! Each direction is a body that ends with its connection, and is relayed as one.

use smol::future;

use super::counter::Counter;
use super::deadline::Deadline;
use super::relay::{self, Broken, Terms};
use super::wire::{Reader, Wire, Writer};
use crate::http::body::{Body, Form};
use crate::http::framing::Framing;

/// Carries bytes between two wires, those that were already read first. Returns when both sides have
/// finished, or one of them failed. `limit` is not set: silence in a tunnel is no fault.
pub async fn run(
    client: &mut Wire,
    origin: &mut Wire,
    limit: &Deadline,
    bytes_up: &Counter,
    bytes_down: &Counter,
) {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    let up = carry(client_reader, origin_writer, limit, bytes_up);
    let down = carry(origin_reader, client_writer, limit, bytes_down);
    // Each direction has its own end; a failure of one is the end of both.
    let _ = future::try_zip(up, down).await;
}

async fn carry(
    mut from: Reader<'_>,
    to: Writer<'_>,
    limit: &Deadline,
    bytes: &Counter,
) -> Result<(), Broken> {
    let terms = Terms {
        form: Form::AsIs,
        stays: |_: &str| false,
        silence: (limit, None),
        bytes,
    };
    let mut rest = Body::new(Framing::UntilClose);
    relay::relay(&mut from, to, &mut rest, terms).await?;
    to.finish();
    Ok(())
}
