//! The settings of clients. Some want `/v1` in their address, some the whole endpoint, some neither.

use serde_json::json;

use super::facts::{Facts, File, string};
use crate::cli::env::shell::{Shell, word};
use crate::text::Escaped;

pub fn jetbrains(facts: &Facts) -> File {
    let openai = facts.urls.openai();
    let bare = facts.urls.bare();
    let model = match &facts.model {
        Some(model) => format!("\x20 Model:     {}\n", Escaped(model)),
        None => String::new(),
    };
    File {
        content: format!(
            "Settings → Tools → AI Assistant → Providers & API keys (in older versions: Models), third-party provider:\n\
             \x20 Provider:  OpenAI-compatible\n\
             \x20 URL:       {openai}\n\
             \x20 API key:   the one that your proxy expects\n\
             {model}\
             \x20 Then:      Test Connection\n\
             \n\
             Settings → Tools → LLM Services:\n\
             \x20 API endpoint:  {bare}\n"
        ),
        hint: "this goes into the settings of the IDE in which the project is open".to_owned(),
    }
}

pub fn continue_dev(facts: &Facts) -> File {
    File {
        content: format!(
            "name: {name}\n\
             version: 0.0.1\n\
             schema: v1\n\
             models:\n\
             \x20 - name: {name}\n\
             \x20   provider: openai\n\
             \x20   model: {model}\n\
             \x20   apiBase: {base}\n\
             \x20   apiKey: ${{{{ secrets.OPENAI_API_KEY }}}}\n\
             \x20   roles: [chat, edit, apply]\n",
            name = string(&facts.project),
            model = string(facts.model()),
            base = facts.urls.openai(),
        ),
        hint: "this is a new file `.continue/ic.yaml` in the project, for `cn --config .continue/ic.yaml`; the IDE has one for all \
               projects, `~/.continue/config.yaml`: add the entry of `models` there. The key is OPENAI_API_KEY, or in \
               `~/.continue/.env`"
            .to_owned(),
    }
}

/// A profile, which Codex puts over `config.toml`. Appended to that file, the first lines would belong to its last table.
pub fn codex(facts: &Facts) -> File {
    let id = format!("ic-{}", facts.port);
    let model = match &facts.model {
        Some(model) => format!("model = {}\n", string(model)),
        None => String::new(),
    };
    File {
        content: format!(
            "{model}\
             model_provider = \"{id}\"\n\
             \n\
             [model_providers.{id}]\n\
             name = {name}\n\
             base_url = \"{base}\"\n\
             env_key = \"OPENAI_API_KEY\"\n\
             wire_api = \"responses\"\n",
            name = string(&facts.project),
            base = facts.urls.openai(),
        ),
        hint: format!(
            "this is a new file `~/.codex/{id}.config.toml`; start `codex -p {id}` in the project. `config.toml` stays as it is, and \
             the key is OPENAI_API_KEY"
        ),
    }
}

pub fn claude(facts: &Facts) -> File {
    let mut settings = json!({"env": {"ANTHROPIC_BASE_URL": facts.urls.bare()}});
    if let Some(model) = &facts.model {
        settings["model"] = json!(model);
    }
    File {
        content: format!("{settings:#}\n"),
        hint: "this is `.claude/settings.local.json` in the project: a new file, or members to merge into it; it wins over variables \
               of the shell"
            .to_owned(),
    }
}

pub fn junie(facts: &Facts) -> File {
    File {
        content: format!(
            "{{\n  \"id\": {model},\n  \"baseUrl\": {base},\n  \"apiType\": \"OpenAICompletion\",\n  \
             \"apiKey\": \"${{OPENAI_API_KEY}}\"\n}}\n",
            model = string(facts.model()),
            base = string(&format!("{}/chat/completions", facts.urls.openai())),
        ),
        hint: format!(
            "this is a new file `.junie/models/ic.json` in the project; start `junie --model custom:ic` with OPENAI_API_KEY set. \
             Other APIs: apiType OpenAIResponses at /{}, Anthropic at /v1/messages",
            facts.urls.openai_path("responses")
        ),
    }
}

pub fn aider(facts: &Facts) -> File {
    File {
        content: format!(
            "openai-api-base: {base}\nmodel: {model}\n",
            base = facts.urls.openai(),
            model = string(&format!("openai/{}", facts.model())),
        ),
        hint: "this is `.aider.conf.yml` in the project: a new file, or lines to merge into it; the key stays in OPENAI_API_KEY"
            .to_owned(),
    }
}

pub fn gemini(facts: &Facts) -> File {
    let url = facts.urls.bare();
    let lines = [
        ("GOOGLE_GEMINI_BASE_URL", Some(&*url)),
        ("GEMINI_MODEL", facts.model.as_deref()),
    ];
    let lines = variables(Shell::Dotenv, &lines);
    let mut file = with_auth("gemini", "gemini-api-key", "GEMINI_API_KEY", &lines);
    file.hint += "; without a terminal it also needs GEMINI_CLI_TRUST_WORKSPACE=true";
    file
}

pub fn qwen(facts: &Facts) -> File {
    let url = facts.urls.openai();
    let lines = [
        ("OPENAI_BASE_URL", Some(&*url)),
        ("OPENAI_MODEL", Some(facts.model())),
    ];
    with_auth(
        "qwen",
        "openai",
        "OPENAI_API_KEY",
        &variables(Shell::Dotenv, &lines),
    )
}

/// A file of variables for an agent that also needs one member of its settings.
fn with_auth(folder: &str, auth: &str, key: &str, variables: &str) -> File {
    File {
        content: format!(
            "# .{folder}/settings.json beside this file needs this member, merged into it:\n\
             # {{\"security\": {{\"auth\": {{\"selectedType\": \"{auth}\"}}}}}}\n\
             {variables}"
        ),
        hint: format!(
            "this is `.{folder}/.env` in the project: a new file, or lines for it; `.{folder}/settings.json` beside it has to select \
             `{auth}`, as the comment says. The key is {key}; variables of the shell win over the file"
        ),
    }
}

/// Both providers: Vercel's SDK wants `/v1` for Anthropic's API as well.
pub fn opencode(facts: &Facts) -> File {
    let options = |url| json!({"options": {"baseURL": url}});
    let (openai, anthropic) = (options(facts.urls.openai()), options(facts.urls.with_v1()));
    let mut settings = json!({
        "$schema": "https://opencode.ai/config.json",
        "provider": {"openai": openai, "anthropic": anthropic},
    });
    if let Some(model) = &facts.model {
        // One that its catalogue does not have must be declared.
        settings["provider"]["openai"]["models"] = json!({model: {}});
        let model = json!(format!("openai/{model}"));
        settings["model"] = model.clone();
        settings["small_model"] = model;
    }
    File {
        content: format!("{settings:#}\n"),
        hint: "this is `opencode.json` in the project: a new file, or members to merge into it; the keys are OPENAI_API_KEY and \
               ANTHROPIC_API_KEY. For a proxy without the Responses API, add `\"npm\": \"@ai-sdk/openai-compatible\"` to `openai`"
            .to_owned(),
    }
}

pub fn copilot(facts: &Facts) -> File {
    File {
        content: variables(
            Shell::Sh,
            &[
                ("COPILOT_PROVIDER_BASE_URL", Some(&facts.urls.openai())),
                ("COPILOT_MODEL", Some(facts.model())),
            ],
        ) + "export COPILOT_PROVIDER_API_KEY=\"${OPENAI_API_KEY-}\"\n",
        hint: "this is for `eval` in the shell in which `copilot` is started: it has no file for the URL. The key is OPENAI_API_KEY; \
               COPILOT_PROVIDER_WIRE_API=responses selects the Responses API"
            .to_owned(),
    }
}

pub fn cline(facts: &Facts) -> File {
    let (model, url) = (word(facts.model()), facts.urls.openai());
    File {
        content: format!(
            "cline auth --data-dir .cline-ic -p openai -k \"$OPENAI_API_KEY\" -m {model} -b {url}\n"
        ),
        hint: "this is a command to run once in the project; then start `cline --data-dir .cline-ic` there. The folder holds the \
               key: keep it out of version control"
            .to_owned(),
    }
}

pub fn pi(facts: &Facts) -> File {
    let bare = facts.urls.bare();
    let mut settings = json!({"providers": {
        "anthropic": {"baseUrl": bare},
        "google": {"baseUrl": format!("{bare}/v1beta")},
        "openai": {"baseUrl": facts.urls.openai()},
    }});
    let mut options = String::new();
    if let Some(model) = &facts.model {
        settings["providers"]["openai"]["models"] = json!([{"id": model}]);
        options = format!(" --provider openai --model {}", word(model));
    }
    File {
        content: format!("{settings:#}\n"),
        hint: format!(
            "this is a new file `.pi-ic/models.json` in the project; start `PI_CODING_AGENT_DIR=.pi-ic pi{options}` there. The keys \
             are OPENAI_API_KEY, ANTHROPIC_API_KEY and GEMINI_API_KEY; in `~/.pi/agent/models.json` it is for all projects"
        ),
    }
}

pub fn zed(facts: &Facts) -> File {
    let (id, model) = (format!("ic-{}", facts.port), facts.model());
    let settings = json!({"language_models": {"openai_compatible": {&id: {
        "api_url": facts.urls.openai(),
        "available_models": [{"name": model, "display_name": model, "max_tokens": 128_000}],
    }}}});
    File {
        content: format!("{settings:#}\n"),
        hint: format!(
            "this goes into `~/.config/zed/settings.json`: members to merge. Zed has providers for all projects: choose a model of \
             `{id}` in this one; the key is entered in its agent settings"
        ),
    }
}

pub fn goose(facts: &Facts) -> File {
    File {
        content: variables(
            Shell::Sh,
            &[
                ("GOOSE_PROVIDER", Some("openai")),
                ("GOOSE_MODEL", Some(facts.model())),
                ("OPENAI_HOST", Some(&facts.urls.bare())),
                ("OPENAI_BASE_PATH", Some(&facts.urls.openai_path("chat/completions"))),
            ],
        ),
        hint: "this is for `eval` in the shell in which `goose` is started; its file, `~/.config/goose/config.yaml`, is for all \
               projects. The key is OPENAI_API_KEY"
            .to_owned(),
    }
}

/// A line for each variable that has a value.
fn variables(shell: Shell, variables: &[(&str, Option<&str>)]) -> String {
    let set = variables
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)));
    set.map(|(name, value)| shell.assignment(name, value) + "\n")
        .collect()
}
