//! The events of the interceptors' feeds, passed on to one page.
//!
//! Each page subscribes for as long as it is open: a feed without subscribers costs its interceptor nothing. Lines are passed
//! on unchanged if they are JSON; the page interprets them. Where events come faster than the page reads, neither side waits
//! for the other (`queue`).

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::machine::feeds::{Feed, sockets, sweep};

use super::queue::Queue;

/// Passes on the events of every interceptor that has a socket in `folder`, until the queue is closed.
pub fn follow(folder: &Path, queue: &Arc<Queue>) {
    sweep(folder);
    let mut attempts: HashMap<PathBuf, Attempt> = HashMap::new();
    while queue.is_open() {
        let sockets = sockets(folder);
        attempts.retain(|socket, _| sockets.contains(socket));
        for socket in sockets {
            if !attempts.get(&socket).is_some_and(Attempt::is_current) {
                let at = Instant::now();
                let subscription = subscribe(&socket, queue);
                attempts.insert(socket, Attempt { at, subscription });
            }
        }
        thread::sleep(PAUSE);
    }
    for subscription in attempts
        .into_values()
        .flat_map(|attempt| attempt.subscription)
    {
        // Ends the thread that reads from it.
        let _ = subscription.stream.shutdown(Shutdown::Both);
    }
}

/// The latest attempt to subscribe to a feed.
struct Attempt {
    at: Instant,
    subscription: io::Result<Subscription>,
}

impl Attempt {
    /// Whether it is too early for another attempt. An interceptor that ended, or has too many subscribers, is not tried again
    /// at once.
    fn is_current(&self) -> bool {
        let is_reading = |subscription: &Subscription| !subscription.thread.is_finished();
        self.at.elapsed() < PAUSE_BEFORE_NEXT || self.subscription.as_ref().is_ok_and(is_reading)
    }
}

struct Subscription {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

fn subscribe(socket: &Path, queue: &Arc<Queue>) -> io::Result<Subscription> {
    let mut feed = Feed::at(socket)?;
    let stream = feed.stream().try_clone()?;
    let queue = Arc::clone(queue);
    let pass_all_on = move || {
        let pid = feed.hello.pid;
        pass_on(pid, feed.first_line.as_bytes(), &queue);
        pass_on(pid, feed.lines(), &queue);
        queue.put_event(page_line(pid, br#"{"event":"closed"}"#));
    };
    let thread = thread::Builder::new()
        .name("feed".to_owned())
        .spawn(pass_all_on)?;
    Ok(Subscription { stream, thread })
}

fn pass_on(pid: u32, mut reader: impl BufRead, queue: &Queue) {
    let mut line = Vec::new();
    while queue.is_open() {
        line.clear();
        match reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(1..) if line.ends_with(b"\n") => {}
            // The end, or a line that no interceptor writes.
            _ => return,
        }
        line.pop();
        // A line break would start another line for the page; an incomplete document is not JSON.
        let is_document = !line.contains(&b'\r')
            && std::str::from_utf8(&line)
                .is_ok_and(|line| serde_json::from_str::<IgnoredAny>(line).is_ok());
        if is_document {
            queue.put_event(page_line(pid, &line));
        }
    }
}

/// A line for the page.
fn page_line(pid: u32, event: &[u8]) -> Vec<u8> {
    let mut line = format!(r#"{{"on":"feed","pid":{pid},"event":"#).into_bytes();
    line.extend_from_slice(event);
    line.extend_from_slice(b"}\n");
    line
}

/// Switches recording in an interceptor on or off, and waits until it confirms.
///
/// # Errors
///
/// It does not run, or does not confirm in time.
pub fn record(folder: &Path, pid: u32, on: bool) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Event {
        event: String,
        on: Option<bool>,
    }
    let mut feed = Feed::at(&folder.join(format!("{pid}.sock")))?;
    if feed.hello.recording == on {
        return Ok(());
    }
    let deadline = Instant::now() + RECORD_TIME_MAX;
    feed.stream().set_write_timeout(Some(RECORD_TIME_MAX))?;
    feed.record(on)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no limit.
        let left = left.max(Duration::from_millis(1));
        feed.stream().set_read_timeout(Some(left))?;
        let line = feed.next_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Ok(Event { event, on: is_on }) = serde_json::from_str(&line) else {
            continue;
        };
        match event.as_str() {
            "recording" if is_on == Some(on) => return Ok(()),
            "full" => return Err(io::Error::other("it has too many subscribers")),
            _ => {}
        }
    }
}

/// Longer than the largest recorded body with every byte escaped.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Between two searches for interceptors: short, so that the first request of a new one is usually seen.
const PAUSE: Duration = Duration::from_millis(300);

/// Before another attempt at an interceptor that closed the connection.
const PAUSE_BEFORE_NEXT: Duration = Duration::from_secs(3);

/// The user waits for it.
const RECORD_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_json_are_passed_on() {
        #[track_caller]
        fn check(feed: &[u8], expected: &[&str]) {
            let queue = Queue::default();
            pass_on(7, feed, &queue);
            let lines = queue.take(Duration::ZERO).expect("it is open").lines;
            let lines: Vec<_> = lines
                .iter()
                .map(|line| String::from_utf8_lossy(line))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|event| format!("{{\"on\":\"feed\",\"pid\":7,\"event\":{event}}}\n"))
                .collect();
            assert_eq!(lines, expected, "{:?}", String::from_utf8_lossy(feed));
        }
        check(b"", &[]);
        check(b"{\"event\":\"bye\"}\n", &["{\"event\":\"bye\"}"]);
        check(b"{\"a\":1}\n{\"b\":2}\n", &["{\"a\":1}", "{\"b\":2}"]);
        check(b"{\"a\":1}\n{\"cut\"", &["{\"a\":1}"]);
        check(b"{\"a\":1}}\n{}\n", &["{}"]);
        check(b"}],\"pid\":9\n{}\n", &["{}"]);
        check(b"{\"a\":\r1}\n{}\n", &["{}"]);
        check(b"{\"a\":\"\xff\"}\n{}\n", &["{}"]);
        check(b"\n{}\n", &["{}"]);
        check(
            b"{\"a\":\"</script>\\u2028\\u0000\"}\n",
            &["{\"a\":\"</script>\\u2028\\u0000\"}"],
        );
        let mut endless = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        endless.extend(b"\n{}\n");
        check(&endless, &[]);
    }
}
