//! A request of the live feed as a line of text.

use serde::Deserialize;

use crate::cli::output::clock;
use crate::cli::table::{Cell, Column, Step, Table};
use crate::cli::terminal::{Terminal, fitted, width};
use crate::machine::feeds::Site;
use crate::serve::feed::Outcome;
use crate::text::Escaped;

/// A line of the feed, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Start(Start),
    End(End),
    /// A port of a process that serves many is served, or is served differently.
    Site(Site),
    /// What follows is new.
    Live,
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
    outcome: Outcome,
    status: Option<u16>,
    error: Option<String>,
    message: Option<String>,
    model: Option<String>,
    input_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    output_tokens: Option<u64>,
    first_event_ms: Option<f64>,
    last_event_ms: Option<f64>,
}

/// How lines are formatted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// The terminal that they have to fit.
    terminal: Option<Terminal>,
    /// The width of the column of projects.
    project: Option<usize>,
}

impl Style {
    /// `names`: those of the projects, where the requests of several are shown.
    pub fn new<'a>(
        terminal: Option<Terminal>,
        names: Option<impl Iterator<Item = &'a str>>,
    ) -> Style {
        let width = |name| width(&Escaped(name).to_string());
        let longest = names.map(|names| names.map(width).max().unwrap_or_default());
        Style {
            terminal,
            project: longest.map(|longest| longest.min(PROJECT_WIDTH_MAX)),
        }
    }

    /// Returns the names of the columns, where a terminal shows the lines.
    pub fn heading(self) -> String {
        match self.terminal {
            Some(_) => self.table().heading(),
            None => String::new(),
        }
    }

    /// Returns the line of a finished request.
    pub fn line(self, project: &str, start: Option<&Start>, end: &End) -> String {
        let is_failed = end.outcome.is_failed(end.status);
        let text = |text: &str| Escaped(text).to_string();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        self.table().line(&[
            clock(end.at).into(),
            Cell::failed_if(
                is_failed,
                or_dash(end.status.map(|status| status.to_string())),
            ),
            or_dash(end.ttfb_ms.map(time)).into(),
            time(end.duration_ms).into(),
            size(end.request_bytes).into(),
            size(end.response_bytes).into(),
            self.project.map_or(String::new(), |_| text(project)).into(),
            request(start).into(),
            Cell::failed_if(is_failed, text(&end.details())),
        ])
    }

    fn table(self) -> Table {
        let mut columns = vec![
            Column::left("TIME", 9),
            Column::left("CODE", 0),
            Column::right("TTFB", 8),
            Column::right("DURATION", 0),
            Column::right("UP", 7),
            Column::right("DOWN", 7),
            match self.project {
                Some(width) => Column::left("PROJECT", width),
                None => Column::left("", 0),
            },
            Column::left("REQUEST", 0),
            Column::left("MODEL, TOKENS", 0),
        ];
        if self.terminal.is_some() {
            columns[7] = Column::left("REQUEST", REQUEST_WIDTH);
            columns[8] = Column::left("MODEL, TOKENS", DETAILS_WIDTH);
        }
        let steps = [
            Step::Drop(4),
            Step::Drop(5),
            Step::Drop(2),
            Step::Shrink(8, 24),
            Step::Shrink(6, 12),
            Step::Drop(0),
            Step::Drop(3),
            Step::Shrink(6, 8),
            Step::Shrink(8, 14),
            Step::Shrink(7, 10),
            Step::Shrink(8, 5),
        ];
        Table::new(columns, self.terminal, &steps)
    }

    /// Returns the number of requests in flight and the newest of them, for a line that is overwritten; empty where nothing can be.
    pub fn in_flight<'a>(self, starts: impl ExactSizeIterator<Item = &'a Start>) -> String {
        let count = starts.len();
        let newest = starts.max_by_key(|start| start.id);
        match self.moving_terminal() {
            // In the last column some terminals begin a new line.
            Some(terminal) if newest.is_some() => {
                let text = format!("… {count} in flight: {}", request(newest));
                fitted(&text, terminal.columns - 1).into_owned()
            }
            _ => String::new(),
        }
    }

    /// Returns the escape code that erases that line.
    pub fn erase(self) -> &'static str {
        match self.moving_terminal() {
            Some(_) => "\r\x1b[K",
            None => "",
        }
    }

    fn moving_terminal(self) -> Option<Terminal> {
        self.terminal.filter(|terminal| terminal.moves_cursor)
    }
}

impl End {
    /// Returns why the request failed, or the known model and tokens, with how it ended if it is not complete.
    fn details(&self) -> String {
        if let Some(message) = self.message.as_ref().or(self.error.as_ref()) {
            return message.clone();
        }
        let ending = match self.outcome {
            Outcome::Complete => None,
            Outcome::ClientGone => Some("the client disconnected"),
            Outcome::OriginCut => Some("cut by the target"),
            Outcome::Refused => Some("refused by ic"),
            Outcome::Error => Some("no answer from the target"),
            Outcome::Tunnel => Some("tunnel, closed"),
        };
        let parts = ending.map(str::to_owned).into_iter().chain(self.usage());
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Returns the known model, tokens and token rate: `gpt-5`, `8.2k → 420`, `18k cached`, `48/s`.
    fn usage(&self) -> Vec<String> {
        let mut parts = Vec::new();
        parts.extend(self.model.clone());
        if self.input_tokens.or(self.output_tokens).is_some() {
            let [input, output] = [self.input_tokens, self.output_tokens]
                .map(|tokens| tokens.map_or_else(|| "?".to_owned(), amount));
            parts.push(format!("{input} → {output}"));
        }
        let cached = self.cached_tokens.filter(|&tokens| tokens > 0);
        parts.extend(cached.map(|tokens| format!("{} cached", amount(tokens))));
        let seconds = match (self.first_event_ms, self.last_event_ms) {
            (Some(first), Some(last)) if last - first >= SPAN_MS_MIN => Some((last - first) / 1e3),
            _ => None,
        };
        if let (Some(seconds), Some(tokens)) = (seconds, self.output_tokens) {
            parts.push(format!("{:.0}/s", tokens as f64 / seconds));
        }
        parts
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

/// A size as the page shows it: `999 B`, `1.0 kB`, `100 kB`.
fn size(bytes: u64) -> String {
    let (unit, scale) = match bytes {
        0..1000 => return format!("{bytes} B"),
        1000..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let size = bytes as f64 / scale;
    format!("{size:.*} {unit}", usize::from(size < 100.0))
}

/// A number of tokens as the page shows it: `999`, `1.0k`, `18k`, `1.2M`.
fn amount(tokens: u64) -> String {
    let (unit, scale) = match tokens {
        0..1000 => return tokens.to_string(),
        1000..999_500 => ("k", 1e3),
        _ => ("M", 1e6),
    };
    let amount = tokens as f64 / scale;
    format!("{amount:.*}{unit}", usize::from(amount < 9.95))
}

/// That of `POST /v1/chat/completions`.
const REQUEST_WIDTH: usize = 25;

/// That of `gpt-5, 8.2k → 420, 18k cached, 48/s`.
const DETAILS_WIDTH: usize = 36;

/// Longer names of projects are cut.
const PROJECT_WIDTH_MAX: usize = 24;

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

    fn style(columns: Option<usize>, project: Option<usize>) -> Style {
        let terminal = columns.map(|columns| Terminal {
            columns,
            rows: 24,
            has_colour: true,
            moves_cursor: true,
        });
        Style { terminal, project }
    }

    const WHOLE: &str = r#""outcome":"complete","status":200,"ttfb_ms":12.34,"model":"gpt-5","input_tokens":8210,"cached_tokens":17500,"output_tokens":420,"first_event_ms":100.0,"last_event_ms":8850.0"#;
    const FAILED: &str = r#""outcome":"error","status":502,"error":"target_refused","message":"the target http://a refuses connections""#;

    #[test]
    #[rustfmt::skip] // A table.
    fn a_request_is_one_line() {
        let plain = style(None, None);
        let check = |style: Style, more: &str, expected: &str| {
            assert_eq!(style.line("shop\u{1b}", Some(&start(START)), &end(more)), expected);
        };
        check(plain, WHOLE, "12:34:56Z  200      12 ms     1.2 s    512 B   2.0 kB  POST /v1/chat?a=…  gpt-5, 8.2k → 420, 18k cached, 48/s\n");
        check(plain, FAILED, "12:34:56Z  502          -     1.2 s    512 B   2.0 kB  POST /v1/chat?a=…  the target http://a refuses connections\n");
        check(plain, r#""outcome":"error","status":502,"error":"target_refused""#, "12:34:56Z  502          -     1.2 s    512 B   2.0 kB  POST /v1/chat?a=…  target_refused\n");
        check(plain, r#""outcome":"origin_cut","status":200,"model":"m","output_tokens":7"#, "12:34:56Z  200          -     1.2 s    512 B   2.0 kB  POST /v1/chat?a=…  cut by the target, m, ? → 7\n");
        check(plain, r#""outcome":"client_gone","status":null"#, "12:34:56Z  -            -     1.2 s    512 B   2.0 kB  POST /v1/chat?a=…  the client disconnected\n");
        let named = style(None, Some(8));
        check(named, r#""outcome":"complete","status":204,"model":"a\u001bb""#, "12:34:56Z  204          -     1.2 s    512 B   2.0 kB  shop\\u{1b}  POST /v1/chat?a=…  a\\u{1b}b\n");
        let unreadable = start(r#"{"event":"start","id":7,"method":null,"path":null}"#);
        for (start, expected) in [(None, "(start not seen)"), (Some(&unreadable), "(unreadable)")] {
            let line = plain.line("shop\u{1b}", start, &end(r#""outcome":"refused","status":400"#));
            assert!(line.ends_with(&format!("  {expected}  refused by ic\n")), "{line}");
        }
        assert_eq!(plain.heading(), "");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_line_fits_the_terminal_and_path_and_model_give_way_last() {
        #[track_caller]
        fn check(columns: usize, project: Option<usize>, more: &str, expected: &str) {
            let style = style(Some(columns), project);
            let line = style.line("shop", Some(&start(START)), &end(more));
            assert_eq!(line, format!("{expected}\n"));
            let plain = line.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
            assert!(width(plain.trim_end()) <= columns, "{columns}: {line}");
            assert!(width(style.heading().trim_end()) <= columns, "{columns}");
        }
        check(200, None, WHOLE, "12:34:56Z  200      12 ms     1.2 s    512 B   2.0 kB  POST /v1/chat?a=…          gpt-5, 8.2k → 420, 18k cached, 48/s");
        check(120, Some(4), WHOLE, "12:34:56Z  200      12 ms     1.2 s   2.0 kB  shop     POST /v1/chat?a=…          gpt-5, 8.2k → 420, 18k cached, 48/s");
        check(80, None, WHOLE, "12:34:56Z  200      1.2 s  POST /v1/chat?a=…          gpt-5, 8.2k → 420, 18k…");
        check(80, Some(4), WHOLE, "200      1.2 s  shop     POST /v1/chat?a=…          gpt-5, 8.2k → 420, 18k…");
        check(40, None, WHOLE, "200   POST /v1/chat?a=…   gpt-5, 8.2k →…");
        check(40, Some(4), WHOLE, "200   shop     POST /v1/…  gpt-5, 8.2k…");
        check(80, None, FAILED, "12:34:56Z  \u{1b}[31m502\u{1b}[0m      1.2 s  POST /v1/chat?a=…          \u{1b}[31mthe target http://a…\u{1b}[0m");
    }

    #[test]
    fn requests_in_flight_are_shown_on_a_terminal_only() {
        let starts = [start(START)];
        let shown = |columns| style(columns, None).in_flight(starts.iter());
        assert_eq!(shown(Some(80)), "… 1 in flight: POST /v1/chat?a=…");
        assert_eq!(shown(Some(27)), "… 1 in flight: POST…");
        assert_eq!(style(Some(80), None).in_flight([].iter()), "");
        assert_eq!(shown(None), "");
        assert_eq!(style(None, None).erase(), "");
    }

    #[test]
    fn numbers_are_short() {
        let times = [0.04, 9.94, 9.96, 999.4, 999.6, 99_949.0, 99_951.0];
        let expected = [
            "0.0 ms", "9.9 ms", "10 ms", "999 ms", "1.0 s", "99.9 s", "100 s",
        ];
        assert_eq!(times.map(time), expected);
        let sizes = [0, 999, 1000, 99_900, 123_456, 1_200_000, 2_500_000_000];
        let expected = [
            "0 B", "999 B", "1.0 kB", "99.9 kB", "123 kB", "1.2 MB", "2.5 GB",
        ];
        assert_eq!(sizes.map(size), expected);
        let amounts = [0, 999, 1000, 8210, 9949, 9950, 999_499, 999_500, 1_200_000];
        let expected = [
            "0", "999", "1.0k", "8.2k", "9.9k", "10k", "999k", "1.0M", "1.2M",
        ];
        assert_eq!(amounts.map(amount), expected);
    }
}
