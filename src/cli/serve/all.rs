//! `ic serve --all`: serves every project of the registry in one process, each on its own port under its own identity.
//!
//! The options and variables are the defaults of all projects (`defaults`). A thread follows the registry (`follow`, `watch`) and
//! makes the options of each port (`sites`); another one reports what happens (`report`). The event loop, in the main thread,
//! waits for neither.

mod defaults;
mod follow;
mod report;
mod sites;
mod watch;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use smol::channel;

use self::defaults::Defaults;
use self::follow::Follower;
use self::report::{Report, Reporter, Reports};
use self::sites::Sites;
use self::watch::Watch;
use super::announcement::beyond_loopback;
use super::arguments::Serve;
use super::last_used::STOP_TIMEOUT;
use super::only_one::OnlyOne;
use super::sd_notify::Notifier;
use super::socket_activation::Inherited;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_text;
use crate::cli::settings::Environment;
use crate::cli::signals::stop_signals;
use crate::serve::{self, AllEvent, Options};
use crate::text::io_message;

impl Serve {
    /// Checks the options and variables of `ic serve --all`; returns how long requests in flight may continue at its end.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable.
    pub fn check_all(&self, environment: &Environment<'_>) -> Result<Duration, Failure> {
        Defaults::of(self, environment).map(|defaults| defaults.timeouts.grace)
    }

    /// Serves all projects until a signal stops it.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option or variable; "could not": it runs already, or the registry cannot be read.
    pub fn run_all(&self, context: &Context<'_>) -> Result<Exit, Failure> {
        let environment = &context.environment;
        let defaults = Defaults::of(self, environment)?;
        if Inherited::take(self, environment)?.is_some() {
            return Err(Failure::usage(
                "the sockets of LISTEN_FDS are for one project, and `--all` serves each one on its own port; leave one of \
                 them out",
            ));
        }
        let store = context.registry_handle()?.store;
        let _only_one = OnlyOne::acquire(&store)?;
        // Changes from here on are noticed.
        let watch = Watch::new(store.path());
        let loaded = store.read()?;
        let options = Options {
            timeouts: defaults.timeouts,
            connections_max: defaults.connections_max,
            feed: context.feed_folder(),
            stop_signals: stop_signals(),
        };
        let accepts_all_hosts = defaults.guard.serves_all_hosts();
        let sites = Sites::new(defaults, environment)?;
        eprint_text(&beyond_loopback(
            &sites.addresses(0).concat(),
            accepts_all_hosts,
        ));

        let (reports, received) = mpsc::channel();
        let reports = Reports(reports);
        let reporter = Reporter::new(&store);
        let (end, ended) = mpsc::channel();
        spawn("reports", move || {
            reporter.run(&received);
            drop(end);
        })?;
        let (batches, changes) = channel::unbounded();
        let follower = Follower::new(&store, sites, batches, reports.clone());
        spawn("registry", move || follower.run(watch, loaded))?;
        let served = run(
            options,
            changes,
            &reports,
            &Notifier::from_environment(environment),
        );
        reports.send(Report::End);
        // After the timeout the process ends during the write, as if killed; the file stays valid.
        let _: Result<(), _> = ended.recv_timeout(STOP_TIMEOUT);
        served.map(|()| Exit::Done)
    }
}

fn run(
    options: Options,
    changes: channel::Receiver<Vec<serve::Change>>,
    reports: &Reports,
    notifier: &Notifier,
) -> Result<(), Failure> {
    let mut is_ready = false;
    let mut tell = |event: AllEvent<'_>| {
        match event {
            AllEvent::Applied if !is_ready => {
                is_ready = true;
                notifier.send("READY=1");
            }
            AllEvent::Stopping => notifier.send("STOPPING=1"),
            _ => {}
        }
        if let Some(report) = Report::of(event) {
            reports.send(report);
        }
    };
    serve::run_all(options, changes, &mut tell)
        .map_err(|error| Failure::could_not(error.to_string()))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| {
        Failure::could_not(format!("cannot start a thread: {}", io_message(&error)))
    })
}
