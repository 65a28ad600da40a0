//! Message heads for the next hop (RFC 9110 §7.6): which fields are removed, set and replaced.
//!
//! All others are copied: names keep their case, fields their order, values their bytes.

use super::connection::{self, ConnectionOptions};
use super::framing::{self, Framing};
use super::grammar::{is_field_value, is_token, list, number};
use super::head::{Field, RequestHead, ResponseHead, Version, elements, values};
use super::reply::ConnectionField;
use super::target::{Target, host_of};

/// What is changed in every request, prepared once.
#[derive(Debug, Clone)]
pub struct RequestRewriter {
    host: String,
    base_path: String,
    /// The scheme and authority in front of every path where requests are sent to a proxy; else empty.
    proxy_prefix: Vec<u8>,
    lines: Vec<u8>,
    names: Vec<String>,
}

/// A field that cannot be set: its name is not a token or is one that this hop manages, or its value holds a control character.
/// Also an invalid host or base path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField(pub String);

impl RequestRewriter {
    /// `host` is the target's `Host`; `base_path` is empty or starts with `/`; each of `fields` replaces the client's fields of
    /// that name. Of equal names the last wins.
    ///
    /// # Errors
    ///
    /// The name of the first of them that is invalid.
    pub fn new(
        host: &str,
        base_path: &str,
        fields: &[(String, String)],
    ) -> Result<Self, InvalidField> {
        if host_of(host).is_none() {
            return Err(InvalidField(format!("Host: {host}")));
        }
        let is_path = (base_path.is_empty() || base_path.starts_with('/'))
            && base_path.bytes().all(|byte| byte.is_ascii_graphic())
            && !base_path.contains(['?', '#']);
        if !is_path {
            return Err(InvalidField(format!("the base path {base_path}")));
        }
        let mut rewriter = RequestRewriter {
            host: host.to_owned(),
            base_path: base_path.trim_end_matches('/').to_owned(),
            proxy_prefix: Vec::new(),
            lines: Vec::new(),
            names: Vec::new(),
        };
        for (index, (name, value)) in fields.iter().enumerate() {
            let is_valid = is_token(name.as_bytes())
                && is_field_value(value.as_bytes())
                && !framing::is_framing(name)
                && !connection::is_always_hop_by_hop(name)
                && !["Host", "Via", "Trailer"]
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(name));
            if !is_valid {
                return Err(InvalidField(name.clone()));
            }
            let is_overruled = fields[index + 1..]
                .iter()
                .any(|(later, _)| later.eq_ignore_ascii_case(name));
            if !is_overruled {
                let value = value.trim_matches([' ', '\t']).as_bytes();
                line(&Field { name, value }, &mut rewriter.lines);
                rewriter.names.push(name.clone());
            }
        }
        Ok(rewriter)
    }

    /// The same for requests that are sent to a proxy, in absolute-form (RFC 9112 §3.2.2). A `Proxy-Authorization` among the
    /// fields wins over `authorization`.
    pub fn through_proxy(mut self, authorization: Option<&[u8]>) -> Self {
        self.proxy_prefix = format!("http://{}", self.host).into_bytes();
        let name = "Proxy-Authorization";
        if let Some(value) = authorization.filter(|_| !self.sets(name)) {
            line(&Field { name, value }, &mut self.lines);
            self.names.push(name.to_owned());
        }
        self
    }

    /// Removes field `name` and returns its value.
    pub fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let own = |own: &String| own.eq_ignore_ascii_case(name);
        let at = self.names.iter().position(own)?;
        let mut lines = self.lines.split_inclusive(|&byte| byte == b'\n');
        let start: usize = lines.by_ref().take(at).map(<[u8]>::len).sum();
        let len = lines.next()?.len();
        let line: Vec<u8> = self.lines.drain(start..start + len).collect();
        self.names.remove(at);
        Some(value(name, &line).to_vec())
    }

    /// Returns the fields that a request of this version gets, in place of those that the client may have sent.
    pub fn added(&self, version: Version) -> Vec<Field<'_>> {
        let host = Field {
            name: "Host",
            value: self.host.as_bytes(),
        };
        let via = Field {
            name: "Via",
            value: via(version),
        };
        let lines = self.lines.split_inclusive(|&byte| byte == b'\n');
        let set = self.names.iter().zip(lines).map(|(name, line)| Field {
            name,
            value: value(name, line),
        });
        [host, via].into_iter().chain(set).collect()
    }

    /// Whether it sets field `name`, or one that the target may take for the same.
    pub fn sets(&self, name: &str) -> bool {
        self.names.iter().any(|own| is_same_variable(own, name))
    }
}

/// Whether fields of these names can reach a program as one variable, as `X-Source` and `x_source` do: CGI and WSGI write letters in
/// upper case and `_` for `-` (RFC 3875 §4.1.18), lighttpd and PHP `_` for other characters as well.
fn is_same_variable(name: &str, other: &str) -> bool {
    let is_same = |(a, b): (u8, u8)| {
        a.eq_ignore_ascii_case(&b) || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric())
    };
    name.len() == other.len() && name.bytes().zip(other.bytes()).all(is_same)
}

/// Writes the head of a request for the target. Returns whether it asks for an upgrade.
pub fn request(
    head: &RequestHead<'_, '_>,
    target: &Target<'_>,
    options: &ConnectionOptions<'_>,
    framing: Framing,
    rewriter: &RequestRewriter,
    out: &mut Vec<u8>,
) -> bool {
    // Not with a body: the target could take its bytes for the new protocol.
    let upgrades = options.has_upgrade()
        && head.version == Version::Http11
        && framing == Framing::Empty
        && elements(head.fields, "Upgrade").any(is_forwarded_protocol);
    request_line(head.method, target, rewriter, out);
    let accepts_trailers = client_fields(head, options, upgrades, rewriter, out);
    let (name, value) = ("Via", via(head.version));
    line(&Field { name, value }, out);
    out.extend_from_slice(&rewriter.lines);
    // RFC 9110 §7.8, §10.1.4: a sender of these names them in `Connection`.
    let connection: &[u8] = match (upgrades, accepts_trailers) {
        (true, true) => b"Connection: Upgrade, TE\r\n",
        (true, false) => b"Connection: Upgrade\r\n",
        (false, true) => b"Connection: TE\r\n",
        (false, false) => b"",
    };
    out.extend_from_slice(connection);
    out.extend_from_slice(b"\r\n");
    upgrades
}

/// Whether a request is for this hop: an `OPTIONS` or a `TRACE` with `Max-Forwards: 0` (RFC 9110 §7.6.2).
pub fn ends_here(head: &RequestHead<'_, '_>) -> bool {
    counts_forwards(head.method)
        && values(head.fields, "Max-Forwards").any(|value| number(value) == Some(0))
}

/// RFC 9110 §7.6.2: other methods may ignore `Max-Forwards`.
fn counts_forwards(method: &str) -> bool {
    matches!(method, "OPTIONS" | "TRACE")
}

fn request_line(method: &str, target: &Target<'_>, rewriter: &RequestRewriter, out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(&rewriter.proxy_prefix);
    let path = out.len();
    target.write(method, &rewriter.base_path, out);
    // RFC 9112 §3.2.4: a proxy turns a URL without a path back into the asterisk.
    if !rewriter.proxy_prefix.is_empty() && &out[path..] == b"*" {
        out.truncate(path);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes the client's fields that are forwarded, each in its place, with the target's `Host` in the place of the client's.
/// Returns whether `TE` is among them.
fn client_fields(
    head: &RequestHead<'_, '_>,
    options: &ConnectionOptions<'_>,
    upgrades: bool,
    rewriter: &RequestRewriter,
    out: &mut Vec<u8>,
) -> bool {
    let host = |name| Field {
        name,
        value: rewriter.host.as_bytes(),
    };
    let counts_forwards = counts_forwards(head.method);
    let mut has_host = false;
    let mut accepts_trailers = false;
    for field in head.fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("Host") {
            if !has_host {
                line(&host(field.name), out);
            }
            has_host = true;
        } else if is("TE") {
            let is_trailers = |coding: &[u8]| coding.eq_ignore_ascii_case(b"trailers");
            accepts_trailers |= list_line(field, is_trailers, out);
        } else if upgrades && is("Upgrade") {
            list_line(field, is_forwarded_protocol, out);
        } else if is_forwarded(field.name, head.version, options, rewriter) {
            let is_counted = counts_forwards && is("Max-Forwards");
            match is_counted.then(|| number(field.value)).flatten() {
                Some(left) => {
                    let value = left.saturating_sub(1).to_string();
                    let (name, value) = (field.name, value.as_bytes());
                    line(&Field { name, value }, out);
                }
                None => line(field, out),
            }
        }
    }
    if !has_host {
        line(&host("Host"), out);
    }
    accepts_trailers
}

/// Whether a field of a request is forwarded as it is.
fn is_forwarded(
    name: &str,
    version: Version,
    options: &ConnectionOptions<'_>,
    rewriter: &RequestRewriter,
) -> bool {
    // RFC 9110 §10.1.1: an expectation in an HTTP/1.0 request is to be ignored; its client does not understand a 100.
    let is_ignored = version == Version::Http10 && name.eq_ignore_ascii_case("Expect");
    !is_ignored && !options.is_hop_by_hop(name) && !rewriter.sets(name)
}

/// Writes the head of a response for the client.
///
/// With `is_dechunked`, `Transfer-Encoding` is removed: from every response to an HTTP/1.0 client, which understands none
/// (RFC 9112 §6.1), with or without a body.
pub fn response(
    head: &ResponseHead<'_, '_>,
    options: &ConnectionOptions<'_>,
    connection_field: ConnectionField,
    is_dechunked: bool,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status_and_reason);
    // RFC 9112 §4: the space is required even without a reason phrase.
    if head.status_and_reason.len() == STATUS_LEN {
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
    // RFC 9112 §6.1, RFC 9110 §8.6: these have no body and must not have framing fields.
    let forbids_framing = matches!(head.status, 100..=199 | 204);
    // RFC 9110 §15.5.22: a 426 names the required protocol.
    let keeps_upgrade = connection_field == ConnectionField::Upgrade || head.status == 426;
    let mut upgrades = connection_field == ConnectionField::Upgrade;
    for field in head.fields {
        let passes = if field.name.eq_ignore_ascii_case("Upgrade") {
            upgrades |= keeps_upgrade;
            keeps_upgrade
        } else if framing::is_framing(field.name) {
            !(forbids_framing || is_dechunked && framing::is_coding(field.name))
        } else {
            !options.is_hop_by_hop(field.name)
        };
        if passes {
            line(field, out);
        }
    }
    out.extend_from_slice(connection_field.line(upgrades).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Returns the value of a line that [`line`] wrote for field `name`.
fn value<'l>(name: &str, line: &'l [u8]) -> &'l [u8] {
    line[name.len() + ": ".len()..].trim_ascii_end()
}

/// Returns what names this hop to the next one: the version that the request came in, and
/// [`PSEUDONYM`](super::guard::PSEUDONYM) (RFC 9110 §7.6.3).
fn via(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"1.0 ic",
        Version::Http11 => b"1.1 ic",
    }
}

/// Writes one field line.
pub(super) fn line(field: &Field<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the elements of a list that pass, the line as it is if all do. Returns whether any does.
fn list_line(field: &Field<'_>, passes: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) -> bool {
    let mut kept = list(field.value).filter(|element| passes(element));
    let Some(first) = kept.next() else {
        return false;
    };
    if list(field.value).all(&passes) {
        line(field, out);
        return true;
    }
    let (name, value) = (field.name, first);
    line(&Field { name, value }, out);
    for element in kept {
        out.truncate(out.len() - b"\r\n".len());
        out.extend_from_slice(b", ");
        out.extend_from_slice(element);
        out.extend_from_slice(b"\r\n");
    }
    true
}

/// The length of a status code.
const STATUS_LEN: usize = 3;

/// Whether an upgrade to `protocol` is forwarded. Java's client offers `h2c` with every first request; some servers then drop
/// the body or hang, and a hop that reads HTTP/1.1 can forward neither it nor TLS.
fn is_forwarded_protocol(protocol: &[u8]) -> bool {
    // protocol-name [ "/" protocol-version ], both tokens.
    let mut parts = protocol.splitn(2, |&byte| byte == b'/');
    let name = parts.next().unwrap_or_default();
    is_token(name)
        && parts.all(is_token)
        && ![&b"h2c"[..], b"h2", b"TLS", b"HTTP"]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{with_request, with_response};
    use super::*;

    /// What every request of the tables gets: `Host: o:1`, and in the end `Via` and `x-source: ic`.
    fn rewriter() -> RequestRewriter {
        let fields = [("x-source".to_owned(), "ic".to_owned())];
        RequestRewriter::new("o:1", "/base", &fields).expect("it is valid")
    }

    /// The head that `lines`, separated by ` | `, are.
    fn head_text(lines: &str) -> String {
        lines.replace(" | ", "\r\n") + "\r\n\r\n"
    }

    fn rewritten_with(rewriter: &RequestRewriter, lines: &str) -> (String, bool) {
        with_request(&head_text(lines), |head| {
            let target = Target::parse(head.method, head.target).expect("rows have a target");
            let framing = framing::of_request(head).expect("rows are framed");
            let options = ConnectionOptions::parse(head.fields).expect("rows have few");
            let mut out = Vec::new();
            let upgrades = request(head, &target, &options, framing, rewriter, &mut out);
            let text = out.escape_ascii().to_string();
            let lines = text
                .strip_suffix(r"\r\n\r\n")
                .expect("a head ends in an empty line");
            (lines.replace(r"\r\n", " | "), upgrades)
        })
    }

    /// `expected` is what the origin gets before `Via` and the fields that are set.
    #[track_caller]
    fn check(why: &str, lines: &str, expected: &str) {
        let (text, upgrades) = rewritten_with(&rewriter(), lines);
        assert_eq!(
            text,
            format!("{expected} | Via: 1.1 ic | x-source: ic"),
            "{why}"
        );
        assert!(!upgrades, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_request_passes_as_it_is_but_for_this_hops_fields() {
        check("host and path", "GET /a?b HTTP/1.1 | Host: a", "GET /base/a?b HTTP/1.1 | Host: o:1");
        check("the host keeps its place and its spelling", "GET / HTTP/1.1 | A: 1 | hOST: a | B: 2", "GET /base/ HTTP/1.1 | A: 1 | hOST: o:1 | B: 2");
        check("absolute-form", "GET http://a/b HTTP/1.1 | Host: a", "GET /base/b HTTP/1.1 | Host: o:1");
        check("asterisk-form", "OPTIONS * HTTP/1.1 | Host: a", "OPTIONS * HTTP/1.1 | Host: o:1");
        check("names, order, bytes", "GET / HTTP/1.1 | Host: a | b: x\ty  z | A: | b: \u{e9}", r"GET /base/ HTTP/1.1 | Host: o:1 | b: x\ty  z | A:  | b: \xc3\xa9");
        check("white space around values is not theirs", "GET / HTTP/1.1 | Host: a | b:\t1 ", "GET /base/ HTTP/1.1 | Host: o:1 | b: 1");
        check("an empty body that is announced", "GET / HTTP/1.1 | Host: a | Content-Length: 0", "GET /base/ HTTP/1.1 | Host: o:1 | Content-Length: 0");
        check("framing by length", "PUT / HTTP/1.1 | Host: a | content-length: 007", "PUT /base/ HTTP/1.1 | Host: o:1 | content-length: 007");
        check("framing in chunks", "PUT / HTTP/1.1 | Host: a | Transfer-Encoding: Chunked | Trailer: A", "PUT /base/ HTTP/1.1 | Host: o:1 | Transfer-Encoding: Chunked | Trailer: A");
        check("framing that Connection names", "PUT / HTTP/1.1 | Host: a | Connection: content-length, host | Content-Length: 1", "PUT /base/ HTTP/1.1 | Host: o:1 | Content-Length: 1");
        check("an expectation", "PUT / HTTP/1.1 | Host: a | Expect: 100-continue | Content-Length: 1", "PUT /base/ HTTP/1.1 | Host: o:1 | Expect: 100-continue | Content-Length: 1");
        check("credentials", "GET / HTTP/1.1 | Host: a | Authorization: b | Cookie: c | Proxy-Authorization: d", "GET /base/ HTTP/1.1 | Host: o:1 | Authorization: b | Cookie: c | Proxy-Authorization: d");
        check("what others have passed", "GET / HTTP/1.1 | Host: a | Via: 1.0 b (c)", "GET /base/ HTTP/1.1 | Host: o:1 | Via: 1.0 b (c)");
        check("names that only look like ours", "GET / HTTP/1.1 | Host: a | x-sources: b | xx-source: c | xsource: d | x__source: e | xasource: f | x-sourc_: g", "GET /base/ HTTP/1.1 | Host: o:1 | x-sources: b | xx-source: c | xsource: d | x__source: e | xasource: f | x-sourc_: g");

        check("what is ours is replaced", "GET / HTTP/1.1 | Host: a | X-Source: b | x-source: c", "GET /base/ HTTP/1.1 | Host: o:1");
        check("what is ours to a CGI program", "GET / HTTP/1.1 | Host: a | X_Source: b | x_SOURCE: c | x.source: d", "GET /base/ HTTP/1.1 | Host: o:1");
        check("what is ours, though Connection names it", "GET / HTTP/1.1 | Host: a | Connection: x-source, via | X-Source: b", "GET /base/ HTTP/1.1 | Host: o:1");
        check("this hop's fields", "GET / HTTP/1.1 | Connection: keep-alive | Host: a | Keep-Alive: timeout=5 | Proxy-Connection: x | TE: gzip", "GET /base/ HTTP/1.1 | Host: o:1");
        check("what Connection names, before it and behind it", "GET / HTTP/1.1 | X-A: 1 | Connection: x-a, X-B | Host: a | x-b: 2 | x-c: 3", "GET /base/ HTTP/1.1 | Host: o:1 | x-c: 3");
        check("what any of two Connections names", "GET / HTTP/1.1 | Host: a | Connection: close | X-A: 1 | Connection: x-a", "GET /base/ HTTP/1.1 | Host: o:1");
        check("Java's offer of HTTP/2", "GET / HTTP/1.1 | Connection: Upgrade, HTTP2-Settings | Host: a | HTTP2-Settings: AAEA | Upgrade: h2c", "GET /base/ HTTP/1.1 | Host: o:1");
    }

    #[test]
    fn a_request_of_http_1_0_becomes_one_of_http_1_1() {
        let rewritten = |lines| rewritten_with(&rewriter(), lines).0;
        assert_eq!(
            rewritten("GET / HTTP/1.0"),
            "GET /base/ HTTP/1.1 | Host: o:1 | Via: 1.0 ic | x-source: ic"
        );
        assert_eq!(
            rewritten(
                "PUT / HTTP/1.0 | Host: a | Connection: keep-alive | Expect: 100-continue | Content-Length: 1"
            ),
            "PUT /base/ HTTP/1.1 | Host: o:1 | Content-Length: 1 | Via: 1.0 ic | x-source: ic",
            "its expectation is ignored (RFC 9110 §10.1.1)"
        );
        assert_eq!(
            rewritten("GET / HTTP/1.0 | Connection: Upgrade | Upgrade: websocket"),
            "GET /base/ HTTP/1.1 | Host: o:1 | Via: 1.0 ic | x-source: ic",
            "it knows no upgrade (RFC 9110 §7.8)"
        );
    }

    #[test]
    fn a_request_never_gets_two_hosts() {
        let (text, _) = rewritten_with(&rewriter(), "GET / HTTP/1.1 | Host: a | Host: b");
        assert_eq!(
            text,
            "GET /base/ HTTP/1.1 | Host: o:1 | Via: 1.1 ic | x-source: ic"
        );
    }

    /// `fields` go on in their places, and `connection` follows at the end.
    #[track_caller]
    fn check_hop(why: &str, lines: &str, fields: &str, connection: &str) {
        let lines = format!("GET / HTTP/1.1 | A: 1{lines} | Host: a");
        let (text, upgrades) = rewritten_with(&rewriter(), &lines);
        let start = "GET /base/ HTTP/1.1 | A: 1";
        let end = "Host: o:1 | Via: 1.1 ic | x-source: ic";
        let expected = format!("{start}{fields} | {end}{connection}");
        assert_eq!(text, expected, "{why}");
        assert_eq!(upgrades, connection.contains("Upgrade"), "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn max_forwards_counts_the_hops_of_options_and_trace() {
        #[track_caller]
        fn check_forwards(why: &str, method: &str, lines: &str, expected: &str, ends: bool) {
            let request = format!("{method} / HTTP/1.1 | Host: a{lines}");
            let (text, _) = rewritten_with(&rewriter(), &request);
            assert_eq!(text, format!("{method} /base/ HTTP/1.1 | Host: o:1{expected} | Via: 1.1 ic | x-source: ic"), "{why}");
            assert_eq!(with_request(&head_text(&request), ends_here), ends, "{why}");
        }
        for method in ["OPTIONS", "TRACE"] {
            check_forwards("one less (RFC 9110 §7.6.2)", method, " | max-forwards: 10 | A: 1", " | max-forwards: 9 | A: 1", false);
            check_forwards("the last hop", method, " | Max-Forwards: 1", " | Max-Forwards: 0", false);
            check_forwards("this is the last hop", method, " | Max-Forwards: 0", " | Max-Forwards: 0", true);
            check_forwards("in any spelling", method, " | MAX-FORWARDS: 000", " | MAX-FORWARDS: 0", true);
            check_forwards("one of two", method, " | Max-Forwards: 5 | Max-Forwards: 0", " | Max-Forwards: 4 | Max-Forwards: 0", true);
            check_forwards("not a number", method, " | Max-Forwards: -1", " | Max-Forwards: -1", false);
            check_forwards("none", method, "", "", false);
        }
        check_forwards("other methods ignore it", "GET", " | Max-Forwards: 0", " | Max-Forwards: 0", false);
        check_forwards("methods are case-sensitive", "trace", " | Max-Forwards: 5", " | Max-Forwards: 5", false);
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_upgrade_passes_where_it_can_be_carried_out() {
        const UPGRADE: &str = " | Connection: Upgrade";
        check_hop("WebSocket", " | Connection: Upgrade | Upgrade: websocket", " | Upgrade: websocket", UPGRADE);
        check_hop("in its place", " | Upgrade: websocket | B: 2 | Connection: Upgrade", " | Upgrade: websocket | B: 2", UPGRADE);
        check_hop("spelt otherwise", " | connection: keep-alive, UPGRADE | UPGRADE: WebSocket", " | UPGRADE: WebSocket", UPGRADE);
        check_hop("others", " | Connection: Upgrade | Upgrade: foo/2.1", " | Upgrade: foo/2.1", UPGRADE);
        check_hop("a list", " | Connection: Upgrade | Upgrade: websocket,foo ,\tbar", " | Upgrade: websocket,foo ,\\tbar", UPGRADE);
        check_hop("several lines", " | Connection: Upgrade | upgrade: websocket | B: 2 | Upgrade: foo", " | upgrade: websocket | B: 2 | Upgrade: foo", UPGRADE);
        check_hop("HTTP/2 beside it", " | Connection: Upgrade | Upgrade: h2c, WebSocket,h2,foo", " | Upgrade: WebSocket, foo", UPGRADE);
        check_hop("HTTP/2 on another line", " | Connection: Upgrade | Upgrade: h2c | upgrade: websocket", " | upgrade: websocket", UPGRADE);
        check_hop("HTTP/2 alone", " | Connection: Upgrade | Upgrade: h2c", "", "");
        check_hop("HTTP/2 over TLS", " | Connection: Upgrade | Upgrade: h2", "", "");
        check_hop("TLS (RFC 2817)", " | Connection: Upgrade | Upgrade: TLS/1.0, HTTP/1.1", "", "");
        check_hop("not asked for in Connection", " | Upgrade: websocket", "", "");
        check_hop("nothing to upgrade to", " | Connection: Upgrade", "", "");
        check_hop("an empty list", " | Connection: Upgrade | Upgrade: ,", "", "");
        check_hop("what is no protocol", " | Connection: Upgrade | Upgrade: web socket, a/b/c, /1, a/", "", "");
        check_hop("with a body", " | Connection: Upgrade | Upgrade: websocket | Content-Length: 1", " | Content-Length: 1", "");
        check_hop("with chunks", " | Connection: Upgrade | Upgrade: websocket | Transfer-Encoding: chunked", " | Transfer-Encoding: chunked", "");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn te_passes_where_it_accepts_trailers() {
        const TE: &str = " | Connection: TE";
        check_hop("trailers", " | Connection: TE | TE: trailers", " | TE: trailers", TE);
        check_hop("in its place", " | TE: trailers | B: 2 | Connection: TE", " | TE: trailers | B: 2", TE);
        check_hop("spelt otherwise", " | te: Trailers | connection: te", " | te: Trailers", TE);
        check_hop("among codings, which do not pass", " | TE: gzip;q=0.5, Trailers | Connection: TE", " | TE: Trailers", TE);
        check_hop("beside a line of codings", " | TE: gzip | Connection: TE | te: trailers", " | te: trailers", TE);
        check_hop("not named in Connection", " | TE: trailers", " | TE: trailers", TE);
        check_hop("codings alone", " | Connection: TE | TE: gzip", "", "");
        check_hop("empty", " | Connection: TE | TE:", "", "");
        check_hop("a weight makes it another coding", " | Connection: TE | TE: trailers;q=0", "", "");
        check_hop("beside an upgrade", " | Connection: TE, Upgrade | TE: trailers | Upgrade: websocket", " | TE: trailers | Upgrade: websocket", " | Connection: Upgrade, TE");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn what_cannot_be_set_is_refused_by_name() {
        #[track_caller]
        fn check(why: &str, name: &str, value: &str, is_valid: bool) {
            let rewriter = RequestRewriter::new("o", "", &[(name.to_owned(), value.to_owned())]);
            assert_eq!(rewriter.is_ok(), is_valid, "{why}");
            if let Err(InvalidField(named)) = rewriter {
                assert_eq!(named, name, "{why}");
            }
        }
        check("the usual", "x-memory-user-id", "pycharm-a", true);
        check("an empty value", "x", "", true);
        check("another alphabet", "x", "größer", true);
        check("credentials", "Authorization", "Bearer x", true);
        check("no name", "", "a", false);
        check("a name that is no token", "x y", "a", false);
        check("a name with its colon", "x:", "a", false);
        check("a line break in the name", "x\r\nHost", "a", false);
        check("a line break in the value", "x", "a\r\nHost: b", false);
        check("NUL in the value", "x", "a\0", false);
        check("DEL in the value", "x", "a\x7f", false);
        for name in ["host", "Via", "Trailer", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "upgrade", "Proxy-Connection", "HTTP2-Settings"] {
            check("this hop's own", name, "a", false);
        }
    }

    #[test]
    fn of_two_values_for_one_name_the_last_is_set() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = [field("A", "1"), field("B", " \t2 "), field("a", "3")];
        let rewriter = RequestRewriter::new("o", "", &fields).expect("they are settable");
        let (text, _) = rewritten_with(&rewriter, "GET / HTTP/1.1 | Host: a | A: 4 | b: 5");
        assert_eq!(text, "GET / HTTP/1.1 | Host: o | Via: 1.1 ic | B: 2 | a: 3");
        assert!(rewriter.sets("A") && rewriter.sets("b") && !rewriter.sets("c"));
    }

    #[test]
    fn the_origin_is_a_host_and_a_path() {
        let is_taken = |host: &str, base: &str| RequestRewriter::new(host, base, &[]).is_ok();
        for (host, base) in [
            ("o", ""),
            ("o:1", "/"),
            ("[::1]:1", "/a/v1"),
            ("o", "/a/"),
            ("o", "/a%20b"),
        ] {
            assert!(is_taken(host, base), "{host:?} {base:?}");
        }
        for host in ["", "o o", "o\r\nA: b", "http://o", "o/", "o:x"] {
            assert!(!is_taken(host, ""), "{host:?}");
        }
        for base in ["a", "/a b", "/a\r\n", "/a?b", "/a#b", "/é"] {
            assert!(!is_taken("o", base), "{base:?}");
        }
        let rewriter = RequestRewriter::new("o", "/a/", &[]).expect("it is one");
        let (text, _) = rewritten_with(&rewriter, "GET /b HTTP/1.1 | Host: a");
        assert_eq!(
            text, "GET /a/b HTTP/1.1 | Host: o | Via: 1.1 ic",
            "a slash is not doubled"
        );
    }

    /// `expected` is what the client gets.
    #[track_caller]
    fn check_response(
        why: &str,
        lines: &str,
        connection_field: ConnectionField,
        is_dechunked: bool,
        expected: &str,
    ) {
        let text = with_response(&head_text(lines), |head| {
            let mut out = Vec::new();
            let options = ConnectionOptions::parse(head.fields).expect("rows have few");
            response(head, &options, connection_field, is_dechunked, &mut out);
            out.escape_ascii().to_string()
        });
        let lines = text
            .strip_suffix(r"\r\n\r\n")
            .expect("a head ends in an empty line");
        assert_eq!(lines.replace(r"\r\n", " | "), expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_response_passes_as_it_is_but_for_this_hops_fields() {
        use ConnectionField::{Close, KeepAlive, Absent, Upgrade};
        check_response("names, order, bytes", "HTTP/1.1 200 Fine  \u{e9} | b: x  y | A: | B: 1", Absent, false, r"HTTP/1.1 200 Fine  \xc3\xa9 | b: x  y | A:  | B: 1");
        check_response("HTTP/1.0 becomes HTTP/1.1", "HTTP/1.0 404 Not Found | A: b", Absent, false, "HTTP/1.1 404 Not Found | A: b");
        check_response("a reason that is missing", "HTTP/1.1 200 | A: b", Absent, false, "HTTP/1.1 200  | A: b");
        check_response("a reason that is empty", "HTTP/1.1 200  | A: b", Absent, false, "HTTP/1.1 200  | A: b");
        check_response("by length", "HTTP/1.1 200 OK | Content-Length: 5", Absent, false, "HTTP/1.1 200 OK | Content-Length: 5");
        check_response("in chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked | Trailer: A", Absent, false, "HTTP/1.1 200 OK | Transfer-Encoding: chunked | Trailer: A");
        check_response("cookies stay apart", "HTTP/1.1 200 OK | Set-Cookie: a | Set-Cookie: b", Absent, false, "HTTP/1.1 200 OK | Set-Cookie: a | Set-Cookie: b");
        check_response("an early hint", "HTTP/1.1 103 Early Hints | Link: x", Absent, false, "HTTP/1.1 103 Early Hints | Link: x");
        check_response("a 304 with the length of what it stands for", "HTTP/1.1 304 Not Modified | Content-Length: 5", Absent, false, "HTTP/1.1 304 Not Modified | Content-Length: 5");

        check_response("this hop's fields", "HTTP/1.1 200 OK | Connection: close, x-a | Keep-Alive: timeout=5 | Proxy-Connection: x | TE: a | X-A: 1 | X-B: 2", Absent, false, "HTTP/1.1 200 OK | X-B: 2");
        check_response("framing that Connection names", "HTTP/1.1 200 OK | Connection: Content-Length | Content-Length: 5", Absent, false, "HTTP/1.1 200 OK | Content-Length: 5");
        check_response("the client's connection closes", "HTTP/1.1 200 OK | Connection: keep-alive", Close, false, "HTTP/1.1 200 OK | Connection: close");
        check_response("an HTTP/1.0 client gets keep-alive", "HTTP/1.1 200 OK | Content-Length: 5", KeepAlive, false, "HTTP/1.1 200 OK | Content-Length: 5 | Connection: keep-alive");
        check_response("a body without its chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked", Close, true, "HTTP/1.1 200 OK | Connection: close");
        check_response("a length has nothing to be decoded", "HTTP/1.1 200 OK | Content-Length: 5", Close, true, "HTTP/1.1 200 OK | Content-Length: 5 | Connection: close");
        check_response("204 has no body to announce (RFC 9112 §6.1)", "HTTP/1.1 204 No Content | Transfer-Encoding: chunked | A: b", Absent, false, "HTTP/1.1 204 No Content | A: b");
        check_response("nor a length (RFC 9110 §8.6)", "HTTP/1.1 204 No Content | Content-Length: 5", Absent, false, "HTTP/1.1 204 No Content");
        check_response("nor has 100", "HTTP/1.1 100 Continue | Content-Length: 5", Absent, false, "HTTP/1.1 100 Continue");

        check_response("an upgrade", "HTTP/1.1 101 Switching Protocols | Connection: upgrade | Upgrade: websocket | Sec-WebSocket-Accept: x", Upgrade, false, "HTTP/1.1 101 Switching Protocols | Upgrade: websocket | Sec-WebSocket-Accept: x | Connection: Upgrade");
        check_response("an unrequested offer", "HTTP/1.1 200 OK | Connection: Upgrade | Upgrade: h2,h2c", Absent, false, "HTTP/1.1 200 OK");
        check_response("a demand (RFC 9110 §15.5.22)", "HTTP/1.1 426 Upgrade Required | Connection: Upgrade | Upgrade: websocket", Absent, false, "HTTP/1.1 426 Upgrade Required | Upgrade: websocket | Connection: Upgrade");
        check_response("a demand before the connection closes", "HTTP/1.1 426 Upgrade Required | Upgrade: websocket", Close, false, "HTTP/1.1 426 Upgrade Required | Upgrade: websocket | Connection: close, Upgrade");
        check_response("a demand to a client of HTTP/1.0", "HTTP/1.1 426 Upgrade Required | Upgrade: websocket", KeepAlive, false, "HTTP/1.1 426 Upgrade Required | Upgrade: websocket | Connection: keep-alive, Upgrade");
        check_response("a demand of nothing", "HTTP/1.1 426 Upgrade Required", Absent, false, "HTTP/1.1 426 Upgrade Required");
    }
}
