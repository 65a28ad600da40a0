//! What an interceptor sends with every request: the instance identifier and the fields of `--header`.

use super::arguments::Serve;
use super::field::field;
use super::placeholders;
use super::template::{Placeholder, Template};
use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::settings::{self, Environment, SourcedValue};
use crate::registry::Port;
use crate::registry::project::Project;
use crate::text::name;

/// The instance identifier before `{project}` is replaced; `option` is the value of `--instance-id`.
pub fn instance_template(environment: &Environment<'_>, option: Option<&str>) -> SourcedValue {
    environment
        .flag_or_variable("--instance-id", option, settings::INSTANCE_ID)
        .unwrap_or_else(|| SourcedValue::default(INSTANCE_ID))
}

/// The instance identifier: `template` with the project's name in it.
///
/// # Errors
///
/// Bad usage: a header field cannot hold the name.
pub fn instance_id(template: &str, project: Option<&Project>) -> Result<String, Failure> {
    let Some(project) = project.filter(|_| template.contains(PROJECT)) else {
        return Ok(template.to_owned());
    };
    let name = name(project.path());
    let instance_id = template.replace(PROJECT, &name);
    // A byte that is not UTF-8 is carried as NUL and two digits, so this refuses such names as well.
    if instance_id.chars().any(char::is_control) {
        return Err(Failure::usage(format!(
            "the project's name `{name}` cannot be used in an instance id: it contains a control character \
             or is not UTF-8; give another with `--instance-id` or {}",
            settings::INSTANCE_ID
        )));
    }
    Ok(instance_id)
}

/// The fields of `--header`, in the order given, with their placeholders.
pub fn headers(serve: &Serve) -> Result<Vec<(String, Template)>, Failure> {
    let headers = serve.header.iter();
    headers
        .map(|header| field(&SourcedValue::flag(settings::HEADER, header)))
        .collect()
}

/// Whether the identifier or a field contains something that only a project has.
pub fn needs_project(template: &str, headers: &[(String, Template)]) -> bool {
    template.contains(PROJECT)
        || headers.iter().any(|(_, value)| {
            value.contains(Placeholder::Project) || value.contains(Placeholder::Branch)
        })
}

/// Every field to set on a request: the identification, then those of `--header` with their placeholders filled in.
/// Reports values that are sent encoded or empty on standard error.
///
/// # Errors
///
/// Bad usage: a value is longer than [`VALUE_BYTES_MAX`].
pub fn fields(
    instance_id: &str,
    headers: &[(String, Template)],
    project: Option<&Project>,
    port: Option<Port>,
    environment: &Environment<'_>,
) -> Result<Vec<(String, String)>, Failure> {
    let project = project.map(Project::path);
    let value_of = |placeholder| match placeholder {
        Placeholder::Instance => instance_id.to_owned(),
        Placeholder::Project => project.map(name).unwrap_or_default(),
        Placeholder::Port => port.map(|port| port.to_string()).unwrap_or_default(),
        Placeholder::Branch => project.and_then(placeholders::branch).unwrap_or_default(),
        Placeholder::User => placeholders::user(environment),
        Placeholder::Host => placeholders::host(),
    };
    let mut fields = vec![
        ("x-memory-user-id".to_owned(), instance_id.to_owned()),
        ("x-pycharm-instance".to_owned(), instance_id.to_owned()),
        ("x-source".to_owned(), SOURCE.to_owned()),
    ];
    for (name, template) in headers {
        let (value, encoded) = template.fill(value_of);
        if value.len() > VALUE_BYTES_MAX {
            return Err(Failure::usage(format!(
                "the field `{name}` would have {} bytes; give a value that has at most {VALUE_BYTES_MAX} with its \
                 placeholders filled in",
                value.len()
            )));
        }
        for encoded in encoded {
            eprint_line(format_args!(
                "`{{{}}}` in the field `{name}` is sent percent-encoded, as `{}`: a field holds no other characters",
                encoded.placeholder.name(),
                encoded.sent,
            ));
        }
        if template.contains(Placeholder::Branch) && value_of(Placeholder::Branch).is_empty() {
            eprint_line(format_args!(
                "`{{branch}}` in the field `{name}` is empty: the project is in no git repository"
            ));
        }
        fields.push((name.clone(), value));
    }
    Ok(fields)
}

/// What node accepts of a whole head; a branch, whose name the author of a repository chooses, can be longer.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Stands for the project's name in an instance identifier.
const PROJECT: &str = "{project}";

const INSTANCE_ID: &str = "pycharm-{project}";

/// The value that the original tool sends, by which servers recognise it.
const SOURCE: &str = "pycharm-ai-chat";
