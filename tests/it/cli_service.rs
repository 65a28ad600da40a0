//! `ic service` with systemd: its file, the calls of `systemctl`, and what is said. The programs of systemd are scripts here;
//! `tests/e2e/service.py` has a real systemd.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use interceptor::registry::store::{Claim, Store};
use serde_json::{Value, json};

use crate::cli_home::{Home, Ran};

/// Keeps what systemd would know in files of the home folder, and writes each call into `calls`.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$HOME" || exit 9
echo "$*" >>calls
[ -e no-bus ] && { echo 'Failed to connect to bus: No medium found' >&2; exit 1; }
unit=.config/systemd/user/ic.service
case "$*" in
*show-environment) cat environment ;;
*--property=ExecMainPID*) echo ExecMainPID=4711 ;;
*--property=ExecStart*) sed -n 's/^ExecStart=\([^ ]*\).*/ExecStart={ path=\1 ; argv[]=\1 ; }/p' $unit ;;
*show*)
    [ -e properties ] && { cat properties; exit; }
    [ -e $unit ] || { echo LoadState=not-found; exit; }
    echo LoadState=loaded; echo "FragmentPath=$HOME/$unit"
    [ -e enabled ] && echo UnitFileState=enabled || echo UnitFileState=disabled
    [ -e running ] && { echo ActiveState=active; echo MainPID=4711; } || { echo ActiveState=inactive; echo MainPID=0; }
    echo Result=success; echo NeedDaemonReload=no ;;
*enable*) case "$*" in *disable*) rm -f enabled running ;; *) touch enabled ;; esac ;;
*restart*)
    [ -e fails ] && { echo 'Job for ic.service failed because the control process exited with error code.' >&2; exit 1; }
    touch running ;;
esac
"#;

/// A home folder in which systemd runs.
pub fn home() -> Home {
    let home = Home::new();
    let programs = home.folder("bin");
    for (name, script) in [
        ("systemctl", SYSTEMCTL),
        (
            "journalctl",
            "#!/bin/sh\ncase \"$*\" in *_PID=4711*) cat \"$HOME/journal\" 2>/dev/null ;; esac\n",
        ),
    ] {
        let file = programs.join(name);
        fs::write(&file, script).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    fs::write(home.path("environment"), "HOME=/home/me\nPATH=/usr/bin\n").expect("a file");
    let path = format!("{}:/usr/bin:/bin", programs.display());
    home.with("PATH", path).with("XDG_RUNTIME_DIR", "/nowhere")
}

fn unit(home: &Home) -> PathBuf {
    home.path(".config/systemd/user/ic.service")
}

fn unit_text(home: &Home) -> String {
    fs::read_to_string(unit(home)).expect("the unit is installed")
}

/// The line of the unit that starts with `name=`, without that.
#[track_caller]
fn line(text: &str, name: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let found = lines.next().unwrap_or_else(|| panic!("{name} in {text}"));
    found.strip_prefix('=').expect(text).to_owned()
}

/// The calls of `systemctl` that change something, since the last time.
fn changes(home: &Home) -> Vec<String> {
    let calls = fs::read_to_string(home.path("calls")).unwrap_or_default();
    let _ = fs::remove_file(home.path("calls"));
    let changes = calls.lines().filter(|call| !call.contains("show"));
    changes.map(str::to_owned).collect()
}

/// The printed unit, and the lines on standard error.
#[track_caller]
fn printed(home: &Home, arguments: &[&str]) -> (String, String) {
    let ran = home.ic([&["service", "print"], arguments].concat());
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    (ran.out, ran.err)
}

#[test]
fn the_unit_runs_ic_serve_all_with_the_options_as_they_are() {
    let home = home();
    let (text, _) = printed(&home, &[]);
    let start = line(&text, "ExecStart");
    assert_eq!(start, format!("{} serve --all", env!("CARGO_BIN_EXE_ic")));
    assert_eq!(line(&text, "Type"), "notify");
    assert_eq!(line(&text, "WantedBy"), "default.target");
    assert_eq!(line(&text, "Restart"), "on-failure");
    assert_eq!(line(&text, "RestartPreventExitStatus"), "2");
    assert!(!text.contains("\nEnvironment="), "nothing is set: {text}");
    #[track_caller]
    fn check(home: &Home, options: &[&str], expected: &str) {
        let (text, _) = printed(home, &[&["--"], options].concat());
        let start = line(&text, "ExecStart");
        let (_, words) = start.split_once(" serve --all ").expect("options");
        assert_eq!(words, expected);
    }
    check(&home, &["--grace", "0.5"], "--grace 0.5");
    check(&home, &["--grace=0.5"], "--grace=0.5");
    check(&home, &["--header", "x-a: b"], "--header \"x-a: b\"");
    check(&home, &["--header=x-a: b=c"], "\"--header=x-a: b=c\"");
    check(&home, &["--header", "x: 100%"], "--header \"x: 100%%\"");
    check(&home, &["--header", "x: $HOME"], "--header \"x: $$HOME\"");
    check(
        &home,
        &["--header", "x: \"a\\b\""],
        "--header \"x: \\\"a\\\\b\\\"\"",
    );
    check(&home, &["--header", "x: it's"], "--header \"x: it's\"");
    check(
        &home,
        &["--instance-id", "{parent}/{project}"],
        "--instance-id \"{parent}/{project}\"",
    );
    // The service runs in another folder.
    let file = home.path("shop/ca.pem");
    check(
        &home,
        &["--ca-file", "ca.pem"],
        &format!("--ca-file {}", file.display()),
    );
    check(
        &home,
        &["--ca-file=ca.pem"],
        &format!("--ca-file {}", file.display()),
    );
    let file = home.path("ca.pem");
    check(
        &home,
        &["--ca-file", "~/ca.pem"],
        &format!("--ca-file {}", file.display()),
    );
    check(&home, &["--ca-file", "/a b"], "--ca-file \"/a b\"");
    // A value that looks like one of these options.
    check(
        &home,
        &["--instance-id", "--ca-file={port}"],
        "--instance-id \"--ca-file={port}\"",
    );
}

#[test]
fn the_unit_holds_the_registry_and_the_variables_that_are_set() {
    let variables = |home: &Home, arguments: &[&str]| -> Vec<String> {
        let (text, _) = printed(home, arguments);
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("Environment="));
        lines.map(str::to_owned).collect()
    };
    let home = home();
    let file = home.path("shop/r.json");
    let expected = [
        format!("PORT_REGISTRY_PATH={}", file.display()),
        "INTERCEPTOR_PORT_MIN=9000".to_owned(),
    ];
    let options = ["--registry", "r.json", "--port-min", "9000"];
    assert_eq!(variables(&home, &options), expected);
    let home = home
        .with("TARGET_LLM_URL", "http://localhost:4000/$a%b")
        .with("SUPERMEMORY_USERNAME", "{project} at {port}")
        .with("SSL_CERT_FILE", "certs.pem")
        .with("INTERCEPTOR_PORT", "9001")
        .with("RUST_LOG", "debug");
    let expected = [
        "\"TARGET_LLM_URL=http://localhost:4000/$a%%b\"".to_owned(),
        "\"SUPERMEMORY_USERNAME={project} at {port}\"".to_owned(),
        format!("SSL_CERT_FILE={}", home.path("shop/certs.pem").display()),
    ];
    assert_eq!(variables(&home, &[]), expected);
    // `ic serve --all` would not use it.
    let home = home.with("SUPERMEMORY_USERNAME", "everyone");
    assert!(!printed(&home, &[]).0.contains("everyone"));
}

#[test]
fn systemd_accepts_the_unit() {
    let home = home().with("TARGET_LLM_URL", "http://localhost:4000/$a%b");
    let (text, _) = printed(&home, &["--", "--header", "x: \"a\" 50% $b ; 'c'"]);
    let file = home.path("ic.service");
    fs::write(&file, text).expect("a file");
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--user", "--recursive-errors=no"])
        .arg(&file)
        .output();
    let Ok(verified) = verify else {
        eprintln!("skipped: systemd is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    // It looks for the manual in the folders of this machine.
    assert!(!said.contains("ic.service"), "{said}");
}

#[test]
fn bad_options_come_before_a_missing_manager_and_change_nothing() {
    let home = home().with("container", "podman");
    fs::write(home.path("no-bus"), "").expect("a file");
    let before = home.content();
    for (arguments, start) in [
        (
            &["--", "--grace", "soon"][..],
            "`--grace soon` is not a duration",
        ),
        (
            &["--", "--heder", "a"],
            "`ic serve` has no option `--heder`; did you mean `--header`?",
        ),
        (
            &["--", "--header", "a: {env:NOPE}"],
            "the field `a` needs the variable NOPE",
        ),
        (&["--port-min", "0"], "`--port-min 0` is not a port"),
        (
            &["--grace", "1"],
            "`ic service` has no option `--grace`; give other options behind `--`",
        ),
        (&["shop"], "unexpected argument `shop`"),
        (&["--json"], "`--json` is for `ic service status`"),
    ] {
        for action in ["install", "print"] {
            let said = home
                .ic([&["service", action], arguments].concat())
                .complaint(2);
            assert!(said.starts_with(start), "{said}");
        }
    }
    for arguments in [
        &["status", "--", "a"][..],
        &["uninstall", "--", "--mock"],
        &["start"],
        &[],
    ] {
        home.ic([&["service"], arguments].concat()).complaint(2);
    }
    let _ = fs::remove_file(home.path("calls"));
    assert_eq!(home.content(), before);
    for action in ["install", "status", "uninstall"] {
        let said = home.ic(["service", action]).complaint(3);
        let start =
            "the systemd of this user cannot be used: failed to connect to bus: No medium found; ";
        assert!(said.starts_with(start), "{said}");
    }
    let _ = fs::remove_file(home.path("calls"));
    assert_eq!(home.content(), before);
    let ran = home.ic(["service", "status", "--json"]);
    assert_eq!(ran.exit, Some(3), "{ran:?}");
    let document: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        document,
        json!({"manager": null, "installed": false, "enabled": false, "running": false, "pid": null, "unit": null})
    );
    let (text, _) = printed(&home, &[]);
    assert!(text.contains("[Service]"), "it needs no manager: {text}");
}

#[test]
fn without_a_manager_the_line_to_put_elsewhere_is_named() {
    #[track_caller]
    fn check(variable: Option<&str>, expected: &str) {
        let mut home = Home::new().with("PATH", "/nowhere");
        if let Some(name) = variable {
            home = home.with(name, "it");
        }
        let home = home.with("TARGET_LLM_URL", "http://a/$b");
        let ic = env!("CARGO_BIN_EXE_ic");
        let words = ["service", "install", "--", "--header", "x: it's"];
        let said = home.ic(words).complaint(3);
        assert!(
            said.starts_with("the systemd of this user cannot be used: there is no `systemctl`; "),
            "{said}"
        );
        let line = format!("`TARGET_LLM_URL='http://a/$b' {ic} serve --all --header 'x: it'\\''s'");
        assert!(said.contains(&line), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    check(
        Some("container"),
        "in a container, let its entrypoint run `",
    );
    if std::path::Path::new("/.dockerenv").exists() {
        eprintln!("skipped: this is a container");
        return;
    }
    check(
        Some("WSL_DISTRO_NAME"),
        "`systemd=true` below `[boot]` into `/etc/wsl.conf`",
    );
    check(None, " 2>/dev/null &` into `~/.profile`");
}

#[test]
fn install_writes_enables_and_starts_and_again_with_other_options() {
    let home = home();
    let ran = home.ic(["service", "install"]);
    let file = unit(&home);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert_eq!(
        ran.out,
        format!(
            "✓ Service installed: ic serve --all runs (pid 4711) and starts at login\n  File: {}\n  \
             Log:  journalctl -e --user-unit ic.service\n",
            file.display()
        )
    );
    let steps = [
        "--user daemon-reload",
        "--user daemon-reload",
        "--user --quiet enable ic.service",
        "--user reset-failed ic.service",
        "--user restart ic.service",
    ];
    assert_eq!(changes(&home), steps);
    let first = unit_text(&home);
    home.ic(["service", "install"]);
    assert_eq!(unit_text(&home), first, "it is idempotent");
    assert_eq!(changes(&home), steps);
    home.ic(["service", "install", "--", "--grace", "3"]);
    let second = unit_text(&home);
    assert!(
        line(&second, "ExecStart").ends_with(" serve --all --grace 3"),
        "{second}"
    );
    assert_eq!(line(&second, "TimeoutStopSec"), "8");
    assert_eq!(changes(&home), steps);
    home.ic(["service", "install"]);
    assert_eq!(unit_text(&home), first, "the options of before are gone");
    // The folder of the user's configuration may be another one.
    let elsewhere = home.folder("elsewhere");
    let home = home.with("XDG_CONFIG_HOME", elsewhere);
    home.ic(["service", "install"]);
    assert!(home.path("elsewhere/systemd/user/ic.service").exists());
}

#[test]
fn the_service_starts_the_name_that_ic_was_called_by() {
    let home = home();
    let link = home.path("bin/ic");
    symlink(env!("CARGO_BIN_EXE_ic"), &link).expect("a link");
    let run = |program: &str| {
        let ic = home.command(["service", "print"]);
        let envs = ic
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("{program} service print")])
            .env_clear()
            .envs(envs)
            .current_dir(home.path("bin"))
            .output();
        line(
            &Ran::from(output.expect("there is a shell")).out,
            "ExecStart",
        )
    };
    for name in ["ic", "./ic", &link.display().to_string()] {
        assert_eq!(
            run(name).replace("/./", "/"),
            format!("{} serve --all", link.display())
        );
    }
    // Another program of that name comes first.
    let ran = home.ic(["service", "print"]);
    let start = line(&ran.out, "ExecStart");
    assert_eq!(start, format!("{} serve --all", env!("CARGO_BIN_EXE_ic")));
    assert!(ran.err.contains("which is in a build folder"), "{ran:?}");
}

#[test]
fn a_service_that_does_not_start_is_reported_with_its_last_line() {
    let home = home();
    fs::write(home.path("fails"), "").expect("a file");
    let said = home.ic(["service", "install"]).complaint(3);
    let start = "the service does not start: `systemctl --user restart ic.service` failed: job for";
    assert!(said.starts_with(start), "{said}");
    fs::write(
        home.path("journal"),
        "ic: cannot read `/a`: is a directory\n",
    )
    .expect("a file");
    let said = home.ic(["service", "install"]).complaint(3);
    assert_eq!(
        said,
        "the service does not start: cannot read `/a`: is a directory; `journalctl -e --user-unit ic.service` shows more"
    );
}

#[test]
fn status_says_what_is_wrong() {
    let home = home();
    let said = home.ic(["service", "status"]).complaint(1);
    assert_eq!(
        said,
        "the service is not installed; `ic service install` installs it"
    );
    home.ic(["service", "install"]);
    let file = unit(&home).display().to_string();
    let ran = home.ic(["service", "status"]);
    assert_eq!(
        ran.result(0),
        format!(
            "Manager:   systemd\nFile:      {file}\nAt login:  yes\nRunning:   yes, pid 4711\n\
             Log:       journalctl -e --user-unit ic.service\n"
        )
    );
    assert_eq!(
        home.ic(["service", "status", "--json"]).json(0),
        json!({"manager": "systemd", "installed": true, "enabled": true, "running": true, "pid": 4711, "unit": file})
    );
    #[track_caller]
    fn check(home: &Home, exit: i32, properties: &str, expected: &str) {
        let all = "LoadState=loaded\nFragmentPath=/u/ic.service\nUnitFileState=enabled\nActiveState=active\n\
                   MainPID=12\nResult=success\nNeedDaemonReload=no\n";
        // The first line of a name counts.
        fs::write(home.path("properties"), format!("{properties}\n{all}")).expect("a file");
        let ran = home.ic(["service", "status"]);
        assert_eq!(ran.exit, Some(exit), "{ran:?}");
        assert!(ran.err.starts_with(&format!("ic: {expected}")), "{ran:?}");
        assert_eq!(ran.err.matches('\n').count(), 1, "{ran:?}");
        let json = home.ic(["service", "status", "--json"]);
        assert_eq!((json.exit, json.err), (Some(exit), ran.err));
    }
    check(
        &home,
        0,
        "UnitFileState=disabled",
        "the service does not start at login; `systemctl --user enable ic.service` changes that",
    );
    check(
        &home,
        1,
        "ActiveState=inactive\nMainPID=0",
        "the service does not run; `systemctl --user start ic.service` starts it",
    );
    let failed = "ActiveState=failed\nMainPID=0\nResult=exit-code";
    check(
        &home,
        1,
        failed,
        "the service has failed: systemd says `exit-code`; `journalctl ",
    );
    fs::write(home.path("journal"), "ic: `--grace x` is not a duration\n").expect("a file");
    check(
        &home,
        1,
        failed,
        "the service has failed: `--grace x` is not a duration; `journalctl ",
    );
    check(
        &home,
        0,
        "NeedDaemonReload=yes",
        "the file was changed since the manager has read it; `systemctl --user daemon-reload` reads it",
    );
    let other = unit_text(&home).replace(env!("CARGO_BIN_EXE_ic"), "/gone/ic");
    fs::write(unit(&home), other).expect("a file");
    check(
        &home,
        0,
        "",
        "the service starts `/gone/ic`, which does not exist; `ic service install`",
    );
}

#[test]
fn while_another_one_runs_by_hand_install_only_enables() {
    let home = home();
    let store = Store::new(home.registry());
    let claim = store.claim().expect("the folder can be written");
    assert!(matches!(claim, Claim::Ours(_)));
    let pid = std::process::id();
    let ran = home.ic(["service", "install"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(
        ran.out
            .starts_with("✓ Service installed: ic serve --all starts at login\n"),
        "{ran:?}"
    );
    let way = "`ic stop --all && systemctl --user start ic.service` switches over";
    let by_hand = format!(
        "ic: another `ic serve --all` runs (pid {pid}), so the service is not started yet; {way}\n"
    );
    assert!(ran.err.contains(&by_hand), "{ran:?}");
    let steps = [
        "--user daemon-reload",
        "--user daemon-reload",
        "--user --quiet enable ic.service",
    ];
    assert_eq!(changes(&home), steps);
    let ran = home.ic(["service", "status"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    let other = format!(
        "ic: another `ic serve --all` runs (pid {pid}), which was not started by the service; {way}\n"
    );
    assert_eq!(ran.err, other);
    // It is the service itself.
    let running = format!(
        "LoadState=loaded\nFragmentPath={}\nUnitFileState=enabled\nActiveState=active\nMainPID={pid}\n",
        unit(&home).display()
    );
    fs::write(home.path("properties"), running).expect("a file");
    assert_eq!(home.ic(["service", "status"]).exit, Some(0));
    home.ic(["service", "install"]);
    assert!(changes(&home).contains(&"--user restart ic.service".to_owned()));
    drop(claim);
}

#[test]
fn uninstall_stops_it_and_removes_the_file() {
    let home = home();
    let said = home.ic(["service", "uninstall"]).result(0);
    assert_eq!(said, "The service is not installed\n");
    assert_eq!(changes(&home), [""; 0]);
    home.ic(["service", "install"]);
    changes(&home);
    let said = home.ic(["service", "uninstall"]).result(0);
    assert_eq!(
        said,
        format!("✓ Service removed: {}\n", unit(&home).display())
    );
    assert!(!unit(&home).exists());
    let steps = [
        "--user --quiet --now disable ic.service",
        "--user daemon-reload",
        "--user reset-failed ic.service",
    ];
    assert_eq!(changes(&home), steps);
    assert_eq!(home.ic(["service", "status"]).exit, Some(1));
}

#[test]
fn a_file_that_it_has_not_written_stays() {
    let home = home();
    let file = unit(&home);
    home.folder(".config/systemd/user");
    fs::write(&file, "[Service]\nExecStart=/mine\n").expect("a file");
    for action in ["install", "uninstall"] {
        let said = home.ic(["service", action]).complaint(3);
        let expected = format!(
            "`{}` was not written by `ic service install`; move it away first",
            file.display()
        );
        assert_eq!(said, expected);
    }
    assert_eq!(unit_text(&home), "[Service]\nExecStart=/mine\n");
    fs::remove_file(&file).expect("a file");
    symlink("/dev/null", &file).expect("a link");
    let said = home.ic(["service", "install"]).complaint(3);
    assert!(said.contains("is masked or empty"), "{said}");
    fs::remove_file(&file).expect("a link");
    // A link of a tool that keeps such files in a repository.
    let kept = home.path("kept.service");
    symlink(&kept, &file).expect("a link");
    home.ic(["service", "install"]);
    assert!(file.is_symlink() && kept.is_file());
    assert_eq!(
        changes(&home)
            .iter()
            .filter(|call| call.contains("enable"))
            .count(),
        1
    );
    // No folder can be made there.
    let home = home.with("XDG_CONFIG_HOME", "/dev/null");
    let said = home.ic(["service", "install"]).complaint(3);
    assert!(
        said.starts_with("cannot write `/dev/null/systemd/user/ic.service`: not a directory; "),
        "{said}"
    );
    assert_eq!(changes(&home), ["--user daemon-reload"]);
}

#[test]
fn literal_secrets_are_warned_of_by_name() {
    #[track_caller]
    fn check(home: &Home, options: &[&str], expected: Option<&str>) {
        let words = [&["service", "install", "--"], options].concat();
        let ran = home.ic(words);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(!ran.err.contains("sk-1234"), "{ran:?}");
        let warnings = ran
            .err
            .lines()
            .filter_map(|line| line.split_once(" holds a secret"));
        let holders: Vec<&str> = warnings.map(|(holder, _)| holder).collect();
        let expected = expected.map(|holder| format!("ic: warning: the field `{holder}`"));
        assert_eq!(holders, Vec::from_iter(expected));
    }
    let home = home().with("KEY", "k");
    fs::write(home.path("environment"), "KEY=$'k'\n").expect("a file");
    check(
        &home,
        &["--header", "authorization: Bearer sk-1234"],
        Some("authorization"),
    );
    check(
        &home,
        &["--header", "authorization: Bearer {env:KEY}"],
        None,
    );
    check(&home, &["--header", "x-team: blue"], None);
}

#[test]
fn variables_that_the_service_does_not_have_are_named() {
    let home = home().with("SHOP_KEY", "k").with("OTHER", "o");
    let kept = "x-key: {env:OTHER}{env:SHOP_KEY}{env:NOWHERE}";
    home.ic(["set", "--header", kept]);
    let install = [
        "service",
        "install",
        "--",
        "--header",
        "x-shop: {env:SHOP_KEY}",
    ];
    // Without it the service could not start.
    let said = home.ic(install).complaint(2);
    assert_eq!(
        said,
        "the field `x-shop` needs the variable SHOP_KEY, which the service would not have; set it in a \
         line `NAME=value` of a file `~/.config/environment.d/ic.conf` with mode 600, then run this again"
    );
    assert!(!unit(&home).exists());
    let named = |ran: Ran| -> Vec<String> {
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        let words = ran
            .err
            .lines()
            .filter_map(|line| line.split_once(" the variable "));
        words
            .map(|(_, rest)| rest.split(',').next().unwrap_or_default().to_owned())
            .collect()
    };
    // The field is left out.
    assert_eq!(
        named(home.ic(["service", "install"])),
        ["NOWHERE", "OTHER", "SHOP_KEY"]
    );
    fs::write(home.path("environment"), "SHOP_KEY=a\nOTHER=$'b\\' c'\n").expect("a file");
    assert_eq!(named(home.ic(install)), ["NOWHERE"]);
    // The shell need not have what the service has.
    let home = home.with("SHOP_KEY", "");
    assert_eq!(named(home.ic(install)), ["NOWHERE"]);
    let home = home.with("https_proxy", "http://a").with("NO_PROXY", "b");
    let ran = home.ic(["service", "install", "--", "--use-proxy-env"]);
    let expected =
        "ic: warning: this shell has https_proxy, NO_PROXY, and the service has not; set it ";
    assert!(ran.err.contains(expected), "{ran:?}");
    let ran = home.ic(["service", "install"]);
    assert!(!ran.err.contains("https_proxy"), "{ran:?}");
}

#[test]
fn a_headless_machine_is_told_of_lingering() {
    let home = home().with("USER", "no-such-user");
    let hint = "ic: it ends when `no-such-user` has logged out everywhere; `loginctl enable-linger` lets it run";
    let ran = home.ic(["service", "install"]);
    assert!(ran.err.contains(hint), "{ran:?}");
    let home = home.with("WAYLAND_DISPLAY", "wayland-0");
    let ran = home.ic(["service", "install"]);
    assert!(!ran.err.contains("linger"), "{ran:?}");
}
