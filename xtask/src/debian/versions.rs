//! Which versions of packages are used.

use std::path::Path;

use anyhow::Result;

use crate::base::files;
use crate::base::progress::say;

/// The versions of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions<'a> {
    /// Those of the distribution with its updates, including security updates, for a release build: fail if the mirror's
    /// indexes of updates are broken.
    Updated,
    /// The same, but if the indexes of updates are broken, warn and use the release without updates.
    UpdatedIfPossible,
    /// Those of an earlier build, from a directory with the packages and their index `Packages`.
    Kept(&'a Path),
}

/// The file that marks a directory of packages without updates.
const WITHOUT_UPDATES: &str = "without-updates";

/// Marks a directory of packages without updates.
pub(crate) fn record_missing(dir: &Path) -> Result<()> {
    files::write(&dir.join(WITHOUT_UPDATES), b"")
}

/// Removes packages without updates if updates are required.
pub(crate) fn discard_outdated(dir: &Path, versions: Versions<'_>) -> Result<()> {
    if versions == Versions::Updated && dir.join(WITHOUT_UPDATES).exists() {
        say(format_args!("warning: {} lacks security updates; fetching its packages again", dir.display()));
        files::remove_any(dir)?;
    }
    Ok(())
}
