//! Measures the size of emulators, uncompressed and compressed as for download.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err::{self as fs, File};
use qus_core::arch::{Arch, Host};
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::Bar;
use crate::base::tarball;
use crate::bench::emulators::Emulators;
use crate::bench::results::Size;

/// Measures a guest's emulator of each set that has one.
pub(super) fn measure_each(guest: &Arch, emulators: &[Option<PathBuf>]) -> Result<Vec<Option<Size>>> {
    let mut bar = Bar::new(format!("compressing {} of each", guest.emulator()));
    let mut sizes = Vec::new();
    for emulator in emulators {
        sizes.push(emulator.as_ref().map(|file| measure(file)).transpose()?);
        bar.set(sizes.len() as u64, emulators.len() as u64);
    }
    bar.finish();
    Ok(sizes)
}

fn measure(emulator: &Path) -> Result<Size> {
    let file = fs::metadata(emulator)?.len();
    let gzip = if is_installed("gzip") {
        Some(written(exec::output(cmd!(sh(), "gzip -9 --no-name --stdout {emulator}"))?)?)
    } else {
        None
    };
    let zstd = compressed(File::open(emulator)?, file)?;
    Ok(Size { file, gzip, zstd })
}

/// Measures all emulators of the host, concatenated in one file; `None` if any is missing.
pub(super) fn measure_all(emulators: &Emulators) -> Result<Option<Size>> {
    let host = Host::current().context("qus does not support this host")?;
    let files: Option<Vec<&PathBuf>> =
        host.guests().map(|arch| emulators.dir.get(arch).map(|emulator| &emulator.path)).collect();
    let Some(files) = files else { return Ok(None) };
    let all = tempfile::NamedTempFile::new().context("cannot create a temporary file for the emulators")?;
    for file in files {
        let copied = File::open(file).and_then(|mut from| io::copy(&mut from, &mut all.as_file()));
        copied.with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let file = all.as_file().metadata()?.len();
    let zstd = compressed(File::open(all.path())?, file)?;
    Ok(Some(Size { file, gzip: None, zstd }))
}

/// Returns the size in bytes of a file of this length, compressed as a tarball is.
fn compressed(from: File, length: u64) -> Result<u64> {
    Ok(tarball::compress(from, length, Vec::new())?.len() as u64)
}

fn written(output: std::process::Output) -> Result<u64> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout.len() as u64)
}
