//! What several commands share: the directory with emulators, required architectures, whose handlers are changed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use qus_core::arch::Arch;
use qus_core::binfmt::Binfmt;
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

/// The architectures that must work: `all` are those that have an emulator.
pub(crate) fn required_archs(names: &[String]) -> Result<Vec<&'static Arch>> {
    let selection = Selection::strict(names)?;
    Ok(if selection.all { selection.resolve(&emulator_dir(None)?)? } else { selection.archs })
}

/// The directory with emulators: the argument, the environment, or where they usually are.
pub(crate) fn emulator_dir(dir: Option<&Path>) -> Result<EmulatorDir> {
    // Without it neither the usual directories nor probes are found.
    if !Path::new("/proc/self").exists() {
        bail!(MountError::NoProc);
    }
    Ok(open_emulator_dir(dir)?)
}

/// The same, with the error of the library.
pub(crate) fn open_emulator_dir(dir: Option<&Path>) -> Result<EmulatorDir, EmulatorDirError> {
    let variable = ["QEMU_BIN_DIR", "QEMU_BINARY_PATH"]
        .into_iter()
        .find_map(|name| env::var_os(name).filter(|dir| !dir.is_empty()))
        .map(PathBuf::from);
    match dir.or(variable.as_deref()) {
        Some(dir) => EmulatorDir::open(dir),
        None => EmulatorDir::find(),
    }
}
