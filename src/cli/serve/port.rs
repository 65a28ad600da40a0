//! The port of an interceptor: given, passed in by the supervisor, or from the registry.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::arguments::Serve;
use super::last_used::LastUsed;
use crate::cli::context::RegistryHandle;
use crate::cli::outcome::Failure;
use crate::cli::project::note_if_missing;
use crate::cli::settings::{self, Environment};
use crate::registry::Port;
use crate::registry::project::Project;
use crate::registry::prune::next_free;

/// How the port is found; [`resolve`](PortChoice::resolve) finds it.
pub enum PortChoice {
    /// It is given; none is looked up or allocated.
    Given(Port, PortOrigin),
    /// The project's port in the registry.
    Registry(Box<RegistryHandle>, Project),
    /// There is no port, only Unix sockets; none is looked up or allocated.
    None,
}

/// The port that an interceptor is to use.
pub struct ResolvedPort {
    /// `None` where the interceptor listens on Unix sockets only.
    pub port: Option<(Port, PortOrigin)>,
    /// Records the use of a port of the registry.
    pub last_used: Option<LastUsed>,
}

/// Where the port came from; displays as `--port`, `INTERCEPTOR_PORT`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOrigin {
    /// `--port`
    Flag,
    /// `INTERCEPTOR_PORT`
    Variable,
    /// The supervisor opened it and passed it in.
    Inherited,
    /// The project had it already.
    Registry,
    /// The registry has just allocated it.
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

/// The port of `--port` or `INTERCEPTOR_PORT`, if one of them is set.
pub fn given(serve: &Serve, environment: &Environment<'_>) -> Result<Option<PortChoice>, Failure> {
    let value = environment.flag_or_variable("--port", serve.port.as_deref(), settings::PORT);
    let Some(value) = value else {
        return Ok(None);
    };
    let origin = if value.is_variable() {
        PortOrigin::Variable
    } else {
        PortOrigin::Flag
    };
    Ok(Some(PortChoice::Given(value.port()?, origin)))
}

impl PortChoice {
    /// Finds the port, for an interceptor that is about to listen on it. Reads the registry and, for a project that has
    /// no port yet, writes it.
    ///
    /// # Errors
    ///
    /// "Could not": the registry cannot be read or written, or no port is left.
    pub fn resolve(&self) -> Result<ResolvedPort, Failure> {
        let unrecorded = |port| ResolvedPort {
            port,
            last_used: None,
        };
        let (registry, project) = match self {
            PortChoice::None => return Ok(unrecorded(None)),
            PortChoice::Given(port, origin) => return Ok(unrecorded(Some((*port, *origin)))),
            PortChoice::Registry(registry, project) => (registry, project),
        };
        let (allocated, note) = registry.allocate(project, |registry, allocated| {
            if allocated.created {
                // The registry is written anyway.
                registry.touch(project, SystemTime::now().into(), Duration::ZERO);
            }
            registry.note(project.path())
        })?;
        let origin = if allocated.created {
            note_if_missing(project);
            PortOrigin::Allocated
        } else {
            PortOrigin::Registry
        };
        Ok(ResolvedPort {
            port: Some((allocated.port, origin)),
            last_used: Some(LastUsed::new(&registry.store, project, &note)),
        })
    }

    /// Another port that the registry could allocate; it is not reserved. `None` where the port is not the registry's.
    pub fn alternative(&self) -> Option<Port> {
        match self {
            PortChoice::Given(..) | PortChoice::None => None,
            PortChoice::Registry(registry, _) => next_free(registry.range, &registry.read().ok()?),
        }
    }
}
