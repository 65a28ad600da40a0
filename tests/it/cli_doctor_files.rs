//! `ic doctor` judges the base URLs in the settings files of clients, and only reads these files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::cli_doctor::mock;
use crate::cli_home::{Home, free_port};

/// The names of the checks, without those that other tests cover.
const CHECKS: &[&str] = &[
    "Codex",
    "opencode",
    "Gemini CLI",
    "Qwen Code",
    ".env",
    "Proxies",
];

/// Files below the home folder, in which `shop` is the project, and their content; variables; and the findings of [`CHECKS`], which
/// begin so. PORT is the port of the project, OTHER another one.
type Row<'a> = (
    &'a [(&'a str, &'a str)],
    &'a [(&'a str, &'a str)],
    &'a [&'a str],
);

#[rustfmt::skip] // A table.
const ROWS: &[Row<'_>] = &[
    (&[], &[("OPENAI_BASE_URL", "http://localhost:PORT/v1")], &[]),
    // Codex
    (&[(".codex/config.toml", "model = 'm'\n[mcp_servers.a]\ncommand = 'b'")], &[],
     &["- Codex `~/.codex/config.toml` names no base URL, and `codex` ignores OPENAI_BASE_URL"]),
    (&[(".codex/config.toml", "openai_base_url = 'http://localhost:PORT/v1'")], &[],
     &["✓ Codex openai_base_url in `~/.codex/config.toml` leads to this project's port"]),
    (&[(".codex/config.toml", "model_provider = 'a'\n[model_providers.a]\nbase_url = 'http://localhost:PORT'")], &[],
     &["⚠ Codex model_providers.a.base_url=http://localhost:PORT in `~/.codex/config.toml` has no /v1: clients would ask for \
        /responses; `ic snippet codex` prints the right settings"]),
    (&[(".codex/config.toml", "profile = 'b'\nprofiles.b.model_provider = 'a'\nmodel_providers = {a = {base_url = 'https://llm'}}")], &[],
     &["- Codex model_providers.a.base_url=https://llm in `~/.codex/config.toml` does not lead through ic"]),
    // A provider that is not in use is judged only if it leads here.
    (&[(".codex/config.toml", "openai_base_url = 'http://localhost:PORT/v1'\n[model_providers.a]\nbase_url = 'http://localhost:OTHER'")], &[],
     &["✓ Codex openai_base_url in "]),
    // Each is judged once.
    (&[(".codex/config.toml", "model_provider = 'b'\n[model_providers]\na.base_url = 'http://localhost:PORT/v1'\nb.base_url = 'http://localhost:PORT/v1'")], &[],
     &["✓ Codex model_providers.a.base_url in ", "✓ Codex model_providers.b.base_url in "]),
    (&[(".codex/ic-PORT.config.toml", "model_provider = 'a'\n[model_providers.a]\nbase_url = 'https://localhost:PORT/v1'"),
       (".codex/config.toml", "model = 'm'")], &[],
     &["⚠ Codex model_providers.a.base_url=https://localhost:PORT/v1 in `~/.codex/ic-PORT.config.toml` is https"]),
    (&[("shop/.codex/config.toml", "openai_base_url = 'http://localhost:PORT/v1'")], &[],
     &["- Codex openai_base_url in `~/shop/.codex/config.toml` is ignored by `codex`"]),
    (&[("c/config.toml", "openai_base_url = 'http://localhost:PORT/v1/v1'")], &[("CODEX_HOME", "HOME/c")],
     &["⚠ Codex openai_base_url=http://localhost:PORT/v1/v1 in `~/c/config.toml` has a /v1 too much"]),
    (&[(".codex/config.toml", "a = [")], &[], &["- Codex could not read `~/.codex/config.toml`: it is not TOML"]),
    // opencode
    (&[("shop/opencode.json", r#"{"provider": {"openai": {"options": {"baseURL": "http://localhost:PORT"}}}, /* a */ }"#)], &[],
     &["⚠ opencode provider.openai.options.baseURL=http://localhost:PORT in `~/shop/opencode.json` has no /v1: clients would ask for /responses"]),
    (&[("shop/opencode.jsonc", r#"{"provider": {"anthropic": {"options": {"baseURL": "http://localhost:PORT/v1"}}}} // a"#)], &[],
     &["✓ opencode provider.anthropic.options.baseURL in `~/shop/opencode.jsonc` leads to this project's port"]),
    // The project's file wins over the user's.
    (&[("shop/opencode.json", r#"{"provider": {"openai": {"options": {"baseURL": "http://localhost:PORT/v1"}}}}"#),
       (".config/opencode/opencode.json", r#"{"provider": {"openai": {"options": {"baseURL": "http://localhost:PORT"}}}}"#)], &[],
     &["✓ opencode provider.openai.options.baseURL in `~/shop/opencode.json`"]),
    // Its library for Anthropic's API reads the variable of the shell, but wants /v1 in it.
    (&[("shop/opencode.json", "{}")], &[("ANTHROPIC_BASE_URL", "http://localhost:PORT")],
     &["- opencode ANTHROPIC_BASE_URL has no /v1: clients would ask for /messages; `ic snippet opencode`"]),
    (&[("shop/opencode.json", "{")], &[], &["- opencode could not read `~/shop/opencode.json`: it is not JSON"]),
    // Gemini CLI
    (&[("shop/.gemini/.env", "GOOGLE_GEMINI_BASE_URL='http://localhost:PORT/v1beta' # a")], &[],
     &["⚠ Gemini CLI GOOGLE_GEMINI_BASE_URL=http://localhost:PORT/v1beta in `~/shop/.gemini/.env` has a /v1beta too much"]),
    (&[("shop/.gemini/.env", "GOOGLE_GEMINI_BASE_URL=http://localhost:PORT"),
       (".gemini/settings.json", r#"{"security": {"auth": {"selectedType": "oauth-personal"}}}"#)], &[],
     &["✓ Gemini CLI GOOGLE_GEMINI_BASE_URL in `~/shop/.gemini/.env` leads to this project's port",
       "⚠ Gemini CLI `~/.gemini/settings.json` selects `oauth-personal`, with which GOOGLE_GEMINI_BASE_URL is not used"]),
    // Qwen Code
    (&[("shop/.qwen/.env", "OPENAI_BASE_URL=http://localhost:PORT")], &[],
     &["⚠ Qwen Code OPENAI_BASE_URL=http://localhost:PORT in `~/shop/.qwen/.env` has no /v1: clients would ask for /chat/completions"]),
    (&[(".qwen/settings.json", r#"{"modelProviders": {"openai": [{"id": "m", "baseUrl": "http://localhost:PORT/v1"}]}}"#)], &[],
     &["✓ Qwen Code modelProviders.openai.baseUrl in `~/.qwen/settings.json` leads to this project's port"]),
    // Variables in a file; those that lead elsewhere may be meant so.
    (&[("shop/.env", "export OPENAI_BASE_URL=\"http://localhost:PORT\"")], &[],
     &["⚠ .env OPENAI_BASE_URL=http://localhost:PORT in `~/shop/.env` has no /v1"]),
    (&[("shop/.env", "OPENAI_BASE_URL=http://localhost:OTHER/v1")], &[],
     &["- .env OPENAI_BASE_URL=http://localhost:OTHER/v1 in `~/shop/.env` leads to port OTHER"]),
    // The proxy variables are judged for the hosts in files as well.
    (&[("shop/opencode.json", r#"{"provider": {"openai": {"options": {"baseURL": "http://127.0.0.1:PORT/v1"}}}}"#)],
     &[("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "localhost")],
     &["✓ opencode provider.openai.options.baseURL in ", "⚠ Proxies HTTP_PROXY sends clients to 127.0.0.1:1 (which refuses connections) for 127.0.0.1 as well"]),
];

/// A project with a port, and a target.
struct Setup {
    home: Home,
    port: u16,
    target: String,
}

impl Setup {
    fn new(target: &str) -> Setup {
        let home = Home::new();
        let (shop, port) = (home.path("shop"), free_port());
        Setup {
            home: home.with_mappings(&[(&shop, port)], 8888),
            port,
            target: target.to_owned(),
        }
    }

    /// The findings of [`CHECKS`], with `~` for the home folder. Checks that no file is changed.
    #[track_caller]
    fn findings(&self) -> Vec<String> {
        let before = self.home.stamps();
        let ran = self
            .home
            .ic(["doctor", "--no-stream", "--target", &self.target]);
        assert_eq!(self.home.stamps(), before, "a file was changed");
        assert_eq!(ran.err, "", "{ran:?}");
        let is_wrong = ran.out.lines().any(|line| line.starts_with('⚠'));
        assert_eq!(ran.exit, Some(i32::from(is_wrong)), "{ran:?}");
        let home = self.home.path("");
        let home = home.to_str().expect("UTF-8").trim_end_matches('/');
        let lines = ran.out.lines().map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.join(" ").replace(home, "~")
        });
        let is_checked = |line: &String| {
            let rest = line.split_once(' ').unwrap_or_default().1;
            CHECKS.iter().any(|check| rest.starts_with(check))
        };
        lines.filter(is_checked).collect()
    }
}

#[test]
fn the_url_that_each_client_will_use_is_judged() {
    let (_mock, target) = mock();
    for (files, variables, expected) in ROWS {
        let mut setup = Setup::new(&target);
        let (port, other) = (setup.port.to_string(), free_port().to_string());
        let home = setup.home.path("").to_str().expect("UTF-8").to_owned();
        let fill = |text: &str| {
            let text = text.replace("PORT", &port).replace("OTHER", &other);
            text.replace("HOME/", &home)
        };
        for (name, content) in *files {
            let file = setup.home.path(fill(name));
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, fill(content)).expect("a file");
        }
        for (name, value) in *variables {
            setup.home = setup.home.with(name, fill(value));
        }
        let found = setup.findings();
        assert_eq!(found.len(), expected.len(), "{files:?}: {found:#?}");
        for start in *expected {
            let start = fill(start);
            assert!(
                found.iter().any(|line| line.starts_with(&start)),
                "{start}: {found:#?}"
            );
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    /// Puts something in the place of a file.
    type Put = fn(&Path);
    let kinds: [(Put, &str); 5] = [
        (
            |file| fs::create_dir(file).expect("a folder"),
            "it is not a regular file",
        ),
        (
            |file| mkfifoat(CWD, file, Mode::RUSR).expect("a FIFO"),
            "it is not a regular file",
        ),
        (
            |file| fs::write(file, " ".repeat(2 << 20)).expect("a file"),
            "it is larger than 1024 KiB",
        ),
        (
            |file| symlink("nothing", file).expect("a link"),
            "no such file or directory",
        ),
        (|file| symlink(file, file).expect("a link"), ""),
    ];
    let (_mock, target) = mock();
    for (put, why) in kinds {
        let setup = Setup::new(&target);
        let names = [
            (".codex/config.toml", "Codex"),
            ("shop/opencode.json", "opencode"),
            ("shop/.gemini/settings.json", "Gemini CLI"),
            ("shop/.qwen/settings.json", "Qwen Code"),
            ("shop/.env", ".env"),
        ];
        // The settings of Gemini CLI matter only with a URL of ic.
        let url = format!("http://localhost:{}", setup.port);
        let setup = Setup {
            home: setup.home.with("GOOGLE_GEMINI_BASE_URL", url),
            ..setup
        };
        for (name, _) in names {
            let file = setup.home.path(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            put(&file);
        }
        let found = setup.findings();
        assert_eq!(found.len(), names.len(), "{why}: {found:#?}");
        for (name, check) in names {
            let start = format!("- {check} could not read `~/{name}`: {why}");
            assert!(
                found.iter().any(|line| line.starts_with(&start)),
                "{start}: {found:#?}"
            );
        }
    }
}
