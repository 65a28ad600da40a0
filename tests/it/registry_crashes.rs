//! A writer that is killed, or gets an error, at each of its system calls on the registry in turn.
//!
//! `strace` counts the calls of one run and injects a fault at each of them in further runs, so the test does not depend on chance.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use interceptor::registry::recover::recover;
use interceptor::registry::{Registry, Store};
use tempfile::TempDir;

const SOUND: &str = r#"{"mappings": {"/home/me/a": 8888}, "next_available": 8889}"#;
const FLAWED: &str =
    r#"{"mappings": {"/home/me/a": 8888, "/home/me/b": 0}, "next_available": 8889}"#;

/// A fault that `strace` injects at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process is killed before it.
    Kill,
    /// It returns the error of a full or broken disk.
    Error(&'static str),
}

#[test]
fn a_writer_that_is_killed_or_fails_at_any_call_leaves_the_old_or_the_new_registry() {
    if !can_trace() {
        eprintln!("skipped: strace is not installed or not permitted");
        return;
    }
    let cases: usize = thread::scope(|scope| {
        [
            (Some(SOUND), false),
            (None, false),
            (Some(FLAWED), false),
            (Some(SOUND), true),
        ]
        .map(|(text, is_mounted)| scope.spawn(move || check_all(&Scene::new(text, is_mounted))))
        .into_iter()
        .map(|scene| scene.join().unwrap())
        .sum()
    });
    println!("cases: {cases}");
}

/// Python's `open(path).read()` takes no lock, so a file must not be emptied while it may be open.
#[test]
fn the_old_file_is_kept_while_a_program_may_be_reading_it() {
    if !can_trace() {
        eprintln!("skipped: strace is not installed or not permitted");
        return;
    }
    // With an `fsync` that takes no time.
    let options = ["-ttt", "-e", "inject=fsync:retval=0"];
    let calls = Scene::new(Some(SOUND), false).traced(&options);
    // Seconds, and the call.
    let when = |start: &str| {
        let found = calls.lines().find_map(|line| {
            let (time, call) = line.split_once(' ')?;
            call.starts_with(start)
                .then(|| time.parse::<f64>().unwrap())
        });
        found.unwrap_or_else(|| panic!("no {start}: {calls}"))
    };
    let passed = when("ftruncate(") - when("rename");
    assert!(passed > 0.003, "{passed} s: {calls}");
}

/// As DrvFs of WSL refuses `fchmod`, also where it changes nothing.
#[test]
fn a_file_system_that_refuses_to_change_permissions_can_hold_the_registry() {
    if !can_trace() {
        eprintln!("skipped: strace is not installed or not permitted");
        return;
    }
    // A new file gets the mode of the first, and is renamed; the second is written in place.
    for (mode, is_renamed) in [(0o600, true), (0o666, false)] {
        let scene = Scene::new(Some(SOUND), false);
        scene.set();
        let file = scene.path("r.json");
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let before = fs::metadata(&file).unwrap();
        let strace = scene.strace(&["-o", "/dev/null", "-e", "inject=fchmod:error=EPERM"]);
        let ran = scene.ic(&strace, &["allocate", "-q", "/home/me/new"]);
        assert_eq!(ran.stdout, b"8889\n", "{ran:?}");
        let after = fs::metadata(&file).unwrap();
        assert_eq!(after.mode(), before.mode());
        assert_eq!(after.ino() != before.ino(), is_renamed, "{mode:o}");
        let read = Store::new(file).read().unwrap();
        assert_eq!((read.registry.len(), read.warning), (2, None));
        assert!(!scene.path("r.json.copy").exists());
    }
}

/// Injects every fault at every call of a writer in this scene; returns the number of cases.
fn check_all(scene: &Scene) -> usize {
    let text = scene.text;
    let calls = scene.calls();
    assert!(calls.len() >= 8, "{calls:?}");
    let mut cases = 0;
    for (call, count) in calls {
        let faults: &[Fault] = match call.as_str() {
            // Their results are not used.
            "close" | "fcntl" => &[],
            // The fault of a mount point is injected there.
            rename if scene.is_mounted && rename.starts_with("rename") => &[],
            // They change nothing, and are the same for each text.
            "statx" | "lseek" | "read" | "readlink" if text != Some(SOUND) => &[],
            "statx" | "lseek" | "read" | "readlink" => &[Fault::Error("EIO")],
            _ => &[Fault::Error("EIO"), Fault::Error("ENOSPC"), Fault::Kill],
        };
        for nth in 1..=count {
            for &fault in faults {
                scene.check(&call, nth, fault);
                cases += 1;
            }
        }
    }
    cases
}

/// A folder with or without a registry, in which `ic allocate` runs.
struct Scene {
    folder: TempDir,
    text: Option<&'static str>,
    /// Whether the registry cannot be renamed to, as where it is a mount point.
    is_mounted: bool,
}

impl Scene {
    fn new(text: Option<&'static str>, is_mounted: bool) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        Scene {
            folder,
            text,
            is_mounted,
        }
    }

    /// The present content of the registry, and the one before the run.
    fn found_and_old(&self) -> (Option<String>, Option<String>) {
        let old = self.text.map(str::to_owned);
        if !self.is_mounted {
            return (fs::read_to_string(self.path("r.json")).ok(), old);
        }
        // A torn file is read from its copy.
        let read = Store::new(self.path("r.json")).read().unwrap();
        assert_eq!(read.warning, None);
        let old = old.map(|text| Registry::parse(text.as_bytes()).unwrap().to_text());
        (Some(read.registry.to_text()), old)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("registry").join(name)
    }

    /// Restores the state before a run.
    fn set(&self) {
        let _ = fs::remove_dir_all(self.path(""));
        fs::create_dir(self.path("")).unwrap();
        if let Some(text) = self.text {
            fs::write(self.path("r.json"), text).unwrap();
        }
    }

    fn ic(&self, before: &[String], arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_ic").to_owned();
        let mut words = before.iter().chain([&program]);
        Command::new(words.next().unwrap())
            .args(words)
            .arg("--registry")
            .arg(self.path("r.json"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// `strace` for the calls on the files of the registry.
    fn strace(&self, options: &[&str]) -> Vec<String> {
        let mut words = vec!["strace".to_owned()];
        for name in [
            "",
            "r.json",
            "r.json.new",
            "r.json.copy",
            "r.json.lock",
            "r.json.backup",
        ] {
            let path = self.path(name).into_os_string().into_string().unwrap();
            words.extend(["-P".to_owned(), path.trim_end_matches('/').to_owned()]);
        }
        if self.is_mounted {
            words.extend(["-e", "inject=/^rename:error=EBUSY:when=1"].map(str::to_owned));
        }
        words.extend(options.iter().map(|option| (*option).to_owned()));
        words.push("--".to_owned());
        words
    }

    /// The number of times that a run without a fault makes each call.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for line in self.traced(&[]).lines() {
            if let Some((name, _)) = line.split_once('(') {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        calls
    }

    /// The calls of a run without a fault, a line each.
    fn traced(&self, options: &[&str]) -> String {
        self.set();
        let trace = self.folder.path().join("trace");
        let options = [options, &["-o", trace.to_str().unwrap()]].concat();
        let ran = self.ic(&self.strace(&options), &["allocate", "-q", "/home/me/new"]);
        assert!(ran.status.success(), "{ran:?}");
        fs::read_to_string(trace).unwrap()
    }

    #[track_caller]
    fn check(&self, call: &str, nth: usize, fault: Fault) {
        let what = format!("{:?}: {fault:?} at {call} {nth}", self.text);
        let injected = match fault {
            Fault::Kill => format!("inject={call}:signal=KILL:when={nth}"),
            Fault::Error(error) => format!("inject={call}:error={error}:when={nth}"),
        };
        self.set();
        let strace = self.strace(&["-o", "/dev/null", "-e", &injected]);
        let ran = self.ic(&strace, &["allocate", "-q", "/home/me/new"]);
        let is_killed = ran.status.signal() == Some(9);
        let said = String::from_utf8(ran.stderr).unwrap();
        let answered = String::from_utf8(ran.stdout).unwrap();

        // The complete old or the complete new registry.
        let (found, old) = self.found_and_old();
        let is_new = found != old;
        if is_new {
            let text = found.expect(&what);
            let registry = Registry::parse(text.as_bytes()).expect(&what);
            assert_eq!(
                registry.len(),
                recover(self.text.unwrap_or_default().as_bytes())
                    .registry
                    .len()
                    + 1,
                "{what}"
            );
            let given = format!("\"/home/me/new\": {}", answered.trim());
            assert!(text.contains(&given), "{what}: {text}");
        }
        // The printed result and the messages are true.
        match ran.status.code() {
            Some(0) => {
                assert!(
                    is_new && answered.trim().parse::<u16>().is_ok(),
                    "{what}: {answered}"
                );
            }
            Some(3) => {
                let line = said.lines().last().expect(&what);
                assert!(
                    line.starts_with("ic: ") && line.contains("; "),
                    "{what}: {said}"
                );
                assert!(!said.contains("panicked"), "{what}: {said}");
                assert_eq!(answered, "", "{what}");
                assert_eq!(is_new, line.contains("was changed, but"), "{what}: {said}");
                assert_eq!(
                    !is_new,
                    line.contains("nothing was changed") || line.contains("cannot read"),
                    "{what}: {said}"
                );
            }
            _ => assert!(
                is_killed && fault == Fault::Kill,
                "{what}: {:?} {said}",
                ran.status
            ),
        }
        // A damaged file is kept until its backup exists.
        if is_new && self.text == Some(FLAWED) {
            let kept = fs::read_to_string(self.path("r.json.backup")).expect(&what);
            assert_eq!(kept, FLAWED, "{what}");
        }
        // The next writer is not affected, and removes temporary files.
        let ran = self.ic(&[], &["allocate", "-q", "/home/me/next"]);
        assert!(ran.status.success(), "{what}: {ran:?}");
        let mut expected = vec!["r.json", "r.json.lock"];
        if self.text == Some(FLAWED) {
            expected.insert(1, "r.json.backup");
        }
        let mut left: Vec<_> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, expected, "{what}");
        let text = fs::read_to_string(self.path("r.json")).unwrap();
        assert!(text.contains("\"/home/me/next\": 8"), "{what}: {text}");
    }
}

fn can_trace() -> bool {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
        .stderr(Stdio::null())
        .status();
    traced.is_ok_and(|status| status.success())
}
