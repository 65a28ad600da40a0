//! Which certificates are trusted: the system's, those that the user adds, and Mozilla's where the system has none.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, SignatureScheme};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore};

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
        let trusted = match trust.insecure {
            true => None,
            false => Some(Trusted::new(trust, &provider)?),
        };
        let verifier = Verifier {
            algorithms: provider.signature_verification_algorithms,
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
                            "the client certificate `{}` or its key cannot be used: {error}",
                            certificate.display()
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
fn system_roots(trust: &Trust) -> Result<RootCertStore, TlsConfigError> {
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
    let mut roots = RootCertStore::empty();
    // Some systems keep certificates that cannot be parsed.
    roots.add_parsable_certificates(found.certs);
    for error in &found.errors {
        log::debug!("ignoring a certificate of the system: {error}");
    }
    if !roots.is_empty() {
        return Ok(roots);
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
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
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

/// Trusted roots, and server certificates that the user has given.
#[derive(Debug)]
struct Trusted {
    roots: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, TlsConfigError> {
        let mut roots = system_roots(trust)?;
        let given = match &trust.ca_file {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        for certificate in &given {
            roots.add(certificate.clone()).map_err(|error| {
                let path = trust.ca_file.clone().unwrap_or_default();
                invalid(format!(
                    "a certificate in `{}` cannot be used: {error}",
                    path.display()
                ))
            })?;
        }
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| invalid(error.to_string()))?;
        Ok(Trusted { roots, given })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(Trusted { roots, given }) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        match roots.verify_server_cert(certificate, chain, name, ocsp, now) {
            // `openssl req -x509` makes a CA certificate, which webpki does not accept as a server's; but the user has given
            // this one. Its validity period has been checked before.
            Err(error) if is_ca_as_server(&error) && given.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate was refused because it is a CA's.
pub fn is_ca_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(
        other.0.downcast_ref(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

/// Session tickets kept; there is one target, and each connection brings two.
const SESSIONS_MAX: usize = 8;
