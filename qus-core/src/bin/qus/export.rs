//! `qus export`: our rules for other programs to register.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use qus_core::binfmt::Flags;
use qus_core::emulator::{self, Emulator};
use qus_core::export;
use qus_core::probe;

use crate::context::{Wanted, emulators};
use crate::output::out;
use qus_core::text::Show;

/// Print our rules in the form of another program
///
/// Nothing is registered. Paths are those of the emulators at hand; --as names the folder in which they will
/// lie.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus export systemd all > /etc/binfmt.d/qus.conf && systemctl restart systemd-binfmt
  qus export debian aarch64 | sh
  qus export raw aarch64 > /proc/sys/fs/binfmt_misc/register    # one line at a time")]
pub(crate) struct Args {
    #[arg(value_enum)]
    format: Format,
    /// Architectures, or `all`
    #[arg(value_name = "ARCH", required = true)]
    archs: Vec<String>,
    /// Let setuid programs run as whoever starts them
    #[arg(long)]
    no_credentials: bool,
    /// Folder with emulators: qemu-ARCH or qemu-ARCH-static
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Folder in which the emulators will lie
    #[arg(long = "as", value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A file for /etc/binfmt.d
    Systemd,
    /// A script that calls update-binfmts
    Debian,
    /// A service for /etc/init.d
    Openrc,
    /// The lines that are written to the kernel's `register`
    Raw,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = emulators(args.dir.as_deref())?;
    let wanted = Wanted::known(&args.archs)?;
    let foreign = |emulator: &&Emulator| !emulator::is_own(emulator.arch);
    let asked = |emulator: &&Emulator| {
        wanted.archs.contains(&emulator.arch) || wanted.all && !probe::is_native(emulator.arch)
    };
    let mut chosen: Vec<Emulator> = folder.emulators.iter().filter(foreign).filter(asked).cloned().collect();
    let missing: Vec<_> =
        wanted.archs.iter().filter(|arch| !chosen.iter().any(|emulator| emulator.arch == **arch)).collect();
    ensure!(
        missing.is_empty() && !chosen.is_empty(),
        "there is no emulator for {} in {}",
        missing.first().map_or("any architecture".to_owned(), ToString::to_string),
        folder.dir.shown()
    );
    for emulator in &mut chosen {
        if let (Some(folder), Some(name)) = (&args.folder, emulator.path.file_name()) {
            emulator.path = folder.join(name);
        }
    }
    let flags = if args.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT };
    out(match args.format {
        Format::Systemd => export::systemd(&chosen, flags)?.into_bytes(),
        Format::Debian => export::debian(&chosen, flags)?.into_bytes(),
        Format::Openrc => export::openrc(&chosen, flags)?.into_bytes(),
        Format::Raw => export::raw(&chosen, flags)?,
    })
}
