//! A request of the live feed as a line of text.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::cli::output::clock;
use crate::machine::feeds::Site;
use crate::text::Escaped;

/// A line of the feed, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Start(Start),
    End(End),
    /// A port of a process that serves many is served, or is served differently.
    Site(Site),
    #[serde(other)]
    Other,
}

/// The start of a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Start {
    pub id: u64,
    method: Option<String>,
    path: Option<String>,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct End {
    pub id: u64,
    /// The port that the request came to.
    pub port: Option<u16>,
    at: f64,
    duration_ms: f64,
    ttfb_ms: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
    outcome: String,
    status: Option<u16>,
    error: Option<String>,
    model: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    first_event_ms: Option<f64>,
    last_event_ms: Option<f64>,
}

/// How lines are formatted.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// The output is a terminal that understands escape codes.
    pub is_screen: bool,
    /// The lines are of several interceptors.
    pub names_project: bool,
}

impl Style {
    /// Returns the names of the columns.
    pub fn heading(self) -> String {
        format!(
            "{:9}  {:4}  {:>8}  {:>8}  {:>9}  {:>9}  REQUEST\n",
            "TIME", "CODE", "TTFB", "DURATION", "UP", "DOWN"
        )
    }

    /// Returns the line of a finished request.
    pub fn line(self, name: &str, start: Option<&Start>, end: &End) -> String {
        let status = match end.status {
            Some(status) => status.to_string(),
            None => "-".to_owned(),
        };
        let (colour, plain) = match end.status {
            _ if !self.is_screen => ("", ""),
            Some(200..=299) => ("\x1b[32m", "\x1b[0m"),
            Some(100..=399) => ("\x1b[36m", "\x1b[0m"),
            Some(400..=499) => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[31m", "\x1b[0m"),
        };
        let ttfb = end.ttfb_ms.map_or_else(|| "-".to_owned(), time);
        let mut line = format!(
            "{}  {colour}{status:4}{plain}  {ttfb:>8}  {:>8}  {:>9}  {:>9}  ",
            clock(end.at),
            time(end.duration_ms),
            size(end.request_bytes),
            size(end.response_bytes),
        );
        if self.names_project {
            // Writing into a String cannot fail.
            let _ = write!(line, "{}  ", Escaped(name));
        }
        line.push_str(&request(start));
        if let Some(failure) = end.failure() {
            let _ = write!(line, "  {colour}{}{plain}", Escaped(failure));
        }
        if let Some(usage) = end.usage() {
            let _ = write!(line, "  {}", Escaped(&usage));
        }
        line.push('\n');
        line
    }

    /// Returns the number of requests in flight and the newest of them, for a line that is overwritten; empty where there is no
    /// screen.
    pub fn in_flight<'a>(self, starts: impl ExactSizeIterator<Item = &'a Start>) -> String {
        let count = starts.len();
        let newest = starts.max_by_key(|start| start.id);
        if !self.is_screen || newest.is_none() {
            return String::new();
        }
        let text = format!("… {count} in flight: {}", request(newest));
        text.chars().take(COLUMNS_MAX).collect()
    }

    /// Returns the escape code that erases that line.
    pub fn erase(self) -> &'static str {
        if self.is_screen { "\r\x1b[K" } else { "" }
    }
}

impl End {
    /// Returns the error, or an outcome other than `complete`.
    fn failure(&self) -> Option<&str> {
        match (self.error.as_deref(), self.outcome.as_str()) {
            (Some(error), _) => Some(error),
            (None, "complete") => None,
            (None, outcome) => Some(outcome),
        }
    }

    /// Returns the known model, tokens and token rate: `gpt-5, 12 + 345 tokens, 48/s`.
    fn usage(&self) -> Option<String> {
        let mut parts = Vec::new();
        parts.extend(self.model.clone());
        match (self.input_tokens, self.output_tokens) {
            (Some(input), Some(output)) => parts.push(format!("{input} + {output} tokens")),
            (Some(input), None) => parts.push(format!("{input} tokens in")),
            (None, Some(output)) => parts.push(format!("{output} tokens out")),
            (None, None) => {}
        }
        let seconds = match (self.first_event_ms, self.last_event_ms) {
            (Some(first), Some(last)) if last - first >= SPAN_MS_MIN => Some((last - first) / 1e3),
            _ => None,
        };
        if let (Some(seconds), Some(tokens)) = (seconds, self.output_tokens) {
            parts.push(format!("{:.0}/s", tokens as f64 / seconds));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn request(start: Option<&Start>) -> String {
    match start {
        Some(Start {
            method: Some(method),
            path,
            ..
        }) => {
            let path = path.as_deref().unwrap_or_default();
            format!("{} {}", Escaped(method), Escaped(path))
        }
        Some(_) => "(unreadable)".to_owned(),
        None => "(start not seen)".to_owned(),
    }
}

fn time(millis: f64) -> String {
    match millis {
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..99_950.0 => format!("{:.1} s", millis / 1e3),
        _ => format!("{:.0} s", millis / 1e3),
    }
}

fn size(bytes: u64) -> String {
    let size = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", size / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", size / 1_048_576.0),
        _ => format!("{:.1} GiB", size / 1_073_741_824.0),
    }
}

/// Fits on a common terminal: a line that is overwritten must not wrap.
const COLUMNS_MAX: usize = 79;

/// A rate over a shorter time is meaningless.
const SPAN_MS_MIN: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(line: &str) -> Start {
        serde_json::from_str(line).expect("a start")
    }

    const START: &str = r#"{"event":"start","id":7,"method":"POST","path":"/v1/chat?a=…"}"#;

    fn end(more: &str) -> End {
        let line = format!(
            "{{\"event\":\"end\",\"id\":7,\"at\":45296.9,\"duration_ms\":1234.5,\"request_bytes\":512,\
             \"response_bytes\":2048,{more}}}"
        );
        serde_json::from_str(&line).expect("an end")
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_request_is_one_line() {
        let plain = Style { is_screen: false, names_project: false };
        let check = |style: Style, more: &str, expected: &str| {
            assert_eq!(style.line("shop\u{1b}", Some(&start(START)), &end(more)), expected);
        };
        let whole = r#""outcome":"complete","status":200,"ttfb_ms":12.34,"model":"gpt-5","input_tokens":9,"output_tokens":60,"first_event_ms":100.0,"last_event_ms":1100.0"#;
        check(plain, whole, "12:34:56Z  200      12 ms     1.2 s      512 B    2.0 KiB  POST /v1/chat?a=…  gpt-5, 9 + 60 tokens, 60/s\n");
        check(plain, r#""outcome":"error","status":502,"error":"target_refused""#, "12:34:56Z  502          -     1.2 s      512 B    2.0 KiB  POST /v1/chat?a=…  target_refused\n");
        check(plain, r#""outcome":"client_gone","status":null"#, "12:34:56Z  -            -     1.2 s      512 B    2.0 KiB  POST /v1/chat?a=…  client_gone\n");
        check(Style { is_screen: true, ..plain }, r#""outcome":"complete","status":204,"output_tokens":1"#, "12:34:56Z  \x1b[32m204 \x1b[0m         -     1.2 s      512 B    2.0 KiB  POST /v1/chat?a=…  1 tokens out\n");
        check(Style { names_project: true, ..plain }, r#""outcome":"complete","status":204,"model":"a\u001bb""#, "12:34:56Z  204          -     1.2 s      512 B    2.0 KiB  shop\\u{1b}  POST /v1/chat?a=…  a\\u{1b}b\n");
        let unreadable = start(r#"{"event":"start","id":7,"method":null,"path":null}"#);
        for (start, expected) in [(None, "(start not seen)"), (Some(&unreadable), "(unreadable)")] {
            let line = plain.line("shop\u{1b}", start, &end(r#""outcome":"refused","status":400"#));
            assert!(line.ends_with(&format!("  {expected}  refused\n")), "{line}");
        }
    }

    #[test]
    fn requests_in_flight_are_shown_on_a_terminal_only() {
        let screen = Style {
            is_screen: true,
            names_project: false,
        };
        let starts = [start(START)];
        assert_eq!(
            screen.in_flight(starts.iter()),
            "… 1 in flight: POST /v1/chat?a=…"
        );
        assert_eq!(screen.in_flight([].iter()), "");
        let plain = Style {
            is_screen: false,
            ..screen
        };
        assert_eq!(plain.in_flight(starts.iter()), "");
        assert_eq!(plain.erase(), "");
    }

    #[test]
    fn numbers_are_short() {
        let times = [0.04, 9.94, 9.96, 999.4, 999.6, 99_949.0, 99_951.0];
        let expected = [
            "0.0 ms", "9.9 ms", "10 ms", "999 ms", "1.0 s", "99.9 s", "100 s",
        ];
        assert_eq!(times.map(time), expected);
        let sizes = [0, 1023, 1024, 1 << 20, 5 << 29];
        assert_eq!(
            sizes.map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "2.5 GiB"]
        );
    }
}
