//! Runs an interceptor, or many in one process: listeners, limits, stopping. Knows bytes and addresses, and nothing of the
//! registry.
//!
//! One thread and one event loop serve everything. A connection is a task, and a task that panics ends alone.

mod admin;
mod all;
mod buffers;
mod clients;
pub(crate) mod conn;
mod deadline;
mod descriptors;
pub mod end_mark;
mod error;
mod event;
mod exchange;
pub mod feed;
mod histogram;
pub(crate) mod listen;
mod metrics;
mod options;
mod peer;
mod process;
pub(crate) mod reactor;
mod relay;
mod service;
mod signals;
#[cfg(test)]
mod simulation;
mod site;
mod target;
mod transfer;
mod tunnel;
pub(crate) mod upstream;
mod warning;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use smol::future;

pub use self::all::{Change, run_all};
use self::clients::accept_all;
pub use self::event::{AllEvent, Event, ServeError, Stop};
use self::feed::Publisher;
pub use self::listen::{Address, Listen, Listener, check_length, connect_at_once};
use self::metrics::Metrics;
pub use self::options::{About, Options, ServedBy, SiteOptions, Timeouts, UpstreamOptions};
pub use self::peer::listens;
use self::process::Process;
use self::reactor::Source;
use self::signals::Signals;
use self::site::Site;
pub use self::target::{BadUrl, Endpoint, Target};
pub use self::upstream::proxy::Proxy;
pub use self::upstream::tls::{Tls, TlsConfigError, Trust};
pub use crate::http::guard::Guard;
pub use crate::http::rewrite::{InvalidField, RequestRewriter};

/// Runs an interceptor until a signal or [`Timeouts::idle_exit`] stops it. Calls `tell` with what happens.
pub fn run<'a>(
    mut options: Options,
    site: SiteOptions,
    tell: &'a mut (dyn FnMut(Event<'_>) + 'a),
) -> Result<(), ServeError> {
    options.connections_max = descriptors::limit_connections(options.connections_max);
    let listeners =
        listen::open(&site.listen).map_err(|(address, error)| ServeError::Bind(address, error))?;
    let addresses: Vec<Address> = listeners
        .iter()
        .filter_map(|listener| listener.address().ok())
        .collect();
    let feed = options.feed.take();
    process::run(&options, async move |process: Process<'a>, signals| {
        let site = open_site(site, &addresses, &process);
        if site.leads_to(&addresses) {
            let target = site.upstream.connector.target().clone();
            return Err(ServeError::TargetIsSelf(target));
        }
        let publisher = Rc::clone(&site) as Rc<dyn Publisher>;
        let feed = process.open_feed(feed.as_deref(), publisher);
        let listeners: io::Result<Vec<_>> = listeners.into_iter().map(Source::listening).collect();
        let listeners = listeners.map_err(ServeError::Reactor)?;
        tell(Event::Listening(&addresses));
        let stop = serve_until_stopped(&site, &listeners, &process, &signals).await?;
        tell(Event::Stopping(stop));
        drop(listeners);
        if let Some(feed) = feed {
            feed.cancel().await;
        }
        process.finish(&signals).await;
        Ok(())
    })
}

/// The site of `options`, without clients.
fn open_site(options: SiteOptions, addresses: &[Address], process: &Process<'_>) -> Rc<Site> {
    let service = Rc::clone(&process.service);
    let (upstream, sweeper) = process.open_upstream(&options.upstream);
    sweeper.detach();
    let port = addresses.iter().find_map(Address::port);
    let (metrics, hub) = (Rc::new(Metrics::new()), Rc::clone(&process.hub));
    Rc::new(Site::new(options, port, service, upstream, metrics, hub))
}

/// Serves clients until a signal, a lack of clients or an error ends it.
async fn serve_until_stopped(
    site: &Rc<Site>,
    listeners: &[Source<Listener>],
    process: &Process<'_>,
    signals: &Signals,
) -> Result<Stop, ServeError> {
    let current = || Rc::clone(site);
    let acceptors = listeners.iter();
    let mut acceptors: Vec<_> = acceptors
        .map(|listener| Box::pin(accept_all(listener, &current, &process.clients)))
        .collect();
    // The failure of one listener ends the program: half an interceptor is worse than one that is restarted.
    let broken = poll_fn(|context| {
        let mut ends = acceptors
            .iter_mut()
            .map(|acceptor| acceptor.as_mut().poll(context));
        ends.find(Poll::is_ready).unwrap_or(Poll::Pending)
    });
    let signal = async {
        let signal = signals.next().await;
        signal.map(|()| Stop::Signal).map_err(ServeError::Signals)
    };
    let idle_exit = process.service.timeouts.idle_exit;
    let idle = async {
        let Some(limit) = idle_exit.filter(|limit| !limit.is_zero()) else {
            return future::pending().await;
        };
        process.service.idle(limit).await;
        Ok(Stop::Idle(limit))
    };
    let broken = async { Err(ServeError::Accept(broken.await)) };
    future::or(future::or(signal, idle), broken).await
}
