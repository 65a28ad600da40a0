//! What the page takes from other commands: the texts of `ic snippet` and `ic env`, and the start of the service.

use crate::cli::ENVIRONMENT;
use crate::cli::address::{bad_port, check_owner, urls_of};
use crate::cli::env::shell::{Shell, word};
use crate::cli::env::{lines, variables};
use crate::cli::kept::settings_of;
use crate::cli::outcome::Failure;
use crate::cli::service;
use crate::cli::service::manager::Manager;
use crate::cli::snippet;
use crate::registry::store::Store;
use crate::registry::{Port, Project};
use crate::text::raw;
use crate::ui::{ClientText, ClientTexts, Commands};

/// The commands, for one registry.
pub struct OwnCommands {
    /// The registry file, for finding out whether `ic serve --all` runs.
    pub store: Store,
    /// Whether the file is not the one that `ic` uses without options and variables.
    pub has_own_registry: bool,
}

impl Commands for OwnCommands {
    fn program(&self) -> String {
        match self.has_own_registry {
            true => {
                let file = raw::to_text(self.store.path().as_os_str());
                format!("ic --registry {}", word(&file))
            }
            false => "ic".to_owned(),
        }
    }

    fn client_texts(&self, project: &Project, port: Port) -> Result<ClientTexts, String> {
        check_owner(port, Some(project)).map_err(message)?;
        // Of a registry that cannot be read nothing is known.
        let loaded = self.store.read().ok();
        let kept = loaded.map(|loaded| settings_of(&loaded.registry, project));
        let urls = urls_of(&ENVIRONMENT, port, &kept.unwrap_or_default()).map_err(message)?;
        let variables = variables(&urls, &ENVIRONMENT);
        let (openai_url, anthropic_url) = (urls.openai(), urls.bare());
        let of_shells = SHELLS.iter().map(|(kind, title, shell)| ClientText {
            kind,
            title,
            hint: "these lines set the variables in a shell; the programs that are started there read them".to_owned(),
            text: lines(*shell, &variables),
        });
        let of_clients =
            snippet::of_clients(project, port, urls).map(|(kind, title, file)| ClientText {
                kind,
                title,
                hint: file.hint,
                text: file.content,
            });
        Ok(ClientTexts {
            texts: of_shells.chain(of_clients).collect(),
            openai_url,
            anthropic_url,
            serve: serve(&self.program(), project),
            warning: bad_port(port, Some(project)),
        })
    }

    fn can_start(&self) -> bool {
        self.stopped_service().is_some()
    }

    fn start(&self) -> Result<(), String> {
        match self.stopped_service() {
            Some(manager) => manager.restart().map_err(message),
            // It runs by now, or was uninstalled.
            None => Ok(()),
        }
    }
}

impl OwnCommands {
    /// The service, if it would serve this registry and does not run.
    fn stopped_service(&self) -> Option<Box<dyn Manager>> {
        if self.has_own_registry || self.store.claimed_by().is_some() {
            return None;
        }
        service::stopped(&ENVIRONMENT)
    }
}

/// The command that serves a project from any folder; `None` for a path that a terminal would not take unchanged.
fn serve(program: &str, project: &Project) -> Option<String> {
    let path = project.path().to_str()?;
    let command = format!("{program} serve --project {}", word(path));
    (!command.contains(char::is_control)).then_some(command)
}

fn message(failure: Failure) -> String {
    failure.message
}

/// Kind, name and syntax of each shell.
const SHELLS: [(&str, &str, Shell); 3] = [
    ("env", "sh, bash, zsh", Shell::Sh),
    ("env-fish", "fish", Shell::Fish),
    ("env-powershell", "PowerShell", Shell::Power),
];
