//! The registry file with many processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use fs2::FileExt;
use interceptor::registry::store::{Claim, StoreError};
use interceptor::registry::{Port, PortRange, Project, Registry, Store};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

#[test]
fn sixty_four_processes_at_once_lose_no_mapping_and_share_no_port() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("port_registry.json");
    let watched = watch(&file, || {
        let children: Vec<_> = (0..64)
            .map(|number| start("allocate", &file, &format!("/p/{number}-"), 3))
            .collect();
        children.into_iter().flat_map(finish).collect::<Vec<_>>()
    });
    check_all_there(&file, &watched, 64 * 3);
    let left: BTreeSet<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left,
        [
            "port_registry.json".into(),
            "port_registry.json.lock".into()
        ]
        .into()
    );
}

/// A loss is possible where the other program overwrites the file later than the store watches for it: no writer can prevent that.
/// So it says when it was held up, and a run with such a delay is made again.
#[test]
fn neither_ic_nor_the_python_tool_loses_a_mapping_of_the_other() {
    const RUNS_MAX: u32 = 20;
    for (name, other) in [("a stand-in", None), ("python3", Some("python3"))] {
        if other.is_some_and(|program| Command::new(program).arg("-V").output().is_err()) {
            eprintln!("skipped: no {name} here");
            continue;
        }
        let is_proved = (0..RUNS_MAX).any(|_| ic_beside(other));
        assert!(is_proved, "{name} was held up in each of {RUNS_MAX} runs");
    }
}

/// Runs the other program, or its stand-in, beside `ic`. Returns false if it was held up, so that the run proves nothing.
fn ic_beside(other: Option<&str>) -> bool {
    let folder = in_memory();
    let file = folder.path().join("port_registry.json");
    // The Python tool creates a missing file, which is not tested here.
    fs::write(&file, Registry::default().to_text()).unwrap();
    let (given, said) = watch(&file, || {
        let other = match other {
            None => start("other_tool", &file, "/other/", 150),
            Some(program) => Command::new(program)
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/it/python_tool.py"
                ))
                .arg(&file)
                .args(["/other/", "150"])
                .stdout(Stdio::piped())
                .spawn()
                .map(|child| Running { child })
                .unwrap(),
        };
        let children: Vec<_> = (0..4)
            .map(|number| start("allocate_patiently", &file, &format!("/p/{number}-"), 25))
            .collect();
        let mut given: Vec<Port> = children.into_iter().flat_map(finish).collect();
        let said = output(other);
        given.extend(ports(&said));
        (given, said)
    });
    if said.lines().any(|line| line == LATE) {
        return false;
    }
    check_all_there(&file, &given, 150 + 4 * 25);
    true
}

/// What the other program writes when it was held up between its read and its write.
const LATE: &str = "late";

/// A folder in memory where the system has one: on a disk that others keep busy, opening a file to overwrite it can take half a
/// second.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

#[test]
fn killed_writers_lose_no_reported_allocation() {
    const ROUNDS: u32 = 30;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("port_registry.json");
    let temp = folder.path().join("port_registry.json.new");
    let answered = watch(&file, || {
        let mut answered: BTreeMap<PathBuf, Port> = BTreeMap::new();
        let mut random = 1u32;
        let mut up_to = |limit: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % limit
        };
        for round in 0..ROUNDS {
            let prefixes = [0, 1, 2].map(|number| format!("/p/{round}-{number}-"));
            let mut writers: Vec<_> = prefixes
                .iter()
                .map(|prefix| (prefix, start("allocate", &file, prefix, usize::MAX)))
                .collect();
            // Between two reported ports: after this number of checks of the temporary file.
            let mut said = BufReader::new(writers[0].1.child.stdout.take().unwrap());
            let mut line = String::new();
            let mut known: Vec<Port> = Vec::new();
            for _ in 0..=up_to(4) {
                known.extend(next_port(&mut said, &mut line));
            }
            for _ in 0..up_to(3000) {
                let _ = temp.symlink_metadata();
            }
            for (_, writer) in &mut writers {
                writer.child.kill().unwrap();
            }
            while let Some(port) = next_port(&mut said, &mut line) {
                known.push(port);
            }
            for (index, (prefix, mut writer)) in writers.into_iter().enumerate() {
                if index > 0 {
                    said = BufReader::new(writer.child.stdout.take().unwrap());
                    known = std::iter::from_fn(|| next_port(&mut said, &mut line)).collect();
                }
                let paths = (0..).map(|number| PathBuf::from(format!("{prefix}{number}")));
                answered.extend(paths.zip(known.drain(..)));
            }
        }
        answered
    });
    // The next writer removes the temporary file of the last one.
    finish(start("allocate", &file, "/p/last-", 1));
    assert!(!temp.exists());
    let registry = Registry::parse(&fs::read(&file).unwrap()).unwrap();
    assert!(answered.len() >= ROUNDS as usize, "{}", answered.len());
    for (path, port) in &answered {
        assert_eq!(
            registry.path_of(*port),
            Some(path.as_path()),
            "it was reported"
        );
    }
    println!(
        "cases: {} reported ports, {} mappings",
        answered.len(),
        registry.len()
    );
}

/// The next port that a child reports; `None` when it has exited.
fn next_port(said: &mut impl BufRead, line: &mut String) -> Option<Port> {
    loop {
        line.clear();
        if said.read_line(line).unwrap() == 0 {
            return None;
        }
        if let Ok(port) = line.trim_end().parse() {
            return Some(port);
        }
    }
}

/// Every reported port is in the file, for one project each.
#[track_caller]
fn check_all_there(file: &Path, given: &[Port], count: usize) {
    let registry = Registry::parse(&fs::read(file).unwrap()).unwrap();
    let recorded: Vec<Port> = registry.mappings().map(|(_, port)| port).collect();
    let given: BTreeSet<Port> = given.iter().copied().collect();
    assert_eq!(given.len(), count, "ports were assigned twice");
    assert_eq!(recorded.len(), count, "mappings are lost");
    assert_eq!(
        recorded,
        Vec::from_iter(given),
        "the reported ports are not the recorded ones"
    );
}

/// Runs `work` while a reader checks that the file is always sound.
fn watch<R>(file: &Path, work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let store = Store::new(file.to_owned());
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                let snapshot = store.read().unwrap();
                assert!(snapshot.warning.is_none(), "{}", snapshot.warning.unwrap());
                seen += 1;
            }
            assert!(seen > 0);
        });
        // Also when `work` panics: the scope waits for the reader.
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        result.unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// The lock of `ic serve --all`.
#[test]
fn one_process_at_a_time_claims_a_registry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new/port_registry.json");
    let link = folder.path().join("link.json");
    symlink(&file, &link).unwrap();
    let store = Store::new(file.clone());
    assert_eq!(store.claimed_by(), None);
    assert!(!file.parent().unwrap().exists(), "nothing is created");

    // Under the link or without it: the claim is of the file that it leads to.
    let mut first = start("claim", &link, "", 0);
    first.wait_for_a_line();
    assert_eq!(store.claimed_by(), Some(first.child.id()));
    assert!(matches!(store.claim().unwrap(), Claim::HeldBy(Some(pid)) if pid == first.child.id()),);
    // A claim does not keep others from using the registry.
    assert_eq!(finish(start("allocate", &file, "/p/", 1)).len(), 1);
    assert_eq!(store.claimed_by(), Some(first.child.id()));

    // Neither a kill nor an end leaves anything to clean up.
    drop(first);
    assert_eq!(store.claimed_by(), None);
    let mut second = start("claim", &file, "", 0);
    second.wait_for_a_line();
    assert_eq!(Store::new(link).claimed_by(), Some(second.child.id()));
    drop(second);
    assert!(matches!(store.claim().unwrap(), Claim::Ours(_)));
    // A program that only reads the file, such as one that makes a backup, must not be taken for `ic serve --all`.
    let mut reader = start("read", &file.with_extension("json.serve"), "", 0);
    reader.wait_for_a_line();
    assert_eq!(store.claimed_by(), None);
}

#[test]
fn the_file_of_the_claim_has_the_permissions_of_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.json");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o660)).unwrap();
    let claim = Store::new(file).claim().unwrap();
    assert!(matches!(claim, Claim::Ours(_)));
    let found = fs::metadata(folder.path().join("r.json.serve")).unwrap();
    assert_eq!(found.mode() & 0o777, 0o660);
}

struct Running {
    child: Child,
}

impl Running {
    /// Waits until the child has written a port.
    fn wait_for_a_line(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.as_mut().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().parse::<Port>().is_ok());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts this test binary in one of the roles of [`child`].
fn start(role: &str, file: &Path, prefix: &str, count: usize) -> Running {
    let child = Command::new(env::current_exe().unwrap())
        .args([
            "registry_processes::child",
            "--exact",
            "--ignored",
            "--nocapture",
            "--quiet",
        ])
        .env("IC_TEST_ROLE", role)
        .env("IC_TEST_FILE", file)
        .env("IC_TEST_PREFIX", prefix)
        .env("IC_TEST_COUNT", count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Running { child }
}

/// The ports that a child has reported.
fn finish(running: Running) -> Vec<Port> {
    ports(&output(running)).collect()
}

fn ports(output: &str) -> impl Iterator<Item = Port> {
    output.lines().filter_map(|line| line.parse().ok())
}

/// What a child has written until its end.
fn output(mut running: Running) -> String {
    let mut output = String::new();
    running
        .child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    assert!(running.child.wait().unwrap().success(), "{output}");
    output
}

#[test]
#[ignore = "not a test: the child processes of these tests"]
fn child() {
    let variable = |name: &str| env::var(name).expect("set by the test that starts this");
    let file = PathBuf::from(variable("IC_TEST_FILE"));
    let prefix = variable("IC_TEST_PREFIX");
    let count: usize = variable("IC_TEST_COUNT").parse().unwrap();
    // One write for each line, so that a killed process has reported every port.
    let say = |port: Port| {
        std::io::stdout()
            .write_all(format!("\n{port}\n").as_bytes())
            .unwrap()
    };
    match variable("IC_TEST_ROLE").as_str() {
        // "patiently": where the lock is not free for 10 s, which changes nothing and is reported, it tries again.
        role @ ("allocate" | "allocate_patiently") => {
            let store = Store::new(file);
            for number in 0..count {
                let project = Project::recorded(Path::new(&format!("{prefix}{number}"))).unwrap();
                let allocate = |registry: &mut Registry| {
                    registry.allocate(&project, PortRange::DEFAULT, |_| true)
                };
                let updated = loop {
                    match store.update(allocate) {
                        Err(StoreError::Busy(_)) if role == "allocate_patiently" => {}
                        updated => break updated.unwrap(),
                    }
                };
                say(updated.value.unwrap().port);
            }
        }
        "other_tool" => {
            for number in 0..count {
                say(other_tool::allocate(&file, &format!("{prefix}{number}")));
            }
        }
        "claim" => {
            let claim = Store::new(file).claim().unwrap();
            assert!(matches!(claim, Claim::Ours(_)), "{claim:?}");
            say(PortRange::DEFAULT.start());
            // Until the test ends.
            std::io::stdin().read_to_string(&mut String::new()).unwrap();
        }
        "read" => {
            let file = File::open(file).unwrap();
            rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared).unwrap();
            say(PortRange::DEFAULT.start());
            std::io::stdin().read_to_string(&mut String::new()).unwrap();
        }
        role => panic!("no role {role}"),
    }
}

/// The Python tool, reimplemented; `python_tool.py` does the same in Python.
mod other_tool {
    use super::*;

    pub fn allocate(file: &Path, project: &str) -> Port {
        loop {
            let (registry, read_at) = read(file);
            if let Some(port) = allocate_in(registry, read_at, file, project) {
                wait_until_recorded(file, project);
                return port;
            }
        }
    }

    /// The tool is started anew for each project, which takes longer than `ic` takes to find a mapping in a file that it has replaced.
    fn wait_until_recorded(file: &Path, project: &str) {
        let since = Instant::now();
        while read(file).0["mappings"].get(project).is_none() {
            assert!(since.elapsed() < RECORDED_WITHIN, "{project} is lost");
            thread::yield_now();
        }
    }

    /// `None`: it was held up, and has not changed the file.
    fn allocate_in(
        mut registry: Value,
        read_at: Instant,
        file: &Path,
        project: &str,
    ) -> Option<Port> {
        if let Some(port) = registry["mappings"].get(project) {
            return port.to_string().parse().ok();
        }
        let taken: BTreeMap<String, u16> =
            serde_json::from_value(registry["mappings"].clone()).unwrap();
        let (start, end) = (
            &registry["port_range"]["start"],
            &registry["port_range"]["end"],
        );
        let (start, end) = (start.as_u64().unwrap() as u16, end.as_u64().unwrap() as u16);
        let after = |port| if port < end { port + 1 } else { start };
        let mut port = registry["next_available"].as_u64().unwrap() as u16;
        while taken.values().any(|&other| other == port) {
            port = after(port);
        }
        registry["mappings"][project] = json!(port);
        registry["next_available"] = json!(after(port));
        write(file, &registry, read_at).then(|| Port::try_from(port).unwrap())
    }

    fn read(file: &Path) -> (Value, Instant) {
        // Before it is opened: what is read later from a file that was replaced meanwhile is as old as that.
        let read_at = Instant::now();
        let mut file = File::open(file).unwrap();
        FileExt::lock_shared(&file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (serde_json::from_str(&text).unwrap(), read_at)
    }

    /// Returns false if too much time has passed since the read: then nothing is written.
    fn write(file: &Path, registry: &Value, read_at: Instant) -> bool {
        let mut file = OpenOptions::new().write(true).open(file).unwrap();
        if read_at.elapsed() > WRITES_WITHIN / 2 {
            return false;
        }
        // Emptied before it is locked.
        file.set_len(0).unwrap();
        if read_at.elapsed() > WRITES_WITHIN {
            println!("\n{LATE}");
        }
        FileExt::lock_exclusive(&file).unwrap();
        file.write_all(serde_json::to_string_pretty(registry).unwrap().as_bytes())
            .unwrap();
        file.sync_all().unwrap();
        true
    }

    /// For a machine that is busy.
    const RECORDED_WITHIN: Duration = Duration::from_secs(60);

    /// The time for which the store watches for another program that has read the file before its change.
    const WRITES_WITHIN: Duration = Duration::from_millis(5);
}
