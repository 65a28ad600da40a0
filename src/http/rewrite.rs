//! Heads for the next hop (RFC 9110 §7.6): what is left out, what is set, in which order.
//!
//! Everything else passes byte for byte: names keep their case, fields their order, values their bytes.

use super::connection::{self, Options};
use super::framing::{self, Framing};
use super::grammar::{is_field_value, is_token, list};
use super::guard::PSEUDONYM;
use super::head::{Field, RequestHead, ResponseHead, Version};
use super::target::{Target, host_of};

/// What every request gets on its way to the origin, made ready once.
#[derive(Debug, Clone)]
pub struct RequestRewriter {
    host: String,
    base_path: String,
    /// What stands in front of every path where a proxy is asked: `http://` and the host.
    server: Vec<u8>,
    lines: Vec<u8>,
    names: Vec<String>,
}

/// A field that cannot be set: its name is no token, or belongs to this hop, or its value holds a control
/// character. The origin's host and base path are named by what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettable(pub String);

impl RequestRewriter {
    /// `host` is the origin's `Host`; `base_path` is empty or starts with `/` and does not end in one; each
    /// of `fields` replaces what the client sent under its name. Of equal names the last wins.
    pub fn new(
        host: &str,
        base_path: &str,
        fields: &[(String, String)],
    ) -> Result<Self, Unsettable> {
        if host_of(host).is_none() {
            return Err(Unsettable(format!("Host: {host}")));
        }
        let is_path = (base_path.is_empty() || base_path.starts_with('/'))
            && base_path.bytes().all(|byte| byte.is_ascii_graphic())
            && !base_path.contains(['?', '#']);
        if !is_path {
            return Err(Unsettable(format!("the base path {base_path}")));
        }
        let mut onward = RequestRewriter {
            host: host.to_owned(),
            base_path: base_path.trim_end_matches('/').to_owned(),
            server: Vec::new(),
            lines: Vec::new(),
            names: Vec::new(),
        };
        for (index, (name, value)) in fields.iter().enumerate() {
            let is_settable = is_token(name.as_bytes())
                && is_field_value(value.as_bytes())
                && !framing::is_framing(name)
                && !connection::is_always_hop_by_hop(name)
                && !["Host", "Via", "Trailer"]
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(name));
            if !is_settable {
                return Err(Unsettable(name.clone()));
            }
            let is_overruled = fields[index + 1..]
                .iter()
                .any(|(later, _)| later.eq_ignore_ascii_case(name));
            if !is_overruled {
                let value = value.trim_matches([' ', '\t']).as_bytes();
                line(&Field { name, value }, &mut onward.lines);
                onward.names.push(name.clone());
            }
        }
        Ok(onward)
    }

    /// The same, sent to a proxy that knows nothing but the request: it gets the whole URL (RFC 9112 §3.2.2). A field of
    /// the user's own wins over `authorization`.
    pub fn through_proxy(mut self, authorization: Option<&[u8]>) -> Self {
        self.server = format!("http://{}", self.host).into_bytes();
        let name = "Proxy-Authorization";
        if let Some(value) = authorization.filter(|_| !self.is_ours(name)) {
            line(&Field { name, value }, &mut self.lines);
            self.names.push(name.to_owned());
        }
        self
    }

    /// Takes out what is set under `name`, for whoever is to get it in the origin's place.
    pub fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let own = |own: &String| own.eq_ignore_ascii_case(name);
        let at = self.names.iter().position(own)?;
        let mut lines = self.lines.split_inclusive(|&byte| byte == b'\n');
        let start: usize = lines.by_ref().take(at).map(<[u8]>::len).sum();
        let len = lines.next()?.len();
        let line: Vec<u8> = self.lines.drain(start..start + len).collect();
        self.names.remove(at);
        let value = line[name.len() + ": ".len()..].trim_ascii_end();
        Some(value.to_vec())
    }

    /// Whether `name` is a field that this hop sets itself.
    pub fn is_ours(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// Writes the head that the origin gets. Returns whether it asks for an upgrade.
pub fn request(
    head: &RequestHead<'_, '_>,
    target: &Target<'_>,
    options: &Options<'_>,
    framing: Framing,
    onward: &RequestRewriter,
    out: &mut Vec<u8>,
) -> bool {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(&onward.server);
    let path = out.len();
    target.write(head.method, &onward.base_path, out);
    // RFC 9112 §3.2.4: the proxy makes the asterisk of a URL without a path.
    if !onward.server.is_empty() && &out[path..] == b"*" {
        out.truncate(path);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");

    let host = Field {
        name: "Host",
        value: onward.host.as_bytes(),
    };
    let mut has_host = false;
    for field in head.fields {
        if field.name.eq_ignore_ascii_case("Host") {
            // It stays where it was, spelt as it was.
            if !has_host {
                line(
                    &Field {
                        name: field.name,
                        ..host
                    },
                    out,
                );
            }
            has_host = true;
        } else if passes_on(field.name, head.version, options, onward) {
            line(field, out);
        }
    }
    if !has_host {
        line(&host, out);
    }
    let received: &[u8] = match head.version {
        Version::Http10 => b"Via: 1.0 ",
        Version::Http11 => b"Via: 1.1 ",
    };
    out.extend_from_slice(received);
    out.extend_from_slice(PSEUDONYM.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&onward.lines);

    let takes_trailers = asks_for(head.fields, "TE", is_trailers);
    // A request with a body keeps to HTTP: where its body ends would otherwise be two protocols' matter.
    let upgrades = options.upgrade()
        && head.version == Version::Http11
        && framing == Framing::Empty
        && asks_for(head.fields, "Upgrade", passes_upgrade);
    if upgrades {
        out.extend_from_slice(b"Upgrade: ");
        let mut protocols =
            values(head.fields, "Upgrade").filter(|protocol| passes_upgrade(protocol));
        out.extend_from_slice(protocols.next().unwrap_or_default());
        for protocol in protocols {
            out.extend_from_slice(b", ");
            out.extend_from_slice(protocol);
        }
        out.extend_from_slice(b"\r\n");
    }
    if takes_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    let connection: &[u8] = match (upgrades, takes_trailers) {
        (true, true) => b"Connection: Upgrade, TE\r\n",
        (true, false) => b"Connection: Upgrade\r\n",
        (false, true) => b"Connection: TE\r\n",
        (false, false) => b"",
    };
    out.extend_from_slice(connection);
    out.extend_from_slice(b"\r\n");
    upgrades
}

/// Whether a request's field goes to the origin as it is.
fn passes_on(
    name: &str,
    version: Version,
    options: &Options<'_>,
    onward: &RequestRewriter,
) -> bool {
    // RFC 9110 §10.1.1: an expectation in HTTP/1.0 is to be ignored, and its client knows no 100.
    let is_ignored = version == Version::Http10 && name.eq_ignore_ascii_case("Expect");
    !is_ignored && !options.is_hop_by_hop(name) && !onward.is_ours(name)
}

/// What a response head tells the client about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, as HTTP/1.1 presumes: nothing to say.
    Presumed,
    /// It stays open, which a client of HTTP/1.0 must be told.
    KeepAlive,
    /// It closes behind this response.
    Close,
    /// It changes to the protocol that the response names.
    Upgrade,
}

/// Writes the head that the client gets.
///
/// With `decoded`, no transfer coding is announced: for every client of HTTP/1.0, which knows none
/// (RFC 9112 §6.1), whether its response has a body or not.
pub fn response(
    head: &ResponseHead<'_, '_>,
    options: &Options<'_>,
    persistence: Persistence,
    decoded: bool,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status_and_reason);
    // RFC 9112 §4: the space stays even if no reason follows it.
    if head.status_and_reason.len() == STATUS_LEN {
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
    // RFC 9112 §6.1, RFC 9110 §8.6: these have no body, and must not announce one.
    let forbids_framing = matches!(head.status, 100..=199 | 204);
    // RFC 9110 §15.5.22: a 426 says what to upgrade to.
    let keeps_upgrade = persistence == Persistence::Upgrade || head.status == 426;
    let mut upgrades = persistence == Persistence::Upgrade;
    for field in head.fields {
        let passes = if field.name.eq_ignore_ascii_case("Upgrade") {
            upgrades |= keeps_upgrade;
            keeps_upgrade
        } else if framing::is_framing(field.name) {
            !(forbids_framing || decoded && framing::is_coding(field.name))
        } else {
            !options.is_hop_by_hop(field.name)
        };
        if passes {
            line(field, out);
        }
    }
    // RFC 9110 §7.8: whoever sends `Upgrade` names it here.
    let connection: &[u8] = match (persistence, upgrades) {
        (Persistence::Presumed, false) => b"",
        (Persistence::KeepAlive, false) => b"Connection: keep-alive\r\n",
        (Persistence::Close, false) => b"Connection: close\r\n",
        (Persistence::KeepAlive, true) => b"Connection: keep-alive, Upgrade\r\n",
        (Persistence::Close, true) => b"Connection: close, Upgrade\r\n",
        (Persistence::Presumed, true) | (Persistence::Upgrade, _) => b"Connection: Upgrade\r\n",
    };
    out.extend_from_slice(connection);
    out.extend_from_slice(b"\r\n");
}

/// Writes one field line.
pub(super) fn line(field: &Field<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

/// The length of a status code.
const STATUS_LEN: usize = 3;

/// `h2c` is what Java's client offers on every first request; servers that half understand it drop the body
/// or hang, and neither it nor TLS can be spoken by a hop that reads HTTP/1.1.
fn passes_upgrade(protocol: &[u8]) -> bool {
    // protocol-name [ "/" protocol-version ], both tokens.
    let mut parts = protocol.splitn(2, |&byte| byte == b'/');
    let name = parts.next().unwrap_or_default();
    is_token(name)
        && parts.all(is_token)
        && ![&b"h2c"[..], b"h2", b"TLS", b"HTTP"]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
}

fn is_trailers(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"trailers")
}

fn asks_for(fields: &[Field<'_>], name: &str, is_it: impl Fn(&[u8]) -> bool) -> bool {
    values(fields, name).any(is_it)
}

fn values<'h, 'b>(
    fields: &'h [Field<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .flat_map(|field| list(field.value))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{with_request, with_response};
    use super::*;

    /// What every request of the tables gets: `Host: o:1`, and in the end `Via` and `x-source: ic`.
    fn onward() -> RequestRewriter {
        let fields = [("x-source".to_owned(), "ic".to_owned())];
        RequestRewriter::new("o:1", "/base", &fields).expect("it is settable")
    }

    /// The head that `lines`, separated by ` | `, are.
    fn head_text(lines: &str) -> String {
        lines.replace(" | ", "\r\n") + "\r\n\r\n"
    }

    fn rewritten_with(onward: &RequestRewriter, lines: &str) -> (String, bool) {
        with_request(&head_text(lines), |head| {
            let target = Target::parse(head.method, head.target).expect("rows have a target");
            let framing = framing::of_request(head).expect("rows are framed");
            let options = Options::of(head.fields).expect("rows have few");
            let mut out = Vec::new();
            let upgrades = request(head, &target, &options, framing, onward, &mut out);
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
        let (text, upgrades) = rewritten_with(&onward(), lines);
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
        check("names that only look like ours", "GET / HTTP/1.1 | Host: a | x-sources: b | xx-source: c", "GET /base/ HTTP/1.1 | Host: o:1 | x-sources: b | xx-source: c");

        check("what is ours is replaced", "GET / HTTP/1.1 | Host: a | X-Source: b | x-source: c", "GET /base/ HTTP/1.1 | Host: o:1");
        check("what is ours, though Connection names it", "GET / HTTP/1.1 | Host: a | Connection: x-source, via | X-Source: b", "GET /base/ HTTP/1.1 | Host: o:1");
        check("this hop's fields", "GET / HTTP/1.1 | Connection: keep-alive | Host: a | Keep-Alive: timeout=5 | Proxy-Connection: x | TE: gzip", "GET /base/ HTTP/1.1 | Host: o:1");
        check("what Connection names, before it and behind it", "GET / HTTP/1.1 | X-A: 1 | Connection: x-a, X-B | Host: a | x-b: 2 | x-c: 3", "GET /base/ HTTP/1.1 | Host: o:1 | x-c: 3");
        check("what any of two Connections names", "GET / HTTP/1.1 | Host: a | Connection: close | X-A: 1 | Connection: x-a", "GET /base/ HTTP/1.1 | Host: o:1");
        check("Java's offer of HTTP/2", "GET / HTTP/1.1 | Connection: Upgrade, HTTP2-Settings | Host: a | HTTP2-Settings: AAEA | Upgrade: h2c", "GET /base/ HTTP/1.1 | Host: o:1");
    }

    #[test]
    fn a_request_of_http_1_0_becomes_one_of_http_1_1() {
        let rewritten = |lines| rewritten_with(&onward(), lines).0;
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
        let (text, _) = rewritten_with(&onward(), "GET / HTTP/1.1 | Host: a | Host: b");
        assert_eq!(
            text,
            "GET /base/ HTTP/1.1 | Host: o:1 | Via: 1.1 ic | x-source: ic"
        );
    }

    /// `expected` is what stands behind the fields that are set.
    #[track_caller]
    fn check_hop(why: &str, lines: &str, expected: &str) {
        let (text, upgrades) =
            rewritten_with(&onward(), &format!("GET / HTTP/1.1 | Host: a{lines}"));
        let start = "GET /base/ HTTP/1.1 | Host: o:1";
        let end = text
            .strip_prefix(start)
            .expect("the start is the same")
            .to_owned();
        // Bodies stay; they are no matter of this table.
        let end = end
            .replace(" | Content-Length: 1", "")
            .replace(" | Transfer-Encoding: chunked", "");
        assert_eq!(
            end,
            format!(" | Via: 1.1 ic | x-source: ic{expected}"),
            "{why}"
        );
        assert_eq!(upgrades, expected.contains("Upgrade: "), "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_upgrade_passes_where_it_can_be_carried_out() {
        check_hop("WebSocket", " | Connection: Upgrade | Upgrade: websocket", " | Upgrade: websocket | Connection: Upgrade");
        check_hop("spelt otherwise", " | connection: keep-alive, UPGRADE | UPGRADE: WebSocket", " | Upgrade: WebSocket | Connection: Upgrade");
        check_hop("others", " | Connection: Upgrade | Upgrade: foo/2.1", " | Upgrade: foo/2.1 | Connection: Upgrade");
        check_hop("several lines", " | Connection: Upgrade | Upgrade: websocket | Upgrade: foo", " | Upgrade: websocket, foo | Connection: Upgrade");
        check_hop("HTTP/2 beside it", " | Connection: Upgrade | Upgrade: h2c, websocket", " | Upgrade: websocket | Connection: Upgrade");
        check_hop("HTTP/2 alone", " | Connection: Upgrade | Upgrade: h2c", "");
        check_hop("HTTP/2 over TLS", " | Connection: Upgrade | Upgrade: h2", "");
        check_hop("TLS (RFC 2817)", " | Connection: Upgrade | Upgrade: TLS/1.0, HTTP/1.1", "");
        check_hop("not asked for in Connection", " | Upgrade: websocket", "");
        check_hop("nothing to upgrade to", " | Connection: Upgrade", "");
        check_hop("an empty list", " | Connection: Upgrade | Upgrade: ,", "");
        check_hop("what is no protocol", " | Connection: Upgrade | Upgrade: web socket, a/b/c, /1, a/", "");
        check_hop("with a body", " | Connection: Upgrade | Upgrade: websocket | Content-Length: 1", "");
        check_hop("with chunks", " | Connection: Upgrade | Upgrade: websocket | Transfer-Encoding: chunked", "");
        check_hop("trailers are taken", " | Connection: TE | TE: trailers", " | TE: trailers | Connection: TE");
        check_hop("among codings, which are not", " | TE: gzip;q=0.5, Trailers | Connection: TE", " | TE: trailers | Connection: TE");
        check_hop("codings alone", " | Connection: TE | TE: gzip", "");
        check_hop("a weight makes it something else", " | Connection: TE | TE: trailers;q=0", "");
        check_hop("both", " | Connection: TE, Upgrade | TE: trailers | Upgrade: websocket", " | Upgrade: websocket | TE: trailers | Connection: Upgrade, TE");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn what_cannot_be_set_is_refused_by_name() {
        #[track_caller]
        fn check(why: &str, name: &str, value: &str, is_settable: bool) {
            let onward = RequestRewriter::new("o", "", &[(name.to_owned(), value.to_owned())]);
            assert_eq!(onward.is_ok(), is_settable, "{why}");
            if let Err(Unsettable(named)) = onward {
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
        let onward = RequestRewriter::new("o", "", &fields).expect("they are settable");
        let (text, _) = rewritten_with(&onward, "GET / HTTP/1.1 | Host: a | A: 4 | b: 5");
        assert_eq!(text, "GET / HTTP/1.1 | Host: o | Via: 1.1 ic | B: 2 | a: 3");
        assert!(onward.is_ours("A") && onward.is_ours("b") && !onward.is_ours("c"));
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
        let onward = RequestRewriter::new("o", "/a/", &[]).expect("it is one");
        let (text, _) = rewritten_with(&onward, "GET /b HTTP/1.1 | Host: a");
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
        persistence: Persistence,
        decoded: bool,
        expected: &str,
    ) {
        let text = with_response(&head_text(lines), |head| {
            let mut out = Vec::new();
            let options = Options::of(head.fields).expect("rows have few");
            response(head, &options, persistence, decoded, &mut out);
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
        use Persistence::{Close, KeepAlive, Presumed, Upgrade};
        check_response("names, order, bytes", "HTTP/1.1 200 Fine  \u{e9} | b: x  y | A: | B: 1", Presumed, false, r"HTTP/1.1 200 Fine  \xc3\xa9 | b: x  y | A:  | B: 1");
        check_response("HTTP/1.0 becomes HTTP/1.1", "HTTP/1.0 404 Not Found | A: b", Presumed, false, "HTTP/1.1 404 Not Found | A: b");
        check_response("a reason that is missing", "HTTP/1.1 200 | A: b", Presumed, false, "HTTP/1.1 200  | A: b");
        check_response("a reason that is empty", "HTTP/1.1 200  | A: b", Presumed, false, "HTTP/1.1 200  | A: b");
        check_response("by length", "HTTP/1.1 200 OK | Content-Length: 5", Presumed, false, "HTTP/1.1 200 OK | Content-Length: 5");
        check_response("in chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked | Trailer: A", Presumed, false, "HTTP/1.1 200 OK | Transfer-Encoding: chunked | Trailer: A");
        check_response("cookies stay apart", "HTTP/1.1 200 OK | Set-Cookie: a | Set-Cookie: b", Presumed, false, "HTTP/1.1 200 OK | Set-Cookie: a | Set-Cookie: b");
        check_response("an early hint", "HTTP/1.1 103 Early Hints | Link: x", Presumed, false, "HTTP/1.1 103 Early Hints | Link: x");
        check_response("a 304 with the length of what it stands for", "HTTP/1.1 304 Not Modified | Content-Length: 5", Presumed, false, "HTTP/1.1 304 Not Modified | Content-Length: 5");

        check_response("this hop's fields", "HTTP/1.1 200 OK | Connection: close, x-a | Keep-Alive: timeout=5 | Proxy-Connection: x | TE: a | X-A: 1 | X-B: 2", Presumed, false, "HTTP/1.1 200 OK | X-B: 2");
        check_response("framing that Connection names", "HTTP/1.1 200 OK | Connection: Content-Length | Content-Length: 5", Presumed, false, "HTTP/1.1 200 OK | Content-Length: 5");
        check_response("the client's connection closes", "HTTP/1.1 200 OK | Connection: keep-alive", Close, false, "HTTP/1.1 200 OK | Connection: close");
        check_response("a client of HTTP/1.0 is told that it stays open", "HTTP/1.1 200 OK | Content-Length: 5", KeepAlive, false, "HTTP/1.1 200 OK | Content-Length: 5 | Connection: keep-alive");
        check_response("a body without its chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked", Close, true, "HTTP/1.1 200 OK | Connection: close");
        check_response("a length has nothing to be decoded", "HTTP/1.1 200 OK | Content-Length: 5", Close, true, "HTTP/1.1 200 OK | Content-Length: 5 | Connection: close");
        check_response("204 has no body to announce (RFC 9112 §6.1)", "HTTP/1.1 204 No Content | Transfer-Encoding: chunked | A: b", Presumed, false, "HTTP/1.1 204 No Content | A: b");
        check_response("nor a length (RFC 9110 §8.6)", "HTTP/1.1 204 No Content | Content-Length: 5", Presumed, false, "HTTP/1.1 204 No Content");
        check_response("nor has 100", "HTTP/1.1 100 Continue | Content-Length: 5", Presumed, false, "HTTP/1.1 100 Continue");

        check_response("an upgrade", "HTTP/1.1 101 Switching Protocols | Connection: upgrade | Upgrade: websocket | Sec-WebSocket-Accept: x", Upgrade, false, "HTTP/1.1 101 Switching Protocols | Upgrade: websocket | Sec-WebSocket-Accept: x | Connection: Upgrade");
        check_response("an offer that nobody asked for", "HTTP/1.1 200 OK | Connection: Upgrade | Upgrade: h2,h2c", Presumed, false, "HTTP/1.1 200 OK");
        check_response("a demand (RFC 9110 §15.5.22)", "HTTP/1.1 426 Upgrade Required | Connection: Upgrade | Upgrade: websocket", Presumed, false, "HTTP/1.1 426 Upgrade Required | Upgrade: websocket | Connection: Upgrade");
        check_response("a demand before the connection closes", "HTTP/1.1 426 Upgrade Required | Upgrade: websocket", Close, false, "HTTP/1.1 426 Upgrade Required | Upgrade: websocket | Connection: close, Upgrade");
        check_response("a demand to a client of HTTP/1.0", "HTTP/1.1 426 Upgrade Required | Upgrade: websocket", KeepAlive, false, "HTTP/1.1 426 Upgrade Required | Upgrade: websocket | Connection: keep-alive, Upgrade");
        check_response("a demand of nothing", "HTTP/1.1 426 Upgrade Required", Presumed, false, "HTTP/1.1 426 Upgrade Required");
    }
}
