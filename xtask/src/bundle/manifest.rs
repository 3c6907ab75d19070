//! The emulators of a host as they are handed on: the files, `bundle.json` and `SHA256SUMS`.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use qus_core::arch::Host;
use qus_core::bundle::{Bundle, BundleError, BundledEmulator, FILE};
use qus_core::hint::hinted;

use crate::base::files;

/// Reads the bundle in a directory; `None` if there is none, or one that another version of xtask has written.
///
/// # Errors
/// `bundle.json` is damaged.
pub(crate) fn read(dir: &Path) -> Result<Option<Bundle>> {
    match Bundle::read(dir) {
        Err(BundleError::OtherSchema(..)) => Ok(None),
        read => Ok(read?),
    }
}

/// Writes the two files that describe the emulators in a directory, where they differ from what is there.
pub(crate) fn write(bundle: &Bundle, dir: &Path) -> Result<()> {
    for (name, text) in [("SHA256SUMS", bundle.sums()), (FILE, bundle.json())] {
        let path = dir.join(name);
        if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
            files::write(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// The bundle of a host, which has emulators.
///
/// # Errors
/// It was not built.
pub(crate) fn built(host: &Host, dir: &Path) -> Result<Bundle> {
    let bundle = read(dir)?.filter(|bundle| !bundle.emulators.is_empty());
    bundle.ok_or_else(|| {
        hinted(
            format!("no emulators for {host} in {}", dir.display()),
            format!("to build them, run `cargo xtask build-qemu --all --host {host}`"),
        )
    })
}

/// Compares an emulator of a bundle with its record.
///
/// # Errors
/// It was changed, or is not there.
pub(crate) fn verify(host: &Host, dir: &Path, emulator: &BundledEmulator) -> Result<()> {
    let file = dir.join(&emulator.file);
    if files::sha256(&file).is_ok_and(|sha256| sha256 == emulator.sha256) {
        return Ok(());
    }
    Err(hinted(
        format!("{} does not match bundle.json", file.display()),
        format!("to build it again, run `cargo xtask build-qemu {} --host {host}`", emulator.target),
    ))
}

/// That the bundle of a host lacks the program `qus`, or what belongs to it.
pub(crate) fn no_program(host: &Host, dir: &Path) -> anyhow::Error {
    hinted(
        format!("no finished qus for {host} in {}", dir.display()),
        format!("to build it, run `cargo xtask build-qus --host {host}`"),
    )
}
