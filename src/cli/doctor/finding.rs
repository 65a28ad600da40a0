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
    pub fn good(check: &'static str, message: String) -> Finding {
        Finding::new(check, Verdict::Good, message)
    }

    pub fn note(check: &'static str, message: String) -> Finding {
        Finding::new(check, Verdict::Note, message)
    }

    pub fn wrong(check: &'static str, message: String) -> Finding {
        Finding::new(check, Verdict::Wrong, message)
    }

    pub fn new(check: &'static str, verdict: Verdict, message: String) -> Finding {
        Finding {
            check,
            verdict,
            message,
        }
    }

    pub fn is_wrong(&self) -> bool {
        self.verdict == Verdict::Wrong
    }
}
