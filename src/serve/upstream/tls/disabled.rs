//! A build without TLS: the same types, of which no value can exist.

use std::io;
use std::task::{Context, Poll};

use super::super::error::TlsError;
use super::{TlsConfigError, Trust};
use crate::serve::reactor::Source;

/// Has no values.
#[derive(Debug, Clone)]
pub enum Tls {}

impl Tls {
    /// Always an error.
    pub fn new(_: &Trust, _: &str) -> Result<Self, TlsConfigError> {
        Err(TlsConfigError::Invalid(
            "this build has no TLS; give a target that starts with http://".to_owned(),
        ))
    }

    /// Never called.
    pub fn is_insecure(&self) -> bool {
        match *self {}
    }

    /// Never called.
    pub async fn connect(&self, _: Source) -> io::Result<Session> {
        match *self {}
    }
}

/// Has no values.
#[derive(Debug)]
pub enum Session {}

// Never called.
impl Session {
    pub fn source(&self) -> &Source {
        match *self {}
    }

    pub fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub fn try_write(&self, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    pub fn sent_bytes(&self) -> u64 {
        match *self {}
    }

    pub fn try_flush(&self) -> io::Result<()> {
        match *self {}
    }

    pub async fn close(&self) -> io::Result<()> {
        match *self {}
    }

    pub fn suppress_close_notify(&self) {
        match *self {}
    }

    pub fn is_quiet(&self) -> bool {
        match *self {}
    }
}

/// No error is one of TLS.
pub fn diagnose(_: &io::Error) -> Option<TlsError> {
    None
}
