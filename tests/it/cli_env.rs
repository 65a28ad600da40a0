//! `ic env`: its variables, in every installed shell.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::cli_home::Home;
use crate::support::Launch;

fn shop() -> Home {
    let home = Home::new();
    let shop = home.path("shop");
    home.with_mappings(&[(&shop, 8888), (Path::new("/home/me/else"), 8889)], 8890)
}

const SH: &str = "\
export OPENAI_BASE_URL=http://localhost:8888/v1
export OPENAI_API_BASE=http://localhost:8888/v1
export ANTHROPIC_BASE_URL=http://localhost:8888
export GOOGLE_GEMINI_BASE_URL=http://localhost:8888
export NO_PROXY=localhost,127.0.0.1,::1
export no_proxy=localhost,127.0.0.1,::1
";

#[test]
fn env_prints_the_variables_of_each_client() {
    let home = shop();
    let before = home.content();
    assert_eq!(home.ic(["env"]).result(0), SH);
    assert_eq!(home.ic(["env", "."]).result(0), SH);
    assert_eq!(home.ic(["env", "--shell", "sh"]).result(0), SH);
    assert_eq!(
        home.ic(["env", "/home/me/else", "--json"]).json(0),
        json!({
            "OPENAI_BASE_URL": "http://localhost:8889/v1",
            "OPENAI_API_BASE": "http://localhost:8889/v1",
            "ANTHROPIC_BASE_URL": "http://localhost:8889",
            "GOOGLE_GEMINI_BASE_URL": "http://localhost:8889",
            "NO_PROXY": "localhost,127.0.0.1,::1",
            "no_proxy": "localhost,127.0.0.1,::1",
        })
    );
    assert_eq!(
        home.ic(["env", "--shell=fish"]).result(0).lines().next(),
        Some("set -gx OPENAI_BASE_URL http://localhost:8888/v1;")
    );
    assert_eq!(
        home.ic(["env", "--shell=powershell"])
            .result(0)
            .lines()
            .next(),
        Some("$env:OPENAI_BASE_URL = 'http://localhost:8888/v1';")
    );
    assert_eq!(
        home.ic(["env", "--shell", "dotenv"]).result(0),
        SH.replace("export ", "")
    );
    // Every variable is described.
    let help = home.ic(["help", "env"]).result(0);
    for line in SH.lines() {
        let (name, _) = line["export ".len()..]
            .split_once('=')
            .expect("an assignment");
        assert!(help.contains(name), "{name}: {help}");
    }
    assert_eq!(home.content(), before, "nothing is written");
}

#[test]
fn env_without_a_port_prints_nothing_to_standard_output() {
    let home = shop();
    let before = home.content();
    for arguments in [
        &["env", "/home/me/none"][..],
        &["env", "/home/me/none", "--json"],
    ] {
        assert_eq!(
            home.ic(arguments).complaint(1),
            "the variables are not set: no port is assigned to `/home/me/none`; `ic allocate /home/me/none` assigns one"
        );
    }
    assert_eq!(home.content(), before);
    let refused = home.ic(["env", "--shell", "tcsh"]).complaint(2);
    assert!(
        refused.starts_with("`--shell tcsh` is not a shell"),
        "{refused}"
    );
    let refused = home.ic(["env", "--shell", "sh", "--json"]).complaint(2);
    assert!(refused.starts_with("`--json` and `--shell`"), "{refused}");
}

#[test]
fn env_uses_the_port_that_serve_would_listen_on() {
    let home = shop().with("INTERCEPTOR_PORT", "9100");
    let port = |arguments: &[&str]| home.ic(arguments).json(0)["ANTHROPIC_BASE_URL"].clone();
    assert_eq!(port(&["env", "--json"]), "http://localhost:9100");
    // PATH names another project.
    assert_eq!(port(&["env", ".", "--json"]), "http://localhost:8888");
    let refused = home
        .with("INTERCEPTOR_PORT", "abc")
        .ic(["env"])
        .complaint(2);
    assert!(refused.starts_with("`INTERCEPTOR_PORT=abc`"), "{refused}");
}

#[test]
fn the_url_has_no_v1_where_the_target_has_a_version_of_its_own() {
    #[track_caller]
    fn check(home: &Home, expected: &str) {
        let env = home.ic(["env", "--json"]).json(0);
        let [openai, base, anthropic] =
            ["OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL"].map(|name| &env[name]);
        assert_eq!((openai, base), (&json!(expected), &json!(expected)));
        let bare = expected.trim_end_matches("/v1");
        assert_eq!(anthropic, bare);
    }
    let (with, without) = ("http://localhost:8888/v1", "http://localhost:8888");
    for (path, expected) in [
        ("", with),
        ("/v1", with),
        ("/openai/v1", with),
        ("/client/v4/ai/v1", with),
        ("/vllm", with),
        ("/v4", without),
        ("/v4/", without),
        ("/api/paas/v4", without),
        ("/v1beta/openai", without),
        ("/v1/openai", without),
    ] {
        let target = format!("http://llm.example.com{path}");
        check(&shop().with("TARGET_LLM_URL", &target), expected);
        let home = shop();
        home.ic(["set", "--target", &target]).result(0);
        check(&home, expected);
    }
    // The target of the running interceptor counts.
    let home = Home::new();
    let ic = Launch::toward("http://127.0.0.1:9/v4")
        .in_folder(home.path("shop"))
        .start();
    let shop = home.path("shop");
    let home = home
        .with_mappings(&[(&shop, ic.port)], 8888)
        .with("TARGET_LLM_URL", "http://127.0.0.1:9");
    check(&home, &format!("http://localhost:{}", ic.port));
}

#[test]
fn every_shell_evaluates_the_variables_exactly() {
    const HOSTILE: &str =
        "a,$(touch${IFS}x),`touch${IFS}x`,it's,\"q\",back\\slash,';>x;',*.corp,日本,~,!!,#";
    let home = shop().with("NO_PROXY", HOSTILE).with("no_proxy", "other");
    let expected = home.ic(["env", "--json"]).json(0);
    assert_eq!(
        expected["NO_PROXY"],
        format!("{HOSTILE},localhost,127.0.0.1,::1")
    );
    assert_eq!(expected["no_proxy"], "other,localhost,127.0.0.1,::1");
    let mut shells = 0;
    for (shell, kind, evaluates) in [
        ("sh", "sh", false),
        ("bash", "sh", false),
        ("zsh", "sh", false),
        ("fish", "fish", false),
        ("fish", "fish", true),
        ("pwsh", "powershell", false),
    ] {
        let set = home.ic(["env", "--shell", kind]).result(0);
        let print = if kind == "powershell" {
            "[Console]::Out.Write($env:NO_PROXY + \"`n\" + $env:ANTHROPIC_BASE_URL)"
        } else {
            "printf '%s\\n%s' \"$NO_PROXY\" \"$ANTHROPIC_BASE_URL\""
        };
        // The common form; fish joins the lines.
        let set = if evaluates {
            std::fs::write(home.path("set"), &set).expect("a file");
            format!("eval (cat {})\n", home.path("set").display())
        } else {
            set
        };
        let mut command = Command::new(shell);
        command
            .args(["-c", &format!("{set}{print}")])
            .current_dir(home.folder("empty"));
        let Ok(output) = command.output() else {
            eprintln!("skipped {shell}: not on this machine");
            continue;
        };
        shells += 1;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{HOSTILE},localhost,127.0.0.1,::1\nhttp://localhost:8888"),
            "{shell}: {output:?}"
        );
        let left = std::fs::read_dir(home.path("empty"))
            .expect("the folder is readable")
            .count();
        assert_eq!(left, 0, "{shell} executed a part of a value");
    }
    assert!(shells > 0, "every Unix has a shell");
}

#[test]
fn no_proxy_has_the_form_that_every_client_reads() {
    // Spaces are a part of a name for httpx, and an address in brackets is an error there.
    let home = shop().with("NO_PROXY", "corp.example  10.0.0.0/8, [fd00::1]");
    let env = home.ic(["env", "--json"]).json(0);
    let expected = "corp.example,10.0.0.0/8,fd00::1,localhost,127.0.0.1,::1";
    assert_eq!(env["NO_PROXY"], expected);
    assert_eq!(env["no_proxy"], expected);
}

#[test]
fn a_script_stops_without_a_port_and_eval_says_that_nothing_is_set() {
    let home = shop().inside("/");
    let bin = Path::new(env!("CARGO_BIN_EXE_ic"))
        .parent()
        .expect("a folder");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let home = home.with("PATH", path);
    let run = |home: &Home, script: &str| {
        let mut command = Command::new("sh");
        let ic = home.command([""; 0]);
        let variables = ic
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        command.args(["-c", script]).env_clear().envs(variables);
        command.current_dir(ic.get_current_dir().expect("it is set"));
        let output = command.output().expect("there is a shell");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let script = "vars=$(ic env) && eval \"$vars\" || exit; echo \"at $OPENAI_BASE_URL\"";
    let (exit, out, err) = run(&home, script);
    assert_eq!((exit, &*out), (Some(1), ""), "{err}");
    let unset = "ic: the variables are not set: no port is assigned to `/`; ";
    assert!(err.starts_with(unset), "{err}");
    let (_, out, err) = run(&home, "eval \"$(ic env)\"; echo \"at $OPENAI_BASE_URL\"");
    assert_eq!(out, "at \n");
    assert!(err.starts_with(unset), "{err}");
    let shop = home.path("shop");
    let (exit, out, _) = run(&home.inside(shop), script);
    assert_eq!((exit, &*out), (Some(0), "at http://localhost:8888/v1\n"));
}
