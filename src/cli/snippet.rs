//! `ic snippet`: prints settings that point a client at a project's interceptor, and files that start an interceptor.
//!
//! Decided here: standard output gets the complete content of a file, so that `>` can write it, and standard error says
//! where the file belongs. The formats of clients are in `clients`, those of service managers in `services`.

mod clients;
mod facts;
mod services;

use std::collections::BTreeSet;

use argh::{ArgsInfo, FromArgs};

use crate::registry::{Port, Project, Settings};

use self::facts::{Container, Facts, File, Unit};
use super::address::{BaseUrls, bad_port, check_owner, mapping_of, urls_of};
use super::identity::{self, instance_template};
use super::kept::{settings_of, with_variables_for_secrets};
use super::serve;
use super::settings::{self, SourcedValue};
use super::template::{Template, escaped};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;

/// print configuration for a client, or for a service manager that starts an interceptor
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "snippet",
    help_triggers("-h", "--help"),
    example = "ic snippet jetbrains\n\
               ic snippet codex >~/.codex/ic-8888.config.toml           then `codex -p ic-8888`\n\
               ic snippet opencode --model gpt-5 >opencode.json\n\
               ic snippet junie >.junie/models/ic.json\n\
               ic snippet systemd >~/.config/systemd/user/ic-shop.service",
    note = "KIND is a client: jetbrains, continue, codex, claude, junie, aider, gemini, qwen,\n\
            opencode, copilot, cline, pi, zed, goose;\n\
            or a service manager: systemd, systemd-socket, compose, kubernetes.\n\
            Standard error says where it belongs. `>` is for a new file: it replaces one that exists.",
    error_code(1, "the project has no port")
)]
pub struct Snippet {
    /// client or service manager: see the notes below
    #[argh(positional, arg_name = "KIND")]
    pub kind: String,
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// model for the client to use; default: its own, or YOUR-MODEL, to be replaced
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,
}

/// How a snippet is made, and from what.
#[derive(Clone, Copy)]
enum Render {
    /// With the client's name, for people.
    Client(&'static str, fn(&Facts) -> File),
    Unit(fn(&Facts, &Unit) -> File),
    Container(fn(&Facts, &Container) -> File),
}

const KINDS: [(&str, Render); 18] = [
    (
        "jetbrains",
        Render::Client("JetBrains AI Assistant", clients::jetbrains),
    ),
    (
        "continue",
        Render::Client("Continue", clients::continue_dev),
    ),
    ("codex", Render::Client("Codex", clients::codex)),
    ("claude", Render::Client("Claude Code", clients::claude)),
    ("junie", Render::Client("Junie", clients::junie)),
    ("aider", Render::Client("aider", clients::aider)),
    ("gemini", Render::Client("Gemini CLI", clients::gemini)),
    ("qwen", Render::Client("Qwen Code", clients::qwen)),
    ("opencode", Render::Client("opencode", clients::opencode)),
    ("copilot", Render::Client("Copilot CLI", clients::copilot)),
    ("cline", Render::Client("Cline", clients::cline)),
    ("pi", Render::Client("pi", clients::pi)),
    ("zed", Render::Client("Zed", clients::zed)),
    ("goose", Render::Client("goose", clients::goose)),
    ("systemd", Render::Unit(services::systemd)),
    ("systemd-socket", Render::Unit(services::systemd_socket)),
    ("compose", Render::Container(services::compose)),
    ("kubernetes", Render::Container(services::kubernetes)),
];

/// All values of KIND.
pub(super) fn kinds() -> Vec<&'static str> {
    KINDS.iter().map(|(name, _)| *name).collect()
}

/// The values of KIND that are clients.
pub(super) fn client_kinds() -> impl Iterator<Item = &'static str> {
    let clients = KINDS
        .iter()
        .filter(|(_, render)| matches!(render, Render::Client(..)));
    clients.map(|(name, _)| *name)
}

/// The settings of each client for a project: kind, name, and what is printed.
#[cfg_attr(
    not(feature = "ui"),
    expect(dead_code, reason = "only the page shows it")
)]
pub(super) fn of_clients(
    folder: &Project,
    port: Port,
    urls: BaseUrls,
) -> impl Iterator<Item = (&'static str, &'static str, File)> {
    let facts = Facts::new(folder.clone(), port, urls, None);
    KINDS.iter().filter_map(move |(kind, render)| match render {
        Render::Client(title, render) => Some((*kind, *title, render(&facts))),
        Render::Unit(_) | Render::Container(_) => None,
    })
}

impl Snippet {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let mut known = KINDS.iter();
        let render = known.find_map(|(name, render)| (*name == self.kind).then_some(*render));
        let render = render.ok_or_else(|| {
            SourcedValue::argument(&self.kind).refused(format_args!(
                "is not a known kind; known are {}",
                kinds().join(", ")
            ))
        })?;
        let model = match &self.model {
            Some(model) => Some(SourcedValue::flag("--model", model).text()?.to_owned()),
            None => None,
        };
        let (folder, port, registry) = mapping_of(context, self.path.as_deref())?;
        if let Render::Client(..) = render {
            check_owner(port, folder.as_ref())?;
            bad_port(port, folder.as_ref()).iter().for_each(eprint_line);
        }
        let kept = match &folder {
            Some(folder) => settings_of(&registry, folder),
            None => Settings::default(),
        };
        let folder = folder.map_or_else(|| context.project(None), Ok)?;
        let urls = urls_of(&context.environment, port, &kept)?;
        let facts = Facts::new(folder, port, urls, model);
        let sender = identity::Facts {
            project: Some(&facts.folder),
            port: Some(port),
            environment: &context.environment,
        };
        let file = match render {
            Render::Client(_, render) => render(&facts),
            Render::Unit(render) => render(&facts, &self.unit(context, &sender, &kept)?),
            Render::Container(render) => render(&facts, &container(&sender, &kept)?),
        };
        context.out.text(file.content)?;
        eprint_line(file.hint);
        Ok(Exit::Done)
    }

    /// What makes an interceptor use the registry, port, target and identifier in effect here. What is kept is not repeated: a
    /// variable would win over a later `ic set`.
    fn unit(
        &self,
        context: &Context<'_>,
        sender: &identity::Facts<'_>,
        kept: &Settings,
    ) -> Result<Unit, Failure> {
        let environment = &context.environment;
        instance(sender, kept)?;
        let mut variables = context.globals.as_variables(environment)?;
        if self.path.is_none()
            && let Some(given) = environment.variable(settings::PORT)
        {
            variables.push((settings::PORT, given.port()?.to_string().into()));
        }
        for (variable, kept) in [
            (settings::TARGET_URL, &kept.target),
            (settings::INSTANCE_ID, &kept.instance_id),
        ] {
            if let Some(given) = environment.variable(variable)
                && kept.as_deref() != Some(given.text()?)
            {
                variables.push((variable, given.text()?.into()));
            }
        }
        Ok(Unit {
            variables,
            unknown: variables_of(&identity::headers(&[], &kept.headers)?),
        })
    }
}

/// What makes an interceptor without the registry use what is kept. Placeholders are filled in: the project's folder is not there.
fn container(sender: &identity::Facts<'_>, kept: &Settings) -> Result<Container, Failure> {
    let kept_target = kept.target.as_deref();
    let target = sender
        .environment
        .setting("--target", None, settings::TARGET_URL, kept_target)
        .unwrap_or_else(|| SourcedValue::default(serve::TARGET_URL));
    let instance = instance(sender, kept)?;
    let headers = identity::headers(&[], &with_variables_for_secrets(&kept.headers))?;
    let fields = headers.iter().map(|(name, value)| {
        let value = sender.field(value, &instance);
        format!("{name}: {value}")
    });
    Ok(Container {
        target: (target.text()?.to_owned(), target.target()?),
        fields: fields.collect(),
        unknown: variables_of(&headers),
        // A variable is read as a template.
        instance: escaped(&instance),
    })
}

/// The instance identifier.
///
/// # Errors
///
/// Bad usage: no field can hold it.
fn instance(sender: &identity::Facts<'_>, kept: &Settings) -> Result<String, Failure> {
    let kept = kept.instance_id.as_deref();
    sender.instance_id(&instance_template(sender.environment, None, kept)?)
}

/// The names of the variables in these fields, each once.
fn variables_of(headers: &[(String, Template)]) -> Vec<String> {
    let names = headers.iter().flat_map(|(_, value)| value.variables());
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().map(str::to_owned).collect()
}
