//! Follows the registry: sends what has changed in it to the server. Runs in a thread of its own, because a read may wait for
//! other programs.
//!
//! Decided here: which projects are served. A port is given up only where a registry that can be read says so, or where the
//! project's folder was deleted: a registry that is missing, empty, damaged or locked takes nothing away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use smol::channel::Sender;

use super::report::{Report, Reports, Shown};
use super::sites::{Site, Sites};
use super::watch::Watch;
use crate::cli::identity::namesakes;
use crate::cli::kept::usable;
use crate::cli::output::eprint_line;
use crate::cli::settings::Environment;
use crate::registry::project::is_deleted;
use crate::registry::{BadSettings, Loaded, Port, Project, Registry, Settings, Store, StoreError};
use crate::serve::Change;
use crate::text::escaped_path;

/// What is served of a registry.
pub struct Follower {
    store: Store,
    sites: Sites,
    batches: Sender<Vec<Change>>,
    reports: Reports,
    ports: BTreeMap<Port, Known>,
    /// The warnings that still hold, so that each is printed once.
    warned: HashSet<String>,
}

/// What the server was last sent for a port.
struct Known {
    path: PathBuf,
    /// `None`: nothing is kept, as for most projects.
    kept: Option<Box<Result<Settings, BadSettings>>>,
    /// `None`: the project cannot be served.
    instance_id: Option<String>,
    warnings: Vec<String>,
}

/// What one look at the registry leads to.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    put: Vec<Shown>,
    removed: Vec<Port>,
    warnings: Vec<String>,
}

impl Follower {
    /// Serves nothing yet.
    pub fn new(
        store: &Store,
        sites: Sites,
        batches: Sender<Vec<Change>>,
        reports: Reports,
    ) -> Follower {
        Follower {
            // Without messages about waiting: the user does not wait for this.
            store: Store::new(store.path().to_owned()),
            sites,
            batches,
            reports,
            ports: BTreeMap::new(),
            warned: HashSet::new(),
        }
    }

    /// Sends what `first` says, then what changes since `watch` was made, until the server has ended.
    pub fn run(mut self, mut watch: Watch, first: Loaded) {
        let mut loaded = Ok(first);
        loop {
            let retry = loaded.is_err().then_some(RETRY);
            let round = self.round(loaded);
            self.reports.send(Report::Plan(round.put, round.removed));
            if self.batches.send_blocking(round.changes).is_err() {
                return;
            }
            self.sites.forget_unused();
            watch.wait(retry);
            thread::sleep(SETTLE);
            watch = Watch::new(self.store.path());
            loaded = self.store.read();
        }
    }

    fn round(&mut self, loaded: Result<Loaded, StoreError>) -> Round {
        let mut round = Round::default();
        let is_read = loaded.is_ok();
        match loaded {
            Ok(Loaded { registry, warning }) => {
                let is_whole = warning.is_none() && registry != Registry::default();
                let damage = warning.map(|damage| format!("warning: {damage}"));
                round.warnings.extend(damage);
                self.update(&registry, is_whole, &mut round);
            }
            Err(error) => round
                .warnings
                .push(format!("warning: {error}; what was served before still is")),
        }
        let is_new = |warning: &&String| !self.warned.contains(*warning);
        round.warnings.iter().filter(is_new).for_each(eprint_line);
        if is_read {
            self.warned.clear();
        }
        self.warned.extend(round.warnings.drain(..));
        round
    }

    /// Makes the ports those of the registry. One that is not whole only adds ports: it may have lost others, and settings.
    fn update(&mut self, registry: &Registry, is_whole: bool, round: &mut Round) {
        let notes = registry.notes();
        let mut kept: HashMap<&Path, _> = notes.settings_of_all().collect();
        let (deleted, wanted): (Vec<_>, Vec<_>) =
            registry.mappings().partition(|(path, _)| is_deleted(path));
        round.warnings.extend(not_served(&deleted));
        let by_port: HashMap<Port, &Path> =
            wanted.iter().map(|(path, port)| (*port, *path)).collect();
        let by_path: HashSet<&Path> = registry.mappings().map(|(path, _)| path).collect();
        self.ports.retain(|port, known| {
            let is_moved = || by_path.contains(&*known.path);
            let stays = by_port.contains_key(port) || !is_whole && !is_moved();
            if !stays {
                round.remove(*port, known);
            }
            stays
        });
        for (path, port) in wanted {
            let kept = kept.remove(path).map(Box::new);
            let is_same = |known: &&Known| {
                let is_served = known.instance_id.is_some();
                known.path == path && is_served && (known.kept == kept || !is_whole)
            };
            match self.ports.get(&port).filter(is_same) {
                Some(known) => round.warnings.extend_from_slice(&known.warnings),
                None => self.put(path, port, kept, round),
            }
        }
        round.warnings.extend(self.namesakes());
    }

    fn put(
        &mut self,
        path: &Path,
        port: Port,
        kept: Option<Box<Result<Settings, BadSettings>>>,
        round: &mut Round,
    ) {
        let Some(project) = Project::recorded(path) else {
            return;
        };
        let environment = Environment(&|name| std::env::var_os(name));
        let mut warnings = Vec::new();
        let settings = kept
            .as_deref()
            .cloned()
            .unwrap_or_else(|| Ok(Settings::default()));
        let settings = usable(settings, &project).unwrap_or_else(|warning| {
            warnings.push(warning);
            Settings::default()
        });
        let site = self.sites.site(&project, port, &settings, &environment);
        let instance_id = match site {
            Ok(Site {
                options,
                warnings: more,
            }) => {
                warnings.extend(more);
                let instance_id = options.about.instance_id.clone();
                round.put.push(Shown::new(port, project, &options.upstream));
                round.changes.push(Change::Put(options));
                Some(instance_id)
            }
            Err(why) => {
                warnings.push(format!(
                    "warning: `{}` is not served on port {port}: {why}",
                    escaped_path(path)
                ));
                if let Some(known) = self.ports.get(&port) {
                    round.remove(port, known);
                }
                None
            }
        };
        round.warnings.extend_from_slice(&warnings);
        let known = Known {
            path: path.to_owned(),
            kept,
            instance_id,
            warnings,
        };
        self.ports.insert(port, known);
    }

    /// Warnings of projects that the target cannot tell apart.
    fn namesakes(&self) -> Vec<String> {
        let mut by_id: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
        for known in self.ports.values() {
            if let Some(id) = &known.instance_id {
                by_id.entry(id).or_default().push(&known.path);
            }
        }
        let warnings = by_id.iter().filter_map(|(id, paths)| match &paths[..] {
            [one, other, ..] => Some(format!("warning: {}", namesakes(other, one, id))),
            _ => None,
        });
        warnings.collect()
    }
}

impl Round {
    fn remove(&mut self, port: Port, known: &Known) {
        if known.instance_id.is_some() {
            self.changes.push(Change::Remove(port.get()));
            self.removed.push(port);
        }
    }
}

/// A line about the mappings of deleted projects.
fn not_served(deleted: &[(&Path, Port)]) -> Option<String> {
    let ((first, _), others) = deleted.split_first()?;
    let first = escaped_path(first);
    Some(match others.len() {
        0 => format!(
            "`{first}` is not served: its folder is deleted; `ic prune` removes its mapping"
        ),
        others => format!(
            "`{first}` and {others} more are not served: their folders are deleted; `ic prune` removes their mappings"
        ),
    })
}

/// A writer makes several changes of the file in a row.
const SETTLE: Duration = Duration::from_millis(5);

/// How often a registry that could not be read is read again.
const RETRY: Duration = Duration::from_secs(2);
