//! Verifies archives of QEMU's source against known checksums.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use qemu_src::Pin;
use qus_core::digest::Sha256;
use semver::Version;

use crate::base::progress::one_line;
use crate::base::{cache, files};

/// A verified archive in the cache.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) version: Version,
    pub(crate) sha256: Sha256,
    pub(crate) archive: PathBuf,
}

/// Finds the pin whose hash a file has.
pub(super) fn match_pin<'a>(file: &Path, pins: &[Pin<'a>]) -> Result<Pin<'a>> {
    let (size, most) = (files::open(file)?.metadata()?.len(), pins.iter().map(Pin::limit).max().unwrap_or(0));
    ensure!(size <= most, "{} has {size} bytes; the source has at most {most}", one_line(file.display()));
    let got = files::sha256(file)?;
    match pins.iter().find(|pin| pin.sha256 == got) {
        Some(pin) => Ok(pin.clone()),
        None => {
            let expected: Vec<_> = pins
                .iter()
                .map(|pin| format!("\n  expected {} ({}, {})", pin.sha256, pin.origin, pin.file))
                .collect();
            bail!("{} has the wrong sha256:{}\n  got      {got}", one_line(file.display()), expected.concat())
        }
    }
}

/// Whether an archive is in the cache and matches its hash. An archive with another hash is reported and removed.
pub(super) fn is_intact(archive: &Path, sha256: Sha256) -> Result<bool> {
    if files::sha256(archive).is_ok_and(|found| found == sha256) {
        return Ok(true);
    }
    if archive.exists() {
        cache::report_changed(archive);
        files::remove_any(archive)?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_wrong_hash_contains_both_hashes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pin = Pin { origin: "upstream", file: "qemu.tar.xz", sha256: Sha256::of("aaaa"), size: None };
        let error = match_pin(file.path(), &[pin]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("expected {} (upstream, qemu.tar.xz)", Sha256::of("aaaa"))),
            "{error}"
        );
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(error.contains(&format!("got      {empty}")), "{error}");
    }
}
