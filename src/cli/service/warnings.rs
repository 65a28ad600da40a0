//! What a service would lack that works in a shell, and what its file would show.

use std::collections::BTreeMap;

use super::manager::Manager;
use crate::cli::kept::literal_secrets;
use crate::cli::outcome::Failure;
use crate::cli::serve::Serve;
use crate::cli::settings::Environment;
use crate::cli::template::{Purpose, Template};
use crate::registry::{Header, Registry, Settings};
use crate::text::escaped_path;

/// Warnings about fields with secrets that are given literally: the file of the service shows them, and so does the list of
/// processes. A target has none.
pub fn secrets(serve: &Serve) -> Vec<String> {
    let kept = Settings {
        headers: headers(&serve.header),
        ..Settings::default()
    };
    let warning = |name: &str| {
        format!(
            "warning: the field `{name}` holds a secret, which every program that reads the file of the service can see; keep \
             the secret in a variable, and `{{env:NAME}}` in the field"
        )
    };
    literal_secrets(&kept).map(warning).collect()
}

/// Refuses `--header`s with variables that `manager` does not give to the service: it could not start.
///
/// # Errors
///
/// Bad usage, naming the variable.
pub fn refuse_missing_variables(serve: &Serve, manager: &dyn Manager) -> Result<(), Failure> {
    for header in headers(&serve.header) {
        for name in variables_in(&header) {
            if manager.variable(&name).is_none() {
                return Err(Failure::usage(format!(
                    "the field `{}` needs the variable {name}, which the service would not have; set it {}, then run this \
                     again",
                    header.name,
                    manager.commands().set_variable,
                )));
            }
        }
    }
    Ok(())
}

/// Warnings about variables that `manager` does not give to the service: those of fields that `ic set` keeps, and those of
/// proxies that this shell has.
pub fn missing_variables(
    serve: &Serve,
    registry: &Registry,
    environment: &Environment<'_>,
    manager: &dyn Manager,
) -> Vec<String> {
    let set_variable = manager.commands().set_variable;
    let mut missing = BTreeMap::new();
    let notes = registry.notes();
    for (path, settings) in notes.settings_of_all() {
        // Those that cannot be read are not used.
        let headers = settings.map_or_else(|_| Vec::new(), |settings| settings.headers);
        for name in headers.iter().flat_map(variables_in) {
            missing.entry(name).or_insert(path);
        }
    }
    missing.retain(|name, _| manager.variable(name).is_none());
    let mut warnings = Vec::new();
    for (name, path) in missing {
        warnings.push(format!(
            "warning: the settings of `{}` need the variable {name}, which the service does not have; set it {set_variable}, \
             then run this again",
            escaped_path(path),
        ));
    }
    let is_lost = |name: &&&'static str| {
        environment.variable(name).is_some() && manager.variable(name).is_none()
    };
    if serve.use_proxy_env && PROXY_VARIABLES.iter().any(|name| is_lost(&name)) {
        let names: Vec<&str> = PROXY_VARIABLES.iter().filter(is_lost).copied().collect();
        warnings.push(format!(
            "warning: this shell has {}, and the service has not; set it {set_variable}, then run this again",
            names.join(", "),
        ));
    }
    warnings
}

/// The fields of `--header`, which were found to be good.
fn headers(options: &[String]) -> Vec<Header> {
    let fields = options.iter().filter_map(|option| option.split_once(':'));
    let fields = fields.map(|(name, value)| Header {
        name: name.to_owned(),
        value: value.trim().to_owned(),
    });
    fields.collect()
}

/// The names of the variables in the field's value.
fn variables_in(header: &Header) -> Vec<String> {
    let template = Template::parse(&header.value, Purpose::Field);
    template.map_or_else(
        |_| Vec::new(),
        |template| template.variables().map(str::to_owned).collect(),
    )
}

/// Read with `--use-proxy-env`.
const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];
