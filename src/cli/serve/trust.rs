//! How the certificate of an `https` target is verified: options and variables about certificates. The files are read only
//! for a target that needs them.

use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::settings::{self, Environment, SourcedValue};
use crate::serve::{Endpoint, Target, Tls, TlsConfigError, Trust};
use crate::text::{escaped_path, io_message};

use super::arguments::Serve;

/// The options and variables; no file is read.
///
/// # Errors
///
/// Bad usage, naming the option or variable.
pub fn trust(serve: &Serve, environment: &Environment<'_>) -> Result<Trust, Failure> {
    let to_path = |given: SourcedValue| given.file();
    let path = |name, value: &Option<String>| {
        let given = value.as_ref().map(|value| SourcedValue::flag(name, value));
        given.map(to_path).transpose()
    };
    let variable = |name| environment.variable(name).map(to_path).transpose();
    let certificate = path("--client-cert", &serve.client_cert)?;
    let key = path("--client-key", &serve.client_key)?;
    let client = match (certificate, key) {
        // One file often holds certificate and key.
        (Some(certificate), key) => Some((certificate.clone(), key.unwrap_or(certificate))),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Failure::usage(
                "`--client-key` is the key of a certificate; give `--client-cert` as well",
            ));
        }
    };
    let folders = variable(settings::SSL_CERT_DIR)?;
    Ok(Trust {
        ca_file: path("--ca-file", &serve.ca_file)?,
        system_file: variable(settings::SSL_CERT_FILE)?,
        system_folders: folders.map_or_else(Vec::new, |folders| {
            std::env::split_paths(&folders)
                .filter(|folder| !folder.as_os_str().is_empty())
                .collect()
        }),
        client,
        insecure: serve.insecure,
    })
}

/// The TLS client for an `https` target, `None` for others. Reads the certificates.
///
/// # Errors
///
/// "Could not" for a file that cannot be read; bad usage for content that cannot be used.
pub fn tls(trust: &Trust, target: &Target) -> Result<Option<Tls>, Failure> {
    let Endpoint::Tcp(host, _) = target.endpoint() else {
        return Ok(None);
    };
    if !target.is_https() {
        return Ok(None);
    }
    let tls = Tls::new(trust, host).map_err(|unusable| match unusable {
        TlsConfigError::Unreadable(path, error) => {
            let remedy = if trust.system_file.as_ref() == Some(&path) {
                "correct SSL_CERT_FILE, or leave it out"
            } else if trust.system_folders.contains(&path) {
                "correct SSL_CERT_DIR, or leave it out"
            } else {
                "give a file that can be read"
            };
            Failure::could_not(format!(
                "cannot read `{}`: {}; {remedy}",
                escaped_path(&path),
                io_message(&error)
            ))
        }
        TlsConfigError::Invalid(why) => Failure::usage(why),
    })?;
    if trust.insecure {
        eprint_line(format_args!(
            "warning: --insecure does not verify the certificate of {target}: an attacker on the network can read and \
             change everything; give its CA with --ca-file instead"
        ));
    }
    Ok(Some(tls))
}
