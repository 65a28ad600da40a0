//! `ic snippet`: the settings that lead a client to a project's interceptor, and files that start one, ready to be pasted.
//!
//! Decided here: that the result is the whole content of a file, so that `>` can write it, while where it belongs is
//! said on standard error. What clients want is decided in `clients`, what runs an interceptor in `places`.

mod clients;
mod places;

use argh::{ArgsInfo, FromArgs};

use crate::registry::project::Project;

use super::address::{local, mapping_of};
use super::output::{Shown, complain, name};
use super::settings::{self, Given};
use super::{Context, Exit, Failure, serve};

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
}

/// A file, and what to do with it.
struct Pasted {
    content: String,
    hint: String,
}

type Make = fn(&Facts) -> Pasted;

const KINDS: [(&str, Make); 10] = [
    ("jetbrains", clients::jetbrains),
    ("continue", clients::continue_dev),
    ("codex", clients::codex),
    ("claude", clients::claude),
    ("junie", clients::junie),
    ("aider", clients::aider),
    ("systemd", places::systemd),
    ("systemd-socket", places::systemd_socket),
    ("compose", places::compose),
    ("kubernetes", places::kubernetes),
];

impl Snippet {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let kind = Given::argument(&self.kind);
        let (_, make) = KINDS
            .into_iter()
            .find(|(name, _)| *name == self.kind)
            .ok_or_else(|| {
                let known = KINDS.map(|(name, _)| name);
                kind.refused(format_args!(
                    "is not known here; there are {}",
                    known.join(", ")
                ))
            })?;
        let model = match &self.model {
            Some(model) => Given::flag("--model", model).text()?.to_owned(),
            None => MODEL.to_owned(),
        };
        let target = match context.environment.variable(settings::TARGET_URL) {
            Some(given) => given.text()?.to_owned(),
            None => serve::TARGET_URL.to_owned(),
        };
        let (folder, port) = mapping_of(context, self.path.as_deref())?;
        let folder = folder.map_or_else(|| context.project(None), Ok)?;
        let pasted = make(&Facts {
            project: Shown(&name(folder.path())).to_string(),
            folder,
            authority: local(port),
            port: port.get(),
            model,
            target,
        });
        context.out.text(pasted.content)?;
        complain(pasted.hint);
        Ok(Exit::Done)
    }
}

/// Stands where only the user knows what belongs there.
const MODEL: &str = "YOUR-MODEL";

/// A string of JSON, which YAML and TOML read as the same string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
