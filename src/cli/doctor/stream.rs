//! Whether a stream flows: told from when its events arrived, directly and through an interceptor.

use std::time::Duration;

use super::finding::Finding;
use crate::machine::client::Response;
use crate::machine::connect::Unreachable;

/// The same stream, both ways.
pub struct Streams {
    pub target: String,
    /// `None` where it cannot be had without TLS, which only the interceptor speaks.
    pub direct: Option<Result<Response, Unreachable>>,
    pub through: Result<Response, Unreachable>,
}

const STREAMING: &str = "Streaming";

pub fn no_stream() -> Finding {
    Finding::note(
        STREAMING,
        "not measured: no model is known; name one with --model",
    )
}

pub fn streaming(streams: &Streams) -> Finding {
    let Streams {
        target,
        direct,
        through,
    } = streams;
    let not_measured = |why: String| Finding::note(STREAMING, format!("not measured: {why}"));
    let through = match through {
        Ok(response) if response.is_event_stream() => response,
        Ok(response) => return not_measured(no_events(response)),
        Err(why) => return not_measured(format!("the interceptor {why}")),
    };
    let direct = match direct {
        None => None,
        Some(Ok(response)) if response.is_event_stream() => Some(response),
        Some(Ok(response)) => return not_measured(format!("without ic, {}", no_events(response))),
        Some(Err(why)) => return not_measured(format!("without ic, the target {why}")),
    };
    let server = through.server.as_deref();
    let held_back_there = |how: String, also: &str| {
        let who = server.map_or(String::new(), |server| format!("`{server}` at "));
        let way_out = way_out(server);
        Finding::wrong(
            STREAMING,
            format!(
                "{who}{target}, or what is behind it, holds events back: {how}{also}; {way_out}"
            ),
        )
    };
    let without = direct.map(|response| flow(&response.arrivals));
    match (without, flow(&through.arrivals)) {
        (Some(Flow::Lumps(events, lumps, silence)), _) => {
            held_back_there(lumped(events, lumps, silence), ", also without ic")
        }
        // It is known of ic that it passes each event on as it comes.
        (None, Flow::Lumps(events, lumps, silence)) => {
            held_back_there(lumped(events, lumps, silence), "")
        }
        (Some(_), Flow::Lumps(events, lumps, silence)) => Finding::wrong(
            STREAMING,
            format!(
                "ic holds events back: {}, but not without it; please report this",
                lumped(events, lumps, silence)
            ),
        ),
        (Some(Flow::Few(events)), _) | (_, Flow::Few(events)) => not_measured(format!(
            "only {events} events came; name a model that says more with --model"
        )),
        (without, Flow::Steady(events, gap)) => {
            let without = match without {
                Some(Flow::Steady(_, before)) => format!("; without it every {}", ms(before)),
                _ => String::new(),
            };
            let gap = ms(gap);
            Finding::good(
                STREAMING,
                format!("{events} events through ic, one every {gap}{without}"),
            )
        }
    }
}

fn no_events(response: &Response) -> String {
    let Response {
        status,
        content_type,
        ..
    } = response;
    match response.error_message() {
        Some(message) => {
            let message: String = message.chars().take(120).collect();
            format!("a chat is answered with {status}: {message}")
        }
        None => format!(
            "a chat is answered with {status} ({content_type}), not with events; name a model with --model"
        ),
    }
}

fn lumped(events: usize, lumps: usize, silence: Duration) -> String {
    let how = if lumps == 1 {
        "at once".to_owned()
    } else {
        format!("in {lumps} lumps")
    };
    format!("{events} came {how} after {} of silence", ms(silence))
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

/// How a stream came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Its events came one after the other: how many, and the time from one to the next.
    Steady(usize, Duration),
    /// They came all at once, or in few lumps: how many, in how many lumps, and the silence before the first.
    Lumps(usize, usize, Duration),
    /// Too few to tell.
    Few(usize),
}

/// Judges arrivals: the time since the request, and the number of events.
///
/// Whoever generates a text sends an event for each token, so that it takes as long as the text. If instead nothing
/// came for long and then everything within a moment, somebody has gathered it. A model that thinks first is told
/// apart by its text still taking longer than that moment.
pub fn flow(arrivals: &[(Duration, usize)]) -> Flow {
    let events = arrivals.iter().map(|(_, events)| events).sum();
    let (Some(&(first, _)), Some(&(last, _))) = (arrivals.first(), arrivals.last()) else {
        return Flow::Few(0);
    };
    if events < EVENTS_MIN {
        return Flow::Few(events);
    }
    // Parts that arrive together were sent together, however they were cut on their way.
    let lumps = 1 + arrivals
        .windows(2)
        .filter(|pair| pair[1].0 - pair[0].0 > TOGETHER)
        .count();
    let spread = last - first;
    let all_at_once = spread < MOMENT && spread * 10 < first;
    let in_blocks = lumps * EVENTS_IN_A_LUMP <= events;
    // What comes at once has not been gathered: perhaps it was made beforehand.
    if first > MOMENT && (all_at_once || in_blocks) {
        return Flow::Lumps(events, lumps, first);
    }
    let gaps = u32::try_from(events - 1).unwrap_or(u32::MAX);
    Flow::Steady(events, spread / gaps)
}

/// The probe asks for some forty.
const EVENTS_MIN: usize = 8;

/// A text of forty tokens takes longer on every machine that people have.
const MOMENT: Duration = Duration::from_millis(40);

/// Less than it takes to make a token.
const TOGETHER: Duration = Duration::from_micros(200);

/// Fast senders put a few events into one part; a buffer holds dozens.
const EVENTS_IN_A_LUMP: usize = 10;

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
    fn the_hop_that_holds_a_stream_back_is_named() {
        let steady: Vec<_> = (1..42).map(|n| (ms(n * 20), 1)).collect();
        let gathered = [(ms(820), 41)];
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
        let there =
            "`nginx/1.22.1` at http://a, or what is behind it, holds events back: 41 came at once";
        check(
            Some(&steady),
            &steady,
            good,
            "41 events through ic, one every 20 ms; without it every 20 ms",
        );
        check(Some(&gathered), &gathered, wrong, there);
        check(
            Some(&steady),
            &gathered,
            wrong,
            "ic holds events back: 41 came at once after 820 ms",
        );
        check(None, &steady, good, "41 events through ic, one every 20 ms");
        check(None, &gathered, wrong, there);
        check(
            Some(&[(ms(9), 3)]),
            &steady,
            Verdict::Note,
            "not measured: only 3 events came",
        );
    }

    #[test]
    fn a_stream_that_was_gathered_is_told_from_one_that_flows() {
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
        check("at once", [(ms(820), 41)], Flow::Lumps(41, 1, ms(820)));
        check(
            "at once, cut on its way",
            [(ms(820), 20), (ms(820), 21)],
            Flow::Lumps(41, 1, ms(820)),
        );
        check(
            "at once, but nothing was waited for",
            [(ms(2), 41)],
            Flow::Steady(41, ms(0)),
        );
        check(
            "in blocks",
            [(ms(400), 20), (ms(800), 21)],
            Flow::Lumps(41, 2, ms(400)),
        );
        check("a short answer", [(ms(400), 3)], Flow::Few(3));
        check("none", [], Flow::Few(0));
    }
}
