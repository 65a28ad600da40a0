//! The registry on full and on read-only file systems: small ones, mounted in a mount namespace of the test.
#![cfg(target_os = "linux")]

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cli_home::Home;

#[test]
fn a_full_disk_keeps_the_old_registry() {
    run_inside("full");
}

#[test]
fn a_registry_on_a_read_only_disk_is_read() {
    run_inside("read_only");
}

#[test]
fn a_registry_that_is_a_mount_point_is_written_in_place() {
    run_inside("mount_point");
}

/// Runs this test binary again, in a mount namespace of its own, as [`inside`].
#[track_caller]
fn run_inside(role: &str) {
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(env::current_exe().unwrap())
        .args([
            "registry_disks::inside",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("IC_TEST_ROLE", role)
        .output();
    match ran {
        Ok(ran) if ran.status.success() => print!("{}", String::from_utf8_lossy(&ran.stdout)),
        // The error of `unshare` if it is not permitted.
        Ok(ran) if ran.stderr.starts_with(b"unshare: ") => {
            eprintln!("skipped: {}", String::from_utf8_lossy(&ran.stderr));
        }
        Ok(ran) => panic!(
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        ),
        Err(error) => eprintln!("skipped: cannot run unshare: {error}"),
    }
}

#[test]
#[ignore = "not a test: runs in a mount namespace"]
fn inside() {
    let home = Home::new();
    match env::var("IC_TEST_ROLE").as_deref() {
        Ok("full") => full(&home),
        Ok("read_only") => read_only(&home),
        Ok("mount_point") => mount_point(&home),
        role => panic!("no role {role:?}"),
    }
}

fn full(home: &Home) {
    let disk = home.folder(".config/litellm");
    // 32 pages, and few names.
    let Ok(()) = mount(&disk, "size=128k,nr_inodes=7") else {
        return;
    };
    let sound = registry_of(400);
    let damaged = sound.replace("project-0\":20000", "project-0\":0");
    assert_ne!(damaged, sound);
    let filler = disk.join("filler");
    for text in [&sound, &damaged] {
        let (mut refused, mut done) = (0, 0);
        // From a full disk to one with room for all files.
        for room in 0..24 {
            for name in ["port_registry.json.backup", "port_registry.json", "filler"] {
                let _ = fs::remove_file(disk.join(name));
            }
            fs::write(home.registry(), text).unwrap();
            File::create(disk.join("port_registry.json.lock")).unwrap();
            fill(&filler, room);
            let before = home.content();
            let ran = home.ic(["allocate", "-q"]);
            if ran.exit == Some(0) {
                done += 1;
                assert_eq!(home.ic(["show", "-q"]).result(0), ran.out);
                continue;
            }
            refused += 1;
            let complaint = ran.complaint(3);
            assert!(
                complaint.contains("): no space left on device; nothing was changed; "),
                "{complaint}"
            );
            assert!(complaint.ends_with("make room on that disk"), "{complaint}");
            let mut after = home.content();
            if text == &damaged {
                // The backup may have been written; it is kept.
                after.retain(|(path, held)| {
                    !(path.ends_with("port_registry.json.backup") && held == text.as_bytes())
                });
            }
            assert!(after == before, "{room} pages: something was left or lost");
            home.ic(["reset", "--yes"]);
            // With room, the command works.
            let _ = fs::remove_file(&filler);
            fs::write(home.registry(), text).unwrap();
            assert_eq!(home.ic(["allocate", "-q"]).exit, Some(0), "{room} pages");
        }
        println!("cases: {refused} refused, {done} done");
        assert!(refused >= 3 && done >= 3, "{refused} {done}");
    }

    // A lack of inodes is also a full disk.
    fs::write(home.registry(), &sound).unwrap();
    let mut names = 0;
    while File::create(disk.join(format!("name-{names}"))).is_ok() {
        names += 1;
    }
    let before = home.content();
    let complaint = home.ic(["allocate"]).complaint(3);
    assert!(complaint.contains("no space left on device"), "{complaint}");
    assert_eq!(home.content(), before);
    home.ic(["list"]).result(0);
}

fn read_only(home: &Home) {
    let disk = home.folder(".config/litellm");
    let Ok(()) = mount(&disk, "size=128k") else {
        return;
    };
    let shop = home.path("shop");
    let shop = shop.to_str().unwrap();
    let text = json!({"mappings": {shop: 8888}, "next_available": 8889}).to_string();
    for text in [
        Some(text.as_str()),
        Some(r#"{"mappings": {"/x": 8889, "/y": 8889}}"#),
        None,
    ] {
        let read_only = |is: bool| {
            let how = if is { "remount,ro" } else { "remount,rw" };
            let mounted = Command::new("mount").args(["-o", how]).arg(&disk).status();
            assert!(mounted.unwrap().success());
        };
        read_only(false);
        match text {
            Some(text) => fs::write(home.registry(), text).unwrap(),
            None => fs::remove_file(home.registry()).unwrap(),
        }
        read_only(true);
        let before = home.content();
        for arguments in [
            ["list"].as_slice(),
            &["list", "--json"],
            &["suggest"],
            &["check", "8887"],
        ] {
            let ran = home.ic(arguments);
            assert_eq!(ran.exit, Some(0), "{ran:?}");
            let warned = ran.err.starts_with("ic: warning: the registry file `");
            assert_eq!(
                warned,
                text.is_some_and(|text| text.contains("/y")),
                "{ran:?}"
            );
        }
        let is_known = text.is_some_and(|text| text.contains(shop));
        let shown = home.ic(["show", "-q"]);
        assert_eq!(shown.exit, Some(i32::from(!is_known)), "{shown:?}");
        if is_known {
            // These commands write nothing.
            assert_eq!(home.ic(["allocate", "-q"]).result(0), "8888\n");
            home.ic(["remove", "/home/me/nobody"]).complaint(1);
        }
        for arguments in [["allocate", "/home/me/new"], ["reset", "--yes"]] {
            let complaint = home.ic(arguments).complaint(3);
            assert!(
                complaint.contains("): read-only file system; nothing was changed; "),
                "{complaint}"
            );
            assert!(
                complaint.ends_with("--registry or PORT_REGISTRY_PATH"),
                "{complaint}"
            );
        }
        assert_eq!(home.content(), before);
    }
}

/// As Docker mounts a file: `-v ~/port_registry.json:/root/.config/litellm/port_registry.json`.
fn mount_point(home: &Home) {
    let disk = home.folder("disk");
    let Ok(()) = mount(&disk, "size=128k") else {
        return;
    };
    let shared = disk.join("shared.json");
    let home = Home::new().with_registry("");
    for text in [
        "",
        r#"{"mappings": {"/home/me/a": 8888}}"#,
        r#"{"mappings": {"/home/me/a": 8888, "/b": 0}}"#,
    ] {
        fs::write(&shared, text).unwrap();
        let mounted = Command::new("mount")
            .arg("--bind")
            .arg(&shared)
            .arg(home.registry())
            .status();
        assert!(mounted.unwrap().success());
        let before = fs::metadata(&shared).unwrap();
        let ran = home.ic(["allocate", "-q"]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert_eq!(ran.err.is_empty(), !text.contains("/b"), "{ran:?}");
        assert_eq!(home.ic(["show", "-q"]).result(0), ran.out);
        home.ic(["allocate", "--pin"]).result(0);
        let held = fs::read_to_string(&shared).unwrap();
        assert!(held.contains("\"pinned\": true"), "{held}");
        assert_eq!(held.contains("/home/me/a"), !text.is_empty(), "{held}");
        let after = fs::metadata(&shared).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
        let examined = home.ic(["doctor", "--no-stream"]);
        assert!(examined.out.contains("✓ Registry"), "{examined:?}");
        for name in ["copy", "new"] {
            assert!(
                !home
                    .path(format!(".config/litellm/port_registry.json.{name}"))
                    .exists()
            );
        }
        // An export into it as well.
        let export = home.path("export.json");
        fs::write(&export, "").unwrap();
        let mounted = Command::new("mount")
            .arg("--bind")
            .arg(&shared)
            .arg(&export)
            .status();
        assert!(mounted.unwrap().success());
        let elsewhere = Home::new();
        let exported = elsewhere.ic(["export", export.to_str().unwrap()]);
        assert_eq!(exported.exit, Some(0), "{exported:?}");
        assert!(
            fs::read_to_string(&shared)
                .unwrap()
                .contains("\"mappings\": {}")
        );

        // Without room for the text the old one is put back: outside of the container there is no copy.
        let old = registry_of(400);
        fs::write(&shared, &old).unwrap();
        let filler = disk.join("filler");
        fill(&filler, 0);
        let many: Vec<String> = (0..300)
            .map(|number| format!("/home/me/{}/{number}", "x".repeat(60)))
            .collect();
        let text = json!({"mappings": many.iter().zip(9000..).collect::<std::collections::BTreeMap<_, _>>()});
        let file = home.path("many.json");
        fs::write(&file, text.to_string()).unwrap();
        let before = home.content();
        let complaint = home.ic(["import", file.to_str().unwrap()]).complaint(3);
        assert!(
            complaint
                .ends_with("no space left on device; nothing was changed; make room on that disk"),
            "{complaint}"
        );
        assert_eq!(fs::read_to_string(&shared).unwrap(), old);
        assert_eq!(home.content(), before);
        fs::remove_file(&filler).unwrap();
        home.ic(["import", file.to_str().unwrap()]).result(0);
        assert_eq!(home.ic(["list", "--json"]).json(0)["allocated_ports"], 700);

        // Replaced outside, it is written no more: nothing but this mount leads to it.
        let replacement = disk.join("new");
        fs::write(&replacement, "{}").unwrap();
        fs::rename(&replacement, &shared).unwrap();
        let before = home.content();
        let complaint = home.ic(["remove", &many[0]]).complaint(3);
        assert!(
            complaint.contains("has been replaced where it comes from; mount its folder instead"),
            "{complaint}"
        );
        assert_eq!(home.content(), before);
        assert_eq!(home.ic(["show", "-q", &many[0]]).result(0), "9000\n");
        let examined = home.ic(["doctor", "--no-stream"]);
        assert!(examined.out.contains("⚠ Registry"), "{examined:?}");
        for mounted in [&home.registry(), &export] {
            assert!(
                Command::new("umount")
                    .arg(mounted)
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
}

/// Mounts a small file system on the folder, for this process and its children only.
fn mount(folder: &Path, options: &str) -> Result<(), ()> {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(folder)
        .output();
    match mounted {
        Ok(mounted) if mounted.status.success() => Ok(()),
        refused => {
            println!("skipped: mounting is not permitted: {refused:?}");
            Err(())
        }
    }
}

/// Fills the disk up to `room` pages.
fn fill(filler: &PathBuf, room: u64) {
    const PAGE: u64 = 4096;
    let mut file = File::create(filler).unwrap();
    let mut len = 0;
    while let Ok(written @ 1..) = file.write(&[b'x'; PAGE as usize]) {
        len += written as u64;
    }
    file.set_len((len / PAGE).saturating_sub(room) * PAGE)
        .unwrap();
}

/// A registry with this many mappings: a few pages of text.
fn registry_of(count: u16) -> String {
    let mappings: serde_json::Map<String, serde_json::Value> = (0..count)
        .map(|number| (format!("/home/me/project-{number}"), json!(20_000 + number)))
        .collect();
    json!({"version": "1.0", "mappings": mappings, "next_available": 8888}).to_string()
}
