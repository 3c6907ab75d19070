//! `cargo xtask bench`: compares the emulators of the bundle with others.
//!
//! Guest programs run as they do for users: the kernel starts the emulator for each process. The handler is registered
//! in a user namespace, so the host's handlers do not change. All emulators run alternately in one session and are
//! compared round by round, because load on a shared machine makes the times of separate runs incomparable.
//!
//! The host's own architecture cannot be measured: the handler would match the emulator itself. Results of two runs are
//! not compared.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qus_core::arch::Arch;
use qus_core::hint::{WithHint, hinted};
use qus_core::{emulator, namespace, terminal};
use serde_json::json;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::exec::{self, sh};
use crate::base::output::{out, out_json};
use crate::base::progress::say;
use crate::base::{files, lock};
use crate::bench::emulators::{self, EmulatorSource, Emulators};
use crate::bench::instructions::Valgrind;
use crate::bench::measure::{self, Setup};
use crate::bench::results::{Clock, EmulatorSet, GuestResults, Machine, Results};
use crate::bench::session::Session;
use crate::bench::workloads::{self, Workload};
use crate::bench::{page, recorded, roots, sizes, table};
use crate::bundle::hosts;

/// Compare the performance of the bundle's emulators with that of others
///
/// Prints the time that the bundle's emulator takes for each guest and workload, and the time of each other emulator
/// relative to it: the median over all rounds, with quartiles. Workloads run in root filesystems of Debian packages,
/// which are unpacked into the cache. Requires Linux 6.7 or later, and either root or unprivileged user namespaces. The
/// exit status is 1 if a workload fails or if its output differs between emulators.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench --against deb:trixie --against deb:sid --report bench.html
  cargo xtask bench arm s390x --against before=../other/target/qus/bundle/amd64 --only gcc,python
  cargo xtask bench --only probe --against deb:trixie       # startup time only, no root filesystem")]
pub(crate) struct Args {
    /// Guest architectures to measure
    #[arg(value_name = "GUEST", default_value = "aarch64")]
    guests: Vec<&'static Arch>,
    /// Emulators to compare with: a directory, optionally with a name, or the package of a Debian suite
    #[arg(long, value_name = "[NAME=]DIR|deb:SUITE")]
    against: Vec<String>,
    /// Run only workloads whose name contains this; skips the compressed sizes
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// Number of measured runs of each workload, after one warm-up run
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time to compare
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// Also count the instructions for a static and a dynamic program, with valgrind
    #[arg(long)]
    instructions: bool,
    /// Directory of the emulators to measure [default: the bundle of this machine]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Write an HTML report with a plot to this file, and all samples as JSON next to it
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Save the results to qemu-src/bench.json, from which `cargo xtask codegen` generates the README's plot and table
    #[arg(long)]
    record: bool,
    /// Print all samples as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Print what would be run and downloaded, without doing it
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let guests = unique(&args.guests);
    let against = parse_against(cx, &args.against)?;
    let workloads = select_workloads(&args.only)?;
    let in_root = workloads.iter().any(|workload| workload.in_root);
    if args.instructions && !in_root {
        bail!(Usage(
            "--instructions needs workloads that run in a root filesystem, and --only excludes them"
                .to_owned()
        ));
    }
    for guest in &guests {
        check_guest(cx, guest, in_root)?;
    }
    let bundle = match &args.bundle {
        Some(dir) => dir.clone(),
        None => cx.paths.bundle(hosts::own()?),
    };
    if args.dry_run {
        return print_plan(cx, args, &bundle, &against, &guests, &workloads);
    }
    let _lock = lock::lock(cx.paths.out())?;
    let mut all = vec![emulators::open_bundle(cx, &bundle, &guests)?];
    check_machine(&all[0], guests[0])?;
    for source in &against {
        all.push(source.emulators(cx)?);
    }
    emulators::number_equal_labels(&mut all);
    let emulator_set = |it: &Emulators| EmulatorSet { label: it.label.clone(), version: it.version.clone() };
    let mut results =
        Results::new(machine()?, args.clock, args.rounds, all.iter().map(emulator_set).collect());
    for (guest, following) in guests.iter().zip((0..guests.len()).rev()) {
        results.guests.push(measure_guest(cx, args, guest, &all, &workloads, following)?);
    }
    let root = cx.paths.root();
    results.date = exec::read(cmd!(sh(), "date --utc +%F")).ok();
    results.commit = exec::read(cmd!(sh(), "git -C {root} rev-parse --short=12 HEAD")).ok();
    if args.only.is_empty() {
        results.everything = sizes::measure_all(&all[0])?;
    }
    finish(cx, args, &results)
}

/// The guests in the order of the command line, without duplicates.
fn unique(given: &[&'static Arch]) -> Vec<&'static Arch> {
    let mut guests = Vec::new();
    for guest in given {
        if !guests.contains(guest) {
            guests.push(*guest);
        }
    }
    guests
}

fn select_workloads(only: &[String]) -> Result<Vec<&'static Workload>> {
    let workloads = workloads::select(only);
    if workloads.is_empty() {
        let names: Vec<_> = workloads::WORKLOADS.iter().map(|workload| workload.name).collect();
        bail!(Usage(format!(
            "no workload matches {}; available workloads: {}",
            only.join(", "),
            names.join(", ")
        )));
    }
    Ok(workloads)
}

fn parse_against<'a>(cx: &'a Context, given: &[String]) -> Result<Vec<EmulatorSource<'a>>> {
    let parse = |given: &String| {
        EmulatorSource::parse(given, &cx.data.debian)
            .map_err(|error| Usage(format!("--against {given}: {error}")).into())
    };
    given.iter().map(parse).collect()
}

/// Refuses guests that cannot be measured on this machine.
fn check_guest(cx: &Context, guest: &'static Arch, in_root: bool) -> Result<()> {
    if emulator::is_own(guest) {
        bail!(Usage(format!(
            "{guest} is this machine's own architecture: its handler would match the emulator itself and recurse endlessly"
        )));
    }
    let host = hosts::own()?;
    host.check_emulates(&[guest]).map_err(|error| Usage(error.to_string()))?;
    if in_root && cx.data.debian.rootfs_guest(guest).is_none() {
        let usage = Usage(format!(
            "Debian's current release does not support {guest}, so there is no root filesystem for the workloads"
        ));
        return Err(usage).hint(format!(
            "to measure without a root filesystem, run `cargo xtask bench {guest} --only probe`"
        ));
    }
    Ok(())
}

/// Verifies before any download that workloads can run on this machine.
fn check_machine(ours: &Emulators, guest: &'static Arch) -> Result<()> {
    if let Some((major, minor)) = namespace::kernel().filter(|version| *version < (6, 7)) {
        return Err(hinted(
            format_args!(
                "bench registers handlers in user namespaces, which Linux {major}.{minor} does not support"
            ),
            "run it on Linux 6.7 or later",
        ));
    }
    let temp = tempfile::tempdir()?;
    let emulator = ours.find(guest)?.context("the bundle has no emulator for this guest")?;
    Session::start(guest, &emulator, &roots::create_empty(guest, temp.path())?).map(drop)
}

fn machine() -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let processor = model.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
    let (major, minor) = namespace::kernel().context("cannot read the kernel version")?;
    Ok(Machine {
        host: hosts::own()?.name.to_owned(),
        processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        processors: std::thread::available_parallelism()?.get(),
        kernel: format!("{major}.{minor}"),
    })
}

fn measure_guest(
    cx: &Context,
    args: &Args,
    guest: &'static Arch,
    all: &[Emulators],
    workloads: &[&Workload],
    following: usize,
) -> Result<GuestResults> {
    let files: Vec<_> = all.iter().map(|emulators| emulators.find(guest)).collect::<Result<_>>()?;
    for (emulators, _) in all.iter().zip(&files).filter(|(_, file)| file.is_none()) {
        say(format_args!("{} has no {}; {guest} is measured without it", emulators.label, guest.emulator()));
    }
    let ours = files.first().and_then(Option::as_ref).context("the bundle has no emulator for this guest")?;
    let temp = tempfile::tempdir()?;
    let bench_root = if workloads.iter().any(|workload| workload.in_root) {
        roots::prepare(cx, guest, ours)?
    } else {
        roots::create_empty(guest, temp.path())?
    };
    let labels: Vec<_> = all.iter().map(|emulators| emulators.label.clone()).collect();
    let setup = Setup { guest, labels: &labels, emulators: &files, bench_root: &bench_root };
    let rows = measure::measure(&setup, workloads, args.rounds, following)?;
    let instructions =
        if args.instructions { Valgrind::find(cx)?.count(&bench_root, &files) } else { Vec::new() };
    // Compression takes longer than some workloads, so --only skips it.
    let sizes = if args.only.is_empty() { sizes::measure_each(guest, &files)? } else { Vec::new() };
    let system = roots::system(&bench_root);
    Ok(GuestResults { guest: guest.name.to_owned(), system, workloads: rows, instructions, sizes })
}

fn finish(cx: &Context, args: &Args, results: &Results) -> Result<()> {
    let json = results.json()?;
    if let Some(page) = &args.report {
        files::write(page, page::html(results).as_bytes())?;
        files::write(&page.with_extension("json"), json.as_bytes())?;
        say(format_args!("wrote {} and its JSON", page.display()));
    }
    if args.record {
        files::write(&recorded::path(cx), json.as_bytes())?;
        say("saved the results; to update the README's plot and table, run `cargo xtask codegen`");
    }
    out(&if args.json { json } else { table::text(results, terminal::width(io::stdout())) })?;
    let failures = results.failures();
    ensure!(failures == 0, "{failures} workloads failed");
    Ok(())
}

fn print_plan(
    cx: &Context,
    args: &Args,
    bundle: &Path,
    against: &[EmulatorSource<'_>],
    guests: &[&'static Arch],
    workloads: &[&Workload],
) -> Result<()> {
    let mut downloads: Vec<_> = against.iter().filter_map(|source| source.missing_download(cx)).collect();
    for guest in guests {
        downloads.extend(roots::missing_download(cx, guest, workloads)?);
    }
    if args.instructions {
        downloads.extend(Valgrind::missing_download(cx)?);
    }
    let guests: Vec<_> = guests.iter().map(|guest| guest.name).collect();
    let against: Vec<_> = against.iter().map(ToString::to_string).collect();
    if args.json {
        let names: Vec<_> = workloads.iter().map(|workload| workload.name).collect();
        return out_json(&json!({
            "bundle": bundle, "against": against, "guests": guests, "workloads": names, "rounds": args.rounds,
            "downloads": downloads,
        }));
    }
    let list = |what: &[String]| if what.is_empty() { "none".to_owned() } else { what.join(", ") };
    let mut text = format!(
        "bundle     {}\nagainst    {}\nguests     {}\nrounds     {}, after one warm-up\ndownloads  {}\n\n",
        bundle.display(),
        list(&against),
        guests.join(", "),
        args.rounds,
        list(&downloads)
    );
    for workload in workloads {
        text += &format!("{:<10} {}\n", workload.name, workload.what);
    }
    out(&text)
}
