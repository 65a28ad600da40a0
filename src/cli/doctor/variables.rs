//! The checks of the variables that clients read: base URLs and proxies.

use crate::machine::connect::Unreachable;
use crate::registry::Port;
use crate::serve::{Endpoint, Target};

use super::finding::Finding;

/// A variable that holds the base URL of an API.
#[derive(Debug, Clone, Copy)]
pub struct BaseUrl {
    pub variable: &'static str,
    /// The path that its clients append to it.
    endpoint: &'static str,
}

pub const BASE_URLS: [BaseUrl; 3] = [
    BaseUrl {
        variable: "OPENAI_BASE_URL",
        endpoint: "/chat/completions",
    },
    BaseUrl {
        variable: "OPENAI_API_BASE",
        endpoint: "/chat/completions",
    },
    BaseUrl {
        variable: "ANTHROPIC_BASE_URL",
        endpoint: "/v1/messages",
    },
];

/// Checks a client's base URL; `port` is this project's. `owner` returns the name of the project that has a port.
pub fn base_url(
    name: BaseUrl,
    value: &str,
    port: Option<Port>,
    owner: impl Fn(Port) -> Option<String>,
) -> Finding {
    const CHECK: &str = "Variables";
    let BaseUrl { variable, endpoint } = name;
    let wrong = |why: String| {
        let message = format!("{variable}={value} {why}; `eval \"$(ic env)\"` sets it right");
        Finding::wrong(CHECK, message)
    };
    let path = value.split_once("://").map_or(value, |(_, rest)| rest);
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
            format!("{variable}={value} does not lead through ic"),
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

/// The paths that clients append to a base URL.
pub const ENDPOINTS: [&str; 5] = [
    "/chat/completions",
    "/completions",
    "/messages",
    "/responses",
    "/models",
];

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback() || ip.is_unspecified())
}

/// A proxy that clients use.
pub struct Proxy {
    pub variable: &'static str,
    /// Host and port.
    pub authority: String,
    /// Whether it accepts connections; `None` where its address does not parse.
    pub reached: Option<Result<(), Unreachable>>,
}

/// The proxy variables.
pub struct ProxyState {
    pub proxies: Vec<Proxy>,
    /// `NO_PROXY` and `no_proxy`, as far as they are set.
    pub exceptions: Vec<(&'static str, String)>,
}

/// Checks whether clients would use a proxy for this machine. `None`: no proxy is set.
pub fn proxies(state: &ProxyState) -> Option<Finding> {
    const CHECK: &str = "Proxies";
    let Proxy {
        variable,
        authority,
        reached,
    } = state.proxies.first()?;
    let unreachable = match reached {
        Some(Err(why)) => format!(" (which {why})"),
        _ => String::new(),
    };
    let is_excepted = |list: &str| {
        let hosts: Vec<&str> = list.split([',', ' ']).map(str::trim).collect();
        hosts.contains(&"*")
            || hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case("localhost"))
    };
    let lacking = state.exceptions.iter().find(|(_, list)| !is_excepted(list));
    let why = match (lacking, state.exceptions.is_empty()) {
        (Some((name, _)), _) => format!("{name} does not name it"),
        (None, true) => "NO_PROXY is not set".to_owned(),
        (None, false) => {
            let message =
                format!("{variable} leads to {authority}{unreachable}, but not for localhost");
            return Some(Finding::good(CHECK, message));
        }
    };
    Some(Finding::wrong(
        CHECK,
        format!(
            "{variable} sends clients to {authority}{unreachable} for localhost as well, since {why}; \
             `eval \"$(ic env)\"` adds it"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    #[test]
    fn an_address_is_judged_by_what_a_client_would_ask_for() {
        #[track_caller]
        fn check(at: usize, value: &str, verdict: Verdict, says: &str) {
            let port = Port::try_from(8888).expect("a port");
            let owner = |port: Port| (port.get() == 8889).then(|| "blog".to_owned());
            let finding = base_url(BASE_URLS[at], value, Some(port), owner);
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
        fn check(proxies: &[&'static str], exceptions: &[&str], expected: Option<Verdict>) {
            let state = ProxyState {
                proxies: proxies
                    .iter()
                    .map(|&variable| Proxy {
                        variable,
                        authority: "proxy:3128".to_owned(),
                        reached: Some(Err(Unreachable::Refused)),
                    })
                    .collect(),
                exceptions: exceptions
                    .iter()
                    .map(|list| ("NO_PROXY", (*list).to_owned()))
                    .collect(),
            };
            let finding = super::proxies(&state);
            assert_eq!(finding.map(|finding| finding.verdict), expected);
        }
        check(&[], &[], None);
        check(&[], &["corp"], None);
        check(&["http_proxy"], &[], Some(Verdict::Wrong));
        check(&["http_proxy"], &["corp"], Some(Verdict::Wrong));
        check(&["http_proxy"], &["corp, localhost"], Some(Verdict::Good));
        check(&["http_proxy"], &["*"], Some(Verdict::Good));
        check(
            &["http_proxy"],
            &["localhost", "corp"],
            Some(Verdict::Wrong),
        ); // each program reads one of the two
        check(&["http_proxy"], &["notlocalhost"], Some(Verdict::Wrong));
    }
}
