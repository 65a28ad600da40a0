//! What an error of rustls means to the user.

use std::{fmt, io};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::super::error::TlsError;

/// The error of TLS inside of `error`; `None` if it is not one.
pub fn diagnose(error: &io::Error) -> Option<TlsError> {
    error.get_ref()?.downcast_ref().map(from_rustls)
}

#[rustfmt::skip] // A table.
fn from_rustls(error: &Error) -> TlsError {
    match error {
        error if is_ca_as_server(error) => row("target_certificate", "the certificate of {target} is self-signed; give that certificate with --ca-file, if you trust it", ""),
        error if is_of_version_1(error) => row("target_certificate", "the certificate of {target} has version 1; issue it with subjectAltName, or give that certificate with --ca-file", ""),
        Error::InvalidCertificate(error) => from_certificate(error),
        Error::AlertReceived(alert) => from_alert(*alert),
        Error::InvalidMessage(_) => row("target_tls", "the target {target} does not speak TLS on this port; write it as http://…, or give its TLS port", ""),
        Error::PeerIncompatible(_) => row("target_tls", INCOMPATIBLE, "TLS version or cipher"),
        error => row("target_tls", OTHER, in_words(error)),
    }
}

#[rustfmt::skip] // A table.
fn from_certificate(error: &CertificateError) -> TlsError {
    let row = |message, why| row("target_certificate", message, why);
    match error {
        CertificateError::ExpiredContext { not_after, .. } => row("the certificate of {target} expired on {why}; renew it, or correct this machine's clock", day(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => row("the certificate of {target} is not valid before {why}; correct this machine's clock, or wait", day(*not_before)),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => row("the certificate of {target} is for no name at all (a common name does not count); issue it with subjectAltName, or give it with --ca-file", String::new()),
        CertificateError::NotValidForNameContext { presented, .. } => row("the certificate of {target} is not for that name but for {why}; use one of its names in TARGET_LLM_URL", names(presented)),
        CertificateError::UnknownIssuer => row("the certificate of {target} has an issuer that is not trusted here; give its CA with --ca-file or SSL_CERT_FILE", String::new()),
        error => row("the certificate of {target} is invalid ({why}); issue a new one", in_words(error)),
    }
}

/// The meaning of an alert of the target. An alert about a certificate is about the client's (RFC 8446 §6.2).
#[rustfmt::skip] // A table.
fn from_alert(alert: AlertDescription) -> TlsError {
    match alert {
        AlertDescription::CertificateRequired => row("client_certificate", "the target {target} requires a client certificate; give one with --client-cert and --client-key", ""),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => row("client_certificate", "the target {target} refuses the client certificate ({why}); give another with --client-cert", in_words(&alert)),
        AlertDescription::ProtocolVersion => row("target_tls", INCOMPATIBLE, "TLS version"),
        AlertDescription::NoApplicationProtocol => row("target_tls", INCOMPATIBLE, "HTTP/1.1"),
        AlertDescription::InsufficientSecurity => row("target_tls", INCOMPATIBLE, "TLS cipher"),
        // TLS 1.2 servers say no more when a client certificate or a cipher is missing.
        AlertDescription::HandshakeFailure => row("target_tls", "the target {target} refuses the TLS handshake; it may require a client certificate (--client-cert) or other ciphers", ""),
        alert => row("target_tls", OTHER, format!("alert: {}", in_words(&alert))),
    }
}

const INCOMPATIBLE: &str = "the target {target} has no {why} in common with ic; enable one there";
const OTHER: &str = "TLS with the target {target} failed ({why}); see its log";

fn row(code: &'static str, message: &'static str, why: impl Into<String>) -> TlsError {
    let why = why.into();
    TlsError { code, message, why }
}

/// Whether a certificate was refused because it is a CA's.
pub fn is_ca_as_server(error: &Error) -> bool {
    matches!(of_webpki(error), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Whether a certificate was refused because it is of X.509 version 1 (or 2), which has no extensions and so no names.
pub fn is_of_version_1(error: &Error) -> bool {
    let error = of_webpki(error);
    matches!(error, Some(webpki::Error::UnsupportedCertVersion))
}

fn of_webpki(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// The names of an error and of what it contains as words: `bad signature` of `BadSignature`. Most errors of rustls display as
/// Rust writes them for debugging.
pub fn in_words(error: &impl fmt::Debug) -> String {
    let debug = format!("{error:?}");
    let names = debug.split(['"', '{']).next().unwrap_or_default();
    let mut words = String::new();
    let mut characters = names.trim_end_matches(['(', ' ']).chars().peekable();
    let mut last = ' ';
    while let Some(character) = characters.next() {
        let is_acronym =
            last.is_uppercase() || characters.peek().is_none_or(|next| !next.is_lowercase());
        match character {
            '(' => words.push_str(": "),
            ')' => {}
            _ if !character.is_uppercase() => words.push(character),
            _ => {
                if last.is_lowercase() {
                    words.push(' ');
                }
                let character = if is_acronym {
                    character
                } else {
                    character.to_ascii_lowercase()
                };
                words.push(character);
            }
        }
        last = character;
    }
    words
}

/// The names of a certificate.
fn names(presented: &[String]) -> String {
    let names: Vec<String> = presented.iter().map(|name| bare_name(name)).collect();
    names.join(", ")
}

/// `a.example` of `DnsName("a.example")`. The certificate's issuer chose the name, so that control characters are replaced.
fn bare_name(name: &str) -> String {
    let quoted = name
        .split_once("(\"")
        .and_then(|(_, rest)| rest.strip_suffix("\")"));
    let bare = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    let name = quoted.or(bare).unwrap_or(name);
    name.replace(|character: char| !character.is_ascii_graphic(), "?")
}

/// The day of `time` (UTC), in ISO 8601.
fn day(time: UnixTime) -> String {
    // Counted from 1 March of the year 0, so that a leap day is the last of its year.
    let days = time.as_secs() / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year_of_era + later;
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reply::MESSAGE_CHARS_MAX;
    use rustls::pki_types::ServerName;
    use rustls::{InvalidMessage, PeerIncompatible};
    use std::time::Duration;

    fn wrong_name(presented: Vec<String>) -> Error {
        let expected = ServerName::try_from("a.example").expect("it is a name");
        let error = CertificateError::NotValidForNameContext {
            expected,
            presented,
        };
        Error::InvalidCertificate(error)
    }

    #[test]
    fn an_error_fits_into_a_message_however_long_its_parts_are() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_735_689_600));
        let (not_after, not_before) = (time, time);
        let certificate_errors = [
            CertificateError::ExpiredContext { time, not_after },
            CertificateError::NotValidYetContext { time, not_before },
            CertificateError::UnknownIssuer,
            CertificateError::BadEncoding,
        ];
        let alerts = [
            AlertDescription::CertificateRequired,
            AlertDescription::UnsupportedCertificate,
            AlertDescription::NoApplicationProtocol,
            AlertDescription::HandshakeFailure,
            AlertDescription::InternalError,
        ];
        let others = [
            wrong_name(Vec::new()),
            wrong_name(vec!["ü".repeat(500); 2]),
            wrong_name(vec!["a.example".to_owned(); 90]),
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            Error::General("ü".repeat(500)),
        ];
        let certificate_errors = certificate_errors.map(Error::InvalidCertificate);
        for error in certificate_errors
            .into_iter()
            .chain(alerts.map(Error::AlertReceived))
            .chain(others)
        {
            let message = from_rustls(&error).reply(&"é".repeat(99)).message;
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
            assert!(!message.contains(['{', '}']), "{message}");
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_shown() {
        let presented = ["DnsName(\"a.example\")", "DnsName(\"*.b.example\")"];
        let error = wrong_name(presented.map(str::to_owned).to_vec());
        assert_eq!(from_rustls(&error).why, "a.example, *.b.example");
    }

    #[test]
    fn a_time_has_its_iso_8601_day() {
        // As `date -u -d @SECONDS +%F` says.
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
        ] {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            assert_eq!(day(time), expected);
        }
    }

    #[test]
    fn an_error_of_rustls_is_shown_in_words() {
        #[track_caller]
        fn check(error: Error, expected: &str) {
            assert_eq!(from_rustls(&error).why, expected);
        }
        check(CertificateError::BadSignature.into(), "bad signature");
        check(CertificateError::BadEncoding.into(), "bad encoding");
        check(
            Error::AlertReceived(AlertDescription::UnknownCA),
            "unknown CA",
        );
        check(
            Error::AlertReceived(AlertDescription::InternalError),
            "alert: internal error",
        );
        check(
            rustls::PeerMisbehaved::TooManyEmptyFragments.into(),
            "peer misbehaved: too many empty fragments",
        );
        check(Error::DecryptError, "decrypt error");
        check(Error::General("a {b}".to_owned()), "general");
    }

    #[test]
    fn a_name_is_shown_without_its_type() {
        assert_eq!(bare_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare_name("a.example"), "a.example");
        assert_eq!(bare_name("DnsName(\"a\x1b[31m\u{85}\")"), "a?[31m?");
    }
}
