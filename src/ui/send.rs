//! Sends a recorded request again, through the port of its project. The page cannot do that itself: its own policy and the
//! interceptor's guard forbid it.
//!
//! Only an interceptor of this user gets it, because a key may be in it. The page gets the status; everything else is in the
//! feed. The response is read to its end, so that the interceptor does not see a client that leaves.

use std::io::{self, BufRead, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::connection::is_always_hop_by_hop;
use crate::http::grammar::{is_field_value, is_token};
use crate::httpd::Response;
use crate::machine::feeds::{Hello, running};
use crate::machine::listeners::is_own;
use crate::text::io_message;

use super::app_state::AppState;
use super::response;

/// A request as the page has it.
#[derive(Deserialize)]
pub struct Send {
    port: u16,
    method: String,
    path: String,
    /// Pairs of name and value. Those that concern one connection, or the length of the body, are replaced.
    fields: Vec<(String, String)>,
    body: Option<String>,
}

/// Sends it, and returns its status if the response begins soon.
pub fn send(app: &AppState, request: Send) -> Result<Value, Response> {
    let message = request.message().ok_or_else(|| {
        let message = "the request cannot be sent: its method, path or a field is not valid, or it is too large";
        response::error(400, message)
    })?;
    let port = request.port;
    let feeds = app
        .feeds
        .iter()
        .flat_map(|feeds| running(feeds.folder()))
        .map(|feed| feed.hello);
    let serves = |hello: &Hello| {
        hello.port == Some(port) || hello.sites.iter().any(|site| site.port == port)
    };
    if !feeds.into_iter().any(|hello| serves(&hello)) {
        let message = format!("no interceptor runs on port {port}; start it with `ic serve`");
        return Err(response::error(404, message));
    }
    let slot = Slot::take().ok_or_else(|| {
        let message = format!("{SENDING_MAX} requests are in flight; wait until one of them ends");
        response::error(503, message)
    })?;
    let failed = |error: &io::Error| {
        let why = io_message(error);
        response::error(500, format!("port {port} does not answer: {why}"))
    };
    let (result, arrived) = mpsc::channel();
    let exchange = move || {
        let _slot = slot;
        exchange(port, &message, &result);
    };
    thread::Builder::new()
        .name("send".to_owned())
        .spawn(exchange)
        .map_err(|error| failed(&error))?;
    match arrived.recv_timeout(STATUS_TIME_MAX) {
        Ok(Ok(status)) => Ok(json!({ "status": status })),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Ok(json!({ "status": null })),
    }
}

impl Send {
    /// The request's bytes; `None` if it is not valid.
    fn message(&self) -> Option<Vec<u8>> {
        let Send {
            port,
            method,
            path,
            fields,
            body,
        } = self;
        let body = body.as_deref().unwrap_or_default();
        let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        let is_field = |(name, value): &(String, String)| {
            is_token(name.as_bytes()) && is_field_value(value.as_bytes())
        };
        let is_valid = is_token(method.as_bytes())
            && method != "CONNECT"
            && is_path
            && fields.iter().all(is_field);
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\n");
        for (name, value) in fields {
            let is_replaced = REPLACED
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other));
            if !is_replaced && !is_always_hop_by_hop(name) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if !body.is_empty() || self.body.is_some() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        let fits = head.len() <= HEAD_BYTES_MAX && body.len() <= BODY_BYTES_MAX;
        (is_valid && fits).then(|| [head.as_bytes(), body.as_bytes()].concat())
    }
}

/// Sends the message and reads the response to its end; `result` gets the status.
fn exchange(port: u16, message: &[u8], result: &mpsc::Sender<io::Result<u16>>) {
    let began = connect(port).and_then(|mut stream| {
        stream.write_all(message)?;
        let mut response = BufReader::new(stream);
        let status = read_status(&mut response)?;
        Ok((status, response))
    });
    match began {
        Ok((status, mut response)) => {
            // The page does not wait for it any more.
            let _ = result.send(Ok(status));
            let _ = io::copy(&mut response, &mut io::sink());
        }
        Err(error) => {
            let _ = result.send(Err(error));
        }
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX)?;
    // After the connection is made: what listened then still does.
    if !is_own(port) {
        return Err(io::Error::other("another user may listen there by now"));
    }
    stream.set_read_timeout(Some(PAUSE_MAX))?;
    stream.set_write_timeout(Some(PAUSE_MAX))?;
    Ok(stream)
}

/// Reads the head of the final response.
fn read_status(response: &mut impl BufRead) -> io::Result<u16> {
    let mut head = response.take(HEAD_BYTES_MAX as u64);
    loop {
        let mut line = String::new();
        head.read_line(&mut line)?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or(ErrorKind::InvalidData)?;
        if status >= 200 {
            return Ok(status);
        }
        while line != "\r\n" {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// One of the requests that are in flight.
struct Slot;

static SENDING: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    fn take() -> Option<Slot> {
        let is_free = |count| (count < SENDING_MAX).then_some(count + 1);
        let taken = SENDING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free);
        taken.is_ok().then_some(Slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        SENDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Other fields that are not sent: the length and the host are those of this request, and the response is to be recorded.
const REPLACED: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "trailer",
    "expect",
    "accept-encoding",
];

/// A thread each.
const SENDING_MAX: usize = 16;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// The user waits for it; a model may take longer.
const STATUS_TIME_MAX: Duration = Duration::from_secs(2);

/// Without a byte of the response: more than a model needs.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// As the interceptor's limit of a head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// As the recording's.
const BODY_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut Send)) -> Option<String> {
        let mut request = Send {
            port: 8888,
            method: "POST".to_owned(),
            path: "/v1/x?a=%20".to_owned(),
            fields: vec![("X-A".to_owned(), "b c".to_owned())],
            body: Some("{}".to_owned()),
        };
        change(&mut request);
        let message = request.message()?;
        Some(String::from_utf8(message).expect("text"))
    }

    #[test]
    fn a_request_is_sent_with_its_fields_except_those_of_the_connection() {
        let sent = message(|request| {
            let others = [
                "HOST",
                "Keep-Alive",
                "content-length",
                "Transfer-Encoding",
                "Accept-Encoding",
            ];
            let others = others.map(|name| (name.to_owned(), "1".to_owned()));
            request.fields.extend(others);
        });
        assert_eq!(
            sent.as_deref(),
            Some(
                "POST /v1/x?a=%20 HTTP/1.1\r\nHost: localhost:8888\r\nX-A: b c\r\n\
                 Content-Length: 2\r\nConnection: close\r\n\r\n{}"
            )
        );
        let sent = message(|request| request.body = None).expect("it is valid");
        assert!(!sent.contains("Content-Length"), "{sent}");
    }

    #[test]
    fn nothing_else_can_be_sent_with_it() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let check = |why: &str, change: &dyn Fn(&mut Send)| {
            assert_eq!(message(change), None, "{why}");
        };
        check("a line end in the method", &|it| {
            it.method = "GET / HTTP/1.1\r\n".to_owned()
        });
        check("no method", &|it| it.method.clear());
        check("a tunnel", &|it| it.method = "CONNECT".to_owned());
        check("a space in the path", &|it| it.path = "/a b".to_owned());
        check("a path with a host", &|it| {
            it.path = "http://example.com/".to_owned()
        });
        check("no ASCII in the path", &|it| it.path = "/…".to_owned());
        check("a line end in a name", &|it| {
            it.fields[0] = field("a\r\nb", "c")
        });
        check("a line end in a value", &|it| {
            it.fields[0] = field("a", "b\r\nc: d")
        });
        check("a long head", &|it| {
            it.fields[0] = field("a", &"b".repeat(64 << 10))
        });
        check("a long body", &|it| {
            it.body = Some("b".repeat((1 << 20) + 1))
        });
    }

    #[test]
    fn the_status_is_that_of_the_final_response() {
        let read = |text: &str| read_status(&mut text.as_bytes()).ok();
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(
            read("HTTP/1.1 103 Hints\r\na: b\r\n\r\nHTTP/1.1 404 x\r\n"),
            Some(404)
        );
        for text in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 1",
            "HTTP/1.1 100 x\r\n",
            "hello\r\n",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
