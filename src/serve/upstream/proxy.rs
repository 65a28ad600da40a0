//! An HTTP proxy on the way to the target: its URL, and the tunnel to a target in TLS (`CONNECT`, RFC 9110 §9.3.6).
//!
//! Requests to other targets are sent to the proxy itself in absolute-form (see `http::rewrite`). The command line decides
//! whether a target is reached through a proxy.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::error::{ConnectError, ProxyError, ProxyFailure};
use crate::http::Parsed;
use crate::http::head::{self, Slots};
use crate::http::target::host_and_port;
use crate::serve::buffers::Buffer;
use crate::serve::conn::Stream;
use crate::serve::target::BadUrl;

/// A proxy; displays without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Brackets removed.
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Vec<u8>>,
    /// The environment variable that names it, for error messages.
    variable: &'static str,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Proxy {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .unwrap_or(("http", text.trim()));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(BadUrl(
                "is not an http proxy; set it to http://host:port, or leave out --use-proxy-env",
            ));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        // RFC 3986 §3.2: one of these ends the authority. What precedes it would be taken for a host, and the start of a
        // password for its port.
        if behind.contains('@') {
            return Err(BadUrl(
                "has a `/`, `?` or `#` in its user name or password; percent-encode them",
            ));
        }
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        const MALFORMED: BadUrl = BadUrl("is not a proxy URL; write it as http://host:port");
        let (host, port) = match host_and_port(address) {
            None | Some((_, Some(0))) => return Err(MALFORMED),
            Some((host, port)) => (host, port.unwrap_or(HTTP_PORT)),
        };
        let authorization = match user {
            None => None,
            Some(user) => {
                let user = percent_decoded(user).ok_or(BadUrl(
                    "has a malformed user name or password; percent-encode them",
                ))?;
                Some(format!("Basic {}", BASE64_STANDARD.encode(user)).into_bytes())
            }
        };
        Ok(Proxy {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authorization,
            variable: "the proxy variable",
        })
    }
}

impl Proxy {
    /// The same, named by that environment variable.
    pub fn found_in(self, variable: &'static str) -> Self {
        Proxy { variable, ..self }
    }

    /// The environment variable that names it.
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// Its host and port.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The value of `Proxy-Authorization` that it gets.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.authorization.as_deref()
    }

    /// The same with a `Proxy-Authorization` that the user set.
    pub fn with_authorization(self, authorization: Vec<u8>) -> Self {
        Proxy {
            authorization: Some(authorization),
            ..self
        }
    }

    /// The error that `cause` is at this proxy.
    pub fn error(&self, cause: ProxyFailure) -> ConnectError {
        ConnectError::Proxy(Box::new(ProxyError {
            proxy: self.to_string(),
            variable: self.variable,
            cause,
        }))
    }

    /// Asks for a tunnel to `authority` (RFC 9110 §9.3.6). After it, `stream` leads to that server.
    pub async fn tunnel(&self, stream: &Stream, authority: &str) -> Result<(), ConnectError> {
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        let mut request = head.into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let status = exchange(stream, &request).await;
        match status.map_err(|error| self.error(ProxyFailure::Protocol(error)))? {
            200..=299 => Ok(()),
            status => Err(self.refused(status)),
        }
    }

    /// The error that a response of the proxy itself with `status` means.
    pub fn refused(&self, status: u16) -> ConnectError {
        self.error(match status {
            407 if self.authorization.is_some() => ProxyFailure::PasswordRefused,
            407 => ProxyFailure::PasswordRequired,
            status => ProxyFailure::Status(status),
        })
    }
}

/// Sends a request without a body, and returns the status of the response. No data may follow the head of a 2xx response.
async fn exchange(stream: &Stream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request).await?;
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut buffer = Buffer::take();
    let mut len = 0;
    let mut from = 0;
    loop {
        let mut slots = Slots::default();
        match head::response(&buffer.bytes()[from..len], &mut slots) {
            Ok(Parsed::Complete(head)) if head.status < 200 => {
                from += head.len;
                continue;
            }
            Ok(Parsed::Complete(head)) => {
                // The client speaks first in TLS, so that data here does not come from the target.
                let is_all = head.status >= 300 || from + head.len == len;
                let status = head.status;
                return is_all
                    .then_some(status)
                    .ok_or_else(|| invalid("data follows its response"));
            }
            Ok(Parsed::Partial) if len < buffer.len() => {}
            _ => return Err(invalid("its response is not HTTP")),
        }
        poll_fn(|context| stream.poll_readable(context)).await?;
        match stream.try_read(&mut buffer.bytes_mut()[len..]) {
            Ok(0) => return Err(invalid("it closed the connection")),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Decodes percent-encoding; `None` if it is malformed or a control character results.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            (digit()? * 16 + digit()?) as u8
        } else {
            byte
        };
        // RFC 7617 §2.
        if byte.is_ascii_control() {
            return None;
        }
        decoded.push(byte);
    }
    Some(decoded)
}

const HTTP_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_url_is_a_host_with_an_optional_port_and_password() {
        #[track_caller]
        fn check(text: &str, shown: &str, authorization: Option<&str>) {
            let proxy: Proxy = text.parse().expect(text);
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(proxy.authorization(), authorization.map(str::as_bytes));
        }
        check("http://proxy:3128", "http://proxy:3128", None);
        check("http://proxy:3128/", "http://proxy:3128", None);
        check("proxy:3128", "http://proxy:3128", None);
        check("HTTP://proxy", "http://proxy:80", None);
        check("http://[::1]:3128", "http://[::1]:3128", None);
        // RFC 7617 §2: the example of its user.
        check(
            "http://Aladdin:open%20sesame@proxy:1",
            "http://proxy:1",
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        );
        check(
            "http://u:p%40q@proxy:1",
            "http://proxy:1",
            Some("Basic dTpwQHE="),
        );
        check(
            "http://u@q:p@proxy:1",
            "http://proxy:1",
            Some("Basic dUBxOnA="),
        );
        for bad in [
            "",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:99999",
            "https://a",
            "socks5://a:1",
            "http://a b:1",
            "http://u%0d:p@a:1",
            "http://u:1/p@a:1",
            "http://u:1?p@a:1",
            "http://u:1#p@a:1/",
            "http://u%2:p@a:1",
            "http://u%zz@a:1",
        ] {
            let error = bad.parse::<Proxy>().expect_err(bad);
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn an_error_never_holds_the_password() {
        let proxy: Proxy = "http://user:secret@a:1".parse().expect("a proxy");
        for error in [proxy.refused(407), proxy.refused(503)] {
            let message = error.reply("http://b").message;
            assert!(
                !message.contains("secret") && !message.contains("dXNlc"),
                "{message}"
            );
        }
    }
}
