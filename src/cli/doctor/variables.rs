//! The checks of the variables that clients read: base URLs and proxies.

use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::outcome::Failure;
use crate::cli::serve::{is_this_machine, matches_no_proxy};
use crate::cli::settings::Environment;
use crate::machine::connect::reach;
use crate::registry::{Port, Registry};
use crate::serve::{Endpoint, Target};
use crate::text::{name, redact};

use super::finding::Finding;

/// The variables that hold the base URL of an API, and the path that clients append to it.
const BASE_URLS: [(&str, &str); 3] = [
    ("OPENAI_BASE_URL", "/chat/completions"),
    ("OPENAI_API_BASE", "/chat/completions"),
    ("ANTHROPIC_BASE_URL", "/v1/messages"),
];

/// Checks the base URLs that are set; `port` is this project's.
pub fn base_urls(
    context: &Context<'_>,
    port: Option<Port>,
    registry: &Registry,
) -> Result<Vec<Finding>, Failure> {
    let owner = |port| registry.path_of(port).map(name);
    let mut findings = Vec::new();
    for (variable, endpoint) in BASE_URLS {
        if let Some(value) = context.environment.variable(variable) {
            findings.push(base_url(variable, endpoint, value.text()?, port, owner));
        }
    }
    Ok(findings)
}

/// Checks one base URL. `owner` returns the name of the project that has a port.
fn base_url(
    variable: &str,
    endpoint: &str,
    value: &str,
    port: Option<Port>,
    owner: impl Fn(Port) -> Option<String>,
) -> Finding {
    const CHECK: &str = "Variables";
    let shown = redact::setting(value);
    let wrong = |why: String| {
        let message = format!("{variable}={shown} {why}; `eval \"$(ic env)\"` sets it right");
        Finding::wrong(CHECK, message)
    };
    let path = shown.split_once("://").map_or(&*shown, |(_, rest)| rest);
    let path = path
        .find('/')
        .map_or("", |at| &path[at..])
        .trim_end_matches('/');
    let asked = format!("{path}{endpoint}");
    if let Some(end) = ENDPOINTS.iter().find(|end| path.ends_with(**end)) {
        return wrong(format!(
            "is an endpoint: clients put {end} behind it themselves"
        ));
    }
    if asked.contains("/v1/v1/") {
        return wrong(format!("has a /v1 too much: clients would ask for {asked}"));
    }
    let leads_to = match value.parse::<Target>().as_ref().map(Target::endpoint) {
        Ok(Endpoint::Tcp(host, to)) if is_this_machine(host) => Port::try_from(*to).ok(),
        _ => None,
    };
    let Some(leads_to) = leads_to else {
        return Finding::note(
            CHECK,
            format!("{variable}={shown} does not lead through ic"),
        );
    };
    if !asked.contains("/v1/") {
        return wrong(format!("has no /v1: clients would ask for {asked}"));
    }
    match port {
        Some(port) if port == leads_to => {
            Finding::good(CHECK, format!("{variable} leads to this project's port"))
        }
        Some(port) => {
            let whose =
                owner(leads_to).map_or(String::new(), |owner| format!(", that of `{owner}`"));
            wrong(format!(
                "leads to port {leads_to}{whose}, but this project's is {port}"
            ))
        }
        None => Finding::note(CHECK, format!("{variable} leads to port {leads_to}")),
    }
}

/// For a connection to a target or a proxy.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// The paths that clients append to a base URL.
pub const ENDPOINTS: [&str; 5] = [
    "/chat/completions",
    "/completions",
    "/messages",
    "/responses",
    "/models",
];

/// Checks whether clients would use the first proxy that is set for this machine. `None`: no proxy is set.
pub fn proxies(environment: &Environment<'_>) -> Option<Finding> {
    const CHECK: &str = "Proxies";
    let text = |name| {
        let given = environment.variable(name)?;
        Some((name, given.text().ok()?.to_owned()))
    };
    let mut names = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].into_iter();
    let (variable, value) = names.find_map(text)?;
    let rest = value.split_once("://").map_or(&*value, |(_, rest)| rest);
    // Without a user name and password, which may contain a slash.
    let behind_user = rest.rsplit('@').next().unwrap_or_default();
    let host = behind_user.split('/').next().unwrap_or_default();
    let target: Option<Target> = format!("http://{host}").parse().ok();
    let why_not = target.and_then(|target| reach(target.endpoint(), CONNECT_TIME_MAX).err());
    let unreachable = why_not.map_or(String::new(), |why| format!(" (which {why})"));
    // Each program reads one of the two.
    let exceptions: Vec<_> = ["no_proxy", "NO_PROXY"]
        .into_iter()
        .filter_map(text)
        .collect();
    let mut lists = exceptions.iter();
    let why = match lists.find(|(_, list)| !matches_no_proxy(list, "localhost", 80)) {
        Some((name, _)) => format!("{name} does not name it"),
        None if exceptions.is_empty() => "NO_PROXY is not set".to_owned(),
        None => {
            let message = format!("{variable} leads to {host}{unreachable}, but not for localhost");
            return Some(Finding::good(CHECK, message));
        }
    };
    Some(Finding::wrong(
        CHECK,
        format!(
            "{variable} sends clients to {host}{unreachable} for localhost as well, since {why}; \
             `eval \"$(ic env)\"` adds it"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;
    use std::ffi::OsString;

    #[test]
    fn an_address_is_judged_by_what_a_client_would_ask_for() {
        #[track_caller]
        fn check(at: usize, value: &str, verdict: Verdict, says: &str) {
            let port = Port::try_from(8888).expect("a port");
            let owner = |port: Port| (port.get() == 8889).then(|| "blog".to_owned());
            let (variable, endpoint) = BASE_URLS[at];
            let finding = base_url(variable, endpoint, value, Some(port), owner);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(says), "{finding:?}");
        }
        const OPENAI: usize = 0;
        const ANTHROPIC: usize = 2;
        let (good, note, wrong) = (Verdict::Good, Verdict::Note, Verdict::Wrong);
        check(
            OPENAI,
            "http://localhost:8888/v1",
            good,
            "this project's port",
        );
        check(
            OPENAI,
            "http://localhost:8888/v1/",
            good,
            "this project's port",
        );
        check(
            OPENAI,
            "http://127.0.0.1:8888/v1",
            good,
            "this project's port",
        );
        check(OPENAI, "http://[::1]:8888/v1", good, "this project's port");
        check(
            ANTHROPIC,
            "http://localhost:8888",
            good,
            "this project's port",
        );
        check(
            ANTHROPIC,
            "http://localhost:8888/",
            good,
            "this project's port",
        );

        check(
            OPENAI,
            "https://api.openai.com/v1",
            note,
            "does not lead through ic",
        );
        check(
            OPENAI,
            "http://10.0.0.1:8888/v1",
            note,
            "does not lead through ic",
        );
        check(OPENAI, "nonsense", note, "does not lead through ic");
        check(
            OPENAI,
            "https://me:pw@a.example/v1?key=b",
            note,
            "OPENAI_BASE_URL=https://…@a.example/v1?key=… does not",
        );

        check(
            OPENAI,
            "http://localhost:8888/v1/v1",
            wrong,
            "/v1/v1/chat/completions",
        );
        check(
            ANTHROPIC,
            "http://localhost:8888/v1",
            wrong,
            "/v1/v1/messages",
        );
        check(
            OPENAI,
            "https://a.example/v1/v1",
            wrong,
            "has a /v1 too much",
        );
        check(OPENAI, "http://localhost:8888", wrong, "has no /v1");
        check(
            OPENAI,
            "http://localhost:8888/v1/chat/completions",
            wrong,
            "is an endpoint",
        );
        check(
            ANTHROPIC,
            "http://localhost:8888/v1/messages",
            wrong,
            "is an endpoint",
        );
        check(
            OPENAI,
            "http://localhost:8889/v1",
            wrong,
            "port 8889, that of `blog`, but",
        );
        check(
            OPENAI,
            "http://localhost:8890/v1",
            wrong,
            "port 8890, but this project's is 8888",
        );
    }

    #[test]
    fn a_proxy_is_wrong_where_it_would_be_asked_for_this_machine() {
        #[track_caller]
        fn check(set: &[(&str, &str)], expected: Option<Verdict>) {
            let read = |name: &str| {
                let (_, value) = set.iter().find(|(set, _)| *set == name)?;
                Some(OsString::from(value))
            };
            let finding = super::proxies(&Environment(&read));
            assert_eq!(finding.map(|finding| finding.verdict), expected, "{set:?}");
        }
        let proxy = ("http_proxy", "127.0.0.1:1");
        check(&[], None);
        check(&[("NO_PROXY", "corp")], None);
        check(&[proxy], Some(Verdict::Wrong));
        check(&[proxy, ("NO_PROXY", "corp")], Some(Verdict::Wrong));
        let list = "corp, localhost";
        check(&[proxy, ("NO_PROXY", list)], Some(Verdict::Good));
        check(&[proxy, ("NO_PROXY", "*")], Some(Verdict::Good));
        let both = [("no_proxy", "localhost"), ("NO_PROXY", "corp")];
        check(&[proxy, both[0], both[1]], Some(Verdict::Wrong));
        let other = ("NO_PROXY", "notlocalhost");
        check(&[proxy, other], Some(Verdict::Wrong));
    }
}
