//! How a command ends: with an exit code, or with one line that says why not and what to do next.

use std::fmt;
use std::process::ExitCode;

use crate::registry::store::StoreError;

/// How the program ends. The numbers are promised to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Yes; done.
    Done,
    /// No; not found.
    No,
    /// The command line, or a value in it or in a variable, cannot be used.
    BadUsage,
    /// It could not be done: input or output, the lock, no port left, no listening.
    CouldNot,
    /// As the program that was run did.
    Status(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::BadUsage => 2,
            Exit::CouldNot => 3,
            Exit::Status(status) => status,
        })
    }
}

/// Why a command did not do what it was asked for: one line that says what to do next.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How the program ends because of it.
    pub exit: Exit,
    /// The line, without `ic: `.
    pub message: String,
}

impl Failure {
    /// The answer is no.
    pub fn no(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::No,
            message: message.into(),
        }
    }

    /// The user gave something that cannot be used.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::BadUsage,
            message: message.into(),
        }
    }

    /// The world did not allow it.
    pub fn could_not(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::CouldNot,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::could_not(error.to_string())
    }
}
