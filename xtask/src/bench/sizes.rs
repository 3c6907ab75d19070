//! How large emulators are, as they are and compressed as downloads are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qus_core::arch::{Arch, Host};
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::Bar;
use crate::bench::emulators::Emulators;
use crate::bench::results::Size;
use crate::ship::tarballs::ZSTD;

/// Of a guest's emulator in each folder that has one.
pub(super) fn of_each(zstd: &Path, guest: &Arch, emulators: &[Option<PathBuf>]) -> Result<Vec<Option<Size>>> {
    let mut bar = Bar::new(format!("compressing {} of each", guest.emulator()));
    let mut sizes = Vec::new();
    for emulator in emulators {
        sizes.push(emulator.as_ref().map(|file| of(zstd, file)).transpose()?);
        bar.set(sizes.len() as u64, emulators.len() as u64);
    }
    bar.finish();
    Ok(sizes)
}

fn of(zstd: &Path, emulator: &Path) -> Result<Size> {
    let file = fs::metadata(emulator).with_context(|| format!("cannot read {}", emulator.display()))?.len();
    let gzip = if is_installed("gzip") {
        Some(written(exec::output(cmd!(sh(), "gzip -9 --no-name --stdout {emulator}"))?)?)
    } else {
        None
    };
    let zstd = written(exec::output(cmd!(sh(), "{zstd} {ZSTD...} --stdout {emulator}"))?)?;
    Ok(Size { file, gzip, zstd })
}

/// Of all emulators that a host can have, one behind the other in one file; `None` where some are missing.
pub(super) fn of_all(zstd: &Path, emulators: &Emulators) -> Result<Option<Size>> {
    let host = Host::current().context("qus knows no such machine")?;
    let files: Option<Vec<&PathBuf>> =
        host.guests().map(|arch| emulators.folder.get(arch).map(|emulator| &emulator.path)).collect();
    let Some(files) = files else { return Ok(None) };
    let all = tempfile::NamedTempFile::new().context("no room for the emulators in one file")?;
    for file in files {
        let copied = File::open(file).and_then(|mut from| io::copy(&mut from, &mut all.as_file()));
        copied.with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let (path, file) = (all.path(), all.as_file().metadata()?.len());
    let zstd = written(exec::output(cmd!(sh(), "{zstd} {ZSTD...} --stdout {path}"))?)?;
    Ok(Some(Size { file, gzip: None, zstd }))
}

fn written(output: std::process::Output) -> Result<u64> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout.len() as u64)
}
