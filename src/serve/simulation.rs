//! The driver in a simulated network: the same code as in production, with peers, a network and a clock that obey a seed.
//!
//! A run is a number. It makes a [`Case`]: what clients send and when they leave, what the origin answers and where it fails, how the
//! network behaves, when the program is asked to stop. What the peers saw is judged by rules that know nothing of the code under
//! test ([`judge`]). A number that fails is printed with the smallest case that still does, and fails again in each run.

pub mod network;
mod peers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smol::future;

use self::network::{Conditions, Network, Reach, Rng};
use self::peers::{
    AnswerPlan, End, Fault, Framing, IDENTITY, Journal, OF_ANSWER, OF_REQUEST, RequestPlan, Seen,
    Trouble,
};
use super::clients::accept_all;
use super::listen::{Listen, Listener};
use super::metrics::Metrics;
use super::options::{About, Options, SiteOptions, Timeouts, UpstreamOptions};
use super::process::{self, Process};
use super::reactor::Source;
use super::target::Target;
use crate::http::guard::Guard;
use crate::http::rewrite::RequestRewriter;

/// Everything that happens in a run, but for what follows from `seed` within the network.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    trouble: Trouble,
    clients: Vec<Vec<RequestPlan>>,
    conditions: Conditions,
    /// The origin is known by a name with several addresses, of which these do not answer.
    unreached: Vec<(SocketAddr, Reach)>,
    hold: Duration,
    /// The program is asked to stop after this time.
    stops_after: Option<Duration>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let rng = Rng::new(seed);
        let trouble = rng.one_of(&[
            Trouble::None,
            Trouble::StaleConnections,
            Trouble::Any,
            Trouble::Any,
        ]);
        let troubled = trouble == Trouble::Any;
        let mut id = 0;
        let mut client = |_| {
            let count = 1 + rng.below(4);
            let mut request = |nth| {
                id += 1;
                peers::plan_request(&rng, id, trouble, nth == count && rng.once_in(2))
            };
            (1..=count).map(&mut request).collect()
        };
        let clients = (0..1 + rng.below(3)).map(&mut client).collect();
        let unreached = match rng.below(4) {
            0 => vec![(origins()[0], rng.one_of(&[Reach::Refused, Reach::Silent]))],
            1 if troubled && rng.once_in(4) => {
                let reach = [Reach::Refused, Reach::Silent, Reach::Unreachable];
                origins().map(|at| (at, rng.one_of(&reach))).to_vec()
            }
            _ => Vec::new(),
        };
        Case {
            seed,
            trouble,
            clients,
            conditions: Conditions {
                latency: rng.one_of(&[
                    Duration::ZERO,
                    Duration::from_micros(300),
                    Duration::from_millis(40),
                ]),
                window: rng.one_of(&[1, 100, 4096, 65_536, 1 << 20]),
                lacks_descriptors: if troubled {
                    rng.one_of(&[0, 0, 0, 20])
                } else {
                    0
                },
                is_level_triggered: rng.once_in(4),
                reset_discards: rng.once_in(2),
            },
            unreached,
            hold: rng.one_of(&[Duration::ZERO, Duration::from_secs(2)]),
            stops_after: (troubled && rng.once_in(8)).then(|| rng.time(Duration::from_secs(2))),
        }
        .bounded()
    }

    /// The same, without large bodies where a window is small: each byte would be an event.
    fn bounded(mut self) -> Case {
        let most = self.conditions.window * 100;
        if self.trouble == Trouble::StaleConnections {
            // A request is sent again only if all of it was written at once.
            self.conditions.window = self.conditions.window.max(4096);
        }
        for plan in self.clients.iter_mut().flatten() {
            plan.body_len = plan.body_len.min(most);
            for answer in &mut plan.answers {
                answer.body_len = answer.body_len.min(most);
            }
        }
        self
    }

    fn requests(&self) -> impl Iterator<Item = &RequestPlan> {
        self.clients.iter().flatten()
    }

    /// Runs it, and returns what is wrong.
    fn run(&self) -> Result<(), String> {
        let network = Network::new(Rng::new(self.seed), self.conditions.clone());
        let entered = network.enter();
        let journal = Rc::new(RefCell::new(Journal::default()));
        self.start_peers(&network, &journal);
        let metrics = Rc::new(RefCell::new(None));
        let ended = self.serve(&network, &journal, &metrics);
        drop(entered);
        ended?;
        if network.sockets() > 0 {
            return Err(format!("{} sockets are left", network.sockets()));
        }
        let metrics = metrics.take().ok_or("there is no site")?;
        judge(self, &journal.borrow(), &metrics)
    }

    fn start_peers(&self, network: &Rc<Network>, journal: &Rc<RefCell<Journal>>) {
        let answers = self.requests().map(|plan| (plan.id, plan.answers.clone()));
        let answers: Rc<BTreeMap<u32, Vec<AnswerPlan>>> = Rc::new(answers.collect());
        network.set_host("origin.test", origins().to_vec());
        for (address, reach) in &self.unreached {
            network.set_reach(*address, *reach);
        }
        for address in origins() {
            let listener = network.listen(address);
            let (network, answers) = (Rc::clone(network), Rc::clone(&answers));
            let served = Rc::clone(&network);
            let origin = peers::origin(served, listener, answers, Rc::clone(journal));
            network.spawn(origin);
        }
        journal.borrow_mut().clients = self.clients.len();
        for plans in self.clients.clone() {
            let client = peers::client(Rc::clone(network), PORT.into(), plans, Rc::clone(journal));
            network.spawn(client);
        }
    }

    /// Runs the program until all clients are done or it is asked to stop.
    fn serve(
        &self,
        network: &Rc<Network>,
        journal: &Rc<RefCell<Journal>>,
        metrics: &Rc<RefCell<Option<Rc<Metrics>>>>,
    ) -> Result<(), String> {
        let options = Options {
            timeouts: Timeouts {
                head: Some(Duration::from_secs(10)),
                idle: Some(Duration::from_secs(20)),
                connect: Some(Duration::from_secs(5)),
                first_byte: Some(Duration::from_secs(30)),
                body: Some(Duration::from_secs(15)),
                hold: self.hold,
                grace: Duration::from_secs(5),
                idle_exit: None,
            },
            connections_max: 100,
            feed: None,
            stop_signals: &[],
        };
        let listener = Source::<Listener>::Simulated(network.listen(PORT.into()));
        let ended = process::run(&options, async move |process: Process<'_>, signals| {
            let site = super::open_site(site_options(), &[], &process);
            metrics.replace(Some(Rc::clone(&site.metrics)));
            let current = || Rc::clone(&site);
            let accepting = async {
                let error = accept_all(&listener, &current, &process.clients).await;
                panic!("the listener failed: {error}");
            };
            let done = async {
                poll_fn(|context| {
                    let mut journal = journal.borrow_mut();
                    journal.waiter = Some(context.waker().clone());
                    match journal.clients {
                        0 => Poll::Ready(()),
                        _ => Poll::Pending,
                    }
                })
                .await;
            };
            let stop = async {
                match self.stops_after {
                    Some(after) => network.sleep(after).await,
                    None => future::pending().await,
                }
            };
            future::or(future::or(done, stop), accepting).await;
            drop(listener);
            process.finish(&signals).await;
            Ok(())
        });
        ended.map_err(|error| error.to_string())
    }
}

/// Where the program listens.
const PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 8888);

/// Where the origin listens.
fn origins() -> [SocketAddr; 2] {
    [([10, 0, 0, 1], 4000).into(), ([10, 0, 0, 2], 4000).into()]
}

fn site_options() -> SiteOptions {
    let target: Target = "http://origin.test:4000".parse().expect("a URL");
    let fields = [(IDENTITY.0.to_owned(), IDENTITY.1.to_owned())];
    let rewriter = RequestRewriter::new(target.host_field(), target.base_path(), &fields);
    SiteOptions {
        listen: Listen::On(Vec::new()),
        upstream: Arc::new(UpstreamOptions {
            target,
            tls: None,
            proxy: None,
        }),
        rewriter: rewriter.expect("a good field"),
        guard: Guard::default(),
        about: About::default(),
    }
}

/// What must hold, whatever happens.
fn judge(case: &Case, journal: &Journal, metrics: &Metrics) -> Result<(), String> {
    for plan in case.requests() {
        judge_request(plan, journal)?;
        judge_answer(case, plan, journal)
            .map_err(|wrong| format!("request {}: {wrong}", plan.id))?;
    }
    for (id, seen) in &journal.seen {
        // Two latencies, the turns between them, and the pause between two looks at a client that sends ahead.
        let most = case.conditions.latency * 2 + Duration::from_millis(150);
        let ended_late = |seen: &Seen| Some(seen.ended_at? > *journal.left_at.get(id)? + most);
        if seen.iter().any(|seen| ended_late(seen) == Some(true)) {
            return Err(format!(
                "request {id}: the client left, but the connection to the origin ended late"
            ));
        }
    }
    let (begun, answered) = (
        journal.answers.len(),
        journal.answers.values().flatten().count(),
    );
    let counted = metrics.classes().iter().sum::<u64>() as usize;
    if metrics.in_flight() != 0 || counted > begun || counted < answered {
        return Err(format!(
            "of {begun} requests {answered} were answered, but {counted} are counted and {} are in flight",
            metrics.in_flight()
        ));
    }
    Ok(())
}

/// What the origin saw.
fn judge_request(plan: &RequestPlan, journal: &Journal) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("request {}: {what}", plan.id));
    let Some(seen) = journal.seen.get(&plan.id) else {
        return Ok(());
    };
    let most = if plan.method == "POST" { 1 } else { 2 };
    if seen.len() > most {
        return wrong("it was sent too often");
    }
    let body = peers::body(plan.id, OF_REQUEST, plan.body_len);
    for seen in seen {
        if !seen.has_identity {
            return wrong("it has no identity");
        }
        if !body.starts_with(&seen.body) {
            return wrong("the origin received another body");
        }
        if seen.is_whole && seen.body.len() < body.len() {
            return wrong("a part of the body looks whole to the origin");
        }
    }
    Ok(())
}

/// What the client saw.
fn judge_answer(case: &Case, plan: &RequestPlan, journal: &Journal) -> Result<(), &'static str> {
    let must_be_answered = case.trouble != Trouble::Any;
    let Some(begun) = journal.answers.get(&plan.id) else {
        // The connection ended after an earlier answer, as that one said.
        return Ok(());
    };
    let Some(answer) = begun else {
        return match must_be_answered {
            true => Err("it was not answered"),
            false => Ok(()),
        };
    };
    if answer.id.is_none() {
        return match answer.status {
            _ if must_be_answered => Err("the program answered it itself"),
            400..600 if answer.end != End::Whole || plan.method == "HEAD" => Ok(()),
            400..600 if String::from_utf8_lossy(&answer.body).contains("\"error\"") => Ok(()),
            _ => Err("an answer that is neither the origin's nor an error"),
        };
    }
    if answer.id != Some(plan.id) {
        return Err("it got the answer to another request");
    }
    let seen = journal.seen.get(&plan.id).map_or(0, Vec::len);
    let origin = plan.answers.iter().take(seen).rev();
    let origin = origin.filter(|origin| origin.status == answer.status);
    let mut verdict = Err("it got an answer that the origin did not send");
    for origin in origin {
        let is_without_body = plan.method == "HEAD" || matches!(origin.status, 204 | 304);
        let len = if is_without_body { 0 } else { origin.body_len };
        let body = peers::body(plan.id, OF_ANSWER, len);
        // This is how the origin said that it was the end.
        let may_be_short =
            origin.framing == Framing::UntilClose && matches!(origin.fault, Some(Fault::Closes(_)));
        verdict = match answer.end {
            _ if !body.starts_with(&answer.body) => Err("it got another body"),
            End::Whole if answer.body.len() < body.len() && !may_be_short => {
                Err("a part of the answer looks whole")
            }
            End::Cut if must_be_answered => Err("its answer was cut"),
            _ => return Ok(()),
        };
    }
    verdict
}

/// Simpler cases than `case`.
fn simpler(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut try_with = |change: &dyn Fn(&mut Case)| {
        let mut changed = case.clone();
        change(&mut changed);
        cases.push(changed);
    };
    for client in 0..case.clients.len() {
        if case.clients.len() > 1 {
            try_with(&|case| drop(case.clients.remove(client)));
        }
        for request in 0..case.clients[client].len() {
            if case.clients[client].len() > 1 {
                try_with(&|case| drop(case.clients[client].remove(request)));
            }
            try_with(&|case| case.clients[client][request].leaves_after_sent = None);
            try_with(&|case| case.clients[client][request].leaves_after_received = None);
            try_with(&|case| case.clients[client][request].body_len /= 2);
            try_with(&|case| case.clients[client][request].pause = Duration::ZERO);
            try_with(&|case| case.clients[client][request].half_closes = false);
            try_with(&|case| case.clients[client][request].continues_after = None);
            for answer in 0..case.clients[client][request].answers.len() {
                if answer > 0 {
                    try_with(&|case| case.clients[client][request].answers.truncate(answer));
                }
                try_with(&|case| case.clients[client][request].answers[answer].fault = None);
                try_with(&|case| case.clients[client][request].answers[answer].interims = 0);
                try_with(&|case| case.clients[client][request].answers[answer].body_len /= 2);
                try_with(&|case| {
                    case.clients[client][request].answers[answer].pause = Duration::ZERO
                });
                try_with(&|case| {
                    case.clients[client][request].answers[answer].closes_idle_after = None;
                });
            }
        }
    }
    try_with(&|case| case.unreached.clear());
    try_with(&|case| case.stops_after = None);
    try_with(&|case| case.hold = Duration::ZERO);
    try_with(&|case| case.conditions.lacks_descriptors = 0);
    try_with(&|case| case.conditions.is_level_triggered = false);
    try_with(&|case| case.conditions.window = 1 << 20);
    try_with(&|case| case.conditions.latency = Duration::ZERO);
    cases
}

/// The smallest case that fails as `case` does, and how.
fn shrink(mut case: Case, mut wrong: String) -> (Case, String) {
    let size = |case: &Case| format!("{case:?}").len();
    for _ in 0..SHRINKS_MAX {
        let smaller = simpler(&case)
            .into_iter()
            .filter(|other| size(other) < size(&case));
        let failing = smaller
            .filter_map(|other| Some((other.run().err()?, other)))
            .next();
        let Some((other_wrong, other)) = failing else {
            break;
        };
        (case, wrong) = (other, other_wrong);
    }
    (case, wrong)
}

const SHRINKS_MAX: usize = 200;

/// Runs the cases of `seeds`.
fn run_all(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let case = Case::new(seed);
        if let Err(wrong) = case.run() {
            let (case, wrong_of_smallest) = shrink(case, wrong.clone());
            panic!(
                "run {seed}: {wrong}\nthe smallest case that fails: {wrong_of_smallest}\n{case:#?}"
            );
        }
    }
}

#[test]
fn runs_of_the_driver_in_a_simulated_network() {
    let runs = std::env::var("IC_SIMULATED_RUNS");
    let runs = runs.map_or(3_000, |runs| runs.parse().expect("a number"));
    run_all(0..runs);
}
