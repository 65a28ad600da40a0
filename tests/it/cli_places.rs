//! Unusual paths, and registries in unusual places.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli_home::{Home, Ran, Serving, free_port, held_port, unprivileged};

#[test]
fn all_spellings_of_a_folder_are_one_project() {
    let home = Home::new();
    let shop = home.path("shop");
    symlink(&shop, home.path("link")).expect("a link");
    symlink(home.path("link"), home.path("link-to-link")).expect("a link");
    home.folder("shop/sub");
    let port = home.ic(["allocate", "-q"]).result(0);
    for spelling in [
        shop.join("").into_os_string(),
        shop.join(".").into_os_string(),
        shop.join("sub/..").into_os_string(),
        home.path("link").into_os_string(),
        home.path("link-to-link/").into_os_string(),
        home.path("link/sub/..").into_os_string(),
        OsString::from("."),
        OsString::from("../shop"),
        OsString::from("../shop///"),
    ] {
        let shown = home.ic([OsStr::new("show"), OsStr::new("-q"), &spelling]);
        assert_eq!(shown.result(0), port, "{spelling:?}");
    }
    // The same within the folder through a link, where $PWD differs.
    let home = home.inside_link();
    assert_eq!(home.ic(["allocate", "-q"]).result(0), port);
}

impl Home {
    fn inside_link(self) -> Home {
        let link = self.path("link");
        self.with("PWD", link.clone()).inside(link)
    }
}

#[test]
fn a_deleted_project_can_be_shown_and_removed() {
    let home = Home::new();
    let gone = home.folder("work/gone");
    let named = gone.to_str().expect("UTF-8").to_owned();
    let port = home.ic(["allocate", "-q", &named]).result(0);
    fs::remove_dir_all(home.path("work")).expect("it can be removed");
    assert_eq!(home.ic(["show", "-q", &named]).result(0), port);
    assert_eq!(
        home.ic(["show", "-q", &format!("{named}/")]).result(0),
        port
    );
    assert_eq!(
        home.ic(["show", "-q", "../work/./gone/x/.."]).result(0),
        port
    );
    let listed = home.ic(["list", "--json"]).json(0);
    assert_eq!(listed["mappings"][0]["path"].as_str(), Some(named.as_str()));
    home.ic(["remove", &named]).result(0);
}

#[test]
fn a_deleted_current_folder_is_an_error_unless_a_path_is_given() {
    let home = Home::new();
    let run = |arguments: &str| {
        let gone = home.folder("gone");
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("rmdir \"$PWD\" && exec \"$IC\" {arguments}")])
            .env_clear()
            .env("IC", env!("CARGO_BIN_EXE_ic"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path(""))
            .current_dir(gone)
            .stdin(Stdio::null())
            .output();
        Ran::from(output.expect("the shell can be run"))
    };
    let complaint = run("allocate").complaint(3);
    assert!(
        complaint.starts_with("cannot determine the current folder: "),
        "{complaint}"
    );
    assert!(
        complaint.ends_with("; give the project's PATH"),
        "{complaint}"
    );
    let shop = home.path("shop");
    run(&format!("allocate -q '{}'", shop.display())).result(0);
    run("list").result(0);
    // A free port: the result depends on the folder, not on the listeners of this machine.
    let port = crate::support::free_port();
    run(&format!("--registry relative.json check {port}")).complaint_or_answer();
}

impl Ran {
    /// Without a current folder, a relative file cannot be found: a result without it, or one error message.
    #[track_caller]
    fn complaint_or_answer(self) {
        match self.exit {
            Some(0 | 1) => drop(self.result(0)),
            _ => drop(self.complaint(3)),
        }
    }
}

#[test]
fn a_path_that_is_not_utf_8_can_have_a_port() {
    let newline = "line\nbreak".as_bytes();
    let escape = b"\x1b[2Jclear".as_slice();
    let quotes = br#""quoted\" 'too' $HOME"#.as_slice();
    let latin = b"caf\xe9".as_slice();
    let nearly = b"\xe6\x97x\xff".as_slice();
    let surrogate = b"\xed\xa0\x80".as_slice(); // U+D800 as bytes: not UTF-8
    for name in [newline, escape, quotes, latin, nearly, surrogate] {
        let home = Home::new();
        let folder = home.path(OsStr::from_bytes(name));
        if fs::create_dir(&folder).is_err() {
            eprintln!("skipped {name:?}: no such name on this file system");
            continue;
        }
        let by_path =
            |command: &str| home.ic([OsStr::new(command), OsStr::new("-q"), folder.as_os_str()]);
        let port = by_path("allocate").result(0);
        assert_eq!(by_path("show").result(0), port, "{name:?}");
        let listed = home.ic(["list", "--json"]).result(0);
        assert_eq!(decoded_path(&listed), folder.as_os_str(), "{listed}");
        let checked = home.ic(["check", "--json", port.trim()]).result(0);
        assert_eq!(decoded_path(&checked), folder.as_os_str(), "{checked}");

        // The same folder as the current folder.
        let home = home.inside(&folder);
        assert_eq!(home.ic(["show", "-q"]).result(0), port, "{name:?}");
        assert_eq!(home.ic(["allocate", "-q"]).result(0), port, "{name:?}");
        home.ic(["remove"]).result(0);
        assert_eq!(home.ic(["show"]).exit, Some(1));
    }
}

/// What Python's `os.fsencode(json.loads(text)[…]["path"])` gives: lone surrogates are bytes.
fn decoded_path(text: &str) -> OsString {
    let start = text.find(r#""path":""#).expect("a path") + r#""path":""#.len();
    let mut rest = &text[start..];
    let mut path = Vec::new();
    while let Some(byte) = rest.bytes().next().filter(|byte| *byte != b'"') {
        let length = if byte != b'\\' {
            path.push(byte);
            1
        } else if let Some(byte) = rest.strip_prefix(r"\udc") {
            path.push(u8::from_str_radix(&byte[..2], 16).expect("a byte"));
            6
        } else if rest.starts_with(r"\u") {
            let escape: String =
                serde_json::from_str(&format!("\"{}\"", &rest[..6])).expect("an escape");
            path.extend(escape.bytes());
            6
        } else {
            let escape: String =
                serde_json::from_str(&format!("\"{}\"", &rest[..2])).expect("an escape");
            path.extend(escape.bytes());
            2
        };
        rest = &rest[length..];
    }
    OsString::from_vec(path)
}

#[test]
fn a_registry_in_a_folder_that_is_not_utf_8_is_found() {
    let home = Home::new();
    let folder = home.path(OsStr::from_bytes(b"caf\xe9"));
    if fs::create_dir(&folder).is_err() {
        eprintln!("skipped: this file system has UTF-8 names only");
        return;
    }
    let registry = folder.join("r.json");
    let mut flag = OsString::from("--registry=");
    flag.push(&registry);
    home.ic([flag.as_os_str(), OsStr::new("allocate"), OsStr::new("-q")])
        .result(0);
    assert!(registry.is_file());
    let home = home.with("PORT_REGISTRY_PATH", &registry);
    home.ic(["show", "-q"]).result(0);
    let text = home.ic(["list"]).result(0);
    assert!(text.contains(r"caf\xe9/r.json"), "{text}");
}

#[test]
fn a_path_that_no_shell_has_expanded_is_in_the_home_folder_or_refused() {
    let literal = |given: &str| Home::new().with("PORT_REGISTRY_PATH", given);
    for given in [
        "~/ports.json",
        "~//ports.json",
        "~/./ports.json",
        "~/shop/../ports.json",
        "$HOME/ports.json",
        "${HOME}/ports.json",
    ] {
        // As in a file of variables: two projects, one registry.
        let home = literal(given);
        home.ic(["allocate", "-q"]).result(0);
        let other = home.folder("other");
        let home = home.inside(other);
        home.ic(["allocate", "-q"]).result(0);
        let listed = home.ic(["list", "--json"]).json(0);
        assert_eq!(listed["allocated_ports"], 2, "{given}");
        assert!(home.path("ports.json").is_file(), "{given}");
        // As `--registry=~/ports.json`, which no shell expands either.
        let option = format!("--registry={given}");
        let by_option = Home::new();
        by_option.ic([option.as_str(), "allocate", "-q"]).result(0);
        assert!(by_option.path("ports.json").is_file(), "{given}");
        assert_eq!(
            std::fs::read_dir(by_option.path("shop"))
                .into_iter()
                .flatten()
                .count(),
            0
        );
    }
    for given in ["~", "$HOME", "~/", "~/ports/", "${HOME}/ports/"] {
        let home = literal(given);
        let before = home.content();
        let complaint = home.ic(["allocate"]).complaint(3);
        assert!(
            complaint.contains("/` is a folder, not a file; "),
            "{complaint}"
        );
        assert_eq!(home.content(), before, "{given}");
    }
    for given in [
        "~me/ports.json",
        "$XDG_CONFIG_HOME/ports.json",
        "${X}/y/z.json",
    ] {
        let home = literal(given);
        let before = home.content();
        for arguments in [&["allocate"][..], &["list"], &["check", "9999"]] {
            let complaint = home.ic(arguments).complaint(2);
            let expected =
                format!("`PORT_REGISTRY_PATH={given}` begins with what only a shell expands; ");
            assert!(complaint.starts_with(&expected), "{complaint}");
        }
        assert_eq!(home.content(), before);
    }
    // Names that only look like it.
    for (given, file) in [
        ("./~/ports.json", "shop/~/ports.json"),
        ("./$x/ports.json", "shop/$x/ports.json"),
        ("~ports.json", "shop/~ports.json"),
        ("$ports", "shop/$ports"),
    ] {
        let home = Home::new();
        home.ic(["--registry", given, "allocate", "-q"]).result(0);
        assert!(home.path(file).is_file(), "{given}");
    }
}

#[test]
fn a_project_that_no_shell_has_expanded_is_in_the_home_folder() {
    let home = Home::new();
    let port = home.ic(["allocate", "-q"]).result(0);
    for path in ["~/shop", "$HOME/shop", "~/shop/"] {
        assert_eq!(home.ic(["show", "-q", path]).result(0), port, "{path}");
    }
    home.folder("shop/~/shop");
    assert_eq!(home.ic(["show", "./~/shop"]).exit, Some(1));
    let refused = home.ic(["allocate", "~me/shop"]).complaint(2);
    assert!(
        refused.starts_with("`~me/shop` begins with what only"),
        "{refused}"
    );
}

#[test]
fn a_registry_in_quotes_or_white_space_is_refused() {
    for (given, why) in [
        ("\"~/ports.json\"", "begins with a quote; "),
        ("'/srv/ports.json'", "begins with a quote; "),
        ("\"ports.json", "begins with a quote; "),
        ("\"", "begins with a quote; "),
        ("“~/ports.json”", "begins with a quote; "),
        (" ~/ports.json", "begins with white space; "),
        ("\u{a0}/srv/ports.json", "begins with white space; "),
        (" ", "begins with white space; "),
        ("~/ports.json ", "ends with white space or a line end; "),
        ("ports.json\r", "ends with white space or a line end; "),
    ] {
        for is_variable in [true, false] {
            let home = Home::new();
            let home = if is_variable {
                home.with("PORT_REGISTRY_PATH", given)
            } else {
                home
            };
            let before = home.content();
            for arguments in [&["allocate"][..], &["list"], &["check", "9999"], &["env"]] {
                let option = ["--registry", given];
                let option = option.iter().filter(|_| !is_variable);
                let ran = home.ic(option.chain(arguments));
                let complaint = ran.complaint(2);
                let source = if is_variable {
                    "`PORT_REGISTRY_PATH="
                } else {
                    "`--registry "
                };
                assert!(complaint.starts_with(source), "{complaint}");
                assert!(complaint.contains(&format!("` {why}leave ")), "{complaint}");
            }
            assert_eq!(home.content(), before, "{given}");
        }
    }
    // Inside of a path, and in a relative one that is meant, they are part of names.
    for given in ["./\"ports.json", "./ports \"1\".json", "ports of me.json"] {
        let home = Home::new();
        home.ic(["--registry", given, "allocate", "-q"]).result(0);
        assert!(home.path("shop").join(given).is_file(), "{given}");
    }
}

#[test]
fn a_relative_registry_in_a_variable_is_a_warning() {
    let home = Home::new().with("PORT_REGISTRY_PATH", "ports.json");
    let here = home.path("shop/ports.json");
    let warning = format!(
        "ic: warning: `PORT_REGISTRY_PATH=ports.json` is relative, so each folder has a registry of its own (here `{}`); \
         give an absolute path, or one that begins with `~/`\n",
        here.display()
    );
    for arguments in [
        &["allocate", "-q"][..],
        &["list"],
        &["check", "--json", "1"],
    ] {
        assert_eq!(home.ic(arguments).err, warning, "{arguments:?}");
    }
    assert!(here.is_file());
    let ran = home.ic(["snippet", "systemd"]);
    assert_eq!(ran.err.matches("warning:").count(), 1, "{ran:?}");
    // An option is meant for one run.
    home.ic(["--registry", "ports.json", "list"]).result(0);
}

#[test]
fn long_paths_can_have_ports_up_to_the_limit_of_the_system() {
    let home = Home::new();
    let mut long = home
        .path("shop")
        .into_os_string()
        .into_string()
        .expect("UTF-8");
    while long.len() < 3800 {
        long.push_str("/a-folder-that-is-not-there-and-has-a-long-name");
    }
    let port = home.ic(["allocate", "-q", &long]).out;
    assert_eq!(home.ic(["show", "-q", &long]).result(0), port);
    let shown = home.ic(["show", "--json", &long]).json(0);
    assert_eq!(shown["path"].as_str(), Some(long.as_str()));

    let before = home.content();
    let too_long = "x".repeat(5000);
    let complaint = home.ic(["allocate", &too_long]).complaint(3);
    assert!(complaint.starts_with("cannot resolve `xxx"), "{complaint}");
    assert_eq!(home.content(), before);
}

#[test]
fn a_path_with_a_symlink_loop_is_refused() {
    let home = Home::new();
    symlink(home.path("b"), home.path("a")).expect("a link");
    symlink(home.path("a"), home.path("b")).expect("a link");
    let before = home.content();
    for command in ["show", "allocate", "remove"] {
        let complaint = home.ic([command, "../a"]).complaint(3);
        assert!(
            complaint.starts_with("cannot resolve `../a`: "),
            "{complaint}"
        );
    }
    assert_eq!(home.content(), before);
}

#[test]
fn without_home_the_user_database_is_used() {
    let mut ic = Command::new(env!("CARGO_BIN_EXE_ic"));
    ic.args(["list", "--json"]).env_clear().stdin(Stdio::null());
    for home in [None, Some("")] {
        if let Some(home) = home {
            ic.env("HOME", home);
        }
        let ran = Ran::from(ic.output().expect("the program can be run"));
        if ran.exit == Some(3) {
            // A user without an entry.
            assert!(ran.complaint(3).contains("HOME"));
            continue;
        }
        let listed: Value = serde_json::from_str(&ran.out).expect("JSON");
        let file = listed["registry_file"].as_str().expect("a path");
        assert!(Path::new(file).is_absolute(), "{file}");
        assert!(
            file.ends_with("/.config/litellm/port_registry.json"),
            "{file}"
        );
    }
}

#[test]
fn a_relative_home_is_refused() {
    let home = Home::new().with("HOME", "relative");
    let before = home.content();
    for command in ["list", "allocate"] {
        let complaint = home.ic([command]).complaint(3);
        assert!(
            complaint.contains("; set HOME to an absolute path, or name another file"),
            "{complaint}"
        );
    }
    // Commands work without a registry.
    for command in [&["check", "9999", "--json"][..], &["suggest", "-n", "1"]] {
        let ran = home.ic(command);
        assert!(ran.exit != Some(3) && !ran.out.is_empty(), "{ran:?}");
        assert!(
            ran.err.starts_with("ic: warning: no registry is known: "),
            "{ran:?}"
        );
    }
    assert_eq!(home.content(), before);
    let elsewhere = home.ic(["--registry", "r.json", "allocate", "-q"]);
    elsewhere.result(0);
}

#[test]
fn a_path_that_cannot_be_a_registry_is_an_error_and_is_not_changed() {
    /// The exit code of `list`, which treats a path under a file as a missing registry.
    #[track_caller]
    fn check(home: &Home, registry: &Path, list: i32) {
        let registry = registry.to_str().expect("UTF-8");
        let before = home.content();
        let read = home.ic(["--registry", registry, "list"]);
        assert_eq!(read.exit, Some(list), "{read:?}");
        if list == 3 {
            let complaint = read.complaint(3);
            assert!(complaint.contains(registry), "{complaint}");
        }
        for command in [["allocate", "-q"], ["reset", "--yes"]] {
            let mut arguments = vec!["--registry", registry];
            arguments.extend(command);
            let complaint = home.ic(&arguments).complaint(3);
            assert!(complaint.contains(registry), "{complaint}");
            assert!(complaint.contains("; "), "what to do: {complaint}");
        }
        assert_eq!(home.content(), before);
    }
    let home = Home::new();
    check(&home, &home.folder("folder.json"), 3);
    check(&home, &home.path("no-folder-yet/"), 3);

    fs::write(home.path("file"), "mine").expect("a file");
    let under_a_file = home.ic([
        "--registry",
        home.path("file/r.json").to_str().expect("UTF-8"),
        "list",
    ]);
    let list = under_a_file.exit.expect("an exit code");
    assert!(list == 0 || list == 3, "{under_a_file:?}");
    check(&home, &home.path("file/r.json"), list);

    symlink(home.path("loop"), home.path("loop")).expect("a link");
    check(&home, &home.path("loop"), 3);

    let fifo = home.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo is installed").success());
    check(&home, &fifo, 3);

    let large = home.path("large");
    let file = fs::File::create(&large).expect("a file");
    file.set_len(50 << 20).expect("a long one");
    check(&home, &large, 3);
}

#[test]
fn a_file_that_is_not_a_registry_is_backed_up_and_replaced() {
    let deep = "[".repeat(100_000);
    let noise: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let page = b"<!DOCTYPE html><title>\"/home/me/a\": 8888</title>";
    std::thread::scope(|scope| {
        for text in [deep.as_bytes(), &noise, page] {
            scope.spawn(move || {
                let home = Home::new().with_registry(text);
                let listed = home.ic(["list", "--json"]);
                assert_eq!(listed.exit, Some(0), "{listed:?}");
                assert!(listed.err.starts_with("ic: warning: "), "{listed:?}");
                assert_eq!(
                    fs::read(home.registry()).expect("the registry exists"),
                    text
                );

                let allocated = home.ic(["allocate", "-q"]);
                assert_eq!(allocated.exit, Some(0), "{allocated:?}");
                assert!(
                    allocated.err.contains("; 0 mappings were kept; "),
                    "{allocated:?}"
                );
                let backup = fs::read(home.path(".config/litellm/port_registry.json.backup"));
                assert_eq!(backup.expect("a backup"), text);
                assert_eq!(home.ic(["show", "-q"]).result(0), allocated.out);
            });
        }
    });
}

#[test]
fn a_registry_that_cannot_be_written_is_read() {
    let home = Home::new();
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, 8888)], 8889);
    // Readable but not writable; other users must be able to enter the parent folders.
    for folder in ["", ".config", ".config/litellm"] {
        fs::set_permissions(home.path(folder), fs::Permissions::from_mode(0o555)).expect("mine");
    }
    fs::set_permissions(home.registry(), fs::Permissions::from_mode(0o444)).expect("mine");
    let (shop, other) = (shop.to_str().expect("UTF-8"), "/nowhere/else");
    if let Some(shown) = unprivileged(&home, &["show", "-q", shop]) {
        assert_eq!(shown.result(0), "8888\n");
        let again = |arguments: &[&str]| unprivileged(&home, arguments).expect("as before");
        again(&["list"]).result(0);
        // The project has a port already, so nothing is written.
        assert_eq!(again(&["allocate", "-q", shop]).result(0), "8888\n");
        for arguments in [["allocate", other], ["remove", shop], ["reset", "--yes"]] {
            let complaint = again(&arguments).complaint(3);
            assert!(complaint.contains("permission denied"), "{complaint}");
        }
    }
    // Allows the removal of the folder.
    for folder in ["", ".config", ".config/litellm"] {
        fs::set_permissions(home.path(folder), fs::Permissions::from_mode(0o755)).expect("mine");
    }
}

#[test]
fn a_mapping_can_be_used_with_its_recorded_path() {
    let home = Home::new();
    let (data, old) = (home.folder("data"), home.path("old"));
    let looped = home.path("looped");
    let upwards = format!("{}/shop/../odd", home.path("").display());
    let home = home.with_mappings(
        &[(&old, 8888), (&looped, 8889), (Path::new(&upwards), 8890)],
        8891,
    );
    // The folder was moved after the allocation.
    std::fs::create_dir(data.join("old")).expect("a folder");
    std::os::unix::fs::symlink(data.join("old"), &old).expect("a link");
    std::os::unix::fs::symlink(&looped, &looped).expect("a link");
    for (path, recorded, port) in [
        ("../old", old.as_path(), 8888),
        (old.to_str().expect("UTF-8"), &old, 8888),
        ("./..//old/", &old, 8888),
        ("../looped", &looped, 8889), // cannot be resolved at all
        (&upwards, Path::new(&upwards), 8890), // written by hand
    ] {
        let shown = home.ic(["show", "--json", path]).json(0);
        assert_eq!(shown["path"], serde_json::json!(recorded), "{path}");
        assert_eq!(shown["port"], port, "{path}");
        let env = home.ic(["env", path]).result(0);
        assert!(env.contains(&format!(":{port}/")), "{path}: {env}");
        let ran = home.ic(["snippet", "claude", path]);
        assert!(ran.out.contains(&format!(":{port}\"")), "{path}: {ran:?}");
    }
    // Nor is another port allocated, by that path or in that folder.
    for command in [&["allocate", "-q"][..], &["show", "-q"]] {
        let by_path = home.ic([command, &["../old"]].concat()).result(0);
        assert_eq!(by_path, "8888\n", "{command:?}");
    }
    let home = home.inside(&old).with("PWD", &old);
    for command in [&["allocate", "-q"][..], &["show", "-q"]] {
        assert_eq!(home.ic(command).result(0), "8888\n", "{command:?}");
    }
    // The folder can have one of its own, which takes precedence.
    let shop = home.path("shop");
    let home = home
        .inside(shop)
        .with("SUPERMEMORY_USERNAME", "{parent}/{project}");
    let moved = data.join("old");
    let today: u16 = home
        .ic(["allocate", "-q", moved.to_str().expect("UTF-8")])
        .result(0)
        .trim()
        .parse()
        .expect("a port");
    assert_ne!(today, 8888);
    assert_eq!(
        home.ic(["show", "-q", "../old"]).result(0),
        format!("{today}\n")
    );
    for (path, port) in [
        ("../old", today),
        ("../old", 8888),
        ("../looped", 8889),
        (&upwards, 8890),
    ] {
        assert_eq!(
            home.ic(["remove", "--json", path]).json(0)["port"],
            port,
            "{path}"
        );
    }
    assert_eq!(home.ic(["list", "--json"]).json(0)["allocated_ports"], 0);
    assert_eq!(home.ic(["remove", "../old"]).exit, Some(1));
    let said = home.ic(["remove", "../looped"]).complaint(3);
    assert!(said.starts_with("cannot resolve `../looped`: "), "{said}");
}

#[test]
fn a_name_of_a_folder_is_not_that_of_another_one() {
    let home = Home::new();
    // As `ls` takes it, and lexically.
    let (meant, other) = (home.folder("far/shop"), home.folder("near/shop"));
    let link = home.path("near/link");
    symlink(home.folder("far/away"), &link).expect("a link");
    let home = home.with_mappings(&[(&other, 8888)], 8889);
    let upwards = format!("{}/../shop", link.display());
    for arguments in [&["show"][..], &["remove"], &["env"]] {
        let complaint = home
            .ic([arguments, &[upwards.as_str()]].concat())
            .complaint(1);
        let meant = format!("`{}`", meant.display());
        assert!(complaint.contains(&meant), "{arguments:?}: {complaint}");
    }
    // Nor by a name that no shell gives.
    let home = home.inside(&meant).with("PWD", &upwards);
    let home = home.with("SUPERMEMORY_USERNAME", "{parent}/{project}");
    assert_eq!(home.ic(["show", "-q"]).exit, Some(1));
    let allocated = home.ic(["allocate", "--json"]).json(0);
    assert_eq!(allocated["path"], meant.to_str().expect("UTF-8"));
}

#[test]
fn paths_below_the_current_folder_have_its_name_too() {
    let home = Home::new();
    let (entered, moved) = (home.path("entered"), home.folder("moved"));
    symlink(&moved, &entered).expect("a link");
    home.folder("moved/inner/x");
    let inner = entered.join("inner");
    let mut home = home.with_mappings(&[(&entered, 8888), (&inner, 8889)], 8890);
    for (folder, path, port) in [
        ("", None, 8888),
        ("", Some("."), 8888),
        ("", Some("inner"), 8889),
        ("", Some("inner/x/.."), 8889),
        ("inner", Some(".."), 8888),
        ("inner/x", Some("../.."), 8888),
    ] {
        let current = entered.join(folder);
        home = home.inside(&current).with("PWD", &current);
        let ran = home.ic(["show", "-q"].into_iter().chain(path));
        assert_eq!(ran.result(0), format!("{port}\n"), "{folder} {path:?}");
    }
    // A name of another folder does not count.
    let home = home.inside(&moved).with("PWD", &inner);
    assert_eq!(home.ic(["show", "-q"]).exit, Some(1));
    assert_eq!(home.ic(["show", "-q", "."]).exit, Some(1));
}

#[test]
fn a_moved_project_is_served_on_its_port_where_a_link_is_left_behind() {
    let home = Home::new();
    let (old, port) = (home.path("old"), free_port());
    let moved = home.folder("data/old");
    symlink(&moved, &old).expect("a link");
    let home = home.with_mappings(&[(&old, port)], port + 1);
    let path = old.to_str().expect("UTF-8");
    let serving = Serving::start(&home, &["--project", path]);
    let status = home.ic(["status", "--json"]).json(0);
    let interceptors = status["interceptors"].as_array().expect("a list");
    let found = interceptors.iter().find(|found| found["port"] == port);
    assert_eq!(found.expect("it runs")["path"], path, "{status}");
    // To each other command it is the interceptor of that project.
    let again = home.ic(["serve", "--mock", "--project", path]).complaint(3);
    assert!(
        again.starts_with("this project's interceptor is already running"),
        "{again}"
    );
    home.ic(["health", path]).result(0);
    let examined = home.ic(["doctor", "--no-stream", path]);
    assert!(
        examined
            .out
            .contains(&format!("✓ Port       {port}, this project's interceptor")),
        "{examined:?}"
    );
    serving.stop();
    // Nor does a command that writes allocate another one.
    let set = home.ic(["set", "--json", path, "--instance-id", "kept"]);
    assert_eq!(set.json(0)["path"], path);
    let unit = home.ic(["snippet", "systemd", path]).out;
    let start = format!(" serve --project {path}\n");
    assert!(unit.contains(&start), "{unit}");
    let inside = old.join("sub");
    home.folder("data/old/sub");
    home.folder("data/old/.git");
    fs::write(home.path("data/old/.git/HEAD"), "ref: refs/heads/main\n").expect("a file");
    let run = [
        "run",
        "--mock",
        "--",
        env!("CARGO_BIN_EXE_ic"),
        "health",
        "--json",
    ];
    for (folder, root) in [(&old, "folder"), (&inside, "git")] {
        let mut command = home.command(run);
        command.current_dir(folder).env("PWD", folder);
        command.env("INTERCEPTOR_PROJECT_ROOT", root);
        let ran = Ran::from(command.output().expect("the program can be run"));
        let health: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(health["instance_id"], "kept", "{ran:?}");
        assert_eq!(health["port"], port, "{ran:?}");
    }
    let list = home.ic(["list", "--json"]).json(0);
    assert_eq!(list["allocated_ports"], 1);
    let moved = moved.to_str().expect("UTF-8");
    let document = home.ic(["move", "--json", path, moved]).json(0);
    assert_eq!(document["from"], path);
    let kept = home.ic(["set", "--json", path]).json(0);
    assert_eq!(
        (&kept["path"], &kept["instance_id"]),
        (&moved.into(), &"kept".into())
    );
}

#[test]
fn in_a_subfolder_the_port_of_the_folder_above_is_named() {
    let home = Home::new();
    let (shop, deep) = (home.path("shop"), home.folder("shop/src/deep"));
    let work = home.path("");
    let home = home
        .with_mappings(&[(&work, 8890), (&shop, 8888)], 8889)
        .with("SUPERMEMORY_USERNAME", "{parent}/{project}")
        .inside(&deep);
    let above = format!("`{}` above it has port 8888, ", shop.display());
    let with_path = format!("{above}which commands use there, or with that folder as PATH; ");
    let shown: [&[&str]; 4] = [&["show"], &["show", "-q"], &["env"], &["snippet", "claude"]];
    for arguments in shown {
        let said = home.ic(arguments).complaint(1);
        let start = format!("no port is assigned to `{}`; ", deep.display());
        assert!(said.contains(&start), "{said}");
        assert!(said.contains(&with_path), "{said}");
        assert!(said.contains("`--project-root git`"), "{said}");
    }
    home.folder("shop/.git");
    fs::write(home.path("shop/.git/HEAD"), "ref: refs/heads/main\n").expect("a file");
    let with_option =
        format!("{above}which `ic --project-root git COMMAND` uses in its subfolders too");
    for arguments in shown {
        let said = home.ic(arguments).complaint(1);
        assert!(said.ends_with(&with_option), "{said}");
    }
    let git = |command: &'static str| ["--project-root", "git", command, "-q"];
    assert_eq!(home.ic(git("show")).result(0), "8888\n");
    assert_eq!(home.ic(git("allocate")).result(0), "8888\n");
    // PATH names the project itself, also with the option.
    let home = home.inside("/");
    let said = home
        .ic(["show", deep.to_str().expect("UTF-8")])
        .complaint(1);
    assert!(said.contains(&with_path), "{said}");

    // A command that allocates does, and says so once.
    let port = free_port().to_string();
    let run = ["run", "--mock", "--", "true"];
    let range = ["--port-min", &port, "--port-max", &port];
    for arguments in [
        &["allocate", "-q"][..],
        &["set", "--instance-id", "x"],
        &run,
    ] {
        let home = Home::new();
        let deep = home.folder("shop/src/deep");
        let shop = home.path("shop");
        let home = home.with_mappings(&[(&shop, 8888)], 8889).inside(&deep);
        let note = format!(
            "ic: note: port {port} is new; `{}` above it has port 8888, which ",
            shop.display()
        );
        let ran = home.ic([&range[..], arguments].concat());
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(ran.err.contains(&note), "{arguments:?}: {ran:?}");
        let ran = home.ic([&range[..], arguments].concat());
        assert!(!ran.err.contains("above it"), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn the_root_folder_has_a_name_in_identifiers() {
    // Containers start in it.
    let home = Home::new()
        .inside("/")
        .with("INTERCEPTOR_PORT", free_port().to_string());
    let instance_id = |home: &Home| {
        let health = [env!("CARGO_BIN_EXE_ic"), "health", "--json"];
        let ran = home.ic([&["run", "--mock", "--"], &health[..]].concat());
        let health: Value = serde_json::from_str(&ran.out).expect("JSON");
        health["instance_id"].clone()
    };
    assert_eq!(instance_id(&home), "pycharm-root");
    let home = home
        .with("SUPERMEMORY_USERNAME", "{parent}-{project}")
        .inside("/tmp");
    assert_eq!(instance_id(&home), "root-tmp");
}

#[test]
fn hints_name_the_project_that_is_meant() {
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], hint: &str) {
        let ran = home.ic(arguments);
        let text = format!("{}{}", ran.out, ran.err);
        assert!(text.contains(hint), "{hint} in {ran:?}");
    }
    let (_listener, held) = held_port();
    let home = Home::new();
    let (other, shop) = (home.folder("other shop"), home.path("shop"));
    let home = home.with_mappings(&[(&other, held)], 8888);
    let path = other.to_str().expect("UTF-8");
    let word = format!("'{path}'");
    let serve = ["serve", "--mock", "--project", path];
    check(
        &home,
        &serve,
        &format!("`ic remove {word}` to get another port"),
    );
    check(
        &home,
        &["doctor", path],
        &format!("`ic remove {word}` and `ic serve --project {word}` for another"),
    );
    check(
        &home,
        &["health", path],
        &format!("`ic doctor {word}` says more"),
    );
    check(
        &home,
        &["tail", path],
        &format!("`ic serve --project {word}` starts one"),
    );
    check(
        &home,
        &["show", "../none"],
        &format!("`ic allocate {}` assigns one", home.path("none").display()),
    );
    check(
        &home,
        &["allocate", "../none"],
        &format!(
            "`ic remove {}` removes the mapping",
            home.path("none").display()
        ),
    );
    // Of the current folder, by whatever name, no path is needed.
    check(&home, &["show", "../shop"], "`ic allocate` assigns one");
    let home = home.with_mappings(&[(&shop, held)], 8888);
    check(
        &home,
        &["serve", "--mock"],
        "`ic remove` to get another port",
    );
    check(&home, &["doctor"], "`ic remove` and `ic serve` for another");
    // With the registry that is meant.
    let other = home.path("my ports.json");
    let option = format!("--registry={}", other.display());
    let ic = format!("`ic --registry '{}'", other.display());
    for (arguments, end) in [
        (&["show"][..], "allocate` assigns one"),
        (&["remove"], "list` shows what is assigned"),
        (&["allocate", "../none"], "remove "),
    ] {
        check(
            &home,
            &[&[&*option], arguments].concat(),
            &format!("{ic} {end}"),
        );
    }
}
