//! `ic ui`: who may send requests, and what they change. The page itself is tested in `tests/browser`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cli_home::{Home, Serving, free_port, held_port};
use crate::support::{is_ignored, wait_until};

/// `ic ui`, killed when it is dropped.
struct Page {
    child: Child,
    address: SocketAddr,
    token: String,
}

impl Page {
    #[track_caller]
    fn start(home: &Home) -> Page {
        Page::with(home, &["--port", "0"])
    }

    #[track_caller]
    fn with(home: &Home, arguments: &[&str]) -> Page {
        Page::of(home.command(["ui", "--no-open"].iter().chain(arguments)))
    }

    /// Starts it as if there were a display, with a browser that only notes its command line.
    #[track_caller]
    fn in_browser(home: &Home) -> Page {
        let browser = home.folder("bin").join("xdg-open");
        let (note, noted) = (home.path("opened.new"), home.path("opened"));
        let script = format!(
            "#!/bin/sh\necho \"$@\" >{} && mv {} {}\n",
            note.display(),
            note.display(),
            noted.display()
        );
        fs::write(&browser, script).expect("a file");
        fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let path = format!("{}:/usr/bin:/bin", home.path("bin").display());
        let mut command = home.command(["ui", "--port", "0"]);
        command.env("DISPLAY", ":9").env("PATH", path);
        Page::of(command)
    }

    #[track_caller]
    fn of(mut command: Command) -> Page {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut url = String::new();
        out.read_line(&mut url).expect("text");
        let (address, token) = url
            .trim()
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once("/#token="))
            .unwrap_or_else(|| panic!("no address of a page: {url:?}"));
        Page {
            address: address.parse().expect("an address"),
            token: token.to_owned(),
            child,
        }
    }

    /// The response to `text`: its status, head and body.
    #[track_caller]
    fn exchange(&self, text: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a limit");
        stream.write_all(text.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("the server responds");
        // The files of the page are compressed.
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head[9..12].parse().expect("a status");
        (status, head.to_owned(), body.to_owned())
    }

    fn fields(&self, more: &str) -> String {
        format!("Host: {}\r\nConnection: close\r\n{more}", self.address)
    }

    #[track_caller]
    fn get(&self, path: &str) -> (u16, String, String) {
        let fields = self.fields(&format!("X-Ic-Token: {}\r\n", self.token));
        self.exchange(&format!("GET {path} HTTP/1.1\r\n{fields}\r\n"))
    }

    #[track_caller]
    fn post(&self, name: &str, question: &Value) -> (u16, Value) {
        let body = question.to_string();
        let length = body.len();
        let fields = self.fields(&format!(
            "X-Ic-Token: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n",
            self.token
        ));
        let text = format!("POST /api/{name} HTTP/1.1\r\n{fields}\r\n{body}");
        let (status, _, body) = self.exchange(&text);
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// A change that must succeed.
    #[track_caller]
    fn change(&self, name: &str, question: Value) -> Value {
        let (status, answer) = self.post(name, &question);
        assert_eq!(status, 200, "{name} {question}: {answer}");
        answer
    }

    /// The event stream of a page; HTTP/1.0, so that it is not chunked.
    fn live(&self) -> impl Iterator<Item = Value> {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a limit");
        let fields = self.fields(&format!("X-Ic-Token: {}\r\n", self.token));
        let text = format!("GET /api/live HTTP/1.0\r\n{fields}\r\n");
        stream.write_all(text.as_bytes()).expect("it reads");
        let lines = BufReader::new(stream).lines();
        let mut lines = lines.map(|line| line.expect("text"));
        assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
        lines
            .skip_while(|line| !line.is_empty())
            .skip(1)
            .map(|line| serde_json::from_str(&line).expect("JSON"))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home with its own range, and its first port.
fn home() -> (Home, u16) {
    let port = free_port();
    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string());
    (home, port)
}

#[test]
fn it_listens_on_both_loopback_addresses_until_a_signal() {
    let (home, _) = home();
    let before = home.content();
    let mut page = Page::start(&home);
    assert_eq!(page.address.ip(), Ipv4Addr::LOCALHOST);
    let (status, head, body) = page.exchange(&format!("GET / HTTP/1.1\r\n{}\r\n", page.fields("")));
    assert_eq!(status, 200);
    assert!(!body.is_empty());
    for field in [
        "Content-Security-Policy: default-src 'none'; script-src 'self'",
        "frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cache-Control: no-store",
        "Content-Encoding: gzip",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    if let Err(error) = TcpStream::connect((Ipv6Addr::LOCALHOST, page.address.port())) {
        assert!(
            TcpStream::connect((Ipv6Addr::LOCALHOST, 1))
                .is_err_and(|none| none.kind() != error.kind()),
            "{error}"
        );
    }
    assert_eq!(home.content(), before, "reading changes nothing");
    let signal = match is_ignored(Signal::HUP) {
        true => Signal::INT,
        false => Signal::HUP,
    };
    kill_process(Pid::from_child(&page.child), signal).expect("it runs");
    let status = page.child.wait().expect("a child can be waited for");
    assert_eq!(status.code(), Some(0));
}

/// The file that the browser of [`Page::in_browser`] was started with, and the code in it.
#[track_caller]
fn opened(home: &Home) -> (PathBuf, String) {
    wait_until("the browser is started", true, || {
        home.path("opened").exists()
    });
    let line = fs::read_to_string(home.path("opened")).expect("text");
    let file = PathBuf::from(line.trim_end());
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{line}: {error}"));
    let (_, code) = text.split_once("/#code=").expect("a code");
    let code = code.chars().take_while(char::is_ascii_hexdigit).collect();
    (file, code)
}

#[test]
fn the_command_line_of_the_browser_holds_no_secret() {
    let (home, _) = home();
    let page = Page::in_browser(&home);
    let (file, code) = opened(&home);
    let line = fs::read_to_string(home.path("opened")).expect("text");
    assert!(
        !line.contains(&code) && !line.contains(&page.token),
        "{line}"
    );
    assert_eq!(file.parent(), Some(&*home.path(".cache/ic/run")));
    for (path, expected) in [(&*file, 0o600), (&*home.path(".cache/ic/run"), 0o700)] {
        let mode = fs::metadata(path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, expected, "{}", path.display());
    }
    let text = fs::read_to_string(&file).expect("text");
    let refresh = format!("content=\"0; url=http://{}/#code={code}\"", page.address);
    assert!(text.contains(&refresh), "{text}");
    assert!(!text.contains(&page.token), "it is not valid once only");

    // A browser that follows it sends the navigation and then the code.
    let navigation = page.fields("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n");
    let (status, ..) = page.exchange(&format!("GET / HTTP/1.1\r\n{navigation}\r\n"));
    assert_eq!(status, 200);
    let (status, _) = page.post("session", &json!({ "code": "0".repeat(32) }));
    assert_eq!(
        (status, file.exists()),
        (401, true),
        "a guess changes nothing"
    );
    let (status, answer) = page.post("session", &json!({ "code": code }));
    assert_eq!((status, &answer["token"]), (200, &json!(page.token)));
    assert!(!file.exists(), "it is removed when it was used");
    let (status, _) = page.post("session", &json!({ "code": code }));
    assert_eq!(status, 401, "once");
}

#[test]
fn a_code_that_was_not_used_is_removed_at_the_end() {
    let (home, _) = home();
    let mut page = Page::in_browser(&home);
    let (file, _) = opened(&home);
    kill_process(Pid::from_child(&page.child), Signal::TERM).expect("it runs");
    let status = page.child.wait().expect("a child can be waited for");
    assert_eq!((status.code(), file.exists()), (Some(0), false));
}

#[test]
fn without_a_private_folder_no_browser_is_started() {
    let (home, _) = home();
    let folder = home.folder(".cache/ic/run");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut page = Page::in_browser(&home);
    let mut line = String::new();
    let errors = page.child.stderr.take().expect("a pipe");
    BufReader::new(errors).read_line(&mut line).expect("text");
    assert_eq!(
        line,
        "ic: cannot write the file that opens the page (other users can enter its folder); open the address yourself\n"
    );
    assert!(!home.path("opened").exists());
    let (status, ..) = page.get("/api/export?format=json");
    assert_eq!(status, 200, "the printed address works");
}

#[test]
fn a_given_port_is_used_or_an_error() {
    let (home, port) = home();
    let page = Page::with(&home, &["--port", &port.to_string()]);
    assert_eq!(page.address.port(), port);
    let again = home.ic(["ui", "--no-open", "--port", &port.to_string()]);
    let line = again.complaint(3);
    assert!(
        line.starts_with(&format!("cannot listen on port {port}: ")),
        "{line}"
    );
    let (_listener, held) = held_port();
    let line = home.ic(["ui", "--port", &held.to_string()]).complaint(3);
    assert!(line.ends_with("give another with --port"), "{line}");
    assert!(
        home.ic(["ui", "--port", "no"])
            .complaint(2)
            .contains("`--port no`")
    );
}

#[test]
fn only_requests_of_the_page_are_accepted() {
    let (home, _) = home();
    home.ic(["allocate"]).result(0);
    let page = Page::start(&home);
    let own = format!("Host: {}\r\n", page.address);
    let token = format!("X-Ic-Token: {}\r\n", page.token);
    let json = "Content-Type: application/json\r\n";
    let wrong = format!("X-Ic-Token: {}\r\n", "0".repeat(32));
    let origin = format!("Origin: http://{}\r\n", page.address);
    let shop = json!({ "path": home.path("shop") }).to_string();
    let rows: [(&str, &str, &[&str], u16); 23] = [
        ("GET /api/export", "no token", &[&own], 401),
        ("GET /api/export", "a wrong token", &[&own, &wrong], 401),
        (
            "GET /api/export",
            "an empty token",
            &[&own, "X-Ic-Token:\r\n"],
            401,
        ),
        ("GET /api/live", "no token", &[&own], 401),
        ("GET /api/export", "the page", &[&own, &token, &origin], 200),
        (
            "GET /api/export",
            "another host",
            &["Host: evil.example\r\n", &token],
            421,
        ),
        (
            "GET /",
            "the page through another host",
            &["Host: evil.example\r\n"],
            421,
        ),
        (
            "GET /api/export",
            "another page",
            &[&own, &token, "Origin: https://evil.example\r\n"],
            403,
        ),
        (
            "GET /api/export",
            "another server on this machine",
            &[&own, &token, "Origin: http://localhost:1\r\n"],
            403,
        ),
        (
            "GET /api/export",
            "a sandboxed frame",
            &[&own, &token, "Origin: null\r\n"],
            403,
        ),
        (
            "GET /api/export",
            "another site",
            &[&own, &token, "Sec-Fetch-Site: cross-site\r\n"],
            403,
        ),
        (
            "GET /api/remove",
            "a change by GET",
            &[&own, &token, json],
            404,
        ),
        (
            "PUT /api/remove",
            "a change by PUT",
            &[&own, &token, json],
            405,
        ),
        ("POST /", "a change of the page", &[&own, &token, json], 405),
        (
            "POST /api/remove",
            "a form",
            &[&own, &token, "Content-Type: text/plain\r\n"],
            415,
        ),
        ("POST /api/remove", "no kind", &[&own, &token], 415),
        ("POST /api/remove", "no token", &[&own, json], 401),
        ("POST /api/start", "no token", &[&own, json], 401),
        ("POST /api/snippets", "no token", &[&own, json], 401),
        ("POST /api/start", "a form", &[&own, &token], 415),
        (
            "POST /api/start",
            "another page",
            &[&own, &token, json, "Origin: https://evil.example\r\n"],
            403,
        ),
        ("POST /api/session", "a guessed code", &[&own, json], 400),
        (
            "POST /api/nothing",
            "an unknown change",
            &[&own, &token, json],
            404,
        ),
    ];
    for (line, why, fields, expected) in rows {
        let mut text = format!(
            "{line} HTTP/1.1\r\nConnection: close\r\n{}",
            fields.concat()
        );
        if line.starts_with('P') {
            write!(text, "Content-Length: {}\r\n\r\n{shop}", shop.len()).expect("a string");
        } else {
            text += "\r\n";
        }
        let (status, head, _) = page.exchange(&text);
        assert_eq!(status, expected, "{why}: {line}");
        assert!(
            !head.to_ascii_lowercase().contains("access-control"),
            "{why}"
        );
    }
    assert_eq!(
        home.ic(["list", "--json"]).json(0)["mappings"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn the_head_of_a_request_is_checked_before_its_body_arrives() {
    let (home, _) = home();
    let page = Page::start(&home);
    let own = format!("Host: {}\r\n", page.address);
    let token = format!("X-Ic-Token: {}\r\n", page.token);
    let json = "Content-Type: application/json\r\n";
    let foreign = "Origin: https://evil.example\r\n";
    let rows: [(&str, &[&str], &str, u16); 11] = [
        ("POST /api/import", &[&own, json], "47000000", 401),
        ("POST /api/import", &[&own, &token], "47000000", 415),
        (
            "POST /api/import",
            &[&own, &token, json, foreign],
            "47000000",
            403,
        ),
        ("POST /api/import", &[&own, &token, json], "60000000", 413),
        ("POST /api/session", &[&own, json], "1025", 413),
        ("POST /api/allocate", &[&own, &token, json], "70000", 413),
        ("POST /api/allocate", &[&own, json], "70000", 401),
        ("POST /page.js", &[&own], "47000000", 405),
        ("GET /page.js", &[&own], "47000000", 413),
        ("POST /x", &[&own], "47000000", 404),
        (
            "POST /api/import",
            &["Host: evil.example\r\n", &token, json],
            "47000000",
            421,
        ),
    ];
    for (line, fields, length, expected) in rows {
        for body in [
            format!("Content-Length: {length}\r\n"),
            "Transfer-Encoding: chunked\r\n".to_owned(),
        ] {
            let text = format!("{line} HTTP/1.1\r\n{}{body}\r\nxxx", fields.concat());
            let (status, head, body) = page.exchange(&text);
            assert_eq!(status, expected, "{text}: {body}");
            assert!(head.contains("\r\nConnection: close"), "{text}: {head}");
            // Refusals have the same security headers, and do not name options of other commands.
            assert!(
                head.contains("\r\nX-Content-Type-Options: nosniff\r\n"),
                "{text}: {head}"
            );
            assert!(
                head.contains("\r\nContent-Security-Policy: default-src 'none'"),
                "{text}: {head}"
            );
            assert!(!body.contains("--allow"), "{text}: {body}");
        }
    }
}

#[test]
fn clients_that_send_no_complete_request_do_not_block_others() {
    let (home, _) = home();
    let page = Page::start(&home);
    let mut live = page.live();
    live.next().expect("an event arrives");
    let idle: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(page.address).expect("it listens"))
        .collect();
    for mut stream in &idle {
        // The oldest of them are closed to admit others.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost:");
    }
    for _ in 0..3 {
        assert_eq!(page.get("/api/export").0, 200);
    }
    page.change("allocate", json!({ "path": home.path("shop") }));
    let told = live.take(200).any(|line| !line["projects"][0].is_null());
    assert!(told, "an open page stays connected");
}

#[test]
fn every_change_is_applied() {
    let (home, port) = home();
    let page = Page::start(&home);
    let path = |name| home.path(name).to_str().expect("UTF-8").to_owned();
    let (shop, gone) = (path("shop"), path("gone"));
    let list = || {
        let export = page.get("/api/export");
        let registry: Value = serde_json::from_str(&export.2).expect("JSON");
        (
            registry["mappings"].clone(),
            registry["ic"]["projects"].clone(),
        )
    };
    let allocated = page.change("allocate", json!({ "path": shop, "pinned": true }));
    assert_eq!(
        (
            &allocated["port"],
            &allocated["created"],
            &allocated["project"]
        ),
        (&json!(port), &json!(true), &json!("shop"))
    );
    let again = page.change("allocate", json!({ "path": "~/shop/../shop/" }));
    assert_eq!(
        (&again["port"], &again["created"]),
        (&json!(port), &json!(false))
    );
    let with_shop = list();
    assert_eq!(
        with_shop,
        (json!({ &shop: port }), json!({ &shop: { "pinned": true } }))
    );

    page.change("pin", json!({ "path": shop, "pinned": false }));
    assert_eq!(list().1, json!({}));
    page.change("pin", json!({ "path": shop, "pinned": true }));
    assert_eq!(list(), with_shop);

    let removed = page.change("remove", json!({ "path": shop }));
    assert_eq!(removed["port"], port);
    assert_eq!(page.post("remove", &json!({ "path": shop })).0, 404);
    let kept = json!({ "mappings": with_shop.0, "ic": { "projects": with_shop.1 } }).to_string();
    let question = json!({ "name": "kept", "bytes": kept, "replace": false, "dry_run": false });
    page.change("import", question);
    assert_eq!(list(), with_shop, "an import puts back port and pin");

    page.change("allocate", json!({ "path": gone }));
    let before = list();
    let question = |dry_run| json!({ "unused_for_days": 30, "dry_run": dry_run });
    let shown = page.change("prune", question(true));
    assert_eq!(list(), before, "a look");
    let pruned = page.change("prune", question(false));
    assert_eq!(pruned["removed"], shown["removed"]);
    assert_eq!(pruned["removed"][0]["reason"], "deleted");
    page.change("allocate", json!({ "path": gone }));
    assert_eq!(list(), before, "the project gets its previous port");

    let file = json!({ "mappings": { &gone: port + 7, "/else/where": port } }).to_string();
    let question = |replace, dry_run| json!({ "name": "a.json", "bytes": file, "replace": replace, "dry_run": dry_run });
    let refused = page.change("import", question(false, false));
    assert_eq!(refused["conflicts"].as_array().map(Vec::len), Some(2));
    assert_eq!(list(), before);
    let shown = page.change("import", question(true, true));
    assert_eq!(shown["warning"], Value::Null);
    assert_eq!(list(), before, "a look");
    let serving = Serving::start(&home, &[]);
    let warning = format!(
        "interceptors that keep running on their former ports until they are stopped: `{shop}` (port {port})"
    );
    let shown = page.change("import", question(true, true));
    assert_eq!(shown["warning"], warning);
    assert_eq!(
        page.change("import", question(false, true))["warning"],
        Value::Null
    );
    serving.stop();
    page.change("import", question(true, false));
    assert_eq!(list().0, json!({ &gone: port + 7, "/else/where": port }));
    let (status, answer) = page.post(
        "import",
        &json!({ "name": "x", "bytes": "{}", "replace": false, "dry_run": true }),
    );
    assert_eq!(status, 500);
    assert!(
        answer["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("`x` holds no mappings"))
    );
}

#[test]
fn the_texts_for_clients_are_those_of_ic_snippet_and_ic_env() {
    let (home, port) = home();
    let path = home.folder("it's");
    home.ic(["allocate".as_ref(), path.as_os_str()]).result(0);
    let page = Page::start(&home);
    let question = json!({ "path": path, "port": port });
    let answer = page.change("snippets", question);
    assert_eq!(answer["port"], port);
    assert_eq!(answer["warning"], Value::Null);
    assert_eq!(answer["openai_url"], format!("http://localhost:{port}/v1"));
    assert_eq!(answer["anthropic_url"], format!("http://localhost:{port}"));
    let serve = format!(r"ic serve --project '{}/it'\''s'", home.path("").display());
    assert_eq!(answer["serve"], serve.replace("//", "/"));
    let texts = answer["texts"].as_array().expect("texts");
    let of = |text: &Value, name: &str| text[name].as_str().expect("a text").to_owned();
    let path = path.to_str().expect("UTF-8");
    for text in texts {
        let kind = of(text, "kind");
        let ran = match kind.strip_prefix("env") {
            None => home.ic(["snippet", &kind, path]),
            Some("") => home.ic(["env", path]),
            Some(shell) => home.ic(["env", path, "--shell", shell.trim_start_matches('-')]),
        };
        assert_eq!(of(text, "text"), ran.out, "{kind}");
        assert!(!of(text, "title").is_empty(), "{kind}");
        if !kind.starts_with("env") {
            assert_eq!(format!("ic: {}\n", of(text, "hint")), ran.err, "{kind}");
        }
    }
    let help = home.ic(["snippet", "--help"]).result(0);
    let (_, clients) = help.split_once("KIND is a client: ").expect("the clients");
    let (clients, _) = clients.split_once(';').expect("their end");
    for client in clients.split(',').map(str::trim) {
        assert!(texts.iter().any(|text| text["kind"] == client), "{client}");
    }
}

#[test]
fn the_texts_are_those_of_a_port_that_clients_can_use() {
    let (home, _) = home();
    let page = Page::start(&home);
    let ask = |path: &str, port: u32| page.post("snippets", &json!({ "path": path, "port": port }));
    let (status, answer) = ask("/p/a", 10080);
    assert_eq!(status, 200);
    let warning = answer["warning"].as_str().expect("a warning");
    assert!(
        warning.contains("refuse to connect to port 10080"),
        "{warning}"
    );
    let pasted = ask("/p/a\u{1b}[201~\nid", 9000).1;
    assert_eq!(pasted["serve"], Value::Null, "a terminal would act on it");
    for (path, port) in [("shop", 9000), ("", 9000), ("/p/a", 0), ("/p/a", 70_000)] {
        let (status, answer) = ask(path, port);
        assert_eq!(status, 400, "{path} {port}: {answer}");
    }
}

/// The service is one of systemd here.
#[cfg(all(target_os = "linux", not(ic_portable)))]
#[test]
fn an_installed_service_is_started_from_the_page() {
    let port = free_port();
    let home = crate::cli_service::home()
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string());
    home.ic(["allocate"]).result(0);
    let shop = home.path("shop");
    let page = Page::start(&home);
    let can_start =
        || page.change("snippets", json!({ "path": shop, "port": port }))["can_start"].clone();
    assert_eq!(can_start(), false, "it is not installed");
    assert_eq!(home.ic(["service", "install"]).exit, Some(0));
    assert_eq!(can_start(), false, "it runs");
    fs::remove_file(home.path("running")).expect("it ran");
    assert_eq!(can_start(), true);
    let elsewhere = Page::with(&home, &["--port", "0", "--registry", "other.json"]);
    let answer = elsewhere.change("snippets", json!({ "path": shop, "port": port }));
    assert_eq!(answer["can_start"], false, "it serves another registry");
    let (status, answer) = elsewhere.post("start", &json!({ "path": shop }));
    assert_eq!(status, 404, "{answer}");
    assert!(!home.path("running").exists());

    let start = || page.post("start", &json!({ "path": shop }));
    fs::write(home.path("fails"), "").expect("a file");
    let (status, answer) = start();
    assert_eq!(status, 500);
    let error = answer["error"].as_str().expect("a line");
    assert!(error.starts_with("the service does not start: "), "{error}");
    fs::remove_file(home.path("fails")).expect("it is there");

    std::thread::scope(|scope| {
        let started = scope.spawn(start);
        wait_until("systemd is asked", true, || home.path("running").exists());
        // What systemd would start.
        let _all = crate::cli_all::process::All::start(&home, &["--mock"]);
        let (status, answer) = started.join().expect("an answer");
        assert_eq!((status, &answer["port"]), (200, &json!(port)), "{answer}");
        fs::remove_file(home.path("running")).expect("it runs");
        assert_eq!(can_start(), false, "another `ic serve --all` runs");
    });
    let (status, answer) = page.post("start", &json!({ "path": home.path("other") }));
    assert_eq!(status, 404, "{answer}");
}

#[test]
fn a_typed_path_is_used_unchanged_if_it_exists() {
    let (home, _) = home();
    let page = Page::start(&home);
    let spaced = home.folder("shop ");
    let file = home.path("file");
    fs::write(&file, "").expect("a file");
    let typed = |text: String| page.post("allocate", &json!({ "path": text }));
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    for (given, expected, missing) in [
        (text(&spaced), &spaced, false),
        ("~/shop ".to_owned(), &spaced, false),
        (" ~/shop\n".to_owned(), &home.path("shop"), false),
        (text(&home.path("new ")), &home.path("new"), true),
    ] {
        let (status, answer) = typed(given.clone());
        assert_eq!(
            (status, &answer["path"]),
            (200, &json!(expected)),
            "{given:?}: {answer}"
        );
        assert_eq!(answer["missing"], missing, "{given:?}");
    }
    let (status, answer) = typed(text(&file));
    assert_eq!(status, 400, "{answer}");
    assert_eq!(
        answer["error"],
        format!(
            "`{}` is not a folder; give the project's folder",
            file.display()
        )
    );
}

#[test]
fn a_path_must_be_absolute_and_may_be_any_bytes() {
    let (home, _) = home();
    let page = Page::start(&home);
    for path in ["", "shop", "./shop", "~me/shop"] {
        let (status, answer) = page.post("allocate", &json!({ "path": path }));
        assert_eq!(status, 400, "{path:?}: {answer}");
    }
    // `raw` encodes bytes that are not UTF-8.
    let path = home
        .path("")
        .join("caf\0e9")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    page.change("allocate", json!({ "path": path }));
    page.change("pin", json!({ "path": path, "pinned": true }));
    let projects = page
        .live()
        .find(|line| line["on"] == "projects")
        .expect("an event arrives");
    assert_eq!(projects["projects"][0]["path"], path);
    page.change("remove", json!({ "path": path }));
}

#[test]
fn a_page_receives_changes_by_other_commands() {
    let (home, port) = home();
    let page = Page::start(&home);
    let mut live = page.live();
    let mut projects = move || loop {
        let line = live.next().expect("another event arrives");
        if line["on"] == "projects" {
            return line;
        }
    };
    let first = projects();
    assert_eq!(
        (&first["projects"], &first["next_available"]),
        (&json!([]), &json!(port))
    );
    page.change("allocate", json!({ "path": home.path("shop") }));
    let second = projects();
    assert_eq!(second["projects"][0]["port"], port);
    home.ic(["remove"]).result(0);
    assert_eq!(projects()["projects"], json!([]));
}

/// A stand-in for an interceptor: a socket in the folder of feeds.
fn feed(home: &Home, pid: u32) -> UnixListener {
    let folder = home.folder("run/ic");
    for folder in [home.path("run"), folder.clone()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("this user owns it");
    }
    UnixListener::bind(folder.join(format!("{pid}.sock"))).expect("a new socket")
}

const HELLO: &str = r#"{"event":"hello","protocol":1,"instance_id":"i","project":"shop","path":"/shop","port":9000,"pid":7,"target":"http://localhost:1","recording":false,"at":1.5}"#;

#[test]
fn the_lines_of_a_feed_are_forwarded_unchanged() {
    let home = Home::new();
    let run = home.folder("run");
    let home = home.with("XDG_RUNTIME_DIR", run);
    let interceptor = feed(&home, 7);
    let page = Page::start(&home);
    let mut lines = page.live();
    assert!(lines.any(|line| line["on"] == "live"));
    let mut events = lines.filter(|line| line["on"] == "feed");
    let (mut told, _) = interceptor.accept().expect("the server connects");
    let lines = [
        HELLO,
        r#"{"event":"start","id":1,"path":"</script>\u0000\u2028\ud83d\ude00","fields":[["a","\""]]}"#,
        r#"{"event":"unknown","deep":[[[{}]]]}"#,
    ];
    told.write_all(lines.join("\n").as_bytes())
        .expect("it reads");
    told.write_all(b"\nno json\n{\"event\":\"bye\"}\n{\"half")
        .expect("it reads");
    drop(told);
    for line in lines
        .into_iter()
        .chain([r#"{"event":"bye"}"#, r#"{"event":"closed"}"#])
    {
        let expected: Value = serde_json::from_str(line).expect("JSON");
        let event = events.next().expect("another event arrives");
        assert_eq!((&event["pid"], &event["event"]), (&json!(7), &expected));
    }
    // The server reconnects after an error.
    interceptor.accept().expect("the server reconnects");
}

#[test]
fn a_page_that_is_opened_later_is_sent_the_last_requests() {
    #[track_caller]
    fn check(page: &Page, expected: &[&str]) {
        let events = page
            .live()
            .filter(|line| line["on"] == "feed" || line["on"] == "live");
        let kept = events.take_while(|line| line["on"] != "live");
        let kept: Vec<Value> = kept.map(|line| line["event"].clone()).collect();
        let expected = expected.iter().map(|line| serde_json::from_str(line));
        let expected: Vec<Value> = expected.map(|line| line.expect("JSON")).collect();
        assert_eq!(kept, expected);
    }
    let home = Home::new();
    let run = home.folder("run");
    let home = home.with("XDG_RUNTIME_DIR", run);
    let interceptor = feed(&home, 7);
    let page = Page::start(&home);
    let (mut told, _) = interceptor.accept().expect("it connects without a page");
    let mut events = page.live().filter(|line| line["on"] == "feed");
    let mut tell = |lines: &[&str], last: &str| {
        told.write_all(format!("{}\n", lines.join("\n")).as_bytes())
            .expect("it reads");
        let is_last = |line: &Value| line["event"]["event"] == last;
        assert!(events.any(|line| is_last(&line)), "the page gets {last}");
    };
    let start = r#"{"event":"start","id":1,"at":1.5,"path":"/v1/models"}"#;
    let head = r#"{"event":"head","id":1,"status":200}"#;
    let body = r#"{"event":"body","id":1,"side":"response","data":"x"}"#;
    let end = r#"{"event":"end","id":1,"status":200}"#;
    let second = r#"{"event":"start","id":2,"at":1.6}"#;
    tell(&[HELLO, start, head, body, end], "end");
    check(&page, &[HELLO, start, head, end]);
    tell(&[second, r#"{"event":"bye"}"#], "bye");
    check(&page, &[HELLO, start, head, end, second]);
    drop(told);
    // It connects again, and is sent again what the interceptor has kept.
    let (mut told, _) = interceptor.accept().expect("it connects again");
    let lines = [HELLO, start, head, end, r#"{"event":"live"}"#];
    told.write_all(format!("{}\n", lines.join("\n")).as_bytes())
        .expect("it reads");
    let mut seen = events.map(|line| line["event"]["event"].clone());
    let seen: Vec<Value> = seen.by_ref().take(3).collect();
    assert_eq!(seen, ["closed", "hello", "live"]);
    check(&page, &[HELLO, start, head, end]);
}

#[test]
fn recording_is_switched_in_the_selected_interceptor() {
    let home = Home::new();
    let run = home.folder("run");
    let home = home.with("XDG_RUNTIME_DIR", run);
    let interceptor = feed(&home, 7);
    let page = Page::start(&home);
    let other = page.post("record", &json!({ "pid": 8, "on": true }));
    assert_eq!(other.0, 500, "{}", other.1);
    let (sender, questions) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // The other one that connects only listens.
        for connection in interceptor.incoming() {
            let (mut told, sender) = (connection.expect("it is open"), sender.clone());
            std::thread::spawn(move || {
                writeln!(told, "{HELLO}").expect("it reads");
                let mut question = String::new();
                BufReader::new(&told)
                    .read_line(&mut question)
                    .expect("text");
                told.write_all(
                    b"{\"event\":\"start\",\"id\":1}\n{\"event\":\"recording\",\"on\":true}\n",
                )
                .expect("it reads");
                sender.send(question)
            });
        }
    });
    let answer = page.change("record", json!({ "pid": 7, "on": true }));
    assert_eq!(answer, json!({ "recording": true }));
    let question = questions.recv().expect("it was asked");
    assert_eq!(question, "{\"record\":true}\n");
}

#[test]
fn a_page_is_first_told_the_prices_of_models() {
    let home = Home::new();
    let file = home.path("prices.json");
    let text = r#"{"gpt-4o": {"input_cost_per_token": 2.5e-06, "mode": "chat"}, "other": {"mode": "chat"}}"#;
    fs::write(&file, text).expect("a file");
    let page = Page::with(
        &home,
        &["--port", "0", "--prices", file.to_str().expect("text")],
    );
    let first = page.live().next().expect("a line");
    let models = json!({ "gpt-4o": [2.5e-06, null, null] });
    assert_eq!(first, json!({ "on": "prices", "models": models }));
}

#[test]
fn prices_that_cannot_be_used_are_refused() {
    let home = Home::new();
    fs::write(home.path("text"), "no JSON").expect("a file");
    fs::write(home.path("empty"), "{}").expect("a file");
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(16 << 20));
    fs::write(home.path("large"), large).expect("a file");
    for (file, why) in [
        ("missing", "No such file"),
        (".", "directory"),
        ("text", "is not a JSON object"),
        ("empty", "has no model"),
        ("large", "larger than 16 MiB"),
    ] {
        let file = home.path(file);
        let file = file.to_str().expect("text");
        let message = home.ic(["ui", "--no-open", "--prices", file]).complaint(3);
        let message = message.to_lowercase();
        assert!(message.contains(&why.to_lowercase()), "{file}: {message}");
        assert!(message.contains("give a file like litellm"), "{message}");
    }
}

#[test]
fn a_damaged_registry_is_shown_with_a_warning() {
    let home = Home::new().with_registry(r#"{"mappings":{"/p/a":9000,"/p/b":"#);
    let page = Page::start(&home);
    let told = page
        .live()
        .find(|line| line["on"] == "projects")
        .expect("an event arrives");
    assert_eq!(told["projects"][0]["path"], "/p/a");
    assert!(
        told["warning"]
            .as_str()
            .is_some_and(|warning| warning.contains("damaged"))
    );
}

#[test]
fn a_request_is_sent_again_only_to_an_interceptor_of_this_user() {
    let home = Home::new();
    let run = home.folder("run");
    let home = home.with("XDG_RUNTIME_DIR", run);
    let page = Page::start(&home);
    let (port, (_listener, other)) = (free_port(), held_port());
    let _serving = Serving::start(&home, &["--port", &port.to_string()]);
    let request = |port: u16, path: &str, body: &str| {
        let fields = json!([
            ["Content-Type", "application/json"],
            ["Authorization", "Bearer k"]
        ]);
        json!({ "port": port, "method": "POST", "path": path, "fields": fields, "body": body })
    };
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let requests = || {
        let status = home.ic(["status", "--json"]).json(0);
        // Those of other tests run too.
        let all = status["interceptors"].as_array().expect("a list");
        let own = all.iter().find(|one| one["port"] == port)?;
        own["requests"].as_u64()
    };
    let before = requests().expect("it runs");
    let (status, answer) = page.post("send", &request(port, "/v1/chat/completions", chat));
    assert_eq!((status, answer), (200, json!({ "status": 200 })));
    let (status, answer) = page.post("send", &request(port, "/v1/nothing", chat));
    assert_eq!((status, answer), (200, json!({ "status": 404 })));
    wait_until("the requests are counted", Some(before + 2), requests);

    let (status, answer) = page.post("send", &request(other, "/v1/models", ""));
    assert_eq!(status, 404, "{answer}");
    let message = format!(
        "no interceptor runs on port {}; start it with `ic serve`",
        other
    );
    assert_eq!(answer["error"], message);
    for path in ["", "x", "/a b", "/\r\nA: b", "http://example.com/"] {
        let (status, answer) = page.post("send", &request(port, path, ""));
        assert_eq!(status, 400, "{path:?}: {answer}");
    }
    assert_eq!(requests(), Some(before + 2));
}

#[test]
fn a_response_is_passed_on_to_the_page_that_watches_it() {
    let home = Home::new();
    let run = home.folder("run");
    let home = home.with("XDG_RUNTIME_DIR", run);
    let interceptor = feed(&home, 7);
    let page = Page::start(&home);
    for (pid, id, expected) in [
        (json!(8), json!(5), 500),
        (json!("x"), json!(5), 400),
        (json!(7), Value::Null, 400),
    ] {
        let (status, answer) = page.post("watch", &json!({ "pid": pid, "id": id }));
        assert_eq!(status, expected, "{answer}");
    }
    let part = |id: u64, data: &str| json!({ "event": "body", "id": id, "data": data });
    std::thread::spawn(move || {
        for connection in interceptor.incoming() {
            let mut told = connection.expect("it is open");
            std::thread::spawn(move || {
                writeln!(told, "{HELLO}\n{}", part(4, "recorded before")).expect("it reads");
                let mut question = String::new();
                let mut reader = BufReader::new(told.try_clone().expect("a descriptor"));
                reader.read_line(&mut question).expect("text");
                if question == "{\"watch\":5}\n" {
                    let lines = [
                        part(5, "one"),
                        part(6, "another"),
                        part(5, "one two"),
                        json!({ "event": "bye" }),
                    ];
                    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
                    told.write_all(lines.as_bytes()).expect("it reads");
                } else {
                    // The subscription of all pages.
                    let _ = reader.read_line(&mut question);
                }
            });
        }
    });
    let question = json!({ "pid": 7, "id": 5 }).to_string();
    let fields = page.fields(&format!(
        "X-Ic-Token: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        page.token,
        question.len()
    ));
    let (status, _, body) = page.exchange(&format!(
        "POST /api/watch HTTP/1.1\r\n{fields}\r\n{question}"
    ));
    let lines: Vec<Value> = body
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect();
    assert_eq!(
        (status, lines),
        (200, vec![part(5, "one"), part(5, "one two")])
    );
}
