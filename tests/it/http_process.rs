//! The process: what it prints at start, why it does not start, how it stops, and what it must never print.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn the_start_prints_the_url_the_target_and_the_source_of_the_port() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .args(["--instance-id", "me-1"])
        .start();
    let said = interceptor.wait_for_errors("the listening URL", |said| {
        said.contains(&interceptor.port.to_string()) && said.contains("me-1")
    });
    assert!(said.contains(&origin.url()), "the target: {said}");
    assert!(said.contains("--port"), "the source of the port: {said}");
    drop(interceptor);
}

#[test]
fn it_listens_on_both_loopback_addresses() {
    let (_, interceptor) = &agreeing();
    let mut addresses = vec![interceptor.address()];
    if has_ipv6() {
        addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, interceptor.port)));
    }
    for address in addresses {
        let mut client = Conn::connect("client", address);
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok", "{address}");
    }
}

#[test]
fn it_listens_beyond_loopback_only_with_host_and_warns() {
    let origin = Origin::agreeing();
    let quiet = Interceptor::before(&origin);
    let said = quiet.errors().to_lowercase();
    assert!(!said.contains("warn"), "no warning: {said}");
    // 127.0.0.2 is loopback, but not one of the two addresses: only a wildcard listener answers there.
    if cfg!(target_os = "linux") {
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], quiet.port));
        assert!(
            TcpStream::connect_timeout(&elsewhere, DEADLINE).is_err(),
            "it listens on every address"
        );
    }
    let loud = Launch::before(&origin).args(["--host", "0.0.0.0"]).start();
    let said = loud
        .wait_for_errors("a warning", |said| said.contains("0.0.0.0"))
        .to_lowercase();
    assert!(
        said.contains("warn") || said.contains("network") || said.contains("reach"),
        "a warning that other machines can connect: {said}"
    );
    drop((quiet, loud));
}

#[test]
fn host_may_be_repeated_and_a_star_is_all_addresses() {
    let rows: &[(&[&str], [bool; 3])] = &[
        (
            &["--host", "127.0.0.1", "--host", "127.0.0.1"],
            [true, false, false],
        ),
        (
            &["--host", "127.0.0.1", "--host", "::1"],
            [true, false, true],
        ),
        (
            &["--host", "localhost", "--host", "127.0.0.2"],
            [true, true, true],
        ),
        (&["--host", "*"], [true, true, true]),
        (
            &["--host", "127.0.0.1", "--host", "*", "--host", "::"],
            [true, true, true],
        ),
    ];
    for (arguments, expected) in rows {
        // Elsewhere 127.0.0.2 is no address, and without IPv6 neither is ::1.
        let takes = |word: &str| arguments.contains(&word);
        if (takes("127.0.0.2") && !cfg!(target_os = "linux")) || (takes("::1") && !has_ipv6()) {
            continue;
        }
        let origin = Origin::listen();
        let launch = Launch::before(&origin).args(arguments.iter().copied());
        let interceptor = launch.start();
        let answers = ["127.0.0.1", "127.0.0.2", "::1"].map(|ip| {
            let ip: IpAddr = ip.parse().expect("an address");
            let address = SocketAddr::new(ip, interceptor.port);
            TcpStream::connect_timeout(&address, DEADLINE).is_ok()
        });
        let mut expected = *expected;
        expected[1] &= cfg!(target_os = "linux");
        expected[2] &= has_ipv6();
        assert_eq!(answers, expected, "{arguments:?}");
    }
    let arguments = ["--host", "localhost", "--host", "192.0.2.1"];
    let (code, errors) = Launch::toward("http://x").args(arguments).fail();
    assert_eq!(code, Some(3), "not of this machine: {errors}");
    assert!(errors.contains("192.0.2.1"), "{errors}");
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_the_holder() {
    let mut hosts = vec!["127.0.0.1"];
    if has_ipv6() {
        hosts.push("::1");
    }
    for host in hosts {
        let holder = TcpListener::bind((host, 0)).expect("loopback can be listened on");
        let port = holder
            .local_addr()
            .expect("a listener has an address")
            .port();
        let (code, errors) = Launch::toward("http://127.0.0.1:9").on(port).fail();
        assert_eq!(code, Some(3), "{host}: {errors}");
        let line = errors
            .lines()
            .find(|line| line.starts_with("ic: "))
            .unwrap_or_else(|| panic!("a line that begins with `ic: `: {errors}"));
        assert!(line.contains(&port.to_string()), "{line}");
        if cfg!(target_os = "linux") && tells_who_listens() {
            assert!(
                line.contains(&std::process::id().to_string()),
                "the holder of the port: {line}"
            );
        }
    }
}

#[test]
fn a_second_interceptor_of_the_same_project_says_that_the_first_is_running() {
    let origin = Origin::agreeing();
    let launch = Launch::before(&origin);
    let folder = launch.folder().clone();
    let first = launch.start();
    let (code, errors) = Launch::before(&origin)
        .in_folder(folder)
        .on(first.port)
        .fail();
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains("already running"), "{errors}");
    assert!(errors.contains(&first.port.to_string()), "{errors}");
    let (code, errors) = Launch::before(&origin).on(first.port).fail();
    assert_eq!(code, Some(3), "{errors}");
    assert!(
        errors.contains(&first.pid().to_string()) || !cfg!(target_os = "linux"),
        "the interceptor of another project is named as a program: {errors}"
    );
    drop(first);
}

#[test]
fn a_target_that_is_the_interceptor_itself_is_refused() {
    let port = free_port();
    for target in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}/v1"),
        format!("http://[::1]:{port}"),
    ] {
        let (code, errors) = Launch::toward(&target).on(port).fail();
        assert_eq!(code, Some(2), "{target}: {errors}");
        assert!(errors.starts_with("ic: "), "{errors}");
    }
}

#[test]
fn an_invalid_value_is_refused_by_name() {
    let rows: [(&[&str], &str); 9] = [
        (&["--target", "ftp://x"], "an unsupported scheme"),
        (&["--target", "http://"], "no host"),
        (&["--target", "localhost:8764"], "no scheme"),
        (&["--target", "http://x:99999"], "no port"),
        (&["--target", "http://x/a b"], "a space"),
        (
            &["--target", "http://x/\r\nX: y"],
            "a line break, which would be sent in a field",
        ),
        (
            &["--target", "http://x", "--instance-id", "a\r\nX: y"],
            "a line break in the id",
        ),
        (
            &["--target", "http://x", "--instance-id", "a\u{7}"],
            "a control character in the id",
        ),
        (
            &["--target", "http://x", "--host", "no such host"],
            "not a host to listen on",
        ),
    ];
    for (arguments, why) in rows {
        let (code, errors) = Launch::bare().args(arguments.iter().copied()).fail();
        let codes: &[i32] = if arguments.contains(&"--host") {
            &[2, 3]
        } else {
            &[2]
        };
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "{arguments:?} ({why}): {code:?} {errors}"
        );
        assert!(
            errors.starts_with("ic: ") && !errors.contains("panicked"),
            "{why}: {errors}"
        );
    }
    for (host, why) in [
        ("192.0.2.1", "of another machine"),
        ("fe80::1", "without an interface"),
    ] {
        let (code, errors) = Launch::toward("http://x").args(["--host", host]).fail();
        assert_eq!(code, Some(3), "{why}: {errors}");
        assert!(
            errors.contains("; give an address of this machine with --host"),
            "{why}: {errors}"
        );
    }
    let (code, errors) = Launch::toward("http://x").on(0).fail();
    assert_eq!(code, Some(2), "not a port to listen on: {errors}");
}

fn send_event(served: &mut Conn, event: &str) {
    served.send(format!("{:x}\r\n{event}\r\n", event.len()));
}

/// A stream in flight: the head and one event have arrived.
#[track_caller]
fn streaming(origin: &Origin, interceptor: &Interceptor) -> (Conn, Conn, Body) {
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n");
    let mut body = Body::new(client.response_head("GET").1);
    client.expect_some(&mut body, "he");
    (served, client, body)
}

/// Waits until connections to this address are refused.
#[track_caller]
fn wait_until_refused(address: SocketAddr) {
    let since = Instant::now();
    while TcpStream::connect_timeout(&address, DEADLINE).is_ok() {
        assert!(
            since.elapsed() < DEADLINE,
            "{address} still accepts connections"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_signal_lets_requests_in_flight_finish() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        if signal == Signal::HUP && is_ignored(signal) {
            continue;
        }
        let (origin, mut interceptor) = scripted();
        let (mut served, mut client, mut body) = streaming(&origin, &interceptor);
        let mut waiting = interceptor.client();
        waiting.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
        let mut other = origin.accept();
        other.request();
        let mut idle = interceptor.client();
        idle.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        idle.response("GET");
        interceptor.signal(signal);
        wait_until_refused(interceptor.address());
        idle.expect_end();
        for _ in 0..3 {
            send_event(&mut served, "ll");
            client.expect_some(&mut body, "ll");
        }
        served.send("0\r\n\r\n");
        client.expect_end_of(&mut body);
        other.send(OK);
        assert_eq!(
            waiting.response("POST").text(),
            "ok",
            "a request that waits for its response is in flight"
        );
        assert_eq!(
            interceptor.exit_within(Duration::from_secs(5)).code(),
            Some(0),
            "{signal:?}: {}",
            interceptor.errors()
        );
        // Closed, because a further request would not be served.
        client.expect_end();
        waiting.expect_end();
    }
}

#[test]
fn a_hangup_does_not_stop_it_under_nohup() {
    let origin = Origin::agreeing();
    let mut interceptor = Launch::before(&origin).under(&["nohup"]).start();
    interceptor.signal(Signal::HUP);
    // The first answer may come before the signal is handled, and a client that connects while it stops would get none.
    for _ in 0..3 {
        interceptor.health();
    }
    interceptor.terminate();
    let ended = interceptor.exit_within(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{}", interceptor.errors());
}

#[test]
fn a_warning_that_repeats_is_logged_once_and_counted_at_the_end() {
    let mut interceptor = Launch::toward(format!("http://127.0.0.1:{}", free_port())).start();
    for _ in 0..4 {
        let mut client = interceptor.client();
        client.send(GET);
        check_own_error(&client.response("GET"), &[502]);
    }
    interceptor.terminate();
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
    let said = interceptor.wait_for_errors("the count", |said| said.contains(" more)"));
    let warnings = said.lines().filter_map(|line| line.split_once("WARN"));
    let warnings: Vec<&str> = warnings.map(|(_, warning)| warning).collect();
    let [first, last] = warnings[..] else {
        panic!("one line, and the count: {said}");
    };
    assert_eq!(last.strip_suffix(" (3 more)"), Some(first), "{said}");
}

#[test]
fn a_signal_without_requests_in_flight_ends_it_immediately() {
    let (_origin, mut interceptor) = scripted();
    let idle: Vec<Conn> = (0..5).map(|_| interceptor.client()).collect();
    interceptor.terminate();
    assert_eq!(
        interceptor.exit_within(Duration::from_secs(3)).code(),
        Some(0)
    );
    drop(idle);
}

#[test]
fn requests_that_do_not_finish_within_the_grace_period_are_cut() {
    let origin = Origin::listen();
    let mut interceptor = Launch::before(&origin).args(["--grace", "0.3"]).start();
    let (mut served, mut client, mut body) = streaming(&origin, &interceptor);
    let since = Instant::now();
    interceptor.terminate();
    assert_eq!(
        interceptor.exit_within(Duration::from_secs(5)).code(),
        Some(0)
    );
    assert!(
        since.elapsed() > Duration::from_millis(200),
        "cut before the end of the grace period: {:?}",
        since.elapsed()
    );
    client.expect_cut(&mut body);
    served.expect_end();
}

#[test]
fn without_a_grace_period_it_ends_immediately() {
    let origin = Origin::listen();
    let mut interceptor = Launch::before(&origin).args(["--grace", "0"]).start();
    let streams = [(); 2].map(|()| streaming(&origin, &interceptor));
    interceptor.terminate();
    let status = interceptor.exit_within(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    for (mut served, mut client, mut body) in streams {
        client.expect_cut(&mut body);
        served.expect_end();
    }
}

#[test]
fn a_response_until_close_is_reset_at_the_end_of_the_grace_period() {
    let origin = Origin::listen();
    let mut interceptor = Launch::before(&origin).args(["--grace", "0.3"]).start();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 200 OK\r\n\r\npart");
    let mut body = Body::new(client.response_head("GET").1);
    client.expect_some(&mut body, "part");
    interceptor.terminate();
    interceptor.exit_within(Duration::from_secs(5));
    client.expect_cut(&mut body);
    served.expect_end();
}

#[test]
fn a_second_signal_ends_it_immediately() {
    let (origin, mut interceptor) = scripted();
    let (mut served, mut client, mut body) = streaming(&origin, &interceptor);
    interceptor.terminate();
    wait_until_refused(interceptor.address());
    send_event(&mut served, "llo");
    client.expect_some(&mut body, "llo");
    interceptor.terminate();
    interceptor.exit_within(Duration::from_secs(2));
    client.expect_cut(&mut body);
    served.expect_end();
}

#[test]
fn secrets_never_reach_the_log() {
    const SECRET: &str = "sEcReT";
    let origin = Origin::answering(|request, _| match request.target.as_str() {
        target if target.starts_with("/bad") => Reply::BytesThenClose(
            format!("HTTP/1.1 200 {SECRET}\0\r\nSet-Cookie: {SECRET}\r\n\r\n{SECRET}").into_bytes(),
        ),
        _ => Reply::Bytes(
            format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: a={SECRET}\r\nContent-Length: 6\r\n\r\n{SECRET}"
            )
            .into_bytes(),
        ),
    });
    for level in ["trace", "debug"] {
        let mut interceptor = Launch::before(&origin)
            .env("RUST_LOG", level)
            .args(["--header", &format!("Authorization: Bearer {SECRET}")])
            .start();
        let fields = format!(
            "Authorization: Bearer {SECRET}\r\nauthorization: {SECRET}\r\napi-key: {SECRET}\r\nX-API-Key: {SECRET}\r\nCookie: a={SECRET}\r\nProxy-Authorization: {SECRET}\r\nx-goog-api-key: {SECRET}\r\n"
        );
        for request in [
            format!(
                "GET /visible?key={SECRET}&a={SECRET} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
            ),
            format!(
                "GET http://localhost/visible?key={SECRET} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
            ),
            format!(
                "POST /visible HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 6\r\n\r\n{SECRET}"
            ),
            format!(
                "POST /visible HTTP/1.1\r\nHost: localhost\r\n{fields}Transfer-Encoding: chunked\r\n\r\n6;{SECRET}\r\n{SECRET}\r\n0\r\nX: {SECRET}\r\n\r\n"
            ),
            format!("GET /bad?key={SECRET} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"),
            // Malformed requests: quotations in errors must not contain secrets either.
            format!(
                "GET /visible?key={SECRET} HTTP/1.1\r\nHost: localhost\r\nAuthorization : {SECRET}\r\n\r\n"
            ),
            format!(
                "GET /visible?key={SECRET} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {SECRET}\x01\0\r\n\r\n"
            ),
            format!("GET /visible?key={SECRET}\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("GET /visible?key={SECRET} HTTP/1.1\r\nHost: evil.example\r\n{fields}\r\n"),
            format!("GET /visible?key={SECRET}#x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!(
                "POST /visible HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx{SECRET}\r\n"
            ),
            format!(
                "POST /visible HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SECRET}\r\n\r\n"
            ),
            format!(
                "GET /visible?key={SECRET} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example/?{SECRET}\r\n\r\n"
            ),
        ] {
            let mut client = interceptor.client();
            client.send(&request);
            client.response("GET");
        }
        interceptor.terminate();
        interceptor.exit_within(DEADLINE);
        let said = interceptor.errors();
        assert!(said.contains("/visible"), "the log is not empty: {said}");
        let leaks: Vec<&str> = said.lines().filter(|line| line.contains(SECRET)).collect();
        assert!(leaks.is_empty(), "RUST_LOG={level}: {leaks:#?}");
        let control = |line: &&str| {
            line.chars()
                .any(|character| character.is_control() && character != '\t')
        };
        assert!(
            !said.lines().any(|line| control(&line)),
            "no control characters: {said:?}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn many_exchanges_leak_no_memory_and_no_descriptors() {
    let (origin, interceptor) = agreeing();
    let exchange = |connection: &str| {
        let mut client = interceptor.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
        ));
        assert_eq!(client.response("GET").text(), "ok");
    };
    for _ in 0..20 {
        exchange("close");
    }
    let before = interceptor.descriptors();
    for number in 0..400 {
        exchange(if number % 2 == 0 {
            "close"
        } else {
            "keep-alive"
        });
        let mut client = interceptor.client();
        client.send(if number % 2 == 0 {
            "GET /half"
        } else {
            "\0\r\n\r\n"
        });
    }
    let since = Instant::now();
    while interceptor.descriptors() > before + 2 {
        assert!(
            since.elapsed() < DEADLINE,
            "{} descriptors, {before} before",
            interceptor.descriptors()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(origin.requests().len() >= 420);
}
