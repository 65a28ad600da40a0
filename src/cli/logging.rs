//! The log: one short line for each record, on standard error, filtered by `RUST_LOG`.
//!
//! Errors of commands and warnings about the registry are no log records; they are always printed. A filter that cannot be
//! understood is no reason to stop: every program of a shell shares `RUST_LOG`, and some take more than this one. It is
//! named in one line, and what can be understood of it counts.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use log::LevelFilter;

use super::settings::Environment;
use crate::cli::output::eprint_line;
use crate::text::Escaped;

/// Starts logging for the whole process; the first call counts. `default` is the filter where there is no `RUST_LOG`.
pub fn start(environment: &Environment<'_>, default: &str) {
    let filter = environment
        .variable("RUST_LOG")
        .and_then(|given| {
            let (understood, mistake) = match given.text() {
                Ok(text) => understood(text),
                Err(_) => (String::new(), true),
            };
            if mistake {
                eprint_line(format_args!(
                    "warning: {}",
                    given.refused(
                        "is no log filter; give one such as `debug` or `interceptor=debug`"
                    )
                ));
            }
            Some(understood).filter(|filter| !filter.is_empty())
        })
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
                Escaped(&record.args().to_string()),
            )
        })
        .try_init();
}

/// What of a filter `env_logger` understands, which would print a complaint of its own about the rest; and whether there is
/// a rest.
fn understood(filter: &str) -> (String, bool) {
    let (directives, pattern) = match filter.split_once('/') {
        Some((_, pattern)) if pattern.contains('/') => return (String::new(), true),
        Some((directives, pattern)) => (directives, Some(pattern)),
        None => (filter, None),
    };
    let is_good = |directive: &&str| match directive.split_once('=') {
        None => true,
        Some((_, level)) => {
            let level = level.trim();
            level.is_empty() || level.parse::<LevelFilter>().is_ok()
        }
    };
    let (good, bad): (Vec<&str>, Vec<&str>) = directives.split(',').partition(is_good);
    let mut understood = good.join(",");
    if let Some(pattern) = pattern {
        understood.push('/');
        understood += pattern;
    }
    (understood, !bad.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_of_a_filter_counts() {
        #[track_caller]
        fn check(filter: &str, expected: &str, mistake: bool) {
            assert_eq!(
                understood(filter),
                (expected.to_owned(), mistake),
                "{filter}"
            );
        }
        check("debug", "debug", false);
        check("off", "off", false);
        check("interceptor=debug,warn", "interceptor=debug,warn", false);
        check("a= trace ,b=", "a= trace ,b=", false);
        check("info/word", "info/word", false);
        check("foo=bar", "", true);
        check("foo=bar,info", "info", true);
        check("a=b=c", "", true);
        check("info/a/b", "", true);
        check("[span{x=1}]=debug,info", "info", true); // of tracing
    }
}
