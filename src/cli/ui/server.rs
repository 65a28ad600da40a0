//! The page's HTTP server: a thread for each connection, one request after the other.
//!
//! One person's browser opens a handful of connections, and what they ask for reads files and asks the machine, which
//! blocks. Threads keep one slow question from holding up another, and nothing else has to know of it. How requests are
//! read is decided where every request of this program is (`http`): heads, framing, hosts and origins.
//!
//! Who may ask: the files of the page are no secret. Everything else wants the token, from a page of this very server
//! (`Origin` and `Sec-Fetch-Site`, which no script can set), and changes want `POST` and a JSON document.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::place::Place;
use crate::http::connection::Options;
use crate::http::framing::{self, Framing};
use crate::http::guard::Guard;
use crate::http::head::{self, RequestHead, Slots, Version};
use crate::http::reply::{self, Manner, Reply, Retry};
use crate::http::target::Target;
use crate::http::{Error, Parsed};

use super::assets::Asset;
use super::changes::Desk;
use super::token::Key;
use super::{api, assets, live};

/// What all connections share.
pub struct Site {
    /// Who may ask.
    pub key: Key,
    /// Where changes are made.
    pub desk: Desk,
    /// Where interceptors have the sockets of their feeds; none where there is no place for it.
    pub feeds: Option<PathBuf>,
    connections: AtomicUsize,
}

impl Site {
    /// A site with secrets of its own.
    ///
    /// # Errors
    ///
    /// There are no random bytes to be had.
    pub fn new(place: Place, feeds: Option<PathBuf>) -> io::Result<Site> {
        Ok(Site {
            key: Key::new()?,
            desk: Desk::new(place),
            feeds,
            connections: AtomicUsize::new(0),
        })
    }
}

/// Accepts and answers from now on, for as long as the process runs.
///
/// # Errors
///
/// There is no thread to be had.
pub fn listen(listener: TcpListener, site: &Arc<Site>) -> io::Result<()> {
    let site = Arc::clone(site);
    let accept = move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => take(stream, &site),
                // Its client's failure, or one that passes.
                Err(_) => thread::sleep(PAUSE),
            }
        }
    };
    thread::Builder::new()
        .name("listener".to_owned())
        .spawn(accept)
        .map(drop)
}

fn take(stream: TcpStream, site: &Arc<Site>) {
    /// Counts a connection for as long as it is there.
    struct Counted(Arc<Site>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
    site.connections.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(Arc::clone(site));
    if site.connections.load(Ordering::Relaxed) > CONNECTIONS_MAX {
        return;
    }
    let serve = move || {
        // A client that leaves needs no farewell.
        let _ = serve(stream, &counted.0);
    };
    // Without a thread the connection is closed, and the browser tries again.
    let _ = thread::Builder::new().name("page".to_owned()).spawn(serve);
}

fn serve(stream: TcpStream, site: &Arc<Site>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(WRITE_TIME_MAX))?;
    let mut connection = Connection {
        stream,
        bytes: Vec::new(),
    };
    loop {
        let request = match connection.request()? {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(refusal) => return connection.stream.write_all(&refusal.bytes()),
        };
        let answer = match site.answer(&request) {
            Outcome::Answer(answer) => answer,
            Outcome::Live => return live::stream(connection.stream, site),
        };
        connection.stream.write_all(&answer.bytes(&request))?;
        if !request.persists {
            return Ok(());
        }
    }
}

/// What is done about a request.
enum Outcome {
    Answer(Answer),
    /// Everything that happens, from now on.
    Live,
}

/// An answer to the page.
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: Cow<'static, [u8]>,
    is_packed: bool,
}

impl Answer {
    /// A document.
    pub fn json(status: u16, body: &impl serde::Serialize) -> Answer {
        let body = serde_json::to_vec(body).unwrap_or_default();
        Answer {
            status,
            content_type: "application/json",
            body: body.into(),
            is_packed: false,
        }
    }

    /// Why not, in a line for a person.
    pub fn refusal(status: u16, message: impl Into<String>) -> Answer {
        Answer::json(status, &serde_json::json!({ "error": message.into() }))
    }

    /// A file.
    pub fn file(content_type: &'static str, body: Vec<u8>) -> Answer {
        Answer {
            status: 200,
            content_type,
            body: body.into(),
            is_packed: false,
        }
    }

    fn asset(asset: &'static Asset) -> Answer {
        Answer {
            status: 200,
            content_type: asset.content_type,
            body: asset.packed.into(),
            is_packed: true,
        }
    }

    fn bytes(&self, request: &Request) -> Vec<u8> {
        let mut out = Vec::new();
        let manner = Manner {
            head_only: request.method == "HEAD",
            close: !request.persists,
        };
        let coding = if self.is_packed { assets::CODING } else { "" };
        let fields = format!("{}{coding}", assets::FIELDS);
        let (status, content_type) = (self.status, self.content_type);
        reply::document(status, content_type, &fields, &self.body, manner, &mut out);
        out
    }
}

impl Site {
    fn answer(self: &Arc<Site>, request: &Request) -> Outcome {
        let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(asset) = assets::at(&request.path) {
            return Outcome::Answer(if is_read {
                Answer::asset(asset)
            } else {
                Answer::refusal(405, "a file of the page is only read")
            });
        }
        let Some(name) = request.path.strip_prefix("/api/") else {
            return Outcome::Answer(Answer::refusal(404, "there is nothing here"));
        };
        if !request.is_of_page {
            return Outcome::Answer(Answer::refusal(403, "only the page itself may ask this"));
        }
        let is_change = request.method == "POST";
        if is_change && !request.is_json {
            return Outcome::Answer(Answer::refusal(415, "send a JSON document"));
        }
        // Whoever has no token yet asks for it.
        if is_change && name == "session" {
            return Outcome::Answer(api::session(self, &request.body));
        }
        let token = request.token.as_deref().unwrap_or_default();
        if !self.key.token().is(token) {
            return Outcome::Answer(Answer::refusal(
                401,
                "the token is missing or old; open the address that `ic ui` printed",
            ));
        }
        match (request.method.as_str(), name) {
            ("GET", "live") => Outcome::Live,
            ("GET", name) => Outcome::Answer(api::read(self, name, &request.query)),
            ("POST", name) => Outcome::Answer(api::change(self, name, &request.body)),
            _ => Outcome::Answer(Answer::refusal(405, "ask by GET or POST")),
        }
    }
}

/// A request of the page's.
struct Request {
    method: String,
    path: String,
    query: String,
    token: Option<Vec<u8>>,
    is_json: bool,
    /// As far as the browser tells.
    is_of_page: bool,
    persists: bool,
    body: Vec<u8>,
}

/// Why a request is not read.
enum Refusal {
    /// It is no HTTP, or meant for somebody else.
    Mistake(Error),
    /// Its body is too large, or of unknown length.
    Body,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Mistake(error)
    }
}

impl Refusal {
    fn bytes(&self) -> Vec<u8> {
        let reply = match self {
            Refusal::Mistake(error) => Reply::refusal(*error),
            Refusal::Body => Reply {
                status: 413,
                code: "body_too_large",
                message: "the body is over 48 MiB, or its length is not told; use `ic import`",
                retry: Retry::Never,
            },
        };
        let mut out = Vec::new();
        let manner = Manner {
            head_only: false,
            close: true,
        };
        reply.write("ui", manner, &mut out);
        out
    }
}

struct Connection {
    stream: TcpStream,
    /// Read and not yet used.
    bytes: Vec<u8>,
}

impl Connection {
    /// The next request; `None` where there is no more.
    fn request(&mut self) -> io::Result<Result<Option<Request>, Refusal>> {
        let mut deadline = Instant::now() + IDLE_TIME_MAX;
        let (mut request, length) = loop {
            match self.take_head() {
                Ok(Parsed::Complete(head)) => break head,
                Ok(Parsed::Partial) => {}
                Err(error) => return Ok(Err(error)),
            }
            if !self.bytes.is_empty() {
                deadline = deadline.min(Instant::now() + REQUEST_TIME_MAX);
            }
            if self.fill(deadline)? == 0 {
                return Ok(Ok(None));
            }
        };
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        while self.bytes.len() < length {
            if self.fill(deadline)? == 0 {
                return Ok(Ok(None));
            }
        }
        request.body = self.bytes.drain(..length).collect();
        Ok(Ok(Some(request)))
    }

    /// The head that the bytes begin with, and how long the body behind it is.
    fn take_head(&mut self) -> Result<Parsed<(Request, usize)>, Refusal> {
        let mut slots = Slots::new();
        let Parsed::Complete(head) = head::request(&self.bytes, &mut slots)? else {
            return Ok(Parsed::Partial);
        };
        let target = Target::parse(head.method, head.target)?;
        GUARD.admit(&head, &target)?;
        let length = match framing::of_request(&head)? {
            Framing::Empty => 0,
            Framing::Length(length) if length <= BODY_BYTES_MAX => length as usize,
            // Browsers say how much they send.
            _ => return Err(Refusal::Body),
        };
        let (path, query) = target.path().split_once('?').unwrap_or((target.path(), ""));
        let request = Request {
            method: head.method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            token: value(&head, "X-Ic-Token").map(<[u8]>::to_vec),
            is_json: value(&head, "Content-Type").is_some_and(is_json),
            is_of_page: is_of_page(&head),
            persists: Options::of(head.fields)?.persists(head.version)
                && head.version == Version::Http11,
            body: Vec::new(),
        };
        let used = head.len;
        self.bytes.drain(..used);
        Ok(Parsed::Complete((request, length)))
    }

    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        // None would be for ever.
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    self.bytes.extend_from_slice(&piece[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn value<'b>(head: &RequestHead<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let mut fields = head.fields.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
    Some(field.value)
}

fn is_json(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next();
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

/// Whether the question comes from a page of this server, as far as the browser says where it comes from. That the host is
/// this machine has been seen by then.
fn is_of_page(head: &RequestHead<'_, '_>) -> bool {
    let host = value(head, "Host").unwrap_or_default();
    let is_own = |origin: &[u8]| {
        origin
            .strip_prefix(b"http://")
            .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let all = |name: &str, is_good: &dyn Fn(&[u8]) -> bool| {
        head.fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .all(|field| is_good(field.value))
    };
    all("Origin", &is_own) && all("Sec-Fetch-Site", &|site| site == b"same-origin")
}

/// Only this machine is served, whatever a name server says.
const GUARD: Guard = Guard {
    local_hosts_only: true,
    allowed_hosts: Vec::new(),
    allowed_origins: Vec::new(),
};

/// A browser has six for a page and may have a few pages.
const CONNECTIONS_MAX: usize = 64;

/// Between requests; browsers give up earlier.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// For a whole head, and for a whole body.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// For a browser that takes nothing.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// The largest body: an import of the largest registry, as JSON.
const BODY_BYTES_MAX: u64 = 48 << 20;

/// Long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_itself_may_ask() {
        #[track_caller]
        fn check(fields: &str, expected: bool) {
            let text = format!("GET / HTTP/1.1\r\nHost: localhost:8887\r\n{fields}\r\n");
            let mut slots = Slots::new();
            let Ok(Parsed::Complete(head)) = head::request(text.as_bytes(), &mut slots) else {
                panic!("{text}");
            };
            assert_eq!(is_of_page(&head), expected, "{fields}");
        }
        check("", true);
        check("Origin: http://localhost:8887\r\n", true);
        check(
            "Origin: http://localhost:8887\r\nSec-Fetch-Site: same-origin\r\n",
            true,
        );
        check("Origin: http://localhost:8888\r\n", false);
        check("Origin: https://localhost:8887\r\n", false);
        check("Origin: http://127.0.0.1:8887\r\n", false);
        check("Origin: null\r\n", false);
        check("Origin: http://localhost:8887\r\nOrigin: null\r\n", false);
        check("Sec-Fetch-Site: same-site\r\n", false);
        check("Sec-Fetch-Site: cross-site\r\n", false);
        check("Sec-Fetch-Site: none\r\n", false);
    }

    #[test]
    fn a_change_is_a_json_document() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/json-patch", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind.as_bytes()), expected, "{kind}");
        }
    }
}
