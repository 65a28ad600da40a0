//! Which certificates are trusted: the system's, those that the user adds, and Mozilla's where the system has none.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{self, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, SignatureScheme};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore};

use super::diagnosis::{in_words, is_ca_as_server, is_of_version_1};
use super::{Session, TlsConfigError, Trust};
use crate::serve::reactor::Source;

/// What connections to one target share: trusted certificates and session tickets.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    is_insecure: bool,
}

impl Tls {
    /// For connections to `host`. Certificate files are read here, once.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or its content not used.
    pub fn new(trust: &Trust, host: &str) -> Result<Self, TlsConfigError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            invalid(format!(
                "the host `{host}` cannot be the name of a certificate; use another in the target"
            ))
        })?;
        let provider = Arc::new(crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let trusted = match trust.insecure {
            true => None,
            false => Some(Trusted::new(trust, &algorithms)?),
        };
        let verifier = Verifier {
            algorithms,
            trusted,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &trust.client {
            None => config.with_no_client_auth(),
            Some((certificate, key_path)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| match error {
                    pem::Error::Io(error) => TlsConfigError::Unreadable(key_path.clone(), error),
                    _ => invalid(format!(
                        "`{}` has no usable private key; give one in PEM, without a password",
                        key_path.display()
                    )),
                })?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| match error {
                        Error::InconsistentKeys(_) => invalid(format!(
                            "the key in `{}` does not match the certificate in `{}`; give the key of that certificate",
                            key_path.display(),
                            certificate.display()
                        )),
                        error => invalid(format!(
                            "the client certificate `{}` or its key cannot be used: {}",
                            certificate.display(),
                            match is_of_version_1(&error) {
                                true => "it has version 1; issue it with subjectAltName".to_owned(),
                                false => format!("{}; issue a new one", in_words(&error)),
                            }
                        )),
                    })?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Tls {
            config: Arc::new(config),
            name,
            is_insecure: trust.insecure,
        })
    }

    /// Whether the target's certificate is not verified.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure
    }

    /// Performs the handshake on a connection.
    pub async fn connect(&self, source: Source) -> io::Result<Session> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(io::Error::other)?;
        Session::connect(source, connection).await
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let none = || {
        invalid(format!(
            "`{}` contains no certificate; give one in PEM, which begins with -----BEGIN CERTIFICATE-----",
            path.display()
        ))
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| match error {
            pem::Error::Io(error) => TlsConfigError::Unreadable(path.to_owned(), error),
            _ => none(),
        })?;
    if found.is_empty() {
        return Err(none());
    }
    Ok(found)
}

/// The certificates that this machine trusts.
fn of_system(
    trust: &Trust,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<Trusted, TlsConfigError> {
    let is_given = trust.system_file.is_some() || !trust.system_folders.is_empty();
    let mut found = rustls_native_certs::CertificateResult::default();
    if is_given {
        let file = trust.system_file.as_deref();
        let mut load = |file: Option<&Path>, folder: Option<&Path>| {
            let more = rustls_native_certs::load_certs_from_paths(file, folder);
            found.certs.extend(more.certs);
            found.errors.extend(more.errors);
        };
        load(file, None);
        for folder in &trust.system_folders {
            load(None, Some(folder));
        }
    } else {
        found = rustls_native_certs::load_native_certs();
    }
    let mut trusted = Trusted {
        roots: RootCertStore::empty(),
        given: Vec::new(),
    };
    for certificate in found.certs {
        // Some systems keep certificates that cannot be parsed.
        if let Err(error) = trusted.add(certificate, algorithms) {
            log::debug!("ignoring a certificate of the system: {}", in_words(&error));
        }
    }
    for error in &found.errors {
        log::debug!("ignoring a certificate of the system: {error}");
    }
    if !trusted.roots.is_empty() || !trusted.given.is_empty() {
        return Ok(trusted);
    }
    if is_given {
        let why = found.errors.into_iter().next();
        return Err(match why {
            Some(rustls_native_certs::Error {
                kind: rustls_native_certs::ErrorKind::Io { inner, path },
                ..
            }) => TlsConfigError::Unreadable(path, inner),
            _ => invalid(
                "SSL_CERT_FILE and SSL_CERT_DIR contain no certificate; correct or unset them"
                    .to_owned(),
            ),
        });
    }
    log::debug!("this system has no certificates; using the built-in ones");
    let built_in = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
    trusted.roots.extend(built_in);
    Ok(trusted)
}

fn invalid(why: String) -> TlsConfigError {
    TlsConfigError::Invalid(why)
}

/// Verifies certificates, and that the server has their keys.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// `None`: any certificate is accepted (`--insecure`).
    trusted: Option<Trusted>,
}

/// The certificates that are trusted.
#[derive(Debug)]
struct Trusted {
    /// CAs, for what they issue.
    roots: RootCertStore,
    /// Each for itself alone: the target may present these very bytes.
    given: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(trust: &Trust, algorithms: &WebPkiSupportedAlgorithms) -> Result<Self, TlsConfigError> {
        let mut trusted = of_system(trust, algorithms)?;
        let Some(path) = &trust.ca_file else {
            return Ok(trusted);
        };
        for certificate in certificates(path)? {
            trusted.add(certificate, algorithms).map_err(|error| {
                invalid(format!(
                    "a certificate in `{}` cannot be used ({}); issue a new one",
                    path.display(),
                    in_words(&error)
                ))
            })?;
        }
        Ok(trusted)
    }

    fn add(
        &mut self,
        certificate: CertificateDer<'static>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), webpki::Error> {
        let anchor = webpki::anchor_from_trusted_cert(&certificate)?;
        if is_ca(&certificate, algorithms) {
            self.roots.roots.push(anchor.to_owned());
        }
        self.given.push(certificate);
        Ok(())
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let is_given = self.given.contains(certificate);
        let parsed = match ParsedCertificate::try_from(certificate) {
            // It has no names to compare, and no more than its bytes counts.
            Err(error) if is_given && is_of_version_1(&error) => return Ok(()),
            parsed => parsed?,
        };
        let algorithms = algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            chain,
            now,
            algorithms,
        ) {
            // Its validity period has been checked before. `openssl req -x509` makes a CA certificate, which webpki does not
            // accept as a server's.
            Err(error) if is_given && (is_ca_as_server(&error) || has_unknown_issuer(&error)) => {}
            verdict => verdict?,
        }
        match verify_server_name(&parsed, name) {
            Err(error) if is_given && has_no_name(&error) => Ok(()),
            verdict => verdict,
        }
    }
}

/// Whether a certificate says that it is a CA's (RFC 5280 §4.2.1.9). Of version 1, which cannot say it, none is: another
/// certificate of its key would be trusted for every name.
fn is_ca(certificate: &CertificateDer<'_>, algorithms: &WebPkiSupportedAlgorithms) -> bool {
    let parsed = match webpki::EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed,
        // One with extensions that webpki does not know cannot be a server's.
        Err(error) => return !matches!(error, webpki::Error::UnsupportedCertVersion),
    };
    // webpki checks this after the validity period and before the issuer.
    let verdict = |time| {
        let usage = webpki::KeyUsage::server_auth();
        let path = parsed.verify_for_usage(algorithms.all, &[], &[], time, usage, None, None);
        path.err()
    };
    let verdict = match verdict(UnixTime::now()) {
        Some(webpki::Error::CertExpired { not_after, .. }) => verdict(not_after),
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => verdict(not_before),
        verdict => verdict,
    };
    matches!(verdict, Some(webpki::Error::CaUsedAsEndEntity))
}

/// Verifies a signature with the key of a certificate of X.509 version 1, which rustls does not parse.
fn verify_by_version_1(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = |_| Error::from(CertificateError::BadEncoding);
    let key = webpki::anchor_from_trusted_cert(certificate).map_err(bad)?;
    let key = webpki::spki_for_anchor(&key);
    let key = webpki::RawPublicKeyEntity::try_from(&key).map_err(bad)?;
    let mut usable = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signed.scheme)
        .flat_map(|(_, algorithms)| *algorithms);
    if usable.any(|algorithm| {
        let verified = key.verify_signature(*algorithm, message, signed.signature());
        verified.is_ok()
    }) {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            trusted.verify(certificate, chain, name, now, &self.algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms) {
            Err(error) if is_of_version_1(&error) => {
                verify_by_version_1(message, certificate, signed, &self.algorithms)
            }
            verdict => verdict,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms) {
            Err(error) if is_of_version_1(&error) => {
                verify_by_version_1(message, certificate, signed, &self.algorithms)
            }
            verdict => verdict,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn has_unknown_issuer(error: &Error) -> bool {
    *error == Error::InvalidCertificate(CertificateError::UnknownIssuer)
}

fn has_no_name(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) =
        error
    else {
        return false;
    };
    presented.is_empty()
}

/// Session tickets kept; there is one target, and each connection brings two.
const SESSIONS_MAX: usize = 8;
