//! The page's HTTP server: a thread for each connection, one request after the other.
//!
//! One person's browser opens a handful of connections, and what they ask for reads files and asks the machine, which
//! blocks. Threads keep one slow question from holding up another, and nothing else has to know of it. How requests are
//! read is decided where every request of this program is (`http`): heads, framing, hosts and origins.
//!
//! Who may ask: the files of the page are no secret. Everything else wants the token; a browser that says where a
//! question comes from (`Origin` and `Sec-Fetch-Site`, which no script can set) has to say a page of this very server; and
//! changes want `POST` and a JSON document. All this is in the head, so nothing of a body is read before.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::context::RegistryHandle;
use crate::http::connection::ConnectionOptions;
use crate::http::framing::{self, Framing};
use crate::http::guard::Guard;
use crate::http::head::{self, RequestHead, Slots, Version};
use crate::http::reply::{self, ReplyOptions};
use crate::http::target::Target;
use crate::http::{Error, Parsed};

use super::assets::Asset;
use super::changes::Desk;
use super::seats::Seats;
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
    seats: Seats,
}

impl Site {
    /// A site with secrets of its own.
    ///
    /// # Errors
    ///
    /// There are no random bytes to be had.
    pub fn new(place: RegistryHandle, feeds: Option<PathBuf>) -> io::Result<Site> {
        Ok(Site {
            key: Key::new()?,
            desk: Desk::new(place),
            feeds,
            seats: Seats::default(),
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
    /// A connection, for as long as it is there.
    struct Seated(Arc<Site>, u64);
    impl Drop for Seated {
        fn drop(&mut self) {
            self.0.seats.leave(self.1);
        }
    }
    let Some(id) = site.seats.take(&stream) else {
        return;
    };
    let seated = Seated(Arc::clone(site), id);
    let serve = move || {
        // A client that leaves needs no farewell.
        let _ = serve(stream, &seated.0, seated.1);
    };
    // Without a thread the connection is closed, and the browser tries again.
    let _ = thread::Builder::new().name("page".to_owned()).spawn(serve);
}

fn serve(stream: TcpStream, site: &Arc<Site>, id: u64) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(WRITE_TIME_MAX))?;
    let mut connection = Connection {
        stream,
        bytes: Vec::new(),
    };
    loop {
        site.seats.rest(id);
        let request = match connection.request()? {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => return connection.refuse(&Answer::mistake(error), false),
        };
        let is_head = request.method == "HEAD";
        let question = match site.admit(&request) {
            Ok(question) => question,
            Err(refusal) if request.length == Some(0) && request.persists => {
                connection.answer(&refusal, is_head, true)?;
                continue;
            }
            Err(refusal) => return connection.refuse(&refusal, is_head),
        };
        if question.is_privileged() {
            site.seats.serve(id);
        }
        let Some(body) = connection.body(&request)? else {
            return Ok(());
        };
        let answer = match question {
            Question::Asset(asset) => Answer::asset(asset),
            Question::Session => api::session(site, &body),
            Question::Live => return live::stream(connection.stream, site),
            Question::Read(name) => api::read(site, name, &request.query),
            Question::Change(name) => api::change(site, name, &body),
        };
        connection.answer(&answer, is_head, request.persists)?;
        if !request.persists {
            return Ok(());
        }
    }
}

/// What a request asks for, by somebody who may.
enum Question<'a> {
    /// A file of the page.
    Asset(&'static Asset),
    /// The token, for a code.
    Session,
    /// Everything that happens, from now on.
    Live,
    Read(&'a str),
    Change(&'a str),
}

impl Question<'_> {
    /// Whether only somebody with the token can ask it.
    fn is_privileged(&self) -> bool {
        match self {
            Question::Asset(_) | Question::Session => false,
            Question::Live | Question::Read(_) | Question::Change(_) => true,
        }
    }

    /// The largest body that comes with it.
    fn body_bytes_max(&self) -> u64 {
        match self {
            Question::Asset(_) | Question::Live | Question::Read(_) => 0,
            Question::Session => SESSION_BYTES_MAX,
            Question::Change("import") => IMPORT_BYTES_MAX,
            Question::Change(_) => CHANGE_BYTES_MAX,
        }
    }
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

    /// It is no HTTP, or meant for somebody else.
    fn mistake(error: Error) -> Answer {
        let reply = error.reply();
        let message = match error {
            // What the interceptor says of these names options that this command does not have.
            Error::HostForeign => {
                "the Host field names another machine; open the address that `ic ui` printed"
            }
            Error::OriginForeign => "only the page itself may ask this",
            _ => &reply.message,
        };
        Answer::refusal(reply.status, message)
    }

    fn bytes(&self, manner: ReplyOptions) -> Vec<u8> {
        let mut out = Vec::new();
        let coding = if self.is_packed { assets::CODING } else { "" };
        let fields = format!("{}{coding}", assets::FIELDS);
        let (status, content_type) = (self.status, self.content_type);
        reply::document(status, content_type, &fields, &self.body, manner, &mut out);
        out
    }
}

impl Site {
    /// What is asked, if whoever asks it may; else why not.
    fn admit<'a>(&self, request: &'a Request) -> Result<Question<'a>, Answer> {
        let question = self.question(request)?;
        let fits = |length| length <= question.body_bytes_max();
        match question {
            _ if request.length.is_some_and(fits) => Ok(question),
            Question::Change("import") => Err(Answer::refusal(
                413,
                "the file is over 48 MiB, or its length is not told; use `ic import`",
            )),
            _ => Err(Answer::refusal(
                413,
                "the body is larger than any that is expected here, or its length is not told",
            )),
        }
    }

    fn question<'a>(&self, request: &'a Request) -> Result<Question<'a>, Answer> {
        let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(asset) = assets::at(&request.path) {
            return if is_read {
                Ok(Question::Asset(asset))
            } else {
                Err(Answer::refusal(405, "a file of the page is only read"))
            };
        }
        let Some(name) = request.path.strip_prefix("/api/") else {
            return Err(Answer::refusal(404, "there is nothing here"));
        };
        if !request.is_of_page {
            return Err(Answer::refusal(403, "only the page itself may ask this"));
        }
        let is_change = request.method == "POST";
        if is_change && !request.is_json {
            return Err(Answer::refusal(415, "send a JSON document"));
        }
        // Whoever has no token yet asks for it.
        if is_change && name == "session" {
            return Ok(Question::Session);
        }
        let token = request.token.as_deref().unwrap_or_default();
        if !self.key.token().is(token) {
            return Err(Answer::refusal(
                401,
                "the token is missing or old; open the address that `ic ui` printed",
            ));
        }
        match (request.method.as_str(), name) {
            ("GET", "live") => Ok(Question::Live),
            ("GET", name) => Ok(Question::Read(name)),
            ("POST", name) => Ok(Question::Change(name)),
            _ => Err(Answer::refusal(405, "ask by GET or POST")),
        }
    }
}

/// The head of a request.
struct Request {
    method: String,
    path: String,
    query: String,
    token: Option<Vec<u8>>,
    is_json: bool,
    /// As far as the browser tells.
    is_of_page: bool,
    persists: bool,
    /// The body's; `None` where it is not told. Browsers tell.
    length: Option<u64>,
}

struct Connection {
    stream: TcpStream,
    /// Read and not yet used.
    bytes: Vec<u8>,
}

impl Connection {
    /// The head of the next request; `None` where there is no more.
    fn request(&mut self) -> io::Result<Result<Option<Request>, Error>> {
        let mut deadline = Instant::now() + IDLE_TIME_MAX;
        loop {
            match self.take_head() {
                Ok(Parsed::Complete(request)) => return Ok(Ok(Some(request))),
                Ok(Parsed::Partial) => {}
                Err(error) => return Ok(Err(error)),
            }
            if !self.bytes.is_empty() {
                deadline = deadline.min(Instant::now() + REQUEST_TIME_MAX);
            }
            if self.fill(deadline)? == 0 {
                return Ok(Ok(None));
            }
        }
    }

    /// The head that the bytes begin with.
    fn take_head(&mut self) -> Result<Parsed<Request>, Error> {
        let mut slots = Slots::new();
        let Parsed::Complete(head) = head::request(&self.bytes, &mut slots)? else {
            return Ok(Parsed::Partial);
        };
        let target = Target::parse(head.method, head.target)?;
        GUARD.check(&head, &target)?;
        let length = match framing::of_request(&head)? {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let (path, query) = target.path().split_once('?').unwrap_or((target.path(), ""));
        let request = Request {
            method: head.method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            token: value(&head, "X-Ic-Token").map(<[u8]>::to_vec),
            is_json: value(&head, "Content-Type").is_some_and(is_json),
            is_of_page: is_of_page(&head),
            persists: ConnectionOptions::parse(head.fields)?.is_persistent(head.version)
                && head.version == Version::Http11,
            length,
        };
        let used = head.len;
        self.bytes.drain(..used);
        Ok(Parsed::Complete(request))
    }

    /// The body of an admitted request; `None` where its client leaves before the end.
    fn body(&mut self, request: &Request) -> io::Result<Option<Vec<u8>>> {
        // One that is not told has not been admitted.
        let length = request.length.unwrap_or_default() as usize;
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        while self.bytes.len() < length {
            if self.fill(deadline)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.bytes.drain(..length).collect()))
    }

    fn answer(&mut self, answer: &Answer, head_only: bool, persists: bool) -> io::Result<()> {
        let close = !persists;
        self.stream
            .write_all(&answer.bytes(ReplyOptions { head_only, close }))
    }

    /// Answers a request whose body nobody reads, and closes the connection.
    fn refuse(&mut self, refusal: &Answer, head_only: bool) -> io::Result<()> {
        self.answer(refusal, head_only, false)?;
        self.stream.shutdown(Shutdown::Write)?;
        // Closed with something unread, the connection would be reset, and the answer might never be seen
        // (RFC 9112 §9.6).
        let deadline = Instant::now() + FAREWELL_TIME_MAX;
        while Instant::now() < deadline {
            self.bytes.clear();
            if self.fill(deadline)? == 0 {
                break;
            }
        }
        Ok(())
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

/// Between requests; browsers give up earlier.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// For a whole head, and for a whole body.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// For a browser that takes nothing.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// For a client to take its refusal.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// An import of the largest registry, as JSON.
const IMPORT_BYTES_MAX: u64 = 48 << 20;

/// Two of the longest paths, each byte of them as an escape of JSON's (`\u0000ff`).
const CHANGE_BYTES_MAX: u64 = 64 << 10;

/// A code, which is a fraction of that.
const SESSION_BYTES_MAX: u64 = 1 << 10;

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
