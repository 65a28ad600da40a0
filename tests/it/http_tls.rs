//! TLS targets: verification of certificates, error messages, and rules of HTTP/1.1 that depend on TLS.
//!
//! With `IC_TEST_ORIGIN=https`, the other modules run over TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::Duration;

use rcgen::CertificateParams;

use crate::support::tls::{Authority, Identity, ORIGIN_NAME, of_version_1, self_signed, usual};
use crate::support::{
    Body, Interceptor, Launch, OK, Origin, Reply, Response, Stop, check_own_error, scratch_folder,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

const ON_LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "::1"];

fn answering(config: crate::support::tls::Config) -> Origin {
    Origin::answering_in_tls(config, |_, _| Reply::Bytes(OK.to_vec()))
}

/// The response to a GET on a new connection.
#[track_caller]
fn answer(interceptor: &Interceptor) -> Response {
    let mut client = interceptor.client();
    client.send(GET);
    client.response("GET")
}

/// The error message if the handshake fails.
#[track_caller]
fn refusal(interceptor: &Interceptor, code: &str) -> String {
    let response = answer(interceptor);
    assert_eq!(check_own_error(&response, &[502]), code);
    assert_eq!(
        response.fields.one("x-should-retry"),
        Some("false"),
        "a retry cannot succeed: {response:?}"
    );
    let document: serde_json::Value =
        serde_json::from_slice(&response.body).expect("an error of the interceptor is JSON");
    document["error"]["message"]
        .as_str()
        .expect("the error has a message")
        .to_owned()
}

#[test]
fn a_target_is_reached_by_name_and_by_address() {
    let origin = Origin::listen_in_tls(usual());
    let port = origin.address().port();
    for (host, asked_for) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let interceptor = Launch::toward(format!("https://{host}:{port}")).start();
        let mut client = interceptor.client();
        client.send(GET);
        let mut upstream = origin.accept();
        let request = upstream.request();
        let expected = format!("{host}:{port}");
        assert_eq!(request.fields.one("host"), Some(expected.as_str()));
        assert_eq!(upstream.tls().name_asked_for().as_deref(), asked_for);
        assert_eq!(upstream.tls().protocol().as_deref(), Some("http/1.1"));
        upstream.send(OK);
        assert_eq!(client.response("GET").status, 200);
    }
}

#[test]
fn tls_1_2_and_1_3_are_supported() {
    use rustls::version::{TLS12, TLS13};
    for version in [&TLS12, &TLS13] {
        let identity = Authority::known().issue(ON_LOOPBACK, |_| {});
        let origin = answering(identity.server_of(&[version], None));
        let interceptor = Interceptor::before(&origin);
        assert_eq!(answer(&interceptor).status, 200, "{version:?}");
    }
}

#[test]
fn an_error_names_the_fault_of_a_certificate_and_what_to_do() {
    #[track_caller]
    fn check(identity: &Identity, says: &[&str]) {
        let origin = answering(identity.server());
        let interceptor = Interceptor::before(&origin);
        let message = refusal(&interceptor, "target_certificate");
        for part in says {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(message.contains(&origin.url()), "{message}");
        interceptor.wait_for_errors("the same in the log", |log| log.contains(&message));
        assert!(origin.requests().is_empty(), "no request was sent");
    }
    let known = Authority::known();
    let issued = |change: fn(&mut CertificateParams)| known.issue(ON_LOOPBACK, change);
    check(
        &issued(|params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 2, 3);
        }),
        &["expired on 2021-02-03", "renew it"],
    );
    check(
        &issued(|params| params.not_before = rcgen::date_time_ymd(3000, 4, 5)),
        &["not valid before 3000-04-05", "clock"],
    );
    check(
        &known.issue(&["llm.example.com", "*.example.org"], |_| {}),
        &[
            "for llm.example.com, *.example.org;",
            "use one of its names",
        ],
    );
    check(
        &known.issue(&[], |_| {}),
        &["for no name at all", "issue it with subjectAltName"],
    );
    check(
        &of_version_1(),
        &["has version 1; issue it with subjectAltName", "--ca-file"],
    );
    check(
        &self_signed(ON_LOOPBACK, |_| {}),
        &[
            "issuer that is not trusted here",
            "--ca-file",
            "SSL_CERT_FILE",
        ],
    );
    check(
        &self_signed(ON_LOOPBACK, |params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }),
        &["self-signed", "--ca-file"],
    );
}

/// Starts an interceptor of `origin` for each way to give a certificate, and calls `check` with it.
fn with_each_way_to_give(certificate: &str, origin: &Origin, check: impl Fn(&Interceptor, &str)) {
    let folder = scratch_folder();
    let file = folder.join("given.pem");
    std::fs::write(&file, certificate).unwrap();
    let (file, folder_name) = (file.to_str().unwrap(), folder.to_str().unwrap());
    let launch = || Launch::bare().args(["--target", &origin.url()]);
    for (way, launch) in [
        ("--ca-file", launch().args(["--ca-file", file])),
        ("SSL_CERT_FILE", launch().env("SSL_CERT_FILE", file)),
        ("SSL_CERT_DIR", launch().env("SSL_CERT_DIR", folder_name)),
    ] {
        check(&launch.start(), way);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Certificates of the target itself, with the name of their subject. None of them is a CA's.
fn leaves() -> [(&'static str, Identity, &'static str); 4] {
    let known = Authority::known();
    [
        ("self-signed", self_signed(ON_LOOPBACK, |_| {}), ORIGIN_NAME),
        (
            "of a CA that is not given",
            known.issue(ON_LOOPBACK, |_| {}),
            ORIGIN_NAME,
        ),
        ("without a name", self_signed(&[], |_| {}), ORIGIN_NAME),
        ("of version 1", of_version_1(), "localhost"),
    ]
}

#[test]
fn the_certificate_of_the_target_itself_is_trusted_if_it_is_given() {
    let made_by_openssl = self_signed(ON_LOOPBACK, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let a_ca = ("self-signed by openssl req -x509", made_by_openssl, "");
    for (what, identity, _) in leaves().into_iter().chain([a_ca]) {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let origin = answering(identity.server_of(&[version], None));
            with_each_way_to_give(&identity.certificate, &origin, |interceptor, way| {
                let status = answer(interceptor).status;
                assert_eq!(status, 200, "{what}, {way}, {version:?}");
            });
        }
    }
}

#[test]
fn the_certificate_of_a_target_is_no_ca_for_others() {
    for (what, identity, subject) in leaves() {
        let another = identity.issue(subject, ON_LOOPBACK);
        let origin = answering(another.server());
        with_each_way_to_give(&identity.certificate, &origin, |interceptor, way| {
            let message = refusal(interceptor, "target_certificate");
            let said = "has an issuer that is not trusted here";
            assert!(message.contains(said), "{what}, {way}: {message}");
        });
    }
}

#[test]
fn a_certificate_with_the_key_of_another_one_does_not_prove_a_given_one() {
    // The server sends the certificate that is given, but signs with another key.
    for (what, identity, _) in leaves() {
        let stolen = Identity {
            key: self_signed(ON_LOOPBACK, |_| {}).key,
            certificate: identity.certificate.clone(),
        };
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let origin = answering(stolen.server_of(&[version], None));
            with_each_way_to_give(&identity.certificate, &origin, |interceptor, way| {
                let message = refusal(interceptor, "target_certificate");
                let said = "is invalid (bad signature)";
                assert!(message.contains(said), "{what}, {way}: {message}");
            });
        }
    }
}

#[test]
fn a_certificate_trusted_by_ca_file_must_still_be_valid_for_date_and_name() {
    #[track_caller]
    fn check(names: &[&str], change: fn(&mut CertificateParams), says: &str) {
        let identity = self_signed(names, |params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            change(params);
        });
        let folder = scratch_folder();
        let file = identity.file(&folder);
        let origin = answering(identity.server());
        let interceptor = Launch::bare()
            .args(["--target", &origin.url()])
            .args(["--ca-file", file.to_str().unwrap()])
            .start();
        let message = refusal(&interceptor, "target_certificate");
        assert!(message.contains(says), "{message}");
        std::fs::remove_dir_all(folder).unwrap();
    }
    check(&["elsewhere.example"], |_| {}, "for elsewhere.example;");
    check(
        ON_LOOPBACK,
        |params| params.not_after = rcgen::date_time_ymd(2021, 2, 3),
        "expired on 2021-02-03",
    );
}

#[test]
fn ssl_cert_file_and_ssl_cert_dir_replace_the_certificates_of_the_system() {
    let origin = answering(usual());
    let ca = &Authority::known().file;
    let folder = scratch_folder();
    std::fs::copy(ca, folder.join("some.pem")).unwrap();
    let file = ca.to_str().unwrap().to_owned();
    for (variable, value) in [
        ("SSL_CERT_FILE", file),
        ("SSL_CERT_DIR", format!("/nowhere:{}", folder.display())),
    ] {
        let interceptor = Launch::bare()
            .args(["--target", &origin.url()])
            .env(variable, &value)
            .start();
        assert_eq!(answer(&interceptor).status, 200, "{variable}={value}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn insecure_accepts_any_certificate_and_warns_at_start() {
    let identity = self_signed(&["elsewhere.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    });
    let origin = answering(identity.server());
    let interceptor = Launch::before(&origin).args(["--insecure"]).start();
    assert_eq!(answer(&interceptor).status, 200);
    let said = interceptor.errors();
    let warnings = said
        .lines()
        .filter(|line| line.starts_with("ic: warning: --insecure does not verify "));
    assert_eq!(warnings.count(), 1, "{said}");
    assert_eq!(interceptor.health()["insecure"], true);

    // Without TLS there is no warning.
    let plain = Launch::toward("http://localhost:1")
        .args(["--insecure"])
        .start();
    assert!(!plain.errors().contains("--insecure"), "{}", plain.errors());
    assert_eq!(plain.health()["insecure"], false);
}

#[test]
fn a_client_certificate_is_sent_to_a_target_that_requests_it() {
    use rustls::version::{TLS12, TLS13};
    let known = Authority::known();
    let folder = scratch_folder();
    let mine = known.issue(&["client.example"], |_| {}).file(&folder);
    let mine = mine.to_str().unwrap();
    for version in [&TLS12, &TLS13] {
        let config = known
            .issue(ON_LOOPBACK, |_| {})
            .server_of(&[version], Some(known));
        let origin = answering(config);
        let launch = || Launch::before(&origin);
        let with_key = launch().args(["--client-cert", mine, "--client-key", mine]);
        assert_eq!(answer(&with_key.start()).status, 200, "{version:?}");
        let in_one_file = launch().args(["--client-cert", mine]);
        assert_eq!(answer(&in_one_file.start()).status, 200, "{version:?}");
        let without = answer(&launch().start());
        let code = check_own_error(&without, &[502]);
        assert!(
            without.text().contains("--client-cert"),
            "{}",
            without.text()
        );
        assert!(
            ["client_certificate", "target_tls"].contains(&code.as_str()),
            "{code}"
        );
    }
    let stranger = self_signed(&["client.example"], |_| {});
    let theirs = scratch_folder();
    let stranger = stranger.file(&theirs);
    let origin = answering(
        known
            .issue(ON_LOOPBACK, |_| {})
            .server_of(&[&TLS13], Some(known)),
    );
    let interceptor = Launch::before(&origin)
        .args(["--client-cert", stranger.to_str().unwrap()])
        .start();
    let message = refusal(&interceptor, "client_certificate");
    assert!(
        message.contains("refuses the client certificate"),
        "{message}"
    );
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::remove_dir_all(theirs).unwrap();
}

#[test]
fn an_unusable_certificate_or_key_is_named_before_the_interceptor_listens() {
    let folder = scratch_folder();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    let known = Authority::known();
    let (one, other) = (
        known.issue(&["a.example"], |_| {}),
        known.issue(&["b.example"], |_| {}),
    );
    let empty = write("empty.pem", "");
    let text = write("text.pem", "no certificate");
    let torn = write(
        "torn.pem",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    let certificate = write("one.pem", &one.certificate);
    let key = write("other.pem", &other.key);
    let absent = folder.join("absent.pem");
    let absent = absent.to_str().unwrap();
    #[track_caller]
    fn check(options: &[&str], variables: &[(&str, &str)], code: i32, says: &[&str]) {
        let mut launch = Launch::bare()
            .args(["--target", "https://localhost:1"])
            .args(options.iter().copied());
        for (name, value) in variables {
            launch = launch.env(name, value);
        }
        let (status, said) = launch.fail();
        assert_eq!(status, Some(code), "{said}");
        for part in says {
            assert!(
                said.starts_with("ic: ") && said.contains(part),
                "{part}: {said}"
            );
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    check(
        &["--ca-file", absent],
        &[],
        3,
        &["absent.pem", "no such file"],
    );
    check(&["--ca-file", &empty], &[], 2, &["empty.pem", "PEM"]);
    check(&["--ca-file", &text], &[], 2, &["text.pem", "PEM"]);
    check(&["--ca-file", &torn], &[], 2, &["torn.pem"]);
    check(
        &[],
        &[("SSL_CERT_FILE", absent)],
        3,
        &["absent.pem", "no such file", "correct SSL_CERT_FILE"],
    );
    check(&[], &[("SSL_CERT_FILE", &empty)], 2, &["SSL_CERT_FILE"]);
    check(&["--client-cert", absent], &[], 3, &["absent.pem"]);
    check(
        &["--client-cert", &certificate],
        &[],
        2,
        &["one.pem", "private key"],
    );
    check(
        &["--client-cert", &certificate, "--client-key", &key],
        &[],
        2,
        &["other.pem", "one.pem", "does not match the certificate"],
    );
    check(&["--client-key", &key], &[], 2, &["--client-cert"]);
    let (old, old_key) = (of_version_1().certificate, of_version_1().key);
    let old = write("old.pem", &format!("{old}{old_key}"));
    check(
        &["--client-cert", &old],
        &[],
        2,
        &["old.pem", "it has version 1; issue it with subjectAltName"],
    );
    let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let cut = write("cut.pem", cut);
    let says = ["cut.pem", "cannot be used (", "); issue a new one"];
    check(&["--ca-file", &cut], &[], 2, &says);
    // Without TLS these variables are ignored.
    let plain = Launch::toward("http://localhost:1").args(["--ca-file", absent]);
    drop(plain.env("SSL_CERT_FILE", absent).start());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_error_names_a_target_that_does_not_use_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let interceptor = Launch::toward(url).start();
    let origin = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
        // The response of servers that parse a handshake as a request.
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    let message = refusal(&interceptor, "target_tls");
    assert!(message.contains("http://"), "{message}");
    origin.join().unwrap();
}

#[test]
fn a_target_that_closes_during_the_handshake_may_be_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let interceptor = Launch::toward(url).start();
    let mut client = interceptor.client();
    client.send(GET);
    let (stream, _) = listener.accept().unwrap();
    assert_ne!((&stream).read(&mut [0; 4096]).unwrap(), 0);
    stream.shutdown(Shutdown::Write).unwrap();
    let response = client.response("GET");
    assert_eq!(check_own_error(&response, &[502]), "target_unreachable");
    assert_eq!(response.fields.one("retry-after"), Some("1"));
}

#[test]
fn the_connect_timeout_applies_to_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let interceptor = Launch::toward(url)
        .args(["--connect-timeout", "0.2"])
        .start();
    let response = answer(&interceptor);
    assert_eq!(check_own_error(&response, &[504]), "connect_timeout");
    let text = response.text();
    assert!(text.contains("finish the TLS handshake"), "{text}");
}

#[test]
fn a_response_until_close_is_cut_without_close_notify() {
    let origin = Origin::listen_in_tls(usual());
    let interceptor = Interceptor::before(&origin);
    for is_announced in [true, false] {
        let mut client = interceptor.client();
        client.send(GET);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\n\r\npart");
        let (_, framing) = client.response_head("GET");
        let mut body = Body::new(framing);
        client.expect_some(&mut body, "part");
        if is_announced {
            upstream.close();
            client.expect_end_of(&mut body);
        } else {
            upstream.close_unannounced();
            client.expect_cut(&mut body);
        }
    }
}

#[test]
fn a_body_of_known_length_is_complete_without_close_notify() {
    let origin = Origin::listen_in_tls(usual());
    let interceptor = Interceptor::before(&origin);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for answer in [std::str::from_utf8(OK).unwrap(), chunked] {
        let mut client = interceptor.client();
        client.send(GET);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(answer);
        upstream.close_unannounced();
        assert_eq!(client.response("GET").body, b"ok");
    }
}

#[test]
fn a_kept_connection_is_reused_after_session_tickets() {
    let origin = Origin::listen_in_tls(usual());
    let interceptor = Interceptor::before(&origin);
    let mut client = interceptor.client();
    client.send(GET);
    let mut upstream = origin.accept();
    for _ in 0..3 {
        upstream.request();
        upstream.send(OK);
        assert_eq!(client.response("GET").status, 200);
        client.send(GET);
    }
    upstream.request();
}

#[test]
fn a_kept_connection_that_was_closed_is_not_reused() {
    for is_announced in [true, false] {
        let origin = Origin::listen_in_tls(usual());
        let interceptor = Interceptor::before(&origin);
        let mut client = interceptor.client();
        // A request that must not be sent twice.
        let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        client.send(post);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(OK);
        assert_eq!(client.response("POST").status, 200);
        if is_announced {
            upstream.close();
        } else {
            upstream.close_unannounced();
        }
        client.send(post);
        let mut again = origin.accept();
        again.request();
        again.send(OK);
        assert_eq!(client.response("POST").status, 200);
    }
}

#[test]
fn a_new_connection_resumes_an_earlier_session() {
    let origin = Origin::listen_in_tls(usual());
    let interceptor = Interceptor::before(&origin);
    for is_resumed in [false, true, true] {
        let mut client = interceptor.client();
        client.send(GET);
        let mut upstream = origin.accept();
        assert_eq!(upstream.tls().is_resumed(), is_resumed);
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        assert_eq!(client.response("GET").status, 200);
    }
}

#[test]
fn a_connection_is_closed_with_close_notify() {
    let origin = Origin::listen_in_tls(usual());
    let interceptor = Interceptor::before(&origin);
    let mut client = interceptor.client();
    client.send(GET);
    let mut upstream = origin.accept();
    upstream.request();
    // The client disconnects before the first byte.
    client.close();
    assert_eq!(
        upstream.expect_end_within(Duration::from_secs(5)),
        Stop::Closed
    );
}
