//! What is common to the commands that are disturbed.

use anyhow::Result;

use crate::check::chaos::sandbox::{Sandbox, Words};
use crate::check::chaos::snapshot::Snapshot;

/// What is done to a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL at a random moment.
    Kill,
    /// A file system that becomes full at a random moment.
    FullDisk,
    /// A file system that cannot be written.
    ReadOnly,
    /// SIGKILL, after which the times of all files are random, as with a clock that jumps.
    FileTimes,
    /// Two at the same time.
    Twice,
}

impl Fault {
    pub(super) const ALL: [Self; 5] =
        [Self::Kill, Self::FullDisk, Self::ReadOnly, Self::FileTimes, Self::Twice];

    /// The name in tables and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::FullDisk => "full disk",
            Self::ReadOnly => "read-only",
            Self::FileTimes => "file times",
            Self::Twice => "two at once",
        }
    }
}

/// A command that is disturbed.
pub(super) trait Subject {
    /// The faults that are possible.
    fn faults(&self) -> &'static [Fault];

    /// Creates the state from which the command starts.
    fn prepare(&self, sandbox: &Sandbox) -> Result<()>;

    /// The command.
    fn words(&self, sandbox: &Sandbox) -> Result<Words>;

    /// Runs the command undisturbed until it is complete; returns everything that it leaves.
    fn finish(&self, sandbox: &Sandbox) -> Result<Snapshot>;
}
