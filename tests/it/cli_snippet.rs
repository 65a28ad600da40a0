//! `ic snippet`: configuration for each client.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::cli_home::Home;

/// A project on port 8888 whose name has special characters of every syntax.
fn hostile() -> Home {
    let home = Home::new();
    let folder = home.folder("my \"shop\" 100% $x: #1");
    home.with_mappings(&[(&folder, 8888)], 8889).inside(folder)
}

/// The printed file, and the path that is printed for it.
#[track_caller]
fn snippet(home: &Home, arguments: &[&str]) -> (String, String) {
    let mut words = vec!["snippet"];
    words.extend(arguments);
    let ran = home.ic(words);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    (ran.out, ran.err)
}

#[test]
fn each_client_gets_its_address_in_its_format() {
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
            "`.continue/ic.yaml`",
        ),
        (
            "codex",
            "base_url = \"http://localhost:8888/v1\"\n",
            "`~/.codex/ic-8888.config.toml`; start `codex -p ic-8888`",
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
            "gemini",
            "\nGOOGLE_GEMINI_BASE_URL=http://localhost:8888\nGEMINI_MODEL=gpt-5\n",
            "`.gemini/.env`",
        ),
        (
            "qwen",
            "\nOPENAI_BASE_URL=http://localhost:8888/v1\nOPENAI_MODEL=gpt-5\n",
            "`.qwen/.env`",
        ),
        (
            "opencode",
            "\"baseURL\": \"http://localhost:8888/v1\"\n",
            "`opencode.json` in the project",
        ),
        (
            "copilot",
            "export COPILOT_PROVIDER_BASE_URL=http://localhost:8888/v1\nexport COPILOT_MODEL=gpt-5\n",
            "`eval`",
        ),
        (
            "cline",
            " -m gpt-5 -b http://localhost:8888/v1\n",
            "`cline --data-dir .cline-ic`",
        ),
        (
            "pi",
            "\"baseUrl\": \"http://localhost:8888/v1beta\"\n",
            "`PI_CODING_AGENT_DIR=.pi-ic pi --provider openai --model gpt-5`",
        ),
        (
            "zed",
            "\"api_url\": \"http://localhost:8888/v1\",\n",
            "for all projects: choose a model of `ic-8888`",
        ),
        (
            "goose",
            "export GOOSE_MODEL=gpt-5\nexport OPENAI_HOST=http://localhost:8888\n",
            "`eval`",
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
        let starts_an_interceptor = ["systemd", "systemd-socket", "compose", "kubernetes"];
        let names_a_model = !starts_an_interceptor.contains(&kind);
        assert_eq!(file.contains("gpt-5"), names_a_model, "{kind}: {file}");
        // Without it, a client that has a model of its own keeps that.
        let (file, _) = snippet(&home, &[kind]);
        let needs_a_model = [
            "continue", "junie", "aider", "qwen", "copilot", "cline", "zed", "goose",
        ];
        assert_eq!(
            file.contains("YOUR-MODEL"),
            needs_a_model.contains(&kind),
            "{kind}: {file}"
        );
        // Redirected with `>>` it may end up in a table of TOML; with `>` it replaces a file.
        assert!(!hint.contains(">>"), "{kind}: {hint}");
        let is_shared = [
            "settings.local.json",
            ".env`",
            "opencode.json",
            ".aider.conf",
            "zed/settings",
        ];
        let is_shared = is_shared
            .iter()
            .any(|name| hint.contains(name) && kind != "continue");
        assert!(
            !is_shared || hint.contains("merge") || hint.contains("lines for it"),
            "{kind}: {hint}"
        );
    }
    assert_eq!(home.content(), before, "nothing is written");
}

#[test]
fn json_snippets_are_valid() {
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
    let url = "http://localhost:8888/v1";
    let options = json!({"options": {"baseURL": url}});
    let mut opencode = json!({
        "$schema": "https://opencode.ai/config.json",
        "provider": {"openai": options, "anthropic": options},
    });
    assert_eq!(read("opencode"), opencode);
    let with_model = snippet(&home, &["opencode", "--model", "a/b"]).0;
    opencode["provider"]["openai"]["models"] = json!({"a/b": {}});
    opencode["model"] = json!("openai/a/b");
    opencode["small_model"] = json!("openai/a/b");
    assert_eq!(
        serde_json::from_str::<Value>(&with_model).expect("JSON"),
        opencode
    );
    assert_eq!(read("pi")["providers"]["openai"], json!({"baseUrl": url}));
    assert_eq!(
        read("zed")["language_models"]["openai_compatible"]["ic-8888"]["api_url"],
        url
    );
}

#[test]
fn yaml_and_toml_snippets_contain_the_project_name_unchanged() {
    let home = hostile();
    // Read by independent parsers, if they are installed.
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
        // The other services of the file use the name of this one.
        let command = json!(["/ic", "serve", "--host", "0.0.0.0", "--allow-host", "ic"]);
        assert_eq!(ic["command"], command);
    }
    if let Some(file) = yaml("kubernetes") {
        let sidecar = &file["spec"]["initContainers"][0];
        assert_eq!(sidecar["env"][2]["value"], instance);
        assert_eq!(sidecar["restartPolicy"], "Always");
        assert_eq!(file["metadata"]["name"], "my-shop-100-x-1");
    }
}

#[test]
fn a_systemd_unit_is_valid() {
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
        eprintln!("skipped: systemd is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("ic-shop."), "{said}");
}

#[test]
fn a_systemd_unit_names_the_program_as_systemd_reads_it() {
    let home = Home::new();
    home.ic(["allocate"]);
    let program = home.folder("50% of $HOME").join("ic");
    std::fs::copy(env!("CARGO_BIN_EXE_ic"), &program).expect("there is room");
    let run = Command::new(&program)
        .args(["snippet", "systemd"])
        .env_clear()
        .env("HOME", home.path(""))
        .current_dir(home.path("shop"))
        .output();
    let unit = String::from_utf8(run.expect("it can be run").stdout).expect("text");
    // A specifier is doubled; a variable would be only in an argument.
    let program = program.display().to_string().replace('%', "%%");
    let start = format!("\nExecStart=\"{program}\" serve --project ");
    assert!(unit.contains(&start), "{unit}");
}

#[test]
fn snippets_that_start_an_interceptor_contain_the_given_settings() {
    let lines = |unit: &str| -> Vec<String> {
        let given = unit
            .lines()
            .filter_map(|line| line.strip_prefix("Environment="));
        given.map(str::to_owned).collect()
    };
    let plain = Home::new();
    let shop = plain.path("shop");
    let plain = plain.with_mappings(&[(&shop, 8888)], 8889);
    assert_eq!(lines(&snippet(&plain, &["systemd"]).0), [""; 0]);

    let registry = plain.registry();
    let other = plain.path("my registry");
    std::fs::copy(&registry, &other).expect("a copy");
    let ran = plain.ic([
        "--registry=../my registry",
        "--port-max=9000",
        "snippet",
        "systemd",
    ]);
    // The path keeps the link of the temporary folder: the file is not opened.
    let [file, highest] = &lines(&ran.out)[..] else {
        panic!("{ran:?}");
    };
    assert!(
        file.starts_with("\"PORT_REGISTRY_PATH=/") && file.ends_with("my registry\""),
        "{file}"
    );
    assert_eq!(highest, "INTERCEPTOR_PORT_MAX=9000");

    let home = plain
        .with("PORT_REGISTRY_PATH", &registry)
        .with("INTERCEPTOR_PORT", "7777")
        .with("INTERCEPTOR_PORT_MIN", "8800")
        .with("TARGET_LLM_URL", "http://localhost:4000")
        .with("SUPERMEMORY_USERNAME", "team {project} $5 {{port}}");
    let (unit, _) = snippet(&home, &["systemd"]);
    assert_eq!(
        lines(&unit),
        [
            format!("PORT_REGISTRY_PATH={}", registry.display()),
            "INTERCEPTOR_PORT_MIN=8800".to_owned(),
            "INTERCEPTOR_PORT=7777".to_owned(),
            "TARGET_LLM_URL=http://localhost:4000".to_owned(),
            "\"SUPERMEMORY_USERNAME=team {project} $5 {{port}}\"".to_owned(),
        ]
    );
    let (compose, _) = snippet(&home, &["compose"]);
    assert!(
        compose.contains("SUPERMEMORY_USERNAME: \"team shop $$5 {{port}}\"\n"),
        "{compose}"
    );
    assert!(
        compose.contains("INTERCEPTOR_PORT: \"7777\"\n"),
        "{compose}"
    );
    let (pod, _) = snippet(&home, &["kubernetes"]);
    assert!(pod.contains("value: \"team shop $5 {{port}}\"}"), "{pod}");
    // PATH names the project, so the variable is ignored.
    let (unit, _) = snippet(&home, &["systemd", "."]);
    assert!(
        !unit.contains("INTERCEPTOR_PORT=") && unit.contains(", port 8888\n"),
        "{unit}"
    );
}

/// A project whose settings need everything that a snippet can carry.
fn with_settings() -> Home {
    let home = Home::new();
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, 8888)], 8889);
    let set = home.ic([
        "set",
        "--target",
        "http://llm:4000/$base",
        "--instance-id",
        "team {project} $(A) {{port}}",
        "--header",
        "x-team: {parent} {project} {port} {{branch}} {instance} $$",
        "--header",
        "authorization: Bearer {env:SHOP_KEY}",
        "--header",
        "x-api-key: sk-1234567890",
    ]);
    assert_eq!(set.exit, Some(0), "{set:?}");
    home
}

#[test]
fn a_unit_repeats_nothing_that_ic_set_keeps() {
    let home = with_settings();
    let (unit, hint) = snippet(&home, &["systemd"]);
    assert!(!unit.contains("\nEnvironment="), "{unit}");
    assert!(!unit.contains("--header"), "{unit}");
    assert!(
        unit.contains("\nEnvironmentFile=-%h/.config/systemd/user/ic-shop.env\n"),
        "{unit}"
    );
    assert!(
        hint.contains("; the fields of `ic set` need `SHOP_KEY=…` in `ic-shop.env` beside it, "),
        "{hint}"
    );
    // The kept values as variables, and another one.
    let home = home.with("TARGET_LLM_URL", "http://llm:4000/$base");
    let (unit, _) = snippet(&home, &["systemd"]);
    assert!(!unit.contains("\nEnvironment="), "{unit}");
    let home = home.with("SUPERMEMORY_USERNAME", "other");
    let (unit, _) = snippet(&home, &["systemd"]);
    assert!(
        unit.contains("\nEnvironment=SUPERMEMORY_USERNAME=other\n"),
        "{unit}"
    );
    assert!(!unit.contains("TARGET_LLM_URL"), "{unit}");
    // With this variable the interceptor does not read the registry.
    let home = home.with("INTERCEPTOR_PORT", "7777");
    let (unit, hint) = snippet(&home, &["systemd"]);
    assert!(
        unit.contains("\nEnvironment=\"TARGET_LLM_URL=http://llm:4000/$base\"\n"),
        "{unit}"
    );
    assert!(!unit.contains("EnvironmentFile"), "{unit}");
    assert!(!hint.contains("SHOP_KEY"), "{hint}");
}

#[test]
fn a_container_gets_what_ic_set_keeps_without_secrets() {
    let home = with_settings();
    let parent = home.path("");
    let parent = parent.file_name().and_then(OsStr::to_str).expect("a name");
    let (compose, _) = snippet(&home, &["compose"]);
    for part in [
        format!(
            "[\"/ic\", \"serve\", \"--host\", \"0.0.0.0\", \"--allow-host\", \"ic\", \
             \"--header\", \"x-team: {parent} shop 8888 {{{{branch}}}} team shop $$(A) {{{{port}}}} $$$$\", \
             \"--header\", \"authorization: Bearer {{env:SHOP_KEY}}\", \
             \"--header\", \"x-api-key: {{env:FIELD_X_API_KEY}}\"]\n"
        ),
        "      TARGET_LLM_URL: \"http://llm:4000/$$base\"\n".to_owned(),
        "      SUPERMEMORY_USERNAME: \"team shop $$(A) {{port}}\"\n".to_owned(),
        "      FIELD_X_API_KEY: \"${FIELD_X_API_KEY:?set it for compose, in the shell or in .env}\"\n"
            .to_owned(),
        "      SHOP_KEY: \"${SHOP_KEY:?set it for compose, in the shell or in .env}\"\n".to_owned(),
    ] {
        assert!(compose.contains(&part), "{part}: {compose}");
    }
    let (pod, hint) = snippet(&home, &["kubernetes"]);
    for part in [
        format!(
            "[\"/ic\", \"serve\", \
             \"--header\", \"x-team: {parent} shop 8888 {{{{branch}}}} team shop $$(A) {{{{port}}}} $$$\", \
             \"--header\", \"authorization: Bearer {{env:SHOP_KEY}}\", \
             \"--header\", \"x-api-key: {{env:FIELD_X_API_KEY}}\"]\n"
        ),
        "{name: TARGET_LLM_URL, value: \"http://llm:4000/$base\"}\n".to_owned(),
        "{name: SUPERMEMORY_USERNAME, value: \"team shop $$(A) {{port}}\"}\n".to_owned(),
        "{name: SHOP_KEY, valueFrom: {secretKeyRef: {name: ic-shop, key: SHOP_KEY}}}\n".to_owned(),
        "{name: FIELD_X_API_KEY, valueFrom: {secretKeyRef: {name: ic-shop, key: FIELD_X_API_KEY}}}\n"
            .to_owned(),
    ] {
        assert!(pod.contains(&part), "{part}: {pod}");
    }
    assert!(
        hint.contains(
            "`kubectl create secret generic ic-shop --from-literal=FIELD_X_API_KEY=… --from-literal=SHOP_KEY=…`"
        ),
        "{hint}"
    );
    for text in [&compose, &pod, &hint] {
        assert!(!text.contains("sk-1234567890"), "{text}");
    }
    // What a container is started with is what the target gets.
    let line = |kind: &str| -> Vec<String> {
        let (file, _) = snippet(&home, &[kind]);
        let command = file
            .lines()
            .find_map(|it| it.trim().strip_prefix("command: "));
        serde_json::from_str(command.expect("a command")).expect("a list")
    };
    assert_eq!(line("compose")[..2], ["/ic", "serve"]);
    assert_eq!(line("kubernetes")[..3], ["/ic", "serve", "--header"]);
}

#[test]
fn this_machine_has_another_name_in_a_container() {
    for (target, compose_target, pod_target) in [
        (
            "",
            "http://host.docker.internal:8764",
            "http://YOUR-PROXY:8764",
        ),
        (
            "http://localhost:4000/base",
            "http://host.docker.internal:4000/base",
            "http://YOUR-PROXY:4000/base",
        ),
        (
            "http://[::1]",
            "http://host.docker.internal:80",
            "http://YOUR-PROXY:80",
        ),
    ] {
        let home = Home::new().with("TARGET_LLM_URL", target);
        let shop = home.path("shop");
        let home = home.with_mappings(&[(&shop, 8888)], 8889);
        let (compose, hint) = snippet(&home, &["compose"]);
        let line = format!("TARGET_LLM_URL: \"{compose_target}\"\n");
        assert!(compose.contains(&line), "{compose}");
        assert!(
            compose.contains("    extra_hosts: [\"host.docker.internal:host-gateway\"]\n"),
            "{compose}"
        );
        assert!(hint.contains(" of this machine: "), "{hint}");
        let (pod, hint) = snippet(&home, &["kubernetes"]);
        let line = format!("{{name: TARGET_LLM_URL, value: \"{pod_target}\"}}\n");
        assert!(pod.contains(&line), "{pod}");
        assert!(hint.contains("YOUR-PROXY"), "{hint}");
    }
    let home = Home::new().with("TARGET_LLM_URL", "unix:/run/my llm/$a.sock");
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, 8888)], 8889);
    let (compose, _) = snippet(&home, &["compose"]);
    let mount = "    volumes: [{type: bind, source: \"/run/my llm\", target: \"/run/my llm\"}]\n";
    assert!(compose.contains(mount), "{compose}");
    assert!(!compose.contains("extra_hosts"), "{compose}");
    let target = "      TARGET_LLM_URL: \"unix:/run/my llm/$$a.sock\"\n";
    assert!(compose.contains(target), "{compose}");
}

#[test]
fn a_client_gets_no_v1_where_the_target_has_a_version_of_its_own() {
    let home = Home::new().with("TARGET_LLM_URL", "http://llm.example.com/api/paas/v4");
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, 8888)], 8889);
    let url = "http://localhost:8888";
    for (kind, lines) in [
        ("jetbrains", vec![format!("URL:       {url}\n")]),
        ("continue", vec![format!("apiBase: {url}\n")]),
        ("codex", vec![format!("base_url = \"{url}\"\n")]),
        (
            "junie",
            vec![format!("\"baseUrl\": \"{url}/chat/completions\",\n")],
        ),
        ("aider", vec![format!("openai-api-base: {url}\n")]),
        ("qwen", vec![format!("OPENAI_BASE_URL={url}\n")]),
        (
            "opencode",
            // The paths of Anthropic's API have theirs in any case.
            vec![
                format!("\"baseURL\": \"{url}\"\n"),
                format!("\"baseURL\": \"{url}/v1\"\n"),
            ],
        ),
        ("copilot", vec![format!("BASE_URL={url}\n")]),
        ("cline", vec![format!(" -b {url}\n")]),
        ("pi", vec![format!("\"baseUrl\": \"{url}/v1beta\"")]),
        ("zed", vec![format!("\"api_url\": \"{url}\"")]),
        (
            "goose",
            vec!["OPENAI_BASE_PATH=chat/completions\n".to_owned()],
        ),
        (
            "kubernetes",
            vec![format!("{{name: OPENAI_BASE_URL, value: \"{url}\"}}\n")],
        ),
    ] {
        let (file, _) = snippet(&home, &[kind]);
        for line in lines {
            assert!(file.contains(&line), "{kind}: {line}: {file}");
        }
    }
    let (_, hint) = snippet(&home, &["junie"]);
    assert!(hint.contains(" at /responses, "), "{hint}");
}

#[test]
fn a_unit_starts_in_its_folder_or_the_name_is_refused() {
    let home = Home::new();
    let odd = home.folder(OsStr::from_bytes(b"a\nb\xe9\\"));
    let home = home.inside(&odd);
    home.ic(["allocate"]);
    for kind in ["systemd", "compose", "kubernetes"] {
        let said = home.ic(["snippet", kind]).complaint(2);
        assert!(
            said.contains("cannot be used in an instance id"),
            "{kind}: {said}"
        );
    }
    home.ic(["snippet", "claude"]);
    let home = home.with("SUPERMEMORY_USERNAME", "odd");
    let (unit, _) = snippet(&home, &["systemd"]);
    assert!(unit.contains("/a\\x0ab\\xe9\\\\\"\n"), "{unit}");
    assert!(unit.lines().all(|line| !line.ends_with('\\')), "{unit}");
    let file = home.path("ic-odd.service");
    std::fs::write(&file, &unit).expect("a file");
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--user", "--recursive-errors=no"])
        .arg(&file)
        .output();
    if let Ok(verified) = verify {
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(!said.contains("ic-odd."), "{said}");
    }
}

#[test]
fn a_target_that_serve_would_refuse_is_refused() {
    for target in [
        "abc",
        "http://",
        "ftp://localhost",
        "http://a:99999",
        "http://a?b",
    ] {
        let home = Home::new().with("TARGET_LLM_URL", target);
        let shop = home.path("shop");
        let home = home.with_mappings(&[(&shop, 8888)], 8889);
        for kind in ["systemd", "compose", "claude"] {
            let said = home.ic(["snippet", kind]).complaint(2);
            assert!(
                said.starts_with(&format!("`TARGET_LLM_URL={target}` has ")),
                "{said}"
            );
        }
    }
}

#[test]
fn snippet_names_known_kinds_and_missing_ports() {
    let home = Home::new();
    let said = home.ic(["snippet", "emacs"]).complaint(2);
    assert!(
        said.starts_with("`emacs` is not a known kind; known are jetbrains, continue, codex, "),
        "{said}"
    );
    let said = home.ic(["snippet", "aider"]).complaint(1);
    assert!(said.starts_with("no port is assigned to "), "{said}");
    let said = home.ic(["snippet"]).complaint(2);
    assert!(said.contains("KIND"), "{said}");
}
