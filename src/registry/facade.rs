//! The registry for programs that use this crate: the operations of the Python tool's `PortRegistry`, with typed errors.
//!
//! Missing options come from the same variables as those of the command line. Damage that was repaired is logged (`warn`);
//! nothing is printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, error, fmt, io};

use serde::Serialize;

use crate::text::escaped_path;

use super::allocate::Exhausted;
use super::model::Registry;
use super::port::{EmptyRange, NotAPort, Port, PortRange};
use super::probe::{Availability, availability};
use super::project::{Project, registry_file};
use super::prune::{Pruned, allocate_or_prune};
use super::store::{DamageReport, Store, StoreError};

/// Assigns ports to projects, in the file that all programs of this user share.
///
/// Nothing is cached: each call reads the file, and each change is one critical section across all processes. Calls wait
/// for other writers, 10 s at most.
///
/// ```
/// use interceptor::{PortRegistry, RegistryOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let project = folder.path();
/// let registry = PortRegistry::new(RegistryOptions {
///     registry_file: Some(folder.path().join("port_registry.json")),
///     ..RegistryOptions::default()
/// })?;
/// let port = registry.get_or_allocate_port(project)?;
/// assert_eq!(registry.get_port(project)?, Some(port));
/// assert!(registry.remove_mapping(project)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PortRegistry {
    store: Store,
    range: PortRange,
}

/// The options of a [`PortRegistry`].
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// The first port to assign; else `INTERCEPTOR_PORT_MIN`, else 8888.
    pub port_min: Option<u16>,
    /// The last port to assign; else `INTERCEPTOR_PORT_MAX`, else 9999.
    pub port_max: Option<u16>,
    /// The file; else `PORT_REGISTRY_PATH`, else `~/.config/litellm/port_registry.json`.
    pub registry_file: Option<PathBuf>,
}

/// The result of [`PortRegistry::get_info`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryInfo {
    /// The file.
    pub registry_file: PathBuf,
    /// The ports that can be assigned.
    pub port_range: PortRange,
    /// The number of ports in the range.
    pub total_ports: u32,
    /// The number of projects with a port, including ports outside the range.
    pub allocated_ports: u32,
    /// The number of ports in the range that are not assigned, without those that browsers refuse.
    pub available_ports: u32,
    /// The port at which the next search starts.
    pub next_available: Port,
}

impl PortRegistry {
    /// Returns a registry with these options. Opens nothing.
    ///
    /// # Errors
    ///
    /// An option or its variable is not a port, the range is empty, or there is no home folder.
    pub fn new(options: RegistryOptions) -> Result<PortRegistry, RegistryError> {
        PortRegistry::with_variables(options, |name| env::var_os(name))
    }

    fn with_variables(
        options: RegistryOptions,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<PortRegistry, RegistryError> {
        // A variable that is set but empty counts as unset.
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let port = |option: Option<u16>, option_name, variable_name, default| {
            let (name, value) = match (option, variable(variable_name)) {
                (Some(number), _) => (option_name, number.to_string()),
                (None, Some(value)) => (variable_name, value.to_string_lossy().into_owned()),
                (None, None) => return Ok(default),
            };
            value
                .parse::<Port>()
                .map_err(|_| RegistryError::NotAPort { name, value })
        };
        let (start, end) = (PortRange::DEFAULT.start(), PortRange::DEFAULT.end());
        let start = port(options.port_min, "port_min", "INTERCEPTOR_PORT_MIN", start)?;
        let end = port(options.port_max, "port_max", "INTERCEPTOR_PORT_MAX", end)?;
        let range = PortRange::new(start, end).map_err(RegistryError::EmptyRange)?;
        let file = match (options.registry_file, variable("PORT_REGISTRY_PATH")) {
            (Some(file), _) => file,
            (None, Some(file)) => from_variable(Path::new(&file))?,
            (None, None) => Store::default_file()?,
        };
        Ok(PortRegistry {
            store: Store::new(file),
            range,
        })
    }

    /// Returns the port of the project in the folder `path`; a new one if it has none. If the range has no free port, the
    /// mappings of deleted projects are removed first.
    ///
    /// # Errors
    ///
    /// No port of the range is free, the file cannot be read or written, or the path cannot be resolved.
    pub fn get_or_allocate_port(&self, path: impl AsRef<Path>) -> Result<Port, RegistryError> {
        let project = resolve(path.as_ref())?;
        let updated = self
            .store
            .update(|registry| allocate_or_prune(registry, &project, self.range))?;
        report(updated.warning);
        let allocation = updated.value.map_err(RegistryError::Exhausted)?;
        for Pruned { path, port, .. } in allocation.pruned {
            let path = escaped_path(&path);
            log::warn!("no port was left: `{path}` was deleted and has lost port {port}");
        }
        Ok(allocation.allocated.port)
    }

    /// Returns the port of the project in the folder `path`, if it has one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the path cannot be resolved.
    pub fn get_port(&self, path: impl AsRef<Path>) -> Result<Option<Port>, RegistryError> {
        let project = resolve(path.as_ref())?;
        Ok(self.read()?.port_of(&project))
    }

    /// Returns all projects and their ports.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn list_mappings(&self) -> Result<BTreeMap<PathBuf, Port>, RegistryError> {
        Ok(self
            .read()?
            .mappings()
            .map(|(path, port)| (path.to_owned(), port))
            .collect())
    }

    /// Whether a port could be listened on now, assigned or not.
    pub fn is_port_available(&self, port: u16) -> bool {
        Port::try_from(port).is_ok_and(|port| availability(port) == Availability::Free)
    }

    /// Removes the mapping of the project in the folder `path`. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written, or the path cannot be resolved.
    pub fn remove_mapping(&self, path: impl AsRef<Path>) -> Result<bool, RegistryError> {
        let project = resolve(path.as_ref())?;
        let updated = self.store.update(|registry| registry.remove(&project))?;
        report(updated.warning);
        Ok(updated.value.is_some())
    }

    /// Returns the numbers of the registry.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn get_info(&self) -> Result<RegistryInfo, RegistryError> {
        let registry = self.read()?;
        Ok(RegistryInfo {
            registry_file: self.store.path().to_owned(),
            port_range: self.range,
            total_ports: self.range.len(),
            allocated_ports: registry.len() as u32, // no port is in it twice
            available_ports: registry.unassigned_in(self.range),
            next_available: registry.next_in(self.range),
        })
    }

    fn read(&self) -> Result<Registry, RegistryError> {
        let snapshot = self.store.read()?;
        report(snapshot.warning);
        Ok(snapshot.registry)
    }
}

/// The file that `PORT_REGISTRY_PATH` names.
fn from_variable(path: &Path) -> Result<PathBuf, RegistryError> {
    let file = registry_file(path).map_err(|source| RegistryError::Path {
        path: path.to_owned(),
        source,
    })?;
    if file.is_relative() {
        let file = escaped_path(&file);
        log::warn!(
            "PORT_REGISTRY_PATH is relative: each folder has a registry `{file}` of its own"
        );
    }
    Ok(file)
}

fn resolve(path: &Path) -> Result<Project, RegistryError> {
    Project::resolve(path).map_err(|source| RegistryError::Path {
        path: path.to_owned(),
        source,
    })
}

fn report(warning: Option<DamageReport>) {
    if let Some(warning) = warning {
        log::warn!("{warning}");
    }
}

/// Why an operation of [`PortRegistry`] failed.
#[derive(Debug)]
pub enum RegistryError {
    /// An option or its variable is not a port.
    NotAPort {
        /// The option or the variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The range is empty.
    EmptyRange(EmptyRange),
    /// A path, of a project or of the file, cannot be resolved.
    Path {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No port of the range is free.
    Exhausted(Exhausted),
    /// The file cannot be read or written.
    Store(StoreError),
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        RegistryError::Store(error)
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::NotAPort { name, value } => {
                write!(f, "{name} is `{}`; {NotAPort}", value.escape_debug())
            }
            RegistryError::EmptyRange(error) => error.fmt(f),
            RegistryError::Path { path, source } => {
                let path = escaped_path(path);
                write!(f, "cannot resolve the path `{path}`: {source}")
            }
            RegistryError::Exhausted(error) => error.fmt(f),
            RegistryError::Store(error) => error.fmt(f),
        }
    }
}

impl error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            RegistryError::Path { source, .. } => Some(source),
            RegistryError::Store(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options, variables, and the range and file that must come of them.
    #[track_caller]
    fn check(
        options: RegistryOptions,
        variables: &[(&str, &str)],
        expected: Result<(&str, &str), &str>,
    ) {
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(set, _)| *set == name)
                .map(|(_, value)| OsString::from(value))
        };
        let made = PortRegistry::with_variables(options, variable)
            .map(|made| {
                (
                    made.range.to_string(),
                    made.store.path().display().to_string(),
                )
            })
            .map_err(|error| error.to_string());
        let made = made
            .as_ref()
            .map(|(range, file)| (range.as_str(), file.as_str()))
            .map_err(String::as_str);
        assert_eq!(made, expected);
    }

    fn options(port_min: Option<u16>, port_max: Option<u16>) -> RegistryOptions {
        RegistryOptions {
            port_min,
            port_max,
            registry_file: Some("/r".into()),
        }
    }

    #[test]
    fn an_option_wins_over_its_variable_and_a_variable_over_the_default() {
        let file = [("PORT_REGISTRY_PATH", "/from/variable")];
        check(
            RegistryOptions::default(),
            &file,
            Ok(("8888-9999", "/from/variable")),
        );
        check(options(None, None), &file, Ok(("8888-9999", "/r")));
        let ports = [
            ("INTERCEPTOR_PORT_MIN", "9100"),
            ("INTERCEPTOR_PORT_MAX", "9200"),
        ];
        check(options(None, None), &ports, Ok(("9100-9200", "/r")));
        check(options(Some(9150), None), &ports, Ok(("9150-9200", "/r")));
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_an_overruled_one_is_not_looked_at() {
        check(
            options(None, None),
            &[("INTERCEPTOR_PORT_MIN", "")],
            Ok(("8888-9999", "/r")),
        );
        check(
            options(Some(9000), None),
            &[("INTERCEPTOR_PORT_MIN", "abc")],
            Ok(("9000-9999", "/r")),
        );
    }

    #[test]
    fn what_is_no_port_or_no_range_is_refused_by_name() {
        check(
            RegistryOptions::default(),
            &[("PORT_REGISTRY_PATH", "'~/r'")],
            Err(
                "cannot resolve the path `'~/r'`: begins with a quote; leave out the quotes, which only a shell removes",
            ),
        );
        let abc = "INTERCEPTOR_PORT_MAX is `abc`; a port is a number from 1 to 65535";
        check(
            options(None, None),
            &[("INTERCEPTOR_PORT_MAX", "abc")],
            Err(abc),
        );
        let plus = "INTERCEPTOR_PORT_MAX is `+9000`; a port is a number from 1 to 65535";
        check(
            options(None, None),
            &[("INTERCEPTOR_PORT_MAX", "+9000")],
            Err(plus),
        );
        check(
            options(Some(0), None),
            &[],
            Err("port_min is `0`; a port is a number from 1 to 65535"),
        );
        check(
            options(Some(9), Some(8)),
            &[],
            Err("a range from 9 to 8 has no port in it"),
        );
    }
}
