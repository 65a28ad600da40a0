//! `ic snippet`: what is pasted where.

use std::process::Command;

use serde_json::{Value, json};

use crate::cli_home::Home;

/// A project whose name means something to every syntax, on port 8888.
fn hostile() -> Home {
    let home = Home::new();
    let folder = home.folder("my \"shop\" 100% $x: #1");
    home.with_mappings(&[(&folder, 8888)], 8889).inside(folder)
}

/// The file that is printed, and where it is said to belong.
#[track_caller]
fn snippet(home: &Home, arguments: &[&str]) -> (String, String) {
    let mut words = vec!["snippet"];
    words.extend(arguments);
    let ran = home.ic(words);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    (ran.out, ran.err)
}

#[test]
fn each_client_gets_its_address_as_it_wants_it() {
    let home = hostile();
    let before = home.content();
    for (kind, address, place) in [
        (
            "jetbrains",
            "URL:       http://localhost:8888/v1\n",
            "the IDE",
        ),
        (
            "continue",
            "apiBase: http://localhost:8888/v1\n",
            "`~/.continue/config.yaml`",
        ),
        (
            "codex",
            "base_url = \"http://localhost:8888/v1\"\n",
            "`~/.codex/config.toml`",
        ),
        (
            "claude",
            "\"ANTHROPIC_BASE_URL\": \"http://localhost:8888\"\n",
            "`.claude/settings.local.json`",
        ),
        (
            "junie",
            "\"baseUrl\": \"http://localhost:8888/v1/chat/completions\",\n",
            "`.junie/models/ic.json`",
        ),
        (
            "aider",
            "openai-api-base: http://localhost:8888/v1\n",
            "`.aider.conf.yml`",
        ),
        (
            "systemd",
            " serve --project ",
            "`~/.config/systemd/user/ic-my-shop-100-x-1.service`",
        ),
        (
            "systemd-socket",
            "\nListenStream=127.0.0.1:8888\nListenStream=[::1]:8888\n",
            "`~/.config/systemd/user/ic-my-shop-100-x-1.socket`",
        ),
        (
            "compose",
            "ports: [\"127.0.0.1:8888:8888\"]\n",
            "`compose.yaml`",
        ),
        (
            "kubernetes",
            "{name: OPENAI_BASE_URL, value: \"http://localhost:8888/v1\"}\n",
            "pod",
        ),
    ] {
        let (file, hint) = snippet(&home, &[kind, "--model", "gpt-5"]);
        assert!(file.contains(address), "{kind}: {file}");
        assert!(
            hint.starts_with("ic: this ") && hint.contains(place),
            "{kind}: {hint}"
        );
        assert_eq!(hint.lines().count(), 1, "{kind}: {hint}");
        let names_a_model = ["continue", "codex", "junie", "aider"].contains(&kind);
        assert_eq!(file.contains("gpt-5\""), names_a_model, "{kind}: {file}");
    }
    assert_eq!(home.content(), before, "nothing is written");
}

#[test]
fn files_of_json_are_json() {
    let home = hostile();
    let read = |kind| -> Value { serde_json::from_str(&snippet(&home, &[kind]).0).expect(kind) };
    assert_eq!(
        read("claude"),
        json!({"env": {"ANTHROPIC_BASE_URL": "http://localhost:8888"}})
    );
    assert_eq!(
        read("junie"),
        json!({
            "id": "YOUR-MODEL",
            "baseUrl": "http://localhost:8888/v1/chat/completions",
            "apiType": "OpenAICompletion",
            "apiKey": "${OPENAI_API_KEY}",
        })
    );
}

#[test]
fn files_of_yaml_and_toml_hold_the_projects_name_as_it_is() {
    let home = hostile();
    // Read by others than those who wrote them, where there are any.
    let read = |module: &str, call: &str, text: &str| -> Option<Value> {
        let script =
            format!("import sys, json, {module}; print(json.dumps({module}.{call}(sys.argv[1])))");
        let output = Command::new("python3")
            .args(["-c", &script, text])
            .output()
            .ok()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(error.contains("ModuleNotFoundError"), "{error}\n{text}");
            eprintln!("skipped: python3 has no {module}");
            return None;
        }
        serde_json::from_slice(&output.stdout).ok()
    };
    const NAME: &str = "my \"shop\" 100% $x: #1";
    let instance = format!("pycharm-{NAME}");
    if let Some(codex) = read("tomllib", "loads", &snippet(&home, &["codex"]).0) {
        assert_eq!(codex["model_provider"], "ic-8888");
        assert_eq!(codex["model_providers"]["ic-8888"]["name"], NAME);
    }
    let yaml = |kind| read("yaml", "safe_load", &snippet(&home, &[kind]).0);
    if let Some(file) = yaml("continue") {
        assert_eq!(file["models"][0]["name"], NAME);
        assert_eq!(file["models"][0]["apiKey"], "${{ secrets.OPENAI_API_KEY }}");
    }
    if let Some(file) = yaml("aider") {
        assert_eq!(file["model"], "openai/YOUR-MODEL");
    }
    if let Some(file) = yaml("compose") {
        let ic = &file["services"]["ic"];
        let escaped = instance.replace('$', "$$");
        assert_eq!(ic["environment"]["SUPERMEMORY_USERNAME"], escaped);
        assert_eq!(ic["healthcheck"]["test"][1], "/ic");
    }
    if let Some(file) = yaml("kubernetes") {
        let sidecar = &file["spec"]["initContainers"][0];
        assert_eq!(sidecar["env"][2]["value"], instance);
        assert_eq!(sidecar["restartPolicy"], "Always");
        assert_eq!(file["metadata"]["name"], "my-shop-100-x-1");
    }
}

#[test]
fn a_unit_of_systemd_is_one() {
    let home = hostile().with("TARGET_LLM_URL", "http://localhost:4000/$100%");
    let (unit, _) = snippet(&home, &["systemd"]);
    assert!(
        unit.contains("\nEnvironment=\"TARGET_LLM_URL=http://localhost:4000/$100%%\"\n"),
        "{unit}"
    );
    assert!(unit.contains("my \\\"shop\\\" 100%% $$x: #1\"\n"), "{unit}");
    let file = home.path("ic-shop.service");
    std::fs::write(&file, &unit).expect("a file");
    let (socket, _) = snippet(&home, &["systemd-socket"]);
    let socket_file = home.path("ic-shop.socket");
    std::fs::write(&socket_file, &socket).expect("a file");
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--user", "--recursive-errors=no"])
        .args([&file, &socket_file])
        .output();
    let Some(verified) = verify.ok() else {
        eprintln!("skipped: there is no systemd here");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("ic-shop."), "{said}");
}

#[test]
fn snippet_says_what_there_is_and_what_is_missing() {
    let home = Home::new();
    let said = home.ic(["snippet", "emacs"]).complaint(2);
    assert!(
        said.starts_with("`emacs` is not known here; there are jetbrains, continue, codex, "),
        "{said}"
    );
    let said = home.ic(["snippet", "aider"]).complaint(1);
    assert!(said.starts_with("no port is assigned to "), "{said}");
    let said = home.ic(["snippet"]).complaint(2);
    assert!(said.contains("KIND"), "{said}");
}
