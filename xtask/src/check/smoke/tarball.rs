//! Checks a tarball: packs it, unpacks it with the system's tar, and runs the emulator.

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{Arch, Host};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::files;
use crate::bundle::runner::Runner;
use crate::bundle::{artefact, manifest};
use crate::check::report::Report;
use crate::check::smoke::fixture::tools;
use crate::ship::tarballs;

/// The emulator that is packed.
const GUEST: &str = "aarch64";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    report.check("emulator", format!("tarball {GUEST}"), || unpacked_emulator_runs(cx))
}

fn unpacked_emulator_runs(cx: &Context) -> Result<()> {
    let host = Host::current().context("qus has no emulators for this host")?;
    let arch: &Arch = GUEST.parse()?;
    let zstd = tools::zstd(cx)?;
    let bundle = cx.paths.bundle(host);
    for (file, command) in
        [(arch.emulator(), format!("build-qemu {arch}")), ("qus".into(), "build-qus".into())]
    {
        if !bundle.join(&file).exists() {
            let why = format!("{file} is not in the bundle; to build it, run `cargo xtask {command}`");
            return Err(Skip(why).into());
        }
    }
    let name = format!("{}-static", arch.emulator());
    let built = manifest::built(host, &bundle)?;
    let file = tarballs::file_name(&name, &built);
    let tarballs = tarballs::plan(&built, &bundle, 0)?;
    let tarball =
        tarballs.iter().find(|tarball| tarball.file == file).context("no such tarball is planned")?;
    let log = cx.start_log("smoke-tarball")?;
    let dir = tempfile::tempdir()?;
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs::create_dir(&first)?;
    fs::create_dir(&second)?;
    let packed = tarball.write(&first)?;
    let again = tarball.write(&second)?;
    ensure!(files::sha256(&packed)? == files::sha256(&again)?, "packing again yields a different tarball");
    let out = dir.path();
    exec::run(cmd!(sh(), "tar -I {zstd} -xf {packed} -C {out}"), &log, |_| {})?;
    artefact::run_probe(&Runner::native(), &out.join(name), arch)
}
