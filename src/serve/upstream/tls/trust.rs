//! Whom to trust: the system's certificates, those that the user adds, and those that the program brings along where a
//! system has none.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, SignatureScheme};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore};

use super::{Session, Trust, Unusable};
use crate::serve::reactor::Source;

/// What connections to one origin have in common: whom they trust, and tickets from one to the next.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    is_insecure: bool,
}

impl Tls {
    /// For connections to `host`. Certificates are read here, and never again.
    pub fn new(trust: &Trust, host: &str) -> Result<Self, Unusable> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            unfit(format!(
                "the host `{host}` is no name that a certificate can have; give another in the target"
            ))
        })?;
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if trust.insecure {
            Arc::new(Anybody(Arc::clone(&provider)))
        } else {
            Arc::new(Verifier::new(trust, &provider)?)
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &trust.client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key_path = key;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
                    pem::Error::Io(error) => Unusable::Unreadable(key_path.clone(), error),
                    _ => unfit(format!(
                        "`{}` holds no private key that can be used; give one in PEM, without a password",
                        key_path.display()
                    )),
                })?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| match error {
                        Error::InconsistentKeys(_) => unfit(format!(
                            "the key in `{}` is not that of the certificate in `{}`; give the two that belong together",
                            key_path.display(),
                            certificate.display()
                        )),
                        error => unfit(format!(
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

    /// Whether any certificate passes.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure
    }

    /// Shakes hands over a connection.
    pub async fn connect(&self, source: Source<TcpStream>) -> io::Result<Session> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(io::Error::other)?;
        Session::connect(source, connection).await
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let none = || {
        unfit(format!(
            "`{}` holds no certificate; give one in PEM, which begins with -----BEGIN CERTIFICATE-----",
            path.display()
        ))
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| match error {
            pem::Error::Io(error) => Unusable::Unreadable(path.to_owned(), error),
            _ => none(),
        })?;
    if found.is_empty() {
        return Err(none());
    }
    Ok(found)
}

/// Everybody whom this machine trusts.
fn system_roots(trust: &Trust) -> Result<RootCertStore, Unusable> {
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
    // Some systems keep certificates that nobody can use any more.
    roots.add_parsable_certificates(found.certs);
    for error in &found.errors {
        log::debug!("a certificate of the system is left out: {error}");
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
            }) => Unusable::Unreadable(path, inner),
            _ => unfit(
                "SSL_CERT_FILE and SSL_CERT_DIR hold no certificate; correct them, or leave them out"
                    .to_owned(),
            ),
        });
    }
    log::debug!("this system has no certificates; using those that the program brings along");
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
}

fn unfit(why: String) -> Unusable {
    Unusable::Unfit(why)
}

/// Trusts roots, and the very certificates that the user has given.
#[derive(Debug)]
struct Verifier {
    roots: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, Unusable> {
        let mut roots = system_roots(trust)?;
        let own = match &trust.ca_file {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        for certificate in &own {
            roots.add(certificate.clone()).map_err(|error| {
                let path = trust.ca_file.clone().unwrap_or_default();
                unfit(format!(
                    "a certificate in `{}` cannot be used: {error}",
                    path.display()
                ))
            })?;
        }
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| unfit(error.to_string()))?;
        Ok(Verifier { roots, own })
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
        let verdict = self
            .roots
            .verify_server_cert(certificate, chain, name, ocsp, now);
        match verdict {
            // What `openssl req -x509` makes is a CA, and no CA may be a server; yet this one was given by name. Its time
            // has been looked at before that.
            Err(error) if is_ca_as_server(&error) && self.own.contains(certificate) => {
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
        self.roots
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

/// Whether a certificate was refused for being that of a CA.
pub fn is_ca_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(
        other.0.downcast_ref(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

/// Trusts anybody who has the key of the certificate that they show: `--insecure`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Tickets kept for the next handshake; there is one origin, and each connection brings two.
const SESSIONS_MAX: usize = 8;
