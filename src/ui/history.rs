//! The requests that a page is sent when it is opened: the last ones of all interceptors, as the lines of their feeds, without
//! bodies.
//!
//! Pure: lines in, lines out, in bounded memory. A line is read only as far as needed to know which request it belongs to.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

/// The last requests.
#[derive(Debug, Default)]
pub struct History {
    /// By process id.
    interceptors: BTreeMap<u32, Interceptor>,
    /// In the order in which they started.
    exchanges: VecDeque<Exchange>,
    /// The size of the lines of `exchanges`.
    bytes: usize,
}

/// A process that publishes a feed, or has done so and one of its requests is kept.
#[derive(Debug, Default)]
struct Interceptor {
    hello: Vec<u8>,
    /// The last line about each of its ports, since the hello.
    sites: BTreeMap<u16, Vec<u8>>,
    /// The last line about its recording, since the hello.
    recording: Vec<u8>,
    is_recording: bool,
    /// Its last line.
    closed: Vec<u8>,
}

/// A request: at most one line of each kind.
#[derive(Debug)]
struct Exchange {
    pid: u32,
    id: u64,
    at: f64,
    start: Vec<u8>,
    head: Vec<u8>,
    /// The last one, until the end.
    progress: Vec<u8>,
    end: Vec<u8>,
}

/// An event of a feed, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// What has happened.
    #[serde(borrow, default)]
    pub event: Cow<'a, str>,
    id: Option<u64>,
    port: Option<u16>,
    at: Option<f64>,
    /// Of the hello.
    recording: Option<bool>,
    /// Of a change of the recording.
    on: Option<bool>,
}

impl History {
    /// Notes an event of the interceptor `pid`, which is `line` for a page. Returns whether it is news for the pages: an interceptor
    /// sends what it has kept again when the connection to it was lost.
    pub fn note(&mut self, pid: u32, event: &Event<'_>, line: &[u8]) -> bool {
        let interceptor = self.interceptors.entry(pid).or_default();
        match (&*event.event, event.port) {
            ("hello", _) => {
                *interceptor = Interceptor {
                    hello: line.to_vec(),
                    is_recording: event.recording == Some(true),
                    ..Interceptor::default()
                };
                self.forget_unfinished(pid);
            }
            ("site" | "site_closed", Some(port)) => {
                interceptor.sites.insert(port, line.to_vec());
            }
            ("recording", _) => {
                interceptor.recording = line.to_vec();
                interceptor.is_recording = event.on == Some(true);
            }
            ("closed", _) => {
                interceptor.closed = line.to_vec();
                interceptor.is_recording = false;
                self.forget_unfinished(pid);
            }
            ("start" | "head" | "progress" | "end", _) => {
                return self.note_exchange(pid, event, line);
            }
            _ => {}
        }
        true
    }

    fn note_exchange(&mut self, pid: u32, event: &Event<'_>, line: &[u8]) -> bool {
        let Some(id) = event.id else {
            return true;
        };
        if event.event == "start" && !self.start(pid, id, event.at.unwrap_or_default()) {
            return false;
        }
        let is_it = |one: &&mut Exchange| (one.pid, one.id) == (pid, id);
        let Some(exchange) = self.exchanges.iter_mut().rev().find(is_it) else {
            // It is too old, or its start was lost.
            return true;
        };
        if !exchange.end.is_empty() {
            return false;
        }
        let before = exchange.len();
        let kept = match &*event.event {
            "start" => &mut exchange.start,
            "head" => &mut exchange.head,
            "progress" => &mut exchange.progress,
            _ => {
                exchange.progress = Vec::new();
                &mut exchange.end
            }
        };
        *kept = line.to_vec();
        self.bytes = self.bytes - before + exchange.len();
        self.make_room();
        true
    }

    fn make_room(&mut self) {
        let hello_bytes = |interceptors: &BTreeMap<u32, Interceptor>| -> usize {
            interceptors.values().map(|it| it.hello.len()).sum()
        };
        while self.exchanges.len() > EXCHANGES_MAX
            || self.bytes + hello_bytes(&self.interceptors) > BYTES_MAX
        {
            let Some(oldest) = self.exchanges.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
            self.forget_ended();
        }
    }

    /// Makes room for the lines of a request, unless it has ended already.
    fn start(&mut self, pid: u32, id: u64, at: f64) -> bool {
        let known = |one: &&Exchange| (one.pid, one.id) == (pid, id);
        match self.exchanges.iter().rev().find(known) {
            Some(known) if known.at == at => return known.end.is_empty(),
            // Another process with the same id.
            Some(_) => self.forget(|one| one.pid == pid),
            None => {}
        }
        let place = self.exchanges.partition_point(|one| one.at <= at);
        self.exchanges.insert(place, Exchange::new(pid, id, at));
        true
    }

    /// Returns the lines for a page that is opened: those of each interceptor together, its requests in the order in which they
    /// started.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let lines = |(pid, interceptor): (&u32, &Interceptor)| {
            let exchanges = self.exchanges.iter().filter(|one| one.pid == *pid);
            [&interceptor.hello]
                .into_iter()
                .chain(interceptor.sites.values())
                .chain([&interceptor.recording])
                .chain(exchanges.flat_map(Exchange::lines))
                .chain([&interceptor.closed])
                .flatten()
                .copied()
                .collect()
        };
        self.interceptors.iter().map(lines).collect()
    }

    /// Returns the processes that record bodies.
    pub fn recording(&self) -> Vec<u32> {
        let recording = self.interceptors.iter().filter(|(_, it)| it.is_recording);
        recording.map(|(pid, _)| *pid).collect()
    }

    /// Forgets the requests of an interceptor whose end will not be known.
    fn forget_unfinished(&mut self, pid: u32) {
        self.forget(|one| one.pid == pid && one.end.is_empty());
        self.forget_ended();
    }

    fn forget(&mut self, is_gone: impl Fn(&Exchange) -> bool) {
        self.exchanges.retain(|one| !is_gone(one));
        self.bytes = self.exchanges.iter().map(Exchange::len).sum();
    }

    /// Forgets the interceptors that have ended and have no requests.
    fn forget_ended(&mut self) {
        let exchanges = &self.exchanges;
        self.interceptors.retain(|pid, interceptor| {
            interceptor.closed.is_empty() || exchanges.iter().any(|one| one.pid == *pid)
        });
    }
}

impl Exchange {
    fn new(pid: u32, id: u64, at: f64) -> Exchange {
        Exchange {
            pid,
            id,
            at,
            start: Vec::new(),
            head: Vec::new(),
            progress: Vec::new(),
            end: Vec::new(),
        }
    }

    fn lines(&self) -> [&Vec<u8>; 4] {
        [&self.start, &self.head, &self.progress, &self.end]
    }

    fn len(&self) -> usize {
        self.lines().map(Vec::len).iter().sum()
    }
}

/// As many as a page shows.
const EXCHANGES_MAX: usize = 2000;

/// Two kilobytes for each: the lines of a request have about as many.
const BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes events, each after the process that sends it, and returns those that are news.
    fn note<'a>(history: &mut History, events: &[(u32, &'a str)]) -> Vec<&'a str> {
        let mut news = Vec::new();
        for (pid, text) in events {
            let event = serde_json::from_str(text).expect("JSON");
            if history.note(*pid, &event, text.as_bytes()) {
                news.push(*text);
            }
        }
        news
    }

    #[track_caller]
    fn check(history: &History, expected: &[&[&str]]) {
        let expected: Vec<String> = expected.iter().map(|lines| lines.concat()).collect();
        let lines = history.lines().into_iter();
        let lines: Vec<String> = lines
            .map(|lines| String::from_utf8(lines).expect("text"))
            .collect();
        assert_eq!(lines, expected);
    }

    const HELLO: &str = r#"{"event":"hello","recording":false}"#;
    const START: &str = r#"{"event":"start","id":1,"at":1.5}"#;
    const HEAD: &str = r#"{"event":"head","id":1,"status":200}"#;
    const PROGRESS: &str = r#"{"event":"progress","id":1,"response_bytes":7}"#;
    const BODY: &str = r#"{"event":"body","id":1,"data":"x"}"#;
    const END: &str = r#"{"event":"end","id":1,"at":2.5}"#;
    const LIVE: &str = r#"{"event":"live"}"#;
    const CLOSED: &str = r#"{"event":"closed"}"#;

    #[test]
    fn the_lines_of_a_request_are_kept_without_bodies() {
        let mut history = History::default();
        let again = r#"{"event":"head","id":1,"status":401}"#;
        let events = [HELLO, LIVE, START, HEAD, again, BODY, PROGRESS];
        assert_eq!(note(&mut history, &events.map(|text| (7, text))), events);
        check(&history, &[&[HELLO, START, again, PROGRESS]]);
        note(&mut history, &[(7, END)]);
        check(&history, &[&[HELLO, START, again, END]]);
        // What belongs to no known request is passed on.
        let others = [r#"{"event":"end","id":2}"#, r#"{"event":"start"}"#, "{}"];
        assert_eq!(note(&mut history, &others.map(|text| (7, text))), others);
        check(&history, &[&[HELLO, START, again, END]]);
    }

    #[test]
    fn an_interceptor_that_has_ended_is_kept_as_long_as_its_requests() {
        let mut history = History::default();
        let second = r#"{"event":"start","id":2,"at":1.7}"#;
        note(
            &mut history,
            &[HELLO, START, END, second, CLOSED].map(|text| (7, text)),
        );
        check(&history, &[&[HELLO, START, END, CLOSED]]);
        note(&mut history, &[(8, HELLO), (8, second), (8, CLOSED)]);
        check(&history, &[&[HELLO, START, END, CLOSED]]);
        // The hellos of many processes count too.
        let long = format!(r#"{{"event":"hello","path":"{}"}}"#, "x".repeat(1 << 20));
        for pid in 10..20 {
            note(
                &mut history,
                &[&long, START, END, CLOSED].map(|text| (pid, text)),
            );
        }
        assert_eq!(history.interceptors.len(), 3);
    }

    #[test]
    fn what_an_interceptor_sends_again_is_no_news() {
        let mut history = History::default();
        let second = r#"{"event":"start","id":2,"at":1.7}"#;
        let second_end = r#"{"event":"end","id":2,"at":1.8}"#;
        note(
            &mut history,
            &[HELLO, LIVE, START, HEAD, END, second].map(|text| (7, text)),
        );
        let again = [HELLO, START, HEAD, END, second, second_end, LIVE];
        let news = note(&mut history, &again.map(|text| (7, text)));
        assert_eq!(news, [HELLO, second, second_end, LIVE]);
        check(&history, &[&[HELLO, START, HEAD, END, second, second_end]]);
    }

    #[test]
    fn another_process_may_have_the_id_of_one_that_ended() {
        let mut history = History::default();
        let other = r#"{"event":"start","id":1,"at":100}"#;
        note(
            &mut history,
            &[HELLO, START, END, CLOSED].map(|text| (7, text)),
        );
        assert_eq!(
            note(&mut history, &[(7, HELLO), (7, other)]),
            [HELLO, other]
        );
        check(&history, &[&[HELLO, other]]);
    }

    #[test]
    fn ports_and_recording_are_those_of_now() {
        let mut history = History::default();
        let [one, two] =
            ["site", "site_closed"].map(|event| format!(r#"{{"event":"{event}","port":9000}}"#));
        let [on, off] = [true, false].map(|on| format!(r#"{{"event":"recording","on":{on}}}"#));
        note(&mut history, &[(7, HELLO), (7, &one), (7, &on), (7, &two)]);
        check(&history, &[&[HELLO, &two, &on]]);
        assert_eq!(history.recording(), [7]);
        note(
            &mut history,
            &[(7, &off), (8, r#"{"event":"hello","recording":true}"#)],
        );
        assert_eq!(history.recording(), [8]);
        note(&mut history, &[(7, HELLO), (8, CLOSED)]);
        check(&history, &[&[HELLO]]);
        assert!(history.recording().is_empty());
    }

    #[test]
    fn the_oldest_requests_of_all_make_room() {
        let mut history = History::default();
        note(&mut history, &[(7, HELLO), (8, HELLO)]);
        // They arrive one interceptor after the other, not in the order of time.
        for pid in [7, 8] {
            for id in 0..1500 {
                let at = f64::from(id) + f64::from(pid) / 10.0;
                let start = format!(r#"{{"event":"start","id":{id},"at":{at}}}"#);
                let end = format!(r#"{{"event":"end","id":{id}}}"#);
                note(&mut history, &[(pid, &start), (pid, &end)]);
            }
        }
        assert_eq!(history.exchanges.len(), 2000);
        let ids: Vec<u64> = history.exchanges.iter().map(|one| one.id).collect();
        assert!(ids.is_sorted() && ids[0] == 500, "{ids:?}");
        for id in 2000..2010 {
            let start = format!(
                r#"{{"event":"start","id":{id},"at":{id},"path":"{}"}}"#,
                "x".repeat(1 << 20)
            );
            note(&mut history, &[(7, &start)]);
        }
        assert_eq!(
            history.exchanges.len(),
            3,
            "large lines count by their bytes"
        );
        let bytes: usize = history.exchanges.iter().map(Exchange::len).sum();
        assert_eq!(history.bytes, bytes);
    }
}
