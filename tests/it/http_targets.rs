//! Methods and targets are forwarded unchanged; a target may have a base path, or be a Unix socket.

use crate::support::tls::scheme;
use crate::support::{self, *};

/// A port of 127.0.0.1 with a full queue, so that connections to it are neither accepted nor refused.
#[cfg(target_os = "linux")]
pub fn silent_port() -> (u16, Vec<std::net::TcpStream>, rustix::fd::OwnedFd) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    bind(&listener, &address).expect("the port is free");
    listen(&listener, 0).expect("it is bound");
    let waiting = (0..64)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok());
    let waiting: Vec<_> = waiting.collect();
    assert!(waiting.len() < 64, "the queue is never full");
    (port, waiting, listener)
}

#[test]
#[cfg(target_os = "linux")]
fn another_address_is_tried_while_one_does_not_respond() {
    if !has_ipv6() {
        eprintln!("skipped: there is no ::1 here");
        return;
    }
    let (port, waiting, listener) = silent_port();
    let ok = |_: &Request, _: usize| {
        Reply::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    };
    let address = (std::net::Ipv6Addr::LOCALHOST, port).into();
    let origin = Origin::answering_at(address, ok);
    let interceptor = Launch::toward(format!("{}://localhost:{port}", scheme())).start();
    for _ in 0..3 {
        let mut client = interceptor.client();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = client.response("GET");
        assert_eq!(response.text(), "ok", "{response:?}");
    }
    drop((origin, waiting, listener));
}

#[test]
fn targets_are_forwarded_unchanged() {
    let long = format!("/{}?{}", "a".repeat(4000), "b=c&".repeat(1000));
    let rows: [(&str, &str); 22] = [
        ("/", "the shortest"),
        ("/a", "a path"),
        ("/a?b=c", "a query"),
        ("/?", "an empty query differs from no query (RFC 3986 §3.4)"),
        (
            "/a?b?c?d",
            "a query may contain question marks (RFC 3986 §3.4)",
        ),
        (
            "/%2F%2e%2E/%7Euser",
            "escapes are not normalised (RFC 3986 §6.2.2 is about comparing, not forwarding)",
        ),
        (
            "/%00%0d%0a",
            "escaped control characters are left to the origin",
        ),
        ("/a//b", "empty segments are kept (RFC 3986 §3.3)"),
        (
            "//a",
            "a path may begin with two slashes in origin-form (RFC 9112 §3.2.1)",
        ),
        ("///", "only empty segments"),
        (
            "/a/./b/../c",
            "dot segments are left to the origin (RFC 9112 §3.2.1: unmodified)",
        ),
        ("/../../etc/passwd", "dot segments above the root"),
        ("/a;b=c,d", "parameters in a segment"),
        (
            "/~!$&'()*+,;=:@-._",
            "every unescaped character of a segment (RFC 3986 §3.3)",
        ),
        ("/?~!$&'()*+,;=:@-._/?", "the same in a query"),
        ("/http://example.org/", "a path that looks like a URI"),
        (
            "/?u=http://example.org/a?b#".trim_end_matches('#'),
            "a query that looks like a URI",
        ),
        ("/v1/messages?beta=true", "sent by Anthropic clients"),
        ("/v1/chat/completions", "sent by OpenAI clients"),
        (
            "/_ic",
            "only the two pages of the interceptor are not forwarded",
        ),
        ("/_ic/healthy", "a longer name is forwarded"),
        (&long, "long, within the limit"),
    ];
    let stage = Stage::new();
    for (target, why) in rows {
        let seen = stage.forwarded(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(
            (
                seen.method.as_str(),
                seen.target.as_str(),
                seen.version.as_str()
            ),
            ("GET", target, "HTTP/1.1"),
            "{why}"
        );
    }
    count("forwarding: targets", rows.len());
}

#[test]
fn a_target_with_invalid_bytes_is_forwarded_unchanged_or_refused() {
    let rows: [(&[u8], &str); 9] = [
        (
            b"/a|b",
            "a pipe: many clients send it, but RFC 3986 does not allow it",
        ),
        (b"/a?q={x}", "braces"),
        (b"/a?q[0]=1", "brackets outside an IP literal"),
        (b"/a\"b", "a quotation mark"),
        (b"/<a>", "angle brackets"),
        (b"/a\\b", "a backslash"),
        (b"/a^`b", "caret and backtick"),
        (b"/%zz", "a percent sign that escapes nothing"),
        (b"/\xc3\xa4\xff", "bytes above ASCII"),
    ];
    let stage = Stage::new();
    for (target, why) in rows {
        stage.origin.forget();
        let mut client = stage.interceptor.client();
        client.send([b"GET ", target, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
        let response = client.response("GET");
        let seen: Vec<String> = stage
            .origin
            .requests()
            .into_iter()
            .map(|request| request.target)
            .collect();
        match response.status {
            200 => assert_eq!(seen, [latin1(target)], "{why}"),
            _ => {
                check_own_error(&response, &[400]);
                assert!(seen.is_empty(), "{why}");
            }
        }
    }
    count("forwarding: odd targets", rows.len());
}

#[test]
fn a_target_in_absolute_form_is_forwarded_in_origin_form() {
    let rows: [(&str, &str, &str, &str); 9] = [
        (
            "GET",
            "http://localhost/a?b",
            "/a?b",
            "RFC 9112 §3.2.2, §3.2.1",
        ),
        ("GET", "http://localhost:8080/a", "/a", "with a port"),
        ("GET", "http://127.0.0.1/", "/", "with an address"),
        ("GET", "http://[::1]:1/x", "/x", "with an IPv6 address"),
        (
            "GET",
            "HTTP://LOCALHOST/A",
            "/A",
            "scheme and host are case-insensitive (RFC 9110 §4.2.3), the path is not",
        ),
        (
            "GET",
            "http://localhost",
            "/",
            "an empty path is sent as / (RFC 9112 §3.2.1)",
        ),
        (
            "GET",
            "http://localhost?x=1",
            "/?x=1",
            "an empty path before a query",
        ),
        (
            "POST",
            "http://localhost//a//b",
            "//a//b",
            "the path is not changed",
        ),
        (
            "OPTIONS",
            "http://localhost",
            "*",
            "OPTIONS without a path is about the whole server (RFC 9112 §3.2.4)",
        ),
    ];
    let stage = Stage::new();
    for (method, target, expected, why) in rows {
        let seen = stage.forwarded(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (method, expected),
            "{why}"
        );
        assert_eq!(
            seen.fields.one("host"),
            Some(&stage.origin.address().to_string()[..]),
            "{why}"
        );
    }
    let seen = stage.forwarded("GET http://localhost/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(
        seen.target, "/",
        "the target's host counts and Host is ignored (RFC 9112 §3.2.2)"
    );
    count("forwarding: absolute-form", rows.len() + 1);
}

#[test]
fn methods_are_forwarded_unchanged() {
    let methods = [
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "QUERY",
        "PROPFIND",
        "M-SEARCH",
        "get",
        "Get",
        "!#$%&'*+-.^_`|~09aZ",
    ];
    let stage = Stage::new();
    for method in methods {
        let seen = stage.forwarded(format!("{method} /m HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (method, "/m"),
            "any token is a method, case-sensitive (RFC 9110 §9.1)"
        );
    }
    let seen = stage.forwarded("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("OPTIONS", "*"),
        "asterisk-form (RFC 9112 §3.2.4)"
    );
    count("forwarding: methods", methods.len() + 1);
}

#[test]
fn a_base_path_is_prepended_without_doubling_v1() {
    let rows = [
        ("", "/a", "/a", "no base path"),
        ("/", "/a", "/a", "the root is no base path"),
        ("/base", "/a?b", "/base/a?b", "in front"),
        (
            "/base/",
            "/a",
            "/base/a",
            "a slash at the end is not doubled",
        ),
        ("/base", "/", "/base/", "before the root"),
        ("/base", "/base/a", "/base/base/a", "only /v1 is special"),
        ("/v1", "/v1/models", "/v1/models", "not doubled"),
        (
            "/v1/",
            "/v1/models?x=1",
            "/v1/models?x=1",
            "not doubled with a slash at the end",
        ),
        ("/v1", "/models", "/v1/models", "added if it is missing"),
        (
            "/api/v1",
            "/v1/models",
            "/api/v1/models",
            "at the end of a longer base",
        ),
        ("/v1", "/v1", "/v1", "the segment alone"),
        (
            "/v1",
            "/v1?x=/v1/y",
            "/v1?x=/v1/y",
            "the segment before a query",
        ),
        (
            "/v1",
            "/v1beta/models",
            "/v1/v1beta/models",
            "only a whole segment is not doubled",
        ),
        (
            "/v1",
            "/V1/models",
            "/v1/V1/models",
            "paths are case-sensitive",
        ),
        (
            "/v1",
            "/x/v1/models",
            "/v1/x/v1/models",
            "only at the start",
        ),
    ];
    for (base, target, expected, why) in rows {
        let stage = Stage::launch(base, |launch| launch);
        let seen = stage.forwarded(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(seen.target, expected, "{base:?} + {target:?}: {why}");
        let seen = stage.forwarded(format!(
            "GET http://localhost{target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        assert_eq!(
            seen.target, expected,
            "{base:?} + {target:?} in absolute-form: {why}"
        );
    }
    let stage = Stage::launch("/base", |launch| launch);
    assert_eq!(
        stage
            .forwarded("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .target,
        "*",
        "asterisk-form has no path"
    );
    count("forwarding: base paths", 2 * rows.len() + 1);
}

#[test]
#[cfg(unix)]
fn a_target_can_be_a_unix_socket() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    let path = scratch_socket();
    let listener = UnixListener::bind(&path).expect("the temporary folder can be written");
    let interceptor = Launch::toward(format!("unix:{}", path.display())).start();
    let mut client = interceptor.client();
    for number in 0..3 {
        client.send(format!(
            "GET /{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
        let (mut served, _) = listener.accept().expect("the interceptor connects");
        served
            .set_read_timeout(Some(DEADLINE))
            .expect("a read deadline can be set");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            served.read_exact(&mut byte).expect("the head goes on");
            head.extend(byte);
        }
        let head = support::message::read_request_head(&head).expect("a well-formed head");
        assert_eq!(head.start[1], format!("/{number}"));
        assert!(
            head.fields
                .one("host")
                .is_some_and(|host| !host.contains('/')),
            "the path of a socket is not a host: {head:?}"
        );
        served
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .expect("it is read");
        assert_eq!(client.response("GET").text(), "ok");
        client = interceptor.client();
    }
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn options_and_trace_end_where_max_forwards_says() {
    let stage = Stage::new();
    for method in ["OPTIONS", "TRACE"] {
        for (sent, expected) in [("1", "0"), ("10", "9")] {
            let seen = stage.forwarded(format!(
                "{method} / HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: {sent}\r\n\r\n"
            ));
            let left = seen.fields.one("max-forwards");
            assert_eq!(left, Some(expected), "RFC 9110 §7.6.2: one less, {method}");
        }
        stage.origin.forget();
        let mut client = stage.interceptor.client();
        client.send(format!(
            "{method} /a?key=secret HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\nAuthorization: Bearer secret\r\nX: y\r\n\r\n"
        ));
        let response = client.response(method);
        assert_eq!(response.status, 200, "{method}");
        assert!(
            stage.origin.requests().is_empty(),
            "{method} is answered here"
        );
        let text = response.text();
        assert!(
            !text.contains("secret"),
            "RFC 9110 §9.3.8: no credentials: {text}"
        );
        if method == "TRACE" {
            assert_eq!(response.fields.one("content-type"), Some("message/http"));
            assert!(text.starts_with("TRACE /a"), "{text}");
            assert!(
                text.contains("\r\nX: y\r\n") && text.ends_with("\r\n\r\n"),
                "{text}"
            );
        } else {
            assert_eq!(text, "");
        }
        client.send("GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(
            client.response("GET").status,
            200,
            "the connection persists"
        );
    }
    let seen = stage.forwarded("GET / HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(
        seen.fields.one("max-forwards"),
        Some("0"),
        "other methods ignore it"
    );
}

#[test]
fn own_pages_keep_the_connection_of_an_http_1_0_client_that_asks_for_it() {
    let stage = Stage::new();
    for (path, head) in [
        ("/_ic/health", false),
        ("/_ic/metrics", false),
        ("/_ic/health", true),
    ] {
        let method = if head { "HEAD" } else { "GET" };
        let mut client = stage.interceptor.client();
        for _ in 0..2 {
            client.send(format!(
                "{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
            ));
            let response = client.response(method);
            let connection = response.fields.list("connection");
            assert_eq!(connection, ["keep-alive"], "RFC 9112 §9.3: {method} {path}");
        }
        client.send(format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        ));
        let response = client.response(method);
        assert_eq!(
            response.fields.list("connection"),
            ["close"],
            "{method} {path}"
        );
        client.expect_end();
    }
}
