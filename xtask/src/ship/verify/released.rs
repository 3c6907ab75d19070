//! The directory of a release: its files, and what they were built from.

use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::bundle::{Bundle, FILE};
use qus_core::digest::{self, Sha256};
use qus_core::hint::hinted;
use qus_core::release::ReleaseVersion;
use serde_json::Value;

use crate::base::git::Checkout;
use crate::base::{files, tarball};
use crate::bundle::manifest;

/// The file with the statement of what a release was built from.
pub(crate) const PROVENANCE: &str = "provenance.intoto.json";

/// The file with the section of the changelog, which is not downloaded.
pub(crate) const NOTES: &str = "NOTES.md";

/// The maximum size of an unpacked tarball in bytes.
const MAX_SIZE: u64 = 8 << 30;

/// Verifies the files of a release against its checksums, and returns these.
///
/// # Errors
/// A file is missing, differs, or is not listed.
pub(crate) fn check_files(dir: &Path) -> Result<Vec<(String, Sha256)>> {
    let sums = dir.join(manifest::SUMS);
    let text = fs::read_to_string(&sums)?;
    let listed = digest::parse_list(&text).with_context(|| format!("{} is damaged", sums.display()))?;
    for (sha256, name) in &listed {
        let file = dir.join(name);
        ensure!(files::sha256(&file)? == *sha256, "{} does not match its checksum", file.display());
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_listed = listed.iter().any(|(_, listed)| *listed == name);
        // A signature begins with the name of what is signed.
        let is_other = name == NOTES || name.starts_with(manifest::SUMS);
        ensure!(is_listed || is_other, "{} has no checksum in {}", dir.join(name).display(), manifest::SUMS);
    }
    Ok(listed.into_iter().map(|(sha256, name)| (name.to_owned(), sha256)).collect())
}

/// The name that a file of a host's bundle, such as `sysroot.tar.zst`, has in a release.
pub(crate) fn packed_name(file: &str, release: &ReleaseVersion, host: &str) -> String {
    let (name, extension) = file.split_once('.').unwrap_or((file, ""));
    format!("qus-{name}_{release}_{host}.{extension}")
}

/// What a release was built from, as its provenance states it.
pub(super) struct Origin {
    pub(super) release: ReleaseVersion,
    pub(super) hosts: Vec<String>,
    pub(super) commit: String,
    /// Address of the repository.
    pub(super) repository: Option<String>,
}

impl Origin {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(PROVENANCE);
        let statement: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let built = &statement["predicate"]["buildDefinition"];
        let (parameters, source) = (&built["externalParameters"], &built["resolvedDependencies"][0]);
        let parsed = || {
            Some(Self {
                release: parameters["release"].as_str()?.parse().ok()?,
                hosts: serde_json::from_value(parameters["hosts"].clone()).ok()?,
                commit: source["digest"]["gitCommit"].as_str()?.to_owned(),
                repository: source["uri"]
                    .as_str()
                    .and_then(|uri| uri.strip_prefix("git+"))
                    .map(str::to_owned),
            })
        };
        let origin = parsed().with_context(|| format!("{} names no commit", path.display()))?;
        ensure!(
            origin.commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "the release was made from a checkout with changes: {}",
            origin.commit
        );
        Ok(origin)
    }
}

/// Verifies that the release in a directory is that of the checkout.
///
/// # Errors
/// It was made from another commit, or from changes.
pub(crate) fn check_commit(dir: &Path, checkout: &Checkout) -> Result<()> {
    let origin = Origin::read(dir)?;
    ensure!(
        checkout.commit.as_deref() == Some(&*origin.commit),
        hinted(
            format!("the release in {} was made from commit {}", dir.display(), origin.commit),
            "leave out --resume to assemble it again"
        )
    );
    Ok(())
}

/// The description of a host's bundle in a release.
pub(super) fn bundle_of(dir: &Path, release: &ReleaseVersion, host: &str) -> Result<Bundle> {
    let file = dir.join(format!("qus-bundle_{release}_{host}.tar.zst"));
    let mut bundle = None;
    for_each_entry(&file, |path, _, content| {
        if path.file_name().is_some_and(|name| name == FILE) {
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            bundle = Some(Bundle::parse(path, &text)?);
        }
        Ok(())
    })?;
    bundle.with_context(|| format!("{} has no {FILE}", file.display()))
}

/// Reads a compressed tarball, file by file: path, mode and content.
pub(super) fn for_each_entry(
    file: &Path,
    mut read: impl FnMut(&Path, u32, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut tar = tar::Archive::new(tarball::decompress(files::open(file)?, MAX_SIZE)?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let (path, mode) = (entry.path()?.into_owned(), entry.header().mode()?);
        read(&path, mode, &mut entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_of_changed_files_cannot_be_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let read = |commit: &str| {
            let text = format!(
                r#"{{"predicate":{{"buildDefinition":{{"externalParameters":{{"release":"10.2.2-1","hosts":["amd64"]}},
                "resolvedDependencies":[{{"digest":{{"gitCommit":"{commit}"}}}}]}}}}}}"#
            );
            fs::write(dir.path().join(PROVENANCE), text).unwrap();
            Origin::read(dir.path()).map(|origin| origin.commit)
        };
        assert_eq!(read("c0ffee").unwrap(), "c0ffee");
        assert!(read("c0ffee-changed").unwrap_err().to_string().contains("a checkout with changes"));
        assert!(read("--upload-pack=x").is_err());
    }
}
