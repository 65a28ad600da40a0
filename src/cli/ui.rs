//! `ic ui`: its options. What it does is decided in `page`, unless this build has no page.

#[cfg(feature = "ui")]
mod commands;
#[cfg(feature = "ui")]
mod open;
#[cfg(feature = "ui")]
mod page;

use argh::{ArgsInfo, FromArgs};

use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};

/// show projects, ports and live requests in a browser
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "ui",
    help_triggers("-h", "--help"),
    example = "ic ui\n\
               ic ui --port 8080 --no-open",
    note = "The page is served on this machine only and requires the printed URL, which contains a\n\
            secret created at each start. It runs until Ctrl-C.",
    error_code(0, "stopped by SIGINT, SIGTERM or SIGHUP"),
    error_code(3, "it cannot listen on the port, or the prices cannot be read")
)]
pub struct Ui {
    /// port to listen on; 0: any free port; default: 8887, or any free port if it is in use
    #[argh(option, arg_name = "N")]
    pub port: Option<String>,
    /// do not open a browser; only print the URL
    #[argh(switch)]
    pub no_open: bool,
    /// prices of models, as in LiteLLM's model_prices_and_context_window.json; shows what requests cost
    #[argh(option, arg_name = "FILE")]
    pub prices: Option<String>,
}

impl Ui {
    #[cfg(feature = "ui")]
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        page::run(
            self.port.as_deref(),
            self.no_open,
            self.prices.as_deref(),
            context,
        )
    }

    #[cfg(not(feature = "ui"))]
    pub(super) fn run(&self, _: &mut Context<'_>) -> Result<Exit, Failure> {
        Err(Failure::usage(
            "this build of `ic` has no `ui`; build it with the feature `ui`",
        ))
    }
}
