//! Reads, writes and verifies a bundle: emulators of one host, `bundle.json` and `SHA256SUMS`.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use qus_core::arch::Host;
use qus_core::bundle::{Bundle, BundleError, BundledEmulator, FILE, Profile};
use qus_core::hint::hinted;

use crate::base::files;
use crate::base::tarball::TarballEntry;

/// The file with the checksums of a directory's files, in the format of `sha256sum --check`.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// Reads the bundle in a directory; `None` if there is none, or if its schema is that of another version of xtask.
///
/// # Errors
/// `bundle.json` is damaged.
pub(crate) fn read(dir: &Path) -> Result<Option<Bundle>> {
    match Bundle::read(dir) {
        Err(BundleError::OtherSchema(..)) => Ok(None),
        read => Ok(read?),
    }
}

/// Writes `bundle.json` and `SHA256SUMS` if they differ from the existing files.
pub(crate) fn write(bundle: &Bundle, dir: &Path) -> Result<()> {
    for (name, text) in [(SUMS, bundle.sums()), (FILE, bundle.json())] {
        let path = dir.join(name);
        if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
            files::write(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// The bundle of a host, with at least one emulator.
///
/// # Errors
/// The bundle has not been built.
pub(crate) fn built(host: &Host, dir: &Path) -> Result<Bundle> {
    let bundle = read(dir)?.filter(|bundle| !bundle.emulators.is_empty());
    bundle.ok_or_else(|| {
        hinted(
            format!("no emulators for {host} in {}", dir.display()),
            format!("to build them, run `cargo xtask build-qemu --all --host {host}`"),
        )
    })
}

/// The option of `build-qemu` that selects the profile of a bundle.
pub(crate) fn profile_option(profile: Profile) -> &'static str {
    match profile {
        Profile::Dev => "",
        Profile::Release => " --profile release",
    }
}

/// Verifies an emulator of a bundle against its checksum.
///
/// # Errors
/// The file is missing or has changed.
pub(crate) fn verify(bundle: &Bundle, dir: &Path, emulator: &BundledEmulator) -> Result<()> {
    let file = dir.join(&emulator.file);
    if files::sha256(&file).is_ok_and(|sha256| sha256 == emulator.sha256) {
        return Ok(());
    }
    Err(hinted(
        format!("{} does not match bundle.json", file.display()),
        format!(
            "to rebuild it, run `cargo xtask build-qemu {} --host {}{}`",
            emulator.target,
            bundle.recipe.host,
            profile_option(bundle.recipe.profile)
        ),
    ))
}

/// The error that a bundle lacks the program `qus` or its completions and manual pages.
pub(crate) fn no_program(host: &Host, dir: &Path) -> anyhow::Error {
    hinted(
        format!("no program qus for {host} in {}", dir.display()),
        format!("to build it, run `cargo xtask build-qus --host {host}`"),
    )
}

/// Completions and manual pages of a bundle.
pub(crate) fn share(bundle: &Path) -> Result<Vec<TarballEntry>> {
    let mut dirs = vec!["share".to_owned()];
    let mut entries = Vec::new();
    while let Some(dir) = dirs.pop() {
        let path = bundle.join(&dir);
        let files = fs::read_dir(&path)?;
        for file in files {
            let file = file?;
            let path = format!("{dir}/{}", file.file_name().to_string_lossy());
            if file.file_type()?.is_dir() {
                dirs.push(path);
            } else {
                entries.push(TarballEntry::new(bundle, &path, 0o644)?);
            }
        }
    }
    Ok(entries)
}
