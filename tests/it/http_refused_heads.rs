//! Requests that are refused because of their lines, their target, their host, or their size.

use crate::support::refusal::*;
use crate::support::*;

#[test]
fn stray_control_characters_and_white_space_are_refused() {
    check_all(
        "refusals: lines",
        &[
            framed("X: a\rb", BAD, "RFC 9112 §2.2: a bare CR in a value"),
            framed("X: a\r", BAD, "a CR before the CRLF"),
            framed("X: \r\rb", BAD, "two"),
            framed("X\r: a", BAD, "a CR in a name"),
            framed("X: a\nY: b", BAD, "a bare LF does not end a line"),
            framed("X: a\n", BAD, "an LF before the CRLF"),
            framed("X: a\n\r", BAD, "LF CR instead of CR LF"),
            row(
                "GET /bad HTTP/1.1\nHost: localhost\n\n",
                BAD,
                "LF alone throughout",
            ),
            row(
                "GET /bad HTTP/1.1\nHost: localhost\r\n\r\n",
                BAD,
                "after the request line",
            ),
            row(
                "GET /bad HTTP/1.1\r\nHost: localhost\r\n\n",
                BAD,
                "as the empty line",
            ),
            row(
                "GET /bad HTTP/1.1\r\nHost: localhost\n\r\n",
                BAD,
                "before the empty line",
            ),
            row(
                "GET /bad HTTP/1.1\rHost: localhost\r\n\r\n",
                BAD,
                "a bare CR after the request line",
            ),
            row(
                "GET /bad HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
                BAD,
                "two CRs after it",
            ),
            row(
                "GET /bad HTTP/1.1\r\nHost: localhost\r\n\rX\r\n\r\n",
                BAD,
                "a CR instead of the empty line",
            ),
            row(
                "\nGET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
                BAD,
                "a bare LF before the request (RFC 9112 §2.2 skips only CRLF)",
            ),
            row(
                "\rGET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
                BAD,
                "a bare CR before it",
            ),
            row(
                " GET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
                BAD,
                "a space before it",
            ),
            framed(b"X: a\0b", BAD, "RFC 9110 §5.5: NUL in a value"),
            framed(b"\0X: a", BAD, "NUL before a name"),
            row(
                b"\0GET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
                BAD,
                "NUL before the request",
            ),
            row(
                b"GET /bad HTTP/1.1\0\r\nHost: localhost\r\n\r\n",
                BAD,
                "NUL after the version",
            ),
            framed("X: a\r\n b", BAD, "RFC 9112 §5.2: obs-fold"),
            framed("X: a\r\n\tb", BAD, "obs-fold with a tab"),
            framed("X: a\r\n \r\nY: b", BAD, "an empty obs-fold"),
            row(
                "GET /bad HTTP/1.1\r\n Host: localhost\r\n\r\n",
                BAD,
                "RFC 9112 §2.2: white space before the first field",
            ),
            row(
                "GET /bad HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n",
                BAD,
                "the same before the Host",
            ),
            framed("X : a", BAD, "RFC 9112 §5.1: white space before the colon"),
            framed("X\t: a", BAD, "a tab before the colon"),
            framed("X Y: a", BAD, "a space in a name (RFC 9110 §5.1)"),
            framed("X", BAD, "no colon"),
            framed(": a", BAD, "no name"),
            framed(":", BAD, "an empty name and value"),
            framed("X(: a", BAD, "a delimiter in a name"),
            framed("\"X\": a", BAD, "a quoted name"),
            framed("X/Y: a", BAD, "a slash in a name"),
            framed("X\u{1}: a", BAD, "a control character in a name"),
            framed(b"X\x7f: a", BAD, "DEL in a name"),
            framed(b"X\xe9: a", BAD, "obs-text in a name"),
            framed("{}: a", BAD, "braces in a name"),
        ],
    );
}

#[test]
fn a_malformed_request_line_is_refused() {
    let line = |line: &str, statuses, why| {
        row(format!("{line}\r\nHost: localhost\r\n\r\n"), statuses, why)
    };
    check_all(
        "refusals: request lines",
        &[
            line(
                "G(T /bad HTTP/1.1",
                BAD,
                "RFC 9110 §9.1: a method is a token",
            ),
            line("GET: /bad HTTP/1.1", BAD, "a colon in a method"),
            line("G\u{e9}T /bad HTTP/1.1", BAD, "UTF-8 in a method"),
            line("\"GET\" /bad HTTP/1.1", BAD, "a quoted method"),
            line("GET", BAD, "a method alone"),
            line("GET /bad", VERSION, "HTTP/0.9"),
            line("GET  /bad HTTP/1.1", BAD, "two spaces (RFC 9112 §3)"),
            line("GET /bad  HTTP/1.1", BAD, "two spaces later"),
            line("GET\t/bad\tHTTP/1.1", BAD, "tabs"),
            line("GET /bad HTTP/1.1 ", VERSION, "a space at the end"),
            line("GET /bad HTTP/1.1\t", VERSION, "a tab at the end"),
            line("GET HTTP/1.1", BAD, "no target"),
            line("GET  HTTP/1.1", BAD, "an empty target"),
            line(
                "GET /bad HTTP/1.1 HTTP/1.1",
                BAD,
                "two versions: a space in the target",
            ),
            line(
                "GET /a b HTTP/1.1",
                BAD,
                "RFC 9112 §3.2: no white space in a target",
            ),
            line(
                "GET /bad http/1.1",
                VERSION,
                "versions are case-sensitive (RFC 9112 §2.3)",
            ),
            line("GET /bad HTTP/11", VERSION, "no dot"),
            line("GET /bad HTTP/1.", VERSION, "no minor"),
            line("GET /bad HTTP/1", VERSION, "no minor and no dot"),
            line(
                "GET /bad HTTP/1.10",
                VERSION,
                "two digits: RFC 9112 §2.3 has one",
            ),
            line("GET /bad HTTP/01.1", VERSION, "two digits before the dot"),
            line("GET /bad HTTP/1.x", VERSION, "no digit"),
            line("GET /bad HTTP/+1.1", VERSION, "a sign"),
            line("GET /bad HTTP /1.1", BAD, "a space in it"),
            line("GET /bad HTPP/1.1", VERSION, "another protocol"),
            line("GET /bad ICY/1.0", VERSION, "a radio"),
            line("GET /bad HTTP/2.0", &[505], "another major version"),
            line("GET /bad HTTP/3.0", &[505], "one more"),
            line("GET /bad HTTP/0.9", &[505], "an old one"),
            row(
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                VERSION,
                "HTTP/2 with prior knowledge (RFC 9113 §3.4)",
            ),
            row("GET /bad\r\n\r\n", VERSION, "HTTP/0.9 without a field"),
            row(
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
                BAD,
                "TLS on a port for plain text",
            ),
            row("SSH-2.0-OpenSSH_9.2\r\n\r\n", BAD, "another protocol"),
            row("{\"a\": 1}\r\n\r\n", BAD, "a body without a head"),
        ],
    );
}

#[test]
fn a_malformed_target_is_refused() {
    let target = |target: &[u8], statuses, why| {
        row(
            [b"GET ", target, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(),
            statuses,
            why,
        )
    };
    check_all(
        "refusals: targets",
        &[
            target(b"bad", BAD, "RFC 9112 §3.2: none of the four forms"),
            target(
                b"localhost:80",
                BAD,
                "authority-form is for CONNECT alone (RFC 9112 §3.2.3)",
            ),
            target(b"localhost/bad", BAD, "no scheme"),
            target(
                b"*",
                BAD,
                "asterisk-form is for OPTIONS alone (RFC 9112 §3.2.4)",
            ),
            target(b"*/bad", BAD, "text after an asterisk"),
            target(b"?bad", BAD, "a query without a path"),
            target(b"#bad", BAD, "a fragment alone"),
            target(
                b"/bad#fragment",
                BAD,
                "RFC 9112 §3.2.1: a fragment is never sent",
            ),
            target(b"/bad?a#b", BAD, "a fragment after a query"),
            target(b"/bad#", BAD, "an empty fragment"),
            target(b"/bad\tx", BAD, "a tab"),
            target(b"/bad\x00", BAD, "NUL"),
            target(b"/bad\x01", BAD, "a control character"),
            target(b"/bad\x7f", BAD, "DEL"),
            target(b"/bad\x1b[31m", BAD, "an escape sequence"),
            target(b"/bad\rx", BAD, "a bare CR"),
            target(b"/bad\nx", BAD, "a bare LF"),
            target(b"http://", HOST, "RFC 9110 §4.2.1: a URI without a host"),
            target(b"http:///bad", HOST, "an empty host before a path"),
            target(b"http://?bad", HOST, "an empty host before a query"),
            target(b"http://:80/bad", HOST, "a port without a host"),
            target(b"http:/bad", BAD, "one slash"),
            target(b"http:bad", BAD, "no slash"),
            target(b"http", BAD, "a scheme alone"),
            target(b"://localhost/bad", BAD, "no scheme"),
            target(
                b"http://localhost:port/bad",
                HOST,
                "a port that is not a number",
            ),
            target(
                b"http://localhost:99999/bad",
                HOST,
                "a port that is too large",
            ),
            target(b"http://[::1/bad", HOST, "an open bracket"),
            target(b"http://local host/bad", HOST, "a space in the host"),
            target(
                b"http://user:password@localhost/bad",
                HOST,
                "RFC 9110 §4.2.4: userinfo is an error",
            ),
            target(
                b"http://localhost\\@evil.example/bad",
                HOST,
                "a host that parsers interpret differently",
            ),
            target(
                b"http://localhost/bad#fragment",
                BAD,
                "a fragment in absolute-form",
            ),
            target(b"ftp://localhost/bad", HOST, "another scheme"),
            target(b"file:///etc/passwd", HOST, "another scheme without a host"),
            target(
                b"http://evil.example/bad",
                HOST,
                "the host of another machine in the target (RFC 9112 §3.2.2)",
            ),
            row(
                "OPTIONS *bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
                BAD,
                "text after an asterisk in OPTIONS",
            ),
        ],
    );
}

#[test]
fn a_missing_repeated_or_malformed_host_is_refused() {
    let host = |lines: &[u8], statuses, why| {
        row(
            [b"GET /bad HTTP/1.1\r\n", lines, b"X: y\r\n\r\n"].concat(),
            statuses,
            why,
        )
    };
    check_all(
        "refusals: hosts",
        &[
            host(b"", BAD, "RFC 9112 §3.2: HTTP/1.1 needs one"),
            host(
                b"Host: localhost\r\nHost: localhost\r\n",
                BAD,
                "RFC 9112 §3.2: two lines, even if equal",
            ),
            host(
                b"Host: localhost\r\nX-A: b\r\nhOST: evil.example\r\n",
                BAD,
                "two lines, not adjacent, in another case",
            ),
            host(b"Host: localhost, localhost\r\n", HOST, "a list"),
            host(
                b"Host:\r\n",
                HOST,
                "an empty value is not a name of this machine",
            ),
            host(b"Host: local host\r\n", HOST, "a space in it"),
            host(b"Host: localhost evil.example\r\n", HOST, "two names"),
            host(b"Host: localhost\tx\r\n", HOST, "a tab in it"),
            host(b"Host: user@localhost\r\n", HOST, "userinfo"),
            host(b"Host: http://localhost\r\n", HOST, "a URI"),
            host(b"Host: localhost/\r\n", HOST, "a path"),
            host(b"Host: localhost?x\r\n", HOST, "a query"),
            host(b"Host: localhost#x\r\n", HOST, "a fragment"),
            host(b"Host: localhost:\x01\r\n", HOST, "a control character"),
            host(
                b"Host: localhost:port\r\n",
                HOST,
                "a port that is not a number",
            ),
            host(b"Host: localhost:-1\r\n", HOST, "a sign"),
            host(b"Host: localhost:+80\r\n", HOST, "another sign"),
            host(b"Host: localhost:80:80\r\n", HOST, "two ports"),
            host(
                b"Host: localhost:123456\r\n",
                HOST,
                "a port that is too large",
            ),
            host(b"Host: [::1\r\n", HOST, "an open bracket"),
            host(b"Host: ::1\r\n", HOST, "an IPv6 address without brackets"),
            host(b"Host: [::1]x\r\n", HOST, "text after the bracket"),
            host(b"Host: [localhost]\r\n", HOST, "a name in brackets"),
            host(b"Host: \"localhost\"\r\n", HOST, "quoted"),
            host(
                b"Host : localhost\r\n",
                BAD,
                "RFC 9112 §5.1: white space before the colon",
            ),
            host(b"Host: \r\n localhost\r\n", BAD, "obs-fold"),
            host(
                b"Host: localhost\r\n .evil.example\r\n",
                BAD,
                "obs-fold that changes it",
            ),
            host(b"Host: localhost\x00.evil.example\r\n", BAD, "NUL"),
            host(b"Host: localhost\xff\r\n", HOST, "obs-text"),
            row(
                "GET /bad HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
                BAD,
                "two are refused in HTTP/1.0 too (RFC 9112 §3.2: any request message)",
            ),
        ],
    );
}

#[test]
fn a_head_over_the_limits_is_refused() {
    const LIMIT: usize = 64 * 1024;
    const TOO_LARGE: &[u16] = &[431];
    let fields = |count: usize| {
        (0..count)
            .map(|number| format!("X-{number}: y\r\n"))
            .collect::<String>()
    };
    let long = "a".repeat(LIMIT);
    check_all(
        "refusals: limits",
        &[
            row(
                format!("GET /bad HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
                TOO_LARGE,
                "one long value (64 KiB is the limit)",
            ),
            row(
                format!("GET /bad HTTP/1.1\r\nHost: localhost\r\n{long}: x\r\n\r\n"),
                TOO_LARGE,
                "one long name",
            ),
            row(
                format!(
                    "GET /bad HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                    format!("X: {}\r\n", "b".repeat(1000)).repeat(70)
                ),
                TOO_LARGE,
                "many fields of 1 KB",
            ),
            row(
                format!(
                    "GET /bad HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                    fields(128)
                ),
                TOO_LARGE,
                "129 fields",
            ),
            row(
                format!(
                    "GET /bad HTTP/1.1\r\n{}Host: localhost\r\n\r\n",
                    fields(2000)
                ),
                TOO_LARGE,
                "2001 fields",
            ),
            row(
                format!("GET /bad HTTP/1.1\r\nHost: localhost\r\nX: {long}{long}"),
                TOO_LARGE,
                "without an end: refused before the end is received",
            ),
            row(
                format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                &[414],
                "a long target (RFC 9110 §15.5.15)",
            ),
            row(
                format!("GET /{long}{long}"),
                &[414],
                "a target without an end",
            ),
            row(
                format!("{long}{long}"),
                &[400, 414, 431],
                "a method without an end",
            ),
        ],
    );
}

#[test]
fn a_head_within_the_limits_is_forwarded() {
    let (_, interceptor) = &agreeing();
    let fields: String = (1..128)
        .map(|number| format!("X-{number}: y\r\n"))
        .collect();
    for (request, why) in [
        (
            format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"),
            "128 fields",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
                "a".repeat(63_000)
            ),
            "63 kB in one field",
        ),
        (
            format!(
                "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "a".repeat(8000)
            ),
            "RFC 9112 §3: at least 8000 bytes of request line",
        ),
    ] {
        let mut client = interceptor.client();
        client.send(request);
        assert_eq!(client.response("GET").status, 200, "{why}");
    }
}

#[test]
fn a_higher_minor_version_is_treated_as_1_1_or_refused() {
    // RFC 9110 §2.5: it should, but need not, be processed as the highest known minor version.
    let (origin, interceptor) = agreeing();
    for version in ["HTTP/1.2", "HTTP/1.9"] {
        origin.forget();
        let mut client = interceptor.client();
        client.send(format!("GET / {version}\r\nHost: localhost\r\n\r\n"));
        let response = client.response("GET");
        let versions: Vec<String> = origin
            .requests()
            .into_iter()
            .map(|request| request.version)
            .collect();
        if response.status == 200 {
            assert_eq!(versions, ["HTTP/1.1"]);
        } else {
            check_own_error(&response, VERSION);
            assert!(versions.is_empty());
        }
    }
}

#[test]
fn a_control_character_in_a_value_is_refused_or_forwarded_unchanged() {
    // RFC 9110 §5.5 allows both, except for CR, LF and NUL.
    for byte in [0x01u8, 0x08, 0x0b, 0x0c, 0x1b, 0x1f, 0x7f] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(
            [
                b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a",
                &[byte][..],
                b"b\r\nY: z\r\n\r\n",
            ]
            .concat(),
        );
        match origin.try_accept(std::time::Duration::from_millis(200)) {
            Some(mut served) => {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.extend(served.try_take(1).expect("the rest of the head arrives"));
                }
                assert!(
                    latin1(&head).contains(&format!("X: a{}b\r\nY: z\r\n", char::from(byte))),
                    "{byte:#04x}"
                );
            }
            None => drop(check_own_error(&client.response("GET"), BAD)),
        }
    }
}

/// No row has the end of a head: the verdict comes with the byte that decides, not at the time limit.
#[test]
fn a_malformed_head_is_refused_though_it_does_not_go_on() {
    let rows = [
        ("GET", "  / HTTP/1.1", 400, "two spaces"),
        ("GET /", " HTTP/1.1\n", 400, "a bare LF"),
        ("GET / HTTP/1.1", "\rHost", 400, "a bare CR"),
        (
            "GET / HTTP/1.1\r\nA: b",
            "\r\n fold",
            400,
            "a fold (RFC 9112 §5.2)",
        ),
        (
            "GET / HTTP/1.1\r\nA: b",
            "\r\n\tfold",
            400,
            "a fold with a tab",
        ),
        ("GET / HTTP/1.1\r\nA: b", "\rc", 400, "a bare CR in a value"),
        (
            "GET / HTTP/1.1\r\nA: b",
            "\nC",
            400,
            "a bare LF after a value",
        ),
        ("GET / HTTP/1.1\r\nA: b", "\0", 400, "NUL in a value"),
        (
            "GET / HTTP/1.1\r\nHost",
            " : a",
            400,
            "white space before a colon",
        ),
        ("GET / HTTP/1.1\r\nHost", "\r\n", 400, "no colon"),
        ("GET / HTTP/1.1\r\n", "\n", 400, "LF as the empty line"),
        ("GET /caf", "\u{e9}", 400, "a target that is not ASCII"),
        ("GET /", " HTTP/2.0", 505, "another major version"),
    ];
    let (origin, interceptor) = agreeing();
    for (first, then, status, why) in rows {
        for pieces in [usize::MAX, 1] {
            let mut client = interceptor.client();
            client.send(first);
            // The response to another client proves that the first part was read.
            interceptor.health();
            client.offer_in_pieces(then, pieces);
            let response = read_refusal(&mut client, "", &[status], why);
            assert_ne!(check_own_error(&response, &[status]), "", "{why}");
            check_orderly_end(client, why);
        }
        let mut client = interceptor.client();
        client.offer_in_pieces([first, then].concat(), 1);
        read_refusal(&mut client, "", &[status], why);
    }
    assert!(
        origin.requests().is_empty(),
        "no part of them reaches the origin"
    );
    count("refusals: heads that do not go on", 3 * rows.len());
}
