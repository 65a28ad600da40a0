//! TLS towards the target: which certificates are trusted, and what a failure means.
//!
//! The protocol is rustls', in `session`; certificates are verified in `trust`; `diagnosis` turns what rustls reports into a
//! [`TlsError`](super::error::TlsError). A build without the feature `tls` has `disabled` in their place and refuses `https`
//! targets when they are parsed.
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
pub use self::diagnosis::diagnose;
#[cfg(not(feature = "tls"))]
pub use self::disabled::{Session, Tls, diagnose};
#[cfg(feature = "tls")]
pub use self::session::Session;
#[cfg(feature = "tls")]
pub use self::trust::Tls;

/// Whether this build has TLS.
pub const IS_SUPPORTED: bool = cfg!(feature = "tls");

/// The TLS options of the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Certificates that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Replaces the system's certificates (`SSL_CERT_FILE`).
    pub system_file: Option<PathBuf>,
    /// Folders that replace the system's certificates (`SSL_CERT_DIR`).
    pub system_folders: Vec<PathBuf>,
    /// The client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Do not verify the target's certificate.
    pub insecure: bool,
}

/// TLS options that cannot be used.
#[derive(Debug)]
pub enum TlsConfigError {
    /// This file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Any other error, with what to do about it.
    Invalid(String),
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsConfigError::Unreadable(path, error) => {
                write!(f, "cannot read `{}`: {error}", path.display())
            }
            TlsConfigError::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TlsConfigError {}
