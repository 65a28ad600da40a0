//! What a message head costs: reading it, deciding about it, writing it for the next hop.
//!
//! `cargo bench --bench head`; each figure is for one head.

use divan::{AllocProfiler, Bencher, black_box};
use interceptor::http::connection::{ConnectionOptions, OPTIONS_MAX};
use interceptor::http::framing::{self, ResponseTo};
use interceptor::http::guard::Guard;
use interceptor::http::head::{self, RequestHead, ResponseHead, Slots};
use interceptor::http::reply::ConnectionField;
use interceptor::http::rewrite::{self, RequestRewriter};
use interceptor::http::scan::Scan;
use interceptor::http::target::Target;
use interceptor::http::{FIELDS_MAX, HEAD_BYTES_MAX, Parsed, Sender};

/// Counts allocations: none of this may make any.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// What openai-python sends, but for the key.
const CHAT: &str = "POST /v1/chat/completions HTTP/1.1\r\n\
    Host: localhost:8888\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\
    Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.99.0\r\n\
    X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.0\r\nX-Stainless-OS: Linux\r\n\
    X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.3\r\n\
    Authorization: Bearer sk-0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
    X-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n\
    Content-Length: 182\r\n\r\n";

/// What LiteLLM answers when it streams.
const STREAM: &str = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: uvicorn\r\n\
    x-litellm-call-id: 01234567-89ab-cdef-0123-456789abcdef\r\nx-litellm-version: 1.77.0\r\n\
    content-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";

fn with_request<T>(text: &str, question: impl FnOnce(&RequestHead<'_, '_>) -> T) -> T {
    match head::request(text.as_bytes(), &mut Slots::default()) {
        Ok(Parsed::Complete(head)) => question(&head),
        verdict => panic!("no head: {verdict:?}"),
    }
}

fn with_response<T>(text: &str, question: impl FnOnce(&ResponseHead<'_, '_>) -> T) -> T {
    match head::response(text.as_bytes(), &mut Slots::default()) {
        Ok(Parsed::Complete(head)) => question(&head),
        verdict => panic!("no head: {verdict:?}"),
    }
}

fn onward() -> RequestRewriter {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let fields = [
        field("x-memory-user-id", "pycharm-project"),
        field("x-pycharm-instance", "pycharm-project"),
        field("x-source", "pycharm-ai-chat"),
    ];
    RequestRewriter::new("localhost:8764", "", &fields).expect("they are settable")
}

#[divan::bench]
fn parse_request(bencher: Bencher<'_, '_>) {
    bencher.bench(|| with_request(black_box(CHAT), |head| head.len));
}

#[divan::bench]
fn parse_response(bencher: Bencher<'_, '_>) {
    bencher.bench(|| with_response(black_box(STREAM), |head| head.len));
}

/// Framing, target, guard, options.
#[divan::bench]
fn decide_request(bencher: Bencher<'_, '_>) {
    let guard = Guard {
        local_hosts_only: true,
        ..Guard::default()
    };
    with_request(CHAT, |head| {
        bencher.bench(|| {
            let head = black_box(head);
            let framing = framing::of_request(head).expect("it is framed");
            let target = Target::parse(head.method, head.target).expect("it has one");
            (
                framing,
                guard.check(head, &target, framing),
                ConnectionOptions::parse(head.fields)
                    .expect("it names few")
                    .is_persistent(head.version),
            )
        });
    });
}

#[divan::bench]
fn decide_response(bencher: Bencher<'_, '_>) {
    with_response(STREAM, |head| {
        bencher.bench(|| {
            let head = black_box(head);
            let framing = framing::of_response(head, ResponseTo::Other);
            (
                framing,
                ConnectionOptions::parse(head.fields)
                    .expect("it names few")
                    .is_persistent(head.version),
            )
        });
    });
}

#[divan::bench]
fn rewrite_request(bencher: Bencher<'_, '_>) {
    let onward = onward();
    with_request(CHAT, |head| {
        let target = Target::parse(head.method, head.target).expect("it has one");
        let framing = framing::of_request(head).expect("it is framed");
        let options = ConnectionOptions::parse(head.fields).expect("it names few");
        let mut out = Vec::with_capacity(HEAD_BYTES_MAX);
        bencher.bench_local(|| {
            out.clear();
            rewrite::request(
                black_box(head),
                &target,
                &options,
                framing,
                &onward,
                &mut out,
            )
        });
    });
}

#[divan::bench]
fn rewrite_response(bencher: Bencher<'_, '_>) {
    with_response(STREAM, |head| {
        let options = ConnectionOptions::parse(head.fields).expect("it names few");
        let mut out = Vec::with_capacity(HEAD_BYTES_MAX);
        bencher.bench_local(|| {
            out.clear();
            rewrite::response(
                black_box(head),
                &options,
                ConnectionField::Absent,
                false,
                &mut out,
            );
            out.len()
        });
    });
}

/// The worst head for its cost: as many fields, and as many options to compare them with, as are taken.
#[divan::bench]
fn rewrite_a_hostile_request(bencher: Bencher<'_, '_>) {
    let onward = onward();
    let fields = "aa: b\r\n".repeat(FIELDS_MAX - 2);
    let options = "bb,".repeat(OPTIONS_MAX) + &"TE,".repeat(20_000);
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: {options}\r\n\r\n");
    with_request(&text, |head| {
        let target = Target::parse(head.method, head.target).expect("it has one");
        let framing = framing::of_request(head).expect("it is framed");
        let mut out = Vec::with_capacity(HEAD_BYTES_MAX);
        bencher.bench_local(|| {
            out.clear();
            let options = ConnectionOptions::parse(head.fields).expect("it names few");
            rewrite::request(
                black_box(head),
                &target,
                &options,
                framing,
                &onward,
                &mut out,
            )
        });
    });
}

/// A head of 64 KiB that comes byte by byte: all questions whether it may be over.
#[divan::bench]
fn wait_for_a_slow_head(bencher: Bencher<'_, '_>) {
    let bytes = vec![b'a'; HEAD_BYTES_MAX - 1];
    bencher.bench(|| {
        let bytes = black_box(&bytes);
        let mut scan = Scan::head(Sender::Client);
        (1..=bytes.len())
            .filter(|&len| scan.is_decided(&bytes[..len]))
            .count()
    });
}
