//! What `ic run` says about a program that has sent no request through the port: the likely reason.

use super::agents;
use crate::cli::mapping::command_for;
use crate::cli::settings::Environment;
use crate::registry::project::Project;
use crate::text::Escaped;

/// The line for `program`, called with `arguments`, which was to send its requests to `authority`.
pub fn why_unused(
    program: &str,
    arguments: &[String],
    authority: &str,
    project: Option<&Project>,
    environment: &Environment<'_>,
) -> String {
    let reason = match agents::kind(program, arguments) {
        Some(kind) => format!(
            "if it should have, its own settings win over the variables: {} prints those to use",
            command_for(&format!("snippet {kind}"), project)
        ),
        None => {
            "if it should have, it does not read the variables that `ic help env` lists".to_owned()
        }
    };
    let proxy = PROXIES
        .iter()
        .find(|name| environment.variable(name).is_some());
    let proxy = proxy.map(|name| {
        format!(", or sends them to the proxy in {name} although NO_PROXY names this machine")
    });
    format!(
        "`{}` has sent no request to http://{authority}; {reason}{}",
        Escaped(program),
        proxy.unwrap_or_default()
    )
}

/// The variables that clients read for `http` URLs.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
