//! Checks that a modified file in the cache is not used, but built or fetched again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use qus_core::arch::{Arch, Host};
use qus_core::bundle::Profile;
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::files;
use crate::bundle::manifest;
use crate::check::report::Report;
use crate::check::smoke::fixture::build::{BuildFixture, LEVEL};

const MISMATCH: &str = "cached file does not match its checksum";

pub(super) fn run(fixture: &BuildFixture<'_>, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "a modified emulator in the cache is rebuilt", || emulator(fixture))?;
    report.check(LEVEL, "a modified source in the cache is not used, with any option", || source(fixture))?;
    report.check(LEVEL, "a modified build dependency in the cache is fetched again", || dependency(fixture))
}

/// Changes one byte of a finished emulator, in a copy of the cache.
fn emulator(fixture: &BuildFixture<'_>) -> Result<()> {
    let host = Host::current().context("qus has no emulators for this host")?;
    // The cache may also have emulators of other recipes; the build looks for that of the bundle.
    let bundle = manifest::read(&fixture.cx.paths.bundle(host))?.filter(|bundle| {
        bundle.recipe.qemu == fixture.release.version && bundle.recipe.profile == Profile::Dev
    });
    let hexagon: &Arch = "hexagon".parse()?;
    let key = bundle.map(|bundle| bundle.recipe.key(hexagon));
    let cached = key.map(|key| fixture.cx.paths.emulator(&key)).filter(|dir| dir.exists());
    let Some(cached) = cached else {
        bail!(Skip(
            "bundle and cache have no emulator of hexagon; to build it, run `cargo xtask build-qemu hexagon`"
                .to_owned()
        ));
    };
    let copy = fixture.path("cache/qus/emulators").join(cached.file_name().unwrap_or_default());
    fs::create_dir_all(&copy)?;
    for file in ["qemu-hexagon", "emulator.json"] {
        fs::copy(cached.join(file), copy.join(file))?;
    }
    flip_byte(&copy.join("qemu-hexagon"))?;
    let mut run = fixture.start("log", fixture.build_qemu()?)?;
    run.wait_for_output(MISMATCH)?;
    run.wait_for_output("building qemu-hexagon")?;
    run.signal(Signal::SIGKILL)?;
    run.child.wait()?;
    ensure!(!copy.exists(), "the modified emulator is still in the cache");
    fixture.wait_for_compilers()
}

/// Changes one byte of the archive in the cache; that of `--source` is intact.
fn source(fixture: &BuildFixture<'_>) -> Result<()> {
    let archive = fixture.archive()?;
    let relative =
        archive.strip_prefix(fixture.cx.paths.cache()).context("the archive is not in the cache")?;
    let copy = fixture.path("changed-source/qus").join(relative);
    let changed = flipped(&archive)?;
    fs::create_dir_all(fixture.path("changed-source/qus"))?;
    let sysroots = fixture.path("changed-source/qus/sysroots");
    std::os::unix::fs::symlink(fixture.cx.paths.cache().join("sysroots"), sysroots)?;
    for options in [&["--source"][..], &["--locked", "--source"], &["--profile", "release", "--source"]] {
        // Atomically, because the file may be as read-only as the archive.
        files::write(&copy, &changed)?;
        // Otherwise the unpacked source of an earlier run would be used.
        files::remove_dir(&fixture.path("target/qus/src"))?;
        let build = fixture.build_qemu()?.args(options).arg(&archive);
        let mut run = fixture.start("log", build.env("XDG_CACHE_HOME", fixture.path("changed-source")))?;
        run.wait_for_output(MISMATCH)?;
        run.wait_for_output("unpacking QEMU")?;
        run.signal(Signal::SIGKILL)?;
        run.child.wait()?;
        ensure!(
            files::sha256(&copy)? == files::sha256(&archive)?,
            "the modified archive is still in the cache"
        );
    }
    fixture.wait_for_compilers()
}

/// Changes one byte of a program that a build runs.
fn dependency(fixture: &BuildFixture<'_>) -> Result<()> {
    let cache = fixture.path("changed-dependency/qus");
    let Some(sysroot) = sysroot(&fixture.cx.paths.cache().join("sysroots"))? else {
        bail!(Skip(
            "the cache has no build dependencies; to fetch them, run `cargo xtask build-qemu`".to_owned()
        ));
    };
    let copy = cache.join("sysroots");
    fs::create_dir_all(&copy)?;
    std::os::unix::fs::symlink(fixture.cx.paths.cache().join("downloads"), cache.join("downloads"))?;
    for from in [sysroot.with_extension("sha256"), sysroot.clone()] {
        exec::read(cmd!(sh(), "cp --archive {from} {copy}"))?;
    }
    let program = copy.join(sysroot.file_name().unwrap_or_default()).join("programs/usr/bin/m4");
    let before = files::sha256(&program)?;
    flip_byte(&program)?;
    let build = fixture.build_qemu()?.env("XDG_CACHE_HOME", fixture.path("changed-dependency"));
    let mut run = fixture.start("log", build)?;
    run.wait_for_output(&format!("m4: {MISMATCH}"))?;
    run.wait_for_output("fetching build dependencies")?;
    run.wait_for_output("QEMU")?;
    run.signal(Signal::SIGKILL)?;
    run.child.wait()?;
    ensure!(files::sha256(&program)? == before, "the modified program is still in the cache");
    fixture.wait_for_compilers()
}

/// Finds the unpacked packages for this machine.
fn sysroot(dir: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.join("programs/usr/bin/m4").exists() && path.with_extension("sha256").exists() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn flip_byte(file: &Path) -> Result<()> {
    Ok(fs::write(file, flipped(file)?)?)
}

/// The contents of a file with one byte changed.
fn flipped(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(bytes)
}
