//! `cells.toml`: what `cargo xtask guests` runs in a root filesystem of each guest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `cells.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cells {
    /// In the order in which they run.
    #[serde(rename = "cell")]
    pub cells: Vec<Cell>,
}

/// A script, and what it needs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cell {
    /// The name of its script, without `.sh`.
    pub name: String,
    /// What it checks.
    pub what: String,
    /// Debian packages that are installed first.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Whether it is part of `cargo xtask test`.
    #[serde(default)]
    pub quick: bool,
    /// Whether it also runs for ports, which it compiles programs for.
    #[serde(default)]
    pub ports: bool,
    /// A directory of the repository whose files it finds in its working directory.
    pub files: Option<PathBuf>,
    /// A directory of QEMU's source whose files it finds there.
    pub qemu_files: Option<PathBuf>,
    /// Its time limit, for the installation of its packages too.
    pub seconds: u32,
    /// Guests, by Debian's name, in which it is known to fail, and why.
    #[serde(default)]
    pub known: BTreeMap<String, String>,
}

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "why")]
pub enum CellOutcome {
    /// Everything was as expected.
    Passed,
    /// Something was not.
    Failed(String),
    /// It failed, as `cells.toml` says.
    Known(String),
    /// It cannot run here.
    Skipped(String),
}

impl CellOutcome {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Known(_) => "known",
            Self::Skipped(_) => "skipped",
        }
    }

    /// The reason, unless it passed.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed(why) | Self::Known(why) | Self::Skipped(why) => Some(why),
        }
    }
}

/// The cells of a guest that have run under one emulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRun {
    /// Debian's name of the guest.
    pub guest: String,
    /// The suite of its root filesystem.
    pub suite: String,
    /// The emulator, as in `qus 10.2.2 dev` or `Debian trixie 10.0.13`.
    pub emulator: String,
    /// The cells.
    pub cells: Vec<CellRun>,
}

/// A cell that has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellRun {
    /// The name of the cell.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: CellOutcome,
    /// How long it took.
    pub seconds: u64,
}

impl GuestRun {
    /// Whether it is of the same root filesystem.
    pub fn is_of(&self, other: &Self) -> bool {
        self.guest == other.guest && self.suite == other.suite
    }

    /// The outcome of a cell.
    pub fn outcome(&self, name: &str) -> Option<&CellOutcome> {
        self.cells.iter().find(|cell| cell.name == name).map(|cell| &cell.outcome)
    }
}

impl Cells {
    pub(crate) fn lint(&self, guests: &[&str]) -> Vec<String> {
        let unknown = self.cells.iter().flat_map(|cell| {
            let names = cell.known.keys().filter(|guest| !guests.contains(&guest.as_str()));
            names.map(|guest| format!("cells.toml, {}: no guest {guest}", cell.name))
        });
        let mut names: Vec<_> = self.cells.iter().map(|cell| &cell.name).collect();
        names.sort();
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
        unknown.chain(twice.map(|pair| format!("cells.toml: two cells {}", pair[0]))).collect()
    }
}
