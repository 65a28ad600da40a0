//! What an interceptor sends with every request: the instance identifier and the fields of `--header`.

use std::collections::HashMap;
use std::path::Path;

use super::field::{field, is_same_field};
use super::mapping::command_for;
use super::placeholders;
use super::settings::{self, Environment, SourcedValue};
use super::template::{Placeholder, Purpose, Template, is_field_value};
use crate::cli::outcome::Failure;
use crate::registry::project::{Project, is_deleted};
use crate::registry::{Header, Port, Registry, Settings};
use crate::text::{escaped_path, name};

/// The instance identifier with its placeholders; `option` is the value of `--instance-id`, `kept` that of `ic set`.
///
/// # Errors
///
/// Bad usage: it is no text, or contains an unknown placeholder.
pub fn instance_template(
    environment: &Environment<'_>,
    option: Option<&str>,
    kept: Option<&str>,
) -> Result<Template, Failure> {
    let given = environment
        .setting(INSTANCE_ID_OPTION, option, settings::INSTANCE_ID, kept)
        .unwrap_or_else(|| SourcedValue::default(INSTANCE_ID));
    Template::parse(given.text()?, Purpose::InstanceId).map_err(|unknown| given.refused(unknown))
}

/// The fields to set, with their placeholders: the kept ones that no option replaces, then those of `--header`, in order.
///
/// # Errors
///
/// Bad usage: one is not a field that may be set.
pub fn headers(options: &[String], kept: &[Header]) -> Result<Vec<(String, Template)>, Failure> {
    let given = options
        .iter()
        .map(|header| field(&SourcedValue::flag(settings::HEADER, header)));
    let given: Vec<(String, Template)> = given.collect::<Result<_, Failure>>()?;
    let mut headers = Vec::new();
    for Header { name, value } in kept {
        let header = format!("{name}: {value}");
        let header = field(&SourcedValue::kept(settings::HEADER, &header))?;
        if !given.iter().any(|(given, _)| is_same_field(given, name)) {
            headers.push(header);
        }
    }
    headers.extend(given);
    Ok(headers)
}

/// The fields with their variables filled in.
///
/// # Errors
///
/// Bad usage: a variable is not set, or a field cannot hold its value.
pub fn with_variables(
    headers: Vec<(String, Template)>,
    environment: &Environment<'_>,
) -> Result<Vec<(String, Template)>, Failure> {
    let headers = headers.into_iter().map(|(name, template)| {
        let template = template.with_variables(|variable| {
            let value = (environment.0)(variable).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| {
                Failure::usage(format!(
                    "the field `{name}` needs the variable {variable}, which is not set; set it, or leave the field out"
                ))
            })?;
            // Not encoded: it may be a key, which would be another one then.
            let value = value.into_string().ok().filter(|value| is_field_value(value));
            value.ok_or_else(|| {
                Failure::usage(format!(
                    "the field `{name}` cannot hold the value of the variable {variable}: a field holds visible ASCII \
                     characters and, between them, spaces; change the variable"
                ))
            })
        });
        Ok((name, template?))
    });
    headers.collect()
}

/// Why the target cannot tell the project from another one: both would send the same instance identifier. `option` is the value
/// of `--instance-id`. `None` too where an option or a variable gives one identifier to all projects.
pub fn namesake(
    registry: &Registry,
    project: &Project,
    option: Option<&str>,
    environment: &Environment<'_>,
) -> Option<String> {
    let notes = registry.notes();
    let settings = notes.settings_of_all();
    let settings: HashMap<&Path, Settings> = settings
        .filter_map(|(path, settings)| Some((path, settings.ok()?)))
        .collect();
    let kept_for = |project: &Project| settings.get(project.path())?.instance_id.as_deref();
    let id_of = |project: &Project, port: Option<Port>, template: &Template| {
        let facts = Facts {
            project: Some(project),
            port,
            environment,
        };
        facts.instance_id(template).ok()
    };
    let given = environment.flag_or_variable(INSTANCE_ID_OPTION, option, settings::INSTANCE_ID);
    let template = instance_template(environment, option, kept_for(project)).ok()?;
    if given.is_some() && template.around_placeholders().is_none() {
        return None;
    }
    let instance_id = id_of(project, registry.port_of(project), &template)?;
    // That of most projects, of which there may be a thousand.
    let usual = instance_template(environment, None, None).ok();
    let is_same = |other: &Project, port: Port| {
        let id = match kept_for(other) {
            None => id_of(other, Some(port), usual.as_ref()?),
            kept => id_of(
                other,
                Some(port),
                &instance_template(environment, None, kept).ok()?,
            ),
        };
        Some(id? == instance_id && !is_deleted(other.path()))
    };
    let mut others = registry
        .mappings()
        .filter_map(|(path, port)| Some((Project::recorded(path)?, port)));
    let (other, _) =
        others.find(|(other, port)| other != project && is_same(other, *port) == Some(true))?;
    let way_out = match given {
        Some(given) => format!("put `{{parent}}` into `{given}`"),
        None => set_other_id(Some(project)),
    };
    Some(same_id(
        project.path(),
        other.path(),
        &instance_id,
        &way_out,
    ))
}

/// As [`namesake`], for two projects of which the first is to get another identifier with `ic set`.
pub fn namesakes(project: &Path, other: &Path, instance_id: &str) -> String {
    let project_name = Project::recorded(project);
    same_id(
        project,
        other,
        instance_id,
        &set_other_id(project_name.as_ref()),
    )
}

fn same_id(project: &Path, other: &Path, instance_id: &str, way_out: &str) -> String {
    format!(
        "`{}` and `{}` both send the instance id `{instance_id}`, so that the target cannot tell them apart; {way_out}",
        escaped_path(project),
        escaped_path(other),
    )
}

fn set_other_id(project: Option<&Project>) -> String {
    let set = "set --instance-id 'pycharm-{parent}-{project}'";
    format!("{} gives it another one", command_for(set, project))
}

/// Whether the identifier or a field contains something that only a project has.
pub fn needs_project(instance: &Template, headers: &[(String, Template)]) -> bool {
    let mut templates = headers.iter().map(|(_, value)| value).chain([instance]);
    templates.any(|template| OF_PROJECTS.iter().any(|&it| template.contains(it)))
}

/// What placeholders stand for.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The project; `None` where nothing needs it and it is unknown.
    pub project: Option<&'a Project>,
    /// `None` where there is none, or it is not known yet.
    pub port: Option<Port>,
    /// The variables, for the user's name.
    pub environment: &'a Environment<'a>,
}

impl Facts<'_> {
    fn value_of(&self, placeholder: Placeholder, instance_id: &str) -> String {
        let project = self.project.map(Project::path);
        let value = match placeholder {
            Placeholder::Instance => Some(instance_id.to_owned()),
            Placeholder::Project => project.map(folder_name),
            Placeholder::Parent => project.and_then(Path::parent).map(folder_name),
            Placeholder::Port => self.port.map(|port| port.to_string()),
            Placeholder::Branch => project.and_then(placeholders::branch),
            Placeholder::User => Some(placeholders::user(self.environment)),
            Placeholder::Host => Some(placeholders::host()),
        };
        value.unwrap_or_default()
    }

    /// The instance identifier.
    ///
    /// # Errors
    ///
    /// Bad usage: a header field cannot hold the value of a placeholder, or all of them are empty.
    pub fn instance_id(&self, template: &Template) -> Result<String, Failure> {
        let mut refused = None;
        let instance_id = template.fill(|placeholder| {
            let value = self.value_of(placeholder, "");
            // A byte that is not UTF-8 is carried as NUL and two digits, so this refuses such names as well.
            if value.chars().any(char::is_control) {
                refused = Some((placeholder, value.clone()));
            }
            value
        });
        let other = format!(
            "give another with `--instance-id` or {}",
            settings::INSTANCE_ID
        );
        if let Some((placeholder, value)) = refused {
            let what = match placeholder {
                Placeholder::Project => "the project's name".to_owned(),
                other => format!("the value of {{{}}},", other.name()),
            };
            return Err(Failure::usage(format!(
                "{what} `{value}` cannot be used in an instance id: it contains a control character or is not UTF-8; {other}"
            )));
        }
        // The port is filled in later.
        if instance_id.trim().is_empty() && !template.contains(Placeholder::Port) {
            return Err(Failure::usage(format!("the instance id is empty; {other}")));
        }
        refuse_long("instance id", &instance_id)?;
        Ok(instance_id)
    }

    /// The value of a field as [`Template::field_with`] writes it, with these facts in it.
    pub fn field(&self, template: &Template, instance_id: &str) -> String {
        template.field_with(|it| self.value_of(it, instance_id))
    }

    /// Every field to set on a request: the identification, then those of `--header` with their placeholders filled in. Adds a
    /// line to `notes` for each value that is sent encoded or empty.
    ///
    /// # Errors
    ///
    /// Bad usage: a value is longer than 16 KiB.
    pub fn fields(
        &self,
        instance: &Template,
        instance_id: &str,
        headers: &[(String, Template)],
        notes: &mut Vec<String>,
    ) -> Result<Vec<(String, String)>, Failure> {
        let mut fields = vec![
            ("x-memory-user-id".to_owned(), instance_id.to_owned()),
            ("x-pycharm-instance".to_owned(), instance_id.to_owned()),
            ("x-source".to_owned(), SOURCE.to_owned()),
        ];
        notes.extend(self.no_branch(instance, "instance id"));
        for (name, template) in headers {
            let holder = format!("field `{name}`");
            let (value, encoded) = template.fill_field(|it| self.value_of(it, instance_id));
            refuse_long(&holder, &value)?;
            notes.extend(encoded.iter().map(|encoded| {
                format!(
                    "`{{{}}}` in the {holder} is sent percent-encoded, as `{}`: a field holds no other characters",
                    encoded.placeholder.name(),
                    encoded.sent,
                )
            }));
            notes.extend(self.no_branch(template, &holder));
            fields.push((name.clone(), value));
        }
        Ok(fields)
    }

    fn no_branch(&self, template: &Template, holder: &str) -> Option<String> {
        let is_empty = template.contains(Placeholder::Branch)
            && self.value_of(Placeholder::Branch, "").is_empty();
        is_empty.then(|| {
            format!("`{{branch}}` in the {holder} is empty: the project is in no git repository")
        })
    }
}

/// The full name of a folder. The root, which is the current folder in most containers, has none: a slash would be the only one
/// in identifiers.
fn folder_name(path: &Path) -> String {
    match path.file_name() {
        Some(_) => name(path),
        None => ROOT_NAME.to_owned(),
    }
}

fn refuse_long(holder: &str, value: &str) -> Result<(), Failure> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the {holder} would have {} bytes; give a value that has at most {VALUE_BYTES_MAX} with its placeholders filled in",
        value.len()
    )))
}

/// What node accepts of a whole head; a branch, whose name the author of a repository chooses, can be longer.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// The placeholders that only a project has.
const OF_PROJECTS: [Placeholder; 3] = [
    Placeholder::Project,
    Placeholder::Parent,
    Placeholder::Branch,
];

const INSTANCE_ID_OPTION: &str = "--instance-id";

const INSTANCE_ID: &str = "pycharm-{project}";

/// What `{project}` is for the root folder.
const ROOT_NAME: &str = "root";

/// The value that the original tool sends, by which servers recognise it.
const SOURCE: &str = "pycharm-ai-chat";
