//! The compiler that builds the emulators, and what identifies it.

use crate::base::exec::{self, sh};
use crate::base::files;
use crate::qemu::sysroot::Sysroot;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::cmd;

/// What of the toolchain ends up in an emulator; none of it depends on where it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toolchain {
    /// First line of the compiler's `--version`.
    pub(crate) cc: String,
    /// First line of the linker's `--version`.
    pub(crate) ld: String,
    /// Hash of the static C library.
    pub(crate) libc_sha256: String,
}

impl Toolchain {
    /// Whether the compiler is LLVM's; else it is taken for GCC.
    pub(crate) fn is_clang(&self) -> bool {
        self.cc.contains("clang")
    }

    /// Looks at a compiler that has passed preflight.
    pub(crate) fn identify(sysroot: &Sysroot) -> Result<Self> {
        let (cc, options) = &sysroot.cc();
        let read = |cmd| exec::read(sysroot.enter(cmd));
        let libc = PathBuf::from(read(cmd!(sh(), "{cc} {options...} -print-file-name=libc.a"))?);
        let ld = match sysroot.ld() {
            Some(ld) => ld.to_owned(),
            None => read(cmd!(sh(), "{cc} {options...} -print-prog-name=ld"))?,
        };
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        Ok(Self {
            cc: first_line(read(cmd!(sh(), "{cc} {options...} --version"))?),
            ld: first_line(read(cmd!(sh(), "{ld} --version"))?),
            libc_sha256: files::sha256_file(&libc).context("there is no static C library")?,
        })
    }
}
