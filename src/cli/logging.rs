//! The log: one short line for each record, on standard error, filtered by `RUST_LOG`.
//!
//! Errors of commands and warnings about the registry are not log records; they are always printed. An invalid filter is
//! only warned of, because all programs share `RUST_LOG` and some accept more than this one; the default is used then.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::output::eprint_line;
use super::settings::Environment;
use crate::text::{Escaped, redact};

/// Starts logging for the whole process; later calls have no effect. `default` is the filter if `RUST_LOG` is not set.
pub fn start(environment: &Environment<'_>, default: &'static str) {
    let given = environment.variable("RUST_LOG");
    let valid = given.as_ref().map_or(Ok(default), |given| {
        let text = given.text().ok();
        let is_valid = |text: &&str| env_filter::Builder::new().try_parse(text).is_ok();
        text.filter(is_valid).ok_or(given)
    });
    let filter = valid.unwrap_or_else(|given| {
        let why = "is not a log filter; give one such as `debug` or `interceptor=debug`";
        eprint_line(format_args!("warning: {}", given.refused(why)));
        default
    });
    // Fails only if a logger is installed already: by a test, or by a program that uses the library.
    let _ = env_logger::Builder::new()
        .parse_filters(filter)
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
                // The message may contain bytes from a peer and secrets.
                Escaped(&redact::text(&record.args().to_string(), false)),
            )
        })
        .try_init();
}
