//! The options and variables of `ic serve --all`: the defaults of all projects, read and checked.

use crate::cli::identity;
use crate::cli::identity::{instance_template, with_variables};
use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::serve::arguments::Serve;
use crate::cli::serve::limits;
use crate::cli::serve::listening;
use crate::cli::serve::settings::Upstream;
use crate::cli::serve::trust::trust;
use crate::cli::settings::{self, Environment, SourcedValue};
use crate::cli::template::{Placeholder, Template};
use crate::registry::Settings;
use crate::serve::{Guard, Timeouts, Trust};

/// How projects are served for which `ic set` keeps nothing else. Names are not resolved and certificates are not read.
pub struct Defaults {
    /// The names and addresses to listen on; `*` is all addresses.
    pub hosts: Vec<String>,
    /// Which requests are served.
    pub guard: Guard,
    /// Where requests go.
    pub upstream: Upstream,
    /// Whether targets on other machines are reached through the proxies of the environment.
    pub uses_proxies: bool,
    /// How the certificate of an `https` target is verified.
    pub trust: Trust,
    /// The instance identifier, with its placeholders.
    pub instance: Template,
    /// The fields of `--header`, with their variables filled in.
    pub headers: Vec<(String, Template)>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// The maximum number of simultaneous client connections of all projects together.
    pub connections_max: usize,
}

impl Defaults {
    /// Reads every value.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable.
    pub fn of(serve: &Serve, environment: &Environment<'_>) -> Result<Defaults, Failure> {
        refuse_options_of_one(serve, environment)?;
        let headers = identity::headers(&serve.header, &[])?;
        let defaults = Defaults {
            hosts: listening::hosts(serve)?,
            guard: listening::guard(serve)?,
            upstream: serve.upstream(&Settings::default(), environment)?,
            uses_proxies: serve.use_proxy_env,
            trust: trust(serve, environment)?,
            instance: instance(serve, environment)?,
            headers: with_variables(headers, environment)?,
            timeouts: limits::timeouts(serve)?,
            connections_max: limits::connections_max(serve)?,
        };
        limits::refuse_threads(serve)?;
        if let Upstream::Target(target) = &defaults.upstream {
            target.target()?;
        }
        Ok(defaults)
    }
}

/// Refuses what says where one project is served.
fn refuse_options_of_one(serve: &Serve, environment: &Environment<'_>) -> Result<(), Failure> {
    let options = [
        ("--port", serve.port.is_some()),
        ("--listen", serve.listen.is_some()),
        ("--listen-mode", serve.listen_mode.is_some()),
        ("--project", serve.project.is_some()),
        ("--idle-exit", serve.idle_exit.is_some()),
    ];
    if let Some((option, _)) = options.iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::usage(format!(
            "`{option}` is for one project, and `--all` serves each one on its own port; leave one of them out"
        )));
    }
    match environment.variable(settings::PORT) {
        Some(given) => Err(given.refused(
            "is for one project, and `--all` serves each one on its own port; unset the variable",
        )),
        None => Ok(()),
    }
}

/// The instance identifier, which has to differ from project to project.
fn instance(serve: &Serve, environment: &Environment<'_>) -> Result<Template, Failure> {
    let option = serve.instance_id.as_deref();
    let instance = instance_template(environment, option, None)?;
    let differs =
        |it: &Template| it.contains(Placeholder::Project) || it.contains(Placeholder::Port);
    if differs(&instance) {
        return Ok(instance);
    }
    let same = "would be the same for all projects; put {project} or {port} into it";
    match (option, environment.variable(settings::INSTANCE_ID)) {
        (Some(option), _) => Err(SourcedValue::flag("--instance-id", option).refused(same)),
        (None, Some(variable)) => {
            eprint_line(format_args!(
                "`{variable}` is ignored: it {same}, or unset the variable"
            ));
            instance_template(&Environment(&|_| None), None, None)
        }
        (None, None) => Ok(instance),
    }
}
