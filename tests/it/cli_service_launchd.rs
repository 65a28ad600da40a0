//! `ic service` with launchd: its agent and the calls of `launchctl`, which is a script here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::cli_home::Home;

/// Keeps what launchd would know in files of the home folder, and writes each call into `calls`.
const LAUNCHCTL: &str = r#"#!/bin/sh
cd "$HOME" || exit 9
echo "$*" >>calls
[ -e no-session ] && { echo 'Bad request.' >&2; exit 125; }
case "$*" in
"print "*/*/*) [ -e loaded ] && cat description || { echo 'Could not find service' >&2; exit 113; } ;;
print-disabled*) cat disabled ;;
print*) ;;
getenv*) [ "$2" = KNOWN ] && echo k ;;
bootstrap*) [ -e loaded ] && exit 5; touch loaded; cp next description ;;
bootout*) rm loaded ;;
enable*) : >disabled ;;
esac
"#;

const RUNNING: &str =
    "x = {\n\tstate = running\n\tpid = 812\n\tlast exit code = (never exited)\n}\n";

/// A home folder in which launchd runs.
fn home() -> Home {
    let home = Home::new();
    let file = home.folder("bin").join("launchctl");
    fs::write(&file, LAUNCHCTL).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::write(home.path("next"), RUNNING).expect("a file");
    fs::write(home.path("disabled"), "\t\"interceptor.ic\" => disabled\n").expect("a file");
    let path = format!("{}:/usr/bin:/bin", home.path("bin").display());
    home.with("PATH", path)
}

fn agent(home: &Home) -> PathBuf {
    home.path("Library/LaunchAgents/interceptor.ic.plist")
}

/// The calls of `launchctl` that change something, since the last time.
fn changes(home: &Home) -> Vec<String> {
    let calls = fs::read_to_string(home.path("calls")).unwrap_or_default();
    let _ = fs::remove_file(home.path("calls"));
    let is_change = |call: &&str| !call.starts_with("print") && !call.starts_with("getenv");
    calls.lines().filter(is_change).map(str::to_owned).collect()
}

#[test]
fn the_agent_is_installed_replaced_and_removed() {
    let home = home();
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    let file = agent(&home).display().to_string();
    let said = home.ic(["service", "status"]).complaint(1);
    assert_eq!(
        said,
        "the service is not installed; `ic service install` installs it"
    );
    let ran = home.ic(["service", "install"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let installed = "✓ Service installed: ic serve --all runs (pid 812) and starts at login\n";
    assert!(ran.out.starts_with(installed), "{ran:?}");
    let enable = format!("enable {domain}/interceptor.ic");
    let bootstrap = format!("bootstrap {domain} {file}");
    assert_eq!(changes(&home), [&*enable, &*bootstrap]);
    assert_eq!(
        home.ic(["service", "status", "--json"]).json(0),
        json!({"manager": "launchd", "installed": true, "enabled": true, "running": true, "pid": 812, "unit": file})
    );
    let ran = home.ic(["service", "install", "--", "--header", "x: <&>"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let bootout = format!("bootout {domain}/interceptor.ic");
    assert_eq!(changes(&home), [&*enable, &*bootout, &*bootstrap]);
    let text = fs::read_to_string(agent(&home)).expect("the agent");
    assert!(text.contains("<string>x: &lt;&amp;&gt;</string>"), "{text}");
    let said = home.ic(["service", "uninstall"]).result(0);
    assert_eq!(said, format!("✓ Service removed: {file}\n"));
    assert_eq!(changes(&home), [&*bootout]);
    let said = home.ic(["service", "uninstall"]).result(0);
    assert_eq!(said, "The service is not installed\n");
}

#[test]
fn an_agent_that_ends_at_once_is_reported() {
    let home = home();
    fs::write(
        home.path("next"),
        "x = {\n\tstate = spawn scheduled\n\tlast exit code = 2\n}\n",
    )
    .expect("a file");
    home.folder("Library/Logs");
    fs::write(home.path("Library/Logs/ic.log"), "a\nic: no such file\n").expect("a file");
    let said = home.ic(["service", "install"]).complaint(3);
    assert_eq!(
        said,
        "the service does not start: no such file; `tail ~/Library/Logs/ic.log` shows more"
    );
    let ran = home.ic(["service", "status"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(
        ran.err.contains("the service has failed: no such file; "),
        "{ran:?}"
    );
    fs::write(home.path("disabled"), "\t\"interceptor.ic\" => true\n").expect("a file");
    let ran = home.ic(["service", "status"]);
    assert!(
        ran.err
            .contains("does not start at login; `launchctl enable gui/"),
        "{ran:?}"
    );
}

#[test]
fn variables_are_looked_for_in_the_session() {
    let home = home().with("KNOWN", "a").with("OTHER", "a");
    let install = |name: &str| {
        let header = format!("x: {{env:{name}}}");
        home.ic(["service", "install", "--", "--header", &header])
    };
    assert_eq!(install("KNOWN").exit, Some(0));
    let said = install("OTHER").complaint(2);
    assert!(
        said.contains("set it with `launchctl setenv NAME value`"),
        "{said}"
    );
}

#[test]
fn without_a_session_nothing_is_written() {
    let home = home();
    fs::write(home.path("no-session"), "").expect("a file");
    for action in ["install", "uninstall", "status"] {
        let said = home.ic(["service", action]).complaint(3);
        let start = "the launchd of this user's session cannot be used: bad request; ";
        assert!(said.starts_with(start), "{said}");
    }
    assert!(!agent(&home).exists());
}

#[test]
fn the_agent_is_read_as_a_property_list() {
    let home = home().with("TARGET_LLM_URL", "http://a/b&c");
    let ran = home.ic([
        "service",
        "print",
        "--",
        "--header",
        "x: <\"é\">",
        "--grace",
        "3",
    ]);
    let file = home.path("agent.plist");
    fs::write(&file, &ran.out).expect("a file");
    let script =
        "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let Ok(read) = Command::new("python3")
        .args(["-c", script])
        .arg(&file)
        .output()
    else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let list: Value = serde_json::from_slice(&read.stdout).expect("JSON");
    let words = [
        env!("CARGO_BIN_EXE_ic"),
        "serve",
        "--all",
        "--header",
        "x: <\"é\">",
        "--grace",
        "3",
    ];
    assert_eq!(list["ProgramArguments"], json!(words));
    assert_eq!(
        list["EnvironmentVariables"],
        json!({"TARGET_LLM_URL": "http://a/b&c"})
    );
    assert_eq!(list["KeepAlive"], json!({"SuccessfulExit": false}));
    assert_eq!(
        (&list["RunAtLoad"], &list["ExitTimeOut"]),
        (&json!(true), &json!(8))
    );
    assert_eq!(
        list["StandardErrorPath"],
        home.path("Library/Logs/ic.log").display().to_string()
    );
}
