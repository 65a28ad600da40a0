//! The page of `ic ui`: its server, its API, and the page itself as a browser gets it.
//!
//! How a request is read and who may ask is decided in `server`, `seats` and `token`, what the page can ask for in `api`, how
//! changes are made and taken back in `changes`, what the page is told without asking in `live` and `relay`. The page is in
//! `page/`.

mod api;
mod assets;
mod changes;
mod live;
mod queue;
mod relay;
mod seats;
mod server;
mod token;

pub use self::server::{Site, listen};
pub use self::token::Key;
