//! `ic prune`, pins, and the last use of ports, with real folders and interceptors.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli_home::{Home, Serving, free_port, held_port};

/// The registry file as JSON.
fn registry(home: &Home) -> Value {
    serde_json::from_slice(&fs::read(home.registry()).expect("the registry exists")).expect("JSON")
}

#[test]
fn only_deleted_projects_are_pruned() {
    let home = Home::new();
    let (_listener, held) = held_port();
    let (there, gone, away, listening, pinned) = (
        home.folder("there"),
        home.path("gone"),
        home.folder("unmounted").join("disk/project"),
        home.path("listening"),
        home.folder("pinned"),
    );
    let ports = [(); 4].map(|()| free_port());
    let home = home.with_mappings(
        &[
            (&there, ports[0]),
            (&gone, ports[1]),
            (&away, ports[2]),
            (&listening, held),
            (&pinned, ports[3]),
        ],
        8888,
    );
    let pinned_path = pinned.to_str().expect("UTF-8");
    home.ic(["allocate", "--pin", pinned_path]).result(0);
    fs::remove_dir(&pinned).expect("empty");

    let removed = json!([{"project": "gone", "path": gone, "port": ports[1], "reason": "deleted"}]);
    let before = home.content();
    assert_eq!(
        home.ic(["prune", "--dry-run", "--json"]).json(0),
        json!({"removed": removed, "dry_run": true})
    );
    let entry = format!(
        "  Port {}  →  gone (deleted)\n             {}\n",
        ports[1],
        gone.display()
    );
    assert_eq!(
        home.ic(["prune", "--dry-run"]).result(0),
        format!("Would remove 1 port mapping:\n{entry}")
    );
    assert_eq!(home.content(), before, "a dry run changes nothing");

    assert_eq!(
        home.ic(["prune"]).result(0),
        format!("✓ Removed 1 port mapping:\n{entry}")
    );
    assert_eq!(
        registry(&home)["mappings"]
            .as_object()
            .map(|mappings| mappings.len()),
        Some(4)
    );
    let pruned = home.content();
    assert_eq!(home.ic(["prune"]).result(0), "Nothing to prune.\n");
    assert_eq!(
        home.ic(["prune", "--json"]).json(0),
        json!({"removed": [], "dry_run": false})
    );
    assert_eq!(
        home.content(),
        pruned,
        "a prune without a result changes nothing"
    );

    // The project is created again, and gets its previous port.
    home.folder("gone");
    let text = ports[1].to_string();
    let given = home.ic([
        "--port-max",
        "30000",
        "allocate",
        "-q",
        gone.to_str().expect("UTF-8"),
    ]);
    assert_eq!(given.result(0), format!("{text}\n"));
}

#[test]
fn prune_works_without_a_registry_and_refuses_an_invalid_duration() {
    let home = Home::new();
    let before = home.content();
    assert_eq!(home.ic(["prune"]).result(0), "Nothing to prune.\n");
    assert_eq!(
        home.ic(["prune", "--unused-for", "1w"]).result(0),
        "Nothing to prune.\n"
    );
    for bad in ["", "30", "d", "1.5d", "-3d", "30x", "99999999999999999999w"] {
        let complaint = home
            .ic(["prune", &format!("--unused-for={bad}")])
            .complaint(2);
        assert!(
            complaint.starts_with(&format!("`--unused-for {bad}` is not a valid duration")),
            "{complaint}"
        );
    }
    assert_eq!(home.content(), before);
}

#[test]
fn an_allocation_without_a_free_port_prunes_deleted_projects() {
    let port = free_port();
    let text = port.to_string();
    let home = Home::new();
    let (gone, kept) = (home.path("gone"), home.folder("kept"));
    let home = home
        .with_mappings(&[(&gone, port)], port)
        .with("INTERCEPTOR_PORT_MIN", &text)
        .with("INTERCEPTOR_PORT_MAX", &text);
    let ran = home.ic(["allocate", "-q", kept.to_str().expect("UTF-8")]);
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Some(0), format!("{text}\n").as_str()),
        "{ran:?}"
    );
    assert_eq!(
        ran.err,
        format!(
            "ic: no port was left in {text}-{text}; removed the mappings of deleted projects: `{}`\n",
            gone.display()
        )
    );
    // Now there are no deleted projects.
    let complaint = home.ic(["allocate"]).complaint(3);
    assert!(
        complaint.starts_with(&format!("no port is free in {text}-{text}: ")),
        "{complaint}"
    );
}

#[test]
fn a_project_whose_parent_folders_are_gone_is_pruned_if_the_user_can_have_removed_them() {
    /// Prepares a home, of which it returns the path of a project that does not exist.
    type Prepare = fn(&Home) -> PathBuf;
    let cases: [(&str, Prepare, bool); 9] = [
        ("the project", |home| home.path("work/shop"), true),
        ("its parent", |home| home.path("work/clients/shop"), true),
        (
            "all but home",
            |home| home.path("gone/clients/a/shop"),
            true,
        ),
        (
            "in an empty folder",
            |home| home.folder("mnt").join("disk/shop"),
            false,
        ),
        (
            "of another user",
            |_| PathBuf::from("/usr/nowhere/shop"),
            false,
        ),
        ("up to the root", |_| PathBuf::from("/really/gone"), false),
        (
            "below a file",
            |home| home.path("work/file/clients/shop"),
            false,
        ),
        (
            "behind a link to a disk",
            |home| {
                symlink("/nowhere/disk", home.path("disk")).expect("a link");
                home.path("disk/clients/shop")
            },
            false,
        ),
        (
            "in a folder that cannot be entered",
            |home| {
                let locked = home.folder("locked");
                fs::write(locked.join("file"), "").expect("a file");
                let mode = fs::Permissions::from_mode(0o000);
                fs::set_permissions(&locked, mode).expect("mine");
                locked.join("clients/shop")
            },
            // Root enters it.
            rustix::process::geteuid().is_root(),
        ),
    ];
    for (why, prepare, is_pruned) in cases {
        let home = Home::new();
        home.folder("work/other");
        fs::write(home.path("work/file"), "").expect("a file");
        let project = prepare(&home);
        let home = home.with_mappings(&[(&project, free_port())], 8888);
        let pruned = home.ic(["prune", "--json"]).json(0);
        let removed = pruned["removed"].as_array().expect("a list").len();
        assert_eq!(
            removed,
            usize::from(is_pruned),
            "{why}: {}",
            project.display()
        );
        let locked = home.path("locked");
        if locked.exists() {
            fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("mine");
        }
    }
}

#[test]
fn a_project_can_be_pinned_and_unpinned() {
    let port = free_port();
    let home = Home::new();
    let home = home
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string());
    let pinned = home.ic(["allocate", "--pin", "--json"]).json(0);
    assert_eq!(
        (&pinned["created"], &pinned["pinned"]),
        (&json!(true), &json!(true))
    );
    assert!(
        home.ic(["show"])
            .result(0)
            .contains("\nPinned:  Yes\nStatus:  ")
    );
    assert_eq!(home.ic(["show", "--json"]).json(0)["pinned"], json!(true));
    let pinned = home.content();
    home.ic(["allocate", "--pin"]).result(0);
    home.ic(["allocate"]).result(0);
    assert_eq!(home.content(), pinned, "it is pinned already");

    let text = home.ic(["allocate", "--unpin"]).result(0);
    assert!(
        text.ends_with("\n✓ Port was allocated already\n✓ Unpinned\n"),
        "{text}"
    );
    assert_eq!(home.ic(["show", "--json"]).json(0)["pinned"], json!(false));
    home.ic(["allocate", "--pin", "--unpin"]).complaint(2);
}

#[test]
fn the_unused_time_of_a_port_starts_at_its_last_use() {
    let home = Home::new();
    let (shop, never) = (home.path("shop"), home.folder("never"));
    let ports = [free_port(), free_port()];
    let home = home.with_mappings(&[(&shop, ports[0]), (&never, ports[1])], 8888);
    let long_ago = json!({"projects": {&*shop.to_string_lossy(): {"last_used": 1_000_000_000}}});
    let mut text = registry(&home);
    text["ic"] = long_ago;
    let home = home.with_registry(text.to_string());

    let dry = home
        .ic(["prune", "--unused-for", "30d", "--dry-run"])
        .result(0);
    assert!(
        dry.contains(&format!("  Port {}  →  shop (unused for ", ports[0])),
        "{dry}"
    );
    assert!(!dry.contains("never"), "unknown use is never old: {dry}");

    // A running interceptor uses its port. The use is recorded at start, because the last record is old.
    let before = Instant::now();
    let interceptor = Serving::start(&home, &[]);
    let json = home.ic(["prune", "--unused-for", "0s", "--json"]).json(0);
    assert_eq!(json["removed"], json!([]));
    let recorded = || {
        registry(&home)["ic"]["projects"][&*shop.to_string_lossy()]["last_used"]
            .as_u64()
            .unwrap_or_default()
    };
    while recorded() == 1_000_000_000 {
        assert!(
            before.elapsed() < Duration::from_secs(10),
            "the start is not recorded"
        );
        std::thread::yield_now();
    }
    interceptor.stop();
    assert_eq!(
        home.ic(["prune", "--unused-for", "1h"]).result(0),
        "Nothing to prune.\n"
    );
    let removed = home.ic(["prune", "--unused-for", "0s", "--json"]).json(0);
    assert_eq!(
        removed["removed"],
        json!([{"project": "shop", "path": shop, "port": ports[0], "reason": "unused"}])
    );
}

#[test]
fn restarted_interceptors_record_the_use_once() {
    let port = free_port();
    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string());
    Serving::start(&home, &[]).stop();
    let before = home.content();
    for _ in 0..2 {
        Serving::start(&home, &[]).stop();
    }
    assert_eq!(home.content(), before);
}

#[test]
fn an_interceptor_runs_although_the_registry_cannot_be_written() {
    // The socket of the live feed is in another folder.
    let runtime = tempfile::tempdir().expect("a temporary folder");
    let home = Home::new().with("XDG_RUNTIME_DIR", runtime.path());
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, free_port())], 8888);
    // A folder in place of the lock file is an error for root as well.
    let lock = home.folder(".config/litellm/port_registry.json.lock");
    let before = home.content();
    Serving::start(&home, &[]).stop();
    assert_eq!(home.content(), before);
    fs::remove_dir(lock).expect("empty");
}
