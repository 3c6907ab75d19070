//! What the machine has to have before a build begins: everything that is missing is collected, with
//! the distribution's command that installs it, and reported once.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, access};
use qemu_src::Tools;
use xshell::{Shell, cmd};

use crate::apt::{self, Distribution};
use crate::{exec, toolchain};

/// Linked into the emulators; on a Debian-like system they come from the sysroot.
pub(crate) const STATIC_LIBRARIES: [&str; 2] = ["libglib-2.0.a", "libpcre2-8.a"];

/// Fails with all that is missing.
pub(crate) fn check(sh: &Shell, tools: &Tools) -> Result<()> {
    let mut missing = Vec::new();
    let mut need = |found: bool, what: &str, reason: &str| {
        if !found {
            missing.push(format!("\n  {what}: {reason}"));
        }
    };
    let cc = toolchain::cc();
    let compiler = which(&cc);
    need(compiler, &cc, "the C compiler that builds QEMU; CC names another");
    if let Some(launcher) = toolchain::launcher() {
        need(
            which(&launcher.program),
            &launcher.program,
            "QUS_COMPILER_CACHE has it called before the compiler",
        );
    }
    need(which("strip"), "strip", "takes symbols out of the emulators");
    need(which("git"), "git", "applies the patches");
    let old = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = exec::read(cmd!(sh, "python3 -c {old}")).is_ok();
    need(python, "python3", "at least version 3.9, runs QEMU's configure");
    if compiler {
        need(toolchain::library(sh, "libc.a")?.is_some(), "libc.a", "the static C library");
        let musl = exec::read(cmd!(sh, "{cc} -dumpmachine"))?.contains("musl");
        need(!musl, "glibc", "linked with musl, emulators mistake O_LARGEFILE (QEMU issue 3262)");
    }
    if Distribution::detect()?.is_none() {
        for program in &tools.system {
            need(which(&program.name), &program.name, &program.reason);
        }
        let pip = exec::read(cmd!(sh, "python3 -m pip --version")).is_ok();
        need(pip, "pip", "installs the pinned Python packages into the cache");
        for library in STATIC_LIBRARIES {
            let found = !compiler || toolchain::library(sh, library)?.is_some();
            need(found, library, "linked into the emulators");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine lacks what the build needs:{}\nremedy: {}", missing.concat(), remedy(tools)?)
}

/// The distribution's command, by its own name or by what it is like.
fn remedy(tools: &Tools) -> Result<String> {
    let release = apt::os_release()?;
    let names =
        ["ID", "ID_LIKE"].map(|name| apt::os_release_field(&release, name).unwrap_or_default()).join(" ");
    let install = tools.install.iter().find(|install| names.split(' ').any(|name| name == install.like));
    Ok(install.map_or("install it with this distribution's package manager".to_owned(), |install| {
        install.command.clone()
    }))
}

/// Whether `PATH` has an executable of that name; a path is looked at itself.
pub(crate) fn which(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> =
        if name.contains('/') { vec![PathBuf::new()] } else { std::env::split_paths(&path).collect() };
    dirs.iter().map(|dir| dir.join(name)).any(|file: PathBuf| is_executable(&file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}
