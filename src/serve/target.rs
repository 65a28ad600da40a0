//! The target URL, as the user writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::upstream::tls;
use crate::http::target::host_and_port;
use crate::text::redact;

/// A target: `http://host[:port][/base]`, the same with `https`, or `unix:/path.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it is shown: without a key in its base path.
    text: String,
    endpoint: Endpoint,
    is_https: bool,
    host_field: String,
    base_path: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host, brackets removed, and a port.
    Tcp(String, u16),
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// Why a text is not the URL of a target or proxy. Displays as a predicate that follows "the target URL `…`" or the name of the
/// proxy's variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadUrl(pub(super) &'static str);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadUrl {}

impl Target {
    /// The address to connect to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it uses TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The value of `Host` in its requests.
    pub fn host_field(&self) -> &str {
        &self.host_field
    }

    /// The prefix of every path: empty, or `/base`.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// Whether the base path has a version of an OpenAI-compatible API that is not a `/v1` at its end: `/api/paas/v4`,
    /// `/v1beta/openai`. Endpoints follow such a path directly, so that the paths of requests have no `/v1` either.
    pub fn has_own_version(&self) -> bool {
        let is_version = |segment: &str| {
            let number = segment.strip_prefix('v').unwrap_or_default();
            let digits = number.trim_end_matches(|c: char| c.is_ascii_lowercase());
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        self.base_path.split('/').any(is_version) && !self.base_path.ends_with("/v1")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Target {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix(UNIX) {
            return unix(text, path);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadUrl(
                "contains a space or a character that must be percent-encoded",
            ));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(BadUrl("has no scheme; write it as http://host:port"))?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if is_https && !tls::IS_SUPPORTED {
            return Err(BadUrl(
                "is https, which this build does not support; use an http:// address",
            ));
        }
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return Err(BadUrl(
                "has a scheme other than http, https or unix; write it as http://host:port or unix:/path.sock",
            ));
        }
        http(text, rest, is_https)
    }
}

/// `rest` is the target `text` without its scheme.
fn http(text: &str, rest: &str, is_https: bool) -> Result<Target, BadUrl> {
    if rest.contains(['?', '#']) {
        return Err(BadUrl(
            "has a query or a fragment; a target is host, port and base path",
        ));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(BadUrl(
            "contains a user name or password; leave credentials to the client",
        ));
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(BadUrl("has no host; write it as http://host:port"));
    }
    let (host, port) = host_and_port(authority).ok_or(BadUrl(
        "has a malformed host or port; write it as http://host:port",
    ))?;
    if port == Some(0) {
        return Err(BadUrl("has a port outside 1 to 65535"));
    }
    let default_port = if is_https { HTTPS_PORT } else { HTTP_PORT };
    let port = port.unwrap_or(default_port);
    let host_field = if port == default_port {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    Ok(Target {
        text: redact::text(text, false),
        endpoint: Endpoint::Tcp(host.trim_matches(['[', ']']).to_owned(), port),
        is_https,
        host_field,
        base_path: path.trim_end_matches('/').to_owned(),
    })
}

fn unix(text: &str, path: &str) -> Result<Target, BadUrl> {
    // Many tools accept unix:///path as well.
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') {
        return Err(BadUrl(
            "has no absolute socket path; write it as unix:/path.sock",
        ));
    }
    Ok(Target {
        text: text.to_owned(),
        endpoint: Endpoint::Unix(PathBuf::from(path)),
        is_https: false,
        host_field: "localhost".to_owned(),
        base_path: String::new(),
    })
}

const UNIX: &str = "unix:";
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
