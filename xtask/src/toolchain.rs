//! The compiler that builds the emulators, and what identifies it.

use std::env;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::cache;
use crate::exec;
use crate::preflight::Preflight;

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

impl Toolchain {
    /// Looks at the compiler, or lists all that is missing.
    pub(crate) fn detect(sh: &Shell) -> Result<Self> {
        let cc = cc();
        let remedy = "install a C compiler with the static C library, Python and git (Debian: apt-get install gcc libc6-dev python3 git)";
        let mut preflight = Preflight::default();
        preflight.program(&cc, "the C compiler that builds QEMU; CC names another", remedy);
        preflight.program("strip", "takes symbols out of the emulators", remedy);
        preflight.program("python3", "runs QEMU's configure", remedy);
        preflight.program("git", "applies the patches", remedy);
        preflight.finish()?;
        let old = "import sys; sys.exit(sys.version_info < (3, 9))";
        let mut preflight = Preflight::default();
        preflight.check(
            exec::read(cmd!(sh, "python3 -c {old}")).is_ok(),
            "python3: at least version 3.9",
            remedy,
        );
        let libc = PathBuf::from(exec::read(cmd!(sh, "{cc} -print-file-name=libc.a"))?);
        preflight.check(libc.is_absolute(), "libc.a: the static C library", remedy);
        preflight.finish()?;
        let ld = exec::read(cmd!(sh, "{cc} -print-prog-name=ld"))?;
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        Ok(Self {
            cc: first_line(exec::read(cmd!(sh, "{cc} --version"))?),
            ld: first_line(exec::read(cmd!(sh, "{ld} --version"))?),
            libc_sha256: cache::sha256_file(&libc)?,
        })
    }
}
