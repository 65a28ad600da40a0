//! What rustls found wrong, in terms of what to do about it.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::Wrong;
use super::trust::is_ca_as_server;

/// What was wrong with TLS, where a connection failed for that.
pub fn wrong_in(error: &io::Error) -> Option<Wrong> {
    error.get_ref()?.downcast_ref().map(verdict)
}

fn verdict(error: &Error) -> Wrong {
    match error {
        error if is_ca_as_server(error) => Wrong::SelfSigned,
        Error::InvalidCertificate(error) => about_certificate(error),
        Error::AlertReceived(alert) => about_alert(*alert),
        Error::InvalidMessage(_) => Wrong::NotTls,
        Error::PeerIncompatible(_) => Wrong::NothingInCommon("version or cipher of TLS".to_owned()),
        error => Wrong::Other(error.to_string()),
    }
}

fn about_certificate(error: &CertificateError) -> Wrong {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Wrong::Expired(day(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Wrong::NotYetValid(day(*not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            Wrong::OtherName(presented.iter().map(|name| bare_name(name)).collect())
        }
        CertificateError::UnknownIssuer => Wrong::UnknownIssuer,
        error => Wrong::BadCertificate(error.to_string()),
    }
}

/// `a.example` of `DnsName("a.example")`. Whoever made the certificate chose the name: it steers no terminal.
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

/// An alert is what the origin says. About certificates, it means that of this side (RFC 8446 §6.2).
fn about_alert(alert: AlertDescription) -> Wrong {
    match alert {
        AlertDescription::CertificateRequired => Wrong::WantsCertificate,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => Wrong::RefusesCertificate(format!("{alert:?}")),
        AlertDescription::ProtocolVersion => Wrong::NothingInCommon("version of TLS".to_owned()),
        AlertDescription::NoApplicationProtocol => Wrong::NothingInCommon("HTTP/1.1".to_owned()),
        AlertDescription::InsufficientSecurity => {
            Wrong::NothingInCommon("cipher of TLS".to_owned())
        }
        // A server of TLS 1.2 without a client certificate says no more than this.
        AlertDescription::HandshakeFailure => Wrong::RefusesHandshake,
        alert => Wrong::Other(format!("it says {alert:?}")),
    }
}

/// A moment's day, as ISO 8601 writes it.
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
    fn a_moment_has_its_day() {
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
    fn a_name_is_told_without_what_it_is() {
        assert_eq!(bare_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare_name("a.example"), "a.example");
        assert_eq!(bare_name("DnsName(\"a\x1b[31m\u{85}\")"), "a?[31m?");
    }
}
