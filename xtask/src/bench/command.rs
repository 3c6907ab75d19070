//! `cargo xtask bench`: the emulators of the bundle and others, side by side.
//!
//! Programs of real guests run as they do for users: the kernel starts the emulator for each of their processes, in a
//! namespace where nobody else sees its handler. All emulators run in one session, in turn, and are compared round by
//! round, since clocks of a shared machine cannot be compared any other way. Nothing is installed and nothing is
//! registered in the machine itself.
//!
//! What it does not do: measure a guest that this machine is itself (the handler would take the emulator for a program
//! of the guest), and compare numbers of two runs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qus_core::arch::Arch;
use qus_core::hint::WithHint;
use qus_core::hint::hinted;
use qus_core::{emulator, namespace};
use serde_json::json;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::output::out;
use crate::base::progress::say;
use crate::base::{files, lock};
use crate::bench::emulators::{self, Emulators, Source};
use crate::bench::instructions::Valgrind;
use crate::bench::measure::{self, Field};
use crate::bench::results::{Clock, Contestant, Guest, Machine, Results};
use crate::bench::session::Session;
use crate::bench::workloads::{self, Workload};
use crate::bench::{page, recorded, roots, sizes, table};
use crate::bundle::hosts;

/// Measure the emulators of the bundle, side by side with others
///
/// Prints, for each guest and workload, what the bundle's emulator takes, and how many times longer each of the others
/// takes: the median over all rounds, with quartiles. Guests are root folders of Debian's packages, unpacked into the
/// cache. Needs Linux 6.7 or later, and no root where users may make namespaces. Exit status 1 if a workload failed under
/// an emulator, or wrote something else than under the others.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench --against deb:trixie --against deb:sid --report bench.html
  cargo xtask bench arm s390x --against before=../other/target/qus/bundle/amd64 --only gcc,python
  cargo xtask bench --only probe --against deb:trixie       # nothing but QEMU's start, no root folder")]
pub(crate) struct Args {
    /// Architectures whose programs are run [default: aarch64]
    #[arg(value_name = "GUEST")]
    guests: Vec<String>,
    /// Others to compare with: a folder of emulators, or Debian's of a suite; a folder may be given a name
    #[arg(long, value_name = "[NAME=]DIR|deb:SUITE")]
    against: Vec<String>,
    /// Only workloads whose name contains this; nothing is compressed then
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each emulator runs each workload, after a first time that is not counted
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Compare what passed, or what the processors spent
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// Count instructions of a static and a dynamic program too, with valgrind
    #[arg(long)]
    instructions: bool,
    /// The folder whose emulators are measured [default: the bundle of this machine]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Write a page with a plot to this file, and all samples as JSON beside it
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Keep the results in qemu-src/bench.json, from which codegen makes what the README shows
    #[arg(long)]
    record: bool,
    /// Print all samples as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Print what would be run and downloaded, change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let guests = guests(&args.guests)?;
    let against = against(cx, &args.against)?;
    let workloads = workloads::selected(&args.only);
    if workloads.is_empty() {
        let names: Vec<_> = workloads::WORKLOADS.iter().map(|workload| workload.name).collect();
        bail!(Usage(format!(
            "no workload is called like {}: there are {}",
            args.only.join(", "),
            names.join(", ")
        )));
    }
    let in_root = workloads.iter().any(|workload| workload.in_root);
    if args.instructions && !in_root {
        bail!(Usage(
            "--instructions counts those of programs in a root folder, which --only leaves out".to_owned()
        ));
    }
    for guest in &guests {
        can_run(cx, guest, in_root)?;
    }
    let bundle = match &args.bundle {
        Some(dir) => dir.clone(),
        None => cx.paths.bundle(hosts::own()?),
    };
    if args.dry_run {
        return print_plan(cx, args, &bundle, &against, &guests, &workloads);
    }
    let _lock = lock::lock(cx.paths.out())?;
    let mut all = vec![emulators::ours(cx, &bundle, &guests)?];
    check_machine(&all[0], guests[0])?;
    for source in &against {
        all.push(source.emulators(cx)?);
    }
    emulators::tell_apart(&mut all);
    let contestant = |it: &Emulators| Contestant { label: it.label.clone(), version: it.version.clone() };
    let mut results = Results::new(machine()?, args.clock, args.rounds, all.iter().map(contestant).collect());
    for guest in &guests {
        results.guests.push(measure_guest(cx, args, guest, &all, &workloads)?);
    }
    if args.only.is_empty() {
        results.everything = sizes::of_all(&all[0])?;
    }
    finish(cx, args, &results)
}

/// Which guests are meant.
fn guests(names: &[String]) -> Result<Vec<&'static Arch>> {
    let mut guests: Vec<&'static Arch> = Vec::new();
    let default = ["aarch64".to_owned()];
    for name in if names.is_empty() { &default[..] } else { names } {
        let guest = name.parse().map_err(|unknown| Usage(format!("{unknown}")))?;
        if !guests.contains(&guest) {
            guests.push(guest);
        }
    }
    Ok(guests)
}

/// What the bundle is compared with.
fn against<'a>(cx: &'a Context, given: &[String]) -> Result<Vec<Source<'a>>> {
    let parse = |given: &String| {
        Source::parse(given, &cx.data.debian)
            .map_err(|error| Usage(format!("--against {given}: {error}")).into())
    };
    given.iter().map(parse).collect()
}

/// Refuses what no emulator on this machine could be measured with.
fn can_run(cx: &Context, guest: &'static Arch, in_root: bool) -> Result<()> {
    if emulator::is_own(guest) {
        bail!(Usage(format!(
            "{guest} is what this machine is: a handler for it would take the emulator itself for a program of the guest, \
             without end"
        )));
    }
    let host = hosts::own()?;
    host.check_emulates(&[guest]).map_err(|error| Usage(error.to_string()))?;
    if in_root && cx.data.debian.rootfs_guest(guest).is_none() {
        let usage = Usage(format!(
            "Debian's current release has no {guest}, so no root filesystem for the workloads"
        ));
        return Err(usage)
            .hint(format!("to measure without one, run `cargo xtask bench {guest} --only probe`"));
    }
    Ok(())
}

/// Tries what all measuring needs, before anything is downloaded for it.
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
    let emulator = ours.of(guest)?.context("the bundle has no such emulator")?;
    Session::start(guest, &emulator, &roots::bare(guest, temp.path())?).map(drop)
}

fn machine() -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let processor = model.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
    let (major, minor) = namespace::kernel().context("the kernel tells no version")?;
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
) -> Result<Guest> {
    let files: Vec<_> = all.iter().map(|emulators| emulators.of(guest)).collect::<Result<_>>()?;
    for (emulators, _) in all.iter().zip(&files).filter(|(_, file)| file.is_none()) {
        say(format_args!("{} has no {}: {guest} goes on without it", emulators.label, guest.emulator()));
    }
    let ours = files.first().and_then(Option::as_ref).context("the bundle has no such emulator")?;
    let temp = tempfile::tempdir()?;
    let place = if workloads.iter().any(|workload| workload.in_root) {
        roots::whole(cx, guest, ours)?
    } else {
        roots::bare(guest, temp.path())?
    };
    let labels: Vec<_> = all.iter().map(|emulators| emulators.label.clone()).collect();
    let field = Field { guest, labels: &labels, emulators: &files, place: &place };
    let rows = measure::measure(&field, workloads, args.rounds)?;
    let instructions = if args.instructions { Valgrind::find(cx)?.count(&place, &files) } else { Vec::new() };
    // Compressing takes longer than some workloads, and who has named one wants to know of that.
    let sizes = if args.only.is_empty() { sizes::of_each(guest, &files)? } else { Vec::new() };
    let system = roots::system(&place);
    Ok(Guest { guest: guest.name.to_owned(), system, workloads: rows, instructions, sizes })
}

fn finish(cx: &Context, args: &Args, results: &Results) -> Result<()> {
    let json = results.json()?;
    if let Some(page) = &args.report {
        files::write(page, page::html(results).as_bytes())?;
        files::write(&page.with_extension("json"), json.as_bytes())?;
        say(format_args!("written: {} and its JSON", page.display()));
    }
    if args.record {
        files::write(&recorded::path(cx), json.as_bytes())?;
        say("recorded; `cargo xtask codegen` makes the README's plot and table of it");
    }
    out(&if args.json { json } else { table::text(results) })?;
    let failures = results.failures();
    ensure!(failures == 0, "{failures} workloads failed");
    Ok(())
}

fn print_plan(
    cx: &Context,
    args: &Args,
    bundle: &Path,
    against: &[Source<'_>],
    guests: &[&'static Arch],
    workloads: &[&Workload],
) -> Result<()> {
    let mut downloads: Vec<_> = against.iter().filter_map(|source| source.lacks(cx)).collect();
    for guest in guests {
        downloads.extend(roots::lacks(cx, guest, workloads)?);
    }
    if args.instructions {
        downloads.extend(Valgrind::lacks(cx)?);
    }
    let guests: Vec<_> = guests.iter().map(|guest| guest.name).collect();
    let against: Vec<_> = against.iter().map(ToString::to_string).collect();
    if args.json {
        let names: Vec<_> = workloads.iter().map(|workload| workload.name).collect();
        let plan = json!({
            "bundle": bundle, "against": against, "guests": guests, "workloads": names, "rounds": args.rounds,
            "downloads": downloads,
        });
        return out(&format!("{plan:#}\n"));
    }
    let list = |what: &[String]| if what.is_empty() { "nothing".to_owned() } else { what.join(", ") };
    let mut text = format!(
        "bundle     {}\nagainst    {}\nguests     {}\nrounds     {}, and one that is not counted\ndownloads  {}\n\n",
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
