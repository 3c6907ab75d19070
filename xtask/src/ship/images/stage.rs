//! The folders that images are made from: copies from the bundle, with modes and times that are always the
//! same, so that a layer depends on nothing but what is in it.

use std::fs::{FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use fs_err::{self as fs, File};
use qus_core::arch::{ARCHES, Arch, Host};
use qus_core::bundle::Bundle;
use qus_core::digest::Sha256;

use crate::base::context::Context;
use crate::base::{cache, files};
use crate::bundle::manifest;

/// A bundle, and where its files lie as they are to lie in images.
pub(super) struct Staged {
    host: &'static Host,
    pub(super) dir: PathBuf,
    pub(super) bundle: Bundle,
    /// Of the program.
    pub(super) program_sha256: Sha256,
}

impl Staged {
    /// Looks at a host's bundle.
    ///
    /// # Errors
    /// Something has not been built.
    pub(super) fn look(cx: &Context, host: &'static Host) -> Result<Self> {
        let from = cx.paths.bundle(host);
        let bundle = manifest::built(host, &from)?;
        let program = from.join("qus");
        if !program.exists() {
            return Err(manifest::no_program(host, &from));
        }
        let program_sha256 = files::sha256(&program)?;
        Ok(Self { host, dir: cx.paths.out().join("images").join(host.name), bundle, program_sha256 })
    }

    /// Copies its files.
    ///
    /// # Errors
    /// An emulator is not the one that was built.
    pub(super) fn fill(&self, cx: &Context) -> Result<()> {
        let from = cx.paths.bundle(self.host);
        cache::publish(&self.dir, |into| {
            copy(&from.join("qus"), &into.join("qus/usr/bin/qus"), 0o755)?;
            let all = into.join("emulators/usr/bin");
            for emulator in &self.bundle.emulators {
                let file = from.join(&emulator.file);
                manifest::verify(self.host, &from, emulator)?;
                let target = emulator.target;
                let staged = all.join(&emulator.file);
                copy(&file, &staged, 0o755)?;
                // The same file in the context of the image that has it alone.
                let alone = into.join("guests").join(target.name).join("usr/bin");
                fs::create_dir_all(&alone)?;
                fs::hard_link(&staged, alone.join(&emulator.file))?;
                describe(&self.bundle.only(target), &alone)?;
            }
            describe(&self.bundle, &all)?;
            settle(into)
        })
    }

    /// The architectures that are emulated, in the order of the table.
    pub(super) fn guests(&self) -> impl Iterator<Item = &'static Arch> {
        ARCHES.iter().filter(|arch| self.bundle.emulators.iter().any(|emulator| emulator.target == *arch))
    }
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    files::copy(from, to)?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}

fn describe(bundle: &Bundle, dir: &Path) -> Result<()> {
    let path = dir.join("bundle.json");
    files::write(&path, bundle.json().as_bytes())?;
    Ok(fs::set_permissions(&path, Permissions::from_mode(0o644))?)
}

/// Gives every folder the same mode, and everything the same time.
fn settle(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            settle(&path)?;
        } else {
            touch(&path)?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    touch(dir)
}

fn touch(path: &Path) -> Result<()> {
    let epoch = SystemTime::UNIX_EPOCH;
    let set = || File::open(path)?.set_times(FileTimes::new().set_accessed(epoch).set_modified(epoch));
    set().with_context(|| format!("cannot set the time of {}", path.display()))
}
