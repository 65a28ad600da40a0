//! `ic snippet`: prints settings that point a client at a project's interceptor, and files that start an interceptor.
//!
//! Decided here: standard output gets the complete content of a file, so that `>` can write it, and standard error says
//! where the file belongs. The formats of clients are in `clients`, those of service managers in `services`.

mod clients;
mod facts;
mod services;

use std::ffi::OsString;

use argh::{ArgsInfo, FromArgs};

use crate::registry::{Port, Settings};

use self::facts::{Facts, File};
use super::address::{bad_port, check_owner, local, mapping_of};
use super::identity::{self, instance_template};
use super::kept::settings_of;
use super::serve;
use super::settings::{self, SourcedValue};
use super::template::escaped;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::text::{Escaped, name};

/// print configuration for a client, or for a service manager that starts an interceptor
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "snippet",
    help_triggers("-h", "--help"),
    example = "ic snippet jetbrains\n\
               ic snippet codex --model gpt-5 >>~/.codex/config.toml\n\
               ic snippet junie >.junie/models/ic.json\n\
               ic snippet systemd >~/.config/systemd/user/ic-shop.service",
    note = "KIND is a client: jetbrains, continue, codex, claude, junie, aider;\n\
            or a service manager: systemd, systemd-socket, compose, kubernetes.",
    error_code(1, "the project has no port")
)]
pub struct Snippet {
    /// client or service manager: see the notes below
    #[argh(positional, arg_name = "KIND")]
    pub kind: String,
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// model for the client to use; default: YOUR-MODEL, to be replaced
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,
}

type Render = fn(&Facts) -> File;

const CLIENTS: [(&str, Render); 6] = [
    ("jetbrains", clients::jetbrains),
    ("continue", clients::continue_dev),
    ("codex", clients::codex),
    ("claude", clients::claude),
    ("junie", clients::junie),
    ("aider", clients::aider),
];

const SERVICES: [(&str, Render); 4] = [
    ("systemd", services::systemd),
    ("systemd-socket", services::systemd_socket),
    ("compose", services::compose),
    ("kubernetes", services::kubernetes),
];

/// All values of KIND.
pub(super) fn kinds() -> Vec<&'static str> {
    let kinds = CLIENTS.iter().chain(&SERVICES);
    kinds.map(|(name, _)| *name).collect()
}

impl Snippet {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let kind = SourcedValue::argument(&self.kind);
        let named = |kinds: &[(&str, Render)]| {
            let mut kinds = kinds.iter();
            kinds.find_map(|(name, render)| (*name == self.kind).then_some(*render))
        };
        let service = named(&SERVICES);
        let render = service.or_else(|| named(&CLIENTS)).ok_or_else(|| {
            kind.refused(format_args!(
                "is not a known kind; known are {}",
                kinds().join(", ")
            ))
        })?;
        let model = match &self.model {
            Some(model) => SourcedValue::flag("--model", model).text()?.to_owned(),
            None => MODEL.to_owned(),
        };
        let configured = context.environment.variable(settings::TARGET_URL);
        configured.as_ref().map(SourcedValue::target).transpose()?;
        let (folder, port, registry) = mapping_of(context, self.path.as_deref())?;
        if service.is_none() {
            check_owner(port, folder.as_ref())?;
            bad_port(port, folder.as_ref()).iter().for_each(eprint_line);
        }
        let kept = match &folder {
            Some(folder) => settings_of(&registry, folder),
            None => Settings::default(),
        };
        let kept_target = kept.target.as_deref();
        let target = context
            .environment
            .setting("--target", None, settings::TARGET_URL, kept_target)
            .unwrap_or_else(|| SourcedValue::default(serve::TARGET_URL));
        let target = target.target()?.to_string();
        let folder = folder.map_or_else(|| context.project(None), Ok)?;
        let (instance, settings) = match service {
            Some(_) => {
                let facts = identity::Facts {
                    project: Some(&folder),
                    port: Some(port),
                    environment: &context.environment,
                };
                let instance = instance(&facts, kept.instance_id.as_deref())?;
                (instance, self.settings(context, port)?)
            }
            None => (String::new(), Vec::new()),
        };
        let file = render(&Facts {
            project: Escaped(&name(folder.path())).to_string(),
            folder,
            authority: local(port),
            port: port.get(),
            model,
            target,
            instance,
            settings,
        });
        context.out.text(file.content)?;
        eprint_line(file.hint);
        Ok(Exit::Done)
    }

    /// The variables that make an interceptor use the registry, port and identifier in effect here.
    fn settings(
        &self,
        context: &Context<'_>,
        port: Port,
    ) -> Result<Vec<(&'static str, OsString)>, Failure> {
        let environment = &context.environment;
        let mut settings = context.globals.as_variables(environment)?;
        if self.path.is_none() && environment.variable(settings::PORT).is_some() {
            settings.push((settings::PORT, port.to_string().into()));
        }
        if let Some(template) = environment.variable(settings::INSTANCE_ID) {
            settings.push((settings::INSTANCE_ID, template.text()?.into()));
        }
        Ok(settings)
    }
}

/// A placeholder for the user to replace.
const MODEL: &str = "YOUR-MODEL";

/// The instance identifier, escaped where it would be read as a template.
fn instance(facts: &identity::Facts<'_>, kept: Option<&str>) -> Result<String, Failure> {
    let template = instance_template(facts.environment, None, kept)?;
    Ok(escaped(&facts.instance_id(&template)?))
}
