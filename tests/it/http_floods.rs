//! Large bodies, which may be spliced in the kernel, arrive complete and unchanged, for all sizes, framings and speeds of the
//! receiver, and wherever they are cut.

use crate::support::*;

/// Sizes around the limits of a buffer, of a pipe, and of one turn.
const SIZES: [usize; 9] = [
    65_535, 131_071, 131_072, 196_609, 262_145, 1_048_575, 1_114_112, 1_114_113, 3_333_333,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Length,
    OneChunk,
    Chunks(usize),
    UntilClose,
}

const WAYS: [Way; 5] = [
    Way::Length,
    Way::OneChunk,
    Way::Chunks(16_384),
    Way::Chunks(300_001),
    Way::UntilClose,
];

impl Way {
    fn lines(self, size: usize) -> String {
        match self {
            Way::Length => format!("Content-Length: {size}\r\n"),
            Way::OneChunk | Way::Chunks(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Way::UntilClose => String::new(),
        }
    }

    fn body(self, data: &[u8]) -> Vec<u8> {
        let chunk = match self {
            Way::Length | Way::UntilClose => return data.to_vec(),
            Way::OneChunk => data.len(),
            Way::Chunks(size) => size,
        };
        let mut body = Vec::new();
        for piece in data.chunks(chunk) {
            body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        body
    }
}

/// Bytes without repetition.
fn data(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(size);
    data
}

/// What follows the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    End,
}

/// Sends in a second thread while `receive` reads; returns its result.
fn while_sending<T>(sender: &Conn, bytes: Vec<u8>, then: Then, receive: impl FnOnce() -> T) -> T {
    let mut sender = sender.twin();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sender.offer(&bytes);
            if then == Then::End {
                sender.finish_writing();
            }
        });
        receive()
    })
}

/// All of a body, and how it ended.
fn collect(receiver: &mut Conn, body: &mut Body) -> (Vec<u8>, Option<Stop>) {
    let mut taken = Vec::new();
    loop {
        match receiver.try_some(body) {
            Ok(piece) if piece.is_empty() => return (taken, None),
            Ok(piece) => taken.extend(piece),
            Err(stop) => return (taken, Some(stop)),
        }
    }
}

#[track_caller]
fn check_same(taken: &[u8], sent: &[u8], why: &str) {
    let same = taken.iter().zip(sent).take_while(|(a, b)| a == b).count();
    assert_eq!((same, taken.len()), (sent.len(), sent.len()), "{why}");
}

#[test]
fn large_responses_arrive_unchanged() {
    let (origin, interceptor) = scripted();
    for way in WAYS {
        for size in SIZES {
            let why = format!("{way:?} of {size}");
            let sent = data(size);
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut served = origin.accept();
            served.request();
            served.send(format!("HTTP/1.1 200 OK\r\n{}\r\n", way.lines(size)));
            let mut body = Body::new(client.response_head("GET").1);
            let then = match way {
                Way::UntilClose => Then::End,
                _ => Then::Nothing,
            };
            let (taken, stop) = while_sending(&served, way.body(&sent), then, || {
                collect(&mut client, &mut body)
            });
            assert_eq!(stop, None, "{why}");
            check_same(&taken, &sent, &why);
        }
    }
    count("floods: responses", WAYS.len() * SIZES.len());
}

#[test]
fn large_requests_arrive_unchanged_and_the_connection_stays_open() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    for way in WAYS.into_iter().filter(|way| *way != Way::UntilClose) {
        for size in SIZES {
            let why = format!("{way:?} of {size}");
            let sent = data(size);
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                way.lines(size)
            ));
            let mut served = origin.accept();
            let mut body = Body::new(served.request_head().1);
            let (taken, stop) = while_sending(&client, way.body(&sent), Then::Nothing, || {
                collect(&mut served, &mut body)
            });
            assert_eq!(stop, None, "{why}");
            check_same(&taken, &sent, &why);
            served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
            assert_eq!(client.response("POST").text(), "ok", "{why}");
        }
    }
    count("floods: requests", (WAYS.len() - 1) * SIZES.len());
}

#[test]
fn a_truncated_large_response_is_cut_after_the_received_part() {
    let (origin, interceptor) = scripted();
    let size = 2_000_000;
    let sent = data(size);
    for way in [Way::Length, Way::OneChunk, Way::Chunks(300_001)] {
        for part in [70_000, 400_000, 1_200_001, size - 1] {
            let why = format!("{way:?} cut at {part}");
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut served = origin.accept();
            served.request();
            served.send(format!("HTTP/1.1 200 OK\r\n{}\r\n", way.lines(size)));
            let mut body = Body::new(client.response_head("GET").1);
            let bytes = way.body(&sent)[..part].to_vec();
            let (taken, stop) = while_sending(&served, bytes, Then::End, || {
                collect(&mut client, &mut body)
            });
            assert!(
                matches!(stop, Some(Stop::Closed | Stop::Reset)),
                "{why}: {stop:?}"
            );
            check_same(&taken, &sent[..taken.len()], &why);
        }
    }
    count("floods: cut", 12);
}

#[test]
fn a_client_that_disconnects_in_a_large_response_does_not_affect_the_next() {
    let (origin, interceptor) = scripted();
    for _ in 0..8 {
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
        let mut body = Body::new(client.response_head("GET").1);
        let mut twin = served.twin();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let piece = vec![b'x'; 1 << 20];
                while twin.offer(&piece) {}
            });
            let mut taken = 0;
            while taken < 3_000_000 {
                taken += client.try_some(&mut body).expect("it flows").len();
            }
            client.reset();
            served.expect_end();
        });
        // A reused pipe that still contained bytes would send them to the next client.
        let sent = data(1_000_000);
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        let mut body = Body::new(client.response_head("GET").1);
        let (taken, stop) = while_sending(&served, sent.clone(), Then::Nothing, || {
            collect(&mut client, &mut body)
        });
        assert_eq!(stop, None);
        check_same(&taken, &sent, "after a client that disconnected");
    }
}
