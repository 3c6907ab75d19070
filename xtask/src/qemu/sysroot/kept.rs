//! The packages of a build, kept so that it can be repeated when the distribution has newer ones.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::files::{self, Scratch};
use crate::base::tarball::{Tarball, TarballEntry};
use crate::base::unpack;
use crate::debian::versions::Versions;

/// The file of a bundle that contains the packages its emulators were built with.
pub(crate) const FILE: &str = "sysroot.tar.zst";

/// The subdirectory of a sysroot with the packages that were unpacked.
pub(super) const PACKAGES: &str = "packages";

/// The index of a directory of packages, which apt reads.
const INDEX: &str = "Packages";

/// The maximum size of all packages in bytes.
const MAX_SIZE: u64 = 2 << 30;

/// What determines the content of a sysroot beside the names of its packages.
pub(super) fn layout(versions: Versions<'_>) -> String {
    /// Increased if the directories of a sysroot change.
    const LAYOUT: u32 = 2;
    match versions {
        Versions::Kept(packages) => format!("{LAYOUT} {}", packages.display()),
        Versions::Updated | Versions::UpdatedIfPossible => LAYOUT.to_string(),
    }
}

/// Unpacks [`FILE`] of another bundle into the cache, as a directory of packages.
///
/// # Errors
/// It is not such a file.
pub(crate) fn unpack(cx: &Context, file: &Path) -> Result<PathBuf> {
    let dir = unpack::ensure(file, MAX_SIZE, |sha256| cx.paths.packages(sha256))?;
    let index = dir.join(INDEX);
    ensure!(index.is_file(), "{} is not the {FILE} of a bundle", file.display());
    Ok(dir)
}

/// Writes [`FILE`] into a bundle, unless it is there.
pub(super) fn write(sysroots: &[&Path], bundle: &Path) -> Result<()> {
    if bundle.join(FILE).exists() {
        return Ok(());
    }
    let mut entries = Vec::new();
    let mut index = String::new();
    for sysroot in sysroots {
        let dir = sysroot.join(PACKAGES);
        let names =
            fs::read_dir(&dir)?.map(|deb| deb?.file_name().into_string().ok().context("a name is not UTF-8"));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let entry = TarballEntry::new(&dir, &name, 0o644)?;
            if entries.contains(&entry) {
                continue;
            }
            let path = dir.join(&name);
            let size = fs::metadata(&path)?.len();
            let fields = exec::read(cmd!(sh(), "dpkg-deb --field {path}"))?;
            index += &format!("{fields}\nFilename: ./{name}\nSize: {size}\nSHA256: {}\n\n", entry.sha256);
            entries.push(entry);
        }
    }
    entries.push(TarballEntry::made(INDEX, index));
    let dir = Scratch::new(files::partial(&bundle.join(FILE)))?;
    let made = Tarball::new(FILE.to_owned(), entries).write(dir.path())?;
    files::rename(&made, &bundle.join(FILE)).context("cannot write the packages to the bundle")
}
