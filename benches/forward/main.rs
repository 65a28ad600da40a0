//! Compares the cost of forwarding in `ic` and in other proxies, over real sockets; each program is a process of its own.
//!
//! `cargo bench --bench forward` takes about half an hour, with `-- --quick` under three minutes; `-- --help` lists the
//! options and rows.
//!
//! To compare two builds of `ic` in one run, set `IC_BASELINE` to the other binary. It takes part in every row as the peer
//! `baseline`, interleaved with this build as all peers are, and the last column of the table is this build's figure
//! divided by the baseline's:
//!
//! ```sh
//! IC_BASELINE=/tmp/ic-before cargo bench --bench forward -- --peers direct,ic,baseline --only get,post,sse
//! ```
//!
//! The forwarders run on one core, the origin and the load client on another; both check every byte. The rounds of all
//! peers are interleaved and the table shows medians, because machines are noisy. The steadiest figure is the CPU time
//! that the kernel accounts to the forwarder's threads.

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
