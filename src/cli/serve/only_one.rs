//! At most one `ic serve --all` for each registry.

use std::fs::File;

use crate::cli::outcome::Failure;
use crate::registry::store::{Claim, Store};

/// This process is the one `ic serve --all` of a registry until this is dropped.
#[derive(Debug)]
pub struct OnlyOne {
    /// `None` where the registry's folder cannot be written; ports exclude each other there.
    _claim: Option<File>,
}

impl OnlyOne {
    /// Makes this process the one of the registry.
    ///
    /// # Errors
    ///
    /// "Could not": another process is.
    pub fn acquire(store: &Store) -> Result<OnlyOne, Failure> {
        let claim = match store.claim() {
            Ok(Claim::Ours(file)) => Some(file),
            Ok(Claim::HeldBy(Some(pid))) => {
                return Err(Failure::could_not(format!(
                    "`ic serve --all` is already running for this registry (pid {pid}); let clients use that one, or stop \
                     it first with `ic stop --all`"
                )));
            }
            Ok(Claim::HeldBy(None)) => {
                return Err(Failure::could_not(
                    "`ic serve --all` is already running for this registry, in another container or on another machine; \
                     stop it there first",
                ));
            }
            Err(error) => {
                log::debug!(
                    "another `ic serve --all` for this registry would not be noticed: {error}"
                );
                None
            }
        };
        Ok(OnlyOne { _claim: claim })
    }
}
