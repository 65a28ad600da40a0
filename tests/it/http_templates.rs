//! Placeholders in `--header` and `--instance-id`: their values, their sources, and characters that a field cannot contain.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::*;

/// Returns the value of `x-t` for an interceptor started in `folder`, and what it printed at start.
fn sent(folder: &Path, value: &str, variables: &[(&str, &str)]) -> (String, String, u16) {
    let header = format!("x-t: {value}");
    let stage = Stage::launch("", |launch| {
        let launch = launch
            .in_folder(folder.to_owned())
            .args(["--header", &header]);
        variables
            .iter()
            .fold(launch, |launch, (name, value)| launch.env(name, value))
    });
    let seen = stage.forwarded("GET / HTTP/1.1\r\nHost: localhost\r\nX-T: theirs\r\n\r\n");
    let errors = stage.interceptor.errors();
    let value = seen.fields.one("x-t").expect("the field is set").to_owned();
    (value, errors, stage.interceptor.port)
}

fn folder(name: &str) -> PathBuf {
    let folder = scratch_folder().join(name);
    fs::create_dir(&folder).expect("a scratch folder can be written");
    folder
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

#[test]
fn placeholders_in_a_header_are_filled_in_at_the_start() {
    let shop = folder("shop");
    write(&shop.join(".git/HEAD"), "ref: refs/heads/feature/tax\n");
    let all = "{instance}|{project}|{parent}|{port}|{branch}|{user}|{host}|{{port}}|{\"a\":{}}|Bearer {env:SHOP_KEY}";
    let variables = [
        ("USER", "ada"),
        ("SUPERMEMORY_USERNAME", "me-{project}"),
        ("SHOP_KEY", "sk-{port}"),
    ];
    let (value, errors, port) = sent(&shop, all, &variables);
    let parent = shop.parent().and_then(Path::file_name).expect("a folder");
    let parent = parent.display();
    let host = rustix::system::uname();
    let host = host.nodename().to_str().expect("a name");
    assert_eq!(
        value,
        format!(
            "me-shop|shop|{parent}|{port}|feature/tax|ada|{host}|{{port}}|{{\"a\":{{}}}}|Bearer sk-{{port}}"
        )
    );
    let mut lines = errors.lines();
    assert!(!lines.any(|line| line.starts_with("ic: ")), "{errors}");
}

#[test]
fn placeholders_in_an_instance_id_are_filled_in_at_the_start() {
    let shop = folder("größe");
    write(&shop.join(".git/HEAD"), "ref: refs/heads/feature/tax\n");
    let stage = Stage::launch("", |launch| {
        let all = "{parent}/{project}|{port}|{branch}|{user}|{host}|{{port}}|{x: y}";
        let launch = launch.in_folder(shop.clone()).env("USER", "ada");
        launch.args(["--instance-id", all])
    });
    let parent = shop.parent().and_then(Path::file_name).expect("a folder");
    let (parent, port) = (parent.display(), stage.interceptor.port);
    let host = rustix::system::uname();
    let host = host.nodename().to_str().expect("a name");
    let expected = format!("{parent}/größe|{port}|feature/tax|ada|{host}|{{port}}|{{x: y}}");
    let instance_id = &stage.interceptor.health()["instance_id"];
    assert_eq!(instance_id, &expected[..]);
    let seen = stage.forwarded("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for field in ["x-memory-user-id", "x-pycharm-instance"] {
        let value = seen.fields.one(field).expect("it is set");
        assert_eq!(latin1(expected.as_bytes()), value, "{field}");
    }
}

#[test]
fn the_branch_is_read_from_every_kind_of_checkout() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let branch = |folder: &Path| sent(folder, "<{branch}>", &[]).0;

    let shop = folder("shop");
    write(&shop.join(".git/HEAD"), "ref: refs/heads/main\n");
    assert_eq!(branch(&shop), "<main>");

    write(
        &shop.join(".git/packed-refs"),
        &format!("{COMMIT} refs/heads/main\n"),
    );
    assert_eq!(branch(&shop), "<main>", "with packed references");

    let below = shop.join("a/b");
    fs::create_dir_all(&below).expect("a folder");
    assert_eq!(branch(&below), "<main>", "in a folder of the repository");

    let worktree = shop.join("../wt");
    write(
        &shop.join(".git/worktrees/wt/HEAD"),
        "ref: refs/heads/hot fix\n",
    );
    for named in [
        shop.join(".git/worktrees/wt").display().to_string(),
        "../shop/.git/worktrees/wt".to_owned(),
    ] {
        write(&worktree.join(".git"), &format!("gitdir: {named}\n"));
        assert_eq!(branch(&worktree), "<hot fix>", "a worktree: {named}");
    }

    write(&shop.join(".git/HEAD"), &format!("{COMMIT}\n"));
    assert_eq!(branch(&shop), "<0123456789ab>", "no branch: the commit");

    // The scratch folders are within a repository.
    let outside = tempfile::tempdir().expect("a temporary folder");
    let (value, errors, _) = sent(outside.path(), "<{branch}>", &[]);
    assert_eq!(value, "<>");
    let said = "ic: `{branch}` in the field `x-t` is empty: the project is in no git repository\n";
    assert!(errors.contains(said), "{errors}");
}

/// The author of a repository chooses what is called `.git` and `HEAD`.
#[test]
fn a_hostile_repository_neither_blocks_nor_fills_the_memory() {
    /// Makes something of that name.
    type Make = fn(&Path);
    let rows: &[(&str, Make)] = &[
        ("a FIFO", |path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).expect("a FIFO");
        }),
        ("a device without an end", |path| {
            std::os::unix::fs::symlink("/dev/zero", path).expect("a link");
        }),
        ("a terminal", |path| {
            std::os::unix::fs::symlink("/dev/tty", path).expect("a link");
        }),
        ("a socket", |path| {
            drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
        }),
        ("a folder", |path| {
            fs::create_dir(path).expect("a folder");
        }),
        ("a loop", |path| {
            std::os::unix::fs::symlink(path, path).expect("a link");
        }),
        ("3 GiB", |path| {
            let file = fs::File::create(path).expect("a file");
            file.set_len(3 << 30).expect("a sparse file");
        }),
        ("a branch of 200 kB", |path| {
            write(path, &format!("ref: refs/heads/{}\n", "x".repeat(200_000)));
        }),
    ];
    for &(what, make) in rows {
        for name in [".git", ".git/HEAD", "elsewhere/HEAD"] {
            // The scratch folders are within a repository.
            let folder = tempfile::tempdir().expect("a temporary folder");
            let folder = folder.path().canonicalize().expect("it exists");
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            if name.starts_with("elsewhere") {
                write(&folder.join(".git"), "gitdir: elsewhere\n");
            }
            make(&path);
            let root = [("INTERCEPTOR_PROJECT_ROOT", "git")];
            let (value, errors, _) = sent(&folder, "<{branch}>", &root);
            assert_eq!(value, "<>", "{name}: {what}: {errors}");
        }
    }
    count("templates: hostile repositories", rows.len() * 3);
}

#[test]
fn a_field_has_a_maximum_length_with_its_placeholders_filled_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = "ü".repeat(3000);
    write(
        &folder.path().join(".git/HEAD"),
        &format!("ref: refs/heads/{branch}\n"),
    );
    let (exit, errors) = Launch::toward("http://localhost:1")
        .in_folder(folder.path().to_owned())
        .args(["--header", "x-t: {branch}"])
        .fail();
    assert_eq!(exit, Some(2), "{errors}");
    let said = "ic: the field `x-t` would have 18000 bytes; give a value that has at most 16384 ";
    assert!(errors.starts_with(said), "{errors}");
}

#[test]
fn characters_that_a_field_cannot_contain_are_percent_encoded_with_a_warning() {
    let project = folder("größe 100%");
    let (value, errors, _) = sent(&project, "p={project}", &[("SUPERMEMORY_USERNAME", "me")]);
    assert_eq!(value, "p=gr%C3%B6%C3%9Fe 100%25");
    let said = "ic: `{project}` in the field `x-t` is sent percent-encoded, as `gr%C3%B6%C3%9Fe 100%25`: \
                a field holds no other characters\n";
    assert!(errors.contains(said), "{errors}");

    let (value, _, _) = sent(
        &project,
        "{user}",
        &[("USER", "a\r\nb: c"), ("SUPERMEMORY_USERNAME", "me")],
    );
    assert_eq!(value, "a%0D%0Ab: c", "the value does not add a field");
}

#[test]
fn an_instance_id_or_field_that_cannot_be_filled_in_is_refused_before_the_interceptor_listens() {
    #[track_caller]
    fn check(arguments: &[&str], expected: &str) {
        let outside = tempfile::tempdir().expect("a temporary folder");
        let (exit, errors) = Launch::toward("http://localhost:1")
            .in_folder(outside.path().to_owned())
            .env("EMPTY", "")
            .env("TWO_LINES", "sk-secret\n")
            .args(arguments.iter().copied())
            .fail();
        assert_eq!(exit, Some(2), "{errors}");
        let line = errors.lines().last().unwrap_or_default();
        assert!(line.starts_with(&format!("ic: {expected}")), "{errors}");
        assert!(!errors.contains("sk-secret"), "{errors}");
    }
    check(
        &["--header", "x-t: {port} {brnach}"],
        "`--header x-t:…` contains the unknown placeholder `{brnach}`; known are {instance} ",
    );
    check(
        &["--header", "x-t: {env:A-B}"],
        "`--header x-t:…` contains the unknown placeholder `{env:A-B}`; known are ",
    );
    check(
        &["--instance-id", "{brnach}"],
        "`--instance-id {brnach}` contains the unknown placeholder `{brnach}`; known are {project} ",
    );
    for not_in_ids in ["{instance}", "{env:HOME}"] {
        let expected = format!("`--instance-id {not_in_ids}` contains the unknown placeholder");
        check(&["--instance-id", not_in_ids], &expected);
    }
    check(
        &["--instance-id", "{branch}"],
        "the instance id is empty; give another with `--instance-id` or SUPERMEMORY_USERNAME",
    );
    for variable in ["NO_SUCH_VARIABLE", "EMPTY"] {
        check(
            &[
                "--header",
                &format!("authorization: Bearer {{env:{variable}}}"),
            ],
            &format!(
                "the field `authorization` needs the variable {variable}, which is not set; set it, or "
            ),
        );
    }
    check(
        &["--header", "authorization: Bearer {env:TWO_LINES}"],
        "the field `authorization` cannot hold the value of the variable TWO_LINES: ",
    );
    let (exit, errors) = Launch::toward("http://localhost:1")
        .at(scratch_socket())
        .args(["--instance-id", "{port}"])
        .fail();
    let expected = "ic: the instance id holds {port}, and a Unix socket has none; leave it out";
    assert_eq!(
        (exit, errors.contains(expected)),
        (Some(2), true),
        "{errors}"
    );
}
