//! Listening on a Unix socket: its file, its owner and mode, who may connect, and what is served there. With
//! `IC_TEST_LISTEN=unix`, the other modules run over such a socket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cli_home::Home;
use crate::support::*;

const GET: &str = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// `ic serve` that must not start: its exit code and its error.
#[track_caller]
fn refused(socket: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let launch = Launch::bare().at(socket).args(["--mock"]);
    launch.args(arguments.iter().copied()).fail()
}

#[track_caller]
fn check_serves(interceptor: &Interceptor, origin: &Origin) {
    let mut client = interceptor.client();
    client.send(GET);
    assert_eq!(client.response("GET").text(), "ok");
    assert_eq!(
        origin
            .requests()
            .last()
            .map(|request| request.target.clone()),
        Some("/v1/models".to_owned())
    );
}

#[test]
fn requests_through_a_socket_are_forwarded_as_through_a_port() {
    let origin = Origin::listen();
    let interceptor = Launch::before(&origin).at(scratch_socket()).start();

    // A request and its response. The origin keeps no connections, so each request is a new one.
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    assert_eq!(served.request().target, "/v1/models");
    served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("GET").text(), "ok");

    // A stream: each event is forwarded as it arrives.
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    );
    let mut served = origin.accept();
    assert_eq!(served.request().body, b"{}");
    served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (_, framing) = client.response_head("POST");
    let mut body = Body::new(framing);
    for _ in 0..3 {
        served.send("9\r\ndata: 1\n\n\r\n");
        client.expect_some(&mut body, "data: 1\n\n");
    }
    served.send("0\r\n\r\n");
    client.expect_end_of(&mut body);

    // Bodies that are large enough for splicing, in both directions, and a client that only half-closes.
    let large = vec![b'x'; 8 << 20];
    client.send("POST /files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n");
    let mut writer = client.twin();
    let sent = large.clone();
    let upload = std::thread::spawn(move || {
        writer.send(&sent);
        writer.finish_writing();
    });
    let mut served = origin.accept();
    assert!(served.request().body == large, "it arrives unchanged");
    upload.join().expect("the thread does not panic");
    served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n");
    let mut writer = served.twin();
    let sent = large.clone();
    let download = std::thread::spawn(move || writer.send(&sent));
    assert!(client.response("POST").body == large, "it comes back whole");
    download.join().expect("the thread does not panic");
    client.expect_eof();

    // A tunnel.
    let mut client = interceptor.client();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let mut served = origin.accept();
    served.request();
    served.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    assert_eq!(client.response_head("GET").0.start[1], "101");
    client.send("ping");
    served.expect("ping");
    served.send("pong");
    client.expect("pong");
    client.close();
    served.expect_end();
}

#[test]
fn a_client_that_disconnects_is_dropped_and_one_that_half_closes_gets_its_response() {
    let origin = Origin::listen();
    let interceptor = Launch::before(&origin).at(scratch_socket()).start();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    client.close();
    assert_ne!(served.drain().1, Stop::Silent);

    // Where the system does not report the difference, the Connection field decides.
    let mut client = interceptor.client();
    client.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    client.finish_writing();
    let mut served = origin.accept();
    served.request();
    served.expect_silence(Duration::from_millis(300));
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("GET").text(), "ok");
    client.expect_eof();
}

#[test]
fn any_host_is_served_on_a_socket_but_no_foreign_origin() {
    let (origin, socket) = (Origin::agreeing(), scratch_socket());
    let interceptor = Launch::before(&origin).at(&socket).start();
    let rows: &[(&str, u16, &str)] = &[
        ("Host: localhost", 200, "as curl --unix-socket sends it"),
        ("Host: ic.example.com", 200, "as a reverse proxy sends it"),
        (
            "Host: localhost\r\nOrigin: https://evil.example",
            403,
            "a page, through such a proxy",
        ),
        ("Host: a\r\nHost: b", 400, "two hosts"),
        (
            "Host: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            400,
            "two framings",
        ),
    ];
    for (fields, status, why) in rows {
        let mut client = interceptor.client();
        client.send(format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(client.response("GET").status, *status, "{why}");
    }
    let served = rows.iter().filter(|(_, status, _)| *status == 200).count();
    assert_eq!(origin.requests().len(), served);
    // Only its user may connect, not even its group.
    let mode = fs::metadata(&socket).expect("the file exists").mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_socket_of_a_dead_process_is_replaced_and_removed_at_exit() {
    let (origin, socket) = (Origin::agreeing(), scratch_socket());
    drop(UnixListener::bind(&socket).expect("a socket"));
    let mut interceptor = Launch::before(&origin)
        .at(&socket)
        .args(["--listen-mode", "660"])
        .start();
    let mode = fs::metadata(&socket).expect("the file exists").mode();
    assert_eq!(mode & 0o777, 0o660);
    check_serves(&interceptor, &origin);
    let said = interceptor.errors();
    let listening = format!("Listening:  unix:{}\nTarget: ", socket.display());
    assert!(said.contains(&listening), "{said}");
    assert!(!said.contains("Port from"), "{said}");
    interceptor.terminate();
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn the_name_of_a_socket_is_free_during_shutdown() {
    let (origin, socket) = (Origin::listen(), scratch_socket());
    let mut before = Launch::before(&origin).at(&socket).start();
    let mut client = before.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    before.terminate();
    before.wait_for_errors("a farewell", |said| said.contains("stopping;"));
    // The next process takes over the name, and keeps its socket.
    let other = Origin::agreeing();
    let after = Launch::before(&other).at(&socket).start();
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("GET").text(), "ok");
    assert_eq!(before.exit_within(DEADLINE).code(), Some(0));
    drop(before);
    check_serves(&after, &other);
}

#[test]
fn a_file_that_is_not_the_socket_of_a_dead_process_is_kept_and_named() {
    let (origin, socket) = (Origin::agreeing(), scratch_socket());
    let shown = format!("unix:{}", socket.display());
    let interceptor = Launch::before(&origin)
        .at(&socket)
        .args(["--instance-id", "me-1"])
        .start();
    let (code, said) = refused(&socket, &[]);
    assert_eq!(code, Some(3), "{said}");
    let whose = format!(
        "{shown} is in use by the interceptor `me-1` (pid {})",
        interceptor.pid()
    );
    assert!(said.contains(&whose), "{said}");
    let (code, said) = Launch::before(&origin)
        .in_folder(interceptor_folder(&interceptor))
        .at(&socket)
        .fail();
    assert_eq!(code, Some(3), "{said}");
    let ours = format!("this project's interceptor is already running on {shown} (pid ");
    assert!(said.contains(&ours), "{said}");
    check_serves(&interceptor, &origin);
    drop(interceptor);

    let other = UnixListener::bind(&socket).expect("a socket");
    let (code, said) = refused(&socket, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&format!("{shown} is in use")), "{said}");
    if cfg!(all(target_os = "linux", not(ic_portable))) {
        assert!(
            said.contains(&format!("(pid {})", std::process::id())),
            "{said}"
        );
    }
    drop(other);
    fs::remove_file(&socket).expect("the file exists");

    let datagrams = UnixDatagram::bind(&socket).expect("a socket");
    assert_eq!(refused(&socket, &[]).0, Some(3));
    drop(datagrams);
    fs::remove_file(&socket).expect("the file exists");

    fs::write(&socket, "notes").expect("it can be written");
    let (code, said) = refused(&socket, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("something that is no socket has that name"),
        "{said}"
    );
    assert_eq!(fs::read(&socket).expect("the file exists"), b"notes");
    fs::remove_file(&socket).expect("the file exists");
}

fn interceptor_folder(interceptor: &Interceptor) -> std::path::PathBuf {
    let project = interceptor.health()["project"].as_str().map(str::to_owned);
    project.expect("it has a project").into()
}

#[test]
fn options_that_contradict_a_socket_are_refused_before_it_is_created() {
    let home = Home::new();
    let before = home.content();
    let path = home.path("ic.sock");
    let socket = format!("unix:{}", path.display());
    let long = format!("unix:/{}", "a".repeat(200));
    let rows: &[(&[&str], &str)] = &[
        (
            &["serve", "--listen", &socket, "--port", "9000"],
            "`--listen` takes the place of a port; give `--listen` or `--port`",
        ),
        (
            &["serve", "--listen", &socket, "--host", "::1"],
            "`--listen` takes the place of a port; give `--listen` or `--host`",
        ),
        (
            &["serve", "--listen", "127.0.0.1:80"],
            "`--listen 127.0.0.1:80` is not a Unix socket",
        ),
        (
            &["serve", "--listen", "unix:ic.sock"],
            "`--listen unix:ic.sock` has no absolute path",
        ),
        (&["serve", "--listen", &long], "`--listen unix:/aaa"),
        (
            &["serve", "--listen-mode", "660"],
            "`--listen-mode` is for a Unix socket",
        ),
        (
            &["serve", "--listen", &socket, "--listen-mode", "rw"],
            "`--listen-mode rw` is not a mode",
        ),
        (
            &["serve", "--listen", &socket, "--listen-mode", "1777"],
            "`--listen-mode 1777` is not a mode",
        ),
        (
            &["serve", "--listen", &socket, "--header", "x-port: {port}"],
            "the field `x-port` holds {port}",
        ),
        (
            &["serve", "--listen", "unix:/a", "--target", "nowhere"],
            "`--target nowhere` has no scheme",
        ),
        (
            &["run", "--listen", &socket, "--", "true"],
            "`--listen` is for `ic serve`",
        ),
    ];
    for (arguments, start) in rows {
        let said = home.ic(*arguments).complaint(2);
        assert!(said.starts_with(start), "{said}");
    }
    let nowhere = ["serve", "--mock", "--listen", "unix:/nowhere/ic.sock"];
    let said = home.ic(nowhere).complaint(3);
    assert!(
        said.starts_with("cannot listen on unix:/nowhere/ic.sock: "),
        "{said}"
    );
    assert!(said.ends_with("; make its folder first"), "{said}");
    assert_eq!(home.content(), before);
}

#[test]
fn a_target_that_is_the_socket_itself_is_refused() {
    let socket = scratch_socket();
    let (code, said) = Launch::toward(format!("unix:{}", socket.display()))
        .at(&socket)
        .fail();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is this interceptor itself"), "{said}");
    assert!(!socket.exists());
}

#[test]
fn a_socket_needs_neither_registry_nor_port() {
    let home = Home::new().with("INTERCEPTOR_PORT", "no port");
    let socket = scratch_socket();
    let listen = format!("unix:{}", socket.display());
    let ran = home.ic(["serve", "--mock", "--listen", &listen, "--idle-exit", "0.2"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(!home.registry().exists());
    assert!(!socket.exists());
}

#[test]
fn ic_health_connects_through_the_socket() {
    let (origin, socket) = (Origin::agreeing(), scratch_socket());
    let place = format!("unix:{}", socket.display());
    let home = Home::new();
    let said = home.ic(["health", &place]).complaint(1);
    let expected =
        format!("no interceptor answers on {place}; `ic serve --listen {place}` starts one");
    assert_eq!(said, expected);
    let interceptor = Launch::before(&origin)
        .at(&socket)
        .args(["--instance-id", "me-1"])
        .start();
    for ready in [&[][..], &["--ready"]] {
        let said = home.ic([&["health", &place], ready].concat()).result(0);
        let expected = format!(
            "✓ {place}: me-1 → {}, pid {}\n",
            origin.url(),
            interceptor.pid()
        );
        assert_eq!(said, expected);
    }
    let said = home.ic(["health", "unix:ic.sock"]).complaint(2);
    assert!(
        said.starts_with("`unix:ic.sock` has no absolute path"),
        "{said}"
    );
    drop(interceptor);

    // A listener that does not respond is not an interceptor.
    let silent = UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("this user owns it");
    assert_eq!(home.ic(["health", &place]).complaint(1), expected);
    drop(silent);
    fs::remove_file(&socket).expect("the file exists");
}

#[test]
fn ic_tail_shows_requests_of_a_project_on_a_socket() {
    let (origin, socket) = (Origin::agreeing(), scratch_socket());
    let mut interceptor = Launch::before(&origin).at(&socket).start();
    let folder = interceptor_folder(&interceptor);
    let mut tail = Command::new(env!("CARGO_BIN_EXE_ic"))
        .args(["tail", "--json"])
        .env_clear()
        .env("HOME", &folder)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started");
    let told = BufReader::new(tail.stdout.take().expect("standard output is a pipe"));
    let mut lines = told.lines().map(|line| line.expect("text"));
    let hello: serde_json::Value = lines
        .next()
        .and_then(|line| serde_json::from_str(&line).ok())
        .expect("the first line is text");
    assert_eq!(hello["port"], serde_json::Value::Null, "{hello}");
    check_serves(&interceptor, &origin);
    interceptor.terminate();
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
    let rest: Vec<String> = lines.collect();
    assert!(
        rest.iter().any(|line| line.contains("/v1/models")),
        "{rest:?}"
    );
    assert!(tail.wait().expect("it ends").success());
}

#[test]
fn limits_and_metrics_apply_to_clients_of_a_socket() {
    let origin = Origin::listen();
    let mut interceptor = Launch::before(&origin)
        .at(scratch_socket())
        .args(["--max-connections", "2", "--idle-exit", "1"])
        .start();
    let clients = [(); 2].map(|()| {
        let mut client = interceptor.client();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        (client, served)
    });
    let mut third = interceptor.client();
    third.send(GET);
    assert_eq!(third.response("GET").status, 503);
    drop(third);
    drop(clients);
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
}
