//! The way to the target: connections to it, made and kept.
//!
//! [`pool`] lends a kept connection or asks [`connect`] for a new one. Which of several addresses is tried when is decided by
//! [`happy_eyeballs`]; a proxy on the way is asked in [`proxy`]; an `https` target is spoken to in [`tls`].

pub mod connect;
pub mod error;
pub mod happy_eyeballs;
pub mod pool;
pub mod proxy;
pub mod tls;
