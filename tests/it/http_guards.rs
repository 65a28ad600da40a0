//! Error responses of the interceptor, its two pages, and the protection against web pages of other sites.

use std::net::SocketAddr;

use crate::support::tls::scheme;
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_refused_connection_to_the_origin_is_a_502() {
    let port = free_port();
    let interceptor = Launch::toward(format!("{}://127.0.0.1:{port}", scheme())).start();
    let mut client = interceptor.client();
    for method in ["GET", "POST", "PUT"] {
        client.send(format!(
            "{method} /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
        ));
        let response = client.response(method);
        check_own_error(&response, &[502]);
        assert_eq!(
            response.fields.one("retry-after"),
            Some("1"),
            "a retry can succeed: {response:?}"
        );
        assert!(
            response.text().contains(&port.to_string()),
            "which target: {}",
            response.text()
        );
        if response
            .fields
            .list("connection")
            .contains(&"close".to_owned())
        {
            client = interceptor.client();
        }
    }
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.response("HEAD");
    assert_eq!(
        (response.status, response.fields.has("x-ic-error")),
        (502, true),
        "no body in a response to HEAD (RFC 9110 §9.3.2)"
    );
}

#[test]
fn an_error_is_sent_before_the_end_of_the_request() {
    // The client sees the reason immediately, not only after 100 MB.
    let interceptor = Launch::toward(format!("http://127.0.0.1:{}", free_port())).start();
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\nhello");
    check_own_error(&client.response("POST"), &[502]);
}

#[test]
fn an_origin_that_starts_later_is_used() {
    let port = free_port();
    let interceptor = Launch::toward(format!("{}://127.0.0.1:{port}", scheme())).start();
    let mut client = interceptor.client();
    client.send(GET);
    assert_eq!(client.response("GET").status, 502);
    let origin = Origin::listen_at(([127, 0, 0, 1], port).into());
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");
    // When the interceptor has exited, there is nothing to wait for.
    drop(interceptor);
}

#[test]
fn host_values_of_this_machine_are_served() {
    let hosts = [
        "localhost",
        "LocalHost:8888",
        "localhost:1",
        "app.localhost",
        "a.b.localhost:80",
        "127.0.0.1",
        "127.0.0.1:65535",
        "127.1.2.3:5",
        "127.255.255.254",
        "[::1]",
        "[::1]:80",
        "host.docker.internal",
        "host.docker.internal:8888",
        "Host.Docker.Internal",
        "host.containers.internal:8888",
        "host.lima.internal:8888",
        "host.minikube.internal",
        "0.0.0.0:8888",
        "[::]:8888",
    ];
    let stage = Stage::new();
    for host in hosts {
        stage.forwarded(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        stage.forwarded(format!(
            "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ));
    }
    count("guards: hosts served", hosts.len());
}

#[test]
fn host_values_of_other_machines_are_refused() {
    let hosts = [
        "evil.example",
        "evil.example:8888",
        "localhost.evil.example",
        "evil-localhost",
        "xlocalhost",
        "localhosts",
        "127.0.0.1.evil.example",
        "127.0.0.1x",
        "1.127.0.0.1",
        "128.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "0.0.0.1",
        "126.255.255.255",
        "[::2]",
        "[fe80::1]",
        "[2001:db8::1]",
        "host.docker.internal.evil.example",
        "xhost.docker.internal",
        "docker.internal",
        "gateway.docker.internal",
        "host.internal",
        "host.docker.internal.evil",
        "127.0.0.256",
        "127.0.0",
        "localhost_",
        "local-host",
        "2130706433",
        "0x7f000001",
    ];
    let (origin, interceptor) = agreeing();
    for host in hosts {
        for request in [
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("GET /_ic/health HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"),
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello"),
        ] {
            let mut client = interceptor.client();
            client.send(&request);
            let response = client.response("GET");
            // Some of these are malformed, which may be reported instead.
            check_own_error(
                &response,
                if host.contains("256") || host.contains('_') || !host.contains(char::is_alphabetic)
                {
                    &[421, 400]
                } else {
                    &[421]
                },
            );
            assert!(!response.text().contains("healthy"), "{request:?}");
        }
    }
    assert!(
        origin.requests().is_empty(),
        "DNS rebinding (CVE-2024-28224): nothing reaches the origin"
    );
    count("guards: hosts refused", 5 * hosts.len());
}

/// The start of a real ClientHello.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[test]
fn a_client_set_up_for_tls_or_a_proxy_gets_the_url_to_use_and_one_log_line() {
    let rows: [(&[u8], u16, &str, &str); 7] = [
        (CLIENT_HELLO, 400, "tls_on_plain_port", "https:// to this port"),
        (b"\x16\x03", 400, "tls_on_plain_port", "its first bytes"),
        (
            b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            421,
            "not_a_forward_proxy",
            "HTTP_PROXY",
        ),
        (
            b"POST http://api.example/v1?k=secret HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi",
            421,
            "not_a_forward_proxy",
            "with the Host of this port",
        ),
        (
            b"GET http://example.com HTTP/1.0\r\n\r\n",
            421,
            "not_a_forward_proxy",
            "HTTP/1.0",
        ),
        (
            b"POST https://api.example/v1 HTTP/1.1\r\nHost: api.example\r\nContent-Length: 2\r\n\r\nhi",
            421,
            "not_a_forward_proxy",
            "an https URL without CONNECT, as old versions of axios send",
        ),
        (
            b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n",
            501,
            "connect_not_supported",
            "HTTPS_PROXY",
        ),
    ];
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin).on(free_port()).start();
    let url = format!("base URL: http://localhost:{}", interceptor.port);
    for (request, status, code, why) in rows {
        for behind in ["", "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            for size in [usize::MAX, 1] {
                let mut client = interceptor.client();
                client.offer_in_pieces([request, behind.as_bytes()].concat(), size);
                let response = client.response("GET");
                check_own_error(&response, &[status]);
                assert_eq!(response.fields.one("x-ic-error"), Some(code), "{why}");
                assert!(response.text().contains(&url), "{why}: {}", response.text());
            }
        }
    }
    assert!(origin.requests().is_empty());
    // The client may be one that shows no response.
    for start in [
        "this port speaks plain HTTP",
        "ic is not a forward",
        "CONNECT",
    ] {
        let said = interceptor.wait_for_errors("a warning", |said| said.contains(start));
        let lines = said.lines().filter(|line| line.contains(start));
        let lines: Vec<&str> = lines.filter(|line| line.contains("refused a")).collect();
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line.contains(&url)),
            "{start}: {said}"
        );
    }
    let said = interceptor.errors();
    assert!(
        said.matches("refused a client").count() < 8,
        "one line for each kind, not for each request: {said}"
    );
    assert!(!said.contains("secret"), "{said}");
    count("guards: clients set up for another server", 4 * rows.len());
}

#[test]
fn the_url_to_use_is_one_that_this_listener_serves() {
    let beyond = Stage::with(&["--host", "0.0.0.0"]);
    let named = Stage::with(&["--host", "0.0.0.0", "--allow-host", "dev.example"]);
    let rows = [
        (&beyond, [127, 0, 0, 1], "localhost"),
        (&beyond, [127, 0, 0, 2], "127.0.0.2"),
        (&named, [127, 0, 0, 1], "localhost"),
        (&named, [127, 0, 0, 2], "dev.example"),
    ];
    for (stage, ip, host) in rows {
        // Only on Linux does this machine have all of 127.0.0.0/8.
        if ip != [127, 0, 0, 1] && !cfg!(target_os = "linux") {
            continue;
        }
        let port = stage.interceptor.port;
        let mut client = Conn::connect("client", SocketAddr::from((ip, port)));
        client.send(CLIENT_HELLO);
        let text = client.response("GET").text();
        let url = format!("base URL: http://{host}:{port}\"");
        assert!(text.contains(&url), "{ip:?}: {text}");
    }
}

#[test]
fn allow_host_adds_a_host_value() {
    let stage = Stage::with(&["--allow-host", "dev.example", "--allow-host", "10.1.2.3"]);
    for host in [
        "dev.example",
        "DEV.example:8888",
        "10.1.2.3",
        "10.1.2.3:8888",
        "localhost",
    ] {
        stage.forwarded(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for host in [
        "x.dev.example",
        "dev.example.evil",
        "10.1.2.30",
        "evil.example",
    ] {
        let mut client = stage.interceptor.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        check_own_error(&client.response("GET"), &[421]);
    }
}

#[test]
fn a_listener_beyond_loopback_accepts_any_host_value_and_says_so() {
    let stage = Stage::with(&["--host", "0.0.0.0"]);
    for host in ["localhost", "192.168.1.7:8888", "build.lan"] {
        stage.forwarded(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    stage.interceptor.wait_for_errors("a warning", |said| {
        said.contains("warning: every Host is accepted") && said.contains("--allow-host")
    });
}

#[test]
fn allow_host_restricts_every_listener() {
    let beyond = Stage::with(&["--host", "0.0.0.0", "--allow-host", "dev.example"]);
    let socket = Stage::launch("", |launch| {
        launch
            .at(scratch_socket())
            .args(["--allow-host", "dev.example"])
    });
    for stage in [&beyond, &socket] {
        for host in ["dev.example:8888", "localhost", "127.0.0.1:8888"] {
            stage.forwarded(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        }
        for host in ["evil.example", "192.168.1.7", "x.dev.example"] {
            let mut client = stage.interceptor.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            check_own_error(&client.response("GET"), &[421]);
        }
        let said = stage.interceptor.errors();
        assert!(!said.contains("every Host"), "{said}");
    }
}

#[test]
fn requests_of_local_pages_and_of_other_programs_are_served() {
    let origins = [
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8443",
        "http://127.0.0.1:5173",
        "http://[::1]:5",
        "http://app.localhost:1",
        "HTTP://LOCALHOST",
        "vscode-webview://0abc",
        "chrome-extension://abcdef",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
    ];
    let stage = Stage::new();
    for origin in origins {
        let seen = stage.forwarded(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(
            seen.fields.one("origin"),
            Some(origin),
            "forwarded unchanged, like any field"
        );
    }
    count("guards: origins served", origins.len());
}

#[test]
fn requests_of_pages_of_other_sites_are_refused() {
    let origins = [
        "https://evil.example",
        "http://evil.example",
        "http://evil.example:8888",
        "HTTPS://EVIL.EXAMPLE",
        "https://localhost.evil.example",
        "http://xlocalhost",
        "http://127.0.0.1.evil.example",
        "http://128.0.0.1",
        "http://10.0.0.1:80",
        "http://[::2]",
        "https://localhost@evil.example",
        // A sandboxed frame, a form of an https page, a page that runs from a file.
        "null",
        "http://localhost, null",
    ];
    let (origin, interceptor) = agreeing();
    for page in origins {
        for request in [
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: {page}\r\nContent-Length: 5\r\n\r\nhello"
            ),
            format!(
                "OPTIONS / HTTP/1.1\r\nHost: localhost\r\norigin: {page}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
            ),
            format!(
                "GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nOrigin: {page}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            ),
        ] {
            let mut client = interceptor.client();
            client.send(&request);
            check_own_error(&client.response("GET"), &[403]);
        }
    }
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: https://evil.example\r\n\r\n");
    check_own_error(&client.response("GET"), &[400, 403]);
    assert!(origin.requests().is_empty());
    count("guards: origins refused", 3 * origins.len() + 1);
}

/// How pages of other sites send requests without an `Origin`, and how programs and pages of this machine do.
#[test]
fn without_an_origin_the_browser_says_which_requests_are_of_other_sites() {
    let form =
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n";
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    let upgrade =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let rows = [
        (get, "cross-site", "no-cors", false, "an image"),
        (get, "cross-site", "cors", false, "a script that reads"),
        (upgrade, "cross-site", "websocket", false, "a WebSocket"),
        (form, "cross-site", "navigate", false, "a form"),
        (form, "cross-site", "no-cors", false, "a script"),
        (get, "cross-site", "navigate", true, "a link"),
        (get, "same-site", "no-cors", true, "a page of this machine"),
        (get, "same-origin", "cors", true, "a page of the target"),
        (form, "same-origin", "cors", true, "a form of the target"),
        (get, "none", "navigate", true, "the address bar"),
    ];
    let stage = Stage::new();
    for (start, site, mode, is_served, why) in rows {
        let request = format!("{start}Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: {mode}\r\n\r\n");
        let request = match start == form {
            true => request + "hello",
            false => request,
        };
        if is_served {
            stage.forwarded(request);
            continue;
        }
        stage.origin.forget();
        let mut client = stage.interceptor.client();
        client.send(request);
        let response = client.response("GET");
        assert_eq!(response.status, 403, "{why}: {response:?}");
        check_own_error(&response, &[403]);
        assert!(stage.origin.requests().is_empty(), "{why}");
    }
    // A page whose Origin is served may be of another site.
    stage.forwarded(
        "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://127.0.0.1:3000\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n\r\n",
    );
    count("guards: requests without an origin", rows.len() + 1);
}

#[test]
fn allow_origin_null_serves_pages_without_an_origin() {
    let stage = Stage::with(&["--allow-origin", "null"]);
    for fields in ["", "Sec-Fetch-Site: cross-site\r\n"] {
        stage.forwarded(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n{fields}Content-Length: 0\r\n\r\n"
        ));
    }
    let mut client = stage.interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n");
    check_own_error(&client.response("GET"), &[403]);
}

#[test]
fn allow_origin_adds_an_origin() {
    let stage = Stage::with(&[
        "--allow-origin",
        "https://app.example",
        "--allow-origin",
        "http://dev.example:3000",
    ]);
    for page in [
        "https://app.example",
        "http://dev.example:3000",
        "http://localhost",
    ] {
        stage.forwarded(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {page}\r\n\r\n"
        ));
    }
    for page in [
        "http://app.example",
        "https://app.example.evil",
        "https://x.app.example",
        "http://dev.example",
        "http://dev.example:3001",
        "https://evil.example",
    ] {
        let mut client = stage.interceptor.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {page}\r\n\r\n"
        ));
        check_own_error(&client.response("GET"), &[403]);
    }
}

#[test]
fn health_identifies_the_interceptor() {
    let origin = Origin::agreeing();
    let launch = Launch::before(&origin).args(["--instance-id", "me-1"]);
    let folder = launch.folder().canonicalize().expect("the folder exists");
    let interceptor = launch.start();
    let health = interceptor.health();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["instance_id"], "me-1");
    assert_eq!(health["pid"], interceptor.pid());
    assert!(
        health["uptime_seconds"]
            .as_f64()
            .is_some_and(|uptime| (0.0..60.0).contains(&uptime)),
        "{health}"
    );
    let target = health["target"].as_str().unwrap_or_default();
    assert!(target.starts_with(&origin.url()), "{health}");
    let project = health["project"].to_string();
    let name = folder.file_name().expect("it has a name").to_string_lossy();
    assert!(project.contains(&*name), "the folder or its name: {health}");
    assert!(origin.requests().is_empty(), "health is not forwarded");
    let mut client = interceptor.client();
    client.send("HEAD /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        client.response("HEAD").status,
        200,
        "HEAD where GET is (RFC 9110 §9.3.2)"
    );
}

#[test]
fn metrics_have_the_text_format_of_prometheus() {
    let (_, interceptor) = &agreeing();
    let mut client = interceptor.client();
    client.send(GET);
    client.response("GET");
    client.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.response("GET");
    assert!(
        response
            .fields
            .one("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain")),
        "{response:?}"
    );
    let text = response.text();
    assert!(text.contains("# TYPE ") && text.ends_with('\n'), "{text}");
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(
            value.parse::<f64>().is_ok(),
            "a sample ends with a number: {line}"
        );
    }
}

#[test]
fn a_failed_exchange_is_counted_once() {
    let origin = Origin::answering(|request, _| match request.target.as_str() {
        "/fails" => Reply::Close,
        "/breaks" => {
            Reply::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec())
        }
        _ => Reply::Bytes(OK.to_vec()),
    });
    let interceptor = Interceptor::before(&origin);
    for target in ["/fails", "/breaks", "/works"] {
        let mut client = interceptor.client();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"));
        client.drain();
    }
    let health = interceptor.health();
    assert_eq!(health["requests"], 3, "{health}");
    assert_eq!(health["errors"], 2, "{health}");
    assert_eq!(health["in_flight"], 0, "{health}");
}

#[test]
fn the_interceptors_pages_need_no_origin_and_keep_the_connection_open() {
    let interceptor = Launch::toward(format!("http://127.0.0.1:{}", free_port())).start();
    let mut client = interceptor.client();
    for _ in 0..3 {
        client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response("GET").status, 200);
    }
}
