//! `bundle.json`: which emulators a directory has, and everything they were built from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What emulators are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Shipped: optimised with profile data.
    Release,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dev => "dev",
            Self::Release => "release",
        })
    }
}
