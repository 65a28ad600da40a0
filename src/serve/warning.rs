//! Warnings that repeat: each is logged once, and then counted.
//!
//! While a target is down, or a client is set up wrongly, each request fails in the same way. The count is logged with the first
//! repetition after [`PERIOD`], and what is left of it at the end; no timer waits for it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::reactor;

thread_local! {
    static RECENT: RefCell<Vec<Recent>> = const { RefCell::new(Vec::new()) };
}

/// A warning that was logged.
#[derive(Debug)]
struct Recent {
    text: String,
    logged: Instant,
    /// How often it came since then.
    repeats: u32,
}

/// Logs a warning, or counts it if this thread has logged the same one within [`PERIOD`].
pub fn warn(text: String) {
    let now = reactor::now();
    if let Some(line) = RECENT.with_borrow_mut(|recent| note(recent, text, now)) {
        log::warn!("{line}");
    }
}

/// Logs how often warnings were repeated that have not been logged again.
pub fn finish() {
    for Recent { text, repeats, .. } in RECENT.take() {
        if repeats > 0 {
            log::warn!("{text} ({repeats} more)");
        }
    }
}

/// Notes a warning, and returns the line to log.
fn note(recent: &mut Vec<Recent>, text: String, now: Instant) -> Option<String> {
    let Some(known) = recent.iter_mut().find(|known| known.text == text) else {
        if recent.len() == RECENT_MAX {
            recent.remove(0);
        }
        recent.push(Recent {
            text: text.clone(),
            logged: now,
            repeats: 0,
        });
        return Some(text);
    };
    known.repeats = known.repeats.saturating_add(1);
    let since = now.duration_since(known.logged);
    if since < PERIOD {
        return None;
    }
    known.logged = now;
    let times = std::mem::take(&mut known.repeats);
    let period = match since.as_secs() / 60 {
        1 => "minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    };
    Some(match times {
        1 => text,
        _ => format!("{text} ({times} times in the last {period})"),
    })
}

/// How long a warning is only counted.
const PERIOD: Duration = Duration::from_secs(60);

/// How many different ones are remembered.
const RECENT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_that_repeats_is_logged_once_and_then_counted() {
        let start = Instant::now();
        let mut recent = Vec::new();
        let mut at = |seconds, text: &str| {
            let now = start + Duration::from_secs(seconds);
            note(&mut recent, text.to_owned(), now)
        };
        let rows: &[(u64, &str, Option<&str>)] = &[
            (0, "a", Some("a")),
            (0, "b", Some("b")),
            (1, "a", None),
            (59, "a", None),
            (60, "a", Some("a (3 times in the last minute)")),
            (61, "a", None),
            (119, "b", Some("b")),
            (400, "a", Some("a (2 times in the last 5 minutes)")),
            (600, "a", Some("a")),
        ];
        for (seconds, text, expected) in rows {
            assert_eq!(
                at(*seconds, text).as_deref(),
                *expected,
                "{text} at {seconds}"
            );
        }
    }

    #[test]
    fn the_oldest_of_many_different_warnings_is_forgotten() {
        let (mut recent, now) = (Vec::new(), Instant::now());
        for number in 0..2 * RECENT_MAX {
            assert!(note(&mut recent, number.to_string(), now).is_some());
        }
        assert_eq!(recent.len(), RECENT_MAX);
        assert_eq!(recent[0].text, RECENT_MAX.to_string());
    }
}
