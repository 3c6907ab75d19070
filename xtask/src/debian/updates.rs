//! Whether packages include the updates of their release.

use std::path::Path;

use anyhow::Result;

use crate::base::files;
use crate::base::progress::say;

/// The behaviour if a mirror's indexes of a release's updates, including security updates, are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Updates {
    /// Fail: the packages are for a release build.
    Required,
    /// Warn, and use the release without updates.
    Wanted,
}

/// The file that marks a directory of packages without updates.
const WITHOUT_UPDATES: &str = "without-updates";

/// Marks a directory of packages without updates.
pub(crate) fn record_missing(dir: &Path) -> Result<()> {
    files::write(&dir.join(WITHOUT_UPDATES), b"")
}

/// Removes packages without updates if updates are required.
pub(crate) fn discard_outdated(dir: &Path, updates: Updates) -> Result<()> {
    if updates == Updates::Required && dir.join(WITHOUT_UPDATES).exists() {
        say(format_args!("warning: {} lacks security updates; fetching its packages again", dir.display()));
        files::remove_any(dir)?;
    }
    Ok(())
}
