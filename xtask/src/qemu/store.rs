//! Finished emulators in the cache and in the bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::arch::Arch;
use qus_core::bundle::{Bundle, BundledEmulator, Recipe};

use crate::base::context::Context;
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::bundle::manifest;
use crate::qemu::pgo;

/// The emulators that the cache has of one recipe.
pub(crate) struct Cached<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) recipe: &'a Recipe,
}

impl Cached<'_> {
    fn dir(&self, arch: &Arch) -> Result<PathBuf> {
        Ok(self.cx.paths.emulator(&self.recipe.key(arch)))
    }

    /// Where an emulator is that is not missing.
    pub(crate) fn emulator(&self, arch: &Arch) -> Result<PathBuf> {
        Ok(self.dir(arch)?.join(arch.emulator()))
    }

    /// The record of an emulator; `None` if there is none that can be read.
    fn record(&self, arch: &Arch) -> Result<Option<BundledEmulator>> {
        let text = fs::read(self.dir(arch)?.join("emulator.json")).ok();
        let record: Option<BundledEmulator> = text.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(record.filter(|record| record.target == arch && record.file == arch.emulator()))
    }

    /// Those that have to be built. One that was changed since counts as not there.
    pub(crate) fn missing(&self, targets: &[&'static Arch]) -> Result<Vec<&'static Arch>> {
        let mut missing = Vec::new();
        for &arch in targets {
            let dir = self.dir(arch)?;
            let intact = match self.record(arch)? {
                Some(record) => is_intact(&dir, &record),
                None => false,
            };
            if !intact {
                if dir.exists() {
                    cache::report_changed(&dir.join(arch.emulator()));
                    files::remove(&dir)?;
                }
                missing.push(arch);
            }
        }
        Ok(missing)
    }

    /// Takes a verified emulator in.
    pub(crate) fn keep(&self, arch: &'static Arch, emulator: &Path) -> Result<()> {
        cache::publish(&self.dir(arch)?, |partial| {
            let file = arch.emulator();
            let kept = partial.join(&file);
            files::copy(emulator, &kept)?;
            let record = BundledEmulator {
                target: arch,
                size: fs::metadata(&kept)?.len(),
                sha256: files::sha256(&kept)?,
                file,
            };
            files::write(&partial.join("emulator.json"), &serde_json::to_vec_pretty(&record)?)
        })
    }

    /// Adds emulators of the cache to those that are intact in the bundle, and describes them all.
    pub(crate) fn bundle(&self, dir: &Path, intact: Vec<BundledEmulator>, new: &[&Arch]) -> Result<Bundle> {
        if intact.is_empty() {
            if let Ok(Some(earlier)) = manifest::read(dir) {
                say(format_args!(
                    "replacing the bundle of QEMU {} in {}",
                    earlier.recipe.qemu,
                    dir.display()
                ));
            }
            clear(dir)?;
        }
        let mut emulators = intact;
        for arch in new {
            let record =
                self.record(arch)?.with_context(|| format!("the cache lost the emulator of {arch}"))?;
            files::copy_verified(
                &self.dir(arch)?.join(&record.file),
                &dir.join(&record.file),
                record.sha256,
            )?;
            emulators.push(record);
        }
        let bundle = Bundle::new(self.recipe.clone(), emulators);
        manifest::write(&bundle, dir)?;
        Ok(bundle)
    }
}

/// Removes what this command puts into a bundle; `qus` lies there too.
fn clear(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("qemu-") || ["bundle.json", "SHA256SUMS", pgo::FILE].contains(&&*name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Emulators of an earlier run that were built by the same recipe and have not been changed since.
pub(crate) fn intact(dir: &Path, recipe: &Recipe) -> Vec<BundledEmulator> {
    let mut emulators = match manifest::read(dir) {
        Ok(Some(bundle)) if bundle.recipe == *recipe => bundle.emulators,
        Ok(_) => Vec::new(),
        Err(error) => {
            let error = error.to_string();
            say(format_args!("warning: {}; writing it again", error.lines().next().unwrap_or_default()));
            Vec::new()
        }
    };
    emulators.retain(|kept| is_intact(dir, kept));
    emulators
}

fn is_intact(dir: &Path, emulator: &BundledEmulator) -> bool {
    files::sha256(&dir.join(&emulator.file)).is_ok_and(|sha256| sha256 == emulator.sha256)
}
