//! The response of one open request, passed on to a page as it grows, while its interceptor records.
//!
//! It has a subscription and a response of its own, because pages differ in what they look at. Closing either ends the other.

use std::io::{self, BufRead as _, ErrorKind, Read as _};

use serde::Deserialize;

use crate::httpd::{BodyWriter, Response, ResponseBody};
use crate::machine::feeds::Feed;
use crate::text::io_message;

use super::app_state::AppState;
use super::feeds::LINE_BYTES_MAX;
use super::live::HEARTBEAT;
use super::{api, response};

#[derive(Deserialize)]
struct Watch {
    /// The interceptor's process id.
    pid: u32,
    /// The request's id in its feed.
    id: u64,
}

/// The lines with what has come so far, until the response is complete.
pub fn stream(app: &AppState, body: &[u8]) -> Response {
    let Ok(Watch { pid, id }) = serde_json::from_slice(body) else {
        return api::malformed();
    };
    match subscribe(app, pid, id) {
        Ok(feed) => {
            let write = move |writer: &mut BodyWriter<'_>| pass_on(feed, id, writer);
            response::ok(
                "application/x-ndjson",
                ResponseBody::Stream(Box::new(write)),
            )
        }
        Err(error) => {
            let why = io_message(&error);
            let message = format!(
                "the interceptor with pid {pid} does not show the response: {why}; is it still running?"
            );
            response::error(500, message)
        }
    }
}

fn subscribe(app: &AppState, pid: u32, id: u64) -> io::Result<Feed> {
    let feeds = app.feeds.as_ref().ok_or(ErrorKind::NotFound)?;
    let feed = Feed::at(&feeds.folder().join(format!("{pid}.sock")))?;
    feed.stream().set_write_timeout(Some(HEARTBEAT))?;
    feed.watch(id)?;
    feed.stream().set_read_timeout(Some(HEARTBEAT))?;
    Ok(feed)
}

fn pass_on(mut feed: Feed, id: u64, writer: &mut BodyWriter<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let room = LINE_BYTES_MAX.saturating_sub(line.len() as u64);
        match feed.lines().take(room).read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {
                if is_part_of(&line, id) {
                    writer.write(&line)?;
                }
                line.clear();
            }
            // The end, or a line that no interceptor writes.
            Ok(_) => return Ok(()),
            // What has come of a line is kept. An error of the write is what shows that the page disconnected.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                writer.write(b"{}\n")?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a line has what has come so far: others may have been sent before the interceptor knew what is watched.
fn is_part_of(line: &[u8], id: u64) -> bool {
    #[derive(Deserialize)]
    struct Event {
        event: String,
        id: Option<u64>,
    }
    !line.contains(&b'\r')
        && serde_json::from_slice::<Event>(line)
            .is_ok_and(|event| event.event == "body" && event.id == Some(id))
}
