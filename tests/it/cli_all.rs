//! `ic serve --all`: which projects it serves, how, and how it follows the registry.

pub mod process;
mod soak;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::process::{All, at, connects, home_with_two, identity_on, served_by};
use crate::cli_home::{Home, Serving, free_port, held_port, setpriv, unprivileged};
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What the origin receives of a request on the port.
#[track_caller]
fn forwarded(origin: &Origin, port: u16) -> Request {
    origin.forget();
    let mut client = Conn::connect("client", at(port));
    client.send(GET);
    assert_eq!(client.response("GET").status, 200);
    origin.requests().remove(0)
}

#[test]
fn every_project_is_served_on_its_port_under_its_identity() {
    let (home, [shop, web]) = home_with_two();
    let origin = Origin::agreeing();
    let all = All::start(&home, &["--target", &origin.url()]);
    let said = all.wait_for("2 projects\n");
    let url = origin.url();
    for line in [
        format!("{shop}  shop  → {url}\n"),
        format!("{web}  web  → {url}\n"),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    for (port, name) in [(shop, "shop"), (web, "web")] {
        let seen = forwarded(&origin, port);
        let id = format!("pycharm-{name}");
        assert_eq!(seen.fields.one("x-memory-user-id"), Some(&*id));
        let health = all.health(port).expect("it answers");
        assert_eq!(health["served_by"], "all", "{health}");
        assert_eq!(health["project"], json!(home.path(name)), "{health}");
    }
    // Each counts its own requests.
    let _ = forwarded(&origin, shop);
    for (port, count) in [(shop, 2), (web, 1)] {
        let health = all.health(port).expect("it answers");
        assert_eq!(health["requests"], count, "{health}");
    }
    let status = home.ic(["status", "--json"]).json(0);
    let running = status["interceptors"].as_array().expect("a list").iter();
    let ports: Vec<&Value> = running
        .filter(|it| it["pid"] == all.pid() && it["served_by"] == "all")
        .map(|it| &it["port"])
        .collect();
    let mut expected = [shop, web];
    expected.sort_unstable();
    assert_eq!(ports, expected);
    all.stop();
}

#[test]
fn a_change_is_served_within_a_second() {
    let (home, [shop, _]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    // The machine may be busy with other tests: the fastest of some counts.
    let fastest = (0..5).map(|round| {
        let id = format!("round-{round}-{{project}}");
        home.ic(["set", "--instance-id", &id]);
        let since = Instant::now();
        wait_until(
            "the new identity",
            Some(format!("round-{round}-shop")),
            || identity_on(shop),
        );
        since.elapsed()
    });
    let fastest = fastest.min().expect("some rounds");
    // Without inotify it looks every two seconds.
    let limit = Duration::from_secs(if cfg!(ic_portable) { 3 } else { 1 });
    assert!(fastest < limit, "{fastest:?}");
    drop(all);
}

#[test]
fn a_change_disturbs_no_other_project() {
    let (home, [shop, web]) = home_with_two();
    let origin = Origin::listen();
    let all = All::start(&home, &["--target", &origin.url()]);
    all.wait_for("2 projects\n");
    // A stream of each.
    let mut streams = [shop, web].map(|port| {
        let mut client = Conn::connect("client", at(port));
        client.send(GET);
        let mut served = origin.accept();
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na1\r\n");
        let (_, framing) = client.response_head("GET");
        let mut body = Body::new(framing);
        client.expect_some(&mut body, "a1");
        (client, served, body)
    });
    let mut idle = [shop, web].map(|port| {
        let mut client = Conn::connect("client", at(port));
        client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response("GET");
        client
    });

    let other = home.folder("other");
    let port = home.ic(["allocate", "../other", "--json"]).json(0)["port"].clone();
    let port = u16::try_from(port.as_u64().expect("a port")).expect("a port");
    wait_until("allocated", Some("pycharm-other".to_owned()), || {
        identity_on(port)
    });
    home.ic(["set", "--header", "x-team: blue"]);
    idle[0].expect_end();
    wait_until("served anew", Some("pycharm-shop".to_owned()), || {
        identity_on(shop)
    });
    fs::rename(&other, home.path("moved")).expect("renamed");
    home.ic(["move", "../other", "../moved"]);
    wait_until("moved", Some("pycharm-moved".to_owned()), || {
        identity_on(port)
    });
    home.ic(["remove", "../moved"]);
    wait_until("removed", false, || connects(port));
    all.wait_for(&format!("{port}  moved  is no longer served\n2 projects\n"));

    // Requests in flight finish, those of the project that was set anew as well.
    for (client, served, body) in &mut streams {
        served.send("2\r\nb2\r\n0\r\n\r\n");
        client.expect_some(body, "b2");
        client.expect_end_of(body);
    }
    // The idle client of the other project is still there.
    let web = &mut idle[1];
    web.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(web.response("GET").status, 200);
    all.stop();
}

#[test]
fn what_is_set_for_a_project_comes_before_options_and_variables() {
    let (home, [shop, web]) = home_with_two();
    let (kept, default) = (Origin::agreeing(), Origin::agreeing());
    home.ic([
        "set",
        "--target",
        &kept.url(),
        "--instance-id",
        "kept",
        "--header",
        "x_team: blue",
        "--header",
        "x-key: {env:SHOP_KEY}",
    ]);
    let mut command = home.command([
        "serve",
        "--all",
        "--target",
        &default.url(),
        "--header",
        "x-team: red",
        "--header",
        "x-all: {port}",
    ]);
    command
        .env("SHOP_KEY", "sk-1")
        .env("SUPERMEMORY_USERNAME", "{project}@{port}");
    let all = All::of(command);
    all.wait_for("2 projects\n");
    let seen = forwarded(&kept, shop);
    assert_eq!(seen.fields.one("x-memory-user-id"), Some("kept"));
    assert_eq!(seen.fields.all("x_team"), ["blue"]);
    assert!(!seen.fields.has("x-team"), "it is replaced: {seen:?}");
    assert_eq!(seen.fields.one("x-key"), Some("sk-1"));
    assert_eq!(seen.fields.one("x-all"), Some(&*shop.to_string()));
    let seen = forwarded(&default, web);
    let id = format!("web@{web}");
    assert_eq!(seen.fields.one("x-memory-user-id"), Some(&*id));
    assert_eq!(seen.fields.all("x-team"), ["red"]);
    assert!(!seen.fields.has("x-key"), "{seen:?}");
    all.stop();
}

#[test]
fn the_limit_of_connections_is_that_of_all_projects_together() {
    let (home, [shop, web]) = home_with_two();
    let origin = Origin::listen();
    let all = All::start(
        &home,
        &["--target", &origin.url(), "--max-connections", "1"],
    );
    all.wait_for("2 projects\n");
    let mut first = Conn::connect("client", at(shop));
    first.send(GET);
    let mut served = origin.accept();
    served.request();
    let mut second = Conn::connect("client", at(web));
    second.send(GET);
    check_own_error(&second.response("GET"), &[503]);
    served.send(OK);
    assert_eq!(first.response("GET").status, 200);
    all.stop();
}

#[test]
fn options_and_variables_of_one_project_are_refused() {
    let (home, _) = home_with_two();
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], variable: Option<(&str, &str)>, start: &str) {
        let mut command = home.command([&["serve", "--all"], arguments].concat());
        command.envs(variable);
        let output = command.output().expect("the program can be run");
        let said = crate::cli_home::Ran::from(output).complaint(2);
        assert!(said.starts_with(start), "{said}");
    }
    for option in [
        ["--port", "9000"],
        ["--listen", "unix:/nowhere/a.sock"],
        ["--listen-mode", "600"],
        ["--project", "."],
        ["--idle-exit", "5"],
    ] {
        check(
            &home,
            &option,
            None,
            &format!("`{}` is for one project, ", option[0]),
        );
    }
    let port = Some(("INTERCEPTOR_PORT", "9000"));
    check(
        &home,
        &[],
        port,
        "`INTERCEPTOR_PORT=9000` is for one project, ",
    );
    let same = "`--instance-id me-{user}` would be the same for all projects; put {project} or {port} into it";
    check(&home, &["--instance-id", "me-{user}"], None, same);
    let bad = Some(("SUPERMEMORY_USERNAME", "{brnach}"));
    check(
        &home,
        &[],
        bad,
        "`SUPERMEMORY_USERNAME={brnach}` contains the unknown placeholder",
    );
    let unset = "the field `x-key` needs the variable NO_SUCH_KEY, which is not set; ";
    check(
        &home,
        &["--header", "x-key: {env:NO_SUCH_KEY}"],
        None,
        unset,
    );
    check(&home, &["--target", "ftp://a"], None, "`--target ftp://a`");
    let said = home.ic(["run", "--all", "--", "true"]).complaint(2);
    assert!(said.starts_with("`--all` is for `ic serve`; "), "{said}");
}

#[test]
fn a_variable_with_one_identity_for_all_is_ignored_with_a_line() {
    let (home, [shop, _]) = home_with_two();
    let home = home.with("SUPERMEMORY_USERNAME", "me");
    let all = All::start(&home, &["--mock"]);
    all.wait_for("ic: `SUPERMEMORY_USERNAME=me` is ignored: it would be the same for all projects");
    wait_until("the default", Some("pycharm-shop".to_owned()), || {
        identity_on(shop)
    });
    all.stop();
}

#[test]
fn a_field_whose_variable_is_not_set_is_left_out() {
    let (home, [shop, _]) = home_with_two();
    home.ic([
        "set",
        "--header",
        "x-key: {env:NO_SUCH_KEY}",
        "--header",
        "x-team: blue",
    ]);
    let origin = Origin::agreeing();
    let all = All::start(
        &home,
        &["--target", &origin.url(), "--header", "x-key: default"],
    );
    let path = home.path("shop");
    all.wait_for(&format!(
        "ic: warning: a field of `{}` is left out: the field `x-key` needs the variable NO_SUCH_KEY, which is not set; ",
        path.display()
    ));
    all.wait_for("2 projects\n");
    let seen = forwarded(&origin, shop);
    assert!(!seen.fields.has("x-key"), "{seen:?}");
    assert_eq!(seen.fields.one("x-team"), Some("blue"));
    all.stop();
}

#[test]
fn settings_that_do_not_parse_are_named_and_the_project_gets_the_defaults() {
    let (home, [shop, web]) = home_with_two();
    let text = fs::read_to_string(home.registry()).expect("a registry");
    let mut registry: Value = serde_json::from_str(&text).expect("JSON");
    let (shop_path, web_path) = (home.path("shop"), home.path("web"));
    let projects = json!({
        shop_path.to_str().expect("UTF-8"): {"settings": {"target": 7}},
        web_path.to_str().expect("UTF-8"): {"settings": {"instance_id": "{brnach}"}},
    });
    registry["ic"] = json!({ "projects": projects });
    fs::write(home.registry(), registry.to_string()).expect("written");
    let all = All::start(&home, &["--mock"]);
    for (path, port, name) in [(shop_path, shop, "shop"), (web_path, web, "web")] {
        let start = format!(
            "ic: warning: the settings of `{}` in the registry are not used: ",
            path.display()
        );
        all.wait_for(&start);
        wait_until("the default", Some(format!("pycharm-{name}")), || {
            identity_on(port)
        });
        home.ic(["allocate", "../shop"]);
    }
    assert_eq!(
        all.said().matches(" are not used: ").count(),
        2,
        "each once"
    );
    all.stop();
}

#[test]
fn two_projects_with_one_identity_are_warned_of_once() {
    let (home, [shop, _]) = home_with_two();
    let (one, two) = (home.folder("a/api"), home.folder("b/api"));
    for path in [&one, &two] {
        home.ic([Path::new("allocate"), path]);
    }
    let all = All::start(&home, &["--mock"]);
    let warning = format!(
        "`{}` and `{}` both send the instance id `pycharm-api`, so that the target cannot tell them apart; \
         `ic set {0}",
        two.display(),
        one.display()
    );
    let (port, _) = (free_port(), shop);
    all.wait_for(&format!(
        "ic: warning: {}",
        warning.split(" `ic set").next().expect("a start")
    ));
    home.ic(["allocate", "--port-min", &port.to_string(), "../web"]);
    home.ic(["set", "--header", "a: b"]);
    wait_until("a change", 2, || all.said().matches("  shop  → ").count());
    assert_eq!(all.said().matches("both send the instance id").count(), 1);
    home.ic([
        Path::new("set"),
        &two,
        "--instance-id".as_ref(),
        "pycharm-{parent}-{project}".as_ref(),
    ]);
    let said = all.wait_for("  api  → ");
    assert_eq!(said.matches("both send the instance id").count(), 1);
    all.stop();
}

#[test]
fn a_deleted_folder_is_not_served_until_it_is_back() {
    let (home, [shop, web]) = home_with_two();
    fs::remove_dir(home.path("web")).expect("removed");
    let all = All::start(&home, &["--mock"]);
    let path = home.path("web");
    all.wait_for(&format!(
        "ic: `{}` is not served: its folder is deleted; ",
        path.display()
    ));
    all.wait_for("1 project\n");
    assert!(!connects(web));
    home.folder("web");
    home.ic(["set", "--header", "a: b"]);
    wait_until("it is back", Some("pycharm-web".to_owned()), || {
        identity_on(web)
    });
    fs::remove_dir(home.path("web")).expect("removed");
    home.ic(["set", "--header", "a: c"]);
    wait_until("it is deleted", false, || connects(web));
    assert_eq!(identity_on(shop).as_deref(), Some("pycharm-shop"));
    all.stop();
}

#[test]
fn a_registry_that_cannot_be_relied_on_takes_no_port_away() {
    let (home, [shop, web]) = home_with_two();
    let file = home.registry();
    let text = fs::read(&file).expect("a registry");
    let folder = file.parent().expect("it has one").to_owned();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    // After each step a third project comes or goes, which shows that the step was noticed.
    let third = (home.folder("third"), free_port());
    let mut more: Value = serde_json::from_slice(&text).expect("JSON");
    more["mappings"][third.0.to_str().expect("UTF-8")] = third.1.into();
    let more = more.to_string();
    let both_are_served = |why: &str| {
        for (port, name) in [(shop, "shop"), (web, "web")] {
            let id = identity_on(port);
            assert_eq!(id, Some(format!("pycharm-{name}")), "{why}");
        }
    };
    let replace = |text: &[u8]| {
        let new = folder.join("new");
        fs::write(&new, text).expect("written");
        fs::rename(&new, &file).expect("renamed");
    };
    let comes_and_goes = |why: &str| {
        replace(more.as_bytes());
        wait_until(&format!("{why}: it comes"), true, || connects(third.1));
        fs::write(&file, &text).expect("written in place");
        wait_until(&format!("{why}: it goes"), false, || connects(third.1));
        both_are_served(why);
    };
    comes_and_goes("at first");
    fs::remove_file(&file).expect("removed");
    comes_and_goes("the registry was missing");
    fs::remove_dir_all(&folder).expect("removed");
    fs::create_dir_all(&folder).expect("made");
    comes_and_goes("the folder was missing");
    fs::write(&file, "").expect("written");
    comes_and_goes("the registry was empty");

    // Damaged: what can be read is added, and what is missing stays.
    let torn = format!(
        "{{\"mappings\": {{\"{}\": {}, \"/nowhere",
        third.0.display(),
        third.1
    );
    fs::write(&file, torn).expect("written");
    wait_until("what can be read is served", true, || connects(third.1));
    both_are_served("the registry was damaged");
    all.wait_for("ic: warning: ");
    assert_eq!(
        all.said().matches("ic: warning: ").count(),
        1,
        "{}",
        all.said()
    );
    fs::write(&file, &text).expect("written");
    wait_until("the repaired registry counts", false, || connects(third.1));

    // A link in the place of the file, and the file behind it.
    let real = home.path("real.json");
    fs::write(&real, &more).expect("written");
    symlink(&real, folder.join("link")).expect("a link");
    fs::rename(folder.join("link"), &file).expect("renamed");
    wait_until("behind a link", true, || connects(third.1));
    fs::write(&real, &text).expect("written");
    wait_until("written behind a link", false, || connects(third.1));
    both_are_served("a link");

    // A folder is no registry.
    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("made");
    let warning = format!("{} ", file.display());
    all.wait_for_count("what was served before still is", 1);
    both_are_served(&warning);
    fs::remove_dir(&file).expect("removed");
    comes_and_goes("the registry was a folder");
    all.stop();
}

#[test]
fn it_stays_up_without_a_registry_and_follows_its_creation() {
    let home = Home::new();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("0 projects; `ic allocate` in the folder of a project adds one\n");
    let port = free_port();
    let shown = home.ic([
        "allocate",
        "-q",
        "--port-min",
        &port.to_string(),
        "--port-max",
        "65000",
    ]);
    assert_eq!(shown.exit, Some(0), "{shown:?}");
    let port: u16 = shown.out.trim().parse().expect("a port");
    wait_until("the first project", Some("pycharm-shop".to_owned()), || {
        identity_on(port)
    });
    home.ic(["reset", "--yes"]);
    wait_until("none is left", false, || connects(port));
    all.wait_for_count("0 projects; ", 2);
    all.stop();
}

#[test]
fn a_registry_that_cannot_be_read_at_the_start_is_an_error() {
    let home = Home::new();
    fs::create_dir_all(home.registry()).expect("a folder");
    let said = home.ic(["serve", "--all", "--mock"]).complaint(3);
    assert!(said.contains("a folder"), "{said}");
}

#[test]
fn one_runs_for_a_registry_at_a_time() {
    let (home, _) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let said = home.ic(["serve", "--all"]).complaint(3);
    let expected = format!(
        "`ic serve --all` is already running for this registry (pid {}); ",
        all.pid()
    );
    assert!(said.starts_with(&expected), "{said}");
    let other = home.path("other.json");
    let other = All::start(
        &home,
        &["--registry", other.to_str().expect("UTF-8"), "--mock"],
    );
    other.wait_for("0 projects; ");
    other.stop();
    all.stop();
}

#[test]
fn a_port_that_something_holds_is_warned_of_once_and_taken_when_it_is_free() {
    let (home, [_, web]) = home_with_two();
    let (listener, held) = held_port();
    let (shop, web_path) = (home.path("shop"), home.path("web"));
    let home = home.with_mappings(&[(&shop, held), (&web_path, web)], held);
    let all = All::start(&home, &["--mock"]);
    let start = format!(
        "ic: warning: `{}` is not served: port {held} is in use",
        shop.display()
    );
    let said = all.wait_for(&start);
    let by = match tells_who_listens() {
        true => format!(
            " (pid {}); it is served when that ends, or after ",
            std::process::id()
        ),
        false => String::new(),
    };
    assert!(said.contains(&by), "{said}");
    home.ic(["set", "../web", "--header", "a: b"]);
    all.wait_for_count("  web  → ", 2);
    let status = home.ic(["status", "--json"]).json(0);
    if tells_who_listens() {
        assert_eq!(status["held"][0]["port"], held, "{status}");
    }
    drop(listener);
    let since = Instant::now();
    wait_until("it is taken", Some("pycharm-shop".to_owned()), || {
        identity_on(held)
    });
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    let said = all.wait_for(&format!("{held}  shop  → "));
    assert_eq!(said.matches(" is in use").count(), 1, "{said}");
    all.stop();
}

#[test]
fn an_interceptor_of_the_project_itself_is_given_the_port() {
    let (home, [shop, web]) = home_with_two();
    let own = |home: &Home| Serving::start(home, &["--instance-id", "own"]);
    // One that runs already keeps the port.
    let first = own(&home);
    let all = All::start(&home, &["--mock"]);
    let line = format!("{shop}  shop  is served by an `ic serve` of its own\n");
    all.wait_for("2 projects, 1 of them served\n");
    if tells_who_listens() {
        all.wait_for(&line);
    }
    assert_eq!(served_by(shop).as_deref(), Some("serve"));
    first.stop();
    let since = Instant::now();
    wait_until("taken", Some("all".to_owned()), || served_by(shop));
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    all.wait_for(&format!("{shop}  shop  → "));

    // One that is started later gets it.
    let said = all.said();
    let second = own(&home);
    assert_eq!(identity_on(shop).as_deref(), Some("own"));
    assert_eq!(served_by(shop).as_deref(), Some("serve"));
    all.wait_for_count(&line, said.matches(&line).count() + 1);
    assert_eq!(served_by(web).as_deref(), Some("all"));
    // A change does not take it back.
    home.ic(["set", "--header", "a: b"]);
    home.ic(["set", "../web", "--header", "a: b"]);
    all.wait_for_count("  web  → ", 2);
    assert_eq!(identity_on(shop).as_deref(), Some("own"));
    // Killed, not stopped.
    drop(second);
    let since = Instant::now();
    wait_until("taken back", Some("all".to_owned()), || served_by(shop));
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    all.stop();
}

#[test]
fn a_project_whose_target_is_its_own_port_is_named_and_not_served() {
    let (home, [shop, web]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    home.ic(["set", "--target", &format!("http://localhost:{shop}/v1")]);
    all.wait_for(&format!(
        "ic: warning: `{}` is not served on port {shop}: its target http://localhost:{shop}/v1 is its own port; ",
        home.path("shop").display()
    ));
    wait_until("it is not served", false, || connects(shop));
    assert!(connects(web));
    home.ic(["set", "--unset", "target"]);
    wait_until("it is served again", true, || connects(shop));
    all.stop();
}

#[test]
fn the_last_use_is_recorded_only_for_projects_that_had_requests() {
    let (home, [shop, _]) = home_with_two();
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let mut client = Conn::connect("client", at(shop));
    client.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response("GET");
    drop(client);
    all.stop();
    let listed = home.ic(["list", "--json"]).json(0);
    let mappings = listed["mappings"].as_array().expect("a list");
    for mapping in mappings {
        let is_used = mapping["project"] == "shop";
        assert_eq!(mapping["last_used"].is_u64(), is_used, "{mapping}");
    }
}

#[test]
fn its_listening_alone_is_no_use_of_a_port() {
    let (home, [shop, web]) = home_with_two();
    let text = fs::read_to_string(home.registry()).expect("a registry");
    let mut registry: Value = serde_json::from_str(&text).expect("JSON");
    let (shop_path, web_path) = (home.path("shop"), home.path("web"));
    registry["ic"] = json!({ "projects": {
        shop_path.to_str().expect("UTF-8"): {"last_used": 1_000_000_000},
        web_path.to_str().expect("UTF-8"): {"last_used": 1_000_000_000},
    }});
    fs::write(home.registry(), registry.to_string()).expect("written");
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    let pruned = home.ic(["prune", "--unused-for", "30d", "--json"]).json(0);
    assert_eq!(
        pruned["removed"].as_array().map(Vec::len),
        Some(2),
        "{pruned}"
    );
    for port in [shop, web] {
        wait_until("it is not served", false, || connects(port));
    }
    all.stop();
}

#[test]
fn a_registry_that_cannot_be_written_is_served() {
    let (home, [shop, _]) = home_with_two();
    let folder = home.registry().parent().expect("it has one").to_owned();
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode));
    mode(0o555).expect("changed");
    let all = All::start(&home, &["--mock"]);
    all.wait_for("2 projects\n");
    assert_eq!(identity_on(shop).as_deref(), Some("pycharm-shop"));
    all.stop();
    mode(0o755).expect("changed");
}

#[test]
fn another_users_registry_is_served_and_a_privileged_port_is_named() {
    let free = free_port();
    let home = Home::new();
    let (shop, web) = (home.path("shop"), home.folder("web"));
    let home = home.with_mappings(&[(&shop, 80), (&web, free)], 8888);
    let Some(_) = unprivileged(&home, &["--version"]) else {
        return;
    };
    let is_root = rustix::process::geteuid().is_root();
    let unprivileged_start = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let is_privileged = fs::read_to_string(unprivileged_start).is_ok_and(|it| it.trim() == "1024");
    if !is_root || !is_privileged {
        return eprintln!(
            "skipped: only root can run ic as another user, and 80 must be privileged"
        );
    }
    // Other users may enter and read, and not write.
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(home.path(""), readable).expect("changed");
    let ic = home.command(["serve", "--all", "--mock"]);
    let options = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let all = All::of(setpriv(&options, &ic));
    all.wait_for("2 projects, 1 of them served\n");
    let path = shop.display();
    all.wait_for(&format!(
        "ic: warning: `{path}` is not served: cannot listen on port 80: permission denied; `ic remove {path}` and \
         `ic allocate {path}` give it a port of 1024 or above\n"
    ));
    assert_eq!(identity_on(free).as_deref(), Some("pycharm-web"));
    all.stop();
}

#[test]
fn a_supervisor_is_notified_when_the_projects_are_served_and_at_the_stop() {
    let (home, [shop, _]) = home_with_two();
    let path = scratch_socket();
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("a time limit");
    let home = home.with("NOTIFY_SOCKET", &path);
    let next = || {
        let mut message = [0; 64];
        let len = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let all = All::start(&home, &["--mock"]);
    assert_eq!(next(), "READY=1");
    assert!(connects(shop));
    home.ic(["set", "--header", "a: b"]);
    all.wait_for_count("  shop  → ", 2);
    all.stop();
    assert_eq!(next(), "STOPPING=1");
    fs::remove_file(path).expect("removed");
}

#[test]
fn other_machines_are_warned_of_once() {
    let home = Home::new();
    // Nothing is listened on: there is no project.
    let all = All::start(&home, &["--mock", "--host", "0.0.0.0"]);
    let said = all.wait_for("0 projects; ");
    assert_eq!(
        said.matches("listens beyond this machine").count(),
        1,
        "{said}"
    );
    all.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn where_descriptors_are_few_as_many_projects_as_fit_are_served_and_the_rest_named() {
    let home = Home::new();
    let ports = 12_000..14_000;
    let projects: Vec<_> = ports
        .clone()
        .map(|port| (home.folder(format!("many/p{port}")), port))
        .collect();
    let mappings: Vec<(&Path, u16)> = projects
        .iter()
        .map(|(path, port)| (&**path, *port))
        .collect();
    let home = home.with_mappings(&mappings, 12_000);
    let ic = home.command(["serve", "--all", "--mock"]);
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -n 1024 && exec \"$@\"", "sh"])
        .arg(ic.get_program())
        .args(ic.get_args())
        .env_clear()
        .envs(
            ic.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(home.path("shop"));
    let all = All::of(limited);
    let said = all.wait_for("ic: warning: no descriptors are left for ");
    let served = said.matches("  → http://").count();
    assert!((300..512).contains(&served), "{served} are served");
    assert!(said.contains(&format!("2000 projects, {served} of them served\n")));
    for (path, port) in &projects {
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        let line = |what: &str| said.contains(&format!("{port}  {name}  {what}"));
        let is_held = said.contains(&format!("port {port} is in use"));
        let is_named = line("is not served: no descriptors are left");
        let found = [line("→ http://"), is_named, is_held];
        assert_eq!(
            found.iter().filter(|it| **it).count(),
            1,
            "{name}: {found:?}"
        );
    }
    // A request finds a descriptor.
    let first = said
        .lines()
        .find(|line| line.contains("  → http://"))
        .expect("one is served");
    let port: u16 = first
        .split(' ')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let mut client = Conn::connect("client", at(port));
    client.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    all.stop();
}
