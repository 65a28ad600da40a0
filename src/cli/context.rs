//! What all commands share: the global options, the environment, and access to the registry.
//!
//! Decided here: which registry file, which allocation range and which project are meant, and that warnings of the store
//! are printed on standard error and not logged, so that `RUST_LOG=off` does not hide them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::machine::feeds;
use crate::registry::project::Project;
use crate::registry::prune::{Pruned, allocate_or_prune};
use crate::registry::store::{DamageReport, Store, StoreError};
use crate::registry::{Allocated, Exhausted, Port, PortRange, Registry};

use super::mapping::port_above;
use super::settings::{Environment, PORT_MAX, PORT_MIN, PROJECT_ROOT, REGISTRY_PATH, SourcedValue};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line};
use crate::text::{escaped_path, io_message, raw};

/// The input and output of every command.
pub struct Context<'a> {
    /// The global options.
    pub globals: Globals,
    /// The environment variables.
    pub environment: Environment<'a>,
    /// Where results go.
    pub out: &'a mut Output,
}

impl Context<'_> {
    /// As [`Globals::registry_handle`].
    pub fn registry_handle(&self) -> Result<RegistryHandle, Failure> {
        self.globals.registry_handle(&self.environment)
    }

    /// Whether an option or a variable says which registry file is used.
    #[cfg(feature = "ui")]
    pub fn has_own_registry(&self) -> bool {
        self.globals.registry_file(&self.environment).is_some()
    }

    /// Returns the folder of this user's feed sockets, as [`feeds::folder`] has it.
    pub fn feed_folder(&self) -> Option<PathBuf> {
        let runtime = self.environment.variable("XDG_RUNTIME_DIR");
        feeds::folder(runtime.and_then(|given| given.path().ok().map(Path::to_owned)))
    }

    /// As [`Globals::ports`].
    pub fn ports(&self) -> Result<(PortRange, Registry), Failure> {
        self.globals.ports(&self.environment)
    }

    /// As [`Globals::project`].
    pub fn project(&self, path: Option<&str>) -> Result<Project, Failure> {
        self.globals.project(&self.environment, path)
    }

    /// As [`Globals::named`].
    pub fn named(&self, path: Option<&str>) -> Result<Named, Failure> {
        self.globals.named(&self.environment, path)
    }
}

/// The global options, not parsed yet.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Globals {
    /// `--registry`
    pub registry: Option<String>,
    /// `--port-min`
    pub port_min: Option<String>,
    /// `--port-max`
    pub port_max: Option<String>,
    /// `--project-root`
    pub project_root: Option<String>,
}

/// The registry file and the allocation range.
pub struct RegistryHandle {
    /// The registry file.
    pub store: Store,
    /// The allocation range.
    pub range: PortRange,
}

impl RegistryHandle {
    /// The content of the registry. Nothing is created or changed.
    ///
    /// # Errors
    ///
    /// "Could not": the file exists and cannot be read.
    pub fn read(&self) -> Result<Registry, Failure> {
        let snapshot = self.store.read()?;
        report_damage(snapshot.warning);
        Ok(snapshot.registry)
    }

    /// Changes the registry in one critical section across processes.
    ///
    /// # Errors
    ///
    /// "Could not": locking, reading or writing failed; the file is unchanged.
    pub fn update<T>(&self, change: impl FnMut(&mut Registry) -> T) -> Result<T, Failure> {
        let updated = self.store.update(change)?;
        report_damage(updated.warning);
        Ok(updated.value)
    }

    /// The project's port, allocated now if it had none (with a note if a folder above it has one), and the result of `also`,
    /// another change in the same critical section.
    ///
    /// # Errors
    ///
    /// "Could not": as [`RegistryHandle::update`], or the range has no port left; then neither change is made.
    pub fn allocate<T>(
        &self,
        project: &Project,
        also: impl Fn(&mut Registry, Allocated) -> T,
    ) -> Result<(Allocated, T), Failure> {
        let (allocation, above, result) = self
            .update(|registry| {
                let allocation = allocate_or_prune(registry, project, self.range)?;
                let is_new = allocation.allocated.created;
                let above = is_new.then(|| port_above(registry, project)).flatten();
                let result = also(registry, allocation.allocated);
                Ok((allocation, above, result))
            })?
            .map_err(|exhausted: Exhausted| Failure::could_not(exhausted.to_string()))?;
        self.report_pruned(&allocation.pruned);
        if let Some(above) = above {
            let port = allocation.allocated.port;
            eprint_line(format_args!("note: port {port} is new; {above}"));
        }
        Ok((allocation.allocated, result))
    }

    fn report_pruned(&self, pruned: &[Pruned]) {
        let Some(first) = pruned.first() else {
            return;
        };
        let others = match pruned.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        eprint_line(format_args!(
            "no port was left in {}; removed the mappings of deleted projects: `{}`{others}",
            self.range,
            escaped_path(&first.path)
        ));
    }
}

/// Prints what was wrong with the registry file on standard error, also with `RUST_LOG=off`.
pub fn report_damage(warning: Option<DamageReport>) {
    if let Some(warning) = warning {
        eprint_line(format_args!("warning: {warning}"));
    }
}

impl Globals {
    /// The registry file and the range. The range is checked even if the command does not use it, so that an invalid
    /// setup is reported early.
    ///
    /// # Errors
    ///
    /// Bad usage for a value that does not parse or an empty range; "could not" if there is no home folder.
    pub fn registry_handle(
        &self,
        environment: &Environment<'_>,
    ) -> Result<RegistryHandle, Failure> {
        let range = self.range(environment)?;
        let store = self.store(environment)?;
        // A command may need the registry more than once.
        static WARNED: Once = Once::new();
        if let Some(given) = self.registry_file(environment)
            && given.is_variable()
            && given.file()?.is_relative()
        {
            let file = escaped_path(store.path());
            WARNED.call_once(|| {
                eprint_line(format_args!(
                    "warning: `{given}` is relative, so each folder has a registry of its own (here `{file}`); give an \
                     absolute path, or one that begins with `~/`"
                ));
            });
        }
        Ok(RegistryHandle { store, range })
    }

    /// The range and the content of the registry. If no home folder is known, prints a warning and returns an empty registry.
    ///
    /// # Errors
    ///
    /// Bad usage as [`Globals::registry_handle`], "could not" as [`RegistryHandle::read`].
    pub fn ports(&self, environment: &Environment<'_>) -> Result<(PortRange, Registry), Failure> {
        let range = self.range(environment)?;
        let is_given = self.registry_file(environment).is_some();
        if !is_given && let Err(error @ StoreError::NoHome) = Store::default_file() {
            eprint_line(format_args!("warning: no registry is known: {error}"));
            return Ok((range, Registry::default()));
        }
        Ok((range, self.registry_handle(environment)?.read()?))
    }

    /// The project at PATH: the one with a mapping under PATH as it is, if the folder that it leads to has none; otherwise that
    /// folder. So a folder that was moved keeps its port where a symbolic link is left behind.
    ///
    /// # Errors
    ///
    /// As [`Globals::folder`]; "could not" if the registry has to be read and cannot be.
    pub fn project(
        &self,
        environment: &Environment<'_>,
        path: Option<&str>,
    ) -> Result<Project, Failure> {
        let named = self.named(environment, path)?;
        if named.spellings.is_empty() {
            return named.resolved;
        }
        let registry = self.store(environment)?.read()?.registry;
        named.among(&registry).map(|(project, _)| project)
    }

    /// The names of the project at PATH, without PATH of the current one, for commands that read the registry.
    ///
    /// # Errors
    ///
    /// As [`Globals::folder`], unless a mapping may be recorded under PATH as it is.
    pub fn named(
        &self,
        environment: &Environment<'_>,
        path: Option<&str>,
    ) -> Result<Named, Failure> {
        let resolved = self.folder(environment, path);
        let given = path.and_then(|path| SourcedValue::argument(path).file().ok());
        let given = given.unwrap_or_default();
        // A folder that the shell has left or never entered must not stand for one that cannot be resolved.
        let entered = logical_folder(environment).filter(|_| resolved.is_ok());
        // The top of the repository is the current folder or above it.
        let names = match (&entered, path) {
            (Some(folder), None) if Project::resolve(folder).ok() == project_at(None).ok() => {
                folder.ancestors().map(Path::to_owned).collect()
            }
            (Some(folder), Some(_)) => vec![folder.join(&given)],
            (_, _) => Vec::new(),
        };
        let spellings: Vec<Project> = names
            .into_iter()
            .chain([given])
            .flat_map(|name| Project::spellings(&name, resolved.as_ref().ok()))
            .collect();
        match resolved {
            Err(failure) if failure.exit == Exit::BadUsage || spellings.is_empty() => Err(failure),
            resolved => Ok(Named {
                resolved,
                spellings,
            }),
        }
    }

    /// The folder that PATH leads to. Without PATH: the current folder, or with `--project-root git` the repository around it.
    ///
    /// # Errors
    ///
    /// As [`project_at`]; bad usage for another value of `--project-root`.
    pub fn folder(
        &self,
        environment: &Environment<'_>,
        path: Option<&str>,
    ) -> Result<Project, Failure> {
        let given = environment.flag_or_variable(
            "--project-root",
            self.project_root.as_deref(),
            PROJECT_ROOT,
        );
        let of_repository = match &given {
            None => false,
            Some(given) => match given.text()? {
                "folder" => false,
                "git" => true,
                _ => return Err(given.refused("is not a project root; give `git` or `folder`")),
            },
        };
        // PATH names the project itself: the repository around a deleted folder would be another project.
        if path.is_some() || !of_repository {
            return project_at(path);
        }
        let folder = current_folder()?;
        Project::of_repository(&folder).map_err(|error| cannot_resolve(&folder, &error))
    }

    /// The options and variables that are set, as variables that have the same meaning in any folder.
    ///
    /// # Errors
    ///
    /// As [`Globals::registry_handle`].
    pub fn as_variables(
        &self,
        environment: &Environment<'_>,
    ) -> Result<Vec<(&'static str, OsString)>, Failure> {
        let mut variables = Vec::new();
        let registry = self.registry.is_some() || environment.variable(REGISTRY_PATH).is_some();
        if registry {
            let file = self.store(environment)?.path().as_os_str().to_owned();
            variables.push((REGISTRY_PATH, file));
        }
        self.range(environment)?;
        for (option, value, variable) in [
            ("--port-min", &self.port_min, PORT_MIN),
            ("--port-max", &self.port_max, PORT_MAX),
        ] {
            if let Some(given) = environment.flag_or_variable(option, value.as_deref(), variable) {
                variables.push((variable, given.port()?.to_string().into()));
            }
        }
        Ok(variables)
    }

    fn range(&self, environment: &Environment<'_>) -> Result<PortRange, Failure> {
        let lowest = environment.flag_or_variable("--port-min", self.port_min.as_deref(), PORT_MIN);
        let highest =
            environment.flag_or_variable("--port-max", self.port_max.as_deref(), PORT_MAX);
        let port = |given: &Option<SourcedValue>, default: Port| {
            given.as_ref().map_or(Ok(default), SourcedValue::port)
        };
        let default = PortRange::DEFAULT;
        let (start, end) = (
            port(&lowest, default.start())?,
            port(&highest, default.end())?,
        );
        PortRange::new(start, end).map_err(|_| {
            let named = |given: Option<SourcedValue>, otherwise: &str| match given {
                Some(given) => format!("`{given}`"),
                None => otherwise.to_owned(),
            };
            Failure::usage(format!(
                "{} is above {}; give a range of ports with at least one port in it",
                named(lowest, &format!("the default {PORT_MIN}, {start},")),
                named(highest, &format!("the default {PORT_MAX}, {end}")),
            ))
        })
    }

    fn registry_file(&self, environment: &Environment<'_>) -> Option<SourcedValue> {
        environment.flag_or_variable("--registry", self.registry.as_deref(), REGISTRY_PATH)
    }

    fn store(&self, environment: &Environment<'_>) -> Result<Store, Failure> {
        let file = match self.registry_file(environment) {
            Some(given) => {
                let path = given.registry_file()?;
                // Absolute, because results show it and other processes use it. It fails only without a current
                // folder; opening the file then reports that.
                std::path::absolute(&path).unwrap_or(path)
            }
            None => Store::default_file()?,
        };
        Ok(Store::new(file).on_wait(|waiting| eprint_line(waiting)))
    }
}

/// A project, and the other spellings of its path under which a mapping may be recorded.
pub struct Named {
    resolved: Result<Project, Failure>,
    spellings: Vec<Project>,
}

impl Named {
    /// The project, and its port in this registry.
    ///
    /// # Errors
    ///
    /// "Could not": PATH cannot be resolved, and no mapping is recorded under it.
    pub fn among(&self, registry: &Registry) -> Result<(Project, Option<Port>), Failure> {
        let names = self.resolved.iter().chain(&self.spellings);
        match (registry.first_of(names), &self.resolved) {
            (Some((project, port)), _) => Ok((project.clone(), Some(port))),
            (None, Ok(project)) => Ok((project.clone(), None)),
            (None, Err(failure)) => Err(failure.clone()),
        }
    }
}

/// The project at PATH; without PATH, the current folder.
///
/// # Errors
///
/// Bad usage for an empty PATH, which is more likely an unset variable in a script than the current folder; "could not" for
/// a path that cannot be resolved.
pub fn project_at(path: Option<&str>) -> Result<Project, Failure> {
    let path = match path {
        Some("") => {
            return Err(Failure::usage(
                "PATH is empty; give a folder, or nothing for the current one",
            ));
        }
        Some(path) => SourcedValue::argument(path).file()?,
        None => current_folder()?,
    };
    Project::resolve(&path).map_err(|error| cannot_resolve(&path, &error))
}

fn current_folder() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| {
        Failure::could_not(format!(
            "cannot determine the current folder: {}; give the project's PATH",
            io_message(&error)
        ))
    })
}

/// What `PWD` says is the current folder: the name by which the shell has entered it, as `pwd -L` prints it (POSIX, `pwd`). It
/// may be another one.
fn logical_folder(environment: &Environment<'_>) -> Option<PathBuf> {
    let name = environment.variable("PWD")?;
    name.path()
        .ok()
        .filter(|name| name.is_absolute())
        .map(Path::to_owned)
}

fn cannot_resolve(path: &Path, error: &io::Error) -> Failure {
    Failure::could_not(format!(
        "cannot resolve `{}`: {}; check the path",
        raw::to_text(path.as_os_str()),
        io_message(error)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)], name: &str) -> Option<OsString> {
        let (_, value) = set.iter().find(|(set, _)| *set == name)?;
        Some(OsString::from(value))
    }

    fn globals(registry: Option<&str>, port_min: Option<&str>, port_max: Option<&str>) -> Globals {
        Globals {
            registry: registry.map(str::to_owned),
            port_min: port_min.map(str::to_owned),
            port_max: port_max.map(str::to_owned),
            project_root: None,
        }
    }

    #[test]
    fn the_range_comes_from_flags_then_variables_then_defaults() {
        #[track_caller]
        fn check(
            flags: (Option<&str>, Option<&str>),
            variables: &[(&str, &str)],
            expected: Result<&str, &str>,
        ) {
            let read = |name: &str| environment(variables, name);
            let range = globals(None, flags.0, flags.1).range(&Environment(&read));
            let range = range.map(|range| range.to_string());
            match (range, expected) {
                (Ok(range), expected) => assert_eq!(Ok(range.as_str()), expected),
                (Err(failure), expected) => {
                    assert_eq!(failure.exit, Exit::BadUsage);
                    let message = failure.to_string();
                    let named = message.split("; ").next().expect("split gives one");
                    assert_eq!(Err(named), expected);
                }
            }
        }
        check((None, None), &[], Ok("8888-9999"));
        check(
            (None, None),
            &[(PORT_MIN, ""), (PORT_MAX, "")],
            Ok("8888-9999"),
        );
        check(
            (None, None),
            &[(PORT_MIN, "1"), (PORT_MAX, "65535")],
            Ok("1-65535"),
        );
        check((Some("9000"), None), &[(PORT_MIN, "abc")], Ok("9000-9999"));
        check((Some("7"), Some("7")), &[(PORT_MAX, "0")], Ok("7-7"));
        check((None, Some("9000")), &[(PORT_MIN, "8999")], Ok("8999-9000"));

        check(
            (None, None),
            &[(PORT_MIN, "abc")],
            Err("`INTERCEPTOR_PORT_MIN=abc` is not a port"),
        );
        check(
            (None, None),
            &[(PORT_MAX, "0")],
            Err("`INTERCEPTOR_PORT_MAX=0` is not a port"),
        );
        check(
            (None, Some("70000")),
            &[],
            Err("`--port-max 70000` is not a port"),
        );
        check(
            (Some("9000"), Some("8999")),
            &[],
            Err("`--port-min 9000` is above `--port-max 8999`"),
        );
        check(
            (None, None),
            &[(PORT_MIN, "10000")],
            Err("`INTERCEPTOR_PORT_MIN=10000` is above the default INTERCEPTOR_PORT_MAX, 9999"),
        );
        check(
            (None, Some("80")),
            &[],
            Err("the default INTERCEPTOR_PORT_MIN, 8888, is above `--port-max 80`"),
        );
    }

    #[test]
    fn the_registry_file_comes_from_the_flag_then_the_variable_then_the_home_folder() {
        #[track_caller]
        fn check(flag: Option<&str>, variable: Option<&str>, expected: &Path) {
            let set: Vec<_> = variable
                .iter()
                .map(|&value| (REGISTRY_PATH, value))
                .collect();
            let read = |name: &str| environment(&set, name);
            let store = globals(flag, None, None).store(&Environment(&read));
            assert_eq!(store.expect("a file").path(), expected);
        }
        check(Some("/a/b.json"), Some("/c.json"), Path::new("/a/b.json"));
        check(None, Some("/c.json"), Path::new("/c.json"));
        check(
            Some("/caf\0e9"),
            None,
            Path::new(&raw::from_text("/caf\0e9")),
        );
        let here = std::env::current_dir().expect("tests run in a folder");
        check(Some("b.json"), None, &here.join("b.json"));
        let home = Store::default_file().expect("a home folder");
        check(None, Some(""), &home);

        let read = |_: &str| None;
        let refused = globals(Some(""), None, None).store(&Environment(&read));
        assert_eq!(
            refused.err().map(|failure| failure.exit),
            Some(Exit::BadUsage)
        );
    }
}
