//! The checks of the variables that clients read: base URLs and proxies.

use std::time::Duration;

use crate::cli::outcome::Failure;
use crate::cli::serve::{is_this_machine, matches_no_proxy};
use crate::cli::settings::Environment;
use crate::machine::connect::reach;
use crate::registry::{Port, Registry};
use crate::serve::{Endpoint, Target};
use crate::text::{name, redact};

use super::finding::{Finding, Verdict};

/// The variables that hold the base URL of an API, and how most clients use it.
pub const BASE_URLS: [(&str, Api); 4] = [
    ("OPENAI_BASE_URL", Api::Chat),
    ("OPENAI_API_BASE", Api::Chat),
    ("ANTHROPIC_BASE_URL", Api::Messages),
    ("GOOGLE_GEMINI_BASE_URL", Api::Gemini),
];

/// How a client uses a base URL: what it appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Responses,
    Messages,
    /// Vercel's library for Anthropic's API, as in opencode.
    BareMessages,
    Gemini,
}

impl Api {
    fn endpoint(self) -> &'static str {
        match self {
            Api::Chat => "/chat/completions",
            Api::Responses => "/responses",
            Api::Messages => "/v1/messages",
            Api::BareMessages => "/messages",
            Api::Gemini => "/v1beta/models",
        }
    }

    /// Whether the base URL has the version of the API.
    fn has_version_in_base(self) -> bool {
        !self.endpoint().starts_with("/v1")
    }
}

/// What a base URL has to lead to.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// This project's.
    pub port: Option<Port>,
    /// `None` if it is not known.
    pub target: Option<&'a Target>,
}

/// Checks the base URLs that are set.
pub fn base_urls(
    environment: &Environment<'_>,
    to: Destination<'_>,
    registry: &Registry,
    has_opencode: bool,
) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for (variable, api) in BASE_URLS {
        if let Some(value) = environment.variable(variable) {
            let url = value.text()?;
            let (mut verdict, mut why) = base_url(api, url, to, IC_ENV, registry);
            let fits_opencode = || base_url(Api::BareMessages, url, to, IC_ENV, registry).0;
            if api == Api::Messages && verdict == Verdict::Wrong && fits_opencode() == Verdict::Good
            {
                why += ". Only opencode needs the /v1";
                if has_opencode {
                    verdict = Verdict::Note;
                }
            }
            let shown = redact::setting(url);
            let message = match verdict {
                Verdict::Good => format!("{variable} {why}"),
                Verdict::Note | Verdict::Wrong => format!("{variable}={shown} {why}"),
            };
            findings.push(Finding::new("Variables", verdict, message));
        }
    }
    Ok(findings)
}

const IC_ENV: &str = "`eval \"$(ic env)\"` sets it right";

/// Judges one base URL; `way_out` follows what is wrong.
pub fn base_url(
    api: Api,
    value: &str,
    to: Destination<'_>,
    way_out: &str,
    registry: &Registry,
) -> (Verdict, String) {
    let owner = |port| registry.path_of(port).map(name);
    let wrong = |why: String| (Verdict::Wrong, format!("{why}; {way_out}"));
    let path = path_of(value);
    let asked = format!("{path}{}", api.endpoint());
    if let Some(end) = ENDPOINTS.iter().find(|end| path.ends_with(**end)) {
        return wrong(format!(
            "is an endpoint: clients put {end} behind it themselves"
        ));
    }
    if let Some(version) = doubled_version(&asked) {
        return wrong(format!(
            "has a {version} too much: clients would ask for {asked}"
        ));
    }
    let leads_to = this_machine(value).and_then(|(_, port)| Port::try_from(port).ok());
    let is_https = scheme(value).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let is_ours = |leads_to| to.port == Some(leads_to) || owner(leads_to).is_some();
    let Some(leads_to) = leads_to.filter(|leads_to| !is_https || is_ours(*leads_to)) else {
        return (Verdict::Note, "does not lead through ic".to_owned());
    };
    if is_https {
        return wrong("is https, but ic accepts only plain http".to_owned());
    }
    let base = to.target.map_or("", Target::base_path);
    let has_own_version = to.target.is_some_and(Target::has_own_version);
    let is_openai = matches!(api, Api::Chat | Api::Responses);
    if is_openai && has_own_version && asked.contains("/v1/") {
        return wrong(format!(
            "has a /v1, but the target's base path {base} has a version of its own: clients would ask for {base}{asked}"
        ));
    }
    let has_version = base.ends_with("/v1") || (is_openai && has_own_version);
    if api.has_version_in_base() && !has_version && !asked.contains("/v1/") {
        return wrong(format!("has no /v1: clients would ask for {asked}"));
    }
    match to.port {
        Some(port) if port == leads_to => {
            (Verdict::Good, "leads to this project's port".to_owned())
        }
        Some(port) => {
            let whose =
                owner(leads_to).map_or(String::new(), |owner| format!(", that of `{owner}`"));
            wrong(format!(
                "leads to port {leads_to}{whose}, but this project's is {port}"
            ))
        }
        None => (Verdict::Note, format!("leads to port {leads_to}")),
    }
}

/// The path of a URL as it may be shown, without a slash at its end.
fn path_of(url: &str) -> String {
    let shown = redact::setting(url);
    let rest = shown.split_once("://").map_or(&*shown, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.trim_end_matches('/').to_owned()
}

/// The version that a path has too often.
fn doubled_version(path: &str) -> Option<&'static str> {
    let is_doubled = |(pair, _): &(&str, _)| path.contains(pair);
    let doubled = [
        ("/v1/v1/", "/v1"),
        ("/v1/v1beta/", "/v1"),
        ("/v1beta/v1beta/", "/v1beta"),
    ];
    doubled.into_iter().find(is_doubled).map(|it| it.1)
}

fn scheme(url: &str) -> Option<&str> {
    url.split_once("://").map(|it| it.0.trim())
}

/// The host and port of a URL that leads to this machine.
pub fn this_machine(url: &str) -> Option<(String, u16)> {
    let scheme = scheme(url)?;
    let (_, rest) = url.split_once("://")?;
    if !["http", "https"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(scheme))
    {
        return None;
    }
    // Not every build parses a target in https.
    match format!("http://{rest}")
        .parse::<Target>()
        .as_ref()
        .map(Target::endpoint)
    {
        Ok(Endpoint::Tcp(host, port)) if is_this_machine(host) => Some((host.clone(), *port)),
        _ => None,
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

/// Checks whether clients would use the first proxy that is set for the hosts of this machine in their base URLs, those of the
/// variables and `urls`, or for `localhost` where there are none. `None`: no proxy is set.
pub fn proxies(environment: &Environment<'_>, urls: &[String]) -> Option<Finding> {
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
    let hosts = hosts_of_urls(environment, urls);
    let missing = hosts.iter().find_map(|(own, port)| {
        let lacks = |(_, list): &&(_, String)| !matches_no_proxy(list, own, *port);
        let why = match exceptions.iter().find(lacks) {
            Some((name, _)) => format!("{name} does not name it"),
            None if exceptions.is_empty() => "NO_PROXY is not set".to_owned(),
            None => return None,
        };
        Some((own, why))
    });
    let Some((own, why)) = missing else {
        let own: Vec<_> = hosts.iter().map(|(own, _)| own.as_str()).collect();
        let own = own.join(" and ");
        let message = format!("{variable} leads to {host}{unreachable}, but not for {own}");
        return Some(Finding::good(CHECK, message));
    };
    Some(Finding::wrong(
        CHECK,
        format!(
            "{variable} sends clients to {host}{unreachable} for {own} as well, since {why}; \
             `eval \"$(ic env)\"` adds it"
        ),
    ))
}

/// The hosts and ports of this machine in the base URLs, each once; `localhost` where there are none.
fn hosts_of_urls(environment: &Environment<'_>, urls: &[String]) -> Vec<(String, u16)> {
    let mut hosts = Vec::new();
    let variables = BASE_URLS.iter().filter_map(|(variable, _)| {
        let given = environment.variable(variable)?;
        given.text().ok().map(str::to_owned)
    });
    for url in variables.chain(urls.iter().cloned()) {
        let host = this_machine(&url);
        hosts.extend(host.filter(|host| !hosts.contains(host)));
    }
    if hosts.is_empty() {
        hosts.push(("localhost".to_owned(), 80));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn an_address_is_judged_by_what_a_client_would_ask_for() {
        #[track_caller]
        fn check_toward(base: &str, at: usize, value: &str, verdict: Verdict, says: &str) {
            let port = Port::try_from(8888).expect("a port");
            let registry = r#"{"version":"1.0","mappings":{"/home/me/blog":8889}}"#;
            let registry = Registry::parse(registry.as_bytes()).expect("a registry");
            let target = format!("http://llm{base}").parse().expect("a target");
            let to = Destination {
                port: Some(port),
                target: Some(&target),
            };
            let (found, why) = base_url(BASE_URLS[at].1, value, to, IC_ENV, &registry);
            assert_eq!(found, verdict, "{value} {base}: {why}");
            assert!(why.contains(says), "{value} {base}: {why}");
        }
        #[track_caller]
        fn check(at: usize, value: &str, verdict: Verdict, says: &str) {
            check_toward("", at, value, verdict, says);
        }
        const OPENAI: usize = 0;
        const ANTHROPIC: usize = 2;
        const GEMINI: usize = 3;
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
            "does not lead through ic",
        );

        let https = "is https, but ic accepts only plain http";
        check(OPENAI, "https://localhost:8888/v1", wrong, https);
        check(ANTHROPIC, "HTTPS://127.0.0.1:8889", wrong, https);
        // It may be a server of TLS in front of ic.
        check(OPENAI, "https://localhost/v1", note, "does not lead");
        check(GEMINI, "http://localhost:8888", good, "this project's port");
        let gemini = "has a /v1beta too much: clients would ask for /v1beta/v1beta/models";
        check(GEMINI, "http://localhost:8888/v1beta", wrong, gemini);
        let gemini = "has a /v1 too much: clients would ask for /v1/v1beta/models";
        check(GEMINI, "http://localhost:8888/v1", wrong, gemini);
        // The target has a version itself.
        let (with, without) = ("http://localhost:8888/v1", "http://localhost:8888");
        check_toward("/v1", OPENAI, with, good, "this project's port");
        check_toward("/v1", OPENAI, without, good, "this project's port");
        check_toward("/paas/v4", OPENAI, without, good, "this project's port");
        let v4 = "would ask for /paas/v4/v1/chat/completions; `eval";
        check_toward("/paas/v4", OPENAI, with, wrong, v4);
        check_toward("/vllm", OPENAI, without, wrong, "has no /v1");
        check_toward("/v1beta", OPENAI, with, wrong, "a version of its own");

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
            let finding = super::proxies(&Environment(&read), &[]);
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
        // The host in the URL counts.
        let url = ("OPENAI_BASE_URL", "http://127.0.0.1:8888/v1");
        check(&[proxy, url, ("NO_PROXY", list)], Some(Verdict::Wrong));
        let address = ("NO_PROXY", "127.0.0.1:8888");
        check(&[proxy, url, address], Some(Verdict::Good));
        let other = ("ANTHROPIC_BASE_URL", "http://[::1]:8888");
        check(&[proxy, url, address, other], Some(Verdict::Wrong));
        let elsewhere = ("OPENAI_BASE_URL", "https://api.openai.com/v1");
        check(&[proxy, elsewhere, ("NO_PROXY", list)], Some(Verdict::Good));
        let other = ("NO_PROXY", "notlocalhost");
        check(&[proxy, other], Some(Verdict::Wrong));
    }
}
