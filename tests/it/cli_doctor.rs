//! `ic doctor` reports what is wrong, and nothing else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::cli_home::{Home, Ran, free_port, held_port, unprivileged};
use crate::support::{DEADLINE, Interceptor, Launch, Origin};

/// An interceptor with the embedded mock as its target.
pub fn mock() -> (Interceptor, String) {
    let mock = Launch::bare().args(["--mock"]).start();
    let url = format!("http://127.0.0.1:{}", mock.port);
    (mock, url)
}

/// The problems that `ic doctor` reports, each line without its mark.
#[track_caller]
pub fn wrong(ran: &Ran) -> Vec<String> {
    assert_eq!(ran.err, "", "{ran:?}");
    let wrong: Vec<String> = ran
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("⚠ "))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(ran.exit, Some(i32::from(!wrong.is_empty())), "{ran:?}");
    wrong
}

/// Checks that `ic doctor` reports exactly this problem.
#[track_caller]
fn check(home: &Home, arguments: &[&str], start: &str, way_out: &str) {
    let mut words = vec!["doctor"];
    words.extend(arguments);
    let ran = home.ic(&words);
    let wrong = wrong(&ran);
    assert_eq!(wrong.len(), 1, "{ran:?}");
    assert!(wrong[0].starts_with(start), "{start}: {ran:?}");
    assert!(wrong[0].contains(way_out), "{way_out}: {ran:?}");
}

#[test]
fn a_working_setup_has_no_problems() {
    let (_mock, url) = mock();
    let home = Home::new();
    let shop = home.path("shop");
    let ic = Launch::toward(&url).in_folder(shop.clone()).start();
    let port = ic.port;
    let home = home
        .with_mappings(&[(&shop, port)], 8888)
        .with("OPENAI_BASE_URL", format!("http://localhost:{port}/v1"))
        .with("ANTHROPIC_BASE_URL", format!("http://localhost:{port}"))
        .with("HTTP_PROXY", "http://proxy.invalid:1")
        .with("NO_PROXY", "localhost");
    let before = home.content();
    let ran = home.ic(["doctor"]);
    assert_eq!(wrong(&ran), [""; 0]);
    let good: Vec<&str> = ran
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("✓ ")?.split_whitespace().next())
        .collect();
    let all = [
        "Registry",
        "Port",
        "Variables",
        "Variables",
        "Proxies",
        "Target",
        "API",
        "Streaming",
    ];
    assert_eq!(good, all, "{ran:?}");
    let document: Value = home.ic(["doctor", "--no-stream", "--json"]).json(0);
    assert_eq!(document["healthy"], true);
    assert_eq!(document["findings"][1]["check"], "Port");
    assert_eq!(document["findings"][1]["verdict"], "good");
    assert_eq!(home.content(), before, "nothing is written");
}

#[test]
fn a_project_without_an_interceptor_has_no_problems() {
    let (_mock, url) = mock();
    let home = Home::new();
    let ran = home.ic(["doctor", "--target", &url]);
    assert_eq!(wrong(&ran), [""; 0]);
    assert!(
        ran.out.contains("\n- Port       none is assigned to "),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("\n✓ Streaming  "),
        "an interceptor was started for it: {ran:?}"
    );
    assert!(!home.registry().exists());
}

#[test]
fn a_value_that_serve_refuses_is_refused() {
    let home = Home::new();
    let refused = |home: &Home, arguments: &[&str]| home.ic(arguments).complaint(2);
    let said = refused(&home, &["doctor", "--target", "abc"]);
    assert!(said.starts_with("`--target abc` has no scheme"), "{said}");
    let said = refused(&Home::new().with("TARGET_LLM_URL", "abc"), &["doctor"]);
    assert!(
        said.starts_with("`TARGET_LLM_URL=abc` has no sch"),
        "{said}"
    );
    let said = refused(&home.with("SUPERMEMORY_USERNAME", "a\nb"), &["doctor"]);
    assert!(said.starts_with("`SUPERMEMORY_USERNAME="), "{said}");
}

#[test]
fn a_temporary_interceptor_sends_what_ic_set_keeps() {
    let origin = Origin::agreeing();
    let home = Home::new();
    let shop = home.path("shop");
    let port = free_port();
    let home = home.with_mappings(&[(&shop, port)], port);
    let set = [
        "set",
        "--target",
        &origin.url(),
        "--instance-id",
        "kept-{project}-{port}",
        "--header",
        "authorization: Bearer {env:SHOP_KEY}",
    ];
    home.ic(set).result(0);
    let sent = |home: &Home, arguments: &[&str]| {
        origin.forget();
        let ran = home.ic([&["doctor", "--no-stream"], arguments].concat());
        let requests = origin.requests();
        let models = requests.iter().find(|it| it.target == "/v1/models");
        let fields = &models.expect("a request for the models").fields;
        let text = |name| fields.one(name).map(str::to_owned);
        (text("x-memory-user-id"), text("authorization"), ran.out)
    };
    let some = |text: &str| Some(text.to_owned());
    let (id, key, out) = sent(&home, &[]);
    assert_eq!((id, key), (some("ic-doctor"), None));
    let wrong =
        "⚠ Identity   the field `authorization` needs the variable SHOP_KEY, which is not set; ";
    assert!(out.contains(wrong), "{out}");
    let home = home.with("SHOP_KEY", "sk-1");
    let (id, key, out) = sent(&home, &[]);
    let kept = some(&format!("kept-shop-{port}"));
    assert_eq!((id, &key), (kept.clone(), &some("Bearer sk-1")));
    assert!(!out.contains("Identity"), "{out}");
    // From another folder, under another name.
    let link = home.path("link");
    std::os::unix::fs::symlink(&shop, &link).expect("a link");
    let home = home.inside("/");
    let (id, _, _) = sent(&home, &[link.to_str().expect("UTF-8")]);
    assert_eq!(id, kept);
    // Here `ic serve` does not use what is kept.
    let home = home
        .inside(shop)
        .with("INTERCEPTOR_PORT", free_port().to_string());
    let (id, key, _) = sent(&home, &["--target", &origin.url()]);
    assert_eq!((id, key), (some("pycharm-shop"), None));
    let home = home.with("SUPERMEMORY_USERNAME", "variable");
    let (id, _, _) = sent(&home, &["--target", &origin.url()]);
    assert_eq!(id, some("variable"));
}

#[test]
fn the_hint_for_a_port_in_use_depends_on_the_source_of_the_port() {
    let (_listener, held) = held_port();
    let home = Home::new().with("INTERCEPTOR_PORT", held.to_string());
    let ran = home.ic(["doctor", "--no-stream"]);
    let said = wrong(&ran).join("\n");
    assert!(
        said.contains("or give another port with INTERCEPTOR_PORT"),
        "{said}"
    );
    assert!(!said.contains("ic remove"), "{said}");
}

#[test]
fn a_target_that_is_down_or_not_an_llm_server_is_reported() {
    let home = Home::new();
    let closed = format!("http://127.0.0.1:{}", free_port());
    check(
        &home,
        &["--target", &closed],
        &format!("Target {closed} refuses connections"),
        "start it",
    );
    check(
        &home,
        &["--target", "http://no-such-host.invalid"],
        "Target http://no-such-host.invalid has no address",
        "TARGET_LLM_URL",
    );
    let (_mock, url) = mock();
    check(
        &home,
        &["--target", &format!("{url}/v1/v1")],
        "Target http://",
        "TARGET_LLM_URL",
    );
    let other =
        a_server("HTTP/1.1 404 Not Found\r\nServer: nginx/1.0\r\nContent-Length: 2\r\n\r\nno");
    check(
        &home,
        &["--target", &other],
        "API /v1/models is answered with 404 by `nginx/1.0`",
        "is this the LLM proxy's port",
    );
}

#[test]
fn wrong_environment_variables_are_reported() {
    let (_mock, url) = mock();
    let quick = ["--target", &url, "--no-stream"];
    let home = || {
        let home = Home::new();
        let (shop, blog) = (home.path("shop"), home.path("blog"));
        home.with_mappings(&[(&shop, free_port()), (&blog, 8889)], 8890)
    };
    let doubled = home().with("OPENAI_BASE_URL", "http://localhost:8888/v1/v1");
    check(
        &doubled,
        &quick,
        "Variables OPENAI_BASE_URL=http://localhost:8888/v1/v1 has a /v1 too much",
        "ic env",
    );
    let doubled = home().with("ANTHROPIC_BASE_URL", "http://localhost:8888/v1");
    check(
        &doubled,
        &quick,
        "Variables ANTHROPIC_BASE_URL=http://localhost:8888/v1 has a /v1 too much",
        "ic env",
    );
    let astray = home().with("OPENAI_API_BASE", "http://localhost:8889/v1");
    check(
        &astray,
        &quick,
        "Variables OPENAI_API_BASE=http://localhost:8889/v1 leads to port 8889, that of `blog`",
        "ic env",
    );
    let nowhere = format!("http://me:secret@127.0.0.1:{}", free_port());
    let proxy = home().with("http_proxy", &nowhere);
    check(
        &proxy,
        &quick,
        "Proxies http_proxy sends clients to 127.0.0.1:",
        "(which refuses connections)",
    );
    assert!(!proxy.ic(["doctor", "--no-stream"]).out.contains("secret"));
}

#[test]
fn another_holder_of_the_port_is_reported() {
    let (mock, url) = mock();
    let quick = ["--target", &url, "--no-stream"];
    let (_listener, held) = held_port();
    let home = Home::new();
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, held)], 8888);
    check(
        &home,
        &quick,
        &format!("Port {held} is held by "),
        "`ic remove`",
    );
    let home = home.with_mappings(&[(&shop, mock.port)], 8888);
    let pid = mock.pid();
    check(
        &home,
        &quick,
        &format!(
            "Port {} is held by the interceptor of another project, `",
            mock.port
        ),
        &format!("(pid {pid})"),
    );
}

#[test]
fn a_registry_that_cannot_be_written_is_reported() {
    let (_mock, url) = mock();
    let home = Home::new();
    for content in [Some(r#"{"version":"1.0","mappings":{}}"#), None] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("registry.json");
        if let Some(content) = content {
            std::fs::write(&file, content).expect("a file");
        }
        let file = file.to_str().expect("UTF-8");
        let allow = |mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(folder.path(), permissions).expect("this user owns it");
        };
        // The folder is not writable, not even for its owner.
        allow(0o555);
        let asked = [
            "--registry",
            file,
            "doctor",
            "--no-stream",
            "--target",
            &url,
            "/",
        ];
        let ran = unprivileged(&home, &asked);
        allow(0o755);
        let Some(ran) = ran else { return };
        let wrong = wrong(&ran);
        assert_eq!(wrong.len(), 1, "{ran:?}");
        // Without a file, the folder has to be writable.
        let named = content.map_or(folder.path().display().to_string(), |_| file.to_owned());
        let start = format!(
            "Registry `{named}` cannot be written (permission denied): this project can get no port"
        );
        assert!(wrong[0].starts_with(&start), "{content:?}: {ran:?}");
    }
}

#[test]
fn a_damaged_registry_is_reported() {
    let (_mock, url) = mock();
    let home = Home::new().with_registry(r#"{"version":"1.0","mappings":{"/a": "#);
    let ran = home.ic(["doctor", "--no-stream", "--target", &url]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.out.starts_with("⚠ Registry   "), "{ran:?}");
}

#[test]
fn a_server_that_buffers_a_stream_is_reported() {
    let (mock, _url) = mock();
    let hop = a_buffering_hop(mock.port);
    let home = Home::new();
    check(
        &home,
        &["--target", &hop],
        &format!("Streaming `nginx/1.0` at {hop}, or a server behind it, buffers the stream: "),
        "set `proxy_buffering off` there",
    );
}

/// A server that always sends this response.
pub fn a_server(answer: &'static str) -> String {
    serve(move |mut client, _| {
        let _ = client.write_all(answer.as_bytes());
    })
}

/// A hop that forwards a response only when it is complete.
pub fn a_buffering_hop(port: u16) -> String {
    serve(move |mut client, request| {
        let mut origin = TcpStream::connect(("127.0.0.1", port)).expect("the mock listens");
        origin
            .write_all(request)
            .expect("a connection accepts bytes");
        let mut answer = Vec::new();
        origin.read_to_end(&mut answer).expect("the mock responds");
        let end = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("a head");
        answer.splice(end..end, b"\r\nServer: nginx/1.0".iter().copied());
        let _ = client.write_all(&answer);
    })
}

/// Responds to one request of each connection until the process exits.
pub fn serve(answer: impl Fn(TcpStream, &[u8]) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            // The requests are short, so a body arrives together with its head.
            while !is_whole(&request) {
                match client.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&piece[..read]),
                }
            }
            // A client that only tests the port sends no request.
            if is_whole(&request) {
                answer(client, &close(&request));
            }
        }
    });
    format!("http://{address}")
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

/// The request with `Connection: close`.
fn close(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    text.replacen("\r\n", "\r\nConnection: close\r\n", 1)
        .into_bytes()
}

#[test]
fn a_proxy_that_is_down_is_reported() {
    let home = Home::new();
    let shop = home.path("shop");
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = proxy.local_addr().expect("bound");
    let ic = Launch::toward("http://llm.example.com")
        .args(["--use-proxy-env"])
        .env("HTTP_PROXY", &format!("http://{address}"))
        .in_folder(shop.clone())
        .start();
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let ready = home.ic(["health", "--ready"]);
    assert_eq!(ready.exit, Some(0), "it connects to the proxy: {ready:?}");
    drop(proxy);
    // A child process of another test may keep the socket open for a moment.
    let deadline = std::time::Instant::now() + DEADLINE;
    while TcpStream::connect(address).is_ok() {
        assert!(
            std::time::Instant::now() < deadline,
            "the socket is still open"
        );
    }
    let expected = format!(
        "Target http://llm.example.com is reached through the proxy http://{address}, which refuses connections"
    );
    check(&home, &[], &expected, "--use-proxy-env");
    let ready = home.ic(["health", "--ready"]);
    assert_eq!(ready.exit, Some(1), "{ready:?}");
    let says = format!("its proxy http://{address} refuses connections");
    assert!(ready.err.contains(&says), "{ready:?}");
}
