//! `qus probe`: whether programs of an architecture run, found out by running one.

use anyhow::{Result, bail};
use qus_core::arch::ARCHES;
use qus_core::probe;
use qus_core::table::Table;
use serde::Serialize;

use crate::context::Wanted;
use crate::output::{json, show};

/// Find out whether programs of an architecture run
///
/// Starts a tiny program of each. Exit status 1 if one that was asked for does not run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures [default: all 33]
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    arch: &'static str,
    runs: &'static str,
    why: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = Wanted::known(&args.archs)?;
    let every = wanted.all || wanted.archs.is_empty();
    let archs = ARCHES.iter().filter(|arch| every || wanted.archs.contains(arch));
    let rows: Vec<Row> = archs
        .map(|arch| match probe::run(arch) {
            Ok(()) if probe::is_native(arch) => Row { arch: arch.name, runs: "natively", why: None },
            Ok(()) => Row { arch: arch.name, runs: "emulated", why: None },
            Err(why) => Row { arch: arch.name, runs: "no", why: Some(why) },
        })
        .collect();
    if args.json {
        json(&rows)?;
    } else {
        let mut table = Table::new(["architecture", "runs", "because"]);
        for row in &rows {
            table.row([row.arch.to_owned(), row.runs.to_owned(), row.why.clone().unwrap_or_default()]);
        }
        show(&table.to_string())?;
    }
    let failing = rows.iter().filter(|row| row.why.is_some()).count();
    if failing > 0 && !wanted.archs.is_empty() {
        bail!("{failing} of {} architectures do not run", rows.len());
    }
    Ok(())
}
