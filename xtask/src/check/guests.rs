//! `cargo xtask guests`: what really runs in root filesystems of all guests.
//!
//! The root filesystem of a guest is made by debootstrap under the emulator that is tested, which is the first cell. Each other
//! cell of `cells.toml` runs in a copy of it that vanishes with the cell: an overlay in a user namespace, in which the
//! emulator is the only handler.

mod page;
mod run;
mod verdict;

use std::cell::LazyCell;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qemu_src::{Cell, CellOutcome, Guest, GuestRun};
use qus_core::table::Table;
use qus_core::{emulator, probe, terminal};

use crate::base::context::Context;
use crate::base::error::{Skip, Usage};
use crate::base::lock::{self, Lock};
use crate::base::output::{out, out_json};
use crate::base::progress::say;
use crate::base::{files, parallel};
use crate::bench::emulators::{self, EmulatorSource};
use crate::bundle::hosts;
use crate::check::guests::run::{Runner, Subject};
use crate::check::report::{self, Report};
use crate::qemu::build;

/// Run real programs in root filesystems of other architectures
///
/// For each guest, debootstrap makes a root filesystem of Debian through the handler of the emulator. Then cells run in it:
/// package managers, compilers, languages, sandboxes, tests of their own. For ports, of which Debian has compilers only, some
/// cells run programs that were compiled on this machine. A cell that fails, unless cells.toml says why,
/// makes the exit status 1; so does one that passes under another emulator, or passed when results were last recorded.
///
/// Requires root and network access. All guests take hours; packages and root filesystems are cached.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask guests arm64 --only git,sqlite
  cargo xtask guests armhf i386 --against deb:trixie --report guests.html
  cargo xtask guests s390x --suite bookworm
  cargo xtask guests --resume --record")]
pub(crate) struct Args {
    /// Debian's architectures [default: all of debian.toml, with ports, except this machine's own]
    guests: Vec<String>,
    /// Run only cells whose name contains one of these
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// Use the root filesystem of this suite of Debian [default: that of debian.toml]
    #[arg(long)]
    suite: Option<String>,
    /// Also run all cells under the emulators of a Debian suite (deb:SUITE) or a directory ([NAME=]DIR)
    #[arg(long, value_name = "EMULATORS")]
    against: Vec<String>,
    /// Reuse outcomes of earlier runs of the same emulator, script, files and packages, unless they failed
    #[arg(long)]
    resume: bool,
    /// Write an HTML report to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Save the results to qemu-src/guests.json, from which `cargo xtask codegen` generates a table
    #[arg(long)]
    record: bool,
    /// Print results as JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let subjects = select_subjects(cx, &args.guests, args.suite.as_deref())?;
    let cells = select_cells(cx, &args.only)?;
    if let Some(suite) = &args.suite {
        cx.data.debian.suite(suite).map_err(Usage)?;
    }
    let own = hosts::own()?;
    let against: Vec<_> = args
        .against
        .iter()
        .map(|given| EmulatorSource::parse(given, &cx.data.debian).map_err(Usage))
        .collect::<Result<_, _>>()?;
    let _lock = lock::lock(cx.paths.out())?;
    let source = source_of(cx, &cells)?;
    let targets: Vec<_> = subjects.iter().map(|subject| subject.target).collect();
    let mut all = vec![emulators::open_bundle(cx, &cx.paths.bundle(own), &targets)?];
    for source in against {
        all.push(source.emulators(cx)?);
    }
    let mut runners = Vec::new();
    for subject in subjects {
        let runner =
            |emulators| Runner::new(cx, subject, emulators, source.as_deref(), args.resume).transpose();
        runners.push(all.iter().filter_map(runner).collect::<Result<Vec<_>>>()?);
    }
    // One emulator after the other, because they share packages.
    let run_all = |runners: &Vec<Runner<'_>>| {
        runners.iter().map(|runner| runner.run(&cells)).collect::<Result<Vec<_>>>()
    };
    let runs = parallel::map_on_cpus(&runners, run_all)?.concat();
    finish(cx, args, &all[0].label, &runs)
}

/// Runs the quick cells in one guest, as a level of `cargo xtask smoke`.
pub(crate) fn check_quick(cx: &Context, report: &mut Report) -> Result<()> {
    let guest = cx.data.debian.guests.iter().find(|guest| guest.container && !probe::is_native(guest.target));
    let guest = guest.context("debian.toml has no guest that this machine does not run natively")?;
    let bundle = LazyCell::new(|| {
        if !nix::unistd::geteuid().is_root() {
            return Err(Skip("requires root".to_owned()).into());
        }
        emulators::open_bundle(cx, &cx.paths.bundle(hosts::own()?), &[guest.target])
    });
    let runner = LazyCell::new(|| {
        let bundle = bundle.as_ref().map_err(report::copy_error)?;
        let subject = subject_of_guest(cx, guest, None);
        let runner = Runner::new(cx, subject, bundle, None, false)?.context("there is no emulator")?;
        let lock = runner.lock()?;
        require_passed(runner.root(true)?.outcome)?;
        Ok((runner, lock))
    });
    for cell in cx.data.cells.cells.iter().filter(|cell| cell.quick) {
        report.check("guests", format!("{} in {guest}", cell.name), || {
            let (runner, _lock): &(Runner<'_>, Lock) = runner.as_ref().map_err(report::copy_error)?;
            require_passed(runner.cell(cell)?)
        })?;
    }
    Ok(())
}

fn require_passed(outcome: CellOutcome) -> Result<()> {
    match outcome {
        CellOutcome::Passed => Ok(()),
        CellOutcome::Skipped(why) => Err(Skip(why).into()),
        CellOutcome::Failed(why) | CellOutcome::Known(why) => bail!(why),
    }
}

/// The guests and ports with these names, or all that can be emulated here.
fn select_subjects<'a>(
    cx: &'a Context,
    names: &[String],
    suite: Option<&'a str>,
) -> Result<Vec<Subject<'a>>> {
    // A handler for these would also start the emulator, which is a program of this machine.
    let (own, others): (Vec<_>, Vec<_>) =
        cx.data.debian.guests.iter().partition(|guest| emulator::is_own(guest.target));
    let guests = others.into_iter().map(|guest| subject_of_guest(cx, guest, suite));
    let own = own.first().context("debian.toml has no guest of this machine's architecture")?;
    let ports = cx.data.debian.ports.iter().map(|port| Subject {
        name: &port.debian,
        target: port.target,
        root: own,
        suite: suite.unwrap_or(&port.suite),
        port: Some(port),
    });
    let all: Vec<_> = guests.chain(ports).collect();
    if names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        ensure!(own.debian != *name, "{name} cannot be emulated here: it is this machine's own architecture");
        let found = all.iter().find(|subject| subject.name == name);
        Ok(*found.ok_or_else(|| {
            let names: Vec<_> = cx.data.debian.names().collect();
            Usage(format!("unknown guest `{name}`; guests are {}", names.join(", ")))
        })?)
    };
    names.iter().map(find).collect()
}

fn subject_of_guest<'a>(cx: &'a Context, guest: &'a Guest, suite: Option<&'a str>) -> Subject<'a> {
    Subject {
        name: &guest.debian,
        target: guest.target,
        root: guest,
        suite: suite.unwrap_or(cx.data.debian.suite_of(guest)),
        port: None,
    }
}

/// The cells whose names contain one of these texts.
fn select_cells<'a>(cx: &'a Context, only: &[String]) -> Result<Vec<&'a Cell>> {
    let known = &cx.data.cells.cells;
    if let Some(text) = only.iter().find(|text| !known.iter().any(|cell| cell.name.contains(*text))) {
        let names: Vec<_> = known.iter().map(|cell| &*cell.name).collect();
        return Err(Usage(format!("no cell contains `{text}`; cells are {}", names.join(", "))).into());
    }
    let is_selected = |cell: &&Cell| only.is_empty() || only.iter().any(|text| cell.name.contains(text));
    Ok(known.iter().filter(is_selected).collect())
}

/// QEMU's source, if a cell has files of it.
fn source_of(cx: &Context, cells: &[&Cell]) -> Result<Option<PathBuf>> {
    if cells.iter().all(|cell| cell.qemu_files.is_none()) {
        return Ok(None);
    }
    let _lock = lock::lock(cx.paths.cache())?;
    build::default_tree(cx).map(Some)
}

/// Prints and saves the results.
fn finish(cx: &Context, args: &Args, ours: &str, runs: &[GuestRun]) -> Result<()> {
    let recorded_at = cx.paths.recorded_guests();
    let recorded: Vec<GuestRun> = match recorded_at.exists() {
        true => serde_json::from_slice(&fs::read(&recorded_at)?)
            .with_context(|| recorded_at.display().to_string())?,
        false => Vec::new(),
    };
    let faults = verdict::faults(runs, ours, &recorded);
    if args.json {
        out_json(&runs)?;
    } else {
        out(&table(runs).fit(terminal::width(io::stdout())))?;
    }
    if let Some(report) = &args.report {
        files::write(report, page::html(runs).as_bytes())?;
    }
    if args.record {
        let ours: Vec<_> = runs.iter().filter(|run| run.emulator == ours).cloned().collect();
        let merged = verdict::merged(recorded, ours);
        files::write(&recorded_at, &(serde_json::to_vec_pretty(&merged)?))?;
        say("saved the results; to update the table of docs/compatibility.md, run `cargo xtask codegen`");
    }
    for fault in &faults {
        say(fault);
    }
    let count =
        |word| runs.iter().flat_map(|run| &run.cells).filter(|cell| cell.outcome.word() == word).count();
    let [passed, failed, known, skipped] = ["passed", "failed", "known", "skipped"].map(count);
    say(format_args!("guests: {passed} passed, {failed} failed, {known} known, {skipped} skipped"));
    ensure!(faults.is_empty(), "{} cells are worse than they should be", faults.len());
    Ok(())
}

fn table(runs: &[GuestRun]) -> Table {
    let mut table = Table::new(["guest", "emulator", "cell", "outcome", "seconds"]);
    for run in runs {
        for cell in &run.cells {
            let outcome = match &cell.outcome {
                CellOutcome::Passed => "passed".to_owned(),
                other => format!("{}: {}", other.word(), other.why().unwrap_or_default()),
            };
            table.row([&run.guest, &run.emulator, &cell.name, &outcome, &cell.seconds.to_string()]);
        }
    }
    table
}
