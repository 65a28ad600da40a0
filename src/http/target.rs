//! The four forms of a request target (RFC 9112 §3.2), and the target that is forwarded with a base path.

use super::error::Error;

/// A request target, by form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'b> {
    /// `/path?query`
    Origin(&'b str),
    /// `http://host/path?query`, as clients send to a proxy.
    Absolute {
        /// `host` or `host:port`.
        authority: &'b str,
        /// What follows it; may be empty.
        path: &'b str,
    },
    /// `*`, for `OPTIONS` only.
    Asterisk,
}

impl<'b> Target<'b> {
    /// Parses the target of a request with `method`; `CONNECT` is refused.
    pub fn parse(method: &str, target: &'b str) -> Result<Self, Error> {
        if method == "CONNECT" {
            return Err(Error::Connect);
        }
        // A fragment is never sent (RFC 9110 §4.2.5); recipients differ in how they treat one.
        if target.contains('#') {
            return Err(Error::Target);
        }
        if target == "*" {
            return if method == "OPTIONS" {
                Ok(Target::Asterisk)
            } else {
                Err(Error::Target)
            };
        }
        if target.starts_with('/') {
            return Ok(Target::Origin(target));
        }
        let (scheme, rest) = target.split_once("://").ok_or(Error::Target)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_scheme =
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_scheme || host_of(authority).is_none() {
            return Err(Error::Target);
        }
        if !scheme.eq_ignore_ascii_case("http") {
            // `https` to this port would have come over TLS: only a client that takes it for a proxy sends such a URL.
            return Err(Error::ForwardProxy);
        }
        Ok(Target::Absolute { authority, path })
    }

    /// The path and query, as sent.
    pub fn path(&self) -> &'b str {
        match *self {
            Target::Origin(path) | Target::Absolute { path, .. } => path,
            Target::Asterisk => "*",
        }
    }

    /// Writes the target that is forwarded: `base` and the path in origin-form, or `*`.
    ///
    /// `base` is empty or starts with `/`, and does not end in one. A `/v1` that both have is written once, since users add it
    /// to either.
    pub fn write(&self, method: &str, base: &str, out: &mut Vec<u8>) {
        let path = match *self {
            Target::Origin(path) => path,
            // RFC 9112 §3.2.4: an OPTIONS without a path asks about the server as a whole.
            Target::Absolute { path: "", .. } if method == "OPTIONS" => return out.push(b'*'),
            Target::Absolute { path, .. } => path,
            Target::Asterisk => return out.push(b'*'),
        };
        let is_doubled = path.strip_prefix(VERSION_SEGMENT).is_some_and(|rest| {
            base.ends_with(VERSION_SEGMENT) && (rest.is_empty() || rest.starts_with(['/', '?']))
        });
        let base = if is_doubled {
            &base[..base.len() - VERSION_SEGMENT.len()]
        } else {
            base
        };
        out.extend_from_slice(base.as_bytes());
        if !path.starts_with('/') {
            out.push(b'/');
        }
        out.extend_from_slice(path.as_bytes());
    }
}

/// The host of `uri-host [ ":" port ]`, brackets included; `None` if it is malformed or empty
/// (RFC 9110 §7.2, RFC 3986 §3.2.2).
pub fn host_of(authority: &str) -> Option<&str> {
    host_and_port(authority).map(|(host, _)| host)
}

/// The same with the port, which is `None` if it is absent or empty.
pub fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_len = match authority.strip_prefix('[') {
        Some(literal) => literal.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_len);
    let port = match port.strip_prefix(':') {
        Some("") => None,
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        None if port.is_empty() => None,
        _ => return None,
    };
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        // A zone (`%eth0`) has no meaning on another machine, and no other literal is in use.
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_reg_name_byte),
    };
    is_host.then_some((host, port))
}

/// `unreserved / sub-delims` without list separators and quotes. The grammar allows percent-encoding as well, but no name that
/// resolves contains it.
fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'+' | b'='
        )
}

const VERSION_SEGMENT: &str = "/v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(why: &str, request: &str, expected: Result<Target<'_>, Error>) {
        let (method, target) = request.split_once(' ').expect("rows are method and target");
        assert_eq!(Target::parse(method, target), expected, "{why}");
    }

    fn absolute<'b>(authority: &'b str, path: &'b str) -> Result<Target<'b>, Error> {
        Ok(Target::Absolute { authority, path })
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_target_has_one_of_four_forms_and_three_are_served() {
        use Target::{Asterisk, Origin};
        check("origin-form (§3.2.1)", "GET /", Ok(Origin("/")));
        check("with a query", "GET /a/b?c=d&e=/f?g", Ok(Origin("/a/b?c=d&e=/f?g")));
        check("an empty segment first", "GET //a", Ok(Origin("//a")));
        check("a URL as a path", "GET /http://a/b", Ok(Origin("/http://a/b")));
        check("dots are the origin's matter", "GET /a/../b/./%2e%2e/c", Ok(Origin("/a/../b/./%2e%2e/c")));
        check("absolute-form (§3.2.2)", "GET http://a/b?c", absolute("a", "/b?c"));
        check("with a port", "POST http://localhost:8888/v1", absolute("localhost:8888", "/v1"));
        check("a scheme in any case", "GET HTTP://a/", absolute("a", "/"));
        check("without path", "GET http://a", absolute("a", ""));
        check("a query without path", "GET http://a?b/c", absolute("a", "?b/c"));
        check("IPv6", "GET http://[::1]:80/", absolute("[::1]:80", "/"));
        check("asterisk-form (§3.2.4)", "OPTIONS *", Ok(Asterisk));
        check("OPTIONS of something", "OPTIONS /a", Ok(Origin("/a")));

        check("authority-form (§3.2.3)", "CONNECT a:443", Err(Error::Connect));
        check("CONNECT in any other form", "CONNECT /", Err(Error::Connect));
        check("authority-form for another method", "GET a:443", Err(Error::Target));
        check("an asterisk for another method", "GET *", Err(Error::Target));
        check("an asterisk and more", "OPTIONS */", Err(Error::Target));
        check("no slash", "GET a", Err(Error::Target));
        check("a query alone", "GET ?a", Err(Error::Target));
        check("nothing", "GET ", Err(Error::Target));
        check("a fragment", "GET /a#b", Err(Error::Target));
        check("a fragment behind a host", "GET http://a#/b", Err(Error::Target));
        check("https, which would have been TLS", "GET https://a/", Err(Error::ForwardProxy));
        check("another scheme", "GET ftp://a/", Err(Error::ForwardProxy));
        check("another scheme without a host", "GET file:///a", Err(Error::Target));
        check("a path without its slash, and a URL in it", "GET a?u=https://b/", Err(Error::Target));
        check("no scheme", "GET ://a/", Err(Error::Target));
        check("a scheme without slashes", "GET http:a/", Err(Error::Target));
        check("one slash", "GET http:/a/b", Err(Error::Target));
        check("half a scheme", "GET http", Err(Error::Target));
        check("a scheme split in a character", "GET http:/é/", Err(Error::Target));
        check("no host", "GET http:///a", Err(Error::Target));
        check("no host but a port", "GET http://:80/", Err(Error::Target));
        check("a user (RFC 9110 §4.2.4)", "GET http://a@b/", Err(Error::Target));
        check("a port that is no number", "GET http://a:b/", Err(Error::Target));
        check("a backslash in the host", "GET http://a\\b/", Err(Error::Target));
        check("an asterisk with a scheme", "OPTIONS http://*/", Err(Error::Target));
    }

    #[test]
    fn the_path_is_what_stands_behind_the_host() {
        let path = |method, target| Target::parse(method, target).map(|target| target.path());
        assert_eq!(path("GET", "/a?b"), Ok("/a?b"));
        assert_eq!(path("GET", "http://a/b?c"), Ok("/b?c"));
        assert_eq!(path("GET", "http://a"), Ok(""));
        assert_eq!(path("OPTIONS", "*"), Ok("*"));
    }

    /// `expected` is what the origin gets for `request` behind `base`.
    #[track_caller]
    fn check_path(why: &str, base: &str, request: &str, expected: &str) {
        let (method, target) = request.split_once(' ').expect("rows are method and target");
        let mut out = Vec::new();
        let target = Target::parse(method, target).expect("rows are targets");
        target.write(method, base, &mut out);
        assert_eq!(out.escape_ascii().to_string(), expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn the_base_path_goes_in_front_and_v1_is_not_doubled() {
        check_path("no base", "", "GET /a?b", "/a?b");
        check_path("no base, the root", "", "GET /", "/");
        check_path("a base", "/api", "GET /a?b", "/api/a?b");
        check_path("a base and the root", "/api", "GET /", "/api/");
        check_path("a query that looks like a path", "/api", "GET /a?/v1/b", "/api/a?/v1/b");
        check_path("/v1 on either end", "", "GET /v1/models", "/v1/models");
        check_path("/v1 on the other end", "/v1", "GET /models", "/v1/models");
        check_path("/v1 on both ends", "/v1", "GET /v1/models", "/v1/models");
        check_path("/v1 alone on both ends", "/v1", "GET /v1", "/v1");
        check_path("/v1 with a query", "/v1", "GET /v1?a", "/v1?a");
        check_path("/v1/", "/v1", "GET /v1/", "/v1/");
        check_path("behind more", "/openai/v1", "POST /v1/chat/completions", "/openai/v1/chat/completions");
        check_path("once only", "/v1", "GET /v1/v1/a", "/v1/v1/a");
        check_path("not in the middle of the base", "/v1/proxy", "GET /v1/a", "/v1/proxy/v1/a");
        check_path("not part of a segment of the path", "/v1", "GET /v1beta/a", "/v1/v1beta/a");
        check_path("not part of a segment of the base", "/dev1", "GET /v1/a", "/dev1/v1/a");
        check_path("not another version", "/v1", "GET /v2/a", "/v1/v2/a");
        check_path("not in another case", "/v1", "GET /V1/a", "/v1/V1/a");
        check_path("not behind an empty segment", "/v1", "GET //v1/a", "/v1//v1/a");
        check_path("not where it is percent-encoded", "/v1", "GET /%761/a", "/v1/%761/a");
        check_path("absolute-form becomes origin-form", "", "GET http://a/b?c", "/b?c");
        check_path("absolute-form behind a base", "/api/v1", "GET http://a/v1/b", "/api/v1/b");
        check_path("absolute-form without path", "", "GET http://a", "/");
        check_path("absolute-form without path, behind a base", "/api", "GET http://a", "/api/");
        check_path("absolute-form with a query only", "/api", "GET http://a?b", "/api/?b");
        check_path("a server as a whole has no base", "/api", "OPTIONS *", "*");
        check_path("in absolute-form (§3.2.4)", "/api", "OPTIONS http://a", "*");
        check_path("in absolute-form with a path", "/api", "OPTIONS http://a/", "/api/");
    }

    #[track_caller]
    fn check_host(why: &str, authority: &str, expected: Option<&str>) {
        assert_eq!(host_of(authority), expected, "{why}: {authority:?}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        check_host("a name", "localhost", Some("localhost"));
        check_host("a name and a port", "Example.COM:8888", Some("Example.COM"));
        check_host("a port may be empty (RFC 3986 §3.2.3)", "a:", Some("a"));
        check_host("the last dot", "localhost.", Some("localhost."));
        check_host("what containers are called", "my_service-1", Some("my_service-1"));
        check_host("IPv4", "127.0.0.1:80", Some("127.0.0.1"));
        check_host("IPv6", "[::1]", Some("[::1]"));
        check_host("IPv6 and a port", "[2001:db8::1]:65535", Some("[2001:db8::1]"));
        check_host("IPv4 within IPv6", "[::ffff:127.0.0.1]", Some("[::ffff:127.0.0.1]"));

        check_host("nothing", "", None);
        check_host("a port alone", ":80", None);
        check_host("two ports", "a:80:80", None);
        check_host("a port of letters", "a:b", None);
        check_host("a port with a sign", "a:+80", None);
        check_host("a port over 65535", "a:65536", None);
        check_host("a port of six digits", "a:000080", None);
        check_host("white space within", "a b", None);
        check_host("a tab before the port", "a\t:80", None);
        check_host("a list", "a, b", None);
        check_host("a user", "user@a", None);
        check_host("a path", "a/b", None);
        check_host("a query", "a?b", None);
        check_host("a URL", "http://a", None);
        check_host("a backslash", "a\\b", None);
        check_host("quotes", "\"a\"", None);
        check_host("angle brackets", "<a>", None);
        check_host("a semicolon", "a;b", None);
        check_host("NUL", "a\0", None);
        check_host("UTF-8", "bücher", None);
        check_host("an encoded name, which would not resolve", "a%2Db", None);
        check_host("a percent sign", "a%zz", None);
        check_host("IPv6 without brackets", "::1", None);
        check_host("brackets without address", "[]", None);
        check_host("brackets around a name", "[localhost]", None);
        check_host("brackets around IPv4", "[127.0.0.1]", None);
        check_host("an open bracket", "[::1", None);
        check_host("a closing bracket", "::1]", None);
        check_host("something behind the bracket", "[::1]a", None);
        check_host("something before the bracket", "a[::1]", None);
        check_host("a zone, which means nothing elsewhere", "[fe80::1%eth0]", None);
        check_host("a zone, encoded", "[fe80::1%25eth0]", None);
        check_host("an address of the future", "[v1.a]", None);
        check_host("a character across the bracket", "[é]", None);
    }
}
