//! `ic serve --all` beside the other commands: a project's own `ic serve` has precedence, and `ic tail` follows one project or all.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::cli_all::process::{All, at, health, home_with_two, served_by};
use crate::cli_home::{Home, Serving};
use crate::support::*;

#[test]
fn a_projects_own_interceptor_takes_its_port_over_and_gives_it_back() {
    let (home, [shop, web]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    // A client that is connected to another project.
    let mut other = Conn::connect("client", at(web));
    for round in 1..=2 {
        let mut idle = Conn::connect("client", at(shop));
        idle.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(idle.response("GET").status, 200);
        let own = Serving::start(&home, &["--mock", "--instance-id", "own"]);
        let found = health(shop).expect("it is served");
        assert_eq!(found["served_by"], "serve", "{found}");
        assert_eq!(found["instance_id"], "own", "{found}");
        assert_eq!(found["pid"], own.pid(), "{found}");
        idle.expect_end();
        assert_eq!(served_by(web).as_deref(), Some("all"));
        // The second one finds the first, as without `--all`.
        let refused = home.ic(["serve", "--mock"]).complaint(3);
        assert!(refused.contains("is already running"), "{refused}");
        match round {
            1 => own.stop(),
            _ => drop(own), // killed
        }
        wait_until("the port is given back", Some("all".to_owned()), || {
            served_by(shop)
        });
    }
    other.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(other.response("GET").status, 200, "not disturbed");
    all.stop();
}

#[test]
fn a_port_that_is_taken_over_follows_the_registry_when_it_is_given_back() {
    let (home, [shop, _]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let own = Serving::start(&home, &["--mock"]);
    home.ic(["set", "--instance-id", "new-{project}"]).result(0);
    own.stop();
    wait_until("the new identity", json!("new-shop"), || {
        health(shop).map_or(Value::Null, |it| it["instance_id"].clone())
    });
    // One that ends while it is away leaves the port alone.
    let own = Serving::start(&home, &["--mock"]);
    all.stop();
    assert_eq!(served_by(shop).as_deref(), Some("serve"));
    own.stop();
}

#[test]
fn a_port_is_taken_over_however_many_subscribers_there_are() {
    let (home, [shop, _]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let tails = (0..8).map(|_| Tail::start(&home, &["../web", "--json"]));
    let mut tails: Vec<Tail> = tails.collect();
    for tail in &mut tails {
        tail.event("hello");
    }
    let own = Serving::start(&home, &["--mock"]);
    assert_eq!(served_by(shop).as_deref(), Some("serve"));
    own.stop();
    wait_until("the port is given back", Some("all".to_owned()), || {
        served_by(shop)
    });
    all.stop();
}

/// A running `ic tail`, killed when it is dropped.
struct Tail(Child, BufReader<ChildStdout>);

impl Tail {
    fn start(home: &Home, arguments: &[&str]) -> Tail {
        let mut child = home
            .command([&["tail"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be run");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Tail(child, out)
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("text");
        assert!(line.ends_with('\n'), "a complete line: {line:?}");
        line
    }

    /// Returns its next event of this name.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.line()).expect("an event");
            if event["event"] == name {
                return event;
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) {
    let mut client = Conn::connect("client", at(port));
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(client.response("GET").status, 200);
}

#[test]
fn a_tail_of_a_project_shows_its_requests_only() {
    let (home, [shop, web]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let folder = home.path("web");
    let mut tail = Tail::start(&home, &["--json", folder.to_str().expect("text")]);
    let hello = tail.event("hello");
    assert_eq!(hello["port"], web, "{hello}");
    assert_eq!(hello["project"], "web", "{hello}");
    assert_eq!(hello["pid"], all.pid(), "{hello}");
    assert_eq!(hello.get("sites"), None, "{hello}");
    get(shop, "/v1/models?of=shop");
    get(web, "/v1/models?of=web");
    let start = tail.event("start");
    assert_eq!(start["port"], web, "{start}");
    assert_eq!(tail.event("end")["status"], 200);
    // It ends with the project.
    home.ic(["remove", folder.to_str().expect("text")])
        .result(0);
    tail.event("bye");
}

#[test]
fn a_tail_of_all_names_the_project_of_each_request() {
    let (home, [shop, web]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let mut json = Tail::start(&home, &["--all", "--json"]);
    let hello = json.event("hello");
    let sites = hello["sites"].as_array().expect("the projects").iter();
    let mut ports: Vec<&Value> = sites.map(|site| &site["port"]).collect();
    ports.sort_by_key(|port| port.as_u64());
    let mut expected = [shop, web];
    expected.sort_unstable();
    assert_eq!(ports, expected);
    assert_eq!(hello["port"], Value::Null);
    // A project that comes later is named too.
    let later = home.folder("later");
    let later = later.to_str().expect("text");
    let port = home.ic(["allocate", "-q", later]).result(0);
    let port: u16 = port.trim().parse().expect("a port");
    let site = json.event("site");
    assert_eq!(
        (&site["port"], &site["project"]),
        (&json!(port), &json!("later"))
    );
    let mut text = Tail::start(&home, &["--all"]);
    // The text has no first line that shows that it has begun.
    let line = std::thread::scope(|scope| {
        // Its start may have been before the tail's.
        let line = scope.spawn(|| {
            loop {
                let line = text.line();
                if !line.contains("(start not seen)") {
                    return line;
                }
                assert!(line.contains("  later  "), "{line}");
            }
        });
        while !line.is_finished() {
            get(port, "/v1/models");
        }
        line.join().expect("no failure in the thread")
    });
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words.ends_with(&["later", "GET", "/v1/models"]), "{line}");
}
