//! Why there is no connection to the target, and the reply to a request that needed one.
//!
//! Each table has one row for each error: status, code, whether a retry can help, message. In a message `{target}` is the
//! target as the user wrote it, `{why}` the detail that the error holds. The parts are shortened so that no message exceeds
//! [`MESSAGE_CHARS_MAX`](crate::http::reply::MESSAGE_CHARS_MAX).

use std::io;

use crate::http::reply::{Reply, Retry::Never, Retry::Soon};
use crate::text::io_message;

/// Why there is no connection to the target.
#[derive(Debug)]
pub enum ConnectError {
    /// The host name does not resolve.
    Unresolved(io::Error),
    /// The target refuses connections, or its Unix socket does not exist.
    Refused,
    /// The time limit passed before the connection was made.
    Timeout,
    /// The time limit passed during the TLS handshake.
    HandshakeTimeout,
    /// This process or the machine has no file descriptor left.
    NoDescriptors,
    /// Any other error of the system.
    Failed(io::Error),
    /// The TLS handshake failed.
    Tls(TlsError),
    /// The proxy on the way did not make the connection.
    Proxy(Box<ProxyError>),
}

impl ConnectError {
    /// The reply to a request that needed this connection.
    pub fn reply(&self, target: &str) -> Reply<'static> {
        let why = match self {
            ConnectError::Tls(error) => return error.reply(target),
            ConnectError::Proxy(error) => return error.reply(target),
            ConnectError::Unresolved(error) | ConnectError::Failed(error) => io_message(error),
            _ => String::new(),
        };
        self.row()
            .with("{target}", &shortened_address(target))
            .with("{why}", &why)
    }

    #[rustfmt::skip] // A table.
    const fn row(&self) -> Reply<'static> {
        match self {
            ConnectError::Unresolved(_) => Reply::new(502, "target_unresolved", Soon, "the host name of the target {target} does not resolve ({why}); check TARGET_LLM_URL"),
            ConnectError::Refused => Reply::new(502, "target_refused", Soon, "the target {target} refuses connections; start it, or set TARGET_LLM_URL"),
            ConnectError::Timeout => Reply::new(504, "connect_timeout", Soon, "the target {target} did not accept a connection within --connect-timeout; check TARGET_LLM_URL"),
            ConnectError::HandshakeTimeout => Reply::new(504, "connect_timeout", Soon, "the target {target} did not finish the TLS handshake within --connect-timeout; see its log"),
            ConnectError::NoDescriptors => Reply::new(503, "no_descriptors", Soon, "ic has no file descriptor left for a connection; raise `ulimit -n`, or lower --max-connections"),
            // Of the last two, the reply is their own.
            ConnectError::Failed(_) | ConnectError::Tls(_) | ConnectError::Proxy(_) => Reply::new(502, "target_unreachable", Soon, "the target {target} cannot be reached ({why}); check TARGET_LLM_URL"),
        }
    }
}

/// Why a proxy did not connect to the target.
#[derive(Debug)]
pub struct ProxyError {
    /// The proxy's address, without user name and password.
    pub proxy: String,
    /// The environment variable that names it.
    pub variable: &'static str,
    /// What failed.
    pub cause: ProxyFailure,
}

/// What failed at a proxy.
#[derive(Debug)]
pub enum ProxyFailure {
    /// There is no connection to it.
    Connect(ConnectError),
    /// It did not answer CONNECT within the time limit.
    ReplyTimeout,
    /// It requires a user name and password, and there are none.
    PasswordRequired,
    /// It refuses the user name and password of the variable.
    PasswordRefused,
    /// It refuses the `Proxy-Authorization` that the user set.
    FieldRefused,
    /// It answered CONNECT with this status.
    Status(u16),
    /// Its answer is not a proxy's.
    Protocol(io::Error),
}

impl ProxyError {
    /// The reply to a request that needed this proxy.
    pub fn reply(&self, target: &str) -> Reply<'static> {
        let why = match &self.cause {
            ProxyFailure::Connect(
                ConnectError::Unresolved(error) | ConnectError::Failed(error),
            )
            | ProxyFailure::Protocol(error) => io_message(error),
            ProxyFailure::Status(status) => status.to_string(),
            _ => String::new(),
        };
        self.row()
            .with("{proxy}", &shortened_address(&self.proxy))
            .with("{variable}", self.variable)
            .with("{target}", &shortened_address(target))
            .with("{why}", &why)
    }

    #[rustfmt::skip] // A table.
    const fn row(&self) -> Reply<'static> {
        match &self.cause {
            ProxyFailure::Connect(ConnectError::Unresolved(_)) => Reply::new(502, "proxy_unresolved", Soon, "the host name of the proxy {proxy} does not resolve ({why}); correct {variable}"),
            ProxyFailure::Connect(ConnectError::Refused) => Reply::new(502, "proxy_refused", Soon, "the proxy {proxy} refuses connections; start it, or correct {variable}"),
            ProxyFailure::Connect(ConnectError::Timeout) => Reply::new(504, "proxy_timeout", Soon, "the proxy {proxy} did not accept a connection within --connect-timeout; correct {variable}"),
            ProxyFailure::Connect(_) => Reply::new(502, "proxy_unreachable", Soon, "the proxy {proxy} cannot be reached ({why}); correct {variable}"),
            ProxyFailure::ReplyTimeout => Reply::new(504, "proxy_timeout", Soon, "the proxy {proxy} did not answer CONNECT within --connect-timeout; see its log, or correct {variable}"),
            ProxyFailure::PasswordRequired => Reply::new(502, "proxy_password", Never, "the proxy {proxy} requires a user name and password; set {variable} to http://user:password@host:port"),
            ProxyFailure::PasswordRefused => Reply::new(502, "proxy_password", Never, "the proxy {proxy} does not accept the user name and password in {variable}; correct them"),
            ProxyFailure::FieldRefused => Reply::new(502, "proxy_password", Never, "the proxy {proxy} of {variable} does not accept the Proxy-Authorization of --header; correct it"),
            ProxyFailure::Status(500..) => Reply::new(502, "proxy_failed", Soon, STATUS),
            ProxyFailure::Status(_) => Reply::new(502, "proxy_failed", Never, STATUS),
            ProxyFailure::Protocol(_) => Reply::new(502, "proxy_failed", Soon, "the proxy {proxy} does not answer as one ({why}); correct {variable}"),
        }
    }
}

const STATUS: &str = "the proxy {proxy} does not connect to {target}: status {why}; see its log, or add the host to NO_PROXY";

/// Why the TLS handshake with the target failed. A retry does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "no handshake takes place in this build")
)]
pub enum TlsError {
    /// The certificate expired on that day.
    Expired(String),
    /// The certificate is valid from that day on.
    NotYetValid(String),
    /// The certificate is for these names.
    WrongName(Vec<String>),
    /// The certificate's issuer is not trusted.
    UnknownIssuer,
    /// The certificate is its own issuer.
    SelfSigned,
    /// Any other error of the certificate.
    BadCertificate(String),
    /// The target requires a client certificate and got none.
    CertificateRequired,
    /// The target refuses the client certificate; its alert.
    CertificateRefused(String),
    /// The target refuses the handshake. TLS 1.2 servers say no more when they miss a client certificate or a cipher.
    HandshakeRefused,
    /// The peer does not speak TLS.
    NotTls,
    /// There is no common version, cipher or application protocol.
    Incompatible(String),
    /// Any other error.
    Other(String),
}

impl TlsError {
    /// The reply to a request that needed this connection.
    pub fn reply(&self, target: &str) -> Reply<'static> {
        let why = match self {
            TlsError::Expired(day) | TlsError::NotYetValid(day) => day.clone(),
            TlsError::WrongName(names) => shortened_list(names),
            TlsError::BadCertificate(why)
            | TlsError::CertificateRefused(why)
            | TlsError::Incompatible(why)
            | TlsError::Other(why) => shortened(why, WHY_CHARS_MAX),
            _ => String::new(),
        };
        self.row()
            .with("{target}", &shortened_address(target))
            .with("{why}", &why)
    }

    #[rustfmt::skip] // A table.
    fn row(&self) -> Reply<'static> {
        match self {
            TlsError::Expired(_) => Reply::new(502, "target_certificate", Never, "the certificate of {target} expired on {why}; renew it, or correct this machine's clock"),
            TlsError::NotYetValid(_) => Reply::new(502, "target_certificate", Never, "the certificate of {target} is not valid before {why}; correct this machine's clock, or wait"),
            TlsError::WrongName(names) if names.is_empty() => Reply::new(502, "target_certificate", Never, "the certificate of {target} is for no name at all (a common name does not count); issue a new one"),
            TlsError::WrongName(_) => Reply::new(502, "target_certificate", Never, "the certificate of {target} is not for that name but for {why}; use one of its names in TARGET_LLM_URL"),
            TlsError::UnknownIssuer => Reply::new(502, "target_certificate", Never, "the certificate of {target} has an issuer that is not trusted here; give its CA with --ca-file or SSL_CERT_FILE"),
            TlsError::SelfSigned => Reply::new(502, "target_certificate", Never, "the certificate of {target} is self-signed; give that certificate with --ca-file, if you trust it"),
            TlsError::BadCertificate(_) => Reply::new(502, "target_certificate", Never, "the certificate of {target} is invalid ({why}); issue a new one"),
            TlsError::CertificateRequired => Reply::new(502, "client_certificate", Never, "the target {target} requires a client certificate; give one with --client-cert and --client-key"),
            TlsError::CertificateRefused(_) => Reply::new(502, "client_certificate", Never, "the target {target} refuses the client certificate ({why}); give another with --client-cert"),
            TlsError::HandshakeRefused => Reply::new(502, "target_tls", Never, "the target {target} refuses the TLS handshake; it may require a client certificate (--client-cert) or other ciphers"),
            TlsError::NotTls => Reply::new(502, "target_tls", Never, "the target {target} does not speak TLS on this port; write it as http://…, or give its TLS port"),
            TlsError::Incompatible(_) => Reply::new(502, "target_tls", Never, "the target {target} has no {why} in common with ic; enable one there"),
            TlsError::Other(_) => Reply::new(502, "target_tls", Never, "TLS with the target {target} failed ({why}); see its log"),
        }
    }
}

/// The first of the names, and as many more as there is room for.
fn shortened_list(names: &[String]) -> String {
    let Some((first, mut rest)) = names.split_first() else {
        return String::new();
    };
    let mut text = shortened(first, WHY_CHARS_MAX);
    while let Some(name) = rest.first()
        && text.chars().count() + name.chars().count() + ", ".len() <= WHY_CHARS_MAX
    {
        text.push_str(", ");
        text.push_str(name);
        rest = &rest[1..];
    }
    if !rest.is_empty() {
        text.push_str(", …");
    }
    text
}

/// The address of a target or proxy, shortened to leave room in a message for the rest of it.
pub fn shortened_address(address: &str) -> String {
    shortened(address, ADDRESS_CHARS_MAX)
}

fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The longest message has 150 characters beside an address, the system's text for a name that does not resolve included.
const ADDRESS_CHARS_MAX: usize = 48;

/// Room for a detail of TLS beside an address and the longest of the texts above.
const WHY_CHARS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reply::MESSAGE_CHARS_MAX;

    /// As long as an address in a message can be.
    fn long_target() -> String {
        "é".repeat(ADDRESS_CHARS_MAX + 1)
    }

    #[test]
    fn a_tls_error_fits_into_a_message_however_long_its_parts_are() {
        let day = || "2026-01-31".to_owned();
        let long = || "ü".repeat(500);
        for error in [
            TlsError::Expired(day()),
            TlsError::NotYetValid(day()),
            TlsError::WrongName(Vec::new()),
            TlsError::WrongName(vec![long(), long()]),
            TlsError::WrongName(vec!["a.example".to_owned(); 90]),
            TlsError::UnknownIssuer,
            TlsError::SelfSigned,
            TlsError::BadCertificate(long()),
            TlsError::CertificateRequired,
            TlsError::CertificateRefused(long()),
            TlsError::HandshakeRefused,
            TlsError::NotTls,
            TlsError::Incompatible(long()),
            TlsError::Other(long()),
        ] {
            check_message(&error.reply(&long_target()).message);
        }
    }

    #[test]
    fn a_proxy_error_fits_into_a_message_and_names_the_variable() {
        let unresolved = io::Error::other(
            "failed to lookup address information: Temporary failure in name resolution",
        );
        let reset = || io::Error::from_raw_os_error(104);
        for cause in [
            ProxyFailure::Connect(ConnectError::Unresolved(unresolved)),
            ProxyFailure::Connect(ConnectError::Refused),
            ProxyFailure::Connect(ConnectError::Failed(reset())),
            ProxyFailure::Connect(ConnectError::Timeout),
            ProxyFailure::ReplyTimeout,
            ProxyFailure::PasswordRequired,
            ProxyFailure::PasswordRefused,
            ProxyFailure::FieldRefused,
            ProxyFailure::Status(503),
            ProxyFailure::Protocol(reset()),
        ] {
            let error = ProxyError {
                proxy: format!("http://{}:65535", "x".repeat(200)),
                variable: "HTTPS_PROXY",
                cause,
            };
            let message = error.reply(&long_target()).message;
            check_message(&message);
            assert!(message.contains("PROXY"), "the way out: {message}");
        }
    }

    #[track_caller]
    fn check_message(message: &str) {
        assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
        assert!(!message.contains(['{', '}']), "{message}");
    }

    #[test]
    fn of_many_names_the_first_are_shown() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            shortened_list(&names)
        };
        assert_eq!(names(&["a.example"]), "a.example");
        assert_eq!(
            names(&["a.example", "*.b.example"]),
            "a.example, *.b.example"
        );
        assert_eq!(
            names(&["aaaaaaaaaaaaaaaaaaaaaaaaa.example"; 3]),
            "aaaaaaaaaaaaaaaaaaaaaaaaa.example, …"
        );
    }
}
