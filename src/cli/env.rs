//! `ic env`: prints the variables that point clients at a project's interceptor. `ic run` sets the same variables.
//!
//! Decided here: which variables, and what is added to `NO_PROXY`. The syntax of each shell is in `shell`.

pub(super) mod shell;

use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

use self::shell::Shell;
use super::address::{BaseUrls, urls_for_clients};
use super::settings::{Environment, SourcedValue};
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};

/// print environment variables that point clients at a project's interceptor
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "env",
    help_triggers("-h", "--help"),
    example = "eval \"$(ic env)\"                                        in sh, bash and zsh\n\
               ic env --shell fish | source\n\
               ic env --shell powershell | Out-String | Invoke-Expression\n\
               ic env --shell dotenv >.env.ic                           for `docker run --env-file` and others",
    note = "The variables, and programs that read them:\n\
            \x20 OPENAI_BASE_URL         OpenAI's libraries, opencode, Qwen Code (with /v1)\n\
            \x20 OPENAI_API_BASE         aider, LiteLLM's library (with /v1)\n\
            \x20 ANTHROPIC_BASE_URL      Anthropic's libraries, Claude Code\n\
            \x20 GOOGLE_GEMINI_BASE_URL  Google's libraries, Gemini CLI\n\
            \x20 NO_PROXY, no_proxy      all of them; entries are kept, and those of this machine added\n\
            A target with another version in its base path, such as /v4, is used without /v1.\n\
            Programs that need more have an `ic snippet`, and `ic run` sets it where it can.\n\
            Without a port nothing is set: `vars=$(ic env) && eval \"$vars\" || exit` stops a script there.\n\
            Without PATH, INTERCEPTOR_PORT is used as the port if it is set.",
    error_code(1, "the project has no port; nothing is printed")
)]
pub struct Env {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// syntax to print: sh, fish, powershell or dotenv; default: sh
    #[argh(option, arg_name = "SHELL")]
    pub shell: Option<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Env {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let shell = match &self.shell {
            Some(_) if self.json => {
                return Err(Failure::usage(
                    "`--json` and `--shell` exclude each other; give one of them",
                ));
            }
            Some(name) => shell(&SourcedValue::flag("--shell", name))?,
            None => Shell::Sh,
        };
        let urls = urls_for_clients(context, self.path.as_deref()).map_err(|failure| {
            // `eval "$(ic env)"` goes on with the variables of another project, or with none.
            match failure.exit {
                Exit::No => Failure::no(format!("the variables are not set: {failure}")),
                _ => failure,
            }
        })?;
        let variables = variables(&urls, &context.environment);
        if self.json {
            let document: serde_json::Map<String, Value> = variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            context.out.json(&document)?;
        } else {
            context.out.text(lines(shell, &variables))?;
        }
        Ok(Exit::Done)
    }
}

/// The variables in the syntax of a shell.
pub(super) fn lines(shell: Shell, variables: &[(&'static str, String)]) -> String {
    let lines = variables.iter();
    lines
        .map(|(name, value)| shell.assignment(name, value) + "\n")
        .collect()
}

fn shell(given: &SourcedValue) -> Result<Shell, Failure> {
    let shells = [
        ("sh", Shell::Sh),
        ("fish", Shell::Fish),
        ("powershell", Shell::Power),
        ("dotenv", Shell::Dotenv),
    ];
    let name = given.text()?;
    shells
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, shell)| shell)
        .ok_or_else(|| {
            given.refused(
                "is not a shell that ic knows; give sh (also for bash and zsh), fish, powershell or dotenv",
            )
        })
}

/// The variables for clients of the interceptor at these URLs.
pub(super) fn variables(
    urls: &BaseUrls,
    environment: &Environment<'_>,
) -> [(&'static str, String); 6] {
    let authority = &*urls.authority;
    let host = authority.rsplit_once(':').map_or(authority, |it| it.0);
    // Programs differ in which of the two they prefer, so each is completed separately.
    let [upper, lower] = ["NO_PROXY", "no_proxy"].map(|name| environment.variable(name));
    let upper_now = upper.as_ref().or(lower.as_ref());
    let lower_now = lower.as_ref().or(upper.as_ref());
    [
        ("OPENAI_BASE_URL", urls.openai()),
        // aider and LiteLLM's library.
        ("OPENAI_API_BASE", urls.openai()),
        ("ANTHROPIC_BASE_URL", urls.bare()),
        ("GOOGLE_GEMINI_BASE_URL", urls.bare()),
        ("NO_PROXY", with_this_machine(upper_now, host)),
        ("no_proxy", with_this_machine(lower_now, host)),
    ]
}

/// The value of `NO_PROXY` with this machine and `host` added, in the form that all clients read: separated by commas alone, with
/// addresses of IPv6 without brackets (curl ignores those in brackets, httpx 0.28 fails at them, and httpx reads a space as a part
/// of a name). Entries that cannot be a host are left out, so that no control character reaches a shell.
fn with_this_machine(given: Option<&SourcedValue>, host: &str) -> String {
    let list = given.and_then(|given| given.path().ok()?.to_str());
    let mut hosts: Vec<&str> = list
        .unwrap_or_default()
        .split(|character: char| character == ',' || character.is_whitespace())
        .map(without_brackets)
        .filter(|host| !host.is_empty() && !host.contains(char::is_control))
        .collect();
    if !hosts.contains(&"*") {
        for own in THIS_MACHINE.into_iter().chain([without_brackets(host)]) {
            if !hosts.iter().any(|host| host.eq_ignore_ascii_case(own)) {
                hosts.push(own);
            }
        }
    }
    hosts.join(",")
}

fn without_brackets(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    inner.unwrap_or(host)
}

const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_keeps_its_entries_and_gains_this_machine() {
        #[track_caller]
        fn check(list: &str, expected: &str) {
            let given = SourcedValue::flag("NO_PROXY", list);
            assert_eq!(with_this_machine(Some(&given), "localhost"), expected);
            let again = SourcedValue::flag("NO_PROXY", expected);
            assert_eq!(
                with_this_machine(Some(&again), "[::1]"),
                expected,
                "stays so"
            );
        }
        check("", "localhost,127.0.0.1,::1");
        check(
            ".corp.example,10.0.0.0/8",
            ".corp.example,10.0.0.0/8,localhost,127.0.0.1,::1",
        );
        check(" a , LocalHost ,,", "a,LocalHost,127.0.0.1,::1");
        check("127.0.0.1,::1,localhost", "127.0.0.1,::1,localhost");
        check("*", "*");
        check("a,*", "a,*");
        check("not-localhost", "not-localhost,localhost,127.0.0.1,::1");
        check("a b\tc\nd", "a,b,c,d,localhost,127.0.0.1,::1");
        check("[::1],[fd00::1]", "::1,fd00::1,localhost,127.0.0.1");
        check("a\x07b,c", "c,localhost,127.0.0.1,::1"); // no host
        check("caf\0e9", "localhost,127.0.0.1,::1"); // not UTF-8
    }

    #[test]
    fn no_proxy_names_the_host_of_the_urls() {
        for (host, expected) in [
            ("10.0.0.1", "localhost,127.0.0.1,::1,10.0.0.1"),
            ("[fd00::1]", "localhost,127.0.0.1,::1,fd00::1"),
        ] {
            assert_eq!(with_this_machine(None, host), expected);
        }
    }
}
