//! Protection against requests of web pages, and against loops.
//!
//! A web page can make a browser send requests to `http://localhost:8888`, under a name of its own that resolves to 127.0.0.1
//! (DNS rebinding, CVE-2024-28224) or as a cross-origin request. `Host` shows the first, `Origin` or `Sec-Fetch-Site` the second;
//! both are refused. Loops are detected by counting the entries of `Via` (RFC 9110 §7.6.3).

use std::net::IpAddr;

use super::error::Error;
use super::framing::Framing;
use super::head::{RequestHead, Version, elements, values};
use super::target::{Target, host_and_port, host_of};

/// A request with so many entries of `ic` in `Via` is a loop. Chains of two or three exist.
pub const VIA_MAX: usize = 5;

/// The pseudonym of this hop in `Via`.
pub const PSEUDONYM: &str = "ic";

/// The rules for `Host`, `Origin` and `Sec-Fetch-Site`.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Without `allowed_hosts`, serve only hosts that mean this machine, not all: the listener is on a loopback address.
    pub local_hosts_only: bool,
    /// Hosts to serve beside those that mean this machine, without port, on every listener; `*` means all.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages to serve, as [`allowed_origin`] returns them; `*` means all.
    pub allowed_origins: Vec<String>,
}

impl Guard {
    /// Checks a request's `Host`, `Origin`, `Sec-Fetch-Site` and `Via`.
    pub fn check(
        &self,
        head: &RequestHead<'_, '_>,
        target: &Target<'_>,
        framing: Framing,
    ) -> Result<(), Error> {
        let host = host_field(head)?;
        // RFC 9112 §3.2.2: the authority replaces `Host`. A rebinding page could send either, so that both are checked.
        if let Target::Absolute { authority, .. } = target
            && !self.serves_host(host_of(authority))
        {
            return Err(Error::ForwardProxy);
        }
        if !self.serves_host(host) {
            return Err(Error::HostForeign);
        }
        self.check_page(head, framing)?;
        if own_via_entries(head) >= VIA_MAX {
            Err(Error::Loop)
        } else {
            Ok(())
        }
    }

    /// Whether `Host` is not checked.
    pub fn serves_all_hosts(&self) -> bool {
        !self.local_hosts_only && self.allowed_hosts.is_empty()
            || is_listed(&self.allowed_hosts, ANY.as_bytes())
    }

    fn serves_host(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return true };
        self.serves_all_hosts()
            || is_this_machine(host)
            || is_listed(&self.allowed_hosts, host.as_bytes())
    }

    /// Checks the web page that sends the request, if one does.
    fn check_page(&self, head: &RequestHead<'_, '_>, framing: Framing) -> Result<(), Error> {
        let mut has_origin = false;
        for value in values(head.fields, "Origin") {
            // A list, as in RFC 6454 §7.1: each element is checked.
            let origins = value.split(|byte| b" \t,".contains(byte));
            for origin in origins.filter(|origin| !origin.is_empty()) {
                self.check_origin(origin)?;
                has_origin = true;
            }
        }
        // Fetch, "append a request `Origin` header": a GET or HEAD without CORS, such as that of an image, has none. A link to this
        // listener is followed, which shows the linking page nothing.
        if has_origin
            || !is_cross_site(head)
            || is_navigation(head, framing)
            || is_listed(&self.allowed_origins, ANY.as_bytes())
        {
            return Ok(());
        }
        Err(Error::OriginForeign)
    }

    /// Origins with other schemes (`vscode-webview://`, `app://`) are programs on this machine. `null` is the origin of programs
    /// that run from files, but also of a sandboxed frame of any page, and of each form that an `https` page sends here (Fetch,
    /// "append a request `Origin` header").
    fn check_origin(&self, origin: &[u8]) -> Result<(), Error> {
        let behind_scheme = behind_web_scheme(origin);
        if behind_scheme.is_none() && !origin.eq_ignore_ascii_case(OPAQUE.as_bytes()) {
            return Ok(());
        }
        let is_local = behind_scheme
            .and_then(|rest| std::str::from_utf8(rest).ok())
            .and_then(|rest| rest.strip_prefix("//"))
            .and_then(host_of)
            .is_some_and(is_this_machine);
        if is_local {
            return Ok(());
        }
        // In the form of the allowed ones: programs may send the default port, which browsers omit.
        let usual = std::str::from_utf8(origin).ok().and_then(allowed_origin);
        if is_listed(
            &self.allowed_origins,
            usual.as_ref().map_or(origin, String::as_bytes),
        ) {
            Ok(())
        } else {
            Err(Error::OriginForeign)
        }
    }
}

/// Whether `host`, without port, can only mean the machine on which this runs.
fn is_this_machine(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let top_level = host.rsplit('.').next().unwrap_or_default();
    let means_this_machine = |address: IpAddr| {
        let address = address.to_canonical();
        // As a destination, `0.0.0.0` is this machine (Linux and macOS), and servers print it as their address.
        address.is_loopback() || address.is_unspecified()
    };
    // RFC 6761 §6.3 for `localhost` and names below it.
    top_level.eq_ignore_ascii_case("localhost")
        || is_host_of_containers(host)
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(means_this_machine)
}

/// Whether containers and virtual machines use `host` for the machine that they run on: `host.ENGINE.internal`, as those of Docker,
/// Podman (`containers`), Lima, minikube and OrbStack. `internal` is not in the public DNS (SAC113), so that no page can bind such a
/// name to this machine.
fn is_host_of_containers(host: &str) -> bool {
    let mut labels = host.split('.');
    let is_next = |label: Option<&str>, name: &str| {
        label.is_some_and(|label| label.eq_ignore_ascii_case(name))
    };
    is_next(labels.next(), "host")
        && labels.next().is_some_and(|engine| !engine.is_empty())
        && is_next(labels.next(), "internal")
        && labels.next().is_none()
}

/// Whether the browser says that the page is of another site (Fetch Metadata §2.3). A script cannot set that field.
fn is_cross_site(head: &RequestHead<'_, '_>) -> bool {
    values(head.fields, "Sec-Fetch-Site").any(|site| site.eq_ignore_ascii_case(b"cross-site"))
}

/// Whether the browser goes to this page instead of another one, as when a link is followed, and sends nothing along.
fn is_navigation(head: &RequestHead<'_, '_>, framing: Framing) -> bool {
    let mut modes = values(head.fields, "Sec-Fetch-Mode");
    matches!(head.method, "GET" | "HEAD")
        && framing == Framing::Empty
        && modes.next().is_some_and(|mode| mode == b"navigate")
}

/// All hosts, or all origins.
const ANY: &str = "*";

/// An opaque origin (RFC 6454 §6.1).
const OPAQUE: &str = "null";

/// The host of the one `Host` field; `None` where HTTP/1.0 has none (RFC 9112 §3.2).
fn host_field<'b>(head: &RequestHead<'_, 'b>) -> Result<Option<&'b str>, Error> {
    let mut hosts = values(head.fields, "Host");
    let Some(host) = hosts.next() else {
        return if head.version == Version::Http10 {
            Ok(None)
        } else {
            Err(Error::HostMissing)
        };
    };
    if hosts.next().is_some() {
        return Err(Error::HostRepeated);
    }
    let host = std::str::from_utf8(host).map_err(|_| Error::HostMalformed)?;
    host_of(host).map(Some).ok_or(Error::HostMalformed)
}

/// How many entries of `Via` are those of an `ic`.
fn own_via_entries(head: &RequestHead<'_, '_>) -> usize {
    elements(head.fields, "Via")
        .filter(|entry| {
            // received-protocol RWS received-by [ RWS comment ]
            let mut words = entry
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            words
                .nth(1)
                .is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM.as_bytes()))
        })
        .count()
}

/// The rest of an origin after `http:` or `https:`; in a well-formed one it starts with `//`.
fn behind_web_scheme(origin: &[u8]) -> Option<&[u8]> {
    [&b"http:"[..], b"https:"].iter().find_map(|scheme| {
        let (start, rest) = origin.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Parses an element of [`Guard::allowed_hosts`]: a host without port, or `*`. `None` if it is neither.
pub fn allowed_host(text: &str) -> Option<&str> {
    let is_host = host_of(text) == Some(text) && !text.starts_with('.');
    (text == ANY || is_host).then_some(text)
}

/// Parses an element of [`Guard::allowed_origins`]: an origin, `null`, or `*`. Returns it as browsers send it (RFC 6454 §6.2: without
/// a path and without the default port); `None` if it is none of these.
pub fn allowed_origin(text: &str) -> Option<String> {
    if [ANY, OPAQUE].contains(&text) {
        return Some(text.to_owned());
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    let (scheme, authority) = text.split_once("://")?;
    let is_scheme = scheme
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if scheme.is_empty() || !is_scheme {
        return None;
    }
    let (host, port) = host_and_port(authority)?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Some(match port.filter(|_| port != default_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

fn is_listed(allowed: &[String], value: &[u8]) -> bool {
    allowed
        .iter()
        .any(|name| name == ANY || name.as_bytes().eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use super::super::framing;
    use super::super::tests::with_request;
    use super::*;

    fn local() -> Guard {
        Guard {
            local_hosts_only: true,
            ..Guard::default()
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_allowed_host_is_a_host_without_port_or_an_asterisk() {
        for good in ["*", "dev", "a.example", "a.example.", "10.0.0.1", "[::1]"] {
            assert_eq!(allowed_host(good), Some(good));
        }
        for bad in ["", "a.example:80", "http://a.example", "*.example", ".example", "::1", "a/b", "a b", "a,b"] {
            assert_eq!(allowed_host(bad), None, "{bad}");
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_allowed_origin_is_an_origin_or_an_asterisk() {
        for (given, expected) in [
            ("*", "*"),
            ("null", "null"),
            ("https://a.example", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("https://a.example:0443", "https://a.example"),
            ("https://a.example:", "https://a.example"),
            ("HTTPS://A.example:443/", "HTTPS://A.example"),
            ("vscode-webview://0a1b", "vscode-webview://0a1b"),
        ] {
            assert_eq!(allowed_origin(given).as_deref(), Some(expected), "{given}");
        }
        for bad in ["", "a.example", "https://", "https:///", "https://a.example/b", "https://a.example:99999",
                    "https://*.example", "://a", "a b://c", "NULL", "null/", "https://u@a.example", "https://a.example//"] {
            assert_eq!(allowed_origin(bad), None, "{bad}");
        }
    }

    #[track_caller]
    fn verdict(guard: &Guard, text: &str) -> Result<(), Error> {
        with_request(text, |head| {
            let target = Target::parse(head.method, head.target).expect("rows have a target");
            let framing = framing::of_request(head).expect("rows are framed");
            guard.check(head, &target, framing)
        })
    }

    /// A request with this `Host` to a loopback listener.
    #[track_caller]
    fn check_host(why: &str, host: &str, expected: Result<(), Error>) {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(verdict(&local(), &text), expected, "{why}: {host:?}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn only_hosts_that_mean_this_machine_are_served_on_loopback() {
        use Error::{HostForeign, HostMalformed};
        check_host("the usual form", "localhost:8888", Ok(()));
        check_host("without port", "localhost", Ok(()));
        check_host("another port, as with a forwarded port", "localhost:1", Ok(()));
        check_host("in mixed case", "LocalHost", Ok(()));
        check_host("with a trailing dot", "localhost.", Ok(()));
        check_host("a subdomain (RFC 6761 §6.3)", "my-project.localhost:8888", Ok(()));
        check_host("a subdomain of a subdomain", "a.b.LOCALHOST", Ok(()));
        check_host("IPv4", "127.0.0.1:8888", Ok(()));
        check_host("all of 127/8 (RFC 1122)", "127.255.1.2", Ok(()));
        check_host("IPv6", "[::1]:8888", Ok(()));
        check_host("IPv6 written out", "[0:0:0:0:0:0:0:1]", Ok(()));
        check_host("an IPv4-mapped IPv6 address", "[::ffff:127.0.0.1]", Ok(()));
        check_host("from a container", "host.docker.internal:8888", Ok(()));
        check_host("from a container of Podman", "host.containers.internal:8888", Ok(()));
        check_host("from a virtual machine of Lima", "HOST.Lima.Internal.", Ok(()));
        check_host("from any other engine's", "host.rancher-desktop.internal", Ok(()));
        check_host("the unspecified address", "0.0.0.0:8888", Ok(()));
        check_host("the unspecified IPv6 address", "[::]", Ok(()));

        check_host("a foreign name that resolves to this machine (CVE-2024-28224)", "evil.example", Err(HostForeign));
        check_host("a foreign name with this port", "evil.example:8888", Err(HostForeign));
        check_host("a name that starts with localhost", "localhost.evil.example", Err(HostForeign));
        check_host("a name that ends with localhost", "evil-localhost", Err(HostForeign));
        check_host("two trailing dots", "localhost..", Err(HostForeign));
        check_host("a subdomain of host.docker.internal", "evil.host.docker.internal", Err(HostForeign));
        check_host("an address of another machine", "192.168.0.1", Err(HostForeign));
        check_host("an IPv6 address of another machine", "[2001:db8::1]", Err(HostForeign));
        check_host("an IPv4-mapped address of another machine", "[::ffff:192.168.0.1]", Err(HostForeign));
        check_host("a name that ends like that of an engine", "xhost.docker.internal", Err(HostForeign));
        check_host("no engine", "host.internal", Err(HostForeign));
        check_host("an empty engine", "host..internal", Err(HostForeign));
        check_host("an engine's name below another domain", "host.docker.internal.evil.example", Err(HostForeign));
        check_host("another address of the network that is not specified", "0.0.0.1", Err(HostForeign));
        check_host("a name that starts with an address", "127.0.0.1.evil.example", Err(HostForeign));
        check_host("an address as one number", "2130706433", Err(HostForeign));
        check_host("an address in octal", "0177.0.0.1", Err(HostForeign));
        check_host("a shortened address", "127.1", Err(HostForeign));
        check_host("empty (§3.2)", "", Err(HostMalformed));
        check_host("only a port", ":8888", Err(HostMalformed));
        check_host("two hosts", "localhost, evil.example", Err(HostMalformed));
        check_host("two hosts with a space", "localhost evil.example", Err(HostMalformed));
        check_host("a user", "localhost@evil.example", Err(HostMalformed));
        check_host("a path", "localhost/evil", Err(HostMalformed));
        check_host("not ASCII", "localhost\u{e9}", Err(HostMalformed));
    }

    #[track_caller]
    fn check(why: &str, guard: &Guard, text: &str, expected: Result<(), Error>) {
        assert_eq!(verdict(guard, text), expected, "{why}: {text:?}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn exactly_one_host_is_required_except_in_http_1_0() {
        use Error::{ForwardProxy, HostForeign, HostMalformed, HostMissing, HostRepeated};
        let any = Guard::default();
        check("one", &any, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(()));
        check("none (§3.2)", &any, "GET / HTTP/1.1\r\n\r\n", Err(HostMissing));
        check("none, in absolute-form", &any, "GET http://a/ HTTP/1.1\r\n\r\n", Err(HostMissing));
        check("none in HTTP/1.0", &local(), "GET / HTTP/1.0\r\n\r\n", Ok(()));
        check("one in HTTP/1.0 is checked", &local(), "GET / HTTP/1.0\r\nHost: a\r\n\r\n", Err(HostForeign));
        check("two", &any, "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", Err(HostRepeated));
        check("two equal ones", &any, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(HostRepeated));
        check("two in HTTP/1.0", &any, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Err(HostRepeated));
        check("an empty one before another", &any, "GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n", Err(HostRepeated));
        check("a malformed one, on any listener", &any, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(HostMalformed));
        check("a foreign one where all hosts are served", &any, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Ok(()));
        check("absolute-form: a foreign Host", &local(), "GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", Err(HostForeign));
        check("absolute-form: a foreign authority", &local(), "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Err(ForwardProxy));
        check("absolute-form: both are foreign", &local(), "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", Err(ForwardProxy));
        check("absolute-form: both are local", &local(), "GET http://[::1]/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Ok(()));
        check("a foreign authority in HTTP/1.0", &local(), "GET http://evil.example/ HTTP/1.0\r\n\r\n", Err(ForwardProxy));
    }

    #[test]
    fn allowed_hosts_are_compared_whole_and_without_port() {
        let guard = |allowed: &str| Guard {
            allowed_hosts: vec![allowed.to_owned()],
            ..local()
        };
        let check_allowed = |allowed: &str, host: &str, expected: Result<(), Error>| {
            check(
                allowed,
                &guard(allowed),
                &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                expected,
            );
        };
        check_allowed("box.example", "box.example", Ok(()));
        check_allowed("box.example", "BOX.example:8888", Ok(()));
        check_allowed("box.example", "evil.box.example", Err(Error::HostForeign));
        check_allowed("box.example", "box.example.evil", Err(Error::HostForeign));
        check_allowed("[2001:db8::1]", "[2001:DB8::1]:1", Ok(()));
        check_allowed("box.example", "localhost", Ok(()));
        check_allowed("*", "evil.example", Ok(()));
        check_allowed("*", "a b", Err(Error::HostMalformed));
        check_allowed("*.example", "a.example", Err(Error::HostForeign));
        let beyond = Guard {
            local_hosts_only: false,
            ..guard("box.example")
        };
        let check_beyond = |host: &str, expected: Result<(), Error>| {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            check("a listener beyond loopback", &beyond, &text, expected);
        };
        check_beyond("box.example:8888", Ok(()));
        check_beyond("localhost", Ok(()));
        check_beyond("evil.example", Err(Error::HostForeign));
        check_beyond("192.168.1.7", Err(Error::HostForeign));
    }

    /// A request with this `Origin`; the listener's address makes no difference.
    #[track_caller]
    fn check_origin(why: &str, origin: &str, expected: Result<(), Error>) {
        let text = format!("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
        for guard in [local(), Guard::default()] {
            assert_eq!(verdict(&guard, &text), expected, "{why}: {origin:?}");
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn requests_of_web_pages_from_other_sites_are_refused() {
        use Error::OriginForeign;
        check_origin("a page on this machine", "http://localhost:3000", Ok(()));
        check_origin("an address of this machine", "http://127.0.0.1", Ok(()));
        check_origin("an IPv6 address of this machine", "https://[::1]:8443", Ok(()));
        check_origin("a subdomain of localhost", "https://app.localhost", Ok(()));
        check_origin("in upper case", "HTTP://LOCALHOST", Ok(()));
        check_origin("the address that a server on this machine prints", "http://0.0.0.0:3000", Ok(()));
        check_origin("the scheme of an editor", "vscode-webview://abc", Ok(()));
        check_origin("a desktop program", "app://obsidian.md", Ok(()));
        check_origin("a file", "file://", Ok(()));

        check_origin("a page of another site", "https://evil.example", Err(OriginForeign));
        check_origin("without TLS", "http://evil.example", Err(OriginForeign));
        check_origin("with this port", "http://evil.example:8888", Err(OriginForeign));
        check_origin("another site in upper case", "HTTPS://EVIL.EXAMPLE", Err(OriginForeign));
        check_origin("a name that starts with localhost", "http://localhost.evil.example", Err(OriginForeign));
        check_origin("localhost as a user name", "http://localhost@evil.example", Err(OriginForeign));
        check_origin("no host", "http://", Err(OriginForeign));
        check_origin("a list (RFC 6454 §7.1)", "http://localhost http://evil.example", Err(OriginForeign));
        check_origin("a list, an opaque one first", "null http://evil.example", Err(OriginForeign));
        check_origin("a list with commas", "app://a,\thttps://evil.example", Err(OriginForeign));
        check_origin("a list of pages on this machine", "http://localhost:1 http://127.0.0.1", Ok(()));
        check_origin("no slashes", "http:evil.example", Err(OriginForeign));
        check_origin("one slash", "https:/evil.example", Err(OriginForeign));
        check_origin("backslashes, which browsers treat as slashes", "http:\\\\evil.example", Err(OriginForeign));
        check_origin("a backslash after a local name", "http://localhost\\.evil.example", Err(OriginForeign));
        check_origin("a percent-encoded dot", "http://localhost%2eevil.example", Err(OriginForeign));
        check_origin("a zone (RFC 6874)", "http://[::1%25lo]", Err(OriginForeign));
        check_origin("an address of another machine with a zone", "http://[fe80::1%25eth0]", Err(OriginForeign));
        check_origin("an address as one number", "http://2130706433", Err(OriginForeign));
        check_origin("two trailing dots", "http://localhost..", Err(OriginForeign));
        check_origin("a trailing dot", "http://localhost.", Ok(()));
        check_origin("a path, which an origin does not have", "http://localhost/", Err(OriginForeign));
        check_origin("an opaque one: a sandboxed frame, a form of an https page", "null", Err(OriginForeign));
        check_origin("an opaque one in upper case", "NULL", Err(OriginForeign));
        check_origin("a list, an opaque one last", "http://localhost null", Err(OriginForeign));
        check_origin("a name that starts with null", "nullified", Ok(()));
        check_origin("empty", "", Ok(()));
        check_origin("not ASCII", "http://evil\u{e9}", Err(OriginForeign));
        check("two fields", &local(), "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n\r\n", Err(OriginForeign));
    }

    #[test]
    fn allowed_origins_are_compared_whole() {
        let check_allowed = |allowed: &str, origin: &str, expected: Result<(), Error>| {
            let guard = Guard {
                allowed_origins: vec![allowed.to_owned()],
                ..local()
            };
            let text = format!("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
            check(allowed, &guard, &text, expected);
        };
        check_allowed("https://chat.example", "https://chat.example", Ok(()));
        check_allowed("https://chat.example", "HTTPS://Chat.Example", Ok(()));
        check_allowed("https://chat.example", "https://chat.example:443", Ok(()));
        check_allowed(
            "https://chat.example",
            "http://chat.example",
            Err(Error::OriginForeign),
        );
        check_allowed(
            "https://chat.example",
            "https://chat.example:444",
            Err(Error::OriginForeign),
        );
        check_allowed(
            "https://chat.example",
            "https://chat.example.evil",
            Err(Error::OriginForeign),
        );
        check_allowed("*", "https://evil.example", Ok(()));
        check_allowed("*", "null", Ok(()));
        check_allowed("null", "null", Ok(()));
        check_allowed("null", "https://evil.example", Err(Error::OriginForeign));
        check_allowed("https://chat.example", "null", Err(Error::OriginForeign));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn without_an_origin_only_navigations_from_other_sites_are_served() {
        use Error::OriginForeign;
        let check_fetch = |why: &str, line: &str, fields: &str, expected: Result<(), Error>| {
            let fields = fields.replace(" | ", "\r\n");
            let text = format!("{line} / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
            for guard in [local(), Guard::default()] {
                check(why, &guard, &text, expected);
            }
        };
        check_fetch("an image", "GET", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: no-cors", Err(OriginForeign));
        check_fetch("in any case", "GET", "sec-fetch-site: Cross-Site", Err(OriginForeign));
        check_fetch("among two fields", "GET", "Sec-Fetch-Site: same-origin | Sec-Fetch-Site: cross-site", Err(OriginForeign));
        check_fetch("no mode", "GET", "Sec-Fetch-Site: cross-site", Err(OriginForeign));
        check_fetch("a request that changes something", "POST", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: no-cors | Content-Length: 0", Err(OriginForeign));
        check_fetch("a WebSocket", "GET", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: websocket | Connection: Upgrade | Upgrade: websocket", Err(OriginForeign));
        check_fetch("a link", "GET", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: navigate", Ok(()));
        check_fetch("a link, only its head", "HEAD", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: navigate", Ok(()));
        check_fetch("a form", "POST", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: navigate | Content-Length: 0", Err(OriginForeign));
        check_fetch("a navigation with a body", "GET", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: navigate | Content-Length: 1", Err(OriginForeign));
        check_fetch("a navigation in chunks", "GET", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: navigate | Transfer-Encoding: chunked", Err(OriginForeign));
        check_fetch("a page on this machine, from another name of it", "POST", "Sec-Fetch-Site: cross-site | Origin: http://localhost:3000", Ok(()));
        check_fetch("a program on this machine", "POST", "Sec-Fetch-Site: cross-site | Origin: vscode-webview://abc", Ok(()));
        check_fetch("an origin that is refused", "GET", "Sec-Fetch-Site: cross-site | Sec-Fetch-Mode: navigate | Origin: https://evil.example", Err(OriginForeign));
        check_fetch("an empty origin is none", "GET", "Sec-Fetch-Site: cross-site | Origin:", Err(OriginForeign));
        for site in ["same-origin", "same-site", "none", "", "cross-sites"] {
            check_fetch("a page of this site, the address bar, what is unknown", "GET", &format!("Sec-Fetch-Site: {site}"), Ok(()));
        }
        let guard = |allowed: &str| Guard { allowed_origins: vec![allowed.to_owned()], ..local() };
        let image = "GET / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n";
        check("all origins are allowed", &guard("*"), image, Ok(()));
        check("some are, and this one is not known", &guard("https://a.example"), image, Err(OriginForeign));
        check("opaque ones are", &guard("null"), image, Err(OriginForeign));
    }

    #[track_caller]
    fn check_via(why: &str, lines: &[&str], expected: Result<(), Error>) {
        let lines: String = lines
            .iter()
            .map(|value| format!("Via: {value}\r\n"))
            .collect();
        let text = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        assert_eq!(verdict(&local(), &text), expected, "{why}: {text:?}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_request_with_five_via_entries_of_ic_is_a_loop() {
        let (fine, over) = (Ok(()), Err(Error::Loop));
        check_via("four times", &["1.1 ic"; 4], fine);
        check_via("five times", &["1.1 ic"; 5], over);
        check_via("in one list", &["1.1 ic, 1.1 ic,1.1 ic,\t1.1 ic , 1.1 ic"], over);
        check_via("in lists and lines", &["1.1 ic, 1.1 ic", "1.1 ic", "1.1 ic, 1.1 ic"], over);
        check_via("any received protocol and spelling", &["1.0 ic", "HTTP/1.1 ic", "2 IC", "1.1\tic", "1.1  ic (a comment)"], over);
        check_via("other proxies do not count", &["1.1 nginx, 1.1 ic2, 1.1 ic.example, ic 1.1, ic", "1.1 a (1.1 ic)", "1.1 ic:80"], fine);
        check_via("other proxies in between", &["1.1 a, 1.1 ic", "1.1 ic, 1.1 b, 1.1 ic, 1.1 ic", "1.1 c, 1.1 ic"], over);
    }
}
