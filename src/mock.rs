//! A small upstream, for trying out and for CI, that speaks what agents speak: no model, no key, no network.
//!
//! Decided here: how a request is read, and when the pieces of a response are sent. `routes` chooses the API, each of which is a
//! file; `prompt` decides what is replied, whatever the API. Equal requests get equal responses. A response repeats the
//! identification fields of its request, to show whether they arrive.

mod routes;

mod chat;
mod embeddings;
mod gemini;
mod messages;
mod responses;

mod prompt;
mod schema;

mod answer;
mod refusal;
mod request;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use self::answer::Answer;
use self::refusal::{Api, Refusal};
use self::request::{IDENTIFICATION, Request};
use crate::http::framing::Framing;
use crate::http::head::RequestHead;
use crate::http::target::Target;
use crate::httpd::{self, Handler, Response, ResponseBody};
use crate::serve::listen;

/// How the mock answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The time before a response.
    pub delay: Duration,
    /// The time between two events of a stream.
    pub interval: Duration,
    /// The status of the error that answers every request but `/health`.
    pub fail: Option<u16>,
}

/// A mock that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Listens on those of the addresses that this machine has.
    ///
    /// # Errors
    ///
    /// One of them is in use, or the machine has none.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let listeners = listen::bind_all(addresses).map_err(|(_, error)| error)?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<_>>()?;
        Ok(Server {
            listeners,
            addresses,
        })
    }

    /// Where it listens; never empty.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until a listener fails; returns that error.
    pub fn run(self, options: Options) -> io::Error {
        httpd::run(self.listeners, Arc::new(Mock(options)))
    }
}

struct Mock(Options);

impl Handler for Mock {
    type Route = Request;

    const CONNECTIONS_MAX: usize = 1024;

    // A chat with pictures takes some MiB.
    const BODY_MIB_MAX: usize = 64;

    fn route(
        &self,
        head: &RequestHead<'_, '_>,
        target: &Target<'_>,
        _: Framing,
    ) -> Result<Request, Response> {
        let value = |name: &str| {
            httpd::field(head, name).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let (path, query) = target.path().split_once('?').unwrap_or((target.path(), ""));
        let protocol = value("Upgrade").unwrap_or_default();
        Ok(Request {
            method: head.method.to_owned(),
            // Some clients encode the colon before a method of Gemini.
            path: path.replace("%3A", ":"),
            query: query.to_owned(),
            identification: IDENTIFICATION.map(value),
            api: API_FIELDS
                .iter()
                .find_map(|(name, api)| value(name).map(|_| *api)),
            is_websocket: protocol.eq_ignore_ascii_case("websocket"),
            body: Vec::new(),
        })
    }

    fn is_trusted(&self, _: &Request) -> bool {
        true
    }

    fn respond(self: &Arc<Self>, request: Request, body: Vec<u8>) -> Response {
        let request = Request { body, ..request };
        let answer = routes::answer(&request, self.0.fail);
        if !routes::is_health(&request.path) {
            thread::sleep(self.0.delay);
        }
        response(answer, self.0.interval)
    }

    fn error(&self, request: Option<&Request>, status: u16, message: &str) -> Response {
        let api = request.map_or(Api::OpenAi, Request::api);
        response(Refusal::new(status, message).answer(api), Duration::ZERO)
    }
}

/// The fields by which the APIs that share paths are told apart.
const API_FIELDS: [(&str, Api); 3] = [
    ("anthropic-version", Api::Anthropic),
    ("x-goog-api-client", Api::Gemini),
    ("x-goog-api-key", Api::Gemini),
];

fn response(answer: Answer, interval: Duration) -> Response {
    match answer {
        Answer::Document {
            status,
            fields,
            body,
        } => Response {
            status,
            content_type: "application/json",
            fields: fields.into(),
            body: ResponseBody::Bytes(body.into_bytes().into()),
        },
        Answer::Stream {
            content_type,
            pieces,
        } => Response {
            status: 200,
            content_type,
            fields: "Cache-Control: no-cache\r\n".into(),
            body: ResponseBody::Stream(Box::new(move |writer| {
                for (index, piece) in pieces.iter().enumerate() {
                    if index > 0 {
                        thread::sleep(interval);
                    }
                    writer.write(piece.as_bytes())?;
                }
                Ok(())
            })),
        },
    }
}
