//! `ic snippet`: the settings that lead a client to a project's interceptor, and files that start one, ready to be pasted.
//!
//! Decided here: that the result is the whole content of a file, so that `>` can write it, while where it belongs is
//! said on standard error. What clients want is decided in `clients`, what runs an interceptor in `places`.

mod clients;
mod places;

use std::ffi::OsString;

use argh::{ArgsInfo, FromArgs};

use crate::registry::{Port, Project};

use super::address::{local, mapping_of};
use super::serve;
use super::settings::{self, SourcedValue};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::text::{Escaped, name};

/// print settings to paste, with a project's port: for clients, and for what starts an interceptor
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
            or what starts an interceptor: systemd, systemd-socket, compose, kubernetes.",
    error_code(1, "the project has no port")
)]
pub struct Snippet {
    /// for what: see below
    #[argh(positional, arg_name = "KIND")]
    pub kind: String,
    /// the project's folder; default: the current one
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// the model that the client is to ask for; default: a word to be replaced
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,
}

/// What a snippet is made of.
struct Facts {
    /// The project's name, on one line.
    project: String,
    /// The project itself, for what has to find it again.
    folder: Project,
    /// Host and port, for clients.
    authority: String,
    /// The port.
    port: u16,
    /// What the client asks for.
    model: String,
    /// Where an interceptor sends requests.
    target: String,
    /// How that interceptor names itself; empty for a client.
    instance: String,
    /// What else it is to be told, as variables.
    settings: Vec<(&'static str, OsString)>,
}

/// A file, and what to do with it.
struct Pasted {
    content: String,
    hint: String,
}

type Make = fn(&Facts) -> Pasted;

const CLIENTS: [(&str, Make); 6] = [
    ("jetbrains", clients::jetbrains),
    ("continue", clients::continue_dev),
    ("codex", clients::codex),
    ("claude", clients::claude),
    ("junie", clients::junie),
    ("aider", clients::aider),
];

const PLACES: [(&str, Make); 4] = [
    ("systemd", places::systemd),
    ("systemd-socket", places::systemd_socket),
    ("compose", places::compose),
    ("kubernetes", places::kubernetes),
];

/// What there are snippets for.
pub(super) fn kinds() -> Vec<&'static str> {
    let kinds = CLIENTS.iter().chain(&PLACES);
    kinds.map(|(name, _)| *name).collect()
}

impl Snippet {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let kind = SourcedValue::argument(&self.kind);
        let named = |kinds: &[(&str, Make)]| {
            let mut kinds = kinds.iter();
            kinds.find_map(|(name, make)| (*name == self.kind).then_some(*make))
        };
        let place = named(&PLACES);
        let make = place.or_else(|| named(&CLIENTS)).ok_or_else(|| {
            kind.refused(format_args!(
                "is not known here; there are {}",
                kinds().join(", ")
            ))
        })?;
        let model = match &self.model {
            Some(model) => SourcedValue::flag("--model", model).text()?.to_owned(),
            None => MODEL.to_owned(),
        };
        let target = context
            .environment
            .variable(settings::TARGET_URL)
            .unwrap_or_else(|| SourcedValue::default(serve::TARGET_URL));
        let target = target.target()?.to_string();
        let (folder, port) = mapping_of(context, self.path.as_deref())?;
        let folder = folder.map_or_else(|| context.project(None), Ok)?;
        let (instance, settings) = match place {
            Some(_) => {
                let template = serve::instance_template(&context.environment, None);
                let instance = serve::instance_id(template.text()?, Some(&folder))?;
                (instance, self.settings(context, port)?)
            }
            None => (String::new(), Vec::new()),
        };
        let pasted = make(&Facts {
            project: Escaped(&name(folder.path())).to_string(),
            folder,
            authority: local(port),
            port: port.get(),
            model,
            target,
            instance,
            settings,
        });
        context.out.text(pasted.content)?;
        eprint_line(pasted.hint);
        Ok(Exit::Done)
    }

    /// What an interceptor has to be told to be the one that would run here.
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

/// Stands where only the user knows what belongs there.
const MODEL: &str = "YOUR-MODEL";

/// A string of JSON, which YAML and TOML read as the same string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
