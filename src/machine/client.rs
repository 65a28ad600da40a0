//! A plain HTTP/1.1 client: one request on a connection of its own, with a time limit for everything. The response comes with
//! the times at which its events arrived, so that a buffered stream can be told from one that flows.

use std::future::{pending, poll_fn};
use std::io;
use std::time::{Duration, Instant};

use smol::future;

use super::connect::{Unreachable, connect, failed, timed_out};
use super::listeners::is_own;
use crate::http::body::{Body, BodyMode};
use crate::http::framing::{self, Framing, ResponseTo};
use crate::http::head::{self, Slots};
use crate::http::{Error, Parsed};
use crate::serve::Endpoint;
use crate::serve::conn::Stream;
use crate::serve::end_mark::EndMark;
use crate::serve::reactor::Timer;

/// A request.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The value of `Host`.
    pub host: &'a str,
    /// The key for `Authorization: Bearer`.
    pub key: Option<&'a str>,
    /// The port of an interceptor of this user: nothing is sent if another user may listen there by now.
    pub own_port: Option<u16>,
    /// The body, a JSON document.
    pub body: Option<&'a str>,
}

/// A response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The value of `Server`.
    pub server: Option<String>,
    /// The value of `Content-Type`, empty where there is none.
    pub content_type: String,
    /// The value of `Content-Encoding`, which no request asks for; `None` also for `identity`.
    pub content_encoding: Option<String>,
    /// The value of `x-ic-error`, which marks an error of an interceptor itself.
    pub ic_error: Option<String>,
    /// The body without its framing, as far as it has arrived.
    pub body: Vec<u8>,
    /// When events arrived, counted from the end of the request, and how many did at that moment.
    pub arrivals: Vec<(Duration, usize)>,
}

impl Response {
    /// Returns the body as a JSON document, if it is one.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns the error message in the body, where OpenAI's and Anthropic's APIs have it.
    pub fn error_message(&self) -> Option<String> {
        Some(self.json()?["error"]["message"].as_str()?.to_owned())
    }

    /// Whether it is a stream of events.
    pub fn is_event_stream(&self) -> bool {
        self.status == 200 && self.content_type.starts_with("text/event-stream")
    }
}

/// Sends `request` to `endpoint` and reads the response. Once its head is there, what of the body arrives before an error
/// or within `limit` is returned.
///
/// # Errors
///
/// Why there is no connection, or no head of a response on it.
pub async fn send(
    endpoint: &Endpoint,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Response, Unreachable> {
    let deadline = Instant::now() + limit;
    let stream = connect(endpoint, limit).await?;
    // After the connection is made: whatever listened then still does, or no socket is found.
    if request.own_port.is_some_and(|port| !is_own(port)) {
        return Err("is not known to be this user's any more".to_owned());
    }
    let mut response = None;
    let exchange = async {
        stream.write_all(format(request).as_bytes()).await?;
        receive(&stream, &mut response).await
    };
    let timeout = async {
        Timer::at(deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    match (future::or(exchange, timeout).await, response) {
        (_, Some(response)) => Ok(response),
        (Err(error), None) if error.kind() == io::ErrorKind::TimedOut => Err(timed_out(limit)),
        (Err(error), None) => Err(failed(&error)),
        (Ok(()), None) => Err("sends no response".to_owned()),
    }
}

fn format(request: &Request<'_>) -> String {
    let Request {
        method,
        path,
        host,
        key,
        body,
        ..
    } = request;
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ic\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
    );
    if let Some(key) = key {
        text.push_str(&format!("Authorization: Bearer {key}\r\n"));
    }
    match body {
        Some(body) => text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )),
        None => text.push_str("\r\n"),
    }
    text
}

/// Reads a response until it is complete, the connection closes, or [`BODY_BYTES_MAX`]; a stream of events until its end mark, or
/// until no more come for [`QUIET_MAX`], since some servers leave the connection open. `response` is set when its head is complete,
/// and its body grows as it arrives.
async fn receive(stream: &Stream, response: &mut Option<Response>) -> io::Result<()> {
    let sent = Instant::now();
    let mut unread = Vec::new();
    let (head, mut body) = loop {
        if let Some((len, head, framing)) = parse_head(&unread).map_err(invalid)? {
            unread.drain(..len);
            break (head, Body::of_response(framing));
        }
        if read(stream, &mut unread).await? == 0 {
            return Ok(());
        }
    };
    let response = response.insert(head);
    let mut end_mark = EndMark::new(false);
    loop {
        let before = response.body.len();
        let used = body
            .take_ready(&unread, BodyMode::Dechunked, |_| false, &mut response.body)
            .map_err(invalid)?;
        unread.drain(..used);
        // An event's first bytes may have arrived before.
        let new = &response.body[before.saturating_sub(EVENT.len() - 1)..];
        let events = new.windows(EVENT.len()).filter(|at| *at == EVENT).count();
        if events > 0 {
            response.arrivals.push((sent.elapsed(), events));
        }
        end_mark.read(&response.body[before..]);
        end_mark.sent();
        let is_over = body.is_complete()
            || response.body.len() > BODY_BYTES_MAX
            || response.is_event_stream() && end_mark.is_sent();
        let seen: usize = response.arrivals.iter().map(|(_, events)| events).sum();
        let quiet = async {
            match seen >= BEGUN_EVENTS_MIN {
                true => Timer::at(Instant::now() + QUIET_MAX).await,
                false => pending().await,
            };
            Ok(0)
        };
        if is_over || future::or(read(stream, &mut unread), quiet).await? == 0 {
            return Ok(());
        }
    }
}

/// Parses the head of the final response: its length with those of the interim responses before it, itself, and the framing
/// of its body. `None`: it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Response, Framing)>, Error> {
    let mut start = 0;
    loop {
        let mut slots = Slots::default();
        let Parsed::Complete(head) = head::response(&bytes[start..], &mut slots)? else {
            return Ok(None);
        };
        start += head.len;
        if head.status < 200 {
            continue;
        }
        let field = |name: &str| {
            let mut fields = head.fields.iter();
            let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8_lossy(field.value).trim().to_owned())
        };
        let response = Response {
            status: head.status,
            server: field("server"),
            content_type: field("content-type").unwrap_or_default(),
            content_encoding: field("content-encoding")
                .filter(|coding| !coding.eq_ignore_ascii_case("identity")),
            ic_error: field("x-ic-error"),
            ..Response::default()
        };
        let framing = framing::of_response(&head, ResponseTo::Other)?;
        return Ok(Some((start, response, framing)));
    }
}

/// Appends what arrives next to `bytes`; returns its length, 0 at the end of the stream.
async fn read(stream: &Stream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let len = bytes.len();
    bytes.resize(len + READ_BYTES, 0);
    let result = loop {
        match stream.try_read(&mut bytes[len..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_readable(context)).await?;
            }
            result => break result,
        }
    };
    bytes.truncate(len + *result.as_ref().unwrap_or(&0));
    result
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The field that starts the data of an event.
const EVENT: &[u8] = b"data:";

/// Between two events of an answer that has begun.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// Before its text, a model may think for long after one event, which gives its role.
const BEGUN_EVENTS_MIN: usize = 8;

/// For one read.
const READ_BYTES: usize = 16 * 1024;

/// Lists of models are some 100 KB; a server that is not the expected one may send without end.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::reactor;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// What comes of a response that arrives in two parts, after which the connection is closed, or stays open for longer
    /// than the limit.
    fn outcome(parts: [&'static [u8]; 2], closes: bool) -> Result<Response, Unreachable> {
        let limit = Duration::from_millis(if closes { 10_000 } else { 200 });
        outcome_within(parts, closes, limit)
    }

    fn outcome_within(
        parts: [&'static [u8]; 2],
        closes: bool,
        limit: Duration,
    ) -> Result<Response, Unreachable> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the request");
            let mut request = [0; 1024];
            assert_ne!(stream.read(&mut request).expect("the request"), 0);
            for part in parts {
                // The client may have read enough.
                let _ = stream.write_all(part);
                std::thread::sleep(Duration::from_millis(5));
            }
            (!closes).then_some(stream)
        });
        let endpoint = Endpoint::Tcp("127.0.0.1".to_owned(), port);
        let request = Request {
            method: "GET",
            path: "/",
            host: "localhost",
            ..Request::default()
        };
        let result = reactor::block_on(send(&endpoint, &request, limit)).expect("a reactor");
        drop(server.join().expect("no failure in the server"));
        result
    }

    #[test]
    fn a_body_is_read_in_every_framing() {
        #[track_caller]
        fn check(closes: bool, whole: &'static [u8], body: &str) {
            for cut in 0..whole.len() {
                let (first, second) = whole.split_at(cut);
                let response = outcome([first, second], closes).expect("a response");
                assert_eq!(response.status, 200, "cut at {cut}");
                assert_eq!(
                    String::from_utf8_lossy(&response.body),
                    body,
                    "cut at {cut}"
                );
                if !closes {
                    break;
                }
            }
        }
        check(
            true,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x",
            "{}",
        );
        check(true, b"HTTP/1.1 200 OK\r\n\r\n{}", "{}");
        check(
            true,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\na: b\r\n\r\n",
            "{}",
        );
        // The end of the body is known without the end of the connection.
        check(
            false,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "{}",
        );
        // What has arrived within the limit.
        check(false, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "{");
    }

    #[test]
    fn a_response_without_a_head_is_an_error() {
        let silent = outcome([b"", b""], false);
        assert_eq!(silent, Err("does not answer in 0.2 s".to_owned()));
        for bytes in [&b""[..], b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9.6\r\n"] {
            let failed = outcome([bytes, b""], true);
            assert!(failed.is_err(), "{failed:?}");
        }
    }

    #[test]
    fn nothing_is_sent_to_a_port_on_which_another_user_may_listen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let ended = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let unused = ended.local_addr().expect("bound").port();
        drop(ended);
        let request = Request {
            method: "GET",
            path: "/",
            host: "localhost",
            key: Some("sk-secret"),
            // The interceptor has ended since, so that no socket of this user is found.
            own_port: Some(unused),
            ..Request::default()
        };
        let endpoint = Endpoint::Tcp("127.0.0.1".to_owned(), port);
        let sent = reactor::block_on(send(&endpoint, &request, Duration::from_secs(10)));
        let why = sent.expect("a reactor").expect_err("it is not sent");
        assert_eq!(why, "is not known to be this user's any more");
        let (mut stream, _) = listener.accept().expect("the connection");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("its end");
        assert_eq!(received, b"");
    }

    #[test]
    fn a_stream_that_stays_open_ends_at_its_end_mark_or_when_no_more_events_come() {
        #[track_caller]
        fn check(last: &'static [u8], events: usize, elapsed_max: Duration) {
            let head =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: [DO";
            let began = Instant::now();
            let limit = Duration::from_secs(60);
            let response = outcome_within([head, last], false, limit).expect("a response");
            let elapsed = began.elapsed();
            assert!(elapsed < elapsed_max, "{elapsed:?}");
            let seen: usize = response.arrivals.iter().map(|(_, events)| events).sum();
            assert_eq!(seen, events);
        }
        check(b"NE]\n\n", 2, QUIET_MAX);
        let rest = b"\n\ndata:\n\ndata:\n\ndata:\n\ndata:\n\ndata:\n\ndata:\n\n";
        check(rest, 8, Duration::from_secs(30));
    }

    #[test]
    fn an_event_is_counted_once_also_where_it_is_cut() {
        let head_and_half =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\nda";
        let response = outcome([head_and_half, b"ta: 2\n\n"], true).expect("a response");
        assert!(response.is_event_stream());
        let events: usize = response.arrivals.iter().map(|(_, events)| events).sum();
        assert_eq!((events, response.arrivals.len()), (2, 2));
    }
}
