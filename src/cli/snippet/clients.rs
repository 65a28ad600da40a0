//! The settings of clients. Some want `/v1` in their address, some the whole endpoint, some neither.

use super::facts::{Facts, File, string};
use crate::cli::address::{anthropic_url, openai_url};

pub fn jetbrains(facts: &Facts) -> File {
    let openai = openai_url(&facts.authority);
    let bare = anthropic_url(&facts.authority);
    File {
        content: format!(
            "Settings → Tools → AI Assistant → Providers & API keys (in older versions: Models), third-party provider:\n\
             \x20 Provider:  OpenAI-compatible\n\
             \x20 URL:       {openai}\n\
             \x20 API key:   the one that your proxy expects\n\
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
            model = string(&facts.model),
            base = openai_url(&facts.authority),
        ),
        hint: "this goes into `~/.continue/config.yaml`; the key is read from `~/.continue/.env`"
            .to_owned(),
    }
}

pub fn codex(facts: &Facts) -> File {
    let id = format!("ic-{}", facts.port);
    File {
        content: format!(
            "model = {model}\n\
             model_provider = \"{id}\"\n\
             \n\
             [model_providers.{id}]\n\
             name = {name}\n\
             base_url = \"{base}\"\n\
             env_key = \"OPENAI_API_KEY\"\n\
             wire_api = \"responses\"\n",
            model = string(&facts.model),
            name = string(&facts.project),
            base = openai_url(&facts.authority),
        ),
        hint: format!(
            "this goes into `~/.codex/config.toml`; for one project only, leave out the first two lines and start \
             `codex -c model_provider={id}`"
        ),
    }
}

pub fn claude(facts: &Facts) -> File {
    File {
        content: format!(
            "{{\n  \"env\": {{\n    \"ANTHROPIC_BASE_URL\": {}\n  }}\n}}\n",
            string(&anthropic_url(&facts.authority))
        ),
        hint: "this goes into `.claude/settings.local.json` in the project; it wins over variables of the shell"
            .to_owned(),
    }
}

pub fn junie(facts: &Facts) -> File {
    File {
        content: format!(
            "{{\n  \"id\": {model},\n  \"baseUrl\": {base},\n  \"apiType\": \"OpenAICompletion\",\n  \
             \"apiKey\": \"${{OPENAI_API_KEY}}\"\n}}\n",
            model = string(&facts.model),
            base = string(&format!("{}/chat/completions", openai_url(&facts.authority))),
        ),
        hint: "this goes into `.junie/models/ic.json` in the project; start `junie --model custom:ic`. Other APIs: \
               apiType OpenAIResponses at /v1/responses, Anthropic at /v1/messages"
            .to_owned(),
    }
}

pub fn aider(facts: &Facts) -> File {
    File {
        content: format!(
            "openai-api-base: {base}\nmodel: {model}\n",
            base = openai_url(&facts.authority),
            model = string(&format!("openai/{}", facts.model)),
        ),
        hint: "this goes into `.aider.conf.yml` in the project; the key stays in OPENAI_API_KEY"
            .to_owned(),
    }
}
