//! `ic doctor`: the whole way from a client's variables to the target's stream, each part looked at by itself.
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
use super::serve::{Serve, filled, instance_template, proxy_for, trust_of};
use super::settings::{self, SourcedValue};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::text::Escaped;

/// check the whole way: registry, port, target, variables, proxies, and whether streams are held back
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "doctor",
    help_triggers("-h", "--help"),
    example = "ic doctor\n\
               OPENAI_API_KEY=sk-… ic doctor --model gpt-5\n\
               ic doctor --target https://llm.example.com --ca-file company-ca.pem",
    note = "The stream is measured with one short chat, sent twice: to the target and through ic; again where\n\
            it seems to be held back. It asks for the first model that the target lists, with the key in\n\
            OPENAI_API_KEY. Where this project's interceptor does not run, or options of `ic serve` are given,\n\
            one is started for the moment. Nothing is written.",
    error_code(1, "something is wrong")
)]
pub struct Doctor {
    /// the project's folder; default: the current one
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// the target to look at; default: that of the running interceptor, else as for `ic serve`
    #[argh(option, arg_name = "URL")]
    pub target: Option<String>,
    /// the model to ask for a stream; default: the first that the target lists
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,
    /// as for `ic serve`: certificates in PEM to trust for an https target
    #[argh(option, arg_name = "FILE")]
    pub ca_file: Option<String>,
    /// as for `ic serve`: the certificate to show to it
    #[argh(option, arg_name = "FILE")]
    pub client_cert: Option<String>,
    /// as for `ic serve`: its key
    #[argh(option, arg_name = "FILE")]
    pub client_key: Option<String>,
    /// as for `ic serve`: accept any certificate
    #[argh(switch)]
    pub insecure: bool,
    /// as for `ic serve`: reach a target on another machine through the proxy of the environment
    #[argh(switch)]
    pub use_proxy_env: bool,
    /// leave out the chat that measures the stream
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
        let place = context.place()?;
        let project = context.project(self.path.as_deref())?;
        let model = match &self.model {
            Some(model) => Some(SourcedValue::flag("--model", model).text()?.to_owned()),
            None => None,
        };
        let way = self.way();
        if let Some(way) = &way {
            trust_of(way, &context.environment)?;
        }
        let instance_id = instance_template(&context.environment, None);
        filled(instance_id.text()?, Some(&project))?;
        let mut findings = Vec::new();

        let (registry, records) = probes::registry(&place, &project);
        findings.push(checks::registry(&registry));

        let port = probes::port(context, self.path.as_deref(), &records, &project)?;
        let is_given =
            self.path.is_none() && context.environment.variable(settings::PORT).is_some();
        findings.push(checks::port(&port, is_given));

        let environment = &context.environment;
        for name in variables::BASE_URLS {
            if let Some(given) = environment.variable(name.variable) {
                let value = given.text()?;
                findings.push(variables::base_url(name, value, port.number(), |port| {
                    probes::owner(&records, port)
                }));
            }
        }
        findings.extend(variables::proxies(&probes::proxies(environment)));

        let given = self.target(context, &port);
        let (text, target) = (given.text()?.to_owned(), given.target()?);
        findings.extend(checks::other_target(
            &text,
            target_here(context),
            target_is_running(&port),
        ));
        // The running interceptor goes its own way.
        let proxy = match &way {
            None => proxy(&port, &text),
            Some(way) if way.use_proxy_env => match proxy_for(&target, environment) {
                Ok(found) => found.and_then(|proxy| proxy.to_string().parse().ok()),
                Err(failure) => {
                    findings.push(Finding::wrong("Proxies", failure.to_string()));
                    return Ok(findings);
                }
            },
            Some(_) => None,
        };
        let is_insecure = way
            .as_ref()
            .map_or_else(|| is_insecure(&port), |way| way.insecure);
        let reached = probes::reach(proxy.as_ref().unwrap_or(&target));
        let finding = checks::target(&target, proxy.as_ref(), &reached);
        let is_wrong = finding.verdict == Verdict::Wrong;
        findings.push(finding);
        if is_wrong {
            // What follows could only say the same again.
            return Ok(findings);
        }
        let chain = Chain::new(context, &target, &port, way, proxy.is_some())?;
        let models = chain.models();
        if let Some(finding) = checks::tls(&target, is_insecure, &models) {
            let is_wrong = finding.verdict == Verdict::Wrong;
            findings.push(finding);
            if is_wrong {
                return Ok(findings);
            }
        }
        findings.push(checks::api(&models));
        let model = model.or_else(|| checks::first_model(&models));
        findings.push(match model {
            _ if self.no_stream => return Ok(findings),
            Some(model) if checks::may_stream(&models) => {
                let look = || stream::streaming(&chain.stream(&model));
                let first = look();
                // Nobody is accused for a hiccup of this machine.
                if first.verdict == Verdict::Wrong {
                    look()
                } else {
                    first
                }
            }
            _ => stream::no_stream(),
        });
        Ok(findings)
    }

    /// How an interceptor for the moment is to reach its target, if that is said.
    fn way(&self) -> Option<Serve> {
        let way = Serve {
            ca_file: self.ca_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            insecure: self.insecure,
            use_proxy_env: self.use_proxy_env,
            ..Serve::default()
        };
        (way != Serve::default()).then_some(way)
    }

    /// The target that counts.
    fn target(&self, context: &Context<'_>, port: &ProjectPort) -> SourcedValue {
        match (&self.target, target_is_running(port)) {
            (Some(target), _) => SourcedValue::flag("--target", target),
            (None, Some(running)) => SourcedValue::default(running),
            (None, None) => context
                .environment
                .variable(settings::TARGET_URL)
                .unwrap_or_else(|| SourcedValue::default(super::serve::TARGET_URL)),
        }
    }
}

/// The target that a new interceptor would have.
fn target_here(context: &Context<'_>) -> Option<String> {
    let given = context.environment.variable(settings::TARGET_URL)?;
    given.text().ok().map(str::to_owned)
}

/// The target of this project's interceptor, if it runs.
fn target_is_running(port: &ProjectPort) -> Option<&str> {
    match port {
        ProjectPort::Ours(_, identity) => Some(&identity.target),
        _ => None,
    }
}

/// The proxy through which this project's interceptor reaches `target`, if it runs and leads there.
fn proxy(port: &ProjectPort, target: &str) -> Option<Target> {
    match port {
        ProjectPort::Ours(_, identity) if identity.target == target => {
            identity.proxy.as_ref()?.parse().ok()
        }
        _ => None,
    }
}

/// Whether this project's interceptor runs and lets anybody pass for its target.
fn is_insecure(port: &ProjectPort) -> bool {
    matches!(port, ProjectPort::Ours(_, identity) if identity.insecure)
}

#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    findings: &'a [Finding],
}
