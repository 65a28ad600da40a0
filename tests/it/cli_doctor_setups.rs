//! `ic doctor` on typical setups, each with one fault, which is reported with what to do. `cli_doctor` tests a registry that
//! cannot be written.

use std::any::Any;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::cli_doctor::{a_buffering_hop, a_server, mock, wrong};
use crate::cli_home::{Home, free_port, held_port};
use crate::support::{DEADLINE, Launch, Origin};

/// A setup.
struct SetUp {
    home: Home,
    arguments: Vec<String>,
    /// Processes and listeners that must run during the check.
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

    /// With the mock as its target, without a fault.
    fn sound(home: Home, running: impl Any) -> SetUp {
        let (mock, url) = mock();
        SetUp::new(home, &["--no-stream", "--target", &url], (mock, running))
    }
}

/// The fault; the setup; the start of the report; and what it says to do.
type Row = (&'static str, fn() -> SetUp, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "the target is down",
        || {
            let closed = format!("http://127.0.0.1:{}", free_port());
            SetUp::new(Home::new(), &["--target", &closed], ())
        },
        "Target http://127.0.0.1:N refuses connections",
        "start it, or give its address with --target or TARGET_LLM_URL",
    ),
    (
        "the port of the target is that of another server",
        || {
            let other = a_server("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
            SetUp::new(Home::new(), &["--target", &other], ())
        },
        "API /v1/models is answered with 404, not with a list of models",
        "is this the LLM proxy's port and path?",
    ),
    (
        "the target refuses the key",
        || {
            let other = a_server("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}");
            let home = Home::new().with("OPENAI_API_KEY", "sk-wrong");
            SetUp::new(home, &["--target", &other], ())
        },
        "API /v1/models is answered with 401: the key in OPENAI_API_KEY was refused",
        "set a valid one",
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
        "clients' base URL is https",
        || {
            let home = Home::new();
            let (shop, port) = (home.path("shop"), free_port());
            let home = home.with_mappings(&[(&shop, port)], 8888);
            let url = format!("https://localhost:{port}/v1");
            SetUp::sound(home.with("OPENAI_BASE_URL", url), ())
        },
        "Variables OPENAI_BASE_URL=https://localhost:N/v1 is https, but ic accepts only plain http",
        "ic env",
    ),
    (
        "clients of Gemini's API have the version in their base URL",
        || {
            let home = Home::new().with("GOOGLE_GEMINI_BASE_URL", "http://localhost:8888/v1beta");
            SetUp::sound(home, ())
        },
        "Variables GOOGLE_GEMINI_BASE_URL=http://localhost:N/v1beta has a /v1beta too much",
        "ic env",
    ),
    (
        "the target has another version in its base path",
        || {
            let target = a_server(
                "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{\"data\":[{\"id\":\"mod\"}]}",
            );
            let target = format!("{target}/paas/v4");
            let home = Home::new().with("OPENAI_BASE_URL", "http://localhost:8888/v1");
            SetUp::new(home, &["--no-stream", "--target", &target], ())
        },
        "Variables OPENAI_BASE_URL=http://localhost:N/v1 has a /v1, but the target's base path /paas/v4 has a version",
        "ic env",
    ),
    (
        "the host in clients' base URL is not in NO_PROXY",
        || {
            let home = Home::new()
                .with("OPENAI_BASE_URL", "http://127.0.0.1:8888/v1")
                .with("HTTP_PROXY", "http://127.0.0.1:1")
                .with("NO_PROXY", "localhost");
            SetUp::sound(home, ())
        },
        "Proxies HTTP_PROXY sends clients to 127.0.0.1:1 (which refuses connections) for 127.0.0.1 as well, since NO_PROXY does not",
        "ic env",
    ),
    (
        "the URL of the target has a /v1 too much as well",
        || {
            let (mock, url) = mock();
            let target = format!("{url}/v1/v1");
            SetUp::new(Home::new(), &["--target", &target], mock)
        },
        "Target http://127.0.0.1:N/v1/v1 has /v1 twice",
        "TARGET_LLM_URL",
    ),
    (
        "nginx with its default configuration is in between",
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
        "a proxy variable of clients names a port without a listener",
        || {
            let nowhere = format!("http://127.0.0.1:{}", free_port());
            SetUp::sound(Home::new().with("HTTP_PROXY", nowhere), ())
        },
        "Proxies HTTP_PROXY sends clients to 127.0.0.1:N (which refuses connections)",
        "NO_PROXY",
    ),
    (
        "a proxy variable of ic names a port without a listener",
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
        "a proxy variable is invalid",
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
fn the_only_fault_of_a_setup_is_reported() {
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

/// Replaces each port by N.
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

/// Requests the models of a server that always sends `answer`; returns the finding of the check `API`.
#[track_caller]
fn api_finding(home: &Home, answer: &'static str) -> String {
    let ran = home.ic(["doctor", "--target", &a_server(answer)]);
    assert_eq!(wrong(&ran), [""; 0]);
    let mut lines = ran.out.lines();
    let line = lines.find(|line| line.contains(" API "));
    line.unwrap_or_else(|| panic!("no check of the API: {ran:?}"))
        .to_owned()
}

#[test]
fn a_target_that_lists_no_models_is_not_wrong() {
    let home = Home::new();
    let said = api_finding(
        &home,
        "HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{\"detail\":\"Not Found\"}",
    );
    assert!(said.starts_with("- API "), "{said}");
    assert!(
        said.contains("lists no models; name one with --model"),
        "{said}"
    );
    let said = api_finding(
        &home,
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert!(
        said.ends_with("it wants a key; set OPENAI_API_KEY to look further"),
        "{said}"
    );
    let home = home.with("OPENAI_API_KEY", "sk-limited");
    let said = api_finding(
        &home,
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert!(
        said.contains("may not list models; name one with --model"),
        "{said}"
    );
}

#[test]
fn requests_to_a_target_with_another_version_have_no_v1() {
    let origin = Origin::agreeing();
    let target = format!("{}/paas/v4", origin.url());
    let home = Home::new().with("OPENAI_BASE_URL", "http://localhost:8888");
    let ran = home.ic(["doctor", "--no-stream", "--target", &target]);
    assert!(!ran.out.contains("⚠ Variables"), "{ran:?}");
    let requests = origin.requests();
    assert!(requests.iter().any(|it| it.target == "/paas/v4/models"));
}

#[test]
fn the_settings_of_claude_code_are_judged_or_not_read() {
    let (_mock, url) = mock();
    let home = Home::new();
    let (shop, port) = (home.path("shop"), free_port());
    let home = home.with_mappings(&[(&shop, port)], 8888);
    let folder = shop.join(".claude");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (local, shared) = (
        folder.join("settings.local.json"),
        folder.join("settings.json"),
    );
    let setting = |url: &str| format!(r#"{{"env":{{"ANTHROPIC_BASE_URL":"{url}"}}}}"#);
    let doctor = || home.ic(["doctor", "--no-stream", "--target", &url]);
    std::fs::write(&shared, setting(&format!("http://localhost:{port}/v1"))).expect("a file");
    let said = wrong(&doctor());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("Claude Code ANTHROPIC_BASE_URL=http://localhost:"),
        "{said:?}"
    );
    assert!(
        said[0].ends_with("`ic snippet claude` prints the right settings"),
        "{said:?}"
    );
    // The local file wins.
    std::fs::write(&local, setting(&format!("http://localhost:{port}"))).expect("a file");
    let ran = doctor();
    assert_eq!(wrong(&ran), [""; 0]);
    assert!(
        ran.out.contains("✓ Claude Code ANTHROPIC_BASE_URL in `"),
        "{ran:?}"
    );
    std::fs::remove_file(&shared).expect("it is there");
    let huge = " ".repeat(2 << 20);
    for (content, why) in [
        ("{", "it is not JSON"),
        (&huge, "it is larger than 1024 KiB"),
    ] {
        std::fs::write(&local, content).expect("a file");
        let ran = doctor();
        assert_eq!(wrong(&ran), [""; 0]);
        let says = format!("settings.local.json`: {why}");
        assert!(
            ran.out.contains("- Claude Code could not read `"),
            "{ran:?}"
        );
        assert!(ran.out.contains(&says), "{ran:?}");
    }
    std::fs::remove_file(&local).expect("it is there");
    std::os::unix::fs::symlink(&local, &local).expect("a link");
    let ran = doctor();
    assert_eq!(wrong(&ran), [""; 0]);
    assert!(
        ran.out.contains("- Claude Code could not read `"),
        "{ran:?}"
    );
}

#[test]
fn a_list_of_models_in_chunks_is_read() {
    let said = api_finding(
        &Home::new(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
         9\r\n{\"data\":[\r\ne\r\n{\"id\":\"a\"}]}  \r\n0\r\n\r\n",
    );
    assert_eq!(said, "✓ API        /v1/models lists 1 model");
}

#[test]
fn the_target_of_a_running_interceptor_is_used_unless_another_is_given() {
    let (_mock, url) = mock();
    let home = Home::new();
    let shop = home.path("shop");
    let ic = Launch::toward(&url).in_folder(shop.clone()).start();
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let requests = || ic.health()["requests"].as_u64().expect("a number");
    assert_eq!(home.ic(["doctor", "--no-stream"]).exit, Some(0));
    let before = requests();
    assert_eq!(before, 1, "the target got a request");
    // The target is on this machine, so proxies are not used.
    let ran = home.ic(["doctor", "--no-stream", "--use-proxy-env"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert_eq!(requests(), before, "only the given target got a request");
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
    fn the_fault_of_a_certificate_is_reported_for_the_options_of_serve() {
        let late = |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 2, 3);
        };
        let known = Authority::known();
        let ca = ca();
        let trusting = ["--ca-file", ca.as_str()];
        let elsewhere = known.issue(&["llm.example.com"], |_| {}).server();
        check(
            "it is for another name",
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
            "its issuer is unknown",
            &https(usual(), &[]),
            "TLS the certificate of https://127.0.0.1:N has an issuer that is not trusted here",
            "--ca-file",
        );
        let asks = || {
            let identity = known.issue(&["127.0.0.1"], |_| {});
            identity.server_of(rustls::DEFAULT_VERSIONS, Some(known))
        };
        check(
            "the target requests a client certificate",
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

/// nginx with its default buffering.
struct Nginx {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// `None` without nginx.
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
            eprintln!("nginx is not installed; a buffering server of the test is used instead");
            return None;
        };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().expect("a child can be waited for");
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
