//! Under a supervisor: it is told when the interceptor is ready and when it stops, and the interceptor ends by itself
//! when nobody needs it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn without_a_client_it_ends_and_says_why() {
    for threads in ["1", "2"] {
        let origin = Origin::agreeing();
        let (code, said) = Launch::before(&origin)
            .args(["--idle-exit", "0.2", "--threads", threads])
            .fail();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("ic: no client has been here for 0.2 s; stopping, as --idle-exit says\n"),
            "{said}"
        );
    }
}

#[test]
fn a_client_that_is_connected_keeps_it_even_between_requests() {
    let origin = Origin::agreeing();
    let mut interceptor = Launch::before(&origin)
        .args(["--idle-exit", "1", "--threads", "2"])
        .start();
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
    let home = crate::cli_home::Home::new();
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
        said.contains("NOTIFY_SOCKET cannot be told READY=1")
    });
    let mut client = interceptor.client();
    client.send(GET);
    assert_eq!(client.response("GET").text(), "ok");
}
