//! The live feed: what happens on the port, told to whoever listens.
//!
//! Each interceptor has a Unix socket beside its port, `PID.sock` in a folder that nobody else may enter. Nothing is shadowed
//! on the port, and no browser reaches it. Both sides speak lines of JSON (UTF-8, ended by `\n`).
//!
//! # From the interceptor
//!
//! Times are Unix seconds (`at`) or milliseconds since the request's first byte (`…_ms`), with fractions.
//!
//! | event | when, and what goes with it |
//! |---|---|
//! | `hello` | first: `protocol` (1), `instance_id`, `project` (a name), `path`, `port`, `pid`, `target`, `recording`, `at` |
//! | `start` | a request's head has come: `id`, `at`, `connection`, `client`, `method`, `path`, `version`, `fields`, `length` |
//! | `head` | the target's answer has begun (told anew in the rare case that the request then goes out once more): `id`, `at`, `status`, `reason`, `fields`, `length`, `ttfb_ms` |
//! | `progress` | at most four times a second for each exchange: `id`, `request_bytes`, `response_bytes`, `events` |
//! | `body` | a body is over, while recording: `id`, `side` (`request`, `response`), `encoding` (`utf8`, `base64`), `data`, `truncated`, `total` |
//! | `end` | the exchange is over: `id`, `at`, `duration_ms`, `ttfb_ms`, `request_bytes`, `response_bytes`, `outcome`, `status`, `error`, `model`, `input_tokens`, `output_tokens`, `events`, `first_event_ms`, `last_event_ms` |
//! | `recording` | it was switched: `on` |
//! | `lost` | this listener was too slow: `count` lines are missing here |
//! | `full` | instead of what happens, and the last one: there are `listeners` already |
//! | `bye` | last: the interceptor stops |
//!
//! - `fields` are pairs `[name, value]`, in order, as they came. Whatever is not known is null: the method and path of a request
//!   that cannot be read, the `length` of a body that does not announce one, the status of an answer that never came.
//! - `path` has the names of a query and no values. Values of fields that hold keys, and texts that look like keys, are `…`.
//! - `outcome` is `complete`, `client_gone` (or it takes nothing any more), `origin_cut` (within its answer), `refused` (a request
//!   that is not served, or not any more; it may have part of an answer),
//!   `error` (no answer from the target; `error` says which as `x-ic-error` does) or `tunnel` (it has ended).
//! - Bytes are those of bodies, without chunk framing.
//! - Answers in the interceptor's own name have a `start` and an `end`, no `head`. Its own pages (`/_ic/…`) and connections above the
//!   limit are left out, and so is a request that was in flight before the first listener came.
//! - Model, tokens and events are known of JSON and event streams without a content coding, as far as those tell.
//! - What stands in an event may grow; unknown events and members are to be ignored.
//!
//! # To the interceptor
//!
//! `{"record":true}` and `{"record":false}` switch recording. Other lines of up to 4 KiB are ignored; a longer one, or closing
//! the sending half, ends the connection.
//!
//! # Recording
//!
//! Off at first. While it is on, the last 256 exchanges are kept, bodies of up to 1 MiB included, in at most 8 MiB, and told to
//! each new listener; bodies that are still coming have another 8 MiB. Keys in them are replaced; a body with a content coding is
//! kept as it is. It goes off, and everything kept with it, by `{"record":false}`, or a minute after the last listener has left: a
//! page that is loaded anew goes on, but nobody's prompts stay in memory because a window was closed.
//!
//! # What it costs
//!
//! Off: one test of one byte for each request. On: a listener that does not keep up loses lines (1024 may wait) and is told how
//! many, so that no exchange ever waits for one. The hub is shared by all threads that serve; each exchange tells it from its own.

pub mod command;
mod event;
mod hub;
mod json;
pub mod observe;
mod record;
mod redact;
mod socket;
mod trace;

pub(crate) use self::event::{InstanceInfo, Outcome, Side};
pub(crate) use self::hub::Hub;
pub(crate) use self::socket::{Channel, is_private, own_socket};
pub(crate) use self::trace::{Beginning, BodyTap, Trace};
