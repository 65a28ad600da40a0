//! What it costs to follow a chunked body: per chunk where chunks are small, per byte where they are large.
//!
//! `cargo bench --bench chunked`

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use interceptor::http::body::Body;
use interceptor::http::framing::Framing;

/// Counts allocations: none of this may make any.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// 1,000 chunks of so many bytes, which arrive together.
#[divan::bench(args = [1, 100, 4096])]
fn follow_1000_chunks(bencher: Bencher<'_, '_>, size: usize) {
    let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let bytes = chunk.repeat(1000) + "0\r\n\r\n";
    bencher
        .counter(ItemsCount::new(1000_usize))
        .counter(BytesCount::of_slice(bytes.as_bytes()))
        .bench(|| {
            let mut body = Body::new(Framing::Chunked);
            let count = body.follow(black_box(bytes.as_bytes()));
            assert!(body.is_complete());
            count
        });
}

/// A server-sent event, as a chunk of its own: what one token of a stream costs.
#[divan::bench]
fn follow_an_event(bencher: Bencher<'_, '_>) {
    let event = format!("data: {{\"id\":\"{}\"}}\n\n", "x".repeat(180));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    bencher
        .counter(BytesCount::of_slice(chunk.as_bytes()))
        .bench(|| {
            let mut body = Body::new(Framing::Chunked);
            body.follow(black_box(chunk.as_bytes()))
        });
}

/// The dearest framing there is: extensions, quoted.
#[divan::bench]
fn follow_extensions(bencher: Bencher<'_, '_>) {
    let chunk = format!(
        "64;signature=\"{}\"\r\n{}\r\n",
        "a".repeat(80),
        "x".repeat(100)
    );
    let bytes = chunk.repeat(1000) + "0\r\n\r\n";
    bencher.counter(ItemsCount::new(1000_usize)).bench(|| {
        let mut body = Body::new(Framing::Chunked);
        body.follow(black_box(bytes.as_bytes()))
    });
}

/// Data that passes unseen is only counted.
#[divan::bench]
fn advance(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        let mut body = Body::new(black_box(Framing::Length(1 << 40)));
        body.advance(black_box(1 << 16));
        body.opaque()
    });
}
