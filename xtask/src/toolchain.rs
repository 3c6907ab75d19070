//! The compiler that builds the emulators, and what identifies it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::cache;
use crate::exec;
use crate::sysroot::Sysroot;

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

/// The compiler for this machine: `CC`, else `cc`.
pub(crate) fn cc() -> String {
    env::var("CC").ok().filter(|cc| !cc.is_empty()).unwrap_or_else(|| "cc".to_owned())
}

/// What the compiler is called by: a cache of what was compiled, as `ccache` or `sccache`, with the variables that it
/// takes from the caller's environment. What comes out is the same with and without.
pub(crate) struct Launcher {
    pub(crate) program: String,
    pub(crate) variables: Vec<(String, String)>,
}

/// The one that `QUS_COMPILER_CACHE` names.
pub(crate) fn launcher() -> Option<Launcher> {
    /// Of caches, and of the stores that several machines share.
    const PREFIXES: [&str; 5] = ["CCACHE_", "SCCACHE_", "AWS_", "ACTIONS_", "XDG_CACHE_HOME"];
    let program = env::var("QUS_COMPILER_CACHE").ok().filter(|program| !program.is_empty())?;
    let own = |(name, _): &(String, String)| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    Some(Launcher { program, variables: env::vars().filter(own).collect() })
}

/// Where the compiler for this machine finds a static library; `None` if it does not.
pub(crate) fn library(sh: &Shell, name: &str) -> Result<Option<PathBuf>> {
    let cc = cc();
    let path = PathBuf::from(exec::read(cmd!(sh, "{cc} -print-file-name={name}"))?);
    // A name that it does not find comes back as it is.
    Ok(path.is_absolute().then_some(path))
}

impl Toolchain {
    /// Whether the compiler is LLVM's; else it is taken for GCC.
    pub(crate) fn is_clang(&self) -> bool {
        self.cc.contains("clang")
    }

    /// Looks at a compiler that has passed preflight.
    pub(crate) fn identify(sh: &Shell, sysroot: &Sysroot) -> Result<Self> {
        let (cc, options) = &sysroot.cc();
        let read = |cmd| exec::read(sysroot.enter(cmd));
        let libc = PathBuf::from(read(cmd!(sh, "{cc} {options...} -print-file-name=libc.a"))?);
        let ld = match sysroot.ld() {
            Some(ld) => ld.to_owned(),
            None => read(cmd!(sh, "{cc} {options...} -print-prog-name=ld"))?,
        };
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        Ok(Self {
            cc: first_line(read(cmd!(sh, "{cc} {options...} --version"))?),
            ld: first_line(read(cmd!(sh, "{ld} --version"))?),
            libc_sha256: cache::sha256_file(&libc).context("there is no static C library")?,
        })
    }
}
