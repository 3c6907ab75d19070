//! `qus export`: our rules in forms that other programs register.

use std::path::PathBuf;

use anyhow::Result;
use qus_core::binfmt::Flags;
use qus_core::emulator::{self, Emulator};
use qus_core::export;
use qus_core::hint::hinted;
use qus_core::probe;
use qus_core::selection::Selection;
use qus_core::text::Show;

use crate::context::emulator_dir;
use crate::output::print_data;

/// Print our rules in the form of another program
///
/// Nothing is registered. Paths are those of the emulators in the directory; --as names the directory in which they
/// will be.
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
    /// Let setuid programs run as the user who starts them
    #[arg(long)]
    no_credentials: bool,
    /// Directory with emulators: qemu-ARCH or qemu-ARCH-static
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Directory in which the emulators will be
    #[arg(long = "as", value_name = "DIR")]
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
    /// The lines that are written to the kernel's `register`
    Raw,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = emulator_dir(args.dir.as_deref())?;
    let selection = Selection::strict(&args.archs)?;
    let foreign = |emulator: &&Emulator| !emulator::is_own(emulator.arch);
    let is_selected = |emulator: &&Emulator| {
        selection.archs.contains(&emulator.arch) || selection.all && !probe::is_native(emulator.arch)
    };
    let mut chosen: Vec<Emulator> =
        dir.emulators.iter().filter(foreign).filter(is_selected).cloned().collect();
    let missing: Vec<_> = selection
        .archs
        .iter()
        .filter(|arch| !chosen.iter().any(|emulator| emulator.arch == **arch))
        .collect();
    if !missing.is_empty() || chosen.is_empty() {
        let arch = missing.first().map_or("any architecture".to_owned(), ToString::to_string);
        return Err(hinted(
            format!("there is no emulator for {arch} in {}", dir.dir.shown()),
            "name the directory that has it with `--dir`, or in QEMU_BIN_DIR",
        ));
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
