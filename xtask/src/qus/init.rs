//! `qus-init`, the first process of machines, for a host.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use qus_core::arch::Host;

use crate::base::context::Context;
use crate::base::{cache, files, lock};
use crate::bundle::hosts;
use crate::debian::versions::Versions;
use crate::qus::build::compile;
use crate::qus::rust::Rust;

/// What the program is compiled from, in the workspace.
const SOURCES: [&str; 4] = ["Cargo.lock", "Cargo.toml", "qus-core/Cargo.toml", "qus-core/src"];

/// The program, which is built unless it is in the cache.
pub(crate) fn ensure(cx: &Context, host: &'static Host) -> Result<PathBuf> {
    let mut sources = Vec::new();
    for path in SOURCES {
        read(&cx.paths.root().join(path), &mut sources)?;
    }
    let dir = cx.paths.machine("init", &format!("{host}-{}", files::short_id(&sources)));
    cache::ensure(&dir, |partial| {
        // In the order of `build-qus`.
        let _cache = (host != hosts::own()?).then(|| lock::lock(cx.paths.cache())).transpose()?;
        let _out = lock::lock(cx.paths.out())?;
        let rust = Rust::ensure(cx, host, Versions::UpdatedIfPossible)?;
        files::copy(&compile(cx, host, &rust, "qus-init")?, &partial.join("qus-init"))
    })?;
    Ok(dir.join("qus-init"))
}

/// Appends the contents of a file, or of all files below a directory in a fixed order.
fn read(path: &Path, into: &mut Vec<u8>) -> Result<()> {
    if !path.is_dir() {
        into.extend(path.as_os_str().as_encoded_bytes());
        into.extend(fs::read(path)?);
        return Ok(());
    }
    files::sorted(path)?.iter().try_for_each(|entry| read(entry, into))
}
