//! A proxy between here and the origin, such as companies have: asked for a tunnel to targets in TLS, and for everything
//! else by the whole URL of what is wanted.
//!
//! Which proxy is asked for which target is decided by the command line. What is done with it is decided here.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::error::ConnectError;
use crate::http::Parsed;
use crate::http::head::{self, Slots};
use crate::http::target::host_of;
use crate::serve::buffers::Buffer;
use crate::serve::conn::Stream;

/// A proxy; displays without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Brackets removed.
    host: String,
    port: u16,
    /// What it is asked with, in the words of `Proxy-Authorization`.
    authorization: Option<Vec<u8>>,
    /// That is what `--header` says, and not the variable.
    is_told: bool,
    /// The variable that names it, for those who have to correct it.
    variable: &'static str,
}

/// A text that names no proxy, in words that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadProxy(&'static str);

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadProxy {}

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
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .unwrap_or(("http", text.trim()));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(BadProxy(
                "is a proxy of another kind than http; give one as http://host:port, or leave out --use-proxy-env",
            ));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        // RFC 3986 §3.2: one of these ends the authority, whatever was meant. What is before it would pass for a host, and the
        // start of a password for its port.
        if behind.contains('@') {
            return Err(BadProxy(
                "has a `/`, `?` or `#` in its user name or password; percent-encode them",
            ));
        }
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        const MALFORMED: BadProxy = BadProxy("is no proxy; write it as http://host:port");
        let host = host_of(address).ok_or(MALFORMED)?;
        let port = match address[host.len()..].strip_prefix(':') {
            None | Some("") => HTTP_PORT,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or(MALFORMED)?,
        };
        let authorization = match user {
            None => None,
            Some(user) => {
                let user = percent_decoded(user).ok_or(BadProxy(
                    "has a malformed user name or password; percent-encode them",
                ))?;
                Some(format!("Basic {}", BASE64_STANDARD.encode(user)).into_bytes())
            }
        };
        Ok(Proxy {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authorization,
            is_told: false,
            variable: "the proxy variable",
        })
    }
}

impl Proxy {
    /// The same, found in that variable.
    pub fn found_in(self, variable: &'static str) -> Self {
        Proxy { variable, ..self }
    }

    /// The variable that names it.
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// Where it listens: host and port.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// What it is asked with, in the words of `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.authorization.as_deref()
    }

    /// The same, asked for tunnels with a field of the user's own.
    pub fn asked_with(self, authorization: Vec<u8>) -> Self {
        Proxy {
            authorization: Some(authorization),
            is_told: true,
            ..self
        }
    }

    /// What went wrong with it.
    pub fn fault(&self, trouble: Trouble) -> ConnectError {
        ConnectError::Proxy(Box::new(Fault {
            proxy: self.clone(),
            trouble,
        }))
    }

    /// Asks for a tunnel to `authority`; afterwards what is written goes there.
    pub async fn tunnel(&self, stream: &Stream, authority: &str) -> Result<(), ConnectError> {
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        let mut request = head.into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let status = converse(stream, &request).await;
        match status.map_err(|error| self.fault(Trouble::Failed(error)))? {
            200..=299 => Ok(()),
            status => Err(self.refused(status)),
        }
    }

    /// What an answer of its own with that status means.
    pub fn refused(&self, status: u16) -> ConnectError {
        self.fault(match status {
            407 => Trouble::WantsPassword,
            status => Trouble::Answered(status),
        })
    }
}

/// Sends a request without a body; the status of its answer, behind whose head nothing may come.
async fn converse(stream: &Stream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request).await?;
    let no_proxy = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut buffer = Buffer::take();
    let mut len = 0;
    let mut from = 0;
    loop {
        let mut slots = Slots::new();
        match head::response(&buffer.bytes()[from..len], &mut slots) {
            Ok(Parsed::Complete(head)) if head.status < 200 => {
                from += head.len;
                continue;
            }
            Ok(Parsed::Complete(head)) => {
                // TLS begins with this side: what came is nothing of the origin's.
                let is_all = head.status >= 300 || from + head.len == len;
                let status = head.status;
                return is_all
                    .then_some(status)
                    .ok_or_else(|| no_proxy("it speaks out of turn"));
            }
            Ok(Parsed::Partial) if len < buffer.len() => {}
            _ => return Err(no_proxy("its answer is not HTTP")),
        }
        poll_fn(|context| stream.poll_readable(context)).await?;
        match stream.try_read(&mut buffer.bytes_mut()[len..]) {
            Ok(0) => return Err(no_proxy("it closed the connection")),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A proxy, and what went wrong with it.
#[derive(Debug)]
pub struct Fault {
    proxy: Proxy,
    trouble: Trouble,
}

/// What went wrong with a proxy.
#[derive(Debug)]
pub enum Trouble {
    /// There is no connection to it.
    Unreachable(ConnectError),
    /// It wants a user name and a password, or others than it got.
    WantsPassword,
    /// It does not do what it was asked, and answers with that status.
    Answered(u16),
    /// It does not answer as a proxy does.
    Failed(io::Error),
    /// It accepted a connection, and did not answer within `--connect-timeout`.
    Silent,
}

impl Fault {
    /// The failure's name for programs.
    pub fn code(&self) -> &'static str {
        match &self.trouble {
            Trouble::Unreachable(ConnectError::Unresolved(_)) => "proxy_unresolved",
            Trouble::Unreachable(ConnectError::Refused) => "proxy_refused",
            Trouble::Unreachable(ConnectError::Timeout) | Trouble::Silent => "proxy_timeout",
            Trouble::Unreachable(_) => "proxy_unreachable",
            Trouble::WantsPassword => "proxy_password",
            Trouble::Answered(_) | Trouble::Failed(_) => "proxy_failed",
        }
    }

    /// Whether it took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.trouble,
            Trouble::Unreachable(ConnectError::Timeout) | Trouble::Silent
        )
    }

    /// Whether trying again may help.
    pub fn may_pass(&self) -> bool {
        match self.trouble {
            Trouble::Unreachable(_) | Trouble::Failed(_) | Trouble::Silent => true,
            Trouble::WantsPassword => false,
            Trouble::Answered(status) => status >= 500,
        }
    }

    /// The failure in one line; `target` is what the proxy was asked for.
    pub fn explain(&self, target: &str) -> String {
        let Proxy { variable, .. } = self.proxy;
        let proxy = crate::serve::error::brief(&self.proxy.to_string());
        match &self.trouble {
            Trouble::Unreachable(ConnectError::Unresolved(error)) => {
                format!(
                    "the proxy {proxy} has a host name without an address ({error}); correct {variable}"
                )
            }
            Trouble::Unreachable(ConnectError::Refused) => {
                format!("the proxy {proxy} refuses connections; start it, or correct {variable}")
            }
            Trouble::Unreachable(ConnectError::Failed(error)) => {
                format!("the proxy {proxy} cannot be reached ({error}); correct {variable}")
            }
            Trouble::Unreachable(ConnectError::Timeout) => format!(
                "the proxy {proxy} did not accept a connection within --connect-timeout; correct {variable}"
            ),
            Trouble::Silent => format!(
                "the proxy {proxy} did not answer CONNECT within --connect-timeout; see its log, or correct {variable}"
            ),
            Trouble::Unreachable(_) => {
                format!("the proxy {proxy} cannot be reached; correct {variable}")
            }
            Trouble::WantsPassword if self.proxy.is_told => format!(
                "the proxy {proxy} of {variable} does not accept the Proxy-Authorization of --header; correct it"
            ),
            Trouble::WantsPassword if self.proxy.authorization.is_some() => format!(
                "the proxy {proxy} does not accept the user name and password in {variable}; correct them"
            ),
            Trouble::WantsPassword => format!(
                "the proxy {proxy} wants a user name and password; put them into {variable} as http://user:password@host:port"
            ),
            Trouble::Answered(status) => format!(
                "the proxy {proxy} does not lead to {target}: it answers {status}; see its log, or add the host to NO_PROXY"
            ),
            Trouble::Failed(error) => {
                format!("the proxy {proxy} does not answer as one ({error}); correct {variable}")
            }
        }
    }
}

/// What percent-encoding stands for; nothing that could not stand in a user name.
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
    use crate::http::reply::MESSAGE_CHARS_MAX;

    #[test]
    fn a_proxy_is_a_host_a_port_and_perhaps_a_password() {
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
    fn a_failure_fits_into_a_message_and_never_tells_the_password() {
        let unresolved = io::Error::other(
            "failed to lookup address information: Temporary failure in name resolution",
        );
        let reset = || io::Error::from_raw_os_error(104);
        let text = format!("http://user:secret@{}:65535", "x".repeat(200));
        let proxy: Proxy = text.parse().expect("a proxy");
        let proxy = proxy.found_in("HTTPS_PROXY");
        let target = "é".repeat(49);
        for trouble in [
            Trouble::Unreachable(ConnectError::Unresolved(unresolved)),
            Trouble::Unreachable(ConnectError::Refused),
            Trouble::Unreachable(ConnectError::Failed(reset())),
            Trouble::Unreachable(ConnectError::Timeout),
            Trouble::WantsPassword,
            Trouble::Answered(503),
            Trouble::Failed(reset()),
            Trouble::Silent,
        ] {
            let message = proxy.fault(trouble).explain(&target);
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
            assert!(message.contains("PROXY"), "the way out: {message}");
            assert!(
                !message.contains("secret") && !message.contains("dXNlc"),
                "{message}"
            );
        }
    }
}
