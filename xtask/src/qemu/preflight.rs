//! What the machine has to have before a build begins: everything that is missing is collected, with
//! the distribution's command that installs it, and reported once.

use anyhow::Result;
use qemu_src::Tools;
use qus_core::hint::hinted;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::debian::distribution::{self, Distribution};
use crate::qemu::compiler;

/// Fails with all that is missing.
pub(crate) fn check(cx: &Context) -> Result<()> {
    let mut missing = Vec::new();
    let mut need = |found: bool, what: &str, reason: &str| {
        if !found {
            missing.push(format!("\n  {what}: {reason}"));
        }
    };
    let cc = cx.settings.cc();
    let has_compiler = is_installed(cc);
    need(has_compiler, cc, "the C compiler that builds QEMU; CC names another");
    if let Some(cache) = &cx.settings.compiler_cache {
        need(
            is_installed(&cache.program),
            &cache.program,
            "QUS_COMPILER_CACHE has it called before the compiler",
        );
    }
    need(is_installed("strip"), "strip", "takes symbols out of the emulators");
    need(is_installed("git"), "git", "applies the patches");
    let old = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = exec::read(cmd!(sh(), "python3 -c {old}")).is_ok();
    need(python, "python3", "at least version 3.9, runs QEMU's configure");
    if has_compiler {
        need(compiler::library(cx, "libc.a")?.is_some(), "libc.a", "the static C library");
        let musl = exec::read(cmd!(sh(), "{cc} -dumpmachine"))?.contains("musl");
        need(!musl, "glibc", "linked with musl, emulators mistake O_LARGEFILE (QEMU issue 3262)");
    }
    if Distribution::detect()?.is_none() {
        for program in &cx.data.tools.system {
            need(is_installed(&program.name), &program.name, &program.reason);
        }
        let pip = exec::read(cmd!(sh(), "python3 -m pip --version")).is_ok();
        need(pip, "pip", "installs the pinned Python packages into the cache");
        for library in &cx.data.tools.static_libraries {
            let found = !has_compiler || compiler::library(cx, &library.name)?.is_some();
            need(found, &library.name, &library.reason);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!("this machine lacks what the build needs:{}", missing.concat()),
        install_hint(&cx.data.tools)?,
    ))
}

/// The distribution's command, by its own name or by what it is like.
fn install_hint(tools: &Tools) -> Result<String> {
    let release = distribution::os_release()?;
    let names = ["ID", "ID_LIKE"]
        .map(|name| distribution::os_release_field(&release, name).unwrap_or_default())
        .join(" ");
    let install = tools.install.iter().find(|install| names.split(' ').any(|name| name == install.like));
    Ok(install.map_or("install it with this distribution's package manager".to_owned(), |install| {
        install.command.clone()
    }))
}
