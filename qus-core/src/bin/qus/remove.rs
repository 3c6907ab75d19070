//! `qus remove`: removes the handlers that qus has registered, and no others.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};
use qus_core::binfmt::Binfmt;
use qus_core::persist::{HostSystem, PersistError};
use qus_core::remove::remove_handlers;
use qus_core::selection::Selection;
use qus_core::text::Show;
use serde::Serialize;

use crate::context::{HostRootArgs, note_user_namespace};
use crate::output::{message, print_json};

/// Remove our handlers from the kernel
///
/// Only handlers that qus has registered are removed. A handler of another program is left unchanged, and is an error if
/// its architecture is named. A handler that does not exist is not an error.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus remove aarch64
  qus remove all --persist")]
pub(crate) struct Args {
    /// Architectures, or `all`
    #[arg(value_name = "ARCH", required_unless_present = "persist")]
    archs: Vec<String>,
    /// Also remove what `qus install --persist` has written, which must be for these architectures only
    #[arg(long)]
    persist: bool,
    #[command(flatten)]
    host: HostRootArgs,
    /// Report what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct RemoveReport {
    removed: Vec<String>,
    /// Handlers of other programs; they are left.
    foreign: Vec<String>,
    files: Vec<String>,
    /// Files that were changed since they were written; they are left.
    changed: Vec<String>,
}

pub(crate) fn run(binfmt: &Binfmt, args: &Args) -> Result<()> {
    let selection = Selection::new(&args.archs);
    let host = HostSystem::at(&args.host.host_root);
    if args.persist && !args.archs.is_empty() && !selection.all {
        // An error is reported below, where the files are removed.
        let mut others = host.archs().unwrap_or_default();
        others.retain(|arch| !selection.archs.contains(arch));
        if !others.is_empty() {
            bail!(PersistError::WouldDrop(others.into_iter().map(|arch| arch.name).collect()));
        }
    }
    let mut report = RemoveReport::default();
    let mut persist_error = None;
    if !args.archs.is_empty() {
        let done = remove_handlers(binfmt, &selection, args.dry_run, &mut note_user_namespace)?;
        let text = |names: Vec<OsString>| names.iter().map(|name| name.to_string_lossy().into()).collect();
        (report.removed, report.foreign) = (text(done.removed), text(done.foreign));
    }
    if args.persist {
        let text = |files: Vec<PathBuf>| files.iter().map(|file| file.display().to_string()).collect();
        match if args.dry_run { host.files() } else { host.remove() } {
            Ok(files) => (report.files, report.changed) = (text(files.intact), text(files.changed)),
            // Handlers may have been removed by then, which is reported first.
            Err(error) => persist_error = Some(error),
        }
    }
    if args.json {
        print_json(&report)?;
    }
    let would = if args.dry_run { "would be removed" } else { "removed" };
    for name in &report.removed {
        message(format_args!("{} {would}", name.shown()));
    }
    for file in &report.files {
        message(format_args!("{} {would}", file.shown()));
    }
    if let Some(error) = persist_error {
        return Err(error.into());
    }
    if report.removed.is_empty() && report.files.is_empty() {
        message("nothing to remove");
    }
    let mut problems: Vec<String> = selection.unknown.iter().map(ToString::to_string).collect();
    problems.extend(
        report
            .foreign
            .iter()
            .map(|name| format!("{} was not registered by qus and is left unchanged", name.shown())),
    );
    problems.extend(
        report
            .changed
            .iter()
            .map(|file| format!("{} was changed since it was written and is left unchanged", file.shown())),
    );
    if !problems.is_empty() {
        bail!("{}", problems.join("\n       "));
    }
    Ok(())
}
