//! `ic set`: what it keeps, where that is used, and what is shown of secrets.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::cli_home::{Home, Serving, free_port};
use crate::support::{Conn, Origin, Request};

/// A home whose project `shop`, the current folder, has a free port.
fn home_with_port() -> (Home, u16) {
    let (home, port) = (Home::new(), free_port());
    let shop = home.path("shop");
    (home.with_mappings(&[(&shop, port)], port), port)
}

/// What the target of `ic serve` receives; the options and variables are those of `ic serve`.
#[track_caller]
fn forwarded(
    home: &Home,
    port: u16,
    origin: &Origin,
    options: &[&str],
    variables: &[(&str, &str)],
) -> Request {
    let mut command = home.command([&["serve"], options].concat());
    let serving = Serving::of({
        command.envs(variables.iter().copied());
        command
    });
    origin.forget();
    let mut client = Conn::connect("client", SocketAddr::from(([127, 0, 0, 1], port)));
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    serving.stop();
    origin.requests().remove(0)
}

#[test]
fn settings_are_used_where_options_and_variables_are_missing() {
    let (home, port) = home_with_port();
    let (kept, other) = (Origin::agreeing(), Origin::agreeing());
    home.ic([
        "set",
        "--target",
        &kept.url(),
        "--instance-id",
        "kept-{project}",
        "--header",
        "x-team: blue",
        "--header",
        "authorization: Bearer {env:SHOP_KEY}",
        "--header",
        "x-port: {port}",
    ])
    .result(0);
    let key = ("SHOP_KEY", "sk-1");
    let check = |seen: &Request, id: &str, team: &str| {
        assert_eq!(seen.fields.one("x-memory-user-id"), Some(id));
        assert_eq!(seen.fields.one("x-pycharm-instance"), Some(id));
        assert_eq!(seen.fields.all("x-team"), [team]);
        assert_eq!(seen.fields.one("authorization"), Some("Bearer sk-1"));
        assert_eq!(seen.fields.one("x-port"), Some(&port.to_string()[..]));
    };
    check(
        &forwarded(&home, port, &kept, &[], &[key]),
        "kept-shop",
        "blue",
    );

    let url = other.url();
    let variables = [
        key,
        ("SUPERMEMORY_USERNAME", "variable"),
        ("TARGET_LLM_URL", &url),
    ];
    check(
        &forwarded(&home, port, &other, &[], &variables),
        "variable",
        "blue",
    );

    let flags = [
        "--target",
        &url,
        "--instance-id",
        "flag",
        "--header",
        "X_Team: red",
    ];
    let variables = [
        key,
        ("SUPERMEMORY_USERNAME", "variable"),
        ("TARGET_LLM_URL", "http://localhost:1"),
    ];
    let seen = forwarded(&home, port, &other, &flags, &variables);
    assert_eq!(seen.fields.one("x-memory-user-id"), Some("flag"));
    assert_eq!(
        seen.fields.all("x_team"),
        ["red"],
        "in place of the kept one"
    );
    assert!(!seen.fields.has("x-team"));
    assert_eq!(seen.fields.one("authorization"), Some("Bearer sk-1"));

    let empty = [key, ("SUPERMEMORY_USERNAME", ""), ("TARGET_LLM_URL", "")];
    check(
        &forwarded(&home, port, &kept, &[], &empty),
        "kept-shop",
        "blue",
    );

    let line = home.ic(["serve"]).complaint(2);
    assert!(
        line.starts_with(
            "the field `authorization` needs the variable SHOP_KEY, which is not set; "
        ),
        "{line}"
    );

    let program = env!("CARGO_BIN_EXE_ic");
    let home = home.with("SHOP_KEY", "sk-1");
    let ran = home.ic(["run", "--", program, "health", "--json"]);
    // Requests to the pages of `ic` itself do not count.
    let health = ran.of_unused_run().json(0);
    assert_eq!(health["instance_id"], "kept-shop", "{health}");
}

#[test]
fn set_shows_changes_and_removes_settings() {
    let (home, _) = home_with_port();
    let shop = home.path("shop");
    let document = |target: Value, instance_id: Value, headers: &[(&str, &str)]| {
        let headers = headers
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}));
        let headers: Vec<Value> = headers.collect();
        json!({"project": "shop", "path": shop, "target": target, "instance_id": instance_id, "headers": headers})
    };
    let set = |arguments: &[&str]| {
        let changed = home.ic([&["set", "--json"], arguments].concat()).json(0);
        assert_eq!(home.ic(["set", "--json"]).json(0), changed, "it is kept");
        let shown = home.ic(["show", "--json"]).json(0);
        for member in ["target", "instance_id", "headers"] {
            assert_eq!(shown["settings"][member], changed[member]);
        }
        changed
    };
    let none = document(Value::Null, Value::Null, &[]);
    assert_eq!(set(&[]), none);
    let changed = set(&[
        "--target",
        "http://localhost:4000",
        "--header",
        "a: 1",
        "--header",
        "b: 2",
    ]);
    let target = json!("http://localhost:4000");
    assert_eq!(
        changed,
        document(target.clone(), Value::Null, &[("a", "1"), ("b", "2")])
    );
    let changed = set(&["--instance-id", "{user}-{project}", "--header", "A: {port}"]);
    let id = json!("{user}-{project}");
    assert_eq!(
        changed,
        document(target.clone(), id.clone(), &[("b", "2"), ("A", "{port}")])
    );
    let changed = set(&[
        "--unset",
        "header:B",
        "--unset",
        "header:none",
        "--unset",
        "target",
    ]);
    assert_eq!(
        changed,
        document(Value::Null, id.clone(), &[("A", "{port}")])
    );
    let changed = set(&["--unset", "header", "--header", "c: 3"]);
    assert_eq!(
        changed,
        document(Value::Null, id, &[("c", "3")]),
        "unset comes first"
    );

    let port = home.ic(["show", "-q"]).result(0);
    let text = format!(
        "Project: shop\nPath:    {}\nPort:    {port}",
        shop.display()
    );
    let settings = "Id:      {user}-{project}\nHeader:  c: 3\n";
    assert_eq!(home.ic(["set"]).result(0), format!("{text}{settings}"));
    let shown = home.ic(["show"]).result(0);
    assert_eq!(shown, format!("{text}{settings}Status:  Available\n"));

    assert_eq!(set(&["--unset", "instance-id", "--unset", "header"]), none);
    assert!(
        !fs::read_to_string(home.registry())
            .expect("it exists")
            .contains("settings")
    );
    assert_eq!(
        home.ic(["set"]).result(0),
        format!("{text}\nNo settings are kept\n")
    );
}

#[test]
fn set_gives_a_project_without_a_port_one_only_if_it_keeps_something() {
    let port = free_port().to_string();
    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", &port)
        .with("INTERCEPTOR_PORT_MAX", &port);
    let before = home.content();
    for arguments in [&["set", "--json"][..], &["set"]] {
        home.ic(arguments).result(0);
    }
    assert_eq!(home.content(), before);
    home.ic(["set", "--unset", "target"]).result(0);
    assert_eq!(home.ic(["list", "--json"]).json(0)["mappings"], json!([]));
    home.ic(["set", "--target", "http://localhost:4000"])
        .result(0);
    assert_eq!(home.ic(["show", "-q"]).result(0), format!("{port}\n"));
    let other = home.folder("other");
    let line = home
        .ic(["set", other.to_str().unwrap(), "--header", "a: b"])
        .complaint(3);
    assert!(line.contains("INTERCEPTOR_PORT_MAX"), "{line}");
}

#[test]
fn a_value_that_ic_serve_would_refuse_is_refused_and_changes_nothing() {
    let (home, _) = home_with_port();
    let before = home.content();
    for (arguments, start) in [
        (["--target", "localhost"], "`--target localhost` "),
        (["--target", ""], "`--target ` is empty"),
        (
            ["--instance-id", "{x}"],
            "`--instance-id {x}` contains the unknown placeholder `{x}`",
        ),
        (
            ["--instance-id", "{env:HOME}"],
            "`--instance-id {env:HOME}` contains the unknown placeholder",
        ),
        (["--instance-id", "a\nb"], "`--instance-id a"),
        (["--header", "Host: a"], "`--header Host:…` cannot be set"),
        (
            ["--header", "a: {x}"],
            "`--header a:…` contains the unknown placeholder `{x}`",
        ),
        (
            ["--unset", "port"],
            "`--unset port` is not a setting; give target, ",
        ),
        (["--unset", "header:"], "`--unset header:` is not a setting"),
    ] {
        let ran = home.ic([&["set"], &arguments[..]].concat());
        assert_eq!((ran.exit, &ran.out[..]), (Some(2), ""), "{ran:?}");
        assert!(ran.err.starts_with(&format!("ic: {start}")), "{ran:?}");
    }
    assert_eq!(home.content(), before);
}

#[test]
fn a_literal_secret_is_warned_of_and_shown_nowhere_but_in_an_export() {
    let (home, _) = home_with_port();
    let ran = home.ic([
        "set",
        "--header",
        "authorization: Bearer sk-secret-1",
        "--header",
        "x-api-key: {env:KEY}",
    ]);
    assert_eq!(ran.exit, Some(0));
    assert!(
        ran.err
            .starts_with("ic: warning: the field `authorization` holds a secret, "),
        "{ran:?}"
    );
    assert!(
        ran.out
            .contains("Header:  authorization: …\nHeader:  x-api-key: {env:KEY}\n"),
        "{ran:?}"
    );
    for arguments in [
        &["set"][..],
        &["set", "--json"],
        &["show"],
        &["show", "--json"],
        &["list"],
        &["list", "--json"],
        &["serve"],
        &["set", "--header", "authorization: Bearer sk-secret-2\u{7}"],
        &["set", "--header", "x: y"],
    ] {
        let ran = home.ic(arguments);
        assert!(!format!("{ran:?}").contains("sk-secret"), "{ran:?}");
    }
    let export = home.ic(["export"]).result(0);
    assert!(export.contains("Bearer sk-secret-1"), "{export}");

    let other = Home::new();
    fs::write(other.path("ports.json"), export).expect("a file");
    other
        .ic(["import", other.path("ports.json").to_str().unwrap()])
        .result(0);
    assert_eq!(
        other
            .ic(["show", home.path("shop").to_str().unwrap(), "--json"])
            .json(0)["settings"],
        json!({"target": null, "instance_id": null, "headers": [
            {"name": "authorization", "value": "…"},
            {"name": "x-api-key", "value": "{env:KEY}"},
            {"name": "x", "value": "y"},
        ]})
    );
}

#[test]
fn settings_that_do_not_parse_are_named_and_the_project_is_served_with_defaults() {
    let (home, port) = home_with_port();
    let origin = Origin::agreeing();
    for (settings, why) in [
        (json!(5), "they do not have the form that `ic set` writes"),
        (
            json!({"target": ["http://x"]}),
            "they do not have the form that `ic set` writes",
        ),
        (json!({"target": "x"}), "`ic set --target x` "),
        (
            json!({"instance_id": "{x}"}),
            "`ic set --instance-id {x}` contains the unknown placeholder",
        ),
        (json!({"instance_id": "a\nb"}), "`ic set --instance-id a"),
        (
            json!({"instance_id": "kept", "headers": [{"name": "Host", "value": "sk-1"}]}),
            "`ic set --header Host:…` cannot",
        ),
    ] {
        let shop = home.path("shop");
        let registry = json!({
            "mappings": {shop.to_str().unwrap(): port},
            "ic": {"projects": {shop.to_str().unwrap(): {"settings": settings}}},
        });
        fs::write(home.registry(), registry.to_string()).expect("a file");
        let ran = home.ic(["show", "--json"]);
        assert_eq!(ran.exit, Some(0));
        let start = format!(
            "ic: warning: the settings of `{}` in the registry are not used: {why}",
            shop.display()
        );
        assert!(
            ran.err.starts_with(&start) && ran.err.contains("; `ic set --unset target "),
            "{ran:?}"
        );
        assert!(!ran.err.contains("sk-1"), "{ran:?}");
        let seen = forwarded(&home, port, &origin, &["--target", &origin.url()], &[]);
        assert_eq!(seen.fields.one("x-memory-user-id"), Some("pycharm-shop"));
    }
    home.ic([
        "set",
        "--unset",
        "target",
        "--unset",
        "instance-id",
        "--unset",
        "header",
    ])
    .result(0);
    home.ic(["show", "--json"]).json(0);
}

#[test]
fn settings_are_not_used_where_the_registry_is_not_read() {
    let (home, _) = home_with_port();
    home.ic(["set", "--instance-id", "kept"]).result(0);
    let program = env!("CARGO_BIN_EXE_ic");
    let port = free_port().to_string();
    let ran = home.ic([
        "run", "--mock", "--port", &port, "--", program, "health", &port, "--json",
    ]);
    assert_eq!(ran.of_unused_run().json(0)["instance_id"], "pycharm-shop");
}

#[test]
fn move_gives_everything_of_a_project_to_its_new_folder() {
    let port = free_port();
    let home = Home::new();
    let (shop, store) = (home.path("shop"), home.path("store"));
    let note = json!({
        "pinned": true, "last_used": 1_800_000_000, "theirs": [1],
        "settings": {"target": "http://x", "headers": [{"name": "a", "value": "b"}], "later": 2},
    });
    let registry = |path: &std::path::Path| {
        let path = path.to_str().unwrap();
        json!({"version": "1.0", "mappings": {"/before": 1, path: port, "/after": 2}, "theirs": 3,
               "ic": {"projects": {path: note}}, "next_available": 8888})
    };
    let home = home.with_registry(registry(&shop).to_string());
    let home = home.inside("/");
    let read = || {
        let text = fs::read(home.registry()).expect("it exists");
        serde_json::from_slice::<Value>(&text).expect("JSON")
    };
    let mut expected = registry(&store);
    expected["port_range"] = json!({"start": 8888, "end": 9999});

    fs::rename(&shop, &store).expect("it can be renamed");
    let moved = home.ic([
        "move",
        shop.to_str().unwrap(),
        store.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(
        moved.json(0),
        json!({"from": shop, "to": store, "port": port})
    );
    assert_eq!(read(), expected);
    let order: Vec<String> = read()["mappings"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(order[1], store.to_str().unwrap(), "in its place");

    fs::rename(&store, &shop).expect("it can be renamed");
    // A link that is left behind.
    std::os::unix::fs::symlink(&shop, &store).expect("a link");
    let moved = home
        .ic(["move", store.to_str().unwrap(), shop.to_str().unwrap()])
        .result(0);
    let text = format!(
        "✓ Moved port {port} to project: shop\n  From: {}\n  To:   {}\n",
        store.display(),
        shop.display()
    );
    assert_eq!(moved, text);
    assert_eq!(
        home.ic(["show", shop.to_str().unwrap(), "-q"]).result(0),
        format!("{port}\n")
    );

    let before = home.content();
    let same = home.ic([
        "move",
        shop.to_str().unwrap(),
        shop.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(same.json(0)["port"], port);
    assert_eq!(home.content(), before);
}

#[test]
fn move_refuses_a_folder_that_has_no_port_or_another_one() {
    let (home, port) = home_with_port();
    let (shop, store) = (home.path("shop"), home.folder("store"));
    let before = home.content();
    let line = home.ic(["move", "../store", "../shop"]).complaint(1);
    assert_eq!(
        line,
        format!(
            "no port is assigned to `{}`; `ic list` shows what is assigned",
            store.display()
        )
    );
    assert_eq!(home.content(), before);

    let other = free_port().to_string();
    let home = home
        .with("INTERCEPTOR_PORT_MIN", &other)
        .with("INTERCEPTOR_PORT_MAX", &other);
    home.ic(["allocate", "../store"]).result(0);
    let before = home.content();
    let line = home.ic(["move", "../shop", "../store"]).complaint(1);
    let expected = format!(
        "`{}` has port {other} already; `ic remove {0}` frees that, ",
        store.display()
    );
    assert!(line.starts_with(&expected), "{line}");
    assert_eq!(home.content(), before);

    fs::write(home.path("file"), "").expect("a file");
    for (old, new, exit) in [
        ("../shop", "../file", 2),
        ("", "../a", 2),
        ("../shop", "", 2),
    ] {
        home.ic(["move", old, new]).complaint(exit);
        assert_eq!(home.content().len(), before.len() + 1);
    }
    let ran = home.ic(["move", ".", "../later"]);
    assert_eq!(ran.exit, Some(0));
    assert!(ran.err.starts_with("ic: note: the folder `"), "{ran:?}");
    let later = home.path("later");
    let later = later.to_str().unwrap();
    assert_eq!(
        home.ic(["show", "-q", later]).result(0),
        format!("{port}\n")
    );
    assert_eq!(home.ic(["show", shop.to_str().unwrap()]).exit, Some(1));
}

#[test]
fn two_projects_with_one_instance_id_are_warned_of_with_the_way_out() {
    let home = Home::new();
    let (here, there) = (home.folder("a/api"), home.folder("b/api"));
    let ports = [free_port(), free_port()];
    let home = home
        .with_mappings(&[(&here, ports[0]), (&there, ports[1])], ports[0])
        .inside(&there);
    let warning = format!(
        "`{}` and `{}` both send the instance id `pycharm-api`, so that the target cannot tell them apart; `ic set \
         --instance-id 'pycharm-{{parent}}-{{project}}'` gives it another one",
        there.display(),
        here.display(),
    );
    let warned = |home: &Home, arguments: &[&str]| home.ic(arguments).err;
    let allocate = &["allocate", "-q"][..];
    assert_eq!(warned(&home, allocate), format!("ic: warning: {warning}\n"));
    let run = &["run", "--mock", "--", "true"][..];
    assert_eq!(
        home.ic(run).of_unused_run().err,
        format!("ic: warning: {warning}\n")
    );
    // It is refused after the warning.
    let serve = &["serve", "--target", "x"][..];
    assert!(warned(&home, serve).contains(&warning));
    let doctor = home.ic(["doctor", "--no-stream", "--json"]);
    assert_eq!(doctor.exit, Some(1));
    let finding = json!({"check": "Identity", "verdict": "wrong", "message": warning}).to_string();
    assert!(doctor.out.contains(&finding), "{doctor:?}");

    let with = |template: &str| {
        let home = Home::new();
        let (one, two) = (home.folder("a/api"), home.folder("b/api"));
        let home = home
            .with_mappings(&[(&one, ports[0]), (&two, ports[1])], ports[0])
            .inside(&two);
        home.with("SUPERMEMORY_USERNAME", template)
    };
    let said = warned(&with("me-{project}"), allocate);
    assert!(
        said.ends_with("; put `{parent}` into `SUPERMEMORY_USERNAME=me-{project}`\n"),
        "{said}"
    );
    for distinct in [
        "me-{parent}-{project}",
        "{port}",
        "the same for all, as it was given",
    ] {
        assert_eq!(warned(&with(distinct), allocate), "", "{distinct}");
    }

    // The way out is one.
    home.ic(["set", "--instance-id", "pycharm-{parent}-{project}"])
        .result(0);
    assert_eq!(warned(&home, allocate), "");
    home.ic(["set", "--instance-id", "me"]).result(0);
    home.ic(["set", "--instance-id", "me", here.to_str().unwrap()])
        .result(0);
    assert!(warned(&home, allocate).contains("both send the instance id `me`"));
    fs::remove_dir(&here).expect("it is empty");
    assert_eq!(
        warned(&home, allocate),
        "",
        "a deleted project sends nothing"
    );
}
