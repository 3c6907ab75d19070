//! `cargo xtask smoke`: checks with real guest programs and real failures.
//!
//! Levels: `emulator` runs the emulators of the bundle with every probe, with Debian's busybox of every architecture and
//! with a program that changes itself, unpacks the tarball of one, and measures one; `hosts` runs what was built for
//! other hosts under our own emulators; `kernel` has the kernel run them, registered by `qus`;
//! `engine` makes, pushes and uses images; `guests` runs programs in a root filesystem of Debian; `vm` runs images on a whole
//! machine; `build` interrupts, starves and breaks a build; `chaos` kills commands at random moments. What cannot run here is skipped with its reason and counted.

mod build;
mod changes;
mod compat;
mod disks;
mod emulator;
mod engine;
pub(super) mod fixture;
mod hosts;
mod installer;
mod kernel;
mod machines;
mod measured;
mod sbom;
mod tarball;
mod vm;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::base::context::Context;
use crate::check::report::Report;
use crate::check::{chaos, guests};

/// Check the bundle with guest programs, the kernel, container engines and failing builds
///
/// Prints one line for each check, those that are skipped at the end by reason, and the totals. The exit status is 1 if a
/// check fails or if no check runs. Emulators and qus come from the bundle in target/qus/bundle; build them first. The
/// levels `engine` and `guests` require root. The level `kernel` runs in a user namespace if you are not root, which some of its checks
/// require. Both restore the machine's state.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Levels to run [default: all]
    #[arg(value_enum)]
    levels: Vec<Level>,
    /// Run only checks whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Levels whose skipped checks count as failures, or `all`
    #[arg(long, value_name = "LEVEL", value_delimiter = ',', value_parser = requirable())]
    require: Vec<String>,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// This process runs in a user namespace for another one, which prints the totals
    #[arg(long, hide = true, requires = "report")]
    part: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Emulator,
    Hosts,
    Kernel,
    Engine,
    Guests,
    Vm,
    Build,
    Chaos,
}

impl Level {
    fn run(self, cx: &Context, report: &mut Report) -> Result<()> {
        match self {
            Self::Emulator => {
                emulator::run(cx, report)?;
                changes::run(cx, report)?;
                compat::run(cx, report)?;
                tarball::run(cx, report)?;
                sbom::run(cx, report)?;
                installer::run(cx, report)?;
                measured::run(cx, report)
            }
            Self::Hosts => hosts::run(cx, report),
            Self::Kernel => kernel::run(cx, report),
            Self::Engine => engine::run(cx, report),
            Self::Guests => guests::check_quick(cx, report),
            Self::Vm => {
                vm::run(cx, report)?;
                disks::run(cx, report)
            }
            Self::Build => build::run(cx, report),
            Self::Chaos => chaos::check(cx, report),
        }
    }
}

/// What `--require` takes: the levels, the steps of `cargo xtask test`, everything.
pub(crate) fn requirable() -> PossibleValuesParser {
    let levels = Level::value_variants().iter().filter_map(Level::to_possible_value);
    PossibleValuesParser::new(levels.chain(["test", "all"].map(PossibleValue::new)))
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let mut report = Report::new("smoke", &args.require).only(&args.only);
    let wanted = |level| args.levels.is_empty() || args.levels.contains(&level);
    let mut levels = Level::value_variants().iter().filter(|level| wanted(**level));
    levels.try_for_each(|level| level.run(cx, &mut report))?;
    let file = args.report.as_deref();
    if args.part { report.finish_part(file) } else { report.finish(file) }
}

/// Whole machines: their level, what takes longer, every machine and every board, as part of a larger report.
pub(crate) fn machines(cx: &Context, report: &mut Report) -> Result<()> {
    Level::Vm.run(cx, report)?;
    vm::engine::run_slow(cx, report)?;
    disks::run_slow(cx, report)?;
    machines::run(cx, report)
}

/// Every level, as part of a larger report.
pub(crate) fn all(cx: &Context, report: &mut Report) -> Result<()> {
    Level::value_variants().iter().try_for_each(|level| level.run(cx, report))
}
