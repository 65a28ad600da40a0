//! Gemini CLI, and Qwen Code, which is made from it: a file of variables, which counts where the shell does not set them, and
//! settings, which decide whether the URL is used.

use std::path::PathBuf;

use serde_json::Value;

use super::{Client, Files, formats};
use crate::cli::doctor::finding::{Finding, Verdict};
use crate::cli::doctor::variables::Api;
use crate::text::{Escaped, escaped_path};

const GEMINI: Client = Client {
    check: "Gemini CLI",
    snippet: "gemini",
};

const QWEN: Client = Client {
    check: "Qwen Code",
    snippet: "qwen",
};

impl Files<'_> {
    pub(super) fn gemini(&mut self) {
        const URL: &str = "GOOGLE_GEMINI_BASE_URL";
        let shell = self.variable(URL);
        let written = match shell {
            Some(_) => None,
            None => self.variable_of_file(GEMINI, ".gemini", URL),
        };
        if let Some((file, url)) = &written {
            self.judge(GEMINI, URL, file, url, Api::Gemini);
        }
        // Without a URL of ic there is nothing to compare the settings with.
        let url = shell.or(written.as_ref().map(|it| it.1.clone()));
        if !url.is_some_and(|url| self.is_ours(&url)) {
            return;
        }
        for (file, settings) in self.settings(GEMINI, ".gemini") {
            let auth = &settings["security"]["auth"]["selectedType"];
            let auth = auth.as_str().or(settings["selectedAuthType"].as_str());
            let Some(auth) = auth else { continue };
            if auth != "gemini-api-key" {
                let message = format!(
                    "`{}` selects `{}`, with which {URL} is not used; `ic snippet gemini` says what to select",
                    escaped_path(&file),
                    Escaped(auth)
                );
                // A file with the URL is meant for it, a variable of the shell is for all clients.
                let verdict = match written {
                    Some(_) => Verdict::Wrong,
                    None => Verdict::Note,
                };
                let finding = Finding::new(GEMINI.check, verdict, message);
                self.findings.push(finding);
            }
            break;
        }
    }

    pub(super) fn qwen(&mut self) {
        const URL: &str = "OPENAI_BASE_URL";
        let settings = self.settings(QWEN, ".qwen");
        let model = settings
            .iter()
            .find_map(|it| it.1["model"]["name"].as_str());
        // The entry of the model in use wins over every variable.
        for (file, settings) in &settings {
            let models = settings["modelProviders"]["openai"].as_array();
            let mut models = models.into_iter().flatten();
            let entry = models.find(|it| model.is_none() || it["id"].as_str() == model);
            if let Some(url) = entry.and_then(|entry| entry["baseUrl"].as_str()) {
                let name = "modelProviders.openai.baseUrl";
                self.judge(QWEN, name, file, url, Api::Chat);
                return;
            }
        }
        if self.variable(URL).is_some() {
            return;
        }
        if let Some((file, url)) = self.variable_of_file(QWEN, ".qwen", URL) {
            self.judge(QWEN, URL, &file, &url, Api::Chat);
            return;
        }
        for (file, settings) in &settings {
            let auth = settings["security"]["auth"]["baseUrl"].as_str();
            let variable = settings["env"][URL].as_str();
            let named = auth.map(|url| ("security.auth.baseUrl", url));
            if let Some((name, url)) = named.or(variable.map(|url| (URL, url))) {
                self.judge(QWEN, name, file, url, Api::Chat);
                return;
            }
        }
    }

    /// The variable in the one file that the client reads: the first that exists, from the project's folder upwards and then in the
    /// user's. `None` also if that is a plain `.env`, which is judged by itself.
    fn variable_of_file(
        &mut self,
        client: Client,
        folder: &str,
        name: &str,
    ) -> Option<(PathBuf, String)> {
        let folders = self.project.ancestors().chain([&*self.home]);
        let files = folders.flat_map(|it| [it.join(folder).join(".env"), it.join(".env")]);
        let file = files.into_iter().find(|file| file.exists())?;
        let is_of_client = file.parent().is_some_and(|it| it.ends_with(folder));
        let lines = is_of_client.then(|| self.text(client.check, &file))??;
        let url = formats::variable(&lines, name).filter(|url| !url.is_empty())?;
        Some((file, url.to_owned()))
    }

    /// The settings of the project and of the user that exist.
    fn settings(&mut self, client: Client, folder: &str) -> Vec<(PathBuf, Value)> {
        let mut folders = vec![self.project.to_owned(), self.home.clone()];
        folders.dedup();
        let files = folders
            .into_iter()
            .map(|it| it.join(folder).join("settings.json"));
        let read = |file: PathBuf| Some((file.clone(), self.json(client, &file)?));
        files.filter_map(read).collect()
    }
}
