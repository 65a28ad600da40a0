//! A listener of the live feed.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::{DEADLINE, Interceptor};

/// Somebody who listens; every line is waited for until the deadline.
pub struct Listener(BufReader<UnixStream>);

impl Listener {
    /// Connects, and takes the greeting.
    #[track_caller]
    pub fn of(interceptor: &Interceptor) -> Listener {
        Listener::greeted(interceptor).0
    }

    /// Connects; the listener and what it was greeted with.
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

    /// The next line that does not tell of progress: whether there is one of those depends on the machine.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        loop {
            let line = self.try_next();
            let line = line.expect("listener: there is another line, and not the end");
            if line["event"] != "progress" {
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
            // Closed before all that was sent to it was read.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Ok(_) => {}
            Err(error) => panic!("listener: no line came: {error}"),
        }
        let text = line
            .strip_suffix('\n')
            .unwrap_or_else(|| panic!("listener: half a line: {line}"));
        let odd = |character: char| character.is_control();
        assert!(
            !text.contains(odd),
            "listener: control characters: {text:?}"
        );
        Some(
            serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("listener: no JSON: {error}: {text}")),
        )
    }

    /// The next line, which tells this event.
    #[track_caller]
    pub fn expect(&mut self, event: &str) -> Value {
        let line = self.next();
        assert_eq!(line["event"], event, "listener: {line}");
        line
    }

    /// The next line that tells this event; what comes before it is passed over.
    #[track_caller]
    pub fn wait_for(&mut self, event: &str) -> Value {
        loop {
            let line = self.next();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// There is no other line: the connection is over.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let line = self.try_next();
        assert!(line.is_none(), "listener: the end, and not {line:?}");
    }

    /// Says something.
    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let said = self.0.get_mut().write_all(bytes.as_ref());
        said.expect("listener: it can be said");
    }

    /// Switches recording, and waits until it is.
    #[track_caller]
    pub fn record(&mut self, on: bool) {
        self.say(format!("{{\"record\":{on}}}\n"));
        assert_eq!(self.expect("recording")["on"], on);
    }
}
