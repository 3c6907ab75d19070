//! Packages that nobody vouches for.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use xshell::Shell;

use super::{LEVEL, Workbench};
use crate::apt::Apt;
use crate::preflight::which;
use crate::report::{Report, Skip};

pub(super) fn run(bench: &Workbench<'_>, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "unsigned packages, on a machine whose apt takes them", || unsigned(bench))
}

/// From a repository on this machine, which a configuration as administrators write it would allow.
fn unsigned(bench: &Workbench<'_>) -> Result<()> {
    if !which("apt-get") {
        bail!(Skip("this machine has no apt".to_owned()));
    }
    let [repository, state, log, careless] =
        ["repository", "apt-state", "apt.log", "careless.conf"].map(|name| bench.path(name));
    fs::create_dir_all(&repository)?;
    fs::write(repository.join("Packages"), "")?;
    fs::write(
        &careless,
        "APT::Get::AllowUnauthenticated \"true\";\nAcquire::AllowInsecureRepositories \"true\";\n\
         Acquire::AllowDowngradeToInsecureRepositories \"true\";\nAcquire::AllowWeakRepositories \"true\";\n",
    )?;
    let sh = Shell::new()?;
    sh.set_var("APT_CONFIG", &careless);
    let line = format!("deb [] file:{} ./", repository.display());
    let refused = Apt::with(&sh, &state, &log, &[line], &[]).err().context("it was taken")?;
    let message = format!("{refused:#}");
    ensure!(message.contains("does not have a Release file"), "it failed otherwise: {message}");
    Ok(())
}
