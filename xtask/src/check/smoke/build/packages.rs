//! Checks that unsigned packages are refused.

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::base::error::Skip;
use crate::base::exec::{is_installed, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::build::{BuildFixture, LEVEL};
use crate::debian::apt::Apt;

pub(super) fn run(fixture: &BuildFixture<'_>, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "unsigned packages are refused even if apt's configuration allows them", || {
        unsigned(fixture)
    })
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
