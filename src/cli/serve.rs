//! `ic serve`: its options and variables, resolved into settings, and what to say when its port is taken.
//!
//! Decided here: where each value comes from and that it makes sense by itself. What a target is, and what listening
//! on a host means, is decided where they are used. Nothing is opened or written before every value has been read.

mod conflict;
mod field;
mod last_used;
mod placeholders;
mod proxies;
mod run;
mod sd_notify;
mod socket_activation;
mod template;
mod trust;

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use argh::{ArgsInfo, FromArgs};

use crate::http::guard::{allowed_host, allowed_origin};
use crate::registry::project::Project;
use crate::registry::{Note, Port};
use crate::serve::Trust;

use self::field::field;
use self::last_used::Usage;
pub(super) use self::proxies::proxy as proxy_for;
pub(super) use self::run::Prepared;
use self::socket_activation::Inherited;
use self::template::{Placeholder, Template};
pub(super) use self::trust::trust as trust_of;
use super::project::{note_if_missing, refuse_no_folder};
use super::settings::{self, Environment, SourcedValue, mock_interval};
use crate::cli::context::{Globals, RegistryHandle};
use crate::cli::outcome::Failure;
use crate::text::name;

/// run this project's interceptor in the foreground
#[derive(FromArgs, ArgsInfo, Debug, Default, PartialEq)]
#[argh(
    subcommand,
    name = "serve",
    help_triggers("-h", "--help"),
    example = "ic serve --target http://localhost:4000\n\
               ic serve --target https://llm.example.com --ca-file company-ca.pem\n\
               ic serve --header 'x-team: blue' --header 'x-branch: {{branch}}'\n\
               ic serve --listen unix:/run/user/1000/shop.sock\n\
               INTERCEPTOR_PORT=9000 ic serve --project ~/work/shop",
    note = "Times are in seconds, fractions allowed; a timeout of 0 is none.\n\
            Variables, each weaker than its option: INTERCEPTOR_PORT, TARGET_LLM_URL,\n\
            SUPERMEMORY_USERNAME; RUST_LOG (default info) filters the log. SSL_CERT_FILE and\n\
            SSL_CERT_DIR take the place of the certificates that the system trusts.\n\
            NOTIFY_SOCKET is told when it is ready and when it stops (sd_notify(3));\n\
            sockets of LISTEN_FDS (systemd), TCP or Unix, are listened on instead of a port.",
    error_code(0, "stopped by SIGINT or SIGTERM, or after --idle-exit"),
    error_code(2, "an option or a variable cannot be used"),
    error_code(3, "it cannot start: the port is taken, or no port is left")
)]
pub struct Serve {
    /// the name or address to listen on; default: localhost (127.0.0.1 and ::1)
    #[argh(option, arg_name = "H")]
    pub host: Option<String>,
    /// the port to listen on; default: the project's port in the registry
    #[argh(option, arg_name = "N")]
    pub port: Option<String>,
    /// listen on a Unix socket, as unix:/path.sock, and on no port
    #[argh(option, arg_name = "SOCKET")]
    pub listen: Option<String>,
    /// with --listen: who may connect, as the mode of its file; default: 600, nobody else
    #[argh(option, arg_name = "MODE")]
    pub listen_mode: Option<String>,
    /// where requests go, as http://…, https://… or unix:/path.sock; default: http://localhost:8764
    #[argh(option, arg_name = "URL")]
    pub target: Option<String>,
    /// what requests are identified by; {project} is the folder's name; default: pycharm-{project}
    #[argh(option, arg_name = "ID")]
    pub instance_id: Option<String>,
    /// a field to set on every request, as `Name: value`; may be repeated; in the value {instance}, {project},
    /// {port}, {branch}, {user} and {host} are filled in at the start
    #[argh(option, arg_name = "FIELD")]
    pub header: Vec<String>,
    /// the project's folder; default: the current one
    #[argh(option, arg_name = "PATH")]
    pub project: Option<String>,
    /// how long to try again while the target refuses connections; default: 0
    #[argh(option, arg_name = "SECS")]
    pub hold: Option<String>,
    /// how long a client may take to send a request head; default: 30
    #[argh(option, arg_name = "SECS")]
    pub head_timeout: Option<String>,
    /// how long a client may be silent between requests; default: 75
    #[argh(option, arg_name = "SECS")]
    pub idle_timeout: Option<String>,
    /// how long connecting to the target may take; default: 10
    #[argh(option, arg_name = "SECS")]
    pub connect_timeout: Option<String>,
    /// how long the target may think before the whole head of its answer is there, which a 103 is not; default: 0
    #[argh(option, arg_name = "SECS")]
    pub first_byte_timeout: Option<String>,
    /// how long nothing of a body may come from its sender, or be taken by its receiver; default: 0
    #[argh(option, arg_name = "SECS")]
    pub body_timeout: Option<String>,
    /// how many clients may be connected at once; default: 1024
    #[argh(option, arg_name = "N")]
    pub max_connections: Option<String>,
    /// removed; refused with a hint for one release
    #[argh(option, arg_name = "N", hidden_help)]
    pub threads: Option<String>,
    /// how long requests may still run after a signal to stop; default: 10
    #[argh(option, arg_name = "SECS")]
    pub grace: Option<String>,
    /// end after so long without any client; default: 0, never
    #[argh(option, arg_name = "SECS")]
    pub idle_exit: Option<String>,
    /// another name in `Host` that means this machine; may be repeated
    #[argh(option, arg_name = "NAME")]
    pub allow_host: Vec<String>,
    /// a web page that may send requests, as `https://example.com`; may be repeated
    #[argh(option, arg_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// certificates in PEM to trust for an https target, beside those that the system trusts
    #[argh(option, arg_name = "FILE")]
    pub ca_file: Option<String>,
    /// the certificate in PEM to show to an https target, with its chain
    #[argh(option, arg_name = "FILE")]
    pub client_cert: Option<String>,
    /// its key in PEM; default: in the same file
    #[argh(option, arg_name = "FILE")]
    pub client_key: Option<String>,
    /// accept any certificate of an https target: whoever is on the way can read and change everything
    #[argh(switch)]
    pub insecure: bool,
    /// reach a target on another machine through the proxy of the environment: http_proxy, https_proxy or
    /// all_proxy, but for hosts in no_proxy; in capitals as well
    #[argh(switch)]
    pub use_proxy_env: bool,
    /// answer with the embedded mock instead of a target
    #[argh(switch)]
    pub mock: bool,
    /// with --mock: milliseconds between the events of a stream; default: 20
    #[argh(option, arg_name = "MS")]
    pub mock_interval_ms: Option<String>,
}

/// What `ic serve` was asked for: every value read, nothing opened yet.
pub struct ServeSettings {
    /// The name or address to listen on, not resolved.
    pub host: String,
    /// The Unix domain socket to listen on instead.
    pub socket: Option<Socket>,
    /// Where the port comes from; [`PortChoice::settle`] gets it.
    pub port: PortChoice,
    /// Where requests go. Not parsed: whoever parses it refuses it by name with [`SourcedValue::refused`].
    pub target: SourcedValue,
    /// Targets elsewhere are reached through the proxies of the environment.
    pub uses_proxies: bool,
    /// Whom a target of `https` has to satisfy; no file has been read.
    pub trust: Trust,
    /// The embedded mock takes the target's place.
    pub mock: Option<MockTarget>,
    /// Without control characters.
    pub instance_id: String,
    /// Name and value of the fields to set on every request, in the order given, nothing filled in.
    pub headers: Vec<(String, Template)>,
    /// None only where the port and the instance id do without, and the current folder cannot be told.
    pub project: Option<Project>,
    /// How long to try again while the target refuses connections; zero: not at all.
    pub hold: Duration,
    /// Limits on waiting.
    pub limits: TimeLimits,
    /// Clients connected at once, at least 1.
    pub connections_max: usize,
    /// For requests in flight when it is told to stop.
    pub grace: Duration,
    /// It ends by itself after so long without a client.
    pub idle_exit: Option<Duration>,
    /// Further names in `Host` that mean this machine.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may send requests.
    pub allowed_origins: Vec<String>,
}

/// A Unix domain socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Absolute, and no longer than the system allows.
    pub path: PathBuf,
    /// The permissions of its file.
    pub mode: u32,
}

/// The embedded mock of `ic serve --mock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MockTarget {
    /// Between the events of a stream.
    pub interval: Duration,
}

/// How long is waited for each thing; None is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// A request head, once its first byte is there.
    pub head: Option<Duration>,
    /// The client's next request.
    pub idle: Option<Duration>,
    /// A connection to the target.
    pub connect: Option<Duration>,
    /// The first byte of the target's answer.
    pub first_byte: Option<Duration>,
    /// The next byte inside a body.
    pub body: Option<Duration>,
}

/// Which port to listen on, before the registry has been asked.
pub enum PortChoice {
    /// SourcedValue outright: the registry is neither read nor written.
    Given(Port, PortOrigin),
    /// The project's port in the registry.
    Registry(Box<RegistryHandle>, Project),
    /// There is none: it listens on Unix domain sockets only. The registry is neither read nor written.
    Without,
}

/// A port that has been settled on.
pub struct Settled {
    /// None where it listens on Unix domain sockets only.
    pub port: Option<(Port, PortOrigin)>,
    /// For a port of the registry, which is told when it is used.
    pub usage: Option<Usage>,
}

/// Where the port came from; displays as `--port`, `INTERCEPTOR_PORT`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOrigin {
    /// `--port`
    Flag,
    /// `INTERCEPTOR_PORT`
    Variable,
    /// Whoever started the program has opened it.
    Inherited,
    /// The project had it already.
    Registry,
    /// The registry has just given it out.
    Allocated,
}

impl fmt::Display for PortOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PortOrigin::Flag => "--port",
            PortOrigin::Variable => settings::PORT,
            PortOrigin::Inherited => "LISTEN_FDS, a socket that was inherited",
            PortOrigin::Registry => "the registry",
            PortOrigin::Allocated => "the registry, newly allocated",
        })
    }
}

impl PortChoice {
    /// The port, for an interceptor that is about to use it; this is where the registry is read and, for a new project,
    /// written.
    ///
    /// # Errors
    ///
    /// "Could not": the registry cannot be read or written, or no port is left.
    pub fn settle(&self) -> Result<Settled, Failure> {
        match self {
            PortChoice::Without => Ok(Settled {
                port: None,
                usage: None,
            }),
            PortChoice::Given(port, origin) => Ok(Settled {
                port: Some((*port, *origin)),
                usage: None,
            }),
            PortChoice::Registry(place, project) => {
                let known = Cell::new(Note::default());
                let allocated = place.allocate_and(project, |registry, allocated| {
                    if allocated.created {
                        // Written anyway.
                        registry.touch(project, SystemTime::now().into(), Duration::ZERO);
                    }
                    known.set(registry.note(project.path()));
                })?;
                let origin = if allocated.created {
                    note_if_missing(project);
                    PortOrigin::Allocated
                } else {
                    PortOrigin::Registry
                };
                Ok(Settled {
                    port: Some((allocated.port, origin)),
                    usage: Some(Usage::new(&place.store, project, &known.get())),
                })
            }
        }
    }
}

impl PortChoice {
    /// A port that could be had in the place of the one that was settled on; nothing is reserved. Never asked of the
    /// registry where that is not to be read.
    pub fn another(&self) -> Option<Port> {
        match self {
            PortChoice::Given(..) | PortChoice::Without => None,
            PortChoice::Registry(place, _) => place.next_free(&place.read().ok()?),
        }
    }
}

impl Serve {
    /// Reads every value.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable; "could not" if the project cannot be told.
    pub fn resolve(
        &self,
        globals: &Globals,
        environment: &Environment<'_>,
    ) -> Result<ServeSettings, Failure> {
        self.resolve_on(None, globals, environment)
    }

    /// As [`resolve`](Self::resolve), where sockets that were inherited may say where to listen.
    fn resolve_on(
        &self,
        inherited: Option<&Inherited>,
        globals: &Globals,
        environment: &Environment<'_>,
    ) -> Result<ServeSettings, Failure> {
        let socket = self.socket()?;
        let given = || environment.flag_or_variable("--port", self.port.as_deref(), settings::PORT);
        let port = match inherited {
            Some(inherited) => Some(inherited.port()),
            None if socket.is_some() => Some(PortChoice::Without),
            None => match given() {
                Some(given) => {
                    let origin = if given.is_variable() {
                        PortOrigin::Variable
                    } else {
                        PortOrigin::Flag
                    };
                    Some(PortChoice::Given(given.port()?, origin))
                }
                None => None,
            },
        };
        let instance_id = instance_template(environment, self.instance_id.as_deref());
        let template = instance_id.text()?;
        let mock = self.mock()?;
        let target = environment
            .flag_or_variable("--target", self.target.as_deref(), settings::TARGET_URL)
            .unwrap_or_else(|| SourcedValue::default(TARGET_URL));
        if mock.is_none() {
            target.text()?;
        }
        let host = self
            .host
            .as_deref()
            .map_or(SourcedValue::default(HOST), |host| {
                SourcedValue::flag("--host", host)
            });
        let headers = self
            .header
            .iter()
            .map(|header| field(&SourcedValue::flag("--header", header)))
            .collect::<Result<Vec<_>, _>>()?;
        let limits = self.limits()?;
        let hold = seconds("--hold", &self.hold, "0")?;
        let grace = seconds("--grace", &self.grace, "10")?;
        let idle_exit = seconds("--idle-exit", &self.idle_exit, "0")?;
        let connections_max = match &self.max_connections {
            Some(number) => SourcedValue::flag("--max-connections", number).count(1)?,
            None => CONNECTIONS_MAX,
        };
        if self.threads.is_some() {
            return Err(Failure::usage(THREADS_REMOVED));
        }
        let trust = trust::trust(self, environment)?;
        let host = bare_word(&host)?;
        let allowed_hosts = allowed(
            "--allow-host",
            &self.allow_host,
            |text| allowed_host(text).map(str::to_owned),
            "is no host; give its name without scheme and port, such as `llm.example`",
        )?;
        let allowed_origins = allowed(
            "--allow-origin",
            &self.allow_origin,
            allowed_origin,
            "is no origin; give scheme and host, such as `https://chat.example`",
        )?;

        // Looking at folders comes after every value that can be judged without.
        let project = globals.project(environment, self.project.as_deref());
        if let (Some(_), Ok(project)) = (&self.project, &project) {
            refuse_no_folder(project.path())?;
        }
        let (port, project) = match port {
            None => {
                let (place, project) = (globals.place(environment)?, project?);
                let choice = PortChoice::Registry(Box::new(place), project.clone());
                (choice, Some(project))
            }
            Some(port) => {
                let project_is_needed = self.project.is_some()
                    || template.contains(PROJECT)
                    || headers.iter().any(|(_, value)| {
                        value.wants(Placeholder::Project) || value.wants(Placeholder::Branch)
                    });
                let project = match project {
                    Err(failure) if project_is_needed => return Err(failure),
                    project => project.ok(),
                };
                (port, project)
            }
        };
        let wants_port = |(_, value): &&(String, Template)| value.wants(Placeholder::Port);
        if let (PortChoice::Without, Some((name, _))) = (&port, headers.iter().find(wants_port)) {
            return Err(Failure::usage(format!(
                "the field `{name}` holds {{port}}, and a Unix socket has none; leave it out"
            )));
        }
        let instance_id = filled(template, project.as_ref())?;
        Ok(ServeSettings {
            host,
            socket,
            port,
            target,
            uses_proxies: self.use_proxy_env,
            trust,
            mock,
            instance_id,
            headers,
            project,
            hold,
            limits,
            connections_max,
            grace,
            idle_exit: (!idle_exit.is_zero()).then_some(idle_exit),
            allowed_hosts,
            allowed_origins,
        })
    }

    fn socket(&self) -> Result<Option<Socket>, Failure> {
        let Some(listen) = &self.listen else {
            return match &self.listen_mode {
                Some(_) => Err(Failure::usage(
                    "`--listen-mode` is for a Unix socket; give `--listen` as well",
                )),
                None => Ok(None),
            };
        };
        for (option, value) in [("--host", &self.host), ("--port", &self.port)] {
            if value.is_some() {
                return Err(Failure::usage(format!(
                    "`--listen` takes the place of a port; give `--listen` or `{option}`"
                )));
            }
        }
        let mode = self
            .listen_mode
            .as_deref()
            .map_or(SourcedValue::default(SOCKET_MODE), |mode| {
                SourcedValue::flag("--listen-mode", mode)
            });
        Ok(Some(Socket {
            path: SourcedValue::flag("--listen", listen).socket()?,
            mode: file_mode(&mode)?,
        }))
    }

    fn mock(&self) -> Result<Option<MockTarget>, Failure> {
        match (self.mock, &self.target, &self.mock_interval_ms) {
            (true, Some(_), _) => Err(Failure::usage(
                "`--mock` takes the place of a target; give `--mock` or `--target`",
            )),
            (true, None, interval) => Ok(Some(MockTarget {
                interval: mock_interval("--mock-interval-ms", interval.as_deref())?,
            })),
            (false, _, Some(_)) => Err(Failure::usage(
                "`--mock-interval-ms` is for the mock; give `--mock` as well",
            )),
            (false, _, None) => Ok(None),
        }
    }

    fn limits(&self) -> Result<TimeLimits, Failure> {
        let limit = |name, value, default| -> Result<Option<Duration>, Failure> {
            Ok(Some(seconds(name, value, default)?).filter(|limit| !limit.is_zero()))
        };
        Ok(TimeLimits {
            head: limit("--head-timeout", &self.head_timeout, "30")?,
            idle: limit("--idle-timeout", &self.idle_timeout, "75")?,
            connect: limit("--connect-timeout", &self.connect_timeout, "10")?,
            first_byte: limit("--first-byte-timeout", &self.first_byte_timeout, "0")?,
            body: limit("--body-timeout", &self.body_timeout, "0")?,
        })
    }
}

fn seconds(
    name: &'static str,
    value: &Option<String>,
    default: &'static str,
) -> Result<Duration, Failure> {
    match value {
        Some(value) => SourcedValue::flag(name, value).seconds(),
        None => SourcedValue::default(default).seconds(),
    }
}

/// Octal digits, as chmod(1) has them.
fn file_mode(given: &SourcedValue) -> Result<u32, Failure> {
    let text = given.text()?;
    let is_octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| is_octal && mode <= 0o777)
        .ok_or_else(|| given.refused("is not a mode; give octal digits such as 660"))
}

/// The values of a repeated option, each as `parse` reads it; `why` says what would do.
fn allowed(
    option: &'static str,
    values: &[String],
    parse: impl Fn(&str) -> Option<String>,
    why: &str,
) -> Result<Vec<String>, Failure> {
    let read = |value: &String| {
        let given = SourcedValue::flag(option, value);
        parse(given.text()?).ok_or_else(|| given.refused(why))
    };
    values.iter().map(read).collect()
}

/// A name or an address: text without white space.
fn bare_word(given: &SourcedValue) -> Result<String, Failure> {
    let text = given.text()?;
    if text.contains(char::is_whitespace) {
        return Err(given.refused("has white space in it; leave it out"));
    }
    Ok(text.to_owned())
}

/// What the instance id is made of, where the option was given so.
pub(super) fn instance_template(
    environment: &Environment<'_>,
    option: Option<&str>,
) -> SourcedValue {
    environment
        .flag_or_variable("--instance-id", option, settings::INSTANCE_ID)
        .unwrap_or_else(|| SourcedValue::default(INSTANCE_ID))
}

/// The instance id, with the project's name in it.
///
/// # Errors
///
/// Bad usage: the name is none that a field can hold.
pub(super) fn filled(template: &str, project: Option<&Project>) -> Result<String, Failure> {
    let Some(project) = project.filter(|_| template.contains(PROJECT)) else {
        return Ok(template.to_owned());
    };
    let name = name(project.path());
    let instance_id = template.replace(PROJECT, &name);
    // A carried byte begins with NUL: such a name is refused here as well, since a field can hold neither.
    if instance_id.chars().any(char::is_control) {
        return Err(Failure::usage(format!(
            "the project's name `{name}` cannot stand in an instance id: it has a control character in it, \
             or is not UTF-8; give another with `--instance-id` or {}",
            settings::INSTANCE_ID
        )));
    }
    Ok(instance_id)
}

/// Stands for the project's name in an instance id.
const PROJECT: &str = "{project}";

const HOST: &str = "localhost";
/// The target may be paid for: nobody else reaches it without being let in.
const SOCKET_MODE: &str = "600";
/// Where requests go without being told.
pub(super) const TARGET_URL: &str = "http://localhost:8764";
const INSTANCE_ID: &str = "pycharm-{project}";

/// Each costs two sockets and some 20 KiB; 1024 files is also what many systems allow a process at first.
const CONNECTIONS_MAX: usize = 1024;

/// What was tried with `--threads` is done by several processes.
const THREADS_REMOVED: &str = "`--threads` is removed: one thread serves tens of thousands of requests a second; \
     for more, run several interceptors behind a load balancer";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outcome::Exit;
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
        Serve { project, ..serve }.resolve(&globals, &Environment(&read))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_help_names_every_option_with_its_default() {
        let program = argh::CommandInfoWithArgs {
            name: "ic",
            ..argh::CommandInfoWithArgs::default()
        };
        let help = crate::cli::help::help(&program, Some(&Serve::get_args_info()));
        for part in [
            "Usage: ic serve [OPTION…]\n",
            "  --host H ",
            "  --header FIELD ",
            "default: pycharm-{project}\n",
            "http://localhost:8764",
            "  --first-byte-timeout SECS ",
            "  --mock-interval-ms MS ",
        ] {
            assert!(help.contains(part), "{part}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn everything_has_a_default() {
        let settings = resolve(Serve::default(), &[]).expect("defaults are good");
        assert_eq!(settings.host, "localhost");
        assert!(matches!(settings.port, PortChoice::Registry(..)));
        assert_eq!(
            settings.target,
            SourcedValue::default("http://localhost:8764")
        );
        assert_eq!(settings.mock, None);
        assert_eq!(settings.instance_id, "pycharm-my.shop");
        assert!(settings.headers.is_empty());
        assert_eq!(
            settings.project.map(|project| project.name()).as_deref(),
            Some("my.shop")
        );
        assert_eq!(settings.hold, Duration::ZERO);
        assert_eq!(
            settings.limits,
            TimeLimits {
                head: Some(Duration::from_secs(30)),
                idle: Some(Duration::from_secs(75)),
                connect: Some(Duration::from_secs(10)),
                first_byte: None,
                body: None,
            }
        );
        assert_eq!(settings.connections_max, 1024);
        assert_eq!(settings.grace, Duration::from_secs(10));
        assert_eq!(settings.idle_exit, None);
    }

    #[test]
    fn a_flag_wins_over_a_variable_that_is_then_not_looked_at() {
        let variables = [
            (settings::PORT, "9001"),
            (settings::TARGET_URL, "http://variable"),
            (settings::INSTANCE_ID, "{project}@variable"),
        ];
        let settings = resolve(Serve::default(), &variables).expect("good variables");
        let settled = settings.port.settle().expect("no registry is asked");
        let (port, origin) = settled.port.expect("it listens on a port");
        assert_eq!((port.get(), origin), (9001, PortOrigin::Variable));
        assert_eq!(
            settings.target.to_string(),
            "TARGET_LLM_URL=http://variable"
        );
        assert_eq!(settings.instance_id, "my.shop@variable");

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
        let settled = settings.port.settle().expect("no registry is asked");
        let (port, origin) = settled.port.expect("it listens on a port");
        assert_eq!((port.get(), origin), (9002, PortOrigin::Flag));
        assert_eq!(settings.target.to_string(), "--target http://flag");
        assert_eq!(settings.instance_id, "flag");

        let empty = [
            (settings::PORT, ""),
            (settings::TARGET_URL, ""),
            (settings::INSTANCE_ID, ""),
        ];
        let settings = resolve(Serve::default(), &empty).expect("as if unset");
        assert!(matches!(settings.port, PortChoice::Registry(..)));
        assert_eq!(
            settings.target,
            SourcedValue::default("http://localhost:8764")
        );
        assert_eq!(settings.instance_id, "pycharm-my.shop");
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
        assert_eq!(settings.limits.head, None);
        assert_eq!(settings.limits.idle, None);
        assert_eq!(settings.limits.connect, Some(Duration::from_millis(250)));
        assert_eq!(settings.limits.body, Some(Duration::from_secs(7)));
        assert_eq!(settings.grace, Duration::ZERO);
        assert_eq!(settings.idle_exit, None);
        assert_eq!(settings.hold, Duration::from_millis(1500));
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
                let value = Template::parse(value).expect("nothing to fill in");
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
            "`SUPERMEMORY_USERNAME=a\nb` has a control",
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
            "the project's name `a\u{7f}b` cannot stand in an instance id",
        );
        check(
            Serve {
                project: some("/nowhere/caf\0e9"),
                ..serve()
            },
            &[],
            "the project's name `caf\0e9` cannot stand in an instance id",
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
                host: some("a b"),
                ..serve()
            },
            &[],
            "`--host a b` has white space",
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
            "`--grace -1` is not a time",
        );
        check(
            Serve {
                hold: some("x"),
                ..serve()
            },
            &[],
            "`--hold x` is not a time",
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
            "`--allow-host a.example:80` is no host",
        );
        check(
            Serve {
                allow_origin: vec!["a.example".to_owned()],
                ..serve()
            },
            &[],
            "`--allow-origin a.example` is no origin",
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
            "`--header Host: a` cannot be set",
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
        let interval = Duration::from_millis(5);
        assert_eq!(settings.mock, Some(MockTarget { interval }));
    }
}
