//! Architectures as they are named on a command line: by any of their spellings, or all of them.
//!
//! ```
//! use qus_core::selection::Selection;
//!
//! let selection = Selection::new(&["arm64", "linux/riscv64", "vax"]);
//! let names: Vec<_> = selection.archs.iter().map(|arch| arch.name).collect();
//! assert_eq!(names, ["aarch64", "riscv64"]);
//! assert_eq!(selection.unknown[0].given, "vax");
//! ```

use std::fmt;
use std::path::PathBuf;

use crate::arch::{Arch, UnknownArch};
use crate::emulator::{DIR_HINT, EmulatorDir};
use crate::text::Show;

/// The architectures that were requested.
#[derive(Debug, Default)]
pub struct Selection {
    /// Those that were named, each once.
    pub archs: Vec<&'static Arch>,
    /// Whether `all` was named.
    pub all: bool,
    /// Names that no architecture has.
    pub unknown: Vec<UnknownArch>,
}

/// `all` was requested, and a directory has no emulator.
#[derive(Debug)]
pub struct NoEmulators(PathBuf);

impl fmt::Display for NoEmulators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no emulator in {}", self.0.shown())
    }
}

impl std::error::Error for NoEmulators {}

impl NoEmulators {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(DIR_HINT.to_owned())
    }
}

impl Selection {
    /// Resolves names; unknown ones are collected.
    pub fn new(names: &[impl AsRef<str>]) -> Self {
        let mut this = Self::default();
        for name in names.iter().map(AsRef::as_ref) {
            match name.parse::<&'static Arch>() {
                _ if name == "all" => this.all = true,
                Ok(arch) if this.archs.contains(&arch) => {}
                Ok(arch) => this.archs.push(arch),
                Err(unknown) => this.unknown.push(unknown),
            }
        }
        this
    }

    /// Resolves names, for commands that do all or nothing.
    ///
    /// # Errors
    /// The first name that is unknown.
    pub fn strict(names: &[impl AsRef<str>]) -> Result<Self, UnknownArch> {
        let mut this = Self::new(names);
        if this.unknown.is_empty() { Ok(this) } else { Err(this.unknown.swap_remove(0)) }
    }

    /// The selected architectures in the order of the table; `all` are those that have an emulator in the directory.
    ///
    /// # Errors
    /// `all` was named, and the directory has no emulator.
    pub fn resolve(&self, dir: &EmulatorDir) -> Result<Vec<&'static Arch>, NoEmulators> {
        let mut archs = self.archs.clone();
        if self.all {
            if dir.emulators.is_empty() {
                return Err(NoEmulators(dir.dir.clone()));
            }
            let found = dir.emulators.iter().map(|emulator| emulator.arch);
            archs.extend(found.filter(|arch| !self.archs.contains(arch)));
        }
        archs.sort_by_key(|arch| arch.name);
        Ok(archs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_those_that_have_an_emulator() {
        let dir = tempfile::tempdir().unwrap();
        let open = || EmulatorDir::open(dir.path()).unwrap();
        let all = Selection::new(&["sh4", "all", "linux/sh4"]);
        let hint = all.resolve(&open()).unwrap_err().hint().unwrap();
        assert!(hint.contains("--dir") && hint.contains("QEMU_BIN_DIR"));
        std::fs::write(dir.path().join("qemu-arm"), "").unwrap();
        let names: Vec<_> = all.resolve(&open()).unwrap().iter().map(|arch| arch.name).collect();
        assert_eq!(names, ["arm", "sh4"]);
        assert_eq!(Selection::strict(&["arm", "vax", "pdp"]).unwrap_err().given, "vax");
    }
}
