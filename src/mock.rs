//! A small OpenAI-compatible upstream, for trying out and for CI: no model, no key, no network.
//!
//! Decided here: how a request is read, and when the events of a stream are sent. `answers` decides the content. Equal
//! requests get equal responses. A response repeats the identification fields of its request, to show whether they arrive.

mod answers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use self::answers::{Answer, Request};
use crate::http::framing::Framing;
use crate::http::head::RequestHead;
use crate::http::target::Target;
use crate::httpd::{self, Handler, Response, ResponseBody};
use crate::serve::listen;

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

    /// Answers until a listener fails; returns that error. `interval` is the time between two events of a stream.
    pub fn run(self, interval: Duration) -> io::Error {
        httpd::run(self.listeners, Arc::new(Mock { interval }))
    }
}

struct Mock {
    interval: Duration,
}

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
        let path = target.path().split('?').next().unwrap_or_default();
        Ok(Request {
            method: head.method.to_owned(),
            path: path.to_owned(),
            identification: answers::IDENTIFICATION.map(value),
            body: Vec::new(),
        })
    }

    fn is_trusted(&self, _: &Request) -> bool {
        true
    }

    fn respond(self: &Arc<Self>, request: Request, body: Vec<u8>) -> Response {
        let answer = answers::answer(&Request { body, ..request });
        response(answer, self.interval)
    }

    fn error(&self, status: u16, message: &str) -> Response {
        response(Answer::error(status, message), Duration::ZERO)
    }
}

fn response(answer: Answer, interval: Duration) -> Response {
    match answer {
        Answer::Document { status, body } => Response {
            status,
            content_type: "application/json",
            fields: "".into(),
            body: ResponseBody::Bytes(body.into_bytes().into()),
        },
        Answer::Events(events) => Response {
            status: 200,
            content_type: "text/event-stream",
            fields: "Cache-Control: no-cache\r\n".into(),
            body: ResponseBody::Stream(Box::new(move |writer| {
                for (index, event) in events.iter().enumerate() {
                    if index > 0 {
                        thread::sleep(interval);
                    }
                    writer.write(event.as_bytes())?;
                }
                Ok(())
            })),
        },
    }
}
