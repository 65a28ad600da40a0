//! `ic doctor`: checks each part of the way from a client's variables to the target's stream.
//!
//! Here is the order of the checks. `checks`, `variables` and `files` look at the system and return what they find; `chain` sends
//! requests to the target and through an interceptor, and `stream` compares what returns.

mod chain;
mod checks;
mod files;
mod finding;
mod stream;
mod variables;

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use self::chain::{Chain, Route};
use self::files::Files;
use self::finding::{Finding, Verdict};
use self::variables::Destination;
use super::identity::{self, instance_template};
use super::kept::settings_of;
use super::serve::{self, Serve, proxy_for, trust_of};
use super::settings::{self, SourcedValue};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::Output;
use crate::machine::interceptor::Identity;
use crate::machine::listeners::is_own;
use crate::registry::{Header, Port, Project, Settings};
use crate::text::{Escaped, raw};

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
            a temporary one with its settings is started. No file is changed.",
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
    /// as for `ic serve`: additional CA certificates (PEM), or that of the target
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
        let mut report = Report {
            findings: Vec::new(),
            is_json: self.json,
        };
        self.examine(context, &mut report)?;
        let healthy = !report.findings.iter().any(Finding::is_wrong);
        if self.json {
            let document = json!({ "healthy": healthy, "findings": report.findings });
            context.out.json(&document)?;
        }
        Ok(if healthy { Exit::Done } else { Exit::No })
    }

    fn examine(&self, context: &mut Context<'_>, report: &mut Report) -> Result<(), Failure> {
        // Values that are refused are refused before anything is looked at.
        let handle = context.registry_handle()?;
        let path = self.path.as_deref();
        let project = context.project(path)?;
        let model = self.model.as_ref();
        let model = model.map(|model| SourcedValue::flag("--model", model));
        let model = model.as_ref().map(SourcedValue::text).transpose()?;
        trust_of(&self.serve_options(), &context.environment)?;
        instance_template(&context.environment, None, None)?;

        let (finding, registry) = checks::registry(&handle, &project);
        let mut findings = vec![finding];
        // With a port that is given, `ic serve` does not read the registry.
        let is_given = path.is_none() && context.environment.variable(settings::PORT).is_some();
        let kept = match is_given {
            true => Settings::default(),
            false => settings_of(&registry, &project),
        };
        let (finding, port, interceptor) = checks::port(context, path, &registry, &project)?;
        findings.push(finding);
        findings.extend(port.and_then(|port| checks::bad_port(port, &project)));
        let namesake = identity::namesake(&registry, &project, None, &context.environment);
        findings.extend(namesake.map(|why| Finding::wrong("Identity", why)));
        let mut of_route = Vec::new();
        let route = self.route(context, interceptor, &kept, &mut of_route)?;
        let target = route.as_ref().map(|it| &it.target);
        let to = Destination { port, target };
        let environment = &context.environment;
        let files = Files::read(project.path(), environment, to, &registry);
        let variables = variables::base_urls(environment, to, &registry, files.has_opencode)?;
        findings.extend(variables.into_iter().chain(files.findings));
        let proxies = variables::proxies(environment, &files.urls);
        report.extend(context.out, findings)?;
        report.extend(context.out, proxies.into_iter().chain(of_route))?;
        if let Some(route) = route {
            let options = match route.interceptor {
                Some(_) => Serve::default(),
                None => {
                    let (options, finding) = self.temporary(context, &project, port, &kept);
                    report.extend(context.out, finding)?;
                    options
                }
            };
            self.check_target(context, &route, options, model, report)?;
        }
        Ok(())
    }

    /// Decides which target is checked, and how it is reached; `running` is the project's interceptor. `None`: the proxy
    /// variable is wrong, which is then a finding.
    fn route(
        &self,
        context: &Context<'_>,
        running: Option<Identity>,
        kept: &Settings,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Route>, Failure> {
        let environment = &context.environment;
        let value = match (
            &self.target,
            &running,
            environment.variable(settings::TARGET_URL),
        ) {
            (Some(target), ..) => SourcedValue::flag("--target", target),
            (None, Some(running), configured) => {
                findings.extend(checks::other_target(&running.target, configured));
                SourcedValue::default(&running.target)
            }
            (None, None, Some(configured)) => configured,
            (None, None, None) => match &kept.target {
                Some(kept) => SourcedValue::kept("--target", kept),
                None => SourcedValue::default(serve::TARGET_URL),
            },
        };
        let target = value.target()?;
        let text = target.to_string();
        let has_options = self.serve_options() != Serve::default();
        if let Some(running) = running.filter(|it| !has_options && it.target == text) {
            return Ok(Some(Route {
                target,
                proxy: running.proxy.and_then(|proxy| proxy.parse().ok()),
                is_insecure: running.insecure,
                interceptor: running.address.filter(|address| is_own(address.port())),
            }));
        }
        let proxy = if self.use_proxy_env {
            match proxy_for(&target, environment) {
                Ok(proxy) => proxy.and_then(|proxy| proxy.to_string().parse().ok()),
                Err(failure) => {
                    findings.push(Finding::wrong("Proxies", failure.to_string()));
                    return Ok(None);
                }
            }
        } else {
            None
        };
        Ok(Some(Route {
            target,
            proxy,
            is_insecure: self.insecure,
            interceptor: None,
        }))
    }

    /// The options of a temporary interceptor that sends what the project's would; if that could not start, a finding says why, and
    /// it sends less.
    fn temporary(
        &self,
        context: &Context<'_>,
        project: &Project,
        port: Option<Port>,
        kept: &Settings,
    ) -> (Serve, Option<Finding>) {
        let facts = identity::Facts {
            project: Some(project),
            port,
            environment: &context.environment,
        };
        let id = kept.instance_id.as_deref();
        let sent = instance_template(facts.environment, None, id)
            .and_then(|template| facts.instance_id(&template))
            .and_then(|_| identity::headers(&[], &kept.headers))
            .and_then(|headers| identity::with_variables(headers, facts.environment));
        let mut options = Serve {
            // Given so that the registry is not read; it listens elsewhere.
            port: Some(port.map_or(1, Port::get).to_string()),
            project: Some(raw::to_text(project.path().as_os_str())),
            ..self.serve_options()
        };
        let finding = match sent {
            Ok(_) => {
                let variable = context.environment.variable(settings::INSTANCE_ID);
                options.instance_id = kept.instance_id.clone().filter(|_| variable.is_none());
                let headers = kept.headers.iter();
                let line = |header: &Header| format!("{}: {}", header.name, header.value);
                options.header = headers.map(line).collect();
                None
            }
            Err(failure) => {
                options.instance_id = Some("ic-doctor".to_owned());
                Some(Finding::wrong("Identity", failure.to_string()))
            }
        };
        (options, finding)
    }

    /// Checks the target by itself, then through an interceptor. Ends with the first finding that makes the next ones pointless.
    fn check_target(
        &self,
        context: &mut Context<'_>,
        route: &Route,
        options: Serve,
        model: Option<&str>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let finding = checks::target(&route.target, route.proxy.as_ref());
        let is_wrong = finding.is_wrong();
        report.add(context.out, finding)?;
        if is_wrong {
            return Ok(());
        }
        let chain = Chain::new(context, route, options)?;
        let path = chain.path("/models");
        let models = match chain.models(&path) {
            Ok(models) => models,
            Err(why) => {
                let finding = Finding::wrong("API", format!("the interceptor {why}"));
                return report.add(context.out, finding);
            }
        };
        if let Some(finding) = checks::own_error(&models) {
            return report.add(context.out, finding);
        }
        if route.target.is_https() {
            let finding = checks::certificate(&route.target, route.is_insecure);
            report.add(context.out, finding)?;
        }
        let (finding, first_model) = checks::api(&models, &path, chain.has_key());
        report.add(context.out, finding)?;
        if self.no_stream {
            return Ok(());
        }
        let Some(model) = model.map(str::to_owned).or(first_model) else {
            return report.add(context.out, stream::no_stream());
        };
        let mut finding = stream::streaming(&chain.stream(&model));
        if finding.is_wrong() {
            // A pause of this machine can look like a buffer.
            finding = stream::streaming(&chain.stream(&model));
        }
        report.add(context.out, finding)
    }

    /// The options of `ic serve` that are given.
    fn serve_options(&self) -> Serve {
        Serve {
            ca_file: self.ca_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            insecure: self.insecure,
            use_proxy_env: self.use_proxy_env,
            ..Serve::default()
        }
    }
}

/// What has been found; shown as each check ends, or in one document at the end.
struct Report {
    findings: Vec<Finding>,
    is_json: bool,
}

impl Report {
    fn add(&mut self, out: &mut Output, finding: Finding) -> Result<(), Failure> {
        if !self.is_json {
            let mark = match finding.verdict {
                Verdict::Good => '✓',
                Verdict::Note => '-',
                Verdict::Wrong => '⚠',
            };
            let message = Escaped(&finding.message);
            out.text(format_args!("{mark} {:10} {message}\n", finding.check))?;
            out.show()?;
        }
        self.findings.push(finding);
        Ok(())
    }

    fn extend(
        &mut self,
        out: &mut Output,
        findings: impl IntoIterator<Item = Finding>,
    ) -> Result<(), Failure> {
        let mut findings = findings.into_iter();
        findings.try_for_each(|finding| self.add(out, finding))
    }
}
