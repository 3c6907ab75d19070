//! Identifies the toolchain that builds the emulators.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use qus_core::bundle::Toolchain;
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::base::files;
use crate::qemu::sysroot::Sysroot;

/// Whether the compiler is Clang; otherwise GCC is assumed.
pub(crate) fn is_clang(toolchain: &Toolchain) -> bool {
    toolchain.cc.contains("clang")
}

/// Identifies a toolchain that has passed preflight.
pub(crate) fn identify(sysroot: &Sysroot) -> Result<Toolchain> {
    let (cc, options) = &sysroot.cc();
    let read = |cmd| exec::read(sysroot.enter(cmd));
    let libc = PathBuf::from(read(cmd!(sh(), "{cc} {options...} -print-file-name=libc.a"))?);
    let ld = match sysroot.ld() {
        Some(ld) => ld.to_owned(),
        None => read(cmd!(sh(), "{cc} {options...} -print-prog-name=ld"))?,
    };
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    Ok(Toolchain {
        cc: first_line(read(cmd!(sh(), "{cc} {options...} --version"))?),
        ld: first_line(read(cmd!(sh(), "{ld} --version"))?),
        libc_sha256: files::sha256(&libc).context("there is no static C library")?,
    })
}
