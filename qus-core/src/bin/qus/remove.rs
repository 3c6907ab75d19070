//! `qus remove`: takes away our handlers, and nobody else's.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};
use qus_core::arch::Arch;
use qus_core::binfmt::{State, refusal};
use qus_core::mount::hidden::Hidden;
use qus_core::text::Show;
use qus_core::{binfmt, handler, mount, persist};
use serde::Serialize;

use crate::context::{Context, Wanted, say_whose};
use crate::output::{json, say};

/// Remove our handlers from the kernel
///
/// Only what qus has registered is removed. A handler of somebody else's stays, and is an error if it was
/// asked for by name. What is not there is not an error.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures, or `all`
    #[arg(value_name = "ARCH", required_unless_present = "persist")]
    archs: Vec<String>,
    /// Also take back what `qus install --persist` has written
    #[arg(long)]
    persist: bool,
    /// Root folder of the host, where it is mounted in a container, for --persist
    #[arg(long, value_name = "DIR", default_value = "/", requires = "persist")]
    host_root: PathBuf,
    /// Say what would be removed, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    removed: Vec<String>,
    /// Handlers of others that stay.
    foreign: Vec<String>,
    files: Vec<String>,
    /// Files that were changed since they were written, and stay.
    changed: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    let wanted = Wanted::new(&args.archs);
    let mut report = Report::default();
    if !args.archs.is_empty() {
        handlers(context, &wanted, args.dry_run, &mut report)?;
    }
    if args.persist {
        let host = persist::Host::at(&args.host_root);
        let text = |files: Vec<PathBuf>| files.iter().map(|file| file.display().to_string()).collect();
        if args.dry_run {
            report.files = text(host.files()?);
        } else {
            let (removed, changed) = host.remove()?;
            (report.files, report.changed) = (text(removed), text(changed));
        }
    }
    if args.json {
        json(&report)?;
    }
    let would = if args.dry_run { "would be removed" } else { "removed" };
    for name in &report.removed {
        say(format_args!("{} {would}", name.shown()));
    }
    for file in &report.files {
        say(format_args!("{} {would}", file.shown()));
    }
    if report.removed.is_empty() && report.files.is_empty() {
        say("nothing of ours was there");
    }
    let mut problems: Vec<String> = wanted.unknown.iter().map(ToString::to_string).collect();
    problems.extend(
        report.foreign.iter().map(|name| format!("{} was not registered by qus, and stays", name.shown())),
    );
    problems.extend(
        report.changed.iter().map(|file| format!("{} was changed by somebody, and stays", file.shown())),
    );
    if !problems.is_empty() {
        bail!("{}", problems.join("\n       "));
    }
    Ok(())
}

/// Removes our handlers of these architectures, and returns their names.
pub(crate) fn ours(context: &Context, archs: Vec<&'static Arch>) -> Result<Vec<String>> {
    let mut report = Report::default();
    handlers(context, &Wanted { archs, all: false, unknown: Vec::new() }, false, &mut report)?;
    Ok(report.removed)
}

fn handlers(context: &Context, wanted: &Wanted, dry_run: bool, report: &mut Report) -> Result<()> {
    let root = context.binfmt.root();
    let hidden = match context.binfmt.state() {
        State::NotMounted => Hidden::new(root).map(Some),
        _ => Ok(None),
    };
    let hidden = match hidden {
        Err(mount::Error::Mount(..)) => None,
        hidden => hidden?,
    };
    let binfmt = hidden.as_ref().map_or(&context.binfmt, Hidden::binfmt);
    match binfmt.state() {
        // Nothing is registered then, or not for us to see.
        State::Absent | State::NotMounted => return Ok(()),
        State::ReadOnly(errno) if !dry_run => {
            return Err(mount::Error::ReadOnly(root.to_owned(), errno).into());
        }
        _ => {}
    }
    if hidden.is_none() {
        say_whose(binfmt);
    }
    let _lock = binfmt.lock()?;
    let name = |name: OsString| name.to_string_lossy().into_owned();
    if dry_run {
        let ours = |(_, entry): &binfmt::Listed| entry.as_ref().is_ok_and(binfmt::Entry::is_ours);
        let asked = |listed: &binfmt::Listed| {
            wanted.all || handler::arch_of(&listed.0).is_some_and(|arch| wanted.archs.contains(&arch))
        };
        let entries = binfmt.entries()?.into_iter();
        report
            .removed
            .extend(entries.filter(|listed| ours(listed) && asked(listed)).map(|listed| name(listed.0)));
        return Ok(());
    }
    if wanted.all {
        report.removed.extend(handler::remove_all(binfmt).map_err(explained)?.into_iter().map(name));
    }
    for arch in &wanted.archs {
        let (removed, foreign) = handler::remove(binfmt, arch).map_err(explained)?;
        report.removed.extend(removed.into_iter().map(name));
        report.foreign.extend(foreign.into_iter().map(name));
    }
    Ok(())
}

fn explained(error: binfmt::Error) -> anyhow::Error {
    let why = match &error {
        binfmt::Error::Io(_, _, cause) => Some(refusal(cause)),
        _ => None,
    };
    match why {
        Some(why) => anyhow::Error::new(error).context(why),
        None => error.into(),
    }
}
