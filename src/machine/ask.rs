//! One request, and when which part of its answer arrived. A client as plain as can be: its own doings cannot be what
//! holds a stream back.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::http::Parsed;
use crate::http::head::{self, Slots};
use crate::serve::Endpoint;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Its status.
    pub status: u16,
    /// What the server calls itself.
    pub server: Option<String>,
    /// What is in the body.
    pub content_type: String,
    /// Of an answer in the name of `ic`: which error it is.
    pub ic_error: Option<String>,
    /// The body, with the framing that it came in.
    pub body: Vec<u8>,
    /// When a part with events arrived, from the end of the request on, and how many were in it.
    pub arrivals: Vec<(Duration, usize)>,
}

impl Heard {
    /// The JSON document in the body, if there is one: its framing can only stand before and behind it.
    pub fn json(&self) -> Option<serde_json::Value> {
        let start = self.body.iter().position(|&byte| byte == b'{')?;
        let mut documents = serde_json::Deserializer::from_slice(&self.body[start..]).into_iter();
        documents.next()?.ok()
    }

    /// Whether it is a stream of events.
    pub fn is_stream(&self) -> bool {
        self.status == 200 && self.content_type.starts_with("text/event-stream")
    }
}

/// A request that is to be sent.
pub struct Question<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its target: path and query.
    pub path: &'a str,
    /// The value of `Host`.
    pub host: &'a str,
    /// For `Authorization`.
    pub key: Option<&'a str>,
    /// JSON.
    pub body: Option<String>,
}

/// Asks, and listens until the answer is over or `patience` is.
pub fn ask(place: &Endpoint, question: &Question<'_>, patience: Duration) -> io::Result<Heard> {
    let deadline = Instant::now() + patience;
    match place {
        Endpoint::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port))?;
            stream.set_nodelay(true)?;
            exchange(
                &stream,
                question,
                |left| stream.set_read_timeout(Some(left)),
                deadline,
            )
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            exchange(
                &stream,
                question,
                |left| stream.set_read_timeout(Some(left)),
                deadline,
            )
        }
    }
}

fn exchange<S: Copy + Read + Write>(
    mut stream: S,
    question: &Question<'_>,
    wait: impl Fn(Duration) -> io::Result<()>,
    deadline: Instant,
) -> io::Result<Heard> {
    stream.write_all(written(question).as_bytes())?;
    let sent = Instant::now();
    let mut answer = Vec::new();
    let mut heard: Option<Heard> = None;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        wait(left)?;
        let read = match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_late(&error) => break,
            // What came before the cut still counts.
            Err(_) if heard.is_some() => break,
            Err(error) => return Err(error),
        };
        let at = sent.elapsed();
        let part = match &mut heard {
            Some(heard) => {
                heard.body.extend_from_slice(&piece[..read]);
                &piece[..read]
            }
            None => {
                answer.extend_from_slice(&piece[..read]);
                heard = head_of(&answer)?;
                match &heard {
                    Some(heard) => &heard.body,
                    None => continue,
                }
            }
        };
        let events = part
            .windows(EVENT.len())
            .filter(|window| *window == EVENT)
            .count();
        if let Some(heard) = &mut heard {
            if events > 0 {
                heard.arrivals.push((at, events));
            }
            if heard.body.len() > ANSWER_LENGTH_MAX
                || heard
                    .body
                    .windows(DONE.len())
                    .rev()
                    .take(64)
                    .any(|end| end == DONE)
            {
                break;
            }
        }
    }
    heard.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Its last chunk is waited for no longer than this.
fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn written(question: &Question<'_>) -> String {
    let Question {
        method,
        path,
        host,
        key,
        body,
    } = question;
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ic-doctor\r\nAccept: */*\r\nConnection: close\r\n"
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

/// The answer so far, once its head is there; not of interim answers, which come before it.
fn head_of(mut answer: &[u8]) -> io::Result<Option<Heard>> {
    loop {
        let mut slots = Slots::new();
        let head = match head::response(answer, &mut slots) {
            Ok(Parsed::Complete(head)) => head,
            Ok(Parsed::Partial) => return Ok(None),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.explain())),
        };
        if head.status < 200 {
            answer = &answer[head.len..];
            continue;
        }
        let field = |name: &str| {
            let field = head
                .fields
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8_lossy(field.value).trim().to_owned())
        };
        return Ok(Some(Heard {
            status: head.status,
            server: field("server"),
            content_type: field("content-type").unwrap_or_default(),
            ic_error: field("x-ic-error"),
            body: answer[head.len..].to_vec(),
            arrivals: Vec::new(),
        }));
    }
}

const EVENT: &[u8] = b"data:";
const DONE: &[u8] = b"[DONE]";

/// Lists of models can be long; somebody else's server may never end.
const ANSWER_LENGTH_MAX: usize = 16 * 1024 * 1024;
