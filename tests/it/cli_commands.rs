//! Commands on the registry: text output, JSON output and exit codes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli_home::{Home, Ran, Serving, free_port, held_port, unprivileged};
use crate::support::tells_who_listens;

#[test]
fn list_prints_the_registry_in_the_documented_format() {
    let (_listener, held) = held_port();
    let (free, next) = (free_port(), free_port());
    let home = Home::new();
    let (litellm, other) = (home.path("litellm"), home.path("other-project"));
    let home = home.with_mappings(&[(&other, held), (&litellm, free)], next);
    let next = next.to_string();
    let range = ["--port-min", &next, "--port-max", &next];
    let mut list = range.to_vec();
    list.push("list");
    let expected = format!(
        "\
================================================================================
Port Registry Information
================================================================================
Registry File:    {registry}
Port Range:       {next}-{next}
Total Ports:      1
Allocated Ports:  2 (2 outside the range)
Available Ports:  1
Next Available:   {next}
================================================================================

Project Mappings (2):
--------------------------------------------------------------------------------
  Port {free}          ✓  →  litellm
             {litellm}
  Port {held}    ⚠ IN USE  →  other-project
             {other}
",
        registry = home.registry().display(),
        litellm = litellm.display(),
        other = other.display(),
    );
    assert!(free < held, "sorted by port: {free} {held}");
    assert_eq!(home.ic(&list).result(0), expected);
    list.push("--json");
    let next: u16 = next.parse().expect("a port");
    assert_eq!(
        home.ic(&list).json(0),
        json!({
            "registry_file": home.registry(),
            "port_range": {"start": next, "end": next},
            "total_ports": 1,
            "allocated_ports": 2,
            "available_ports": 1,
            "next_available": next,
            "mappings": [
                {"project": "litellm", "path": litellm, "port": free, "available": true,
                 "state": "free", "pinned": false, "last_used": null},
                {"project": "other-project", "path": other, "port": held, "available": false,
                 "state": "in_use", "pinned": false, "last_used": null},
            ],
        })
    );
}

#[test]
fn list_and_show_have_the_same_facts_of_a_project() {
    let (_listener, held) = held_port();
    let text = json!({
        "mappings": {"/p/held": held, "/p/low": 1, "/p/free": free_port()},
        "ic": {"projects": {"/p/held": {"pinned": true, "last_used": 1_800_000_000}, "/p/low": {"last_used": 7}}},
    });
    let home = Home::new().with_registry(text.to_string());
    let facts = |document: &Value| {
        ["available", "state", "pinned", "last_used"].map(|member| document[member].clone())
    };
    let check = |run: &dyn Fn(&[&str]) -> Ran, path: &str, expected: Value| {
        let listed = run(&["list", "--json"]).json(0);
        let listed = listed["mappings"].as_array().expect("a list");
        let listed = listed.iter().find(|mapping| mapping["path"] == path);
        let mut listed = listed.expect("it is listed").clone();
        assert_eq!(json!(facts(&listed)), expected, "{path}");
        // Only `show` has them.
        listed["settings"] = json!({"target": null, "instance_id": null, "headers": []});
        assert_eq!(&run(&["show", "--json", path]).json(0), &listed);
    };
    let run = |arguments: &[&str]| home.ic(arguments);
    check(
        &run,
        "/p/held",
        json!([false, "in_use", true, 1_800_000_000]),
    );
    check(&run, "/p/free", json!([true, "free", false, null]));
    let as_other_user = |arguments: &[&str]| unprivileged(&home, arguments).expect("as before");
    std::fs::set_permissions(home.path(""), std::fs::Permissions::from_mode(0o755)).expect("mine");
    let low = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if low.is_ok_and(|low| low.trim() != "0") && unprivileged(&home, &["--version"]).is_some() {
        check(&as_other_user, "/p/low", json!([false, "denied", false, 7]));
    }
}

#[test]
fn list_counts_ports_within_the_range() {
    let home = Home::new().with_mappings(
        &[
            (Path::new("/home/me/a"), 8888),
            (Path::new("/home/me/b"), 8889),
            (Path::new("/home/me/c"), 8890),
            (Path::new("/home/me/outside"), 100),
        ],
        8891,
    );
    let listed = home.ic(["list", "--json"]).json(0);
    // A mapping outside the range does not reduce the available ports of the range.
    assert_eq!(
        (
            &listed["total_ports"],
            &listed["allocated_ports"],
            &listed["available_ports"]
        ),
        (&json!(1112), &json!(4), &json!(1109))
    );
    assert!(listed["next_available"].as_u64() >= Some(8891), "{listed}");
    let text = home.ic(["list"]).result(0);
    assert!(
        text.contains("\nAllocated Ports:  4 (1 outside the range)\nAvailable Ports:  1109\n"),
        "{text}"
    );
    assert!(
        text.contains("\n  Port   100 "),
        "ports are aligned to the right: {text}"
    );
    assert!(text.contains("\n  Port  8888 "), "{text}");
}

#[test]
fn list_works_without_a_registry() {
    let home = Home::new();
    let text = home.ic(["list"]).result(0);
    let registry = home.registry();
    assert!(
        text.contains(&format!("\nRegistry File:    {}\n", registry.display())),
        "{text}"
    );
    assert!(text.ends_with("\n\nNo project mappings found.\n"), "{text}");
    let listed = home.ic(["list", "--json"]).json(0);
    assert_eq!(listed["mappings"], json!([]));
    assert_eq!(listed["available_ports"], json!(1112));
}

#[test]
fn allocate_assigns_one_port_to_a_project() {
    let port = free_port();
    let text = port.to_string();
    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", &text)
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string());
    let path = home.path("shop");
    let head = |port: u16| {
        format!(
            "Project: shop\nPath:    {}\nPort:    {port}\n",
            path.display()
        )
    };
    let first = home.ic(["allocate"]).result(0);
    let given: u16 = home
        .ic(["show", "-q"])
        .result(0)
        .trim()
        .parse()
        .expect("a bare port");
    assert!((port..=port + 500).contains(&given));
    assert_eq!(
        first,
        format!("{}\n✓ Port allocated successfully\n", head(given))
    );
    let again = home.ic(["allocate"]).result(0);
    assert_eq!(
        again,
        format!("{}\n✓ Port was allocated already\n", head(given))
    );
    assert_eq!(home.ic(["allocate", "-q"]).result(0), format!("{given}\n"));
    assert_eq!(
        home.ic(["allocate", "--json"]).json(0),
        json!({"project": "shop", "path": path, "port": given, "created": false})
    );
    assert_eq!(
        home.ic(["show"]).result(0),
        format!("{}Status:  Available\n", head(given))
    );
    assert_eq!(
        home.ic(["show", "--json"]).json(0),
        json!({"project": "shop", "path": path, "port": given, "available": true,
               "state": "free", "pinned": false, "last_used": null,
               "settings": {"target": null, "instance_id": null, "headers": []}})
    );

    let other = home.folder("other");
    let other_text = other.to_str().expect("UTF-8");
    let created = home.ic(["allocate", "--json", other_text]).json(0);
    assert_eq!(created["created"], json!(true));
    assert_ne!(created["port"], json!(given));

    // A project keeps its port, even outside of the current range.
    let home = home
        .with("INTERCEPTOR_PORT_MIN", "1")
        .with("INTERCEPTOR_PORT_MAX", "2");
    assert_eq!(home.ic(["allocate", "-q"]).result(0), format!("{given}\n"));
}

#[test]
fn allocate_needs_a_folder() {
    let home = Home::new();
    let (file, missing) = (home.path("shop/notes.txt"), home.path("shpo"));
    std::fs::write(&file, "").expect("a file");
    let said = home.ic(["allocate", "notes.txt"]).complaint(2);
    assert_eq!(
        said,
        format!(
            "`{}` is not a folder; give the project's folder",
            file.display()
        )
    );
    for command in [
        "serve --mock --project notes.txt",
        "run --mock --project notes.txt -- true",
    ] {
        let refused = home.ic(command.split(' ')).complaint(2);
        assert_eq!(refused, said, "{command}");
    }
    assert!(!home.registry().exists());
    // The folder may not exist yet, or no longer.
    let ran = home.ic(["allocate", "-q", "../shpo"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert_eq!(
        ran.err,
        format!(
            "ic: note: the folder `{}` does not exist; if that is a mistake, `ic remove {}` removes the mapping\n",
            missing.display(),
            missing.display()
        )
    );
    assert_eq!(home.ic(["allocate", "-q", "../shpo"]).result(0), ran.out);
    let ran = home.ic(["run", "--mock", "--project", "../shpp", "--", "true"]);
    assert!(ran.err.starts_with("ic: note: the folder `"), "{ran:?}");
}

#[test]
fn a_project_without_a_port_is_exit_code_1() {
    let home = Home::new();
    let path = home.path("shop");
    let shown = path.display();
    let no_port = format!("no port is assigned to `{shown}`; `ic allocate` assigns one");
    assert_eq!(home.ic(["show"]).complaint(1), no_port);
    assert_eq!(home.ic(["show", "-q"]).complaint(1), no_port);
    assert_eq!(
        home.ic(["remove"]).complaint(1),
        format!("no port is assigned to `{shown}`; `ic list` shows what is assigned")
    );
    for (command, expected) in [
        (
            "show",
            json!({"project": "shop", "path": path, "port": null, "available": null,
                   "state": null, "pinned": false, "last_used": null,
                   "settings": {"target": null, "instance_id": null, "headers": []}}),
        ),
        (
            "remove",
            json!({"project": "shop", "path": path, "port": null, "removed": false}),
        ),
    ] {
        let ran = home.ic([command, "--json"]);
        assert_eq!(ran.exit, Some(1));
        assert!(
            ran.err.starts_with("ic: no port is assigned to "),
            "{}",
            ran.err
        );
        let found: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(found, expected);
    }
}

#[test]
fn remove_frees_the_port_of_a_project() {
    let port = free_port();
    let home = Home::new();
    let (shop, other) = (home.path("shop"), home.path("old-project"));
    let home = home.with_mappings(&[(&other, port), (&shop, port + 1)], port);
    // The mapping of a deleted folder can still be removed.
    let named = other.to_str().expect("UTF-8");
    assert_eq!(
        home.ic(["remove", named]).result(0),
        format!("✓ Removed port mapping for project: old-project\n  Path: {named}\n")
    );
    assert_eq!(home.ic(["remove", named]).exit, Some(1));
    assert_eq!(
        home.ic(["remove", "--json"]).json(0),
        json!({"project": "shop", "path": shop, "port": port + 1, "removed": true})
    );
    assert_eq!(home.ic(["list", "--json"]).json(0)["mappings"], json!([]));
}

#[test]
fn check_prints_the_project_of_a_port_and_whether_it_is_in_use() {
    let (_listener, held) = held_port();
    let (assigned, free) = (free_port(), free_port());
    let home = Home::new();
    let (litellm, other) = (home.path("litellm"), home.path("other"));
    let home = home.with_mappings(&[(&litellm, assigned), (&other, held)], 8888);

    assert_eq!(
        home.ic(["check", &assigned.to_string()]).result(0),
        format!(
            "Port {assigned}:\n\
             \x20 Status:       Assigned to project\n\
             \x20 Project:      litellm\n\
             \x20 Path:         {}\n\
             \x20 Available:    Yes\n",
            litellm.display()
        )
    );
    assert_eq!(
        home.ic(["check", "--json", &assigned.to_string()]).json(0),
        json!({"port": assigned, "available": true, "project": "litellm", "path": litellm})
    );
    assert_eq!(
        home.ic(["check", &free.to_string()]).result(0),
        format!("Port {free}:\n  Status:       Not assigned\n  Available:    Yes\n")
    );
    assert_eq!(
        home.ic(["check", &free.to_string(), "--json"]).json(0),
        json!({"port": free, "available": true, "project": null, "path": null})
    );
    let in_use = home.ic(["check", &held.to_string()]).result(1);
    assert!(in_use.contains("\n  Project:      other\n"), "{in_use}");
    assert!(in_use.contains("\n  Available:    No (in use"), "{in_use}");
    let labels: Vec<&str> = in_use
        .lines()
        .map(|line| line.split(':').next().unwrap_or_default().trim())
        .collect();
    assert_eq!(
        labels[1..],
        ["Status", "Project", "Path", "Available", "Next Free"]
    );
    assert_eq!(
        home.ic(["check", &held.to_string(), "--json"]).json(1),
        json!({"port": held, "available": false, "project": "other", "path": other})
    );
}

#[test]
#[cfg(all(target_os = "linux", not(ic_portable)))] // lsof cuts names
fn check_names_the_holder_of_a_port() {
    let (_listener, held) = held_port();
    let home = Home::new();
    let home = {
        let shop = home.path("shop");
        home.with_mappings(&[(&shop, held)], 8888)
    };
    let program = std::fs::read_to_string("/proc/self/comm").expect("Linux says");
    let (program, pid) = (program.trim(), std::process::id());
    let held_by = format!("(in use by {program}, pid {pid})");
    let checked = home.ic(["check", &held.to_string()]).result(1);
    assert!(
        checked.contains(&format!("\n  Available:    No {held_by}\n")),
        "{checked}"
    );
    let shown = home.ic(["show"]).result(0);
    assert!(
        shown.ends_with(&format!("Status:  Not available {held_by}\n")),
        "{shown}"
    );
}

#[test]
fn show_says_that_its_own_interceptor_runs() {
    let home = Home::new();
    let serving = Serving::start(&home, &[]);
    let shown = home.ic(["show"]).result(0);
    let status = match tells_who_listens() {
        true => format!("Status:  Served by `ic` (pid {})\n", serving.pid()),
        false => "Status:  Not available (in use)\n".to_owned(),
    };
    assert!(shown.ends_with(&status), "{shown}");
    serving.stop();
    let shown = home.ic(["show"]).result(0);
    assert!(shown.ends_with("Status:  Available\n"), "{shown}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_privileged_port_is_not_available() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.ok().and_then(|port| port.trim().parse().ok()) <= Some(83) {
        eprintln!("skipped: every user may bind every port on this machine");
        return;
    }
    let home = Home::new();
    let registry = "--registry=/nowhere/registry.json";
    let Some(checked) = unprivileged(&home, &[registry, "check", "83"]) else {
        return;
    };
    assert_eq!(
        checked.result(1),
        "Port 83:\n  Status:       Not assigned\n  Available:    No (needs privileges to bind)\n"
    );
    let json = unprivileged(&home, &[registry, "check", "83", "--json"]).expect("as before");
    assert_eq!(json.json(1)["available"], json!(false));
}

#[test]
fn suggest_lists_free_ports_in_the_order_of_allocation() {
    let start = free_port();
    let home = Home::new();
    let other = home.path("other");
    let home = home
        .with_mappings(&[(&other, start)], start + 3)
        .with("INTERCEPTOR_PORT_MIN", start.to_string())
        .with("INTERCEPTOR_PORT_MAX", (start + 9).to_string());
    let ports = |ran: crate::cli_home::Ran| -> Vec<u16> {
        ran.result(0)
            .lines()
            .map(|line| line.parse().expect("a bare port"))
            .collect()
    };
    let five = ports(home.ic(["suggest"]));
    assert_eq!(five.len(), 5);
    let all = ports(home.ic(["suggest", "-n", "100"]));
    assert!(all.starts_with(&five), "{all:?}");
    // From the recorded next port up, wrapping around once, without the assigned port.
    let rotated = |port: &u16| (port + 10 - (start + 3)) % 10;
    assert!(all.is_sorted_by_key(rotated), "{all:?}");
    assert!(!all.contains(&start) && all.len() <= 9, "{all:?}");
    assert_eq!(
        home.ic(["suggest", "--json", "--number=2"]).json(0),
        json!({"ports": all[..2]})
    );
    let allocated = home.ic(["allocate", "--json"]).json(0);
    assert_eq!(allocated["port"], json!(all[0]));
    for number in ["-n1", "-n=1"] {
        assert_eq!(home.ic(["suggest", number]).result(0).lines().count(), 1);
    }
}

#[test]
fn reset_without_a_terminal_needs_yes() {
    let home = Home::new();
    let (a, b) = (home.path("a"), home.path("b"));
    let home = home.with_mappings(&[(&a, 8888), (&b, 8890)], 8891);
    let before = home.content();
    let complaint = home.ic(["reset"]).complaint(2);
    assert!(complaint.contains("`ic reset --yes`"), "{complaint}");
    assert_eq!(home.content(), before);

    assert_eq!(
        home.ic(["reset", "--yes"]).result(0),
        format!(
            "✓ Registry reset: 2 port mappings removed\n  Registry File: {}\n",
            home.registry().display()
        )
    );
    let registry: Value =
        serde_json::from_slice(&std::fs::read(home.registry()).expect("the registry exists"))
            .expect("JSON");
    assert_eq!(registry["mappings"], json!({}));
    assert_eq!(registry["next_available"], json!(8888));
}

#[test]
fn read_only_commands_create_and_change_nothing() {
    let damaged = r#"{"mappings": {"/home/me/a": 8888, "/b": 8888, "c": 9"#;
    let homes = [
        Home::new(),
        Home::new().with_mappings(&[(Path::new("/home/me/a"), 8888)], 8889),
        Home::new().with_registry(damaged),
    ];
    let asking: [&[&str]; 11] = [
        &["list"],
        &["list", "--json"],
        &["show"],
        &["show", "/home/me/a", "-q"],
        &["check", "8888"],
        &["suggest"],
        &["--help"],
        &["--version"],
        &["reset"],
        &["allocate", "--nonsense"],
        &["remove", "--help"],
    ];
    for home in &homes {
        let before = (home.content(), home.stamps());
        for arguments in asking {
            let ran = home.ic(arguments);
            let after = (home.content(), home.stamps());
            assert_eq!(after, before, "{arguments:?}: {ran:?}");
        }
    }
    // Writing commands without anything to do.
    for home in &homes[..2] {
        let before = (home.content(), home.stamps());
        home.ic(["remove", "/home/me/nobody"]).complaint(1);
        assert_eq!((home.content(), home.stamps()), before);
    }
    homes[1].ic(["allocate", "/home/me/a"]).result(0);
}

#[test]
fn a_damaged_registry_is_read_with_a_warning_that_log_filters_do_not_hide() {
    let damaged = r#"{"mappings": {"/home/me/a": 8888, "/home/me/b": 8888, "/home/me/c": 9"#;
    for filter in ["off", "info"] {
        let home = Home::new().with_registry(damaged).with("RUST_LOG", filter);
        let ran = home.ic(["show", "/home/me/a", "-q"]);
        assert_eq!((ran.exit, ran.out.as_str()), (Some(0), "8888\n"), "{ran:?}");
        let warnings: Vec<&str> = ran
            .err
            .lines()
            .filter(|line| line.starts_with("ic: warning: "))
            .collect();
        assert_eq!(warnings.len(), 1, "{}", ran.err);
        assert!(warnings[0].contains("damaged"), "{}", ran.err);

        // A writing command repairs it, and prints the path of the backup.
        let ran = home.ic(["remove", "/home/me/a"]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(ran.err.contains("port_registry.json.backup"), "{}", ran.err);
        let backup = std::fs::read(home.path(".config/litellm/port_registry.json.backup"));
        assert_eq!(backup.expect("a backup"), damaged.as_bytes());
        home.ic(["list"]).result(0);
    }
}
