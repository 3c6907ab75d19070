//! What all commands share: where binfmt_misc is, which architectures are meant, where emulators lie.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use qus_core::arch::{Arch, UnknownArch};
use qus_core::binfmt::Binfmt;
use qus_core::emulator::{EmulatorDirError, Folder};
use qus_core::hint::hinted;
use qus_core::mount::{self, Instance};
use qus_core::text::Show;

use crate::output::say;

/// Where the kernel's list of handlers is.
pub(crate) struct Context {
    pub(crate) binfmt: Binfmt,
}

impl Context {
    pub(crate) fn new(mount: &Path) -> Self {
        Self { binfmt: Binfmt::at(mount) }
    }
}

/// Says whose handlers are changed, in a user namespace.
pub(crate) fn say_whose(binfmt: &Binfmt) {
    match mount::instance(binfmt.root()) {
        Some(Instance::Own) => {
            say("note: these handlers belong to this user namespace; the host does not see them")
        }
        Some(Instance::Outer) => say(
            "note: this user namespace has no binfmt_misc of its own; handlers are changed in the one around it, such as the host's",
        ),
        None if mount::is_initial("user") == Some(false) => {
            say("note: this is a user namespace; the host may not see these handlers");
        }
        None => {}
    }
}

/// The architectures that were asked for.
pub(crate) struct Wanted {
    pub(crate) archs: Vec<&'static Arch>,
    pub(crate) all: bool,
    pub(crate) unknown: Vec<UnknownArch>,
}

impl Wanted {
    /// Resolves names. Those that nobody knows do not keep the others from being served.
    pub(crate) fn new(names: &[String]) -> Self {
        let mut this = Self { archs: Vec::new(), all: false, unknown: Vec::new() };
        for name in names {
            match name.parse::<&'static Arch>() {
                _ if name == "all" => this.all = true,
                Ok(arch) if this.archs.contains(&arch) => {}
                Ok(arch) => this.archs.push(arch),
                Err(unknown) => this.unknown.push(unknown),
            }
        }
        this
    }

    /// Fails if a name is unknown, for commands that are all or nothing.
    pub(crate) fn known(names: &[String]) -> Result<Self> {
        let mut this = Self::new(names);
        match this.unknown.pop() {
            Some(unknown) => bail!(unknown),
            None => Ok(this),
        }
    }
}

/// The architectures to be served, in the order of the table.
pub(crate) fn archs(folder: &Folder, wanted: &Wanted) -> Result<Vec<&'static Arch>> {
    let mut archs = wanted.archs.clone();
    if wanted.all {
        let found: Vec<_> = folder.emulators.iter().map(|emulator| emulator.arch).collect();
        ensure!(
            !found.is_empty(),
            "there is no emulator in {}; name their folder with --dir, or with QEMU_BIN_DIR",
            folder.dir.shown()
        );
        archs.extend(found.into_iter().filter(|arch| !wanted.archs.contains(arch)));
    }
    archs.sort_by_key(|arch| arch.name);
    Ok(archs)
}

/// The architectures that have to work: `all` are those that have an emulator at hand.
pub(crate) fn at_hand(names: &[String]) -> Result<Vec<&'static Arch>> {
    let wanted = Wanted::known(names)?;
    if wanted.all { archs(&emulators(None)?, &wanted) } else { Ok(wanted.archs) }
}

/// The folder with emulators: the argument, the environment, or where they usually lie.
pub(crate) fn emulators(dir: Option<&Path>) -> Result<Folder> {
    // Neither a usual place nor a probe is found without it.
    if !Path::new("/proc/self").exists() {
        bail!(qus_core::mount::Error::NoProc);
    }
    let variable = ["QEMU_BIN_DIR", "QEMU_BINARY_PATH"]
        .into_iter()
        .find_map(|name| env::var_os(name).filter(|dir| !dir.is_empty()))
        .map(PathBuf::from);
    match dir.or(variable.as_deref()) {
        Some(dir) => Folder::open(dir).map_err(unusable),
        None => Folder::find()
            .map_err(unusable)
            .context("cannot find a directory with emulators; name it with --dir"),
    }
}

fn unusable(error: EmulatorDirError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => hinted(error, hint),
        None => error.into(),
    }
}
