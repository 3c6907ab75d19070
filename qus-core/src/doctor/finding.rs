//! What was found, how much it matters, and what to do about it.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Something fails under the circumstances that the finding names.
    Warning,
    /// Something that was requested, or is registered, cannot work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: a handler's name, or a part of the machine.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What follows from it.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Findings in the order in which they were made.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(
        &mut self,
        severity: Severity,
        subject: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
        hint: Option<String>,
    ) {
        let (subject, what, why) = (subject.into(), what.into(), why.into());
        self.0.push(Finding { severity, subject, what, why, hint: hint.map(|hint| format!("`{hint}`")) });
    }
}
