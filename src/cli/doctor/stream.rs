//! Whether a stream is buffered on the way, from the times at which its events arrive directly and through an interceptor.

use std::time::Duration;

use super::finding::Finding;
use crate::machine::client::Response;
use crate::machine::connect::Unreachable;

/// The same stream, requested directly and through an interceptor.
pub struct Streams {
    pub target: String,
    /// `None` for a target in TLS or behind a proxy, which only the interceptor connects to.
    pub direct: Option<Result<Response, Unreachable>>,
    pub through: Result<Response, Unreachable>,
}

const STREAMING: &str = "Streaming";

/// The finding where there is no model to request a stream of.
pub fn no_stream() -> Finding {
    not_measured("no model is known; name one with --model")
}

fn not_measured(why: &str) -> Finding {
    Finding::note(STREAMING, format!("not measured: {why}"))
}

/// Compares both streams: which hop buffers, if one does.
pub fn streaming(streams: &Streams) -> Finding {
    compare(streams).unwrap_or_else(|why| not_measured(&why))
}

/// The error is why there is nothing to compare.
fn compare(streams: &Streams) -> Result<Finding, String> {
    let target = &streams.target;
    let through = event_stream(&streams.through, "the interceptor")?;
    let direct = match &streams.direct {
        Some(direct) => {
            let direct = event_stream(direct, "the target");
            Some(direct.map_err(|why| format!("without ic, {why}"))?)
        }
        None => None,
    };
    let without = direct.map(|response| flow(&response.arrivals));
    let with = flow(&through.arrivals);
    // Where it was not measured without ic, ic is not to blame: it forwards each event as it arrives.
    if let Flow::Blocks(events, count, first) = without.unwrap_or(with) {
        let server = through.server.as_deref();
        let who = server.map_or(String::new(), |server| format!("`{server}` at "));
        let also = without.map_or("", |_| ", also without ic");
        let blocks = blocks(events, count, first);
        return Ok(Finding::wrong(
            STREAMING,
            format!(
                "{who}{target}, or a server behind it, buffers the stream: {blocks}{also}; {}",
                way_out(server)
            ),
        ));
    }
    match (without, with) {
        (_, Flow::Blocks(events, count, first)) => Ok(Finding::wrong(
            STREAMING,
            format!(
                "ic buffers the stream: {}, but not without it; please report this",
                blocks(events, count, first)
            ),
        )),
        (Some(Flow::Few(events)), _) | (_, Flow::Few(events)) => Err(format!(
            "only {events} events came; name a model that says more with --model"
        )),
        (without, Flow::Steady(events, gap)) => {
            let without = match without {
                Some(Flow::Steady(_, before)) => format!("; without it every {}", ms(before)),
                _ => String::new(),
            };
            let gap = ms(gap);
            Ok(Finding::good(
                STREAMING,
                format!("{events} events through ic, one every {gap}{without}"),
            ))
        }
    }
}

/// The response of `sender` if it is a stream of events, or what it is instead.
fn event_stream<'a>(
    result: &'a Result<Response, Unreachable>,
    sender: &str,
) -> Result<&'a Response, String> {
    let response = match result {
        Ok(response) if response.is_event_stream() => {
            return match &response.content_encoding {
                None => Ok(response),
                Some(coding) => Err(format!(
                    "{sender} sends the stream compressed ({coding}), which was not asked for; switch off compression of \
                     `text/event-stream` there"
                )),
            };
        }
        Ok(response) => response,
        Err(why) => return Err(format!("{sender} {why}")),
    };
    let (status, content_type) = (response.status, &response.content_type);
    Err(match response.error_message() {
        Some(message) => {
            let message: String = message.chars().take(120).collect();
            format!("a chat is answered with {status}: {message}")
        }
        None => format!(
            "a chat is answered with {status} ({content_type}), not with events; name a model with --model"
        ),
    })
}

fn blocks(events: usize, count: usize, first: Duration) -> String {
    let how = if count == 1 {
        "together".to_owned()
    } else {
        format!("in {count} blocks, the first")
    };
    format!("{events} events arrived {how} after {}", ms(first))
}

fn way_out(server: Option<&str>) -> &'static str {
    match server {
        Some(server) if server.to_ascii_lowercase().starts_with("nginx") => {
            "set `proxy_buffering off` there"
        }
        Some(server) if server.to_ascii_lowercase().starts_with("apache") => {
            "set `flushpackets=on` in its ProxyPass"
        }
        _ => "switch off buffering and compression of `text/event-stream` there",
    }
}

fn ms(time: Duration) -> String {
    match time.as_millis() {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        ms => format!("{ms} ms"),
    }
}

/// How the events of a stream arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// One after the other: how many, and the mean time between two.
    Steady(usize, Duration),
    /// Together, or in few blocks: how many events, how many blocks, and the time before the first.
    Blocks(usize, usize, Duration),
    /// Too few to decide: how many.
    Few(usize),
}

/// Classifies arrivals, each the time since the request and a number of events.
///
/// A model sends an event for each token, so its stream takes as long as it generates the text. If everything arrives within
/// a moment after a long wait, a server on the way has buffered it. A model that thinks before its first token differs: its
/// text still takes longer than that moment.
pub fn flow(arrivals: &[(Duration, usize)]) -> Flow {
    let events = arrivals.iter().map(|(_, events)| events).sum();
    let (Some(&(first, _)), Some(&(last, _))) = (arrivals.first(), arrivals.last()) else {
        return Flow::Few(0);
    };
    if events < EVENTS_MIN {
        return Flow::Few(events);
    }
    // Segments of one block arrive right after each other.
    let blocks = 1 + arrivals
        .windows(2)
        .filter(|pair| pair[1].0 - pair[0].0 > SAME_BLOCK)
        .count();
    let spread = last - first;
    // A fast model takes as little, but its events arrive one after the other.
    let together = spread < MOMENT && spread * 10 < first && blocks * EVENTS_TOGETHER_MIN <= events;
    let in_blocks = blocks * BLOCK_EVENTS_MIN <= events;
    // A stream that starts at once is not buffered: its text may have been generated before.
    if first > MOMENT && (together || in_blocks) {
        return Flow::Blocks(events, blocks, first);
    }
    let gaps = u32::try_from(events - 1).unwrap_or(u32::MAX);
    Flow::Steady(events, spread / gaps)
}

/// The prompt yields about forty.
const EVENTS_MIN: usize = 8;

/// Generating forty tokens takes longer than this.
const MOMENT: Duration = Duration::from_millis(40);

/// Less than a model takes to generate a token.
const SAME_BLOCK: Duration = Duration::from_micros(200);

/// Events in a block of a stream that arrives within a moment: a fast model sends fewer at a time.
const EVENTS_TOGETHER_MIN: usize = 4;

/// A fast sender puts a few events into one segment; a buffer holds dozens.
const BLOCK_EVENTS_MIN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn stream(arrivals: &[(Duration, usize)]) -> Response {
        Response {
            status: 200,
            content_type: "text/event-stream; charset=utf-8".to_owned(),
            server: Some("nginx/1.22.1".to_owned()),
            arrivals: arrivals.to_vec(),
            ..Response::default()
        }
    }

    #[test]
    fn the_hop_that_buffers_a_stream_is_named() {
        let steady: Vec<_> = (1..42).map(|n| (ms(n * 20), 1)).collect();
        let buffered = [(ms(820), 41)];
        #[track_caller]
        fn check(
            direct: Option<&[(Duration, usize)]>,
            through: &[(Duration, usize)],
            verdict: Verdict,
            expected: &str,
        ) {
            let finding = streaming(&Streams {
                target: "http://a".to_owned(),
                direct: direct.map(|arrivals| Ok(stream(arrivals))),
                through: Ok(stream(through)),
            });
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.starts_with(expected), "{finding:?}");
        }
        let (good, wrong) = (Verdict::Good, Verdict::Wrong);
        let there = "`nginx/1.22.1` at http://a, or a server behind it, buffers the stream: 41 events arrived together";
        check(
            Some(&steady),
            &steady,
            good,
            "41 events through ic, one every 20 ms; without it every 20 ms",
        );
        check(Some(&buffered), &buffered, wrong, there);
        check(
            Some(&steady),
            &buffered,
            wrong,
            "ic buffers the stream: 41 events arrived together after 820 ms",
        );
        check(None, &steady, good, "41 events through ic, one every 20 ms");
        check(None, &buffered, wrong, there);
        check(
            Some(&[(ms(9), 3)]),
            &steady,
            Verdict::Note,
            "not measured: only 3 events came",
        );
    }

    #[test]
    fn a_buffered_stream_differs_from_a_steady_one() {
        #[track_caller]
        fn check(why: &str, arrivals: impl IntoIterator<Item = (Duration, usize)>, expected: Flow) {
            let arrivals: Vec<_> = arrivals.into_iter().collect();
            assert_eq!(flow(&arrivals), expected, "{why}");
        }
        let each = |first: u64, gap: u64| (0..41).map(move |n| (ms(first + n * gap), 1));
        check("token by token", each(20, 20), Flow::Steady(41, ms(20)));
        check("after thinking", each(30_000, 20), Flow::Steady(41, ms(20)));
        check("very fast", each(5, 1), Flow::Steady(41, ms(1)));
        check(
            "several in a part",
            (0..20).map(|n| (ms(20 + n * 40), 2)),
            Flow::Steady(40, ms(760) / 39),
        );
        let us = |n: u64| Duration::from_micros(500_000 + n * 500);
        check(
            "2,000 tokens a second after half a second",
            (0..41).map(|n| (us(n), 1)),
            Flow::Steady(41, Duration::from_micros(500)),
        );
        check(
            "a short answer, at once",
            [(ms(820), 8)],
            Flow::Blocks(8, 1, ms(820)),
        );
        check("at once", [(ms(820), 41)], Flow::Blocks(41, 1, ms(820)));
        check(
            "at once, cut on its way",
            [(ms(820), 20), (ms(820), 21)],
            Flow::Blocks(41, 1, ms(820)),
        );
        check(
            "at once, but nothing was waited for",
            [(ms(2), 41)],
            Flow::Steady(41, ms(0)),
        );
        check(
            "in blocks",
            [(ms(400), 20), (ms(800), 21)],
            Flow::Blocks(41, 2, ms(400)),
        );
        check("a short answer", [(ms(400), 3)], Flow::Few(3));
        check("none", [], Flow::Few(0));
    }
}
