//! `ic set`: keeps how a project is served, so that `ic serve` and `ic run` need no options.
//!
//! Decided here: what one command changes. What the values mean is decided where `ic serve` reads them; how they are shown,
//! in `kept`.

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use super::address::bad_port;
use super::field::{field, is_same_field};
use super::identity::instance_template;
use super::kept;
use super::project::{note_if_missing, print_project, refuse_no_folder};
use super::settings::{HEADER, SourcedValue};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::registry::{Header, Port, Project, Registry, Settings};
use crate::text::{escaped_path, name, raw};

/// keep how a project is served: target, identifier, header fields; without an option, show it
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "set",
    help_triggers("-h", "--help"),
    example = "ic set --target http://localhost:4000 --header 'x-team: blue'\n\
               ic set --header 'authorization: Bearer {{env:SHOP_KEY}}'\n\
               ic set ~/work/shop --unset header:x-team",
    note = "`ic serve` and `ic run` use the settings wherever their option and its variable are missing; a\n\
            --header of theirs is added, or replaces the kept one of the same name. With a place that is given\n\
            (--port, INTERCEPTOR_PORT, --listen) the registry is not read, and they are not used.\n\
            `ic serve --all` uses them before its options and variables. A project without a port gets one.\n\
            A running interceptor uses them after a restart, `ic serve --all` at once.",
    error_code(2, "an option has an invalid value"),
    error_code(3, "no port of the range is left, or the registry cannot be written")
)]
pub struct Set {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// where requests go, as for `ic serve`
    #[argh(option, arg_name = "URL")]
    pub target: Option<String>,
    /// identifier sent with every request, as for `ic serve`
    #[argh(option, arg_name = "ID")]
    pub instance_id: Option<String>,
    /// header field to set on every request, as for `ic serve`; replaces the kept one of this name; may be repeated
    #[argh(option, arg_name = "FIELD")]
    pub header: Vec<String>,
    /// remove a setting, before others are kept: target, instance-id, header (all of them) or header:NAME; may be repeated
    #[argh(option, arg_name = "SETTING")]
    pub unset: Vec<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

/// A setting to remove.
enum Unset {
    Target,
    InstanceId,
    Headers,
    Header(String),
}

impl Set {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let new = self.given(context)?;
        let unset: Result<Vec<Unset>, Failure> =
            self.unset.iter().map(|it| Unset::of(it)).collect();
        let unset = unset?;
        let handle = context.registry_handle()?;
        let change = |registry: &mut Registry, project: &Project| {
            let mut kept = registry
                .notes()
                .settings(project.path())
                .unwrap_or_default();
            unset.iter().for_each(|unset| unset.apply(&mut kept));
            merge(&mut kept, &new);
            registry.set_settings(project, &kept);
            kept
        };
        let (project, port, kept) = if new != Settings::default() {
            let project = context.project(self.path.as_deref())?;
            refuse_no_folder(project.path())?;
            let (allocated, kept) =
                handle.allocate(&project, |registry, _| change(registry, &project))?;
            if allocated.created {
                note_if_missing(&project);
            }
            (project, Some(allocated.port), kept)
        } else {
            let named = context.named(self.path.as_deref())?;
            if unset.is_empty() {
                let registry = handle.read()?;
                let (project, port) = named.among(&registry)?;
                let kept = kept::settings_of(&registry, &project);
                (project, port, kept)
            } else {
                handle.update(|registry| {
                    let (project, port) = named.among(registry)?;
                    let kept = change(registry, &project);
                    Ok::<_, Failure>((project, port, kept))
                })??
            }
        };
        for field in kept::literal_secrets(&new) {
            eprint_line(format_args!(
                "warning: the field `{field}` holds a secret, which every program that reads `{}` can see, and `ic export` \
                 writes; keep the secret in a variable, and `{{env:NAME}}` in the field",
                escaped_path(handle.store.path())
            ));
        }
        self.print(context, &project, port, &kept)?;
        port.and_then(|port| bad_port(port, Some(&project)))
            .iter()
            .for_each(eprint_line);
        Ok(Exit::Done)
    }

    /// The settings that are given, checked as `ic serve` checks them. Variables in fields need not be set here.
    fn given(&self, context: &Context<'_>) -> Result<Settings, Failure> {
        if let Some(target) = &self.target {
            SourcedValue::flag("--target", target).target()?;
        }
        if let Some(instance_id) = self.instance_id.as_deref() {
            instance_template(&context.environment, Some(instance_id), None)?;
        }
        let headers = self.header.iter().map(|header| {
            let (name, _) = field(&SourcedValue::flag(HEADER, header))?;
            let (_, value) = header.split_once(':').unwrap_or_default();
            let value = value.trim().to_owned();
            Ok(Header { name, value })
        });
        Ok(Settings {
            target: self.target.clone(),
            instance_id: self.instance_id.clone(),
            headers: headers.collect::<Result<_, Failure>>()?,
        })
    }

    fn print(
        &self,
        context: &mut Context<'_>,
        project: &Project,
        port: Option<Port>,
        kept: &Settings,
    ) -> Result<(), Failure> {
        let path = project.path();
        if self.json {
            let mut document =
                json!({ "project": name(path), "path": raw::to_text(path.as_os_str()) });
            let settings = kept::document(kept);
            for (member, value) in settings.as_object().into_iter().flatten() {
                document[member] = value.clone();
            }
            return context.out.json(&document);
        }
        print_project(context.out, project, port)?;
        if *kept == Settings::default() {
            return context.out.text("\nNo settings are kept\n");
        }
        kept::print(context.out, kept)
    }
}

/// Puts `new` into `kept`; a field replaces those of its name.
fn merge(kept: &mut Settings, new: &Settings) {
    let Settings {
        target,
        instance_id,
        headers,
    } = new.clone();
    kept.target = target.or(kept.target.take());
    kept.instance_id = instance_id.or(kept.instance_id.take());
    kept.headers.retain(|header| {
        let mut new = headers.iter();
        !new.any(|new| is_same_field(&new.name, &header.name))
    });
    kept.headers.extend(headers);
}

impl Unset {
    fn of(given: &str) -> Result<Unset, Failure> {
        match given {
            "target" => Ok(Unset::Target),
            "instance-id" => Ok(Unset::InstanceId),
            "header" => Ok(Unset::Headers),
            _ => match given.strip_prefix("header:") {
                Some(name) if !name.is_empty() => Ok(Unset::Header(name.to_owned())),
                _ => Err(SourcedValue::flag("--unset", given)
                    .refused("is not a setting; give target, instance-id, header or header:NAME")),
            },
        }
    }

    fn apply(&self, kept: &mut Settings) {
        match self {
            Unset::Target => kept.target = None,
            Unset::InstanceId => kept.instance_id = None,
            Unset::Headers => kept.headers.clear(),
            Unset::Header(name) => kept
                .headers
                .retain(|header| !is_same_field(&header.name, name)),
        }
    }
}
