//! The settings files of clients, whose base URLs win over the variables of the shell or are used in their place. They are only
//! read, at most [`FILE_BYTES_MAX`] of each; one that cannot be read is noted.
//!
//! Each client has its order of files, and the first file in it that has a URL decides. A provider that is not the one that the
//! client uses counts only if it leads to this project's port: others may be those of other projects.

mod codex;
mod formats;
mod gemini;
mod opencode;

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::finding::{Finding, Verdict};
use super::variables::{Api, BASE_URLS, Destination, base_url, this_machine};
use crate::cli::settings::Environment;
use crate::registry::Registry;
use crate::registry::project::read_regular;
use crate::text::{escaped_path, io_message, redact};

/// Where the files are, and what has been found in them.
pub struct Files<'a> {
    project: &'a Path,
    home: PathBuf,
    environment: &'a Environment<'a>,
    to: Destination<'a>,
    registry: &'a Registry,
    pub findings: Vec<Finding>,
    /// The URLs that were judged.
    pub urls: Vec<String>,
    /// Whether opencode has settings here.
    pub has_opencode: bool,
}

/// A client: the name of its check, and of its snippet.
#[derive(Debug, Clone, Copy)]
struct Client {
    check: &'static str,
    snippet: &'static str,
}

impl<'a> Files<'a> {
    /// Reads the files of all clients in the folders of the project and of the user.
    pub fn read(
        project: &'a Path,
        environment: &'a Environment<'a>,
        to: Destination<'a>,
        registry: &'a Registry,
    ) -> Files<'a> {
        let mut files = Files {
            project,
            home: PathBuf::new(),
            environment,
            to,
            registry,
            findings: Vec::new(),
            urls: Vec::new(),
            has_opencode: false,
        };
        // A folder that does not exist has no files.
        files.home = files
            .folder("HOME")
            .unwrap_or_else(|| "/nonexistent".into());
        files.claude();
        files.codex();
        files.opencode();
        files.gemini();
        files.qwen();
        files.dotenv();
        files
    }

    /// Checks the base URL in the first of Claude Code's settings files that has one.
    fn claude(&mut self) {
        const CLAUDE: Client = Client {
            check: "Claude Code",
            snippet: "claude",
        };
        let user = self.folder("CLAUDE_CONFIG_DIR");
        let user = user.unwrap_or_else(|| self.home.join(".claude"));
        for file in [
            self.project.join(".claude/settings.local.json"),
            self.project.join(".claude/settings.json"),
            user.join("settings.json"),
        ] {
            let settings = self.json(CLAUDE, &file).unwrap_or_default();
            if let Some(url) = settings["env"]["ANTHROPIC_BASE_URL"].as_str() {
                self.judge(CLAUDE, "ANTHROPIC_BASE_URL", &file, url, Api::Messages);
                break;
            }
        }
    }

    /// Checks the variables in the project's `.env`, which libraries read, and some agents in place of the shell's. Those that lead
    /// to another server of this machine may be meant so.
    fn dotenv(&mut self) {
        let file = self.project.join(".env");
        let lines = self.text(".env", &file).unwrap_or_default();
        for (name, api) in BASE_URLS {
            let Some(url) = formats::variable(&lines, name).filter(|url| !url.is_empty()) else {
                continue;
            };
            let way_out = "`ic env --shell dotenv` prints the right lines";
            let (verdict, why) = base_url(api, url, self.to, way_out, self.registry);
            let port = this_machine(url).and_then(|(_, port)| port.try_into().ok());
            let is_of_ic = port.is_some_and(|port| {
                self.to.port == Some(port) || self.registry.path_of(port).is_some()
            });
            let verdict = if is_of_ic { verdict } else { Verdict::Note };
            self.add(".env", (name, &file), url, verdict, &why);
        }
    }

    /// Judges the URL in the setting `name` of a file.
    fn judge(&mut self, client: Client, name: &str, file: &Path, url: &str, api: Api) -> Verdict {
        let way_out = format!("`ic snippet {}` prints the right settings", client.snippet);
        let (verdict, why) = base_url(api, url, self.to, &way_out, self.registry);
        self.add(client.check, (name, file), url, verdict, &why);
        verdict
    }

    fn add(
        &mut self,
        check: &'static str,
        (name, file): (&str, &Path),
        url: &str,
        verdict: Verdict,
        why: &str,
    ) {
        let value = match verdict {
            Verdict::Good => String::new(),
            Verdict::Note | Verdict::Wrong => format!("={}", redact::setting(url)),
        };
        let message = format!("{name}{value} in `{}` {why}", escaped_path(file));
        self.findings.push(Finding::new(check, verdict, message));
        self.urls.push(url.to_owned());
    }

    /// Whether the URL leads to this project's port.
    fn is_ours(&self, url: &str) -> bool {
        let port = this_machine(url).map(|(_, port)| port);
        port.is_some() && port == self.to.port.map(|port| port.get())
    }

    fn variable(&self, name: &'static str) -> Option<String> {
        let value = self.environment.variable(name)?;
        value.text().ok().map(str::to_owned)
    }

    /// The folder that a variable names.
    fn folder(&self, name: &'static str) -> Option<PathBuf> {
        let value = self.environment.variable(name)?;
        value.path().ok().map(Path::to_owned)
    }

    /// The content of a file; `None`: there is none, or it could not be read, which is a finding.
    fn text(&mut self, check: &'static str, file: &Path) -> Option<String> {
        match read_regular(file, FILE_BYTES_MAX) {
            Ok(content) => Some(String::from_utf8_lossy(&content).into_owned()),
            // A link that leads nowhere is there.
            Err(error) if is_missing(&error) && file.symlink_metadata().is_err() => None,
            Err(error) => {
                self.not_read(check, file, &io_message(&error));
                None
            }
        }
    }

    fn json(&mut self, client: Client, file: &Path) -> Option<Value> {
        self.document(client, file, formats::json, "it is not JSON")
    }

    /// What `parse` makes of a file; where that is nothing, `fault` says why.
    fn document(
        &mut self,
        client: Client,
        file: &Path,
        parse: fn(&str) -> Option<Value>,
        fault: &str,
    ) -> Option<Value> {
        let text = self.text(client.check, file)?;
        let document = parse(&text);
        if document.is_none() {
            self.not_read(client.check, file, fault);
        }
        document
    }

    fn not_read(&mut self, check: &'static str, file: &Path, why: &str) {
        let message = format!("could not read `{}`: {why}", escaped_path(file));
        self.findings.push(Finding::note(check, message));
    }
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// Settings are some KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
