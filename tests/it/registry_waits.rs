//! Waiting for other programs: the Python tool during a write, another `ic`, and programs that never release a lock.
//!
//! Each test takes seconds, so there are few, and they run in parallel.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fs2::FileExt;

use crate::cli_home::{Home, Ran};

const SOUND: &str = r#"{"mappings": {"/home/me/a": 8888}, "next_available": 8889}"#;
const TORN: &str = r#"{"mappings": {"/home/me/a": 8888, "/home/me/b": 88"#;

const FOR_TURN: &str = "ic: waiting for another `ic` that is changing the registry and holds";
const FOR_LOCK: &str = "ic: waiting for another program that has locked the registry file";
const FOR_TEXT: &str = "ic: waiting for another program to finish writing the registry file";

#[test]
fn a_wait_ends_after_ten_seconds_without_a_change() {
    /// `ic` with a file that stays locked: it prints `notice`, gives up, and prints why.
    #[track_caller]
    fn check(home: &Home, locked: &Path, arguments: &[&str], notice: &str) {
        let holder = OpenOptions::new()
            .append(true)
            .create(true)
            .open(locked)
            .unwrap();
        FileExt::lock_exclusive(&holder).unwrap();
        let before = home.content();
        let since = Instant::now();
        let ran = home.ic(arguments);
        let waited = since.elapsed();
        assert_eq!(
            (ran.exit, ran.out.as_str()),
            (Some(3), ""),
            "{arguments:?}: {ran:?}"
        );
        let locked = locked.display();
        let notice = format!("{notice} `{locked}`");
        let gave_up = format!(
            "ic: gave up after 10 s of {}; try again, or find the program with `fuser {locked}`",
            notice.trim_start_matches("ic: "),
        );
        assert_eq!(
            ran.err.lines().collect::<Vec<_>>(),
            [notice, gave_up],
            "{arguments:?}"
        );
        assert!(
            waited >= Duration::from_secs(10),
            "{arguments:?}: {waited:?}"
        );
        let mut after = home.content();
        // A command that waits for the registry itself already holds the lock file.
        after.retain(|(path, _)| {
            before.iter().any(|(known, _)| known == path)
                || !path.ends_with("port_registry.json.lock")
        });
        assert_eq!(after, before, "{arguments:?}");
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let home = Home::new().with_registry(SOUND);
            let lock = home.path(".config/litellm/port_registry.json.lock");
            check(&home, &lock, &["allocate"], FOR_TURN);
        });
        for arguments in [
            ["allocate", "-q"].as_slice(),
            &["remove", "/home/me/a"],
            &["reset", "--yes"],
        ] {
            scope.spawn(move || {
                let home = Home::new().with_registry(SOUND);
                check(&home, &home.registry(), arguments, FOR_LOCK);
            });
        }
        // While its writer holds the lock, an incomplete text is not damaged, so no backup is made.
        for arguments in [["list"].as_slice(), &["show"], &["allocate"]] {
            scope.spawn(move || {
                let home = Home::new().with_registry(TORN);
                check(&home, &home.registry(), arguments, FOR_TEXT);
            });
        }
    });
}

#[test]
fn readers_of_a_complete_text_do_not_wait() {
    let home = Home::new().with_registry(SOUND);
    let lock = home.path(".config/litellm/port_registry.json.lock");
    let held = [home.registry(), lock].map(|path| {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        FileExt::lock_exclusive(&file).unwrap();
        file
    });
    // A wait is reported after half a second; none of these prints anything.
    home.ic(["list"]).result(0);
    assert_eq!(home.ic(["show", "-q", "/home/me/a"]).result(0), "8888\n");
    let checked = home.ic(["check", "8888"]);
    assert_eq!(checked.err, "");
    home.ic(["suggest"]).result(0);
    assert_eq!(
        home.ic(["allocate", "-q", "/home/me/a"]).result(0),
        "8888\n"
    );
    home.ic(["remove", "/home/me/nobody"]).complaint(1);
    drop(held);
}

#[test]
fn a_text_that_is_not_completed_within_a_second_is_damaged() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let home = Home::new().with_registry(TORN);
            let before = home.content();
            let since = Instant::now();
            let ran = home.ic(["show", "-q", "/home/me/a"]);
            assert!(since.elapsed() >= Duration::from_secs(1));
            assert_eq!((ran.exit, ran.out.as_str()), (Some(0), "8888\n"), "{ran:?}");
            let said: Vec<&str> = ran.err.lines().collect();
            // It is not locked, so the command does not wait.
            assert!(
                said[0].starts_with("ic: warning: the registry file `"),
                "{ran:?}"
            );
            assert!(said[0].contains("; 1 mapping can be read; "), "{ran:?}");
            assert_eq!(said.len(), 1, "{ran:?}");
            assert_eq!(home.content(), before, "a reader repairs nothing");
        });
        scope.spawn(|| {
            let home = Home::new().with_registry(TORN);
            let since = Instant::now();
            let ran = home.ic(["allocate", "-q"]);
            assert!(since.elapsed() >= Duration::from_secs(1));
            assert_eq!(ran.exit, Some(0), "{ran:?}");
            let backup = home.path(".config/litellm/port_registry.json.backup");
            assert_eq!(fs::read_to_string(&backup).unwrap(), TORN);
            let warning = ran.err.lines().last().unwrap();
            assert!(
                warning.starts_with("ic: warning: the registry file `"),
                "{ran:?}"
            );
            assert!(warning.contains("; 1 mapping was kept; "), "{ran:?}");
            assert!(
                warning.ends_with(&format!("; the damaged file is `{}`", backup.display())),
                "{ran:?}"
            );
            assert_eq!(home.ic(["show", "-q", "/home/me/a"]).result(0), "8888\n");
        });
        // An empty file, as left by a tool that was killed before it wrote: nothing to keep, and no warning.
        scope.spawn(|| {
            let home = Home::new().with_registry("");
            let ran = home.ic(["list", "--json"]);
            assert_eq!((ran.exit, ran.err.as_str()), (Some(0), ""));
            home.ic(["allocate", "-q"]);
            assert!(
                !home
                    .path(".config/litellm/port_registry.json.backup")
                    .exists()
            );
            assert_eq!(home.ic(["list", "--json"]).json(0)["allocated_ports"], 1);
        });
    });
}

#[test]
fn readers_wait_for_a_text_that_is_being_written() {
    /// A command with a file that is empty or incomplete at first, and is completed while the command waits, under the lock of
    /// the writer or after it was released.
    #[track_caller]
    fn check(first: &str, locked: bool, arguments: &[&str]) -> (Home, Ran) {
        let home = Home::new().with_registry(first);
        let mut writer = File::options().append(true).open(home.registry()).unwrap();
        FileExt::lock_exclusive(&writer).unwrap();
        let mut ic = WaitReason::start(&home, arguments);
        ic.wait_for(&home, FOR_TEXT);
        if !locked {
            FileExt::unlock(&writer).unwrap();
        }
        let rest =
            r#"{"mappings": {"/home/me/a": 8888, "/home/me/b": 8899}, "next_available": 9000}"#;
        writer
            .write_all(rest.strip_prefix(first).unwrap().as_bytes())
            .unwrap();
        writer.sync_all().unwrap();
        drop(writer);
        let ran = ic.end();
        assert_eq!(
            (ran.exit, ran.err.as_str()),
            (Some(0), ""),
            "{arguments:?}: no warning: {ran:?}"
        );
        let names: Vec<_> = fs::read_dir(home.path(".config/litellm"))
            .unwrap()
            .collect();
        assert!(names.len() <= 2, "no backup: {names:?}");
        (home, ran)
    }
    thread::scope(|scope| {
        for locked in [false, true] {
            for first in ["", TORN] {
                scope.spawn(move || {
                    let (_, ran) = check(first, locked, &["show", "-q", "/home/me/b"]);
                    assert_eq!(ran.out, "8899\n");
                });
                scope.spawn(move || {
                    let (home, _) = check(first, locked, &["allocate", "-q"]);
                    assert_eq!(home.ic(["show", "-q", "/home/me/b"]).result(0), "8899\n");
                    home.ic(["show", "-q"]).result(0);
                });
            }
        }
    });
}

#[test]
fn a_writer_that_waited_for_a_lock_adds_to_what_the_other_has_written() {
    let home = Home::new().with_registry(SOUND);
    let registry = home.registry();
    // The Python tool between its flock and its write: the file is empty.
    let holder = File::options().append(true).open(&registry).unwrap();
    FileExt::lock_exclusive(&holder).unwrap();
    let mut ic = WaitReason::start(&home, &["allocate", "-q"]);
    ic.wait_for(&home, FOR_LOCK);
    let written =
        r#"{"mappings": {"/home/me/a": 8888, "/home/me/z": 8889}, "next_available": 8890, "x": 1}"#;
    fs::write(&registry, written).unwrap();
    drop(holder);
    let ran = ic.end();
    assert_eq!((ran.exit, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert_ne!(ran.out, "8889\n", "the other writer has assigned it");
    assert_eq!(home.ic(["show", "-q", "/home/me/z"]).result(0), "8889\n");
    assert_eq!(home.ic(["show", "-q"]).result(0), ran.out);
    assert!(fs::read_to_string(&registry).unwrap().contains("\"x\": 1"));
}

/// A running command.
struct WaitReason {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl WaitReason {
    fn start(home: &Home, arguments: &[&str]) -> WaitReason {
        let mut child = home
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        WaitReason { child, stderr }
    }

    /// Blocks until it prints that it waits for the registry.
    #[track_caller]
    fn wait_for(&mut self, home: &Home, reason: &str) {
        let mut said = String::new();
        self.stderr.read_line(&mut said).unwrap();
        let file = home.registry();
        assert_eq!(said.trim_end(), format!("{reason} `{}`", file.display()));
    }

    /// Its result, with the messages since then.
    fn end(mut self) -> Ran {
        let mut output = self.child.wait_with_output().unwrap();
        std::io::Read::read_to_end(&mut self.stderr, &mut output.stderr).unwrap();
        Ran::from(output)
    }
}
