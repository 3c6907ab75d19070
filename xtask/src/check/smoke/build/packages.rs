//! Checks that unsigned packages are refused, and that a build can be repeated with the packages of an earlier one.

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::base::error::Skip;
use crate::base::exec::{is_installed, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::build::{BuildFixture, LEVEL};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::versions::Versions;
use crate::qemu::sysroot::{Sysroot, kept};

pub(super) fn run(fixture: &BuildFixture<'_>, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "unsigned packages are refused even if apt's configuration allows them", || {
        unsigned(fixture)
    })?;
    report.check(LEVEL, "--sysroot: the packages that a build kept are those of another build", || {
        kept(fixture)
    })
}

/// Keeps the packages of this machine's builds, and has another sysroot made of them.
fn kept(fixture: &BuildFixture<'_>) -> Result<()> {
    if Distribution::detect()?.is_none() {
        bail!(Skip("this machine has no apt".to_owned()));
    }
    let sysroot = Sysroot::native(fixture.cx, Versions::UpdatedIfPossible)?;
    let files = ["kept-1", "kept-2"].map(|name| fixture.path(name));
    for dir in &files {
        fs::create_dir_all(dir)?;
        sysroot.keep(dir)?;
    }
    let [one, other] = files.map(|dir| dir.join(kept::FILE));
    ensure!(fs::read(&one)? == fs::read(&other)?, "equal packages are kept as different files");
    let packages = kept::unpack(fixture.cx, &one)?;
    let again = Sysroot::native(fixture.cx, Versions::Kept(&packages))?;
    let [before, after] = [sysroot.manifest()?, again.manifest()?];
    ensure!(before == after, "other packages are used: {before:?}, {after:?}");
    fs::write(&one, "damaged")?;
    ensure!(kept::unpack(fixture.cx, &one).is_err(), "a damaged file is unpacked");
    Ok(())
}

/// Uses an unsigned repository on this machine, with a configuration that would allow it.
fn unsigned(fixture: &BuildFixture<'_>) -> Result<()> {
    if !is_installed("apt-get") {
        bail!(Skip("this machine has no apt".to_owned()));
    }
    let [repository, state, log, permissive] =
        ["repository", "apt-state", "apt.log", "permissive.conf"].map(|name| fixture.path(name));
    fs::create_dir_all(&repository)?;
    fs::write(repository.join("Packages"), "")?;
    fs::write(
        &permissive,
        "APT::Get::AllowUnauthenticated \"true\";\nAcquire::AllowInsecureRepositories \"true\";\n\
         Acquire::AllowDowngradeToInsecureRepositories \"true\";\nAcquire::AllowWeakRepositories \"true\";\n",
    )?;
    let _permissive = sh().push_env("APT_CONFIG", &permissive);
    let line = format!("deb [] file:{} ./", repository.display());
    let refused = Apt::with(&state, &log, &[line], &[]).err().context("the repository was accepted")?;
    let message = format!("{refused:#}");
    ensure!(message.contains("does not have a Release file"), "unexpected message: {message}");
    Ok(())
}
