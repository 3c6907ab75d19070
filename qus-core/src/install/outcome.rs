//! The result of an installation for each architecture.

use std::fmt;

use serde::Serialize;

use super::error::ArchFailure;
use crate::arch::Arch;
use crate::binfmt::{Difference, Rule};
use crate::handler::{HandlerChange, HandlerError};

/// The state of an architecture after an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallState {
    /// It was installed already.
    Unchanged,
    /// It is installed now.
    Installed,
    /// Its handler has replaced one of ours.
    Replaced,
    /// Its handler shadows one of another program.
    Shadowing,
    /// The machine runs it without an emulator.
    Native,
    /// It could not be installed.
    Failed,
}

impl fmt::Display for InstallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unchanged => "unchanged",
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::Shadowing => "shadowing",
            Self::Native => "native",
            Self::Failed => "FAILED",
        })
    }
}

/// The result for an architecture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstallOutcome {
    /// Its name; as it was given, if it is unknown.
    pub arch: String,
    /// Its state now.
    pub state: InstallState,
    /// The names of its handlers.
    pub handlers: Vec<String>,
    /// Its emulator.
    pub interpreter: Option<String>,
    /// The flags of its handlers.
    pub flags: Option<String>,
    /// Whether its probe ran through the kernel; `None` if it was not run.
    pub probe: Option<bool>,
    /// Why it failed, or is not needed.
    pub why: Option<String>,
    /// What to do about a failure.
    pub hint: Option<String>,
    /// How a registered handler differs from what was requested.
    pub differences: Vec<Difference>,
}

impl InstallOutcome {
    pub(super) fn new(arch: impl ToString, state: InstallState) -> Self {
        Self {
            arch: arch.to_string(),
            state,
            handlers: Vec::new(),
            interpreter: None,
            flags: None,
            probe: None,
            why: None,
            hint: None,
            differences: Vec::new(),
        }
    }

    /// A failure, with its reason.
    pub fn failed(arch: impl ToString, why: impl ToString, hint: Option<String>) -> Self {
        Self { why: Some(why.to_string()), hint, ..Self::new(arch, InstallState::Failed) }
    }

    pub(super) fn native(arch: &Arch, why: &str) -> Self {
        Self { why: Some(why.to_owned()), ..Self::new(arch, InstallState::Native) }
    }

    /// Whether something was changed, or would be in a dry run.
    pub fn is_change(&self) -> bool {
        !matches!(self.state, InstallState::Failed | InstallState::Native | InstallState::Unchanged)
    }

    pub(super) fn add_handler(&mut self, rule: &Rule, change: HandlerChange) {
        self.handlers.push(rule.name.to_string_lossy().into_owned());
        self.interpreter = Some(rule.interpreter.display().to_string());
        self.state = match change {
            HandlerChange::Unchanged => self.state,
            HandlerChange::Registered => InstallState::Installed,
            HandlerChange::Replaced => InstallState::Replaced,
            HandlerChange::Shadowing => InstallState::Shadowing,
        };
    }

    pub(super) fn fail(&mut self, failure: &ArchFailure) {
        self.state = InstallState::Failed;
        self.why = Some(failure.to_string());
        self.hint = failure.hint();
        if let ArchFailure::Handler(HandlerError::Differs { differences, .. })
        | ArchFailure::ReadBack(HandlerError::Differs { differences, .. }) = failure
        {
            self.differences.clone_from(differences);
        }
    }
}
