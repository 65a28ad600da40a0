//! What forwarding costs, beside what it costs others: real sockets, each program a process of its own.
//!
//! `cargo bench --bench forward` (about a quarter of an hour), or with `-- --quick` in under three minutes;
//! `-- --help` tells the rest.
//!
//! The forwarders run on one core, the origin and the load client, which check every byte, on another. Rounds of all
//! peers are interleaved and the table shows medians, because machines are noisy; CPU time as the kernel accounts it
//! for the forwarder's threads is the steadiest figure.

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod hyper_proxy;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod origin;
#[cfg(target_os = "linux")]
mod pattern;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod poll;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this bench needs Linux: it reads what processes have used from /proc");
}
