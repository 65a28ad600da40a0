//! Supervisors: readiness notifications, socket activation, and `--idle-exit`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli_home::{Home, Ran};
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn without_a_client_it_exits_and_prints_why() {
    let origin = Origin::agreeing();
    let (code, said) = Launch::before(&origin).args(["--idle-exit", "0.2"]).fail();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ic: no client for 0.2 s; stopping, as --idle-exit says\n"),
        "{said}"
    );
}

#[test]
fn a_connected_client_prevents_the_idle_exit() {
    let origin = Origin::agreeing();
    let mut interceptor = Launch::before(&origin).args(["--idle-exit", "1"]).start();
    let mut clients = [interceptor.client(), interceptor.client()];
    for client in &mut clients {
        client.expect_silence(Duration::from_millis(700));
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok");
    }
    drop(clients);
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
}

#[test]
fn ic_run_refuses_idle_exit() {
    let home = Home::new();
    let said = home
        .ic(["run", "--idle-exit", "5", "--", "true"])
        .complaint(2);
    assert!(
        said.starts_with("`--idle-exit` is for `ic serve`"),
        "{said}"
    );
}

#[test]
fn a_supervisor_is_notified_of_readiness_and_stop() {
    // Not in the build folder, whose path may be longer than the 107 bytes of a socket's path.
    let path = std::env::temp_dir().join(format!("ic-notify-{}", std::process::id()));
    let mut sockets = vec![(
        path.to_str().expect("UTF-8").to_owned(),
        UnixDatagram::bind(&path).expect("a socket"),
    )];
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("ic-notify-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        sockets.push((format!("@{name}"), socket));
    }
    for (name, socket) in sockets {
        socket
            .set_read_timeout(Some(DEADLINE))
            .expect("a time can be set");
        let told = |expected: &str| {
            let mut state = [0; 256];
            let length = socket
                .recv(&mut state)
                .expect("a notification arrives in time");
            assert_eq!(
                String::from_utf8_lossy(&state[..length]),
                expected,
                "{name}"
            );
        };
        let origin = Origin::agreeing();
        let mut interceptor = Launch::before(&origin).env("NOTIFY_SOCKET", &name).start();
        told("READY=1");
        let mut client = interceptor.client();
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok");
        interceptor.terminate();
        told("STOPPING=1");
        assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
    }
    std::fs::remove_file(path).expect("the socket exists");
}

#[test]
fn a_missing_supervisor_does_not_prevent_serving() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .env("NOTIFY_SOCKET", "/nowhere/notify")
        .start();
    interceptor.wait_for_errors("a warning", |said| {
        said.contains("cannot send READY=1 to NOTIFY_SOCKET")
    });
    let mut client = interceptor.client();
    client.send(GET);
    assert_eq!(client.response("GET").text(), "ok");
}

#[test]
fn the_journal_gets_levels_instead_of_times() {
    let home = Home::new().with("NOTIFY_SOCKET", "/nowhere/notify");
    let file = home.path("journal");
    let log = std::fs::File::create(&file).expect("a file");
    let stat = log.metadata().expect("it is there");
    let run = |stream: String| {
        let status = home
            .command(["serve", "--mock", "--idle-exit", "0.1", "--port"])
            .arg(free_port().to_string())
            .env("JOURNAL_STREAM", stream)
            .stderr(log.try_clone().expect("a descriptor"))
            .status();
        assert_eq!(status.expect("it can be run").code(), Some(0));
        let text = std::fs::read_to_string(&file).expect("text");
        let line = text
            .lines()
            .rfind(|line| line.contains("cannot send READY=1"));
        line.expect("a warning").to_owned()
    };
    let line = run(format!("{}:{}", stat.dev(), stat.ino()));
    assert!(
        line.starts_with("<4>cannot send READY=1 to NOTIFY_SOCKET: "),
        "{line}"
    );
    // Standard error is another file than that of the supervisor.
    let line = run(format!("{}:{}", stat.dev(), stat.ino() + 1));
    assert!(line.contains("Z WARN  cannot send"), "{line}");
}

/// `ic serve` with a socket at descriptor 3, as systemd starts it.
fn handed(home: &Home, socket: impl Into<OwnedFd>, arguments: &[&str]) -> Child {
    const SCRIPT: &str = r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" serve "$@" 3<&0 </dev/null"#;
    let ic = home.command(arguments);
    Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .arg(ic.get_program())
        .args(ic.get_args())
        .env_clear()
        .envs(
            ic.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(ic.get_current_dir().expect("a folder"))
        .stdin(Stdio::from(socket.into()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is a shell")
}

/// Reads the response to a health request.
#[track_caller]
fn expect_health_of(ic: &Child, client: &mut Conn) {
    let text = client.response("GET").text();
    assert!(text.contains(&format!("\"pid\":{}", ic.id())), "{text}");
}

#[test]
fn it_listens_on_a_passed_socket() {
    let home = Home::new().with("INTERCEPTOR_PORT", "1");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    // A client that connects before the process runs is served.
    let mut client = Conn::connect("client", address);
    client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let ic = handed(&home, listener, &["--mock", "--idle-exit", "0.2"]);
    expect_health_of(&ic, &mut client);
    // A web page that uses DNS rebinding is refused here as well.
    client.send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.response("GET").status, 421);
    drop(client);
    let ran = Ran::from(ic.wait_with_output().expect("it ends by itself"));
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let listening = format!(
        "Listening:  http://localhost:{} (127.0.0.1)\n",
        address.port()
    );
    assert!(ran.err.contains(&listening), "{ran:?}");
    assert!(ran.err.contains("Port from:  LISTEN_FDS"), "{ran:?}");
    assert!(!home.registry().exists(), "no registry is written");
}

#[test]
fn on_a_passed_socket_it_uses_what_ic_set_keeps_for_the_project() {
    let origin = Origin::agreeing();
    let home = Home::new();
    let shop = home.path("shop");
    // For an origin in TLS.
    let authority = &tls::Authority::known().file;
    let home = home
        .with_mappings(&[(&shop, 8888)], 8889)
        .with("SSL_CERT_FILE", authority);
    std::os::unix::fs::symlink(&shop, home.path("link")).expect("a link");
    let set = [
        "set",
        "--target",
        &origin.url(),
        "--instance-id",
        "kept-{project}",
        "--header",
        "x-team: {env:TEAM}",
    ];
    home.ic(set).result(0);
    let registry = |home: &Home| std::fs::read(home.registry()).expect("a registry");
    let before = registry(&home);
    let link = home.path("link");
    let link = link.to_str().expect("UTF-8");
    #[track_caller]
    fn check(home: &Home, arguments: &[&str]) -> (Response, String) {
        let path = scratch_socket();
        let unix = UnixListener::bind(&path).expect("a socket");
        let mut client = Conn::connect_to("client", &path);
        client.send(GET);
        let ic = handed(home, unix, &[&["--idle-exit", "0.2"], arguments].concat());
        let response = client.response("GET");
        drop(client);
        std::fs::remove_file(path).expect("the socket still exists");
        let ran = Ran::from(ic.wait_with_output().expect("it ends by itself"));
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        (response, ran.err)
    }
    let home = home.with("TEAM", "blue");
    for arguments in [&[][..], &["--project", link]] {
        origin.forget();
        let (response, _) = check(&home, arguments);
        assert_eq!(response.text(), "ok");
        let seen = origin.requests().remove(0);
        assert_eq!(seen.fields.one("x-memory-user-id"), Some("kept-shop"));
        assert_eq!(seen.fields.one("x-team"), Some("blue"));
    }
    // An option or a variable wins.
    origin.forget();
    check(&home, &["--instance-id", "flag"]);
    let seen = origin.requests().remove(0);
    assert_eq!(seen.fields.one("x-memory-user-id"), Some("flag"));
    assert_eq!(registry(&home), before, "the registry is not written");

    // A registry that cannot be read is not needed.
    std::fs::remove_file(home.registry()).expect("a file");
    std::fs::create_dir(home.registry()).expect("a folder");
    let url = origin.url();
    let (response, said) = check(&home, &["--target", &url]);
    assert_eq!(response.text(), "ok");
    let warning = "ic: warning: the project is served without what `ic set` keeps: ";
    assert!(said.contains(warning), "{said}");
    // With INTERCEPTOR_PORT it is not read.
    let home = home.with("INTERCEPTOR_PORT", "1");
    let (_, said) = check(&home, &["--target", &url]);
    assert!(!said.contains("warning"), "{said}");
}

/// systemd keeps the socket: clients that connect while the interceptor stops wait there for its next start.
#[test]
#[cfg(target_os = "linux")]
fn clients_that_connect_while_it_stops_cost_no_cpu_time() {
    let path = scratch_socket();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let unix = UnixListener::bind(&path).expect("a socket");
    let address = tcp.local_addr().expect("it is bound");
    let sockets: [(OwnedFd, &dyn Fn() -> Conn); 2] = [
        (tcp.into(), &|| Conn::connect("client", address)),
        (unix.into(), &|| Conn::connect_to("client", &path)),
    ];
    for (socket, connect) in sockets {
        let home = Home::new();
        let origin = Origin::listen_in_plain();
        let held = socket.try_clone().expect("a descriptor");
        let mut ic = handed(&home, held, &["--target", &origin.url()]);
        let mut client = connect();
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        let pid = rustix::process::Pid::from_child(&ic);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let errors = BufReader::new(ic.stderr.take().expect("a pipe")).lines();
        let mut said = errors.map(|line| line.expect("text"));
        assert!(said.any(|line| line.contains("requests in flight have")));
        let late = connect();
        let before = scheduled_time(&ic);
        client.expect_silence(Duration::from_millis(500));
        let busy = scheduled_time(&ic) - before;
        assert!(busy < Duration::from_millis(100), "busy for {busy:?}");
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response("GET").text(), "ok");
        let rest: Vec<String> = said.collect();
        let ended = ic.wait().expect("it ends by itself");
        assert_eq!(ended.code(), Some(0), "{rest:?}");
        let waiting = rustix::net::accept(&socket);
        assert!(waiting.is_ok(), "the late client waits for the next start");
        drop(late);
    }
    std::fs::remove_file(path).expect("the socket still exists");
}

/// How long a process has run or was ready to run (`schedstat` of proc(5)): also on a busy machine that is the whole
/// time of a process that never waits.
#[cfg(target_os = "linux")]
fn scheduled_time(ic: &Child) -> Duration {
    let path = format!("/proc/{}/schedstat", ic.id());
    let text = std::fs::read_to_string(path).expect("a running process has a schedstat");
    let nanos = text.split_whitespace().take(2);
    let nanos = nanos.map(|nanos| nanos.parse::<u64>().expect("a number"));
    Duration::from_nanos(nanos.sum())
}

#[test]
fn a_passed_unix_socket_is_not_removed() {
    let home = Home::new().with("INTERCEPTOR_PORT", "1");
    let path = scratch_socket();
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut client = Conn::connect_to("client", &path);
    client.send("GET /_ic/health HTTP/1.1\r\nHost: ic.example.com\r\n\r\n");
    let ic = handed(&home, listener, &["--mock", "--idle-exit", "0.2"]);
    expect_health_of(&ic, &mut client);
    drop(client);
    let ran = Ran::from(ic.wait_with_output().expect("it ends by itself"));
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let listening = format!("Listening:  unix:{}\n", path.display());
    assert!(ran.err.contains(&listening), "{ran:?}");
    assert!(ran.err.contains("Socket:     LISTEN_FDS"), "{ran:?}");
    assert!(!home.registry().exists(), "no registry is written");
    std::fs::remove_file(path).expect("the socket still exists");
}

#[test]
fn a_passed_socket_on_an_ipv4_mapped_loopback_address_is_local() {
    let Ok(listener) = TcpListener::bind("[::ffff:127.0.0.1]:0") else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    let port = listener.local_addr().expect("it is bound").port();
    let home = Home::new();
    let ic = handed(&home, listener, &["--mock", "--idle-exit", "0.2"]);
    let mut client = Conn::connect("client", ([127, 0, 0, 1], port).into());
    client.send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.response("GET").status, 421);
    drop(client);
    let ran = Ran::from(ic.wait_with_output().expect("it ends by itself"));
    assert!(!ran.err.contains("beyond this machine"), "{ran:?}");
}

#[test]
fn a_passed_descriptor_that_is_not_a_listener_is_refused_by_its_number() {
    let home = Home::new();
    let path = std::env::temp_dir().join(format!("ic-handed-{}", std::process::id()));
    let unix = UnixDatagram::bind(&path).expect("a socket");
    let null = std::fs::File::open("/dev/null").expect("it exists");
    for socket in [OwnedFd::from(unix), OwnedFd::from(null)] {
        let ic = handed(&home, socket, &["--mock"]);
        let said = Ran::from(ic.wait_with_output().expect("it ends")).complaint(2);
        assert!(
            said.starts_with("socket 1 of LISTEN_FDS is not one"),
            "{said}"
        );
    }
    std::fs::remove_file(path).expect("the socket exists");
    // As `Accept=yes` passes them: connections instead of listeners.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let client = std::net::TcpStream::connect(address).expect("it is listened on");
    let (connection, _) = listener.accept().expect("it exists");
    let ic = handed(&home, connection, &["--mock"]);
    let said = Ran::from(ic.wait_with_output().expect("it ends")).complaint(2);
    assert!(
        said.starts_with("socket 1 of LISTEN_FDS is not one") && said.contains("Accept=no"),
        "{said}"
    );
    drop(client);
    if cfg!(all(target_os = "linux", not(ic_portable))) {
        use rustix::net::{AddressFamily, SocketType, bind, socket};
        let unready = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&unready, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("it can be bound");
        let ic = handed(&home, unready, &["--mock"]);
        let said = Ran::from(ic.wait_with_output().expect("it ends")).complaint(2);
        assert!(said.contains("it does not listen"), "{said}");
    }
    for option in ["--port", "--host", "--listen"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let ic = handed(&home, listener, &["--mock", option, "9000"]);
        let said = Ran::from(ic.wait_with_output().expect("it ends")).complaint(2);
        assert!(
            said.starts_with(&format!("`{option}` says where to listen")),
            "{said}"
        );
    }
}

#[test]
fn systemd_starts_it_when_a_client_connects() {
    let home = Home::new();
    let port = free_port();
    let [four, six] = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["--listen", &four]);
    if has_ipv6() {
        activate.args(["--listen", &six]);
    }
    let ic = home.command(["serve", "--mock", "--idle-exit", "0.2"]);
    let home_folder = home.path("");
    let started = activate
        .arg(format!("--setenv=HOME={}", home_folder.display()))
        .arg(ic.get_program())
        .args(ic.get_args())
        .current_dir(ic.get_current_dir().expect("a folder"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(ic) = started else {
        eprintln!("skipped: there is no systemd-socket-activate here");
        return;
    };
    let address = four.parse().expect("an address");
    let deadline = std::time::Instant::now() + DEADLINE;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(std::time::Instant::now() < deadline, "it listens in time");
        std::thread::yield_now();
    }
    let mut client = Conn::connect("client", address);
    client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.response("GET");
    // It executes the program, so the process id stays the same.
    assert!(
        response.text().contains(&format!("\"pid\":{}", ic.id())),
        "{}",
        response.text()
    );
    drop(client);
    let output = ic.wait_with_output().expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Port from:  LISTEN_FDS"), "{said}");
}
