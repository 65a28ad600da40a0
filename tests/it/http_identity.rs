//! Fields that the interceptor adds to a request: the host of the target, the instance, the user's headers, and Via.

use crate::support::tls::scheme;
use crate::support::*;

#[test]
fn the_host_field_is_that_of_the_target() {
    let stage = Stage::new();
    let address = stage.origin.address().to_string();
    for line in [
        "Host: localhost",
        "HOST:127.0.0.1",
        "host: localhost:8888",
        "hOsT: [::1]:9",
    ] {
        let seen = stage.forwarded(format!("GET / HTTP/1.1\r\n{line}\r\n\r\n"));
        assert_eq!(seen.fields.one("host"), Some(&address[..]), "{line}");
    }
    let seen = stage.forwarded("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        seen.fields.one("host"),
        Some(&address[..]),
        "HTTP/1.0 needs none, the origin gets one (RFC 9112 §3.2)"
    );
    let port = stage.origin.address().port();
    let interceptor = Launch::toward(format!("{}://localhost:{port}", scheme())).start();
    stage.origin.forget();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(
        client.response("GET").status,
        200,
        "a localhost target falls back from ::1 to 127.0.0.1"
    );
    assert_eq!(
        stage.origin.requests()[0].fields.one("host"),
        Some(&format!("localhost:{port}")[..]),
        "the host is the name, not the address"
    );
}

#[test]
fn identification_fields_are_set_and_replace_those_of_the_client() {
    let stage = Stage::with(&["--instance-id", "me-1"]);
    let rows = [
        ("", "without fields of the client"),
        ("x-memory-user-id: mallory\r\n", "one"),
        (
            "X-Memory-User-ID: mallory\r\nX-SOURCE: mallory\r\nX-PyCharm-Instance: mallory\r\n",
            "in any case",
        ),
        (
            "x-source: a\r\nX-Other: b\r\nx-source: c\r\nX-Source:\r\n",
            "all lines are replaced",
        ),
        (
            "X_Memory_User_Id: mallory\r\nx_source: mallory\r\nX-PyCharm_Instance: mallory\r\n",
            "as a WSGI or CGI program reads it (CVE-2025-64484)",
        ),
        (
            "x.memory.user.id: mallory\r\n",
            "as PHP and lighttpd read it",
        ),
        (
            "Connection: x-memory-user-id, x-source, x-pycharm-instance\r\n",
            "a client cannot have it removed as hop-by-hop",
        ),
    ];
    for (lines, why) in rows {
        let seen = stage.forwarded(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        assert_eq!(seen.fields.one("x-memory-user-id"), Some("me-1"), "{why}");
        assert_eq!(seen.fields.one("x-pycharm-instance"), Some("me-1"), "{why}");
        assert_eq!(
            seen.fields.one("x-source"),
            Some("pycharm-ai-chat"),
            "{why}"
        );
        // RFC 3875 §4.1.18: the variable that a program of the target reads.
        let variable = |name: &str| name.to_lowercase().replace(['_', '.'], "-");
        let fields = seen.fields.0.iter();
        let ours = fields.filter(|(name, _)| variable(name) == "x-memory-user-id");
        assert_eq!(ours.count(), 1, "{why}: {:?}", seen.fields);
        assert!(!format!("{:?}", seen.fields).contains("mallory"), "{why}");
    }
    count("forwarding: identification", rows.len());
}

#[test]
fn a_trailer_section_cannot_bring_back_fields_that_are_set() {
    let stage = Stage::with(&["--header", "X-Team: blue"]);
    let seen = stage.forwarded(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
         x-source: mallory\r\nX_Memory_User_Id: mallory\r\nx_team: mallory\r\nX-Sum: 1\r\n\r\n",
    );
    let trailers = seen.trailers.without(&[]);
    assert_eq!(
        trailers,
        [("X-Sum", "1")],
        "servers may merge both sections"
    );
}

#[test]
fn the_instance_is_named_after_the_project_by_default() {
    let folder = scratch_folder().join("my project");
    std::fs::create_dir(&folder).expect("a scratch folder can be written");
    let id_of = |change: &dyn Fn(Launch) -> Launch| {
        let stage = Stage::launch("", |launch| change(launch.in_folder(folder.clone())));
        let seen = stage.forwarded("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        seen.fields
            .one("x-memory-user-id")
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        id_of(&|launch| launch),
        "pycharm-my project",
        "the full path of the folder"
    );
    assert_eq!(
        id_of(&|launch| launch.env("SUPERMEMORY_USERNAME", "me at {project}")),
        "me at my project"
    );
    assert_eq!(
        id_of(&|launch| launch.env("SUPERMEMORY_USERNAME", "")),
        "pycharm-my project",
        "an empty variable is treated as unset"
    );
    let both = |launch: Launch| {
        launch
            .env("SUPERMEMORY_USERNAME", "variable")
            .args(["--instance-id", "flag"])
    };
    assert_eq!(id_of(&both), "flag", "a flag wins over its variable");
}

#[test]
fn configured_headers_replace_those_of_the_client() {
    let stage = Stage::with(&[
        "--instance-id",
        "me-1",
        "--header",
        "X-Team: blue: 7",
        "--header",
        "X-Source: mine",
    ]);
    for lines in [
        "",
        "x-team: red\r\nX-TEAM: green\r\n",
        "X_Team: red\r\nx_team: green\r\n",
    ] {
        let seen = stage.forwarded(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        assert_eq!(seen.fields.one("x-team"), Some("blue: 7"));
        assert!(!seen.fields.has("x_team"), "{lines:?}");
        assert_eq!(
            seen.fields.one("x-source"),
            Some("mine"),
            "a configured value wins over the default"
        );
    }
}

#[test]
fn a_header_for_framing_or_routing_cannot_be_configured() {
    // An invalid value is refused by name with exit code 2, before the interceptor listens.
    let rows = [
        ("Transfer-Encoding: chunked", "framing"),
        ("Content-Length: 5", "framing"),
        ("Connection: close", "a hop-by-hop field"),
        ("no colon", "no field"),
        (": x", "no name"),
        ("Bad Name: x", "not a token"),
        ("X: a\r\nY: b", "two lines"),
        ("X: a\nb", "a bare LF"),
    ];
    for (header, why) in rows {
        let (code, errors) = Launch::toward("http://127.0.0.1:9")
            .args(["--header", header])
            .fail();
        assert_eq!(code, Some(2), "{header:?} ({why}): {errors}");
        assert!(errors.starts_with("ic: "), "{header:?}: {errors}");
    }
}

#[test]
fn via_is_appended() {
    let rows: [(&str, &[&str], &str); 4] = [
        ("", &[], "without a Via of the client"),
        ("Via: 1.0 fred\r\n", &["1.0 fred"], "one before"),
        (
            "Via: 1.0 fred, 1.1 p.example.net (a, comment)\r\n",
            &["1.0 fred", "1.1 p.example.net (a", "comment)"],
            "a list",
        ),
        (
            "via: 1.0 fred\r\nX: y\r\nVIA: 1.1 ic\r\n",
            &["1.0 fred", "1.1 ic"],
            "lines, one of them from another ic",
        ),
    ];
    let stage = Stage::new();
    for (lines, before, why) in rows {
        let seen = stage.forwarded(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        let expected: Vec<&str> = before.iter().copied().chain(["1.1 ic"]).collect();
        assert_eq!(seen.fields.list("via"), expected, "RFC 9110 §7.6.3: {why}");
    }
    let seen = stage.forwarded("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let via = seen.fields.list("via");
    assert!(
        via == ["1.0 ic"] || via == ["1.1 ic"],
        "the received version by RFC 9110 §7.6.3, or that of the interceptor: {via:?}"
    );
    count("forwarding: via", rows.len() + 1);
}

#[test]
fn a_request_that_passed_this_interceptor_five_times_is_a_loop() {
    let rows: [(&str, bool, &str); 6] = [
        (
            "Via: 1.1 ic, 1.1 ic, 1.1 ic, 1.1 ic\r\n",
            false,
            "four may be a chain of interceptors",
        ),
        (
            "Via: 1.1 ic, 1.1 ic, 1.1 ic, 1.1 ic, 1.1 ic\r\n",
            true,
            "five are a loop",
        ),
        (
            "Via: 1.1 ic\r\nVia: 1.1 ic, 1.1 ic\r\nX: y\r\nvia: 1.1 ic\r\nVIA:1.1 ic\r\n",
            true,
            "over all lines",
        ),
        (
            "Via: 1.1 ic, 1.1 ic, 1.1 fred, 1.1 ic, 1.1 ic, 1.1 ic, 1.1 x\r\n",
            true,
            "with other proxies between",
        ),
        (
            "Via: 1.1 ice, 1.1 nic, 1.1 ic2, 1.1 i, 1.1 c, 1.1 ic.example\r\n",
            false,
            "other names are not counted",
        ),
        (
            "X-Via: 1.1 ic, 1.1 ic, 1.1 ic, 1.1 ic, 1.1 ic\r\n",
            false,
            "another field",
        ),
    ];
    let stage = Stage::new();
    for (lines, loops, why) in rows {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        if !loops {
            stage.forwarded(request);
            continue;
        }
        stage.origin.forget();
        let mut client = stage.interceptor.client();
        client.send(request);
        let response = client.response("GET");
        check_own_error(&response, &[508]);
        assert!(stage.origin.requests().is_empty(), "{why}");
    }
    count("forwarding: loops", rows.len());
}

#[test]
fn two_interceptors_that_target_each_other_respond_with_508() {
    let ports = [free_port(), free_port()];
    let interceptors = [0, 1].map(|each| {
        Launch::toward(format!("http://127.0.0.1:{}", ports[1 - each]))
            .on(ports[each])
            .start()
    });
    let mut client = interceptors[0].client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    check_own_error(&client.response("GET"), &[508]);
}
