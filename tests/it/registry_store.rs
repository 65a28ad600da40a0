//! Changes of the registry file and its folder by one process.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use fs2::FileExt;
use interceptor::registry::recover::recover;
use interceptor::registry::{Port, PortRange, Project, Store, StoreError, Updated};
use tempfile::TempDir;

use crate::cli_home::{Home, as_user, unprivileged};

const SOUND: &str = r#"{"mappings": {"/home/me/a": 8888}, "next_available": 8889}"#;
/// Damaged but syntactically complete, so that readers do not wait for a writer.
const FLAWED: &str = r#"{"mappings": {"/home/me/a": 8888, "/home/me/b": 0}}"#;

#[test]
fn a_new_registry_creates_only_its_folders_and_its_lock_file() {
    let folder = Folder::new();
    let file = folder.path("new/folders/r.json");
    allocate(&file, "/home/me/a").unwrap();
    assert_eq!(folder.names(), ["new"]);
    assert_eq!(folder.names_in("new"), ["folders"]);
    assert_eq!(folder.names_in("new/folders"), ["r.json", "r.json.lock"]);
    assert_eq!(ports(&file), [8888]);
    // The mode follows the umask, as for any new file.
    let plain = folder.path("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(mode(&file), mode(&plain));

    allocate(&file, "/home/me/b").unwrap();
    assert_eq!(folder.names_in("new/folders"), ["r.json", "r.json.lock"]);
    assert_eq!(ports(&file), [8888, 8889]);
}

#[test]
fn a_rewrite_and_a_backup_keep_permissions_and_owner() {
    let folder = Folder::new();
    let file = folder.path("r.json");
    for (text, also) in [(SOUND, None), (FLAWED, Some("r.json.backup"))] {
        for permissions in [0o600, 0o640, 0o664, 0o666, 0o444, 0o755] {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(permissions)).unwrap();
            // Only root can change the owner; other users keep their own.
            let owner = match chown(&file, Some(65_534), Some(65_533)) {
                Ok(()) => (65_534, 65_533),
                Err(_) => (
                    fs::metadata(&file).unwrap().uid(),
                    fs::metadata(&file).unwrap().gid(),
                ),
            };
            match allocate(&file, "/home/me/new") {
                Ok(_) => {}
                // Without root, a read-only file cannot be written.
                Err(StoreError::Write { .. }) if permissions == 0o444 => continue,
                Err(error) => panic!("{error}"),
            }
            for name in [Some("r.json"), also].into_iter().flatten() {
                let found = fs::metadata(folder.path(name)).unwrap();
                assert_eq!(mode(&folder.path(name)), permissions, "{name}");
                assert_eq!((found.uid(), found.gid()), owner, "{name}");
            }
            for name in folder.names() {
                fs::remove_file(folder.path(&name)).unwrap();
            }
        }
    }
}

#[test]
fn a_file_of_another_user_is_written_in_place_and_keeps_owner_and_permissions() {
    // The folder's mode, the file's mode, and whether it can be written by others than its owner.
    for (folder_mode, file_mode, is_writable) in [
        (0o775, 0o664, true), // both of its group
        (0o777, 0o666, true),
        (0o1777, 0o666, true), // the sticky bit keeps the files of others
        (0o777, 0o644, false),
        (0o755, 0o666, false), // neither a lock nor a copy can be made
    ] {
        for text in [SOUND, FLAWED] {
            let home = Home::new().with_registry(text);
            for (folder, mode) in [
                ("", 0o755),
                (".config", 0o755),
                (".config/litellm", folder_mode),
            ] {
                fs::set_permissions(home.path(folder), Permissions::from_mode(mode)).unwrap();
            }
            for of_group in [home.registry(), home.path(".config/litellm")] {
                // Only root can; without privileges the test is skipped below.
                let _ = chown(of_group, None, Some(65_534));
            }
            fs::set_permissions(home.registry(), Permissions::from_mode(file_mode)).unwrap();
            let before = fs::metadata(home.registry()).unwrap();
            let Some(ran) = unprivileged(&home, &["allocate", "-q", "/home/me/new"]) else {
                return;
            };
            let case = format!("{folder_mode:o} {file_mode:o} {text}: {ran:?}");
            if !rustix::process::geteuid().is_root() {
                eprintln!(
                    "skipped: the tests run without privileges, so the file belongs to their user"
                );
                return;
            }
            let left = || -> Vec<String> {
                let names = fs::read_dir(home.path(".config/litellm")).unwrap();
                let mut names: Vec<_> = names
                    .map(|name| name.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                names
            };
            let after = fs::metadata(home.registry()).unwrap();
            assert_eq!(
                (after.ino(), after.uid(), after.gid(), after.mode()),
                (before.ino(), before.uid(), before.gid(), before.mode()),
                "{case}"
            );
            if !is_writable {
                let complaint = ran.complaint(3);
                assert!(complaint.contains("nothing was changed"), "{complaint}");
                assert_eq!(fs::read_to_string(home.registry()).unwrap(), text);
                let doctor =
                    unprivileged(&home, &["doctor", "--no-stream", "/home/me/new"]).unwrap();
                assert!(doctor.out.contains("⚠ Registry"), "{doctor:?}");
                continue;
            }
            assert_eq!((ran.exit, ran.out.as_str()), (Some(0), "8889\n"), "{case}");
            assert_eq!(ports(&home.registry()), [8888, 8889], "{case}");
            let mut names = vec!["port_registry.json", "port_registry.json.lock"];
            if text == FLAWED {
                names.insert(1, "port_registry.json.backup");
            }
            assert_eq!(left(), names, "{case}");
            let doctor = unprivileged(&home, &["doctor", "--no-stream", "/home/me/new"]).unwrap();
            assert!(doctor.out.contains("✓ Registry"), "{doctor:?}");
            // Also by its owner, and again by the other.
            home.ic(["allocate", "-q", "/home/me/third"]);
            let again = unprivileged(&home, &["remove", "/home/me/new"]).unwrap();
            assert_eq!(again.exit, Some(0), "{again:?}");
            assert_eq!(ports(&home.registry()), [8888, 8890], "{case}");
        }
    }
}

#[test]
fn the_lock_is_open_to_every_user_of_the_registry_whatever_the_umask_of_its_creator() {
    const OWNER: (u32, u32) = (1001, 1001);
    const MEMBER: (u32, u32) = (1002, 2000);
    const ROOT: (u32, u32) = (0, 0);
    // The registry's owner, group, and mode; the folder's mode; who changes it first, and then; the lock's owner, group, and mode.
    for (of, mode, folder_mode, first, then, lock) in [
        (
            (1001, 2000),
            0o664,
            0o2775,
            OWNER,
            MEMBER,
            (1001, 2000, 0o664),
        ),
        (
            (1001, 2000),
            0o660,
            0o2770,
            OWNER,
            MEMBER,
            (1001, 2000, 0o660),
        ),
        (
            (1001, 2000),
            0o664,
            0o2775,
            ROOT,
            MEMBER,
            (1001, 2000, 0o664),
        ),
        ((1001, 1001), 0o600, 0o755, ROOT, OWNER, (1001, 1001, 0o600)),
        (
            (1001, 1001),
            0o666,
            0o777,
            MEMBER,
            OWNER,
            (1002, 2000, 0o666),
        ),
        // The owner is not in the group, so that the permissions of all users are theirs.
        (
            (1001, 2000),
            0o660,
            0o2770,
            MEMBER,
            OWNER,
            (1002, 2000, 0o664),
        ),
    ] {
        // As created; and as an older version, or another umask, has left it.
        for left in [None, Some(0o600), Some(0o644)] {
            let home = Home::new().with_registry(SOUND);
            let folder = home.path(".config/litellm");
            let beside = home.path(".config/litellm/port_registry.json.lock");
            for above in ["", ".config"] {
                fs::set_permissions(home.path(above), Permissions::from_mode(0o755)).unwrap();
            }
            let owner = |(user, group)| (Some(user), Some(group));
            let give = |path: &Path, (user, group)| chown(path, user, group);
            if give(&home.registry(), owner(of)).is_err() {
                eprintln!("skipped: only root can give a file to another user");
                return;
            }
            give(&folder, owner(of)).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(folder_mode)).unwrap();
            fs::set_permissions(home.registry(), Permissions::from_mode(mode)).unwrap();
            if let Some(left) = left {
                fs::write(&beside, "").unwrap();
                // As any new file in that folder.
                let group = if folder_mode & 0o2000 != 0 {
                    of.1
                } else {
                    first.1
                };
                give(&beside, owner((first.0, group))).unwrap();
                fs::set_permissions(&beside, Permissions::from_mode(left)).unwrap();
            }
            for (user, path) in [(first, "/home/me/b"), (then, "/home/me/c")] {
                let case = format!("{of:?} {mode:o} {left:?} {user:?}");
                let Some(ran) = as_user(&home, user, "077", &["allocate", "-q", path]) else {
                    return;
                };
                assert_eq!(ran.exit, Some(0), "{case}: {ran:?}");
                let found = fs::metadata(&beside).unwrap();
                let found = (found.uid(), found.gid(), found.mode() & 0o7777);
                assert_eq!(found, lock, "{case}: {:o}", found.2);
                let kept = fs::metadata(home.registry()).unwrap();
                let kept = (kept.uid(), kept.gid(), kept.mode() & 0o7777);
                assert_eq!(kept, (of.0, of.1, mode), "{case}");
            }
            assert_eq!(ports(&home.registry()), [8888, 8889, 8890]);
        }
    }
}

#[test]
fn another_file_in_place_of_the_lock_keeps_its_permissions() {
    for is_linked in [true, false] {
        let folder = Folder::new();
        let (file, lock) = (folder.path("r.json"), folder.path("r.json.lock"));
        fs::write(&file, SOUND).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        fs::write(&lock, if is_linked { "" } else { "a text" }).unwrap();
        fs::set_permissions(&lock, Permissions::from_mode(0o600)).unwrap();
        if is_linked {
            fs::hard_link(&lock, folder.path("other")).unwrap();
        }
        allocate(&file, "/home/me/b").unwrap();
        assert_eq!(mode(&lock), 0o600);
    }
}

#[test]
fn a_torn_file_is_read_and_repaired_from_its_copy_if_it_is_the_start_of_it() {
    const NEW: &str =
        r#"{"mappings": {"/home/me/a": 8888, "/home/me/b": 8889}, "next_available": 8890}"#;
    let zeros = format!("{}\0\0\0\0{}", &NEW[..20], &NEW[24..60]);
    // What a crash leaves in the file and in the copy, and the ports that count then.
    for (text, copy, expected) in [
        ("", NEW, &[8888, 8889][..]),
        (&NEW[..40], NEW, &[8888, 8889]),
        (&NEW[..NEW.len() - 1], NEW, &[8888, 8889]),
        (&zeros, NEW, &[8888, 8889]),
        // Whole: the copy is of a change that was not begun, or not removed.
        (SOUND, NEW, &[8888]),
        (NEW, NEW, &[8888, 8889]),
        // Torn by another program.
        (r#"{"mappings": {"/home/me/z": 9000, "#, NEW, &[9000]),
        // Torn itself.
        (r#"{"mappings": {"/home/me/a": 8888, "#, &NEW[..50], &[8888]),
    ] {
        let folder = Folder::new();
        let (file, beside) = (folder.path("r.json"), folder.path("r.json.copy"));
        fs::write(&file, text).unwrap();
        fs::write(&beside, copy).unwrap();
        let before = folder.state();
        let read = Store::new(file.clone()).read().unwrap();
        let found: Vec<u16> = read
            .registry
            .mappings()
            .map(|(_, port)| port.get())
            .collect();
        assert_eq!(found, expected, "{text}");
        let is_repaired = text == NEW || text == SOUND || (copy == NEW && !text.contains("/z"));
        assert_eq!(read.warning.is_none(), is_repaired, "{text}");
        assert_eq!(folder.state(), before, "a reader changes nothing");

        let updated = allocate(&file, "/home/me/new").unwrap();
        assert_eq!(updated.warning.is_none(), is_repaired, "{text}");
        assert_eq!(ports(&file).len(), expected.len() + 1, "{text}");
        assert!(!beside.exists(), "{text}");
    }
}

#[test]
fn a_symbolic_link_is_kept_and_its_target_replaced() {
    #[track_caller]
    fn check(folder: &Folder, link: &str, target: &str) {
        let (link, target) = (folder.path(link), folder.path(target));
        let leads_to = fs::read_link(&link).unwrap();
        let before = if target.exists() {
            ports(&target).len()
        } else {
            0
        };
        allocate(&link, &format!("/p/{before}")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), leads_to);
        assert!(fs::symlink_metadata(&target).unwrap().is_file());
        assert_eq!(ports(&target).len(), before + 1);
        assert_eq!(ports(&link), ports(&target));
    }
    let folder = Folder::new();
    fs::create_dir(folder.path("real")).unwrap();
    fs::write(folder.path("real/r.json"), SOUND).unwrap();
    symlink(folder.path("real/r.json"), folder.path("absolute")).unwrap();
    symlink("real/r.json", folder.path("relative")).unwrap();
    symlink("relative", folder.path("chain")).unwrap();
    symlink("real", folder.path("linked")).unwrap();
    symlink("linked/new.json", folder.path("dangling")).unwrap();
    symlink("real/made/new.json", folder.path("further")).unwrap();
    check(&folder, "absolute", "real/r.json");
    check(&folder, "relative", "real/r.json");
    check(&folder, "chain", "real/r.json");
    check(&folder, "dangling", "real/new.json");
    check(&folder, "dangling", "real/new.json");
    check(&folder, "further", "real/made/new.json");
    // Locks, backups and temporary files are next to the target, so that all links share them.
    fs::write(folder.path("real/r.json"), FLAWED).unwrap();
    check(&folder, "relative", "real/r.json");
    assert_eq!(
        folder.names_in("real"),
        [
            "made",
            "new.json",
            "new.json.lock",
            "r.json",
            "r.json.backup",
            "r.json.lock"
        ]
    );
    assert_eq!(
        folder.names(),
        [
            "absolute", "chain", "dangling", "further", "linked", "real", "relative"
        ]
    );

    symlink("loop-b", folder.path("loop-a")).unwrap();
    symlink("loop-a", folder.path("loop-b")).unwrap();
    let before = folder.state();
    for broken in ["loop-a", "real/r.json/r.json"] {
        let error = allocate(&folder.path(broken), "/p/x").unwrap_err();
        assert!(
            matches!(error, StoreError::Read { .. } | StoreError::Write { .. }),
            "{error}"
        );
    }
    assert_eq!(folder.state(), before);
}

#[test]
fn a_hard_link_keeps_the_old_content() {
    let folder = Folder::new();
    let (file, kept) = (folder.path("r.json"), folder.path("kept"));
    fs::write(&file, SOUND).unwrap();
    fs::hard_link(&file, &kept).unwrap();
    allocate(&file, "/home/me/new").unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), SOUND);
    assert_eq!(ports(&file), [8888, 8889]);
}

#[test]
fn temporary_files_of_killed_writers_are_removed() {
    let folder = Folder::new();
    let (file, temp, mine) = (
        folder.path("r.json"),
        folder.path("r.json.new"),
        folder.path("mine"),
    );
    fs::write(&mine, "mine").unwrap();
    fs::write(&file, SOUND).unwrap();
    fs::write(&temp, "half a regis").unwrap();
    allocate(&file, "/home/me/b").unwrap();
    assert!(!temp.exists());
    // A symbolic link in its place is removed and never followed.
    symlink(&mine, &temp).unwrap();
    allocate(&file, "/home/me/c").unwrap();
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
    assert_eq!(ports(&file), [8888, 8889, 8890]);
    assert_eq!(folder.names(), ["mine", "r.json", "r.json.lock"]);
    // A symbolic link in place of the lock file is not followed either.
    fs::remove_file(folder.path("r.json.lock")).unwrap();
    symlink(&mine, folder.path("r.json.lock")).unwrap();
    let before = folder.state();
    let error = allocate(&file, "/home/me/d").unwrap_err().to_string();
    assert!(error.contains("(taking the .lock beside it)"), "{error}");
    assert_eq!(folder.state(), before);
}

#[test]
fn a_change_without_effect_neither_writes_nor_waits() {
    let folder = Folder::new();
    let file = folder.path("r.json");
    fs::write(&file, SOUND).unwrap();
    let before = folder.state();
    // Locked by another program, forever.
    let locked = File::open(&file).unwrap();
    FileExt::lock_exclusive(&locked).unwrap();
    assert!(!allocate(&file, "/home/me/a").unwrap().value);
    let unknown = project("/home/me/unknown");
    let removed = Store::new(file.clone()).update(|registry| registry.remove(&unknown));
    assert_eq!(removed.unwrap().value, None);
    assert_eq!(Store::new(file.clone()).read().unwrap().registry.len(), 1);
    assert_eq!(folder.state(), before, "no lock file either");

    let nowhere = folder.path("no/where/r.json");
    let removed = Store::new(nowhere.clone()).update(|registry| registry.remove(&unknown));
    assert_eq!(removed.unwrap().value, None);
    assert!(Store::new(nowhere).read().unwrap().registry.is_empty());
    assert_eq!(folder.state(), before);
}

#[test]
fn no_backup_is_ever_overwritten() {
    let folder = Folder::new();
    let file = folder.path("r.json");
    // Damaged texts, and the content of the backups afterwards, newest first.
    let damaged = |text: &str, kept: &[&str]| {
        fs::write(&file, text).unwrap();
        let updated = allocate(&file, "/home/me/new").unwrap();
        let warning = updated.warning.expect("it was damaged");
        let backup = folder.path("r.json.backup");
        assert_eq!(warning.backup.as_ref(), Some(&backup));
        let mut names = folder.names();
        names.retain(|name| name.contains(".backup"));
        let held: Vec<String> = names
            .iter()
            .map(|name| fs::read_to_string(folder.path(name)).unwrap_or_default())
            .collect();
        assert_eq!(held, kept);
        warning.to_string()
    };
    let [first, second, third] =
        [1, 2, 3].map(|port| format!("{{\"mappings\": {{\"a\": {port}}}}}"));
    let (first, second, third) = (first.as_str(), second.as_str(), third.as_str());
    let said = damaged(first, &[first]);
    let backup = folder.path("r.json.backup");
    assert_eq!(
        said,
        format!(
            "the registry file `{}` was damaged (the path `a` is not absolute); 0 mappings were kept; the damaged \
             file is `{}`",
            file.display(),
            backup.display()
        )
    );
    damaged(second, &[second, first]);
    // The same text again, as after a kill between backup and repair, needs no second copy.
    damaged(second, &[second, first]);
    damaged(first, &[first, first, second]);
    // Anything else with this name is renamed as well, even a folder.
    fs::remove_file(&backup).unwrap();
    fs::create_dir(&backup).unwrap();
    damaged(third, &[third, first, second, ""]);
    assert!(folder.path("r.json.backup.3").is_dir());
}

#[test]
fn writers_exclude_each_other_even_if_the_lock_file_is_removed() {
    let folder = Folder::new();
    let (file, lock) = (folder.path("r.json"), folder.path("r.json.lock"));
    fs::write(&file, SOUND).unwrap();
    let open = || {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&lock)
            .unwrap()
    };
    let old = open();
    FileExt::lock_exclusive(&old).unwrap();
    let (waits, waiting) = mpsc::channel();
    let heard = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let counted = Arc::clone(&heard);
        let store = Store::new(file.clone()).on_wait(move |waiting| {
            counted.fetch_add(1, Ordering::Relaxed);
            waits.send(waiting.to_string()).unwrap();
        });
        let writer = scope.spawn(move || allocate_in(&store, "/home/me/b"));
        let said = waiting.recv().unwrap();
        assert_eq!(
            said,
            format!(
                "waiting for another `ic` that is changing the registry and holds `{}`",
                lock.display()
            )
        );
        // The lock file is removed, and another writer locks a new one.
        fs::remove_file(&lock).unwrap();
        let new = open();
        FileExt::lock_exclusive(&new).unwrap();
        drop(old);
        fs::write(
            &file,
            r#"{"mappings": {"/home/me/c": 8890}, "next_available": 8891}"#,
        )
        .unwrap();
        assert!(!writer.is_finished(), "two writers hold the lock");
        drop(new);
        assert!(writer.join().unwrap().unwrap().value);
    });
    assert_eq!(ports(&file), [8890, 8891]);
    assert_eq!(
        heard.load(Ordering::Relaxed),
        1,
        "the notice is printed once"
    );
}

#[test]
fn a_registry_of_the_maximum_size_is_read_and_a_larger_one_is_refused() {
    const SIZE_MAX: usize = 16 << 20;
    let folder = Folder::new();
    let file = folder.path("r.json");
    let mut text = SOUND.as_bytes().to_vec();
    text.resize(SIZE_MAX, b' ');
    fs::write(&file, &text).unwrap();
    assert_eq!(Store::new(file.clone()).read().unwrap().registry.len(), 1);
    text.push(b' ');
    fs::write(&file, &text).unwrap();
    let before = folder.state();
    for error in [
        Store::new(file.clone()).read().map(drop).unwrap_err(),
        allocate(&file, "/home/me/b").map(drop).unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            format!(
                "the registry `{}` is larger than 16 MiB; move it away, or name another file with --registry or \
                 PORT_REGISTRY_PATH",
                file.display()
            )
        );
    }
    assert_eq!(folder.state(), before);
}

#[test]
fn a_copy_of_another_user_is_not_used() {
    let folder = Folder::new();
    let (file, beside) = (folder.path("r.json"), folder.path("r.json.copy"));
    fs::write(&file, "").unwrap();
    fs::write(&beside, SOUND).unwrap();
    if chown(&beside, Some(65_534), None).is_err() {
        eprintln!("skipped: only root can give a file to another user");
        return;
    }
    let found = || Store::new(file.clone()).read().unwrap().registry.len();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(found(), 0);
    // A user who may write the file can be the one who was writing it: any user, or one of its group.
    for (mode, group, is_used) in [
        (0o666, 65_534, 1),
        (0o664, 65_534, 0),
        (0o664, fs::metadata(&file).unwrap().gid(), 1),
        (0o644, fs::metadata(&file).unwrap().gid(), 0),
    ] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        chown(&beside, None, Some(group)).unwrap();
        assert_eq!(found(), is_used, "{mode:o}, group {group}");
    }
}

/// Assigns a port of 8888–9999 to a project; returns whether the mapping is new.
fn allocate(file: &Path, path: &str) -> Result<Updated<bool>, StoreError> {
    allocate_in(&Store::new(file.to_owned()), path)
}

fn allocate_in(store: &Store, path: &str) -> Result<Updated<bool>, StoreError> {
    let project = project(path);
    store.update(|registry| {
        let allocated = registry.allocate(&project, PortRange::DEFAULT, |_| true);
        allocated.unwrap().created
    })
}

fn project(path: &str) -> Project {
    Project::recorded(Path::new(path)).unwrap()
}

fn ports(file: &Path) -> Vec<u16> {
    recover(&fs::read(file).unwrap())
        .registry
        .mappings()
        .map(|(_, port)| Port::get(port))
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A temporary folder.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        Folder { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        self.names_in("")
    }

    fn names_in(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Each name with its inode, size and change time, which show any change.
    fn state(&self) -> Vec<(String, u64, u64, i64, i64)> {
        let touched = |name: String| {
            let found = fs::symlink_metadata(self.path(&name)).unwrap();
            (
                name,
                found.ino(),
                found.len(),
                found.ctime(),
                found.ctime_nsec(),
            )
        };
        self.names()
            .into_iter()
            .chain([".".to_owned()])
            .map(touched)
            .collect()
    }
}
