//! This machine: which process listens on a port, which interceptors run, and whether an address accepts connections.
//!
//! Everything is found by looking; no state is kept. There is one way to ask an interceptor who it is ([`interceptor`]), one
//! HTTP client ([`client`]), one way to connect ([`connect`]), and one list of who listens where ([`listeners`]). Nothing here
//! prints.

pub mod client;
pub mod connect;
pub mod feeds;
pub mod interceptor;
pub mod listeners;
pub mod process;
pub mod survey;
