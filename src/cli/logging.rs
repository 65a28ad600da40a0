//! The log: one short line for each record, on standard error, filtered by `RUST_LOG`.
//!
//! Errors of commands and warnings about the registry are no log records; they are always printed.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::output::Shown;
use super::settings::Environment;

/// Starts logging for the whole process; the first call counts. `default` is the filter where there is no `RUST_LOG`.
pub fn start(environment: &Environment<'_>, default: &str) {
    let filter = environment
        .variable("RUST_LOG")
        .and_then(|given| given.text().map(str::to_owned).ok())
        .unwrap_or_else(|| default.to_owned());
    // An error only says that somebody else has installed a logger: a test, or a program that uses the library.
    let _ = env_logger::Builder::new()
        .parse_filters(&filter)
        .format(|out, record| {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let seconds = now.as_secs();
            writeln!(
                out,
                "{:02}:{:02}:{:02}.{:03}Z {:5} {}",
                seconds / 3600 % 24,
                seconds / 60 % 60,
                seconds % 60,
                now.subsec_millis(),
                record.level(),
                // A peer's bytes may be in it.
                Shown(&record.args().to_string()),
            )
        })
        .try_init();
}
