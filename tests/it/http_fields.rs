//! Header fields are forwarded unchanged in both directions, except for hop-by-hop fields. `http_identity` tests the fields
//! that the interceptor sets itself.

use crate::support::*;

/// Fields of requests that the interceptor may set, move or remove; tests of the other fields ignore them.
const ITS_OWN: [&str; 7] = [
    "host",
    "via",
    "connection",
    "x-memory-user-id",
    "x-pycharm-instance",
    "x-source",
    "te",
];

#[test]
fn fields_keep_their_names_case_order_and_values() {
    let sent: Vec<(&str, Vec<u8>)> = vec![
        ("User-Agent", b"JetBrains".to_vec()),
        ("accept", b"*/*".to_vec()),
        ("ACCEPT-encoding", b"gzip, br".to_vec()),
        ("Authorization", b"Bearer sk-x".to_vec()),
        ("x-api-key", b"k".to_vec()),
        ("X-Stainless-Lang", b"python".to_vec()),
        ("anthropic-beta", b"a-2024-01-01,b".to_vec()),
        ("Cookie", b"a=b; c=d".to_vec()),
        ("Cookie", b"e=f".to_vec()),
        ("X-Same", b"1".to_vec()),
        ("x-SAME", b"2".to_vec()),
        ("X-Empty", b"".to_vec()),
        ("X-Obs", b"caf\xe9 \xff\x80".to_vec()),
        ("X-Inner", b"a \t b,,  c".to_vec()),
        ("X-Quoted", b"\"a\\\"b\", (c; d)".to_vec()),
        ("!#$%&'*+-.^_`|~9", b"every character of a token".to_vec()),
        ("X-Source-Map", b"not X-Source".to_vec()),
        ("Forwarded", b"for=1.2.3.4".to_vec()),
        ("X-Forwarded-For", b"1.2.3.4".to_vec()),
        ("Origin-Trial", b"not Origin".to_vec()),
        ("Max-Forwards", b"5".to_vec()),
        ("Trailer", b"X-Sum".to_vec()),
        ("Proxy-Authorization", b"Basic eA==".to_vec()),
        ("X-Long", vec![b'v'; 30_000]),
    ];
    let mut bytes = b"POST /f HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    for (name, value) in &sent {
        bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    let seen = Stage::new().forwarded(bytes);
    let expected: Vec<(&str, String)> = sent
        .iter()
        .map(|(name, value)| (*name, latin1(value)))
        .collect();
    let expected: Vec<(&str, &str)> = expected
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(seen.fields.without(&ITS_OWN), expected);
    count("forwarding: fields", sent.len());
}

#[test]
fn white_space_around_a_field_value_is_not_part_of_it() {
    let stage = Stage::new();
    for (line, value, why) in [
        ("X:a", "a", "no white space (RFC 9112 §5.1)"),
        ("X:   a", "a", "several spaces"),
        ("X:\ta\t ", "a", "tabs, also at the end"),
        ("X: \t ", "", "only white space is an empty value"),
    ] {
        let seen = stage.forwarded(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{line}\r\nY: b\r\n\r\n"
        ));
        assert_eq!(
            seen.fields.without(&ITS_OWN),
            [("X", value), ("Y", "b")],
            "{why}"
        );
    }
}

#[test]
fn white_space_before_the_colon_of_a_response_field_is_removed() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    for (lines, pieces) in [
        (
            "X : a\r\ny\t \t: b\r\nContent-Length : 2\r\n\r\nok",
            usize::MAX,
        ),
        (
            "X  : a\r\ny : b\r\nTransfer-Encoding\t: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            1,
        ),
    ] {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut served = origin.accept();
        served.request();
        let connection = "Connection : close";
        let response = format!("HTTP/1.1 200 OK\r\n{connection}\r\n{lines}");
        served.offer_in_pieces(response, pieces);
        let response = client.response("GET");
        assert_eq!(response.text(), "ok", "RFC 9112 §5.1: {lines:?}");
        let framing = ["content-length", "transfer-encoding"];
        let fields = response.fields.without(&framing);
        assert_eq!(fields, [("X", "a"), ("y", "b")], "{lines:?}");
    }
    count("forwarding: white space before a colon", 2);
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    // RFC 9112 §2.2: at least one empty line; old clients send one after a body.
    let stage = Stage::new();
    assert_eq!(
        stage
            .forwarded("\r\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .target,
        "/a"
    );
    let mut client = stage.interceptor.client();
    client.send("POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx\r\nGET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        (
            client.response("POST").status,
            client.response("GET").status
        ),
        (200, 200)
    );
}

#[test]
fn hop_by_hop_fields_of_the_client_are_not_forwarded() {
    let rows: [(&str, Lines, &str); 13] = [
        (
            "Connection: keep-alive\r\nX: y\r\n",
            &[("X", "y")],
            "RFC 9110 §7.6.1",
        ),
        (
            "Connection: X-A, x-b\r\nX-A: 1\r\nX-C: 3\r\nX-B: 2\r\n",
            &[("X-C", "3")],
            "named fields are removed",
        ),
        (
            "X-A: 1\r\nConnection: X-A\r\nX-B: 2\r\nconnection: keep-alive, X-B\r\nX-C: 3\r\n",
            &[("X-C", "3")],
            "over several lines, also above the named fields",
        ),
        (
            "Connection: , X-A,, \tX-B\t ,\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n",
            &[("X-C", "3")],
            "empty members and tabs (RFC 9110 §5.6.1)",
        ),
        (
            "Connection: X-A\r\nX-A: 1\r\nX-AB: 2\r\nx-a: 3\r\n",
            &[("X-AB", "2")],
            "whole names, every line",
        ),
        (
            "Connection:\r\nX: y\r\n",
            &[("X", "y")],
            "an empty Connection",
        ),
        (
            "Keep-Alive: timeout=5\r\nX: y\r\n",
            &[("X", "y")],
            "Keep-Alive",
        ),
        (
            "Proxy-Connection: keep-alive\r\nX: y\r\n",
            &[("X", "y")],
            "Proxy-Connection",
        ),
        (
            "TE: gzip\r\nConnection: TE\r\nX: y\r\n",
            &[("X", "y")],
            "curl --tr-encoding",
        ),
        (
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\nX: y\r\n",
            &[("X", "y")],
            "Java's HttpClient on its first request",
        ),
        (
            "Upgrade: h2c\r\nHTTP2-Settings: AAM\r\nX: y\r\n",
            &[("X", "y")],
            "also where Connection does not name them",
        ),
        (
            "Upgrade: websocket\r\nX: y\r\n",
            &[("X", "y")],
            "an Upgrade that Connection does not name is ignored (RFC 9110 §7.8)",
        ),
        (
            "Connection: close, Upgrade\r\nX: y\r\n",
            &[("X", "y")],
            "an option without its field",
        ),
    ];
    let stage = Stage::new();
    for (lines, expected, why) in rows {
        for body in ["", "body"] {
            let length = if body.is_empty() {
                String::new()
            } else {
                format!("Content-Length: {}\r\n", body.len())
            };
            let seen = stage.forwarded(format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\n{lines}{length}\r\n{body}"
            ));
            let own: Vec<&str> = ITS_OWN.into_iter().chain(["content-length"]).collect();
            assert_eq!(seen.fields.without(&own), expected, "{why}");
            assert_eq!(latin1(&seen.body), body, "{why}");
            check_origins_connection(&seen, why);
        }
    }
    count("forwarding: hop-by-hop", 2 * rows.len());
}

/// The Connection field toward the origin does not name removed fields.
#[track_caller]
fn check_origins_connection(seen: &Request, why: &str) {
    for option in seen.fields.list("connection") {
        assert!(
            ["keep-alive", "te"].contains(&option.as_str()),
            "`{option}` is not an option of this hop: {why}: {seen:?}"
        );
    }
    let te = seen.fields.list("te");
    assert!(te.is_empty() || te == ["trailers"], "{why}: {te:?}");
    assert_eq!(
        te.is_empty(),
        !seen.fields.list("connection").contains(&"te".to_owned()),
        "TE comes with its option (RFC 9110 §10.1.4): {why}: {seen:?}"
    );
}

#[test]
fn only_trailers_of_te_is_forwarded() {
    let rows = [
        (
            "TE: trailers\r\nConnection: TE\r\n",
            true,
            "RFC 9110 §10.1.4",
        ),
        (
            "TE: trailers, gzip;q=0.5\r\nConnection: TE\r\n",
            true,
            "among others",
        ),
        (
            "TE: deflate\r\nTE: Trailers\r\nConnection: te\r\n",
            true,
            "on a second line, in another case",
        ),
        (
            "TE: gzip, deflate\r\nConnection: TE\r\n",
            false,
            "others alone",
        ),
        ("TE: xtrailers\r\nConnection: TE\r\n", false, "another word"),
        ("TE:\r\nConnection: TE\r\n", false, "empty"),
    ];
    let stage = Stage::new();
    for (lines, kept, why) in rows {
        let seen = stage.forwarded(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        check_origins_connection(&seen, why);
        assert_eq!(seen.fields.has("te"), kept, "{why}: {seen:?}");
    }
}

#[test]
fn te_and_upgrade_keep_their_place_their_case_and_their_spelling() {
    let rows: [(&str, Lines, &str); 5] = [
        (
            "A: 1\r\nte: Trailers\r\nB: 2\r\nConnection: TE\r\n",
            &[("A", "1"), ("te", "Trailers"), ("B", "2")],
            "TE between two fields",
        ),
        (
            "TE: gzip;q=0.5,TRAILERS\r\nB: 2\r\nConnection: TE\r\n",
            &[("TE", "TRAILERS"), ("B", "2")],
            "what does not go on is left out in its place",
        ),
        (
            "Connection: Upgrade\r\nUPGRADE: WebSocket\r\nSec-WebSocket-Version: 13\r\n",
            &[("UPGRADE", "WebSocket"), ("Sec-WebSocket-Version", "13")],
            "an upgrade before another field",
        ),
        (
            "upgrade: foo/1,bar\r\nA: 1\r\nUpgrade: h2c, baz\r\nConnection: Upgrade\r\n",
            &[("upgrade", "foo/1,bar"), ("A", "1"), ("Upgrade", "baz")],
            "two lines of protocols",
        ),
        (
            "Upgrade: foo\r\nte: trailers\r\nConnection: TE, Upgrade\r\n",
            &[("Upgrade", "foo"), ("te", "trailers")],
            "both",
        ),
    ];
    let stage = Stage::new();
    let set = ITS_OWN.map(|name| if name == "te" { "" } else { name });
    for (lines, expected, why) in rows {
        let seen = stage.forwarded(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        assert_eq!(seen.fields.without(&set), expected, "{why}");
        for (name, _) in expected {
            let name = name.to_ascii_lowercase();
            let is_named = seen.fields.list("connection").contains(&name);
            assert_eq!(is_named, ["te", "upgrade"].contains(&&name[..]), "{why}");
        }
    }
    count("forwarding: TE and Upgrade", rows.len());
}

#[test]
fn a_connection_option_cannot_remove_framing_or_routing_fields() {
    // RFC 9110 §7.6.1: a sender must not name end-to-end fields; removing them would allow request smuggling.
    let rows = [
        "Content-Length",
        "Host",
        "Content-Length, Host, Transfer-Encoding",
    ];
    let stage = Stage::new();
    for named in rows {
        stage.origin.forget();
        let mut client = stage.interceptor.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: {named}\r\nContent-Length: 5\r\n\r\nhello"));
        let response = client.response("POST");
        let seen = stage.origin.requests();
        if response.status == 400 {
            check_own_error(&response, &[400]);
            assert!(seen.is_empty(), "{named}");
            continue;
        }
        assert_eq!(
            (seen.len(), latin1(&seen[0].body)),
            (1, "hello".to_owned()),
            "{named}"
        );
        assert_eq!(
            seen[0].fields.one("host"),
            Some(&stage.origin.address().to_string()[..]),
            "{named}"
        );
    }
    let seen = stage.forwarded("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(latin1(&seen.body), "hello");
}

#[test]
fn responses_are_forwarded_unchanged() {
    let long = format!("X-Long: {}", "v".repeat(30_000));
    /// Status and reason; fields; their lines; why.
    type Row<'a> = (&'a [u8], &'a [u8], &'a [&'a str], &'a str);
    let rows: [Row; 12] = [
        (b"200 OK", b"", &[], "the least"),
        (b"200 ", b"", &[], "an empty reason (RFC 9112 §4)"),
        (b"200 Alles in Ordnung \t!", b"", &[], "a long reason"),
        (b"404 caf\xe9", b"", &[], "obs-text in a reason"),
        (b"299 Odd", b"", &[], "an unregistered status"),
        (b"599 Odder", b"", &[], "likewise"),
        (b"429 Too Many Requests", b"Retry-After: 7\r\nx-ratelimit-remaining: 0\r\n", &["Retry-After: 7", "x-ratelimit-remaining: 0"], "limits"),
        (b"401 Unauthorized", b"WWW-Authenticate: Basic realm=\"a, b\"\r\n", &["WWW-Authenticate: Basic realm=\"a, b\""], "challenges"),
        (b"200 OK", b"Set-Cookie: a=b\r\nX: y\r\nset-cookie: c=d, e\r\nServer:\tuvicorn \r\n", &["Set-Cookie: a=b", "X: y", "set-cookie: c=d, e", "Server: uvicorn"], "repeated, in order, never joined"),
        (b"200 OK", b"Content-Encoding: gzip\r\nContent-Type: text/event-stream; charset=utf-8\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n", &["Content-Encoding: gzip", "Content-Type: text/event-stream; charset=utf-8", "Date: Thu, 01 Jan 1970 00:00:00 GMT"], "an encoding is the client's affair"),
        (b"200 OK", b"X-Obs: \xff\xe9\r\nX-Empty:\r\nX-Source: origin\r\nx-ic-error: none\r\n", &["X-Obs: \u{ff}\u{e9}", "X-Empty: ", "X-Source: origin", "x-ic-error: none"], "odd but valid"),
        (b"200 OK", long.as_bytes(), &[long.as_str()], "long"),
    ];
    let stage = Stage::new();
    for (line, fields, expected, why) in rows {
        let fields = if fields.is_empty() || fields.ends_with(b"\r\n") {
            fields.to_vec()
        } else {
            [fields, b"\r\n"].concat()
        };
        let answer = [
            b"HTTP/1.1 ",
            line,
            b"\r\n",
            &fields[..],
            b"Content-Length: 4\r\n\r\n\x1f\x8b\x00\xff",
        ]
        .concat();
        let seen = stage.returned(answer);
        assert_eq!(
            format!("{} {}", seen.status, seen.reason),
            latin1(line),
            "{why}"
        );
        let lines: Vec<String> = seen
            .fields
            .without(&["connection", "keep-alive", "content-length"])
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_eq!(lines, expected, "{why}");
        assert_eq!(seen.body, b"\x1f\x8b\x00\xff", "{why}");
    }
    count("forwarding: responses", rows.len());
}

#[test]
fn hop_by_hop_fields_of_the_origin_are_not_forwarded() {
    let rows: [(&str, Lines, &str); 6] = [
        (
            "Connection: close\r\nX: y\r\n",
            &[("X", "y")],
            "the client's connection stays open",
        ),
        (
            "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX: y\r\n",
            &[("X", "y")],
            "named fields are removed (RFC 9110 §7.6.1)",
        ),
        (
            "X-Hop: 1\r\nConnection: keep-alive\r\nX: y\r\nConnection: x-hop\r\n",
            &[("X", "y")],
            "over several lines",
        ),
        (
            "Keep-Alive: timeout=5, max=100\r\nX: y\r\n",
            &[("X", "y")],
            "Keep-Alive",
        ),
        (
            "Proxy-Connection: close\r\nX: y\r\n",
            &[("X", "y")],
            "Proxy-Connection",
        ),
        (
            "Upgrade: h2,h2c\r\nConnection: Upgrade\r\nX: y\r\n",
            &[("X", "y")],
            "an offer to upgrade is for this hop (RFC 9110 §7.8)",
        ),
    ];
    let stage = Stage::new();
    for (lines, expected, why) in rows {
        let answer = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok");
        let (_, seen, mut client) =
            stage.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", answer);
        // The interceptor may send its own options for the client's connection, but no others.
        assert!(
            seen.fields
                .list("connection")
                .iter()
                .all(|option| option == "keep-alive"),
            "{why}: {seen:?}"
        );
        assert_eq!(
            seen.fields.without(&["connection", "content-length"]),
            expected,
            "{why}"
        );
        stage.answer_with(OK);
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(
            client.response("GET").text(),
            "ok",
            "the client's connection stays open: {why}"
        );
    }
    count("forwarding: hop-by-hop fields of responses", rows.len());
}
