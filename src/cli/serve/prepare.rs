//! From the settings of an interceptor to one that is ready to listen. Connects the two halves: a project's port on one
//! side, an interceptor on the other.

use std::net::{IpAddr, SocketAddr};

use super::announcement::Announcement;
use super::arguments::Serve;
use super::conflict;
use super::last_used::LastUsed;
use super::listening::{addresses_of, addresses_on, is_loopback, local_hosts_only};
use super::port::{PortOrigin, ResolvedPort};
use super::settings::{ServeSettings, Upstream};
use super::socket_activation::Inherited;
use super::upstream::{rewriter, upstream};
use crate::cli::address::{BaseUrls, bad_port};
use crate::cli::context::Context;
use crate::cli::identity::Facts;
use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::terminal::Terminal;
use crate::machine::feeds::{Lease, lease};
use crate::machine::interceptor::{Identity, interceptor_at};
use crate::machine::survey::is_for;
use crate::registry::Port;
use crate::registry::probe::{Availability, availability};
use crate::registry::project::Project;
use crate::serve::{About, Listen, Options, ServeError, ServedBy, SiteOptions};
use crate::text::{escaped_path, raw};

/// An interceptor that is ready to listen.
pub struct Prepared {
    settings: ServeSettings,
    port: Option<(Port, PortOrigin)>,
    last_used: Option<LastUsed>,
    /// The names of the fields that are added to each request.
    added: Vec<String>,
}

impl Serve {
    /// Does everything that comes before listening: reads the values, finds the port, reads certificates.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable; "could not" for files, the registry and the mock.
    pub fn prepare(
        &self,
        context: &Context<'_>,
        inherited: Option<Inherited>,
        stop_signals: &'static [i32],
    ) -> Result<(Prepared, Options, SiteOptions), Failure> {
        let environment = &context.environment;
        let inherited_port = inherited.as_ref().map(Inherited::port);
        let mut settings = self.resolve(inherited_port, &context.globals, environment)?;
        let ips = addresses_of(&settings.hosts)?;
        let mut upstream = upstream(
            &settings.upstream,
            settings.uses_proxies,
            &settings.trust,
            environment,
        )?;
        let ResolvedPort { port, last_used } = settings.port.resolve()?;
        let number = port.map(|(port, _)| port);
        let (listen, tcp) = listen(inherited, &mut settings, &ips, number);
        settings.guard.local_hosts_only = local_hosts_only(&tcp);
        let project = settings.project.as_ref();
        let facts = Facts {
            project,
            port: number,
            environment,
        };
        let instance_id = facts.instance_id(&settings.instance)?;
        let mut notes = Vec::new();
        let headers = &settings.headers;
        let fields = facts.fields(&settings.instance, &instance_id, headers, &mut notes)?;
        notes.iter().for_each(eprint_line);
        let added = fields.iter().map(|(name, _)| name.clone()).collect();
        let options = Options {
            timeouts: settings.timeouts,
            connections_max: settings.connections_max,
            feed: context.feed_folder(),
            stop_signals,
        };
        let site = SiteOptions {
            listen,
            rewriter: rewriter(&mut upstream, &fields)?,
            upstream: upstream.into(),
            guard: settings.guard.clone(),
            about: About {
                instance_id,
                project: project.map(|project| raw::to_text(project.path().as_os_str())),
                served_by: ServedBy::Serve,
            },
        };
        let prepared = Prepared {
            settings,
            port,
            last_used,
            added,
        };
        Ok((prepared, options, site))
    }
}

/// Where to listen, and the TCP addresses of it. The hosts of inherited sockets become those of the settings.
fn listen(
    inherited: Option<Inherited>,
    settings: &mut ServeSettings,
    ips: &[Vec<IpAddr>],
    port: Option<Port>,
) -> (Listen, Vec<SocketAddr>) {
    if let Some(inherited) = inherited {
        let mut tcp = inherited.addresses.iter();
        if let Some(other) = tcp.find(|address| !is_loopback(&address.ip())) {
            settings.hosts = vec![other.ip().to_string()];
        }
        let listeners = inherited.listeners.into();
        return (Listen::Inherited(listeners), inherited.addresses);
    }
    if let Some(socket) = &settings.socket {
        return (Listen::At(socket.path.clone(), socket.mode), Vec::new());
    }
    let tcp = addresses_on(ips, port.map_or(0, Port::get));
    (Listen::On(tcp.clone()), tcp.concat())
}

impl Prepared {
    /// Takes the port over from `ic serve --all`, if that serves the project; it is given back when the lease is dropped.
    pub fn take_over(&self, options: &Options) -> Option<Lease> {
        let (port, folder) = (self.port()?, options.feed.as_ref()?);
        if availability(port) != Availability::InUse {
            return None;
        }
        let holder = interceptor_at(port.get())?;
        let is_ours = holder.served_by == ServedBy::All && self.is_served_by(&holder);
        let lease = is_ours.then(|| lease(folder, holder.pid, port.get()))?;
        lease
            .inspect_err(|error| log::debug!("cannot take port {port} over: {error}"))
            .ok()
    }

    /// The port that it is to listen on; `None` for Unix sockets.
    pub fn port(&self) -> Option<Port> {
        self.port.map(|(port, _)| port)
    }

    /// The project that it is to serve, where it is known.
    pub fn project(&self) -> Option<&Project> {
        self.settings.project.as_ref()
    }

    /// Whether the interceptor with this identity serves the same project.
    pub fn is_served_by(&self, identity: &Identity) -> bool {
        self.project()
            .is_some_and(|project| is_for(identity, project.path()))
    }

    /// Records that the port is in use from now on. Returns at once.
    pub fn record_start(&self) {
        self.last_used.iter().for_each(LastUsed::record_start);
    }

    /// Records that the port was in use until now.
    pub fn record_stop(&self) {
        self.last_used.iter().for_each(LastUsed::record_stop);
    }

    /// Warnings about its port, for when it listens: `fetch` [refuses](bad_port) it, or it is [borrowed](Self::borrowed_port).
    pub fn port_warnings(&self, context: &Context<'_>) -> Vec<String> {
        let bad = self.port.and_then(|(port, origin)| {
            let is_mapped = matches!(origin, PortOrigin::Registry | PortOrigin::Allocated);
            let project = self.settings.project.as_ref().filter(|_| is_mapped);
            bad_port(port, project)
        });
        bad.into_iter().chain(self.borrowed_port(context)).collect()
    }

    /// A warning if `--port` gives a port that the registry has assigned to another project. `None` also if the registry cannot
    /// be read: it is not needed. INTERCEPTOR_PORT leaves the registry alone.
    fn borrowed_port(&self, context: &Context<'_>) -> Option<String> {
        let Some((port, PortOrigin::Flag)) = self.port else {
            return None;
        };
        let registry = context.registry_handle().ok()?.store.read().ok()?.registry;
        let owner = registry.path_of(port)?;
        let is_own = |project: &Project| project.path() == owner;
        (!self.settings.project.as_ref().is_some_and(is_own)).then(|| {
            format!(
                "warning: port {port} is assigned to another project, `{}`, whose clients now reach this one; \
                 `ic suggest` lists free ports",
                escaped_path(owner)
            )
        })
    }

    /// Why the interceptor could not start, or had to stop, in a line that says what to do.
    pub fn failure(&self, error: &ServeError) -> Failure {
        let project: Option<&Project> = self.settings.project.as_ref();
        conflict::failure(error, self.port, project, || {
            self.settings.port.alternative()
        })
    }

    /// What is printed once it listens.
    pub fn announcement(&self, site: &SiteOptions, context: &Context<'_>) -> Announcement {
        let target = &site.upstream.target;
        let host = self.settings.hosts[0].replace('*', "localhost");
        let host = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host,
        };
        let authority = |port| format!("{host}:{port}");
        Announcement {
            instance_id: site.about.instance_id.clone(),
            target: match (&site.upstream.proxy, &self.settings.upstream) {
                (_, Upstream::Mock(_)) => format!("mock, {target}"),
                (Some(proxy), _) => format!("{target} through the proxy {proxy}"),
                (None, _) => target.to_string(),
            },
            urls: self
                .port()
                .map(|port| BaseUrls::new(authority(port), Some(target))),
            added: self.added.clone(),
            terminal: Terminal::of_errors(&context.environment),
            port: self.port,
            is_inherited: matches!(site.listen, Listen::Inherited(_)),
            accepts_all_hosts: site.guard.serves_all_hosts(),
        }
    }
}
