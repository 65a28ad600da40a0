//! When the target's name is looked up again. `/etc/hosts` is another file for the interceptor, which the test changes.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A file in the place of `/etc/hosts` for one interceptor; `None` where mounting is not permitted.
struct Hosts(PathBuf);

impl Hosts {
    fn new(lines: &str) -> Option<Hosts> {
        if !crate::confined::may_mount() {
            println!("skipped: mount namespaces are not permitted here");
            return None;
        }
        let hosts = Hosts(scratch_folder().join("hosts"));
        hosts.set(lines);
        Some(hosts)
    }

    /// Replaces its lines. The file stays the same, since it is mounted.
    fn set(&self, lines: &str) {
        std::fs::write(&self.0, lines).expect("the build folder can be written");
    }

    /// Starts an interceptor toward `moving.test`.
    fn interceptor(&self, scheme: &str, port: u16) -> Interceptor {
        let launch = Launch::toward(format!("{scheme}://moving.test:{port}"));
        self.under(launch).start()
    }

    /// Puts it, and the files beside it, in the place of those in `/etc`.
    fn under(&self, launch: Launch) -> Launch {
        let folder = self.0.parent().expect("a file is in a folder");
        let script = format!(
            "for file in '{}'/*; do mount --bind \"$file\" \"/etc/${{file##*/}}\" || exit; done; exec \"$@\"",
            folder.display()
        );
        launch.under(&["unshare", "--mount", "sh", "-c", &script, "sh"])
    }
}

const CLOSES: &str = "Connection: close";

/// An origin on a loopback address that answers each request with `field` and `text`.
fn origin_at(
    last: u8,
    port: u16,
    tls: Option<tls::Config>,
    (field, text): (&'static str, &'static str),
) -> Origin {
    Origin::listen_at((Ipv4Addr::new(127, 0, 0, last), port).into())
        .with_tls(tls)
        .answers(move |_, _| {
            let length = text.len();
            let head = format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: {length}\r\n\r\n");
            let answer = (head + text).into_bytes();
            match field {
                CLOSES => Reply::BytesThenClose(answer),
                _ => Reply::Bytes(answer),
            }
        })
}

fn answer(interceptor: &Interceptor) -> String {
    let mut client = interceptor.client();
    client.send(GET);
    client.response("GET").text()
}

#[test]
fn the_name_is_looked_up_again_after_half_a_minute() {
    // At the same time, since each waits for that.
    std::thread::scope(|scope| {
        scope.spawn(check_moved);
        scope.spawn(check_moved_while_connected);
        scope.spawn(check_unresolved);
        scope.spawn(check_unanswered);
    });
}

/// The old address still accepts connections.
fn check_moved() {
    let Some(hosts) = Hosts::new("127.0.0.11 moving.test\n") else {
        return;
    };
    let port = free_port();
    let _old = origin_at(11, port, None, (CLOSES, "old"));
    let _new = origin_at(12, port, None, (CLOSES, "new"));
    let interceptor = hosts.interceptor("http", port);
    assert_eq!(answer(&interceptor), "old");
    hosts.set("127.0.0.12 moving.test\n");
    assert_eq!(answer(&interceptor), "old", "connections share a lookup");
    let mut idle = interceptor.client();
    idle.expect_silence(Duration::from_secs(31));
    assert_eq!(answer(&interceptor), "new", "for half a minute");
}

/// Connections to the old address stay open, and requests use them.
fn check_moved_while_connected() {
    let Some(hosts) = Hosts::new("127.0.0.19 moving.test\n") else {
        return;
    };
    let keeps = "Keep-Alive: timeout=300";
    let port = free_port();
    let old = origin_at(19, port, None, (keeps, "old"));
    let _new = origin_at(20, port, None, (keeps, "new"));
    let interceptor = hosts.interceptor("http", port);
    assert_eq!(answer(&interceptor), "old");
    hosts.set("127.0.0.20 moving.test\n");
    let mut idle = interceptor.client();
    // Traffic does not keep the old address in use.
    for _ in 0..16 {
        idle.expect_silence(Duration::from_secs(2));
        answer(&interceptor);
    }
    assert_eq!(answer(&interceptor), "new");
    assert_eq!(old.connections(), 1, "the connection was reused before");
}

/// A lookup that fails changes nothing (RFC 8767 §5).
fn check_unresolved() {
    let Some(hosts) = Hosts::new("127.0.0.18 moving.test\n") else {
        return;
    };
    let port = free_port();
    let origin = origin_at(18, port, None, (CLOSES, "ok"));
    let interceptor = hosts.interceptor("http", port);
    assert_eq!(answer(&interceptor), "ok");
    hosts.set("127.0.0.1 localhost\n");
    let mut idle = interceptor.client();
    idle.expect_silence(Duration::from_secs(31));
    assert_eq!(answer(&interceptor), "ok", "RFC 8767 §5");
    drop(origin);
    let mut client = interceptor.client();
    client.send(GET);
    let code = check_own_error(&client.response("GET"), &[502]);
    assert_eq!(code, "target_unresolved", "unless that fails too");
}

/// Nor does one that gets no answer.
fn check_unanswered() {
    let Some(hosts) = Hosts::new("127.0.0.21 moving.test\n") else {
        return;
    };
    let Ok(name_server) = UdpSocket::bind("127.0.0.21:53") else {
        println!("skipped: the port of name servers is not permitted here");
        return;
    };
    let resolver = hosts.0.with_file_name("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.21\noptions timeout:30\n")
        .expect("the build folder can be written");
    let port = free_port();
    let _origin = origin_at(21, port, None, (CLOSES, "ok"));
    let interceptor = hosts.interceptor("http", port);
    assert_eq!(answer(&interceptor), "ok");
    hosts.set("127.0.0.1 localhost\n");
    let mut idle = interceptor.client();
    idle.expect_silence(Duration::from_secs(31));
    assert_eq!(answer(&interceptor), "ok", "RFC 8767 §5");
    let asked = name_server
        .set_nonblocking(true)
        .and_then(|()| name_server.recv(&mut [0; 512]));
    asked.expect("the name server was asked");
}

#[test]
fn a_target_that_moves_is_found_at_once_when_its_old_address_fails() {
    let Some(hosts) = Hosts::new("127.0.0.13 moving.test\n") else {
        return;
    };
    let port = free_port();
    let old = origin_at(13, port, None, (CLOSES, "old"));
    let interceptor = hosts.interceptor("http", port);
    assert_eq!(answer(&interceptor), "old");
    drop(old);
    let _new = origin_at(14, port, None, (CLOSES, "new"));
    hosts.set("127.0.0.14 moving.test\n");
    assert_eq!(answer(&interceptor), "new", "the old address refuses");
}

#[cfg(feature = "tls")]
#[test]
fn a_target_that_moves_is_found_at_once_when_another_certificate_is_at_its_old_address() {
    let Some(hosts) = Hosts::new("127.0.0.15 moving.test\n") else {
        return;
    };
    let identity = |name: &str| Some(tls::Authority::known().issue(&[name], |_| {}).server());
    let port = free_port();
    let old = origin_at(15, port, identity("moving.test"), (CLOSES, "old"));
    let interceptor = hosts.interceptor("https", port);
    assert_eq!(answer(&interceptor), "old");
    drop(old);
    let _other = origin_at(15, port, identity("other.test"), (CLOSES, "other"));
    let _new = origin_at(16, port, identity("moving.test"), (CLOSES, "new"));
    hosts.set("127.0.0.16 moving.test\n");
    assert_eq!(answer(&interceptor), "new", "the certificate is another's");
}

#[test]
fn hold_waits_for_a_name_that_does_not_resolve_yet() {
    let Some(hosts) = Hosts::new("127.0.0.1 localhost\n") else {
        return;
    };
    let port = free_port();
    let _origin = origin_at(17, port, None, (CLOSES, "up"));
    let launch = Launch::toward(format!("http://moving.test:{port}")).args(["--hold", "60"]);
    let interceptor = hosts.under(launch).start();
    let mut client = interceptor.client().with_timeout(6 * DEADLINE);
    client.send(GET);
    client.expect_silence(Duration::from_millis(500));
    hosts.set("127.0.0.17 moving.test\n");
    assert_eq!(client.response("GET").text(), "up");
}
