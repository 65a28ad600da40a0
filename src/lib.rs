//! One port for each project, and on it a transparent HTTP/1.1 forwarder that says which project a request
//! comes from.
//!
//! Several IDEs share one LLM proxy and cannot name the project that they work on. `ic` gives each project
//! a port of its own, for ever, and forwards what arrives there to the proxy with identification fields
//! added. It streams everything, stores nothing and gets out of the way.
//!
//! # Two halves that never meet
//!
//! ```text
//! path → project → registry → port            (registry: which port is whose)
//! bytes → head → framing → relay → bytes      (http, serve: what happens on it)
//! ```
//!
//! Only the command line ([`cli`]) knows both.
//!
//! # One question carries every framing
//!
//! A forwarder that passes bodies through asks of a body only: *how many of the next bytes may pass without
//! being looked at?* [`http::body::Body::opaque`] answers: all that is left of a length, the rest of a
//! chunk's data, everything until the connection closes, or none. So the relay is one loop that does not
//! know which framing it serves, ways to move bytes are interchangeable, and every rule of HTTP is a pure
//! function that a fuzzer can call.
//!
//! # The way of a request
//!
//! 1. `serve` accepts a connection of a `serve::site`, the port of one project, and gives it a task, which `serve::exchange`
//!    drives. All waiting is done in `serve::reactor`: the one place that asks the system which sockets are ready.
//! 2. [`http::head`] parses the head, [`http::framing`] decides once how the body ends, [`http::guard`]
//!    whether the request is served, [`http::rewrite`] writes the head for the target; [`http::forward`] calls
//!    them in this order.
//! 3. `serve::upstream::pool` lends a kept connection, or `serve::upstream::connect` makes one: it resolves the target's host,
//!    tries its addresses in turn (`happy_eyeballs`), and performs the TLS handshake (`tls`) where the target is `https`.
//! 4. Two futures run side by side: `serve::exchange::upload` sends the request and waits for the client to disconnect,
//!    `serve::exchange::download` passes the response on. `serve::relay` moves bodies (large ones by `serve::transfer`, which
//!    leaves them in the kernel where it can), `serve::tunnel` what follows a 101. [`serve::end_mark`] says whether a client that
//!    disconnects within an event stream has all of it.
//! 5. [`http::connection`] decides whether each connection serves another request.
//!
//! Each error is one row of a table, with its status, code, message and whether a retry can help: those of the message in
//! `http::error`, of the exchange in `serve::error`, of the connection to the target in `serve::upstream::error`.
//!
//! [`serve::feed`] publishes each step while it has a subscriber; otherwise it costs one test of one byte.
//!
//! # Code map
//!
//! | where | what |
//! |---|---|
//! | `main.rs` | arguments → [`cli`] → exit code |
//! | [`cli`] | the commands; the only place that prints results |
//! | [`registry`] | which port is whose, and how a project is served: text ↔ value, allocation, the shared file, its repair |
//! | [`http`] | HTTP/1.1 without I/O |
//! | [`serve`] | runs an interceptor: options, sites, the service that they share, sockets, time limits, exchanges |
//! | [`serve::feed`] | the exchanges as events, for subscribers on a Unix socket |
//! | [`machine`] | this machine: who listens, which interceptors run, what accepts connections |
//! | [`ui`] | the page of `ic ui`: its API, its live stream, its files |
//! | [`mock`] | a small upstream for trying out, which speaks the APIs of agents |
//! | [`httpd`] | the small blocking HTTP server of [`mock`] and [`ui`] |
//!
//! # Invariants
//!
//! `tests/it/tidy.rs` holds each of them.
//!
//! 1. Nothing under [`http`] does I/O, awaits, reads a clock, or grows without a limit.
//! 2. [`serve`] does not know [`registry`], nor [`registry`] [`serve`].
//! 3. Only `http/framing.rs` interprets `Content-Length` and `Transfer-Encoding`: there is no second opinion on
//!    where a body ends.
//! 4. No byte is forwarded that no head or body has accounted for.
//! 5. Only a few named files know a platform; the portable twin of each is compiled and tested on Linux with
//!    `--cfg ic_portable`.
//! 6. There is no unsafe code; the compiler forbids it.
//! 7. Only [`cli`] prints results, and no peer's bytes can reach a panic.
//!
//! # Out of scope
//!
//! HTTP/2 and HTTP/3, caching, rewriting of bodies, load balancing, routing by path, being a forward proxy.

pub mod cli;
pub mod http;
pub mod httpd;
pub mod machine;
pub mod mock;
pub mod registry;
pub mod serve;
pub mod text;
#[cfg(feature = "ui")]
pub mod ui;

pub use registry::facade::{PortRegistry, RegistryError, RegistryInfo, RegistryOptions};
