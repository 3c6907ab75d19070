//! What both formats of packages have in common.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::base::tarball::TarballEntry;
use crate::bundle::licences::Licensed;

/// The project.
pub(super) const URL: &str = "https://github.com/OWNER/qus";

/// What a package is.
#[derive(Serialize)]
pub(super) struct About {
    pub(super) name: &'static str,
    #[serde(skip)]
    pub(super) content: Licensed,
    pub(super) summary: &'static str,
    /// In lines of fewer than 80 characters.
    pub(super) description: &'static str,
    /// SPDX expression; the licences of all parts are in the package.
    pub(super) licence: &'static str,
    pub(super) recommends: &'static [&'static str],
    /// Packages whose handlers have the same names; this one takes their place.
    pub(super) replaces: &'static [&'static str],
    pub(super) provides: &'static [&'static str],
    pub(super) scripts: Option<Scripts>,
}

/// Scripts that run when a package was installed, and before it is removed.
#[derive(Serialize)]
pub(super) struct Scripts {
    pub(super) installed: &'static str,
    pub(super) removed: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Format {
    Deb,
    Rpm,
}

/// A package that is ready to be written.
#[derive(Serialize)]
pub(crate) struct Package {
    pub(crate) file: String,
    pub(super) format: Format,
    pub(super) about: &'static About,
    /// Version and release, as in `10.2.2-1`.
    pub(super) version: String,
    pub(super) architecture: &'static str,
    /// The time of everything in it, in seconds since 1970.
    pub(super) epoch: u64,
    /// Files and links, whose paths have no first slash, and the directories that the format has.
    pub(crate) entries: Vec<TarballEntry>,
}

impl Package {
    /// Adds the directories of all entries of which `is_ours` is true, and sorts everything by path.
    pub(super) fn with_directories(mut self, is_ours: impl Fn(&str) -> bool) -> Self {
        let mut directories = BTreeSet::new();
        for entry in &self.entries {
            let ancestors = Path::new(&entry.path).ancestors().skip(1);
            directories.extend(ancestors.map(|path| path.to_string_lossy().into_owned()));
        }
        directories.retain(|path| !path.is_empty() && is_ours(path));
        self.entries.extend(directories.iter().map(|path| TarballEntry::directory(path)));
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        self
    }
}

/// Compresses a file of documentation as both distributions want it, without a time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Who is responsible for the packages: the owner of the project, with the address that GitHub gives everybody.
pub(super) fn maintainer() -> String {
    let owner = URL.rsplit('/').nth(1).unwrap_or_default();
    format!("{owner} <{owner}@users.noreply.github.com>")
}
