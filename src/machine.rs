//! This machine: which program listens on a port, which interceptors run, and whether an address accepts connections.
//!
//! Everything is found by looking; no state is kept. Results are values: the commands print them.

pub mod ask;
pub mod feeds;
pub mod holder;
pub mod reach;
pub mod survey;
