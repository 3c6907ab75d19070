//! `qus install`: its arguments and messages; the work is done by [`qus_core::install`].

use std::path::Path;

use anyhow::{Result, bail};
use qus_core::binfmt::{Binfmt, Difference, Flags};
use qus_core::hint::hinted;
use qus_core::install::{InstallEvent, InstallOptions, InstallOutcome, Installation, install};
use qus_core::mount::Mounted;
use qus_core::selection::Selection;
use qus_core::text::Show;

use crate::context::{EmulatorDirArgs, HostRootArgs, note_user_namespace};
use crate::output::{message, print_json};

/// Register emulators with the kernel
///
/// After that, programs of these architectures run, in containers too. `all` selects every emulator in the directory for
/// an architecture that this machine does not run natively.
///
/// Each emulator is checked and run before it is registered. Then its handler is read back from the kernel, and a small
/// program of its architecture is started through it. A new handler that does not work is removed again. Running the same
/// command again changes nothing. A handler that differs from what was requested is reported and left unchanged, unless
/// --force is given.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus install all
  qus install aarch64 riscv64 --persist
  qus install all --watch=300")]
pub(crate) struct Args {
    /// Architectures, or `all`
    #[arg(value_name = "ARCH", required = true)]
    archs: Vec<String>,
    /// Also register these, and no others, at every boot (systemd or OpenRC)
    #[arg(long)]
    persist: bool,
    #[command(flatten)]
    host: HostRootArgs,
    /// Let setuid programs run as the user who starts them (flags PF instead of POCF)
    #[arg(long)]
    no_credentials: bool,
    #[command(flatten)]
    pub(crate) emulators: EmulatorDirArgs,
    /// Replace handlers of qus that differ, without a gap, and take precedence over those of other programs; register
    /// named architectures even if this machine runs them natively
    #[arg(long)]
    force: bool,
    /// Accept emulators that users other than root can change
    #[arg(long)]
    any_owner: bool,
    /// Do not run emulators, nor programs through them
    #[arg(long)]
    no_probe: bool,
    /// Keep running: check every SECONDS [default: 60], re-register handlers that disappear, and remove them on SIGHUP,
    /// SIGINT, SIGQUIT or SIGTERM
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["dry_run", "persist"]
    )]
    pub(crate) watch: Option<u64>,
    /// Report what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn options(&self) -> InstallOptions {
        InstallOptions {
            flags: if self.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT },
            force: self.force,
            native: self.force && !self.archs.iter().any(|name| name == "all"),
            any_owner: self.any_owner,
            probe: !self.no_probe,
            persist: self.persist.then(|| self.host.host_root.clone()),
            dry_run: self.dry_run,
        }
    }
}

pub(crate) fn run(binfmt: &Binfmt, args: &Args) -> Result<()> {
    require_all(&install_and_report(binfmt, args)?)
}

/// Reports an error if an architecture failed.
pub(crate) fn require_all(installation: &Installation) -> Result<()> {
    let failed: Vec<_> = installation.failed().map(|arch| arch.shown().to_string()).collect();
    if !failed.is_empty() {
        bail!("not installed: {}", failed.join(" "));
    }
    Ok(())
}

/// Installs what was requested, and reports the result for each architecture, also of those that failed.
pub(crate) fn install_and_report(binfmt: &Binfmt, args: &Args) -> Result<Installation> {
    let dir = args.emulators.open()?;
    let selection = Selection::new(&args.archs);
    if let Some(seconds) = misplaced_seconds(args, &selection) {
        let others: Vec<&str> =
            args.archs.iter().map(String::as_str).filter(|arch| *arch != seconds).collect();
        let archs = if others.is_empty() { "all".to_owned() } else { others.join(" ") };
        let hint = format!("seconds follow `=`: `qus install {archs} --watch={seconds}`");
        return Err(hinted(format!("{seconds} is not an architecture"), hint));
    }
    let archs = selection.resolve(&dir)?;
    let mut installation =
        install(binfmt, &dir, &archs, &args.options(), &mut |event| report(binfmt, event))?;
    let unknown = selection.unknown.iter();
    let unknown = unknown.map(|unknown| InstallOutcome::failed(&unknown.given, unknown, unknown.hint()));
    installation.outcomes.splice(..0, unknown);
    if args.json {
        print_json(&installation.outcomes)?;
    }
    for outcome in &installation.outcomes {
        print_outcome(outcome, args.dry_run);
    }
    Ok(installation)
}

/// Reports what happens while handlers are installed.
pub(crate) fn report(binfmt: &Binfmt, event: InstallEvent<'_>) {
    match event {
        InstallEvent::Changeable(user, dir) => message(format_args!(
            "note: user {user} can change the emulators in {}; --persist copies them so that only root can",
            dir.shown()
        )),
        InstallEvent::Mounted(mounted) => {
            report_mount(binfmt.root(), mounted);
            note_user_namespace(binfmt);
        }
        InstallEvent::Persistent(dir) => {
            message(format_args!("registered at every boot with the emulators in {}", dir.shown()));
        }
    }
}

/// A number among the architectures, where `--watch SECONDS` was meant.
fn misplaced_seconds<'a>(args: &Args, selection: &'a Selection) -> Option<&'a str> {
    let is_number = |given: &&str| given.parse::<u64>().is_ok();
    args.watch.and_then(|_| selection.unknown.iter().map(|unknown| &*unknown.given).find(is_number))
}

fn report_mount(root: &Path, mounted: &Mounted) {
    match mounted {
        Mounted::Before => {}
        Mounted::Here => message(format_args!("mounted binfmt_misc at {}", root.shown())),
        Mounted::KeptElsewhere => message("mounted binfmt_misc here; the host has it mounted too"),
        Mounted::FirstProcess => {
            message("mounted binfmt_misc for process 1 too: handlers last as long as that runs");
        }
        Mounted::Shared(place) => {
            message(format_args!("mounted binfmt_misc at {} too, which the host shares", place.shown()));
        }
    }
}

pub(crate) fn print_outcome(outcome: &InstallOutcome, dry_run: bool) {
    let would = if dry_run && outcome.is_change() { "would be " } else { "" };
    let path = outcome.interpreter.as_ref().map_or(String::new(), |path| format!("  {}", path.shown()));
    let why = outcome.why.as_ref().map_or(String::new(), |why| format!("  {why}"));
    message(format_args!("{:12} {would}{}{path}{why}", outcome.arch.shown().to_string(), outcome.state));
    for Difference { field, registered, wanted } in &outcome.differences {
        let (registered, wanted) = (registered.shown(), wanted.shown());
        message(format_args!("{:12}   {field}: is {registered}, should be {wanted}", ""));
    }
    if let Some(hint) = &outcome.hint {
        message(format_args!("{:12}   hint: {hint}", ""));
    }
}
