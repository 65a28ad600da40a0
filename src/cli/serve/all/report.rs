//! What the user is shown of `ic serve --all`, and what is recorded of it. Runs in a thread of its own: the server must not wait
//! for a terminal, for the list of the system's sockets, or for the lock of the registry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::{iter, mem};

use crate::cli::mapping::commands_for_another_port;
use crate::cli::output::{counted, eprint_line, eprint_text};
use crate::cli::serve::conflict::bind_remedy;
use crate::cli::serve::last_used;
use crate::machine::process::{Holder, Process};
use crate::machine::survey::{Held, Survey, survey};
use crate::registry::{Port, Project, Store};
use crate::serve::{AllEvent, UpstreamOptions};
use crate::text::{Escaped, escaped_path, io_message, name};

/// What happens, in order.
pub enum Report {
    /// A batch, sent after this, serves these projects, and these ports no longer.
    Plan(Vec<Shown>, Vec<Port>),
    /// A port is served.
    Serving(u16),
    /// A port cannot be served for now.
    Held(u16, io::ErrorKind, String),
    /// No descriptors are left for a port.
    NoDescriptors(u16),
    /// A port is served by another process that has asked for it.
    GivenUp(u16),
    /// The batch is applied.
    Applied,
    /// A port had requests.
    Used(u16),
    /// The server has ended.
    End,
}

impl Report {
    /// That of an event; `None` where there is nothing to report.
    pub fn of(event: AllEvent<'_>) -> Option<Report> {
        match event {
            AllEvent::Serving { port, .. } => Some(Report::Serving(port)),
            AllEvent::Held { port, error } => {
                Some(Report::Held(port, error.kind(), io_message(error)))
            }
            AllEvent::NoDescriptors { port } => Some(Report::NoDescriptors(port)),
            AllEvent::GivenUp { port } => Some(Report::GivenUp(port)),
            AllEvent::Applied => Some(Report::Applied),
            AllEvent::Used { port } => Some(Report::Used(port)),
            AllEvent::Stopping => None,
        }
    }
}

/// Where reports are sent.
#[derive(Clone)]
pub struct Reports(pub Sender<Report>);

impl Reports {
    /// Sends one. After the end of its reader it is lost, with the process.
    pub fn send(&self, report: Report) {
        let _ = self.0.send(report);
    }
}

/// A project, as it is shown.
pub struct Shown {
    port: Port,
    project: Project,
    target: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not shown yet.
    Planned,
    Served,
    Waiting,
}

impl Shown {
    /// For the project on `port`.
    pub fn new(port: Port, project: Project, upstream: &UpstreamOptions) -> Shown {
        Shown {
            port,
            project,
            target: match &upstream.proxy {
                Some(proxy) => format!("{} through the proxy {proxy}", upstream.target),
                None => upstream.target.to_string(),
            },
            state: State::Planned,
        }
    }

    /// `8888  shop  → http://localhost:4000`
    fn line(&self, what: &str) -> String {
        let name = name(self.project.path());
        format!("{}  {}  {what}\n", self.port, Escaped(&name))
    }
}

/// Prints and records what is reported.
pub struct Reporter {
    store: Store,
    shown: BTreeMap<u16, Shown>,
    /// The batches that are not applied yet: what they serve, which is in `shown` for the first of them, and what they remove.
    plans: VecDeque<(Vec<Shown>, Vec<Port>)>,
    /// Ports that are held, and not reported yet.
    held: Vec<(u16, io::ErrorKind, String)>,
    without_descriptors: Vec<u16>,
    used: BTreeSet<Project>,
    /// The number of projects that was printed last, and how many of them are not served.
    total: Option<(usize, usize)>,
    /// What is to be printed.
    text: String,
}

impl Reporter {
    /// For the registry in `store`.
    pub fn new(store: &Store) -> Reporter {
        Reporter {
            // Without messages about waiting: the user does not wait for this.
            store: Store::new(store.path().to_owned()),
            shown: BTreeMap::new(),
            plans: VecDeque::new(),
            held: Vec::new(),
            without_descriptors: Vec::new(),
            used: BTreeSet::new(),
            total: None,
            text: String::new(),
        }
    }

    /// Reports until the end. Returns when the last use of the ports is recorded.
    pub fn run(mut self, reports: &Receiver<Report>) {
        let mut recorded = None;
        while let Ok(report) = reports.recv() {
            let is_end = iter::once(report)
                .chain(reports.try_iter())
                .any(|report| self.take(report));
            eprint_text(&mem::take(&mut self.text));
            if self.plans.is_empty() {
                self.report_held();
                self.report_without_descriptors();
            }
            if !self.used.is_empty() {
                recorded = Some(self.record_uses());
            }
            if is_end {
                break;
            }
        }
        // Disconnects when it is written.
        let _ = recorded.map(|recorded| recorded.recv());
    }

    /// Returns whether it is the last one.
    fn take(&mut self, report: Report) -> bool {
        match report {
            Report::Plan(put, removed) => {
                self.plans.push_back((put, removed));
                if self.plans.len() == 1 {
                    self.begin();
                }
            }
            Report::Serving(port) => self.show(port, State::Served, |shown| {
                format!("→ {}", Escaped(&shown.target))
            }),
            Report::GivenUp(port) => self.show(port, State::Waiting, |_| {
                "is served by an `ic serve` of its own".to_owned()
            }),
            Report::Held(port, kind, error) => {
                self.wait(port);
                self.held.push((port, kind, error));
            }
            Report::NoDescriptors(port) => {
                self.wait(port);
                self.without_descriptors.push(port);
            }
            Report::Applied => self.applied(),
            Report::Used(port) => {
                let project = self.shown.get(&port).map(|shown| shown.project.clone());
                self.used.extend(project);
            }
            Report::End => return true,
        }
        false
    }

    /// Takes up the projects of the next batch.
    fn begin(&mut self) {
        let put = self.plans.front_mut().map(|(put, _)| mem::take(put));
        for mut shown in put.unwrap_or_default() {
            let known = self.shown.get(&shown.port.get());
            if known.is_some_and(|known| known.state == State::Waiting) {
                shown.state = State::Waiting;
            }
            self.shown.insert(shown.port.get(), shown);
        }
    }

    fn show(&mut self, port: u16, state: State, what: impl FnOnce(&Shown) -> String) {
        if let Some(shown) = self.shown.get_mut(&port) {
            shown.state = state;
            let what = what(shown);
            self.text.push_str(&shown.line(&what));
        }
    }

    fn wait(&mut self, port: u16) {
        if let Some(shown) = self.shown.get_mut(&port) {
            shown.state = State::Waiting;
        }
    }

    /// Shows the ports that the batch has changed or removed, and how many there are now.
    fn applied(&mut self) {
        let planned = self
            .shown
            .values()
            .filter(|shown| shown.state == State::Planned);
        let planned: Vec<u16> = planned.map(|shown| shown.port.get()).collect();
        for port in planned {
            self.take(Report::Serving(port));
        }
        let removed = self.plans.pop_front().map(|(_, removed)| removed);
        for port in removed.unwrap_or_default() {
            self.show(port.get(), State::Waiting, |_| {
                "is no longer served".to_owned()
            });
            // Its last use has been reported.
            self.shown.remove(&port.get());
        }
        let waiting = self
            .shown
            .values()
            .filter(|shown| shown.state == State::Waiting);
        let total = (self.shown.len(), waiting.count());
        if self.total != Some(total) {
            self.total = Some(total);
            let (all, waiting) = total;
            let note = match (all, waiting) {
                (0, _) => "; `ic allocate` in the folder of a project adds one".to_owned(),
                (_, 0) => String::new(),
                _ => format!(", {} of them served", all - waiting),
            };
            let all = counted(all, "project");
            self.text.push_str(&format!("{all}{note}\n"));
        }
        self.begin();
    }

    /// Prints what holds the ports that are held since the last time.
    fn report_held(&mut self) {
        let held = mem::take(&mut self.held);
        if held.is_empty() {
            return;
        }
        let projects = held
            .iter()
            .filter_map(|(port, ..)| Some((self.shown.get(port)?.project.path(), *port)));
        let survey = survey(projects).unwrap_or_default();
        for (port, kind, error) in held {
            let Some(shown) = self.shown.get(&port) else {
                continue;
            };
            match kind {
                io::ErrorKind::AddrInUse => report_in_use(shown, &survey),
                kind => eprint_line(format_args!(
                    "warning: `{}` is not served: cannot listen on port {port}: {error}; {}",
                    escaped_path(shown.project.path()),
                    match kind {
                        io::ErrorKind::PermissionDenied if port < 1024 => format!(
                            "{} give it a port of 1024 or above",
                            commands_for_another_port(&shown.project)
                        ),
                        kind => bind_remedy(kind, port).to_owned(),
                    },
                )),
            }
        }
    }

    /// Names the projects for which no descriptors are left.
    fn report_without_descriptors(&mut self) {
        let ports = mem::take(&mut self.without_descriptors);
        if ports.is_empty() {
            return;
        }
        let shown = ports.iter().filter_map(|port| self.shown.get(port));
        let lines: String = shown
            .map(|shown| shown.line("is not served: no descriptors are left"))
            .collect();
        eprint_text(&lines);
        eprint_line(format_args!(
            "warning: no descriptors are left for {}, which are served when others go; raise the limit with `ulimit -n`",
            counted(ports.len(), "project"),
        ));
    }

    /// Records the last use of ports that had requests.
    fn record_uses(&mut self) -> Receiver<()> {
        let projects = mem::take(&mut self.used).into_iter().collect();
        last_used::record(&self.store, projects, last_used::STOP_INTERVAL)
    }
}

/// Prints what listens on a project's port.
fn report_in_use(shown: &Shown, survey: &Survey) {
    let port = shown.port.get();
    if survey
        .interceptors
        .iter()
        .any(|running| running.port == port)
        && !survey.held.iter().any(|held| held.port == port)
    {
        eprint_text(&shown.line("is served by an `ic serve` of its own"));
        return;
    }
    let held = survey.held.iter().find(|held| held.port == port);
    let by = held.map_or_else(String::new, |held| format!(" by {}", holder(held)));
    eprint_line(format_args!(
        "warning: `{}` is not served: port {port} is in use{by}; it is served when that ends, or after {}",
        escaped_path(shown.project.path()),
        commands_for_another_port(&shown.project),
    ));
}

fn holder(held: &Held) -> String {
    if let (Some(instance_id), Some(pid)) = (&held.instance_id, held.pid) {
        return format!("the interceptor `{instance_id}` (pid {pid})");
    }
    let process = held.pid.zip(held.program.clone());
    let process = process.map(|(pid, program)| Process { pid, program });
    let holder = Holder {
        process,
        other_user: held.other_user,
    };
    holder.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> Port {
        Port::try_from(number).expect("not 0")
    }

    fn shown(number: u16, path: &str) -> Shown {
        let upstream = UpstreamOptions {
            target: "http://a".parse().expect("a URL"),
            tls: None,
            proxy: None,
        };
        let project = Project::recorded(path.as_ref()).expect("absolute");
        Shown::new(port(number), project, &upstream)
    }

    #[test]
    fn a_batch_may_be_planned_before_the_last_one_is_applied() {
        let mut reporter = Reporter::new(&Store::new("/nowhere/registry.json".into()));
        let mut take = |reports: Vec<Report>| {
            for report in reports {
                reporter.take(report);
            }
            let used = mem::take(&mut reporter.used);
            let used = used.iter().map(|it| it.path().display().to_string());
            (mem::take(&mut reporter.text), used.collect::<Vec<_>>())
        };
        let none = Vec::<String>::new();
        let both = vec![shown(1, "/a"), shown(2, "/b")];
        let both = take(vec![
            Report::Plan(both, Vec::new()),
            Report::Serving(1),
            Report::Serving(2),
            Report::Applied,
        ]);
        let text = "1  a  → http://a\n2  b  → http://a\n2 projects\n";
        assert_eq!(both, (text.to_owned(), none.clone()));
        let plans = take(vec![
            Report::Plan(Vec::new(), vec![port(1)]),
            Report::Plan(vec![shown(1, "/c")], vec![port(2)]),
            Report::Used(1),
        ]);
        assert_eq!(plans, (String::new(), vec!["/a".to_owned()]));
        let first = take(vec![Report::Applied]);
        let text = "1  a  is no longer served\n1 project\n";
        assert_eq!(first, (text.to_owned(), none));
        let second = take(vec![Report::Used(2), Report::Serving(1), Report::Applied]);
        let text = "1  c  → http://a\n2  b  is no longer served\n";
        assert_eq!(second, (text.to_owned(), vec!["/b".to_owned()]));
    }
}
