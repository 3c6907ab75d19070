//! What several commands share: the directory with emulators, required architectures, whose handlers are changed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueHint;
use qus_core::arch::Arch;
use qus_core::binfmt::{Binfmt, MountState};
use qus_core::emulator::{EmulatorDir, EmulatorDirError};
use qus_core::mount::{self, Instance, MountError};
use qus_core::selection::Selection;

use crate::output::message;

/// Notes whose handlers are changed, in a user namespace.
pub(crate) fn note_user_namespace(binfmt: &Binfmt) {
    match mount::instance(binfmt.root()) {
        Some(Instance::Own) => {
            message("note: these handlers belong to this user namespace; the host does not see them")
        }
        Some(Instance::Outer) => message(
            "note: this user namespace has no binfmt_misc of its own; handlers are changed in the one around it, such as the host's",
        ),
        None if mount::is_initial("user") == Some(false) => {
            message("note: this is a user namespace; the host may not see these handlers");
        }
        None => {}
    }
}

/// Warns that no handler is used; with `hint`, also how to change that.
pub(crate) fn warn_switched_off(binfmt: &Binfmt, state: MountState, hint: bool) {
    message("warning: binfmt_misc is switched off: the kernel uses no handler");
    if hint {
        let command = mount::enable_command(binfmt.root(), state, "status".as_ref());
        message(format_args!("hint: as root: `{command}`"));
    }
}

/// The architectures that must work: `all` are those that have an emulator.
pub(crate) fn required_archs(names: &[String]) -> Result<Vec<&'static Arch>> {
    let selection = Selection::strict(names)?;
    Ok(if selection.all { selection.resolve(&EmulatorDirArgs::default().open()?)? } else { selection.archs })
}

/// `--host-root`, beside `--persist`.
#[derive(clap::Args)]
pub(crate) struct HostRootArgs {
    /// Root directory of the host for --persist, as it is mounted in a container
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "/", requires = "persist")]
    pub(crate) host_root: PathBuf,
}

/// `--dir`.
#[derive(clap::Args, Default)]
pub(crate) struct EmulatorDirArgs {
    /// Directory with emulators: qemu-ARCH or qemu-ARCH-static
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl EmulatorDirArgs {
    /// Opens the directory of the argument, of the environment, or the usual one.
    pub(crate) fn open(&self) -> Result<EmulatorDir> {
        // Without it neither the usual directories nor probes are found.
        if !Path::new("/proc/self").exists() {
            bail!(MountError::NoProc);
        }
        Ok(self.try_open()?)
    }

    /// The same, with the error of the library.
    pub(crate) fn try_open(&self) -> Result<EmulatorDir, EmulatorDirError> {
        let variable = ["QEMU_BIN_DIR", "QEMU_BINARY_PATH"]
            .into_iter()
            .find_map(|name| env::var_os(name).filter(|dir| !dir.is_empty()))
            .map(PathBuf::from);
        match self.dir.as_deref().or(variable.as_deref()) {
            Some(dir) => EmulatorDir::open(dir),
            None => EmulatorDir::find(),
        }
    }
}
