//! `qus probe`: whether programs of an architecture run, determined by running one.

use anyhow::{Result, bail};
use qus_core::arch::ARCHES;
use qus_core::binfmt::Binfmt;
use qus_core::selection::Selection;
use qus_core::table::Table;
use qus_core::{mount, probe};
use serde::Serialize;

use crate::context::warn_switched_off;
use crate::output::{print_json, print_text};

/// Test whether programs of an architecture run
///
/// Starts a small program of each. The exit status is 1 if an architecture that is named does not run; `all` names none.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus probe aarch64 riscv64")]
pub(crate) struct Args {
    /// Architectures [default: all]
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ProbeResult {
    arch: &'static str,
    runs: &'static str,
    why: Option<String>,
}

pub(crate) fn run(binfmt: &Binfmt, args: &Args) -> Result<()> {
    let selection = Selection::strict(&args.archs)?;
    let every = selection.all || selection.archs.is_empty();
    let archs = ARCHES.iter().filter(|arch| every || selection.archs.contains(arch));
    let rows: Vec<ProbeResult> = archs
        .map(|arch| match probe::run(arch) {
            Ok(()) if probe::is_native(arch) => ProbeResult { arch: arch.name, runs: "natively", why: None },
            Ok(()) => ProbeResult { arch: arch.name, runs: "emulated", why: None },
            Err(why) => ProbeResult { arch: arch.name, runs: "no", why: Some(why) },
        })
        .collect();
    if args.json {
        print_json(&rows)?;
    } else {
        let mut table = Table::new(["architecture", "runs", "reason"]);
        for row in &rows {
            table.row([row.arch.to_owned(), row.runs.to_owned(), row.why.clone().unwrap_or_default()]);
        }
        print_text(&table.to_string())?;
    }
    let is_named = |row: &&ProbeResult| selection.archs.iter().any(|arch| arch.name == row.arch);
    let failing: Vec<_> =
        rows.iter().filter(is_named).filter(|row| row.why.is_some()).map(|row| row.arch).collect();
    if !failing.is_empty() {
        let snapshot = mount::snapshot(binfmt)?;
        if snapshot.switched_on == Some(false) {
            warn_switched_off(binfmt, snapshot.state, true);
        }
        bail!("not running: {}", failing.join(" "));
    }
    Ok(())
}
