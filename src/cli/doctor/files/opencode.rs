//! opencode: the providers in its settings, of which those of the project come before the user's. Its library for Anthropic's API
//! wants `/v1` in the URL, also in the variable.

use std::path::PathBuf;

use serde_json::Value;

use super::{Client, Files, formats};
use crate::cli::doctor::finding::{Finding, Verdict};
use crate::cli::doctor::variables::{Api, base_url};

const OPENCODE: Client = Client {
    check: "opencode",
    snippet: "opencode",
};

impl Files<'_> {
    pub(super) fn opencode(&mut self) {
        let settings = self.opencode_settings();
        self.has_opencode = !settings.is_empty();
        let chosen = settings.iter().find_map(|(_, it)| it["model"].as_str());
        let chosen = chosen.and_then(|model| Some(model.split_once('/')?.0));
        let mut judged: Vec<&str> = Vec::new();
        for (file, document) in &settings {
            let providers = document["provider"].as_object().into_iter().flatten();
            for (id, provider) in providers {
                let Some(url) = provider["options"]["baseURL"].as_str() else {
                    continue;
                };
                let is_used = ["openai", "anthropic"].contains(&&**id) || chosen == Some(id);
                if judged.contains(&&**id) || !(is_used || self.is_ours(url)) || url.contains('{') {
                    continue;
                }
                judged.push(id);
                if let Some(api) = api(id, provider) {
                    let name = format!("provider.{id}.options.baseURL");
                    self.judge(OPENCODE, &name, file, url, api);
                }
            }
        }
        if self.has_opencode && !judged.contains(&"anthropic") {
            self.opencode_variable();
        }
    }

    /// The variable that counts without a URL in the settings. It is wrong for opencode only if that uses Anthropic's API.
    fn opencode_variable(&mut self) {
        const NAME: &str = "ANTHROPIC_BASE_URL";
        let Some(url) = self.variable(NAME) else {
            return;
        };
        let way_out = "`ic snippet opencode` prints settings for it";
        let (verdict, why) = base_url(Api::BareMessages, &url, self.to, way_out, self.registry);
        if verdict == Verdict::Wrong && self.is_ours(&url) {
            let message = format!("{NAME} {why}");
            self.findings.push(Finding::note(OPENCODE.check, message));
        }
    }

    /// The settings that exist, the first to win first.
    fn opencode_settings(&mut self) -> Vec<(PathBuf, Value)> {
        let mut found = Vec::new();
        if let Some(content) = self.variable("OPENCODE_CONFIG_CONTENT") {
            let name = PathBuf::from("OPENCODE_CONFIG_CONTENT");
            found.extend(formats::json(&content).map(|document| (name, document)));
        }
        let user = self.folder("XDG_CONFIG_HOME");
        let user = user.unwrap_or_else(|| self.home.join(".config"));
        let (project, user) = (self.project.to_owned(), user.join("opencode"));
        let of_folder = |folder: PathBuf| {
            let names = ["opencode.jsonc", "opencode.json"];
            names.map(|name| folder.join(name)).into_iter()
        };
        let files = of_folder(project.join(".opencode"))
            .chain(of_folder(project))
            .chain(self.folder("OPENCODE_CONFIG"))
            .chain(of_folder(user.clone()))
            .chain([user.join("config.json")]);
        for file in files {
            found.extend(self.json(OPENCODE, &file).map(|document| (file, document)));
        }
        found
    }
}

/// The API of a provider; `None` for one that is not judged.
fn api(id: &str, provider: &Value) -> Option<Api> {
    let library = provider["npm"].as_str().unwrap_or(match id {
        "anthropic" => "@ai-sdk/anthropic",
        "google" => "@ai-sdk/google",
        "openai" => "@ai-sdk/openai",
        _ => "@ai-sdk/openai-compatible",
    });
    match library {
        "@ai-sdk/anthropic" => Some(Api::BareMessages),
        "@ai-sdk/openai" => Some(Api::Responses),
        "@ai-sdk/openai-compatible" => Some(Api::Chat),
        _ => None,
    }
}
