//! Validates the configuration files of `images/` and `.github/` against the schemas of GitHub, compose and Kubernetes.
//!
//! Schemas and validator are Python packages with pinned hashes; `schemas.py` does the work.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::progress::say;
use crate::debian::versions::Versions;
use crate::qemu::sysroot::Sysroot;

pub(crate) fn check(cx: &Context) -> Result<()> {
    say(exec::read(script(cx)?)?);
    Ok(())
}

/// Validates the bills of materials in a directory.
pub(crate) fn check_sbom(cx: &Context, dir: &Path) -> Result<()> {
    exec::read(script(cx)?.arg("--sbom").arg(dir)).map(drop)
}

/// The documents in one of the files.
pub(crate) fn documents(cx: &Context, file: &str) -> Result<Vec<Value>> {
    let json = exec::read(script(cx)?.arg(file))?;
    serde_json::from_str(&json).with_context(|| format!("cannot parse the documents of {file}"))
}

fn script(cx: &Context) -> Result<Cmd<'static>> {
    let wheels = Sysroot::native(cx, Versions::UpdatedIfPossible)
        .and_then(|sysroot| sysroot.archives(cx, &cx.data.tools.schemas))
        .map_err(|error| Skip(format!("the schemas are not available: {error:#}")))?;
    let (script, images) = (cx.paths.root().join("xtask/src/check/schemas.py"), cx.paths.images());
    Ok(cmd!(sh(), "python3 -B {script} {wheels} {images}"))
}
