//! Checks the bills of materials of the bundle against the schemas of SPDX and CycloneDX.

use anyhow::{Result, ensure};
use fs_err as fs;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::bundle::licences::Licensed;
use crate::bundle::{hosts, manifest};
use crate::check::report::Report;
use crate::check::schemas;
use crate::ship::sbom;

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    report.check("emulator", "bills of materials", || follow_their_schemas(cx))
}

fn follow_their_schemas(cx: &Context) -> Result<()> {
    let host = hosts::own()?;
    let dir = cx.paths.bundle(host);
    let bundle = manifest::built(host, &dir)?;
    let written = tempfile::tempdir()?;
    for (of, wanted) in [
        (Licensed::Emulators, &["qemu", "libglib2.0-dev", "libpcre2-dev", "zlib1g-dev", "libc6-dev"][..]),
        (Licensed::Program, &["qus", "rust", "libc6-dev", "clap", "serde_json", "nix"]),
    ] {
        if let Some(command) = of.missing(&dir)? {
            let why = format!("the bundle has no licence texts; to write them, run `cargo xtask {command}`");
            return Err(Skip(why).into());
        }
        for (file, text) in sbom::documents(&bundle, &dir, of, 0)? {
            for name in wanted {
                ensure!(text.contains(&format!("\"name\": \"{name}\"")), "{name} is not in {file}");
            }
            fs::write(written.path().join(file), text)?;
        }
    }
    schemas::check_sbom(cx, written.path())
}
