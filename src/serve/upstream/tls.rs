//! TLS towards the origin: whom to trust, and what to say of a certificate that cannot be.
//!
//! Decided here: what is asked of a connection to an `https` target, and in which words it fails. The protocol itself is
//! rustls', in `session`; which certificates are good is told to it in `trust`. A build without the feature `tls` has
//! `disabled` in their place, and refuses such targets when they are read.
//!
//! For a target without TLS nothing here runs: no certificate is read, no key is made.

#[cfg(feature = "tls")]
mod diagnosis;
#[cfg(not(feature = "tls"))]
mod disabled;
#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
mod trust;

use std::fmt;
use std::io;
use std::path::PathBuf;

#[cfg(feature = "tls")]
pub use self::diagnosis::wrong_in;
#[cfg(not(feature = "tls"))]
pub use self::disabled::{Session, Tls, wrong_in};
#[cfg(feature = "tls")]
pub use self::session::Session;
#[cfg(feature = "tls")]
pub use self::trust::Tls;

/// Whether `https` targets can be reached.
pub const IS_SPOKEN: bool = cfg!(feature = "tls");

/// What a user says about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Certificates that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// In the place of the system's own (`SSL_CERT_FILE`).
    pub system_file: Option<PathBuf>,
    /// As that, in folders (`SSL_CERT_DIR`).
    pub system_folders: Vec<PathBuf>,
    /// The certificate to show, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Any certificate is good.
    pub insecure: bool,
}

/// Why no TLS connection can be made with what was given.
#[derive(Debug)]
pub enum Unusable {
    /// A file that cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Something else; in words that say what to do.
    Unfit(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Unreadable(path, error) => {
                write!(f, "cannot read `{}`: {error}", path.display())
            }
            Unusable::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Unusable {}

/// Why an origin cannot be talked to in TLS. Trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "there is no TLS to go wrong")
)]
pub enum Wrong {
    /// Its certificate was good until that day.
    Expired(String),
    /// Its certificate is good from that day on.
    NotYetValid(String),
    /// Its certificate is for these names.
    OtherName(Vec<String>),
    /// Nobody that is trusted has issued its certificate.
    UnknownIssuer,
    /// Its certificate is its own issuer.
    SelfSigned,
    /// Something else about its certificate.
    BadCertificate(String),
    /// It wants a certificate from this side, and got none.
    WantsCertificate,
    /// It does not like the certificate that it got from this side; in its words.
    RefusesCertificate(String),
    /// It wants a certificate from this side, or has no cipher in common with it: it says no more.
    RefusesHandshake,
    /// What it says is not TLS.
    NotTls,
    /// It speaks only versions or ciphers that are not safe, or no HTTP/1.1.
    NothingInCommon(String),
    /// Anything else.
    Other(String),
}

impl Wrong {
    /// The failure's name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Wrong::Expired(_)
            | Wrong::NotYetValid(_)
            | Wrong::OtherName(_)
            | Wrong::UnknownIssuer
            | Wrong::SelfSigned
            | Wrong::BadCertificate(_) => "target_certificate",
            Wrong::WantsCertificate | Wrong::RefusesCertificate(_) => "client_certificate",
            Wrong::RefusesHandshake
            | Wrong::NotTls
            | Wrong::NothingInCommon(_)
            | Wrong::Other(_) => "target_tls",
        }
    }

    /// The failure in one line.
    pub fn explain(&self, target: &str) -> String {
        match self {
            Wrong::Expired(day) => format!(
                "the certificate of {target} expired on {day}; renew it there, or correct this machine's clock"
            ),
            Wrong::NotYetValid(day) => format!(
                "the certificate of {target} is not valid before {day}; correct this machine's clock, or wait"
            ),
            Wrong::OtherName(names) if names.is_empty() => format!(
                "the certificate of {target} is for no name at all (a common name does not count); have it issued anew"
            ),
            Wrong::OtherName(names) => format!(
                "the certificate of {target} is not for that name but for {}; use a name that it has in TARGET_LLM_URL",
                listed(names)
            ),
            Wrong::UnknownIssuer => format!(
                "the certificate of {target} has an issuer that is not trusted here; give its CA with --ca-file or SSL_CERT_FILE"
            ),
            Wrong::SelfSigned => format!(
                "the certificate of {target} is self-signed; give that certificate with --ca-file, if you trust it"
            ),
            Wrong::BadCertificate(why) => format!(
                "the certificate of {target} is not good ({}); have it issued anew",
                brief(why)
            ),
            Wrong::WantsCertificate => format!(
                "the target {target} wants a client certificate; give one with --client-cert and --client-key"
            ),
            Wrong::RefusesCertificate(why) => format!(
                "the target {target} refuses the client certificate ({}); give another with --client-cert",
                brief(why)
            ),
            Wrong::RefusesHandshake => format!(
                "the target {target} refuses the handshake: it may want a client certificate (--client-cert), or other ciphers"
            ),
            Wrong::NotTls => format!(
                "the target {target} does not speak TLS there; write it as http://…, or give the port that does"
            ),
            Wrong::NothingInCommon(what) => format!(
                "the target {target} has no {} in common with ic; enable it there",
                brief(what)
            ),
            Wrong::Other(why) => {
                format!(
                    "TLS with the target {target} failed ({}); see its log",
                    brief(why)
                )
            }
        }
    }
}

/// The first of the names, as many as there is room for.
fn listed(names: &[String]) -> String {
    let Some((first, mut rest)) = names.split_first() else {
        return String::new();
    };
    let mut text = brief(first);
    while let Some(name) = rest.first()
        && text.chars().count() + name.chars().count() + ", ".len() <= NAMES_CHARS_MAX
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

/// A peer's or a library's words, as many as there is room for.
fn brief(words: &str) -> String {
    match words.char_indices().nth(NAMES_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

/// Beside a target and the longest of the sentences above, in the 200 that a message may have.
const NAMES_CHARS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reply::MESSAGE_CHARS_MAX;

    #[test]
    fn a_failure_fits_into_a_message_however_long_its_parts_are() {
        let day = || "2026-01-31".to_owned();
        let long = || "ü".repeat(500);
        for wrong in [
            Wrong::Expired(day()),
            Wrong::NotYetValid(day()),
            Wrong::OtherName(Vec::new()),
            Wrong::OtherName(vec![long(), long()]),
            Wrong::OtherName(vec!["a.example".to_owned(); 90]),
            Wrong::UnknownIssuer,
            Wrong::SelfSigned,
            Wrong::BadCertificate(long()),
            Wrong::WantsCertificate,
            Wrong::RefusesCertificate(long()),
            Wrong::RefusesHandshake,
            Wrong::NotTls,
            Wrong::NothingInCommon(long()),
            Wrong::Other(long()),
        ] {
            // As long as a target in a message may be.
            let message = wrong.explain(&format!("{}…", "é".repeat(48)));
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
        }
    }

    #[test]
    fn of_many_names_the_first_are_told() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            listed(&names)
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
