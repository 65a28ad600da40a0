//! A small OpenAI-compatible upstream, for trying out and for CI: no model, no key, no network.
//!
//! Decided here: connections, requests, and when the events of a stream leave. What is answered is in
//! `answers`. Equal requests get equal answers, and the identification fields that a request carried are part
//! of its answer, so that a first look shows whether the way there works.

mod answers;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;

use self::answers::{Answer, Question};
use crate::http::body::Body;
use crate::http::chunked::Piece;
use crate::http::connection::ConnectionOptions;
use crate::http::framing::{self, Framing};
use crate::http::head::{self, Slots, Version};
use crate::http::reply::{self, ReplyOptions};
use crate::http::target::Target;
use crate::http::{Error, Parsed};
use crate::serve::conn::{Client, Conn, Filled, Stream};
use crate::serve::listen;
use crate::serve::reactor::{self, Source, Timer};

/// How the mock answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The time between two events of a stream.
    pub interval: Duration,
}

/// A mock that listens and does not yet answer.
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
    /// One of them is taken, or the machine has none.
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

    /// Answers until a listener breaks; says how.
    pub fn run(self, settings: Settings) -> io::Error {
        let executor = Rc::new(LocalExecutor::new());
        let accept_all = |listener: TcpListener| {
            let executor = Rc::clone(&executor);
            async move {
                let listener = match Source::listening(listener) {
                    Ok(listener) => listener,
                    Err(error) => return error,
                };
                loop {
                    match listen::accept_tcp(&listener).await {
                        Ok(stream) => executor.spawn(serve(stream, settings)).detach(),
                        Err(error) => return error,
                    }
                }
            }
        };
        let mut acceptors = self
            .listeners
            .into_iter()
            .map(accept_all)
            .map(|task| executor.spawn(task));
        let first = acceptors.next();
        let others: Vec<_> = acceptors.collect();
        let result = reactor::block_on(executor.run(async move {
            match first {
                Some(first) => first.await,
                None => io::ErrorKind::AddrNotAvailable.into(),
            }
        }));
        drop(others);
        result.unwrap_or_else(|error| error)
    }
}

/// Answers the requests of one connection, one after the other.
async fn serve(client: TcpStream, settings: Settings) {
    let Ok(stream) = Stream::accepted(Client::Tcp(client)) else {
        return;
    };
    let mut wire = Conn::new(stream);
    // A client that leaves needs no farewell.
    while let Ok(true) = exchange(&mut wire, settings).await {}
    wire.writer().finish().await;
}

/// The connection cannot go on.
struct Lost;

/// What a request's head said, apart from the question itself.
struct Asked {
    framing: Framing,
    version: Version,
    head_only: bool,
    persists: bool,
    awaits_continue: bool,
    question: Question,
}

/// Answers one request; says whether another may follow.
async fn exchange(wire: &mut Conn, settings: Settings) -> Result<bool, Lost> {
    let mut asked = match read_head(wire).await? {
        Ok(asked) => asked,
        Err(error) => {
            refuse(wire, error).await?;
            return Ok(false);
        }
    };
    if asked.awaits_continue && asked.framing != Framing::Empty {
        write(wire, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    match read_body(wire, asked.framing).await? {
        Ok(Some(body)) => asked.question.body = body,
        Ok(None) => {
            let answer = Answer::error(413, "the request body is over 64 MiB; send less");
            document(
                wire,
                &answer,
                ReplyOptions {
                    head_only: asked.head_only,
                    close: true,
                },
            )
            .await?;
            return Ok(false);
        }
        Err(error) => {
            refuse(wire, error).await?;
            return Ok(false);
        }
    }
    let answer = answers::answer(&asked.question);
    let manner = ReplyOptions {
        head_only: asked.head_only,
        close: !asked.persists,
    };
    match &answer {
        Answer::Events(events) => {
            let in_chunks = asked.version == Version::Http11;
            stream(wire, events, in_chunks, asked.persists, settings).await?;
            return Ok(in_chunks && asked.persists);
        }
        Answer::Document { .. } => document(wire, &answer, manner).await?,
    }
    Ok(asked.persists)
}

async fn read_head(wire: &mut Conn) -> Result<Result<Asked, Error>, Lost> {
    let mut seen = 0;
    loop {
        let bytes = wire.bytes();
        let is_news = !bytes.is_empty()
            && (seen == 0 || head::may_end(bytes, seen) || wire.reader().is_full());
        let bytes = wire.bytes();
        seen = bytes.len();
        if is_news {
            match take_head(bytes) {
                Ok(Parsed::Complete((asked, len))) => {
                    wire.reader().consume(len);
                    return Ok(Ok(asked));
                }
                Ok(Parsed::Partial) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        fill(wire).await?;
    }
}

fn take_head(bytes: &[u8]) -> Result<Parsed<(Asked, usize)>, Error> {
    let mut slots = Slots::new();
    let Parsed::Complete(head) = head::request(bytes, &mut slots)? else {
        return Ok(Parsed::Partial);
    };
    let target = Target::parse(head.method, head.target)?;
    let value = |name: &str| {
        let field = head
            .fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| String::from_utf8_lossy(field.value).into_owned())
    };
    let question = Question {
        method: head.method.to_owned(),
        path: target
            .path()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned(),
        identification: answers::IDENTIFICATION.map(value),
        body: Vec::new(),
    };
    let asked = Asked {
        framing: framing::of_request(&head)?,
        version: head.version,
        head_only: head.method == "HEAD",
        persists: ConnectionOptions::parse(head.fields)?.is_persistent(head.version)
            && head.version == Version::Http11,
        awaits_continue: head.version == Version::Http11
            && value("Expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")),
        question,
    };
    Ok(Parsed::Complete((asked, head.len)))
}

/// Reads a body; `None` if it is too large.
async fn read_body(
    wire: &mut Conn,
    framing: Framing,
) -> Result<Result<Option<Vec<u8>>, Error>, Lost> {
    let mut body = Body::new(framing);
    let mut data = Vec::new();
    while !body.is_complete() {
        if wire.bytes().is_empty() {
            fill(wire).await?;
        }
        let used = match body.next(wire.bytes()) {
            Ok(Piece::Data(count)) => {
                data.extend_from_slice(&wire.bytes()[..count]);
                count
            }
            Ok(Piece::Framing(count)) => count,
            Ok(Piece::Trailers) => {
                match body.take_trailers(wire.bytes(), |_| false, &mut Vec::new()) {
                    Ok(Parsed::Complete(count)) => count,
                    Ok(Parsed::Partial) => {
                        fill(wire).await?;
                        0
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Piece::End) => 0,
            Err(error) => return Ok(Err(error)),
        };
        wire.reader().consume(used);
        if data.len() > BODY_BYTES_MAX {
            return Ok(Ok(None));
        }
    }
    Ok(Ok(Some(data)))
}

/// Sends events one by one, as a model would.
async fn stream(
    wire: &mut Conn,
    events: &[String],
    in_chunks: bool,
    persists: bool,
    settings: Settings,
) -> Result<(), Lost> {
    let framing = if in_chunks {
        "Transfer-Encoding: chunked\r\n"
    } else {
        ""
    };
    let connection = if in_chunks && persists {
        ""
    } else {
        "Connection: close\r\n"
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n{framing}{connection}\r\n"
    );
    write(wire, head.as_bytes()).await?;
    for (index, event) in events.iter().enumerate() {
        if index > 0 && !settings.interval.is_zero() {
            Timer::at(Instant::now() + settings.interval).await;
        }
        let chunk = if in_chunks {
            format!("{:x}\r\n{event}\r\n", event.len())
        } else {
            event.clone()
        };
        write(wire, chunk.as_bytes()).await?;
    }
    if in_chunks {
        write(wire, b"0\r\n\r\n").await?;
    }
    Ok(())
}

async fn document(wire: &mut Conn, answer: &Answer, manner: ReplyOptions) -> Result<(), Lost> {
    let Answer::Document { status, body } = answer else {
        return Ok(());
    };
    let mut out = Vec::new();
    reply::document(
        *status,
        "application/json",
        "",
        body.as_bytes(),
        manner,
        &mut out,
    );
    write(wire, &out).await
}

async fn refuse(wire: &mut Conn, error: Error) -> Result<(), Lost> {
    let mut out = Vec::new();
    error.reply().write(
        "mock",
        ReplyOptions {
            head_only: false,
            close: true,
        },
        &mut out,
    );
    write(wire, &out).await
}

async fn fill(wire: &mut Conn) -> Result<(), Lost> {
    match wire.reader().fill().await {
        Ok(Filled::Some) => Ok(()),
        Ok(Filled::EndOfFile) | Err(_) => Err(Lost),
    }
}

async fn write(wire: &mut Conn, bytes: &[u8]) -> Result<(), Lost> {
    wire.writer().write_all(bytes).await.map_err(|_| Lost)
}

/// The largest request body read; a chat with pictures takes some MiB.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
