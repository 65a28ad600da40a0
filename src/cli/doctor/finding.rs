//! What one check of `ic doctor` has found.

use serde::Serialize;

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    pub verdict: Verdict,
    /// One line; where something is wrong, with what to do.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Neither good nor bad.
    Note,
    /// It breaks something.
    Wrong,
}

impl Finding {
    pub fn good(check: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Good,
            message: message.into(),
        }
    }

    pub fn note(check: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Note,
            message: message.into(),
        }
    }

    pub fn wrong(check: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Wrong,
            message: message.into(),
        }
    }
}
