//! Under a supervisor: it is told when the interceptor is ready and when it stops, and the interceptor ends by itself
//! when nobody needs it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli_home::{Home, Ran};
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn without_a_client_it_ends_and_says_why() {
    let origin = Origin::agreeing();
    let (code, said) = Launch::before(&origin).args(["--idle-exit", "0.2"]).fail();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ic: no client for 0.2 s; stopping, as --idle-exit says\n"),
        "{said}"
    );
}

#[test]
fn a_client_that_is_connected_keeps_it_even_between_requests() {
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
fn a_program_with_a_client_of_its_own_does_not_end_before_it() {
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
fn a_supervisor_is_told_when_it_is_ready_and_when_it_stops() {
    // Not in the build folder, whose path may be longer than the 107 bytes that a socket's has.
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
            let length = socket.recv(&mut state).expect("it is told in time");
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
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn a_supervisor_that_is_not_there_is_no_reason_not_to_serve() {
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

/// The answer to a client that has asked how it is.
#[track_caller]
fn expect_health_of(ic: &Child, client: &mut Conn) {
    let text = client.response("GET").text();
    assert!(text.contains(&format!("\"pid\":{}", ic.id())), "{text}");
}

#[test]
fn a_socket_that_was_handed_over_is_listened_on() {
    let home = Home::new().with("INTERCEPTOR_PORT", "1");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    // Whoever comes before it runs is served, too.
    let mut client = Conn::connect("client", address);
    client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let ic = handed(&home, listener, &["--mock", "--idle-exit", "0.2"]);
    expect_health_of(&ic, &mut client);
    // A page of the web that has a name for this machine is turned away here as well.
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
fn a_unix_socket_that_was_handed_over_is_listened_on_and_stays() {
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
    std::fs::remove_file(path).expect("it is its maker's to remove");
}

#[test]
fn a_socket_on_a_mapped_loopback_address_is_one_of_this_machine() {
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
fn a_socket_that_cannot_be_listened_on_is_refused_by_its_place() {
    let home = Home::new();
    let path = std::env::temp_dir().join(format!("ic-handed-{}", std::process::id()));
    let unix = UnixDatagram::bind(&path).expect("a socket");
    let null = std::fs::File::open("/dev/null").expect("there is one");
    for socket in [OwnedFd::from(unix), OwnedFd::from(null)] {
        let ic = handed(&home, socket, &["--mock"]);
        let said = Ran::from(ic.wait_with_output().expect("it ends")).complaint(2);
        assert!(
            said.starts_with("socket 1 of LISTEN_FDS is not one"),
            "{said}"
        );
    }
    std::fs::remove_file(path).expect("it is there");
    // As `Accept=yes` hands them over, each with its client.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let client = std::net::TcpStream::connect(address).expect("it is listened on");
    let (connection, _) = listener.accept().expect("there is one");
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
fn systemd_starts_it_when_a_client_comes() {
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
    // It becomes the program, so that it is the same process.
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
