//! Connection options: which fields are hop-by-hop, and whether a connection persists (RFC 9110 §7.6.1, RFC 9112 §9).
//!
//! `Connection` is read once, over all its lines, before any field is removed: an implementation that deletes the field first
//! no longer knows which fields it named.

use super::error::Error;
use super::framing;
use super::grammar::{list, number};
use super::head::{Field, Version, elements};

/// The connection options of a message, from all its `Connection` lines.
#[derive(Debug, Clone)]
pub struct ConnectionOptions<'b> {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Names that are not on the fixed list; almost always none.
    others: Vec<&'b [u8]>,
}

impl<'b> ConnectionOptions<'b> {
    /// Reads the options of a head.
    ///
    /// # Errors
    ///
    /// If more than [`OPTIONS_MAX`] of them name fields that are not always hop-by-hop.
    pub fn parse(fields: &[Field<'b>]) -> Result<Self, Error> {
        let mut options = ConnectionOptions {
            close: false,
            keep_alive: false,
            upgrade: false,
            others: Vec::new(),
        };
        for name in elements(fields, "Connection") {
            if name.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if name.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if !HOP_BY_HOP
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            {
                if options.others.len() == OPTIONS_MAX {
                    return Err(Error::TooManyOptions);
                }
                options.others.push(name);
            }
        }
        Ok(options)
    }

    /// Whether `upgrade` is among them (RFC 9110 §7.8).
    pub fn has_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Whether the connection persists after a message of that version (RFC 9112 §9.3).
    pub fn is_persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// The fields that are hop-by-hop only because `Connection` names them.
    pub fn nominated(&self) -> NominatedFields {
        NominatedFields(self.others.iter().map(|&name| name.into()).collect())
    }

    /// Whether field `name` is hop-by-hop.
    ///
    /// `Host` and the framing fields never are, even if `Connection` names them: removing one would change where the message
    /// goes or ends (RFC 9110 §7.6.1 forbids to name them).
    pub fn is_hop_by_hop(&self, name: &str) -> bool {
        if is_always_hop_by_hop(name) {
            return true;
        }
        let is_named = self
            .others
            .iter()
            .any(|option| option.eq_ignore_ascii_case(name.as_bytes()));
        is_named && !framing::is_framing(name) && !name.eq_ignore_ascii_case("Host")
    }
}

/// The names of fields that `Connection` names, kept beyond the head for the trailer section (RFC 9110 §7.6.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NominatedFields(Vec<Box<[u8]>>);

impl NominatedFields {
    /// Whether field `name` is among them.
    pub fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Whether field `name` is hop-by-hop even if `Connection` does not name it.
pub fn is_always_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether one of the fields `names` has a scheme that authenticates the connection. Requests of others must not go over such a
/// connection (RFC 9110 §3.3).
pub fn authenticates(fields: &[Field<'_>], names: [&str; 2]) -> bool {
    let is_named = |field: &&Field<'_>| {
        let mut names = names.iter();
        names.any(|name| field.name.eq_ignore_ascii_case(name))
    };
    fields
        .iter()
        .filter(is_named)
        .flat_map(|field| list(field.value))
        .any(|element| {
            let scheme = element.split(|&byte| byte == b' ').next();
            let is_scheme = |known: &&[u8]| scheme.is_some_and(|it| it.eq_ignore_ascii_case(known));
            CONNECTION_SCHEMES.iter().any(is_scheme)
        })
}

/// The schemes that authenticate the connection and not a request: NTLM, Negotiate, which may be NTLM (RFC 4559 §6), and the
/// names that IIS has for parts of Negotiate.
const CONNECTION_SCHEMES: [&[u8]; 4] = [b"NTLM", b"Negotiate", b"Kerberos", b"Nego2"];

/// How many seconds the target keeps an idle connection: 5 in `Keep-Alive: timeout=5`.
pub fn announced_idle_seconds(fields: &[Field<'_>]) -> Option<u64> {
    elements(fields, "Keep-Alive").find_map(|parameter| {
        let (name, value) = parameter.split_at_checked("timeout=".len())?;
        number(value).filter(|_| name.eq_ignore_ascii_case(b"timeout="))
    })
}

/// Whether the target's connection serves another request after a response (RFC 9112 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It does not.
    Close,
    /// It does, for as many seconds of idleness as `Keep-Alive` announced.
    KeepAlive {
        /// `None`: nothing was announced.
        announced_seconds: Option<u64>,
    },
    /// It does, but only for requests of the same client's connection, which it has authenticated.
    Pinned,
}

/// What becomes of the client's connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterResponse {
    /// It serves the next request.
    KeepAlive,
    /// It is closed.
    Close(CloseReason),
    /// It carries another protocol.
    Tunnel,
}

/// Why a client's connection is closed after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client requested it, or speaks HTTP/1.0 without `keep-alive`; its request is complete.
    ClientRequested,
    /// The response's body ends with the connection.
    CloseDelimited,
    /// The response was complete before the request: what follows may be the rest of its body.
    RequestIncomplete,
    /// The target closes the connection that it has authenticated for this one.
    TargetCloses,
    /// The interceptor is stopping.
    Stopping,
}

/// Fields that are always hop-by-hop (RFC 9110 §7.6.1). Of `TE` and `Upgrade` the elements that still apply are forwarded.
const HOP_BY_HOP: [&str; 6] = [
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Upgrade",
    "HTTP2-Settings",
];

/// The most other fields that `Connection` may name. Real peers name at most two; each name is compared with each field, and a
/// head of 64 KiB could name 20,000.
pub const OPTIONS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::tests::with_request;
    use super::*;

    /// Asks `question` of a head with these field lines.
    #[track_caller]
    fn with_lines<T>(lines: &str, question: impl FnOnce(&[Field<'_>]) -> T) -> T {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        with_request(&text, |head| question(head.fields))
    }

    /// `expected`: whether the connection stays open behind a message of HTTP/1.1, and of HTTP/1.0.
    #[track_caller]
    fn check_persistence(why: &str, lines: &str, expected: (bool, bool)) {
        let persists = with_lines(lines, |fields| {
            let options = ConnectionOptions::parse(fields).expect("rows have few");
            (
                options.is_persistent(Version::Http11),
                options.is_persistent(Version::Http10),
            )
        });
        assert_eq!(persists, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_connection_stays_open_as_its_version_and_its_options_say() {
        check_persistence("HTTP/1.1 presumes it (§9.3)", "", (true, false));
        check_persistence("asked for", "Connection: keep-alive\r\n", (true, true));
        check_persistence("refused", "Connection: close\r\n", (false, false));
        check_persistence("in any case", "connection: CLOSE\r\n", (false, false));
        check_persistence("close wins", "Connection: keep-alive, close\r\n", (false, false));
        check_persistence("close wins in either order", "Connection: close, keep-alive\r\n", (false, false));
        check_persistence("close on another line", "Connection: keep-alive\r\nConnection: close\r\n", (false, false));
        check_persistence("in the middle of a list", "Connection: a,\tclose ,b\r\n", (false, false));
        check_persistence("empty elements do not count", "Connection: , ,Keep-Alive,\r\n", (true, true));
        check_persistence("options are compared whole", "Connection: closed, not-close\r\n", (true, false));
        check_persistence("words are no list", "Connection: keep-alive close\r\n", (true, false));
        check_persistence("Keep-Alive alone asks for nothing", "Keep-Alive: timeout=5\r\n", (true, false));
        check_persistence("nor does Proxy-Connection, which no standard defines", "Proxy-Connection: keep-alive\r\n", (true, false));
        check_persistence("nor does it close", "Proxy-Connection: close\r\n", (true, false));
    }

    #[track_caller]
    fn check_upgrade(lines: &str, expected: bool) {
        let upgrade = with_lines(lines, |fields| {
            ConnectionOptions::parse(fields)
                .expect("rows have few")
                .has_upgrade()
        });
        assert_eq!(upgrade, expected, "{lines:?}");
    }

    #[test]
    fn an_upgrade_is_asked_for_by_the_option_and_not_by_the_field_alone() {
        check_upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\n", true);
        check_upgrade("Connection: keep-alive, upgrade\r\n", true);
        check_upgrade("Connection: keep-alive\r\nConnection: UPGRADE\r\n", true);
        check_upgrade("Upgrade: websocket\r\n", false);
        check_upgrade("Connection: upgrades\r\nUpgrade: websocket\r\n", false);
    }

    /// `expected`: which of the names, in order, stay on this hop.
    #[track_caller]
    fn check_hop(why: &str, lines: &str, names: &[&str], expected: &[&str]) {
        with_lines(lines, |fields| {
            let options = ConnectionOptions::parse(fields).expect("rows have few");
            let stays = |name: &&str| options.is_hop_by_hop(name);
            let staying: Vec<_> = names.iter().copied().filter(stays).collect();
            assert_eq!(staying, expected, "{why}");
        });
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn what_connection_names_stays_on_this_hop() {
        let known = ["connection", "KEEP-ALIVE", "Proxy-Connection", "te", "Upgrade", "HTTP2-Settings"];
        check_hop("the known ones, named or not (RFC 9110 §7.6.1)", "", &known, &known);
        check_hop("no others", "", &["Host", "Via", "X", "Trailer", "Cookie", ""], &[]);
        check_hop("a named one", "Connection: X-A\r\n", &["x-a", "X-B", "X-AB", "X"], &["x-a"]);
        check_hop("several, beside known ones", "Connection: close, x-a ,TE,\tx-b\r\n", &["X-A", "X-B", "X-C"], &["X-A", "X-B"]);
        check_hop("on several lines", "Connection: close\r\nX-B: 1\r\nConnection: x-b\r\n", &["X-A", "X-B"], &["X-B"]);
        check_hop("end-to-end ones, too: the standard says must", "Connection: Cookie, Authorization\r\n", &["Cookie", "Authorization"], &["Cookie", "Authorization"]);
        check_hop("but nothing that says where a message goes or ends", "Connection: Host, Content-Length, transfer-encoding\r\n", &["Host", "Content-Length", "Transfer-Encoding"], &[]);
        check_hop("what is no token names nothing", "Connection: x-a x-b, \"x-c\"\r\n", &["X-A", "X-B", "X-C"], &[]);
    }

    #[test]
    fn connection_may_name_16_other_fields_and_no_more() {
        let is_taken = |names: &str| {
            let lines = format!("Connection: close, TE, {names}\r\nConnection: Upgrade\r\n");
            with_lines(&lines, |fields| {
                ConnectionOptions::parse(fields).map(|_| ())
            })
        };
        assert_eq!(is_taken(&"a,".repeat(OPTIONS_MAX)), Ok(()));
        assert_eq!(
            is_taken(&"a,".repeat(OPTIONS_MAX + 1)),
            Err(Error::TooManyOptions)
        );
        assert_eq!(
            is_taken(&"keep-alive,".repeat(1000)),
            Ok(()),
            "known ones cost nothing"
        );
    }

    #[track_caller]
    fn check_idle(lines: &str, expected: Option<u64>) {
        assert_eq!(
            with_lines(lines, announced_idle_seconds),
            expected,
            "{lines:?}"
        );
    }

    #[test]
    fn an_announced_idle_time_is_a_whole_number_of_seconds() {
        check_idle("", None);
        check_idle("Keep-Alive: timeout=5\r\n", Some(5));
        check_idle("keep-alive: max=100, TIMEOUT=60\r\n", Some(60));
        check_idle("Keep-Alive: max=1\r\nKeep-Alive: timeout=0\r\n", Some(0));
        check_idle(
            "Keep-Alive: timeout=18446744073709551615\r\n",
            Some(u64::MAX),
        );
        check_idle("Keep-Alive: timeout=18446744073709551616\r\n", None);
        for wrong in [
            "timeout",
            "timeout=",
            "timeout=+5",
            "timeout=-5",
            "timeout=5s",
            "timeout=\"5\"",
            "timeouts=5",
            "time",
            "é=timeout",
        ] {
            check_idle(&format!("Keep-Alive: {wrong}\r\n"), None);
        }
        check_idle("Connection: timeout=5\r\n", None);
    }
}
