//! Connects the two halves: a project's port on one side, an interceptor on the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::conflict::{cannot_be_bound, port_is_taken};
use super::last_used::Usage;
use super::proxies::proxy;
use super::sd_notify::Supervisor;
use super::socket_activation::Inherited;
use super::template::Placeholder;
use super::trust::tls;
use super::{PortOrigin, Serve, ServeSettings, Settled, placeholders};
use crate::cli::address::addresses;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{eprint_line, eprint_text};
use crate::cli::settings::Environment;
use crate::mock;
use crate::registry::Port;
use crate::registry::project::Project;
use crate::serve::{
    self, About, Address, Event, Guard, Listen, Options, RequestRewriter, ServeError, Stop, Target,
    Timeouts,
};
use crate::text::raw;
use crate::text::{Escaped, io_message, name};

impl Serve {
    /// Runs the interceptor until it is told to stop.
    pub(in crate::cli) fn run(self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let inherited = Inherited::take(&self, &context.environment)?;
        let (prepared, options) = self.prepare(context, inherited, STOP_SIGNALS)?;
        let announcement = prepared.announcement(&options);
        let supervisor = Supervisor::of(&context.environment);
        let mut tell = |event: Event<'_>| match event {
            Event::Listening(addresses) => {
                announcement.print(addresses);
                prepared.starts();
                supervisor.tell("READY=1");
            }
            Event::Stopping(stop) => {
                supervisor.tell("STOPPING=1");
                if let Stop::Idle(limit) = stop {
                    eprint_line(format_args!(
                        "no client has been here for {} s; stopping, as --idle-exit says",
                        limit.as_secs_f32()
                    ));
                }
            }
        };
        match serve::run(options, &mut tell) {
            Ok(()) => {
                prepared.stops();
                Ok(Exit::Done)
            }
            Err(error) => Err(prepared.failure(&error)),
        }
    }

    /// Everything that comes before listening.
    pub(in crate::cli) fn prepare(
        &self,
        context: &Context<'_>,
        inherited: Option<Inherited>,
        stop_signals: &'static [i32],
    ) -> Result<(Prepared, Options), Failure> {
        let mut settings =
            self.resolve_on(inherited.as_ref(), &context.globals, &context.environment)?;
        let target = match settings.mock {
            Some(_) => None,
            None => Some(settings.target.target()?),
        };
        let tls = match &target {
            Some(target) => tls(&settings.trust, target)?,
            None => None,
        };
        let proxy = match &target {
            Some(target) if settings.uses_proxies => proxy(target, &context.environment)?,
            _ => None,
        };
        let ips = addresses(&settings.host)?;
        let Settled { port, usage } = settings.port.settle()?;
        let target = match (target, settings.mock) {
            (Some(target), _) => target,
            (None, settings) => {
                embedded_mock(settings.map(|mock| mock.interval).unwrap_or_default())?
            }
        };
        let mut fields = identification(&settings.instance_id);
        let number = port.map(|(port, _)| port);
        fields.extend(filled_in(&settings, number, &context.environment));
        let (listen, tcp) = if let Some(inherited) = inherited {
            let mut tcp = inherited.addresses.iter();
            if let Some(far) = tcp.find(|address| !is_loopback(&address.ip())) {
                settings.host = far.ip().to_string();
            }
            let listeners = inherited.listeners.into();
            (Listen::Inherited(listeners), inherited.addresses)
        } else if let Some(socket) = &settings.socket {
            (Listen::At(socket.path.clone(), socket.mode), Vec::new())
        } else {
            let on = |port: Port| ips.iter().map(move |&ip| SocketAddr::new(ip, port.get()));
            let tcp: Vec<SocketAddr> = number.into_iter().flat_map(on).collect();
            (Listen::On(tcp.clone()), tcp)
        };
        let mut options = options(&settings, &fields, target, listen, &tcp, stop_signals)?;
        options.feed = context.feed_folder();
        options.proxy = match proxy {
            Some(proxy) if tls.is_none() => {
                options.rewriter = options.rewriter.through_proxy(proxy.authorization());
                Some(proxy)
            }
            // In a tunnel the proxy sees nothing but CONNECT.
            Some(proxy) => Some(match options.rewriter.take("Proxy-Authorization") {
                Some(value) => proxy.asked_with(value),
                None => proxy,
            }),
            None => None,
        };
        options.tls = tls;
        let prepared = Prepared {
            settings,
            port,
            usage,
        };
        Ok((prepared, options))
    }
}

/// An interceptor that is ready to listen.
pub(in crate::cli) struct Prepared {
    settings: ServeSettings,
    port: Option<(Port, PortOrigin)>,
    usage: Option<Usage>,
}

impl Prepared {
    /// The interceptor listens: its port is in use from now on.
    pub(in crate::cli) fn starts(&self) {
        self.usage.iter().for_each(Usage::starts);
    }

    /// The interceptor has been told to stop: its port was in use until now.
    pub(in crate::cli) fn stops(&self) {
        self.usage.iter().for_each(Usage::stops);
    }

    /// What to say when it could not start, or had to stop.
    pub(in crate::cli) fn failure(&self, error: &ServeError) -> Failure {
        match error {
            ServeError::Bind(Address::Unix(path), error) => {
                cannot_be_bound(path, error, self.settings.project.as_ref())
            }
            ServeError::Bind(_, error) if error.kind() == io::ErrorKind::AddrInUse => {
                match self.port {
                    Some((port, origin)) => port_is_taken(
                        port,
                        origin,
                        self.settings.project.as_ref(),
                        self.settings.port.another(),
                    ),
                    None => Failure::could_not(io_message(error)),
                }
            }
            ServeError::Bind(address, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let way_out = if address.port().is_some_and(|port| port < 1024) {
                    "choose a port of 1024 or above"
                } else {
                    "a sandbox may forbid it"
                };
                Failure::could_not(format!(
                    "cannot listen on {address}: {}; {way_out}",
                    io_message(error)
                ))
            }
            ServeError::Bind(address, error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput
                ) =>
            {
                Failure::could_not(format!(
                    "cannot listen on {address}: {}; give an address of this machine with --host, or leave it out",
                    io_message(error)
                ))
            }
            ServeError::TargetIsSelf(_) => Failure::usage(error.to_string()),
            error => Failure::could_not(error.to_string()),
        }
    }

    fn announcement(&self, options: &Options) -> Announcement {
        Announcement {
            instance_id: self.settings.instance_id.clone(),
            host: self.settings.host.clone(),
            target: match &options.proxy {
                Some(proxy) => format!("{} through the proxy {proxy}", options.target),
                None => options.target.to_string(),
            },
            port: self.port,
            is_inherited: matches!(options.listen, Listen::Inherited(_)),
        }
    }
}

/// Starts the mock in a thread of its own, which ends with the process.
fn embedded_mock(interval: std::time::Duration) -> Result<Target, Failure> {
    let failed = |error: &io::Error| {
        Failure::could_not(format!("cannot start the mock: {}", io_message(error)))
    };
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = mock::Server::bind(&[any_port]).map_err(|error| failed(&error))?;
    let address = server.addresses()[0];
    std::thread::Builder::new()
        .name("mock".to_owned())
        .spawn(move || server.run(mock::Settings { interval }))
        .map_err(|error| failed(&error))?;
    format!("http://{address}")
        .parse()
        .map_err(|error: serve::BadTarget| {
            Failure::could_not(format!("the mock's address {error}"))
        })
}

/// The fields that say who is asking.
fn identification(id: &str) -> Vec<(String, String)> {
    vec![
        ("x-memory-user-id".to_owned(), id.to_owned()),
        ("x-pycharm-instance".to_owned(), id.to_owned()),
        ("x-source".to_owned(), SOURCE.to_owned()),
    ]
}

/// The fields of `--header`, as they are from now on; what does not go as it is, is said.
fn filled_in(
    settings: &ServeSettings,
    port: Option<Port>,
    environment: &Environment<'_>,
) -> Vec<(String, String)> {
    let project = settings.project.as_ref().map(Project::path);
    let value_of = |placeholder| match placeholder {
        Placeholder::Instance => settings.instance_id.clone(),
        Placeholder::Project => project.map(name).unwrap_or_default(),
        Placeholder::Port => port.map(|port| port.to_string()).unwrap_or_default(),
        Placeholder::Branch => project.and_then(placeholders::branch).unwrap_or_default(),
        Placeholder::User => placeholders::user(environment),
        Placeholder::Host => placeholders::host(),
    };
    let fields = settings.headers.iter().map(|(name, template)| {
        let (value, encoded) = template.fill(value_of);
        for encoded in encoded {
            eprint_line(format_args!(
                "`{{{}}}` in the field `{name}` is sent percent-encoded, as `{}`: a field holds no other characters",
                encoded.placeholder.name(),
                encoded.sent,
            ));
        }
        if template.wants(Placeholder::Branch) && value_of(Placeholder::Branch).is_empty() {
            eprint_line(format_args!(
                "`{{branch}}` in the field `{name}` is empty: the project is in no git repository"
            ));
        }
        (name.clone(), value)
    });
    fields.collect()
}

fn options(
    settings: &ServeSettings,
    fields: &[(String, String)],
    target: Target,
    listen: Listen,
    tcp: &[SocketAddr],
    stop_signals: &'static [i32],
) -> Result<Options, Failure> {
    let id = &settings.instance_id;
    let rewriter = RequestRewriter::new(target.host_field(), target.base_path(), fields).map_err(
        |unsettable| {
            Failure::usage(format!(
                "the field `{}` cannot be set; leave it out",
                Escaped(&unsettable.0)
            ))
        },
    )?;
    let limits = settings.limits;
    Ok(Options {
        target,
        tls: None,
        proxy: None,
        rewriter,
        guard: Guard {
            local_hosts_only: local_hosts_only(tcp),
            allowed_hosts: settings.allowed_hosts.clone(),
            allowed_origins: settings.allowed_origins.clone(),
        },
        listen,
        timeouts: Timeouts {
            head: limits.head,
            idle: limits.idle,
            connect: limits.connect,
            first_byte: limits.first_byte,
            body: limits.body,
            hold: settings.hold,
            grace: settings.grace,
            idle_exit: settings.idle_exit,
        },
        connections_max: settings.connections_max,
        about: About {
            instance_id: id.clone(),
            project: settings
                .project
                .as_ref()
                .map(|project| raw::to_text(project.path().as_os_str())),
        },
        feed: None,
        stop_signals,
    })
}

/// Whether what listens on these addresses, and maybe on Unix sockets, serves only hosts that mean this machine. That is
/// to keep out pages of the web, whose browser cannot connect to a Unix socket; whoever can, a reverse proxy most often,
/// may pass on any name.
fn local_hosts_only(addresses: &[SocketAddr]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| is_loopback(&address.ip()))
}

/// Whether only this machine reaches it, written as an address of IPv6 as well (`::ffff:127.0.0.1`).
fn is_loopback(ip: &IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What is told at the start.
struct Announcement {
    instance_id: String,
    host: String,
    target: String,
    port: Option<(Port, PortOrigin)>,
    is_inherited: bool,
}

impl Announcement {
    fn print(&self, addresses: &[Address]) {
        let mut places = Vec::new();
        let tcp: Vec<SocketAddr> = addresses.iter().filter_map(Address::tcp).collect();
        if let Some((port, _)) = self.port {
            let bound = tcp.iter().map(|address| match address.port() {
                same if same == port.get() => address.ip().to_string(),
                // Whoever opened the sockets may have chosen several.
                _ => address.to_string(),
            });
            let bound: Vec<String> = bound.collect();
            let host = if self.host.contains(':') && !self.host.starts_with('[') {
                format!("[{}]", self.host)
            } else {
                self.host.clone()
            };
            places.push(format!("http://{host}:{port} ({})", bound.join(", ")));
        }
        let sockets = addresses.iter().filter(|address| address.tcp().is_none());
        places.extend(sockets.map(|address| Escaped(&address.to_string()).to_string()));
        let mut text = format!(
            "Instance:   {}\nListening:  {}\nTarget:     {}\n",
            Escaped(&self.instance_id),
            places.join(", "),
            self.target,
        );
        match self.port {
            Some((_, origin)) => text.push_str(&format!("Port from:  {origin}\n")),
            None if self.is_inherited => {
                text.push_str(&format!("Socket:     {}\n", PortOrigin::Inherited));
            }
            None => {}
        }
        if !tcp.iter().all(|address| is_loopback(&address.ip())) {
            text.push_str(
                "ic: warning: this listens beyond this machine: whoever reaches the port can use the target; \
                 leave out --host to listen on localhost only\n",
            );
        }
        eprint_text(&text);
    }
}

/// From a terminal, and from whoever supervises it.
const STOP_SIGNALS: &[i32] = &[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];

/// What the original tool sends, and what is told apart by it.
const SOURCE: &str = "pycharm-ai-chat";
