//! The compiler that builds the emulators, and what identifies it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::cache;
use crate::exec;

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

/// The compiler to call: `CC`, else `cc`.
pub(crate) fn cc() -> String {
    env::var("CC").ok().filter(|cc| !cc.is_empty()).unwrap_or_else(|| "cc".to_owned())
}

/// Where the compiler finds a static library; `None` if it does not.
pub(crate) fn library(sh: &Shell, name: &str) -> Result<Option<PathBuf>> {
    let cc = cc();
    let path = PathBuf::from(exec::read(cmd!(sh, "{cc} -print-file-name={name}"))?);
    // A name that it does not find comes back as it is.
    Ok(path.is_absolute().then_some(path))
}

impl Toolchain {
    /// Looks at a compiler that has passed preflight.
    pub(crate) fn identify(sh: &Shell) -> Result<Self> {
        let cc = cc();
        let libc = library(sh, "libc.a")?.context("there is no static C library")?;
        let ld = exec::read(cmd!(sh, "{cc} -print-prog-name=ld"))?;
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        Ok(Self {
            cc: first_line(exec::read(cmd!(sh, "{cc} --version"))?),
            ld: first_line(exec::read(cmd!(sh, "{ld} --version"))?),
            libc_sha256: cache::sha256_file(&libc)?,
        })
    }
}
