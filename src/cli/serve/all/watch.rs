//! Waits until the registry file may have changed: by inotify(7) on Linux, elsewhere by a look at the file's stamp every
//! [`PERIOD`].
//!
//! Decided here: what shows a change. The path may lead over symbolic links, and each part of it may be missing, come, go and be
//! replaced at any time. inotify reports no change that another machine makes, so that the stamp is looked at on file systems of
//! the network.

#[cfg(all(target_os = "linux", not(ic_portable)))]
mod inotify;
mod stamp;

use std::time::Duration;

#[cfg(all(target_os = "linux", not(ic_portable)))]
pub use self::inotify::Watch;
#[cfg(not(all(target_os = "linux", not(ic_portable))))]
pub use self::stamp::Watch;

/// The time between two looks at the stamp.
const PERIOD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Instant;

    /// Whether the wait ends after `change` to the folder in which `name` is watched, and not before.
    #[track_caller]
    fn check(why: &str, name: &str, before: impl Fn(&Path), change: impl Fn(&Path)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        before(folder);
        let watch = Watch::new(&folder.join(name));
        let (ended, end) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            watch.wait(Some(Duration::from_secs(20)));
            let _ = ended.send(());
        });
        let early = end.recv_timeout(Duration::from_millis(20));
        assert!(early.is_err(), "{why}: before the change");
        let since = Instant::now();
        change(folder);
        let late = end.recv_timeout(Duration::from_secs(10));
        assert!(
            late.is_ok(),
            "{why}: {:?} after the change",
            since.elapsed()
        );
        thread.join().expect("no failure in the thread");
    }

    fn write(path: impl AsRef<Path>) {
        fs::write(path, "{}").expect("a file");
    }

    fn make(path: impl AsRef<Path>) {
        fs::create_dir_all(path).expect("a folder");
    }

    fn link(to: &str, at: impl AsRef<Path>) {
        symlink(to, at).expect("a link");
    }

    fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) {
        fs::rename(from, to).expect("renamed");
    }

    #[test]
    fn a_change_of_the_file_is_noticed() {
        let file = |at: &Path| write(at.join("r.json"));
        let append = |path: &Path| {
            let file = fs::OpenOptions::new().append(true).open(path);
            file.and_then(|mut file| file.write_all(b" "))
                .expect("written");
        };
        check("made", "r.json", |_| {}, file);
        check("written in place", "r.json", file, |at| {
            append(&at.join("r.json"));
        });
        check("emptied", "r.json", file, |at| {
            fs::File::create(at.join("r.json")).expect("truncated");
        });
        check("removed", "r.json", file, |at| {
            fs::remove_file(at.join("r.json")).expect("removed");
        });
        check("replaced", "r.json", file, |at| {
            write(at.join("new"));
            rename(at.join("new"), at.join("r.json"));
        });
    }

    #[test]
    fn a_change_of_its_folder_is_noticed() {
        let nested = |at: &Path| {
            make(at.join("a/b"));
            write(at.join("a/b/r.json"));
        };
        check("made with its folders", "a/b/r.json", |_| {}, nested);
        check(
            "its folder was empty",
            "a/b/r.json",
            |at| make(at.join("a/b")),
            nested,
        );
        check("a folder is moved away", "a/b/r.json", nested, |at| {
            rename(at.join("a"), at.join("c"));
        });
        check("its folder is removed", "a/b/r.json", nested, |at| {
            fs::remove_dir_all(at.join("a/b")).expect("removed");
        });
    }

    #[test]
    fn the_removal_of_a_folder_with_an_open_file_is_noticed() {
        check(
            "the registry is missing",
            "a/b/r.json",
            |at| {
                make(at.join("a/b"));
                write(at.join("a/b/open"));
            },
            |at| {
                let open = fs::File::open(at.join("a/b/open")).expect("a file");
                fs::remove_dir_all(at.join("a/b")).expect("removed");
                make(at.join("a/b"));
                write(at.join("a/b/r.json"));
                // It stays open, as long as the test process runs.
                std::mem::forget(open);
            },
        );
    }

    #[test]
    fn a_change_behind_a_link_is_noticed() {
        let linked = |at: &Path| {
            make(at.join("real"));
            write(at.join("real/r.json"));
            link("real/r.json", at.join("r.json"));
        };
        check("the real file is written", "r.json", linked, |at| {
            write(at.join("real/r.json"))
        });
        check("the link is replaced", "r.json", linked, |at| {
            write(at.join("other"));
            link("other", at.join("new"));
            rename(at.join("new"), at.join("r.json"));
        });
        check(
            "a file takes the place of the link",
            "r.json",
            linked,
            |at| {
                write(at.join("new"));
                rename(at.join("new"), at.join("r.json"));
            },
        );
        let folder = |at: &Path| {
            make(at.join("one"));
            make(at.join("two"));
            write(at.join("one/r.json"));
            write(at.join("two/r.json"));
            link("one", at.join("now"));
        };
        check(
            "a link in the path is replaced",
            "now/r.json",
            folder,
            |at| {
                fs::write(at.join("two/r.json"), "{ }").expect("a file");
                link("two", at.join("new"));
                rename(at.join("new"), at.join("now"));
            },
        );
        let dangling = |at: &Path| link("real/r.json", at.join("r.json"));
        check("what a link leads to is made", "r.json", dangling, |at| {
            make(at.join("real"));
            write(at.join("real/r.json"));
        });
    }

    #[test]
    fn a_wait_has_a_limit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Watch::new(&folder.path().join("r.json")).wait(Some(Duration::from_millis(1)));
    }
}
