//! From what the registry says of a project to the options of its port. Targets with their certificates are read once for the
//! process.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::defaults::Defaults;
use crate::cli::field::is_same_field;
use crate::cli::identity::{Facts, headers, instance_template, with_variables};
use crate::cli::outcome::Failure;
use crate::cli::serve::listening::{addresses_of, addresses_on, local_hosts_only};
use crate::cli::serve::proxies::is_this_machine;
use crate::cli::serve::settings::Upstream;
use crate::cli::serve::upstream::{rewriter, upstream};
use crate::cli::settings::{Environment, SourcedValue};
use crate::cli::template::Template;
use crate::registry::{Port, Project, Settings};
use crate::serve::{About, Endpoint, Listen, ServedBy, SiteOptions, Target, UpstreamOptions};
use crate::text::{escaped_path, raw};

/// Makes the options of ports.
pub struct Sites {
    defaults: Defaults,
    ips: Vec<Vec<IpAddr>>,
    /// The targets that are known, by their text; without one, the mock.
    upstreams: HashMap<Option<String>, Arc<UpstreamOptions>>,
}

/// The options of one project's port.
pub struct Site {
    /// For the server.
    pub options: SiteOptions,
    /// What the user should know of them: complete lines.
    pub warnings: Vec<String>,
}

impl Sites {
    /// Resolves the names to listen on, and reads the certificates of the default target or starts the mock.
    ///
    /// # Errors
    ///
    /// As [`addresses_of`] and [`upstream`].
    pub fn new(defaults: Defaults, environment: &Environment<'_>) -> Result<Sites, Failure> {
        let ips = addresses_of(&defaults.hosts)?;
        let mut sites = Sites {
            defaults,
            ips,
            upstreams: HashMap::new(),
        };
        sites.upstream(None, environment)?;
        Ok(sites)
    }

    /// The addresses of a port.
    pub fn addresses(&self, port: u16) -> Vec<Vec<SocketAddr>> {
        addresses_on(&self.ips, port)
    }

    /// The options for the project's port; `kept` is what `ic set` keeps.
    ///
    /// # Errors
    ///
    /// The project cannot be served.
    pub fn site(
        &mut self,
        project: &Project,
        port: Port,
        kept: &Settings,
        environment: &Environment<'_>,
    ) -> Result<Site, Failure> {
        let groups = self.addresses(port.get());
        let addresses = groups.concat();
        let shared = self.upstream(kept.target.as_deref(), environment)?;
        if leads_to(&shared.target, port) {
            return Err(Failure::usage(format!(
                "its target {} is its own port; set another target with `ic set`",
                shared.target
            )));
        }
        let instance = match kept.instance_id.as_deref() {
            Some(kept) => &instance_template(environment, Some(kept), None)?,
            None => &self.defaults.instance,
        };
        let facts = Facts {
            project: Some(project),
            port: Some(port),
            environment,
        };
        let instance_id = facts.instance_id(instance)?;
        let (mut notes, mut warnings) = (Vec::new(), Vec::new());
        let headers = self.headers(project, kept, environment, &mut warnings)?;
        let fields = facts.fields(instance, &instance_id, &headers, &mut notes)?;
        // What all projects have in common would be told for each of them.
        if *kept != Settings::default() {
            let project = escaped_path(project.path());
            warnings.extend(notes.iter().map(|note| format!("`{project}`: {note}")));
        }
        let mut own = UpstreamOptions::clone(&shared);
        let rewriter = rewriter(&mut own, &fields)?;
        let mut guard = self.defaults.guard.clone();
        guard.local_hosts_only = local_hosts_only(&addresses);
        Ok(Site {
            options: SiteOptions {
                listen: Listen::On(groups),
                // A proxy has a field of its own where the project has credentials for it.
                upstream: match own.proxy == shared.proxy {
                    true => shared,
                    false => Arc::new(own),
                },
                rewriter,
                guard,
                about: About {
                    instance_id,
                    project: Some(raw::to_text(project.path().as_os_str())),
                    served_by: ServedBy::All,
                },
            },
            warnings,
        })
    }

    /// The fields of the options that none of the project's own replaces, and the latter. Adds warnings of those that are left out.
    fn headers(
        &self,
        project: &Project,
        kept: &Settings,
        environment: &Environment<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<(String, Template)>, Failure> {
        let is_kept = |name: &str| kept.headers.iter().any(|it| is_same_field(&it.name, name));
        let defaults = self.defaults.headers.iter();
        let mut all: Vec<_> = defaults
            .filter(|(name, _)| !is_kept(name))
            .cloned()
            .collect();
        for header in headers(&[], &kept.headers)? {
            match with_variables(vec![header], environment) {
                Ok(header) => all.extend(header),
                Err(why) => warnings.push(format!(
                    "warning: a field of `{}` is left out: {why}",
                    escaped_path(project.path())
                )),
            }
        }
        Ok(all)
    }

    /// Where requests go: to this target, or to the default.
    fn upstream(
        &mut self,
        kept: Option<&str>,
        environment: &Environment<'_>,
    ) -> Result<Arc<UpstreamOptions>, Failure> {
        let kept = kept.map(|target| Upstream::Target(SourcedValue::kept("--target", target)));
        let Defaults {
            upstream: default,
            uses_proxies,
            trust,
            ..
        } = &self.defaults;
        let chosen = kept.as_ref().unwrap_or(default);
        let target = match chosen {
            Upstream::Target(target) => Some(target.text()?.to_owned()),
            Upstream::Mock(_) => None,
        };
        if let Some(known) = self.upstreams.get(&target) {
            return Ok(Arc::clone(known));
        }
        let new = Arc::new(upstream(chosen, *uses_proxies, trust, environment)?);
        self.upstreams.insert(target, Arc::clone(&new));
        Ok(new)
    }

    /// Forgets the targets that no port has. That of the mock stays: it runs as long as the process.
    pub fn forget_unused(&mut self) {
        self.upstreams
            .retain(|target, upstream| target.is_none() || Arc::strong_count(upstream) > 1);
    }
}

/// Whether requests for `target` come back to the port.
fn leads_to(target: &Target, port: Port) -> bool {
    match target.endpoint() {
        Endpoint::Tcp(host, number) => *number == port.get() && is_this_machine(host),
        Endpoint::Unix(_) => false,
    }
}
