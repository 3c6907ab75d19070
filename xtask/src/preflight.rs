//! Collects everything that is missing, each with its remedy, and fails once.

use std::fmt::Write as _;

use anyhow::{Result, bail};

/// What was found missing so far.
#[derive(Default)]
pub(crate) struct Preflight {
    missing: Vec<String>,
    remedies: Vec<String>,
}

impl Preflight {
    /// Asks for a program in `PATH`, or at its path.
    pub(crate) fn program(&mut self, name: &str, reason: &str, remedy: &str) {
        let found = if name.contains('/') { std::path::Path::new(name).is_file() } else { which(name) };
        self.check(found, format!("{name}: {reason}"), remedy);
    }

    /// Notes `what` as missing unless `ok`.
    pub(crate) fn check(&mut self, ok: bool, what: impl Into<String>, remedy: &str) {
        if ok {
            return;
        }
        self.missing.push(what.into());
        if !self.remedies.iter().any(|known| known == remedy) {
            self.remedies.push(remedy.to_owned());
        }
    }

    /// Fails with all of it.
    pub(crate) fn finish(self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let mut text = String::from("this machine lacks what the build needs:");
        for what in &self.missing {
            let _ = write!(text, "\n  {what}");
        }
        for remedy in &self.remedies {
            let _ = write!(text, "\nremedy: {remedy}");
        }
        bail!(text)
    }
}

/// Whether `PATH` has an executable of that name.
pub(crate) fn which(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|dir| nix::unistd::access(&dir.join(name), nix::unistd::AccessFlags::X_OK).is_ok())
}
