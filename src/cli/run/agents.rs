//! What `ic run` adds for agents that read no variable of `ic env`, or that need more: arguments and variables that they take, or
//! a line that says what is missing. Each was tried with the program; its versions are in README.md.

use std::path::Path;

use crate::cli::address::BaseUrls;
use crate::cli::settings::Environment;
use crate::cli::snippet;
use crate::registry::project::{home_folder, read_small};

/// What one program gets beside the variables of `ic env`.
#[derive(Debug, Default, PartialEq)]
pub struct Additions {
    /// Put in front of the agent's own.
    pub arguments: Vec<String>,
    /// How many of the user's arguments come before them: those of a launcher of packages, e.g. `npx -y`.
    pub launcher_arguments: usize,
    pub variables: Vec<(&'static str, String)>,
    /// What it still needs.
    pub note: Option<String>,
}

/// The additions for `program`, called with `arguments`, to use the interceptor at these URLs.
pub fn additions(
    program: &str,
    arguments: &[String],
    urls: &BaseUrls,
    environment: &Environment<'_>,
) -> Additions {
    let is_set = |name| environment.variable(name).is_some();
    let names = |option: &str| {
        let mut words = arguments.iter().map(|word| word.split('=').next());
        words.any(|word| word == Some(option))
    };
    let (agent, launcher_arguments) = agent(program, arguments);
    let mut added = Additions {
        launcher_arguments,
        ..Additions::default()
    };
    match agent {
        "codex" if !names_codex_provider(arguments) => {
            added.arguments = codex_provider(urls, is_set(KEY));
        }
        "opencode" if !is_set(OPENCODE) => {
            let options = |url| serde_json::json!({"options": {"baseURL": url}});
            let (openai, anthropic) = (options(urls.openai()), options(urls.with_v1()));
            let config =
                serde_json::json!({"provider": {"openai": openai, "anthropic": anthropic}});
            added.variables.push((OPENCODE, config.to_string()));
        }
        "qwen" => {
            if !names("--auth-type") {
                added.arguments = ["--auth-type", "openai"].map(str::to_owned).to_vec();
            }
            if !is_set("OPENAI_MODEL") && !names("-m") && !names("--model") {
                added.note = Some("needs a model: set OPENAI_MODEL, or give --model".to_owned());
            }
        }
        "copilot" => {
            added.variables = copilot_provider(urls, environment);
            if !is_set("COPILOT_MODEL") && !names("--model") {
                added.note = Some("needs a model: set COPILOT_MODEL, or give --model".to_owned());
            }
        }
        "goose" => {
            added.variables = vec![
                ("OPENAI_HOST", urls.bare()),
                ("OPENAI_BASE_PATH", urls.openai_path("chat/completions")),
            ]
        }
        "gemini" if !gemini_uses_a_key() => {
            let note = "uses the URL only if .gemini/settings.json selects `gemini-api-key`; `ic snippet gemini` says how";
            added.note = Some(note.to_owned());
        }
        "cn" if !names("--config") => added.note = reads_a_file("continue", "--config FILE"),
        "cline" if !names("--data-dir") => added.note = reads_a_file("cline", "--data-dir FOLDER"),
        "pi" if !is_set(PI) => added.note = reads_a_file("pi", "PI_CODING_AGENT_DIR"),
        _ => {}
    }
    added
}

/// Whether the user's arguments say where Codex is to send its requests.
fn names_codex_provider(arguments: &[String]) -> bool {
    let mut words = arguments.iter();
    words.any(|word| word.contains("model_provider") || word.contains("openai_base_url"))
}

/// The options that make Codex use the interceptor: a provider for this run, whatever its files say. It asks for no login.
fn codex_provider(urls: &BaseUrls, has_key: bool) -> Vec<String> {
    let (port, url) = (urls.port(), urls.openai());
    let key = if has_key {
        format!(", env_key = \"{KEY}\"")
    } else {
        String::new()
    };
    let options = [
        format!("model_provider=ic-{port}"),
        format!(
            "model_providers.ic-{port}={{name = \"ic\", base_url = \"{url}\", wire_api = \"responses\"{key}}}"
        ),
    ];
    options
        .into_iter()
        .flat_map(|it| ["-c".to_owned(), it])
        .collect()
}

/// The variables that make Copilot CLI use the interceptor, with the key of OpenAI's API where it has none of its own.
fn copilot_provider(urls: &BaseUrls, environment: &Environment<'_>) -> Vec<(&'static str, String)> {
    let text = |name| {
        let value = environment.variable(name)?;
        value.text().ok().map(str::to_owned)
    };
    let url = match text("COPILOT_PROVIDER_TYPE").as_deref() {
        Some("anthropic") => urls.bare(),
        _ => urls.openai(),
    };
    let key = text("COPILOT_PROVIDER_API_KEY").or_else(|| text(KEY));
    let key = key.map(|key| ("COPILOT_PROVIDER_API_KEY", key));
    [("COPILOT_PROVIDER_BASE_URL", url)]
        .into_iter()
        .chain(key)
        .collect()
}

/// The snippet for the agent that a command starts, if there is one.
pub fn kind(program: &str, arguments: &[String]) -> Option<&'static str> {
    let name = match agent(program, arguments).0 {
        "cn" => "continue",
        name => name,
    };
    snippet::client_kinds().find(|kind| *kind == name)
}

/// The agent that a command starts, by the name of its program, and how many of `arguments` are not its own: those up to the
/// package where `program` installs a package of npm and starts it.
fn agent<'a>(program: &'a str, arguments: &'a [String]) -> (&'a str, usize) {
    let program = name(program);
    let mut rest = arguments.iter().enumerate();
    let is_launcher = match program {
        "npx" | "bunx" => true,
        "pnpm" | "yarn" | "bun" => {
            let command = rest.next().map(|(_, word)| word.as_str());
            matches!(command, Some("dlx" | "x"))
        }
        _ => false,
    };
    if !is_launcher {
        return (program, 0);
    }
    while let Some((index, word)) = rest.next() {
        match word.as_str() {
            "-p" | "--package" => drop(rest.next()),
            option if option.starts_with('-') => {}
            package => return (program_of(package), index + 1),
        }
    }
    (program, 0)
}

/// The program of an npm package, which may have a version behind `@`.
fn program_of(package: &str) -> &str {
    let end = package.rfind('@').filter(|at| *at > 0);
    match &package[..end.unwrap_or(package.len())] {
        "@google/gemini-cli" => "gemini",
        "@qwen-code/qwen-code" => "qwen",
        "@continuedev/cli" => "cn",
        "@mariozechner/pi-coding-agent" => "pi",
        "opencode-ai" => "opencode",
        // `@openai/codex` and `@github/copilot` among them.
        package => name(package),
    }
}

fn name(program: &str) -> &str {
    let name = Path::new(program)
        .file_name()
        .and_then(|name| name.to_str());
    name.unwrap_or_default()
}

fn reads_a_file(kind: &str, option: &str) -> Option<String> {
    Some(format!(
        "reads no variable for its URL; `ic snippet {kind}` prints its settings, for use with {option}"
    ))
}

/// Whether the settings of the current folder or of the user make Gemini CLI use a key. Without that it refuses a base URL, or goes
/// to Google.
fn gemini_uses_a_key() -> bool {
    let folders = [Some(".".into()), home_folder()];
    folders.into_iter().flatten().any(|folder| {
        let settings = read_small(&folder.join(".gemini/settings.json")).unwrap_or_default();
        String::from_utf8_lossy(&settings).contains("\"gemini-api-key\"")
    })
}

const KEY: &str = "OPENAI_API_KEY";
/// Settings as text, which come after those of its files.
const OPENCODE: &str = "OPENCODE_CONFIG_CONTENT";
const PI: &str = "PI_CODING_AGENT_DIR";
