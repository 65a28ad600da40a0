//! `ic serve`: runs this project's interceptor in the foreground.
//!
//! The options (`arguments`) and variables are read and checked first (`settings`), by topic: where to listen
//! (`listening`, `port`, `socket_activation`), where requests go (`upstream`, `trust`, `proxies`), and its
//! limits (`limits`); how it identifies itself is decided in [`identity`](super::identity). `prepare` makes the options of
//! [`crate::serve`] from them, in one direction. `conflict` explains why it cannot start. With `--all` every project is served
//! (`all`).

mod all;
mod announcement;
mod arguments;
mod conflict;
mod last_used;
mod limits;
mod listening;
mod only_one;
mod port;
mod prepare;
mod proxies;
mod sd_notify;
mod settings;
mod socket_activation;
mod trust;
mod upstream;

pub use self::arguments::Serve;
pub use self::only_one::OnlyOne;
pub(super) use self::prepare::Prepared;
pub(super) use self::proxies::{is_this_machine, matches_no_proxy, proxy as proxy_for};
pub(super) use self::settings::TARGET_URL;
pub(super) use self::trust::trust as trust_of;

use self::sd_notify::Notifier;
use self::socket_activation::Inherited;
use super::context::Context;
use super::outcome::{Exit, Failure};
use super::output::eprint_line;
use super::signals;
use crate::serve::{self, Event, Stop};

impl Serve {
    /// Runs the interceptor until a signal or `--idle-exit` stops it.
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        if self.all {
            return self.run_all(context);
        }
        let inherited = Inherited::take(&self, &context.environment)?;
        let (prepared, options, site) =
            self.prepare(context, inherited, signals::stop_signals())?;
        let announcement = prepared.announcement(&site, context);
        // Until the end: `serve --all` listens on the port again after that.
        let _lease = prepared.take_over(&options);
        let warnings = prepared.port_warnings(context);
        let notifier = Notifier::from_environment(&context.environment);
        let mut on_event = |event: Event<'_>| match event {
            Event::Listening(addresses) => {
                announcement.print(addresses);
                warnings.iter().for_each(eprint_line);
                prepared.record_start();
                notifier.send("READY=1");
            }
            Event::Stopping(stop) => {
                notifier.send("STOPPING=1");
                if let Stop::Idle(limit) = stop {
                    eprint_line(format_args!(
                        "no client for {} s; stopping, as --idle-exit says",
                        limit.as_secs_f32()
                    ));
                }
            }
        };
        match serve::run(options, site, &mut on_event) {
            Ok(()) => {
                prepared.record_stop();
                Ok(Exit::Done)
            }
            Err(error) => Err(prepared.failure(&error)),
        }
    }
}
