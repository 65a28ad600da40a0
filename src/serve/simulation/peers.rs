//! The two ends: clients that send requests to the program under test, and the origin that answers them.
//!
//! Both follow plans that are made from the seed before they start. They read HTTP with a parser of their own, strict and slow, and
//! write down what they saw in the [`Journal`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use smol::future;

use super::network::{Network, Rng, Socket};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Nothing,
    Length,
    Chunked,
    UntilClose,
}

/// A request, and what its client does.
#[derive(Debug, Clone)]
pub struct RequestPlan {
    /// Its number, which is its path.
    pub id: u32,
    pub method: &'static str,
    pub framing: Framing,
    pub body_len: usize,
    pub is_last: bool,
    /// The client leaves after so many bytes of the request, or so many of the response.
    pub leaves_after_sent: Option<usize>,
    pub leaves_after_received: Option<usize>,
    /// It leaves by a reset.
    pub resets: bool,
    /// It is silent for so long after each piece.
    pub pause: Duration,
    /// It sends no more after the request (and says that this was the last one).
    pub half_closes: bool,
    /// It sends the body when it has been sent a 100, or after this time.
    pub continues_after: Option<Duration>,
    /// What the origin does, for each time that it is asked.
    pub answers: Vec<AnswerPlan>,
}

/// What the origin does with a request.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    pub interims: usize,
    /// It reads the body before it answers.
    pub reads_first: bool,
    pub status: u16,
    pub framing: Framing,
    pub body_len: usize,
    pub pause: Duration,
    pub fault: Option<Fault>,
    /// It closes the connection behind the answer, and has said so.
    pub closes: bool,
    /// It closes the kept connection after this time, without having said so.
    pub closes_idle_after: Option<Duration>,
}

/// What goes wrong at the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It closes after so many bytes of the response.
    Closes(usize),
    Resets(usize),
    Stalls(usize),
    /// It sends something that is not HTTP.
    Babbles,
}

/// What was seen of a request at the origin.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub has_identity: bool,
    pub body: Vec<u8>,
    pub is_whole: bool,
    /// When the connection ended on which it sends nothing more.
    pub ended_at: Option<Duration>,
}

/// How an answer ended for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Whole,
    /// By the end of the connection, or by a failure of it, before its framing says so.
    Cut,
    /// The client left.
    Left,
}

/// What a client was sent.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The number that an answer of the origin bears.
    pub id: Option<u32>,
    pub body: Vec<u8>,
    pub end: End,
}

/// What has happened, by the number of the request.
#[derive(Debug, Default)]
pub struct Journal {
    pub seen: BTreeMap<u32, Vec<Seen>>,
    /// `None`: the connection ended, or the client left, before an answer.
    pub answers: BTreeMap<u32, Option<Answer>>,
    /// When clients left that did not wait for the answer.
    pub left_at: BTreeMap<u32, Duration>,
    /// Clients that are not done.
    pub clients: usize,
    /// Waits until they are.
    pub waiter: Option<Waker>,
}

impl Journal {
    /// A client is done.
    fn leave(&mut self) {
        self.clients -= 1;
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

/// The body of a request or of an answer; `salt` tells them apart.
pub fn body(id: u32, salt: u32, len: usize) -> Vec<u8> {
    let text = format!("{id}/{salt};");
    // A period that no window and no buffer has.
    text.repeat(len / text.len() + 1).into_bytes()[..len].to_vec()
}

pub const OF_REQUEST: u32 = 1;
pub const OF_ANSWER: u32 = 2;

/// The field that the program adds.
pub const IDENTITY: (&str, &str) = ("x-source", "simulated");

/// Sends `plans` one after the other on one connection.
pub async fn client(
    network: Rc<Network>,
    to: SocketAddr,
    plans: Vec<RequestPlan>,
    journal: Rc<RefCell<Journal>>,
) {
    if let Ok(socket) = network.dial(to).await {
        let mut input = Input::default();
        for plan in &plans {
            let goes_on = exchange(&network, &socket, &mut input, plan, &journal).await;
            if !goes_on {
                if plan.resets {
                    socket.reset_when_closed();
                }
                let at = network.elapsed();
                let mut journal = journal.borrow_mut();
                let answer = journal.answers.get(&plan.id).and_then(Option::as_ref);
                if answer.is_none_or(|answer| answer.end != End::Whole) {
                    journal.left_at.insert(plan.id, at);
                }
                break;
            }
        }
    }
    journal.borrow_mut().leave();
}

/// Sends a request and reads its answer. Returns whether another request may follow.
async fn exchange(
    network: &Rc<Network>,
    socket: &Socket,
    input: &mut Input,
    plan: &RequestPlan,
    journal: &RefCell<Journal>,
) -> bool {
    journal.borrow_mut().answers.insert(plan.id, None);
    let request = encode_request(plan);
    let most = plan
        .leaves_after_sent
        .unwrap_or(request.len())
        .min(request.len());
    let has_continued = Cell::new(false);
    let send = async {
        let mut rest = &request[..most];
        if let Some(after) = plan.continues_after {
            let (head, body) = rest.split_at(head_len(rest));
            if socket.all(head).await.is_ok() {
                wait_for_continue(network, after, &has_continued).await;
            }
            rest = body;
        }
        let sent = in_pieces(network, socket, rest, plan.pause).await;
        if most < request.len() {
            return Some(());
        }
        if sent.is_ok() && plan.half_closes {
            let _ = socket.end_writing();
        }
        // The answer decides.
        future::pending().await
    };
    let receive = async {
        let is_head = plan.method == "HEAD";
        let (most, has_continued) = (plan.leaves_after_received, &has_continued);
        let answer = input.answer(socket, is_head, most, has_continued).await;
        let goes_on = answer
            .as_ref()
            .is_some_and(|answer| answer.end == End::Whole && !input.closes && !plan.is_last);
        journal.borrow_mut().answers.insert(plan.id, answer);
        Some(goes_on)
    };
    let left = async {
        send.await;
        None
    };
    future::or(receive, left).await.unwrap_or(false)
}

/// How long the head at the start of `message` is.
fn head_len(message: &[u8]) -> usize {
    let end = message.windows(4).position(|at| at == b"\r\n\r\n");
    end.map_or(message.len(), |end| end + 4)
}

/// Waits until `has_continued`, for `most` at most.
async fn wait_for_continue(network: &Rc<Network>, most: Duration, has_continued: &Cell<bool>) {
    let mut timer = network.timer(network.now() + most);
    // The task that reads the 100 is this one.
    poll_fn(|context| match has_continued.get() {
        true => Poll::Ready(()),
        false => Pin::new(&mut timer).poll(context),
    })
    .await;
}

fn encode_request(plan: &RequestPlan) -> Vec<u8> {
    let mut head = format!(
        "{} /{} HTTP/1.1\r\nHost: localhost\r\n",
        plan.method, plan.id
    );
    if plan.continues_after.is_some() {
        head.push_str("Expect: 100-continue\r\n");
    }
    if plan.is_last {
        head.push_str("Connection: close\r\n");
    }
    encode(
        head,
        plan.framing,
        &body(plan.id, OF_REQUEST, plan.body_len),
    )
}

/// A message of `head`, which has no empty line yet.
fn encode(mut head: String, framing: Framing, body: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::Nothing | Framing::UntilClose => {}
    }
    head.push_str("\r\n");
    let mut message = head.into_bytes();
    match framing {
        Framing::Nothing => {}
        Framing::Length | Framing::UntilClose => message.extend_from_slice(body),
        Framing::Chunked => {
            for piece in body.chunks(1 + body.len() / 3) {
                message.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                message.extend_from_slice(piece);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n\r\n");
        }
    }
    message
}

/// Writes `bytes`, with a pause after each piece.
async fn in_pieces(
    network: &Rc<Network>,
    socket: &Socket,
    bytes: &[u8],
    pause: Duration,
) -> io::Result<()> {
    let pieces = 1 + network.rng.below(4) as usize;
    for piece in bytes.chunks(1 + bytes.len() / pieces) {
        socket.all(piece).await?;
        if !pause.is_zero() {
            network.sleep(pause).await;
        }
    }
    Ok(())
}

/// Serves each connection in a task of its own, until the network ends.
pub async fn origin(
    network: Rc<Network>,
    listener: Socket,
    plans: Rc<BTreeMap<u32, Vec<AnswerPlan>>>,
    journal: Rc<RefCell<Journal>>,
) {
    loop {
        let socket = listener.accepted().await;
        let (network, plans, journal) =
            (Rc::clone(&network), Rc::clone(&plans), Rc::clone(&journal));
        let served = Rc::clone(&network);
        network.spawn(async move {
            // An error is the end of the connection.
            let _ = serve(&served, socket, &plans, &journal).await;
        });
    }
}

async fn serve(
    network: &Rc<Network>,
    socket: Socket,
    plans: &BTreeMap<u32, Vec<AnswerPlan>>,
    journal: &RefCell<Journal>,
) -> io::Result<()> {
    let mut input = Input::default();
    let mut idle_limit = None;
    loop {
        let head = match idle_limit {
            Some(limit) => {
                let too_late = async {
                    network.sleep(limit).await;
                    Ok(None)
                };
                future::or(input.head(&socket), too_late).await?
            }
            None => input.head(&socket).await?,
        };
        let Some(head) = head else { return Ok(()) };
        let request = Head::parse(&head).ok_or_else(|| io::Error::other("no request"))?;
        let id = request.id().ok_or_else(|| io::Error::other("no number"))?;
        let nth = {
            let mut journal = journal.borrow_mut();
            let seen = journal.seen.entry(id).or_default();
            seen.push(Seen {
                has_identity: request.values(IDENTITY.0) == [IDENTITY.1],
                ..Seen::default()
            });
            seen.len() - 1
        };
        let answers = plans
            .get(&id)
            .ok_or_else(|| io::Error::other("unknown number"))?;
        let plan = &answers[nth.min(answers.len() - 1)];
        let goes_on = answer(
            network,
            &socket,
            &mut input,
            &request,
            (id, nth),
            plan,
            journal,
        )
        .await?;
        if !goes_on || plan.closes {
            return Ok(());
        }
        idle_limit = plan.closes_idle_after;
    }
}

/// The interim answers and the final one, with the end of its body marked by `framing`.
fn encode_answer(id: u32, plan: &AnswerPlan, framing: Framing) -> Vec<u8> {
    let interim = b"HTTP/1.1 103 Early Hints\r\nX-Hint: yes\r\n\r\n";
    let mut message = interim.repeat(plan.interims);
    let mut head = format!("HTTP/1.1 {} Fine\r\nX-Id: {id}\r\n", plan.status);
    if plan.closes {
        head.push_str("Connection: close\r\n");
    }
    message.extend(encode(head, framing, &body(id, OF_ANSWER, plan.body_len)));
    message
}

/// Reads a request's body and answers it. Returns whether the connection can serve another one.
async fn answer(
    network: &Rc<Network>,
    socket: &Socket,
    input: &mut Input,
    request: &Head,
    (id, nth): (u32, usize),
    plan: &AnswerPlan,
    journal: &RefCell<Journal>,
) -> io::Result<bool> {
    let framing = match request.first[0] == "HEAD" || matches!(plan.status, 204 | 304) {
        true => Framing::Nothing,
        false => plan.framing,
    };
    let message = encode_answer(id, plan, framing);
    let note = |act: &dyn Fn(&mut Seen)| {
        if let Some(seen) = journal.borrow_mut().seen.get_mut(&id) {
            act(&mut seen[nth]);
        }
    };
    let reading = async {
        if request.values("expect") == ["100-continue"] {
            socket.all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut taken = |piece: &[u8]| note(&|seen| seen.body.extend_from_slice(piece));
        let is_whole = input
            .body(socket, request.body_framing(false), &mut taken)
            .await?;
        note(&|seen| seen.is_whole = is_whole);
        match is_whole {
            true => Ok(()),
            false => Err(io::Error::other("the request was cut")),
        }
    };
    let writing = async {
        let goes_on = write_answer(network, socket, &message, plan, &note).await?;
        Ok(goes_on && framing != Framing::UntilClose)
    };
    if plan.reads_first {
        reading.await?;
        return writing.await;
    }
    let both = future::try_zip(reading, writing);
    let ((), is_fine) = both.await?;
    Ok(is_fine)
}

/// Writes an answer as far as its plan says. Returns whether nothing went wrong.
async fn write_answer(
    network: &Rc<Network>,
    socket: &Socket,
    message: &[u8],
    plan: &AnswerPlan,
    note: &impl Fn(&dyn Fn(&mut Seen)),
) -> io::Result<bool> {
    let (most, fault) = match plan.fault {
        Some(Fault::Closes(count) | Fault::Resets(count) | Fault::Stalls(count)) => {
            (count.min(message.len()), plan.fault)
        }
        Some(Fault::Babbles) => {
            socket.all(b"What do you want?\r\n\r\n").await?;
            return Ok(false);
        }
        None => (message.len(), None),
    };
    in_pieces(network, socket, &message[..most], plan.pause).await?;
    match fault {
        Some(Fault::Resets(_)) => socket.reset_when_closed(),
        Some(Fault::Stalls(_)) => {
            // Until the end of the connection.
            while socket.some().await.is_ok_and(|some| !some.is_empty()) {}
            let at = network.elapsed();
            note(&|seen| seen.ended_at = Some(at));
        }
        _ => {}
    }
    Ok(fault.is_none())
}

/// The head of a message.
#[derive(Debug)]
pub struct Head {
    /// The parts of the first line.
    pub first: Vec<String>,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Option<Head> {
        let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
        let first = lines.next()?.split(' ').map(str::to_owned).collect();
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields = lines.map(field).collect::<Option<_>>()?;
        Some(Head { first, fields })
    }

    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(known, _)| known == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// The number of a request.
    fn id(&self) -> Option<u32> {
        self.first.get(1)?.strip_prefix('/')?.parse().ok()
    }

    fn body_framing(&self, is_answer: bool) -> (Framing, usize) {
        if self.values("transfer-encoding") == ["chunked"] {
            return (Framing::Chunked, 0);
        }
        let len = self
            .values("content-length")
            .first()
            .and_then(|len| len.parse().ok());
        match len {
            Some(len) => (Framing::Length, len),
            None if is_answer => (Framing::UntilClose, 0),
            None => (Framing::Nothing, 0),
        }
    }
}

/// What has been read and not yet used.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    received: usize,
    /// Leaves when so many bytes have come since the last message.
    most: Option<usize>,
    /// The peer closes behind the last answer.
    closes: bool,
}

impl Input {
    /// Reads more. Returns false at the end.
    async fn more(&mut self, socket: &Socket) -> io::Result<bool> {
        if self.most.is_some_and(|most| self.received >= most) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let some = socket.some().await?;
        self.received += some.len();
        self.bytes.extend_from_slice(&some);
        Ok(!some.is_empty())
    }

    /// Reads up to and with `end`; `None` at the end of the connection.
    async fn until(&mut self, socket: &Socket, end: &[u8]) -> io::Result<Option<String>> {
        loop {
            let found = self.bytes.windows(end.len()).position(|at| at == end);
            if let Some(at) = found {
                let text = self.bytes.drain(..at + end.len()).collect();
                return String::from_utf8(text).map(Some).map_err(io::Error::other);
            }
            if !self.more(socket).await? {
                return Ok(None);
            }
        }
    }

    async fn head(&mut self, socket: &Socket) -> io::Result<Option<String>> {
        self.until(socket, b"\r\n\r\n").await
    }

    /// Reads a body, in pieces. Returns whether it is whole.
    async fn body(
        &mut self,
        socket: &Socket,
        (framing, len): (Framing, usize),
        taken: &mut impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        match framing {
            Framing::Nothing => Ok(true),
            Framing::Length => self.exactly(socket, len, taken).await,
            Framing::UntilClose => loop {
                taken(&std::mem::take(&mut self.bytes));
                if !self.more(socket).await? {
                    return Ok(true);
                }
            },
            Framing::Chunked => loop {
                let Some(line) = self.until(socket, b"\r\n").await? else {
                    return Ok(false);
                };
                let len = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
                if !self.exactly(socket, len, taken).await? {
                    return Ok(false);
                }
                if self.until(socket, b"\r\n").await?.as_deref() != Some("\r\n") {
                    return Ok(false);
                }
                if len == 0 {
                    return Ok(true);
                }
            },
        }
    }

    async fn exactly(
        &mut self,
        socket: &Socket,
        len: usize,
        taken: &mut impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let mut left = len;
        loop {
            let count = left.min(self.bytes.len());
            taken(&self.bytes.drain(..count).collect::<Vec<u8>>());
            left -= count;
            if left == 0 {
                return Ok(true);
            }
            if !self.more(socket).await? {
                return Ok(false);
            }
        }
    }

    /// Reads an answer; `None` if there is none.
    async fn answer(
        &mut self,
        socket: &Socket,
        is_head: bool,
        most: Option<usize>,
        has_continued: &Cell<bool>,
    ) -> Option<Answer> {
        (self.received, self.most) = (self.bytes.len(), most);
        let (head, status) = loop {
            let head = self.head(socket).await.ok()??;
            let head = Head::parse(&head)?;
            let status: u16 = head.first.get(1)?.parse().ok()?;
            if status >= 200 {
                break (head, status);
            }
            has_continued.set(true);
        };
        self.closes = head.values("connection").contains(&"close");
        let framing = match is_head || matches!(status, 204 | 304) {
            true => (Framing::Nothing, 0),
            false => head.body_framing(true),
        };
        let mut body = Vec::new();
        let read = self
            .body(socket, framing, &mut |piece| body.extend_from_slice(piece))
            .await;
        let end = match read {
            Ok(true) => End::Whole,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => End::Left,
            Ok(false) | Err(_) => End::Cut,
        };
        let id = head.values("x-id").first().and_then(|id| id.parse().ok());
        self.closes |= framing.0 == Framing::UntilClose;
        Some(Answer {
            status,
            id,
            body,
            end,
        })
    }
}

/// How much may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: each request gets its answer.
    None,
    /// The origin closes kept connections, which requests that may be repeated survive.
    StaleConnections,
    Any,
}

/// A request of number `id`.
pub fn plan_request(rng: &Rng, id: u32, trouble: Trouble, is_last: bool) -> RequestPlan {
    let repeatable = trouble == Trouble::StaleConnections;
    let method = match repeatable {
        true => rng.one_of(&["GET", "HEAD", "DELETE"]),
        false => rng.one_of(&["GET", "POST", "POST", "PUT", "HEAD"]),
    };
    let framing = match method {
        "POST" | "PUT" => rng.one_of(&[Framing::Length, Framing::Chunked]),
        _ => Framing::Nothing,
    };
    let body_len = match framing {
        Framing::Nothing => 0,
        _ => plan_len(rng),
    };
    let troubled = trouble == Trouble::Any;
    let maybe = |times| troubled && rng.once_in(times);
    let leaves_after_sent = maybe(10).then(|| rng.below(body_len as u64 + 100) as usize);
    let leaves_after_received = maybe(10).then(|| rng.below(2000) as usize);
    let pause = match rng.below(4) {
        0 => rng.time(Duration::from_millis(200)),
        1 if maybe(10) => rng.time(Duration::from_secs(120)),
        _ => Duration::ZERO,
    };
    let answers = (0..3).map(|_| plan_answer(rng, trouble)).collect();
    RequestPlan {
        id,
        method,
        framing,
        body_len,
        continues_after: (body_len > 0 && rng.once_in(6)).then(|| rng.time(Duration::from_secs(3))),
        is_last,
        leaves_after_sent,
        leaves_after_received,
        resets: rng.once_in(2),
        pause,
        half_closes: is_last && rng.once_in(4),
        answers,
    }
}

fn plan_answer(rng: &Rng, trouble: Trouble) -> AnswerPlan {
    let troubled = trouble == Trouble::Any;
    let maybe = |times| troubled && rng.once_in(times);
    let count = rng.below(4000) as usize;
    let fault = maybe(5).then(|| {
        rng.one_of(&[
            Fault::Closes(count),
            Fault::Resets(count),
            Fault::Closes(0),
            Fault::Resets(0),
            Fault::Stalls(count),
            Fault::Babbles,
        ])
    });
    let pause = match rng.below(4) {
        0 => rng.time(Duration::from_millis(200)),
        1 if maybe(10) => rng.time(Duration::from_secs(120)),
        _ => Duration::ZERO,
    };
    let stale = match trouble {
        Trouble::None => false,
        Trouble::StaleConnections => rng.once_in(2),
        Trouble::Any => rng.once_in(4),
    };
    AnswerPlan {
        interims: match rng.once_in(4) {
            true => rng.below(3) as usize,
            false => 0,
        },
        reads_first: !troubled || !rng.once_in(3),
        status: rng.one_of(&[200, 200, 200, 200, 204, 304, 404, 500]),
        framing: rng.one_of(&[
            Framing::Length,
            Framing::Length,
            Framing::Chunked,
            Framing::Chunked,
            Framing::UntilClose,
        ]),
        body_len: plan_len(rng),
        pause,
        fault,
        closes: rng.once_in(5),
        closes_idle_after: stale.then(|| rng.time(Duration::from_millis(50))),
    }
}

fn plan_len(rng: &Rng) -> usize {
    match rng.below(16) {
        0 => 0,
        1 => 1,
        2 if rng.once_in(4) => rng.below(200_000) as usize,
        3..=6 => rng.below(9000) as usize,
        _ => rng.below(300) as usize,
    }
}
