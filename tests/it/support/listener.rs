//! A subscriber of the live feed.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::{DEADLINE, Interceptor};

/// A subscriber; the wait for each line has a deadline.
pub struct Listener(BufReader<UnixStream>);

impl Listener {
    /// Connects, and reads the hello event and what was published before.
    #[track_caller]
    pub fn of(interceptor: &Interceptor) -> Listener {
        let mut listener = Listener::greeted(interceptor).0;
        listener.before_live();
        listener
    }

    /// Connects; returns the listener and the hello event.
    #[track_caller]
    pub fn greeted(interceptor: &Interceptor) -> (Listener, Value) {
        let mut listener = Listener::at(&interceptor.feed());
        let hello = listener.next();
        assert_eq!(hello["event"], "hello", "{hello}");
        (listener, hello)
    }

    /// Connects.
    #[track_caller]
    pub fn at(path: &Path) -> Listener {
        let stream = UnixStream::connect(path)
            .unwrap_or_else(|error| panic!("listener: {}: {error}", path.display()));
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a time limit can be set");
        Listener(BufReader::new(stream))
    }

    /// The lines up to `live`.
    #[track_caller]
    pub fn before_live(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        loop {
            let line = self.try_next().expect("listener: live lines follow");
            if line["event"] == "live" {
                return lines;
            }
            lines.push(line);
        }
    }

    /// The next event other than `live`, and `progress`, whose number depends on the machine.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        loop {
            let line = self.try_next();
            let line = line.expect("listener: another line instead of the end");
            if line["event"] != "progress" && line["event"] != "live" {
                return line;
            }
        }
    }

    /// The next line, or `None` at the end.
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => return None,
            // Closed by the peer before it had read everything.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Ok(_) => {}
            Err(error) => panic!("listener: no line: {error}"),
        }
        let text = line
            .strip_suffix('\n')
            .unwrap_or_else(|| panic!("listener: incomplete line: {line}"));
        let is_control = |character: char| character.is_control();
        assert!(
            !text.contains(is_control),
            "listener: control characters: {text:?}"
        );
        Some(
            serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("listener: no JSON: {error}: {text}")),
        )
    }

    /// The next line, which must be this event.
    #[track_caller]
    pub fn expect(&mut self, event: &str) -> Value {
        let line = self.next();
        assert_eq!(line["event"], event, "listener: {line}");
        line
    }

    /// The next line with this event; earlier lines are skipped.
    #[track_caller]
    pub fn wait_for(&mut self, event: &str) -> Value {
        loop {
            let line = self.next();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// The connection ends without another line.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let line = self.try_next();
        assert!(line.is_none(), "listener: the end instead of {line:?}");
    }

    /// Sends a command.
    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.0.get_mut().write_all(bytes.as_ref());
        sent.expect("listener: the command can be sent");
    }

    /// Switches recording, and waits for the confirmation.
    #[track_caller]
    pub fn record(&mut self, on: bool) {
        self.say(format!("{{\"record\":{on}}}\n"));
        assert_eq!(self.expect("recording")["on"], on);
    }
}
