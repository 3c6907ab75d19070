//! Keeps handlers installed: those that disappear are registered again.
//!
//! ```no_run
//! use std::{thread::sleep, time::Duration};
//!
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::emulator::EmulatorDir;
//! use qus_core::install::{InstallOptions, install};
//! use qus_core::watch::Watch;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (binfmt, options) = (Binfmt::at(MOUNT_POINT), InstallOptions::default());
//! let archs = ["riscv64".parse()?];
//! let mut watch = Watch::new(install(&binfmt, &EmulatorDir::find()?, &archs, &options, &mut |_| {})?);
//! loop {
//!     sleep(Duration::from_secs(60));
//!     for outcome in watch.check(&binfmt, &options, EmulatorDir::find, &mut |_| {}) {
//!         println!("{}: {}", outcome.arch, outcome.state);
//!     }
//! }
//! # }
//! ```

use crate::arch::Arch;
use crate::binfmt::Binfmt;
use crate::emulator::{EmulatorDir, EmulatorDirError};
use crate::install::{
    InstallEvent, InstallOptions, InstallOutcome, InstallState, Installation, VerifiedEmulator, install,
    is_intact,
};
use crate::text::one_line;

/// Handlers that are kept installed.
pub struct Watch {
    archs: Vec<&'static Arch>,
    emulators: Vec<VerifiedEmulator>,
    /// Failures that were reported already.
    reported: Vec<InstallOutcome>,
}

impl Watch {
    /// Starts with the handlers of an installation.
    pub fn new(installation: Installation) -> Self {
        let archs = installation.emulators.iter().map(|verified| verified.emulator.arch).collect();
        Self { archs, emulators: installation.emulators, reported: Vec::new() }
    }

    /// The architectures whose handlers are kept.
    pub fn archs(&self) -> &[&'static Arch] {
        &self.archs
    }

    /// Checks the handlers, for which it only reads those of the kernel, and installs all again if one is missing or
    /// differs. Returns changes, and each failure once.
    pub fn check(
        &mut self,
        binfmt: &Binfmt,
        options: &InstallOptions,
        open_dir: impl FnOnce() -> Result<EmulatorDir, EmulatorDirError>,
        report: &mut dyn FnMut(InstallEvent<'_>),
    ) -> Vec<InstallOutcome> {
        if is_intact(binfmt, &self.emulators, options) {
            self.reported.clear();
            return Vec::new();
        }
        let failed = |error: &dyn std::error::Error, hint| Installation {
            outcomes: vec![InstallOutcome::failed("all", one_line(error), hint)],
            emulators: Vec::new(),
        };
        let installation = match open_dir() {
            Ok(dir) => install(binfmt, &dir, &self.archs, options, report)
                .unwrap_or_else(|error| failed(&error, error.hint())),
            Err(error) => failed(&error, error.hint()),
        };
        let is_new = |outcome: &&InstallOutcome| {
            !matches!(outcome.state, InstallState::Unchanged | InstallState::Native)
                && !self.reported.contains(outcome)
        };
        let new = installation.outcomes.iter().filter(is_new).cloned().collect();
        self.reported = installation.outcomes;
        self.reported.retain(|outcome| outcome.state == InstallState::Failed);
        // After a failure the old emulators are checked, so that it is tried again next time.
        if self.reported.is_empty() {
            self.emulators = installation.emulators;
        }
        new
    }
}
