//! The live feed: the exchanges of an interceptor as events, for subscribers on a Unix socket.
//!
//! Each process has a socket of its own, `PID.sock` in a folder that no other user can enter. The port itself has no page
//! for it, so no browser can reach it. Both sides send lines of JSON (UTF-8, ended by `\n`).
//!
//! # Events
//!
//! Times are Unix seconds (`at`) or milliseconds since the request's first byte (`…_ms`), with fractions.
//!
//! | event | when, and its members |
//! |---|---|
//! | `hello` | first: `protocol` (1), `instance_id`, `project` (a name), `path`, `port`, `pid`, `target`, `recording`, `at` |
//! | `site` | a process that serves many ports serves this one, or serves it differently: `port` and the other members of `hello` that identify it |
//! | `site_closed` | it does not serve `port` any more |
//! | `start` | the head of a request has been read: `id`, `at`, `port`, `connection`, `client`, `method`, `path`, `version`, `fields`, `added`, `length`, `upgrade` |
//! | `head` | the head of the target's response has been read; once more if the request is then sent again: `id`, `at`, `status`, `reason`, `fields`, `length`, `ttfb_ms`, `model` |
//! | `progress` | at most four times a second for each exchange, and once its model is known: `id`, `request_bytes`, `response_bytes`, `events`, `model` |
//! | `body` | a body has ended while recording is on, or the watched one has grown: `id`, `side` (`request`, `response`), `encoding` (`utf8`, `base64`, `omitted`), `data`, `truncated`, `total` |
//! | `end` | the exchange has ended: `id`, `at`, `port`, `duration_ms`, `ttfb_ms`, `request_bytes`, `response_bytes`, `outcome`, `status`, `error`, `message`, `model`, `input_tokens`, `cached_tokens`, `output_tokens`, `cost`, `turns`, `events`, `first_event_ms`, `last_event_ms` |
//! | `recording` | recording was switched: `on` |
//! | `live` | the lines before it were published before the subscription, those behind it are new |
//! | `lost` | the subscriber is too slow: `count` lines are missing here |
//! | `full` | last, after `hello`: there are `listeners` subscribers already |
//! | `bye` | last: the interceptor stops, the port is not served any more, or the watched response is complete |
//! | `yielded` | `port` is left to the subscriber; no other event follows |
//!
//! - In the `hello` of a process that serves many ports `port`, `project` and `path` are null, and `sites` has an element for each
//!   port. Its exchanges have different ids, whatever their port.
//! - `fields` are pairs `[name, value]` in their order. Unknown values are null: the method and path of a malformed request, the
//!   `length` of a body that does not announce one, the status of a missing response.
//! - `added` are pairs like `fields`: what the target gets in addition to the client's fields or in place of those of that name,
//!   as `Host`, `Via` and the identification. Null where the request is refused.
//! - `path` has the names of a query, without values. Values of fields that hold secrets, and secrets in other texts, are `…`.
//! - `outcome` is `complete` (also where the client disconnected at the [end mark](super::end_mark) of an event stream without a
//!   content coding), `client_gone` (the client disconnected before that, or stopped reading), `origin_cut` (the target closed within
//!   its response), `refused` (the request was not served, or only in part, because of the client), `error` (the target sent no
//!   response; `error` is the value of `x-ic-error`) or `tunnel` (the tunnel has ended).
//! - A request has failed if its status is 400 or above, or its outcome `origin_cut`, `error` or `refused`: in the metrics, `ic status`
//!   and the page as well. `client_gone` alone is no failure.
//! - Bytes are those of bodies, without chunk framing.
//! - Responses of the interceptor itself have a `start` and an `end`, no `head`. Its own pages (`/_ic/…`), its answers to requests
//!   with `Max-Forwards: 0`, connections above the limit, and requests that started before the first subscriber are left out.
//! - `upgrade` is the protocol that the request asks to change to, such as `websocket`.
//! - `message` says in words what went wrong, in at most 300 characters: that of the interceptor's own response, or for a status of
//!   400 or more that in the JSON body of the target's response (`error.message` and similar), if it has up to 64 KiB.
//! - Model, tokens and events come from JSON bodies and event streams without a content coding; the model of Gemini from the path.
//! - `input_tokens` are all tokens of the prompt. `cached_tokens` are those of them that were read from a cache; Anthropic's
//!   `input_tokens` leave them out, and those written to a cache, so they are added. `output_tokens` include thoughts. `cost` is the
//!   target's `x-litellm-response-cost`, in US dollars.
//! - `turns` is the number of responses in a WebSocket that speaks the Responses API, in text messages without extensions; its
//!   tokens are those of all of them.
//! - Events may get more members; clients ignore unknown events and members.
//!
//! # Commands
//!
//! `{"record":true}` and `{"record":false}` switch recording, for all ports of the process. `{"port":N}`: from now on only the lines
//! about this port are sent, after a `hello` and a `live` of their own. `{"yield":N}`: a process that serves many ports does not listen on this one
//! for as long as the subscriber is connected; `yielded` says that it is free. `bye` ends both where the port is not served.
//! `{"watch":ID}`: from now on only `body` lines with the recorded whole lines of the response of that exchange are sent, at most four
//! a second. Other lines of up to 4 KiB are ignored; a longer line ends the connection, and so does closing the sending half.
//!
//! # Recording
//!
//! Off at first. While it is on, the last 256 exchanges are kept, including up to 1 MiB of each body, in at most 8 MiB, and sent
//! to each new subscriber before `live`; bodies that are not complete have another 8 MiB. Secrets in bodies are replaced by `…`
//! ([`redact`](crate::text::redact)). A body with a content coding is `omitted`, because secrets in it would not be found; a
//! client that sends no `Accept-Encoding` gets bodies without one. `{"record":false}` switches recording off and discards what
//! was kept; so does a minute without a subscriber, so that a page can be reloaded, but prompts do not stay in memory after it
//! is closed. `ic ui` stays subscribed without a page, and switches recording off itself.
//!
//! # Cost
//!
//! Without subscribers and recording: one test for each request. A subscriber that does not keep up loses lines
//! (1024 may wait) and gets their number, so an exchange never waits for one.

pub mod command;
mod event;
mod hub;
mod json;
pub mod observe;
mod record;

mod socket;
mod trace;
mod websocket;

pub(crate) use self::event::{InstanceInfo, Outcome, Side};
pub(crate) use self::hub::Hub;
pub(crate) use self::socket::{FeedSocket, OwnSocket, PendingLease, Publisher, is_private};
pub use self::socket::{create_private, sweep};
pub(crate) use self::trace::{BodyTap, RequestStart, Trace, body_format};
