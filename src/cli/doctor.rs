//! `ic doctor`: checks each part of the way from a client's variables to the target's stream.
//!
//! Here is the order of the checks. `probes` looks at the system; `checks`, `variables` and `stream` are pure functions of what the
//! probes returned.

mod checks;
mod finding;
mod probes;
mod stream;
mod variables;

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::serve::Target;

use self::checks::ProjectPort;
use self::finding::{Finding, Verdict};
use self::probes::Chain;
use super::serve::{Serve, instance_id, instance_template, proxy_for, trust_of};
use super::settings::{self, Environment, SourcedValue};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::registry::Registry;
use crate::text::{Escaped, name as name_of};

/// check registry, port, target, variables and proxies, and whether streams are buffered
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "doctor",
    help_triggers("-h", "--help"),
    example = "ic doctor\n\
               OPENAI_API_KEY=sk-… ic doctor --model gpt-5\n\
               ic doctor --target https://llm.example.com --ca-file company-ca.pem",
    note = "The streaming test sends one short chat twice: to the target and through ic. It is repeated if the\n\
            stream appears to be buffered. It uses the first model that the target lists and the key in\n\
            OPENAI_API_KEY. If this project's interceptor is not running, or options of `ic serve` are given,\n\
            a temporary one is started. No file is changed.",
    error_code(1, "a check failed")
)]
pub struct Doctor {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// target to check; default: that of the running interceptor, otherwise as for `ic serve`
    #[argh(option, arg_name = "URL")]
    pub target: Option<String>,
    /// model for the streaming test; default: the first that the target lists
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,
    /// as for `ic serve`: additional CA certificates (PEM)
    #[argh(option, arg_name = "FILE")]
    pub ca_file: Option<String>,
    /// as for `ic serve`: client certificate chain (PEM)
    #[argh(option, arg_name = "FILE")]
    pub client_cert: Option<String>,
    /// as for `ic serve`: private key (PEM) of the client certificate
    #[argh(option, arg_name = "FILE")]
    pub client_key: Option<String>,
    /// as for `ic serve`: do not verify the target's TLS certificate (unsafe)
    #[argh(switch)]
    pub insecure: bool,
    /// as for `ic serve`: use the proxy of the environment for targets on other machines
    #[argh(switch)]
    pub use_proxy_env: bool,
    /// skip the streaming test
    #[argh(switch)]
    pub no_stream: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Doctor {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let findings = self.examine(context)?;
        let healthy = findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Wrong);
        if self.json {
            context.out.json(&Document {
                healthy,
                findings: &findings,
            })?;
        } else {
            for finding in &findings {
                let mark = match finding.verdict {
                    Verdict::Good => '✓',
                    Verdict::Note => '-',
                    Verdict::Wrong => '⚠',
                };
                context.out.text(format_args!(
                    "{mark} {:11}{}\n",
                    finding.check,
                    Escaped(&finding.message)
                ))?;
            }
        }
        Ok(if healthy { Exit::Done } else { Exit::No })
    }

    fn examine(&self, context: &Context<'_>) -> Result<Vec<Finding>, Failure> {
        // Values that are refused are refused before anything is looked at.
        let handle = context.registry_handle()?;
        let project = context.project(self.path.as_deref())?;
        let model = match &self.model {
            Some(model) => Some(SourcedValue::flag("--model", model).text()?.to_owned()),
            None => None,
        };
        let options = self.serve_options();
        if let Some(options) = &options {
            trust_of(options, &context.environment)?;
        }
        let template = instance_template(&context.environment, None);
        instance_id(template.text()?, Some(&project))?;

        let mut findings = Vec::new();
        let (state, registry) = probes::registry(&handle, &project);
        findings.push(checks::registry(&state));
        let port = probes::port(context, self.path.as_deref(), &registry, &project)?;
        let is_given =
            self.path.is_none() && context.environment.variable(settings::PORT).is_some();
        findings.push(checks::port(&port, is_given));
        check_variables(&context.environment, &port, &registry, &mut findings)?;
        let route = self.route(context, &port, options, &mut findings)?;
        if let Some(route) = route {
            self.check_target(context, &port, route, model, &mut findings)?;
        }
        Ok(findings)
    }

    /// Decides which target is checked, and how it is reached. `None`: the proxy variable is wrong, which is then a finding.
    fn route(
        &self,
        context: &Context<'_>,
        port: &ProjectPort,
        options: Option<Serve>,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Route>, Failure> {
        let environment = &context.environment;
        let running = port.interceptor();
        let configured = environment.variable(settings::TARGET_URL);
        let value = match (&self.target, running, &configured) {
            (Some(target), ..) => SourcedValue::flag("--target", target),
            (None, Some(running), _) => SourcedValue::default(&running.target),
            (None, None, Some(configured)) => configured.clone(),
            (None, None, None) => SourcedValue::default(super::serve::TARGET_URL),
        };
        let (text, target) = (value.text()?, value.target()?);
        let configured = configured.as_ref().and_then(|value| value.text().ok());
        findings.extend(checks::other_target(
            text,
            configured,
            running.map(|running| running.target.as_str()),
        ));
        let running = running.filter(|running| running.target == text);
        let proxy = match &options {
            None => running.and_then(|running| running.proxy.as_ref()?.parse().ok()),
            Some(options) if options.use_proxy_env => match proxy_for(&target, environment) {
                Ok(found) => found.and_then(|proxy| proxy.to_string().parse().ok()),
                Err(failure) => {
                    findings.push(Finding::wrong("Proxies", failure.to_string()));
                    return Ok(None);
                }
            },
            Some(_) => None,
        };
        let is_insecure = match &options {
            None => port.interceptor().is_some_and(|running| running.insecure),
            Some(options) => options.insecure,
        };
        Ok(Some(Route {
            target,
            proxy,
            is_insecure,
            options,
        }))
    }

    /// Checks the target by itself, then through an interceptor. Ends with the first finding that makes the next ones pointless.
    fn check_target(
        &self,
        context: &Context<'_>,
        port: &ProjectPort,
        route: Route,
        model: Option<String>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        let Route {
            target,
            proxy,
            is_insecure,
            options,
        } = route;
        let reached = probes::reach(proxy.as_ref().unwrap_or(&target));
        let finding = checks::target(&target, proxy.as_ref(), &reached);
        let is_wrong = finding.verdict == Verdict::Wrong;
        findings.push(finding);
        if is_wrong {
            return Ok(());
        }
        let chain = Chain::new(context, &target, port, options, proxy.is_some())?;
        let models = chain.models();
        if let Some(finding) = checks::tls(&target, is_insecure, &models) {
            let is_wrong = finding.verdict == Verdict::Wrong;
            findings.push(finding);
            if is_wrong {
                return Ok(());
            }
        }
        findings.push(checks::api(&models));
        if self.no_stream {
            return Ok(());
        }
        findings.push(match model.or_else(|| checks::first_model(&models)) {
            Some(model) if checks::may_stream(&models) => {
                let measure = || stream::streaming(&chain.stream(&model));
                let first = measure();
                // A pause of this machine can look like a buffer.
                if first.verdict == Verdict::Wrong {
                    measure()
                } else {
                    first
                }
            }
            _ => stream::no_stream(),
        });
        Ok(())
    }

    /// Returns the options of `ic serve` that are given; `None` where none is.
    fn serve_options(&self) -> Option<Serve> {
        let options = Serve {
            ca_file: self.ca_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            insecure: self.insecure,
            use_proxy_env: self.use_proxy_env,
            ..Serve::default()
        };
        (options != Serve::default()).then_some(options)
    }
}

/// How the target is reached.
struct Route {
    target: Target,
    proxy: Option<Target>,
    /// Certificates are not verified.
    is_insecure: bool,
    /// Those of a temporary interceptor; `None`: the project's interceptor is used, if it runs.
    options: Option<Serve>,
}

fn check_variables(
    environment: &Environment<'_>,
    port: &ProjectPort,
    registry: &Registry,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    for name in variables::BASE_URLS {
        if let Some(value) = environment.variable(name.variable) {
            let owner = |port| registry.path_of(port).map(name_of);
            findings.push(variables::base_url(
                name,
                value.text()?,
                port.number(),
                owner,
            ));
        }
    }
    findings.extend(variables::proxies(&probes::proxies(environment)));
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    findings: &'a [Finding],
}
