//! The options and variables of `ic serve`, read and checked. No file is opened, and the registry is neither read nor
//! written, before every value is known to be good.

use std::time::Duration;

use super::arguments::Serve;
use super::limits;
use super::listening::{self, Socket};
use super::port::{self, PortChoice};
use super::trust::trust;
use crate::cli::context::Globals;
use crate::cli::identity::{self, Facts};
use crate::cli::kept::settings_of;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::cli::project::refuse_no_folder;
use crate::cli::settings::{self, Environment, SourcedValue, mock_interval};
use crate::cli::template::{Placeholder, Template};
use crate::registry::project::Project;
use crate::registry::{Registry, Settings};
use crate::serve::{Guard, Timeouts, Trust};

/// How an interceptor is to run, by topic. Names are not resolved and certificates are not read.
pub struct ServeSettings {
    /// The names and addresses to listen on; `*` is all addresses.
    pub hosts: Vec<String>,
    /// The Unix socket to listen on instead.
    pub socket: Option<Socket>,
    /// Where the port comes from.
    pub port: PortChoice,
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
    /// The fields of `--header`, in the order given, with their placeholders.
    pub headers: Vec<(String, Template)>,
    /// `None` only where nothing needs it and the current folder is unknown.
    pub project: Option<Project>,

    /// Time limits.
    pub timeouts: Timeouts,
    /// The maximum number of simultaneous client connections, at least 1.
    pub connections_max: usize,
}

/// The values that `ic set` can keep, each from its option, its variable, the registry or the default.
struct Values {
    upstream: Upstream,
    instance: Template,
    headers: Vec<(String, Template)>,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// To this target; not parsed yet.
    Target(SourcedValue),
    /// To the embedded mock, with this time between the events of a stream.
    Mock(Duration),
}

impl Serve {
    /// Reads every value. `inherited` is the port of sockets that were passed in; with them, neither options nor
    /// variables say where to listen.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable; "could not" if the project's folder cannot be determined.
    pub fn resolve(
        &self,
        inherited: Option<PortChoice>,
        globals: &Globals,
        environment: &Environment<'_>,
    ) -> Result<ServeSettings, Failure> {
        // Sockets say where to listen, and the project how it is served.
        let reads_settings = inherited.is_some() && environment.variable(settings::PORT).is_none();
        let socket = listening::socket(self)?;
        let port = match (inherited, &socket) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => Some(PortChoice::None),
            (None, None) => port::given(self, environment)?,
        };
        let hosts = listening::hosts(self)?;
        let guard = listening::guard(self)?;
        // Refused before the registry is read for those of `ic set`.
        let given = self.values(&Settings::default(), environment)?;
        identity::with_variables(given.headers.clone(), environment)?;
        let trust = trust(self, environment)?;
        let timeouts = limits::timeouts(self)?;
        let connections_max = limits::connections_max(self)?;
        limits::refuse_threads(self)?;

        // Folders are looked at last, after every value that can be checked without them.
        let needs_project = identity::needs_project(&given.instance, &given.headers);
        let (port, mut project) =
            self.project_and_port(port, needs_project, globals, environment)?;
        let values = match (&port, &mut project) {
            (PortChoice::Registry(registry, project), _) => {
                self.values_of(project, &registry.store.read()?.registry, environment)?
            }
            (_, Some(project)) if reads_settings => {
                self.values_if_readable(project, globals, environment)?
            }
            _ => given,
        };
        let headers = identity::with_variables(values.headers, environment)?;
        if matches!(port, PortChoice::None) {
            refuse_port(&values.instance, &headers)?;
        }
        refuse_bad_id(&values.instance, project.as_ref(), environment)?;
        Ok(ServeSettings {
            hosts,
            socket,
            port,
            guard,
            upstream: values.upstream,
            uses_proxies: self.use_proxy_env,
            trust,
            instance: values.instance,
            headers,
            project,
            timeouts,
            connections_max,
        })
    }

    /// As [`values`](Self::values), with what `ic set` keeps for `project`. Warns of another one with its instance id.
    fn values_of(
        &self,
        project: &Project,
        registry: &Registry,
        environment: &Environment<'_>,
    ) -> Result<Values, Failure> {
        let option = self.instance_id.as_deref();
        let values = self.values(&settings_of(registry, project), environment)?;
        if let Some(why) = identity::namesake(registry, project, option, environment) {
            eprint_line(format_args!("warning: {why}"));
        }
        Ok(values)
    }

    /// As [`values_of`](Self::values_of), for an interceptor that needs no registry: one that cannot be read is warned of. `project`
    /// becomes the one that is recorded.
    fn values_if_readable(
        &self,
        project: &mut Project,
        globals: &Globals,
        environment: &Environment<'_>,
    ) -> Result<Values, Failure> {
        let recorded = globals.ports(environment).and_then(|(_, registry)| {
            let named = globals.named(environment, self.project.as_deref())?;
            Ok((named.among(&registry)?.0, registry))
        });
        match recorded {
            Ok((recorded, registry)) => {
                *project = recorded;
                self.values_of(project, &registry, environment)
            }
            Err(failure) if failure.exit == Exit::BadUsage => Err(failure),
            Err(failure) => {
                eprint_line(format_args!(
                    "warning: the project is served without what `ic set` keeps: {failure}"
                ));
                self.values(&Settings::default(), environment)
            }
        }
    }

    /// Reads the values that `ic set` can keep.
    fn values(&self, kept: &Settings, environment: &Environment<'_>) -> Result<Values, Failure> {
        let (option, kept_id) = (self.instance_id.as_deref(), kept.instance_id.as_deref());
        Ok(Values {
            instance: identity::instance_template(environment, option, kept_id)?,
            headers: identity::headers(&self.header, &kept.headers)?,
            upstream: self.upstream(kept, environment)?,
        })
    }

    /// Where requests go: what the option says, its variable, what `ic set` keeps, or the default.
    pub fn upstream(
        &self,
        kept: &Settings,
        environment: &Environment<'_>,
    ) -> Result<Upstream, Failure> {
        let interval = self.mock_interval_ms.as_deref();
        match (self.mock, &self.target, interval) {
            (true, Some(_), _) => Err(Failure::usage(
                "`--mock` takes the place of a target; give `--mock` or `--target`",
            )),
            (true, None, _) => mock_interval("--mock-interval-ms", interval).map(Upstream::Mock),
            (false, _, Some(_)) => Err(Failure::usage(
                "`--mock-interval-ms` is for the mock; give `--mock` as well",
            )),
            (false, target, None) => {
                let (option, kept) = (target.as_deref(), kept.target.as_deref());
                let target = environment
                    .setting("--target", option, settings::TARGET_URL, kept)
                    .unwrap_or_else(|| SourcedValue::default(TARGET_URL));
                target.text()?;
                Ok(Upstream::Target(target))
            }
        }
    }

    /// The project, and the port: the given one, or else the project's in the registry.
    fn project_and_port(
        &self,
        port: Option<PortChoice>,
        needs_project: bool,
        globals: &Globals,
        environment: &Environment<'_>,
    ) -> Result<(PortChoice, Option<Project>), Failure> {
        let path = self.project.as_deref();
        let project = match port {
            // The registry is not read.
            Some(_) => globals.folder(environment, path),
            None => globals.project(environment, path),
        };
        if let (Some(_), Ok(project)) = (&self.project, &project) {
            refuse_no_folder(project.path())?;
        }
        match (port, project) {
            (Some(port), Err(_)) if self.project.is_none() && !needs_project => Ok((port, None)),
            (Some(port), project) => Ok((port, Some(project?))),
            (None, project) => {
                let registry = globals.registry_handle(environment)?;
                let project = project?;
                let port = PortChoice::Registry(Box::new(registry), project.clone());
                Ok((port, Some(project)))
            }
        }
    }
}

/// Refuses an identifier that no field can hold, before a port is allocated.
fn refuse_bad_id(
    instance: &Template,
    project: Option<&Project>,
    environment: &Environment<'_>,
) -> Result<(), Failure> {
    let facts = Facts {
        project,
        port: None,
        environment,
    };
    facts.instance_id(instance).map(drop)
}

/// Refuses the placeholder of the port, where there is none.
fn refuse_port(instance: &Template, headers: &[(String, Template)]) -> Result<(), Failure> {
    let needs_port = |value: &Template| value.contains(Placeholder::Port);
    let header = headers.iter().find(|(_, value)| needs_port(value));
    let holder = match header {
        Some((name, _)) => format!("field `{name}`"),
        None if needs_port(instance) => "instance id".to_owned(),
        None => return Ok(()),
    };
    Err(Failure::usage(format!(
        "the {holder} holds {{port}}, and a Unix socket has none; leave it out"
    )))
}

/// Where requests go by default.
pub const TARGET_URL: &str = "http://localhost:8764";

#[cfg(test)]
mod tests {
    use super::super::port::PortOrigin;
    use super::*;
    use crate::cli::outcome::Exit;
    use crate::cli::template::Purpose;
    use std::ffi::OsString;

    fn resolve(serve: Serve, set: &[(&str, &str)]) -> Result<ServeSettings, Failure> {
        let read = |name: &str| {
            let (_, value) = set.iter().find(|(set, _)| *set == name)?;
            Some(OsString::from(value))
        };
        // A folder whose name is known, and a registry that is never opened.
        let project = serve.project.clone().or(Some("/nowhere/my.shop".into()));
        let globals = Globals {
            registry: Some("/nowhere/registry.json".to_owned()),
            ..Globals::default()
        };
        Serve { project, ..serve }.resolve(None, &globals, &Environment(&read))
    }

    fn target(settings: &ServeSettings) -> String {
        match &settings.upstream {
            Upstream::Target(target) => target.to_string(),
            Upstream::Mock(_) => "the mock".to_owned(),
        }
    }

    fn instance_id(settings: &ServeSettings) -> String {
        let facts = Facts {
            project: settings.project.as_ref(),
            port: None,
            environment: &Environment(&|_| None),
        };
        facts.instance_id(&settings.instance).expect("a good id")
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn everything_has_a_default() {
        let settings = resolve(Serve::default(), &[]).expect("defaults are good");
        assert_eq!(settings.hosts, ["localhost"]);
        assert!(matches!(settings.port, PortChoice::Registry(..)));
        let default = Upstream::Target(SourcedValue::default("http://localhost:8764"));
        assert_eq!(settings.upstream, default);
        assert_eq!(instance_id(&settings), "pycharm-my.shop");
        assert!(settings.headers.is_empty());
        assert_eq!(
            settings
                .project
                .map(|project| crate::text::name(project.path()))
                .as_deref(),
            Some("my.shop")
        );
        let timeouts = settings.timeouts;
        assert_eq!(timeouts.head, Some(Duration::from_secs(30)));
        assert_eq!(timeouts.idle, Some(Duration::from_secs(75)));
        assert_eq!(timeouts.connect, Some(Duration::from_secs(10)));
        assert_eq!(timeouts.first_byte, None);
        assert_eq!(timeouts.body, None);
        assert_eq!(timeouts.hold, Duration::ZERO);
        assert_eq!(timeouts.grace, Duration::from_secs(10));
        assert_eq!(timeouts.idle_exit, None);
        assert_eq!(settings.connections_max, 1024);
    }

    #[test]
    fn a_flag_wins_over_a_variable_that_is_then_not_looked_at() {
        let variables = [
            (settings::PORT, "9001"),
            (settings::TARGET_URL, "http://variable"),
            (settings::INSTANCE_ID, "{project}@variable"),
        ];
        let settings = resolve(Serve::default(), &variables).expect("good variables");
        let resolved = settings.port.resolve().expect("the registry is not read");
        let (port, origin) = resolved.port.expect("it listens on a port");
        assert_eq!((port.get(), origin), (9001, PortOrigin::Variable));
        assert_eq!(target(&settings), "TARGET_LLM_URL=http://variable");
        assert_eq!(instance_id(&settings), "my.shop@variable");

        let flags = Serve {
            port: some("9002"),
            target: some("http://flag"),
            instance_id: some("flag"),
            ..Serve::default()
        };
        let variables = [
            (settings::PORT, "abc"),
            (settings::TARGET_URL, "\n"),
            (settings::INSTANCE_ID, "\x1b"),
        ];
        let settings = resolve(flags, &variables).expect("good flags");
        let resolved = settings.port.resolve().expect("the registry is not read");
        let (port, origin) = resolved.port.expect("it listens on a port");
        assert_eq!((port.get(), origin), (9002, PortOrigin::Flag));
        assert_eq!(target(&settings), "--target http://flag");
        assert_eq!(instance_id(&settings), "flag");

        let empty = [
            (settings::PORT, ""),
            (settings::TARGET_URL, ""),
            (settings::INSTANCE_ID, ""),
        ];
        let settings = resolve(Serve::default(), &empty).expect("as if unset");
        assert!(matches!(settings.port, PortChoice::Registry(..)));
        let default = Upstream::Target(SourcedValue::default("http://localhost:8764"));
        assert_eq!(settings.upstream, default);
        assert_eq!(instance_id(&settings), "pycharm-my.shop");
    }

    #[test]
    fn zero_lifts_a_time_limit() {
        let serve = Serve {
            head_timeout: some("0"),
            idle_timeout: some("0.0"),
            connect_timeout: some("0.25"),
            body_timeout: some("7"),
            grace: some("0"),
            idle_exit: some("0"),
            hold: some("1.5"),
            ..Serve::default()
        };
        let settings = resolve(serve, &[]).expect("good times");
        assert_eq!(settings.timeouts.head, None);
        assert_eq!(settings.timeouts.idle, None);
        assert_eq!(settings.timeouts.connect, Some(Duration::from_millis(250)));
        assert_eq!(settings.timeouts.body, Some(Duration::from_secs(7)));
        assert_eq!(settings.timeouts.grace, Duration::ZERO);
        assert_eq!(settings.timeouts.idle_exit, None);
        assert_eq!(settings.timeouts.hold, Duration::from_millis(1500));
    }

    #[test]
    fn fields_to_set_keep_their_order_and_may_repeat() {
        let header = ["b: 1", "a: 2", "b: 3"].map(str::to_owned).to_vec();
        let serve = Serve {
            header,
            ..Serve::default()
        };
        let headers = resolve(serve, &[]).expect("good fields").headers;
        let expected = [("b", "1"), ("a", "2"), ("b", "3")];
        assert_eq!(
            headers,
            expected.map(|(name, value)| {
                let value = Template::parse(value, Purpose::Field).expect("nothing to fill in");
                (name.to_owned(), value)
            })
        );
    }

    #[test]
    fn a_bad_value_is_refused_by_name() {
        #[track_caller]
        fn check(serve: Serve, set: &[(&str, &str)], start: &str) {
            let Err(failure) = resolve(serve, set) else {
                panic!("not refused: {start}");
            };
            assert_eq!(failure.exit, Exit::BadUsage, "{failure}");
            assert!(failure.to_string().starts_with(start), "{failure}");
        }
        let serve = Serve::default;
        check(
            Serve {
                port: some("0"),
                ..serve()
            },
            &[],
            "`--port 0` is not a port",
        );
        check(
            serve(),
            &[(settings::PORT, "abc")],
            "`INTERCEPTOR_PORT=abc` is not a port",
        );
        check(
            serve(),
            &[(settings::INSTANCE_ID, "a\nb")],
            "`SUPERMEMORY_USERNAME=a\nb` contains a control",
        );
        check(
            Serve {
                instance_id: some(""),
                ..serve()
            },
            &[],
            "`--instance-id ` is empty",
        );
        check(
            Serve {
                project: some("/nowhere/a\u{7f}b"),
                ..serve()
            },
            &[],
            "the project's name `a\u{7f}b` cannot be used in an instance id",
        );
        check(
            Serve {
                project: some("/nowhere/caf\0e9"),
                ..serve()
            },
            &[],
            "the project's name `caf\0e9` cannot be used in an instance id",
        );
        check(
            Serve {
                target: some(""),
                ..serve()
            },
            &[],
            "`--target ` is empty",
        );
        check(
            Serve {
                host: vec!["a b".to_owned()],
                ..serve()
            },
            &[],
            "`--host a b` contains white space",
        );
        check(
            Serve {
                max_connections: some("0"),
                ..serve()
            },
            &[],
            "`--max-connections 0` is not",
        );
        check(
            Serve {
                threads: some("2"),
                ..serve()
            },
            &[],
            "`--threads` is removed",
        );
        check(
            Serve {
                grace: some("-1"),
                ..serve()
            },
            &[],
            "`--grace -1` is not a duration",
        );
        check(
            Serve {
                hold: some("x"),
                ..serve()
            },
            &[],
            "`--hold x` is not a duration",
        );
        check(
            Serve {
                allow_host: vec![String::new()],
                ..serve()
            },
            &[],
            "`--allow-host ` is empty",
        );
        check(
            Serve {
                allow_host: vec!["a.example:80".to_owned()],
                ..serve()
            },
            &[],
            "`--allow-host a.example:80` is not a host",
        );
        check(
            Serve {
                allow_origin: vec!["a.example".to_owned()],
                ..serve()
            },
            &[],
            "`--allow-origin a.example` is not an origin",
        );
        check(
            Serve {
                mock: true,
                target: some("http://a"),
                ..serve()
            },
            &[],
            "`--mock` takes the place of a target",
        );
        check(
            Serve {
                mock_interval_ms: some("5"),
                ..serve()
            },
            &[],
            "`--mock-interval-ms` is for the mock",
        );
        check(
            Serve {
                ca_file: some(""),
                ..serve()
            },
            &[],
            "`--ca-file ` is empty",
        );
        check(
            Serve {
                client_key: some("key.pem"),
                ..serve()
            },
            &[],
            "`--client-key` is the key of a certificate",
        );
        check(
            Serve {
                project: some(""),
                ..serve()
            },
            &[],
            "PATH is empty",
        );
        let header = vec!["Host: a".to_owned()];
        check(
            Serve { header, ..serve() },
            &[],
            "`--header Host:…` cannot be set",
        );
    }

    #[test]
    fn the_mock_takes_the_targets_place() {
        let serve = Serve {
            mock: true,
            mock_interval_ms: some("5"),
            ..Serve::default()
        };
        let settings = resolve(serve, &[(settings::TARGET_URL, "\n")]).expect("no target is read");
        assert_eq!(settings.upstream, Upstream::Mock(Duration::from_millis(5)));
    }
}
