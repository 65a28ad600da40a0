//! The log: one short line for each record, on standard error, filtered by `RUST_LOG`.
//!
//! Errors of commands and warnings about the registry are not log records; they are always printed. An invalid filter is
//! only warned of, because all programs share `RUST_LOG` and some accept more than this one; its valid part is used.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use log::LevelFilter;

use super::output::eprint_line;
use super::settings::Environment;
use crate::text::Escaped;

/// Starts logging for the whole process; later calls have no effect. `default` is the filter if `RUST_LOG` is not set.
pub fn start(environment: &Environment<'_>, default: &str) {
    let filter = environment
        .variable("RUST_LOG")
        .and_then(|given| {
            let (valid, has_invalid) = match given.text() {
                Ok(text) => valid_part(text),
                Err(_) => (String::new(), true),
            };
            if has_invalid {
                eprint_line(format_args!(
                    "warning: {}",
                    given.refused(
                        "is not a log filter; give one such as `debug` or `interceptor=debug`"
                    )
                ));
            }
            Some(valid).filter(|filter| !filter.is_empty())
        })
        .unwrap_or_else(|| default.to_owned());
    // Fails only if a logger is installed already: by a test, or by a program that uses the library.
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
                // The message may contain bytes from a peer.
                Escaped(&record.args().to_string()),
            )
        })
        .try_init();
}

/// The directives that `env_logger` accepts, and whether there are others, which it would report in its own way.
fn valid_part(filter: &str) -> (String, bool) {
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
    let mut valid = good.join(",");
    if let Some(pattern) = pattern {
        valid.push('/');
        valid += pattern;
    }
    (valid, !bad.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valid_part_of_a_filter_is_used() {
        #[track_caller]
        fn check(filter: &str, expected: &str, has_invalid: bool) {
            assert_eq!(
                valid_part(filter),
                (expected.to_owned(), has_invalid),
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
