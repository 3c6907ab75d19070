//! `qus install`: handlers that are registered, read back, and seen to work.
//!
//! An emulator is looked at and run before it is registered, and its probe is started through the kernel
//! afterwards. What cannot be done for one architecture does not keep the others from being installed,
//! and the exit status tells.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use qus_core::arch::Arch;
use qus_core::binfmt::{Binfmt, Difference, Flags, Rule};
use qus_core::emulator::{self, Emulator, Folder, Identity};
use qus_core::handler::{self, Change};
use qus_core::mount::{self, Mounted};
use qus_core::{persist, probe, trust};
use serde::Serialize;

use crate::context::{Context, Wanted, archs, emulators, say_whose};
use crate::output::{json, say};
use crate::watch;
use qus_core::text::Show;

/// Register emulators with the kernel
///
/// Programs of these architectures run from then on, in containers too. `all` means every emulator at hand
/// for what this machine does not run itself. Each emulator is checked and run first; the handler is read
/// back, and a tiny program of its architecture started through the kernel. Repeated, it changes nothing.
/// A handler that differs is told and left; --force replaces ours, with no moment in which there is none, and
/// stands in front of somebody else's.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures, or `all`
    #[arg(value_name = "ARCH", required = true)]
    archs: Vec<String>,
    /// Also have them, and only them, registered when the machine starts (systemd or OpenRC)
    #[arg(long)]
    persist: bool,
    /// Root folder of the host, where it is mounted in a container, for --persist
    #[arg(long, value_name = "DIR", default_value = "/", requires = "persist")]
    host_root: PathBuf,
    /// Let setuid programs run as whoever starts them (flags PF instead of POCF)
    #[arg(long)]
    no_credentials: bool,
    /// Folder with emulators: qemu-ARCH or qemu-ARCH-static
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Replace handlers of ours that differ; stand in front of others'
    #[arg(long)]
    force: bool,
    /// Register emulators also where users other than root can change them
    #[arg(long)]
    any_owner: bool,
    /// Run neither emulators nor programs through them
    #[arg(long)]
    no_probe: bool,
    /// Stay, look again every SECONDS [default: 60] and register what has gone; remove them on SIGHUP, SIGINT,
    /// SIGQUIT or SIGTERM
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["dry_run", "persist"]
    )]
    watch: Option<u64>,
    /// Say what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn flags(&self) -> Flags {
        if self.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT }
    }
}

/// What became of an architecture.
#[derive(PartialEq, Serialize)]
pub(crate) struct Row {
    arch: String,
    pub(crate) state: State,
    handlers: Vec<String>,
    interpreter: Option<String>,
    flags: Option<String>,
    /// Whether its probe ran through the kernel; `None` if it was not tried.
    probe: Option<bool>,
    why: Option<String>,
    differences: Vec<Difference>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Unchanged,
    Installed,
    Replaced,
    InFront,
    Native,
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unchanged => "unchanged",
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::InFront => "in front",
            Self::Native => "native",
            Self::Failed => "FAILED",
        })
    }
}

impl Row {
    fn new(arch: impl ToString, state: State, why: Option<String>) -> Self {
        Self {
            arch: arch.to_string(),
            state,
            handlers: Vec::new(),
            interpreter: None,
            flags: None,
            probe: None,
            why,
            differences: Vec::new(),
        }
    }

    pub(crate) fn failed(arch: impl ToString, why: impl ToString) -> Self {
        Self::new(arch, State::Failed, Some(why.to_string()))
    }

    fn done(&mut self, rule: &Rule, change: Change) {
        self.handlers.push(rule.name.to_string_lossy().into_owned());
        self.state = match change {
            Change::None => self.state,
            Change::Registered => State::Installed,
            Change::Replaced => State::Replaced,
            Change::InFront => State::InFront,
        };
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.state = State::Failed;
        self.why = Some(format!("{error:#}"));
        if let Some(handler::Error::Differs { differences, .. }) = error.downcast_ref() {
            self.differences.clone_from(differences);
        }
    }

    pub(crate) fn say(&self, dry_run: bool) {
        let changes = !matches!(self.state, State::Failed | State::Native | State::Unchanged);
        let would = if dry_run && changes { "would be " } else { "" };
        let place = self.interpreter.as_ref().map_or(String::new(), |path| format!("  {}", path.shown()));
        let why = self.why.as_ref().map_or(String::new(), |why| format!("  {why}"));
        say(format_args!("{:12} {would}{}{place}{why}", self.arch.shown().to_string(), self.state));
        for difference in &self.differences {
            let Difference { field, registered, wanted } = difference;
            let (registered, wanted) = (registered.shown(), wanted.shown());
            say(format_args!("{:12}   {field}: is {registered}, should be {wanted}", ""));
        }
    }
}

/// What is known of an architecture before the kernel is told of it.
enum Checked {
    /// The machine runs it itself, and why that is known.
    Native(&'static str),
    /// Its emulator was found fit.
    Fit(Fit),
}

/// An emulator that was found fit.
pub(crate) struct Fit {
    pub(crate) emulator: Emulator,
    identity: Identity,
    /// Who can change it besides root.
    owner: Option<u32>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    match args.watch {
        Some(seconds) => watch::run(context, args, Duration::from_secs(seconds)),
        None => first(context, args).map(drop),
    }
}

/// Installs what was asked for, and says what became of it.
pub(crate) fn first(context: &Context, args: &Args) -> Result<Vec<Fit>> {
    let folder = emulators(args.dir.as_deref())?;
    let wanted = Wanted::new(&args.archs);
    let (rows, fit) = install(context, args, &folder, &archs(&folder, &wanted)?)?;
    let unknown = wanted.unknown.iter().map(|unknown| Row::failed(&unknown.given, unknown));
    report(&unknown.chain(rows).collect::<Vec<_>>(), args)?;
    Ok(fit)
}

/// Installs what was installed before, with the emulators that are there now.
pub(crate) fn again(context: &Context, args: &Args, archs: &[&'static Arch]) -> Result<(Vec<Row>, Vec<Fit>)> {
    install(context, args, &emulators(args.dir.as_deref())?, archs)
}

fn install(
    context: &Context,
    args: &Args,
    folder: &Folder,
    archs: &[&'static Arch],
) -> Result<(Vec<Row>, Vec<Fit>)> {
    let mut rows = Vec::new();
    let mut fit = Vec::new();
    for &arch in archs {
        match check(folder, arch, args) {
            Ok(Checked::Fit(emulator)) => fit.push(emulator),
            Ok(Checked::Native(why)) => rows.push(Row::new(arch, State::Native, Some(why.to_owned()))),
            Err(why) => rows.push(Row::failed(arch, why)),
        }
    }
    if let Some(user) = fit.iter().find_map(|fit| fit.owner).filter(|_| !args.persist) {
        let dir = folder.dir.shown();
        say(format_args!(
            "note: user {user} can change the emulators in {dir}; --persist copies them for root alone"
        ));
    }
    let flags = args.flags();
    let binfmt = &context.binfmt;
    if args.dry_run || fit.is_empty() {
        rows.extend(
            fit.iter().map(|fit| try_row(fit, flags, |row| plan(binfmt, fit, flags, args.force, row))),
        );
        return Ok((rows, fit));
    }
    say_where(&mount::ensure(binfmt)?, binfmt);
    // Others would register what we have just found missing.
    let _lock = binfmt.lock()?;
    if args.persist {
        keep(&mut fit, folder, flags, &args.host_root)?;
    }
    rows.extend(fit.iter().map(|fit| try_row(fit, flags, |row| register(binfmt, fit, flags, args, row))));
    Ok((rows, fit))
}

/// Whether all is registered as it was left, and the kernel uses it. Runs nothing.
pub(crate) fn stands(binfmt: &Binfmt, args: &Args, fit: &[Fit]) -> bool {
    let same = |rule: &Rule| matches!(handler::plan(binfmt, rule, args.force), Ok((_, Change::None)));
    binfmt.is_switched_on().is_ok_and(|on| on)
        && fit.iter().flat_map(|fit| handler::rules_of(&fit.emulator, args.flags())).all(|rule| same(&rule))
}

/// Looks at an emulator before the kernel is told of it.
fn check(folder: &Folder, arch: &'static Arch, args: &Args) -> Result<Checked, String> {
    if emulator::is_own(arch) {
        return Ok(Checked::Native("this machine's own programs need no emulator"));
    }
    let forced = args.force && !args.archs.iter().any(|name| name == "all");
    if !forced && probe::is_native(arch) {
        return Ok(Checked::Native("this machine runs it itself"));
    }
    let emulator = folder
        .get(arch)
        .ok_or_else(|| format!("there is no {} in {}", arch.emulator(), folder.dir.shown()))?;
    let path = emulator.path.shown();
    let owner =
        if args.any_owner { None } else { trust::check(&emulator.path).map_err(|why| why.to_string())? };
    let identity = emulator::inspect(&emulator.path).map_err(|unfit| format!("{path} {unfit}"))?;
    if !args.no_probe {
        probe::run_with(&emulator.path, arch)
            .map_err(|why| format!("{path} does not run its own architecture: {why}"))?;
    }
    Ok(Checked::Fit(Fit { emulator: emulator.clone(), identity, owner }))
}

fn say_where(mounted: &Mounted, binfmt: &Binfmt) {
    let root = binfmt.root().shown();
    match mounted {
        Mounted::Before => {}
        Mounted::Here => say(format_args!("mounted binfmt_misc at {root}")),
        Mounted::KeptElsewhere => say("mounted binfmt_misc here; the host has it mounted too"),
        Mounted::FirstProcess => {
            say("mounted binfmt_misc for process 1 too: handlers last as long as that runs");
        }
        Mounted::Shared(place) => {
            say(format_args!("mounted binfmt_misc at {} too, which the host shares", place.shown()));
        }
    }
    say_whose(binfmt);
}

/// Copies emulators to where they stay, and goes on with the copies.
fn keep(fit: &mut [Fit], folder: &Folder, flags: Flags, host_root: &Path) -> Result<()> {
    let unversioned = concat!("qus-", env!("CARGO_PKG_VERSION")).to_owned();
    let version = &folder.version.as_ref().map_or(unversioned, ToString::to_string);
    let emulators: Vec<Emulator> = fit.iter().map(|fit| fit.emulator.clone()).collect();
    let host_root = std::path::absolute(host_root)?;
    let kept = persist::Host::at(&host_root).install(version, &emulators, flags)?;
    for (fit, kept) in fit.iter_mut().zip(kept) {
        let path = host_root.join(kept.path.strip_prefix("/").unwrap_or(&kept.path));
        fit.identity = Identity::now(&path).with_context(|| format!("{} has vanished", path.shown()))?;
        fit.emulator.path = path;
    }
    say(format_args!("kept for the next start of the machine in {}", persist::Host::folder(version).shown()));
    Ok(())
}

/// The row of an emulator after something was done with it.
fn try_row(fit: &Fit, flags: Flags, work: impl FnOnce(&mut Row) -> Result<()>) -> Row {
    let mut row = Row::new(fit.emulator.arch, State::Unchanged, None);
    row.interpreter = Some(fit.emulator.path.display().to_string());
    row.flags = Some(flags.to_string());
    if let Err(error) = work(&mut row) {
        row.fail(&error);
    }
    row
}

fn plan(binfmt: &Binfmt, fit: &Fit, flags: Flags, force: bool, row: &mut Row) -> Result<()> {
    for rule in handler::rules_of(&fit.emulator, flags) {
        let (rule, change) = handler::plan(binfmt, &rule, force)?;
        row.done(&rule, change);
    }
    Ok(())
}

/// Registers, reads back, and runs the probe. What was registered newly is taken back on failure.
fn register(binfmt: &Binfmt, fit: &Fit, flags: Flags, args: &Args, row: &mut Row) -> Result<()> {
    let mut new: Vec<Rule> = Vec::new();
    let mut work = || -> Result<()> {
        for rule in handler::rules_of(&fit.emulator, flags) {
            let (rule, change) = handler::put(binfmt, &rule, args.force)?;
            row.done(&rule, change);
            if matches!(change, Change::Registered | Change::InFront) {
                new.push(rule.clone());
            }
            handler::check(binfmt, &rule).context("the kernel has something else than was registered")?;
        }
        let path = &fit.emulator.path;
        let same = Identity::now(path) == Some(fit.identity);
        ensure!(same, "{} was replaced while it was registered: run this again", path.shown());
        if !args.no_probe {
            probe::run(fit.emulator.arch).map_err(|why| anyhow!("registered, but {why}"))?;
            row.probe = Some(true);
        }
        Ok(())
    };
    let worked = work();
    if worked.is_err() {
        for rule in &new {
            binfmt.remove(&rule.name)?;
        }
    }
    worked
}

fn report(rows: &[Row], args: &Args) -> Result<()> {
    if args.json {
        json(&rows)?;
    }
    for row in rows {
        row.say(args.dry_run);
    }
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| row.state == State::Failed)
        .map(|row| row.arch.shown().to_string())
        .collect();
    if !failed.is_empty() {
        bail!("not installed: {}", failed.join(" "));
    }
    Ok(())
}
