//! Built emulators in the cache and in the bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::arch::Arch;
use qus_core::bundle::{Bundle, BundledEmulator, FILE, Recipe};

use crate::base::context::Context;
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::bundle::manifest;
use crate::qemu::pgo;
use crate::qemu::sysroot::kept;

/// The cached emulators of a recipe.
pub(crate) struct EmulatorCache<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) recipe: &'a Recipe,
}

impl EmulatorCache<'_> {
    fn dir(&self, arch: &Arch) -> PathBuf {
        self.cx.paths.emulator(&self.recipe.key(arch))
    }

    /// The path of a cached emulator.
    pub(crate) fn emulator(&self, arch: &Arch) -> PathBuf {
        self.dir(arch).join(arch.emulator())
    }

    /// The record of an emulator; `None` if it does not exist or cannot be parsed.
    fn record(&self, arch: &Arch) -> Option<BundledEmulator> {
        let text = fs::read(self.dir(arch).join("emulator.json")).ok()?;
        let record: BundledEmulator = serde_json::from_slice(&text).ok()?;
        (record.target == arch && record.file == arch.emulator()).then_some(record)
    }

    /// The targets whose emulators are not in the cache, or have changed.
    pub(crate) fn missing(&self, targets: &[&'static Arch]) -> Result<Vec<&'static Arch>> {
        let mut missing = Vec::new();
        for &arch in targets {
            let dir = self.dir(arch);
            if !self.record(arch).is_some_and(|record| is_intact(&dir, &record)) {
                if dir.exists() {
                    cache::report_changed(&dir.join(arch.emulator()));
                    files::remove_dir(&dir)?;
                }
                missing.push(arch);
            }
        }
        Ok(missing)
    }

    /// Stores a verified emulator in the cache.
    pub(crate) fn store(&self, arch: &'static Arch, emulator: &Path) -> Result<()> {
        cache::publish(&self.dir(arch), |partial| {
            let file = arch.emulator();
            let stored = partial.join(&file);
            files::copy(emulator, &stored)?;
            let record = BundledEmulator {
                target: arch,
                size: fs::metadata(&stored)?.len(),
                sha256: files::sha256(&stored)?,
                file,
            };
            files::write(&partial.join("emulator.json"), &serde_json::to_vec_pretty(&record)?)
        })
    }

    /// Copies emulators from the cache to the bundle, and writes `bundle.json`. `intact` are the bundle's valid
    /// emulators.
    pub(crate) fn bundle(&self, dir: &Path, intact: Vec<BundledEmulator>, new: &[&Arch]) -> Result<Bundle> {
        if intact.is_empty() {
            if let Ok(Some(earlier)) = manifest::read(dir) {
                say(format_args!(
                    "replacing the bundle of QEMU {} in {}",
                    earlier.recipe.qemu,
                    dir.display()
                ));
            }
            remove_emulators(dir)?;
        }
        let mut emulators = intact;
        for arch in new {
            let record =
                self.record(arch).with_context(|| format!("the emulator of {arch} is not in the cache"))?;
            files::copy_verified(&self.dir(arch).join(&record.file), &dir.join(&record.file), record.sha256)?;
            emulators.push(record);
        }
        let bundle = Bundle::new(self.recipe.clone(), emulators);
        manifest::write(&bundle, dir)?;
        Ok(bundle)
    }
}

/// Removes emulators and their metadata from a bundle; `qus` is not removed.
fn remove_emulators(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("qemu-") || [FILE, manifest::SUMS, pgo::FILE, kept::FILE].contains(&&*name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The unchanged emulators of a bundle that were built with the same recipe.
pub(crate) fn intact(dir: &Path, recipe: &Recipe) -> Vec<BundledEmulator> {
    let mut emulators = match manifest::read(dir) {
        Ok(Some(bundle)) if bundle.recipe == *recipe => bundle.emulators,
        Ok(_) => Vec::new(),
        Err(error) => {
            let error = error.to_string();
            say(format_args!("warning: {}; rewriting it", error.lines().next().unwrap_or_default()));
            Vec::new()
        }
    };
    emulators.retain(|emulator| is_intact(dir, emulator));
    emulators
}

fn is_intact(dir: &Path, emulator: &BundledEmulator) -> bool {
    files::sha256(&dir.join(&emulator.file)).is_ok_and(|sha256| sha256 == emulator.sha256)
}
