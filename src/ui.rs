//! The page of `ic ui`, and its server.
//!
//! The page itself is in `page/`, as a browser gets it. `server` decides who may ask for what, `api` answers requests, `live`
//! streams what changes, `feeds` what passes through the interceptors, of which `history` keeps the last requests. `watch` passes on
//! one response as it grows; `send` sends a request again. Connections and heads are read by [`httpd`](crate::httpd).

mod api;
mod app_state;
mod assets;
mod auth;
mod feeds;
mod history;
mod live;
mod prices;
mod queue;
mod response;
mod send;
mod server;
mod watch;

pub use self::app_state::{AppState, Changes, ClientText, ClientTexts, Commands};
pub use self::auth::{Auth, CODE_LIFE};
pub use self::feeds::Feeds;
pub use self::prices::line as prices_line;
