//! Packages with or without the updates of their release.

use std::path::Path;

use anyhow::Result;

use crate::base::files;
use crate::base::progress::say;

/// What is done where a mirror's indexes of a release's updates, security updates among them, are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Updates {
    /// Nothing is fetched: what is made is for shipping.
    Required,
    /// The release is taken as it came out, with a warning.
    Wanted,
}

/// In a directory whose packages are without their updates.
const WITHOUT_UPDATES: &str = "without-updates";

/// Records in a directory that its packages are without their updates.
pub(crate) fn record_missing(dir: &Path) -> Result<()> {
    files::write(&dir.join(WITHOUT_UPDATES), b"")
}

/// Discards packages that lack their updates, if those are required now.
pub(crate) fn discard_outdated(dir: &Path, updates: Updates) -> Result<()> {
    if updates == Updates::Required && dir.join(WITHOUT_UPDATES).exists() {
        say(format_args!("warning: {} lacks security updates; fetching it again", dir.display()));
        files::discard(dir)?;
    }
    Ok(())
}
