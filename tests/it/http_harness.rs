//! Tests of the test support without the program: a client and an origin, directly and through a simple relay. They check
//! that the assertions of the other modules fail when they should.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::support::message::{
    read_chunk_size, read_request_head, read_response_head, request_framing, response_framing,
};
use crate::support::*;

#[test]
fn the_reference_parser_accepts_well_formed_messages() {
    let rows: [(&[u8], Framing, &str); 5] = [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Framing::Empty,
            "no body",
        ),
        (
            b"POST /x?y HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
            Framing::Length(5),
            "by length",
        ),
        (
            b"POST / HTTP/1.1\r\ntransfer-ENCODING:\tChunked \r\n\r\n",
            Framing::Chunked,
            "names and codings are case-insensitive",
        ),
        (
            b"M-SEARCH * HTTP/1.0\r\n\r\n",
            Framing::Empty,
            "any token is a method",
        ),
        (
            b"GET / HTTP/1.1\r\nX: \xff\t\x80\r\nX:\r\n\r\n",
            Framing::Empty,
            "obs-text, tab, empty value",
        ),
    ];
    for (bytes, framing, why) in rows {
        let head = read_request_head(bytes).unwrap_or_else(|error| panic!("{why}: {error}"));
        assert_eq!(request_framing(&head), Ok(framing), "{why}");
    }
    let head = read_response_head(b"HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n")
        .expect("an empty reason is valid");
    assert_eq!(response_framing(&head, "GET"), Ok(Framing::Empty));
}

#[test]
fn the_reference_parser_refuses_ambiguous_messages() {
    let rows: [(&[u8], &str); 17] = [
        (b"GET  / HTTP/1.1\r\n\r\n", "two spaces"),
        (b"GET / HTTP/1.1 \r\n\r\n", "space at the end"),
        (b"GET / HTTP/1.2\r\n\r\n", "version"),
        (b"GET / HTTP/1.1\n\r\n", "bare LF"),
        (b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", "bare CR"),
        (b"GET / HTTP/1.1\r\nX: a\0\r\n\r\n", "NUL"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", "obs-fold"),
        (b"GET / HTTP/1.1\r\nX : a\r\n\r\n", "space before colon"),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", "no name"),
        (b"GET / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", "sign"),
        (b"GET / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", "list"),
        (
            b"GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "twice",
        ),
        (
            b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both",
        ),
        (
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "chunked twice",
        ),
        (
            b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "chunked in HTTP/1.0",
        ),
        (
            b"GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "overflow",
        ),
        (b"GET / HTTP/1.1\r\n\r\nX", "bytes after the head"),
    ];
    for (bytes, why) in rows {
        let read = read_request_head(bytes).and_then(|head| request_framing(&head));
        assert!(read.is_err(), "{why}: {read:?}");
    }
    for line in [
        "",
        "+5",
        "0x5",
        " 5",
        "5 ",
        "5;a\rb",
        "10000000000000005",
        "g",
    ] {
        assert!(read_chunk_size(line.as_bytes()).is_err(), "{line:?}");
    }
    assert_eq!(read_chunk_size(b"00aF;x=\"y\""), Ok(0xaf));
}

#[test]
fn a_client_and_an_origin_exchange_messages() {
    let origin = Origin::listen();
    check_exchanges(&origin, origin.address());
}

#[test]
fn a_client_and_an_origin_exchange_messages_through_a_relay() {
    let origin = Origin::listen();
    let relay = relay_to(origin.address());
    check_exchanges(&origin, relay);
}

#[track_caller]
fn check_exchanges(origin: &Origin, address: std::net::SocketAddr) {
    let mut client = Conn::connect("client", address);
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n");
    let mut served = origin.accept();
    let (head, framing) = served.request_head();
    assert_eq!((head.start[1].as_str(), framing), ("/a", Framing::Chunked));
    let mut body = Body::new(framing);
    served.expect_some(&mut body, "abc");
    served.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwh");
    client.offer_in_pieces("2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n", 1);
    served.expect_some(&mut body, "de");
    served.expect_end_of(&mut body);
    assert_eq!(body.trailers.one("x-sum"), Some("1"));
    served.send("at");
    let response = client.response("POST");
    assert_eq!(
        (response.status, response.text(), response.interim.len()),
        (200, "what".to_owned(), 1)
    );
    assert!(client.is_open() && served.is_open());
    client.finish_writing();
    served.expect_eof();
    served.send("HTTP/1.1 200 OK\r\n\r\nuntil close");
    served.close();
    assert_eq!(client.response("GET").text(), "until close");

    let mut client = Conn::connect("client", address);
    client.send("GET / HTTP/1.1\r\n\r\n");
    let mut served = origin.accept();
    assert_eq!(served.request().method, "GET");
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    let (_, framing) = client.response_head("GET");
    let mut body = Body::new(framing);
    client.expect_some(&mut body, "ab");
    served.reset();
    client.expect_cut(&mut body);
}

#[test]
fn an_answering_origin_records_events() {
    let origin = Origin::answering(|request, number| match (request.target.as_str(), number) {
        ("/reset", _) => Reply::Reset,
        ("/close", _) => Reply::Close,
        (_, 2) => Reply::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        _ => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    });
    let mut client = Conn::connect("client", origin.address());
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(client.response("GET").status, 200);
    }
    client.expect_eof();
    for (target, stop) in [("/reset", Stop::Reset), ("/close", Stop::Closed)] {
        let mut client = Conn::connect("client", origin.address());
        client.send(format!("GET {target} HTTP/1.1\r\n\r\n"));
        assert_eq!(client.expect_end(), stop, "{target}");
    }
    let mut client = Conn::connect("client", origin.address());
    client.send("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab");
    client.close();
    let seen = origin.wait_until("four ends", |seen| {
        seen.iter()
            .filter(|seen| matches!(seen, Seen::Ended { .. }))
            .count()
            == 4
    });
    assert!(
        seen.contains(&Seen::Ended {
            connection: 3,
            inside: true,
            stop: Stop::Closed
        }),
        "{seen:?}"
    );
    assert_eq!(requests_of(&seen).len(), 5);
}

#[test]
fn a_wait_ends_at_the_deadline() {
    let origin = Origin::listen();
    let mut client =
        Conn::connect("client", origin.address()).with_timeout(Duration::from_millis(20));
    let mut served = origin.accept();
    assert_eq!(client.try_request(), Err(Stop::Silent));
    client.send("x");
    served.expect("x");
}

/// A simple relay: copies bytes and ends in both directions.
fn relay_to(target: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("a listener has an address");
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let origin = TcpStream::connect(target).expect("the origin listens");
            let (client_twin, origin_twin) = (
                client.try_clone().expect("duplicated"),
                origin.try_clone().expect("duplicated"),
            );
            std::thread::spawn(move || pump(client_twin, origin_twin));
            std::thread::spawn(move || pump(origin, client));
        }
    });
    address
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => break drop(to.shutdown(Shutdown::Write)),
            Ok(count) if to.write_all(&piece[..count]).is_ok() => {}
            _ => break drop(to.shutdown(Shutdown::Both)),
        }
    }
}
