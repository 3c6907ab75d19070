//! Stages the build contexts of images: copies from the bundle with fixed modes and timestamps, so that layers are
//! reproducible.

use std::fs::{FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use fs_err::{self as fs, File};
use qus_core::arch::{ARCHES, Arch, Host};
use qus_core::bundle::{Bundle, FILE};
use qus_core::digest::Sha256;

use crate::base::context::Context;
use crate::base::{cache, files};
use crate::bundle::licences::Licensed;
use crate::bundle::manifest;
use crate::ship::sbom;

/// A bundle and the directory of its staged files.
pub(super) struct Staged {
    pub(super) host: &'static Host,
    pub(super) dir: PathBuf,
    pub(super) bundle: Bundle,
    /// Hash of the program.
    pub(super) program_sha256: Sha256,
    /// Hashes of the licences of the program and of the emulators.
    pub(super) licences_sha256: [Sha256; 2],
}

impl Staged {
    /// Reads a host's bundle.
    ///
    /// # Errors
    /// The emulators or the program have not been built.
    pub(super) fn inspect(cx: &Context, host: &'static Host) -> Result<Self> {
        let from = cx.paths.bundle(host);
        let bundle = manifest::built(host, &from)?;
        let program = from.join("qus");
        if !program.exists() {
            return Err(manifest::no_program(host, &from));
        }
        let program_sha256 = files::sha256(&program)?;
        let [program, emulators] = [Licensed::Program, Licensed::Emulators];
        Ok(Self {
            host,
            dir: cx.paths.out().join("images").join(host.name),
            bundle,
            program_sha256,
            licences_sha256: [program.sha256(&from)?, emulators.sha256(&from)?],
        })
    }

    /// Copies the files of the bundle.
    ///
    /// # Errors
    /// An emulator does not match `bundle.json`.
    pub(super) fn copy_files(&self, cx: &Context, epoch: u64) -> Result<()> {
        let from = cx.paths.bundle(self.host);
        cache::publish(&self.dir, |into| {
            copy(&from.join("qus"), &into.join("qus/usr/bin/qus"), 0o755)?;
            self.stage_papers(&from, Licensed::Program, &into.join("qus"), epoch)?;
            self.stage_papers(&from, Licensed::Emulators, &into.join("emulators"), epoch)?;
            let all = into.join("emulators/usr/bin");
            for emulator in &self.bundle.emulators {
                let file = from.join(&emulator.file);
                manifest::verify(&self.bundle, &from, emulator)?;
                let target = emulator.target;
                let staged = all.join(&emulator.file);
                copy(&file, &staged, 0o755)?;
                // The context of the image with only this emulator.
                let root = into.join("guests").join(target.name);
                let single = root.join("usr/bin");
                fs::create_dir_all(&single)?;
                self.stage_papers(&from, Licensed::Emulators, &root, epoch)?;
                fs::hard_link(&staged, single.join(&emulator.file))?;
                write_manifest(&self.bundle.only(target), &single)?;
            }
            write_manifest(&self.bundle, &all)?;
            normalize_modes_and_times(into)
        })
    }

    /// Copies licences, and writes bills of materials; nothing if the bundle has none.
    fn stage_papers(&self, bundle: &Path, of: Licensed, root: &Path, epoch: u64) -> Result<()> {
        if of.missing(bundle)?.is_some() {
            return Ok(());
        }
        of.stage(bundle, root)?;
        for (file, text) in sbom::documents(&self.bundle, bundle, of, epoch)? {
            let file = root.join("usr").join(sbom::INSTALLED).join(file);
            files::write(&file, text.as_bytes())?;
            fs::set_permissions(&file, Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// The emulated architectures in the order of the table.
    pub(super) fn guests(&self) -> impl Iterator<Item = &'static Arch> {
        ARCHES.iter().filter(|arch| self.bundle.emulators.iter().any(|emulator| emulator.target == *arch))
    }
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    files::copy(from, to)?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}

fn write_manifest(bundle: &Bundle, dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    files::write(&path, bundle.json().as_bytes())?;
    Ok(fs::set_permissions(&path, Permissions::from_mode(0o644))?)
}

/// Sets the mode of all directories, and the timestamps of all files and directories, to fixed values.
fn normalize_modes_and_times(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            normalize_modes_and_times(&path)?;
        } else {
            reset_times(&path)?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    reset_times(dir)
}

fn reset_times(path: &Path) -> Result<()> {
    let epoch = SystemTime::UNIX_EPOCH;
    let set = || File::open(path)?.set_times(FileTimes::new().set_accessed(epoch).set_modified(epoch));
    set().with_context(|| format!("cannot set the time of {}", path.display()))
}
