//! `ic doctor` on set-ups as they come, each broken in one way: the one thing that is wrong is named, with the way out. A registry
//! that cannot be written is in `cli_doctor`.

use std::any::Any;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::cli_doctor::{a_buffering_hop, a_server, mock, wrong};
use crate::cli_home::{Home, free_port, held_port};
use crate::support::{DEADLINE, Launch};

/// What somebody has built.
struct SetUp {
    home: Home,
    arguments: Vec<String>,
    /// What runs as long as it is looked at.
    _running: Box<dyn Any>,
}

impl SetUp {
    fn new(home: Home, arguments: &[&str], running: impl Any) -> SetUp {
        SetUp {
            home,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            _running: Box::new(running),
        }
    }

    /// In front of the mock, which is fine.
    fn sound(home: Home, running: impl Any) -> SetUp {
        let (mock, url) = mock();
        SetUp::new(home, &["--no-stream", "--target", &url], (mock, running))
    }
}

/// What is broken; the set-up; how the finding begins; and what it says to do.
type Row = (&'static str, fn() -> SetUp, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "the target is down",
        || {
            let nobody = format!("http://127.0.0.1:{}", free_port());
            SetUp::new(Home::new(), &["--target", &nobody], ())
        },
        "Target http://127.0.0.1:N refuses connections",
        "start it, or give its address with --target or TARGET_LLM_URL",
    ),
    (
        "the target is on another port, and this is something else's",
        || {
            let other = a_server("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
            SetUp::new(Home::new(), &["--target", &other], ())
        },
        "API /v1/models is answered with 404, not with a list of models",
        "is this the LLM proxy's port and path?",
    ),
    (
        "clients' base URL has /v1 twice",
        || {
            let home = Home::new().with("OPENAI_BASE_URL", "http://localhost:8888/v1/v1");
            SetUp::sound(home, ())
        },
        "Variables OPENAI_BASE_URL=http://localhost:N/v1/v1 has a /v1 too much",
        "ic env",
    ),
    (
        "so has the target's",
        || {
            let (mock, url) = mock();
            let target = format!("{url}/v1/v1");
            SetUp::new(Home::new(), &["--target", &target], mock)
        },
        "Target http://127.0.0.1:N/v1/v1 has /v1 twice",
        "TARGET_LLM_URL",
    ),
    (
        "nginx stands in between, as it is without being told",
        || {
            let (mock, _) = mock();
            let (hop, nginx) = match Nginx::before(mock.port) {
                Some(nginx) => (nginx.url(), Some(nginx)),
                None => (a_buffering_hop(mock.port), None),
            };
            SetUp::new(Home::new(), &["--target", &hop], (mock, nginx))
        },
        "Streaming `nginx/",
        "set `proxy_buffering off` there",
    ),
    (
        "another program holds the port",
        || {
            let (listener, held) = held_port();
            let home = Home::new();
            let shop = home.path("shop");
            SetUp::sound(home.with_mappings(&[(&shop, held)], 8888), listener)
        },
        "Port N is held by ",
        "stop that, or `ic remove` and `ic serve` for another port",
    ),
    (
        "the interceptor of another project holds it",
        || {
            let (other, _) = mock();
            let home = Home::new();
            let shop = home.path("shop");
            SetUp::sound(home.with_mappings(&[(&shop, other.port)], 8888), other)
        },
        "Port N is held by the interceptor of another project, `",
        "stop that, or `ic remove`",
    ),
    (
        "a proxy variable leads clients nowhere",
        || {
            let nowhere = format!("http://127.0.0.1:{}", free_port());
            SetUp::sound(Home::new().with("HTTP_PROXY", nowhere), ())
        },
        "Proxies HTTP_PROXY sends clients to 127.0.0.1:N (which refuses connections)",
        "NO_PROXY",
    ),
    (
        "a proxy variable leads ic nowhere",
        || {
            let nowhere = format!("http://127.0.0.1:{}", free_port());
            let home = Home::new()
                .with("HTTPS_PROXY", &nowhere)
                .with("http_proxy", &nowhere)
                .with("no_proxy", "localhost");
            let target = ["--target", "http://llm.example.com", "--use-proxy-env"];
            SetUp::new(home, &target, ())
        },
        "Target http://llm.example.com is reached through the proxy http://127.0.0.1:N, which refuses connections",
        "correct the variable that names it",
    ),
    (
        "a proxy variable is none",
        || {
            let home = Home::new().with("all_proxy", "socks5://127.0.0.1:1");
            let home = home.with("no_proxy", "localhost");
            let target = ["--target", "http://llm.example.com", "--use-proxy-env"];
            SetUp::new(home, &target, ())
        },
        "Proxies the value of all_proxy ",
        "http://",
    ),
];

#[test]
fn the_one_thing_that_is_wrong_is_named() {
    for &(what, set_up, start, way_out) in ROWS {
        check(what, &set_up(), start, way_out);
    }
}

#[track_caller]
fn check(what: &str, set_up: &SetUp, start: &str, way_out: &str) {
    let arguments = [&["doctor".to_owned()][..], &set_up.arguments].concat();
    let ran = set_up.home.ic(arguments);
    let wrong = wrong(&ran);
    assert_eq!(wrong.len(), 1, "{what}: {ran:?}");
    let finding = without_ports(&wrong[0]);
    assert!(finding.starts_with(start), "{what}: {finding}");
    assert!(finding.contains(way_out), "{what}: {finding}");
}

/// N for each port.
fn without_ports(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let is_port = (4..=5).contains(&digits.len());
        out.push_str(if is_port { "N" } else { &digits });
        digits.clear();
        out.push(c);
    }
    out
}

#[test]
fn a_running_interceptor_goes_its_own_way_unless_another_is_given() {
    let (_mock, url) = mock();
    let home = Home::new();
    let shop = home.path("shop");
    let ic = Launch::toward(&url).in_folder(shop.clone()).start();
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let requests = || ic.health()["requests"].as_u64().expect("a number");
    assert_eq!(home.ic(["doctor", "--no-stream"]).exit, Some(0));
    let before = requests();
    assert_eq!(before, 1, "it was asked");
    // Its target is on this machine, so that no proxy counts.
    let ran = home.ic(["doctor", "--no-stream", "--use-proxy-env"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert_eq!(requests(), before, "another one was");
}

#[cfg(feature = "tls")]
mod tls {
    use rcgen::CertificateParams;

    use super::*;
    use crate::support::tls::{Authority, Config, usual};
    use crate::support::{Origin, Reply};

    const MODELS: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"data\":[]}";

    fn https(config: Config, options: &[&str]) -> SetUp {
        let origin = Origin::answering_in_tls(config, |_, _| Reply::Bytes(MODELS.into()));
        let url = origin.url();
        SetUp::new(
            Home::new(),
            &[&["--no-stream", "--target", &url], options].concat(),
            origin,
        )
    }

    fn ca() -> String {
        Authority::known().file.to_string_lossy().into_owned()
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_named_as_serve_with_the_same_options_would_meet_it() {
        let late = |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 2, 3);
        };
        let known = Authority::known();
        let ca = ca();
        let trusting = ["--ca-file", ca.as_str()];
        let elsewhere = known.issue(&["llm.example.com"], |_| {}).server();
        check(
            "its name is another",
            &https(elsewhere, &trusting),
            "TLS the certificate of https://127.0.0.1:N is not for that name but for llm.example.com",
            "use one of its names",
        );
        check(
            "it has expired",
            &https(known.issue(&["127.0.0.1"], late).server(), &trusting),
            "TLS the certificate of https://127.0.0.1:N expired on N-02-03",
            "renew it",
        );
        check(
            "nobody here knows who has signed it",
            &https(usual(), &[]),
            "TLS the certificate of https://127.0.0.1:N has an issuer that is not trusted here",
            "--ca-file",
        );
        let asks = || {
            let identity = known.issue(&["127.0.0.1"], |_| {});
            identity.server_of(rustls::DEFAULT_VERSIONS, Some(known))
        };
        check(
            "it wants a certificate",
            &https(asks(), &trusting),
            "TLS ",
            "--client-cert",
        );

        let client = known.issue(&["me"], |_| {});
        let folder = tempfile::tempdir().expect("a folder");
        let client = client.file(folder.path());
        let client = client.to_str().expect("UTF-8");
        for (config, options, mark) in [
            (usual(), vec!["--ca-file", &ca], "✓ TLS "),
            (
                asks(),
                vec!["--ca-file", &ca, "--client-cert", client],
                "✓ TLS ",
            ),
            (
                asks(),
                vec![
                    "--ca-file",
                    &ca,
                    "--client-cert",
                    client,
                    "--client-key",
                    client,
                ],
                "✓ TLS ",
            ),
            (usual(), vec!["--insecure"], "- TLS "),
        ] {
            let set_up = https(config, &options);
            let ran = set_up
                .home
                .ic([&["doctor".to_owned()][..], &set_up.arguments].concat());
            assert_eq!(ran.exit, Some(0), "{options:?}: {ran:?}");
            assert!(
                ran.out.lines().any(|line| line.starts_with(mark)),
                "{options:?}: {ran:?}"
            );
        }
    }

    #[test]
    fn options_that_serve_refuses_are_refused() {
        let set_up = https(usual(), &["--ca-file", "/nowhere/ca.pem"]);
        let words = [&["doctor".to_owned()][..], &set_up.arguments].concat();
        let ran = set_up.home.ic(words);
        assert_eq!(ran.exit, Some(3), "{ran:?}");
        assert!(ran.err.contains("cannot read `/nowhere/ca.pem`"), "{ran:?}");
        let said = Home::new()
            .ic(["doctor", "--client-key", "key.pem"])
            .complaint(2);
        assert!(said.contains("give `--client-cert` as well"), "{said}");
    }
}

/// nginx with nothing said about buffering.
struct Nginx {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// None where there is no nginx.
    fn before(origin: u16) -> Option<Nginx> {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let here = folder.path().display();
        let configuration = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/errors;\n\
             events {{}}\n\
             http {{\n\
               access_log off; client_body_temp_path {here}/a; proxy_temp_path {here}/b; fastcgi_temp_path {here}/c;\n\
               uwsgi_temp_path {here}/d; scgi_temp_path {here}/e;\n\
               server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{origin}; }} }}\n\
             }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("a file");
        let started = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else {
            eprintln!("skipped: there is no nginx here; another that holds back takes its place");
            return None;
        };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "nginx has ended: {ended:?}");
            assert!(Instant::now() < deadline, "nginx listens in time");
            std::thread::yield_now();
        }
        Some(Nginx {
            child,
            port,
            _folder: folder,
        })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
