//! `ic mock`: the settings of the embedded upstream. What it answers is decided in `mock`.

use std::net::SocketAddr;

use argh::{ArgsInfo, FromArgs};

use crate::registry::Port;

use super::address::addresses;
use super::settings::{SourcedValue, mock_interval};
use super::signals;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_text;
use crate::mock;
use crate::text::io_message;

/// run a small upstream that speaks the APIs of agents, for tests and CI
#[derive(FromArgs, ArgsInfo, Debug, Default, PartialEq)]
#[argh(
    subcommand,
    name = "mock",
    help_triggers("-h", "--help"),
    example = "ic mock &\nic serve",
    note = "It speaks OpenAI's chat completions, Responses API, completions and embeddings, Anthropic's\n\
            Messages API and the Gemini API. A reply names the identification that it received and one\n\
            line of the prompt. Where a request offers tools and the prompt says `use the tool NAME`, the\n\
            reply is a call of that tool; a JSON object after NAME gives its arguments.",
    error_code(0, "stopped by SIGINT, SIGTERM or SIGHUP"),
    error_code(3, "it cannot start")
)]
pub struct Mock {
    /// name or address to listen on; default: localhost
    #[argh(option, arg_name = "H")]
    pub host: Option<String>,
    /// port to listen on; default: 8764, the default target of `ic serve`
    #[argh(option, arg_name = "N")]
    pub port: Option<String>,
    /// time between stream events, in milliseconds; default: 20
    #[argh(option, arg_name = "MS")]
    pub interval_ms: Option<String>,
    /// time before a response, in milliseconds; default: 0
    #[argh(option, arg_name = "MS")]
    pub delay_ms: Option<String>,
    /// answer every request with this status, 400 to 599, and the error of its API
    #[argh(option, arg_name = "STATUS")]
    pub fail: Option<String>,
}

/// The options of `ic mock`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MockSettings {
    /// A name or address of this machine.
    pub host: String,
    /// Where to listen.
    pub port: Port,
    /// How it answers.
    pub options: mock::Options,
}

impl Mock {
    /// Reads the values.
    ///
    /// # Errors
    ///
    /// Bad usage, naming the option.
    pub fn resolve(&self) -> Result<MockSettings, Failure> {
        let given = |name, value: &Option<String>, default: &str| match value {
            Some(value) => SourcedValue::flag(name, value),
            None => SourcedValue::default(default),
        };
        Ok(MockSettings {
            host: given("--host", &self.host, "localhost").text()?.to_owned(),
            port: given("--port", &self.port, "8764").port()?,
            options: mock::Options {
                delay: given("--delay-ms", &self.delay_ms, "0").milliseconds()?,
                interval: mock_interval("--interval-ms", self.interval_ms.as_deref())?,
                fail: self.fail.as_deref().map(error_status).transpose()?,
            },
        })
    }

    /// Runs the mock until a signal.
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let settings = self.resolve()?;
        let listen: Vec<SocketAddr> = addresses(&settings.host)?
            .into_iter()
            .map(|ip| SocketAddr::new(ip, settings.port.get()))
            .collect();
        let server = mock::Server::bind(&listen).map_err(|error| {
            Failure::could_not(format!(
                "cannot listen on port {}: {}; give another with --port",
                settings.port,
                io_message(&error)
            ))
        })?;
        let stop = signals::signals()?;
        eprint_text(&format!(
            "Mock:       http://{}:{}/v1\n",
            settings.host, settings.port
        ));
        signals::run_until_signal(stop, "the mock", move || server.run(settings.options))
    }
}

/// The status of an error.
fn error_status(value: &str) -> Result<u16, Failure> {
    let given = SourcedValue::flag("--fail", value);
    let status = given.count(0)?;
    let status = u16::try_from(status).ok();
    let status = status.filter(|status| (400..600).contains(status));
    status.ok_or_else(|| given.refused("is not the status of an error; give one from 400 to 599"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_option_of_the_mock_has_a_default_and_a_range() {
        let settings = Mock::default().resolve().expect("defaults are good");
        assert_eq!(settings.host, "localhost");
        assert_eq!(settings.port.get(), 8764);
        let default = mock::Options {
            interval: Duration::from_millis(20),
            ..mock::Options::default()
        };
        assert_eq!(settings.options, default);

        #[track_caller]
        fn check(mock: Mock, refusal: &str) {
            let refused = mock.resolve().expect_err("a bad value").to_string();
            assert!(refused.starts_with(refusal), "{refused}");
        }
        let bad = |text: &str| Some(text.to_owned());
        check(
            Mock {
                port: bad("0"),
                ..Mock::default()
            },
            "`--port 0` is not a port",
        );
        check(
            Mock {
                host: bad(""),
                ..Mock::default()
            },
            "`--host ` is empty",
        );
        check(
            Mock {
                interval_ms: bad("-1"),
                ..Mock::default()
            },
            "`--interval-ms -1` is not a valid number",
        );
        check(
            Mock {
                interval_ms: bad("3600001"),
                ..Mock::default()
            },
            "`--interval-ms 3600001` is too long",
        );
        check(
            Mock {
                delay_ms: bad("1.5"),
                ..Mock::default()
            },
            "`--delay-ms 1.5` is not a valid number",
        );
        for fail in ["399", "600", "65936", "x"] {
            let mock = Mock {
                fail: bad(fail),
                ..Mock::default()
            };
            check(mock, &format!("`--fail {fail}` is not "));
        }
    }
}
