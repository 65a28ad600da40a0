//! What an error of rustls means to the user.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::super::error::TlsError;
use super::trust::is_ca_as_server;

/// The error of TLS inside of `error`; `None` if it is not one.
pub fn diagnose(error: &io::Error) -> Option<TlsError> {
    error.get_ref()?.downcast_ref().map(from_rustls)
}

fn from_rustls(error: &Error) -> TlsError {
    match error {
        error if is_ca_as_server(error) => TlsError::SelfSigned,
        Error::InvalidCertificate(error) => from_certificate(error),
        Error::AlertReceived(alert) => from_alert(*alert),
        Error::InvalidMessage(_) => TlsError::NotTls,
        Error::PeerIncompatible(_) => TlsError::Incompatible("TLS version or cipher".to_owned()),
        error => TlsError::Other(error.to_string()),
    }
}

fn from_certificate(error: &CertificateError) -> TlsError {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => TlsError::Expired(day(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            TlsError::NotYetValid(day(*not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            TlsError::WrongName(presented.iter().map(|name| bare_name(name)).collect())
        }
        CertificateError::UnknownIssuer => TlsError::UnknownIssuer,
        error => TlsError::BadCertificate(error.to_string()),
    }
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

/// The meaning of an alert of the target. An alert about a certificate is about the client's (RFC 8446 §6.2).
fn from_alert(alert: AlertDescription) -> TlsError {
    match alert {
        AlertDescription::CertificateRequired => TlsError::CertificateRequired,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => TlsError::CertificateRefused(format!("{alert:?}")),
        AlertDescription::ProtocolVersion => TlsError::Incompatible("TLS version".to_owned()),
        AlertDescription::NoApplicationProtocol => TlsError::Incompatible("HTTP/1.1".to_owned()),
        AlertDescription::InsufficientSecurity => TlsError::Incompatible("TLS cipher".to_owned()),
        // All that a TLS 1.2 server sends when a client certificate is missing.
        AlertDescription::HandshakeFailure => TlsError::HandshakeRefused,
        alert => TlsError::Other(format!("alert {alert:?}")),
    }
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
    use std::time::Duration;

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
    fn a_name_is_shown_without_its_type() {
        assert_eq!(bare_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare_name("a.example"), "a.example");
        assert_eq!(bare_name("DnsName(\"a\x1b[31m\u{85}\")"), "a?[31m?");
    }
}
