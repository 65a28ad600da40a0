//! Kept connections to the origin: they are reused, closed in time, and cause neither errors for the client nor requests that
//! are processed twice.

use std::time::{Duration, Instant};

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

/// Whether every connection that has carried `each` requests has ended.
fn have_ended(seen: &[Seen], each: usize) -> bool {
    let mut carried = std::collections::HashMap::new();
    for seen in seen {
        match seen {
            Seen::Opened { .. } => {}
            Seen::Request { connection, .. } => *carried.entry(connection).or_insert(0) += 1,
            Seen::Ended { connection, .. } => drop(carried.remove(connection)),
        }
    }
    carried.values().all(|&count| count < each)
}

/// Sends POSTs to an origin that closes each connection after `each` of them without an announcement. It closes before the
/// next request is sent; whether the interceptor has noticed that is left to chance.
#[track_caller]
fn check_posts(each: usize, new_client: bool) {
    const POSTS: usize = 200;
    let origin = Origin::answering(move |_, number| {
        if number + 1 == each {
            Reply::BytesThenClose(OK.to_vec())
        } else {
            Reply::Bytes(OK.to_vec())
        }
    });
    let interceptor = Interceptor::before(&origin);
    let mut client = interceptor.client();
    for number in 1..=POSTS {
        if new_client {
            client = interceptor.client();
        }
        client.send(POST);
        let response = client.response("POST");
        assert_eq!(response.status, 200, "POST {number}: {}", response.text());
        origin.wait_until("its own close", |seen| have_ended(seen, each));
    }
    assert_eq!(origin.requests().len(), POSTS, "each was processed once");
}

#[test]
fn posts_succeed_with_an_origin_that_closes_after_each_response() {
    check_posts(1, false);
    check_posts(1, true);
}

#[test]
fn posts_succeed_with_an_origin_that_closes_after_some_responses() {
    check_posts(7, false);
    check_posts(3, true);
}

#[test]
fn posts_succeed_with_an_origin_that_resets_idle_connections() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    for _ in 0..50 {
        client.send(POST);
        let mut served = origin.accept();
        served.request();
        served.send(OK);
        assert_eq!(client.response("POST").text(), "ok");
        served.reset();
    }
}

#[test]
fn posts_from_many_clients_succeed_with_an_origin_that_announces_its_closes() {
    let origin = Origin::answering(|_, number| {
        if number == 4 {
            Reply::BytesThenClose(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_vec(),
            )
        } else {
            Reply::Bytes(OK.to_vec())
        }
    });
    let interceptor = Interceptor::before(&origin);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = interceptor.client();
                for _ in 0..50 {
                    client.send(POST);
                    let response = client.response("POST");
                    assert_eq!(response.status, 200, "{}", response.text());
                }
            });
        }
    });
    assert_eq!(origin.requests().len(), 400, "each was processed once");
}

/// A connection after two exchanges, which is also used for requests that may not be repeated.
#[track_caller]
fn kept(origin: &Origin, client: &mut Conn) -> Conn {
    let mut connection = None;
    for _ in 0..2 {
        client.send(GET);
        let served = connection.get_or_insert_with(|| origin.accept());
        served.request();
        served.send(OK);
        assert_eq!(client.response("GET").text(), "ok");
    }
    connection.expect("there were exchanges")
}

#[test]
fn a_safe_request_on_a_stale_connection_is_sent_again() {
    // What is sent again is kept in other memory if it is large.
    for (method, len) in [
        ("GET", 1),
        ("HEAD", 4_000),
        ("OPTIONS", 5_000),
        ("GET", 60_000),
    ] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        let mut served = kept(&origin, &mut client);
        let field = "x".repeat(len);
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: localhost\r\nX: {field}\r\n\r\n"
        ));
        // The origin timed out while the request was on its way: it closes without reading it.
        served.wait_for_arrival();
        served.close();
        let mut next = origin.accept();
        let request = next.request();
        assert_eq!(request.method, method, "RFC 9110 §9.2.2");
        assert_eq!(request.fields.one("X"), Some(&*field));
        next.send(OK);
        assert_eq!(client.response(method).status, 200);
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    #[derive(Debug)]
    enum Origins {
        CutsUnread,
        CutsRead,
        ClosesRead,
        AnswersHalf,
    }
    for (behaviour, why) in [
        (
            Origins::CutsUnread,
            "the kernel has received it; the origin may have processed it",
        ),
        (
            Origins::CutsRead,
            "the origin has read it, and may have processed it",
        ),
        (Origins::ClosesRead, "the same with an orderly close"),
        (Origins::AnswersHalf, "the origin has begun its response"),
    ] {
        for warm in [true, false] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            let mut connection = warm.then(|| kept(&origin, &mut client));
            client.send(POST);
            let mut served = connection.take().unwrap_or_else(|| origin.accept());
            match behaviour {
                Origins::CutsUnread => {
                    served.wait_for_arrival();
                    served.reset();
                }
                Origins::CutsRead => {
                    assert_eq!(latin1(&served.request().body), "hello");
                    served.reset();
                }
                Origins::ClosesRead => {
                    served.request();
                    served.close();
                }
                Origins::AnswersHalf => {
                    served.request();
                    served.send("HTTP/1.1 200 OK\r\nContent-Le");
                    served.close();
                }
            }
            let response = client.response("POST");
            check_own_error(&response, &[502]);
            assert!(
                origin.try_accept(Duration::ZERO).is_none(),
                "{behaviour:?}, warm: {warm}: {why}"
            );
            // The client can send the next request.
            let mut client = interceptor.client();
            client.send(POST);
            let mut served = origin.accept();
            served.request();
            served.send(OK);
            assert_eq!(client.response("POST").text(), "ok");
        }
    }
    count("pool: a POST not sent twice", 8);
}

#[test]
fn a_request_is_not_sent_again_after_a_byte_of_an_answer() {
    let rows = [
        ("HTTP/1.1 100 Continue\r\n\r\n", "a 100"),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "a 103"),
        (
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
            "two",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2",
            "a part of the next",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Le", "a part of the final one"),
        ("H", "a byte"),
    ];
    for (said, why) in rows {
        for method in ["GET", "OPTIONS", "PUT"] {
            for resets in [false, true] {
                let (origin, interceptor) = scripted();
                let mut client = interceptor.client();
                let mut served = kept(&origin, &mut client);
                client.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                served.request();
                served.send(said);
                // It arrives before the end does.
                for _ in 0..said.matches("\r\n\r\n").count() {
                    client.response_head(method);
                }
                match resets {
                    true => served.reset(),
                    false => served.close(),
                }
                check_own_error(&client.response(method), &[502]);
                assert!(
                    origin.try_accept(Duration::ZERO).is_none(),
                    "{method}, {why}, reset: {resets}"
                );
            }
        }
    }
    count("pool: not sent again after a byte", 6 * rows.len());
}

/// Responses that servers send on an idle connection before they close it.
const TIMED_OUT: [&str; 2] = [
    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
    "HTTP/1.0 408 Request Time-out\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n<h1>408</h1>\n",
];

#[test]
fn a_safe_request_that_crosses_a_408_on_an_idle_connection_is_sent_again() {
    for said in TIMED_OUT {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let (origin, interceptor) = scripted();
            let mut client = interceptor.client();
            let mut served = kept(&origin, &mut client);
            client.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            served.wait_for_arrival();
            served.send(said);
            let mut next = origin.accept();
            assert_eq!(next.request().method, method, "RFC 9110 §15.5.9");
            next.send(OK);
            assert_eq!(client.response(method).status, 200);
        }
    }
    // Only once: the response on a new connection is forwarded.
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    let mut served = kept(&origin, &mut client);
    client.send(GET);
    served.wait_for_arrival();
    served.send(TIMED_OUT[0]);
    let mut next = origin.accept();
    next.request();
    next.send(TIMED_OUT[0]);
    next.close();
    assert_eq!(client.response("GET").status, 408);
    count("pool: a 408 that was crossed", 6);
}

#[test]
fn a_408_that_may_concern_the_request_itself_is_forwarded() {
    let rows: [(&str, &str, &str); 3] = [
        (
            POST,
            TIMED_OUT[0],
            "a POST that was sent may have been acted on",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello",
            TIMED_OUT[0],
            "a body that is not completely in memory",
        ),
        (
            GET,
            "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nslow",
            "an origin that keeps its connection has read the request",
        ),
    ];
    for (request, said, why) in rows {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        let mut served = kept(&origin, &mut client);
        client.send(request);
        served.request_head();
        served.send(said);
        if said == TIMED_OUT[0] {
            served.finish_writing();
        }
        let method = &request[..request.find(' ').expect("a request line has spaces")];
        assert_eq!(client.response(method).status, 408, "{why}");
        assert!(origin.try_accept(Duration::ZERO).is_none(), "{why}");
    }
    count("pool: a 408 that is forwarded", rows.len());
}

#[test]
fn a_connection_with_an_unsolicited_408_is_not_used() {
    for said in TIMED_OUT {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        let mut served = kept(&origin, &mut client);
        served.send(said);
        // The response to this request proves that the 408 was processed.
        interceptor.health();
        client.send(POST);
        let mut next = origin.accept();
        assert_eq!(next.request().method, "POST");
        next.send(OK);
        assert_eq!(client.response("POST").text(), "ok");
        served.expect_end();
    }
}

#[test]
fn an_upload_in_progress_is_never_sent_twice() {
    // A part of the body is no longer in memory, so not even an idempotent request can be repeated.
    for method in ["PUT", "POST"] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        let mut served = kept(&origin, &mut client);
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello"
        ));
        let mut body = Body::new(served.request_head().1);
        served.expect_some(&mut body, "hello");
        served.reset();
        client.offer("hello");
        check_own_error(&client.response(method), &[502]);
        assert!(origin.try_accept(Duration::ZERO).is_none(), "{method}");
    }
}

#[test]
fn a_connection_on_which_request_trailers_went_is_not_kept() {
    let rows = [
        ("\r\n", true, "none"),
        ("X: 1\r\n\r\n", false, "one (RFC 9110 §6.5)"),
        ("Host: a\r\nX: 1\r\n\r\n", false, "one of two is forwarded"),
        ("Host: a\r\n\r\n", true, "one that is not forwarded"),
    ];
    for (trailers, is_kept, why) in rows {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailers}"
        );
        // Whole, byte by byte, and with the next request behind it.
        for (size, behind) in [(usize::MAX, ""), (1, ""), (usize::MAX, GET)] {
            let (origin, interceptor) = agreeing();
            let mut client = interceptor.client();
            client.offer_in_pieces(format!("{request}{behind}"), size);
            assert_eq!(client.response("POST").status, 200, "{why}");
            if behind.is_empty() {
                client.send(GET);
            }
            assert_eq!(client.response("GET").status, 200, "{why}");
            assert_eq!(
                origin.connections(),
                if is_kept { 1 } else { 2 },
                "{why}, {size} bytes at a time, then {behind:?}"
            );
        }
    }
    count("pool: request trailers", 3 * rows.len());
}

#[test]
fn an_idle_connection_is_closed_after_the_idle_limit() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::listen()).collect();
    let interceptors: Vec<Interceptor> = origins.iter().map(Interceptor::before).collect();
    let announced = [
        "",
        "Keep-Alive: timeout=60\r\n",
        "Keep-Alive: timeout=1, max=100\r\n",
    ];
    let mut clients: Vec<Conn> = interceptors.iter().map(Interceptor::client).collect();
    let mut served = Vec::new();
    for number in 0..3 {
        clients[number].send(GET);
        let mut wire = origins[number].accept();
        wire.request();
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n{}Content-Length: 2\r\n\r\nok",
            announced[number]
        ));
        assert_eq!(clients[number].response("GET").text(), "ok");
        served.push((wire, Instant::now()));
    }
    let (ref mut short, since) = served[2];
    short.expect_end();
    assert!(
        since.elapsed() < Duration::from_secs(1) + SLACK,
        "before the limit of one second that the origin announced: {:?}",
        since.elapsed()
    );
    let (ref mut silent, since) = served[0];
    silent.expect_end();
    let idle = since.elapsed();
    assert!(
        idle > Duration::from_millis(1000) && idle < Duration::from_millis(1500) + SLACK,
        "after 1.5 s, came after {idle:?}"
    );
    // The third has been idle for as long, but is reused: its origin announced a minute.
    let (ref mut long, _) = served[1];
    clients[1].send(POST);
    assert_eq!(
        long.request().method,
        "POST",
        "unless the target announced longer"
    );
    long.send(OK);
    assert_eq!(clients[1].response("POST").text(), "ok");
}

#[cfg(all(target_os = "linux", not(ic_portable)))] // elsewhere it is found when it is to be used
#[test]
fn an_idle_connection_is_closed_when_its_origin_closes_it() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("GET").text(), "ok");
    served.finish_writing();
    served.expect_end_within(Duration::from_secs(5));
    client.send(POST);
    let mut served = origin.accept();
    assert_eq!(served.request().method, "POST", "on a new connection");
    served.send(OK);
    assert_eq!(client.response("POST").text(), "ok");
}

#[test]
fn consecutive_posts_share_a_connection() {
    let (_origin, interceptor) = agreeing();
    let mut client = interceptor.client();
    let mut post = || {
        client.send(POST);
        client.response("POST");
    };
    let counts = || {
        let mut asking = interceptor.client();
        asking.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let text = asking.response("GET").text();
        ["ic_target_connects_total ", "ic_target_reuses_total "].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.parse::<u64>().ok())
                .expect("the metric exists")
        })
    };
    let since = Instant::now();
    while counts()[1] == 0 {
        post();
        assert!(since.elapsed() < DEADLINE, "never: {:?}", counts());
    }
    let [connects, _] = counts();
    for _ in 0..50 {
        post();
    }
    assert_eq!(
        counts()[0],
        connects,
        "the origin has shown that it keeps them"
    );
}

/// Delay on a loaded machine.
const SLACK: Duration = Duration::from_millis(800);
