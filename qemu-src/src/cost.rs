//! `costs.toml`: how long emulators take to build.

use serde::Deserialize;

use crate::by_arch::ByArch;

/// `costs.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// When, and of what.
    pub measured: String,
    /// Compiler seconds of one processor for what all emulators of a host share.
    pub shared: u32,
    /// The same for each emulator's own files.
    pub targets: ByArch<u32>,
}
