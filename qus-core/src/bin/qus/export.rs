//! `qus export`: our rules in forms that other programs register.

use std::path::PathBuf;

use anyhow::{Result, bail};
use qus_core::binfmt::Flags;
use qus_core::emulator::{self, Emulator};
use qus_core::export;
use qus_core::install::ArchFailure;
use qus_core::probe;
use qus_core::selection::Selection;
use qus_core::text::Show;

use crate::context::EmulatorDirArgs;
use crate::output::print_data;

/// Print our rules in the form of another program
///
/// Registers nothing. The rules contain the paths of the emulators in the directory, or, with --as, in the directory in
/// which they will be. `all` selects what `qus install all` would register.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus export systemd all > /etc/binfmt.d/qus.conf && systemctl restart systemd-binfmt
  qus export debian aarch64 | sh
  qus export raw aarch64 > /proc/sys/fs/binfmt_misc/register    # the kernel reads one rule at a time")]
pub(crate) struct Args {
    #[arg(value_enum)]
    format: Format,
    /// Architectures, or `all`
    #[arg(value_name = "ARCH", required = true)]
    archs: Vec<String>,
    /// Let setuid programs run as the user who starts them
    #[arg(long)]
    no_credentials: bool,
    #[command(flatten)]
    emulators: EmulatorDirArgs,
    /// Directory in which the emulators will be when the rules are used
    #[arg(long = "as", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    target_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A file for /etc/binfmt.d
    Systemd,
    /// A script that calls update-binfmts
    Debian,
    /// A service for /etc/init.d
    Openrc,
    /// The lines that are written to `/proc/sys/fs/binfmt_misc/register`
    Raw,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.emulators.open()?;
    let selection = Selection::strict(&args.archs)?;
    let mut chosen: Vec<Emulator> = Vec::new();
    for arch in selection.resolve(&dir)? {
        let is_named = selection.archs.contains(&arch);
        if emulator::is_own(arch) && is_named {
            bail!("{arch} is this machine's own architecture, whose programs need no emulator");
        }
        if is_named || !emulator::is_own(arch) && !probe::is_native(arch) {
            let emulator = dir.get(arch).ok_or_else(|| ArchFailure::NoEmulator(arch, dir.dir.clone()))?;
            chosen.push(emulator.clone());
        }
    }
    if chosen.is_empty() {
        bail!("this machine runs natively all programs that the emulators in {} are for", dir.dir.shown());
    }
    for emulator in &mut chosen {
        if let (Some(target), Some(name)) = (&args.target_dir, emulator.path.file_name()) {
            emulator.path = target.join(name);
        }
    }
    let flags = if args.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT };
    print_data(match args.format {
        Format::Systemd => export::systemd(&chosen, flags)?.into_bytes(),
        Format::Debian => export::debian(&chosen, flags)?.into_bytes(),
        Format::Openrc => export::openrc(&chosen, flags)?.into_bytes(),
        Format::Raw => export::raw(&chosen, flags)?,
    })
}
