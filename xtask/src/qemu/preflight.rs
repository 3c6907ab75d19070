//! Checks the build requirements of this machine. All missing requirements are reported at once, with the
//! distribution's command that installs them.

use anyhow::Result;
use qemu_src::Tools;
use qus_core::hint::hinted;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::one_line;
use crate::debian::distribution::{self, Distribution};
use crate::qemu::compiler;

/// Refuses paths that QEMU's configure or `PATH` do not support, before anything is fetched.
pub(crate) fn check_directories(cx: &Context) -> Result<()> {
    for dir in [cx.paths.out(), cx.paths.cache()] {
        let text = dir.to_string_lossy();
        if text.contains([' ', ':', '\n', '\t', '\'', '"']) {
            return Err(hinted(
                format_args!(
                    "QEMU cannot be built in {}, because of a character in this path",
                    one_line(&text)
                ),
                "move the clone, or set CARGO_TARGET_DIR and XDG_CACHE_HOME, to a path without spaces, colons and quotes",
            ));
        }
    }
    Ok(())
}

/// Checks all requirements.
///
/// # Errors
/// At least one is missing; the error lists all of them.
pub(crate) fn check(cx: &Context) -> Result<()> {
    let mut missing = Vec::new();
    let mut require = |found: bool, what: &str, reason: &str| {
        if !found {
            missing.push(format!("\n  {what}: {reason}"));
        }
    };
    let cc = cx.settings.cc();
    let has_compiler = is_installed(cc);
    require(has_compiler, cc, "the C compiler that builds QEMU; CC selects another one");
    if let Some(cache) = &cx.settings.compiler_cache {
        require(
            is_installed(&cache.program),
            &cache.program,
            "the compiler cache that QUS_COMPILER_CACHE selects",
        );
    }
    require(is_installed("strip"), "strip", "removes symbols from the emulators");
    require(is_installed("git"), "git", "applies the patches");
    let old = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = exec::read(cmd!(sh(), "python3 -c {old}")).is_ok();
    require(python, "python3", "version 3.9 or newer, runs QEMU's configure");
    if has_compiler {
        require(compiler::find_library(cx, "libc.a")?.is_some(), "libc.a", "the static C library");
        let musl = exec::read(cmd!(sh(), "{cc} -dumpmachine"))?.contains("musl");
        require(!musl, "glibc", "emulators linked with musl mishandle O_LARGEFILE (QEMU issue 3262)");
    }
    if Distribution::detect()?.is_none() {
        for program in &cx.data.tools.system {
            require(is_installed(&program.name), &program.name, &program.reason);
        }
        let pip = exec::read(cmd!(sh(), "python3 -m pip --version")).is_ok();
        require(pip, "pip", "installs the pinned Python packages into the cache");
        for library in &cx.data.tools.static_libraries {
            let found = !has_compiler || compiler::find_library(cx, &library.name)?.is_some();
            require(found, &library.name, &library.reason);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!("this machine lacks build requirements:{}", missing.concat()),
        install_hint(&cx.data.tools)?,
    ))
}

/// The install command for this distribution or the one that it derives from.
fn install_hint(tools: &Tools) -> Result<String> {
    let release = distribution::os_release()?;
    let names = ["ID", "ID_LIKE"]
        .map(|name| distribution::os_release_field(&release, name).unwrap_or_default())
        .join(" ");
    let install = tools.install.iter().find(|install| names.split(' ').any(|name| name == install.like));
    Ok(install.map_or("install them with this distribution's package manager".to_owned(), |install| {
        install.command.clone()
    }))
}
