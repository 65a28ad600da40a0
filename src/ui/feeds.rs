//! The events of the interceptors' feeds, for the pages: those that are open, and those that will be opened.
//!
//! There is one subscription to each interceptor for as long as this process runs, so that a page that is opened or reloaded has
//! the last requests (`history`). Lines are passed on unchanged if they are JSON; the page interprets them. Where events come
//! faster than a page reads, neither side waits for the other (`queue`).

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::machine::feeds::{Feed, sockets, sweep};

use super::history::{Event, History};
use super::queue::Queue;

/// The feeds, and the pages that are open.
pub struct Feeds {
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    history: History,
    pages: Vec<Arc<Queue>>,
    /// Since when no page is open; `None` also after recording was switched off for that.
    unattended_since: Option<Instant>,
}

impl Feeds {
    /// Those of the sockets in `folder`.
    pub fn new(folder: PathBuf) -> Feeds {
        let state = State {
            history: History::default(),
            pages: Vec::new(),
            // A recording may be left of another process like this.
            unattended_since: Some(Instant::now()),
        };
        Feeds {
            folder,
            state: Mutex::new(state),
        }
    }

    /// The folder of the sockets.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sends a page what is kept, then what happens from now on, until [`Feeds::close`].
    pub fn open(&self, page: &Arc<Queue>) {
        let mut state = self.lock();
        for lines in state.history.lines() {
            page.put_event(lines);
        }
        page.put_event(b"{\"on\":\"live\"}\n".to_vec());
        state.pages.push(Arc::clone(page));
        state.unattended_since = None;
    }

    /// Sends a page the bodies that were recorded before it was opened.
    pub fn send_recorded(&self, page: &Queue) {
        let recording = self.lock().history.recording();
        for pid in recording {
            // Where it fails, the page has the requests without bodies.
            let _ = self.send_bodies(pid, page);
        }
    }

    fn send_bodies(&self, pid: u32, page: &Queue) -> io::Result<()> {
        let mut feed = Feed::at(&self.folder.join(format!("{pid}.sock")))?;
        feed.stream().set_read_timeout(Some(REPLAY_TIME_MAX))?;
        read_events(feed.lines(), |event, line| {
            if event.event == "body" {
                page.put_event(page_line(pid, line));
            }
            event.event != "live" && page.is_open()
        });
        Ok(())
    }

    /// A page was closed.
    pub fn close(&self, page: &Arc<Queue>) {
        let mut state = self.lock();
        state.pages.retain(|open| !Arc::ptr_eq(open, page));
        state.unattended_since = state.pages.is_empty().then(Instant::now);
    }

    /// Subscribes to the feeds, in a thread that ends with the process.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let feeds = Arc::clone(self);
        let thread = thread::Builder::new().name("feeds".to_owned());
        thread.spawn(move || feeds.follow()).map(drop)
    }

    fn follow(self: &Arc<Self>) {
        sweep(&self.folder);
        let mut attempts: HashMap<PathBuf, Attempt> = HashMap::new();
        loop {
            let sockets = sockets(&self.folder);
            attempts.retain(|socket, _| sockets.contains(socket));
            for socket in sockets {
                if !attempts.get(&socket).is_some_and(Attempt::is_current) {
                    let at = Instant::now();
                    let subscription = self.subscribe(&socket);
                    attempts.insert(socket, Attempt { at, subscription });
                }
            }
            let unattended = self.lock().unattended(Instant::now());
            for pid in unattended {
                // One that does not answer has ended.
                let _ = record(&self.folder, pid, false);
            }
            thread::sleep(PAUSE);
        }
    }

    fn subscribe(self: &Arc<Self>, socket: &Path) -> io::Result<JoinHandle<()>> {
        let mut feed = Feed::at(socket)?;
        let feeds = Arc::clone(self);
        let pass_all_on = move || {
            let pid = feed.hello.pid;
            let mut pass_on = |event: &Event<'_>, line: &[u8]| {
                feeds.pass_on(pid, event, line);
                true
            };
            read_events(feed.first_line.as_bytes(), &mut pass_on);
            read_events(feed.lines(), &mut pass_on);
            read_events(&b"{\"event\":\"closed\"}\n"[..], &mut pass_on);
        };
        thread::Builder::new()
            .name("feed".to_owned())
            .spawn(pass_all_on)
    }

    /// Keeps an event, and passes it on to the pages.
    fn pass_on(&self, pid: u32, event: &Event<'_>, line: &[u8]) {
        let line = page_line(pid, line);
        let mut state = self.lock();
        if state.history.note(pid, event, &line) {
            for page in &state.pages {
                page.put_event(line.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns, once, the interceptors that record although no page has been open for a while: this process subscribes to them,
    /// so they do not notice it.
    fn unattended(&mut self, now: Instant) -> Vec<u32> {
        let is_due =
            |since: &mut Instant| now.saturating_duration_since(*since) >= UNATTENDED_RECORDING_MAX;
        match self.unattended_since.take_if(is_due) {
            Some(_) => self.history.recording(),
            None => Vec::new(),
        }
    }
}

/// The latest attempt to subscribe to a feed.
struct Attempt {
    at: Instant,
    /// The thread that reads it.
    subscription: io::Result<JoinHandle<()>>,
}

impl Attempt {
    /// Whether it is too early for another attempt. An interceptor that ended, or has too many subscribers, is not tried again
    /// at once.
    fn is_current(&self) -> bool {
        let is_reading = |thread: &JoinHandle<()>| !thread.is_finished();
        self.at.elapsed() < PAUSE_BEFORE_NEXT || self.subscription.as_ref().is_ok_and(is_reading)
    }
}

/// Calls `act` with each event of a feed and its line without the end, as long as it returns `true`.
fn read_events(mut reader: impl BufRead, mut act: impl FnMut(&Event<'_>, &[u8]) -> bool) {
    let mut line = Vec::new();
    loop {
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
        let event = std::str::from_utf8(&line)
            .ok()
            .filter(|line| !line.contains('\r'))
            .and_then(|line| serde_json::from_str(line).ok());
        if event.is_some_and(|event| !act(&event, &line)) {
            return;
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
pub const LINE_BYTES_MAX: u64 = 16 << 20;

/// Between two searches for interceptors: short, so that the first request of a new one is usually seen.
const PAUSE: Duration = Duration::from_millis(300);

/// Before another attempt at an interceptor that closed the connection.
const PAUSE_BEFORE_NEXT: Duration = Duration::from_secs(3);

/// A page that is reloaded keeps the recording.
const UNATTENDED_RECORDING_MAX: Duration = Duration::from_secs(60);

/// Without a line, when recorded bodies are read.
const REPLAY_TIME_MAX: Duration = Duration::from_secs(2);

/// The user waits for it.
const RECORD_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_json_are_passed_on() {
        #[track_caller]
        fn check(feed: &[u8], expected: &[&str]) {
            let mut lines = Vec::new();
            read_events(feed, |_, line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
                true
            });
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
        check(b"{\"id\":\"no number\"}\n{}\n", &["{}"]);
        check(
            b"{\"a\":\"</script>\\u2028\\u0000\"}\n",
            &["{\"a\":\"</script>\\u2028\\u0000\"}"],
        );
        let mut endless = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        endless.extend(b"\n{}\n");
        check(&endless, &[]);
    }

    #[test]
    fn recording_ends_a_minute_after_the_last_page_was_closed() {
        let feeds = Feeds::new(PathBuf::new());
        let hello = br#"{"event":"hello","recording":true}"#;
        let event = serde_json::from_slice(hello).expect("JSON");
        feeds.pass_on(7, &event, hello);
        let [one, two] = [(), ()].map(|()| Arc::new(Queue::default()));
        let unattended = |seconds| {
            let now = Instant::now() + Duration::from_secs(seconds);
            feeds.lock().unattended(now)
        };
        assert_eq!(unattended(59), [0; 0]);
        feeds.open(&one);
        feeds.open(&two);
        feeds.close(&one);
        assert_eq!(unattended(99), [0; 0], "a page is open");
        feeds.close(&two);
        assert_eq!(unattended(59), [0; 0]);
        assert_eq!(unattended(61), [7]);
        assert_eq!(unattended(99), [0; 0], "it is switched off once");
    }
}
