//! When the target's name is looked up again. `/etc/hosts` is another file for the interceptor, which the test changes.

use std::net::Ipv4Addr;
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

    fn under(&self, launch: Launch) -> Launch {
        let script = format!(
            "mount --bind '{}' /etc/hosts && exec \"$@\"",
            self.0.display()
        );
        launch.under(&["unshare", "--mount", "sh", "-c", &script, "sh"])
    }
}

/// An origin on a loopback address that answers each request with `text`, and closes: each needs a new connection.
fn origin_at(last: u8, port: u16, tls: Option<tls::Config>, text: &'static str) -> Origin {
    Origin::listen_at((Ipv4Addr::new(127, 0, 0, last), port).into())
        .with_tls(tls)
        .answers(move |_, _| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            Reply::BytesThenClose((head + text).into_bytes())
        })
}

fn answer(interceptor: &Interceptor) -> String {
    let mut client = interceptor.client();
    client.send(GET);
    client.response("GET").text()
}

#[test]
fn a_target_that_moves_is_found_though_its_old_address_still_accepts() {
    let Some(hosts) = Hosts::new("127.0.0.11 moving.test\n") else {
        return;
    };
    let port = free_port();
    let _old = origin_at(11, port, None, "old");
    let _new = origin_at(12, port, None, "new");
    let launch = Launch::toward(format!("http://moving.test:{port}"));
    let interceptor = hosts.under(launch).start();
    assert_eq!(answer(&interceptor), "old");
    hosts.set("127.0.0.12 moving.test\n");
    assert_eq!(answer(&interceptor), "old", "connections share a lookup");
    let mut idle = interceptor.client();
    idle.expect_silence(Duration::from_secs(31));
    assert_eq!(answer(&interceptor), "new", "for half a minute");
}

#[test]
fn a_target_that_does_not_resolve_any_more_is_served_at_its_old_address() {
    let Some(hosts) = Hosts::new("127.0.0.18 moving.test\n") else {
        return;
    };
    let port = free_port();
    let origin = origin_at(18, port, None, "ok");
    let launch = Launch::toward(format!("http://moving.test:{port}"));
    let interceptor = hosts.under(launch).start();
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

#[test]
fn a_target_that_moves_is_found_at_once_when_its_old_address_fails() {
    let Some(hosts) = Hosts::new("127.0.0.13 moving.test\n") else {
        return;
    };
    let port = free_port();
    let old = origin_at(13, port, None, "old");
    let launch = Launch::toward(format!("http://moving.test:{port}"));
    let interceptor = hosts.under(launch).start();
    assert_eq!(answer(&interceptor), "old");
    drop(old);
    let _new = origin_at(14, port, None, "new");
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
    let old = origin_at(15, port, identity("moving.test"), "old");
    let launch = Launch::toward(format!("https://moving.test:{port}"));
    let interceptor = hosts.under(launch).start();
    assert_eq!(answer(&interceptor), "old");
    drop(old);
    let _other = origin_at(15, port, identity("other.test"), "other");
    let _new = origin_at(16, port, identity("moving.test"), "new");
    hosts.set("127.0.0.16 moving.test\n");
    assert_eq!(answer(&interceptor), "new", "the certificate is another's");
}

#[test]
fn hold_waits_for_a_name_that_does_not_resolve_yet() {
    let Some(hosts) = Hosts::new("127.0.0.1 localhost\n") else {
        return;
    };
    let port = free_port();
    let _origin = origin_at(17, port, None, "up");
    let launch = Launch::toward(format!("http://moving.test:{port}")).args(["--hold", "60"]);
    let interceptor = hosts.under(launch).start();
    let mut client = interceptor.client().with_timeout(6 * DEADLINE);
    client.send(GET);
    client.expect_silence(Duration::from_millis(500));
    hosts.set("127.0.0.17 moving.test\n");
    assert_eq!(client.response("GET").text(), "up");
}
