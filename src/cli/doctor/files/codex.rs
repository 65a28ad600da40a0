//! Codex: the provider in its `config.toml`, and in the profile that `ic snippet codex` prints for the port. It does not read
//! `OPENAI_BASE_URL`, and ignores providers in the files of a project.

use std::path::Path;

use serde_json::Value;

use super::{Client, Files, formats};
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::variables::Api;
use crate::text::escaped_path;

const CODEX: Client = Client {
    check: "Codex",
    snippet: "codex",
};

impl Files<'_> {
    pub(super) fn codex(&mut self) {
        let folder = self.folder("CODEX_HOME");
        let folder = folder.unwrap_or_else(|| self.home.join(".codex"));
        let file = folder.join("config.toml");
        let config = self.toml(&file);
        let port = self.to.port.map(|port| port.get()).unwrap_or_default();
        let profile = folder.join(format!("ic-{port}.config.toml"));
        let over = self.toml(&profile);
        let own = Vec::from_iter(&config);
        if over.is_some() {
            let layers: Vec<_> = over.iter().chain(&config).collect();
            if let Some((name, url)) = used(&layers) {
                self.judge(CODEX, &name, &profile, &url, Api::Responses);
            }
        } else if config.is_some() && used(&own).is_none() {
            let message = format!(
                "`{}` names no base URL, and `codex` ignores OPENAI_BASE_URL: it connects to its own provider; start it as \
                 `ic run -- codex`, or use the profile that `ic snippet codex` prints",
                escaped_path(&file)
            );
            self.findings.push(Finding::note(CODEX.check, message));
        }
        let mut urls = Vec::from_iter(used(&own));
        let providers = own
            .iter()
            .filter_map(|it| it["model_providers"].as_object());
        for (id, provider) in providers.flatten() {
            let url = provider["base_url"].as_str();
            let other = url.filter(|url| self.is_ours(url));
            let other = other.map(|url| (base_url_of(id), url.to_owned()));
            urls.extend(other.filter(|other| !urls.contains(other)));
        }
        for (name, url) in urls {
            self.judge(CODEX, &name, &file, &url, Api::Responses);
        }
        self.codex_of_project();
    }

    /// Notes a provider in the project's file.
    fn codex_of_project(&mut self) {
        let file = self.project.join(".codex/config.toml");
        if file.parent() == Some(&self.home.join(".codex")) {
            return;
        }
        let config = self.toml(&file);
        if let Some((name, _)) = used(&Vec::from_iter(&config)) {
            let message = format!(
                "{name} in `{}` is ignored by `codex`: a project's file may not name providers; `ic snippet codex` prints a profile",
                escaped_path(&file)
            );
            self.findings.push(Finding::note(CODEX.check, message));
        }
    }

    fn toml(&mut self, file: &Path) -> Option<Value> {
        self.document(CODEX, file, formats::toml, "it is not TOML")
    }
}

/// The setting with the URL that Codex uses with these files, of which the first wins, and its value; `None`: OpenAI's, or that of
/// another provider without one.
fn used(layers: &[&Value]) -> Option<(String, String)> {
    let get = |path: &[&str]| {
        let value = |layer: &&Value| {
            let value = path.iter().try_fold(*layer, |value, key| value.get(key))?;
            value.as_str().map(str::to_owned)
        };
        layers.iter().find_map(value)
    };
    let profile = get(&["profile"]);
    let of_profile = profile.and_then(|name| get(&["profiles", &name, "model_provider"]));
    match of_profile.or_else(|| get(&["model_provider"])) {
        Some(id) if id != "openai" => {
            let url = get(&["model_providers", &id, "base_url"])?;
            Some((base_url_of(&id), url))
        }
        _ => Some((
            "openai_base_url".to_owned(),
            get(&["openai_base_url"]).filter(|url| !url.is_empty())?,
        )),
    }
}

fn base_url_of(provider: &str) -> String {
    format!("model_providers.{provider}.base_url")
}
