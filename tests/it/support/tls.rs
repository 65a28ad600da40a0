//! TLS of the origin, and certificates that a CA of the test run issues.
//!
//! With `IC_TEST_ORIGIN=https`, origins use TLS unless a test chooses otherwise, so that the same tests run over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::DEADLINE;

/// The TLS configuration of the servers in the tests.
pub type Config = Arc<ServerConfig>;

/// Whether origins use TLS by default.
pub fn is_asked_for() -> bool {
    std::env::var_os("IC_TEST_ORIGIN").is_some_and(|kind| kind == "https")
}

/// The scheme of target URLs.
pub fn scheme() -> &'static str {
    if is_asked_for() { "https" } else { "http" }
}

/// A certificate authority of the test run.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// Its certificate, in a file.
    pub file: PathBuf,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params =
            CertificateParams::new(Vec::new()).expect("an empty list of names is valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("{name} of a test"));
        let key = KeyPair::generate().expect("keys can be generated");
        let certificate = params
            .self_signed(&key)
            .expect("a CA can sign itself")
            .pem();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}.pem", std::process::id()));
        std::fs::write(&file, certificate).expect("the build folder can be written");
        Authority { params, key, file }
    }

    /// The CA of this run of the tests.
    pub fn known() -> &'static Authority {
        static KNOWN: LazyLock<Authority> = LazyLock::new(|| Authority::new("known-ca"));
        &KNOWN
    }

    /// Issues a certificate, with parameters that `change` modifies.
    pub fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (params, key) = subject(names, change);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a CA can sign");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    /// Issues a certificate for `names` with the key of this one, in its name, `issuer`.
    pub fn issue(&self, issuer: &str, names: &[&str]) -> Identity {
        let (mut of_issuer, _) = subject(&[], |_| {});
        of_issuer
            .distinguished_name
            .push(rcgen::DnType::CommonName, issuer);
        let issuer_key = KeyPair::from_pem(&self.key).expect("just made");
        let (params, key) = subject(names, |_| {});
        let issuer = Issuer::from_params(&of_issuer, &issuer_key);
        let certificate = params.signed_by(&key, &issuer).expect("a key can sign");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A self-signed certificate.
pub fn self_signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let (params, key) = subject(names, change);
    let certificate = params
        .self_signed(&key)
        .expect("a certificate can sign itself");
    Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

/// A self-signed certificate of X.509 version 1 for `CN=localhost`, as `openssl x509 -req` makes it.
pub fn of_version_1() -> Identity {
    Identity {
        certificate: "-----BEGIN CERTIFICATE-----\n\
            MIIBJDCBywIUacQ5y75xqv4DtwEtMu47aDVSYE0wCgYIKoZIzj0EAwIwFDESMBAG\n\
            A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODIxMTEwM1oYDzIxMjYxMTA0MjExMTAz\n\
            WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
            AAQM+MrjRdJC4WCRXLSdmu4T9QOUAcu+aN+SDwbpT+Y5I8UJT8WLY85QOy01t4Lz\n\
            xBvOI5qbC+1wb0qJ5xHx95ugMAoGCCqGSM49BAMCA0gAMEUCIGKY/ZJdc69dMdQ8\n\
            Xag5QQur8a0bKGY4gqwyxU0mmn1wAiEAoJQtob1kazUqPajXtJpLhMS0jhUqotK/\n\
            hfPxXhriDUI=\n\
            -----END CERTIFICATE-----\n\n"
            .to_owned(),
        key: "-----BEGIN PRIVATE KEY-----\n\
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgdWc25S/2tDWTsQol\n\
            hDxaOyRqQOCQwC1Fvg2Vb8rISSihRANCAAQM+MrjRdJC4WCRXLSdmu4T9QOUAcu+\n\
            aN+SDwbpT+Y5I8UJT8WLY85QOy01t4LzxBvOI5qbC+1wb0qJ5xHx95ug\n\
            -----END PRIVATE KEY-----\n\n"
            .to_owned(),
    }
}

/// The common name of all certificates of origins but that of version 1.
pub const ORIGIN_NAME: &str = "an origin of a test";

fn subject(
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("good names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, ORIGIN_NAME);
    change(&mut params);
    (params, KeyPair::generate().expect("keys can be generated"))
}

impl Identity {
    /// A server configuration with this certificate.
    pub fn server(&self) -> Config {
        self.server_of(rustls::DEFAULT_VERSIONS, None)
    }

    /// A server configuration with these TLS versions, which requires client certificates of `clients`.
    pub fn server_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> Config {
        use rustls::pki_types::pem::PemObject;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("known versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_file(&authority.file).expect("a CA's file");
                roots.add(root).expect("a CA");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .expect("there is a root certificate");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain =
            vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("just made")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("just made");
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("just made");
        // Not `with_single_cert`, which refuses certificates of version 1.
        let identity = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let mut config = builder.with_cert_resolver(Arc::new(identity));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Writes certificate and key to a file in `folder`.
    pub fn file(&self, folder: &Path) -> PathBuf {
        let file = folder.join("identity.pem");
        std::fs::write(&file, format!("{}{}", self.certificate, self.key))
            .expect("the folder can be written");
        file
    }
}

/// The configuration of origins on loopback.
pub fn usual() -> Config {
    static USUAL: LazyLock<Config> = LazyLock::new(|| {
        Authority::known()
            .issue(&["localhost", "127.0.0.1", "::1"], |_| {})
            .server()
    });
    Arc::clone(&USUAL)
}

/// The TLS state of one connection. Two threads may read and write at the same time: neither holds the lock while it waits
/// for the peer.
pub struct Tls {
    state: Mutex<ServerConnection>,
    /// Held while records are sent, to keep their order.
    turn: Mutex<()>,
}

impl Tls {
    /// Performs the handshake.
    pub fn accept(config: Config, stream: &TcpStream) -> io::Result<Tls> {
        let tls = Tls {
            state: Mutex::new(ServerConnection::new(config).map_err(io::Error::other)?),
            turn: Mutex::default(),
        };
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut piece = [0; 16 * 1024];
        while lock(&tls.state).is_handshaking() {
            let count = (&*stream).read(&mut piece)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let fed = tls.feed(&piece[..count]);
            tls.push(stream)?;
            fed?;
        }
        Ok(tls)
    }

    fn feed(&self, mut ciphertext: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        while !ciphertext.is_empty() {
            state.read_tls(&mut ciphertext)?;
            state.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Received plain text, and whether the peer has sent close_notify.
    pub fn open(&self, mut ciphertext: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
        let mut state = lock(&self.state);
        let mut piece = [0; 16 * 1024];
        loop {
            loop {
                match state.reader().read(&mut piece) {
                    Ok(0) => return Ok(true),
                    Ok(count) => plain.extend_from_slice(&piece[..count]),
                    Err(_) => break,
                }
            }
            if ciphertext.is_empty() {
                return Ok(false);
            }
            state.read_tls(&mut ciphertext)?;
            state.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Sends all of it.
    pub fn send(&self, stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        // One buffer at a time.
        for piece in bytes.chunks(16 * 1024) {
            let _turn = lock(&self.turn);
            let mut ciphertext = Vec::new();
            {
                let mut state = lock(&self.state);
                state.writer().write_all(piece)?;
                take(&mut state, &mut ciphertext)?;
            }
            let mut stream = stream;
            stream.write_all(&ciphertext)?;
        }
        Ok(())
    }

    /// Sends close_notify.
    pub fn finish(&self, stream: &TcpStream) -> io::Result<()> {
        lock(&self.state).send_close_notify();
        self.push(stream)
    }

    fn push(&self, mut stream: &TcpStream) -> io::Result<()> {
        let _turn = lock(&self.turn);
        let mut ciphertext = Vec::new();
        take(&mut lock(&self.state), &mut ciphertext)?;
        stream.write_all(&ciphertext)
    }

    /// The server name that the client has sent (SNI).
    pub fn name_asked_for(&self) -> Option<String> {
        lock(&self.state).server_name().map(str::to_owned)
    }

    /// The negotiated application protocol (ALPN).
    pub fn protocol(&self) -> Option<String> {
        let state = lock(&self.state);
        let protocol = state.alpn_protocol()?;
        Some(super::latin1(protocol))
    }

    /// Whether the session was resumed.
    pub fn is_resumed(&self) -> bool {
        lock(&self.state).handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}

fn take(state: &mut ServerConnection, ciphertext: &mut Vec<u8>) -> io::Result<()> {
    while state.wants_write() {
        state.write_tls(ciphertext)?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
