//! How a command ends: an exit code, or a failure with one line that says why and what to do next.

use std::fmt;
use std::process::ExitCode;

use crate::registry::store::StoreError;

/// The exit code. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: the answer is yes; done.
    Done,
    /// 1: the answer is no; not found.
    No,
    /// 2: an argument or a variable is invalid.
    BadUsage,
    /// 3: the operation failed: input or output, the lock, no port left, the listening socket.
    CouldNot,
    /// The exit code of the program that `ic run` ran.
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

/// Why a command failed: one line that says what to do next.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The exit code of the program.
    pub exit: Exit,
    /// The line, without the prefix `ic: `.
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

    /// An argument or a variable is invalid.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::BadUsage,
            message: message.into(),
        }
    }

    /// The operation failed.
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

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::could_not(error.to_string())
    }
}
