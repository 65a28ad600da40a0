//! `ic status` with real interceptors, false ones, and other programs on ports of projects. Interceptors of other tests run at the
//! same time, so each test reads only its own ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cli_home::{Home, Serving, free_port, held_port, one_line};
use crate::support::tells_who_listens;

/// The entry of a port in `ic status --json`, under `interceptors` or `held`.
#[track_caller]
fn told(home: &Home, list: &str, port: u16) -> Option<Value> {
    let status = home.ic(["status", "--json"]).json(0);
    let entries = status[list].as_array().expect("a list");
    assert!(
        entries.is_sorted_by_key(|entry| entry["port"].as_u64()),
        "{status}"
    );
    entries.iter().find(|entry| entry["port"] == port).cloned()
}

/// The line of a port in `ic status`.
#[track_caller]
fn line(home: &Home, port: u16) -> String {
    let text = home.ic(["status"]).result(0);
    let start = format!("{port} ");
    let mut lines = text.lines().map(str::trim_start);
    let headings = lines.next().expect("a line");
    assert!(headings.starts_with("PORT  "), "{text}");
    let line = lines.find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("{port}: {text}")).to_owned()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A home with its own range.
fn home() -> Home {
    let port = free_port();
    Home::new()
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string())
}

#[track_caller]
fn port_of(home: &Home) -> u16 {
    home.ic(["show", "-q"])
        .result(0)
        .trim()
        .parse()
        .expect("a port")
}

#[test]
fn the_interceptor_of_a_project_is_shown_until_it_exits() {
    if !tells_who_listens() {
        return;
    }
    let home = home();
    let shop = home.path("shop");
    let serving = Serving::start(&home, &[]);
    let port = port_of(&home);
    let before = home.content();
    let found = told(&home, "interceptors", port).expect("it runs");
    assert_eq!(home.content(), before);
    let target = found["target"].as_str().expect("text").to_owned();
    assert!(
        target.starts_with("http://127.0.0.1:"),
        "the mock: {target}"
    );
    assert_eq!(
        found,
        json!({
            "port": port, "project": "shop", "path": shop, "instance_id": "pycharm-shop",
            "pid": serving.pid(), "served_by": "serve", "uptime_seconds": found["uptime_seconds"], "target": target,
            "target_reachable": true, "insecure": false, "requests": 0, "errors": 0, "client_gone": 0, "in_flight": 0,
            "last_error": null,
        })
    );
    assert!(found["uptime_seconds"].is_u64(), "{found}");
    assert_eq!(told(&home, "held", port), None);

    let line = line(&home, port);
    let (start, end) = line.split_once(&target).expect("a target");
    let [number, mark, name] = words(start)[..] else {
        panic!("{line}");
    };
    assert_eq!((number, mark), (&*port.to_string(), "✓"));
    // Other tests have a folder of that name too.
    assert!(name == "shop" || name.ends_with("/shop"), "{line}");
    let pid = serving.pid().to_string();
    let (answers, end) = end.trim().split_once(' ').expect("a column");
    let (up, end) = end.trim().split_once(' ').expect("a column");
    let seconds = up.strip_suffix('s').expect("seconds");
    assert!(answers == "yes" && seconds.parse::<u8>().is_ok(), "{line}");
    assert_eq!(words(end), ["0", "0", "0", &pid, "ic", "serve"]);

    // SIGKILL leaves no wrong state.
    drop(serving);
    assert_eq!(told(&home, "interceptors", port), None);
    Serving::start(&home, &[]).stop();
    assert_eq!(told(&home, "interceptors", port), None);
}

#[test]
fn an_interceptor_with_an_explicit_port_is_found() {
    if !tells_who_listens() {
        return;
    }
    let (closed, port) = (free_port(), free_port());
    let home = home();
    let target = format!("http://localhost:{closed}");
    let text = port.to_string();
    for (host, arguments) in [
        ("localhost", vec!["--port", &text, "--target", &target]),
        // Not on a default address, so only the listening socket tells where to connect.
        (
            "127.0.0.2",
            vec!["--port", &text, "--target", &target, "--host", "127.0.0.2"],
        ),
    ] {
        if cfg!(any(ic_portable, not(target_os = "linux"))) && host != "localhost" {
            continue;
        }
        let serving = Serving::start(&home, &arguments);
        let found = told(&home, "interceptors", port).expect(host);
        assert_eq!(
            (&found["pid"], &found["target_reachable"], &found["path"]),
            (
                &json!(serving.pid()),
                &json!(false),
                &json!(home.path("shop"))
            ),
            "{host}: {found}"
        );
        let line = line(&home, port);
        let words = words(&line);
        assert_eq!(
            (words[1], words[3], words[4]),
            ("⚠", &*target, "no"),
            "{line}"
        );
    }
}

#[test]
fn another_program_on_the_port_of_a_project_is_not_an_interceptor() {
    if !tells_who_listens() {
        return;
    }
    let (_listener, held) = held_port();
    let (impostor, port) = held_port();
    let home = Home::new();
    let (shop, blog) = (home.path("shop"), home.path("blog"));
    let home = home.with_mappings(&[(&shop, held), (&blog, port)], 8888);
    // A health response with the process id of another process is not accepted.
    let claim = json!({
        "status": "healthy", "instance_id": "pycharm-blog", "target": "http://a", "project": blog,
        "pid": 1, "uptime_seconds": 3,
    });
    let server = std::thread::spawn(move || answer(&impostor, &claim.to_string()));
    let status = home.ic(["status", "--json"]).json(0);
    server.join().expect("the thread does not panic");
    let find = |list: &str, port: u16| {
        let entries = status[list].as_array().expect("a list");
        entries.iter().find(|entry| entry["port"] == port).cloned()
    };
    if cfg!(all(target_os = "linux", not(ic_portable))) {
        assert_eq!(find("interceptors", port), None, "{status}");
        let by = |port: u16, project: &str, path: &Path| {
            let program = std::fs::read_to_string("/proc/self/comm").expect("Linux says");
            json!({
                "port": port, "project": project, "path": path, "pid": std::process::id(),
                "program": program.trim(), "instance_id": null, "other_user": null,
            })
        };
        assert_eq!(find("held", held), Some(by(held, "shop", &shop)));
        assert_eq!(find("held", port), Some(by(port, "blog", &blog)));
    }
    assert_eq!(find("interceptors", held), None, "{status}");
}

#[test]
fn the_interceptor_of_another_project_is_a_holder_of_the_port() {
    if !tells_who_listens() {
        return;
    }
    let port = free_port();
    let home = Home::new();
    let blog = home.path("blog");
    let home = home.with_mappings(&[(&blog, port)], 8888);
    let serving = Serving::start(&home, &["--port", &port.to_string()]);
    assert!(told(&home, "interceptors", port).is_some());
    assert_eq!(
        told(&home, "held", port),
        Some(json!({
            "port": port, "project": "blog", "path": blog, "pid": serving.pid(), "program": null,
            "instance_id": "pycharm-shop", "other_user": null,
        }))
    );
    let text = home.ic(["status"]).result(0);
    let by = format!(
        "  in use by the interceptor pycharm-shop, pid {}\n",
        serving.pid()
    );
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let held = lines.iter().find(|line| line.ends_with(&by)).expect(&text);
    assert_eq!(words(held)[..2], [&port.to_string(), "⚠"], "{text}");
    assert!(words(held)[2].ends_with("blog"), "{text}");
}

#[test]
fn many_unresponsive_programs_do_not_delay_status() {
    if !tells_who_listens() {
        return;
    }
    let silent: Vec<_> = (0..20).map(|_| held_port()).collect();
    let home = Home::new();
    let paths: Vec<_> = (0..1112)
        .map(|number| home.path(format!("project-{number}")))
        .collect();
    let ports = silent.iter().map(|(_, port)| *port).chain(8888..);
    let mappings: Vec<_> = paths.iter().map(|path| path.as_path()).zip(ports).collect();
    let home = home.with_mappings(&mappings, 8888);
    let status = home.ic(["status", "--json"]).json(0);
    for (_, port) in &silent {
        let held = status["held"].as_array().expect("a list");
        assert!(held.iter().any(|entry| entry["port"] == *port), "{status}");
    }
}

#[test]
fn watch_exits_when_its_output_is_closed() {
    if !tells_who_listens() {
        return;
    }
    let home = home();
    let serving = Serving::start(&home, &[]);
    let port = port_of(&home);
    let mut watch = home
        .command(["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut is_running = || {
        let line = lines.next().expect("there is another line").expect("text");
        let status: Value = serde_json::from_str(&line).expect("JSON");
        let interceptors = status["interceptors"].as_array().expect("a list");
        interceptors.iter().any(|entry| entry["port"] == port)
    };
    assert!(is_running());
    drop(serving);
    while is_running() {}
    drop(lines);
    let status = watch.wait().expect("it ends");
    let mut errors = String::new();
    let mut stream = watch.stderr.take().expect("a pipe");
    stream.read_to_string(&mut errors).expect("text");
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));

    let mut plain = home
        .command(["status", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let mut first = [0; 8];
    let mut stream = plain.stdout.take().expect("a pipe");
    stream.read_exact(&mut first).expect("the first output");
    assert!(!first.contains(&0x1b), "no escape codes without a terminal");
    drop(stream);
    assert_eq!(plain.wait().expect("it ends").code(), Some(0));
}

/// Responds to one request with this document.
pub fn answer(listener: &TcpListener, document: &str) {
    let (mut stream, _) = listener.accept().expect("the question");
    let mut question = [0; 1024];
    assert_ne!(stream.read(&mut question).expect("the question"), 0);
    write!(stream, "HTTP/1.1 200 OK\r\n\r\n{document}").expect("a response can be sent");
}

#[test]
fn changes_that_take_a_port_warn_of_interceptors_that_still_run() {
    let home = home();
    let serving = Serving::start(&home, &[]);
    let port = port_of(&home);
    let shop = home.path("shop").display().to_string();
    let expected = format!(
        "warning: port {port} stays in use: the interceptor of `{shop}` still runs; `ic stop` stops it"
    );
    let mappings = std::fs::read(home.registry()).expect("the port is allocated");
    for arguments in [&["remove"][..], &["remove", "--json"], &["reset", "--yes"]] {
        std::fs::write(home.registry(), &mappings).expect("a file");
        let ran = home.ic(arguments);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(
            ran.out.contains(&shop) || arguments[0] == "reset",
            "{ran:?}"
        );
        assert_eq!(one_line(&ran.err), expected, "{arguments:?}");
    }
    // An import that gives the port to another project, or another port to this one.
    let file = home.path("import.json");
    let import = |mappings: serde_json::Value, options: &[&str]| {
        std::fs::write(&file, json!({ "mappings": mappings }).to_string()).expect("a file");
        let path = file.to_str().expect("UTF-8");
        home.ic([&["import", path, "--replace"], options].concat())
    };
    let others = [
        json!({ "/else/where": port }),
        json!({ shop.as_str(): port + 1 }),
    ];
    for others in &others {
        std::fs::write(home.registry(), &mappings).expect("a file");
        assert_eq!(import(others.clone(), &["--dry-run"]).err, "");
        assert_eq!(one_line(&import(others.clone(), &[]).err), expected);
    }
    serving.stop();
    for arguments in [&["remove"][..], &["reset", "--yes"]] {
        std::fs::write(home.registry(), &mappings).expect("a file");
        home.ic(arguments).result(0);
    }
    std::fs::write(home.registry(), &mappings).expect("a file");
    import(others[0].clone(), &[]).result(0);
}

#[test]
fn a_port_of_another_project_is_warned_of() {
    let port = free_port();
    let number = port.to_string();
    let home = Home::new();
    let other = home.folder("other");
    let home = home.with_mappings(&[(&other, port)], 8888);
    let expected = format!(
        "warning: port {port} is assigned to another project, `{}`, whose clients now reach this one; \
         `ic suggest` lists free ports",
        other.display()
    );
    let run = |home: &Home, options: &[&str]| {
        let program = env!("CARGO_BIN_EXE_ic");
        let words = [&["run", "--mock"], options, &["--", program, "--version"]];
        let ran = home.ic(words.concat()).of_unused_run();
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        ran.err
    };
    assert_eq!(one_line(&run(&home, &["--port", &number])), expected);
    // Its own project, and the variable, which leaves the registry alone.
    let own = [
        "--port",
        &number,
        "--project",
        other.to_str().expect("UTF-8"),
    ];
    assert_eq!(run(&home, &own), "");
    let by_variable = home.with("INTERCEPTOR_PORT", &number);
    assert_eq!(run(&by_variable, &[]), "");

    let mut serving = by_variable
        .command(["serve", "--mock", "--port", &number])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let errors = BufReader::new(serving.stderr.take().expect("a pipe"));
    let mut lines = errors.lines().map(|line| line.expect("text"));
    let warning = lines.find(|line| line.starts_with("ic: "));
    assert_eq!(warning, Some(format!("ic: {expected}")));
    serving.kill().expect("it runs");
    serving.wait().expect("it ends");
}
