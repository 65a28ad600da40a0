//! `ic export` and `ic import`: files, standard streams, conflicts, and invalid files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cli_home::{Home, Ran, as_user};

/// Two mappings, one of them pinned, and an unknown field.
const EXPORTED: &str = r#"{
  "version": "1.0",
  "port_range": {
    "start": 8888,
    "end": 9999
  },
  "mappings": {
    "/home/me/a": 8888,
    "/home/me/b": 8890
  },
  "next_available": 8891,
  "theirs": [1, 2],
  "ic": {
    "projects": {
      "/home/me/b": {
        "pinned": true
      }
    }
  }
}"#;

fn mappings(home: &Home) -> Value {
    let text = fs::read(home.registry()).expect("the registry exists");
    serde_json::from_slice::<Value>(&text).expect("JSON")["mappings"].clone()
}

/// `ic` with this standard input.
#[track_caller]
fn fed(home: &Home, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = home.command(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    Ran::from(child.wait_with_output().expect("it ends"))
}

#[test]
fn an_export_is_a_registry_file_that_another_home_imports() {
    let home = Home::new().with_registry(EXPORTED);
    let before = home.content();
    assert_eq!(home.ic(["export"]).result(0), format!("{EXPORTED}\n"));
    assert_eq!(home.ic(["export", "-"]).result(0), format!("{EXPORTED}\n"));
    assert_eq!(home.content(), before);

    let file = home.path("ports.json");
    let named = file.to_str().expect("UTF-8");
    assert_eq!(
        home.ic(["export", named]).result(0),
        format!("✓ Exported 2 port mappings\n  File: {named}\n")
    );
    assert_eq!(
        fs::read_to_string(&file).expect("written"),
        format!("{EXPORTED}\n")
    );

    let other = Home::new();
    assert_eq!(
        other.ic(["import", named]).result(0),
        "✓ Imported 2 port mappings:\n\
         \x20 Port  8888  →  a (new)\n             /home/me/a\n\
         \x20 Port  8890  →  b (new)\n             /home/me/b\n"
    );
    assert_eq!(
        mappings(&other),
        json!({"/home/me/a": 8888, "/home/me/b": 8890})
    );
    assert_eq!(
        other.ic(["show", "/home/me/b", "--json"]).json(0)["pinned"],
        json!(true)
    );
    let imported = other.content();
    assert_eq!(
        other.ic(["import", named]).result(0),
        "✓ Imported 0 port mappings, 2 unchanged\n"
    );
    assert_eq!(other.content(), imported);
}

#[test]
fn csv_files_are_refused_with_a_jq_command() {
    let home = Home::new().with_registry(EXPORTED);
    let registry = fs::read(home.registry()).expect("the registry exists");
    let file = home.path("ports.CSV");
    let named = file.to_str().expect("UTF-8");
    let refused = home.ic(["export", named]).complaint(2);
    assert!(refused.contains("ic export | jq -r '"), "{refused}");
    assert!(!file.exists());
    fs::write(&file, "path,port\n/home/me/c,8891\n").expect("writable");
    let refused = home.ic(["import", named]).complaint(2);
    assert!(refused.contains("jq -Rn '"), "{refused}");
    assert!(refused.contains("| ic import -"), "{refused}");
    assert_eq!(
        fs::read(home.registry()).expect("the registry exists"),
        registry
    );
}

#[test]
fn map_changes_the_folder_of_imported_projects() {
    let other = Home::new();
    let ran = fed(
        &other,
        &["import", "-", "--json", "--map", "/home/me=/Users/me"],
        EXPORTED.as_bytes(),
    );
    assert_eq!(
        ran.json(0),
        json!({
            "added": [
                {"project": "a", "path": "/Users/me/a", "port": 8888},
                {"project": "b", "path": "/Users/me/b", "port": 8890},
            ],
            "moved": [], "removed": [], "unchanged": 0, "conflicts": [], "dry_run": false,
        })
    );
    assert_eq!(
        mappings(&other),
        json!({"/Users/me/a": 8888, "/Users/me/b": 8890})
    );
}

#[test]
fn conflicts_change_nothing_without_replace() {
    let here = r#"{"mappings": {"/home/me/b": 9000, "/home/me/c": 8888, "/home/me/d": 9001}}"#;
    let home = Home::new().with_registry(here);
    let file = home.path("ports.json");
    fs::write(&file, EXPORTED).expect("a file");
    let named = file.to_str().expect("UTF-8");
    let before = home.content();
    let report = "2 conflicts:\n\
         \x20 Port  8888  →  a (here it is the port of /home/me/c)\n             /home/me/a\n\
         \x20 Port  8890  →  b (here it has port 9000)\n             /home/me/b\n";
    for arguments in [&["import", named][..], &["import", "--dry-run", named]] {
        let ran = home.ic(arguments);
        assert_eq!((ran.exit, ran.out.as_str()), (Some(1), report), "{ran:?}");
        assert_eq!(
            ran.err,
            "ic: 2 conflicts; nothing was changed; `--replace` lets the file win\n"
        );
    }
    let ran = home.ic(["import", "--json", named]);
    let told: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        told["conflicts"],
        json!([
            {"project": "a", "path": "/home/me/a", "port": 8888, "port_of": "/home/me/c", "has_port": null},
            {"project": "b", "path": "/home/me/b", "port": 8890, "port_of": null, "has_port": 9000},
        ])
    );
    assert_eq!((ran.exit, &told["added"]), (Some(1), &json!([])));
    let would = home
        .ic(["import", "--dry-run", "--replace", named])
        .result(0);
    assert!(
        would.contains("\nWould import 2 port mappings:\n"),
        "{would}"
    );
    assert_eq!(home.content(), before);

    let done = home.ic(["import", "--replace", named]).result(0);
    assert!(done.starts_with("2 conflicts, the file wins:\n"), "{done}");
    assert!(
        done.ends_with(
            "\n✓ Imported 2 port mappings:\n\
             \x20 Port  8888  →  a (new)\n             /home/me/a\n\
             \x20 Port  8890  →  b (another port)\n             /home/me/b\n\
             \x20 Port  8888  →  c (removed)\n             /home/me/c\n"
        ),
        "{done}"
    );
    assert_eq!(
        mappings(&home),
        json!({"/home/me/d": 9001, "/home/me/a": 8888, "/home/me/b": 8890})
    );
}

#[test]
fn the_readable_part_of_a_damaged_file_can_be_imported() {
    let torn = &EXPORTED[..EXPORTED.find("8890").expect("8890 is a port") + 2];
    let home = Home::new().with_registry(torn);
    // The next change repairs the file and keeps a backup.
    home.ic(["remove", "/home/me/a"]);
    let backup = home.path(".config/litellm/port_registry.json.backup");
    let ran = home.ic(["import", backup.to_str().expect("UTF-8")]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.err.starts_with("ic: warning: `"), "{ran:?}");
    assert!(ran.err.contains("port mappings read: 1"), "{ran:?}");
    assert_eq!(mappings(&home), json!({"/home/me/a": 8888}));
}

#[test]
fn a_file_that_holds_no_mappings_is_refused() {
    let home = Home::new().with_registry(EXPORTED);
    let before = home.content();
    let bad: [&[u8]; 10] = [
        b"",
        b" \n",
        b"{}",
        b"[]",
        b"{\"version\": \"1.0\"}",
        b"not a registry",
        b"{\"mappings\": {\"/x\": 99999}}",
        b"{\"mappings\": {\"/x\": \"99999\"}}",
        b"path,port\n/x,99999\n",
        b"\x00\xff\xfe",
    ];
    for input in bad {
        let complaint = fed(&home, &["import", "-"], input).complaint(3);
        assert!(complaint.starts_with("standard input"), "{complaint}");
        assert!(complaint.contains("; "), "what to do: {complaint}");
    }
    for missing in [
        "/nowhere/ports.json",
        home.path("").to_str().expect("UTF-8"),
    ] {
        let complaint = home.ic(["import", missing]).complaint(3);
        assert!(complaint.contains(missing), "{complaint}");
    }
    home.ic(["import"]).complaint(2);
    home.ic(["import", ""]).complaint(2);
    for map in ["", "/a", "a=/b", "/a=b", "/a="] {
        home.ic(["import", "-", "--map", map]).complaint(2);
    }
    let one = fed(
        &home,
        &["import", "-", "--map=/x=/y"],
        b"{\"mappings\": {\"/x\": 1, \"/y\": 2}}",
    )
    .complaint(3);
    assert!(one.contains("`/y`"), "{one}");
    assert_eq!(home.content(), before);
    // An empty set of mappings is valid.
    let none = fed(&home, &["import", "-"], b"{\"mappings\": {}}").result(0);
    assert_eq!(none, "✓ Imported 0 port mappings\n");
}

#[test]
fn what_powershell_and_spreadsheets_make_of_an_export_can_be_imported() {
    let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let text = format!("\u{feff}{}\r\n", text.replace('\n', "\r\n"));
        text.encode_utf16().flat_map(bytes).collect()
    };
    let quoted = EXPORTED
        .replace("8888,", "\"8888\",")
        .replace("8890\n", "8890.0\n");
    assert_ne!(quoted, EXPORTED);
    let originals = mappings(&Home::new().with_registry(EXPORTED));
    for text in [
        utf_16(EXPORTED, u16::to_le_bytes),
        utf_16(EXPORTED, u16::to_be_bytes),
        quoted.into_bytes(),
    ] {
        let home = Home::new();
        fed(&home, &["import", "-"], &text).result(0);
        assert_eq!(mappings(&home), originals);
        // As the registry itself: it is read, and the next change writes it as ever.
        let home = Home::new().with_registry(&text);
        assert_eq!(home.ic(["show", "-q", "/home/me/a"]).result(0), "8888\n");
        home.ic(["allocate", "-q"]).result(0);
        home.ic(["remove"]).result(0);
        assert_eq!(mappings(&home), originals);
        let written = fs::read_to_string(home.registry()).expect("UTF-8");
        assert!(written.contains("\"/home/me/a\": 8888,\n"), "{written}");
        assert!(
            !home
                .path(".config/litellm/port_registry.json.backup")
                .exists()
        );
    }
}

#[test]
fn an_export_replaces_a_file_atomically_and_never_the_registry() {
    let home = Home::new().with_registry(EXPORTED);
    let registry = home.registry();
    let registry = registry.to_str().expect("UTF-8");
    home.ic(["export", registry]).complaint(2);

    let file = home.path("ports.json");
    fs::write(&file, "x".repeat(100_000)).expect("a file");
    let link = home.path("link.json");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    home.ic(["export", link.to_str().expect("UTF-8")]).result(0);
    assert!(link.symlink_metadata().expect("there").is_symlink());
    assert_eq!(
        fs::read_to_string(&file).expect("written"),
        format!("{EXPORTED}\n")
    );
    // Its permissions stay, and a link that leads nowhere yet leads to the new file.
    for mode in [0o600, 0o640, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("mine");
        home.ic(["export", file.to_str().expect("UTF-8")]).result(0);
        let found = fs::metadata(&file).expect("there").permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{found:o}");
    }
    let dangling = home.path("dangling.json");
    std::os::unix::fs::symlink("new.json", &dangling).expect("a link");
    home.ic(["export", dangling.to_str().expect("UTF-8")])
        .result(0);
    assert!(dangling.symlink_metadata().expect("there").is_symlink());
    let new = fs::read_to_string(home.path("new.json"));
    assert_eq!(new.expect("written"), format!("{EXPORTED}\n"));

    let nowhere = home.ic(["export", "/nowhere/ports.json"]).complaint(3);
    assert!(
        nowhere.starts_with("cannot write `/nowhere/ports.json`: "),
        "{nowhere}"
    );
    home.ic(["export", home.path("").to_str().expect("UTF-8")])
        .complaint(3);
    let left: Vec<_> = home.content().into_iter().map(|(path, _)| path).collect();
    assert!(
        !left
            .iter()
            .any(|path| path.to_string_lossy().ends_with(".new")),
        "{left:?}"
    );
}

#[test]
fn an_export_keeps_the_owner_and_the_permissions_of_the_file() {
    const OWNER: (u32, u32) = (1001, 2000);
    const MEMBER: (u32, u32) = (1002, 2000);
    const OTHER: (u32, u32) = (1003, 1003);
    const ROOT: (u32, u32) = (0, 0);
    // The file's mode, the folder's mode, who exports, and whether that user may write the file, and may replace it.
    for (mode, folder_mode, user, is_written, is_new) in [
        (0o600, 0o755, ROOT, true, true),
        (0o640, 0o2775, OWNER, true, true),
        (0o664, 0o2775, MEMBER, true, false),
        (0o664, 0o755, MEMBER, true, false),
        (0o666, 0o1777, OTHER, true, false),
        (0o644, 0o2775, MEMBER, false, false),
        (0o600, 0o777, OTHER, false, false),
    ] {
        let home = Home::new().with_registry(EXPORTED);
        let folder = home.folder("backups");
        let file = folder.join("ports.json");
        fs::write(&file, "an older and much longer backup\n".repeat(99)).expect("a file");
        let owner = (Some(OWNER.0), Some(OWNER.1));
        let given = chown(&file, owner.0, owner.1).and_then(|()| chown(&folder, owner.0, owner.1));
        if given.is_err() {
            eprintln!("skipped: only root can give a file to another user");
            return;
        }
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("of root");
        };
        let above = ["", ".config", ".config/litellm"];
        above.iter().for_each(|name| set(&home.path(name), 0o755));
        set(&home.registry(), 0o644);
        set(&folder, folder_mode);
        set(&file, mode);
        let before = fs::metadata(&file).expect("there");
        let export = ["export", file.to_str().expect("UTF-8")];
        let Some(ran) = as_user(&home, user, "022", &export) else {
            return;
        };
        let case = format!("{mode:o} in {folder_mode:o} by {user:?}: {ran:?}");
        assert_eq!(ran.exit, Some(if is_written { 0 } else { 3 }), "{case}");
        let after = fs::metadata(&file).expect("there");
        let of = |found: &fs::Metadata| (found.uid(), found.gid(), found.mode());
        assert_eq!(of(&after), of(&before), "{case}");
        assert_eq!(after.ino() != before.ino(), is_new, "{case}");
        let text = fs::read_to_string(&file).expect("text");
        assert_eq!(text == format!("{EXPORTED}\n"), is_written, "{case}");
        assert_eq!(
            fs::read_dir(&folder).expect("a folder").count(),
            1,
            "{case}"
        );
    }
}
