//! Proposed ports if a port is in use, and projects that are found by their repository.

use std::fs;

use serde_json::json;

use crate::cli_home::{Home, free_port, held_port};

#[test]
fn the_error_for_a_port_in_use_proposes_a_free_port() {
    let (_listener, held) = held_port();
    let home = Home::new();
    let shop = home.path("shop");
    let next = free_port();
    let home = home
        .with_mappings(&[(&shop, held)], next)
        .with("INTERCEPTOR_PORT_MIN", next.to_string())
        .with("INTERCEPTOR_PORT_MAX", next.to_string());
    let checked = home.ic(["check", &held.to_string()]).result(1);
    assert!(
        checked.contains("\n  Available:    No (")
            && checked.ends_with(&format!(")\n  Next Free:    {next}\n")),
        "{checked}"
    );
    let free = home.ic(["check", &next.to_string()]).result(0);
    assert!(!free.contains("Next Free"), "{free}");

    let complaint = home.ic(["serve", "--mock"]).complaint(3);
    assert!(
        complaint.starts_with(&format!("port {held} is in use")),
        "{complaint}"
    );
    assert!(
        complaint.ends_with(&format!("`ic remove` to get another port ({next} is free)")),
        "{complaint}"
    );
    // With an explicit port the registry, which is not a file here, is not read.
    let port = held.to_string();
    let given = home.ic([
        "--registry",
        "/dev/null/r.json",
        "serve",
        "--mock",
        "--port",
        &port,
    ]);
    let complaint = given.complaint(3);
    assert!(
        complaint.ends_with("give another port with --port (`ic suggest` lists free ones)"),
        "{complaint}"
    );
}

#[test]
fn with_project_root_git_the_repository_is_the_project() {
    let git = ["--project-root", "git", "show", "--json"];
    #[track_caller]
    fn check(inside: &str, arguments: &[&str], variable: &str, expected: &str) {
        // A repository, within it a worktree or submodule, and an invalid `.git`.
        let home = Home::new();
        for folder in [
            "work/repo/.git",
            "work/repo/src/deep",
            "work/repo/tree/src",
            "work/repo/odd/.git",
            "work/bare",
        ] {
            home.folder(folder);
        }
        fs::write(home.path("work/repo/.git/HEAD"), "ref: refs/heads/main\n").expect("a file");
        fs::write(home.path("work/repo/tree/.git"), "gitdir: elsewhere\n").expect("a file");
        let folder = home.path(inside);
        let home = home
            .inside(folder)
            .with("INTERCEPTOR_PROJECT_ROOT", variable);
        let ran = home.ic(arguments);
        assert_eq!(ran.exit, Some(1), "{ran:?}");
        let shown: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(
            shown["path"],
            json!(home.path(expected)),
            "{inside}: {arguments:?}"
        );
    }
    check("work/repo/src/deep", &git, "", "work/repo");
    check("work/repo", &git, "", "work/repo");
    check("work/repo/tree/src", &git, "", "work/repo/tree");
    check("work/repo/odd", &git, "", "work/repo");
    check("work/bare", &git, "", "work/bare");
    check("work/repo/src", &["show", "--json"], "", "work/repo/src");
    check("work/repo/src", &["show", "--json"], "git", "work/repo");
    check(
        "work/repo/src",
        &["show", "--json"],
        "folder",
        "work/repo/src",
    );
    check(
        "work/repo/src",
        &["--project-root=folder", "show", "--json"],
        "git",
        "work/repo/src",
    );
    // PATH names the project, even if the folder does not exist.
    check(
        "work/bare",
        &["--project-root=git", "show", "--json", "../repo/src"],
        "",
        "work/repo/src",
    );
    check(
        "work/repo",
        &["--project-root=git", "show", "--json", "gone"],
        "",
        "work/repo/gone",
    );

    let complaint = Home::new()
        .ic(["--project-root", "svn", "show"])
        .complaint(2);
    assert!(
        complaint.starts_with("`--project-root svn` is not a project root"),
        "{complaint}"
    );
}

#[test]
fn ports_that_browsers_refuse_are_neither_suggested_nor_allocated() {
    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", "6665")
        .with("INTERCEPTOR_PORT_MAX", "6669");
    home.ic(["suggest"]).complaint(1);
    let refused = home.ic(["allocate"]).complaint(3);
    assert!(refused.contains(", 5 refused by browsers; "), "{refused}");
    let listed = home.ic(["list", "--json"]).json(0);
    assert_eq!(
        (&listed["total_ports"], &listed["available_ports"]),
        (&5.into(), &0.into())
    );
    assert_eq!(listed["next_available"], serde_json::Value::Null);

    // One that is given, or assigned by another program, is used and reported.
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, 6667)], 6668);
    let run = ["run", "--mock", "--", "true"];
    let run_at = ["run", "--mock", "--port", "6668", "--", "true"];
    for (arguments, port, out) in [
        (&["allocate", "-q"][..], 6667, "6667\n"),
        (&["env", "--json"], 6667, "{\"OPENAI_BASE_URL\":"),
        (&["env"], 6667, "export OPENAI_BASE_URL="),
        (
            &["set", "--target", "http://localhost:4000"],
            6667,
            "Project: shop\n",
        ),
        (&["snippet", "aider"], 6667, ""),
        (&["serve", "--mock", "--idle-exit", "0.1"], 6667, ""),
        (&run, 6667, ""),
        (&run_at, 6668, ""),
    ] {
        let ran = home.ic(arguments);
        let warning = format!(
            "ic: warning: browsers and node's fetch refuse to connect to port {port} (\"bad port\"); other clients can"
        );
        assert_eq!(ran.err.matches(&warning).count(), 1, "{ran:?}");
        let way_out = "; `ic remove` and `ic allocate` for another one\n";
        assert_eq!(ran.err.contains(way_out), port == 6667, "{ran:?}");
        assert!(ran.out.starts_with(out), "{ran:?}");
        assert_eq!(ran.exit, Some(0), "{ran:?}");
    }
    let examined = home.ic(["doctor", "--no-stream"]);
    if cfg!(feature = "ui") {
        let page = home.ic(["ui", "--no-open", "--port", "10080"]).complaint(2);
        assert!(
            page.contains("browsers refuse to connect to; give another"),
            "{page}"
        );
    }
    let finding = "⚠ Port       browsers and node's fetch refuse to connect to 6667; `ic remove`";
    assert!(examined.out.contains(finding), "{examined:?}");
}
