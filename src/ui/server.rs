//! Which requests the server of the page accepts.
//!
//! The files of the page are no secret. Everything else requires the token; a browser that says where a request comes from
//! (`Origin` and `Sec-Fetch-Site`, which no script can set) has to name a page of this very server; and changes require
//! `POST` and a JSON document. All this is in the head, so no body is read before.

use std::sync::Arc;

use crate::http::Error;
use crate::http::framing::Framing;
use crate::http::guard::Guard;
use crate::http::head::RequestHead;
use crate::http::target::Target;
use crate::httpd::{Handler, Response, field};

use super::app_state::AppState;
use super::assets::{self, Asset};
use super::{api, live, response, watch};

/// What an admitted request asks for.
pub enum Route {
    /// A file of the page.
    Asset(&'static Asset),
    /// The token, in exchange for a code.
    Session,
    /// The stream of everything that happens from now on.
    Live,
    /// The registry as a file.
    Export,
    /// The response of a request that is open, as it grows.
    Watch,
    /// A change, by its name.
    Change(String),
}

impl Handler for AppState {
    type Route = Route;

    // A browser opens six for a page, and a user may open a few pages.
    const CONNECTIONS_MAX: usize = 64;

    // An import of the largest registry, as JSON.
    const BODY_MIB_MAX: usize = 48;

    fn route(
        &self,
        head: &RequestHead<'_, '_>,
        target: &Target<'_>,
        framing: Framing,
    ) -> Result<Route, Response> {
        if let Err(error) = GUARD.check(head, target, framing) {
            let reply = error.reply();
            let message = match error {
                // The general messages name options that this command does not have.
                Error::HostForeign => {
                    "the Host field names another machine; open the address that `ic ui` printed"
                }
                Error::OriginForeign => PAGE_ONLY,
                _ => &reply.message,
            };
            return Err(response::error(reply.status, message));
        }
        let route = self.admitted(head, target.path())?;
        let length = match framing {
            Framing::Empty => 0,
            Framing::Length(length) => length,
            Framing::Chunked | Framing::UntilClose => u64::MAX,
        };
        if length > body_bytes_max(&route) {
            return Err(response::error(
                413,
                "the request body is too large or has no Content-Length; use `ic import` for a large file",
            ));
        }
        Ok(route)
    }

    fn is_trusted(&self, route: &Route) -> bool {
        !matches!(route, Route::Asset(_) | Route::Session)
    }

    fn respond(self: &Arc<Self>, route: Route, body: Vec<u8>) -> Response {
        match route {
            Route::Asset(asset) => response::asset(asset),
            Route::Session => api::session(self, &body),
            Route::Live => live::stream(self),
            Route::Export => api::export(self),
            Route::Watch => watch::stream(self, &body),
            Route::Change(name) => api::change(self, &name, &body),
        }
    }

    fn error(&self, _: Option<&Route>, status: u16, message: &str) -> Response {
        response::error(status, message)
    }
}

impl AppState {
    /// The route, if this client may use it.
    fn admitted(&self, head: &RequestHead<'_, '_>, path: &str) -> Result<Route, Response> {
        let path = path.split('?').next().unwrap_or_default();
        let is_read = matches!(head.method, "GET" | "HEAD");
        if let Some(asset) = assets::at(path) {
            return if is_read {
                Ok(Route::Asset(asset))
            } else {
                Err(response::error(405, "use GET for a file of the page"))
            };
        }
        let Some(name) = path.strip_prefix("/api/") else {
            return Err(response::error(404, NOT_FOUND));
        };
        if !is_of_page(head) {
            return Err(response::error(403, PAGE_ONLY));
        }
        let is_change = head.method == "POST";
        if is_change && !field(head, "Content-Type").is_some_and(is_json) {
            return Err(response::error(415, "send a JSON document"));
        }
        // This route gives out the token.
        if is_change && name == "session" {
            return Ok(Route::Session);
        }
        let token = field(head, "X-Ic-Token").unwrap_or_default();
        if !self.auth.token().is(token) {
            return Err(response::error(
                401,
                "the token is missing or expired; open the address that `ic ui` printed",
            ));
        }
        match (head.method, name) {
            ("GET", "live") => Ok(Route::Live),
            ("GET", "export") => Ok(Route::Export),
            ("GET", _) => Err(response::error(404, NOT_FOUND)),
            ("POST", "watch") => Ok(Route::Watch),
            ("POST", name) => Ok(Route::Change(name.to_owned())),
            _ => Err(response::error(405, "use GET or POST")),
        }
    }
}

/// The largest request body of a route, in bytes.
fn body_bytes_max(route: &Route) -> u64 {
    match route {
        Route::Asset(_) | Route::Live | Route::Export => 0,
        Route::Session | Route::Watch => SESSION_BYTES_MAX,
        Route::Change(name) if name == "import" => IMPORT_BYTES_MAX,
        Route::Change(name) if name == "send" => SEND_BYTES_MAX,
        Route::Change(_) => CHANGE_BYTES_MAX,
    }
}

fn is_json(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next();
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

/// Whether the request comes from a page of this server, as far as the browser says where it comes from. The guard has
/// checked that the host is this machine.
fn is_of_page(head: &RequestHead<'_, '_>) -> bool {
    let host = field(head, "Host").unwrap_or_default();
    let is_own = |origin: &[u8]| {
        origin
            .strip_prefix(b"http://")
            .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let all = |name: &str, is_good: &dyn Fn(&[u8]) -> bool| {
        head.fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .all(|field| is_good(field.value))
    };
    all("Origin", &is_own) && all("Sec-Fetch-Site", &|site| site == b"same-origin")
}

/// Only names of this machine are accepted in `Host`, whatever a name server says.
const GUARD: Guard = Guard {
    local_hosts_only: true,
    allowed_hosts: Vec::new(),
    allowed_origins: Vec::new(),
};

const NOT_FOUND: &str = "not found";

const PAGE_ONLY: &str = "only the page itself may send this request";

const IMPORT_BYTES_MAX: u64 = (AppState::BODY_MIB_MAX as u64) << 20;

/// The largest recorded body and a head, each byte of them as an escape of JSON's.
const SEND_BYTES_MAX: u64 = 8 << 20;

/// Two of the longest paths, each byte of them as an escape of JSON's (`\u0000ff`).
const CHANGE_BYTES_MAX: u64 = 64 << 10;

/// A code, or what is watched, needs a fraction of that.
const SESSION_BYTES_MAX: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Parsed;
    use crate::http::head::{self, Slots};

    #[test]
    fn only_the_page_itself_may_ask() {
        #[track_caller]
        fn check(fields: &str, expected: bool) {
            let text = format!("GET / HTTP/1.1\r\nHost: localhost:8887\r\n{fields}\r\n");
            let mut slots = Slots::default();
            let Ok(Parsed::Complete(head)) = head::request(text.as_bytes(), &mut slots) else {
                panic!("{text}");
            };
            assert_eq!(is_of_page(&head), expected, "{fields}");
        }
        check("", true);
        check("Origin: http://localhost:8887\r\n", true);
        check(
            "Origin: http://localhost:8887\r\nSec-Fetch-Site: same-origin\r\n",
            true,
        );
        check("Origin: http://localhost:8888\r\n", false);
        check("Origin: https://localhost:8887\r\n", false);
        check("Origin: http://127.0.0.1:8887\r\n", false);
        check("Origin: null\r\n", false);
        check("Origin: http://localhost:8887\r\nOrigin: null\r\n", false);
        check("Sec-Fetch-Site: same-site\r\n", false);
        check("Sec-Fetch-Site: cross-site\r\n", false);
        check("Sec-Fetch-Site: none\r\n", false);
    }

    #[test]
    fn a_change_is_a_json_document() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/json-patch", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind.as_bytes()), expected, "{kind}");
        }
    }
}
