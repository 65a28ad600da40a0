//! A short soak test: many clients in parallel, every framing, pieces of every size, and an origin that responds, stalls,
//! disconnects and sends invalid responses. Every response is either correct or visibly failed, none is sent to another
//! client, and no resources leak. The choices are pseudo-random with a fixed seed, so that a failure is reproducible.

use std::fmt::Write as _;

use crate::support::*;

const CLIENTS: u64 = 12;
const EXCHANGES: u64 = 60;

/// A pseudo-random generator (xorshift64*).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

/// Bytes that contain `name` in every line, so that misdirected pieces are recognised.
pub fn pattern(name: &str, length: usize) -> Vec<u8> {
    let line = format!("{name}\r\n0\r\n\r\nHTTP/1.1 ");
    line.bytes().cycle().take(length).collect()
}

pub fn chunked(body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let size = (1 + dice.roll(2000) as usize).min(rest.len());
        let extension = ["", ";a=b", ";c=\"d\"", ""][dice.roll(4) as usize];
        let mut line = String::new();
        write!(line, "{size:x}{extension}\r\n").expect("a string can be written");
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(&rest[..size]);
        bytes.extend_from_slice(b"\r\n");
        rest = &rest[size..];
    }
    bytes.extend_from_slice([&b"0\r\n\r\n"[..], b"0\r\nX-Sum: 1\r\n\r\n"][dice.roll(2) as usize]);
    bytes
}

/// A random request and the expected result.
pub struct Drawn {
    pub kind: &'static str,
    pub method: &'static str,
    pub target: String,
    /// The body of a correct response.
    expected: Vec<u8>,
    /// All bytes of the request, and the size of the pieces in which they are sent.
    pub whole: Vec<u8>,
    pub pieces: usize,
    /// Whether the client disconnects early.
    pub disconnects: bool,
}

impl Drawn {
    /// The next request of client `number`.
    pub fn new(dice: &mut Dice, kinds: &[&'static str], number: u64, exchange: u64) -> Drawn {
        let kind = kinds[dice.roll(kinds.len() as u64) as usize];
        let seed = 1 + dice.roll(1 << 30);
        let target = format!("/{kind}/{seed}/{number}/{exchange}");
        let expected = pattern(&target, Dice(seed).roll(40_000) as usize);
        let length = [0, 1, 100, 30_000, 150_000][dice.roll(5) as usize];
        let body = pattern(&target, length);
        let method = ["GET", "POST", "PUT", "POST"][dice.roll(4) as usize];
        let (framing, sent) = match dice.roll(2) {
            0 => (format!("Content-Length: {}", body.len()), body),
            _ => (
                "Transfer-Encoding: chunked".to_owned(),
                chunked(&body, dice),
            ),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        Drawn {
            kind,
            method,
            target,
            expected,
            whole: [head.as_bytes(), &sent].concat(),
            pieces: [usize::MAX, 4000, 700][dice.roll(3) as usize],
            disconnects: dice.roll(12) == 0,
        }
    }

    /// Sends a part of the request and disconnects.
    pub fn disconnect(&self, mut client: Conn, dice: &mut Dice) {
        client.offer(&self.whole[..dice.roll(self.whole.len() as u64) as usize]);
        if dice.roll(2) == 0 {
            client.reset()
        } else {
            client.close()
        }
    }

    /// Checks the body of a successful response; returns whether the connection stays open.
    #[track_caller]
    pub fn check_body(&self, response: &Response) -> bool {
        assert!(
            response.body == self.expected,
            "{}: {} bytes, not the {} expected: {:?}",
            self.target,
            response.body.len(),
            self.expected.len(),
            excerpt(&response.body)
        );
        let closes = response
            .fields
            .list("connection")
            .contains(&"close".to_owned());
        response.framing != Framing::UntilClose && !closes
    }
}

/// The behaviours of the origin, named by the first segment of the target.
///
/// It closes a persistent connection only after announcing that. Otherwise a proxy might send the next request before it
/// can detect the close; http_pool.rs tests the detectable cases.
const KINDS: [&str; 8] = [
    "length", "chunked", "close", "pieces", "cut", "lie", "reset", "leave",
];

fn answer(request: &Request) -> Reply {
    let mut parts = request.target.split('/').skip(1);
    let (kind, seed) = (
        parts.next().unwrap_or_default(),
        parts.next().and_then(|seed| seed.parse().ok()).unwrap_or(1),
    );
    let mut dice = Dice(seed);
    let body = pattern(&request.target, dice.roll(40_000) as usize);
    // The body of the request must match its target.
    let right = request.body == pattern(&request.target, request.body.len());
    let status = if right { "200 OK" } else { "409 Mixed Up" };
    let by_length = [
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
        &body,
    ]
    .concat();
    let in_chunks = [
        format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
        &chunked(&body, &mut dice),
    ]
    .concat();
    match kind {
        "length" => Reply::Bytes(by_length),
        "chunked" => Reply::Bytes(in_chunks),
        "close" => Reply::BytesThenClose([format!("HTTP/1.1 {status}\r\n\r\n").as_bytes(), &body].concat()),
        "pieces" => Reply::PiecesThenClose([format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(), 1 + dice.roll(500) as usize),
        // Disconnects at a random point before the end.
        "cut" => Reply::BytesThenClose(by_length[..dice.roll(by_length.len() as u64) as usize].to_vec()),
        "lie" => Reply::BytesThenClose(
            [
                &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
                b"2\r\nhe\r\n+2\r\nhe\r\n0\r\n\r\n",
            ]
            .concat(),
        ),
        "reset" => Reply::Reset,
        _ => Reply::Close,
    }
}

fn run_client(interceptor: &Interceptor, number: u64) {
    let mut dice = Dice(0x9e37_79b9 * (number + 1));
    let mut client = interceptor.client();
    for exchange in 0..EXCHANGES {
        let drawn = Drawn::new(&mut dice, &KINDS, number, exchange);
        if drawn.disconnects {
            drawn.disconnect(client, &mut dice);
            client = interceptor.client();
            continue;
        }
        client.offer_in_pieces(&drawn.whole, drawn.pieces);
        let target = &drawn.target;
        let good = matches!(drawn.kind, "length" | "chunked" | "close" | "pieces");
        let outcome = client.try_response(drawn.method);
        let keeps = match &outcome {
            Ok(response) if response.status == 200 => {
                // The response is complete if the cut is after its last byte.
                assert!(good, "{target}: an invalid response was forwarded");
                drawn.check_body(response)
            }
            Ok(response) => {
                assert!(!good, "{target}: {response:?} {}", response.text());
                check_own_error(response, &[502]);
                false
            }
            Err(stop) => {
                assert!(
                    matches!(stop, Stop::Closed | Stop::Reset),
                    "{target}: {stop:?}"
                );
                assert!(!good, "{target}: cut: {stop:?}");
                false
            }
        };
        if !keeps {
            client = interceptor.client();
        }
    }
}

#[test]
fn every_response_in_a_mix_is_correct_or_visibly_failed() {
    let origin = Origin::answering(|request, _| answer(request));
    let interceptor = Interceptor::before(&origin);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let interceptor = &interceptor;
            scope.spawn(move || run_client(interceptor, number));
        }
    });
    // The origin received only well-formed requests with matching bodies.
    let seen = origin.seen();
    for request in requests_of(&seen) {
        assert!(
            request.body == pattern(&request.target, request.body.len()),
            "{}",
            request.target
        );
    }
    let malformed = seen.iter().find(|seen| {
        matches!(
            seen,
            Seen::Ended {
                stop: Stop::Malformed(_),
                ..
            }
        )
    });
    assert_eq!(malformed, None, "the origin received malformed HTTP");
    count("mix: exchanges", (CLIENTS * EXCHANGES) as usize);
    #[cfg(target_os = "linux")]
    {
        let (since, memory) = (std::time::Instant::now(), interceptor.memory().1);
        assert!(memory < 64 << 20, "{memory} bytes resident at the most");
        while interceptor.descriptors() > 40 {
            assert!(
                since.elapsed() < DEADLINE,
                "{} descriptors were not closed",
                interceptor.descriptors()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
