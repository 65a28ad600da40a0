//! Both ways at once, until both halves have closed (RFC 9110 §7.8).

use std::cell::Cell;

use smol::future;

use super::wire::{Filled, Reader, Wire, Writer};

/// Carries bytes between two wires, those that were already read first. Returns when both sides have
/// finished, or one of them failed.
pub async fn run(client: &mut Wire, origin: &mut Wire, bytes: &Cell<u64>) {
    let (client_reader, client_writer) = client.split();
    let (origin_reader, origin_writer) = origin.split();
    let up = carry(client_reader, origin_writer, bytes);
    let down = carry(origin_reader, client_writer, bytes);
    // Each direction has its own end; a failure of one is the end of both.
    let _ = future::try_zip(up, down).await;
}

/// A side that is gone.
struct Gone;

async fn carry(mut from: Reader<'_>, to: Writer<'_>, total: &Cell<u64>) -> Result<(), Gone> {
    loop {
        if from.bytes().is_empty() && from.fill().await.map_err(|_| Gone)? == Filled::EndOfFile {
            to.finish();
            return Ok(());
        }
        to.write_all(from.bytes()).await.map_err(|_| Gone)?;
        let count = from.bytes().len();
        total.set(total.get() + count as u64);
        from.consume(count);
    }
}
