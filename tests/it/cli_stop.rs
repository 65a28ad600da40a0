//! `ic stop` with real interceptors. Those of other tests run at the same time; each test has folders of its own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli_all::process::All;
use crate::cli_home::{Home, Serving, begun_stream, free_port, held_port, one_line};
use crate::cli_status::answer;
use crate::support::{is_ignored, tells_who_listens};

/// A home with its own range.
fn home() -> Home {
    let port = free_port();
    Home::new()
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string())
        .with("PATH", std::env::var_os("PATH").unwrap_or_default())
}

fn none_runs(home: &Home) -> String {
    format!(
        "no interceptor runs for `{}`; `ic serve` starts one, `ic status` shows those that run",
        home.path("shop").display()
    )
}

#[test]
fn the_interceptor_of_the_project_has_ended_when_stop_returns() {
    let home = home();
    let mut serving = Serving::start(&home, &[]);
    let port = home.ic(["show", "-q"]).result(0);
    assert_eq!(
        home.ic(["stop"]).result(0),
        format!(
            "✓ Stopped the interceptor of project: shop\n  Process: {} (ic serve)\n  Port:    {port}",
            serving.pid()
        )
    );
    // Not killed: it ends as after SIGTERM.
    assert_eq!(serving.exit_code(), Some(0));
    assert_eq!(home.ic(["stop"]).complaint(1), none_runs(&home));
    let none = home.ic(["stop", "--json"]);
    assert_eq!(none.out, "{\"stopped\":[]}\n");
    assert_eq!(
        (none.exit, one_line(&none.err)),
        (Some(1), none_runs(&home))
    );
    // The mapping stays.
    assert_eq!(home.ic(["show", "-q"]).result(0), port);
}

#[test]
fn only_the_interceptors_of_the_named_project_are_stopped() {
    let home = home();
    let blog = home.folder("blog");
    let blog = blog.to_str().expect("UTF-8");
    let mut of_shop = Serving::start(&home, &[]);
    let mut of_blog = Serving::start(&home, &["--project", blog]);
    let port: u16 = home
        .ic(["show", "-q", blog])
        .result(0)
        .trim()
        .parse()
        .expect("a port");
    assert_eq!(
        home.ic(["stop", blog, "--json"]).json(0),
        json!({ "stopped": [{ "port": port, "pid": of_blog.pid() }] })
    );
    assert_eq!(of_blog.exit_code(), Some(0));
    assert_eq!(of_shop.exit_code(), None);
    // `--all` is about another kind of interceptor.
    let none = "`ic serve --all` does not run for this registry; `ic status` shows what runs";
    assert_eq!(home.ic(["stop", "--all"]).complaint(1), none);
    assert_eq!(of_shop.exit_code(), None);
    let both = "`--all` stops the interceptor of all projects; give `--all` or PATH";
    assert_eq!(home.ic(["stop", "--all", blog]).complaint(2), both);
    of_shop.stop();
}

#[test]
fn an_interceptor_is_stopped_wherever_it_listens() {
    let home = home();
    let port = free_port().to_string();
    let pid = |serving: &Serving, port: Option<u16>| json!({ "stopped": [{ "port": port, "pid": serving.pid() }] });
    if tells_who_listens() {
        let mut serving = Serving::start(&home, &["--port", &port]);
        assert_eq!(
            home.ic(["stop", "--json"]).json(0),
            pid(&serving, port.parse().ok())
        );
        assert_eq!(serving.exit_code(), Some(0));
    }
    let variable = home.with("INTERCEPTOR_PORT", &port);
    let mut serving = Serving::start(&variable, &[]);
    assert_eq!(
        variable.ic(["stop", "--json"]).json(0),
        pid(&serving, port.parse().ok())
    );
    assert_eq!(serving.exit_code(), Some(0));
    // The registry is neither read nor written.
    assert!(!variable.registry().exists());
    // On that port, the interceptor of another project is not stopped.
    let blog = variable.folder("blog");
    let serving = Serving::start(&variable, &["--project", blog.to_str().expect("UTF-8")]);
    assert_eq!(variable.ic(["stop"]).complaint(1), none_runs(&variable));
    serving.stop();
}

#[test]
fn an_interceptor_on_a_unix_socket_is_stopped() {
    // Only Linux shows which process listens on a Unix socket.
    if !cfg!(all(target_os = "linux", not(ic_portable))) {
        return;
    }
    let home = home();
    let socket = format!("unix:{}", home.path("s.sock").display());
    let mut ic = home
        .command(["serve", "--mock", "--listen", &socket])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let mut said = BufReader::new(ic.stderr.take().expect("a pipe")).lines();
    assert!(said.any(|line| line.expect("text").starts_with("Target:")));
    assert_eq!(
        home.ic(["stop", "--json"]).json(0),
        json!({ "stopped": [{ "port": null, "pid": ic.id() }] })
    );
    assert_eq!(ic.wait().expect("it ends").code(), Some(0));
}

/// Starts `ic run` with a shell that prints a line and then runs `script`.
fn running(home: &Home, options: &[&str], script: &str) -> Child {
    let script = format!("{script}; echo; read line");
    let words = [&["run", "--mock"], options, &["--", "sh", "-c", &script]].concat();
    let mut ic = home
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be run");
    let mut out = BufReader::new(ic.stdout.take().expect("a pipe"));
    out.read_line(&mut String::new()).expect("the program runs");
    ic
}

#[test]
fn the_program_of_a_run_is_stopped_with_it() {
    if is_ignored(Signal::TERM) {
        return;
    }
    let home = home();
    let mut ic = running(&home, &[], "true");
    let text = home.ic(["stop"]).result(0);
    assert!(
        text.contains(&format!("Process: {} (ic run)\n", ic.id())),
        "{text}"
    );
    assert_eq!(ic.wait().expect("it ends").code(), Some(128 + 15));
}

#[test]
fn a_process_that_does_not_end_is_reported_with_the_command_that_ends_it() {
    let home = home();
    let mut ic = running(&home, &["--grace", "0"], "trap '' TERM");
    let ran = home.ic(["stop", "--json"]);
    assert_eq!(
        (ran.exit, &*ran.out),
        (Some(3), "{\"stopped\":[]}\n"),
        "{ran:?}"
    );
    let pid = ic.id();
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        lines,
        [
            format!("ic: waiting for `ic run` (pid {pid}) and its program to end"),
            format!(
                "ic: `ic run` (pid {pid}) has not ended after 5 s; `kill -KILL {pid}` ends it at once, with all its requests"
            ),
        ]
    );
    assert_eq!(ic.try_wait().expect("a child can be waited for"), None);
    drop(ic.stdin.take());
    ic.wait().expect("it ends");
}

#[test]
fn requests_in_flight_finish_before_stop_returns() {
    let home = home();
    let mut serving = Serving::start(&home, &["--mock-interval-ms", "300", "--grace", "60"]);
    let port: u16 = home
        .ic(["show", "-q"])
        .result(0)
        .trim()
        .parse()
        .expect("a port");
    let words = "one two three four five six seven eight nine ten";
    let mut client = begun_stream(port, words);
    let ran = home.ic(["stop"]);
    assert_eq!(
        (ran.exit, serving.exit_code()),
        (Some(0), Some(0)),
        "{ran:?}"
    );
    let pid = serving.pid();
    assert_eq!(
        one_line(&ran.err),
        format!(
            "waiting for `ic serve` (pid {pid}) and its requests in flight to end; `kill {pid}` cuts them"
        )
    );
    let mut rest = String::new();
    client
        .read_to_string(&mut rest)
        .expect("the response is complete");
    assert!(rest.contains("data: [DONE]"), "{rest}");
}

#[test]
fn a_project_that_only_serve_all_serves_is_not_stopped() {
    let (listener, port) = held_port();
    let home = Home::new();
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, port)], 8888);
    // Of this process, which goes on.
    let pid = std::process::id();
    let health = json!({
        "status": "healthy", "instance_id": "pycharm-shop", "target": "http://a", "project": shop,
        "pid": pid, "uptime_seconds": 3, "served_by": "all",
    });
    let ic = |arguments: &[&str]| {
        std::thread::scope(|scope| {
            scope.spawn(|| answer(&listener, &health.to_string()));
            home.ic(arguments)
        })
    };
    assert_eq!(
        ic(&["stop"]).complaint(3),
        format!(
            "this project is served by `ic serve --all` (pid {pid}) together with the others; `ic stop --all` stops it \
             for all projects"
        )
    );
    // It has no claim to this registry, so it is that of another one.
    assert_eq!(
        ic(&["stop", "--all"]).complaint(1),
        "`ic serve --all` does not run for this registry; `ic status` shows what runs"
    );
    // `ic serve --all` follows the registry: nothing stays in use.
    assert_eq!(ic(&["remove"]).err, "");
}

#[test]
fn the_command_that_a_removal_names_stops_the_interceptor() {
    if !tells_who_listens() {
        return;
    }
    let home = home();
    let mut serving = Serving::start(&home, &[]);
    let removed = home.ic(["remove"]);
    assert!(removed.err.ends_with("`ic stop` stops it\n"), "{removed:?}");
    home.ic(["stop"]).result(0);
    assert_eq!(serving.exit_code(), Some(0));
}

#[test]
fn stop_all_ends_the_interceptor_of_all_projects_of_this_registry_and_no_other() {
    let home = home();
    let blog = home.folder("blog");
    let blog = blog.to_str().expect("UTF-8");
    for project in [None, Some(blog)] {
        home.ic(["allocate", "-q"].into_iter().chain(project))
            .result(0);
    }
    let listed = home.ic(["list", "--json"]).json(0);
    let ports: Vec<&Value> = listed["mappings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|mapping| &mapping["port"])
        .collect();
    let (other, copy) = (Home::new(), Home::new());
    let other_all = All::start(&other, &["--mock"]);
    let mut all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    // Another registry with the same projects on the same ports.
    let copy = copy
        .inside(home.path("shop"))
        .with_registry(std::fs::read(home.registry()).expect("a file"));
    let none = "`ic serve --all` does not run for this registry; `ic status` shows what runs";
    assert_eq!(copy.ic(["stop", "--all"]).complaint(1), none);

    let pid = all.pid();
    assert_eq!(
        home.ic(["stop"]).complaint(3),
        format!(
            "this project is served by `ic serve --all` (pid {pid}) together with the others; `ic stop --all` stops it \
             for all projects"
        )
    );
    assert_eq!(
        home.ic(["stop", "--all", "--json"]).json(0),
        json!({ "stopped": [{ "port": ports[0], "pid": pid }, { "port": ports[1], "pid": pid }] })
    );
    assert_eq!(all.exit_code(), Some(0));
    assert_eq!(home.ic(["stop", "--all"]).complaint(1), none);

    // One without a project has no port.
    let pid = other_all.pid();
    assert_eq!(
        other.ic(["stop", "--all"]).result(0),
        format!("✓ Stopped the interceptor of 0 projects\n  Process: {pid} (ic serve --all)\n")
    );
    other_all.stop();
}

#[test]
fn a_project_that_is_also_served_by_serve_all_keeps_that() {
    let home = home();
    let port = home.ic(["allocate", "-q"]).result(0);
    let all = All::start(&home, &["--mock"]);
    all.wait_for("1 project\n");
    let mut own = Serving::start(&home, &[]);
    let text = home.ic(["stop"]).result(0);
    assert!(
        text.ends_with(&format!(
            "Process: {} (ic serve)\n  Port:    {port}",
            own.pid()
        )),
        "{text}"
    );
    assert_eq!(own.exit_code(), Some(0));
    home.ic(["stop", "--all", "--json"]).json(0);
    all.stop();
}

#[test]
fn stop_all_finds_the_interceptor_by_its_ports_where_it_cannot_lock_the_registry() {
    let home = home();
    let port: u16 = home
        .ic(["allocate", "-q"])
        .result(0)
        .trim()
        .parse()
        .expect("a port");
    let mut lock = home.registry().into_os_string();
    lock.push(".serve");
    std::fs::create_dir(lock).expect("a folder in the place of the lock");
    let mut all = All::start(&home, &["--mock"]);
    all.wait_for("1 project\n");
    assert_eq!(
        home.ic(["stop", "--all", "--json"]).json(0),
        json!({ "stopped": [{ "port": port, "pid": all.pid() }] })
    );
    assert_eq!(all.exit_code(), Some(0));
}
