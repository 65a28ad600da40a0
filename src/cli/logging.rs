//! The log: one short line for each record, on standard error, filtered by `RUST_LOG`. The journal of systemd has the time and
//! a place for the level, so lines for it have neither, but the level as systemd.exec(5), `SyslogLevelPrefix=`, reads it.
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
    let is_journal = is_journal(environment);
    // Fails only if a logger is installed already: by a test, or by a program that uses the library.
    let _ = env_logger::Builder::new()
        .parse_filters(filter)
        .format(move |out, record| {
            // The message may contain bytes from a peer and secrets.
            let message = redact::text(&record.args().to_string(), false);
            let message = Escaped(&message);
            if is_journal {
                return writeln!(out, "<{}>{message}", syslog_level(record.level()));
            }
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let seconds = now.as_secs();
            writeln!(
                out,
                "{:02}:{:02}:{:02}.{:03}Z {:5} {message}",
                seconds / 3600 % 24,
                seconds / 60 % 60,
                seconds % 60,
                now.subsec_millis(),
                record.level(),
            )
        })
        .try_init();
}

/// Whether standard error goes to the journal: `JOURNAL_STREAM` of systemd.exec(5) names its file, and programs with another
/// standard error inherit the variable.
fn is_journal(environment: &Environment<'_>) -> bool {
    let file = rustix::fs::fstat(std::io::stderr());
    let file = file.map(|file| format!("{}:{}", file.st_dev, file.st_ino));
    let given = environment.variable("JOURNAL_STREAM");
    given.is_some_and(|given| file.is_ok_and(|file| given.text().is_ok_and(|text| text == file)))
}

/// The level as syslog(3) counts it.
fn syslog_level(level: log::Level) -> u8 {
    match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    }
}
