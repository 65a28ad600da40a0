//! Time limits, the connection limit, and waiting for an origin that is still loading.
//! Every limit is set to a fraction of a second, which also tests that fractions are accepted.

use std::net::{Shutdown, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::support::tls::{self, scheme};
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const GET_HEALTH: &str = "GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The limit that a test sets, as an argument and as a duration.
const LIMIT: &str = "0.3";
const LIMIT_LASTS: Duration = Duration::from_millis(300);

#[track_caller]
fn with(arguments: &[&str]) -> (Origin, Interceptor) {
    let origin = Origin::listen();
    let interceptor = Launch::before(&origin)
        .args(arguments.iter().copied())
        .start();
    (origin, interceptor)
}

/// Checks that a wait ended after the limit, and not long after it.
#[track_caller]
fn check_lasted(since: Instant, why: &str) {
    let lasted = since.elapsed();
    // The clock of the kernel may be early by a tick.
    assert!(
        lasted + Duration::from_millis(100) >= LIMIT_LASTS,
        "too early, after {lasted:?}: {why}"
    );
    assert!(
        lasted < LIMIT_LASTS + Duration::from_secs(3),
        "too late, after {lasted:?}: {why}"
    );
}

#[test]
fn a_request_head_that_is_not_completed_is_a_408() {
    for part in [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: y",
    ] {
        let (origin, interceptor) = with(&["--head-timeout", LIMIT]);
        let mut client = interceptor.client();
        let since = Instant::now();
        client.send(part);
        let response = client.response("GET");
        check_lasted(since, part);
        check_own_error(&response, &[408]);
        client.expect_end();
        assert!(origin.try_accept(Duration::ZERO).is_none());
    }
}

#[test]
fn a_request_head_that_arrives_too_slowly_is_a_408() {
    let (_origin, interceptor) = with(&["--head-timeout", LIMIT]);
    let mut client = interceptor.client();
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    // Each byte arrives in time, but the head is never complete (slowloris): the limit is on the whole head.
    client.set_timeout(Duration::from_millis(20));
    while client.try_fill() == Err(Stop::Silent) {
        client.offer("y");
        assert!(since.elapsed() < DEADLINE, "a slow head is never refused");
    }
    client.set_timeout(DEADLINE);
    let response = client.response("GET");
    check_lasted(since, "dripping");
    check_own_error(&response, &[408]);
}

#[test]
fn the_head_limit_does_not_apply_to_bodies_and_responses() {
    let (origin, interceptor) = with(&["--head-timeout", LIMIT]);
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nh");
    let mut served = origin.accept();
    let mut body = Body::new(served.request_head().1);
    served.expect_some(&mut body, "h");
    client.expect_silence(2 * LIMIT_LASTS);
    client.send("i");
    served.expect_some(&mut body, "i");
    client.expect_silence(2 * LIMIT_LASTS);
    served.send(OK);
    assert_eq!(
        client.response("POST").text(),
        "ok",
        "a model may need minutes to respond"
    );
}

#[test]
fn an_idle_connection_is_closed_without_a_response() {
    let (origin, interceptor) = with(&["--idle-timeout", LIMIT]);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    // A connection that waits for a response is not idle.
    client.expect_silence(2 * LIMIT_LASTS);
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
    let since = Instant::now();
    client.expect_eof();
    check_lasted(since, "between requests");
}

#[test]
fn a_connection_without_any_request_is_closed() {
    let (_origin, interceptor) = with(&["--idle-timeout", LIMIT, "--head-timeout", LIMIT]);
    let mut client = interceptor.client();
    let since = Instant::now();
    let (said, stop) = client.drain();
    check_lasted(since, "no bytes at all");
    assert_ne!(stop, Stop::Silent);
    assert!(
        said.is_empty() || latin1(&said).starts_with("HTTP/1.1 408 "),
        "{:?}",
        latin1(&said)
    );
}

#[test]
fn a_missing_response_is_a_504() {
    for (method, answer) in [("GET", ""), ("POST", ""), ("GET", "HTTP/1.1 200 OK\r\nX: ")] {
        let (origin, interceptor) = with(&["--first-byte-timeout", LIMIT]);
        let mut client = interceptor.client();
        let since = Instant::now();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
        ));
        let mut served = origin.accept();
        served.request();
        served.send(answer);
        let response = client.response(method);
        check_lasted(since, method);
        check_own_error(&response, &[504]);
        served.expect_end();
        assert!(
            origin.try_accept(Duration::ZERO).is_none(),
            "the request is not sent again: the origin may be processing it"
        );
    }
}

#[test]
#[cfg(unix)]
fn a_missing_response_of_an_origin_that_stopped_reading_is_a_504() {
    // Only on a Unix socket can an origin shut down reading and keep writing.
    let path = scratch_socket();
    let listener = UnixListener::bind(&path).expect("the temporary folder can be written");
    let interceptor = Launch::toward(format!("unix:{}", path.display()))
        .args(["--first-byte-timeout", LIMIT])
        .start();
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n");
    let (served, _) = listener.accept().expect("the interceptor connects");
    served.shutdown(Shutdown::Read).expect("it is connected");
    let since = Instant::now();
    client.send("twenty bytes of body");
    let response = client.response("POST");
    check_lasted(since, "the body is not read");
    check_own_error(&response, &[504]);
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn an_interim_response_does_not_end_the_first_byte_limit() {
    let (origin, interceptor) = with(&["--first-byte-timeout", LIMIT]);
    let mut client = interceptor.client();
    let since = Instant::now();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    assert_eq!(client.response_head("GET").0.start[1], "103");
    check_own_error(&client.response("GET"), &[504]);
    check_lasted(since, "after a 103");
    served.expect_end();
}

#[test]
fn the_first_byte_limit_does_not_apply_to_the_rest_of_the_response() {
    let (origin, interceptor) = with(&["--first-byte-timeout", LIMIT]);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    let mut body = Body::new(client.response_head("GET").1);
    client.expect_silence(2 * LIMIT_LASTS);
    served.send("ok");
    client.expect_some(&mut body, "ok");
}

#[test]
fn the_body_timeout_cuts_a_response_that_stalls() {
    let (origin, interceptor) = with(&["--body-timeout", LIMIT]);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n");
    let mut body = Body::new(client.response_head("GET").1);
    client.expect_some(&mut body, "he");
    let since = Instant::now();
    client.expect_cut(&mut body);
    check_lasted(since, "within a response");
    served.expect_end();
}

#[test]
fn a_request_body_that_stalls_is_a_408_with_the_body_timeout() {
    let (origin, interceptor) = with(&["--body-timeout", LIMIT]);
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello");
    let mut served = origin.accept();
    let mut body = Body::new(served.request_head().1);
    served.expect_some(&mut body, "hello");
    let since = Instant::now();
    let response = client.response("POST");
    check_lasted(since, "within a request");
    check_own_error(&response, &[408]);
    served.expect_end();
}

#[test]
fn the_body_timeout_cuts_a_client_that_does_not_read() {
    // Copied in user space, and spliced in the kernel.
    for lines in ["Transfer-Encoding: chunked", "Content-Length: 10000000000"] {
        let (origin, interceptor) = with(&["--body-timeout", LIMIT]);
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        served.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"));
        client.response_head("GET");
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(256);
        while served.offer(&chunk) {}
        // Checked before the client reads again, which would end its stall.
        served.set_timeout(LIMIT_LASTS);
        assert_ne!(
            served.drain().1,
            Stop::Silent,
            "the origin's connection is closed: {lines}"
        );
        let (_, stop) = client.drain();
        assert_eq!(stop, Stop::Reset, "the response is cut: {lines}");
    }
}

#[test]
fn an_origin_that_does_not_read_is_a_504_with_the_body_timeout() {
    // Long enough to tell the limit from twice the limit on any machine.
    const SECONDS: u64 = 4;
    let (origin, interceptor) = with(&["--body-timeout", &SECONDS.to_string()]);
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n");
    let mut served = origin.accept();
    served.request_head();
    let mut writer = client.twin();
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || while writer.offer(vec![b'x'; 1 << 20]) {});
        let response = client.response("POST");
        assert_eq!(check_own_error(&response, &[504]), "body_timeout");
        let lasted = since.elapsed().as_secs_f64() / SECONDS as f64;
        assert!((1.0..1.75).contains(&lasted), "{lasted} times the limit");
        client.close();
    });
}

#[test]
fn the_body_timeout_does_not_cut_an_origin_that_reads_slowly() {
    // Over TCP and in TLS.
    for config in [None, Some(tls::usual())] {
        if config.is_some() && !cfg!(feature = "tls") {
            continue;
        }
        let scheme = if config.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 8 << 10)
            .expect("the receive buffer can be set");
        let address = listener.local_addr().expect("it is bound");
        let interceptor = Launch::toward(format!("{scheme}://{address}"))
            .args(["--body-timeout", "0.5"])
            .start();
        let mut client = interceptor.client();
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n");
        let (stream, _) = listener.accept().expect("it connects");
        let twin = stream.try_clone().expect("a second handle");
        let mut served = match config {
            None => Conn::new(scheme, stream),
            Some(config) => Conn::secure(scheme, stream, config).expect("a handshake"),
        };
        served.request_head();
        let mut writer = client.twin();
        std::thread::scope(|scope| {
            scope.spawn(move || while writer.offer(vec![b'x'; 1 << 20]) {});
            scope.spawn(move || {
                // The content does not matter; it is read in small pieces.
                let mut piece = [0; 1024];
                while let Ok(1..) = std::io::Read::read(&mut &twin, &mut piece) {
                    std::thread::sleep(Duration::from_millis(30));
                }
            });
            client.set_timeout(Duration::from_secs(4));
            let answered = client.try_fill();
            for stream in [served.stream(), client.stream()] {
                // The connection may be closed already.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            assert_eq!(answered, Err(Stop::Silent), "{scheme}");
        });
    }
}

#[test]
fn a_client_that_waits_for_a_100_does_not_stall() {
    const HEAD: &str =
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let (origin, interceptor) = with(&["--body-timeout", LIMIT]);
    let mut client = interceptor.client();
    client.send(HEAD);
    let mut served = origin.accept();
    served.request_head();
    client.expect_silence(3 * LIMIT_LASTS);
    served.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.response_head("POST");
    client.send("hello");
    served.expect("hello");
    served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("POST").text(), "ok");

    // The limit starts with the 100, or immediately if the client does not wait for it.
    for part in ["", "he"] {
        let (mut client, since) = (interceptor.client(), Instant::now());
        client.send(format!("{HEAD}{part}"));
        let mut served = origin.accept();
        let (_, framing) = served.request_head();
        served.expect_some(&mut Body::new(framing), part);
        if part.is_empty() {
            served.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let response = client.response("POST");
        check_lasted(since, part);
        assert_eq!(check_own_error(&response, &[408]), "body_timeout");
    }
}

#[test]
fn a_client_that_does_not_read_the_interceptors_pages_is_disconnected() {
    const METRICS: &str = "GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (_origin, interceptor) = with(&["--body-timeout", LIMIT]);
    let mut client = interceptor.client();
    // Until the responses have filled all buffers.
    while client.offer(METRICS.repeat(1000)) {}
    let (_, stop) = client.drain();
    assert_ne!(stop, Stop::Silent);
}

/// A listener whose queue is full: it neither accepts nor refuses.
#[cfg(target_os = "linux")]
fn unanswering() -> (
    rustix::fd::OwnedFd,
    Vec<std::net::TcpStream>,
    std::net::SocketAddr,
) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let listener =
        socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket can be had");
    bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("loopback can be bound");
    listen(&listener, 0).expect("a bound socket can listen");
    let address =
        std::net::SocketAddr::try_from(getsockname(&listener).expect("a socket has a name"))
            .expect("an IPv4 address");
    let mut queue = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
    {
        queue.push(stream);
    }
    (listener, queue, address)
}

#[test]
#[cfg(target_os = "linux")]
fn a_connection_to_the_origin_that_times_out_is_a_504() {
    let (_listener, _queue, address) = unanswering();
    let interceptor = Launch::toward(format!("http://{address}"))
        .args(["--connect-timeout", LIMIT])
        .start();
    let mut client = interceptor.client();
    let since = Instant::now();
    client.send(GET);
    let response = client.response("GET");
    check_lasted(since, "connecting");
    check_own_error(&response, &[504]);
}

#[test]
fn an_invalid_limit_is_refused() {
    for (limit, value) in [
        ("--head-timeout", "-1"),
        ("--idle-timeout", "abc"),
        ("--connect-timeout", ""),
        ("--first-byte-timeout", "nan"),
        ("--body-timeout", "inf"),
        ("--grace", "1e999"),
        ("--max-connections", "-1"),
        ("--max-connections", "1.5"),
        ("--hold", "x"),
    ] {
        let (code, errors) = Launch::toward("http://127.0.0.1:9")
            .args([limit, value])
            .fail();
        assert_eq!(code, Some(2), "{limit} {value:?}: {errors}");
        assert!(
            errors.starts_with("ic: ") && errors.contains(limit),
            "the error names the option: {errors}"
        );
    }
}

/// A client that has received a response and is idle, as soon as the connection limit admits it.
#[track_caller]
fn served_client(interceptor: &Interceptor) -> Conn {
    let since = Instant::now();
    loop {
        let mut client = interceptor.client();
        client.offer(GET_HEALTH);
        if client
            .try_response("GET")
            .is_ok_and(|response| response.status == 200)
        {
            return client;
        }
        assert!(
            since.elapsed() < DEADLINE,
            "no connection becomes available"
        );
    }
}

/// A client whose request waits for its response, and the origin's side of it.
#[track_caller]
fn client_in_flight(origin: &Origin, interceptor: &Interceptor) -> (Conn, Conn) {
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    (client, served)
}

/// Puts the only client that is let in into a state in which it is not idle; what it returns keeps it there.
type Occupation = fn(&Origin, &Interceptor) -> Vec<Conn>;

#[test]
#[rustfmt::skip] // A table.
fn at_the_limit_a_client_that_is_not_idle_keeps_its_connection() {
    let rows: [(&str, Occupation); 5] = [
        ("it waits for a response", |origin, interceptor| {
            let (client, served) = client_in_flight(origin, interceptor);
            vec![client, served]
        }),
        ("it reads a response", |origin, interceptor| {
            let (mut client, mut served) = client_in_flight(origin, interceptor);
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            client.response_head("GET");
            vec![client, served]
        }),
        ("it sends a request body", |origin, interceptor| {
            let mut client = interceptor.client();
            client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe");
            let mut served = origin.accept();
            served.request_head();
            vec![client, served]
        }),
        ("it sends a request behind another one", |origin, interceptor| {
            let (mut client, mut served) = client_in_flight(origin, interceptor);
            client.send("GET / HT");
            served.send(OK);
            client.response("GET");
            vec![client, served]
        }),
        ("it has a tunnel", |origin, interceptor| {
            let mut client = interceptor.client();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            let mut served = origin.accept();
            served.request();
            served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            client.response_head("GET");
            vec![client, served]
        }),
    ];
    for (why, occupy) in rows {
        let (origin, interceptor) = with(&["--max-connections", "1"]);
        let mut idle = served_client(&interceptor);
        let mut occupied = occupy(&origin, &interceptor);
        idle.expect_eof();
        for _ in 0..3 {
            let mut other = interceptor.client();
            other.offer(GET);
            let response = other.response("GET");
            check_own_error(&response, &[503]);
            assert_eq!(response.fields.one("retry-after"), Some("1"), "{why}: {response:?}");
            other.expect_end();
        }
        assert!(occupied[0].is_open(), "{why}");
    }
}

#[test]
fn at_the_limit_the_longest_idle_client_makes_room() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .args(["--max-connections", "3"])
        .start();
    let mut first = served_client(&interceptor);
    let mut silent = interceptor.client();
    let mut second = served_client(&interceptor);
    // Since when it is idle counts, not since when it is connected.
    first.send(GET);
    assert_eq!(first.response("GET").text(), "ok");
    let mut newcomers: Vec<Conn> = Vec::new();
    for idle in [&mut silent, &mut second, &mut first] {
        assert!(idle.is_open());
        let mut client = interceptor.client();
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok");
        idle.expect_eof();
        newcomers.push(client);
    }
    for client in &mut newcomers {
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok", "it is still open");
    }
}

#[test]
fn at_the_limit_a_client_with_an_unread_request_is_not_idle() {
    const SERVED: usize = 4;
    let (origin, interceptor) = with(&["--max-connections", "4"]);
    let _idle = served_client(&interceptor);
    let mut clients: Vec<Conn> = (0..3 * SERVED)
        .map(|_| {
            let mut client = interceptor.client();
            client.offer(GET);
            client
        })
        .collect();
    let (first, others) = clients.split_at_mut(SERVED);
    let served: Vec<Conn> = first.iter().map(|_| origin.accept()).collect();
    for client in others {
        check_own_error(&client.response("GET"), &[503]);
    }
    for mut served in served {
        served.request();
        served.send(OK);
    }
    for client in first {
        assert_eq!(client.response("GET").text(), "ok");
    }
}

#[test]
fn refused_connections_do_not_count_toward_the_limit() {
    let (origin, interceptor) = with(&["--max-connections", "1"]);
    let _idle = served_client(&interceptor);
    let (first, _served) = client_in_flight(&origin, &interceptor);
    let mut turned_away = vec![interceptor.client()];
    turned_away[0].offer(GET);
    check_own_error(&turned_away[0].response("GET"), &[503]);
    first.close();
    // None of them disconnects after its response, and new ones arrive faster than the old ones are closed.
    let since = Instant::now();
    loop {
        let mut client = interceptor.client();
        client.offer(GET_HEALTH);
        let response = client.try_response("GET");
        if response.is_ok_and(|response| response.status == 200) {
            break;
        }
        turned_away.push(client);
        assert!(
            since.elapsed() < DEADLINE,
            "the free connection is available"
        );
    }
}

#[test]
fn hold_waits_for_an_origin_that_is_still_loading() {
    let port = free_port();
    let interceptor = Launch::toward(format!("{}://127.0.0.1:{port}", scheme()))
        .args(["--hold", "10"])
        .start();
    let mut clients: Vec<Conn> = (0..3).map(|_| interceptor.client()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    }
    clients[0].expect_silence(LIMIT_LASTS);
    let origin = Origin::listen_at(([127, 0, 0, 1], port).into());
    for _ in 0..3 {
        let mut served = origin.accept();
        assert_eq!(latin1(&served.request().body), "hello");
        served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    }
    for client in &mut clients {
        assert_eq!(client.response("POST").text(), "ok");
    }
    drop(interceptor);
}

#[test]
fn hold_limits_the_wait_for_a_loading_origin() {
    let interceptor = Launch::toward(format!("http://127.0.0.1:{}", free_port()))
        .args(["--hold", LIMIT])
        .start();
    let mut client = interceptor.client();
    let since = Instant::now();
    client.send(GET);
    let response = client.response("GET");
    check_lasted(since, "holding");
    check_own_error(&response, &[502]);
    assert_eq!(response.fields.one("retry-after"), Some("1"));
}

#[test]
fn hold_waits_for_every_error_of_a_target_that_has_not_started() {
    #[track_caller]
    fn check(target: &str, code: &str) {
        let interceptor = Launch::toward(target)
            .args(["--hold", LIMIT, "--connect-timeout", "0.1"])
            .start();
        let mut client = interceptor.client();
        let since = Instant::now();
        client.send(GET);
        let response = client.response("GET");
        check_lasted(since, code);
        assert_eq!(check_own_error(&response, &[502, 504]), code, "{target}");
    }
    check("http://no-such-host.invalid", "target_unresolved");
    check("http://127.0.0.1:1", "target_refused");
    check("unix:/no/such/socket", "target_refused");
    #[cfg(target_os = "linux")]
    {
        // A broadcast address cannot be connected to (ENETUNREACH); no packet is sent.
        check("http://127.255.255.255:9", "target_unreachable");
        let (port, waiting, listener) = crate::http_targets::silent_port();
        check(&format!("http://127.0.0.1:{port}"), "connect_timeout");
        drop((waiting, listener));
    }
}

/// How long, and how many bytes, the interceptor reads after the last response.
const LINGERS: Duration = Duration::from_secs(2);
const LINGERS_BYTES: usize = 512 << 20;

/// Requests whose response is the last of the connection.
const LAST: [(&str, u16, &str); 2] = [
    ("GET / HTTP/1.1\r\n\r\n", 400, "refused"),
    (
        "GET /_ic/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n",
        200,
        "a response before the end of the request body",
    ),
];

#[test]
fn a_client_that_sends_without_end_after_the_last_response_is_cut() {
    // The bytes may start after the response, and the last ones may arrive when the interceptor no longer reads.
    const BUFFERS: usize = 32 << 20;
    let (_, interceptor) = &agreeing();
    for (request, status, why) in LAST {
        let mut client = interceptor.client();
        client.send(request);
        let mut writer = client.twin();
        std::thread::scope(|scope| {
            let flood = scope.spawn(move || {
                let piece = vec![b'x'; 1 << 20];
                let mut pieces = 0;
                while pieces < 4 * LINGERS_BYTES / piece.len() && writer.offer(&piece) {
                    pieces += 1;
                }
                pieces * piece.len()
            });
            let mut healthy = interceptor.client();
            for _ in 0..10 {
                healthy.send(GET);
                assert_eq!(healthy.response("GET").text(), "ok", "{why}");
            }
            let sent = flood.join().expect("the thread does not panic");
            assert!(sent <= LINGERS_BYTES + BUFFERS, "{sent} bytes: {why}");
        });
        // Followed by a reset; the bytes before it can still be read.
        if let Ok(response) = client.try_response("GET") {
            assert_eq!(response.status, status, "{why}");
        }
    }
}

#[test]
fn a_client_that_sends_slowly_after_the_last_response_is_cut() {
    let (_, interceptor) = &agreeing();
    for (request, status, why) in LAST {
        let mut client = interceptor.client();
        client.send(request);
        let response = client.response("GET");
        assert_eq!(response.status, status, "{why}");
        let since = Instant::now();
        // A few more bytes arrive all the time.
        client.expect_eof();
        while client.offer("x") {
            let lasted = since.elapsed();
            assert!(
                lasted < LINGERS + Duration::from_secs(3),
                "{lasted:?}: {why}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let lasted = since.elapsed();
        assert!(lasted > Duration::from_secs(1), "{lasted:?}: {why}");
    }
}

#[test]
fn slow_heads_do_not_delay_other_clients() {
    const HEAD: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nX: ";
    let (_, interceptor) = &agreeing();
    let slow: Vec<Conn> = (0..200)
        .map(|number| {
            let mut client = interceptor.client();
            client.send(&HEAD[..1 + number % HEAD.len()]);
            client
        })
        .collect();
    let mut healthy = interceptor.client();
    for _ in 0..50 {
        healthy.send(GET);
        assert_eq!(healthy.response("GET").text(), "ok");
    }
    drop(slow);
}

/// The number of idle connections that this process and its child can have: `wanted`, or fewer if the limit on open
/// files requires it. That limit is raised to its maximum.
#[cfg(target_os = "linux")]
fn room_for_connections(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Descriptors for the other tests of this process.
    const OTHERS: u64 = 2000;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .expect("a limit can be raised to its maximum");
    let room = maximum.map_or(wanted, |maximum| maximum.saturating_sub(OTHERS));
    if room < wanted {
        println!("{room} connections, not {wanted}: at most {maximum:?} files may be open here");
    }
    room.min(wanted)
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_idle_connections_need_little_memory_and_no_cpu_time() {
    /// A task, a descriptor, two timers and a partial head. About a quarter is used.
    const BYTES_EACH: u64 = 16 * 1024;
    let count = room_for_connections(10_000);
    let origin = Origin::agreeing();
    let most = (count + 100).to_string();
    let limits = ["--max-connections", &most, "--idle-timeout", "0"];
    let interceptor = Launch::before(&origin)
        .args(limits)
        .args(["--head-timeout", "0"])
        .start();
    let mut healthy = served_client(&interceptor);
    let before = interceptor.memory().0;
    let idle: Vec<Conn> = (0..count)
        .map(|number| {
            let mut client = interceptor.client();
            match number % 4 {
                // Without a request, with a partial head, and after a response.
                0 => client.send("GET /half HTTP/1.1\r\nHost: loc"),
                1 if number % 100 == 1 => {
                    client.send(GET);
                    assert_eq!(client.response("GET").text(), "ok");
                }
                _ => {}
            }
            client
        })
        .collect();
    healthy.send(GET);
    assert_eq!(healthy.response("GET").text(), "ok");
    let held = interceptor.memory().0.saturating_sub(before);
    assert!(
        held < count * BYTES_EACH,
        "{held} bytes for {count} connections"
    );
    let descriptors = interceptor.descriptors() as u64;
    assert!(
        descriptors > count,
        "all connections are open: {descriptors}"
    );
    // Idle connections need no CPU time.
    let (worked, since) = (ticks(&interceptor), Instant::now());
    healthy.expect_silence(Duration::from_millis(500));
    let (worked, passed) = (ticks(&interceptor) - worked, since.elapsed());
    assert!(
        u128::from(worked) * 10 < passed.as_millis() / 5,
        "{worked} ticks of processor time in {passed:?}"
    );
    healthy.send(GET);
    assert_eq!(healthy.response("GET").text(), "ok");
    println!("{count} idle connections: {} bytes each", held / count);
    drop(idle);
    let since = Instant::now();
    while interceptor.descriptors() > 100 {
        assert!(since.elapsed() < DEADLINE, "the connections are closed");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Large requests in several states: what a client sends, and whether the origin then has it whole.
#[cfg(target_os = "linux")]
fn large_requests() -> [(&'static str, String, bool); 4] {
    let head = |method: &str, len: usize| {
        let field = "x".repeat(len);
        format!("{method} / HTTP/1.1\r\nHost: localhost\r\nX: {field}")
    };
    let body = "x".repeat(50_000);
    [
        ("an incomplete head", head("GET", 63_000), false),
        ("a smaller one", head("GET", 15_000), false),
        ("a head", head("GET", 63_000) + "\r\n\r\n", true),
        (
            "a head and a body",
            head("POST", 10_000) + "\r\nContent-Length: 50000\r\n\r\n" + &body,
            true,
        ),
    ]
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_many_large_requests_goes_back_to_the_system() {
    const CLIENTS: u64 = 400;
    /// The pools of buffers and tables that have grown.
    const KEPT_BYTES_MAX: u64 = 4 << 20;
    let count = room_for_connections(CLIENTS);
    for (why, request, is_whole) in large_requests() {
        // A session of TLS has memory of its own.
        let origin = Origin::listen_in_plain();
        let launch = Launch::before(&origin).args(["--head-timeout", "0"]);
        let interceptor = launch.start();
        served_client(&interceptor);
        let before = interceptor.memory().0;
        let mut clients: Vec<Conn> = (0..count).map(|_| interceptor.client()).collect();
        let mut in_flight = Vec::new();
        for client in &mut clients {
            client.send(&request);
            if is_whole {
                let mut served = origin.accept();
                served.request();
                in_flight.push(served);
            }
        }
        let grown = || interceptor.memory().0.saturating_sub(before);
        let held = request.len() as u64 * count;
        if is_whole {
            // The origin has the requests; nothing of them is needed any more.
            wait_until(why, true, || grown() < KEPT_BYTES_MAX);
        } else {
            wait_until(why, true, || grown() > held / 10 * 9);
        }
        drop(clients);
        drop(in_flight);
        wait_until(why, true, || grown() < KEPT_BYTES_MAX);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_responses_that_clients_did_not_read_goes_back_to_the_system() {
    use rustix::net::sockopt::set_socket_recv_buffer_size;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    const CLIENTS: u64 = 300;
    const BODY_BYTES: u64 = 60_000;
    let count = room_for_connections(CLIENTS);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let response = head + &"x".repeat(BODY_BYTES as usize);
    // A session of TLS has memory of its own.
    let origin =
        Origin::listen_in_plain().answers(move |_, _| Reply::Bytes(response.clone().into_bytes()));
    let interceptor = Interceptor::before(&origin);
    served_client(&interceptor);
    let before = interceptor.memory().0;
    let client = |_| {
        // A process that another test starts must not keep it open.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        let socket = socket.expect("a socket");
        set_socket_recv_buffer_size(&socket, 4 << 10).expect("the receive buffer can be set");
        connect(&socket, &interceptor.address()).expect("it listens");
        let mut client = Conn::new("client", socket.into());
        // More responses than the buffers of both sockets hold.
        client.send(GET.repeat(100));
        client
    };
    let mut clients: Vec<Conn> = (0..count).map(client).collect();
    let grown = || interceptor.memory().0.saturating_sub(before);
    let held = BODY_BYTES * count;
    wait_until("responses wait", true, || grown() > held / 10 * 9);
    // Its response lies behind those of the others, where an allocator takes it from.
    clients.drain(..clients.len() - 1);
    // The pools of buffers, and tables that have grown, stay.
    wait_until("they have left", true, || grown() < held / 3);
}

/// CPU time that a process has used, in ticks of 10 ms.
#[cfg(target_os = "linux")]
fn ticks(interceptor: &Interceptor) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", interceptor.pid()))
        .expect("a running process has a status");
    // After the name of the program in parentheses: utime and stime are the 12th and 13th field.
    let (_, rest) = stat
        .rsplit_once(')')
        .expect("the name stands in parentheses");
    rest.split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

/// Limits the number of its descriptors; returns the previous limit.
#[cfg(target_os = "linux")]
fn limit_descriptors(interceptor: &Interceptor, limit: Option<u64>) -> Option<u64> {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let pid = Pid::from_raw(interceptor.pid().cast_signed());
    let limit = Rlimit {
        current: limit,
        // The child has inherited the limit of this process.
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(pid, Resource::Nofile, limit).expect("a child's limit can be set");
    before.current
}

#[test]
#[cfg(target_os = "linux")]
fn a_request_without_a_free_descriptor_is_a_503_and_not_a_failure_of_the_target() {
    let (origin, interceptor) = agreeing();
    let mut client = interceptor.client();
    // A response proves that the connection was accepted.
    client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response("GET");
    let before = limit_descriptors(&interceptor, Some(0));
    client.send(GET);
    let response = client.response("GET");
    limit_descriptors(&interceptor, before);
    assert_eq!(check_own_error(&response, &[503]), "no_descriptors");
    let text = response.text();
    assert!(
        text.contains("ulimit -n"),
        "the error says what to do: {text}"
    );
    assert_eq!(response.fields.one("retry-after"), Some("1"));
    assert!(origin.requests().is_empty());
    served_client(&interceptor);
}

#[test]
#[cfg(target_os = "linux")]
fn clients_without_a_free_descriptor_wait_and_the_log_warns_once() {
    const WARNING: &str = "cannot accept connections for now";
    let (_, interceptor) = &agreeing();
    let before = limit_descriptors(interceptor, Some(0));
    let mut clients: Vec<Conn> = (0..3).map(|_| interceptor.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    interceptor.wait_for_errors("a warning", |said| said.contains(WARNING));
    // Time for several attempts.
    clients[0].expect_silence(Duration::from_secs(1));
    let said = interceptor.errors();
    assert_eq!(said.matches(WARNING).count(), 1, "{said}");
    assert!(
        said.contains("ulimit -n"),
        "the warning says what to do: {said}"
    );
    limit_descriptors(interceptor, before);
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "ok");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_interceptor_recovers_from_a_lack_of_descriptors_without_a_busy_loop() {
    const ROOM: u64 = 12;
    let (origin, interceptor) = agreeing();
    drop(served_client(&interceptor));
    let now = u64::try_from(interceptor.descriptors()).expect("a small number");
    limit_descriptors(&interceptor, Some(now + ROOM));
    let mut clients: Vec<Conn> = (0..3 * ROOM).map(|_| interceptor.client()).collect();
    for client in &mut clients {
        client.offer(GET);
    }
    // Some are served, some refused, some wait in the queue of the listener; there must be no busy loop.
    let (before, since) = (ticks(&interceptor), Instant::now());
    clients
        .last_mut()
        .expect("there are some")
        .set_timeout(Duration::from_millis(500));
    let last = clients.last_mut().expect("there are some").try_fill();
    let (used, passed) = (ticks(&interceptor) - before, since.elapsed());
    if last == Err(Stop::Silent) {
        assert!(
            u128::from(used) * 10 < passed.as_millis() / 2,
            "{used} ticks of processor time in {passed:?}"
        );
    }
    drop(clients);
    // It recovers by itself.
    let mut client = served_client(&interceptor);
    client.send(GET);
    assert_eq!(client.response("GET").text(), "ok");
    assert!(!origin.requests().is_empty());
}
