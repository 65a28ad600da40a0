//! `--use-proxy-env`: the proxy in the environment for a target, if there is one.
//!
//! The rules are those of curl, except that `HTTP_PROXY` counts too. curl ignores it because a CGI server sets it from a
//! header field of the request; requests do not set the variables of `ic`.

use std::net::IpAddr;

use crate::cli::outcome::Failure;
use crate::cli::settings::Environment;
use crate::serve::{Endpoint, Proxy, Target};

/// The proxy for `target`; `None` for a target on this machine.
///
/// # Errors
///
/// Bad usage, naming the variable.
pub fn proxy(target: &Target, environment: &Environment<'_>) -> Result<Option<Proxy>, Failure> {
    let Endpoint::Tcp(host, port) = target.endpoint() else {
        return Ok(None);
    };
    if is_this_machine(host) {
        return Ok(None);
    }
    for name in NO_PROXY {
        if let Some(given) = environment.variable(name) {
            // Only the first that is set counts.
            if matches_no_proxy(given.text()?, host, *port) {
                return Ok(None);
            }
            break;
        }
    }
    let own = if target.is_https() {
        ["https_proxy", "HTTPS_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY"]
    };
    for name in own.into_iter().chain(["all_proxy", "ALL_PROXY"]) {
        if let Some(given) = environment.variable(name) {
            let proxy: Proxy = given
                .text()?
                .parse()
                .map_err(|error| Failure::usage(format!("the value of {name} {error}")))?;
            return Ok(Some(proxy.found_in(name)));
        }
    }
    Ok(None)
}

/// Whether a host is this machine, which no proxy reaches.
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Whether a list such as `.example.com, 10.0.0.0/8, host:8080` contains a host and port. A name matches itself and its
/// subdomains.
pub fn matches_no_proxy(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ', '\t'])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            let entry = entry.to_ascii_lowercase();
            let (named, named_port) = without_port(&entry);
            if entry == "*" {
                return true;
            }
            if named_port.is_some_and(|named| named != port) {
                return false;
            }
            if let Some(ip) = ip {
                return contains(named, ip);
            }
            let name = named.trim_start_matches('.').trim_end_matches('.');
            let above = host.strip_suffix(name);
            !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
}

/// Splits `host:port`; a bare IPv6 address has no port.
fn without_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[') {
        let (literal, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return (
            literal,
            rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match entry.split_once(':') {
        Some((name, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Whether `network`, an address or a network such as `10.0.0.0/8`, contains `ip`.
fn contains(network: &str, ip: IpAddr) -> bool {
    let (address, length) = match network.split_once('/') {
        Some((address, length)) => (address, length.parse::<u32>().ok()),
        None => (network, Some(u128::BITS)),
    };
    let (Ok(address), Some(length)) = (address.parse::<IpAddr>(), length) else {
        return false;
    };
    let bits = |ip| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let common = (bits(address) ^ bits(ip)).leading_zeros();
    address.is_ipv4() == ip.is_ipv4() && common >= length.min(u128::BITS)
}

/// The variables that list hosts to reach without a proxy.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    #[rustfmt::skip] // A table.
    fn the_first_variable_that_is_set_names_the_proxy() {
        #[track_caller]
        fn check(target: &str, set: &[(&str, &str)], expected: Option<(&str, &str)>) {
            let read = |name: &str| {
                let (_, value) = set.iter().find(|(set, _)| *set == name)?;
                Some(OsString::from(value))
            };
            let target = target.parse().expect("a target");
            let found = proxy(&target, &Environment(&read)).expect("a good proxy");
            let found = found.map(|proxy| (proxy.to_string(), proxy.variable()));
            let found = found.as_ref().map(|(proxy, variable)| (proxy.as_str(), *variable));
            assert_eq!(found, expected, "{target} {set:?}");
        }
        let all = [
            ("http_proxy", "a:1"), ("HTTP_PROXY", "b:1"), ("https_proxy", "c:1"), ("HTTPS_PROXY", "d:1"),
            ("all_proxy", "e:1"), ("ALL_PROXY", "f:1"),
        ];
        let plain = "http://llm.example.com";
        check(plain, &[], None);
        check(plain, &all, Some(("http://a:1", "http_proxy")));
        check(plain, &all[1..], Some(("http://b:1", "HTTP_PROXY")));
        check(plain, &all[2..], Some(("http://e:1", "all_proxy")));
        check(plain, &all[5..], Some(("http://f:1", "ALL_PROXY")));
        check(plain, &[("http_proxy", ""), ("HTTP_PROXY", "b:1")], Some(("http://b:1", "HTTP_PROXY")));

        // Never for this machine.
        for local in ["http://localhost:8764", "http://127.0.0.9", "http://[::1]:1", "http://llm.localhost", "unix:/a.sock"] {
            check(local, &all, None);
        }
        let set = [("http_proxy", "a:1"), ("no_proxy", "other.example"), ("NO_PROXY", "*")];
        check(plain, &set, Some(("http://a:1", "http_proxy")));
        check(plain, &[("http_proxy", "a:1"), ("NO_PROXY", "example.com")], None);
    }

    #[test]
    #[cfg(feature = "tls")]
    fn an_https_target_has_its_own_variables() {
        let set = [("http_proxy", "a:1"), ("https_proxy", "c:1")];
        let read = |name: &str| {
            let (_, value) = set.iter().find(|(set, _)| *set == name)?;
            Some(OsString::from(value))
        };
        let target = "https://llm.example.com".parse().expect("a target");
        let found = proxy(&target, &Environment(&read)).expect("a good proxy");
        assert_eq!(found.map(|proxy| proxy.variable()), Some("https_proxy"));
    }

    #[test]
    fn an_invalid_proxy_is_refused_without_showing_its_password() {
        let read = |name: &str| {
            (name == "HTTP_PROXY").then(|| OsString::from("socks5://user:secret@proxy:1"))
        };
        let target = "http://llm.example.com".parse().expect("a target");
        let failure = proxy(&target, &Environment(&read)).expect_err("another kind");
        let text = failure.to_string();
        assert!(
            text.starts_with("the value of HTTP_PROXY is not an http proxy"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn no_proxy_matches_names_addresses_and_networks() {
        #[track_caller]
        fn check(list: &str, host: &str, expected: bool) {
            assert_eq!(matches_no_proxy(list, host, 8080), expected, "{list}: {host}");
        }
        check("*", "a.example", true);
        check("a.example", "a.example", true);
        check("A.Example", "a.eXample.", true);
        check("example", "a.example", true);
        check(".a.example", "a.example", true);
        check(".a.example", "b.a.example", true);
        check("a.example", "ba.example", false);
        check("b.a.example", "a.example", false);
        check("x, a.example", "a.example", true);
        check("x a.example", "a.example", true);
        check("a.example:8080", "a.example", true);
        check("a.example:80", "a.example", false);
        check("*.example", "a.example", false);
        check(",", "a.example", false);
        check(".", "a.example", false);
        check("10.0.0.1", "10.0.0.1", true);
        check("0.0.1", "10.0.0.1", false);
        check("10.0.0.0/8", "10.9.9.9", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/x", "10.0.0.1", false);
        check("0.0.0.0/0", "10.0.0.1", true);
        check("10.0.0.1:8080", "10.0.0.1", true);
        check("fd00::/8", "fd12::1", true);
        check("[fd12::1]:8080", "fd12::1", true);
        check("[fd12::1]:80", "fd12::1", false);
        check("fd12::1", "fd12::1", true);
        check("::/0", "10.0.0.1", false);
    }
}
