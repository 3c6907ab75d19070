//! The configuration files of `images/`, read as those who run them read them: GitHub, compose, Kubernetes.
//!
//! Schemas and validator are Python packages with pinned hashes; `schemas.py` does the work.

use anyhow::{Context, Result};
use qemu_src::QemuSrc;
use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

use crate::apt::Updates;
use crate::exec;
use crate::paths::Paths;
use crate::progress::say;
use crate::report::Skip;
use crate::sysroot::Sysroot;

pub(crate) fn check(sh: &Shell, paths: &Paths) -> Result<()> {
    say(exec::read(script(sh, paths)?)?);
    Ok(())
}

/// The documents of one of the files.
pub(crate) fn documents(sh: &Shell, paths: &Paths, file: &str) -> Result<Vec<Value>> {
    let json = exec::read(script(sh, paths)?.arg(file))?;
    serde_json::from_str(&json).with_context(|| format!("the documents of {file}"))
}

fn script<'a>(sh: &'a Shell, paths: &Paths) -> Result<Cmd<'a>> {
    let tools = QemuSrc::load(&paths.qemu_src())?.tools;
    let wheels = Sysroot::native(sh, paths, &tools, Updates::Wanted)
        .and_then(|sysroot| sysroot.archives(sh, paths, &tools.schemas))
        .map_err(|error| Skip(format!("the schemas cannot be had: {error:#}")))?;
    let (script, images) = (paths.root().join("xtask/src/schemas.py"), paths.images());
    Ok(cmd!(sh, "python3 -B {script} {wheels} {images}"))
}
