//! Runs the level in a user namespace in which an ordinary user is root, with an instance of binfmt_misc of its own: in
//! another process, because the threads of this one cannot enter it.

use anyhow::{Result, bail};
use qus_core::namespace::subordinate::SubordinateIds;
use qus_core::namespace::{Caller, kernel};
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::check::report::Report;

/// Runs all checks of the level, and adds their outcomes to the report.
///
/// # Errors
/// None could be run: a [`Skip`] if this machine has no user namespaces with instances.
pub(super) fn run(report: &mut Report) -> Result<()> {
    if kernel().is_some_and(|version| version < (6, 7)) {
        bail!(Skip("before Linux 6.7, only root can register handlers".to_owned()));
    }
    // The number 0 alone, where no others belong to the user.
    let ids: &[&str] = if SubordinateIds::find(Caller::now()).is_ok() { &["--map-auto"] } else { &[] };
    let namespaces = [&["--user", "--map-root-user", "--mount"], ids].concat();
    let created = exec::output(cmd!(sh(), "unshare").args(&namespaces).arg("true"))?;
    if !created.status.success() {
        let why = String::from_utf8_lossy(&created.stderr).trim().to_owned();
        bail!(Skip(format!("only root can register handlers here: no user namespace: {why}")));
    }
    let (program, results) = (std::env::current_exe()?, tempfile::NamedTempFile::new()?);
    let (path, options) = (results.path(), report.options());
    // It prints the outcomes; whether one is a failure is in the results.
    exec::interactive(cmd!(
        sh(),
        "unshare {namespaces...} {program} smoke kernel --part {options...} --report {path}"
    ))?;
    report.merge("kernel", path)
}
